"""Verification: sound exports of every kind pass, each way in which an export can be wrong is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch

from alif_jax import UsageError, verify
from alif_jax.checkpoint import open_checkpointer, save
from alif_jax.export import export_run
from alif_jax.hf import read_model_config
from alif_jax.lora import LoraConfig
from alif_jax.model import skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.tokenizer import load_tokenizer
from alif_jax.train import TrainConfig, as_json
from tests import tiny

STEP = 7
LLAMA31: dict[str, Any] = {"rope_parameters": {"rope_theta": 500_000.0, **tiny.LLAMA31_ROPE}, "max_position_embeddings": 16_384}
PLAIN = LoraConfig(rank=4, alpha=10.0)
NEW_ROWS = LoraConfig(rank=4, alpha=8.0, modules_to_save=("embed_tokens", "lm_head"), new_rows_only=True)
DORA = LoraConfig(rank=4, alpha=2.0, use_dora=True)
EXTENDED: dict[str, Any] = {"vocab_size": 392, "original_vocab_size": 384}


def make_run(workdir: Path, base: str, lora: LoraConfig, quantization: str = "") -> str:
    """A run directory with random trained values of a size that training gives, without the training."""
    config = TrainConfig(lora=lora)
    config.model.path, config.model.quantization, config.data.template = base, quantization, "turns"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(as_json(config)))
    model_config = read_model_config(base)
    model = skeleton(model_config, lora)
    values = tiny.new_params(model_config, model, seed=1)
    trained = {name: jnp.asarray(values[name]) for name in model.trainable}
    with open_checkpointer(str(workdir), save_total_limit=1) as checkpointer:
        save(checkpointer, STEP, {"trainable": trained, "optimizer": {"count": np.asarray(STEP)}}, heldout_loss=None, about={})
    return str(workdir)


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long prompt is short and reaches far (8,448 tokens take seconds), and as long as the others: one compilation."""
    monkeypatch.setattr(verify, "LONG_FLOP", 1)
    monkeypatch.setattr(verify, "FEW", verify.BUCKET)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A run, and a directory with both of its exports, which no test changes."""
    root = tmp_path_factory.mktemp("sound")
    workdir = make_run(root / "run", tiny.make_base(root / "base", **LLAMA31), PLAIN)
    for form in ("merged", "peft"):
        export_run(workdir, str(root / form), form, verify=False)
    return workdir, str(root)


def check(export: Path | str, workdir: str, form: str) -> str:
    return verify.verify_export(str(export), form=form, workdir=workdir, step=STEP)


@pytest.mark.parametrize("form", ["merged", "peft"])
def test_a_sound_export_passes(sound: tuple[str, str], form: str) -> None:
    workdir, root = sound
    said = check(f"{root}/{form}", workdir, form)
    assert said.startswith(f"verified with transformers{' and PEFT' if form == 'peft' else ''} in float32: logits within ")
    assert said.endswith("longest prompt 128 tokens up to position 8,447")


@pytest.mark.slow
def test_a_sound_export_passes_on_all_tokens_beyond_8192(sound: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    workdir, root = sound
    monkeypatch.setattr(verify, "LONG_FLOP", 1e12)
    said = check(f"{root}/merged", workdir, "merged")
    assert said.startswith("verified with transformers in float32: ") and said.endswith("longest prompt 8,448 tokens")


@pytest.mark.parametrize(
    ("changes", "lora", "form", "quantization"),
    [
        ({"dtype": torch.bfloat16}, PLAIN, "merged", ""),
        ({"dtype": torch.bfloat16}, PLAIN, "peft", ""),
        (EXTENDED, NEW_ROWS, "peft", ""),
        ({"tie_word_embeddings": True, "family": "qwen3"}, DORA, "peft", ""),
        ({}, PLAIN, "merged", "int8"),
    ],
    ids=["bf16 merged", "bf16 base", "new rows", "tied qwen3 dora", "int8"],
)
def test_other_sound_exports_pass(
    tmp_path: Path, changes: dict[str, Any], lora: LoraConfig, form: str, quantization: str
) -> None:
    """A quantised run is compared unquantised: that is what an export is made of."""
    base = tiny.make_base(tmp_path / "base", **changes)
    workdir = make_run(tmp_path / "run", base, lora, quantization)
    said = export_run(workdir, str(tmp_path / "out"), form)
    coarse = form == "merged" and changes.get("dtype") == torch.bfloat16
    assert f"(limit {verify.TOLERANCE['16-bit weights' if coarse else 'float32']:.0e})" in said
    assert said.endswith("longest prompt 128 tokens up to position 2,047")


def test_too_little_memory_for_fp32_is_bf16_and_for_that_is_said(
    sound: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, root = sound
    config = read_model_config(f"{root}/merged")
    parameters = sum(shape.size for shape in skeleton(config, LoraConfig(full=True)).shapes.values())
    monkeypatch.setattr(verify, "free_memory", lambda: 7 * parameters)
    for form in ("merged", "peft"):
        assert " in bfloat16: " in check(f"{root}/{form}", workdir, form)
    monkeypatch.setattr(verify, "free_memory", lambda: parameters)
    assert check(f"{root}/merged", workdir, "merged").startswith("not verified: ")
    assert check("gs://somewhere/merged", workdir, "merged").startswith("not verified: gs://somewhere/merged")


def test_free_memory_is_that_of_the_machine_or_less() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 0 < verify.free_memory() <= total


# --- what is wrong is named


def damaged(sound: tuple[str, str], tmp_path: Path, form: str) -> Path:
    return Path(shutil.copytree(f"{sound[1]}/{form}", tmp_path / form))


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def change_tensors(path: Path, change: Any) -> None:
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def refused(sound: tuple[str, str], export: Path, form: str) -> str:
    with pytest.raises(UsageError) as caught:
        check(export, sound[0], form)
    return str(caught.value)


def test_a_tensor_that_is_missing_or_left_over(sound: tuple[str, str], tmp_path: Path) -> None:
    export = damaged(sound, tmp_path, "merged")
    change_tensors(export / "model.safetensors", lambda tensors: tensors.pop("model.norm.weight"))
    assert "missing_keys: model.norm.weight" in refused(sound, export, "merged")
    change_tensors(export / "model.safetensors", lambda tensors: tensors.update({"model.nrom.weight": torch.ones(64)}))
    said = refused(sound, export, "merged")
    assert "missing_keys: model.norm.weight" in said and "unexpected_keys: model.nrom.weight" in said and "logits of" in said


def test_an_adapter_key_that_nothing_reads(sound: tuple[str, str], tmp_path: Path) -> None:
    """PEFT itself would only warn, and leave that adapter at zero."""
    export = damaged(sound, tmp_path, "peft")
    key = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight"
    change_tensors(export / "adapter_model.safetensors", lambda tensors: tensors.update({f"x{key}": tensors.pop(key)}))
    said = refused(sound, export, "peft")
    assert f"adapter key {key} is only on one side" in said and "logits of the Urdu prompt differ" in said


def test_another_scale(sound: tuple[str, str], tmp_path: Path) -> None:
    export = damaged(sound, tmp_path, "peft")
    change_json(export / "adapter_config.json", lora_alpha=2)
    said = refused(sound, export, "peft")
    for name in ("Urdu", "English", "long"):
        assert f"logits of the {name} prompt differ" in said
    assert "other greedy tokens from the" in said


def test_lost_rope_scaling_shows_on_the_long_prompt(sound: tuple[str, str], tmp_path: Path) -> None:
    """Though it is few tokens, half of them far away."""
    export = damaged(sound, tmp_path, "merged")
    change_json(export / "config.json", rope_scaling=None, rope_parameters={"rope_type": "default", "rope_theta": 500_000.0})
    assert "logits of the long prompt differ" in refused(sound, export, "merged")


def test_other_template_tokens_and_stops(sound: tuple[str, str], tmp_path: Path) -> None:
    export = damaged(sound, tmp_path, "merged")
    template = export / "chat_template.jinja"
    template.write_text(template.read_text(encoding="utf-8").replace("<|assistant|>", "<|user|>"), encoding="utf-8")
    change_json(export / "generation_config.json", eos_token_id=[1])
    said = refused(sound, export, "merged")
    assert "the chat template renders user otherwise" in said and "generation_config.json stops on [1], the run on [1, 6]" in said
    specification = json.loads((export / "tokenizer.json").read_text(encoding="utf-8"))
    specification["model"]["merges"] = specification["model"]["merges"][:20]
    (export / "tokenizer.json").write_text(json.dumps(specification), encoding="utf-8")
    assert "other token ids for 'اردو" in refused(sound, export, "merged")


def test_what_cannot_be_loaded_is_one_line(sound: tuple[str, str], tmp_path: Path) -> None:
    export = damaged(sound, tmp_path, "merged")
    change_json(export / "config.json", hidden_size=48)
    assert "it cannot be loaded: " in refused(sound, export, "merged")
    (export / "tokenizer.json").write_text("{}")
    assert "its tokenizer cannot be loaded: " in refused(sound, export, "merged")
    (export / "model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match="not a safetensors file"):
        check(export, sound[0], "merged")


def test_a_failed_check_leaves_no_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = make_run(tmp_path / "run", tiny.make_base(tmp_path / "base"), PLAIN)
    monkeypatch.setattr("alif_jax.peft.PREFIX", "base_model.wrong.")
    with pytest.raises(UsageError, match="is only on one side"):
        export_run(workdir, str(tmp_path / "out"), "peft")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "run"]


# --- the parts


def test_difference_and_ties() -> None:
    rng = np.random.default_rng(0)
    ours = rng.standard_normal((3, 50)).astype(np.float32)
    assert verify.difference(ours, ours + 0) == 0
    noisy = ours + 1e-2 * rng.standard_normal(ours.shape).astype(np.float32)
    assert verify.difference(noisy, ours) == pytest.approx(1e-2, rel=0.3)
    best, second = np.argsort(ours[1])[[-1, -2]]
    probe = verify.Probe("the prompt", [5, 6, 7], [0, 1, 2])
    told = {int(best): [], int(second): ["other greedy tokens from the 1. on after the prompt"]}
    for token, problems in told.items():
        answer = verify.Answer([5, 6, 7, token], [0, 1, 2, 3], ours)
        ours_here = np.concatenate([ours[:1] * 0, ours[1:2], ours[2:]])  # row 1 is that of the last prompt token
        assert verify.compare(probe, answer, ours_here, 0.0, 1e-3) == problems
    near = ours.copy()
    near[1, second] = near[1, best] - 1e-5
    assert verify.compare(probe, verify.Answer([5, 6, 7, int(second)], [0, 1, 2, 3], near), near, 0.0, 1e-3) == []
    assert "differ by nan" in verify.compare(probe, answer, ours, float("nan"), 1e-3)[0]


def test_probes_keep_to_the_models_context(sound: tuple[str, str]) -> None:
    tokenizer = load_tokenizer(f"{sound[1]}/merged")
    config: ModelConfig = tiny.model_config(max_position_embeddings=100)
    urdu, english, long = verify.make_probes(tokenizer, config, parameters=1000)
    assert len(urdu.ids) <= 76 and len(long.ids) == 100 and long.positions == list(range(100))
    deep = tiny.model_config(max_position_embeddings=131_072)
    few = verify.make_probes(tokenizer, deep, parameters=8 * 10**9)[-1]
    assert len(few.ids) == 128 and few.positions[63:65] == [63, 8384] and few.positions[-1] == verify.LONG - 1
    assert jax.devices()[0].platform == "cpu" and verify.available("peft")
