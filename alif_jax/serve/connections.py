"""Connections: how many, how slow, how large; and the server's start and end.

    more connections than fit        a bare 503 at once, without reading a request
    a head that does not come        closed after HEAD_S; where no byte of a next one comes, after KEEP_ALIVE_S
    a head without an end            431 at MAX_HEAD bytes
    a body that is too large         413 without reading on (what is on its way is thrown away for LINGER_S)
    a body that does not end         the connection is closed at MAX_SENT bytes, also where nobody read them
    a client that takes no reply     cut off after WRITE_S

It knows nothing of what is served.
"""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from alif_jax import UsageError
from alif_jax.serve.protocol import ApiError

MAX_BODY = 4 * 2**20  # bytes
MAX_SENT = 64 * 2**20  # bytes
MAX_HEAD = 64 * 2**10  # bytes
HEAD_S, WRITE_S, KEEP_ALIVE_S = 30.0, 60.0, 60
LINGER_S = 2.0  # closing a socket with unread bytes resets it, and the client may lose the reply that it was sent
MAX_REFUSED = 256  # connections that wait for their client to take a 503
OWN_FILES = 256  # open files that are no connections
BACKLOG = 4096


def _bare(status: str, error: ApiError) -> bytes:
    body = json.dumps(error.body).encode()
    head = {"content-type": "application/json", "content-length": len(body), "connection": "close", **error.headers}
    return "\r\n".join([f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in head.items()), "", ""]).encode() + body


TOO_MANY = _bare("503 Service Unavailable", ApiError(
    503, "too many connections; try again later", code="unavailable", kind="server_error", headers={"retry-after": "1"},
))  # fmt: skip
LONG_HEAD = _bare("431 Request Header Fields Too Large", ApiError(
    431, f"the head of a request may have {MAX_HEAD} bytes", code="head_too_large",
))  # fmt: skip


class Connection(HttpToolsProtocol):
    """uvicorn's connection with the bounds above. refused: the server's refused connections that are still open."""

    def __init__(self, *, max_connections: int, refused: "set[Connection]", head_s: float = HEAD_S, **given: Any) -> None:
        super().__init__(**given)
        self._max, self._refused, self._head_s = max_connections, refused, head_s
        self._head: asyncio.TimerHandle | None = None  # runs while a head is on its way
        self._write: asyncio.TimerHandle | None = None  # runs while the client takes nothing
        self._head_bytes = self._body_bytes = 0
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= self._max:
            self._refuse(transport)
            return
        super().connection_made(transport)
        self._await_head()

    def _refuse(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.write(TOO_MANY)
        if len(self._refused) >= MAX_REFUSED:
            transport.close()
            return
        self._refused.add(self)
        self._head = self.loop.call_later(LINGER_S, transport.close)

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head = self.loop.call_later(self._head_s, self.transport.close)

    def _stop_timers(self) -> None:
        for timer in (self._head, self._write):
            if timer is not None:
                timer.cancel()
        self._head = self._write = None

    def data_received(self, data: bytes) -> None:
        if self in self._refused:
            self.transport.close()
            return
        in_body = self._in_body
        super().data_received(data)
        if self.parser is None:
            return
        if self._head is not None and not in_body:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self.transport.write(LONG_HEAD)
                self.transport.close()
        elif self._idle() and not self.transport.is_closing():
            self._await_head()  # any byte has ended uvicorn's wait: a blank line, or the rest of a body that nobody wanted

    def _idle(self) -> bool:
        """No head is awaited, no reply is owed, and uvicorn does not wait for a next request either."""
        replied = self.cycle is not None and self.cycle.response_complete
        return replied and self._head is None and self.timeout_keep_alive_task is None

    def shutdown(self) -> None:
        """The server ends: also for a request whose body has not come, which would keep it waiting."""
        super().shutdown()
        if self._in_body and not self.pipeline and not self.cycle.response_started:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._body_bytes = 0
        if self._head is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
        super().on_headers_complete()
        self._in_body = True

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_SENT:
            self.transport.abort()
            return
        super().on_body(body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write = self.loop.call_later(WRITE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write is not None:
            self._write.cancel()
            self._write = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        if self in self._refused:
            self._refused.discard(self)
        elif self in self.connections:
            super().connection_lost(exc)


# --- bodies -----------------------------------------------------------------------------------------------------------


def limit_body(app: ASGIApp) -> ASGIApp:
    """The application with 413 for bodies over MAX_BODY: at once where Content-Length says so, else when so much has come."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        refused = declared.isdigit() and int(declared) > MAX_BODY
        size = 0
        too_large = ApiError(
            413, f"the body has more than {MAX_BODY} bytes, which is the most that is read", code="body_too_large",
            headers={"Connection": "close"},
        )  # fmt: skip

        async def counted() -> Message:
            nonlocal size, refused
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_BODY and not refused:
                refused = True
                raise too_large
            return message

        async def lingering(message: Message) -> None:
            if refused and message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _throw_away(receive)
                message = {"type": "http.response.body"}
            await send(message)

        if refused:
            return await JSONResponse(too_large.body, too_large.status, too_large.headers)(scope, receive, lingering)
        await app(scope, counted, lingering)

    return limited


async def _throw_away(receive: Receive) -> None:
    """Reads on for a moment, so that the client gets to read its reply; it keeps nothing."""
    try:
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass


# --- start and end ----------------------------------------------------------------------------------------------------


def fit_connections(wanted: int, say: Callable[[str], None]) -> int:
    """Raises the limit of open files to the hard one; returns how many connections fit under it, at most `wanted`.

    Says so where they are fewer. Raises UsageError where none fits.
    """
    if wanted < 1:
        raise UsageError(f"max_connections={wanted}: at least 1")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = wanted if hard == resource.RLIM_INFINITY else hard - MAX_REFUSED - OWN_FILES
    if room < 1:
        raise UsageError(f"this process may open {hard} files; at least {MAX_REFUSED + OWN_FILES + 1} are needed (ulimit -Hn)")
    if room < wanted:
        say(f"at most {room} connections instead of {wanted}: this process may open {hard} files (ulimit -Hn)")
    return min(room, wanted)


def bind(host: str, port: int) -> socket.socket:
    """A socket that has its address. Raises UsageError where the address is taken or is none.

    It listens already, or another could take the address too; who comes before the server runs waits for it.
    """
    if not 0 <= port < 2**16:
        raise UsageError(f"port={port}: expected 0 (any that is free) to {2**16 - 1}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(1)
    except OSError as error:
        raise UsageError(f"host={host} port={port}: {error}; choose another with --host and --port") from None
    return bound


class _Server(uvicorn.Server):
    """uvicorn's server, which finishes what it accepted at the first signal, and ends with exit code 0 after it.

    Its own way is to raise the signal once more at the end; a second SIGTERM would not hurry it.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)
        print(f"{signal.Signals(sig).name}: finishing what was accepted; once more ends at once", file=sys.stderr, flush=True)
        self.should_exit = True


def make_server(app: ASGIApp, *, max_connections: int, log_requests: bool = False, head_s: float = HEAD_S) -> uvicorn.Server:
    config = uvicorn.Config(
        app, http=partial(Connection, max_connections=max_connections, refused=set(), head_s=head_s),  # type: ignore[arg-type]
        ws="none", lifespan="on", log_level="info" if log_requests else "error", access_log=log_requests, backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S, proxy_headers=False, server_header=False,
    )  # fmt: skip
    return _Server(config)


def serve(app: ASGIApp, bound: socket.socket, *, max_connections: int, log_requests: bool, ready: Callable[[], None]) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what was accepted. ready is called once clients can connect."""
    server = make_server(app, max_connections=max_connections, log_requests=log_requests)
    bound.listen(BACKLOG)
    ready()
    server.run(sockets=[bound])
