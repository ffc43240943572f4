"""What becomes of the items of a reply: filters, duplicates, checks. It sends nothing; planner.py asks what is to be asked.

An item is rejected with its reason, or admitted: nothing that is computed speaks against it. If its task has checks that must be
asked of a model, it waits as a `Pending` for their replies; then it is accepted or rejected after all. What is admitted stays in
the pools in either case, so what comes after it does not depend on when a verdict comes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import ceil
from typing import Any

from data_gen.checks import check_reason, check_scores
from data_gen.config import SelfInstructConfig
from data_gen.contamination import contaminated
from data_gen.dedup import Match, NearPool, RougePool
from data_gen.filters import reject_reason
from data_gen.journal import ACCEPTED, WAITING, Journal, Request
from data_gen.judging import AGAIN, Question, Verdict, left_out, questions, read_answers, verdict
from data_gen.language_id import Identifier, wrong_language
from data_gen.record import SIDES, Item, answer_text, canonical_json, item_messages, record_id
from data_gen.task import Task

TARGET_REACHED = "target_reached"
ANSWER_WORDS = 20  # a shorter answer, a label or a fact in one sentence, may rightly come again
REASONS = (
    TARGET_REACHED, "malformed", "malformed_turns", "truncated", "language_id", "contaminated", "similar", "similar_answer",
    "near_training", "near_heldout", "balance_reached",
)  # fmt: skip

Cell = tuple[str, str]  # (task, side)
Place = tuple[int, int]  # of an accepted item in the journal: (request, number in its reply)


@dataclass
class Pools:
    """All that was admitted so far: what a new item must differ from. One pool over all tasks; the sides apart from each other."""

    instructions: RougePool
    answers: NearPool
    sides: dict[str, NearPool]

    def refusal(self, item: Item, side: str) -> tuple[str | None, Match]:
        """(the reason against an item, how near its instruction came to what is there)."""
        match = self.instructions.match(compared_text(item))
        if not match.accepted:
            return "similar", match
        if not self.answers.match(answer_text(item)).accepted:
            return "similar_answer", match
        other = SIDES[side == SIDES[0]]
        if not self.sides[other].match(whole_text(item)).accepted:
            return ("near_training" if side == "heldout" else "near_heldout"), match
        return None, match

    def add(self, item_id: str, item: Item, side: str) -> None:
        self.instructions.add(item_id, compared_text(item))
        self.answers.add(item_id, answer_text(item))
        self.sides[side].add(item_id, whole_text(item))


def make_pools(config: SelfInstructConfig, tasks: Mapping[str, Task]) -> Pools:
    """The pools with the seeds of both sides in them: an item near one held out is never trained on."""
    near = {side: NearPool(config.heldout_threshold) for side in SIDES}
    answers = NearPool(config.answer_threshold, min_words=ANSWER_WORDS)
    pools = Pools(RougePool(config.rouge_threshold), answers, near)
    for task in tasks.values():
        for side in SIDES:
            for seed_id, item in task.seeds[side]:
                pools.add(seed_id, item, side)
    return pools


def compared_text(item: Item) -> str:
    """What the ROUGE-L filter looks at: one instruction may rightly come with many inputs."""
    return f"{item.instruction} {item.input}"


def whole_text(item: Item) -> str:
    return f"{item.instruction} {item.input} {item.output}"


@dataclass(frozen=True)
class Settled:
    """What the items of one reply came to: the cell it was for, where the accepted ones are, how many had which outcome, and of
    the accepted ones which language.
    """

    cell: Cell
    places: list[Place]
    outcomes: Counter[str]
    languages: Counter[str]


@dataclass
class Pending:
    """The admitted items of a reply, by number, and what is asked about them. `original`: English texts that they translate."""

    request: Request
    cell: Cell
    items: dict[int, Item]
    meta: dict[int, dict[str, Any]]
    original: dict[int, str]
    questions: list[Question]
    outcomes: Counter[str]
    answers: dict[tuple[str, int], dict[int, str]] = field(default_factory=dict)

    def open(self) -> bool:
        return any((one.check, one.sample) not in self.answers for one in self.questions)


@dataclass
class Acceptance:
    """Judges items in the order of their replies. `total` counts what was accepted, `waiting` what was admitted and is being asked
    about, both by cell and by (cell, language).
    """

    config: SelfInstructConfig
    tasks: Mapping[str, Task]
    goals: Mapping[Cell, int]
    journal: Journal
    pools: Pools
    identifier: Identifier | None = None
    evaluation: frozenset[int] = frozenset()
    total: Counter[Cell] = field(default_factory=Counter)
    waiting: Counter[Cell] = field(default_factory=Counter)
    by_language: Counter[tuple[Cell, str]] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    pending: dict[int, Pending] = field(default_factory=dict)  # by the number of the request that gave the items

    def judge(
        self,
        request: Request,
        parsed: Sequence[tuple[Item, str | None]],
        meta: Mapping[str, Any],
        originals: Sequence[tuple[str, Item]] = (),
    ) -> Settled | None:
        """Takes the items of a reply in order; `originals` are the English ones (with their ids) that they translate. None:
        questions about them are open now, in `pending`.
        """
        cell = (request.about["task"], request.about["side"])
        task, rows, outcomes = self.tasks[cell[0]], list[tuple[str, str, str]](), Counter[str]()
        items, metas = dict[int, Item](), dict[int, dict[str, Any]]()
        for number, (item, fault) in enumerate(parsed):
            reason, match = (fault, None) if fault else self._reason(item, task, cell)
            why = {"rouge": round(match.score, 4), "nearest": match.nearest} if match else {}
            if reason is None:
                item_id = record_id(item_messages(item))
                of = {"translates": originals[number][0]} if originals else {}
                items[number], metas[number] = item, {"id": item_id, "meta": {**meta, **of, **why}}
                self.pools.add(item_id, item, cell[1])
                self.waiting[cell] += 1
                self.by_language[cell, item.language] += 1
            else:
                outcomes[reason] += 1
            rows.append(self._row(item, reason or WAITING, request, cell[1], why))
        self.journal.keep_items(request.idx, rows)
        originals_of = {number: whole_lines(originals[number][1]) for number in items} if originals else {}
        pending = Pending(request, cell, items, metas, originals_of, questions(task, items, self.config), outcomes)
        if pending.questions:
            self.pending[request.idx] = pending
            return None
        return self._settle(pending)

    def _row(self, item: Item, reason: str, request: Request, side: str, why: Mapping[str, Any]) -> tuple[str, str, str]:
        return reason, side, canonical_json({"reason": reason, "request": request.key, "side": side, **why, **asdict(item)})

    def _reason(self, item: Item, task: Task, cell: Cell) -> tuple[str | None, Match | None]:
        if reason := reject_reason(item, task) or check_reason(item, task):
            return reason, None
        if wrong_language(answer_text(item), item.language, self.identifier):
            return "language_id", None
        if self.evaluation and contaminated(whole_text(item), self.evaluation):
            return "contaminated", None
        if self.total[cell] + self.waiting[cell] >= self.goals.get(cell, 0):
            return TARGET_REACHED, None
        if task.rules.balance == "language" and self.by_language[cell, item.language] >= self.part(cell):
            return "balance_reached", None
        return self.pools.refusal(item, cell[1])

    def part(self, cell: Cell) -> int:
        """Of a cell's goal that of each of its two languages."""
        return ceil(self.goals[cell] / 2)

    def answer(self, request: Request, reply: str | None) -> tuple[Settled | None, Question | None]:
        """Takes the reply to a question (None: there is none). Returns what the items came to, unless other questions about them
        are open, and what is to be asked again.
        """
        pending = self.pending.get(request.about["of"])
        asked = (request.about["check"], request.about["sample"])
        own = next((one for one in pending.questions if (one.check, one.sample) == asked), None) if pending else None
        if pending is None or own is None:
            return None, None  # asked when other checks were on
        # What was asked may be about other items: other filters let them through then.
        pending.answers[asked] = read_answers(Question(*asked, tuple(request.about["numbers"])), reply)
        again = left_out(own, pending.answers[asked]) if reply is not None else None
        if again:
            pending.questions.append(again)
        return None if pending.open() else self.settle(request.about["of"]), again

    def settle(self, idx: int) -> Settled:
        """Ends the waiting of a reply's items with the answers that are there."""
        return self._settle(self.pending.pop(idx))

    def _settle(self, pending: Pending) -> Settled:
        cell, idx, places, languages = pending.cell, pending.request.idx, list[Place](), Counter[str]()
        rows = list[tuple[int, str, str]]()
        for number, item in pending.items.items():
            scores, reason = self._verdicts(pending, number)
            pending.outcomes[reason or ACCEPTED] += 1
            self.waiting[cell] -= 1
            fields = pending.meta[number]
            fields["meta"] |= {"scores": scores} if scores else {}
            if reason is None:
                places.append((idx, number))
                languages[item.language] += 1
                rows.append((number, ACCEPTED, canonical_json({**fields, **asdict(item)})))
            else:
                self.by_language[cell, item.language] -= 1
                why = {"scores": scores, **{name: fields["meta"][name] for name in ("rouge", "nearest")}}
                rows.append((number, reason, self._row(item, reason, pending.request, cell[1], why)[2]))
        self.journal.settle_items(idx, rows)
        self.rejected += pending.outcomes
        del self.rejected[ACCEPTED]
        self.total[cell] += len(places)
        return Settled(cell, places, pending.outcomes, languages)

    def _verdicts(self, pending: Pending, number: int) -> tuple[dict[str, float], str | None]:
        """(scores by check, the first check's reason against the item)."""
        item, task = pending.items[number], self.tasks[pending.cell[0]]
        scores, reasons = check_scores(item, task), list[str]()
        for check in task.rules.checks:
            asked = [one.sample for one in pending.questions if one.check == check and number in one.numbers]
            if asked:
                given = [self._said(pending, check, sample, number) for sample in asked if sample < AGAIN]
                said: Verdict = verdict(check, item, task, given, self.config, pending.original.get(number, ""))
                scores |= {} if said.score is None else {check: said.score}
                reasons += [said.reason] if said.reason else []
        return scores, reasons[0] if reasons else None


    def _said(self, pending: Pending, check: str, sample: int, number: int) -> str | None:
        replies = [pending.answers.get((check, one), {}) for one in (sample, sample + AGAIN)]
        return replies[0].get(number) or replies[1].get(number)


def whole_lines(item: Item) -> str:
    """The texts of an item under each other, as a translation of them is shown."""
    return "\n".join(filter(None, (item.instruction, item.input, item.output)))
