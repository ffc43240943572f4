"""The two compiled programs of serving: a chunk of one prompt into its row of the cache, and a few steps of all rows.

The batch has one fixed width and the cache one fixed length, idle rows are computed too: each row goes through the same
arithmetic whoever its neighbours are, so its bits are its own. A row's position p lies in its slot p.
`B` rows, `S` slots of the cache, `C` tokens of a chunk, `V` vocabulary, `T` steps a dispatch at most.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from alif_jax.generate import COLDEST, keep_top_p
from alif_jax.model import Cache, Llama, Params
from alif_jax.model_config import ModelConfig
from alif_jax.serve.weights import Structure
from alif_jax.sharding import constrain

CHUNKS = (16, 48, 128, 256, 512)  # tokens of a prompt that one program takes, padded; a longer prompt is several of the last
MOST_STEPS = 32  # a dispatch
MOST_TOP = 20  # likeliest tokens told with each


class Rows(NamedTuple):
    """What each row does, [B] each. token: the last one, not yet in the cache; position: where it will stand.

    made: tokens chosen so far; limit: of them. live: 1 where the row goes on, else 0. seed, top, temperature, top_p: of its
    request; top: how many of the likeliest tokens to tell.
    """

    token: Array
    position: Array
    made: Array
    limit: Array
    live: Array
    seed: Array
    top: Array
    temperature: Array
    top_p: Array


INTEGERS = 7  # of Rows, in their order


def rows_of(integers_NB: Any, floats_2B: Any) -> Rows:
    """Rows as two arrays: nine small ones would take longer on their way into a program than a small model's step."""
    return Rows(*[*integers_NB, *floats_2B])


class Chosen(NamedTuple):
    """[B] each, [T, B] of several steps; of the likeliest [..., MOST_TOP], zeros where no live row asks for them."""

    token: Array
    logprob: Array
    top_tokens: Array
    top_logprobs: Array


def chunks(length: int) -> list[int]:
    """Sizes of the chunks into which a prompt goes: chunks(600) == [512, 128]."""
    whole, rest = divmod(length, CHUNKS[-1])
    last = [next(size for size in CHUNKS if size >= rest)] if rest else []
    return [CHUNKS[-1]] * whole + last


def slots(max_length: int) -> int:
    """Of a row: as many as the chunks of its longest prompt fill."""
    return sum(chunks(max_length))


def empty_slots(config: ModelConfig, rows: int, length: int, dtype: jnp.dtype) -> Cache:
    """A cache without positions and segments: slot p of a row is for position p. Jit it, so that it is born on its mesh."""
    shape = (config.num_hidden_layers, rows, length, config.num_key_value_heads, config.head_dim)
    return {name: _on_mesh(jnp.zeros(shape, dtype)) for name in ("k", "v")}


def _on_mesh(keys: Float[Array, "layers B S K H"]) -> Float[Array, "layers B S K H"]:
    return constrain(keys, None, "batch", None, "kv_heads", None)


def choose(logits_BV: Float[Array, "B V"], rows: Rows) -> Chosen:
    """The next token of each row; log-probabilities are of these logits. The draws are those of `generate` with this seed."""
    greedy_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logprobs_BV = logits_BV - jax.scipy.special.logsumexp(logits_BV, axis=-1, keepdims=True)

    def draw() -> Int[Array, "B"]:
        scaled_BV = logits_BV / jnp.maximum(rows.temperature, COLDEST)[:, None]
        narrow_B1 = (rows.top_p < 1)[:, None]
        nucleus = partial(keep_top_p, top_p=rows.top_p[:, None])
        kept_BV = jax.lax.cond(jnp.any((rows.live[:, None] > 0) & narrow_B1), nucleus, lambda logits: logits, scaled_BV)
        kept_BV = jnp.where(narrow_B1, kept_BV, scaled_BV)
        keys_B = jax.vmap(lambda seed, step: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 0), step))(
            rows.seed, rows.made
        )
        return jax.vmap(jax.random.categorical)(keys_B, kept_BV).astype(jnp.int32)

    def likeliest() -> tuple[Array, Array]:
        logprobs, tokens = jax.lax.top_k(logprobs_BV, top)
        spare = ((0, 0), (0, MOST_TOP - top))
        return jnp.pad(tokens, spare), jnp.pad(logprobs, spare)

    sampled_B = (rows.live > 0) & (rows.temperature > 0)
    token_B = jnp.where(sampled_B, jax.lax.cond(jnp.any(sampled_B), draw, lambda: greedy_B), greedy_B)
    B, top = len(token_B), min(MOST_TOP, logits_BV.shape[-1])
    none = jnp.zeros((B, MOST_TOP), jnp.int32), jnp.zeros((B, MOST_TOP))
    top_tokens, top_logprobs = jax.lax.cond(jnp.any((rows.live > 0) & (rows.top > 0)), likeliest, lambda: none)
    return Chosen(token_B, jnp.take_along_axis(logprobs_BV, token_B[:, None], axis=-1)[:, 0], top_tokens, top_logprobs)


@partial(jax.jit, static_argnames=("structure", "parts"), donate_argnames="cache")
def prefill(
    params: Params,
    cache: Cache,
    row: Int[Array, ""],
    tokens_C: Int[Array, "C"],
    start: Int[Array, ""],
    length: Int[Array, ""],
    integers: Int[Array, "N 1"],
    floats: Float[Array, "2 1"],
    *,
    structure: Structure,
    parts: int,
) -> tuple[Cache, Chosen, Float[Array, "D"]]:
    """Tokens start … start + C of a prompt of `length` into their slots of `row`.

    The choice of the next token means something after the last chunk only. With it comes the sum of the final hidden states of
    the chunk's tokens, in fp32. integers, floats: `rows_of` the request. parts: over how many devices the rows are split; each
    computes the same chunk, and the one that has the row keeps it.
    """
    model = structure.model(params)
    rows, C = cache["k"].shape[1], len(tokens_C)
    part, within = row // (rows // parts), row % (rows // parts)
    of_parts = {name: layers.reshape(layers.shape[0], parts, rows // parts, *layers.shape[2:]) for name, layers in cache.items()}
    own = {name: jax.lax.dynamic_index_in_dim(layers, within, axis=2, keepdims=False) for name, layers in of_parts.items()}
    positions_C = start + jnp.arange(C)
    hidden_PCD, filled = model(
        jnp.broadcast_to(tokens_C, (parts, C)), positions_BL=jnp.broadcast_to(positions_C, (parts, C)),
        segment_ids_BL=jnp.ones((parts, C), jnp.int32), cache=own, cache_index=start,
    )  # fmt: skip
    assert filled is not None
    for name, layers in of_parts.items():
        new, old = (jax.lax.dynamic_slice_in_dim(x[name], start, C, axis=2) for x in (filled, own))
        here = (jnp.arange(parts) == part)[:, None, None, None]
        layers = jax.lax.dynamic_update_slice(layers, jnp.where(here, new, old)[:, :, None], (0, 0, within, start, 0, 0))
        cache[name] = _on_mesh(layers.reshape(cache[name].shape))
    inside_C = (positions_C < length)[:, None]
    sums_PD = jnp.sum(hidden_PCD.astype(jnp.float32) * inside_C, axis=1)
    last_PD = jax.lax.dynamic_index_in_dim(hidden_PCD, jnp.minimum(length - 1 - start, C - 1), axis=1, keepdims=False)
    chosen = choose(model.logits(last_PD), Rows(*(jnp.broadcast_to(x, (parts,)) for x in rows_of(integers, floats))))
    return cache, Chosen(*(x[0] for x in chosen)), sums_PD[0]


def logits_by_rows(model: Llama, hidden_BD: Float[Array, "B D"], live_B: Array) -> Float[Array, "B V"]:
    """Of the live rows, one after the other: out of a CPU's cache a product with one row is a fraction of one with a few."""

    def of_row(row: tuple[Array, Array]) -> Float[Array, "V"]:
        hidden_D, live = row
        return jax.lax.cond(live, model.logits, lambda _: jnp.zeros(model.config.padded_vocab_size), hidden_D)

    return jax.lax.map(of_row, (hidden_BD, live_B))


@partial(jax.jit, static_argnames=("structure", "head_by_rows"), donate_argnames="cache")
def decode(
    params: Params,
    cache: Cache,
    integers: Int[Array, "N B"],
    floats: Float[Array, "2 B"],
    steps: Int[Array, ""],
    stop_ids: Int[Array, "stops"],
    *,
    structure: Structure,
    head_by_rows: bool,
) -> tuple[Cache, Int[Array, "M B"], tuple[Array, Array]]:
    """Up to `steps` (at most MOST_STEPS) more tokens of every live row; fewer where none is live any more.

    A row that has chosen a stop token or its last one stands still. Back come the cache; `integers` as they are now, under them
    the tokens [T, B] and the bits of their log-probabilities [T, B]; and the likeliest tokens with theirs [T, B, MOST_TOP].
    Row r has chosen the first (new `made` - old) of its T.
    """
    model = structure.model(params)
    rows = rows_of(integers, floats)
    B = len(rows.token)

    def going_on(state: tuple[Array, Cache, Rows, Chosen]) -> Array:
        return (state[0] < steps) & jnp.any(state[2].live > 0)

    def step_once(state: tuple[Array, Cache, Rows, Chosen]) -> tuple[Array, Cache, Rows, Chosen]:
        step, cache, rows, out = state
        live = rows.live > 0
        hidden_B1D, written = model(
            rows.token[:, None], positions_BL=jnp.where(live, rows.position, -1)[:, None],
            segment_ids_BL=jnp.ones((B, 1), jnp.int32), cache=cache, cache_index=rows.position,
        )  # fmt: skip
        assert written is not None
        hidden_BD = hidden_B1D[:, 0]
        chosen = choose(logits_by_rows(model, hidden_BD, live) if head_by_rows else model.logits(hidden_BD), rows)
        out = Chosen(*(jax.lax.dynamic_update_index_in_dim(told, new, step, 0) for told, new in zip(out, chosen, strict=True)))
        made = rows.made + rows.live
        going = live & ~jnp.isin(chosen.token, stop_ids) & (made < rows.limit)
        moved = rows._replace(
            token=jnp.where(live, chosen.token, rows.token), position=rows.position + rows.live, made=made,
            live=going.astype(jnp.int32),
        )  # fmt: skip
        return step + 1, {name: _on_mesh(layers) for name, layers in written.items()}, moved, out

    shapes = ((MOST_STEPS, B), (MOST_STEPS, B, MOST_TOP))
    out = Chosen(jnp.zeros(shapes[0], jnp.int32), jnp.zeros(shapes[0]), jnp.zeros(shapes[1], jnp.int32), jnp.zeros(shapes[1]))
    _, cache, rows, out = jax.lax.while_loop(going_on, step_once, (jnp.int32(0), cache, rows, out))
    bits = jax.lax.bitcast_convert_type(out.logprob, jnp.int32)
    return cache, jnp.concatenate([jnp.stack(rows[:INTEGERS]), out.token, bits]), (out.top_tokens, out.top_logprobs)
