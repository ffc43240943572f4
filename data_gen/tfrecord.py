"""TFRecord shards and their manifest: a writer only (the trainer has its own reader), and no TensorFlow.

A shard is a sequence of   uint64 length (little endian) | masked CRC32C of the length | data | masked CRC32C of the
data where data is a `tf.train.Example`, written here straight in protobuf's wire format: every feature is one UTF-8
bytes value. https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

import hashlib
import json
import posixpath
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol

import fsspec
import google_crc32c

from data_gen import UsageError
from data_gen.record import Record, canonical_bytes

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_UNFINISHED = MANIFEST + ".tmp"
_CRC_MASK = 0xA282EAD8
PIECE = 1 << 20  # bytes that are written and hashed at a time
COUNTED = ("source", "task", "language")


class Records(Protocol):
    """A list of records, or whatever knows how many it has and goes through them, more than once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Record]: ...


def masked_crc(data: bytes) -> int:
    """CRC32C, rotated right by 15 bits plus a constant: TFRecord's guard against a CRC of data that holds CRCs."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _CRC_MASK) & 0xFFFFFFFF


@lru_cache(maxsize=1 << 16)
def _frame_head(size: int) -> bytes:
    length = struct.pack("<Q", size)
    return length + struct.pack("<I", masked_crc(length))


def frame(data: bytes) -> bytes:
    """One record as it lies in a shard: 8 + 4 + len(data) + 4 bytes."""
    return b"".join((_frame_head(len(data)), data, masked_crc(data).to_bytes(4, "little")))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field_head(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a length-delimited protobuf field (wire type 2)."""
    return _varint(number << 3 | 2) + _varint(size)


@lru_cache(maxsize=1 << 16)
def _entry_head(name: str, size: int) -> bytes:
    """What stands before the `size` bytes of the feature `name`: a function of these two, so it is made once for many records."""
    in_list = _field_head(1, size)
    in_feature = _field_head(1, len(in_list) + size) + in_list
    feature = _field_head(2, len(in_feature) + size) + in_feature
    key = name.encode()
    entry = _field_head(1, len(key)) + key + feature
    return _field_head(1, len(entry) + size) + entry


def encode_features(features: Mapping[str, str | bytes]) -> bytes:
    """`tf.train.Example` bytes of {name: text, or its UTF-8}, in the order of the names, so that equal features give equal bytes.

    Example{1: Features{1: map entry{1: name, 2: Feature{1: BytesList{1: value}}}}}
    {"id": "a"} → 0a0e 0a0c 0a026964 1206 0a04 0a0161 … nested in this way.
    """
    parts: list[bytes] = []
    for name in sorted(features):
        value = features[name]
        data = value if isinstance(value, bytes) else value.encode()
        parts += (_entry_head(name, len(data)), data)
    body = b"".join(parts)
    return _field_head(1, len(body)) + body


def features_of(record: Record) -> dict[str, str | bytes]:
    """The features of a record: `messages` and `meta` as JSON, everything else as it is."""
    features: dict[str, str | bytes] = {"id": record.id, "source": record.source, "task": record.task, "language": record.language}
    features["meta"] = canonical_bytes(record.meta)
    if record.text is not None:
        features["text"] = record.text
    else:
        features["messages"] = canonical_bytes(record.messages)
    return features


def _frame_of(record: Record) -> bytes:
    try:
        return frame(encode_features(features_of(record)))
    except UnicodeEncodeError as error:
        found = f"record {record.id} has half a surrogate pair ({error.object[error.start : error.end]!r})"
        raise UsageError(f"{found}, which no UTF-8 file can hold; replace it") from error


def _pieces(records: Iterable[Record]) -> Iterator[bytes]:
    """The frames of the records, joined to pieces of about PIECE bytes."""
    frames: list[bytes] = []
    size = 0
    for record in records:
        frames.append(_frame_of(record))
        size += len(frames[-1])
        if size >= PIECE:
            yield b"".join(frames)
            frames.clear()
            size = 0
    yield b"".join(frames)


def _write_shard(path: str, records: Iterable[Record]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with fsspec.open(path, "wb") as file:
        for piece in _pieces(records):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _ids_of_smaller(splits: Mapping[str, Records]) -> dict[str, str]:
    """{id: split} of all splits but the largest, whose ids need no room: they are looked up here while it is written."""
    largest = max(splits, key=lambda split: len(splits[split]), default="")
    found: dict[str, str] = {}
    for split, records in splits.items():
        if split != largest:
            for record in records:
                _hold_apart(record.id, split, found.setdefault(record.id, split))
    return found


def _hold_apart(record_id: str, split: str, other: str) -> None:
    if other != split:
        raise UsageError(f"record {record_id} is in {other} and in {split}; remove it from one")


def _counted(
    records: Iterable[Record], split: str, elsewhere: Mapping[str, str], kinds: Counter[tuple[str, ...]]
) -> Iterator[Record]:
    """The records as they come, counted by what COUNTED names."""
    for record in records:
        if record.id in elsewhere:
            _hold_apart(record.id, split, elsewhere[record.id])
        kinds[record.source, record.task, record.language] += 1
        yield record


def _write_split(
    directory: str, split: str, records: Records, shard_records: int, elsewhere: Mapping[str, str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The manifest's lines for the shards of one split, and its counts."""
    total, kinds = len(records), Counter[tuple[str, ...]]()
    stream = _counted(records, split, elsewhere, kinds)
    starts = range(0, total, shard_records)
    shards: list[dict[str, Any]] = []
    for k, start in enumerate(starts):
        name = f"{split}-{k:05d}-of-{len(starts):05d}.tfrecord"
        written = _write_shard(posixpath.join(directory, name), islice(stream, shard_records))
        shards.append({"path": name, "split": split, "records": min(shard_records, total - start), **written})
    if next(stream, None) is not None or kinds.total() != total:
        raise UsageError(f"{split} was to have {total} records, and another number came; nothing may add or remove some meanwhile")
    counts: dict[str, Any] = {"records": total}
    for place, field in enumerate(COUNTED):
        found = Counter[str]()
        for kind, count in kinds.items():
            found[kind[place]] += count
        counts[field] = dict(sorted(found.items()))
    return shards, counts


def _clear(directory: str) -> None:
    """Removes an older manifest first and then its shards, so that a half-written directory never looks finished."""
    fs, root = fsspec.core.url_to_fs(directory)
    fs.makedirs(root, exist_ok=True)
    for name in (MANIFEST, _UNFINISHED):
        if fs.exists(posixpath.join(root, name)):
            fs.rm_file(posixpath.join(root, name))
    for path in fs.glob(posixpath.join(root, "*.tfrecord")):
        fs.rm_file(path)


def _write_manifest(directory: str, manifest: dict[str, Any]) -> None:
    """Under another name first: a kill must not leave half a manifest, which would look like a finished directory."""
    fs, root = fsspec.core.url_to_fs(directory)
    with fs.open(posixpath.join(root, _UNFINISHED), "wt", encoding="utf-8") as file:
        json.dump(manifest, file, ensure_ascii=False, indent=1)
    fs.mv(posixpath.join(root, _UNFINISHED), posixpath.join(root, MANIFEST))


def write_shards(
    directory: str, splits: Mapping[str, Records], *, config: dict[str, Any], shard_records: int
) -> dict[str, Any]:
    """Writes `directory/{train,heldout}-00000-of-0000N.tfrecord` and then the manifest, which it returns.

    `directory` is any fsspec path (local, memory://, gs://); what an earlier call wrote there is replaced. 2,500
    records with shard_records=1,000 make three shards. A split without records has no shard and counts 0. A split is
    asked for its length and gone through, the smaller ones twice; no record is kept. Raises UsageError on shard_records < 1, on
    a record that is in both splits and on text that UTF-8 cannot hold; the directory has no manifest then.
    """
    if shard_records < 1:
        raise UsageError(f"shard_records is {shard_records}; it must be at least 1")
    elsewhere = _ids_of_smaller(splits)
    _clear(directory)
    written = {split: _write_split(directory, split, records, shard_records, elsewhere) for split, records in splits.items()}
    manifest = {
        "format_version": FORMAT_VERSION,
        "shards": [shard for shards, _ in written.values() for shard in shards],
        "counts": {split: counts for split, (_, counts) in written.items()},
        "config": config,
        "config_hash": hashlib.sha256(canonical_bytes(config)).hexdigest(),
    }
    _write_manifest(directory, manifest)
    return manifest
