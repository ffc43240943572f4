"""The self-instruct recipe for the engine: what request i asks, and which items of its reply are kept. Nothing is sent here.

Request i is a function of (seed, i, what requests up to its `view` gave), where view = i − pool_lag: a constant, however many
requests are in flight. Only when what is under way should reach the goals it waits for all of it, and view = i − 1. Held-out by
construction: a request belongs to one side, draws seeds and items of that side only, and its items inherit it, so nothing held
out descends from a training seed.
"""

import json
import random
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from data_gen import UsageError
from data_gen.config import SelfInstructConfig
from data_gen.dedup import RougePool
from data_gen.filters import reject_reason
from data_gen.journal import ACCEPTED, Journal, Request
from data_gen.prompt import Task, build_messages, load_task, parse_reply, response_format
from data_gen.record import Item, Record, canonical_json, item_messages, record_id

STALL_REQUESTS = 50  # the acceptance rate is watched over this many
TARGET_REACHED = "target_reached"

Cell = tuple[str, str]  # (task, side)
Place = tuple[int, int]  # of an accepted item in the journal: (request, number in its reply)


@dataclass
class SelfInstruct:
    """Everything accepted so far, and what the planner may know of it. Memory: a few words an item; texts are in the journal."""

    config: SelfInstructConfig
    tasks: dict[str, Task]
    goals: dict[Cell, int]
    pool: RougePool
    journal: Journal
    pool_lag: int
    total: Counter[Cell] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    # The planner's knowledge: requests up to `view`.
    view: int = -1
    known: dict[Cell, list[Place]] = field(default_factory=dict)
    asked: Counter[Cell] = field(default_factory=Counter)
    recent: deque[Counter[str]] = field(default_factory=lambda: deque(maxlen=STALL_REQUESTS))
    # Of requests after `view`, oldest first: what they are for, and (of those accepted) what they gave.
    cells: deque[Cell] = field(default_factory=deque)
    under_way: Counter[Cell] = field(default_factory=Counter)
    gave: deque[tuple[list[Place], Counter[str]]] = field(default_factory=deque)
    last_view: int = -1  # of the newest request

    def plan(self, idx: int, accepted: int) -> tuple[str, dict[str, Any]] | None:
        """As engine.Recipe: the next request, or None.

        A request sees what came up to pool_lag requests before it. When what is under way should reach the goals, nothing
        is asked on suspicion: the next one waits for all of it and sees all of it. Raises UsageError instead of asking more
        when hardly anything is accepted any more.
        """
        for view in (max(self.last_view, idx - self.pool_lag), idx - 1):
            if view >= accepted:
                return None
            _learn(self, view)
            if cell := _neediest(self):
                if why := _stalled(self):
                    raise UsageError(f"{why}, so the targets are out of reach. {_within_reach(self)}")
                return _build(self, idx, cell)
        return None

    def planned(self, request: Request) -> None:
        """As engine.Recipe: the planner counts on it from now on."""
        cell = (request.about["task"], request.about["side"])
        self.cells.append(cell)
        self.under_way[cell] += 1
        self.last_view = request.about["view"]

    def accept(self, request: Request, reply: str | None) -> None:
        """As engine.Recipe: parses one reply; its items are judged and kept or rejected."""
        self.gave.append(_accept(self, request, reply))


def _learn(state: SelfInstruct, view: int) -> None:
    """Lets the planner know what the requests up to `view` gave."""
    for _ in range(state.view + 1, view + 1):
        cell, (places, outcomes) = state.cells.popleft(), state.gave.popleft()
        state.under_way[cell] -= 1
        state.asked[cell] += 1
        state.known.setdefault(cell, []).extend(places)
        state.recent.append(outcomes)
    state.view = max(state.view, view)


def _neediest(state: SelfInstruct) -> Cell | None:
    """The cell that lacks the largest share of its goal, counting on what is under way; None when nothing seems to
    lack.
    """
    best, most = None, 0.0
    for cell, goal in state.goals.items():
        known = len(state.known.get(cell, ()))
        per_request = (known + state.config.items_per_request) / (state.asked[cell] + 1)
        lack = (goal - known - state.under_way[cell] * per_request) / goal
        if lack > most:
            best, most = cell, lack
    return best


def _build(state: SelfInstruct, idx: int, cell: Cell) -> tuple[str, dict[str, Any]]:
    config, (name, side) = state.config, cell
    task, rng = state.tasks[name], random.Random(f"{state.config.seed} request {idx}")
    seeds, places = task.seeds[side], state.known.get(cell, [])
    demos = rng.sample(seeds, min(config.seeds_per_prompt, len(seeds)))
    demos += [_read_item(state.journal.item(*place))[:2] for place in rng.sample(places, min(config.pool_per_prompt, len(places)))]
    rng.shuffle(demos)
    about = {"task": name, "side": side, "view": state.view, "demos": [item_id for item_id, _ in demos]}
    return request_body(config, task, [item for _, item in demos], rng), about


def request_body(config: SelfInstructConfig, task: Task, demos: list[Item], rng: random.Random) -> str:
    """The exact text of a request that shows `demos`."""
    fields: dict[str, Any] = {
        "model": config.teacher.model,
        "messages": build_messages(task, demos, config.items_per_request),
        config.teacher.max_tokens_field: config.max_tokens,
    }
    if config.temperature is not None:
        fields["temperature"] = config.temperature
    if config.teacher.seed:
        fields["seed"] = rng.getrandbits(31)
    if config.teacher.reply_format == "json_schema":
        fields["response_format"] = response_format()
    return canonical_json(fields)


def _stalled(state: SelfInstruct) -> str:
    """Why asking more is no use, or ""."""
    if len(state.recent) < STALL_REQUESTS:
        return ""
    seen: Counter[str] = sum(state.recent, Counter())
    if not seen:
        return f"the last {STALL_REQUESTS} requests gave no items at all"
    del seen[TARGET_REACHED]
    if seen[ACCEPTED] >= state.config.min_acceptance * seen.total():
        return ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in seen.most_common(3))
    rate = f"min_acceptance={state.config.min_acceptance:g}"
    return f"of the last {STALL_REQUESTS} requests' {seen.total()} items hardly any was accepted ({reasons}; {rate})"


def _within_reach(state: SelfInstruct) -> str:
    """What to do about targets out of reach; names the largest ones that are met already."""
    config = state.config
    targets = asdict(config.targets)
    met = {
        name: next(n for n in range(target, -1, -1) if all(state.total[cell] >= goal for cell, goal in cells_of(config, name, n)))
        for name, target in targets.items()
    }
    more = "To get more, add seeds and give another --workdir."
    if not any(met.values()):
        return more
    lower = " ".join(f"--config.targets.{name}={met[name]}" for name in targets if met[name] < targets[name])
    return f"To write what was accepted, lower them with the same --workdir: {lower}. {more}"


def cells_of(config: SelfInstructConfig, task: str, target: int) -> list[tuple[Cell, int]]:
    """Items wanted of a task's sides: 90 to train on and heldout_share=0.1 make 10 held out (at least 1)."""
    if not target:
        return []
    heldout = max(1, round(target * config.heldout_share / (1 - config.heldout_share))) if config.heldout_share else 0
    return [((task, "train"), target), *([((task, "heldout"), heldout)] if heldout else [])]


def _accept(state: SelfInstruct, request: Request, reply: str | None) -> tuple[list[Place], Counter[str]]:
    """What passes the filters goes in order through the ROUGE-L pool until the goal is reached. Where the kept items are, and how
    many items had which outcome.
    """
    task, side, config = request.about["task"], request.about["side"], state.config
    parsed = parse_reply(task, config.language, reply, config.teacher.reply_format) if reply is not None else []
    reasons = [fault or reject_reason(item) for item, fault in parsed]
    ids = [record_id(item_messages(item)) for item, _ in parsed]
    candidates = [(ids[n], compared_text(item)) for n, (item, _) in enumerate(parsed) if not reasons[n]]
    room = state.goals.get((task, side), 0) - state.total[task, side]
    matches = iter(state.pool.admit(candidates, limit=room))
    rows, kept, outcomes = list[tuple[str, str, str]](), list[Place](), Counter[str]()
    for n, (item, _) in enumerate(parsed):
        match = None if reasons[n] else next(matches, None)
        outcome = reasons[n] or (TARGET_REACHED if match is None else ACCEPTED if match.accepted else "similar")
        why = {"rouge": round(match.score, 4), "nearest": match.nearest} if match else {}
        if outcome == ACCEPTED:
            kept.append((request.idx, n))
            line = _line(item, id=ids[n], meta=_provenance(state, request) | why)
        else:
            line = _line(item, reason=outcome, request=request.key, side=side, **why)
        rows.append((outcome, side, line))
        outcomes[outcome] += 1
    state.journal.keep_items(request.idx, rows)
    state.rejected += outcomes
    del state.rejected[ACCEPTED]
    state.total[task, side] += len(kept)
    return kept, outcomes


def _provenance(state: SelfInstruct, request: Request) -> dict[str, Any]:
    """What a record says of where it comes from."""
    return {
        "request": request.key,
        "teacher": state.config.teacher.model,
        "prompt": state.tasks[request.about["task"]].prompt_digest,
        "side": request.about["side"],
        "demos": request.about["demos"],
    }


def _line(item: Item, **more: Any) -> str:
    return canonical_json({**more, **asdict(item)})


def _read_item(line: str) -> tuple[str, Item, dict[str, Any]]:
    """(id, item, provenance) of an accepted item's line."""
    fields = json.loads(line)
    item_id, meta = fields.pop("id"), fields.pop("meta")
    return item_id, Item(**fields), meta


def read_record(line: str) -> Record:
    """The record of an accepted item's line."""
    item_id, item, meta = _read_item(line)
    return Record(item_id, "self_instruct", item.task, item.language, meta, messages=item_messages(item))


def load_tasks(config: SelfInstructConfig) -> dict[str, Task]:
    """The tasks that have a target, with the config's split of their seeds and its form of a reply."""
    form = config.teacher.reply_format
    return {
        name: load_task(name, heldout_share=config.heldout_share, seed=config.seed, reply_format=form)
        for name, target in asdict(config.targets).items()
        if target
    }


def compared_text(item: Item) -> str:
    """What the ROUGE-L filter looks at: one instruction may rightly come with many inputs."""
    return f"{item.instruction} {item.input}"
