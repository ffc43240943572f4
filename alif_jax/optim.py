"""AdamW with warm-up, a schedule, clipping, and an own learning rate for embeddings and head. Keys as in TrainingArguments."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import optax
from jaxtyping import Array

from alif_jax import UsageError

SCHEDULES = ("constant", "linear", "cosine")


@dataclass(kw_only=True)
class OptimConfig:
    """embedding_learning_rate: of embed_tokens and lm_head, following the same schedule; None: `learning_rate`.

    max_grad_norm: gradients are clipped to this global norm; 0: not at all.
    """

    learning_rate: float = 1e-4
    embedding_learning_rate: float | None = None
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    max_grad_norm: float = 1.0

    def validate(self) -> None:
        if self.lr_scheduler_type not in SCHEDULES:
            raise UsageError(f"optim.lr_scheduler_type={self.lr_scheduler_type!r} is not one of {', '.join(SCHEDULES)}")
        for key in ("learning_rate", "embedding_learning_rate"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                raise UsageError(f"optim.{key}={value}: a positive number")
        if self.max_grad_norm < 0:
            raise UsageError(f"optim.max_grad_norm={self.max_grad_norm}: a positive number, or 0 for no clipping")


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by step (0-based): linear warm-up from 0, then constant, or linear or half a cosine down to 0."""
    peak, warmup = config.learning_rate, config.warmup_steps
    after = max(1, steps - warmup)
    if config.lr_scheduler_type == "cosine":
        decay = optax.cosine_decay_schedule(peak, after)
    elif config.lr_scheduler_type == "linear":
        decay = optax.linear_schedule(peak, 0.0, after)
    else:
        decay = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup]) if warmup else decay


def is_embedding(name: str) -> bool:
    return name.split(".")[0] in ("embed_tokens", "lm_head")


def optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """For a flat tree of trainables {name: array}. Norm scales are not decayed. AdamW: arXiv 1711.05101."""

    def decayed(params: Mapping[str, Array]) -> dict[str, bool]:
        return {name: not name.endswith("norm.scale") for name in params}

    def embeddings(params: Mapping[str, Array]) -> dict[str, bool]:
        return {name: is_embedding(name) for name in params}

    ratio = 1.0
    if config.embedding_learning_rate is not None:
        ratio = config.embedding_learning_rate / config.learning_rate
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm) if config.max_grad_norm else optax.identity(),
        optax.scale_by_adam(config.adam_beta1, config.adam_beta2, config.adam_epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decayed),
        optax.masked(optax.scale(ratio), embeddings),
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

