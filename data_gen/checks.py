"""Checks of an answer that need nobody's opinion: labels, sums, choices. Pure functions from an item and its task to None or the
reason. Which task has which stands in its task.toml; what must be asked of a teacher is in judging.py.
"""

import ast
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache

import regex

from data_gen.record import Item
from data_gen.task import Task
from data_gen.text import fold_digits, tokens

REASONS = ("no_labels_offered", "label_outside", "arithmetic_wrong", "answer_not_derived", "choice_outside", "choice_mismatch")
MAX_CHOICE_WORDS = 15  # of an answer that is a choice and nothing else
LATIN_LETTERS = ("A", "B", "C", "D", "E")
MAX_EXPRESSION = 200  # letters
Number = int | Fraction

_BRACKETS, _COMMA = regex.compile(r"\(([^()]*)\)"), regex.compile("[،,]")
_GROUPED = r"(?:\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)|\d+)(?:\.\d+)?"  # 1,200 and 1,50,000, but not 3,4
_ALONE = regex.compile(rf"(?<![\d.])-?(?:\d+/[1-9]\d*(?![\d./])|{_GROUPED})(?!\d)")
_FOREIGN_MARK, _THOUSANDS = regex.compile("[٬،٫]"), regex.compile(r"(?<=\d)[٬،](?=\d{3}(?!\d))")
# What an equation of plain numbers is made of. Before it: a root, a power. After it: the same, or an unknown ("7x").
_RUN = regex.compile(r"[\d(=+\-−–*/×÷](?:[\d()%+\-−–*/×÷= \t]|\.(?=\d)|,(?=\d{3}(?!\d)|\d{2},))*")
_CUT_OFF, _GOES_ON = regex.compile(r"(?<=[\p{No}√^]\s*|\p{L})"), regex.compile(r"[\p{No}√^°]|(?<=\d)\p{L}")
_BOLD, _CLOCK = regex.compile(r"\*\*(?!\d)|(?<!\d)\*\*"), regex.compile(r"(?<=\d)(?: : |:)(?=\d)")  # 2:30, 2 : 3
_LABEL = regex.compile(r"[-−–*]\s+|\*+|\(?\d{1,2}\)\s*|(?<=\p{L}\s)\d{1,2}\s*[-–]\s+")  # "- …", "1) …", "مرحلہ 1 - …"
_REMAINDER = regex.compile(r"[^\w=]*\p{L}[^\d=.۔؟?!]*\d")  # "17 ÷ 5 = 3 باقی 2"
_OPERATOR, _PERCENT_OF_WHAT = regex.compile(r"[\d)%]\s*[-−–+*/×÷]"), regex.compile(r"[-−–+]\s*[\d.,]+\s*%")
_TWO = regex.compile(r"(\d+)\s*([-−–+*/×÷])\s*(\d+)")
_PERCENT, _LEADING_ZEROS = regex.compile(r"(\d)\s*%"), regex.compile(r"(?<![\d.])0+(?=\d)")
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", "–": "-", ",": None})
_WORD = regex.compile(r"\p{L}+")


def offered_labels(instruction: str, either: str = "") -> list[str]:
    """The labels that an instruction offers in round brackets: "… (مثبت، منفی، ملا جلا)" → ["مثبت", "منفی", "ملا جلا"]; [] if
    none. `either` is the language's word for "or", which may stand before the last.
    """
    found = []
    for inside in _BRACKETS.findall(instruction):
        *parts, last = _COMMA.split(inside) if _COMMA.search(inside) else inside.split("/")
        parts += f" {last}".split(f" {either} ") if either else [last]
        labels = [label for part in parts if (label := part.strip(" \"'«»“”‘’"))]
        found += labels if len(labels) > 1 else []
    return found


def label(item: Item, task: Task) -> str | None:
    """The answer is exactly one of the labels offered, with no full stop and no explanation."""
    labels = offered_labels(item.instruction, task.pack.list_or)
    if not labels:
        return "no_labels_offered"
    return None if item.output.strip() in labels else "label_outside"


def _value(expression: str) -> Number:
    """The value of numbers and signs, as school has it: "3 × 60 + 1" → 181. Raises ValueError for what is none."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError("too long")
    if expression.isdecimal():
        return int(expression)
    try:
        if two := _TWO.fullmatch(expression):  # nearly all of them
            return _combined(int(two[1]), two[2].translate(_SIGNS), int(two[3]))
        plain = _LEADING_ZEROS.sub("", _PERCENT.sub(r"\1/100", expression.translate(_SIGNS)))
        return _folded(ast.parse(plain.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as error:
        raise ValueError(f"{expression!r} has no value") from error


def _combined(a: Number, sign: str, b: Number) -> Number:
    if sign == "/":
        return Fraction(a) / b
    return a + b if sign == "+" else a - b if sign == "-" else a * b


_NAMES: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def _folded(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Constant(value=float() as value):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_folded(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _NAMES:
            return _combined(_folded(left), _NAMES[type(op)], _folded(right))
    raise ValueError("no sum")


def _same(left: Number, right: Number, written: str) -> bool:
    """Equal, or equal once rounded to the decimal places that are written: 10 ÷ 3 = 3.33. A share is a per cent, too: both
    1 ÷ 4 = 25% and 1 ÷ 4 × 100 = 25%.
    """
    if left == right:
        return True
    if written.endswith("%"):
        return any(_same(one, right * 100, written[:-1].strip()) for one in (left, left * 100))
    places = len(written.partition(".")[2])
    return places > 0 and abs(Fraction(left - right)) * 2 * 10**places <= 1


def _read(plain: str) -> tuple[list[str], list[Number], bool] | None:
    """Sides, their values and whether they are equal; None for what is no equation, or may mean something else."""
    sides = [side.strip() for side in plain.strip(" \t=").rstrip(" \t(").split("=")]
    if len(sides) < 2 or not _OPERATOR.search(sides[0]) or ("%" in plain and _PERCENT_OF_WHAT.search(plain)):
        return None
    if sides[0].count("(") > sides[0].count(")"):  # the whole stands in brackets
        sides[0] = sides[0].removeprefix("(")
    if sides[-1].count(")") > sides[-1].count("("):
        sides[-1] = sides[-1].removesuffix(")").strip()
    try:
        values = [_value(side) for side in sides]
    except ValueError:  # nothing on a side, brackets that do not match, two numbers side by side, a division by nothing
        return None
    return sides, values, all(map(_same, values, values[1:], sides[1:]))


def _equation(line: str, start: int, end: int) -> tuple[list[Number], bool] | None:
    """What stands from start to end of a line, if it is sure to be an equation and not part of something else."""
    if line[start] != "=" and (_CUT_OFF.match(line, start) or (line[start] in "+-−–*/×÷" and line[:start].strip())):
        return None
    if _GOES_ON.match(line, end):
        return None
    read = _read(line[start:end])
    if (read is None or not read[2]) and (label := _LABEL.match(line, start)):
        without = _read(line[label.end() : end])
        read = without if without and (read is None or without[2]) else read
    if read is None:
        return None
    sides, values, right = read
    divided = not right and ("÷" in sides[-2] or "/" in sides[-2]) and values[-2] // 1 == values[-1]
    return None if divided and _REMAINDER.match(line, end) else (values, right)


@lru_cache(maxsize=8)  # of one item several checks ask
def _all_equations(text: str) -> tuple[list[tuple[list[Number], bool]], bool]:
    """The equations of a text, and whether every "=" in it belongs to one of them."""
    found, signs = [], 0
    for line in _plain(text).split("\n") if "=" in text else ():
        if "=" not in line:
            continue
        line = _CLOCK.sub("x", line) if ":" in line else line
        line = _BOLD.sub("", line) if "**" in line else line
        for run in _RUN.finditer(line):
            if "=" in run[0] and (equation := _equation(line, *run.span())):
                found.append(equation)
                signs += run[0].count("=")
    return found, signs == text.count("=")


def _plain(text: str) -> str:
    """Digits as 0-9, thousands and decimals marked as in English: "۱٬۲۰۰٫۵" → "1,200.5"."""
    text = fold_digits(text)
    return _THOUSANDS.sub(",", text).replace("٫", ".") if _FOREIGN_MARK.search(text) else text


def equations(text: str) -> list[tuple[list[Number], bool]]:
    """(values of its sides, whether it is right) of each equation of plain numbers: "3 + 4 = 8" → [([7, 8], False)].

    What has an unknown in it ("2x + 3 = 7"), units ("3 روپے × 2 = 6 روپے"), times of day or no value, is none: only what is surely
    a sum is found wrong.
    """
    return _all_equations(text)[0]


def recomputed(text: str) -> bool:
    """Whether the text has equations, and every "=" in it stands in one that was read."""
    return all(_all_equations(text))


def final_answer(item: Item, task: Task) -> str:
    """What comes after the answer's mark (its last), or "": "…\n**جواب:** 15 سیب" → "15 سیب"."""
    return after_mark(item.output, task)


def after_mark(text: str, task: Task) -> str:
    """final_answer of any text."""
    parts = _mark(task.pack.answer_mark).split(text)
    return parts[-1].strip(" \t\n*") if len(parts) > 1 else ""


@lru_cache
def _mark(mark: str) -> regex.Pattern[str]:
    """With or without a blank before the colon, in bold type or not."""
    return regex.compile(regex.escape(mark).replace(":", r"[ \t*]*:\**"))


def numbers(text: str) -> list[Fraction]:
    """The numbers in a text: "1,200 روپے، 1/2 کلو" → [1200, 1/2]."""
    return [Fraction(found.replace(",", "")) for found in _ALONE.findall(_plain(text)) if len(found) <= MAX_EXPRESSION]


def arithmetic(item: Item, task: Task) -> str | None:
    """Every equation is recomputed; a result that is one number must be a side of one of them, if all of them could be read."""
    found = equations(item.output)
    if not all(right for _, right in found):
        return "arithmetic_wrong"
    answer = final_answer(item, task)
    if not answer:
        return "answer_not_derived"
    if not recomputed(item.output) or len(result := numbers(answer)) != 1:
        return None
    reached = {value for values, _ in found for value in values[1:]}
    if "%" in item.output:
        reached |= {value * 100 for value in reached}
    return None if result[0] in reached else "answer_not_derived"


def choices(item: Item, task: Task) -> dict[str, str]:
    """The options of a question by letter: "… (الف) کراچی (ب) لاہور" → {"الف": "کراچی", "ب": "لاہور"}; {} if there are none,
    as where the letters number several questions.
    """
    text = f"{item.instruction}\n{item.input}"
    if text.count(")") < 2:
        return {}
    for letters in (task.pack.choice_letters, LATIN_LETTERS):
        parts = _option(letters).split(text)
        if len(parts) > 4:
            several = parts[2].rstrip().endswith(("؟", "?"))
            return {} if several else dict(zip(parts[1::2], (part.strip(" \n،,.۔؟?") for part in parts[2::2]), strict=True))
    return {}


@lru_cache
def _option(letters: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile(rf"\(?\b({'|'.join(map(regex.escape, letters))})\)")


@lru_cache
def _opening(letters: tuple[str, ...]) -> regex.Pattern[str]:
    own = "|".join(map(regex.escape, sorted(letters, key=len, reverse=True)))
    return regex.compile(rf"[\s*]*(?|\(?\s*({own}|\p{{L}})\s*\)|({own})\s*(?:$|[.:۔]))[\s*]*(.*)", regex.DOTALL)


def chosen(answer: str, offered: Mapping[str, str]) -> tuple[str, str]:
    """(letter, text) of an answer to a question with choices, either "" where it is not said: "(ب) لاہور" → ("ب", "لاہور"),
    "صحیح جواب ب ہے" → ("ب", "").
    """
    if found := _opening(tuple(offered)).match(answer):
        return found[1], found[2].strip()
    named = offered.keys() & set(_WORD.findall(answer))
    short = len(tokens(answer)) <= MAX_CHOICE_WORDS and not any(_means(answer, text) for text in offered.values())
    return (named.pop(), "") if short and len(named) == 1 else ("", answer.strip())


def choice(item: Item, task: Task) -> str | None:
    """The letter chosen is one of those offered, and the text beside it is not another letter's."""
    offered = choices(item, task)
    if not offered:
        return None
    answer = final_answer(item, task) or item.output
    letter, said = chosen(answer, offered)
    if not letter and (len(tokens(answer)) > MAX_CHOICE_WORDS or any(_means(said, text) for text in offered.values())):
        return None  # an explanation, or the option's text without its letter
    if letter not in offered:
        return "choice_outside"
    if not said or _means(said, offered[letter]):
        return None
    return "choice_mismatch" if any(_opens(said, text) for text in offered.values()) else None


def _words(text: str) -> list[str]:
    return tokens(text.replace("\u200c", " "))


def _means(said: str, text: str) -> bool:
    """One has all the words of the other, side by side: "12" and "12 سیب"."""
    short, long = sorted((_words(said), _words(text)), key=len)
    return bool(short) and any(long[n : n + len(short)] == short for n in range(len(long) - len(short) + 1))


def _opens(said: str, text: str) -> bool:
    """One begins with the other."""
    pairs = list(zip(_words(said), _words(text), strict=False))
    return bool(pairs) and all(one == other for one, other in pairs)


CHECKS: dict[str, Callable[[Item, Task], str | None]] = {"label": label, "arithmetic": arithmetic, "choice": choice}


def check_reason(item: Item, task: Task) -> str | None:
    """The first reason that the task's own local checks have against the item, or None."""
    for name in task.rules.checks:
        if name in CHECKS and (reason := CHECKS[name](item, task)) is not None:
            return reason
    return None


def check_scores(item: Item, task: Task) -> dict[str, float]:
    """1.0 for each local check that an item passed and that had something to look at: {"arithmetic": 1.0} where there are sums."""
    looked = {
        "label": True,
        "arithmetic": "arithmetic" in task.rules.checks and bool(equations(item.output)),
        "choice": "choice" in task.rules.checks and bool(choices(item, task)),
    }
    return {name: 1.0 for name in task.rules.checks if looked.get(name)}
