"""Examples → rows → batches. A batch is a function of (seed, step) alone: nothing to save, no step depends on the one before.

Each epoch has its own order and its own neighbours in a row. Segment ids count the examples of a row from 1; 0 is padding;
positions begin again in each segment.
"""

from bisect import bisect_left, insort
from dataclasses import dataclass, field

import numpy as np

from alif_jax.data.template import Examples

Batch = dict[str, np.ndarray]
JITTER = 0.3  # 4,000 lognormal lengths: 2 % of the pairs in a row meet again in the next epoch (without: 20 %), fill 99.7 %


@dataclass(frozen=True)
class Plan:
    """Rows of one epoch: row r holds the examples `order[starts[r]:starts[r + 1]]`, in this order."""

    order: np.ndarray  # int32 [n]
    starts: np.ndarray  # int64 [rows + 1]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, r: int) -> np.ndarray:
        return self.order[self.starts[r] : self.starts[r + 1]]


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


def plan_rows(lengths: np.ndarray, row_length: int, *, seed: int | None, epoch: int = 0, packing: bool = True) -> Plan:
    """Which examples share a row in this epoch. seed None: the given order (evaluation).

    Packing is best-fit decreasing: the longest first, each into the fullest row that still has room.

        lengths [5, 3, 4, 2], row_length 8   →   rows {5, 3} {4, 2}

    With a seed the order by length is disturbed by up to JITTER, else the same lengths would meet in every epoch.
    """
    n = len(lengths)
    order, size = np.arange(n), lengths.astype(np.float64)
    if seed is not None:
        order = shuffled(n, seed, epoch)
        size = size * (1 - JITTER * shuffled(n, seed, epoch, 2) / n)
    rows = [[int(i)] for i in order]
    if packing:
        rows = _best_fit(order[np.argsort(-size[order], kind="stable")], lengths, row_length)
    if seed is not None:
        rows = [rows[i] for i in shuffled(len(rows), seed, epoch, 1)]
    starts = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Plan(np.asarray([i for row in rows for i in row], np.int32), starts)


def _best_fit(order: np.ndarray, lengths: np.ndarray, row_length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    rooms: list[int] = []  # sorted sizes of room that some row has
    rows_with: dict[int, list[int]] = {}  # room → rows
    for i in order:
        length = int(lengths[i])
        at = bisect_left(rooms, length)
        if at == len(rooms):
            row, room = len(rows), row_length
            rows.append([])
        else:
            room = rooms[at]
            row = rows_with[room].pop()
            if not rows_with[room]:
                del rooms[at], rows_with[room]
        rows[row].append(int(i))
        room -= length
        if room:
            if room not in rows_with:
                insort(rooms, room)
                rows_with[room] = []
            rows_with[room].append(row)
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
    for segment, i in enumerate(members, start=1):
        begin, end = examples.offsets[i], examples.offsets[i + 1]
        here = slice(at, at + end - begin)
        before_last = slice(at, at + end - begin - 1)
        row["tokens"][here] = examples.tokens[begin:end]
        row["targets"][before_last] = examples.tokens[begin + 1 : end]
        row["loss_mask"][before_last] = examples.trained[begin + 1 : end]
        row["segment_ids"][here] = segment
        row["positions"][here] = np.arange(end - begin)
        at += end - begin
    return row


@dataclass
class Batches:
    """The batches of a run: `batch_at(step)`, for step in range(steps).

    batch_size: rows an optimizer step. accumulation: microbatches it is made of. epochs: passes over the data.
    """

    examples: Examples
    row_length: int
    batch_size: int
    accumulation: int = 1
    epochs: int = 1
    seed: int | None = None
    packing: bool = True
    _plans: dict[int, Plan] = field(default_factory=dict)
    _first_row: list[int] = field(default_factory=lambda: [0])  # of each epoch, and of the next

    def plan(self, epoch: int) -> Plan:
        if epoch not in self._plans:
            if len(self._plans) >= 2:  # a batch touches at most a few neighbouring epochs
                self._plans.pop(min(self._plans))
            self._plans[epoch] = plan_rows(
                self.examples.lengths, self.row_length, seed=self.seed, epoch=epoch, packing=self.packing
            )
        return self._plans[epoch]

    def first_row(self, epoch: int) -> int:
        while len(self._first_row) <= epoch:
            self._first_row.append(self._first_row[-1] + len(self.plan(len(self._first_row) - 1)))
        return self._first_row[epoch]

    @property
    def steps(self) -> int:
        """Optimizer steps of all epochs; the last batch is filled up with empty rows."""
        return -(-self.first_row(self.epochs) // self.batch_size)

    def members_at(self, step: int) -> list[np.ndarray]:
        """The examples of each row of the step's batch, in segment order."""
        rows: list[np.ndarray] = []
        epoch = 0
        for row in range(step * self.batch_size, (step + 1) * self.batch_size):
            while epoch < self.epochs and row >= self.first_row(epoch + 1):
                epoch += 1
            inside = epoch < self.epochs
            rows.append(self.plan(epoch).row(row - self.first_row(epoch)) if inside else np.zeros(0, np.int32))
        return rows

    def batch_at(self, step: int) -> Batch:
        """The step's global batch: tokens, targets, loss_mask, segment_ids, positions, each [accumulation, rows, L]."""
        rows = [fill_row(self.examples, members, self.row_length) for members in self.members_at(step)]
        return {
            name: np.stack([row[name] for row in rows]).reshape(self.accumulation, -1, self.row_length) for name in rows[0]
        }
