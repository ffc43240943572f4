"""Chips and slices: what exists, what does not, and that the compiler knows what the table says."""

import importlib.util

import jax
import pytest

from alif_jax import UsageError
from alif_jax.topology import CHIPS, Topology, chip_of, parse, slices, tpu_devices

# launch/plan.py sets these for a whole process


@pytest.mark.parametrize(
    ("text", "chip", "shape", "devices"),
    [
        ("v5e:2x4", "v5e", (2, 4), 8),
        ("v5p:2x2x2", "v5p", (2, 2, 2), 8),
        ("v6e:16x16", "v6e", (16, 16), 256),
        ("h100:8", "h100", (8,), 8),
    ],
)
def test_a_topology_is_read(text: str, chip: str, shape: tuple[int, ...], devices: int) -> None:
    found = parse(text)
    assert (found.chip.name, found.shape, found.devices, found.name) == (chip, shape, devices, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v5e:2x5", "no such slice; near ones: v5e:2x4, .*the largest is v5e:16x16"),
        ("v5e:4x2", "near ones: v5e:2x4"),
        ("v5e:32x32", "near ones: v5e:16x16"),
        ("v5p:2x2", "near ones: v5p:2x2x1"),
        ("h100:16", "no such machine; near ones: h100:8"),
        ("v7e:2x4", "no chip 'v7e'; did you mean v6e.*known: v5e, v5p, v6e"),
        ("H100:8", "did you mean h100"),
        ("v5e", "size is missing or no size; write v5e:2x2"),
        ("v5p:many", "write v5p:2x2x4"),
        ("l4:", "write l4:8"),
    ],
)
def test_what_does_not_exist_is_refused_and_near_ones_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(text)


def test_slices_are_those_of_the_documentation() -> None:
    two_dimensional = [(1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
    assert slices(CHIPS["v5e"]) == slices(CHIPS["v6e"]) == two_dimensional
    listed = [(2, 2, 1), (2, 2, 2), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16), (8, 16, 16), (16, 16, 24)]
    assert set(listed) <= set(slices(CHIPS["v5p"]))
    assert slices(CHIPS["v5p"])[-1] == (16, 16, 24)  # "the largest job that can be scheduled is a 96 cube (6144 chip) job"


@pytest.mark.parametrize(
    ("kind", "chip"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA H100 PCIe", "h100-pcie"), ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA GH200 480GB", "h100"), ("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"), ("NVIDIA A100 80GB PCIe", "a100-80g"), ("NVIDIA L4", "l4"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"), ("TPU v5 lite", "v5e"), ("TPU v5", "v5p"), ("TPU v6 lite", "v6e"),
        ("NVIDIA L40S", None), ("cpu", None),
    ],
)  # fmt: skip
def test_a_device_is_recognised(kind: str, chip: str | None) -> None:
    found = chip_of(kind)
    assert (found and found.name) == chip


def test_every_chip_has_plausible_numbers() -> None:
    """A slip of a thousand shows: all of these chips do 10 to 1000 FLOP a byte of HBM, and read all their HBM in 4 to 100 ms."""
    for chip in CHIPS.values():
        assert 10 < chip.peak_flops / chip.hbm_bandwidth < 1000, chip.name
        assert 0.004 < chip.hbm_bytes / chip.hbm_bandwidth < 0.1, chip.name
        assert 0.01 < chip.interconnect_bandwidth / chip.hbm_bandwidth < 0.4, chip.name


@pytest.mark.parametrize("name", ["v5e:1x1", "v5e:2x4", "v5p:2x2x1", "v5p:4x4x12", "v6e:16x16"])
def test_the_compiler_knows_the_slice(name: str, away_from_tpu: None) -> None:
    topology = parse(name)
    devices = tpu_devices(topology)
    assert len(devices) == topology.devices
    assert chip_of(devices[0].device_kind) == topology.chip
    assert devices[0] not in jax.devices()


def test_a_slice_that_the_compiler_does_not_know_is_an_error_of_use(away_from_tpu: None) -> None:
    with pytest.raises(UsageError, match="v5e:2x3: this libtpu does not have it"):
        tpu_devices(Topology(CHIPS["v5e"], (2, 3)))


def test_without_libtpu_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install '\.\[plan\]'"):
        tpu_devices(parse("v5e:2x4"))
