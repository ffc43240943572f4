"""The client of an OpenAI-compatible endpoint: from one request to one raw reply, with every attempt in the journal.

What may go wrong is of four kinds, each with its own treatment:
  busy     429, time-out, no connection   tried again, waiting longer each time, until give_up_s went by without any reply
                                          (max_attempts, where nobody ever answered): then the run stops. A request
                                          with three time-outs has failed
  broken   5xx, a malformed reply         tried again; in the end this request has failed and the run goes on
  request  400, 413, 422                  not tried again; this request has failed, unless no request was ever answered:
                                          then the run stops
  config   401, 403, 404, no credit       not tried again; the run stops
When `max_failures` requests fail one after the other, the requests are not the cause: the run stops too. Nothing is
lost by a stop: the same command asks again what has no reply.
"""

import asyncio
import logging
import os
import random
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import monotonic, time
from types import TracebackType
from typing import Literal, Self

import httpx2
import openai

from data_gen import UsageError
from data_gen.journal import FAILED, PLANNED, Journal, Request
from data_gen.prompt import reply_choice

OFFLINE = "offline"
PAID_ATTEMPTS = 3  # with a malformed reply or a time-out: each one may be paid
CONNECT_S, MAX_BACKOFF_S, MAX_RETRY_AFTER_S = 30.0, 30.0, 600.0
Kind = Literal["busy", "broken", "request", "config"]


@dataclass(kw_only=True)
class TeacherConfig:
    """Where the teacher is and how hard it may be pressed. The key itself is never in a config, only its variable's
    name.
    """

    base_url: str = OFFLINE  # "https://host/v1", or "offline": the project's own server of grammars and word lists
    model: str = "offline-teacher"
    api_key_env: str = "OPENAI_API_KEY"
    max_in_flight: int = 8
    seed: bool = True  # whether to send one; some endpoints refuse it
    max_tokens_field: str = "max_tokens"  # newer OpenAI models want "max_completion_tokens"
    timeout_s: float = 600.0
    give_up_s: float = 600.0  # without any reply, while the endpoint is busy or away
    max_attempts: int = 6  # a request with server errors, in one run
    backoff_s: float = 1.0  # wait before the second attempt; doubles up to 30 s
    max_failures: int = 5
    offline_fault_rate: float = 0.1  # share of items that the offline teacher gets wrong on purpose
    offline_latency_s: float = 0.0


class _AttemptError(Exception):
    """An attempt without a usable reply. `wait_s` is what the server asked for (Retry-After); `paid`: perhaps."""

    def __init__(
        self, kind: Kind, message: str, wait_s: float | None = None, status: int | None = None, *, paid: bool = False
    ) -> None:
        super().__init__(message)
        self.kind, self.wait_s, self.status, self.paid = kind, wait_s, status, paid


def check_base_url(url: str) -> None:
    """Raises UsageError on what is no http(s) address, and (without repeating it) on one that may hold a secret: the
    config is stored with the data.
    """
    if any(sign in url for sign in "@?#"):
        raise UsageError(
            "teacher.base_url holds a user name, a password or a query, which would be stored with the data: give the plain "
            "address and put the key into the environment variable that teacher.api_key_env names"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"teacher.base_url is {url!r}; it must be {OFFLINE!r} or begin with http:// or https://")


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the key in the environment variable {variable} has characters other than printable ASCII; set it anew")
    return key


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None without a usable one."""
    value = response.headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _kind(status: int, text: str) -> Kind:
    if status == 429:
        return "config" if "insufficient_quota" in text else "busy"
    if status in (408, 409):
        return "busy"
    if status in (400, 413, 422):
        return "request"
    return "broken" if status >= 500 else "config"


class Teacher:
    """`async with Teacher(config, url, journal) as teacher: reply = await teacher.ask(request)`."""

    def __init__(self, config: TeacherConfig, base_url: str, journal: Journal, *, answered_before: bool) -> None:
        self.config, self.base_url, self.journal = config, base_url.rstrip("/"), journal
        key = "" if config.base_url == OFFLINE else _read_key(config.api_key_env)
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every request otherwise
        # A proxy of the environment cannot reach a server on this machine.
        local = urllib.parse.urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")
        self._client = openai.AsyncOpenAI(
            api_key=key or "none",  # a local server needs none, the SDK insists on one
            base_url=base_url,
            timeout=httpx2.Timeout(config.timeout_s, connect=min(CONNECT_S, config.timeout_s)),
            max_retries=0,  # the SDK's own retries would not be in the journal
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not local),
        )
        self._key = key
        self._answered = answered_before
        self._failures: list[int] = []  # requests that failed one after the other
        self._sending: set[int] = set()
        self._stopped = False
        self._not_before = 0.0  # for all requests: after a 429
        self._heard_at: float | None = None  # when the last reply came, or the first request began

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        await self._client.close()

    async def ask(self, request: Request) -> str | None:
        """The raw reply, already committed; None when this request has failed for good. Raises UsageError when the run
        must stop.
        """
        number = 0
        if self._heard_at is None:
            self._heard_at = monotonic()
        while True:
            while (wait := self._not_before - monotonic()) > 0:
                await asyncio.sleep(wait + random.uniform(0, self.config.backoff_s))  # not all at the same moment
            number += 1
            try:
                reply = await self._attempt(request)
            except _AttemptError as error:
                if not self._may_try_again(error, number):
                    self._give_up(request, error)
                    return None
                wait = self._wait(error, number)
                if error.status == 429:
                    self._not_before = max(self._not_before, monotonic() + wait)
                else:
                    await asyncio.sleep(wait)
                continue
            self._answered = True
            self._heard_at = monotonic()
            self._failures.clear()
            return reply

    def _is_silent(self) -> bool:
        return self._heard_at is not None and monotonic() - self._heard_at >= self.config.give_up_s

    def _may_try_again(self, error: _AttemptError, number: int) -> bool:
        if self._stopped or error.kind not in ("busy", "broken"):
            return False
        if error.paid and number >= PAID_ATTEMPTS:
            return False
        patient = error.kind == "busy" and not self._is_absent(error)
        return not self._is_silent() if patient else number < self.config.max_attempts

    def _is_absent(self, error: _AttemptError) -> bool:
        """No connection, and nobody ever answered there: a wrong address or a server not started, rather than a busy one."""
        return error.status is None and not error.paid and not self._answered

    async def drain(self, tasks: Iterable[tuple[asyncio.Task[str | None], int]]) -> None:
        """Stops: whoever waits to try again gives up; a request on its way is waited for, so that its reply is kept."""
        self._stopped = True
        pending = list(tasks)
        for task, idx in pending:
            if idx not in self._sending:
                task.cancel()
        await asyncio.gather(*(task for task, _ in pending), return_exceptions=True)

    async def _attempt(self, request: Request) -> str:
        number = self.journal.sent(request.idx)
        self._sending.add(request.idx)
        try:
            response = await self._client.post(
                "/chat/completions",
                cast_to=httpx2.Response,
                content=request.body.encode(),
                options={"headers": {"Content-Type": "application/json"}},
            )
            reply = response.text
        except openai.APIError as error:
            failure = self._attempt_error(error)
            self.journal.refused(request.idx, number, str(failure))
            # The SDK's error is not chained: it may repeat the key.
            raise failure from None
        finally:
            self._sending.discard(request.idx)
        try:
            reply_choice(reply)
        except ValueError as error:
            message = self._clean(f"malformed reply: {error}")
            self.journal.refused(request.idx, number, message, reply)
            raise _AttemptError("broken", message, paid=True) from error
        self.journal.answered(request.idx, number, reply)
        return reply

    def _attempt_error(self, error: openai.APIError) -> _AttemptError:
        if isinstance(error, openai.APIStatusError):
            text = self._clean(error.response.text)[:500]
            message = f"HTTP {error.status_code}: {' '.join(text.split())}"
            return _AttemptError(_kind(error.status_code, text), message, _retry_after(error.response), error.status_code)
        cause = error.__cause__ or error
        if isinstance(error, openai.APITimeoutError) and not isinstance(cause, httpx2.ConnectTimeout):
            return _AttemptError("busy", f"no reply within {self.config.timeout_s:g} s", paid=True)
        # Of other errors the text may hold what was sent, the header with the key included.
        text = f" ({cause})" if isinstance(cause, httpx2.ConnectError) else ""
        return _AttemptError("busy", self._clean(f"no connection: {type(cause).__name__}{text}"))

    def _clean(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def _wait(self, error: _AttemptError, number: int) -> float:
        """Seconds to the next attempt: what the server asked for, else 1, 2, 4 … × backoff_s, less up to half of it."""
        if error.wait_s is not None:
            return error.wait_s
        return min(self.config.backoff_s * 2.0 ** min(number - 1, 10), MAX_BACKOFF_S) * random.uniform(0.5, 1.0)

    def _give_up(self, request: Request, error: _AttemptError) -> None:
        """Marks the request as failed, or raises UsageError when the cause is not the request."""
        if self._stopped:
            return  # the run ends; the request stays planned
        silent = error.kind == "busy" and (self._is_silent() or self._is_absent(error))
        if silent or error.kind == "config" or (error.kind == "request" and not self._answered):
            raise UsageError(f"{self._advice(error)} Nothing is lost: the same command goes on from here.")
        self.journal.set_status(request.idx, FAILED)
        self._failures.append(request.idx)
        if len(self._failures) >= self.config.max_failures:
            for idx in self._failures:
                self.journal.set_status(idx, PLANNED)
            raise UsageError(
                f"{len(self._failures)} requests one after the other failed at {self.base_url}; the last: {error}. "
                "Check that teacher.base_url is an OpenAI-compatible endpoint (it usually ends in /v1), and max_tokens. "
                "The same command asks them again."
            )

    def _advice(self, error: _AttemptError) -> str:
        config = self.config
        came = f"teacher {self.base_url}: {error}"
        if error.status in (401, 403):
            state = "is set, but not accepted" if self._key else "is not set"
            return f"{came}. The key is read from the environment variable {config.api_key_env}, which {state}."
        if error.status == 404:
            return f"{came}. Check teacher.base_url (it usually ends in /v1) and teacher.model={config.model!r}."
        if error.kind == "busy":
            hint = "lower teacher.max_in_flight" if error.status == 429 else "check that the server runs there"
            came += f"; tried {config.max_attempts} times" if self._is_absent(error) else f"; no answer for {config.give_up_s:g} s"
            return f"{came}. Wait, or {hint} (teacher.base_url={config.base_url!r})."
        if error.kind == "request":
            return (
                f"{came}. Check teacher.model={config.model!r} and max_tokens. A field that the endpoint does not know can be "
                "left out or renamed: temperature=none, teacher.seed=false, teacher.max_tokens_field=max_completion_tokens."
            )
        return f"{came}. Check teacher.model={config.model!r} and the account."
