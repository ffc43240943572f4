"""The journal alone: what is on disk when, what it counts as spent, what a full disk and a stranger's file do."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.journal import DONE, Journal, open_journal
from data_gen.limits import Price, Usage


def plan(journal: Journal, idx: int, body: str = "") -> None:
    journal.plan(idx, body or f"body {idx}", {"side": "train"}, "url")


def on_disk(workdir: Path, sql: str) -> list[tuple]:
    db = sqlite3.connect(workdir / "journal.sqlite")
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def test_each_step_is_on_disk_before_the_next_and_many_share_a_commit(tmp_path: Path) -> None:
    async def steps(journal: Journal) -> int:
        requests = [journal.plan(idx, f"body {idx}", {}, "url") for idx in range(50)]
        seen: list[str] = []
        journal._db.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)

        async def one(idx: int) -> None:
            await journal.committed()
            assert on_disk(tmp_path, f"SELECT count(*) FROM request WHERE idx = {idx}") == [(1,)]
            attempt = journal.sent(requests[idx], Usage(10, 20), 0.5)
            await journal.committed()
            assert on_disk(tmp_path, f"SELECT ended_at FROM attempt WHERE idx = {idx}") == [(None,)]
            journal.answered(attempt, "reply", Usage(7, 8), 0.1)
            await journal.committed()
            assert on_disk(tmp_path, f"SELECT status FROM request WHERE idx = {idx}") == [(DONE,)]

        await asyncio.gather(*(one(idx) for idx in range(50)))
        return len(seen)

    with open_journal(str(tmp_path)) as journal:
        assert asyncio.run(steps(journal)) <= 10
        assert [request.reply for request in journal.requests()] == ["reply"] * 50


def test_one_that_is_cancelled_does_not_cancel_the_commit(tmp_path: Path) -> None:
    async def two(journal: Journal) -> None:
        plan(journal, 0)
        first, second = asyncio.create_task(journal.committed()), asyncio.create_task(journal.committed())
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled() and on_disk(tmp_path, "SELECT count(*) FROM request") == [(1,)]

    with open_journal(str(tmp_path)) as journal:
        asyncio.run(two(journal))


def test_what_is_spent(tmp_path: Path) -> None:
    """An attempt whose outcome nobody knows counts with its worst case; one of a batch that goes on is not spent yet."""
    price = Price(1.0, 10.0)
    with open_journal(str(tmp_path)) as journal:
        for idx in range(5):
            plan(journal, idx)
        requests = list(journal.requests())
        attempts = [journal.sent(request, Usage(100, 1000), price.of(Usage(100, 1000))) for request in requests[:4]]
        journal.answered(attempts[0], "a reply", Usage(50, 200, 30), 0.002)
        journal.refused(attempts[1], "HTTP 500", None, Usage(), 0.0)
        journal.answered(attempts[2], "before the price was known", Usage(10, 10), None)
        journal.sent(requests[4], Usage(100, 1000), 0.0101, journal.begin_batch("tag"))
        assert journal.spent()[1] == pytest.approx(0.002 + price.of(Usage(100, 1000)))
        journal.price_unpriced(price, price)
        journal.price_unpriced(Price(1000.0, 1000.0), price)  # once, and not again
        usage, dollars = journal.spent()
        assert usage == Usage(50 + 10 + 100, 200 + 10 + 1000, 30)
        assert dollars == pytest.approx(0.002 + 0.0 + price.of(Usage(10, 10)) + price.of(Usage(100, 1000)))
        assert (journal.ambiguous(), journal.retries()) == (1, 1)
        [batch] = journal.open_batches()
        assert (batch.tag, batch.id, [attempt.idx for attempt in batch.attempts]) == ("tag", None, [4])
        assert batch.attempts[0].key == requests[4].key
        journal.end_batch(batch.number)
        assert journal.open_batches() == []


def test_the_same_body_again_is_another_sample(tmp_path: Path) -> None:
    with open_journal(str(tmp_path)) as journal:
        keys = {journal.plan(idx, "the same", {}, "url").key for idx in range(3)}
        assert len(keys) == 3
    with open_journal(str(tmp_path / "again")) as journal:
        assert {journal.plan(idx, "the same", {}, "url").key for idx in range(3)} == keys
        assert journal.plan(3, "the same", {}, "another url").key not in keys


def test_items_are_kept_by_outcome_and_split(tmp_path: Path) -> None:
    with open_journal(str(tmp_path)) as journal:
        journal.keep_items(1, [("accepted", "train", "c"), ("similar", "train", "d"), ("accepted", "heldout", "e")])
        journal.keep_items(0, [("accepted", "train", "a"), ("malformed", "train", "b")])
        assert list(journal.accepted("train")) == ["a", "c"] and list(journal.accepted("heldout")) == ["e"]
        assert list(journal.rejected()) == ["b", "d"] and journal.item(1, 2) == "e"
        journal.forget_items()
        assert not [*journal.accepted("train"), *journal.rejected()]


def test_a_full_disk_stops_cleanly_and_what_was_committed_is_whole(tmp_path: Path) -> None:
    """The database may grow by 50 pages of 4 KiB: SQLite's own "disk is full"."""
    with open_journal(str(tmp_path)) as journal:
        journal._db.execute("PRAGMA max_page_count = 50")
        count = 0
        with pytest.raises(UsageError, match="journal.sqlite cannot be written: database or disk is full.*make room"):
            while True:
                plan(journal, count, body="x" * 3000)
                journal.commit()
                count += 1
    assert count > 20 and on_disk(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    with open_journal(str(tmp_path)) as journal:
        assert [request.idx for request in journal.requests()] == list(range(count))
        plan(journal, count)


FILL = """
import resource, sys
sys.path.insert(0, {root!r})
from data_gen.journal import open_journal
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with open_journal({workdir!r}) as journal:
    for idx in range(1000):
        journal.plan(idx, "x" * 3000, {{}}, f"url {{idx}}")
        journal.commit()
        print(idx, flush=True)
"""


def test_a_file_that_may_not_grow_stops_cleanly_too(tmp_path: Path) -> None:
    """The system refuses the write itself, in another process: the error comes from the operating system."""
    code = FILL.format(root=str(Path(__file__).resolve().parents[1]), workdir=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "UsageError" in done.stderr and "cannot be written" in done.stderr
    committed = int(done.stdout.split()[-1]) + 1
    assert committed > 5 and on_disk(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    with open_journal(str(tmp_path)) as journal:
        assert len(list(journal.requests())) in (committed, committed + 1)


def test_nothing_is_sent_when_the_replies_would_find_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_journal(str(tmp_path)) as journal:
        journal.check_room(8)
        usage = type("usage", (), {"free": 65 << 20})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        journal.check_room(2)
        with pytest.raises(UsageError, match="65 MiB left, 96 are wanted.*nothing more is sent"):
            journal.check_room(128)


def test_another_version_is_refused(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    db.execute("CREATE TABLE request (idx INTEGER PRIMARY KEY, task TEXT)")
    db.commit()
    db.close()
    with pytest.raises(UsageError, match="another version of this program"), open_journal(str(tmp_path)):
        pass
    assert os.path.exists(tmp_path / "journal.sqlite")


def test_whatever_a_commit_meets_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def commit(journal: Journal) -> None:
        await asyncio.wait_for(journal.committed(), 5)

    class Broken:
        def __init__(self, db: sqlite3.Connection) -> None:
            self.db = db

        def commit(self) -> None:
            raise sqlite3.DatabaseError("database disk image is malformed")

    with open_journal(str(tmp_path)) as journal:
        good = journal._db
        journal._db = Broken(good)  # type: ignore[assignment]
        with pytest.raises(UsageError, match="journal.sqlite is damaged.*malformed.*another --workdir"):
            asyncio.run(commit(journal))
        journal._db = good


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    with open_journal(str(tmp_path)) as journal:
        for idx in range(300):
            plan(journal, idx, body="x" * 1000 + str(idx))
    data = bytearray((tmp_path / "journal.sqlite").read_bytes())
    for page in range(12, len(data) // 4096):
        data[page * 4096 : page * 4096 + 2000] = b"\xff" * 2000
    (tmp_path / "journal.sqlite").write_bytes(data)
    with pytest.raises(UsageError, match=r"journal.sqlite (is damaged|is not a journal)"), open_journal(str(tmp_path)) as journal:
        list(journal.requests())
