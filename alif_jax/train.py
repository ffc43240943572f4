"""Training: `fit` is the whole of it, top to bottom, for LoRA, LoRA + embeddings and full training alike.

`A` microbatches of a step, `B` rows, `L` tokens.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Array

from alif_jax import UsageError, files
from alif_jax.attention import BACKENDS
from alif_jax.checkpoint import State, latest_step, load_trainables, open_checkpointer, restore
from alif_jax.data.pack import Batches
from alif_jax.data.template import DataConfig, encode_records
from alif_jax.data.tfrecord import read_manifest, read_records
from alif_jax.evaluate import heldout_loss
from alif_jax.files import join
from alif_jax.hf import load_params, read_model_config, resolve_model
from alif_jax.load import check_heads, check_vocabulary, read_run
from alif_jax.lora import LoraConfig
from alif_jax.loss import token_losses
from alif_jax.metrics import MetricWriter
from alif_jax.model import ModelConfig, Params, Skeleton, random_params, skeleton
from alif_jax.optim import OptimConfig, named_leaves, optimizer, schedule, state_shardings
from alif_jax.sharding import MeshConfig, check_rows, make_mesh, put_batch, replicated
from alif_jax.tokenizer import Tokenizer, load_tokenizer

DTYPES = ("bfloat16", "float32")


@dataclass(kw_only=True)
class ModelSource:
    """path: a Hugging Face directory or hub id. random_init: use its config.json and tokenizer, but start from random weights.

    init_from: a run directory whose trained parameters this run starts from (same base and LoRA config).
    dtype: of the computation; param_dtype: of frozen parameters (trained ones are fp32). remat: `full` or `none`.
    loss_chunk: positions of a row whose logits exist at a time.
    """

    path: str = ""
    random_init: bool = False
    init_from: str = ""
    dtype: str = "bfloat16"
    param_dtype: str = "bfloat16"
    remat: str = "full"
    attention: str = "xla"
    loss_chunk: int = 512

    def validate(self) -> None:
        for key, allowed in (("dtype", DTYPES), ("param_dtype", DTYPES), ("remat", ("full", "none")), ("attention", BACKENDS)):
            if getattr(self, key) not in allowed:
                raise UsageError(f"model.{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}")


@dataclass(kw_only=True)
class TrainConfig:
    """A whole run. batch_size: rows an optimizer step, all devices together; without packing a row is an example.

    gradient_accumulation_steps: microbatches a step, weighted by their tokens. max_steps > 0 overrides num_train_epochs.
    eval_steps, save_steps: 0 is "at the end only".
    """

    model: ModelSource = field(default_factory=ModelSource)
    lora: LoraConfig = field(default_factory=LoraConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    num_train_epochs: int = 1
    max_steps: int = 0
    eval_steps: int = 0
    save_steps: int = 0
    save_total_limit: int = 2
    logging_steps: int = 10
    seed: int = 0

    def validate(self) -> None:
        for section in (self.model, self.lora, self.data, self.optim):
            section.validate()
        counts = ("batch_size", "gradient_accumulation_steps", "num_train_epochs", "logging_steps", "save_total_limit")
        for name, value in (*((key, getattr(self, key)) for key in counts), ("model.loss_chunk", self.model.loss_chunk)):
            if value < 1:
                raise UsageError(f"{name}={value}: at least 1")
        if self.seed < 0:
            raise UsageError(f"seed={self.seed}: at least 0")
        if self.batch_size % self.gradient_accumulation_steps:
            raise UsageError(
                f"batch_size={self.batch_size} is not a multiple of gradient_accumulation_steps={self.gradient_accumulation_steps}"
            )
        if self.model.random_init and not self.lora.full:
            raise UsageError("model.random_init=True without lora.full=True would train an adapter on a random model")


def fit(config: TrainConfig, workdir: str, *, resume: bool = False) -> dict[str, Any]:
    """Trains into the run directory `workdir`; returns the last row of metrics, held-out loss included ({} if all was done).

    resume: continue from the newest checkpoint (from the start if there is none). Raises UsageError for an existing run
    without `resume`, and for anything about config, base or data that is not as it must be; nothing is overwritten then.
    """
    config.validate()
    first = check_workdir(config, workdir, resume)
    mesh = make_mesh(config.mesh)
    check_rows(mesh, config.batch_size // config.gradient_accumulation_steps)
    base = resolve_model(config.model.path)
    tokenizer = load_tokenizer(base, config.data.template)
    model_config = read_model_config(base)
    check_vocabulary(tokenizer, model_config)
    check_heads(model_config, mesh)
    batches, heldout = load_batches(config, tokenizer)
    steps = config.max_steps or batches.steps
    model = skeleton(
        model_config, config.lora, dtype=jnp.dtype(config.model.dtype), param_dtype=jnp.dtype(config.model.param_dtype),
        remat=config.model.remat, attention=config.model.attention,
    )  # fmt: skip
    tx = optimizer(config.optim, steps)
    learning_rate = schedule(config.optim, steps)
    say(describe(config, model, batches, steps, mesh))

    with jax.set_mesh(mesh):
        if first:
            trainable, opt_state = restore_state(workdir, first, model, tx, mesh)
        else:
            trainable, opt_state = init_state(config, model_config, model, tx, mesh, base)
        frozen = {} if config.model.random_init else load_params(base, model, model.frozen, mesh, model_config)
        step_fn = jax.jit(partial(train_step, model=model, tx=tx, chunk=config.model.loss_chunk), donate_argnums=(0, 1))
        begin_run(config, workdir)
        writer = MetricWriter(workdir, first_step=first) if jax.process_index() == 0 else None
        checkpointer = open_checkpointer(workdir, save_steps=config.save_steps, save_total_limit=config.save_total_limit)
        row: dict[str, Any] = {}
        tokens_since, time_since = 0, time.perf_counter()
        for step in range(first + 1, steps + 1):
            batch = batches.batch_at(step - 1)
            trainable, opt_state, metrics = step_fn(trainable, opt_state, frozen, put_batch(mesh, batch))
            tokens_since += int((batch["segment_ids"] > 0).sum())
            row, last = {}, step == steps
            if last or step % config.logging_steps == 0 or step == first + 1:
                row = {"loss": float(metrics["loss"]), "tokens": int(metrics["tokens"])}  # waits for the device
                rate = tokens_since / (time.perf_counter() - time_since)
                row |= {"tokens_per_second": rate, "grad_norm": float(metrics["grad_norm"])}
                row |= {"learning_rate": float(learning_rate(step - 1))}
                tokens_since, time_since = 0, time.perf_counter()
            if heldout and (last or (config.eval_steps and step % config.eval_steps == 0)):
                evaluated = heldout_loss({**frozen, **trainable}, model, mesh, heldout, chunk=config.model.loss_chunk)
                row |= {"heldout_loss": evaluated["loss"], "heldout_bits_per_byte": evaluated["bits_per_byte"]}
            if row and writer:
                writer.write(step, row)
            if last or checkpointer.should_save(step):
                checkpointer.save_async(step, state_tree(trainable, opt_state), force=last)
        checkpointer.close()
    if writer:
        writer.close()
    return row


def say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)


def check_workdir(config: TrainConfig, workdir: str, resume: bool) -> int:
    """The number of steps already done there. Raises UsageError for a run that may not be continued (like this)."""
    path = join(workdir, "config.json")
    if files.exists(path) and not resume:
        raise UsageError(f"{workdir}: a run is there already; continue it with --resume, or give another --workdir")
    done = latest_step(workdir) or 0
    if done:
        saved, now = files.read_json(path), as_json(config)
        for section, key in (("model", "path"), ("model", "random_init"), *(("lora", key) for key in now["lora"])):
            if saved[section][key] != now[section][key]:
                raise UsageError(
                    f"{workdir}: {section}.{key} was {saved[section][key]!r} in this run and is {now[section][key]!r} now; "
                    "resume with the same, or start another --workdir"
                )
    return done


def begin_run(config: TrainConfig, workdir: str) -> None:
    """Process 0 makes the directory and writes config.json, after every process has looked at what was there."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("every process has looked at the run directory")
    path = join(workdir, "config.json")
    if jax.process_index() == 0 and files.read_json_or(path, None) != as_json(config):
        files.make_directory(workdir)
        files.write_json(path, as_json(config))


def as_json(config: TrainConfig) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


def load_batches(config: TrainConfig, tokenizer: Tokenizer) -> tuple[Batches, Batches | None]:
    """Training batches, and those of the held-out split where the data has one."""
    data = config.data
    manifest = read_manifest(data.path)
    examples = encode_records(read_records(data.path, "train"), tokenizer, data)
    if not examples.ids:
        raise UsageError(f"{data.path}: no example to train on (longer than a row and dropped: {examples.shortened})")
    batches = Batches(
        examples, data.sequence_length, config.batch_size, config.gradient_accumulation_steps,
        epochs=10**9 if config.max_steps else config.num_train_epochs, seed=config.seed, packing=data.packing,
    )  # fmt: skip
    if not any(shard["split"] == "heldout" for shard in manifest["shards"]):
        return batches, None
    heldout = encode_records(read_records(data.path, "heldout"), tokenizer, data)
    if not heldout.ids:
        say(f"held out       nothing that fits a row of {data.sequence_length} tokens: no held-out loss")
        return batches, None
    return batches, Batches(heldout, data.sequence_length, config.batch_size // config.gradient_accumulation_steps)


def describe(config: TrainConfig, model: Skeleton, batches: Batches, steps: int, mesh: Mesh) -> str:
    count = {kind: sum(model.shapes[name].size for name in getattr(model, kind)) for kind in ("trainable", "frozen")}
    examples = batches.examples
    rows = batches.first_row(1)
    shape = " × ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    lines = [
        f"devices        {mesh.size} {jax.devices()[0].platform}, mesh {shape}",
        f"parameters     {count['trainable']:,} trained (fp32), {count['frozen']:,} frozen ({config.model.param_dtype})",
        f"data           {len(examples.ids):,} examples, {len(examples.tokens):,} tokens, "
        f"{examples.trained.sum() / len(examples.tokens):.0%} trained",
        f"rows           {rows:,} of {batches.row_length} tokens, {len(examples.tokens) / rows / batches.row_length:.0%} filled",
        f"steps          {steps:,} of {config.batch_size} rows",
    ]
    if examples.shortened:
        lines.append(f"shortened      {examples.shortened} (longer than {batches.row_length} tokens)")
    return "\n".join(lines)


def init_state(
    config: TrainConfig,
    model_config: ModelConfig,
    model: Skeleton,
    tx: optax.GradientTransformation,
    mesh: Mesh,
    base: str,
) -> tuple[Params, optax.OptState]:
    """Trainables and optimizer state, born sharded: new adapters, embeddings from the base, or another run's values."""
    abstract = model.abstract(mesh, model.trainable)
    shardings = {name: leaf.sharding for name, leaf in abstract.items()}
    init_optimizer = jax.jit(tx.init, out_shardings=state_shardings(tx, abstract, shardings, replicated(mesh)))
    if source := config.model.init_from:
        run = read_run(source)
        if (run.base, run.lora) != (base, config.lora):
            raise UsageError(f"model.init_from={source}: its base or lora config differs from this run's; continue with the same")
        trainable = load_trainables(source, abstract)
        return trainable, init_optimizer(trainable)
    from_base = tuple(name for name in model.trainable if ".lora_" not in name and not config.model.random_init)
    new = tuple(name for name in model.trainable if name not in from_base)
    make = jax.jit(partial(random_params, model_config, config.lora, names=new), out_shardings={n: shardings[n] for n in new})
    values = make(jax.random.key(config.seed))
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
