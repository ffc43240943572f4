"""PEFT adapters, out and in: `adapter_config.json` beside `adapter_model.safetensors`.

Written in the portable form: the scale is folded into B and `lora_alpha` is r, so every loader multiplies by 1. Read with
rsLoRA, alpha patterns, DoRA, `modules_to_save`: the product s·A·B is kept and our own scale taken out of B again.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from alif_jax import UsageError, files
from alif_jax.files import join
from alif_jax.hf import hf_modules, is_transposed, pad_vocabulary, vocabulary_axis
from alif_jax.lora import LoraConfig
from alif_jax.model import Skeleton, skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.safetensors import Checkpoint, Tensor, write

PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva")  # those that leave the base as it was
PREFIX = "base_model.model."
LEAVES = {"lora_A": "lora_A.weight", "lora_B": "lora_B.weight", "lora_magnitude": "lora_magnitude_vector"}
EMBEDDING_LEAVES = {"lora_A": "lora_embedding_A", "lora_B": "lora_embedding_B"}


def peft_keys(name: str, layers: int) -> list[str]:
    """The tensors behind one trained parameter, one a layer for a stacked one; a table trained in full is its module's weight.

    layers.mlp.up_proj.lora_A → base_model.model.model.layers.0.mlp.up_proj.lora_A.weight, …
    """
    leaf = name.rsplit(".", 1)[1]
    suffix = (EMBEDDING_LEAVES if name.startswith("embed_tokens") else LEAVES).get(leaf, "weight")
    return [f"{PREFIX}{module}.{suffix}" for module in hf_modules(name, layers)]


def flipped(name: str) -> bool:
    """Whether PEFT keeps the transpose: of both factors everywhere, and of the head."""
    return name.endswith((".lora_A", ".lora_B")) or is_transposed(name)


def write_adapter(
    directory: str, *, config: ModelConfig, lora: LoraConfig, trained: Mapping[str, np.ndarray], base: str
) -> None:
    """Both files of an adapter. trained: as `export.exact_tables` gives it. Embeddings trained in full are `modules_to_save`."""
    fp32 = np.dtype(np.float32)
    tensors: dict[str, Tensor] = {}
    for name, values in trained.items():
        factor = np.float32(lora.scale()) if name.endswith(".lora_B") else np.float32(1)
        for layer, key in enumerate(peft_keys(name, config.num_hidden_layers)):
            one = np.asarray(values[layer] if name.startswith("layers.") else values, np.float32) * factor
            made = one.T if flipped(name) else one
            tensors[key] = Tensor(made.shape, fp32, partial(np.asarray, made))
    tied = config.tie_word_embeddings and "embed_tokens" in lora.modules_to_save
    if tied:  # PEFT keeps a copy of the tied head and looks for its key
        tensors[f"{PREFIX}lm_head.weight"] = tensors[f"{PREFIX}model.embed_tokens.weight"]
    write(join(directory, "adapter_model.safetensors"), tensors)
    adapter_config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": None,
        "inference_mode": True,
        "r": lora.rank,
        "lora_alpha": lora.rank,
        "lora_dropout": lora.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": lora.use_dora,
        "init_lora_weights": True,
        "target_modules": sorted(lora.targets()),
        "modules_to_save": sorted({*lora.modules_to_save, *(("lm_head",) if tied else ())}) or None,
        "ensure_weight_tying": tied,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    files.write_json(join(directory, "adapter_config.json"), adapter_config)


def is_adapter(directory: str) -> bool:
    return files.exists(join(directory, "adapter_config.json"))


def read_adapter(directory: str, lora: LoraConfig, config: ModelConfig) -> dict[str, np.ndarray]:
    """The adapter's trained parameters under our names, stacked and padded, for a run with this LoRA config.

    The product is kept and our scale restored, B ← B·s_file/s_config: with the file's own B the same learning rate would move
    the weights less. Of a table whose new rows alone are trained, the other rows in the file are left aside. Raises UsageError
    where targets, rank, DoRA, `modules_to_save` or a shape are not the run's, or what came is nothing that this project trains.
    """
    theirs = files.read_json(join(directory, "adapter_config.json"))
    for key, expected in (("peft_type", "LORA"), ("bias", "none"), ("fan_in_fan_out", False), ("layers_to_transform", None)):
        if theirs.get(key, expected) != expected:
            raise UsageError(f"{directory}: {key}={theirs[key]!r} in adapter_config.json; only {expected!r} can be continued")
    if theirs.get("init_lora_weights", True) not in PLAIN_INITS:
        raise UsageError(
            f"{directory}: init_lora_weights={theirs['init_lora_weights']!r} changed the base that this adapter belongs to; "
            "convert it to a plain LoRA first (PEFT: path_initial_model_for_weight_conversion)"
        )
    if bool(theirs.get("use_dora")) != lora.use_dora:
        raise UsageError(f"{directory}: use_dora={bool(theirs.get('use_dora'))} there, lora.use_dora={lora.use_dora} here")
    model = skeleton(config, lora)
    with Checkpoint(directory, "adapter_model") as checkpoint:
        stored = {
            key.replace(".default", "").replace(".modules_to_save", ""): key
            for key in checkpoint.entries
            if ".base_layer." not in key  # PEFT copies the table under an adapter on it
        }
        wanted = {key for name in model.trainable for key in peft_keys(name, config.num_hidden_layers)}
        if config.tie_word_embeddings:
            stored.pop(f"{PREFIX}lm_head.weight", None)  # a copy of the embeddings
        if missing := sorted(wanted - stored.keys()):
            raise UsageError(f"{directory}: the adapter has no {missing[0]} ({len(missing)} such); {_wanted(lora)}")
        if surplus := sorted(stored.keys() - wanted):
            raise UsageError(f"{directory}: the adapter also has {surplus[0]} ({len(surplus)} such); {_wanted(lora)}")
        result = {}
        for name in model.trainable:
            keys = [stored[key] for key in peft_keys(name, config.num_hidden_layers)]
            layers = [_read(checkpoint, key, name, _stored_shape(name, model, config), lora, theirs) for key in keys]
            if name.endswith(".new_rows"):
                layers = [table[config.original_vocab_size :] for table in layers]
                padding = model.shapes[name].shape[0] - len(layers[0])
                layers = [np.pad(rows, [(0, padding), (0, 0)]) for rows in layers]
            result[name] = pad_vocabulary(name, np.stack(layers) if name.startswith("layers.") else layers[0], config)
    return result


def _stored_shape(name: str, model: Skeleton, config: ModelConfig) -> tuple[int, ...]:
    """One layer's shape of a trained parameter in the file."""
    if name.endswith(".new_rows"):
        return (config.vocab_size, config.hidden_size)
    shape = list(model.shapes[name].shape)
    if (axis := vocabulary_axis(name)) is not None:
        shape[axis] = config.vocab_size
    one = tuple(shape[name.startswith("layers.") :])
    return one[::-1] if flipped(name) else one


def _wanted(lora: LoraConfig) -> str:
    return f"this run has target_modules={','.join(lora.targets())}, modules_to_save={','.join(lora.modules_to_save) or '()'}"


def _read(
    checkpoint: Checkpoint, key: str, name: str, shape: tuple[int, ...], lora: LoraConfig, theirs: Mapping[str, Any]
) -> np.ndarray:
    """One layer's values in our orientation."""
    found = checkpoint.entries[key].shape
    if found != shape:
        raise UsageError(
            f"{checkpoint.directory}: {key} has shape {found}, {shape} expected for this base and lora.rank={lora.rank}; continue "
            "with the same base and rank"
        )
    values = checkpoint.read(key).astype(np.float32)
    if name.endswith(".lora_B"):
        values *= _scale(key, lora.rank, theirs) / lora.scale()
    return values.T if flipped(name) else values


def _scale(key: str, rank: int, theirs: Mapping[str, Any]) -> float:
    """The factor with which PEFT multiplies this module's product; a pattern matches the end of the module's path."""
    module = key.split(".lora_")[0].removeprefix(PREFIX)
    patterns = theirs.get("alpha_pattern") or {}
    matching = [alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", module)]
    alpha = matching[0] if matching else theirs["lora_alpha"]
    return float(alpha) / (math.sqrt(rank) if theirs.get("use_rslora") else rank)
