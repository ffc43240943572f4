"""The offline teacher's Batch API as the openai SDK sees it: files, the statuses of a batch, what comes back of it."""

import json
import time
from pathlib import Path
from typing import Any, Literal

import openai
import pytest

from data_gen.offline import batches as offline_batches
from data_gen.offline.grammar import MAKERS
from data_gen.offline.judge import Manners
from data_gen.offline.teacher import MODEL, Server, complete, serve
from data_gen.record import canonical_json

ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
ORDER = ["validating", "in_progress", "finalizing", "completed"]


def request_of(number: int, model: str = MODEL) -> dict[str, Any]:
    """Its keys are in no order and its text is not ASCII, so that its bytes matter."""
    task = list(MAKERS)[number % len(MAKERS)]
    messages = [{"role": "user", "content": f"Task: {task}\nWrite exactly 3 new items. شکریہ"}]
    return {"temperature": 1.0, "model": model, "messages": messages, "seed": number, "max_tokens": 500}


def line_of(number: int, **more: Any) -> dict[str, Any]:
    return {"custom_id": f"r{number}", "method": "POST", "url": ENDPOINT, "body": request_of(number), **more}


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()


def client_of(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0)


def begin(client: openai.OpenAI, content: bytes, **more: Any) -> openai.types.Batch:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", **more)


def ended(client: openai.OpenAI, batch: openai.types.Batch, seen: list[str] | None = None) -> openai.types.Batch:
    deadline = time.monotonic() + 10
    while batch.status in ("validating", "in_progress", "finalizing", "cancelling"):
        assert time.monotonic() < deadline, batch.status
        if seen is not None and (not seen or seen[-1] != batch.status):
            seen.append(batch.status)
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    return batch


def lines_of(client: openai.OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_from_upload_to_output(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    with serve(seed=5, fault_rate=0.1, batch_s=0.4, truth_file=str(truth)) as server, client_of(server) as client:
        content = jsonl([line_of(number) for number in range(30)])
        file = client.files.create(file=("requests.jsonl", content), purpose="batch")
        assert (file.bytes, file.filename, file.purpose) == (len(content), "requests.jsonl", "batch")
        assert client.files.retrieve(file.id) == file and client.files.content(file.id).read() == content
        begun, seen = time.monotonic(), list[str]()
        batch = client.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h", metadata={"run": "x"})
        batch = ended(client, batch, seen)
        took = time.monotonic() - begun
        output = lines_of(client, batch.output_file_id)
        direct = client.chat.completions.create(**{**request_of(7), "max_tokens": 500})
    assert [*seen, batch.status] == ORDER and 0.4 <= took < 10
    counts = batch.request_counts
    assert counts and (counts.total, counts.completed, counts.failed) == (30, 30, 0)
    assert batch.metadata == {"run": "x"} and batch.error_file_id is None and batch.errors is None
    assert batch.created_at <= (batch.in_progress_at or 0) <= (batch.completed_at or 0) < (batch.expires_at or 0)
    order = [line["custom_id"] for line in output]
    assert sorted(order) == sorted(f"r{number}" for number in range(30)) and order != [f"r{number}" for number in range(30)]
    assert len({line["id"] for line in output}) == 30
    for line in output:
        assert set(line) == {"id", "custom_id", "response", "error"} and line["error"] is None
        assert set(line["response"]) == {"status_code", "request_id", "body"} and line["response"]["status_code"] == 200
        body = canonical_json(request_of(int(line["custom_id"][1:]))).encode()
        assert line["response"]["body"] == complete(body, Manners(5, 0.1))[0]
    assert direct.choices[0].message.content  # the same server answers both ways
    answered = [row for row in map(json.loads, truth.read_text().splitlines()) if row.get("answered")]
    assert len(answered) == 31


def test_the_order_is_not_the_input_s_however_few_there_are() -> None:
    with serve(seed=0, fault_rate=0.0) as server, client_of(server) as client:
        for _ in range(8):
            batch = ended(client, begin(client, jsonl([line_of(0), line_of(1)])))
            assert [line["custom_id"] for line in lines_of(client, batch.output_file_id)] == ["r1", "r0"]


def test_refused_requests_are_in_the_error_file() -> None:
    lines = [line_of(0), line_of(1, body=request_of(1, "gpt")), line_of(2, body={"model": MODEL, "messages": []})]
    with serve(seed=0, fault_rate=0.0) as server, client_of(server) as client:
        batch = ended(client, begin(client, jsonl(lines)))
        output, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
        nothing = ended(client, begin(client, jsonl(lines[1:2])))
    assert batch.status == nothing.status == "completed" and nothing.output_file_id is None
    assert [line["custom_id"] for line in output] == ["r0"] and batch.request_counts
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 2)
    statuses = {line["custom_id"]: line["response"]["status_code"] for line in errors}
    assert statuses == {"r1": 404, "r2": 400} and all(line["error"] is None for line in errors)
    assert all(line["response"]["body"]["error"]["message"] for line in errors)


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (jsonl([line_of(0)]) + b"{not json\n", "invalid_json_line", 2),
        (b"[1]\n", "invalid_json_line", 1),
        (b'{"custom_id": "\\ud800"}\n', "invalid_json_line", 1),
        (jsonl([line_of(0), line_of(1), line_of(0)]), "duplicate_custom_id", 3),
        (jsonl([line_of(0, url="/v1/embeddings")]), "url_mismatch", 1),
        (jsonl([line_of(0, method="GET")]), "invalid_method", 1),
        (jsonl([{"custom_id": "r0", "method": "POST", "url": ENDPOINT}]), "missing_required_parameter", 1),
        (jsonl([line_of(0, custom_id=7)]), "missing_required_parameter", 1),
        (b"\n\n", "empty_file", None),
        (jsonl([line_of(number) for number in range(6)]), "too_many_tasks", None),
        (jsonl([line_of(0)]) + b" " * 5000, "file_too_large", None),
    ],
)
def test_a_malformed_input_file_fails(content: bytes, code: str, line: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (offline_batches.MAX_LINES, offline_batches.MAX_BYTES) == (50_000, 200 * 2**20)
    monkeypatch.setattr(offline_batches, "MAX_LINES", 5)
    monkeypatch.setattr(offline_batches, "MAX_BYTES", 5000)
    with serve(seed=0, fault_rate=0.0) as server, client_of(server) as client:
        batch = ended(client, begin(client, content))
    assert batch.status == "failed" and batch.failed_at and batch.errors and batch.errors.data
    assert [(error.code, error.line) for error in batch.errors.data] == [(code, line)] and batch.errors.data[0].message
    assert batch.output_file_id is None is batch.error_file_id


def test_a_cancelled_batch_keeps_what_was_done() -> None:
    with serve(seed=0, fault_rate=0.0, batch_s=8.0) as server, client_of(server) as client:
        batch = begin(client, jsonl([line_of(number) for number in range(80)]))
        deadline = time.monotonic() + 5
        while not (batch.request_counts and batch.request_counts.completed >= 5):
            assert time.monotonic() < deadline
            time.sleep(0.02)
            batch = client.batches.retrieve(batch.id)
        assert client.batches.cancel(batch.id).status == "cancelling"
        begun = time.monotonic()
        batch = ended(client, batch)
        assert time.monotonic() - begun < 5
        output = lines_of(client, batch.output_file_id)
        with pytest.raises(openai.ConflictError, match="cancelled"):
            client.batches.cancel(batch.id)
    assert batch.status == "cancelled" and batch.cancelling_at and batch.cancelled_at and batch.request_counts
    assert 5 <= len(output) == batch.request_counts.completed < 80


def test_expired_requests_are_answered_the_next_time(tmp_path: Path) -> None:
    truth, lines = tmp_path / "truth.jsonl", [line_of(number) for number in range(60)]
    with (
        serve(seed=0, fault_rate=0.0, faults="expire=0.4,hang=0.2", truth_file=str(truth)) as server,
        client_of(server) as client,
    ):
        first = ended(client, begin(client, jsonl(lines)))
        done, expired = (lines_of(client, file_id) for file_id in (first.output_file_id, first.error_file_id))
        rest = [line for line in lines if line["custom_id"] in {line["custom_id"] for line in expired}]
        second = ended(client, begin(client, jsonl(rest)))
        again = lines_of(client, second.output_file_id)
    assert first.status == "expired" and first.expired_at and second.status == "completed"
    assert 10 < len(expired) < 40 and len(done) + len(expired) == 60 and len(again) == len(expired)
    assert {(line["response"], line["error"]["code"]) for line in expired} == {(None, "batch_expired")}
    rows = [row for row in map(json.loads, truth.read_text().splitlines()) if "answered" in row]
    assert sum(row["answered"] for row in rows) == 60 and sum(row["reply_fault"] == "expire" for row in rows) == len(expired)


def test_batches_are_listed_newest_first() -> None:
    with serve(seed=0, fault_rate=0.0) as server, client_of(server) as client:
        assert list(client.batches.list()) == []
        ids = [begin(client, jsonl([line_of(0)]), metadata={"n": str(number)}).id for number in range(5)]
        page = client.batches.list(limit=2)
        assert [batch.id for batch in page.data] == ids[:2:-1] and page.has_more
        assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]  # the SDK turns the pages
        assert [batch.id for batch in client.batches.list(after=ids[1]).data] == ids[:1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "/v1/embeddings"}, {"completion_window": "1h"}, {"input_file_id": "file-x"}, {"metadata": {"a": "b" * 513}},
        {"metadata": {str(number): "" for number in range(17)}},
    ],
)  # fmt: skip
def test_a_wrong_batch_is_refused(wrong: dict[str, Any]) -> None:
    with serve(seed=0, fault_rate=0.0) as server, client_of(server) as client:
        file = client.files.create(file=("requests.jsonl", jsonl([line_of(0)])), purpose="batch")
        right: dict[str, Any] = {"input_file_id": file.id, "endpoint": ENDPOINT, "completion_window": "24h"}
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            client.batches.create(**{**right, **wrong})


def test_what_is_not_there_is_not_found_and_other_files_are_refused() -> None:
    with serve(seed=0, fault_rate=0.0, api_key="k") as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="k", max_retries=0)
        for ask in (client.batches.retrieve, client.batches.cancel, client.files.retrieve, client.files.content):
            with pytest.raises(openai.NotFoundError):
                ask("batch_0")
        with pytest.raises(openai.BadRequestError, match="batch"):
            client.files.create(file=("a.txt", b"a"), purpose="user_data")
        with pytest.raises(openai.NotFoundError, match="unknown URL"):
            client.files.list()
        with pytest.raises(openai.AuthenticationError):
            client_of(server).batches.list()


def test_a_server_with_a_batch_at_work_stops_at_once() -> None:
    with serve(seed=0, fault_rate=0.0, batch_s=60.0) as server, client_of(server) as client:
        assert begin(client, jsonl([line_of(0)])).status == "validating"
        begun = time.monotonic()
    assert time.monotonic() - begun < 10


def test_a_file_comes_back_byte_for_byte() -> None:
    content = b"\r\n--\r\n" + bytes(range(256)) * 4000 + b"\r\n"
    with serve(seed=0, fault_rate=0.0) as server, client_of(server) as client:
        file = client.files.create(file=("x.jsonl", content), purpose="batch")
        assert client.files.content(file.id).read() == content
