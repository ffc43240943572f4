"""The journal of one work directory: every request and every attempt to have it answered, in SQLite. It sends and
parses nothing.

A request goes planned → done or failed. An attempt is committed before it is sent, and its outcome (the raw reply, or why
there is none of use) in one commit. So a killed run continues from here: what is done is never asked again; an attempt
without an outcome was in flight at a crash (perhaps answered and paid for, nobody can know) and is counted as ambiguous.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from data_gen import UsageError
from data_gen.record import canonical_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS config (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS request (
  idx INTEGER PRIMARY KEY, key TEXT NOT NULL, task TEXT NOT NULL, side TEXT NOT NULL, view INTEGER NOT NULL,
  demos TEXT NOT NULL, body TEXT NOT NULL, status TEXT NOT NULL, planned_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempt (
  idx INTEGER NOT NULL, number INTEGER NOT NULL, sent_at REAL NOT NULL, ended_at REAL, error TEXT, reply TEXT,
  PRIMARY KEY (idx, number));
"""
PLANNED, DONE, FAILED = "planned", "done", "failed"


@dataclass(frozen=True)
class Request:
    """One request. `view` is the last request whose accepted items it knew; `body` is the exact text sent."""

    idx: int
    key: str
    task: str
    side: str
    view: int
    demos: tuple[str, ...]
    body: str
    status: str = PLANNED
    reply: str | None = None  # raw, of a done request


def request_key(body: str, endpoint: str) -> str:
    """SHA-256 of the exact body and the endpoint: what was asked, of whom."""
    return hashlib.sha256(f"{endpoint}\n{body}".encode()).hexdigest()


class Journal:
    """Open it with `open_journal`, which also takes the lock."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def requests(self) -> list[Request]:
        """All requests in order; a done one with its raw reply. Raises UsageError when one is missing or there twice."""
        rows = self._db.execute(
            "SELECT r.idx, key, task, side, view, demos, body, status, reply FROM request r LEFT JOIN attempt a "
            "ON r.status = 'done' AND a.idx = r.idx AND a.reply IS NOT NULL AND a.error IS NULL ORDER BY r.idx"
        )
        requests = [replace(Request(*row), demos=tuple(json.loads(row[5]))) for row in rows]
        if [request.idx for request in requests] != list(range(len(requests))):
            raise UsageError("journal.sqlite is damaged: its requests are not 0, 1, 2 …; give another --workdir")
        return requests

    def ambiguous(self) -> int:
        """Attempts that were in flight when a process died. Meaningful before this process sends anything."""
        return int(self._db.execute("SELECT count(*) FROM attempt WHERE ended_at IS NULL").fetchone()[0])

    def plan(self, request: Request) -> None:
        with self._db:
            self._db.execute(
                "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (request.idx, request.key, request.task, request.side, request.view, json.dumps(request.demos))
                + (request.body, PLANNED, time.time()),
            )

    def sent(self, idx: int) -> int:
        """Notes that an attempt is about to be sent and returns its number, from 1."""
        with self._db:
            last = self._db.execute("SELECT coalesce(max(number), 0) FROM attempt WHERE idx = ?", (idx,)).fetchone()[0]
            self._db.execute("INSERT INTO attempt (idx, number, sent_at) VALUES (?, ?, ?)", (idx, last + 1, time.time()))
        return int(last) + 1

    def answered(self, idx: int, number: int, reply: str) -> None:
        """Keeps a raw reply that was found to be well-formed: the request is done."""
        with self._db:
            self._end(idx, number, None, reply)
            self._db.execute("UPDATE request SET status = ? WHERE idx = ?", (DONE, idx))

    def refused(self, idx: int, number: int, error: str, reply: str | None = None) -> None:
        """An attempt came to nothing (with the useless reply, if there was one): the request stays open."""
        with self._db:
            self._end(idx, number, error, reply)

    def _end(self, idx: int, number: int, error: str | None, reply: str | None) -> None:
        self._db.execute(
            "UPDATE attempt SET ended_at = ?, error = ?, reply = ? WHERE idx = ? AND number = ?",
            (time.time(), error, reply, idx, number),
        )

    def set_status(self, idx: int, status: str) -> None:
        """FAILED: given up for good, the run goes on without its items. PLANNED: to be asked again after all."""
        with self._db:
            self._db.execute("UPDATE request SET status = ? WHERE idx = ?", (status, idx))

    def check_config(self, identity: Mapping[str, Any], targets: Mapping[str, int]) -> None:
        """Keeps the config at the first call and compares later ones with it: what is asked must not change half-way.

        `identity` must stay equal (names may join and leave). `targets` may change: when one shrinks, requests without a
        reply are given up, so that what was answered can be written without asking more. As long as nothing was answered
        nothing is bound: the journal begins anew. Raises UsageError naming the key.
        """
        stored = {name: json.loads(value) for name, value in self._db.execute("SELECT name, value FROM config")}
        changed = [name for name in identity if name in stored and stored[name] != identity[name]]
        shrunk = any(count < stored.get(name, 0) for name, count in targets.items())
        answered = self._db.execute("SELECT count(*) FROM request WHERE status = ?", (DONE,)).fetchone()[0]
        if changed and answered:
            name = changed[0]
            raise UsageError(
                f"this work directory was begun with {name}={stored[name]!r}, now it is {identity[name]!r}: set it back, "
                "or give another --workdir"
            )
        with self._db:
            if shrunk:
                self._db.execute("UPDATE request SET status = ? WHERE status != ?", (FAILED, DONE))
            if (changed or shrunk) and not answered:
                self._db.execute("DELETE FROM request")
                self._db.execute("DELETE FROM attempt")
                self._db.execute("DELETE FROM config")
            rows = [(name, canonical_json(value)) for name, value in {**targets, **identity}.items()]
            self._db.executemany("INSERT OR REPLACE INTO config VALUES (?, ?)", rows)


def _prepare(db: sqlite3.Connection, workdir: str) -> None:
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut; about 6,000 commits a second
        db.executescript(_SCHEMA)
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{workdir}/journal.sqlite is not a journal: {error}; give another --workdir") from error


@contextmanager
def open_journal(workdir: str) -> Iterator[Journal]:
    """Opens or makes `workdir/journal.sqlite` for this process alone.

    Raises UsageError when another process has it, when `workdir` is not a local directory that can be written (SQLite
    needs one), and when its journal.sqlite is none.
    """
    if "://" in workdir:
        raise UsageError(f"--workdir={workdir} is not a local directory; generate locally and copy its data/ afterwards")
    try:
        os.makedirs(workdir, exist_ok=True)
        lock = open(os.path.join(workdir, "journal.lock"), "w")
    except OSError as error:
        raise UsageError(f"--workdir={workdir} cannot be a work directory: {error.strerror}; give another") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process dies, however it dies
        except BlockingIOError:
            raise UsageError(f"another process is working in {workdir}; wait for it, or give another --workdir") from None
        db = sqlite3.connect(os.path.join(workdir, "journal.sqlite"))
        try:
            _prepare(db, workdir)
            yield Journal(db)
        finally:
            db.close()
