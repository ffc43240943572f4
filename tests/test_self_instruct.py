"""The recipe as a whole: the same data whatever the timing, kills included; nothing bought twice; held-out apart."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError
from data_gen.config import SelfInstructConfig, Targets
from data_gen.endpoint import TeacherConfig
from data_gen.journal import open_journal
from data_gen.languages import load_pack
from data_gen.progress import Snapshot
from data_gen.seeds import load_task
from data_gen.self_instruct import Summary, run
from tests import plain_tfrecord
from tests.local_teacher import Answer, LocalTeacher, block, completion

ROOT = Path(__file__).resolve().parents[1]
TERMS = "https://example.com/terms training other models is allowed"
NONE = dict.fromkeys(asdict(Targets()), 0)


def config(base_url: str, *, targets: dict[str, int], in_flight: int = 4, **more: object) -> SelfInstructConfig:
    teacher = TeacherConfig(
        base_url=base_url, model="toy", terms=TERMS, max_in_flight=in_flight, backoff_s=0.01, max_attempts=3
    )
    made = SelfInstructConfig(targets=Targets(**{**NONE, **targets}), teacher=teacher, pool_lag=8, items_per_request=5)
    for name, value in more.items():
        setattr(made, name, value)
    return made


class Said(list[str]):
    """A screen for tests: what was said, line by line."""

    def say(self, line: str) -> None:
        self.append(line)

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        self.last = snapshot()


def generate(workdir: Path, made: SelfInstructConfig, **options: Any) -> Summary:
    return run(made, str(workdir), show=options.pop("show", Said()), **options)


def outcome(workdir: Path) -> dict[str, bytes]:
    """Everything that must not depend on timing: the shards and the rejects, byte for byte."""
    shards = sorted((workdir / "data").glob("*.tfrecord"))
    return {path.name: path.read_bytes() for path in [*shards, workdir / "rejected.jsonl"]}


MIX = {"generation": 40, "translation": 20, "sentiment": 30}


def test_data_does_not_depend_on_timing_or_window(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        summary = generate(tmp_path / "a", config(server.base_url, targets=MIX, in_flight=1))
        assert set(server.asked.values()) == {1}
        server.max_latency_s = 0.03
        generate(tmp_path / "b", config(server.base_url, targets=MIX, in_flight=8))
        assert set(server.asked.values()) == {2}, "the requests are the same ones"
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert {task: sides["train"] for task, sides in summary.accepted.items()} == MIX
    assert {task: sides["heldout"] for task, sides in summary.accepted.items()} == {
        "generation": 4, "translation": 2, "sentiment": 3,
    }  # fmt: skip
    manifest, splits = plain_tfrecord.directory(str(tmp_path / "a" / "data"))
    assert manifest["counts"]["train"]["task"] == MIX
    assert manifest["config"]["teacher"]["model"] == "toy"
    rejects = [json.loads(line) for line in (tmp_path / "a" / "rejected.jsonl").read_text().splitlines()]
    assert Counter(reject["reason"] for reject in rejects) == summary.rejected
    assert {"wrong_language", "similar"} <= set(summary.rejected)
    keys = {key for (key,) in query(tmp_path / "a", "SELECT key FROM request")}
    assert {reject["request"] for reject in rejects} <= keys
    assert {json.loads(features["meta"])["request"] for features in splits["train"]} <= keys


def query(workdir: Path, sql: str) -> list[tuple]:
    db = sqlite3.connect(workdir / "journal.sqlite")
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def test_nothing_is_asked_on_suspicion(tmp_path: Path) -> None:
    """With a window of 8 the targets are met without a heap of surplus items."""
    with LocalTeacher(max_latency_s=0.01) as server:
        summary = generate(tmp_path, config(server.base_url, targets={"generation": 60}, in_flight=8))
    assert summary.rejected.get("target_reached", 0) < 10
    assert summary.requests < 22


def test_requests_learn_from_the_pool(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        generate(tmp_path, config(server.base_url, targets={"generation": 80}))
    rows = query(tmp_path, "SELECT idx, about FROM request ORDER BY idx")
    made = {f["id"] for f in plain_tfrecord.directory(str(tmp_path / "data"))[1]["train"]}
    about = {idx: json.loads(text) for idx, text in rows}
    from_pool = [idx for idx in about if made & set(about[idx]["demos"])]
    assert from_pool and min(from_pool) >= 8  # pool_lag
    assert all(idx - 8 <= about[idx]["view"] < idx for idx in about if idx >= 8)


def test_held_out_items_never_descend_from_a_training_seed(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        generate(tmp_path, config(server.base_url, targets=MIX, heldout_share=0.4))
    side_of = {
        seed_id: side
        for name in MIX
        for side, seeds in load_task(name, load_pack("ur"), heldout_share=0.4, seed=0).seeds.items()
        for seed_id, _ in seeds
    }
    _, splits = plain_tfrecord.directory(str(tmp_path / "data"))
    demos = {f["id"]: json.loads(f["meta"])["demos"] for split in splits.values() for f in split}
    generations = 0
    for side, records in splits.items():
        for features in records:
            todo, seen = list(demos[features["id"]]), set[str]()
            while todo:
                parent = todo.pop()
                generations += parent in demos
                if parent not in seen:
                    seen.add(parent)
                    todo += demos.get(parent, [])
            assert {side_of[parent] for parent in seen if parent in side_of} == {side}
    assert generations > 10, "some items descend from items"


def test_a_finished_run_again_asks_nothing_and_larger_targets_go_on(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 20})
        generate(tmp_path, made)
        before, asked = outcome(tmp_path), server.asked.total()
        again = generate(tmp_path, made)
        assert (server.asked.total(), outcome(tmp_path)) == (asked, before)
        assert again.reused == again.requests == asked and again.ambiguous == 0
        made.targets.generation, made.targets.sentiment = 40, 10
        made.teacher.max_in_flight = 8
        grown = generate(tmp_path, made).accepted
        assert (grown["generation"]["train"], grown["sentiment"]["train"]) == (40, 10)
        assert max(server.asked.values()) == 1


def test_going_on_from_every_point_gives_the_same_data(tmp_path: Path) -> None:
    """The journal cut after every second request, some of the last ones unanswered: a kill at any moment leaves such a one."""
    rng = random.Random(0)
    with LocalTeacher(wrong=0.5) as server:
        made = config(server.base_url, targets={"generation": 20, "translation": 15}, pool_lag=16)
        count = generate(tmp_path / "whole", made).requests
        wanted = outcome(tmp_path / "whole")
        for cut in range(count - 1, 0, -2):
            workdir = tmp_path / str(cut)
            workdir.mkdir()
            db = sqlite3.connect(workdir / "journal.sqlite")
            with sqlite3.connect(tmp_path / "whole" / "journal.sqlite") as whole:
                whole.backup(db)
            lost = [idx for idx in range(max(0, cut - 4), count) if idx >= cut or rng.random() < 0.5]
            db.executemany("DELETE FROM attempt WHERE idx = ?", [(idx,) for idx in lost])
            db.executemany("UPDATE request SET status = 'planned' WHERE idx = ?", [(idx,) for idx in lost])
            db.execute("DELETE FROM request WHERE idx >= ?", (cut,))
            db.commit()
            db.close()
            assert generate(workdir, made).reused == count - len(lost)
            assert outcome(workdir) == wanted, f"cut after {cut} of {count} requests"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seed", 1, "seed=0, now it is 1"),
        ("pool_lag", 16, "pool_lag=8, now it is 16"),
        ("teacher.reply_format", "json_schema", "teacher.reply_format='tagged'"),
        ("teacher.seed", False, "teacher.seed=True, now it is False: set it back"),
        ("teacher.model", "other", "teacher.model='toy'"),
    ],
)
def test_a_changed_config_is_refused(tmp_path: Path, name: str, value: object, words: str) -> None:
    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 20})
        generate(tmp_path, made)
        before = outcome(tmp_path)
        *path, last = name.split(".")
        setattr(getattr(made, path[0]) if path else made, last, value)
        with pytest.raises(UsageError, match=words):
            generate(tmp_path, made)
    assert outcome(tmp_path) == before


def test_a_config_that_got_no_answer_may_be_mended(tmp_path: Path) -> None:
    with LocalTeacher([Answer(404, "no model toy")]) as server:
        made = config(server.base_url, targets={"generation": 10}, in_flight=1)
        with pytest.raises(UsageError, match="404"):
            generate(tmp_path, made)
        made.teacher.model, made.seed = "other", 1
        assert generate(tmp_path, made).accepted["generation"]["train"] == 10
    assert query(tmp_path, "SELECT count(*), max(idx) FROM attempt WHERE error IS NOT NULL") == [(1, -1)]
    assert all('"model":"other"' in body for (body,) in query(tmp_path, "SELECT body FROM request"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("heldout_share", 0.9, "heldout_share is 0.9; it must be between 0 and 0.5"),
        ("pool_lag", 2, "teacher.max_in_flight is 4 and pool_lag 2"),
        ("min_acceptance", 0.0, "min_acceptance is 0.0; it must be between 0.0001 and 1"),
        ("max_tokens", 0, "max_tokens is 0; it must be between 1 and"),
        ("temperature", 3.0, "temperature is 3.0"),
        ("teacher", TeacherConfig(max_tokens_field="tokens"), "max_tokens_field is 'tokens'.*max_completion_tokens"),
        ("teacher", TeacherConfig(base_url="api.example.com/v1"), "base_url is 'api.example.com/v1'.*http"),
        ("teacher", TeacherConfig(base_url="https://[x/v1"), "base_url is 'https://.x/v1'"),
        ("language", "xx", "no language pack for 'xx'; there are .*ur, vi. To write one"),
        ("targets", Targets(**NONE), "all targets are 0"),
        ("targets", Targets(ethics=-1), "targets.ethics is -1"),
    ],
)
def test_senseless_config(tmp_path: Path, name: str, value: object, words: str) -> None:
    made = config("http://127.0.0.1:9/v1", targets={"generation": 5})
    setattr(made, name, value)
    with pytest.raises(UsageError, match=words):
        generate(tmp_path, made)


def test_work_directory_must_be_local_and_free(tmp_path: Path) -> None:
    made = config("http://127.0.0.1:9/v1", targets={"generation": 5})
    with pytest.raises(UsageError, match="not a local directory"):
        run(made, "gs://bucket/x", show=Said())
    with open_journal(str(tmp_path)), pytest.raises(UsageError, match="another process is working in"):
        generate(tmp_path, made)


@pytest.mark.parametrize("url", ["https://me:hidden@host/v1", "me:hidden@host/v1", "https://host/v1?key=hidden"])
def test_a_url_with_a_secret_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="base_url holds a user name, a password or a query.*api_key_env") as caught:
        generate(tmp_path, config(url, targets={"generation": 5}))
    assert "hidden" not in str(caught.value)


def test_a_work_directory_that_cannot_be_one(tmp_path: Path) -> None:
    made = config("http://127.0.0.1:9/v1", targets={"generation": 5})
    (tmp_path / "file").write_text("")
    for workdir in ("file", "file/deeper"):
        with pytest.raises(UsageError, match="cannot be a work directory"):
            generate(tmp_path / workdir, made)
    (tmp_path / "journal.sqlite").write_bytes(b"no journal at all, but longer than a header" * 100)
    with pytest.raises(UsageError, match="journal.sqlite is not a journal"):
        generate(tmp_path, made)


def test_fields_that_some_endpoints_refuse_can_be_left_out(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 2}, temperature=None)
        made.teacher.seed, made.teacher.max_tokens_field = False, "max_completion_tokens"
        generate(tmp_path, made)
        for body in server.asked:
            assert set(json.loads(body)) == {"model", "messages", "max_completion_tokens"}


def test_offline_teacher_is_named_for_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "not\nread")
    said = Said()
    targets = {"generation": 10, "sentiment": 10}
    made = config("offline", targets=targets)
    made.teacher.model = "offline-teacher"
    summary = generate(tmp_path, made, show=said)
    assert said == ["offline teacher: grammars and word lists, not a language model"]
    assert {task: sides["train"] for task, sides in summary.accepted.items()} == targets
    assert (tmp_path / "offline_truth.jsonl").stat().st_size
    # On another port it is the same endpoint: nothing is asked again.
    again = generate(tmp_path, made)
    assert again.reused == again.requests == summary.requests


def test_a_truncated_reply_keeps_whole_items(tmp_path: Path) -> None:
    text = "\n".join(block(f"لفظ{k} نام{k} شہر{k} پھل{k} کے بارے لکھیں۔", f"جواب نمبر {k} یہ ہے۔") for k in range(5))
    with LocalTeacher([Answer(body=completion(text[:-4], "length"))]) as server:
        made = config(server.base_url, targets={"generation": 4}, in_flight=1, heldout_share=0.0)
        summary = generate(tmp_path, made)
        assert server.asked.total() == 1
    assert summary.accepted["generation"]["train"] == 4
    assert summary.rejected == {"truncated": 1}


def test_one_instruction_may_come_with_many_inputs(tmp_path: Path) -> None:
    told = ["آج موسم بہت اچھا ہے اور سب خوش ہیں۔", "بس پھر دیر سے آئی، میں تھک گیا۔", "بس پھر دیر سے آئی، میں تھک گیا!"]
    answers = ["موسم اچھا ہے۔", "بس دیر سے آئی۔", "بس دیر سے آئی۔"]
    asked = "متن پڑھ کر بتائیں کہ کیا ہوا؟"
    blocks = [block(asked, answer).replace("<noinput>", text) for text, answer in zip(told, answers, strict=True)]
    with LocalTeacher([Answer(body=completion("\n".join(blocks)))]) as server:
        made = config(server.base_url, targets={"reading_comprehension": 2}, in_flight=1, heldout_share=0.0)
        summary = generate(tmp_path, made)
        assert server.asked.total() == 1
    assert summary.rejected == {"target_reached": 1}


def test_failed_requests_leave_a_gap_that_stays(tmp_path: Path) -> None:
    with LocalTeacher([Answer(body="<html>")] * 3) as server:
        made = config(server.base_url, targets={"generation": 20}, in_flight=1)
        first = generate(tmp_path, made)
        before, asked = outcome(tmp_path), server.asked.total()
        again = generate(tmp_path, made)
        assert (first.failed, again.failed, server.asked.total()) == (1, 1, asked)
        assert again.reused == again.requests - 1
        assert outcome(tmp_path) == before


def test_replies_under_way_are_kept_when_the_run_must_stop(tmp_path: Path) -> None:
    """Of four requests in flight one is refused for good; what comes for the other three is in the journal."""
    with LocalTeacher([Answer(401)], max_latency_s=0.1) as server:
        made = config(server.base_url, targets={"generation": 40})
        with pytest.raises(UsageError, match="401"):
            generate(tmp_path, made)
        answered = {body.encode() for (body,) in query(tmp_path, "SELECT body FROM request WHERE status = 'done'")}
        assert len(answered) >= 3 and not query(tmp_path, "SELECT * FROM attempt WHERE ended_at IS NULL")
        generate(tmp_path, made)
        assert all(server.asked[body] == 1 for body in answered)


def test_out_of_reach_targets_stop(tmp_path: Path) -> None:
    same = completion("\n".join([block("ایک ہی بات بار بار لکھیں۔", "جی یہ لیجیے۔")] * 5))
    with LocalTeacher([Answer(body=same)] * 200) as server:
        made = config(server.base_url, targets={"generation": 20}, heldout_share=0.0)
        words = r"of the last 50 requests' 250 items hardly any was accepted .similar 2.*targets.generation=1\. "
        with pytest.raises(UsageError, match=words):
            generate(tmp_path, made)
        assert server.asked.total() < 70


def test_lower_targets_write_what_was_paid_for(tmp_path: Path) -> None:
    """Of three tasks one cannot go on. With the targets that the message names the data is written, nothing is asked."""
    same = completion("\n".join([block("ایک ہی بات بار بار لکھیں۔", "جی یہ لیجیے۔")] * 5))
    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 30, "sentiment": 20}, heldout_share=0.2)
        generate(tmp_path, made)
        server.script = [Answer(body=same)] * 200
        made.targets.generation, made.targets.ethics = 300, 10
        with pytest.raises(UsageError, match="hardly any was accepted") as caught:
            generate(tmp_path, made)
        named = dict(re.findall(r"targets\.(\w+)=(\d+)", str(caught.value)))
        assert set(named) == {"generation", "ethics"} and 30 <= int(named["generation"]) < 40 and int(named["ethics"]) < 2
        asked, server.script = server.asked.total(), [Answer(500)] * 100
        for name, count in named.items():
            setattr(made.targets, name, int(count))
        summary = generate(tmp_path, made)
        assert server.asked.total() == asked
        assert summary.accepted["generation"]["train"] == int(named["generation"]) and summary.accepted["sentiment"]["train"] == 20
        assert generate(tmp_path, made).accepted == summary.accepted and server.asked.total() == asked


def test_lower_targets_give_up_what_has_no_reply(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 100})
        generate(tmp_path, made)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("DELETE FROM attempt WHERE idx IN (3, 9)")
        db.execute("UPDATE request SET status = 'planned' WHERE idx IN (3, 9)")
    db.close()
    made.targets.generation = 20
    made.teacher.base_url = server.base_url  # nobody listens there any more
    summary = generate(tmp_path, made)
    assert summary.accepted["generation"]["train"] == 20 and summary.failed == 2


def test_a_task_that_is_done_is_no_reason_to_stop(tmp_path: Path) -> None:
    """Its replies, read again, give nothing but items that are not wanted any more."""
    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 300})
        generate(tmp_path, made)
        made.targets.generation, made.targets.sentiment = 20, 15
        summary = generate(tmp_path, made)
    assert {task: sides["train"] for task, sides in summary.accepted.items()} == {"generation": 20, "sentiment": 15}


def test_a_task_left_out_is_paid_no_more(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        server.refuse_after = 6
        made = config(server.base_url, targets={"generation": 60, "sentiment": 10})
        with pytest.raises(UsageError, match="401"):
            generate(tmp_path, made)
        asked = set(server.asked)
        made.targets.generation = 0
        summary = generate(tmp_path, made)
        assert not any(b"Task: generation" in body for body in set(server.asked) - asked)
    assert {task: sides["train"] for task, sides in summary.accepted.items()} == {"sentiment": 10}


def test_a_teacher_that_writes_nothing_is_not_asked_for_ever(tmp_path: Path) -> None:
    with LocalTeacher([Answer(body=completion("###"))] * 200) as server:
        made = config(server.base_url, targets={"generation": 20}, heldout_share=0.0)
        with pytest.raises(UsageError, match="the last 50 requests gave no items at all"):
            generate(tmp_path, made)
        assert server.asked.total() < 70


def test_empty_replies_stop_the_run(tmp_path: Path) -> None:
    """A reasoning model that spends all of max_tokens on thinking."""
    with LocalTeacher([Answer(body=completion("", "length"))] * 100) as server:
        with pytest.raises(UsageError, match="5 requests one after the other failed.*max_tokens"):
            generate(tmp_path, config(server.base_url, targets={"generation": 20}))
        assert server.asked.total() < 30


CONFIG_FILE = """
from data_gen.config import SelfInstructConfig, Targets
from data_gen.endpoint import TeacherConfig

def get_config(arg=""):
    teacher = TeacherConfig(base_url={url!r}, model="toy", terms={terms!r}, max_in_flight=40, latency_tolerance=100.0)
    none = dict(reasoning=0, ethics=0, question_answering=0, classification=0)
    targets = Targets(generation={items}, translation={items} // 2, sentiment={items} // 2, **none)
    return SelfInstructConfig(targets=targets, teacher=teacher, items_per_request=3)
"""


def command(recipe: Path, workdir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "launch/self_instruct.py", f"--config={recipe}", f"--workdir={workdir}"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip


@pytest.mark.parametrize(("kills", "items"), [(1, 200), pytest.param(20, 1600, marks=pytest.mark.slow)])
def test_killed_runs_end_as_an_undisturbed_one(tmp_path: Path, kills: int, items: int) -> None:
    """At random moments with 32 to 40 requests in flight, whose replies take random times."""
    rng = random.Random(kills)
    undisturbed, killed, recipe = tmp_path / "a", tmp_path / "b", tmp_path / "recipe.py"
    lost = 0
    with LocalTeacher(max_latency_s=0.8) as server:
        recipe.write_text(CONFIG_FILE.format(url=server.base_url, terms=TERMS, items=items))
        for k in range(kills):
            process = command(recipe, killed)
            wait_until_in_flight(killed, process, lost + 32)
            time.sleep(rng.uniform(0, 0.3))
            if k == 0:
                process.send_signal(signal.SIGSTOP)  # it would be done before the second has begun
                second = command(recipe, killed)
                errors = second.communicate(timeout=30)[1]
                assert second.returncode == 2, errors
                assert errors.count("\n") == 1 and "another process is working in" in errors
                process.send_signal(signal.SIGCONT)
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
            process.communicate()
            answered = {body.encode() for (body,) in query(killed, "SELECT body FROM request WHERE status = 'done'")}
            counts = {body: server.asked[body] for body in answered}
            [(lost,)] = query(killed, "SELECT count(*) FROM attempt WHERE ended_at IS NULL")
            assert lost <= 40 * (k + 1)
        server.max_latency_s = 0.1
        last = command(recipe, killed)
        said, errors = last.communicate(timeout=60)
        assert last.returncode == 0, errors
        assert {body: server.asked[body] for body in answered} == counts, "an answered request was asked again"
        assert f"{lost} in flight at a crash" in said
        assert server.asked.total() - len(server.asked) <= lost
        server.max_latency_s = 0.0
        namespace: dict = {}
        exec(recipe.read_text(), namespace)
        generate(undisturbed, namespace["get_config"]())
    assert outcome(killed) == outcome(undisturbed)


def wait_until_in_flight(workdir: Path, process: subprocess.Popen, count: int) -> None:
    """Until so many attempts have no outcome; those lost in earlier kills among them."""

    def in_flight() -> int:
        try:
            return int(query(workdir, "SELECT count(*) FROM attempt WHERE ended_at IS NULL")[0][0])
        except sqlite3.OperationalError:  # not there yet
            return 0

    deadline = time.monotonic() + 60
    while in_flight() < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert in_flight() >= count - 8, process.poll()  # some may have come in since


def test_shards_that_find_no_room_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 20})
        with monkeypatch.context() as patched:
            patched.setattr("data_gen.dataset.write_shards", full)
            with pytest.raises(UsageError, match="data cannot be written: .*No space left.*the same command writes it"):
                generate(tmp_path, made)
        asked = server.asked.total()
        assert generate(tmp_path, made).accepted["generation"]["train"] == 20 and server.asked.total() == asked
