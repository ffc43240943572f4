"""Other people's data as the project's shards: rows (import_files.py) become records (import_formats.py), and these, once each, a
data directory with its manifest and a README.md. It filters nothing beyond that and judges no content.

Records are first written to a file in order, because a shard's name says how many there are and the source may be a stream that
comes once; which ids were there is noted on disk too. So memory does not grow with the data.
"""

import hashlib
import json
import os
import re
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import chain, islice
from typing import Any, TextIO

import fsspec

from data_gen import UsageError
from data_gen.import_files import DOCUMENTS, Row, read_rows
from data_gen.import_formats import AUTO, EMPTY, FAULTY, TURNS, Content, Unusable, content_of, find_format, parse_columns
from data_gen.languages import load_label, load_pack
from data_gen.record import SIDES, Record, canonical_json, record_id
from data_gen.tfrecord import MANIFEST, write_shards

INGEST = "ingest"  # the format of documents that launch/ingest.py made
WIKIPEDIA_LICENCE = "CC BY-SA 4.0"
DUPLICATE = "duplicate"
PEEK = 20  # rows whose columns decide the format
MAX_FAULTY = 0.01  # of all rows
_STOP_AT = 1000  # so many faulty ones, if they are too many by then, end the import before the end of the data
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
# Licences by their identifiers on the hub, for the head of README.md.
_HUB_LICENCES = {
    "CC BY-SA 4.0": "cc-by-sa-4.0", "CC BY-SA 3.0": "cc-by-sa-3.0", "CC BY 4.0": "cc-by-4.0", "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC0 1.0": "cc0-1.0", "Apache-2.0": "apache-2.0", "MIT": "mit", "ODC-BY": "odc-by",
}  # fmt: skip


@dataclass(kw_only=True)
class ImportConfig:
    """What is imported. input: as import_files.read_rows; language: BCP-47, of all of it; licence: as its makers call it (only
    Wikipedia's is known here; ingested documents have theirs); source, task: what the records say, by default the input's name and
    `document` or `instruction`.

    columns: "FIELD=COLUMN" where a column has another name. split, subset, documents: as import_files.read_rows.
    heldout_share: of the records, chosen by their ids, so that it is the same in every order. limit: stop after so many records;
    0: all. normalise: look-alike letters become the language's own, as its pack has it.
    """

    input: str
    output: str
    language: str
    licence: str = ""
    format: str = AUTO
    columns: tuple[str, ...] = ()
    split: str = ""
    subset: str = ""
    documents: str = DOCUMENTS[0]
    source: str = ""
    task: str = ""
    heldout_share: float = 0.01
    limit: int = 0
    normalise: bool = False
    shard_records: int = 10_000

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        if not _LANGUAGE.fullmatch(self.language):
            raise UsageError(f"--language={self.language}: expected a BCP-47 code such as ur, ur-Latn, en")
        if not 0 <= self.heldout_share <= 0.5:
            raise UsageError(f"--heldout_share={self.heldout_share}: it must be between 0 and 0.5")
        for name, value, least in (("limit", self.limit, 0), ("shard_records", self.shard_records, 1)):
            if value < least:
                raise UsageError(f"--{name}={value}: it must be at least {least}")
        if self.documents not in DOCUMENTS:
            raise UsageError(f"--documents={self.documents}: expected one of {', '.join(DOCUMENTS)}")
        parse_columns(self.columns)


@dataclass
class Imported:
    """What an import gave: rows read, records in each split and of each licence (ingested documents say their own), rows left out
    by reason with the first of each, and where it is.
    """

    config: ImportConfig
    format: str
    licence: str
    rows: int = 0
    records: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def leave_out(self, kind: str, row: Row, why: str) -> None:
        """Counts a row that gives no record. Raises UsageError when too many are faulty for the data to be what it should be."""
        self.left_out[kind] += 1
        self.first.setdefault(kind, f"{row.file}, row {row.number}: {why}")
        if self.left_out[FAULTY] >= _STOP_AT:
            self.check_faulty()

    def check_faulty(self) -> None:
        """Raises UsageError when more than MAX_FAULTY of the rows so far are faulty."""
        faulty = self.left_out[FAULTY]
        if faulty > MAX_FAULTY * self.rows:
            raise UsageError(
                f"{faulty} of {self.rows} rows are faulty, and {MAX_FAULTY:.0%} may be. The first: {self.first[FAULTY]}. Mend the "
                f"data, or check --format (here {self.format}) and --columns"
            )

    def __str__(self) -> str:
        lines = [f"rows      {self.rows:,} read as {self.format}"]
        lines += [f"records   {self.records[split]:,} {split}" for split in SIDES]
        for kind, count in self.left_out.most_common():
            lines.append(f"left out  {count:,} {kind}" + (f" (first: {self.first[kind]})" if kind in self.first else ""))
        return "\n".join([*lines, f"licence   {self.licence}", f"data      {self.config.output}"])


def import_data(config: ImportConfig) -> Imported:
    """Reads `config.input`, writes `config.output` (shards, manifest.json, README.md; any fsspec path), returns the counts.

    Raises UsageError on a config that makes no sense, an output that has data already, columns that fit no format, more than 1 %
    of faulty rows, ingested documents in another language, and when no record comes of it.
    """
    config.validate()
    pack = load_pack(config.language.partition("-")[0]) if config.normalise else None
    fs, root = fsspec.core.url_to_fs(config.output)
    if fs.exists(f"{root}/{MANIFEST}"):
        raise UsageError(f"--output={config.output} has data already; remove it, or give another directory")
    _check_ingested(config.input)
    rows = read_rows(config.input, split=config.split, subset=config.subset, documents=config.documents)
    done, rows = _begin(config, rows)
    with _staged(config.output) as (files, ids):
        for record in _records(done, rows, pack.normalise if pack else str):
            _stage(done, record, files, ids)
            if done.records.total() == config.limit:
                break
        done.check_faulty()
        if not done.records.total():
            what = "; ".join(f"{kind}: {first}" for kind, first in done.first.items()) or "there are no rows"
            raise UsageError(f"--input={config.input} gave no record ({what})")
        done.licence = ", ".join(sorted(done.licences))
        _write(done, files)
    return done


def _check_ingested(path: str) -> None:
    """Raises UsageError for documents of an ingest that has not come to its end, and for its work directory."""
    fs, root = fsspec.core.url_to_fs(path)
    if fs.exists(f"{root.rstrip('/')}/logs/config.json"):
        whole = f"{path.rstrip('/')}/documents"
        raise UsageError(f"--input={path} is a work directory of launch/ingest.py; its documents are in --input={whole}")
    workdir, _, name = root.rstrip("/").rpartition("/")
    if name == "documents" and fs.exists(f"{workdir}/logs/config.json") and not fs.exists(f"{workdir}/{MANIFEST}"):
        raise UsageError(f"--input={path} is unfinished: {workdir} has no {MANIFEST}. launch/ingest.py goes on there")


@lru_cache
def _check_language(language: str, label: str) -> None:
    """Raises UsageError where ingested documents are in another language, or script, than --language says."""
    code, *rest = language.split("-")
    own = load_label(label).code
    script = label.partition("_")[2]
    if code != own or any(len(tag) == 4 and tag.isalpha() and tag.title() != script for tag in rest):
        raise UsageError(f"--language={language}, and the documents are in {label}: give --language={own}")


def _begin(config: ImportConfig, rows: Iterator[Row]) -> tuple[Imported, Iterator[Row]]:
    """The format, found by the first rows, and all rows again."""
    head = list(islice(rows, PEEK))
    sound = [row.columns for row in head if not row.fault]
    columns = parse_columns(config.columns)
    if not head:
        raise UsageError(f"--input={config.input} has no rows")
    if not sound:
        raise UsageError(f"the first {len(head)} rows of --input={config.input} are all faulty; the first: {head[0].fault}")
    names = dict.fromkeys(name for row in sound for name in row)
    form = find_format(config.format, names, columns, sound[0])
    licence = config.licence or (WIKIPEDIA_LICENCE if form == "wikipedia" else "")
    if not licence and form != INGEST:
        raise UsageError("--licence is missing: it goes into every record, as the data's makers call it, say --licence='CC BY 4.0'")
    return Imported(config, form, licence), chain(head, rows)


def _records(done: Imported, rows: Iterable[Row], normalise: Callable[[str], str]) -> Iterator[Record]:
    """The records of the rows, duplicates among them; rows that give none are counted."""
    config, columns = done.config, parse_columns(done.config.columns)
    source = config.source or re.sub(r"[^\w.-]+", "_", config.input.rstrip("/").rpartition("/")[2]) or "imported"
    task = config.task or ("document" if done.format in ("text", "wikipedia", INGEST) else "instruction")
    for row in rows:
        done.rows += 1
        try:
            if row.fault:
                raise Unusable(FAULTY, row.fault)
            if done.format == INGEST:
                _check_language(config.language, str(row.columns.get("language")))
            content = content_of(done.format, row.columns, columns)
            licence = content.meta.get("licence") or done.licence
            if not licence:
                raise Unusable(FAULTY, "it names no licence, and --licence is not given")
        except Unusable as why:
            done.leave_out(why.kind, row, str(why))
            continue
        own = config.source or content.meta.pop("source", source)
        meta = content.meta | {"licence": licence, "origin": config.input, "file": row.file, "row": row.number}
        try:
            yield _record(content, own, task, config.language, meta, normalise)
        except UnicodeEncodeError:
            done.leave_out(FAULTY, row, "half a surrogate pair, which UTF-8 does not have")


def _record(
    content: Content, source: str, task: str, language: str, meta: dict[str, Any], normalise: Callable[[str], str]
) -> Record:
    if content.text is not None:
        text = normalise(content.text)
        return Record(record_id(text), source, task, language, meta, text=text)
    messages = tuple({"role": turn["role"], "content": normalise(turn["content"])} for turn in content.messages or ())
    return Record(record_id(messages), source, task, language, meta, messages=messages)


# --- the file in between ------------------------------------------------------------------------------------------------


@contextmanager
def _place(output: str) -> Iterator[str]:
    """A directory of this import's own, beside a local output: the system's place for small files may be memory."""
    if "://" in output:
        with tempfile.TemporaryDirectory() as place:
            yield place
        return
    place = os.path.join(output, ".import")
    shutil.rmtree(place, ignore_errors=True)  # of an import that was killed
    os.makedirs(place)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def _staged(output: str) -> Iterator[tuple[dict[str, TextIO], sqlite3.Connection]]:
    """A file for each split, and a table of ids."""
    try:
        with _place(output) as place:
            ids = sqlite3.connect(os.path.join(place, "ids.sqlite"), isolation_level=None)
            try:
                for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -65536", "locking_mode = EXCLUSIVE"):
                    ids.execute(f"PRAGMA {pragma}")
                ids.execute("CREATE TABLE seen (id INTEGER PRIMARY KEY)")
                ids.execute("BEGIN")
                with (
                    open(os.path.join(place, SIDES[0]), "w+", encoding="utf-8") as train,
                    open(os.path.join(place, SIDES[1]), "w+", encoding="utf-8") as heldout,
                ):
                    yield dict(zip(SIDES, (train, heldout), strict=True)), ids
            finally:
                ids.close()
    except (OSError, sqlite3.OperationalError) as error:
        raise UsageError(f"--output={output} cannot be written: {error}. Make room, or give another directory") from error


def _stage(done: Imported, record: Record, files: dict[str, TextIO], ids: sqlite3.Connection) -> None:
    """Puts a record that was not there before into its split."""
    number = int(record.id, 16)
    if not ids.execute("INSERT OR IGNORE INTO seen VALUES (?)", (number - (1 << 63),)).rowcount:
        done.left_out[DUPLICATE] += 1
        return
    share = int(hashlib.sha256(f"heldout {record.id}".encode()).hexdigest()[:8], 16) / 2**32
    split = SIDES[share < done.config.heldout_share]
    files[split].write(canonical_json(asdict(record)) + "\n")
    done.records[split] += 1
    done.licences[record.meta["licence"]] += 1


@dataclass(frozen=True)
class _Lines:
    """The records of a staged file, as often as they are wanted."""

    file: TextIO
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        self.file.seek(0)
        for line in self.file:
            yield Record(**json.loads(line))


def _write(done: Imported, files: dict[str, TextIO]) -> None:
    found = {"format": done.format, "licence": done.licence, "rows": done.rows, "left_out": dict(done.left_out)}
    splits = {split: _Lines(files[split], done.records[split]) for split in SIDES}
    fs, root = fsspec.core.url_to_fs(done.config.output)
    fs.makedirs(root, exist_ok=True)
    with fs.open(f"{root}/README.md", "w", encoding="utf-8") as file:
        file.write(_readme(done))
    write_shards(done.config.output, splits, config=asdict(done.config) | found, shard_records=done.config.shard_records)


_MEANINGS = {
    FAULTY: "no such row as the format wants",
    EMPTY: "no text, or no answer",
    TURNS: "turns of others than user and assistant, or not in turn",
    DUPLICATE: "the same content again",
}
_WIKIPEDIA = (
    "\nText of Wikipedia, by its authors: the `meta` of a record has the article's `title` and its `url`, whose history names "
    "them. Whoever passes the text on says so and keeps the licence.\n"
)


def _readme(done: Imported) -> str:
    config = done.config
    licence = _HUB_LICENCES.get(done.licence, "other")
    named = "" if licence != "other" else f"license_name: {json.dumps(done.licence, ensure_ascii=False)}\n"
    counts = [("rows read", done.rows), *((f"records, {split}", done.records[split]) for split in SIDES)]
    counts += [(f"left out, {kind}: {_MEANINGS[kind]}", count) for kind, count in done.left_out.most_common()]
    normalised = " Look-alike letters were replaced by the language's own." if config.normalise else ""
    return (
        f"---\nlicense: {licence}\n{named}language: {config.language.partition('-')[0]}\n---\n\n"
        f"# Imported from {config.input}\n\n"
        f"Licence: **{done.licence}** (in `meta.licence` of every record). Language: `{config.language}`. Rows read as "
        f"{done.format}.{normalised}\n{_WIKIPEDIA if done.format == 'wikipedia' else ''}\n| | |\n|---|---:|\n"
        + "".join(f"| {name} | {count:,} |\n" for name, count in counts)
        + "\nTFRecord shards of `tf.train.Example`; `manifest.json` lists them with their counts and checksums.\n"
    )
