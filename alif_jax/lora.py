"""LoRA, and what is trained: the only place that decides either.

A parameter is a `Trainable` or a `Frozen` variable from its birth. Gradients, optimizer, checkpoint and export all ask this one
question of its type and of nothing else. `D` input dim, `F` output dim, `R` rank.
"""

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import qwix
from flax import nnx
from jaxtyping import Array, Float

from alif_jax import UsageError
from alif_jax.sharding import Axes

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EMBEDDINGS = ("embed_tokens", "lm_head")
PATHS = {
    **{name: f"layers.{{}}.self_attn.{name}" for name in PROJECTIONS[:4]},
    **{name: f"layers.{{}}.mlp.{name}" for name in PROJECTIONS[4:]},
    "embed_tokens": "embed_tokens",
    "lm_head": "lm_head",
}
QUANTIZATIONS = ("", "int8", "nf4")
MOST_LAYERS = 256  # of any model that an expression is tried on
TILE = 64  # weights that share a scale, as in QLoRA (arXiv 2305.14314)


class Frozen(nnx.Variable):
    """Kept as loaded: no gradient, no optimizer state, not in checkpoints."""


class Trainable(nnx.Variable):
    """Trained, in fp32."""


@dataclass(kw_only=True)
class LoraConfig:
    """What is trained; everything else is frozen. Keys as in PEFT, but for `rank` (`r`), `alpha` and `dropout` (`lora_…`).

    target_modules: modules that get an adapter: names of the seven projections, `embed_tokens`, `lm_head`, or regular
    expressions that match them or their Hugging Face paths (`.*self_attn.*`); `all-linear` is the seven.
    use_rslora: scale α/√r instead of α/r. use_dora: a trained magnitude beside the direction (arXiv 2402.09353).
    dropout: of the input of the seven projections' adapters, in training only.
    modules_to_save: of `embed_tokens, lm_head`, those trained in full. new_rows_only: of those, only the rows that
    launch/extend_vocab.py added. full: train every parameter, without adapters (the other keys are then not used).
    """

    rank: int = 16
    alpha: float = 32.0
    use_rslora: bool = False
    use_dora: bool = False
    dropout: float = 0.0
    target_modules: tuple[str, ...] = PROJECTIONS
    modules_to_save: tuple[str, ...] = ()
    new_rows_only: bool = False
    full: bool = False

    def validate(self) -> None:
        if not (self.full or self.target_modules or self.modules_to_save):
            raise UsageError("nothing is trained: give lora.target_modules, lora.modules_to_save or lora.full=True")
        unknown = sorted(set(self.modules_to_save) - set(EMBEDDINGS))
        if unknown:
            raise UsageError(f"lora.modules_to_save: {', '.join(unknown)} is not one of {', '.join(EMBEDDINGS)}")
        targets = self.targets()
        twice = sorted(set(targets) & set(self.modules_to_save))
        if twice:
            raise UsageError(f"lora: {', '.join(twice)} is in target_modules and modules_to_save; choose adapter or in full")
        if self.rank < 0 or (self.rank == 0 and targets):
            raise UsageError(f"lora.rank={self.rank}: a positive number (or target_modules=() to train no adapter)")
        if targets and self.alpha <= 0:
            raise UsageError(f"lora.alpha={self.alpha}: a positive number, or the adapter does nothing")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"lora.dropout={self.dropout}: at least 0 and below 1")
        if self.use_dora and set(targets) & set(EMBEDDINGS):
            raise UsageError("lora.use_dora: of the seven projections only; take embed_tokens and lm_head out of target_modules")
        if self.new_rows_only and not self.modules_to_save and not self.full:
            raise UsageError("lora.new_rows_only: of which tables? set lora.modules_to_save=embed_tokens,lm_head")

    def targets(self) -> tuple[str, ...]:
        """The modules that `target_modules` names, in the model's order. Raises UsageError for an entry that matches none."""
        if self.full:
            return ()
        found = {module for entry in self.target_modules for module in _matched(entry)}
        return tuple(module for module in (*PROJECTIONS, *EMBEDDINGS) if module in found)

    def scale(self) -> float:
        """α/r, or α/√r with rsLoRA (arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def adapts(self, module: str) -> bool:
        return module in self.targets()

    def trains(self, module: str) -> bool:
        """Whether the base parameters of this module are trained themselves, all of them."""
        return self.full or (module in self.modules_to_save and not self.new_rows_only)

    def trains_new_rows(self, module: str) -> bool:
        return not self.full and self.new_rows_only and module in self.modules_to_save


@cache  # a model asks for each of its modules, and 256 layers are tried: 95 % of the time that its shapes took
def _matched(entry: str) -> tuple[str, ...]:
    if entry == "all-linear":
        return PROJECTIONS
    try:
        matched = tuple(module for module in PATHS if any(matches(entry, module, layer) for layer in range(MOST_LAYERS)))
    except re.error as error:
        raise UsageError(f"lora.target_modules: {entry!r} is not a regular expression ({error})") from None
    if not matched:
        raise UsageError(f"lora.target_modules: {entry!r} matches nothing; there are {', '.join((*PROJECTIONS, *EMBEDDINGS))}")
    return matched


def matches(entry: str, module: str, layer: int) -> bool:
    """Whether an entry of `target_modules` is the module's name or matches it, or its path in this layer, as a whole."""
    path = PATHS[module].format(layer)
    return entry == "all-linear" or any(re.fullmatch(entry, name) for name in (module, path, f"model.{path}"))


def variable(value: Float[Array, "..."], axes: Axes, *, trained: bool, param_dtype: jnp.dtype) -> nnx.Variable:
    """A parameter with its logical axes: fp32 where trained, `param_dtype` where frozen."""
    return Trainable(value.astype(jnp.float32), axes=axes) if trained else Frozen(value.astype(param_dtype), axes=axes)


def dora_norm(kernel: Array, lora_A: Array, lora_B: Array, scale: float) -> Float[Array, "*layers F"]:
    """‖W + s·A·B‖ of each output, over the inputs, in fp32: what DoRA divides by."""
    adapted = kernel.astype(jnp.float32) + scale * (lora_A.astype(jnp.float32) @ lora_B.astype(jnp.float32))
    return jnp.sqrt(jnp.sum(adapted * adapted, axis=-2))


def quantized(kernel: Float[Array, "layers D F"], axes: Axes, how: str) -> tuple[Array, Array]:
    """(values [layers, D, F], scales fp32) by absolute maximum, of a kernel whose D and F have these axes.

    Tiles lie along the axis that fsdp does not split: a shard of the kernel has its own scales beside it, whatever the mesh,
    and nothing is exchanged to read a weight.
    """
    along = 1 if axes[0] == "embed" else 0
    tiles = {along: math.gcd(TILE, kernel.shape[1 + along])}

    def one_layer(kernel_DF: Array) -> tuple[Array, Array]:
        array = qwix.quantize(kernel_DF, how, channelwise_axes=(1 - along,), tiled_axes=tiles, scale_dtype=jnp.float32)
        return array.qvalue, array.scale

    return jax.lax.map(one_layer, kernel)  # a layer at a time: the search for the nearest NF4 level takes 40 bytes a weight


@jax.custom_vjp
def low_rank(x: Float[Array, "... D"], a: Float[Array, "D R"], b: Float[Array, "R F"]) -> Float[Array, "... F"]:
    """(x A) B. Both gradients are made as [R, …]: as they fall out of differentiation, XLA's CPU backend turns x and dy first,
    which took as long as two of the layer's products."""
    return _low_rank_forward(x, a, b)[0]


def _low_rank_forward(x: Array, a: Array, b: Array) -> tuple[Array, tuple[Array, ...]]:
    low = x @ a
    return low @ b, (x, low, a, b)


def _low_rank_backward(kept: tuple[Array, ...], dy: Array) -> tuple[Array, Array, Array]:
    x, low, a, b = kept
    rows = tuple(range(x.ndim - 1))
    d_low = dy @ b.T
    d_a, d_b = (jax.lax.dot_general(one, other, ((rows, rows), ((), ()))) for one, other in ((d_low, x), (low, dy)))
    return d_low @ a.T, d_a.T, d_b


low_rank.defvjp(_low_rank_forward, _low_rank_backward)


def times_turned(x: Float[Array, "... D"], kernel_FD: Float[Array, "F D"], dtype: Any = None) -> Float[Array, "... F"]:
    """x Wᵀ made as (W xᵀ)ᵀ: of a few rows and weights from memory, twice as fast as any other way
    round with XLA on a CPU."""
    y = jax.lax.dot_general(kernel_FD.astype(x.dtype), x, (((1,), (x.ndim - 1,)), ((), ())), preferred_element_type=dtype)
    return jnp.moveaxis(jax.lax.optimization_barrier(y), 0, -1)  # or XLA folds the two turns into none


class Linear(nnx.Module):
    """`layers` stacked products y = x W + s·(x A) B + b. Called on one layer's slice, inside the scan.

    With DoRA y = m ∘ (x W + s·(x A) B) / ‖W + s·A·B‖ + b, the norm taken as a constant by the gradient, as its authors do.
    """

    def __init__(
        self,
        module: str,
        shape: tuple[int, int],
        axes: tuple[str, str],
        *,
        layers: int,
        lora: LoraConfig,
        stddev: float,
        param_dtype: jnp.dtype,
        key: jax.Array,
        bias: bool = False,
        quantization: str = "",
    ):
        (D, F), R = shape, lora.rank
        kernel_key, a_key = jax.random.split(key)
        kernel = jax.random.normal(kernel_key, (layers, D, F)) * stddev
        self.quantization = quantization
        if self.quantization:
            values, scales = quantized(kernel, axes, quantization)
            self.kernel_qvalue = Frozen(values, axes=("layers", *axes))
            self.kernel_scale = Frozen(scales, axes=("layers", *axes))
        else:
            self.kernel = variable(kernel, ("layers", *axes), trained=lora.trains(module), param_dtype=param_dtype)
        self.turned, self.biased = False, bias
        if bias:
            zeros = jnp.zeros((layers, F))
            self.bias = variable(zeros, ("layers", axes[1]), trained=lora.trains(module), param_dtype=param_dtype)
        self.adapted, self.dora = lora.adapts(module), lora.use_dora
        if self.adapted:
            self.scale, self.dropout = lora.scale(), lora.dropout
            # kaiming_uniform(a=√5) on [R, D] as in PEFT: uniform in ±1/√D. B = 0: a fresh adapter changes nothing.
            bound = 1 / math.sqrt(D)
            a = jax.random.uniform(a_key, (layers, D, R), minval=-bound, maxval=bound)
            # Both split over fsdp; the one that its base has on tensor is split over that too.
            inputs, outputs = ("embed" if axis == "embed" else "adapter" for axis in axes)
            self.lora_A = Trainable(a, axes=("layers", inputs, "rank"))
            self.lora_B = Trainable(jnp.zeros((layers, R, F)), axes=("layers", "rank", outputs))
            if self.dora:
                norm = dora_norm(kernel, a, jnp.zeros((layers, R, F)), self.scale)
                self.lora_magnitude = Trainable(norm, axes=("layers", axes[1]))

    def weight(self) -> Float[Array, "D F"]:
        """The frozen or trained base matrix, dequantised where it is held quantised."""
        if not self.quantization:
            return self.kernel[...]
        return qwix.dequantize(qwix.QArray(self.kernel_qvalue[...], self.kernel_scale[...], qtype=self.quantization))

    def turn(self) -> None:
        """From here on this layer's kernel is held as [F, D], where no other use is made of it."""
        if not (self.quantization or self.adapted and self.dora):
            self.kernel, self.turned = self.kernel.replace(self.kernel[...].T), True

    def __call__(self, x: Float[Array, "... D"], dropout_key: Array | None = None) -> Float[Array, "... F"]:
        """dropout_key: None switches dropout off (evaluation, generation)."""
        kernel = self.weight()
        y = times_turned(x, kernel) if self.turned else x @ kernel.astype(x.dtype)
        if self.adapted:
            a, b = self.lora_A[...], self.lora_B[...]
            dropped = x
            if self.dropout and dropout_key is not None:
                kept = jax.random.bernoulli(dropout_key, 1 - self.dropout, x.shape)
                dropped = jnp.where(kept, x / (1 - self.dropout), 0).astype(x.dtype)
            y += low_rank(dropped, a.astype(x.dtype), (self.scale * b).astype(x.dtype))
            if self.dora:
                norm = jax.lax.stop_gradient(dora_norm(kernel, a, b, self.scale))
                y *= (self.lora_magnitude[...] / norm).astype(x.dtype)
        return y + self.bias[...].astype(x.dtype) if self.biased else y
