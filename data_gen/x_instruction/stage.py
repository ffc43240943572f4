"""One stage's directory: rows of JSON by language, what was rejected, and a manifest written last. It knows no stage's work.

    WORKDIR/NAME/ur.jsonl.gz, hi.jsonl.gz    what the stage made, a row a line, in an order that the rows decide
                 rejected.jsonl.gz           what it did not keep: id, reason and the text in question
                 manifest.json               inputs, counts, SHA-256 of each file, what was found out; last

A stage is a function of its inputs: settings, and digests of what it reads. Where they are no longer those of its manifest, it says
so and names itself; made again, it overwrites rows that can be made again from the journal and the trained models, which stay.
"""

import gzip
import hashlib
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from data_gen import UsageError
from data_gen.record import canonical_bytes, canonical_json

Row = dict[str, Any]
MANIFEST = "manifest.json"
VERSION = 1  # of what the stages make: a change in the code that changes rows raises it
PACKAGES = ("numpy", "scikit-learn", "lingua-language-detector", "rapidfuzz", "sacrebleu")


def digest_of(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of a JSON-able value."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()[:16]


def file_digest(path: str) -> str:
    """SHA-256 of a file, in hex. Raises UsageError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


class PlainGzip(gzip.GzipFile):
    """A file to write without time and name in gzip's head: equal rows are equal files."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        super().__init__(filename="", mode="wb", fileobj=self._file, mtime=0, compresslevel=6)

    def close(self) -> None:
        super().close()
        self._file.close()


class Stage:
    """`stage.write("ur", rows)`, `stage.reject(…)`, `stage.finish(…)`; later `stage.rows("ur")`."""

    def __init__(self, workdir: str, name: str) -> None:
        self.name, self.directory = name, os.path.join(workdir, name)
        self._rejected: dict[str, Counter[str]] = {}
        self._reject_file: PlainGzip | None = None
        self._files: dict[str, dict[str, Any]] = {}
        self._verified: set[str] = set()
        self._began = time.monotonic()

    # --- is it made? --------------------------------------------------------------------------------------------------

    def manifest(self) -> dict[str, Any] | None:
        """What finish wrote; None where the stage is not finished. Raises UsageError where it cannot be read."""
        try:
            with open(os.path.join(self.directory, MANIFEST), encoding="utf-8") as file:
                return dict(json.load(file))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.directory}/{MANIFEST} cannot be read ({error}): --from={self.name} makes it again") from error

    def changed(self, inputs: Mapping[str, Any]) -> str:
        """Which input of a finished stage is no longer what it was, in words; "" where all are, or the stage is not finished."""
        made = self.manifest()
        if made is None:
            return ""
        if made["versions"]["x_instruction"] != str(VERSION):
            return f"it was made by version {made['versions']['x_instruction']} of the recipe, and this is {VERSION}"
        before, now = made["inputs"], json.loads(canonical_json(dict(inputs)))
        for name in [*now, *before]:
            if before.get(name) != now.get(name):
                return f"{name} was {_short(before.get(name))} and is {_short(now.get(name))}"
        return ""

    def found(self) -> dict[str, Any]:
        """What a finished stage found out. Raises UsageError where it is not finished."""
        return dict(self._finished()["found"])

    def counts(self) -> dict[str, int]:
        """Rows by language."""
        return {name.partition(".")[0]: file["rows"] for name, file in self._finished()["files"].items()}

    def digest(self) -> str:
        """Of the rows of a finished stage, and of what it found: what the next one depends on."""
        made = self._finished()
        return digest_of([made["files"], made["passed_on"]])

    def _finished(self) -> dict[str, Any]:
        made = self.manifest()
        if made is None:
            raise UsageError(
                f"stage {self.name} of {os.path.dirname(self.directory)} is not finished: run it first, --from={self.name}"
            )
        return made

    # --- making it ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """From here on it is unfinished."""
        self._began, self._rejected, self._files = time.monotonic(), {}, {}
        self._reject_file = None
        self._verified.clear()
        try:
            os.makedirs(self.directory, exist_ok=True)
            for name in sorted(os.listdir(self.directory), key=lambda name: name != MANIFEST):  # it goes first: a kill leaves none
                if name == MANIFEST or name.endswith(".jsonl.gz"):
                    os.remove(os.path.join(self.directory, name))
        except OSError as error:
            raise UsageError(
                f"{self.directory} cannot be written: {error.strerror}; give another --workdir, or make room"
            ) from error

    def write(self, language: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Writes the rows of a language and returns how many they are."""
        count, name = 0, f"{language}.jsonl.gz"
        with self._room(name), self._open(name) as file:
            for row in rows:
                file.write(canonical_bytes(row) + b"\n")
                count += 1
        self._files[name] = {"rows": count, "sha256": file_digest(os.path.join(self.directory, name))}
        return count

    def reject(self, language: str, reason: str, row_id: str, text: str) -> None:
        """Counts what is not kept, and notes its first letters."""
        self.count(language, reason)
        if self._reject_file is None:
            self._reject_file = self._open("rejected.jsonl.gz")
        with self._room("rejected.jsonl.gz"):
            self._reject_file.write(canonical_bytes({"id": row_id, "lang": language, "reason": reason, "text": text[:300]}) + b"\n")

    def count(self, language: str, reason: str, many: int = 1) -> None:
        """Counts what is not kept and has nothing wrong with it, such as what is beyond a target."""
        if many:
            self._rejected.setdefault(language, Counter())[reason] += many

    def rejected(self) -> dict[str, dict[str, int]]:
        """Counts by language and reason so far, of a finished stage all."""
        made = self.manifest()
        return made["rejected"] if made else {code: dict(sorted(count.items())) for code, count in self._rejected.items()}

    def finish(self, inputs: Mapping[str, Any], *, found: Mapping[str, Any], passed_on: Mapping[str, Any] | None = None) -> None:
        """Writes the manifest. found: what the report tells; passed_on: what later stages depend on beside the rows."""
        if self._reject_file is not None:
            with self._room("rejected.jsonl.gz"):
                self._reject_file.close()
            self._reject_file = None
        made = {
            "stage": self.name,
            "inputs": dict(inputs),
            "files": self._files,
            "rejected": self.rejected(),
            "found": dict(found),
            "passed_on": dict(passed_on or {}),
            "versions": _versions(),
            "seconds": round(time.monotonic() - self._began, 1),
        }
        self._replace(MANIFEST, json.dumps(made, ensure_ascii=False, indent=1, sort_keys=True).encode())

    def _open(self, name: str) -> PlainGzip:
        with self._room(name):
            return PlainGzip(os.path.join(self.directory, name))

    @contextmanager
    def _room(self, name: str) -> Iterator[None]:
        """A full disk, in words."""
        try:
            yield
        except OSError as error:
            path = os.path.join(self.directory, name)
            raise UsageError(f"{path} cannot be written: {error.strerror}; make room and give the same command") from error

    def _replace(self, name: str, data: bytes) -> None:
        """A kill leaves the old file or the new one."""
        path = os.path.join(self.directory, name)
        with self._room(name):
            with open(path + ".tmp", "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path + ".tmp", path)

    # --- reading it ---------------------------------------------------------------------------------------------------

    def rows(self, language: str) -> Iterator[Row]:
        """The rows of a language, one at a time. Raises UsageError where the stage is not finished, or the file is not the one
        that it wrote.
        """
        name = f"{language}.jsonl.gz"
        path, made = os.path.join(self.directory, name), self._files or self._finished()["files"]
        if name not in made:
            return
        if name not in self._verified and (not os.path.exists(path) or file_digest(path) != made[name]["sha256"]):
            raise UsageError(
                f"{path} is not what stage {self.name} wrote: it was changed or damaged. --from={self.name} makes it again"
            )
        self._verified.add(name)
        with gzip.open(path, "rb") as file:
            for line in file:
                yield json.loads(line)


def _short(value: Any) -> str:
    said = json.dumps(value, ensure_ascii=False)
    return said if len(said) <= 120 else f"{said[:117]}…"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "x_instruction": str(VERSION)}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
