"""Packing: every example once an epoch, any step at once, and the same loss and gradients as without packing."""

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import jax
import numpy as np
import optax
import pytest

from alif_jax.data import pack
from alif_jax.data.cache import Source
from alif_jax.data.fit import Examples, fit_rows
from alif_jax.data.mixture import draw, shuffled
from alif_jax.data.pack import Batch, Batches, Plan, fill_row, plan_rows, prefetch, rows_needed
from alif_jax.data.template import FLAG_RESPONSE, FLAG_TRAINED, DataConfig
from alif_jax.lora import LoraConfig
from alif_jax.model import Params, Skeleton, skeleton
from alif_jax.step import train_step
from tests import tiny

LIMIT = 1 << 40  # no example is longer


def source_of(lengths: np.ndarray | list[int], seed: int = 0, name: str = "s") -> Source:
    """Random tokens, each with its own mask; a record's first token may be marked too, which means nothing, and its last one is."""
    rng = np.random.default_rng(seed)
    n, total = len(lengths), int(np.sum(lengths))
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    flags = FLAG_TRAINED * (rng.random(total) < 0.6).astype(np.uint8) | np.uint8(FLAG_RESPONSE)
    flags[offsets[1:] - 1] |= FLAG_TRAINED
    return Source(
        name=name, split="train", hash=name,
        tokens=rng.integers(1, tiny.VOCAB, total).astype(np.int32), flags=flags, offsets=offsets,
        text_bytes=np.ones(n, np.int64), codes=np.zeros(n, np.int32), documents=np.zeros(n, bool),
        ids=np.asarray([f"{name}{i}".encode() for i in range(n)], "S16"),
        groups=[{"source": name, "task": "t", "language": "ur"}],
    )  # fmt: skip


def examples_of(*sources: Source) -> Examples:
    return fit_rows(sources, DataConfig(sequence_length=LIMIT))


def realistic_lengths(n: int, limit: int = 2048, seed: int = 0) -> np.ndarray:
    """Log-normal, as instruction data is: half below 150 tokens, a few cut at the limit."""
    return np.clip(np.random.default_rng(seed).lognormal(5, 1, n).astype(np.int64), 8, limit)


def rows_of(plan: Plan) -> Iterator[list[int]]:
    return (plan.row(r).tolist() for r in range(len(plan)))


def check_plan(plan: Plan, lengths: np.ndarray, row_length: int) -> None:
    assert sorted(plan.order.tolist()) == list(range(len(lengths)))  # none lost, none doubled
    assert all(row and int(lengths[row].sum()) <= row_length for row in rows_of(plan))


# --- plans


def test_the_docstrings_example() -> None:
    lengths = np.asarray([5, 3, 4, 2])
    assert list(rows_of(plan_rows(lengths, 8, seed=None))) == [[0, 1], [2, 3]]
    assert sorted(map(sorted, rows_of(plan_rows(lengths, 8, seed=7)))) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("seed", [None, 0, 3407])
def test_every_example_once_in_rows_that_hold_it(packing: bool, seed: int | None) -> None:
    for n, row_length in ((1, 8), (2, 4), (50, 16), (400, 64), (3000, 2048)):
        rng = np.random.default_rng(n)
        for lengths in (rng.integers(1, row_length + 1, n), np.full(n, row_length), np.ones(n, np.int64)):
            plan = plan_rows(lengths, row_length, seed=seed, epoch=3, packing=packing)
            check_plan(plan, lengths, row_length)
            assert packing or len(plan) == n


def test_given_order_without_a_seed() -> None:
    assert plan_rows(np.asarray([2, 9, 4]), 10, seed=None, packing=False).order.tolist() == [0, 1, 2]


def test_best_fit_takes_the_fullest_row_that_has_room() -> None:
    # 7 and 6 open rows with room 3 and 4; 4 fits the second alone; 3 then fits the first; 1 finds no room.
    plan = plan_rows(np.asarray([7, 6, 4, 3, 1]), 10, seed=None)
    assert list(rows_of(plan)) == [[0, 3], [1, 2], [4]]


@pytest.mark.parametrize("n", [300, 20_000])
def test_rows_are_full(n: int) -> None:
    lengths = realistic_lengths(n)
    plan = plan_rows(lengths, 2048, seed=0)
    assert lengths.sum() / (len(plan) * 2048) >= 0.97
    check_plan(plan, lengths, 2048)


def pairs(plan: Plan) -> set[tuple[int, int]]:
    return {(a, b) for row in rows_of(plan) for a in row for b in row if a < b}


def test_epochs_have_different_neighbours_and_order() -> None:
    lengths = realistic_lengths(4000)
    plans = [plan_rows(lengths, 2048, seed=0, epoch=epoch) for epoch in (0, 1, 2)]
    for plan, other in zip(plans, plans[1:], strict=False):
        assert len(pairs(plan) & pairs(other)) / len(pairs(plan)) < 0.1
        assert not np.array_equal(plan.order, other.order)
    again, other_seed = (plan_rows(lengths, 2048, seed=seed, epoch=0) for seed in (0, 1))
    assert np.array_equal(again.order, plans[0].order) and np.array_equal(again.starts, plans[0].starts)
    assert not np.array_equal(other_seed.order, plans[0].order)


def test_long_examples_are_spread_over_the_epoch() -> None:
    """Best fit makes the rows of the longest first; training must not see them in that order."""
    lengths = realistic_lengths(4000)
    plan = plan_rows(lengths, 2048, seed=0)
    longest = np.asarray([lengths[row].max() for row in rows_of(plan)], np.float64)
    half = len(longest) // 2
    assert abs(longest[:half].mean() / longest[half:].mean() - 1) < 0.1


def splitmix_order(n: int, *salt: int) -> list[int]:
    """`shuffled` in whole numbers: the order of a run must not depend on anyone's version of anything."""
    keys = []
    for i in range(n):
        z = i
        for word in salt:
            z = ((z ^ word) + 0x9E3779B97F4A7C15) % 2**64
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
            z ^= z >> 31
        keys.append(z)
    return sorted(range(n), key=keys.__getitem__)


def test_shuffles_are_fixed_for_ever() -> None:
    for salt in ((0, 0), (3407, 2), (1, 2, 3), (2**63,)):
        assert shuffled(1000, *salt).tolist() == splitmix_order(1000, *salt)
    assert shuffled(8, 0, 0).tolist() == [1, 2, 4, 0, 6, 7, 3, 5]  # a changed shuffle breaks every run that resumes
    first = [int(shuffled(10, seed, 0)[0]) for seed in range(2000)]
    assert min(Counter(first).values()) > 140  # of 200 each


# --- rows and batches


def test_fill_rows_worked_example() -> None:
    source = dataclasses.replace(source_of([3, 2]), tokens=np.asarray([7, 8, 9, 4, 5]), flags=np.asarray([0, 1, 1, 0, 1], np.uint8))
    row = {name: values.tolist() for name, values in fill_row(examples_of(source), np.asarray([0, 1]), 6).items()}
    assert row == {
        "tokens": [7, 8, 9, 4, 5, 0], "targets": [8, 9, 0, 5, 0, 0], "loss_mask": [1, 1, 0, 1, 0, 0],
        "segment_ids": [1, 1, 1, 2, 2, 0], "positions": [0, 1, 2, 0, 1, 0],
    }  # fmt: skip


def test_dtypes_and_shapes() -> None:
    batch = Batches(examples_of(source_of([3, 4, 5, 6])), 8, batch_size=4, accumulation=2, seed=0).batch_at(0)
    assert {name: (values.shape, values.dtype) for name, values in batch.items()} == {
        name: ((2, 2, 8), np.dtype(np.float32 if name == "loss_mask" else np.int32))
        for name in ("tokens", "targets", "loss_mask", "segment_ids", "positions")
    }


def contents(batch: Batch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(tokens, trained targets) of every segment of a batch, read back from the arrays alone."""
    found = []
    names = ("tokens", "targets", "loss_mask", "segment_ids", "positions")
    rows = (batch[name].reshape(-1, batch[name].shape[-1]) for name in names)
    for tokens, targets, mask, segments, positions in zip(*rows, strict=True):
        assert not mask[segments == 0].any() and not tokens[segments == 0].any()
        assert sorted(set(segments[segments > 0].tolist())) == list(range(1, segments.max() + 1))
        for segment in range(1, segments.max() + 1):
            here = segments == segment
            assert positions[here].tolist() == list(range(here.sum()))
            assert mask[here][-1] == 0 and targets[here][:-1].tolist() == tokens[here][1:].tolist()
            found.append((tuple(tokens[here].tolist()), tuple(targets[here & (mask > 0)].tolist())))
    return found


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_no_example_lost_or_doubled_in_an_epoch(packing: bool, batch_size: int) -> None:
    examples = examples_of(source_of(np.random.default_rng(0).integers(2, 33, 61)))
    expected: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for tokens, flags in map(examples.tokens_of, range(len(examples))):
        expected[(tuple(tokens.tolist()), tuple(tokens[1:][flags[1:] & FLAG_TRAINED > 0].tolist()))] += 1
    batches = Batches(examples, 32, batch_size, epochs=3, seed=5, packing=packing)
    rows = [contents({name: values[:, r : r + 1] for name, values in batches.batch_at(step).items()})
            for step in range(batches.steps) for r in range(batch_size)]  # fmt: skip
    size = batches.rows_per_epoch
    assert 3 * size <= len(rows) < 3 * size + batch_size and not any(rows[3 * size :])  # the last batch is filled up
    for epoch in range(3):  # an epoch's rows follow each other, also where a batch holds the end of one and the start of the next
        of_epoch = rows[epoch * size : (epoch + 1) * size]
        assert Counter(segment for row in of_epoch for segment in row) == expected


@pytest.mark.parametrize("mix", [{}, {"weights": (0.5, 0.5)}], ids=["all", "weights"])
@pytest.mark.parametrize("packing", [True, False])
def test_no_step_is_without_tokens(mix: dict[str, tuple[float, ...]], packing: bool) -> None:
    """Rows that packing left over are spread: at the end of each epoch 8 would make a whole batch of nothing."""
    n = 20_000 if packing else 500
    examples = examples_of(source_of(realistic_lengths(n, seed=1)), source_of(realistic_lengths(n, seed=2)))
    batches = Batches(examples, 2048, batch_size=8, epochs=2, seed=0, packing=packing, **mix)  # type: ignore[arg-type]
    assert all(any(len(members) for members in batches.members_at(step)) for step in range(batches.steps))
    if packing:
        empty = [r for r, row in enumerate(rows_of(batches.plan(0))) if not row]
        assert len(empty) >= (10 if mix else 3) and np.ptp(np.diff(empty)) <= 1
        assert Counter(batches.plan(1).order.tolist()) == Counter(draw(batches.mixture, 0, 1).tolist())


def test_a_last_batch_of_one_row_has_tokens() -> None:
    """Three rows and a slack one, in batches of 3: the last batch is the last row."""
    plan = plan_rows(np.asarray([8, 8, 8]), 8, seed=0, rows=4)
    assert [len(row) for row in rows_of(plan)] == [1, 1, 0, 1] and sorted(plan.order.tolist()) == [0, 1, 2]


def test_the_last_batch_is_filled_with_empty_rows() -> None:
    batches = Batches(examples_of(source_of([8] * 5)), 8, batch_size=4, seed=0)
    assert batches.steps == 2
    last = batches.batch_at(1)
    assert (last["segment_ids"][0].max(axis=1) > 0).tolist() == [True, False, False, False]
    assert all(not values[0, 1:].any() for values in last.values())
    assert [len(members) for members in batches.members_at(1)] == [1, 0, 0, 0]


def test_members_are_the_segments() -> None:
    examples = examples_of(source_of(np.random.default_rng(0).integers(2, 20, 40)))
    batches = Batches(examples, 32, batch_size=3, epochs=2, seed=1)
    for step in range(batches.steps):
        batch = batches.batch_at(step)
        for row, members in enumerate(batches.members_at(step)):
            assert batch["segment_ids"][0, row].max() == len(members)
            for segment, i in enumerate(members, start=1):
                tokens = batch["tokens"][0, row][batch["segment_ids"][0, row] == segment]
                assert np.array_equal(tokens, examples.tokens_of(int(i))[0])
        assert batches.ids_at(step) == [f"s{i}" for members in batches.members_at(step) for i in members]


def same(a: Batch, b: Batch) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a | b)


def test_any_step_in_any_order_from_a_new_object() -> None:
    examples = examples_of(source_of(np.random.default_rng(0).integers(2, 33, 50)))
    make = partial(Batches, examples, 32, batch_size=6, accumulation=2, epochs=5, seed=11)
    batches = make()
    in_order = [batches.batch_at(step) for step in range(batches.steps)]
    assert len(in_order) > 15
    for step in (0, 7, len(in_order) - 1):
        assert same(make().batch_at(step), in_order[step])
    back_and_forth = make()
    for step in np.random.default_rng(1).permutation(len(in_order)):
        assert same(back_and_forth.batch_at(int(step)), in_order[step])
    assert same(batches.batch_at(0), in_order[0])


def test_accumulation_only_groups_the_rows() -> None:
    examples = examples_of(source_of(np.random.default_rng(0).integers(2, 33, 50)))
    flat = Batches(examples, 32, batch_size=8, seed=1).batch_at(1)
    grouped = Batches(examples, 32, batch_size=8, accumulation=4, seed=1).batch_at(1)
    assert all(np.array_equal(flat[name].reshape(4, 2, 32), grouped[name]) for name in flat)


def test_a_run_of_so_many_steps_has_epochs_without_end() -> None:
    batches = Batches(examples_of(source_of([5, 6, 7])), 8, batch_size=2, max_steps=400, seed=0)
    assert batches.steps == 400 and [len(members) for members in batches.members_at(300)] == [1, 1]
    for step in range(0, 300, 50):
        batches.batch_at(step)
    assert len(batches._plans) <= 2  # plans of earlier epochs are let go


def test_a_far_step_plans_no_more_than_a_near_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 200,000 steps the batch of step 150,000 costs what that of step 1 costs: one epoch's plan, whatever comes before."""
    calls: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Plan:
        calls.append(kwargs["epoch"])
        return plan_rows(*args, **kwargs)

    monkeypatch.setattr(pack, "plan_rows", counted)
    examples = examples_of(source_of(realistic_lengths(500)))
    for weights in ((), (1.0,)):
        for step in (1, 150_000):
            calls.clear()
            batches = Batches(examples, 2048, batch_size=4, max_steps=200_000, seed=0, weights=weights)
            batches.batch_at(step)
            first, last = 4 * step // batches.rows_per_epoch, (4 * step + 3) // batches.rows_per_epoch
            assert calls == list(range(first, last + 1)) and len(calls) <= 2


def test_rows_needed_is_what_best_fit_decreasing_makes() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 400))
        for lengths in (realistic_lengths(n, 256, seed), rng.integers(1, 65, n), rng.integers(1, 5, n), np.full(n, 64)):
            for row_length in (256, 257):
                rows: list[int] = []  # room of each; the fullest that has room is the one with the least
                for length in sorted(lengths.tolist(), reverse=True):
                    fits = [row for row, room in enumerate(rows) if room >= length]
                    row = min(fits, key=rows.__getitem__) if fits else len(rows)
                    rows += [row_length] * (not fits)
                    rows[row] -= length
                assert rows_needed(lengths, row_length) == len(rows)


def test_every_epoch_has_the_same_number_of_rows() -> None:
    for n in (1, 3, 40, 2500):
        lengths = realistic_lengths(n)
        examples = examples_of(source_of(lengths))
        batches = Batches(examples, 2048, batch_size=4, epochs=7, seed=1)
        assert rows_needed(lengths, 2048) <= batches.rows_per_epoch <= rows_needed(lengths, 2048) * 1.001
        for epoch in range(7):
            plan = batches.plan(epoch)
            assert len(plan) == batches.rows_per_epoch and plan.left_out == 0 and sorted(plan.order.tolist()) == list(range(n))
            assert all(lengths[plan.row(r)].sum() <= 2048 for r in range(len(plan)))


def test_an_order_that_needs_more_rows_is_disturbed_less() -> None:
    """Never an example lost while the undisturbed order fits; here the fully disturbed one does not, in some epochs."""
    lengths = realistic_lengths(3000)
    rows = rows_needed(lengths, 2048)
    tight = [epoch for epoch in range(12) if len(plan_rows(lengths, 2048, seed=0, epoch=epoch)) > rows]
    assert tight
    for epoch in tight:
        plan = plan_rows(lengths, 2048, seed=0, epoch=epoch, rows=rows)
        assert plan.left_out == 0 and len(plan) == rows


def test_too_few_rows_leave_examples_out_and_count_them() -> None:
    lengths = realistic_lengths(300)
    plan = plan_rows(lengths, 2048, seed=0, epoch=2, rows=rows_needed(lengths, 2048) - 3)
    assert len(plan) == rows_needed(lengths, 2048) - 3 and plan.left_out == 300 - len(plan.order) > 0
    assert len(set(plan.order.tolist())) == len(plan.order)


def test_stats_of_the_first_epoch() -> None:
    examples = examples_of(source_of([8, 5, 3, 4]))
    batches = Batches(examples, 8, batch_size=2, seed=0)
    trained = int(examples.trained.sum())
    assert batches.stats() == {"rows": 3, "examples": 4, "tokens": 20, "trained": trained, "fill": 20 / 24, "left_out": 0}


def test_prefetch_gives_the_batches_in_order() -> None:
    batches = Batches(examples_of(source_of(realistic_lengths(200, 32))), 32, batch_size=4, epochs=2, seed=0)
    placed_in = set()

    def place(batch: Batch) -> int:
        placed_in.add(threading.current_thread().name)
        return int(batch["tokens"].sum())

    found = list(prefetch(batches, 3, batches.steps, place))
    assert [step for step, *_ in found] == list(range(3, batches.steps)) and len(found) > 10
    assert all(same(batch, batches.batch_at(step)) and placed == batch["tokens"].sum() for step, batch, placed in found)
    assert all(name.startswith("prefetch") for name in placed_in)
    assert list(prefetch(batches, 5, 5, place)) == []


def test_prefetch_is_bounded_raises_and_closes() -> None:
    made: list[int] = []

    class Failing:
        def batch_at(self, step: int) -> Batch:
            made.append(step)
            if step == 4:
                raise FloatingPointError("step 4")
            return {}

    def threads() -> int:
        return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())

    batches = prefetch(Failing(), 0, 100, len)  # type: ignore[arg-type]
    assert [next(batches)[0] for _ in range(2)] == [0, 1]
    time.sleep(0.05)
    assert made == [0, 1, 2, 3] and threads() == 1
    batches.close()
    assert threads() == 0
    with pytest.raises(FloatingPointError, match="step 4"):
        for step, *_ in prefetch(Failing(), 2, 100, len):  # type: ignore[arg-type]
            assert step < 4
    assert threads() == 0


# --- what the model makes of it


@cache
def model(full: bool) -> tuple[Skeleton, Params]:
    config = tiny.model_config()
    lora = LoraConfig(full=True) if full else LoraConfig(rank=4, alpha=6.0, modules_to_save=("embed_tokens", "lm_head"))
    made = skeleton(config, lora)
    return made, tiny.new_params(config, made)


@cache
def step_of(full: bool):  # type: ignore[no-untyped-def]
    """train_step with an "optimizer" that moves nothing and hands out the gradients as its state."""
    keep = optax.GradientTransformation(
        lambda params: jax.tree.map(np.zeros_like, params),
        lambda grads, state, params=None: (jax.tree.map(jax.numpy.zeros_like, grads), grads),
    )
    return jax.jit(partial(train_step, model=model(full)[0], tx=keep, chunk=24))


def loss_and_gradients(batch: Batch, full: bool) -> tuple[float, float, dict[str, np.ndarray]]:
    made, params = model(full)
    trainable = {name: params[name] for name in made.trainable}
    frozen = {name: params[name] for name in made.frozen}
    _, grads, metrics = step_of(full)(trainable, trainable, frozen, batch)
    return float(metrics["loss"]), float(metrics["tokens"]), {name: np.asarray(grad) for name, grad in grads.items()}


def agree(batch: Batch, other: Batch, full: bool) -> None:
    loss, tokens, grads = loss_and_gradients(batch, full)
    other_loss, other_tokens, other_grads = loss_and_gradients(other, full)
    assert tokens == other_tokens > 50 and loss > 1
    assert loss == pytest.approx(other_loss, rel=1e-5)
    for name, grad in grads.items():
        assert np.linalg.norm(grad) > 1e-4, name
        assert np.linalg.norm(grad - other_grads[name]) <= 1e-5 * np.linalg.norm(grad), name


@pytest.mark.parametrize("full", [True, False], ids=["full", "lora"])
def test_packed_equals_unpacked(full: bool) -> None:
    examples = examples_of(source_of([29, 5, 48, 11, 2, 17, 30, 19, 7, 40]))
    packed, unpacked = (Batches(examples, 48, batch_size=10, seed=0, packing=packing) for packing in (True, False))
    sizes = [len(members) for members in packed.members_at(0)]
    assert packed.steps == unpacked.steps == 1 and max(sizes) > 2 and sizes.count(0) == 5
    agree(packed.batch_at(0), unpacked.batch_at(0), full)


def test_one_times_eight_equals_eight_times_one() -> None:
    """Microbatches of few and of many trained tokens, one of none: the division is by the count of all."""
    batch = tiny.random_batch(rows=10, length=48)  # two rows stay empty: the shape is the one compiled above
    for name in batch:
        batch[name][:, 8:] = 0
    batch["loss_mask"] *= np.random.default_rng(0).random((1, 10, 48)) < np.linspace(0, 1.2, 10)[None, :, None]
    tokens = batch["loss_mask"].sum(axis=(0, 2)).tolist()
    assert tokens[0] == 0 and len(set(tokens[:8])) > 6
    agree(batch, {name: values.reshape(10, 1, 48)[:8] for name, values in batch.items()}, full=False)
