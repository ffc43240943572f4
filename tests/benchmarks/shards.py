"""Writing shards, measured: `python tests/benchmarks/shards.py [--records=50000] [--rounds=5] [--tensorflow=PYTHON]`.

Prints a Markdown table: records a second of the ids alone, of writing records that have theirs, and of the whole (each record made
and its id computed while it is written). Records: conversations of about 1 kB of the Urdu prose that is shipped here, with the
provenance that self-instruct keeps. One core, however many there are. What was written is read by the plain reader of the tests
(the last shard: it is slow) and by TensorFlow (all), and compared with what was to be written.
--tensorflow: a Python that has TensorFlow; without one its row is left out.
"""

import hashlib
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import app, flags

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data_gen.record import Message, Record, record_id
from data_gen.tfrecord import write_shards
from tests import plain_tfrecord

RECORDS = flags.DEFINE_integer("records", 50_000, "written in a round, a tenth of them held out")
ROUNDS = flags.DEFINE_integer("rounds", 5, "of each measurement; the best and the median are shown")
TENSORFLOW = flags.DEFINE_string("tensorflow", None, "Python that can import tensorflow (default: this one, if it can)")

ROOT = Path(__file__).resolve().parents[2]
SHARD = 5000  # records
# Prints the number of records and the SHA-256 of their ids and messages, in the order of the files.
READ_WITH_TENSORFLOW = """
import hashlib, sys
import tensorflow as tf
count, seen = 0, hashlib.sha256()
for data in tf.data.TFRecordDataset(sys.argv[1:]):
    features = tf.train.Example.FromString(data.numpy()).features.feature
    seen.update(features["id"].bytes_list.value[0] + features["messages"].bytes_list.value[0])
    count += 1
print(count, seen.hexdigest(), tf.__version__)
"""
Source = tuple[tuple[Message, ...], dict[str, Any]]  # messages and meta


def make_sources(count: int) -> list[Source]:
    rng, made = random.Random(0), list[Source]()
    prose = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "data_gen" / "text" / "ur").glob("*.txt")))
    for number in range(count):
        start = rng.randrange(len(prose) - 400)
        question, answer = prose[start : start + 100], prose[start + 100 : start + 300]
        messages = ({"role": "user", "content": f"{number}: {question}"}, {"role": "assistant", "content": answer})
        meta = {
            "request": f"{rng.getrandbits(256):064x}",
            "teacher": "a-teacher",
            "prompt": f"{rng.getrandbits(64):016x}",
            "side": "train",
            "demos": [f"{rng.getrandbits(64):016x}" for _ in range(8)],
            "rouge": round(rng.random(), 4),
            "nearest": "seed:generation:12",
        }
        made.append((messages, meta))
    return made


class Made:
    """The records of some sources, each made when its turn comes."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Record]:
        for messages, meta in self.sources:
            yield Record(record_id(messages), "self_instruct", "generation", "ur", meta, messages=messages)



def measure(what: str, run: Callable[[], object], rows: list[tuple[str, str, str]]) -> None:
    seconds = []
    for _ in range(ROUNDS.value):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    best, median = (f"{RECORDS.value / value:,.0f} records/s" for value in (min(seconds), statistics.median(seconds)))
    rows.append((what, best, median))


def check_by_plain_reader(directory: Path, manifest: dict[str, Any], records: list[Record]) -> None:
    """Both checksums of every record of the last shard, and its ids."""
    [*_, last] = [shard for shard in manifest["shards"] if shard["split"] == "train"]
    read = plain_tfrecord.records(str(directory / last["path"]))
    assert [features["id"] for features in read] == [record.id for record in records[-len(read) :]]


def check_by_tensorflow(directory: Path, manifest: dict[str, Any], records: list[Record]) -> str:
    """TensorFlow's version, or "" where there is none."""
    python = TENSORFLOW.value or (sys.executable if importlib.util.find_spec("tensorflow") else None)
    if not python:
        return ""
    paths = [str(directory / shard["path"]) for shard in manifest["shards"]]
    ran = subprocess.run([python, "-c", READ_WITH_TENSORFLOW, *paths], capture_output=True, text=True, check=True)
    count, digest, version = ran.stdout.split()
    wanted = hashlib.sha256()
    for record in records:
        messages = json.dumps(record.messages, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        wanted.update((record.id + messages).encode())
    assert (int(count), digest) == (RECORDS.value, wanted.hexdigest())
    return version


def main(argv: list[str]) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    sources = make_sources(RECORDS.value)
    cut = RECORDS.value * 9 // 10
    train, heldout = list(Made(sources[:cut])), list(Made(sources[cut:]))
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def write(train: Any, heldout: Any) -> dict[str, Any]:
            return write_shards(name, {"train": train, "heldout": heldout}, config={}, shard_records=SHARD)

        measure("ids", lambda: [record_id(messages) for messages, _ in sources], rows)
        measure("writing", lambda: write(train, heldout), rows)
        measure("made, ids and writing", lambda: write(Made(sources[:cut]), Made(sources[cut:])), rows)
        manifest = write(train, heldout)
        check_by_plain_reader(directory, manifest, train)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        version = check_by_tensorflow(directory, manifest, train + heldout)
    size = sum(shard["bytes"] for shard in manifest["shards"]) / RECORDS.value
    read = f"TensorFlow {version} and the plain reader" if version else "the plain reader (no TensorFlow here)"
    print(f"{RECORDS.value:,} records of {size:,.0f} bytes; read back by {read}\n")
    print(f"| what | best of {ROUNDS.value} | median |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    app.run(main)
