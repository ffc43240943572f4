"""Every filter: one item it must keep, and the items it must reject with the right reason."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from data_gen.checks import check_reason, equations, offered_labels
from data_gen.filters import answer_language, reject_reason
from data_gen.languages import load_pack
from data_gen.record import CONVERSATION, Item
from data_gen.seeds import load_task
from data_gen.task import Rules, Task

URDU = load_pack("ur")
TASKS = {
    name: load_task(name, URDU, heldout_share=0, seed=0)
    for name in ("generation", "reasoning", "ethics", "translation", "classification", "sentiment", "question_answering")
}
GOOD = "لاہور کی تاریخ پر ایک مختصر مضمون لکھیں۔"
TEXT = "لاہور پاکستان کا ایک قدیم شہر ہے اور راوی کے کنارے آباد ہے۔"
LABELLED = "اس جملے کا جذبہ بتائیں (مثبت، منفی، غیر جانبدار): آج موسم بہت اچھا ہے۔"


def item(output: str = TEXT, instruction: str = GOOD, task: str = "generation", **more: str) -> Item:
    return Item(task, instruction, more.get("input", ""), output, more.get("language", "ur"))


def why_not(item: Item, rules: Rules | None = None) -> str | None:
    task: Task = replace(TASKS[item.task], rules=rules) if rules else TASKS[item.task]
    return reject_reason(item, task) or check_reason(item, task)


KEPT = [
    item(),
    item("۴۲"),
    item("دونوں کو جمع کریں:\n۲۰ + ۲۲ = ۴۲\nجواب: ۴۲", task="reasoning"),
    item("پہلے Python کی فائل کھولیں اور اس میں print کا حکم لکھ کر محفوظ کریں۔"),
    item("مثبت", LABELLED, "sentiment"),
    item("میں اس میں مدد نہیں کر سکتا، مگر قانونی راستہ یہ ہے کہ وکیل سے ملیں۔", task="ethics"),
    item("معذرت، میں ایسا نہیں کر سکتا؛ یہ قانون کے خلاف ہے۔", task="ethics"),
    item("محترم استاد، میں کل کی غیر حاضری پر معذرت خواہ ہوں۔"),
    item("The weather is fine.", "اس جملے کا انگریزی میں ترجمہ کریں۔", "translation", language="en"),
    item(instruction="«سچ» کا مطلب بتائیں۔"),
    item(" ".join(f"لفظ{k}" for k in range(100))),
    item("دل ہے ہے ہے مگر"),
    item("آگ لگے تو 1122 پر فون کریں، یا 15 پر۔ سن 1947 اور 2024-25 میں 300000 روپے تھے۔"),
    item(TEXT + " نمونے کا پتا name@example.com ہے، اور می\u200cروم ایک لفظ ہے۔ HTML5 بھی۔"),
]
REJECTED = [
    ("empty_output", item(" \n")),
    ("instruction_too_short", item(instruction="مضمون لکھیں۔")),
    ("instruction_too_long", item(instruction="لکھیں " * 151)),
    ("input_too_long", item(input="لاہور ایک قدیم شہر ہے۔ " * 1000)),
    ("input_unwanted", item(input="لاہور ایک قدیم شہر ہے۔")),
    ("output_too_long", item("لاہور ایک قدیم شہر ہے۔ " * 1000)),
    ("leading_punctuation", item(instruction="۔ لاہور پر مضمون لکھیں۔")),
    ("leading_punctuation", item(instruction="- لاہور پر مضمون لکھیں۔")),
    ("copied", item(GOOD.replace("۔", ""))),
    ("label_outside", item("خوش", LABELLED, "sentiment")),
    ("label_outside", item("مثبت۔", LABELLED, "sentiment")),
    ("no_labels_offered", item("کھیل", "اس خبر کی قسم بتائیں: پاکستان جیت گیا۔", "classification")),
    ("wrong_language", item("Lahore is an old city.")),
    ("wrong_language", item("लाहौर एक पुराना शहर है।")),
    ("wrong_language", item("موسم اچھا ہے۔", "انگریزی میں ترجمہ کریں۔", "translation", language="en")),
    ("boiler_plate", item("ایک مصنوعی ذہانت ہونے کے ناطے میری کوئی رائے نہیں۔")),
    ("boiler_plate", item("بطور ایک اے آئی میں یہ کہوں گا کہ لاہور اچھا شہر ہے۔")),
    ("boiler_plate", item("لاہور کے بارے میں As an AI language model میں یہ کہہ سکتا ہوں کہ یہ ایک قدیم شہر ہے۔")),
    ("refusal", item("معذرت، میں یہ مضمون لکھنے میں آپ کی مدد نہیں کر سکتا۔")),
    ("foreign_characters", item(TEXT + " یہ کتاbب ہے۔")),
    ("foreign_characters", item(TEXT + " یہ قدیمый ہے۔")),
    ("personal_data", item(TEXT + " شناختی کارڈ 35202-1234567-1 ہے۔")),
    ("personal_data", item(TEXT + " شناختی کارڈ ۳۵۲۰۲-۱۲۳۴۵۶۷-۱ ہے۔")),
    ("personal_data", item(TEXT + " فون 0300-1234567 پر کریں۔")),
    ("personal_data", item(TEXT + " فون +92 300 1234567 پر کریں۔")),
    ("personal_data", item(instruction="مجھے ali.khan@gmail.com پر خط لکھ کر دیں۔")),
    ("personal_data", item(TEXT + " کھاتہ PK36 SCBL 0000 0011 2345 6702 ہے۔")),
    ("repeated_text", item("لاہور بہت بہت بہت بہت خوب صورت ہے۔")),
    ("repeated_text", item("لاہور ایک قدیم شہر ہے۔ " * 8)),
]


@pytest.mark.parametrize("kept", KEPT)
def test_keeps(kept: Item) -> None:
    assert why_not(kept) is None


@pytest.mark.parametrize(("reason", "rejected"), REJECTED)
def test_rejects(reason: str, rejected: Item) -> None:
    assert why_not(rejected) == reason


def test_labels_stand_in_any_brackets() -> None:
    assert offered_labels("قسم بتائیں (کھیل، سیاست ، صحت): خبر (نئی)") == ["کھیل", "سیاست", "صحت"]
    assert offered_labels("(ہاں، نہیں): دال (چنا, ماش)") == ["ہاں", "نہیں", "چنا", "ماش"]
    assert offered_labels("(ہاں/نہیں)") == ["ہاں", "نہیں"] and offered_labels("(ہاں یا نہیں)") == []
    for last in ("، ملا جلا", " یا ملا جلا", "، یا «ملا جلا»"):
        assert offered_labels(f"(مثبت، منفی{last})", "یا") == ["مثبت", "منفی", "ملا جلا"]
    assert offered_labels("قسم بتائیں (کھیل)") == []


@pytest.mark.parametrize(
    ("instruction", "output", "language"),
    [
        ("اس جملے کا انگریزی میں ترجمہ کریں۔", "موسم اچھا ہے۔", "en"),
        ("Translate into Urdu: Good morning.", "Good", "ur"),
        ("انگریزی سے اردو ترجمہ کیجیے: Good morning.", "صبح بخیر", "ur"),
        ("What does this Urdu idiom mean in English?", "It is tiny.", "en"),
        ("اردو میں اور انگریزی میں کہیں: شکریہ", "Thank you.", "en"),
        ("اس کا ترجمہ کریں: Good morning.", "صبح بخیر", "ur"),
    ],
)
def test_language_of_a_translation(instruction: str, output: str, language: str) -> None:
    assert answer_language(Item("translation", instruction, "", output, "ur"), TASKS["translation"]) == language


def test_a_bracket_that_never_closes_takes_no_time(takes_less: Callable[[float, Callable[[], object]], bool]) -> None:
    text = "(" + "،" * 300_000
    assert offered_labels(text) == []
    assert takes_less(1, lambda: offered_labels(text))


def test_what_a_task_bounds() -> None:
    said = item("لاہور ایک شہر ہے۔")
    assert why_not(said, Rules(min_words=5)) == "answer_too_short"
    assert why_not(said, Rules(max_words=3)) == "answer_too_long"
    assert why_not(said, Rules(min_words=4, max_words=4)) is None
    assert why_not(said, Rules(input=True)) == "input_missing"
    about = item("لاہور", input="لاہور ایک قدیم شہر ہے۔")
    assert why_not(about, Rules(input=True)) is None
    assert why_not(replace(about, output=about.input), Rules(input=True)) == "copied"
    talk = replace(item("جی\nUser: اور؟\nAssistant: بس اتنا۔"), form=CONVERSATION)
    assert why_not(talk, Rules(max_words=4)) is None, "the names of the speakers are no words"
    assert why_not(replace(talk, output="جی\nUser: اور؟\nAssistant: yes that is all of it now"), Rules()) == "wrong_language"


def test_roman_and_mixed_urdu_have_their_own_letters() -> None:
    roman, mixed = "Mera naam Ali hai aur main Lahore mein rehta hoon.", "میں نے اپنا assignment کل submit کر دیا تھا۔"
    assert why_not(replace(item(roman), language="ur-Latn")) is None
    assert why_not(replace(item(mixed), language="ur-x-mixed")) is None
    assert why_not(replace(item(mixed), language="ur-Latn")) == "wrong_language"
    assert why_not(replace(item(TEXT), language="ur-x-mixed")) == "wrong_language"
    assert why_not(replace(item(roman), language="ur-x-mixed")) == "wrong_language"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("3 × 60 = 180\n2 × 25 = 50\n180 + 50 = 230", [True, True, True]),
        ("۵ + ۳ = ۸ اور 5 - 3 = 3", [True, False]),
        ("10 ÷ 3 = 3.33\n10 ÷ 3 = 3.34\n7 ÷ 2 = 3.5", [True, False, True]),
        ("1,200 ÷ 10 = 120", [True]),
        ("1200 × 10% = 120", [True]),
        ("(2 + 3) × 4 = 20\n2 + 3 × 4 = 20", [True, False]),
        ("2 + 3 = 5 + 1 = 6", [False]),
        ("-5 + 8 = 3", [True]),
        ("قیمت 3 × 5 = 16", [False]),
        ("2x + 3 = 7\ny + 3 = 10\nx = 5\na = b\n3 ÷ 0 = 3\n2 + 3 = ؟\n3 + 4 = 7x", []),
        ("9" * 300 + " + 1 = 2", []),
    ],
)
def test_equations_are_recomputed(text: str, right: list[bool]) -> None:
    assert [fine for _, fine in equations(text)] == right


def test_sums_agree_with_another_evaluator() -> None:
    rng, signs = random.Random(0), {"×": "*", "÷": "/", "+": "+", "-": "-"}
    for _ in range(2000):
        left = str(rng.randint(1, 99))
        for _ in range(rng.randint(1, 3)):
            left += f" {rng.choice(list(signs))} {rng.randint(1, 99)}"
        value = eval("".join(signs.get(char, char) for char in left))  # noqa: S307
        said = value + rng.choice((0, 0, 1)) if value == int(value) else round(value, 2)
        wanted = abs(value - said) < 1e-9 or (value != int(value) and abs(value - said) < 0.005001)
        [(sides, fine)] = equations(f"حساب:\n{left} = {said if value != int(value) else int(said)}\n")
        assert fine == wanted, (left, said)


REASONED = "ایک کتاب 50 روپے کی ہے۔ 3 کتابیں کتنے کی ہیں؟"
CHOICES = "پاکستان کا دارالحکومت کون سا ہے؟ (الف) کراچی (ب) لاہور (ج) اسلام آباد"


@pytest.mark.parametrize(
    ("task", "instruction", "output", "reason"),
    [
        ("reasoning", REASONED, "50 × 3 = 150\nجواب: 150 روپے", None),
        ("reasoning", REASONED, "50 × 3 = 160\nجواب: 160 روپے", "arithmetic_wrong"),
        ("reasoning", REASONED, "50 × 3 = 150\nجواب: 140 روپے", "answer_not_derived"),
        ("reasoning", REASONED, "50 × 3 = 150", "answer_not_derived"),
        ("reasoning", REASONED, "سب کو ملا کر دیکھیں۔\nجواب: جمعہ", None),
        ("reasoning", CHOICES, "یہ شہر 1960 میں بنا۔\nجواب: (ج) اسلام آباد", None),
        ("reasoning", CHOICES, "یہ شہر 1960 میں بنا۔\nجواب: ج", None),
        ("question_answering", CHOICES, "(ج) اسلام آباد", None),
        ("question_answering", CHOICES, "ج) اسلام آباد", None),
        ("question_answering", CHOICES, "اسلام آباد", None),
        ("question_answering", CHOICES, "(الف) اسلام آباد", "choice_mismatch"),
        ("question_answering", CHOICES, "(د) پشاور", "choice_outside"),
        ("question_answering", CHOICES, "(د) اسلام آباد", "choice_outside"),
        ("reasoning", CHOICES, "یہ شہر 1960 میں بنا۔\nجواب: ج۔", None),
        ("question_answering", CHOICES, "پشاور", "choice_outside"),
        ("question_answering", "پاکستان (آزاد ملک) کب بنا؟", "پاکستان 1947 میں بنا۔", None),
    ],
)
def test_local_checks(task: str, instruction: str, output: str, reason: str | None) -> None:
    assert why_not(item(output, instruction, task)) == reason
