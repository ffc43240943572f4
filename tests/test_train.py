"""fit: resume to the bit, resume on another mesh, a kill, and what may not be resumed."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.checkpoint import latest_step, load_trainables
from alif_jax.data.template import DataConfig
from alif_jax.load import ModelSource, load_model
from alif_jax.lora import EMBEDDINGS, LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.train import TrainConfig, fit
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `base` and `data`."""
    path = tmp_path_factory.mktemp("train")
    tiny.make_base(path / "base")
    tiny.make_shards(path / "data", tiny.conversations(60))
    return path


def config(place: Path, **changes: Any) -> TrainConfig:
    """6 steps of LoRA with embeddings and head on fsdp 8; a checkpoint every 3."""
    fields: dict[str, Any] = {
        "model": ModelSource(path=str(place / "base"), dtype="float32", param_dtype="float32", remat="none"),
        "lora": LoraConfig(rank=4, alpha=16.0, modules_to_save=EMBEDDINGS),
        "data": DataConfig(path=str(place / "data"), sequence_length=128, template="turns"),
        "optim": OptimConfig(learning_rate=1e-2, warmup_steps=2),
        "mesh": MeshConfig(fsdp=8),
        "batch_size": 8,
        "max_steps": 6,
        "save_steps": 3,
        "logging_steps": 1,
    }
    return TrainConfig(**(fields | changes))


def rows(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The run of 6 steps without interruption."""
    fit(config(place), str(place / "whole"), resume=True)  # there is nothing yet: --resume starts fresh
    return place / "whole"


def killed_after(whole: Path, workdir: Path, step: int) -> None:
    """What the run would have left, had it been killed before its next checkpoint but one step later."""
    shutil.copytree(whole, workdir)
    for path in (workdir / "checkpoints").iterdir():
        if path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path)
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text("".join(lines[: step + 1]))


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = load_trainables(str(one)), load_trainables(str(other))
    assert a.keys() == b.keys() and "embed_tokens.embedding" in a
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_loss_falls_and_metrics_are_complete(whole: Path) -> None:
    lines = rows(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "tokens", "tokens_per_second", "grad_norm", "learning_rate"} <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    assert "heldout_loss" in lines[-1]
    assert json.loads((whole / "config.json").read_text())["lora"]["rank"] == 4
    assert list((whole / "tensorboard").glob("events*"))


def test_three_steps_and_a_resume_equal_six(place: Path, whole: Path) -> None:
    workdir = place / "resumed"
    killed_after(whole, workdir, 3)
    assert latest_step(str(workdir)) == 3
    fit(config(place), str(workdir), resume=True)
    assert_same_bits(whole, workdir)
    timeless = [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows(workdir)]
    assert timeless == [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows(whole)]


def test_resume_on_another_mesh(place: Path, whole: Path) -> None:
    """8 devices with fsdp, then 4 with tensor 2: the same within rounding."""
    workdir = place / "moved"
    killed_after(whole, workdir, 3)
    smaller = config(place, mesh=MeshConfig(data=2, fsdp=1, tensor=2))
    devices = jax.devices()
    original, jax.devices = jax.devices, lambda *args: devices[:4]  # type: ignore[assignment]
    try:
        fit(smaller, str(workdir), resume=True)
    finally:
        jax.devices = original
    a, b = load_trainables(str(whole)), load_trainables(str(workdir))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-5, err_msg=name)


def test_a_killed_run_continues_with_the_same_command(place: Path, whole: Path) -> None:
    workdir = place / "killed"
    recipe = place / "recipe.py"
    recipe.write_text(
        "from tests.test_train import config\nfrom pathlib import Path\n"
        f"def get_config(arg=''):\n    return config(Path({str(place)!r}))\n"
    )
    command = [sys.executable, "launch/train.py", f"--config={recipe}", f"--workdir={workdir}", "--resume"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert_same_bits(whole, workdir)
    assert [row["step"] for row in rows(workdir)] == [1, 2, 3, 4, 5, 6]


def test_an_existing_run_needs_resume(place: Path, whole: Path) -> None:
    before = sorted(path.name for path in whole.rglob("*"))
    with pytest.raises(UsageError, match="--resume"):
        fit(config(place), str(whole))
    assert sorted(path.name for path in whole.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "named"),
    [({"lora": LoraConfig(rank=8, alpha=16.0, modules_to_save=EMBEDDINGS)}, "lora.rank"),
     ({"lora": LoraConfig(rank=4, alpha=8.0, modules_to_save=EMBEDDINGS)}, "lora.alpha"),
     ({"lora": LoraConfig(rank=4, alpha=16.0)}, "lora.modules_to_save")],
)  # fmt: skip
def test_resume_with_a_changed_config_is_refused(place: Path, whole: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        fit(config(place, **change), str(whole), resume=True)


def test_restore_compares_the_tree_itself(place: Path, whole: Path) -> None:
    """A config.json that agrees does not help a checkpoint of another shape."""
    workdir = place / "forged"
    fit(config(place, lora=LoraConfig(rank=2, alpha=16.0, modules_to_save=EMBEDDINGS), max_steps=1), str(workdir))
    saved = json.loads((workdir / "config.json").read_text())
    saved["lora"]["rank"] = 4
    (workdir / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UsageError, match=r"lora_A is float32\[2, 96, 2\].*float32\[2, 96, 4\] expected"):
        fit(config(place), str(workdir), resume=True)


def test_a_finished_run_resumed_does_nothing(place: Path, whole: Path) -> None:
    lines = rows(whole)
    fit(config(place), str(whole), resume=True)
    assert rows(whole) == lines


def test_init_from_continues_another_run(place: Path, whole: Path) -> None:
    source = config(place)
    source.model = dataclasses.replace(source.model, init_from=str(whole))
    source.optim = OptimConfig(learning_rate=1e-30)
    source.max_steps = 1
    fit(source, str(place / "continued"))
    a, b = load_trainables(str(whole)), load_trainables(str(place / "continued"))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    source.lora = dataclasses.replace(source.lora, alpha=1.0)
    with pytest.raises(UsageError, match="init_from"):
        fit(source, str(place / "refused"))
    assert not (place / "refused" / "config.json").exists()


def test_nothing_fits_a_row(place: Path) -> None:
    short = config(place)
    short.data = dataclasses.replace(short.data, sequence_length=8)
    with pytest.raises(UsageError, match="no example to train on .*'self_instruct': 54"):
        fit(short, str(place / "bad"))
    assert not (place / "bad").exists()


def test_full_training_from_random_weights(place: Path) -> None:
    full = config(place, lora=LoraConfig(full=True), max_steps=2)
    full.model = dataclasses.replace(full.model, random_init=True)
    fit(full, str(place / "full"))
    loaded = load_model(str(place / "full"), make_mesh(MeshConfig()))
    assert set(loaded.params) == set(loaded.skeleton.trainable) and not loaded.skeleton.frozen


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batch_size": 12}, "multiple of 8"),
     ({"batch_size": 6, "gradient_accumulation_steps": 4}, "multiple of gradient_accumulation_steps"),
     ({"gradient_accumulation_steps": 0}, "at least 1"),
     ({"model": ModelSource(attention="splash")}, "model.attention='splash'"),
     ({"mesh": MeshConfig(fsdp=3)}, "does not fit 8"),
     ({"mesh": MeshConfig(fsdp=1, tensor=8)}, "cannot be divided"),
     ({"model": ModelSource(path="/nowhere")}, "/nowhere")],
)  # fmt: skip
def test_bad_configs(place: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(config(place, **change), str(place / "bad"))
    assert not (place / "bad").exists()
