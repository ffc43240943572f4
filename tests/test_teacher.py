"""The client against a server that fails in every way: what is tried again, what stops the run, what the journal keeps."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.journal import Request, open_journal, request_key
from data_gen.record import canonical_json
from data_gen.teacher import Teacher, TeacherConfig
from tests.local_teacher import Answer, LocalTeacher, completion

GOOD = completion("اچھا")
SECRET = "sk-very-secret-key"


def request(idx: int = 0) -> Request:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": f"Task: generation\n2 items, {idx}"}]
    body = canonical_json({"model": "m", "messages": messages})
    return Request(idx, request_key(body, "url"), "generation", "train", -1, ("seed:1",), body)


def ask(workdir: Path, base_url: str, count: int = 1, *, answered_before: bool = False, **limits: object) -> list[str | None]:
    """Asks `count` requests one after the other, planning those that are new."""
    config = TeacherConfig(base_url=base_url, **{"backoff_s": 0.01, "max_attempts": 4, **limits})  # type: ignore[arg-type]

    async def one_by_one() -> list[str | None]:
        with open_journal(str(workdir)) as journal:
            known = {stored.idx for stored in journal.requests()}
            async with Teacher(config, base_url, journal, answered_before=answered_before) as teacher:
                replies = []
                for idx in range(count):
                    if idx not in known:
                        journal.plan(request(idx))
                    replies.append(await teacher.ask(request(idx)))
                return replies

    return asyncio.run(one_by_one())


def stored(workdir: Path, query: str) -> list[tuple]:
    db = sqlite3.connect(workdir / "journal.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def serve(*script: Answer) -> LocalTeacher:
    return LocalTeacher(script)


def test_reply_is_kept_as_it_came_and_the_body_is_sent_as_stored(tmp_path: Path) -> None:
    raw = '{ "choices" : [{"message": {"content": "\\u0627"}, "x": 1.50}], "usage":{"n":1} }'
    with serve(Answer(body=raw)) as server:
        assert ask(tmp_path, server.base_url) == [raw]
        assert list(server.asked) == [request().body.encode()]
    assert stored(tmp_path, "SELECT reply, error FROM attempt") == [(raw, None)]
    assert stored(tmp_path, "SELECT status, body FROM request") == [("done", request().body)]


@pytest.mark.parametrize(
    "faults",
    [
        [Answer(429, "slow down"), Answer(429, "slow down")],
        [Answer(500, "oops"), Answer(502, "<html>"), Answer(503)],
        [Answer(body=None)],
        [Answer(body='{"choices": [{"mess'), Answer(body='{"choices": []}')],
        [Answer(body="null"), Answer(body='{"choices": [{"message": {"content": null}}]}')],
    ],
)
def test_passing_faults_are_tried_again(tmp_path: Path, faults: Sequence[Answer]) -> None:
    with serve(*faults, Answer(body=GOOD)) as server:
        assert ask(tmp_path, server.base_url) == [GOOD]
        assert server.asked.total() == len(faults) + 1
    attempts = stored(tmp_path, "SELECT error IS NULL, ended_at IS NOT NULL FROM attempt ORDER BY number")
    assert attempts == [(0, 1)] * len(faults) + [(1, 1)]


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    with serve(Answer(429, "", {"Retry-After": "0.6"}), Answer(body=GOOD)) as server:
        assert ask(tmp_path, server.base_url) == [GOOD]
        assert 0.6 <= server.times[1] - server.times[0] < 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(401, f"no such key {SECRET}"), r"401: no such key \[key\].*MY_KEY, which is set, but not accepted"),
        (Answer(403, "forbidden"), "403: forbidden.*MY_KEY"),
        (Answer(404, "no model m"), "404: no model m.*teacher.base_url.*/v1.*teacher.model="),
        (Answer(400, "max_tokens too large"), "400: max_tokens too large.*max_tokens"),
        (Answer(429, '{"error": {"code": "insufficient_quota"}}'), "insufficient_quota.*account"),
    ],
)
def test_final_errors_stop_at_once_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: Answer, words: str
) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with serve(answer) as server:
        with pytest.raises(UsageError, match=words) as caught:
            ask(tmp_path, server.base_url, api_key_env="MY_KEY")
        assert "same command" in str(caught.value) and server.base_url in str(caught.value)
        assert server.asked.total() == 1 and server.keys == [f"Bearer {SECRET}"]
        assert stored(tmp_path, "SELECT status FROM request") == [("planned",)]
        assert ask(tmp_path, server.base_url, api_key_env="MY_KEY") != [None]  # the same command, mended
    said = str(caught.value) + "".join(capfd.readouterr())
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert SECRET not in said and SECRET.encode() not in files


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve(Answer(401)) as server, pytest.raises(UsageError, match="OPENAI_API_KEY, which is not set"):
        ask(tmp_path, server.base_url)


def test_unreachable_and_silent_servers(tmp_path: Path) -> None:
    with serve() as server:
        url = server.base_url
    with pytest.raises(UsageError, match=r"no connection.*\(attempt 4\).*check that the server runs"):
        ask(tmp_path, url)
    with LocalTeacher(max_latency_s=5) as server, pytest.raises(UsageError, match="no reply within 0.01 s"):
        ask(tmp_path, server.base_url, timeout_s=0.01)
    with serve(*[Answer(429)] * 4) as server, pytest.raises(UsageError, match=r"429.*attempt 4.*max_in_flight"):
        ask(tmp_path, server.base_url)
    assert stored(tmp_path, "SELECT status FROM request") == [("planned",)]
    assert stored(tmp_path, "SELECT count(*) FROM attempt") == [(12,)]


def test_one_bad_request_fails_and_the_run_goes_on(tmp_path: Path) -> None:
    malformed = [Answer(body="<html>")] * 3
    with serve(Answer(body=GOOD), *malformed, Answer(body=GOOD), Answer(400, "filtered"), Answer(body=GOOD)) as server:
        assert ask(tmp_path, server.base_url, 5, max_failures=2) == [GOOD, None, GOOD, None, GOOD]
    assert [status for (status,) in stored(tmp_path, "SELECT status FROM request ORDER BY idx")] == [
        "done", "failed", "done", "failed", "done",
    ]  # fmt: skip
    # A malformed reply may have been paid for: it is kept.
    assert stored(tmp_path, "SELECT count(*) FROM attempt WHERE reply = '<html>'") == [(3,)]


def test_many_failures_in_a_row_are_the_endpoints(tmp_path: Path) -> None:
    with serve(*[Answer(body="<html>hello")] * 6) as server:
        with pytest.raises(UsageError, match="2 requests one after the other failed.*<html>hello.*/v1"):
            ask(tmp_path, server.base_url, 5, max_failures=2)
        assert server.asked.total() == 6
        assert set(stored(tmp_path, "SELECT status FROM request")) == {("planned",)}
        assert None not in ask(tmp_path, server.base_url, 5)
