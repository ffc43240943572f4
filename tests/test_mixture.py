"""Mixtures: shares and caps by closed form, exact substitution, every example once a pass, and any epoch computed alone."""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.data.fit import Examples
from alif_jax.data.mixture import Mixture, concatenation, draw, realised_shares, stream, substitution, water_fill, weighting
from alif_jax.data.pack import Batches, rows_needed
from tests.test_pack import examples_of, realistic_lengths, rows_of, same, source_of

SIZES = (400, 150, 30)
NONE = np.zeros(0, np.int64)


def three(size: int = 10) -> Examples:
    """Three sources of 400, 150 and 30 examples; size: tokens of every example, 0: log-normal."""
    lengths = (np.full(n, size) if size else realistic_lengths(n, 256, seed=n) for n in SIZES)
    return examples_of(*(source_of(values, seed=i, name=f"s{i}_") for i, values in enumerate(lengths)))


def drawn(mixture: Mixture, examples: Examples, epochs: int, seed: int = 0) -> list[Counter[int]]:
    """By source: how often each of its examples is drawn in all."""
    counts: list[Counter[int]] = [Counter() for _ in examples.sources]
    for epoch in range(epochs):
        for i in draw(mixture, seed, epoch).tolist():
            counts[examples.source[i]][int(examples.record[i])] += 1
    return counts


def packed(row_length: int | None) -> Callable[[np.ndarray], int] | None:
    return None if row_length is None else lambda lengths: rows_needed(lengths, row_length)


# --- water filling


def test_water_fill_by_hand() -> None:
    one = np.ones(3)
    assert water_fill((2, 1, 1), np.asarray([1, 9, 9]), one, 7).tolist() == [1, 3, 3]
    assert water_fill((2, 1, 1), np.asarray([9, 9, 9]), one, 8).tolist() == [4, 2, 2]
    assert water_fill((4, 2, 1), np.asarray([2, 3, 90]), one, 12).tolist() == [2, 3, 7]  # the second is capped by the first's rest
    assert water_fill((1, 1, 1), np.asarray([1, 2, 3]), one, 7).tolist() == [1, 2, 3]  # all capped
    assert water_fill((1, 1), np.asarray([math.inf, math.inf]), np.asarray([1.0, 3.0]), 8).tolist() == [2, 2]  # cost 1·2 + 3·2


def test_water_fill_against_exact_fractions() -> None:
    """The level λ found by trying every set of capped sources, in exact arithmetic."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(1, 5))
        weights, caps, cost = (rng.integers(1, 20, n) for _ in range(3))
        budget = int(rng.integers(1, 400))
        expected = [Fraction(int(cap)) for cap in caps]
        if int(caps @ cost) > budget:
            for mask in range(2**n - 1):
                free = [i for i in range(n) if not mask >> i & 1]
                level = Fraction(budget - sum(int(caps[i] * cost[i]) for i in range(n) if i not in free))
                level /= sum(int(weights[i] * cost[i]) for i in free)
                tried = [level * int(weights[i]) if i in free else Fraction(int(caps[i])) for i in range(n)]
                if level >= 0 and all(x <= int(cap) for x, cap in zip(tried, caps, strict=True)):
                    if all(level * int(weights[i]) >= int(caps[i]) for i in range(n) if i not in free):
                        expected = tried
        given = water_fill(weights.tolist(), caps.astype(float), cost.astype(float), budget)
        assert given == pytest.approx([float(x) for x in expected], rel=1e-12)


# --- weights


def test_shares_of_tokens_are_the_weights() -> None:
    examples = three(size=10)
    mixture = weighting(examples, (1.0, 2.0, 1.0), epochs=3)
    assert mixture.per_epoch == pytest.approx([145, 290, 145])  # a quarter, half, a quarter of 580
    counts = drawn(mixture, examples, 3)
    assert [count.total() for count in counts] == [435, 870, 435]
    for count, size in zip(counts, SIZES, strict=True):  # passes one after the other: no example is drawn twice more than another
        assert len(count) == min(size, count.total()) and max(count.values()) - min(count.get(i, 0) for i in range(size)) <= 1


def test_shares_are_of_tokens_and_not_of_examples() -> None:
    """Examples of 5 tokens and of 50: equal weights give ten times as many of the short ones."""
    examples = examples_of(source_of([5] * 300, name="short"), source_of([50] * 300, name="long"))
    mixture = weighting(examples, (0.5, 0.5), epochs=2)
    rows = realised_shares(mixture, examples, 0, 2, NONE)
    assert [row["tokens"] for row in rows] == [16_500, 16_500] and [row["examples"] for row in rows] == [3300, 330]
    assert [row["share"] for row in rows] == [0.5, 0.5] and [row["epochs"] for row in rows] == [11.0, 1.1]


def test_caps_hold_over_the_whole_run_and_the_others_take_the_rest() -> None:
    examples = three(size=10)
    mixture = weighting(examples, (1.0, 2.0, 1.0), (9.0, 9.0, 4.0), epochs=3)
    counts = drawn(mixture, examples, 3)
    assert [count.total() for count in counts] == [540, 1080, 120]  # 1,740 in all; 4 × 30, and the rest one to two
    assert set(counts[2].values()) == {4}
    once = drawn(weighting(examples, (1.0, 2.0, 1.0), (1.0, 1.0, 1.0), epochs=3), examples, 3)  # all capped: a shorter epoch
    assert [set(count.values()) for count in once] == [{1}] * 3 and [len(count) for count in once] == list(SIZES)


def test_half_a_pass_is_the_same_half_for_every_epoch_of_the_run() -> None:
    examples = three(size=10)
    counts = drawn(weighting(examples, (1.0, 1.0, 1.0), (0.5, 9.0, 9.0), epochs=4), examples, 4)
    assert set(counts[0].values()) == {1} and len(counts[0]) == 200


def test_realised_shares_are_those_of_the_draws() -> None:
    examples = three(size=0)
    mixture = weighting(examples, (5.0, 1.0, 2.0), (2.0, 1.0, 7.5), epochs=3)
    everything = np.concatenate([draw(mixture, 7, epoch) for epoch in range(3)])
    for i, row in enumerate(realised_shares(mixture, examples, 7, 3, NONE)):
        mine = everything[examples.source[everything] == i]
        tokens = int(examples.lengths[mine].sum())
        assert row == {
            "name": f"s{i}_", "examples": len(mine), "tokens": tokens, "trained": int(examples.trained[mine].sum()),
            "epochs": len(mine) / SIZES[i], "share": tokens / int(examples.lengths[everything].sum()),
        }  # fmt: skip
    for i, row in enumerate(realised_shares(concatenation(examples), examples, 7, 3, NONE)):
        assert row["epochs"] == 3 and row["tokens"] == 3 * int(examples.lengths[examples.source == i].sum())


@pytest.mark.parametrize("row_length", [100, None])
def test_caps_of_a_run_of_so_many_steps(row_length: int | None) -> None:
    """300 rows of 100 tokens, or of one example of 10 tokens each."""
    examples = three(size=10)
    caps = (99.0, 99.0, 20.0) if row_length else (99.0, 99.0, 2.0)
    mixture = weighting(examples, (1.0, 2.0, 3.0), caps, epochs=1, rows=300, rows_of=packed(row_length))
    run = 5 if row_length else 1  # 30,000 and 3,000 tokens in epochs of about 5,800, a whole number of them
    assert np.asarray(mixture.per_epoch) * run == pytest.approx([800, 1600, 600] if row_length else [80, 160, 60])
    batches = Batches(
        examples, row_length or 10, batch_size=3, max_steps=100, seed=0, packing=row_length is not None,
        weights=(1.0, 2.0, 3.0), max_epochs=caps,
    )  # fmt: skip
    used: Counter[str] = Counter()
    for step in range(batches.steps):
        used.update(f"{examples.id_of(int(i))}" for members in batches.members_at(step) for i in members)
    assert max(count for name, count in used.items() if name.startswith("s2_")) == caps[2]
    assert [row["epochs"] for row in batches.shares()][2] == pytest.approx(caps[2], rel=0.02)


def test_caps_that_do_not_allow_the_steps() -> None:
    with pytest.raises(
        UsageError, match=r"max_epochs=\(1.0, 1.0, 1.0\) allows 5,800 tokens in the whole run, 58% of what max_steps"
    ):
        weighting(three(size=10), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), epochs=1, rows=100, rows_of=packed(100))


def passes_of(batches: Batches) -> dict[str, int]:
    """By source: how often that one of its examples runs which runs most."""
    used = Counter(int(i) for step in range(batches.steps) for row in batches.members_at(step) for i in row)
    source = batches.examples.source
    return {one.name: max(n for i, n in used.items() if source[i] == s) for s, one in enumerate(batches.examples.sources)}


def test_rows_that_cannot_be_full_are_not_taken_as_full() -> None:
    """1,200 tokens in rows of 2,048: 250 steps of 8 rows are exactly one pass over 2,000 examples; 260 are more."""
    examples = examples_of(source_of([1200] * 1000, name="a"), source_of([1200] * 1000, name="b"))
    mix = {"weights": (1.0, 1.0), "max_epochs": (1.0, 1.0)}
    batches = Batches(examples, 2048, batch_size=8, max_steps=250, seed=0, **mix)  # type: ignore[arg-type]
    assert batches.mixture.per_epoch == pytest.approx([1000, 1000]) and passes_of(batches) == {"a": 1, "b": 1}
    with pytest.raises(UsageError, match="allows 2,400,000 tokens in the whole run, 96% of what max_steps"):
        Batches(examples, 2048, batch_size=8, max_steps=260, seed=0, **mix).batch_at(0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("long", "short", "weights", "caps"),
    [
        ([1200] * 1000, [100] * 100, (0.1, 0.9), (9.0, 30.0)),  # rows of the mixture are fuller than those of all
        ([1200] * 300, [100] * 3000, (0.9, 0.1), (2.0, 9.0)),  # and less full
        ([1200] * 500, [800] * 500, (0.5, 0.5), (4.0, 4.0)),  # what is half empty apart is full together
    ],
)
def test_caps_hold_however_full_the_rows_are(
    long: list[int], short: list[int], weights: tuple[float, ...], caps: tuple[float, ...]
) -> None:
    examples = examples_of(source_of(long, name="a"), source_of(short, name="b"))
    for steps in (20, 60, 120):
        batches = Batches(examples, 2048, batch_size=8, max_steps=steps, seed=0, weights=weights, max_epochs=caps)
        most = passes_of(batches)
        assert most["a"] <= caps[0] and most["b"] <= caps[1]


def test_shares_are_of_the_rows_that_run() -> None:
    """Of an epoch that does not end, the rows that run, not the first examples of each source's stream."""
    examples = examples_of(source_of(realistic_lengths(3000, seed=1)), source_of([1500] * 400, name="b"))
    for weights, steps in (((0.9, 0.1), 20), ((0.9, 0.1), 70), ((), 20), ((), 100)):
        batches = Batches(examples, 2048, batch_size=8, max_steps=steps, seed=0, weights=weights)
        ran = np.concatenate([row for step in range(steps) for row in batches.members_at(step)])
        for s, share in enumerate(batches.shares()):
            mine = ran[examples.source[ran] == s]
            tokens = int(examples.lengths[mine].sum())
            assert (share["examples"], share["tokens"], share["trained"]) == (len(mine), tokens, examples.trained[mine].sum())
            assert share["share"] == pytest.approx(tokens / examples.lengths[ran].sum())


def test_a_weight_for_a_source_without_examples() -> None:
    with pytest.raises(UsageError, match="empty: no example"):
        weighting(examples_of(source_of([5]), source_of([], name="empty")), (1.0, 1.0), epochs=1)


def test_a_stream_is_one_permutation_after_another() -> None:
    whole = stream(7, 3, 1, 0, 70).tolist()
    passes = [whole[k : k + 7] for k in range(0, 70, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes) and len({tuple(one) for one in passes}) > 8
    rng = np.random.default_rng(0)
    for begin, end in np.sort(rng.integers(0, 71, (50, 2)), axis=1).tolist():
        assert stream(7, 3, 1, begin, end).tolist() == whole[begin:end]
    assert stream(7, 3, 2, 0, 70).tolist() != whole != stream(7, 4, 1, 0, 70).tolist()
    assert stream(5, 0, 0, 10**9, 10**9 + 2).tolist() == stream(5, 0, 0, 10**9, 10**9 + 5).tolist()[:2]  # as fast as the first


# --- substitution


def test_substitution_is_exact_and_keeps_the_total() -> None:
    examples = three(size=0)
    mixture = substitution(examples, (0, 100, 30), seed=5)
    chosen = draw(mixture, 5, 0)
    assert np.bincount(examples.source[chosen]).tolist() == [270, 100, 30] and len(set(chosen.tolist())) == 400
    assert np.array_equal(chosen, draw(mixture, 5, 9))  # the same ones in every epoch
    other = draw(substitution(examples, (0, 100, 30), seed=6), 6, 0)
    assert len(set(other.tolist()) & set(chosen.tolist())) < 0.8 * 400
    assert np.array_equal(draw(substitution(examples, (0, 0, 0), seed=5), 5, 0), np.arange(400))
    more = set(draw(substitution(examples, (0, 120, 30), seed=5), 5, 0).tolist())  # a larger count adds to the smaller one
    assert {i for i in chosen.tolist() if examples.source[i] == 1} <= more


@pytest.mark.parametrize(
    ("counts", "words"), [((0, 151, 0), "s1_ has 150 examples, too few for 151"), ((0, 150, 30), None), ((0, 1, 31), "s2_ has 30")]
)
def test_substitution_asks_for_more_than_there_is(counts: tuple[int, ...], words: str | None) -> None:
    if words is None:
        substitution(three(), counts, seed=0)
        return
    with pytest.raises(UsageError, match=words):
        substitution(three(), counts, seed=0)


def test_substitution_of_more_than_the_first_source_has() -> None:
    examples = examples_of(source_of([5] * 10, name="a"), source_of([5] * 20, name="b"))
    with pytest.raises(UsageError, match="a has 10 examples, fewer than the 11 that are to take their place"):
        substitution(examples, (0, 11), seed=0)


# --- batches of a mixture


MIXES: tuple[dict[str, tuple[float, ...]], ...] = (
    {},
    {"weights": (1.0, 3.0, 2.0), "max_epochs": (9.0, 2.0, 3.0)},
    {"substitute": (0, 20, 9)},
)


@pytest.mark.parametrize("mix", MIXES, ids=["all", "weights", "substitute"])
def test_rows_do_not_depend_on_batch_size_or_on_what_was_asked_before(mix: dict[str, tuple[float, ...]]) -> None:
    examples = three(size=0)

    def rows(batch_size: int, steps: list[int]) -> dict[int, list[int]]:
        batches = Batches(examples, 256, batch_size, epochs=5, seed=3, **mix)  # type: ignore[arg-type]
        return {
            step * batch_size + r: members.tolist()
            for step in steps
            for r, members in enumerate(batches.members_at(step))
        }  # fmt: skip

    total = Batches(examples, 256, 1, epochs=5, seed=3, **mix).steps  # type: ignore[arg-type]
    whole = rows(1, list(range(total)))
    for batch_size in (3, 8):
        steps = np.random.default_rng(0).permutation(total // batch_size).tolist()
        assert all(whole[r] == members for r, members in rows(batch_size, steps).items())
    alone = Batches(examples, 256, 4, epochs=5, seed=3, **mix)  # type: ignore[arg-type]
    in_order = [alone.batch_at(step) for step in range(alone.steps)]
    fresh = Batches(examples, 256, 4, epochs=5, seed=3, **mix)  # type: ignore[arg-type]
    assert same(fresh.batch_at(alone.steps - 2), in_order[-2])


def test_an_epoch_of_a_mixture_has_its_draws_and_fixed_rows() -> None:
    examples = three(size=0)
    batches = Batches(examples, 256, 4, epochs=6, seed=3, weights=(1.0, 3.0, 2.0))
    for epoch in range(6):
        plan = batches.plan(epoch)
        expected, found = Counter(draw(batches.mixture, 3, epoch).tolist()), Counter(plan.order.tolist())
        assert len(plan) == batches.rows_per_epoch and found <= expected and (expected - found).total() == plan.left_out
        assert plan.left_out == 0
        assert all(examples.lengths[row].sum() <= 256 for row in rows_of(plan))
    assert batches.stats()["left_out"] == 0
    assert batches.stats()["fill"] > 0.94


def test_small_sources_have_rows_enough_in_every_epoch() -> None:
    """Which of few examples are drawn decides how many rows an epoch needs: the first one alone does not tell."""
    examples = examples_of(*(source_of(realistic_lengths(n, seed=n), name=f"s{n}_") for n in (300, 40, 5)))
    batches = Batches(examples, 2048, 8, epochs=16, seed=0, weights=(0.5, 0.3, 0.2))
    for epoch in range(16):
        assert Counter(batches.plan(epoch).order.tolist()) == Counter(draw(batches.mixture, 0, epoch).tolist())
    assert batches.stats()["left_out"] == 0
    longer = Batches(examples, 2048, 8, epochs=400, seed=0, weights=(0.5, 0.3, 0.2))
    assert longer.rows_per_epoch == batches.rows_per_epoch  # a run that is made longer goes on in the same order
    drawn = sum(len(draw(longer.mixture, 0, epoch)) for epoch in range(400))
    assert longer.stats()["left_out"] == drawn - sum(len(longer.plan(epoch).order) for epoch in range(400)) <= 0.001 * drawn


def test_without_packing_every_draw_has_a_row() -> None:
    examples = three(size=0)
    batches = Batches(examples, 256, 4, epochs=6, seed=3, packing=False, weights=(1.0, 3.0, 2.5))
    for epoch in range(6):
        plan = batches.plan(epoch)
        assert Counter(plan.order.tolist()) == Counter(draw(batches.mixture, 3, epoch).tolist()) and plan.left_out == 0
        assert len(plan) - len(plan.order) <= 3


def test_epochs_of_a_mixture_differ() -> None:
    """Another order, and of a source that is not used up, other examples."""
    batches = Batches(three(size=0), 256, 4, epochs=6, seed=3, weights=(1.0, 3.0, 2.0))
    orders = [batches.plan(epoch).order for epoch in (0, 1)]
    own = [set(order[batches.examples.source[order] == 0].tolist()) for order in orders]
    assert not own[0] & own[1]  # 400 examples, about 100 an epoch
    assert not np.array_equal(batches.plan(0).starts, batches.plan(1).starts)
