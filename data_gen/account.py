"""What attempts cost: the worst case is reserved and journalled before one is sent, and settled when its outcome is known.

The worst case of a request is a token for each byte of its body (limits.token_bound)
and max_tokens of reply. An attempt that certainly came to nothing (refused, never
connected) costs nothing; one that may have been answered (timed out, cut off, malformed and without a usage) its worst case.
"""

import asyncio
import json
from dataclasses import replace

from data_gen import UsageError
from data_gen.endpoint import TeacherConfig, max_tokens_of
from data_gen.journal import Attempt, Journal, Request
from data_gen.limits import Budget, BudgetReached, Price, Usage, token_bound
from data_gen.prompt import reply_usage


class Account:
    """The money and tokens of one work directory. own: a model of one's own is asked, which costs nothing.

    Raises UsageError for a cap without a price.
    """

    def __init__(self, config: TeacherConfig, journal: Journal, max_cost: float | None, *, own: bool = False) -> None:
        if max_cost is not None and config.price() is None:
            raise UsageError(
                f"--max_cost={max_cost:g} needs a price: --config.teacher.input_price and --config.teacher.output_price, in US "
                "dollars per million tokens"
            )
        if max_cost is not None and not max_cost >= 0:
            raise UsageError(f"--max_cost={max_cost}: US dollars, 0 or more")
        self.price, self._journal = config.price(), journal
        if own:
            self.price = Price(0.0, 0.0)
        elif self.price:
            journal.price_unpriced(replace(self.price, factor=1.0), replace(self.price, factor=config.batch_price_factor))
        self.usage, spent = journal.spent()
        self.retries = journal.retries()
        self.budget = Budget(max_cost, spent)
        self._settled = asyncio.Event()
        self._held = 0

    def worst(self, request: Request) -> Usage:
        """The most that a request can take."""
        reply = max_tokens_of(json.loads(request.body))
        if reply is None and self.budget.cap is not None:
            raise UsageError("a budget needs max_tokens: without it nobody knows what a reply can cost")
        return Usage(token_bound(request.body), reply or 0)

    def fits(self, worst: Usage) -> bool:
        """Whether the budget holds one more. Raises BudgetReached when it never will."""
        cost = self.price.of(worst) if self.price else 0.0
        if self.budget.fits(cost):
            return True
        if not self.budget.in_use:
            raise BudgetReached(f"${self.budget.spent:.4f} of ${self.budget.cap:g} are spent, and a request may cost ${cost:.4f}")
        return False

    async def room(self, worst: Usage) -> None:
        """Waits until one more fits the budget."""
        while not self.fits(worst):
            self._held += 1
            try:
                await self._settled.wait()
            finally:
                self._held -= 1

    @property
    def waiting(self) -> str:
        """Whether requests wait for the budget, in words, or ""."""
        return f"{self._held} wait for what others leave of the budget" if self._held else ""

    def begin(self, request: Request, worst: Usage, batch: int | None = None) -> Attempt:
        """Reserves and notes an attempt, which may be sent when the journal has committed."""
        cost = self.price.of(worst) if self.price else None
        self.budget.reserve(cost or 0.0)
        return self._journal.sent(request, worst, cost, batch)

    def resume(self, attempt: Attempt) -> Attempt:
        """Reserves for an attempt in a batch that an earlier run sent: at the price known now, as it will be booked."""
        if self.price:
            attempt = replace(attempt, worst_cost=self.price.of(attempt.worst))
        self.budget.reserve(attempt.worst_cost or 0.0)
        return attempt

    def answered(self, attempt: Attempt, reply: str) -> Usage:
        """Keeps a good reply and books what it cost."""
        usage = reply_usage(reply) or attempt.worst
        self._journal.answered(attempt, reply, usage, self._book(attempt, usage))
        return usage

    def refused(self, attempt: Attempt, error: str, reply: str | None = None, *, paid: bool) -> None:
        """Keeps why an attempt came to nothing, and books its usage, its worst case or nothing."""
        usage = (reply_usage(reply) if reply else None) or (attempt.worst if paid else Usage())
        self.retries += 1
        self._journal.refused(attempt, error, reply, usage, self._book(attempt, usage))

    def _book(self, attempt: Attempt, usage: Usage) -> float | None:
        cost = self.price.of(usage) if self.price else None
        self.usage += usage
        self.budget.settle(attempt.worst_cost or 0.0, cost or 0.0)
        self._settled.set()
        self._settled = asyncio.Event()
        return cost
