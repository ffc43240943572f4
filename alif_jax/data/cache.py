"""Records → token ids on disk, once a source: a memory-mapped cache of whole records, made by worker processes.

What is cached depends on the text, the tokenizer and the template only (`cache_key`). Nothing is cut or dropped here, so another
sequence length, another weight or another truncation rule tokenises nothing again; that is fit.py's and mixture.py's work.

    CACHE_DIR/KEY/   tokens.npy flags.npy [T]   offsets.npy [n + 1]   text_bytes.npy codes.npy documents.npy ids.npy [n]   meta.json

A build goes to a directory of its own and is renamed at its end. Of several processes one builds, by a lock on CACHE_DIR/KEY.lock,
and the others wait. Every file is checked against its size and CRC-32C when it is opened; a cache with one that differs is built
again. Deleting CACHE_DIR loses nothing but time.
"""

import fcntl
import gc
import glob
import hashlib
import json
import os
import shutil
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from alif_jax import UsageError
from alif_jax.data.template import DataConfig, encode_batch
from alif_jax.data.tfrecord import parse_record, read_counted, read_manifest, shards_of
from alif_jax.data.words import Words
from alif_jax.files import cache_home, join, open_file
from alif_jax.tokenizer import Tokenizer

FORMAT = 1  # raised when the files change, or what template.py makes of the same text
TASK_BYTES = 1 << 20  # of records in one task: about 0.3 s of work, so that workers end together
SMALL_BYTES = 8 << 20  # below, starting worker processes costs about what they save
PATIENCE = 1.0  # seconds that a process waits for another one before it says so
META = "meta.json"
ARRAYS = ("tokens", "flags", "offsets", "text_bytes", "codes", "documents", "ids")


@dataclass(frozen=True)
class Source:
    """The whole records of one split of one data directory. Record i is `tokens[offsets[i]:offsets[i + 1]]`.

    flags[t]: FLAG_TRAINED, FLAG_RESPONSE of template.py. text_bytes[i]: UTF-8 bytes of its trained text. groups[codes[i]]: its
    {"source", "task", "language"}. hash: of all that is in it.
    """

    name: str  # the data directory
    split: str
    hash: str
    tokens: np.ndarray  # int32 [T]
    flags: np.ndarray  # uint8 [T]
    offsets: np.ndarray  # int64 [n + 1]
    text_bytes: np.ndarray  # int64 [n]
    codes: np.ndarray  # int32 [n]
    documents: np.ndarray  # bool [n]: a document, not a conversation
    ids: np.ndarray  # bytes [n], UTF-8
    groups: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.codes)


class Part(NamedTuple):
    """Some consecutive records, encoded: what a worker process hands back."""

    tokens: np.ndarray
    flags: np.ndarray
    lengths: np.ndarray
    text_bytes: np.ndarray
    documents: np.ndarray
    ids: list[bytes]
    groups: list[tuple[str, str, str]]


class Task(NamedTuple):
    """Some consecutive payloads of a shard, the first of which is its record number `first`."""

    path: str
    first: int
    payloads: list[bytes]


def open_sources(config: DataConfig, tokenizer: Tokenizer, split: str) -> tuple[Source, ...]:
    """The sources of `config.path` (of the held-out split: of `eval_path`, where it is set), in that order, from the cache.

    What is not there yet is tokenised first.

    A directory without this split gives a source of no records. Raises UsageError for damaged shards, for records that cannot be
    rendered, and for a cache directory that cannot be written.
    """
    directories = config.eval_path if config.eval_path and split == "heldout" else config.path
    return tuple(_open_source(directory, config, tokenizer, split) for directory in directories)


def cache_hash(sources: Sequence[Source]) -> str:
    """A hash of everything in the sources, equal on hosts that train on the same tokens."""
    return hashlib.sha256("".join(source.hash for source in sources).encode()).hexdigest()


def cache_directory(config: DataConfig) -> str:
    return os.path.expanduser(config.cache_dir) or cache_home()


def cache_key(shards: Sequence[dict[str, Any]], tokenizer: Tokenizer, config: DataConfig) -> str:
    """SHA-256 over all that decides the tokens and their flags: text, tokenizer, template, and what is trained of it."""
    with open_file(join(tokenizer.directory, "tokenizer.json")) as file:
        vocabulary = hashlib.sha256(file.read()).hexdigest()
    said = {
        "format": FORMAT,
        "shards": [shard["sha256"] for shard in shards],
        "tokenizer": vocabulary,
        "special_tokens": [tokenizer.bos_token, tokenizer.eos_token, tokenizer.turn_end_token],
        "template": tokenizer.template,
        "marked_templates": tokenizer.marked_templates() if tokenizer.template else (),  # by which answers are found in it
        "loss_on": config.loss_on,
        "document_template": config.document_template,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _open_source(directory: str, config: DataConfig, tokenizer: Tokenizer, split: str) -> Source:
    shards = shards_of(read_manifest(directory), split)
    if not all("sha256" in shard and "bytes" in shard for shard in shards):
        raise UsageError(f"{directory}/manifest.json: shards without bytes and sha256; make the data again")
    path = os.path.join(cache_directory(config), cache_key(shards, tokenizer, config))
    if _damage(path) is None:  # no lock, so that a directory which is not ours to write to will do
        return _load(path, directory, split)
    with _locked(path, directory):
        damage = _damage(path)
        if damage is None:  # another process made it meanwhile
            return _load(path, directory, split)
        started = time.perf_counter()
        _clear(path, directory, damage)
        _make(path, directory, _encoded(directory, shards, tokenizer, config))
        source = _load(path, directory, split)
    _say(
        f"tokenised      {directory} ({split}): {len(source):,} records, {len(source.tokens):,} tokens "
        f"in {time.perf_counter() - started:.1f} s"
    )
    return source


def _say(text: str) -> None:
    """On stderr: stdout belongs to the results of the program that runs."""
    print(text, file=sys.stderr, flush=True)


# --- files


@contextmanager
def _writing(path: str, directory: str) -> Iterator[None]:
    """Blames on the cache what fails in here. Shards are read outside: their errors are their own."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{path}: cannot make the cache of {directory} ({error}); mend that, or set data.cache_dir") from None


@contextmanager
def _locked(path: str, directory: str) -> Iterator[None]:
    """One process at a time; the others wait. The system frees the lock of a process that ends, however it ends."""
    with _writing(path, directory):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        file = open(f"{path}.lock", "w")
    notice = threading.Timer(PATIENCE, _say, [f"{path}.lock: waiting for the process that tokenises {directory}"])
    notice.daemon = True
    with file:
        notice.start()
        try:
            with _writing(path, directory):
                fcntl.flock(file, fcntl.LOCK_EX)
        finally:
            notice.cancel()
        yield


def _clear(path: str, directory: str, damage: str) -> None:
    """Removes a damaged cache and what killed processes left of their builds. To be called with the lock held."""
    if os.path.lexists(path):
        _say(f"{path}: {damage}; this cache of {directory} is made again")
        with _writing(path, directory):
            os.rename(path, _beside(path))  # at once, whether or not all of it can be deleted
    for leftover in glob.glob(f"{glob.escape(path)}.????????"):
        shutil.rmtree(leftover, ignore_errors=True)


def _beside(path: str) -> str:
    return f"{path}.{uuid.uuid4().hex[:8]}"


def _make(path: str, directory: str, parts: Iterator[Part]) -> None:
    """Writes the parts beside `path` and renames."""
    beside = _beside(path)
    try:
        _write(beside, parts, partial(_writing, path, directory))
        with _writing(path, directory):
            _place(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _place(beside: str, path: str) -> None:
    try:
        os.rename(beside, path)
    except OSError:
        if _damage(path) is not None:
            raise  # else a host that does not see our lock was first, with the same content


def _write(path: str, parts: Iterator[Part], writing: Callable[[], AbstractContextManager[None]]) -> None:
    """The arrays and meta.json. Tokens and flags go to disk part by part; in memory is only what there is once a record."""
    lengths, text_bytes, documents = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, bool)]
    ids: list[bytes] = []
    codes: list[int] = []
    groups: dict[tuple[str, str, str], int] = {}
    with writing():
        os.mkdir(path)
        _set_length(path, 0)
    for part in parts:
        with writing():
            _append(path, "tokens", part.tokens)
            _append(path, "flags", part.flags)
        lengths.append(part.lengths)
        text_bytes.append(part.text_bytes)
        documents.append(part.documents)
        ids += part.ids
        codes += [groups.setdefault(group, len(groups)) for group in part.groups]
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    rest: dict[str, np.ndarray] = {
        "offsets": offsets, "text_bytes": np.concatenate(text_bytes), "codes": np.asarray(codes, np.int32),
        "documents": np.concatenate(documents), "ids": np.asarray(ids, f"S{max(map(len, ids), default=1)}"),
    }  # fmt: skip
    with writing():
        _set_length(path, int(offsets[-1]))
        for name, array in rest.items():
            np.save(os.path.join(path, f"{name}.npy"), array)
        _write_meta(path, [dict(zip(("source", "task", "language"), group, strict=True)) for group in groups])


def _set_length(path: str, length: int) -> None:
    """The headers of tokens and flags; NumPy leaves room in them, so that a longer number overwrites a shorter one."""
    for name, dtype in (("tokens", np.int32), ("flags", np.uint8)):
        form = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (length,)}
        with open(os.path.join(path, f"{name}.npy"), "r+b" if length else "wb") as file:
            np.lib.format.write_array_header_1_0(file, form)


def _append(path: str, name: str, array: np.ndarray) -> None:
    with open(os.path.join(path, f"{name}.npy"), "ab") as file:
        file.write(array.data)


def _write_meta(path: str, groups: list[dict[str, str]]) -> None:
    meta = {"groups": groups, "files": {name: _size_and_crc(os.path.join(path, f"{name}.npy")) for name in ARRAYS}}
    with open(os.path.join(path, META), "w", encoding="utf-8") as file:
        json.dump(meta | {"sha256": _hash(meta)}, file, ensure_ascii=False, indent=1)


def _hash(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _size_and_crc(path: str) -> list[int]:
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(16 << 20):
            crc = google_crc32c.extend(crc, chunk)
        return [file.tell(), crc]


def _damage(path: str) -> str | None:
    """What is wrong with a cache, None for a sound one."""
    try:
        with open(os.path.join(path, META), encoding="utf-8") as file:
            meta = json.load(file)
        if not isinstance(meta, dict) or meta.pop("sha256", None) != _hash(meta):
            return f"{META} is damaged"
        for name, expected in meta["files"].items():
            if _size_and_crc(os.path.join(path, f"{name}.npy")) != expected:
                return f"{name}.npy is damaged"
    except FileNotFoundError as error:
        return f"{os.path.basename(error.filename)} is missing"
    except OSError as error:
        return str(error)
    except ValueError as error:
        return f"{META} is damaged ({error})"
    return None


def _load(path: str, directory: str, split: str) -> Source:
    with open(os.path.join(path, META), encoding="utf-8") as file:
        meta = json.load(file)
    # Plain arrays over the mapped memory: slicing a np.memmap takes 1.5 µs instead of 0.15.
    arrays = {name: np.asarray(np.load(os.path.join(path, f"{name}.npy"), mmap_mode="r")) for name in ARRAYS}
    return Source(name=directory, split=split, hash=meta["sha256"], groups=meta["groups"], **arrays)


# --- encoding


def _encoded(directory: str, shards: Sequence[dict[str, Any]], tokenizer: Tokenizer, config: DataConfig) -> Iterator[Part]:
    """The encoded records in order, by `config.workers` processes or, where there is little to do, by this one.

    This process reads the shards and checks them (0.1 µs a token), so that any address that fsspec knows will do.
    """
    tasks = _tasks(directory, shards)
    small = sum(shard["bytes"] for shard in shards) < SMALL_BYTES
    workers = config.workers or (1 if small else len(os.sched_getaffinity(0)))
    if workers == 1:
        words = Words(tokenizer.core)
        for task in tasks:
            yield encode_task(task, tokenizer, config, words)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(tokenizer, config)) as pool:
        waiting: deque[Future[Part]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(_encode_in_worker, task))
                if len(waiting) > 3 * workers:  # enough to keep all busy, and a bound on memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UsageError(
                f"{directory}: a process that tokenises died; if memory was short, set data.workers lower than {workers}"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _tasks(directory: str, shards: Sequence[dict[str, Any]]) -> Iterator[Task]:
    for shard in shards:
        path = join(directory, shard["path"])
        task, size = Task(path, 0, []), 0
        for index, payload in enumerate(read_counted(path, shard["records"])):
            if size >= TASK_BYTES:
                yield task
                task, size = Task(path, index, []), 0
            task.payloads.append(payload)
            size += len(payload)
        if task.payloads:
            yield task


def encode_task(task: Task, tokenizer: Tokenizer, config: DataConfig, words: Words) -> Part:
    records = [parse_record(payload, f"{task.path}, record {task.first + i}") for i, payload in enumerate(task.payloads)]
    encoded = encode_batch(records, tokenizer, config, words)
    return Part(
        tokens=np.concatenate([one.ids for one in encoded]),
        flags=np.concatenate([one.flags for one in encoded]),
        lengths=np.asarray([len(one.ids) for one in encoded], np.int64),
        text_bytes=np.asarray([one.text_bytes for one in encoded], np.int64),
        documents=np.asarray([record.messages is None for record in records]),
        ids=[record.id.encode() for record in records],
        groups=[(record.source, record.task, record.language) for record in records],
    )


_worker: dict[str, Any] = {}  # what a worker process needs for each of its tasks


def _start_worker(tokenizer: Tokenizer, config: DataConfig) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a process
    gc.freeze()
    gc.set_threshold(1_000_000)  # the many small lists of tokens start the collector all the time otherwise
    _worker.update(tokenizer=tokenizer, config=config, words=Words(tokenizer.core))


def _encode_in_worker(task: Task) -> Part:
    return encode_task(task, **_worker)
