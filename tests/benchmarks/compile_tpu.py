"""What the real train step of Llama-3.1-8B needs on TPUs, by XLA's own count: `python tests/benchmarks/compile_tpu.py [NAME …]`.

Every row is compiled ahead of time on a CPU machine with libtpu (pip install '.[plan]'); nothing runs on a TPU. Without names all
rows are compiled, about a minute each. Bars, results and machine: compile_tpu.md. Exit code 1 where a bar is missed.
"""

import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from launch.app import AWAY_FROM_TPU

os.environ |= AWAY_FROM_TPU

from alif_jax import analytic, hlo
from alif_jax.ahead import Compiled, compile_ahead, shard_bytes, step_shapes
from alif_jax.lora import EMBEDDINGS
from alif_jax.published import base_config
from alif_jax.run import TrainConfig
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.topology import GIB, parse, tpu_devices
from configs.alif_cpt import get_config

BASE = "meta-llama/Llama-3.1-8B"


@dataclass(frozen=True)
class Row:
    """topology; rows of `length` tokens a data × fsdp part; tables: embeddings and head trained too; limit: GiB, the bar."""

    topology: str
    rows: int
    limit: float
    length: int = 2048
    tables: bool = False
    sequence: int = 1
    remat_offload: bool = False


# Usable on v5e: 15.75 GiB. MaxText, compiled the same way (jax 0.10.2, libtpu 0.0.51; LoRA r = 128 on all linears, added by a
# patch): 6.75 GiB at 2 rows a chip, 8 rows fit.
ROWS = {
    "alif-10": Row("v5e:2x4", 10, 15.75, tables=True),
    "lora-2": Row("v5e:2x4", 2, 5.0),
    "lora-11": Row("v5e:2x4", 11, 15.75),
    "lora-8k": Row("v5p:2x2x2", 1, 95.73, length=8192, sequence=2),
    "lora-32k": Row("v5p:2x2x2", 1, 95.73, length=32_768, sequence=4),
    "lora-128k": Row("v5p:2x2x2", 1, 95.73, length=131_072, sequence=8),
}


def recipe(row: Row) -> TrainConfig:
    """Alif's published recipe with this row's numbers; without tables, the same LoRA alone."""
    config = get_config()
    config.lora = dataclasses.replace(config.lora, modules_to_save=EMBEDDINGS if row.tables else ())
    config.data = dataclasses.replace(config.data, sequence_length=row.length)
    config.mesh = MeshConfig(sequence=row.sequence)
    config.model = dataclasses.replace(config.model, attention="splash", remat_offload=row.remat_offload)
    config.batch_size, config.gradient_accumulation_steps = row.rows * (parse(row.topology).devices // row.sequence), 1
    return config


def compiled(row: Row) -> tuple[Compiled, int]:
    """What the compiler says, and the total that analytic.py's formulas give, which a plan for GPUs has to go by."""
    config, (model_config, _) = recipe(row), base_config(BASE)
    mesh = make_mesh(config.mesh, tpu_devices(parse(row.topology)))
    found = compile_ahead(config, model_config, mesh)
    temporary = analytic.temporary_bytes(config, model_config, mesh, trainables=found.memory.trainables)
    return found, found.memory.state + temporary


def weights_bytes(topology: str) -> int:
    """Bytes a chip of the frozen base."""
    config, (model_config, _) = recipe(Row(topology, 1, 0)), base_config(BASE)
    return shard_bytes(step_shapes(config, model_config, make_mesh(config.mesh, tpu_devices(parse(topology)))).frozen)


def largest_gathered_in_a_loop(found: Compiled, layers: int) -> float:
    """MiB of the largest tensor that a loop over the layers gathers."""
    collectives, unread = hlo.read_collectives(found.hlo_text)
    assert not unread, unread
    return max(one.bytes for one in collectives if one.kind == "all-gather" and one.times >= layers) / 2**20


def main(names: list[str]) -> int:
    missed = 0
    print(f"{'row':10} {'topology':10} {'rows':>5} {'tokens':>7} {'tables':>7} {'weights':>8} {'trained':>8} {'optim.':>8} "
          f"{'temp.':>8} {'total GiB':>9} {'s':>5}")  # fmt: skip
    for name in names or [*ROWS, "weights"]:
        if name == "weights":
            missed += not weights_fall()
            continue
        row = ROWS[name]
        found, formula = compiled(row)
        parts = [size / GIB for size in found.memory.parts().values()]
        fits = found.fits and parts[-1] <= row.limit
        missed += not fits
        numbers = " ".join(f"{part:8.2f}" for part in parts)
        verdict = "ok" if fits else f"MISSED: at most {row.limit}"
        what = f"{name:10} {row.topology:10} {row.rows:5} {row.length:7,} {row.tables!s:>7}"
        print(f"{what} {numbers} {found.seconds:6.0f}  {verdict}", flush=True)
        print(f"{'':10} in all by formula: {formula / GIB:.2f} GiB, {formula / found.memory.total:.2f} of it", flush=True)
        if found.hlo_text:
            widest = largest_gathered_in_a_loop(found, 32)
            one_layer = 4096 * 14_336 * 2 / 2**20  # the largest matrix of one layer, bf16
            keys = row.rows * row.length * 8 * 128 * 2 / 2**20 if row.sequence > 1 else 0  # of whole rows, or their values
            missed += widest > max(one_layer, keys)
            print(f"{'':10} largest tensor gathered in the layers' loop: {widest:.0f} MiB; the largest matrix of a layer: "
                  f"{one_layer:.0f}, keys of the rows: {keys:.0f}", flush=True)  # fmt: skip
    return missed > 0


def weights_fall() -> bool:
    """Weights a chip on 8, 64 and 256 chips."""
    sizes = {topology: weights_bytes(topology) for topology in ("v5e:2x4", "v5e:8x8", "v5e:16x16")}
    print("weights    " + ", ".join(f"{name}: {size / GIB:.3f} GiB a chip" for name, size in sizes.items()))
    least = min(sizes.values()) * 256
    return all(abs(size * parse(name).devices / least - 1) < 0.01 for name, size in sizes.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
