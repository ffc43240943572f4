"""A run before it runs: its config, and everything that can be checked and prepared without loading the base."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from alif_jax import UsageError, files
from alif_jax.attention import check_backend, choose_backend
from alif_jax.checkpoint import about, latest_step
from alif_jax.data.cache import cache_hash, open_sources
from alif_jax.data.fit import fit_rows
from alif_jax.data.pack import Batches
from alif_jax.data.template import DataConfig
from alif_jax.files import join
from alif_jax.flops import flops_per_token
from alif_jax.guards import check_same_on_all_hosts
from alif_jax.hf import commit_of, read_model_config, resolve_model
from alif_jax.load import ModelSource, check_heads, check_vocabulary, is_run
from alif_jax.lora import LoraConfig
from alif_jax.metrics import check_reporters
from alif_jax.model import Skeleton, skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.optim import OptimConfig, optimizer
from alif_jax.samples import Prompt, heldout_prompts
from alif_jax.sharding import MeshConfig, check_length, check_rows, make_mesh
from alif_jax.tokenizer import Tokenizer, load_tokenizer
from alif_jax.trained import Table, check_same_table, for_checkpoint, render_table, trained_table

CHECKPOINT_SCHEMES = ("file", "gs", "s3")  # where Orbax can write


@dataclass(kw_only=True)
class TrainConfig:
    """A whole run. batch_size: rows an optimizer step, all devices together; without packing a row is an example.

    gradient_accumulation_steps: microbatches a step, weighted by their tokens. max_steps > 0 overrides num_train_epochs.
    eval_on_start: held-out loss before the first step too, as step 0: of the base, or of what init_from gave.
    eval_steps, save_steps: 0 is "at the end only". save_total_limit: newest checkpoints kept (0: all); the one with the best
    held-out loss is saved when it is found, and kept beside them.
    early_stopping_patience: evaluations without a better held-out loss that end the run; 0: never.
    num_samples, sample_max_new_tokens: greedy answers to that many held-out prompts, every sample_steps (0: with each evaluation).
    spike_sigma: a loss so many standard deviations above the last 100 logged ones is reported with its records; 0: never.
    report_to: of tensorboard and wandb, beside metrics.jsonl.
    suite: of configs/evaluation.py, such as urdu_quick, run every suite_steps (0: with each evaluation) on the first suite_limit
    documents of each task (0: all); its metrics go where the others go.
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
    eval_on_start: bool = False
    eval_steps: int = 0
    save_steps: int = 0
    save_total_limit: int = 2
    early_stopping_patience: int = 0
    logging_steps: int = 10
    report_to: tuple[str, ...] = ("tensorboard",)
    num_samples: int = 4
    sample_steps: int = 0
    sample_max_new_tokens: int = 128
    suite: str = ""
    suite_steps: int = 0
    suite_limit: int = 0
    spike_sigma: float = 6.0
    seed: int = 0

    def validate(self) -> None:
        for section in (self.model, self.lora, self.data, self.optim):
            section.validate()
        ones = ("batch_size", "gradient_accumulation_steps", "num_train_epochs", "logging_steps", "sample_max_new_tokens")
        for name, value in (*((key, getattr(self, key)) for key in ones), ("model.loss_chunk", self.model.loss_chunk)):
            if value < 1:
                raise UsageError(f"{name}={value}: at least 1")
        zeros = ("max_steps", "eval_steps", "save_steps", "save_total_limit", "early_stopping_patience", "num_samples",
                 "sample_steps", "suite_steps", "suite_limit", "spike_sigma", "seed")  # fmt: skip
        for name in zeros:
            if getattr(self, name) < 0:
                raise UsageError(f"{name}={getattr(self, name)}: at least 0")
        if self.early_stopping_patience and not self.eval_steps:
            raise UsageError(f"early_stopping_patience={self.early_stopping_patience} counts evaluations: set eval_steps too")
        if self.batch_size % self.gradient_accumulation_steps:
            raise UsageError(
                f"batch_size={self.batch_size} is not a multiple of gradient_accumulation_steps={self.gradient_accumulation_steps}"
            )
        if self.model.random_init and not self.lora.full:
            raise UsageError("model.random_init=True without lora.full=True would train an adapter on a random model")


def as_json(config: TrainConfig) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(config)))


@dataclass(frozen=True)
class Run:
    """What is known before anything large is loaded. first: steps done before; steps: of the whole run."""

    config: TrainConfig
    workdir: str
    first: int
    steps: int
    base: str
    tokenizer: Tokenizer
    model_config: ModelConfig
    mesh: Mesh
    attention: str
    model: Skeleton
    tx: optax.GradientTransformation
    table: Table
    about: dict[str, Any]  # kept in every checkpoint
    batches: Batches
    heldout: Batches | None
    prompts: Sequence[Prompt]


def prepare(config: TrainConfig, workdir: str, *, resume: bool) -> Run:
    """Checks everything that can be checked without loading the base, and tokenises the data."""
    config.validate()
    check_reporters(config.report_to)
    first = check_workdir(config, workdir, resume)
    check_same_on_all_hosts("the config, or the run directory it sees,", digest([as_json(config), workdir, first]))
    mesh = make_mesh(config.mesh)
    platform = mesh.devices.flat[0].platform
    keep_compiled(platform)
    check_rows(mesh, config.batch_size // config.gradient_accumulation_steps)
    check_length(mesh, config.data.sequence_length)
    config, base = with_base(config, workdir)
    check_same_on_all_hosts("the commit of the base", digest(config.model.revision))
    tokenizer = load_tokenizer(base, config.data.template)
    model_config = read_model_config(base)
    check_vocabulary(tokenizer, model_config)
    check_heads(model_config, mesh)
    if config.data.sequence_length > model_config.max_position_embeddings:
        raise UsageError(
            f"data.sequence_length={config.data.sequence_length} is more than the {model_config.max_position_embeddings} positions "
            f"that {config.model.path} was made for (max_position_embeddings)"
        )
    resolved = with_attention(config, model_config, mesh.shape, platform)
    model = build_model(resolved, model_config)
    batches, heldout = load_batches(config, tokenizer)
    table = trained_table(model, config.optim)
    in_checkpoint = for_checkpoint(table) | {"order": data_order(config, batches, heldout)}
    if first:
        saved, where = about(workdir, first), f"{workdir}, step {first}"
        check_same_table(saved, table, where)
        check_same_order(saved.get("order", {}), in_checkpoint["order"], where)
    return Run(
        config=config, workdir=workdir, first=first, steps=batches.steps, base=base, tokenizer=tokenizer,
        model_config=model_config, mesh=mesh, attention=resolved.model.attention, model=model,
        tx=optimizer(config.optim, batches.steps), table=table, about=in_checkpoint, batches=batches, heldout=heldout,
        prompts=sampled_prompts(config, tokenizer),
    )  # fmt: skip


def with_base(config: TrainConfig, workdir: str) -> tuple[TrainConfig, str]:
    """The base's directory, and the config with its commit where it comes from the hub: a run that goes on keeps to its first."""
    path = join(workdir, "config.json")
    noted = files.read_json(path)["model"] if files.exists(path) else {}
    begun = noted.get("revision", "") if noted.get("path") == config.model.path else ""
    base = resolve_model(config.model.path, revision=config.model.revision or begun)
    commit = commit_of(base)
    if config.model.revision and not commit:
        raise UsageError(f"model.revision={config.model.revision}: {config.model.path} is a directory and has none; leave it out")
    if begun and commit != begun:
        raise UsageError(
            f"{workdir}: this run began with commit {begun} of {config.model.path}, and model.revision={config.model.revision} is "
            f"{commit or 'none'}; leave model.revision out, or start another --workdir"
        )
    return dataclasses.replace(config, model=dataclasses.replace(config.model, revision=commit)), base


def keep_compiled(platform: str) -> None:
    """Keeps compiled programs on disk for the next start, in `compiled` beside the tokenised data or JAX_COMPILATION_CACHE_DIR.

    Not those for a CPU: they hold the instructions of this one, and home directories are shared.
    """
    if platform != "cpu" and not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", join(files.cache_home(), "compiled"))


def with_attention(config: TrainConfig, model_config: ModelConfig, mesh_shape: Mapping[str, int], platform: str) -> TrainConfig:
    """The config with what `auto` attention means there. Raises UsageError where that cannot run, or cannot keep to the mask."""
    backend, packing, dtype = config.model.attention, config.data.packing, config.model.dtype
    if backend == "auto":
        backend = choose_backend(packing=packing, platform=platform, dtype=dtype, sequence_shards=mesh_shape["sequence"])
    check_backend(
        backend, packing=packing, platform=platform, length=config.data.sequence_length, head_dim=model_config.head_dim,
        sequence_shards=mesh_shape["sequence"], dtype=dtype,
    )  # fmt: skip
    return dataclasses.replace(config, model=dataclasses.replace(config.model, attention=backend))


def build_model(config: TrainConfig, model_config: ModelConfig) -> Skeleton:
    """The model that this config (`with_attention`) trains, without its arrays."""
    source = config.model
    return skeleton(
        model_config, config.lora, dtype=jnp.dtype(source.dtype), param_dtype=jnp.dtype(source.param_dtype),
        remat=source.remat, remat_offload=source.remat_offload, attention=source.attention, quantization=source.quantization,
    )  # fmt: skip


def check_workdir(config: TrainConfig, workdir: str, resume: bool) -> int:
    """The number of steps already done there. Raises UsageError for a run that may not be continued (like this)."""
    scheme = workdir.partition("://")[0] if "://" in workdir else "file"
    if scheme not in CHECKPOINT_SCHEMES:
        raise UsageError(f"{workdir}: a run directory is local, or at {' or '.join(f'{s}://' for s in CHECKPOINT_SCHEMES[1:])}")
    path = join(workdir, "config.json")
    if files.exists(path) and not is_run(workdir):
        raise UsageError(f"{workdir}: the config.json there is not a run's; give a --workdir of its own")
    if files.exists(path) and not resume:
        raise UsageError(f"{workdir}: a run is there already; continue it with --resume, or give another --workdir")
    done = latest_step(workdir) or 0
    if done:
        saved, now = files.read_json(path), as_json(config)
        optim = (("optim", key) for key in now["optim"] if "learning_rate" not in key and key != "loraplus_lr_ratio")
        lora = (("lora", key) for key in now["lora"])  # learning rates are compared with the table in the checkpoint
        for section, key in (("model", "path"), ("model", "random_init"), *lora, *optim):
            was = saved[section].get(key)
            if was != now[section][key]:
                raise UsageError(
                    f"{workdir}: {section}.{key} was {was!r} in this run and is {now[section][key]!r} now; "
                    "resume with the same, or start another --workdir"
                )
    return done


def load_batches(config: TrainConfig, tokenizer: Tokenizer) -> tuple[Batches, Batches | None]:
    """Training batches, and those of the held-out split where the data has one."""
    data = config.data
    train, held = (open_sources(data, tokenizer, split) for split in ("train", "heldout"))
    check_same_on_all_hosts("the tokenised data", cache_hash((*train, *held)))
    batches = Batches(
        fit_rows(train, data), data.sequence_length, config.batch_size, config.gradient_accumulation_steps,
        epochs=config.num_train_epochs, max_steps=config.max_steps, seed=config.seed, packing=data.packing,
        weights=data.weights, max_epochs=data.max_epochs, substitute=data.substitute,
    )  # fmt: skip
    wanted = "data.eval_path" if data.eval_path else "early_stopping_patience" if config.early_stopping_patience else ""
    try:
        if not sum(map(len, held)):
            raise UsageError(f"{', '.join(data.eval_path or data.path)}: no held-out records")
        examples = fit_rows(held, data)
    except UsageError as error:
        if wanted:
            raise UsageError(f"{error}; {wanted} needs some") from None
        say(f"held out       no held-out loss: {error}")
        return batches, None
    rows = config.batch_size // config.gradient_accumulation_steps
    return batches, Batches(examples, data.sequence_length, rows, packing=data.packing)


def data_order(config: TrainConfig, batches: Batches, heldout: Batches | None) -> dict[str, Any]:
    """All that decides which examples a step sees, and what they are measured against."""
    data = config.data
    keys = ("sequence_length", "packing", "long_documents", "long_conversations", "weights", "max_epochs", "substitute")
    return {
        "data": cache_hash(batches.examples.sources),
        "held-out data": cache_hash(heldout.examples.sources) if heldout else None,
        "seed": config.seed,
        "batch_size": config.batch_size,
        **{f"data.{key}": as_json(config)["data"][key] for key in keys},
    } | ({"steps": batches.steps} if data.max_epochs else {})


def check_same_order(saved: dict[str, Any], now: dict[str, Any], where: str) -> None:
    """Raises UsageError where a resumed run would go on with other data, or in another order."""
    for key, value in now.items():
        if key in saved and saved[key] != value:
            raise UsageError(
                f"{where}: {key} was {saved[key]!r} and is {value!r} now, so the run would not see the rest of its data; "
                "resume with the same, or start another --workdir (model.init_from goes on from trained parameters)"
            )


def sampled_prompts(config: TrainConfig, tokenizer: Tokenizer) -> list[Prompt]:
    directories = config.data.eval_path or config.data.path
    room = config.data.sequence_length - config.sample_max_new_tokens
    return heldout_prompts(directories, config.num_samples, lambda prompt: len(tokenizer.encode(prompt)) <= room)


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def describe(run: Run) -> str:
    """What the run will do, for people."""
    config, stats = run.config, run.batches.stats()
    shape = " × ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
    lines = [
        f"devices        {run.mesh.size} {jax.devices()[0].device_kind}, mesh {shape}, attention {run.attention}",
        render_table(run.table),
        f"data           {stats['examples']:,} examples, {stats['tokens']:,} tokens, "
        f"{stats['trained'] / stats['tokens']:.0%} trained (an epoch)",
        f"rows           {stats['rows']:,} of {run.batches.row_length} tokens, {stats['fill']:.0%} filled"
        + (f"; {stats['left_out']:,} examples find none in the whole run" if stats["left_out"] else ""),
        f"steps          {run.steps:,} of {config.batch_size} rows" + (f", {run.first:,} done" if run.first else ""),
        f"FLOP           {flops_of(run):.3g} a token, recomputation not counted",
    ]
    if len(run.batches.examples.sources) > 1:
        lines += [
            f"source         {share['share']:.1%} of the tokens, {share['epochs']:.2f} epochs: {share['name']}"
            for share in run.batches.shares()
        ]
    if run.batches.examples.shortened:
        lines.append(f"shortened      {run.batches.examples.shortened} (longer than {run.batches.row_length} tokens)")
    return "\n".join(lines)


def flops_of(run: Run) -> float:
    """FLOP a token at the mean context of a token of this data."""
    lengths = run.batches.examples.lengths.astype(np.float64)
    return flops_per_token(run.model_config, run.config.lora, context=float((lengths**2).sum() / lengths.sum()))


def say(text: str) -> None:
    if jax.process_index() == 0:
        print(text, flush=True)
