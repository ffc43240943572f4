"""Requests to an endpoint, one call each: when to send, when to try again, when to give up. Every attempt is in the journal.

`busy` endpoints are waited for until give_up_s went by without any reply (max_attempts, where nobody ever answered): then the
run stops. A request with three attempts that may have been paid for, or max_attempts server errors, has failed; the run goes
on. When `max_failures` requests fail one after the other, the requests are not the cause: the run stops too. Nothing is lost by
a stop: the same command asks again what has no reply.
"""

import asyncio
import random
from collections.abc import Iterable
from time import monotonic

from data_gen import UsageError
from data_gen.account import Account
from data_gen.endpoint import BUSY_STATUS, AttemptError, Endpoint, TeacherConfig, backoff, malformed
from data_gen.journal import FAILED, Attempt, Journal, Request
from data_gen.limits import Rate, Usage, Window
from data_gen.prompt import reply_choice

PAID_ATTEMPTS = 3  # with a malformed reply, a time-out, a lost connection: each one may be paid


class Failures:
    """Requests that failed one after the other: how many are still the requests' own fault. What failed stays so: what was asked
    after it may have been planned without its items.
    """

    def __init__(self, endpoint: Endpoint, journal: Journal) -> None:
        self._endpoint, self._journal, self._row = endpoint, journal, 0

    def clear(self) -> None:
        """One was answered."""
        self._row = 0

    def add(self, request: Request, error: AttemptError) -> None:
        """Marks a request as failed. Raises UsageError when it is one too many."""
        self._journal.set_status(request.idx, FAILED)
        self._row += 1
        if self._row < self._endpoint.config.max_failures:
            return
        self._journal.commit()
        raise UsageError(
            f"{self._row} requests one after the other failed at {self._endpoint.base_url}; the last: {error}. "
            "Check that teacher.base_url is an OpenAI-compatible endpoint (it usually ends in /v1), and max_tokens. "
            "The same command goes on with other requests; teacher.max_failures says how many may fail in a row."
        )


class Teacher:
    """`teacher = Teacher(endpoint, journal, account, answered_before=False); reply = await teacher.ask(request)`.

    may_say_nothing: an empty reply is one too, as of a model that is being tried; of a teacher's it is malformed.
    """

    def __init__(
        self, endpoint: Endpoint, journal: Journal, account: Account, *, answered_before: bool, may_say_nothing: bool = False
    ) -> None:
        self._may_say_nothing = may_say_nothing
        self._endpoint, self._journal, self._account = endpoint, journal, account
        self.config: TeacherConfig = endpoint.config
        self._failures = Failures(endpoint, journal)
        self._window = Window(self.config.max_in_flight, self.config.latency_tolerance)
        self._requests = Rate(self.config.requests_per_minute)
        self._tokens = Rate(self.config.tokens_per_minute)
        self._expected: Usage | None = None  # a running mean of what requests take; before the first reply their worst case
        self._answered = answered_before
        self._sending: set[int] = set()
        self._paced = 0  # requests that wait for the limits a minute
        self._stopped = False
        self._not_before = 0.0  # for all requests: after a 429
        self._heard_at = 0.0  # when the last reply came
        self._silent_since = float("inf")  # when the first attempt was sent that came to nothing since then
        self._unheard: set[int] = set()  # requests whose attempts came to nothing since then

    @property
    def window(self) -> int:
        """How many requests may be under way now."""
        return self._window.size

    @property
    def waiting(self) -> str:
        """Why nothing is sent now, or ""."""
        wait = self._not_before - monotonic()
        if wait > 0:
            return f"the endpoint is busy, waiting {wait:.0f} s"
        return f"{self._paced} held by the limits a minute" if self._paced else self._account.waiting

    @property
    def stopping(self) -> str:
        """What a stop now means for the requests under way, or ""."""
        if not self._sending:
            return ""
        waits = f"waiting for {len(self._sending)} requests on their way, {self.config.timeout_s:g} s at most"
        return f"stopping: {waits}. Ctrl-C again gives them up; they count as spent"

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return len(self._sending)

    async def ask(self, request: Request) -> str | None:
        """The raw reply, already committed; None when this request has failed for good. Raises UsageError when the run
        must stop, BudgetReached when nothing more may be spent.
        """
        number = paid = 0
        worst = self._account.worst(request)
        await self._journal.committed()  # it is planned before it is sent
        while True:
            expected = self._expected or worst
            await self._turn(expected, worst)
            number += 1
            try:
                reply = await self._attempt(request, expected, worst)
            except AttemptError as error:
                paid += error.paid
                if not self._may_try_again(error, number, paid):
                    self._give_up(request, error)
                    await self._journal.committed()
                    return None
                wait = backoff(self.config, error, number)
                if error.status in BUSY_STATUS:
                    self._not_before = max(self._not_before, monotonic() + wait)
                else:
                    await asyncio.sleep(wait)
                continue
            self._answered = True
            self._heard_at, self._silent_since = monotonic(), float("inf")
            self._unheard.clear()
            self._failures.clear()
            return reply

    async def _turn(self, expected: Usage, worst: Usage) -> None:
        """Waits for the limits a minute, for the budget and for the endpoint to be ready again."""
        now = monotonic()
        wait = max(self._requests.charge(1, now), self._tokens.charge(expected.total, now))
        if wait > 0:
            self._paced += 1
            try:
                await asyncio.sleep(wait)
            finally:
                self._paced -= 1
        while True:
            await self._account.room(worst)
            if (wait := self._not_before - monotonic()) <= 0:
                return
            await asyncio.sleep(wait + random.uniform(0, self.config.backoff_s))  # not all at the same moment

    async def _attempt(self, request: Request, expected: Usage, worst: Usage) -> str:
        self._journal.check_room(self.config.max_in_flight)
        attempt = self._account.begin(request, worst)
        self._sending.add(request.idx)
        try:
            await self._journal.committed()
            reply = await self._send(request, attempt, expected)
            await self._journal.committed()
        except AttemptError:
            await self._journal.committed()
            raise
        finally:
            self._sending.discard(request.idx)
        return reply

    async def _send(self, request: Request, attempt: Attempt, expected: Usage) -> str:
        """One call, its outcome written to the journal. Raises AttemptError."""
        sent_at = monotonic()
        try:
            reply = await self._endpoint.post("/chat/completions", request.body)
        except AttemptError as error:
            self._silent_since = min(self._silent_since, max(sent_at, self._heard_at))
            self._unheard.add(request.idx)
            self._account.refused(attempt, str(error), paid=error.paid)
            if error.status in BUSY_STATUS:
                self._window.refused(sent_at=sent_at, now=monotonic())
            raise
        try:
            reply_choice(reply, may_be_empty=self._may_say_nothing)
        except ValueError as error:
            failure = malformed(error)
            self._account.refused(attempt, str(failure), reply, paid=True)
            raise failure from error
        usage = self._account.answered(attempt, reply)
        self._tokens.correct(usage.total - expected.total)
        self._window.replied(monotonic() - sent_at, usage.completion, sent_at=sent_at, now=monotonic())
        before = self._expected or usage
        self._expected = Usage((9 * before.prompt + usage.prompt) // 10, (9 * before.completion + usage.completion) // 10)
        return reply

    def _is_silent(self, error: AttemptError) -> bool:
        """Whether the endpoint has not answered for give_up_s. One request alone that gets no reply is that request's fault."""
        alone = error.paid and len(self._unheard) < 2
        return not alone and monotonic() - self._silent_since >= self.config.give_up_s

    def _may_try_again(self, error: AttemptError, number: int, paid: int) -> bool:
        if self._stopped or error.kind not in ("busy", "broken"):
            return False
        if paid >= PAID_ATTEMPTS:
            return False
        patient = error.kind == "busy" and not self._is_absent(error)
        return not self._is_silent(error) if patient else number < self.config.max_attempts

    def _is_absent(self, error: AttemptError) -> bool:
        """No connection, and nobody ever answered there: a wrong address or a server not started, rather than a busy one."""
        return error.status is None and not error.paid and not self._answered

    def _give_up(self, request: Request, error: AttemptError) -> None:
        """Marks the request as failed, or raises UsageError when the cause is not the request."""
        if self._stopped:
            return  # the run ends; the request stays planned
        absent = self._is_absent(error)
        silent = error.kind == "busy" and (self._is_silent(error) or absent)
        if silent or error.kind == "config" or (error.kind == "request" and not self._answered):
            waited = f"tried {self.config.max_attempts} times" if absent else f"no answer for {self.config.give_up_s:g} s"
            raise UsageError(f"{self._endpoint.advice(error, waited)} Nothing is lost: the same command goes on from here.")
        self._failures.add(request, error)

    async def drain(self, tasks: Iterable[tuple[asyncio.Task[str | None], int]]) -> None:
        """Stops: whoever waits to try again gives up; a request on its way is waited for, so that its reply is kept."""
        self._stopped = True
        pending = list(tasks)
        for task, idx in pending:
            if idx not in self._sending:
                task.cancel()
        await asyncio.gather(*(task for task, _ in pending), return_exceptions=True)
