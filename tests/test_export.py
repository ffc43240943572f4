"""Exports against transformers, PEFT and the safetensors library: the values, and every file that goes with them."""

import dataclasses
import errno
import json
import re
import shutil
import subprocess
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import safetensors.torch
import torch
import transformers

from alif_jax import UsageError, files
from alif_jax.checkpoint import open_checkpointer, save
from alif_jax.data.template import DataConfig
from alif_jax.export import export_run, write_merged, write_peft
from alif_jax.hf import load_params, read_model_config
from alif_jax.load import Run, load_model
from alif_jax.lora import LoraConfig
from alif_jax.model import Params, Skeleton, skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.peft import Loaders
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tokenizer import load_tokenizer, read_template
from alif_jax.train import TrainConfig, as_json
from tests import tiny

TOKENS = np.random.default_rng(0).integers(0, tiny.VOCAB, (2, 40)).astype(np.int32)
CHAT = [{"role": "user", "content": "سلام"}, {"role": "assistant", "content": "وعلیکم السلام"}]
LLAMA31 = {"rope_parameters": {"rope_theta": 500_000.0, **tiny.LLAMA31_ROPE}}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`bases(dtype=…, tie_word_embeddings=…, …)`: a base directory that no test changes, made once."""
    made: dict[str, str] = {}

    def base(**changes: Any) -> str:
        if repr(changes) not in made:
            made[repr(changes)] = tiny.make_base(tmp_path_factory.mktemp("base"), **changes)
        return made[repr(changes)]

    return base


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables are written in 25 pieces, matrices in 6 and more."""
    monkeypatch.setattr("alif_jax.safetensors.PIECE", 1000)


@pytest.fixture
def base(bases: Any, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(bases(), tmp_path / "base"))


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def logits_of(model: Skeleton, params: Params) -> np.ndarray:
    """Of the vocabulary, without what pads it."""

    def forward(params: Params, tokens: jax.Array) -> jax.Array:
        llama = model.model(params)
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        hidden, _ = llama(tokens, positions_BL=positions, segment_ids_BL=jnp.ones_like(tokens))
        return llama.logits(hidden)

    logits = np.asarray(jax.jit(forward)(params, TOKENS))
    return logits[..., np.isfinite(logits[0, 0])]


def logits_of_directory(directory: str) -> np.ndarray:
    loaded = load_model(directory, one_device())
    return logits_of(loaded.skeleton, loaded.params)


def logits_of_torch(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS).long()).logits.numpy()


def close(ours: np.ndarray, theirs: np.ndarray) -> bool:
    assert np.abs(ours).max() > 3  # logits that differ, or nothing is compared
    return bool(np.abs(ours - theirs).max() <= 1e-5 * np.abs(ours).max())


class Trained:
    """A base with random trained values on it (an adapter's B included), as a run leaves them."""

    def __init__(self, base: str, lora: LoraConfig, template: str = "turns"):
        self.base, self.lora = base, lora
        self.config: ModelConfig = read_model_config(base)
        self.skeleton = skeleton(self.config, lora)
        self.tokenizer = load_tokenizer(base, template)
        values = tiny.new_params(self.config, self.skeleton, seed=1)
        self.trained = {name: np.array(values[name]) for name in self.skeleton.trainable}

    def logits(self) -> np.ndarray:
        frozen = load_params(self.base, self.skeleton, self.skeleton.frozen, one_device(), self.config)
        return logits_of(self.skeleton, frozen | {name: jnp.asarray(values) for name, values in self.trained.items()})

    def merged(self, output: Path | str, dtype: str = "", **changes: Any) -> str:
        with files.new_directory(str(output)) as temporary:
            write_merged(temporary, self.run(**changes), self.loaders(), dtype=dtype)
        return str(output)

    def peft(self, output: Path | str, dtype: str = "float32", **changes: Any) -> str:
        with files.new_directory(str(output)) as temporary:
            write_peft(temporary, self.run(**changes), self.loaders(), output=str(output), dtype=dtype)
        return str(output)

    def run(self, **changes: Any) -> Run:
        run = Run(
            base=self.base, base_name=self.base, random_init=False, quantization="", config=self.config, lora=self.lora,
            data=DataConfig(), tokenizer=self.tokenizer,
        )  # fmt: skip
        return dataclasses.replace(run, **changes)

    def loaders(self) -> Loaders:
        return {name: partial(np.asarray, values) for name, values in self.trained.items()}


UNEVEN = LoraConfig(rank=4, alpha=10.0)  # scale 2.5
RSLORA = LoraConfig(rank=4, alpha=3.0, use_rslora=True, target_modules=("q_proj", "v_proj", "down_proj"))  # scale 1.5
WITH_EMBEDDINGS = LoraConfig(rank=4, alpha=2.0, modules_to_save=("embed_tokens", "lm_head"))  # scale 0.5
WITH_TABLES = LoraConfig(rank=4, alpha=6.0, target_modules=("k_proj", "embed_tokens", "lm_head"))  # adapters on both tables
NEW_ROWS = LoraConfig(rank=4, alpha=8.0, modules_to_save=("embed_tokens", "lm_head"), new_rows_only=True)
DORA = LoraConfig(rank=4, alpha=2.0, use_dora=True)
EXTENDED = {"vocab_size": 392, "original_vocab_size": 384}  # padded to 512 on the mesh
VARIANTS = [
    pytest.param({}, UNEVEN, id="uneven"),
    pytest.param(LLAMA31, RSLORA, id="rslora"),
    pytest.param(EXTENDED, WITH_EMBEDDINGS, id="embeddings"),
    pytest.param(EXTENDED, WITH_TABLES, id="adapters on the tables"),
    pytest.param(EXTENDED, NEW_ROWS, id="new rows only"),
    pytest.param({}, DORA, id="dora"),
    pytest.param({"family": "mistral"}, UNEVEN, id="mistral"),
    pytest.param({"family": "qwen2"}, WITH_EMBEDDINGS, id="qwen2"),
    pytest.param({"family": "qwen3"}, DORA, id="qwen3, dora"),
]
TIED_EMBEDDINGS = LoraConfig(rank=4, alpha=2.0, modules_to_save=("embed_tokens",))


def tensors_of(directory: str | Path) -> dict[str, torch.Tensor]:
    """Of all files of a directory, read by the library."""
    shards = [safetensors.torch.load_file(path) for path in Path(directory).glob("*.safetensors")]
    return {name: tensor for shard in shards for name, tensor in shard.items()}


def same_tensors(ours: str | Path, theirs: str | Path) -> None:
    a, b = tensors_of(ours), tensors_of(theirs)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name


# --- merged


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tied", [False, True])
def test_without_an_adapter_every_bit_is_the_bases(bases: Any, tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    directory = bases(dtype=dtype, tie_word_embeddings=tied)
    run = Trained(directory, UNEVEN)
    run.trained = {}
    same_tensors(run.merged(tmp_path / "copied"), directory)
    everything = Trained(directory, LoraConfig(full=True))
    loaded = load_params(directory, everything.skeleton, everything.skeleton.trainable, one_device(), everything.config)
    everything.trained = {name: np.asarray(values) for name, values in loaded.items()}  # fp32, as trained parameters are
    same_tensors(everything.merged(tmp_path / "through"), directory)


def test_a_sharded_export_is_the_same(bases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trained(bases(max_shard_size="100KB"), UNEVEN)
    run.trained = {}
    monkeypatch.setattr("alif_jax.safetensors.SHARD_BYTES", 50_000)
    output = run.merged(tmp_path / "merged")
    assert len(list(Path(output).glob("model-*.safetensors"))) > 5
    same_tensors(output, run.base)
    model = transformers.AutoModelForCausalLM.from_pretrained(output)
    assert close(logits_of_directory(output), logits_of_torch(model))


@pytest.mark.parametrize(("changes", "lora"), VARIANTS)
def test_merged_equals_unmerged_and_transformers_loads_it(
    bases: Any, tmp_path: Path, changes: dict[str, Any], lora: LoraConfig
) -> None:
    run = Trained(bases(**changes), lora)
    unmerged, output = run.logits(), run.merged(tmp_path / "merged")
    assert np.abs(unmerged - logits_of_directory(run.base)).max() > 0.5  # the adapter does something
    assert json_of(output, "config.json")["architectures"] == json_of(run.base, "config.json")["architectures"]
    assert close(unmerged, logits_of_directory(output))
    check_with_transformers(output, unmerged)


@pytest.mark.parametrize("lora", [UNEVEN, TIED_EMBEDDINGS], ids=["adapter", "embeddings"])
def test_merged_of_a_tied_model(bases: Any, tmp_path: Path, lora: LoraConfig) -> None:
    run = Trained(bases(tie_word_embeddings=True), lora)
    unmerged, output = run.logits(), run.merged(tmp_path / "merged")
    assert "lm_head.weight" not in tensors_of(output)
    assert close(unmerged, logits_of_directory(output))
    check_with_transformers(output, unmerged)


def check_with_transformers(directory: str, logits: np.ndarray) -> None:
    model, loading = transformers.AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.dtype == torch.float32
    assert close(logits, logits_of_torch(model))


def test_merging_rounds_once(bases: Any, tmp_path: Path) -> None:
    """W + s·A·B in fp32, then bf16: the sum of two bf16 numbers would be another number."""
    run = Trained(bases(dtype=torch.bfloat16), RSLORA)
    merged, weights = tensors_of(run.merged(tmp_path / "merged")), tensors_of(run.base)
    for module in ("self_attn.q_proj", "mlp.down_proj"):
        a, b = (torch.from_numpy(run.trained[f"layers.{module}.{name}"][1]) for name in ("lora_A", "lora_B"))
        name = f"model.layers.1.{module}.weight"
        expected = weights[name].float() + 1.5 * (a @ b).T
        assert merged[name].dtype == torch.bfloat16
        wrong = (merged[name] != expected.bfloat16()).float().mean()
        assert wrong < 1e-3  # another order of fp32 sums may tip a tie
        assert (merged[name] != (weights[name] + (1.5 * (a @ b).T).bfloat16())).float().mean() > 0.05
    untouched = "model.layers.1.self_attn.k_proj.weight"
    assert torch.equal(merged[untouched], weights[untouched])


def test_a_model_trained_from_nothing(bases: Any, tmp_path: Path) -> None:
    """No base weights; config.json came with a dtype of its own, which must not be what the file is read as."""
    source = Path(shutil.copytree(bases(dtype=torch.bfloat16), tmp_path / "source"))
    (source / "model.safetensors").unlink()
    run = Trained(str(source), LoraConfig(full=True))
    logits = logits_of(run.skeleton, {name: jnp.asarray(values) for name, values in run.trained.items()})
    output = str(tmp_path / "merged")
    run.merged(output, random_init=True)
    assert {tensor.dtype for tensor in tensors_of(output).values()} == {torch.float32}
    assert close(logits, logits_of_directory(output))
    check_with_transformers(output, logits)


def json_of(directory: str | Path, name: str) -> dict[str, Any]:
    return json.loads((Path(directory) / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("form", ["v5", "v4", "v4 with whole numbers"])
def test_config_is_read_alike_by_transformers_4_and_5(bases: Any, tmp_path: Path, form: str) -> None:
    source = Path(shutil.copytree(bases(**LLAMA31, dtype=torch.bfloat16), tmp_path / "source"))
    theirs = transformers.AutoConfig.from_pretrained(source)
    if form != "v5":
        config = json_of(source, "config.json")
        rope = config.pop("rope_parameters")
        config |= {"torch_dtype": config.pop("dtype"), "rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
        if "whole" in form:
            config["rope_theta"] = 500_000
            rope |= {"factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
        (source / "config.json").write_text(json.dumps(config))
    run = Trained(str(source), UNEVEN)
    output = run.merged(tmp_path / "merged")
    config = json_of(output, "config.json")
    assert config["rope_scaling"] == {  # what transformers 4 reads; it takes 10,000 for a theta that is not there
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    assert config["rope_theta"] == 500_000.0 and config["torch_dtype"] == "bfloat16"
    assert config["architectures"] == ["LlamaForCausalLM"] and config["tie_word_embeddings"] is False
    numbers = [config["rope_theta"], *(config["rope_scaling"][key] for key in ("factor", "low_freq_factor", "high_freq_factor"))]
    assert [type(number) for number in numbers] == [float] * 4
    assert type(config["rope_scaling"]["original_max_position_embeddings"]) is int
    again = transformers.AutoConfig.from_pretrained(output)
    assert again.rope_parameters == theirs.rope_parameters and again.dtype == torch.bfloat16
    assert again.head_dim == 24 and again.rms_norm_eps == 1e-5 and again.num_key_value_heads == 2
    assert again.eos_token_id == list(run.tokenizer.stop_ids) == [1, 6]
    assert read_model_config(output) == run.config


def test_plain_rope(bases: Any, tmp_path: Path) -> None:
    output = Trained(bases(rope_theta=12_345.0), UNEVEN).merged(tmp_path / "merged")
    config = json_of(output, "config.json")
    assert (config["rope_theta"], config["rope_scaling"]) == (12_345.0, None)
    assert transformers.AutoConfig.from_pretrained(output).rope_parameters["rope_theta"] == 12_345.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_a_diverged_run_is_not_exported(bases: Any, tmp_path: Path, bad: float, kind: str) -> None:
    run = Trained(bases(), UNEVEN)
    run.trained["layers.self_attn.o_proj.lora_A"][1, 0, 0] = bad
    with pytest.raises(UsageError, match="layers.1.self_attn.o_proj.*not finite"):
        getattr(run, kind)(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_an_output_that_exists_is_left_alone(bases: Any, tmp_path: Path, kind: str) -> None:
    run = Trained(bases(), UNEVEN)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").write_text("1")
    with pytest.raises(UsageError, match=f"{tmp_path}/out exists already; give another --output"):
        getattr(run, kind)(f"{tmp_path}/out")
    with pytest.raises(UsageError, match="exists already"):
        getattr(run, kind)(f"{tmp_path}/out/")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["precious"]


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_after_a_killed_export(bases: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off at its last file it leaves nothing; what a kill leaves beside the final name does not disturb the next try."""
    run = Trained(bases(), UNEVEN)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("alif_jax.export.write_tokenizer", killed)
        getattr(run, kind)(tmp_path / "deep" / "out")
    assert not list((tmp_path / "deep").iterdir())
    (tmp_path / "deep" / "out.tmp").mkdir()
    (tmp_path / "deep" / "out.tmp" / "model-00001-of-00002.safetensors").write_text("of another attempt")
    output = getattr(run, kind)(tmp_path / "deep" / "out")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert not (Path(output) / "model-00001-of-00002.safetensors").exists()


# --- disks


def exported_parts(run: Trained) -> int:
    """Bytes of the base, which a merged model has too."""
    return sum(path.stat().st_size for path in Path(run.base).glob("*.safetensors"))


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    bases: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Trained(bases(**EXTENDED), UNEVEN)  # an adapter of it brings its base along
    needed = 1e6 * float(space_asked(run, tmp_path / "asked", kind, monkeypatch, free=1)[0])
    assert needed >= exported_parts(run)
    assert needed - 2**21 < sum(path.stat().st_size for path in Path(getattr(run, kind)(tmp_path / "out")).rglob("*.*")) <= needed
    message = space_asked(run, tmp_path / "b", kind, monkeypatch, free=int(needed) - 10**5)
    assert message == (f"{needed / 1e6:,.1f}", f"{needed / 1e6 - 0.1:,.1f}")


def space_asked(run: Trained, output: Path, kind: str, monkeypatch: pytest.MonkeyPatch, *, free: int) -> tuple[str, str]:
    """(needed, free) in MB, as the refusal says them, on a disk with so many bytes."""

    def unreached(*_: object) -> None:
        raise AssertionError("written before it was refused")

    with monkeypatch.context() as patch, pytest.raises(UsageError, match="MB are needed and .* MB are free") as refusal:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
        patch.setattr("alif_jax.export.write", unreached)
        patch.setattr("alif_jax.export.write_sharded", unreached)
        getattr(run, kind)(output)
    assert not [path for path in output.parent.iterdir() if path.name.startswith(output.name)]
    [found] = re.findall(r"([\d.,]+) MB are needed and ([\d.,]+) MB are free", str(refusal.value))
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A tmpfs of 256 KiB, less than a tiny model."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user cannot mount a tmpfs ({mounted.stderr.strip()})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_a_small_disk(bases: Any, small_disk: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Trained(bases(**EXTENDED), UNEVEN)
    with pytest.raises(UsageError, match="MB are needed and 0.3 MB are free on this disk"):
        getattr(run, kind)(small_disk / "out")
    assert list(small_disk.iterdir()) == []
    monkeypatch.setattr("alif_jax.files.check_space", lambda *_: None)  # as though another program filled it afterwards
    with pytest.raises(UsageError, match=f"{small_disk}/out: the disk is full"):
        getattr(run, kind)(small_disk / "out")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_a_disk_that_fills_on_the_way(
    bases: Any, tmp_path: Path, kind: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a tensor, wherever such disks are not to be had; another error is not taken for it."""
    run, original = Trained(bases(), UNEVEN), files.open_file

    def full(path: str, mode: str = "rb") -> Any:
        file = original(path, mode)
        if mode == "wb":
            monkeypatch.setattr(file, "write", Mock(side_effect=OSError(number, "no room")))
        return file

    monkeypatch.setattr("alif_jax.safetensors.open_file", full)
    with pytest.raises(OSError if number == errno.EIO else UsageError, match="no room"):
        getattr(run, kind)(tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [({"model.layers.1.mlp.up_proj.weight": None}, "model.layers.1.mlp.up_proj.weight is missing"),
     ({"model.norm.weight": torch.ones(63)}, r"model.norm.weight has shape \(63,\), config.json implies \(64,\)")],
)  # fmt: skip
def test_a_base_that_changed_since_is_refused(base: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = Trained(str(base), UNEVEN)
    tensors = {name: tensor for name, tensor in (tensors_of(base) | change).items() if tensor is not None}
    safetensors.torch.save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=message):
        run.merged(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- adapters


def load_with_peft(run: Trained, adapter: str) -> Any:
    """The adapter on its base, after a check that each key was taken and none was left."""
    model = transformers.AutoModelForCausalLM.from_pretrained(run.base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("error", UserWarning)  # PEFT only warns of keys that it misses
        model = peft.PeftModel.from_pretrained(model, adapter)
    saved = peft.utils.load_peft_weights(adapter, device="cpu")
    assert saved.keys() == peft.get_peft_model_state_dict(model, save_embedding_layers=False).keys()
    result = peft.set_peft_model_state_dict(model, saved)
    assert not result.unexpected_keys
    assert not [key for key in result.missing_keys if "lora_" in key or "modules_to_save" in key]
    return model.eval()


@pytest.mark.parametrize(("changes", "lora"), VARIANTS)
def test_peft_loads_the_adapter(bases: Any, tmp_path: Path, changes: dict[str, Any], lora: LoraConfig) -> None:
    run = Trained(bases(**changes), lora)
    adapter, logits = run.peft(tmp_path / "peft"), run.logits()
    model = load_with_peft(run, adapter)
    assert close(logits, logits_of_torch(model))
    merged = tensors_of(run.merged(tmp_path / "merged"))
    theirs = model.merge_and_unload().state_dict()
    assert merged.keys() == theirs.keys()
    assert all(torch.allclose(merged[name], theirs[name], rtol=1e-5, atol=1e-6) for name in merged)


@pytest.mark.parametrize("lora", [UNEVEN, TIED_EMBEDDINGS], ids=["adapter", "embeddings"])
def test_peft_loads_the_adapter_of_a_tied_model(bases: Any, tmp_path: Path, lora: LoraConfig) -> None:
    run = Trained(bases(tie_word_embeddings=True), lora)
    logits = run.logits()
    assert close(logits, logits_of_torch(load_with_peft(run, run.peft(tmp_path / "peft"))))


def test_adapter_config_is_the_portable_form(bases: Any, tmp_path: Path) -> None:
    """llama.cpp reads no rsLoRA flag, vLLM no patterns: with the scale in B and alpha = r everyone multiplies by 1."""
    for i, lora in enumerate((UNEVEN, RSLORA, WITH_EMBEDDINGS)):
        run = Trained(bases(), lora)
        adapter = run.peft(tmp_path / str(i))
        config = json_of(adapter, "adapter_config.json")
        assert config["r"] == config["lora_alpha"] == 4
        assert config["use_rslora"] is False and config["use_dora"] is False and config["bias"] == "none"
        assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
        assert config["rank_pattern"] == config["alpha_pattern"] == {} and config["lora_dropout"] == 0
        assert (config["base_model_name_or_path"], config["revision"]) == (run.base, None)
        assert config["target_modules"] == sorted(lora.target_modules)
        assert config["modules_to_save"] == (sorted(lora.modules_to_save) or None)
        tensors = tensors_of(adapter)
        stem = "base_model.model.model.layers.1.self_attn.q_proj"
        a, b = (torch.from_numpy(run.trained[f"layers.self_attn.q_proj.{name}"][1]) for name in ("lora_A", "lora_B"))
        assert torch.equal(tensors[f"{stem}.lora_A.weight"], a.T)
        assert torch.allclose(tensors[f"{stem}.lora_B.weight"], b.T * lora.scale())
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
        full = {name for name in tensors if "lora_" not in name}
        wanted = {"base_model.model.model.embed_tokens.weight", "base_model.model.lm_head.weight"}
        assert full == (wanted if lora.modules_to_save else set())
        assert len(tensors) - len(full) == 2 * 2 * len(lora.target_modules)


def test_the_commit_of_a_base_from_the_hub_is_named(bases: Any, tmp_path: Path) -> None:
    commit = "8cde5ca8380496c9a6cc7ef3a8b46a0372a1d920"
    adapter = Trained(bases(**EXTENDED), UNEVEN).peft(tmp_path / "peft", base_name="owner/name", revision=commit)
    config = json_of(adapter, "adapter_config.json")
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", commit)
    assert not (Path(adapter) / "base").exists()  # the hub has it


@pytest.mark.parametrize("lora", [UNEVEN, WITH_EMBEDDINGS, NEW_ROWS], ids=["adapter", "embeddings", "new rows"])
@pytest.mark.parametrize("max_shard_size", ["5GB", "100KB"])
def test_a_base_with_more_tokens_goes_along(bases: Any, tmp_path: Path, lora: LoraConfig, max_shard_size: str) -> None:
    """Another one, of the published size, could not take the adapter; from another directory than that of the export."""
    original = Path(shutil.copytree(bases(**EXTENDED, max_shard_size=max_shard_size), tmp_path / "original"))
    run = Trained(str(original), lora)
    logits, adapter = run.logits(), run.peft(tmp_path / "out" / "peft")
    copied = Path(adapter) / "base"
    names = {path.name for path in original.iterdir()}
    assert names == {path.name for path in copied.iterdir()} and "tokenizer.json" in names
    assert all((copied / name).read_bytes() == (original / name).read_bytes() for name in names)
    shutil.rmtree(original)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("error", UserWarning)
        model = peft.AutoPeftModelForCausalLM.from_pretrained(adapter)
    assert close(logits, logits_of_torch(model))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_export_in_another_type(bases: Any, tmp_path: Path, dtype: str) -> None:
    """fp32 rounded once; the base's own type does not matter to an adapter, and gives way in a merged model that asks."""
    run = Trained(bases(dtype=torch.bfloat16), WITH_EMBEDDINGS)
    exact, adapter = tensors_of(run.peft(tmp_path / "exact")), tensors_of(run.peft(tmp_path / "peft", dtype))
    merged, in_fp32 = run.merged(tmp_path / "merged", dtype), tensors_of(run.merged(tmp_path / "fp32", "float32"))
    assert json_of(merged, "config.json")["torch_dtype"] == dtype
    for made, wanted in ((adapter, exact), (tensors_of(merged), in_fp32)):
        assert made.keys() == wanted.keys()
        assert all(torch.equal(made[name], wanted[name].to(getattr(torch, dtype))) for name in made)


# What other loaders check of an adapter before they take it: vLLM in its PEFT helper, llama.cpp in its converter.


def refused_by_vllm(adapter: str, max_lora_rank: int) -> list[str]:
    config = json_of(adapter, "adapter_config.json")
    found = [f"no {key}" for key in ("r", "lora_alpha", "target_modules") if key not in config]
    found += [key for key in ("modules_to_save", "use_dora") if config[key]]
    found += ["bias"] if config["bias"] != "none" else []
    found += ["rank"] if config["r"] > max_lora_rank else []
    for name, tensor in tensors_of(adapter).items():
        *_, module, factor, weight = name.split(".")
        if weight in ("lora_embedding_A", "lora_embedding_B"):
            module, factor = factor, weight
        elif weight != "weight" or factor not in ("lora_A", "lora_B"):
            found += [f"{name}: unsupported"]
            continue
        found += [f"{name}: module"] if module not in config["target_modules"] else []
        found += [f"{name}: rank"] if tensor.shape[0 if factor.endswith("A") else 1] != config["r"] else []
    return found


def refused_by_llama_cpp(adapter: str) -> list[str]:
    """It reads no flag: what it does not know it gets wrong without a word, so that is refused here too."""
    config = json_of(adapter, "adapter_config.json")
    found = [key for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out") if config[key]]
    found += [f"no {key}" for key in ("lora_alpha", "base_model_name_or_path") if not config[key]]
    pairs: dict[str, set[str]] = {}
    for name in tensors_of(adapter):
        found += [f"{name}: embeddings"] if name.endswith(("embed_tokens.weight", "lm_head.weight")) else []
        module, _, factor = name.partition(".lora_")
        pairs.setdefault(module, set()).add(factor.removeprefix("embedding_").removesuffix(".weight"))
    return found + [module for module, factors in pairs.items() if factors != {"A", "B"}]


@pytest.mark.parametrize(
    ("lora", "refused"),
    [(UNEVEN, False), (RSLORA, False), (WITH_TABLES, False), (WITH_EMBEDDINGS, True), (DORA, True)],
    ids=["uneven", "rslora", "adapters on the tables", "embeddings", "dora"],
)
def test_who_refuses_an_adapter_is_said(bases: Any, tmp_path: Path, lora: LoraConfig, refused: bool) -> None:
    workdir = make_run(tmp_path / "run", Trained(bases(), lora))
    adapter = f"{tmp_path}/peft"
    said = export_run(workdir, adapter, "peft", verify=False)
    assert bool(refused_by_vllm(adapter, 4)) == bool(refused_by_llama_cpp(adapter)) == refused
    assert refused_by_vllm(adapter, 3)  # its default is 16, a run's rank often more
    assert ("which vLLM and llama.cpp refuse: give them the merged model" in said) == refused


def test_a_local_base_is_named_in_full(bases: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere `models/base` would be taken for somebody's repository on the hub."""
    run = Trained(bases(), UNEVEN)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base").symlink_to(run.base)
    monkeypatch.chdir(tmp_path)
    run.base = "models/base"
    assert json_of(run.peft(tmp_path / "out"), "adapter_config.json")["base_model_name_or_path"] == f"{tmp_path}/models/base"


@pytest.mark.parametrize("lora", [LoraConfig(full=True), LoraConfig(target_modules=(), modules_to_save=("embed_tokens",))])
def test_a_run_without_an_adapter_has_no_adapter_to_export(bases: Any, tmp_path: Path, lora: LoraConfig) -> None:
    with pytest.raises(UsageError, match="no adapter .*--format=merged"):
        Trained(bases(), lora).peft(tmp_path / "peft")
    assert list(tmp_path.iterdir()) == []


# --- tokenizer, template, generation


@pytest.mark.parametrize("kind", ["merged", "peft"])
def test_tokenizer_and_template_go_with_the_model(bases: Any, tmp_path: Path, kind: str) -> None:
    run = Trained(bases(), UNEVEN)
    output = getattr(run, kind)(tmp_path / "out")
    assert (Path(output) / "tokenizer.json").read_bytes() == (Path(run.base) / "tokenizer.json").read_bytes()
    template = read_template("turns")
    assert (Path(output) / "chat_template.jinja").read_text(encoding="utf-8") == template
    assert json_of(output, "tokenizer_config.json")["chat_template"] == template
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    assert tokenizer.eos_token == "<|end_of_turn|>" and tokenizer.bos_token == "<|begin_of_text|>"
    for prompt in (False, True):
        text = run.tokenizer.render(CHAT, add_generation_prompt=prompt)
        assert tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=prompt) == text
        assert tokenizer.apply_chat_template(CHAT, add_generation_prompt=prompt, return_dict=False) == run.tokenizer.encode(text)
    again = load_tokenizer(output)
    assert again.stop_ids == run.tokenizer.stop_ids and again.turn_end_token == "<|end_of_turn|>" and again.pad_id == 2
    assert again.render(CHAT, add_generation_prompt=False) == run.tokenizer.render(CHAT, add_generation_prompt=False)


def test_generation_config_stops_on_every_stop_token(bases: Any, tmp_path: Path) -> None:
    generation = json_of(Trained(bases(), UNEVEN).merged(tmp_path / "turns"), "generation_config.json")
    assert (generation["bos_token_id"], generation["eos_token_id"], generation["pad_token_id"]) == (0, [1, 6], 2)
    loaded = transformers.GenerationConfig.from_pretrained(tmp_path / "turns")
    assert loaded.eos_token_id == [1, 6] and loaded.pad_token_id not in loaded.eos_token_id
    alpaca = Trained(bases(), UNEVEN, "alpaca").merged(tmp_path / "alpaca")
    assert json_of(alpaca, "generation_config.json")["eos_token_id"] == [1]
    assert transformers.AutoTokenizer.from_pretrained(alpaca).eos_token == "<|end_of_text|>"


def change_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize("pad", ["<|end_of_text|>", "<|end_of_turn|>", None], ids=["eos", "turn", "none"])
def test_padding_is_never_a_stop_token(base: Path, tmp_path: Path, pad: str | None) -> None:
    """A base that pads with its end of text, or does not pad: trained further with labels at padding masked, it never stops."""
    change_json(base / "tokenizer_config.json", pad_token=pad)
    output = Trained(str(base), UNEVEN).merged(tmp_path / "merged")
    assert json_of(output, "generation_config.json")["pad_token_id"] == 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|pad|>", 2)


def test_a_special_tokens_map_of_the_base_does_not_bring_its_end_token_back(base: Path, tmp_path: Path) -> None:
    """Bases written by transformers 4 have this file, and 5 still puts it over tokenizer_config.json."""
    tokens = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|end_of_text|>"}
    (base / "special_tokens_map.json").write_text(json.dumps(tokens))
    tokenizer = transformers.AutoTokenizer.from_pretrained(Trained(str(base), UNEVEN).merged(tmp_path / "merged"))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|end_of_turn|>", "<|pad|>")


def test_what_the_base_says_of_sampling_is_kept(base: Path, tmp_path: Path) -> None:
    sampling = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "eos_token_id": [1, 3]}
    (base / "generation_config.json").write_text(json.dumps(sampling))
    generation = json_of(Trained(str(base), UNEVEN).merged(tmp_path / "merged"), "generation_config.json")
    assert (generation["temperature"], generation["top_p"], generation["eos_token_id"]) == (0.6, 0.9, [1, 3, 6])


# --- runs


def make_run(workdir: Path, run: Trained, *, random_init: bool = False) -> str:
    """A run directory as `fit` leaves it at its end, without the training."""
    config = TrainConfig(lora=run.lora)
    config.model.path, config.model.random_init, config.data.template = run.base, random_init, "turns"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(as_json(config)))
    with open_checkpointer(str(workdir), save_total_limit=1) as checkpointer:
        for step, heldout_loss in ((3, 1.5), (7, 2.5)):  # the best, then the newest
            trained = run.trained if step == 7 else {name: values * 0.5 for name, values in run.trained.items()}
            state = jax.tree.map(jnp.asarray, {"trainable": trained, "optimizer": {"count": np.asarray(step)}})
            save(checkpointer, step, state, heldout_loss=heldout_loss, about={})
    return str(workdir)


def test_a_run_is_exported_in_both_forms(bases: Any, tmp_path: Path) -> None:
    run = Trained(bases(), WITH_EMBEDDINGS)
    workdir = make_run(tmp_path / "run", run)
    assert f"{tmp_path}/merged" in export_run(workdir, f"{tmp_path}/merged", "merged", verify=False)
    same_tensors(f"{tmp_path}/merged", run.merged(tmp_path / "expected"))
    said = export_run(workdir, f"{tmp_path}/peft", "peft", verify=False)
    refused = "embed_tokens and lm_head trained in full (modules_to_save), which vLLM and llama.cpp refuse"
    assert run.base in said and refused in said
    same_tensors(f"{tmp_path}/peft", run.peft(tmp_path / "expected adapter"))
    assert close(logits_of_directory(workdir), logits_of_directory(f"{tmp_path}/merged"))  # a run directory loads too


@pytest.mark.parametrize("form", ["merged", "peft"])
def test_an_export_that_answers_otherwise_does_not_stand(
    bases: Any, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = make_run(tmp_path / "run", Trained(bases(), UNEVEN))
    seen: dict[str, Any] = {}

    def differs(directory: str, **given: Any) -> str:
        seen.update(given, names=files.list_names(directory))
        raise UsageError("another greedy token")

    monkeypatch.setattr("alif_jax.export.verify_export", differs)
    with pytest.raises(UsageError, match="another greedy token"):
        export_run(workdir, f"{tmp_path}/out", form)
    assert {key: seen[key] for key in ("form", "workdir", "step")} == {"form": form, "workdir": workdir, "step": 7}
    assert {"README.md", "tokenizer.json", "chat_template.jinja"} <= set(seen["names"])  # all that is to be verified was there
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.tmp").exists()
    with pytest.raises(UsageError, match="dtype=fp8: expected one of float32, float16, bfloat16"):
        export_run(workdir, f"{tmp_path}/out", form, dtype="fp8")


def test_the_best_checkpoint_or_that_of_a_step_is_exported(bases: Any, tmp_path: Path) -> None:
    run = Trained(bases(), UNEVEN)
    workdir = make_run(tmp_path / "run", run)
    run.trained = {name: values * 0.5 for name, values in run.trained.items()}
    for step in ("best", "3"):
        export_run(workdir, f"{tmp_path}/{step}", "merged", step, verify=False)
        same_tensors(f"{tmp_path}/{step}", run.merged(tmp_path / f"expected {step}"))
    for step, message in (("5", "no checkpoint of step 5; there are 3, 7"), ("last", "step=last: latest, best, or the number")):
        with pytest.raises(UsageError, match=message):
            export_run(workdir, f"{tmp_path}/out", "merged", step, verify=False)


def test_a_run_from_nothing_is_exported_without_its_base(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    run = Trained(str(base), LoraConfig(full=True))
    workdir = make_run(tmp_path / "run", run, random_init=True)
    export_run(workdir, f"{tmp_path}/merged", "merged", verify=False)
    assert close(logits_of_directory(workdir), logits_of_directory(f"{tmp_path}/merged"))
    with pytest.raises(UsageError, match="no adapter"):
        export_run(workdir, f"{tmp_path}/peft", "peft")


def test_a_run_without_a_checkpoint(bases: Any, tmp_path: Path) -> None:
    workdir = Path(make_run(tmp_path / "run", Trained(bases(), UNEVEN)))
    shutil.rmtree(workdir / "checkpoints")
    for form in ("merged", "peft"):
        with pytest.raises(UsageError, match=f"{workdir}: no checkpoint"):
            export_run(str(workdir), f"{tmp_path}/out", form, verify=False)
    assert not (tmp_path / "out").exists()


# --- other file systems


def test_a_move_that_fails_leaves_nothing_on_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """There a directory is moved file by file."""
    memory, moved = fsspec.filesystem("memory"), []
    original = type(memory).cp_file

    def failing(self: Any, source: str, target: str, **kwargs: Any) -> None:
        moved.append(target)
        if len(moved) == 2:
            raise OSError("the connection broke")
        original(self, source, target, **kwargs)

    monkeypatch.setattr(type(memory), "cp_file", failing)
    with pytest.raises(OSError, match="the connection broke"), files.new_directory("memory://test_move/out") as temporary:
        for name in ("a", "b", "c"):
            files.write_text(f"{temporary}/{name}", name)
    assert len(moved) == 2 and not memory.find("/test_move")


def test_on_memory(bases: Any, tmp_path: Path) -> None:
    root = "memory://test_hf"
    fsspec.filesystem("memory").put(bases(), "/test_hf/base", recursive=True)
    local, remote = Trained(bases(), WITH_EMBEDDINGS), Trained(f"{root}/base", WITH_EMBEDDINGS)
    assert np.array_equal(remote.logits(), local.logits())
    for kind in ("merged", "peft"):
        here, there = getattr(local, kind)(tmp_path / kind), getattr(remote, kind)(f"{root}/{kind}")
        fetched = tmp_path / f"{kind} from memory"
        fsspec.filesystem("memory").get(f"/test_hf/{kind}", str(fetched), recursive=True)
        names = sorted(path.name for path in Path(here).iterdir())
        assert sorted(path.name for path in fetched.iterdir()) == names
        for name in names:
            ours, theirs = ((directory / name).read_bytes() for directory in (fetched, Path(here)))
            assert ours.replace(f"{root}/base".encode(), bases().encode()) == theirs, name
        with pytest.raises(UsageError, match=f"{there} exists already"):
            getattr(remote, kind)(there)
    assert not fsspec.filesystem("memory").glob("/test_hf/*.tmp*")
    assert np.array_equal(logits_of_directory(f"{root}/merged"), logits_of_directory(str(tmp_path / "merged")))
