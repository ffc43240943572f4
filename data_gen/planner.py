"""The order in a self-instruct run: what request i asks, and how its reply is accepted. Nothing is sent or stored here.

Determinism without barriers: requests are numbered, replies are *accepted in that order* whenever they arrive, and
request i is a function of (seed, i, what requests up to its `view` gave), where view ≥ i − pool_lag. Speed, order of
arrival and a kill do not change the data. Held-out by construction: a request belongs to one side, draws seeds and
items of that side only, and its items inherit it, so nothing held out descends from a training seed.
"""

import random
from collections import Counter, deque
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from typing import Any, TextIO

from data_gen import UsageError
from data_gen.config import SelfInstructConfig
from data_gen.dedup import RougePool
from data_gen.filters import reject_reason
from data_gen.journal import Request, request_key
from data_gen.prompt import Task, build_messages, parse_reply
from data_gen.record import Item, Record, canonical_json, item_messages, record_id

STALL_REQUESTS = 50  # the acceptance rate is watched over this many
TARGET_REACHED = "target_reached"

Cell = tuple[str, str]  # (task, side)


@dataclass
class State:
    """Everything accepted so far, and what the planner may know of it."""

    config: SelfInstructConfig
    tasks: dict[str, Task]
    goals: dict[Cell, int]
    pool: RougePool
    rejects_file: TextIO
    requests: list[Request] = field(default_factory=list)
    replies: dict[int, str | None] = field(default_factory=dict)  # here, but not yet accepted; None: failed
    accepted: list[list[tuple[str, Item]]] = field(default_factory=list)  # of request 0, 1, 2 …
    records: list[Record] = field(default_factory=list)
    total: Counter[Cell] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    recent: deque[Counter[str]] = field(default_factory=lambda: deque(maxlen=STALL_REQUESTS))
    failed: int = 0
    # The planner's knowledge: requests up to `view`.
    view: int = -1
    known: dict[Cell, list[tuple[str, Item]]] = field(default_factory=dict)
    asked: Counter[Cell] = field(default_factory=Counter)


def _learn(state: State, view: int) -> None:
    """Lets the planner know what the requests up to `view` gave."""
    for idx in range(state.view + 1, view + 1):
        cell = (state.requests[idx].task, state.requests[idx].side)
        state.asked[cell] += 1
        state.known.setdefault(cell, []).extend(state.accepted[idx])
    state.view = max(state.view, view)


def _neediest(state: State) -> Cell | None:
    """The cell that lacks the largest share of its goal, counting on what is under way; None when nothing seems to
    lack.
    """
    under_way = Counter((request.task, request.side) for request in state.requests[state.view + 1 :])
    best, most = None, 0.0
    for cell, goal in state.goals.items():
        known = len(state.known.get(cell, ()))
        per_request = (known + state.config.items_per_request) / (state.asked[cell] + 1)
        lack = (goal - known - under_way[cell] * per_request) / goal
        if lack > most:
            best, most = cell, lack
    return best


def plan(state: State) -> Request | None:
    """The next request, or None: nothing to ask before a reply under way is accepted, or (with nothing under way) ever.

    A request sees what came up to pool_lag requests before it. When what is under way should reach the goals, nothing
    is asked on suspicion: the next one waits for all of it and sees all of it. Raises UsageError instead of asking more
    when hardly anything is accepted any more.
    """
    idx, config = len(state.requests), state.config
    last_view = state.requests[-1].view if state.requests else -1
    for view in (max(last_view, idx - config.pool_lag), idx - 1):
        if view >= len(state.accepted):
            return None
        _learn(state, view)
        if cell := _neediest(state):
            if why := _stalled(state):
                raise UsageError(f"{why}, so the targets are out of reach. {_within_reach(state)}")
            return _build(state, idx, cell)
    return None


def _build(state: State, idx: int, cell: Cell) -> Request:
    config, (name, side) = state.config, cell
    task, rng = state.tasks[name], random.Random(f"{state.config.seed} request {idx}")
    seeds, items = task.seeds[side], state.known.get(cell, [])
    demos = rng.sample(seeds, min(config.seeds_per_prompt, len(seeds)))
    demos += rng.sample(items, min(config.pool_per_prompt, len(items)))
    rng.shuffle(demos)
    fields: dict[str, Any] = {
        "model": config.teacher.model,
        "messages": build_messages(task, [item for _, item in demos], config.items_per_request),
        config.teacher.max_tokens_field: config.max_tokens,
    }
    if config.temperature is not None:
        fields["temperature"] = config.temperature
    if config.teacher.seed:
        fields["seed"] = rng.getrandbits(31)
    body = canonical_json(fields)
    key = request_key(body, config.teacher.base_url)
    return Request(idx, key, name, side, state.view, tuple(item_id for item_id, _ in demos), body)


def accept_ready(state: State) -> None:
    """Accepts the replies that are next in order."""
    while (idx := len(state.accepted)) in state.replies:
        _accept(state, state.requests[idx], state.replies.pop(idx))
        state.requests[idx] = replace(state.requests[idx], body="", reply=None)  # long, and not needed any more


def _stalled(state: State) -> str:
    """Why asking more is no use, or ""."""
    if len(state.recent) < STALL_REQUESTS:
        return ""
    seen: Counter[str] = sum(state.recent, Counter())
    if not seen:
        return f"the last {STALL_REQUESTS} requests gave no items at all"
    del seen[TARGET_REACHED]
    if seen["accepted"] >= state.config.min_acceptance * seen.total():
        return ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in seen.most_common(3))
    rate = f"min_acceptance={state.config.min_acceptance:g}"
    return f"of the last {STALL_REQUESTS} requests' {seen.total()} items hardly any was accepted ({reasons}; {rate})"


def _within_reach(state: State) -> str:
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


def _accept(state: State, request: Request, reply: str | None) -> None:
    """Parses one reply; what passes the filters goes in order through the ROUGE-L pool until the goal is reached."""
    cell, outcome, kept = (request.task, request.side), Counter[str](), list[tuple[str, Item]]()
    candidates: list[tuple[str, Item]] = []
    state.failed += reply is None
    for item, fault in parse_reply(request.task, state.config.language, reply) if reply is not None else ():
        if reason := fault or reject_reason(item):
            outcome[reason] += 1
            _reject(state, request, item, reason)
        else:
            candidates.append((record_id(item_messages(item)), item))
    room = state.goals.get(cell, 0) - state.total[cell]
    matches = state.pool.admit([(item_id, compared_text(item)) for item_id, item in candidates], limit=room)
    for (item_id, item), match in zip_longest(candidates, matches):
        if match is None or not match.accepted:
            reason = TARGET_REACHED if match is None else "similar"
            outcome[reason] += 1
            _reject(state, request, item, reason, **({"rouge": match.score, "nearest": match.nearest} if match else {}))
            continue
        meta = {
            "request": request.key,
            "teacher": state.config.teacher.model,
            "prompt": state.tasks[request.task].prompt_digest,
            "side": request.side,
            "demos": list(request.demos),
            "rouge": round(match.score, 4),
            "nearest": match.nearest,
        }
        messages = item_messages(item)
        state.records.append(Record(item_id, "self_instruct", request.task, item.language, meta, messages=messages))
        kept.append((item_id, item))
    outcome["accepted"] = len(kept)
    state.recent.append(outcome)
    state.total[cell] += len(kept)
    state.accepted.append(kept)


def compared_text(item: Item) -> str:
    """What the ROUGE-L filter looks at: one instruction may rightly come with many inputs."""
    return f"{item.instruction} {item.input}"


def _reject(state: State, request: Request, item: Item, reason: str, **why: Any) -> None:
    state.rejected[reason] += 1
    line = {"reason": reason, "request": request.key, "side": request.side, **why, **asdict(item)}
    state.rejects_file.write(canonical_json(line) + "\n")
