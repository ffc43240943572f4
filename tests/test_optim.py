"""The optimizer against torch.optim.AdamW with the schedules of transformers, step by step."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers

from alif_jax import UsageError
from alif_jax.optim import OptimConfig, group_of, named_leaves, optimizer, schedule

SCHEDULES = {
    "cosine": transformers.get_cosine_schedule_with_warmup,
    "linear": transformers.get_linear_schedule_with_warmup,
    "constant": lambda optimizer, warmup, steps: transformers.get_constant_schedule_with_warmup(optimizer, warmup),
    "warmup_stable_decay": lambda optimizer, warmup, steps: transformers.get_wsd_schedule(
        optimizer, num_warmup_steps=warmup, num_decay_steps=4, num_training_steps=steps
    ),
}
SHAPES = {
    "embed_tokens.embedding": (7, 4),
    "embed_tokens.lora_A": (7, 3),
    "layers.input_layernorm.scale": (2, 4),
    "layers.mlp.up_proj.kernel": (2, 4, 6),
    "layers.mlp.up_proj.lora_A": (2, 4, 3),
    "layers.mlp.up_proj.lora_B": (2, 3, 6),
    "layers.mlp.up_proj.lora_magnitude": (2, 6),
    "layers.self_attn.q_proj.bias": (2, 4),
    "lm_head.kernel": (4, 7),
    "lm_head.new_rows": (2, 4),
    "lm_head.lora_B": (3, 7),
    "norm.scale": (4,),
}
NOT_DECAYED = ("layers.input_layernorm.scale", "layers.mlp.up_proj.lora_magnitude", "layers.self_attn.q_proj.bias", "norm.scale")
EMBEDDINGS = ("embed_tokens.embedding", "lm_head.kernel", "lm_head.new_rows")
LORA_B = ("layers.mlp.up_proj.lora_B", "lm_head.lora_B")


def random_tree(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def torch_run(config: OptimConfig, steps: int, gradients: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Parameters after each step of the reference, whose groups are written out here by name."""
    tensors = {name: torch.nn.Parameter(torch.tensor(values)) for name, values in random_tree(0).items()}
    embedding_rate = config.learning_rate if config.embedding_learning_rate is None else config.embedding_learning_rate
    embedding_decay = config.weight_decay if config.embedding_weight_decay is None else config.embedding_weight_decay
    others = [name for name in SHAPES if name not in NOT_DECAYED + EMBEDDINGS + LORA_B]
    reference = torch.optim.AdamW(
        [
            {"params": [tensors[name] for name in others]},
            {"params": [tensors[name] for name in NOT_DECAYED], "weight_decay": 0.0},
            {"params": [tensors[name] for name in EMBEDDINGS], "lr": embedding_rate, "weight_decay": embedding_decay},
            {"params": [tensors[name] for name in LORA_B], "lr": config.learning_rate * config.loraplus_lr_ratio},
        ],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        eps=config.adam_epsilon,
        weight_decay=config.weight_decay,
    )
    rates = SCHEDULES[config.lr_scheduler_type](reference, config.warmup_steps, steps)
    after = []
    for step_gradients in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(step_gradients[name])
        torch.nn.utils.clip_grad_norm_(list(tensors.values()), config.max_grad_norm)
        reference.step()
        rates.step()
        after.append({name: tensor.detach().numpy().copy() for name, tensor in tensors.items()})
    return after


@pytest.mark.parametrize(
    "config",
    [
        OptimConfig(
            learning_rate=0.03, embedding_learning_rate=0.004, warmup_steps=2, weight_decay=0.1, adam_beta1=0.8,
            adam_beta2=0.95, adam_epsilon=1e-3, max_grad_norm=0.7, loraplus_lr_ratio=16.0,
        ),
        OptimConfig(
            learning_rate=0.01, embedding_weight_decay=0.05, weight_decay=0.3, lr_scheduler_type="warmup_stable_decay",
            warmup_steps=1, decay_steps=4, loraplus_lr_ratio=2.0,
        ),
        OptimConfig(learning_rate=0.01, lr_scheduler_type="linear", weight_decay=0.3),
        OptimConfig(learning_rate=0.01, lr_scheduler_type="constant", warmup_steps=3, max_grad_norm=5.0),
    ],
)  # fmt: skip
def test_steps_are_torchs(config: OptimConfig) -> None:
    config.validate()
    steps = 7
    gradients = [random_tree(1 + step, scale) for step, scale in enumerate([0.01, 1.0, 0.3, 0.02, 2.0, 0.05, 0.1])]
    norms = [np.sqrt(sum((values**2).sum() for values in tree.values())) for tree in gradients]
    assert min(norms) < config.max_grad_norm < max(norms)  # some are clipped, some are not
    tx = optimizer(config, steps)
    params: dict[str, jax.Array] = jax.tree.map(jnp.asarray, random_tree(0))
    state, update = tx.init(params), jax.jit(tx.update)
    for step, expected in enumerate(torch_run(config, steps, gradients)):
        updates, state = update(gradients[step], state, params)
        params = optax.apply_updates(params, updates)
        for name in SHAPES:
            np.testing.assert_allclose(params[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=f"step {step}, {name}")


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("warmup", "steps"), [(0, 9), (3, 10), (5, 5), (1, 1), (0, 1)])
def test_schedules_are_transformers(kind: str, warmup: int, steps: int) -> None:
    decay = 4 if kind == "warmup_stable_decay" else 0
    if warmup + decay > steps:
        return  # refused: see below
    config = OptimConfig(learning_rate=0.3, lr_scheduler_type=kind, warmup_steps=warmup, decay_steps=decay)
    config.validate()
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    rates = SCHEDULES[kind](reference, warmup, steps)
    device, host = schedule(config, steps), schedule(config, steps, np)
    for step in range(steps):
        expected = pytest.approx(reference.param_groups[0]["lr"], rel=1e-5, abs=1e-7)
        assert float(device(step)) == expected and float(host(step)) == expected, step
        reference.step()
        rates.step()


def test_warmup_stable_decay_in_numbers() -> None:
    """10 steps: 2 of warm-up, stable, and the last 4 down half a cosine to a tenth."""
    config = OptimConfig(
        learning_rate=1.0, lr_scheduler_type="warmup_stable_decay", warmup_ratio=0.2, decay_steps=4, min_lr_ratio=0.1
    )
    config.validate()
    half = [0.1 + 0.9 * (1 + math.cos(math.pi * t / 4)) / 2 for t in range(5)]
    expected = [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, *half]
    assert [float(schedule(config, 10, np)(step)) for step in range(11)] == pytest.approx(expected)
    with pytest.raises(UsageError, match="optim.decay_steps=4 and a warm-up of 1 do not fit into 4 steps"):
        schedule(config, 4)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_floor(kind: str) -> None:
    rate = schedule(OptimConfig(learning_rate=2.0, lr_scheduler_type=kind, min_lr_ratio=0.25), 8, np)
    assert [float(rate(step)) for step in (0, 4, 8, 9)] == pytest.approx([2.0, 1.25, 0.5, 0.5])


def test_warmup_ratio_is_transformers() -> None:
    """TrainingArguments rounds up; warmup_steps is taken instead where it is given."""
    for steps, ratio in ((10, 0.25), (100, 0.03), (7, 0.0)):
        assert OptimConfig(warmup_ratio=ratio).warmup(steps) == math.ceil(steps * ratio)
    assert OptimConfig(warmup_steps=4).warmup(100) == 4


@pytest.mark.parametrize(
    ("name", "group"),
    [("embed_tokens.embedding", "embeddings"), ("lm_head.kernel", "embeddings"), ("embed_tokens.new_rows", "embeddings"),
     ("lm_head.new_rows", "embeddings"), ("embed_tokens.lora_A", "lora_A"), ("lm_head.lora_B", "lora_B"),
     ("layers.self_attn.q_proj.lora_A", "lora_A"), ("layers.mlp.down_proj.lora_B", "lora_B"),
     ("layers.mlp.down_proj.lora_magnitude", "magnitude"), ("layers.self_attn.q_proj.bias", "norm/bias"),
     ("layers.self_attn.q_norm.scale", "norm/bias"), ("norm.scale", "norm/bias"), ("layers.mlp.up_proj.kernel", "weights")],
)  # fmt: skip
def test_groups(name: str, group: str) -> None:
    assert group_of(name) == group


def test_max_grad_norm_0_is_no_clipping() -> None:
    """As TrainingArguments has it."""
    gradients, params = random_tree(1, 100.0), random_tree(0)
    unclipped, generous = (optimizer(OptimConfig(max_grad_norm=norm, adam_epsilon=1.0), 3) for norm in (0.0, 1e9))
    got, expected = (jax.jit(tx.update)(gradients, tx.init(params), params)[0] for tx in (unclipped, generous))
    for name in SHAPES:
        np.testing.assert_array_equal(got[name], expected[name])


def test_state_is_named_after_what_it_holds() -> None:
    params = random_tree(0)
    leaves = named_leaves(optimizer(OptimConfig(), 3).init(params))
    moments = {f"1.{moment}.{name}" for moment in ("mu", "nu") for name in SHAPES}
    assert moments < leaves.keys()
    assert {name: leaves[f"1.nu.{name}"].shape for name in SHAPES} == SHAPES
    assert all(leaves[name].shape == () for name in leaves.keys() - moments)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OptimConfig(lr_scheduler_type="cosin"), "optim.lr_scheduler_type='cosin' is not one of constant, linear, cosine"),
        (OptimConfig(loraplus_lr_ratio=0.0), "optim.loraplus_lr_ratio=0.0: a positive number"),
        (OptimConfig(weight_decay=-0.1), "optim.weight_decay=-0.1: at least 0"),
        (OptimConfig(min_lr_ratio=1.5), "optim.min_lr_ratio=1.5: from 0 to 1"),
        (OptimConfig(warmup_steps=3, warmup_ratio=0.1), "give one of them"),
        (OptimConfig(decay_steps=3), "belongs to warmup_stable_decay"),
        (OptimConfig(lr_scheduler_type="warmup_stable_decay"), "and that needs one"),
        (OptimConfig(learning_rate=0.0), "optim.learning_rate=0.0: a positive number"),
        (OptimConfig(embedding_learning_rate=-1.0), "optim.embedding_learning_rate=-1.0: a positive number"),
        (OptimConfig(max_grad_norm=-1.0), "optim.max_grad_norm=-1.0: a positive number, or 0"),
    ],
)
def test_config_errors(config: OptimConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.validate()
