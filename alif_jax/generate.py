"""Cached generation, greedy or sampled: prompts in, token ids out. Takes a loaded model, never paths.

`B` rows, `P` padded prompt length, `S` = P + new tokens: cache slots.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from alif_jax import UsageError
from alif_jax.files import open_file
from alif_jax.load import Loaded
from alif_jax.model import Params, Skeleton, empty_cache, in_cpu_cache
from alif_jax.sharding import batch_parts, constrain

COLDEST = 1e-6  # temperature; logits over a lower one leave fp32
BUCKET = 64  # prompts are padded to a multiple of this, so that few lengths are compiled
LOOK = 32  # tokens between two looks at what was made


class Prompts(NamedTuple):
    """A batch: tokens padded on the right, their lengths, the number of each row in the whole call, rows in use."""

    tokens_BP: Any
    lengths_B: Any
    rows_B: Any
    used: Any


class How(NamedTuple):
    """How tokens are chosen, and which of them stop a row."""

    key: Array
    temperature: Array
    top_p: Array
    stop_ids: Array


class Decoding(NamedTuple):
    """step: tokens made of each row; done: stopped; the last token; all of them, [B, M]."""

    step: Array
    done_B: Array
    token_B: Array
    out_BM: Array
    cache: Any


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
    tokenizer = loaded.tokenizer
    texts = [
        (tokenizer.bos_token or "") + prompt
        if raw
        else tokenizer.render([{"role": "user", "content": prompt}], add_generation_prompt=True, language=language)
        for prompt, language in zip(prompts, languages or [None] * len(prompts), strict=True)
    ]
    found = generate_ids(
        loaded, tokenizer.encode_batch(texts), max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, seed=seed,
        batch_size=batch_size,
    )  # fmt: skip
    return [
        Generation(prompt, tokenizer.decode(ids), ids, "stop" if stopped else "length")
        for prompt, (ids, stopped) in zip(prompts, found, strict=True)
    ]


def generate_ids(
    loaded: Loaded,
    encoded: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 16,
    over: Callable[[list[int]], bool] | None = None,
    more_stop_ids: Sequence[int] = (),
    done: Callable[[int], Any] = lambda rows: None,
) -> list[tuple[list[int], bool]]:
    """(ids before the stop token, whether one came) of what continues each prompt, a prompt being token ids.

    over: whether what was made of a row is enough, asked every `LOOK` tokens; a batch ends when all its rows are.
    more_stop_ids: beside the tokenizer's. done: told how many rows each batch had.
    """
    tokenizer, mesh = loaded.tokenizer, loaded.mesh
    if not all(encoded):
        raise UsageError("a prompt without a single token: this tokenizer has no BOS token, so give at least one character")
    parts = batch_parts(mesh)
    rows = -(-min(batch_size, len(encoded)) // parts) * parts
    order = np.argsort([-len(ids) for ids in encoded], kind="stable")  # similar lengths together, what takes most memory first
    stop_ids = (*tokenizer.stop_ids, *more_stop_ids)
    how = How(jax.random.key(seed), jnp.float32(temperature), jnp.float32(top_p), jnp.asarray(stop_ids))
    fixed = {"skeleton": loaded.skeleton, "greedy": temperature == 0}
    apart = "" if mesh.devices.flat[0].platform != "cpu" else "plain" if in_cpu_cache(loaded.params) else "turned"
    results: dict[int, tuple[list[int], bool]] = {}
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
            prompts = Prompts(tokens_BP, lengths_B, keys_B, np.int32(len(chosen)))
            state = _begin(loaded.params, prompts, how, max_new_tokens=max_new_tokens, **fixed)
            upto = max_new_tokens if over is None else min(LOOK, max_new_tokens)
            while True:
                state = _go_on(loaded.params, prompts, how, state, np.int32(upto), apart=apart, **fixed)
                step, out_BM = jax.device_get((state.step, state.out_BM))
                made = [_until_stop(out_BM[row, :step].tolist(), stop_ids) for row in range(len(chosen))]
                if over is None or step < upto or upto == max_new_tokens or all(stopped or over(ids) for ids, stopped in made):
                    break
                upto = min(upto + LOOK, max_new_tokens)
            results |= {int(i): ended for i, ended in zip(chosen, made, strict=True)}
            done(len(chosen))
    return [results[i] for i in range(len(encoded))]


def _until_stop(ids: list[int], stop_ids: Sequence[int]) -> tuple[list[int], bool]:
    stop = next((at for at, token in enumerate(ids) if token in stop_ids), None)
    return (ids, False) if stop is None else (ids[:stop], True)


@partial(jax.jit, static_argnames=("skeleton", "max_new_tokens", "greedy"))
def _begin(params: Params, prompts: Prompts, how: How, *, skeleton: Skeleton, max_new_tokens: int, greedy: bool) -> Decoding:
    """One pass over the prompts, and the first token of each."""
    model = skeleton.model(params)
    B, P = prompts.tokens_BP.shape
    slots_P = jnp.arange(P)
    segments_BP = (slots_P < prompts.lengths_B[:, None]).astype(jnp.int32)
    positions_BP = jnp.broadcast_to(slots_P, (B, P))
    cache = empty_cache(model.config, B, P + max_new_tokens, model.dtype)
    hidden_BPD, filled = model(prompts.tokens_BP, positions_BL=positions_BP, segment_ids_BL=segments_BP, cache=cache)
    last_BD = jnp.take_along_axis(hidden_BPD, (prompts.lengths_B - 1)[:, None, None], axis=1)[:, 0]
    first_B = _choose(model.logits(last_BD), jnp.int32(0), prompts, how, greedy)
    out_BM = jnp.zeros((B, max_new_tokens), jnp.int32).at[:, 0].set(first_B)
    unused_B = jnp.arange(B) >= prompts.used  # rows that only fill up the batch
    return _for_all(Decoding(jnp.int32(1), unused_B | jnp.isin(first_B, how.stop_ids), first_B, out_BM, filled))


@partial(jax.jit, static_argnames=("skeleton", "greedy", "apart"), donate_argnames="state")
def _go_on(
    params: Params, prompts: Prompts, how: How, state: Decoding, upto: Array, *, skeleton: Skeleton, greedy: bool, apart: str
) -> Decoding:
    """Tokens until there are `upto` of each row, or all rows stopped. What stands after a stop token means nothing.

    apart: on a CPU, "plain" or "turned" (`Llama.unstacked`): the layers are taken apart once instead of once a token, for the
    memory of a second copy of them.
    """
    model = skeleton.model(params)
    decoder = model.unstacked(turn=apart == "turned") if apart else model
    B, P = prompts.tokens_BP.shape

    def going_on(state: Decoding) -> Array:
        return (state.step < upto) & ~jnp.all(state.done_B)

    def step_once(state: Decoding) -> Decoding:
        hidden_B1D, written = decoder(
            state.token_B[:, None], positions_BL=(prompts.lengths_B + state.step - 1)[:, None],
            segment_ids_BL=jnp.ones((B, 1), jnp.int32), cache=state.cache, cache_index=P + state.step - 1,
        )  # fmt: skip
        token_B = _choose(decoder.logits(hidden_B1D[:, 0]), state.step, prompts, how, greedy)
        out_BM = jax.lax.dynamic_update_slice(state.out_BM, token_B[:, None], (0, state.step))
        return Decoding(state.step + 1, state.done_B | jnp.isin(token_B, how.stop_ids), token_B, out_BM, written)

    return _for_all(jax.lax.while_loop(going_on, step_once, state))


def _for_all(state: Decoding) -> Decoding:
    return state._replace(out_BM=constrain(state.out_BM, None, None))  # every process reads all rows


def _choose(logits_BV: Float[Array, "B V"], step: Array, prompts: Prompts, how: How, greedy: bool) -> Array:
    if greedy:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    kept_BV = keep_top_p(logits_BV / jnp.maximum(how.temperature, COLDEST), how.top_p)
    keys_B = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(how.key, row), step))(prompts.rows_B)
    return jax.vmap(jax.random.categorical)(keys_B, kept_BV).astype(jnp.int32)


def keep_top_p(logits_BV: Float[Array, "B V"], top_p: Float[Array, ""]) -> Float[Array, "B V"]:
    """Logits with all but the smallest set of tokens whose probability reaches `top_p` at −∞ (nucleus, arXiv 1904.09751)."""
    ordered_BV = jnp.sort(logits_BV, axis=-1, descending=True)
    before_BV = jnp.cumsum(jax.nn.softmax(ordered_BV, axis=-1), axis=-1) - jax.nn.softmax(ordered_BV, axis=-1)
    least = jnp.finfo(jnp.float32).tiny  # a smaller top_p counts as 0 on the device, and would keep none
    smallest_B1 = jnp.min(jnp.where(before_BV < jnp.maximum(top_p, least), ordered_BV, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits_BV >= smallest_B1, logits_BV, -jnp.inf)
