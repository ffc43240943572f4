"""The mesh and what lies where on it; loss and gradients do not depend on it. Eight pretended CPU devices."""

import dataclasses
import re
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alif_jax import UsageError
from alif_jax.hf import load_params, read_model_config
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.model import Params, skeleton
from alif_jax.optim import OptimConfig, named_leaves, optimizer, state_shardings
from alif_jax.sharding import MeshConfig, constrain, make_mesh, put_batch, replicated, sharding_of, spec_of
from alif_jax.step import compile_step, init_state, train_step
from tests import tiny

HEADS: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16}  # kv heads divide over tensor = 4
ALL_PARTS = LoraConfig(rank=4, alpha=8.0, modules_to_save=("embed_tokens", "lm_head"))
FOUR_PARTS = dataclasses.replace(ALL_PARTS, target_modules=("q_proj", "v_proj", "o_proj", "down_proj"))  # compiles faster

SPLIT = ("fsdp", "sequence")
ALL = ("tensor", *SPLIT)  # of an adapter, the dimension that its base has on tensor alone
SPECS = {
    "embed_tokens.embedding": P("tensor", SPLIT),
    "lm_head.kernel": P(SPLIT, "tensor"),
    "norm.scale": P(None),
    "layers.input_layernorm.scale": P(None, None),
    "layers.post_attention_layernorm.scale": P(None, None),
    "layers.self_attn.q_proj.kernel": P(None, SPLIT, "tensor"),
    "layers.self_attn.q_proj.lora_A": P(None, SPLIT, None),
    "layers.self_attn.q_proj.lora_B": P(None, None, ALL),
    "layers.self_attn.k_proj.kernel": P(None, SPLIT, "tensor"),
    "layers.self_attn.k_proj.lora_A": P(None, SPLIT, None),
    "layers.self_attn.k_proj.lora_B": P(None, None, ALL),
    "layers.self_attn.v_proj.kernel": P(None, SPLIT, "tensor"),
    "layers.self_attn.v_proj.lora_A": P(None, SPLIT, None),
    "layers.self_attn.v_proj.lora_B": P(None, None, ALL),
    "layers.self_attn.o_proj.kernel": P(None, "tensor", SPLIT),
    "layers.self_attn.o_proj.lora_A": P(None, ALL, None),
    "layers.self_attn.o_proj.lora_B": P(None, None, SPLIT),
    "layers.mlp.gate_proj.kernel": P(None, SPLIT, "tensor"),
    "layers.mlp.gate_proj.lora_A": P(None, SPLIT, None),
    "layers.mlp.gate_proj.lora_B": P(None, None, ALL),
    "layers.mlp.up_proj.kernel": P(None, SPLIT, "tensor"),
    "layers.mlp.up_proj.lora_A": P(None, SPLIT, None),
    "layers.mlp.up_proj.lora_B": P(None, None, ALL),
    "layers.mlp.down_proj.kernel": P(None, "tensor", SPLIT),
    "layers.mlp.down_proj.lora_A": P(None, ALL, None),
    "layers.mlp.down_proj.lora_B": P(None, None, SPLIT),
}


def check_placed(arrays: Params, mesh: Mesh) -> None:
    """Each array lies as SPECS says, and each device holds its part and no more."""
    for name, array in arrays.items():
        spec = SPECS[name]
        assert array.sharding.is_equivalent_to(NamedSharding(mesh, spec), array.ndim), (name, array.sharding)
        part = NamedSharding(mesh, spec).shard_shape(array.shape)
        assert {shard.data.shape for shard in array.addressable_shards} == {part}, name
        assert len({shard.device for shard in array.addressable_shards}) == mesh.size, name


def test_the_spec_of_every_parameter() -> None:
    model = skeleton(tiny.model_config(**HEADS), ALL_PARTS)
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    assert model.shapes.keys() == SPECS.keys()
    abstract = model.abstract(mesh, tuple(SPECS))
    assert {name: leaf.sharding.spec for name, leaf in abstract.items()} == SPECS
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in abstract.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in model.shapes.items()
    }


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (MeshConfig(), (1, 8, 1, 1)),
        (MeshConfig(data=2, fsdp=-1, tensor=2), (2, 2, 2, 1)),
        (MeshConfig(data=-1, fsdp=1), (8, 1, 1, 1)),
        (MeshConfig(data=1, fsdp=2, tensor=4), (1, 2, 4, 1)),
        (MeshConfig(data=-1, fsdp=8), (1, 8, 1, 1)),
        (MeshConfig(fsdp=-1, sequence=4), (1, 2, 1, 4)),
    ],
)
def test_mesh_shapes(config: MeshConfig, shape: tuple[int, ...]) -> None:
    mesh = make_mesh(config)
    assert (mesh.axis_names, mesh.devices.shape) == (("data", "fsdp", "tensor", "sequence"), shape)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(fsdp=4, tensor=4), "data=1 × fsdp=4 × tensor=4 × sequence=1 does not fit 8 device.s.: their product must be 8"),
        (MeshConfig(fsdp=4), "data=1 × fsdp=4 × tensor=1 × sequence=1 does not fit 8"),
        (MeshConfig(tensor=3), "does not fit 8"),
        (MeshConfig(data=-1), "data=-1 × fsdp=-1 × tensor=1 × sequence=1: each size is a positive number, or -1 in one place"),
        (MeshConfig(fsdp=0, tensor=8), "each size is a positive number"),
        (MeshConfig(data=-2, fsdp=1, tensor=-4), "each size is a positive number"),
    ],
)
def test_mesh_errors(config: MeshConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_mesh(config)


def test_a_dimension_that_does_not_divide_is_named() -> None:
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=4))
    sharding_of(mesh, ("vocab", "embed"), (320, 6), "embed_tokens.embedding")
    with pytest.raises(UsageError, match=r"x.kernel: dimension 2 \(mlp, 98\) cannot be divided over tensor = 4 devices"):
        sharding_of(mesh, ("layers", "embed", "mlp"), (3, 64, 98), "x.kernel")
    with pytest.raises(UsageError, match=r"dimension 1 \(embed, 7\) cannot be divided over fsdp × sequence = 2 devices; .* 7"):
        sharding_of(mesh, ("vocab", "embed"), (320, 7), "embed_tokens.embedding")


def test_each_device_gets_its_own_part() -> None:
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, sequence=2))
    batch = tiny.random_batch(rows=8, length=6, accumulation=3)
    for name, array in put_batch(mesh, batch).items():
        np.testing.assert_array_equal(array, batch[name])
        for shard in array.addressable_shards:
            data, fsdp, _, sequence = np.argwhere(mesh.devices == shard.device)[0]
            first, at = 2 * (2 * data + fsdp), 3 * sequence
            np.testing.assert_array_equal(shard.data, batch[name][:, first : first + 2, at : at + 3])


def test_a_length_that_does_not_divide() -> None:
    mesh = make_mesh(MeshConfig(fsdp=2, sequence=4))
    with pytest.raises(UsageError, match="rows of 6 tokens cannot be divided over sequence = 4 devices; .* a multiple of 4"):
        put_batch(mesh, tiny.random_batch(rows=8, length=6))


def test_rows_that_do_not_divide() -> None:
    with pytest.raises(UsageError, match="6 rows a microbatch cannot be divided over data × fsdp = 4 devices; .* multiple of 4"):
        put_batch(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), tiny.random_batch(rows=6, length=6))


def test_without_a_mesh_there_is_nothing_to_pin() -> None:
    x = jnp.ones((2, 3))
    assert constrain(x, "batch", "mlp") is x
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        pinned = jax.jit(lambda x: constrain(x, "batch", "mlp"))(jnp.ones((4, 8)))
    assert pinned.sharding.spec == P(("data", "fsdp"), "tensor")


# --- the same training step on other meshes


def keep_gradients() -> optax.GradientTransformation:
    """An optimizer that changes nothing and whose state is the last gradients."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads),
    )


def one_step(lora: LoraConfig, mesh: Mesh) -> tuple[float, Params, dict[str, Any]]:
    """Loss, gradients and their shardings' mesh on two microbatches of 8 packed rows."""
    config = tiny.model_config(**HEADS, initializer_range=0.1)
    model = skeleton(config, lora, remat="full")
    values = tiny.new_params(config, model)
    trainable, frozen = (
        {name: jax.device_put(np.asarray(values[name]), leaf.sharding) for name, leaf in model.abstract(mesh, names).items()}
        for names in (model.trainable, model.frozen)
    )
    tx = keep_gradients()
    batch = tiny.random_batch(rows=8, length=16, accumulation=2)
    with jax.set_mesh(mesh):
        step = jax.jit(partial(train_step, model=model, tx=tx, chunk=8))
        after, gradients, metrics = step(trainable, tx.init(trainable), frozen, put_batch(mesh, batch))
    check_placed(after, mesh)
    assert int(metrics["tokens"]) == batch["loss_mask"].sum()
    return float(metrics["loss"]), gradients, metrics


@pytest.fixture(scope="module")
def on_one_device() -> dict[bool, tuple[float, Params, dict[str, Any]]]:
    mesh = make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])
    return {lora.full: one_step(lora, mesh) for lora in (FOUR_PARTS, LoraConfig(full=True))}


@pytest.mark.parametrize(
    ("lora", "mesh"),
    [
        (LoraConfig(full=True), MeshConfig(fsdp=8)),
        (FOUR_PARTS, MeshConfig(data=2, fsdp=1, tensor=4)),
        (FOUR_PARTS, MeshConfig(fsdp=4, tensor=2)),
        (FOUR_PARTS, MeshConfig(fsdp=2, tensor=2, sequence=2)),
    ],
)
def test_loss_and_gradients_are_those_of_one_device(
    on_one_device: dict[bool, tuple[float, Params, dict[str, Any]]], lora: LoraConfig, mesh: MeshConfig
) -> None:
    loss, gradients, metrics = one_step(lora, make_mesh(mesh))
    expected_loss, expected, expected_metrics = on_one_device[lora.full]
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert float(metrics["grad_norm"]) == pytest.approx(float(expected_metrics["grad_norm"]), rel=1e-5)
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        norm = np.linalg.norm(gradient)
        assert norm > 0 and np.linalg.norm(np.asarray(gradients[name]) - np.asarray(gradient)) <= 1e-5 * norm, name


# --- state


def test_random_parameters_are_born_sharded_and_moments_lie_beside_them() -> None:
    config, lora = tiny.model_config(**HEADS), LoraConfig(full=True)
    source = ModelSource(random_init=True)
    model, tx = skeleton(config, lora), optimizer(OptimConfig(), 3)
    one, many = make_mesh(MeshConfig(fsdp=1), jax.devices()[:1]), make_mesh(MeshConfig(fsdp=4, tensor=2))
    (trainable, state), (alone, _) = (
        init_state(source, lora, config, model, tx, mesh, "", {}, seed=0) for mesh in (many, one)
    )
    check_placed(trainable, many)
    leaves = named_leaves(state)
    for moment in ("mu", "nu"):
        check_placed({name: leaves[f"1.{moment}.{name}"] for name in trainable}, many)
    others = [leaf for name, leaf in leaves.items() if leaf.ndim == 0]
    assert len(others) + 2 * len(trainable) == len(leaves) and all(leaf.sharding.is_fully_replicated for leaf in others)
    for name, values in alone.items():  # the same seed is the same model, whatever the mesh
        np.testing.assert_allclose(trainable[name], values, rtol=0, atol=1e-7)


NEW_ROWS = dataclasses.replace(FOUR_PARTS, new_rows_only=True)
DORA = dataclasses.replace(FOUR_PARTS, modules_to_save=(), use_dora=True)


@pytest.mark.parametrize("lora", [FOUR_PARTS, DORA, NEW_ROWS], ids=["tables", "dora", "new rows"])
def test_the_state_stays_where_it_is_and_a_step_is_compiled_once(lora: LoraConfig) -> None:
    config, mesh = tiny.model_config(original_vocab_size=300, **HEADS), make_mesh(MeshConfig(fsdp=2, tensor=4))
    model, tx = skeleton(config, lora), optimizer(OptimConfig(learning_rate=1e-3), 5)
    params = tiny.new_params(config, model)
    places = {name: sharding_of(mesh, model.axes[name], values.shape, name) for name, values in params.items()}
    on_mesh = {name: jax.device_put(values, places[name]) for name, values in params.items()}
    trainable, frozen = ({name: on_mesh[name] for name in names} for names in (model.trainable, model.frozen))
    shardings = state_shardings(tx, model.abstract(mesh, model.trainable), {n: places[n] for n in trainable}, replicated(mesh))
    with jax.set_mesh(mesh):
        step, state = compile_step(model, tx, mesh, chunk=16), jax.jit(tx.init, out_shardings=shardings)(trainable)
        for seed in range(2):
            batch = put_batch(mesh, tiny.random_batch(rows=8, length=16, seed=seed))
            trainable, state, _ = step(trainable, state, frozen, batch)
        assert step._cache_size() == 1  # type: ignore[attr-defined]
    for name, values in trainable.items():
        assert values.sharding.is_equivalent_to(places[name], values.ndim), name


def test_loaded_parameters_are_sharded(tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path / "base", **HEADS)
    config, mesh = read_model_config(base), make_mesh(MeshConfig(fsdp=2, tensor=4))
    model, tx = skeleton(config, ALL_PARTS), optimizer(OptimConfig(), 3)
    trainable, _ = init_state(ModelSource(), ALL_PARTS, config, model, tx, mesh, base, {}, seed=0)
    assert trainable.keys() == set(model.trainable)
    check_placed(trainable | load_params(base, model, model.frozen, mesh, config), mesh)


@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=8), MeshConfig(fsdp=4, sequence=2), MeshConfig(data=2, sequence=4)], ids=str)
def test_the_look_up_gathers_neither_table_nor_activations(mesh: MeshConfig) -> None:
    """Nor does its gradient: columns are exchanged for rows and tokens, all-to-all."""
    config, devices = tiny.model_config(), make_mesh(mesh)
    model = skeleton(config, LoraConfig(rank=4, modules_to_save=("embed_tokens",)))
    sharding = NamedSharding(devices, spec_of(("batch", "length")))
    tokens = jax.ShapeDtypeStruct((8, 16), jnp.int32, sharding=sharding)

    def both(params: dict[str, jax.Array], tokens: jax.Array) -> Any:
        def look_up(table: jax.Array) -> jax.Array:
            embedded = model.model(params | {"embed_tokens.embedding": table}).embed_tokens.look_up(tokens, jnp.float32)
            return constrain(embedded, "batch", "length", None)

        embedded, pull = jax.vjp(look_up, params["embed_tokens.embedding"])
        return embedded, pull(embedded)

    with jax.set_mesh(devices):
        program = jax.jit(both).lower(model.abstract(devices, tuple(model.shapes)), tokens).compile().as_text() or ""
    gathered = re.findall(r"= (\w+)\[[\d,]*\]\S* all-gather\(", program)
    assert "all-to-all" in program and gathered and set(gathered) == {"s32"}  # the tokens' ids
