"""Training: `fit` is the whole of it, top to bottom, for LoRA, LoRA + embeddings and full training alike.

`A` microbatches of a step, `B` rows, `L` tokens.
"""

import dataclasses
import json
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from alif_jax import UsageError, files
from alif_jax.checkpoint import latest_step, open_checkpointer
from alif_jax.data.pack import Batches
from alif_jax.data.template import DataConfig, encode_records
from alif_jax.data.tfrecord import read_manifest, read_records
from alif_jax.evaluate import heldout_loss
from alif_jax.files import join
from alif_jax.hf import load_params, read_model_config, resolve_model
from alif_jax.load import ModelSource, check_heads, check_vocabulary
from alif_jax.lora import LoraConfig
from alif_jax.metrics import MetricWriter
from alif_jax.model import Skeleton, skeleton
from alif_jax.optim import OptimConfig, optimizer, schedule
from alif_jax.sharding import MeshConfig, check_rows, make_mesh, put_batch
from alif_jax.step import init_state, restore_state, state_tree, train_step
from alif_jax.tokenizer import Tokenizer, load_tokenizer


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
            trainable, opt_state = init_state(config.model, config.lora, model_config, model, tx, mesh, base, seed=config.seed)
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
