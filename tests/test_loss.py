"""Chunked cross-entropy against torch, and its gradients against plain autodiff of the whole logits."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from alif_jax.loss import token_losses

B, L, D, V = 3, 14, 8, 50


@pytest.fixture(scope="module")
def arrays() -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hidden states, head, targets; logits have a spread of about 10 and an offset that a careless exp would overflow on."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((B, L, D)) * 3
    hidden[0, 3] *= 40
    return jnp.float32(hidden), jnp.float32(rng.standard_normal((D, V))), jnp.asarray(rng.integers(0, V, (B, L)))


def chunked(hidden: jax.Array, head: jax.Array, targets: jax.Array, chunk: int) -> jax.Array:
    return token_losses(lambda part: part @ head, hidden, targets, chunk=chunk)


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


def test_logits_of_one_chunk_exist_at_a_time(arrays: tuple[jax.Array, jax.Array, jax.Array]) -> None:
    """No array of the whole program, backward pass included, has the size of all logits."""
    hidden, head, targets = arrays

    def largest(chunk: int) -> int:
        def loss(hidden: jax.Array, head: jax.Array) -> jax.Array:
            return jnp.sum(chunked(hidden, head, targets, chunk))

        program = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(hidden, head))
        return max(math.prod(map(int, shape.split(","))) for shape in re.findall(r"f32\[([\d,]+)\]", program))

    assert largest(chunk=L) >= B * L * V
    assert largest(chunk=2) < B * L * V
