"""report.html of a dataset: one page that stands alone, for a look at the data before anything is trained on it.

No script, no font, no picture from elsewhere: it opens from a disk without network. What it shows is counted in survey.py and drawn
by charts.py; samples are set in their own direction and script.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from data_gen.card_facts import CardInputs, Table, in_words
from data_gen.charts import bar, bars, columns, is_own, prose, style
from data_gen.languages import Pack
from data_gen.readable import dollars, duration, percent
from data_gen.readable import tokens as tokens_said
from data_gen.record import Message, Record
from data_gen.survey import LanguageSurvey, Survey, TaskSurvey, binned, in_english, quantile, side_of

TOP_VERBS, TOP_OBJECTS = 20, 5
SIDE_NAMES = {"train": "to train on", "heldout": "held out"}
SECTIONS = {
    "counts": "What is in it", "lengths": "How long it is", "rejected": "What was rejected", "diversity": "What is asked for",
    "neighbours": "How near items are", "checks": "What the checks found", "samples": "Samples",
}  # fmt: skip


def render(inputs: CardInputs, survey: Survey) -> str:
    """The page. Everything that comes from the data or its recipe is escaped."""
    parts = {
        "counts": _counts(inputs, survey),
        "lengths": _lengths(inputs, survey),
        "rejected": _rejected(inputs),
        "diversity": _diversity(inputs, survey),
        "neighbours": _neighbours(inputs, survey),
        "checks": _checks(inputs, survey),
        "samples": _samples(inputs, survey),
    }
    shown = {name: part for name, part in parts.items() if part}
    sections = "".join(f'<section id="{name}"><h2>{SECTIONS[name]}</h2>{part}</section>' for name, part in shown.items())
    links = "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name in shown)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(inputs.name)}: report</title>'
        f"<style>{style(*inputs.languages)}</style></head><body><main>{_head(inputs, survey)}<nav>{links}</nav>{sections}"
        f"{_foot(inputs)}</main></body></html>\n"
    )


def _head(inputs: CardInputs, survey: Survey) -> str:
    sides = survey.sides()
    kept, seen = inputs.acceptance()
    took = "" if inputs.wall_s is None else f", {duration(inputs.wall_s)}"
    tiles = [
        (f"{sides['train']:,}", "items to train on"),
        (f"{sides['heldout']:,}", "items held out"),
        (percent(kept, seen), f"of {seen:,} candidates kept"),
        (f"{len(survey.pairs):,}", "verb–object pairs"),
    ]
    tiles += [(tokens_said(inputs.usage.total), f"tokens in {inputs.requests:,} requests" + took)] if inputs.requests else []
    tiles += [(dollars(inputs.cost), "paid to the teacher")] if inputs.cost is not None else []
    licence = f"Licence: {escape(inputs.licence or 'not stated')}."
    native = " · ".join(
        f'<span lang="{escape(pack.code)}" dir="{escape(pack.direction)}">{escape(pack.native_name)}</span>'
        for pack in inputs.languages
    )
    drawn = "".join(f'<div class="tile"><b>{escape(figure)}</b><span>{escape(what)}</span></div>' for figure, what in tiles)
    return (
        f"<header><h1>{escape(inputs.name)} · {native}</h1>"
        f'<p class="muted">{escape(inputs.words.intro(inputs))} {licence}</p>'
        f'</header><div class="tiles">{drawn}</div>'
    )


def _foot(inputs: CardInputs) -> str:
    return (
        f'<section><h2>Made by</h2><div class="card"><pre><code>{escape(inputs.command)}</code></pre>'
        '<p class="muted">README.md beside this page says how the data was made, with which prompts, and what its limits are.'
        "</p></div></section>"
    )


# --- counts and lengths


def _counts(inputs: CardInputs, survey: Survey) -> str:
    tasks = sorted(survey.tasks.items(), key=lambda found: -found[1].sides.total())
    rows = [(_words(name), [task.sides["train"], task.sides["heldout"]], "") for name, task in tasks]
    said = [(f"{name} ({code})" if name else code, [count], "") for code, name, count in language_counts(inputs, survey)]
    turns = [(f"{count} answers" if count > 1 else "1 answer", [times], "") for count, times in sorted(survey.turns.items())]
    more = f'<div class="card"><h3>Turns of a conversation</h3>{bars(turns)}</div>' if len(turns) > 1 else ""
    return (
        '<p class="muted"><span class="key" style="margin-inline-start:0"></span>to train on<span class="key second"></span>'
        f"held out: {escape(inputs.words.heldout)}</p>"
        f'<div class="two"><div class="card"><h3>By task</h3>{bars(rows)}</div><div class="two" style="grid-template-columns:1fr">'
        f'<div class="card"><h3>By language of the answer</h3>{bars(said)}</div>{more}</div></div>'
        + _tables(inputs, "counts", "terms")
    )


def language_counts(inputs: CardInputs, survey: Survey) -> list[tuple[str, str, int]]:
    """(code, English name or "", records), the most frequent first."""
    names = inputs.names()
    return [(code, names.get(code, ""), count) for code, count in survey.languages.most_common()]


def _tables(inputs: CardInputs, *sections: str) -> str:
    """The recipe's tables of some sections."""
    return "".join(_table(table) for table in inputs.tables if table.section in sections)


def _table(table: Table) -> str:
    text = in_words(table.rows, len(table.head))
    left = " style='text-align:left;white-space:normal'"
    lines = "".join(
        f"<tr>{''.join(f'<{tag}{left * text[place]}>{escape(cell)}</{tag}>' for place, cell in enumerate(row))}</tr>"
        for tag, row in [("th", table.head), *(("td", row) for row in table.rows)]
    )
    note = f'<p class="muted">{escape(table.note)}</p>' if table.note else ""
    return f'<div class="card wide" style="margin-top:1rem"><h3>{escape(table.title)}</h3>{note}<table>{lines}</table></div>'


def _words(name: str) -> str:
    return name.replace("_", " ")


def _lengths(inputs: CardInputs, survey: Survey) -> str:
    asked: Counter[int] = sum((task.instruction_words for task in survey.tasks.values()), Counter())
    answered: Counter[int] = sum((task.answer_words for task in survey.tasks.values()), Counter())
    plots = [_length_plot(asked, inputs.words.asked), _length_plot(answered, "words of the answer")]
    drawn = "".join(f'<div class="card">{plot}</div>' for plot in plots if plot)
    rows = "".join(
        f"<tr><td>{escape(_words(name))}</td>{_quantiles(task.instruction_words)}{_quantiles(task.answer_words)}</tr>"
        for name, task in survey.tasks.items()
    )
    head = "<tr><th>task</th><th>instruction, median</th><th>9 of 10 below</th><th>answer, median</th><th>9 of 10 below</th></tr>"
    drawn = f'<div class="two">{drawn}</div><div class="card wide" style="margin-top:1rem"><table>{head}{rows}</table></div>'
    return drawn + _tables(inputs, "lengths")


def _quantiles(counts: Counter[int]) -> str:
    return "".join(f"<td>{quantile(counts, share):,}</td>" if counts else "<td>–</td>" for share in (0.5, 0.9))


def _length_plot(counts: Counter[int], what: str) -> str:
    bins = binned(counts)
    if not bins:
        return ""
    named = [(f"{low:,} to {high - 1:,}" if high - low > 1 else f"{low:,}", count) for low, high, count in bins[:-1]]
    named.append((f"{bins[-1][0]:,} and more", bins[-1][2]))
    ends = ["0", f"{bins[len(bins) // 2][0]:,}", f"{bins[-1][0]:,}+"]
    return columns(named, ends, f"{what}; median {quantile(counts, 0.5):,}, longest {max(counts):,}")


def _rejected(inputs: CardInputs) -> str:
    (kept, seen), drawn = inputs.acceptance(), list[str]()
    for stage, ranked in inputs.rejections():
        rows = [(_words(reason), [count], inputs.words.reasons.get(reason, "")) for reason, count in ranked]
        drawn.append(f'<div class="card">{f"<h3>{escape(_words(stage))}</h3>" if stage else ""}{bars(rows)}</div>')
    said = f"Of {seen:,} candidates {kept:,} were kept. A rejected one is counted under the first reason found."
    counted = f'<p class="muted">{said}</p>{_side_by_side(drawn)}' if drawn else ""
    return counted + _tables(inputs, "made")


def _side_by_side(cards: Sequence[str]) -> str:
    return f'<div class="two">{"".join(cards)}</div>' if len(cards) > 1 else "".join(cards)


# --- diversity and nearness


def _diversity(inputs: CardInputs, survey: Survey) -> str:
    verbs, tables = survey.top_verbs(TOP_VERBS, TOP_OBJECTS), _tables(inputs, "diversity")
    if not verbs:
        return tables
    found = survey.pairs.total() + survey.pairs_untold
    most = f"at least {len(survey.pairs):,}" if survey.pairs_untold else f"{len(survey.pairs):,}"
    said = (
        f"{most} distinct pairs of a verb and {inputs.words.thing}, in {found:,} of {found + survey.verbless:,} instructions; the "
        f"others have none of the verbs looked for. The {len(verbs)} most frequent verbs, each with its most frequent objects:"
    )
    cards = "".join(_verb(verb, total, objects, verbs[0][1]) for verb, total, objects in verbs)
    code, direction = ("en", "ltr") if inputs.words.asks_in_english else (inputs.pack.code, inputs.pack.direction)
    ways = f'lang="{escape(code)}" dir="{escape(direction)}"'
    return f'<p class="muted">{said}</p><div class="verbs" {ways}>{cards}</div>{tables}'


def _verb(verb: str, total: int, objects: list[tuple[str, int]], most: int) -> str:
    told = [(name or "–", count) for name, count in objects]
    rest = total - sum(count for _, count in told)
    parts, names = [*(count for _, count in told), rest], [*(name for name, _ in told), "…"]
    listed = "".join(f"<span><bdi>{escape(name)}</bdi> <small>{count:,}</small></span>" for name, count in told)
    return (
        f'<div class="card verb"><h3>{escape(verb)}<span>{total:,}</span></h3>'
        f"{bar(parts, total / most, names, last='third')}<p>{listed}</p></div>"
    )


def _neighbours(inputs: CardInputs, survey: Survey) -> str:
    if not survey.rouge:
        return ""
    threshold = inputs.recipe.get("rouge_threshold")
    mark = float(threshold) if isinstance(threshold, (int, float)) else None
    bins = [(f"{low / 100:.2f} to {(low + 2) / 100:.2f}", survey.rouge[low] + survey.rouge[low + 1]) for low in range(0, 100, 2)]
    caption = "ROUGE-L of an instruction with the nearest seed or item kept before it"
    caption += "" if mark is None else f"; above {mark:g}, the dashed line, it is rejected"
    return f'<div class="card">{columns(bins, ["0", "0.25", "0.5", "0.75", "1"], caption, mark)}</div>'


def _checks(inputs: CardInputs, survey: Survey) -> str:
    meanings = inputs.words.checks
    lines = "".join(
        f"<tr><td>{escape(_words(name))}</td><td style='text-align:left;white-space:normal'>{escape(meanings.get(name, ''))}</td>"
        f"<td>{escape(said or '–')}</td></tr>"
        for name, said in inputs.checks.items()
    )
    table = f"<table><tr><th>check</th><th style='text-align:left'>what it does</th><th>threshold</th></tr>{lines}</table>"
    shown = f'<div class="card wide" style="margin-bottom:1rem">{table}</div>' if lines else ""
    drawn = [_score_plot(_score_name(inputs, name), values) for name, values in sorted(survey.scores.items())]
    plots = "".join(f'<div class="card">{plot}</div>' for plot in drawn)
    said = f'<p class="muted">{escape(inputs.reviewed)}</p>' if inputs.reviewed else ""
    return said + shown + (f'<div class="two">{plots}</div>' if plots else "") + _tables(inputs, "checks")


def _score_name(inputs: CardInputs, name: str) -> str:
    return inputs.words.scores.get(name, _words(name))


def _score_plot(name: str, values: Mapping[float, int]) -> str:
    """Few different values have a column each, many are put into twenty."""
    count = sum(values.values())
    mean = sum(value * times for value, times in values.items()) / count
    caption = f"{name}: mean {mean:.4g} of {count:,} items kept"
    if len(values) == 1:
        return f"<p>{escape(name)}: {mean:g} for all {count:,} items kept</p>"
    if len(values) <= 8:
        bins = [(f"{value:g}", values[value]) for value in sorted(values)]
        return columns(bins, [name for name, _ in bins], caption, each=True)
    top = 1.0 if max(values) <= 1 else 100.0 if max(values) <= 100 else max(values)
    sums = Counter[int]()
    for value, times in values.items():
        sums[min(19, max(0, int(20 * value / top)))] += times
    named = [(f"{place * top / 20:g} to {(place + 1) * top / 20:g}", sums[place]) for place in range(20)]
    return columns(named, ["0", f"{top / 2:g}", f"{top:g}"], caption)


# --- samples


def _samples(inputs: CardInputs, survey: Survey) -> str:
    """Of each task; of each language where there are several."""
    groups: dict[str, TaskSurvey] | dict[str, LanguageSurvey] = survey.tasks
    if len(inputs.languages) > 1:
        names = inputs.names()
        groups = {names.get(code, code): language for code, language in survey.by_language.items()}
    parts = []
    for name, group in groups.items():
        cards = "".join(_sample(record, inputs) for record in group.samples())
        parts.append(f'<h3 style="margin-top:1.5rem">{escape(_words(name))}</h3><div class="two">{cards}</div>')
    return '<p class="muted">Drawn at random, not chosen.</p>' + "".join(parts)


def _sample(record: Record, inputs: CardInputs) -> str:
    turns = [{"role": "text", "content": record.text}] if record.text is not None else record.messages or ()
    drawn = "".join(_turn(turn, inputs.pack_of(record.language), in_english(record, turn)) for turn in turns)
    about = "".join(f"<span>{escape(part)}</span>" for part in _about(record, inputs))
    return f'<article class="card sample">{drawn}<footer>{about}</footer></article>'


def _turn(turn: Message, pack: Pack, english: bool) -> str:
    role, content = turn["role"], turn["content"]
    direction = pack.direction if is_own(content, pack) and not english else "ltr"
    body = f'<p class="who" lang="en">{escape(role)}</p>{prose(content, pack, english=english)}'
    return f'<div class="turn {escape(role)}" dir="{escape(direction)}" tabindex="0">{body}</div>'


def _about(record: Record, inputs: CardInputs) -> Iterator[str]:
    yield SIDE_NAMES.get(side_of(record), side_of(record))
    yield record.language
    if isinstance(rouge := record.meta.get("rouge"), (int, float)):
        yield f"ROUGE-L {rouge:.2f}"
    for check, value in dict(record.meta.get("scores") or {}).items():
        name = _score_name(inputs, check)
        yield f"{name} {value:g}" if isinstance(value, (int, float)) else f"{name} {value}"
    yield from (str(record.meta[name]) for name in ("domain", "licence") if record.meta.get(name))
    yield record.id
