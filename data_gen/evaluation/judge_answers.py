"""Answers that are to be judged: from an evaluation's documents or a JSONL file, and those of two models beside each other."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_gen import UsageError
from data_gen.evaluation.results import read_documents

_DOCUMENTS = ".documents.jsonl"


@dataclass(frozen=True)
class Asked:
    """A prompt and what one model answered. task: "" of a plain file that names none."""

    task: str
    id: str
    category: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Both:
    """Prompts that two models were asked, each with its two answers, and how many are left out: asked of one alone, or with one id
    and different words.
    """

    pairs: list[tuple[Asked, Asked]]
    only_model: int
    only_against: int
    differ: int

    def left_out(self, model: str, against: str) -> str:
        """What is not compared, in words; "" where all is."""
        counts = {
            f"only {model} was asked": self.only_model,
            f"only {against} was asked": self.only_against,
            "have other words under the same id": self.differ,
        }
        return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)


def read_answers(evaluation: str, model: str, path: str = "", tasks: Sequence[str] = ()) -> list[Asked]:
    """A model's generated answers: from the evaluation directory, or from a JSONL file of {"id", "prompt", "answer", "category"}
    (and perhaps "task"). tasks: only these; a name takes "NAME, chat" in too.

    Raises UsageError where there are none, where a line is none, or an id comes twice.
    """
    where = path or str(Path(evaluation, "models", model + _DOCUMENTS))
    found = list(_read_file(path) if path else _read_evaluation(evaluation, model))
    if not found:
        raise UsageError(f"{where} has no generated answers to judge; evaluate tasks whose answers are generated")
    there = {_name(one.task) for one in found}
    if missing := [task for task in tasks if task not in there]:
        named = ", ".join(sorted(filter(None, there))) or "none is named"
        raise UsageError(f"{where} has no generated answers of {', '.join(missing)}; its tasks: {named}")
    chosen = [one for one in found if not tasks or _name(one.task) in tasks]
    seen: set[tuple[str, str]] = set()
    for one in chosen:
        if (one.task, one.id) in seen:
            raise UsageError(f"{where} has two answers to {one.task or 'the prompt'} {one.id}; each id may come once a task")
        seen.add((one.task, one.id))
    return chosen


def _name(task: str) -> str:
    """Without what says how it was asked: "urdu_eval, chat" → "urdu_eval"."""
    return task.partition(",")[0]


def _read_evaluation(evaluation: str, model: str) -> Iterator[Asked]:
    """What was generated: of a choice no `asked` is kept."""
    try:
        for one in read_documents(evaluation, model):
            if one.asked:
                yield Asked(one.task, str(one.id), one.category or one.task, one.asked, one.answer)
    except FileNotFoundError:
        there = sorted(path.name.removesuffix(_DOCUMENTS) for path in Path(evaluation, "models").glob(f"*{_DOCUMENTS}"))
        raise UsageError(
            f"{evaluation} has no answers of {model!r}; it has those of {', '.join(there) or 'no model'}. Give the --output of "
            "launch/evaluate.py as --evaluation, or a file of answers as --answers or --against_answers"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{evaluation}/models/{model}{_DOCUMENTS} cannot be read ({error!r}); evaluate {model} again") from error


def _read_file(path: str) -> Iterator[Asked]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _from_line(line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _from_line(line: str, where: str) -> Asked:
    form = 'expected {"id": "1", "prompt": "…", "answer": "…", "category": "…"}, the last one if you like'
    try:
        row: Any = json.loads(line)
    except ValueError:
        raise UsageError(f"{where} is no JSON: {line.strip()[:80]!r}; {form}") from None
    texts = row if isinstance(row, dict) else {}
    task, category = texts.get("task", ""), texts.get("category", "")
    right = isinstance(texts.get("id"), (str, int)) and not isinstance(texts.get("id"), bool)
    if not right or not all(isinstance(one, str) for one in (texts.get("prompt"), texts.get("answer"), task, category)):
        raise UsageError(f"{where} is {line.strip()[:80]!r}; {form}")
    return Asked(task, str(texts["id"]), category or task or "all", texts["prompt"], texts["answer"])


def beside(model: Iterable[Asked], against: Iterable[Asked]) -> Both:
    """The prompts that both were asked, by task and id, in the order of the first."""
    mine, others = ({(one.task, one.id): one for one in side} for side in (model, against))
    common = [(one, others[key]) for key, one in mine.items() if key in others]
    pairs = [(one, other) for one, other in common if one.prompt == other.prompt]
    return Both(pairs, len(mine) - len(common), len(others) - len(common), len(common) - len(pairs))
