"""An OpenAI-compatible endpoint: its config, one call to it, and what a failed call means. It decides nothing: when to ask,
how often and at what price is teacher.py's, batch.py's and account.py's matter.

What may go wrong is of four kinds:
  busy     429, 502, 503, 504, 529, time-out, no connection   worth waiting for, longer each time
  broken   other 5xx, a malformed reply                       worth a few more attempts; then this request has failed
  request  400, 413, 422                                      this request will never work
  config   401, 403, 404, no credit                           no request will
"""

import asyncio
import logging
import math
import os
import random
import re
import urllib.parse
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any, Literal

import aiohttp
import httpx2
import openai

from data_gen import UsageError
from data_gen.limits import Price

OFFLINE = "offline"
CONNECT_S, MAX_BACKOFF_S, MAX_RETRY_AFTER_S = 30.0, 30.0, 600.0
BUSY_STATUS = (429, 503, 529)  # said by an endpoint that has too much to do
# What ends a call before its request is sent. After anything else it may have been answered, and paid for.
_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, httpx2.LocalProtocolError, httpx2.UnsupportedProtocol)
_GAVE_UP = (408, 504, 524)  # statuses of a server or proxy that waited in vain for a reply, which may come and be paid for
CALL_ERRORS = (openai.APIError, httpx2.HTTPError, aiohttp.ClientError)  # what one call of the SDK may raise
_URL = re.compile(r"https?://\S+")
Kind = Literal["busy", "broken", "request", "config"]


@dataclass(kw_only=True)
class TeacherConfig:
    """Where the teacher is, what it costs and how hard it may be pressed. The key itself is never in a config, only its
    variable's name.
    """

    base_url: str = OFFLINE  # "https://host/v1", or "offline": the project's own server of grammars and word lists
    model: str = "offline-teacher"
    terms: str = ""  # of a real endpoint: URL of its terms and what they allow; goes into the data's manifest and cards
    api_key_env: str = "OPENAI_API_KEY"
    reply_format: Literal["tagged", "json_schema"] = "tagged"  # json_schema: where the endpoint has structured outputs
    batch: bool = False  # the provider's Batch API: half the price, within a day, max_in_flight requests a batch
    batch_poll_s: float = 30.0
    batch_price_factor: float = 0.5
    input_price: float | None = None  # US dollars per million tokens
    output_price: float | None = None
    cached_input_price: float | None = None  # none: as input_price
    max_in_flight: int = 8  # the window grows up to it
    latency_tolerance: float = 3.0  # the window shrinks when replies take this many times as long as they did
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    seed: bool = True  # whether to send one; some endpoints refuse it
    max_tokens_field: str = "max_tokens"  # newer OpenAI models want "max_completion_tokens"
    timeout_s: float = 600.0
    give_up_s: float = 600.0  # without any reply, while the endpoint is busy or away
    max_attempts: int = 6  # a request with server errors, in one run
    backoff_s: float = 1.0  # wait before the second attempt; doubles up to 30 s
    max_failures: int = 5
    offline_fault_rate: float = 0.1  # share of items that the offline teacher gets wrong on purpose
    offline_latency_s: float = 0.0
    offline_faults: str = ""  # what the offline teacher's server does wrong: "retry_after=0.1,hang=0.01"

    def price(self) -> Price | None:
        """None where no price is given."""
        if self.input_price is None or self.output_price is None:
            return None
        return Price(self.input_price, self.output_price, self.cached_input_price, self.batch_price_factor if self.batch else 1.0)

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        high = 1e9
        bounds: list[tuple[str, float | None, float, float]] = [
            ("max_attempts", self.max_attempts, 1, 100),
            ("give_up_s", self.give_up_s, 0, high),
            ("timeout_s", self.timeout_s, 0.001, 86_400),
            ("backoff_s", self.backoff_s, 0, 600),
            ("max_failures", self.max_failures, 1, 1000),
            ("max_in_flight", self.max_in_flight, 1, 50_000),
            ("latency_tolerance", self.latency_tolerance, 1.1, high),
            ("requests_per_minute", self.requests_per_minute, 0.001, high),
            ("tokens_per_minute", self.tokens_per_minute, 1, high),
            ("batch_poll_s", self.batch_poll_s, 0.001, 3600),
            ("batch_price_factor", self.batch_price_factor, 0, 1),
            *((name, getattr(self, name), 0, high) for name in ("input_price", "output_price", "cached_input_price")),
        ]
        for name, value, low, most in bounds:
            if value is not None and not low <= value <= most:
                raise UsageError(f"teacher.{name} is {value}; it must be between {low} and {most}")
        if (self.input_price is None) != (self.output_price is None):
            raise UsageError("teacher.input_price and teacher.output_price belong together (US dollars per million tokens)")
        if self.max_tokens_field not in ("max_tokens", "max_completion_tokens"):
            raise UsageError(f"teacher.max_tokens_field is {self.max_tokens_field!r}; max_tokens or max_completion_tokens")
        if self.base_url != OFFLINE:
            check_base_url(self.base_url)
            check_terms(self.terms, self.model)


def check_base_url(url: str, called: str = "teacher.base_url") -> None:
    """Raises UsageError on what is no http(s) address, and (without repeating it) on one that may hold a secret: the
    config is stored with the data.
    """
    if any(sign in url for sign in "@?#"):
        raise UsageError(
            f"{called} holds a user name, a password or a query, which would be stored with the data: give the plain "
            "address and put the key into the environment variable that teacher.api_key_env names"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        offline = f"be {OFFLINE!r} or " if called == "teacher.base_url" else ""
        raise UsageError(f"{called} is {url!r}; it must {offline}begin with http:// or https://")


def check_terms(terms: str, model: str) -> None:
    """Raises UsageError unless the terms name a URL and say in words what they allow."""
    if not (_URL.search(terms) and len(_URL.sub("", terms).split()) >= 2):
        raise UsageError(
            f"teacher.terms is {terms!r}; several providers forbid training other models on what theirs write. Read those of "
            f"{model} and give their URL and what they allow, for example --config.teacher.terms="
            "'https://example.com/license Apache-2.0: training other models is allowed'"
        )


class AttemptError(Exception):
    """An attempt without a usable reply. `wait_s` is what the server asked for (Retry-After); `paid`: perhaps."""

    def __init__(
        self, kind: Kind, message: str, wait_s: float | None = None, status: int | None = None, *, paid: bool = False
    ) -> None:
        super().__init__(message)
        self.kind, self.wait_s, self.status, self.paid = kind, wait_s, status, paid


def kind_of(status: int, text: str) -> Kind:
    """What an HTTP status means, with the body's text."""
    if status == 429 and "insufficient_quota" in text:
        return "config"
    if status in (408, 409, 502, 504, *BUSY_STATUS):
        return "busy"
    if status in (400, 413, 422):
        return "request"
    return "broken" if status >= 500 else "config"


def retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None without a usable one, 0 for a date gone by.

    A date is taken against the server's own clock, where it says what time it has: ours may be wrong, or be set meanwhile.
    """
    value = headers.get("retry-after", "")
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value).timestamp()
        except ValueError:
            return None
        try:
            now = parsedate_to_datetime(headers.get("date", "")).timestamp()
        except ValueError:
            now = time()
        seconds = then - now
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None


def backoff(config: TeacherConfig, error: AttemptError, number: int) -> float:
    """Seconds to the next attempt: 1, 2, 4 … × backoff_s, less up to half of it; more where the server asked for more."""
    return max(error.wait_s or 0.0, min(config.backoff_s * 2.0 ** min(number - 1, 10), MAX_BACKOFF_S) * random.uniform(0.5, 1.0))


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"the key in the environment variable {variable} has characters other than printable ASCII; set it anew")
    return key


async def _as_utf_8(response: httpx2.Response) -> None:
    """JSON is UTF-8 whatever a header says; some of what it may say is no encoding of text, and the SDK reads errors by it."""
    response.encoding = "utf-8"


class Endpoint:
    """`async with Endpoint(config, url) as endpoint: reply = await endpoint.post("/chat/completions", body)`."""

    def __init__(self, config: TeacherConfig, base_url: str) -> None:
        self.config, self.base_url = config, base_url.rstrip("/")
        self._key = "" if config.base_url == OFFLINE else _read_key(config.api_key_env)
        logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for every request otherwise
        # A proxy of the environment cannot reach a server on this machine.
        local = urllib.parse.urlsplit(base_url).hostname in ("127.0.0.1", "localhost", "::1")
        limits = httpx2.Limits(max_connections=config.max_in_flight + 8, max_keepalive_connections=config.max_in_flight + 8)
        self.client = openai.AsyncOpenAI(
            api_key=self._key or "none",  # a local server needs none, the SDK insists on one
            base_url=base_url,
            timeout=httpx2.Timeout(config.timeout_s, connect=min(CONNECT_S, config.timeout_s)),
            max_retries=0,  # the SDK's own retries would not be in the journal
            http_client=openai.DefaultAioHttpClient(  # half of httpx's CPU a request
                trust_env=not local, limits=limits, event_hooks={"response": [_as_utf_8]}
            ),
        )

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def post(self, path: str, body: str) -> str:
        """The raw text of a good reply. Raises AttemptError."""
        try:
            async with asyncio.timeout(self.config.timeout_s):  # the client's own is from byte to byte; a proxy may drip blanks
                response = await self.client.post(
                    f"{self.base_url}{path}",
                    cast_to=httpx2.Response,
                    content=body.encode(),
                    options={"headers": {"Content-Type": "application/json"}},
                )
        except TimeoutError:
            raise self._late() from None
        except CALL_ERRORS as error:
            raise self.failure(error) from None  # the SDK's error is not chained: it may repeat the key
        return self.clean(response.content.decode("utf-8-sig", "replace"))

    def _late(self) -> AttemptError:
        return AttemptError("busy", f"no reply within {self.config.timeout_s:g} s", paid=True)

    def failure(self, error: Exception) -> AttemptError:
        """What an error of a call means, with a message that holds no key."""
        if isinstance(error, openai.APIStatusError):
            text = self.clean(error.response.text)[:500]
            message = f"HTTP {error.status_code}: {' '.join(text.split())}"
            kind = kind_of(error.status_code, text)
            wait_s, gave_up = retry_after(error.response.headers), error.status_code in _GAVE_UP
            return AttemptError(kind, message, wait_s, error.status_code, paid=gave_up)
        # The SDK's transport takes a refused connection for a time-out; the causes of what it raises know better.
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        if any(isinstance(cause, aiohttp.SocketTimeoutError) for cause in causes):
            return self._late()
        sent = not any(isinstance(cause, _UNSENT) for cause in causes)
        # Of errors that are not the system's the text may hold what was sent, the header with the key included.
        said = causes[-1].strerror if isinstance(causes[-1], OSError) else ""
        message = f"{'connection lost' if sent else 'no connection'}: {said or type(causes[-1]).__name__}"
        return AttemptError("busy", self.clean(message), paid=sent)

    def clean(self, text: str) -> str:
        """A text without the key."""
        return text.replace(self._key, "[key]") if self._key else text

    def advice(self, error: AttemptError, waited: str) -> str:
        """What to do about an error that stops the run. `waited`: "tried 6 times", "no answer for 600 s"."""
        config = self.config
        came = f"teacher {self.base_url}: {error}"
        if error.status in (401, 403):
            state = "is set, but not accepted" if self._key else "is not set"
            return f"{came}. The key is read from the environment variable {config.api_key_env}, which {state}."
        if error.status == 404:
            return f"{came}. Check teacher.base_url (it usually ends in /v1) and teacher.model={config.model!r}."
        if error.kind == "busy":
            hint = "lower teacher.max_in_flight" if error.status in BUSY_STATUS else "check that the server runs there"
            return f"{came}; {waited}. Wait, or {hint} (teacher.base_url={config.base_url!r})."
        if error.kind == "request":
            return (
                f"{came}. Check teacher.model={config.model!r} and max_tokens. A field that the endpoint does not know can be "
                "left out or renamed: temperature=none, teacher.seed=false, teacher.max_tokens_field=max_completion_tokens, "
                "teacher.reply_format=tagged."
            )
        return f"{came}. Check teacher.model={config.model!r} and the account."


def malformed(error: ValueError) -> AttemptError:
    """A reply with status 200 that is none: perhaps paid for."""
    return AttemptError("broken", f"malformed reply: {error}", paid=True)


def max_tokens_of(fields: dict[str, Any]) -> int | None:
    """The cap on a reply's tokens in a request's body."""
    value = fields.get("max_completion_tokens", fields.get("max_tokens"))
    return value if isinstance(value, int) else None
