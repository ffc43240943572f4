"""What an evaluation found of one model, as the report reads it: OUTPUT/models/NAME.json and NAME.documents.jsonl."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HIGHER, LOWER, NEITHER = 1, -1, 0  # which way is better
LANGUAGE = "ur"  # of answers where nobody says


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document of one task, asked of one model. prompt: as the model saw it; answer: what it generated, or the choice it took.

    values: by metric (numerator, denominator); a metric over documents is Σ numerators / Σ denominators: accuracy (0 or 1, 1), bits
    a byte (bits, bytes). ended: of a generated answer, whether it ended by itself; None where the backend cannot tell.
    """

    task: str
    id: int
    prompt: str
    answer: str
    target: str = ""
    values: dict[str, tuple[float, float]] = field(default_factory=dict)
    ended: bool | None = None
    category: str = ""
    asked: str = ""  # the prompt without template, few shots and description: what a judge reads


@dataclass(frozen=True, kw_only=True)
class Score:
    """A row of the report for one model: a metric of a task with its 95 % interval (bootstrap over documents).

    better: HIGHER, LOWER or NEITHER. corpus: a metric of all answers together (chrF++, BLEU), whose documents have no values.
    signature: sacrebleu's. group: the heading it stands under; note: what it measures, for people. language: of the
    answers.
    """

    task: str
    metric: str
    value: float
    low: float
    high: float
    documents: int
    better: int = HIGHER
    corpus: bool = False
    signature: str = ""
    group: str = ""
    note: str = ""
    language: str = LANGUAGE

    @property
    def key(self) -> tuple[str, str]:
        """Which row."""
        return self.task, self.metric


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """name: the column's heading. kind: run, jax, hf or url. about: path, step, revision, template, dtype, … of the model.

    truncated: requests whose context was cut from the left, by task. left_out: tasks that were not run, with the reason.
    versions: of the packages and tasks. costs: seconds, and dollars where they are known.
    """

    name: str
    kind: str
    about: dict[str, Any]
    scores: tuple[Score, ...]
    digest: str = ""  # of suite, tasks, data and model: the same is not asked again
    truncated: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    began: str = ""

    def score(self, key: tuple[str, str]) -> Score | None:
        """Of one row; None where the model has none."""
        return next((score for score in self.scores if score.key == key), None)


def write_result(output: str, result: ModelResult, documents: Sequence[Document]) -> None:
    """The documents first: a result without them does not count."""
    place = Path(output, "models")
    place.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n" for one in documents)
    replace_text(place / f"{result.name}.documents.jsonl", lines)
    replace_text(place / f"{result.name}.json", json.dumps(dataclasses.asdict(result), ensure_ascii=False, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """In one step: a kill leaves the old file or the new one."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def read_result(output: str, name: str) -> ModelResult | None:
    """As written; None where there is none, or one of another form."""
    path = Path(output, "models", f"{name}.json")
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return ModelResult(**stored | {"scores": tuple(Score(**score) for score in stored["scores"])})
    except (json.JSONDecodeError, KeyError, TypeError):
        return None


def read_documents(output: str, name: str) -> Iterator[Document]:
    """In the order of tasks and documents."""
    with Path(output, "models", f"{name}.documents.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield document_of(json.loads(line))


def document_of(stored: dict[str, Any]) -> Document:
    """From JSON, which has no tuples."""
    return Document(**stored | {"values": {metric: (pair[0], pair[1]) for metric, pair in stored["values"].items()}})
