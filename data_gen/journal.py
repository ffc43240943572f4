"""The journal of one work directory: every request, every attempt to have it answered, every item that came of it, in
SQLite. It sends and parses nothing.

A request is planned, then done or failed; an attempt is written before it is sent, and its outcome (raw reply, tokens,
cost) before anything is made of it. Each of these is on disk before the next begins. So a killed run continues from here: what
is done is never asked again; an attempt without an outcome was in flight at a crash (perhaps answered and paid for, nobody
can know): it is counted as ambiguous, and as spent. Items can be made again from the raw replies at any time.

Many requests share one commit: whoever needs one waits a few milliseconds for it (`committed`), because a disk flushes
perhaps a hundred times a second and a teacher answers more often than that.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from data_gen import UsageError
from data_gen.limits import Price, Usage
from data_gen.record import Item, canonical_json

_VERSION = 3
_SCHEMA = """
CREATE TABLE IF NOT EXISTS config (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS request (
  idx INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, about TEXT NOT NULL, body TEXT NOT NULL, status TEXT NOT NULL,
  planned_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS attempt (
  idx INTEGER NOT NULL, number INTEGER NOT NULL, sent_at REAL NOT NULL, ended_at REAL, prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, cost REAL, batch INTEGER, error TEXT, reply TEXT,
  PRIMARY KEY (idx, number));
CREATE INDEX IF NOT EXISTS open_attempt ON attempt (batch) WHERE ended_at IS NULL;
CREATE TABLE IF NOT EXISTS item (
  idx INTEGER NOT NULL, number INTEGER NOT NULL, outcome TEXT NOT NULL, split TEXT NOT NULL, line TEXT NOT NULL,
  PRIMARY KEY (idx, number));
CREATE TABLE IF NOT EXISTS batch (number INTEGER PRIMARY KEY, tag TEXT NOT NULL, id TEXT, ended_at REAL);
CREATE TABLE IF NOT EXISTS review (
  item TEXT NOT NULL, reviewer TEXT NOT NULL, date TEXT NOT NULL, verdict TEXT NOT NULL, error TEXT NOT NULL, correction TEXT,
  PRIMARY KEY (item, reviewer));
"""
PLANNED, DONE, FAILED = "planned", "done", "failed"
# Requests that bind: answered, or in a batch that goes on.
_BEGUN = f"status = '{DONE}' OR idx IN (SELECT idx FROM attempt WHERE batch IS NOT NULL AND ended_at IS NULL)"
ACCEPTED, WAITING = "accepted", "waiting"  # outcomes of an item that is not rejected; the second, that it is being checked
COMMIT_S = 0.005  # how long a commit gathers writes
ROOM_BYTES = 64 << 20  # free on the disk, or nothing more is sent: what is under way must find its place
ROOM_BYTES_A_REQUEST = 1 << 18
_PAGE = 500


@dataclass(frozen=True)
class Request:
    """One request. `body` is the exact text sent; `about` what the recipe must know to accept its reply."""

    idx: int
    key: str
    about: dict[str, Any]
    body: str
    status: str = PLANNED
    reply: str | None = None  # raw, of a done request


@dataclass(frozen=True)
class Attempt:
    """An attempt on its way: its request, its number from 1, and the most it can cost (tokens; dollars where priced)."""

    key: str
    idx: int
    number: int
    worst: Usage
    worst_cost: float | None


@dataclass(frozen=True)
class Batch:
    """A batch that has not ended. `id` None: a crash came before the provider's answer; `tag` finds it there."""

    number: int
    tag: str
    id: str | None
    begun_at: float  # seconds since 1970
    attempts: list[Attempt]


@dataclass(frozen=True)
class Review:
    """What a person says of an accepted item: `verdict` ok, wrong or unsure, `error` what kind of error ("" if none is named),
    `correction` the item as it should be.
    """

    item: str  # its id
    reviewer: str
    date: str  # ISO 8601
    verdict: str
    error: str = ""
    correction: Item | None = None


def request_key(body: str, endpoint: str, sample: int = 0) -> str:
    """SHA-256 of the exact body, the endpoint and how often the same was asked before: what was asked, of whom."""
    return hashlib.sha256(f"{endpoint}\n{sample}\n{body}".encode()).hexdigest()


class Journal:
    """Open it with `open_journal`, which also takes the lock. Raises UsageError when the disk takes no more."""

    def __init__(self, db: sqlite3.Connection, directory: str) -> None:
        self._db, self._directory = db, directory
        self._commit: asyncio.Future[None] | None = None

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self, sql: str, values: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        with self._disk_errors():
            return self._db.execute(sql, values)

    def _read(self, sql: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._disk_errors():
            return self._db.execute(sql, values).fetchall()

    def commit(self) -> None:
        """Everything written so far is on disk when this returns."""
        with self._disk_errors():
            self._db.commit()

    async def committed(self) -> None:
        """As `commit`, together with whoever else waits for one."""
        loop = asyncio.get_running_loop()
        if self._commit is None:
            self._commit = loop.create_future()
            loop.call_later(COMMIT_S, self._commit_for_all, self._commit)
        await asyncio.shield(self._commit)  # one waiter that is cancelled does not cancel the commit

    def _commit_for_all(self, waiting: asyncio.Future[None]) -> None:
        self._commit = None
        try:
            self.commit()
        except UsageError as error:
            waiting.set_exception(error)
            waiting.exception()  # there may be nobody left to hear it
        else:
            waiting.set_result(None)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise UsageError(
                f"{self._directory}/journal.sqlite cannot be written: {error}. What was committed before is whole; make room and "
                "give the same command"
            ) from error
        except sqlite3.Error as error:
            said = f"{self._directory}/journal.sqlite is damaged: {error}"
            raise UsageError(f"{said}. Restore a copy, or give another --workdir") from error

    def check_room(self, under_way: int) -> None:
        """Raises UsageError while there is still room for the replies under way."""
        free, needed = shutil.disk_usage(self._directory).free, ROOM_BYTES + under_way * ROOM_BYTES_A_REQUEST
        if free < needed:
            raise UsageError(
                f"{self._directory} has {free >> 20} MiB left, {needed >> 20} are wanted for the replies under way and the data: "
                "nothing more is sent. Make room and give the same command"
            )

    # --- requests -----------------------------------------------------------------------------------------------------

    def requests(self) -> Iterator[Request]:
        """All requests in order; a done one with its raw reply. Raises UsageError when one is missing."""
        idx = 0
        while True:
            rows = self._read(
                "SELECT r.idx, key, about, body, status, reply FROM request r LEFT JOIN attempt a "
                "ON r.status = 'done' AND a.idx = r.idx AND a.reply IS NOT NULL AND a.error IS NULL "
                "WHERE r.idx >= ? ORDER BY r.idx LIMIT ?",
                (idx, _PAGE),
            )
            for row in rows:
                if row[0] != idx:
                    raise UsageError("journal.sqlite is damaged: its requests are not 0, 1, 2 …; give another --workdir")
                yield Request(idx, row[1], json.loads(row[2]), *row[3:])
                idx += 1
            if not rows:
                return

    def plan(self, idx: int, body: str, about: dict[str, Any], endpoint: str, sample: int = 0) -> Request:
        """Notes a new request, whose number is the next one; as the first sample from `sample` on that was not asked for."""
        while self._read("SELECT 1 FROM request WHERE key = ?", (request_key(body, endpoint, sample),)):
            sample += 1
        request = Request(idx, request_key(body, endpoint, sample), about, body)
        row = (idx, request.key, canonical_json(about), body, PLANNED, time.time())
        self._write("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", row)
        return request

    def count(self) -> int:
        """How many requests there are: the number of the next one."""
        return int(self._read("SELECT count(*) FROM request")[0][0])

    def find(self, key: str) -> Request | None:
        """The request of a key (request_key), a done one with its raw reply; None where there is none."""
        rows = self._read(
            "SELECT r.idx, key, about, body, status, reply FROM request r LEFT JOIN attempt a "
            "ON r.status = 'done' AND a.idx = r.idx AND a.reply IS NOT NULL AND a.error IS NULL WHERE key = ?",
            (key,),
        )
        return Request(rows[0][0], rows[0][1], json.loads(rows[0][2]), *rows[0][3:]) if rows else None

    def last_error(self, idx: int) -> str:
        """What a request's last attempt came to; "" where it came to a reply, or there was none."""
        rows = self._read("SELECT error FROM attempt WHERE idx = ? ORDER BY number DESC LIMIT 1", (idx,))
        return rows[0][0] or "" if rows else ""

    def tasks(self) -> set[str]:
        """What has been asked for."""
        return {task for (task,) in self._read("SELECT DISTINCT json_extract(about, '$.task') FROM request") if task}

    def checks(self) -> set[str]:
        """The checks that something was asked for."""
        return {check for (check,) in self._read("SELECT DISTINCT json_extract(about, '$.check') FROM request") if check}

    def set_status(self, idx: int, status: str) -> None:
        """DONE: it has its reply. FAILED: given up for good, the run goes on without its items."""
        self._write("UPDATE request SET status = ? WHERE idx = ?", (status, idx))

    # --- attempts -----------------------------------------------------------------------------------------------------

    def sent(self, request: Request, worst: Usage, worst_cost: float | None, batch: int | None = None) -> Attempt:
        """Notes that an attempt is about to be sent. Until its outcome is known it counts with its worst case."""
        number = self._write(
            "INSERT INTO attempt SELECT ?, coalesce(max(number), 0) + 1, ?, NULL, ?, ?, ?, ?, ?, NULL, NULL "
            "FROM attempt WHERE idx = ? RETURNING number",
            (request.idx, time.time(), worst.prompt, worst.completion, worst.cached, worst_cost, batch, request.idx),
        ).fetchone()[0]
        return Attempt(request.key, request.idx, number, worst, worst_cost)

    def answered(self, attempt: Attempt, reply: str, usage: Usage, cost: float | None) -> None:
        """Keeps a raw reply that was found to be well-formed: the request is done."""
        self._end(attempt, None, reply, usage, cost)
        self.set_status(attempt.idx, DONE)

    def refused(self, attempt: Attempt, error: str, reply: str | None, usage: Usage, cost: float | None) -> None:
        """An attempt came to nothing (with the useless reply, if there was one): the request stays open."""
        self._end(attempt, error, reply, usage, cost)

    def _end(self, attempt: Attempt, error: str | None, reply: str | None, usage: Usage, cost: float | None) -> None:
        self._write(
            "UPDATE attempt SET ended_at = ?, error = ?, reply = ?, prompt_tokens = ?, completion_tokens = ?, cached_tokens = ?, "
            "cost = ? WHERE idx = ? AND number = ?",
            (time.time(), error, reply, usage.prompt, usage.completion, usage.cached, cost, attempt.idx, attempt.number),
        )

    def ambiguous(self) -> int:
        """Attempts that were in flight when a process died. Meaningful before this process sends anything."""
        return int(self._read("SELECT count(*) FROM attempt WHERE ended_at IS NULL AND batch IS NULL")[0][0])

    def retries(self) -> int:
        """Attempts that came to nothing."""
        return int(self._read("SELECT count(*) FROM attempt WHERE error IS NOT NULL")[0][0])

    def price_unpriced(self, direct: Price, in_batch: Price) -> None:
        """What was asked before a price was known costs what it would now, from now on. A batch that goes on is not yet spent."""
        for idx, number, batch, *tokens in self._read(
            "SELECT idx, number, batch, prompt_tokens, completion_tokens, cached_tokens FROM attempt "
            "WHERE cost IS NULL AND (batch IS NULL OR ended_at IS NOT NULL)"
        ):
            cost = (direct if batch is None else in_batch).of(Usage(*tokens))
            self._write("UPDATE attempt SET cost = ? WHERE idx = ? AND number = ?", (cost, idx, number))
        self.commit()

    def spent(self) -> tuple[Usage, float]:
        """Tokens and dollars of all attempts but those in a batch that goes on; ambiguous ones with their worst case."""
        [(*tokens, cost)] = self._read(
            "SELECT total(prompt_tokens), total(completion_tokens), total(cached_tokens), total(cost) FROM attempt "
            "WHERE ended_at IS NOT NULL OR batch IS NULL"
        )
        return Usage(*map(int, tokens)), cost

    # --- batches ------------------------------------------------------------------------------------------------------

    def begin_batch(self, tag: str) -> int:
        """A batch is about to be made at the provider under this tag; its attempts name the number returned."""
        return int(self._write("INSERT INTO batch (tag) VALUES (?) RETURNING number", (tag,)).fetchone()[0])

    def name_batch(self, number: int, batch_id: str) -> None:
        """The provider's name for it."""
        self._write("UPDATE batch SET id = ? WHERE number = ?", (batch_id, number))

    def end_batch(self, number: int) -> None:
        """All its attempts have their outcome."""
        self._write("UPDATE batch SET ended_at = ? WHERE number = ?", (time.time(), number))

    def open_batches(self) -> list[Batch]:
        """Batches that go on at the provider, or may: their results are still to be fetched."""
        return [
            Batch(number, tag, batch_id, begun_at or 0.0, [
                Attempt(key, idx, nth, Usage(*tokens), cost)
                for key, idx, nth, *tokens, cost in self._read(
                    "SELECT key, a.idx, number, prompt_tokens, completion_tokens, cached_tokens, cost "
                    "FROM attempt a JOIN request r ON r.idx = a.idx WHERE batch = ? AND ended_at IS NULL ORDER BY a.idx",
                    (number,),
                )
            ])
            for number, tag, batch_id, begun_at in self._read(
                "SELECT number, tag, id, (SELECT min(sent_at) FROM attempt a WHERE a.batch = b.number AND a.ended_at IS NULL) "
                "FROM batch b WHERE ended_at IS NULL"
            )
        ]  # fmt: skip

    # --- items --------------------------------------------------------------------------------------------------------

    def keep_items(self, idx: int, items: Iterable[tuple[str, str, str]]) -> None:
        """(outcome, split, line of JSON) of each item in a request's reply; the outcome is "accepted" or the reason."""
        with self._disk_errors():
            rows = [(idx, number, *item) for number, item in enumerate(items)]
            self._db.executemany("INSERT INTO item VALUES (?, ?, ?, ?, ?)", rows)

    def settle_items(self, idx: int, items: Iterable[tuple[int, str, str]]) -> None:
        """(number, outcome, line of JSON) of items of a request whose outcome was open until now."""
        with self._disk_errors():
            rows = [(outcome, line, idx, number) for number, outcome, line in items]
            self._db.executemany("UPDATE item SET outcome = ?, line = ? WHERE idx = ? AND number = ?", rows)

    def forget_items(self) -> None:
        """Before the raw replies are read again."""
        self._write("DELETE FROM item")

    def item(self, idx: int, number: int) -> str:
        """The line of one item."""
        return str(self._read("SELECT line FROM item WHERE idx = ? AND number = ?", (idx, number))[0][0])

    def accepted(self, split: str) -> Iterator[str]:
        """The lines of a split's accepted items in order. Nothing may be written meanwhile."""
        return self._lines("outcome = ? AND split = ?", (ACCEPTED, split))

    def rejected(self) -> Iterator[str]:
        """The lines of the rejected items in order."""
        return self._lines("outcome NOT IN (?, ?)", (ACCEPTED, WAITING))

    def _lines(self, where: str, values: tuple[Any, ...]) -> Iterator[str]:
        with self._disk_errors():
            for (line,) in self._db.execute(f"SELECT line FROM item WHERE {where} ORDER BY idx, number", values):
                yield line

    # --- reviews by people ----------------------------------------------------------------------------------------------

    def keep_reviews(self, reviews: Iterable[Review]) -> None:
        """Keeps what people say of items; of the same reviewer and item the last word stands."""
        rows = [
            (r.item, r.reviewer, r.date, r.verdict, r.error, canonical_json(asdict(r.correction)) if r.correction else None)
            for r in reviews
        ]
        with self._disk_errors():
            self._db.executemany("INSERT OR REPLACE INTO review VALUES (?, ?, ?, ?, ?, ?)", rows)
        self.commit()

    def reviews(self) -> list[Review]:
        """All reviews, the oldest first."""
        rows = self._read("SELECT item, reviewer, date, verdict, error, correction FROM review ORDER BY date, rowid")
        return [
            Review(item, who, date, verdict, error, Item(**json.loads(line)) if line else None)
            for item, who, date, verdict, error, line in rows
        ]

    # --- the config that the directory was begun with -------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """The config that this directory was begun with, by name. Empty as long as nothing was answered: nothing is bound."""
        bound = self._read(f"SELECT 1 FROM request WHERE {_BEGUN} LIMIT 1")
        return {name: json.loads(value) for name, value in self._read("SELECT name, value FROM config")} if bound else {}

    def keep_config(self, identity: Mapping[str, Any], targets: Mapping[str, int]) -> None:
        """Keeps the config at the first call and compares later ones with it: what is asked must not change half-way.

        `identity` must stay equal (names may join and leave). `targets` may change: when one shrinks, requests without a
        reply are given up, so that what was answered can be written without asking more. As long as nothing was answered
        the requests begin anew (not what attempts may have cost). Raises UsageError naming the key.
        """
        stored = self.config()
        check_same(stored, identity)
        if not stored:
            for table in ("request", "item", "config"):
                self._write(f"DELETE FROM {table}")
            self._write("UPDATE attempt SET idx = -rowid WHERE idx >= 0")
        elif any(count < stored.get(name, 0) for name, count in targets.items()):
            self._write(f"UPDATE request SET status = '{FAILED}' WHERE NOT ({_BEGUN})")
        for name, value in {**targets, **identity}.items():
            self._write("INSERT OR REPLACE INTO config VALUES (?, ?)", (name, canonical_json(value)))
        self.commit()


def check_same(stored: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raises UsageError naming the first value that is not what a directory was begun with."""
    for name, value in identity.items():
        if name in stored and stored[name] != value:
            raise UsageError(
                f"this work directory was begun with {name}={stored[name]!r}, now it is {value!r}: set it back, "
                "or give another --workdir"
            )


def _prepare(db: sqlite3.Connection, workdir: str) -> None:
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # a commit survives a power cut
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION and db.execute("SELECT 1 FROM sqlite_master WHERE name = 'request'").fetchone():
            raise UsageError(f"{workdir}/journal.sqlite was made by another version of this program; give another --workdir")
        db.executescript(_SCHEMA)
        db.execute(f"PRAGMA user_version = {_VERSION}")
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
            journal = Journal(db, workdir)
            try:
                yield journal
            finally:
                journal.commit()
        finally:
            db.close()
