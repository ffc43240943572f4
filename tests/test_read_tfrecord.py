"""Data directories that are not as they should be: each is refused, naming the file and the record."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from alif_jax import UsageError
from alif_jax.data.tfrecord import read_manifest, read_records, read_shard
from data_gen.record import Record, canonical_json, record_id
from data_gen.tfrecord import encode_features, frame, write_shards

SECOND = "train-00001-of-00002.tfrecord"  # the damaged shard, three records in it
GOOD = {"id": "1", "source": "s", "task": "t", "language": "ur", "meta": "{}", "text": "اردو"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """6 records in two shards, of different lengths."""
    texts = ["سلام " * (i + 1) for i in range(6)]
    records = [Record(record_id(text), "s", "t", "ur", {}, text=text) for text in texts]
    write_shards(str(tmp_path / "data"), {"train": records, "heldout": []}, config={}, shard_records=3)
    return tmp_path / "data"


def starts(data: bytes) -> list[int]:
    """Where each record of a shard begins."""
    found, at = [], 0
    while at < len(data):
        found.append(at)
        at += 16 + struct.unpack_from("<Q", data, at)[0]
    return found


def refused(directory: Path | str, *words: str) -> None:
    with pytest.raises(UsageError) as error:
        list(read_records(str(directory), "train"))
    for word in words:
        assert word in str(error.value)


def change(directory: Path, edit: Callable[[bytes], bytes]) -> None:
    path = directory / SECOND
    path.write_bytes(edit(path.read_bytes()))


def test_a_whole_directory_is_read(directory: Path) -> None:
    assert [record.text for record in read_records(str(directory), "train")] == ["سلام " * (i + 1) for i in range(6)]
    assert list(read_records(str(directory), "heldout")) == []


@pytest.mark.parametrize("where", ["local", "memory"])
def test_unfinished(directory: Path, where: str) -> None:
    name = str(directory)
    (directory / "manifest.json").unlink()
    if where == "memory":
        name = "memory://test_read_tfrecord/unfinished"
        with fsspec.open(f"{name}/{SECOND}", "wb") as file:
            file.write((directory / SECOND).read_bytes())
    refused(name, name, "no manifest.json", "unfinished")
    refused(f"{name}/nowhere", f"{name}/nowhere", "no manifest.json")


def edit_manifest(directory: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("version", [2, "1", None])
def test_wrong_format_version(directory: Path, version: object) -> None:
    edit_manifest(directory, lambda manifest: manifest.update(format_version=version))
    with pytest.raises(UsageError, match=f"manifest.json: format_version={version!r}; this version reads 1"):
        read_manifest(str(directory))


@pytest.mark.parametrize("text", ["", "{", "[]", '"shards"', '{"format_version": 1}'])
def test_manifest_that_is_none(directory: Path, text: str) -> None:
    (directory / "manifest.json").write_text(text)
    refused(directory, str(directory / "manifest.json"))


@pytest.mark.parametrize("claimed", [2, 4])
def test_record_count_unlike_the_manifest(directory: Path, claimed: int) -> None:
    edit_manifest(directory, lambda manifest: manifest["shards"][1].update(records=claimed))
    refused(directory, str(directory / SECOND), "3 records", f"manifest says {claimed}")


def test_a_shard_is_missing(directory: Path) -> None:
    (directory / SECOND).unlink()
    refused(directory, str(directory / SECOND), "no such file")


def test_truncated_in_a_header(directory: Path) -> None:
    for cut in range(1, 12):
        copy = directory / SECOND
        data = copy.read_bytes()
        copy.write_bytes(data[: starts(data)[1] + cut])
        refused(directory, f"{copy}, record 1", "cut off inside a record header")
        copy.write_bytes(data)


def test_truncated_in_a_body(directory: Path) -> None:
    for cut in (12, 13, -1, -4, -5):
        copy = directory / SECOND
        data = copy.read_bytes()
        begin, end = starts(data)[1:3]
        copy.write_bytes(data[: begin + cut if cut > 0 else end + cut])
        refused(directory, f"{copy}, record 1", "cut off")
        copy.write_bytes(data)


def test_truncated_between_records(directory: Path) -> None:
    """The file is well-formed then; only the manifest knows."""
    change(directory, lambda data: data[: starts(data)[2]])
    refused(directory, str(directory / SECOND), "2 records", "manifest says 3")


@pytest.mark.parametrize(
    ("at", "words"),
    [(0, "length's checksum"), (7, "length's checksum"), (8, "length's checksum"), (12, "the checksum"), (-1, "the checksum")],
)
def test_flipped_bit(directory: Path, at: int, words: str) -> None:
    def flip(data: bytes) -> bytes:
        begin, end = starts(data)[1:3]
        at_byte = begin + at if at >= 0 else end + at
        return data[:at_byte] + bytes([data[at_byte] ^ 1]) + data[at_byte + 1 :]

    change(directory, flip)
    refused(directory, f"{directory / SECOND}, record 1", words, "damaged")


def test_no_flipped_bit_anywhere_goes_unseen(directory: Path) -> None:
    data = (directory / SECOND).read_bytes()
    path = "memory://test_read_tfrecord/flipped"
    for at in range(len(data)):
        with fsspec.open(path, "wb") as file:
            file.write(data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :])
        record = sum(begin <= at for begin in starts(data)) - 1
        with pytest.raises(UsageError, match=f"{path}, record {record}: "):
            list(read_shard(path))


def refused_payload(directory: Path, payload: bytes, *words: str) -> None:
    """A record of good framing whose content is not ours."""

    def put(data: bytes) -> bytes:
        begin, end = starts(data)[1:3]
        return data[:begin] + frame(payload) + data[end:]

    change(directory, put)
    refused(directory, f"{directory / SECOND}, record 1", "not a record of this project's format", *words)


@pytest.mark.parametrize("key", ["id", "source", "task", "language"])
def test_a_feature_is_missing(directory: Path, key: str) -> None:
    refused_payload(directory, encode_features({name: value for name, value in GOOD.items() if name != key}), key)


def test_neither_text_nor_messages_or_both(directory: Path) -> None:
    messages = canonical_json([{"role": "user", "content": "سلام"}])
    refused_payload(directory, encode_features({name: value for name, value in GOOD.items() if name != "text"}))
    refused_payload(directory, encode_features({**GOOD, "messages": messages}))


@pytest.mark.parametrize("messages", ["{", "{}", "[]", "[1]", '[{"role": "user"}]', '[{"role": "user", "content": null}]'])
def test_messages_that_are_none(directory: Path, messages: str) -> None:
    features = {name: value for name, value in GOOD.items() if name != "text"}
    refused_payload(directory, encode_features({**features, "messages": messages}))


def test_other_payloads(directory: Path) -> None:
    payload = encode_features(GOOD)
    int64 = bytes.fromhex("0a0d 0a0b 0a0269641205 1a03 0a0101")  # Feature{3: Int64List} instead of {1: BytesList}
    refused_payload(directory, int64)
    refused_payload(directory, b"")
    refused_payload(directory, b'{"text": "json"}')
    refused_payload(directory, encode_features({**GOOD, "text": "abc"})[:-1])  # a field that runs past its message
    refused_payload(directory, payload.replace("اردو".encode(), b"\xff" * 8))  # not UTF-8


def test_other_files(directory: Path) -> None:
    for content in (b"id,text\n1,hello world\n" * 5, b"\x1f\x8b\x08" + bytes(40), b"PAR1" * 20):
        change(directory, lambda _, content=content: content)  # type: ignore[misc]
        refused(directory, f"{directory / SECOND}, record 0", "checksum")
    change(directory, lambda _: b"")
    refused(directory, str(directory / SECOND), "0 records", "manifest says 3")
