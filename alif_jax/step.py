"""What a run works on, and one step of it: trainables, optimizer state, the frozen base, and `train_step`.

`A` microbatches of a step, `B` rows, `L` tokens.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array

from alif_jax import UsageError, files
from alif_jax.checkpoint import State, load_trainables, restore, which_step
from alif_jax.hf import load_params
from alif_jax.load import ModelSource, is_run, read_run
from alif_jax.lora import LoraConfig, dora_norm
from alif_jax.loss import token_losses
from alif_jax.model import Params, Skeleton, random_params
from alif_jax.model_config import ModelConfig
from alif_jax.optim import named_leaves, state_shardings
from alif_jax.peft import is_adapter, read_adapter
from alif_jax.sharding import replicated

# Gathered weights meet whole products: cut into pieces that travel while others are multiplied ("windowed einsum"), the step of
# Llama-3.1-8B on v5e:2x4 takes 0.4 GiB a chip more and twice as long to compile.
TPU_OPTIONS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def init_state(
    source: ModelSource,
    lora: LoraConfig,
    model_config: ModelConfig,
    model: Skeleton,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    base: str,
    frozen: Params,
    *,
    seed: int,
) -> tuple[Params, optax.OptState]:
    """Trainables and optimizer state, born sharded: new adapters, embeddings from the base, or another run's values.

    frozen: as loaded; DoRA's magnitudes begin as the norms of its kernels.
    """
    abstract, shardings, of_state = placed(model, tx, mesh)
    if source.init_from:
        trainable = continued(source.init_from, source.init_from_step, lora, model_config, base, abstract)
    else:
        from_base = tuple(name for name in model.trainable if ".lora_" not in name and not source.random_init)
        magnitudes = tuple(name for name in model.trainable if name.endswith(".lora_magnitude"))
        new = tuple(name for name in model.trainable if name not in (*from_base, *magnitudes))
        make = jax.jit(partial(random_params, model_config, lora, names=new), out_shardings={n: shardings[n] for n in new})
        values = make(jax.random.key(seed))
        if from_base:
            values |= load_params(base, model, from_base, mesh, model_config)
        for name in magnitudes:
            module = name.removesuffix(".lora_magnitude")
            of_adapter = frozen[f"{module}.kernel"], values[f"{module}.lora_A"], values[f"{module}.lora_B"]
            values[name] = jax.jit(partial(_dora_norms, scale=lora.scale()), out_shardings=shardings[name])(*of_adapter)
        trainable = {name: values[name] for name in model.trainable}
    return trainable, jax.jit(tx.init, out_shardings=of_state)(trainable)


def placed(
    model: Skeleton, tx: optax.GradientTransformation, mesh: Mesh
) -> tuple[dict[str, jax.ShapeDtypeStruct], dict[str, jax.sharding.Sharding], optax.OptState]:
    """(the trainables' shapes, their shardings, the shardings of the optimizer state): where a run's state lies."""
    abstract = model.abstract(mesh, model.trainable)
    shardings = {name: leaf.sharding for name, leaf in abstract.items()}
    return abstract, shardings, state_shardings(tx, abstract, shardings, replicated(mesh))


def _dora_norms(kernel: Array, lora_A: Array, lora_B: Array, *, scale: float) -> Array:
    """`dora_norm` a layer at a time: the whole stack in fp32 would be twice the base."""
    return jax.lax.map(lambda layer: dora_norm(layer[0], layer[1], layer[2], scale), (kernel, lora_A, lora_B))


def _what_is_trained(lora: LoraConfig) -> dict[str, Any]:
    """What a run that goes on must have as the one before."""
    targets = lora.targets()
    said = {"full": lora.full, "target_modules": targets, "rank": lora.rank if targets else 0, "use_dora": lora.use_dora}
    return said | {"modules_to_save": tuple(sorted(lora.modules_to_save)), "new_rows_only": lora.new_rows_only}


def continued(
    path: str, step: str, lora: LoraConfig, config: ModelConfig, base: str, abstract: Mapping[str, jax.ShapeDtypeStruct]
) -> Params:
    """The trained parameters of a run directory (its checkpoint `step`) or a PEFT adapter, onto the shardings of `abstract`.

    The product s·A·B stays what it was: where this run's scale is another, B ← B·s_theirs/s_ours.
    """
    if is_run(path):
        run = read_run(path)
        if files.absolute(run.base) != files.absolute(base):
            of_theirs = f"{run.base_name}{f' at commit {run.revision}' if run.revision else ''}"
            raise UsageError(
                f"model.init_from={path}: its base is {of_theirs}, this run's is {base}; continue with the same (model.path, "
                "model.revision)"
            )
        there, here = _what_is_trained(run.lora), _what_is_trained(lora)
        for key in there:
            if there[key] != here[key]:
                raise UsageError(
                    f"model.init_from={path}: lora.{key} is {there[key]!r} there and {here[key]!r} here; continue with the same"
                )
        trainable = load_trainables(path, abstract, which_step(path, step))
        factor = run.lora.scale() / lora.scale() if lora.targets() else 1.0
        return {name: values * factor if name.endswith(".lora_B") and factor != 1 else values for name, values in trainable.items()}
    if not is_adapter(path):
        raise UsageError(f"model.init_from={path}: neither a run directory nor a PEFT adapter (adapter_config.json)")
    made_for = files.read_json(files.join(path, "adapter_config.json")).get("base_model_name_or_path")
    if jax.process_index() == 0:
        print(f"init_from      {path}, made for {made_for}; this run's base is {base}", flush=True)
    adapter = read_adapter(path, lora, config)
    return {
        name: jax.make_array_from_callback(leaf.shape, leaf.sharding, partial(np.ndarray.__getitem__, adapter[name]))
        for name, leaf in abstract.items()
    }


def compile_step(model: Skeleton, tx: optax.GradientTransformation, mesh: Mesh, *, chunk: int) -> Callable[..., Any]:
    """`train_step` with its state donated, and handed back on the very shardings that it came on: compiled once."""
    options = TPU_OPTIONS if mesh.devices.flat[0].platform == "tpu" else None
    _, shardings, of_state = placed(model, tx, mesh)
    step = partial(train_step, model=model, tx=tx, chunk=chunk)
    out = (shardings, of_state, replicated(mesh))
    return jax.jit(step, donate_argnums=(0, 1), out_shardings=out, compiler_options=options)


def state_tree(trainable: Mapping[str, Any], opt_state: optax.OptState) -> State:
    return {"trainable": dict(trainable), "optimizer": named_leaves(opt_state)}


def state_shapes(
    model: Skeleton, tx: optax.GradientTransformation, mesh: Mesh
) -> tuple[dict[str, jax.ShapeDtypeStruct], optax.OptState]:
    """Trainable parameters and optimizer state as abstract arrays on the mesh."""
    trainable, _, of_state = placed(model, tx, mesh)
    opt_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(tx.init, trainable), of_state,
    )  # fmt: skip
    return trainable, opt_state


def restore_state(
    workdir: str, step: int, model: Skeleton, tx: optax.GradientTransformation, mesh: Mesh
) -> tuple[Params, optax.OptState]:
    """The saved state, straight onto this run's mesh; nothing is made to be overwritten."""
    trainable, opt_state = state_shapes(model, tx, mesh)
    restored = restore(workdir, step, state_tree(trainable, opt_state))
    leaves = [restored["optimizer"][name] for name in named_leaves(opt_state)]
    return restored["trainable"], jax.tree.unflatten(jax.tree.structure(opt_state), leaves)


def train_step(
    trainable: Params,
    opt_state: optax.OptState,
    frozen: Params,
    batch: Mapping[str, Array],
    dropout_key: Array | None = None,
    *,
    model: Skeleton,
    tx: optax.GradientTransformation,
    chunk: int,
) -> tuple[Params, optax.OptState, dict[str, Array]]:
    """One optimizer step on a batch of `[A, B, L]` arrays. Loss and gradients are Σ over tokens / Σ tokens, over all of A and B.

    dropout_key: this step's; None without dropout. A step without a token to train on, or whose loss or gradient is not finite,
    changes nothing (of the latter the loop hears one step later, and stops).
    """

    def loss_sum(trainable: Params, rows: Mapping[str, Array], key: Array | None) -> Array:
        llama = model.model({**frozen, **trainable})
        hidden_BLD, _ = llama(
            rows["tokens"], positions_BL=rows["positions"], segment_ids_BL=rows["segment_ids"], dropout_key=key
        )
        return jnp.sum(token_losses(llama.head(), hidden_BLD, rows["targets"], chunk=chunk) * rows["loss_mask"])

    def microbatch(sums: tuple[Array, Params], part: tuple[Mapping[str, Array], Any]) -> tuple[tuple[Array, Params], None]:
        loss, grads = jax.value_and_grad(loss_sum)(trainable, *part)
        return (sums[0] + loss, jax.tree.map(jnp.add, sums[1], grads)), None

    zeros = (jnp.float32(0), jax.tree.map(jnp.zeros_like, trainable))
    keys = None if dropout_key is None else jax.random.split(dropout_key, batch["tokens"].shape[0])
    (loss, grads), _ = jax.lax.scan(microbatch, zeros, (dict(batch), keys))
    tokens = jnp.sum(batch["loss_mask"])
    divisor = jnp.maximum(tokens, 1)
    grads = jax.tree.map(lambda g: g / divisor, grads)
    metrics = {"loss": loss / divisor, "tokens": tokens, "grad_norm": optax.global_norm(grads)}
    updates, new_state = tx.update(grads, opt_state, trainable)
    good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"]) & (tokens > 0)
    keep = partial(jnp.where, good)
    return jax.tree.map(keep, optax.apply_updates(trainable, updates), trainable), jax.tree.map(keep, new_state, opt_state), metrics
