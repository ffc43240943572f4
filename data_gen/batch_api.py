"""An endpoint's Batch API: a file of requests up, a batch made of it, its results down. Each call is waited for while the endpoint
is busy or away. It knows neither the journal nor the budget: batch.py decides what goes into a batch and what its results mean.

https://platform.openai.com/docs/guides/batch. A batch has a tag in its metadata, by which it is found when its name was lost.
"""

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, TypeVar

import openai
from openai import types
from openai.pagination import AsyncCursorPage

from data_gen import UsageError
from data_gen.endpoint import BUSY_STATUS, CALL_ERRORS, AttemptError, Endpoint, backoff

URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"
TAG = "journal_tag"
APPEARS_S = 5.0  # a batch that was being made when the connection broke may come into being so much later
COMPLETED, FAILED, EXPIRED, CANCELLED = ENDED = ("completed", "failed", "expired", "cancelled")
_CLOCKS_S = 86_400.0  # by which the provider's clock and this one may differ
_MAX_PAGES = 100  # of 100 batches, for a provider whose list has no end
_NOTHING_LOST = "Nothing is lost: the same command goes on from here."
T = TypeVar("T")
Say = Callable[[str], None]  # takes what is being done, or waited for


class NotMade(UsageError):
    """The provider cannot be used, and certainly has no batch of these requests."""


class _Malformed(ValueError):
    """A reply with status 200 that is not what was asked for: a page of HTML, an object without its id."""


@dataclass(frozen=True)
class Ended:
    """A batch that has come to its end: one of ENDED, the provider's words about it, its files of results."""

    status: str
    said: str
    files: list[str]


@dataclass(frozen=True)
class Result:
    """What became of one request. `status` 0: there is no reply, `error` may say why."""

    key: str
    status: int
    body: Any
    error: Any


def read_results(contents: Iterable[bytes]) -> Iterator[Result]:
    """The lines of result files, one at a time: a file may have a gigabyte. A line that cannot be read is left out."""
    for content in contents:
        for line in io.BytesIO(content):
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(fields, dict) or not isinstance(fields.get("custom_id"), str):
                continue
            response = fields.get("response")
            response = response if isinstance(response, dict) else {}
            status = response.get("status_code")
            yield Result(fields["custom_id"], status if isinstance(status, int) else 0, response.get("body"), fields.get("error"))


def _checked(reply: T, kind: type[Any], *texts: str) -> T:
    """The SDK takes any reply for what was asked for."""
    if not isinstance(reply, kind) or not all(isinstance(getattr(reply, name), str) for name in texts):
        raise _Malformed(str(reply)[:200])
    return reply


class BatchApi:
    """The calls. All raise UsageError when the endpoint stays away or busy for give_up_s, or refuses the call itself."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._client = endpoint, endpoint.client

    async def create(self, tag: str, data: bytes, say: Say) -> str:
        """Makes a batch of a file's content and returns its name. Raises NotMade where it is certain that none was made."""
        perhaps = False  # a batch was made although no answer came

        async def upload() -> str:
            file = await self._client.files.create(file=("requests.jsonl", data), purpose="batch")
            return _checked(file, types.FileObject, "id").id

        async def make() -> str:
            nonlocal perhaps
            if perhaps and (found := await self.find(tag, say)):
                return found
            perhaps = True
            try:
                batch = await self._client.batches.create(
                    input_file_id=file_id, endpoint=URL, completion_window="24h", metadata={TAG: tag}
                )
            except openai.APIStatusError as error:
                perhaps = (error.status_code >= 500 or error.status_code == 408) and error.status_code not in BUSY_STATUS
                raise
            return _checked(batch, types.Batch, "id").id

        hint = "Has it a Batch API (files and batches)? If not: --config.teacher.batch=false."
        try:
            file_id = await self._call("the upload of a batch", hint, say, upload)
            return await self._call("the making of a batch", hint, say, make)
        except UsageError as error:
            if perhaps:
                raise
            raise NotMade(str(error)) from None

    async def find(self, tag: str, say: Say, begun_at: float | None = None) -> str | None:
        """The name of the batch that has the tag, or None. It is not older than `begun_at` (seconds since 1970)."""
        for wait_s in (0.0, APPEARS_S):
            await asyncio.sleep(wait_s)
            if found := await self._listed(tag, say, begun_at):
                return found
        return None

    async def _listed(self, tag: str, say: Say, begun_at: float | None) -> str | None:
        after: str | openai.Omit = openai.omit

        async def newest_first() -> AsyncCursorPage[types.Batch]:
            return _checked(await self._client.batches.list(limit=100, after=after), AsyncCursorPage)

        hint = "Without its list of batches nobody can know whether it has one of this work directory."
        for _ in range(_MAX_PAGES):
            page = await self._call("the list of batches", hint, say, newest_first)
            for batch in page.data or ():
                if isinstance(batch.metadata, dict) and batch.metadata.get(TAG) == tag:
                    return batch.id
            if not page.data or not page.has_next_page():
                break
            last = page.data[-1]
            if begun_at is not None and isinstance(last.created_at, int) and last.created_at < begun_at - _CLOCKS_S:
                break
            after = last.id
        return None

    async def ended(self, batch_id: str, requests: int, say: Say) -> Ended:
        """Waits for the batch's end, within a day and a little."""

        async def state() -> types.Batch:
            return _checked(await self._client.batches.retrieve(batch_id), types.Batch, "id", "status")

        while True:
            batch = await self._call(f"batch {batch_id}", self._whose(), say, state)
            status = batch.status.lower()
            if status in ENDED:
                files = [file_id for file_id in (batch.output_file_id, batch.error_file_id) if isinstance(file_id, str) and file_id]
                return Ended(status, self._words(batch), files)
            done = getattr(batch.request_counts, "completed", None) or 0
            say(f"batch {batch_id} {status}: {done:,} of {requests:,} answered")
            await asyncio.sleep(self._endpoint.config.batch_poll_s)

    def _words(self, batch: types.Batch) -> str:
        """What the provider says against a batch."""
        errors = getattr(batch.errors, "data", None)
        said = [str(getattr(error, "message", None) or error) for error in (errors if isinstance(errors, list) else ())]
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        return self._endpoint.clean("; ".join(said[:3]) + more)[:500] or "it says no reason"

    async def results(self, batch_id: str, ended: Ended, say: Say) -> list[bytes]:
        """The contents of the result files, for read_results."""
        contents = []
        for file_id in ended.files:

            async def content(file_id: str = file_id) -> bytes:
                return (await self._client.files.content(file_id)).content

            say(f"batch {batch_id} {ended.status}: fetching its results")
            contents.append(await self._call(f"file {file_id} of batch {batch_id}", self._whose(), say, content))
        return contents

    def _whose(self) -> str:
        key = self._endpoint.config.api_key_env
        return f"Only the account that made it has it: is that one's key in {key}? --parse_only writes what is here already."

    async def _call(self, what: str, hint: str, say: Say, call: Callable[[], Awaitable[T]]) -> T:
        """What a call gives; tried again while the endpoint is busy, away or broken."""
        config, began, number = self._endpoint.config, monotonic(), 0
        while True:
            try:
                return await call()
            except CALL_ERRORS as error:
                failure = self._endpoint.failure(error)
            except (json.JSONDecodeError, UnicodeDecodeError, _Malformed) as error:
                failure = AttemptError("broken", self._endpoint.clean(f"malformed reply: {error}"))
            number += 1
            if failure.kind in ("config", "request") or monotonic() - began >= config.give_up_s:
                raise UsageError(f"{self._why(what, hint, failure)} {_NOTHING_LOST}")
            say(f"{what}: {failure}; trying again")
            await asyncio.sleep(backoff(config, failure, number))

    def _why(self, what: str, hint: str, failure: AttemptError) -> str:
        """What came and what to do about it."""
        waited = f"no answer for {self._endpoint.config.give_up_s:g} s"
        if failure.kind == "broken":
            return f"teacher {self._endpoint.base_url}: {what}: {failure}; {waited}. Wait, and try again."
        if failure.kind == "request" or failure.status in (404, 405):
            return f"teacher {self._endpoint.base_url}: {what}: {failure}. {hint}"
        return self._endpoint.advice(failure, waited)
