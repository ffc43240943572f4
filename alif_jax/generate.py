"""Cached generation, greedy or sampled: prompts in, token ids out. Takes a loaded model, never paths.

`B` rows, `P` padded prompt length, `S` = P + new tokens: cache slots.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alif_jax import UsageError
from alif_jax.files import open_file
from alif_jax.load import Loaded
from alif_jax.model import Params, Skeleton, empty_cache
from alif_jax.sharding import batch_parts, constrain

Decoding = tuple[Array, Array, Array, Array, Any]  # step, done [B], last token [B], output [B, M], cache
COLDEST = 1e-6  # temperature; logits over a lower one leave fp32
BUCKET = 64  # prompts are padded to a multiple of this, so that few lengths are compiled


@dataclass(frozen=True)
class Generation:
    """finish_reason: `stop` (a stop token came; it is not among token_ids) or `length`."""

    prompt: str
    text: str
    token_ids: list[int]
    finish_reason: str


def read_prompts(path: str) -> list[str]:
    """The "prompt" of each line of a JSONL file. Raises UsageError with the number of a line that has none."""
    with open_file(path, "r") as file:
        lines = file.read().split("\n")  # splitlines() would split at U+2028 inside a string
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = json.loads(line)["prompt"]
        except (json.JSONDecodeError, KeyError, TypeError):
            prompt = None
        if not isinstance(prompt, str):
            raise UsageError(f'{path}, line {number}: expected a JSON object with "prompt", got {line[:60]!r}')
        prompts.append(prompt)
    if not prompts:
        raise UsageError(f"{path}: no prompt in it")
    return prompts


def generate(
    loaded: Loaded,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
    raw: bool = False,
    languages: Sequence[str | None] = (),
) -> list[Generation]:
    """Continues each prompt. temperature 0 is greedy. A row's result depends on its prompt and index, not on its neighbours.

    raw: the prompt is continued as it stands (after BOS); else it is a user's turn of the chat template. languages: English name
    of each answer's language, for templates that write it (X-Instruction's); none: left out of all.
    """
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens={max_new_tokens}: at least 1")
    if temperature < 0 or not 0 < top_p <= 1:
        raise UsageError(f"temperature={temperature}, top_p={top_p}: expected temperature >= 0 and 0 < top_p <= 1")
    if not prompts:
        return []
    tokenizer, mesh = loaded.tokenizer, loaded.mesh
    texts = [
        (tokenizer.bos_token or "") + prompt
        if raw
        else tokenizer.render([{"role": "user", "content": prompt}], add_generation_prompt=True, language=language)
        for prompt, language in zip(prompts, languages or [None] * len(prompts), strict=True)
    ]
    encoded = tokenizer.encode_batch(texts)
    if not all(encoded):
        raise UsageError("a prompt without a single token: this tokenizer has no BOS token, so give at least one character")
    parts = batch_parts(mesh)
    rows = -(-min(batch_size, len(prompts)) // parts) * parts
    order = np.argsort([len(ids) for ids in encoded], kind="stable")  # similar lengths together
    results: dict[int, Generation] = {}
    with jax.set_mesh(mesh):
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            length = -(-max(len(encoded[i]) for i in chosen) // BUCKET) * BUCKET
            tokens_BP = np.zeros((rows, length), np.int32)
            lengths_B = np.ones(rows, np.int32)
            keys_B = np.zeros(rows, np.int32)
            for row, i in enumerate(chosen):
                tokens_BP[row, : len(encoded[i])] = encoded[i]
                lengths_B[row], keys_B[row] = len(encoded[i]), i
            out_BM = jax.device_get(_decode(
                loaded.params, tokens_BP, lengths_B, keys_B, jax.random.key(seed), np.int32(len(chosen)),
                jnp.float32(temperature), jnp.float32(top_p), jnp.asarray(tokenizer.stop_ids),
                skeleton=loaded.skeleton, max_new_tokens=max_new_tokens, greedy=temperature == 0,
                on_cpu=mesh.devices.flat[0].platform == "cpu",
            ))  # fmt: skip
            for row, i in enumerate(chosen):
                results[int(i)] = _finish(prompts[i], out_BM[row].tolist(), loaded)
    return [results[i] for i in range(len(prompts))]


def _finish(prompt: str, ids: list[int], loaded: Loaded) -> Generation:
    stop = next((at for at, token in enumerate(ids) if token in loaded.tokenizer.stop_ids), None)
    ids = ids if stop is None else ids[:stop]
    return Generation(prompt, loaded.tokenizer.decode(ids), ids, "length" if stop is None else "stop")


@partial(jax.jit, static_argnames=("skeleton", "max_new_tokens", "greedy", "on_cpu"))
def _decode(
    params: Params,
    tokens_BP: Array,
    lengths_B: Array,
    rows_B: Array,
    key: Array,
    used: Array,
    temperature: Array,
    top_p: Array,
    stop_ids: Array,
    *,
    skeleton: Skeleton,
    max_new_tokens: int,
    greedy: bool,
    on_cpu: bool,
) -> Array:
    """[B, max_new_tokens] token ids; what stands after a stop token means nothing.

    on_cpu: the layers are taken apart once instead of once a token, for the memory of a second copy of them.
    """
    model = skeleton.model(params)
    B, P = tokens_BP.shape
    decoder = model.unstacked() if on_cpu else model
    slots_P = jnp.arange(P)
    segments_BP = (slots_P < lengths_B[:, None]).astype(jnp.int32)
    positions_BP = jnp.broadcast_to(slots_P, (B, P))
    cache = empty_cache(model.config, B, P + max_new_tokens, model.dtype)
    hidden_BPD, filled = model(tokens_BP, positions_BL=positions_BP, segment_ids_BL=segments_BP, cache=cache)
    last_BD = jnp.take_along_axis(hidden_BPD, (lengths_B - 1)[:, None, None], axis=1)[:, 0]
    row_keys_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows_B)

    def choose(logits_BV: Float[Array, "B V"], step: Array) -> Array:
        if greedy:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        kept_BV = keep_top_p(logits_BV / jnp.maximum(temperature, COLDEST), top_p)
        keys_B = jax.vmap(lambda row_key: jax.random.fold_in(row_key, step))(row_keys_B)
        return jax.vmap(jax.random.categorical)(keys_B, kept_BV).astype(jnp.int32)

    first_B = choose(model.logits(last_BD), jnp.int32(0))
    out_BM = jnp.zeros((B, max_new_tokens), jnp.int32).at[:, 0].set(first_B)
    unused_B = jnp.arange(B) >= used  # rows that only fill up the batch

    def going_on(state: Decoding) -> Array:
        step, done_B = state[0], state[1]
        return (step < max_new_tokens) & ~jnp.all(done_B)

    def step_once(state: Decoding) -> Decoding:
        step, done_B, token_B, out_BM, cache = state
        hidden_B1D, written = decoder(
            token_B[:, None], positions_BL=(lengths_B + step - 1)[:, None], segment_ids_BL=jnp.ones((B, 1), jnp.int32),
            cache=cache, cache_index=P + step - 1,
        )  # fmt: skip
        token_B = choose(decoder.logits(hidden_B1D[:, 0]), step)
        out_BM = jax.lax.dynamic_update_slice(out_BM, token_B[:, None], (0, step))
        return step + 1, done_B | jnp.isin(token_B, stop_ids), token_B, out_BM, written

    start = (jnp.int32(1), unused_B | jnp.isin(first_B, stop_ids), first_B, out_BM, filled)
    return constrain(jax.lax.while_loop(going_on, step_once, start)[3], None, None)  # every process reads all rows


def keep_top_p(logits_BV: Float[Array, "B V"], top_p: Float[Array, ""]) -> Float[Array, "B V"]:
    """Logits with all but the smallest set of tokens whose probability reaches `top_p` at −∞ (nucleus, arXiv 1904.09751)."""
    ordered_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    before_BV = jnp.cumsum(jax.nn.softmax(ordered_BV, axis=-1), axis=-1) - jax.nn.softmax(ordered_BV, axis=-1)
    least = jnp.finfo(jnp.float32).tiny  # a smaller top_p counts as 0 on the device, and would keep none
    smallest_B1 = jnp.min(jnp.where(before_BV < jnp.maximum(top_p, least), ordered_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV >= smallest_B1, logits_BV, -jnp.inf)
