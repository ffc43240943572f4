"""What verdicts come to: win rates and marks with their intervals, how steady the judge was, and what length has to do with it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from data_gen.evaluation.statistics import interval

RIDGE = 1.0  # on the weight of length alone
_STEPS, _CLOSE = 100, 1e-10


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers to one prompt, judged in both orders. preferences: for `model`, where it stood first and where it stood second: 1
    it was found better, 0.5 a tie, 0 it was found worse. identical: nobody was asked.
    """

    category: str
    model: str
    against: str
    preferences: tuple[float, float]
    identical: bool = False

    @property
    def outcome(self) -> float:
        """1, 0.5 or 0: a win or a loss only where both orders agree, as FastChat's show_result.py counts."""
        first, second = self.preferences
        return first if first == second else 0.5


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What an answer got, from 0 to 1."""

    category: str
    answer: str
    mark: float


Judged = TypeVar("Judged", Pair, Mark)


def pairwise_counts(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Of at least one pair, as judge.json has them. Ties of identical answers are judged pairs, but say nothing of consistency."""
    outcomes = [pair.outcome for pair in pairs]
    rate, low, high = interval([(outcome, 1.0) for outcome in outcomes])
    asked = [pair.preferences for pair in pairs if not pair.identical]
    apart = [first > second for first, second in asked if first != second]
    differences = [len(pair.model) - len(pair.against) for pair in pairs]
    return {
        "judged": len(pairs),
        "identical": len(pairs) - len(asked),
        "wins": outcomes.count(1.0),
        "losses": outcomes.count(0.0),
        "ties": outcomes.count(0.5),
        "win_rate": rate,
        "low": low,
        "high": high,
        "length_controlled": length_controlled(
            [difference for difference in differences for _ in range(2)], [one for pair in pairs for one in pair.preferences]
        ),
        "position_consistency": 1 - len(apart) / len(asked) if asked else None,
        "first_place_share": sum(apart) / len(apart) if apart else None,
        "mean_words": {"model": mean_words(pair.model for pair in pairs), "against": mean_words(pair.against for pair in pairs)},
        "by_category": {
            category: {"judged": len(some), **_named("win_rate", [(one.outcome, 1.0) for one in some])}
            for category, some in _by_category(pairs).items()
        },
    }


def single_counts(marks: Sequence[Mark]) -> dict[str, Any]:
    """Of at least one mark, 0 to 100. The mean is over answers, so that a category weighs as many as it has."""
    return {
        "judged": len(marks),
        **_named("mean", [(100 * one.mark, 1.0) for one in marks]),
        "mean_words": {"model": mean_words(one.answer for one in marks)},
        "by_category": {
            category: {"judged": len(some), **_named("mean", [(100 * one.mark, 1.0) for one in some])}
            for category, some in _by_category(marks).items()
        },
    }


def _named(name: str, values: Sequence[tuple[float, float]]) -> dict[str, float]:
    return dict(zip((name, "low", "high"), interval(values), strict=True))


def _by_category(judged: Iterable[Judged]) -> Mapping[str, list[Judged]]:
    """By the category's name."""
    found: dict[str, list[Judged]] = {}
    for one in judged:
        found.setdefault(one.category, []).append(one)
    return dict(sorted(found.items()))


def mean_words(answers: Iterable[str]) -> float:
    """What stands between blanks is a word."""
    counts = [len(answer.split()) for answer in answers]
    return sum(counts) / len(counts)


def length_controlled(differences: Sequence[float], preferences: Sequence[float], ridge: float = RIDGE) -> float | None:
    """The win rate if both answers were always of one length, after AlpacaEval 2 (arXiv 2404.04475): logistic regression of the
    preference (1, 0.5 or 0) on tanh(difference in letters / its standard deviation), read off at difference 0.

    Without the paper's term for how hard a prompt is, which is fitted over many models. ridge: half of it times the squared weight
    of length is added to the loss, so that a judge who goes by length alone still has a finite one. None where one side is longer
    every time: nothing then says what would be at the same length.
    """
    difference, wanted = np.asarray(differences, float), np.asarray(preferences, float)
    if difference.min() > 0 or difference.max() < 0:
        return None
    if not 0 < wanted.mean() < 1:
        return float(wanted.mean())  # all won or all lost, whatever the length: the intercept would be infinite
    spread = difference.std()
    features = np.stack([np.ones_like(difference), np.tanh(difference / spread) if spread else difference], axis=1)
    penalty = np.array([0.0, ridge])

    def loss(weights: np.ndarray) -> float:
        scores = features @ weights
        return float(np.sum(np.logaddexp(0, scores) - wanted * scores) + 0.5 * penalty @ weights**2)

    weights = np.zeros(2)
    for _ in range(_STEPS):
        found = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (found - wanted) + penalty * weights
        curve = features.T @ (features * (found * (1 - found))[:, None]) + np.diag(penalty)
        step, size = np.linalg.solve(curve, slope), 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-6:  # Newton's step may go too far
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < _CLOSE:
            break
    return float(1 / (1 + np.exp(-weights[0])))
