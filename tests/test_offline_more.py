"""The further grammars of the offline teacher: their variety, that right answers are right and faulty ones are not, their Urdu."""

import json
import random
import re
from collections.abc import Callable
from importlib import resources

import pytest

from data_gen import UsageError
from data_gen.dedup import RougePool
from data_gen.filters import reject_reason
from data_gen.languages import load_pack
from data_gen.offline import facts
from data_gen.offline import passages as offline_passages
from data_gen.offline import talk as offline_talk
from data_gen.offline import varieties as offline_varieties
from data_gen.offline import words as w
from data_gen.offline.essays import ESSAYS
from data_gen.offline.grammar import Item, spoil
from data_gen.offline.more import FIELDS, MAKERS, MIN_LONG_WORDS, PLANS, TRANSLATIONS
from data_gen.record import Item as Candidate
from data_gen.record import turns
from data_gen.seeds import load_task
from data_gen.text import script_share, tokens
from data_gen.text.shipped import text_records

PACK = load_pack("ur")
WITH_TEXT = ("reading_comprehension", "summarisation")
FAULTS = {
    "reading_comprehension": {"unfaithful", "wrong_language"},
    "summarisation": {"unfaithful", "wrong_language"},
    "conversation": {"unfaithful", "wrong_language"},
    "long_answer": {"too_short", "wrong_language"},
    "culture": {"wrong_fact", "wrong_language"},
    "code_mixed": {"wrong_language"},
    "roman": {"wrong_language", "wrong_sum", "wrong_fact"},
    "helpful_refusal": {"unsafe_advice", "wrong_language"},
}
EQUATION = re.compile(r"(\d+) ([-+×÷]) (\d+) = (\d+)")


def made(task: str, count: int, seed: int) -> list[Item]:
    rng = random.Random(seed)
    return [MAKERS[task](rng) for _ in range(count)]


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def wrong_sums(text: str) -> list[str]:
    value: dict[str, Callable[[int, int], float]] = {
        "+": lambda a, b: a + b, "-": lambda a, b: a - b, "×": lambda a, b: a * b, "÷": lambda a, b: a / b,
    }  # fmt: skip
    found = EQUATION.finditer(text)
    return [sum_[0] for sum_ in found if value[sum_[2]](int(sum_[1]), int(sum_[3])) != int(sum_[4])]


@pytest.mark.parametrize("task", MAKERS)
def test_every_grammar_has_600_instructions_that_are_new_to_one_another(task: str) -> None:
    pool = RougePool()
    for number, item in enumerate(made(task, 2500, 5)):
        if pool.match(item.instruction).accepted:
            pool.add(str(number), item.instruction)
        if len(pool) == 600:
            return
    pytest.fail(f"{len(pool)} of 2500")


@pytest.mark.parametrize("task", MAKERS)
def test_an_item_is_a_function_of_the_generator(task: str) -> None:
    assert made(task, 20, 1) == made(task, 20, 1) != made(task, 20, 2)


@pytest.mark.parametrize("task", MAKERS)
def test_right_answers_have_what_is_right_and_faulty_ones_differ(task: str) -> None:
    items = made(task, 400, 2)
    assert {kind for item in items for kind in item.faults} == FAULTS[task]
    for item in items:
        assert bool(item.input) == (task in WITH_TEXT)
        assert item.output not in item.faults.values() and "wrong_language" in item.faults
        if item.right is None:
            continue
        right = f" {' '.join(tokens(item.right))} "
        assert right in f" {' '.join(tokens(item.output))} ", item
        for kind, faulty in item.faults.items():
            last = faulty.splitlines()[-1]
            assert right not in f" {' '.join(tokens(last))} " or task == "culture", (kind, item)


@pytest.mark.parametrize("task", MAKERS)
def test_every_right_answer_passes_the_tasks_filters(task: str) -> None:
    loaded = load_task(task, PACK, heldout_share=0, seed=0)

    def reason(item: Item, output: str) -> str | None:
        shape = loaded.rules.form
        return reject_reason(Candidate(task, item.instruction, item.input, output, loaded.language, form=shape), loaded)

    items = made(task, 300, 3)
    assert not [(reason(item, item.output), item) for item in items if reason(item, item.output)]
    if task == "long_answer":
        assert {reason(item, item.faults["too_short"]) for item in items} == {"answer_too_short"}
    if task == "code_mixed":
        assert {reason(item, item.faults["wrong_language"]) for item in items} == {"wrong_language"}
    english = [item.faults["wrong_language"] for item in items if item.faults["wrong_language"].isascii()]
    assert task in ("conversation", "code_mixed", "roman") or len(english) > 75


def test_the_teacher_spoils_each_kind() -> None:
    rng = random.Random(0)
    for task, kinds in FAULTS.items():
        assert {spoil(task, MAKERS[task](rng), rng)[0] for _ in range(200)} == kinds


def test_answers_to_passages_stand_in_the_passage_and_unfaithful_ones_do_not() -> None:
    """What the answer says beyond the question is in the passage; the land that is left is the one thing to be computed."""
    for item in made("reading_comprehension", 500, 4):
        passage = set(tokens(item.input))
        if "زمین بچی" in item.output:
            whole, part = re.findall(r"(\d+) ایکڑ", item.input)
            assert numbers(item.output) == [str(int(whole) - int(part))]
            continue
        assert item.right is not None and set(tokens(item.right)) <= passage, item
        if numbers(item.output):
            assert numbers(item.output)[0] in numbers(item.input)
        assert set(tokens(item.faults["unfaithful"])) - set(tokens(item.output)), item
        assert len(item.input.split()) >= 60


def test_a_summary_is_short_and_says_what_the_news_says() -> None:
    for item in made("summarisation", 400, 4):
        city = next(name for name in w.CITIES if name in item.input)
        assert city in item.output and city in item.instruction and city not in item.faults["unfaithful"]
        assert numbers(item.output) and set(numbers(item.output)) <= set(numbers(item.input))
        assert not set(numbers(item.faults["unfaithful"])) & set(numbers(item.input))
        assert len(item.output.split()) < 0.6 * len(item.input.split())


def test_a_conversation_takes_turns_and_its_sums_hold() -> None:
    items = made("conversation", 500, 6)
    for item in items:
        said = turns(item.output)
        assert len(said) in (3, 5) and not wrong_sums(item.output), item
        marks = re.findall(r"^(User|Assistant): ", item.output, re.MULTILINE)
        assert marks == ["User", "Assistant"] * (len(said) // 2)
        assert all(question.endswith(("؟", "۔")) for question in said[1::2])
        assert item.faults["unfaithful"].splitlines()[:-1] == item.output.splitlines()[:-1]
    assert {len(turns(item.output)) for item in items} == {3, 5}
    assert all(days * each % (days - kept) == 0 and 2 * kept <= days for days, each, kept in PLANS)


def test_a_long_answer_is_long_and_has_what_was_asked_for() -> None:
    for item in made("long_answer", 300, 7):
        pieces = item.output.split("\n\n")
        assert len(pieces) in (6, 7) and len(set(pieces)) == len(pieces)
        assert MIN_LONG_WORDS <= len(item.output.split()) <= 350
        assert item.faults["too_short"] == pieces[0]
        subject = next(name for name in ESSAYS if name in item.instruction)
        row = {piece: aspect.strip() for aspect, _, piece in (one.partition(" | ") for one in ESSAYS[subject][1])}
        here = {row[piece] for piece in pieces[1:-1]}
        left_out = {aspect for aspect in set(row.values()) - here if f"{aspect}،" in item.instruction}
        assert not left_out, (left_out, item.instruction)


def test_the_facts_agree_with_one_another() -> None:
    """Two lists were written apart: whose a book is, they say alike. No question is asked twice, and no fact is its own wrong."""
    by_title = {row[0]: row[2] for row in facts.CULTURE["author"]}
    for author, _, _, *books in facts.AUTHORS:
        for book in books:
            for question, answer in by_title.items():
                if f" {book} کس کی" in question:
                    assert author in answer, (book, answer)
    questions = [row[0] for rows in facts.CULTURE.values() for row in rows]
    assert len(set(questions)) == len(questions) > 130
    assert all(row[2].count("[") == row[2].count("]") == 1 and len(row) == 4 for rows in facts.CULTURE.values() for row in rows)
    assert all(len({row[2].partition("[")[2].partition("]")[0] for row in rows}) > 2 for rows in facts.CULTURE.values())


def test_a_wrong_fact_changes_the_fact_alone() -> None:
    known = {re.sub(r".*\[(.*)\].*", r"\1", row[2]) for rows in facts.CULTURE.values() for row in rows}
    for item in made("culture", 300, 8):
        assert item.right in known
        parts = item.output.split(item.right)
        places = range(1, len(parts))
        replaced = {fact.join((item.right.join(parts[:k]), item.right.join(parts[k:]))) for k in places for fact in known}
        assert item.faults["wrong_fact"] in replaced


def test_varieties_are_in_their_scripts() -> None:
    mixed, roman = PACK.varieties["ur-x-mixed"], PACK.varieties["ur-Latn"]
    for item in made("code_mixed", 300, 9):
        for text in (item.instruction, item.output):
            assert mixed.min_share < script_share(text) < mixed.max_share, text
    for item in made("roman", 300, 9):
        assert script_share(item.instruction + item.output, roman.script) == 1.0
        assert (item.instruction + item.output).isascii() and not wrong_sums(item.output)
        assert item.instruction[0].isupper() or item.instruction[0].isdigit()
    assert all(len(wrong_sums(item.faults["wrong_sum"])) == 1 for item in made("roman", 300, 9) if "wrong_sum" in item.faults)


def test_refusals_decline_and_help() -> None:
    declined = {*offline_talk.DECLINES}
    for item in made("helpful_refusal", 300, 10):
        assert sum(item.output.startswith(line) for line in declined) == 1
        row = next(row for row in offline_talk.REFUSED if any(request in item.instruction for request in row[1]))
        assert sum(help_ in item.output for help_ in row[3]) == 2 and sum(reason in item.output for reason in row[2]) == 1
        assert row[4] in item.faults["unsafe_advice"] and not any(line in item.faults["unsafe_advice"] for line in declined)


def test_verbs_agree_with_who_is_named() -> None:
    """A name's gender, wherever a passage has a verb that shows it."""
    names, texts = "|".join(w.NAMES), [item.input for item in made("reading_comprehension", 600, 11)]
    shown = (
        rf"({names}) اپن[ےی] [^۔]* (گیا|گئی)۔",
        rf"({names}) کو [^۔]* کی شکایت ہوئی۔.* وہ پھر اسکول (گیا|گئی) ",
        rf"({names}) روز صبح [^۔]* (بھولتا|بھولتی)۔",
        rf"نگرانی ({names}) (کرتے|کرتی) ہیں",
    )  # fmt: skip
    for pattern in shown:
        found = [match for text in texts if (match := re.search(pattern, text))]
        assert len(found) > 40
        assert not [match[0] for match in found if (match[1] in w.FEMALE) != match[2].endswith("ی")]


def urdu_texts() -> list[str]:
    items = [item for task in MAKERS if task != "roman" for item in made(task, 150, 12)]
    unsafe = [item.faults["unsafe_advice"] for item in items if "unsafe_advice" in item.faults]
    written = [text for item in items for text in (item.instruction, item.input, item.output) if text]
    return [*written, *unsafe, *TRANSLATIONS.values()]


def test_urdu_is_in_the_right_letters_and_marks() -> None:
    for text in urdu_texts():
        assert PACK.normalise(text) == text
        assert "  " not in text and " ۔" not in text and " ،" not in text and "۔۔" not in text and "؟۔" not in text, text
        assert not re.search(r"[\u0621-\u06d3] ?[?,;]", text), text
        assert not re.search(r"[{}\[\]|]", text), text
        assert not re.search(r"[يكهىة]", text), text


def test_slots_have_no_blanks_and_no_doubles() -> None:
    for module in (w, offline_passages, offline_varieties, offline_talk, facts):
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, tuple):
                assert all(value) and len(set(value)) == len(value), name


def read_sample(name: str) -> list[dict[str, str]]:
    file = resources.files("data_gen") / "text" / "en" / name
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_the_sample_to_translate_has_sixty_items_and_all_their_translations() -> None:
    english, urdu = read_sample("instructions.jsonl"), read_sample("instructions.ur.jsonl")
    assert len(english) == len(urdu) == 60 and all(tuple(item) == FIELDS for item in english + urdu)
    assert sum(bool(item["input"]) for item in english) >= 8
    assert all(item["instruction"] and item["output"] for item in english)
    assert [bool(item["input"]) for item in english] == [bool(item["input"]) for item in urdu]
    texts = [item[name] for item in english for name in FIELDS if item[name]]
    assert sorted(texts) == sorted(TRANSLATIONS) and len(set(TRANSLATIONS.values())) == len(texts)
    for text, translated in TRANSLATIONS.items():
        assert script_share(text, "Latin") == 1.0 and script_share(translated) == 1.0
        assert sorted(numbers(text)) == sorted(numbers(translated)) or "rupees a kilo" in text, text
        assert text.count("\n") == translated.count("\n")
    assert not [text for text in TRANSLATIONS if wrong_sums(text) or wrong_sums(TRANSLATIONS[text])]
    with pytest.raises(UsageError, match="no text is shipped"):  # instructions are no prose
        text_records("en")
