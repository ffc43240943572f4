"""Questions with choices for the offline teacher: the options that stand beside a right answer, and how both are written.

Options come by kind: what is of the right answer's kind and stands in its row is another answer, a wrong one, to every
fact of offline/words.py with that right answer. Not a source of facts.
"""

import random
from collections.abc import Sequence

from data_gen.offline.words import lines, row

LETTERS = ("الف", "ب", "ج", "د")
OUTSIDE = ("ہ", "و")  # the next letters of the row: never offered
CHOOSE = lines("""
    درست جواب چنیں:
    صحیح جواب کا انتخاب کریں:
    ان میں سے درست جواب کون سا ہے؟
    چار میں سے ایک جواب درست ہے، وہ بتائیں:
    درست جواب کا حرف اور جواب لکھیں:
    نیچے دیے گئے جوابوں میں سے صحیح جواب چنیں:
""")
_KINDS = (
    row("ہاکی، کرکٹ، فٹ بال، کبڈی، اسکواش، والی بال"),
    row("چنبیلی، گلاب، نرگس، کنول، سورج مکھی"),
    row("مارخور، شیر، اونٹ، زرافہ، نیلی وہیل، ہاتھی، گھوڑا، ہرن"),
    row("چکور، شتر مرغ، مور، عقاب، کبوتر، طوطا"),
    row("دیودار، برگد، شیشم، نیم، کیکر"),
    row("اردو، پنجابی، سندھی، پشتو، بلوچی، سرائیکی"),
    row("اقبال، فیض احمد فیض، حفیظ جالندھری، مرزا غالب، میر تقی میر، احمد فراز"),
    row("محمد علی جناح، لیاقت علی خان، خواجہ ناظم الدین، سر سید احمد خان، سردار عبد الرب نشتر"),
    row("1947، 1992، 1956، 1971، 1987"),
    row("لاہور، کراچی، پشاور، کوئٹہ، اسلام آباد، ملتان، فیصل آباد، سکھر"),
    row("آگرہ، دہلی، لکھنؤ، جے پور، ممبئی"),
    row("بلوچستان، سندھ، پنجاب، خیبر پختونخوا"),
    row("کے ٹو، ایورسٹ، نانگا پربت، راکاپوشی، کنچن جنگا"),
    row("دریائے سندھ، دریائے جہلم، دریائے چناب، دریائے راوی، دریائے ستلج"),
    row("بحر الکاہل، بحر اوقیانوس، بحر ہند، بحر منجمد شمالی"),
    row("ایشیا، افریقہ، یورپ، آسٹریلیا، انٹارکٹیکا"),
    row("روس، چین، کینیڈا، امریکا، بھارت"),
    row("مشتری، عطارد، زہرہ، مریخ، زحل"),
    row("بیجنگ، انقرہ، ٹوکیو، قاہرہ، تہران، ریاض، پیرس، لندن"),
    row("ہائیڈروجن اور آکسیجن، ہائیڈروجن اور نائٹروجن، کاربن اور آکسیجن، نائٹروجن اور آکسیجن"),
    row("دل، دماغ، جگر، معدہ"),
    row("پھیپھڑوں، گردوں، کانوں، آنکھوں"),
    row("بارہ، سات، چوبیس، ساٹھ، آٹھ، چھ، گیارہ، دس، بیس، تیس، پندرہ"),
    row("محرم، رمضان، صفر، شوال، رجب"),
    row("114، 100، 110، 120، 90"),
    row("آم، سیب، کیلا، انار، انگور"),
)  # fmt: skip


def others(right: str) -> list[str]:
    """What else is of its kind: others("لاہور") has "کراچی"; [] for what stands in no row."""
    return [other for kind in _KINDS if right in kind for other in kind if other != right]


def near_numbers(right: int) -> list[str]:
    """Numbers above 0 that a mistake would give: near_numbers(3) == ["1", "2", "4", "5", "6", "13"]."""
    return [str(right + miss) for miss in (-10, -3, -2, -1, 1, 2, 3, 10) if right + miss > 0]


def offer(rng: random.Random, right: str, wrong: Sequence[str]) -> tuple[list[str], str]:
    """(the options in their order, what the instruction says): (["12", "15", …], "… (الف) 12 (ب) 15 (ج) 9 (د) 18")."""
    options = [right, *rng.sample(wrong, len(LETTERS) - 1)]
    rng.shuffle(options)
    written = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=True))
    return options, f"{rng.choice(CHOOSE)} {written}"


def chosen(letter: str, option: str) -> str:
    """chosen("ب", "15") == "(ب) 15"."""
    return f"({letter}) {option}"


def answers(rng: random.Random, options: Sequence[str], right: str) -> tuple[str, dict[str, str]]:
    """(the right answer, faulty ones by kind). wrong_choice: letter and text of different options; choice_outside: a letter
    that is not offered; wrong_fact: letter and text of one wrong option.
    """
    letter = LETTERS[options.index(right)]
    stray = rng.choice([other for other in LETTERS if other != letter])
    wrong = rng.choice([option for option in options if option != right])
    faults = {
        "wrong_choice": chosen(stray, right) if rng.random() < 0.5 else chosen(letter, wrong),
        "choice_outside": chosen(rng.choice(OUTSIDE), right),
        "wrong_fact": chosen(LETTERS[options.index(wrong)], wrong),
    }
    return chosen(letter, right), faults
