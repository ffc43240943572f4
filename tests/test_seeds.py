"""The hand-written seeds and prompts: letters, counts, labels, sums. Whether the Urdu is good, a reader must tell."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from rapidfuzz.distance import Indel

from data_gen import urdu
from data_gen.filters import offered_labels
from data_gen.prompt import load_task

TASKS = ("generation", "reasoning", "ethics", "question_answering", "translation", "classification", "sentiment")
ROOT = Path(__file__).parent.parent / "data_gen" / "tasks"
# Arabic letters that look like Urdu's, and digits other than 0-9.
FOREIGN_LETTERS = re.compile("[\u0643\u0647\u0649\u064a\u0629\u06d5\u0660-\u0669\u06f0-\u06f9]")
EQUATION = re.compile(r"^([\d+\-×÷ ]+) = (\d+)$", re.MULTILINE)


def seeds(task: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (ROOT / task / "seeds.jsonl").read_text(encoding="utf-8").splitlines()]


def value_of(expression: str) -> int:
    """"3 × 60" → 180, left to right; a division must leave no rest."""
    first, *rest = expression.split()
    value = int(first)
    for sign, number in zip(rest[::2], map(int, rest[1::2]), strict=True):
        assert sign != "÷" or value % number == 0, expression
        value = {"+": value + number, "-": value - number, "×": value * number, "÷": value // number}[sign]
    return value


@pytest.mark.parametrize("task", TASKS)
def test_enough_seeds_of_enough_topics_in_the_right_letters(task: str) -> None:
    rows = seeds(task)
    assert len(rows) >= 16
    assert len({row["topic"] for row in rows}) >= 5
    for row in rows:
        assert set(row) == {"topic", "instruction", "input", "output", "language"}
        text = row["instruction"] + row["output"]
        assert not FOREIGN_LETTERS.search(text), text
        assert row["input"] == "" and row["output"].strip() == row["output"] != ""
        for key in ("instruction", "output"):
            assert urdu.normalise(row[key]) == row[key]
        script = {"ur": "Arabic", "en": "Latin"}[row["language"]]
        assert urdu.script_share(row["output"], script) >= 0.9, row["output"]
        assert len(row["output"].split()) <= 150


@pytest.mark.parametrize("task", TASKS)
def test_prompt_names_its_task_and_asks_for_a_count(task: str) -> None:
    prompt = load_task(task, heldout_share=0, seed=0).prompt
    assert prompt.startswith(f"Task: {task}\n")
    assert "exactly 7 new items" in prompt.format(count=7)
    assert "\n###\nInstruction:" in prompt and "\nOutput:" in prompt


@pytest.mark.parametrize("task", ["classification", "sentiment"])
def test_closed_answers_are_offered(task: str) -> None:
    for row in seeds(task):
        offered = offered_labels(row["instruction"])
        assert len(offered) == len(set(offered)) >= 2 and row["output"] in offered, row
        assert row["instruction"].count("(") == 1
    if task == "sentiment":
        assert Counter(row["output"] for row in seeds(task)) == {"مثبت": 6, "منفی": 6, "غیر جانبدار": 6}
        assert set(offered) == {"مثبت", "منفی", "غیر جانبدار"}


def test_generation_seeds_keep_the_length_their_prompt_asks_for() -> None:
    low, high = re.findall(r"(\d+) to (\d+) words", (ROOT / "generation" / "prompt.txt").read_text(encoding="utf-8"))[0]
    assert all(int(low) <= len(row["output"].split()) <= int(high) for row in seeds("generation"))


@pytest.mark.parametrize("folder", ["tasks", "text/ur"])
def test_one_spelling_of_a_word(folder: str) -> None:
    other = re.compile(r"(?<!\w)(?:(?:تم|ان|جن|کن)ھ|ہو(?:گا|گی|گے)(?!\w))|چاہییں|چاہیئ")
    for path in sorted((ROOT.parent / folder).rglob("*.*")):
        assert not other.findall(path.read_text(encoding="utf-8")), path


def test_reasoning_seeds_sum_up() -> None:
    computed = 0
    for row in seeds("reasoning"):
        *_, last = row["output"].splitlines()
        assert last.startswith("جواب: "), row
        equations = EQUATION.findall(row["output"])
        for left, right in equations:
            assert value_of(left) == int(right), left
        assert len(equations) == row["output"].count("="), row["output"]
        if equations and re.search(r"\d", last):
            assert re.findall(r"\d+", last) == [equations[-1][1]]
            computed += 1
    assert computed >= 12


def test_translation_seeds_go_both_ways_in_both_languages() -> None:
    kinds = []
    for row in seeds("translation"):
        request = re.split("[:?]", row["instruction"])[0]
        kinds.append((urdu.script_share(request) > 0.5, row["language"]))
    for kind in itertools.product((True, False), ("ur", "en")):
        assert kinds.count(kind) >= 4, kind


def test_no_two_seeds_ask_nearly_the_same() -> None:
    instructions = [urdu.tokens(row["instruction"]) for task in TASKS for row in seeds(task)]
    for one, other in itertools.combinations(instructions, 2):
        assert Indel.normalized_similarity(one, other) <= 0.7, (one, other)
