"""Next-token cross-entropy, in chunks, so that [B, L, V] logits never exist at once.

`B` batch, `L` length, `C` chunk of L, `D` model dim, `V` vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def token_losses(
    logits: Callable[[Float[Array, "B C D"]], Float[Array, "B C V"]],
    hidden_BLD: Float[Array, "B L D"],
    targets_BL: Int[Array, "B L"],
    *,
    chunk: int,
) -> Float[Array, "B L"]:
    """Cross-entropy (nats) of each target, fp32. Logits of `chunk` positions of each row exist at a time, backward too.

    The caller multiplies with its mask and divides once, by the global count: Σ loss·mask / Σ mask.
    """
    B, L, D = hidden_BLD.shape
    C = min(chunk, L)
    padding = -L % C
    hidden_BLD = jnp.pad(hidden_BLD, ((0, 0), (0, padding), (0, 0)))
    targets_BL = jnp.pad(targets_BL, ((0, 0), (0, padding)))

    @jax.checkpoint  # the backward pass makes the logits again instead of keeping them
    def chunk_losses(_: None, part: tuple[Array, Array]) -> tuple[None, Array]:
        hidden_BCD, targets_BC = part
        logits_BCV = logits(hidden_BCD)
        target_logits_BC = jnp.take_along_axis(logits_BCV, targets_BC[..., None], axis=-1)[..., 0]
        return None, jax.nn.logsumexp(logits_BCV, axis=-1) - target_logits_BC

    hidden_nBCD = hidden_BLD.reshape(B, -1, C, D).swapaxes(0, 1)
    targets_nBC = targets_BL.reshape(B, -1, C).swapaxes(0, 1)
    _, losses_nBC = jax.lax.scan(chunk_losses, None, (hidden_nBCD, targets_nBC))
    return losses_nBC.swapaxes(0, 1).reshape(B, -1)[:, :L]
