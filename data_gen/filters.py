"""Filters: pure functions from an item to None (keep) or the reason for which it is rejected. They look at one item
alone.

Duplicates are dedup.py's matter. A reason is a fixed name: it is counted in the summary and written to rejected.jsonl.
"""

from collections.abc import Callable, Sequence

import regex

from data_gen.record import Item
from data_gen.urdu import script_share, tokens

Filter = Callable[[Item], str | None]

CLOSED_TASKS = ("classification", "sentiment")
SCRIPT_OF_LANGUAGE = {"ur": "Arabic", "en": "Latin"}
MIN_WORDS, MAX_WORDS = 3, 150  # of an instruction; Alif's script has the same upper bound
MAX_LETTERS = 20_000  # some 4,000 words
MIN_SCRIPT_SHARE = 0.7  # leaves room for names and terms such as Python in an Urdu answer
MIN_REPEAT_TOKENS, MAX_REPEATED_SHARE, MAX_SAME_WORD_RUN = 20, 0.5, 4

_INTO_URDU = regex.compile(r"اردو (زبان )?میں|اردو ترجمہ|(in|into|to) Urdu", regex.IGNORECASE)
_INTO_ENGLISH = regex.compile(r"(انگریزی|انگلش) (زبان )?میں|(انگریزی|انگلش) ترجمہ|(in|into|to) English", regex.IGNORECASE)
_BRACKETS = regex.compile(r"\(([^()]*)\)")
_LETTER_OR_QUOTE = regex.compile(r"""[\p{L}\p{N}"'«“‘(]""")
# Said by a chat model about itself; in no task is it an answer.
_BOILER_PLATE = regex.compile(
    r"as an ai\b|ai language model|(بطور|ایک) (ایک )?(اے آئی|مصنوعی ذہانت|زبان کا ماڈل|لینگویج ماڈل)"
    r"|میں ایک (زبان کا |لینگویج )?ماڈل ہوں",
    regex.IGNORECASE,
)
_REFUSAL = regex.compile(
    r"^(i['’]?m sorry|i am sorry|sorry,|i can(no|['’])t)"
    r"|^(معذرت|معاف کیجی|معاف کیجئ|افسوس)[^۔]{0,60}(نہیں کر سک|نہیں دے سک|قاصر)",
    regex.IGNORECASE,
)


def answer_language(item: Item) -> str:
    """The language in which the answer is wanted: a translation says it in its instruction, everything else is
    `item.language`.

    "اس جملے کا انگریزی میں ترجمہ کریں۔" → "en". Where the instruction names both directions or none, the answer's own
    script decides.
    """
    if item.task != "translation":
        return item.language
    urdu, english = bool(_INTO_URDU.search(item.instruction)), bool(_INTO_ENGLISH.search(item.instruction))
    if urdu != english:
        return "ur" if urdu else "en"
    return "ur" if script_share(item.output) >= 0.5 else "en"


def offered_labels(instruction: str) -> list[str]:
    """The labels that an instruction offers in its last round brackets: "... (مثبت، منفی)" → ["مثبت", "منفی"]; [] if
    none.
    """
    found = [inside for inside in _BRACKETS.findall(instruction) if "،" in inside]
    return [label.strip() for label in found[-1].split("،")] if found else []


def empty(item: Item) -> str | None:
    return "empty_output" if not item.output.strip() else None


def instruction_length(item: Item) -> str | None:
    words = len(tokens(item.instruction))
    if words < MIN_WORDS:
        return "instruction_too_short"
    return "instruction_too_long" if words > MAX_WORDS else None


def length(item: Item) -> str | None:
    """A text that no one meant, of a teacher that does not find an end. It would also stand in later prompts as an example."""
    if len(item.instruction) + len(item.input) > MAX_LETTERS:
        return "input_too_long"
    return "output_too_long" if len(item.output) > MAX_LETTERS else None


def leading_punctuation(item: Item) -> str | None:
    """An instruction opens with a letter, a digit or a quotation mark; anything else is a broken list or half a
    sentence.
    """
    return None if _LETTER_OR_QUOTE.match(item.instruction) else "leading_punctuation"


def copied(item: Item) -> str | None:
    answer = tokens(item.output)
    return "copied" if answer and answer in (tokens(item.instruction), tokens(item.input)) else None


def label(item: Item) -> str | None:
    """A closed task's answer is exactly one of the labels offered, with no full stop and no explanation."""
    if item.task not in CLOSED_TASKS:
        return None
    labels = offered_labels(item.instruction)
    if not labels:
        return "no_labels_offered"
    return None if item.output.strip() in labels else "label_outside"


def language(item: Item) -> str | None:
    share = script_share(item.output, SCRIPT_OF_LANGUAGE[item.language])
    return "wrong_language" if share < MIN_SCRIPT_SHARE else None


def refusal(item: Item) -> str | None:
    """Boiler-plate of a chat model anywhere, a refusal at the start; an ethics answer may begin by declining."""
    if _BOILER_PLATE.search(item.output):
        return "boiler_plate"
    return "refusal" if item.task != "ethics" and _REFUSAL.search(item.output) else None


def repeated(item: Item) -> str | None:
    """One word four times running, or (from 20 words on) more than half of the runs of four words seen before."""
    words = tokens(item.output)
    run = 1
    for previous, word in zip(words, words[1:], strict=False):
        run = run + 1 if word == previous else 1
        if run >= MAX_SAME_WORD_RUN:
            return "repeated_text"
    fours = [tuple(words[k : k + 4]) for k in range(len(words) - 3)]
    if len(words) >= MIN_REPEAT_TOKENS and len(set(fours)) < (1 - MAX_REPEATED_SHARE) * len(fours):
        return "repeated_text"
    return None


FILTERS: tuple[Filter, ...] = (
    empty, length, instruction_length, leading_punctuation, copied, label, language, refusal, repeated,
)  # fmt: skip


def reject_reason(item: Item, filters: Sequence[Filter] = FILTERS) -> str | None:
    """The first filter's reason against the item, or None: reject_reason(Item("generation", …, output="")) ==
    "empty_output".
    """
    for check in filters:
        if (reason := check(item)) is not None:
            return reason
    return None
