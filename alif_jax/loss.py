"""Next-token cross-entropy with its own backward pass: logits of a few tokens exist at a time, of no device more.

Under a mesh it runs by hand on every device's own rows (`jax.shard_map`): the head is gathered once for all chunks, and the
gradient of a trained head is summed over the devices once, not once a chunk. A frozen head has no gradient at all, and its logits
are made once: the gradient of the hidden states is taken beside the loss and only scaled later.

`B` batch, `L` length, `T` tokens of a device, `C` chunk of T, `D` model dim, `V` vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from alif_jax.sharding import MESH_AXIS, Axes, spec_of

Params = dict[str, Array]
OfChunk = Callable[[Params, Array, Array], tuple[Array, Array]]
ROWS = (*MESH_AXIS["batch"], *MESH_AXIS["length"])  # mesh axes that split tokens; `tensor` stays with the compiler
SPLIT = MESH_AXIS["embed"]  # mesh axes that split the head's D


@dataclass(frozen=True, eq=False)
class Head:
    """The head of a model: `project(params, hidden [..., D])` → fp32 logits [..., V]; params by name, and which are trained."""

    project: Callable[[Params, Array], Array]
    params: Params
    trained: tuple[str, ...]
    axes: Mapping[str, Axes]


def token_losses(
    head: Head, hidden_BLD: Float[Array, "B L D"], targets_BL: Int[Array, "B L"], *, chunk: int
) -> Float[Array, "B L"]:
    """Cross-entropy (nats) of each target, fp32: log Σ exp(logits) − logit of the target.

    chunk: tokens of a device whose logits exist at a time, in the backward pass of a trained head too, which makes them again. The
    caller multiplies with its mask and divides once, by the global count: Σ loss·mask / Σ mask.
    """
    trained = {name: head.params[name] for name in head.trained}
    frozen = {name: value for name, value in head.params.items() if name not in head.trained}
    return _losses(_Static(head.project, dict(head.axes), chunk), trained, frozen, hidden_BLD, targets_BL)


def token_scores(
    head: Head, hidden_BLD: Float[Array, "B L D"], targets_BL: Int[Array, "B L"], *, chunk: int
) -> tuple[Float[Array, "B L"], Bool[Array, "B L"]]:
    """log p of each target (nats, fp32), and whether it is the likeliest token. chunk: as for `token_losses`. No gradient."""

    def one(whole: Params, hidden_CD: Array, targets_C: Array) -> tuple[Array, Array]:
        logits_CV = head.project(whole, hidden_CD)
        losses_C, lse_C = _of_targets(logits_CV, targets_C)
        return -losses_C, lse_C - losses_C >= jnp.max(logits_CV, axis=-1)  # jnp.argmax takes longer than the product on a CPU

    return _by_chunks(_Static(head.project, dict(head.axes), chunk), head.params, hidden_BLD, targets_BL, one)


@dataclass(frozen=True, eq=False)
class _Static:
    project: Callable[[Params, Array], Array]
    axes: dict[str, Axes]
    chunk: int

    def on_devices(self, local: Callable[..., Any], inputs: tuple[Any, ...], outputs: Any) -> Callable[..., Any]:
        """`local` on each device's own part; called as it stands where there is no mesh."""
        if jax.sharding.get_abstract_mesh().empty:
            return local
        return jax.shard_map(local, in_specs=inputs, out_specs=outputs, axis_names=set(ROWS), check_vma=False)

    def specs(self, params: Params) -> dict[str, PartitionSpec]:
        """Of head parameters, as far as this file splits them by hand."""
        return {name: PartitionSpec(*(SPLIT if axis == "embed" else None for axis in self.axes[name])) for name in params}

    def gathered(self, params: Params, dtype: Any) -> Params:
        """Whole in D, in the dtype of the computation (cast first: half the bytes travel)."""
        mesh, whole = jax.sharding.get_abstract_mesh(), {}
        split = not mesh.empty and any(mesh.shape[axis] > 1 for axis in SPLIT)  # else XLA copies what it need not gather
        for name, value in params.items():
            value = value.astype(dtype)
            if split and "embed" in self.axes[name]:
                value = jax.lax.all_gather(value, SPLIT, axis=self.axes[name].index("embed"), tiled=True)
            whole[name] = value
        return whole

    def summed(self, name: str, gradient: Array) -> Array:
        """The sum over all devices' tokens, each device keeping its own part of D."""
        if jax.sharding.get_abstract_mesh().empty:
            return gradient
        if "embed" not in self.axes[name]:
            return jax.lax.psum(gradient, ROWS)
        own = jax.lax.psum_scatter(gradient, SPLIT, scatter_dimension=self.axes[name].index("embed"), tiled=True)
        return jax.lax.psum(own, tuple(axis for axis in ROWS if axis not in SPLIT))


def _chunks(array: Array, tokens: int, chunk: int) -> Array:
    """[T, …] → [T / C, C, …], the end padded with zeros."""
    padded = jnp.pad(array, ((0, -tokens % chunk), *[(0, 0)] * (array.ndim - 1)))
    return padded.reshape(-1, chunk, *array.shape[1:])


def _whole(array: Array, shape: tuple[int, ...]) -> Array:
    """[T / C, C, …] → `shape`, without the padding."""
    return array.reshape(-1)[: math.prod(shape)].reshape(shape)


ROW_SPEC = spec_of(("batch", "length"))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(static: _Static, trained: Params, frozen: Params, hidden_BLD: Array, targets_BL: Array) -> Array:
    return _loss_and_lse(static, trained | frozen, hidden_BLD, targets_BL)[0]


def _forward(static: _Static, trained: Params, frozen: Params, hidden_BLD: Array, targets_BL: Array) -> tuple[Array, Any]:
    if trained:
        losses_BL, lse_BL = _loss_and_lse(static, trained | frozen, hidden_BLD, targets_BL)
        return losses_BL, (trained, frozen, hidden_BLD, targets_BL, lse_BL)
    losses_BL, of_hidden_BLD = _loss_and_gradient(static, frozen, hidden_BLD, targets_BL)
    return losses_BL, of_hidden_BLD


def _by_chunks(static: _Static, params: Params, hidden_BLD: Array, targets_BL: Array, one: OfChunk) -> tuple[Array, Array]:
    """`one` of every device's tokens, a chunk at a time: head, hidden [C, D], targets [C] → [C] and [C] or [C, D]."""

    def local(params: Params, hidden_BLD: Array, targets_BL: Array) -> tuple[Array, Array]:
        whole = static.gathered(params, hidden_BLD.dtype)
        T, C = targets_BL.size, min(static.chunk, targets_BL.size)
        parts = _chunks(hidden_BLD.reshape(T, -1), T, C), _chunks(targets_BL.reshape(T), T, C)
        _, (first_nC, second_nC) = jax.lax.scan(lambda _, part: (None, one(whole, *part)), None, parts)
        like = hidden_BLD if second_nC.ndim == 3 else targets_BL
        return _whole(first_nC, targets_BL.shape), _whole(second_nC, like.shape)

    inputs = (static.specs(params), ROW_SPEC, ROW_SPEC)
    return static.on_devices(local, inputs, (ROW_SPEC, ROW_SPEC))(params, hidden_BLD, targets_BL)


def _loss_and_lse(static: _Static, params: Params, hidden_BLD: Array, targets_BL: Array) -> tuple[Array, Array]:
    def one(whole: Params, hidden_CD: Array, targets_C: Array) -> tuple[Array, Array]:
        return _of_targets(static.project(whole, hidden_CD), targets_C)

    return _by_chunks(static, params, hidden_BLD, targets_BL, one)


def _of_targets(logits_CV: Array, targets_C: Array) -> tuple[Array, Array]:
    """Loss and log Σ exp(logits) of each target."""
    lse_C = jax.nn.logsumexp(logits_CV, axis=-1)
    return lse_C - jnp.take_along_axis(logits_CV, targets_C[:, None], axis=-1)[:, 0], lse_C


def _of_logits(logits_CV: Array, lse_C: Array, targets_C: Array) -> Array:
    """∂loss/∂logits: softmax(logits) − 1 at the target."""
    return jnp.exp(logits_CV - lse_C[:, None]) - (jnp.arange(logits_CV.shape[-1]) == targets_C[:, None])


def _loss_and_gradient(static: _Static, params: Params, hidden_BLD: Array, targets_BL: Array) -> tuple[Array, Array]:
    """Of each token: its loss, and the gradient of that by its hidden state."""

    def one(whole: Params, hidden_CD: Array, targets_C: Array) -> tuple[Array, Array]:
        logits_CV, pull = jax.vjp(lambda h: static.project(whole, h), hidden_CD)
        losses_C, lse_C = _of_targets(logits_CV, targets_C)
        return losses_C, pull(_of_logits(logits_CV, lse_C, targets_C))[0]

    return _by_chunks(static, params, hidden_BLD, targets_BL, one)


def _backward(static: _Static, saved: Any, gradient_BL: Array) -> tuple[Params, None, Array, None]:
    """The gradients by trained parameters and hidden states, from that by each loss."""
    if not isinstance(saved, tuple):
        return {}, None, (saved * gradient_BL[..., None]).astype(saved.dtype), None

    def local(trained: Params, frozen: Params, hidden_BLD: Array, *rows: Array) -> tuple[Params, Array]:
        dtype = hidden_BLD.dtype
        whole_trained, whole_frozen = static.gathered(trained, dtype), static.gathered(frozen, dtype)
        T, C = rows[0].size, min(static.chunk, rows[0].size)

        def one(sums: Params, part: tuple[Array, ...]) -> tuple[Params, Array]:
            hidden_CD, targets_C, lse_C, gradient_C = part
            logits_CV, pull = jax.vjp(lambda t, h: static.project(t | whole_frozen, h), whole_trained, hidden_CD)
            of_params, of_hidden_CD = pull(_of_logits(logits_CV, lse_C, targets_C) * gradient_C[:, None])
            return jax.tree.map(lambda total, one: total + one.astype(jnp.float32), sums, of_params), of_hidden_CD

        zeros = {name: jnp.zeros(value.shape, jnp.float32) for name, value in whole_trained.items()}
        parts = tuple(_chunks(array.reshape(T, *array.shape[2:]), T, C) for array in (hidden_BLD, *rows))
        sums, of_hidden = jax.lax.scan(one, zeros, parts)
        return {name: static.summed(name, value) for name, value in sums.items()}, _whole(of_hidden, hidden_BLD.shape)

    trained, frozen, hidden_BLD, targets_BL, lse_BL = saved
    inputs = (static.specs(trained), static.specs(frozen), *[ROW_SPEC] * 4)
    on_devices = static.on_devices(local, inputs, (static.specs(trained), ROW_SPEC))
    of_trained, of_hidden_BLD = on_devices(trained, frozen, hidden_BLD, targets_BL, lse_BL, gradient_BL)
    return of_trained, None, of_hidden_BLD, None


_losses.defvjp(_forward, _backward)
