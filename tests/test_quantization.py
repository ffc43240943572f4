"""A frozen base in int8 or NF4: the rounding, its place on the mesh, and what it costs in loss."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix

from alif_jax.hf import load_params, read_model_config
from alif_jax.lora import LoraConfig, quantized
from alif_jax.loss import token_losses
from alif_jax.model import Params, Skeleton, skeleton
from alif_jax.optim import OptimConfig, optimizer
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.step import train_step
from tests import tiny

# NormalFloat-4 of QLoRA, appendix E (arXiv 2305.14314)
NF4 = np.array([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
])  # fmt: skip


SIZES: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 64, "num_attention_heads": 2}


def by_hand(kernel: np.ndarray, along: int, levels: np.ndarray) -> np.ndarray:
    """Each tile of 64 along an axis to the nearest of its levels times its absolute maximum."""
    moved = np.moveaxis(kernel, along, -1)
    tiles = moved.reshape(*moved.shape[:-1], -1, 64).astype(np.float64)
    scale = np.abs(tiles).max(-1, keepdims=True)
    nearest = levels[np.abs(tiles[..., None] / scale[..., None] - levels).argmin(-1)] * scale
    return np.moveaxis(nearest.reshape(moved.shape), -1, along)


@pytest.mark.parametrize("axes", [("embed", "mlp"), ("mlp", "embed")])
@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_rounding_is_to_the_nearest_level_of_each_tile(how: str, axes: tuple[str, str]) -> None:
    lora, config = LoraConfig(), tiny.model_config(hidden_size=128, intermediate_size=192)
    kernel = np.random.default_rng(0).standard_normal((2, 128, 192), np.float32)
    values, scales = quantized(jnp.asarray(kernel), axes, how)
    along = 2 if axes[0] == "embed" else 1
    assert scales.dtype == jnp.float32 and scales.shape == tuple(s // 64 if i == along else s for i, s in enumerate(kernel.shape))
    linear = skeleton(config, lora, quantization=how)
    name = "layers.mlp.up_proj" if axes[0] == "embed" else "layers.mlp.down_proj"
    assert linear.shapes[f"{name}.kernel_qvalue"].dtype == (jnp.int8 if how == "int8" else jnp.uint4)
    back = np.asarray(qwix.dequantize(qwix.QArray(values, scales, qtype=how)))
    if how == "nf4":
        np.testing.assert_allclose(back, by_hand(kernel, along, NF4), atol=1e-5)
    else:  # 255 levels: nobody is further than half a step of its tile from what it was
        step = np.repeat(np.asarray(scales), 64, axis=along)
        assert (np.abs(back - kernel) <= step * 0.501).all()


def loaded(base: str, model: Skeleton, mesh: jax.sharding.Mesh) -> Params:
    return load_params(base, model, model.frozen, mesh, read_model_config(base))


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_on_any_mesh_the_same_values_with_their_scales_beside_them(tmp_path: Path, how: str) -> None:
    base = tiny.make_base(tmp_path / "base", **SIZES)
    model = skeleton(read_model_config(base), LoraConfig(), quantization=how)
    one = loaded(base, model, make_mesh(MeshConfig(), jax.devices()[:1]))
    split = loaded(base, model, make_mesh(MeshConfig(fsdp=4, tensor=2)))
    assert set(model.frozen) == split.keys() and not [name for name in split if name.endswith("proj.kernel")]
    for name, values in split.items():
        np.testing.assert_array_equal(
            np.asarray(values.astype(jnp.float32)), np.asarray(one[name].astype(jnp.float32)), err_msg=name
        )
        if name.endswith("kernel_qvalue"):
            assert values.addressable_shards[0].data.size * 8 == values.size
            assert (
                split[name.replace("qvalue", "scale")].addressable_shards[0].data.size * 8
                == one[name.replace("qvalue", "scale")].size
            )


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_each_device_rounds_its_own_shard(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled to round a sharded kernel moves nothing between devices; by itself the partitioner gathers NF4's whole."""
    base = tiny.make_base(tmp_path / "base", num_hidden_layers=1, **SIZES)
    model = skeleton(read_model_config(base), LoraConfig(), quantization=how)
    programs: list[str] = []
    jit = jax.jit

    def spy(function: Any, **kwargs: Any) -> Any:
        compiled = jit(function, **kwargs)

        def call(*args: Any) -> Any:
            programs.append(str(compiled.lower(*args).compile().as_text()))
            return compiled(*args)

        return call

    monkeypatch.setattr(jax, "jit", spy)
    loaded(base, model, make_mesh(MeshConfig(fsdp=4, tensor=2)))
    rounding = [program for program in programs if "HloModule jit_zeros" not in program]  # those make what is loaded into
    assert len(rounding) == 7
    assert not [program for program in rounding if "all-gather" in program or "all-to-all" in program]


def test_loss_of_a_trained_model_held_in_8_and_4_bits(capsys: pytest.CaptureFixture[str]) -> None:
    """Trained in full until the loss is far below chance; then rounded. The differences are printed: they are the finding."""
    config = tiny.model_config(hidden_size=128, intermediate_size=256, head_dim=64, num_attention_heads=2, initializer_range=0.05)
    full, lora = LoraConfig(full=True), LoraConfig(rank=4)
    model = skeleton(config, full)
    params = tiny.new_params(config, model)
    tx = optimizer(OptimConfig(learning_rate=3e-3), steps=60)
    step = jax.jit(partial(train_step, model=model, tx=tx, chunk=32))
    rng = np.random.default_rng(0)
    tokens = np.cumsum(rng.integers(1, 4, (1, 16, 33)), axis=-1) % 97  # the next token is one of three
    batch = {"tokens": tokens[..., :-1], "targets": tokens[..., 1:], "segment_ids": np.ones((1, 16, 32), int)}
    batch |= {"positions": np.broadcast_to(np.arange(32), (1, 16, 32)), "loss_mask": np.ones((1, 16, 32), np.float32)}
    state = tx.init(params)
    for _ in range(60):
        params, state, metrics = step(params, state, {}, batch)

    def loss(params: Params, model: Skeleton) -> float:
        llama = model.model(params)
        hidden, _ = llama(batch["tokens"][0], positions_BL=batch["positions"][0], segment_ids_BL=batch["segment_ids"][0])
        return float(jnp.mean(token_losses(llama.head(), hidden, batch["targets"][0], chunk=32)))

    exact = loss(params, model)
    assert exact < 0.35 * np.log(tiny.VOCAB)
    differences = {}
    for how in ("int8", "nf4"):
        held = skeleton(config, lora, quantization=how)
        rounded = {name: values for name, values in params.items() if name in held.shapes}
        for name, values in params.items():
            if f"{name}_qvalue" in held.shapes:
                axes = held.axes[f"{name}_qvalue"]
                rounded[f"{name}_qvalue"], rounded[f"{name}_scale"] = quantized(values, axes[1:], how)
        rounded |= {name: jnp.zeros(held.shapes[name].shape) for name in held.trainable}
        differences[how] = loss(rounded, held) - exact
    with capsys.disabled():
        print(f"\nloss {exact:.4f}; int8 {differences['int8']:+.5f}, nf4 {differences['nf4']:+.5f} nats a token")
    assert abs(differences["int8"]) < 0.005
    assert 1e-4 < abs(differences["nf4"]) < 0.15
