"""Training: `fit` is the whole of it, top to bottom, for LoRA, LoRA + embeddings and full training alike.

run.py prepares (config, data, model's shape), step.py is one step on the device, recorder.py what the host does beside it.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils
from jaxtyping import Array

from alif_jax import UsageError, files
from alif_jax.checkpoint import open_checkpointer, save
from alif_jax.data.pack import prefetch
from alif_jax.evaluate import heldout_loss
from alif_jax.files import join
from alif_jax.flops import peak_flops
from alif_jax.guards import EarlyStopping, Preempted, Preemption, SpikeGuard, check_same_on_all_hosts
from alif_jax.hf import load_params
from alif_jax.load import Loaded, check_turn_tokens
from alif_jax.metrics import JsonLines, MetricWriter, Pace, heldout_metrics, metrics_path, read_rows
from alif_jax.model import Params
from alif_jax.optim import schedule
from alif_jax.recorder import Recorder, Row
from alif_jax.run import Run, TrainConfig, as_json, describe, digest, flops_of, prepare, say
from alif_jax.samples import ScriptShare, sample
from alif_jax.sharding import put_batch
from alif_jax.step import compile_step, init_state, restore_state, state_tree

Suite = Callable[[Loaded], Row]  # the metrics of a suite, of the model as it is


def fit(
    config: TrainConfig, workdir: str, *, resume: bool = False, script_share: ScriptShare | None = None, suite: Suite | None = None
) -> Row:
    """Trains into the run directory `workdir`; returns the last row of metrics, held-out loss included ({} if all was done).

    resume: continue from the newest checkpoint (from the start if there is none). script_share: judges the script of samples.
    suite: what config.suite means.
    Raises UsageError for an existing run without `resume`, and for anything about config, base or data that is not as it must be;
    nothing is overwritten then. Raises NotFinite where a loss or gradient is not, Preempted after a SIGTERM (the state is saved).
    """
    if config.suite and suite is None:
        raise UsageError(f"suite={config.suite!r} needs what asks it; launch/train.py hands it over")
    run = prepare(config, workdir, resume=resume)
    history = read_rows(metrics_path(workdir), upto=run.first)
    losses = [row["heldout_loss"] for row in history if row["step"] and "heldout_loss" in row]
    stopping = EarlyStopping(config.early_stopping_patience, losses)
    check_same_on_all_hosts("metrics.jsonl", digest([stopping.best, stopping.since_best]))
    row: Row = {}
    if run.first >= run.steps or stopping.exhausted:
        why = "complete" if run.first >= run.steps else "stopped early; a higher early_stopping_patience goes on"
        say(f"{workdir}: {run.first:,} of {run.steps:,} steps are done, the run is {why}")
        return row
    say(describe(run))
    with jax.set_mesh(run.mesh):
        trainable, opt_state, frozen = first_state(run)
        step_fn = compile_step(run.model, run.tx, run.mesh, chunk=config.model.loss_chunk)
        begin_run(run.config, workdir)
        with (
            Preemption() as preemption,
            open_checkpointer(workdir, save_total_limit=config.save_total_limit) as checkpointer,
            closing(start_recorder(run, history)) as recorder,
            closing(prefetch(run.batches, run.first, run.steps, partial(put_batch, run.mesh))) as stream,
        ):
            if config.eval_on_start and not run.first and not history:
                with recorder.pace.paused():
                    recorder.write(0, look(run, {**frozen, **trainable}, 0, possible(run, {"evaluate"}), script_share))
                    recorder.write(0, run_suite(run, {**frozen, **trainable}, suite))
            for index, batch, on_devices in stream:
                step, key = index + 1, dropout_key(config, index + 1)
                trainable, opt_state, metrics = step_fn(trainable, opt_state, frozen, on_devices, key)
                recorder.dispatched(step, metrics, batch)
                preempted = preemption.after(step) and step < run.steps
                due = {"save"} if preempted else what_is_due(run, step)  # no time for a look: who preempts does not wait long
                if not due:
                    continue
                row = recorder.catch_up()
                with recorder.pace.paused():
                    row |= look(run, {**frozen, **trainable}, step, due, script_share)
                improved = "heldout_loss" in row and stopping.improved(row["heldout_loss"])
                recorder.write(step, row)
                if "save" in due or improved or stopping.exhausted:
                    recorder.flush()  # so that no checkpoint is newer than its row
                    state = state_tree(trainable, opt_state)
                    save(checkpointer, step, state, heldout_loss=row.get("heldout_loss"), about=run.about)
                if preempted:
                    raise Preempted(f"SIGTERM: stopped after step {step} of {run.steps}, which is saved; --resume goes on")
                if "suite" in due:  # after what is to be saved: it may take minutes
                    with recorder.pace.paused():
                        recorder.write(step, run_suite(run, {**frozen, **trainable}, suite))
                if stopping.exhausted:
                    say(f"no better held-out loss than {stopping.best:.4f} in {stopping.since_best} evaluations: stopped")
                    break
    return row


def first_state(run: Run) -> tuple[Params, optax.OptState, Params]:
    """(trainables, optimizer state, frozen base): as saved, or as a run begins."""
    config = run.config
    frozen = {} if config.model.random_init else load_params(run.base, run.model, run.model.frozen, run.mesh, run.model_config)
    check_turn_tokens(run.tokenizer, config.lora, frozen, run.model_config, run.mesh)
    if run.first:
        return *restore_state(run.workdir, run.first, run.model, run.tx, run.mesh), frozen
    state = init_state(config.model, config.lora, run.model_config, run.model, run.tx, run.mesh, run.base, frozen, seed=config.seed)
    return *state, frozen


def begin_run(config: TrainConfig, workdir: str) -> None:
    """Process 0 makes the directory and writes config.json, after every process has looked at what was there."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("every process has looked at the run directory")
    path = join(workdir, "config.json")
    if jax.process_index() == 0 and files.read_json_or(path, None) != as_json(config):
        files.make_directory(workdir)
        files.write_json(path, as_json(config))


def start_recorder(run: Run, history: Sequence[Row]) -> Recorder:
    """history: the rows of metrics.jsonl up to the step that this process starts from."""
    config, peak = run.config, peak_flops(jax.devices()[0].device_kind)
    writer = None
    if jax.process_index() == 0:
        writer = MetricWriter(
            run.workdir, first_step=run.first, steps=run.steps, report_to=config.report_to, config=as_json(config)
        )
    regular = (row for row in history if row["step"] % config.logging_steps == 0 or "spike" in row)
    losses = [row["loss"] for row in regular if row.get("loss") is not None]
    return Recorder(
        writer, batches=run.batches, spikes=SpikeGuard(config.spike_sigma, losses),
        pace=Pace(flops_of(run) / (peak * run.mesh.size) if peak else None),
        learning_rate=schedule(config.optim, run.steps, np), first=run.first, steps=run.steps, logging_steps=config.logging_steps,
    )  # fmt: skip


def dropout_key(config: TrainConfig, step: int) -> Array | None:
    return _key(config.seed, step) if config.lora.dropout else None


@partial(jax.jit, static_argnums=0)
def _key(seed: int, step: int) -> Array:
    """In one piece: two calls outside of jit would cost the host as much as the whole step does."""
    return jax.random.fold_in(jax.random.key(seed), step)


def what_is_due(run: Run, step: int) -> set[str]:
    """Of "evaluate", "sample", "suite", "save": what is to be done after this step. All of it after the last."""
    config, last = run.config, step == run.steps
    every = {"evaluate": config.eval_steps, "sample": config.sample_steps or config.eval_steps,
             "suite": config.suite_steps or config.eval_steps, "save": config.save_steps}  # fmt: skip
    return possible(run, {name for name, steps in every.items() if last or (steps and step % steps == 0)})


def possible(run: Run, due: set[str]) -> set[str]:
    """Without what this run has nothing for."""
    missing = {"evaluate": run.heldout is None, "sample": not run.prompts, "suite": not run.config.suite}
    return {name for name in due if not missing.get(name)}


def run_suite(run: Run, params: Params, suite: Suite | None) -> Row:
    """Its metrics of the model as it is; none without one."""
    return suite(Loaded(run.model_config, run.model, params, run.tokenizer, run.mesh)) if suite and run.config.suite else {}


def look(run: Run, params: Params, step: int, due: set[str], script_share: ScriptShare | None) -> Row:
    """Held-out loss and samples where they are due, as metrics; the samples' texts go to samples.jsonl."""
    row: Row = {}
    if "evaluate" in due and run.heldout is not None:
        row |= heldout_metrics(heldout_loss(params, run.model, run.mesh, run.heldout, chunk=run.config.model.loss_chunk))
    if "sample" in due:
        loaded = Loaded(run.model_config, run.model, params, run.tokenizer, run.mesh)
        metrics, lines = sample(loaded, run.prompts, max_new_tokens=run.config.sample_max_new_tokens, script_share=script_share)
        row |= metrics
        if jax.process_index() == 0:
            with closing(JsonLines(join(run.workdir, "samples.jsonl"), first_step=step - 1)) as file:
                for line in lines:
                    file.append({"step": step, **line})
    return row
