"""Which web documents are good enough: pure functions from a text to None (keep) or the reason for which it goes. They look at one
document alone and know nothing of files; ingest.py runs them over a corpus.

Whether there is another like it, and how many of its domain there are, is near_documents.py's matter. What changes a text (boiler
plate, cuts, masks) and what an address tells is in web_text.py, languages in language_id.py. A reason is a fixed name: it is
counted in the report and written to removed/.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import regex

from data_gen import UsageError
from data_gen.contamination import WORDS, contaminated
from data_gen.dedup import run_hashes
from data_gen.languages import Pack
from data_gen.text import script_share, tokens

REASONS = (
    "empty", "binary", "boiler_plate", "damaged", "wrong_script", "digits_and_symbols", "too_short", "too_long", "repeated_lines",
    "repeated_words", "wrong_language", "personal_data", "evaluation_data", "duplicate", "near_duplicate", "domain_cap",
    "news_share",
)  # fmt: skip
RUN = 5  # words; a run that comes again counts as repeated
MIN_LINES = 4  # of which some may be repeated
MAX_GLYPHS = 0.05  # of the letters
MIN_CONTROLS = 3  # control characters; one is a slip of an editor

# What files begin with: PDF, PNG, ZIP (and .docx), GIF, RTF, gzip, JPEG; the last two after a wrong decoding.
_MAGIC = ("%PDF-", "\x89PNG", "\ufffdPNG", "PK\x03\x04", "GIF8", "{\\rtf", "\x1f\x8b", "\x1f\ufffd", "\xff\xd8\xff")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_GLYPH = re.compile("[\ufb50-\ufdcf\ufe70-\ufefc]")
_LETTER = regex.compile(r"\p{L}")
_SIGN = regex.compile(r"[^\p{L}\p{M}\s\u200c\u200d]")
_ENCODED = re.compile(r"[A-Za-z0-9+/=_-]{100,}")  # base64 and the like; the longest word has fewer

# UTF-8 read as cp1252 or Latin-1: the first byte of a letter (C2–C5, D0, D1, D8–DB, E0–E2) and a byte from 80 to BF: "à¤¹à¤¿",
# "Ø§Ø±Ø¯Ùˆ", "Ã¤". Marks that may really stand after "à" or "Â" (quotation marks, dashes, an ellipsis) are not among the second.
_SECOND = "\x80-\x9fƒ†‡ˆ‰Š‹ŒŽ€™š›œžŸ¡¢£¤¥¦§¨©ª¬\xad®¯°±²³´µ¶·¸¹º¼½¾¿"
_TWICE = rf"(?:[ÂÃÄÅÐÑØÙÚÛàáâ][{_SECOND}][^\s\w]?)+"
# The same read as cp1256, Arabic: "ط§ط±ط¯ظˆ".
_TWICE_ARABIC = "(?<=[طظعغ])[€‚ƒ„…†‡ˆ‰‹Œ™›œ¢£¤¥¦§¨©¬\xad®¯°±²³´µ¶·¸¹¼½¾]"
# Replacement characters, private use, controls from 80 on, half surrogate pairs.
_NO_LETTER = "[\ufffd\ue000-\uf8ff\x80-\x9f\ud800-\udfff\U000f0000-\U0010fffd]+"
_MENDED = "#0?39|#160|#82[0-4][0-9]|nbsp|zwnj|amp|quot|apos|lt|gt"  # of blanks and marks, whose place shows what they are
_UNDECODED = rf"&(?!(?:{_MENDED});)#x?[0-9a-fA-F]{{2,6}};|\\u0[0-9a-fA-F]{{3}}|(?<!\S)\?{{4,}}"
_TAG = r"</?(?:html|head|body|div|span|p|br|a|li|[uo]l|t[dr]|table|img|h[1-6]|font|strong|script|style)(?:\s[^<>]{0,500})?/?>"
_DAMAGE = [re.compile(pattern) for pattern in (_NO_LETTER, _TWICE, _UNDECODED, _TAG)]  # apart: each by its first letters
REPAIRABLE = re.compile(rf"&(?:amp;)*({_MENDED});")  # which web_text.py writes as what they stand for
_QUESTION_MARKS = r"\?(?<=\p{Ll}\?)(?=\p{Ll}++(?![\w=&]))"  # "T?rkiye": letters that an encoding did not have
_VOWEL = r"\p{Indic_Syllabic_Category=Vowel_Dependent}"
_VIRAMA = r"\p{Indic_Syllabic_Category=Virama}"
# A sign needs a letter to stand on, and has no other sign of its kind beside it. ◌ shows a sign alone.
_INDIC = rf"(?<![\p{{L}}\p{{M}}\u200c\u200d\u25cc\u00a0])[{_VOWEL}{_VIRAMA}]|{_VOWEL}[{_VOWEL}{_VIRAMA}]|{_VIRAMA}{{2,}}"
_THAI = (
    r"(?<![ก-ฮ\u0e31-\u0e3a\u0e47-\u0e4e\u200c\u200d\u25cc\u00a0])[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]"
    r"|[\u0e31\u0e34-\u0e39]{2}|[\u0e48-\u0e4b]{2}"
)
_IMPOSSIBLE = {"Arabic": _TWICE_ARABIC, "Thai": _THAI, "Latin": _QUESTION_MARKS} | dict.fromkeys(
    ("Devanagari", "Bengali", "Tamil", "Telugu", "Gujarati", "Gurmukhi", "Kannada", "Malayalam", "Oriya"), _INDIC
)  # fmt: skip


@dataclass(kw_only=True)
class DocumentRules:
    """What a document must be. Lengths are in letters (characters), shares from 0 to 1."""

    min_letters: int = 200
    max_letters: int = 100_000
    cut_at: int = 0  # a longer document is cut at the last end of a sentence within; 0: none is
    whole_sentences: bool = True  # what comes after the last end of a sentence is cut off
    min_script_share: float = 0.8  # of the letters, in the language's script
    max_symbols: float = 0.2  # digits, marks and symbols among all that is not blank
    max_repeated_lines: float = 0.3  # of the lines, those that were there before
    max_repeated_runs: float = 0.2  # of the letters, those in runs of 5 words that were there before
    max_damage: float = 0.01  # of the words
    max_boiler_plate: float = 0.7  # of the letters of the page
    min_language_confidence: float = 0.9
    max_personal: int = 3  # different addresses and numbers of persons; so many are masked, with more the document goes
    domain_cap: int = 500  # documents of one domain; 0: as many as there are
    max_news_share: float = 1.0  # of the documents kept

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        shares = (
            "min_script_share", "max_symbols", "max_repeated_lines", "max_repeated_runs", "max_damage", "max_boiler_plate",
            "min_language_confidence", "max_news_share",
        )  # fmt: skip
        bounds: list[tuple[str, float, float]] = [
            ("max_letters", 1, float("inf")), ("min_letters", 0, self.max_letters), ("cut_at", 0, float("inf")),
            ("max_personal", 0, float("inf")), ("domain_cap", 0, float("inf")), *((name, 0, 1) for name in shares),
        ]  # fmt: skip
        for name, low, high in bounds:
            if not low <= (value := getattr(self, name)) <= high:
                raise UsageError(f"rules.{name} is {value}; it must be between {low} and {high}")
        if 0 < self.cut_at < self.min_letters:
            raise UsageError(
                f"rules.cut_at is {self.cut_at} and rules.min_letters {self.min_letters}: what is cut would be too short to keep. "
                "Give a higher cut_at (0: no document is cut), or a lower min_letters"
            )


def empty(text: str) -> str | None:
    """No letter of any script."""
    return None if _LETTER.search(text) else "empty"


def binary(text: str) -> str | None:
    """A file that is no text, read as text: it begins as a PDF or a picture does, or has control characters."""
    if text.lstrip("\ufeff \t\r\n").startswith(_MAGIC):
        return "binary"
    return "binary" if len(_CONTROL.findall(text)) >= max(MIN_CONTROLS, len(text) // 500) else None


def boiler_plate(before: str, after: str, rules: DocumentRules) -> str | None:
    """Too much of the page went with its menus, or only with them was it long enough: strip_boiler_plate made `after` of
    `before`.
    """
    if len(before) - len(after) > rules.max_boiler_plate * len(before):
        return "boiler_plate"
    return "boiler_plate" if len(after) < rules.min_letters <= len(before) else None


def glyphs(text: str) -> str | None:
    """"damaged" for text as read in which Arabic letters are glyphs (presentation forms), as out of a PDF and often back to front.
    A few are a quotation.

    A pack's normaliser makes letters of glyphs, and nobody can tell any more: ask before.
    """
    found = len(_GLYPH.findall(text))
    return "damaged" if found and found > MAX_GLYPHS * len(_LETTER.findall(text)) else None


def damaged(text: str, pack: Pack, rules: DocumentRules) -> str | None:
    """Letters lost or mistaken in too many words of a normalised text: replacement characters, letters of private fonts, UTF-8 that
    was decoded wrongly ("Ã¤Â"), tags of HTML, vowel signs where none can stand, and what the pack calls damage.
    """
    found = sum(len(pattern.findall(text)) for pattern in (*_DAMAGE, _impossible(pack.script), pack.web.damage))
    return "damaged" if found and found > rules.max_damage * count_words(text, pack) else None


@lru_cache
def _impossible(script: str) -> regex.Pattern[str]:
    return regex.compile(_IMPOSSIBLE.get(script, r"\ufffe"))


def count_words(text: str, pack: Pack) -> float:
    """How many words a text has, roughly: those between blanks, or where there are none, its tokens by the tokens of a word."""
    return len(text.split()) if pack.pieces_a_word == 1 else len(tokens(text)) / pack.pieces_a_word


def wrong_script(text: str, pack: Pack, rules: DocumentRules) -> str | None:
    """Too few of the letters are in the language's script."""
    return None if script_share(text, pack.script) >= rules.min_script_share else "wrong_script"


def digits_and_symbols(text: str, pack: Pack, rules: DocumentRules) -> str | None:
    """Tables, lists of prices, lines drawn with signs, encoded files."""
    written = len(text) - sum(map(text.count, " \n\t"))
    signs = len(_SIGN.findall(text)) + sum(map(len, _ENCODED.findall(text)))
    return "digits_and_symbols" if signs > rules.max_symbols * written else None


def length(text: str, pack: Pack, rules: DocumentRules) -> str | None:
    if len(text) < rules.min_letters:
        return "too_short"
    return "too_long" if len(text) > rules.max_letters else None


def repetition(text: str, pack: Pack, rules: DocumentRules) -> str | None:
    """Too many of the lines were there before ("repeated_lines"), or too many of the letters stand in runs of 5 words that were
    there before ("repeated_words").
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) >= MIN_LINES and len(lines) - len(set(lines)) > rules.max_repeated_lines * len(lines):
        return "repeated_lines"
    return "repeated_words" if repeated_runs(text, pack) > rules.max_repeated_runs else None


def repeated_runs(text: str, pack: Pack) -> float:
    """The share of the letters that are in a run of 5 words which was there before, from 0 to 1.

    A sentence of 5 words, twice: 0.5.
    """
    words, size = tokens(text), RUN * pack.pieces_a_word
    if len(words) <= size:
        return 0.0
    runs = run_hashes(words, size)[-1]
    again = np.ones(len(runs), bool)
    again[np.unique(runs, return_index=True)[1]] = False
    if not again.any():
        return 0.0
    change = np.zeros(len(words) + 1, np.int64)
    change[:-size] += again
    change[size:] -= again
    lengths = np.fromiter(map(len, words), np.int64, len(words))
    return float(lengths[np.cumsum(change)[:-1] > 0].sum() / lengths.sum())


def wrong_language(label: str, confidence: float, pack: Pack, rules: DocumentRules) -> str | None:
    """In another language than the pack's, or not surely in it: label and confidence are language_of's."""
    return None if label == pack.glotlid and confidence >= rules.min_language_confidence else "wrong_language"


def personal_data(count: int, rules: DocumentRules) -> str | None:
    """More different addresses and numbers than a page has by chance: `count` is mask_personal's."""
    return "personal_data" if count > rules.max_personal else None


def evaluation_data(text: str, ngrams: frozenset[int], pack: Pack) -> str | None:
    """13 words running in common with an evaluation file: `ngrams` are load_ngrams' of runs of 13 × pack.pieces_a_word."""
    return "evaluation_data" if contaminated(text, ngrams, WORDS * pack.pieces_a_word) else None
