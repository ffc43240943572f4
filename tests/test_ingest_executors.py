"""The ingest in processes of its own: a pool on this machine, a driver that is killed, Slurm by a stand-in, and Ray. What comes out
is compared with an ingest in this process.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_gen.ingest import run
from data_gen.ingest_config import IngestConfig
from data_gen.ingest_executors import Stage, workers_of
from tests import ingest_corpus
from tests.test_ingest import config_of, in_order, ingest, lines

ROOT = Path(__file__).resolve().parents[1]
# Python imports this before anything else; every process that does leaves its number, and every look beyond this machine a file.
GUARD = """
import os, socket
HERE = {here!r}
open(f"{{HERE}}/pid-{{os.getpid()}}", "w").close()

def refuse(address):
    if isinstance(address, tuple) and not str(address[0]).startswith(("127.", "localhost", "::1")):
        open(f"{{HERE}}/reached-{{address[0]}}", "w").close()
        raise RuntimeError(f"the network is closed: {{address}}")

for name in ("connect", "connect_ex"):
    def guarded(self, address, original=getattr(socket.socket, name)):
        refuse(address)
        return original(self, address)
    setattr(socket.socket, name, guarded)

def names(host, *rest, original=socket.getaddrinfo, **more):
    refuse((host or "localhost",))
    return original(host, *rest, **more)

socket.getaddrinfo = names
"""
# A reader that does not come back in task 2, and a driver with it.
SLOW = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from data_gen import ingest
from data_gen.ingest_config import IngestConfig
from data_gen.ingest_readers import _Jsonl

class Slow(_Jsonl):
    def run(self, data=None, rank=0, world_size=1):
        if rank == 2:
            Path({here!r}, "begun").write_text(str(os.getpid()))
            time.sleep(120)
        yield from super().run(data, rank, world_size)

def slow(config, original=ingest._reader):
    real = original(config)
    return Slow(real.data_folder, real.files, real.origin)

if __name__ == "__main__":
    sys.modules["slow"] = sys.modules["__main__"]
    Slow.__module__ = "slow"
    ingest._reader = slow
    ingest.run(IngestConfig(input={corpus!r}, licence="CC0 1.0", tasks=3, workers=2), {workdir!r})
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ingest_corpus.write(tmp_path_factory.mktemp("corpus"), ingest_corpus.pages(40))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """An ingest in this process."""
    workdir = tmp_path_factory.mktemp("alone")
    ingest(workdir, corpus)
    return workdir


def assert_same(workdir: Path, other: Path) -> None:
    for folder in ("documents", "removed"):
        assert in_order(lines(workdir, folder)) == in_order(lines(other, folder))


def start(*args: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "launch/ingest.py", *args]
    return subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=240)


# --- this machine ---------------------------------------------------------------------------------------------------------


def test_the_command_with_a_pool_and_without_network(tmp_path: Path, corpus: Path, alone: Path) -> None:
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/sitecustomize.py").write_text(GUARD.format(here=str(tmp_path / "guard")))
    asked = tmp_path / "asked.txt"
    asked.write_text("ایک دو تین چار پانچ چھ سات آٹھ نو دس گیارہ بارہ تیرہ چودہ", encoding="utf-8")
    done = start(
        f"--config.input={corpus}", "--config.licence=CC0 1.0", "--config.tasks=3", "--config.workers=2",
        f"--config.decontaminate={asked}", f"--workdir={tmp_path}/w", PYTHONPATH=str(tmp_path / "guard"),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    assert [line.split()[0] for line in said[:4]] == ["clean", "choose", "write", "finish"]
    assert re.fullmatch(r"clean   3 tasks, [\d.]+ s: 50 pages, 42 stay", said[0])
    assert_same(tmp_path / "w", alone)
    left = [file.name for file in (tmp_path / "guard").iterdir()]
    assert not [name for name in left if name.startswith("reached")]
    assert len([name for name in left if name.startswith("pid-")]) >= 2  # the guard is where the workers are


def test_a_killed_run_goes_on(tmp_path: Path, corpus: Path, alone: Path) -> None:
    (tmp_path / "slow.py").write_text(
        SLOW.format(root=str(ROOT), here=str(tmp_path), corpus=str(corpus), workdir=str(tmp_path / "w"))
    )
    driver = subprocess.Popen([sys.executable, "slow.py"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    completed = tmp_path / "w/logs/clean/completions"
    wait_for(lambda: (tmp_path / "begun").exists() and completed.is_dir() and len(os.listdir(completed)) == 2)
    worker = int((tmp_path / "begun").read_text())
    assert worker != driver.pid
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not alive(worker))  # or it would write the files of the next start
    said: list[str] = []
    run(config_of(corpus, tasks=3), str(tmp_path / "w"), say=said.append)
    assert said[0].startswith("clean   1 task of 3")
    assert_same(tmp_path / "w", alone)


@pytest.mark.slow
def test_a_worker_that_the_system_kills_is_told(tmp_path: Path, corpus: Path) -> None:
    slow = SLOW.format(root=str(ROOT), here=str(tmp_path), corpus=str(corpus), workdir=str(tmp_path / "w"))
    (tmp_path / "slow.py").write_text(slow.replace("time.sleep(120)", "os.kill(os.getpid(), 9)"))
    done = subprocess.run([sys.executable, "slow.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "UsageError: a task was killed from outside" in done.stderr.splitlines()[-1]


def wait_for(what: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not what():
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_an_error_of_use_is_one_line(tmp_path: Path, executor: str) -> None:
    if executor == "ray":
        pytest.importorskip("ray")
    persian = [{"text": f"{ingest_corpus.PERSIAN} شمارهٔ {n}."} for n in range(120)]
    source = ingest_corpus.write(tmp_path / "c", persian, files=2)
    done = start(
        f"--config.input={source}", "--config.licence=MIT", "--config.tasks=2", f"--config.executor={executor}",
        "--config.memory_gb=1", f"--workdir={tmp_path}/w",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    said = r"error: --config.input=\S+ is not in urd_Arab: of 60 .* \(task 0; 2 of 2 tasks stopped .*\)\n"
    assert re.fullmatch(said, done.stderr)


@pytest.mark.slow
def test_a_stop_is_said(tmp_path: Path, corpus: Path, alone: Path) -> None:
    slow = SLOW.format(root=str(ROOT), here=str(tmp_path), corpus=str(corpus), workdir=str(tmp_path / "w"))
    (tmp_path / "slow.py").write_text(slow.replace("ingest.run(", "from launch import app; app.stop_as_interrupt(); ingest.run("))
    driver = subprocess.Popen([sys.executable, "slow.py"], cwd=tmp_path, stderr=subprocess.PIPE)
    wait_for((tmp_path / "begun").exists)
    driver.send_signal(signal.SIGTERM)
    assert b"KeyboardInterrupt" in driver.communicate(timeout=30)[1]
    wait_for(lambda: not alive(int((tmp_path / "begun").read_text())))
    run(config_of(corpus, tasks=3), str(tmp_path / "w"), say=lambda line: None)
    assert_same(tmp_path / "w", alone)


def test_workers_are_as_many_as_there_are_tasks_and_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 7})
    stage = Stage("clean", [], 8)
    asked = {(executor, workers): workers_of(stage, IngestConfig(executor=executor, workers=workers))  # type: ignore[arg-type]
             for executor in ("local", "ray", "slurm") for workers in (-1, 5, 20)}  # fmt: skip
    assert [asked["local", workers] for workers in (-1, 5, 20)] == [3, 5, 8]
    assert [asked["ray", workers] for workers in (-1, 5, 20)] == [8, 5, 8]
    assert [asked["slurm", workers] for workers in (-1, 5, 20)] == [-1, 5, 20]


# --- clusters -------------------------------------------------------------------------------------------------------------

# sbatch: notes its options and the script's, runs the tasks of the array if told to, and gives a number. A job that waits for one
# that failed is not run.
SBATCH = """#!{python}
import json, os, re, subprocess, sys
here, options, path = {here!r}, sys.argv[1:-1], sys.argv[-1]
script = open(path).read()
said = dict(re.findall(r"#SBATCH --([\\w-]+)(?:=(.*))?", script))
said |= dict(option[2:].split("=", 1) for option in options)
number = 100 + len([name for name in os.listdir(here) if name.startswith("job-")])
failed = [n for n in re.findall(r"\\d+", said.get("dependency", "")) if os.path.exists(f"{{here}}/failed-{{n}}")]
json.dump(said | {{"script": script}}, open(f"{{here}}/job-{{number}}", "w"))
last = int(re.match(r"0-(\\d+)", said["array"])[1])
for task in range(last + 1) if {runs} and not failed and "launch_pickled" in script else ():
    env = os.environ | {{"SLURM_ARRAY_TASK_ID": str(task), "SLURM_NODELIST": "n1", "SLURM_JOB_ID": "1", "RUN_OFFSET": "0"}}
    log = said["output"].replace("%A", str(number)).replace("%a", str(task))
    if subprocess.run(["bash", path], env=env, stdout=open(log, "w"), stderr=subprocess.STDOUT).returncode:
        failed.append(task)
if failed:
    open(f"{{here}}/failed-{{number}}", "w").close()
print("Submitted batch job", number)
"""


def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, runs: bool) -> Path:
    """A directory with sbatch, srun and scontrol that comes first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(SBATCH.format(python=sys.executable, here=str(folder), runs=runs))
    (folder / "srun").write_text('#!/bin/bash\nwhile [[ "$1" == -* ]]; do [[ "$1" == -n ]] && shift; shift; done\nexec "$@"\n')
    (folder / "scontrol").write_text("#!/bin/bash\necho n1\n")
    for file in folder.iterdir():
        file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


def slurm_config(corpus: Path, tasks: int) -> IngestConfig:
    config = config_of(corpus, tasks=tasks, workers=-1, executor="slurm", memory_gb=3)
    config.slurm.partition, config.slurm.arguments = "cpu", ("account=lab",)
    return config


def test_slurm_is_given_four_jobs_in_a_row(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = slurm(tmp_path, monkeypatch, runs=False)
    said: list[str] = []
    assert run(slurm_config(corpus, 3), str(tmp_path / "w"), say=said.append) is None
    noted = {file.name: json.loads(file.read_text()) for file in sorted(folder.glob("job-*"))}
    jobs = {name: job for name, job in noted.items() if "launch_pickled" in job["script"]}
    assert [job["job-name"] for job in jobs.values()] == ["ingest_clean", "ingest_choose", "ingest_write", "ingest_finish"]
    assert [job["array"] for job in jobs.values()] == ["0-2", "0-0", "0-2", "0-0"]
    before = [None, *(f"afterok:{name.removeprefix('job-')}" for name in jobs)]
    assert [job.get("dependency") for job in jobs.values()] == before[:4]
    first = next(iter(jobs.values()))
    assert (first["partition"], first["account"], first["mem-per-cpu"], first["kill-on-invalid-dep"]) == ("cpu", "lab", "3G", "yes")
    assert f"PYTHONPATH={ROOT}" in first["script"] and "qos" not in first
    assert said[0] == "clean   job 100, 3 tasks" and "manifest.json" in said[-1]


@pytest.mark.slow
def test_slurm_makes_the_same_documents(
    tmp_path: Path, corpus: Path, alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(tmp_path, monkeypatch, runs=True)
    assert run(slurm_config(corpus, 3), str(tmp_path / "w"), say=lambda line: None) is None
    assert_same(tmp_path / "w", alone)
    said: list[str] = []
    assert run(slurm_config(corpus, 3), str(tmp_path / "w"), say=said.append)
    assert said == [f"{tmp_path}/w is finished"]


@pytest.mark.slow
def test_slurm_stops_at_a_fault_and_goes_on(tmp_path: Path, alone: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm(tmp_path, monkeypatch, runs=True)
    source = ingest_corpus.write(tmp_path / "c", ingest_corpus.pages(40))
    whole = (source / "1.jsonl").read_bytes()
    (source / "1.jsonl").write_bytes(b"[]\n")
    run(slurm_config(source, 3), str(tmp_path / "w"), say=lambda line: None)
    assert not (tmp_path / "w/logs/choose/completions").exists()
    (source / "1.jsonl").write_bytes(whole)
    said: list[str] = []
    run(slurm_config(source, 3), str(tmp_path / "w"), say=said.append)
    assert said[0].startswith("stopped before: ") and "1.jsonl begins with" in said[0]
    assert [row["text"] for row in lines(tmp_path / "w", "documents")]
    assert len(lines(tmp_path / "w", "documents")) == len(lines(alone, "documents"))


@pytest.mark.slow
def test_ray_makes_the_same_documents(tmp_path: Path, corpus: Path, alone: Path) -> None:
    pytest.importorskip("ray")
    done = start(
        f"--config.input={corpus}", "--config.licence=CC0 1.0", "--config.tasks=4", "--config.executor=ray",
        "--config.memory_gb=1", f"--workdir={tmp_path}/w",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"clean   4 tasks, [\d.]+ s: 50 pages, 42 stay\n", done.stdout)
    assert_same(tmp_path / "w", alone)
