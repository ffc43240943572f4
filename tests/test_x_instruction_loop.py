"""The whole X-Instruction loop with real children: models of random weights, trained, served and asked about the sample. Slow."""

import gzip
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
PARTS = ("forward", "evaluator", "sft")  # the generator must learn to come to an end
SMALL = [
    *(f"--config.{part}.recipe=configs/x_instruction_tiny.py:{part},quick" for part in PARTS),
    "--config.generate.documents=12", "--config.diversify.clusters=2", "--config.diversify.target=6", "--config.rate.keep=0.05",
    "--config.generate.max_tokens=16", "--config.rate.forward_tokens=32", "--config.sft.answers=2", "--config.sft.answer_tokens=16",
]  # fmt: skip


def command(workdir: Path, *more: str) -> list[str]:
    program = str(ROOT / "launch/x_instruction.py")
    return [sys.executable, program, "--config=configs/x_instruction.py:tiny", f"--workdir={workdir}", *SMALL, *more]


def env() -> dict[str, str]:
    """As a user's: one device."""
    return {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}


def outcome(workdir: Path) -> dict[str, bytes]:
    rows = {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(workdir.glob("*/*.jsonl.gz"))}
    return rows | {path.name: path.read_bytes() for path in sorted((workdir / "data").glob("*.tfrecord"))}


def children(parent: int) -> list[int]:
    """Processes that have a parent, by the system's own list."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(path.parent.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="children die with their parent on Linux")
def test_the_real_loop_killed_at_random_moments_ends_as_one_that_was_not(tmp_path: Path) -> None:
    """Ten kills of the driver at random moments; its children are gone with it."""
    began = time.monotonic()
    done = subprocess.run(command(tmp_path / "whole"), cwd=ROOT, env=env(), capture_output=True, text=True)
    whole_s = time.monotonic() - began
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    rng, kills = random.Random(0), 0
    for _ in range(40):
        process = subprocess.Popen(
            command(tmp_path / "killed"), cwd=ROOT, env=env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(rng.uniform(5, whole_s / 5))
            break
        except subprocess.TimeoutExpired:
            below = children(process.pid)
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            time.sleep(0.5)
            assert not [
                pid
                for pid in below
                if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
            ]
        if kills == 10:
            process = subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT, env=env())
            process.wait()
            break
    assert process.returncode == 0 and kills >= 5
    one, other = outcome(tmp_path / "whole"), outcome(tmp_path / "killed")
    assert one.keys() == other.keys() and [name for name in one if one[name] != other[name]] == []
    with gzip.open(tmp_path / "whole/audit/ur.jsonl.gz", "rt") as file:
        assert len(file.readlines()) == 6
    assert re.search(r"\| x_instruction \| loss \| hi \d\.\d+, ur \d\.\d+", (tmp_path / "whole/report.md").read_text())
