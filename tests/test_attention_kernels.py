"""The attention kernels, interpreted on the CPU, against the `xla` reference (itself held against the definition beside this)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from alif_jax import UsageError
from alif_jax.attention import BACKENDS, attend, check_backend, choose_backend
from alif_jax.attention_kernels import pallas_blocks, splash_blocks, splash_kernel
from alif_jax.sharding import AXES, MeshConfig, make_mesh
from tests import tiny  # noqa: F401  (its setting: programs are compiled without optimising)

Arrays = dict[str, jax.Array]
KERNELS = ("splash", "pallas", "cudnn")


def case(*, B: int = 2, T: int = 384, N: int = 4, K: int = 2, H: int = 24, dtype: Any = jnp.float32, packed: bool = True) -> Arrays:
    """Rows of three segments (or one) and padding behind them, cut elsewhere in each row; of more than two rows the first is
    nothing but padding, and the last has none."""
    rng = np.random.default_rng(0)
    shapes = {"q_BTNH": (B, T, N, H), "k_BSKH": (B, T, K, H), "v_BSKH": (B, T, K, H)}
    arrays = {name: 2 * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    segments, positions = np.zeros((2, B, T), np.int32)
    for row in range(B > 2, B):
        end = T if row == B - 1 else T - 11 - 5 * row
        cuts = [0, T // 5 + row, T // 2 + 3 * row, end] if packed else [0, end]
        for number, (start, stop) in enumerate(zip(cuts[:-1], cuts[1:], strict=True), 1):
            segments[row, start:stop], positions[row, start:stop] = number, np.arange(stop - start)
    where = {"positions": jnp.asarray(positions), "segments": jnp.asarray(segments)}
    return {name: jnp.asarray(array, dtype) for name, array in arrays.items()} | where


def case_of(backend: str, **changes: Any) -> Arrays:
    return case(packed=backend != "cudnn", **changes)


def call(a: Arrays, backend: str, interpret: bool = True) -> jax.Array:
    return attend(
        a["q_BTNH"], a["k_BSKH"], a["v_BSKH"], q_positions_BT=a["positions"], kv_positions_BS=a["positions"],
        q_segments_BT=a["segments"], kv_segments_BS=a["segments"], backend=backend, interpret=interpret,
    )  # fmt: skip


QKV = ("q_BTNH", "k_BSKH", "v_BSKH")


def out_and_gradients(a: Arrays, backend: str, interpret: bool = True) -> tuple[jax.Array, Arrays]:
    """The output, and the gradients of a sum over real tokens in which each has its own weight."""

    def total(qkv: Arrays) -> tuple[jax.Array, jax.Array]:
        out = call(a | qkv, backend, interpret)
        weights = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape) * (a["segments"] > 0)[..., None, None]
        return (out.astype(jnp.float32) * weights).sum(), out

    gradients, out = jax.grad(total, has_aux=True)({name: a[name] for name in QKV})
    return out, gradients


def compared(a: Arrays, backend: str, within: float, run: Callable[..., Any] = jax.jit) -> None:
    """The backend's output and gradients are the reference's, to `within` of each one's largest."""
    expected, expected_gradients = jax.jit(partial(out_and_gradients, backend="xla"))(a)
    got, gradients = run(partial(out_and_gradients, backend=backend))(a)
    assert np.isfinite(np.asarray(got, np.float32)).all()
    assert got.dtype == expected.dtype
    real = np.asarray(a["segments"]) > 0
    pairs = {"out": (expected[real], np.asarray(got)[real])} | {n: (expected_gradients[n], gradients[n]) for n in QKV}
    for name, (one, other) in pairs.items():
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        assert np.abs(one).max() > 0.1, name
        np.testing.assert_allclose(other, one, rtol=0, atol=within * np.abs(one).max(), err_msg=name)


@pytest.mark.parametrize(
    ("backend", "T", "K"),
    [("splash", 384, 2), ("splash", 640, 4), ("pallas", 96, 2), ("cudnn", 96, 2), ("chunked", 96, 2), ("chunked", 384, 1)],
)
def test_kernel_is_the_reference(backend: str, T: int, K: int) -> None:
    """384: three blocks or chunks, and the fused backward kernel; 640: five blocks and two kernels."""
    compared(case_of(backend, B=3, T=T, K=K), backend, 1e-5)


@pytest.mark.parametrize("backend", [*KERNELS[:2], "chunked"])
def test_kernel_in_bfloat16(backend: str) -> None:
    compared(case_of(backend, T=128, H=64, dtype=jnp.bfloat16), backend, 0.02)


MESHES = [
    ("xla", 64, {"data": 2, "tensor": 2, "sequence": 2}),
    ("splash", 768, {"fsdp": 2, "tensor": 2, "sequence": 2}),
    pytest.param("splash", 1024, {"data": 2, "fsdp": 1, "sequence": 4}, marks=pytest.mark.slow),
    ("pallas", 64, {"data": 2, "fsdp": 2, "tensor": 2}),
    ("cudnn", 64, {"data": 2, "fsdp": 2, "tensor": 2}),
    ("chunked", 256, {"data": 2, "fsdp": 2, "tensor": 2}),
]


def on_mesh(sizes: dict[str, int]) -> Callable[..., Any]:
    def run(function: Callable[..., Any]) -> Callable[..., Any]:
        def inside(a: Arrays) -> Any:
            with jax.set_mesh(make_mesh(MeshConfig(**sizes))):
                return jax.jit(function)(a)

        return inside

    return run


@pytest.mark.parametrize(("backend", "T", "sizes"), MESHES)
def test_kernel_over_a_mesh_is_the_reference(backend: str, T: int, sizes: dict[str, int]) -> None:
    rows = sizes.get("data", 1) * sizes.get("fsdp", 1)
    compared(case_of(backend, B=rows, T=T), backend, 1e-5, on_mesh(sizes))


def test_keys_are_gathered_and_their_gradients_reduced_and_scattered() -> None:
    """Along the sequence axis: two gathers with gradients (k, v), so two reduce-scatters, and no sum that every device keeps."""
    a = case(B=2, T=64)
    with jax.set_mesh(make_mesh(MeshConfig(fsdp=2, sequence=4))):
        program = str(jax.make_jaxpr(partial(out_and_gradients, backend="xla"))(a))
    assert program.count("= reduce_scatter[") == 2
    assert program.count("= all_gather[") == 4  # segments and positions beside them
    assert "psum" not in program


@pytest.mark.parametrize("backend", [*KERNELS[:2], "chunked"])
def test_no_leak_between_segments(backend: str) -> None:
    """Other keys and values in one segment, and in the padding, change no bit elsewhere. Changing the own ones does."""
    a = case(T=256)
    run = jax.jit(partial(call, backend=backend))
    before, segments = np.asarray(run(a)), np.asarray(a["segments"])
    changed = np.isin(segments, (0, 2))[..., None, None]
    after = np.asarray(run(a | {name: jnp.where(changed, 5 - a[name], a[name]) for name in ("k_BSKH", "v_BSKH")}))
    np.testing.assert_array_equal(after[np.isin(segments, (1, 3))], before[np.isin(segments, (1, 3))])
    assert (np.abs(after - before)[segments == 2].max(axis=-1) > 1e-3).all()


def test_splash_tables_are_those_of_the_whole_mask() -> None:
    """Our causal mask answers for a uniform block by one element; JAX's own spells it out."""
    for length, shards in ((384, 1), (640, 1), (1024, 1), (2560, 4), (9216, 2)):
        ours = splash_kernel(length, shards, False)
        theirs = splash_attention_kernel.make_splash_mha(
            splash_attention_mask.MultiHeadMask([splash_attention_mask.CausalMask((length, length))]),
            block_sizes=splash_blocks(length, shards), head_shards=1, q_seq_shards=shards,
        )  # fmt: skip
        assert ours.kwargs.keys() == theirs.kwargs.keys()
        pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
        assert len(pairs) == (6 if splash_blocks(length, shards).use_fused_bwd_kernel else 9)
        assert all(one.dtype == other.dtype and np.array_equal(one, other) for one, other in pairs)


def test_block_sizes_divide() -> None:
    for length, shards in ((128, 1), (2048, 1), (2048, 4), (8192, 1), (131072, 16), (3200, 5)):
        blocks = splash_blocks(length, shards)
        kv, compute = blocks.block_kv_dkv or 0, blocks.block_kv_dkv_compute or 0
        assert blocks.block_q == blocks.block_q_dkv and (length // shards) % blocks.block_q == 0
        assert length % blocks.block_kv == length % kv == kv % compute == 0
        assert not blocks.use_fused_bwd_kernel or length // kv <= 4
    assert [splash_blocks(length, 1).use_fused_bwd_kernel for length in (2048, 4096, 8192, 16384)] == [True, True, True, False]
    assert (splash_blocks(2048, 1).block_q, splash_blocks(2048, 1).block_kv_dkv) == (512, 1024)
    for length, head_dim, itemsize in ((2048, 128, 2), (2048, 128, 4), (48, 64, 2)):
        sizes = pallas_blocks(length, head_dim, itemsize)
        every = (sizes.block_q, sizes.block_k, sizes.block_q_dkv, sizes.block_kv_dkv, sizes.block_q_dq, sizes.block_kv_dq)
        assert all(size is not None and size >= 16 and length % size == 0 for size in every)


# --- for the chips, without a chip


def kept(a: Arrays, policy: Any, backend: str, interpret: bool) -> tuple[jax.Array, Arrays]:
    """Loss and gradients of a rematerialised call whose inputs are computed."""

    def total(qkv: Arrays) -> jax.Array:
        return jnp.sin(call(a | jax.tree.map(jnp.sin, qkv), backend, interpret).astype(jnp.float32)).sum()

    return jax.value_and_grad(jax.checkpoint(total, policy=policy))({name: a[name] for name in QKV})


POLICIES = [(None, 2), (jax.checkpoint_policies.save_only_these_names("attention"), 1)]


@pytest.mark.parametrize(("policy", "forwards"), POLICIES)
@pytest.mark.parametrize(("H", "dtype"), [(128, jnp.bfloat16), (24, jnp.float32)])
def test_pallas_lowers_for_cuda(policy: Any, forwards: int, H: int, dtype: Any) -> None:
    """Forward and backward through Triton; a policy that keeps "attention" runs the forward kernel once, another twice."""
    function = partial(kept, policy=policy, backend="pallas", interpret=False)
    shapes = jax.eval_shape(partial(case, T=256, N=8, K=2, H=H, dtype=dtype))
    gpu = AbstractDevice(device_kind="NVIDIA H100", num_cores=132, platform="gpu")
    mesh = AbstractMesh((1, 1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 4, abstract_device=gpu)
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.jit(function).trace(shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert program.count("custom_call @__gpu$xla.gpu.triton") == forwards + 2


def test_splash_compiles_for_a_tpu(away_from_tpu: None) -> None:
    """Rows, heads and tokens split over four chips. With "attention" kept, the forward kernel is not run a second time."""
    from jax.experimental import topologies

    chips = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    mesh = make_mesh(MeshConfig(tensor=2, sequence=2), list(chips))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shapes = jax.eval_shape(partial(case, T=512, H=64, dtype=jnp.bfloat16))
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=everywhere), shapes)
    function = partial(kept, policy=POLICIES[1][0], backend="splash", interpret=False)
    with jax.set_mesh(mesh):
        lowered = jax.jit(function).trace(shapes).lower(lowering_platforms=("tpu",))
    kernels = [line for line in lowered.compile().as_text().splitlines() if 'custom_call_target="tpu_custom_call"' in line]
    assert sum("splash_mha_fwd" in line for line in kernels) == 1
    assert sum("splash_mha_dkv" in line for line in kernels) == 1


# --- who may use which

FINE: dict[str, Any] = {"packing": True, "length": 2048, "head_dim": 128, "sequence_shards": 1, "dtype": "bfloat16"}
REFUSED = [
    ("flash", {}, "model.attention='flash' is not one of auto, xla, chunked, splash, pallas, cudnn"),
    ("splash", {"platform": "gpu"}, "is a kernel for TPU and this is a GPU"),
    ("pallas", {"platform": "tpu"}, "is a kernel for GPU and this is a TPU"),
    ("cudnn", {"platform": "cpu", "packing": False}, "is a kernel for GPU and this is a CPU"),
    ("cudnn", {}, "cannot keep the examples of a packed row apart"),
    ("cudnn", {"packing": False, "head_dim": 20}, "multiple of 8 up to 128 dimensions and this model's have 20"),
    ("cudnn", {"packing": False, "dtype": "float32"}, "model.dtype is float32"),
    ("pallas", {"sequence_shards": 2}, "does not split a row, and mesh.sequence=2"),
    ("pallas", {"head_dim": 256}, "heads of 16 to 128 dimensions"),
    ("pallas", {"length": 100}, "multiple of 16 tokens, not 100; make data.sequence_length 112"),
    ("splash", {"length": 1000}, "multiple of 128 tokens, not 1000; make data.sequence_length 1024"),
    ("splash", {"length": 1152, "sequence_shards": 4}, "multiple of 512 tokens over mesh.sequence=4 devices, not 1152; .* 1536"),
]


@pytest.mark.parametrize(("backend", "changes", "message"), REFUSED)
def test_backend_that_cannot_keep_the_mask_is_refused(backend: str, changes: dict[str, Any], message: str) -> None:
    platform = "tpu" if backend == "splash" else "gpu"
    with pytest.raises(UsageError, match=message):
        check_backend(backend, **(FINE | {"platform": platform} | changes))


def test_auto_is_fine_where_it_is_chosen() -> None:
    chosen = {}
    for platform in ("tpu", "gpu", "cpu"):
        for packing in (True, False):
            for dtype in ("bfloat16", "float32"):
                backend = choose_backend(packing=packing, platform=platform, dtype=dtype)
                check_backend(backend, **(FINE | {"packing": packing, "platform": platform, "dtype": dtype}))
                chosen[platform, packing, dtype] = backend
    assert {chosen["tpu", p, d] for p in (True, False) for d in ("bfloat16", "float32")} == {"splash"}
    assert {chosen["cpu", p, d] for p in (True, False) for d in ("bfloat16", "float32")} == {"chunked"}
    assert choose_backend(packing=True, platform="cpu", dtype="float32", sequence_shards=2) == "xla"  # it splits a row
    assert chosen["gpu", True, "bfloat16"] == chosen["gpu", True, "float32"] == chosen["gpu", False, "float32"] == "pallas"
    assert chosen["gpu", False, "bfloat16"] == "cudnn"


@pytest.mark.parametrize("backend", [backend for backend in BACKENDS if backend != "xla"])
def test_kernels_take_whole_rows_only(backend: str) -> None:
    a = case(T=128)
    with pytest.raises(ValueError, match="32 queries on 128 keys"):
        attend(
            a["q_BTNH"][:, -32:], a["k_BSKH"], a["v_BSKH"], q_positions_BT=a["positions"][:, -32:], backend=backend,
            kv_positions_BS=a["positions"], q_segments_BT=a["segments"][:, -32:], kv_segments_BS=a["segments"],
        )  # fmt: skip
