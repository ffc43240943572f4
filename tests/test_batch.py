"""The Batch API backend: the data of direct requests, nothing asked twice whatever happens, nothing spent beyond the budget."""

import asyncio
import gc
import json
import os
import random
import signal
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError, batch, batch_api
from data_gen.account import Account
from data_gen.batch import BatchTeacher
from data_gen.batch_api import BatchApi, read_results
from data_gen.config import SelfInstructConfig
from data_gen.endpoint import Endpoint
from data_gen.journal import Journal, open_journal
from data_gen.limits import BudgetReached
from data_gen.offline import teacher as offline_teacher
from data_gen.offline.http import Reply, Request, RequestError, json_reply
from data_gen.offline.teacher import MODEL, Server
from tests import plain_tfrecord
from tests.test_self_instruct import ROOT, TERMS, Said, config, generate, outcome, query

MIX = {"generation": 30, "translation": 20}
Handle = Callable[[Request], Reply | None]
Handler = Callable[[Handle, Request], Reply | None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "GATHER_S", 0.01)
    monkeypatch.setattr(batch_api, "APPEARS_S", 0.02)
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: None)  # 25 ms a run, and nothing here is https


def served(tmp_path: Path, *, batch_s: float = 0.0, **options: Any) -> Server:
    return offline_teacher.serve(seed=0, fault_rate=0.1, batch_s=batch_s, truth_file=str(tmp_path / "truth.jsonl"), **options)


def recipe(server: Server, **more: Any) -> SelfInstructConfig:
    """A run of batches; `more` are fields of the teacher's config."""
    made = config(server.base_url, targets=MIX, in_flight=8)
    made.teacher.model, made.teacher.batch, made.teacher.batch_poll_s, made.teacher.give_up_s = MODEL, True, 0.01, 20.0
    for name, value in more.items():
        setattr(made.teacher, name, value)
    return made


def spoil(server: Server, change: Callable[[Request, Handle], Reply | None]) -> None:
    """Puts `change` between the server and its files and batches; a None closes the connection without a word."""
    honest = server._batches.handle
    server._batches.handle = lambda request: change(request, honest)  # type: ignore[method-assign, assignment, return-value]


def once(method: str, path: str, *answers: Handler) -> Callable[[Request, Handle], Reply | None]:
    """`answers` in place of the replies to the first requests of this kind."""
    left = list(answers)

    def change(request: Request, honest: Handle) -> Reply | None:
        if left and request.method == method and request.path.removeprefix("/v1/").startswith(path):
            return left.pop(0)(honest, request)
        return honest(request)

    return change


def get(server: Server, path: str) -> bytes:
    with urllib.request.urlopen(f"{server.base_url}{path}") as reply:
        return reply.read()


def batches(server: Server) -> list[list[str]]:
    """The custom_ids of each batch that the provider was given, oldest first."""
    views = json.loads(get(server, "/batches?limit=100"))["data"]
    files = [get(server, f"/files/{view['input_file_id']}/content") for view in reversed(views)]
    return [[json.loads(line)["custom_id"] for line in file.splitlines()] for file in files]


def sent(server: Server) -> Counter[str]:
    return Counter(key for keys in batches(server) for key in keys)


def answered(tmp_path: Path) -> Counter[str]:
    """How often the provider answered each body: what is to be paid."""
    lines = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    return Counter(line["request"] for line in lines if line.get("answered"))


def data(workdir: Path) -> list[str]:
    """All records and rejects. Requests go by their numbers: their keys depend on the server's port."""
    _, splits = plain_tfrecord.directory(str(workdir / "data"))
    text = "\n".join(
        [*(json.dumps(one) for side in sorted(splits) for one in splits[side]), (workdir / "rejected.jsonl").read_text()]
    )
    for idx, key in query(workdir, "SELECT idx, key FROM request"):
        text = text.replace(key, f"request {idx}")
    return text.splitlines()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The data of a run that nothing disturbs and that asks directly."""
    tmp_path = tmp_path_factory.mktemp("undisturbed")
    with served(tmp_path) as server:
        generate(tmp_path / "w", recipe(server, batch=False))
    return data(tmp_path / "w")


# --- the data ---------------------------------------------------------------------------------------------------------


def test_the_data_of_direct_requests(tmp_path: Path, undisturbed: list[str]) -> None:
    with served(tmp_path, batch_s=0.05) as server:
        summary = generate(tmp_path / "w", recipe(server))
        asked = batches(server)
        again = generate(tmp_path / "w", recipe(server))
        assert again.reused == again.requests and batches(server) == asked
        assert answered(tmp_path).total() == summary.requests and set(answered(tmp_path).values()) == {1}
        generate(tmp_path / "direct", recipe(server, batch=False))
        assert set(answered(tmp_path).values()) == {2}
    assert outcome(tmp_path / "w") == outcome(tmp_path / "direct")
    assert data(tmp_path / "w") == undisturbed
    keys = Counter(key for (key,) in query(tmp_path / "w", "SELECT key FROM request"))
    assert Counter(key for part in asked for key in part) == keys, "each once, under its key"
    assert len(asked[0]) == 8, "one batch of all that is asked at about the same time"
    assert len(asked) <= summary.requests / 4


def test_batches_of_many_requests_are_cut_to_the_limits(
    tmp_path: Path, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_REQUESTS", 3)
    with served(tmp_path) as server:
        generate(tmp_path / "w", recipe(server))
        assert max(map(len, batches(server))) == 3 and set(sent(server).values()) == {1}
        lines = [get(server, f"/files/{view['input_file_id']}/content").splitlines(keepends=True)
                 for view in json.loads(get(server, "/batches?limit=100"))["data"]]  # fmt: skip
    assert data(tmp_path / "w") == undisturbed
    longest = max(len(line) for file in lines for line in file)
    monkeypatch.setattr(batch, "MAX_REQUESTS", 100)
    monkeypatch.setattr(batch, "MAX_BYTES", 3 * longest - 1)
    (tmp_path / "b").mkdir()
    with served(tmp_path / "b") as server:
        generate(tmp_path / "b" / "w", recipe(server))
        sizes = [view["bytes"] for view, _ in server._batches._files.values() if view["purpose"] == "batch"]
        assert longest * 1.5 < max(sizes) < 3 * longest
    (tmp_path / "c").mkdir()
    monkeypatch.setattr(batch, "MAX_BYTES", 10)  # not even one has room: it is for the provider to say
    with served(tmp_path / "c") as server:
        generate(tmp_path / "c" / "w", recipe(server))
        assert set(map(len, batches(server))) == {1}
    assert data(tmp_path / "b" / "w") == data(tmp_path / "c" / "w") == undisturbed


# --- kills ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends the run in a test; what was on disk at that moment is what a SIGKILL leaves."""


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, workdir: Path, copy: Path, *, call: int = 1) -> None:
    """At the n-th call of a function the journal's committed state goes to `copy`, and the run ends."""
    original, left = getattr(owner, name), [call]

    def killed(*args: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            copy.mkdir()
            with sqlite3.connect(workdir / "journal.sqlite") as there, sqlite3.connect(copy / "journal.sqlite") as here:
                there.backup(here)
            raise Killed
        return original(*args, **options)

    monkeypatch.setattr(owner, name, killed)


MOMENTS = {
    "before the journal has the batch": (BatchTeacher, "_take", 2),
    "before the batch is sent": (BatchApi, "create", 2),
    "before its name is kept": (Journal, "name_batch", 2),
    "while it is polled": (BatchApi, "ended", 2),
    "before its results are fetched": (BatchApi, "results", 2),
    "after the first results are written": (Account, "answered", 14),
    "before the results are on disk": (Journal, "end_batch", 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_every_moment(tmp_path: Path, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    owner, name, call = MOMENTS[moment]
    if moment == "after the first results are written":
        monkeypatch.setattr(batch, "SETTLE_LINES", 2)
    with served(tmp_path, batch_s=0.03) as server:
        with monkeypatch.context() as patched:
            kill_at(patched, owner, name, tmp_path / "w", tmp_path / "killed", call=call)
            with pytest.raises(Killed):
                generate(tmp_path / "w", recipe(server))
        before = sent(server)
        written = query(tmp_path / "killed", "SELECT count(*) FROM attempt WHERE ended_at IS NOT NULL")[0][0]
        assert 8 < written < 16 if batch.SETTLE_LINES == 2 else written == 8
        generate(tmp_path / "killed", recipe(server))
        assert set(sent(server).values()) == {1} and before <= sent(server)
    assert set(answered(tmp_path).values()) == {1}
    assert data(tmp_path / "killed") == undisturbed
    assert not query(tmp_path / "killed", "SELECT * FROM batch WHERE ended_at IS NULL")


RECIPE = """
from data_gen.config import SelfInstructConfig, Targets
from data_gen.endpoint import TeacherConfig

def get_config(arg=""):
    teacher = TeacherConfig(
        base_url={url!r}, model="offline-teacher", terms={terms!r}, max_in_flight=8, batch=True, batch_poll_s=0.05,
        input_price=1.0, output_price=2.0,
    )
    none = dict(reasoning=0, ethics=0, question_answering=0, classification=0, sentiment=0)
    targets = Targets(generation=30, translation=20, **none)
    return SelfInstructConfig(targets=targets, teacher=teacher, items_per_request=5, pool_lag=8)
"""


@contextmanager
def command(recipe_file: Path, workdir: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "launch/self_instruct.py", f"--config={recipe_file}", f"--workdir={workdir}", *flags],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def written_recipe(tmp_path: Path, server: Server) -> Path:
    file = tmp_path / f"recipe_{server.server_port}.py"
    file.write_text(RECIPE.format(url=server.base_url, terms=TERMS))
    return file


def until_a_batch_more(server: Server, process: subprocess.Popen[str]) -> None:
    count = len(batches(server))
    until(lambda: len(batches(server)) > count or process.poll() is not None)


@pytest.mark.slow
def test_a_process_killed_at_random(tmp_path: Path, undisturbed: list[str]) -> None:
    rng = random.Random(0)
    with served(tmp_path, batch_s=0.6) as server:
        file = written_recipe(tmp_path, server)
        for _ in range(8):
            with command(file, tmp_path / "w") as process:
                until_a_batch_more(server, process)
                time.sleep(rng.uniform(0, 1.0))
                process.send_signal(signal.SIGKILL)
                process.wait()
        with command(file, tmp_path / "w") as process:
            said, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        assert set(sent(server).values()) == {1}
    assert set(answered(tmp_path).values()) == {1}
    assert data(tmp_path / "w") == undisturbed
    assert "0 in flight at a crash" in said


# --- stops ------------------------------------------------------------------------------------------------------------


def test_sigterm_leaves_the_batch_with_the_provider(tmp_path: Path, undisturbed: list[str]) -> None:
    with served(tmp_path, batch_s=4.0) as server:
        file = written_recipe(tmp_path, server)
        with command(file, tmp_path / "w", "--max_cost=9") as process:
            until(lambda: bool(query_or_none(tmp_path / "w", "SELECT id FROM batch WHERE id IS NOT NULL")))
            process.send_signal(signal.SIGTERM)
            at = time.monotonic()
            said, errors = process.communicate(timeout=10)
            assert time.monotonic() - at < 3.5
        assert (process.returncode, errors) == (75, "")
        assert "stopping: 8 requests stay with the provider, the same command fetches their replies" in said
        assert query(tmp_path / "w", "SELECT count(*) FROM request WHERE status = 'done'") == [(0,)]
        made = recipe(server)
        made.teacher.batch = False
        with pytest.raises(UsageError, match=r"a batch of .* is still with the provider: give --config.teacher.batch=true"):
            generate(tmp_path / "w", made)
        server._batches._batch_s = 0.0  # of the next ones
        generate(tmp_path / "w", recipe(server))
        assert set(sent(server).values()) == {1}
        generate(tmp_path / "w", made)  # nothing is open any more
    assert data(tmp_path / "w") == undisturbed


def query_or_none(workdir: Path, sql: str) -> list[tuple] | None:
    try:
        return query(workdir, sql)
    except sqlite3.OperationalError:
        return None


def test_ctrl_c_ends_at_once(tmp_path: Path, undisturbed: list[str]) -> None:
    said = Said()
    with served(tmp_path, batch_s=0.7) as server:
        interrupt = threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "w", recipe(server), show=said)
        assert len(batches(server)) == 1 and get(server, "/batches").find(b'"status": "in_progress"') > 0
        assert said[-1].startswith("stopping: 8 requests stay with the provider")
        assert (
            "batch batch_" in said.last.waiting and "in_progress: " in said.last.waiting and " of 8 answered" in said.last.waiting
        )
        server._batches._batch_s = 0.0
        generate(tmp_path / "w", recipe(server))
        assert set(sent(server).values()) == {1}
    assert data(tmp_path / "w") == undisturbed


# --- faults -----------------------------------------------------------------------------------------------------------


def test_expired_requests_are_asked_in_the_next_batch(tmp_path: Path, undisturbed: list[str]) -> None:
    with served(tmp_path, faults="expire=0.4") as server:
        made = recipe(server, input_price=1.0, output_price=1.0, max_attempts=2)
        generate(tmp_path / "w", made)
        counts = sent(server)
        asked = batches(server)
    assert set(counts.values()) == {1, 2} and set(answered(tmp_path).values()) == {1}
    assert data(tmp_path / "w") == undisturbed
    expired = query(tmp_path / "w", "SELECT error, cost, prompt_tokens FROM attempt WHERE error IS NOT NULL")
    assert len(expired) == sum(count == 2 for count in counts.values())
    assert all("batch_expired" in error and (cost, tokens) == (0.0, 0) for error, cost, tokens in expired)
    again = next(key for key in asked[0] if counts[key] == 2)
    assert again in asked[1]


def test_a_refused_request_fails_alone(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        honest, refused = server._batches._answer, list[bytes]()

        def answer(body: bytes) -> dict[str, Any]:
            if not refused:
                refused.append(body)
                raise RequestError(400, "this prompt is too long")
            return honest(body)

        server._batches._answer = answer
        summary = generate(tmp_path / "w", recipe(server))
        assert (summary.failed, summary.accepted["generation"]["train"]) == (1, 30)
        assert set(sent(server).values()) == {1}
    [(body, error, cost)] = query(
        tmp_path / "w",
        "SELECT body, error, completion_tokens FROM request r JOIN attempt a USING (idx) WHERE status = 'failed'",
    )
    assert body.encode() == refused[0] and "HTTP 400" in error and "this prompt is too long" in error and cost == 0


@pytest.mark.parametrize("status", [400, 404, 500])
def test_requests_that_are_all_refused_stop_the_run(tmp_path: Path, status: int) -> None:
    with served(tmp_path) as server:
        honest = server._batches._answer

        def answer(body: bytes) -> dict[str, Any]:
            raise RequestError(status, "not with me")

        server._batches._answer = answer
        with pytest.raises(UsageError, match=f"HTTP {status}.*not with me" if status == 404 else "5 requests one after the other"):
            generate(tmp_path / "w", recipe(server, max_attempts=2))
        server._batches._answer = honest
        assert not query(tmp_path / "w", "SELECT * FROM batch WHERE ended_at IS NULL")
        assert generate(tmp_path / "w", recipe(server)).failed == 0


def test_a_batch_that_fails_validation(tmp_path: Path, undisturbed: list[str]) -> None:
    """The provider's words come out, nothing is asked again and again, and the same command goes on."""
    with served(tmp_path) as server:
        honest = batch._line
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(batch, "_line", lambda request: honest(request).replace(b'"POST"', b'"PUT"'))
            with pytest.raises(
                UsageError, match="batch_.* was refused: The method is 'PUT'; it must be POST.*; and 5 more"
            ) as caught:
                generate(tmp_path / "w", recipe(server, max_attempts=1))
        assert "\n" not in str(caught.value) and len(batches(server)) == 1
        assert query(tmp_path / "w", "SELECT count(*), count(ended_at), sum(completion_tokens) FROM attempt") == [(8, 8, 0)]
        assert generate(tmp_path / "w", recipe(server)).failed == 0
    assert data(tmp_path / "w") == undisturbed


def test_a_batch_cancelled_by_somebody_stops_the_run(tmp_path: Path, undisturbed: list[str]) -> None:
    with served(tmp_path, batch_s=0.6) as server:

        def cancel() -> None:
            until(lambda: b'"completed": 2' in get(server, "/batches"))
            name = json.loads(get(server, "/batches"))["data"][0]["id"]
            urllib.request.urlopen(urllib.request.Request(f"{server.base_url}/batches/{name}/cancel", method="POST")).close()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(UsageError, match="batch_.* was cancelled there"):
            generate(tmp_path / "w", recipe(server, max_attempts=1))
        thread.join()
        kept = query(tmp_path / "w", "SELECT count(*) FROM request WHERE status = 'done'")[0][0]
        assert 2 <= kept < 8 and len(batches(server)) == 1
        server._batches._batch_s = 0.0
        generate(tmp_path / "w", recipe(server))
    assert data(tmp_path / "w") == undisturbed and set(answered(tmp_path).values()) == {1}


def away(honest: Handle, request: Request) -> Reply | None:
    return None


def html(honest: Handle, request: Request) -> Reply:
    return Reply(200, b"<html>log in</html>", {"Content-Type": "text/html"})


def half(honest: Handle, request: Request) -> Reply:
    reply = honest(request)
    assert reply
    return Reply(200, reply.body[: len(reply.body) // 2], reply.headers)


def cut(honest: Handle, request: Request) -> Reply:
    reply = honest(request)
    assert reply
    return replace(reply, cut=len(reply.body) // 2)


def done_but_silent(honest: Handle, request: Request) -> None:
    honest(request)


def busy(honest: Handle, request: Request) -> Reply:
    return json_reply({"error": {"message": "slow down"}}, 429)


def bad_gateway(honest: Handle, request: Request) -> Reply:
    return Reply(502, b"<html>bad gateway</html>", {"Content-Type": "text/html"})


def nameless(honest: Handle, request: Request) -> Reply:
    return json_reply({"object": "surprise"})


CALLS = [("POST", "files"), ("POST", "batches"), ("GET", "batches/"), ("GET", "files")]


@pytest.mark.parametrize("answers", [(away, cut, done_but_silent, busy, bad_gateway), (html, half, nameless)])
def test_a_call_that_goes_wrong_is_made_again(tmp_path: Path, undisturbed: list[str], answers: tuple[Handler, ...]) -> None:
    """Each kind of call in each way, one after the other."""
    with served(tmp_path) as server:
        for call in CALLS:
            if call != ("GET", "files") or away in answers:  # there, what comes is the file
                spoil(server, once(*call, *answers))
        generate(tmp_path / "w", recipe(server, backoff_s=0.001))
        assert set(sent(server).values()) == {1}, "a batch that was made without an answer is found by its tag"
    assert data(tmp_path / "w") == undisturbed and set(answered(tmp_path).values()) == {1}


@pytest.mark.parametrize(("call", "answer"), zip(CALLS, [away, html, busy, bad_gateway], strict=True))
def test_an_endpoint_that_stays_away_is_given_up(
    tmp_path: Path, undisturbed: list[str], call: tuple[str, str], answer: Handler
) -> None:
    with served(tmp_path) as server:
        honest = server._batches.handle
        spoil(server, once(*call, *[answer] * 1000))
        with pytest.raises(UsageError, match=r"no answer for 0.1 s.*Nothing is lost: the same command goes on") as caught:
            generate(tmp_path / "w", recipe(server, give_up_s=0.1))
        assert "\n" not in str(caught.value)
        server._batches.handle = honest  # type: ignore[method-assign]
        generate(tmp_path / "w", recipe(server))
        assert set(sent(server).values()) == {1}
    assert data(tmp_path / "w") == undisturbed


def test_polls_further_apart_than_the_patience(tmp_path: Path) -> None:
    """One poll that fails is no silence of give_up_s, though nothing was heard for longer."""
    polls = [0]

    def second_fails(request: Request, honest: Handle) -> Reply | None:
        polls[0] += request.path.startswith("/v1/batches/")
        return busy(honest, request) if polls[0] == 2 else honest(request)

    with served(tmp_path, batch_s=0.25) as server:
        spoil(server, second_fails)
        made = recipe(server, give_up_s=0.1, batch_poll_s=0.2)
        made.targets.generation, made.targets.translation = 4, 0
        assert generate(tmp_path / "w", made).failed == 0 and polls[0] > 2


def test_a_key_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    with served(tmp_path, api_key="sk-right") as server:
        with pytest.raises(UsageError, match="401.*OPENAI_API_KEY, which is set, but not accepted. Nothing is lost") as caught:
            generate(tmp_path / "w", recipe(server))
        assert "sk-wrong" not in str(caught.value)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
        assert generate(tmp_path / "w", recipe(server)).failed == 0


def test_a_batch_that_the_provider_does_not_know(tmp_path: Path) -> None:
    """Another account's key, say: it must not be taken for lost and bought again."""
    with served(tmp_path) as server:
        spoil(server, once("GET", "batches/", lambda honest, request: json_reply({"error": {"message": "none"}}, 404)))
        with pytest.raises(UsageError, match="batch batch_.*: HTTP 404.*Only the account that made it has it: .*OPENAI_API_KEY"):
            generate(tmp_path / "w", recipe(server))
        generate(tmp_path / "w", recipe(server))
        assert set(sent(server).values()) == {1}


def test_no_batch_api(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        spoil(server, lambda request, honest: json_reply({"detail": "Not Found"}, 404))
        with pytest.raises(UsageError, match="the upload of a batch: HTTP 404.*If not: --config.teacher.batch=false"):
            generate(tmp_path / "w", recipe(server))
        assert generate(tmp_path / "w", recipe(server, batch=False)).failed == 0, "as the line says"


def results_changed(server: Server, change: Callable[[list[dict[str, Any]]], list[Any]]) -> None:
    """The first output file as `change` makes it."""
    done = list[bool]()

    def changed(request: Request, honest: Handle) -> Reply | None:
        reply = honest(request)
        if reply and request.method == "GET" and request.path.endswith("/content") and b'"custom_id"' in reply.body and not done:
            done.append(True)
            lines = change([json.loads(line) for line in reply.body.splitlines()])
            body = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
            return Reply(200, body, reply.headers)
        return reply

    spoil(server, changed)


def with_body(line: dict[str, Any], body: Any) -> dict[str, Any]:
    return {**line, "response": {**line["response"], "body": body}}


def odd_lines(lines: list[dict[str, Any]]) -> list[Any]:
    """Each of the 8 in another way, the last one in none."""
    a, b, c, d, e, f, g, good = lines
    return [
        with_body(a, None),
        with_body(b, "oops"),
        with_body(c, {"choices": [], "said": "\ud800"}),
        {**d, "response": None, "error": {"message": "lost \ud800"}},
        {**e, "response": "gone"},
        {**f, "response": {"status_code": "200"}},
        {**g, "response": {"status_code": 429, "body": {"error": "slow"}}},
        good,
    ]


def unreadable_lines(lines: list[dict[str, Any]]) -> list[Any]:
    odd = {**lines[1], "custom_id": 5}
    return [b'{"custom_id": "', b"[1]", b"7", b'{"id": 1}', b"\xff\xfe", b"[" * 9999, b"", odd, *lines[2:]]


RESULTS: dict[str, tuple[Callable[[list[dict[str, Any]]], list[Any]], int, int]] = {
    # what is done to the first file: (how, requests that are asked again, those of them that may have been paid for)
    "odd": (odd_lines, 7, 3),
    "unreadable": (unreadable_lines, 2, 2),
    "missing": (lambda lines: [], 8, 8),
    "unknown and double": (lambda lines: [{**lines[0], "custom_id": "who"}, *lines, *lines], 0, 0),
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_that_are_none(tmp_path: Path, undisturbed: list[str], name: str) -> None:
    change, again, paid = RESULTS[name]
    with served(tmp_path) as server:
        results_changed(server, change)
        generate(tmp_path / "w", recipe(server))
        counts = sent(server)
    assert sum(count == 2 for count in counts.values()) == again and max(counts.values()) == 1 + bool(again)
    lost = query(tmp_path / "w", "SELECT completion_tokens FROM attempt WHERE error IS NOT NULL ORDER BY 1")
    assert lost == [(0,)] * (again - paid) + [(8192,)] * paid
    assert data(tmp_path / "w") == undisturbed


def test_half_a_surrogate_pair_in_a_good_reply(tmp_path: Path) -> None:
    def change(lines: list[dict[str, Any]]) -> list[Any]:
        body = lines[0]["response"]["body"]
        body["choices"][0]["message"]["content"] += "\ud800"
        return [with_body(lines[0], body), *lines[1:]]

    with served(tmp_path) as server:
        results_changed(server, change)
        assert generate(tmp_path / "w", recipe(server)).failed == 0
        assert set(sent(server).values()) == {1}


def test_a_defect_ends_the_run_instead_of_waiting_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path) as server:
        with monkeypatch.context() as patched:

            def mistaken(reply: str) -> None:
                raise KeyError("a mistake")

            patched.setattr(batch, "reply_choice", mistaken)
            with pytest.raises(KeyError, match="a mistake"):
                generate(tmp_path / "w", recipe(server))
        generate(tmp_path / "w", recipe(server))
        assert set(sent(server).values()) == {1}


@pytest.mark.parametrize("call", [1, 8])
def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[str], call: int) -> None:
    """While requests are being written into a batch; the last one of it included, when nobody is left gathered."""
    written, original = [0], Journal.sent

    def full(self: Journal, *args: Any) -> Any:
        written[0] += 1
        if written[0] >= call:
            raise UsageError("no space")
        return original(self, *args)

    with served(tmp_path) as server:
        with monkeypatch.context() as patched:
            patched.setattr(Journal, "sent", full)
            with pytest.raises(UsageError, match="no space"):
                generate(tmp_path / "w", recipe(server))
        generate(tmp_path / "w", recipe(server))
        assert set(sent(server).values()) == {1}
    assert data(tmp_path / "w") == undisturbed


def test_the_offline_teacher_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batches end with it: those of a run that was stopped are asked anew."""
    made = config("offline", targets={"generation": 20}, in_flight=8)
    made.teacher.model, made.teacher.batch, made.teacher.batch_poll_s = MODEL, True, 0.01
    with monkeypatch.context() as patched:
        kill_at(patched, BatchApi, "ended", tmp_path / "w", tmp_path / "killed")
        with pytest.raises(Killed):
            generate(tmp_path / "w", made)
    made.teacher.max_attempts = 1
    assert generate(tmp_path / "killed", made).failed == 0


# --- the budget -------------------------------------------------------------------------------------------------------

PRICES = {"input_price": 1.0, "output_price": 2.0}


def test_a_batch_is_as_large_as_the_budget_holds(tmp_path: Path, undisturbed: list[str]) -> None:
    with served(tmp_path) as server:
        made = recipe(server, **PRICES)
        worst = 0.5 * (8192 * 2.0 + 6_000 * 1.0) / 1e6  # a request's body has less than 6,000 bytes
        summary = generate(tmp_path / "w", made, max_cost=5 * worst)
        assert summary.cost is not None and 0 < summary.cost <= 5 * worst
        assert 5 <= max(map(len, batches(server))) < 8 and set(sent(server).values()) == {1}
    [(cost, prompt, completion)] = query(
        tmp_path / "w", "SELECT sum(cost), sum(prompt_tokens), sum(completion_tokens) FROM attempt"
    )
    assert cost == pytest.approx(0.5 * (prompt * 1.0 + completion * 2.0) / 1e6) and summary.cost == pytest.approx(cost)
    assert data(tmp_path / "w") == undisturbed


def test_a_stop_at_the_budget_and_on_when_it_is_raised(tmp_path: Path, undisturbed: list[str]) -> None:
    with served(tmp_path) as server:
        made, spent = recipe(server, **PRICES), 0.0
        with pytest.raises(BudgetReached, match="0.0000 of .*0.001 are spent, and a request may cost"):
            generate(tmp_path / "w", made, max_cost=0.001)
        assert not query(tmp_path / "w", "SELECT * FROM batch") and not batches(server)
        for cap in (0.0115, 0.015, 0.02):
            with pytest.raises(BudgetReached):
                generate(tmp_path / "w", made, max_cost=cap)
            [(now,)] = query(tmp_path / "w", "SELECT sum(cost) FROM attempt")
            assert spent < now <= cap and not query(tmp_path / "w", "SELECT * FROM attempt WHERE ended_at IS NULL")
            spent = now
        generate(tmp_path / "w", made, max_cost=1.0)
        assert set(sent(server).values()) == {1}
    assert data(tmp_path / "w") == undisturbed


def test_exit_codes_of_the_command(tmp_path: Path) -> None:
    """77 at the budget; 2 where the batch is refused, with one line that is good advice."""
    refusal = json_reply(RequestError(400, "enqueued token limit reached").body, 400)
    with served(tmp_path) as poor, served(tmp_path) as refusing:
        spoil(refusing, once("POST", "batches", lambda honest, request: refusal))
        files = [written_recipe(tmp_path, server) for server in (poor, refusing)]
        with (
            command(files[0], tmp_path / "poor", "--max_cost=0.0115") as stopped,
            command(files[1], tmp_path / "refused") as refused,
        ):
            said, errors = stopped.communicate(timeout=20)
            assert (stopped.returncode, errors) == (77, "") and "stopped at the budget: $0.0" in said
            _, errors = refused.communicate(timeout=20)
        assert refused.returncode == 2 and errors.count("\n") == 1
        assert "enqueued token limit reached" in errors and "--config.teacher.batch=false" in errors
        assert generate(tmp_path / "refused", recipe(refusing, batch=False)).failed == 0


def test_a_batch_under_way_counts_once_in_the_next_run(
    tmp_path: Path, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was sent before there was a price."""
    with served(tmp_path, batch_s=0.1) as server:
        with monkeypatch.context() as patched:
            kill_at(patched, BatchApi, "ended", tmp_path / "w", tmp_path / "killed")
            with pytest.raises(Killed):
                generate(tmp_path / "w", recipe(server))
        [(prompt, completion)] = query(tmp_path / "killed", "SELECT sum(prompt_tokens), sum(completion_tokens) FROM attempt")
        reserved = 0.5 * (prompt * 1.0 + completion * 2.0) / 1e6
        seen = list[tuple[float, float]]()
        original = Account.fits

        def fits(self: Account, *args: Any) -> bool:
            seen.append((self.budget.spent, self.budget.reserved))
            assert self.budget.spent + self.budget.reserved <= cap + 1e-9
            return original(self, *args)

        cap = reserved * 1.01
        monkeypatch.setattr(Account, "fits", fits)
        summary = generate(tmp_path / "killed", recipe(server, **PRICES), max_cost=cap)
        assert summary.cost is not None and summary.cost <= cap
        assert set(sent(server).values()) == {1}
        resumed = Account(recipe(server, **PRICES).teacher, open_for_test(tmp_path / "killed"), cap)
        assert resumed.budget.spent == pytest.approx(summary.cost)
    assert data(tmp_path / "killed") == undisturbed


def open_for_test(workdir: Path) -> Journal:
    with open_journal(str(workdir)):
        pass
    return Journal(sqlite3.connect(workdir / "journal.sqlite"), str(workdir))


def test_what_a_resumed_batch_reserves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path, batch_s=0.1) as server:
        with monkeypatch.context() as patched:
            kill_at(patched, BatchApi, "ended", tmp_path / "w", tmp_path / "killed")
            with pytest.raises(Killed):
                generate(tmp_path / "w", recipe(server))

        async def reserved(journal: Journal) -> tuple[float, float]:
            teacher = recipe(server, **PRICES).teacher
            account = Account(teacher, journal, 1.0)
            async with Endpoint(teacher, server.base_url) as endpoint:
                await BatchTeacher(endpoint, journal, account).drain([])
            return account.budget.spent, account.budget.reserved

        [(prompt, completion)] = query(tmp_path / "killed", "SELECT sum(prompt_tokens), sum(completion_tokens) FROM attempt")
        with open_journal(str(tmp_path / "killed")) as journal:
            assert asyncio.run(reserved(journal)) == (0.0, pytest.approx(0.5 * (prompt * 1.0 + completion * 2.0) / 1e6))


def test_batches_that_ended_before_there_was_a_price(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        generate(tmp_path / "w", recipe(server))
        assert query(tmp_path / "w", "SELECT count(cost) FROM attempt") == [(0,)]
        [(prompt, completion)] = query(tmp_path / "w", "SELECT sum(prompt_tokens), sum(completion_tokens) FROM attempt")
        for made in (recipe(server, **PRICES), recipe(server, **PRICES, batch=False)):
            assert generate(tmp_path / "w", made).cost == pytest.approx(0.5 * (prompt * 1.0 + completion * 2.0) / 1e6)


# --- small things -----------------------------------------------------------------------------------------------------


def test_a_smaller_window_than_the_batch_under_way(
    tmp_path: Path, undisturbed: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All of its replies are taken, though only some of its requests are asked for yet; a stop then leaves no complaint."""
    with served(tmp_path, batch_s=0.05) as server:
        with monkeypatch.context() as patched:
            kill_at(patched, BatchApi, "ended", tmp_path / "w", tmp_path / "killed")
            with pytest.raises(Killed):
                generate(tmp_path / "w", recipe(server))
        spoil(server, once("GET", "batches/", lambda honest, request: json_reply({"error": "no"}, 404)))
        with pytest.raises(UsageError, match="404"):
            generate(tmp_path / "killed", recipe(server, max_in_flight=2))
        gc.collect()
        assert not [record for record in caplog.records if "never retrieved" in record.getMessage()]
        generate(tmp_path / "killed", recipe(server, max_in_flight=2))
        assert set(sent(server).values()) == {1}
    assert data(tmp_path / "killed") == undisturbed


def test_a_batch_is_searched_in_all_of_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others make batches too: here 250 newer ones."""
    with served(tmp_path) as server:
        with monkeypatch.context() as patched:
            kill_at(patched, Journal, "name_batch", tmp_path / "w", tmp_path / "killed")
            with pytest.raises(Killed):
                generate(tmp_path / "w", recipe(server))
        [(_, mine)] = server._batches._batches.items()
        for number in range(250):
            server._batches._batches[f"batch_{number}"] = replace(
                mine, view={**mine.view, "id": f"batch_{number}", "metadata": None}
            )
        generate(tmp_path / "killed", recipe(server))
        assert query(tmp_path / "killed", "SELECT id FROM batch")[0] == (mine.view["id"],)


def test_read_results() -> None:
    lines = b'{"custom_id": "a", "response": {"status_code": 200, "body": {"x": 1}}}\nno\n\n{"custom_id": "b", "error": "e"}'
    assert [(r.key, r.status, r.body, r.error) for r in read_results([lines, b""])] == [
        ("a", 200, {"x": 1}, None),
        ("b", 0, None, "e"),
    ]
