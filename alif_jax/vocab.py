"""Vocabulary extension of a model directory: tokens learnt on a text (bpe.py), rows for them, and what they are good for.

It trains nothing: the new rows start at the mean of the rows whose tokens they take the place of. `V` vocabulary, `D` model dim.
"""

import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import tokenizers

from alif_jax import UsageError, bpe, files
from alif_jax.bpe import Base, Extension
from alif_jax.data.tfrecord import read_records
from alif_jax.files import join
from alif_jax.hf import read_model_config, resolve_model
from alif_jax.model_config import ModelConfig
from alif_jax.safetensors import Checkpoint, Tensor, write_sharded

TABLES = ("model.embed_tokens.weight", "lm_head.weight")
COPIED = re.compile(
    r"(tokenizer_config|special_tokens_map|added_tokens|generation_config)\.json|chat_template\.(jinja|json)|(LICEN[CS]E|NOTICE).*"
)
CONTRADICTING = re.compile(r"vocab\.json|merges\.txt|.*\.model|.*\.tiktoken")  # the old vocabulary, for slow tokenizers
HELD_OUT = 10  # of so many documents one is not learnt from
BATCH = 256  # documents encoded at once


@dataclass
class Fertility:
    """Held-out text of one source: its words (between spaces) and UTF-8 bytes, its tokens before and after."""

    words: int = 0
    bytes: int = 0
    before: int = 0
    after: int = 0

    def add(self, other: "Fertility") -> None:
        self.words, self.bytes = self.words + other.words, self.bytes + other.bytes
        self.before, self.after = self.before + other.before, self.after + other.after

    def __str__(self) -> str:
        words, old, new = max(self.words, 1), max(self.before, 1), max(self.after, 1)
        ratios = f"{self.before / words:8.2f} → {self.after / words:<6.2f} {self.bytes / old:8.2f} → {self.bytes / new:<6.2f}"
        return f"{ratios} {self.words:>10,}"


def extend_vocab(
    model: str, text: Sequence[str], output: str, *, new_tokens: int = 8000, min_frequency: int = 2
) -> tuple[Extension, dict[str, Fertility]]:
    """Writes `model` with up to `new_tokens` more tokens to `output`, which must not exist yet.

    model: Hugging Face directory or hub id. text: files and data directories, see `read_texts`. A pair that occurs less than
    `min_frequency` times is not merged. Returns what was learnt, and the fertility on the held-out text by source.
    """
    for key, value in (("new_tokens", new_tokens), ("min_frequency", min_frequency)):
        if value < 1:
            raise UsageError(f"{key}={value}: a positive number")
    if files.exists(output):
        raise UsageError(f"{output} exists already; give another --output, or remove it")
    directory = resolve_model(model)
    config, base = read_model_config(directory), bpe.read_base(directory)
    with Checkpoint(directory) as checkpoint:
        check_tables(checkpoint, base, config)
        tell(f"counting the words of {', '.join(text)}")
        counts = bpe.count_words(base, (line for _, line, held_out in read_texts(text) if not held_out))
        if not counts:
            raise UsageError(f"{', '.join(text)}: no words to learn from; give text")
        tell(f"{counts.total():,} words, {len(counts):,} of them different; learning {new_tokens:,} tokens")
        extension = bpe.learn(base, counts, new_tokens=new_tokens, min_frequency=min_frequency)
        if not extension.tokens:
            raise UsageError(
                f"{', '.join(text)}: nothing to learn, no pair of tokens occurs {min_frequency} times; "
                "give more text, or a smaller --min_frequency"
            )
        spec = bpe.extended(base, extension)
        core = tokenizers.Tokenizer.from_str(spec)
        bpe.check(base, extension, core)
        fertility = measure(base, core, text)
        tell(f"writing {output}")
        write(output, spec, base, extension, checkpoint)
    return extension, fertility


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- text -------------------------------------------------------------------------------------------------------------


def read_texts(paths: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """(source, text, held out) of each document; a tenth of the documents, by a hash of the text, is held out.

    A .txt has a document a line, a .jsonl one in each line's "text"; their source is the file's name. Of a data directory the
    training split is read: texts and the contents of messages, with the records' own sources.

    "a.txt" with the lines "پانی", "" and "دن" → ("a.txt", "پانی", False), ("a.txt", "دن", False)
    """
    if not paths:
        raise UsageError("no text: give --text=FILES_OR_DATA_DIRECTORIES")
    for path in paths:
        if not files.exists(path):
            raise UsageError(f"{path}: no such file or directory")
        if path.endswith((".txt", ".jsonl")):
            documents = _lines(path)
        elif files.list_names(path):
            documents = _records(path)
        else:
            raise UsageError(f"{path}: text is read from .txt, .jsonl, or data directories")
        for source, text in documents:
            if text.strip():
                digest = blake2b(text.encode(), digest_size=8).digest()
                yield source, text, int.from_bytes(digest, "little") % HELD_OUT == HELD_OUT - 1


def _lines(path: str) -> Iterator[tuple[str, str]]:
    name, is_json, number = path.rsplit("/", 1)[-1], path.endswith(".jsonl"), 0
    try:
        with files.open_file(path, "r") as file:
            for line in file:
                number += 1
                if not is_json:
                    yield name, line.rstrip("\r\n")
                elif line.strip():
                    text = json.loads(line)["text"]
                    text.encode()  # JSON can write half a character, which no tokenizer takes
                    yield name, text
    except UnicodeError as error:
        raise UsageError(f"{path}: not UTF-8 near line {number + 1} ({error})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f'{path}, line {number}: expected a JSON object with a "text"') from None


def _records(directory: str) -> Iterator[tuple[str, str]]:
    for record in read_records(directory, "train"):
        for text in [record.text] if record.text is not None else [message["content"] for message in record.messages or []]:
            yield record.source, text


def measure(base: Base, core: tokenizers.Tokenizer, text: Sequence[str]) -> dict[str, Fertility]:
    """Fertility on the held-out documents by source. Raises UsageError where there are none, or one does not come back whole."""
    found: defaultdict[str, Fertility] = defaultdict(Fertility)
    batch: list[tuple[str, str]] = []
    for source, line, held_out in read_texts(text):
        batch += [(source, line)] if held_out else []
        if len(batch) == BATCH:
            _measure_batch(base, core, batch, found)
            batch = []
    _measure_batch(base, core, batch, found)
    if not any(one.words for one in found.values()):
        raise UsageError(f"{', '.join(text)}: too few documents to hold some out (about every {HELD_OUT}th); give more text")
    return dict(found)


def _measure_batch(
    base: Base, core: tokenizers.Tokenizer, batch: list[tuple[str, str]], found: defaultdict[str, Fertility]
) -> None:
    texts = [text for _, text in batch]
    old, new = ([one.ids for one in each.encode_batch_fast(texts, add_special_tokens=False)] for each in (base.core, core))
    old_texts, new_texts = (each.decode_batch(ids, skip_special_tokens=False) for each, ids in ((base.core, old), (core, new)))
    for at, (source, text) in enumerate(batch):
        if old_texts[at] != new_texts[at] != text:
            raise UsageError(
                f"{base.directory}: this kind of tokenizer cannot be extended here (the result does not give back "
                f"{text[:60]!r}); nothing was written"
            )
        found[source].add(Fertility(len(text.split()), len(text.encode()), len(old[at]), len(new[at])))


def report(directory: str, extension: Extension, fertility: Mapping[str, Fertility], *, new_tokens: int) -> str:
    """What was learnt and what it is good for, as text. directory: the one that was written."""
    core = bpe.read_base(directory).core
    learnt = f"{len(extension.tokens):,} new tokens"
    if len(extension.tokens) < new_tokens:
        learnt += f" of {new_tokens:,} asked for: the text has no more"
    total = Fertility()
    for one in fertility.values():
        total.add(one)
    width = max(map(len, ("held-out text", *fertility)))
    lines = [learnt, f"{'held-out text':{width}} {'tokens a word':>17} {'bytes a token':>17} {'words':>10}"]
    rows = {"total": total, **(dict(sorted(fertility.items())) if len(fertility) > 1 else {})}
    lines += [f"{name:{width}} {one}" for name, one in rows.items()]
    texts = (core.decode([id], skip_special_tokens=False) for id in extension.frequent)
    whole = [text.strip() for text in texts if "\ufffd" not in text]  # in a byte-level alphabet some are parts of letters
    lines.append(f"most frequent new tokens: {'  '.join(whole[:10])}")
    return "\n".join(lines)


# --- the model directory ----------------------------------------------------------------------------------------------


def check_tables(checkpoint: Checkpoint, base: Base, config: ModelConfig) -> None:
    """Raises UsageError unless embeddings (and an untied head) are there, with a row for each token."""
    for name in TABLES[: 1 if config.tie_word_embeddings else 2]:
        if name not in checkpoint.entries:
            raise UsageError(f"{checkpoint.directory}: no tensor {name}")
    for name in TABLES:
        if name in checkpoint.entries and checkpoint.entries[name].shape[0] < base.size:
            raise UsageError(
                f"{checkpoint.directory}: {name} has {checkpoint.entries[name].shape[0]} rows, but the tokenizer has ids up to "
                f"{base.size - 1}; use the tokenizer that belongs to this model"
            )


def write(output: str, spec: str, base: Base, extension: Extension, checkpoint: Checkpoint) -> None:
    """The whole directory, under a temporary name until it is complete."""
    with files.new_directory(output) as temporary:
        tensors = {name: _tensor(checkpoint, name, base.size, extension.parts) for name in checkpoint.entries}
        write_sharded(temporary, tensors)
        config = files.read_json(join(base.directory, "config.json"))
        if config["vocab_size"] > base.size:
            tell(f"{config['vocab_size'] - base.size:,} rows of the base have no token: new tokens take their place")
        config |= {"vocab_size": base.size + len(extension.tokens), "original_vocab_size": base.size}
        files.write_json(join(temporary, "config.json"), config)
        files.write_text(join(temporary, "tokenizer.json"), spec)
        for name in files.list_names(base.directory):
            if COPIED.fullmatch(name):
                files.copy_file(join(base.directory, name), join(temporary, name))
            elif CONTRADICTING.fullmatch(name):
                tell(f"{name} is left out: it holds the old vocabulary; tokenizer.json is what everything reads")


def _tensor(checkpoint: Checkpoint, name: str, rows: int, parts: Sequence[Sequence[int]]) -> Tensor:
    entry = checkpoint.entries[name]
    if name not in TABLES:
        return Tensor(entry.shape, entry.dtype, partial(checkpoint.read, name))
    shape = (rows + len(parts), *entry.shape[1:])

    def make(wanted: slice) -> np.ndarray:
        start, stop, _ = wanted.indices(shape[0])
        if stop <= rows:
            return checkpoint.read(name, wanted)
        old, new = checkpoint.read(name, slice(min(start, rows), rows)), parts[max(start - rows, 0) : stop - rows]
        return np.concatenate([old, means(checkpoint.read(name, slice(rows)), new)])

    return Tensor(shape, entry.dtype, make)


def means(table_VD: np.ndarray, parts: Sequence[Sequence[int]]) -> np.ndarray:
    """A row for each of `parts`: the mean of those rows of the table, in fp32, cast once.

    [[1, 2], [3, 4]] with parts [[0, 1, 1]] → [[7/3, 10/3]]
    """
    new: list[Any] = [np.mean(table_VD[list(part)].astype(np.float32), axis=0) for part in parts]
    return np.stack(new).astype(table_VD.dtype)
