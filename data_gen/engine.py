"""The order of a run: which request is sent next, and which reply is read next. It knows neither HTTP nor what an item is.

Requests are numbered as they are planned. Replies come in any order and are *accepted in the requests' order*; a recipe plans
a request from what was accepted up to some request before it. So what a run makes is a function of the replies alone: speed, the
window and a kill change nothing. A request that failed for good is accepted as such, in its turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from data_gen.journal import DONE, FAILED, Journal, Request
from data_gen.progress import Snapshot

SHOW_S = 0.25  # the screen's clock goes on while nothing comes
_COMMIT_EVERY = 1000  # requests accepted from the journal


class Asks(Protocol):
    """Who has requests answered: teacher.Teacher, or batch.BatchTeacher."""

    @property
    def window(self) -> int: ...

    @property
    def waiting(self) -> str: ...

    @property
    def in_flight(self) -> int: ...

    @property
    def stopping(self) -> str: ...

    async def ask(self, request: Request) -> str | None: ...

    async def drain(self, tasks: Iterable[tuple[asyncio.Task[str | None], int]]) -> None: ...


class Shows(Protocol):
    """Where a run says what it does: progress.Progress."""

    def say(self, line: str) -> None: ...

    def update(self, snapshot: Callable[[], Snapshot]) -> None: ...


class Recipe(Protocol):
    """What to ask and what to make of it."""

    def plan(self, idx: int, accepted: int) -> tuple[str, dict[str, Any]] | None:
        """(body, about) of request `idx`, or None: nothing to ask before more than `accepted` requests are accepted, or ever."""

    def planned(self, request: Request) -> None:
        """Request `request.idx` is in the journal, now or since an earlier run."""

    def accept(self, request: Request, reply: str | None) -> None:
        """The next reply in order; None: the request failed for good."""


@dataclass
class Order:
    """Where a run stands. `open`: planned and not accepted, at most as many as a recipe plans ahead."""

    recipe: Recipe
    journal: Journal
    endpoint: str
    requests: int = 0
    accepted: int = 0
    reused: int = 0
    failed: int = 0
    open: dict[int, Request] = field(default_factory=dict)
    replies: dict[int, str | None] = field(default_factory=dict)  # here, and an earlier one is not
    unsent: deque[int] = field(default_factory=deque)


def recall(order: Order, show: Shows, snapshot: Callable[[], Snapshot], *, only_answered: bool = False) -> None:
    """Goes through the journal: what was answered is accepted again, from its raw reply; nothing is asked.

    only_answered: nothing will be, so what has no reply does not hold back what comes after it.
    """
    order.journal.forget_items()
    for request in order.journal.requests():
        _planned(order, request)
        if request.status in (DONE, FAILED) or only_answered:
            order.reused += request.reply is not None
            order.replies[request.idx] = request.reply
        else:
            order.unsent.append(request.idx)
        while _accept_next(order):
            show.update(snapshot)
        if request.idx % _COMMIT_EVERY == 0:
            order.journal.commit()
    order.journal.commit()


def _planned(order: Order, request: Request) -> None:
    order.recipe.planned(request)
    order.open[request.idx] = replace(request, reply=None)
    order.requests += 1


def _accept_next(order: Order) -> bool:
    """Accepts the reply that is next in order; False where it is not here yet."""
    if order.accepted not in order.replies:
        return False
    reply = order.replies.pop(order.accepted)
    order.failed += reply is None
    order.recipe.accept(order.open.pop(order.accepted), reply)
    order.accepted += 1
    return True


def _next(order: Order) -> Request | None:
    """The next request to send: one that an earlier run left, or a new one."""
    if order.unsent:
        return order.open[order.unsent.popleft()]
    planned = order.recipe.plan(order.requests, order.accepted)
    if planned is None:
        return None
    body, about = planned
    request = order.journal.plan(order.requests, body, about, order.endpoint)
    _planned(order, request)
    return request


async def ask_all(order: Order, teacher: Asks, show: Shows, snapshot: Callable[[], Snapshot]) -> None:
    """Keeps the teacher's window full until nothing is left to ask. Raises what the teacher or the recipe raises, after
    what was on its way has come in.
    """
    tasks: dict[asyncio.Task[str | None], int] = {}
    finished: asyncio.Queue[asyncio.Task[str | None]] = asyncio.Queue()
    try:
        while True:
            while _accept_next(order):
                show.update(snapshot)
                await asyncio.sleep(0)  # a batch brings thousands at once: the network and Ctrl-C have their turn in between
            while len(tasks) < teacher.window and (request := _next(order)):
                task = asyncio.create_task(teacher.ask(request))
                task.add_done_callback(finished.put_nowait)
                tasks[task] = request.idx
                show.update(snapshot)
                await asyncio.sleep(0)
            show.update(snapshot)
            if not tasks:
                break
            for task in await _some(finished):
                order.replies[tasks.pop(task)] = task.result()
    finally:
        if tasks and teacher.stopping:
            show.say(teacher.stopping)
        draining = asyncio.create_task(teacher.drain(tasks.items()))
        while not draining.done():
            await asyncio.wait({draining}, timeout=SHOW_S)
            show.update(snapshot)
        await draining


async def _some(finished: asyncio.Queue[asyncio.Task[str | None]]) -> list[asyncio.Task[str | None]]:
    """Those that have finished: at least one, or none after a while."""
    try:
        async with asyncio.timeout(SHOW_S):  # wait_for of Python 3.11 may swallow a Ctrl-C
            some = [await finished.get()]
    except TimeoutError:
        return []
    while not finished.empty():
        some.append(finished.get_nowait())
    return some
