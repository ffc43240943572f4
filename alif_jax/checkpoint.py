"""Checkpoints of a run: trainables, optimizer state and step, by Orbax. The frozen base is never in them.

Orbax casts a wrong dtype without a word, so the tree, shapes and dtypes are compared here before anything is restored.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from alif_jax import UsageError
from alif_jax.files import absolute, exists, join

CHUNK = 2**27  # bytes: a table trained on one device were one chunk of 2 GB else, to read which takes as much again
State = dict[str, dict[str, Any]]  # {"trainable": {name: array}, "optimizer": {name: array}}


def checkpoint_directory(workdir: str) -> str:
    return join(workdir, "checkpoints")


def step_path(workdir: str, step: int) -> epath.Path:
    return epath.Path(absolute(join(checkpoint_directory(workdir), str(step))))


def open_checkpointer(workdir: str, *, save_total_limit: int) -> ocp.training.Checkpointer:
    """Keeps the newest `save_total_limit` (0: all) and the one with the best held-out loss; clears what a kill left half written.

    When to save is the loop's matter. A save copies the arrays to the host and returns; a thread writes them and renames the
    directory at its end, so that a checkpoint is there whole or not at all.
    """
    policies = ocp.training.preservation_policies
    best = policies.BestN(get_metric_fn=_goodness, n=1, keep_checkpoints_without_metrics=False)
    keep = policies.AnyPreservationPolicy([policies.LatestN(save_total_limit or None), best])
    directory, context = epath.Path(absolute(checkpoint_directory(workdir))), ocp.Context()
    context.array.saving.storage_options.chunk_byte_size = CHUNK
    return ocp.training.Checkpointer(directory, preservation_policy=keep, cleanup_tmp_directories=True, context=context)


def _goodness(metrics: Mapping[str, Any]) -> float:
    return -metrics["heldout_loss"]


def save(
    checkpointer: ocp.training.Checkpointer, step: int, state: State, *, heldout_loss: float | None, about: dict[str, Any]
) -> None:
    """Starts to save. heldout_loss: of this very step, None where it was not evaluated. about: kept beside it (`about`)."""
    metrics = None if heldout_loss is None or not math.isfinite(heldout_loss) else {"heldout_loss": heldout_loss}
    checkpointer.save_async(step, state, force=True, metrics=metrics, custom_metadata=about)


def about(workdir: str, step: int) -> dict[str, Any]:
    """What `save` was told about this step."""
    return dict(ocp.metadata(step_path(workdir, step)).custom_metadata or {})


def finished_steps(workdir: str) -> list[tuple[int, float | None]]:
    """(step, held-out loss or None) of all finished checkpoints, oldest first."""
    directory = checkpoint_directory(workdir)
    if not exists(directory):
        return []
    with ocp.training.Checkpointer(epath.Path(absolute(directory))) as checkpointer:
        return [(saved.step, (saved.metrics or {}).get("heldout_loss")) for saved in checkpointer.checkpoints]


def latest_step(workdir: str) -> int | None:
    """The newest finished checkpoint's step; None where there is none."""
    return max((step for step, _ in finished_steps(workdir)), default=None)


def best_step(workdir: str) -> int | None:
    """The step of the checkpoint with the lowest held-out loss, the newest of equals; None where none was evaluated."""
    evaluated = [(loss, -step) for step, loss in finished_steps(workdir) if loss is not None]
    return -min(evaluated)[1] if evaluated else None


def which_step(workdir: str, step: str) -> int | None:
    """`latest` (None), `best` (lowest held-out loss) or a number, as people write it."""
    if step == "latest":
        return None
    if step == "best":
        best = best_step(workdir)
        if best is None:
            raise UsageError(f"{workdir}: no checkpoint with a held-out loss, so none is the best; take the latest")
        return best
    if not step.isdecimal():
        raise UsageError(f"step={step}: latest, best, or the number of a step")
    return int(step)


def check_same(saved: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
    """Raises UsageError at the first difference of two trees in names, shapes or dtypes, naming the parameter."""
    saved_flat, expected_flat = _flat(saved), _flat(expected)
    for name in sorted(saved_flat.keys() | expected_flat.keys()):
        if name not in saved_flat:
            raise UsageError(f"{where}: {name} is not in the checkpoint; the run was made with another model or LoRA config")
        if name not in expected_flat:
            raise UsageError(f"{where}: {name} is in the checkpoint only; the run was made with another model or LoRA config")
        was, wanted = saved_flat[name], expected_flat[name]
        if tuple(was.shape) != tuple(wanted.shape) or np.dtype(was.dtype) != np.dtype(wanted.dtype):
            raise UsageError(
                f"{where}: {name} is {was.dtype}{list(was.shape)} in the checkpoint, {wanted.dtype}{list(wanted.shape)} expected; "
                "the run was made with another model or LoRA config"
            )


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def restore(workdir: str, step: int, abstract: State) -> State:
    """The state saved at `step`, onto the shardings of `abstract` (ShapeDtypeStructs). Any mesh may have saved it."""
    path = step_path(workdir, step)
    check_same(ocp.metadata(path).metadata, abstract, str(path))
    return ocp.load(path, abstract)


def existing_step(workdir: str, step: int | None) -> int:
    """`step`, or the newest for None. Raises UsageError where there is no finished checkpoint of it."""
    steps = [saved for saved, _ in finished_steps(workdir)]
    if not steps:
        raise UsageError(f"{workdir}: no checkpoint in it; train first (launch/train.py --workdir={workdir})")
    if step is not None and step not in steps:
        raise UsageError(f"{workdir}: no checkpoint of step {step}; there are {', '.join(map(str, steps))}")
    return max(steps) if step is None else step


def load_trainables(
    workdir: str,
    abstract: Mapping[str, jax.ShapeDtypeStruct] | None = None,
    step: int | None = None,
    names: Collection[str] | None = None,
) -> dict[str, Any]:
    """A run's trained parameters of `step` (None: the newest), without optimizer: onto the shardings of `abstract`, or as NumPy.

    names: only these, of the NumPy ones.
    """
    path = step_path(workdir, existing_step(workdir, step))
    saved = ocp.metadata(path).metadata["trainable"]
    if abstract is not None:
        check_same(saved, abstract, str(path))
    chosen = saved if names is None else {name: saved[name] for name in names}
    wanted: Mapping[str, Any] = abstract or {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in chosen.items()}
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(path, {"trainable": dict(wanted)})["trainable"]
