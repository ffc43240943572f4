"""A request's text, and a reply's text into items. Pure functions: nothing is sent or kept here.

There are two forms of a reply: "tagged" text, which every model can write, and "json_schema", one JSON object that the endpoint
itself holds to a schema. Both keep their whole items when they are cut off, and both may open with a model's thoughts, which are no
part of it.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any

import regex

from data_gen.config import SelfInstructConfig
from data_gen.filters import answer_language
from data_gen.languages import ENGLISH
from data_gen.limits import Usage
from data_gen.record import CONVERSATION, NO_INPUT, Item, canonical_json, turns
from data_gen.task import FIELDS, TAGGED, Task

SYSTEM = "You write training examples for a language model. Follow the requested format exactly."
_SEPARATOR = regex.compile(r"^[ \t]*###[ \t]*$", regex.MULTILINE)
_FIRST_LABEL = regex.compile(r"\s*Instruction:")
_LABEL = regex.compile(r"^[ \t]*(Instruction|Input|Output):", regex.MULTILINE)
_ITEMS = regex.compile(r'\{\s*"items"\s*:\s*\[')
_BETWEEN = regex.compile(r"[\s,]*")
_CUT_OFF = ("length", "content_filter")  # finish_reason of a reply that ends before its end

Normalise = Callable[[str], str]
Parsed = tuple[dict[str, str], str | None]  # an item's fields, and what is wrong with its form


def example_block(item: Item) -> str:
    """An item as it stands in a request and is expected in a tagged reply."""
    return f"###\nInstruction: {item.instruction}\nInput: {item.input or NO_INPUT}\nOutput: {item.output}"


def example_object(item: Item) -> str:
    """The same for a JSON reply: {"instruction": "…", "input": "", "output": "…"} on one line."""
    return json.dumps({field: getattr(item, field) for field in FIELDS}, ensure_ascii=False)


def build_messages(task: Task, shown: Sequence[Item], count: int) -> list[dict[str, str]]:
    """The system and user message that ask for `count` items like those shown, which stand there in the form of the reply; or for
    the translation of those shown.
    """
    example = example_block if task.reply_format == TAGGED else example_object
    title = "Items to translate:" if task.rules.source == ENGLISH else "Examples:"
    user = task.prompt.replace("{count}", str(count)) + f"\n\n{title}\n" + "\n".join(map(example, shown))
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def build_body(config: SelfInstructConfig, messages: list[dict[str, str]], rng: random.Random, **fields: Any) -> str:
    """The exact text of a request. `fields` are further ones; temperature is the config's unless it is among them."""
    body: dict[str, Any] = {
        "model": config.teacher.model,
        "messages": messages,
        config.teacher.max_tokens_field: config.max_tokens,
        **fields,
    }
    if config.temperature is not None:
        body.setdefault("temperature", config.temperature)
    if config.teacher.seed:
        body["seed"] = rng.getrandbits(31)
    return canonical_json(body)


def response_format() -> dict[str, Any]:
    """The field `response_format` of a request for a JSON reply: {"items": [{"instruction", "input", "output"}, …]}."""
    item = {
        "type": "object",
        "properties": {field: {"type": "string"} for field in FIELDS},
        "required": list(FIELDS),
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item}},
        "required": ["items"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "items", "strict": True, "schema": schema}}


@lru_cache(maxsize=1)  # a reply is asked for its text and then for its usage
def _parsed(reply: str) -> Any:
    return json.loads(reply)


def reply_choice(reply: str, *, may_be_empty: bool = False) -> tuple[str, str]:
    """(text, finish_reason) of a raw chat completion. Raises ValueError saying what is wrong with a malformed or (unless it may
    be) empty one. Half a surrogate pair in the text, which no file can hold, becomes U+FFFD.
    """
    try:
        data = _parsed(reply)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON but {reply[:200]!r}") from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"a reply without choices: {reply[:200]!r}")
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        raise ValueError(f"a reply without message content: {reply[:200]!r}")
    finish = str(choices[0].get("finish_reason"))[:50]
    if not content.strip() and not may_be_empty:
        hint = "; a model that thinks first may need more max_tokens" if finish == "length" else ""
        raise ValueError(f"an empty reply, finish_reason {finish!r}{hint}")
    return _without_surrogates(content), finish


def _without_surrogates(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def reply_usage(reply: str) -> Usage | None:
    """The tokens of a raw chat completion as its endpoint counts them; None where it gives none, or no sensible ones.

    {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}} → Usage(9, 5, 4).
    A count of cached tokens that is missing or cannot be is 0: nothing is thought cheaper than it was.
    """
    try:
        data = _parsed(reply)
    except (ValueError, RecursionError):
        return None
    usage = data.get("usage") if isinstance(data, dict) else None
    if not isinstance(usage, dict):
        return None
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None or completion is None:
        return None
    cached = _count(usage.get("prompt_tokens_details"), "cached_tokens") or 0
    return Usage(prompt, completion, cached if cached <= prompt else 0)


def _count(fields: Any, name: str) -> int | None:
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1e9 else None


def without_thoughts(content: str, cut_off: bool) -> str | None:
    """The text after a leading <think>…</think>, whose first tag a chat template may have kept; None: cut off in the thoughts."""
    thoughts, end, answer = content.partition("</think>")
    if end:
        return answer
    return None if cut_off and thoughts.lstrip().startswith("<think>") else content


def reply_content(reply: str) -> str:
    """The text of a raw reply without a model's thoughts. Raises ValueError where `reply_choice` does."""
    content, finish = reply_choice(reply)
    return without_thoughts(content, finish in _CUT_OFF) or ""


def parse_reply(task: Task, reply: str) -> list[tuple[Item, str | None]]:
    """Items of a raw reply in order, each with None or the reason against its form: "malformed", "malformed_turns" or "truncated".

    "###\\nInstruction: a\\nInput: <noinput>\\nOutput: b" → [(Item(instruction="a", input="", output="b"), None)], and so does
    '{"items": [{"instruction": "a", "input": "", "output": "b"}]}' as json_schema. A malformed item (blocks run together and
    objects that lack a field included) has as its output what came. Of a reply that was cut off only the last item is lost.
    Raises ValueError where `reply_choice` does.
    """
    content, finish = reply_choice(reply)
    cut_off = finish in _CUT_OFF
    answer = without_thoughts(content, cut_off)
    if answer is None:
        return [(Item(task.name, "", "", content, task.language), "truncated")]
    read = _tagged_items if task.reply_format == TAGGED else _json_items
    parsed: list[tuple[Item, str | None]] = []
    for parts, fault in read(answer, cut_off, task.pack.normalise):
        given = "" if parts["input"] == NO_INPUT else parts["input"]
        item = Item(task.name, parts["instruction"], given, parts["output"], task.language)
        item = replace(item, language=answer_language(item, task))
        parsed.append(_as_conversation(item, fault) if task.rules.form == CONVERSATION else (item, fault))
    return parsed


def _as_conversation(item: Item, fault: str | None) -> tuple[Item, str | None]:
    try:
        whole = fault is None and len(turns(item.output)) >= 3
    except ValueError:
        whole = False
    return (replace(item, form=CONVERSATION), None) if whole else (item, fault or "malformed_turns")


def _as_it_came(text: str) -> dict[str, str]:
    return {"instruction": "", "input": "", "output": text}


def _tagged_items(content: str, cut_off: bool, normalise: Normalise) -> list[Parsed]:
    first, *blocks = _SEPARATOR.split(content)
    if not blocks or "Instruction:" in first:
        blocks = [first, *blocks]  # not a mere preface: kept to be seen
    parsed: list[Parsed] = []
    for block in blocks:
        if block.strip():
            parts = _block_parts(block, normalise)
            parsed.append((parts, None) if parts["instruction"] else (parts, "malformed"))
    if cut_off and parsed and blocks[-1].strip():
        parsed[-1] = (parsed[-1][0], "truncated")  # its end may be missing though it looks whole
    return parsed


def _block_parts(block: str, normalise: Normalise) -> dict[str, str]:
    """Fields of one block: Instruction:, perhaps Input:, Output:, in this order, each at the start of a line and once.

    Labels are searched once from front to back: an expression for the whole block takes a time that is quadratic in its lines.
    """
    if not (head := _FIRST_LABEL.match(block)):
        return _as_it_came(block)
    labels = list(islice(_LABEL.finditer(block, head.end()), len(FIELDS)))
    names = ["Instruction", *(label[1] for label in labels)]
    if names not in (["Instruction", "Input", "Output"], ["Instruction", "Output"]):
        return _as_it_came(block)  # a separator is missing: the next item would be part of this one's answer
    starts, ends = [head.end(), *(label.end() for label in labels)], [*(label.start() for label in labels), len(block)]
    parts = {name.lower(): normalise(block[start:end]) for name, start, end in zip(names, starts, ends, strict=True)}
    if any(_LABEL.search(part) for part in parts.values()):
        return _as_it_came(block)  # Instruction: Output: …, or a label behind another kind of line end
    return {"input": "", **parts}


def _json_items(content: str, cut_off: bool, normalise: Normalise) -> list[Parsed]:
    """The array's objects one by one, so that those before a cut (or before a mistake) are kept. What stands around the JSON
    (a fence, a sentence) is nothing, and a line end inside of a string is one, though JSON forbids both.
    """
    fault = "truncated" if cut_off else "malformed"
    head = _ITEMS.search(content)
    if not head:
        return [(_as_it_came(content), fault)]
    parsed: list[Parsed] = []
    decoder, at = json.JSONDecoder(strict=False), head.end()
    while (at := _skip_between(content, at)) < len(content) and content[at] != "]":
        try:
            value, end = decoder.raw_decode(content, at)
        except (ValueError, RecursionError):
            return [*parsed, (_as_it_came(content[at:]), fault)]
        parts = _object_parts(value, normalise)
        parsed.append((parts, None) if parts else (_as_it_came(content[at:end]), "malformed"))
        at = end
    return parsed


def _skip_between(content: str, at: int) -> int:
    found = _BETWEEN.match(content, at)
    return found.end() if found else at


def _object_parts(value: Any, normalise: Normalise) -> dict[str, str] | None:
    """None unless it has all fields, as text, and an instruction."""
    if not isinstance(value, dict) or not all(isinstance(value.get(field), str) for field in FIELDS):
        return None
    parts = {field: normalise(_without_surrogates(value[field])) for field in FIELDS}
    return parts if parts["instruction"] else None
