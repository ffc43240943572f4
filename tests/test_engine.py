"""The order of a run against a teacher whose replies come at any time: the same data, and how much longer that takes."""

import asyncio
import hashlib
import heapq
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from data_gen.config import SelfInstructConfig, Targets
from data_gen.engine import Order, ask_all, recall
from data_gen.journal import Request, open_journal
from data_gen.planner import SelfInstruct, load_tasks
from data_gen.progress import Snapshot
from data_gen.self_instruct import make_acceptance
from tests import virtual_time
from tests.local_teacher import items_for
from tests.test_self_instruct import NONE, Said

Latency = Callable[[int], float]


class Replies:
    """A teacher without a server: request i's reply is a function of its body and comes after latency(i) seconds."""

    def __init__(self, window: Callable[[], int], latency: Latency) -> None:
        self._window, self.latency = window, latency
        self.asked: list[int] = []
        self.at_once = 0
        self._under_way = self.in_flight = 0
        self.waiting = self.stopping = ""

    @property
    def window(self) -> int:
        return self._window()

    async def ask(self, request: Request) -> str | None:
        self.asked.append(request.idx)
        self._under_way += 1
        self.at_once = max(self.at_once, self._under_way)
        await asyncio.sleep(self.latency(request.idx))
        self._under_way -= 1
        return None if request.idx % 17 == 5 else items_for(request.body.encode(), 0.05)

    async def drain(self, tasks: Iterable[tuple[asyncio.Task[str | None], int]]) -> None:
        for task, _ in tasks:
            task.cancel()


def nothing() -> Snapshot:
    return Snapshot("", {})


def simulate(
    workdir: Path, teacher: Replies, *, items: int = 250, lag: int = 32, look: Callable[[Order], None] = lambda order: None
) -> tuple[str, int, float]:
    """(hash of all items kept and rejected, requests, seconds). `look` is called whenever something happened."""
    config = SelfInstructConfig(targets=Targets(**{**NONE, "generation": items, "sentiment": items}), items_per_request=3)
    with open_journal(str(workdir)) as journal:
        acceptance = make_acceptance(config, load_tasks(config, config.wanted()), journal)
        order = Order(SelfInstruct(config, acceptance, lag, {}), journal, "url")

        class Screen(Said):
            def update(self, snapshot: Callable[[], Snapshot]) -> None:
                look(order)

        recall(order, Screen(), nothing)
        _, seconds = virtual_time.run(ask_all(order, teacher, Screen(), nothing))
        lines = [*journal.accepted("train"), "|", *journal.accepted("heldout"), "|", *journal.rejected()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), order.requests, seconds


def without_order(latency: Latency, requests: int, window: int) -> float:
    """Seconds that as many requests take when each is sent as soon as one of `window` places is free, whatever it depends on."""
    free = [0.0] * window
    for idx in range(requests):
        heapq.heappush(free, heapq.heappop(free) + latency(idx))
    return max(free)


def drawn(make: Callable[[random.Random], float]) -> Latency:
    return lambda idx: make(random.Random(idx))


WINDOW = 8
LATENCIES = {
    "constant": drawn(lambda rng: 10.0),
    "uniform": drawn(lambda rng: rng.uniform(2, 18)),
    "log-normal": drawn(lambda rng: 10 * math.exp(rng.gauss(0, 0.7))),
    "one in fifty takes five times as long": drawn(lambda rng: 40.0 if rng.random() < 0.02 else 8.0),
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """What comes out when one request is under way at a time."""
    data, requests, _ = simulate(tmp_path_factory.mktemp("alone"), Replies(lambda: 1, LATENCIES["constant"]))
    return data, requests


@pytest.mark.parametrize("name", LATENCIES)
def test_the_same_data_at_any_timing_in_at_most_a_tenth_more_time(tmp_path: Path, name: str, alone: tuple[str, int]) -> None:
    teacher = Replies(lambda: WINDOW, LATENCIES[name])
    data, requests, seconds = simulate(tmp_path, teacher)
    assert (data, requests) == alone and teacher.at_once == WINDOW
    assert 0.999 <= seconds / without_order(LATENCIES[name], requests, WINDOW) <= 1.10


def test_the_same_data_whatever_the_window_does(tmp_path: Path, alone: tuple[str, int]) -> None:
    moody = random.Random(1)
    teacher = Replies(lambda: moody.randint(1, WINDOW), LATENCIES["log-normal"])
    assert simulate(tmp_path, teacher)[:2] == alone


def test_the_lag_is_part_of_what_is_asked(tmp_path: Path, alone: tuple[str, int]) -> None:
    """Else the tests above would compare runs that have nothing to mix up."""
    assert simulate(tmp_path, Replies(lambda: WINDOW, LATENCIES["constant"]), lag=WINDOW)[0] != alone[0]


def test_replies_that_wait_for_their_turn_are_few(tmp_path: Path) -> None:
    """A request that takes for ever holds the others back after `pool_lag` of them: memory is bounded by it, not by luck."""
    held: list[int] = []
    teacher = Replies(lambda: WINDOW, lambda idx: 1e3 if idx == 40 else 1.0)
    simulate(tmp_path, teacher, look=lambda order: held.append(len(order.open)))
    assert 3 * WINDOW < max(held) <= 4 * WINDOW


def test_a_stop_is_heard_however_busy_it_is(tmp_path: Path) -> None:
    """Cancelled while replies come in without a pause, twenty times: Python 3.11's wait_for would miss some."""

    class AtOnce(Replies):
        async def ask(self, request: Request) -> str | None:
            await asyncio.sleep(0)
            return None

    class Endless:
        def plan(self, idx: int, accepted: int) -> tuple[str, dict[str, object]] | None:
            return f"body {idx}", {}

        def planned(self, request: Request) -> None: ...

        def accept(self, request: Request, reply: str | None) -> None: ...

    async def stopped(order: Order) -> None:
        running = asyncio.create_task(ask_all(order, AtOnce(lambda: 4, lambda idx: 0.0), Said(), nothing))
        await asyncio.sleep(random.uniform(0.01, 0.03))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 5)

    for k in range(20):
        with open_journal(str(tmp_path / str(k))) as journal:
            asyncio.run(stopped(Order(Endless(), journal, "url")))
