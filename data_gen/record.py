"""What data_gen makes: an instruction item, and the record that goes to the shards. No filtering and no files.

An `Item` is one task as a teacher writes it; a `Record` is one example of training data with its provenance.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from data_gen import UsageError

ROLES = ("system", "user", "assistant")
SINGLE, CONVERSATION = "single", "conversation"  # forms of an item
SIDES = ("train", "heldout")
NO_INPUT = "<noinput>"  # what stands for an empty input where something must stand: Alpaca's own word
Message = dict[str, str]
_MESSAGE_KEYS = {"role", "content"}
_TURN = re.compile(r"^[ \t]*(User|Assistant):", re.MULTILINE)
_ATOMS = frozenset((str, int, bool, type(None)))


@dataclass(frozen=True)
class Item:
    """One instruction with its answer. `input` is "" when the instruction stands alone; `language` is the answer's (BCP-47).
    The output of a conversation goes on after the first answer: "…\\nUser: …\\nAssistant: …".
    """

    task: str
    instruction: str
    input: str
    output: str
    language: str
    topic: str = ""
    form: str = SINGLE


@dataclass(frozen=True)
class Record:
    """One training example: exactly one of `text` (a document) and `messages` (a conversation).

    `meta` is JSON-able provenance. Raises UsageError when both or neither are given, or a message is malformed.
    """

    id: str
    source: str
    task: str
    language: str
    meta: dict[str, Any]
    text: str | None = None
    messages: tuple[Message, ...] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise UsageError(f"record {self.id}: give exactly one of text and messages")
        for message in self.messages or ():
            if message.keys() != _MESSAGE_KEYS or message["role"] not in ROLES:
                raise UsageError(f'record {self.id}: message {message} is not {{"role": one of {ROLES}, "content": ...}}')


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values give equal text: {"b":1,"a":"اردو"} → {"a":"اردو","b":1}.

    It is what json.dumps(ensure_ascii=False, sort_keys=True, separators=(",", ":")) gives, NaN, keys that are numbers and half a
    surrogate pair included; ids and request keys depend on every byte of it.
    """
    fast = _by_orjson(value)
    return _by_json(value) if fast is None else fast.decode()


def canonical_bytes(value: Any) -> bytes:
    """canonical_json in UTF-8. Raises UnicodeEncodeError on half a surrogate pair, which UTF-8 does not have."""
    fast = _by_orjson(value)
    return _by_json(value).encode() if fast is None else fast


def _by_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _by_orjson(value: Any) -> bytes | None:
    """The same bytes in an eighth of the time, or None: orjson writes some values in another way and refuses others."""
    if not _is_plain(value):
        return None
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # keys that are no text, numbers beyond 64 bits, surrogates, more than 254 levels
        return None


def _is_plain(value: Any) -> bool:
    """Whether all types are JSON's own, so that orjson writes them as json does or refuses them.

    Subclasses, dates and enumerations it would write by rules of its own, a float as 1e-7 for 1e-07 (and 1e16 for 1e+16 up to
    version 3.11 at least), and one that is no number as null.
    """
    kind = type(value)
    if kind is dict:
        inner = value.values()
    elif kind is list or kind is tuple:
        inner = value
    else:
        return kind in _ATOMS or (kind is float and (value == 0 or 1e-4 <= abs(value) < 1e16))  # outside, repr has an exponent
    return _ATOMS.issuperset(map(type, inner)) or all(map(_is_plain, inner))


def record_id(content: str | Sequence[Message]) -> str:
    """First 16 hex digits of the SHA-256 of the content: record_id("اردو") is the same on every machine."""
    body: dict[str, Any] = {"text": content} if isinstance(content, str) else {"messages": list(content)}
    return hashlib.sha256(canonical_bytes(body)).hexdigest()[:16]


def turns(output: str) -> list[str]:
    """What is said in turn by assistant, user, assistant …: turns("a\\nUser: b\\nAssistant: c") == ["a", "b", "c"].

    Raises ValueError unless user and assistant take turns, the assistant has the last one, and all say something.
    """
    first, *rest = _TURN.split(output)
    said = [first, *rest[1::2]]
    if rest[::2] != ["User", "Assistant"] * (len(rest) // 4) or not all(map(str.strip, said)):
        raise ValueError('the turns of a conversation are "answer", "User: …", "Assistant: …" and so on')
    return [text.strip() for text in said]


def answer_text(item: Item) -> str:
    """The answer without the names of who speaks in a conversation."""
    return "\n".join(turns(item.output)) if item.form == CONVERSATION else item.output


def item_messages(item: Item) -> tuple[Message, ...]:
    """The conversation of an item: instruction, an empty line and the input (if any) from the user; the output back, and
    whatever turns follow it.
    """
    question = f"{item.instruction}\n\n{item.input}" if item.input else item.instruction
    said = [question, *(turns(item.output) if item.form == CONVERSATION else [item.output])]
    return tuple({"role": ROLES[1 + number % 2], "content": text} for number, text in enumerate(said))
