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
CHUNK = 16 << 20  # bytes read at a time
HEADER = struct.Struct("<QI")


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
    for shard in shards_of(read_manifest(directory), split):
        path = join(directory, shard["path"])
        for index, payload in enumerate(read_counted(path, shard["records"])):
            yield parse_record(payload, f"{path}, record {index}")


def shards_of(manifest: dict[str, Any], split: str) -> list[dict[str, Any]]:
    return [shard for shard in manifest["shards"] if shard["split"] == split]


def read_counted(path: str, records: int) -> Iterator[bytes]:
    """The payloads of a shard that holds so many, as its manifest says. Raises UsageError where it does not."""
    count = 0
    for payload in read_shard(path):
        yield payload
        count += 1
    if count != records:
        raise UsageError(f"{path}: {count} records, but the manifest says {records}; make the shard again")


def read_shard(path: str) -> Iterator[bytes]:
    """The payloads of one TFRecord file. It is read in pieces of CHUNK bytes, of which one is in memory."""
    with open_file(path) as file:
        data, at, index = b"", 0, 0
        while True:
            if len(data) - at < 12:
                data, at = data[at:] + file.read(CHUNK), 0
                if not data:
                    return
            where = f"{path}, record {index}"
            if len(data) < at + 12:
                raise UsageError(f"{where}: the file is cut off inside a record header; copy or make the shard again")
            length, length_crc = HEADER.unpack_from(data, at)
            if masked_crc(data[at : at + 8]) != length_crc:
                raise UsageError(f"{where}: the length's checksum is wrong, the file is damaged; copy or make the shard again")
            at += 12
            if len(data) - at < length + 4:
                data, at = data[at:] + file.read(max(CHUNK, length + 4)), 0
                if len(data) < length + 4:
                    raise UsageError(f"{where}: the file is cut off ({len(data)} of {length + 4} bytes); copy or make it again")
            payload = data[at : at + length]
            at += length
            if masked_crc(payload) != int.from_bytes(data[at : at + 4], "little"):
                raise UsageError(f"{where}: the checksum is wrong, the file is damaged; copy or make the shard again")
            at += 4
            index += 1
            yield payload


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated right by 15 and shifted by a constant, as TFRecord stores it."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def parse_record(payload: bytes, where: str) -> Record:
    try:
        features = parse_example(payload)
        text, written, meta = features.get("text"), features.get("messages"), features.get("meta", "{}")
        if (text is None) == (written is None):
            raise ValueError("exactly one of text and messages is needed")
        messages = None if written is None else json.loads(written)
        if written is not None and not (isinstance(messages, list) and messages and all(map(_is_message, messages))):
            raise ValueError("messages is not a list of {role, content}")
        names = (features["id"], features["source"], features["task"], features["language"])
        return Record(*names, text, messages, {} if meta == "{}" else json.loads(meta))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UsageError(f"{where}: not a record of this project's format ({error!r})") from None


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def parse_example(payload: bytes) -> dict[str, str]:
    """A `tf.train.Example` of single UTF-8 bytes values → {feature: text}.

    Example { Features features = 1 { map<string, Feature> feature = 1 } }, Feature { BytesList bytes_list = 1 }.
    """
    features: dict[str, str] = {}
    at, size = 0, len(payload)
    while at < size:
        _, entry, at = _field(payload, at, size)
        while entry < at:
            _, part, entry = _field(payload, entry, at)
            parts = {}  # map entry: 1 key, 2 value
            while part < entry:
                number, begin, part = _field(payload, part, entry)
                parts[number] = begin, part
            begin, end = parts[2]
            for _ in range(2):  # Feature, then BytesList: their field 1 is all that they have
                number, begin, inner = _field(payload, begin, end)
                if number != 1 or inner != end:
                    raise ValueError(f"protobuf field {number} instead of one bytes value")
            features[payload[slice(*parts[1])].decode()] = payload[begin:end].decode()
    return features


def _field(message: bytes, at: int, end: int) -> tuple[int, int, int]:
    """(number, begin, end) of the length-delimited field at `at` of a protobuf message; others do not occur in our records."""
    tag, length, begin = message[at], message[at + 1], at + 2
    if tag >= 0x80 or length >= 0x80:
        tag, begin = _varint(message, at)
        length, begin = _varint(message, begin)
    if tag & 7 != 2:
        raise ValueError(f"protobuf wire type {tag & 7} instead of 2")
    if begin + length > end:
        raise ValueError("a protobuf field runs past its message")
    return tag >> 3, begin, begin + length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
