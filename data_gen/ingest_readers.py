"""Web text as datatrove's documents: JSONL, Parquet, web archives (WARC, WET) and Hugging Face data sets. What a row means is
ingest_rows.py's matter, what is good text that of documents.py.

Nothing is lost without a word: a broken line, bytes that are no UTF-8, a page without text become documents too, with empty text
and a `fault` to be counted. A file that is cut off or damaged is an error of its task. datatrove's own readers end a file at the
first bad byte, and drop documents without text.
"""

import lzma
import posixpath
import re
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from importlib import resources
from importlib.util import find_spec
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from datatrove.data import Document
from datatrove.io import DataFolder
from datatrove.pipeline.readers.base import BaseDiskReader
from datatrove.pipeline.readers.huggingface import HuggingFaceDatasetReader
from datatrove.pipeline.readers.parquet import ParquetReader

from data_gen import UsageError
from data_gen.import_files import NEEDED
from data_gen.ingest_config import FORMATS, SAMPLE
from data_gen.ingest_rows import NO_OBJECT, TOO_LARGE, Origin, document_of, faulty, json_row, no_column
from data_gen.web_archive import page_of, read_records

HUB = "hf"
KINDS = {"jsonl": (".jsonl", ".ndjson", ".json"), "parquet": (".parquet",), "warc": (".warc", ".wet")}
MAX_LINE = 64 << 20  # bytes of a line of JSONL
_PACKED = (".gz", ".zst", ".bz2", ".xz")
_TRIED = 100  # rows without the text's column after which the column's name is wrong
_BATCH = 64  # rows of a Parquet file: documents may be long
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def reader(
    input: str, *, format: str = "auto", language: str = "", origin: Origin | None = None, subset: str = "", split: str = "train"
) -> BaseDiskReader | HuggingFaceDatasetReader:
    """The first step of a pipeline. `input` is a file, a directory or a pattern of files (plain, or packed: .gz, .zst, .bz2, .xz),
    any of them behind an fsspec URL; a hub id or a data set that `datasets` saved; or "sample", the shipped pages of `language`.

    The list of files is made here, once. Tasks divide the files, or where there are fewer files than tasks, their rows.
    subset, split: of a data set. Raises UsageError where there is nothing to read, here or in a task.
    """
    if format not in FORMATS:
        raise UsageError(f"format={format}: expected one of {', '.join(FORMATS)}")
    origin = origin or Origin()
    if input == SAMPLE:
        return _Jsonl(*_located([_sample(language)]), origin)
    kind, files = find_input(input, format)
    if kind == HUB:
        _need("datasets", input)
        return _Hub(input, subset, split, origin)
    if packed := [file for file in files if kind == "parquet" or file.endswith(".zst")]:
        _need("pyarrow", packed[0])
    return _READERS[kind](*_located(files), origin)


def _need(module: str, path: str) -> None:
    if find_spec(module) is None:
        raise UsageError(f"input={path}: reading it needs {module}: {NEEDED}")


def find_input(input: str, format: str = "auto") -> tuple[str, list[str]]:
    """The kind of an input and its files by name (none of a data set): ("jsonl", ["a/1.jsonl", "a/2.jsonl.gz"]).

    Names that begin with a dot or an underscore are left out. Raises UsageError for no files, and for those of several kinds.
    """
    try:
        fs, root = fsspec.core.url_to_fs(input)
        names = [root] if fs.isfile(root) else fs.find(root) if fs.isdir(root) else fs.glob(root) if _is_pattern(input) else []
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(f"input={input} cannot be read: {error}") from error
    if format == HUB or (format == "auto" and _is_data_set(input, fs, root, names)):
        return HUB, []
    by_kind = _by_kind(names)
    if format != "auto":
        found = names if names == [root] else by_kind.get(format, [])  # a file that is named may be called anything
        by_kind = {format: found} if found else {}
    if not by_kind:
        suffixes = ", ".join(suffix for kind in KINDS for suffix in KINDS[kind] if format in ("auto", kind))
        raise UsageError(
            f"input={input}: no file there that ends in {suffixes} (or in these and {', '.join(_PACKED)})"
            + (", and no hub id of the form owner/name" if format == "auto" else "")
        )
    if len(by_kind) > 1:
        raise UsageError(f"input={input} has files of several kinds ({', '.join(by_kind)}); choose one by format")
    kind, found = by_kind.popitem()
    return kind, [fs.unstrip_protocol(name) if "://" in input else name for name in found]


def _by_kind(names: Sequence[str]) -> dict[str, list[str]]:
    shown = sorted(name for name in names if not posixpath.basename(name).startswith((".", "_")))
    by_kind = {kind: [name for name in shown if _is_of(name, suffixes)] for kind, suffixes in KINDS.items()}
    return {kind: found for kind, found in by_kind.items() if found}


def _is_pattern(path: str) -> bool:
    return any(c in path for c in "*?[")


def _is_of(name: str, suffixes: tuple[str, ...]) -> bool:
    name = name.lower()
    return name.endswith(tuple(suffix + packed for suffix in suffixes for packed in ("", *_PACKED)))


def _is_data_set(input: str, fs: Any, root: str, names: Sequence[str]) -> bool:
    saved = any(fs.isfile(posixpath.join(root, name)) for name in ("dataset_dict.json", "state.json"))
    return saved or (not names and bool(_HUB_ID.fullmatch(input)) and not Path(input).exists())


def _sample(language: str) -> str:
    folder = resources.files("data_gen") / "text" / "web"
    there = sorted(file.name.removesuffix(".jsonl") for file in folder.iterdir() if file.name.endswith(".jsonl"))
    if language not in there:
        raise UsageError(f"no sample is shipped for language={language}; there are {', '.join(there)}")
    return str(folder / f"{language}.jsonl")


def _located(files: Sequence[str]) -> tuple[DataFolder, list[str]]:
    """The folder that all files lie in, and their paths from there."""
    fs, first = fsspec.core.url_to_fs(files[0])
    paths = [first, *(fs._strip_protocol(file) for file in files[1:])]
    root = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    return DataFolder(root, fs=fs), [posixpath.relpath(path, root) for path in paths]


# --- files ----------------------------------------------------------------------------------------------------------------


class _Files(BaseDiskReader):
    """A list of files, divided among tasks: by files, or (fewer files than tasks) each file by its rows. One that is left out is
    None in the list, so that the others stay with their tasks.
    """

    name = "files"

    def __init__(self, folder: DataFolder, files: Sequence[str], origin: Origin) -> None:
        super().__init__(folder)
        self.files: list[str | None] = list(files)
        self.origin = origin

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        if data:
            yield from data
        count = len(self.files)
        for place in range(rank % count, count, world_size):
            if (file := self.files[place]) is None:
                continue
            parts = len(range(place, world_size, count)) if world_size > count else 1
            self.stat_update("input_files")
            for document in self.read_file(file, rank // count if parts > 1 else 0, parts):
                self.update_doc_stats(document)
                yield document

    def read_file(self, filepath: str, part: int = 0, parts: int = 1) -> Iterator[Document]:
        """The documents of a file; every `parts`-th of its rows from number `part` on. Raises UsageError where it is damaged."""
        path, reached = self.data_folder.resolve_paths(filepath), 0
        try:
            for document in self.documents(filepath, path, lambda number: number % parts == part):
                reached = document.metadata["row"]
                yield document
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # packed data that is cut off or wrong is one of these
            raise UsageError(
                f"{path} cannot be read on after row {reached}: {_line(error)}. Fetch it again or leave it out; other tasks go on"
            ) from error

    @abstractmethod
    def documents(self, filepath: str, path: str, wanted: Callable[[int], bool]) -> Iterator[Document]:
        """The wanted rows of a file, and what is wrong with those that are none."""

    def opened(self, filepath: str) -> closing[BinaryIO]:
        """The unpacked bytes. zstandard's own reader would take a file that is cut off for a whole one."""
        if not filepath.endswith(".zst"):
            return closing(self.data_folder.open(filepath, "rb", compression="infer"))
        import pyarrow

        unpacked: BinaryIO = BufferedReader(pyarrow.input_stream(self.data_folder.open(filepath, "rb"), compression="zstd"))
        return closing(unpacked)


class _Jsonl(_Files):
    name = "jsonl"

    def documents(self, filepath: str, path: str, wanted: Callable[[int], bool]) -> Iterator[Document]:
        lacking, known = 0, False
        with self.opened(filepath) as file:
            for number, line in enumerate(_lines(file), 1):
                if not wanted(number) or (line is not None and not line.strip()):
                    continue
                row, fault, why = json_row(line) if line else ({}, TOO_LARGE, f"a line of more than {MAX_LINE >> 20} MiB")
                if fault == NO_OBJECT and number == 1:
                    raise UsageError(f"{path} begins with {why}; write it as JSONL, an object a line")
                if fault:
                    yield faulty(fault, why, self.origin, path, number)
                    continue
                known = known or self.origin.text_key in row
                lacking += not known
                if lacking == _TRIED:
                    raise no_column(self.origin, path, row)
                columns = list(row)
                yield document_of(row, self.origin, path, number)
        if lacking and not known:
            raise no_column(self.origin, path, columns)


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines; None for one of more than MAX_LINE bytes."""
    while line := file.readline(MAX_LINE):
        if len(line) < MAX_LINE or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)
        yield None


class _Warc(_Files):
    name = "warc"

    def documents(self, filepath: str, path: str, wanted: Callable[[int], bool]) -> Iterator[Document]:
        named = Origin(licence=self.origin.licence, source=self.origin.source)
        with self.opened(filepath) as file:
            for number, record in enumerate(read_records(file, path), 1):
                page = page_of(record) if wanted(number) else None
                if page is None:
                    continue
                said = {"url": "warc-target-uri", "date": "warc-date", "id": "warc-record-id"}
                row = {"text": page.text, "title": page.title, **{key: record.headers.get(name) for key, name in said.items()}}
                document = document_of(row, named, path, number)
                document.metadata |= {"fault": page.fault, "why": page.why} if page.fault else {}
                yield document


class _Parquet(_Files, ParquetReader):
    """Rows by datatrove's reader, each as a document even if it has no text."""

    name = "parquet"

    def __init__(self, folder: DataFolder, files: Sequence[str], origin: Origin) -> None:
        super().__init__(folder, files, origin)
        self.batch_size, self.read_metadata = _BATCH, True

    def documents(self, filepath: str, path: str, wanted: Callable[[int], bool]) -> Iterator[Document]:
        from pyarrow import ArrowException

        try:
            yield from (document for document in ParquetReader.read_file(self, filepath) if wanted(document.metadata["row"]))
        except ArrowException as error:
            raise OSError(str(error)) from error

    def get_document_from_dict(self, data: dict[str, Any], source_file: str, id_in_file: int) -> Document:
        path = self.data_folder.resolve_paths(source_file)
        if self.origin.text_key not in data:
            raise no_column(self.origin, path, data)
        return document_of(data, self.origin, path, id_in_file + 1)


_READERS: dict[str, type[_Files]] = {"jsonl": _Jsonl, "parquet": _Parquet, "warc": _Warc}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


# --- data sets ------------------------------------------------------------------------------------------------------------


class _Hub(HuggingFaceDatasetReader):
    """A data set of the hub, streamed, or one that `datasets` saved. Its rows have no numbers: they would depend on the task."""

    def __init__(self, input: str, subset: str, split: str, origin: Origin) -> None:
        folder = Path(input)
        if saved := (folder / "dataset_dict.json").is_file():
            folder = folder / split
        saved = saved or (folder / "state.json").is_file()
        options = None if saved else {"name": subset or None, "split": split}
        super().__init__(str(folder) if saved else input, options, streaming=not saved, load_from_disk=saved)
        self.input, self.origin = input, origin

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        from datasets.exceptions import DatasetsError

        try:
            yield from super().run(data, rank, world_size)
        except (DatasetsError, ValueError, OSError) as error:  # ValueError: a subset or split that is not there
            if isinstance(error, UsageError):
                raise
            raise UsageError(
                f"input={self.input} cannot be read: {_line(error)}. Check the name, subset and split; a private or gated "
                "data set wants HF_TOKEN in the environment"
            ) from error

    def get_document_from_dict(self, data: dict[str, Any], source_file: str, id_in_file: int | str) -> Document:
        if self.origin.text_key not in data:
            raise no_column(self.origin, self.input, data)
        return document_of(data, self.origin, self.input, None)
