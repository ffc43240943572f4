"""What the endpoints share: the models' names and tokenizers, prompts into token ids, and requests on their way through the engine.

The engine runs in a thread of its own and calls back from there; everything else here runs in the server's event loop.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from alif_jax import UsageError
from alif_jax.languages import english_name
from alif_jax.serve.engine import Engine, QueueFull, Sampling, Ticket, Token, Update
from alif_jax.serve.metrics import Figures
from alif_jax.serve.protocol import ApiError, ChatRequest, cut
from alif_jax.serve.text import TokenNames
from alif_jax.tokenizer import Tokenizer

LONG_TEXT = 20_000  # letters, from which on encoding takes so many milliseconds that the loop must not wait for it
MARKS = 20  # letters that a template writes around a message, about
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Service:
    """tokenizers: name → the model's, the base's first. max_length: tokens of prompt and answer together.

    sizes: name → `Tokenizer.size`, which looks through the whole vocabulary.
    """

    engine: Engine
    tokenizers: Mapping[str, Tokenizer]
    max_length: int
    max_queue: int
    figures: Figures
    names: Mapping[str, TokenNames]
    sizes: Mapping[str, int]
    created: int = field(default_factory=lambda: int(time.time()))

    def model(self, asked: str | None) -> str:
        """The name of the model that is asked for; None: the first. Raises ApiError (404)."""
        name = next(iter(self.tokenizers)) if asked is None else asked
        if name not in self.tokenizers:
            known = ", ".join(self.tokenizers)
            message = f"there is no model {cut(repr(name))} here; there are: {known}"
            raise ApiError(404, message, param="model", code="model_not_found")
        return name


# --- prompts ----------------------------------------------------------------------------------------------------------


async def _encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    if sum(map(len, texts)) < LONG_TEXT:
        return tokenizer.encode_batch(texts)
    return await asyncio.to_thread(tokenizer.encode_batch, texts)


async def encode_chat(tokenizer: Tokenizer, request: ChatRequest) -> list[int]:
    """A conversation by the model's chat template, up to where the answer begins. Raises ApiError (400) where it refuses."""
    if sum(MARKS + len(message.content) for message in request.messages) < LONG_TEXT:
        return _encode_chat(tokenizer, request)
    return await asyncio.to_thread(_encode_chat, tokenizer, request)


def _encode_chat(tokenizer: Tokenizer, request: ChatRequest) -> list[int]:
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    language = request.chat_template_kwargs.language
    language = language and (english_name(language) or language)
    try:
        text = tokenizer.render(messages, add_generation_prompt=True, language=language)
    except UsageError as error:
        if tokenizer.template is None:
            raise ApiError(400, "this model has no chat template; use /v1/completions", param="messages") from None
        raise ApiError(400, str(error).removeprefix(f"{tokenizer.directory}: "), param="messages") from None
    return tokenizer.encode_batch([text])[0]


async def encode_prompts(
    service: Service, model: str, prompts: Sequence[str | list[int]], field: str
) -> list[list[int]]:  # fmt: skip
    """Texts as they stand, after BOS; token ids exactly as they stand. Raises ApiError (400) naming the request's field."""
    tokenizer, size = service.tokenizers[model], service.sizes[model]
    encoded = iter(await _encode(tokenizer, [(tokenizer.bos_token or "") + text for text in prompts if isinstance(text, str)]))
    rows = [next(encoded) if isinstance(prompt, str) else prompt for prompt in prompts]
    for prompt, row in zip(prompts, rows, strict=True):
        if not row:
            raise ApiError(400, f"{field}: without a single token; this tokenizer has no BOS token", param=field)
        if not isinstance(prompt, str) and (min(row) < 0 or max(row) >= size):
            wrong = min(row) if min(row) < 0 else max(row)
            raise ApiError(400, f"{field}: {cut(wrong)} is no token id; expected 0 to {size - 1}", param=field)
    return rows


def room_for(prompt: Sequence[int], max_tokens: int | None, max_length: int, field: str) -> int:
    """How many tokens an answer may have; max_tokens None: what is left. Raises ApiError (400) where there is no such room."""
    wanted = 1 if max_tokens is None else max_tokens
    if not wanted and len(prompt) > max_length:
        raise ApiError(
            400, f"the context is {max_length} tokens, but the {field} has {len(prompt)}; shorten it", param=field,
            code="context_length_exceeded",
        )  # fmt: skip
    if len(prompt) + wanted > max_length:
        raise ApiError(
            400,
            f"the context is {max_length} tokens, but {len(prompt) + wanted} were asked for: {len(prompt)} of the {field} and "
            f"{wanted} of the answer; shorten the {field}{'' if max_tokens is None else ' or lower max_tokens'}",
            param=field,
            code="context_length_exceeded",
        )
    return max_length - len(prompt) if max_tokens is None else max_tokens


# --- on the way through the engine ------------------------------------------------------------------------------------


def check_count(count: int, max_queue: int, what: str, field: str) -> None:
    """Raises ApiError (400) for more than would ever fit into the queue: 429 would make the client try for ever."""
    if count > max_queue:
        raise ApiError(400, f"{count} {what} in one request; this server takes at most {max_queue}", param=field)


def refused(error: QueueFull | UsageError) -> ApiError:
    """The engine's refusal as a reply: 429 with Retry-After in whole seconds, or 503 of an engine that is closed."""
    if isinstance(error, QueueFull):
        wait_s = max(1, math.ceil(error.retry_after))
        return ApiError(
            429, f"the queue is full; try again in {wait_s} s", code="queue_full", kind="rate_limit_error",
            headers={"Retry-After": str(wait_s)},
        )  # fmt: skip
    return ApiError(503, str(error), code="unavailable", kind="server_error")


class Flight:
    """The prompts of one HTTP request in the engine. Whoever makes one calls `cancel` at the end, whatever happened.

    every: an update is passed on as it comes; else all of a prompt's are passed on in one at its end, which costs less.
    Raises ApiError where the engine takes not all of them (then it has none of them).
    """

    def __init__(
        self, service: Service, model: str, prompts: Sequence[tuple[Sequence[int], Sampling]], *, every: bool
    ) -> None:  # fmt: skip
        self._service, self._every = service, every
        self._loop = asyncio.get_running_loop()
        self._came: asyncio.Queue[tuple[int, Update]] = asyncio.Queue()
        self._open: dict[int, Ticket] = {}
        try:
            for index, (ids, sampling) in enumerate(prompts):
                self._open[index] = service.engine.submit(model, ids, sampling, self._listener(index))
        except (QueueFull, UsageError) as error:
            self.cancel()
            raise refused(error) from None

    def _listener(self, index: int) -> Callable[[Update], None]:
        """Called in the engine's thread."""
        tokens: list[Token] = []
        began, first = time.perf_counter(), True

        def listen(update: Update) -> None:
            nonlocal first, tokens
            if first and update.tokens:
                self._service.figures.first_token.observe(time.perf_counter() - began)
                first = False
            tokens += update.tokens
            if self._every or update.finish_reason is not None:
                whole, tokens = Update(tuple(tokens), update.finish_reason), []
                self._loop.call_soon_threadsafe(self._came.put_nowait, (index, whole))

        return listen

    async def updates(self) -> AsyncIterator[tuple[int, Update]]:
        """(index of the prompt, update), until all prompts have ended or were dropped. Raises ApiError where the engine failed."""
        while self._open:
            index, update = await self._came.get()
            if index not in self._open:
                continue
            if update.finish_reason is not None:
                ticket = self._open.pop(index)
                if ticket.started is not None:
                    self._service.figures.queue_time.observe(ticket.started - ticket.accepted)
            if update.finish_reason in ("error", "cancelled"):
                raise ApiError(500, "the engine failed on this request; the server's log says why", kind="server_error")
            yield index, update

    def drop(self, index: int) -> None:
        """Ends a prompt of which no more is wanted."""
        ticket = self._open.pop(index, None)
        if ticket is not None:
            self._service.engine.cancel(ticket)

    def cancel(self) -> None:
        for index in list(self._open):
            self.drop(index)


async def until_gone(receive: Receive, work: Awaitable[Result]) -> Result:
    """The result of the work; it is cancelled, and ClientDisconnect raised, when the client goes away before."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        watching.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
