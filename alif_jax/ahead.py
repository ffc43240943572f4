"""A training step before it runs: its shapes on a mesh, its bytes a device, its compilation for chips that are not there.

The step is the trainer's own (`run.build_model`, `step.compile_step`); nothing is loaded. `measure` runs it on what is here.
`A` microbatches of a step, `B` rows, `L` tokens.
"""

import math
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from alif_jax import UsageError
from alif_jax.load import check_heads
from alif_jax.model import Params, Skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.optim import optimizer
from alif_jax.run import TrainConfig, build_model
from alif_jax.sharding import check_length, check_rows, put_batch, replicated, spec_of
from alif_jax.step import compile_step, state_shapes

STEPS = 1_000_000  # of the learning rate's schedule: only a constant in the program
BATCH = {"tokens": jnp.int32, "targets": jnp.int32, "segment_ids": jnp.int32, "positions": jnp.int32, "loss_mask": jnp.float32}
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. weights: frozen parameters, as they are held; trainables: fp32; temporary: gradients, activations,
    gathered weights, the batch and the program itself."""

    weights: int
    trainables: int
    optimizer: int
    temporary: int

    @property
    def state(self) -> int:
        return self.weights + self.trainables + self.optimizer

    @property
    def total(self) -> int:
        return self.state + self.temporary

    def parts(self) -> dict[str, int]:
        names = ("weights", "trainables", "optimizer", "temporary", "total")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Compiled:
    """What a compiler says of the step. fits: by its own count. hlo_text: the program on one device; "" where there is none.

    by: who counted the memory, XLA, a formula or a measurement.
    """

    memory: Memory
    fits: bool
    hlo_text: str
    seconds: float
    by: str = "XLA"


@dataclass(frozen=True)
class Step:
    """The step's shapes on a mesh: what `compile_step` is called with."""

    model: Skeleton
    tx: optax.GradientTransformation
    trainable: dict[str, jax.ShapeDtypeStruct]
    opt_state: optax.OptState
    frozen: dict[str, jax.ShapeDtypeStruct]
    batch: dict[str, jax.ShapeDtypeStruct]
    dropout_key: jax.ShapeDtypeStruct | None

    def memory(self, total: int) -> Memory:
        """With so many bytes in all."""
        weights, trainables, moments = (shard_bytes(part) for part in (self.frozen, self.trainable, self.opt_state))
        return Memory(weights, trainables, moments, max(0, total - weights - trainables - moments))


def shard_bytes(tree: Any) -> int:
    """Bytes of one device's shards of abstract arrays; XLA packs two 4-bit numbers into one."""

    def size(leaf: Any) -> int:
        entries = math.prod(leaf.sharding.shard_shape(leaf.shape))
        return entries // 2 if leaf.dtype in (jnp.int4, jnp.uint4) else entries * leaf.dtype.itemsize

    return sum(map(size, jax.tree.leaves(tree)))


def step_shapes(config: TrainConfig, model_config: ModelConfig, mesh: Mesh) -> Step:
    """Raises UsageError, as a run would, for what the mesh does not divide. mesh: an abstract one does."""
    rows = config.batch_size // config.gradient_accumulation_steps
    check_rows(mesh, rows)
    check_length(mesh, config.data.sequence_length)
    check_heads(model_config, mesh)
    model, tx = build_model(config, model_config), optimizer(config.optim, STEPS)
    trainable, opt_state = state_shapes(model, tx, mesh)
    shape = (config.gradient_accumulation_steps, rows, config.data.sequence_length)
    sharding = NamedSharding(mesh, spec_of((None, "batch", "length")))
    key = jax.eval_shape(lambda: jax.random.key(0))
    return Step(
        model=model, tx=tx, trainable=trainable, opt_state=opt_state, frozen=model.abstract(mesh, model.frozen),
        batch={name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, dtype in BATCH.items()},
        dropout_key=jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh)) if config.lora.dropout else None,
    )  # fmt: skip


def compile_ahead(config: TrainConfig, model_config: ModelConfig, mesh: Mesh) -> Compiled:
    """Compiles the real step for the devices of `mesh`, which need not be there (`topology.tpu_devices`).

    total = arguments + temporaries + outputs that do not lie where a donated argument lay: with libtpu 0.0.51 exactly the number
    that its verdict compares with the HBM, and its own `peak_memory_in_bytes` in small programs.
    """
    shapes = step_shapes(config, model_config, mesh)
    step = cast(jax.stages.Wrapped, compile_step(shapes.model, shapes.tx, mesh, chunk=config.model.loss_chunk))
    began = time.perf_counter()
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as directory:
        lowered = step.lower(shapes.trainable, shapes.opt_state, shapes.frozen, shapes.batch, shapes.dropout_key)
        try:
            compiled = lowered.compile({"xla_dump_to": directory, "xla_dump_hlo_as_text": True})
            hlo_text = dumped(directory) or compiled.as_text() or ""  # one out of JAX's cache is not written down again
        except jax.errors.JaxRuntimeError as error:
            needed = needed_bytes(str(error))
            if needed is None:
                raise
            return Compiled(shapes.memory(needed), fits=False, hlo_text="", seconds=time.perf_counter() - began)
    found = compiled.memory_analysis()
    assert found is not None
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes
    total = found.argument_size_in_bytes + found.temp_size_in_bytes + outputs
    return Compiled(shapes.memory(total), fits=True, hlo_text=hlo_text, seconds=time.perf_counter() - began)


def dumped(directory: str) -> str:
    """The program as XLA wrote it down when it was done. (`compiled.as_text()` parses it again and fails at that for an 8B step on
    v6e: "async-update instruction should have 1 operands but sees 3", libtpu 0.0.51.)"""
    return "".join(file.read_text() for file in Path(directory).glob("*.after_optimizations_after_buffer_assignment.txt"))


def needed_bytes(message: str) -> int | None:
    """The bytes a device that XLA's out-of-memory message names: arguments and all. None for another message.

    "… total memory required for HLO temporaries (17.00G) exceeds available HBM (15.75G) …"; older: "Used 49.34G of 32.00G hbm".
    """
    found = re.search(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM|Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    if "RESOURCE_EXHAUSTED" not in message or found is None:
        return None
    number, unit = (part for part in found.groups() if part is not None)
    return int(float(number) * UNITS[unit])


@dataclass(frozen=True)
class Measured:
    """Seconds of one step, the median; the most bytes in use on a device, where it tells (CPUs do not)."""

    seconds: float
    peak_bytes: int | None


def measure(config: TrainConfig, model_config: ModelConfig, mesh: Mesh, *, steps: int = 5) -> Measured:
    """Runs the step on random parameters and full rows, on the devices of `mesh`; the first one, which compiles, is not counted.

    Raises UsageError where the devices' memory does not hold it.
    """
    try:
        return _measure(config, model_config, mesh, steps)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UsageError(f"--measure: the step does not fit here: {str(error).splitlines()[0]}; plan without --measure") from None


def _measure(config: TrainConfig, model_config: ModelConfig, mesh: Mesh, steps: int) -> Measured:
    shapes = step_shapes(config, model_config, mesh)
    trainable, frozen = _random(shapes.trainable), _random(shapes.frozen)
    opt_state = jax.jit(shapes.tx.init, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, shapes.opt_state))(trainable)
    batch = put_batch(mesh, full_rows(shapes.batch["tokens"].shape, model_config.vocab_size))
    key = None if shapes.dropout_key is None else jax.random.key(0)
    step = compile_step(shapes.model, shapes.tx, mesh, chunk=config.model.loss_chunk)
    times = []
    with jax.set_mesh(mesh):
        for _ in range(steps + 1):
            began = time.perf_counter()
            trainable, opt_state, metrics = step(trainable, opt_state, frozen, batch, key)
            jax.block_until_ready((trainable, metrics))
            times.append(time.perf_counter() - began)
    stats = mesh.devices.flat[0].memory_stats()
    return Measured(median(times[1:]), stats.get("peak_bytes_in_use") if stats else None)


def _random(abstract: Mapping[str, jax.ShapeDtypeStruct]) -> Params:
    """Small numbers that look random, an array at a time: the model's own first values, made at once in fp32, would need more than
    the step does, whose peak is read."""

    def make(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        iota = partial(jax.lax.broadcasted_iota, jnp.uint32, leaf.shape)
        place = sum((iota(axis) * jnp.uint32(40_503 + 2 * axis) for axis in range(leaf.ndim)), jnp.uint32(1))
        bits = place * jnp.uint32(2_654_435_761) >> 24  # Knuth's multiplicative hash
        if not jnp.issubdtype(leaf.dtype, jnp.integer):
            bits = (bits.astype(jnp.float32) - 127.5) / 6400
        return bits.astype(leaf.dtype)

    return {name: jax.jit(partial(make, leaf), out_shardings=leaf.sharding)() for name, leaf in abstract.items()}


def full_rows(shape: tuple[int, ...], vocab: int) -> dict[str, np.ndarray]:
    """A batch `[A, B, L]` without padding: random tokens, one segment a row, all trained."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocab, shape).astype(np.int32)
    return {
        "tokens": tokens, "targets": tokens, "segment_ids": np.ones(shape, np.int32),
        "positions": np.broadcast_to(np.arange(shape[-1], dtype=np.int32), shape), "loss_mask": np.ones(shape, np.float32),
    }  # fmt: skip
