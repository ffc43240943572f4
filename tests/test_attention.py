"""Attention against the definition, query by query in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.attention import attend

Arrays = dict[str, np.ndarray]


def case(*, B: int = 2, T: int = 20, S: int = 28, N: int = 6, K: int = 2, H: int = 8) -> Arrays:
    """Queries are the last T of S keys; each row has its own segments, the last two keys and the first key are padding."""
    rng = np.random.default_rng(0)
    arrays = {
        "q_BTNH": rng.standard_normal((B, T, N, H), np.float32) * 2,
        "k_BSKH": rng.standard_normal((B, S, K, H), np.float32) * 2,
        "v_BSKH": rng.standard_normal((B, S, K, H), np.float32),
    }
    segments, positions = np.zeros((2, B, S), np.int32)
    for row in range(B):
        first = 9 + 4 * row
        segments[row, 1:first], segments[row, first : S - 2] = 1, 2
        positions[row, 1:first], positions[row, first : S - 2] = np.arange(first - 1), np.arange(S - 2 - first)
    here = {"q_positions_BT": positions[:, -T:], "q_segments_BT": segments[:, -T:]}
    return arrays | here | {"kv_positions_BS": positions, "kv_segments_BS": segments}


def plain(a: Arrays) -> np.ndarray:
    """Softmax(q·k/√H)·v over the keys that a query may see, in fp64; NaN for padding."""
    B, T, N, H = a["q_BTNH"].shape
    group = N // a["k_BSKH"].shape[2]
    out = np.full((B, T, N, H), np.nan)
    for b, t, n in np.ndindex(B, T, N):
        segment, position = a["q_segments_BT"][b, t], a["q_positions_BT"][b, t]
        if segment == 0:
            continue
        seen = (a["kv_segments_BS"][b] == segment) & (a["kv_positions_BS"][b] <= position)
        keys, values = (a[name][b, seen, n // group].astype(np.float64) for name in ("k_BSKH", "v_BSKH"))
        weights = np.exp(keys @ a["q_BTNH"][b, t, n].astype(np.float64) / H**0.5)
        out[b, t, n] = weights @ values / weights.sum()
    return out


def ours(a: dict[str, Any]) -> np.ndarray:
    a = dict(a)
    q, k, v = (a.pop(name) for name in ("q_BTNH", "k_BSKH", "v_BSKH"))
    return np.asarray(jax.jit(attend)(q, k, v, **a))


@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_attention_is_the_definition(kv_heads: int) -> None:
    arrays = case(K=kv_heads)
    expected, got = plain(arrays), ours(arrays)
    real = arrays["q_segments_BT"] > 0
    assert np.isnan(expected[~real]).all() and (~real).sum() == 4
    assert np.std(expected[real]) > 0.1
    np.testing.assert_allclose(got[real], expected[real], rtol=0, atol=1e-5)
    assert np.isfinite(got).all()


def test_softmax_is_fp32_for_bfloat16() -> None:
    """With bf16 probabilities the error would be some times larger."""
    arrays = case()
    rounded: dict[str, Any] = {k: jnp.asarray(v, jnp.bfloat16) if v.dtype == np.float32 else v for k, v in arrays.items()}
    exact = plain({name: np.asarray(values).astype(np.float32) if values.ndim == 4 else values for name, values in rounded.items()})
    real = arrays["q_segments_BT"] > 0
    got = ours(rounded)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got[real].astype(np.float64), exact[real], rtol=0.01, atol=0.01)


def test_rows_that_see_nothing_are_finite_and_send_no_nan_back() -> None:
    arrays: dict[str, Any] = case()
    arrays["q_segments_BT"] = np.zeros_like(arrays["q_segments_BT"])
    arrays["kv_segments_BS"] = np.ones_like(arrays["kv_segments_BS"])  # nothing in common at all
    assert np.isfinite(ours(arrays)).all()
    q, k, v = (jnp.asarray(arrays.pop(name)) for name in ("q_BTNH", "k_BSKH", "v_BSKH"))
    gradients = jax.jit(jax.grad(lambda q, k, v: attend(q, k, v, **arrays).sum(), argnums=(0, 1, 2)))(q, k, v)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_unknown_backend() -> None:
    arrays: dict[str, Any] = case()
    with pytest.raises(UsageError, match="attention backend 'flash' is not one of xla, chunked, splash, pallas, cudnn;"):
        attend(**arrays, backend="flash")
