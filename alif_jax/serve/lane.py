"""One lane of the engine: rows of every model that decode together, driven by one thread.

A lane is the batch of a compiled program. On an accelerator one lane has all rows; a small model on a CPU has several narrow ones,
which its cores run side by side. Not here: the queue (engine.py), the programs (decode.py).
`B` rows of a lane, `S` slots of a row, `T` steps of a dispatch, `D` model dim.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from alif_jax import UsageError
from alif_jax.model_config import ModelConfig
from alif_jax.serve.decode import INTEGERS, MOST_STEPS, MOST_TOP, Chosen, chunks, decode, empty_slots, prefill, rows_of, slots
from alif_jax.serve.weights import Weights
from alif_jax.sharding import batch_parts

DISPATCH_SECONDS = 0.02  # aimed at: longer keeps joins and cancels waiting, shorter is eaten up by the way in and out
SPARE_STOPS = 8  # stop ids are padded to a multiple, or a model with one more would be compiled again


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one request is continued. temperature 0 is greedy; seed: as `generate` draws for a single prompt.

    top_logprobs: how many of the likeliest tokens are told with each token, 0 to 20.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_logprobs: int = 0

    def validate(self) -> None:
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens={self.max_tokens}: at least 1")
        if not self.temperature >= 0 or not 0 < self.top_p <= 1:
            raise UsageError(f"temperature={self.temperature}, top_p={self.top_p}: expected temperature >= 0 and 0 < top_p <= 1")
        if not 0 <= self.top_logprobs <= MOST_TOP:
            raise UsageError(f"top_logprobs={self.top_logprobs}: 0 to {MOST_TOP}")
        if not -(2**63) <= self.seed < 2**63:
            raise UsageError(f"seed={self.seed}: a number of 64 bits")


@dataclass(frozen=True)
class Token:
    """logprob: of the raw logits, before temperature and top_p, as are those of `top`: (id, logprob), likeliest first."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Update:
    """finish_reason: None, and in the last update of a request stop (the stop token is not among tokens), length, cancelled or
    error."""

    tokens: tuple[Token, ...]
    finish_reason: str | None


@dataclass(eq=False)
class Ticket:
    """An accepted request. number: in order of arrival. accepted, started: when it came and got its row, by time.monotonic().

    embeds: instead of a continuation it wants `mean_D`, of the final hidden states, which is there with the last update.
    """

    number: int
    model: str
    prompt_ids: np.ndarray
    sampling: Sampling
    listener: Callable[[Update], None]
    embeds: bool = False
    accepted: float = field(default_factory=time.monotonic)
    started: float | None = None
    cancelled: bool = False
    finished: bool = False
    mean_D: np.ndarray | None = None


@dataclass(frozen=True)
class Served:
    """What a lane needs of a model."""

    config: ModelConfig
    weights: Weights
    dtype: Any
    stop_ids: tuple[int, ...]


@dataclass
class Counts:
    """Of one turn. finished: by reason."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    finished: dict[str, int] = field(default_factory=dict)

    def finish(self, reason: str) -> None:
        self.finished[reason] = self.finished.get(reason, 0) + 1


class Batch:
    """A model's rows in a lane: the cache on the device, who sits where on the host."""

    def __init__(self, served: Served, mesh: Mesh, width: int, length: int):
        self.served, self.parts = served, batch_parts(mesh)
        self.tickets: list[Ticket | None] = [None] * width
        self.integers, self.floats = np.zeros((INTEGERS, width), np.int32), np.zeros((2, width), np.float32)
        stops = [*served.stop_ids, *[-1] * (-len(served.stop_ids) % SPARE_STOPS)]
        self.stop_ids = jnp.asarray(stops, jnp.int32)
        self.cache = jax.jit(partial(empty_slots, served.config, width, slots(length), served.dtype))()
        self.steps = 1

    def free(self) -> list[int]:
        return [row for row, ticket in enumerate(self.tickets) if ticket is None]

    def leave(self, row: int) -> None:
        self.tickets[row] = None
        rows_of(self.integers, self.floats).live[row] = 0

    def start(self, ticket: Ticket, row: int) -> tuple[Chosen, Float[Array, "D"]]:
        """Runs the prompt into the row, and gives what the device will have chosen, and the sum of the hidden states."""
        ids, sampling = ticket.prompt_ids, ticket.sampling
        self.tickets[row] = ticket
        rows = rows_of(self.integers, self.floats)
        rows.position[row], rows.made[row], rows.live[row] = len(ids), 0, not ticket.embeds
        rows.limit[row], rows.top[row] = sampling.max_tokens, sampling.top_logprobs
        rows.seed[row] = np.int64(sampling.seed).astype(np.int32)  # as JAX makes a key of it
        rows.temperature[row], rows.top_p[row] = sampling.temperature, sampling.top_p
        integers, floats = (values[:, row : row + 1].copy() for values in (self.integers, self.floats))
        start, sums = 0, None
        for size in chunks(len(ids)):
            tokens_C = np.zeros(size, np.int32)
            tokens_C[: len(ids) - start] = ids[start : start + size]
            self.cache, chosen, sum_D = prefill(
                self.served.weights.params, self.cache, np.int32(row), tokens_C, np.int32(start), np.int32(len(ids)), integers,
                floats, structure=self.served.weights.structure, parts=self.parts,
            )  # fmt: skip
            sums = sum_D if sums is None else sums + sum_D
            start += size
        assert sums is not None
        return chosen, sums

    def dispatch(self) -> tuple[Array, tuple[Array, Array]]:
        """Starts some steps on the device."""
        self.cache, packed, tops = decode(
            self.served.weights.params, self.cache, self.integers, self.floats, np.int32(self.steps), self.stop_ids,
            structure=self.served.weights.structure, head_by_rows=self.served.weights.cached,
        )  # fmt: skip
        return packed, tops


class Lane:
    """Several models' batches, their turns, and what is still to be told. Made and driven in the mesh's scope, by one thread."""

    def __init__(self, served: Mapping[str, Served], mesh: Mesh, width: int, length: int):
        self.batches = {name: Batch(one, mesh, width, length) for name, one in served.items()}
        self.outbox = deque[tuple[Ticket, Update]]()
        self.joining: list[Ticket] = []

    def free(self, model: str) -> int:
        """How many more requests of this model the lane can take."""
        return len(self.batches[model].free())

    def running(self) -> list[Ticket]:
        return [ticket for batch in self.batches.values() for ticket in batch.tickets if ticket is not None]

    def unfinished(self) -> list[Ticket]:
        """Those that it has taken and not finished, in a row or on the way there."""
        return [ticket for ticket in {id(t): t for t in [*self.running(), *self.joining]}.values() if not ticket.finished]

    def turn(self, joining: Sequence[Ticket]) -> Counts:
        """Lets cancelled requests go and new ones in, then runs a few steps of each model."""
        counts, self.joining = Counts(), list(joining)
        for batch in self.batches.values():
            for row, ticket in enumerate(batch.tickets):
                if ticket is not None and ticket.cancelled:
                    batch.leave(row)
                    self.finish(ticket, (), "cancelled", counts)
        gone = [ticket for ticket in joining if ticket.cancelled]  # one that is cancelled from here on leaves in the next turn
        for ticket in gone:
            self.finish(ticket, (), "cancelled", counts)
        if joining:
            self.tell()  # what is there need not wait for prompts to be read
        started = [(ticket, *self._start(ticket)) for ticket in joining if ticket not in gone]
        for ticket, batch, row, (chosen, sum_D) in started:
            counts.prompt_tokens += len(ticket.prompt_ids)
            if ticket.embeds:
                batch.leave(row)
                ticket.mean_D = np.asarray(sum_D) / len(ticket.prompt_ids)
                self.finish(ticket, (), "stop", counts)
            else:
                self._first(batch, row, ticket, jax.device_get(chosen), counts)
        for batch in self.batches.values():
            if rows_of(batch.integers, batch.floats).live.any():
                self._steps(batch, counts)
        if not self.running():
            self.tell()
        return counts

    def tell(self) -> None:
        """Calls the listeners: all of them, even where one raises."""
        try:
            while self.outbox:
                ticket, update = self.outbox.popleft()
                ticket.listener(update)
        finally:
            if self.outbox:
                self.tell()

    def finish(self, ticket: Ticket, tokens: tuple[Token, ...], reason: str, counts: Counts) -> None:
        """Notes the last update of a request, and what the counts say of it."""
        counts.finish(reason)
        ticket.finished = True
        self.outbox.append((ticket, Update(tokens, reason)))

    def _start(self, ticket: Ticket) -> tuple[Batch, int, tuple[Chosen, Array]]:
        batch = self.batches[ticket.model]
        ticket.started = time.monotonic()
        row = batch.free()[0]
        return batch, row, batch.start(ticket, row)

    def _first(self, batch: Batch, row: int, ticket: Ticket, chosen: Chosen, counts: Counts) -> None:
        rows = rows_of(batch.integers, batch.floats)
        token = int(chosen.token)
        rows.token[row], rows.made[row] = token, 1
        stopped = token in batch.served.stop_ids
        rows.live[row] = not stopped and ticket.sampling.max_tokens > 1
        made = [np.asarray(value)[None] for value in chosen]
        self._tell_of(batch, row, _tokens(*made, count=1, top=ticket.sampling.top_logprobs), counts)

    def _steps(self, batch: Batch, counts: Counts) -> None:
        began = time.monotonic()
        told = any(ticket and ticket.sampling.top_logprobs for ticket in batch.tickets)
        packed, tops = batch.dispatch()
        self.tell()  # while the device is at work
        packed_MB, (top_tokens, top_logprobs) = jax.device_get((packed, tops if told else (None, None)))
        T = MOST_STEPS
        new, tokens_TB, logprobs_TB = (packed_MB[:INTEGERS], packed_MB[INTEGERS : INTEGERS + T], packed_MB[INTEGERS + T :])
        made_B = rows_of(new, batch.floats).made - rows_of(batch.integers, batch.floats).made
        batch.integers = np.array(new)
        for row in np.flatnonzero(made_B).tolist():
            ticket = batch.tickets[row]
            assert ticket is not None
            likeliest = (top_tokens[:, row], top_logprobs[:, row]) if told else (None, None)
            chosen = (tokens_TB[:, row], logprobs_TB[:, row].view(np.float32), *likeliest)
            tokens = _tokens(*chosen, count=int(made_B[row]), top=ticket.sampling.top_logprobs)
            self._tell_of(batch, row, tokens, counts)
        seconds = (time.monotonic() - began) / max(int(made_B.max()), 1)
        batch.steps = int(np.clip(DISPATCH_SECONDS / seconds, 1, min(MOST_STEPS, 2 * batch.steps)))

    def _tell_of(self, batch: Batch, row: int, tokens: tuple[Token, ...], counts: Counts) -> None:
        """Notes a row's new tokens; where they are its last ones, the row is free."""
        ticket = batch.tickets[row]
        assert ticket is not None
        stopped = tokens[-1].id in batch.served.stop_ids
        tokens = tokens[:-1] if stopped else tokens
        counts.generated_tokens += len(tokens)
        if rows_of(batch.integers, batch.floats).live[row]:
            self.outbox.append((ticket, Update(tokens, None)))
        else:
            batch.leave(row)
            self.finish(ticket, tokens, "stop" if stopped else "length", counts)


def _tokens(
    ids_T: np.ndarray, logprobs_T: np.ndarray, top_ids: np.ndarray | None, top_logprobs: np.ndarray | None, *, count: int, top: int
) -> tuple[Token, ...]:
    """The first `count` of one row's choices; of the likeliest, [T, MOST_TOP] each, the first `top`."""
    ids, logprobs = ids_T[:count].tolist(), logprobs_T[:count].tolist()
    if not top or top_ids is None or top_logprobs is None:
        return tuple(Token(id, logprob, ()) for id, logprob in zip(ids, logprobs, strict=True))
    likeliest = zip(top_ids[:count, :top].tolist(), top_logprobs[:count, :top].tolist(), strict=True)
    tops = [tuple(zip(*one, strict=True)) for one in likeliest]
    return tuple(Token(*one) for one in zip(ids, logprobs, tops, strict=True))
