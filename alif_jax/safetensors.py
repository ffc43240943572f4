"""Safetensors files by byte ranges, through fsspec: slices of tensors in, a streamed file out. Neither holds a file in memory.

Format: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets}}, then the tensors
(https://huggingface.co/docs/safetensors). The `safetensors` library reads local files only.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

import ml_dtypes
import numpy as np

from alif_jax import UsageError
from alif_jax.files import exists, join, open_file, read_json

DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
SHARD_BYTES = 5 * 10**9  # as transformers writes them
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
        self._files: dict[str, IO[bytes]] = {}
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
        for file in self._files.values():
            file.close()

    def read(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """A tensor, or a range of its first dimension; only these bytes are read."""
        entry = self.entries[name]
        count = entry.shape[0] if entry.shape else 1
        start, stop, _ = rows.indices(count)
        row_bytes = (entry.end - entry.begin) // max(count, 1)
        if entry.path not in self._files:
            self._files[entry.path] = open_file(entry.path)
        file = self._files[entry.path]
        file.seek(entry.begin + start * row_bytes)
        data = file.read((stop - start) * row_bytes)
        if len(data) != (stop - start) * row_bytes:
            raise UsageError(f"{entry.path}: cut off inside {name}; copy the file again")
        return np.frombuffer(data, entry.dtype).reshape(stop - start, *entry.shape[1:])


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
    """A tensor to be written: shape and dtype known beforehand, the values made when their turn comes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[], np.ndarray]

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def write(path: str, tensors: Mapping[str, Tensor]) -> None:
    """Writes one file, a tensor at a time. Raises UsageError for a value that is not finite, naming the tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.bytes]
        }  # fmt: skip
        offset += tensor.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin on 8-byte boundaries
    with open_file(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            values = np.ascontiguousarray(tensor.make())
            if values.shape != tensor.shape or values.dtype != tensor.dtype:
                raise ValueError(f"{name}: {values.dtype}{values.shape} made, {tensor.dtype}{tensor.shape} announced")
            if not np.isfinite(values.astype(np.float32)).all():
                raise UsageError(
                    f"{name} has values that are not finite in {tensor.dtype}; the run diverged, or they do not fit this type"
                )
            file.write(values.tobytes())


def write_sharded(directory: str, tensors: Mapping[str, Tensor], *, shard_bytes: int | None = None) -> None:
    """`model.safetensors`, or several shards of at most `shard_bytes` (None: SHARD_BYTES) with an index, which is written last."""
    shards: list[dict[str, Tensor]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(other.bytes for other in shards[-1].values()) + tensor.bytes > (shard_bytes or SHARD_BYTES):
            shards.append({})
        shards[-1][name] = tensor
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
