"""Bootstrap intervals against closed forms, and how often they hold the truth."""

import math

import numpy as np
import pytest

from data_gen import UsageError
from data_gen.evaluation import statistics
from data_gen.evaluation.results import HIGHER, LOWER, NEITHER
from data_gen.evaluation.statistics import Pair, corpus_difference, corpus_interval, difference, interval, verdict

NORMAL = 1.959964  # 97.5th percentile
# Of a closed form's standard error. The 2.5th percentile of 2,000 resamples has an error of sqrt(.025 × .975 / 2000) / φ(1.96) =
# 0.06 of it; the rest is what the normal approximation leaves out.
TOLERANCE = 0.2


def pairs(values: np.ndarray) -> list[Pair]:
    return [(float(value), 1.0) for value in values]


def close(found: tuple[float, float, float], value: float, error: float) -> None:
    assert found[0] == pytest.approx(value, rel=1e-12)
    assert found[1] == pytest.approx(value - NORMAL * error, abs=TOLERANCE * error)
    assert found[2] == pytest.approx(value + NORMAL * error, abs=TOLERANCE * error)


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_share_has_the_normal_interval(share: float) -> None:
    right = np.random.default_rng(1).random(2000) < share
    p = right.mean()
    close(interval(pairs(right)), p, math.sqrt(p * (1 - p) / 2000))


def test_a_ratio_has_the_interval_of_the_delta_method() -> None:
    generator = np.random.default_rng(2)
    size = generator.gamma(2, 100, 1500)  # bytes of a document; its bits go with them
    bits = size * generator.normal(1.2, 0.2, 1500)
    ratio = bits.sum() / size.sum()
    error = math.sqrt(np.square(bits - ratio * size).sum()) / size.sum()
    close(interval(list(zip(bits, size, strict=True))), ratio, error)
    assert ratio != pytest.approx((bits / size).mean(), abs=1e-4)  # the mean of ratios is something else


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_difference_is_of_the_same_documents(correlation: float) -> None:
    generator = np.random.default_rng(3)
    one, other = generator.multivariate_normal([0.6, 0.5], [[1, correlation], [correlation, 1]], 2000).T
    paired = math.sqrt((one.var() + other.var() - 2 * np.cov(one, other, ddof=0)[0, 1]) / 2000)
    close(difference(pairs(one), pairs(other)), one.mean() - other.mean(), paired)
    alone = math.sqrt((one.var() + other.var()) / 2000)
    assert paired == pytest.approx(alone * math.sqrt(1 - correlation), rel=0.05)  # what an unpaired one would be


def test_sums_of_documents_have_the_interval_of_the_delta_method() -> None:
    generator = np.random.default_rng(4)
    table = generator.normal([3, 5, 1], [1, 2, 0.1], (1500, 3))

    def score(sums: np.ndarray) -> float:
        return float(sums[0] * sums[1] / sums[2] ** 2)

    a, b, c = table.mean(0)
    gradient = np.array([b / c**2, a / c**2, -2 * a * b / c**3])
    close(corpus_interval(table, score), a * b / c**2, math.sqrt(gradient @ np.cov(table.T) @ gradient / 1500))
    other = table + generator.normal(0, 0.1, table.shape)
    value, low, high = corpus_difference(other, table, score)
    assert value == pytest.approx(score(other.sum(0)) - score(table.sum(0)), abs=1e-9) and low < value < high
    first, second = corpus_interval(other, score), corpus_interval(table, score)
    assert high - low < (first[2] - first[1] + second[2] - second[1]) / 4  # far narrower than that of models asked separately


def test_ratios_are_sums_of_two_columns() -> None:
    values = [(1.0, 2.0), (3.0, 4.0), (0.0, 1.0)]
    assert interval(values) == corpus_interval(np.array(values), lambda sums: float(sums[0] / sums[1]))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    held = 0
    for seed in range(500):
        size = generator.uniform(1, 3, 60)
        noise = generator.normal(0, 0.5, 60)
        _, low, high = interval(list(zip(0.7 * size + noise, size, strict=True)), samples=400, seed=seed)
        held += low <= 0.7 <= high
    assert 0.91 <= held / 500 <= 0.98  # 0.95 ± 3 standard errors, and a percentile interval of 60 documents is somewhat narrow


def test_the_same_seed_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    values = pairs(np.random.default_rng(6).integers(0, 5, 700))
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)
    whole = interval(values)
    monkeypatch.setattr(statistics, "_CELLS", 1500)  # drawn two resamples at a time
    assert interval(values) == whole


def test_a_model_does_not_differ_from_itself() -> None:
    values = pairs(np.random.default_rng(7).random(333))
    assert difference(values, list(values)) == (0, 0, 0)
    table = np.random.default_rng(8).random((77, 24))
    assert corpus_difference(table, table.copy(), lambda sums: float(np.log(sums).sum())) == (0, 0, 0)


def test_few_documents() -> None:
    assert interval([(1, 1), (0, 1)]) == (0.5, 0, 1)
    assert interval([(3, 4)]) == (0.75, 0.75, 0.75)
    assert difference([(3, 4)], [(1, 4)]) == (0.5, 0.5, 0.5)
    # A quarter of the resamples of two documents has no denominator: it is left out. A document without one has no say.
    assert interval([(3, 4), (0, 0)]) == (0.75, 0.75, 0.75)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([], "no documents"), ([(1, 1), (math.nan, 1)], "document 1 are [nan, 1.0]"), ([(1, math.inf)], "document 0"),
        ([(0, 0), (0, 0)], "all denominators of 2 documents are 0"),
    ],
)  # fmt: skip
def test_what_is_no_value_is_refused(values: list[Pair], said: str) -> None:
    with pytest.raises(UsageError) as error:
        interval(values)
    assert said in str(error.value)
    with pytest.raises(UsageError) as error:
        difference(values, values)
    assert said in str(error.value)


def test_a_difference_needs_the_same_documents() -> None:
    with pytest.raises(UsageError, match="2 and 1 documents"):
        difference([(1, 1), (0, 1)], [(1, 1)])


@pytest.mark.parametrize(
    ("low", "high", "better", "said"),
    [
        (0.1, 0.2, HIGHER, "better"), (-0.2, -0.1, HIGHER, "worse"), (-0.1, 0.2, HIGHER, "unclear"), (0.1, 0.2, LOWER, "worse"),
        (-0.2, -0.1, LOWER, "better"), (-0.2, 0.1, LOWER, "unclear"), (0.1, 0.2, NEITHER, "unclear"), (0, 0, HIGHER, "unclear"),
        (0, 0.1, HIGHER, "unclear"), (-0.1, 0, LOWER, "unclear"),
    ],
)  # fmt: skip
def test_verdicts(low: float, high: float, better: int, said: str) -> None:
    assert verdict(low, high, better) == said
