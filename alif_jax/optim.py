"""AdamW with a schedule, clipping, and learning rates and decay by group. Keys as in TrainingArguments.

The groups are those of `group_of`; nothing else here looks at a parameter's name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from alif_jax import UsageError

SCHEDULES = ("constant", "linear", "cosine", "warmup_stable_decay")
NEVER_DECAYED = ("norm/bias", "magnitude")


@dataclass(kw_only=True)
class OptimConfig:
    """learning_rate, lr_scheduler_type, warmup_steps (or warmup_ratio, of all steps): a linear warm-up from 0, then `constant`,
    `linear` or `cosine` down to min_lr_ratio · learning_rate at the last step, or `warmup_stable_decay`: constant, and half a
    cosine down over the last decay_steps.

    embedding_learning_rate, embedding_weight_decay: of tables trained in full (embed_tokens, lm_head, new rows); None: as the
    rest. loraplus_lr_ratio: learning rate of lora_B over that of lora_A (LoRA+, arXiv 2402.12354).
    weight_decay: decoupled; norms, biases and DoRA's magnitudes have none.
    max_grad_norm: gradients are clipped to this global norm; 0: not at all.
    """

    learning_rate: float = 1e-4
    embedding_learning_rate: float | None = None
    loraplus_lr_ratio: float = 1.0
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    decay_steps: int = 0
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    embedding_weight_decay: float | None = None
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0

    def validate(self) -> None:
        if self.lr_scheduler_type not in SCHEDULES:
            raise UsageError(f"optim.lr_scheduler_type={self.lr_scheduler_type!r} is not one of {', '.join(SCHEDULES)}")
        for key in ("learning_rate", "embedding_learning_rate", "loraplus_lr_ratio"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise UsageError(f"optim.{key}={value}: a positive number")
        if self.max_grad_norm < 0:
            raise UsageError(f"optim.max_grad_norm={self.max_grad_norm}: a positive number, or 0 for no clipping")
        for key in ("warmup_steps", "decay_steps", "weight_decay", "embedding_weight_decay"):
            if (getattr(self, key) or 0) < 0:
                raise UsageError(f"optim.{key}={getattr(self, key)}: at least 0")
        for key in ("warmup_ratio", "min_lr_ratio"):
            if not 0 <= getattr(self, key) <= 1:
                raise UsageError(f"optim.{key}={getattr(self, key)}: from 0 to 1")
        if self.warmup_steps and self.warmup_ratio:
            raise UsageError(f"optim.warmup_steps={self.warmup_steps} and warmup_ratio={self.warmup_ratio}: give one of them")
        if bool(self.decay_steps) != (self.lr_scheduler_type == "warmup_stable_decay"):
            raise UsageError(
                f"optim.decay_steps={self.decay_steps} with lr_scheduler_type={self.lr_scheduler_type!r}: "
                "the length of the decay belongs to warmup_stable_decay, and that needs one"
            )

    def warmup(self, steps: int) -> int:
        """Steps of warm-up in a run of `steps`."""
        return self.warmup_steps or math.ceil(steps * self.warmup_ratio)


def schedule(config: OptimConfig, steps: int, xp: ModuleType = jnp) -> Callable[[Any], Any]:
    """Learning rate by step (0-based) of a run of `steps`. xp: jax.numpy inside jit, numpy where the host wants the number.

    Warm-up w, decay d (all steps after the warm-up, but decay_steps for warmup_stable_decay), floor f = min_lr_ratio, with
    t = (step − (steps − d)) / d clipped to [0, 1]:  peak · min(step/w, 1) · (f + (1 − f) · (1 − t  or  (1 + cos πt)/2)).
    """
    warmup = config.warmup(steps)
    decay = config.decay_steps or max(1, steps - warmup)
    if config.decay_steps and warmup + decay > steps:
        raise UsageError(
            f"optim.decay_steps={decay} and a warm-up of {warmup} do not fit into {steps} steps; shorten one or train longer"
        )
    shapes = {"constant": lambda t: 1.0 + 0.0 * t, "linear": lambda t: 1.0 - t}
    shape = shapes.get(config.lr_scheduler_type, lambda t: 0.5 * (1.0 + xp.cos(xp.pi * t)))

    def learning_rate(step: Any) -> Any:
        rise = xp.minimum(step / warmup, 1.0) if warmup else 1.0
        fall = shape(xp.clip((step - (steps - decay)) / decay, 0.0, 1.0))
        return config.learning_rate * rise * (config.min_lr_ratio + (1 - config.min_lr_ratio) * fall)

    return learning_rate


def group_of(name: str) -> str:
    """The group of a trained parameter: embeddings | lora_A | lora_B | magnitude | norm/bias | weights.

    `embeddings` are tables trained in full (or their new rows); an adapter on a table is an adapter: embed_tokens.lora_A → lora_A.
    """
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("lora_A", "lora_B"):
        return "lora_A" if name == "embed_tokens.lora_B" else leaf  # of an embedding's factors B is not the one that begins at 0
    if leaf == "lora_magnitude":
        return "magnitude"
    if leaf in ("scale", "bias"):
        return "norm/bias"
    return "embeddings" if leaf == "new_rows" or name in ("embed_tokens.embedding", "lm_head.kernel") else "weights"


def peak_learning_rate(config: OptimConfig, group: str) -> float:
    if group == "embeddings" and config.embedding_learning_rate is not None:
        return config.embedding_learning_rate
    return config.learning_rate * (config.loraplus_lr_ratio if group == "lora_B" else 1.0)


def weight_decay(config: OptimConfig, group: str) -> float:
    if group in NEVER_DECAYED:
        return 0.0
    if group == "embeddings" and config.embedding_weight_decay is not None:
        return config.embedding_weight_decay
    return config.weight_decay


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """For a flat tree of trainables {name: array}: clip → Adam → decoupled decay → learning rate. AdamW: arXiv 1711.05101.

    A group's learning rate multiplies its decay too, as in torch.
    """

    def by_group(updates: Mapping[str, Array], params: Mapping[str, Array] | None) -> dict[str, Array]:
        assert params is not None
        scaled = {}
        for name, update in updates.items():
            group = group_of(name)
            decay, ratio = weight_decay(config, group), peak_learning_rate(config, group) / config.learning_rate
            update = update + decay * params[name] if decay else update
            scaled[name] = update * ratio if ratio != 1 else update
        return scaled

    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm) if config.max_grad_norm else optax.identity(),
        optax.scale_by_adam(config.adam_beta1, config.adam_beta2, config.adam_epsilon),
        optax.stateless(by_group),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )


def named_leaves(opt_state: optax.OptState) -> dict[str, Array]:
    """The arrays of an optimizer state by name (`1.mu.norm.scale`): what checkpoints hold and messages name."""
    leaves = jax.tree_util.tree_leaves_with_path(opt_state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def state_shardings(
    tx: optax.GradientTransformation,
    params: Mapping[str, jax.ShapeDtypeStruct],
    shardings: Mapping[str, jax.sharding.Sharding],
    other: jax.sharding.Sharding,
) -> optax.OptState:
    """Shardings of `tx.init(params)`: moments like their parameters, everything else as `other`."""
    abstract = jax.eval_shape(tx.init, dict(params))
    return optax.tree_utils.tree_map_params(
        tx, lambda _, sharding: sharding, abstract, dict(shardings), transform_non_params=lambda _: other
    )
