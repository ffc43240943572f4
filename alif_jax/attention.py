"""Attention over segment ids: one function, whatever computes it.

`B` batch, `T` query length, `S` key length, `N` query heads, `K` key/value heads, `H` head dim.
"""

import jax
from jaxtyping import Array, Float, Int

from alif_jax import UsageError

BACKENDS = ("xla",)


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
) -> Float[Array, "B T N H"]:
    """Causal attention inside each segment: a query sees the keys of its own segment at positions up to its own.

    Segment 0 is padding; its rows come out as something finite that nobody reads. Softmax in fp32, scale 1/√H.
    """
    if backend not in BACKENDS:
        raise UsageError(f"attention backend {backend!r} is not one of {', '.join(BACKENDS)}; change config.model.attention")
    same_segment_BTS = q_segments_BT[:, :, None] == kv_segments_BS[:, None, :]
    not_later_BTS = q_positions_BT[:, :, None] >= kv_positions_BS[:, None, :]
    mask_B1TS = (same_segment_BTS & not_later_BTS)[:, None]
    return jax.nn.dot_product_attention(q_BTNH, k_BSKH, v_BSKH, mask=mask_B1TS, implementation="xla")
