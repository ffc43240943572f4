"""What data_gen makes: an instruction item, and the record that goes to the shards. JSONL in and out; no filtering.

An `Item` is one task as a teacher writes it; a `Record` is one line of training data with its provenance.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import fsspec

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


def to_json(record: Record) -> str:
    """One JSONL line without the newline; whichever of text and messages is None is left out."""
    return canonical_json({key: value for key, value in asdict(record).items() if value is not None})


def from_json(line: str) -> Record:
    """The inverse of to_json. Raises UsageError naming what is missing or unknown."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"not a JSON record: {error}: {line[:80]!r}") from error
    if not isinstance(fields, dict):
        raise UsageError(f"not a JSON record: {line[:80]!r}")
    if "messages" in fields:
        fields["messages"] = tuple(fields["messages"])
    try:
        return Record(**fields)
    except TypeError as error:
        raise UsageError(f"{error}; a record has id, source, task, language, meta and text or messages") from error


def write_jsonl(path: str, records: Iterable[Record]) -> int:
    """Writes one record a line to any fsspec path and returns how many."""
    count = 0
    with fsspec.open(path, "wt", encoding="utf-8") as file:
        for record in records:
            file.write(to_json(record) + "\n")
            count += 1
    return count


def read_jsonl(path: str) -> Iterator[Record]:
    """Records of a JSONL file. Raises UsageError with the file and line number of a bad one."""
    with fsspec.open(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield from_json(line)
            except UsageError as error:
                raise UsageError(f"{path}:{number}: {error}") from error
