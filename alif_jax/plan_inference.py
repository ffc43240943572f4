"""What it takes to have a model answer many requests, before a server is started: chips a copy, requests at once, hours, money.

No server and no model here: closed forms of an architecture and a chip. A copy of the model (a replica) lies on the fewest chips
that hold its bf16 weights and a useful cache of keys and values, its matrices split over them; the chips that are left hold more
copies, which share the requests. Two parts are added, as if a server did one after the other:

    reading the prompts   compute at a share PROMPT_SHARE of the peak
    writing the answers   a token of every live answer a step: the larger of bytes (weights once, all live keys and values) over the
                          HBM's bandwidth and compute over the peak, at a share STEP_SHARE of that bound

and to both what the chips of a copy sum up over the interconnect, twice a layer (roofline.py). Beginnings that prompts share are
computed for each; loading the model, and waiting for requests, are not counted.

Both shares are assumptions, wide on purpose, and no fit. For writing there are published runs of vLLM with Llama-3.1-8B in 16 bits,
15.0 GB read a step: 6.5 ms a token alone and 10.9 ms with 15 others on an H100, 0.69 and 0.42 of the bound
(yobitelcomm.github.io/bench/recipes/concurrency-sweep); 75 tokens a second alone on an A100-40G, 0.72
(johnmusgrave.com/p/vllm-throughput-latency-sweep-on). For reading, 0.3 to 0.6 lies around what full training reaches
(roofline.EFFICIENCY, 0.41 on H100s). Nothing of it was measured on a TPU, nor with hundreds of requests at once.

`D` model dim, `N` query heads, `K` key/value heads, `H` head dim, `V` vocabulary, `C` tokens of a live sequence.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from alif_jax import UsageError
from alif_jax.flops import matmul_parameters
from alif_jax.hlo import Collective
from alif_jax.model_config import ModelConfig
from alif_jax.plan import Price, Range, cost, scaled
from alif_jax.roofline import interconnect_seconds
from alif_jax.topology import GIB, Chip, Topology

BYTES = 2  # of a weight and of a number in the cache: bf16
PROMPT_SHARE = (0.3, 0.6)
STEP_SHARE = (0.4, 0.8)
SERVED = 0.9  # of a chip's usable memory, for weights and cache; activations and programs take the rest (vLLM's default is like it)
USEFUL = 16  # sequences of the full length that a cache should hold: fewer, and the weights are read for too few answers
MOST_SEQUENCES = 256  # live at once; vLLM's max_num_seqs


@dataclass(frozen=True, kw_only=True)
class InferencePlan:
    """Pairs are (low, high). Tokens are means of a request. batch: live answers of a replica.

    weight_bytes, cache_bytes: of a replica, over all its chips, the cache of a batch at its full length. cache_bytes_per_token: of
    one sequence. decode_bound: what bounds a step of writing. new_tokens_per_second: all replicas together, reading included.
    """

    topology: str
    devices: int
    chips_per_replica: int
    replicas: int
    requests: int
    prompt_tokens: float
    new_tokens: float
    max_length: int
    batch: int
    weight_bytes: int
    cache_bytes: int
    cache_bytes_per_token: int
    prefill_seconds: Range
    decode_seconds: Range
    decode_bound: str
    seconds: Range
    hours: Range
    new_tokens_per_second: Range | None
    cost_usd: Range | None
    cost_usd_spot: Range | None
    price: dict[str, Any] | None
    notes: tuple[str, ...]


def as_json(plan: InferencePlan) -> dict[str, Any]:
    """Ranges as [low, high]; null where unknown."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(plan).items()}


def plan_inference(
    model_config: ModelConfig,
    topology: Topology,
    *,
    requests: int,
    prompt_tokens: float,
    new_tokens: float,
    max_length: int,
    price: Price | None,
    most_sequences: int = MOST_SEQUENCES,
) -> InferencePlan:
    """The plan of `requests` answers by all chips of `topology`.

    prompt_tokens, new_tokens: means of a request; a score is an answer of one token, which reading the prompt gives already.
    max_length: the longest sequence, prompt and answer, that the cache must hold. most_sequences: that a replica answers at once.

    Raises UsageError where all chips together do not hold the model, and for numbers that make no sense.
    """
    if requests < 0 or prompt_tokens <= 0 or new_tokens < 1 or most_sequences < 1:
        raise UsageError(
            f"{requests} requests of {prompt_tokens:g} tokens with answers of {new_tokens:g}, {most_sequences} at once: expected "
            "0 or more requests, a prompt, answers of at least 1 token, at least 1 at once"
        )
    length = prompt_tokens + new_tokens
    if length > max_length:
        raise UsageError(f"a request has {prompt_tokens:g} + {new_tokens:g} tokens, more than max_length={max_length}; raise it")
    chips = chips_of_a_replica(model_config, topology, max_length)
    replicas = topology.devices // chips
    rows = math.ceil(requests / replicas)
    held = int(cache_tokens(model_config, topology.chip, chips) // length)
    batch = max(1, min(most_sequences, held, rows))
    steps = rows * (new_tokens - 1) / batch
    reading = prompt_seconds(model_config, topology, chips, prompt_tokens)
    writing, bound = step_seconds(model_config, topology, chips, batch, prompt_tokens + new_tokens / 2)
    prefill, decode = scaled(reading, rows), scaled(writing, steps)
    seconds = prefill[0] + decode[0], prefill[1] + decode[1]
    hours = scaled(seconds, 1 / 3600)
    on_demand, spot = (price.usd_per_chip_hour, price.spot) if price else (None, None)
    written = requests * new_tokens
    per_token = cache_bytes_per_token(model_config)
    notes = []
    if steps and held < min(most_sequences, rows):
        copy = "a chip" if chips == 1 else f"{chips} chips, one copy of the model,"
        notes.append(f"the cache of {copy} holds {held:,} requests at once, not {min(most_sequences, rows):,}")
    if idle := topology.devices % chips:
        notes.append(f"{idle} of {topology.devices} chips answer nothing, as a copy takes {chips}, and are paid all the same")
    return InferencePlan(
        topology=topology.name, devices=topology.devices, chips_per_replica=chips, replicas=replicas, requests=requests,
        prompt_tokens=prompt_tokens, new_tokens=new_tokens, max_length=max_length, batch=batch,
        weight_bytes=weight_bytes(model_config), cache_bytes=round(batch * length) * per_token, cache_bytes_per_token=per_token,
        prefill_seconds=prefill, decode_seconds=decode, decode_bound=bound, seconds=seconds, hours=hours,
        new_tokens_per_second=(written / seconds[1], written / seconds[0]) if requests else None,
        cost_usd=cost(hours, topology, on_demand), cost_usd_spot=cost(hours, topology, spot),
        price=dataclasses.asdict(price) if price else None, notes=tuple(notes),
    )  # fmt: skip


# --- memory


def weight_bytes(c: ModelConfig) -> int:
    """All matrices in bf16, the look-up among them where it is not the head too; norms are too few to count."""
    table = 0 if c.tie_word_embeddings else c.vocab_size * c.hidden_size
    return BYTES * (matmul_parameters(c) + table)


def cache_bytes_per_token(c: ModelConfig) -> int:
    """Keys and values of all layers: 2·K·H·layers numbers. Llama-3-8B: 128 KiB."""
    return 2 * c.num_key_value_heads * c.head_dim * c.num_hidden_layers * BYTES


def cache_tokens(c: ModelConfig, chip: Chip, chips: int) -> float:
    """Tokens that the cache of a replica holds, below 0 where the weights alone do not fit. Chips beyond K hold the same heads."""
    left = SERVED * chip.hbm_bytes - weight_bytes(c) / chips
    return left / (cache_bytes_per_token(c) / min(chips, c.num_key_value_heads))


def chips_of_a_replica(c: ModelConfig, topology: Topology, max_length: int) -> int:
    """The fewest chips, among numbers that divide the heads, whose cache holds USEFUL sequences of max_length; where none does, the
    most that holds one. Raises UsageError where not even one fits.
    """
    N, K = c.num_attention_heads, c.num_key_value_heads
    sizes = [n for n in range(1, topology.devices + 1) if N % n == 0 and (K % n == 0 or n % K == 0)]
    held = {n: cache_tokens(c, topology.chip, n) / max_length for n in sizes}
    found = next((n for n in sizes if held[n] >= USEFUL), None) or next((n for n in reversed(sizes) if held[n] >= 1), None)
    if found is None:
        raise UsageError(
            f"{topology.name} does not hold this model to answer with: weights are {weight_bytes(c) / GIB:.1f} GiB in bf16, a "
            f"sequence of {max_length:,} tokens takes {max_length * cache_bytes_per_token(c) / GIB:.2f} GiB more, over at most "
            f"{sizes[-1]} chip(s) of {SERVED * topology.chip.hbm_bytes / GIB:.1f} GiB; take more or larger chips"
        )
    return found


# --- time, of one replica


def prompt_seconds(c: ModelConfig, topology: Topology, chips: int, tokens: float) -> Range:
    """Reading one prompt: 2 FLOP an entry of the layers' matrices, causal attention, the head for the last token alone."""
    head = c.vocab_size * c.hidden_size
    of_a_token = 2 * (matmul_parameters(c) - head) + 2 * tokens * c.num_attention_heads * c.head_dim * c.num_hidden_layers
    bound = (tokens * of_a_token + 2 * head) / (chips * topology.chip.peak_flops)
    sums = sums_seconds(c, topology, chips, tokens)
    return bound / PROMPT_SHARE[1] + sums, bound / PROMPT_SHARE[0] + sums


def step_seconds(c: ModelConfig, topology: Topology, chips: int, batch: int, context: float) -> tuple[Range, str]:
    """Writing a token of each of `batch` answers whose sequences have `context` tokens now, and what bounds it."""
    chip = topology.chip
    # The look-up reads a row a token, the head all of its table: so the matrices that are multiplied with, and no more.
    cache = batch * context * cache_bytes_per_token(c) / min(chips, c.num_key_value_heads)
    memory = (BYTES * matmul_parameters(c) / chips + cache) / chip.hbm_bandwidth
    attention = 4 * context * c.num_attention_heads * c.head_dim * c.num_hidden_layers
    compute = batch * (2 * matmul_parameters(c) + attention) / (chips * chip.peak_flops)
    bound, sums = max(memory, compute), sums_seconds(c, topology, chips, batch)
    return (bound / STEP_SHARE[1] + sums, bound / STEP_SHARE[0] + sums), "compute" if compute > memory else "memory bandwidth"


def sums_seconds(c: ModelConfig, topology: Topology, chips: int, tokens: float) -> float:
    """Activations of so many tokens, summed over a replica's chips after o_proj and down_proj of every layer."""
    if chips == 1:
        return 0.0
    one = Collective("all-reduce", tokens * c.hidden_size * BYTES, chips, 2 * c.num_hidden_layers)
    return interconnect_seconds([one], topology)
