"""OUTPUT/report.html and OUTPUT/report.md of an evaluation: each model beside the base, what got worse before what got better.

report_rows.py says who is better where, report_sections.py what stands below the table, report_page.py draws the page. The Markdown
is written here.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from data_gen import UsageError
from data_gen.charts import is_own
from data_gen.evaluation import report_page
from data_gen.evaluation.judge import read_judge
from data_gen.evaluation.report_facts import (
    BAD,
    SIGNS,
    WORSE,
    Facts,
    Row,
    Sample,
    Section,
    alarms,
    change_said,
    clipped,
    figure,
    headings,
    interval,
    marks,
    method,
    pack_of,
    standing,
)  # fmt: skip
from data_gen.evaluation.report_rows import gather
from data_gen.evaluation.report_sections import judge_section, leaks_section, running_section
from data_gen.evaluation.results import LANGUAGE, ModelResult, read_result, replace_text
from data_gen.languages import Pack

ABOUT = "report.json"  # what the report was written from, beside the models' results


def write_report(
    output: str,
    results: Sequence[ModelResult],
    *,
    base: str | None,
    title: str = "",
    command: str = "",
    leaks: Mapping[str, Any] | None = None,
) -> None:
    """Writes both files; judge.json of the same directory is part of them. base: the name of the model that the others are compared
    with. leaks: what leaks.py found in training data; None: nobody looked. What is given is kept beside them, for `write_again`.

    Raises UsageError for results that do not fit together (report_rows.gather), and where nothing can be written.
    """
    facts = gather(output, results, base)
    before = [judge_section(read_judge(output)), leaks_section(leaks)]
    after = [running_section(facts, command)]
    about = {"models": [result.name for result in results], "base": base, "title": title, "command": command, "leaks": leaks}
    texts = {
        "report.html": report_page.render(facts, title, before, after),
        "report.md": markdown(facts, title, before, after),
        ABOUT: json.dumps(about, ensure_ascii=False, indent=1) + "\n",
    }
    try:
        for name, text in texts.items():
            replace_text(Path(output, name), text)
    except OSError as error:
        raise UsageError(f"the report in {output} cannot be written: {error}; make room there") from error


def write_again(output: str) -> bool:
    """The report of the same results with what came to the directory since, such as a judge's verdicts; False where none was
    written yet.
    """
    path = Path(output, ABOUT)
    if not path.exists():
        return False
    about = json.loads(path.read_text(encoding="utf-8"))
    results = [read_result(output, name) for name in about.pop("models")]
    write_report(output, [result for result in results if result is not None], **about)
    return True


# --- Markdown


def markdown(facts: Facts, title: str, before: Sequence[Section], after: Sequence[Section]) -> str:
    """The same report as text."""
    first, *models = headings(facts, title)
    parts = [
        f"# {_plain(first)}",
        *map(_plain, models),
        *_opening(facts, [*before, *after]),
        "## Results",
        _results(facts),
        _notes(facts),
    ]
    parts += [part for section in before for part in _section(section)]
    parts += ["## Samples", *(_sample(sample) for sample in facts.samples)] if facts.samples else []
    parts += [part for section in after for part in _section(section)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(facts: Facts, sections: Iterable[Section]) -> Iterator[str]:
    for model in facts.others():
        found = standing(facts, model.name)
        yield f"**{_plain(model.name)}** beside {_plain(facts.base or '')}: {found.said}."
        lists = [f"- {_strong(verdict == WORSE, name)}: {'; '.join(map(_plain, tests))}" for verdict, name, tests in found.lists]
        yield "\n".join(lists)
    yield from map(_flagged, alarms(sections))
    yield _plain(method(facts))


def _results(facts: Facts) -> str:
    head = ["test", "documents", *(f"{_plain(one.name)}{' (base)' if one.name == facts.base else ''}" for one in facts.models)]
    lines = []
    for name, rows in facts.groups():
        lines += [[f"**{_plain(name)}**", *[""] * (len(head) - 1)]] if name else []
        for row in rows:
            cells = [_result(row, model.name) for model in facts.models]
            lines.append([f"{_plain(row.task)}<br>{_plain(row.label)}{_references(row.notes)}", row.documents, *cells])
    return _table(head, lines)


def _result(row: Row, model: str) -> str:
    """Value, interval and change from the base."""
    reference = _references([row.absent[model]] if model in row.absent else [])
    if (score := row.scores.get(model)) is None:
        return f"–{reference}"
    said = f"{figure(score.value, row.form)} ({within})" if (within := interval(score, row.form)) else figure(score.value, row.form)
    if change := row.changes.get(model):
        value, within = change_said(change, row.form)
        said += f"<br>{_strong(change.verdict == WORSE, f'{value} ({within})')}"
    return said + reference


def _references(numbers: Iterable[int]) -> str:
    said = ", ".join(map(str, numbers))
    return f" <sup>{said}</sup>" if said else ""


def _notes(facts: Facts) -> str:
    return "\n".join(f"{number}. {_plain(note)}" for number, note in enumerate(facts.notes, 1))


def _section(section: Section) -> Iterator[str]:
    yield f"## {section.heading}"
    yield from (_flagged(text) for text in section.said)
    for grid in section.grids:
        yield f"### {grid.title}" if grid.title else ""
        yield _table([_plain(name) for name in grid.head], [[_flagged(cell) for cell in row] for row in grid.rows])
    yield from (_quoted(clipped(text), pack_of(LANGUAGE)) for text in section.quotes)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", section.code)), default=0))
    yield f"{fence}\n{section.code}\n{fence}" if section.code else ""


def _sample(sample: Sample) -> str:
    pack, about = pack_of(sample.language), " · ".join(filter(None, (sample.task, str(sample.id), sample.category)))
    parts = [f"### {_plain(about)}", _quoted(sample.question, pack)]
    parts += ["Expected:", _quoted(clipped(sample.target), pack)] if sample.target.strip() else []
    for model, document in sample.answers.items():
        said = ", ".join(_flagged(mark) for mark in marks(document))
        parts.append(f"**{_plain(model)}**{f' ({said})' if said else ''}:")
        parts.append(_quoted(clipped(document.answer), pack))
    return "\n\n".join(parts)


def _quoted(text: str, pack: Pack) -> str:
    """A text of the data in its own direction: as HTML, in which Markdown reads nothing until a line is empty."""
    ways = f'dir="{pack.direction}" lang="{pack.code}"' if is_own(text, pack) else 'dir="ltr"'
    lines = [escape(line, quote=False) for line in text.splitlines() if line.strip()]
    return f"<blockquote {ways}>{'<br>'.join(lines) or '(empty)'}</blockquote>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is names, the others figures. Cells are Markdown already."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rule, *rows])


def _flagged(text: str) -> str:
    return _strong(text.startswith((SIGNS[WORSE], BAD)), text)


def _strong(strong: bool, text: str) -> str:
    return f"**{_plain(text)}**" if strong else _plain(text)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line: no tags, links, tables or code of its own."""
    return re.sub(r"[\\`*\[\]|~]", r"\\\g<0>", escape(" ".join(text.split()), quote=False))
