"""report.html of a dataset: one page that stands alone, for a look at the data before anything is trained on it.

No script, no font, no picture from elsewhere: it opens from a disk without network. What it shows is counted in survey.py and drawn
by charts.py; samples are set in their own direction and script.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape

from data_gen.card_facts import CHECKS, REASONS, CardInputs
from data_gen.charts import bar, bars, columns, is_own, prose, style
from data_gen.languages import Pack
from data_gen.readable import dollars, duration, percent
from data_gen.readable import tokens as tokens_said
from data_gen.record import Record
from data_gen.survey import Survey, binned, quantile, side_of

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
        "lengths": _lengths(survey),
        "rejected": _rejected(inputs),
        "diversity": _diversity(survey, inputs.pack),
        "neighbours": _neighbours(inputs, survey),
        "checks": _checks(inputs, survey),
        "samples": _samples(survey, inputs.pack),
    }
    shown = {name: part for name, part in parts.items() if part}
    sections = "".join(f'<section id="{name}"><h2>{SECTIONS[name]}</h2>{part}</section>' for name, part in shown.items())
    links = "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name in shown)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(inputs.name)}: report</title>'
        f"<style>{style(inputs.pack)}</style></head><body><main>{_head(inputs, survey)}<nav>{links}</nav>{sections}"
        f"{_foot(inputs)}</main></body></html>\n"
    )


def _head(inputs: CardInputs, survey: Survey) -> str:
    pack, sides = inputs.pack, survey.sides()
    kept, seen = inputs.acceptance()
    took = "" if inputs.wall_s is None else f", {duration(inputs.wall_s)}"
    tiles = [
        (f"{sides['train']:,}", "items to train on"),
        (f"{sides['heldout']:,}", "items held out"),
        (percent(kept, seen), f"of {seen:,} candidates kept"),
        (f"{len(survey.pairs):,}", "verb–object pairs"),
        (tokens_said(inputs.usage.total), f"tokens in {inputs.requests:,} requests" + took),
    ]
    tiles += [(dollars(inputs.cost), "paid to the teacher")] if inputs.cost is not None else []
    written = "written by grammars and word lists, not by a language model" if inputs.offline else f"written by {inputs.teacher}"
    licence = f"Licence: {escape(inputs.licence or 'not stated')}."
    native = f'<span lang="{escape(pack.code)}" dir="{escape(pack.direction)}">{escape(pack.native_name)}</span>'
    drawn = "".join(f'<div class="tile"><b>{escape(figure)}</b><span>{escape(what)}</span></div>' for figure, what in tiles)
    return (
        f"<header><h1>{escape(inputs.name)} · {native}</h1>"
        f'<p class="muted">{escape(pack.name)} instructions with answers, {escape(written)}. {licence}</p>'
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
    said = [(f"{name} ({code})" if name else code, [count], "") for code, name, count in language_counts(inputs.pack, survey)]
    turns = [(f"{count} answers" if count > 1 else "1 answer", [times], "") for count, times in sorted(survey.turns.items())]
    more = f'<div class="card"><h3>Turns of a conversation</h3>{bars(turns)}</div>' if len(turns) > 1 else ""
    return (
        '<p class="muted"><span class="key" style="margin-inline-start:0"></span>to train on<span class="key second"></span>'
        "held out: made from seeds that no training item comes from</p>"
        f'<div class="two"><div class="card"><h3>By task</h3>{bars(rows)}</div><div class="two" style="grid-template-columns:1fr">'
        f'<div class="card"><h3>By language of the answer</h3>{bars(said)}</div>{more}</div></div>'
    )


def language_counts(pack: Pack, survey: Survey) -> list[tuple[str, str, int]]:
    """(code, English name or "", records), the most frequent first."""
    names = {code: variety.name for code, variety in pack.varieties.items()}
    return [(code, names.get(code, ""), count) for code, count in survey.languages.most_common()]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _lengths(survey: Survey) -> str:
    asked: Counter[int] = sum((task.instruction_words for task in survey.tasks.values()), Counter())
    answered: Counter[int] = sum((task.answer_words for task in survey.tasks.values()), Counter())
    plots = [_length_plot(asked, "words of the instruction with its input"), _length_plot(answered, "words of the answer")]
    drawn = "".join(f'<div class="card">{plot}</div>' for plot in plots if plot)
    rows = "".join(
        f"<tr><td>{escape(_words(name))}</td>{_quantiles(task.instruction_words)}{_quantiles(task.answer_words)}</tr>"
        for name, task in survey.tasks.items()
    )
    head = "<tr><th>task</th><th>instruction, median</th><th>9 of 10 below</th><th>answer, median</th><th>9 of 10 below</th></tr>"
    return f'<div class="two">{drawn}</div><div class="card wide" style="margin-top:1rem"><table>{head}{rows}</table></div>'


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
    kept, seen = inputs.acceptance()
    ranked = sorted(inputs.rejected.items(), key=lambda found: (-found[1], found[0]))
    if not ranked:
        return ""
    rows = [(_words(reason), [count], REASONS.get(reason, "")) for reason, count in ranked]
    said = f"Of {seen:,} candidates {kept:,} were kept. A rejected one is counted under the first reason found."
    return f'<p class="muted">{said}</p><div class="card">{bars(rows)}</div>'


# --- diversity and nearness


def _diversity(survey: Survey, pack: Pack) -> str:
    verbs = survey.top_verbs(TOP_VERBS, TOP_OBJECTS)
    if not verbs:
        return ""
    found = survey.pairs.total() + survey.pairs_untold
    most = f"at least {len(survey.pairs):,}" if survey.pairs_untold else f"{len(survey.pairs):,}"
    said = (
        f"{most} distinct pairs of a verb and the word before it, in {found:,} of {found + survey.verbless:,} instructions; the "
        f"others have none of the verbs looked for. The {len(verbs)} most frequent verbs, each with its most frequent objects:"
    )
    cards = "".join(_verb(verb, total, objects, verbs[0][1]) for verb, total, objects in verbs)
    ways = f'lang="{escape(pack.code)}" dir="{escape(pack.direction)}"'
    return f'<p class="muted">{said}</p><div class="verbs" {ways}>{cards}</div>'


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
    lines = "".join(
        f"<tr><td>{escape(_words(name))}</td><td style='text-align:left;white-space:normal'>{escape(CHECKS.get(name, ''))}</td>"
        f"<td>{escape(said or '–')}</td></tr>"
        for name, said in inputs.checks.items()
    )
    table = f"<table><tr><th>check</th><th style='text-align:left'>what it does</th><th>threshold</th></tr>{lines}</table>"
    shown = f'<div class="card wide" style="margin-bottom:1rem">{table}</div>' if lines else ""
    plots = "".join(f'<div class="card">{_score_plot(name, values)}</div>' for name, values in sorted(survey.scores.items()))
    said = f'<p class="muted">{escape(inputs.reviewed)}</p>' if inputs.reviewed else ""
    return said + shown + (f'<div class="two">{plots}</div>' if plots else "")


def _score_plot(name: str, values: Mapping[float, int]) -> str:
    """Few different values have a column each, many are put into twenty."""
    count = sum(values.values())
    mean = sum(value * times for value, times in values.items()) / count
    caption = f"{_words(name)}: mean {mean:.4g} of {count:,} items kept"
    if len(values) == 1:
        return f"<p>{escape(_words(name))}: {mean:g} for all {count:,} items kept</p>"
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


def _samples(survey: Survey, pack: Pack) -> str:
    parts = []
    for name, task in survey.tasks.items():
        cards = "".join(_sample(record, pack) for record in task.samples())
        parts.append(f'<h3 style="margin-top:1.5rem">{escape(_words(name))}</h3><div class="two">{cards}</div>')
    return '<p class="muted">Drawn at random, not chosen.</p>' + "".join(parts)


def _sample(record: Record, pack: Pack) -> str:
    turns = [{"role": "text", "content": record.text}] if record.text is not None else record.messages or ()
    drawn = "".join(_turn(turn["role"], turn["content"], pack) for turn in turns)
    about = "".join(f"<span>{escape(part)}</span>" for part in _about(record))
    return f'<article class="card sample">{drawn}<footer>{about}</footer></article>'


def _turn(role: str, content: str, pack: Pack) -> str:
    direction = pack.direction if is_own(content, pack) else "ltr"
    body = f'<p class="who" lang="en">{escape(role)}</p>{prose(content, pack)}'
    return f'<div class="turn {escape(role)}" dir="{escape(direction)}" tabindex="0">{body}</div>'


def _about(record: Record) -> Iterator[str]:
    yield SIDE_NAMES.get(side_of(record), side_of(record))
    yield record.language
    if isinstance(rouge := record.meta.get("rouge"), (int, float)):
        yield f"ROUGE-L {rouge:.2f}"
    for check, value in dict(record.meta.get("scores") or {}).items():
        yield f"{_words(check)} {value:g}" if isinstance(value, (int, float)) else f"{_words(check)} {value}"
    yield record.id
