"""The engine: a bounded queue of requests, and lanes that take from it between their steps. Token ids in, token ids out.

    engine = Engine({"alif": load_model(path, mesh)}, batch_size=8, max_length=4096, max_queue=1024)
    engine.start()
    ticket = engine.submit("alif", ids, Sampling(max_tokens=64), print)
    engine.stop(drain=True)

Greedy tokens, and those sampled with a seed, are `generate`'s (in fp32; bf16 rounds elsewhere). A row's bits do not depend on its
neighbours, nor on when it joined: every program has one fixed width. Single process, any mesh. Not here: text, HTTP (app.py),
what runs on the device (decode.py).
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from alif_jax import UsageError
from alif_jax.load import Loaded
from alif_jax.serve.decode import CHUNKS, slots
from alif_jax.serve.lane import Counts, Lane, Sampling, Served, Ticket, Token, Update
from alif_jax.serve.weights import bytes_of, weights_of
from alif_jax.sharding import batch_parts

__all__ = ["Engine", "QueueFull", "Sampling", "Stats", "Ticket", "Token", "Update"]

NARROW = 4  # rows of a lane, of a model so small that products of more rows take as much longer as they are more
REMEMBERED, RECENT = 64, 60.0  # ends of requests, of so many seconds, for the rate at which they come


class QueueFull(Exception):
    """As many requests wait as may. retry_after: seconds until half of them will have been taken, from the rate of late."""

    def __init__(self, retry_after: float):
        super().__init__(f"the queue is full; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Stats:
    """waiting: for a row. finished: requests by finish_reason. alive: False once the engine has ended, whatever ended it."""

    waiting: int
    running: int
    prompt_tokens: int
    generated_tokens: int
    finished: Mapping[str, int]
    alive: bool


class Engine:
    """models: by name, all on one mesh; what they share they share here too (`load_adapter`).

    batch_size: rows a model, computed whether in use or not. max_length: tokens a request may have, prompt and answer together.
    max_queue: requests that may wait. On one CPU device the weights are copied (`weights_of`): drop the loaded models after
    this. Raises UsageError for what does not fit.
    """

    def __init__(self, models: Mapping[str, Loaded], *, batch_size: int, max_length: int, max_queue: int) -> None:
        _check(models, batch_size, max_length, max_queue)
        self.mesh = next(iter(models.values())).mesh
        self.max_length, self.max_queue = max_length, max_queue
        weights = weights_of(models)
        self.weight_bytes = bytes_of(weights)
        self._served = {
            name: Served(loaded.config, weights[name], loaded.skeleton.dtype, loaded.tokenizer.stop_ids)
            for name, loaded in models.items()
        }
        width = math.gcd(NARROW, batch_size) if all(one.cached for one in weights.values()) else batch_size
        with jax.set_mesh(self.mesh):
            self._lanes = [Lane(self._served, self.mesh, width, max_length) for _ in range(batch_size // width)]
        self._rows = batch_size * len(models)
        self._threads = [threading.Thread(target=self._drive, args=(lane,), name="engine", daemon=True) for lane in self._lanes]
        self._changed = threading.Condition()  # guards all that follows
        self._queues: dict[str, deque[Ticket]] = {name: deque() for name in models}
        self._left: list[Ticket] = []  # cancelled while they waited
        self._number = self._running = 0
        self._totals = Counts()
        self._ends: deque[float] = deque(maxlen=REMEMBERED)
        self._closed = self._failed = self._abandoned = False

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, drain: bool) -> None:
        """Takes no more requests, and returns when the others are finished (drain) or cancelled."""
        with self._changed:
            self._closed, self._abandoned = True, not drain
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def submit(self, model: str, prompt_ids: Sequence[int], sampling: Sampling, listener: Callable[[Update], None]) -> Ticket:
        """Accepts a request, or raises QueueFull, or UsageError for one that cannot be.

        listener: is called in a thread of the engine, with the tokens of a few steps at a time; it must return at once and not
        raise.
        """
        sampling.validate()
        ids = self._checked(model, prompt_ids, sampling.max_tokens)
        with self._changed:
            self._admit(1)
            return self._accept(model, ids, sampling, listener)

    def cancel(self, ticket: Ticket) -> None:
        """The request's row is free before the lane's next steps; its listener hears `cancelled`, or of the end it had by then."""
        with self._changed:
            self._cancel(ticket)
            self._changed.notify_all()

    def embed(self, model: str, prompts: Sequence[Sequence[int]]) -> "Future[np.ndarray]":
        """[n, D] means of the final hidden states over each prompt's tokens, in fp32. Each prompt waits in the queue.

        Raises as `submit`; the future raises CancelledError where the engine ends before. Who cancels it frees its rows.
        """
        checked = [self._checked(model, ids, 0) for ids in prompts]
        future: Future[np.ndarray] = Future()
        if not checked:
            future.set_result(np.zeros((0, self._served[model].config.hidden_size), np.float32))
            return future
        tickets: list[Ticket] = []
        means: list[np.ndarray | None] = [None] * len(checked)
        lock = threading.Lock()

        def heard(ticket: Ticket, place: int, update: Update) -> None:
            with lock:
                if update.finish_reason != "stop":
                    future.cancel()
                else:
                    means[place] = ticket.mean_D
                    if all(mean is not None for mean in means) and future.set_running_or_notify_cancel():
                        future.set_result(np.stack([mean for mean in means if mean is not None]))

        with self._changed:
            self._admit(len(checked))
            for place, ids in enumerate(checked):
                ticket = self._accept(model, ids, Sampling(max_tokens=1), lambda update: None, embeds=True)
                ticket.listener = partial(heard, ticket, place)
                tickets.append(ticket)

        def let_go(done: "Future[np.ndarray]") -> None:
            for ticket in tickets if done.cancelled() else ():
                self.cancel(ticket)

        future.add_done_callback(let_go)
        return future

    def stats(self) -> Stats:
        with self._changed:
            totals, waiting = self._totals, sum(map(len, self._queues.values()))
            alive = not self._failed and any(thread.is_alive() for thread in self._threads)
            return Stats(waiting, self._running, totals.prompt_tokens, totals.generated_tokens, dict(totals.finished), alive)

    def cache_bytes(self) -> int:
        """Of all rows of all models."""
        batches = [batch for lane in self._lanes for batch in lane.batches.values()]
        return sum(layers.nbytes for batch in batches for layers in batch.cache.values())

    def warm_up(self) -> None:
        """Compiles what requests will run, before `start`: each chunk size and the decoding of each kind of model."""
        sampling = Sampling(max_tokens=2)
        structures = {id(served.weights.structure): name for name, served in self._served.items()}
        with jax.set_mesh(self.mesh):
            for name in structures.values():
                for size in [size for size in CHUNKS if size <= slots(self.max_length)]:
                    ids = np.zeros(min(size, max(self.max_length - 2, 1)), np.int32)
                    self._lanes[0].turn([Ticket(0, name, ids, sampling, lambda update: None)])
                while self._lanes[0].running():
                    self._lanes[0].turn([])

    # --- with the lock held

    def _admit(self, count: int) -> None:
        """Raises where no more are taken."""
        if self._closed:
            raise UsageError("the engine has been stopped and takes no more requests")
        waiting = sum(map(len, self._queues.values()))
        if waiting + count > self.max_queue + max(self._rows - self._running, 0):
            ends = [end for end in self._ends if time.monotonic() - end < RECENT]
            each = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else 1.0
            raise QueueFull(min(max(waiting / 2 * each, 1.0), 60.0))

    def _accept(
        self, model: str, ids: np.ndarray, sampling: Sampling, listener: Callable[[Update], None], embeds: bool = False
    ) -> Ticket:
        self._number += 1
        ticket = Ticket(self._number, model, ids, sampling, listener, embeds)
        self._queues[model].append(ticket)
        self._changed.notify()
        return ticket

    def _waiting(self) -> list[Ticket]:
        return [ticket for queue in self._queues.values() for ticket in queue]

    def _cancel(self, ticket: Ticket) -> None:
        ticket.cancelled = True
        if ticket in self._queues[ticket.model]:
            self._queues[ticket.model].remove(ticket)
            self._left.append(ticket)

    def _joining(self, lane: Lane) -> list[Ticket]:
        """Takes from the queues, first come first served, as many as the lane has rows for; the cancelled ones with them."""
        joining, self._left = self._left, []
        free = {name: lane.free(name) for name, queue in self._queues.items() if queue}
        while open_ := [name for name, rows in free.items() if rows and self._queues[name]]:
            name = min(open_, key=lambda name: self._queues[name][0].number)
            joining.append(self._queues[name].popleft())
            free[name] -= 1
        self._running += len(joining)
        return joining

    # --- in a lane's thread

    def _drive(self, lane: Lane) -> None:
        """Turn after turn until the engine is closed and nothing is left to do. Whatever ends it, no listener is left waiting."""
        try:
            with jax.set_mesh(self.mesh):
                while self._turn(lane):
                    pass
        finally:
            self._ended(lane)

    def _turn(self, lane: Lane) -> bool:
        with self._changed:
            if self._abandoned:
                for ticket in [*self._waiting(), *lane.running()]:
                    self._cancel(ticket)
            while not (joining := self._joining(lane)) and not lane.running():
                if self._closed:
                    return False
                self._changed.wait()
        counts = lane.turn(joining)
        with self._changed:
            self._count(counts)
        return True

    def _count(self, counts: Counts) -> None:
        self._totals.prompt_tokens += counts.prompt_tokens
        self._totals.generated_tokens += counts.generated_tokens
        for reason, number in counts.finished.items():
            self._totals.finished[reason] = self._totals.finished.get(reason, 0) + number
            self._running -= number
            self._ends.extend([time.monotonic()] * number)

    def _ended(self, lane: Lane) -> None:
        """Where a lane has failed: its requests end with `error`, and as nobody may come for them, those that wait too."""
        counts = Counts()
        with self._changed:
            lost = lane.unfinished()
            if not lost and self._closed and not self._waiting():
                return
            self._closed = self._failed = True
            joining = [*self._waiting(), *self._left]
            for queue in self._queues.values():
                queue.clear()
            self._left = []
            self._running += len(joining)
            self._changed.notify_all()
        for ticket in [*lost, *joining]:
            lane.finish(ticket, (), "error", counts)
        lane.tell()
        with self._changed:
            self._count(counts)

    def _checked(self, model: str, prompt_ids: Sequence[int], max_tokens: int) -> np.ndarray:
        if model not in self._served:
            raise UsageError(f"model {model!r} is not served; there are {', '.join(self._served)}")
        ids, vocabulary = np.asarray(prompt_ids, np.int64), self._served[model].config.vocab_size
        if not len(ids):
            raise UsageError("a prompt without a single token; give at least one")
        if len(ids) + max_tokens > self.max_length:
            raise UsageError(
                f"{len(ids)} tokens of prompt and {max_tokens} new ones are more than max_length={self.max_length}; shorten the "
                "prompt, or ask for fewer"
            )
        if ids.min() < 0 or ids.max() >= vocabulary:
            raise UsageError(f"a token id of {ids.min() if ids.min() < 0 else ids.max()}; this model has 0 to {vocabulary - 1}")
        return ids.astype(np.int32)


def _check(models: Mapping[str, Loaded], batch_size: int, max_length: int, max_queue: int) -> None:
    if jax.process_count() > 1:
        raise UsageError(f"{jax.process_count()} processes: serving runs in one; start one server a host")
    if not models:
        raise UsageError("no model to serve; give at least one")
    if batch_size < 1 or max_queue < 1 or max_length < 2:
        raise UsageError(
            f"batch_size={batch_size}, max_queue={max_queue}, max_length={max_length}: at least 1, 1 and 2 (a prompt's token and "
            "a new one)"
        )
    mesh = next(iter(models.values())).mesh
    for name, loaded in models.items():
        if loaded.mesh != mesh:
            raise UsageError(f"model {name!r} is on another mesh than the first; load all on one")
        if max_length > loaded.config.max_position_embeddings:
            raise UsageError(
                f"max_length={max_length} is more than the context of {name!r}, {loaded.config.max_position_embeddings} tokens"
            )
    parts = batch_parts(mesh)
    if batch_size % parts:
        raise UsageError(
            f"batch_size={batch_size} rows cannot be divided over data × fsdp = {parts} devices; make it a multiple of {parts}"
        )
