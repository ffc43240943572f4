"""Chunked cross-entropy against torch, and its gradients against plain autodiff of the whole logits."""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from alif_jax import model
from alif_jax.lora import LoraConfig
from alif_jax.loss import Head, token_losses
from alif_jax.sharding import Axes, MeshConfig, make_mesh
from tests import tiny

B, L, D, V = 3, 14, 8, 50


@pytest.fixture(scope="module")
def arrays() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states, head, targets; logits have a spread of about 10 and an offset that a careless exp would overflow on."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((B, L, D)) * 3
    hidden[0, 3] *= 40
    return jnp.float32(hidden), jnp.float32(rng.standard_normal((D, V))), jnp.asarray(rng.integers(0, V, (B, L)))


def chunked(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, chunk: int, trained: tuple[str, ...] = ("kernel",)
) -> jax.Array:
    axes: dict[str, Axes] = {"kernel": ("embed", "vocab")}
    made = Head(lambda params, part: part @ params["kernel"], {"kernel": head}, trained, axes)
    return token_losses(made, hidden, targets, chunk=chunk)


@pytest.mark.parametrize("chunk", [1, 5, 7, 14, 512])
def test_losses_are_torchs_cross_entropy(arrays: tuple[jax.Array, jax.Array, jax.Array], chunk: int) -> None:
    hidden, head, targets = arrays
    logits = torch.tensor(np.asarray(hidden) @ np.asarray(head))
    wanted = torch.tensor(np.asarray(targets)).long()
    expected = torch.nn.functional.cross_entropy(logits.reshape(-1, V), wanted.reshape(-1), reduction="none")
    got = chunked(*arrays, chunk)
    assert got.shape == (B, L) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected.reshape(B, L), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("chunk", [5, 7, 512])
def test_gradients_are_those_of_the_whole_logits(arrays: tuple[jax.Array, jax.Array, jax.Array], chunk: int) -> None:
    hidden, head, targets = arrays
    mask = (np.random.default_rng(1).random((B, L)) < 0.6).astype(np.float32)

    def whole(hidden: jax.Array, head: jax.Array) -> jax.Array:
        logp = jax.nn.log_softmax(hidden @ head)
        return -jnp.sum(jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0] * mask)

    def ours(hidden: jax.Array, head: jax.Array) -> jax.Array:
        return jnp.sum(chunked(hidden, head, targets, chunk) * mask)

    (expected_loss, expected), (loss, got) = (jax.jit(jax.value_and_grad(f, (0, 1)))(hidden, head) for f in (whole, ours))
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
    for ours_gradient, gradient in zip(got, expected, strict=True):
        assert np.linalg.norm(ours_gradient - gradient) <= 1e-5 * np.linalg.norm(gradient)
    assert not got[0][mask == 0].any()


def largest(chunk: int, trained: tuple[str, ...], arrays: tuple[jax.Array, jax.Array, jax.Array]) -> int:
    """Entries of the largest fp32 array of the whole program, backward pass included."""
    hidden, head, targets = arrays

    def loss(hidden: jax.Array, head: jax.Array) -> jax.Array:
        return jnp.sum(chunked(hidden, head, targets, chunk, trained))

    program = str(jax.make_jaxpr(jax.grad(loss, (0, 1) if trained else 0))(hidden, head))
    return max(math.prod(map(int, shape.split(","))) for shape in re.findall(r"f32\[([\d,]+)\]", program))


def test_logits_of_one_chunk_exist_at_a_time(arrays: tuple[jax.Array, jax.Array, jax.Array]) -> None:
    assert largest(B * L, ("kernel",), arrays) >= B * L * V
    assert largest(4, ("kernel",), arrays) == max(B * (L + 2) * D, D * V) < B * L * V


def products(function: Callable[..., Any], *arguments: jax.Array) -> int:
    """Matrix products in a program."""
    return str(jax.make_jaxpr(function)(*arguments)).count("dot_general")


def test_a_frozen_head_has_no_gradient_and_pays_for_none(arrays: tuple[jax.Array, jax.Array, jax.Array]) -> None:
    hidden, head, targets = arrays

    def loss(hidden: jax.Array, head: jax.Array, trained: tuple[str, ...]) -> jax.Array:
        return jnp.sum(chunked(hidden, head, targets, 7, trained))

    frozen, trained = (jax.grad(partial(loss, trained=names)) for names in ((), ("kernel",)))
    assert products(trained, hidden, head) == products(frozen, hidden, head) + 2 == 4  # logits (twice), ∂hidden, ∂head
    np.testing.assert_allclose(frozen(hidden, head), trained(hidden, head), rtol=1e-5, atol=1e-6)
    assert not np.any(jax.grad(partial(loss, trained=()), 1)(hidden, head))


@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=4, tensor=2), MeshConfig(data=2, fsdp=2, sequence=2)], ids=["tensor", "sequence"])
def test_gradients_on_a_mesh_are_those_of_one_device(mesh: MeshConfig) -> None:
    rng = np.random.default_rng(2)
    hidden, head = jnp.float32(rng.standard_normal((8, 6, 16))), jnp.float32(rng.standard_normal((16, 64)))
    targets, weights = jnp.asarray(rng.integers(0, 64, (8, 6))), jnp.float32(rng.random((8, 6)))

    def loss(hidden: jax.Array, head: jax.Array) -> jax.Array:
        return jnp.sum(chunked(hidden, head, targets, 2) * weights)

    expected = jax.value_and_grad(loss, (0, 1))(hidden, head)
    with jax.set_mesh(make_mesh(mesh)):
        found = jax.jit(jax.value_and_grad(loss, (0, 1)))(hidden, head)
    for ours, alone in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, alone, rtol=1e-5, atol=1e-6)


HEADS: list[Any] = [
    pytest.param({}, LoraConfig(rank=4, modules_to_save=("lm_head",)), id="trained"),
    pytest.param({}, LoraConfig(rank=4, target_modules=("lm_head",)), id="adapter"),
    pytest.param({"vocab_size": 370}, LoraConfig(rank=4, modules_to_save=("lm_head",)), id="padded"),
    pytest.param(
        {"vocab_size": 370, "original_vocab_size": 300},
        LoraConfig(rank=4, modules_to_save=("embed_tokens", "lm_head"), new_rows_only=True), id="new rows",
    ),
    pytest.param({"tie_word_embeddings": True}, LoraConfig(rank=4, modules_to_save=("embed_tokens",)), id="tied"),
    pytest.param(
        {"tie_word_embeddings": True, "vocab_size": 370, "original_vocab_size": 300},
        LoraConfig(rank=4, modules_to_save=("embed_tokens",), new_rows_only=True), id="tied, new rows",
    ),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(("changes", "lora"), HEADS)
def test_every_head_has_the_gradients_of_its_whole_logits(changes: dict[str, Any], lora: LoraConfig, dtype: Any) -> None:
    """Of hidden states and of all that is trained of the head, rows split and not, against plain autodiff of `Llama.logits`."""
    config, rng = tiny.model_config(**changes), np.random.default_rng(3)
    skeleton = model.skeleton(config, lora, dtype=dtype)
    params = model.random_params(config, lora, jax.random.key(0), tuple(skeleton.shapes))
    adapters = {name: value for name, value in params.items() if "lora" in name}  # fresh ones are 0
    params |= {name: value + jnp.float32(rng.standard_normal(value.shape) / 10) for name, value in adapters.items()}
    trained = {name: params[name] for name in skeleton.trainable if not name.startswith("layers.")}
    hidden = jnp.asarray(rng.standard_normal((8, 6, config.hidden_size)) * 3, dtype)
    targets, weights = jnp.asarray(rng.integers(0, config.vocab_size, (8, 6))), jnp.float32(rng.random((8, 6)))

    def whole(trained: dict[str, jax.Array], hidden: jax.Array) -> jax.Array:
        logp = jax.nn.log_softmax(skeleton.model(params | trained).logits(hidden))
        return -jnp.sum(jnp.take_along_axis(logp, targets[..., None], axis=-1)[..., 0] * weights)

    def ours(trained: dict[str, jax.Array], hidden: jax.Array) -> jax.Array:
        return jnp.sum(token_losses(skeleton.model(params | trained).head(), hidden, targets, chunk=5) * weights)

    expected = jax.jit(jax.value_and_grad(whole, (0, 1)))(trained, hidden)
    for mesh in (None, MeshConfig(fsdp=2, tensor=2, sequence=2)):
        with jax.set_mesh(make_mesh(mesh or MeshConfig(), jax.devices() if mesh else jax.devices()[:1])):
            found = jax.jit(jax.value_and_grad(ours, (0, 1)))(trained, hidden)
        assert trained
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            one, other = np.float32(one), np.float32(other)
            assert np.linalg.norm(one - other) <= (1e-5 if dtype == jnp.float32 else 1e-2) * np.linalg.norm(other)
