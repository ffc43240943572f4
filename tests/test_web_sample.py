"""The shipped web sample: that it is what its labels say. Looked at with Unicode and counting alone, not with the filters that the
labels are there to judge.
"""

import datetime
import itertools
import json
import unicodedata
from collections import Counter
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from data_gen.languages import load_label

FOLDER = Path(__file__).parents[1] / "data_gen" / "text" / "web"
FILES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
CLEAN = {
    "urd_Arab": 150, "hin_Deva": 140, "ben_Beng": 8, "tam_Taml": 8, "tha_Thai": 8, "swh_Latn": 8, "tur_Latn": 8, "vie_Latn": 8,
    "ind_Latn": 8, "fin_Latn": 8, "pes_Arab": 12, "arb_Arab": 12, "pnb_Arab": 12, "zsm_Latn": 12, "snd_Arab": 6, "pbt_Arab": 6,
}  # fmt: skip
LABELS = {
    "clean", "empty", "binary", "damaged", "wrong_script", "wrong_language", "too_short", "digits_and_symbols", "repeated_lines",
    "repeated_words", "boiler_plate", "personal_data", "near_duplicate", "duplicate",
}  # fmt: skip
SCRIPTS = {
    "Arab": "ARABIC", "Deva": "DEVANAGARI", "Beng": "BENGALI", "Taml": "TAMIL", "Thai": "THAI", "Latn": "LATIN"
}  # fmt: skip
# Letters that the language writes and those beside it do not.
OWN = {
    "urd_Arab": "ٹڈڑںے", "pes_Arab": "پچگ", "arb_Arab": "كيةى", "pnb_Arab": "ٹڈڑںے", "snd_Arab": "ڪ۾۽ٿ", "pbt_Arab": "ښړېۍ",
    "tur_Latn": "ğış", "vie_Latn": "ơưđạ", "fin_Latn": "äö", "ben_Beng": "য়ড়", "tam_Taml": "ழ", "tha_Thai": "ๆะ",
}  # fmt: skip
FOREIGN = {
    "urd_Arab": "ڪښړېۍكيىة", "pes_Arab": "ٹڈڑںےكيىة", "arb_Arab": "کیپچگٹڑںےہ", "pnb_Arab": "ڪښړېۍكيىة", "snd_Arab": "ٹڈڑںے",
    "pbt_Arab": "ٹڈڑںےہ", "ind_Latn": "äöğışđơ", "zsm_Latn": "äöğışđơ", "swh_Latn": "äöğışxq", "ben_Beng": "ৰৱ",
}  # fmt: skip


@lru_cache
def rows(name: str) -> tuple[dict[str, str], ...]:
    return tuple(json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")[:-1])


def of(name: str, label: str, kind: str = "") -> list[dict[str, str]]:
    return [row for row in rows(name) if row["label"] == label and kind in ("", row.get("kind"))]


def prose(name: str) -> list[dict[str, str]]:
    """The clean pages that are text from end to end."""
    return [row for row in of(name, "clean") if row.get("kind") in (None, "news", "many_of_one_domain")]


def runs(text: str) -> frozenset[tuple[str, ...]]:
    words = text.split()
    return frozenset(zip(*(words[k:] for k in range(5)), strict=False))


def share(text: str, script: str) -> float:
    letters = [letter for letter in text if unicodedata.category(letter)[0] == "L"]
    return sum(unicodedata.name(letter, "").startswith(script) for letter in letters) / max(1, len(letters))


def test_so_many_pages_of_each_language() -> None:
    assert sorted(CLEAN) == FILES
    assert not {name: len(prose(name)) for name in FILES if len(prose(name)) < CLEAN[name]}
    for name, least in {"urd_Arab": 3, "hin_Deva": 1, "ind_Latn": 1}.items():
        missing = LABELS - {"damaged", "wrong_script", "near_duplicate", "empty", "binary"} if name != "urd_Arab" else LABELS
        assert not {label for label in missing if len(of(name, label)) < least}, name


@pytest.mark.parametrize("name", FILES)
def test_fields(name: str) -> None:
    for row in rows(name):
        assert set(row) - {"kind"} == {"text", "url", "date", "licence", "language", "label"}
        assert row["licence"] == "Apache-2.0" and row["label"] in LABELS
        assert urlsplit(row["url"]).scheme == "https" and urlsplit(row["url"]).hostname.endswith(".example")  # type: ignore[union-attr]
        assert datetime.date(2018, 1, 1) < datetime.date.fromisoformat(row["date"]) < datetime.date(2026, 1, 1)
        assert (row["language"] == name) == (row.get("kind") != "mislabelled")
    urls = [row["url"] for name in FILES for row in rows(name)]
    assert len(set(urls)) == len(urls)


@pytest.mark.parametrize("name", FILES)
def test_prose_is_in_order(name: str) -> None:
    text = "".join(row["text"] for row in prose(name))
    assert unicodedata.is_normalized("NFC", text)
    assert not {letter for letter in text if unicodedata.category(letter) in ("Cc", "Co", "Cn", "Cs")} - {"\n"}
    assert all(300 <= len(row["text"]) <= 3000 for row in prose(name))
    assert all(share(row["text"], SCRIPTS[name[-4:]]) == 1 for row in prose(name))
    assert set(OWN.get(name, "")) <= set(text)
    assert not set(FOREIGN.get(name, "")) & set(text)
    if name != "tha_Thai":  # which has no sign for the end of a sentence
        assert all(row["text"][-1] in "۔؟!।.?" for row in prose(name))
    lines = [line for row in prose(name) for line in row["text"].split("\n") if line]
    assert len(set(lines)) == len(lines) and not any(line != line.strip() or "  " in line for line in lines)


@pytest.mark.parametrize("name", ["urd_Arab", "hin_Deva"])
def test_packs_find_the_prose_in_order(name: str) -> None:
    pack = load_label(name)
    for row in of(name, "clean"):
        assert pack.normalise(row["text"]) == row["text"]
        assert not set(pack.foreign_letters) & set(row["text"])


def test_no_two_clean_pages_are_near() -> None:
    for name in FILES:
        pages = [(row["url"], runs(row["text"])) for row in prose(name)]
        seen = Counter(run for _, page in pages for run in page)
        shared = [(url, page) for url, page in pages if any(seen[run] > 1 for run in page)]
        for (one, left), (other, right) in itertools.combinations(shared, 2):
            assert len(left & right) <= 0.2 * len(left | right), (one, other)


@pytest.mark.parametrize("name", ["urd_Arab", "hin_Deva", "ind_Latn"])
def test_duplicates(name: str) -> None:
    pages = of(name, "clean")
    for row in of(name, "duplicate"):
        (first,) = [page for page in pages if page["text"] == row["text"]]
        assert first["date"] < row["date"] and first["url"] != row["url"]
    for row in of(name, "near_duplicate"):
        near = [(len(runs(row["text"]) & runs(p["text"])) / len(runs(row["text"]) | runs(p["text"])), p) for p in pages]
        best, first = max(near, key=lambda found: found[0])
        assert 0.85 < best < 1 and len(first["text"]) > len(row["text"])


def test_mojibake_is_urdu_wrongly_decoded() -> None:
    latin, arabic = 0, 0
    for row in of("urd_Arab", "damaged", "mojibake"):
        for line in row["text"].split("\n"):
            data = b"".join(bytes([ord(c)]) if ord(c) < 256 else c.encode("cp1252", "ignore") for c in line)
            latin += share(data.decode("utf-8", "ignore"), "ARABIC") == 1 and share(line, "LATIN") > 0.5
            try:
                arabic += share(line.encode("cp1256").decode("utf-8"), "ARABIC") == 1
            except UnicodeError:
                continue
    lost = [row for row in of("urd_Arab", "damaged") if row["text"].count("\ufffd") > 10]
    assert (latin, arabic, len(lost)) == (3, 1, 1)


def test_what_the_faults_are() -> None:
    urdu = "urd_Arab"
    assert not any(unicodedata.category(letter)[0] == "L" for row in of(urdu, "empty") for letter in row["text"])
    assert all(len([c for c in row["text"] if c < " "]) > 5 for row in of(urdu, "binary"))
    assert all(any("\ue000" <= c < "\uf8ff" for c in row["text"]) for row in of(urdu, "damaged", "private_use"))
    glyphs = [row["text"] for row in of(urdu, "damaged", "legacy_font")]
    assert glyphs and all(sum("\ufb50" <= c <= "\ufefc" for c in text) > 0.5 * len(text) for text in glyphs)
    for name in ("urd_Arab", "hin_Deva", "ind_Latn"):
        assert all(len(row["text"]) < 100 for row in of(name, "too_short"))
        assert all(len(row["text"]) > 200 for label in LABELS - {"too_short", "empty"} for row in of(name, label))
        assert all(row["text"][-1] not in "۔؟!।.?" for row in of(name, "clean", "unfinished"))
        for row in of(name, "digits_and_symbols"):
            assert sum(map(str.isdigit, row["text"])) > 0.25 * len("".join(row["text"].split()))
        for row in of(name, "repeated_lines"):
            assert len(set(row["text"].split("\n"))) < 0.3 * len(row["text"].split("\n"))
        for row in of(name, "repeated_words"):
            assert len(runs(row["text"])) < 0.5 * len(row["text"].split()) and "\n" not in row["text"]
        for row in of(name, "boiler_plate"):
            assert max(map(len, row["text"].split("\n"))) < 100
        for row in of(name, "personal_data"):
            assert sum(any(c.isdigit() or c == "@" for c in word) for word in row["text"].split()) > 3
    assert all(share(row["text"], "ARABIC") < 0.7 for row in of(urdu, "wrong_script"))
    assert all(share(row["text"], "ARABIC") == 1 for row in of(urdu, "wrong_language"))


def test_news_and_domains() -> None:
    hosts = Counter(urlsplit(row["url"]).hostname for row in prose("urd_Arab"))
    assert len(hosts) >= 12 and hosts["www.bazm.example"] >= 40
    assert len(of("urd_Arab", "clean", "news")) * 10 >= len(prose("urd_Arab"))
    assert all(row["date"][:4] in row["url"] for row in of("urd_Arab", "clean", "news"))
