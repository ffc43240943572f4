"""Examples → rows → batches. A batch is a function of (seed, step) alone: nothing to save, no step depends on the one before.

Each epoch has its own order and its own neighbours in a row, and all epochs have the same number of rows, so that any step is found
at once. Segment ids count the examples of a row from 1; 0 is padding; positions begin again in each segment.
"""

import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from alif_jax.data.fit import Examples
from alif_jax.data.mixture import Mixture, concatenation, draw, realised_shares, shuffled, substitution, weighting
from alif_jax.data.template import FLAG_TRAINED

Batch = dict[str, np.ndarray]
Placed = TypeVar("Placed")
JITTER = 0.3  # 4,000 lognormal lengths: 2 % of the pairs in a row meet again in the next epoch (without: 20 %), fill 99.7 %
SLACK = 1000  # one row more than packing needs for so many; disturbed orders of 50,000 lognormal lengths needed 1 for 3,000 at most
SAMPLED_SLACK = 200  # an epoch that is drawn anew has another number of tokens
LOOKED, DRAWS = 16, 2_000_000  # epochs of a sampled mixture that decide how many rows all have, and examples drawn for it


@dataclass(frozen=True)
class Plan:
    """Rows of one epoch: row r holds the examples `order[starts[r]:starts[r + 1]]`, in this order."""

    order: np.ndarray  # int64 [n]
    starts: np.ndarray  # int64 [rows + 1]
    left_out: int = 0  # examples for which there was no row

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, r: int) -> np.ndarray:
        return self.order[self.starts[r] : self.starts[r + 1]]


def plan_rows(
    lengths: np.ndarray, row_length: int, *, seed: int | None, epoch: int = 0, packing: bool = True, rows: int | None = None
) -> Plan:
    """Which examples share a row in this epoch. seed None: the given order (evaluation).

    Packing is best-fit decreasing: the longest first, each into the fullest row that still has room.

        lengths [5, 3, 4, 2], row_length 8   →   rows {5, 3} {4, 2}

    With a seed the order by length is disturbed by up to JITTER, else the same lengths would meet in every epoch. rows: exactly so
    many; where the disturbed order needs more it is disturbed less, at last not at all. If even that does not do, the last rows
    are left out and their examples counted; never with rows ≥ `rows_needed` of these lengths. Empty rows stand at equal distances,
    never at the end: while they are at most half, no two rows that follow each other are empty, so no batch of several rows is.
    """
    n = len(lengths)
    for jitter in (JITTER, JITTER / 2, JITTER / 4, 0.0):
        members = _rows(lengths, row_length, seed, epoch, packing, jitter)
        if rows is None or len(members) <= rows:
            break
    if seed is not None:
        members = [members[i] for i in shuffled(len(members), seed, epoch, 1)]
    members = members[:rows]
    sizes = np.zeros(len(members) if rows is None else rows, np.int64)
    sizes[np.arange(1, len(members) + 1) * len(sizes) // max(len(members), 1) - 1] = [len(row) for row in members]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Plan(np.asarray([i for row in members for i in row], np.int64), starts, n - int(starts[-1]))


def _rows(lengths: np.ndarray, row_length: int, seed: int | None, epoch: int, packing: bool, jitter: float) -> list[list[int]]:
    n = len(lengths)
    order, size = np.arange(n), lengths.astype(np.float64)
    if seed is not None:
        order = shuffled(n, seed, epoch)
        size = size * (1 - jitter * shuffled(n, seed, epoch, 2) / n)
    if not packing:
        return [[i] for i in order.tolist()]
    return _best_fit(order[np.argsort(-size[order], kind="stable")], lengths, row_length)


def _best_fit(order: np.ndarray, lengths: np.ndarray, row_length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    rooms: list[int] = []  # sorted sizes of room that some row has
    rows_with: dict[int, list[int]] = {}  # room → rows
    for i, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        at = bisect_left(rooms, length)
        if at == len(rooms):
            row, room = len(rows), row_length
            rows.append([i])
        else:
            room = rooms[at]
            row = rows_with[room].pop()
            rows[row].append(i)
            if not rows_with[room]:
                del rooms[at], rows_with[room]
        room -= length
        if room in rows_with:
            rows_with[room].append(row)
        elif room:
            insort(rooms, room)
            rows_with[room] = [row]
    return rows


def rows_needed(lengths: np.ndarray, row_length: int) -> int:
    """How many rows best-fit decreasing makes of these lengths: `_best_fit` without its members, all examples of a length at once.

    In the fullest row that has room an example leaves less room, so the next of its length goes into the same row, while it fits.
    """
    rows, rooms, rows_with = 0, list[int](), dict[int, int]()
    counts = np.bincount(lengths)
    for length in np.flatnonzero(counts)[::-1].tolist():
        count = int(counts[length])
        while count:
            at = bisect_left(rooms, length)
            new = at == len(rooms)
            room = row_length if new else rooms[at]
            each = min(count, room // length)  # examples that one such row takes
            some = count // each if new else min(count // each, rows_with[room])
            count -= some * each
            if new:
                rows += some
            else:
                rows_with[room] -= some
                if not rows_with[room]:
                    del rooms[at], rows_with[room]
            left = room - each * length
            if left in rows_with:
                rows_with[left] += some
            elif left:
                insort(rooms, left)
                rows_with[left] = some
    return rows


def fill_row(examples: Examples, members: np.ndarray, row_length: int) -> Batch:
    """One row: tokens, targets (the next token of the same segment), loss_mask, segment_ids, positions, each [L].

    Examples [7 8 9] (8, 9 trained) and [4 5] (5 trained) in a row of 6:

        tokens      7 8 9 4 5 0      loss_mask   1 1 0 1 0 0
        targets     8 9 0 5 0 0      segment_ids 1 1 1 2 2 0      positions 0 1 2 0 1 0
    """
    row = {name: np.zeros(row_length, np.int32) for name in ("tokens", "targets", "segment_ids", "positions")}
    row["loss_mask"] = np.zeros(row_length, np.float32)
    at = 0
    for segment, i in enumerate(members.tolist(), start=1):
        tokens, flags = examples.tokens_of(i)
        end = at + len(tokens)
        row["tokens"][at:end] = tokens
        row["targets"][at : end - 1] = tokens[1:]
        row["loss_mask"][at : end - 1] = flags[1:] & FLAG_TRAINED
        row["segment_ids"][at:end] = segment
        row["positions"][at:end] = np.arange(end - at)
        at = end
    return row


@dataclass
class Batches:
    """The batches of a run: `batch_at(step)`, for step in range(steps).

    batch_size: rows an optimizer step. accumulation: microbatches it is made of. epochs: passes over the data, unless max_steps
    says how long the run is. seed None: in the given order, every example once (evaluation). weights, max_epochs, substitute: as
    in DataConfig; without them an epoch is every example once.

    Row r of the run is row r % rows_per_epoch of epoch r // rows_per_epoch. Every example that an epoch draws has a row, but
    for weights: there it is promised of the first LOOKED epochs only (fewer, where they draw more than DRAWS), see `left_out`.
    """

    examples: Examples
    row_length: int
    batch_size: int
    accumulation: int = 1
    epochs: int = 1
    max_steps: int = 0
    seed: int | None = None
    packing: bool = True
    weights: tuple[float, ...] = ()
    max_epochs: tuple[float, ...] = ()
    substitute: tuple[int, ...] = ()
    _plans: dict[int, Plan] = field(default_factory=dict)
    _planning: threading.Lock = field(default_factory=threading.Lock)  # the thread of `prefetch` and who asks for members

    @cached_property
    def mixture(self) -> Mixture:
        if self.weights:
            return weighting(
                self.examples, self.weights, self.max_epochs, epochs=self.epochs, rows=self.max_steps * self.batch_size,
                rows_of=partial(rows_needed, row_length=self.row_length) if self.packing else None,
            )  # fmt: skip
        if self.substitute:
            return substitution(self.examples, self.substitute, self.seed or 0)
        return concatenation(self.examples)

    @cached_property
    def rows_per_epoch(self) -> int:
        """Of the LOOKED first epochs the one that needs most decides, however long the run is: a run may be made longer."""
        mixture = self.mixture
        if not self.packing:
            return sum(-int(-per_epoch // 1) for per_epoch in mixture.per_epoch)
        rows = max(map(self._rows_needed, range(self._within_draws(LOOKED))))
        if self.seed is None:
            return rows
        return rows + (-(-rows // SAMPLED_SLACK) if mixture.sampled else rows // SLACK)

    def _rows_needed(self, epoch: int) -> int:
        return rows_needed(self.examples.lengths[draw(self.mixture, self.seed or 0, epoch)], self.row_length)

    def _within_draws(self, epochs: int) -> int:
        """How many of the first epochs may be drawn to look at them; epochs of many examples hardly differ in their rows."""
        return max(1, min(epochs, int(DRAWS / sum(self.mixture.per_epoch)))) if self.mixture.sampled else 1

    @property
    def steps(self) -> int:
        """Optimizer steps of the run; the last batch is filled up with empty rows."""
        return self.max_steps or -(-self.epochs * self.rows_per_epoch // self.batch_size)

    def plan(self, epoch: int) -> Plan:
        """The rows of an epoch, as indices into `examples`."""
        with self._planning:
            if epoch not in self._plans:
                if len(self._plans) >= 2:  # a batch touches at most a few neighbouring epochs
                    self._plans.pop(min(self._plans))
                drawn = draw(self.mixture, self.seed or 0, epoch)
                plan = plan_rows(
                    self.examples.lengths[drawn], self.row_length, seed=self.seed, epoch=epoch, packing=self.packing,
                    rows=self.rows_per_epoch,
                )  # fmt: skip
                self._plans[epoch] = Plan(drawn[plan.order], plan.starts, plan.left_out)
            return self._plans[epoch]

    def members_at(self, step: int) -> list[np.ndarray]:
        """The examples of each row of the step's batch, in segment order."""
        rows: list[np.ndarray] = []
        for row in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, r = divmod(row, self.rows_per_epoch)
            inside = self.max_steps or epoch < self.epochs
            rows.append(self.plan(epoch).row(r) if inside else np.zeros(0, np.int64))
        return rows

    def ids_at(self, step: int) -> list[str]:
        """The ids of the records of the step's batch, each once."""
        return list(dict.fromkeys(self.examples.id_of(int(i)) for members in self.members_at(step) for i in members))

    def batch_at(self, step: int) -> Batch:
        """The step's global batch: tokens, targets, loss_mask, segment_ids, positions, each [accumulation, rows, L]."""
        rows = [fill_row(self.examples, members, self.row_length) for members in self.members_at(step)]
        return {name: np.stack([row[name] for row in rows]).reshape(self.accumulation, -1, self.row_length) for name in rows[0]}

    def shares(self) -> list[dict[str, Any]]:
        """`realised_shares` of the rows that run; of the last epoch of max_steps perhaps not all."""
        epochs, rows = divmod(self.max_steps * self.batch_size, self.rows_per_epoch) if self.max_steps else (self.epochs, 0)
        plan = self.plan(epochs if rows else 0)
        return realised_shares(self.mixture, self.examples, self.seed or 0, epochs, plan.order[: plan.starts[rows]])

    @cached_property
    def left_out(self) -> int:
        """Examples drawn that have no row, in all epochs of the run, or in as many of the first as DRAWS examples make."""
        if not self.packing:
            return 0
        epochs = self._within_draws(-(-self.steps * self.batch_size // self.rows_per_epoch))
        late = range(self._within_draws(LOOKED), epochs)  # the earlier ones have rows enough
        return sum(self.plan(epoch).left_out for epoch in late if self._rows_needed(epoch) > self.rows_per_epoch)

    def stats(self) -> dict[str, Any]:
        """Of the first epoch: rows, examples, tokens, trained (tokens), fill (share of the rows). Of the run: `left_out`."""
        plan = self.plan(0)
        lengths, trained = self.examples.lengths[plan.order], self.examples.trained[plan.order]
        fill = float(lengths.sum()) / (len(plan) * self.row_length)
        counts = {"examples": len(plan.order), "tokens": int(lengths.sum()), "trained": int(trained.sum())}
        return {"rows": len(plan), **counts, "fill": fill, "left_out": self.left_out}


def prefetch(
    batches: Batches, first: int, last: int, place: Callable[[Batch], Placed], *, ahead: int = 2
) -> Generator[tuple[int, Batch, Placed], None, None]:
    """(step, batch, place(batch)) of the steps first … last - 1, by a thread at most `ahead` batches before the reader.

    place: puts a batch on the devices, so that it is there when its step begins.
    What fails in the thread is raised here, at its step. Closing the iterator ends the thread.
    """

    def make(step: int) -> tuple[int, Batch, Placed]:
        batch = batches.batch_at(step)
        return step, batch, place(batch)

    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        steps = iter(range(first, last))
        waiting = deque(thread.submit(make, step) for step in islice(steps, ahead))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(thread.submit(make, step) for step in islice(steps, 1))
                yield made
        finally:
            thread.shutdown(cancel_futures=True)
