"""What a request to the offline teacher asks for, read from its body: items, translations, or judgements. Nothing is answered here.

Prompts are read by their first lines, as the project writes them: `Task: reasoning`, `Language: Urdu (ur)`, … `exactly 20 new
items`; `Translate exactly 5 items` with as many English items at the end; or `Check: quality`, then numbered blocks.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from data_gen.offline.http import RequestError
from data_gen.offline.items import MAKERS, TRANSLATED, tokens
from data_gen.record import NO_INPUT

MODEL = "offline-teacher"
MAX_ITEMS = 500  # in one reply
CHECKS = ("quality", "ethics", "solve", "back_translate")
_HEAD = re.compile(r"\s*(Task|Check): (\w+)[ \t]*(?:\nLanguage: [^\n]*?\(([\w-]+)\)[ \t]*)?(?:\nSample: (\d+)[ \t]*)?(?:\n|$)")
_COUNT = {
    "new": re.compile(r"\bexactly (\d+) new items\b"),
    TRANSLATED: re.compile(r"\bTranslate exactly (\d+) items\b"),
}
_BLOCK = re.compile(r"^###[ \t]*(\d*)[ \t]*\n(?=Instruction:|Into:)", re.MULTILINE)
_LABELS = {  # by the first word of a block
    "Instruction": re.compile(r"^(Instruction|Input|Output):[ \t]*", re.MULTILINE),
    "Into": re.compile(r"^(Into|Text):[ \t]*", re.MULTILINE),
}


@dataclass(frozen=True)
class Order:
    """Items of a task in a language; `originals` are the English items that are to be translated, if any."""

    task: str
    language: str
    count: int
    originals: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Check:
    """Judgements of a kind about numbered blocks: {"instruction": …, "output": …} or {"into": …, "text": …}."""

    kind: str
    language: str
    sample: int
    blocks: tuple[tuple[int, dict[str, str]], ...]


def prompt_of(request: dict[str, Any]) -> tuple[str, int]:
    """(text of the last user message, tokens of all messages)."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages):
        raise RequestError(400, "'messages' must be a list of {role, content} with text content")
    users = [m["content"] for m in messages if m.get("role") == "user"]
    if not users:
        raise RequestError(400, "'messages' has no user message")
    return users[-1], sum(tokens(m["content"]) for m in messages)


def read_prompt(prompt: str) -> Order | Check:
    """What a prompt asks for. RequestError for what the offline teacher cannot do; a prompt that names no language is in Urdu."""
    head = _HEAD.match(prompt)
    language = (head[3] if head else None) or "ur"
    if language not in MAKERS:
        raise RequestError(400, f"{MODEL} has no grammar of the language {language!r}; it has {', '.join(MAKERS)}")
    if head is not None and head[1] == "Check":
        return _check(prompt, head[2], language, int(head[4] or 1))
    known = [*MAKERS[language], *([TRANSLATED] if language == "ur" else [])]
    if head is None or head[2] not in known:
        raise RequestError(
            400, f"{MODEL} is no language model: the prompt must begin with 'Task: ' and one of {', '.join(known)} (or 'Check: ')"
        )
    task = head[2]
    count = _COUNT[TRANSLATED if task == TRANSLATED else "new"].search(prompt)
    if count is None or not 1 <= int(count[1]) <= MAX_ITEMS:
        wanted = "Translate exactly N items" if task == TRANSLATED else "exactly N new items"
        raise RequestError(400, f"the prompt must ask for '{wanted}', 1 <= N <= {MAX_ITEMS}")
    return Order(task, language, int(count[1]), _originals(prompt, int(count[1])) if task == TRANSLATED else ())


def _blocks(prompt: str) -> list[tuple[str, dict[str, str]]]:
    """(number or "", fields by their names in lower case) of each block."""
    _, *parts = _BLOCK.split(prompt)
    read = []
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        labels = _LABELS[text[: text.index(":")]]
        _, *fields = labels.split(text)
        values = {name.lower(): value.strip() for name, value in zip(fields[::2], fields[1::2], strict=True)}
        read.append((number, {name: "" if value == NO_INPUT else value for name, value in values.items()}))
    return read


def _originals(prompt: str, count: int) -> tuple[dict[str, str], ...]:
    """The last `count` items of the prompt, which are either objects, a line each, or tagged blocks."""
    lines = prompt.rstrip().split("\n")[-count:]
    if lines[-1].startswith("{"):
        try:
            items = [{name: str(value) for name, value in json.loads(line).items()} for line in lines]
        except (ValueError, AttributeError) as error:
            raise RequestError(400, f"the prompt does not end with {count} JSON objects to translate: {error}") from error
    else:
        items = [fields for _, fields in _blocks(prompt)][-count:]
    whole = [item for item in items if {"instruction", "output"} <= item.keys()]
    if len(whole) < count:
        raise RequestError(400, f"the prompt asks to translate {count} items and shows {len(whole)}")
    return tuple(whole)


def _check(prompt: str, kind: str, language: str, sample: int) -> Check:
    if kind not in CHECKS:
        raise RequestError(400, f"{MODEL} knows no check {kind!r}; it has {', '.join(CHECKS)}")
    needed = {"solve": {"instruction"}, "back_translate": {"into", "text"}}.get(kind, {"instruction", "output"})
    blocks = tuple((int(number), fields) for number, fields in _blocks(prompt) if number and needed <= fields.keys())
    if not blocks:
        raise RequestError(400, f"a check of {kind} needs blocks '### 1', '### 2', … with {', '.join(sorted(needed))}")
    return Check(kind, language, sample, blocks)


def wants_json(request: dict[str, Any]) -> bool:
    """Whether the reply is to be JSON by a schema. Which one is not read: the reply's form is always the same."""
    form = request.get("response_format") or {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_schema":
        schema = form.get("json_schema")
        if not isinstance(schema, dict) or not isinstance(schema.get("name"), str) or not isinstance(schema.get("schema"), dict):
            raise RequestError(400, "'response_format.json_schema' must be an object with 'name' and 'schema'")
        return True
    if kind != "text":
        raise RequestError(400, f"'response_format' is {form!r}; {MODEL} has the types 'text' and 'json_schema'")
    return False


def parsed(body: bytes) -> tuple[dict[str, Any], int | None]:
    """(request, its limit of tokens). RequestError for what is no request to this model."""
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
    return request, max_tokens
