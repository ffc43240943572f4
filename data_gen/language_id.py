"""Which language a text is in, where its letters do not tell: Persian for Urdu, say. Not a judge of script (filters.py) or of
style, and of no use for short text.

lingua knows 75 languages by their letter n-grams and needs no file; it is asked to choose between a language and its neighbours
only. GlotLID knows 2,102, among them those of Pakistan that lingua takes for Urdu, and is a file of 1.7 GB. For web text there is
a third witness: the pack's common words, which tell apart near languages that lingua does not know (Punjabi in Urdu's letters) or
mistakes for one another (Indonesian and Malay).

Items of instructions are named by codes (ur), documents by labels with their script (urd_Arab).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from data_gen import UsageError
from data_gen.languages import ENGLISH, Pack
from data_gen.text import tokens

MIN_LETTERS = 20
MIN_CONFIDENCE = 0.9
FIRST = 300  # letters of a document that are looked at; more make lingua slower, and surer only of what it is sure of
SURE, MORE = 0.95, 4  # a text of which lingua is less sure is looked at again, so many times as long
FEWEST = 3  # common words that outweigh what lingua says; two do if it named a language that has none there
CLEAR = 0.6  # share of the common words from which they confirm what lingua says; below it the text is mixed
EACH = 40  # words, of which one at least is in a language's own list
UNSURE = 0.5  # how sure a language is at most where a text has too few of its words, or another language at its end
SHARED = "shared"  # instead of a label: everyday words that a language shares with some of those listed
MAX_FOREIGN_WORDS = 0.1  # a name or a title may be in the neighbour's letters
UNKNOWN = "und"  # a language that is none of those asked about
_GLOTLID_ENGLISH = "eng_Latn"
_LABEL = "__label__"
# What lingua knows: ISO 639-1 codes, and the labels of GlotLID for them.
LABELS = dict(
    pair.split(":") for pair in (
        "af:afr_Latn ar:arb_Arab az:azj_Latn be:bel_Cyrl bg:bul_Cyrl bn:ben_Beng bs:bos_Latn ca:cat_Latn cs:ces_Latn cy:cym_Latn "
        "da:dan_Latn de:deu_Latn el:ell_Grek en:eng_Latn eo:epo_Latn es:spa_Latn et:ekk_Latn eu:eus_Latn fa:pes_Arab fi:fin_Latn "
        "fr:fra_Latn ga:gle_Latn gu:guj_Gujr he:heb_Hebr hi:hin_Deva hr:hrv_Latn hu:hun_Latn hy:hye_Armn id:ind_Latn is:isl_Latn "
        "it:ita_Latn ja:jpn_Jpan ka:kat_Geor kk:kaz_Cyrl ko:kor_Hang la:lat_Latn lg:lug_Latn lt:lit_Latn lv:lvs_Latn mi:mri_Latn "
        "mk:mkd_Cyrl mn:khk_Cyrl mr:mar_Deva ms:zsm_Latn nb:nob_Latn nl:nld_Latn nn:nno_Latn pa:pan_Guru pl:pol_Latn pt:por_Latn "
        "ro:ron_Latn ru:rus_Cyrl sk:slk_Latn sl:slv_Latn sn:sna_Latn so:som_Latn sq:als_Latn sr:srp_Cyrl st:sot_Latn sv:swe_Latn "
        "sw:swh_Latn ta:tam_Taml te:tel_Telu th:tha_Thai tl:tgl_Latn tn:tsn_Latn tr:tur_Latn ts:tso_Latn uk:ukr_Cyrl ur:urd_Arab "
        "vi:vie_Latn xh:xho_Latn yo:yor_Latn zh:cmn_Hani zu:zul_Latn"
    ).split()
)  # fmt: skip
_LETTER = regex.compile(r"[\p{L}\p{M}]")  # vowel signs too: half of what Hindi is written with


@dataclass(frozen=True)
class Identifier:
    """`classify` gives the likeliest language of one line of text and how sure it is, from 0 to 1; `languages` are the codes (as a
    pack has them; of load_labeller labels) that it can name. Other languages it names in its own way. `near`: it tells near
    languages apart better than a pack's common words do.
    """

    classify: Callable[[str], tuple[str, float]]
    languages: frozenset[str]
    near: bool = False

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


def load_labeller(pack: Pack, glotlid_model: str = "") -> Identifier:
    """For documents: names languages by labels with their script. By a GlotLID model file where one is given, else by lingua, which
    names nothing for a pack without a code or a neighbour that lingua has.

    Loaded once a process. Raises UsageError as load_identifier.
    """
    if glotlid_model:
        classify = _glotlid(pack, glotlid_model).classify
        own = {pack.code: pack.glotlid, ENGLISH: _GLOTLID_ENGLISH}
    else:
        codes = {code for code in (pack.lingua, *pack.neighbours, ENGLISH) if code}
        classify = _lingua(tuple(sorted(codes))) if len(codes) > 1 else _nothing
        own = LABELS | ({pack.lingua: pack.glotlid} if pack.lingua else {})

    def named(text: str) -> tuple[str, float]:
        code, confidence = classify(text)
        return own.get(code, code), confidence

    return Identifier(named, frozenset({pack.glotlid, _GLOTLID_ENGLISH}), near=bool(glotlid_model))


def _nothing(text: str) -> tuple[str, float]:
    return "", 0.0


def language_of(text: str, pack: Pack, identifier: Identifier) -> tuple[str, float]:
    """(label, confidence from 0 to 1) of a document, by load_labeller's identifier and the pack's common words.

    The identifier reads the first 300 letters, and 1,200 if it is not sure of these. Where the pack lists common words for what it
    names (or it names nothing), those of the whole text are counted. The language that has most of them, two or three at least,
    is the language, and it is as sure as they are many beside the next one's; where both name the same, it is wrong only if both
    are, unless the words are so mixed that they lower what lingua says. The pack's language is unsure where fewer than one word in
    40 is in its own lists, though others are listed (Zazaki is no Turkish), and, in Latin letters, where the last 300 letters of
    600 are surely in a language without a list (a Turkish heading on English). ("und", 0) where too many words have letters that
    the language does not write; ("", 0) for fewer than 20 letters.

    language_of("ایہہ کتاب میری اے تے میں اوہنوں روز پڑھدا ہاں …", urdu, identifier)[0] == "pnb_Arab"; lingua says "urd_Arab".
    """
    named, confidence = identifier.top(text[:FIRST])
    if confidence < SURE and len(text) > FIRST:
        named, confidence = identifier.top(text[: MORE * FIRST])
    if not identifier.near and (not named or named in pack.common_words):
        named, confidence = _by_words(text, pack, named, confidence)
    if named != pack.glotlid:
        return named, confidence
    if foreign_share(text, pack.foreign_letters) > MAX_FOREIGN_WORDS:
        return UNKNOWN, 0.0
    return named, min(confidence, UNSURE) if _ends_in_another(text, pack, identifier) else confidence


def _ends_in_another(text: str, pack: Pack, identifier: Identifier) -> bool:
    """Whether a text ends in a language that neither its script nor the common words tell from the pack's."""
    if pack.script != "Latin" or len(text) <= 2 * FIRST:
        return False
    named, confidence = identifier.top(text[-FIRST:])
    return confidence >= SURE and named != pack.glotlid and named not in pack.common_words


def _by_words(text: str, pack: Pack, named: str, confidence: float) -> tuple[str, float]:
    """What is named, confirmed or corrected by the counts of common words."""
    counts = common_word_counts(text, pack)
    own = counts.pop(SHARED, 0) + counts[pack.glotlid]
    ranked = sorted(counts.items(), key=lambda found: (-found[1], found[0] != named))
    (best, most), (_, second) = [*ranked, ("", 0), ("", 0)][:2]
    share = (most + 0.5) / (most + second + 1)  # of 2 words alone 0.83, of 4 alone 0.9; of one beside one 0.5
    if best != named and most >= (FEWEST if counts[named] else FEWEST - 1):
        return best, share
    if named == pack.glotlid and len(pack.common_words) > 1 and own < len(tokens(text)) // (EACH * pack.pieces_a_word):
        return named, min(confidence, UNSURE)
    if not counts or best != named:
        return named, confidence
    return named, 1 - (1 - confidence) * (1 - share) if share >= CLEAR else min(confidence, share)


def common_word_counts(text: str, pack: Pack) -> Counter[str]:
    """How many words of each label's list a text has: {"urd_Arab": 31, "arb_Arab": 1}."""
    if pack.pieces_a_word > 1:  # no word is a token there
        return Counter({label: sum(map(text.count, words)) for label, words in pack.common_words.items()})
    label_of = _label_of(tuple(pack.common_words.items()))
    found = Counter(map(label_of.get, tokens(text)))
    return Counter({label: count for label, count in found.items() if label})


@lru_cache
def _label_of(lists: tuple[tuple[str, tuple[str, ...]], ...]) -> Mapping[str, str]:
    """Label by word, as data_gen.text.tokens spells it; a word that is spelt alike in two lists then is in none."""
    spelt = [(tokens(word), label) for label, words in lists for word in words]
    labels: dict[str, set[str]] = {}
    for word, label in spelt:
        if len(word) == 1:
            labels.setdefault(word[0], set()).add(label)
    return {word: several.pop() for word, several in labels.items() if len(several) == 1}


def foreign_share(text: str, letters: str) -> float:
    """The share of the words that have one of some letters, from 0 to 1: foreign_share("ڪتاب اور قلم", "ڪ") == 1/3."""
    foreign = frozenset(letters)
    if foreign.isdisjoint(text):
        return 0.0
    words = text.split()
    return sum(not foreign.isdisjoint(word) for word in words) / len(words)


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
