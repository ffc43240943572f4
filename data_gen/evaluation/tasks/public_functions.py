"""What the YAML files of public test sets call: the rows of a set, whose columns others named, as the columns of its prompt.

A harness task's `process_docs` gets the rows of a split and gives those that are asked. Nothing is scored here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from data_gen import UsageError
from data_gen.checks import numbers

LETTERS = "ABCDEFGH"
MOST_WITHOUT_ANSWER = 0.01  # of a set; the authors of UrduMMLU left out 42 rows whose key names no option
_QUESTION = ("question", "Question", "question_urdu", "urdu_question", "prompt")
_OPTIONS = ("options", "choices", "Options", "Choices")
_KEY = ("correct_key", "answer", "answer_key", "correct_answer", "correct_option", "label", "Answer", "target")
_INSTRUCTION = ("instruction", "Instruction", "question", "prompt")
_INPUT = ("input", "Input", "context")
_OUTPUT = ("output", "Output", "response", "answer")
_CATEGORY = ("category", "Category", "task", "type")
_NUMBER = ("answer_number", "number", "answer", "answer_urdu", "target")
_NO_INPUT = ("", "<noinput>")


def process_choices(dataset: Iterable[Mapping[str, Any]]) -> Any:
    """Questions with two to eight options, however the options and the right one are written (see _options, _index).

    A row whose key names none of its options is left out, as long as they are few. Raises UsageError for rows of another form.
    """
    rows, without, count = list[dict[str, Any]](), list[int](), 0
    for count, row in enumerate(dataset, 1):
        options, key = _options(row, count), _first(row, _KEY, count, "the right answer")
        index = _index(key, options)
        if index is None:
            without.append(count)
            continue
        letters = list(LETTERS[: len(options)])
        subject = str(row.get("subdomain") or row.get("subject") or row.get("domain") or "")
        rows.append({
            "question": str(_first(row, _QUESTION, count, "the question")).strip(),
            "subject": subject.replace("_", " "),
            "letters": letters,
            "options": options,
            "listed": "\n".join(f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)),
            "answer": index,
            "category": str(row.get("domain") or subject),
            "level": str(row.get("level") or ""),
        })  # fmt: skip
    if len(without) > max(1, MOST_WITHOUT_ANSWER * count):
        raise UsageError(
            f"{len(without)} of {count} rows have a right answer that is none of their options (the first: row {without[0]}); "
            f"expected a letter from A, the index of an option from 0, or its text, in one of the columns {', '.join(_KEY)}"
        )
    return _dataset(rows)


def process_instructions(dataset: Iterable[Mapping[str, Any]]) -> Any:
    """Instructions with instruction, input, output and category, of which all but the first may be missing."""
    rows = []
    for number, row in enumerate(dataset, 1):
        said = str(_of(row, _INPUT) or "").strip()
        rows.append({
            "instruction": str(_first(row, _INSTRUCTION, number, "the instruction")).strip(),
            "input": "" if said in _NO_INPUT else said,
            "output": str(_of(row, _OUTPUT) or "").strip(),
            "category": str(_of(row, _CATEGORY) or "").strip(),
        })  # fmt: skip
    return _dataset(rows)


def process_sums(dataset: Iterable[Mapping[str, Any]]) -> Any:
    """Sums in words: question, and the number that is right, written with the digits 0 to 9."""
    rows = []
    for row_number, row in enumerate(dataset, 1):
        answer = str(_first(row, _NUMBER, row_number, "the right number"))
        found = numbers(answer)
        if not found:
            raise UsageError(f"row {row_number}: the right answer is {answer[:60]!r}, and expected was a text with a number")
        question = str(_first(row, _QUESTION, row_number, "the question")).strip()
        rows.append({"question": question, "number": str(found[-1])})
    return _dataset(rows)


def _dataset(rows: list[dict[str, Any]]) -> Any:
    import datasets

    return datasets.Dataset.from_list(rows)


def _of(row: Mapping[str, Any], columns: Iterable[str]) -> Any:
    """The first of `columns` that the row has and that is not empty."""
    return next((row[name] for name in columns if row.get(name) not in (None, "")), None)


def _first(row: Mapping[str, Any], columns: tuple[str, ...], number: int, what: str) -> Any:
    value = _of(row, columns)
    if value is None:
        raise UsageError(
            f"row {number} has the columns {', '.join(row)}; expected was {what} in a column {columns[0]} "
            f"(or {', '.join(columns[1:])}), and not empty"
        )
    return value


def _options(row: Mapping[str, Any], number: int) -> list[str]:
    """Texts by letter ({"A": …}), a list of texts, or columns of their own: option_a, optionA, A, option_0, option1 …"""
    value = _of(row, _OPTIONS)
    if isinstance(value, Mapping):
        found = [value[key] for key in sorted(value) if value[key] not in (None, "")]
    elif isinstance(value, list):
        found = [one for one in value if one not in (None, "")]
    else:
        named = (
            [row.get(form) for form in forms]
            for forms in (
                [f"option_{letter.lower()}" for letter in LETTERS],
                [f"option_{letter}" for letter in LETTERS],
                [f"option{letter}" for letter in LETTERS],
                list(LETTERS),
                [f"option_{place}" for place in range(len(LETTERS))],
                [f"option{place}" for place in range(1, len(LETTERS) + 1)],
            )
        )
        found = next((kept for values in named if (kept := [one for one in values if one not in (None, "")])), [])
    if not 2 <= len(found) <= len(LETTERS):
        raise UsageError(
            f"row {number} has the columns {', '.join(row)} and {len(found)} options; expected were 2 to {len(LETTERS)}, in "
            "a column `options` (texts by letter, or a list of texts) or in option_a, option_b, …"
        )
    return [str(one).strip() for one in found]


def _index(key: Any, options: list[str]) -> int | None:
    """Of the right option: from its letter, its text, or its index from 0; None where none is meant."""
    said = str(key).strip()
    letter = said.strip("().").upper()
    if len(letter) == 1 and letter in LETTERS[: len(options)]:
        return LETTERS.index(letter)
    if said in options and not isinstance(key, int):
        return options.index(said)
    return int(said) if said.isdecimal() and int(said) < len(options) else None
