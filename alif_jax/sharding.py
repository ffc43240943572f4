"""The device mesh, and the one table that says on which mesh axis each logical axis of a tensor lies.

Every parameter is made with a tuple of logical axis names, one a dimension (`("layers", "embed", "mlp")`). `sharding_of` turns
them into a `NamedSharding` by `MESH_AXIS`; a dimension that a mesh axis cannot divide is an error, never a silent replication.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import cast

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from alif_jax import UsageError

AXES = ("data", "fsdp", "tensor", "sequence")

MESH_AXIS: dict[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "length": ("sequence",),
    "layers": (),
    "embed": ("fsdp", "sequence"),  # parameters only; both axes hold the same weights, so both split them
    "vocab": ("tensor",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "rank": (),
    "adapter": ("tensor", "fsdp", "sequence"),  # the other dimension of a LoRA factor, where its base's lies on tensor alone
    "columns": ("fsdp",),  # of looked-up embeddings, on their way from "embed" to "batch"
    "copies": ("data",),  # rows of a batch that every device of a copy of the weights sees
}

Axes = tuple[str | None, ...]


@dataclass(kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; -1 in one place means "all that are left".

    data: whole copies. fsdp: rows and weights split. tensor: heads, ffn and vocabulary split. sequence: tokens of a row split, for
    long context; weights are split over it too.
    """

    data: int = 1
    fsdp: int = -1
    tensor: int = 1
    sequence: int = 1


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, ...]:
    """Devices along each of AXES, -1 replaced. Raises UsageError where the product is not `devices`."""
    sizes = [getattr(config, axis) for axis in AXES]
    shape = " × ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
    if sizes.count(-1) > 1 or any(size == 0 or size < -1 for size in sizes):
        raise UsageError(f"mesh {shape}: each size is a positive number, or -1 in one place; change config.mesh")
    known = prod(size for size in sizes if size > 0)
    if devices % known or (-1 not in sizes and known != devices):
        raise UsageError(f"mesh {shape} does not fit {devices} device(s): their product must be {devices}")
    return tuple(devices // known if size == -1 else size for size in sizes)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """A `data × fsdp × tensor × sequence` mesh over all devices (or those given)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(mesh_sizes(config, len(devices)), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def abstract_mesh(config: MeshConfig, devices: int) -> Mesh:
    """`make_mesh` over devices that no one asks for anything: enough for shapes and their parts."""
    return cast(Mesh, AbstractMesh(mesh_sizes(config, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES)))


def spec_of(axes: Axes) -> PartitionSpec:
    return PartitionSpec(*(MESH_AXIS[axis] or None if axis else None for axis in axes))


def sharding_of(mesh: Mesh, axes: Axes, shape: tuple[int, ...], name: str) -> NamedSharding:
    """The sharding of a tensor with these logical axes. Raises UsageError where the mesh does not divide a dimension."""
    for dimension, (axis, size) in enumerate(zip(axes, shape, strict=True)):
        parts = prod(mesh.shape[part] for part in MESH_AXIS[axis]) if axis else 1
        if size % parts:
            over = " × ".join(MESH_AXIS[axis or ""])
            raise UsageError(
                f"{name}: dimension {dimension} ({axis}, {size}) cannot be divided over {over} = {parts} devices; "
                f"choose mesh sizes that divide {size}"
            )
    return NamedSharding(mesh, spec_of(axes))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def constrain(x: Array, *axes: str | None) -> Array:
    """Pins an activation to the mesh in scope (`jax.set_mesh`); outside a mesh there is nothing to pin."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec_of(axes))


def batch_parts(mesh: Mesh) -> int:
    """Over how many devices the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_rows(mesh: Mesh, rows: int) -> None:
    """Raises UsageError for a number of rows a microbatch that the mesh cannot divide."""
    parts = batch_parts(mesh)
    if rows % parts:
        raise UsageError(
            f"{rows} rows a microbatch cannot be divided over data × fsdp = {parts} devices; "
            f"make batch_size / gradient_accumulation_steps a multiple of {parts}"
        )


def check_length(mesh: Mesh, length: int) -> None:
    """Raises UsageError for a row length that the sequence axis cannot divide."""
    if length % mesh.shape["sequence"]:
        raise UsageError(
            f"rows of {length} tokens cannot be divided over sequence = {mesh.shape['sequence']} devices; "
            f"make data.sequence_length a multiple of {mesh.shape['sequence']}"
        )


def put_batch(mesh: Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """Host batch (arrays `[A, B, L]`: microbatches, rows, tokens) → global arrays, rows over data × fsdp, tokens over sequence.

    Every process calls it with the same global batch; each device receives only its own part.
    """
    check_rows(mesh, next(iter(batch.values())).shape[1])
    check_length(mesh, next(iter(batch.values())).shape[2])
    sharding = NamedSharding(mesh, spec_of((None, "batch", "length")))

    def put(array: np.ndarray) -> Array:
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return {name: put(array) for name, array in batch.items()}
