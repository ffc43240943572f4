"""The parts that the report is drawn with: palette, style sheet, histograms in SVG, bars; and text in its own direction and type,
which the review page has from here too. HTML in strings; every text that comes in is escaped here. Nothing is counted and no file
is written.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape

import regex

from data_gen.languages import Pack
from data_gen.text import script_share

# Text on any ground has a contrast of at least 4.5, a bar on its ground at least 3 (WCAG 2.2; a test computes them).
LIGHT = {
    "ground": "#f6f4ef", "surface": "#ffffff", "asked": "#eaf3ee", "said": "#f7f3ea", "ink": "#1c232b", "muted": "#566070",
    "line": "#dfdacf", "first": "#0b6b4d", "second": "#b4501a", "third": "#35608f",
}  # fmt: skip
DARK = {
    "ground": "#11151a", "surface": "#1a2027", "asked": "#1c2f28", "said": "#2a2620", "ink": "#e9ebee", "muted": "#a6b0bd",
    "line": "#333c46", "first": "#3fb984", "second": "#ee9560", "third": "#7fb0e6",
}  # fmt: skip
# Urdu is read in Nastaliq, whose lines slope and need room; other languages of the script are read in Naskh. The fonts are free
# or come with a system.
NASTALIQ = "'Noto Nastaliq Urdu','Jameel Noori Nastaleeq','Urdu Typesetting','Noto Naskh Arabic',serif"
NASKH = "'Noto Naskh Arabic','MB Lateefi','Scheherazade New','Noto Sans Arabic','Segoe UI','Geeza Pro',serif"
SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif"  # of English
IN_NASTALIQ = ("ur", "ks", "pnb", "skr")
OWN_SHARE = 0.3  # of the letters: one long English name does not turn a line round

_STRONG = regex.compile(r"\p{L}")
_NEVER = regex.compile(r"(?!)")

_CSS = """
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.55 SANS}
main{max-width:70rem;margin:0 auto;padding:1.5rem 1.25rem 4rem}
header{border-bottom:3px solid var(--first);padding-bottom:1rem}
h1{font-size:1.9rem;line-height:1.25;margin:.5rem 0;overflow-wrap:anywhere}
h1 [lang]{font-weight:400;color:var(--first)}
h2{font-size:1.3rem;margin:3rem 0 .25rem}
h3{font-size:1rem;margin:0 0 .5rem}
p{margin:.25rem 0 .75rem}
.muted,figcaption,small{color:var(--muted)}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;font-size:.95rem}
a{color:var(--first)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.75rem;margin:1.25rem 0}
.tile,.card{background:var(--surface);border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem}
.tile b{display:block;font-size:1.55rem;line-height:1.3;font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:.9rem}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:1rem;align-items:start}
.two>*{min-width:0}
figure{margin:0}
figcaption{font-size:.9rem;margin-top:.4rem}
.plot{display:grid;grid-template-columns:auto 1fr;gap:0 .5rem;font-size:.8rem;color:var(--muted);font-variant-numeric:tabular-nums}
.plot .up{display:flex;flex-direction:column;justify-content:space-between;text-align:right;line-height:1}
.plot svg{display:block;width:100%;height:9rem;border-bottom:1px solid var(--muted);overflow:visible}
.plot rect{fill:var(--first)}
.plot rect:hover{fill:var(--second)}
.plot line{stroke:var(--second);stroke-width:2;stroke-dasharray:5 4;vector-effect:non-scaling-stroke}
.plot .along{grid-column:2;display:flex;justify-content:space-between;padding-top:.2rem}
.plot .each{justify-content:space-around}
.bars{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr max-content;gap:.45rem .75rem;align-items:center}
.bars>b{font-weight:600;font-size:.95rem;overflow-wrap:anywhere}
.bars>span{font-variant-numeric:tabular-nums;text-align:right}
.bars>small{grid-column:1/-1;margin:-.35rem 0 .35rem}
.bar{display:flex;height:1.1rem;gap:2px;min-width:2px}
.bar i{background:var(--first);border-radius:2px;min-width:2px}
.bar i.second{background:var(--second)}
.bar i.third{background:var(--third)}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-inline:.75em .35em;background:var(--first)}
.key.second{background:var(--second)}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.95rem}
th,td{text-align:right;padding:.35rem .6rem;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{color:var(--muted);font-weight:600}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,monospace;overflow-wrap:anywhere}
pre{white-space:pre-wrap;margin:.5rem 0}
.verbs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:.75rem}
.verb{padding:.4rem .9rem .6rem}
.verb h3{display:flex;justify-content:space-between;align-items:baseline;margin:0;font-size:1.15rem;line-height:2.4}
.verb h3 span{font:600 .9rem/1 system-ui,sans-serif;color:var(--muted)}
.verb p{margin:.2rem 0 0;line-height:2.1;font-size:.95rem;display:flex;flex-wrap:wrap;gap:0 .9rem}
.verb p small{font-family:system-ui,sans-serif}
.verb .bar i:nth-child(2){opacity:.82}.verb .bar i:nth-child(3){opacity:.68}.verb .bar i:nth-child(4){opacity:.56}
.verb .bar i:nth-child(n+5){opacity:.46}.verb .bar i.third{opacity:.7}
.sample{padding:0;overflow:hidden}
.sample footer{padding:.5rem .9rem;display:flex;flex-wrap:wrap;gap:.3rem .9rem;font-size:.8rem;color:var(--muted)}
.turn{padding:.5rem 1rem;max-height:30rem;overflow:auto;background:var(--said);border-inline-start:4px solid var(--second)}
.turn.user{background:var(--asked);border-inline-start-color:var(--first)}
.turn.system{border-inline-start-color:var(--third)}
.turn p{margin:.1rem 0;overflow-wrap:anywhere}
.turn .who{font:.75rem/1.6 system-ui,sans-serif;color:var(--muted);margin:0}
.turn[dir=rtl] p.sum{text-align:right}
p[dir=ltr],bdi[lang=en]{font-family:SANS;line-height:1.6}
bdi[lang=en]{font-size:.92em}
@media (max-width:34rem){main{padding:1rem .9rem 3rem}h1{font-size:1.5rem}}
@media print{.turn{max-height:none}.card,.tile{break-inside:avoid}}
"""


def style(*packs: Pack) -> str:
    """The whole style sheet: light, and dark where the reader's system is; each language in its own type."""
    fonts = "".join(f":lang({pack.code}){{{type_of(pack)}}}" for pack in packs)
    return (
        f":root{{color-scheme:light dark;{_variables(LIGHT)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}{_CSS.replace('SANS', SANS)}{fonts}"
    )


def _variables(palette: Mapping[str, str]) -> str:
    return ";".join(f"--{name}:{colour}" for name, colour in palette.items())


def type_of(pack: Pack) -> str:
    """Font and line height of the language, as CSS."""
    if pack.script != "Arabic":
        return "line-height:1.7"
    if pack.code in IN_NASTALIQ:
        return f"font-family:{NASTALIQ};line-height:2.3"
    return f"font-family:{NASKH};line-height:1.95;font-size:1.1em"


# --- charts


def columns(
    bins: Sequence[tuple[str, int]], ends: Sequence[str], caption: str, mark: float | None = None, *, each: bool = False
) -> str:
    """A histogram: (name, count) of each column, what stands under the axis from end to end (or under `each` column), and
    perhaps a mark at a share of it.

    The SVG is stretched to its place, so that on a telephone it is as high as on a laptop; its text stands beside it as HTML.
    """
    top = max((count for _, count in bins), default=0) or 1
    drawn = "".join(
        f'<rect x="{place + 0.06:g}" y="{100 - 100 * count / top:.4g}" width=".88" height="{100 * count / top:.4g}">'
        f"<title>{escape(name)}: {count:,}</title></rect>"
        for place, (name, count) in enumerate(bins)
        if count
    )
    at = "" if mark is None else f'<line x1="{mark * len(bins):g}" x2="{mark * len(bins):g}" y1="0" y2="100"/>'
    along = "".join(f"<span>{escape(end)}</span>" for end in ends)
    return (
        f'<figure><div class="plot"><div class="up"><span>{top:,}</span><span>0</span></div>'
        f'<svg role="img" aria-label="{escape(caption)}" viewBox="0 0 {max(1, len(bins))} 100" preserveAspectRatio="none">'
        f'{drawn}{at}</svg><div class="along{" each" if each else ""}">{along}</div></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def bars(rows: Sequence[tuple[str, Sequence[int], str]]) -> str:
    """A bar a row, in parts of different colours: (name, counts of the parts, a remark or "")."""
    top = max((sum(parts) for _, parts, _ in rows), default=0) or 1
    lines = []
    for name, parts, remark in rows:
        said = " + ".join(f"{part:,}" for part in parts)
        lines.append(f'<b dir="auto">{escape(name)}</b>{bar(parts, sum(parts) / top)}<span>{escape(said)}</span>')
        lines += [f"<small>{escape(remark)}</small>"] if remark else []
    return f'<div class="bars">{"".join(lines)}</div>'


def bar(parts: Sequence[int], share: float, names: Sequence[str] = (), last: str = "second") -> str:
    """One bar as wide as `share` of its place, the last of several parts in another colour."""
    whole, drawn = sum(parts) or 1, []
    for place, part in enumerate(parts):
        kind = f' class="{last}"' if place and place == len(parts) - 1 else ""
        title = f' title="{escape(names[place])}: {part:,}"' if place < len(names) else ""
        drawn += [f'<i{kind}{title} style="flex:{part / whole:.4g} 0 0"></i>'] if part else []
    return f'<div class="bar" style="width:{max(0.5, 100 * share):.4g}%">{"".join(drawn)}</div>'


# --- text in its own direction


def prose(text: str, pack: Pack, *, english: bool = False) -> str:
    """A text of a conversation as paragraphs, a line each, each in its own direction. `english`: none of it is taken for the pack's
    language, which may have the same letters.

    "جواب دیں: Hello?" is a right-to-left line in which the English stands as a unit from left to right; a line without letters,
    such as "7 + 8 = 15", is written from left to right, as calculations are.
    """
    return "".join(_line(line, pack, english) for line in text.split("\n") if line.strip())


def is_own(text: str, pack: Pack) -> bool:
    """Whether a text is read in the language's own direction: it begins so, or a good part of it is in its script."""
    share, first = script_share(text, pack.script), _STRONG.search(text)
    return bool(first) and (share >= OWN_SHARE or (share > 0 and script_share(first[0], pack.script) == 1))


def _line(line: str, pack: Pack, english: bool) -> str:
    if is_own(line, pack) and not english:
        inner = _apart(line, _latin_runs(pack.script), "ltr", "en")
        return f'<p dir="{escape(pack.direction)}" lang="{escape(pack.code)}">{inner}</p>'
    kind = "" if _STRONG.search(line) else ' class="sum"'
    return f'<p dir="ltr"{kind}>{_apart(line, _own_runs(pack.script), pack.direction, pack.code)}</p>'


@lru_cache
def _latin_runs(script: str) -> regex.Pattern[str]:
    """In a text of `script`: words in Latin letters with all between them, brackets only in pairs, and a mark that ends their
    sentence. Where the script is Latin itself, nothing tells them apart.
    """
    if script == "Latin":
        return _NEVER
    marks = r"\u0600-\u06FF" if script == "Arabic" else ""  # of which some are of no one script
    inside = rf"[^\p{{Script={script}}}{marks}\n()«»“”]"
    pair = rf"\({inside}*\)"
    return regex.compile(rf"\p{{Script=Latin}}(?:(?:{inside}|{pair})*(?:[\p{{Script=Latin}}\p{{N}}.?!%]|{pair}))?")


@lru_cache
def _own_runs(script: str) -> regex.Pattern[str]:
    if script == "Latin":
        return _NEVER
    own = rf"\p{{Script={script}}}"
    return regex.compile(rf"{own}(?:[^\p{{Script=Latin}}\n]*{own})?")


def _apart(text: str, runs: regex.Pattern[str], direction: str, language: str) -> str:
    """The text with its foreign runs set apart, so that an English sentence keeps its full stop at its end."""
    parts, at = list[str](), 0
    for found in runs.finditer(text):
        inner = f'<bdi dir="{escape(direction)}" lang="{escape(language)}">{escape(found.group())}</bdi>'
        parts += [escape(text[at : found.start()]), inner]
        at = found.end()
    return "".join(parts) + escape(text[at:])
