"""From Hugging Face: a model directory into device shards. `hf_keys` names every tensor, here and in export.py."""

import os
import re

import huggingface_hub
import jax
import numpy as np
from jax.sharding import Mesh

from alif_jax import UsageError, files
from alif_jax.files import join
from alif_jax.model import ModelConfig, Params, Skeleton
from alif_jax.safetensors import Checkpoint
from alif_jax.sharding import sharding_of

NEVER_LOADED = re.compile(r"\.rotary_emb\.inv_freq$")  # computed from the config; old checkpoints still carry it


def hf_keys(name: str, layers: int) -> list[str]:
    """The Hugging Face tensors behind one of ours: one a layer for a stacked parameter, else one.

    layers.mlp.up_proj.kernel → model.layers.0.mlp.up_proj.weight, model.layers.1.…; kernels are stored transposed there.
    """
    module = name.rsplit(".", 1)[0]
    if module == "lm_head":
        return ["lm_head.weight"]
    if module.startswith("layers."):
        return [f"model.layers.{i}.{module.removeprefix('layers.')}.weight" for i in range(layers)]
    return [f"model.{module}.weight"]


def is_transposed(name: str) -> bool:
    """Our kernels are [in, out], torch's weights [out, in]."""
    return name.endswith(".kernel")


def resolve_model(path: str) -> str:
    """A directory (local or by fsspec address) as it is; a hub id downloaded by huggingface_hub. Errors name both readings."""
    if not path:
        raise UsageError("no base model: set --config.model.path=DIR_OR_HUB_ID")
    if "://" in path or os.path.isdir(files.absolute(path)):
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise UsageError(f"{path}: neither a directory here nor a hub id of the form owner/name")
    try:
        return huggingface_hub.snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt"])
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no such directory here, and the hub did not give it ({error})") from None


def read_model_config(directory: str) -> ModelConfig:
    return ModelConfig.from_hf(files.read_json(join(directory, "config.json")))


def load_params(directory: str, model: Skeleton, names: tuple[str, ...], mesh: Mesh, config: ModelConfig) -> Params:
    """Reads the named parameters straight into their device shards, a shard at a time.

    Of a tensor only the rows of a shard are read; columns (fsdp splits the columns of most weights) are cut out of whole rows.

    Raises UsageError for a tensor that is missing, unexpected, there twice, or of another shape, naming it.
    """
    layers = config.num_hidden_layers
    base_names = [name for name in model.shapes if ".lora_" not in name]
    expected = {key: name for name in base_names for key in hf_keys(name, layers)}
    with Checkpoint(directory) as checkpoint:
        tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
        found = {key for key in checkpoint.entries if not NEVER_LOADED.search(key)} - tied
        for problem, keys in (("is missing", expected.keys() - found), ("is not of this architecture", found - expected.keys())):
            if keys:
                raise UsageError(f"{directory}: tensor {min(keys)} {problem} ({len(keys)} such in all)")
        for key, name in expected.items():
            shape = model.shapes[name].shape[1:] if name.startswith("layers.") else model.shapes[name].shape
            wanted = tuple(reversed(shape)) if is_transposed(name) else tuple(shape)
            if checkpoint.entries[key].shape != wanted:
                raise UsageError(f"{directory}: {key} has shape {checkpoint.entries[key].shape}, config.json implies {wanted}")
        return {name: _load(checkpoint, name, model, mesh, layers) for name in names}


def _load(checkpoint: Checkpoint, name: str, model: Skeleton, mesh: Mesh, layers: int) -> jax.Array:
    shape, dtype = model.shapes[name].shape, model.shapes[name].dtype
    keys, transposed, stacked = hf_keys(name, layers), is_transposed(name), name.startswith("layers.")

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        index = index or (slice(None),) * len(shape)
        layer, inner = (index[0], index[1:]) if stacked else (slice(None), index)
        stored = tuple(reversed(inner)) if transposed else inner  # the same part, in the file's own layout
        slices = []
        for key in keys[layer]:
            values = checkpoint.read(key, stored[0])[(slice(None), *stored[1:])]
            slices.append((values.T if transposed else values).astype(dtype))
        return np.stack(slices) if stacked else slices[0]

    return jax.make_array_from_callback(shape, sharding_of(mesh, model.axes[name], shape, name), part)
