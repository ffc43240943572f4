"""Reads a directory of TFRecord shards and its manifest, checking every length, checksum and count. It never writes.

A shard is a sequence of `uint64 length | uint32 masked CRC-32C of it | payload | uint32 masked CRC-32C of the payload`, little
endian; a payload is a `tf.train.Example` whose features are one UTF-8 bytes value each
(https://www.tensorflow.org/tutorials/load_data/tfrecord). No TensorFlow needed.
"""

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import google_crc32c

from alif_jax import UsageError
from alif_jax.files import exists, join, open_file, read_json

FORMAT_VERSION = 1


class Record(NamedTuple):
    """One training record: a document (`text`) or a conversation (`messages`), exactly one of them."""

    id: str
    source: str
    task: str
    language: str
    text: str | None
    messages: list[dict[str, str]] | None
    meta: dict[str, Any]


def read_manifest(directory: str) -> dict[str, Any]:
    """The directory's manifest. Raises UsageError where it is missing (an unfinished directory) or of another version."""
    path = join(directory, "manifest.json")
    if not exists(path):
        raise UsageError(
            f"{directory}: no manifest.json, so this data directory is unfinished or not one; run the data recipe to its end"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict):
        raise UsageError(f"{path}: not a manifest (a JSON {type(manifest).__name__}); make the data again")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{path}: format_version={manifest.get('format_version')!r}; this version reads {FORMAT_VERSION}")
    if not all({"path", "split", "records"} <= shard.keys() for shard in manifest.get("shards", [{}])):
        raise UsageError(f"{path}: no list of shards with path, split and records; make the data again")
    return manifest


def read_records(directory: str, split: str) -> Iterator[Record]:
    """All records of a split (`train` or `heldout`), in order. Raises UsageError at the first thing that is not as written."""
    for shard in read_manifest(directory)["shards"]:
        if shard["split"] != split:
            continue
        path, count = join(directory, shard["path"]), 0
        for payload in read_shard(path):
            yield parse_record(payload, f"{path}, record {count}")
            count += 1
        if count != shard["records"]:
            raise UsageError(f"{path}: {count} records, but the manifest says {shard['records']}; make the shard again")


def read_shard(path: str) -> Iterator[bytes]:
    """The payloads of one TFRecord file."""
    with open_file(path) as file:
        index = 0
        while header := file.read(12):
            where = f"{path}, record {index}"
            if len(header) < 12:
                raise UsageError(f"{where}: the file is cut off inside a record header; copy or make the shard again")
            length, length_crc = struct.unpack("<QI", header)
            if masked_crc(header[:8]) != length_crc:
                raise UsageError(f"{where}: the length's checksum is wrong, the file is damaged; copy or make the shard again")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise UsageError(f"{where}: the file is cut off ({len(body)} of {length + 4} bytes); copy or make it again")
            payload = body[:length]
            if masked_crc(payload) != struct.unpack("<I", body[length:])[0]:
                raise UsageError(f"{where}: the checksum is wrong, the file is damaged; copy or make the shard again")
            yield payload
            index += 1


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated right by 15 and shifted by a constant, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def parse_record(payload: bytes, where: str) -> Record:
    try:
        features = parse_example(payload)
        messages = json.loads(features["messages"]) if "messages" in features else None
        if ("text" in features) == ("messages" in features):
            raise ValueError("exactly one of text and messages is needed")
        if messages is not None and not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
            raise ValueError("messages is not a list of {role, content}")
        return Record(
            **{key: features[key] for key in ("id", "source", "task", "language")},
            text=features.get("text"),
            messages=messages,
            meta=json.loads(features.get("meta", "{}")),
        )
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UsageError(f"{where}: not a record of this project's format ({error!r})") from None


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def parse_example(payload: bytes) -> dict[str, str]:
    """A `tf.train.Example` of single UTF-8 bytes values → {feature: text}.

    Example { Features features = 1 { map<string, Feature> feature = 1 } }, Feature { BytesList bytes_list = 1 }.
    """
    features: dict[str, str] = {}
    for _, entries in _fields(payload):
        for _, entry in _fields(entries):
            pair = dict(_fields(entry))  # map entry: 1 key, 2 value
            bytes_list = dict(_fields(pair[2]))[1]
            features[pair[1].decode()] = dict(_fields(bytes_list))[1].decode()
    return features


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of each length-delimited field of a protobuf message; others do not occur in our records."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 != 2:
            raise ValueError(f"protobuf wire type {tag & 7} instead of 2")
        length, at = _varint(message, at)
        if at + length > len(message):
            raise ValueError("a protobuf field runs past its message")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
