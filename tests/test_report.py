"""report.html: a page that stands alone, well-formed, readable in both directions and both schemes, with the counts of the data."""

import re
from html.parser import HTMLParser
from itertools import product
from typing import Any

import pytest

from data_gen import charts
from data_gen.languages import load_pack
from data_gen.record import Record
from data_gen.report import render
from data_gen.survey import survey
from tests.test_data_card import inputs, made

VOID = {"meta", "br", "rect", "line"}  # of HTML, and what is closed in its own tag in the SVG
PACK = load_pack("ur")


class Page(HTMLParser):
    """The elements of a page as (tag, attributes, text inside of it alone), and the nesting checked on the way."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in VOID or tag == "rect":
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.elements[self.open[-1]][2].append(data)

    def of(self, tag: str, kind: str = "") -> list[tuple[dict[str, str | None], str]]:
        return [
            (attributes, "".join(text))
            for name, attributes, text in self.elements
            if name == tag and kind in (attributes.get("class") or "").split() + [""]
        ]


def page(records: list[Record] | None = None, **changes: Any) -> str:
    records = made(30) if records is None else records
    return render(inputs(records, **changes), survey(records, PACK.verbs, 7))


def conversation(*contents: str, **meta: Any) -> Record:
    turns = tuple({"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(contents))
    return Record("one", "self_instruct", "generation", "ur", {"side": "train", **meta}, messages=turns)


def test_it_is_well_formed_and_stands_alone() -> None:
    html = page()
    tags = {tag for tag, _, _ in Page(html).elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    for _, attributes, _ in Page(html).elements:
        assert not attributes.keys() & {"src", "srcset", "action"} and not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"url\(|@import|https?://", html)
    ids = {attributes["id"] for _, attributes, _ in Page(html).elements if "id" in attributes}
    assert {(attributes["href"] or "")[1:] for attributes, _ in Page(html).of("a")} == ids and len(ids) == 7


def test_what_has_nothing_to_show_is_left_out() -> None:
    record = Record("doc", "wikipedia", "document", "ur", {}, text="لاہور ایک شہر ہے۔")
    html = page(
        [record],
        accepted={"document": {"train": 1}},
        rejected={},
        checks={},
        cost=None,
        recipe={"teacher": {"base_url": "offline"}},
    )
    shown = [attributes["href"] for attributes, _ in Page(html).of("a")]
    assert shown == ["#counts", "#lengths", "#samples"]
    assert "written by grammars and word lists, not by a language model" in html and "لاہور ایک شہر ہے۔" in html


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "a & b 'c'", "</p></div><b>اردو"])
def test_everything_is_escaped(text: str) -> None:
    record = conversation(f"{text} کہانی لکھیں {text}", text, rouge=0.2, scores={text: 1.0})
    record = Record(text, text, text, text, record.meta, messages=record.messages)
    html = page(
        [record], name=text, teacher=text, licence=text, command=text, reviewed=text,
        accepted={text: {"train": 1}}, rejected={text: 1}, checks={text: text},
    )  # fmt: skip
    found = Page(html)
    assert not {tag for tag, _, _ in found.elements} & {"script", "img"}
    assert all("onerror" not in attributes for _, attributes, _ in found.elements)
    assert "<b>اردو" not in html and found.of("title")[0][1] == f"{text}: report"
    assert text in "".join(inner for _, inner in found.of("p"))


def test_figures_are_those_of_the_data() -> None:
    records = made(30)
    found = Page(page(records))
    spans = [text for _, text in found.of("span")]
    figures = [text for _, text in found.of("b")][:6]
    assert [*figures[:3], *figures[4:]] == ["98", "24", "89%", "3,000", "$0.25"]  # 122 of 122 + 9 + 5
    assert spans.count("24 + 6") == 4 and spans.count("2 + 0") == 1
    # Each histogram's columns give the count of what it shows.
    counts: dict[str, int] = {}
    for _, attributes, _ in found.elements:
        if label := attributes.get("aria-label"):
            counts[label.split(";")[0].split(":")[0]] = 0
    names, totals = iter(counts), [0] * len(counts)
    place = -1
    for tag, _, text in found.elements:
        place += tag == "svg"
        if tag == "title" and place >= 0:
            totals[place] += int("".join(text).rpartition(": ")[2].replace(",", ""))
    assert dict(zip(names, totals, strict=True)) == {
        "words of the instruction with its input": 122,
        "words of the answer": 124,
        "ROUGE-L of an instruction with the nearest seed or item kept before it": 120,
    }
    assert "quality: 4 for all 120 items kept" in "".join(text for _, text in found.of("p"))


def test_the_most_frequent_verbs_with_their_objects() -> None:
    asked = ["ایک کہانی لکھیں۔"] * 5 + ["ایک خط لکھیں۔"] * 3 + ["جواب دیں۔"] * 2 + ["یہ کیا ہے؟"]
    records = [conversation(text, "جی۔") for text in asked]
    html = page(records)
    verbs = html.split('<section id="diversity">')[1].split("</section>")[0]
    assert "3 distinct pairs" in verbs and "in 10 of 11 instructions" in verbs
    assert re.findall(r"<h3>(\w+)<span>(\d+)", verbs) == [("لکھیں", "8"), ("دیں", "2")]
    assert re.findall(r"<bdi>(\w+)</bdi> <small>(\d+)", verbs) == [("کہانی", "5"), ("خط", "3"), ("جواب", "2")]
    assert re.findall(r'title="(\w+): (\d)" style="flex:([\d.]+)', verbs)[:2] == [("کہانی", "5", "0.625"), ("خط", "3", "0.375")]
    assert '<div class="verbs" lang="ur" dir="rtl">' in verbs


# --- direction


def test_each_line_in_its_own_direction() -> None:
    text = "پانچ دینے کے بعد:\n12 - 5 = 7\nجواب: 7 سیب\n\nThe end."
    assert Page(f"<div>{charts.prose(text, PACK)}</div>").of("p") == [
        ({"dir": "rtl", "lang": "ur"}, "پانچ دینے کے بعد:"),
        ({"dir": "ltr", "class": "sum"}, "12 - 5 = 7"),
        ({"dir": "rtl", "lang": "ur"}, "جواب: 7 سیب"),
        ({"dir": "ltr"}, "The end."),
    ]


@pytest.mark.parametrize(
    "text, direction, apart",
    [
        ("ترجمہ کریں: Where is it (the bank)?", "rtl", ["Where is it (the bank)?"]),
        ("کیا Metro Bus وہاں جاتی ہے (یا taxi)؟", "rtl", ["Metro Bus", "taxi"]),
        ("Python میں فہرست کیسے بنتی ہے؟", "rtl", ["Python"]),
        ("اردو میں لکھیں: The students wrote a poem at home last week and read it.", "rtl",
         ["The students wrote a poem at home last week and read it."]),
        ("How does one say “کتب خانہ” in English, please?", "ltr", ["کتب خانہ"]),
        ("Mera naam Ali hai.", "ltr", []),
    ],
)  # fmt: skip
def test_the_other_script_is_set_apart(text: str, direction: str, apart: list[str]) -> None:
    html = charts.prose(text, PACK)
    found = Page(f"<div>{html}</div>")
    assert [attributes["dir"] for attributes, _ in found.of("p")] == [direction]
    other = ("ltr", "en") if direction == "rtl" else ("rtl", "ur")
    assert [(a["dir"], a["lang"], inner) for a, inner in found.of("bdi")] == [(*other, part) for part in apart]
    assert re.sub(r"<[^>]*>", "", html) == text  # nothing is lost


def test_turns_of_a_conversation_stand_apart() -> None:
    found = Page(page([conversation("لاہور کہاں ہے؟", "پاکستان میں۔", "And Delhi?", "بھارت میں۔")]))
    assert [a["dir"] for a, _ in found.of("div", "turn")] == ["rtl", "rtl", "ltr", "rtl"]
    assert [text for _, text in found.of("p", "who")] == ["user", "assistant", "user", "assistant"]


def test_urdu_is_read_in_nastaliq_and_other_languages_in_their_own_type() -> None:
    style = charts.style(PACK)
    assert (
        ":lang(ur){font-family:'Noto Nastaliq Urdu','Jameel Noori Nastaleeq','Urdu Typesetting','Noto Naskh Arabic',serif" in style
    )
    line_height = re.search(r":lang\(ur\)\{[^}]*line-height:([\d.]+)", style)
    assert line_height and float(line_height[1]) >= 2
    if (sindhi := load_pack("sd")).script == "Arabic":
        assert "Nastaliq" not in charts.style(sindhi) and ":lang(sd){font-family:'Noto Naskh Arabic'" in charts.style(sindhi)


def luminance(colour: str) -> float:
    """As WCAG 2.2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("palette", [charts.LIGHT, charts.DARK])
def test_text_and_bars_stand_out(palette: dict[str, str]) -> None:
    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(palette[one]), luminance(palette[other])))
        return (high + 0.05) / (low + 0.05)

    for text, ground in product(("ink", "muted", "first"), ("ground", "surface", "asked", "said")):
        assert contrast(text, ground) >= 4.5, (text, ground)
    for colour in ("first", "second", "third"):
        assert contrast(colour, "surface") >= 3, colour
