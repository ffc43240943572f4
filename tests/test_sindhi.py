"""Sindhi, the second language: its letters, its seeds, the offline teacher's grammar of it, and a whole run."""

import dataclasses
import json
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from rapidfuzz.distance import Indel

from configs import sindhi_instruct
from data_gen.checks import arithmetic, check_reason
from data_gen.filters import answer_language, reject_reason
from data_gen.languages import load_pack
from data_gen.offline.sindhi import MAKERS
from data_gen.record import Item
from data_gen.seeds import load_task
from data_gen.self_instruct import run
from data_gen.task import Task
from data_gen.text import script_share, tokens
from tests import plain_tfrecord
from tests.test_self_instruct import Said

FOLDER = Path(__file__).parent.parent / "data_gen" / "languages" / "sd"
TASKS = tuple(MAKERS)
ALPHABET = "ا آ ب ٻ ڀ ت ٿ ٽ ٺ ث پ ج ڄ ڃ چ ڇ ح خ د ڌ ڏ ڊ ڍ ذ ر ڙ ز س ش ص ض ط ظ ع غ ف ڦ ق ڪ ک گ ڳ ڱ ل م ن ڻ و ه ھ ء ي ئ ۾ ۽"
NOT_SINDHI = re.compile("[ٹڈڑںےۓیہۂۃكى۔]")  # letters and the full stop of Urdu, Arabic look-alikes
NOVEL = 40


@cache
def task(name: str) -> Task:
    return load_task(name, load_pack("sd"), heldout_share=0.1, seed=0)


def seeds(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / name / "seeds.jsonl").read_text(encoding="utf-8").splitlines()]


def test_the_letters_of_sindhi_are_kept_and_its_look_alikes_changed() -> None:
    normalise = load_pack("sd").normalise
    assert normalise(ALPHABET) == ALPHABET
    assert normalise("ﺁﻫﻲ") == "آهي"  # glyphs of old encodings
    assert normalise("سنڌی") == normalise("سنڌى") == normalise("سنڌي") == "سنڌي"
    assert normalise("كتاب") == "ڪتاب" != normalise("کتاب")  # ك is a Sindhi ڪ, but ک is its kh
    assert normalise("آہي") == "آهي"
    assert normalise("ٹڈڑںے") == "ٹڈڑںے"  # not Sindhi, and not hidden
    assert load_pack("ur").normalise("ڪتاب") == "کتاب"  # what Urdu's pack would make of it


@pytest.mark.parametrize("name", TASKS)
def test_seeds_are_sindhi_and_pass_the_filters(name: str) -> None:
    rows, loaded = seeds(name), task(name)
    assert len(rows) == 5 == len({row["topic"] for row in rows})
    assert sum(map(len, loaded.seeds.values())) == 5 and all(loaded.seeds.values())
    for row in rows:
        assert set(row) == {"topic", "instruction", "input", "output", "language"} and row["input"] == ""
        for field in ("instruction", "output"):
            assert load_pack("sd").normalise(row[field]) == row[field] == row[field].strip()
            assert not NOT_SINDHI.search(row[field]), row[field]
        assert script_share(row["output"], "Arabic" if row["language"] == "sd" else "Latin") == 1, row["output"]


def test_translation_seeds_go_both_ways_and_say_so() -> None:
    rows = seeds("translation")
    assert Counter(row["language"] for row in rows) == {"sd": 3, "en": 2}
    for row in rows:
        item = Item("translation", row["instruction"], "", "", "sd")
        assert answer_language(item, task("translation")) == row["language"], row


@pytest.mark.parametrize(
    ("field", "text", "found"),
    [
        ("into", "هن جملي جو سنڌي ٻوليءَ ۾ ترجمو ڪريو", True),
        ("into", "سنڌ ۾ ڪيترا شهر آهن؟", False),
        ("into_english", "انگريزي ۾ لکو", True),
        ("refusal", "معذرت، مان ان باري ۾ مدد نٿو ڪري سگهان.", True),
        ("refusal", "معاف ڪجو، مان اهو ٻڌائي نه ٿي سگهان.", True),
        ("refusal", "معاف ڪرڻ وڏي نيڪي آهي.", False),
        ("boiler_plate", "هڪ مصنوعي ذهانت جي ماڊل طور مان ائين نٿو چئي سگهان.", True),
        ("boiler_plate", "مان هڪ ٻوليءَ جو ماڊل آهيان.", True),
        ("boiler_plate", "مان هڪ استاد آهيان.", False),
    ],
)
def test_patterns(field: str, text: str, found: bool) -> None:
    assert bool(getattr(load_pack("sd").patterns, field).search(text)) == found


def test_an_answer_in_urdu_is_in_the_wrong_language() -> None:
    right = "پاڪستان جو سڀ کان ڊگهو درياهه سنڌو آهي."
    quoted = f"{right} {right} ’میں‘"
    for answer, reason in ((right, None), ("پاکستان کا سب سے لمبا دریا سندھ ہے۔", "wrong_language"), (quoted, None)):
        item = Item("question_answering", "پاڪستان جو سڀ کان ڊگهو درياهه ڪهڙو آهي؟", "", answer, "sd")
        assert reject_reason(item, task("question_answering")) == reason


@pytest.mark.parametrize("name", TASKS)
def test_prompts_have_no_urdu_in_them(name: str) -> None:
    prompt = task(name).prompt
    assert prompt.startswith(f"Task: {name}\nLanguage: Sindhi (sd)\n")
    assert "Urdu" not in prompt and not NOT_SINDHI.search(prompt), prompt


def made(name: str, count: int) -> list[tuple[Item, dict[str, str], str | None]]:
    found = []
    for k in range(count):
        item = MAKERS[name](random.Random(f"{name} {k}"))
        asked = Item(name, item.instruction, item.input, item.output, "sd")
        language = answer_language(asked, task(name))
        found.append((dataclasses.replace(asked, language=language), item.faults, item.right))
    return found


@pytest.mark.parametrize("name", TASKS)
def test_the_grammar_is_sindhi_right_and_novel(name: str) -> None:
    rules, pool = task(name), list[list[str]]()
    for item, faults, right in made(name, 150):
        assert reject_reason(item, rules) is None and check_reason(item, rules) is None, item
        assert not NOT_SINDHI.search(" ".join((item.instruction, item.output, *faults.values())))
        assert "  " not in item.instruction + item.output and "{" not in item.instruction + item.output, item
        assert faults and item.output not in faults.values()
        assert right is None or right in item.output
        words = tokens(item.instruction)
        if all(Indel.normalized_similarity(words, other) <= 0.7 for other in pool):
            pool.append(words)
    assert len(pool) >= NOVEL, len(pool)


def test_faults_are_what_they_are_called() -> None:
    for item, faults, _ in made("reasoning", 100):
        assert arithmetic(dataclasses.replace(item, output=faults["wrong_sum"]), task("reasoning")) == "arithmetic_wrong"
    for name in ("classification", "sentiment"):
        for item, faults, _ in made(name, 100):
            assert check_reason(dataclasses.replace(item, output=faults["label_outside"]), task(name)) == "label_outside"
            assert check_reason(dataclasses.replace(item, output=faults["wrong_label"]), task(name)) is None


def test_nouns_agree_in_number_and_gender() -> None:
    """Feminine plurals end in ون here and want feminine words around them; the others never do."""
    for item, _, _ in made("reasoning", 200):
        for asked, things in re.findall(r"(ڪيترا|ڪيتريون) (\w+)", item.instruction):
            assert (asked == "ڪيتريون") == things.endswith("ون"), item.instruction


def test_a_run_makes_shards_labelled_sindhi(tmp_path: Path) -> None:
    config = sindhi_instruct.get_config()
    for field in dataclasses.fields(config.targets):
        if getattr(config.targets, field.name):
            setattr(config.targets, field.name, 6)
    config.validate()
    summary = run(config, str(tmp_path), show=Said())
    assert all(summary.accepted[name]["train"] == 6 for name in TASKS)
    _, splits = plain_tfrecord.directory(str(tmp_path / "data"))
    records = [record for side in splits.values() for record in side]
    languages = Counter(record["language"] for record in records)
    assert set(languages) == {"sd", "en"} and languages.total() == 49 and languages["en"] in (3, 4)  # half of the translations
    for record in records:
        answer = json.loads(record["messages"])[-1]["content"]
        assert script_share(answer, "Arabic" if record["language"] == "sd" else "Latin") >= 0.7, answer
        assert not NOT_SINDHI.search(answer), answer
