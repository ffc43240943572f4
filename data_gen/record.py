"""What data_gen makes: an instruction item, and the record that goes to the shards. No filtering and no files.

An `Item` is one task as a teacher writes it; a `Record` is one example of training data with its provenance.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_gen import UsageError

ROLES = ("system", "user", "assistant")
Message = dict[str, str]


@dataclass(frozen=True)
class Item:
    """One instruction with its answer. `input` is "" when the instruction stands alone; `language` is the answer's
    (BCP-47).
    """

    task: str
    instruction: str
    input: str
    output: str
    language: str
    topic: str = ""


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
            if set(message) != {"role", "content"} or message["role"] not in ROLES:
                raise UsageError(f'record {self.id}: message {message} is not {{"role": one of {ROLES}, "content": ...}}')


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal values give equal bytes: {"b":1,"a":"اردو"} →
    {"a":"اردو","b":1}.
    """
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def record_id(content: str | Sequence[Message]) -> str:
    """First 16 hex digits of the SHA-256 of the content: record_id("اردو") is the same on every machine."""
    body: dict[str, Any] = {"text": content} if isinstance(content, str) else {"messages": list(content)}
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()[:16]


def item_messages(item: Item) -> tuple[Message, ...]:
    """The conversation of an item: instruction, an empty line and the input (if any) from the user; the output back."""
    question = f"{item.instruction}\n\n{item.input}" if item.input else item.instruction
    return ({"role": "user", "content": question}, {"role": "assistant", "content": item.output})
