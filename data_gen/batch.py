"""Requests to an endpoint's Batch API: half the price, within a day, and nothing is lost by a crash.

Each request's custom_id is its key in the journal. The journal has a batch before the provider does, under a tag that goes into
the batch's metadata: a run that was killed at any moment finds it there again and asks nothing twice. batch_api.py has the calls.
"""

import asyncio
import json
import time
import uuid
from collections import deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from data_gen import UsageError
from data_gen.account import Account
from data_gen.batch_api import CANCELLED, COMPLETED, FAILED, URL, BatchApi, Ended, NotMade, Result, Say, read_results
from data_gen.endpoint import OFFLINE, AttemptError, Endpoint, TeacherConfig, kind_of, malformed
from data_gen.journal import Attempt, Batch, Journal, Request
from data_gen.limits import Usage
from data_gen.prompt import reply_choice
from data_gen.teacher import PAID_ATTEMPTS, Failures

GATHER_S = 0.3  # a batch waits for more requests until so long none came
MAX_REQUESTS, MAX_BYTES = 50_000, 100_000_000  # of one batch; the smallest of the providers' limits
SETTLE_LINES = 500  # results written at a time, a fraction of a second: the screen and Ctrl-C go on meanwhile
Outcome = str | AttemptError
_UNSENT = AttemptError("busy", "no batch was made of it")  # is asked again, and is no attempt


class BatchTeacher:
    """As teacher.Teacher. All requests that are asked at about the same time make one batch."""

    def __init__(self, endpoint: Endpoint, journal: Journal, account: Account) -> None:
        self._endpoint, self._journal, self._account = endpoint, journal, account
        self.config: TeacherConfig = endpoint.config
        self._api = BatchApi(endpoint)
        self._failures = Failures(endpoint, journal)
        self._gathered: deque[tuple[Request, Usage]] = deque()  # with the most that each can take
        self._submitting = False
        self._settling = asyncio.Lock()
        self._outcomes: dict[int, asyncio.Future[Outcome]] = {}  # of a request in a batch, or about to be
        self._with_provider: dict[int, int] = {}  # requests of each batch that is known to be there
        self._states: dict[int, str] = {}  # of the batches under way, in words
        self._stopped: BaseException | None = None
        self._workers: set[asyncio.Task[None]] = set()
        for batch in journal.open_batches():
            # The offline teacher's batches ended with the process that made them.
            batch_id = None if self.config.base_url == OFFLINE else batch.id
            batch = replace(batch, id=batch_id, attempts=[account.resume(attempt) for attempt in batch.attempts])
            self._outcomes |= {attempt.idx: asyncio.get_running_loop().create_future() for attempt in batch.attempts}
            self._work(self._finish(batch))

    @property
    def window(self) -> int:
        """How many requests may be under way."""
        return self.config.max_in_flight

    @property
    def waiting(self) -> str:
        """Where the batches stand."""
        return "; ".join(self._states.values())

    @property
    def in_flight(self) -> int:
        """Requests that the provider has."""
        return sum(self._with_provider.values())

    @property
    def stopping(self) -> str:
        """What a stop now means for the requests under way, or ""."""
        count = self.in_flight
        return f"stopping: {count:,} requests stay with the provider, the same command fetches their replies" if count else ""

    async def ask(self, request: Request) -> str | None:
        """The raw reply, already committed; None when this request has failed for good. Raises UsageError when the run
        must stop, BudgetReached when nothing more may be spent.
        """
        worst = self._account.worst(request)
        number = paid = 0
        while True:
            outcome = await self._outcome(request, worst)
            if isinstance(outcome, str):
                self._failures.clear()
                return outcome
            if outcome is _UNSENT or self._stopped:
                continue  # after a stop `_outcome` raises what it was
            number += 1
            paid += outcome.paid
            if outcome.kind == "config":
                why = self._endpoint.advice(outcome, "")
                self._stop(UsageError(f"{why} Nothing is lost: the same command goes on from here."))
            elif outcome.kind == "request" or paid >= PAID_ATTEMPTS or number >= self.config.max_attempts:
                try:
                    self._failures.add(request, outcome)
                except UsageError as error:
                    self._stop(error)
                    continue
                await self._journal.committed()
                return None

    async def _outcome(self, request: Request, worst: Usage) -> Outcome:
        if request.idx not in self._outcomes:
            future = self._outcomes[request.idx] = asyncio.get_running_loop().create_future()
            if self._stopped:
                _fail(future, self._stopped)
            else:
                self._gathered.append((request, worst))
                if not self._submitting:
                    self._submitting = True
                    self._work(self._submit())
        outcome = await self._outcomes[request.idx]
        del self._outcomes[request.idx]
        return outcome

    # --- workers, beside the asking -----------------------------------------------------------------------------------

    def _work(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._workers.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Whatever a worker ends with but its end, a defect included, stops the run: nobody waits for what never comes."""
        self._workers.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """Whoever waits, now or later, gets the error."""
        self._stopped = self._stopped or error
        for future in self._outcomes.values():
            _fail(future, self._stopped)

    async def _submit(self) -> None:
        """Makes batches of what is gathered, as much as the budget holds."""
        while self._gathered:
            count = 0
            while count < (count := len(self._gathered)):
                await asyncio.sleep(GATHER_S)
            _, worst = self._gathered[0]
            await self._account.room(worst)
            self._journal.check_room(0)  # replies that find no room are still with the provider
            async with self._settling:  # a batch that is being settled frees more
                if self._account.fits(worst):
                    batch, requests = self._take()
                    await self._journal.committed()
                    self._work(self._finish(batch, requests))
        self._submitting = False

    def _take(self) -> tuple[Batch, list[Request]]:
        """The next batch, in the journal. Its first request is known to fit."""
        number = self._journal.begin_batch(tag := uuid.uuid4().hex)
        requests, attempts, size = list[Request](), list[Attempt](), 0
        while self._gathered and len(requests) < MAX_REQUESTS:
            request, worst = self._gathered[0]
            size += len(_line(request))
            if requests and (size > MAX_BYTES or not self._account.fits(worst)):
                break
            self._gathered.popleft()
            requests.append(request)
            attempts.append(self._account.begin(request, worst, number))
        return Batch(number, tag, None, time.time(), attempts), requests

    async def _finish(self, batch: Batch, requests: Sequence[Request] = ()) -> None:
        """Has a batch made (no requests: finds one of an earlier run), waits for its end and takes its results."""
        say = partial(self._states.__setitem__, batch.number)
        batch_id = batch.id or await self._name(batch, requests, say)
        if batch_id is None:
            return await self._settle(batch, [], _UNSENT)
        self._with_provider[batch.number] = len(batch.attempts)
        ended = await self._api.ended(batch_id, len(batch.attempts), say)
        contents = await self._api.results(batch_id, ended, say)
        # A completed batch without a request's result may have answered it; one that ended otherwise did not get to it.
        paid = ended.status == COMPLETED
        absent = AttemptError("broken", f"batch {batch_id} is {ended.status} and has no result of it", paid=paid)
        stop = self._against(batch_id, ended)
        await self._settle(batch, contents, absent, stop=stop is not None)
        if stop:
            raise stop

    def _against(self, batch_id: str, ended: Ended) -> UsageError | None:
        """Why the run must stop after a batch."""
        came = f"teacher {self._endpoint.base_url}: batch {batch_id}"
        if ended.status == FAILED:
            return UsageError(
                f"{came} was refused: {ended.said}. Nothing of it was asked. If too much is asked at once, wait or lower "
                "teacher.max_in_flight; the same command asks again"
            )
        if ended.status == CANCELLED:
            return UsageError(f"{came} was cancelled there. What it has answered is kept; the same command asks the rest again")
        return None

    async def _name(self, batch: Batch, requests: Sequence[Request], say: Say) -> str | None:
        """The provider's name of the batch, in the journal; None for one of an earlier run that the provider never got."""
        if requests:
            say(f"sending a batch of {len(requests):,} requests")
            try:
                batch_id: str | None = await self._api.create(batch.tag, b"".join(map(_line, requests)), say)
            except NotMade as error:
                await self._settle(batch, [], _UNSENT, stop=True)
                raise error from None
        else:
            say(f"looking for a batch of {len(batch.attempts):,} requests that an earlier run was sending")
            batch_id = await self._api.find(batch.tag, say, batch.begun_at)
        if batch_id is not None:
            self._journal.name_batch(batch.number, batch_id)
            await self._journal.committed()
        return batch_id

    # --- results ------------------------------------------------------------------------------------------------------

    async def _settle(self, batch: Batch, contents: list[bytes], absent: AttemptError, *, stop: bool = False) -> None:
        """Writes the outcome of every attempt, then tells those who wait. A run killed meanwhile writes the rest next time.

        `absent` is the outcome of a request without a result. Before a stop only replies are told: nothing is tried again.
        """
        open_ = {attempt.key: attempt for attempt in batch.attempts}
        outcomes: dict[int, Outcome] = {}
        async with self._settling:
            for number, result in enumerate(read_results(contents), start=1):
                if attempt := open_.pop(result.key, None):
                    outcomes[attempt.idx] = self._judge(attempt, result)
                if number % SETTLE_LINES == 0:
                    await self._journal.committed()
            for attempt in open_.values():
                self._account.refused(attempt, str(absent), paid=absent.paid)
                outcomes[attempt.idx] = absent
            self._journal.end_batch(batch.number)
            await self._journal.committed()
        self._states.pop(batch.number, None)
        self._with_provider.pop(batch.number, None)
        for idx, outcome in sorted(outcomes.items(), key=lambda pair: pair[0]):
            future = self._outcomes[idx]
            if not future.done() and (isinstance(outcome, str) or not stop):  # done: cancelled, or the run stops
                future.set_result(outcome)

    def _judge(self, attempt: Attempt, result: Result) -> Outcome:
        """The reply in a result, or why there is none."""
        reply = None
        if result.status == 200:
            reply = self._endpoint.clean(_json(result.body))
            try:
                reply_choice(reply)
            except ValueError as error:
                failure = malformed(error)
            else:
                self._account.answered(attempt, reply)
                return reply
        else:
            said = self._endpoint.clean(_json(result.error or result.body))[:500]
            kind, status = (kind_of(result.status, said), f"HTTP {result.status}: ") if result.status else ("broken", "")
            failure = AttemptError(kind, f"in a batch: {status}{said}", status=result.status or None)
        self._account.refused(attempt, str(failure), reply, paid=failure.paid)
        return failure

    async def drain(self, tasks: Iterable[tuple[asyncio.Task[str | None], int]]) -> None:
        """Stops at once: what the provider has, it keeps for the next run."""
        stopped = [*(task for task, _ in tasks), *self._workers]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)


def _line(request: Request) -> bytes:
    """A request in a batch's file. Its body is JSON in one line already, the very text that is asked directly too."""
    return f'{{"custom_id":"{request.key}","method":"POST","url":"{URL}","body":{request.body}}}\n'.encode()


def _json(value: Any) -> str:
    """A value as JSON for the journal, readable unless it has half a surrogate pair, which no file can hold."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or _is_whole(text) else json.dumps(value)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fail(future: asyncio.Future[Outcome], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as heard: there may be nobody to hear it
