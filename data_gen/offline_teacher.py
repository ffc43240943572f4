"""The offline teacher: a local HTTP server with the OpenAI chat-completions protocol that answers from word lists.

Not a language model. It stands in for one where no network is (quickstart, tests): it reads the task and the number of
items from the prompt's first lines and writes such items by offline_grammar.py, some of them wrong at a seeded rate.
Which ones are wrong stands in the truth file, which only tests and reports read.

    python -m data_gen.offline_teacher --port 8001 --seed 0 --fault_rate 0.05 --truth_file truth.jsonl
"""

import argparse
import hashlib
import json
import random
import re
import select
import socket
import socketserver
import threading
import time
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from data_gen import UsageError
from data_gen.offline_grammar import MAKERS, make_item, spoil

MODEL = "offline-teacher"
BYTES_PER_TOKEN = 3  # of UTF-8: about 1.5 Urdu letters, what current tokenizers need
MAX_ITEMS = 500  # in one reply
MALFORMED_SHARE = DUPLICATE_SHARE = 0.2  # of the fault rate, on top of it
_TASK = re.compile(r"\s*Task: (\w+)[ \t]*$", re.MULTILINE)
_COUNT = re.compile(r"\bexactly (\d+) new items\b")


@dataclass(frozen=True)
class Sent:
    """One item of a reply. `shape`: whole, duplicate (of an earlier one), malformed (no Output), cut (max_tokens)."""

    block: str
    task: str
    instruction: str
    output: str | None
    fault: str | None
    right: str | None
    shape: str = "whole"


class RequestError(Exception):
    """A request that a real endpoint would refuse, with its HTTP status and the fields of the OpenAI error body."""

    def __init__(self, status: int, message: str, code: str | None = None, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def write_items(task: str, count: int, rng: random.Random, fault_rate: float) -> list[Sent]:
    """`count` items of `task`: about `fault_rate` of them wrong, a fifth as many malformed and as many sent twice."""
    sent: list[Sent] = []
    for _ in range(count):
        if sent and rng.random() < DUPLICATE_SHARE * fault_rate:
            sent.append(replace(rng.choice(sent), shape="duplicate"))
            continue
        item = make_item(task, rng)
        head = f"###\nInstruction: {item.instruction}\nInput: {item.input or '<noinput>'}"
        if rng.random() < MALFORMED_SHARE * fault_rate:
            sent.append(Sent(head, task, item.instruction, None, None, item.right, "malformed"))
            continue
        fault, output = spoil(task, item, rng) if rng.random() < fault_rate else (None, item.output)
        sent.append(Sent(f"{head}\nOutput: {output}", task, item.instruction, output, fault, item.right))
    return sent


def _cut(items: list[Sent], max_tokens: int | None) -> tuple[str, str, list[Sent]]:
    """(text, finish_reason, items wholly or partly in the text) after at most `max_tokens` tokens."""
    text = "\n".join(item.block for item in items)
    if max_tokens is None or _tokens(text) <= max_tokens:
        return text, "stop", items
    text = text.encode()[: max_tokens * BYTES_PER_TOKEN].decode(errors="ignore")
    kept: list[Sent] = []
    start = 0
    for item in items:
        if start >= len(text):
            break
        start += len(item.block) + 1
        kept.append(item if start - 1 <= len(text) else replace(item, shape="cut"))
    return text, "length", kept


def _prompt_of(request: dict[str, Any]) -> tuple[str, int]:
    """(text of the last user message, tokens of all messages)."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
    ):
        raise RequestError(400, "'messages' must be a list of {role, content} with text content")
    users = [m["content"] for m in messages if m.get("role") == "user"]
    if not users:
        raise RequestError(400, "'messages' has no user message")
    return users[-1], sum(_tokens(m["content"]) for m in messages)


def _order_of(prompt: str) -> tuple[str, int]:
    """(task, number of items) that the prompt asks for."""
    task, count = _TASK.match(prompt), _COUNT.search(prompt)
    if task is None or task[1] not in MAKERS:
        known = ", ".join(MAKERS)
        raise RequestError(400, f"{MODEL} is no language model: the prompt must begin with 'Task: ' and one of {known}")
    if count is None or not 1 <= int(count[1]) <= MAX_ITEMS:
        raise RequestError(400, f"the prompt must ask for 'exactly N new items', 1 <= N <= {MAX_ITEMS}")
    return task[1], int(count[1])


def complete(body: bytes, *, seed: int, fault_rate: float) -> tuple[dict[str, Any], list[Sent]]:
    """(chat completion, items sent), a pure function of its arguments. RequestError for what an endpoint refuses."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise RequestError(400, f"could not parse the JSON body of your request: {error}") from error
    if not isinstance(request, dict):
        raise RequestError(400, "the JSON body of a request must be an object")
    if request.get("model") != MODEL:
        unknown = f"the model {request.get('model')!r} does not exist; this server has {MODEL}"
        raise RequestError(404, unknown, "model_not_found")
    if request.get("stream") or request.get("n", 1) != 1:
        raise RequestError(400, f"{MODEL} supports neither 'stream' nor 'n' above 1")
    max_tokens = request.get("max_completion_tokens", request.get("max_tokens"))
    if max_tokens is not None and (not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1):
        raise RequestError(400, f"'max_tokens' must be a whole number from 1 on, not {max_tokens!r}")
    prompt, prompt_tokens = _prompt_of(request)
    task, count = _order_of(prompt)
    digest = hashlib.sha256(f"{seed}\n".encode() + body).hexdigest()
    text, finish_reason, items = _cut(write_items(task, count, random.Random(digest), fault_rate), max_tokens)
    message = {"role": "assistant", "content": text}
    completion = {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": 1_700_000_000 + int(digest[:6], 16),  # no clock: the same body gets the same reply, byte for byte
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": _tokens(text),
            "total_tokens": prompt_tokens + _tokens(text),
        },
    }
    return completion, items


class Server(ThreadingHTTPServer):
    """The running server. `base_url` is what an OpenAI client wants; `close()` or leaving a `with` block stops it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, port: int, *, seed: int, fault_rate: float, latency_s: float, truth_file: str | None, api_key: str | None
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        self.seed, self.fault_rate, self.latency_s, self.api_key = seed, fault_rate, latency_s, api_key
        self._truth = open(truth_file, "a", encoding="utf-8") if truth_file else None
        self._truth_lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        """As TCPServer: HTTPServer would look up the machine's name, seconds of waiting where no name server is."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()
        with self._truth_lock:
            if self._truth is not None:
                self._truth.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log_truth(self, body: bytes, items: list[Sent]) -> None:
        """A line an item and one that the request was answered, in one write; a body asked again is logged again."""
        request = hashlib.sha256(body).hexdigest()
        lines: list[dict[str, Any]] = [
            {
                "request": request, "item": number, "task": item.task, "instruction": item.instruction,
                "output": item.output, "fault": item.fault, "right": item.right, "shape": item.shape,
            }
            for number, item in enumerate(items)
        ]  # fmt: skip
        lines.append({"request": request, "answered": True})
        with self._truth_lock:
            if self._truth is not None and not self._truth.closed:
                self._truth.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
                self._truth.flush()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"  # keeps the connection open between requests
    disable_nagle_algorithm = True  # TCP_NODELAY
    wbufsize = -1  # head and body leave in one packet

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body: bytes) -> None:
        try:
            status, reply = 200, self._reply(body)
        except RequestError as error:
            status, reply = error.status, error.body
        if reply is None:
            self.close_connection = True
            return
        data = json.dumps(reply, ensure_ascii=False).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
        except ConnectionError:  # the client went away; a real endpoint does not care either
            self.close_connection = True

    def _reply(self, body: bytes) -> dict[str, Any] | None:
        """The JSON to send, or None when the client hung up while it waited: such a request counts as not answered."""
        key = self.server.api_key
        if key is not None and self.headers.get("Authorization") != f"Bearer {key}":
            raise RequestError(401, "incorrect or missing API key", "invalid_api_key")
        path = self.path.partition("?")[0]
        if (self.command, path) == ("GET", "/v1/models"):
            return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "data_gen"}]}
        if (self.command, path) != ("POST", "/v1/chat/completions"):
            raise RequestError(404, f"unknown URL: {self.command} {self.path}", "unknown_url")
        completion, items = complete(body, seed=self.server.seed, fault_rate=self.server.fault_rate)
        time.sleep(self.server.latency_s)
        if self._hung_up():
            return None
        self.server.log_truth(body, items)
        return completion

    def _hung_up(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except ConnectionError:
            return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Silent: the truth file is the log."""


def serve(
    port: int = 0,
    *,
    seed: int,
    fault_rate: float,
    latency_s: float = 0.0,
    truth_file: str | None = None,
    api_key: str | None = None,
) -> Server:
    """Starts the server on 127.0.0.1 in a thread (port 0: a free one); `latency_s` is waited before each reply.

    Raises UsageError for a rate that is no share or a port that is taken.
    """
    if not 0 <= fault_rate <= 1:
        raise UsageError(f"fault_rate is {fault_rate}; it is a share of the items: give 0 to 1")
    try:
        return Server(
            port, seed=seed, fault_rate=fault_rate, latency_s=latency_s, truth_file=truth_file, api_key=api_key
        )
    except OSError as error:
        message = f"port {port} on 127.0.0.1 or truth file {truth_file}: {error.strerror}; choose another"
        raise UsageError(message) from error


def main() -> None:
    about = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m data_gen.offline_teacher", description=about)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault_rate", type=float, default=0.0, help="share of the items that are wrong, 0 to 1")
    parser.add_argument("--latency_s", type=float, default=0.0, help="seconds to wait before each reply")
    parser.add_argument("--truth_file", help="JSONL; what is wrong with which item")
    parser.add_argument("--api_key", help="answer 401 without it")
    flags = parser.parse_args()
    try:
        server = serve(**vars(flags))
    except UsageError as error:
        parser.error(str(error))  # exit code 2
    print(f"{server.base_url}  (offline teacher: grammars and word lists, no language model)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    main()
