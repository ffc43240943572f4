"""The attention kernels on one device's part of the batch: splash (TPU), Pallas and cuDNN (GPU), chunks of plain XLA (CPU).

Whole rows only: token t of a row sees tokens up to t of its own segment. Nothing here knows of a mesh, positions or a cache
(attention.py does). `B` batch, `T` query length, `S` key length, `N` query heads, `K` key/value heads, `G` = N/K, `H` head dim.
"""

import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_lib
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask import CausalMask, MultiHeadMask
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import process_mask, process_mask_dkv
from jaxtyping import Array, Float, Int

with warnings.catch_warnings():  # from jax 0.11 on it points to tokamax, whose GPU attention takes no segment ids
    warnings.simplefilter("ignore", DeprecationWarning)
    from jax.experimental.pallas.ops.gpu.attention import BlockSizes, mha

CHECKPOINT_NAME = "attention"  # of what a kernel keeps for its backward pass: output and logsumexp
TPU_LANES = 128  # splash's blocks are multiples of it
TRITON_BLOCK = 16  # the smallest side of a Triton product
LONG = 8192  # from here on splash's blocks are twice as long: a quarter of the steps, still little waste on the diagonal
DQ_COPIES = (2, 4)  # at least and at most so many partial gradients of the queries, each as large as the queries


def _block(length: int, largest: int) -> int:
    """The largest half, quarter, … of `largest` that divides the length."""
    while length % largest:
        largest //= 2
    return largest


# --- TPU


class _Causal(CausalMask):
    """The causal mask, whose uniform blocks are answered by one element: splash asks of each only any() and all().

    Answered in full, a row of 131,072 tokens took 68 to 118 s of one core to prepare.
    """

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        queries, keys = index
        if queries.start >= keys.stop - 1 or queries.stop <= keys.start:
            return np.full((1, 1), queries.start >= keys.start)
        return super().__getitem__(index)


def splash_blocks(length: int, shards: int) -> splash_lib.BlockSizes:
    """Block sizes for rows of `length` keys and length / shards queries, both multiples of 128.

    The fused backward kernel computes scores once, not twice, but writes one partial gradient of the queries for each block of
    keys. So its blocks are half of the row, up to 2,048 (a row of 2,048 in four blocks took 58 MiB more for 2 rows and skips a
    little more above the diagonal); where that makes too many of them, the two kernels are used.
    """
    size = 512 if length < LONG else 1024
    q, kv = _block(length // shards, size), _block(length, size)
    compute = _block(kv, 512)
    fused_kv = _block(length, max(kv, 2048))
    while fused_kv > kv and length // fused_kv < DQ_COPIES[0]:
        fused_kv //= 2
    fused = length // fused_kv <= DQ_COPIES[1]
    backward: dict[str, Any] = {"block_kv_dkv": fused_kv} if fused else {"block_kv_dkv": kv, "block_q_dq": q, "block_kv_dq": kv}
    return splash_lib.BlockSizes(
        block_q=q, block_kv=kv, block_kv_compute=compute, block_q_dkv=q, block_kv_dkv_compute=compute,
        use_fused_bwd_kernel=fused, **backward,
    )  # fmt: skip


@lru_cache(maxsize=8)
def splash_kernel(length: int, shards: int, interpret: bool) -> splash_lib.SplashAttentionKernel:
    """The kernel for rows of `length` tokens, their queries over `shards` devices: a tree of NumPy arrays, the tables of blocks.

    The tables [1, blocks of queries, blocks of keys] hold for every head; `shards` parts of their second dimension belong to as
    many devices.
    """
    mask, blocks = MultiHeadMask([_Causal((length, length))]), splash_blocks(length, shards)
    # not by make_splash_mha: it puts the tables on a device, and the mesh in scope may be one to compile for only
    tables, mask_function = process_mask(mask, (blocks.block_q, blocks.block_kv), q_seq_shards=shards)
    dq_tables = None
    if not blocks.use_fused_bwd_kernel:
        dq_tables, _ = process_mask(mask, (blocks.block_q_dq, blocks.block_kv_dq), q_seq_shards=shards)
    dkv_tables, _ = process_mask_dkv(
        mask, (blocks.block_q_dkv, blocks.block_kv_dkv), q_seq_shards=shards, shrink_grid=not blocks.use_fused_bwd_kernel
    )
    return splash_lib.SplashAttentionKernel(
        tables, dq_tables, dkv_tables, block_sizes=blocks, is_mqa=False, save_residuals=False, attn_logits_soft_cap=None,
        mask_value=splash_lib.DEFAULT_MASK_VALUE, mask_function=mask_function, residual_checkpoint_name=CHECKPOINT_NAME,
        interpret=interpret,
    )  # fmt: skip


def splash(
    kernel: splash_lib.SplashAttentionKernel,
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    q_segments_BT: Int[Array, "B T"],
    kv_segments_BS: Int[Array, "B S"],
) -> Float[Array, "B T N H"]:
    """Splash attention, a block-sparse flash attention for TPU. T < S: a device's part of the queries, `kernel` cut alike."""
    scaled = (q_BTNH.astype(jnp.float32) * q_BTNH.shape[-1] ** -0.5).astype(q_BTNH.dtype)  # it has no scale of its own
    heads_first = (x.swapaxes(1, 2) for x in (scaled, k_BSKH, v_BSKH))
    out_BNTH: Any = jax.vmap(kernel)(*heads_first, splash_lib.SegmentIds(q_segments_BT, kv_segments_BS))
    return out_BNTH.swapaxes(1, 2)


# --- GPU


def pallas_blocks(length: int, head_dim: int, itemsize: int) -> BlockSizes:
    """Block sizes for rows of a multiple of 16 tokens; halved where a block's row is more than 256 bytes (fp32, H > 64)."""
    half = 2 if head_dim * itemsize > 256 else 1
    long, middle, short = (_block(length, size // half) for size in (128, 64, 32))
    return BlockSizes(
        block_q=long, block_k=middle, block_q_dkv=short, block_kv_dkv=middle, block_q_dq=middle, block_kv_dq=short
    )  # fmt: skip


def pallas(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segments_BT: Int[Array, "B T"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """FlashAttention-2 (arXiv 2307.08691) in Pallas over Triton, with segment ids.

    Query heads of a group are one more dimension of the grid, so keys and values are not repeated.
    """
    B, T, N, H = q_BTNH.shape
    q_BTKGH = q_BTNH.reshape(B, T, k_BTKH.shape[2], -1, H)
    blocks = pallas_blocks(T, H, q_BTNH.dtype.itemsize)
    group = jax.vmap(lambda q, k, v: _mha(q, k, v, segments_BT, blocks, interpret), in_axes=(3, None, None), out_axes=3)
    return group(q_BTKGH, k_BTKH, v_BTKH).reshape(B, T, N, H)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _mha(q: Array, k: Array, v: Array, segments: Array, blocks: BlockSizes, interpret: bool) -> Array:
    """JAX's `mha`, with names on what it keeps for the backward pass, so that remat can keep it."""
    return _mha_forward(q, k, v, segments, blocks, interpret)[0]


def _mha_forward(
    q: Array, k: Array, v: Array, segments: Array, blocks: BlockSizes, interpret: bool
) -> tuple[Array, tuple[Array, ...]]:
    out, logsumexp = mha(
        q, k, v, segments, sm_scale=q.shape[-1] ** -0.5, causal=True, block_sizes=blocks, interpret=interpret, return_residuals=True
    )
    out, logsumexp = checkpoint_name(out, CHECKPOINT_NAME), checkpoint_name(logsumexp, CHECKPOINT_NAME)
    return out, (q, k, v, segments, out, logsumexp)


def _mha_backward(blocks: BlockSizes, interpret: bool, kept: tuple[Array, ...], d_out: Array) -> tuple[Any, ...]:
    scale = kept[0].shape[-1] ** -0.5
    # the options of `mha` in its order: backward_pass_impl, num_warps, num_stages, grid, interpret, debug, return_residuals
    backward: Callable[..., tuple[Any, ...]] = mha.bwd  # type: ignore[assignment]  # None before defvjp
    return backward(scale, True, blocks, "triton", None, 2, None, interpret, False, False, kept, d_out)


_mha.defvjp(_mha_forward, _mha_backward)


def cudnn(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segments_BT: Int[Array, "B T"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """cuDNN's flash attention. It has no segment ids: a row is one segment, and padding only follows it."""
    lengths_B = jnp.maximum((segments_BT > 0).sum(axis=1, dtype=jnp.int32), 1)  # a row of padding: any finite value
    return jax.nn.dot_product_attention(
        q_BTNH, k_BTKH, v_BTKH, is_causal=True, query_seq_lengths=lengths_B, key_value_seq_lengths=lengths_B,
        implementation="xla" if interpret else "cudnn",
    )  # fmt: skip


# --- anywhere


CHUNKS, SHORTEST = 8, 128  # of a row, and the shortest: 8 leave 9/16 of the scores, and products of 128 queries are still fast


@jax.custom_vjp
def chunked(
    q_BTNH: Float[Array, "B T N H"],
    k_BTKH: Float[Array, "B T K H"],
    v_BTKH: Float[Array, "B T K H"],
    segments_BT: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attention by plain products: a chunk of queries sees only the keys up to its own end, and no scores are kept.

    The backward pass makes the scores again from the logsumexp, as FlashAttention does (arXiv 2205.14135).
    """
    return _chunked_forward(q_BTNH, k_BTKH, v_BTKH, segments_BT)[0]


def _heads_first(q_BTNH: Array, k_BTKH: Array, v_BTKH: Array) -> tuple[Array, Array, Array]:
    """[B, K, G, T, H] scaled queries, [B, K, T, H] keys and values."""
    B, T, N, H = q_BTNH.shape
    q_BKGTH = q_BTNH.reshape(B, T, k_BTKH.shape[2], -1, H).transpose(0, 2, 3, 1, 4) * H**-0.5
    return q_BKGTH, k_BTKH.swapaxes(1, 2), v_BTKH.swapaxes(1, 2)


def _tokens_first(x_BKGTH: Array) -> Array:
    B, K, G, T, H = x_BKGTH.shape
    return x_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, H)


def _ends(length: int) -> list[tuple[int, int]]:
    """Where the chunks of a row begin and end: equal ones, or one."""
    chunks = next(n for n in range(max(1, min(CHUNKS, length // SHORTEST)), 0, -1) if length % n == 0)
    return [(at, at + length // chunks) for at in range(0, length, length // chunks)]


def _mask(segments_BT: Array, start: int, end: int) -> Array:
    """[B, 1, 1, chunk, end]: keys of a query's own segment, up to itself."""
    same_segment = segments_BT[:, start:end, None] == segments_BT[:, None, :end]
    return (same_segment & (jnp.arange(start, end)[:, None] >= jnp.arange(end)))[:, None, None]


_product = partial(jnp.einsum, preferred_element_type=jnp.float32)


def _chunked_forward(q_BTNH: Array, k_BTKH: Array, v_BTKH: Array, segments_BT: Array) -> tuple[Array, tuple[Array, ...]]:
    q, k, v = _heads_first(q_BTNH, k_BTKH, v_BTKH)
    outs, logsumexps = [], []
    for start, end in _ends(q.shape[3]):
        scores = _product("bkgth,bksh->bkgts", q[..., start:end, :], k[:, :, :end])
        scores = jnp.where(_mask(segments_BT, start, end), scores, -jnp.inf)  # a token sees itself at least
        most = scores.max(-1, keepdims=True)
        weights = jnp.exp(scores - most)
        total = weights.sum(-1, keepdims=True)
        outs.append((_product("bkgts,bksh->bkgth", weights.astype(v.dtype), v[:, :, :end]) / total).astype(q.dtype))
        logsumexps.append((most + jnp.log(total))[..., 0])
    out_BTNH = checkpoint_name(_tokens_first(jnp.concatenate(outs, axis=3)), CHECKPOINT_NAME)
    logsumexp_BKGT = checkpoint_name(jnp.concatenate(logsumexps, axis=3), CHECKPOINT_NAME)
    return out_BTNH, (q_BTNH, k_BTKH, v_BTKH, segments_BT, out_BTNH, logsumexp_BKGT)


def _chunked_backward(kept: tuple[Array, ...], d_out_BTNH: Array) -> tuple[Array, Array, Array, None]:
    q_BTNH, k_BTKH, v_BTKH, segments_BT, out_BTNH, logsumexp_BKGT = kept
    q, k, v = _heads_first(q_BTNH, k_BTKH, v_BTKH)
    grouped = (*q_BTNH.shape[:2], k.shape[1], -1, q_BTNH.shape[3])
    d_out, out = (x.reshape(grouped).transpose(0, 2, 3, 1, 4) for x in (d_out_BTNH, out_BTNH))
    delta = jnp.sum(d_out.astype(jnp.float32) * out.astype(jnp.float32), axis=-1)
    d_q, (B, K, T, H) = [], k.shape
    d_k = d_v = jnp.zeros((B, K, H, T), jnp.float32)  # keys last: made the other way round, XLA turns scores, not queries
    for start, end in _ends(q.shape[3]):
        q_c, d_out_c, k_c, v_c = q[..., start:end, :], d_out[..., start:end, :], k[:, :, :end], v[:, :, :end]
        scores = _product("bkgth,bksh->bkgts", q_c, k_c)
        weights = jnp.where(_mask(segments_BT, start, end), jnp.exp(scores - logsumexp_BKGT[..., start:end, None]), 0)
        d_weights = _product("bkgth,bksh->bkgts", d_out_c, v_c)
        d_scores = (weights * (d_weights - delta[..., start:end, None])).astype(q.dtype)
        d_q.append(_product("bkgts,bksh->bkgth", d_scores, k_c))
        d_k = d_k.at[..., :end].add(_product("bkgth,bkgts->bkhs", q_c, d_scores))
        d_v = d_v.at[..., :end].add(_product("bkgth,bkgts->bkhs", d_out_c, weights.astype(q.dtype)))
    d_q_BTNH = _tokens_first(jnp.concatenate(d_q, axis=3)) * H**-0.5
    return d_q_BTNH.astype(q.dtype), *(x.transpose(0, 3, 1, 2).astype(k.dtype) for x in (d_k, d_v)), None


chunked.defvjp(_chunked_forward, _chunked_backward)
