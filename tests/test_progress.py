"""The live screen: what it says in both forms, in narrow and low terminals, how seldom it draws, and what it leaves behind."""

import io
import os
import pty
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from data_gen import progress, readable
from data_gen.limits import Usage
from data_gen.progress import Progress, Snapshot, eta, panel, plain, show

ROOT = Path(__file__).resolve().parents[1]
FULL = Snapshot(
    title="NAME at https://api.example.com/v1",
    accepted={
        "generation": (1234, 9590), "reasoning": (88, 9590), "ethics": (9590, 9590), "question_answering": (12_345, 99_999),
        "translation": (0, 10), "classification": (1, 2), "sentiment": (7, 9),
    },
    rejected={
        "malformed": 56, "similar": 2510, "label_outside": 99, "wrong_language": 9, "target_reached": 3, "truncated": 2,
        "repetition": 1, "refusal": 1,
    },
    requests=12_345, failed=3, in_flight=97, window=128, retries=41, usage=Usage(1_234_567, 840_123, 300_000),
    spent=0.0123, max_cost=5.0, elapsed_s=200, eta_s=754, waiting="429, waiting 12 s",
)  # fmt: skip
LINE = (
    "3 min 20 s: accepted 23,265 of 128,790 (18%), rejected 2,681 (2,510 similar, 99 label_outside, 56 malformed …), "
    "requests 12,345 answered, 97 of 128 in flight, 41 tried again, 3 failed, tokens 1.23M in (300k cached), 840k out, "
    "$0.0123 of $5.00, about 13 min left; 429, waiting 12 s"
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the screen's time stand still, but for what it is told to pass."""
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def terminal(width: int = 80, height: int = 24, **more: object) -> Console:
    settings = {"force_terminal": True, "color_system": "truecolor", "legacy_windows": False, **more}
    return Console(file=io.StringIO(), width=width, height=height, _environ={}, **settings)  # type: ignore[arg-type]


def drawn(snapshot: Snapshot, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(panel(snapshot, console))
    return re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).splitlines()


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def screen_after(text: str) -> list[str]:
    """What a terminal shows after `text`: a small one of its own, which knows the few codes that the panel needs."""
    lines, row, column = [""], 0, 0
    for code, count, char in re.findall(r"\x1b\[[?]?(?:([0-9;]*[A-Za-z]))|(\x1b)|([\s\S])", text):
        if char == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif char == "\r":
            column = 0
        elif char:
            lines[row] = lines[row][:column].ljust(column) + char + lines[row][column + 1 :]
            column += 1
        elif code.endswith("A"):
            row -= int(code[:-1] or 1)
        elif code == "2K":
            lines[row] = ""
        else:
            assert code[-1] in "mhl" and not count, f"an unknown code {code!r}"
    return lines


# --- what it says


def test_a_line_says_it_all() -> None:
    assert plain(FULL) == LINE


def test_what_is_not_known_is_not_said() -> None:
    line = plain(Snapshot("t", {"ethics": (0, 50)}, window=8))
    assert line == "0 s: accepted 0 of 50 (0%), rejected 0, requests 0 answered, 0 of 8 in flight, tokens 0 in, 0 out"
    lines = drawn(Snapshot("t", {"ethics": (0, 50)}, window=8), terminal())
    assert any("unknown: no price is given" in line for line in lines) and not any("left" in line for line in lines)
    assert sum("0 of 50" in line for line in lines) == 1, "one task needs no sum"


def test_what_is_being_checked_is_said_on_both() -> None:
    checking = Snapshot("t", {"ethics": (0, 50)}, checking=1234)
    assert "1,234 items being checked" in plain(checking) and "being checked" not in plain(FULL)
    assert any("1,234 items being checked" in line for line in drawn(checking, terminal()))


def test_the_panel_says_it_all() -> None:
    text = "\n".join(drawn(FULL, terminal(100)))
    for said in (
        "NAME at https://api.example.com/v1", "1,234 of 9,590  12%", "9,590 of 9,590 100%", "23,265 of 128,790  18%",
        "2,510 similar, 99 label_outside, 56 malformed, 9 wrong_language", "2 for other reasons",
        "12,345 answered, 97 of 128 in flight, 41 tried again, 3 failed", "1.23M in (300k cached), 840k out",
        "$0.0123 of $5.00", "3 min 20 s, about 13 min left", "429, waiting 12 s",
    ):  # fmt: skip
        assert said in text


@pytest.mark.parametrize(("width", "height"), [(200, 60), (100, 30), (80, 24), (60, 24)])
def test_nothing_is_cut_and_everything_is_aligned(width: int, height: int) -> None:
    lines = drawn(FULL, terminal(width, height))
    assert {len(line) for line in lines} == {min(width, 100)}
    assert "…" not in "".join(lines) and len(lines) < height
    assert all(task in "".join(lines) for task in FULL.accepted)
    bars = lines[1 : 2 + len(FULL.accepted)]
    assert len({line.rindex("%") for line in bars}) == len({line.index("━") for line in bars}) == 1
    words = " ".join("".join(lines).replace("│", " ").split())
    assert "97 of 128 in flight, 41 tried again, 3 failed" in words and "3 target_reached, 2 truncated" in words


def test_the_panel_keeps_its_height_and_what_is_done_has_nothing_left() -> None:
    states = [FULL, replace(FULL, waiting=""), replace(FULL, waiting="", in_flight=0), replace(FULL, eta_s=None)]
    assert len({len(drawn(state, terminal(100))) for state in states}) == 1
    few, more = (drawn(replace(FULL, accepted={"ethics": (count, 99)}), terminal())[1].index(f"{count} of") for count in (9, 99))
    assert few == more + 1, "nor do its columns move where another digit comes"
    done = replace(FULL, accepted={"ethics": (50, 50)}, eta_s=1.0)
    assert "left" not in plain(done) + "".join(drawn(done, terminal()))


def test_a_low_terminal_shows_the_tasks_that_lack_most() -> None:
    lines = drawn(FULL, terminal(100, 17))
    text = "\n".join(lines)
    assert len(lines) < 17 and "reasoning" in text and "ethics" not in text and "in all" in text and "more" in text
    assert len(drawn(FULL, terminal(100, 12))) < 16, "the figures stay"


@pytest.mark.parametrize("console", [terminal(no_color=True), terminal(color_system=None)])
def test_without_colours_a_bar_shows_what_is_done_only(console: Console) -> None:
    with console.capture() as captured:
        console.print(panel(FULL, console))
    lengths = {
        line.split()[1]: line.count("━") for line in re.sub(r"\x1b\[[0-9;]*m", "", captured.get()).splitlines() if " of " in line
    }
    assert lengths["translation"] == 0 < lengths["generation"] < lengths["classification"] < lengths["ethics"]
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", captured.get())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([readable.tokens(n) for n in (0, 9994, 12_345, 840_123, 999_999, 1_234_567, 2.5e9)],
         ["0", "9,994", "12.3k", "840k", "1.00M", "1.23M", "2.50B"]),
        ([readable.dollars(x) for x in (0, 1e-6, 0.0123, 0.5, 0.99999, 12.345, 1234.5)],
         ["$0.00", "<$0.0001", "$0.0123", "$0.50", "$1.00", "$12.35", "$1,234.50"]),
        ([readable.duration(s) for s in (0.4, 59.6, 200, 3599.7, 7500, 100_000)],
         ["0 s", "1 min 00 s", "3 min 20 s", "1 h 00 min", "2 h 05 min", "1 d 3 h"]),
        ([readable.roughly(s) for s in (42, 119, 120, 754, 3541, 7500)],
         ["42 s", "1 min 59 s", "2 min", "13 min", "1 h 00 min", "2 h 05 min"]),
        ([readable.percent(*pair) for pair in ((0, 9), (999, 1000), (7, 7), (0, 0))], ["0%", "99%", "100%", "100%"]),
    ],
)  # fmt: skip
def test_numbers_are_readable(said: list[str], expected: list[str]) -> None:
    assert said == expected


# --- when it draws


def test_lines_come_every_few_seconds_the_first_at_once_and_the_last_at_the_end(clock: Callable[[float], None]) -> None:
    out = io.StringIO()
    taken: list[None] = []

    def snapshot() -> Snapshot:
        taken.append(None)
        return replace(FULL, requests=len(taken))

    with show(out, every_s=5) as screen:
        for _ in range(121):
            screen.update(snapshot)
            clock(0.1)
        screen.say("stopping")
    assert len(taken) == 4, "at 0, 5 and 10 s, and at the end"
    lines = out.getvalue().splitlines()
    assert [re.findall(r"requests (\d+)", line) for line in lines] == [["1"], ["2"], ["3"], [], ["4"]]
    assert lines[3] == "stopping" and "\x1b" not in out.getvalue()


def test_a_state_is_not_said_twice() -> None:
    out = io.StringIO()
    with show(out, every_s=0) as screen:
        screen.update(lambda: FULL)
        screen.update(lambda: replace(FULL))
    assert out.getvalue() == LINE + "\n"


def test_the_panel_is_redrawn_four_times_a_second_at_most(clock: Callable[[float], None]) -> None:
    taken: list[None] = []

    def snapshot() -> Snapshot:
        taken.append(None)
        return FULL

    with Progress(terminal()) as screen:
        for _ in range(500):
            screen.update(snapshot)
            clock(1 / 500)
    assert len(taken) == 5, "four in the second, one at the end"


def test_what_is_left_on_the_screen(clock: Callable[[float], None]) -> None:
    """Lines above in their order, then one panel with the last state: no remains of those before it, which were taller."""
    console = terminal()
    with Progress(console) as screen:
        screen.say("going on [red] of 3 \\ requests")
        screen.update(lambda: replace(FULL, accepted=FULL.accepted | {"another": (1, 2)}))
        screen.say("a line " + "much longer than the terminal is wide " * 3)
        clock(1)
        screen.update(lambda: FULL)
        clock(1)
        last = replace(FULL, waiting="", requests=99_999)
        screen.update(lambda: last)
    shown = screen_after(written(console))
    assert shown[0] == "going on [red] of 3 \\ requests"
    assert shown[1].startswith("a line much") and shown[1].rstrip().endswith("wide")
    assert shown[2:] == [*drawn(last, terminal()), ""]
    assert written(console).count("\x1b[?25h") == 1, "the cursor is there again"


def test_the_screen_is_left_in_order_by_an_error() -> None:
    console = terminal()
    with pytest.raises(KeyboardInterrupt), Progress(console) as screen:
        screen.update(lambda: FULL)
        raise KeyboardInterrupt
    assert screen_after(written(console)) == [*drawn(FULL, terminal()), ""]


def test_updates_are_cheap(takes_less: Callable[[float, Callable[[], object]], bool]) -> None:
    """500 a second must not be felt: here 20,000, none of which is drawn."""
    with Progress(terminal()) as screen:
        screen.update(lambda: FULL)
        screen._next = float("inf")

        def updates() -> None:
            for _ in range(20_000):
                screen.update(lambda: FULL)

        assert takes_less(1, updates)


SHOWS_ONE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from data_gen.progress import Snapshot, show
with show() as screen:
    screen.update(lambda: Snapshot("title", {{"ethics": (1, 2)}}))
    print("printed")
"""


@pytest.mark.parametrize(("term", "boxes"), [("xterm-256color", True), ("dumb", False)])
def test_on_a_real_terminal(term: str, boxes: bool) -> None:
    ours, theirs = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen([sys.executable, "-c", SHOWS_ONE], stdout=theirs, env=env | {"TERM": term, "PYTHONUTF8": "1"})
    os.close(theirs)
    data = b""
    while chunk := _read(ours):
        data += chunk
    assert process.wait() == 0
    text = data.decode()
    assert ("╭─ title" in text) == boxes == ("\x1b[" in text)
    assert "printed" in text and ("accepted 1 of 2" in text) != boxes
    if boxes:
        assert screen_after(text.replace("\r\n", "\n"))[0].rstrip() == "printed", "what is printed goes above the panel"


def _read(terminal_end: int) -> bytes:
    try:
        return os.read(terminal_end, 65_536)
    except OSError:  # Linux says so when the other end is closed
        return b""


def test_a_file_gets_lines_even_where_colour_is_forced() -> None:
    env = os.environ | {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = subprocess.run([sys.executable, "-c", SHOWS_ONE], capture_output=True, text=True, env=env, check=True)
    assert "\x1b" not in done.stdout and done.stdout.startswith("0 s: accepted 1 of 2 (50%)")


# --- what is left


def test_eta_is_that_of_the_last_minutes() -> None:
    steady = [(float(second), 3 * second) for second in range(100)]
    assert eta(steady, 3 * 99 + 30) == pytest.approx(10.0)
    assert eta(deque(steady, maxlen=50), 3 * 99 + 30) == pytest.approx(10.0)
    slower = [*steady, *((99.0 + second, 297 + second // 2) for second in range(1, 401))]
    assert eta(slower, slower[-1][1] + 50) == pytest.approx(100.0, rel=0.02)
    stuck = [*steady, *((99.0 + second, 297) for second in range(1, 301))]
    assert eta(stuck, 400) is None


@pytest.mark.parametrize(
    ("history", "left"), [([], None), ([(0, 5)], None), ([(0, 0), (4.9, 500)], None), ([(0, 0), (60, 19)], None), ([(0, 7)], 0.0)]
)
def test_eta_needs_something_to_go_by(history: list[tuple[float, int]], left: float | None) -> None:
    assert eta(history, 7) == left if left is not None else eta(history, 1000) is None


def test_a_reader_that_went_away_does_not_stop_the_run() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone, show(gone, every_s=0) as screen:
        screen.say("nobody hears this")
        screen.update(lambda: FULL)
