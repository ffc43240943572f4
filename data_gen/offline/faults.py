"""Faults that the offline teacher shows on demand: which reply gets which one, and what those of the transport look like.

    faults = read("retry_after=0.1,hang=0.02")     a tenth of the requests is told to come back, two in a hundred hang
    kind_of(faults, seed=0, body=body)             None, or the fault of this very body

Nothing is drawn at random: the server's seed and the request's bytes decide, so a run can be repeated. Faults of the
transport, and `expire`, come only the first time a body is asked; the content's always. Their texts: offline/items.py.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from data_gen import UsageError
from data_gen.offline.http import Reply, RequestError, http_date, json_reply

TRANSPORT = {
    "rate_limit": "429 without Retry-After",
    "retry_after": "429 with Retry-After: 1",
    "retry_after_date": "429 with Retry-After as a date, one second after the server's clock, which is a day ahead",
    "error_500": "500",
    "error_502": "502 with a page of HTML",
    "hang": "not a byte, until the client hangs up or the server stops",
    "cut": "half of the body, then the end of the connection",
    "invalid_json": "200 and half of a JSON text",
    "no_choices": "200 and an empty list of choices",
}
CONTENT = {
    "length": "ends in the middle of an item, finish_reason length",
    "wrong_language": "all answers in English",
    "identical": "20 times the same item",
    "huge": "5 MB, whatever max_tokens says",
}
BATCH = {"expire": "a batch's request comes back as batch_expired, and the batch as expired"}
KINDS = {**TRANSPORT, **CONTENT, **BATCH}
_DAY_S = 86_400


def read(text: str) -> dict[str, float]:
    """Shares of the requests by kind: "cut=0.1,huge=0.05" → {"cut": 0.1, "huge": 0.05}, "" → {}.

    Raises UsageError for an unknown or repeated kind, a share that is none, and shares that sum to more than 1.
    """
    faults: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, share = (side.strip() for side in part.partition("="))
        if kind not in KINDS:
            raise UsageError(f"faults: {part!r} names no fault; write NAME=SHARE with a name of {', '.join(KINDS)}")
        if kind in faults:
            raise UsageError(f"faults: {kind} is given twice")
        try:
            faults[kind] = float(share)
        except ValueError:
            faults[kind] = -1.0
        if not 0 <= faults[kind] <= 1:
            raise UsageError(f"faults: {part!r}; the share of the requests is a number from 0 to 1, as in {kind}=0.1")
    if sum(faults.values()) > 1 + 1e-9:
        raise UsageError(f"faults: the shares of {text!r} sum to {sum(faults.values()):g}; a request has one fault at most")
    return faults


def kind_of(faults: Mapping[str, float], *, seed: int, body: bytes) -> str | None:
    """The fault of the request with these bytes, or None: a function of its arguments."""
    if not faults:
        return None
    digest = hashlib.sha256(f"{seed} faults\n".encode() + body).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    for kind, share in faults.items():
        draw -= share
        if draw < 0:
            return kind
    return None


def _error(status: int, message: str, code: str | None = None, **headers: str) -> Reply:
    reply = json_reply(RequestError(status, message, code, "rate_limit_error" if status == 429 else "server_error").body, status)
    return Reply(status, reply.body, {**reply.headers, **{name.replace("_", "-"): value for name, value in headers.items()}})


def refusal(kind: str) -> Reply | None:
    """The reply of a transport fault that comes without a completion; None for the other kinds."""
    slow_down = "rate limit reached: slow down"
    if kind == "rate_limit":
        return _error(429, slow_down, "rate_limit_exceeded")
    if kind == "retry_after":
        return _error(429, slow_down, "rate_limit_exceeded", Retry_After="1")
    if kind == "retry_after_date":
        now = int(time.time()) + _DAY_S
        return _error(429, slow_down, "rate_limit_exceeded", Date=http_date(now), Retry_After=http_date(now + 1))
    if kind == "error_500":
        return _error(500, "the server had an error while it processed your request")
    if kind == "error_502":
        page = b"<html>\n<head><title>502 Bad Gateway</title></head>\n<body><h1>502 Bad Gateway</h1></body>\n</html>\n"
        return Reply(502, page, {"Content-Type": "text/html"})
    return None


def damaged(kind: str, completion: dict[str, Any]) -> Reply:
    """The completion as a fault of the transport ("cut", "invalid_json", "no_choices") lets it through."""
    if kind == "no_choices":
        return json_reply({**completion, "choices": []})
    whole = json_reply(completion)
    half = len(json.dumps(completion, ensure_ascii=False)) // 2
    data = json.dumps(completion, ensure_ascii=False)[:half].encode()
    return Reply(200, whole.body, whole.headers, cut=len(data)) if kind == "cut" else Reply(200, data, whole.headers)
