"""Requests to an endpoint's Batch API: half the price, within a day, and nothing is lost by a crash.

https://platform.openai.com/docs/guides/batch: a file of requests is uploaded, a batch made of it, and its results fetched when
it has ended. Each request's custom_id is its key in the journal. The journal has the batch before the provider does, under a tag
that goes into the batch's metadata: a run that was killed at any moment finds it there again and asks nothing twice.
"""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, TypeVar

from data_gen import UsageError
from data_gen.account import Account
from data_gen.endpoint import CALL_ERRORS, AttemptError, Endpoint, TeacherConfig, backoff, choice_error, kind_of
from data_gen.journal import Attempt, Batch, Journal, Request
from data_gen.limits import BudgetReached
from data_gen.prompt import reply_choice
from data_gen.teacher import PAID_ATTEMPTS, Failures

GATHER_S = 0.3  # a batch waits so long for more requests
MAX_REQUESTS, MAX_BYTES = 50_000, 100_000_000  # of one batch; the smallest of the providers' limits
TAG = "journal_tag"
_ENDED = ("completed", "failed", "expired", "cancelled")
_LISTED = 500  # newest batches of the account that are searched for a tag
Outcome = str | AttemptError
T = TypeVar("T")


class BatchTeacher:
    """As teacher.Teacher. All requests that are asked at about the same time make one batch."""

    def __init__(self, endpoint: Endpoint, journal: Journal, account: Account) -> None:
        self._endpoint, self._journal, self._account = endpoint, journal, account
        self.config: TeacherConfig = endpoint.config
        self._failures = Failures(endpoint, journal)
        self._gathered: list[Request] = []
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}  # of a request in a batch, or about to be
        self._states: dict[int, str] = {}  # of the batches under way, in words
        self._heard_at = monotonic()
        self._workers: set[asyncio.Task[None]] = set()
        for batch in journal.open_batches():
            for attempt in batch.attempts:
                account.resume(attempt)
                self._outcomes[attempt.idx] = asyncio.get_running_loop().create_future()
            self._work(self._finish(batch), [attempt.idx for attempt in batch.attempts])

    @property
    def window(self) -> int:
        """How many requests may be under way."""
        return self.config.max_in_flight

    @property
    def waiting(self) -> str:
        """Where the batches stand."""
        return "; ".join(self._states.values())

    @property
    def stopping(self) -> str:
        """What a stop now means for the requests under way, or ""."""
        count = len(self._outcomes) - len(self._gathered)
        return f"stopping: {count} requests stay with the provider, the same command fetches their replies" if count else ""

    async def ask(self, request: Request) -> str | None:
        """The raw reply, already committed; None when this request has failed for good. Raises UsageError when the run
        must stop, BudgetReached when nothing more may be spent.
        """
        number = paid = 0
        while True:
            outcome = await self._outcome(request)
            if isinstance(outcome, str):
                self._failures.clear()
                return outcome
            number += 1
            paid += outcome.paid
            if outcome.kind == "config":
                raise UsageError(f"{self._endpoint.advice(outcome, '')} Nothing is lost: the same command goes on from here.")
            if outcome.kind == "request" or paid >= PAID_ATTEMPTS or number >= self.config.max_attempts:
                self._failures.add(request, outcome)
                await self._journal.committed()
                return None

    async def _outcome(self, request: Request) -> Outcome:
        if request.idx not in self._outcomes:
            self._outcomes[request.idx] = asyncio.get_running_loop().create_future()
            if not self._gathered:
                self._work(self._submit(), [])
            self._gathered.append(request)
        outcome = await self._outcomes[request.idx]
        del self._outcomes[request.idx]
        return outcome

    def _work(self, work: Awaitable[None], idxs: list[int]) -> None:
        """Runs beside the asking; what stops it goes to whoever waits for it."""

        async def guarded() -> None:
            try:
                await work
            except (UsageError, BudgetReached) as error:
                for idx in idxs or [request.idx for request in self._gathered]:
                    self._outcomes[idx].set_exception(error)

        task = asyncio.create_task(guarded())
        self._workers.add(task)
        task.add_done_callback(self._workers.discard)

    async def _submit(self) -> None:
        """Makes batches of what was gathered, as much as the budget holds."""
        await asyncio.sleep(GATHER_S)
        while self._gathered:
            await self._account.room(self._account.worst(self._gathered[0]))
            number = self._journal.begin_batch(tag := uuid.uuid4().hex)
            requests, attempts, size = list[Request](), list[Attempt](), 0
            while self._gathered and len(requests) < MAX_REQUESTS and size < MAX_BYTES:
                worst = self._account.worst(self._gathered[0])
                if not self._account.fits(worst):
                    break
                request = self._gathered.pop(0)
                attempts.append(self._account.begin(request, worst, number))
                requests.append(request)
                size += len(request.body.encode()) + 200
            await self._journal.committed()
            batch = Batch(number, tag, None, attempts)
            self._work(self._finish(batch, requests), [attempt.idx for attempt in attempts])

    async def _finish(self, batch: Batch, requests: Iterable[Request] = ()) -> None:
        """Sends a batch (found by its tag, where an earlier run may have), waits for its end and takes its results."""
        batch_id = batch.id
        if batch_id is None:
            batch_id = await self._create(batch, list(requests))
            if batch_id is None:
                return self._settle(batch, {})
            self._journal.name_batch(batch.number, batch_id)
            await self._journal.committed()
        while (state := await self._call(lambda: self._endpoint.client.batches.retrieve(batch_id))).status not in _ENDED:
            done = state.request_counts.completed if state.request_counts else 0
            self._states[batch.number] = f"batch {batch_id} {state.status}: {done} of {len(batch.attempts)} answered"
            await asyncio.sleep(self.config.batch_poll_s)
        self._states.pop(batch.number, None)
        outcomes = await self._fetch(state)
        self._settle(batch, outcomes)
        await self._journal.committed()
        if state.status == "failed":
            said = "; ".join(f"{error.message}" for error in (state.errors.data if state.errors else None) or ())
            raise UsageError(f"teacher {self._endpoint.base_url}: batch {batch_id} was refused: {said[:500]}")

    async def _create(self, batch: Batch, requests: list[Request]) -> str | None:
        """The provider's name of the batch; None for one of an earlier run that the provider never got."""
        client = self._endpoint.client
        if not requests:
            return await self._call(lambda: self._find(batch.tag))
        lines = (
            f'{{"custom_id":"{request.key}","method":"POST","url":"/v1/chat/completions","body":{request.body}}}\n'
            for request in requests
        )
        data = "".join(lines).encode()
        file = await self._call(lambda: client.files.create(file=("requests.jsonl", data), purpose="batch"))

        async def create() -> str:
            # An attempt before this one may have reached the provider although no answer came back.
            if found := await self._find(batch.tag):
                return found
            made = await client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={TAG: batch.tag}
            )
            return made.id

        return await self._call(create)

    async def _find(self, tag: str) -> str | None:
        """The batch that has the tag."""
        seen = 0
        async for found in self._endpoint.client.batches.list(limit=100):
            if (found.metadata or {}).get(TAG) == tag:
                return found.id
            if (seen := seen + 1) >= _LISTED:
                break
        return None

    async def _fetch(self, state: Any) -> dict[str, dict[str, Any]]:
        """The lines of both result files by custom_id."""
        lines: dict[str, dict[str, Any]] = {}
        for file_id in filter(None, (state.output_file_id, state.error_file_id)):
            content = await self._call(lambda file_id=file_id: self._endpoint.client.files.content(file_id))  # type: ignore[misc]
            for text in content.text.split("\n"):
                if text.strip():
                    line = json.loads(text)
                    lines[line["custom_id"]] = line
        return lines

    def _settle(self, batch: Batch, lines: dict[str, dict[str, Any]]) -> None:
        """Writes the outcome of every attempt in one commit, then tells those who wait."""
        outcomes = {attempt.idx: self._judge(attempt, lines.get(attempt.key)) for attempt in batch.attempts}
        self._journal.end_batch(batch.number)
        self._journal.commit()
        for idx, outcome in outcomes.items():
            self._outcomes[idx].set_result(outcome)

    def _judge(self, attempt: Attempt, line: dict[str, Any] | None) -> Outcome:
        """The reply in a line of the result files, or why there is none."""
        response, reply = (line or {}).get("response") or {}, None
        if response.get("status_code") == 200:
            reply = json.dumps(response.get("body"), ensure_ascii=False)
            try:
                reply_choice(reply)
            except ValueError as error:
                failure = choice_error(self._endpoint, error)
            else:
                self._account.answered(attempt, reply)
                return reply
        else:
            error_said = (line or {}).get("error") or response.get("body") or "no result in the batch's files"
            said = self._endpoint.clean(json.dumps(error_said, ensure_ascii=False))[:500]
            status = response.get("status_code") or 0
            failure = AttemptError(kind_of(status, said) if status else "broken", f"batch: {said}", status=status)
        self._account.refused(attempt, str(failure), reply, paid=failure.paid)
        return failure

    async def _call(self, make: Callable[[], Awaitable[T]]) -> T:
        """What a call of the SDK gives; tried again while the endpoint is busy. Raises UsageError."""
        number = 0
        while True:
            try:
                result = await make()
            except CALL_ERRORS as error:
                failure, number = self._endpoint.failure(error), number + 1
                silent = monotonic() - self._heard_at >= self.config.give_up_s
                if silent or failure.kind in ("config", "request"):
                    said = self._endpoint.advice(failure, f"no answer for {self.config.give_up_s:g} s")
                    raise UsageError(f"{said} Nothing is lost: the same command goes on from here.") from None
                await asyncio.sleep(backoff(self.config, failure, number))
            else:
                self._heard_at = monotonic()
                return result

    async def drain(self, tasks: Iterable[tuple[asyncio.Task[str | None], int]]) -> None:
        """Stops at once: what the provider has, it keeps for the next run."""
        stopped = [*(task for task, _ in tasks), *self._workers]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
