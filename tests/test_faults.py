"""Everything that a server can do wrong, by the offline teacher on demand: the data is that of a run where nothing went wrong."""

import hashlib
import json
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path

import pytest

from data_gen.config import SelfInstructConfig
from data_gen.offline.faults import CONTENT, TRANSPORT
from tests.local_teacher import LocalTeacher
from tests.test_self_instruct import config, generate, outcome, query

TARGETS = {"generation": 90, "ethics": 90, "sentiment": 90}


def faulty(faults: str, timeout_s: float = 2, **more: object) -> SelfInstructConfig:
    made = config("offline", targets=TARGETS, in_flight=16, **more)
    made.pool_lag, made.teacher.terms = 64, ""
    made.teacher.model = "offline-teacher"
    made.teacher.offline_faults, made.teacher.timeout_s = faults, timeout_s
    return made


def truth(workdir: Path) -> Counter[tuple[str, bool]]:
    """How often each request was answered, and how often not."""
    rows = map(json.loads, (workdir / "offline_truth.jsonl").read_text(encoding="utf-8").splitlines())
    return Counter((row["request"], row["answered"]) for row in rows if "answered" in row)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("undisturbed")
    generate(place, faulty(""))
    return outcome(place)


@pytest.mark.parametrize("kind", TRANSPORT)
def test_each_fault_of_the_line_changes_nothing(tmp_path: Path, undisturbed: dict[str, bytes], kind: str) -> None:
    """Many requests meet it once; a clock a day ahead (retry_after_date) makes nobody wait a day."""
    began = time.monotonic()
    share = 0.04 if kind.startswith("retry_after") else 0.14  # each one of these holds all requests for a second
    summary = generate(tmp_path, faulty(f"{kind}={share}"))
    assert outcome(tmp_path) == undisturbed and summary.failed == 0
    answered = truth(tmp_path)
    faults = sum(not good for _, good in answered)
    assert faults >= (1 if share < 0.1 else 3) and set(answered.values()) == {1}, "asked again once, and never after a good reply"
    errors = [text for (text,) in query(tmp_path, "SELECT error FROM attempt WHERE error IS NOT NULL")]
    assert len(errors) == faults, errors[:3]
    assert time.monotonic() - began < 60


def test_all_of_them_at_once_with_a_jumping_clock(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, moods = time.time, random.Random(0)
    monkeypatch.setattr("time.time", lambda: clock() + moods.choice([-86400 * 365, -60, 0, 60, 86400 * 365]))
    monkeypatch.setattr("data_gen.endpoint.time", time.time)
    summary = generate(tmp_path, faulty(",".join(f"{kind}=0.02" for kind in TRANSPORT)))
    assert outcome(tmp_path) == undisturbed and summary.failed == 0
    assert sum(not good for _, good in truth(tmp_path)) >= 3


def test_useless_replies_are_rejected_item_by_item_and_whole_items_are_kept(tmp_path: Path) -> None:
    kinds = ",".join(f"{kind}={0.05 if kind == 'huge' else 0.1}" for kind in CONTENT)
    patient = 60.0  # nothing hangs here, and five megabytes may take long on a busy machine
    summary = generate(tmp_path / "a", faulty(kinds, patient))
    generate(tmp_path / "b", faulty(f"{kinds},error_500=0.1,cut=0.1", patient))
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert {task: sides["train"] for task, sides in summary.accepted.items()} == TARGETS
    assert {"truncated", "wrong_language", "similar", "output_too_long"} <= set(summary.rejected)
    sizes = [size for (size,) in query(tmp_path / "a", "SELECT length(reply) FROM attempt WHERE error IS NULL")]
    assert max(sizes) > 2_000_000, "a reply of five megabytes is kept as it came"
    # Of replies that were cut in the middle of an item, the items before it are in the data.
    db = sqlite3.connect(tmp_path / "a" / "journal.sqlite")
    kept = db.execute("SELECT count(*) FROM item WHERE outcome = 'accepted' AND idx IN "
                      "(SELECT idx FROM item WHERE outcome = 'truncated')").fetchone()[0]  # fmt: skip
    db.close()
    assert kept >= 5


def test_another_filter_costs_no_request(tmp_path: Path) -> None:
    made = faulty("")
    generate(tmp_path, made)
    before, asked = hashlib.sha256(str(outcome(tmp_path)).encode()).hexdigest(), truth(tmp_path)
    made.rouge_threshold = 0.4
    stricter = generate(tmp_path, made, parse_only=True)
    assert stricter.rejected["similar"] > 30 and sum(s["train"] for s in stricter.accepted.values()) < sum(TARGETS.values())
    made.rouge_threshold = 0.7
    generate(tmp_path, made, parse_only=True)
    assert hashlib.sha256(str(outcome(tmp_path)).encode()).hexdigest() == before and truth(tmp_path) == asked


def test_replies_behind_one_that_never_came_are_read_too(tmp_path: Path) -> None:
    """As a budget or a kill leaves it: an early request is open. --parse_only writes what there is, and gives nothing up."""
    made = faulty("")
    whole = generate(tmp_path, made)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("DELETE FROM attempt WHERE idx = 2")
        db.execute("UPDATE request SET status = 'planned' WHERE idx = 2")
    db.close()
    made.targets.generation = 50
    read = generate(tmp_path, made, parse_only=True)
    assert read.accepted["generation"]["train"] == 50 and read.accepted["ethics"]["train"] > 80
    made.targets.generation = 90
    assert generate(tmp_path, made).accepted == whole.accepted and query(
        tmp_path, "SELECT count(*) FROM request WHERE status != 'done'"
    ) == [(0,)]


def test_a_server_of_ones_own_may_move(tmp_path: Path) -> None:
    """A cluster gives it another host each time; what was answered stays answered."""
    made = config("offline", targets={"generation": 20})
    with LocalTeacher() as first:
        made.teacher.base_url = first.base_url
        asked = generate(tmp_path, made).requests
    made.targets.generation = 40
    with LocalTeacher() as second:
        made.teacher.base_url = second.base_url
        summary = generate(tmp_path, made)
        assert summary.reused == asked and second.asked.total() == summary.requests - asked > 0


def test_structured_replies_give_items_too_and_whole_ones_of_a_cut_reply(tmp_path: Path) -> None:
    made = faulty("length=0.5")
    made.teacher.reply_format = "json_schema"
    summary = generate(tmp_path, made)
    assert {task: sides["train"] for task, sides in summary.accepted.items()} == TARGETS
    assert 3 <= summary.rejected["truncated"] <= summary.requests and summary.rejected.get("malformed", 0) < 20
    [(body, reply)] = query(tmp_path, "SELECT body, reply FROM request JOIN attempt USING (idx) WHERE idx = 0")
    assert json.loads(body)["response_format"]["type"] == "json_schema"
    assert json.loads(reply)["choices"][0]["message"]["content"].startswith('{"items"')
