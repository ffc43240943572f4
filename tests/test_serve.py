"""The HTTP server: what clients get, what is refused, and what a connection may do; over an engine that recites given answers."""

import asyncio
import base64
import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx2
import numpy as np
import openai
import pytest
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models

from alif_jax import UsageError
from alif_jax.hf import cut_vocabulary, hf_keys, is_transposed, read_model_config
from alif_jax.load import NOTHING_TRAINED
from alif_jax.model import skeleton
from alif_jax.serve import connections
from alif_jax.serve.app import make_app
from alif_jax.serve.connections import bind, fit_connections, make_server
from alif_jax.serve.engine import Engine, QueueFull, Sampling, Stats, Ticket, Token, Update
from alif_jax.serve.protocol import MAX_STOPS
from alif_jax.serve.startup import named_paths
from alif_jax.serve.text import TextStream, token_bytes
from alif_jax.tiny_base import make_tiny_base
from alif_jax.tokenizer import Tokenizer, load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
TEXT = "پاکستان کا دارالحکومت اسلام آباد ہے۔ یہ شہر مارگلہ کی پہاڑیوں کے دامن میں ہے۔ 🌙 چاند۔"
QUESTION = "پاکستان کا دارالحکومت کون سا شہر ہے؟"
MAX_LENGTH, MAX_QUEUE = 400, 6
KEY = "a-secret"
Body = dict[str, Any]


# --- an engine that recites


class Reciter:
    """An engine as far as the server knows it. answer: (prompt, sampling) → the tokens that would come, without end; the engine
    cuts them at max_tokens. step_s: between two updates of `bunch` tokens.
    """

    def __init__(self, answer: Callable[[Sequence[int], Sampling], list[int]]) -> None:
        self.answer = answer
        self.step_s, self.bunch, self.room, self.fail = 0.0, 1, MAX_QUEUE, False
        self.embeds = True  # else its futures stay open, in `embedding`
        self.embedding: list[concurrent.futures.Future[np.ndarray]] = []
        self.asked: list[tuple[str, list[int], Sampling]] = []
        self.open: dict[int, threading.Event] = {}
        self.cancelled: list[int] = []
        self.drained: bool | None = None

    def submit(self, model: str, prompt_ids: Sequence[int], sampling: Sampling, listener: Callable[[Update], None]) -> Ticket:
        if self.drained is not None:
            raise UsageError("the engine is closed")
        if len(self.open) >= self.room:
            raise QueueFull(1.2)
        ticket = Ticket(len(self.asked), model, np.asarray(prompt_ids), sampling, listener)
        self.asked.append((model, list(prompt_ids), sampling))
        self.open[ticket.number] = threading.Event()
        threading.Thread(target=self._recite, args=(ticket,), daemon=True).start()
        return ticket

    def _recite(self, ticket: Ticket) -> None:
        ticket.started = time.monotonic()
        stop, sampling = self.open[ticket.number], ticket.sampling
        answer = self.answer(ticket.prompt_ids.tolist(), sampling)
        said = tuple(spoken(token, sampling.top_logprobs) for token in answer[: sampling.max_tokens])
        for at in range(0, len(said), self.bunch):
            if stop.wait(self.step_s):
                break
            ticket.listener(Update(said[at : at + self.bunch], None))
        reason = "cancelled" if stop.is_set() else "length" if len(answer) >= sampling.max_tokens else "stop"
        del self.open[ticket.number]
        ticket.listener(Update((), "error" if self.fail else reason))

    def cancel(self, ticket: Ticket) -> None:
        self.cancelled.append(ticket.number)
        if ticket.number in self.open:
            self.open[ticket.number].set()

    def embed(self, model: str, prompts: Sequence[Sequence[int]]) -> "concurrent.futures.Future[np.ndarray]":
        if not self.room:
            raise QueueFull(0.2)
        future: concurrent.futures.Future[np.ndarray] = concurrent.futures.Future()
        if not self.embeds:
            self.embedding.append(future)
            return future
        future.set_result(np.array([[sum(ids), len(ids) / 3] for ids in prompts], np.float32))
        return future

    def stats(self) -> Stats:
        return dataclasses.replace(EMPTY, running=len(self.open))

    def stop(self, drain: bool) -> None:
        self.drained = drain


EMPTY = Stats(waiting=0, running=0, prompt_tokens=12, generated_tokens=34, finished={"stop": 5}, alive=True)


def spoken(token: int, top: int) -> Token:
    return Token(token, -token / 1000, tuple((token + i, -token / 1000 - i) for i in range(top)))


# --- fixtures


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory = str(tmp_path_factory.mktemp("base"))
    make_tiny_base(directory, [TEXT[:40], QUESTION] * 3, vocab_size=290)
    return load_tokenizer(directory, "turns")


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> Reciter:
    return Reciter(lambda ids, sampling: tokenizer.encode(TEXT))


@contextlib.contextmanager
def running(app: Any, max_connections: int = 200, head_s: float = 30.0) -> Iterator[str]:
    """The server's address while it runs in a thread."""
    server = make_server(app, max_connections=max_connections, head_s=head_s)
    bound = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def app_of(engine: Reciter, *tokenizers: Tokenizer, api_key: str = "") -> Any:
    named = dict(zip(("urdu", "legal"), tokenizers, strict=False))
    return make_app(cast(Engine, engine), named, max_length=MAX_LENGTH, max_queue=MAX_QUEUE, api_key=api_key)


@pytest.fixture(scope="module")
def served(engine: Reciter, tokenizer: Tokenizer) -> Iterator[str]:
    with running(app_of(engine, tokenizer, tokenizer)) as url:
        yield url


@pytest.fixture(autouse=True)
def reset(engine: Reciter, tokenizer: Tokenizer) -> None:
    engine.step_s, engine.bunch, engine.room, engine.fail, engine.drained = 0.0, 1, MAX_QUEUE, False, None
    engine.answer = lambda ids, sampling: tokenizer.encode(TEXT)
    engine.embeds = True
    for lists in (engine.asked, engine.cancelled, engine.embedding):
        lists.clear()


@pytest.fixture(scope="module")
def client(served: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def web(served: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served, timeout=60) as client:
        yield client


def turn(text: str = QUESTION) -> list[Any]:
    return [{"role": "user", "content": text}]


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)


# --- text


def byte_fallback(directory: Path) -> Tokenizer:
    """As SentencePiece's: words with ▁, bytes for all else, and a decoder that drops the first blank."""
    words = ["<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁one", "▁two", "ہ", "ے"]
    core = tokenizers.Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True, unk_token="<unk>"))
    core.add_special_tokens(["<s>", "</s>", "<unk>"])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    directory.mkdir()
    core.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "</s>", "bos_token": "<s>"}')
    return load_tokenizer(str(directory))


@pytest.fixture(scope="module", params=["byte-level", "byte-fallback"])
def either(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer if request.param == "byte-level" else byte_fallback(tmp_path_factory.mktemp("sp") / "base")


def letters_of(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a text, a byte each where there is no token for more."""
    known = {token_bytes(tokenizer, id): id for id in range(tokenizer.size)}
    return [known[bytes([byte])] for byte in text.encode()]


def test_pieces_are_the_text_in_whole_letters(either: Tokenizer) -> None:
    rng = random.Random(0)
    for round_ in range(60):
        noise = [rng.randrange(either.size) for _ in range(rng.randrange(80))]
        ids = noise if round_ % 3 else [*letters_of(either, TEXT), *noise[:3], *letters_of(either, TEXT)]
        stream, pieces, at = TextStream(either), [], 0
        while at < len(ids):
            step = rng.choice((1, 1, 2, 8))
            pieces.append(stream.push(ids[at : at + step]))
            at += step
        assert "".join([*pieces, stream.finish()]) == either.decode(ids)
        assert stream.given == len(ids) and not stream.stopped
    one = either.core.token_to_id("▁one") or either.encode(" ")[0]
    ids = [*letters_of(either, "a"), *[0] * 40, one]  # after special tokens alone a blank is not the text's first
    stream = TextStream(either)
    assert "".join([stream.push([id]) for id in ids]) + stream.finish() == either.decode(ids)
    pieces = [stream.push([id]) for stream in [TextStream(either)] for id in letters_of(either, TEXT)]
    assert not any("\ufffd" in piece for piece in pieces)
    if either.core.token_to_id("<0x00>") is None:
        assert [piece for piece in pieces if piece] == list(TEXT)


@pytest.mark.parametrize("stops", [["آباد"], ["چاند۔", "🌙"], ["ہے۔ یہ شہر", "ے۔"], ["nowhere", TEXT[-3:] + "x"], ["ا"], [TEXT]])
def test_a_stop_string_cuts_the_text_wherever_pieces_end(tokenizer: Tokenizer, stops: list[str]) -> None:
    ends = [(TEXT.find(stop) + len(stop), TEXT.find(stop)) for stop in stops if stop in TEXT]
    expected = TEXT[: min(ends)[1]] if ends else TEXT
    for ids in (letters_of(tokenizer, TEXT), tokenizer.encode(TEXT)):
        given = set()
        for step in (1, 2, 3, 7, len(ids)):
            stream = TextStream(tokenizer, stops)
            text = "".join(stream.push(ids[at : at + step]) for at in range(0, len(ids), step) if not stream.stopped)
            assert text + stream.finish() == expected
            assert stream.stopped == bool(ends)
            given.add(stream.given)
        assert len(given) == 1
        assert TEXT[: min(ends)[0]] in tokenizer.decode(ids[: given.pop()]) if ends else given == {len(ids)}


def test_bytes_of_tokens_are_the_texts(either: Tokenizer) -> None:
    ids = letters_of(either, TEXT) + either.encode("ہے")
    assert b"".join(token_bytes(either, id) for id in ids).decode() == either.decode(ids) == TEXT + "ہے"


# --- completions


def test_a_chat_and_its_stream(client: openai.OpenAI, engine: Reciter, tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": [{"type": "text", "text": "مختصر"}, {"type": "text", "text": "جواب"}]}, *turn()]
    reply = client.chat.completions.create(model="legal", messages=messages, seed=-5, user="x", metadata={"a": "b"})
    model, ids, sampling = engine.asked[0]
    plain = [{"role": "system", "content": "مختصر\nجواب"}, *turn()]
    assert (model, ids) == ("legal", tokenizer.encode(tokenizer.render(plain, add_generation_prompt=True)))
    assert sampling == Sampling(max_tokens=MAX_LENGTH - len(ids), temperature=1.0, seed=-5)
    choice = reply.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    answer = len(tokenizer.encode(TEXT))
    assert reply.usage and (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(ids), answer)
    assert reply.usage.total_tokens == len(ids) + answer and reply.model == "legal"
    assert reply.id.startswith("chatcmpl-") and reply.object == "chat.completion" and abs(reply.created - time.time()) < 60
    chunks = list(client.chat.completions.create(
        model="urdu", messages=turn(), max_completion_tokens=9, max_tokens=99, stream=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    assert engine.asked[1][2].max_tokens == 9 and engine.asked[1][2].seed != engine.asked[0][2].seed
    first, *middle, end, last = chunks
    assert first.choices[0].delta.role == "assistant" and all(chunk.usage is None for chunk in chunks[:-1])
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == tokenizer.decode(tokenizer.encode(TEXT)[:9])
    assert [chunk.choices[0].finish_reason for chunk in (*middle, end)] == [None] * len(middle) + ["length"]
    assert last.choices == [] and last.usage and last.usage.completion_tokens == 9
    assert len({chunk.id for chunk in chunks}) == 1 and len(middle) > 3


def test_the_language_reaches_the_template(client: openai.OpenAI, engine: Reciter, tokenizer: Tokenizer) -> None:
    template = "{% if language is defined %}In {{ language }}. {% endif %}{{ messages[0]['content'] }}"
    with_language = dataclasses.replace(tokenizer, template=template)
    refuses = dataclasses.replace(tokenizer, template="{{ raise_exception('two users') }}")
    none = dataclasses.replace(tokenizer, template=None)
    with running(app_of(engine, with_language)) as url, httpx2.Client(base_url=url) as web:
        for language in ("Urdu", "ur"):
            kwargs = {"chat_template_kwargs": {"language": language}}
            assert web.post("/v1/chat/completions", json={"messages": turn(), **kwargs}).status_code == 200
        assert [tokenizer.decode(ids) for _, ids, _ in engine.asked] == [f"In Urdu. {QUESTION}"] * 2
    with running(app_of(engine, refuses, none)) as url, httpx2.Client(base_url=url) as web:
        for model, message in (("urdu", "two users"), ("legal", "no chat template; use /v1/completions")):
            error = error_of(web.post("/v1/chat/completions", json={"messages": turn(), "model": model}), 400)
            assert message in error["message"] and tokenizer.directory not in error["message"]


@pytest.mark.parametrize("stop", ["ہے۔", ["nowhere", " یہ", "شہر"]])
def test_stop_strings(client: openai.OpenAI, engine: Reciter, tokenizer: Tokenizer, stop: str | list[str]) -> None:
    engine.step_s, engine.bunch = 0.002, 3
    expected = TEXT[: TEXT.index("ہے۔")] if isinstance(stop, str) else TEXT[: TEXT.index(" یہ")]
    whole = client.chat.completions.create(model="urdu", messages=turn(), stop=stop, logprobs=True)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (expected, "stop")
    assert whole.usage and whole.usage.completion_tokens < len(tokenizer.encode(TEXT)) and engine.cancelled == [0]
    logprobs = whole.choices[0].logprobs
    assert logprobs and logprobs.content and len(logprobs.content) == whole.usage.completion_tokens
    chunks = list(client.chat.completions.create(
        model="urdu", messages=turn(), stop=stop, stream=True, logprobs=True, stream_options={"include_usage": True}
    ))  # fmt: skip
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == expected
    assert chunks[-1].usage == whole.usage
    streamed = [token for chunk in chunks[:-1] if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content or []]
    assert streamed == logprobs.content
    until(lambda: not engine.open)
    never = TEXT[-3:] + "!"  # whose beginning is held back to the end
    assert client.completions.create(model="urdu", prompt="x", stop=never).choices[0].text == TEXT
    pieces = client.completions.create(model="urdu", prompt="x", stop=never, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == TEXT


def test_logprobs_of_a_chat(client: openai.OpenAI, engine: Reciter, tokenizer: Tokenizer) -> None:
    reply = client.chat.completions.create(model="urdu", messages=turn(), logprobs=True, top_logprobs=3, n=2, seed=7)
    assert [sampling.seed for _, _, sampling in engine.asked] == [7, 8] and engine.asked[0][2].top_logprobs == 3
    assert [choice.index for choice in reply.choices] == [0, 1]
    logprobs = reply.choices[1].logprobs
    assert logprobs and logprobs.content
    ids = tokenizer.encode(TEXT)
    assert b"".join(bytes(token.bytes or []) for token in logprobs.content).decode() == TEXT
    for id, token in zip(ids, logprobs.content, strict=True):
        assert token.logprob == -id / 1000 and [top.logprob for top in token.top_logprobs] == [-id / 1000 - i for i in range(3)]
        assert token.top_logprobs[0].token == token.token
    assert any(token.token.startswith("bytes:\\x") for token in logprobs.content)  # half a letter has no text
    assert reply.usage and reply.usage.completion_tokens == 2 * len(ids)
    assert reply.usage.prompt_tokens == len(engine.asked[0][1])


def test_text_completions(client: openai.OpenAI, engine: Reciter, tokenizer: Tokenizer) -> None:
    engine.answer = lambda ids, sampling: tokenizer.encode(TEXT)[len(ids) % 5 : len(ids) % 5 + 8]
    bos = tokenizer.bos_id or 0
    ids = tokenizer.encode("یہ شہر")
    for prompt, expected in (
        ("یہ", [[bos, *tokenizer.encode("یہ")]]),
        (["یہ", ""], [[bos, *tokenizer.encode("یہ")], [bos]]),
        (ids, [ids]),
        ([ids, ids[:1]], [ids, ids[:1]]),
    ):
        engine.asked.clear()
        reply = client.completions.create(model="urdu", prompt=cast(Any, prompt), n=2, temperature=0, seed=1, echo=True, top_p=0.5)
        assert [asked for _, asked, _ in engine.asked] == [prompt for prompt in expected for _ in range(2)]
        assert {sampling.temperature for _, _, sampling in engine.asked} == {0}
        assert [choice.index for choice in reply.choices] == list(range(2 * len(expected)))
        shown = [tokenizer.decode(row) + tokenizer.decode(engine.answer(row, Sampling(max_tokens=9))) for row in expected]
        assert [choice.text for choice in reply.choices[::2]] == [choice.text for choice in reply.choices[1::2]] == shown
        assert reply.usage and reply.usage.prompt_tokens == sum(map(len, expected))
        stream = client.completions.create(model="urdu", prompt=cast(Any, prompt), n=2, echo=True, stream=True)
        texts = [""] * len(reply.choices)
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
        assert texts == [choice.text for choice in reply.choices]


def test_old_logprobs(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    reply = client.completions.create(model="urdu", prompt="", logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert logprobs and logprobs.tokens and logprobs.text_offset and logprobs.token_logprobs and logprobs.top_logprobs
    ids = tokenizer.encode(TEXT)
    assert logprobs.token_logprobs == [-id / 1000 for id in ids]
    assert [len(top) for top in logprobs.top_logprobs] == [2] * len(ids) and logprobs.tokens[3] in logprobs.top_logprobs[3]
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert token.startswith("bytes:") or TEXT[offset:].startswith(token)
    streamed = [chunk.choices[0].logprobs for chunk in client.completions.create(model="urdu", prompt="", logprobs=2, stream=True)]
    assert [offset for part in streamed if part for offset in part.text_offset or []] == logprobs.text_offset


def test_embeddings_and_models(client: openai.OpenAI, web: httpx2.Client, tokenizer: Tokenizer) -> None:
    rows = [[tokenizer.bos_id, *tokenizer.encode(text)] for text in (QUESTION, "")]
    expected = [[np.float32(sum(filter(None, row))), np.float32(len(row) / 3)] for row in rows]
    by_client = client.embeddings.create(model="legal", input=[QUESTION, ""])  # the client asks for base64
    assert [item.embedding for item in by_client.data] == expected and [item.index for item in by_client.data] == [0, 1]
    assert by_client.usage.prompt_tokens == by_client.usage.total_tokens == sum(map(len, rows))
    plain = web.post("/v1/embeddings", json={"input": QUESTION}).json()
    assert plain["data"][0]["embedding"] == expected[0] and plain["model"] == "urdu"
    raw = web.post("/v1/embeddings", json={"input": [5, 7], "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(raw), "<f4").tolist() == [12, np.float32(2 / 3)]
    listed = client.models.list().data
    assert [model.id for model in listed] == ["urdu", "legal"]
    assert client.models.retrieve("legal").to_dict()["parent"] == "urdu"
    assert web.get("/health").json() == {"status": "ok"}


def test_async_clients_at_a_time(served: str, engine: Reciter, tokenizer: Tokenizer) -> None:
    engine.answer = lambda ids, sampling: [*ids[3:6], *tokenizer.encode(TEXT)]

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served}/v1", api_key="none", max_retries=20) as client:
            create = client.completions.create
            replies = await asyncio.gather(*(create(model="urdu", prompt=[65, 66, 67, 70 + i, 71, 72]) for i in range(30)))
        return [reply.choices[0].text for reply in replies]

    assert asyncio.run(ask()) == [tokenizer.decode([70 + i, 71, 72]) + TEXT for i in range(30)]


# --- refusals


def error_of(reply: Any, status: int) -> Body:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


CHAT, TEXTS, VECTORS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
WRONG: list[tuple[str, Body, str | None, str]] = [
    (CHAT, {}, "messages", "required"),
    (CHAT, {"messages": []}, "messages", "at least 1"),
    (CHAT, {"messages": "x"}, "messages", "array|list"),
    (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role", "'system', 'user' or 'assistant'; got 'tool'"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content", "required"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "text only"),
    (CHAT, {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "messages.0.tool_calls", "not supported"),
    (CHAT, {"temperature": 2.1}, "temperature", "less than or equal to 2; got 2.1"),
    (CHAT, {"temperature": "1"}, "temperature", "valid number"),
    (CHAT, {"top_p": 0}, "top_p", "greater than 0"),
    (CHAT, {"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    (CHAT, {"max_completion_tokens": 2.5}, "max_completion_tokens", "valid integer"),
    (CHAT, {"n": 129}, "n", "less than or equal to 128"),
    (CHAT, {"n": MAX_QUEUE + 1}, "n", f"at most {MAX_QUEUE}"),
    (CHAT, {"stop": [""]}, "stop", "1 to 1000 characters"),
    (CHAT, {"stop": ["x"] * (MAX_STOPS + 1)}, "stop", "at most 4 strings"),
    (CHAT, {"seed": "s"}, "seed", "valid integer"),
    (CHAT, {"stream": 1}, "stream", "valid boolean"),
    (CHAT, {"stream_options": {"x": 1}}, "stream_options.x", "no such field"),
    (CHAT, {"x" * 500: 1}, "x" * 79 + "…", "no such field"),
    (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    (CHAT, {"top_logprobs": 1}, "top_logprobs", "needs logprobs"),
    (CHAT, {"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs.enable_thinking", "no such field"),
    (CHAT, {"guided_regex": "x"}, "guided_regex", "no such field"),
    (CHAT, {"presence_penalty": 0.5}, "presence_penalty", "not supported"),
    (CHAT, {"frequency_penalty": -1}, "frequency_penalty", "not supported"),
    (CHAT, {"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools", "not supported"),
    (CHAT, {"response_format": {"type": "json_object"}}, "response_format", "not supported"),
    (CHAT, {"max_tokens": MAX_LENGTH}, "messages", f"the context is {MAX_LENGTH} tokens"),
    (CHAT, {"messages": [{"role": "user", "content": "لفظ " * 30_000}]}, "messages", "the context is"),
    (TEXTS, {}, "prompt", "required"),
    (TEXTS, {"prompt": []}, "prompt", "expected a string"),
    (TEXTS, {"prompt": [[]]}, "prompt", "expected a string"),
    (TEXTS, {"prompt": ["a", 5]}, "prompt", "expected a string"),
    (TEXTS, {"prompt": [290]}, "prompt", "290 is no token id; expected 0 to 289"),
    (TEXTS, {"prompt": [[1], [-1]]}, "prompt", "-1 is no token id"),
    (TEXTS, {"prompt": [10**4000]}, "prompt", "… is no token id; expected 0 to 289"),
    (TEXTS, {"prompt": ["x"] * (MAX_QUEUE + 1)}, "prompt", f"{MAX_QUEUE + 1} answers in one request; this server takes at most"),
    (TEXTS, {"prompt": ["x"] * 20_000, "n": 128}, "n", "2560000 answers in one request"),
    (TEXTS, {"prompt": "x", "logprobs": 21}, "logprobs", "less than or equal to 20"),
    (TEXTS, {"prompt": "x", "logprobs": 1, "echo": True}, "logprobs", "echoed"),
    (TEXTS, {"prompt": "x", "suffix": "y"}, "suffix", "not supported"),
    (TEXTS, {"prompt": "x", "best_of": 3}, "best_of", "not supported"),
    (TEXTS, {"prompt": [1] * MAX_LENGTH}, "prompt", "the context is 400 tokens, but 401 were asked for: 400 of the prompt"),
    (VECTORS, {}, "input", "required"),
    (VECTORS, {"input": "x", "encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
    (VECTORS, {"input": "x", "dimensions": 5}, "dimensions", "not supported"),
    (VECTORS, {"input": [1] * (MAX_LENGTH + 1)}, "input", "the context is 400 tokens, but the input has 401; shorten it"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "param", "message"), WRONG, ids=[f"{path[4:8]}-{param}" for path, _, param, _ in WRONG])
def test_wrong_values_are_named(web: httpx2.Client, engine: Reciter, path: str, body: Body, param: str, message: str) -> None:
    body = {"messages": turn(), **body} if path == CHAT and body else body
    began = time.monotonic()
    error = error_of(web.post(path, json=body), 400)
    assert time.monotonic() - began < 5  # nothing was made of it first
    assert error["param"] == param and any(part in error["message"] for part in message.split("|")), error
    assert error["type"] == "invalid_request_error" and len(error["message"]) < 300
    assert (error["code"] == "context_length_exceeded") == ("the context is" in message)
    assert engine.asked == []


def test_values_that_ask_for_nothing_pass(web: httpx2.Client) -> None:
    neutral = {
        "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": None, "tools": [], "response_format": {"type": "text"},
        "stream_options": {"include_usage": None, "include_obfuscation": None},
        "store": False, "user": "u", "stop": None, "n": None, "max_tokens": None, "tool_choice": "none", "logprobs": False,
        "messages": [{"role": "assistant", "content": "x", "refusal": None, "tool_calls": None, "annotations": []}, *turn()],
    }  # fmt: skip
    assert web.post(CHAT, json=neutral).status_code == 200


def test_a_developer_is_the_system(web: httpx2.Client, engine: Reciter) -> None:
    for role in ("developer", "system"):
        assert web.post(CHAT, json={"messages": [{"role": role, "content": "مختصر"}, *turn()]}).status_code == 200
    assert engine.asked[0][1] == engine.asked[1][1]


def test_long_requests_do_not_hold_up_the_loop(engine: Reciter, tokenizer: Tokenizer) -> None:
    where: list[bool] = []

    class Noted(Tokenizer):
        @property
        def size(self) -> int:
            sizes.append(1)
            return super().size

        def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
            where.append(server is threading.current_thread())
            return super().encode_batch(texts)

        def render(self, *given: Any, **named: Any) -> Any:
            where.append(server is threading.current_thread())
            return super().render(*given, **named)

    sizes: list[int] = []
    noted = Noted(**{field.name: getattr(tokenizer, field.name) for field in dataclasses.fields(tokenizer) if field.init})
    before = set(threading.enumerate())
    with running(app_of(engine, noted)) as url, httpx2.Client(base_url=url, timeout=60) as web:
        server = next(thread for thread in threading.enumerate() if thread not in before)
        looked = len(sizes)
        for path, body, inline in (
            (CHAT, {"messages": turn()}, [True, True]),
            (CHAT, {"messages": turn("x") * 2000}, [False, False]),
            (CHAT, {"messages": turn("x" * 20_000)}, [False, False]),
            (TEXTS, {"prompt": "x"}, [True]),
            (TEXTS, {"prompt": "x" * 20_000}, [False]),
        ):
            where.clear()
            assert web.post(path, json=body).status_code in (200, 400)
            assert where == inline
        assert len(sizes) == looked  # each look goes through the whole vocabulary


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"messages": nope}', b"\xff\xfe", b"[" * 9999, b'{"prompt": "\\ud800"}', b"[]", b"5"]
)
def test_a_body_that_is_no_json_object(web: httpx2.Client, body: bytes) -> None:
    for path in (CHAT, TEXTS, VECTORS):
        assert error_of(web.post(path, content=body), 400)["code"] == "invalid_json"


def test_paths_methods_and_models(web: httpx2.Client, client: openai.OpenAI) -> None:
    assert "no such path" in error_of(web.get("/v2/x"), 404)["message"]
    reply = web.get(CHAT)
    assert error_of(reply, 405)["message"] == f"GET {CHAT}: expected POST" and reply.headers["allow"] == "POST"
    for path, body in ((CHAT, {"messages": turn()}), (TEXTS, {"prompt": "x"}), (VECTORS, {"input": "x"})):
        error = error_of(web.post(path, json={**body, "model": "gpt-9"}), 404)
        assert error["code"] == "model_not_found" and "'gpt-9'" in error["message"] and "urdu, legal" in error["message"]
        assert len(error_of(web.post(path, json={**body, "model": "x" * 9999}), 404)["message"]) < 200
    assert len(error_of(web.get("/" + "x" * 9999), 404)["message"]) < 200
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")
    with pytest.raises(openai.BadRequestError, match="no such field"):
        client.chat.completions.create(model="urdu", messages=turn(), extra_body={"grammar": "x"})


def test_a_key(engine: Reciter, tokenizer: Tokenizer) -> None:
    with running(app_of(engine, tokenizer, api_key=KEY)) as url, httpx2.Client(base_url=url) as web:
        for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": "Basic eDp5"}):
            for reply in (web.get("/v1/models", headers=headers), web.post(CHAT, content=b"{", headers=headers)):
                error = error_of(reply, 401)
                assert error["code"] == "invalid_api_key" and KEY not in error["message"]
        assert web.get("/health").status_code == web.get("/metrics").status_code == 200
        with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY) as client:
            assert client.chat.completions.create(model="urdu", messages=turn()).choices[0].message.content == TEXT


def test_a_full_queue(web: httpx2.Client, engine: Reciter) -> None:
    engine.room, engine.step_s = 2, 0.05
    reply = web.post(CHAT, json={"messages": turn(), "n": 3})
    assert error_of(reply, 429)["type"] == "rate_limit_error" and reply.headers["retry-after"] == "2"
    until(lambda: not engine.open)
    assert sorted(engine.cancelled) == [0, 1]  # of one request all choices or none
    engine.room = 0
    assert web.post(VECTORS, json={"input": "x"}).headers["retry-after"] == "1"


def test_an_engine_that_fails(web: httpx2.Client, engine: Reciter) -> None:
    engine.fail = True
    assert error_of(web.post(CHAT, json={"messages": turn()}), 500)["type"] == "server_error"
    events = [line for line in web.post(CHAT, json={"messages": turn(), "stream": True}).text.split("\n\n") if line]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["type"] == "server_error" and "[DONE]" not in events[-1]


# --- connections


def raw(url: str, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)
    connection.sendall(data)
    return connection


def post(path: str, body: Body) -> bytes:
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def read_all(connection: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(2**16):
            data += part
    connection.close()
    return data


@pytest.mark.parametrize("body", [{}, {"stream": True}, {"n": 3}, {"stream": True, "n": 2}, {"stop": "x"}])
def test_a_client_that_goes_away_frees_its_slots(served: str, engine: Reciter, body: Body) -> None:
    engine.step_s = 0.05
    connection = raw(served, post(CHAT, {"messages": turn(), **body}))
    until(lambda: len(engine.open) == body.get("n", 1))
    if body.get("stream"):
        assert connection.recv(100)
    connection.close()
    until(lambda: not engine.open)
    assert len(engine.cancelled) == body.get("n", 1)


def test_a_client_that_goes_away_frees_its_embeddings(served: str, engine: Reciter) -> None:
    engine.embeds = False
    connection = raw(served, post(VECTORS, {"input": ["x", "y"]}))
    until(lambda: engine.embedding)
    connection.close()
    until(lambda: engine.embedding[0].cancelled())


def test_embeddings_of_an_engine_that_ends(served: str, web: httpx2.Client, engine: Reciter) -> None:
    engine.embeds = False
    connection = raw(served, post(VECTORS, {"input": "x"}))
    until(lambda: engine.embedding)
    engine.embedding[0].cancel()
    assert connection.recv(2**16).startswith(b"HTTP/1.1 503 ")
    connection.close()


def test_a_large_body_is_not_read(served: str, web: httpx2.Client, engine: Reciter) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
    with raw(served, head + b"Content-Length: 52428800\r\n\r\n") as connection:  # the reply comes before any of the body
        assert connection.recv(2**16).startswith(b"HTTP/1.1 413 ")
    chunked = raw(served, head + b"Transfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(5 * 16):
            chunked.sendall(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
    assert chunked.recv(2**16).startswith(b"HTTP/1.1 413 ")
    chunked.close()
    with raw(served, head + b"Content-Length: 52428800\r\n\r\n" + b"x" * 50 * 2**20) as deaf:  # sends all before it listens
        assert deaf.recv(2**16).startswith(b"HTTP/1.1 413 ")
    assert error_of(web.post("/nowhere", content=b"x" * 50 * 2**20), 413)["code"] == "body_too_large"
    assert web.post(TEXTS, content=b"[" + b" " * (4 * 2**20 - 1)).status_code == 400
    assert engine.asked == []


def test_too_many_connections_and_slow_heads(engine: Reciter, tokenizer: Tokenizer) -> None:
    with running(app_of(engine, tokenizer), max_connections=100, head_s=2) as url:
        idle = [raw(url, b"GET /health HTTP/1.1\r\nX: " if i % 2 else b"") for i in range(100)]
        until(lambda: http_status(url) == 503)
        more = [raw(url, b"GET /health HTTP/1.1\r\n\r\n") for _ in range(200)]
        assert all(read_all(connection).startswith(b"HTTP/1.1 503 ") for connection in more)
        began = time.monotonic()
        assert [read_all(connection) for connection in idle] == [b""] * 100  # heads that never came
        assert time.monotonic() - began < 20
        assert http_status(url) == 200
        long = read_all(raw(url, b"GET /health HTTP/1.1\r\nX: " + b"x" * 2**16))
        assert long.startswith(b"HTTP/1.1 431 ") and b"invalid_request_error" in long and b"retry-after" not in long
        assert read_all(raw(url, b"nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        kept = raw(url)
        for wait_s in (0, 2.2):  # an open connection between two requests has no head on its way
            time.sleep(wait_s)
            kept.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(2**16).startswith(b"HTTP/1.1 200 ")
        kept.sendall(b"GET /heal")
        assert read_all(kept) == b""


def test_after_a_reply_no_bytes_keep_a_connection(engine: Reciter, tokenizer: Tokenizer) -> None:
    """Neither a blank line, nor the slow rest of a body that nobody wanted, of which no byte counts as a head's."""
    unwanted = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    with running(app_of(engine, tokenizer), head_s=0.4) as url:
        for head, more in ((b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"), (unwanted, b"x" * 2**17)):
            connection = raw(url, head)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 ")
            connection.sendall(more)
            began = time.monotonic()
            assert read_all(connection) == b"" and 0.3 < time.monotonic() - began < 20
        whole = raw(url, unwanted)
        assert whole.recv(2**16).startswith(b"HTTP/1.1 404 ")
        whole.sendall(b"x" * 1_000_000 + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert whole.recv(2**16).startswith(b"HTTP/1.1 200 ")
        whole.close()


def test_the_end_does_not_wait_for_half_a_body(engine: Reciter, tokenizer: Tokenizer) -> None:
    with running(app_of(engine, tokenizer)) as url:
        half = raw(url, post(CHAT, {"messages": turn()})[:-5])
        engine.step_s = 0.01
        under_way = raw(url, post(CHAT, {"messages": turn()}))
        until(lambda: engine.open)
    assert read_all(half) == b"" and read_all(under_way).startswith(b"HTTP/1.1 200 ")


def http_status(url: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=30)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except ConnectionError:
        return 0
    finally:
        connection.close()


def test_metrics(engine: Reciter, tokenizer: Tokenizer) -> None:
    with running(app_of(engine, tokenizer)) as url, httpx2.Client(base_url=url) as web:
        web.post(CHAT, json={"messages": turn()})
        web.post(CHAT, json={"messages": turn(), "n": 0})
        for path in ("/a", "/b"):
            web.get(path)
        lines = web.get("/metrics").text.splitlines()
    assert engine.drained  # at the server's end
    for line in (
        'alif_http_requests_total{endpoint="/v1/chat/completions",status="200"} 1.0',
        'alif_http_requests_total{endpoint="/v1/chat/completions",status="400"} 1.0',
        'alif_http_requests_total{endpoint="other",status="404"} 2.0',
        'alif_request_seconds_count{endpoint="/v1/chat/completions"} 2.0',
        "alif_first_token_seconds_count 1.0", "alif_queue_seconds_count 1.0", "alif_requests_waiting 0.0",
        "alif_requests_running 0.0",
        "alif_prompt_tokens_total 12.0", "alif_generated_tokens_total 34.0", 'alif_finished_total{reason="stop"} 5.0',
    ):  # fmt: skip
        assert line in lines


# --- start and end


def test_connections_fit_under_the_limit_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(connections.resource, "setrlimit", lambda which, pair: limits.append(pair))
    for hard, fits in ((-1, 2048), (10_000, 2048), (1000, 1000 - 512)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda which, hard=hard: (256, hard))
        assert fit_connections(2048, said.append) == fits
    assert limits == [(-1, -1), (10_000, 10_000), (1000, 1000)] and len(said) == 1 and "488 connections" in said[0]
    monkeypatch.setattr(connections.resource, "getrlimit", lambda which: (256, 512))
    with pytest.raises(UsageError, match="may open 512 files"):
        fit_connections(2048, said.append)
    with pytest.raises(UsageError, match="max_connections=0"):
        fit_connections(0, said.append)


def test_addresses_and_names_that_are_none() -> None:
    with bind("127.0.0.1", 0) as taken:
        with pytest.raises(UsageError, match="choose another"):
            bind("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UsageError, match="port=70000"):
        bind("127.0.0.1", 70_000)
    assert named_paths(["a=x", "b=y=z"]) == {"a": "x", "b": "y=z"}
    for adapters, message in ((["a"], "name=DIR"), (["=x"], "name=DIR"), (["a=x", "a=y"], "twice")):
        with pytest.raises(UsageError, match=message):
            named_paths(adapters)


def make_random_model(directory: Path) -> str:
    """One layer of the tiny base with random weights, as a Hugging Face directory."""
    make_tiny_base(str(directory), [TEXT[:40], QUESTION] * 3, vocab_size=290)
    settings = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 1}))
    shutil.copy(ROOT / "alif_jax" / "templates" / "turns.jinja", directory / "chat_template.jinja")
    config = read_model_config(str(directory))
    rng, tensors = np.random.default_rng(0), {}
    for name, leaf in skeleton(config, NOTHING_TRAINED).shapes.items():
        keys = hf_keys(name, config.num_hidden_layers)
        shape = leaf.shape[1:] if name.startswith("layers.") else leaf.shape
        for key in keys:
            values = cut_vocabulary(name, rng.normal(float(name.endswith("scale")), 0.1, shape).astype(np.float32), config)
            tensors[key] = np.ascontiguousarray(values.T if is_transposed(name) else values)
    save_file(tensors, directory / "model.safetensors")
    return str(directory)


@pytest.mark.slow
def test_the_command_serves_and_drains(tmp_path: Path) -> None:
    """launch/serve.py from its first line to its end: the line that it prints works, and what it accepted is finished."""
    model = make_random_model(tmp_path / "alif-tiny")
    command = [sys.executable, "launch/serve.py", f"--model={model}", "--port=0", "--batch_size=4", "--max_length=128"]
    environment = {**os.environ, "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "ALIF_API_KEY": KEY}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        said = list(_until_curl(process.stderr))
        address = re.search(r"http://127\.0\.0\.1:\d+", said[-1])
        assert address and "alif-tiny" in said[-2] and KEY not in "".join(said)
        url = address[0]
        arguments = shlex.split(said[-1].replace("KEY", KEY))
        assert arguments[0] == "curl" and QUESTION in arguments[-1]
        with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30) as web:
            body = json.loads(arguments[-1]) | {"max_tokens": 20}
            reply = web.post(arguments[1], content=json.dumps(body)).json()
            assert reply["model"] == "alif-tiny" and reply["choices"][0]["finish_reason"] in ("length", "stop")
            vectors = web.post(VECTORS, json={"input": ["شہر", "چاند"]}).json()["data"]
            assert [len(vector["embedding"]) for vector in vectors] == [128, 128]
            greedy = {"prompt": "شہر", "temperature": 0, "logprobs": 3, "max_tokens": 9}
            first, again = (web.post(TEXTS, json=greedy).json()["choices"] for _ in range(2))
            assert first == again and first[0]["logprobs"]["top_logprobs"][0][first[0]["logprobs"]["tokens"][0]] <= 0
        key = f"Authorization: Bearer {KEY}\r\nHost:".encode()
        asked = [
            raw(url, post(TEXTS, {"prompt": [7, i], "n": 32, "max_tokens": 120, **stream}).replace(b"Host:", key, 1))
            for i, stream in enumerate(({}, {"stream": True}))
        ]
        assert asked[1].recv(20)  # under way
        process.send_signal(signal.SIGTERM)
        until(lambda: http_status(url) == 0)  # nobody new
        assert process.poll() is None
        whole, streamed = map(read_all, asked)
        choices = json.loads(whole.split(b"\r\n\r\n", 1)[1])["choices"]
        assert [choice["finish_reason"] in ("length", "stop") for choice in choices] == [True] * 32
        assert streamed.rstrip().endswith(b"data: [DONE]\n\n\r\n0")
        err = process.communicate(timeout=20)[1]
        assert process.returncode == 0 and "Traceback" not in err
        assert "SIGTERM: finishing what was accepted; once more ends at once" in err
    finally:
        process.kill()
        process.communicate()


def _until_curl(lines: Any) -> Iterator[str]:
    for line in lines:
        yield line
        if "curl" in line:
            return


def recite_slowly(max_connections: int, files: int) -> None:
    """The program of a child process: serves as launch/serve.py does, an answer of 16 tokens in a second."""
    if files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    engine = Reciter(lambda ids, sampling: list(range(65, 81)))
    engine.step_s = 1 / 16
    bound = bind("127.0.0.1", 0)
    directory = tempfile.mkdtemp()
    make_tiny_base(directory, [TEXT[:40]], vocab_size=270)
    fitting = fit_connections(max_connections, lambda line: print(line, file=sys.stderr))
    app = app_of(engine, load_tokenizer(directory, "turns"))
    ready = partial(print, f"http://127.0.0.1:{bound.getsockname()[1]}", flush=True)
    connections.serve(app, bound, max_connections=fitting, log_requests=False, ready=ready)
    print("drained" if engine.drained else "not drained", flush=True)


@contextlib.contextmanager
def child(max_connections: int = 100, files: int = 0) -> Iterator[tuple[Any, str]]:
    """A server in a process of its own, and its address."""
    program = f"from tests.test_serve import recite_slowly; recite_slowly({max_connections}, {files})"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_second_signal_ends_at_once() -> None:
    with child() as (process, url):
        lost = raw(url, post(TEXTS, {"prompt": "x", "stream": True}))
        assert lost.recv(20)  # under way
        process.send_signal(signal.SIGINT)
        until(lambda: http_status(url) == 0)  # nobody new
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM
        assert b"[DONE]" not in read_all(lost)


@pytest.mark.slow
def test_ten_thousand_connections() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 11_000:
        pytest.skip(f"this process may open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with child(max_connections=9999, files=2500) as (process, url):
        kept = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=30)

        def status(path: str) -> int:
            kept.request("GET", path)
            reply = kept.getresponse()
            reply.read()
            return reply.status

        assert status("/health") == 200
        many = [raw(url) for _ in range(10_000)]
        answers = Counter(read_all(connection)[:12] for connection in many[2100:])
        assert answers == {b"HTTP/1.1 503": 7900} and process.poll() is None
        assert status("/metrics") == 200  # who was there before is served
        for connection in many[:2100]:
            connection.close()
        until(lambda: http_status(url) == 200)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "drained\n") and "at most 1988 connections instead of 9999" in err
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
