"""The cache of tokenised sources: equal to a direct encode, made once, made again when it is damaged or when its key changes."""

import dataclasses
import fcntl
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.chat_template import read_template
from alif_jax.data import cache
from alif_jax.data.cache import ARRAYS, cache_hash, open_sources
from alif_jax.data.template import DataConfig, encode_batch
from alif_jax.data.tfrecord import read_manifest, read_records, shards_of
from alif_jax.tokenizer import Tokenizer, load_tokenizer
from tests import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.make_tokenizer(tmp_path_factory.mktemp("base"), chat_template=read_template("turns"))


@pytest.fixture(scope="module")
def tokenizer(base: str) -> Tokenizer:
    return load_tokenizer(base)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """40 training records in three shards, documents and conversations in turn, of four groups; 10 held out."""
    records = [one for pair in zip(tiny.documents(25), tiny.conversations(25), strict=True) for one in pair]
    return tiny.make_shards(tmp_path_factory.mktemp("data"), records, heldout=10)


def config_of(place: Path, *paths: str, **changes: Any) -> DataConfig:
    return DataConfig(path=paths, cache_dir=str(place / "cache"), **changes)


def entries(place: Path) -> list[str]:
    """All that is in the cache directory but the locks."""
    return sorted(name for name in os.listdir(place / "cache") if not name.endswith(".lock"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records each call of encode_batch was given."""
    seen: list[int] = []

    def counted(records: Sequence[Any], *args: Any) -> Any:
        seen.append(len(records))
        return encode_batch(records, *args)

    monkeypatch.setattr(cache, "encode_batch", counted)
    return seen


# --- contents


@pytest.mark.parametrize("loss_on", ["responses", "all"])
def test_arrays_are_those_of_a_direct_encode(tmp_path: Path, data: str, tokenizer: Tokenizer, loss_on: str) -> None:
    config = config_of(tmp_path, data, loss_on=loss_on)
    [source] = open_sources(config, tokenizer, "train")
    records = list(read_records(data, "train"))
    direct = encode_batch(records, tokenizer, config)
    assert len(source) == len(records) == 40 and source.name == data and source.split == "train"
    assert source.tokens.tolist() == [t for one in direct for t in np.asarray(one.ids).tolist()]
    assert source.flags.tolist() == [f for one in direct for f in np.asarray(one.flags).tolist()]
    assert source.offsets.tolist() == np.cumsum([0, *(len(one.ids) for one in direct)]).tolist()
    assert source.text_bytes.tolist() == [one.text_bytes for one in direct]
    assert [i.decode() for i in source.ids] == [record.id for record in records]
    assert source.documents.tolist() == [record.messages is None for record in records]
    groups = [{"source": record.source, "task": record.task, "language": record.language} for record in records]
    assert [source.groups[code] for code in source.codes] == groups and len(source.groups) == 4
    dtypes = {name: getattr(source, name).dtype.kind + str(getattr(source, name).itemsize) for name in ARRAYS if name != "ids"}
    assert dtypes == {"tokens": "i4", "flags": "u1", "offsets": "i8", "text_bytes": "i8", "codes": "i4", "documents": "b1"}


def test_arrays_are_mapped_and_read_only(tmp_path: Path, data: str, tokenizer: Tokenizer) -> None:
    [source] = open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert isinstance(source.tokens.base, np.memmap) and not source.tokens.flags.writeable


def test_heldout_and_a_split_that_is_not_there(tmp_path: Path, data: str, tokenizer: Tokenizer) -> None:
    without = tiny.make_shards(tmp_path / "without", tiny.documents(3), heldout=0)
    heldout, none = open_sources(config_of(tmp_path, data, without), tokenizer, "heldout")
    assert [i.decode() for i in heldout.ids] == [record.id for record in read_records(data, "heldout")]
    assert (len(none), len(none.tokens), none.offsets.tolist(), none.groups) == (0, 0, [0], [])


def files_of(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted((place / "cache").glob("*/*"))}


def test_two_workers_write_what_one_process_writes(
    tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "TASK_BYTES", 900)  # many tasks, several of one shard
    one, two = tmp_path / "one", tmp_path / "two"
    first = open_sources(config_of(one, data, workers=1), tokenizer, "train")
    second = open_sources(config_of(two, data, workers=2), tokenizer, "train")
    assert files_of(one) == files_of(two) and len(files_of(one)) == 8
    assert cache_hash(first) == cache_hash(second)
    assert multiprocessing.active_children() == []


def test_the_size_of_tasks_changes_nothing(
    tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sources(config_of(tmp_path / "a", data), tokenizer, "train")
    for size in (1, 3000):
        monkeypatch.setattr(cache, "TASK_BYTES", size)
        open_sources(config_of(tmp_path / str(size), data), tokenizer, "train")
        assert files_of(tmp_path / "a") == files_of(tmp_path / str(size))


def test_a_task_says_where_its_records_stand(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "TASK_BYTES", 900)
    shards = shards_of(read_manifest(data), "train")
    tasks = list(cache._tasks(data, shards))
    for shard in shards:
        mine = [task for task in tasks if task.path == f"{data}/{shard['path']}"]
        assert [task.first for task in mine] == [0, *np.cumsum([len(task.payloads) for task in mine])[:-1]] and len(mine) > 2


def test_errors_of_records_come_out_of_workers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    mark = dataclasses.replace(tiny.conversations(20)[7], messages=({"role": "user", "content": "سوال\ufdd0"},), id="0123abcd")
    data = tiny.make_shards(tmp_path / "data", [*tiny.conversations(20), mark], heldout=0)
    for workers in (1, 2):
        with pytest.raises(UsageError, match=r"record 0123abcd .*: the text has U\+FDD0"):
            open_sources(config_of(tmp_path, data, workers=workers), tokenizer, "train")
    assert entries(tmp_path) == []  # nothing half-made is left


def test_addresses_that_are_not_local(tmp_path: Path, data: str, tokenizer: Tokenizer) -> None:
    away = tiny.make_shards("memory://test_cache/data", [*tiny.documents(8), *tiny.conversations(8)], heldout=0)
    local = tiny.make_shards(tmp_path / "local", [*tiny.documents(8), *tiny.conversations(8)], heldout=0)
    for workers in (1, 2):
        [there] = open_sources(config_of(tmp_path / f"{workers}away", away, workers=workers), tokenizer, "train")
        [here] = open_sources(config_of(tmp_path / f"{workers}", local, workers=workers), tokenizer, "train")
        assert there.name == away and there.hash == here.hash and np.array_equal(there.tokens, here.tokens)


# --- once


def test_tokenised_once(tmp_path: Path, data: str, tokenizer: Tokenizer, calls: list[int]) -> None:
    first = open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert sum(calls) == 40 and len(entries(tmp_path)) == 1
    again = open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert sum(calls) == 40 and cache_hash(first) == cache_hash(again)


UNCHANGED = (
    {"sequence_length": 77}, {"long_documents": "cut"}, {"long_conversations": "truncate_response"}, {"weights": (0.3,)},
    {"weights": (0.3,), "max_epochs": (2.0,)}, {"substitute": (0,)}, {"packing": False},
)  # fmt: skip


@pytest.mark.parametrize("change", UNCHANGED, ids=lambda change: next(iter(change)))
def test_what_tokenises_nothing_again(
    tmp_path: Path, data: str, tokenizer: Tokenizer, calls: list[int], change: dict[str, Any]
) -> None:
    open_sources(config_of(tmp_path, data), tokenizer, "train")
    before = list(calls)
    open_sources(config_of(tmp_path, data, **change), tokenizer, "train")
    assert calls == before and len(entries(tmp_path)) == 1


@pytest.mark.parametrize("change", [{"loss_on": "all"}, {"document_template": "{title}\n{text}"}], ids=str)
def test_what_does(tmp_path: Path, data: str, tokenizer: Tokenizer, calls: list[int], change: dict[str, Any]) -> None:
    first = open_sources(config_of(tmp_path, data), tokenizer, "train")
    second = open_sources(config_of(tmp_path, data, **change), tokenizer, "train")
    assert sum(calls) == 80 and len(entries(tmp_path)) == 2 and cache_hash(first) != cache_hash(second)
    open_sources(config_of(tmp_path, data), tokenizer, "train")  # and the first is still there
    assert sum(calls) == 80


def test_tokenizer_template_split_and_text_are_in_the_key(
    tmp_path: Path, base: str, data: str, tokenizer: Tokenizer, calls: list[int]
) -> None:
    config = config_of(tmp_path, data)

    def made(tokenizer: Tokenizer, config: DataConfig = config, split: str = "train") -> bool:
        before = len(calls)
        open_sources(config, tokenizer, split)
        return len(calls) > before

    assert made(tokenizer) and not made(load_tokenizer(base))
    assert made(load_tokenizer(base, "alpaca")) and not made(load_tokenizer(base, "turns"))
    assert made(dataclasses.replace(tokenizer, bos_token=None))
    tokenizer.marked_templates()  # what is found of the first is kept by the second, so that only the template differs
    assert made(dataclasses.replace(tokenizer, template=f"{tokenizer.template}{{# #}}"))
    other = shutil.copytree(base, tmp_path / "other")
    assert not made(load_tokenizer(str(other)))  # where it lies does not matter
    vocabulary = json.loads((other / "tokenizer.json").read_text())
    vocabulary["added_tokens"][3]["special"] = False
    (other / "tokenizer.json").write_text(json.dumps(vocabulary))
    assert made(load_tokenizer(str(other)))
    assert made(tokenizer, split="heldout")
    copied = shutil.copytree(data, tmp_path / "copied")
    assert not made(tokenizer, config_of(tmp_path, str(copied)))
    one_word_less = [dataclasses.replace(record, text=(record.text or "")[:-1]) for record in tiny.documents(4)]
    first, second = (tiny.make_shards(tmp_path / name, records, heldout=0)
                     for name, records in (("x", tiny.documents(4)), ("y", one_word_less)))  # fmt: skip
    assert made(tokenizer, config_of(tmp_path, first)) and made(tokenizer, config_of(tmp_path, second))


def test_the_default_place(tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    open_sources(DataConfig(path=(data,)), tokenizer, "train")
    assert len(list((tmp_path / "xdg" / "alif_jax").glob("*/"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_sources(DataConfig(path=(data,)), tokenizer, "train")
    assert len(list((tmp_path / "home" / ".cache" / "alif_jax").glob("*/"))) == 1


def test_a_cache_directory_that_cannot_be_made(tmp_path: Path, data: str, tokenizer: Tokenizer) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UsageError, match=f"{tmp_path}/cache/.*: cannot make the cache of {data} .*data.cache_dir"):
        open_sources(config_of(tmp_path, data), tokenizer, "train")


# --- damage


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "meta.json"])
@pytest.mark.parametrize("damage", ["flipped", "header", "short", "empty", "missing"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, data: str, tokenizer: Tokenizer, calls: list[int], name: str, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cache_hash(open_sources(config_of(tmp_path, data), tokenizer, "train"))
    path = tmp_path / "cache" / entries(tmp_path)[0] / name
    sound = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage in ("flipped", "header"):
        flip(path, len(sound) // 2 if damage == "flipped" else 20)
    else:
        path.write_bytes(sound[: -1 if damage == "short" else 0])
    capsys.readouterr()
    again = open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert sum(calls) == 80 and cache_hash(again) == first and path.read_bytes() == sound
    lines = [line for line in capsys.readouterr().err.splitlines() if "made again" in line]
    assert len(lines) == 1 and str(path.parent) in lines[0] and name in lines[0]
    open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert sum(calls) == 80


def test_a_damaged_cache_that_cannot_be_deleted_is_out_of_the_way(
    tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cache_hash(open_sources(config_of(tmp_path, data), tokenizer, "train"))
    flip(tmp_path / "cache" / entries(tmp_path)[0] / "tokens.npy", 200)
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    [again] = open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert cache_hash([again]) == first == cache_hash(open_sources(config_of(tmp_path, data), tokenizer, "train"))
    assert len(entries(tmp_path)) == 2  # the damaged one, aside


@pytest.mark.parametrize("fails", ["rename", "flock"])
def test_a_damaged_cache_that_cannot_be_moved_is_refused(
    tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    open_sources(config_of(tmp_path, data), tokenizer, "train")
    flip(tmp_path / "cache" / entries(tmp_path)[0] / "tokens.npy", 200)

    def refuse(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(*{"rename": (os, "rename"), "flock": (fcntl, "flock")}[fails], refuse)
    with pytest.raises(UsageError, match="cannot make the cache of .*Permission denied.*data.cache_dir"):
        open_sources(config_of(tmp_path, data), tokenizer, "train")


@pytest.mark.parametrize("sound", [True, False])
def test_a_cache_that_appears_meanwhile_is_taken_only_if_it_is_sound(
    tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    """While this process writes, one of another host that does not see the lock finishes."""
    [source] = open_sources(config_of(tmp_path / "other", data), tokenizer, "train")
    [key], write = entries(tmp_path / "other"), cache._write

    def slow(path: str, *args: Any) -> None:
        write(path, *args)
        shutil.copytree(tmp_path / "other" / "cache" / key, tmp_path / "cache" / key)
        if not sound:
            flip(tmp_path / "cache" / key / "ids.npy", 200)

    monkeypatch.setattr(cache, "_write", slow)
    if sound:
        assert cache_hash(open_sources(config_of(tmp_path, data), tokenizer, "train")) == cache_hash([source])
    else:
        with pytest.raises(UsageError, match=f"{key}: cannot make the cache"):
            open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert entries(tmp_path) == [key]


def test_errors_of_shards_are_not_blamed_on_the_cache(
    tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, count: int) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(cache, "read_counted", refuse)
    with pytest.raises(PermissionError, match="train-00000-of-00003.tfrecord"):
        open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert entries(tmp_path) == []


# --- several processes


def test_of_several_processes_one_tokenises(
    tmp_path: Path, data: str, tokenizer: Tokenizer, calls: list[int], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Locks are held by an open file, so threads stand for processes. A damaged cache is made again by one of them, too."""
    monkeypatch.setattr(cache, "PATIENCE", 0.05)
    counted = cache.encode_batch

    def slow(*args: Any) -> Any:
        time.sleep(0.1)
        return counted(*args)

    monkeypatch.setattr(cache, "encode_batch", slow)
    for times in (1, 2):
        with ThreadPoolExecutor(3) as threads:
            made = [threads.submit(open_sources, config_of(tmp_path, data), tokenizer, "train") for _ in range(3)]
            assert len({cache_hash(one.result()) for one in made}) == 1
        said = capsys.readouterr().err
        assert sum(calls) == 40 * times and len(entries(tmp_path)) == 1
        assert said.count(f".lock: waiting for the process that tokenises {data}") == 2 and said.count("tokenised ") == 1
        flip(tmp_path / "cache" / entries(tmp_path)[0] / "tokens.npy", 200)


def test_what_a_killed_process_leaves_is_removed(
    tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lock, at once; its half-made directory, by the next one that makes this cache. Those of other caches stay."""
    monkeypatch.setattr(cache, "PATIENCE", 0.05)
    open_sources(config_of(tmp_path / "other", data), tokenizer, "train")
    [key] = entries(tmp_path / "other")
    for name in (f"{key}.0123abcd", f"{'0' * 64}.0123abcd"):
        (tmp_path / "cache" / name).mkdir(parents=True)
    lock = str(tmp_path / "cache" / f"{key}.lock")
    code = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-S", "-c", code, lock], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with ThreadPoolExecutor(1) as thread:
            made = thread.submit(open_sources, config_of(tmp_path, data), tokenizer, "train")
            time.sleep(0.3)
            assert not made.done() and "waiting" in capsys.readouterr().err
            other.kill()
            assert len(made.result(timeout=30)[0]) == 40
    assert entries(tmp_path) == sorted([key, f"{'0' * 64}.0123abcd"])


def test_hashes_tell_sources_and_their_order_apart(tmp_path: Path, data: str, tokenizer: Tokenizer) -> None:
    other = tiny.make_shards(tmp_path / "other", tiny.documents(4, seed=3), heldout=0)
    both, turned = (open_sources(config_of(tmp_path, *paths), tokenizer, "train") for paths in ((data, other), (other, data)))
    assert len({cache_hash(sources) for sources in (both, turned, both[:1], both[1:], ())}) == 5


def test_a_manifest_without_hashes(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = tiny.make_shards(tmp_path / "data", tiny.documents(4), heldout=0)
    manifest = json.loads((Path(data) / "manifest.json").read_text())
    del manifest["shards"][0]["sha256"]
    (Path(data) / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="manifest.json: shards without bytes and sha256"):
        open_sources(config_of(tmp_path, data), tokenizer, "train")


def test_damaged_shards_are_refused_as_ever(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data = tiny.make_shards(tmp_path / "data", tiny.documents(20), heldout=0)
    flip(Path(data) / "train-00001-of-00002.tfrecord", 100)
    for workers in (1, 2):
        with pytest.raises(UsageError, match="train-00001-of-00002.tfrecord, record 0: the checksum is wrong"):
            open_sources(config_of(tmp_path, data, workers=workers), tokenizer, "train")
    assert entries(tmp_path) == []


def test_worker_processes_import_no_jax() -> None:
    code = "import sys, alif_jax.data.cache, alif_jax.data.pack; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0
