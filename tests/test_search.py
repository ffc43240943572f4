"""The search against known laws of memory: it finds what trying everything finds, within its compiles; and its errors."""

import dataclasses
import json
from collections.abc import Callable

import pytest

from alif_jax import UsageError
from alif_jax.ahead import Compiled, Memory
from alif_jax.analytic import temporary_bytes
from alif_jax.data.template import DataConfig
from alif_jax.flops import matmul_parameters
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.run import TrainConfig
from alif_jax.search import MOST_COMPILES, REMATS, Candidate, as_json, candidates, next_candidate, search
from alif_jax.topology import CHIPS, Topology
from launch import app
from tests import tiny

MODEL = tiny.model_config(hidden_size=1024, intermediate_size=4096, num_hidden_layers=16, num_attention_heads=8,
                          num_key_value_heads=4, head_dim=128, vocab_size=32_000)  # fmt: skip


def recipe(batch_size: int = 64) -> TrainConfig:
    source = ModelSource(attention="splash", remat="full")
    return TrainConfig(model=source, lora=LoraConfig(rank=8), data=DataConfig(sequence_length=2048), batch_size=batch_size)


def slice_of(gib: float) -> Topology:
    return Topology(dataclasses.replace(CHIPS["v5e"], hbm_bytes=int(gib * 2**30)), (2, 4))


Law = Callable[[Candidate], Memory]


class Compiler:
    """A compiler by a law, which counts its calls."""

    def __init__(self, config: TrainConfig, topology: Topology, law: Law):
        self.every = list(candidates(config, MODEL, topology))
        self.hbm, self.law, self.calls = topology.chip.hbm_bytes, law, 0

    def answer(self, one: Candidate) -> Compiled:
        memory = self.law(one)
        return Compiled(memory, fits=memory.total <= self.hbm, hlo_text="", seconds=0.0)

    def __call__(self, config: TrainConfig) -> Compiled:
        self.calls += 1
        return self.answer(next(one for one in self.every if one.config == config))

    def best(self) -> Candidate:
        """By trying everything."""
        return min((one for one in self.every if self.answer(one).fits), key=lambda one: one.slowness)


def scaled(factor: float, fixed: float = 0.0) -> Law:
    """Temporaries are so many times the formula's, and something on top that does not grow with the rows."""

    def law(one: Candidate) -> Memory:
        return dataclasses.replace(one.state, temporary=int(factor * one.temporary + fixed * 2**30))

    return law


def uneven(one: Candidate) -> Memory:
    """Kept tensors cost a third more than the formula says, all else a third less."""
    full = dataclasses.replace(one.config, model=dataclasses.replace(one.config.model, remat="full"))
    less = temporary_bytes(full, MODEL, one.mesh, trainables=one.state.trainables)
    return dataclasses.replace(one.state, temporary=int(0.67 * less + 1.33 * (one.temporary - less)))


@pytest.mark.parametrize("gib", [1.2, 2.5, 4.0, 8.0, 100.0])
@pytest.mark.parametrize("law", [scaled(1.0), scaled(0.8), scaled(1.2), scaled(0.9, fixed=0.3), uneven],
                         ids=["as_the_formula", "less", "more", "more_at_once", "uneven"])  # fmt: skip
def test_the_optimum_is_found(law: Law, gib: float) -> None:
    topology = slice_of(gib)
    compiler = Compiler(recipe(), topology, law)
    found = search(recipe(), MODEL, topology, compiler)
    assert found.compiles == compiler.calls <= MOST_COMPILES
    assert found.candidates == len(compiler.every)
    best = compiler.best()
    first = found.choices[0]
    assert (first.mesh, first.remat, first.rows) == (dict(best.mesh.shape), best.remat, best.rows)
    assert first.fits and first.bytes == law(best).total


def test_choices_are_ranked() -> None:
    topology = slice_of(2.5)
    found = search(recipe(), MODEL, topology, Compiler(recipe(), topology, scaled(1.2)))
    assert [one.fits for one in found.choices] == sorted((one.fits for one in found.choices), reverse=True)
    assert all(one.fits == (one.bytes <= topology.chip.hbm_bytes) for one in found.choices)
    assert len(found.choices) == found.compiles
    rows = {one.rows * one.gradient_accumulation_steps * one.mesh["fsdp"] for one in found.choices}
    assert rows == {64}  # rows an optimizer step stay what the recipe says
    assert json.loads(json.dumps(as_json(found)))["overrides"] == list(found.choices[0].overrides)


def test_train_takes_the_overrides() -> None:
    """Each as the --config flag reads it, onto the recipe: the very config that was compiled."""
    topology = slice_of(4.0)
    compiler = Compiler(recipe(), topology, scaled(1.0))
    found = search(recipe(), MODEL, topology, compiler)
    config = recipe()
    for override in found.overrides:
        path, _, text = override.removeprefix("--config.").partition("=")
        *sections, key = path.split(".")
        section = config
        for name in sections:
            section = getattr(section, name)
        hint = type(getattr(section, key))
        setattr(section, key, app.parse_value(text, hint))
    config.validate()
    assert config == compiler.best().config


def test_what_is_tried() -> None:
    """Every fsdp × tensor × sequence of 8 that divides; 4 key/value heads leave tensor ≤ 4. Rows of 64, from all at once to 1."""
    every = list(candidates(recipe(), MODEL, slice_of(1)))
    shapes = {tuple(one.mesh.shape.values()) for one in every}
    assert shapes == {
        (1, 8, 1, 1), (1, 4, 1, 2), (1, 2, 1, 4), (1, 1, 1, 8), (1, 4, 2, 1), (1, 2, 2, 2), (1, 1, 2, 4), (1, 2, 4, 1),
        (1, 1, 4, 2),
    }  # fmt: skip
    eight = [one for one in every if one.mesh.shape["fsdp"] == 8]
    assert {(one.rows, one.config.gradient_accumulation_steps) for one in eight} == {(8, 1), (4, 2), (2, 4), (1, 8)}
    assert {one.remat for one in eight} == set(REMATS)
    weights = matmul_parameters(MODEL) + 32_000 * 1024 + (2 * 16 + 1) * 1024  # and the embedding, and the norms
    assert eight[0].state.weights == pytest.approx(2 * weights / 8, rel=1e-3)
    assert eight[0].state.optimizer == 2 * eight[0].state.trainables


def test_nothing_fits() -> None:
    topology = slice_of(0.15)
    compiler = Compiler(recipe(), topology, scaled(1.0))
    with pytest.raises(UsageError) as caught:
        search(recipe(), MODEL, topology, compiler)
    assert 1 <= compiler.calls <= MOST_COMPILES
    smallest = min(compiler.law(one).total for one in compiler.every)
    assert f"the smallest needs {smallest / 2**30:.2f} of 0.15 GiB" in str(caught.value)
    assert "the largest part is temporary" in str(caught.value) and "what would help: more chips, or" in str(caught.value)


def test_the_last_compile_goes_to_the_smallest() -> None:
    """A law ten times the formula: most of what looks possible is not, and one compile is kept for what surely is."""
    topology = slice_of(8.0)
    compiler = Compiler(recipe(), topology, scaled(10.0))
    for most in (1, 2):
        found = search(recipe(), MODEL, topology, compiler, most_compiles=most)
        assert found.compiles == most and found.choices[0].fits


def test_what_is_larger_than_what_failed_is_left_out() -> None:
    """Whatever the bytes: the compiler's verdict counts. One mesh, 2 rows a device with o_proj kept did not fit."""
    topology = slice_of(100.0)
    every = [one for one in candidates(recipe(), MODEL, topology) if one.mesh.shape["fsdp"] == 8]
    failed = next(one for one in every if (one.rows, one.remat) == (2, "o_proj"))
    tried = {failed: Compiled(dataclasses.replace(failed.state, temporary=1), fits=False, hlo_text="", seconds=0.0)}
    left = set()
    while (one := next_candidate(every, tried, topology.chip.hbm_bytes, last=False)) is not None:
        left.add((one.rows, one.remat))
        tried[one] = tried[failed]
    assert left and not any(rows >= 2 and remat != "full" for rows, remat in left)


def test_no_compile_is_made_for_what_is_slower() -> None:
    topology = slice_of(100.0)
    assert search(recipe(), MODEL, topology, Compiler(recipe(), topology, scaled(1.0))).compiles == 1


def test_no_mesh_divides() -> None:
    with pytest.raises(UsageError, match="no mesh of 8 devices divides this recipe: batch_size=7 is not a multiple of mesh.fsdp=8"):
        list(candidates(dataclasses.replace(recipe(7), data=DataConfig(sequence_length=2047)), MODEL, slice_of(8)))
