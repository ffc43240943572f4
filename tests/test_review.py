"""The review sheet: what is drawn, what a filled one must be, what becomes of the records, and the figures against known ones."""

import base64
import csv
import io
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError, charts
from data_gen.journal import Journal, Review, open_journal
from data_gen.languages import load_pack
from data_gen.limits import Usage
from data_gen.record import Item, Record, canonical_json, item_messages
from data_gen.review import (
    COLUMNS,
    ERRORS,
    VERDICTS,
    Sampled,
    _agreement,
    _shares,
    left_out,
    read_by_people,
    read_sheet,
    reviewed,
    sample_items,
    summary,
    wilson,
)
from data_gen.review import write_sheet as write
from data_gen.review_page import page

ROOT = Path(__file__).resolve().parents[1]
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def item_of(n: int) -> Item:
    if n % 5 == 0:
        output = "اسلام آباد۔\nUser: اور سب سے بڑا شہر؟\nAssistant: کراچی۔"
        return Item("conversation", f"پاکستان کا دارالحکومت کون سا ہے؟ ({n})", "", output, "ur", form="conversation")
    if n % 5 == 1:
        return Item("translation", "اس جملے کا انگریزی میں ترجمہ کریں۔", f"یہ کتاب نمبر {n} ہے۔", f"This is book {n} & more.", "en")
    return Item("generation", f"بارش پر ایک جملہ لکھیں۔ ({n})", "", '=آج "بارش" <b>ہوئی</b>،\nاور دھوپ بھی نکلی۔', "ur")


def item_id(n: int) -> str:
    return f"{n:03d}e123456789012"  # the kind that a spreadsheet takes for a number


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(str(tmp_path)) as journal:
        fill(journal)
        yield journal


def fill(journal: Journal, count: int = 50) -> None:
    journal.keep_config({"language": "ur"}, {})
    request = journal.plan(0, "body", {}, "url")
    journal.answered(journal.sent(request, Usage(1, 1), 0.0), "reply", Usage(1, 1), 0.0)
    lines = [canonical_json({"id": item_id(n), "meta": {}, **asdict(item_of(n))}) for n in range(count)]
    held = canonical_json({"id": "held", "meta": {}, **asdict(item_of(2))})
    rows = [("accepted", "train", line) for line in lines]
    journal.keep_items(0, [*rows, ("accepted", "heldout", held), ("similar", "train", "{}")])
    journal.commit()


def rows_of(path: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def filled(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> str:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def row(n: int, verdict: str = "ok", **more: str) -> dict[str, str]:
    return {"id": f"#{item_id(n)}", "verdict": verdict, **more}


# --- the sample and the sheet ---------------------------------------------------------------------------------------------


def test_each_task_has_its_share() -> None:
    assert _shares(Counter(a=600, b=399, c=1), 10) == {"a": 6, "b": 3, "c": 1}
    assert _shares(Counter(a=3, b=2), 99) == {"a": 3, "b": 2}
    assert _shares(Counter(a=3, b=9, c=1), 1) == {"a": 0, "b": 1, "c": 0}
    for count in range(1, 60):
        found = Counter(a=1, b=7, c=20, d=32)
        shares = _shares(found, count)
        assert sum(shares.values()) == count and all(shares[task] <= found[task] for task in found)


def test_the_sample_is_seeded_and_a_larger_one_has_the_smaller_in_it() -> None:
    items = [Sampled(item_id(n), item_of(n)) for n in range(900)]
    ids = {count: [one.id for one in sample_items(items, count, seed=0)] for count in (20, 100)}
    assert len(set(ids[100])) == 100 and set(ids[20]) < set(ids[100])
    assert [one.id for one in sample_items(reversed(items), 20, seed=0)] == ids[20], "not a matter of order"
    assert set(ids[20]) != {one.id for one in sample_items(items, 20, seed=1)}
    tasks = [one.item.task for one in sample_items(items, 100, seed=0)]
    assert tasks == sorted(tasks) and Counter(tasks) == {"generation": 60, "translation": 20, "conversation": 20}
    first = Counter(n for seed in range(400) for n in [sample_items(items[2:5], 1, seed)[0].id])
    assert len(first) == 3 and min(first.values()) > 100, "each with the same chance"


def test_the_sheet_opens_in_a_spreadsheet(journal: Journal, tmp_path: Path) -> None:
    sheet, html = write(journal, str(tmp_path), sample=20)
    rows = rows_of(sheet)
    assert Path(sheet).read_bytes().startswith(b"\xef\xbb\xbf") and list(rows[0]) == list(COLUMNS) and len(rows) == 20
    assert "#held" not in {one["id"] for one in rows} and all(re.fullmatch(r"#\d{3}e\d{12}", one["id"]) for one in rows)
    shown = next(one for one in rows if one["task"] == "generation")
    assert shown["output"] == '\'=آج "بارش" <b>ہوئی</b>،\nاور دھوپ بھی نکلی۔', "no formula"
    assert not any(one["verdict"] for one in rows) and html.endswith("sheet.html")
    with pytest.raises(UsageError, match="sheet.csv is there already and may be filled in; move it away"):
        write(journal, str(tmp_path), sample=20)


def test_nothing_to_review(tmp_path: Path) -> None:
    with open_journal(str(tmp_path)) as journal:
        with pytest.raises(UsageError, match="has no accepted items to review"):
            write(journal, str(tmp_path))
        with pytest.raises(UsageError, match="--sample=0: at least 1"):
            write(journal, str(tmp_path), sample=0)


class _Page(HTMLParser):
    """Which elements there are, what they hold, and whether they nest as they should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.starts: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.starts.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str, **attrs: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.starts if name == tag and attrs.items() <= found.items()]


def test_the_page_is_whole_in_itself_and_set_as_its_language_is(journal: Journal, tmp_path: Path) -> None:
    html = Path(write(journal, str(tmp_path), sample=20)[1]).read_text(encoding="utf-8")
    page = _Page(html)
    assert not re.search(r"https?://|@import|url\(|<link|src=", html)
    assert len(page.all("article")) == 20 == len(page.all("input", value="wrong")) and len(page.all("textarea")) == 60
    assert {found["data-id"] for found in page.all("article")} == {one["id"] for one in rows_of(f"{tmp_path}/review/sheet.csv")}
    assert '=آج "بارش" <b>ہوئی</b>،' in page.text and not page.all("b", **{"class": "x"}), "escaped"
    assert len(page.all("p", dir="rtl", lang="ur")) > 20 and "Noto Nastaliq Urdu" in html
    english = re.findall(r'<p dir="ltr">(This is book \d+ &amp; more\.)</p>', html)
    assert len(english) == len(page.all("article", **{"data-task": "translation"})) > 0
    assert html.count("یہ کتاب نمبر") == 2 * len(english), "to be read and to be corrected"
    assert '<p dir="rtl" lang="ur">اور سب سے بڑا شہر؟</p>' in html, "a turn of its own"


def test_texts_are_set_as_in_the_report() -> None:
    """English in a line from right to left keeps its full stop, a calculation is written from left to right, an empty box waits
    for the language.
    """
    item = Item("reasoning", "ترجمہ کریں: The park. اور", "", "زبان (Python) ہے\n12 - 5 = 7\nجواب: 7", "ur")
    html = page([("#1", item)], load_pack("ur"), VERDICTS, ERRORS)
    assert re.findall("<p (?!class).*?</p>", html)[-4:] == [
        '<p dir="rtl" lang="ur">ترجمہ کریں: <bdi dir="ltr" lang="en">The park.</bdi> اور</p>',
        '<p dir="rtl" lang="ur">زبان (<bdi dir="ltr" lang="en">Python</bdi>) ہے</p>',
        '<p dir="ltr" class="sum">12 - 5 = 7</p>',
        '<p dir="rtl" lang="ur">جواب: 7</p>',
    ]
    boxes = re.findall('<textarea name="input" (.*?)>', html)
    assert boxes == ['dir="rtl" lang="ur"'] and f"p:lang(ur),textarea:lang(ur){{font-family:{charts.NASTALIQ}" in html
    sindhi = page([("#1", Item("generation", "لکو", "", "سلام", "sd"))], load_pack("sd"), VERDICTS, ERRORS)
    assert f"p:lang(sd),textarea:lang(sd){{font-family:{charts.NASKH}" in sindhi


BROWSER = """
<script>
const [first, second, third] = articles;
first.querySelectorAll("input")[0].click();
const box = second.querySelectorAll("textarea")[2];
box.value = 'نیا "جواب"،\\nدوسری سطر'; box.dispatchEvent(new Event("input", {bubbles: true}));
const select = third.querySelector("select");
select.value = "fact"; select.dispatchEvent(new Event("input", {bubbles: true}));
document.body.textContent = btoa(unescape(encodeURIComponent(sheetCsv()))) + "|" + document.title;
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_pages_own_csv_is_read_like_the_sheet(journal: Journal, tmp_path: Path) -> None:
    """In a browser: one item judged ok, one corrected, one with a kind of error named."""
    html = Path(write(journal, str(tmp_path), sample=6)[1]).read_text(encoding="utf-8")
    (tmp_path / "judged.html").write_text(html.replace("</body>", BROWSER + "</body>"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path}/judged.html"], capture_output=True, text=True, timeout=120)
    found = re.search(r"<body[^>]*>([\w+/=]+)\|Review: 6 items, Urdu", done.stdout)
    assert found, done.stdout[-500:] + done.stderr[-500:]
    (tmp_path / "down.csv").write_bytes(base64.b64decode(found.group(1)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "down.csv").read_text(encoding="utf-8-sig"), newline="")))
    assert [(one["verdict"], one["error"]) for one in rows] == [("ok", ""), ("wrong", ""), ("wrong", "fact"), *[("", "")] * 3]
    with pytest.raises(UsageError, match="row 5: there is no verdict; .*--partial"):
        read_sheet(journal, str(tmp_path / "down.csv"), "سارہ")
    reviews = read_sheet(journal, str(tmp_path / "down.csv"), "سارہ", partial=True)
    assert [review.verdict for review in reviews] == ["ok", "wrong", "wrong"] and reviews[2].correction is None
    assert reviews[1].correction and reviews[1].correction.output == 'نیا "جواب"،\nدوسری سطر'


# --- a filled sheet -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_filled_sheet_becomes_journal_entries(journal: Journal, tmp_path: Path, delimiter: str) -> None:
    rows = [
        row(2, "OK "),
        row(3, "wrong", error="fact"),
        row(1, "wrong", error="language", corrected_output="This is the book.", corrected_input="<noinput>"),
        row(7, "wrong", corrected_instruction="'-بارش پر لکھیں", corrected_output="\u0643\u062a\u0627\u0628\r\nہے"),
        row(8, "unsure"),
    ]
    read = read_sheet(journal, filled(tmp_path / "s.csv", rows, delimiter), " Ali ", now=NOW)
    assert journal.reviews() == sorted(read, key=lambda review: [2, 3, 1, 7, 8].index(int(review.item[:3])))
    stored = {review.item: review for review in journal.reviews()}
    assert {(review.reviewer, review.date) for review in read} == {("Ali", "2026-11-21T12:00:00+00:00")}
    assert stored[item_id(3)] == Review(item_id(3), "Ali", "2026-11-21T12:00:00+00:00", "wrong", "fact")
    assert stored[item_id(1)].correction == replace(item_of(1), input="", output="This is the book.")
    assert stored[item_id(7)].correction == replace(item_of(7), instruction="-بارش پر لکھیں", output="کتاب\nہے")
    read_sheet(journal, filled(tmp_path / "s.csv", [row(2, "wrong")]), "Ali", now=NOW)
    assert len(journal.reviews()) == 5 and journal.reviews()[-1].verdict == "wrong", "the last word stands"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(2), {"id": "#nobody", "verdict": "ok"}], "row 3: no accepted item of this work directory has the id 'nobody'"),
        ([row(2), row(3, "good")], "row 3: verdict is 'good'; it must be one of ok, wrong, unsure"),
        ([row(2, "")], "row 2: there is no verdict; .*--partial passes over rows that nobody filled in"),
        ([row(2, "", error="fact")], "row 2: there is no verdict; it must be one of ok, wrong, unsure$"),
        ([row(2, "wrong", error="typo")], "row 2: error is 'typo'; it must be one of language, fact"),
        ([row(2, "ok", corrected_output="x")], "row 2: verdict is ok, and yet there is a correction; say wrong"),
        ([row(2, "unsure", error="fact")], "row 2: verdict is unsure, and yet there is the error fact"),
        ([row(2), row(2)], "row 3: item 002e123456789012 has a row above it already"),
        ([row(5, "wrong", corrected_output="a\nUser: b")], "row 2: the turns of a conversation are"),
        ([], "has no verdict in any row"),
    ],
)
def test_a_sheet_with_a_mistake_is_refused_whole(journal: Journal, tmp_path: Path, rows: list[dict[str, str]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_sheet(journal, filled(tmp_path / "s.csv", rows), "Ali")
    assert journal.reviews() == []


def test_files_that_are_no_sheet(journal: Journal, tmp_path: Path) -> None:
    sheet = tmp_path / "s.csv"
    for body, words in [
        (b"id,task\n1,a\n", "has no column 'verdict'; there are id, task. A sheet has id, task, language"),
        (b"id,verdict\n1,ok,more\n", "row 2: 3 fields, and the first line has 2; save the sheet as CSV"),
        (b"id,verdict\n1,\xd8\n", "is not UTF-8; save it from the spreadsheet as CSV in UTF-8"),
    ]:
        sheet.write_bytes(body)
        with pytest.raises(UsageError, match=words):
            read_sheet(journal, str(sheet), "Ali")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_sheet(journal, str(tmp_path / "none.csv"), "Ali")
    with pytest.raises(UsageError, match="--reviewer is missing"):
        read_sheet(journal, str(sheet), " ")


# --- what becomes of the data ---------------------------------------------------------------------------------------------


def record_of(n: int) -> Record:
    item = item_of(n)
    return Record(item_id(n), "self_instruct", item.task, item.language, {"teacher": "t"}, messages=item_messages(item))


def said(n: int, verdict: str, who: str = "Ali", day: int = 1, correction: Item | None = None) -> Review:
    return Review(item_id(n), who, f"2026-11-{day:02}", verdict, correction=correction)


def test_corrected_items_are_replaced_and_wrong_ones_left_out() -> None:
    talk = replace(item_of(5), output="لاہور۔\nUser: شکریہ\nAssistant: خوش رہیں۔")
    reviews = [
        said(1, "ok"),
        said(2, "wrong"),
        said(3, "wrong"),
        said(3, "wrong", "Sara", 2, replace(item_of(3), output="دوسرا")),
        said(3, "wrong", "Omar", 3, replace(item_of(3), output="تیسرا")),
        said(4, "ok"),
        said(4, "wrong", "Sara"),
        said(5, "wrong", correction=talk),
        said(6, "ok"),
        said(6, "unsure", "Sara", 4),
    ]
    assert left_out(reviews) == {item_id(2), item_id(4)}
    records = {int(record.id[:3]): record for record in reviewed(map(record_of, range(1, 8)), reviews)}
    assert list(records) == [1, 3, 5, 6, 7] and records[7] == record_of(7)
    assert records[1] == replace(
        record_of(1), meta={"teacher": "t", "review": {"verdict": "ok", "by": ["Ali"], "date": "2026-11-01"}}
    )
    assert records[3].messages and records[3].messages[-1]["content"] == "تیسرا" and records[3].id == item_id(3)
    assert records[3].meta["review"] == {"verdict": "corrected", "by": ["Ali", "Omar", "Sara"], "date": "2026-11-03"}
    assert [turn["content"] for turn in records[5].messages or ()][1:] == ["لاہور۔", "شکریہ", "خوش رہیں۔"]
    assert records[6].meta["review"]["verdict"] == "unsure" and records[6].messages == record_of(6).messages
    assert list(reviewed(map(record_of, range(3)), [])) == list(map(record_of, range(3)))


# --- figures --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "count", "expected"),
    [
        # Newcombe (1998), Statistics in Medicine 17:857-872, table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_the_interval_is_wilsons(wrong: int, count: int, expected: tuple[float, float]) -> None:
    assert wilson(wrong, count) == pytest.approx(expected, abs=5e-5)


def test_the_interval_solves_the_score_equation() -> None:
    """Its ends are where the observed rate lies 1.96 standard errors (of the end itself) away: the definition."""
    for wrong, count in ((3, 40), (1, 200), (30, 31)):
        for end in wilson(wrong, count):
            assert (wrong / count - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / count, rel=1e-6)
    assert wilson(0, 0) == (0, 1) and wilson(10, 10)[1] == pytest.approx(1)


def test_agreement_is_cohens() -> None:
    pairs = [("ok", "ok")] * 20 + [("ok", "wrong")] * 5 + [("wrong", "ok")] * 10 + [("wrong", "wrong")] * 15
    assert _agreement(pairs) == "35 of 50 the same (70%, κ = 0.40)"
    assert _agreement([("ok", "ok")] * 3) == "3 of 3 the same (100%)" and _agreement([]) == "no item in common"


def test_the_summary(journal: Journal, tmp_path: Path) -> None:
    mine = [row(n, "wrong" if n == 2 else "unsure" if n == 3 else "ok") for n in (2, 3, 4, 5, 6, 7)]
    mine[0] |= {"error": "fact", "corrected_output": "درست جواب"}
    read_sheet(journal, filled(tmp_path / "s.csv", mine), "Ali")
    read_sheet(journal, filled(tmp_path / "s.csv", [row(2), row(4), row(9)]), "Sara")
    journal.keep_reviews([Review("gone", "Ali", "2026", "wrong")])
    low, high = (f"{100 * end:.1f}%" for end in wilson(1, 5))
    assert summary(journal, "Ali").splitlines() == [
        "                          ok  wrong  unsure   error rate (95 %)",
        "conversation               1      0       0   0.0% (0.0% to 79.3%)",
        "generation                 2      1       1   33.3% (6.1% to 79.2%)",
        "translation                1      0       0   0.0% (0.0% to 79.3%)",
        f"in all (Ali)               4      1       1   20.0% ({low} to {high})",
        "errors    1 fact; 1 corrected",
        "agreement with Sara: 1 of 2 the same (50%, κ = 0.00)",
    ]


def test_the_card_counts_an_item_once_and_only_while_it_is_accepted(journal: Journal) -> None:
    assert read_by_people(journal) == ""
    journal.keep_reviews([Review("gone", "Ali", "2026-11-01", "wrong"), said(8, "unsure"), said(8, "unsure", "Sara")])
    assert read_by_people(journal) == ""
    both = [said(n, "ok", who) for n in (2, 3, 4) for who in ("Ali", "Sara")]
    journal.keep_reviews([*both, said(6, "wrong"), said(6, "ok", "Sara"), said(7, "unsure"), said(7, "ok", "Sara")])
    low, high = (f"{100 * end:.1f}%" for end in wilson(1, 5))
    assert read_by_people(journal) == (
        f"People read a sample before it was corrected: 1 of 5 items judged were wrong, 20.0% (95 % interval {low} to {high})."
    )


def test_the_command(tmp_path: Path) -> None:
    def run(*flags: str) -> Any:
        command = [sys.executable, "launch/review.py", f"--workdir={tmp_path}/run", *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    done = run("--sample=9")
    assert done.returncode == 2 and "has no journal.sqlite" in done.stderr and not (tmp_path / "run").exists()
    with open_journal(str(tmp_path / "run")) as journal:
        fill(journal)
    done = run("--sample=9")
    sheet = tmp_path / "run" / "review" / "sheet.csv"
    assert (done.returncode, done.stdout) == (0, f"{sheet}\n{sheet.with_suffix('.html')}\n")
    rows = rows_of(str(sheet))
    filled(sheet, [one | {"verdict": "ok"} for one in rows])
    done = run(f"--read={sheet}", "--reviewer=Ali")
    assert done.returncode == 0 and re.search(r"in all \(Ali\) +9 +0 +0 +0\.0% \(0\.0% to 29\.9%\)", done.stdout), done.stderr
    assert run("--reviewer=Ali").returncode == 2 and run(f"--read={sheet}").returncode == 2
    with open_journal(str(tmp_path / "run")) as journal:
        assert len(journal.reviews()) == 9
