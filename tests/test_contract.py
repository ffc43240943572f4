"""The one thing both packages share: what data_gen writes, alif_jax reads, and so do readers that neither of them wrote."""

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from alif_jax.data import tfrecord as reader
from data_gen.record import Record, record_id
from data_gen.tfrecord import write_shards
from tests import plain_tfrecord
from tests.test_tfrecord import example_class

# What a careless path through bytes breaks: Urdu letters beyond Arabic's, a joiner, vowel signs, direction marks, letters
# outside of the 16-bit plane, both line ends, characters that JSON or a line-wise file would treat specially, nothing at all.
TEXTS = [
    "یہ ٹھیک ہے، کیا آپ گاڑی چلاتے ہیں؟ ۱۲۳۔",
    "می\u200cخواهم اُردُو \u200fabc\u200e ﷺ",
    "پہلی سطر\nدوسری سطر\r\nتیسری\u2028چوتھی\x00پانچویں\t\"اقتباس\" \\ / 😀𞸀",
    "",
    "ا" * 70_000,  # lengths of one, two and three varint bytes are in this list
]


def records() -> list[Record]:
    made = []
    for i, text in enumerate(TEXTS):
        meta = {"title": text[:20], "scores": [0.5, 1, None], "nested": {"کلید": True}}
        made.append(Record(record_id(text), "web", "document", "ur", meta, text=text))
        messages = (
            {"role": "system", "content": "آپ ایک مددگار ہیں۔"},
            {"role": "user", "content": f"{i}: {text}"},
            {"role": "assistant", "content": text},
        )
        made.append(Record(record_id(messages), "self_instruct", "reasoning", "ur-Latn", {}, messages=messages))
    return made


@pytest.fixture(params=["local", "memory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A finished directory: 8 training records in three shards, 2 held out."""
    path = f"{tmp_path}/data" if request.param == "local" else "memory://test_contract/data"
    write_shards(path, {"train": records()[:8], "heldout": records()[8:]}, config={}, shard_records=3)
    return path


def test_reads_back_the_same_records_in_order(directory: str) -> None:
    for split, written in (("train", records()[:8]), ("heldout", records()[8:])):
        read = list(reader.read_records(directory, split))
        assert [record.id for record in read] == [record.id for record in written]
        for ours, theirs in zip(read, written, strict=True):
            assert (ours.source, ours.task, ours.language) == (theirs.source, theirs.task, theirs.language)
            assert ours.text == theirs.text
            assert ours.messages == (None if theirs.messages is None else list(theirs.messages))
            assert ours.meta == theirs.meta
    counts = reader.read_manifest(directory)["counts"]
    assert {split: count["records"] for split, count in counts.items()} == {"train": 8, "heldout": 2}


def test_two_other_readers_agree(directory: str) -> None:
    example = example_class()  # tf.train.Example as protobuf itself makes it from the published definition
    shards = reader.read_manifest(directory)["shards"]
    assert len(shards) == 4
    for shard in shards:
        path = f"{directory}/{shard['path']}"
        payloads = list(reader.read_shard(path))
        ours = [reader.parse_example(payload) for payload in payloads]
        assert ours == plain_tfrecord.records(path)
        parsed = [example.FromString(payload) for payload in payloads]  # type: ignore[attr-defined]
        assert ours == [
            {name: feature.bytes_list.value[0].decode() for name, feature in one.features.feature.items()} for one in parsed
        ]


def test_reads_what_protobuf_writes() -> None:
    """Protobuf promises no order of the features: shards written by TensorFlow have another one than ours."""
    values = {"text": TEXTS[0], "meta": '{"a": "ب"}', "language": "ur", "task": "t", "source": "s", "id": "1"}
    wanted = reader.Record(id="1", source="s", task="t", language="ur", text=TEXTS[0], messages=None, meta={"a": "ب"})
    for names in (sorted(values), sorted(values, reverse=True)):
        payload = b""
        for name in names:  # features of one message, given in several pieces, are merged by every protobuf reader
            piece: Any = example_class()()
            piece.features.feature[name].bytes_list.value.append(values[name].encode())
            payload += piece.SerializeToString()
        assert reader.parse_record(payload, "here") == wanted


@pytest.mark.slow
def test_tensorflow_reads_it(tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    write_shards(str(tmp_path), {"train": records()}, config={}, shard_records=100)
    [path] = tmp_path.glob("*.tfrecord")
    read = [tf.train.Example.FromString(data.numpy()) for data in tf.data.TFRecordDataset(str(path))]
    for one, record in zip(read, records(), strict=True):
        features = {name: feature.bytes_list.value[0].decode() for name, feature in one.features.feature.items()}
        assert features["id"] == record.id and json.loads(features["meta"]) == record.meta
        if record.text is None:
            assert json.loads(features["messages"]) == list(record.messages or ())
        else:
            assert features["text"] == record.text


def test_an_interrupted_writer_leaves_nothing_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run into the same directory that is killed: the old manifest must not vouch for the new shards."""
    from alif_jax import UsageError

    path = "memory://test_contract/killed"
    write_shards(path, {"train": records()}, config={}, shard_records=3)

    def killed(record: Record) -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("data_gen.tfrecord.features_of", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shards(path, {"train": records()}, config={}, shard_records=3)
    assert fsspec.filesystem("memory").exists("/test_contract/killed")
    with pytest.raises(UsageError, match="memory://test_contract/killed: no manifest.json"):
        list(reader.read_records(path, "train"))
