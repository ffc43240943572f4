"""The child processes of a data recipe, with small programs in place of train, serve and evaluate; `resolve` is the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from launch import app, children
from launch.children import Children

ROOT = Path(__file__).resolve().parents[1]
GENERATOR = "configs/x_instruction_tiny.py:generator"
# What launch/serve.py says once it answers.
SERVER = """
import http.server, os, sys, time
print("loading", flush=True)
time.sleep(float(os.environ.get("SLOW", 0)))
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(f"serving m at http://127.0.0.1:{server.server_address[1]}/v1; Ctrl-C stops it", file=sys.stderr, flush=True)
print("pid", os.getpid(), flush=True)
server.serve_forever()
"""


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Callable[[str], Children]:
    """Children whose programs all are this one; its first argument is whose place it takes."""

    def make(program: str) -> Children:
        path = tmp_path / "stub.py"
        path.write_text(program)
        monkeypatch.setattr(children, "_program", lambda name: [sys.executable, str(path), name])
        return Children(str(tmp_path / "logs"), said.append)

    return make


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether the process ends; one that nobody has waited for yet is gone too."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def pid_in(logs: Path) -> int:
    [log] = logs.glob("*.log")
    end = time.monotonic() + 5
    while "pid " not in log.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    return int(log.read_text().split("pid ")[1].split()[0])


# --- resolve ------------------------------------------------------------------------------------------------------------


def test_the_whole_config_of_a_recipe(tmp_path: Path) -> None:
    with_comma = "configs/x_instruction_tiny.py:generator,quick"
    found = Children(str(tmp_path), print).resolve([GENERATOR, GENERATOR, with_comma])
    assert found.keys() == {GENERATOR, with_comma} and found[with_comma]["max_steps"] == 15
    assert found[GENERATOR].keys() >= {"model", "data", "lora", "seed"}
    assert found[GENERATOR] == json.loads(json.dumps(found[GENERATOR]))


def test_what_is_no_recipe_is_an_error_of_use(tmp_path: Path) -> None:
    """One line that names it. (That a recipe is missing, app.load_recipe says, and tests/test_config.py that it does.)"""
    words = "^configs/x_instruction.py gives a XInstructionConfig; a recipe of launch/train.py is wanted$"
    with pytest.raises(app.UsageError, match=words):
        Children(str(tmp_path), print).resolve([GENERATOR, "configs/x_instruction.py"])


# --- train --------------------------------------------------------------------------------------------------------------


def test_what_training_is_given(stub: Callable[[str], Children], tmp_path: Path) -> None:
    made = stub("import json, sys; open(sys.argv[-1].partition('=')[2], 'w').write(json.dumps(sys.argv[1:]))")
    told = tmp_path / "told.json"
    made.train("configs/a.py", {"data.path": "x=y, z", "note": str(told)}, str(tmp_path / "generator-1/run"))
    program, *flags = json.loads(told.read_text())
    assert program == "train" and flags == [
        "--config=configs/a.py", f"--workdir={tmp_path}/generator-1/run", "--resume", "--config.data.path=x=y, z",
        f"--config.note={told}",
    ]  # fmt: skip
    assert (tmp_path / "logs/train-generator-1.log").exists()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "print('step 1'); print('error: data.path is empty', file=sys.stderr); sys.exit(2)",
            "exit code 2: data.path is empty; the log: ",
        ),
        ("print('error: old'); print('error: the last one'); print('more'); sys.exit(3)", "exit code 3: the last one;"),
        ("print('loading'); raise RuntimeError('out of memory')", r"exit code 1: (?s:.*)RuntimeError: out of memory; the log"),
        ("os.kill(os.getpid(), 9)", "exit code -9: it said nothing; the log"),
    ],
)
def test_training_that_fails_says_why(stub: Callable[[str], Children], tmp_path: Path, program: str, words: str) -> None:
    with pytest.raises(app.UsageError, match=words) as caught:
        stub(f"import os, sys; {program}").train("configs/a.py", {}, str(tmp_path / "generator-1/run"))
    assert Path(str(caught.value).rpartition("the log: ")[2]).exists()


def test_a_long_log_is_told_by_its_end(stub: Callable[[str], Children], tmp_path: Path) -> None:
    with pytest.raises(app.UsageError) as caught:
        stub("import sys\nfor k in range(500): print('line', k)\nsys.exit(1)").train("a.py", {}, str(tmp_path / "m/run"))
    assert "line 499" in str(caught.value) and "line 480" not in str(caught.value)


PROGRESS = """
import sys, time
from pathlib import Path
run = Path([one for one in sys.argv if one.startswith("--workdir=")][0].partition("=")[2])
time.sleep(0.5)
run.mkdir(parents=True, exist_ok=True)
with open(run / "metrics.jsonl", "w") as file:
    for line in ('{"step": 1200, "loss": 1.23456, "tokens_per_second": 5012.3}\\n', '{"step": 1300, "lo'):
        file.write(line)
        file.flush()
        time.sleep(0.8)
    file.write('ss": 1.1}\\n')
"""


def test_training_tells_how_it_goes_on(
    stub: Callable[[str], Children], tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while a line of the metrics is being written."""
    monkeypatch.setattr(children, "TELL_S", 0.1)
    stub(PROGRESS).train("a.py", {}, str(tmp_path / "m/run"))
    assert said[0].strip().startswith("preparing; the log: ") and any(
        "step 1,200: loss 1.235, tokens per second 5012" in line for line in said
    )


# --- serve --------------------------------------------------------------------------------------------------------------


def test_a_server_answers_within_the_block_and_is_gone_afterwards(
    stub: Callable[[str], Children], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLOW", "0.3")
    with stub(SERVER).serve(str(tmp_path / "generator-1/run"), "generator", 8) as url:
        assert url.startswith("http://127.0.0.1:") and url.endswith("/v1")
        with urlopen(url.removesuffix("/v1")) as reply:
            assert reply.status == 200
        pid = pid_in(tmp_path / "logs")
        os.kill(pid, 0)
    assert is_gone(pid, 0.5)


def test_a_server_is_gone_after_an_error_too(stub: Callable[[str], Children], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), stub(SERVER).serve(str(tmp_path / "m/run"), "generator", 8):
        pid = pid_in(tmp_path / "logs")
        raise KeyboardInterrupt
    assert is_gone(pid, 0.5)


def test_a_server_that_does_not_stop_when_asked_is_killed(
    stub: Callable[[str], Children], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "STOP_S", 0.3)
    with stub(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SERVER}").serve(str(tmp_path / "m/run"), "g", 8):
        pid = pid_in(tmp_path / "logs")
    assert is_gone(pid, 0.5)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "print('error: --model=x is no run directory', file=sys.stderr); sys.exit(2)",
            "did not start: --model=x is no run directory; the log",
        ),
        ("print('loading'); raise MemoryError('no room')", "did not start: (?s:.*)MemoryError: no room; the log"),
        ("", "did not start: it said nothing"),
    ],
)
def test_a_server_that_ends_before_it_is_ready(stub: Callable[[str], Children], tmp_path: Path, program: str, words: str) -> None:
    began = time.monotonic()
    with pytest.raises(app.UsageError, match=words), stub(f"import sys; {program}").serve(str(tmp_path / "m/run"), "g", 8):
        raise AssertionError("there is no server")
    assert time.monotonic() - began < 5


def test_a_server_that_never_says_it_is_ready(
    stub: Callable[[str], Children], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "START_S", 0.6)
    waiting = "import os, time; print('pid', os.getpid(), flush=True); time.sleep(60)"
    with (
        pytest.raises(app.UsageError, match="did not start within 0.6 s; the log"),
        stub(waiting).serve(str(tmp_path / "m/run"), "g", 8),
    ):
        raise AssertionError("there is no server")
    assert is_gone(pid_in(tmp_path / "logs"), 0.5)


DRIVER = """
import sys, time
sys.path.insert(0, sys.argv[3])
from launch import children
children._program = lambda name: [sys.executable, sys.argv[1], name]
with children.Children(sys.argv[2], print).serve("m/run", "generator", 8) as url:
    print(url, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_child_outlives_its_parent(tmp_path: Path, how: signal.Signals) -> None:
    """Killed, it can do nothing about its server; interrupted, it stops it."""
    (tmp_path / "stub.py").write_text(SERVER)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path / "stub.py"), str(tmp_path / "logs"), str(ROOT)], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert driver.stdout and driver.stdout.readline().startswith("http://127.0.0.1:")
        pid = pid_in(tmp_path / "logs")
        driver.send_signal(how)
        assert is_gone(pid)
    finally:
        driver.kill()
        driver.communicate()


# --- evaluate, and what children are told of their surroundings ---------------------------------------------------------


def test_evaluate_reads_the_last_line(stub: Callable[[str], Children], tmp_path: Path) -> None:
    program = "import json, sys; print('warming up'); print(json.dumps({'loss': 3.5, 'asked': sys.argv[1:]}))"
    found: dict[str, Any] = stub(program).evaluate("m/run", "data")
    flags = ["--model=m/run", "--data=data", "--json", "--dtype=float32", "--step=latest"]
    assert found["loss"] == 3.5 and found["asked"] == ["evaluate", *flags]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('error: no shards there', file=sys.stderr); sys.exit(2)", "evaluating m/run stopped: no shards there; the log"),
        ("raise RuntimeError('out of memory')", "(?s:.*)RuntimeError: out of memory; the log"),
    ],
)
def test_an_evaluation_that_fails(stub: Callable[[str], Children], program: str, words: str) -> None:
    with pytest.raises(app.UsageError, match=words):
        stub(f"import sys; {program}").evaluate("m/run", "data")


def test_programs_compiled_for_one_child_serve_the_next(
    stub: Callable[[str], Children], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody has said otherwise."""
    program = "import json, os; print(json.dumps({'cache': os.environ['JAX_COMPILATION_CACHE_DIR']}))"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert stub(program).evaluate("m/run", "data") == {"cache": str(tmp_path / "logs/compiled")}
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    assert stub(program).evaluate("m/run", "data") == {"cache": "/elsewhere"}


def test_the_texts_of_a_tiny_base(stub: Callable[[str], Children], tmp_path: Path) -> None:
    program = "import json, sys; open('OUT', 'w', encoding='utf-8').write(json.dumps([json.loads(line) for line in sys.stdin]))"
    texts = ["پہلی سطر\nدوسری سطر", "पानी", 'a "b"', ""]
    stub(program.replace("OUT", str(tmp_path / "out.json"))).tiny_base(str(tmp_path / "base"), iter(texts))
    assert json.loads((tmp_path / "out.json").read_text()) == texts
    with pytest.raises(app.UsageError, match="tiny base could not be made: no texts"):
        stub("import sys; sys.stdin.read(); print('error: no texts', file=sys.stderr); sys.exit(2)").tiny_base("base", [])
