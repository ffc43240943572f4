"""What the columns of imported rows mean: a row becomes a document or a conversation, or is said to be faulty or empty. No files.

    alpaca      instruction, output (input, system)           one question with its answer
    messages    messages: [{"role", "content"}, …]            system, user and assistant in turn
    sharegpt    conversations: [{"from", "value"}, …]         human and gpt in turn
    ingest      id, text, language, licence, source           a document of launch/ingest.py; url, domain, date, title
    wikipedia   url, title, text                              an article
    text        text (title, url)                             a document

Columns of other names are told by `columns`: ("instruction=question", "output=answer").
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_gen import UsageError
from data_gen.record import NO_INPUT, Item, Message, item_messages

NEEDS = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "ingest": ("id", "text", "language", "licence", "source"),
    "wikipedia": ("url", "title", "text"),
    "text": ("text",),
}
AUTO = "auto"
_KEPT = ("id", "url", "domain", "date", "title", "licence", "source")  # of an ingested document, in its record's meta
FIELDS = ("instruction", "input", "output", "system", "messages", "conversations", "text", "title", "url")
_ROLES = {
    "system": "system", "human": "user", "user": "user", "prompter": "user", "gpt": "assistant", "assistant": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
# Why a row gives no record; FAULTY ones stop the import when they are many.
FAULTY, EMPTY, TURNS = "faulty", "empty", "turns"


@dataclass(frozen=True)
class Content:
    """What one row gave: a document or a conversation, and what its record's meta says of it."""

    meta: dict[str, Any]
    text: str | None = None
    messages: tuple[Message, ...] | None = None


class Unusable(ValueError):
    """A row that gives no record: `kind` is FAULTY, EMPTY or TURNS, the message says why."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def parse_columns(columns: Sequence[str]) -> dict[str, str]:
    """("instruction=question",) → {"instruction": "question"}. Raises UsageError on a name that no format knows."""
    named = dict[str, str]()
    for one in columns:
        field, equals, column = one.partition("=")
        if not equals or not column or field not in FIELDS:
            raise UsageError(f"--columns={one}: expected FIELD=COLUMN, where FIELD is one of {', '.join(FIELDS)}")
        named[field] = column
    return named


def find_format(wanted: str, names: Collection[str], columns: Mapping[str, str], sample: Mapping[str, Any]) -> str:
    """The format of rows with these column names, `sample` being one of them; `wanted` if it is not "auto".

    Raises UsageError naming the columns there are, and what each format that was tried lacks.
    """
    if wanted != AUTO and wanted not in NEEDS:
        raise UsageError(f"--format={wanted}: expected one of {', '.join((AUTO, *NEEDS))}")
    if absent := [column for column in columns.values() if column not in names]:
        raise UsageError(f"--columns names {absent[0]!r}; the data has the columns {_listed(names)}")
    tried = NEEDS if wanted == AUTO else {wanted: NEEDS[wanted]}
    lacks = {name: [f for f in fields if columns.get(f, f) not in names] for name, fields in tried.items()}
    elsewhere = wanted == AUTO and "wikipedia.org/" not in str(sample.get(columns.get("url", "url")))
    for name, missing in lacks.items():
        if not missing and not (name == "wikipedia" and elsewhere):
            return name
    what = "; ".join(f"{name} lacks {', '.join(missing)}" for name, missing in lacks.items())
    raise UsageError(
        f"the data has the columns {_listed(names)}. Formats tried: {what}. Say what is what, for example "
        "--columns=instruction=question,output=answer"
    )


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "(none)"


def content_of(form: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> Content:
    """The content of a row. Raises Unusable.

    content_of("alpaca", {"instruction": "سلام", "output": "وعلیکم السلام"}, {}).messages[1]["content"] == "وعلیکم السلام"
    """
    whole, row = row, {field: row.get(columns.get(field, field)) for field in FIELDS}
    if form in ("text", "wikipedia", "ingest"):
        text = _string(row, "text")
        if not text.strip():
            raise Unusable(EMPTY, "text is empty")
        kept = {name: whole.get(name) for name in _KEPT} if form == "ingest" else {name: row[name] for name in ("title", "url")}
        return Content({name: value for name, value in kept.items() if isinstance(value, str) and value}, text=text)
    messages = _alpaca(row) if form == "alpaca" else conversation(row["messages" if form == "messages" else "conversations"])
    return Content({}, messages=_with_system(_string(row, "system", optional=True), messages))


def _string(row: Mapping[str, Any], field: str, *, optional: bool = False) -> str:
    value = row[field]
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise Unusable(FAULTY, f"{field} is {'missing' if value is None else f'a {type(value).__name__}'}, expected text")
    return value


def _alpaca(row: Mapping[str, Any]) -> tuple[Message, ...]:
    instruction, output = _string(row, "instruction"), _string(row, "output")
    given = _string(row, "input", optional=True)
    for name, text in (("instruction", instruction), ("output", output)):
        if not text.strip():
            raise Unusable(EMPTY, f"{name} is empty")
    return item_messages(Item("", instruction, "" if given.strip() in ("", NO_INPUT) else given, output, ""))


def _with_system(system: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return ({"role": "system", "content": system}, *messages) if system.strip() and messages[0]["role"] != "system" else messages


def conversation(value: Any) -> tuple[Message, ...]:
    """Turns in either spelling (role and content, or from and value) as messages that end with the assistant's.

    What an assistant says before anybody asked, and a question at the end that nobody answers, are cut off. Raises Unusable
    with TURNS where user and assistant do not take turns, or another (a tool) has its say; with EMPTY for a turn without words.
    """
    if isinstance(value, str):  # JSON in a cell of CSV
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Unusable(FAULTY, f"the turns are text, and no JSON: {error}") from error
    if not isinstance(value, list):
        raise Unusable(FAULTY, f"a list of turns was expected, not {'nothing' if value is None else type(value).__name__}")
    messages = list(map(_message, value))
    system = [messages.pop(0)] if messages and messages[0]["role"] == "system" else []
    while messages and messages[0]["role"] == "assistant":
        messages.pop(0)
    while messages and messages[-1]["role"] == "user":
        messages.pop()
    if not messages:
        raise Unusable(EMPTY, "no question with an answer")
    for number, message in enumerate(messages):
        if message["role"] != ("user", "assistant")[number % 2]:
            raise Unusable(TURNS, f"user and assistant do not take turns: turn {number + 1} is the {message['role']}'s")
        if not message["content"].strip():
            raise Unusable(EMPTY, f"turn {number + 1} has no words")
    return (*(message for message in system if message["content"].strip()), *messages)


def _message(turn: Any) -> Message:
    if not isinstance(turn, dict) or not (turn.keys() >= {"role", "content"} or turn.keys() >= {"from", "value"}):
        shown = ", ".join(map(str, turn)) if isinstance(turn, dict) else type(turn).__name__
        raise Unusable(FAULTY, f"a turn has role and content, or from and value; here is {shown or 'nothing'}")
    who, words = (turn["role"], turn["content"]) if "role" in turn else (turn["from"], turn["value"])
    if not isinstance(who, str) or who.lower() not in _ROLES:
        raise Unusable(TURNS, f"a turn of {who!r}; there are {', '.join(_ROLES)}")
    return {"role": _ROLES[who.lower()], "content": _words(words)}


def _words(value: Any) -> str:
    """The content of a turn: text, or a list of parts that are all text."""
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        return "\n\n".join(part["text"] for part in value)
    if not isinstance(value, str):
        raise Unusable(TURNS, f"what a turn says is {'nothing' if value is None else f'a {type(value).__name__}'}, not text")
    return value
