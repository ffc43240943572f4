"""LoRA, and what is trained: the only place that decides either.

A parameter is a `Trainable` or a `Frozen` variable from its birth. Gradients, optimizer, checkpoint and export all ask this one
question of its type and of nothing else. `D` input dim, `F` output dim, `R` rank.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from alif_jax import UsageError
from alif_jax.sharding import Axes

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EMBEDDINGS = ("embed_tokens", "lm_head")


class Frozen(nnx.Variable):
    """Kept as loaded: no gradient, no optimizer state, not in checkpoints."""


class Trainable(nnx.Variable):
    """Trained, in fp32."""


@dataclass(kw_only=True)
class LoraConfig:
    """What is trained; everything else is frozen. Keys as in PEFT, but for `rank` (PEFT's `r`) and `alpha` (`lora_alpha`).

    target_modules: projections that get an adapter. modules_to_save: of `embed_tokens, lm_head`, those trained in full.
    full: train every parameter, without adapters (the other keys are then not used).
    """

    rank: int = 16
    alpha: float = 32.0
    use_rslora: bool = False
    target_modules: tuple[str, ...] = PROJECTIONS
    modules_to_save: tuple[str, ...] = ()
    full: bool = False

    def validate(self) -> None:
        for key, allowed in (("target_modules", PROJECTIONS), ("modules_to_save", EMBEDDINGS)):
            unknown = sorted(set(getattr(self, key)) - set(allowed))
            if unknown:
                raise UsageError(f"lora.{key}: {', '.join(unknown)} is not one of {', '.join(allowed)}")
        if self.rank < 0 or (self.rank == 0 and self.target_modules and not self.full):
            raise UsageError(f"lora.rank={self.rank}: a positive number (or target_modules=() to train no adapter)")
        if not (self.full or self.target_modules or self.modules_to_save):
            raise UsageError("nothing is trained: give lora.target_modules, lora.modules_to_save or lora.full=True")

    def scale(self) -> float:
        """α/r, or α/√r with rsLoRA (arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def adapts(self, module: str) -> bool:
        return not self.full and module in self.target_modules

    def trains(self, module: str) -> bool:
        """Whether the base parameters of this module are trained themselves."""
        return self.full or module in self.modules_to_save


def variable(value: Float[Array, "..."], axes: Axes, *, trained: bool, param_dtype: jnp.dtype) -> nnx.Variable:
    """A parameter with its logical axes: fp32 where trained, `param_dtype` where frozen."""
    return Trainable(value.astype(jnp.float32), axes=axes) if trained else Frozen(value.astype(param_dtype), axes=axes)


class Linear(nnx.Module):
    """`layers` stacked products y = x W + s·(x A) B, without bias. Called on one layer's slice, inside the scan."""

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
    ):
        (D, F), R = shape, lora.rank
        kernel_key, a_key = jax.random.split(key)
        kernel = jax.random.normal(kernel_key, (layers, D, F)) * stddev
        self.kernel = variable(kernel, ("layers", *axes), trained=lora.trains(module), param_dtype=param_dtype)
        self.adapted = lora.adapts(module)
        if self.adapted:
            self.scale = lora.scale()
            # kaiming_uniform(a=√5) on [R, D] as in PEFT: uniform in ±1/√D. B = 0: a fresh adapter changes nothing.
            bound = 1 / math.sqrt(D)
            a = jax.random.uniform(a_key, (layers, D, R), minval=-bound, maxval=bound)
            self.lora_A = Trainable(a, axes=("layers", axes[0], "rank"))
            self.lora_B = Trainable(jnp.zeros((layers, R, F)), axes=("layers", "rank", axes[1]))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
        y = x @ self.kernel[...].astype(x.dtype)
        if self.adapted:
            y += self.scale * ((x @ self.lora_A[...].astype(x.dtype)) @ self.lora_B[...].astype(x.dtype))
        return y
