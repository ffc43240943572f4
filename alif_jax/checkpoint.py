"""Checkpoints of a run: trainables, optimizer state and step, by Orbax. The frozen base is never in them.

Orbax casts a wrong dtype without a word, so the tree, shapes and dtypes are compared here before anything is restored.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from alif_jax import UsageError
from alif_jax.files import absolute, exists, join

State = dict[str, dict[str, Any]]  # {"trainable": {name: array}, "optimizer": {name: array}}


def checkpoint_directory(workdir: str) -> str:
    return join(workdir, "checkpoints")


def step_path(workdir: str, step: int) -> epath.Path:
    return epath.Path(absolute(join(checkpoint_directory(workdir), str(step))))


def open_checkpointer(workdir: str, *, save_steps: int, save_total_limit: int) -> ocp.training.Checkpointer:
    """Saves every `save_steps` (0: only when forced) and keeps the newest `save_total_limit` (0: all)."""
    never = ocp.training.save_decision_policies.SpecificStepsPolicy(())
    every = ocp.training.save_decision_policies.FixedIntervalPolicy(save_steps) if save_steps else never
    keep = ocp.training.preservation_policies.LatestN(save_total_limit or None)
    directory = epath.Path(absolute(checkpoint_directory(workdir)))
    return ocp.training.Checkpointer(directory, save_decision_policy=every, preservation_policy=keep)


def latest_step(workdir: str) -> int | None:
    """The newest finished checkpoint's step; None where there is none."""
    directory = checkpoint_directory(workdir)
    if not exists(directory):
        return None
    with ocp.training.Checkpointer(epath.Path(absolute(directory))) as checkpointer:
        return checkpointer.latest.step if checkpointer.latest else None


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


def load_trainables(workdir: str, abstract: Mapping[str, jax.ShapeDtypeStruct] | None = None) -> dict[str, Any]:
    """The newest trained parameters of a run, without the optimizer: onto the shardings of `abstract`, or NumPy on the host."""
    step = latest_step(workdir)
    if step is None:
        raise UsageError(f"{workdir}: no checkpoint in it; train first (launch/train.py --workdir={workdir})")
    path = step_path(workdir, step)
    saved = ocp.metadata(path).metadata["trainable"]
    if abstract is not None:
        check_same(saved, abstract, str(path))
    wanted: Mapping[str, Any] = abstract or {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in saved.items()}
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    with context:
        return ocp.load(path, {"trainable": dict(wanted)})["trainable"]
