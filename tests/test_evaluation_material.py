"""The Urdu and English written for the evaluation: spelt in Urdu's letters, told apart by little, and in no training text."""

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.dummy import DummyLM
from rapidfuzz.distance import Levenshtein

import data_gen.evaluation
from data_gen.contamination import contaminated, ngrams_of
from data_gen.evaluation.find import find_tasks
from data_gen.evaluation.suites import TaskEntry
from data_gen.text import tokens
from data_gen.text.shipped import text_records

FOLDER = Path(data_gen.evaluation.__file__).parent
TASKS = ["urdu_minimal_pairs", "urdu_text", "english_text"]

# The alphabet as a schoolbook has it, the letters with hamza, the marks used here, and Urdu's full stop, comma, semicolon and
# question mark. Arabic's ي ك ه ى ة are not among them, nor is anything invisible.
LETTERS = "آابپتٹثجچحخدڈذرڑزژسشصضطظعغفقکگلمنںوہھءیے" + "ئؤۂۓ" + "\u064b\u0650\u0670"
WRITTEN = frozenset(LETTERS + "۔،؛؟:!" + "0123456789 ")


def rows(name: str) -> list[dict[str, str]]:
    lines = (FOLDER / "shipped" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


PAIRS, URDU, ENGLISH = rows("urdu_minimal_pairs"), rows("urdu_text"), rows("english_text")
SENTENCES = [pair[member] for pair in PAIRS for member in ("good", "bad")]
PASSAGES = [row["text"] for row in URDU]
PROSE = [record.text or "" for record in text_records("ur")]  # what a quickstart trains on


@pytest.mark.parametrize("text", [pytest.param(SENTENCES, id="pairs"), pytest.param(PASSAGES, id="passages")])
def test_urdu_is_spelt_in_its_own_letters(text: list[str]) -> None:
    assert {letter for one in text for letter in one} <= WRITTEN
    for one in text:
        assert unicodedata.is_normalized("NFC", one)
        assert one == " ".join(one.split()) and one.endswith(("۔", "؟"))
        assert not any(f" {mark}" in one for mark in "۔،؛؟:!"), one  # no blank before a mark …
        assert all(one[i + 1 : i + 2] in ("", " ") for i, letter in enumerate(one) if letter in "۔،؛؟:!"), one  # … and one after


def test_there_are_enough_pairs_of_every_kind_and_none_twice() -> None:
    assert len(PAIRS) >= 240 and all(set(pair) == {"good", "bad", "phenomenon"} for pair in PAIRS)
    kinds = Counter(pair["phenomenon"] for pair in PAIRS)
    assert len(kinds) >= 12 and min(kinds.values()) >= 12
    assert len(set(SENTENCES)) == len(SENTENCES)
    assert [pair["phenomenon"] for pair in PAIRS] == [kind for kind in kinds for _ in range(kinds[kind])]  # kind by kind


def test_pairs_are_no_form_filled_in_again_and_again() -> None:
    words = [pair["good"].split() for pair in PAIRS]
    near = [(a, b) for i, a in enumerate(words) for b in words[:i] if Levenshtein.normalized_distance(a, b) < 0.5]
    assert not near


def test_a_pair_differs_in_little() -> None:
    for pair in PAIRS:
        good, bad = pair["good"].split(), pair["bad"].split()
        assert 1 <= Levenshtein.distance(good, bad) <= 3, pair
        assert good[0] == bad[0] or good[-1] == bad[-1], pair
        assert abs(len(pair["good"]) - len(pair["bad"])) <= 5, pair


def test_the_shorter_of_two_sentences_is_as_often_the_wrong_one() -> None:
    """A model likes short sentences better; that alone must not answer these."""
    shorter = Counter((len(pair["good"]) > len(pair["bad"])) - (len(pair["good"]) < len(pair["bad"])) for pair in PAIRS)
    assert abs(shorter[1] - shorter[-1]) <= 0.05 * len(PAIRS)


def test_common_words_alone_do_not_answer_the_pairs() -> None:
    """Nor does the choice of the sentence with the more usual words, as counted in the shipped prose."""
    counts = Counter(word for text in PROSE for word in tokens(text))
    usual = 0.0
    for pair in PAIRS:
        good, bad = Counter(tokens(pair["good"])), Counter(tokens(pair["bad"]))
        left, right = (sum(counts[word] for word in side.elements()) for side in (good - bad, bad - good))
        usual += 0.5 if left == right else float(left > right)
    assert 0.4 < usual / len(PAIRS) < 0.65


@pytest.mark.parametrize(("texts", "number", "longest"), [(URDU, 40, 110), (ENGLISH, 16, 100)], ids=["ur", "en"])
def test_passages_are_many_of_one_length_and_each_of_its_own_topic(texts: list[dict[str, str]], number: int, longest: int) -> None:
    assert len(texts) == number and all(set(row) == {"text", "topic"} for row in texts)
    assert all(60 <= len(row["text"].split()) <= longest for row in texts)
    assert len({row["topic"] for row in texts}) == len({row["text"] for row in texts}) == number


def test_english_passages_are_plain_ascii() -> None:
    assert all(row["text"].isascii() and row["text"] == " ".join(row["text"].split()) for row in ENGLISH)


def test_nothing_asked_is_in_the_prose_that_is_trained_on() -> None:
    """Both ways: 13 words of a passage, or a whole sentence, in the prose; 13 words of the prose in what is asked."""
    asked = [*SENTENCES, *PASSAGES]
    of_asked, of_prose = ngrams_of(asked), ngrams_of(PROSE)
    assert not [text for text in PROSE if contaminated(text, of_asked)]
    assert not [text for text in asked if contaminated(text, of_prose)]
    # The check would find it: a passage of the prose, and a sentence that is asked inside a longer text.
    assert contaminated(PROSE[0], of_prose) and contaminated(f"{PROSE[1]} {SENTENCES[0]}", of_asked)


def test_no_two_passages_share_a_run_of_words() -> None:
    for texts in (PASSAGES, [row["text"] for row in ENGLISH]):
        for i, text in enumerate(texts):
            assert not contaminated(text, ngrams_of(texts[:i], n=7), n=7)


def test_the_tasks_ask_what_is_in_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dummy that finds every second sentence impossible, and four bits in every byte."""
    asked: list[tuple[str, ...]] = []

    def chosen(self: Any, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        asked.extend(request.args for request in requests)
        wrong = {pair["bad"] for pair in PAIRS}
        return [(-1000.0 if request.args[1] in wrong else -1.0, False) for request in requests]

    def rolled(self: Any, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        nats_a_bit = 0.6931471805599453
        asked.extend(request.args for request in requests)
        return [-4 * nats_a_bit * len(request.args[0].encode()) for request in requests]

    monkeypatch.setattr(DummyLM, "loglikelihood", chosen)
    monkeypatch.setattr(DummyLM, "loglikelihood_rolling", rolled)
    tasks = {name: task for found in find_tasks([TaskEntry(task=name) for name in TASKS]) for name, task in found.tasks.items()}
    found = lm_eval.evaluate(DummyLM(), {"tasks": tasks}, bootstrap_iters=0)
    assert found is not None
    assert found["results"]["urdu_minimal_pairs"]["acc,none"] == 1.0
    assert found["results"]["urdu_text"]["bits_per_byte,none"] == pytest.approx(4.0)
    assert found["results"]["english_text"]["bits_per_byte,none"] == pytest.approx(4.0)
    assert {found["higher_is_better"][task]["bits_per_byte"] for task in TASKS[1:]} == {False}
    assert {task: len(samples) for task, samples in found["samples"].items()} == dict(
        zip(TASKS, (len(PAIRS), len(URDU), len(ENGLISH)), strict=True)
    )
    sentences = [("", pair[member]) for pair in PAIRS for member in ("good", "bad")]
    assert asked == [*sentences, *((text,) for text in PASSAGES), *((row["text"],) for row in ENGLISH)]
