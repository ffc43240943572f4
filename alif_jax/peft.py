"""PEFT adapters, out and in: `adapter_config.json` beside `adapter_model.safetensors`.

Written in the portable form: the scale is folded into B and `lora_alpha` is r, so every loader multiplies by 1. Read with
rsLoRA, alpha patterns, DoRA, `modules_to_save`: the product s·A·B is kept and our own scale taken out of B again.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

from alif_jax import UsageError, files
from alif_jax.files import join
from alif_jax.hf import cut_vocabulary, hf_keys, hf_modules, is_transposed, pad_vocabulary, vocabulary_axis
from alif_jax.lora import LoraConfig
from alif_jax.model import Skeleton, skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.safetensors import Checkpoint, Tensor

Loaders = Mapping[str, Callable[[], np.ndarray]]  # of trained parameters, padded as on the mesh

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


def in_file(name: str, layer: int, values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """One layer of a parameter as files hold it, a view: without the mesh's padding, as torch turns it."""
    one = values[layer] if name.startswith("layers.") else cut_vocabulary(name, values, config)
    return one.T if flipped(name) else one


def shape_in_file(name: str, model: Skeleton, config: ModelConfig) -> tuple[int, ...]:
    """One layer's shape of a parameter in a file; of new rows that of the table they belong to."""
    if name.endswith(".new_rows"):
        return (config.vocab_size, config.hidden_size)
    shape = list(model.shapes[name].shape)
    if (axis := vocabulary_axis(name)) is not None:
        shape[axis] = config.vocab_size
    one = tuple(shape[name.startswith("layers.") :])
    return one[::-1] if flipped(name) else one


def with_new_rows(name: str, new: np.ndarray, rows: slice, config: ModelConfig, base: Checkpoint) -> np.ndarray:
    """Rows of a table, fp32: the base's own up to the first new one, then the trained ones. name: of a `new_rows` parameter."""
    assert config.original_vocab_size is not None
    start, stop, _ = rows.indices(config.vocab_size)
    first = config.original_vocab_size
    old = base.read(hf_keys(name, 0)[0], slice(min(start, first), min(stop, first))).astype(np.float32)
    return np.concatenate([old, new[max(start - first, 0) : max(stop - first, 0)]])


def adapter_tensors(
    config: ModelConfig, lora: LoraConfig, trained: Loaders, base: Checkpoint, dtype: np.dtype[Any]
) -> dict[str, Tensor]:
    """The tensors of an adapter, the scale folded into B; of the trained parameters one is in memory at a time."""
    read = lru_cache(maxsize=1)(lambda name: trained[name]())
    model, tensors = skeleton(config, lora), {}

    def rows_of(name: str, layer: int, rows: slice) -> np.ndarray:
        if name.endswith(".new_rows"):
            return with_new_rows(name, read(name), rows, config, base).astype(dtype)
        values = in_file(name, layer, read(name), config)[rows]
        return (values * np.float32(lora.scale()) if name.endswith(".lora_B") else values).astype(dtype)

    for name in trained:
        shape = shape_in_file(name, model, config)
        for layer, key in enumerate(peft_keys(name, config.num_hidden_layers)):
            tensors[key] = Tensor(shape, dtype, partial(rows_of, name, layer))
    if _tied_table(config, lora):  # PEFT keeps a copy of the tied head and looks for its key
        tensors[f"{PREFIX}lm_head.weight"] = tensors[f"{PREFIX}model.embed_tokens.weight"]
    return tensors


def _tied_table(config: ModelConfig, lora: LoraConfig) -> bool:
    return config.tie_word_embeddings and "embed_tokens" in lora.modules_to_save


def adapter_config(config: ModelConfig, lora: LoraConfig, *, base: str, revision: str | None) -> dict[str, Any]:
    """adapter_config.json. base, revision: where PEFT finds the base (a directory or hub id) and which commit of it."""
    tied = _tied_table(config, lora)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
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


def is_adapter(directory: str) -> bool:
    return files.exists(join(directory, "adapter_config.json"))


def adapter_lora(directory: str, config: ModelConfig) -> LoraConfig:
    """What an adapter's adapter_config.json trains, as our own config says it. Raises UsageError for what cannot be said so."""
    theirs = files.read_json(join(directory, "adapter_config.json"))
    for key in ("r", "lora_alpha", "target_modules"):
        if theirs.get(key) is None:
            raise UsageError(f"{directory}: adapter_config.json has no {key}; is it a LoRA adapter as PEFT saves it?")
    if theirs.get("rank_pattern"):
        raise UsageError(f"{directory}: rank_pattern={theirs['rank_pattern']} in adapter_config.json; only one rank is served")
    targets, saved = theirs["target_modules"], theirs.get("modules_to_save") or []
    lora = LoraConfig(
        rank=theirs["r"],
        alpha=theirs["lora_alpha"],
        use_rslora=bool(theirs.get("use_rslora")),
        use_dora=bool(theirs.get("use_dora")),
        target_modules=(targets,) if isinstance(targets, str) else tuple(targets),
        modules_to_save=tuple(module for module in saved if not (config.tie_word_embeddings and module == "lm_head")),
    )
    lora.validate()
    return lora


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
        if config.tie_word_embeddings and (head := stored.pop(f"{PREFIX}lm_head.weight", None)):
            table = stored.get(f"{PREFIX}model.embed_tokens.weight")
            if table is None or not np.array_equal(checkpoint.read(head), checkpoint.read(table)):
                raise UsageError(f"{directory}: its lm_head was trained apart from the embeddings, to which this model's is tied")
        if missing := sorted(wanted - stored.keys()):
            raise UsageError(f"{directory}: the adapter has no {missing[0]} ({len(missing)} such); {_wanted(lora)}")
        if surplus := sorted(stored.keys() - wanted):
            raise UsageError(f"{directory}: the adapter also has {surplus[0]} ({len(surplus)} such); {_wanted(lora)}")
        result = {}
        for name in model.trainable:
            keys = [stored[key] for key in peft_keys(name, config.num_hidden_layers)]
            layers = [_read(checkpoint, key, name, shape_in_file(name, model, config), lora, theirs) for key in keys]
            if name.endswith(".new_rows"):
                layers = [table[config.original_vocab_size :] for table in layers]
                padding = model.shapes[name].shape[0] - len(layers[0])
                layers = [np.pad(rows, [(0, padding), (0, 0)]) for rows in layers]
            result[name] = pad_vocabulary(name, np.stack(layers) if name.startswith("layers.") else layers[0], config)
    return result


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
