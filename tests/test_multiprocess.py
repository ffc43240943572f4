"""Two processes of 4 CPU devices over loopback do what one process of 8 does, through launch/train.sh."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alif_jax.checkpoint import latest_step, load_trainables
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
from pathlib import Path
from tests.test_train import config
def get_config(arg=""):
    recipe = config(Path({place!r}))
    recipe.max_steps = int(arg)
    recipe.num_samples, recipe.sample_max_new_tokens = (2 if arg == "2" else 0), 4  # by two processes
    recipe.lora.dropout = 0.1
    recipe.optim.learning_rate = 1e-3
    recipe.optim.lr_scheduler_type = "constant"  # so that a run may be continued for longer than it was planned
    return recipe
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("processes")
    tiny.make_base(path / "base")
    tiny.make_shards(path / "data", tiny.conversations(60))
    (path / "recipe.py").write_text(RECIPE.format(place=str(path)))
    return path


def start(place: Path, workdir: str, *, processes: int, index: int, port: int, steps: int) -> "subprocess.Popen[str]":
    environment = os.environ | {
        "ALIF_PYTHON": sys.executable,
        "ALIF_ACCELERATOR": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // processes}",
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(processes),
        "JAX_PROCESS_ID": str(index),
    }
    flags = [f"--config={place / 'recipe.py'}:{steps}", f"--workdir={place / workdir}", "--resume"]
    command = ["bash", "launch/train.sh", *flags]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(place: Path, workdir: str, *, processes: int, steps: int) -> None:
    port = free_port()
    started = [start(place, workdir, processes=processes, index=i, port=port, steps=steps) for i in range(processes)]
    for process in started:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output


def rows(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_two_processes_equal_one_and_change_hands(place: Path) -> None:
    """6 steps of one process; and 2 of two, 2 more of one, the last 2 of two again. The same losses and weights."""
    run(place, "one", processes=1, steps=6)
    for processes, steps in ((2, 2), (1, 4), (2, 6)):
        run(place, "changing", processes=processes, steps=steps)
    one, changing = rows(place / "one"), rows(place / "changing")
    assert [row["step"] for row in changing] == [1, 2, 3, 4, 5, 6]  # one metrics.jsonl, each step once
    np.testing.assert_allclose([row["loss"] for row in changing], [row["loss"] for row in one], rtol=2e-6)
    np.testing.assert_allclose(changing[-1]["heldout_loss"], one[-1]["heldout_loss"], rtol=2e-6)
    assert changing[1]["sample_stop_rate"] in (0, 0.5, 1)
    a, b = load_trainables(str(place / "one")), load_trainables(str(place / "changing"))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=name)


def two_at_work(place: Path, workdir: str) -> list["subprocess.Popen[str]"]:
    """Two processes of an endless run, after its second step."""
    port = free_port()
    both = [start(place, workdir, processes=2, index=i, port=port, steps=100_000) for i in range(2)]
    metrics = place / workdir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2) and time.monotonic() < deadline:
        time.sleep(0.1)
    return both


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both(place: Path) -> None:
    """They agree on the step, save it together, and one process of all 8 devices goes on from it."""
    both = two_at_work(place, "preempted")
    subprocess.run(["kill", "-TERM", str(both[1].pid)], check=True)
    for process in both:
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 75, output
    done = latest_step(str(place / "preempted"))
    assert done is not None and done == rows(place / "preempted")[-1]["step"]
    run(place, "preempted", processes=1, steps=done + 1)
    assert [row["step"] for row in rows(place / "preempted")] == list(range(1, done + 2))


@pytest.mark.slow
def test_a_process_whose_peer_is_killed_ends(place: Path) -> None:
    both = two_at_work(place, "killed")
    both[1].send_signal(signal.SIGKILL)
    killed_at = time.monotonic()
    output, _ = both[0].communicate(timeout=90)
    assert both[0].returncode not in (0, None), output
    assert time.monotonic() - killed_at <= 60
    both[1].wait()
