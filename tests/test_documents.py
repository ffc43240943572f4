"""Which documents go: correct text of every language stays, and each fault is found for its reason and no other."""

import gzip
import html
import json
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
import regex

from data_gen import UsageError
from data_gen.contamination import WORDS, load_ngrams
from data_gen.documents import (
    REASONS,
    DocumentRules,
    binary,
    boiler_plate,
    damaged,
    digits_and_symbols,
    empty,
    evaluation_data,
    glyphs,
    length,
    personal_data,
    repeated_runs,
    repetition,
    wrong_language,
    wrong_script,
)
from data_gen.language_id import language_of, load_labeller
from data_gen.languages import Pack, load_label
from data_gen.text import tokens
from tests.web_pages import NEAR, TEXTS

RULES = DocumentRules()
LABELS = sorted(TEXTS)


def page(label: str) -> tuple[str, Pack]:
    pack = load_label(label)
    return pack.normalise(TEXTS[label]), pack


def why_not(text: str, pack: Pack, rules: DocumentRules = RULES) -> str | None:
    return (
        empty(text) or binary(text) or damaged(text, pack, rules) or wrong_script(text, pack, rules)
        or digits_and_symbols(text, pack, rules) or length(text, pack, rules) or repetition(text, pack, rules)
        or wrong_language(*language_of(text, pack, load_labeller(pack)), pack, rules)
    )  # fmt: skip


@pytest.mark.parametrize("label", LABELS)
def test_correct_text_stays(label: str) -> None:
    text, pack = page(label)
    assert why_not(text, pack) is None
    assert damaged(text, pack, replace(RULES, max_damage=0)) is None
    lines = regex.sub(r"(?<=[.।۔]) ", "\n\n", text)
    assert why_not(lines, pack) is None


# --- damage: made as it is made on the web


def decoded_wrongly(text: str, encoding: str) -> str:
    return text.encode().decode(encoding, errors="replace")


@pytest.mark.parametrize("label", [label for label in LABELS if not TEXTS[label].isascii()])
def test_wrong_decodings_are_damage(label: str) -> None:
    """A text of which only few letters are not ASCII (Indonesian) cannot be told by them."""
    text, pack = page(label)
    for encoding in ("cp1252", "latin-1"):
        once = decoded_wrongly(text, encoding)
        assert damaged(once, pack, RULES) == damaged(decoded_wrongly(once, encoding), pack, RULES) == "damaged"
    assert damaged(decoded_wrongly(text, "ascii"), pack, RULES) == "damaged"
    entities = "".join(f"&#{ord(letter)};" if letter.isalpha() and not letter.isascii() else letter for letter in text)
    assert html.unescape(entities) == text and damaged(entities, pack, RULES) == "damaged"
    assert damaged(json.dumps(text), pack, RULES) == "damaged"


def test_urdu_read_as_windows_arabic_keeps_its_script_and_is_damage() -> None:
    text, pack = page("urd_Arab")
    wrong = decoded_wrongly(text, "cp1256").replace("\ufffd", "")
    assert wrong_script(wrong, pack, replace(RULES, min_script_share=0.6)) is None
    assert damaged(wrong, pack, RULES) == "damaged"


@pytest.mark.parametrize("label", ["tur_Latn", "vie_Latn", "fin_Latn"])
def test_question_marks_for_letters_are_damage(label: str) -> None:
    text, pack = page(label)
    assert damaged(text.encode("ascii", "replace").decode(), pack, RULES) == "damaged"
    assert damaged(text + " Kim? Ne? https://khabar.example/x?id=3&page=4 ??", pack, replace(RULES, max_damage=0)) is None


IMPOSSIBLE = [
    ("hin_Deva", "ा", "ाी"), ("hin_Deva", " प", " िप"), ("hin_Deva", "ी ", "ी् "), ("ben_Beng", "ি", "িি"),
    ("ben_Beng", " প", " াপ"), ("tam_Taml", "ு", "ுு"), ("tam_Taml", " ப", " ்ப"), ("tha_Thai", "ี", "ีี"),
    ("tha_Thai", "้", "้้"), ("tha_Thai", " ", " ั"),
]  # fmt: skip


@pytest.mark.parametrize(("label", "right", "wrong"), IMPOSSIBLE)
def test_signs_where_none_can_stand_are_damage(label: str, right: str, wrong: str) -> None:
    text, pack = page(label)
    assert text.count(right) > 2
    assert damaged(text.replace(right, wrong), pack, RULES) == "damaged"


def test_glyphs_and_private_letters_are_damage_and_a_slip_is_none() -> None:
    text, pack = page("urd_Arab")
    assert glyphs(text.replace("ہ", "ﮨ").replace("ا", "ﺍ")) == "damaged"
    assert glyphs(text + " ﷺ ﷲ ﮨ") is None
    assert damaged(text.replace("ر", "\ue123"), pack, RULES) == "damaged"
    assert damaged("\x86\x91 " + text, pack, RULES) == "damaged"
    assert damaged("\ud83d " * 3 + text, pack, RULES) == "damaged"
    long = text * 5
    assert damaged(long.replace("لاہور", "لا\ufffdور", 1), pack, RULES) is None
    assert damaged(long.replace("لاہور", "لا\ufffdور", 1), pack, replace(RULES, max_damage=0)) == "damaged"


def test_what_is_mended_or_meant_is_no_damage_and_tags_are() -> None:
    text, pack = page("hin_Deva")
    none = replace(RULES, max_damage=0)
    assert damaged(text + "&nbsp;&quot;क्या????&quot; &amp; &#8217;", pack, none) is None
    assert damaged(text + " ???? ?????", pack, none) == damaged(text + " &#2325;", pack, none) == "damaged"
    assert damaged(f"<html><body><p class='a'>{text}</p></body></html>", pack, RULES) == "damaged"
    assert damaged(text + " 3 < 5 > 2 <नाम>", pack, none) is None


# --- script, language


def test_another_script_and_mixed_text() -> None:
    for label in LABELS:
        text, pack = page(label)
        for other in LABELS:
            same = load_label(other).script == pack.script
            assert wrong_script(TEXTS[other], pack, RULES) == (None if same else "wrong_script")
    urdu, pack = page("urd_Arab")
    assert wrong_script(urdu + TEXTS["fin_Latn"], pack, RULES) == "wrong_script"
    assert wrong_script(urdu + " Python اور HTML", pack, RULES) is None


def test_each_language_is_told_from_the_others_of_its_script() -> None:
    latin = [label for label in LABELS if label.endswith("Latn")]
    for label in latin:
        _, pack = page(label)
        english = "Every morning we go down to the river and look for the boats that come home with fish for the market. " * 3
        assert language_of(english, pack, load_labeller(pack))[0] == "eng_Latn"
        assert wrong_language(label, 0.6, pack, RULES) == "wrong_language"
        assert wrong_language(label, 0.6, pack, replace(RULES, min_language_confidence=0.6)) is None
    malay, pack = NEAR["zsm_Latn"], load_label("ind_Latn")
    assert why_not(malay, pack) == "wrong_language"


# --- what is no prose


def test_nothing_and_files_that_are_no_text() -> None:
    assert empty("") == empty(" \n۱۲۳ --- ۔\u200c") == "empty"
    assert empty("ا") is None
    text, _ = page("urd_Arab")
    picture = random.Random(0).randbytes(2000)
    begun = ["%PDF-1.7\n" + text, "PK\x03\x04" + text, "{\\rtf1 " + text]
    for wrong in [*begun, picture.decode("latin-1"), picture.decode("utf-8", "replace"), picture.decode("cp1256", "replace")]:
        assert binary(wrong) == "binary"
    assert binary(text + "\x0c" + text + "\x01\t\r\n") is None
    assert binary(text + "\x00" * 3) == "binary"


@pytest.mark.parametrize("label", LABELS)
def test_tables_of_numbers_go(label: str) -> None:
    text, pack = page(label)
    table = "\n".join(f"{word} {k * 37 % 900} {k * 91 % 800} | {k * 17 % 70}%" for k, word in enumerate(text.split()))
    assert digits_and_symbols(table, pack, RULES) == "digits_and_symbols"
    assert digits_and_symbols(text + " 1947 ۱۹۴۷ 12.5% (25)", pack, RULES) is None
    encoded = "iVBORw0KGgoAAAANSUhEUgAAAAUA" * 20
    assert digits_and_symbols(text + encoded, pack, RULES) == "digits_and_symbols"


def test_length_is_counted_in_letters() -> None:
    _, pack = page("urd_Arab")
    assert length("ا" * 199, pack, RULES) == "too_short" and length("ا" * 200, pack, RULES) is None
    assert length("ا" * 100_000, pack, RULES) is None and length("ا" * 100_001, pack, RULES) == "too_long"


@pytest.mark.parametrize("label", LABELS)
def test_repetition(label: str) -> None:
    text, pack = page(label)
    half = text[: text.index(" ", len(text) // 2)]
    assert repetition("\n".join([text, half, half, half, half]), pack, RULES) == "repeated_lines"
    assert repetition(f"{text} {half} {half}", pack, RULES) == "repeated_words"
    assert repetition(" ".join([text.split()[0]] * 40), pack, RULES) == "repeated_words"
    assert repetition("\n".join([text, half[:30], half[:30]]), pack, RULES) is None


def test_repeated_runs_against_a_plain_count() -> None:
    """Word by word, with sets: which letters stand in a run of five words that was there before."""
    pack, chance = load_label("urd_Arab"), random.Random(3)
    for _ in range(40):
        words = tokens(" ".join(chance.choices(("الف", "ب", "پے"), k=60)))
        seen, again = set[tuple[str, ...]](), set[int]()
        for start in range(len(words) - 4):
            run = tuple(words[start : start + 5])
            again |= set(range(start, start + 5)) if run in seen else set()
            seen.add(run)
        share = sum(len(words[place]) for place in again) / sum(map(len, words))
        assert repeated_runs(" ".join(words), pack) == pytest.approx(share)
    assert repeated_runs("ایک دو تین چار پانچ " * 2, pack) == 0.5
    assert repeated_runs("", pack) == 0


def test_menus_and_persons_beyond_measure() -> None:
    assert boiler_plate("م" * 100, "م" * 30, RULES) is None and boiler_plate("م" * 100, "م" * 29, RULES) == "boiler_plate"
    assert boiler_plate("", "", RULES) is None
    assert boiler_plate("م" * 250, "م" * 199, RULES) == "boiler_plate" and boiler_plate("م" * 250, "م" * 200, RULES) is None
    assert boiler_plate("م" * 150, "م" * 100, RULES) is None  # too short with its menus already
    assert personal_data(3, RULES) is None and personal_data(4, RULES) == "personal_data"


@pytest.mark.parametrize("label", ["urd_Arab", "tha_Thai", "fin_Latn"])
def test_evaluation_data_is_found_by_thirteen_words(label: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text, pack = page(label)
    file = tmp_path_factory.mktemp("evaluation") / "test.txt"
    file.write_text(text[: len(text) // 2], encoding="utf-8")
    ngrams = load_ngrams([str(file)], WORDS * pack.pieces_a_word)
    assert evaluation_data(text, ngrams, pack) == "evaluation_data"
    assert evaluation_data(text[len(text) // 2 + 1 :], ngrams, pack) is None
    assert evaluation_data(text, frozenset(), pack) is None


def test_rules_name_the_field_that_is_wrong() -> None:
    RULES.validate()
    for field in fields(DocumentRules):
        if field.name != "whole_sentences":
            with pytest.raises(UsageError, match=rf"rules\.{field.name} is -1"):
                DocumentRules(**{field.name: -1}).validate()  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cut_at is 100 and rules.min_letters 200"):
        replace(RULES, cut_at=100).validate()
    assert len(set(REASONS)) == len(REASONS)


def test_what_goes_is_shown_as_it_was_read_and_persons_masked(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    from datatrove.data import Document

    from data_gen.ingest_blocks import FILTERS, Prepare
    from data_gen.ingest_config import IngestConfig
    from data_gen.ingest_counts import Removed, Tally

    config, tally = IngestConfig(language="urd_Arab"), Tally()
    removed = Removed(str(tmp_path), "clean", tally)
    long = "بارش ہوئی۔ " + "كيا يہ " * 15_000  # letters that the normaliser changes
    texts = ["Home\nكيا بارش ہوئی؟ جی ہاں", TEXTS["urd_Arab"] + " ali@mail.pk, babar@mail.pk, chand@mail.pk, dua@mail.pk۔", long]
    stream = iter([Document(text, str(k), metadata={"licence": "", "file": ""}) for k, text in enumerate(texts)])
    blocks = [Prepare(config, tally), *(block(config, removed) for block in FILTERS)]
    for block in blocks:
        stream = block.run(stream)
    assert not list(stream)
    (path,) = (tmp_path / "removed").iterdir()
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    shown = {row["reason"]: row["text"] for row in rows}
    assert shown["too_short"] == texts[0] and shown["too_long"] == long[:200]
    assert shown["personal_data"] == page("urd_Arab")[0][:200]
