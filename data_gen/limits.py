"""What may be sent now: prices and the budget, requests and tokens a minute, the window of requests in flight.

Plain arithmetic over a clock that the caller reads (seconds, monotonic): nothing is sent, stored or waited for here.
"""

import statistics
from dataclasses import dataclass

# Not in a body: role marks and the ends of messages; what a template or a vendor puts before them.
MESSAGE_TOKENS, TEMPLATE_TOKENS = 16, 256
SMALL = 8  # requests in flight at the start; the fewest replies whose median says something
BURST_SHARE = 0.05  # of a minute's allowance that may go at once


@dataclass(frozen=True)
class Usage:
    """Tokens of one reply as its endpoint counts them. `cached` is the part of `prompt` that has its own price."""

    prompt: int = 0
    completion: int = 0  # a reasoning model's thoughts included
    cached: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.prompt + other.prompt, self.completion + other.completion, self.cached + other.cached)


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens. `cached` None: cached prompt tokens cost what others do."""

    prompt: float
    completion: float
    cached: float | None = None
    factor: float = 1.0  # 0.5 for a batch at half the price

    def of(self, usage: Usage) -> float:
        """Price(0.15, 0.6).of(Usage(2000, 1000)) == 0.0009 dollars."""
        cached_price = self.prompt if self.cached is None else self.cached
        millionths = (usage.prompt - usage.cached) * self.prompt + usage.cached * cached_price + usage.completion * self.completion
        return self.factor * millionths / 1e6


def token_bound(body: str) -> int:
    """Prompt tokens of a request's JSON body at the most: a byte-level tokenizer makes no more than one of a byte.

    Escapes and field names of the JSON count as well, a schema too. A tokenizer that begins with NFKC may go beyond: it makes 18
    letters of one ﷺ.
    """
    return len(body.encode("utf-8", "surrogatepass")) + TEMPLATE_TOKENS + MESSAGE_TOKENS * body.count('"role"')


class BudgetReached(Exception):
    """The next request could cost more than is left of the budget: a stop as asked for, not an error."""


class Budget:
    """Dollars spent and dollars reserved, under a cap. Whoever sends reserves the worst case first and settles what it was."""

    def __init__(self, cap: float | None, spent: float) -> None:
        self.cap, self.spent, self.reserved = cap, spent, 0.0
        self._open = 0

    @property
    def in_use(self) -> bool:
        """Whether a reservation is still open, so that waiting may free some money."""
        return self._open > 0

    def fits(self, worst: float) -> bool:
        """Whether the cap holds if an attempt costs its worst case, and all that are reserved too."""
        return self.cap is None or self.spent + self.reserved + worst <= self.cap

    def reserve(self, worst: float) -> None:
        """Takes `worst` out of what is left."""
        self.reserved += worst
        self._open += 1

    def settle(self, worst: float, cost: float) -> None:
        """Gives a reservation back and books what the attempt cost."""
        self._open -= 1
        self.reserved = self.reserved - worst if self._open else 0.0  # no rounding is left behind
        self.spent += cost


class Rate:
    """At most `per_minute` (None: any number) in any 60 seconds. It is told charges before they are known and corrected afterwards.

    A charge goes through when nothing is owed; a large one leaves a debt that the following ones wait for, in order, so that none
    starves. A twentieth of the minute's allowance may go at once, the rest drips: together never more than per_minute in a minute.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._per_s = None if per_minute is None else (1 - BURST_SHARE) * per_minute / 60
        self._burst = 0.0 if per_minute is None else max(0.0, BURST_SHARE * per_minute - 1)
        self._level, self._at = self._burst, 0.0

    def charge(self, amount: float, now: float) -> float:
        """Books `amount` and returns the seconds to wait before it may be sent."""
        if self._per_s is None:
            return 0.0
        self._level = min(self._burst, self._level + self._per_s * (now - self._at))
        self._at = now
        wait = max(0.0, -self._level / self._per_s)
        self._level -= amount
        return wait

    def correct(self, difference: float) -> None:
        """Books what a charge turned out to be more (or, negative, less) than was thought."""
        self._level -= difference


class Window:
    """How many requests may be in flight: grows while all is well, shrinks on 429 and on latency that rises (AIMD).

    An endpoint of one's own sends no 429, its queue only grows: when the median time of a window's replies is `tolerance` times the
    lowest median so far, it holds more than it can take. Times are per completion token where the endpoint counts them, so
    long answers do not look like a long queue.
    """

    def __init__(self, largest: int, tolerance: float) -> None:
        self.largest, self.tolerance = largest, tolerance
        self._size = float(min(largest, SMALL))
        self._doubling = True  # until it shrinks for the first time
        self._period = SMALL  # replies that are judged together
        self._times: list[float] = []
        self._lowest = float("inf")
        self._shrunk_at = float("-inf")

    @property
    def size(self) -> int:
        return max(1, int(self._size))

    def replied(self, seconds: float, completion_tokens: int, *, sent_at: float, now: float) -> None:
        """A good reply took `seconds`. Replies to what was sent before the last shrinking say nothing of the new size."""
        if sent_at < self._shrunk_at:
            return
        self._times.append(seconds / max(completion_tokens, 1))
        if self._doubling:
            self._size = min(self.largest, self._size + 1)
        if len(self._times) < self._period:
            return
        median = statistics.median(self._times)
        if median <= self.tolerance * self._lowest:
            self._lowest = min(self._lowest, median)
            self._size = min(self.largest, self._size + 1)
        elif self.size > 1:
            self._shrink(0.75, now)
        else:
            self._lowest = median  # one request makes no queue: the endpoint itself has become slower
        self._judge_anew()

    def refused(self, *, sent_at: float, now: float) -> None:
        """A 429. One crowd of refusals shrinks it once."""
        if sent_at >= self._shrunk_at:
            self._shrink(0.5, now)

    def _shrink(self, factor: float, now: float) -> None:
        self._size = max(1.0, self._size * factor)
        self._doubling, self._shrunk_at = False, now
        self._judge_anew()

    def _judge_anew(self) -> None:
        self._times.clear()
        self._period = max(self.size, SMALL)
