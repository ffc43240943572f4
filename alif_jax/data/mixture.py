"""Which examples an epoch is made of: all of them, weighted shares of each source, or exact counts. Indices only, no tokens.

Everything is a function of (examples, mix, seed, epoch) and computed at once for any epoch: no host, batch size or earlier epoch
matters. How the examples share rows is pack.py's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alif_jax import UsageError
from alif_jax.data.fit import Examples

PASS, SUBSET = 4, 5  # salts: each use of `shuffled` has its own (pack.py: 1 and 2)
REFINED = 4  # times that the rows of a mixture are counted, on which the mixture depends where it has caps


@dataclass(frozen=True)
class Mixture:
    """pools[i]: the examples of source i that take part. per_epoch[i]: how many of them an epoch draws.

    sampled: an epoch continues the endless stream of each source's shuffled passes; else it is every example of the pools once.
    """

    pools: tuple[np.ndarray, ...]  # int64
    per_epoch: tuple[float, ...]
    sampled: bool

    def position(self, i: int, epochs: int) -> int:
        """How many examples of source i the first `epochs` epochs have drawn."""
        return math.floor(epochs * self.per_epoch[i] + 1e-6)  # 1e-6: 3 × (100 / 3) is 100


def shuffled(n: int, *salt: int) -> np.ndarray:
    """A permutation of range(n) that depends on n and the salt only: not on NumPy's version (SplitMix64 as sort key)."""
    with np.errstate(over="ignore"):
        z = np.arange(n, dtype=np.uint64)
        for word in salt:
            z = (z ^ np.uint64(word)) + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
    return np.argsort(z, kind="stable")


def concatenation(examples: Examples) -> Mixture:
    """Every example of every source once an epoch."""
    return _once(_pools(examples))


def substitution(examples: Examples, counts: Sequence[int], seed: int) -> Mixture:
    """counts[i] examples of source i in the place of as many of the first; which ones, the seed decides for the whole run.

    100 examples of the first source, 40 of the second, counts (0, 30)   →   70 + 30. Raises UsageError where there are too few.
    """
    pools = _pools(examples)
    given = [len(pools[0]) - sum(counts), *counts[1:]]
    for i, (count, pool) in enumerate(zip(given, pools, strict=True)):
        if not 0 <= count <= len(pool):
            raise UsageError(
                f"data.substitute={tuple(counts)}: {examples.sources[i].name} has {len(pool):,} examples, "
                + (f"too few for {count:,}" if i else f"fewer than the {sum(counts):,} that are to take their place")
            )
    chosen = (
        np.sort(shuffled(len(pool), seed, i, SUBSET)[:count]) for i, (count, pool) in enumerate(zip(given, pools, strict=True))
    )
    return _once([pool[places] for pool, places in zip(pools, chosen, strict=True)])


def weighting(
    examples: Examples,
    weights: Sequence[float],
    max_epochs: Sequence[float] = (),
    *,
    epochs: float,
    rows: int = 0,
    rows_of: Callable[[np.ndarray], int] | None = None,
) -> Mixture:
    """Source i gives weights[i] / Σ weights of the run's tokens, but goes through its examples at most max_epochs[i] times.

    What a capped source cannot give, the others give in proportion to their weights. An epoch has as many tokens as all sources
    together; fewer, where all are capped.

        100 tokens each, weights (3, 1), one epoch   →   150 and 50 tokens; with max_epochs (1, 9)   →   100 and 100

    A run is `epochs` epochs or, where its steps are given, `rows` rows; rows_of: how many rows examples of these lengths
    are packed into, None: one example a row. Raises UsageError where the caps do not allow a run of that many rows.
    """
    pools = _pools(examples)
    for source, pool in zip(examples.sources, pools, strict=True):
        if not len(pool):
            raise UsageError(f"{source.name}: no example to train on, but a weight in data.weights; leave it out of data.path")
    available = np.asarray([examples.lengths[pool].sum() for pool in pools], np.float64)
    mean = available / [len(pool) for pool in pools]
    caps = available * (list(max_epochs) or [math.inf] * len(pools))
    total = float(available.sum())

    def mixture_of(given: np.ndarray, run: float) -> Mixture:
        return Mixture(tuple(pools), tuple((given / run / mean).tolist()), sampled=True)

    if not (rows and max_epochs):  # what an epoch is made of depends on the length of the run only by the caps
        return mixture_of(water_fill(weights, caps, np.ones(len(pools)), epochs * total), epochs)
    cost = np.asarray([rows_of(examples.lengths[pool]) for pool in pools]) / available if rows_of else 1 / mean  # rows a token
    shared = 1.0  # rows of the mixture for a row of its sources apart: fewer where one source fills the gaps of another
    for _ in range(REFINED):
        given = water_fill(weights, caps, cost * shared, rows)
        run = max(1, round(given.sum() / total))  # whole, as the rows of half an epoch may hold more than half of a source
        mixture = mixture_of(given, run)
        if rows_of:
            shared = rows_of(examples.lengths[draw(mixture, 0, 0)]) * run / float(given @ cost)
    allowed = given @ cost * shared / rows
    if (given >= caps).all() and allowed < 1 - 1e-9:
        raise UsageError(
            f"data.max_epochs={tuple(max_epochs)} allows {given.sum():,.0f} tokens in the whole run, "
            f"{allowed:.0%} of what max_steps asks for: raise the caps, or train fewer steps"
        )
    return mixture


def water_fill(weights: Sequence[float], caps: np.ndarray, cost: np.ndarray, budget: float) -> np.ndarray:
    """x_i = min(caps_i, λ weights_i) with Σ cost_i x_i = budget; all caps where they are less than that.

    weights (2, 1, 1), caps (1, 9, 9), cost 1, budget 7   →   (1, 3, 3)
    """
    share, given = np.asarray(weights, np.float64), np.zeros(len(caps))
    full = np.zeros(len(caps), bool)
    while not full.all():
        level = max(0.0, budget - float(caps[full] @ cost[full])) / float(share[~full] @ cost[~full])
        given = np.where(full, caps, level * share)
        over = ~full & (given > caps)
        if not over.any():
            return given
        full |= over
    return caps


def draw(mixture: Mixture, seed: int, epoch: int) -> np.ndarray:
    """The examples of an epoch, int64; a small source with a large weight may give one several times."""
    if not mixture.sampled:
        return np.concatenate(mixture.pools)
    bounds = ((mixture.position(i, epoch), mixture.position(i, epoch + 1)) for i in range(len(mixture.pools)))
    parts = (pool[stream(len(pool), seed, i, *bound)] for i, (pool, bound) in enumerate(zip(mixture.pools, bounds, strict=True)))
    return np.concatenate(list(parts))


def stream(n: int, seed: int, source: int, begin: int, end: int) -> np.ndarray:
    """Places `begin` to `end` of the endless sequence of shuffled passes over range(n)."""
    passes = (shuffled(n, seed, source, k, PASS)[max(0, begin - k * n) : end - k * n] for k in range(begin // n, -(-end // n)))
    return np.concatenate([np.zeros(0, np.int64), *passes])


def realised_shares(mixture: Mixture, examples: Examples, seed: int, epochs: int, more: np.ndarray) -> list[dict[str, Any]]:
    """What a run takes of each source: name, examples, tokens, trained (tokens), share of the tokens, epochs.

    The run is so many whole epochs and, of one that does not end, the examples `more`. For a sampled mixture these are the draws
    themselves, counted, not the weights.
    """
    rows = []
    for i, (source, pool) in enumerate(zip(examples.sources, mixture.pools, strict=True)):
        drawn = mixture.position(i, epochs)
        passes, rest = divmod(drawn, len(pool)) if len(pool) else (0, 0)
        last = more[examples.source[more] == i]
        if rest:
            last = np.concatenate([last, pool[stream(len(pool), seed, i, passes * len(pool), drawn)]])
        count = passes * len(pool) + len(last)
        row: dict[str, Any] = {"name": source.name, "examples": count}
        for key, values in (("tokens", examples.lengths), ("trained", examples.trained)):
            row[key] = passes * int(values[pool].sum()) + int(values[last].sum())
        rows.append(row | {"epochs": count / len(pool) if len(pool) else 0.0})
    total = sum(row["tokens"] for row in rows)
    return [row | {"share": row["tokens"] / total if total else 0.0} for row in rows]


def _pools(examples: Examples) -> list[np.ndarray]:
    return [np.flatnonzero(examples.source == s) for s in range(len(examples.sources))]


def _once(pools: Sequence[np.ndarray]) -> Mixture:
    return Mixture(tuple(pools), tuple(float(len(pool)) for pool in pools), sampled=False)
