"""FLOPs a token: Llama-3.1-8B by hand, tiny models by counting every product of the real program, and the table of peaks."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from alif_jax.flops import (
    flops_per_token,
    hardware_flops_per_token,
    lora_parameters,
    matmul_parameters,
    peak_flops,
    trained_parameters,
)
from alif_jax.lora import EMBEDDINGS, PROJECTIONS, LoraConfig
from alif_jax.loss import token_losses
from alif_jax.model import TENSORS, ModelConfig, skeleton
from tests import tiny

LLAMA_8B = {
    "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
}  # fmt: skip


def llama_8b() -> ModelConfig:
    return tiny.model_config(**LLAMA_8B)


def test_llama_3_1_8b() -> None:
    config, lora = llama_8b(), LoraConfig(rank=128)
    layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336
    assert matmul_parameters(config) == 32 * layer + 128_256 * 4096 == pytest.approx(7.50e9, rel=1e-3)
    assert lora_parameters(config, lora) == pytest.approx(335.5e6, rel=1e-3)
    before_attention = flops_per_token(config, lora, context=0)
    assert 0.5 * 989e12 / before_attention == pytest.approx(15.4e3, rel=5e-3)
    assert flops_per_token(config, lora, context=8192) - before_attention == 6 * 8192 * 4096 * 32
    # full training at 8,192: 6·N + attention = 51.5e9; without the gradients of frozen matrices 36.5e9
    assert flops_per_token(config, LoraConfig(full=True), context=8192) == pytest.approx(51.5e9, rel=1e-3)
    tiny_adapter = LoraConfig(rank=1, target_modules=("q_proj",))
    assert flops_per_token(config, tiny_adapter, context=8192) == pytest.approx(36.5e9, rel=2e-3)


def test_what_a_trained_head_costs() -> None:
    config = llama_8b()
    plain, embeddings, both = (
        flops_per_token(config, LoraConfig(rank=8, modules_to_save=modules), context=0)
        for modules in ((), ("embed_tokens",), EMBEDDINGS)
    )
    assert embeddings == plain  # a look-up is no product
    assert both - plain == 2 * 128_256 * 4096


def test_adapters_on_the_tables() -> None:
    config = llama_8b()
    both = lora_parameters(config, LoraConfig(rank=4, target_modules=EMBEDDINGS))
    assert both == 4 * 4096 + 4 * (4096 + 128_256)  # A of the embedding is looked up


def dots(jaxpr: Any, times: int = 1) -> int:
    """2 · multiply-adds of all products in a program, scans counted as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            size = 2 * times
            for axis in contracted:
                size *= left[axis]
            for extent in equation.outvars[0].aval.shape:
                size *= extent
            total += size
        inner = times * equation.params.get("length", 1) if equation.primitive.name == "scan" else times
        for parameter in equation.params.values():
            for part in parameter if isinstance(parameter, (tuple, list)) else (parameter,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    total += dots(part, inner)
    return total


@pytest.mark.parametrize(
    "lora",
    [LoraConfig(rank=4), LoraConfig(rank=4, target_modules=("q_proj", "down_proj"), modules_to_save=EMBEDDINGS),
     LoraConfig(rank=4, target_modules=(*PROJECTIONS, "lm_head")), LoraConfig(full=True)],
)  # fmt: skip
def test_the_products_of_the_program(lora: LoraConfig) -> None:
    """The gradient of the real model, product by product. Its attention computes the whole square: twice the causal half."""
    config = tiny.model_config(vocab_size=384)
    model = skeleton(config, lora)
    L = 64
    params = {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in model.shapes.items()}
    trained = {name: params[name] for name in model.trainable}
    row = jnp.ones((1, L), jnp.int32)

    def loss(trained: dict[str, jax.Array]) -> jax.Array:
        llama = model.model({**params, **trained})
        hidden, _ = llama(row, positions_BL=row, segment_ids_BL=row)
        return jnp.sum(llama.logits(hidden))

    counted = dots(jax.make_jaxpr(jax.grad(loss))(trained).jaxpr) / L
    assert counted == pytest.approx(flops_per_token(config, lora, context=2 * L), rel=0.01)


@pytest.mark.parametrize(
    ("lora", "remat"),
    [(LoraConfig(rank=4), "none"), (LoraConfig(rank=4), "full"), (LoraConfig(full=True), "full"),
     (LoraConfig(rank=4, target_modules=("q_proj", "down_proj")), "q_proj+k_proj+v_proj"),
     (LoraConfig(rank=4), "attention+o_proj+gate_proj"), (LoraConfig(full=True), "+".join(TENSORS))],
)  # fmt: skip
def test_what_is_computed_again(lora: LoraConfig, remat: str) -> None:
    """The gradient of the real loss, product by product, under every kind of remat."""
    config = tiny.model_config(vocab_size=384)
    model = skeleton(config, lora, remat=remat)
    L = 64
    params = {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in model.shapes.items()}
    trained = {name: params[name] for name in model.trainable}
    row = jnp.ones((1, L), jnp.int32)

    def loss(trained: dict[str, jax.Array]) -> jax.Array:
        llama = model.model({**params, **trained})
        hidden, _ = llama(row, positions_BL=row, segment_ids_BL=row)
        return jnp.sum(token_losses(llama.head(), hidden, row, chunk=L))

    counted = dots(jax.make_jaxpr(jax.grad(loss))(trained).jaxpr) / L
    expected = hardware_flops_per_token(config, lora, context=L, remat=remat, attention="xla")
    assert counted == pytest.approx(expected, rel=0.002)


def test_a_kernel_computes_its_scores_once_more() -> None:
    """8B at 8,192, full training, attention kept: 7 products of the causal half instead of 6, and the head's logits again."""
    config, lora = llama_8b(), LoraConfig(full=True)
    product = 8192 * 4096 * 32
    counted = flops_per_token(config, lora, context=8192)
    everything = hardware_flops_per_token(config, lora, context=8192, remat="none")
    assert everything - counted == product + 2 * 128_256 * 4096
    full, kept = (hardware_flops_per_token(config, lora, context=8192, remat=remat) for remat in ("full", "attention"))
    assert full - kept == 2 * product


@pytest.mark.parametrize(
    "lora",
    [LoraConfig(rank=4), LoraConfig(rank=4, target_modules=(*PROJECTIONS, "embed_tokens")), LoraConfig(full=True),
     LoraConfig(rank=4, target_modules=("v_proj",), modules_to_save=EMBEDDINGS)],
)  # fmt: skip
def test_trained_parameters(lora: LoraConfig) -> None:
    config = tiny.model_config(vocab_size=384)
    model = skeleton(config, lora)
    matrices = [model.shapes[name] for name in model.trainable if "norm" not in name]
    assert trained_parameters(config, lora) == sum(matrix.size for matrix in matrices)

@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H200", 989), ("NVIDIA H100 PCIe", 756),
     ("NVIDIA L4", 121), ("NVIDIA L40S", None), ("NVIDIA A10G", None), ("NVIDIA GeForce RTX 4090", 165),
     ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("TPU v4", None), ("TPU v5 lite", 197), ("TPU v5e", 197), ("TPU v5", 459),
     ("TPU v5p", 459), ("TPU v6 lite", 918), ("TPU v6e", 918), ("cpu", None)],
)  # fmt: skip
def test_peaks(kind: str, teraflops: int | None) -> None:
    assert peak_flops(kind) == (None if teraflops is None else teraflops * 1e12)
