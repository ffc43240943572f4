"""What a run will need, take and cost, before anything is loaded or paid: memory a chip, seconds a step, hours, money.

For TPUs the real step is compiled ahead of time (ahead.py), for GPUs its memory is counted by formula (analytic.py); both are timed
by roofline.py, or by a short run of the step where the chip is here. Prices come from the caller. plan_text.py shows it.
"""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alif_jax import UsageError, analytic, files, search
from alif_jax.ahead import Compiled, compile_ahead, measure, step_shapes
from alif_jax.analytic import rows_a_device
from alif_jax.flops import flops_per_token
from alif_jax.hf import resolve_model
from alif_jax.model_config import ModelConfig
from alif_jax.published import base_config
from alif_jax.roofline import step_estimate
from alif_jax.run import TrainConfig, load_batches, with_attention
from alif_jax.sharding import abstract_mesh, make_mesh
from alif_jax.tokenizer import load_tokenizer
from alif_jax.topology import Topology, chip_of, tpu_devices

Range = tuple[float, float]
BOUNDS = {"compute": "compute", "hbm": "memory bandwidth", "ici": "the interconnect"}
HOW_TO_GIVE_TOKENS = "the size of the data: --tokens=100e6 (of one epoch), or --config.data.path of shards that are here"


@dataclass(frozen=True)
class Price:
    """US dollars an hour of one chip, on demand and spot (None: unknown), where that stands and when it was read there."""

    usd_per_chip_hour: float | None
    spot: float | None
    source: str
    date: str


@dataclass(frozen=True)
class Workload:
    """The data of a run. steps: None where nobody knows; fill: tokens over positions of its rows; context: the mean over tokens of
    the length of the sequence a token stands in; source: in words."""

    steps: int | None
    fill: float
    context: float
    source: str


@dataclass(frozen=True)
class Timing:
    """Seconds of one step, what bounds it, and who says so."""

    seconds: Range | None
    bound: str | None
    by: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes are a device's. Pairs are (low, high). None: unknown, or not fitting; `notes` say why.

    tokens_per_second counts what is no padding, all devices together; hours and money are of the steps alone: no evaluation, no
    saving, no start. rows: of a microbatch on one device. memory_by, time_by: compiler, formula or measurement.
    """

    fits: bool
    hbm_bytes: int
    bytes_per_device: dict[str, int]
    flops_per_token: float
    tokens_per_second: Range | None
    hours: Range | None
    cost_usd: Range | None
    cost_usd_spot: Range | None
    topology: str
    devices: int
    mesh: dict[str, int]
    model: str
    model_from: str
    rows: int
    gradient_accumulation_steps: int
    batch_size: int
    sequence_length: int
    steps: int | None
    data: str
    seconds_per_step: Range | None
    bound: str | None
    memory_by: str
    time_by: str
    compile_seconds: float | None
    price: dict[str, Any] | None
    notes: tuple[str, ...]
    search: dict[str, Any] | None


def as_json(plan: Plan) -> dict[str, Any]:
    """Ranges as [low, high]; null where unknown."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(plan).items()}


def total(plans: list[Plan], data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One recipe of several runs: fits where all do; hours and money added, null where one is unknown.

    data: what making the data takes besides, its "cost_usd" for the low end and "worst_cost_usd" for the high one; hours are the
    runs' alone.
    """

    def add(key: str) -> list[float] | None:
        ranges = [getattr(plan, key) for plan in plans]
        if data is not None and key != "hours":
            ranges.append(None if data["cost_usd"] is None else (data["cost_usd"], data["worst_cost_usd"]))
        return None if None in ranges else [math.fsum(r[end] for r in ranges) for end in (0, 1)]

    sums = {key: add(key) for key in ("hours", "cost_usd", "cost_usd_spot")}
    also = {} if data is None else {"data": dict(data)}
    return {"fits": all(plan.fits for plan in plans), **sums, **also, "runs": [as_json(plan) for plan in plans]}


def make_plan(
    config: TrainConfig,
    topology: Topology,
    *,
    price: Price | None,
    tokens: float | None = None,
    measured: bool = False,
    searched: bool = False,
) -> Plan:
    """The plan of one run on `topology`. tokens: of one epoch, where the data is not here. measured: time the step on this machine.
    searched: of the fastest microbatch, remat and mesh that fit, instead of the recipe's own.

    Raises UsageError for what training would refuse: a mesh that does not divide, a model that is not implemented.
    """
    config.validate()
    model_config, model_from = base_config(config.model.path, config.model.revision)
    found_best = None
    if searched:
        config, compiled, found_best = best(config, model_config, topology)
    mesh = plan_mesh(config, topology, measured=measured)
    if not searched:
        config = with_attention(config, model_config, mesh.shape, topology.platform)
        compiled = planned(config, model_config, topology, mesh)
    work = workload(config, tokens)
    notes: list[str] = []
    if not compiled.fits:
        timing = Timing(None, None, "nothing")
        notes += does_not_fit(config, model_config, topology, mesh, compiled)
    elif measured:
        found = measure(config, model_config, mesh)
        timing = Timing((found.seconds, found.seconds), None, f"measured on {mesh.size} {jax.devices()[0].device_kind}")
        compiled = with_peak(compiled, found.peak_bytes)
    else:
        timing = estimated(config, model_config, topology, mesh, compiled, notes)
    seconds = timing.seconds
    hours = None if seconds is None or work.steps is None else scaled(seconds, work.steps / 3600)
    if seconds is not None and work.steps is None:
        notes.append(f"hours and cost need {HOW_TO_GIVE_TOKENS}")
    on_demand, spot = (price.usd_per_chip_hour, price.spot) if price else (None, None)
    if on_demand is None and spot is None:
        notes.append(f"no price is known for {topology.chip.name}: write one into configs/prices.py, and the cost is planned too")
    positions = config.batch_size * config.data.sequence_length
    return Plan(
        fits=compiled.fits, hbm_bytes=topology.chip.hbm_bytes, bytes_per_device=compiled.memory.parts(),
        flops_per_token=flops_per_token(model_config, config.lora, context=work.context),
        tokens_per_second=None if seconds is None else (positions * work.fill / seconds[1], positions * work.fill / seconds[0]),
        hours=hours, cost_usd=cost(hours, topology, on_demand), cost_usd_spot=cost(hours, topology, spot),
        topology=topology.name, devices=topology.devices, mesh=dict(mesh.shape), model=config.model.path, model_from=model_from,
        rows=rows_a_device(config, mesh), gradient_accumulation_steps=config.gradient_accumulation_steps,
        batch_size=config.batch_size, sequence_length=config.data.sequence_length, steps=work.steps, data=work.source,
        seconds_per_step=seconds, bound=timing.bound, memory_by=compiled.by, time_by=timing.by,
        compile_seconds=round(compiled.seconds, 1) if topology.chip.is_tpu else None,
        price=dataclasses.asdict(price) if price else None, notes=tuple(notes),
        search=search.as_json(found_best) if found_best else None,
    )  # fmt: skip


def scaled(pair: Range, factor: float) -> Range:
    return pair[0] * factor, pair[1] * factor


def cost(hours: Range | None, topology: Topology, usd_per_chip_hour: float | None) -> Range | None:
    return None if hours is None or usd_per_chip_hour is None else scaled(hours, topology.devices * usd_per_chip_hour)


def plan_mesh(config: TrainConfig, topology: Topology, *, measured: bool = False) -> Mesh:
    """The mesh of the run on this topology: real devices to measure on, a compiler's for TPUs, for GPUs an abstract one."""
    if measured:
        here = jax.devices()
        chip = chip_of(here[0].device_kind)
        if chip != topology.chip or len(here) != topology.devices:
            raise UsageError(f"--measure: here are {len(here)} {here[0].device_kind}, not {topology.name}; plan without --measure")
        return make_mesh(config.mesh, here)
    if topology.chip.is_tpu:
        return make_mesh(config.mesh, tpu_devices(topology))
    return abstract_mesh(config.mesh, topology.devices)


def read_tokens(given: list[str], runs: int) -> list[float | None]:
    """--tokens as numbers, one a run; none given: unknown for all."""
    if not given:
        return [None] * runs
    try:
        numbers: list[float | None] = [float(one) for one in given]
    except ValueError:
        raise UsageError(f"--tokens={','.join(given)}: expected numbers such as 100e6") from None
    if not all(number and math.isfinite(number) for number in numbers):
        raise UsageError(f"--tokens={','.join(given)}: expected positive numbers such as 100e6")
    if len(numbers) != runs:
        raise UsageError(f"--tokens={','.join(given)}: {len(numbers)} numbers for {runs} runs; one each")
    return numbers


def planned(config: TrainConfig, model_config: ModelConfig, topology: Topology, mesh: Mesh) -> Compiled:
    """Bytes a device, by the compiler or by formula."""
    if topology.chip.is_tpu:
        return compile_ahead(config, model_config, mesh)
    memory = step_shapes(config, model_config, mesh).memory(0)
    temporary = analytic.temporary_bytes(config, model_config, mesh, trainables=memory.trainables)
    memory = dataclasses.replace(memory, temporary=temporary)
    fits = memory.total * analytic.MARGIN <= topology.chip.hbm_bytes
    return Compiled(memory, fits=fits, hlo_text="", seconds=0.0, by="formula")


def estimated(
    config: TrainConfig, model_config: ModelConfig, topology: Topology, mesh: Mesh, compiled: Compiled, notes: list[str]
) -> Timing:
    """Seconds of one step by roofline.py."""
    found = step_estimate(config, model_config, topology, mesh, compiled.memory, compiled.hlo_text)
    if found.unread:
        notes.append(f"not counted in the time: {len(found.unread)} collectives that could not be read")
    return Timing((found.seconds_low, found.seconds_high), BOUNDS[found.bound], "roofline")


def with_peak(compiled: Compiled, peak_bytes: int | None) -> Compiled:
    """The memory that a device said was in use, where it says so."""
    if peak_bytes is None:
        return compiled
    temporary = max(0, peak_bytes - compiled.memory.state)
    return dataclasses.replace(compiled, memory=dataclasses.replace(compiled.memory, temporary=temporary), by="measurement")


def best(config: TrainConfig, model_config: ModelConfig, topology: Topology) -> tuple[TrainConfig, Compiled, search.Found]:
    """The fastest config that fits, what the compiler said of it, and the others that were looked at."""
    tried = {}

    def compile_plan(one: TrainConfig) -> Compiled:
        mesh = plan_mesh(one, topology)
        compiled = planned(one, model_config, topology, mesh)
        tried[tuple(mesh.shape.items()), one.model.remat, one.gradient_accumulation_steps] = one, compiled
        return compiled

    found = search.search(config, model_config, topology, compile_plan)
    first = found.choices[0]
    return *tried[tuple(first.mesh.items()), first.remat, first.gradient_accumulation_steps], found


def workload(config: TrainConfig, tokens: float | None) -> Workload:
    """Steps and rows of the configured data: as told, or counted where shards and tokenizer are here."""
    data = config.data
    positions = config.batch_size * data.sequence_length
    full = Workload(config.max_steps or None, 1.0, float(data.sequence_length), "full rows")
    if tokens is not None:
        if tokens <= 0:
            raise UsageError(f"--tokens={tokens:g}: a positive number, the tokens of one epoch")
        steps = config.max_steps or math.ceil(config.num_train_epochs * tokens / positions)
        said = f"{tokens:,.0f} tokens an epoch as told, rows taken as full"
        if not data.packing:
            said += "; with one example a row (data.packing=False) this is the least: half full ones take twice as long"
        return dataclasses.replace(full, steps=steps, source=said)
    if not data.path or not all(files.exists(files.join(path, "manifest.json")) for path in data.path):
        return full
    try:
        with contextlib.redirect_stdout(sys.stderr):
            base = resolve_model(config.model.path, weights=False, revision=config.model.revision)
            tokenizer = load_tokenizer(base, data.template)
            batches, _ = load_batches(config, tokenizer)
    except UsageError as error:
        return dataclasses.replace(full, source=f"not counted: {error}")
    stats, lengths = batches.stats(), batches.examples.lengths.astype(np.float64)
    said = f"{stats['tokens']:,} tokens an epoch, counted in {', '.join(data.path)}"
    return Workload(batches.steps, stats["fill"], float((lengths**2).sum() / lengths.sum()), said)


# --- what does not fit


def does_not_fit(config: TrainConfig, model_config: ModelConfig, topology: Topology, mesh: Mesh, found: Compiled) -> list[str]:
    """Sentences: how much is missing, what is the largest part, what would help."""
    hbm, memory = topology.chip.hbm_bytes, found.memory
    parts = {name: size for name, size in memory.parts().items() if name != "total"}
    if memory.state > hbm:
        del parts["temporary"]  # without it the rest would not fit either
    largest = max(parts, key=lambda name: parts[name])
    sure = f" (by formula, so with {analytic.MARGIN - 1:.0%} to spare)" if found.by == "formula" else ""
    notes = [
        f"does not fit: {gib(memory.total)} of {gib(hbm)} GiB{sure}; the largest part is {largest} ({gib(parts[largest])} GiB)",
        f"what would help: {'; '.join(remedies(config, topology, mesh, largest))}",
    ]
    rows = rows_a_device(config, mesh)
    if memory.state > hbm:
        return [*notes, f"weights and optimizer alone are {gib(memory.state)} GiB a chip: no number of rows fits"]
    if rows == 1:
        return [*notes, "that is with one row a device: fewer rows are not possible"]
    accumulation = config.gradient_accumulation_steps * rows
    single = planned(dataclasses.replace(config, gradient_accumulation_steps=accumulation), model_config, topology, mesh)
    if not single.fits:
        return [*notes, f"one row a device does not fit either: {gib(single.memory.total)} GiB"]
    return [
        *notes,
        f"one row a device fits, {gib(single.memory.total)} GiB: --config.gradient_accumulation_steps={accumulation}",
    ]


def remedies(config: TrainConfig, topology: Topology, mesh: Mesh, largest: str) -> list[str]:
    """What makes the largest part smaller, the cheapest first."""
    found = []
    if largest == "temporary":
        if rows_a_device(config, mesh) > 1:
            found.append("fewer rows at a time (gradient_accumulation_steps up)")
        if config.model.remat != "full":
            found.append("model.remat=full")
        if config.data.sequence_length > 2048:
            found.append("tokens of a row over several devices (mesh.sequence)")
    if largest == "weights" and not config.lora.full and config.model.quantization != "nf4":
        found.append("model.quantization=nf4 or int8")
    if largest in ("trainables", "optimizer"):
        found.append("LoRA (lora.full=False)" if config.lora.full else "a smaller lora.rank, or fewer lora.modules_to_save")
    if mesh.shape["data"] > 1:
        found.append("mesh.fsdp instead of mesh.data, which holds everything once a copy")
    return [*found, f"more chips than {topology.devices}, or ones with more than {gib(topology.chip.hbm_bytes)} GiB"]


def gib(size: float) -> str:
    return f"{size / 2**30:.2f}"
