"""Collectives read from programs: a scan of layers over fsdp against closed forms, libtpu's notation, and what cannot be read."""

import importlib.util
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from alif_jax.hlo import Collective, group_size, read_collectives, shape_bytes
from launch.app import AWAY_FROM_TPU

L, D, F = 6, 64, 256  # layers, model dim, ffn dim
B = 128  # rows


def compiled_text(mesh: jax.sharding.Mesh) -> str:
    """The gradient of L rematerialised layers x + tanh(x·W)·U in fp32; weights over fsdp (and tensor), rows over fsdp."""

    def on(*axes: str | None) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*axes))

    def loss(weights: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
        def layer(x: jax.Array, weight: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            hidden = jax.lax.with_sharding_constraint(jnp.tanh(x @ weight[0]), on("fsdp", "tensor"))
            return jax.lax.with_sharding_constraint(x + hidden @ weight[1], on("fsdp", None)), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(layer), x, weights)[0] ** 2)

    weights = (
        jax.ShapeDtypeStruct((L, D, F), jnp.float32, sharding=on(None, "fsdp", "tensor")),
        jax.ShapeDtypeStruct((L, F, D), jnp.float32, sharding=on(None, "tensor", "fsdp")),
    )
    x = jax.ShapeDtypeStruct((B, D), jnp.float32, sharding=on("fsdp", None))
    grad = jax.jit(jax.grad(loss), out_shardings=tuple(weight.sharding for weight in weights))
    return grad.lower(weights, x).compile().as_text() or ""


def mesh_of(fsdp: int, tensor: int, devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
    return jax.make_mesh((fsdp, tensor), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def moved(found: tuple[Collective, ...], *kinds: str, devices: int) -> float:
    return sum(one.bytes * one.times for one in found if one.kind in kinds and one.devices == devices)


def test_fsdp_scan() -> None:
    """Both weights are gathered forward and again backward, and their gradients summed, in each of the L layers."""
    found, unread = read_collectives(compiled_text(mesh_of(8, 1)))
    weights = L * 2 * D * F * 4
    assert unread == ()
    assert moved(found, "all-gather", devices=8) == 2 * weights
    assert moved(found, "all-reduce", "reduce-scatter", devices=8) == weights
    assert {one.times for one in found if one.bytes > 8} == {L}


def test_fsdp_and_tensor_scan() -> None:
    """Half of every weight over fsdp = 4 (the rematerialised one is gathered once more); activations summed over tensor = 2."""
    found, unread = read_collectives(compiled_text(mesh_of(4, 2)))
    assert unread == ()
    assert moved(found, "all-gather", devices=4) == 5 * L * D * F // 2 * 4
    assert moved(found, "all-reduce", "reduce-scatter", devices=4) == L * 2 * D * F // 2 * 4
    assert moved(found, "all-reduce", devices=2) == 2 * L * B // 4 * D * 4  # x + h·U forward, and its gradient backward


TPU = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add.1 (x: bf16[], y: bf16[]) -> bf16[] {
  ROOT %sum = bf16[] add(%x, %y)
}

%begin.1 (p: bf16[512,128]) -> (bf16[512,128], bf16[4096,128], u32[]) {
  %p = bf16[512,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %all-gather.1 = bf16[4096,128]{1,0:T(8,128)} all-gather(%p), channel_id=6, replica_groups=mesh['axis_0'=8] {'axis_0'}
  ROOT %custom-call.2 = (bf16[512,128], bf16[4096,128], u32[]) custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.3 (p: bf16[512,128], q: bf16[4096,128]) -> bf16[4096,128] {
  %p.1 = bf16[512,128]{1,0} parameter(0)
  ROOT %all-gather.2 = bf16[4096,128]{1,0} all-gather(%p.1), channel_id=6, replica_groups=mesh['axis_0'=8] {'axis_0'}
}

%end.1 (p: bf16[512,128], q: bf16[4096,128]) -> bf16[4096,128] {
  %p.2 = bf16[512,128]{1,0} parameter(0)
  %all-gather.3 = bf16[4096,128]{1,0} all-gather(%p.2), channel_id=6, replica_groups=mesh['axis_0'=8] {'axis_0'}, dimensions={0}
  ROOT %custom-call.4 = bf16[4096,128]{1,0} custom-call(%p.2, %all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.clone.1 (input: bf16[1024,64]) -> bf16[128,64] {
  %input = bf16[1024,64]{1,0} parameter(0)
  %all-reduce.7 = bf16[1024,64]{1,0} all-reduce(%input), channel_id=10, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add.1
  ROOT %dynamic-slice.1 = bf16[128,64]{1,0} dynamic-slice(%all-reduce.7, %i, %j), dynamic_slice_sizes={128,64}
}

%body.1 (state: (s32[], bf16[512,128], /*index=2*/s32[])) -> (s32[], bf16[512,128], s32[]) {
  %two = s32[]{:T(128)} constant(2)
  %state = (s32[]{:T(128)}, bf16[512,128]{1,0:T(8,128)(2,1)S(1)}, /*index=2*/s32[]) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %copy.1 = s32[]{:T(128)S(6)} copy(%i)
  %next = s32[]{:T(128)} add(%copy.1, %two), metadata={op_name="add"}
  %x = bf16[512,128]{1,0} get-tuple-element(%state), index=1
  %start.1 = (bf16[512,128], bf16[512,128], u32[]{:S(2)}, u32[]) collective-permute-start(%x), source_target_pairs={{0,1},{1,0}}
  %done.1 = bf16[512,128]{1,0} collective-permute-done(%start.1)
  %step.1 = bf16[4096,128]{1,0} fusion(%x, %done.1), kind=kOutput, calls=%async_collective_fusion.3
  %scatter.1 = bf16[128,64]{1,0} fusion(%step.1), kind=kCustom, calls=%all-reduce-scatter.clone.1
  ROOT %tuple.1 = (s32[]{:T(128)}, bf16[512,128]{1,0}, s32[]) tuple(%next, %done.1, %two)
}

%condition.1 (state: (s32[], bf16[512,128], s32[])) -> pred[] {
  %limit = s32[]{:T(128)} constant(32)
  %state.1 = (s32[]{:T(128)}, bf16[512,128]{1,0}, s32[]) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%i.1, %limit), direction=LT, metadata={op_name="lt"}
}

ENTRY %main.1_spmd (w: bf16[512,128]) -> bf16[512,128] {
  %zero = s32[]{:T(128)} constant(1)
  %w = bf16[512,128]{1,0} parameter(0)
  %first = s32[]{:T(128)} copy(%zero)
  %begun.1 = (bf16[512,128]{1,0}, bf16[4096,128]{1,0}, u32[]{:S(2)}) fusion(%w), kind=kCustom, calls=%begin.1
  %tuple.2 = (s32[]{:T(128)}, bf16[512,128]{1,0}, s32[]) tuple(%first, %w, %zero)
  %while.1 = (s32[]{:T(128)}, bf16[512,128]{1,0}, s32[]) while(%tuple.2), condition=%condition.1, body=%body.1
  %done.2 = bf16[4096,128]{1,0} fusion(%w, %w), kind=kCustom, calls=%end.1
  ROOT %result = bf16[512,128]{1,0} get-tuple-element(%while.1), index=1
}
"""


def test_libtpu_s_notation() -> None:
    """A gather in flight during a loop counts once; the loop, from 1 below 32 by 2, runs 16 times."""
    found, unread = read_collectives(TPU)
    assert unread == ()
    assert set(found) == {
        Collective("all-gather", 4096 * 128 * 2, 8, 1.0),
        Collective("collective-permute", 512 * 128 * 2, 2, 16.0, "{0,1},{1,0}"),
        Collective("reduce-scatter", 1024 * 64 * 2, 4, 16.0),
    }
    assert len(found) == 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%a = (f32[8], f32[32]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8]", Collective("all-gather", 128, 4, 1)),
        ("%a = ((f32[8],bf16[4]), (f32[32],bf16[16])) all-gather-start(%x, %y), replica_groups=[2,4]<=[4,2]T(1,0)",
         Collective("all-gather", 128 + 32, 4, 1)),
        ("%a = (f32[32], f32[2]{0}) all-reduce-start(%x, %y), replica_groups=[1,8]<=[8]", Collective("all-reduce", 136, 8, 1)),
        ("%a = f8e4m3fn[4,2]{1,0} reduce-scatter(%x), replica_groups={{0,2},{1,3}}", Collective("reduce-scatter", 16, 2, 1)),
        ("%a = (f32[32], f32[8]) reduce-scatter-start(%x), replica_groups=[1,4]<=[4]", Collective("reduce-scatter", 128, 4, 1)),
        ("%a = (s4[8], pred[4]) all-to-all(%x, %y), replica_groups={{0,1,2,3}}", Collective("all-to-all", 8, 4, 1)),
    ],
)  # fmt: skip
def test_one_collective(line: str, expected: Collective) -> None:
    found, unread = read_collectives(f"ENTRY %main (x: f32[8]) -> f32[8] {{\n  {line}, channel_id=1\n}}\n")
    assert (found, unread) == ((expected,), ())


def test_an_asynchronous_wrapper_is_followed() -> None:
    text = """%wrapped (p: f32[64]) -> f32[8] {
  ROOT %rs = f32[8]{0} reduce-scatter(%p), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%add
}

ENTRY %main (x: f32[64]) -> f32[8] {
  %start = ((f32[64]{0}), f32[8]{0}) async-start(%x), calls=%wrapped
  ROOT %done = f32[8]{0} async-done(%start)
}
"""
    assert read_collectives(text) == ((Collective("reduce-scatter", 256, 8, 1),), ())


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", "replica_groups=@table", "all-reduce all-reduce.7: groups that are not read"),
        ("bf16[1024,64]{1,0} all-reduce", "x7[1024,64]{1,0} all-reduce", "all-reduce all-reduce.7: a dtype that is not read: x7"),
        ("source_target_pairs={{0,1},{1,0}}", "", "collective-permute-start start.1: no source_target_pairs"),
        ("all-reduce(%input)", "ragged-all-to-all(%input)", "ragged-all-to-all all-reduce.7: a kind that is not read"),
    ],
)
def test_what_cannot_be_read_is_named(old: str, new: str, named: str) -> None:
    found, unread = read_collectives(TPU.replace(old, new))
    assert unread == (named,)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [("direction=LT", "direction=NE"), ("copy(%zero)", "custom-call(%zero)"), ("add(%copy.1, %two)", "add(%copy.1, %i)")],
)
def test_a_loop_of_unknown_length_is_named(old: str, new: str) -> None:
    found, unread = read_collectives(TPU.replace(old, new))
    assert [one.kind for one in found] == ["all-gather"]
    assert len(unread) == 2 and all(text.endswith("how often its loop runs") for text in unread)


def test_text_without_a_program() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        read_collectives("HloModule nothing\n")
    with pytest.raises(ValueError, match="groups"):
        group_size("channel_id=1")
    assert shape_bytes("(bf16[8,2]{1,0:T(8,128)(2,1)}, f32[], /*index=2*/u32[])") == [32, 4]


ON_TPU = """
import jax
from jax.experimental import topologies
from tests.test_hlo import compiled_text, mesh_of
devices = topologies.get_topology_desc(platform="tpu", topology_name="TOPOLOGY").devices
print(compiled_text(mesh_of(8, 1, list(devices))))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize("topology", ["v5e:2x4", "v6e:2x4", "v5p:2x2x2"])
def test_programs_of_libtpu(topology: str) -> None:
    """The closed form of CPUs, but that weights are gathered in bf16, as a TPU's products take them."""
    command = [sys.executable, "-c", ON_TPU.replace("TOPOLOGY", topology)]
    done = subprocess.run(command, env=os.environ | AWAY_FROM_TPU, capture_output=True, text=True, timeout=300, check=True)
    found, unread = read_collectives(done.stdout)
    weights = L * 2 * D * F * 4
    assert unread == ()
    assert moved(found, "all-gather", devices=8) == 2 * weights / 2
    assert moved(found, "all-reduce", "reduce-scatter", devices=8) == weights
