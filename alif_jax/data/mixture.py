"""Which examples an epoch is made of: all of them, weighted shares of each source, or exact counts. Indices only, no tokens.

Everything is a function of (examples, mix, seed, epoch) and computed at once for any epoch: no host, batch size or earlier epoch
matters. How the examples share rows is pack.py's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alif_jax import UsageError
from alif_jax.data.fit import Examples

PASS, SUBSET = 4, 5  # salts: each use of `shuffled` has its own (pack.py: 1 and 2)


@dataclass(frozen=True)
class Mixture:
    """pools[i]: the examples of source i that take part. per_epoch[i]: how many of them an epoch draws.

    sampled: an epoch continues the endless stream of each source's shuffled passes; else it is every example of the pools once.
    """

    pools: tuple[np.ndarray, ...]  # int64
    per_epoch: tuple[float, ...]
    sampled: bool

    def position(self, i: int, epochs: float) -> int:
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
    row_length: int | None = None,
) -> Mixture:
    """Source i gives weights[i] / Σ weights of the run's tokens, but goes through its examples at most max_epochs[i] times.

    What a capped source cannot give, the others give in proportion to their weights. An epoch has as many tokens as all sources
    together; fewer, where all are capped.

        100 tokens each, weights (3, 1), one epoch   →   150 and 50 tokens; with max_epochs (1, 9)   →   100 and 100

    A run is `epochs` epochs or, where its steps are given, `rows` rows: packed ones of row_length tokens, taken as full, or None:
    one example each. Raises UsageError where the caps do not allow a run of that many rows.
    """
    pools = _pools(examples)
    for source, pool in zip(examples.sources, pools, strict=True):
        if not len(pool):
            raise UsageError(f"{source.name}: no example to train on, but a weight in data.weights; leave it out of data.path")
    available = np.asarray([examples.lengths[pool].sum() for pool in pools], np.float64)
    mean = available / [len(pool) for pool in pools]
    caps = available * (list(max_epochs) or [math.inf] * len(pools))
    total = float(available.sum())
    if rows and row_length is None:
        cost, budget = 1 / mean, float(rows)
    else:
        cost, budget = np.ones(len(pools)), float(rows * row_length if rows and row_length else epochs * total)
    given = water_fill(weights, caps, cost, budget)
    if rows and given @ cost < budget * (1 - 1e-9):
        raise UsageError(
            f"data.max_epochs={tuple(max_epochs)} allows {given.sum():,.0f} tokens in the whole run, "
            f"{given @ cost / budget:.0%} of what max_steps asks for: raise the caps, or train fewer steps"
        )
    run = given.sum() / total if rows else epochs  # how many epochs the run is
    if rows and max_epochs:  # a whole number, as the rows of half an epoch may hold more than half of a source
        run = max(1, round(run))
    return Mixture(tuple(pools), tuple((given / run / mean).tolist()), sampled=True)


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


def realised_shares(mixture: Mixture, examples: Examples, seed: int, epochs: float) -> list[dict[str, Any]]:
    """What a run of so many epochs takes of each source: name, examples, tokens, trained (tokens), share of the tokens, epochs.

    For a sampled mixture these are the draws themselves, counted, not the weights.
    """
    rows = []
    for i, (source, pool) in enumerate(zip(examples.sources, mixture.pools, strict=True)):
        drawn = mixture.position(i, epochs)
        passes, rest = divmod(drawn, len(pool)) if len(pool) else (0, 0)
        last = pool[stream(len(pool), seed, i, passes * len(pool), drawn)] if rest else pool[:0]
        row: dict[str, Any] = {"name": source.name, "examples": drawn}
        for key, values in (("tokens", examples.lengths), ("trained", examples.trained)):
            row[key] = passes * int(values[pool].sum()) + int(values[last].sum())
        rows.append(row | {"epochs": drawn / len(pool) if len(pool) else 0.0})
    total = sum(row["tokens"] for row in rows)
    return [row | {"share": row["tokens"] / total if total else 0.0} for row in rows]


def _pools(examples: Examples) -> list[np.ndarray]:
    return [np.flatnonzero(examples.source == s) for s in range(len(examples.sources))]


def _once(pools: Sequence[np.ndarray]) -> Mixture:
    return Mixture(tuple(pools), tuple(float(len(pool)) for pool in pools), sampled=False)
