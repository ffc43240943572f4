"""Adapters read back: PEFT's own files and ours, the product kept, the configured scale restored, everything else refused."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from alif_jax import UsageError
from alif_jax.data.template import DataConfig
from alif_jax.export import export_run
from alif_jax.load import ModelSource
from alif_jax.lora import EMBEDDINGS, LoraConfig
from alif_jax.model import skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.optim import OptimConfig
from alif_jax.peft import read_adapter
from alif_jax.sharding import MeshConfig
from alif_jax.train import TrainConfig, fit
from tests import tiny

VARIANTS: dict[str, tuple[LoraConfig, dict[str, Any]]] = {
    "plain": (LoraConfig(rank=4, alpha=6.0), {"lora_alpha": 3}),
    "rslora": (LoraConfig(rank=4, alpha=8.0, target_modules=("q_proj", "down_proj")), {"lora_alpha": 5, "use_rslora": True}),
    "patterns": (
        LoraConfig(rank=4, alpha=4.0),
        {"lora_alpha": 16, "alpha_pattern": {"v_proj": 2, r"layers\.1\.mlp\.up_proj": 7}},
    ),
    "embeddings": (LoraConfig(rank=4, alpha=4.0, modules_to_save=EMBEDDINGS), {"lora_alpha": 8}),
    "tables": (LoraConfig(rank=4, alpha=4.0, target_modules=("v_proj", *EMBEDDINGS)), {"lora_alpha": 2}),
    "dora": (LoraConfig(rank=4, alpha=4.0, use_dora=True), {"lora_alpha": 12, "use_dora": True}),
}


def saved_by_peft(directory: Path, lora: LoraConfig, **settings: Any) -> tuple[Any, Any]:
    """An adapter with random values, written by PEFT; and the model that carries it."""
    model = tiny.hf_model(tiny.hf_config(initializer_range=0.1))
    config = peft.LoraConfig(
        r=lora.rank, target_modules=list(lora.targets()), modules_to_save=list(lora.modules_to_save) or None, **settings
    )
    adapted = peft.get_peft_model(model, config).eval()
    torch.manual_seed(1)
    for name, weight in adapted.named_parameters():
        if weight.requires_grad:
            weight.data = weight * 1.2 if "magnitude" in name else weight + torch.randn_like(weight) * 0.1
    adapted.save_pretrained(directory)
    return model, adapted


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_product_is_kept_and_our_scale_restored(tmp_path: Path, variant: str) -> None:
    """PEFT's logits come out under OUR alpha: only with B scaled by s_file/s_config can they."""
    lora, settings = VARIANTS[variant]
    reference, adapted = saved_by_peft(tmp_path, lora, **settings)
    config = ModelConfig.from_hf(reference.config.to_dict())
    model = skeleton(config, lora)
    trained = read_adapter(str(tmp_path), lora, config)
    assert {name: values.shape for name, values in trained.items()} == {n: model.shapes[n].shape for n in model.trainable}
    original = tiny.hf_model(tiny.hf_config(initializer_range=0.1))
    params = tiny.params_of(original, model) | trained
    tokens = np.random.default_rng(0).integers(0, tiny.VOCAB, (2, 24))
    llama = model.model({name: jnp.asarray(values) for name, values in params.items()})
    positions = jnp.broadcast_to(jnp.arange(24), tokens.shape)
    hidden, _ = llama(jnp.asarray(tokens), positions_BL=positions, segment_ids_BL=jnp.ones(tokens.shape, jnp.int32))
    with torch.no_grad():
        expected = adapted(torch.tensor(tokens)).logits.numpy()
        assert np.abs(expected - original(torch.tensor(tokens)).logits.numpy()).max() > 0.5
    np.testing.assert_allclose(llama.logits(hidden), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("lora", "change", "message"),
    [
        (LoraConfig(rank=8), {}, r"lora_A.weight has shape \(4, \d+\), \(8, \d+\) expected .* lora.rank=8"),
        (LoraConfig(rank=4, target_modules=("q_proj",)), {}, "the adapter also has .*this run has target_modules=q_proj"),
        (LoraConfig(rank=4, modules_to_save=EMBEDDINGS), {}, "the adapter has no .*modules_to_save=embed_tokens,lm_head"),
        (LoraConfig(rank=4, use_dora=True), {}, "use_dora=False there, lora.use_dora=True here"),
        (LoraConfig(rank=4), {"bias": "all"}, "bias='all' in adapter_config.json; only 'none'"),
        (LoraConfig(rank=4), {"peft_type": "IA3"}, "peft_type='IA3'"),
        (LoraConfig(rank=4), {"layers_to_transform": [0]}, "layers_to_transform"),
        (LoraConfig(rank=4), {"init_lora_weights": "pissa"}, "init_lora_weights='pissa' changed the base"),
    ],
)
def test_another_adapter_is_refused(tmp_path: Path, lora: LoraConfig, change: dict[str, Any], message: str) -> None:
    reference, _ = saved_by_peft(tmp_path, LoraConfig(rank=4), lora_alpha=8)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UsageError, match=message):
        read_adapter(str(tmp_path), lora, ModelConfig.from_hf(reference.config.to_dict()))


@pytest.mark.filterwarnings("ignore")  # PEFT warns of just this
def test_a_head_trained_apart_from_the_embeddings_it_is_tied_to_is_refused(tmp_path: Path) -> None:
    model = tiny.hf_model(tiny.hf_config(tie_word_embeddings=True))
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=list(EMBEDDINGS))
    adapted = peft.get_peft_model(model, config)
    adapted.base_model.model.lm_head.modules_to_save.default.weight.data += 0.1
    adapted.save_pretrained(tmp_path)
    lora = LoraConfig(rank=4, target_modules=("q_proj",), modules_to_save=("embed_tokens",))
    with pytest.raises(UsageError, match="its lm_head was trained apart from the embeddings"):
        read_adapter(str(tmp_path), lora, ModelConfig.from_hf(model.config.to_dict()))


def test_tables_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    """Padded to the mesh they would pass for this base's, with zeros for its new rows."""
    lora = LoraConfig(rank=4, modules_to_save=EMBEDDINGS)
    saved_by_peft(tmp_path, lora, lora_alpha=8)
    for vocab_size in (383, 390):
        with pytest.raises(UsageError, match=rf"has shape \(384, 64\), \({vocab_size}, 64\) expected for this base"):
            read_adapter(str(tmp_path), lora, tiny.model_config(vocab_size=vocab_size))


def test_new_rows_come_out_of_whole_tables(tmp_path: Path) -> None:
    """As our own export of such a run writes them."""
    saved_by_peft(tmp_path, LoraConfig(rank=4, modules_to_save=EMBEDDINGS), lora_alpha=8)
    lora = LoraConfig(rank=4, modules_to_save=EMBEDDINGS, new_rows_only=True)
    whole = read_adapter(str(tmp_path), LoraConfig(rank=4, modules_to_save=EMBEDDINGS), tiny.model_config())
    trained = read_adapter(str(tmp_path), lora, tiny.model_config(original_vocab_size=370))
    np.testing.assert_array_equal(trained["embed_tokens.new_rows"], whole["embed_tokens.embedding"][370:])
    np.testing.assert_array_equal(trained["lm_head.new_rows"], whole["lm_head.kernel"][:, 370:].T)
    assert "embed_tokens.embedding" not in trained


# --- training goes on


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, `data`, and `run`: 5 steps with embeddings and head."""
    path = tmp_path_factory.mktemp("peft")
    tiny.make_base(path / "base")
    tiny.make_shards(path / "data", tiny.conversations(40))
    fit(config(path), str(path / "run"))
    export_run(str(path / "run"), str(path / "adapter"), "peft", verify=False)
    return path


def config(place: Path, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": ModelSource(path=str(place / "base"), dtype="float32", param_dtype="float32", remat="none"),
        "lora": LoraConfig(rank=4, alpha=20.0, modules_to_save=EMBEDDINGS),  # scale 5
        "data": DataConfig(path=(str(place / "data"),), sequence_length=128, template="turns"),
        "optim": OptimConfig(learning_rate=1e-3),
        "mesh": MeshConfig(fsdp=8),
        "batch_size": 8,
        "max_steps": 5,
        "logging_steps": 1,
    }
    return TrainConfig(**(fields | changes))


def losses(workdir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_five_steps_after_export_and_import_are_those_without(place: Path, tmp_path: Path) -> None:
    """The exported B carries the scale (alpha = r): taken as it is, five times the learning rate would be needed."""
    for name, source in (("straight", "run"), ("round_trip", "adapter")):
        going_on = config(place, seed=1)
        going_on.model.init_from = str(place / source)
        fit(going_on, str(tmp_path / name))
    straight, round_trip = losses(tmp_path / "straight"), losses(tmp_path / "round_trip")
    np.testing.assert_allclose(round_trip, straight, rtol=1e-5)
    assert straight[4] < straight[0] - 0.05
    fit(config(place, seed=1), str(tmp_path / "fresh"))
    assert abs(losses(tmp_path / "fresh")[0] - straight[0]) > 0.05  # the source was used at all


def test_a_run_goes_on_under_another_alpha_with_the_same_product(place: Path, tmp_path: Path) -> None:
    going_on = config(place, seed=1, lora=LoraConfig(rank=4, alpha=4.0, modules_to_save=EMBEDDINGS), max_steps=1)
    going_on.model.init_from = str(place / "run")
    fit(going_on, str(tmp_path / "other"))
    same = config(place, seed=1, max_steps=1)
    same.model.init_from = str(place / "run")
    fit(same, str(tmp_path / "same"))
    np.testing.assert_allclose(losses(tmp_path / "other"), losses(tmp_path / "same"), rtol=1e-5)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (LoraConfig(rank=8, modules_to_save=EMBEDDINGS), "lora.rank is 4 there and 8 here"),
        (LoraConfig(rank=4, modules_to_save=EMBEDDINGS, target_modules=("q_proj",)), "lora.target_modules is .* there and"),
        (LoraConfig(rank=4), "lora.modules_to_save is"),
    ],
)
def test_a_run_with_other_trainables_is_refused(place: Path, tmp_path: Path, lora: LoraConfig, message: str) -> None:
    going_on = config(place, lora=lora)
    going_on.model.init_from = str(place / "run")
    with pytest.raises(UsageError, match=message):
        fit(going_on, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_neither_a_run_nor_an_adapter(place: Path, tmp_path: Path) -> None:
    going_on = config(place)
    going_on.model.init_from = str(place / "base")
    with pytest.raises(UsageError, match="neither a run directory nor a PEFT adapter"):
        fit(going_on, str(tmp_path / "run"))
