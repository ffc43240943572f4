"""The fastest way that fits: microbatch × remat × mesh, ranked by predicted throughput, within a handful of real compiles.

Formulas (analytic.py, roofline.py) say how fast each candidate is and about how much it needs; the compiler has the last word on
whether it fits. What the recipe learns stays as it is: batch_size is not touched, gradient_accumulation_steps follows.

Memory grows with the rows of a microbatch and with what a layer keeps, so one compile decides several candidates: what is larger
than one that does not fit, does not fit either; what is smaller than one that does, is slower. Among the rows of one
mesh and remat that leaves a bisection, begun where the formula, scaled by what the compiler said so far, puts the limit.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jax.sharding import Mesh

from alif_jax import UsageError, analytic
from alif_jax.ahead import Compiled, Memory, shard_bytes
from alif_jax.load import check_heads
from alif_jax.model import Skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.roofline import Estimate, step_estimate
from alif_jax.run import TrainConfig, build_model, with_attention
from alif_jax.sharding import MeshConfig, abstract_mesh, check_length
from alif_jax.topology import Topology

MOST_COMPILES = 10
ATTENTION = "q_proj+k_proj+v_proj+attention+o_proj"
REMATS = (
    "full", "o_proj", "q_proj+k_proj+v_proj+o_proj", ATTENTION, f"{ATTENTION}+gate_proj", f"{ATTENTION}+gate_proj+up_proj", "none",
)  # fmt: skip
# How far the formula may be above the HBM and a compile still be worth it: what was compiled before is of another mesh (or nothing
# was), of the same mesh, of the same mesh and remat.
DOUBT = {"nothing": 1.3, "mesh": 1.1, "group": 1.03}


@dataclass(frozen=True)
class Choice:
    """A candidate that was compiled. rows: of a microbatch on one device; bytes: a device's; tokens_per_second: low, high, all
    devices; overrides: what train.py takes."""

    overrides: tuple[str, ...]
    mesh: dict[str, int]
    remat: str
    rows: int
    gradient_accumulation_steps: int
    bytes: int
    fits: bool
    tokens_per_second: tuple[float, float]
    bound: str


@dataclass(frozen=True)
class Found:
    """choices: those that fit, the fastest first, then those that do not. candidates: how many there were."""

    choices: tuple[Choice, ...]
    compiles: int
    candidates: int

    @property
    def overrides(self) -> tuple[str, ...]:
        return self.choices[0].overrides


def as_json(found: Found) -> dict[str, Any]:
    return dataclasses.asdict(found) | {"overrides": list(found.overrides)}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to run the recipe. state: its weights, trainables and optimizer a device; temporary: by formula."""

    config: TrainConfig
    model_config: ModelConfig
    topology: Topology
    mesh: Mesh
    state: Memory
    rows: int

    @property
    def remat(self) -> str:
        return self.config.model.remat

    @property
    def kept(self) -> frozenset[str]:
        return frozenset() if self.remat == "full" else frozenset(self.remat.split("+"))

    @cached_property
    def temporary(self) -> int:
        return analytic.temporary_bytes(self.config, self.model_config, self.mesh, trainables=self.state.trainables)

    @cached_property
    def estimate(self) -> Estimate:
        return step_estimate(self.config, self.model_config, self.topology, self.mesh, self.state)

    @property
    def slowness(self) -> tuple[float, int]:
        """To compare by: the seconds of a step if nothing were hidden behind its largest part, then bytes.

        The largest part alone does not tell those apart that compute bounds, and would call sums over tensor, which every layer
        waits for, free; the published rows (roofline.py) fall off with the sum of the parts.
        """
        found = self.estimate
        return found.compute_s + found.hbm_s + found.ici_s, self.state.total + self.temporary

    def needs_no_more_than(self, other: "Candidate") -> bool:
        """Where that is certain: same mesh, no more rows, nothing kept that the other does not keep."""
        kept = other.remat == "none" or (self.remat != "none" and self.kept <= other.kept)
        return self.mesh == other.mesh and self.rows <= other.rows and kept


def search(
    config: TrainConfig,
    model_config: ModelConfig,
    topology: Topology,
    compile_plan: Callable[[TrainConfig], Compiled],
    *,
    most_compiles: int = MOST_COMPILES,
) -> Found:
    """The fastest candidates that fit `topology`. compile_plan: bytes a device of a config, and whether they fit.

    Raises UsageError where none does (naming the largest part), or where no mesh divides model, batch and slice.
    """
    every = sorted(candidates(config, model_config, topology), key=lambda one: one.slowness)
    tried: dict[Candidate, Compiled] = {}
    while len(tried) < most_compiles:
        one = next_candidate(every, tried, topology.chip.hbm_bytes, last=len(tried) == most_compiles - 1)
        if one is None:
            break
        tried[one] = compile_plan(one.config)
    ordered = sorted(tried, key=lambda one: (not tried[one].fits, one.slowness))
    if not ordered or not tried[ordered[0]].fits:
        raise nothing_fits(every, tried, topology)
    return Found(tuple(choice(one, tried[one]) for one in ordered), len(tried), len(every))


def candidates(config: TrainConfig, model_config: ModelConfig, topology: Topology) -> Iterator[Candidate]:
    """Every mesh that divides model, rows and slice × every number of rows that divides the batch × every remat."""
    refused, nothing, model = "", True, build_model(config, model_config)
    for sizes in meshes(topology.devices):
        options = [steps for steps in range(1, config.batch_size + 1) if config.batch_size % (steps * sizes.fsdp) == 0]
        if not options:
            refused = refused or f"batch_size={config.batch_size} is not a multiple of mesh.fsdp={sizes.fsdp}"
            continue
        mesh = abstract_mesh(sizes, topology.devices)
        of_mesh = dataclasses.replace(config, mesh=sizes, gradient_accumulation_steps=options[-1])
        try:
            of_mesh = with_attention(of_mesh, model_config, mesh.shape, topology.platform)
            state = state_bytes(model, of_mesh, model_config, mesh)
        except UsageError as error:
            refused = refused or str(error)
            continue
        nothing = False
        for steps in options:
            for remat in REMATS:
                if remat == "none" and config.model.remat_offload:
                    continue
                source = dataclasses.replace(config.model, remat=remat)
                one = dataclasses.replace(of_mesh, model=source, gradient_accumulation_steps=steps)
                yield Candidate(one, model_config, topology, mesh, state, config.batch_size // steps // sizes.fsdp)
    if nothing:
        raise UsageError(f"no mesh of {topology.devices} devices divides this recipe: {refused}")


def state_bytes(model: Skeleton, config: TrainConfig, model_config: ModelConfig, mesh: Mesh) -> Memory:
    """What lies on a device before a step. AdamW keeps two moments of every trained number. Raises UsageError as a run would."""
    check_length(mesh, config.data.sequence_length)
    check_heads(model_config, mesh)
    weights, trainables = (shard_bytes(model.abstract(mesh, names)) for names in (model.frozen, model.trainable))
    return Memory(weights, trainables, 2 * trainables, temporary=0)


def meshes(devices: int) -> Iterator[MeshConfig]:
    """Every fsdp × tensor × sequence of so many devices, without whole copies: those hold more and are no faster."""
    for tensor in (size for size in range(1, devices + 1) if devices % size == 0):
        for sequence in (size for size in range(1, devices // tensor + 1) if devices // tensor % size == 0):
            yield MeshConfig(data=1, fsdp=devices // tensor // sequence, tensor=tensor, sequence=sequence)


def next_candidate(every: list[Candidate], tried: dict[Candidate, Compiled], hbm: int, *, last: bool) -> Candidate | None:
    """What to compile next: of the fastest mesh and remat in question the most rows that should fit, then the middle of the rest.

    None where no open candidate is faster than the best one that fits. last: with one compile left and nothing that fits yet, the
    smallest candidate.
    """
    failing = [one for one in tried if not tried[one].fits]
    best = min((one.slowness for one in tried if tried[one].fits), default=None)
    possible = [
        one
        for one in every
        if one not in tried
        and (best is None or one.slowness < best)
        and not any(other.needs_no_more_than(one) for other in failing)
    ]
    if last and best is None:
        return min(possible, key=lambda one: expected_bytes(one, tried)[0], default=None)
    worth = []
    for one in possible:
        size, doubt = expected_bytes(one, tried)
        if size <= hbm * doubt:
            worth.append(one)
    if not worth:
        return None if best is not None else min(possible, key=lambda one: expected_bytes(one, tried)[0], default=None)
    group = [one for one in worth if one.mesh == worth[0].mesh and one.remat == worth[0].remat]
    group.sort(key=lambda one: one.rows)
    likely = [one for one in group if expected_bytes(one, tried)[0] <= hbm]
    return likely[-1] if likely else group[len(group) // 2]


def expected_bytes(one: Candidate, tried: dict[Candidate, Compiled]) -> tuple[float, float]:
    """(bytes a device, how far they may be wrong): the formula, its temporaries scaled by the nearest compile's."""
    for near, same in (
        ("group", lambda other: other.mesh == one.mesh and other.remat == one.remat),
        ("mesh", lambda other: other.mesh == one.mesh),
        ("nothing", lambda other: True),
    ):
        others = [other for other in tried if same(other)]
        if others:
            other = min(others, key=lambda other: abs(other.rows - one.rows))
            factor = max(0, tried[other].memory.total - other.state.total) / other.temporary
            return one.state.total + factor * one.temporary, DOUBT[near]
    return one.state.total + one.temporary, DOUBT["nothing"]


def choice(one: Candidate, compiled: Compiled) -> Choice:
    config, shape = one.config, dict(one.mesh.shape)
    tokens = config.batch_size * config.data.sequence_length
    steps = config.gradient_accumulation_steps
    overrides = (
        *(f"--config.mesh.{axis}={size}" for axis, size in shape.items()),
        f"--config.gradient_accumulation_steps={steps}",
        f"--config.model.remat={one.remat}",
    )
    return Choice(
        overrides=overrides, mesh=shape, remat=one.remat, rows=one.rows, gradient_accumulation_steps=steps,
        bytes=compiled.memory.total, fits=compiled.fits, bound=one.estimate.bound,
        tokens_per_second=(tokens / one.estimate.seconds_high, tokens / one.estimate.seconds_low),
    )  # fmt: skip


HELP = {
    "weights": "model.quantization=nf4 or int8",
    "trainables": "a smaller lora.rank, or fewer lora.modules_to_save",
    "optimizer": "a smaller lora.rank, or fewer lora.modules_to_save",
    "temporary": "a smaller data.sequence_length or model.loss_chunk, or attention that keeps no scores (model.attention)",
}


def nothing_fits(every: list[Candidate], tried: dict[Candidate, Compiled], topology: Topology) -> UsageError:
    one = min(tried, key=lambda one: tried[one].memory.total)
    memory = tried[one].memory
    parts = {name: size for name, size in memory.parts().items() if name != "total"}
    largest = max(parts, key=lambda name: parts[name])
    mesh = " × ".join(f"{axis}={size}" for axis, size in one.mesh.shape.items())
    return UsageError(
        f"nothing fits {topology.name}: of {len(every)} candidates, {len(tried)} compiled, the smallest needs "
        f"{memory.total / 2**30:.2f} of {topology.chip.hbm_bytes / 2**30:.2f} GiB a chip ({mesh}, remat={one.remat}, {one.rows} "
        f"row(s)); the largest part is {largest}, {parts[largest] / 2**30:.2f} GiB; what would help: more chips, or {HELP[largest]}"
    )
