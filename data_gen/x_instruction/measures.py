"""What the gates and the report compute: shares, agreement, calibration, entropy. Numbers in, numbers out."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data_gen.text import tokens

BINS = 10  # of calibration, and of length
LEAST = 30  # samples of a bin of length


def distinct_2(texts: Sequence[str]) -> float:
    """Different pairs of neighbouring words among all of them, 0 to 1 (Li et al. 2016). ["a b c", "a b d"] → 3/4."""
    pairs = [pair for text in texts for words in [tokens(text)] for pair in zip(words, words[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def macro_f1(truth: Sequence[int], guess: Sequence[int]) -> float:
    """The mean over the classes in `truth` of F1, 0 to 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, guess, labels=sorted(set(truth)), average="macro", zero_division=0)) if truth else 0.0


def calibration_error(right: Sequence[bool], confidence: Sequence[float]) -> float:
    """Expected calibration error: |share right − mean confidence| of ten equal bins, weighted by their size (Guo et al. 2017).

    Four guesses at 0.75 of which three are right: 0.
    """
    if not right:
        return 0.0
    hits, sure = np.asarray(right, float), np.asarray(confidence, float)
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    sums = [abs(hits[place == k].sum() - sure[place == k].sum()) for k in range(BINS)]
    return float(sum(sums) / len(hits))


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation, −1 to 1; 0 where one of the two never changes."""
    from scipy.stats import spearmanr

    if len(set(one)) < 2 or len(set(other)) < 2:
        return 0.0
    return float(spearmanr(one, other).statistic)


def auc(good: Sequence[float], bad: Sequence[float]) -> float | None:
    """The probability that a good one scores above a bad one, ties half; None where either is missing."""
    from sklearn.metrics import roc_auc_score

    if not good or not bad:
        return None
    return float(roc_auc_score([1] * len(good) + [0] * len(bad), [*good, *bad]))


def length_accuracy(lengths: Sequence[int], levels: Sequence[int]) -> float:
    """How often a level is guessed from the length alone: by the most frequent level of each of ten equal parts of the lengths
    (fewer, of under 30 samples each), learnt on every other sample and measured on the rest, both ways. Where length tells
    nothing of three levels it is about a third.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    level, hits = np.asarray(levels), 0
    for part in np.array_split(order, max(1, min(BINS, len(order) // LEAST))):
        for learnt, asked in ((part[::2], part[1::2]), (part[1::2], part[::2])):
            if len(learnt):
                hits += int((level[asked] == Counter(level[learnt].tolist()).most_common(1)[0][0]).sum())
    return hits / len(order) if len(order) else 0.0


def entropy(sizes: Sequence[int]) -> float:
    """Of the clusters' sizes, over its largest value: 1 where all are equal, 0 where one has all. [5, 5] → 1, [10, 0] → 0."""
    whole, many = sum(sizes), len(sizes)
    if many < 2 or not whole:
        return 0.0
    return -sum(size / whole * math.log(size / whole) for size in sizes if size) / math.log(many)


def mean_sd(values: Sequence[int]) -> dict[str, float]:
    """{"mean": …, "sd": …}, a digit kept; of nothing both 0."""
    found = np.asarray(values, float) if len(values) else np.zeros(1)
    return {"mean": round(float(found.mean()), 1), "sd": round(float(found.std()), 1)}
