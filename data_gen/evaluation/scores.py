"""Scores of what a model generated: of each answer (is it the one expected, in the right language, has it an end …) and of all
answers of a task together (chrF++, BLEU). Not of choices and losses, which the harness scores, and nobody's opinion (judge.py).

What is asked for has the names of SCORES, what comes out those of METRICS. Compared are texts as `normalised` has them: an Arabic
ي for ی is no error of a model's Urdu. chrF++ and BLEU are given of the text as it was written, too.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import regex

from data_gen import UsageError
from data_gen.checks import numbers
from data_gen.evaluation.results import HIGHER, LOWER, NEITHER, Score
from data_gen.evaluation.statistics import SAMPLES, Formula, Interval, Pair, corpus_interval
from data_gen.evaluation.statistics import corpus_difference as difference_of_statistics
from data_gen.language_id import Identifier, language_of, load_labeller
from data_gen.languages import ENGLISH, Pack, load_pack
from data_gen.text import OPTIONAL_MARKS, fold_digits, script_share, tokens


class Metric(NamedTuple):
    """label and meaning stand in the report."""

    label: str
    better: int
    meaning: str


METRICS = {
    "exact": Metric(
        "exact match", HIGHER, "the expected answer and nothing else; digits' script, look-alikes, end marks do not count"
    ),
    "number": Metric("right number", HIGHER, "the last number of the answer is that of the expected one"),
    "stop": Metric("ended by itself", HIGHER, "the model ended its answer before the limit of tokens"),
    "repetition": Metric("repeated words", LOWER, "share of an answer's words in runs of four that it had said before"),
    "script": Metric("right script", HIGHER, "share of an answer's letters that are in the script of the language"),
    "wrong_language": Metric("wrong language", LOWER, "the answer is in another language; of answers of 20 letters or more"),
    "empty": Metric("empty", LOWER, "the answer has nothing but blanks"),
    "refusal": Metric("refused", NEITHER, "the model declined to answer"),
    "refusal_harmful": Metric("refused what is harmful", HIGHER, "the model declined a request that it should decline"),
    "refusal_harmless": Metric("over-refusal", LOWER, "the model declined a request that it should answer"),
    "chrf": Metric("chrF++", HIGHER, "likeness to the expected text in letters and words, 0 to 100, look-alike letters made one"),
    "chrf_raw": Metric("chrF++ as written", HIGHER, "chrF++ of the text as the model wrote it"),
    "bleu": Metric("BLEU", HIGHER, "likeness to the expected text in runs of words, 0 to 100, look-alike letters made one"),
    "bleu_raw": Metric("BLEU as written", HIGHER, "BLEU of the text as the model wrote it"),
}
# What a suite may ask for, with the metrics that it gives: those of one answer, and those of all answers together.
SCORES = {
    **{name: (name,) for name in ("exact", "number", "stop", "repetition", "script", "empty")},
    "language": ("wrong_language",), "refusal": ("refusal", "refusal_harmful", "refusal_harmless"),
}  # fmt: skip
CORPUS_SCORES = {"chrf": ("chrf", "chrf_raw"), "bleu": ("bleu", "bleu_raw")}

RUN = 4  # words that are no coincidence if said twice
_RAW = "_raw"
_ENDS = " \n\t۔.؟?!،,؛;:…।॥"  # not %, which is part of an answer
_AROUND = "*\"'“”‘’«»"  # of bold type, and quotation marks
_GROUPING = regex.compile(r"(?<=\d)[,،٬](?=(?:\d{2,3}[,،٬])*\d{3}(?!\d))")  # of 33,000 and 1,50,000, not of 3,4


@dataclass(frozen=True)
class _Language:
    """label: by what data_gen.language_id names it; "" for a variety that it has no name for, such as Urdu in Latin letters."""

    pack: Pack
    script: str
    label: str


@lru_cache
def _language(code: str) -> _Language:
    """By BCP-47 code: of a language pack, of a variety in it, or English. Raises UsageError for others."""
    if code == ENGLISH:  # has no pack: told from Urdu's neighbours alone, so that Spanish or Urdu in Latin letters passes for it
        return _Language(load_pack("ur"), "Latin", "eng_Latn")
    pack = load_pack(code.partition("-")[0])
    if code not in pack.varieties:
        raise UsageError(f"the language pack of {pack.code} has no variety {code!r}; there are {', '.join(pack.varieties)}")
    return _Language(pack, pack.varieties[code].script, pack.glotlid if code == pack.code else "")


@lru_cache
def _labeller(code: str) -> Identifier:
    return load_labeller(_language(code).pack)


def normalised(text: str, language: str) -> str:
    """As texts are compared: NFC, the language's letters for their look-alikes, digits as 0-9, without vowel signs, tatweel and
    zero-width characters. ھ and ہ stay two letters: گھر is another word than گہر.

    normalised("كتاب ۱۲", "ur") == "کتاب 12"
    """
    text = fold_digits(_language(language).pack.normalise(text))
    return unicodedata.normalize("NFC", OPTIONAL_MARKS.sub("", text))


# --- of one answer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    text: str
    target: str
    language: str
    ended: bool | None
    identifier: Identifier | None

    def exact(self) -> float:
        return float(_bare(self.text, self.language) == _bare(self.target, self.language))

    def number(self) -> float | None:
        wanted = numbers(self.target)[-1:]
        return float(numbers(self.text)[-1:] == wanted) if wanted else None

    def stop(self) -> float | None:
        return None if self.ended is None else float(self.ended)

    def repetition(self) -> float | None:
        return repetition(self.text, RUN * _language(self.language).pack.pieces_a_word)

    def script(self) -> float | None:
        return script_share(self.text, _language(self.language).script) if any(map(str.isalpha, self.text)) else None

    def other_language(self) -> float | None:
        known = _language(self.language)
        named = language_of(self.text, known.pack, self.identifier or _labeller(self.language))[0] if known.label else ""
        return float(named != known.label) if named else None

    def empty(self) -> float:
        return float(not normalised(self.text, self.language).strip())

    def refusal(self) -> float:
        from data_gen.evaluation.refusals import refuses

        return float(refuses(self.text))


_OF_ONE: dict[str, Callable[[_Answer], float | None]] = {
    "exact": _Answer.exact, "number": _Answer.number, "stop": _Answer.stop, "repetition": _Answer.repetition,
    "script": _Answer.script, "language": _Answer.other_language, "empty": _Answer.empty, "refusal": _Answer.refusal,
}  # fmt: skip


def score_answer(
    names: Collection[str], answer: str, target: str, *, language: str, ended: bool | None = None, category: str = "",
    identifier: Identifier | None = None,
) -> dict[str, Pair]:  # fmt: skip
    """What of `names` (SCORES; those of CORPUS_SCORES are passed over) one answer has, by metric, as (value, 1).

    There is no value where there is nothing to look at: a target without a number, an answer without a word or of fewer than 20
    letters, `ended` unknown, a variety that has no name. category: of a request, "harmful" or "harmless" tells which way refusing
    it counts. identifier: load_labeller's; None is lingua.

    score_answer(["exact"], "لاہور۔", "لاہور", language="ur") == {"exact": (1.0, 1.0)}. Raises UsageError for an unknown name or
    language.
    """
    _check_names(names)
    asked = _Answer(answer, target, language, ended, identifier)
    found = {_metric(name, category): _OF_ONE[name](asked) for name in names if name in _OF_ONE}
    return {metric: (value, 1.0) for metric, value in found.items() if value is not None}


def _metric(name: str, category: str) -> str:
    split = f"{name}_{category}"
    return split if split in SCORES[name] else SCORES[name][0]


def _check_names(names: Collection[str]) -> None:
    if unknown := [name for name in names if name not in SCORES and name not in CORPUS_SCORES]:
        raise UsageError(f"there is no score {unknown[0]!r}; there are {', '.join([*SCORES, *CORPUS_SCORES])}")


def _bare(text: str, language: str) -> str:
    """For comparing short answers: one kind of blank, no end marks, quotation marks, commas within a number, nor case."""
    plain = " ".join(normalised(text, language).split())
    return _GROUPING.sub("", plain.lstrip(_AROUND).rstrip(_ENDS + _AROUND) or plain).casefold()


def repetition(text: str, run: int = RUN) -> float | None:
    """Share of the words that lie in a run of so many words that stood in the text before; None without words.

    "a b c d e a b c d" → 4/9: the last four. A text that says one sentence without end comes near 1.
    """
    words = tokens(text)
    seen, again = set[tuple[str, ...]](), set[int]()
    for start in range(len(words) - run + 1):
        some = tuple(words[start : start + run])
        if some in seen:
            again.update(range(start, start + run))
        seen.add(some)
    return len(again) / len(words) if words else None


# --- of all answers together --------------------------------------------------------------------------------------------
# sacrebleu makes no public way to the counts that an interval and a paired difference need. Those of BLEU can be had of it one
# document at a time; those of chrF++ are counted here, and tests hold them against sacrebleu's score.


CHAR_ORDER, WORD_ORDER, BETA = 6, 2, 2  # of chrF++ (Popović 2017)
BLEU_TOKENIZER = "intl"  # parts punctuation by its Unicode class; 13a leaves ۔ ، ؟ on their words, flores200 is a download
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


def corpus_scores(
    names: Collection[str], answers: Sequence[str], targets: Sequence[str], *, language: str, task: str = "",
    samples: int = SAMPLES, seed: int = 0,
) -> list[Score]:  # fmt: skip
    """What of `names` (CORPUS_SCORES; those of SCORES are passed over) all answers have: each of the normalised text and of
    the text as written, 0 to 100, with sacrebleu's signature and the 95 % interval over documents.

    Raises UsageError for an unknown name or language, no answers, or not as many targets.
    """
    _check_names(names)
    found = []
    for metric in (metric for name in names for metric in CORPUS_SCORES.get(name, ())):
        counts, about = corpus_statistics(metric, answers, targets, language), METRICS[metric]
        value, low, high = corpus_interval(counts, _FORMULAS[_kind(metric)], samples=samples, seed=seed)
        found.append(Score(
            task=task, metric=metric, value=value, low=low, high=high, documents=len(answers), better=about.better, corpus=True,
            signature=signature(metric), note=about.meaning,
        ))  # fmt: skip
    return found


def corpus_difference(
    metric: str, answers_one: Sequence[str], answers_other: Sequence[str], targets: Sequence[str], language: str, *,
    samples: int = SAMPLES, seed: int = 0,
) -> Interval:  # fmt: skip
    """(one - other, low, high) of a metric of CORPUS_SCORES ("chrf_raw"), both models' answers being to the same documents."""
    one, other = (corpus_statistics(metric, answers, targets, language) for answers in (answers_one, answers_other))
    return difference_of_statistics(one, other, _FORMULAS[_kind(metric)], samples=samples, seed=seed)


def signature(metric: str) -> str:
    """sacrebleu's, of one reference; it does not say what was normalised."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    if _kind(metric) == "chrf":
        return str(CHRF(CHAR_ORDER, WORD_ORDER, BETA, references=[["."]]).get_signature())
    return str(BLEU(tokenize=BLEU_TOKENIZER, references=[["."]]).get_signature())


def corpus_statistics(metric: str, answers: Sequence[str], targets: Sequence[str], language: str) -> np.ndarray:
    """A row of counts for each document; their sum is what the metric is a function of. The last tables are kept: a model is
    compared with several.
    """
    if len(answers) != len(targets):
        raise UsageError(f"{len(answers)} answers and {len(targets)} targets: {metric} needs a target for each answer")
    return _statistics(metric, tuple(answers), tuple(targets), language)


@lru_cache(maxsize=16)
def _statistics(metric: str, answers: tuple[str, ...], targets: tuple[str, ...], language: str) -> np.ndarray:
    count = _COUNTS[_kind(metric)]
    if not metric.endswith(_RAW):
        answers, targets = (tuple(normalised(text, language) for text in texts) for texts in (answers, targets))
    return np.array([*count(answers, targets)], np.float64)


def _kind(metric: str) -> str:
    kind = metric.removesuffix(_RAW)
    if kind not in CORPUS_SCORES:
        raise UsageError(f"there is no metric {metric!r} of all answers; there are {', '.join(sum(CORPUS_SCORES.values(), ()))}")
    return kind


def _chrf_counts(answers: Sequence[str], targets: Sequence[str]) -> Iterator[list[int]]:
    """For each order the n-grams of the answer, of the target and of both. As in sacrebleu, an answer's do not count where the
    target has none.
    """
    for answer, target in zip(answers, targets, strict=True):
        row: list[int] = []
        for one, two in zip(_ngrams(answer), _ngrams(target), strict=True):
            both = sum(min(count, two[ngram]) for ngram, count in one.items() if ngram in two)
            row += (one.total() if two else 0, two.total(), both)
        yield row


def _ngrams(text: str) -> Iterator[Counter[str]]:
    letters, words = "".join(text.split()), [part for word in text.split() for part in _parts(word)]
    for n in range(1, CHAR_ORDER + 1):
        yield Counter([letters[k : k + n] for k in range(len(letters) - n + 1)])
    for n in range(1, WORD_ORDER + 1):
        yield Counter([" ".join(words[k : k + n]) for k in range(len(words) - n + 1)])


def _parts(word: str) -> tuple[str, ...]:
    """One mark at the end, or else at the beginning, is a word of its own: "(hi)" → "(hi", ")". ۔ ، ؟ stay, as in sacrebleu."""
    if len(word) > 1 and word[-1] in _PUNCTUATION:
        return word[:-1], word[-1]
    return (word[0], word[1:]) if len(word) > 1 and word[0] in _PUNCTUATION else (word,)


def _chrf(sums: np.ndarray) -> float:
    """F of the mean precision and the mean recall, over the orders that both sides have."""
    answer, target, both = sums.reshape(-1, 3).T
    used = (answer > 0) & (target > 0)
    if not both[used].any():
        return 0.0
    precision, recall = float(np.mean(both[used] / answer[used])), float(np.mean(both[used] / target[used]))
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)


def _bleu_counts(answers: Sequence[str], targets: Sequence[str]) -> Iterator[list[int]]:
    """The lengths of answer and target, then the n-grams of both, then those of the answer, n = 1 … 4."""
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(tokenize=BLEU_TOKENIZER)
    for answer, target in zip(answers, targets, strict=True):
        found = bleu.corpus_score([answer], [[target]])
        yield [found.sys_len, found.ref_len, *found.counts, *found.totals]


def _bleu(sums: np.ndarray) -> float:
    from sacrebleu.metrics.bleu import BLEU

    length, wanted, *counts = (int(count) for count in sums)
    half = len(counts) // 2
    return float(BLEU.compute_bleu(counts[:half], counts[half:], length, wanted, smooth_method="exp").score)


_COUNTS = {"chrf": _chrf_counts, "bleu": _bleu_counts}
_FORMULAS: dict[str, Formula] = {"chrf": _chrf, "bleu": _bleu}
