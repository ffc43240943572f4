"""Safetensors files against the safetensors library, both ways, and files that are damaged."""

import contextlib
import io
import json
import struct
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fsspec
import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from fsspec.implementations.memory import MemoryFile

from alif_jax import UsageError
from alif_jax.safetensors import Checkpoint, Tensor, read_header, write, write_sharded

TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NUMPY = {"float32": np.dtype(np.float32), "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Tensors of every dtype and of awkward shapes: odd sizes, one element, no element."""
    rng = np.random.default_rng(seed)
    made = {f"{name}.weight": rng.standard_normal((7, 3, 5)).astype(dtype) for name, dtype in NUMPY.items()}
    made["vector"] = rng.standard_normal(11).astype(np.float16)
    made["one"] = rng.standard_normal((1, 1)).astype(np.float32)
    made["none"] = np.zeros((0, 4), np.float32)
    return made


def lazily(values: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: Tensor(value.shape, value.dtype, value.__getitem__) for name, value in values.items()}


def as_torch(value: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(value.astype(np.float32)).to(TORCH[str(value.dtype)])


def same(ours: np.ndarray, theirs: torch.Tensor) -> bool:
    """Equal values, dtype and shape; every fp16 and bf16 value has an fp32 of its own."""
    equal_dtype = TORCH[str(ours.dtype)] == theirs.dtype
    return equal_dtype and np.array_equal(ours.astype(np.float32), theirs.float().numpy())


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    path = str(tmp_path / "model.safetensors")
    write(path, lazily(arrays()))
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == arrays().keys()
    assert all(same(value, loaded[name]) for name, value in arrays().items())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses or converts files that do not say so


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {name: as_torch(value) for name, value in arrays().items()}
    safetensors.torch.save_file(tensors, str(tmp_path / "model.safetensors"), {"format": "pt", "note": "اردو"})
    with Checkpoint(str(tmp_path)) as checkpoint:
        assert checkpoint.entries.keys() == tensors.keys()
        assert all(same(checkpoint.read(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("dtype", list(NUMPY))
def test_partial_rows(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).standard_normal((10, 4, 3)).astype(NUMPY[dtype])
    directory = "memory://test_safetensors/rows"
    write(f"{directory}/model.safetensors", lazily({"before": values[:3], "x": values, "after": values[3:]}))
    with Checkpoint(directory) as checkpoint:
        for rows in (slice(None), slice(0, 4), slice(3, 7), slice(9, 10), slice(6, None), slice(5, 5), slice(-2, None)):
            assert np.array_equal(checkpoint.read("x", rows), values[rows])
        read = Mock(side_effect=checkpoint._bytes)
        monkeypatch.setattr(checkpoint, "_bytes", read)
        checkpoint.read("x", slice(2, 4))
        row = 12 * NUMPY[dtype].itemsize
        read.assert_called_once_with(f"{directory}/model.safetensors", checkpoint.entries["x"].begin + 2 * row, 2 * row)


def test_two_threads_read_a_remote_file_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets its own tensor, however long a read takes: no position in an open file is shared."""
    directory, rng = "memory://test_safetensors/threads", np.random.default_rng(0)
    tensors = {f"t{i}": rng.standard_normal((8, 4)).astype(np.float32) for i in range(32)}
    write(f"{directory}/model.safetensors", lazily(tensors))
    original = MemoryFile.read

    def slowly(self: MemoryFile, size: int = -1) -> bytes:
        time.sleep(1e-3)
        return original(self, size)

    monkeypatch.setattr(MemoryFile, "read", slowly)
    with Checkpoint(directory) as checkpoint, ThreadPoolExecutor(4) as pool:
        for name, values in zip(tensors, pool.map(checkpoint.read, tensors), strict=True):
            assert np.array_equal(values, tensors[name])


def test_on_memory() -> None:
    directory = "memory://test_safetensors/whole"
    write_sharded(directory, lazily(arrays()), shard_bytes=400)
    assert len(fsspec.filesystem("memory").ls("/test_safetensors/whole")) > 2
    with Checkpoint(directory) as checkpoint:
        assert all(same(checkpoint.read(name), as_torch(value)) for name, value in arrays().items())


def test_one_file_or_shards_with_an_index(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    one.mkdir()
    several.mkdir()
    values = {f"t{i}": np.full((4, 5), i, np.float32) for i in range(7)}  # 80 bytes each
    write_sharded(str(one), lazily(values), shard_bytes=7 * 80)
    assert [path.name for path in one.iterdir()] == ["model.safetensors"]

    write_sharded(str(several), lazily(values), shard_bytes=3 * 80 + 79)
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert sorted(path.name for path in several.iterdir()) == [*names, "model.safetensors.index.json"]
    index = json.loads((several / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 7 * 80}
    held = {key: name for name in names for key in safetensors.torch.load_file(several / name)}
    assert index["weight_map"] == held and [list(held.values()).count(name) for name in names] == [3, 3, 1]
    with Checkpoint(str(several)) as checkpoint:
        assert all(np.array_equal(checkpoint.read(name), value) for name, value in values.items())


def test_a_tensor_larger_than_a_shard_gets_its_own(tmp_path: Path) -> None:
    sizes = {"first": 100, "small": 2, "large": 100, "after": 2}
    values = {name: np.full(size, size, np.float32) for name, size in sizes.items()}
    write_sharded(str(tmp_path), lazily(values), shard_bytes=50)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    with Checkpoint(str(tmp_path)) as checkpoint:
        assert all(np.array_equal(checkpoint.read(name), value) for name, value in values.items())


def test_few_pieces_are_made_before_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an export holds in memory: rows of a few pieces, not a tensor, and no tensor that is written."""
    monkeypatch.setattr("alif_jax.safetensors.PIECE", 70)
    written, made = [0], []

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            time.sleep(0.002)  # the thread that makes them is the faster one
            written[0] += data.nbytes if isinstance(data, memoryview) else 0
            return super().write(data)

    def make(i: int, rows: slice) -> np.ndarray:
        made.append((i, rows.start, rows.stop, written[0] // 40))
        return np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.full(10, 100.0 * i, np.float32)

    file = Slow()
    monkeypatch.setattr("alif_jax.safetensors.open_file", lambda path, mode: contextlib.nullcontext(file))
    write("x", {f"t{i}": Tensor((20, 10), np.dtype(np.float32), partial(make, i)) for i in range(3)})
    assert [one[:3] for one in made] == [(i, *rows) for i in range(3) for rows in ((0, 7), (7, 14), (14, 20))]
    rows_before = [20 * i + start for i, start, *_ in made]
    ahead = [before - rows for before, (*_, rows) in zip(rows_before, made, strict=True)]
    assert max(ahead) <= 3 * 7 and ahead[-1] > 0
    values = safetensors.torch.load(file.getvalue())["t2"]
    assert torch.equal(values[:, 3], torch.arange(20.0) + 200)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", list(NUMPY))
def test_values_that_are_not_finite_are_refused(tmp_path: Path, bad: float, dtype: str) -> None:
    values = np.full((3, 4), -ml_dtypes.finfo(NUMPY[dtype]).max, NUMPY[dtype])  # the largest there is, and it is finite
    values[:, 0] = 0
    write(str(tmp_path / "x"), lazily({"layers.1.weight": values}))
    values[2, 1] = bad
    with pytest.raises(UsageError, match="layers.1.weight has values that are not finite"):
        write(str(tmp_path / "x"), lazily({"layers.0.weight": np.ones(3, np.float32), "layers.1.weight": values}))


def test_what_was_announced_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x: float32.* made, float16"):
        write(str(tmp_path / "x"), {"x": Tensor((2,), np.dtype(np.float16), np.ones(2, np.float32).__getitem__)})


# --- damaged or foreign files


def put(directory: Path, header: Any, data: bytes = b"", name: str = "model.safetensors") -> str:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (directory / name).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(directory / name)


def refused(directory: Path, *words: str) -> None:
    with pytest.raises(UsageError) as error:
        with Checkpoint(str(directory)) as checkpoint:
            for name in checkpoint.entries:
                checkpoint.read(name)
    for word in words:
        assert word in str(error.value)


def test_truncated(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(str(path), lazily({"first": np.ones((4, 4), np.float32), "last": np.ones((4, 4), np.float32)}))
    whole = path.read_bytes()
    for length in (len(whole) - 1, len(whole) - 64):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=f"{path}: cut off, last ends at byte {len(whole)} of {length}"):
            read_header(str(path))  # at once, not when the tensor is wanted
    for length in (0, 5, 8, 30):
        path.write_bytes(whole[:length])
        refused(tmp_path, str(path), "not a safetensors file")


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write(str(path), lazily({"first": np.ones((4, 4), np.float32), "last": np.ones((4, 4), np.float32)}))
    with Checkpoint(str(tmp_path)) as checkpoint:
        path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(UsageError, match="cut off inside last"):
            checkpoint.read("last")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"\x80\x02}q\x00.pickle",
        b"[]",
        b'{"x": 1}',
        b'{"x": {"dtype": "F32", "shape": [2]}}',
        b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}',
    ],
    ids=["cut", "pickle", "list", "number", "no-offsets", "bytes-unlike-shape", "backwards"],
)
def test_bad_header(tmp_path: Path, header: bytes) -> None:
    path = put(tmp_path, header, bytes(8))
    refused(tmp_path, path)


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 4976698672\n"
    for content in (pointer, b"PK\x03\x04" + bytes(100), b""):
        path.write_bytes(content)
        refused(tmp_path, str(path), "not a safetensors file")


def test_a_dtype_that_is_not_read(tmp_path: Path) -> None:
    path = put(tmp_path, {"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, bytes(4))
    refused(tmp_path, path, "x has dtype F8_E4M3", "F32, F16, BF16")


def test_no_weights(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "neither model.safetensors nor model.safetensors.index.json")


def shards(directory: Path, weight_map: Mapping[str, str], **held: tuple[str, ...]) -> None:
    """Shards a, b … that hold the given tensors, and an index that says `weight_map`."""
    for shard, names in held.items():
        write(str(directory / f"{shard}.safetensors"), lazily({name: np.ones(2, np.float32) for name in names}))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    shards(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"}, a=("x",), b=("y", "x"))
    refused(tmp_path, "x is in both", "a.safetensors", "b.safetensors")


def test_an_index_that_names_a_missing_tensor(tmp_path: Path) -> None:
    shards(tmp_path, {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"}, a=("x",), b=("y",))
    refused(tmp_path, "model.safetensors.index.json names z", "which no shard holds")


def test_an_index_that_names_a_missing_file(tmp_path: Path) -> None:
    shards(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"}, a=("x",))
    refused(tmp_path, str(tmp_path / "b.safetensors"), "no such file")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_an_index_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    refused(tmp_path, str(tmp_path / "model.safetensors.index.json"))


def test_read_header_leaves_the_metadata_out(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "x": {"dtype": "BF16", "shape": [2, 1], "data_offsets": [0, 4]}}
    [(name, entry)] = read_header(put(tmp_path, header, bytes(4))).items()
    assert (name, entry.dtype, entry.shape, entry.end - entry.begin) == ("x", NUMPY["bfloat16"], (2, 1), 4)
