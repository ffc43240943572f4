"""What ends a run early or warns of it: numbers that are not finite, spikes of the loss, no more improvement, preemption.

Each is asked by the loop in train.py; none of them saves or prints anything itself.
"""

import math
import signal
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from alif_jax import UsageError

EXIT_PREEMPTED = 75  # sysexits.h EX_TEMPFAIL: start the same command again with --resume
EXIT_NOT_FINITE = 76
WINDOW = 100  # logged steps that a spike is measured against
FEWEST = 20  # of them: below, a mean and a deviation say little


class Preempted(RuntimeError):
    """SIGTERM came; the state is saved."""


class NotFinite(RuntimeError):
    """A loss or gradient is NaN or infinite; nothing of that step is saved."""


def named_batch(ids: Sequence[str]) -> str:
    """(["a", …, 12 ids]) → "12 records: a, b, c, d, e, f, g, h, …": what a message says of a batch."""
    return f"{len(ids)} records: {', '.join(ids[:8])}{', …' if len(ids) > 8 else ''}"


class SpikeGuard:
    """Whether a loss stands out of those logged before it. History makes a resumed run judge as the undisturbed one."""

    def __init__(self, sigma: float, history: Iterable[float] = ()):
        """sigma: how many standard deviations above the mean are a spike; 0: nothing is."""
        self.sigma = sigma
        self.losses = deque(history, maxlen=WINDOW)

    def limit(self) -> float:
        """Mean + sigma · standard deviation of the last WINDOW logged losses; infinite while there are too few."""
        if not self.sigma or len(self.losses) < FEWEST:
            return math.inf
        return float(np.mean(self.losses) + self.sigma * np.std(self.losses))

    def logged(self, loss: float) -> None:
        self.losses.append(loss)


class EarlyStopping:
    """Counts evaluations without improvement. History: the evaluations before a resume, oldest first."""

    def __init__(self, patience: int, history: Iterable[float | None] = ()):
        """patience: so many evaluations in a row without a new best end the run; 0: never."""
        self.patience, self.best, self.since_best = patience, math.inf, 0
        for loss in history:
            self.improved(loss)

    def improved(self, loss: float | None) -> bool:
        """Takes the next evaluation; whether it is the best of all so far. NaN (None in metrics.jsonl) is no improvement."""
        if loss is not None and loss < self.best:
            self.best, self.since_best = loss, 0
            return True
        self.since_best += 1
        return False

    @property
    def exhausted(self) -> bool:
        return 0 < self.patience <= self.since_best


class Preemption:
    """SIGTERM as a question asked between two steps. Used as a context: outside of it SIGTERM is what it was before.

    One process: a handler of our own, for which a second SIGTERM is the same as the first. Several: JAX's preemption service, by
    which all processes hear of a SIGTERM to any of them and agree on the step after which they stop.
    """

    def __init__(self) -> None:
        self._came = False
        self._before: Any = None
        # a handler can be set in the main thread only; elsewhere SIGTERM stays the caller's matter
        self._own = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Preemption":
        if self._own:
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._own:
            signal.signal(signal.SIGTERM, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def after(self, step: int) -> bool:
        """Whether the run is to stop after this step; every process asks after every step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._came


def check_same_on_all_hosts(what: str, digest: str) -> None:
    """Raises UsageError where the processes do not agree on `digest` (hexadecimal, at least 16 digits)."""
    if jax.process_count() == 1:
        return
    mine = np.frombuffer(bytes.fromhex(digest[:16]), np.uint8)
    digests = [bytes(row).hex() for row in np.asarray(multihost_utils.process_allgather(mine))]
    if len(set(digests)) > 1:
        told = ", ".join(f"process {index}: {value}…" for index, value in enumerate(digests))
        raise UsageError(f"{what} is not the same on every host ({told}); give every host the same files and command")
