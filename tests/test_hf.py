"""Loading a Hugging Face directory: the same values as transformers, each device its own part, and bases that do not fit."""

import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from jax.sharding import NamedSharding

from alif_jax import UsageError
from alif_jax.hf import load_params, read_model_config
from alif_jax.load import check_turn_tokens, load_model
from alif_jax.lora import LoraConfig
from alif_jax.model import skeleton
from alif_jax.safetensors import Checkpoint
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tokenizer import load_tokenizer
from tests import tiny


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`bases(dtype=…, tie_word_embeddings=…, …)`: a base directory that no test changes, made once."""
    return cache(lambda **changes: tiny.make_base(tmp_path_factory.mktemp("base"), **changes))


@pytest.fixture
def base(bases: Any, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(bases(), tmp_path / "base"))


def one_device() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def tensors_of(directory: str | Path) -> dict[str, torch.Tensor]:
    """Of all files of a directory, read by the library."""
    shards = [safetensors.torch.load_file(path) for path in Path(directory).glob("*.safetensors")]
    return {name: tensor for shard in shards for name, tensor in shard.items()}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_loads_what_transformers_wrote(bases: Any, tied: bool, family: str) -> None:
    directory = bases(family=family, tie_word_embeddings=tied)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    loaded = load_model(directory, one_device())
    expected = tiny.params_of(model, loaded.skeleton)
    assert loaded.params.keys() == expected.keys() and ("lm_head.kernel" in expected) != tied
    for name, values in loaded.params.items():
        assert values.dtype == jnp.float32 and np.array_equal(values, expected[name]), name


@pytest.mark.parametrize(("fsdp", "tensor"), [(8, 1), (4, 2)])
def test_eight_devices_hold_their_own_shards_only(bases: Any, fsdp: int, tensor: int) -> None:
    directory = bases(max_shard_size="100KB")
    assert len(list(Path(directory).glob("*.safetensors"))) > 2
    whole = load_model(directory, one_device()).params
    split = load_model(directory, make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor)), param_dtype=jnp.bfloat16).params
    held = 0
    for name, values in split.items():
        parts = 1 if name.endswith("scale") else 8  # every matrix is split over all devices, the norms' scales over none
        for shard in values.addressable_shards:
            assert shard.data.size == values.size // parts, name
            assert np.array_equal(shard.data, whole[name][shard.index].astype(jnp.bfloat16)), name
        assert len(values.addressable_shards) == 8
        held += values.addressable_shards[0].data.nbytes
    assert held < sum(values.nbytes for values in split.values()) / 7


def test_a_tensor_is_read_once_for_all_devices(bases: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, config = bases(), read_model_config(bases())
    model, read = skeleton(config, LoraConfig(rank=0, target_modules=())), Counter[str]()
    original = Checkpoint.read

    def spy(self: Checkpoint, name: str, rows: slice = slice(None)) -> np.ndarray:
        read[name] += 1
        return original(self, name, rows)

    monkeypatch.setattr(Checkpoint, "read", spy)
    load_params(directory, model, model.frozen, make_mesh(MeshConfig(fsdp=4, tensor=2)), config)
    assert read == dict.fromkeys(tensors_of(directory), 1)


@pytest.mark.parametrize(("name", "mesh"), [
    ("embed_tokens.embedding", MeshConfig(fsdp=1, tensor=8)), ("layers.mlp.up_proj.kernel", MeshConfig(fsdp=1, tensor=8)),
    ("layers.mlp.down_proj.kernel", MeshConfig(fsdp=8)),
])  # fmt: skip
def test_only_the_rows_of_the_own_devices_are_read(
    bases: Any, name: str, mesh: MeshConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of several that has the third and fourth device of eight, which split the file's rows: it reads no others."""
    directory, config, devices = bases(), read_model_config(bases()), make_mesh(mesh)
    model = skeleton(config, LoraConfig(rank=0, target_modules=()))
    whole = load_params(directory, model, (name,), devices, config)[name]
    read, original, make = set(), Checkpoint.read, jax.make_array_from_callback
    everywhere, lock = NamedSharding.addressable_devices_indices_map, Lock()

    def spy(self: Checkpoint, key: str, rows: slice = slice(None)) -> np.ndarray:
        read.add((rows.start, rows.stop, self.entries[key].shape[0]))
        return original(self, key, rows)

    def own(self: NamedSharding, shape: tuple[int, ...]) -> Any:
        return dict(list(everywhere(self, shape).items())[2:4])

    def of_own(shape: tuple[int, ...], sharding: NamedSharding, part: Any) -> jax.Array:
        """The other devices' parts, which other processes would give, are zeros."""
        mine = own(sharding, shape).values()
        with lock, pytest.MonkeyPatch.context() as back:  # JAX itself is to see all eight
            back.setattr(NamedSharding, "addressable_devices_indices_map", everywhere)
            return make(shape, sharding, lambda index: part(index) if index in mine else np.zeros(shape, np.float32)[index])

    monkeypatch.setattr(Checkpoint, "read", spy)
    monkeypatch.setattr(NamedSharding, "addressable_devices_indices_map", own)
    monkeypatch.setattr(jax, "make_array_from_callback", of_own)
    found = load_params(directory, model, (name,), devices, config)[name]
    [(start, stop, rows)] = read
    assert (start, stop) == (rows // 4, rows // 2)
    for shard in found.addressable_shards[2:4]:
        assert np.array_equal(shard.data, whole[shard.index]) and np.any(shard.data)


def test_the_last_rows_of_a_table_and_what_pads_it(bases: Any) -> None:
    """392 rows on a mesh of 512: zeros beyond; new rows are those from 384 on, on one device and on eight."""
    directory = bases(vocab_size=392, original_vocab_size=384)
    config = read_model_config(directory)
    lora = LoraConfig(target_modules=(), modules_to_save=("embed_tokens", "lm_head"), new_rows_only=True)
    model, weights = skeleton(config, lora), tensors_of(directory)
    for mesh in (one_device(), make_mesh(MeshConfig(fsdp=2, tensor=4))):
        names = ("embed_tokens.embedding", "lm_head.kernel", "embed_tokens.new_rows", "lm_head.new_rows")
        params = {name: np.asarray(values) for name, values in load_params(directory, model, names, mesh, config).items()}
        table, head = weights["model.embed_tokens.weight"].numpy(), weights["lm_head.weight"].numpy()
        assert params["embed_tokens.embedding"].shape == (512, 64)
        for name, expected in (("embed_tokens.embedding", table), ("lm_head.kernel", head)):
            ours = params[name].T if name == "lm_head.kernel" else params[name]
            np.testing.assert_array_equal(ours[:392], expected)
            assert not ours[392:].any()
        for name, expected in (("embed_tokens.new_rows", table), ("lm_head.new_rows", head)):
            np.testing.assert_array_equal(params[name][:8], expected[384:])
            assert params[name].shape == (128, 64) and not params[name][8:].any()


@pytest.mark.parametrize("key", ["model.embed_tokens.weight", "lm_head.weight"])
def test_a_turn_token_that_nobody_trained_is_named(base: Path, key: str) -> None:
    """Its row is next to zero, as reserved tokens of base models are: frozen it can be neither read nor written."""
    config, mesh = read_model_config(str(base)), one_device()

    def check(lora: LoraConfig, template: str = "turns") -> None:
        model = skeleton(config, lora)
        frozen = load_params(str(base), model, model.frozen, mesh, config)
        check_turn_tokens(load_tokenizer(str(base), template), lora, frozen, config, mesh)

    check(LoraConfig())
    turn_end = tiny.SPECIAL.index("<|end_of_turn|>")
    change_tensors(base, **{key: tensors_of(base)[key].index_fill(0, torch.tensor([turn_end]), 1e-6)})
    with pytest.raises(UsageError, match=rf"<\|end_of_turn\|>, whose row in {key.split('.')[-2]} was never trained .*=alpaca"):
        check(LoraConfig())
    check(LoraConfig(modules_to_save=("embed_tokens", "lm_head")))
    check(LoraConfig(), "alpaca")


def test_a_mesh_that_does_not_divide(bases: Any) -> None:
    with pytest.raises(UsageError, match=r"\(embed, 60\) cannot be divided over fsdp × sequence = 8"):
        load_model(bases(hidden_size=60), make_mesh(MeshConfig(fsdp=8)))


def change_tensors(directory: Path, **changes: torch.Tensor | None) -> None:
    tensors = tensors_of(directory)
    for name, value in changes.items():
        tensors[name] = value  # type: ignore[assignment]
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    safetensors.torch.save_file(kept, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model.layers.1.mlp.up_proj.weight", None, "is missing"),
        ("lm_head.weight", None, "is missing"),
        ("model.layers.2.mlp.up_proj.weight", torch.zeros(96, 64), "is not of this architecture"),
        ("model.layers.0.self_attn.q_proj.bias", torch.zeros(96), "is not of this architecture"),
        ("model.layers.0.mlp.up_proj.weight", torch.zeros(64, 96), "has shape (64, 96), config.json implies (96, 64)"),
        ("model.embed_tokens.weight", torch.zeros(392, 64), "has shape (392, 64), config.json implies (384, 64)"),
        ("model.layers.0.input_layernorm.weight", torch.zeros(64, 1), "has shape (64, 1), config.json implies (64,)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(base: Path, name: str, value: torch.Tensor | None, words: str) -> None:
    change_tensors(base, **{name: value})
    with pytest.raises(UsageError) as error:
        load_model(str(base), one_device())
    assert str(base) in str(error.value) and name in str(error.value) and words in str(error.value)


def test_what_old_checkpoints_carry_is_no_error(base: Path, bases: Any, tmp_path: Path) -> None:
    change_tensors(base, **{"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(12)})
    load_model(str(base), one_device())
    tied = Path(shutil.copytree(bases(tie_word_embeddings=True), tmp_path / "tied"))
    change_tensors(tied, **{"lm_head.weight": tensors_of(tied)["model.embed_tokens.weight"].clone()})
    load_model(str(tied), one_device())


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "config.json: no such file"),
        ("tokenizer.json", "tokenizer.json: no such file"),
        ("tokenizer_config.json", "tokenizer_config.json: eos_token=None"),
        ("model.safetensors", "neither model.safetensors nor model.safetensors.index.json"),
    ],
)
def test_a_base_without_a_needed_file(base: Path, file: str, words: str) -> None:
    (base / file).unlink()
    with pytest.raises(UsageError) as error:
        load_model(str(base), one_device())
    assert str(base) in str(error.value) and words in str(error.value)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_is_cut_off(base: Path, file: str) -> None:
    (base / file).write_text((base / file).read_text()[:100])
    with pytest.raises(UsageError, match=str(base / file)):
        load_model(str(base), one_device())


def test_a_tokenizer_larger_than_the_embedding(bases: Any) -> None:
    directory = bases(vocab_size=376)
    with pytest.raises(UsageError, match=f"{directory}: the tokenizer has ids up to 383, but the embedding has only 376 rows"):
        load_model(directory, one_device())
    load_model(bases(vocab_size=392), one_device())  # rows that no token uses are usual


def test_no_such_model(tmp_path: Path) -> None:
    for path in (f"{tmp_path}/nowhere", "nowhere", "owner/name/more"):
        with pytest.raises(UsageError, match=f"{path}: neither a directory here nor a hub id"):
            load_model(path, one_device())
    with pytest.raises(UsageError, match="memory://test_hf/nowhere/config.json: no such file"):
        load_model("memory://test_hf/nowhere", one_device())


def test_from_memory(bases: Any) -> None:
    fsspec.filesystem("memory").put(bases(max_shard_size="100KB"), "/test_hf/base", recursive=True)
    ours, theirs = (load_model(path, one_device()) for path in ("memory://test_hf/base", bases()))
    assert ours.config == theirs.config and ours.tokenizer.encode("سلام") == theirs.tokenizer.encode("سلام")
    assert all(np.array_equal(values, theirs.params[name]) for name, values in ours.params.items())
