"""How sure a score is: bootstrap intervals over documents, of one model and of the difference of two. Not the scores themselves.

A score here is a function of sums over documents: Σ numerators / Σ denominators, or chrF++ of summed counts of n-grams. A resample
draws as many documents as there are, with replacement; the interval is from the 2.5th to the 97.5th percentile of the scores of
all resamples (Efron 1979). Two models that were asked the same documents are resampled together, so that what makes a
document hard for both does not blur their difference (Koehn 2004). The same seed gives the same numbers.

Dimensions: S samples, N documents, K sums.
"""

from collections.abc import Callable, Sequence

import numpy as np

from data_gen import UsageError
from data_gen.evaluation.results import NEITHER

Pair = tuple[float, float]  # numerator, denominator: of a document's accuracy (0 or 1, 1), of its bits a byte (bits, bytes)
Interval = tuple[float, float, float]  # value, low, high
Formula = Callable[[np.ndarray], float]  # of the sums [K]

SAMPLES = 2000
_PERCENTILES = (2.5, 97.5)
_CELLS = 1 << 20  # documents drawn at a time: 8 MiB, however many documents there are


def interval(values: Sequence[Pair], *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """(value, low, high) of Σ numerators / Σ denominators, with its 95 % interval.

    interval([(1, 1), (0, 1)]) == (0.5, 0.0, 1.0). One document gives low = high = value: it says nothing of others. A document
    with (0, 0) has no say. Raises UsageError without documents, for NaN and infinity, and where all denominators are 0.
    """
    return corpus_interval(_table(values), _ratio, samples=samples, seed=seed)


def difference(one: Sequence[Pair], other: Sequence[Pair], *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """(one - other, low, high), the k-th pair of both being of the same document. A document that only one has a value of is (0, 0)
    in the other. Raises UsageError as `interval`, and for unlike numbers of documents.
    """
    return corpus_difference(_table(one), _table(other), _ratio, samples=samples, seed=seed)


def verdict(low: float, high: float, better: int) -> str:
    """What the interval of a difference one - other says of one: "better", "worse", or "unclear" where 0 lies in it, or where
    neither way is better (better: HIGHER, LOWER or NEITHER of results.py).
    """
    if better == NEITHER or low <= 0 <= high:
        return "unclear"
    return "better" if (low > 0) == (better > 0) else "worse"


def corpus_interval(statistics: np.ndarray, score: Formula, *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """(value, low, high) of a score of all documents together. `score` takes the sums [K] of statistics [N, K].

    A resample whose score is NaN (nothing to divide by) is left out. Raises UsageError as `interval`.
    """
    _check(statistics)
    (sums,) = _resampled([statistics], samples, seed)
    return _within(_value(statistics, score), _scores(sums, score))


def corpus_difference(one: np.ndarray, other: np.ndarray, score: Formula, *, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """corpus_interval of score(one) - score(other), both [N, K], the k-th row of both being of the same document."""
    if len(one) != len(other):
        raise UsageError(f"{len(one)} and {len(other)} documents: a paired difference needs the same documents of both models")
    _check(one)
    _check(other)
    sums, other_sums = _resampled([one, other], samples, seed)
    return _within(_value(one, score) - _value(other, score), _scores(sums, score) - _scores(other_sums, score))


def _table(values: Sequence[Pair]) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(-1, 2)


def _ratio(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _check(table: np.ndarray) -> None:
    if not len(table):
        raise UsageError("no documents: an interval needs one at least; leave out the metrics that no document has")
    if not np.isfinite(table).all():
        bad = int(np.argmin(np.isfinite(table).all(1)))
        raise UsageError(f"the values of document {bad} are {table[bad].tolist()}: finite numbers expected")


def _value(table: np.ndarray, score: Formula) -> float:
    if np.isnan(value := score(table.sum(0))):
        raise UsageError(f"all denominators of {len(table)} documents are 0: leave out the metrics that no document has")
    return value


def _resampled(tables: Sequence[np.ndarray], samples: int, seed: int) -> list[np.ndarray]:
    """The sums [S, K] of each table over the same resamples. One product a table, so that equal tables have equal sums to the last
    bit: a model does not differ from itself.
    """
    generator, documents = np.random.default_rng(seed), len(tables[0])
    at_a_time = max(1, _CELLS // documents)
    found: list[list[np.ndarray]] = [[] for _ in tables]
    for start in range(0, samples, at_a_time):
        some = min(at_a_time, samples - start)
        drawn = generator.integers(documents, size=(some, documents)) + documents * np.arange(some)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=some * documents).reshape(some, documents).astype(np.float64)
        for sums, table in zip(found, tables, strict=True):
            sums.append(counts @ table)
    return [np.concatenate(sums) for sums in found]


def _scores(sums: np.ndarray, score: Formula) -> np.ndarray:
    return np.array([score(one) for one in sums])


def _within(value: float, scores: np.ndarray) -> Interval:
    low, high = np.nanpercentile(scores, _PERCENTILES)
    return float(value), float(low), float(high)
