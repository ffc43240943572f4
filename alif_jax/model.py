"""The Llama family: one forward pass for training, evaluation and cached decoding.

Not here: the loss (loss.py), the attention kernels (attention.py), the LoRA arithmetic (lora.py).
`B` batch, `L` query length, `S` key length, `D` model dim, `N` query heads, `K` key/value heads, `H` head dim, `F` ffn dim,
`V` vocabulary. Parameters of all layers are stacked on a leading axis and scanned. Flat names follow Hugging Face:
`layers.self_attn.q_proj.kernel` is every `model.layers.{i}.self_attn.q_proj.weight`, transposed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from alif_jax import UsageError
from alif_jax.attention import attend
from alif_jax.lora import Frozen, Linear, LoraConfig, Trainable, variable
from alif_jax.sharding import Axes, constrain, sharding_of

Params = dict[str, Array]
KeysValues = tuple[Array, Array]  # of one layer's cache: [B, S, K, H] each
Cache = dict[str, Array]  # k, v: [layers, B, S, K, H]; positions, segments: [B, S]


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

    @classmethod
    def from_hf(cls, config: Mapping[str, Any]) -> "ModelConfig":
        """From the contents of a Hugging Face config.json. Raises UsageError naming a key or value not implemented."""
        family = config.get("model_type")
        if family != "llama":
            raise UsageError(f"config.json: model_type={family!r} is not implemented; implemented: 'llama'")
        for key, expected in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
            if config.get(key, expected) != expected:
                raise UsageError(f"config.json: {key}={config[key]!r} is not implemented; implemented: {expected!r}")
        needed = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps")
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
        )


def _rope_from_hf(config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Rope of transformers 4.x (`rope_theta` + `rope_scaling`) or 5.x (`rope_parameters`)."""
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    theta = rope.get("rope_theta", config.get("rope_theta"))
    if theta is None:
        raise UsageError("config.json: neither rope_theta nor rope_parameters.rope_theta is there")
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


def rope_frequencies(config: ModelConfig) -> np.ndarray:
    """Angular frequencies [H/2], radians a position; low ones divided by `factor` as Llama 3.1 does (arXiv 2407.21783)."""
    # fp32 in transformers' own order of operations: a frequency off by 3 ulp is off by 1e-4 in the logits at position 4,500
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    frequencies = np.float32(1) / np.float32(config.rope_theta) ** exponents
    scaling = config.rope_scaling
    if scaling is None:
        return frequencies
    wavelengths = 2 * math.pi / frequencies
    rotations = scaling.original_max_position_embeddings / wavelengths  # over the original context
    smooth = (rotations - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * frequencies / scaling.factor + smooth * frequencies).astype(np.float32)


def rotate(x_BLNH: Float[Array, "B L N H"], angles_BLh: Float[Array, "B L h"]) -> Float[Array, "B L N H"]:
    """RoPE in Hugging Face's half-split order, computed in fp32."""
    first, second = jnp.split(x_BLNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angles_BLh)[:, :, None], jnp.sin(angles_BLh)[:, :, None]
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BLNH.dtype)


@dataclass(frozen=True, kw_only=True)
class Build:
    """What every module needs to make its parameters."""

    config: ModelConfig
    lora: LoraConfig
    param_dtype: Any

    def linear(self, module: str, shape: tuple[int, int], axes: tuple[str, str], key: jax.Array) -> Linear:
        return Linear(
            module, shape, axes, layers=self.config.num_hidden_layers, lora=self.lora,
            stddev=self.config.initializer_range, param_dtype=self.param_dtype, key=key,
        )  # fmt: skip


class RMSNorm(nnx.Module):
    def __init__(self, build: Build, *, stacked: bool):
        c = build.config
        shape, axes = ((c.num_hidden_layers, c.hidden_size), ("layers", None)) if stacked else ((c.hidden_size,), (None,))
        self.scale = variable(jnp.ones(shape), axes, trained=build.lora.full, param_dtype=build.param_dtype)
        self.eps = c.rms_norm_eps

    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return x32.astype(x.dtype) * self.scale[...].astype(x.dtype)


class Attention(nnx.Module):
    def __init__(self, build: Build, key: jax.Array):
        c = build.config
        D, N, K, H = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim
        q, k, v, o = jax.random.split(key, 4)
        self.q_proj = build.linear("q_proj", (D, N * H), ("embed", "heads"), q)
        self.k_proj = build.linear("k_proj", (D, K * H), ("embed", "kv_heads"), k)
        self.v_proj = build.linear("v_proj", (D, K * H), ("embed", "kv_heads"), v)
        self.o_proj = build.linear("o_proj", (N * H, D), ("heads", "embed"), o)
        self.head_dim = H

    def __call__(
        self, x_BLD: Array, angles_BLh: Array, where: Mapping[str, Array], kv: KeysValues | None, backend: str
    ) -> tuple[Array, KeysValues | None]:
        """where: positions and segments of queries and keys, and with a cache the `index` of the slot to write at."""
        def heads(projection: Linear, axis: str) -> Array:
            y = projection(x_BLD).reshape(*x_BLD.shape[:2], -1, self.head_dim)
            return constrain(y, "batch", "length", axis, None)

        q_BLNH = rotate(heads(self.q_proj, "heads"), angles_BLh)
        k_BSKH = rotate(heads(self.k_proj, "kv_heads"), angles_BLh)
        v_BSKH = heads(self.v_proj, "kv_heads")
        if kv is not None:
            start = (0, where["index"], 0, 0)
            k_BSKH = jax.lax.dynamic_update_slice(kv[0], k_BSKH.astype(kv[0].dtype), start)
            v_BSKH = jax.lax.dynamic_update_slice(kv[1], v_BSKH.astype(kv[1].dtype), start)
            kv = (k_BSKH, v_BSKH)
        out_BLNH = attend(
            q_BLNH, k_BSKH.astype(q_BLNH.dtype), v_BSKH.astype(q_BLNH.dtype), backend=backend,
            q_positions_BT=where["q_positions"], q_segments_BT=where["q_segments"],
            kv_positions_BS=where["kv_positions"], kv_segments_BS=where["kv_segments"],
        )  # fmt: skip
        return self.o_proj(out_BLNH.reshape(*x_BLD.shape[:2], -1)), kv


class MLP(nnx.Module):
    def __init__(self, build: Build, key: jax.Array):
        D, F = build.config.hidden_size, build.config.intermediate_size
        gate, up, down = jax.random.split(key, 3)
        self.gate_proj = build.linear("gate_proj", (D, F), ("embed", "mlp"), gate)
        self.up_proj = build.linear("up_proj", (D, F), ("embed", "mlp"), up)
        self.down_proj = build.linear("down_proj", (F, D), ("mlp", "embed"), down)

    def __call__(self, x_BLD: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        hidden_BLF = jax.nn.silu(self.gate_proj(x_BLD)) * self.up_proj(x_BLD)
        return self.down_proj(constrain(hidden_BLF, "batch", "length", "mlp"))


class Block(nnx.Module):
    """All layers' parameters, stacked; called on one layer's slice."""

    def __init__(self, build: Build, key: jax.Array):
        attention, mlp = jax.random.split(key)
        self.input_layernorm = RMSNorm(build, stacked=True)
        self.self_attn = Attention(build, attention)
        self.post_attention_layernorm = RMSNorm(build, stacked=True)
        self.mlp = MLP(build, mlp)

    def __call__(
        self, x_BLD: Array, angles_BLh: Array, where: Mapping[str, Array], kv: KeysValues | None, backend: str
    ) -> tuple[Array, KeysValues | None]:
        attended_BLD, kv = self.self_attn(self.input_layernorm(x_BLD), angles_BLh, where, kv, backend)
        x_BLD = constrain(x_BLD + attended_BLD, "batch", "length", None)
        x_BLD = x_BLD + self.mlp(self.post_attention_layernorm(x_BLD))
        return constrain(x_BLD, "batch", "length", None), kv


class Embedding(nnx.Module):
    def __init__(self, build: Build, key: jax.Array):
        c = build.config
        table_VD = jax.random.normal(key, (c.vocab_size, c.hidden_size)) * c.initializer_range
        trained = build.lora.trains("embed_tokens")
        self.embedding = variable(table_VD, ("vocab", "embed"), trained=trained, param_dtype=build.param_dtype)


class Head(nnx.Module):
    def __init__(self, build: Build, key: jax.Array):
        c = build.config
        kernel_DV = jax.random.normal(key, (c.hidden_size, c.vocab_size)) * c.initializer_range
        trained = build.lora.trains("lm_head")
        self.kernel = variable(kernel_DV, ("embed", "vocab"), trained=trained, param_dtype=build.param_dtype)


class Llama(nnx.Module):
    """Tokens → final hidden states; `logits` applies the head to any part of them.

    dtype: of the computation (activations); frozen parameters are held in `param_dtype`, trained ones in fp32.
    remat: `full` recomputes each layer in the backward pass and keeps only its input, `none` keeps everything.
    """

    def __init__(
        self,
        config: ModelConfig,
        lora: LoraConfig,
        key: jax.Array,
        *,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
        remat: str = "none",
        attention: str = "xla",
    ):
        if config.tie_word_embeddings and "lm_head" in lora.modules_to_save and not lora.full:
            raise UsageError("lora.modules_to_save: this model's head is tied to its embeddings; list embed_tokens alone")
        if remat not in ("none", "full"):
            raise UsageError(f"remat={remat!r} is not one of none, full")
        build = Build(config=config, lora=lora, param_dtype=param_dtype)
        embed, layers, head = jax.random.split(key, 3)
        self.config, self.dtype, self.remat, self.attention = config, dtype, remat, attention
        self.embed_tokens = Embedding(build, embed)
        self.layers = Block(build, layers)
        self.norm = RMSNorm(build, stacked=False)
        if not config.tie_word_embeddings:
            self.lm_head = Head(build, head)

    def __call__(
        self,
        tokens_BL: Int[Array, "B L"],
        *,
        positions_BL: Int[Array, "B L"],
        segment_ids_BL: Int[Array, "B L"],
        cache: Cache | None = None,
        cache_index: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, "B L D"], Cache | None]:
        """Hidden states after the final norm, and the cache with these tokens written at slots cache_index … + L."""
        x_BLD = jnp.take(self.embed_tokens.embedding[...], tokens_BL, axis=0).astype(self.dtype)
        x_BLD = constrain(x_BLD, "batch", "length", None)
        angles_BLh = positions_BL[..., None].astype(jnp.float32) * rope_frequencies(self.config)
        where = {"q_positions": positions_BL, "q_segments": segment_ids_BL}
        kv = None
        if cache is None:
            where |= {"kv_positions": positions_BL, "kv_segments": segment_ids_BL}
        else:
            where["kv_positions"] = jax.lax.dynamic_update_slice(cache["positions"], positions_BL, (0, cache_index))
            where["kv_segments"] = jax.lax.dynamic_update_slice(cache["segments"], segment_ids_BL, (0, cache_index))
            where["index"] = jnp.asarray(cache_index)
            kv = (cache["k"], cache["v"])
        graphdef, stacked = nnx.split(self.layers)

        def layer(x: Array, slices: Any) -> tuple[Array, Any]:
            state, kv = slices
            return nnx.merge(graphdef, state)(x, angles_BLh, where, kv, self.attention)

        body = jax.checkpoint(layer) if self.remat == "full" else layer
        x_BLD, kv = jax.lax.scan(body, x_BLD, (stacked, kv))
        if cache is not None and kv is not None:
            cache = {"k": kv[0], "v": kv[1], "positions": where["kv_positions"], "segments": where["kv_segments"]}
        return self.norm(x_BLD), cache

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """fp32 logits of hidden states."""
        if self.config.tie_word_embeddings:
            kernel_DV = self.embed_tokens.embedding[...].T
        else:
            kernel_DV = self.lm_head.kernel[...]
        return jnp.matmul(hidden, kernel_DV.astype(hidden.dtype), preferred_element_type=jnp.float32)


def empty_cache(config: ModelConfig, batch: int, length: int, dtype: Any) -> Cache:
    """A key/value cache of `length` slots a row; slots are padding (segment 0) until written."""
    shape = (config.num_hidden_layers, batch, length, config.num_key_value_heads, config.head_dim)
    where = jnp.zeros((batch, length), jnp.int32)
    return {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype), "positions": where, "segments": where}


# --- between the module and flat trees: {"layers.mlp.up_proj.kernel": array}


@dataclass(frozen=True, kw_only=True, eq=False)  # compared by identity: a static argument of jit
class Skeleton:
    """A model without its arrays: how to put it together, and shape, dtype, axes and kind of every parameter."""

    graphdef: nnx.GraphDef[Llama]
    shapes: dict[str, jax.ShapeDtypeStruct]
    axes: dict[str, Axes]
    trainable: tuple[str, ...]
    frozen: tuple[str, ...]

    def abstract(self, mesh: Mesh, names: tuple[str, ...]) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape, dtype and sharding of the named parameters on a mesh. Raises UsageError where it does not divide one."""
        shapes = {name: self.shapes[name] for name in names}
        return {
            name: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding_of(mesh, self.axes[name], s.shape, name))
            for name, s in shapes.items()
        }

    def model(self, params: Mapping[str, Array]) -> Llama:
        """The module with these parameters (all of them, trainable and frozen)."""
        state: dict[tuple[Any, ...], Any] = {}
        for name, array in params.items():
            kind = Trainable if name in self.trainable else Frozen
            state[tuple(name.split("."))] = kind(array, axes=self.axes[name])
        return nnx.merge(self.graphdef, nnx.from_flat_state(state))


def _flat(model: Llama) -> dict[str, nnx.Variable]:
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(nnx.state(model))}


def skeleton(config: ModelConfig, lora: LoraConfig, **kwargs: Any) -> Skeleton:
    """The shape of `Llama(config, lora, key, **kwargs)`; allocates nothing."""
    abstract = nnx.eval_shape(lambda: Llama(config, lora, jax.random.key(0), **kwargs))
    leaves = _flat(abstract)
    return Skeleton(
        graphdef=nnx.graphdef(abstract),
        shapes={name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves.items()},
        axes={name: leaf.get_metadata()["axes"] for name, leaf in leaves.items()},
        trainable=tuple(name for name, leaf in leaves.items() if isinstance(leaf, Trainable)),
        frozen=tuple(name for name, leaf in leaves.items() if isinstance(leaf, Frozen)),
    )


def random_params(config: ModelConfig, lora: LoraConfig, key: jax.Array, names: tuple[str, ...], **kwargs: Any) -> Params:
    """Freshly initialised values of the named parameters. Jit it with out_shardings, and they are born sharded."""
    leaves = _flat(Llama(config, lora, key, **kwargs))
    return {name: leaves[name][...] for name in names}
