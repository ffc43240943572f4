"""What the host does beside a running device: reads each step's metrics one step late, judges them, writes a row where one is due.

At most two steps are in flight: while the device works on one, the host reads the one before and prepares the next. The loop in
train.py catches up (nothing in flight) only where it evaluates or saves.
"""

import sys
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array

from alif_jax.data.pack import Batch, Batches
from alif_jax.guards import NotFinite, SpikeGuard, named_batch
from alif_jax.metrics import MetricWriter, Pace

Row = dict[str, Any]


class InFlight(NamedTuple):
    step: int
    metrics: Mapping[str, Array]  # loss, tokens, grad_norm
    tokens: int  # that are not padding
    positions: int


class Recorder:
    """Every process has one, and all judge alike; only process 0 has a writer."""

    def __init__(
        self,
        writer: MetricWriter | None,
        *,
        batches: Batches,
        spikes: SpikeGuard,
        pace: Pace,
        learning_rate: Callable[[int], float],
        first: int,
        steps: int,
        logging_steps: int,
    ):
        """first: steps done before this process. learning_rate: by 0-based step, computed on the host: a question to the device
        would wait for the steps in flight."""
        self.writer, self.batches, self.spikes, self.pace = writer, batches, spikes, pace
        self.learning_rate, self.first, self.steps, self.logging_steps = learning_rate, first, steps, logging_steps
        self.in_flight: deque[InFlight] = deque()

    def dispatched(self, step: int, metrics: Mapping[str, Array], batch: Batch) -> None:
        """Takes the metrics of a step just handed to the device, and settles the one before it."""
        for value in metrics.values():
            value.copy_to_host_async()
        segment_ids = batch["segment_ids"]
        self.in_flight.append(InFlight(step, metrics, int(np.count_nonzero(segment_ids)), segment_ids.size))
        if len(self.in_flight) > 1:
            self.write(*self._settle())

    def catch_up(self) -> Row:
        """Waits for the newest step. Its row is not written yet: the caller adds to it what it finds out, and writes it."""
        while len(self.in_flight) > 1:
            self.write(*self._settle())
        return self._settle()[1]

    def write(self, step: int, row: Row) -> None:
        if self.writer and row:
            self.writer.write(step, row, seconds_left=self.pace.seconds_left(step, self.steps))

    def flush(self) -> None:
        if self.writer:
            self.writer.flush()

    def close(self) -> None:
        if self.writer:
            self.writer.close()

    def _settle(self) -> tuple[int, Row]:
        """The oldest step in flight and its row ({} if it is not to be logged). Raises NotFinite."""
        step, metrics, tokens, positions = self.in_flight.popleft()
        loss, trained, grad_norm = (np.asarray(metrics[name]).item() for name in ("loss", "tokens", "grad_norm"))
        self.pace.add(tokens, positions)
        finite, limit = np.isfinite(loss) and np.isfinite(grad_norm), self.spikes.limit()
        spike, regular = finite and loss > limit, step == self.steps or step % self.logging_steps == 0
        row: Row = {}
        if trained and (regular or step == self.first + 1 or spike or not finite):  # a step of empty rows says nothing
            row = {"loss": loss, "tokens": int(trained), **self.pace.row(step)}
            row |= {"grad_norm": grad_norm, "learning_rate": float(self.learning_rate(step - 1))}
            row |= {"spike": 1} if spike else {}
        if not finite:
            self.write(step, row)
            raise NotFinite(
                f"step {step}: loss {loss:.4g}, gradient norm {grad_norm:.4g}, on {named_batch(self.batches.ids_at(step - 1))}. "
                "Nothing of this step is saved. Look at these records; to go on from the last checkpoint without them, or with a "
                "lower optim.learning_rate, start another --workdir with model.init_from on this one"
            )
        if spike:
            records = named_batch(self.batches.ids_at(step - 1))
            told = f"step {step}: loss {loss:.4g} stands out (limit {limit:.4g}, from the last {len(self.spikes.losses)} logged)"
            if self.writer:
                print(f"{told}, on {records}", file=sys.stderr, flush=True)
        if row and (regular or spike):  # not the first row of a process, which an undisturbed run does not have
            self.spikes.logged(loss)
        return step, row
