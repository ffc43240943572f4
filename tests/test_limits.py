"""What may be sent now: money against Decimal, rates against a count of every minute, the window against a server with a queue."""

import heapq
import random
from decimal import Decimal

import pytest

from data_gen.limits import Budget, Price, Rate, Usage, Window, token_bound


def test_prices_are_per_million_tokens() -> None:
    assert Price(0.15, 0.6).of(Usage(2000, 1000)) == pytest.approx(0.0009)
    assert Price(3.0, 15.0, cached=0.3).of(Usage(1_000_000, 0, 900_000)) == pytest.approx(0.1 * 3.0 + 0.9 * 0.3)
    assert Price(0.15, 0.6, factor=0.5).of(Usage(2000, 1000)) == pytest.approx(0.00045)


def test_a_budget_is_never_overrun_whatever_replies_cost() -> None:
    rng = random.Random(0)
    for _ in range(50):
        budget, spent, refused = Budget(1.0, 0.0), Decimal(0), 0
        under_way: list[float] = []
        while refused < 30:
            worst = rng.uniform(0.001, 0.1)
            if len(under_way) < 20 and budget.fits(worst):
                budget.reserve(worst)
                under_way.append(worst)
            elif under_way:
                worst = under_way.pop(rng.randrange(len(under_way)))
                cost = worst * rng.choice([0, 0.3, 1.0])
                budget.settle(worst, cost)
                spent += Decimal(cost)
            else:
                refused += 1
            assert spent + sum(map(Decimal, under_way)) <= Decimal("1.000000001")
        assert float(spent) == pytest.approx(budget.spent) and spent > Decimal("0.8") and not budget.in_use


def test_without_a_cap_everything_fits() -> None:
    budget = Budget(None, 5.0)
    budget.reserve(1e9)
    assert budget.fits(1e9) and budget.in_use


@pytest.mark.parametrize("per_minute", [1, 7, 60, 500, 10_000])
def test_no_minute_sees_more_than_it_may(per_minute: int) -> None:
    """A client that always sends as soon as it may; every minute that begins with a request is counted."""
    rate, now, sent = Rate(per_minute), 1000.0, list[float]()
    while now < 1000 + 400:
        now += rate.charge(1, now)
        sent.append(now)
        if per_minute >= 500 and len(sent) == 2000:
            now += 100  # a pause may not be made up for
    left = 0
    for right, at in enumerate(sent):
        while at - sent[left] >= 60:
            left += 1
        assert right - left + 1 <= per_minute
    assert len(sent) > 0.85 * per_minute * (now - 1000 - (100 if per_minute >= 500 else 0)) / 60 - 1


def test_large_charges_wait_for_their_turn_and_are_corrected() -> None:
    rate = Rate(6000)  # 95 a second
    assert rate.charge(1000, 0.0) == 0.0, "more than the burst, but nothing is owed"
    first = rate.charge(500, 0.0)
    assert rate.charge(10, 0.0) - first == pytest.approx(500 / 95), "in order: the small one does not overtake"
    rate.correct(-900)  # the first one took 100
    assert rate.charge(10, 0.0) == pytest.approx(first + (500 + 10 - 900) / 95)
    assert Rate(None).charge(1e12, 0.0) == 0.0


def simulated(window: Window, places: int, replies: int, *, refuse: bool) -> tuple[list[int], float]:
    """Window sizes over time, and replies a second, at a server that answers `places` at a time in 1 s each, first come first
    served. What is beyond 1.5 × places is refused at once (429), or else just queued.
    """
    now, free, sizes, answered = 0.0, [0.0] * places, list[int](), 0
    under_way: list[tuple[float, float, bool]] = []  # (back at, sent at, refused)
    while answered < replies:
        while len(under_way) < window.size:
            if refuse and len(under_way) >= 1.5 * places:
                heapq.heappush(under_way, (now + 0.01, now, True))
            else:
                done = max(now, heapq.heappop(free)) + 1.0
                heapq.heappush(free, done)
                heapq.heappush(under_way, (done, now, False))
        now, sent_at, refused = heapq.heappop(under_way)
        if refused:
            window.refused(sent_at=sent_at, now=now)
        else:
            answered += 1
            window.replied(now - sent_at, 100, sent_at=sent_at, now=now)
        sizes.append(window.size)
    return sizes, answered / now


@pytest.mark.parametrize("refuse", [True, False])
@pytest.mark.parametrize("places", [4, 40])
def test_the_window_finds_what_the_server_can_take(places: int, refuse: bool) -> None:
    """Near the best rate, and no queue of hundreds: with 429s, and at a server that only becomes slower."""
    sizes, per_second = simulated(Window(1000, 3.0), places, 6000, refuse=refuse)
    late = sizes[len(sizes) // 2 :]
    assert per_second > 0.8 * places
    assert max(late) <= 8 * places and min(late) >= places / 4


def test_the_window_grows_to_the_largest_and_no_further() -> None:
    sizes, _ = simulated(Window(32, 3.0), 100, 500, refuse=False)
    assert sizes[0] <= 9 and sizes[-1] == 32 == max(sizes)


def test_one_crowd_of_refusals_shrinks_it_once() -> None:
    window = Window(64, 3.0)
    for k in range(200):
        window.replied(1.0, 10, sent_at=k, now=k + 1.0)
    before = window.size
    for k in range(30):
        window.refused(sent_at=250.0, now=251.0 + k / 100)
    assert window.size == before // 2
    window.refused(sent_at=252.0, now=253.0)
    assert window.size == before // 4
    for k in range(20):
        window.refused(sent_at=300.0 + k, now=300.5 + k)
    assert window.size == 1


def test_an_endpoint_that_became_slower_for_good_is_used_all_the_same() -> None:
    window = Window(64, 3.0)
    for k in range(3000):
        window.replied(1.0 if k < 300 else 20.0, 100, sent_at=k, now=k + 0.5)
    assert window.size == 64


def test_long_answers_are_no_queue() -> None:
    window = Window(64, 3.0)
    for k in range(400):
        window.replied(1.0 if k < 200 else 20.0, 100 if k < 200 else 2000, sent_at=k, now=k + 1.0)
    assert window.size == 64


def test_token_bound_counts_bytes() -> None:
    assert token_bound("اردو") == 8 + 256
