"""The client against a server that fails in every way: what is tried again, what stops the run, what the journal keeps."""

import asyncio
import contextlib
import socket
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from data_gen import UsageError
from data_gen.account import Account
from data_gen.endpoint import Endpoint, TeacherConfig
from data_gen.journal import FAILED, Journal, Request, open_journal
from data_gen.limits import BudgetReached
from data_gen.record import canonical_json
from data_gen.teacher import Teacher
from tests.local_teacher import Answer, LocalTeacher, completion

GOOD = completion("اچھا")
SECRET = "sk-very-secret-key"


def body(idx: int = 0) -> str:
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": f"Task: generation\n2 items, {idx}"}]
    return canonical_json({"model": "m", "messages": messages, "max_tokens": 1000})


def plan(journal: Journal, idx: int) -> Request:
    return journal.plan(idx, body(idx), {"side": "train"}, "url")


def ask(
    workdir: Path, base_url: str, count: int = 1, *, answered_before: bool = False, max_cost: float | None = None, **limits: object
) -> list[str | None]:
    """Asks `count` requests one after the other, planning those that are new."""
    config = TeacherConfig(base_url=base_url, **{"backoff_s": 0.01, "max_attempts": 4, "give_up_s": 5.0, **limits})  # type: ignore[arg-type]

    async def one_by_one() -> list[str | None]:
        with open_journal(str(workdir)) as journal:
            known = list(journal.requests())
            async with Endpoint(config, base_url) as endpoint:
                account = Account(config, journal, max_cost)
                teacher = Teacher(endpoint, journal, account, answered_before=answered_before)
                requests = [known[idx] if idx < len(known) else plan(journal, idx) for idx in range(count)]
                replies = [one.reply or await teacher.ask(one) for one in requests if one.status != FAILED]
                await journal.committed()
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
        assert list(server.asked) == [body().encode()]
    assert stored(tmp_path, "SELECT reply, error FROM attempt") == [(raw, None)]
    assert stored(tmp_path, "SELECT status, body FROM request") == [("done", body())]


@pytest.mark.parametrize(
    "faults",
    [
        [Answer(429, "slow down"), Answer(429, "slow down")],
        [Answer(500, "oops"), Answer(502, "<html>"), Answer(503)],
        [Answer(body=None)],
        [Answer(body='{"choices": [{"mess'), Answer(body='{"choices": []}')],
        [Answer(body="null"), Answer(body='{"choices": [{"message": {"content": null}}]}')],
        [Answer(body=completion("", "length")), Answer(body="[" * 100_000)],
        [Answer(429)] * 7,
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
        (
            Answer(400, "unknown field seed"),
            "400: unknown field seed.*temperature=none.*teacher.seed=false.*teacher.max_tokens_field=max_completion_tokens",
        ),
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
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"no connection: Connect call failed.*tried 4 times.*check that the server runs"):
        ask(tmp_path, url, give_up_s=0.3)
    assert stored(tmp_path, "SELECT status FROM request") == [("planned",)]
    with serve(*[Answer(body=GOOD, wait_s=2)] * 10) as server, pytest.raises(UsageError, match="no reply within 0.1 s"):
        ask(tmp_path, server.base_url, 2, timeout_s=0.1, give_up_s=0.15)
    assert stored(tmp_path, "SELECT status FROM request") == [("failed",), ("planned",)], "one alone may be at fault itself"
    with serve(*[Answer(429)] * 100) as server, pytest.raises(UsageError, match=r"429.*no answer for 0.3 s.*max_in_flight"):
        ask(tmp_path, server.base_url, 2, give_up_s=0.3)
    assert 0.7 < time.monotonic() - began < 10
    assert stored(tmp_path, "SELECT status FROM request") == [("failed",), ("planned",)]


def test_a_request_that_is_always_too_slow_fails_alone(tmp_path: Path) -> None:
    slow = [Answer(body=GOOD, wait_s=0.5)] * 3
    with serve(Answer(body=GOOD), *slow, Answer(body=GOOD)) as server:
        assert ask(tmp_path, server.base_url, 3, timeout_s=0.2, give_up_s=60) == [GOOD, None, GOOD]


def test_all_workers_wait_when_one_is_told_to(tmp_path: Path) -> None:
    """A 429 without Retry-After holds back the other request too, although that one never got a 429."""
    config = TeacherConfig(backoff_s=1.0)

    async def both(url: str) -> list[str | None]:
        with open_journal(str(tmp_path)) as journal:
            async with Endpoint(config, url) as endpoint:
                teacher = Teacher(endpoint, journal, Account(config, journal, None), answered_before=False)
                requests = [plan(journal, 0), plan(journal, 1)]
                first = asyncio.create_task(teacher.ask(requests[0]))
                while not stored(tmp_path, "SELECT 1 FROM attempt WHERE error IS NOT NULL"):
                    await asyncio.sleep(0.01)
                return [await teacher.ask(requests[1]), await first]

    with serve(Answer(429), Answer(body=GOOD), Answer(body=GOOD)) as server:
        assert asyncio.run(both(server.base_url)) == [GOOD, GOOD]
        assert all(later - server.times[0] >= 0.5 for later in server.times[1:])


@pytest.mark.parametrize("key", [f"{SECRET}\nX: y", f"{SECRET}ی", f"{SECRET}\x7f"])
def test_a_key_that_cannot_be_sent_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with serve() as server, pytest.raises(UsageError, match="MY_KEY") as caught:
        ask(tmp_path, server.base_url, api_key_env="MY_KEY")
    assert SECRET not in str(caught.value)


def test_blanks_around_a_key_are_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {SECRET}\r\n")
    with serve(Answer(body=GOOD)) as server:
        assert ask(tmp_path, server.base_url, api_key_env="MY_KEY") == [GOOD]
        assert server.keys == [f"Bearer {SECRET}"]


def test_a_protocol_error_is_named_and_not_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such an error's text may hold what was sent, the header with the key included."""

    async def broken(*args: object, **options: object) -> None:
        raise openai.APIConnectionError(
            message="x", request=httpx2.Request("POST", "http://127.0.0.1")
        ) from httpx2.LocalProtocolError(f"Illegal header value b'Bearer {SECRET}'")

    monkeypatch.setattr("openai.AsyncOpenAI.post", broken)
    with pytest.raises(UsageError, match="no connection: LocalProtocolError") as caught:
        ask(tmp_path, "http://127.0.0.1:9/v1", give_up_s=0.0)
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert SECRET not in str(caught.value) and SECRET.encode() not in files


def test_a_malformed_reply_is_never_done_even_for_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit judges a reply: a kill after it must not leave a malformed one that counts as an answer."""
    seen: list[tuple] = []
    end = Journal._end

    def watched(self: Journal, *args: object) -> None:
        end(self, *args)  # type: ignore[arg-type]
        seen.append(args)

    monkeypatch.setattr(Journal, "_end", watched)
    with serve(Answer(body="<html>"), Answer(body=GOOD)) as server:
        ask(tmp_path, server.base_url)
    assert [(attempt.number, error is None, reply) for attempt, error, reply, *_ in seen] == [(1, False, "<html>"), (2, True, GOOD)]


def test_a_journal_with_a_gap_is_not_used(tmp_path: Path) -> None:
    with open_journal(str(tmp_path)) as journal:
        plan(journal, 0)
        plan(journal, 2)
        with pytest.raises(UsageError, match="journal.sqlite is damaged"):
            list(journal.requests())


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
        statuses = [status for (status,) in stored(tmp_path, "SELECT status FROM request ORDER BY idx")]
        assert statuses == ["failed"] * 2 + ["planned"] * 3, "what failed stays so: others may have been planned without it"
        assert None not in ask(tmp_path, server.base_url, 5)


def test_the_time_that_we_waited_ourselves_is_no_silence(tmp_path: Path) -> None:
    """After a long pause of our own (limits a minute, a budget) the first 429 does not end the run."""
    config = TeacherConfig(backoff_s=0.01, give_up_s=0.3)

    async def with_a_pause(url: str) -> list[str | None]:
        with open_journal(str(tmp_path)) as journal:
            async with Endpoint(config, url) as endpoint:
                teacher = Teacher(endpoint, journal, Account(config, journal, None), answered_before=False)
                first = await teacher.ask(plan(journal, 0))
                await asyncio.sleep(0.4)
                return [first, await teacher.ask(plan(journal, 1))]

    with serve(Answer(body=GOOD), Answer(429), Answer(body=GOOD)) as server:
        assert asyncio.run(with_a_pause(server.base_url)) == [GOOD, GOOD]


def test_limits_a_minute_hold_attempts_back(tmp_path: Path) -> None:
    """Three may go at once (a twentieth of 60); the fourth and the fifth wait for their turn."""
    with serve(*[Answer(body=GOOD)] * 5) as server:
        assert ask(tmp_path, server.base_url, 5, requests_per_minute=60) == [GOOD] * 5
        assert server.times[2] - server.times[0] < 1 < server.times[3] - server.times[0]
        assert server.times[4] - server.times[3] > 0.9
    usage = '"usage": {"prompt_tokens": 100, "completion_tokens": 100}, "choices"'
    with serve(*[Answer(body=GOOD.replace('"choices"', usage))] * 3) as server:
        # 190 tokens drip in a second; the first request was booked with its worst case, 1,500 tokens, and corrected to 200.
        assert len(ask(tmp_path / "tokens", server.base_url, 3, tokens_per_minute=12_000)) == 3
        assert server.times[2] - server.times[0] < 2


def test_a_budget_is_held_and_settled_by_usage(tmp_path: Path) -> None:
    """1,000 tokens of reply at $10 a million: $0.01 at worst and $0.001 in truth."""
    usage = '"usage": {"prompt_tokens": 0, "completion_tokens": 100}, "choices"'
    reply = GOOD.replace('"choices"', usage)
    prices: dict[str, Any] = {"input_price": 0.0, "output_price": 10.0}
    with serve(*[Answer(body=reply)] * 100) as server:
        with pytest.raises(BudgetReached, match=r"\$0.0060 of \$0.015 are spent, and a request may cost \$0.0100"):
            ask(tmp_path, server.base_url, 100, max_cost=0.015, **prices)
        assert server.asked.total() == 6
        assert len(ask(tmp_path, server.base_url, 7, max_cost=0.0165, **prices)) == 7
        assert server.asked.total() == 7
    assert stored(tmp_path, "SELECT round(sum(cost), 6), count(*) FROM attempt") == [(0.007, 7)]


def test_what_perhaps_was_paid_counts_with_its_worst_case(tmp_path: Path) -> None:
    prices: dict[str, Any] = {"input_price": 0.0, "output_price": 10.0}
    script = [Answer(500), Answer(body=GOOD, wait_s=0.5), Answer(body="<html>"), Answer(body=GOOD)]
    with serve(*script) as server:
        assert ask(tmp_path, server.base_url, timeout_s=0.2, **prices) == [GOOD]
    assert stored(tmp_path, "SELECT round(cost, 6) FROM attempt ORDER BY number") == [(0.0,), (0.01,), (0.01,), (0.01,)]


@pytest.mark.parametrize(("prices", "max_cost", "words"), [({}, 1.0, "--max_cost=1 needs a price"), (
    {"input_price": 1.0, "output_price": 1.0}, -1.0, "--max_cost=-1.0: US dollars, 0 or more")])  # fmt: skip
def test_a_budget_that_makes_no_sense(tmp_path: Path, prices: dict[str, Any], max_cost: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ask(tmp_path, "http://127.0.0.1:9/v1", max_cost=max_cost, **prices)


def dripping(body: bytes, head: bytes = b"", *, times: int = 0) -> str:
    """The address of a server that sends `times` blanks, one every 50 ms, before each reply."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with listening, contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(1 << 20)
                    length = len(body) + times
                    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n" % (length, head))
                    for _ in range(times):
                        connection.sendall(b" ")
                        time.sleep(0.05)
                    connection.sendall(body)

    threading.Thread(target=answer, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


def test_blanks_that_keep_a_connection_alive_are_no_reply(tmp_path: Path) -> None:
    assert ask(tmp_path / "a", dripping(GOOD.encode(), times=4), timeout_s=2.0) == [" " * 4 + GOOD]
    began = time.monotonic()
    assert ask(tmp_path / "b", dripping(GOOD.encode(), times=1000), timeout_s=0.3, give_up_s=60) == [None]
    assert time.monotonic() - began < 5
    assert {error for (error,) in stored(tmp_path / "b", "SELECT error FROM attempt")} == {"no reply within 0.3 s"}


@pytest.mark.parametrize("charset", [b"iso-8859-1", b"idna", b"hex"])
def test_a_reply_is_utf_8_whatever_its_header_says(tmp_path: Path, charset: bytes) -> None:
    url = dripping(b"\xef\xbb\xbf" + GOOD.encode(), b"Content-Type: application/json; charset=%s\r\n" % charset)
    assert ask(tmp_path, url) == [GOOD]
    with serve(Answer(500, "خرابی", {"Content-Type": f"text/plain; charset={charset.decode()}"}), Answer(body=GOOD)) as server:
        assert ask(tmp_path / "error", server.base_url) == [GOOD]
    assert stored(tmp_path / "error", "SELECT error FROM attempt WHERE number = 1") == [("HTTP 500: خرابی",)]


def test_a_key_that_comes_back_in_a_reply_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    with serve(Answer(body=completion(f"you sent {SECRET}")), Answer(body="x" * 190 + SECRET), Answer(body=GOOD)) as server:
        ask(tmp_path, server.base_url, 2, api_key_env="MY_KEY")
    said = "".join(f"{reply}{error}" for reply, error in stored(tmp_path, "SELECT reply, error FROM attempt"))
    assert "[key]" in said and SECRET[:12] not in said


def test_nonsense_about_usage_is_no_usage(tmp_path: Path) -> None:
    reply = GOOD.replace('"choices"', '"usage": {"prompt_tokens": 1e400, "completion_tokens": 10000000000000000000}, "choices"')
    with serve(Answer(body=reply)) as server:
        assert ask(tmp_path, server.base_url) == [reply]
    assert stored(tmp_path, "SELECT completion_tokens FROM attempt") == [(1000,)], "its worst case"


@pytest.mark.parametrize("asked", ["0", "nan", "-5", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_who_asks_for_no_wait_is_not_hammered(tmp_path: Path, asked: str) -> None:
    with serve(*[Answer(429, "", {"Retry-After": asked})] * 1000) as server:
        with pytest.raises(UsageError, match="429"):
            ask(tmp_path, server.base_url, give_up_s=0.5, backoff_s=0.1)
        assert server.asked.total() < 10


def test_who_waits_for_a_turn_hears_of_a_429_meanwhile(tmp_path: Path) -> None:
    """Five requests, one a second after the third; the first one's 429 asks all of them for two seconds."""
    config = TeacherConfig(backoff_s=0.01, requests_per_minute=60)

    async def together(url: str) -> list[str | None]:
        with open_journal(str(tmp_path)) as journal:
            async with Endpoint(config, url) as endpoint:
                teacher = Teacher(endpoint, journal, Account(config, journal, None), answered_before=False)
                return await asyncio.gather(*(teacher.ask(plan(journal, idx)) for idx in range(5)))

    held = Answer(429, "", {"Retry-After": "2"})
    with serve(held, held, held, *[Answer(body=GOOD)] * 5) as server:
        assert asyncio.run(together(server.base_url)) == [GOOD] * 5
        assert [at for at in server.times if 0.5 < at - server.times[0] < 1.9] == []


@pytest.mark.parametrize(("status", "dollars"), [(500, 0.0), (502, 0.0), (504, 0.01), (408, 0.01)])
def test_who_gave_up_waiting_may_be_paid(tmp_path: Path, status: int, dollars: float) -> None:
    with serve(Answer(status), Answer(body=GOOD)) as server:
        assert ask(tmp_path, server.base_url, input_price=0.0, output_price=10.0) == [GOOD]
    assert stored(tmp_path, "SELECT round(cost, 6) FROM attempt WHERE number = 1") == [(dollars,)]
