"""Which language a text is in, where its letters do not tell: Persian for Urdu, say. Not a judge of script (filters.py) or of
style, and of no use for short text.

lingua knows 75 languages by their letter n-grams and needs no file; it is asked to choose between a language and its neighbours
only. GlotLID knows 2,102, among them those of Pakistan that lingua takes for Urdu, and is a file of 1.7 GB.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from data_gen import UsageError
from data_gen.languages import ENGLISH, Pack

MIN_LETTERS = 20
MIN_CONFIDENCE = 0.9
_GLOTLID_ENGLISH = "eng_Latn"
_LABEL = "__label__"
_LETTER = regex.compile(r"[\p{L}\p{M}]")  # vowel signs too: half of what Hindi is written with


@dataclass(frozen=True)
class Identifier:
    """`classify` gives the likeliest language of one line of text and how sure it is, from 0 to 1; `languages` are the codes (as a
    pack has them) that it can name. Other languages it names in its own way.
    """

    classify: Callable[[str], tuple[str, float]]
    languages: frozenset[str]

    def top(self, text: str) -> tuple[str, float]:
        """top("این کتاب من است و من آن را دوست دارم") == ("fa", 0.76) by lingua; ("", 0.0) for text of fewer than 20 letters."""
        if len(_LETTER.findall(text)) < MIN_LETTERS:
            return "", 0.0
        return self.classify(" ".join(text.split()))


def wrong_language(text: str, language: str, identifier: Identifier | None, min_confidence: float = MIN_CONFIDENCE) -> bool:
    """Whether `text` is surely in another language than `language` (BCP-47).

    Never for text that is too short, without an identifier, or for a language it cannot name: Urdu in Latin letters (ur-Latn) and
    Urdu mixed with English are such.
    """
    if identifier is None or language not in identifier.languages:
        return False
    named, confidence = identifier.top(text)
    return bool(named) and named != language and confidence >= min_confidence


def load_identifier(pack: Pack, glotlid_model: str = "") -> Identifier | None:
    """By a GlotLID model file where one is given, else by lingua between `pack.lingua`, `pack.neighbours` and English; None for a
    language that lingua does not know.

    Loaded once a process. Raises UsageError for a file that is missing or no fastText model, a pack without GlotLID's label, a code
    that lingua does not have, and a library that is not installed.
    """
    if glotlid_model:
        return _glotlid(pack, glotlid_model)
    if not pack.lingua:
        return None
    classify = _lingua(tuple(sorted({pack.lingua, *pack.neighbours, ENGLISH})))
    own = {pack.lingua: pack.code}

    def named(text: str) -> tuple[str, float]:
        code, confidence = classify(text)
        return own.get(code, code), confidence

    return Identifier(named, frozenset({pack.code, ENGLISH}))


@lru_cache
def _lingua(codes: tuple[str, ...]) -> Callable[[str], tuple[str, float]]:
    try:
        from lingua import IsoCode639_1, LanguageDetectorBuilder
    except ImportError as error:
        raise UsageError("telling languages apart needs lingua: pip install '.[data]'") from error
    if unknown := [code for code in codes if not hasattr(IsoCode639_1, code.upper())]:
        raise UsageError(f"lingua has no language {unknown[0]!r}: give ISO 639-1 codes that it has, in `lingua` and `neighbours`")
    detector = LanguageDetectorBuilder.from_iso_codes_639_1(*(getattr(IsoCode639_1, code.upper()) for code in codes)).build()

    def classify(text: str) -> tuple[str, float]:
        first = detector.compute_language_confidence_values(text)[0]
        return first.language.iso_code_639_1.name.lower(), first.value

    return classify


def _glotlid(pack: Pack, path: str) -> Identifier:
    if not pack.glotlid:
        raise UsageError(f"the language pack of {pack.code} has no GlotLID label; give `glotlid`, as in urd_Arab, or no model file")
    model = _fasttext(path)
    own = {pack.glotlid: pack.code, _GLOTLID_ENGLISH: ENGLISH}

    def classify(text: str) -> tuple[str, float]:
        labels, chances = model.predict(text)
        label = labels[0].removeprefix(_LABEL) if labels else ""
        return own.get(label, label), float(chances[0]) if labels else 0.0

    return Identifier(classify, frozenset(own.values()))


@lru_cache
def _fasttext(path: str) -> Any:
    try:
        import fasttext
    except ImportError as error:
        raise UsageError(f"glotlid_model={path}: reading it needs fasttext-predict: pip install '.[glotlid]'") from error
    if not Path(path).is_file():
        raise UsageError(f"glotlid_model={path}: there is no such file; it is model.bin of the hub's cis-lmu/glotlid")
    try:
        return fasttext.load_model(path)
    except ValueError as error:
        raise UsageError(
            f"glotlid_model={path} is no fastText model ({error}); use model.bin of the hub's cis-lmu/glotlid"
        ) from error
