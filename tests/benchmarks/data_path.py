"""The data path, measured: `python tests/benchmarks/data_path.py [--megabytes=60] [--repeats=3] [--tensorflow=PYTHON]`.

Prints a Markdown table. Text: the Urdu prose that is shipped here, and words made of halves of its words, drawn by Zipf's law;
half of the tokens documents, half conversations. Tokenizer: byte-level BPE of 60,000 tokens with Llama 3's splitting, trained
on 100,000 sentences of it. Everything runs on 2 cores, however many there are; the best of the repeats counts, as other programs
only slow it down.
--tensorflow: a Python that has TensorFlow, for the row that compares with it; without one that row is left out.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from absl import app, flags
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from alif_jax.chat_template import read_template
from alif_jax.data.cache import Source, open_sources
from alif_jax.data.fit import Examples, fit_rows
from alif_jax.data.pack import Batches, plan_rows
from alif_jax.data.template import DataConfig
from alif_jax.data.tfrecord import read_manifest, read_records, read_shard
from alif_jax.files import write_json
from alif_jax.tokenizer import load_tokenizer
from data_gen.record import Record, record_id
from data_gen.tfrecord import write_shards

MEGABYTES = flags.DEFINE_float("megabytes", 60.0, "of text")
REPEATS = flags.DEFINE_integer("repeats", 3, "of each measurement, of which the best counts")
TENSORFLOW = flags.DEFINE_string("tensorflow", None, "Python that can import tensorflow (default: this one, if it can)")

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY, WORDS, ROW, BATCH = 60_000, 150_000, 2048, 16
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end_of_turn|>")
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Reads every record of the files, as raw bytes, several times, and prints the seconds of the fastest.
READ_WITH_TENSORFLOW = """
import sys, time
import tensorflow as tf
best = 1e9
for _ in range(int(sys.argv[1])):
    begin = time.perf_counter()
    count = sum(len(payload.numpy()) > 0 for payload in tf.data.TFRecordDataset(sys.argv[2:]))
    best = min(best, time.perf_counter() - begin)
print(count, best, tf.__version__)
"""


def make_text(megabytes: float) -> list[str]:
    """Sentences, together so many megabytes of UTF-8."""
    rng = np.random.default_rng(0)
    shipped = " ".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "data_gen/text/ur").glob("*.txt"))).split()
    forms = [word for word, _ in Counter(shipped).most_common()]
    begins, ends = [word[: len(word) // 2 + 1] for word in forms], [word[len(word) // 2 :] for word in forms]
    made = (begins[a] + ends[b] for a, b in rng.integers(0, len(forms), (4 * WORDS, 2)).tolist())
    lexicon = list(dict.fromkeys([*forms, *made]))[:WORDS]
    odds = np.cumsum(1 / np.arange(1.0, 1 + len(lexicon)))
    sentences, size = [], 0
    while size < megabytes * 1e6:
        drawn = np.searchsorted(odds, rng.random(int(rng.integers(5, 25))) * odds[-1])
        sentences.append(" ".join(lexicon[i] for i in drawn) + "۔")
        size += len(sentences[-1].encode()) + 1
    return sentences


def make_records(sentences: list[str]) -> list[Record]:
    """Documents of 20 sentences on average, and conversations of two answers of 4, by turns."""
    rng, records, at = np.random.default_rng(1), list[Record](), 0

    def take(mean: float) -> str:
        nonlocal at
        at += (count := 1 + int(rng.geometric(1 / mean)))
        return " ".join(sentences[at - count : at])

    while at < len(sentences) - 400:
        share: dict[str, Any] = {"source": "benchmark", "task": "t", "language": "ur", "meta": {}}
        if len(records) % 3 == 0:
            records.append(Record(id=record_id(f"d{at}"), text=take(20), **share))
            continue
        messages = tuple(
            {"role": role, "content": take(mean)} for _ in range(2) for role, mean in (("user", 1.5), ("assistant", 4))
        )
        records.append(Record(id=record_id(f"c{at}"), messages=messages, **share))
    return records


def make_tokenizer(directory: Path, sentences: list[str]) -> None:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )  # fmt: skip
    tokenizer.train_from_iterator(sentences[:100_000], trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(
        str(directory / "tokenizer_config.json"), {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[2]}
    )
    (directory / "chat_template.jinja").write_text(read_template("turns"), encoding="utf-8")


def best(measure: Callable[[], Any]) -> float:
    """Seconds of the fastest of the repeats."""
    seconds = []
    for _ in range(REPEATS.value):
        begin = time.perf_counter()
        measure()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def with_tensorflow(shards: list[str]) -> tuple[int, float, str] | None:
    """(records, seconds, version) of iterating a TFRecordDataset, None without TensorFlow."""
    python = TENSORFLOW.value or (sys.executable if importlib.util.find_spec("tensorflow") else None)
    if python is None:
        return None
    command = [python, "-c", READ_WITH_TENSORFLOW, str(REPEATS.value), *shards]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    count, seconds, version = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout.split()
    return int(count), float(seconds), version


def from_shards_to_batches(data: Path, tokenizer_directory: Path, place: Path, rows: list[tuple[str, str]]) -> None:
    """From shards to batches: first with an empty cache, then with a full one."""
    tokenizer = load_tokenizer(str(tokenizer_directory))

    def all_batches(cache: str) -> int:
        config = DataConfig(path=(str(data),), sequence_length=ROW, cache_dir=cache, workers=2)
        batches = Batches(fit_rows(open_sources(config, tokenizer, "train"), config), ROW, BATCH, seed=0)
        return sum(int((batches.batch_at(step)["segment_ids"] > 0).sum()) for step in range(batches.steps))

    caches = iter(str(place / f"cache{i}") for i in range(REPEATS.value))
    tokens = all_batches(str(place / "cache"))
    fresh = best(lambda: all_batches(next(caches)))
    cached = best(lambda: all_batches(str(place / "cache")))
    rows.append(("tokens", f"{tokens:,}"))
    rows.append(("read, check, template, tokenise, pack (2 processes)", f"{tokens / fresh:,.0f} tokens/s"))
    rows.append(
        ("the same from the cache, its checksums included", f"{tokens / cached:,.0f} tokens/s, {fresh / cached:.0f} times as fast")
    )


def reading(data: Path, rows: list[tuple[str, str]]) -> None:
    shards = [str(data / shard["path"]) for shard in read_manifest(str(data))["shards"]]
    count = sum(1 for _ in read_records(str(data), "train"))
    raw = best(lambda: sum(len(payload) for shard in shards for payload in read_shard(shard)))
    parsed = best(lambda: sum(1 for _ in read_records(str(data), "train")))
    rows.append(("records", f"{count:,}, {sum(map(os.path.getsize, shards)) / count:,.0f} bytes each"))
    rows.append(("reading record by record, checksums included", f"{count / raw:,.0f} records/s"))
    rows.append(("the same, parsed", f"{count / parsed:,.0f} records/s"))
    other = with_tensorflow(shards)
    if other is None:
        rows.append(("iterating tf.data.TFRecordDataset", "not measured: no TensorFlow (--tensorflow=PYTHON)"))
    else:
        assert other[0] == count
        rows.append((f"iterating tf.data.TFRecordDataset (TensorFlow {other[2]})", f"{count / other[1]:,.0f} records/s"))


def seeking(rows: list[tuple[str, str]], n: int = 1_000_000) -> None:
    """Of a million examples: an epoch's plan, and the batches of an early and a late step from a new object each."""
    lengths = np.clip(np.random.default_rng(0).lognormal(5, 1, n).astype(np.int64), 8, ROW)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    source = Source(
        name="s", split="train", hash="", tokens=np.zeros(offsets[-1], np.int32), flags=np.full(offsets[-1], 3, np.uint8),
        offsets=offsets, text_bytes=np.ones(n, np.int64), codes=np.zeros(n, np.int32), documents=np.zeros(n, bool),
        ids=np.zeros(n, "S1"), groups=[{"source": "s", "task": "t", "language": "ur"}],
    )  # fmt: skip
    examples: Examples = fit_rows([source], DataConfig(sequence_length=ROW))
    plan = plan_rows(lengths, ROW, seed=0)
    rows.append(("plan of an epoch of 1,000,000 examples", f"{best(lambda: plan_rows(lengths, ROW, seed=0)):.2f} s"))
    rows.append(("share of its rows that is filled", f"{lengths.sum() / len(plan) / ROW:.2%}"))
    for step in (1, 150_000):
        seconds = best(lambda step=step: Batches(examples, ROW, 64, max_steps=200_000, seed=0).batch_at(step))  # type: ignore[misc]
        rows.append((f"`batch_at({step:,})` of 200,000 steps of 64 rows, from a new object", f"{seconds:.2f} s"))


def main(argv: list[str]) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    rows: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        sentences = make_text(MEGABYTES.value)
        make_tokenizer(place / "tokenizer", sentences)
        write_shards(str(place / "data"), {"train": make_records(sentences)}, config={}, shard_records=2000)
        reading(place / "data", rows)
        from_shards_to_batches(place / "data", place / "tokenizer", place, rows)
    seeking(rows)
    print("| what | measured |\n|---|---|")
    for what, measured in rows:
        print(f"| {what} | {measured} |")


if __name__ == "__main__":
    app.run(main)
