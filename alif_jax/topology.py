"""The chips and the slices of them that a run may be planned for: what each chip can do, and which sizes exist.

No measurement and no compiler here; the numbers are those of the makers' data sheets, apart from the usable HBM of TPUs, which is
what XLA's own out-of-memory message names. This table is the one home of peaks: flops.py and roofline.py look them up here.
"""

import difflib
import importlib.util
import re
from dataclasses import dataclass
from itertools import product
from math import prod

import jax
from jax.experimental import topologies

from alif_jax import UsageError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator; JAX shows each as one device.

    device_kind: pattern of `jax.Device.device_kind`. hbm_bytes: what a program may use. peak_flops: dense bf16 FLOP/s.
    hbm_bandwidth: bytes/s. interconnect_bandwidth: bytes/s out of the chip over all its links, one direction; links: how many of
    them. max_chips: of one slice of a TPU; of GPUs, of one machine. dimensions: of a TPU's slices; 0: a GPU.
    """

    name: str
    device_kind: str
    hbm_bytes: int
    peak_flops: float
    hbm_bandwidth: float
    interconnect_bandwidth: float
    links: int
    max_chips: int
    dimensions: int = 0

    @property
    def is_tpu(self) -> bool:
        return self.dimensions > 0


def _tpu(name: str, kind: str, gib: float, teraflops: float, hbm: float, ici: float, dimensions: int, most: int) -> Chip:
    return Chip(
        name=name, device_kind=kind, hbm_bytes=int(gib * GIB), peak_flops=teraflops * 1e12, hbm_bandwidth=hbm * 1e9,
        interconnect_bandwidth=ici * 1e9, links=2 * dimensions, max_chips=most, dimensions=dimensions,
    )  # fmt: skip


def _gpu(name: str, kind: str, gib: float, teraflops: float, hbm: float, link: float) -> Chip:
    """gib: 92 % of the memory is usable (XLA_PYTHON_CLIENT_MEM_FRACTION=0.92; JAX's own default is 0.75)."""
    return Chip(
        name=name, device_kind=kind, hbm_bytes=int(0.92 * gib * GIB), peak_flops=teraflops * 1e12, hbm_bandwidth=hbm * 1e9,
        interconnect_bandwidth=link * 1e9, links=1, max_chips=8,
    )  # fmt: skip


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        # name, device_kind, usable GiB as libtpu 0.0.51 says it, bf16 TFLOP/s, HBM GB/s, ICI GB/s one way (half of what is called
        # bidirectional), axes of a slice, chips of the largest: cloud.google.com/tpu/docs/v5e, /v5p, /v6e
        _tpu("v5e", r"TPU v5( lite|e)$", 15.75, 197, 819, 200, 2, 256),
        _tpu("v5p", r"TPU v5p?$", 95.73, 459, 2765, 600, 3, 6144),
        _tpu("v6e", r"TPU v6( lite|e)$", 31.24, 918, 1638, 400, 2, 256),
        # name, device_kind, GiB as nvidia-smi says it, bf16 TFLOP/s without sparsity, memory GB/s, NVLink (or PCIe) GB/s one way:
        # nvidia.com/en-us/data-center/h100, /h200, /a100, /l4; Ada architecture white paper for the RTX 4090
        _gpu("h100-pcie", r"H100 PCIe", 79.6, 756, 2000, 64),
        _gpu("h100-nvl", r"H100 NVL", 93.6, 835, 3938, 300),
        _gpu("h100", r"(H100|GH200)\b", 79.6, 989, 3350, 450),
        _gpu("h200", r"H200\b", 140.4, 989, 4800, 450),
        _gpu("a100-40g", r"A100.*40GB", 40.0, 312, 1555, 300),
        _gpu("a100-80g", r"A100\b", 80.0, 312, 2039, 300),
        _gpu("l4", r"L4$", 22.5, 121, 300, 32),
        _gpu("rtx4090", r"RTX 4090$", 24.0, 165, 1008, 32),
    )
}
EXAMPLES = "v5e:2x4, v6e:4x4, v5p:2x2x2 or h100:8"


@dataclass(frozen=True)
class Topology:
    """A slice of a TPU pod, `v5e:2x4` → shape (2, 4), or GPUs of one machine, `h100:8` → shape (8,)."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def devices(self) -> int:
        return prod(self.shape)

    @property
    def platform(self) -> str:
        return "tpu" if self.chip.is_tpu else "gpu"

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def slices(chip: Chip) -> list[tuple[int, ...]]:
    """The shapes of a chip's slices, smallest first.

    2-D TPUs: 1x1, 2x2, 2x4 and on by doubling one side to 16x16. v5p: 2x2x1, 2x2x2, 2x2x4, 2x4x4, then sides of multiples of 4.
    GPUs: 1 to 8 of a machine.
    """
    if not chip.is_tpu:
        return [(count,) for count in range(1, chip.max_chips + 1)]
    if chip.dimensions == 2:
        return [(1, 1), *((a, b) for a in (2, 4, 8, 16) for b in (a, 2 * a) if a * b <= chip.max_chips)]
    sides = range(4, 25, 4)
    cubes = [side for side in product(sides, repeat=3) if list(side) == sorted(side) and prod(side) <= chip.max_chips]
    return [(2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), *sorted(cubes, key=lambda side: (prod(side), side))]


def parse(text: str) -> Topology:
    """`v5e:2x4` → Topology. Raises UsageError naming near ones for what does not exist."""
    name, _, size = text.partition(":")
    if name not in CHIPS:
        near = difflib.get_close_matches(name.lower(), CHIPS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"--topology={text}: no chip {name!r}; {hint}known: {', '.join(CHIPS)}, written as {EXAMPLES}")
    chip = CHIPS[name]
    known = slices(chip)
    if not re.fullmatch(r"\d+(x\d+)*", size):
        form = "x".join(("2", "2", "4")[: chip.dimensions or 1]) if chip.is_tpu else "8"
        raise UsageError(f"--topology={text}: the size is missing or no size; write {name}:{form}")
    shape = tuple(map(int, size.split("x")))
    if shape not in known:
        near_shapes = sorted(known, key=lambda one: (abs(prod(one) - prod(shape)), one))[:3]
        near_names = ", ".join(Topology(chip, one).name for one in near_shapes)
        raise UsageError(
            f"--topology={text}: no such {'slice' if chip.is_tpu else 'machine'}; near ones: {near_names} (the largest is "
            f"{Topology(chip, known[-1]).name})"
        )
    return Topology(chip, shape)


def tpu_devices(topology: Topology) -> list[jax.Device]:
    """The slice's devices, known to the compiler and not there to run on. Raises UsageError without libtpu.

    The environment that libtpu needs away from a TPU is set by launch/plan.py, before JAX is imported.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UsageError(f"--topology={topology.name}: compiling for a TPU needs its compiler; pip install '.[plan]'")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology.name).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(f"--topology={topology.name}: this libtpu does not have it ({str(error).splitlines()[0]})") from None


def chip_of(device_kind: str) -> Chip | None:
    """The chip behind `jax.Device.device_kind`; None for what is not in the table, such as a CPU."""
    return next((chip for chip in CHIPS.values() if re.search(chip.device_kind, device_kind)), None)
