"""The numbers of a base model without its weights: its config.json from a directory, from this table, or from the hub.

The table holds what the makers published for the bases that recipes here name, as far as this project reads it, so that a plan
needs neither a network nor an account (Meta's models are gated). Training always reads the model's own config.json.
"""

from typing import Any

import huggingface_hub

from alif_jax import UsageError, files
from alif_jax.hf import read_model_config, resolve_model
from alif_jax.model_config import ModelConfig

_LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
    "initializer_range": 0.02, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "vocab_size": 128256, "num_key_value_heads": 8,
}  # fmt: skip
_ROPE: dict[str, Any] = {
    "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip

# config.json of huggingface.co/NAME
PUBLISHED: dict[str, dict[str, Any]] = {
    "meta-llama/Llama-3.1-8B": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 131072, "tie_word_embeddings": False, "rope_scaling": _ROPE | {"factor": 8.0},
    },
    "meta-llama/Meta-Llama-3-8B": _LLAMA | {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "max_position_embeddings": 8192, "tie_word_embeddings": False, "rope_scaling": None,
    },
    "meta-llama/Llama-3.2-3B": _LLAMA | {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128,
        "max_position_embeddings": 131072, "tie_word_embeddings": True, "rope_scaling": _ROPE | {"factor": 32.0},
    },
    "Qwen/Qwen3-4B-Base": {
        "model_type": "qwen3", "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000, "rope_scaling": None, "vocab_size": 151936, "hidden_size": 2560,
        "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 32768, "use_sliding_window": False, "sliding_window": None, "tie_word_embeddings": True,
    },
}  # fmt: skip


def base_config(path: str, revision: str = "") -> tuple[ModelConfig, str]:
    """The architecture of `config.model.path`, and where it was read. Raises UsageError where it is nowhere."""
    if path in PUBLISHED and not files.exists(files.join(path, "config.json")):
        return ModelConfig.from_hf(PUBLISHED[path]), "its published config.json, kept in alif_jax/published.py"
    if "://" in path or files.exists(path) or "/" not in path:
        return read_model_config(resolve_model(path)), files.join(path, "config.json")
    try:
        found = huggingface_hub.hf_hub_download(path, "config.json", revision=revision or None)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: no such directory here, not among the bases known without a network ({', '.join(PUBLISHED)}), and the hub "
            f"did not give its config.json ({str(error).splitlines()[0]})"
        ) from None
    return ModelConfig.from_hf(files.read_json(found)), f"huggingface.co/{path}"
