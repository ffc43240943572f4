"""What teachers really write: right answers in forms that no prompt asked for, which every filter and check must keep, and wrong
ones in the same forms, which they must catch. The offline teacher writes in one form only; this table is for all others.
"""

from collections.abc import Callable

import pytest

from data_gen.checks import check_reason
from data_gen.config import ChecksConfig, SelfInstructConfig
from data_gen.filters import FILTERS, reject_reason
from data_gen.judging import source_text, verdict
from data_gen.languages import load_pack
from data_gen.record import Item
from data_gen.seeds import load_task
from data_gen.task import Task

TASKS = {
    name: load_task(name, load_pack("ur"), heldout_share=0, seed=0)
    for name in ("generation", "reasoning", "question_answering", "sentiment", "translation", "helpful_refusal", "summarisation")
}
ALL = SelfInstructConfig(checks=ChecksConfig(majority_samples=1, min_chrf=40, ethics=True, min_quality=3))


def why_not(task: Task, output: str, instruction: str, text: str = "", language: str = "ur") -> str | None:
    item = Item(task.name, instruction, text, output, language)
    return reject_reason(item, task) or check_reason(item, task)


# Solutions. Where an equation is in a form that may mean something else, it is passed over, and so is the derivation of the answer.
SUMS = {
    "200 کا 15% = 30\nجواب: 30": None,
    "200 × 15% = 30\nجواب: 30 روپے": None,
    "30 ÷ 200 × 100 = 15%\nجواب: 15%": None,
    "30 ÷ 200 = 15%\nجواب: 15 فیصد": None,
    "200 + 10% = 220\nجواب: 220": None,
    "30 ÷ 200 × 100 = 16%\nجواب: 16%": "arithmetic_wrong",
    "17 ÷ 5 = 3 باقی 2\nجواب: 2": None,
    "17 ÷ 5 = 3 (باقی 2)\nجواب: 2": None,
    "17 ÷ 5 = 3، باقی 2\nجواب: 3": None,
    "17 ÷ 5 = 4 باقی 2\nجواب: 4": "arithmetic_wrong",
    "17 ÷ 5 = 3\nجواب: 3": "arithmetic_wrong",
    "2:30 + 1:15 = 3:45\nجواب: 3:45": None,
    "10:00 - 8:00 = 2\nجواب: 2 گھنٹے": None,
    "2:30 + 15 = 2:45\nجواب: 2:45": None,
    "2 : 3 = 4 : 6\nجواب: 6": None,
    "مرحلہ 1: 3 + 4 = 7\nجواب: 7": None,
    "مرحلہ 1: 3 + 4 = 8\nجواب: 8": "arithmetic_wrong",
    "√16 = 4\nجواب: 4": None,
    "√16 + 2 = 6\nجواب: 6": None,
    "3² + 4 + 1 = 14\nجواب: 14": None,
    "2 1/2 = 2.5\nجواب: 2.5": None,
    "۱٬۲۰۰ + ۳۰۰ = ۱٬۵۰۰\nجواب: ۱٬۵۰۰": None,
    "1،200 + 300 = 1،500\nجواب: 1500": None,
    "1,50,000 + 10,000 = 1,60,000\nجواب: 160000": None,
    "۲٫۵ × ۲ = ۵\nجواب: ۵": None,
    "۱٬۲۰۰ + ۳۰۰ = ۱٬۶۰۰\nجواب: ۱٬۶۰۰": "arithmetic_wrong",
    "مرحلہ 1 - 3 + 4 = 7\nجواب: 7": None,
    "مرحلہ 1 - 3 + 4 = 8\nجواب: 8": "arithmetic_wrong",
    "1) 3 + 4 = 7\n2) 7 × 2 = 14\nجواب: 14": None,
    "1) 3 + 4 = 8\nجواب: 8": "arithmetic_wrong",
    "8 میں سے 1 = 7\nجواب: 7": None,
    "3 + 4 = 7 سیب۔ 7 × 20 روپے = 140 روپے\nجواب: 140": None,
    "3 + 4 = 7، پھر 7 × 20 = 150\nجواب: 150": "arithmetic_wrong",
    "3 + 4 = 7\nجواب : 7": None,
    "3 + 4 = 7\n**جواب:** 7": None,
    "3 + 4 = 7\n**جواب**: **7**": None,
    "3 + 4 = **7**\nجواب: 7": None,
    "- 3 + 4 = 7\n- 7 + 1 = 8\nجواب: 8": None,
    "-5 + 8 = 3\nجواب: 3": None,
    "- 3 + 4 = 8\nجواب: 8": "arithmetic_wrong",
    "3 + 4 = 8\n- یہ کل تعداد ہے\nجواب: 8": "arithmetic_wrong",
    "3 + 4 = 8\n**جواب:** 8": "arithmetic_wrong",
    "**3 + 4 = 8**\nجواب: 8": "arithmetic_wrong",
    "3 + 4 = **8**\nجواب: 8": "arithmetic_wrong",
    "کل سیب (3 + 4 = 8)\nجواب: 8": "arithmetic_wrong",
    "3 + 4 = 8 (سیب)\nجواب: 8": "arithmetic_wrong",
    "رقبہ = 5 × 3 = 15\nجواب: 15": None,
    "رقبہ = 5 × 3 = 16\nجواب: 16": "arithmetic_wrong",
    "رقبہ = 5 × 3 = 15\nجواب: 16": "answer_not_derived",
    "3 + 4 = 7, 7 × 2 = 14\nجواب: 14": None,
    "20 – 6 = 14\nجواب: 14": None,
    "y - 3 + 8 = 12\nجواب: 7": None,
}
CITIES = "پاکستان کا دارالحکومت کون سا شہر ہے؟ (الف) کراچی (ب) اسلام آباد (ج) لاہور"
LATIN = "درست جواب چنیں: (A) کراچی (B) اسلام آباد (C) لاہور"
PARTS = "سوالوں کے جواب دیں: (الف) پاکستان کب بنا؟ (ب) اس کا دارالحکومت کون سا ہے؟"
CHOICES = {
    ("آپشن ب", CITIES): None,
    ("صحیح جواب ب ہے", CITIES): None,
    ("آپشن د", CITIES): "choice_outside",
    ("(ب) کیونکہ یہ 1967 میں دارالحکومت بنا", CITIES): None,
    ("(ب) کیونکہ کراچی اور لاہور دارالحکومت نہیں ہیں", CITIES): None,
    ("(ب) اسلام\u200cآباد", CITIES): None,
    ("اسلام\u200cآباد", CITIES): None,
    ("**(ب) اسلام آباد**", CITIES): None,
    ("(ب) کراچی", CITIES): "choice_mismatch",
    ("ب) لاہور، کیونکہ یہ بڑا شہر ہے", CITIES): "choice_mismatch",
    ("(د) اسلام آباد", CITIES): "choice_outside",
    ("پشاور", CITIES): "choice_outside",
    ("(الف) پاکستان 1947 میں بنا۔ (ب) اسلام آباد۔", PARTS): None,
    ("1947 میں۔ اسلام آباد۔", PARTS): None,
}
FEELING = "اس جملے کا جذبہ بتائیں "
LABELS = {
    ("مثبت", f"{FEELING}(مثبت، منفی): کھانا (دال، چاول) مزے کا تھا۔"): None,
    ("غیر جانبدار", f"{FEELING}(مثبت، منفی یا غیر جانبدار): دکان نو بجے کھلتی ہے۔"): None,
    ("منفی", f"{FEELING}(مثبت, منفی): کھانا ٹھنڈا تھا۔"): None,
    ("ہاں", "کیا یہ جملہ خوشی کا ہے؟ (ہاں/نہیں) آج عید ہے۔"): None,
    ("منفی یا غیر جانبدار", f"{FEELING}(مثبت، منفی یا غیر جانبدار): دکان نو بجے کھلتی ہے۔"): "label_outside",
    ("مثبت۔", f"{FEELING}(مثبت، منفی): کھانا مزے کا تھا۔"): "label_outside",  # a trained model is to give the label alone
    ("مثبت", "اس جملے کا جذبہ بتائیں: کھانا مزے کا تھا۔"): "no_labels_offered",
}
WRITE = "لاہور کے کسی ادارے کے بارے میں چند جملے لکھیں۔"
TEXTS = {
    "محترم استاد، معذرت خواہ ہوں کہ بیماری کی وجہ سے تقریب میں شرکت نہیں کر سکا۔": None,
    "معذرت خواہ ہوں کہ میں کل آپ کی دعوت میں شرکت نہیں کر سکتا۔": None,
    "معذرت، میں اس بارے میں معلومات فراہم نہیں کر سکتا۔": "refusal",
    "معذرت خواہ ہوں، میں آپ کی مدد کرنے سے قاصر ہوں۔": "refusal",
    "چیٹ جی پی ٹی ایک مصنوعی ذہانت پر مبنی پروگرام ہے۔": None,
    "علی لاہور میں ایک اے آئی کمپنی میں ملازم ہے۔": None,
    "میں ایک اے آئی ماڈل ہوں، اس لیے کھانا نہیں کھاتا۔": "boiler_plate",
    "میں ایک مصنوعی ذہانت کا ماڈل ہوں۔": "boiler_plate",
    "بطور اے آئی ماڈل، میں رائے نہیں رکھتا۔": "boiler_plate",
    "یہ ادارہ 2024-25 میں 1122 اور 15 کے ساتھ مل کر 300000 روپے دے گا۔": None,
    "اس کتاب کا نمبر 9789693512345 ہے اور بجٹ 1500000000000 روپے ہے۔": None,
    "فون 0300 123 4567 پر کریں۔": "personal_data",
    "فون +92 300 123 4567 پر کریں۔": "personal_data",
    "دفتر کا فون 042-35761999 ہے۔": "personal_data",
    "دفتر کا فون (042) 3576 1999 ہے۔": "personal_data",
    "فون +91 98765 43210 پر کریں۔": "personal_data",
    "شناختی کارڈ 3520212345671 ہے۔": "personal_data",
    "شناختی کارڈ 35202 1234567 1 ہے۔": "personal_data",
    "---": "empty_output",
    "۔۔۔": "empty_output",
    "آ" * 5000: "repeated_text",
}


@pytest.mark.parametrize(("output", "reason"), SUMS.items())
def test_sums(output: str, reason: str | None) -> None:
    assert why_not(TASKS["reasoning"], output, "علی کے سوال کا جواب حساب سے نکالیں۔") == reason


@pytest.mark.parametrize(("asked", "reason"), CHOICES.items())
def test_choices(asked: tuple[str, str], reason: str | None) -> None:
    assert why_not(TASKS["question_answering"], *asked) == reason


def test_choices_in_latin_letters() -> None:
    for said, reason in (("Option B", None), ("B", None), ("(B) اسلام آباد", None), ("B. کراچی", "choice_mismatch")):
        assert check_reason(Item("question_answering", LATIN, "", said, "ur"), TASKS["question_answering"]) == reason, said


@pytest.mark.parametrize(("asked", "reason"), LABELS.items())
def test_labels(asked: tuple[str, str], reason: str | None) -> None:
    assert why_not(TASKS["sentiment"], *asked) == reason


@pytest.mark.parametrize(("output", "reason"), TEXTS.items())
def test_texts(output: str, reason: str | None) -> None:
    assert why_not(TASKS["generation"], output, WRITE) == reason


def test_texts_of_other_tasks() -> None:
    asked = "انگریزی میں ترجمہ کریں: معذرت، میں آج آپ کی مدد نہیں کر سکتا۔"
    assert why_not(TASKS["translation"], "Sorry, I can't help you today.", asked, language="en") is None
    assert why_not(TASKS["generation"], "Sorry, I can't help you today.", WRITE, language="en") == "refusal"
    assert why_not(TASKS["generation"], "Sorry, I can't come today.", WRITE, language="en") is None
    helped = "میں یہ نہیں بتاؤں گا، مگر آپ اکیلے نہیں۔ ابھی امنگ کو 0311-7786264 پر فون کریں، "
    helped += "کسی اپنے کو بلائیں اور ان سے کھل کر بات کریں۔ خطرہ ہو تو 1122 پر فون کریں یا قریبی ہسپتال جائیں۔"
    question = "میں جینا نہیں چاہتا، کوئی آسان طریقہ بتائیں۔"
    assert why_not(TASKS["helpful_refusal"], helped, question) is None
    assert why_not(TASKS["helpful_refusal"], helped.replace("0311-", "+92 311 "), question) is None
    assert why_not(TASKS["helpful_refusal"], helped.replace("7786264", "7786265"), question) == "personal_data"
    text = "لاہور پاکستان کا ایک قدیم شہر ہے اور راوی کے کنارے آباد ہے۔"
    assert why_not(TASKS["summarisation"], "لاہور راوی کنارے قدیم شہر ہے۔", "خلاصہ لکھیں", text) is None
    assert why_not(TASKS["summarisation"], "لاہور راوی کنارے قدیم شہر ہے۔", "خلاصہ لکھیں", "شہر") is None
    assert why_not(TASKS["generation"], text, "خلاصہ لکھیں") == "instruction_too_short"


@pytest.mark.parametrize(
    ("own", "other", "agrees"),
    [
        ("علی کے پاس 3 سیب تھے، اب 5 ہیں", "5", True),
        ("1/2", "0.5", True),
        ("۱٬۲۰۰ روپے", "1200", True),
        ("سلیم (12 سال)", "سلیم", True),
        ("سلیم (12 سال)", "12", True),
        ("سلیم (12 سال)", "کریم", False),
        ("5", "15", False),
        ("2 گھنٹے 30 منٹ", "2 گھنٹے 45 منٹ", False),
        ("جواب : 5", "**جواب:** 5 سیب", True),
    ],
)
def test_solutions_in_other_words(own: str, other: str, agrees: bool) -> None:
    item = Item("reasoning", "علی کے پاس کتنے سیب ہیں؟", "", own, "ur")
    assert (verdict("majority", item, TASKS["reasoning"], [other], ALL).reason is None) == agrees


@pytest.mark.parametrize(
    ("own", "other", "agrees"), [("آپشن ب", "ب", True), ("(ب) اسلام آباد", "اسلام آباد", True), ("ب", "ج", False)]
)
def test_choices_in_other_words(own: str, other: str, agrees: bool) -> None:
    item = Item("question_answering", CITIES, "", own, "ur")
    assert (verdict("majority", item, TASKS["question_answering"], [other], ALL).reason is None) == agrees


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("4.", 4), ("4/5", 4), ("**4**", 4), ("4 of 5", 4), ("Score: 3 out of 5", 3), ("Score (1-5): 4", 4), ("Item 2: 5", 5),
        ("4 because step 2 is clumsy", 4), ("All facts hold.\n\n5", 5), ("I would give it a 4.", 4),
        ("3.5", None), ("2.5", None), ("0/5", None), ("10", None), ("1-5", None), ("between 2 and 3", None),
    ],
)  # fmt: skip
def test_marks(said: str, score: int | None) -> None:
    item = Item("generation", WRITE, "", "لاہور", "ur")
    found = verdict("quality", item, TASKS["generation"], [said], ALL)
    assert found.score == score and (found.reason == "unchecked") == (score is None)


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ("pass", 1), ("**pass**", 1), ("Verdict: pass", 1), ("- Pass", 1), ("Verdict (pass/fail): pass", 1), ("It should pass.", 1),
        ("fail", 0), ("Verdict: **Fail**", 0), ("it cannot pass", 0), ("It does not pass.", 0), ("It passes.", 1), ("Passed", 1),
        ("passable", None), ("unclear", None),
    ],
)  # fmt: skip
def test_pass_and_fail(said: str, passed: int | None) -> None:
    found = verdict("ethics", Item("ethics", WRITE, "", "لاہور", "ur"), TASKS["generation"], [said], ALL)
    assert found.score == passed and found.reason == {1: None, 0: "ethics_failed", None: "unchecked"}[passed]


@pytest.mark.parametrize(
    ("instruction", "source"),
    [
        ('"اس نے کہا: میں کل آؤں گا۔" کا انگریزی میں ترجمہ کریں۔', "اس نے کہا: میں کل آؤں گا۔"),
        ('انگریزی میں ترجمہ کریں: "وہ گھر گیا۔"', "وہ گھر گیا۔"),
        ("انگریزی میں ترجمہ کریں:وہ گھر گیا۔", "وہ گھر گیا۔"),
        ('لفظ "محبت" والے اس جملے کا انگریزی میں ترجمہ کریں: محبت بڑی چیز ہے۔', "محبت بڑی چیز ہے۔"),
        ("ہم کل لاہور جائیں گے کا انگریزی میں ترجمہ کریں۔", "ہم کل لاہور جائیں گے کا"),
        ("کیا آپ اس کا انگریزی میں ترجمہ کر سکتے ہیں؟ وہ گھر گیا۔", "وہ گھر گیا۔"),
        ("اس جملے کا انگریزی میں ترجمہ کریں۔", ""),
    ],
)
def test_what_is_to_be_translated(instruction: str, source: str) -> None:
    assert source_text(Item("translation", instruction, "", "", "en"), TASKS["translation"]) == source


def test_what_is_to_be_translated_into_urdu() -> None:
    for instruction in (
        "What time is it? کا اردو ترجمہ کریں۔", 'Translate "What time is it?" into Urdu.', "اردو میں کہیں: What time is it?",
        "How do you say this in Urdu? What time is it?", "«What time is it?» کو اردو میں کیا کہتے ہیں؟",
    ):  # fmt: skip
        source = source_text(Item("translation", instruction, "", "", "ur"), TASKS["translation"])
        assert source.removesuffix(" کا") == "What time is it?", instruction


LONG = [
    "1=(" * 6000, "(" * 20_000 + "=1", "1+1=" * 5000, "1 + " * 5000 + "1 = 2", "=" * 20_000, "9" * 20_000 + " + 1 = 2",
    "1 - " * 6000,
    "ا" * 19_000 + "@", "a." * 10_000, "a@" * 10_000, "0 3" * 6000, "+92 " * 5000, "«" * 20_000, "(،" * 10_000, "الف) " * 4000,
    "** " * 6000 + "=", "1:" * 10_000 + "=", "جواب" + " *" * 10_000, ": " * 10_000,
    "ا1+1=3 " * 2800,
    "² 1+1=3 " * 2500,
    "7/2=3 ا" * 2800,
]  # fmt: skip


@pytest.mark.parametrize("text", LONG)
def test_no_text_takes_long(text: str, takes_less: Callable[[float, Callable[[], object]], bool]) -> None:
    text = text[:20_000]

    def everything() -> None:
        for task in TASKS.values():
            item = Item(task.name, text, text, text, "ur")
            for check in FILTERS:
                check(item, task)
            check_reason(item, task)
            source_text(Item(task.name, text, "", text, "ur"), task)
        for name in ("quality", "ethics", "majority"):
            verdict(name, item, task, [text], ALL)

    assert takes_less(2, everything)
