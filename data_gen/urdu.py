"""Urdu text functions: normalise, tokenise for comparison, script share. No language identification, no filtering.

Normalising changes letters that *look* the same but are other code points (Arabic ي ك ه typed for Urdu ی ک ہ), so that
equal words are equal strings. It is an own table plus NFC, not NFKC on the whole text: NFKC turns the one character ﷺ
into four words.
"""

import re
import unicodedata
from functools import lru_cache

import regex

# Arabic (and other) letters → the letters of Urdu.
_LETTERS = {
    "ي": "ی", "ى": "ی", "ك": "ک", "ڪ": "ک", "ه": "ہ", "ە": "ہ", "ة": "ۃ", "ۀ": "ۂ",
}  # fmt: skip
_DIGITS = {chr(0x660 + d): chr(0x6F0 + d) for d in range(10)}  # ٤٥٦ → ۴۵۶
_SPACES = {"\u00a0": " ", "\u2007": " ", "\u202f": " ", "\u2028": "\n", "\u2029": "\n\n"}
# Byte order mark, zero-width space, word joiner, soft hyphen, and the marks and overrides of writing direction.
# ZWNJ (U+200C) and ZWJ (U+200D) stay: they are part of the spelling.
_INVISIBLE = dict.fromkeys("\ufeff\u200b\u2060\u00ad\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", "")


def _presentation_forms() -> dict[str, str]:
    """Glyph code points of old encodings (ﯽ ﮐ ﻻ) → their letters; the word signs from U+FDF0 on (ﷲ ﷺ ﷽) stay."""
    forms = [*range(0xFB50, 0xFDF0), *range(0xFE70, 0xFEFD)]
    folded = {chr(c): unicodedata.normalize("NFKC", chr(c)).replace(" ", "") for c in forms}
    return {c: "".join(_LETTERS.get(x, x) for x in letters) for c, letters in folded.items() if letters != c}


_TABLE = {ord(c): s for c, s in (_presentation_forms() | _LETTERS | _DIGITS | _SPACES | _INVISIBLE).items()}

# For comparison only: vowel signs and Quranic marks, tatweel, ZWNJ and ZWJ go; digits become ASCII.
_MARKS = re.compile(r"[\u0610-\u061A\u064B-\u065F\u0670\u06D6-\u06DC\u06DF-\u06E8\u06EA-\u06ED\u0640\u200C\u200D]")
_FOLD_DIGITS = {0x6F0 + d: str(d) for d in range(10)}
# \p{M} keeps vowel signs of other scripts inside their word (Hindi अनुवाद is one token); Python's \w+ would cut there.
_TOKEN = regex.compile(r"[\p{L}\p{M}\p{N}]+")
_LETTERS_RUN = regex.compile(r"\p{L}+")
_SCRIPT_RUN = {name: regex.compile(rf"[\p{{L}}&&\p{{Script={name}}}]+", regex.V1) for name in ("Arabic", "Latin")}


def _any_of(table: dict[int, str]) -> re.Pattern[str]:
    """To look whether a table has anything to do: forty times as fast as str.translate on text that is in order."""
    return re.compile("[" + "".join(re.escape(chr(code)) for code in table) + "]")


_IN_TABLE, _URDU_DIGIT = _any_of(_TABLE), _any_of(_FOLD_DIGITS)


def normalise(text: str) -> str:
    """Urdu letters and digits for their look-alikes, invisible characters and trailing blanks gone, NFC.

    normalise("\\u064a\\u0647 \\u0643\\u062a\\u0627\\u0628") == "یہ کتاب". Not for Arabic text: its letters would become
    Urdu's.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    if _IN_TABLE.search(text):
        text = unicodedata.normalize("NFC", text.translate(_TABLE))
    # Unicode has no composition of Farsi yeh and hamza above; Urdu writes it with U+0626.
    text = text.replace("\u06cc\u0654", "\u0626")
    return "\n".join(map(str.rstrip, text.split("\n"))).strip()


def tokens(text: str) -> list[str]:
    """Words for comparing two texts: tokens("اُردُو، Python ۳!") == ["اردو", "python", "3"]."""
    return list(_tokens(text))


@lru_cache(maxsize=64)  # several filters look at the same item
def _tokens(text: str) -> tuple[str, ...]:
    folded = normalise(text)
    if _MARKS.search(folded):
        folded = _MARKS.sub("", folded)
    if _URDU_DIGIT.search(folded):
        folded = folded.translate(_FOLD_DIGITS)
    return tuple(_TOKEN.findall(folded.casefold()))


def script_share(text: str, script: str = "Arabic") -> float:
    """Share of the letters that belong to `script` ("Arabic", which Urdu is written in, or "Latin"), from 0 to 1.

    script_share("میں Python") == 3/9. A text without letters, such as "۲۴", gives 1: nothing in it is in a wrong
    script.
    """
    letters = sum(map(len, _LETTERS_RUN.findall(text)))
    return sum(map(len, _SCRIPT_RUN[script].findall(text))) / letters if letters else 1.0
