"""How long a train step takes, before it is run: the largest of compute, HBM and interconnect time, as a range.

What is moved over the interconnect stands in the compiled program (hlo.py reads it), or is counted by formula (`collectives_of`).
Not here: the work itself (flops.py), bytes through the HBM (analytic.py), what a chip can do (topology.py).

    compute       hardware FLOP / (peak · EFFICIENCY of the chip)
    HBM           bytes moved / (bandwidth · SUSTAINED)
    interconnect  Σ bytes on the wire / (links used · one link's bandwidth · SUSTAINED)

EFFICIENCY is the only thing fitted, one number a chip generation: what part of the peak *full training* reaches in MaxText's
published tables, recomputation counted as work. Each is the geometric mean of the fastest and the slowest row of its generation,
the other rows are held out (tests/test_roofline.py has them all, with their sources):

    v6e    0.58 Llama-3.1-70B, 0.40 Llama-3.1-405B (256 chips)     held out: Llama-3.1-8B, Llama-2-70B
    v5e    0.83 dense 32B, 0.55 dense 128B (256 chips)             held out: dense 16B, 64B
    v5p    0.77 Llama-2-70B (512 chips), 0.68 dense 128B (128)     held out: dense 32B, 64B
    h100   0.47 and 0.36 Llama-2-7B on 1 and 16 machines           held out: the same on 2, 4, 8

The pairs were chosen with all rows in view, and a row held out lies between its pair by that choice: that it is met says little
beyond how far such rows lie apart. The range is the centre's rate ± SPREAD, as wide as v5e's pair needs; all of these rows lie in
it. No LoRA row is published for TPUs, so none is among them. What lies between slices or machines is not modelled. A chip without
a row has the lowest of these numbers.
`n` devices of a group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod

from jax.sharding import Mesh

from alif_jax.ahead import Memory
from alif_jax.analytic import BYTES, rows_a_device, traffic_bytes
from alif_jax.flops import hardware_flops_per_token, lora_parameters, matmul_parameters, trained_parameters
from alif_jax.hlo import Collective, read_collectives
from alif_jax.lora import LoraConfig
from alif_jax.model_config import ModelConfig
from alif_jax.run import TrainConfig
from alif_jax.topology import Chip, Topology

EFFICIENCY = {"v5e": 0.68, "v5p": 0.72, "v6e": 0.48, "h100": 0.41}
SUSTAINED = 0.9  # of the data sheet's bandwidth: what links reach by the scaling book's table (jax-ml.github.io/scaling-book/tpus)
SPREAD = 0.25  # of the rate, to each side
WRAPS = {"v5e": 16, "v6e": 16, "v5p": 4}  # an axis of a multiple of so many chips closes to a ring (scaling book, same table)


@dataclass(frozen=True)
class Estimate:
    """Seconds of one step. The three parts are at the efficiencies above, without the spread; bound: the largest of them.

    unread: collectives of the program that could not be read and are in none of the numbers.
    """

    seconds_low: float
    seconds_high: float
    compute_s: float
    hbm_s: float
    ici_s: float
    bound: str
    unread: tuple[str, ...] = ()


def estimate(
    *,
    topology: Topology,
    flops_per_device: float,
    hbm_bytes_moved: float,
    hlo_text: str = "",
    collectives: Sequence[Collective] = (),
) -> Estimate:
    """The time of one step.

    flops_per_device: all that a device computes in it, recomputation included (`hardware_flops_per_token` · tokens a device).
    hlo_text: the compiled program of one device; where it is empty, `collectives` are taken (`collectives_of`).
    """
    chip = topology.chip
    unread: tuple[str, ...] = ()
    if hlo_text:
        collectives, unread = read_collectives(hlo_text)
    compute = flops_per_device / (chip.peak_flops * efficiency(chip))
    hbm = hbm_bytes_moved / (chip.hbm_bandwidth * SUSTAINED)
    parts = {"compute": compute, "hbm": hbm, "ici": interconnect_seconds(collectives, topology)}
    bound = max(parts, key=lambda name: parts[name])
    centre = parts[bound]
    return Estimate(centre / (1 + SPREAD), centre / (1 - SPREAD), compute, hbm, parts["ici"], bound, unread)


def step_estimate(
    config: TrainConfig, model_config: ModelConfig, topology: Topology, mesh: Mesh, memory: Memory, hlo_text: str = ""
) -> Estimate:
    """The time of one training step. The work is that of full rows: a device computes padding too."""
    length, source = config.data.sequence_length, config.model
    a_token = hardware_flops_per_token(model_config, config.lora, context=length, remat=source.remat, attention=source.attention)
    collectives = collectives_of(
        model_config, config.lora, mesh.shape, positions=rows_a_device(config, mesh) * length // mesh.shape["sequence"],
        length=length, microbatches=config.gradient_accumulation_steps, remat=source.remat, item=BYTES[source.dtype],
    )  # fmt: skip
    return estimate(
        topology=topology, flops_per_device=a_token * config.batch_size * length / mesh.size,
        hbm_bytes_moved=traffic_bytes(config, model_config, mesh, memory=memory), hlo_text=hlo_text, collectives=collectives,
    )  # fmt: skip


def efficiency(chip: Chip) -> float:
    family = "h100" if chip.name.startswith(("h100", "h200")) else chip.name
    return EFFICIENCY.get(family, min(EFFICIENCY.values()))


# --- the interconnect


def links_used(topology: Topology, n: int) -> int:
    """Links over which a chip can receive a group's data at once: 1 of an axis that ends, 2 of one that closes to a ring.

    A group of all chips uses every axis, a smaller one the axes that it fills; one that fills none lies along a single line.
    """
    chip = topology.chip
    if not chip.is_tpu:
        return chip.links
    axes = [size for size in topology.shape if size > 1]
    filled = next((some for count in range(1, len(axes) + 1) for some in combinations(axes, count) if prod(some) == n), None)
    if filled is None:
        return 1
    return sum(2 if size % WRAPS[chip.name] == 0 else 1 for size in filled)


def wire_bytes(one: Collective) -> float:
    """Bytes that a device receives, of a tensor of `one.bytes` in whole, when a ring moves it (each collective's lower bound).

    all-gather, reduce-scatter: (n-1)/n. all-reduce: both. all-to-all of shards of b bytes: b·n/4, as half of them travel n/4 hops
    each way, and no less than b·(n-1)/n. collective-permute: the shard, one hop.
    """
    share = (one.devices - 1) / one.devices
    factors = {
        "all-gather": share, "reduce-scatter": share, "all-reduce": 2 * share, "collective-permute": 1.0,
        "all-to-all": max(share, one.devices / 4),
    }  # fmt: skip
    return one.bytes * factors[one.kind]


def interconnect_seconds(collectives: Sequence[Collective], topology: Topology) -> float:
    """One after the other, but for permutes: those of different directions have links of their own."""
    chip = topology.chip
    link = chip.interconnect_bandwidth * SUSTAINED / chip.links
    seconds = sum(
        one.times * wire_bytes(one) / (link * links_used(topology, one.devices))
        for one in collectives
        if one.kind != "collective-permute"
    )
    directions: dict[str, float] = {}
    for one in collectives:
        if one.kind == "collective-permute":
            directions[one.pairs] = directions.get(one.pairs, 0.0) + one.times * one.bytes / link
    return seconds + max(directions.values(), default=0.0)


def collectives_of(
    config: ModelConfig,
    lora: LoraConfig,
    mesh: Mapping[str, int],
    *,
    positions: int,
    length: int,
    microbatches: int,
    remat: str,
    item: int = 2,
) -> tuple[Collective, ...]:
    """What a step exchanges, by formula: where there is no compiled program to read it from.

    Every microbatch gathers the weights over fsdp × sequence twice, forward and backward, and scatters the gradients of the trained
    ones in fp32; over tensor activations are summed after o_proj and down_proj, forward, backward and where they are made again;
    over sequence the keys and values of a row are gathered likewise. Every microbatch sums gradients over data.
    positions: tokens of a microbatch on one device; length: of a whole row; item: bytes of a weight and an activation.
    """
    split, tensor = mesh["fsdp"] * mesh["sequence"], mesh["tensor"]
    kept = set(remat.split("+"))
    sums = 4 if kept & {"none", "o_proj"} else 5  # after o_proj and down_proj, of whose results only the first is made again
    keys_again = 3 if remat == "none" else 4
    weights = (matmul_parameters(config) + lora_parameters(config, lora)) * item / tensor
    gradients = trained_parameters(config, lora) * 4 / tensor
    layers, rows = config.num_hidden_layers, positions * mesh["sequence"] / length
    keys = 2 * rows * length * config.num_key_value_heads * config.head_dim * item / tensor
    found = (
        Collective("all-gather", weights, split, 2 * microbatches),
        Collective("reduce-scatter", gradients, split, microbatches),
        Collective("all-reduce", positions * config.hidden_size * item, tensor, sums * layers * microbatches),
        Collective("all-gather", keys, mesh["sequence"], keys_again * layers * microbatches),
        Collective("all-reduce", gradients / split, mesh["data"], microbatches),
    )
    return tuple(one for one in found if one.devices > 1)
