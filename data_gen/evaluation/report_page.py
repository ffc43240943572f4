"""report.html of an evaluation: one page that stands alone, with the palette, type and style sheet of data_gen/charts.py.

No script, no font, no picture from elsewhere. Everything that comes from models, tasks and data is escaped here.
"""

from collections.abc import Iterable, Sequence
from html import escape

from data_gen.charts import is_own, prose, style
from data_gen.evaluation.report_facts import (
    BAD,
    BETTER,
    SIGNS,
    UNCLEAR,
    WORSE,
    Facts,
    Grid,
    Row,
    Sample,
    Section,
    Standing,
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
)
from data_gen.evaluation.results import LANGUAGE, Document
from data_gen.languages import Pack

# Of what got worse: on any ground of charts.py its contrast is at least 4.5 (a test computes it). What got better is in the
# palette's first colour, what is unclear in its muted one.
RED_LIGHT, RED_DARK = "#b3261e", "#ff9a90"
_KINDS = {SIGNS[WORSE]: WORSE, BAD: WORSE, SIGNS[BETTER]: BETTER, SIGNS[UNCLEAR]: UNCLEAR}

_CSS = f"""
:root{{--worse:{RED_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{--worse:{RED_DARK}}}}}
main{{max-width:84rem}}
.worse{{color:var(--worse)}}.better{{color:var(--first)}}.unclear{{color:var(--muted)}}
.worse,.better{{font-weight:600}}
th bdi,footer bdi{{line-height:1.9}}
.standing h3{{font-size:1.1rem;margin:0}}
.standing p{{margin:.2rem 0}}.standing details{{margin:0}}
.standing ul{{margin:.1rem 0 .6rem;padding-inline-start:1.2rem}}
summary{{cursor:pointer;list-style:none}}
summary::-webkit-details-marker{{display:none}}
summary::after{{content:"show";margin-inline-start:.4em;font-size:.85em;color:var(--third);text-decoration:underline}}
[open]>summary::after{{content:"hide"}}
.standing .share{{display:flex;gap:2px;height:.7rem;margin:.6rem 0}}
.share i{{border-radius:2px;min-width:3px;background:var(--muted);opacity:.45}}
.share i.worse{{background:var(--worse);opacity:1}}.share i.better{{background:var(--first);opacity:1}}
.doubts{{list-style:none;padding:0;margin:1rem 0}}
.wide{{padding:0}}
.wide:focus-visible,.turn:focus-visible{{outline:2px solid var(--third);outline-offset:2px}}
th.name{{position:sticky;left:0;z-index:1;background:var(--surface);color:var(--ink);text-align:left;white-space:normal;
min-width:8rem;max-width:19rem;overflow-wrap:anywhere;font-weight:600;box-shadow:1px 0 var(--line)}}
th.name small{{display:block;font-weight:400}}
.results td,tbody th.name{{vertical-align:top;line-height:1.4}}
.results td small{{display:block}}
.results td .worse,.results td .better,.results td .unclear{{display:block;font-size:.9em}}
.results td small.within{{display:inline}}
.results td span .within{{color:inherit;font-size:.9em}}
.results th[scope=col]{{vertical-align:bottom}}
.group th{{text-align:left;color:var(--first);padding-top:1.1rem;background:var(--surface)}}
.group span{{position:sticky;left:.6rem}}
sup{{line-height:1;font-size:.7em}}sup a{{text-decoration:none}}
.notes{{font-size:.9rem;color:var(--muted);padding-inline-start:2rem;overflow-wrap:anywhere}}
.texts td{{white-space:normal;min-width:8rem;overflow-wrap:anywhere;text-align:left;vertical-align:top}}
.grid{{margin-top:1rem}}
.texts th{{text-align:left}}
.grid thead th{{white-space:normal;vertical-align:bottom}}
details{{margin-top:.4rem}}
.grid td{{vertical-align:top}}
.grid h3{{margin:1.5rem 0 .4rem}}
.sample{{margin-bottom:1rem}}
.answers{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,16rem),1fr));gap:1px;background:var(--line)}}
.answers .turn{{min-width:0;border-inline-start:0;border-top:4px solid var(--second)}}
.turn.system{{background:var(--surface)}}
.turn .who b{{color:var(--ink)}}
.sample .turn .who .worse{{font-weight:600}}
@media (max-width:34rem){{th,td{{padding:.35rem .45rem}}th.name{{min-width:7rem;max-width:8.5rem;font-size:.85rem}}
.results td small.within{{display:block}}
.grid td,.grid thead th{{white-space:normal;overflow-wrap:anywhere;min-width:6.5rem}}}}
"""


def render(facts: Facts, title: str, before: Sequence[Section], after: Sequence[Section]) -> str:
    """The page: sections before and after the samples."""
    pack = pack_of(LANGUAGE)
    parts = [("results", "Results", _results(facts))]
    parts += [(section.name, section.heading, _section(section, pack)) for section in before]
    parts += [("samples", "Samples", _samples(facts))] if facts.samples else []
    parts += [(section.name, section.heading, _section(section, pack)) for section in after]
    links = "".join(f'<a href="#{name}">{escape(said)}</a>' for name, said, _ in parts)
    sections = "".join(f'<section id="{name}"><h2>{escape(said)}</h2>{inner}</section>' for name, said, inner in parts)
    types = {one.code: one for one in (pack, *(pack_of(sample.language) for sample in facts.samples))}
    (named, *models), opening = map(escape, headings(facts, title)), _opening(facts, [*before, *after])
    beside = "".join(f'<p class="muted">{one}</p>' for one in models)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{named}: evaluation</title>'
        f"<style>{style(*types.values())}{_CSS}</style></head><body><main><header><h1>{named}</h1>{beside}</header>{opening}"
        f"<nav>{links}</nav>{sections}</main></body></html>\n"
    )


# --- one glance


def _opening(facts: Facts, sections: Iterable[Section]) -> str:
    cards = "".join(_standing(standing(facts, model.name), facts.base or "") for model in facts.others())
    cards = f'<div class="two" style="margin-top:1.25rem">{cards}</div>' if cards else ""
    doubts = "".join(f'<li class="worse">{escape(text)}</li>' for text in alarms(sections))
    return f'{cards}<ul class="doubts">{doubts}</ul><p class="muted">{escape(method(facts))}</p>'


def _standing(found: Standing, base: str) -> str:
    counts = {name: count for name, count in found.counts.items() if count}
    drawn = "".join(f'<i class="{name}" style="flex:{count}" title="{count} {name}"></i>' for name, count in counts.items())
    lists = "".join(_tests(*one) for one in found.lists)
    return (
        f'<article class="card standing"><h3>{escape(found.model)}</h3><p>beside {escape(base)}: {escape(found.said)}.</p>'
        f'<div class="share">{drawn}</div>{lists}</article>'
    )


def _tests(verdict: str, name: str, tests: Sequence[str]) -> str:
    """What got worse is read without a click."""
    items = "".join(f"<li>{escape(test)}</li>" for test in tests)
    sign = f"{SIGNS[verdict]} " if verdict else ""
    head = f'<span class="{verdict or UNCLEAR}">{sign}{name} ({len(tests)})</span>'
    return f"<details{' open' if verdict == WORSE else ''}><summary>{head}</summary><ul>{items}</ul></details>"


# --- the table


def _results(facts: Facts) -> str:
    names = "".join(
        f'<th scope="col">{escape(model.name)}{"<br><small>base</small>" if model.name == facts.base else ""}</th>'
        for model in facts.models
    )
    lines = []
    for name, rows in facts.groups():
        if name:
            lines.append(f'<tr class="group"><th colspan="{len(facts.models) + 2}"><span>{escape(name)}</span></th></tr>')
        lines += [_row(row, facts) for row in rows]
    notes = "".join(f'<li id="note-{number}">{escape(note)}</li>' for number, note in enumerate(facts.notes, 1))
    return (
        '<p class="muted">Small, beside a value: its 95 % interval. Below it: the difference from the base with its own; of '
        "percentages in points.</p>"
        '<div class="card wide" tabindex="0" role="region" aria-label="Results"><table class="results"><thead><tr>'
        f'<th class="name" scope="col">test</th>{names}<th scope="col">documents</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>" + (f'<ol class="notes">{notes}</ol>' if notes else "")
    )


def _row(row: Row, facts: Facts) -> str:
    head = f'<th class="name" scope="row">{escape(row.task)}<small>{escape(row.label)}{_references(row.notes)}</small></th>'
    cells = "".join(f"<td>{_result(row, model.name)}</td>" for model in facts.models)
    return f"<tr>{head}{cells}<td>{escape(row.documents)}</td></tr>"


def _result(row: Row, model: str) -> str:
    reference = _references([row.absent[model]] if model in row.absent else [])
    if (score := row.scores.get(model)) is None:
        return f"–{reference}"
    within = interval(score, row.form)
    said = figure(score.value, row.form) + (f' <small class="within">{within}</small>' if within else "")
    if change := row.changes.get(model):
        value, within = change_said(change, row.form)
        said += f'<span class="{change.verdict}">{escape(value)} <small class="within">({escape(within)})</small></span>'
    return said + reference


def _references(numbers: Iterable[int]) -> str:
    links = ", ".join(f'<a href="#note-{number}">{number}</a>' for number in numbers)
    return f" <sup>{links}</sup>" if links else ""


# --- sections


def _section(section: Section, pack: Pack) -> str:
    said = "".join(f"<p{_kind(text)}>{escape(text)}</p>" for text in section.said)
    grids = "".join(_grid(grid, pack) for grid in section.grids)
    quotes = "".join(f'<div class="turn">{prose(clipped(text), pack)}</div>' for text in section.quotes)
    quotes = f"<details><summary>What was found (examples: {len(section.quotes)})</summary>{quotes}</details>" if quotes else ""
    code = f'<div class="card grid"><pre><code>{escape(section.code)}</code></pre></div>' if section.code else ""
    return said + grids + quotes + code


def _kind(text: str) -> str:
    kind = _KINDS.get(text[:1], "")
    return f' class="{kind}"' if kind else ""


def _grid(grid: Grid, pack: Pack) -> str:
    kind = ' class="texts"' if any(len(cell) > 40 for row in grid.rows for cell in row[1:]) else ""
    head = "".join(f'<th scope="col"{_named(place)}>{escape(name)}</th>' for place, name in enumerate(grid.head))
    rows = "".join(f'<tr><th class="name" scope="row">{_name(name, pack)}</th>{_cells(cells)}</tr>' for name, *cells in grid.rows)
    title = f"<h3>{escape(grid.title)}</h3>" if grid.title else ""
    return (
        f'<div class="grid">{title}<div class="card wide" tabindex="0" role="region" aria-label="{escape(grid.title or "table")}">'
        f"<table{kind}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def _cells(cells: Iterable[str]) -> str:
    return "".join(f"<td{_kind(cell)}>{escape(cell)}</td>" for cell in cells)


def _named(place: int) -> str:
    return "" if place else ' class="name"'


def _name(text: str, pack: Pack) -> str:
    """A name of the data, such as a category, in its own type."""
    if not is_own(text, pack):
        return escape(text)
    return f'<bdi dir="{escape(pack.direction)}" lang="{escape(pack.code)}">{escape(text)}</bdi>'


# --- samples


def _samples(facts: Facts) -> str:
    tasks = dict.fromkeys(sample.task for sample in facts.samples)
    parts = ['<p class="muted">Drawn by lot, not chosen; the same documents in every report. Long texts are cut, with “…”.</p>']
    for task in tasks:
        cards = "".join(_sample(sample, pack_of(sample.language)) for sample in facts.samples if sample.task == task)
        parts.append(f'<h3 style="margin-top:1.5rem">{escape(task)}</h3>{cards}')
    return "".join(parts)


def _sample(sample: Sample, pack: Pack) -> str:
    asked = _turn("user", "asked", sample.question, pack)
    expected = _turn("system", "expected", clipped(sample.target), pack) if sample.target.strip() else ""
    answers = "".join(_answer(name, document, pack) for name, document in sample.answers.items())
    about = f"<span>document {sample.id}</span>" + (f"<span>{_name(sample.category, pack)}</span>" if sample.category else "")
    return f'<article class="card sample">{asked}{expected}<div class="answers">{answers}</div><footer>{about}</footer></article>'


def _answer(name: str, document: Document, pack: Pack) -> str:
    got = "".join(f" · <span{_kind(mark)}>{escape(mark)}</span>" for mark in marks(document))
    return _turn("assistant", f"<b>{escape(name)}</b>{got}", clipped(document.answer), pack)


def _turn(role: str, who: str, text: str, pack: Pack) -> str:
    """who: HTML already."""
    direction = pack.direction if is_own(text, pack) else "ltr"
    body = prose(text, pack) or '<p class="muted" dir="ltr">(empty)</p>'
    return (
        f'<div class="turn {role}" dir="{escape(direction)}" tabindex="0"><p class="who" lang="en" dir="ltr">{who}</p>{body}</div>'
    )
