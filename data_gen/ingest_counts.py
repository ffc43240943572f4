"""What a task of the ingest counts while documents pass: a Tally that its blocks share, the writer of what is taken out, and the
block that puts the tally down when the task ends. What is made of the tallies of all tasks: ingest_report.py.
"""

import gzip
import hashlib
import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import IO, Any

from datatrove.data import Document
from datatrove.io import OutputFileManager, get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers.jsonl import JsonlWriter

COUNTS, REMOVED = "logs/counts", "removed"
SHOWN = 200  # letters of a removed document
MOST_DOMAINS = 1000  # that a task counts by name when it ends: those with the most documents
OTHERS = "…"
_CHUNK = 1 << 20
_LEVEL = 6  # of gzip: 15 MB/s; the default, 9, makes the shipped texts 3 % smaller, at 6.5 MB/s


@dataclass
class Tally:
    """What one task counted. removed: by reason; languages: what the documents that came so far were in; domains, removed_domains:
    documents kept and removed by domain; masked: personal data replaced; text_bytes: UTF-8 of what was read, kept_bytes of what
    the task let through.
    """

    read: int = 0
    text_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    kept_letters: int = 0
    news: int = 0
    masked: int = 0
    removed: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    removed_domains: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    file: dict[str, Any] = field(default_factory=dict)  # path, bytes and sha256 of what it wrote

    def clear(self) -> None:
        """A task begins: under Slurm one process may run several with the same blocks."""
        for one in fields(self):
            setattr(self, one.name, type(getattr(self, one.name))())

    def as_json(self) -> dict[str, Any]:
        """The values; of the domains the most frequent ones, the others together as "…"."""
        values = dict(vars(self))
        for name in ("domains", "removed_domains"):
            first = dict(Counter(values[name]).most_common(MOST_DOMAINS))
            rest = sum(values[name].values()) - sum(first.values())
            values[name] = first | ({OTHERS: rest} if rest else {})
        return values

    def keep(self, doc: Document) -> None:
        """Counts a document that the task lets through."""
        self.kept += 1
        self.kept_letters += len(doc.text)
        self.kept_bytes += len(doc.text.encode())
        self.news += doc.metadata["news"]
        self.domains[doc.metadata["domain"]] += 1
        self.licences[doc.metadata["licence"]] += 1


class _GzipFile(gzip.GzipFile):
    """Closes the file that it writes to."""

    def close(self) -> None:
        below: Any = self.fileobj
        super().close()
        if below:
            below.close()


class _GzipFiles(OutputFileManager):
    def get_file(self, filename: str) -> IO[bytes]:
        if filename not in self._output_files:
            below = self.fs.open(filename, "wb")
            self._output_files[filename] = _GzipFile("", "wb", _LEVEL, below, mtime=0)
        return self._output_files[filename]


class GzipWriter(JsonlWriter):
    """datatrove's, whose gzipped files are the same bytes at any time."""

    def __init__(self, folder: str, name: str = "${rank}.jsonl.gz") -> None:
        super().__init__(folder, name)
        self.output_mg = _GzipFiles(self.output_folder)


class Removed(GzipWriter):
    """`removed/STAGE-RANK.jsonl.gz`: id, reason, url, file, row and first letters of what a filter of the task took out. All its
    filters share it; the first to see the end of the documents closes it, and then no other has one left.
    """

    name = "removed"

    def __init__(self, workdir: str, stage: str, tally: Tally) -> None:
        super().__init__(f"{workdir}/{REMOVED}", stage + "-${rank}.jsonl.gz")
        self.tally = tally

    def write(self, document: Document, rank: int = 0, **kwargs: Any) -> None:
        self.tally.removed[document.metadata["filter_reason"]] += 1
        self.tally.removed_domains[document.metadata["domain"]] += 1
        super().write(document, rank, **kwargs)

    def _default_adapter(self, document: Document) -> dict[str, Any]:
        said = document.metadata
        line = {"id": document.id, "reason": said["filter_reason"], "url": said["url"], "file": posixpath.basename(said["file"])}
        line |= {"row": said["row"]} if "row" in said else {}
        line["text"] = document.text[:SHOWN]
        return line | ({"stays": said["of"]} if said.get("of") else {}) | ({"why": said["why"]} if said.get("why") else {})


class SaveTally(PipelineStep):
    """Last of a task: when all documents have passed and their file is closed, writes `logs/counts/STAGE/RANK.json`; with the
    checksum of `WRITTEN/RANK.jsonl.gz` where that folder is given. A task that took nothing out leaves no list of an earlier start.
    """

    type, name = "counts", "counts of the task"

    def __init__(self, workdir: str, stage: str, tally: Tally, written: str = "") -> None:
        super().__init__()
        self.workdir, self.stage, self.tally, self.written = workdir, stage, tally, written

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for doc in data:
            self.tally.keep(doc)
            yield doc
        folder, path = get_datafolder(self.workdir), f"{self.written}/{rank:05d}.jsonl.gz"
        if self.written and folder.exists(path):
            with folder.open(path, "rb") as file:
                digest, size = hashlib.sha256(), 0
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
            self.tally.file = {"path": path, "documents": self.tally.kept, "bytes": size, "sha256": digest.hexdigest()}
        if not self.tally.removed and folder.exists(before := f"{REMOVED}/{self.stage}-{rank:05d}.jsonl.gz"):
            folder.rm(before)
        with folder.open(f"{COUNTS}/{self.stage}/{rank:05d}.json", "w", encoding="utf-8") as file:
            json.dump(self.tally.as_json(), file, ensure_ascii=False)


def read_tallies(workdir: str, stage: str, tasks: int) -> list[Tally]:
    """The tallies of all tasks of a stage. Raises FileNotFoundError where one is missing."""
    folder = get_datafolder(workdir)
    made = []
    for rank in range(tasks):
        with folder.open(f"{COUNTS}/{stage}/{rank:05d}.json", "r", encoding="utf-8") as file:
            values: dict[str, Any] = json.load(file)
        made.append(tally := Tally())
        for name, value in values.items():
            setattr(tally, name, type(getattr(tally, name))(value))
    return made
