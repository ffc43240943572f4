"""LoRA: a fresh adapter changes nothing, a trained one does what PEFT does, and what is trained is what the config says."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch
from flax import nnx

from alif_jax import UsageError
from alif_jax.lora import PROJECTIONS, LoraConfig
from alif_jax.model import Params, Skeleton, random_params, skeleton
from alif_jax.model_config import ModelConfig
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
    ("lora", "scale", "family"),
    [
        (LoraConfig(rank=4, alpha=24.0), 6.0, "llama"),
        (LoraConfig(rank=4, alpha=5.0, use_rslora=True, target_modules=("q_proj", "down_proj")), 2.5, "llama"),
        (LoraConfig(rank=4, alpha=8.0, target_modules=("k_proj", "embed_tokens", "lm_head")), 2.0, "llama"),
        (LoraConfig(rank=4, alpha=12.0, use_dora=True), 3.0, "llama"),
        (LoraConfig(rank=4, alpha=4.0, use_dora=True, target_modules=("[qkvo]_proj",)), 1.0, "qwen2"),
    ],
)
def test_a_trained_adapter_does_what_peft_does(tokens: jax.Array, lora: LoraConfig, scale: float, family: str) -> None:
    """The same logits, and the same gradients of every trained parameter."""
    assert lora.scale() == scale
    reference = tiny.hf_model(tiny.hf_config(family, initializer_range=0.1))
    config = ModelConfig.from_hf(reference.config.to_dict())
    model = skeleton(config, lora)
    params = tiny.params_of(reference, model)
    adapter = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, use_rslora=lora.use_rslora, use_dora=lora.use_dora, target_modules=list(lora.targets())
    )
    theirs = peft.get_peft_model(reference, adapter).eval()
    torch.manual_seed(1)
    for name, weight in theirs.named_parameters():
        if "lora_" in name:
            weight.data = weight * 1.3 if "magnitude" in name else torch.randn_like(weight) * 0.1
    params |= from_peft(theirs, model, lambda weight: weight)
    targets = torch.tensor(np.asarray(tokens).astype(np.int64))
    expected = theirs(targets).logits
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()
    gradients = from_peft(theirs, model, lambda weight: weight.grad)
    with theirs.disable_adapter(), torch.no_grad():
        assert (expected - theirs(targets).logits).abs().max() > 0.5

    def loss(params: Params) -> jax.Array:
        logp = jax.nn.log_softmax(logits(params, tokens, model=model))
        return -jnp.mean(jnp.take_along_axis(logp, tokens[..., None], -1))

    np.testing.assert_allclose(logits(params, tokens, model=model), expected.detach().numpy(), rtol=0, atol=2e-5)
    ours = jax.grad(loss)(params)
    for name, gradient in gradients.items():
        assert np.abs(gradient).max() > 0, name
        np.testing.assert_allclose(ours[name], gradient, rtol=0, atol=1e-4 * np.abs(gradient).max(), err_msg=name)


def from_peft(theirs: Any, model: Skeleton, pick: Any) -> Params:
    """`pick` of each of PEFT's trained weights under our names; all of them are used."""
    weights = {name: pick(weight).detach().numpy() for name, weight in theirs.named_parameters() if "lora_" in name}
    leaves = {
        "lora_A": "lora_A.default.weight",
        "lora_B": "lora_B.default.weight",
        "lora_magnitude": "lora_magnitude_vector.default.weight",
    }
    embedding = {"lora_A": "lora_embedding_A.default", "lora_B": "lora_embedding_B.default"}
    params = {}
    for name in model.trainable:
        module, leaf = name.removeprefix("layers.").rsplit(".", 1)
        suffix = (embedding if module == "embed_tokens" else leaves)[leaf]
        if name.startswith("layers."):
            value = np.stack([weights.pop(f"base_model.model.model.layers.{i}.{module}.{suffix}") for i in range(2)])
            params[name] = jnp.asarray(value if leaf == "lora_magnitude" else value.swapaxes(1, 2))
        else:
            value = weights.pop(f"base_model.model.{'' if module == 'lm_head' else 'model.'}{module}.{suffix}")
            params[name] = jnp.asarray(value.T)
    assert not weights
    return params


def test_fresh_embedding_adapters_and_dora_change_nothing(tokens: jax.Array) -> None:
    config, base_model = tiny.model_config(), skeleton(tiny.model_config(), NOTHING)
    base_params = tiny.new_params(config, base_model)
    expected = logits(base_params, tokens, model=base_model)
    for lora in (LoraConfig(target_modules=("embed_tokens", "lm_head")), LoraConfig(use_dora=True)):
        model = skeleton(config, lora)
        fresh = random_params(config, lora, jax.random.key(1), model.trainable)
        for name in fresh:
            if name.endswith("magnitude"):
                fresh[name] = jnp.linalg.norm(base_params[name.replace("lora_magnitude", "kernel")], axis=1)
        np.testing.assert_allclose(logits(base_params | fresh, tokens, model=model), expected, rtol=0, atol=1e-5)
        assert len(fresh) == (4 if "lm_head" in lora.target_modules else 21)


def test_dropout_is_of_the_adapter_only_and_off_without_a_key(tokens: jax.Array) -> None:
    """Its mean over many keys is the adapter without dropout; the base's part is never dropped."""
    config, lora = tiny.model_config(num_hidden_layers=1), LoraConfig(rank=2, alpha=4.0, dropout=0.3, target_modules=("q_proj",))
    model, plain = skeleton(config, lora), skeleton(config, LoraConfig(rank=2, alpha=4.0, target_modules=("q_proj",)))
    params = tiny.new_params(config, model)
    np.testing.assert_array_equal(logits(params, tokens, model=model), logits(params, tokens, model=plain))
    linear = model.model(params).layers.self_attn.q_proj
    graphdef, state = nnx.split(linear)
    one_layer = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))
    x = jax.random.normal(jax.random.key(3), (4, config.hidden_size))
    without = one_layer(x)
    with_dropout = jax.vmap(lambda key: one_layer(x, key))(jax.random.split(jax.random.key(4), 4000))
    assert np.std(with_dropout, axis=0).min() > 0
    np.testing.assert_allclose(
        np.mean(with_dropout, axis=0), without, atol=6 * float(np.std(with_dropout, axis=0).max()) / 4000**0.5
    )
    kept = jax.random.bernoulli(jax.random.key(5), 0.7, x.shape)
    a, b = params["layers.self_attn.q_proj.lora_A"][0], params["layers.self_attn.q_proj.lora_B"][0]
    expected = x @ params["layers.self_attn.q_proj.kernel"][0] + 2.0 * (np.where(kept, x / 0.7, 0) @ a @ b)
    np.testing.assert_allclose(one_layer(x, jax.random.key(5)), expected, atol=1e-4)


@pytest.mark.slow
def test_dropout_differs_by_layer_projection_microbatch_and_not_by_remat() -> None:
    """With all layers and microbatches alike, a shared mask would show as equal gradients."""
    config = tiny.model_config()
    lora = LoraConfig(rank=2, dropout=0.5)
    batch = tiny.random_batch(rows=2, length=16, accumulation=2)
    batch = {name: np.stack([array[0]] * 2) for name, array in batch.items()}
    results, keys = [], (jax.random.key(0), jax.random.key(0), jax.random.key(1), None)
    for remat, used in (("full", keys[:1]), ("none", keys)):
        model = skeleton(config, lora, remat=remat)
        params = tiny.new_params(config, model)
        trainable, frozen = ({name: params[name] for name in names} for names in (model.trainable, model.frozen))
        tx = optimizer(OptimConfig(learning_rate=0.01), steps=1)
        step = jax.jit(partial(train_step, model=model, tx=tx, chunk=16))
        results.append([float(step(trainable, tx.init(trainable), frozen, batch, key)[2]["loss"]) for key in used])
    (with_remat,), (first, again, other, off) = results
    assert first == again and len({first, other, off}) == 3
    np.testing.assert_allclose(with_remat, first, rtol=1e-6)
    one = {name: array[:1] for name, array in batch.items()}
    alone = [float(step(trainable, tx.init(trainable), frozen, one, k)[2]["loss"]) for k in jax.random.split(jax.random.key(0), 2)]
    assert alone[0] != alone[1]


def test_a_step_that_is_not_finite_changes_nothing() -> None:
    config, lora = tiny.model_config(), LoraConfig(rank=2)
    model = skeleton(config, lora)
    params = tiny.new_params(config, model)
    trainable, frozen = ({name: params[name] for name in names} for names in (model.trainable, model.frozen))
    tx = optimizer(OptimConfig(learning_rate=0.01), steps=1)
    state = tx.init(trainable)
    poisoned = frozen | {"norm.scale": frozen["norm.scale"].at[3].set(jnp.nan)}
    after, new_state, metrics = jax.jit(partial(train_step, model=model, tx=tx, chunk=16))(
        trainable, state, poisoned, tiny.random_batch(rows=2, length=16)
    )
    assert np.isnan(metrics["loss"])
    for one, other in ((after, trainable), (new_state, state)):
        jax.tree.map(np.testing.assert_array_equal, one, other)


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


def test_only_the_new_rows_are_trained_and_they_are_the_tables_last_rows() -> None:
    """As training both tables in full with the gradient of every old row set to zero; with the state of the new rows alone."""
    config = tiny.model_config(vocab_size=300, original_vocab_size=290)
    lora = LoraConfig(rank=2, target_modules=(), modules_to_save=("embed_tokens", "lm_head"), new_rows_only=True)
    model = skeleton(config, lora)
    assert {name: model.shapes[name].shape for name in model.trainable} == {
        "embed_tokens.new_rows": (384 - 290, 64), "lm_head.new_rows": (384 - 290, 64),
    }  # fmt: skip
    params = tiny.new_params(config, model)
    batch = tiny.random_batch(rows=4, length=16, vocab=300)
    batch["tokens"][0, 0, :4] = batch["targets"][0, 1, :4] = [290, 291, 299, 295]
    whole = skeleton(config, LoraConfig(target_modules=(), modules_to_save=("embed_tokens", "lm_head")))
    tables = {
        "embed_tokens.embedding": params["embed_tokens.embedding"].at[290:].set(params["embed_tokens.new_rows"]),
        "lm_head.kernel": params["lm_head.kernel"].at[:, 290:].set(params["lm_head.new_rows"].T),
    }
    tx = optimizer(OptimConfig(learning_rate=0.01, max_grad_norm=0), steps=3)

    def after(model: Skeleton, params: Params) -> Params:
        trainable, frozen = ({name: params[name] for name in names} for names in (model.trainable, model.frozen))
        step = jax.jit(partial(train_step, model=model, tx=tx, chunk=16))
        return step(trainable, tx.init(trainable), frozen, batch)[0]

    ours, theirs = after(model, params), after(whole, params | tables)
    assert not np.allclose(ours["embed_tokens.new_rows"], params["embed_tokens.new_rows"])
    np.testing.assert_allclose(ours["embed_tokens.new_rows"], theirs["embed_tokens.embedding"][290:], atol=1e-5)
    np.testing.assert_allclose(ours["lm_head.new_rows"], theirs["lm_head.kernel"][:, 290:].T, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        (
            LoraConfig(target_modules=("q_proj", "qkv_proj")),
            "lora.target_modules: 'qkv_proj' matches nothing; there are q_proj, k_proj",
        ),
        (LoraConfig(target_modules=("p_proj",)), "'p_proj' matches nothing"),  # a published recipe's misspelt q_proj
        (LoraConfig(target_modules=("(q_proj",)), r"'\(q_proj' is not a regular expression"),
        (LoraConfig(alpha=0.0), "lora.alpha=0.0: a positive number"),
        (LoraConfig(target_modules=("lm_head",), modules_to_save=("lm_head",)), "lm_head is in target_modules and modules_to_save"),
        (LoraConfig(dropout=1.0), "lora.dropout=1.0: at least 0 and below 1"),
        (LoraConfig(use_dora=True, target_modules=("q_proj", "lm_head")), "lora.use_dora: of the seven projections only"),
        (LoraConfig(new_rows_only=True), "lora.new_rows_only: of which tables"),
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


@pytest.mark.parametrize(
    ("patterns", "modules"),
    [
        (("all-linear",), PROJECTIONS),
        ((".*_proj",), PROJECTIONS),
        (("[qv]_proj", "lm_head"), ("q_proj", "v_proj", "lm_head")),
        ((r".*self_attn\..*",), PROJECTIONS[:4]),
        ((r"model\.layers\.\d+\.mlp\.(gate|up)_proj",), ("gate_proj", "up_proj")),
        ((r"model\.layers\.[01]\.mlp\.down_proj",), ("down_proj",)),  # all of a model of two
        (("lm_head", "q_proj", "embed_tokens"), ("q_proj", "embed_tokens", "lm_head")),
    ],
)
def test_targets_by_name_or_regular_expression(patterns: tuple[str, ...], modules: tuple[str, ...]) -> None:
    assert LoraConfig(target_modules=patterns).targets() == modules


TIED = {"tie_word_embeddings": True}


@pytest.mark.parametrize(
    ("changes", "lora", "quantization", "message"),
    [
        (TIED, LoraConfig(modules_to_save=("lm_head",)), "", "tied to its embeddings; list embed_tokens alone"),
        (TIED, LoraConfig(target_modules=("embed_tokens",)), "", "embed_tokens of this model are tied"),
        ({}, LoraConfig(target_modules=(r"model\.layers\.[0]\..*",)), "", "matches q_proj in some layers only"),
        ({}, LoraConfig(target_modules=(r".*layers\.7\..*",)), "", "matches q_proj in no layer"),
        ({}, LoraConfig(modules_to_save=("lm_head",), new_rows_only=True), "", "this base has no new rows"),
        ({}, LoraConfig(use_dora=True), "int8", "DoRA would divide by the norm of rounded weights"),
        ({}, LoraConfig(full=True), "nf4", "lora.full=True trains the weights themselves"),
        ({}, LoraConfig(), "int3", "model.quantization='int3' is not one of int8, nf4"),
    ],
)
def test_what_a_model_cannot_train(changes: dict[str, Any], lora: LoraConfig, quantization: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        skeleton(tiny.model_config(**changes), lora, quantization=quantization)
