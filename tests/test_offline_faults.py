"""The offline teacher's faults on demand, as a client sees each of them, and when they come."""

import email.utils
import http.client
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError
from data_gen.offline import faults as offline_faults
from data_gen.offline.faults import CONTENT, KINDS, TRANSPORT, kind_of, read
from data_gen.offline.grammar import MAKERS
from data_gen.offline.items import HUGE_BYTES
from data_gen.offline.judge import Manners
from data_gen.offline.teacher import MODEL, Server, complete, serve
from data_gen.text import script_share

SCHEMA = {"type": "json_schema", "json_schema": {"name": "items", "schema": {"type": "object"}}}


def body_of(number: int = 0, task: str = "ethics", count: int = 5, **more: Any) -> bytes:
    messages = [{"role": "user", "content": f"Task: {task}\nWrite exactly {count} new items."}]
    return json.dumps({"model": MODEL, "messages": messages, "seed": number, **more}).encode()


def post(server: Server, body: bytes, timeout: float = 5.0, keep: bool = False) -> http.client.HTTPResponse:
    """The reply's head; the connection ends with its body, unless the client asks to keep it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=timeout)
    connection.request("POST", "/v1/chat/completions", body, {"Connection": "keep-alive" if keep else "close"})
    return connection.getresponse()


def truth_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_shares_are_read() -> None:
    assert read("") == {} and read(" cut=0.1 , huge = 0.05,") == {"cut": 0.1, "huge": 0.05}
    assert read("cut=0.5,hang=0.5") == {"cut": 0.5, "hang": 0.5}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retry=0.1", r"'retry=0.1' names no fault.*rate_limit, retry_after,.*huge, expire"),
        ("cut", "from 0 to 1, as in cut=0.1"),
        ("cut=much", "from 0 to 1"),
        ("cut=1.5", "from 0 to 1"),
        ("cut=-0.1", "from 0 to 1"),
        ("cut=nan", "from 0 to 1"),
        ("cut=0.1,cut=0.2", "cut is given twice"),
        ("cut=0.6,hang=0.5", "sum to 1.1"),
    ],
)
def test_what_is_no_share_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(text)


def test_each_kind_comes_at_its_share_and_the_seed_decides() -> None:
    faults = read("cut=0.1,huge=0.3,expire=0.05")
    kinds = [[kind_of(faults, seed=seed, body=body_of(number)) for number in range(4000)] for seed in (1, 1, 2)]
    assert kinds[0] == kinds[1] != kinds[2]
    counts = Counter(kinds[0])
    for kind, share in [*faults.items(), (None, 0.55)]:
        assert abs(counts[kind] / 4000 - share) < 4 * (share * (1 - share) / 4000) ** 0.5
    assert {kind_of({"hang": 1.0}, seed=0, body=body_of(number)) for number in range(500)} == {"hang"}


@pytest.mark.parametrize("kind", sorted(TRANSPORT))
def test_a_fault_of_the_transport_comes_once_then_the_answer(kind: str, tmp_path: Path) -> None:
    truth, body = tmp_path / "truth.jsonl", body_of()
    with serve(seed=0, fault_rate=0.0, faults=f"{kind}=1", truth_file=str(truth)) as server:
        with pytest.raises((OSError, http.client.HTTPException, ValueError, LookupError)):
            json.loads(post(server, body, timeout=0.3).read())["choices"][0]
        reply = post(server, body).read()
        again = post(server, body).read()
    assert json.loads(reply) == complete(body, Manners(0, 0.0))[0] and again == reply
    rows = [(row["answered"], row["reply_fault"]) for row in truth_rows(truth) if "answered" in row]
    assert rows == [(False, kind), (True, None), (True, None)]


@pytest.mark.parametrize("kind", ["rate_limit", "retry_after", "retry_after_date"])
def test_429(kind: str) -> None:
    with serve(seed=0, fault_rate=0.0, faults=f"{kind}=1") as server:
        reply = post(server, body_of())
        error = json.loads(reply.read())["error"]
    assert reply.status == 429 and error["code"] == "rate_limit_exceeded"
    wait, date = reply.headers["Retry-After"], reply.headers.get_all("Date")
    assert date is not None and len(date) == 1
    server_now = email.utils.parsedate_to_datetime(date[0]).timestamp()
    if kind == "retry_after_date":
        assert abs(server_now - time.time() - 86_400) < 5
        assert email.utils.parsedate_to_datetime(wait).timestamp() - server_now == 1
    else:
        assert wait == {"rate_limit": None, "retry_after": "1"}[kind] and abs(server_now - time.time()) < 5


def test_500_and_502() -> None:
    with serve(seed=0, fault_rate=0.0, faults="error_500=0.5,error_502=0.5") as server:
        replies = {reply.status: (reply.headers["Content-Type"], reply.read()) for reply in map(
            lambda number: post(server, body_of(number)), range(20))}  # fmt: skip
    assert set(replies) == {500, 502}
    assert json.loads(replies[500][1])["error"]["type"] == "server_error"
    assert replies[502][0] == "text/html" and replies[502][1].startswith(b"<html>")


def test_a_hanging_request_ends_with_the_server_and_with_the_client(caplog: pytest.LogCaptureFixture) -> None:
    with serve(seed=0, fault_rate=0.0, faults="hang=1") as server:
        with pytest.raises(TimeoutError):
            post(server, body_of(0), timeout=0.2)
        waiting = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        waiting.request("POST", "/v1/chat/completions", body_of(1))
        time.sleep(0.1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        waiting.getresponse()
    waiting.close()
    assert not caplog.records  # asyncio's log of a connection that was given up


def test_cut_and_invalid_json() -> None:
    whole = json.dumps(complete(body_of(), Manners(0, 0.0))[0], ensure_ascii=False).encode()
    with serve(seed=0, fault_rate=0.0, faults="cut=1") as server:
        cut = post(server, body_of(), keep=True)
        with pytest.raises(http.client.IncompleteRead) as caught:
            cut.read()
    assert cut.status == 200 and int(cut.headers["Content-Length"]) == len(whole)
    assert whole.startswith(caught.value.partial) and 0.4 < len(caught.value.partial) / len(whole) < 0.6
    with serve(seed=0, fault_rate=0.0, faults="invalid_json=1") as server:
        half = post(server, body_of())
        data = half.read()
    assert half.status == 200 and int(half.headers["Content-Length"]) == len(data) and whole.startswith(data)
    with pytest.raises(ValueError):
        json.loads(data.decode())


def test_no_choices() -> None:
    with serve(seed=0, fault_rate=0.0, faults="no_choices=1") as server:
        reply = json.loads(post(server, body_of()).read())
    assert reply["choices"] == [] and reply["usage"]["completion_tokens"] > 100


def contents(fault: str, task: str, number: int = 0, **more: Any) -> tuple[str, str, list[Any], dict[str, int]]:
    reply, items = complete(body_of(number, task, **more), Manners(0, 0.1), fault=fault)
    choice = reply["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], items, reply["usage"]


@pytest.mark.parametrize("form", [None, SCHEMA])
def test_length_ends_in_the_middle_of_an_item(form: dict[str, Any] | None) -> None:
    counts = set()
    for number in range(20):
        text, finish, items, usage = contents("length", "ethics", number, response_format=form)
        assert finish == "length" and [item.shape for item in items].count("cut") == 1 and items[-1].shape == "cut"
        assert text.count('{"instruction"' if form else "###\n") == len(items)
        assert not text.endswith(items[-1].output or "\n") and usage["completion_tokens"] == -(-len(text.encode()) // 3)
        counts.add(len(items))
    assert counts == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("task", MAKERS)
def test_wrong_language_is_english_throughout(task: str) -> None:
    text, finish, items, _ = contents("wrong_language", task, count=40)
    _, plain = complete(body_of(0, task, 40), Manners(0, 0.1))
    assert finish == "stop" and [item.instruction for item in items] == [item.instruction for item in plain]
    for item, before in zip(items, plain, strict=True):
        if item.output is not None:
            assert script_share(item.output, "Latin") == 1.0 and item.output in text
            kept = before.output is not None and script_share(before.output, "Latin") == 1.0
            assert (item.output, item.fault) == (before.output, before.fault) if kept else item.fault == "wrong_language"
    assert sum(item.fault == "wrong_language" for item in items) > (10 if task == "translation" else 30)


@pytest.mark.parametrize("form", [None, SCHEMA])
def test_identical_is_one_item_twenty_times(form: dict[str, Any] | None) -> None:
    text, finish, items, _ = contents("identical", "reasoning", response_format=form)
    assert finish == "stop" and Counter(item.shape for item in items) == {"whole": 1, "duplicate": 19}
    parts = json.loads(text)["items"] if form else [part.strip() for part in text.split("###\n")[1:]]
    assert len(parts) == 20 and all(part == parts[0] for part in parts)


@pytest.mark.parametrize("form", [None, SCHEMA])
@pytest.mark.parametrize("task", ["sentiment", "generation"])
def test_huge_has_five_megabytes_whatever_max_tokens_says(task: str, form: dict[str, Any] | None) -> None:
    text, finish, items, usage = contents("huge", task, max_tokens=1000, response_format=form)
    assert HUGE_BYTES <= len(text.encode()) < 1.1 * HUGE_BYTES
    assert finish == "stop" and usage["completion_tokens"] == 1000
    answer = next(item.output for item in items if item.output is not None)
    assert answer is not None and answer.count("\n") > 100
    sent = [item["output"] for item in json.loads(text)["items"] if "output" in item] if form else None
    assert sent is None or sent == [item.output for item in items if item.output is not None]


@pytest.mark.parametrize("kind", sorted(CONTENT))
def test_content_faults_come_always_and_stand_in_the_truth_file(kind: str, tmp_path: Path) -> None:
    truth, body = tmp_path / "truth.jsonl", body_of(response_format=SCHEMA)
    with serve(seed=0, fault_rate=0.0, faults=f"{kind}=1", truth_file=str(truth)) as server:
        first, again = post(server, body).read(), post(server, body).read()
    assert first == again
    rows = truth_rows(truth)
    assert [row["reply_fault"] for row in rows if row.get("answered")] == [kind, kind]
    text = json.loads(first)["choices"][0]["message"]["content"]
    for row in rows[: len(rows) // 2 - 1]:
        assert row["shape"] == "cut" or json.dumps(row["output"], ensure_ascii=False) in text


def test_the_help_and_the_docs_name_every_kind() -> None:
    assert set(KINDS) == set(TRANSPORT) | set(CONTENT) | set(offline_faults.BATCH) and len(KINDS) == 14
    assert all(re.fullmatch(r"[a-z_0-9]+", kind) and text for kind, text in KINDS.items())
