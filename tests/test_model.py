"""The forward pass against transformers on random models, and what the model promises by itself: causality, remat, errors."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from alif_jax import UsageError
from alif_jax.lora import LoraConfig
from alif_jax.loss import token_losses
from alif_jax.model import Cache, Params, Skeleton, empty_cache, rope_frequencies, skeleton
from alif_jax.model_config import ModelConfig, RopeScaling
from tests import tiny

NOTHING = LoraConfig(rank=0, target_modules=())
LLAMA31: dict[str, Any] = {"rope_parameters": {"rope_theta": 500_000.0, **tiny.LLAMA31_ROPE}, "max_position_embeddings": 131_072}


@partial(jax.jit, static_argnames="model")
def _logits(params: Params, tokens: jax.Array, positions: jax.Array, segments: jax.Array, *, model: Skeleton) -> jax.Array:
    llama = model.model(params)
    return llama.logits(llama(tokens, positions_BL=positions, segment_ids_BL=segments)[0])


def ours(
    model: Skeleton, params: Params, tokens: np.ndarray, positions: np.ndarray | None = None, segments: np.ndarray | None = None
) -> np.ndarray:
    """Logits; without positions and segments each row is one segment."""
    at = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    positions, segments = at if positions is None else positions, np.ones_like(tokens) if segments is None else segments
    return np.asarray(_logits(params, *map(jnp.asarray, (tokens, positions, segments)), model=model))


def theirs(model: Any, tokens: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.numpy()


def random_tokens(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, tiny.VOCAB, (rows, length)).astype(np.int32)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="grouped queries, head_dim apart"),
        pytest.param({"tie_word_embeddings": True, "num_key_value_heads": 1}, id="tied, one key head"),
        pytest.param({"num_key_value_heads": 4, "head_dim": None, "rms_norm_eps": 1e-2}, id="a key head a query head"),
        pytest.param(LLAMA31 | {"num_hidden_layers": 3}, id="llama 3.1 rope"),
        pytest.param({"family": "mistral"}, id="mistral"),
        pytest.param({"family": "qwen2"}, id="qwen2: biases"),
        pytest.param({"family": "qwen2", "tie_word_embeddings": True}, id="qwen2, tied"),
        pytest.param({"family": "qwen3", "rope_theta": 1e6}, id="qwen3: norms of q and k"),
        pytest.param({"family": "qwen3", "tie_word_embeddings": True}, id="qwen3, tied"),
    ],
)
def test_logits_are_transformers(changes: dict[str, Any]) -> None:
    reference = tiny.hf_model(tiny.hf_config(**changes))
    config = ModelConfig.from_hf(reference.config.to_dict())
    model = skeleton(config, NOTHING)
    assert ("lm_head.kernel" in model.shapes) is not config.tie_word_embeddings
    tokens = random_tokens(2, 260)
    expected = theirs(reference, tokens)
    assert expected.std() > 1  # or this test could not fail
    np.testing.assert_allclose(ours(model, tiny.params_of(reference, model), tokens), expected, rtol=0, atol=1e-4)


def test_logits_are_transformers_over_8192_positions() -> None:
    changes = LLAMA31 | {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}
    reference = tiny.hf_model(tiny.hf_config(**changes, attn_implementation="sdpa"))
    model = skeleton(ModelConfig.from_hf(reference.config.to_dict()), NOTHING)
    tokens = random_tokens(1, 8_260)
    expected = theirs(reference, tokens)
    assert expected.std() > 1
    np.testing.assert_allclose(ours(model, tiny.params_of(reference, model), tokens), expected, rtol=0, atol=1e-4)


def test_rope_frequencies_are_transformers_for_llama_31_8b() -> None:
    config = tiny.hf_config(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, head_dim=128, **LLAMA31)
    expected, factor = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    assert factor == 1
    # To the last bits (torch's power differs by one between CPUs): times position 8,192 each ulp is 5e-4 rad, seen in the logits.
    np.testing.assert_array_max_ulp(rope_frequencies(ModelConfig.from_hf(config.to_dict())), expected.numpy(), maxulp=2)


def test_bfloat16_is_near_float32() -> None:
    """The base as it is stored in bf16: computed in bf16 here, in fp32 there."""
    reference = tiny.hf_model(tiny.hf_config(initializer_range=0.1)).bfloat16().float()
    model = skeleton(ModelConfig.from_hf(reference.config.to_dict()), NOTHING, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    params = tiny.params_of(reference, model)
    assert {values.dtype for values in params.values()} == {jnp.dtype(jnp.bfloat16)}
    tokens = random_tokens(2, 260)
    expected, got = theirs(reference, tokens), ours(model, params, tokens)
    assert got.dtype == np.float32 and expected.std() > 0.5
    logp, logq = (np.asarray(jax.nn.log_softmax(logits)) for logits in (expected, got))
    divergence = (np.exp(logp) * (logp - logq)).sum(-1)
    assert 0 < divergence.mean() <= 1e-3
    first, second = np.sort(expected, axis=-1)[..., -1], np.sort(expected, axis=-1)[..., -2]
    sure = first - second > 0.05
    assert sure.mean() > 0.5
    assert (got.argmax(-1) == expected.argmax(-1))[sure].all()


def test_norms_are_computed_in_float32() -> None:
    """A bf16 mean or root would be wrong by some roundings; this is right but for the last one."""
    config = tiny.model_config()
    model = skeleton(config, NOTHING, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    norm = model.model({name: jnp.ones(shape.shape, shape.dtype) for name, shape in model.shapes.items()}).norm
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 200, config.hidden_size)), jnp.bfloat16)
    exact = np.asarray(x).astype(np.float64)
    exact /= np.sqrt((exact**2).mean(-1, keepdims=True) + config.rms_norm_eps)
    got = norm(x)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got).astype(np.float64), exact, rtol=1.01 * 2**-8)


@pytest.fixture(scope="module")
def small() -> tuple[ModelConfig, Skeleton, Params]:
    config = tiny.model_config()
    model = skeleton(config, NOTHING)
    return config, model, tiny.new_params(config, model)


def test_no_token_sees_a_later_one(small: tuple[ModelConfig, Skeleton, Params]) -> None:
    _, model, params = small
    tokens = random_tokens(1, 24)
    changed = tokens.copy()
    changed[0, 10] = (tokens[0, 10] + 1) % tiny.VOCAB
    before, after = ours(model, params, tokens)[0], ours(model, params, changed)[0]
    np.testing.assert_array_equal(before[:10], after[:10])
    assert (np.abs(before - after)[10:].max(axis=-1) > 1e-3).all()


def test_segments_of_a_row_are_as_if_alone(small: tuple[ModelConfig, Skeleton, Params]) -> None:
    _, model, params = small
    tokens, at = random_tokens(1, 24), np.arange(24, dtype=np.int32)
    segments = np.repeat([1, 2, 0], [9, 13, 2]).astype(np.int32)[None]
    positions = np.concatenate([at[:9], at[:13], at[:2]])[None]
    packed = ours(model, params, tokens, positions, segments)
    assert np.isfinite(packed).all()
    for start, end in ((0, 9), (9, 22)):
        alone = np.roll(tokens, -start, axis=1)  # what follows the segment is not seen by it
        np.testing.assert_allclose(packed[:, start:end], ours(model, params, alone)[:, : end - start], rtol=0, atol=1e-5)


def test_a_cache_filled_in_two_parts_changes_nothing(small: tuple[ModelConfig, Skeleton, Params]) -> None:
    config, model, params = small
    tokens, positions, ones = random_tokens(1, 24), jnp.arange(24)[None], jnp.ones((1, 24), jnp.int32)

    @jax.jit
    def in_two_parts(params: Params, tokens: jax.Array) -> tuple[jax.Array, Cache | None]:
        llama, parts = model.model(params), []
        cache: Cache | None = empty_cache(config, 1, 32, jnp.float32)
        for part in (slice(0, 13), slice(13, 24)):
            hidden, cache = llama(
                tokens[:, part], positions_BL=positions[:, part], segment_ids_BL=ones[:, part], cache=cache, cache_index=part.start
            )
            parts.append(llama.logits(hidden))
        return jnp.concatenate(parts, axis=1), cache

    logits, cache = in_two_parts(params, jnp.asarray(tokens))
    np.testing.assert_allclose(logits, ours(model, params, tokens), rtol=0, atol=1e-5)
    assert cache is not None
    assert cache["segments"][0].tolist() == [1] * 24 + [0] * 8


# --- config.json


OLD_FORM = {
    "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "hidden_act": "silu", "attention_bias": False,
    "max_position_embeddings": 131_072, "tie_word_embeddings": False, "initializer_range": 0.02,
    "rope_theta": 500_000.0, "rope_scaling": tiny.LLAMA31_ROPE, "torch_dtype": "bfloat16",
}  # fmt: skip


def without(*keys: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in OLD_FORM.items() if key not in keys} | changes


def test_both_forms_of_config_give_llama_31_8b() -> None:
    expected = ModelConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-5, rope_theta=500_000.0, tie_word_embeddings=False,
        initializer_range=0.02, max_position_embeddings=131_072, qkv_bias=False, qk_norm=False, original_vocab_size=None,
        rope_scaling=RopeScaling(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
        ),
    )  # fmt: skip
    new_form = without("rope_theta", "rope_scaling", rope_parameters={"rope_theta": 500_000.0, **tiny.LLAMA31_ROPE})
    older_scaling = {"type" if key == "rope_type" else key: value for key, value in tiny.LLAMA31_ROPE.items()}
    assert ModelConfig.from_hf(OLD_FORM) == expected
    assert ModelConfig.from_hf(new_form) == expected
    assert ModelConfig.from_hf(without(rope_scaling=older_scaling)) == expected


def test_what_old_configs_leave_out() -> None:
    """Llama 2's has no rope_theta: transformers' default is meant."""
    config = ModelConfig.from_hf(without("num_key_value_heads", "tie_word_embeddings", "rope_theta", rope_scaling=None))
    assert (config.num_key_value_heads, config.head_dim) == (32, 128)
    assert (config.rope_theta, config.rope_scaling, config.tie_word_embeddings) == (10_000.0, None, False)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (without(model_type="gemma3"), "model_type='gemma3' is not implemented; implemented: llama, mistral, qwen2, qwen3"),
        (without(model_type="mistral", sliding_window=4096), "sliding_window=4096 is not implemented"),
        (without("attention_bias", model_type="qwen2", sliding_window=4096, use_sliding_window=True), "sliding_window=4096"),
        (without(layer_types=["full_attention", "sliding_attention"]), "layer_types has 'sliding_attention'"),
        (without(quantization_config={"quant_method": "gptq"}), "quantization_config=.*is not implemented"),
        (without(partial_rotary_factor=0.5), "partial_rotary_factor=0.5 is not implemented"),
        (without(attention_dropout=0.1), "attention_dropout=0.1 is not implemented"),
        (without(model_type="qwen3", attention_bias=True), "attention_bias=True is not implemented"),
        (without(model_type="qwen2", attention_bias=False), "attention_bias=False is not implemented"),
        (without("model_type"), "model_type=None is not implemented"),
        (without(hidden_act="gelu"), "hidden_act='gelu' is not implemented; implemented: 'silu'"),
        (without(attention_bias=True), "attention_bias=True is not implemented"),
        (without(mlp_bias=True), "mlp_bias=True is not implemented"),
        (without(rope_scaling={"rope_type": "yarn", "factor": 4.0}), "rope_type='yarn' is not implemented"),
        (without(rope_scaling={"type": "linear", "factor": 4.0}), "rope_type='linear' is not implemented"),
        (without("hidden_size", "rms_norm_eps"), "missing: hidden_size, rms_norm_eps"),
        (without(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "low_freq_factor"),
    ],
)
def test_config_errors_name_the_key(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelConfig.from_hf(config)


WINDOWS = {"sliding_window": 32_768, "max_window_layers": 28}


@pytest.mark.parametrize(
    "config",
    [
        without(model_type="mistral", sliding_window=None),
        without(model_type="mistral", sliding_window=131_072),  # no position is beyond it
        without("attention_bias", model_type="qwen2", use_sliding_window=False, **WINDOWS),
        without("attention_bias", model_type="qwen3", use_sliding_window=False, layer_types=["full_attention"] * 32, **WINDOWS),
    ],
)
def test_a_window_that_is_written_but_not_used(config: dict[str, Any]) -> None:
    parsed = ModelConfig.from_hf(config)
    assert (parsed.qkv_bias, parsed.qk_norm) == (config["model_type"] == "qwen2", config["model_type"] == "qwen3")


def test_a_vocabulary_that_no_mesh_divides_is_padded_and_never_seen() -> None:
    """Logits of the padding are −∞; those of the vocabulary, loss and gradients are those without padding."""
    config = tiny.model_config(vocab_size=301)
    assert config.padded_vocab_size == 384
    lora = LoraConfig(rank=2, modules_to_save=("embed_tokens", "lm_head"))
    model = skeleton(config, lora)
    params = tiny.new_params(config, model)
    assert params["lm_head.kernel"].shape == (64, 384)
    tokens = random_tokens(2, 16) % 301
    ids, ones = jnp.asarray(tokens), jnp.ones(tokens.shape, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(16), tokens.shape)
    logits = ours(model, params, tokens)
    assert np.isneginf(logits[..., 301:]).all()
    embedded = np.asarray(params["lm_head.kernel"])[:, :301]
    hidden = model.model(params)(ids, positions_BL=positions, segment_ids_BL=ones)[0]
    np.testing.assert_allclose(logits[..., :301], np.asarray(hidden) @ embedded, atol=1e-4)

    def loss(params: Params) -> jax.Array:
        llama = model.model(params)
        hidden, _ = llama(ids, positions_BL=positions, segment_ids_BL=ones)
        return jnp.sum(token_losses(llama.head(), hidden, ids, chunk=8))

    value, gradients = jax.value_and_grad(loss)(params)
    logp = jax.nn.log_softmax(logits[..., :301])
    np.testing.assert_allclose(value, -np.take_along_axis(np.asarray(logp), tokens[..., None], -1).sum(), rtol=1e-5)
    for name, padding in (("lm_head.kernel", np.s_[:, 301:]), ("embed_tokens.embedding", np.s_[301:])):
        gradient = np.asarray(gradients[name])
        assert np.isfinite(gradient).all() and gradient.any() and not gradient[padding].any()
