"""Every filter: one item it must keep, and the items it must reject with the right reason."""

import time

import pytest

from data_gen.filters import CLOSED_TASKS, answer_language, offered_labels, reject_reason
from data_gen.record import Item

GOOD = "لاہور کی تاریخ پر ایک مختصر مضمون لکھیں۔"
TEXT = "لاہور پاکستان کا ایک قدیم شہر ہے اور راوی کے کنارے آباد ہے۔"
LABELLED = "اس جملے کا جذبہ بتائیں (مثبت، منفی، غیر جانبدار): آج موسم بہت اچھا ہے۔"


def item(output: str = TEXT, instruction: str = GOOD, task: str = "generation", **more: str) -> Item:
    return Item(task, instruction, more.get("input", ""), output, more.get("language", "ur"))


KEPT = [
    item(),
    item("۴۲"),
    item("جواب ۴۲ ہے کیونکہ ۲۰ + ۲۲ = ۴۲۔", task="reasoning"),
    item("پہلے Python کی فائل کھولیں اور اس میں print کا حکم لکھ کر محفوظ کریں۔"),
    item("مثبت", LABELLED, "sentiment"),
    item("میں اس میں مدد نہیں کر سکتا، مگر قانونی راستہ یہ ہے کہ وکیل سے ملیں۔", task="ethics"),
    item("معذرت، میں ایسا نہیں کر سکتا؛ یہ قانون کے خلاف ہے۔", task="ethics"),
    item("محترم استاد، میں کل کی غیر حاضری پر معذرت خواہ ہوں۔"),
    item("The weather is fine.", "اس جملے کا انگریزی میں ترجمہ کریں۔", "translation", language="en"),
    item(instruction="«سچ» کا مطلب بتائیں۔"),
    item(" ".join(f"لفظ{k}" for k in range(100))),
    item("دل ہے ہے ہے مگر"),
]
REJECTED = [
    ("empty_output", item(" \n")),
    ("instruction_too_short", item(instruction="مضمون لکھیں۔")),
    ("instruction_too_long", item(instruction="لکھیں " * 151)),
    ("input_too_long", item(input="لاہور ایک قدیم شہر ہے۔ " * 1000)),
    ("output_too_long", item("لاہور ایک قدیم شہر ہے۔ " * 1000)),
    ("leading_punctuation", item(instruction="۔ لاہور پر مضمون لکھیں۔")),
    ("leading_punctuation", item(instruction="- لاہور پر مضمون لکھیں۔")),
    ("copied", item(GOOD.replace("۔", ""))),
    ("copied", item("آج موسم اچھا ہے", input="آج موسم اچھا ہے۔")),
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
    ("repeated_text", item("لاہور بہت بہت بہت بہت خوب صورت ہے۔")),
    ("repeated_text", item("لاہور ایک قدیم شہر ہے۔ " * 8)),
]


@pytest.mark.parametrize("kept", KEPT)
def test_keeps(kept: Item) -> None:
    assert reject_reason(kept) is None


@pytest.mark.parametrize(("reason", "rejected"), REJECTED)
def test_rejects(reason: str, rejected: Item) -> None:
    assert reject_reason(rejected) == reason


def test_labels_are_the_last_brackets_of_several() -> None:
    assert offered_labels("(ہاں، نہیں) قسم بتائیں (کھیل، سیاست ، صحت): خبر (نئی)") == ["کھیل", "سیاست", "صحت"]
    assert offered_labels("قسم بتائیں (کھیل)") == []
    assert set(CLOSED_TASKS) == {"classification", "sentiment"}


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
    assert answer_language(Item("translation", instruction, "", output, "ur")) == language


def test_a_bracket_that_never_closes_takes_no_time() -> None:
    began = time.perf_counter()
    assert offered_labels("(" + "،" * 300_000) == []
    assert time.perf_counter() - began < 1
