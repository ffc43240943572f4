"""A row of somebody's corpus as a document of datatrove: its text and what is known of it, under any of the usual names. No files.

A row that gives no text is a document too. Its text is empty and its metadata has a `fault`, one of FAULTS, and `why`, in words.
"""

import codecs
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from datatrove.data import Document

from data_gen import UsageError

NOT_JSON, NOT_UTF8, NO_OBJECT, NO_TEXT, TOO_LARGE, PACKED = FAULTS = (
    "not_json", "not_utf8", "no_object", "no_text", "too_large", "packed"
)  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
# What corpora call these; the first that is there counts.
_CALLED = {
    "url": ("url", "URL", "uri", "u", "warc-target-uri", "WARC-Target-URI"),
    "date": ("date", "timestamp", "ts", "warc-date", "WARC-Date"),
    "title": ("title",),
    "licence": ("licence", "license"),
}
_NESTED = ("metadata", "meta", "warc_headers")  # tables of them within a row


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is the same for all rows: the columns of text and id, and the licence and source of rows that name none."""

    text_key: str = "text"
    id_key: str = "id"
    licence: str = ""
    source: str = ""


def document_of(row: Mapping[str, Any], origin: Origin, file: str, number: int | None) -> Document:
    """A row as a document: document_of({"text": "سلام", "URL": "https://a.example/"}, Origin(), "f", 1).metadata["url"] is there.

    number: where it stands in its file, from 1; None where that says nothing. Halves of surrogate pairs, which UTF-8 does not have,
    become U+FFFD.
    """
    metadata: dict[str, Any] = {"file": file, "licence": origin.licence, "source": origin.source}
    if number is not None:
        metadata["row"] = number
    if given := _plain(row.get(origin.id_key)):
        metadata["source_id"] = given
    inner = {key: value for name in _NESTED if isinstance(table := row.get(name), dict) for key, value in table.items()}
    known = {**inner, **{key: value for key, value in row.items() if value is not None}}
    for name, called in _CALLED.items():
        if value := next((value for key in called if (value := _plain(known.get(key)))), ""):
            metadata[name] = value
    text = row.get(origin.text_key)
    if not isinstance(text, str | None):
        metadata |= {"fault": NO_TEXT, "why": f"{origin.text_key} is a {type(text).__name__}, expected text"}
    return Document(_plain(text) if isinstance(text, str) else "", given or f"{file}:{number}", [], metadata)


def _plain(value: Any) -> str:
    """A cell as text: a date in ISO's form, nothing for null, lists, tables and bytes."""
    if value is None or isinstance(value, list | dict | bytes):
        return ""
    if not isinstance(value, str):
        return value.isoformat() if hasattr(value, "isoformat") else str(value)
    return _SURROGATE.sub("\ufffd", value)


def faulty(fault: str, why: str, origin: Origin, file: str, number: int) -> Document:
    """The document of a row that cannot be read."""
    document = document_of({}, origin, file, number)
    document.metadata |= {"fault": fault, "why": why}
    return document


def json_row(line: bytes) -> tuple[dict[str, Any], str, str]:
    """The object of a line and "", "", or what is wrong with it: json_row(b"[1]") == ({}, "no_object", "a JSON list …").

    json reads what orjson refuses: NaN, and halves of surrogate pairs.
    """
    line = line.removeprefix(codecs.BOM_UTF8)  # a file's first line may have it
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(line.decode())
        except UnicodeDecodeError as error:
            return {}, NOT_UTF8, f"byte {error.start} of the line"
        except (ValueError, RecursionError) as error:
            return {}, NOT_JSON, str(error)
    if not isinstance(value, dict):
        return {}, NO_OBJECT, f"a JSON {type(value).__name__} where an object was expected"
    return value, "", ""


def no_column(origin: Origin, file: str, there: Iterable[str]) -> UsageError:
    """The error of a file or data set that has no column of the text's name."""
    columns = ", ".join(sorted(map(str, there))) or "(none)"
    return UsageError(f"{file} has no column {origin.text_key!r}, but {columns}; say by text_key which one is the text")
