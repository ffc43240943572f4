"""A small HTTP/1.1 server on 127.0.0.1 for the offline teacher: one thread with an event loop, connections kept open.

It can misbehave on request: end a connection without a byte, or in the middle of a body. No TLS, no chunked bodies, no
routes: one handler gets every request.
"""

import asyncio
import email.utils
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, urlsplit

MAX_BODY = 512 * 2**20  # bytes of a request, the largest file that OpenAI takes
_READ_AHEAD = 2**16  # bytes: the longest head, and what is read before the handler asks for more


class RequestError(Exception):
    """A request that a real endpoint would refuse, with its HTTP status and the fields of the OpenAI error body."""

    def __init__(self, status: int, message: str, code: str | None = None, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


@dataclass(frozen=True)
class Request:
    """What came. Header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    is_gone: Callable[[], bool]  # whether the client hung up
    gone: Callable[[], Awaitable[None]]  # waits until it did; the connection is of no use afterwards


@dataclass(frozen=True)
class Reply:
    """What goes back. Of the body only the first `cut` bytes leave, then the connection ends; None: all of it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


Handler = Callable[[Request], Awaitable[Reply | None]]  # None: the connection ends without a byte


def json_reply(value: Any, status: int = 200) -> Reply:
    data = json.dumps(value, ensure_ascii=False).encode()
    return Reply(status, data, {"Content-Type": "application/json; charset=utf-8"})


def http_date(seconds: float) -> str:
    """http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"."""
    return email.utils.formatdate(seconds, usegmt=True)


def _wire(reply: Reply) -> bytes:
    phrase = HTTPStatus(reply.status).phrase
    headers = {"Date": http_date(time.time()), "Content-Length": str(len(reply.body)), **reply.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{head}\r\n".encode("latin-1") + reply.body[: reply.cut]


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request, or None when the client has closed the connection. RequestError for what is no HTTP/1.1."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise RequestError(431, f"the head of a request may have {_READ_AHEAD} bytes") from error
    first, *lines = head.split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise RequestError(400, f"not a request line of HTTP/1.1: {first[:200]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    if "transfer-encoding" in headers:
        raise RequestError(411, "this server reads no chunked bodies: send Content-Length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise RequestError(400, f"Content-Length is {length!r}, not a whole number")
    if int(length) > MAX_BODY:
        raise RequestError(413, f"a body of {length} bytes; this server takes {MAX_BODY}")
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await reader.readexactly(int(length))

    async def gone() -> None:
        while await reader.read(_READ_AHEAD):
            pass

    def is_gone() -> bool:
        return reader.at_eof() or reader.exception() is not None or writer.transport.is_closing()

    target = urlsplit(parts[1])
    return Request(parts[0], target.path, dict(parse_qsl(target.query)), headers, body, is_gone, gone)


class HttpServer:
    """Has its port from its making on (OSError when that is taken) and answers from `start()` to `close()`.

    The handler runs in the server's own thread: what it touches needs no locks, and it must not block.
    """

    def __init__(self, port: int, handler: Handler) -> None:
        self._handler = handler
        self._socket = socket.create_server(("127.0.0.1", port))
        self.server_port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())  # cancels at its end what still runs

    async def _main(self) -> None:
        server = await asyncio.start_server(self._talk, sock=self._socket, limit=_READ_AHEAD, backlog=1024)
        await self._stopped.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away; a real endpoint does not care either
        except asyncio.CancelledError:
            pass  # the server stops; of a task that ends cancelled, asyncio before 3.12.2 prints a traceback
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays open."""
        request: Request | None = None
        try:
            request = await _read(reader, writer)
            reply = await self._handler(request) if request else None
        except RequestError as error:
            reply = json_reply(error.body, error.status)
        if reply is None:
            return False
        writer.write(_wire(reply))
        await writer.drain()
        return request is not None and reply.cut is None and request.headers.get("connection", "").lower() != "close"

    def close(self) -> None:
        """Stops at once: whoever waits for a reply gets none. May be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join()
