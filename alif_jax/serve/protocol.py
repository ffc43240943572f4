"""OpenAI's protocol as this server speaks it: what a request may hold, and the shapes of replies and errors. No engine, no HTTP.

A field that would change the answer and is not there is refused by its name, never passed over: a client that asks for JSON or
for tools must not take plain text for it.
"""

import base64
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import pydantic_core
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError

MAX_STOPS, MAX_STOP_LETTERS = 4, 1000
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 128  # of one prompt
MAX_ECHO = 80  # letters of what came, in an error's message
SEEDS = 2**63  # a seed is below it, and not below its negative

# Of no effect on the answer.
IGNORED = frozenset({
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls",
})  # fmt: skip
# Not implemented; the value beside it asks for nothing and passes.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "repetition_penalty": (1,), "logit_bias": ({},), "best_of": (1,),
    "suffix": ("",), "tools": ([],), "tool_choice": ("none", "auto"), "functions": ([],), "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},), "modalities": (["text"],), "audio": (), "prediction": (), "reasoning_effort": ("none",),
    "web_search_options": (), "dimensions": (), "top_k": (0, -1), "min_p": (0,),
}  # fmt: skip
PYDANTIC_WORDS = {"extra_forbidden": "no such field"}


class ApiError(Exception):
    """A request that is refused: HTTP status, and message, type, param, code of OpenAI's error object.

    param: the field that is wrong, None where no single one is. headers go with the reply (Retry-After).
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def cut(came: object) -> str:
    """What came, short enough for a message."""
    text = str(came)
    return text if len(text) <= MAX_ECHO else text[: MAX_ECHO - 1] + "…"


# --- requests ---------------------------------------------------------------------------------------------------------


def _as_stops(value: object) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MAX_STOPS or not all(isinstance(stop, str) for stop in stops):
        raise ValueError(f"expected a string or at most {MAX_STOPS} strings")
    if not all(0 < len(stop) <= MAX_STOP_LETTERS for stop in stops):
        raise ValueError(f"a stop string has 1 to {MAX_STOP_LETTERS} characters")
    return stops


def _as_prompts(value: object) -> list[str | list[int]]:
    """One or many, as text or as token ids: "a" → ["a"], [5, 7] → [[5, 7]], ["a", "b"] and [[5], [7, 8]] as they are."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if all(type(item) is int for item in value):
            return [value]
        if all(isinstance(item, str) for item in value):
            return value
        if all(isinstance(item, list) and item and all(type(id) is int for id in item) for item in value):
            return value
    raise ValueError("expected a string, a list of strings, a list of token ids, or a list of such lists, none of them empty")


def _as_content(value: object) -> str:
    """A message's text; its parts are joined by a line break."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError("expected a string or a list of text parts")
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError('expected parts of the form {"type": "text", "text": …}: this server reads text only')
    return "\n".join(part["text"] for part in value)


def _no_calls(value: object) -> None:
    if value:
        raise ValueError("tools are not supported")


class _Strict(BaseModel):
    """Fields are of their JSON type ("5" is no number), unknown ones are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Message(_Strict):
    # developer: what OpenAI's newer models call system
    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(lambda role: "system" if role == "developer" else role)]
    content: Annotated[str, PlainValidator(_as_content)]
    # What clients send back of an earlier answer, and a name that templates do not write.
    name: str | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Annotated[None, PlainValidator(_no_calls)] = None
    tool_calls: Annotated[None, PlainValidator(_no_calls)] = None
    function_call: Annotated[None, PlainValidator(_no_calls)] = None


class StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # ignored: padding against guesses from the sizes of encrypted pieces


class TemplateKwargs(_Strict):
    language: str | None = None  # English name of the answer's language, or its code, for templates that write it


class _Completing(_Strict):
    """What both kinds of completion know."""

    model: str | None = None  # None: the first that is served
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-SEEDS, lt=SEEDS)
    stop: Annotated[list[str], PlainValidator(_as_stops)] = []
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    max_tokens: int | None = Field(None, ge=1)


class ChatRequest(_Completing):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_TOP_LOGPROBS)
    chat_template_kwargs: TemplateKwargs = TemplateKwargs()


class CompletionRequest(_Completing):
    prompt: Annotated[list[str | list[int]], PlainValidator(_as_prompts)]
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)


class EmbeddingRequest(_Strict):
    model: str | None = None
    input: Annotated[list[str | list[int]], PlainValidator(_as_prompts)]
    encoding_format: Literal["float", "base64"] = "float"


Body = TypeVar("Body", ChatRequest, CompletionRequest, EmbeddingRequest)


def read_request(kind: type[Body], body: bytes) -> Body:
    """The checked request of a body. Fields that are null count as absent. Raises ApiError (400) naming the field."""
    try:
        data = pydantic_core.from_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise ApiError(400, f"the body is JSON, but not an object: it begins {body[:40]!r}", code="invalid_json")
    asked = {name: value for name, value in data.items() if value is not None and name not in IGNORED}
    for name in sorted(asked.keys() & UNSUPPORTED.keys()):
        if asked.pop(name) not in UNSUPPORTED[name]:
            raise ApiError(400, f"{name} is not supported by this server; leave it out", param=name, code="unsupported_parameter")
    try:
        request = kind.model_validate(asked)
    except ValidationError as error:
        raise _refusal(error) from None
    if isinstance(request, ChatRequest) and request.top_logprobs and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
    if isinstance(request, CompletionRequest) and request.echo and request.logprobs is not None:
        raise ApiError(400, "logprobs of an echoed prompt are not supported", param="logprobs", code="unsupported_parameter")
    return request


def _refusal(error: ValidationError) -> ApiError:
    """Of the first field that is wrong: its name, what is wrong, what came."""
    first = error.errors(include_url=False)[0]
    param = cut(".".join(map(str, first["loc"])))
    wrong = PYDANTIC_WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    came = "" if first["type"] in ("missing", "extra_forbidden") else f"; got {cut(repr(first['input']))}"
    return ApiError(400, f"{param}: {wrong}{came}", param=param)


# --- replies ----------------------------------------------------------------------------------------------------------


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": prompt_tokens + completion_tokens
    }  # fmt: skip


def envelope(kind: Literal["chat.completion", "chat.completion.chunk", "text_completion"], model: str) -> dict[str, Any]:
    """What every reply and every piece of a stream opens with."""
    prefix = "cmpl" if kind == "text_completion" else "chatcmpl"
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def model_object(name: str, created: int, parent: str | None, max_length: int) -> dict[str, Any]:
    """parent: of an adapter, the name of the model below it."""
    return {
        "id": name, "object": "model", "created": created, "owned_by": "alif", "parent": parent, "max_model_len": max_length
    }  # fmt: skip


def embeddings_reply(model: str, vectors_nD: np.ndarray, form: str, prompt_tokens: int) -> dict[str, Any]:
    """form: `float`, or `base64` of little-endian fp32."""
    rows: Sequence[Any]
    if form == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors_nD]
    else:
        rows = vectors_nD.astype(np.float32).tolist()
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    return {
        "object": "list", "data": data, "model": model, "usage": {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    }  # fmt: skip
