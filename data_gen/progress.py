"""The live screen of a run: on a terminal a panel that is redrawn, anywhere else a plain line every few seconds.

It shows a Snapshot and knows nothing of requests, journal or budget. Nothing is drawn by a thread: whoever runs the loop calls
`update` as often as it likes (once a second at least, or the clock on the screen stands still), and a snapshot is taken only when
it is going to be drawn.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from data_gen.limits import Usage
from data_gen.readable import dollars, duration, percent, roughly, tokens

REDRAW_S = 0.25
MAX_WIDTH = 100  # columns; wider bars say no more
REASONS = 6  # reject reasons shown by name
ETA_WINDOW_S, ETA_MIN_S, ETA_MIN_ITEMS = 300.0, 5.0, 20  # the rate is that of the last minutes; what makes it worth a word


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment."""

    title: str
    accepted: dict[str, tuple[int, int]]  # a task's items accepted and wanted, both sides together
    rejected: dict[str, int] = field(default_factory=dict)
    checking: int = 0  # items that wait for the verdict of a check
    requests: int = 0  # answered
    failed: int = 0  # given up for good
    in_flight: int = 0
    window: int = 0  # how many may be in flight now
    retries: int = 0
    usage: Usage = Usage()
    spent: float | None = None  # US dollars; None where no price is known
    max_cost: float | None = None
    elapsed_s: float = 0.0
    eta_s: float | None = None
    waiting: str = ""  # why nothing is sent now: "429, waiting 12 s"


def eta(history: Sequence[tuple[float, int]], wanted: int) -> float | None:
    """Seconds until `wanted` items, at the rate of the last five minutes. `history`: (time in s, items accepted), oldest first.

    None while there is not enough to say: under 5 s, or under 20 items gained.

    [(0, 0), (10, 50)], wanted 150 → 20.0.
    """
    if not history:
        return None
    last_at, last = history[-1]
    if last >= wanted:
        return 0.0
    first_at, first = next(point for point in history if point[0] >= last_at - ETA_WINDOW_S)
    if last_at - first_at < ETA_MIN_S or last - first < ETA_MIN_ITEMS:
        return None
    return (wanted - last) * (last_at - first_at) / (last - first)


class Progress:
    """`with show() as progress: … progress.update(lambda: snapshot(state))`. At the end the last state stays on the screen."""

    def __init__(self, console: Console, every_s: float = 5.0) -> None:
        on_terminal = console.is_terminal and not console.is_dumb_terminal
        self._console = console
        self._interval = REDRAW_S if on_terminal else every_s
        self._live = _live(console) if on_terminal else None
        self._snapshot: Callable[[], Snapshot] | None = None
        self._next = float("-inf")
        self._shown: Snapshot | None = None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._snapshot:
                self._draw(self._snapshot())
        finally:
            if self._live:
                self._live.stop()

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        """Draws what `snapshot` returns, where the last drawing is long enough ago; else it is not even called.

        It is called once more at the end.
        """
        self._snapshot = snapshot
        now = monotonic()
        if now >= self._next:
            self._draw(snapshot())
            self._next = monotonic() + self._interval

    def say(self, line: str) -> None:
        """A line that stays: above the panel, or between the plain lines."""
        with self._reader_gone():
            if self._live:
                self._console.print(Text(line), soft_wrap=True)
            else:
                print(line, file=self._console.file, flush=True)

    def _draw(self, snapshot: Snapshot) -> None:
        if snapshot == self._shown:
            return
        self._shown = snapshot
        if self._live:
            with self._reader_gone():
                self._live.update(panel(snapshot, self._console), refresh=True)
        else:
            self.say(plain(snapshot))

    @contextmanager
    def _reader_gone(self) -> Iterator[None]:
        """Whoever read the output has closed it (`| head`): the run goes on, unseen."""
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._console.file.fileno())


def _live(console: Console) -> Live:
    """What is printed meanwhile goes above the panel; what goes to a file goes on doing so."""
    same = console.file is sys.stdout
    return Live(console=console, auto_refresh=False, redirect_stdout=same, redirect_stderr=same and sys.stderr.isatty())


def show(stream: TextIO | None = None, *, every_s: float = 5.0) -> Progress:
    """The live screen on `stream` (default: standard output): a panel on a terminal, else a line every `every_s` seconds.

    TERM=dumb gets lines as well, NO_COLOR a panel without colours, a file lines even where FORCE_COLOR is set.
    """
    out = stream or sys.stdout
    return Progress(Console(file=out, force_terminal=out.isatty(), force_jupyter=False, highlight=False, emoji=False), every_s)


# --- as a line


def plain(s: Snapshot) -> str:
    """One line: "3 min 20 s: accepted 1,234 of 9,590 (12%), rejected 88, requests 160 answered, …"."""
    done, wanted = _whole(s)
    parts = [
        f"accepted {done:,} of {wanted:,} ({percent(done, wanted)})",
        f"rejected {sum(s.rejected.values()):,}{_reasons(s, 3)}",
        f"requests {_requests(s)}",
        f"tokens {_tokens(s)}",
        *([_money(s)] if s.spent is not None else []),
        *([_left(s)] if _left(s) else []),
    ]
    return f"{duration(s.elapsed_s)}: {', '.join(parts)}" + (f"; {s.waiting}" if s.waiting else "")


def _reasons(s: Snapshot, count: int) -> str:
    """The most frequent reasons, or "": " (89 similar, 52 label_outside)"."""
    most = sorted(s.rejected.items(), key=lambda pair: -pair[1])[:count]
    return f" ({', '.join(f'{n:,} {reason}' for reason, n in most)}{' …' if len(s.rejected) > count else ''})" if most else ""


def _whole(s: Snapshot) -> tuple[int, int]:
    """Accepted and wanted over all tasks."""
    return sum(done for done, _ in s.accepted.values()), sum(wanted for _, wanted in s.accepted.values())


def _requests(s: Snapshot) -> str:
    said = [f"{s.requests:,} answered", f"{s.in_flight:,} of {s.window:,} in flight"]
    said += [f"{s.checking:,} items being checked"] if s.checking else []
    said += [f"{s.retries:,} tried again"] if s.retries else []
    said += [f"{s.failed:,} failed"] if s.failed else []
    return ", ".join(said)


def _tokens(s: Snapshot) -> str:
    cached = f" ({tokens(s.usage.cached)} cached)" if s.usage.cached else ""
    return f"{tokens(s.usage.prompt)} in{cached}, {tokens(s.usage.completion)} out"


def _money(s: Snapshot) -> str:
    if s.spent is None:
        return "unknown: no price is given"
    return dollars(s.spent) + ("" if s.max_cost is None else f" of {dollars(s.max_cost)}")


def _left(s: Snapshot) -> str:
    done, wanted = _whole(s)
    return "" if s.eta_s is None or done >= wanted else f"about {roughly(s.eta_s)} left"


# --- as a panel


def panel(s: Snapshot, console: Console) -> RenderableType:
    """The same as tall and as wide as the terminal allows: a bar a task and one of all, then the figures."""
    columns = min(console.width, MAX_WIDTH)
    figures = Table.grid(padding=(0, 2))
    figures.add_column(no_wrap=True, style="dim")
    figures.add_column()
    for name, value in _figures(s):
        figures.add_row(name, value)
    lines = len(console.render_lines(figures, console.options.update(width=columns - 4)))
    inside = Group(_bars(s, room=console.height - lines - 5), "", figures)  # borders, empty line, "in all", the cursor's line
    return Panel(inside, title=Text(s.title, overflow="ellipsis", no_wrap=True), title_align="left", width=columns, padding=(0, 1))


def _bars(s: Snapshot, room: int) -> Table:
    bars = Table.grid(padding=(0, 1), expand=True)
    bars.add_column(no_wrap=True, overflow="ellipsis")
    bars.add_column(ratio=1)
    bars.add_column(justify="right", no_wrap=True)
    bars.add_column(justify="right", no_wrap=True, min_width=4)
    shown = _tasks(s.accepted, room)
    for task, pair in shown.items():
        bars.add_row(*_bar(Text(task), *pair))
    if hidden := len(s.accepted) - len(shown):
        bars.add_row(Text(f"and {hidden} more" if shown else f"{hidden} tasks", style="dim"))
    if len(s.accepted) != 1:
        bars.add_row(*_bar(Text("in all", style="bold"), *_whole(s)))
    return bars


def _tasks(accepted: dict[str, tuple[int, int]], room: int) -> dict[str, tuple[int, int]]:
    """All tasks in their order, or of too many those that lack most."""
    if len(accepted) <= room:
        return accepted
    least = sorted(accepted, key=lambda task: accepted[task][0] / max(accepted[task][1], 1))[: max(room - 1, 0)]
    return {task: pair for task, pair in accepted.items() if task in least}


def _bar(name: Text, done: int, wanted: int) -> tuple[Text, ProgressBar, str, str]:
    bar = ProgressBar(total=max(wanted, 1), completed=min(done, wanted) if wanted else 1)
    return name, bar, f"{done:,} of {wanted:,}", percent(done, wanted)


def _figures(s: Snapshot) -> list[tuple[str, Text]]:
    """Names and values of the panel's lower half."""
    by_count = sorted(s.rejected.items(), key=lambda pair: -pair[1])
    reasons = [f"{count:,} {reason}" for reason, count in by_count[:REASONS]]
    if rest := sum(count for _, count in by_count[REASONS:]):
        reasons.append(f"{rest:,} for other reasons")
    now = Text(s.waiting, style="yellow") if s.waiting else Text("asking" if s.in_flight else "nothing under way")
    return [
        ("rejected", Text(", ".join(reasons) or "none")),
        ("requests", Text(_requests(s))),
        ("tokens", Text(_tokens(s))),
        ("cost", Text(_money(s))),
        ("time", Text(", ".join(filter(None, [duration(s.elapsed_s), _left(s)])))),
        ("now", now),  # always there: a panel that grows and shrinks dances
    ]
