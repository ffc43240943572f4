"""The hand-written Urdu seeds and the prompts: letters, counts, labels, sums, lengths. The Urdu itself a reader must judge."""

import itertools
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from rapidfuzz.distance import Indel

from data_gen.checks import choices, final_answer, offered_labels
from data_gen.languages import load_pack
from data_gen.prompt import build_messages
from data_gen.record import SIDES, Item, item_messages
from data_gen.seeds import load_task
from data_gen.task import Task
from data_gen.text import script_share, tokens

PACK = load_pack("ur")
ALIF = ("generation", "reasoning", "ethics", "question_answering", "translation", "classification", "sentiment")
TASKS = (
    *ALIF, "culture", "long_answer", "helpful_refusal", "conversation", "reading_comprehension", "summarisation", "code_mixed",
    "roman",
)  # fmt: skip
ROOT = Path(__file__).parent.parent / "data_gen"
# Arabic letters that look like Urdu's, and digits other than 0-9.
FOREIGN_LETTERS = re.compile("[\u0643\u0647\u0649\u064a\u0629\u06d5\u0660-\u0669\u06f0-\u06f9]")
# A stop, comma or question mark of another script after an Urdu letter; blanks where none belong.
FOREIGN_MARKS = re.compile("[\u0621-\u06d3][,;?.]|[ \t]{2}|[ \t][،۔؟!؛]|[ \t]\n|\n[ \t]")
EQUATION = re.compile(r"^([\d+\-×÷ ]+) = (\d+)$", re.MULTILINE)
WORDS = re.compile(r"(\d+) to (\d+) words")


@cache
def task(name: str, heldout_share: float = 0.0, seed: int = 0) -> Task:
    return load_task(name, PACK, heldout_share=heldout_share, seed=seed)  # raises where a filter or a check rejects a seed


def seeds(name: str) -> list[Item]:
    return [item for _, item in task(name).seeds["train"]]


def questions(item: Item) -> str:
    return f"{item.instruction}\n{item.input}"


def value_of(expression: str) -> int:
    """"3 × 60" → 180, left to right; a division must leave no rest."""
    first, *rest = expression.split()
    value = int(first)
    for sign, number in zip(rest[::2], map(int, rest[1::2]), strict=True):
        assert sign != "÷" or value % number == 0, expression
        value = {"+": value + number, "-": value - number, "×": value * number, "÷": value // number}[sign]
    return value


def test_every_task_that_has_seeds_is_looked_at() -> None:
    assert sorted(TASKS) == sorted(file.parent.name for file in (ROOT / "languages" / "ur").glob("*/seeds.jsonl"))


@pytest.mark.parametrize("name", TASKS)
def test_enough_seeds_of_enough_topics_none_of_which_is_most(name: str) -> None:
    items = seeds(name)
    assert len(items) >= 22
    topics = Counter(item.topic for item in items)
    assert len(topics) >= 6
    assert max(topics.values()) <= len(items) / 4, topics


@pytest.mark.parametrize("name", TASKS)
def test_right_letters_marks_and_script(name: str) -> None:
    for line in (ROOT / "languages" / "ur" / name / "seeds.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert set(row) == {"topic", "instruction", "input", "output", "language"}
        for key in ("instruction", "input", "output"):
            assert not FOREIGN_LETTERS.search(row[key]), row[key]
            found = FOREIGN_MARKS.search(row[key])
            assert not found, (found, row[key])
            assert PACK.normalise(row[key]) == row[key]
        assert row["output"] and row["instruction"]
    rules = task(name).rules
    for item in seeds(name):
        assert bool(item.input) == rules.input
        if item.language in ("ur", "en"):
            answers = [turn["content"] for turn in item_messages(item) if turn["role"] == "assistant"]
            assert script_share("\n".join(answers), {"ur": "Arabic", "en": "Latin"}[item.language]) >= 0.9, item.output
    assert {item.language for item in seeds(name)} == ({"ur", "en"} if rules.balance else {task(name).language})


@pytest.mark.parametrize("name", TASKS)
def test_prompt_names_its_task_and_asks_for_a_count(name: str) -> None:
    prompt = task(name).prompt
    assert prompt.startswith(f"Task: {name}\nLanguage: Urdu (ur)\n")
    assert "exactly 7 new items" in prompt.replace("{count}", "7")
    assert "{" not in prompt.replace("{count}", "")
    request = build_messages(task(name), seeds(name)[:6], 7)[1]["content"]
    assert request.count("\n###\nInstruction:") == 7 and "\nOutput:" in request  # the form, and six examples


@pytest.mark.parametrize("name", TASKS)
def test_held_out_seeds_are_none_of_the_training_seeds(name: str) -> None:
    asked = [questions(item) for item in seeds(name)]
    assert len(set(asked)) == len(asked)  # whichever topics are held out
    for seed in range(3):
        split = task(name, heldout_share=0.1, seed=seed).seeds
        train, heldout = ({item.topic for _, item in split[side]} for side in SIDES)
        assert train and heldout and not train & heldout
        assert 0.1 * len(asked) <= len(split["heldout"]) <= 0.35 * len(asked)


@pytest.mark.parametrize("name", ["classification", "sentiment"])
def test_closed_answers_are_offered(name: str) -> None:
    for item in seeds(name):
        offered = offered_labels(item.instruction)
        assert len(offered) == len(set(offered)) >= 2 and item.output in offered, item
        assert item.instruction.count("(") == 1
    if name == "sentiment":
        assert Counter(item.output for item in seeds(name)) == {"مثبت": 8, "منفی": 8, "غیر جانبدار": 8}
        assert set(offered) == {"مثبت", "منفی", "غیر جانبدار"}


@pytest.mark.parametrize("name", ["generation", "culture", "long_answer", "helpful_refusal"])
def test_answers_keep_the_length_their_prompt_asks_for(name: str) -> None:
    low, high = map(int, WORDS.findall((ROOT / "tasks" / name / "prompt.txt").read_text(encoding="utf-8"))[0])
    for item in seeds(name):
        assert low <= len(item.output.split()) <= high, item.output
    rules = task(name).rules
    assert rules.min_words <= low and (not rules.max_words or rules.max_words >= high)


def test_long_answers_have_paragraphs() -> None:
    for item in seeds("long_answer"):
        paragraphs = item.output.split("\n\n")
        assert 4 <= len(paragraphs) <= 7, item.output
        assert all(len(paragraph.split()) >= 15 and paragraph[-1] in "۔؟!" for paragraph in paragraphs), item.output


def test_conversations_go_on_and_end_with_an_answer() -> None:
    for item in seeds("conversation"):
        roles = [turn["role"] for turn in item_messages(item)]
        assert roles in (["user", "assistant"] * 2, ["user", "assistant"] * 3), item.output
        assert all(turn["content"].strip() for turn in item_messages(item))


@pytest.mark.parametrize("folder", ["languages/ur", "text/ur"])
def test_one_spelling_of_a_word(folder: str) -> None:
    other = re.compile(r"(?<!\w)(?:(?:تم|ان|جن|کن)ھ|ہو(?:گا|گی|گے)(?!\w)|(?:کرایے|پییں|لئے|کیلئے|کیلیے)(?!\w))|چاہییں|چاہیئ")
    # A pack lists words as the web spells them.
    files = sorted(file for file in (ROOT / folder).rglob("*.*") if file.name != "pack.toml")
    assert files
    for path in files:
        assert not other.findall(path.read_text(encoding="utf-8")), path


def test_reasoning_seeds_sum_up() -> None:
    computed = 0
    for item in seeds("reasoning"):
        *_, last = item.output.splitlines()
        assert last.startswith("جواب: "), item
        equations = EQUATION.findall(item.output)
        for left, right in equations:
            assert value_of(left) == int(right), left
        assert len(equations) == item.output.count("="), item.output
        if equations and re.search(r"\d", last):
            assert re.findall(r"\d+", last) == [equations[-1][1]]
            computed += 1
    assert computed >= 16


@pytest.mark.parametrize(("name", "count"), [("reasoning", 4), ("question_answering", 4)])
def test_choices_are_answered_by_letter_and_text_each_letter_once(name: str, count: int) -> None:
    right = []
    for item in seeds(name):
        if offered := choices(item, task(name)):
            assert list(offered) == list(PACK.choice_letters) and len(set(offered.values())) == 4
            answer = final_answer(item, task(name)) or item.output
            right.append(answer.split(")")[0].removeprefix("("))
            assert answer == f"({right[-1]}) {offered[right[-1]]}"
    assert len(right) == count and set(right) == set(PACK.choice_letters)


def test_translation_seeds_go_both_ways_in_both_languages_equally() -> None:
    kinds = []
    for item in seeds("translation"):
        request = re.split("[:?؟]", item.instruction)[0]
        kinds.append((script_share(request) > 0.5, item.language))
    for kind in itertools.product((True, False), ("ur", "en")):
        assert kinds.count(kind) == len(kinds) // 4, kind


def test_no_two_seeds_ask_nearly_the_same() -> None:
    asked = [(name, tokens(questions(item))) for name in TASKS for item in seeds(name)]
    for (_, one), (_, other) in itertools.combinations(asked, 2):
        assert Indel.normalized_similarity(one, other) <= 0.7, (one, other)
