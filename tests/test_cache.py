"""The cache of tokenised sources: equal to a direct encode, made once, made again when it is damaged or when its key changes."""

import dataclasses
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.chat_template import read_template
from alif_jax.data import cache
from alif_jax.data.cache import ARRAYS, cache_hash, open_sources
from alif_jax.data.template import DataConfig, encode_batch
from alif_jax.data.tfrecord import read_records
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
    return sorted(os.listdir(place / "cache"))


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
    return {str(path.relative_to(place)): path.read_bytes() for path in sorted((place / "cache").rglob("*.*"))}


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


def test_errors_of_records_come_out_of_workers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    question = dataclasses.replace(tiny.conversations(20)[7], messages=({"role": "user", "content": "سوال"},), id="0123abcd")
    data = tiny.make_shards(tmp_path / "data", [*tiny.conversations(20), question], heldout=0)
    for workers in (1, 2):
        with pytest.raises(UsageError, match="record 0123abcd .* has no token to train on"):
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
    assert len(os.listdir(tmp_path / "xdg" / "alif_jax")) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    open_sources(DataConfig(path=(data,)), tokenizer, "train")
    assert len(os.listdir(tmp_path / "home" / ".cache" / "alif_jax")) == 1


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


def test_the_first_of_two_processes_wins(tmp_path: Path, data: str, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While this process writes, another one finishes: its cache stays, ours goes."""
    write, inodes = cache._write, list[int]()

    def place() -> int:
        return (tmp_path / "cache" / entries(tmp_path)[0] / "tokens.npy").stat().st_ino

    def slow(path: str, parts: Any) -> None:
        monkeypatch.setattr(cache, "_write", write)
        shutil.rmtree(path)
        open_sources(config_of(tmp_path, data), tokenizer, "train")
        inodes.append(place())
        os.mkdir(path)
        write(path, parts)

    monkeypatch.setattr(cache, "_write", slow)
    sources = open_sources(config_of(tmp_path, data), tokenizer, "train")
    assert inodes == [place()] and len(entries(tmp_path)) == 1 and len(sources[0]) == 40


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
