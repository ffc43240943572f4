"""SIGKILL at ten random moments, some of them inside a save: the run that was killed ends with the bits of one that was not."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alif_jax.checkpoint import finished_steps
from tests import tiny
from tests.test_train import ROOT, assert_same_bits, rows, timeless

STEPS = 60
KILLS = 10
RECIPE = """
from pathlib import Path
from tests.test_train import config

def get_config(arg=""):
    recipe = config(Path({place!r}), max_steps={steps}, save_steps=2, eval_steps=3)
    recipe.optim.learning_rate = 1e-3
    return recipe
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kill")
    tiny.make_base(path / "base")
    tiny.make_shards(path / "data", tiny.conversations(60))
    (path / "recipe.py").write_text(RECIPE.format(place=str(path), steps=STEPS))
    return path


def start(place: Path, workdir: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "launch/train.py", f"--config={place / 'recipe.py'}", f"--workdir={workdir}", "--resume"]
    with open(place / "output.log", "ab") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)


def wait(process: "subprocess.Popen[bytes]", until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while process.poll() is None and not until() and time.monotonic() < deadline:
        time.sleep(0.0005)
    assert time.monotonic() < deadline


def inside_a_save(workdir: Path) -> bool:
    """Whether a checkpoint is half written: its directory is there under its temporary name."""
    checkpoints = workdir / "checkpoints"
    return checkpoints.is_dir() and any("tmp" in entry.name for entry in os.scandir(checkpoints))


def newest(workdir: Path) -> int:
    checkpoints = workdir / "checkpoints"
    if not checkpoints.is_dir():
        return 0
    return max((int(entry.name) for entry in os.scandir(checkpoints) if entry.name.isdigit()), default=0)


def one_attempt(place: Path, workdir: Path, chance: random.Random, kill_in_save: bool) -> str:
    """Starts or continues the run and kills it: in a save, or at a random time after its first new step. What it did, in words."""
    before, lines = newest(workdir), (workdir / "metrics.jsonl")
    written = lines.stat().st_mtime_ns if lines.exists() else 0
    process = start(place, workdir)
    try:
        if kill_in_save:
            skipped = chance.randrange(3)  # saves of this attempt that are let pass
            wait(process, lambda: newest(workdir) >= before + 2 * skipped and inside_a_save(workdir))
        else:
            wait(process, lambda: lines.exists() and lines.stat().st_mtime_ns > written and newest(workdir) > before)
            time.sleep(chance.random() * 0.3)
    finally:
        half_written = inside_a_save(workdir)
        process.kill()
        process.wait()
    return f"from {before}, killed at {newest(workdir)}{' inside a save' if half_written else ''} ({process.returncode})"


@pytest.mark.slow
def test_ten_kills_change_nothing(place: Path) -> None:
    undisturbed = start(place, place / "whole")
    assert undisturbed.wait(timeout=600) == 0, (place / "output.log").read_text()

    seed = random.SystemRandom().randrange(10**6)
    chance, workdir = random.Random(seed), place / "killed"
    kinds = [True] * (KILLS // 2) + [False] * (KILLS - KILLS // 2)
    chance.shuffle(kinds)
    attempts = [one_attempt(place, workdir, chance, kind) for kind in kinds]
    told = f"seed {seed}: {attempts}"
    assert any("inside a save" in attempt for attempt in attempts), told
    assert all("(-9)" in attempt for attempt in attempts), told  # none was complete before it could be killed
    final = start(place, workdir)
    assert final.wait(timeout=600) == 0, told + (place / "output.log").read_text()
    try:
        assert_same_bits(place / "whole", workdir)
        assert timeless(workdir) == timeless(place / "whole") and len(rows(workdir)) == STEPS
        assert finished_steps(str(workdir)) == finished_steps(str(place / "whole"))  # the same best one is kept
        assert not inside_a_save(workdir)
    except AssertionError as error:
        raise AssertionError(told) from error
    print(told)
