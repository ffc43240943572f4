"""Filters: pure functions from an item and its task to None (keep) or the reason for which it is rejected. They look at one item
alone.

Duplicates are dedup.py's matter, the rightness of an answer checks.py's. A reason is a fixed name: it is counted in the summary and
written to rejected.jsonl.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import regex

from data_gen.language_id import MAX_FOREIGN_WORDS, foreign_share
from data_gen.languages import ENGLISH
from data_gen.record import Item, answer_text
from data_gen.task import Task
from data_gen.text import fold_digits, script_share, tokens

Filter = Callable[[Item, Task], str | None]

REASONS = (
    "empty_output", "input_too_long", "output_too_long", "instruction_too_short", "instruction_too_long", "input_missing",
    "input_unwanted", "answer_too_short", "answer_too_long", "leading_punctuation", "copied", "wrong_language",
    "foreign_characters", "personal_data", "boiler_plate", "refusal", "repeated_text",
)  # fmt: skip
MIN_WORDS, MAX_WORDS = 3, 150  # of an instruction; Alif's script has the same upper bound
MAX_LETTERS = 20_000  # some 4,000 words
MAX_WORD_LETTERS = 100  # a hash in hexadecimal has 64
MIN_REPEAT_TOKENS, MAX_REPEATED_SHARE, MAX_SAME_WORD_RUN = 20, 0.5, 4

_LETTER_OR_QUOTE = regex.compile(r"""[\p{L}\p{N}"'«“‘(]""")
# Said by a chat model about itself; in no task is it an answer. A pack has the same in its language.
_BOILER_PLATE = regex.compile(
    r"\b(?:as|i am|i['’]m) an? (?:ai (?:language )?(?:model|assistant|chatbot)|(?:large )?language model|ai(?=[,،.۔]| i\b))",
    regex.IGNORECASE,
)
_REFUSAL = regex.compile(
    r"^(i['’]?m sorry|i am sorry|sorry|i apologi[sz]e)\b[^.]{0,60}(can(no|['’])t|unable|not able)[^.]{0,20}"
    r"\b(help|assist|provide|answer|fulfil|comply|write|create|generate|do that)"
    r"|^i (can(no|['’])t|am unable to) (help|assist|do|provide|write|answer)",
    regex.IGNORECASE,
)
_DIGITS = regex.compile(r"\D+")
# Pakistan's identity card 5-7-1 or 13 digits (books begin with 9, round sums end in 0000); telephones of Pakistan, and of India
# from abroad; e-mail; IBAN. Examples' own domains are nobody's.
_PERHAPS_PERSONAL = regex.compile(r"\d{4}|@|\+9")  # each of them has one of these
_PERSONAL = regex.compile(
    r"(?<!\d)\d{5}[- ]\d{7}[- ]\d(?!\d)|(?<![\d.,-])[1-8](?!\d*0000(?!\d))\d{12}(?!\d)"
    r"|(?<![\d.])03\d{2}(?:[ -]?\d){7}(?!\d)|(?<!\d)(?:\+|00)9[12](?:[ -]?\d){8,11}(?!\d)"
    r"|(?<![\d.,-])\(?0(?:\d{2}\)?[ -]\d{3,4}[ -]?\d{4}|\d{3}\)?[ -]\d{6})(?!\d)"
    r"|(?<![\w.+-])[\w.+-]{1,64}@(?!example\.)[\w-]+(?:\.[\w-]+)+"
    r"|\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"
)


def answer_language(item: Item, task: Task) -> str:
    """The language in which the answer is wanted: a translation says it in its instruction, everything else has its task's.

    "اس جملے کا انگریزی میں ترجمہ کریں۔" → "en". Where the instruction names both directions or none, the answer's own
    script decides.
    """
    if task.rules.balance != "language":
        return task.language
    pack = task.pack
    own, english = (bool(wanted.search(item.instruction)) for wanted in (pack.patterns.into, pack.patterns.into_english))
    if own == english:
        own = script_share(item.output, pack.script) >= 0.5
    return pack.code if own else ENGLISH


def empty(item: Item, task: Task) -> str | None:
    """No word and no number: "---" is no answer."""
    return None if tokens(item.output) else "empty_output"


def instruction_length(item: Item, task: Task) -> str | None:
    """The shortest ask something of their input: "خلاصہ لکھیں"."""
    words = len(tokens(item.instruction))
    if words < MIN_WORDS and words + len(tokens(item.input)) < MIN_WORDS:
        return "instruction_too_short"
    return "instruction_too_long" if words > MAX_WORDS else None


def input_wanted(item: Item, task: Task) -> str | None:
    """A text to work on stands in the input, and nowhere else is one wanted."""
    if task.rules.source == ENGLISH or task.rules.input == bool(item.input):
        return None
    return "input_missing" if task.rules.input else "input_unwanted"


def length(item: Item, task: Task) -> str | None:
    """A text that no one meant, of a teacher that does not find an end. It would also stand in later prompts as an example."""
    if len(item.instruction) + len(item.input) > MAX_LETTERS:
        return "input_too_long"
    return "output_too_long" if len(item.output) > MAX_LETTERS else None


def answer_length(item: Item, task: Task) -> str | None:
    """What the task bounds, in words."""
    low, high = task.rules.min_words, task.rules.max_words
    words = len(tokens(answer_text(item))) if low or high else 0
    if words < low:
        return "answer_too_short"
    return "answer_too_long" if high and words > high else None


def leading_punctuation(item: Item, task: Task) -> str | None:
    """An instruction opens with a letter, a digit or a quotation mark; anything else is a broken list or half a
    sentence.
    """
    return None if _LETTER_OR_QUOTE.match(item.instruction) else "leading_punctuation"


def copied(item: Item, task: Task) -> str | None:
    answer = tokens(item.output)
    return "copied" if answer and answer in (tokens(item.instruction), tokens(item.input)) else None


def language(item: Item, task: Task) -> str | None:
    """The share of the letters in the script of the answer's language, between the bounds of the pack."""
    variety = task.pack.varieties[item.language]
    share = script_share(answer_text(item), variety.script)
    if not variety.min_share <= share <= variety.max_share:
        return "wrong_language"
    return "wrong_language" if foreign_share(answer_text(item), task.pack.foreign_letters) > MAX_FOREIGN_WORDS else None


def foreign_characters(item: Item, task: Task) -> str | None:
    """A word that is partly in another script ("کتاbب"): a slip of the teacher's tokens."""
    mixed = _mixed_word(task.pack.varieties[item.language].script)
    return "foreign_characters" if mixed.search(answer_text(item)) else None


@lru_cache
def _mixed_word(script: str) -> regex.Pattern[str]:
    """A letter of the script beside one of another, marks and joiners apart."""
    own, other = rf"[\p{{L}}&&\p{{Script={script}}}]", rf"[\p{{L}}--\p{{Script={script}}}--\p{{Script=Common}}]"
    between = r"[\p{M}\u200c\u200d]*"
    return regex.compile(f"{own}{between}{other}|{other}{between}{own}", regex.V1)


def personal_data(item: Item, task: Task) -> str | None:
    """Numbers of identity cards, telephones and accounts, and addresses of e-mail: perhaps somebody's, if no helpline's."""
    text = f"{item.instruction}\n{item.input}\n{item.output}"
    if not _PERHAPS_PERSONAL.search(text):
        return None
    found = (_national(match[0]) for match in _PERSONAL.finditer(fold_digits(text)))
    return "personal_data" if set(found).difference(map(_national, task.pack.helplines)) else None


def _national(number: str) -> str:
    """The digits of a telephone number, without what stands for the country: "+92 311-7786264" → "3117786264"."""
    return _DIGITS.sub("", number).lstrip("0").removeprefix("92")


def refusal(item: Item, task: Task) -> str | None:
    """Boiler-plate of a chat model anywhere, a refusal at the start; in some tasks an answer may begin by declining, and a
    translation may say anything.
    """
    patterns = task.pack.patterns
    if _BOILER_PLATE.search(item.output) or patterns.boiler_plate.search(item.output):
        return "boiler_plate"
    if task.rules.may_decline or task.rules.balance == "language":
        return None
    return "refusal" if _REFUSAL.search(item.output) or patterns.refusal.search(item.output) else None


def repeated(item: Item, task: Task) -> str | None:
    """One word four times running or without an end, or (from 20 words on) more than half of the runs of four words seen
    before.
    """
    words = tokens(answer_text(item))
    if max(map(len, words), default=0) > MAX_WORD_LETTERS:
        return "repeated_text"
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
    empty, length, instruction_length, input_wanted, leading_punctuation, copied, answer_length, language, foreign_characters,
    personal_data, refusal, repeated,
)  # fmt: skip


def reject_reason(item: Item, task: Task, filters: Sequence[Filter] = FILTERS) -> str | None:
    """The first filter's reason against the item, or None. An item without an answer gives "empty_output"."""
    for check in filters:
        if (reason := check(item, task)) is not None:
            return reason
    return None
