"""LoRA: a fresh adapter changes nothing, a trained one does what PEFT does, and what is trained is what the config says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from alif_jax import UsageError
from alif_jax.lora import PROJECTIONS, LoraConfig
from alif_jax.model import ModelConfig, Params, Skeleton, random_params, skeleton
from alif_jax.optim import OptimConfig, optimizer
from alif_jax.step import train_step
from tests import tiny

NOTHING = LoraConfig(rank=0, target_modules=())
BLOCKS = {name: "self_attn" if name in PROJECTIONS[:4] else "mlp" for name in PROJECTIONS}


@partial(jax.jit, static_argnames="model")
def logits(params: Params, tokens: jax.Array, *, model: Skeleton) -> jax.Array:
    llama = model.model(params)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    return llama.logits(llama(tokens, positions_BL=positions, segment_ids_BL=jnp.ones_like(tokens))[0])


@pytest.fixture(scope="module")
def tokens() -> jax.Array:
    return jax.random.randint(jax.random.key(0), (2, 32), 0, tiny.VOCAB)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_fresh_adapter_equals_the_base_bit_for_bit(tokens: jax.Array, dtype: type) -> None:
    config, lora = tiny.model_config(), LoraConfig()
    base, adapted = (skeleton(config, which, dtype=dtype, param_dtype=dtype) for which in (NOTHING, lora))
    base_params = tiny.new_params(config, base)
    fresh = jax.jit(lambda key: random_params(config, lora, key, adapted.trainable))(jax.random.key(1))
    assert {name.rsplit(".", 1)[1] for name in fresh} == {"lora_A", "lora_B"}
    for name, values in fresh.items():
        if name.endswith("lora_B"):
            assert not values.any(), name
        else:  # as PEFT: uniform in ±1/√(input dim)
            bound = values.shape[1] ** -0.5
            assert 0.9 * bound < np.abs(values).max() <= bound, name
            assert np.std(values) == pytest.approx(bound / 3**0.5, rel=0.1), name
    changed = fresh | {name: jnp.ones_like(fresh[name]) for name in fresh if name.endswith("v_proj.lora_B")}
    expected = logits(base_params, tokens, model=base)
    np.testing.assert_array_equal(logits(base_params | fresh, tokens, model=adapted), expected)
    assert not np.array_equal(logits(base_params | changed, tokens, model=adapted), expected)


@pytest.mark.parametrize(
    ("lora", "scale"),
    [
        (LoraConfig(rank=4, alpha=24.0), 6.0),
        (LoraConfig(rank=4, alpha=5.0, use_rslora=True, target_modules=("q_proj", "down_proj")), 2.5),
    ],
)
def test_a_trained_adapter_does_what_peft_does(tokens: jax.Array, lora: LoraConfig, scale: float) -> None:
    assert lora.scale() == scale
    reference = tiny.hf_model(tiny.hf_config(initializer_range=0.1))
    config = ModelConfig.from_hf(reference.config.to_dict())
    model = skeleton(config, lora)
    params = tiny.params_of(reference, model)
    base = np.asarray(logits(params, tokens, model=model))
    adapter = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, use_rslora=lora.use_rslora, target_modules=list(lora.target_modules)
    )
    theirs = peft.get_peft_model(reference, adapter).eval()
    weights = {name: weight for name, weight in theirs.named_parameters() if "lora_" in name}
    for name, weight in weights.items():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    for name in model.trainable:
        module, leaf = name.removeprefix("layers.").rsplit(".", 1)
        keys = [f"base_model.model.model.layers.{i}.{module}.{leaf}.default.weight" for i in range(2)]
        params[name] = jnp.stack([weights.pop(key).detach().numpy().T for key in keys])
    assert not weights
    with torch.no_grad():
        expected = theirs(torch.tensor(np.asarray(tokens))).logits.numpy()
    assert np.abs(expected - base).max() > 0.5
    np.testing.assert_allclose(logits(params, tokens, model=model), expected, rtol=0, atol=1e-5)


def adapters(*modules: str) -> set[str]:
    return {f"layers.{BLOCKS[module]}.{module}.lora_{leaf}" for module in modules for leaf in "AB"}


EMBEDDINGS = {"embed_tokens.embedding", "lm_head.kernel"}
NORMS = {"layers.input_layernorm.scale", "layers.post_attention_layernorm.scale", "norm.scale"}
KERNELS = {f"layers.{BLOCKS[module]}.{module}.kernel" for module in PROJECTIONS}


@pytest.mark.parametrize(
    ("lora", "trained"),
    [
        (LoraConfig(), adapters(*PROJECTIONS)),
        (LoraConfig(target_modules=("v_proj", "up_proj")), adapters("v_proj", "up_proj")),
        (LoraConfig(modules_to_save=("embed_tokens", "lm_head")), adapters(*PROJECTIONS) | EMBEDDINGS),
        (LoraConfig(target_modules=(), modules_to_save=("lm_head",)), {"lm_head.kernel"}),
        (LoraConfig(full=True, modules_to_save=("lm_head",)), EMBEDDINGS | NORMS | KERNELS),
        (NOTHING, set()),
    ],
)
def test_what_is_trained_is_fp32_and_all_else_frozen(lora: LoraConfig, trained: set[str]) -> None:
    model = skeleton(tiny.model_config(), lora, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert set(model.trainable) == trained
    assert set(model.frozen) == (EMBEDDINGS | NORMS | KERNELS) - trained
    for names, dtype in ((model.trainable, jnp.float32), (model.frozen, jnp.bfloat16)):
        assert {name: model.shapes[name].dtype for name in names} == dict.fromkeys(names, dtype)


def test_a_step_trains_every_trainable_and_nothing_else() -> None:
    config, lora = (
        tiny.model_config(),
        LoraConfig(rank=2, target_modules=("k_proj", "gate_proj"), modules_to_save=("embed_tokens",)),
    )
    model = skeleton(config, lora, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    params = tiny.new_params(config, model)
    trainable, frozen = ({name: params[name] for name in names} for names in (model.trainable, model.frozen))
    tx = optimizer(OptimConfig(learning_rate=0.01), steps=1)
    step = jax.jit(partial(train_step, model=model, tx=tx, chunk=16))
    after, state, metrics = step(trainable, tx.init(trainable), frozen, tiny.random_batch(rows=2, length=16))
    assert metrics["grad_norm"] > 0
    assert after.keys() == trainable.keys() == adapters("k_proj", "gate_proj") | {"embed_tokens.embedding"}
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(leaf.shape for leaf in moments) == sorted(2 * [values.shape for values in trainable.values()])
    for name, values in after.items():
        assert values.dtype == jnp.float32, name
        assert not np.array_equal(values, trainable[name]), name


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (LoraConfig(target_modules=("q_proj", "qkv_proj")), "lora.target_modules: qkv_proj is not one of q_proj, k_proj"),
        (LoraConfig(target_modules=("lm_head",)), "lora.target_modules: lm_head is not one of"),
        (LoraConfig(modules_to_save=("norm",)), "lora.modules_to_save: norm is not one of embed_tokens, lm_head"),
        (LoraConfig(rank=0), "lora.rank=0: a positive number"),
        (LoraConfig(rank=-1, full=True), "lora.rank=-1"),
        (LoraConfig(target_modules=()), "nothing is trained"),
    ],
)
def test_config_errors(lora: LoraConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lora.validate()


@pytest.mark.parametrize("lora", [LoraConfig(), LoraConfig(rank=0, target_modules=(), modules_to_save=("embed_tokens",))])
def test_good_configs_pass(lora: LoraConfig) -> None:
    lora.validate()


def test_a_tied_head_cannot_be_saved_alone() -> None:
    with pytest.raises(UsageError, match="tied to its embeddings; list embed_tokens alone"):
        skeleton(tiny.model_config(tie_word_embeddings=True), LoraConfig(modules_to_save=("lm_head",)))
