"""Where each parameter of Llama-3.1-8B lies on three meshes of 8 devices, with an adapter and both tables trained. Abstract only.

A change in any name, shape, dtype, kind or sharding shows here. Where it is meant: `python tests/test_sharding_golden.py` writes
the files anew; read their difference before it is committed.
"""

import difflib
import math
import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp

from alif_jax.lora import LoraConfig
from alif_jax.model import ModelConfig, skeleton
from alif_jax.sharding import MeshConfig, make_mesh

GOLDEN = Path(__file__).resolve().parent / "golden"
MESHES = {
    "fsdp8": MeshConfig(fsdp=8),
    "tensor8": MeshConfig(fsdp=1, tensor=8),
    "fsdp4_tensor2": MeshConfig(fsdp=4, tensor=2),
}
LLAMA31_8B = {  # as published
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
LORA = LoraConfig(rank=128, alpha=32.0, use_rslora=True, modules_to_save=("embed_tokens", "lm_head"))


def dump(mesh_name: str) -> str:
    """A line a parameter: name, kind, dtype, global shape, sharding, shape on one device. At the end the bytes of one device."""
    mesh = make_mesh(MESHES[mesh_name], jax.devices()[:8])
    model = skeleton(ModelConfig.from_hf(LLAMA31_8B), LORA, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    lines, bytes_of = [], {"trainable": 0, "frozen": 0}
    for kind, names in (("trainable", model.trainable), ("frozen", model.frozen)):
        for name, one in model.abstract(mesh, names).items():
            assert one.sharding is not None
            local = one.sharding.shard_shape(one.shape)
            bytes_of[kind] += jnp.dtype(one.dtype).itemsize * math.prod(local)
            lines.append(f"{name:44} {kind:9} {one.dtype!s:8} {one.shape!s:18} {spec_text(one.sharding)} {local}")
    totals = [f"# {kind}: {count} bytes a device" for kind, count in bytes_of.items()]
    return "\n".join([*sorted(lines), *totals]) + "\n"


def spec_text(sharding: jax.sharding.Sharding) -> str:
    assert isinstance(sharding, jax.sharding.NamedSharding)
    return f"{'P(' + ', '.join(map(str, sharding.spec)) + ')':34}"


def path_of(mesh_name: str) -> Path:
    return GOLDEN / f"sharding_8b_{mesh_name}.txt"


@pytest.mark.parametrize("mesh_name", MESHES)
def test_every_parameter_lies_as_before(mesh_name: str) -> None:
    golden, found = path_of(mesh_name).read_text().splitlines(), dump(mesh_name).splitlines()
    difference = "\n".join(difflib.unified_diff(golden, found, str(path_of(mesh_name).name), "now", lineterm="", n=0))
    assert not difference, f"{difference}\nWhere this is meant: python tests/test_sharding_golden.py, and commit the files"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for mesh_name in MESHES:
        path_of(mesh_name).write_text(dump(mesh_name))
        print(path_of(mesh_name))
