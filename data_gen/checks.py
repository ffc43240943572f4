"""Checks of an answer that need nobody's opinion: labels, sums, choices. Pure functions from an item and its task to None or the
reason. Which task has which stands in its task.toml; what must be asked of a teacher is in judging.py.
"""

import ast
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import regex

from data_gen.record import Item
from data_gen.task import Task
from data_gen.text import fold_digits, tokens

REASONS = ("no_labels_offered", "label_outside", "arithmetic_wrong", "answer_not_derived", "choice_outside", "choice_mismatch")
MAX_CHOICE_WORDS = 15  # of an answer that is a choice and nothing else
LATIN_LETTERS = ("A", "B", "C", "D", "E")
_BRACKETS = regex.compile(r"\(([^()]*)\)")
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_RUN = regex.compile(r"[\d.,()%+\-*/×÷−= \t]+")  # what an equation of plain numbers is made of
_OPERATOR = regex.compile(r"[+*/×÷=^]|[-−]\s")
_ALONE = regex.compile(rf"(?<![\d.])-?{_NUMBER}(?![\d])")
_PERCENT, _LEADING_ZEROS = regex.compile(r"(\d)\s*%"), regex.compile(r"(?<![\d.])0+(?=\d)")
_SIGNS = str.maketrans({"×": "*", "÷": "/", "−": "-", ",": None})
MAX_EXPRESSION = 200  # letters


def offered_labels(instruction: str, comma: str = "،") -> list[str]:
    """The labels that an instruction offers in its last round brackets: "... (مثبت، منفی)" → ["مثبت", "منفی"]; [] if
    none.
    """
    found = [inside for inside in _BRACKETS.findall(instruction) if comma in inside]
    return [label.strip() for label in found[-1].split(comma)] if found else []


def label(item: Item, task: Task) -> str | None:
    """The answer is exactly one of the labels offered, with no full stop and no explanation."""
    labels = offered_labels(item.instruction, task.pack.list_comma)
    if not labels:
        return "no_labels_offered"
    return None if item.output.strip() in labels else "label_outside"


def _value(expression: str) -> Fraction:
    """The value of numbers and signs, as school has it: "3 × 60 + 1" → 181. Raises ValueError for what is none."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError("too long")
    plain = _LEADING_ZEROS.sub("", _PERCENT.sub(r"\1/100", expression.translate(_SIGNS)))
    try:
        return _folded(ast.parse(plain.strip(), mode="eval").body, plain.strip())
    except (SyntaxError, ZeroDivisionError) as error:
        raise ValueError(f"{expression!r} has no value") from error


def _folded(node: ast.expr, text: str) -> Fraction:
    match node:
        case ast.Constant():
            return Fraction(ast.get_source_segment(text, node) or "")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_folded(operand, text)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _folded(left, text), _folded(right, text)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.Div():
                    return a / b
    raise ValueError(f"{text!r} is no sum")


def _same(left: Fraction, right: Fraction, written: str) -> bool:
    """Equal, or equal once rounded to the decimal places that are written: 10 ÷ 3 = 3.33."""
    places = len(written.partition(".")[2].strip(" )"))
    return left == right or (places > 0 and abs(left - right) * 2 * 10**places <= 1)


def equations(text: str) -> list[tuple[list[str], bool]]:
    """(its sides, whether it is right) of each equation of plain numbers: "3 + 4 = 8" → [(["3 + 4", "8"], False)].

    What has an unknown in it ("2x + 3 = 7"), or no value, is none.
    """
    found = []
    for line in fold_digits(text).split("\n") if "=" in text else ():
        for run in _RUN.finditer(line):
            plain = run[0].strip(" \t.,")
            if "=" not in plain or _OPERATOR.match(plain) or line[run.end() : run.end() + 1].isalpha() and run[0][-1].isdigit():
                continue
            sides = [side.strip() for side in plain.split("=")]
            try:
                values = [_value(side) for side in sides]
            except ValueError:
                continue  # no value: nothing on a side, brackets that do not match, a division by nothing
            right = all(_same(a, b, side) for a, b, side in zip(values, values[1:], sides[1:], strict=False))
            found.append((sides, right))
    return found


def final_answer(item: Item, task: Task) -> str:
    """What comes after the answer's mark (its last), or "": "…\nجواب: 15 سیب" → "15 سیب"."""
    _, mark, answer = item.output.rpartition(task.pack.answer_mark)
    return answer.strip() if mark else ""


def numbers(text: str) -> list[Fraction]:
    """The numbers in a text: "1,200 روپے" → [1200]."""
    return [Fraction(found.translate(_SIGNS)) for found in _ALONE.findall(fold_digits(text))]


def arithmetic(item: Item, task: Task) -> str | None:
    """Every equation is recomputed; a result that is one number must be a side of one of them."""
    found = equations(item.output)
    if not all(right for _, right in found):
        return "arithmetic_wrong"
    answer = final_answer(item, task)
    if not answer:
        return "answer_not_derived"
    result = numbers(answer)
    if not found or len(result) != 1:
        return None
    reached = {value for sides, _ in found for side in sides[1:] for value in numbers(side)}
    return None if result[0] in reached else "answer_not_derived"


def choices(item: Item, task: Task) -> dict[str, str]:
    """The options of a question by letter: "… (الف) کراچی (ب) لاہور" → {"الف": "کراچی", "ب": "لاہور"}; {} if there are none."""
    text = f"{item.instruction}\n{item.input}"
    if text.count(")") < 2:
        return {}
    for letters in (task.pack.choice_letters, LATIN_LETTERS):
        parts = _option(letters).split(text)
        if len(parts) > 4:
            return dict(zip(parts[1::2], (part.strip(" \n،,.۔؟?") for part in parts[2::2]), strict=True))
    return {}


@lru_cache
def _option(letters: tuple[str, ...]) -> regex.Pattern[str]:
    return regex.compile(rf"\(?\b({'|'.join(map(regex.escape, letters))})\)")


def chosen(answer: str, offered: dict[str, str]) -> tuple[str, str]:
    """(letter, text) of an answer to a question with choices, either "" where it is not said: "(ب) لاہور" → ("ب", "لاہور")."""
    letters = "|".join(map(regex.escape, sorted(offered, key=len, reverse=True)))
    found = regex.match(rf"\s*(?|\(?\s*(\p{{L}}{{1,4}})\s*\)|({letters})\s*(?:$|[.:۔]))\s*(.*)", answer, regex.DOTALL)
    return (found[1], found[2].strip()) if found else ("", answer.strip())


def choice(item: Item, task: Task) -> str | None:
    """The letter chosen is one of those offered, and its text is that letter's."""
    offered = choices(item, task)
    if not offered:
        return None
    answer = final_answer(item, task) or item.output
    letter, said = chosen(answer, offered)
    if not letter and (len(tokens(answer)) > MAX_CHOICE_WORDS or any(_means(said, text) for text in offered.values())):
        return None  # an explanation, or the option's text without its letter
    if letter not in offered:
        return "choice_outside"
    return None if not said or _means(said, offered[letter]) else "choice_mismatch"


def _means(said: str, text: str) -> bool:
    """One has all the words of the other, side by side: "12" and "12 سیب"."""
    short, long = sorted((tokens(said), tokens(text)), key=len)
    return bool(short) and any(long[n : n + len(short)] == short for n in range(len(long) - len(short) + 1))


CHECKS: dict[str, Callable[[Item, Task], str | None]] = {"label": label, "arithmetic": arithmetic, "choice": choice}


def check_reason(item: Item, task: Task) -> str | None:
    """The first reason that the task's own local checks have against the item, or None."""
    for name in task.rules.checks:
        if name in CHECKS and (reason := CHECKS[name](item, task)) is not None:
            return reason
    return None
