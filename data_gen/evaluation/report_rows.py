"""From the results and documents of several models to the rows and samples of their report: who is better than the base, and where.

The documents of a model are gone through twice, and of a prompt no more than a digest stays in memory.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from data_gen import UsageError
from data_gen.evaluation.report_facts import UNCLEAR, Change, Facts, Form, Row, Sample
from data_gen.evaluation.results import LANGUAGE, NEITHER, Document, ModelResult, Score, read_documents
from data_gen.evaluation.scores import CORPUS_SCORES, corpus_difference
from data_gen.evaluation.statistics import difference, verdict

SAMPLES = 3  # of a task
FEWEST = 6  # documents; of 5 that all say the same, chance alone does so in 1 of 16 cases, and no bootstrap can tell
# Bits, losses and perplexities may lie between 0 and 1 and are no shares for that.
_NO_SHARE = re.compile(r"bits|loss|nll|brier|perplexity|(byte|word|token)_perplexity")
# What is measured without the model writing anything.
_NOT_WRITTEN = re.compile(r"acc(_|\W|$)|exact_match_mc|likelihood|" + _NO_SHARE.pattern)
_OF_ALL = tuple(metric for metrics in CORPUS_SCORES.values() for metric in metrics)  # those that can be compared


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Of a document. asked: a digest of what was asked and wanted, without which two answers are not of one document. answer: only
    where it is scored with all the others.
    """

    asked: bytes
    values: Mapping[str, tuple[float, float]]
    answer: str
    target: str
    category: str
    written: bool


_Documents = Mapping[str, Mapping[int, _Kept]]  # by task and id


def gather(output: str, results: Sequence[ModelResult], base: str | None) -> Facts:
    """Raises UsageError for a base that is not among the results, a name that comes twice, and a model without its documents."""
    names = [result.name for result in results]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{', '.join(twice)}: given twice; each model of a report needs a name of its own")
    if base is not None and base not in names:
        raise UsageError(f"the base {base!r} is none of the models {', '.join(names)}; name one of them, or none")
    models = tuple(sorted(results, key=lambda result: result.name != base))  # a stable sort: the rest keeps its order
    documents = {model.name: _documents(output, model) for model in models}
    notes: dict[str, int] = {}
    rows = tuple(_row(key, models, base, documents, notes) for key in _keys(models))
    return Facts(base=base, models=models, rows=rows, notes=tuple(notes), samples=_samples(output, models, documents))


def _read(output: str, name: str) -> Iterator[Document]:
    try:
        yield from read_documents(output, name)
    except FileNotFoundError as error:
        raise UsageError(f"{error.filename} is missing, without which {name} cannot be compared; evaluate {name} again") from error


def _documents(output: str, model: ModelResult) -> _Documents:
    together = {score.task for score in model.scores if score.corpus}
    found: dict[str, dict[int, _Kept]] = {}
    for one in _read(output, model.name):
        scored = one.task in together
        found.setdefault(one.task, {})[one.id] = _Kept(
            asked=hashlib.sha256(f"{one.asked.strip()}\0{one.target.strip()}".encode()).digest(),
            values=one.values,
            answer=one.answer if scored else "",
            target=one.target if scored else "",
            category=one.category,
            written=scored or one.ended is not None or (bool(one.asked) and not any(map(_NOT_WRITTEN.match, one.values))),
        )
    return found


def _keys(models: Iterable[ModelResult]) -> list[tuple[str, str]]:
    """Of all rows, those of a heading and within it those of a task together, each at the place where it first comes up."""
    first: dict[tuple[str, str], Score] = {}
    for model in models:
        for score in model.scores:
            first.setdefault(score.key, score)
    groups = list(dict.fromkeys(score.group for score in first.values()))
    tasks = list(dict.fromkeys(score.task for score in first.values()))
    return sorted(first, key=lambda key: (groups.index(first[key].group), tasks.index(key[0])))


def _row(
    key: tuple[str, str],
    models: Sequence[ModelResult],
    base: str | None,
    documents: Mapping[str, _Documents],
    notes: dict[str, int],
) -> Row:
    scores = {model.name: score for model in models if (score := model.score(key))}
    first = next(iter(scores.values()))
    changes, absent = dict[str, Change](), dict[str, str]()
    for model in models:
        if model.name not in scores:
            absent[model.name] = f"{model.name}: {_why(model, first.task)}"
        elif base is not None and model.name != base:
            found, said = _compared(base, model.name, scores, documents)
            changes |= {model.name: found} if found else {}
            absent |= {model.name: said} if said else {}
    told = [score.note for score in scores.values() if score.note]
    told += [f"sacrebleu: {score.signature}" for score in scores.values() if score.signature]

    def number(note: str) -> int:
        return notes.setdefault(note, len(notes) + 1)

    return Row(
        task=first.task,
        metric=first.metric,
        group=first.group,
        form=_form(scores.values()),
        better=first.better,
        scores=scores,
        changes=changes,
        notes=tuple(map(number, dict.fromkeys(told))),
        absent={model: number(said) for model, said in absent.items()},
    )


def _compared(base: str, name: str, scores: Mapping[str, Score], documents: Mapping[str, _Documents]) -> tuple[Change | None, str]:
    """The change from the base, and what is to be said of it or of its absence."""
    if base not in scores:
        return None, f"{name}: not compared, since {base} has no such figure"
    mine, theirs = scores[name], scores[base]
    if mine.signature != theirs.signature:
        return None, f"{name}: not compared, since it is counted in another way than for {base} (see the signatures)"
    if mine.corpus and not (mine.metric in _OF_ALL and mine.signature):
        return None, "Not compared: a figure of all answers together, counted by the harness"
    change = _change(mine, documents[name], documents[base])
    if change is None:
        return None, f"{name}: not compared, since no document has a value of it for {base} too"
    said = [f"{name}: compared on the {change.documents:,} documents that {base} was asked too"]
    said = said if change.documents < min(mine.documents, theirs.documents) else []
    said += [f"Of fewer than {FEWEST} documents nothing is called better or worse"] if change.documents < FEWEST else []
    return change, ". ".join(said)


def _why(model: ModelResult, task: str) -> str:
    """Why a model has no such row: said of the task, or of the group that it belongs to."""
    groups = [name for name in model.left_out if re.match(rf"{re.escape(name)}(\W|_|$)", task)]
    return model.left_out[max(groups, key=len)] if groups else "not run"


def _form(scores: Iterable[Score]) -> Form:
    """How a metric is printed. What lies between 0 and 1 is a share, unless its name says that it is none; a BLEU is never one."""
    found = list(scores)
    if found[0].metric in _OF_ALL or (found[0].corpus and any(abs(score.value) > 1 for score in found)):
        return "corpus"
    inside = all(0 <= score.value <= 1 or math.isnan(score.value) for score in found)
    return "share" if inside and not _NO_SHARE.match(found[0].metric) else "plain"


def _change(score: Score, one: _Documents, other: _Documents) -> Change | None:
    """From `other`, the base, to `one`; None without a document in common."""
    mine, theirs = one.get(score.task, {}), other.get(score.task, {})
    pairs = [(mine[number], theirs[number]) for number in sorted(mine.keys() & theirs.keys())]
    pairs = [(here, there) for here, there in pairs if here.asked == there.asked]
    if not score.corpus:
        pairs = [(here, there) for here, there in pairs if score.metric in here.values or score.metric in there.values]
    if not pairs:
        return None
    if score.corpus:
        answers, others, targets = zip(*((here.answer, there.answer, here.target) for here, there in pairs), strict=True)
        value, low, high = corpus_difference(score.metric, answers, others, targets, score.language)
    else:
        here, there = ([document.values.get(score.metric, (0.0, 0.0)) for document in side] for side in zip(*pairs, strict=True))
        if not all(any(denominator for _, denominator in values) for values in (here, there)):
            return None
        value, low, high = difference(here, there)
    said = verdict(low, high, score.better) if len(pairs) >= FEWEST else UNCLEAR
    return Change(value=value, low=low, high=high, verdict=said if score.better != NEITHER else "", documents=len(pairs))


# --- samples


def _samples(output: str, models: Sequence[ModelResult], documents: Mapping[str, _Documents]) -> tuple[Sample, ...]:
    """Of each task whose answers are written, some documents that all models with the task were asked."""
    wanted: dict[tuple[str, int], bytes] = {}
    for task in dict.fromkeys(task for model in models for task in documents[model.name]):
        having = [documents[model.name][task] for model in models if task in documents[model.name]]
        if any(one.written for found in having for one in found.values()):
            asked = {number: one.asked for number, one in having[0].items()}
            same = [number for number in asked if all(number in some and some[number].asked == asked[number] for some in having)]
            chosen = drawn(task, {number: having[0][number].category for number in same or asked})
            wanted |= {(task, number): asked[number] for number in chosen}
    answers: dict[tuple[str, int], dict[str, Document]] = {key: {} for key in wanted}
    for model in models:
        for one in _read(output, model.name):
            key = (one.task, one.id)
            if key in wanted and documents[model.name][one.task][one.id].asked == wanted[key]:
                answers[key][model.name] = one
    languages = {score.task: score.language for model in models for score in model.scores}
    return tuple(_sample(given, languages.get(task, LANGUAGE)) for (task, _), given in answers.items())


def _sample(answers: Mapping[str, Document], language: str) -> Sample:
    first = next(iter(answers.values()))
    return Sample(
        task=first.task,
        id=first.id,
        category=first.category,
        language=language,
        asked=first.asked or first.prompt,
        target=first.target,
        answers=answers,
    )


def drawn(task: str, categories: Mapping[int, str], wanted: int = SAMPLES) -> list[int]:
    """Some documents, by their ids, of as many categories as there is room for. Nobody chooses them: a digest of the task's name
    and the id decides, so that they are the same for every model and in every report.
    """
    order = sorted(categories, key=lambda number: hashlib.sha256(f"{task} {number}".encode()).digest())
    firsts = {categories[number]: number for number in reversed(order)}
    rest = [number for number in order if number not in firsts.values()]
    ranked = sorted(firsts.values(), key=order.index) + rest
    return sorted(ranked[:wanted])
