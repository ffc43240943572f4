"""fit: resume to the bit, resume on another mesh, SIGTERM, what ends a run early, and what may not be resumed."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from alif_jax import UsageError, train
from alif_jax.checkpoint import best_step, finished_steps, latest_step, load_trainables, step_path
from alif_jax.data.template import DataConfig
from alif_jax.evaluate import evaluate_loss
from alif_jax.guards import EXIT_PREEMPTED, NotFinite
from alif_jax.load import ModelSource, load_model, read_run
from alif_jax.lora import EMBEDDINGS, LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.run import describe, keep_compiled, prepare
from alif_jax.samples import heldout_prompts
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.train import TrainConfig, fit
from alif_jax.trained import render_table
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
        "data": DataConfig(path=(str(place / "data"),), sequence_length=128, template="turns"),
        "optim": OptimConfig(learning_rate=1e-2, warmup_steps=2),
        "mesh": MeshConfig(fsdp=8),
        "batch_size": 8,
        "max_steps": 6,
        "save_steps": 3,
        "logging_steps": 1,
        "num_samples": 0,
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
    """Parameters and optimizer state of the newest checkpoints."""
    steps = [latest_step(str(workdir)) for workdir in (one, other)]
    assert steps[0] == steps[1]
    a, b = (ocp.load(step_path(str(workdir), step or 0)) for workdir, step in zip((one, other), steps, strict=True))
    for tree in ("trainable", "optimizer"):
        assert a[tree].keys() == b[tree].keys()
        for name in a[tree]:
            np.testing.assert_array_equal(a[tree][name], b[tree][name], err_msg=f"{tree} {name}")


TIMES = ("tokens_per_second", "mfu")


def timeless(workdir: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows(workdir)]


def test_loss_falls_and_metrics_are_complete(whole: Path) -> None:
    lines = rows(whole)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "tokens", "tokens_per_second", "grad_norm", "learning_rate"} <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.2
    assert "heldout_loss" in lines[-1]
    assert json.loads((whole / "config.json").read_text())["lora"]["rank"] == 4
    assert list((whole / "tensorboard").glob("events*"))


def test_three_steps_and_a_resume_equal_six(place: Path, whole: Path) -> None:
    """To the bit: adapters, embeddings and head trained in full, moments, learning rate, order of the data."""
    workdir = place / "resumed"
    killed_after(whole, workdir, 3)
    assert latest_step(str(workdir)) == 3
    embeddings = load_trainables(str(workdir))["embed_tokens.embedding"]
    fit(config(place), str(workdir), resume=True)
    assert_same_bits(whole, workdir)
    assert timeless(workdir) == timeless(whole)
    assert np.abs(load_trainables(str(workdir))["embed_tokens.embedding"] - embeddings).max() > 1e-3  # they were not frozen


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


RECIPE = """
import os, signal
from pathlib import Path
from alif_jax.recorder import Recorder
from tests.test_train import config

def get_config(arg=""):
    if arg == "preempted":
        dispatched = Recorder.dispatched
        def preempt(self, step, *args):
            dispatched(self, step, *args)
            if step == 4:
                os.kill(os.getpid(), signal.SIGTERM), os.kill(os.getpid(), signal.SIGTERM)
        Recorder.dispatched = preempt
    return config(Path({place!r}))
"""


def test_sigterm_saves_and_ends_with_its_own_code(place: Path, whole: Path) -> None:
    """Twice in a row, as impatient machines send it; the same command with --resume then goes on to the same bits."""
    workdir, recipe = place / "preempted", place / "recipe.py"
    recipe.write_text(RECIPE.format(place=str(place)))
    command = [sys.executable, "launch/train.py", f"--workdir={workdir}", "--resume"]
    ended = subprocess.run([*command, f"--config={recipe}:preempted"], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == EXIT_PREEMPTED == 75, ended.stderr
    assert "SIGTERM: stopped after step 4 of 6, which is saved; --resume" in ended.stderr and "Traceback" not in ended.stderr
    assert latest_step(str(workdir)) == 4
    fit(config(place), str(workdir), resume=True)
    assert_same_bits(whole, workdir)
    assert timeless(workdir) == timeless(whole)


def heldout_losses(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Evaluations give these, one after the other."""
    left = iter(losses)
    values: dict[str, Any] = {"bits_per_byte": 1.0, "by_source": {}, "by_language": {}}
    monkeypatch.setattr(train, "heldout_loss", lambda *args, **kwargs: values | {"loss": next(left)})


def test_the_best_checkpoint_stays_and_patience_ends(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = config(place, eval_steps=1, save_total_limit=2, early_stopping_patience=2)
    workdir = str(place / "best")
    heldout_losses(monkeypatch, [5.0, 4.0, 4.5, 4.2, 1.0])
    last = fit(recipe, workdir)
    assert [row["step"] for row in rows(Path(workdir))] == [1, 2, 3, 4] and last["heldout_loss"] == 4.2
    # 1 and 2 were saved as the best so far, 3 as due, 4 as the last; two are kept, and the best
    assert finished_steps(workdir) == [(2, 4.0), (3, 4.5), (4, 4.2)]
    assert best_step(workdir) == 2
    assert fit(recipe, workdir, resume=True) == {}  # stopped early is complete
    best, newest = (load_trainables(workdir, step=step)["lm_head.kernel"] for step in (2, 4))
    assert np.abs(best - newest).max() > 0
    with pytest.raises(UsageError, match="no checkpoint of step 1; there are 2, 3, 4"):
        load_trainables(workdir, step=1)

    killed_after(Path(workdir), place / "best_resumed", 3)
    heldout_losses(monkeypatch, [4.2, 1.0])
    fit(recipe, str(place / "best_resumed"), resume=True)
    assert [row["step"] for row in rows(place / "best_resumed")] == [1, 2, 3, 4]  # one evaluation before counts, and one after


def test_the_base_is_measured_before_the_first_step(place: Path) -> None:
    """As step 0, once: what an adapter that changes nothing yet gives, which is no candidate for the best checkpoint."""
    recipe, workdir = config(place, max_steps=2, save_steps=1, eval_on_start=True), place / "from_base"
    fit(recipe, str(workdir))
    shutil.rmtree(workdir / "checkpoints" / "2")
    fit(recipe, str(workdir), resume=True)
    base, *others = rows(workdir)
    assert base["step"] == 0 and [row["step"] for row in others] == [1, 2]
    model = load_model(str(place / "base"), make_mesh(MeshConfig()))
    evaluated = evaluate_loss(model, str(place / "data"), sequence_length=128, template="turns")
    assert base["heldout_loss"] == pytest.approx(evaluated["loss"], rel=1e-5)


def test_a_loss_that_is_not_finite_ends_the_run(place: Path) -> None:
    poisoned = config(place, save_steps=1, eval_steps=1)
    poisoned.optim = OptimConfig(learning_rate=1e30, lr_scheduler_type="constant")
    workdir = place / "poisoned"
    with pytest.raises(NotFinite, match=r"step 2: loss .*gradient norm nan, on .* records: ") as error:
        fit(poisoned, str(workdir))
    ids = prepare(poisoned, str(workdir), resume=True).batches.ids_at(1)
    assert f"{len(ids)} records: {', '.join(ids[:8])}, …" in str(error.value)
    assert [step for step, _ in finished_steps(str(workdir))] == [1]
    assert [(row["step"], row["grad_norm"] is None) for row in rows(workdir)] == [(1, False), (2, True)]


def test_samples(place: Path) -> None:
    recipe = config(place, num_samples=3, sample_steps=1, sample_max_new_tokens=5, max_steps=2)
    fit(recipe, str(place / "samples"), script_share=lambda text, language: {"ur": 0.75}.get(language))
    lines = [json.loads(line) for line in (place / "samples" / "samples.jsonl").read_text().splitlines()]
    held = tiny.conversations(60)[-6:-3]
    assert [(line["step"], line["id"], line["prompt"]) for line in lines] == [
        (step, record.id, (record.messages or ())[0]["content"]) for step in (1, 2) for record in held
    ]
    assert all(line["language"] == "ur" and line["finish_reason"] in ("stop", "length") for line in lines)
    last = [line["finish_reason"] == "stop" for line in lines[3:]]
    assert rows(place / "samples")[-1]["sample_stop_rate"] == sum(last) / 3
    assert rows(place / "samples")[-1]["sample_script_purity"] == 0.75


def test_prompts_are_those_that_fit_of_each_directory(tmp_path: Path) -> None:
    """A question longer than a row is never trained, and would take the memory of all others when sampled."""
    for name, seed in (("a", 0), ("b", 7)):
        long = tiny.conversations(1, words=60, seed=seed + 3)
        tiny.make_shards(tmp_path / name, long + tiny.conversations(9, seed=seed) + tiny.documents(2), heldout=12)
    directories = [str(tmp_path / name) for name in "ab"]
    for count, chosen in ((4, [(0, 0), (0, 1), (7, 0), (7, 1)]), (3, [(0, 0), (7, 0), (7, 1)]), (0, [])):
        prompts = heldout_prompts(directories, count, lambda prompt: len(prompt) < 100)
        assert [prompt.prompt for prompt in prompts] == [
            (tiny.conversations(9, seed=seed)[i].messages or ())[0]["content"] for seed, i in chosen
        ]


def test_accumulation_changes_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 microbatches of one row are one of 8, also in the last window, part of which is empty: weighted by tokens, not by rows."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *args: devices)
    for accumulation in (1, 8):
        recipe = config(place, gradient_accumulation_steps=accumulation, max_steps=0, mesh=MeshConfig())
        fit(recipe, str(place / f"accumulated{accumulation}"))
    one, eight = (rows(place / f"accumulated{accumulation}") for accumulation in (1, 8))
    assert len(one) == 2 and one[1]["non_pad_share"] < 0.6  # 13 rows: 8, and 5 of 8
    np.testing.assert_allclose([row["loss"] for row in eight], [row["loss"] for row in one], rtol=1e-5)
    np.testing.assert_allclose([row["grad_norm"] for row in eight], [row["grad_norm"] for row in one], rtol=1e-4)
    assert [row["tokens"] for row in eight] == [row["tokens"] for row in one]
    a, b = (load_trainables(str(place / f"accumulated{accumulation}")) for accumulation in (1, 8))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=2e-4, err_msg=name)


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


@pytest.mark.parametrize(
    ("change", "named"),
    [(OptimConfig(learning_rate=2e-2, warmup_steps=2), "rate of embeddings (float32) was 0.01 .* is 0.02 now"),
     (OptimConfig(learning_rate=1e-2, warmup_steps=2, loraplus_lr_ratio=4.0), "rate of lora_B (float32) was 0.01 .* is 0.04 now")],
)  # fmt: skip
def test_resume_with_another_learning_rate_is_refused(place: Path, whole: Path, change: OptimConfig, named: str) -> None:
    with pytest.raises(UsageError, match=named.replace("(float32)", r"\(float32\)")):
        fit(config(place, optim=change), str(whole), resume=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"seed": 1}, "seed was 0 and is 1 now"), ({"batch_size": 16}, "batch_size was 8 and is 16"),
     ({"optim": OptimConfig(learning_rate=1e-2)}, "optim.warmup_steps was 2"),
     ({"data": {"sequence_length": 64}}, "data.sequence_length was 128"), ({"data": {"path": "other"}}, "data was '")],
)  # fmt: skip
def test_resume_with_other_data_or_another_order_is_refused(place: Path, whole: Path, change: dict[str, Any], named: str) -> None:
    """The rest of the run would repeat examples and leave out others, without a word."""
    if change.get("data") == {"path": "other"}:
        change = {"data": {"path": (tiny.make_shards(place / "other", tiny.conversations(61)),)}}
    if "data" in change:
        change = {"data": dataclasses.replace(config(place).data, **change["data"])}
    before = (whole / "config.json").read_bytes()
    with pytest.raises(UsageError, match=named):
        fit(config(place, **change), str(whole), resume=True)
    assert (whole / "config.json").read_bytes() == before


def test_a_directory_that_is_no_runs_is_left_alone(place: Path) -> None:
    before = (place / "base" / "config.json").read_bytes()
    with pytest.raises(UsageError, match=r"the config.json there is not a run's"):
        fit(config(place), str(place / "base"), resume=True)
    assert (place / "base" / "config.json").read_bytes() == before
    with pytest.raises(UsageError, match="memory://run: a run directory is local, or at gs:// or s3://"):
        fit(config(place), "memory://run")


def test_what_needs_held_out_records_says_so(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without = (tiny.make_shards(place / "nothing held out", tiny.conversations(20), heldout=0),)
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"eval_path": without}, {}), ({"path": without}, {"early_stopping_patience": 1, "eval_steps": 1}),
    ]  # fmt: skip
    for change, key in changes:
        named = "early_stopping_patience" if key else "data.eval_path"
        with pytest.raises(UsageError, match=f"no held-out records; {named} needs some"):
            fit(config(place, data=dataclasses.replace(config(place).data, **change), **key), str(place / "never"))
    assert not (place / "never").exists()
    fit(config(place, data=dataclasses.replace(config(place).data, path=without), max_steps=1), str(place / "unmeasured"))
    assert "no held-out loss: " in capsys.readouterr().out


def test_the_table_in_the_checkpoint_is_compared(place: Path) -> None:
    """A config.json that agrees does not help a checkpoint of another shape; nor does a table that agrees help the arrays."""
    workdir = place / "forged"
    fit(config(place, lora=LoraConfig(rank=2, alpha=16.0, modules_to_save=EMBEDDINGS), max_steps=1), str(workdir))
    saved = json.loads((workdir / "config.json").read_text())
    saved["lora"]["rank"] = 4
    (workdir / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UsageError, match=r"parameters of lora_A \(float32\) was 2048 in this checkpoint and is 4096 now"):
        fit(config(place), str(workdir), resume=True)
    abstract = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in load_trainables(str(workdir)).items()}
    name = "layers.self_attn.o_proj.lora_A"
    abstract[name] = jax.ShapeDtypeStruct((2, 96, 4), abstract[name].dtype)
    with pytest.raises(UsageError, match=r"o_proj.lora_A is float32\[2, 96, 2\].*float32\[2, 96, 4\] expected"):
        load_trainables(str(workdir), abstract)


def test_the_table_of_what_is_trained(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = prepare(config(place), str(place / "nowhere"), resume=False).table
    groups = {row["group"]: row for row in table}
    assert groups["embeddings"]["modules"] == ["embed_tokens", "lm_head"] and groups["embeddings"]["parameters"] == 2 * 384 * 64
    per_layer = 2 * (64 + 96) + 2 * (64 + 48) + 3 * (64 + 96)  # q, o; k, v; gate, up, down: inputs + outputs
    assert groups["lora_A"]["parameters"] + groups["lora_B"]["parameters"] == 2 * 4 * per_layer
    assert {name: row["learning_rate"] for name, row in groups.items()} == {
        "embeddings": 0.01, "lora_A": 0.01, "lora_B": 0.01, "frozen": None
    }  # fmt: skip
    total = sum(row["parameters"] for row in table)
    trained = total - groups["frozen"]["parameters"]
    assert f"trainable: {trained:,} of {total:,}, trainable%: {100 * trained / total:.4f}" in render_table(table)


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
    source.lora = dataclasses.replace(source.lora, rank=8)
    with pytest.raises(UsageError, match="init_from"):
        fit(source, str(place / "refused"))
    assert not (place / "refused" / "config.json").exists()


def test_nothing_fits_a_row(place: Path) -> None:
    short = config(place)
    short.data = dataclasses.replace(short.data, sequence_length=8)
    with pytest.raises(UsageError, match="no trained token in 54 train records .*'self_instruct': {'dropped': 54}"):
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
     ({"model": ModelSource(attention="flash")}, "model.attention='flash' is not one of auto, xla"),
     ({"mesh": MeshConfig(fsdp=3)}, "does not fit 8"),
     ({"mesh": MeshConfig(fsdp=1, tensor=8)}, "cannot be divided"),
     ({"model": ModelSource(path="/nowhere")}, "/nowhere")],
)  # fmt: skip
def test_bad_configs(place: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(config(place, **change), str(place / "bad"))
    assert not (place / "bad").exists()


def test_a_kernel_of_another_chip_is_refused_and_auto_is_not_written_down_as_what_it_was(place: Path) -> None:
    recipe = config(place, max_steps=1)
    recipe.model = dataclasses.replace(recipe.model, attention="splash")
    with pytest.raises(UsageError, match="model.attention='splash' is a kernel for TPU and this is a CPU; set it to auto or xla"):
        prepare(recipe, str(place / "no"), resume=False)
    recipe.model = dataclasses.replace(recipe.model, attention="auto")
    run = prepare(recipe, str(place / "auto"), resume=False)
    assert (run.attention, run.config.model.attention) == ("chunked", "auto")
    assert "attention chunked" in describe(run)


def test_compiled_programs_are_kept_on_disk_but_not_a_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    before = jax.config.values["jax_compilation_cache_dir"]
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/x/.cache")
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        keep_compiled("cpu")
        assert jax.config.values["jax_compilation_cache_dir"] is None
        keep_compiled("tpu")
        assert jax.config.values["jax_compilation_cache_dir"] == "/home/x/.cache/alif_jax/compiled"
        jax.config.update("jax_compilation_cache_dir", "/mine")  # what JAX_COMPILATION_CACHE_DIR sets
        keep_compiled("gpu")
        assert jax.config.values["jax_compilation_cache_dir"] == "/mine"
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_a_base_from_the_hub_is_pinned(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run notes the commit it began with and asks for that one ever after, whatever `main` is by then."""
    newest = ["a" * 40]

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        commit = newest[0] if revision in (None, "main") else revision
        directory = tmp_path / "models--owner--name" / "snapshots" / commit
        if not directory.exists():
            shutil.copytree(place / "base", directory)
        return str(directory)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    hub = ModelSource(path="owner/name", dtype="float32", param_dtype="float32", remat="none")
    workdir = str(tmp_path / "run")
    fit(config(place, model=hub, max_steps=2), workdir, resume=False)
    newest[0] = "b" * 40
    assert read_run(workdir).revision == "a" * 40 and read_run(workdir).base.endswith("a" * 40)
    fit(config(place, model=hub, max_steps=2), workdir, resume=True)
    with pytest.raises(UsageError, match=f"began with commit {'a' * 40} of owner/name, and model.revision=main is {'b' * 40}"):
        fit(config(place, model=dataclasses.replace(hub, revision="main"), max_steps=2), workdir, resume=True)
    with pytest.raises(UsageError, match="model.revision=main: .* is a directory and has none"):
        fit(config(place, model=ModelSource(path=str(place / "base"), revision="main")), str(tmp_path / "other"), resume=False)
