"""Functions on text that know no language: words for comparison, share of a script, and what a pack's normaliser is made of.

Normalising changes letters that *look* the same but are other code points (Arabic ي ك ه typed for Urdu ی ک ہ), so that
equal words are equal strings. Which letters those are, a language's pack says (data_gen/languages). It is a table plus NFC, not
NFKC on the whole text: NFKC turns the one character ﷺ into four words. shipped.py is the prose that lies in this folder.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache

import regex

# For comparing only, whatever the language: Arabic look-alikes are one letter.
_ALIKE = {
    "ي": "ی", "ى": "ی", "ك": "ک", "ڪ": "ک", "ه": "ہ", "ە": "ہ", "ة": "ۃ", "ۀ": "ۂ",
}  # fmt: skip
_SPACES = {"\u00a0": " ", "\u2007": " ", "\u202f": " ", "\u2028": "\n", "\u2029": "\n\n"}
# Byte order mark, zero-width space, word joiner, soft hyphen, and the marks and overrides of writing direction.
# ZWNJ (U+200C) and ZWJ (U+200D) stay: they are part of the spelling.
_INVISIBLE = dict.fromkeys("\ufeff\u200b\u2060\u00ad\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", "")
# Optional in writing, and left out for comparison: vowel signs and Quranic marks, tatweel, ZWNJ and ZWJ.
OPTIONAL_MARKS = re.compile(r"[\u0610-\u061A\u064B-\u065F\u0670\u06D6-\u06DC\u06DF-\u06E8\u06EA-\u06ED\u0640\u200C\u200D]")
_DIGIT = regex.compile(r"[\p{Nd}--[0-9]]", regex.V1)
# Scripts that set no blanks between words: each letter with its marks is a token.
_NO_BLANKS = r"[\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Han}\p{Hiragana}\p{Katakana}]"
# Whether a text may have one: the blocks they are in, which `re` finds four times as fast.
_PERHAPS_ALONE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u19e0-\u19ff\u2e80-\u31ff\u3400-\u9fff\ua9e0-\ua9ff\uaa60-\uaa7f\uf900-\ufaff"
    "\uff66-\uff9f\U0001aff0-\U0001b16f\U00020000-\U0003ffff]"
)
# \p{M} keeps vowel signs of other scripts inside their word (Hindi अनुवाद is one token); Python's \w+ would cut there.
_TOKEN = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LETTER_OR_TOKEN = regex.compile(rf"[\p{{L}}&&{_NO_BLANKS}]\p{{M}}*|[\p{{L}}\p{{M}}\p{{N}}--{_NO_BLANKS}]+", regex.V1)


def _presentation_forms(letters: Mapping[str, str]) -> dict[str, str]:
    """Glyph code points of old encodings (ﯽ ﮐ ﻻ) → their letters; the word signs from U+FDF0 on (ﷲ ﷺ ﷽) stay."""
    forms = [*range(0xFB50, 0xFDF0), *range(0xFE70, 0xFEFD)]
    folded = {chr(c): unicodedata.normalize("NFKC", chr(c)).replace(" ", "") for c in forms}
    return {c: "".join(letters.get(x, x) for x in plain) for c, plain in folded.items() if plain != c}


def normaliser(letters: Mapping[str, str]) -> Callable[[str], str]:
    """A function that puts text in order: the language's letters for their look-alikes, one kind of blank and line end, invisible
    characters and trailing blanks gone, NFC.

    `letters` maps look-alikes to what the language writes; a key of several characters is replaced last.
    normaliser({"ك": "ک"})("\\u0643 ") == "ک". Twice is the same as once.
    """
    single = {key: value for key, value in letters.items() if len(key) == 1}
    several = {key: value for key, value in letters.items() if len(key) > 1}
    table = {ord(c): s for c, s in (_presentation_forms(single) | single | _SPACES | _INVISIBLE).items()}
    # To look whether the table has anything to do: forty times as fast as str.translate on text that is in order.
    in_table = re.compile("[" + "".join(re.escape(chr(code)) for code in table) + "]")

    def normalise(text: str) -> str:
        text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
        if in_table.search(text):
            text = unicodedata.normalize("NFC", text.translate(table))
        for key, value in several.items():
            text = text.replace(key, value)
        return "\n".join(map(str.rstrip, text.split("\n"))).strip()

    return normalise


_alike = normaliser(_ALIKE)


def fold_digits(text: str) -> str:
    """Digits of any script as 0-9: fold_digits("۱۲ ٣") == "12 3"."""
    return _DIGIT.sub(lambda digit: str(unicodedata.digit(digit[0])), text) if _DIGIT.search(text) else text


def tokens(text: str) -> list[str]:
    """Words for comparing two texts: tokens("اُردُو، Python ۳!") == ["اردو", "python", "3"].

    Of a script without blanks between words, its letters with their marks: tokens("ที่นี่") == ["ที่", "นี่"].
    """
    return list(_tokens(text))


@lru_cache(maxsize=64)  # several filters look at the same item
def _tokens(text: str) -> tuple[str, ...]:
    folded = _alike(text)
    if OPTIONAL_MARKS.search(folded):
        folded = OPTIONAL_MARKS.sub("", folded)
    token = _LETTER_OR_TOKEN if _PERHAPS_ALONE.search(folded) else _TOKEN
    return tuple(token.findall(fold_digits(folded).casefold()))


@lru_cache
def _other_letter(script: str) -> regex.Pattern[str]:
    return regex.compile(rf"[\p{{L}}--\p{{Script={script}}}]", regex.V1)


def script_share(text: str, script: str = "Arabic") -> float:
    """Share of the letters that belong to `script`, a Unicode script name such as "Arabic" or "Latin", from 0 to 1.

    script_share("میں Python") == 3/9. A text without letters, such as "۲۴", gives 1: nothing in it is in a wrong
    script.
    """
    letters = sum(map(str.isalpha, text))
    return (letters - len(_other_letter(script).findall(text))) / letters if letters else 1.0  # others are few, as a rule
