"""The review sheet as one HTML page for reading: right to left where the language is, judged by buttons, saved as the same CSV.

It needs no network and no server. What was judged stays in the browser until it is downloaded, so the page may be closed in
between. The page's own words are English; the verdicts are also said in Urdu on a page of Urdu.
"""

import hashlib
import json
from collections.abc import Sequence
from html import escape

from data_gen.charts import SANS, is_own, prose, type_of
from data_gen.languages import Pack
from data_gen.record import CONVERSATION, NO_INPUT, Item, turns

_IN_URDU = {"ok": "درست", "wrong": "غلط", "unsure": "معلوم نہیں"}


def page(items: Sequence[tuple[str, Item]], pack: Pack, verdicts: Sequence[str], errors: Sequence[str]) -> str:
    """The whole page for items with their ids. Its button gives CSV with the columns id, task, verdict, error, corrected_*."""
    articles = "\n".join(_article(number, *one, pack, verdicts, errors) for number, one in enumerate(items, 1))
    name = hashlib.sha256("".join(item_id for item_id, _ in items).encode()).hexdigest()[:16]
    style = _STYLE.replace("OWN", f":lang({pack.code})").replace("TYPE", type_of(pack)).replace("SANS", SANS)
    language = f'{escape(pack.name)} <bdi lang="{pack.code}">{escape(pack.native_name)}</bdi>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>Review: {len(items)} items, {escape(pack.name)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>Review <small>{len(items)} items · {language}</small></h1>
<p class="bar"><progress id="bar" max="1" value="0"></progress> <output id="count"></output>
<button type="button" id="next">Next open item</button> <button type="button" id="save">Download the sheet</button></p></header>
<details class="help"><summary>How to judge</summary>{_HELP}</details>
<main dir="{pack.direction}">
{articles}
</main>
<script>
const NAME = {json.dumps("review-" + name)};
const NO_INPUT = {json.dumps(NO_INPUT)};
{_SCRIPT}</script>
</body>
</html>
"""


def _article(number: int, item_id: str, item: Item, pack: Pack, verdicts: Sequence[str], errors: Sequence[str]) -> str:
    parts = (("instruction", item.instruction), ("input", item.input), ("output", item.output))
    radios = "\n".join(_radio(number, verdict, pack) for verdict in verdicts)
    options = "".join(f'<option value="{error}">{error.replace("_", " ")}</option>' for error in errors)
    boxes = "\n".join(
        f'<label>{name}<textarea name="{name}" {_set(text, pack)}>\n{escape(text)}</textarea></label>' for name, text in parts
    )
    given = f'<div class="given"><span class="tag">input</span>{prose(item.input, pack)}</div>\n' if item.input else ""
    return f"""<article id="i{number}" data-id="{escape(item_id)}" data-task="{escape(item.task)}">
<p class="head"><a href="#i{number}">{number}</a> <bdi>{escape(item.task.replace("_", " "))}</bdi> ·
<bdi>{escape(item.language)}</bdi>
<code>{escape(item_id)}</code></p>
<div class="asked">{prose(item.instruction, pack)}</div>
{given}{_answer(item, pack)}
<fieldset><legend>Verdict</legend>{radios}
<select name="error" dir="ltr" aria-label="kind of error"><option value="">kind of error …</option>{options}</select></fieldset>
<details><summary>Correct it</summary>{boxes}</details>
</article>"""


def _radio(number: int, verdict: str, pack: Pack) -> str:
    urdu = f' <bdi lang="ur" dir="rtl">{_IN_URDU[verdict]}</bdi>' if pack.code == "ur" else ""
    return f'<label class="{verdict}"><input type="radio" name="v{number}" value="{verdict}"> {verdict}{urdu}</label>'


def _answer(item: Item, pack: Pack) -> str:
    said = turns(item.output) if item.form == CONVERSATION else [item.output]
    return "\n".join(f'<div class="{("answer", "asked")[place % 2]}">{prose(text, pack)}</div>' for place, text in enumerate(said))


def _set(text: str, pack: Pack) -> str:
    """How the box of a text is set, and an empty one as the language is. (`dir=auto` would set an Urdu sentence that begins with
    an English word from left to right.)
    """
    own = not text or is_own(text, pack)
    return f'dir="{pack.direction}" lang="{pack.code}"' if own else 'dir="ltr"'


_HELP = """
<p><b>ok</b>: you would be content had a good teacher written it. <b>wrong</b>: something in it is false, unsafe, not what was
asked, or bad language; name the kind of error, and correct it if you can (what is wrong and not corrected is left out of the data).
<b>unsure</b>: you cannot say; the item stays. Keys: 1, 2, 3 for the item that you are at.</p>
<p>To take an input away, empty its box. In a conversation, later turns begin with <code>User:</code> and <code>Assistant:</code>.
What you judge stays in this browser; <b>Download the sheet</b> when you are done, and send the file back.</p>
"""

_STYLE = """
:root{color-scheme:light dark;--page:#f6f5f1;--card:#fff;--ink:#1d1f22;--soft:#5a6068;--line:#d8d5cc;--asked:#eef3f1;
--ok:#1b6e3c;--wrong:#a32020;--unsure:#7a5200;--link:#1c5a8a}
@media(prefers-color-scheme:dark){:root{--page:#15171a;--card:#1f2226;--ink:#e8e6e1;--soft:#a5abb3;--line:#3a3f46;--asked:#262d2c;
--ok:#7ed49b;--wrong:#ff9b94;--unsure:#e7c069;--link:#8cc2ee}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 SANS}
header{position:sticky;top:0;z-index:1;background:var(--page);border-bottom:1px solid var(--line);
padding:.5rem max(1rem,calc(50% - 26rem))}
h1{font-size:1.15rem;margin:0}h1 small{font-weight:400;color:var(--soft);font-size:.95rem}
.bar{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:.4rem 0 0}progress{flex:1 1 8rem;accent-color:var(--ok)}
main,.help{max-width:54rem;margin:1rem auto;padding:0 1rem}.help{color:var(--soft)}
article{background:var(--card);border:1px solid var(--line);border-radius:.6rem;margin:0 0 1.2rem;padding:.7rem 1rem 1rem;
scroll-margin-top:7rem;border-inline-start:.35rem solid var(--line)}
article[data-verdict=ok]{border-inline-start-color:var(--ok)}article[data-verdict=wrong]{border-inline-start-color:var(--wrong)}
article[data-verdict=unsure]{border-inline-start-color:var(--unsure)}
.head{margin:0 0 .4rem;color:var(--soft);font-size:.85rem}.head code{float:inline-end;direction:ltr;opacity:.8}a{color:var(--link)}
p{margin:.2rem 0;overflow-wrap:anywhere}
pOWN,textareaOWN{TYPE}pOWN{font-size:1.15rem}
p[dir=ltr],bdi[lang=en]{font-family:SANS;line-height:1.6}bdi[lang=en]{font-size:.9em}
main[dir=rtl] .sum{text-align:right}
.asked,.given{background:var(--asked);border-radius:.4rem;padding:.3rem .8rem;margin:.4rem 0}
.given{border:1px dashed var(--line);background:none}.tag{font-size:.75rem;color:var(--soft)}
.answer{padding:.2rem .8rem}
fieldset{border:0;padding:0;margin:.7rem 0 0;display:flex;flex-wrap:wrap;gap:.5rem;align-items:center}
legend{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
fieldset label{border:1px solid var(--line);border-radius:2rem;padding:.25rem .9rem;cursor:pointer}
fieldset label:has(:checked){border-color:currentColor;font-weight:600}
.ok{color:var(--ok)}.wrong{color:var(--wrong)}.unsure{color:var(--unsure)}
button,select{font:inherit;padding:.3rem .8rem;border:1px solid var(--line);border-radius:.4rem;
background:var(--card);color:var(--ink)}
summary{cursor:pointer;color:var(--link);margin-top:.6rem}
details label{display:block;color:var(--soft);font-size:.85rem;margin:.5rem 0}
textarea{display:block;width:100%;min-height:4.5rem;field-sizing:content;font:16px/1.6 SANS;padding:.4rem .6rem;color:var(--ink);
background:var(--page);border:1px solid var(--line);border-radius:.4rem}
"""

_SCRIPT = """
const articles = [...document.querySelectorAll("article")];
const COLUMNS = ["id", "task", "verdict", "error", "corrected_instruction", "corrected_input", "corrected_output"];

function correction(box) {
  if (box.value === box.defaultValue) return "";
  return box.value.trim() || (box.name === "input" ? NO_INPUT : "");
}

function judged(article) {
  const verdict = article.querySelector("input:checked")?.value ?? "";
  const boxes = [...article.querySelectorAll("textarea")].map(correction);
  return [article.dataset.id, article.dataset.task, verdict, article.querySelector("select").value, ...boxes];
}

function sheetCsv() {
  const quoted = cell => `"${cell.replaceAll('"', '""')}"`;
  return "\\ufeff" + [COLUMNS, ...articles.map(judged)].map(row => row.map(quoted).join(",")).join("\\r\\n") + "\\r\\n";
}

function show() {
  let done = 0;
  for (const article of articles) {
    const verdict = judged(article)[2];
    article.dataset.verdict = verdict;
    done += verdict !== "";
  }
  document.getElementById("bar").value = done / articles.length;
  document.getElementById("count").textContent = `${done} of ${articles.length}`;
}

function keep() {
  const state = Object.fromEntries(articles.map(article => [article.dataset.id, {
    verdict: judged(article)[2], error: article.querySelector("select").value,
    boxes: [...article.querySelectorAll("textarea")].map(box => box.value),
  }]));
  try { localStorage.setItem(NAME, JSON.stringify(state)); } catch { /* a browser that keeps nothing for files */ }
  show();
}

function recall() {
  let state = {};
  try { state = JSON.parse(localStorage.getItem(NAME)) ?? {}; } catch { /* as above */ }
  for (const article of articles) {
    const one = state[article.dataset.id];
    if (!one) continue;
    const radio = article.querySelector(`input[value="${one.verdict}"]`);
    if (radio) radio.checked = true;
    article.querySelector("select").value = one.error;
    article.querySelectorAll("textarea").forEach((box, n) => { box.value = one.boxes[n]; });
  }
  show();
}

// A kind of error and a correction say that the item is wrong; ok and unsure take the kind of error back.
document.querySelector("main").addEventListener("input", event => {
  const article = event.target.closest("article"), select = article.querySelector("select");
  if (event.target.type === "radio" ? false : event.target === select ? select.value : correction(event.target))
    article.querySelector('input[value="wrong"]').checked = true;
  if (event.target.type === "radio" && event.target.value !== "wrong") select.value = "";
  keep();
});

document.addEventListener("keydown", event => {
  if (/TEXTAREA|SELECT/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const here = event.target.closest("article") ?? articles.find(article => article.getBoundingClientRect().bottom > 140);
  const radio = here?.querySelectorAll("input")["123".indexOf(event.key)];
  if (radio) radio.click();
});

document.getElementById("next").addEventListener("click", () => {
  const open = articles.find(article => !article.dataset.verdict);
  (open ?? articles.at(-1)).scrollIntoView({behavior: "smooth"});
});

document.getElementById("save").addEventListener("click", () => {
  const odd = articles.find(article => judged(article)[2] !== "wrong" && judged(article).slice(4).some(Boolean));
  if (odd) {
    odd.scrollIntoView();
    alert("This item has a correction, but its verdict is not `wrong`. Say wrong, or undo the correction.");
    return;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([sheetCsv()], {type: "text/csv"}));
  link.download = "sheet.csv";
  link.click();
  URL.revokeObjectURL(link.href);
});

recall();
"""
