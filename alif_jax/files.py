"""The few file operations of the trainer, through fsspec: local paths, `gs://…`, `memory://…` look the same."""

import errno
import json
import os
import posixpath
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import fsspec

from alif_jax import UsageError


def open_file(path: str, mode: str = "rb") -> IO[Any]:
    """Opens `path` by fsspec; a missing file is a UsageError that names it."""
    try:
        encoding = None if "b" in mode else "utf-8"
        return fsspec.open(path, mode, encoding=encoding).open()
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None


def join(directory: str, *names: str) -> str:
    return posixpath.join(directory, *names)


def exists(path: str) -> bool:
    filesystem, local = fsspec.core.url_to_fs(path)
    return filesystem.exists(local)


def list_names(directory: str) -> list[str]:
    """The names of the files in a directory, sorted; none for a directory that does not exist."""
    filesystem, local = fsspec.core.url_to_fs(directory)
    if not filesystem.isdir(local):
        return []
    return sorted(posixpath.basename(name.rstrip("/")) for name in filesystem.ls(local, detail=False))


def make_directory(directory: str) -> None:
    filesystem, local = fsspec.core.url_to_fs(directory)
    filesystem.makedirs(local, exist_ok=True)


def remove_directory(directory: str) -> None:
    filesystem, local = fsspec.core.url_to_fs(directory)
    if filesystem.exists(local):
        filesystem.rm(local, recursive=True)


def move_directory(source: str, target: str) -> None:
    """Renames a directory: in one step on local disks, file by file on object stores."""
    filesystem, local = fsspec.core.url_to_fs(source)
    filesystem.mv(local, fsspec.core.url_to_fs(target)[1], recursive=True)


@contextmanager
def new_directory(output: str) -> Iterator[str]:
    """A temporary directory beside `output` that becomes it at the end, and is removed where anything fails on the way.

    Raises UsageError where `output` exists already, or the disk is full. A kill leaves the temporary one, which the next try
    clears.
    """
    if exists(output):
        raise UsageError(f"{output} exists already; give another --output, or remove it")
    temporary = output.rstrip("/") + ".tmp"
    remove_directory(temporary)
    make_directory(temporary)
    try:
        yield temporary
        move_directory(temporary, output)
    except BaseException as error:
        remove_directory(temporary)
        remove_directory(output)  # object stores move file by file
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UsageError(f"{output}: the disk is full ({error.strerror}); make room, or give another --output") from None
        raise


def check_space(directory: str, needed: int) -> None:
    """Raises UsageError where fewer bytes are free on the disk of a local directory; object stores are not asked."""
    if not is_local(directory):
        return
    free = shutil.disk_usage(absolute(directory)).free
    if needed > free:
        raise UsageError(
            f"{directory}: {needed / 1e6:,.1f} MB are needed and {free / 1e6:,.1f} MB are free on this disk; make room, or give "
            "another --output"
        )


def size(path: str) -> int:
    """Of a file, in bytes."""
    filesystem, local = fsspec.core.url_to_fs(path)
    return int(filesystem.size(local))


def copy_file(source: str, target: str) -> None:
    with open_file(source) as original, open_file(target, "wb") as copy:
        shutil.copyfileobj(original, copy, 2**22)  # bytes at a time


def read_json(path: str) -> Any:
    with open_file(path, "r") as file:
        text = file.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: not valid JSON ({error})") from None


def read_json_or(path: str, default: Any) -> Any:
    return read_json(path) if exists(path) else default


def is_local(path: str) -> bool:
    return "://" not in path


def absolute(path: str) -> str:
    """A local path in full, ~ expanded; addresses such as gs://… stay as they are."""
    return fsspec.core.url_to_fs(path)[1] if is_local(path) else path


def write_text(path: str, text: str) -> None:
    """Replaces the file in one step, so that a kill leaves the old or the new one (object stores do so by themselves)."""
    path = absolute(path)
    beside = path + ".tmp" if is_local(path) else path
    with open_file(beside, "w") as file:
        file.write(text)
    if beside != path:
        os.replace(beside, path)


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cache_home() -> str:
    """Of what can be made again: $XDG_CACHE_HOME/alif_jax, or ~/.cache/alif_jax."""
    return join(os.environ.get("XDG_CACHE_HOME") or join(os.path.expanduser("~"), ".cache"), "alif_jax")
