"""Rows of other people's data: JSONL, JSON, Parquet, CSV, plain text (each also gzipped), directories of them, data sets that
the `datasets` library saved, and the Hugging Face hub. What the columns of a row mean is import_formats.py's matter.

Everything is read as a stream: one line, one element of a JSON list or one small batch of a Parquet file is in memory at a time.
"""

import codecs
import csv
import io
import json
import posixpath
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import fsspec

from data_gen import UsageError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv", ".txt")
DOCUMENTS = ("auto", "file", "blank_line", "line")
_CHUNK = 1 << 20  # characters of a JSON list that are read at a time
_HEAD = 4096  # bytes in which a JSON file shows whether it is a list
_BATCH = 64  # rows of a Parquet file: documents may be long
_FIELD = 1 << 24  # characters of a CSV field; a quote that is never closed would take in the rest of the file
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_GAP = re.compile(r"[\s,]*")
NEEDED = "pip install '.[import]'"


@dataclass(frozen=True)
class Row:
    """One row: where it stands, and its columns, or what is wrong with it."""

    file: str
    number: int  # from 1: the line of JSONL, else the row
    columns: Mapping[str, Any]
    fault: str = ""


def read_rows(path: str, *, split: str = "", subset: str = "", documents: str = "auto") -> Iterator[Row]:
    """The rows of a file, a directory, a pattern (`data/*.jsonl.gz`), any of them behind an fsspec URL, or a hub id
    (`wikimedia/wikipedia`), in a fixed order.

    split, subset: of hub data sets and of those that `datasets` saved; by default `train`, or the only one there is.
    documents: where a document of a .txt file ends: `file`, `blank_line`, `line`; `auto` is `file` for several files and
    `blank_line` for one. Raises UsageError where there is nothing to read, and on a file that is damaged.
    """
    files = find_files(path)
    if (split or subset) and files:
        raise UsageError(f"--split and --subset belong to hub data sets, and --input={path} is a matter of files: leave them away")
    if files:
        whole = documents == "file" or (documents == "auto" and len(files) > 1)
        for file in files:
            yield from _read_file(file, "file" if whole else "blank_line" if documents == "auto" else documents)
    elif _is_saved(path):
        yield from _read_saved(path, split)
    elif _HUB_ID.fullmatch(path) and not Path(path).exists():
        yield from _read_hub(path, split, subset)
    else:
        raise UsageError(
            f"--input={path}: no file there that ends in {', '.join(SUFFIXES)} (or in these and .gz), no data set that `datasets` "
            "saved, and no hub id of the form owner/name"
        )


# --- what there is ----------------------------------------------------------------------------------------------------


def kind_of(path: str) -> str:
    """kind_of("a/b.jsonl.gz") == ".jsonl"; "" for a file of no known kind."""
    name = path.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def find_files(path: str) -> list[str]:
    """The data files that `path` names, by name; none for a hub id or a data set that `datasets` saved.

    Raises UsageError on a directory with data files of several kinds.
    """
    fs, root = _filesystem(path)
    if fs.isfile(root):  # first: a name may have brackets
        found = [root] if kind_of(root) else []
    elif fs.isdir(root) and not _is_saved(path):
        found = sorted(file for file in fs.find(root) if kind_of(file) and not posixpath.basename(file).startswith("."))
    elif any(c in path for c in "*?["):
        found = sorted(file for file in fs.glob(root) if kind_of(file))
    else:
        found = []
    kinds = sorted({kind_of(file) for file in found})
    if len(kinds) > 1:
        one = posixpath.join(path.rstrip("/"), "**", "*" + kinds[0]) if fs.isdir(root) else f"a pattern that ends in {kinds[0]}"
        raise UsageError(f"--input={path} has files of several kinds ({', '.join(kinds)}); name one of them: --input='{one}'")
    return [fs.unstrip_protocol(file) if "://" in path else str(file) for file in found]


def _filesystem(path: str) -> tuple[Any, str]:
    try:
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(f"--input={path} cannot be read: {error}") from error


def _is_saved(path: str) -> bool:
    fs, root = _filesystem(path)
    return any(fs.isfile(posixpath.join(root, name)) for name in ("dataset_dict.json", "state.json"))


# --- files ------------------------------------------------------------------------------------------------------------


def _read_file(path: str, documents: str) -> Iterator[Row]:
    kind, name = kind_of(path), posixpath.basename(path)
    try:
        with fsspec.open(path, "rb", compression="infer") as file:
            if kind in (".jsonl", ".ndjson"):
                yield from _json_lines(file, name)
            elif kind == ".json":
                yield from _json(file, name)
            elif kind == ".parquet":
                yield from _parquet(file, name)
            elif kind == ".txt":
                yield from _documents(file, name, documents)
            else:
                yield from _csv(file, name)
    except (OSError, EOFError, zlib.error) as error:  # a broken gzip is one of the three
        raise UsageError(f"{path} cannot be read: {error}") from error


def _object(value: Any, file: str, number: int) -> Row:
    if isinstance(value, dict):
        return Row(file, number, value)
    return Row(file, number, {}, f"a JSON {type(value).__name__} where an object was expected")


def _json_lines(file: BinaryIO, name: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError:
            yield Row(name, number, {}, "not UTF-8")
        except (ValueError, RecursionError) as error:
            yield Row(name, number, {}, f"not JSON: {error}")
        else:
            yield _object(value, name, number)


def _json(file: BinaryIO, name: str) -> Iterator[Row]:
    """A list of objects; or, under the wrong name, JSON lines."""
    head = file.read(_HEAD).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    if head.startswith(b"["):
        with _text(file) as text:
            yield from _json_list(text, name)
        return
    rows = _json_lines(file, name)
    first = next(rows, None)
    if first is not None and first.fault:
        raise UsageError(
            f"{name} is neither a list of objects nor an object a line (its first line: {first.fault}); make it one of them"
        )
    if first is not None:
        yield first
    yield from rows


def _json_list(text: TextIO, name: str) -> Iterator[Row]:
    """The elements of a JSON list. One that is broken ends it: nobody can tell where the next begins."""
    decoder, number = json.JSONDecoder(), 0
    read = text.read(_HEAD)
    at = read.index("[") + 1
    while True:
        at = _GAP.match(read, at).end()  # type: ignore[union-attr]  # it matches the empty string too
        if read.startswith("]", at):
            return
        try:
            value, end = decoder.raw_decode(read, at)
            if end == len(read) and not isinstance(value, dict | list | str):
                raise json.JSONDecodeError("a number may go on", read, end)
        except json.JSONDecodeError as error:
            read, at = read[at:], 0
            more = text.read(max(_CHUNK, len(read)))  # as much again, lest a long element be parsed from its start many times
            if not more:
                raise UsageError(
                    f"{name}: after {number} elements of its list comes what is no JSON ({error.msg}); mend it, or write JSONL, "
                    "where one broken line spoils no other"
                ) from None
            read += more
            continue
        number += 1
        yield _checked(_object(value, name, number), read[at:end])
        at = end


def _text(file: BinaryIO, newline: str | None = None) -> TextIO:
    """A file as text, whatever its bytes are: see _checked."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _checked(row: Row, text: str) -> Row:
    """A row that was made of `text`: bytes that are no UTF-8 were read as lone surrogates, and make it a faulty one."""
    return Row(row.file, row.number, {}, "not UTF-8") if _SURROGATE.search(text) else row


def _parquet(file: BinaryIO, name: str) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(f"{name}: reading Parquet needs pyarrow: {NEEDED}") from error
    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
            for columns in batch.to_pylist():
                number += 1
                yield Row(name, number, columns)
    except pyarrow.ArrowException as error:
        raise UsageError(f"{name} cannot be read after row {number}: {error}") from error


def _documents(file: BinaryIO, name: str, documents: str) -> Iterator[Row]:
    """Plain text: the whole file is a document, or each line, or what stands between blank lines."""
    number = 0
    with _text(file) as text:
        pieces: Iterable[str] = (
            [text.read()] if documents == "file" else text if documents == "line" else _between_blank_lines(text)
        )
        for piece in pieces:
            if piece.strip() or documents == "file":
                number += 1
                yield _checked(Row(name, number, {"text": piece}), piece)


def _between_blank_lines(lines: Iterable[str]) -> Iterator[str]:
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line)
        elif block:
            yield "".join(block)
            block.clear()
    yield "".join(block)


# --- CSV --------------------------------------------------------------------------------------------------------------


def csv_delimiter(header: str) -> str:
    """Spreadsheets write what their country writes: the tab, semicolon or comma that the first line has most of."""
    return max(",;\t", key=header.count)


def csv_rows(text: Iterable[str], name: str) -> Iterator[Row]:
    """The rows after the first line, which names the columns: by its names. `text` is a file opened with newline="".

    A row that is longer or shorter than the first line is a faulty one. Raises UsageError where nothing sensible follows.
    """
    csv.field_size_limit(_FIELD)
    lines = iter(text)
    header = next(lines, "")
    delimiter = csv_delimiter(header)
    names = next(csv.reader([header], delimiter=delimiter), [])
    number = 0
    try:
        for fields in csv.reader(lines, delimiter=delimiter):
            if not fields:
                continue
            number += 1
            if len(fields) == len(names):
                row = Row(name, number, dict(zip(names, fields, strict=True)))
            else:
                row = Row(name, number, {}, f"{len(fields)} fields, and the first line has {len(names)}")
            yield _checked(row, "".join(fields))
    except csv.Error as error:
        raise UsageError(f"{name}: after row {number} comes what is no CSV ({error}); a quote may not be closed there") from error


def _csv(file: BinaryIO, name: str) -> Iterator[Row]:
    with _text(file, newline="") as text:
        yield from csv_rows(text, name)


# --- the `datasets` library ---------------------------------------------------------------------------------------------


def _datasets(what: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f"--input={what}: reading it needs the `datasets` library: {NEEDED}") from error
    return datasets


def _read_saved(path: str, split: str) -> Iterator[Row]:
    datasets = _datasets(path)
    try:
        found = datasets.load_from_disk(path)
    except (ValueError, OSError) as error:
        raise UsageError(f"--input={path} is no data set that `datasets` saved: {error}") from error
    if isinstance(found, datasets.DatasetDict):
        found = _choose(found, split, path)
    elif split:
        raise UsageError(f"--split={split}: the data set in {path} was saved without splits; leave it away")
    yield from (Row(posixpath.basename(path.rstrip("/")), number, columns) for number, columns in enumerate(found, 1))


def _read_hub(path: str, split: str, subset: str) -> Iterator[Row]:
    datasets = _datasets(path)
    try:
        found = _choose(datasets.load_dataset(path, subset or None, streaming=True), split, path)
        for number, columns in enumerate(found, 1):
            yield Row(path, number, columns)
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:  # ValueError: a subset is missing or unknown
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"--input={path} cannot be read from the hub: {error}. Check the name and --subset; a private or gated data set wants "
            "HF_TOKEN in the environment"
        ) from error


def _choose(splits: Mapping[str, Any], split: str, path: str) -> Any:
    name = split or ("train" if "train" in splits else next(iter(splits)) if len(splits) == 1 else "")
    if name not in splits:
        raise UsageError(f"--split={split}: {path} has the splits {', '.join(splits)}; give one of them")
    return splits[name]
