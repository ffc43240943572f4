"""Safetensors files by byte ranges, through fsspec: slices of tensors in, a streamed file out. Neither holds a file in memory.

Format: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, then the tensors
(https://huggingface.co/docs/safetensors). The `safetensors` library reads local files only.
"""

import json
import math
import mmap
import struct
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any

import fsspec
import ml_dtypes
import numpy as np

from alif_jax import UsageError
from alif_jax.files import absolute, exists, is_local, join, open_file, read_json

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SHARD_BYTES = 5 * 10**9  # as transformers writes them
PIECE = 2**22  # values made at a time: 16 MB of fp32
AHEAD = 3  # pieces made before they are written
HEADER_LIMIT = 100 * 2**20  # as the library's own limit: a larger header is a damaged file


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies."""

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


class Checkpoint:
    """The tensors of a directory's `model.safetensors`, or of the shards its index names. Use as a context manager.

    name: `adapter_model` reads a PEFT adapter instead.
    """

    def __init__(self, directory: str, name: str = "model"):
        self.directory = directory
        self._files: dict[str, np.memmap] = {}
        index_path, single = join(directory, f"{name}.safetensors.index.json"), join(directory, f"{name}.safetensors")
        if exists(index_path):
            index = read_json(index_path)
            if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
                raise UsageError(f"{index_path}: not an index of safetensors shards (no weight_map)")
            weight_map: dict[str, str] = index["weight_map"]
            paths = sorted({join(directory, name) for name in weight_map.values()})
        elif exists(single):
            paths = [single]
        else:
            raise UsageError(f"{directory}: neither {name}.safetensors nor {name}.safetensors.index.json; no weights here")
        self.entries: dict[str, Entry] = {}
        for path in paths:
            for name, entry in read_header(path).items():
                if name in self.entries:
                    raise UsageError(f"{name} is in both {self.entries[name].path} and {path}; each tensor once")
                self.entries[name] = entry
        if exists(index_path) and (absent := sorted(weight_map.keys() - self.entries.keys())):
            raise UsageError(f"{index_path} names {absent[0]} (and {len(absent) - 1} more), which no shard holds")

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._files.clear()  # a mapping lives as long as a view of it

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """A tensor, or a range of its first dimension; only these bytes are read.

        Of a local file it is a read-only view of the mapped file, which the kernel is asked to read ahead: what is cut out of it,
        and nothing else, takes memory.
        """
        entry = self.entries[name]
        count = entry.shape[0] if entry.shape else 1
        start, stop, _ = rows.indices(count)
        row_bytes = (entry.end - entry.begin) // max(count, 1)
        data = self._bytes(entry.path, entry.begin + start * row_bytes, (stop - start) * row_bytes)
        if len(data) != (stop - start) * row_bytes:
            raise UsageError(f"{entry.path}: cut off inside {name}; copy the file again")
        return np.frombuffer(data, entry.dtype).reshape(stop - start, *entry.shape[1:])

    def _bytes(self, path: str, begin: int, count: int) -> bytes | np.ndarray:
        """Several threads may ask at once."""
        if not is_local(path):
            filesystem, name = fsspec.core.url_to_fs(path)
            return filesystem.cat_file(name, start=begin, end=begin + count) if count else b""
        if path not in self._files:
            self._files[path] = np.memmap(absolute(path), np.uint8, "r")
        file = self._files[path]
        page = begin - begin % mmap.PAGESIZE
        if count:
            file._mmap.madvise(mmap.MADV_WILLNEED, page, begin + count - page)  # type: ignore[attr-defined]
        return file[begin : begin + count]


def read_header(path: str) -> dict[str, Entry]:
    with open_file(path) as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= HEADER_LIMIT:
            raise UsageError(f"{path}: not a safetensors file (header length {length})")
        text = file.read(length)
        size = file.seek(0, 2)
    try:
        header = json.loads(text)
        tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        return {name: _entry(path, name, tensor, 8 + length, size) for name, tensor in tensors.items()}
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path}: not a safetensors file, or damaged in its header; copy the file again") from None


def _entry(path: str, name: str, tensor: dict[str, Any], start: int, size: int) -> Entry:
    if tensor["dtype"] not in DTYPES:
        raise UsageError(f"{path}: {name} has dtype {tensor['dtype']}; read here: {', '.join(DTYPES)}")
    begin, end = (start + offset for offset in tensor["data_offsets"])
    entry = Entry(path, DTYPES[tensor["dtype"]], tuple(tensor["shape"]), begin, end)
    if end - begin != math.prod(entry.shape) * entry.dtype.itemsize:
        raise ValueError(f"{name}: {end - begin} bytes for shape {entry.shape}")
    if end > size:
        raise UsageError(f"{path}: cut off, {name} ends at byte {end} of {size}; copy the file again")
    return entry


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written: shape and dtype known beforehand, the values made by rows (of the first dimension) in their turn."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[slice], np.ndarray]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write(path: str, tensors: Mapping[str, Tensor]) -> None:
    """Writes one file, rows of about PIECE values at a time. Raises UsageError for a value that is not finite, by tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.bytes]
        }  # fmt: skip
        offset += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin on 8-byte boundaries
    with open_file(path, "wb") as file, closing(_made_ahead(tensors)) as pieces:
        file.write(struct.pack("<Q", len(text)) + text)
        for piece in pieces:
            file.write(piece)


def _made_ahead(tensors: Mapping[str, Tensor]) -> Generator[memoryview, None, None]:
    """The bytes of all pieces in order, made and checked by a thread at most AHEAD pieces before they are written."""
    with ThreadPoolExecutor(1, thread_name_prefix="safetensors") as thread:
        pieces = ((name, tensor, rows) for name, tensor in tensors.items() for rows in _pieces(tensor.shape))
        waiting = deque(thread.submit(_make, *piece) for piece in islice(pieces, AHEAD))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(thread.submit(_make, *piece) for piece in islice(pieces, 1))
                yield made
        finally:
            thread.shutdown(cancel_futures=True)


def _pieces(shape: tuple[int, ...]) -> Iterator[slice]:
    """[10, 3] with PIECE = 12 → rows 0 to 4, 4 to 8, 8 to 10"""
    count, step = shape[0] if shape else 1, max(1, PIECE // max(1, math.prod(shape[1:])))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _make(name: str, tensor: Tensor, rows: slice) -> memoryview:
    values = np.ascontiguousarray(tensor.make(rows))
    shape = (rows.stop - rows.start, *tensor.shape[1:])
    if values.shape != shape or values.dtype != tensor.dtype:
        raise ValueError(f"{name}: {values.dtype}{values.shape} made, {tensor.dtype}{shape} announced")
    bits = values.view(f"u{values.itemsize}")
    infinity = np.asarray(np.inf, values.dtype).view(bits.dtype)
    sign = np.asarray(1 << (8 * values.itemsize - 1), bits.dtype)
    if (bits & ~sign).max(initial=0) >= infinity:  # without its sign an integer above infinity's is NaN; 10 × isfinite of bf16
        raise UsageError(
            f"{name} has values that are not finite in {tensor.dtype}; the run diverged, or they do not fit this type"
        )
    return values.reshape(-1).view(np.uint8).data


def write_sharded(directory: str, tensors: Mapping[str, Tensor], *, shard_bytes: int | None = None) -> None:
    """`model.safetensors`, or several shards of at most `shard_bytes` (None: SHARD_BYTES) with an index, which is written last."""
    limit, filled = shard_bytes or SHARD_BYTES, 0
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and filled + tensor.bytes > limit:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += tensor.bytes
    if len(shards) == 1:
        write(join(directory, "model.safetensors"), shards[0])
        return
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write(join(directory, name), shard)
    weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    index = {"metadata": {"total_size": sum(tensor.bytes for tensor in tensors.values())}, "weight_map": weight_map}
    with open_file(join(directory, "model.safetensors.index.json"), "w") as file:
        json.dump(index, file, indent=2)
