"""What the backward pass keeps and what it computes again: the same gradients, from fewer products the more is kept."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.model import TENSORS, Params, skeleton
from tests import tiny

LORA = LoraConfig(rank=4, alpha=8.0)
MLP = "gate_proj+up_proj"


def gradients(remat: str, offload: bool = False) -> tuple[Params, str]:
    """Of a sum over the hidden states, and the program that makes them."""
    config = tiny.model_config()
    model = skeleton(config, LORA, remat=remat, remat_offload=offload)
    values, batch = tiny.new_params(config, model), tiny.random_batch(rows=2, length=12)
    rows = {name: jnp.asarray(array[0]) for name, array in batch.items()}
    trainable, frozen = ({name: values[name] for name in names} for names in (model.trainable, model.frozen))

    def loss(trainable: Params) -> jax.Array:
        hidden, _ = model.model({**frozen, **trainable})(
            rows["tokens"], positions_BL=rows["positions"], segment_ids_BL=rows["segment_ids"]
        )
        return jnp.sum(hidden * jnp.arange(hidden.shape[-1]))

    return jax.jit(jax.grad(loss))(trainable), str(jax.make_jaxpr(jax.grad(loss))(trainable))


def test_the_more_is_kept_the_less_is_computed_again() -> None:
    everything = "+".join(TENSORS)
    found = {remat: gradients(remat) for remat in ("none", everything, MLP, "full")}
    products = {remat: program.count("dot_general") for remat, (_, program) in found.items()}
    assert products["none"] < products[everything] < products[MLP] < products["full"]
    assert products["full"] - products[MLP] == 4  # x W and (x A) B of gate and up; x A is needed for the gradient of B
    for remat, (values, _) in found.items():
        for name, expected in found["none"][0].items():
            np.testing.assert_allclose(values[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(), err_msg=remat + name)


@pytest.mark.parametrize("remat", ["full", MLP])
def test_what_is_kept_can_wait_in_the_hosts_memory(remat: str) -> None:
    (expected, here), (found, program) = gradients(remat), gradients(remat, offload=True)
    kept = 1 if remat == "full" else 3
    assert (here.count("MemorySpace.Host"), program.count("MemorySpace.Host")) == (0, kept)  # each layer's input, and what is named
    assert program.count("MemorySpace.Device") == kept
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"remat": "minimal"}, "model.remat='minimal': 'minimal' is none of q_proj, k_proj, .*; give full, none, or names"),
        ({"remat": "attention+mlp"}, "'mlp' is none of"),
        ({"remat": "none", "remat_offload": True}, "model.remat_offload=True with model.remat=none: .* choose full"),
    ],
)
def test_bad_choices(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ModelSource(**changes).validate()
    with pytest.raises(UsageError, match=message):
        partial(skeleton, tiny.model_config(), LORA, **changes)()
