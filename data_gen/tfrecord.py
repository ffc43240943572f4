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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fsspec
import google_crc32c

from data_gen import UsageError
from data_gen.record import Record, canonical_json

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_UNFINISHED = MANIFEST + ".tmp"
_CRC_MASK = 0xA282EAD8


def masked_crc(data: bytes) -> int:
    """CRC32C, rotated right by 15 bits plus a constant: TFRecord's guard against a CRC of data that holds CRCs."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _CRC_MASK) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record as it lies in a shard: 8 + 4 + len(data) + 4 bytes."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, struct.pack("<I", masked_crc(length)), data, struct.pack("<I", masked_crc(data))))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field (wire type 2)."""
    return b"".join((_varint(number << 3 | 2), _varint(len(data)), data))


def encode_features(features: Mapping[str, str]) -> bytes:
    """`tf.train.Example` bytes of {name: text}, in the order of the names, so that equal features give equal bytes.

    Example{1: Features{1: map entry{1: name, 2: Feature{1: BytesList{1: value}}}}}
    {"id": "a"} → 0a0e 0a0c 0a026964 1206 0a04 0a0161 … nested in this way.
    """
    entries = (
        _field(1, _field(1, name.encode()) + _field(2, _field(1, _field(1, value.encode()))))
        for name, value in sorted(features.items())
    )
    return _field(1, b"".join(entries))


def features_of(record: Record) -> dict[str, str]:
    """The features of a record: `messages` and `meta` as JSON, everything else as it is."""
    features = {"id": record.id, "source": record.source, "task": record.task, "language": record.language}
    features["meta"] = canonical_json(record.meta)
    if record.text is not None:
        features["text"] = record.text
    else:
        features["messages"] = canonical_json(record.messages)
    return features


def _write_shard(path: str, split: str, records: Sequence[Record]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with fsspec.open(path, "wb") as file:
        for record in records:
            data = frame(encode_features(features_of(record)))
            file.write(data)
            digest.update(data)
            size += len(data)
    name = posixpath.basename(path)
    return {"path": name, "split": split, "records": len(records), "bytes": size, "sha256": digest.hexdigest()}


def _counts(records: Sequence[Record]) -> dict[str, Any]:
    counts: dict[str, Any] = {"records": len(records)}
    for field in ("source", "task", "language"):
        counts[field] = dict(sorted(Counter(getattr(record, field) for record in records).items()))
    return counts


def _shards(records: Sequence[Record], shard_records: int) -> Iterator[tuple[str, Sequence[Record]]]:
    total = -(-len(records) // shard_records)
    for k in range(total):
        yield f"{k:05d}-of-{total:05d}.tfrecord", records[k * shard_records : (k + 1) * shard_records]


def _clear(directory: str) -> None:
    """Removes an older manifest first and then its shards, so that a half-written directory never looks finished."""
    fs, root = fsspec.core.url_to_fs(directory)
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
    directory: str, splits: Mapping[str, Sequence[Record]], *, config: dict[str, Any], shard_records: int
) -> dict[str, Any]:
    """Writes `directory/{train,heldout}-00000-of-0000N.tfrecord` and then the manifest, which it returns.

    `directory` is any fsspec path (local, memory://, gs://); what an earlier call wrote there is replaced. 2,500
    records with shard_records=1,000 make three shards. A split without records has no shard and counts 0. Raises
    UsageError on shard_records < 1 and on a record that is in both splits.
    """
    if shard_records < 1:
        raise UsageError(f"shard_records is {shard_records}; it must be at least 1")
    seen: dict[str, str] = {}
    for split, records in splits.items():
        for record in records:
            if seen.setdefault(record.id, split) != split:
                raise UsageError(f"record {record.id} is in {seen[record.id]} and in {split}; remove it from one")
    _clear(directory)
    shards = [
        _write_shard(posixpath.join(directory, f"{split}-{name}"), split, part)
        for split, records in splits.items()
        for name, part in _shards(records, shard_records)
    ]
    manifest = {
        "format_version": FORMAT_VERSION,
        "shards": shards,
        "counts": {split: _counts(records) for split, records in splits.items()},
        "config": config,
        "config_hash": hashlib.sha256(canonical_json(config).encode()).hexdigest(),
    }
    _write_manifest(directory, manifest)
    return manifest
