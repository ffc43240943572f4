"""A teacher as judge of answers: two models' side by side (each pair in both orders), or one model's marked from 0 to 10.

judge_answers.py what is judged → judge_prompts.py how the judge is asked → here → judge_counts.py what the verdicts come to →
judge_records.py: DIR/judge.json, which the report reads. Verdicts are in DIR/judge/journal.sqlite: none is bought twice, and a run
that was broken off goes on. A reply without a verdict is asked for again; what then has none is left out, and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from data_gen import UsageError
from data_gen.ask import Asker, Model, Question
from data_gen.endpoint import OFFLINE, TeacherConfig, check_base_url
from data_gen.engine import Shows
from data_gen.evaluation import judge_prompts
from data_gen.evaluation.judge_answers import Asked, beside, read_answers
from data_gen.evaluation.judge_counts import Mark, Pair, pairwise_counts, single_counts
from data_gen.evaluation.judge_prompts import BEST, FIRST, SECOND, TIE, Kind
from data_gen.evaluation.judge_records import RECORDS, store, table
from data_gen.evaluation.judge_records import read_judge as read_judge
from data_gen.journal import open_journal
from data_gen.prompt import reply_usage
from data_gen.readable import dollars, percent

JOURNAL = "judge"
_WON_BY_FIRST = {FIRST: 1.0, TIE: 0.5, SECOND: 0.0}

Read = TypeVar("Read", str, float)


@dataclass(kw_only=True)
class JudgeConfig:
    """language: English name of the language that answers are expected in, unless a prompt asks for another."""

    language: str = "Urdu"
    min_prompts: int = 100
    retries: int = 2  # of a reply without a verdict
    max_errors: float = 0.2  # of the prompts, those without a verdict in the end
    temperature: float | None = 0.0  # none: not sent
    max_tokens: int = 2048  # of a reply, a reasoning model's thoughts included
    teacher: TeacherConfig = field(default_factory=TeacherConfig)

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        bounds: list[tuple[str, float, float, float]] = [
            ("min_prompts", self.min_prompts, 1, float("inf")),
            ("retries", self.retries, 0, 20),
            ("max_errors", self.max_errors, 0, 1),
            ("temperature", self.temperature or 0.0, 0, 2),
            ("max_tokens", self.max_tokens, 16, float("inf")),
        ]
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; it must be between {low} and {high}")
        if not self.language.strip():
            raise UsageError("language is empty; give the English name of the answers' language, for example Urdu")
        if self.teacher.batch:
            raise UsageError("teacher.batch is true; a judge is asked directly: --config.teacher.batch=false")
        replace(self.teacher, base_url=OFFLINE).validate()  # no terms are asked for: nothing is trained on what a judge writes
        if self.teacher.base_url != OFFLINE:
            check_base_url(self.teacher.base_url)

    def judge(self) -> Model:
        """Whom to ask. Raises UsageError where there is no model that could judge."""
        if self.teacher.base_url == OFFLINE:
            raise UsageError(
                f"a judge is needed, and teacher.base_url is {OFFLINE!r}, whose grammars judge nothing. Give "
                "--config.teacher.base_url=URL --config.teacher.model=NAME"
            )
        key = f"{self.teacher.model} at {self.teacher.base_url}"
        return Model(key, self.teacher.model, lambda: self.teacher.base_url, self.teacher)


@dataclass
class Verdicts(Generic[Read]):
    """What the questions came to: a value each, or None. unreadable, failed: which ones have none, and why."""

    values: list[Read | None]
    unreadable: set[int]
    failed: set[int]
    cost: float | None  # US dollars of all replies, the unreadable ones included; None where no price is known
    example: str = ""  # of a reply or an error that gave nothing


@dataclass
class Judge:
    """`Judge(config, directory, asker, show).compare(names, answers)`, or `.mark(name, answers)`."""

    config: JudgeConfig
    directory: str
    asker: Asker
    show: Shows

    def compare(self, names: tuple[str, str], answers: tuple[Sequence[Asked], Sequence[Asked]]) -> dict[str, Any]:
        """Judges one model's answers against another's, and returns what went into judge.json.

        Raises UsageError for too few prompts in common, and for too many without a verdict.
        """
        both = beside(*answers)
        if left_out := both.left_out(*names):
            self.show.say(f"{names[0]} against {names[1]}: {len(both.pairs):,} prompts in common; {left_out}")
        if not both.pairs:
            raise UsageError(f"{names[0]} and {names[1]} have no prompt in common ({left_out}): evaluate both with the same suite")
        self._check_enough(" against ".join(names), len(both.pairs))
        asked = [(one, other) for one, other in both.pairs if one.answer.strip() != other.answer.strip()]
        identical = [(one, other) for one, other in both.pairs if one.answer.strip() == other.answer.strip()]
        if identical:
            self.show.say(f"{len(identical):,} of {len(both.pairs):,} pairs of answers are identical: ties, nobody is asked")
        questions = [
            self._question("pairwise", one, first.answer, second.answer)
            for one, other in asked
            for first, second in ((one, other), (other, one))
        ]
        found = self._verdicts(questions, judge_prompts.read_verdict, f"{names[0]} against {names[1]}")
        pairs = [Pair(category=one.category, model=one.answer, against=other.answer, preferences=(0.5, 0.5), identical=True)
                 for one, other in identical]  # fmt: skip
        for (one, other), first, second in zip(asked, found.values[::2], found.values[1::2], strict=True):
            if first is not None and second is not None:
                preferences = (_WON_BY_FIRST[first], 1 - _WON_BY_FIRST[second])
                pairs.append(Pair(category=one.category, model=one.answer, against=other.answer, preferences=preferences))
        about = {"kind": "pairwise", "model": names[0], "against": names[1]}
        left = self._excluded(found, [(2 * place, 2 * place + 1) for place in range(len(asked))], len(both.pairs))
        return self._keep(about | left, [one for one, _ in both.pairs], found.cost, pairwise_counts(pairs))

    def mark(self, name: str, answers: Sequence[Asked]) -> dict[str, Any]:
        """Has one model's answers marked, and returns what went into judge.json. Raises UsageError as `compare` does."""
        self._check_enough(name, len(answers))
        found = self._verdicts([self._question("single", one, one.answer) for one in answers], judge_prompts.read_score, name)
        left = self._excluded(found, [(place,) for place in range(len(answers))], len(answers))
        marks = [
            Mark(category=one.category, answer=one.answer, mark=mark / BEST)
            for one, mark in zip(answers, found.values, strict=True)
            if mark is not None
        ]
        return self._keep({"kind": "single", "model": name, "against": ""} | left, answers, found.cost, single_counts(marks))

    def _question(self, kind: Kind, one: Asked, *answers: str) -> Question:
        ask = judge_prompts.pairwise if kind == "pairwise" else judge_prompts.single
        fields = {"max_tokens": self.config.max_tokens, "temperature": self.config.temperature}
        known = {name: value for name, value in fields.items() if value is not None}
        return Question(" ".join(filter(None, (kind, one.task, one.id))), ask(self.config.language, one.prompt, *answers), known)

    def _check_enough(self, whose: str, prompts: int) -> None:
        if prompts < self.config.min_prompts:
            off = 98 / prompts**0.5  # percentage points: 1.96 standard errors of a share of one half
            raise UsageError(
                f"{whose}: {prompts:,} prompts came, and at least {self.config.min_prompts:,} are wanted: over so few the 95 % "
                f"interval of a win rate is about ±{off:.0f} points and says little. Evaluate more prompts, or give "
                f"--config.min_prompts={prompts}"
            )

    def _verdicts(self, questions: Sequence[Question], read: Callable[[str], Read | None], title: str) -> Verdicts[Read]:
        """Asks every question, and again (as another sample) those whose reply has no verdict."""
        model, price = self.config.judge(), self.config.teacher.price()
        found = Verdicts[Read]([None] * len(questions), set(range(len(questions))), set(), 0.0 if price else None)
        for sample in range(self.config.retries + 1):
            if not (places := sorted(found.unreadable)):
                break
            again = [_sample(questions[place], sample) for place in places]
            answered_before = any(self.asker.answer(model, question) for question in again)
            self.asker.ask(model, again, title=title, wanted=len(again), max_errors=1.0, patient=answered_before or sample > 0)
            for place, question in zip(places, again, strict=True):
                if (answer := self.asker.answer(model, question)) is None:
                    found.unreadable.remove(place)
                    found.failed.add(place)
                    found.example = self.asker.error(model, question)
                    continue
                usage = reply_usage(answer.raw)
                found.cost = found.cost + price.of(usage) if price and usage and found.cost is not None else None
                value = None if answer.cut else read(answer.text)  # of a mark 10 that was cut, 1 may be left
                if value is None:
                    found.example = f"…{answer.text[-100:]!r}" + " (cut: a larger max_tokens)" * answer.cut
                else:
                    found.values[place] = value
                    found.unreadable.remove(place)
        return found

    def _excluded(self, found: Verdicts[Any], groups: Sequence[tuple[int, ...]], prompts: int) -> dict[str, int]:
        """How many prompts have no verdict, told; groups: the questions of each. Raises UsageError where they are too many."""
        failed = sum(not found.failed.isdisjoint(group) for group in groups)
        excluded = sum(any(found.values[place] is None for place in group) for group in groups)
        if excluded:
            said = (
                f"{excluded:,} of {prompts:,} prompts have no verdict ({percent(excluded, prompts)}): of {failed:,} a request "
                f"failed, of {excluded - failed:,} no reply could be read in {self.config.retries + 1} attempts; the last: "
                f"{found.example}"
            )
            if excluded > self.config.max_errors * prompts or excluded == prompts:
                raise UsageError(
                    f"{said}. max_errors allows {percent(self.config.max_errors, 1)}. What was answered is kept: the same command "
                    "asks again what failed; for replies that cannot be read give a larger --config.max_tokens, more "
                    "--config.retries or another judge"
                )
            self.show.say(f"{said}. They are left out")
        return {"prompts": prompts, "excluded": excluded, "failed": failed}

    def _keep(self, about: dict[str, Any], asked: Sequence[Asked], cost: float | None, counts: dict[str, Any]) -> dict[str, Any]:
        record = {
            **about,
            "judge": self.config.teacher.model,
            "prompt_hash": judge_prompts.prompt_hash(about["kind"], self.config.language),
            **counts,
            "cost": cost,
            "tasks": sorted({one.task for one in asked} - {""}),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        store(self.directory, record)
        return record


def _sample(question: Question, number: int) -> Question:
    """The same asked anew, with another seed."""
    return replace(question, fields=question.fields | {"seed": number}, sample=number)


def run(
    config: JudgeConfig,
    directory: str,
    names: Sequence[str],
    against: str = "",
    *,
    tasks: Sequence[str] = (),
    answers: str = "",
    against_answers: str = "",
    show: Shows,
    max_cost: float | None = None,
) -> str:
    """Compares each of the models with `against`, or marks each where that is "", and says what came of it.

    answers, against_answers: files to read them from instead of the evaluation directory. max_cost: US dollars that all judging in
    the directory may cost. Raises UsageError; BudgetReached when the next request could cost more than is left.
    """
    config.validate()
    config.judge()
    if not names or len(set(names)) != len(names) or against in names:
        raise UsageError(f"--model={','.join(names)} --against={against}: name models, each once, and another one to compare with")
    if answers and len(names) > 1:
        raise UsageError(f"--answers={answers} has the answers of one model, and --model names {len(names)}: {', '.join(names)}")
    read = {name: read_answers(directory, name, answers, tasks) for name in names}
    others = read_answers(directory, against, against_answers, tasks) if against else []
    with open_journal(str(Path(directory, JOURNAL))) as journal:
        asker = Asker(journal, show, max_cost)
        judge = Judge(config, directory, asker, show)
        records = [
            judge.compare((name, against), (mine, others)) if against else judge.mark(name, mine) for name, mine in read.items()
        ]
        spent = asker.spent()
    cost = f"; all judging there cost {dollars(spent)}" if config.teacher.price() else ""
    return f"{table(records)}\nkept in {Path(directory, RECORDS)}{cost}"
