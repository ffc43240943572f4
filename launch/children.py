"""The child processes of a data recipe that trains and serves models: one at a time has the accelerator, none outlives its parent.

`Children(directory, say)` is what data_gen.x_instruction asks for (its work.Children). Not an entry point.
"""

import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from launch import app

START_S = 1800.0  # of a server: loading and compiling an 8B model takes minutes
STOP_S = 60.0  # until a child that was asked to stop is killed
TELL_S = 30.0  # between two lines about a training run
TAIL = 12  # lines of a log that an error shows
_SERVING = re.compile(r"^serving .* at (http://\S+?);", re.MULTILINE)
_PR_SET_PDEATHSIG = 1


class Children:
    """directory: where logs and compiled programs go. say: told how training goes on. serve_command: of another server than
    launch/serve.py, with {model}, {name} and {port}; it is given the merged model.
    """

    def __init__(self, directory: str, say: Callable[[str], None], serve_command: str = "") -> None:
        self._logs, self._say, self._serve_command = Path(directory), say, serve_command
        if serve_command and not shutil.which(shlex.split(serve_command)[0]):  # now, and not after hours of training
            raise app.UsageError(f"serve_command={serve_command!r}: there is no program {shlex.split(serve_command)[0]!r} here")

    def resolve(self, recipes: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The whole training config of each recipe. Raises UsageError for a recipe that is none."""
        command = [*_program("resolve"), *(f"--recipe={recipe}" for recipe in sorted(set(recipes)))]
        done = subprocess.run(command, capture_output=True, text=True, env=self._env())
        if done.returncode:
            raise app.UsageError(_last_error(done.stderr))
        return dict(json.loads(done.stdout))

    def train(self, recipe: str, overrides: Mapping[str, str], workdir: str) -> None:
        """Trains to the end, going on with what is there. Raises UsageError with the end of the log where it fails."""
        flags = [f"--config={recipe}", f"--workdir={workdir}", "--resume", *(f"--config.{k}={v}" for k, v in overrides.items())]
        with self._child([*_program("train"), *flags], f"train {Path(workdir).parent.name}") as (process, log):
            metrics, told = Path(workdir, "metrics.jsonl"), time.monotonic()
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - told > TELL_S:
                    told = time.monotonic()
                    self._say(_progress(metrics, log))
            if process.returncode:
                raise app.UsageError(
                    f"training stopped with exit code {process.returncode}: {_last_error(_read(log))}; the log: {log}"
                )

    @contextmanager
    def serve(self, model: str, name: str, batch_size: int) -> Iterator[str]:
        """A server of a run directory; its URL. It is gone at the end of the block."""
        called = f"serve {Path(model).parent.name}"
        if self._serve_command:
            port = _free_port()
            merged = self._merged(model)
            given = {"{model}": merged, "{name}": name, "{port}": str(port)}
            command = [_filled(part, given) for part in shlex.split(self._serve_command)]
            with self._child(command, called) as (process, log):
                yield _answering(f"http://127.0.0.1:{port}/v1", process, log)
            return
        flags = [f"--model={model}", f"--served_name={name}", "--port=0", f"--batch_size={batch_size}", "--max_queue=4096"]
        with self._child([*_program("serve"), *flags, *_as_trained(model)], called) as (process, log):
            yield _url(process, log)

    def _merged(self, model: str) -> str:
        """The run's merged model, for a server that does not read runs; made once."""
        output = Path(model).parent / "merged"
        if not output.exists():
            step = [flag for flag in _as_trained(model) if flag.startswith("--step")]
            flags = [f"--workdir={model}", "--format=merged", f"--output={output}", "--noverify", *step]
            with self._child([*_program("export"), *flags], f"export {output.parent.name}") as (process, log):
                if process.wait():
                    raise app.UsageError(f"{model} could not be exported: {_last_error(_read(log))}; the log: {log}")
        return str(output)

    def answers(self, data: str) -> Iterator[str]:
        """What is answered in the training records of a directory of shards."""
        with self._child([*_program("resolve"), f"--answers={data}"], "answers", stdout=subprocess.PIPE) as (process, log):
            assert process.stdout
            for line in process.stdout:
                yield json.loads(line)
            if process.wait():
                raise app.UsageError(f"{data} cannot be read: {_last_error(_read(log))}; the log: {log}")

    def evaluate(self, model: str, data: str) -> dict[str, Any]:
        """What launch/evaluate.py says of held-out shards, in the run's own template."""
        flags = [f"--model={model}", f"--data={data}", "--json", *_as_trained(model)]
        with self._child([*_program("evaluate"), *flags], f"evaluate {Path(model).parent.name}", stdout=subprocess.PIPE) as (
            process,
            log,
        ):
            said = process.communicate()[0]
            if process.returncode:
                raise app.UsageError(f"evaluating {model} stopped: {_last_error(_read(log))}; the log: {log}")
        return dict(json.loads(said.strip().splitlines()[-1]))

    def tiny_base(self, directory: str, texts: Iterable[str]) -> None:
        """A tokenizer and a config of a tiny model."""
        lines = "".join(json.dumps(text) + "\n" for text in texts)
        command = [*_program("resolve"), f"--tiny_base={directory}"]
        done = subprocess.run(command, input=lines, capture_output=True, text=True, env=self._env())
        if done.returncode:
            raise app.UsageError(f"the tiny base could not be made: {_last_error(done.stderr)}")

    @contextmanager
    def _child(self, command: list[str], name: str, stdout: int | None = None) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
        """A child in a session of its own, so that Ctrl-C reaches this process alone, which then stops it."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name.replace(' ', '-')}.log"
        with open(log, "w", encoding="utf-8") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout or file, stderr=file, text=True,
                start_new_session=True, env=self._env(), preexec_fn=_with_parent(os.getpid()),
            )  # fmt: skip
        try:
            yield process, log
        finally:
            _stop(process)

    def _env(self) -> dict[str, str]:
        """Programs compiled for one child serve the next one; on this machine alone, for it is this run's directory."""
        cache = {"JAX_COMPILATION_CACHE_DIR": str(self._logs / "compiled")}
        return {**cache, **os.environ, "PYTHONUNBUFFERED": "1"}


def _filled(part: str, given: Mapping[str, str]) -> str:
    """A word of a command with what stands for its placeholders; other braces stay."""
    for placeholder, value in given.items():
        part = part.replace(placeholder, value)
    return part


def _program(name: str) -> list[str]:
    return [sys.executable, str(app.ROOT / "launch" / f"{name}.py")]


def _as_trained(model: str) -> list[str]:
    """How launch/serve.py and launch/evaluate.py read a run: in its precision; the best checkpoint where it measured."""
    config = json.loads(_read(Path(model, "config.json")) or "{}")
    dtype, measured = config.get("model", {}).get("dtype", "float32"), config.get("eval_steps", 0)
    return [f"--dtype={dtype}", f"--step={'best' if measured else 'latest'}"]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answering(url: str, process: "subprocess.Popen[str]", log: Path) -> str:
    """The URL, once its list of models comes."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to this machine
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise app.UsageError(f"the server of serve_command ended: {_last_error(_read(log))}; the log: {log}")
        try:
            with opener.open(f"{url}/models", timeout=5):
                return url
        except OSError:
            time.sleep(0.5)
    raise app.UsageError(f"the server of serve_command did not answer at {url} within {START_S:g} s; the log: {log}")


def _with_parent(parent: int) -> Callable[[], None] | None:
    """What a child does first, on Linux: it asks to be killed when its parent dies, however that dies."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before
            os._exit(1)

    return ask


def _stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with suppress(ProcessLookupError):  # its whole session: a server's workers would keep the accelerator
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()


def _url(process: "subprocess.Popen[str]", log: Path) -> str:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if found := _SERVING.search(_read(log)):
            return found[1]
        if process.poll() is not None:
            raise app.UsageError(f"the server did not start: {_last_error(_read(log))}; the log: {log}")
        time.sleep(0.1)
    raise app.UsageError(f"the server did not start within {START_S:g} s; the log: {log}")


def _progress(metrics: Path, log: Path) -> str:
    lines = _read(metrics).strip().splitlines()
    if not lines:
        return f"  preparing; the log: {log}"
    try:
        last: dict[str, Any] = json.loads(lines[-1])
    except ValueError:  # it is being written
        return f"  training; the log: {log}"
    figures = [f"{name} {last[name]:.4g}" for name in ("loss", "tokens_per_second") if isinstance(last.get(name), float | int)]
    return f"  step {last.get('step', 0):,}: {', '.join(figures)}".replace("_", " ")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _last_error(text: str) -> str:
    """The line that an entry point ends with on an error of use, or the end of the log."""
    lines = text.strip().splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else "\n".join(lines[-TAIL:]) or "it said nothing"
