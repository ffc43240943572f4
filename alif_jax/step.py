"""What a run works on, and one step of it: trainables, optimizer state, the frozen base, and `train_step`.

`A` microbatches of a step, `B` rows, `L` tokens.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from alif_jax import UsageError
from alif_jax.checkpoint import State, load_trainables, restore
from alif_jax.hf import load_params
from alif_jax.load import ModelSource, read_run
from alif_jax.lora import LoraConfig
from alif_jax.loss import token_losses
from alif_jax.model import ModelConfig, Params, Skeleton, random_params
from alif_jax.optim import named_leaves, state_shardings
from alif_jax.sharding import replicated


def init_state(
    source: ModelSource,
    lora: LoraConfig,
    model_config: ModelConfig,
    model: Skeleton,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    base: str,
    *,
    seed: int,
) -> tuple[Params, optax.OptState]:
    """Trainables and optimizer state, born sharded: new adapters, embeddings from the base, or another run's values."""
    abstract = model.abstract(mesh, model.trainable)
    shardings = {name: leaf.sharding for name, leaf in abstract.items()}
    init_optimizer = jax.jit(tx.init, out_shardings=state_shardings(tx, abstract, shardings, replicated(mesh)))
    if source.init_from:
        run = read_run(source.init_from)
        if (run.base, run.lora) != (base, lora):
            raise UsageError(
                f"model.init_from={source.init_from}: its base or lora config differs from this run's; continue with the same"
            )
        trainable = load_trainables(source.init_from, abstract)
        return trainable, init_optimizer(trainable)
    from_base = tuple(name for name in model.trainable if ".lora_" not in name and not source.random_init)
    new = tuple(name for name in model.trainable if name not in from_base)
    make = jax.jit(partial(random_params, model_config, lora, names=new), out_shardings={n: shardings[n] for n in new})
    values = make(jax.random.key(seed))
    if from_base:
        values |= load_params(base, model, from_base, mesh, model_config)
    trainable = {name: values[name] for name in model.trainable}
    return trainable, init_optimizer(trainable)


def state_tree(trainable: Mapping[str, Any], opt_state: optax.OptState) -> State:
    return {"trainable": dict(trainable), "optimizer": named_leaves(opt_state)}


def restore_state(
    workdir: str, step: int, model: Skeleton, tx: optax.GradientTransformation, mesh: Mesh
) -> tuple[Params, optax.OptState]:
    """The saved state, straight onto this run's mesh; nothing is made to be overwritten."""
    trainable = model.abstract(mesh, model.trainable)
    shardings = state_shardings(tx, trainable, {name: leaf.sharding for name, leaf in trainable.items()}, replicated(mesh))
    opt_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(tx.init, trainable), shardings,
    )  # fmt: skip
    restored = restore(workdir, step, state_tree(trainable, opt_state))
    leaves = [restored["optimizer"][name] for name in named_leaves(opt_state)]
    return restored["trainable"], jax.tree.unflatten(jax.tree.structure(opt_state), leaves)


def train_step(
    trainable: Params,
    opt_state: optax.OptState,
    frozen: Params,
    batch: Mapping[str, Array],
    *,
    model: Skeleton,
    tx: optax.GradientTransformation,
    chunk: int,
) -> tuple[Params, optax.OptState, dict[str, Array]]:
    """One optimizer step on a batch of `[A, B, L]` arrays. Loss and gradients are Σ over tokens / Σ tokens, over all of A and B."""

    def loss_sum(trainable: Params, rows: Mapping[str, Array]) -> Array:
        llama = model.model({**frozen, **trainable})
        hidden_BLD, _ = llama(rows["tokens"], positions_BL=rows["positions"], segment_ids_BL=rows["segment_ids"])
        return jnp.sum(token_losses(llama.logits, hidden_BLD, rows["targets"], chunk=chunk) * rows["loss_mask"])

    def microbatch(sums: tuple[Array, Params], rows: Mapping[str, Array]) -> tuple[tuple[Array, Params], None]:
        loss, grads = jax.value_and_grad(loss_sum)(trainable, rows)
        return (sums[0] + loss, jax.tree.map(jnp.add, sums[1], grads)), None

    zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, trainable))
    (loss, grads), _ = jax.lax.scan(microbatch, zeros, dict(batch))
    tokens = jnp.maximum(jnp.sum(batch["loss_mask"]), 1)
    grads = jax.tree.map(lambda g: g / tokens, grads)
    updates, opt_state = tx.update(grads, opt_state, trainable)
    metrics = {"loss": loss / tokens, "tokens": tokens, "grad_norm": optax.global_norm(grads)}
    return optax.apply_updates(trainable, updates), opt_state, metrics
