"""Questions about answers and what is made of the replies: form, numbering, each verdict against a table or a second count."""

import json
import math
import random
from collections import Counter

import pytest

from data_gen.config import ChecksConfig, SelfInstructConfig
from data_gen.judging import Question, chrf, question_body, questions, read_answers, source_text, verdict
from data_gen.languages import load_pack
from data_gen.record import Item
from data_gen.seeds import load_task
from tests.local_teacher import completion

TASKS = {
    name: load_task(name, load_pack("ur"), heldout_share=0, seed=0) for name in ("reasoning", "translation", "ethics", "generation")
}
ALL = SelfInstructConfig(checks=ChecksConfig(majority_samples=3, min_chrf=40, ethics=True, min_quality=3))
LOGIC = Item("reasoning", "احمد بلال سے لمبا ہے۔ سب سے لمبا کون ہے؟", "", "احمد آگے ہے۔\nجواب: احمد", "ur")
SUM = Item("reasoning", "پانچ اور تین کتنے ہوئے؟", "", "جمع کریں:\n5 + 3 = 8\nجواب: 8 سیب", "ur")
CHOICE = Item("reasoning", "سب سے بڑا عدد کون سا ہے؟ (الف) 3 (ب) 9 (ج) 7", "", "موازنہ کریں۔\nجواب: (ب) 9", "ur")
INTO_URDU = Item("translation", "اردو میں ترجمہ کریں: Ali made tea at home yesterday.", "", "علی نے کل گھر میں چائے بنائی۔", "ur")
INTO_ENGLISH = Item("translation", "انگریزی میں کہیں: علی نے چائے بنائی۔", "", "Ali made tea.", "en")


def test_only_what_is_on_and_applies_is_asked() -> None:
    items = {0: SUM, 2: LOGIC, 5: CHOICE}
    found = questions(TASKS["reasoning"], items, ALL)
    assert found == [*(Question("majority", k, (2, 5)) for k in range(3)), Question("quality", 0, (0, 2, 5))]
    assert questions(TASKS["reasoning"], items, SelfInstructConfig()) == []
    assert questions(TASKS["reasoning"], {}, ALL) == []
    one = SelfInstructConfig(checks=ChecksConfig(majority_samples=1))
    assert questions(TASKS["reasoning"], {0: SUM}, one) == [], "sums are recomputed"
    assert [q.check for q in questions(TASKS["ethics"], {0: LOGIC}, ALL)] == ["ethics", "quality"]


def test_a_question_shows_its_items_in_order_and_no_more_than_it_may() -> None:
    rng = random.Random(0)
    task = TASKS["reasoning"]
    quality = json.loads(question_body(ALL, task, Question("quality", 0, (3, 7)), [SUM, LOGIC], rng))
    [message] = quality["messages"]
    lines = message["content"].splitlines()
    assert lines[:3] == ["Check: quality", "Language: Urdu (ur)", "Sample: 1"]
    shown = [f"### {n}\nInstruction: {item.instruction}\nOutput: {item.output}" for n, item in ((1, SUM), (2, LOGIC))]
    assert message["content"].endswith("\n" + "\n".join(shown))
    assert "{" not in message["content"] and quality["temperature"] == 0
    solve = json.loads(question_body(ALL, task, Question("majority", 2, (7,)), [LOGIC], rng))
    assert solve["messages"][0]["content"].splitlines()[:3] == ["Check: solve", "Language: Urdu (ur)", "Sample: 3"]
    assert LOGIC.output not in solve["messages"][0]["content"] and solve["temperature"] == 1
    back = question_body(ALL, TASKS["translation"], Question("back_translation", 0, (0, 1)), [INTO_URDU, INTO_ENGLISH], rng)
    content = json.loads(back)["messages"][0]["content"]
    assert content.endswith(f"### 1\nInto: English\nText: {INTO_URDU.output}\n### 2\nInto: Urdu\nText: {INTO_ENGLISH.output}")
    assert "Ali made tea at home" not in content
    judged = SelfInstructConfig(checks=ChecksConfig(min_quality=3), temperature=None)
    body = json.loads(question_body(judged, task, Question("quality", 0, (3,)), [SUM], rng))
    assert "temperature" not in body


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("### 1\n4\n### 2\n5", {3: "4", 7: "5"}),
        ("Here:\n### 1\n4\n\n### 2\n5 because\nit is good", {3: "4", 7: "5 because\nit is good"}),
        ("## 2:\n5\n## 1.\n4", {3: "4", 7: "5"}),
        ("### 2\n5", {7: "5"}),
        ("### 1\n\n### 2\n5\n### 3\n1", {7: "5"}),
        ("<think>### 1\n1</think>### 1\n4", {3: "4"}),
        ("4 and 5", {}),
    ],
)
def test_answers_go_by_their_numbers(text: str, said: dict[int, str]) -> None:
    assert read_answers(Question("quality", 0, (3, 7)), completion(text)) == said


def test_no_reply_answers_nothing() -> None:
    assert read_answers(Question("quality", 0, (3, 7)), None) == {}


@pytest.mark.parametrize(
    ("check", "item", "answers", "score", "reason"),
    [
        ("quality", SUM, ["4"], 4, None),
        ("quality", SUM, ["۵"], 5, None),
        ("quality", SUM, ["Score: 3 of them"], 3, None),
        ("quality", SUM, ["2"], 2, "quality_low"),
        ("quality", SUM, ["10"], None, "unchecked"),
        ("quality", SUM, ["good"], None, "unchecked"),
        ("quality", SUM, [None], None, "unchecked"),
        ("ethics", SUM, ["pass"], 1, None),
        ("ethics", SUM, ["Pass."], 1, None),
        ("ethics", SUM, ["fail"], 0, "ethics_failed"),
        ("ethics", SUM, ["cannot pass"], 0, "ethics_failed"),
        ("majority", LOGIC, ["احمد", "احمد", "بلال"], 0.667, None),
        ("majority", LOGIC, ["احمد", "بلال", "بلال"], 0.333, "majority_differs"),
        ("majority", LOGIC, ["جواب: احمد لمبا ہے", "احمد", "احمد۔"], 1, None),
        ("majority", LOGIC, ["احمد", None, "احمد"], 1, None),
        ("majority", LOGIC, ["احمد", None, None], None, "unchecked"),
        ("majority", LOGIC, ["احمد", "بلال"], 0.5, "majority_differs"),
        ("majority", SUM, ["8", "8 سیب", "۸"], 1, None),
        ("majority", SUM, ["18", "9", "8"], 0.333, "majority_differs"),
        ("majority", CHOICE, ["ب", "(ب)", "9"], 1, None),
        ("majority", CHOICE, ["الف", "ج", "ب"], 0.333, "majority_differs"),
    ],
)
def test_verdicts(check: str, item: Item, answers: list[str | None], score: float | None, reason: str | None) -> None:
    said = verdict(check, item, TASKS["reasoning"], answers, ALL)
    assert (said.score, said.reason) == (score, reason)


def chrf_by_hand(hypothesis: str, reference: str) -> float:
    """Popović 2015: mean over n = 1 … 6 of precision and of recall of characters' n-grams without blanks, F with β = 2."""
    one, two = (text.replace(" ", "") for text in (hypothesis, reference))
    precision, recall, orders = 0.0, 0.0, 0
    for n in range(1, 7):
        a, b = (Counter(text[k : k + n] for k in range(len(text) - n + 1)) for text in (one, two))
        if a and b:
            same = (a & b).total()
            precision, recall, orders = precision + same / a.total(), recall + same / b.total(), orders + 1
    precision, recall = precision / orders, recall / orders
    return 100 * 5 * precision * recall / (4 * precision + recall) if precision + recall else 0.0


def test_back_translation_is_chrf_with_the_source() -> None:
    source = "Ali made tea at home yesterday."
    assert source_text(INTO_URDU, TASKS["translation"]) == source
    assert source_text(INTO_ENGLISH, TASKS["translation"]) == "علی نے چائے بنائی۔"
    for back in ("Yesterday Ali made tea at home.", "Ali cooked tea in the house yesterday.", "The children play cricket."):
        said = verdict("back_translation", INTO_URDU, TASKS["translation"], [back], ALL)
        assert said.score == pytest.approx(chrf_by_hand(back.casefold(), source.casefold()), abs=0.1)
        assert (said.reason is None) == (said.score is not None and said.score >= 40)
    assert chrf("۱۲ کتابیں", "12 کتابیں") == 100 and math.isclose(chrf("abc", "xyz"), 0)
    lost = Item("translation", "اس کا ترجمہ کریں", "", "چائے", "ur")
    assert verdict("back_translation", lost, TASKS["translation"], ["tea"], ALL).reason == "no_source_text"
    translated = verdict("back_translation", SUM, TASKS["reasoning"], ["What is 5 and 3?"], ALL, "What is 5 and 3?")
    assert translated.score == 100
