"""The sections of the report below its table, as plain text: what a judge found, what of the tests is in the training data, and how
the evaluation was run.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from data_gen.evaluation.report_facts import BAD, BETTER, SIGNS, WORSE, Facts, Grid, Section, figure
from data_gen.readable import dollars, duration

HALF = 0.5  # a win rate at which nobody is better
STEADY = 0.7  # of the pairs; a judge who keeps to fewer verdicts goes by place as much as by what is said


def judge_section(comparisons: Sequence[Mapping[str, Any]]) -> Section:
    """What a judge found: pairs of answers first, then answers that were marked alone."""
    pairs = [one for one in comparisons if one["kind"] == "pairwise"]
    single = [one for one in comparisons if one["kind"] == "single"]
    said = [f"{BAD if bad else ''} {text}".strip() for one in pairs for bad, text in _doubts(one)]
    grids = [
        _facts_of(pairs, "Two answers side by side", _PAIRWISE),
        _by_category(pairs, "Win rate by category", "win_rate", lambda one: _rate(one, "win_rate")),
        _facts_of(single, "Answers marked one by one", _SINGLE),
        _by_category(single, "Marks by category", "mean", _mark),
    ]
    if not comparisons:
        said = ["No judge was asked."]
    elif pairs:
        said.insert(
            0,
            "A pair of answers is judged in both orders, and won only where both verdicts agree; else it is a tie. Win rate: wins "
            "and half of the ties, so that 50% is a draw. At equal length: what would be left of it if both answers were as long.",
        )
    return Section(name="judge", heading="What a judge says", said=tuple(said), grids=tuple(grid for grid in grids if grid.rows))


def _doubts(one: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """Why a comparison may say less than it seems to."""
    names, steady, first = f"{one['model']} against {one['against']}", one.get("position_consistency"), one.get("first_place_share")
    if steady is not None and steady < STEADY:
        place = "" if first is None else f"; of the others the judge preferred the first in {figure(first, 'share')}"
        kept = f"only {figure(steady, 'share')} of the pairs of answers keep their verdict when they change places"
        yield True, f"{names}: {kept}{place}."
    if excluded := one.get("excluded"):
        yield False, f"{names}: {excluded:,} of {one['prompts']:,} prompts have no verdict and are left out."


def _rate(one: Mapping[str, Any], name: str) -> str:
    """A share of pairs won, with its interval, as better or worse than a half."""
    value, low, high = (float(one[part]) for part in (name, "low", "high"))
    sign = f"{SIGNS[BETTER]} " if low > HALF else f"{SIGNS[WORSE]} " if high < HALF else ""
    return f"{sign}{figure(value, 'share')} ({100 * low:.1f} to {100 * high:.1f})"


def _mark(one: Mapping[str, Any]) -> str:
    return f"{one['mean']:.1f} ({one['low']:.1f} to {one['high']:.1f})"


def _share(value: float | None) -> str:
    return "–" if value is None else figure(value, "share")


def _words(one: Mapping[str, Any]) -> str:
    counts = one.get("mean_words") or {}
    return " / ".join(f"{counts[side]:.0f}" for side in ("model", "against") if side in counts) or "–"


_Line = tuple[str, Callable[[Mapping[str, Any]], str]]
_LAST: tuple[_Line, ...] = (
    ("judged by", lambda one: f"{one['judge']}"),
    ("its cost", lambda one: "–" if one.get("cost") is None else dollars(one["cost"])),
    ("its instructions", lambda one: str(one.get("prompt_hash") or "–")),
    ("tasks", lambda one: ", ".join(one.get("tasks") or ()) or "–"),
    ("date", lambda one: str(one.get("date") or "–")),
)
_PAIRWISE: tuple[_Line, ...] = (
    ("win rate", lambda one: _rate(one, "win_rate")),
    ("at equal length", lambda one: _share(one.get("length_controlled"))),
    ("won / tied / lost", lambda one: f"{one['wins']:,} / {one['ties']:,} / {one['losses']:,}"),
    ("pairs judged", lambda one: f"{one['judged']:,}"),
    ("of these identical answers", lambda one: f"{one.get('identical') or 0:,}"),
    ("left out, without a verdict", lambda one: f"{one.get('excluded') or 0:,}"),
    ("same verdict in both orders", lambda one: _share(one.get("position_consistency"))),
    ("else the first place preferred", lambda one: _share(one.get("first_place_share"))),
    ("words of an answer, on average", _words),
    *_LAST,
)
_SINGLE: tuple[_Line, ...] = (
    ("mean mark, of 100", _mark),
    ("answers judged", lambda one: f"{one['judged']:,}"),
    ("left out, without a mark", lambda one: f"{one.get('excluded') or 0:,}"),
    ("words of an answer, on average", _words),
    *_LAST,
)


def _facts_of(comparisons: Sequence[Mapping[str, Any]], title: str, lines: Sequence[_Line]) -> Grid:
    rows = tuple((name, *(say(one) for one in comparisons)) for name, say in lines) if comparisons else ()
    return Grid(head=("", *_names(comparisons)), rows=rows, title=title)


def _names(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    return [" against ".join(filter(None, (one["model"], one.get("against")))) for one in comparisons]


def _by_category(comparisons: Sequence[Mapping[str, Any]], title: str, name: str, say: Callable[[Mapping[str, Any]], str]) -> Grid:
    """A row for each category, with the number of answers that were judged."""
    categories = sorted({category for one in comparisons for category in one.get("by_category") or ()})
    rows = []
    for category in categories:
        found = [(one.get("by_category") or {}).get(category) for one in comparisons]
        rows.append((category, *(f"{say(some)} of {some['judged']:,}" if some else "–" for some in found)))
    return Grid(head=("category", *_names(comparisons)), rows=tuple(rows), title=title)


def leaks_section(leaks: Mapping[str, Any] | None) -> Section:
    """Whether the training data has what is asked."""
    name, heading = "leaks", "Was it in the training data?"
    if not leaks or not leaks.get("shards"):
        said = ("Nobody looked: no training data was given.", str((leaks or {}).get("missing") or ""))
        return Section(name=name, heading=heading, said=tuple(filter(None, said)))
    tests: Mapping[str, Mapping[str, Any]] = leaks.get("tests") or {}
    found, documents = (sum(int(test[what]) for test in tests.values()) for what in ("found", "documents"))
    told = str(leaks.get("told") or f"{found:,} of {documents:,} documents of the tests are in the training data.")
    rows = tuple(_leak(task, test) for task, test in tests.items())
    return Section(
        name=name,
        heading=heading,
        said=(
            f"{BAD} {told}" if found else told,
            *filter(None, (str(leaks.get("missing") or ""),)),
            f"Training data that was read: {', '.join(map(str, leaks['shards']))}",
        ),
        grids=(Grid(head=("test", "documents", "found", "share", "too short to tell"), rows=rows),) if rows else (),
        quotes=tuple(f"{task}\n{_text(example)}" for task, test in tests.items() for example in test.get("examples") or ()),
    )


def _leak(task: str, test: Mapping[str, Any]) -> tuple[str, ...]:
    found, documents = int(test["found"]), int(test["documents"])
    share = figure(found / documents, "share") if documents else "–"
    return task, f"{documents:,}", f"{BAD} {found:,}" if found else "0", share, f"{test.get('too_short') or 0:,}"


_COSTS = {"seconds": "time", "dollars": "cost"}


def running_section(facts: Facts, command: str) -> Section:
    """What the evaluation took, what it left out, and what exactly was evaluated with what."""
    models = facts.models
    names = ("", *(model.name for model in models))
    run = [
        ("kind", *(model.kind for model in models)),
        ("began", *(model.began or "–" for model in models)),
        *((_COSTS.get(name, name), *cells) for name, *cells in _of_keys([model.costs for model in models], _cost)),
        ("digest", *(model.digest[:16] or "–" for model in models)),
    ]
    cut = _of_keys([model.truncated for model in models], lambda name, count: f"{BAD} {count:,}" if count else "0")
    left = [(task, *(model.left_out.get(task, "") for model in models)) for task in _keys(model.left_out for model in models)]
    versions = _of_keys([model.versions for model in models], lambda name, version: str(version))
    unlike = [row[0] for row in versions if len(set(row[1:])) > 1]
    said = [f"{BAD} Not in the same version for all models: {', '.join(unlike)}."] if unlike else []
    said += [
        f"{BAD} {model.name}: the beginning of {sum(model.truncated.values()):,} requests was cut, since they did not fit."
        for model in models
        if any(model.truncated.values())
    ]
    known = [model.name for model in models if model.kind != "url"]
    if known and not any(any(model.truncated.values()) for model in models):
        said.append("No request was cut." if len(known) == len(models) else f"No request of {', '.join(known)} was cut.")
    said += ["Whether a server cut a request, it does not say."] if len(known) < len(models) else []
    said += [] if left else ["No task was left out."]
    grids = [
        Grid(title="Cost and time", head=names, rows=tuple(run)),
        Grid(title="Requests whose beginning the model did not see", head=names, rows=tuple(cut)),
        Grid(title="Tasks that were left out, and why", head=names, rows=tuple(left)),
        Grid(title="Models", head=names, rows=tuple(_of_keys([model.about for model in models], lambda name, value: _text(value)))),
        Grid(title="Versions", head=names, rows=tuple(versions)),
    ]
    return Section(
        name="run", heading="How it was run", said=tuple(said), grids=tuple(grid for grid in grids if grid.rows), code=command
    )


def _keys(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _of_keys(mappings: Sequence[Mapping[str, Any]], say: Callable[[str, Any], str]) -> list[tuple[str, ...]]:
    """A row for each key, with what each mapping has under it."""
    return [(key, *(say(key, one[key]) if key in one else "–" for one in mappings)) for key in _keys(mappings)]


def _cost(name: str, value: float) -> str:
    return duration(value) if "second" in name else dollars(value) if "dollar" in name or "cost" in name else f"{value:,.6g}"


def _text(value: Any) -> str:
    """Of a fact of any type."""
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
