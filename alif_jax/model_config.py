"""A model's architecture, every constant read from its own config.json; what is not implemented is refused by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alif_jax import UsageError

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
VOCAB_MULTIPLE = 128


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama-3.1's frequency scaling (`rope_type: llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The architecture, every constant from the model's own config.json. No defaults: a wrong constant must not hide."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tie_word_embeddings: bool
    initializer_range: float
    max_position_embeddings: int
    qkv_bias: bool  # Qwen2
    qk_norm: bool  # Qwen3
    original_vocab_size: int | None  # of a base whose vocabulary was extended: its first new row

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the tables on the mesh: so many that any usual mesh divides them. The rows beyond vocab_size are zeros."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """From the contents of a Hugging Face config.json. Raises UsageError naming a key or value not implemented."""
        family = config.get("model_type")
        if family not in FAMILIES:
            raise UsageError(f"config.json: model_type={family!r} is not implemented; implemented: {', '.join(FAMILIES)}")
        _refuse_unimplemented(config)
        needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps",
                  "max_position_embeddings")  # fmt: skip
        missing = [key for key in needed if key not in config]
        if missing:
            raise UsageError(f"config.json: key(s) missing: {', '.join(missing)}")
        heads = config["num_attention_heads"]
        theta, scaling = _rope_from_hf(config)
        return cls(
            **{key: config[key] for key in needed},
            num_key_value_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            rope_theta=theta,
            rope_scaling=scaling,
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            initializer_range=config.get("initializer_range", 0.02),
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
            original_vocab_size=config.get("original_vocab_size"),
        )


def _refuse_unimplemented(config: Mapping[str, Any]) -> None:
    """Raises UsageError for a key that would change the computation in a way that is not here."""
    fixed = {
        "hidden_act": "silu", "attention_bias": config["model_type"] == "qwen2", "mlp_bias": False, "attention_dropout": 0.0,
        "partial_rotary_factor": 1.0, "quantization_config": None,
    }  # fmt: skip
    for key, expected in fixed.items():
        if config.get(key) not in (None, expected):
            raise UsageError(f"config.json: {key}={config[key]!r} is not implemented; implemented: {expected!r}")
    # Qwen2 and Qwen3 write a window and say beside it whether it is used; Mistral uses the one it writes
    window = config.get("sliding_window") if config.get("use_sliding_window", config["model_type"] == "mistral") else None
    if window is not None and window < config.get("max_position_embeddings", 0):
        raise UsageError(f"config.json: sliding_window={window} is not implemented; implemented: full attention (null)")
    others = sorted(set(config.get("layer_types") or []) - {"full_attention"})
    if others:
        raise UsageError(f"config.json: layer_types has {others[0]!r}, which is not implemented; implemented: 'full_attention'")


def _rope_from_hf(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Rope of transformers 4.x (`rope_theta` + `rope_scaling`) or 5.x (`rope_parameters`)."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = rope.get("rope_theta", config.get("rope_theta", 10_000.0))  # Llama 2's config has none; this is what it means
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return float(theta), None
    if kind != "llama3":
        raise UsageError(f"config.json: rope_type={kind!r} is not implemented; implemented: 'default', 'llama3'")
    missing = sorted(RopeScaling.__annotations__.keys() - rope.keys())
    if missing:
        raise UsageError(f"config.json: rope_type 'llama3' needs {', '.join(missing)} too")
    return float(theta), RopeScaling(
        factor=float(rope["factor"]),
        low_freq_factor=float(rope["low_freq_factor"]),
        high_freq_factor=float(rope["high_freq_factor"]),
        original_max_position_embeddings=int(rope["original_max_position_embeddings"]),
    )
