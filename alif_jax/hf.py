"""From Hugging Face: a model directory into device shards. `hf_keys` names every tensor, here and in export.py."""

import os
import re
from functools import partial

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from alif_jax import UsageError, files
from alif_jax.files import join
from alif_jax.lora import quantized
from alif_jax.model import Params, Skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.safetensors import Checkpoint
from alif_jax.sharding import sharding_of

NEVER_LOADED = re.compile(r"\.rotary_emb\.inv_freq$")  # computed from the config; old checkpoints still carry it


def hf_modules(name: str, layers: int) -> list[str]:
    """The Hugging Face modules behind one of our parameters: one a layer for a stacked parameter, else one.

    layers.mlp.up_proj.kernel → model.layers.0.mlp.up_proj, model.layers.1.…
    """
    module = name.rsplit(".", 1)[0]
    if module == "lm_head":
        return ["lm_head"]
    if module.startswith("layers."):
        return [f"model.layers.{i}.{module.removeprefix('layers.')}" for i in range(layers)]
    return [f"model.{module}"]


def is_base(name: str) -> bool:
    """Whether a base model has this parameter: adapters and `new_rows` are ours alone, a scale belongs to its `kernel_qvalue`."""
    return ".lora_" not in name and not name.endswith((".new_rows", ".kernel_scale"))


def is_transposed(name: str) -> bool:
    """Our kernels are [in, out], torch's weights [out, in]."""
    return name.endswith((".kernel", ".kernel_qvalue"))


def hf_keys(name: str, layers: int) -> list[str]:
    """The tensors behind one of our base parameters: a bias is a `.bias`, everything else a `.weight`, kernels transposed."""
    leaf = "bias" if name.endswith(".bias") else "weight"
    return [f"{module}.{leaf}" for module in hf_modules(name, layers)]


def vocabulary_axis(name: str) -> int | None:
    """Which axis of a parameter is the vocabulary, padded on the mesh; None for all others."""
    return {"embed_tokens.embedding": 0, "lm_head.kernel": 1, "embed_tokens.lora_A": 0, "lm_head.lora_B": 1}.get(name)


def pad_vocabulary(name: str, values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Zeros for the rows that only fill up the mesh."""
    axis = vocabulary_axis(name)
    if axis is None:
        return values
    missing = config.padded_vocab_size - values.shape[axis]
    return np.pad(values, [(0, missing if at == axis else 0) for at in range(values.ndim)])


def cut_vocabulary(name: str, values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The parameter without the rows that only fill up the mesh."""
    axis = vocabulary_axis(name)
    return values if axis is None else values[: config.vocab_size] if axis == 0 else values[:, : config.vocab_size]


def resolve_model(path: str, *, weights: bool = True) -> str:
    """A directory (local or by fsspec address) as it is; a hub id downloaded by huggingface_hub. Errors name both readings."""
    if not path:
        raise UsageError("no base model: set --config.model.path=DIR_OR_HUB_ID")
    if "://" in path or os.path.isdir(files.absolute(path)):
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise UsageError(f"{path}: neither a directory here nor a hub id of the form owner/name")
    try:
        patterns = ["*.json", "*.jinja", "*.txt", *(["model*.safetensors"] if weights else [])]
        return huggingface_hub.snapshot_download(path, allow_patterns=patterns)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no such directory here, and the hub did not give it ({error})") from None


def read_model_config(directory: str) -> ModelConfig:
    return ModelConfig.from_hf(files.read_json(join(directory, "config.json")))


def load_params(directory: str, model: Skeleton, names: tuple[str, ...], mesh: Mesh, config: ModelConfig) -> Params:
    """Reads the named parameters straight into their device shards, a shard at a time; quantised ones are rounded there.

    Of a tensor only the rows of a shard are read; columns (fsdp splits the columns of most weights) are cut out of whole rows.
    `new_rows` of a table are the last rows of that table.

    Raises UsageError for a tensor that is missing, unexpected, there twice, or of another shape, naming it.
    """
    with Checkpoint(directory) as checkpoint:
        _check_tensors(checkpoint, directory, model, config)
        params: Params = {}
        for name in names:
            if name.endswith(".kernel_qvalue"):
                scale = name.replace("_qvalue", "_scale")
                specs = tuple(sharding_of(mesh, model.axes[n], model.shapes[n].shape, n).spec for n in (name, scale))
                how = str(model.shapes[name].dtype).replace("uint4", "nf4")
                kernel = _load(checkpoint, name, model, mesh, config, dtype=jnp.bfloat16)
                # each device its own shard: no tile crosses a border, and the partitioner would gather NF4's whole kernel
                round_off = partial(quantized, axes=model.axes[name][1:], how=how)
                params[name], params[scale] = jax.jit(
                    jax.shard_map(round_off, mesh=mesh, in_specs=specs[0], out_specs=specs, check_vma=False)
                )(kernel)
                kernel.delete()  # before the next one is read
            elif not name.endswith(".kernel_scale"):
                params[name] = _load(checkpoint, name, model, mesh, config, dtype=model.shapes[name].dtype)
        return params


def _check_tensors(checkpoint: Checkpoint, directory: str, model: Skeleton, config: ModelConfig) -> None:
    """Raises UsageError unless the files hold exactly this architecture's tensors, in its shapes."""
    layers = config.num_hidden_layers
    expected = {key: name for name in model.shapes if is_base(name) for key in hf_keys(name, layers)}
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    found = {key for key in checkpoint.entries if not NEVER_LOADED.search(key)} - tied
    for problem, keys in (("is missing", expected.keys() - found), ("is not of this architecture", found - expected.keys())):
        if keys:
            raise UsageError(f"{directory}: tensor {min(keys)} {problem} ({len(keys)} such in all)")
    for key, name in expected.items():
        shape = tuple(model.shapes[name].shape[name.startswith("layers.") :])
        wanted = shape[::-1] if is_transposed(name) else shape
        if vocabulary_axis(name) is not None:
            wanted = (config.vocab_size, *wanted[1:])
        if checkpoint.entries[key].shape != wanted:
            raise UsageError(f"{directory}: {key} has shape {checkpoint.entries[key].shape}, config.json implies {wanted}")


def _load(
    checkpoint: Checkpoint, name: str, model: Skeleton, mesh: Mesh, config: ModelConfig, *, dtype: jax.typing.DTypeLike
) -> jax.Array:
    shape = model.shapes[name].shape
    keys, transposed, stacked = hf_keys(name, config.num_hidden_layers), is_transposed(name), name.startswith("layers.")
    first = config.padded_vocab_size - shape[0] if name.endswith(".new_rows") else 0

    def read(key: str, stored: tuple[slice, ...]) -> np.ndarray:
        """A part in the file's own layout; rows beyond the file's last are the padding of the vocabulary: zeros."""
        start, stop, _ = stored[0].indices(shape[-1] if transposed else shape[int(stacked)])
        rows = checkpoint.entries[key].shape[0]
        start, stop = start + first, stop + first
        values = checkpoint.read(key, slice(min(start, rows), min(stop, rows)))[(slice(None), *stored[1:])]
        padding = stop - start - len(values)
        return np.pad(values, [(0, padding), *[(0, 0)] * (values.ndim - 1)]) if padding else values

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        index = index or (slice(None),) * len(shape)
        layer, inner = (index[0], index[1:]) if stacked else (slice(None), index)
        slices = []
        for key in keys[layer]:
            values = read(key, tuple(reversed(inner)) if transposed else inner)
            slices.append((values.T if transposed else values).astype(dtype))
        return np.stack(slices) if stacked else slices[0]

    return jax.make_array_from_callback(shape, sharding_of(mesh, model.axes[name], shape, name), part)
