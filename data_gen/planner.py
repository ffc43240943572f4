"""The self-instruct recipe for the engine: what request i asks. Nothing is sent here; what is kept of a reply, acceptance.py says.

    planned ─► accepted, in order ─► settled: its items are accepted or rejected           (no question about them)
                              └────► pending ─► its questions due ─► planned ─► accepted ─► settled by the last of them

Request i is a function of (seed, i, what requests up to its `view` gave), where view = i − pool_lag: a constant, however many
requests are in flight. Only when what is under way should reach the goals it waits for all of it, and view = i − 1. A request
asks for items, or (first of all) what a model says of items that came up to its view. Held-out by construction: a request belongs
to one side, draws seeds and items of that side only, and its items inherit it, so nothing held out descends from a training seed.
"""

import json
import random
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_gen import UsageError
from data_gen.acceptance import TARGET_REACHED, Acceptance, Cell, Place, Settled
from data_gen.config import SelfInstructConfig
from data_gen.journal import ACCEPTED, Request
from data_gen.judging import Question, question_body
from data_gen.languages import ENGLISH, load_pack
from data_gen.prompt import build_body, build_messages, parse_reply, response_format
from data_gen.record import Item, Record, item_messages
from data_gen.seeds import load_task
from data_gen.sources import read_english
from data_gen.task import JSON_SCHEMA, Task

STALL_REQUESTS = 50  # the acceptance rate is watched over this many

Asked = tuple[int, str, int]  # the request whose items a question is about, its check, its sample


@dataclass
class SelfInstruct:
    """What the planner may know of all that was accepted. Memory: a few words an item; texts are in the journal."""

    config: SelfInstructConfig
    acceptance: Acceptance
    pool_lag: int
    sources: dict[str, list[tuple[str, Item]]]  # by side: the English items to translate
    # The planner's knowledge: requests up to `view`.
    view: int = -1
    known: dict[Cell, list[list[Place]]] = field(default_factory=dict)  # accepted items, a list a reply
    asked: Counter[Cell] = field(default_factory=Counter)
    languages: dict[Cell, Counter[str]] = field(default_factory=dict)  # of the accepted items
    recent: deque[Counter[str]] = field(default_factory=lambda: deque(maxlen=STALL_REQUESTS))
    due: dict[Asked, Question] = field(default_factory=dict)  # questions to be asked, in order
    # Of requests after `view`, oldest first: what each settled, and the questions that it left open.
    gave: deque[tuple[Settled | None, dict[Asked, Question]]] = field(default_factory=deque)
    under_way: Counter[Cell] = field(default_factory=Counter)  # asked for, not settled as far as is known
    taken: Counter[Cell] = field(default_factory=Counter)  # English items given to be translated
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
            if self.due:
                return _ask(self, idx)
            if cell := _neediest(self):
                if why := _stalled(self):
                    raise UsageError(f"{why}, so the targets are out of reach. {_within_reach(self)}")
                return _build(self, idx, cell)
        return None

    def planned(self, request: Request) -> None:
        """As engine.Recipe: the planner counts on it from now on."""
        about = request.about
        _learn(self, min(about["view"], self.view + len(self.gave)))
        self.last_view = about["view"]
        if "check" in about:
            self.due.pop((about["of"], about["check"], about["sample"]), None)
        else:
            self.under_way[about["task"], about["side"]] += 1
            self.taken[about["task"], about["side"]] += len(about.get("translates", ()))

    def accept(self, request: Request, reply: str | None) -> None:
        """As engine.Recipe: takes one reply; its items are judged, or its verdicts are taken."""
        if "check" in request.about:
            settled, again = self.acceptance.answer(request, reply)
            self.gave.append((settled, {(request.about["of"], again.check, again.sample): again} if again else {}))
            return
        settled = self.acceptance.judge(request, *_read(self, request, reply))
        pending = self.acceptance.pending.get(request.idx)
        self.gave.append((settled, {(request.idx, one.check, one.sample): one for one in pending.questions} if pending else {}))


def _learn(state: SelfInstruct, view: int) -> None:
    """Lets the planner know what the requests up to `view` gave."""
    for _ in range(state.view + 1, view + 1):
        settled, questions = state.gave.popleft()
        state.due |= questions
        if settled:
            state.under_way[settled.cell] -= 1
            state.asked[settled.cell] += 1
            state.known.setdefault(settled.cell, []).extend([settled.places] if settled.places else [])
            state.languages[settled.cell] = state.languages.get(settled.cell, Counter()) + settled.languages
            if TARGET_REACHED not in settled.outcomes:  # there only the rest was judged
                state.recent.append(settled.outcomes)
    state.view = max(state.view, view)


def _neediest(state: SelfInstruct) -> Cell | None:
    """The cell that lacks the largest share of its goal, counting on what is under way; None when nothing seems to
    lack.
    """
    best, most = None, 0.0
    for cell, goal in state.acceptance.goals.items():
        if _exhausted(state, cell):
            continue
        known = sum(map(len, state.known.get(cell, ())))
        per_request = (known + state.config.items_per_request) / (state.asked[cell] + 1)
        lack = (goal - known - state.under_way[cell] * per_request) / goal
        if lack > most:
            best, most = cell, lack
    return best


def _exhausted(state: SelfInstruct, cell: Cell) -> bool:
    """Whether all English items of a side have been given to be translated."""
    translates = state.acceptance.tasks[cell[0]].rules.source == ENGLISH
    return translates and state.taken[cell] >= len(state.sources[cell[1]])


def _ask(state: SelfInstruct, idx: int) -> tuple[str, dict[str, Any]]:
    """The oldest question that is due."""
    of, check, sample = next(iter(state.due))
    question, pending = state.due[of, check, sample], state.acceptance.pending[of]
    task, rng = state.acceptance.tasks[pending.cell[0]], random.Random(f"{state.config.seed} request {idx}")
    items = [pending.items[number] for number in question.numbers]
    about = {"check": check, "sample": sample, "of": of, "numbers": list(question.numbers), "view": state.view}
    about |= {"task": pending.cell[0], "side": pending.cell[1]}
    return question_body(state.config, task, question, items, rng), about


def _build(state: SelfInstruct, idx: int, cell: Cell) -> tuple[str, dict[str, Any]]:
    config, (name, side) = state.config, cell
    task, rng = state.acceptance.tasks[name], random.Random(f"{config.seed} request {idx}")
    about: dict[str, Any] = {"task": name, "side": side, "view": state.view}
    if task.rules.source == ENGLISH:
        first = state.taken[cell]
        shown = state.sources[side][first : first + config.items_per_request]
        about["translates"] = [source_id for source_id, _ in shown]
    else:
        shown = [*_seeds(task, side, config.seeds_per_prompt, rng), *_pool_items(state, cell, rng)]
        rng.shuffle(shown)
        about["demos"] = [item_id for item_id, _ in shown]
    return request_body(config, task, [item for _, item in shown], rng, _lacking(state, cell, task)), about


def _lacking(state: SelfInstruct, cell: Cell, task: Task) -> str:
    """Which language of the answers alone is still wanted, in a balanced task where the other has its part; else ""."""
    if task.rules.balance != "language":
        return ""
    own, known = {task.pack.code: task.pack.name, ENGLISH: "English"}, state.languages.get(cell, Counter())
    open_ones = [name for code, name in own.items() if known[code] < state.acceptance.part(cell)]
    return open_ones[0] if len(open_ones) == 1 else ""


def _seeds(task: Task, side: str, count: int, rng: random.Random) -> list[tuple[str, Item]]:
    """`count` seeds of as many topics as there are, each topic as likely as any other."""
    by_topic: dict[str, list[tuple[str, Item]]] = {}
    for seed in rng.sample(task.seeds[side], len(task.seeds[side])):
        by_topic.setdefault(seed[1].topic, []).append(seed)
    topics = [by_topic[topic] for topic in rng.sample(sorted(by_topic), len(by_topic))]
    rounds = [seeds[n] for n in range(max(map(len, topics))) for seeds in topics if n < len(seeds)]
    return rounds[:count]


def _pool_items(state: SelfInstruct, cell: Cell, rng: random.Random) -> list[tuple[str, Item]]:
    """Items accepted before, each of another reply: those of one reply were written for the same topics."""
    replies = state.known.get(cell, [])
    places = [rng.choice(reply) for reply in rng.sample(replies, min(state.config.pool_per_prompt, len(replies)))]
    return [_read_item(state.acceptance.journal.item(*place))[:2] for place in places]


def request_body(config: SelfInstructConfig, task: Task, shown: Sequence[Item], rng: random.Random, only: str = "") -> str:
    """The exact text of a request that shows some items and asks for more, or for their translation. `only`: the language that all
    answers are to be in, where others are not wanted any more.
    """
    count = len(shown) if task.rules.source == ENGLISH else config.items_per_request
    messages = build_messages(task, shown, count)
    if only:
        messages[-1]["content"] += f"\n\nThis time write only items whose answer is in {only}."
    if task.reply_format == JSON_SCHEMA:
        return build_body(config, messages, rng, response_format=response_format())
    return build_body(config, messages, rng)


def _read(
    state: SelfInstruct, request: Request, reply: str | None
) -> tuple[list[tuple[Item, str | None]], dict[str, Any], Sequence[tuple[str, Item]]]:
    """(the items of a reply, what their records say of where they come from, the English items that they translate)."""
    task, about = state.acceptance.tasks[request.about["task"]], request.about
    parsed = parse_reply(task, reply) if reply is not None else []
    meta = {"request": request.key, "teacher": state.config.teacher.model, "prompt": task.prompt_digest, "side": about["side"]}
    if "translates" not in about:
        return parsed, {**meta, "demos": about["demos"]}, ()
    wanted = dict(state.sources[about["side"]])
    originals = [(source_id, wanted[source_id]) for source_id in about["translates"]]
    return _in_step(parsed, originals), meta, originals


def _in_step(parsed: list[tuple[Item, str | None]], originals: Sequence[tuple[str, Item]]) -> list[tuple[Item, str | None]]:
    """Translations go with their originals by order. Where their number differs, all are malformed, but for a reply cut off."""
    cut = any(fault == "truncated" for _, fault in parsed)
    whole = len(parsed) == len(originals) or (cut and len(parsed) < len(originals))
    if not whole:
        return [(item, fault or "malformed") for item, fault in parsed[: len(originals)]]
    return [
        (item, fault or (None if bool(item.input) == bool(original.input) else "malformed"))
        for (item, fault), (_, original) in zip(parsed, originals, strict=False)
    ]


def _stalled(state: SelfInstruct) -> str:
    """Why asking more is no use, or ""."""
    if len(state.recent) < STALL_REQUESTS:
        return ""
    seen: Counter[str] = sum(state.recent, Counter())
    if not seen:
        return f"the last {STALL_REQUESTS} requests gave no items at all"
    items, accepted = seen.total(), seen.pop(ACCEPTED, 0)
    if accepted >= state.config.min_acceptance * items:
        return ""
    reasons = ", ".join(f"{reason} {count}" for reason, count in seen.most_common(3))
    rate = f"min_acceptance={state.config.min_acceptance:g}"
    return f"of the last {STALL_REQUESTS} requests' {items} items hardly any was accepted ({reasons}; {rate})"


def _within_reach(state: SelfInstruct) -> str:
    """What to do about targets out of reach; names the largest ones that are met already."""
    config, total = state.config, state.acceptance.total
    targets = config.wanted()
    met = {
        name: next(n for n in range(target, -1, -1) if all(total[cell] >= goal for cell, goal in cells_of(config, name, n)))
        for name, target in targets.items()
    }
    more = "To get more, add seeds and give another --workdir."
    if not any(met.values()):
        return more
    scaled = any(count != getattr(config.targets, name) for name, count in targets.items())
    lower = " ".join(f"--config.targets.{name}={met[name]}" for name in targets if scaled or met[name] < targets[name])
    lower += " --config.scale=1 --config.offline_scale=1" * scaled
    return f"To write what was accepted, lower them with the same --workdir: {lower}. {more}"


def cells_of(config: SelfInstructConfig, task: str, target: int) -> list[tuple[Cell, int]]:
    """Items wanted of a task's sides: 90 to train on and heldout_share=0.1 make 10 held out (at least 1)."""
    if not target:
        return []
    heldout = max(1, round(target * config.heldout_share / (1 - config.heldout_share))) if config.heldout_share else 0
    return [((task, "train"), target), *([((task, "heldout"), heldout)] if heldout else [])]


def _read_item(line: str) -> tuple[str, Item, dict[str, Any]]:
    """(id, item, provenance) of an accepted item's line."""
    fields = json.loads(line)
    item_id, meta = fields.pop("id"), fields.pop("meta")
    return item_id, Item(**fields), meta


def read_record(line: str) -> Record:
    """The record of an accepted item's line."""
    item_id, item, meta = _read_item(line)
    return Record(item_id, "self_instruct", item.task, item.language, meta, messages=item_messages(item))


def load_tasks(config: SelfInstructConfig, names: Iterable[str]) -> dict[str, Task]:
    """Tasks with the config's split of their seeds and its form of a reply."""
    pack, form, share = load_pack(config.language), config.teacher.reply_format, config.heldout_share
    return {name: load_task(name, pack, heldout_share=share, seed=config.seed, reply_format=form) for name in names}


def load_material(config: SelfInstructConfig) -> tuple[dict[str, Task], dict[str, list[tuple[str, Item]]], dict[str, str]]:
    """(the tasks wanted, the English items to translate by side, what all of this is by digest)."""
    tasks = load_tasks(config, config.wanted())
    digests, sources = {name: task.digest for name, task in tasks.items()}, dict[str, list[tuple[str, Item]]]()
    if config.translate:
        sources, digests["translate"] = read_english(config.translate, config.heldout_share)
    return tasks, sources, digests
