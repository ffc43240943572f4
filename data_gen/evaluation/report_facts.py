"""What the report says, before it is drawn: the rows of its table with each model's change from the base, samples, and sections of
plain text; and figures and sentences as they are printed. report_rows.py and report_sections.py find it, report.py and
report_page.py write it down.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from data_gen.evaluation.results import LANGUAGE, LOWER, NEITHER, Document, ModelResult, Score
from data_gen.evaluation.scores import METRICS
from data_gen.languages import Pack, load_pack, packs

BETTER, WORSE, UNCLEAR = "better", "worse", "unclear"  # as statistics.verdict says them
SIGNS = {WORSE: "▼", BETTER: "▲", UNCLEAR: "~"}
BAD = "✗"  # what a reader should know before believing a figure
Form = Literal["share", "corpus", "plain"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """From the base to a model: the difference with its 95 % interval. verdict: BETTER, WORSE or UNCLEAR; "" where neither
    direction is better. documents: those that were compared, which both were asked.
    """

    value: float
    low: float
    high: float
    verdict: str
    documents: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A metric of a task: each model's score and change, by the model's name. absent: the number of the note that says why there is
    no score, or no change, or one over fewer documents. notes: of the others that belong to it.
    """

    task: str
    metric: str
    group: str
    form: Form
    better: int
    scores: Mapping[str, Score]
    changes: Mapping[str, Change]
    absent: Mapping[str, int]
    notes: tuple[int, ...]

    @property
    def name(self) -> str:
        """As it is called in a sentence."""
        return f"{self.task} {self.label}"

    @property
    def label(self) -> str:
        """What is measured, and which way is better where that is not up."""
        said = METRICS[self.metric].label if self.metric in METRICS else self.metric
        return said + {LOWER: " (lower is better)", NEITHER: " (neither way is better)"}.get(self.better, "")

    @property
    def documents(self) -> str:
        """How many a model was asked: "200", or "150–200" where that differs."""
        counts = sorted({score.documents for score in self.scores.values()})
        return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A document with what each model answered, by the model's name. language: of the answers, as the task has it."""

    task: str
    id: int
    category: str
    language: str
    asked: str
    target: str
    answers: Mapping[str, Document]

    @property
    def question(self) -> str:
        """Both ends of what was asked: below a long passage stands the question."""
        return clipped(self.asked, 500, 300)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the models' results and documents say. models: the base first. Notes are numbered from 1."""

    base: str | None
    models: tuple[ModelResult, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    samples: tuple[Sample, ...]

    def others(self) -> tuple[ModelResult, ...]:
        """The models that are compared with the base."""
        return tuple(model for model in self.models if self.base is not None and model.name != self.base)

    def with_verdict(self, model: str, wanted: str) -> list[Row]:
        """The rows in which a model is better, worse or unclear."""
        return [row for row in self.rows if model in row.changes and row.changes[model].verdict == wanted]

    def not_compared(self, model: str) -> list[Row]:
        """The rows that one of both lacks, or whose documents are not the same."""
        return [row for row in self.rows if row.better != NEITHER and model not in row.changes]

    def groups(self) -> Iterator[tuple[str, list[Row]]]:
        """The rows under their headings."""
        for name in dict.fromkeys(row.group for row in self.rows):
            yield name, [row for row in self.rows if row.group == name]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A small table of plain texts. What begins with ▼ or ✗ is bad news, with ▲ good."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the report below its large table, in plain text. quotes: texts of the data, set in their own direction; code: as it
    is typed.
    """

    name: str
    heading: str
    said: tuple[str, ...] = ()
    grids: tuple[Grid, ...] = ()
    quotes: tuple[str, ...] = ()
    code: str = ""


# --- figures as they are printed


def figure(value: float, form: Form) -> str:
    """0.5421 as a share → "54.2%", 48.31 as a corpus score → "48.3", 0.8714 of bits → "0.871"."""
    if not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f}%" if form == "share" else f"{value:.1f}" if form == "corpus" else f"{value:.3f}"


def signed(value: float, form: Form) -> str:
    """-0.0412 as a share → "−4.1" (points), 0.012 of bits → "+0.012"; what rounds to nothing has no sign."""
    said = f"{100 * value:+.1f}" if form == "share" else f"{value:+.1f}" if form == "corpus" else f"{value:+.3f}"
    return said.replace("-", "−") if re.search("[1-9]", said) else said[1:]


def interval(score: Score, form: Form) -> str:
    """Of a score; "" where there is none, and of a single document, which says nothing of others."""
    if score.documents < 2 or not math.isfinite(score.low + score.high):
        return ""
    return f"{figure(score.low, form)} to {figure(score.high, form)}".replace("%", "")


def change_said(change: Change, form: Form) -> tuple[str, str]:
    """A figure with its sign, and its interval: ("▼ −4.1", "−6.0 to −2.2")."""
    sign = f"{SIGNS[change.verdict]} " if change.verdict else ""
    return f"{sign}{signed(change.value, form)}", f"{signed(change.low, form)} to {signed(change.high, form)}"


# --- sentences


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A model beside the base. counts: of tests, by verdict; lists: a heading with the tests that belong under it, what got worse
    first, each as (verdict, heading, names of the tests with their figures).
    """

    model: str
    said: str
    counts: Mapping[str, int]
    lists: tuple[tuple[str, str, tuple[str, ...]], ...]


def standing(facts: Facts, model: str) -> Standing:
    """In words: "of 20 tests 3 are worse, 9 better, 8 unclear"."""
    found = {verdict: facts.with_verdict(model, verdict) for verdict in (WORSE, BETTER, UNCLEAR)}
    missing = facts.not_compared(model)
    counts = {verdict: len(rows) for verdict, rows in found.items()}
    worse, better, unclear = counts.values()
    said = f"of {worse + better + unclear} tests {worse} {'is' if worse == 1 else 'are'} worse, {better} better, {unclear} unclear"
    said += f"; {len(missing)} cannot be compared" if missing else ""
    lists = [(verdict, verdict.capitalize(), tuple(_with_change(row, model) for row in rows)) for verdict, rows in found.items()]
    lists.append(("", "Not compared", tuple(row.name for row in missing)))
    return Standing(model=model, said=said, counts=counts, lists=tuple(one for one in lists if one[2]))


def _with_change(row: Row, model: str) -> str:
    value, within = change_said(row.changes[model], row.form)
    return f"{row.name}: {value.split(' ')[-1]} ({within})"


def headings(facts: Facts, title: str) -> list[str]:
    """Of the whole report: the title, if there is one, and the models."""
    others = ", ".join(model.name for model in facts.others())
    models = f"{others} beside {facts.base}" if others else "Evaluation of " + ", ".join(one.name for one in facts.models)
    return [title, models] if title else [models]


def method(facts: Facts) -> str:
    """How better and worse are told apart, and how often chance alone does so."""
    if len(facts.models) == 1:
        return "One model was evaluated: there is nothing to compare it with."
    if facts.base is None:
        return "No base was named, so that nothing is called better or worse."
    tests = max(sum(standing(facts, model.name).counts.values()) for model in facts.others())
    return (
        f"{SIGNS[WORSE]} worse and {SIGNS[BETTER]} better: the 95 % interval of the difference from {facts.base} (paired bootstrap "
        f"over the documents that both were asked) lies on one side of 0. {SIGNS[UNCLEAR]} unclear: 0 lies in it. A test is a row "
        "of the table, and rows of one task are akin. Where nothing differs, about one test in 20 still seems to by chance"
        + (f": of {tests} about {round(tests / 20)}." if tests >= 20 else ".")
    )


def alarms(sections: Iterable[Section]) -> list[str]:
    """What of the sections belongs at the top too."""
    return [text for section in sections for text in section.said if text.startswith(BAD)]


def marks(document: Document) -> tuple[str, ...]:
    """What an answer got: that it did not end, first."""
    values = {name: pair for name, pair in document.values.items() if pair[1] and name != "stop"}
    labels = {name: METRICS[name].label if name in METRICS else name for name in values}
    said = [f"{labels[name]} {numerator / denominator:.3g}" for name, (numerator, denominator) in values.items()]
    return (f"{BAD} did not end", *said) if document.ended is False else tuple(said)


def pack_of(language: str) -> Pack:
    """In whose type and direction a text of the language is set."""
    code = language.partition("-")[0]
    return load_pack(code if code in packs() else LANGUAGE)


def clipped(text: str, first: int = 600, last: int = 0) -> str:
    """The first letters of a long text, and the last ones too where what is asked stands there; … for what is left out."""
    if len(text) <= first + last + 40:
        return text
    end = text[len(text) - last :].split(" ", 1)[-1] if last else ""
    return f"{text[:first].rsplit(' ', 1)[0]} …" + (f" {end}" if end else "")
