"""Floating-point operations of training a token: closed forms, no device and no model needed. What chips can do: topology.py.

Method, in multiply-adds counted as 2: a product with a frozen matrix of n entries costs 2n forward and 2n for the gradient of
its input; a trained one 2n more for its own gradient. Causal attention at context C costs 2·C·N·H a layer forward (scores and
values, C/2 keys on average) and twice that backward. So, a token,

    4·N_matmul + 6·N_lora + 2·N_trained_head + 6·C·N·H·layers        LoRA; N_matmul counts the head, not the look-up
    6·N_matmul + 6·C·N·H·layers                                      full training

Never counted: what is computed again (it is a means, not the work), norms, softmax, rotations, the optimizer, DoRA's norms.
What is computed again takes time all the same: `hardware_flops_per_token` adds it, for predictions of time and nothing else.

`N` query heads, `K` key/value heads, `H` head dim, `D` model dim, `F` ffn dim, `V` vocabulary, `R` rank, `C` context.
"""

from alif_jax.lora import EMBEDDINGS, PROJECTIONS, LoraConfig
from alif_jax.model_config import ModelConfig
from alif_jax.topology import chip_of


def projections(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the seven projections of a layer."""
    D, F = config.hidden_size, config.intermediate_size
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    shapes = ((D, q), (D, kv), (D, kv), (q, D), (D, F), (D, F), (F, D))
    return dict(zip(PROJECTIONS, shapes, strict=True))


def matmul_parameters(config: ModelConfig) -> int:
    """N_matmul: entries of all matrices that a token is multiplied with, the (possibly tied) head among them."""
    layer = sum(inputs * outputs for inputs, outputs in projections(config).values())
    return config.num_hidden_layers * layer + config.vocab_size * config.hidden_size


def lora_parameters(config: ModelConfig, lora: LoraConfig) -> int:
    """N_lora: entries of all adapter matrices that a token is multiplied with (A of an embedding is looked up)."""
    shapes = projections(config)
    targets = lora.targets()
    layer = sum(lora.rank * sum(shapes[module]) for module in targets if module not in EMBEDDINGS)
    D, V = config.hidden_size, config.vocab_size
    tables = {"embed_tokens": lora.rank * D, "lm_head": lora.rank * (D + V)}
    return config.num_hidden_layers * layer + sum(tables[module] for module in targets if module in EMBEDDINGS)


def trained_head_parameters(config: ModelConfig, lora: LoraConfig) -> int:
    """N_trained_head: entries of the head that are trained in full; a tied head is trained where the embeddings are."""
    module = "embed_tokens" if config.tie_word_embeddings else "lm_head"
    rows = config.vocab_size if lora.trains(module) else 0
    if lora.trains_new_rows(module):
        rows = config.vocab_size - (config.original_vocab_size or config.vocab_size)
    return rows * config.hidden_size


def trained_parameters(config: ModelConfig, lora: LoraConfig) -> int:
    """Entries of all matrices that are trained (norms, biases and DoRA's magnitudes are too few to count)."""
    table = config.vocab_size * config.hidden_size
    if lora.full:
        return matmul_parameters(config) + (0 if config.tie_word_embeddings else table)
    adapters = lora_parameters(config, lora) + (lora.rank * config.vocab_size if "embed_tokens" in lora.targets() else 0)
    new = (config.vocab_size - (config.original_vocab_size or config.vocab_size)) * config.hidden_size
    return adapters + sum((table if lora.trains(module) else new) for module in lora.modules_to_save)


def flops_per_token(config: ModelConfig, lora: LoraConfig, *, context: float) -> float:
    """FLOP to train one token; the method stands above.

    context: tokens of the sequence that the token stands in, the mean over tokens: Σ length² / Σ length of the examples (packing
    does not change it). Llama-3.1-8B, rank 128 on all projections: 32.0e9 before attention, 38.5e9 at a context of 8,192.
    """
    attention = 6 * context * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    n_matmul = matmul_parameters(config)
    if lora.full:
        return 6 * n_matmul + attention
    return 4 * n_matmul + 6 * lora_parameters(config, lora) + 2 * trained_head_parameters(config, lora) + attention


def hardware_flops_per_token(
    config: ModelConfig, lora: LoraConfig, *, context: float, remat: str, attention: str = "splash"
) -> float:
    """FLOP that a device really does for a token: `flops_per_token` and what the backward pass computes again.

    Of a layer, what `remat` (see `ModelSource`) does not keep: the forward products but down_proj's, whose result nothing needs,
    and x·A of every adapter, for B's gradient. Of a trained head its logits. Of attention the forward pass where it is not kept,
    and its scores, once more in the kernels' backward pass. attention: `xla` computes the whole square, twice the causal half.
    """
    causal = context * config.num_attention_heads * config.head_dim * config.num_hidden_layers  # FLOP of one of its products
    head = "embed_tokens" if config.tie_word_embeddings else "lm_head"
    head_is_trained = lora.trains(head) or lora.trains_new_rows(head) or lora.adapts(head)
    work = flops_per_token(config, lora, context=context) + head_is_trained * 2 * config.vocab_size * config.hidden_size
    kept = set(remat.split("+"))
    if attention == "xla":
        work += 6 * causal + (0 if remat == "none" else 2 * causal if "attention" in kept else 4 * causal)
    else:
        kept_whole = remat == "none" or ("attention" in kept and attention != "cudnn")  # cuDNN's softmax statistics have no name
        work += causal + (0 if kept_whole else 2 * causal)
    if remat == "none":
        return work
    again, targets = 0, lora.targets()
    for module, (inputs, outputs) in projections(config).items():
        whole = module not in kept and module != "down_proj"
        rank = lora.rank if module in targets else 0
        again += rank * inputs + (inputs * outputs + rank * outputs if whole else 0)
    return work + 2 * config.num_hidden_layers * again


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 FLOP/s of one device (`jax.Device.device_kind`); None for one that is not in the table, such as a CPU."""
    chip = chip_of(device_kind)
    return chip.peak_flops if chip else None
