"""Shards against a second implementation and against protobuf's own, on memory://; the manifest."""

import collections
import datetime
import enum
import functools
import hashlib
import json
import math
import random
import struct
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from data_gen import UsageError
from data_gen.record import Record, _by_orjson, canonical_bytes, canonical_json, record_id
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


example_class_once: Callable[[], Any] = functools.cache(example_class)


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
    with pytest.raises(UsageError, match="is in heldout and in train"):
        write_shards("memory://test_tfrecord/bad", {"train": [record], "heldout": [record]}, config={}, shard_records=1)


class Stream:
    """Records that exist only while they are gone through, as those of a journal do: no index, no second look."""

    def __init__(self, numbers: range, length: int | None = None) -> None:
        self.numbers, self.length, self.rounds = numbers, length, 0
        self.alive = self.most_alive = 0

    def __len__(self) -> int:
        return len(self.numbers) if self.length is None else self.length

    def __iter__(self) -> Iterator[Record]:
        self.rounds += 1
        for number in self.numbers:
            record = random_record(random.Random(number), number)
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
            weakref.finalize(record, self._gone)
            yield record

    def _gone(self) -> None:
        self.alive -= 1

    def __contains__(self, record: object) -> bool:
        raise AssertionError("a search through all records")


def test_records_are_streamed() -> None:
    train, heldout = Stream(range(200)), Stream(range(200, 220))
    streamed, listed = "memory://test_tfrecord/streamed", "memory://test_tfrecord/listed"
    manifest = write_shards(streamed, {"train": train, "heldout": heldout}, config={}, shard_records=60)
    assert (train.rounds, heldout.rounds) == (1, 2)
    assert max(train.most_alive, heldout.most_alive) <= 3, "one that is written, and one that is made meanwhile"
    assert manifest == write_shards(listed, {"train": list(train), "heldout": list(heldout)}, config={}, shard_records=60)
    assert plain_tfrecord.directory(streamed) == plain_tfrecord.directory(listed)


@pytest.mark.parametrize("length", [5, 9, 11, 0])
def test_a_length_that_is_not_true_leaves_no_manifest(length: int) -> None:
    directory = f"memory://test_tfrecord/length{length}"
    with pytest.raises(UsageError, match=f"train was to have {length} records"):
        write_shards(directory, {"train": Stream(range(10), length)}, config={}, shard_records=5)
    assert not fsspec.filesystem("memory").exists(f"/test_tfrecord/length{length}/manifest.json")


def test_pieces_are_no_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [random_record(random.Random(k), k) for k in range(40)]
    manifests = []
    for piece in (1, 1000, 1 << 30):
        monkeypatch.setattr("data_gen.tfrecord.PIECE", piece)
        directory = f"memory://test_tfrecord/piece{piece}"
        manifests.append(write_shards(directory, {"train": records}, config={}, shard_records=30))
        assert len(plain_tfrecord.directory(directory)[1]["train"]) == 40
    assert manifests[0] == manifests[1] == manifests[2]


def test_half_a_surrogate_pair_is_named() -> None:
    for content in ({"text": "a\ud83d"}, {"messages": ({"role": "user", "content": "a\ud83d"},)}):
        record: Any = Record("77", "s", "t", "ur", {}, **content)
        with pytest.raises(UsageError, match=r"record 77 has half a surrogate pair \('\\ud83d'\)"):
            write_shards("memory://test_tfrecord/half", {"train": [record]}, config={}, shard_records=1)


def test_an_entry_of_every_length_is_protobufs() -> None:
    """Around every length at which a varint, of the value or of a message around it, becomes a byte longer."""
    for size in [*range(300), *range(16_300, 16_400), *range(2_097_100, 2_097_160, 7)]:
        ours, theirs = encode_features({"text": "a" * size}), example_class_once().FromString
        parsed = theirs(ours)
        assert parsed.SerializeToString(deterministic=True) == ours
        assert parsed.features.feature["text"].bytes_list.value[0] == b"a" * size


def json_says(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def random_value(rng: random.Random, depth: int) -> Any:
    letters = "aZ9 اردوہ\u200c\u2028\x00\x1f\x7f\"\\/\b\f\n\r\t😀\ufffd\ue000\U0010ffff"
    if depth and rng.random() < 0.6:
        inner = [random_value(rng, depth - 1) for _ in range(rng.randrange(6))]
        names = ["".join(rng.choices(letters, k=rng.randrange(4))) for _ in inner]
        return rng.choice([inner, tuple(inner), dict(zip(names, inner, strict=True))])
    kinds: list[Any] = [
        "".join(rng.choices(letters, k=rng.randrange(12))), rng.randrange(-(2**70), 2**70), rng.randrange(-9, 9), 2**63, 2**64 - 1,
        rng.random(), rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 309), float(rng.randrange(10**17)), 1e-4, 9.999e-5, 1e16,
        struct.unpack("<d", rng.randbytes(8))[0], 0.0, -0.0, 5e-324, math.inf, -math.inf, math.nan, True, False, None,
    ]  # fmt: skip
    return rng.choice(kinds)


def test_canonical_json_is_json_dumps() -> None:
    """Ids, request keys and stored bodies hang on every byte of it."""
    rng, fast = random.Random(0), 0
    for _ in range(10_000):
        value = random_value(rng, 4)
        assert canonical_json(value) == json_says(value)
        assert canonical_bytes(value) == json_says(value).encode()
        fast += _by_orjson(value) is not None
    assert 2_500 < fast < 9_500, "both ways are taken"


def test_only_floats_without_exponent_are_left_to_orjson() -> None:
    """Whatever the version that is installed: the form of an exponent has changed between two of them."""
    for value in (1e16, 9.99e-5, -1e16, 5e-324, math.inf, -math.inf, math.nan):
        assert _by_orjson([value]) is None and _by_orjson({"a": value}) is None and _by_orjson(value) is None
    for value in (0.0, -0.0, 1e-4, -1e-4, math.nextafter(1e16, 0), 0.1 + 0.2):
        assert _by_orjson({"a": [value]}) == json_says({"a": [value]}).encode()


class Grade(enum.IntEnum):
    GOOD = 1


class Name(str): ...


@pytest.mark.parametrize(
    "value",
    [
        2**64, -(2**63) - 1, 10**300, 1e-05, 1e16, -1.5e300, math.nan, math.inf, {1: "a", 2: "b"}, {None: 1}, {True: 1}, {1.5: 1},
        Grade.GOOD, {"a": Name("b")}, {Name("k"): 1}, [collections.OrderedDict(b=1, a=2)], "half \ud83d", {"\ude00": 1},
        json.loads("[" * 400 + "]" * 400),
    ],
)  # fmt: skip
def test_what_orjson_refuses_or_writes_otherwise(value: Any) -> None:
    assert canonical_json(value) == json_says(value)
    try:
        wanted = json_says(value).encode()
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            canonical_bytes(value)
    else:
        assert canonical_bytes(value) == wanted


@pytest.mark.parametrize("value", [{1}, datetime.date(2026, 1, 1), uuid.UUID(int=1), Record("1", "", "", "ur", {}, text=""), b"a"])
def test_what_json_refuses_is_refused(value: Any) -> None:
    for function in (canonical_json, canonical_bytes):
        with pytest.raises(TypeError):
            function({"a": [value]})
    with pytest.raises(TypeError):
        canonical_json({1: "a", "b": 2})  # no order of both


def test_ids_are_what_they_were() -> None:
    """Computed with json.dumps and hashlib alone."""
    for content in ("اردو", "", "a\n\"b\"", ({"role": "user", "content": "سلام 😀"},)):
        body = {"text": content} if isinstance(content, str) else {"messages": list(content)}
        assert record_id(content) == hashlib.sha256(json_says(body).encode()).hexdigest()[:16]
    assert record_id("اردو") == "f413f15af7dd4979"


def test_local_directory_is_made(tmp_path: object) -> None:
    directory = f"{tmp_path}/deep/data"
    write_shards(directory, {"train": [random_record(random.Random(4), 1)]}, config={}, shard_records=5)
    assert len(plain_tfrecord.directory(directory)[1]["train"]) == 1
