"""A second implementation of the shard format for tests: TFRecord framing and tf.train.Example, read by the letter.

It shares no code with the writer: CRC32C from its polynomial, protobuf from the wire format. Slow, and not for use.
"""

import json
import struct
from typing import Any

import fsspec

POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def fields(data: bytes) -> list[tuple[int, bytes]]:
    """(number, value) of a protobuf message whose fields are all length-delimited."""

    def varint(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                return value, at

    found, at = [], 0
    while at < len(data):
        tag, at = varint(at)
        assert tag & 7 == 2, f"wire type {tag & 7}"
        size, at = varint(at)
        found.append((tag >> 3, data[at : at + size]))
        assert len(found[-1][1]) == size, "a field longer than its message"
        at += size
    return found


def example(data: bytes) -> dict[str, str]:
    [(one, features)] = fields(data)
    assert one == 1
    found: dict[str, str] = {}
    for number, entry in fields(features):
        assert number == 1
        parts = dict(fields(entry))
        [(kind, bytes_list)] = fields(parts[2])
        [(also_one, value)] = fields(bytes_list)
        assert (kind, also_one) == (1, 1)
        found[parts[1].decode()] = value.decode()
    return found


def records(path: str) -> list[dict[str, str]]:
    """The features of every record of one shard; asserts both checksums of each."""
    with fsspec.open(path, "rb") as file:
        data = file.read()
    found, at = [], 0
    while at < len(data):
        length, length_crc = struct.unpack("<QI", data[at : at + 12])
        assert length_crc == masked(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        assert struct.unpack("<I", data[at + 12 + length : at + 16 + length])[0] == masked(body)
        found.append(example(body))
        at += 16 + length
    return found


def directory(path: str) -> tuple[dict[str, Any], dict[str, list[dict[str, str]]]]:
    """(manifest, {split: features of every record in order}) of a finished directory."""
    with fsspec.open(f"{path}/manifest.json", "rt", encoding="utf-8") as file:
        manifest = json.load(file)
    splits: dict[str, list[dict[str, str]]] = {split: [] for split in manifest["counts"]}
    for shard in manifest["shards"]:
        splits[shard["split"]] += records(f"{path}/{shard['path']}")
    return manifest, splits
