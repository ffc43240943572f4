"""Attention over segment ids: one function, whatever computes it, and which backend can keep the mask where.

The kernels have been compared with `xla` in interpret mode (cuDNN: by XLA's own form of the same call), splash has been compiled
for TPUs and the Pallas kernel lowered for CUDA; none has run on its chip yet.
Not here: the kernels and their block sizes (attention_kernels.py).
`B` batch, `T` query length, `S` key length, `N` query heads, `K` key/value heads, `H` head dim.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from alif_jax import UsageError
from alif_jax.attention_kernels import CHECKPOINT_NAME, TPU_LANES, TRITON_BLOCK, chunked, cudnn, pallas, splash, splash_kernel
from alif_jax.sharding import spec_of

BACKENDS = ("xla", "chunked", "splash", "pallas", "cudnn")
CHOICES = ("auto", *BACKENDS)  # of a config; `choose_backend` says what `auto` is
PLATFORM = {"splash": "tpu", "pallas": "gpu", "cudnn": "gpu"}  # where a kernel runs; xla and chunked run everywhere
SLOTS = 128  # of a cache that `attend_slots` reads at a time: fewer cost more loops, more are read in vain
MULTIPLE = {"splash": TPU_LANES, "pallas": TRITON_BLOCK}  # of a row's tokens on one device


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    *,
    q_positions_BT: Int[Array, "B T"],
    kv_positions_BS: Int[Array, "B S"],
    q_segments_BT: Int[Array, "B T"],
    kv_segments_BS: Int[Array, "B S"],
    backend: str = "xla",
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Causal attention inside each segment: a query sees the keys of its own segment at positions up to its own.

    Segment 0 is padding; its rows come out as something finite that nobody reads. Softmax in fp32, scale 1/√H.

    backend: `xla` is the reference and takes any T, S and positions. The kernels take whole rows (T = S, queries and keys the
    same tokens), whose positions rise inside each segment, and go by the order of the tokens; `cudnn` takes rows of one segment
    with padding only at the end. `check_backend` says what else they need. Under a mesh (`jax.set_mesh`) a kernel runs on each
    device's part; with a sequence axis each device's queries see the whole row's keys, gathered there (the gradients of
    keys and values are reduced and scattered back). What it keeps for its backward pass is named "attention" for remat; of `xla`
    and `cudnn` only the output is, and their backward pass makes the rest again.
    interpret: runs a kernel on the CPU, slowly, for tests. Raises ValueError for T ≠ S with a kernel.
    """
    if backend not in BACKENDS:
        raise UsageError(f"attention backend {backend!r} is not one of {', '.join(BACKENDS)}; change config.model.attention")
    where = (q_positions_BT, kv_positions_BS, q_segments_BT, kv_segments_BS)
    mesh = jax.sharding.get_abstract_mesh()
    shards = 1 if mesh.empty else mesh.shape["sequence"]
    T, S = q_BTNH.shape[1], k_BSKH.shape[1]
    if backend == "xla" and (shards == 1 or T != S):  # with a cache, or nothing to gather: the partitioner splits it well
        return _xla(q_BTNH, k_BSKH, v_BSKH, *where)
    if T != S:
        raise ValueError(f"{T} queries on {S} keys: backend {backend!r} takes whole rows; decode with backend='xla'")
    local = partial(_local, backend=backend, shards=shards, interpret=interpret)
    masks = splash_kernel(S, shards, interpret) if backend == "splash" else ()
    if mesh.empty:
        return local(masks, q_BTNH, k_BSKH, v_BSKH, *where)
    heads, kv_heads = (spec_of(("batch", "length", axis, None)) for axis in ("heads", "kv_heads"))
    return jax.shard_map(
        local,
        in_specs=(jax.tree.map(_mask_spec, masks), heads, kv_heads, kv_heads, *[spec_of(("batch", "length"))] * 4),
        out_specs=heads,
        check_vma=False,  # a kernel does not say over which axes its output varies
    )(masks, q_BTNH, k_BSKH, v_BSKH, *where)


def _mask_spec(leaf: Any) -> PartitionSpec:
    """Splash's own tables: of blocks [heads, blocks of queries, blocks of keys], or of a query's index [length]."""
    return spec_of((None, "length", None)) if leaf.ndim == 3 else spec_of(("length",))


def _local(
    masks: Any, q: Array, k: Array, v: Array, q_positions: Array, kv_positions: Array, q_segments: Array, kv_segments: Array,
    *, backend: str, shards: int, interpret: bool,
) -> Array:  # fmt: skip
    """One device's part: its queries on all keys of the rows."""
    if shards > 1:
        gather = partial(jax.lax.all_gather, axis_name="sequence", axis=1, tiled=True)  # its transpose is a reduce-scatter
        k, v, kv_positions, kv_segments = gather(k), gather(v), gather(kv_positions), gather(kv_segments)
    if backend == "splash":
        return splash(masks, q, k, v, q_segments, kv_segments)
    if backend == "xla":
        return _xla(q, k, v, q_positions, kv_positions, q_segments, kv_segments)
    if shards > 1:
        raise UsageError(_no_sequence_axis(backend, shards))
    if backend == "chunked":
        return chunked(q, k, v, q_segments)
    if backend == "pallas":
        return pallas(q, k, v, q_segments, interpret=interpret)
    return checkpoint_name(cudnn(q, k, v, q_segments, interpret=interpret), CHECKPOINT_NAME)


def _xla(
    q: Array, k: Array, v: Array, q_positions: Array, kv_positions: Array, q_segments: Array, kv_segments: Array
) -> Float[Array, "B T N H"]:
    same_segment_BTS = q_segments[:, :, None] == kv_segments[:, None, :]
    not_later_BTS = q_positions[:, :, None] >= kv_positions[:, None, :]
    mask_B1TS = (same_segment_BTS & not_later_BTS)[:, None]
    return checkpoint_name(jax.nn.dot_product_attention(q, k, v, mask=mask_B1TS, implementation="xla"), CHECKPOINT_NAME)


def attend_slots(
    q_BTNH: Float[Array, "B T N H"],
    keys: Float[Array, "layers B S K H"],
    values: Float[Array, "layers B S K H"],
    *,
    layer: Int[Array, ""] | int,
    q_positions_BT: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """Attention on one layer of a cache whose slot p holds a row's position p: a query sees the slots up to its own position.

    For a CPU: one block of one row after the other, only those that the row's last query sees, with a running maximum and sum
    (as in arXiv 2205.14135). So a row costs what it holds, one with all its queries at position -1 nothing (its output is 0), and
    no bit of a row depends on another, nor on S.
    """
    B, T, N, H = q_BTNH.shape
    S, K = keys.shape[2:4]
    block = min(SLOTS, S)
    q_BKGTH = jnp.moveaxis(q_BTNH.reshape(B, T, K, N // K, H), 1, 3).astype(jnp.float32) / math.sqrt(H)
    blocks_B = jnp.max(q_positions_BT, axis=1) // block + 1
    ends_B = jnp.cumsum(blocks_B)

    def one_block(step: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        row = jnp.sum(step >= ends_B)
        seen = (step - ends_B[row] + blocks_B[row]) * block
        start = jnp.minimum(seen, S - block)  # the last block may lie over the one before it
        k_SKH, v_SKH = (
            jax.lax.dynamic_slice(x, (layer, row, start, 0, 0), (1, 1, block, K, H))[0, 0].astype(jnp.float32)
            for x in (keys, values)
        )
        slots_S = start + jnp.arange(block)
        seen_TS = (slots_S <= q_positions_BT[row][:, None]) & (slots_S >= seen)
        scores = jnp.where(seen_TS, jnp.einsum("kgth,skh->kgts", q_BKGTH[row], k_SKH), -jnp.inf)
        most, total, sums = (x[row] for x in state)
        higher = jnp.maximum(most, scores.max(axis=-1))
        weights, kept = jnp.exp(scores - higher[..., None]), jnp.exp(most - higher)
        sums = sums * kept[..., None] + jnp.einsum("kgts,skh->kgth", weights, v_SKH)
        new = (higher, total * kept + weights.sum(axis=-1), sums)
        most, total, sums = (jax.lax.dynamic_update_index_in_dim(x, y, row, 0) for x, y in zip(state, new, strict=True))
        return most, total, sums

    shape = q_BKGTH.shape
    # The lowest finite number, not -inf: a block of which a query sees nothing would make its weights exp(-inf + inf)
    start = (jnp.full(shape[:-1], jnp.finfo(jnp.float32).min), jnp.zeros(shape[:-1]), jnp.zeros(shape))
    _, total, sums = jax.lax.fori_loop(0, ends_B[-1], one_block, start)
    out_BKGTH = sums / jnp.maximum(total, 1.0)[..., None]
    return jnp.moveaxis(out_BKGTH, 3, 1).reshape(B, T, N, H).astype(q_BTNH.dtype)


# --- who may use which


def choose_backend(*, packing: bool, platform: str, dtype: str, sequence_shards: int = 1) -> str:
    """What `attention="auto"` means: `splash` on TPU, `cudnn` or (packed rows, fp32) `pallas` on GPU, `chunked` on CPU; `xla` where
    a row is split and there is no splash.

    It looks at nothing that only makes a kernel impossible (length, head_dim): `check_backend` refuses that.
    """
    if platform == "tpu":
        return "splash"
    if sequence_shards > 1:
        return "xla"
    if platform == "cpu":
        return "chunked"
    return "pallas" if packing or dtype != "bfloat16" else "cudnn"


def check_backend(
    backend: str, *, packing: bool, platform: str, length: int, head_dim: int, sequence_shards: int, dtype: str
) -> None:
    """Raises UsageError where `backend` cannot run, or cannot keep to the mask.

    packing: whether a row may hold several segments. platform: `jax.Device.platform` of the mesh. length: of a row, in tokens.
    sequence_shards: devices of the mesh's sequence axis. dtype: of the computation.
    """
    setting = f"model.attention={backend!r}"
    if backend not in BACKENDS:
        raise UsageError(f"{setting} is not one of {', '.join(CHOICES)}")
    if backend == "xla":
        return
    if platform != PLATFORM.get(backend, platform):
        needs, has = PLATFORM[backend].upper(), platform.upper()
        raise UsageError(f"{setting} is a kernel for {needs} and this is a {has}; set it to auto or xla")
    if backend != "splash" and sequence_shards > 1:
        raise UsageError(_no_sequence_axis(backend, sequence_shards))
    multiple = MULTIPLE.get(backend, 1) * sequence_shards
    if length % multiple:
        over = f" over mesh.sequence={sequence_shards} devices" if sequence_shards > 1 else ""
        raise UsageError(
            f"{setting} takes rows of a multiple of {multiple} tokens{over}, not {length}; make data.sequence_length "
            f"{-(-length // multiple) * multiple}, or set model.attention=xla"
        )
    if backend == "pallas" and not 16 <= head_dim <= 128:
        raise UsageError(f"{setting} takes heads of 16 to 128 dimensions and this model's have {head_dim}; set it to xla")
    if backend == "cudnn":
        _check_cudnn(setting, packing=packing, head_dim=head_dim, dtype=dtype)


def _check_cudnn(setting: str, *, packing: bool, head_dim: int, dtype: str) -> None:
    if packing:
        raise UsageError(
            f"{setting} cannot keep the examples of a packed row apart (it takes no segment ids); "
            "set it to auto or pallas, or data.packing=False"
        )
    if head_dim > 128 or head_dim % 8:  # 256 from Hopper on, which the name of a platform does not say
        heads = f"heads of a multiple of 8 up to 128 dimensions and this model's have {head_dim}"
        raise UsageError(f"{setting} takes {heads}; set it to xla")
    if dtype != "bfloat16":
        raise UsageError(f"{setting} computes in bfloat16 and model.dtype is {dtype}; set it to auto, or model.dtype=bfloat16")


def _no_sequence_axis(backend: str, shards: int) -> str:
    return (
        f"model.attention={backend!r} does not split a row, and mesh.sequence={shards}; "
        "set model.attention=xla, or mesh.sequence=1"
    )
