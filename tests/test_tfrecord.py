"""Shards against a second implementation and against protobuf's own, on memory://; the manifest."""

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import IO

import fsspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from data_gen import UsageError
from data_gen.record import Record, canonical_json
from data_gen.tfrecord import encode_features, frame, write_shards
from tests import plain_tfrecord


def example_class() -> type:
    """tf.train.Example (its bytes part) as protobuf builds it from the published .proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    label = descriptor_pb2.FieldDescriptorProto

    def message(name: str, field: str, type_name: str | None, repeated: bool) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        made.field.add(
            name=field,
            number=1,
            label=label.LABEL_REPEATED if repeated else label.LABEL_OPTIONAL,
            type=label.TYPE_MESSAGE if type_name else label.TYPE_BYTES,
            type_name=type_name,
        )
        return made

    message("BytesList", "value", None, repeated=True)
    message("Feature", "bytes_list", ".tensorflow.BytesList", repeated=False)
    features = message("Features", "feature", ".tensorflow.Features.FeatureEntry", repeated=True)
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=label.LABEL_OPTIONAL, type=label.TYPE_STRING)
    entry.field.add(name="value", number=2, label=label.LABEL_OPTIONAL, type=label.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    message("Example", "features", ".tensorflow.Features", repeated=False)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


def random_record(rng: random.Random, number: int) -> Record:
    text = "".join(rng.choices("اردو کی زبان۔\n😀a", k=rng.choice([0, 1, 126, 127, 128, 300, 20_000])))
    meta = {"n": number, "نام": text[:5]}
    if number % 2:
        return Record(f"{number:x}", "s", "t", "ur", meta, text=text)
    return Record(f"{number:x}", "s", "t", "en", meta, messages=({"role": "user", "content": text},))


def test_example_is_protobufs() -> None:
    rng = random.Random(0)
    for _ in range(50):
        features = {"".join(rng.choices("abcید", k=6)): "".join(rng.choices("xاد۔", k=rng.randrange(400))) for _ in range(5)}
        ours, theirs = encode_features(features), example_class()()
        for name, value in features.items():
            theirs.features.feature[name].bytes_list.value.append(value.encode())
        assert ours == theirs.SerializeToString(deterministic=True)
        assert plain_tfrecord.example(ours) == features


def test_frame_is_the_published_one() -> None:
    assert plain_tfrecord.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    data = b"abc" * 1000
    length = struct.pack("<Q", 3000)
    crcs = [struct.pack("<I", plain_tfrecord.masked(part)) for part in (length, data)]
    assert frame(data) == length + crcs[0] + data + crcs[1]


def test_directory_reads_back() -> None:
    rng = random.Random(1)
    train, heldout = [random_record(rng, k) for k in range(25)], [random_record(rng, k) for k in range(25, 28)]
    directory, config = "memory://test_tfrecord/data", {"seed": 1, "b": {"a": "اردو"}}
    returned = write_shards(directory, {"train": train, "heldout": heldout}, config=config, shard_records=10)
    manifest, splits = plain_tfrecord.directory(directory)
    assert manifest == returned
    assert [shard["path"] for shard in manifest["shards"]] == [
        *(f"train-0000{k}-of-00003.tfrecord" for k in range(3)),
        "heldout-00000-of-00001.tfrecord",
    ]
    for split, records in {"train": train, "heldout": heldout}.items():
        for features, record in zip(splits[split], records, strict=True):
            assert features.pop("meta") == canonical_json(record.meta)
            content = features.pop("text") if record.text is not None else json.loads(features.pop("messages"))
            assert content == (record.text if record.text is not None else list(record.messages or ()))
            assert features == {"id": record.id, "source": "s", "task": "t", "language": record.language}
    assert manifest["counts"]["train"] == {
        "records": 25, "source": {"s": 25}, "task": {"t": 25}, "language": {"en": 13, "ur": 12},
    }  # fmt: skip
    assert manifest["config"] == config and manifest["format_version"] == 1
    assert manifest["config_hash"] == hashlib.sha256(canonical_json(config).encode()).hexdigest()
    for shard in manifest["shards"]:
        with fsspec.open(f"{directory}/{shard['path']}", "rb") as file:
            data = file.read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
    assert [shard["records"] for shard in manifest["shards"]] == [10, 10, 5, 3]


def test_rewriting_leaves_no_old_shard_and_never_a_stale_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    directory, rng = "memory://test_tfrecord/again", random.Random(2)
    records = [random_record(rng, k) for k in range(9)]
    write_shards(directory, {"train": records, "heldout": []}, config={}, shard_records=2)
    write_shards(directory, {"train": records[:2], "heldout": []}, config={}, shard_records=2)
    fs = fsspec.filesystem("memory")
    names = sorted(path.rsplit("/", 1)[1] for path in fs.ls("/test_tfrecord/again", detail=False))
    assert names == ["manifest.json", "train-00000-of-00001.tfrecord"]
    assert plain_tfrecord.directory(directory)[0]["counts"]["heldout"]["records"] == 0

    def full_disk(data: bytes) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr("data_gen.tfrecord.frame", full_disk)
    with pytest.raises(OSError):
        write_shards(directory, {"train": records, "heldout": []}, config={}, shard_records=2)
    assert not fs.exists("/test_tfrecord/again/manifest.json")


def test_a_kill_never_leaves_half_a_manifest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records = [random_record(random.Random(5), k) for k in range(3)]

    def killed(value: object, file: IO[str], **options: object) -> None:
        file.write('{"format_version": 1')
        raise KeyboardInterrupt

    for directory in ("memory://test_tfrecord/killed", str(tmp_path)):
        with monkeypatch.context() as patch:
            patch.setattr("data_gen.tfrecord.json.dump", killed)
            with pytest.raises(KeyboardInterrupt):
                write_shards(directory, {"train": records}, config={}, shard_records=5)
        fs, root = fsspec.core.url_to_fs(directory)
        assert not fs.exists(f"{root}/manifest.json")
        write_shards(directory, {"train": records}, config={}, shard_records=5)
        names = sorted(path.rsplit("/", 1)[1] for path in fs.ls(root, detail=False))
        assert names == ["manifest.json", "train-00000-of-00001.tfrecord"]
        assert json.loads(fs.cat_file(f"{root}/manifest.json"))["format_version"] == 1


def test_errors() -> None:
    record = random_record(random.Random(3), 1)
    with pytest.raises(UsageError, match="shard_records is 0"):
        write_shards("memory://test_tfrecord/bad", {"train": [record]}, config={}, shard_records=0)
    with pytest.raises(UsageError, match="is in train and in heldout"):
        write_shards("memory://test_tfrecord/bad", {"train": [record], "heldout": [record]}, config={}, shard_records=1)


def test_local_directory_is_made(tmp_path: object) -> None:
    directory = f"{tmp_path}/deep/data"
    write_shards(directory, {"train": [random_record(random.Random(4), 1)]}, config={}, shard_records=5)
    assert len(plain_tfrecord.directory(directory)[1]["train"]) == 1
