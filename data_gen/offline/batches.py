"""The files and batches of the offline teacher, in memory: OpenAI's Batch API as far as chat completions need it.

A batch reads its input file, has its requests answered one by one over `batch_s` seconds in an order of its own, and
leaves an output and an error file. It is not a queue across processes: with the server all files and batches are gone.
"""

import asyncio
import json
import random
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from data_gen.offline.http import Reply, Request, RequestError, json_reply
from data_gen.record import canonical_json

ENDPOINT = "/v1/chat/completions"
MAX_LINES = 50_000
MAX_BYTES = 200 * 2**20
MAX_ERRORS = 100  # listed of a malformed input file
CHECKING_SHARE = FINALIZING_SHARE = 0.1  # of batch_s, before the first and after the last answer
WINDOW_S = 86_400
_LINE_FIELDS = {"custom_id": str, "method": str, "url": str, "body": dict}
_AT = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
_NAMES = re.compile(r'\b(name|filename)="([^"]*)"')

Answer = Callable[[bytes], dict[str, Any]]  # a request's body → the completion; RequestError for what is refused
Error = dict[str, Any]


@dataclass(frozen=True)
class _Job:
    """One request of a batch. `body` is its JSON as canonical_json writes it: a client that sends the same text directly
    gets the same reply.
    """

    custom_id: str
    body: bytes


@dataclass
class _Batch:
    view: dict[str, Any]  # what a client sees
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None  # a task that nobody holds may be collected


def _refuse(name: str, value: object, expected: str) -> RequestError:
    return RequestError(400, f"'{name}' is {value!r}; expected {expected}")


def form_fields(request: Request) -> dict[str, tuple[str | None, bytes]]:
    """name → (file name or None, content) of a multipart/form-data body. RequestError for another or a broken one."""
    head = Message()
    head["Content-Type"] = request.headers.get("content-type", "")
    boundary = head.get_param("boundary")
    if head.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise RequestError(400, "a file is sent as multipart/form-data")
    _, *parts, last = (b"\r\n" + request.body).split(b"\r\n--" + boundary.encode())
    if last.strip() != b"--":
        raise RequestError(400, "the multipart body has no end")
    fields: dict[str, tuple[str | None, bytes]] = {}
    for part in parts:
        lines, _, content = part.partition(b"\r\n\r\n")
        names = dict(_NAMES.findall(lines.decode(errors="replace")))
        if "name" in names:
            fields[names["name"]] = (names.get("filename"), content)
    return fields


class _BadLine(Exception):
    """What is wrong with a line that is no request."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error: Error = {"code": code, "message": message, "param": param}


def _job_of(line: bytes, seen: set[str]) -> _Job:
    """The request of a line; `seen` are the ids before it. Raises _BadLine."""
    try:
        job = json.loads(line)
        text = canonical_json(job).encode()
    except ValueError as error:  # half a surrogate pair too, which no body could hold
        raise _BadLine("invalid_json_line", "This line is not parseable as valid JSON.") from error
    if not isinstance(job, dict):
        raise _BadLine("invalid_json_line", f"This line is not a JSON object: {text[:100]!r}.")
    for name, kind in _LINE_FIELDS.items():
        if not isinstance(job.get(name), kind):
            raise _BadLine("missing_required_parameter", f"Missing required parameter: '{name}' ({kind.__name__}).", name)
    if job["method"] != "POST":
        raise _BadLine("invalid_method", f"The method is {job['method']!r}; it must be POST.", "method")
    if job["url"] != ENDPOINT:
        raise _BadLine("url_mismatch", f"The URL {job['url']!r} is not the batch's endpoint {ENDPOINT}.", "url")
    if job["custom_id"] in seen:
        raise _BadLine("duplicate_custom_id", f"The custom_id {job['custom_id']!r} comes twice.", "custom_id")
    return _Job(job["custom_id"], canonical_json(job["body"]).encode())


def _file_error(code: str, message: str) -> Error:
    return {"code": code, "message": message, "param": None, "line": None}


async def read_jobs(content: bytes) -> tuple[list[_Job], list[Error]]:
    """(requests, errors) of an input file; any error makes the whole batch fail. Lets others run between its lines."""
    if len(content) > MAX_BYTES:
        return [], [_file_error("file_too_large", f"The file has {len(content)} bytes; at most {MAX_BYTES} are taken.")]
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    if not lines:
        return [], [_file_error("empty_file", "The file has no request.")]
    if len(lines) > MAX_LINES:
        return [], [_file_error("too_many_tasks", f"The file has {len(lines)} requests; at most {MAX_LINES} are taken.")]
    jobs: list[_Job] = []
    seen: set[str] = set()
    errors: list[Error] = []
    for number, line in lines:
        await asyncio.sleep(0)
        try:
            job = _job_of(line, seen)
        except _BadLine as wrong:
            errors.append({**wrong.error, "line": number})
        else:
            seen.add(job.custom_id)
            jobs.append(job)
    return jobs, errors[:MAX_ERRORS]


class BatchApi:
    """All files and batches of a server. `expires` says of a request's body whether it is to come back unanswered."""

    def __init__(self, answer: Answer, expires: Callable[[bytes], bool], batch_s: float) -> None:
        self._answer, self._expires, self._batch_s = answer, expires, batch_s
        self._files: dict[str, tuple[dict[str, Any], bytes]] = {}
        self._batches: dict[str, _Batch] = {}  # oldest first

    def handle(self, request: Request) -> Reply:
        """The reply to a request under /v1/files or /v1/batches. RequestError for what OpenAI would refuse."""
        match [request.method, *request.path.removeprefix("/v1/").split("/")]:
            case ["POST", "files"]:
                return self._upload(request)
            case ["GET", "files", file_id]:
                return json_reply(self._file(file_id)[0])
            case ["GET", "files", file_id, "content"]:
                return Reply(200, self._file(file_id)[1], {"Content-Type": "application/octet-stream"})
            case ["POST", "batches"]:
                return self._create(request)
            case ["GET", "batches"]:
                return self._list(request)
            case ["GET", "batches", batch_id]:
                return json_reply(self._batch(batch_id).view)
            case ["POST", "batches", batch_id, "cancel"]:
                return self._cancel(batch_id)
        raise RequestError(404, f"unknown URL: {request.method} {request.path}", "unknown_url")

    def _file(self, file_id: str) -> tuple[dict[str, Any], bytes]:
        if file_id not in self._files:
            raise RequestError(404, f"no such file: {file_id}")
        return self._files[file_id]

    def _batch(self, batch_id: str) -> _Batch:
        if batch_id not in self._batches:
            raise RequestError(404, f"no batch found with id {batch_id!r}")
        return self._batches[batch_id]

    def _keep(self, name: str, content: bytes, purpose: str) -> dict[str, Any]:
        # Drawn, not counted: an id of a server that is gone must not name a file of this one.
        file_id = f"file-{secrets.token_hex(12)}"
        view = {
            "id": file_id, "object": "file", "bytes": len(content), "created_at": int(time.time()),
            "filename": name, "purpose": purpose, "status": "processed",
        }  # fmt: skip
        self._files[file_id] = (view, content)
        return view

    def _upload(self, request: Request) -> Reply:
        fields = form_fields(request)
        purpose, file = fields.get("purpose", (None, b""))[1].decode(errors="replace"), fields.get("file")
        if purpose != "batch":
            raise _refuse("purpose", purpose, "'batch': this server has files for batches only")
        if file is None or file[0] is None:
            raise RequestError(400, "'file' is missing: the content with a file name")
        return json_reply(self._keep(file[0], file[1], purpose))

    def _create(self, request: Request) -> Reply:
        try:
            wanted = json.loads(request.body)
        except ValueError as error:
            raise RequestError(400, f"could not parse the JSON body of your request: {error}") from error
        if not isinstance(wanted, dict):
            raise RequestError(400, "the JSON body of a request must be an object")
        for name, value in (("endpoint", ENDPOINT), ("completion_window", "24h")):
            if wanted.get(name) != value:
                raise _refuse(name, wanted.get(name), repr(value))
        metadata = wanted.get("metadata")
        if metadata is not None and not _is_metadata(metadata):
            raise _refuse("metadata", metadata, "up to 16 pairs of strings, 64 characters to 512")
        file_id = wanted.get("input_file_id")
        if not isinstance(file_id, str) or self._files.get(file_id, ({},))[0].get("purpose") != "batch":
            raise _refuse("input_file_id", file_id, "the id of a file uploaded with purpose 'batch'")
        now = int(time.time())
        batch = _Batch({
            "id": f"batch_{secrets.token_hex(12)}", "object": "batch", "endpoint": ENDPOINT, "errors": None,
            "input_file_id": file_id, "completion_window": "24h", "status": "validating", "output_file_id": None,
            "error_file_id": None, "created_at": now, "expires_at": now + WINDOW_S, **{f"{at}_at": None for at in _AT},
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": metadata,
        })  # fmt: skip
        self._batches[batch.view["id"]] = batch
        batch.task = asyncio.create_task(self._work(batch, self._files[file_id][1]))
        return json_reply(batch.view)

    def _list(self, request: Request) -> Reply:
        limit, after = request.query.get("limit", "20"), request.query.get("after")
        if not (limit.isdecimal() and 1 <= int(limit) <= 100):
            raise _refuse("limit", limit, "a whole number from 1 to 100")
        ids = list(reversed(self._batches))
        if after is not None:
            self._batch(after)
            ids = ids[ids.index(after) + 1 :]
        page = [self._batches[batch_id].view for batch_id in ids[: int(limit)]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return json_reply({"object": "list", "data": page, **ends, "has_more": len(ids) > len(page)})

    def _cancel(self, batch_id: str) -> Reply:
        batch = self._batch(batch_id)
        if batch.view["status"] not in ("validating", "in_progress", "finalizing", "cancelling"):
            raise RequestError(409, f"cannot cancel a batch with status '{batch.view['status']}'")
        if not batch.stop.is_set():
            batch.stop.set()
            _enter(batch, "cancelling")
        return json_reply(batch.view)

    async def _work(self, batch: _Batch, content: bytes) -> None:
        """A batch's life, from its making to its last status."""
        begun = asyncio.get_running_loop().time()
        jobs, errors = await read_jobs(content)
        await _wait(batch, begun + CHECKING_SHARE * self._batch_s)
        if errors:
            batch.view["errors"] = {"object": "list", "data": errors}
            _enter(batch, "failed")
            return
        batch.view["request_counts"]["total"] = len(jobs)
        if not batch.stop.is_set():
            _enter(batch, "in_progress")
        lines, expired = await self._answer_all(batch, jobs, begun)
        if not batch.stop.is_set():
            _enter(batch, "finalizing")
        await _wait(batch, begun + self._batch_s)
        for name in ("output", "error"):
            if lines[name]:
                file = self._keep(f"{batch.view['id']}_{name}.jsonl", b"".join(lines[name]), "batch_output")
                batch.view[f"{name}_file_id"] = file["id"]
        _enter(batch, "cancelled" if batch.stop.is_set() else "expired" if expired else "completed")

    async def _answer_all(self, batch: _Batch, jobs: list[_Job], begun: float) -> tuple[dict[str, list[bytes]], bool]:
        """(lines of the "output" and of the "error" file, whether a request expired), until the batch is cancelled."""
        lines: dict[str, list[bytes]] = {"output": [], "error": []}
        expired = False
        for number, job in enumerate(_shuffled(jobs), start=1):
            share = CHECKING_SHARE + (1 - CHECKING_SHARE - FINALIZING_SHARE) * number / len(jobs)
            await _wait(batch, begun + share * self._batch_s)
            if batch.stop.is_set():
                break
            line = self._line(job)
            done = line["error"] is None and line["response"]["status_code"] == 200
            expired |= line["error"] is not None
            batch.view["request_counts"]["completed" if done else "failed"] += 1
            lines["output" if done else "error"].append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return lines, expired

    def _line(self, job: _Job) -> dict[str, Any]:
        """What became of a request. One that was refused has its status and error body in `response`, as at OpenAI."""
        line = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": job.custom_id}
        if self._expires(job.body):
            message = "This request could not be executed before the completion window expired."
            return {**line, "response": None, "error": {"code": "batch_expired", "message": message}}
        try:
            status, body = 200, self._answer(job.body)
        except RequestError as error:
            status, body = error.status, error.body
        response = {"status_code": status, "request_id": secrets.token_hex(12), "body": body}
        return {**line, "response": response, "error": None}


def _is_metadata(metadata: object) -> bool:
    return isinstance(metadata, dict) and len(metadata) <= 16 and all(
        isinstance(value, str) and len(key) <= 64 and len(value) <= 512 for key, value in metadata.items()
    )  # fmt: skip


def _enter(batch: _Batch, status: str) -> None:
    batch.view["status"] = status
    batch.view[f"{status}_at"] = int(time.time())


async def _wait(batch: _Batch, until: float) -> None:
    """Until the loop's clock says so or the batch is cancelled; others may run in any case."""
    left = until - asyncio.get_running_loop().time()
    if left <= 0 or batch.stop.is_set():
        await asyncio.sleep(0)
        return
    try:
        await asyncio.wait_for(batch.stop.wait(), left)
    except TimeoutError:
        pass


def _shuffled(jobs: list[_Job]) -> list[_Job]:
    """The requests in an order that is not theirs, however few they are."""
    order = random.sample(jobs, len(jobs))
    return order[::-1] if order == jobs else order
