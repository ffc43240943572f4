"""The Llama family (Llama 2 and 3, Mistral, Qwen2, Qwen3): one forward pass for training, evaluation and cached decoding.

Not here: the loss (loss.py), the attention kernels (attention.py), the LoRA arithmetic (lora.py).
`B` batch, `L` query length, `S` key length, `D` model dim, `N` query heads, `K` key/value heads, `H` head dim, `F` ffn dim,
`V` vocabulary. Parameters of all layers are stacked on a leading axis and scanned. Flat names follow Hugging Face:
`layers.self_attn.q_proj.kernel` is every `model.layers.{i}.self_attn.q_proj.weight`, transposed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from alif_jax import UsageError
from alif_jax.attention import attend, attend_slots
from alif_jax.lora import EMBEDDINGS, QUANTIZATIONS, Frozen, Linear, LoraConfig, Trainable, matches, times_turned, variable
from alif_jax.loss import Head
from alif_jax.model_config import ModelConfig
from alif_jax.sharding import Axes, constrain, sharding_of

Params = dict[str, Array]
KeysValues = tuple[Array, Array]  # of a cache: [layers, B, S, K, H] each
# What a layer's forward pass may keep for the backward pass, in the order it is made: `checkpoint_name`s.
TENSORS = ("q_proj", "k_proj", "v_proj", "attention", "o_proj", "gate_proj", "up_proj", "down_proj")
CPU_CACHE = 32 * 2**20  # bytes of weights that a CPU's cache will hold
Cache = dict[str, Array]  # k, v: [layers, B, S, K, H]; positions, segments: [B, S], not there where slot p holds position p


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


Turns = tuple[Float[Array, "B L h"], Float[Array, "B L h"]]  # cosine and sine of each position's angles


def rotate(x_BLNH: Float[Array, "B L N H"], turns: Turns) -> Float[Array, "B L N H"]:
    """RoPE in Hugging Face's half-split order, computed in fp32."""
    first, second = jnp.split(x_BLNH.astype(jnp.float32), 2, axis=-1)
    cos, sin = (turn_BLh[:, :, None] for turn_BLh in turns)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x_BLNH.dtype)


@dataclass(frozen=True, kw_only=True)
class Build:
    """What every module needs to make its parameters."""

    config: ModelConfig
    lora: LoraConfig
    param_dtype: Any
    quantization: str

    def linear(self, module: str, shape: tuple[int, int], axes: tuple[str, str], key: jax.Array, *, bias: bool = False) -> Linear:
        return Linear(
            module, shape, axes, layers=self.config.num_hidden_layers, lora=self.lora, stddev=self.config.initializer_range,
            param_dtype=self.param_dtype, key=key, bias=bias, quantization=self.quantization,
        )  # fmt: skip


class RMSNorm(nnx.Module):
    def __init__(self, build: Build, size: int, *, stacked: bool):
        shape, axes = ((build.config.num_hidden_layers, size), ("layers", None)) if stacked else ((size,), (None,))
        self.scale = variable(jnp.ones(shape), axes, trained=build.lora.full, param_dtype=build.param_dtype)
        self.eps = build.config.rms_norm_eps

    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        x32 = x.astype(jnp.float32)
        x32 *= jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        return x32.astype(x.dtype) * self.scale[...].astype(x.dtype)


class Attention(nnx.Module):
    def __init__(self, build: Build, key: jax.Array):
        c = build.config
        D, N, K, H = c.hidden_size, c.num_attention_heads, c.num_key_value_heads, c.head_dim
        q, k, v, o = jax.random.split(key, 4)
        self.q_proj = build.linear("q_proj", (D, N * H), ("embed", "heads"), q, bias=c.qkv_bias)
        self.k_proj = build.linear("k_proj", (D, K * H), ("embed", "kv_heads"), k, bias=c.qkv_bias)
        self.v_proj = build.linear("v_proj", (D, K * H), ("embed", "kv_heads"), v, bias=c.qkv_bias)
        self.o_proj = build.linear("o_proj", (N * H, D), ("heads", "embed"), o)
        self.qk_norm = c.qk_norm
        if c.qk_norm:  # over each head's H
            self.q_norm = RMSNorm(build, H, stacked=True)
            self.k_norm = RMSNorm(build, H, stacked=True)
        self.head_dim = H

    def __call__(
        self, x_BLD: Array, turns: Turns, where: Mapping[str, Array], kv: KeysValues | None, backend: str
    ) -> tuple[Array, KeysValues | None]:
        """where: positions and segments of queries and keys; with a cache the `layer` of it and the `index` of the slot to write
        at; with dropout the layer's `dropout_key`."""
        q_key, k_key, v_key, o_key = _dropout_keys(where, "attention", 4)

        def heads(projection: Linear, axis: str, key: Array | None) -> Array:
            y = projection(x_BLD, key).reshape(*x_BLD.shape[:2], -1, self.head_dim)
            return constrain(y, "batch", "length", axis, None)

        q_BLNH, k_BSKH = heads(self.q_proj, "heads", q_key), heads(self.k_proj, "kv_heads", k_key)
        if self.qk_norm:
            q_BLNH, k_BSKH = self.q_norm(q_BLNH), self.k_norm(k_BSKH)
        q_BLNH = checkpoint_name(rotate(q_BLNH, turns), "q_proj")
        k_BSKH = checkpoint_name(rotate(k_BSKH, turns), "k_proj")
        v_BSKH = checkpoint_name(heads(self.v_proj, "kv_heads", v_key), "v_proj")
        if kv is not None:
            kv = (written(kv[0], k_BSKH, where), written(kv[1], v_BSKH, where))
        if kv is not None and backend == "slots":
            out_BLNH = attend_slots(q_BLNH, *kv, layer=where["layer"], q_positions_BT=where["q_positions"])
        else:
            if kv is not None:
                k_BSKH, v_BSKH = (jax.lax.dynamic_index_in_dim(layers, where["layer"], keepdims=False) for layers in kv)
            out_BLNH = attend(
                q_BLNH, k_BSKH.astype(q_BLNH.dtype), v_BSKH.astype(q_BLNH.dtype), backend="xla" if kv is not None else backend,
                q_positions_BT=where["q_positions"], q_segments_BT=where["q_segments"],
                kv_positions_BS=where["kv_positions"], kv_segments_BS=where["kv_segments"],
            )  # fmt: skip
        return checkpoint_name(self.o_proj(out_BLNH.reshape(*x_BLD.shape[:2], -1), o_key), "o_proj"), kv


def written(layers: Array, new_BLKH: Float[Array, "B L K H"], where: Mapping[str, Array]) -> Array:
    """A cache's keys or values [layers, B, S, K, H] with new ones of `layer` at slots index … + L; `index` of all rows, or [B]."""
    new_BLKH, index = new_BLKH.astype(layers.dtype), where["index"]
    if index.ndim == 0:
        return jax.lax.dynamic_update_slice(layers, new_BLKH[None], (where["layer"], 0, index, 0, 0))
    rows_B1 = jnp.arange(new_BLKH.shape[0])[:, None]
    return layers.at[where["layer"], rows_B1, index[:, None] + jnp.arange(new_BLKH.shape[1])].set(new_BLKH)


def _dropout_keys(where: Mapping[str, Array], part: str, count: int) -> Sequence[Array | None]:
    """A key for each projection of a layer's `attention` or `mlp`; None each where dropout is off."""
    if "dropout_key" not in where:
        return [None] * count
    return list(jax.random.split(jax.random.fold_in(where["dropout_key"], part == "mlp"), count))


class MLP(nnx.Module):
    def __init__(self, build: Build, key: jax.Array):
        D, F = build.config.hidden_size, build.config.intermediate_size
        gate, up, down = jax.random.split(key, 3)
        self.gate_proj = build.linear("gate_proj", (D, F), ("embed", "mlp"), gate)
        self.up_proj = build.linear("up_proj", (D, F), ("embed", "mlp"), up)
        self.down_proj = build.linear("down_proj", (F, D), ("mlp", "embed"), down)

    def __call__(self, x_BLD: Float[Array, "B L D"], where: Mapping[str, Array]) -> Float[Array, "B L D"]:
        gate_key, up_key, down_key = _dropout_keys(where, "mlp", 3)
        gate_BLF = checkpoint_name(self.gate_proj(x_BLD, gate_key), "gate_proj")
        up_BLF = checkpoint_name(self.up_proj(x_BLD, up_key), "up_proj")
        hidden_BLF = constrain(jax.nn.silu(gate_BLF) * up_BLF, "batch", "length", "mlp")
        return checkpoint_name(self.down_proj(hidden_BLF, down_key), "down_proj")


class Block(nnx.Module):
    """All layers' parameters, stacked; called on one layer's slice."""

    def __init__(self, build: Build, key: jax.Array):
        attention, mlp = jax.random.split(key)
        self.input_layernorm = RMSNorm(build, build.config.hidden_size, stacked=True)
        self.self_attn = Attention(build, attention)
        self.post_attention_layernorm = RMSNorm(build, build.config.hidden_size, stacked=True)
        self.mlp = MLP(build, mlp)

    def __call__(
        self, x_BLD: Array, turns: Turns, where: Mapping[str, Array], kv: KeysValues | None, backend: str
    ) -> tuple[Array, KeysValues | None]:
        attended_BLD, kv = self.self_attn(self.input_layernorm(x_BLD), turns, where, kv, backend)
        x_BLD = constrain(x_BLD + attended_BLD, "batch", "length", None)
        x_BLD = x_BLD + self.mlp(self.post_attention_layernorm(x_BLD), where)
        return constrain(x_BLD, "batch", "length", None), kv


class Table(nnx.Module):
    """Embedding table or head, with all that may be trained of it: the whole, its new rows, or an adapter.

    `embedding` [Vp, D] or `kernel` [D, Vp]; `new_rows` [Vp - first new row, D] take the place of the last rows;
    an adapter is lora_A · lora_B of the same orientation. Vp: `padded_vocab_size`.
    """

    def __init__(self, build: Build, module: str, key: jax.Array):
        c, lora = build.config, build.lora
        self.is_head = module == "lm_head"
        V, D, R = c.padded_vocab_size, c.hidden_size, lora.rank
        weight_key, adapter_key = jax.random.split(key)
        rows_VD = jax.random.normal(weight_key, (V, D)) * c.initializer_range * (jnp.arange(V) < c.vocab_size)[:, None]
        trained = lora.trains(module)
        if self.is_head:
            self.kernel = variable(rows_VD.T, ("embed", "vocab"), trained=trained, param_dtype=build.param_dtype)
        else:
            self.embedding = variable(rows_VD, ("vocab", "embed"), trained=trained, param_dtype=build.param_dtype)
        self.turned = False
        self.first_new_row = c.original_vocab_size if lora.trains_new_rows(module) else None
        if self.first_new_row is not None:
            self.new_rows = Trainable(rows_VD[self.first_new_row :], axes=(None, "embed"))
        self.scale = lora.scale() if lora.adapts(module) else None
        if self.scale is not None:  # one of the two is 0: a fresh adapter changes nothing
            if self.is_head:
                bound = 1 / math.sqrt(D)
                a = jax.random.uniform(adapter_key, (D, R), minval=-bound, maxval=bound)
                self.lora_A = Trainable(a, axes=("embed", "rank"))
                self.lora_B = Trainable(jnp.zeros((R, V)), axes=("rank", "vocab"))
            else:  # as PEFT: A = 0, B from a unit normal
                self.lora_A = Trainable(jnp.zeros((V, R)), axes=("vocab", "rank"))
                self.lora_B = Trainable(jax.random.normal(adapter_key, (R, D)), axes=("rank", "embed"))

    def look_up(self, tokens_BL: Int[Array, "B L"], dtype: Any) -> Float[Array, "B L D"]:
        # Each device looks up its columns for all rows, then columns are exchanged, first for tokens of a row, then for rows (both
        # at once, XLA gathers the whole): the table is never gathered.
        tokens_BL = constrain(tokens_BL, "copies", None)
        x_BLD = constrain(jnp.take(self.embedding[...], tokens_BL, axis=0).astype(dtype), "copies", None, "embed")
        x_BLD = constrain(x_BLD, "copies", "length", "columns")
        if self.first_new_row is not None:
            at_BL = tokens_BL - self.first_new_row
            new_BLD = jnp.take(self.new_rows[...], at_BL, axis=0, mode="clip").astype(dtype)
            x_BLD = jnp.where((at_BL >= 0)[..., None], new_BLD, x_BLD)
        if self.scale is None:
            return x_BLD
        return x_BLD + self.scale * (jnp.take(self.lora_A[...], tokens_BL, axis=0).astype(dtype) @ self.lora_B[...].astype(dtype))

    def turn(self) -> None:
        """From here on a head's kernel is held as [Vp, D], as an embedding table is, and multiplied as is best for a few rows."""
        self.turned = True
        if self.is_head:
            self.kernel = self.kernel.replace(self.kernel[...].T)

    def project(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """fp32 logits over the padded vocabulary. Of an embedding table: its transpose (a tied head)."""
        product = partial(jnp.matmul, preferred_element_type=jnp.float32)
        kernel = self.kernel[...] if self.is_head else self.embedding[...]
        if self.turned:
            logits = times_turned(hidden, kernel, jnp.float32)
        else:
            logits = product(hidden, (kernel if self.is_head else kernel.T).astype(hidden.dtype))
        if self.first_new_row is not None:
            new = product(hidden, self.new_rows[...].astype(hidden.dtype).T)
            logits = jnp.concatenate([logits[..., : self.first_new_row], new], axis=-1)
        if self.is_head and self.scale is not None:
            low_rank = self.scale * (hidden @ self.lora_A[...].astype(hidden.dtype))
            logits += product(low_rank, self.lora_B[...].astype(hidden.dtype))
        return logits


class Llama(nnx.Module):
    """Tokens → final hidden states; `logits` applies the head to any part of them.

    dtype: of the computation (activations); frozen parameters are held in `param_dtype`, trained ones in fp32.
    remat, remat_offload: see `rematerialised`.
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
        remat_offload: bool = False,
        attention: str = "xla",
        quantization: str = "",
    ):
        _check_trained(config, lora, quantization)
        check_remat(remat, remat_offload)
        build = Build(config=config, lora=lora, param_dtype=param_dtype, quantization=quantization)
        embed, layers, head = jax.random.split(key, 3)
        self.config, self.dtype, self.attention = config, dtype, attention
        self.remat, self.remat_offload = remat, remat_offload
        self.embed_tokens = Table(build, "embed_tokens", embed)
        self.layers = Block(build, layers)
        self.apart: nnx.List[Block] | None = nnx.data(None)  # the same layers one by one: `unstacked`
        self.norm = RMSNorm(build, config.hidden_size, stacked=False)
        if not config.tie_word_embeddings:
            self.lm_head = Table(build, "lm_head", head)

    def __call__(
        self,
        tokens_BL: Int[Array, "B L"],
        *,
        positions_BL: Int[Array, "B L"],
        segment_ids_BL: Int[Array, "B L"],
        cache: Cache | None = None,
        cache_index: Int[Array, "*rows"] | int = 0,
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "B L D"], Cache | None]:
        """Hidden states after the final norm, and the cache with these tokens written at slots cache_index … + L.

        cache_index: of all rows, or one a row [B]. A cache without `positions` and `segments` holds a row's position p in its
        slot p and no second segment; what stands in later slots is never seen. There a row at position -1 sees nothing.
        dropout_key: of the adapters' dropout; None switches it off.
        """
        x_BLD = constrain(self.embed_tokens.look_up(tokens_BL, self.dtype), "batch", "length", None)
        angles_BLh = positions_BL[..., None].astype(jnp.float32) * rope_frequencies(self.config)
        turns = (jnp.cos(angles_BLh), jnp.sin(angles_BLh))
        if self.apart is not None:  # or XLA makes them again in each layer, which takes a fifth of a small model's step
            turns = jax.lax.optimization_barrier(turns)
        where = {"q_positions": positions_BL, "q_segments": segment_ids_BL}
        kv, backend = None, self.attention
        if cache is None:
            where |= {"kv_positions": positions_BL, "kv_segments": segment_ids_BL}
        else:
            kv, where["index"] = (cache["k"], cache["v"]), jnp.asarray(cache_index)
            if "positions" in cache:
                where["kv_positions"] = jax.lax.dynamic_update_slice(cache["positions"], positions_BL, (0, cache_index))
                where["kv_segments"] = jax.lax.dynamic_update_slice(cache["segments"], segment_ids_BL, (0, cache_index))
            elif self.apart is None:
                rows_slots = cache["k"].shape[1:3]
                where["kv_positions"] = jnp.broadcast_to(jnp.arange(rows_slots[1]), rows_slots)
                where["kv_segments"] = jnp.ones(rows_slots, jnp.int32)
            else:
                backend = "slots"
        keys = None if dropout_key is None else jax.random.split(dropout_key, self.config.num_hidden_layers)

        def layer(carry: tuple[Array, KeysValues | None], slices: Any) -> tuple[Any, None]:
            block, number, key = slices
            here = where | {"layer": number} | ({} if key is None else {"dropout_key": key})
            x = checkpoint_name(carry[0], "layer_input")
            return block(x, turns, here, carry[1], backend), None

        body = layer if kv is not None else rematerialised(layer, self.remat, self.remat_offload)
        numbers = jnp.arange(self.config.num_hidden_layers)
        if self.apart is None:
            (x_BLD, kv), _ = jax.lax.scan(body, (x_BLD, kv), (self.layers, numbers, keys))
        else:
            for number, block in enumerate(self.apart):
                (x_BLD, kv), _ = body((x_BLD, kv), (block, number, None if keys is None else keys[number]))
        if cache is not None and kv is not None:
            slots = {"positions": where["kv_positions"], "segments": where["kv_segments"]} if "positions" in cache else {}
            cache = {"k": kv[0], "v": kv[1], **slots}
        norm = self.norm if self.remat == "none" else jax.checkpoint(lambda x: self.norm(x))
        return norm(x_BLD), cache

    def unstacked(self, *, turn: bool = True) -> "Llama":
        """The same model for decoding on a CPU: each layer's parameters as arrays of their own.

        Out of the stack XLA copies a layer there before each product. turn: kernels too (`times_turned`), which is better for
        weights that come from memory each step, and worse for several rows of those that stay in the CPU's cache.
        """
        model = nnx.merge(*nnx.split(self))
        graphdef, stacked = nnx.split(self.layers)
        model.apart = nnx.List([
            nnx.merge(graphdef, jax.tree.map(itemgetter(number), stacked)) for number in range(self.config.num_hidden_layers)
        ])  # fmt: skip
        del model.layers
        if turn:
            for _, module in nnx.iter_modules(model.apart):
                if isinstance(module, Linear):
                    module.turn()
            model._head_table().turn()
        return model

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """fp32 logits of hidden states over `padded_vocab_size`; −∞ for the rows that only fill up the mesh."""
        return _logits(self.config, self._head_table(), hidden)

    def head(self) -> Head:
        """The same, apart from the rest of the model: for the loss."""
        graphdef, state = nnx.split(self._head_table())
        leaves = nnx.to_flat_state(state)

        def project(params: Params, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
            variables = [(path, leaf.replace(params[str(path[-1])])) for path, leaf in leaves]
            return _logits(self.config, nnx.merge(graphdef, nnx.from_flat_state(variables)), hidden)

        named = {str(path[-1]): leaf for path, leaf in leaves}
        trained = tuple(name for name, leaf in named.items() if isinstance(leaf, Trainable))
        axes = {name: leaf.get_metadata()["axes"] for name, leaf in named.items()}
        return Head(project, {name: leaf[...] for name, leaf in named.items()}, trained, axes)

    def _head_table(self) -> Table:
        return self.embed_tokens if self.config.tie_word_embeddings else self.lm_head


def check_remat(remat: str, offload: bool) -> None:
    """Raises UsageError for what `rematerialised` does not know."""
    unknown = [name for name in remat.split("+") if name not in TENSORS] if remat not in ("full", "none") else []
    if unknown:
        raise UsageError(
            f"model.remat={remat!r}: {unknown[0]!r} is none of {', '.join(TENSORS)}; "
            "give full, none, or names of those to keep, joined by +"
        )
    if offload and remat == "none":
        raise UsageError("model.remat_offload=True with model.remat=none: what is kept goes to the host; name it, or choose full")


def rematerialised(layer: Callable[..., Any], remat: str, offload: bool) -> Callable[..., Any]:
    """The layer with what its backward pass keeps of the forward pass; the rest is computed again.

    remat: `full` keeps each layer's input only, `none` keeps everything, names of `TENSORS` joined by `+` keep these too.
    offload: what is kept waits in the host's memory.
    """
    if remat == "none":
        return layer
    names = [] if remat == "full" else remat.split("+")
    policies = jax.checkpoint_policies
    if offload:
        policy = policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[], names_which_can_be_offloaded=["layer_input", *names], offload_src="device",
            offload_dst="pinned_host",
        )  # fmt: skip
    else:
        policy = policies.save_only_these_names(*names)
    return jax.checkpoint(layer, policy=policy)


def _logits(config: ModelConfig, table: Table, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    logits = table.project(hidden)
    if config.padded_vocab_size == config.vocab_size:
        return logits
    return jnp.where(jnp.arange(config.padded_vocab_size) < config.vocab_size, logits, -jnp.inf)


def _check_trained(config: ModelConfig, lora: LoraConfig, quantization: str) -> None:
    """Raises UsageError for what this model cannot train as `lora` asks."""
    for entry in () if lora.full else lora.target_modules:
        for module in lora.targets():
            layers = [matches(entry, module, layer) for layer in range(config.num_hidden_layers)]
            if any(layers) != all(layers):
                raise UsageError(f"lora.target_modules: {entry!r} matches {module} in some layers only; all are adapted alike")
    for module in lora.targets():
        if not any(matches(entry, module, layer) for entry in lora.target_modules for layer in range(config.num_hidden_layers)):
            raise UsageError(f"lora.target_modules: matches {module} in no layer of this model ({config.num_hidden_layers} layers)")
    if config.tie_word_embeddings and "lm_head" in lora.modules_to_save and not lora.full:
        raise UsageError("lora.modules_to_save: this model's head is tied to its embeddings; list embed_tokens alone")
    tied = sorted(set(lora.targets()) & set(EMBEDDINGS)) if config.tie_word_embeddings else []
    if tied:
        raise UsageError(
            f"lora.target_modules: {', '.join(tied)} of this model are tied, and an adapter would untie them; "
            "take them out, or train the table in full: lora.modules_to_save=embed_tokens"
        )
    if lora.new_rows_only and not lora.full and config.original_vocab_size is None:
        raise UsageError(
            "lora.new_rows_only: this base has no new rows (no original_vocab_size in its config.json); "
            "make it with launch/extend_vocab.py, or leave the option out"
        )
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"model.quantization={quantization!r} is not one of {', '.join(filter(None, QUANTIZATIONS))}, or empty")
    if quantization and (lora.full or lora.use_dora):
        what = "lora.full=True trains the weights themselves" if lora.full else "DoRA would divide by the norm of rounded weights"
        raise UsageError(f"model.quantization={quantization!r}: {what}; leave one of the two out")


def in_cpu_cache(params: Params) -> bool:
    """Whether a CPU's cache will hold the weights: then `Llama.unstacked` is better without turning them."""
    return sum(array.nbytes for array in params.values()) <= CPU_CACHE


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
    dtype: Any  # of the computation

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
        dtype=abstract.dtype,
    )


def random_params(config: ModelConfig, lora: LoraConfig, key: jax.Array, names: tuple[str, ...], **kwargs: Any) -> Params:
    """Freshly initialised values of the named parameters. Jit it with out_shardings, and they are born sharded."""
    leaves = _flat(Llama(config, lora, key, **kwargs))
    return {name: leaves[name][...] for name in names}
