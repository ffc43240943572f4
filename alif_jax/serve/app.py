"""The HTTP application: OpenAI's completions, chat completions, embeddings and models; /health and /metrics.

    request → protocol.read_request → token ids (service.py) → the engine → text (text.py) → reply (completions.py)

It holds no model and runs nothing on a device. What a connection may do, and how a server starts and ends: connections.py.
"""

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alif_jax import UsageError
from alif_jax.serve.completions import complete
from alif_jax.serve.connections import limit_body
from alif_jax.serve.engine import Engine, QueueFull
from alif_jax.serve.metrics import CONTENT_TYPE, Figures, make_figures
from alif_jax.serve.protocol import (
    ApiError,
    Body,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    cut,
    embeddings_reply,
    model_object,
    read_request,
)
from alif_jax.serve.service import Service, check_count, encode_prompts, refused, room_for, until_gone
from alif_jax.serve.text import TokenNames
from alif_jax.tokenizer import Tokenizer

BODY_S = 60.0  # within which a body must have come
GONE = 499  # nginx's status of a client that left before its reply: nobody reads it but the metrics


def make_app(
    engine: Engine, tokenizers: Mapping[str, Tokenizer], *, max_length: int, max_queue: int, api_key: str = ""
) -> ASGIApp:  # fmt: skip
    """The application. tokenizers: name → that of each of the engine's models, the base first.

    api_key: what clients of /v1 must bring; empty: nothing. When the server ends, what the engine accepted is finished first.
    """
    service = Service(
        engine=engine, tokenizers=tokenizers, max_length=max_length, max_queue=max_queue, figures=make_figures(engine),
        names={name: TokenNames(tokenizer) for name, tokenizer in tokenizers.items()},
        sizes={name: tokenizer.size for name, tokenizer in tokenizers.items()},
    )  # fmt: skip

    def allowed(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if api_key and not hmac.compare_digest(given.encode(), api_key.encode()):
            hint = "no key came" if not given else "the key is wrong"
            raise ApiError(401, f"{hint}; expected Authorization: Bearer KEY", code="invalid_api_key", kind="authentication_error")

    def post(path: str, kind: type[Body], answer: Callable[[Service, Request, Body], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            allowed(request)
            return await answer(service, request, read_request(kind, await _body(request)))

        return Route(path, endpoint, methods=["POST"])

    async def list_models(request: Request) -> Response:
        allowed(request)
        return JSONResponse({"object": "list", "data": [_model(service, name) for name in tokenizers]})

    async def one_model(request: Request) -> Response:
        allowed(request)
        return JSONResponse(_model(service, service.model(request.path_params["name"])))

    async def health(request: Request) -> Response:
        alive = engine.stats().alive
        return JSONResponse({"status": "ok" if alive else "the engine has ended"}, 200 if alive else 503)

    async def metrics(request: Request) -> Response:
        return Response(service.figures.text(), media_type=CONTENT_TYPE)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.stop, drain=True)

    routes = [
        post("/v1/chat/completions", ChatRequest, complete),
        post("/v1/completions", CompletionRequest, complete),
        post("/v1/embeddings", EmbeddingRequest, _embed),
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", one_model),
        Route("/health", health),
        Route("/metrics", metrics),
    ]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, ClientDisconnect: _gone, Exception: _defect},
    )
    return _counted(limit_body(app), service.figures, {route.path for route in routes})


async def _body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            return await request.body()
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {BODY_S:.0f} s", headers={"Connection": "close"}) from None


def _model(service: Service, name: str) -> dict[str, object]:
    base = next(iter(service.tokenizers))
    return model_object(name, service.created, None if name == base else base, service.max_length)


async def _embed(service: Service, request: Request, asked: EmbeddingRequest) -> Response:
    """Mean of the last hidden states over each input's tokens."""
    model = service.model(asked.model)
    check_count(len(asked.input), service.max_queue, "inputs", "input")
    rows = await encode_prompts(service, model, asked.input, "input")
    for row in rows:
        room_for(row, 0, service.max_length, "input")
    try:
        future = service.engine.embed(model, rows)
    except (QueueFull, UsageError) as error:
        raise refused(error) from None
    task = asyncio.current_task()
    try:
        vectors_nD = await until_gone(request.receive, asyncio.wrap_future(future))  # cancelled with the client
    except asyncio.CancelledError:
        if task is not None and task.cancelling():  # it is this task that is cancelled
            raise
        raise ApiError(503, "the engine ended before it came to this request", code="unavailable", kind="server_error") from None
    return JSONResponse(embeddings_reply(model, vectors_nD, asked.encoding_format, sum(map(len, rows))))


# --- errors and counts ------------------------------------------------------------------------------------------------


def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status, error.headers)


def _http_error(request: Request, error: Exception) -> Response:
    """No such path, or another method than the path's."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    wrong = f"expected {allowed}" if allowed else "there is no such path here"
    message = f"{cut(request.method)} {cut(request.url.path)}: {wrong}"
    return _api_error(request, ApiError(error.status_code, message, headers=error.headers))


def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)


def _defect(request: Request, error: Exception) -> Response:
    """The traceback goes to the log: Starlette raises the error again after this reply."""
    return _api_error(request, ApiError(500, "the server failed on this request; its log says why", kind="server_error"))


def _counted(app: ASGIApp, figures: Figures, paths: set[str]) -> ASGIApp:
    """Counts requests by path and status, and how long they took. Paths that are none of ours are counted together."""

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        began, status = time.perf_counter(), GONE

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, note)
        finally:
            endpoint = scope["path"] if scope["path"] in paths else "other"
            figures.requests.labels(endpoint, status).inc()
            figures.duration.labels(endpoint).observe(time.perf_counter() - began)

    return counted
