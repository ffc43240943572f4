"""One model through the tasks of a suite: the harness asks, its samples become documents and scores.

What a task came to is written at once (OUTPUT/models/NAME.parts/), so that an evaluation that was stopped goes on with the next.
"""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask, Task

from data_gen import UsageError
from data_gen.evaluation import scores
from data_gen.evaluation.find import Found, quiet
from data_gen.evaluation.heldout import BITS
from data_gen.evaluation.results import (
    HIGHER,
    LANGUAGE,
    LOWER,
    NEITHER,
    Document,
    ModelResult,
    Score,
    document_of,
    replace_text,
    write_result,
)  # fmt: skip
from data_gen.evaluation.statistics import interval
from data_gen.evaluation.suites import TaskEntry
from data_gen.languages import ENGLISH, load_pack

CHAT = ", chat"  # after a task's name: its prompts went through the chat template
NO_VALUE = ("bypass", "byte_perplexity", "word_perplexity")  # of no document; the perplexities follow from bits a byte
ALL_AT_ONCE = ("bleu", "chrf", "ter")  # of the harness: chrF2, and a BLEU that leaves ۔ on its word; ours stand instead
SEED = 1234  # of the examples before a question: the harness's own
CHATS = {"never": (False,), "always": (True,), "both": (False, True)}
Say = Callable[[str], None]
Errors = tuple[type[Exception], ...]


@dataclass(kw_only=True)
class Part:
    """What one task came to, with or without the chat template. digest: of all that it depends on."""

    digest: str
    scores: list[Score] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    seconds: float = 0.0
    truncated: int = 0
    left_out: str = ""


def evaluate_model(
    load: Callable[[], LM], found: Sequence[Found], *, name: str, kind: str, about: Mapping[str, Any], identity: str, output: str,
    say: Say, limit: int = 0, price_per_hour: float | None = None, versions: Mapping[str, str] | None = None,
    refused: Errors = (UsageError,),
) -> ModelResult:  # fmt: skip
    """Asks what was not asked before, and writes the model's result. load: called when something is to be asked.

    identity: what makes the model this one, beside its address: the same is not asked again. limit: of documents a task, over the
    entry's own. A task that fails on this model (no chat template, an empty choice) is left out with the reason: what raises one of
    `refused`, this package's and that of the package that has the model.
    """
    began, model = time.strftime("%Y-%m-%d %H:%M"), _Late(load)
    parts: dict[str, Part] = {}
    left_out: dict[str, str] = {}
    for one in found:
        left_out |= one.left_out
        for chat in CHATS[one.entry.chat] if one.tasks else ():
            title = _title(one.entry, chat)
            parts[title] = _part(
                model, one, chat, Path(output, "models", f"{name}.parts"), identity=identity, versions=versions or {}, limit=limit,
                say=say, name=name, refused=refused,
            )  # fmt: skip
            left_out |= {title: parts[title].left_out} if parts[title].left_out else {}
    seconds = sum(part.seconds for part in parts.values()) + model.seconds
    result = ModelResult(
        name=name, kind=kind, about=dict(about), scores=tuple(score for part in parts.values() for score in part.scores),
        digest=_digest([part.digest for part in parts.values()]), left_out=left_out, versions=dict(versions or {}), began=began,
        truncated={title: part.truncated for title, part in parts.items() if part.truncated},
        costs={"seconds": round(seconds, 1)} | ({"dollars": seconds / 3600 * price_per_hour} if price_per_hour else {}),
    )  # fmt: skip
    write_result(output, result, [document for part in parts.values() for document in part.documents])
    return result


def scores_of(lm: LM, found: Sequence[Found], limit: int = 0, say: Say = print, refused: Errors = (UsageError,)) -> list[Score]:
    """The rows of a model that is at hand, nothing kept: of a run while it goes on. What it cannot do is left out, and said."""
    rows: list[Score] = []
    for one in found:
        for chat in CHATS[one.entry.chat] if one.tasks else ():
            try:
                rows += _asked(lm, one, chat, _title(one.entry, chat), _limit(one.entry, limit))[1]
            except refused as error:
                say(f"{_title(one.entry, chat)}: left out: {error}")
    return rows


class _Late:
    """A model that is loaded when it is first asked."""

    def __init__(self, load: Callable[[], LM]) -> None:
        self._load, self._model, self.seconds = load, None, 0.0

    def __call__(self) -> LM:
        if self._model is None:
            began = time.monotonic()
            self._model = self._load()
            self.seconds = time.monotonic() - began
        return self._model


def _part(
    model: _Late, found: Found, chat: bool, place: Path, *, identity: str, versions: Mapping[str, str], limit: int, say: Say,
    name: str, refused: Errors,
) -> Part:  # fmt: skip
    """As it was found before, or asked now."""
    entry, title = found.entry, _title(found.entry, chat)
    limit = _limit(entry, limit)
    given = [dataclasses.asdict(entry), chat, limit, identity, dict(versions), _scoring()]
    digest = _digest([given, [_task_digest(task) for task in found.tasks.values()]])
    path = place / f"{hashlib.sha256(title.encode()).hexdigest()[:16]}.json"
    if (known := _read_part(path)) and known.digest == digest:
        say(f"{name}: {title}: {len(known.documents):,} documents, asked before")
        return known
    part, began = Part(digest=digest), time.monotonic()
    lm = model()
    if reason := cannot(lm, found.tasks.values()):
        part.left_out = reason
        return part
    try:
        part.documents, part.scores = _asked(lm, found, chat, title, limit)
    except refused as error:
        part.left_out = str(error)
    part.seconds, part.truncated = time.monotonic() - began, getattr(lm, "truncated", 0)
    if unanswered := getattr(lm, "unanswered", None):
        part.left_out = f"{len(unanswered)} documents: their requests failed for good; the same command asks them again"
        unanswered.clear()
    said = f"left out: {part.left_out}" if part.left_out else f"{len(part.documents):,} documents, {part.seconds:.0f} s"
    say(f"{name}: {title}: {said}")
    if part.left_out:
        return part
    place.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(dataclasses.asdict(part), ensure_ascii=False))
    return part


def _title(entry: TaskEntry, chat: bool) -> str:
    return entry.task + (CHAT if chat and entry.chat == "both" else "")


def _limit(entry: TaskEntry, limit: int) -> int:
    return min(limit or entry.limit, entry.limit or limit)


def _read_part(path: Path) -> Part | None:
    if not path.exists():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        documents = [document_of(one) for one in stored["documents"]]
        return Part(**stored | {"documents": documents, "scores": [Score(**score) for score in stored["scores"]]})
    except (json.JSONDecodeError, KeyError, TypeError):  # of another version of this project: it is asked again
        return None


@lru_cache(maxsize=1)
def _scoring() -> str:
    """Changes with the code by which answers are scored."""
    return _digest([Path(__file__).with_name(name).read_text(encoding="utf-8") for name in ("run.py", "scores.py", "refusals.py")])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _task_digest(task: Task) -> list[Any]:
    """Its settings, and the fingerprints of its documents."""
    settings = {key: value for key, value in task.config.to_dict().items() if key not in ("metadata", "custom_dataset")}
    splits = task.dataset if isinstance(task.dataset, Mapping) else {}
    return [settings, {split: getattr(rows, "_fingerprint", len(rows)) for split, rows in splits.items()}]


def cannot(lm: LM, tasks: Any) -> str:
    """Why a backend cannot run these tasks, or "": some only generate (`kinds`: the requests that a backend answers)."""
    kinds = getattr(lm, "kinds", None)
    wanted = {"loglikelihood" if task.OUTPUT_TYPE == "multiple_choice" else task.OUTPUT_TYPE for task in tasks}
    if kinds is None or wanted <= set(kinds):
        return ""
    return f"needs {', '.join(sorted(wanted - set(kinds)))}, which this address does not give; it answers prompts only"


# --- asking -------------------------------------------------------------------------------------------------------------


def _asked(lm: Any, found: Found, chat: bool, title: str, limit: int) -> tuple[list[Document], list[Score]]:
    """lm: the harness's LM; its language, apart and truncated are what backends of this project know, and others pass over."""
    entry = found.entry
    lm.language, lm.apart, lm.truncated = _name(entry.language), entry.apart, 0
    for task in found.tasks.values():
        check_choices(task, limit)
        task.set_fewshot_seed(SEED)
    with quiet():
        result = lm_eval.evaluate(
            lm, {"tasks": found.tasks, "groups": {}, "group_map": {}}, limit=limit or None, bootstrap_iters=0, log_samples=True,
            apply_chat_template=chat, fewshot_as_multiturn=chat,
        )  # fmt: skip
    assert result is not None  # every process of several has one: the model is one, whatever it is spread over
    documents: list[Document] = []
    whole: list[Score] = []
    better: dict[str, int] = {}
    for task_name, samples in result["samples"].items():
        task = found.tasks[task_name]
        direction = {metric: HIGHER if up else LOWER for metric, up in task.higher_is_better().items()}
        documents += _documents(task, samples, title, entry, lm, len(documents), direction, better)
        if len(found.tasks) == 1:
            whole += list(_of_all(result["results"][task_name], samples, title, direction))
    rows = [*_means(documents, title, better), *whole]
    if answered := [document for document in documents if document.ended is not None or entry.scores]:
        names = [name for name in entry.scores if name in scores.CORPUS_SCORES]
        texts, targets = [one.answer for one in answered], [one.target for one in answered]
        if names and all(targets):
            rows += scores.corpus_scores(names, texts, targets, language=entry.language or LANGUAGE, task=title)
    shown = [row for row in rows if not entry.main or row.metric in entry.main or row.metric in scores.METRICS]
    return documents, [_labelled(row, entry) for row in shown]


def _name(language: str) -> str | None:
    """In English; None where none is to be written."""
    if language in ("", ENGLISH):
        return "English" if language else None
    pack = load_pack(language.partition("-")[0])
    return pack.varieties[language].name if language in pack.varieties else pack.name


def check_choices(task: Task, limit: int) -> None:
    """Raises UsageError for a document with an empty choice: it has no likelihood, and the empty sum would always win."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return
    for number, document in task.doc_iterator(limit=limit or None):
        choices = task.doc_to_choice(document)
        if any(not str(choice) for choice in choices):
            raise UsageError(
                f"{task.config.task}, document {number}: an empty choice among {choices!r}; expected text in each. Mend the "
                "document, or leave it out"
            )


def _documents(
    task: ConfigurableTask, samples: Sequence[Mapping[str, Any]], title: str, entry: TaskEntry, lm: LM, first: int,
    direction: Mapping[str, int], better: dict[str, int],
) -> Iterator[Document]:  # fmt: skip
    """The samples of one task: a document has one for each of the task's filters. Fills `better`."""
    by_document: dict[int, list[Mapping[str, Any]]] = {}
    for sample in samples:
        by_document.setdefault(sample["doc_id"], []).append(sample)
    for number, some in enumerate(by_document.values()):
        sample, values = some[0], dict[str, tuple[float, float]]()
        for one in some:
            for metric in one["metrics"]:
                if (value := _value(metric, one[metric])) is not None:
                    name = _metric_name(metric, one["filter"])
                    values[name], better[name] = value, LOWER if metric == BITS else direction.get(metric, NEITHER)
        generated = task.OUTPUT_TYPE == "generate_until"
        answer, document = _answer(task, sample), sample["doc"]
        target = str(sample["target"]) if task.OUTPUT_TYPE != "multiple_choice" else _choice(task, document, sample["target"])
        category = next((str(document[key]) for key in ("category", "kind", "phenomenon", "subject") if document.get(key)), "")
        prompt = sample["arguments"][0][0]
        ended = getattr(lm, "ended", {}).get(prompt) if generated else None
        if prompt in getattr(lm, "unanswered", ()):
            continue
        if generated and entry.scores:
            wanted = [name for name in entry.scores if target or name not in ("exact", "number")]
            language = document.get("language") or entry.language or LANGUAGE
            own = scores.score_answer(wanted, answer, target, language=language, ended=ended, category=category)
            values |= own
            better |= {metric: scores.METRICS[metric].better for metric in own}
        yield Document(
            task=title, id=first + number, prompt=prompt, answer=answer, target=target, values=values, ended=ended,
            category=category, asked=_plain(task, document) if generated else "",
        )  # fmt: skip


def _metric_name(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric} ({filter_name})"


def _value(metric: str, value: Any) -> tuple[float, float] | None:
    """(numerator, denominator) of a harness metric of one document; None for what is made of all documents at once."""
    if metric in NO_VALUE:
        return None
    if metric == BITS and isinstance(value, (tuple, list)):
        return -float(value[0]) / math.log(2), float(value[1])
    return (float(value), 1.0) if isinstance(value, (int, float)) or hasattr(value, "item") else None


def _answer(task: ConfigurableTask, sample: Mapping[str, Any]) -> str:
    """What was generated, or the likeliest choice."""
    if task.OUTPUT_TYPE == "generate_until":
        return str(sample["resps"][0][0])
    if task.OUTPUT_TYPE != "multiple_choice":
        return ""
    choices = [str(choice) for choice in task.doc_to_choice(sample["doc"])]
    logps = [float(response[0]) for response in sample["filtered_resps"][: len(choices)]]
    return choices[max(range(len(choices)), key=logps.__getitem__)]


def _choice(task: ConfigurableTask, document: Mapping[str, Any], target: Any) -> str:
    choices = [str(choice) for choice in task.doc_to_choice(document)]
    return choices[target] if isinstance(target, int) and 0 <= target < len(choices) else str(target)


def _plain(task: ConfigurableTask, document: Mapping[str, Any]) -> str:
    """The prompt by itself, without template, examples and description."""
    asked = task.doc_to_text(document)
    return asked if isinstance(asked, str) else ""


# --- rows ---------------------------------------------------------------------------------------------------------------


def _means(documents: Sequence[Document], title: str, better: Mapping[str, int]) -> Iterator[Score]:
    for metric, direction in better.items():
        values = [document.values[metric] for document in documents if metric in document.values]
        value, low, high = interval(values)
        yield Score(task=title, metric=metric, value=value, low=low, high=high, documents=len(values), better=direction)


def _of_all(
    results: Mapping[str, Any], samples: Sequence[Mapping[str, Any]], title: str, direction: Mapping[str, int]
) -> Iterator[Score]:
    """Metrics of the harness that no document has by itself (F1, Matthews); by its own standard error where it gives one."""
    for sample in {one["filter"]: one for one in samples}.values():
        for metric in sample["metrics"]:
            if metric in (*NO_VALUE, *ALL_AT_ONCE) or _value(metric, sample[metric]) is not None:
                continue
            value, error = results.get(f"{metric},{sample['filter']}"), results.get(f"{metric}_stderr,{sample['filter']}")
            if isinstance(value, (int, float)):
                wide = 1.96 * float(error) if isinstance(error, (int, float)) else 0.0
                name = _metric_name(metric, sample["filter"])
                yield Score(
                    task=title, metric=name, value=float(value), low=value - wide, high=value + wide, documents=len(samples),
                    better=direction.get(metric, NEITHER), corpus=True,
                )  # fmt: skip


def _labelled(score: Score, entry: TaskEntry) -> Score:
    note = entry.note or score.note
    return dataclasses.replace(score, group=entry.group or score.group, note=note, language=entry.language or LANGUAGE)
