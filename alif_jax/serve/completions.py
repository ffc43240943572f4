"""Chat and text completions: a checked request into prompts, what the engine says into a reply or a stream of pieces."""

import json
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from alif_jax.serve.engine import Sampling, Token, Update
from alif_jax.serve.protocol import SEEDS, ApiError, ChatRequest, CompletionRequest, envelope, usage
from alif_jax.serve.service import Flight, Service, check_count, encode_chat, encode_prompts, room_for, until_gone
from alif_jax.serve.text import TextStream, chat_logprobs, old_logprobs

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request with its prompts encoded. Choice i answers prompt i // n. echoes: what stands before each prompt's answers."""

    service: Service
    model: str
    prompts: list[list[int]]
    samplings: list[Sampling]  # one a choice
    echoes: list[str]
    n: int
    stops: list[str]
    chat: bool
    logprobs: bool
    include_usage: bool

    def flight(self, *, every: bool) -> Flight:
        asked = [(self.prompts[i // self.n], sampling) for i, sampling in enumerate(self.samplings)]
        return Flight(self.service, self.model, asked, every=every)

    def choices(self) -> list["Choice"]:
        tokenizer = self.service.tokenizers[self.model]
        return [Choice(TextStream(tokenizer, self.stops), echo) for echo in self.echoes for _ in range(self.n)]

    def usage(self, choices: Sequence["Choice"]) -> dict[str, int]:
        return usage(sum(map(len, self.prompts)), sum(choice.stream.given for choice in choices))


@dataclass
class Choice:
    """An answer on its way. before: text that comes with the first piece; offset: letters of the pieces that were given."""

    stream: TextStream
    before: str
    offset: int = 0


@dataclass(frozen=True)
class Piece:
    """What an update adds to a choice. offset: letters of the text before its first token. finish_reason: None until the last."""

    index: int
    text: str
    tokens: tuple[Token, ...]
    offset: int
    finish_reason: str | None


async def complete(service: Service, request: Request, asked: ChatRequest | CompletionRequest) -> Response:
    """The reply to a request, or an ASGI application that streams it."""
    plan = await _plan(service, asked)
    if asked.stream:
        return _streamed(plan, plan.flight(every=True))
    flight = plan.flight(every=bool(plan.stops))
    try:
        return JSONResponse(await until_gone(request.receive, _whole(plan, flight)))
    finally:
        flight.cancel()


async def _plan(service: Service, asked: ChatRequest | CompletionRequest) -> Plan:
    model = service.model(asked.model)
    tokenizer = service.tokenizers[model]
    chat = isinstance(asked, ChatRequest)
    echoes = [""]
    questions = 1 if isinstance(asked, ChatRequest) else len(asked.prompt)
    check_count(questions * asked.n, service.max_queue, "answers", "n" if asked.n > 1 else "prompt")
    if isinstance(asked, ChatRequest):
        prompts, limit, part = [await encode_chat(tokenizer, asked)], asked.max_completion_tokens or asked.max_tokens, "messages"
        logprobs, top = asked.logprobs, asked.top_logprobs
    else:
        prompts, limit, part = await encode_prompts(service, model, asked.prompt, "prompt"), asked.max_tokens, "prompt"
        logprobs, top = asked.logprobs is not None, asked.logprobs or 0
        echoes = [""] * len(prompts)
        if asked.echo:
            echoes = [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in asked.prompt]
    seed = random.randrange(2**31) if asked.seed is None else asked.seed
    samplings = [  # choices of one prompt have seeds that follow each other, and begin again after the last of 64 bits
        Sampling(
            max_tokens=room, temperature=asked.temperature, top_p=asked.top_p, seed=(seed + i + SEEDS) % (2 * SEEDS) - SEEDS,
            top_logprobs=top,
        )
        for room in [room_for(prompt, limit, service.max_length, part) for prompt in prompts]
        for i in range(asked.n)
    ]  # fmt: skip
    return Plan(
        service=service, model=model, prompts=prompts, samplings=samplings, echoes=echoes, n=asked.n, stops=asked.stop, chat=chat,
        logprobs=logprobs, include_usage=bool(asked.stream_options.include_usage),
    )  # fmt: skip


async def _pieces(plan: Plan, flight: Flight, choices: Sequence[Choice]) -> AsyncIterator[Piece]:
    names = plan.service.names[plan.model]
    async for index, update in flight.updates():
        choice = choices[index]
        text, tokens, reason = _take(choice.stream, update)
        if choice.stream.stopped:
            flight.drop(index)
        piece = Piece(index, choice.before + text, tokens, choice.offset + len(choice.before), reason)
        choice.offset = piece.offset + (sum(names.letters(token.id) for token in tokens) if plan.logprobs else 0)
        choice.before = ""
        yield piece


def _take(stream: TextStream, update: Update) -> tuple[str, tuple[Token, ...], str | None]:
    """Text that is sure now, the tokens that were taken (not those after a stop string), and the end's reason."""
    given = stream.given
    text, reason = stream.push([token.id for token in update.tokens]), update.finish_reason
    if reason is not None and not stream.stopped:
        text += stream.finish()
    return text, update.tokens[: stream.given - given], "stop" if stream.stopped else reason


async def _whole(plan: Plan, flight: Flight) -> dict[str, Any]:
    choices = plan.choices()
    pieces: list[list[Piece]] = [[] for _ in choices]
    async for piece in _pieces(plan, flight, choices):
        pieces[piece.index].append(piece)
    kind: Literal["chat.completion", "text_completion"] = "chat.completion" if plan.chat else "text_completion"
    shown = [_choice(plan, _joined(parts), streamed=False) for parts in pieces]
    return {**envelope(kind, plan.model), "choices": shown, "usage": plan.usage(choices)}


def _joined(parts: Sequence[Piece]) -> Piece:
    tokens = tuple(token for part in parts for token in part.tokens)
    return Piece(parts[0].index, "".join(part.text for part in parts), tokens, parts[0].offset, parts[-1].finish_reason)


def _choice(plan: Plan, piece: Piece, *, streamed: bool) -> dict[str, Any]:
    """A choice of a reply or of a stream's piece, in the chat's form or the old one."""
    names = plan.service.names[plan.model]
    shown: dict[str, Any] = {"index": piece.index, "finish_reason": piece.finish_reason, "logprobs": None}
    if plan.chat:
        shown |= {"logprobs": chat_logprobs(piece.tokens, names)} if plan.logprobs else {}
        if streamed:
            return shown | {"delta": {"content": piece.text} if piece.text or piece.tokens else {}}
        return shown | {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
    shown |= {"logprobs": old_logprobs(piece.tokens, names, piece.offset)} if plan.logprobs else {}
    return shown | {"text": piece.text}


# --- streams ----------------------------------------------------------------------------------------------------------


def _streamed(plan: Plan, flight: Flight) -> Response:
    """An ASGI application: server-sent events, cancelled with the client."""

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        async def write() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
            async for event in _events(plan, flight):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        try:
            await until_gone(receive, write())
        except ClientDisconnect:
            pass  # there is nobody to tell
        finally:
            flight.cancel()

    return cast(Response, stream)  # Starlette asks no more of a response than to be such a callable


async def _events(plan: Plan, flight: Flight) -> AsyncIterator[bytes]:
    """The pieces as `data: JSON` lines. A failure amid them is the last event: the status went out long before."""
    choices = plan.choices()
    opening = envelope("chat.completion.chunk" if plan.chat else "text_completion", plan.model)
    opening |= {"usage": None} if plan.include_usage else {}
    if plan.chat:
        for index in range(len(choices)):
            delta = {"role": "assistant", "content": "", "refusal": None}
            yield _event({**opening, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]})
    try:
        async for piece in _pieces(plan, flight, choices):
            for part in _parts(piece, plan.chat):
                if part.text or part.finish_reason or (part.tokens and plan.logprobs):
                    yield _event({**opening, "choices": [_choice(plan, part, streamed=True)]})
    except ApiError as error:
        yield _event(error.body)
        return
    if plan.include_usage:
        yield _event({**opening, "choices": [], "usage": plan.usage(choices)})
    yield b"data: [DONE]\n\n"


def _parts(piece: Piece, chat: bool) -> list[Piece]:
    """In the chat's form the last text comes before the piece that ends the choice, which is empty."""
    if not chat or piece.finish_reason is None or not (piece.text or piece.tokens):
        return [piece]
    text = Piece(piece.index, piece.text, piece.tokens, piece.offset, None)
    return [text, Piece(piece.index, "", (), piece.offset, piece.finish_reason)]


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
