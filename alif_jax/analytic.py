"""Memory and traffic of a training step by formula: for GPUs, whose compiler is not at hand where a plan is made.

The formulas follow the trainer as it is: layers scanned and recomputed (`model.remat`), the loss in chunks of tokens, weights
split over fsdp × sequence and gathered a layer at a time, gradients summed in fp32.
`D` model dim, `N` query heads, `K` key/value heads, `H` head dim, `F` ffn dim, `V` vocabulary, `L` tokens of a row on one device.
"""

from jax.sharding import Mesh

from alif_jax.ahead import Memory
from alif_jax.flops import matmul_parameters
from alif_jax.model_config import ModelConfig
from alif_jax.run import TrainConfig
from alif_jax.sharding import batch_parts

BYTES = {"bfloat16": 2, "float32": 4}
MARGIN = 1.15  # compiled steps needed 0.88 to 1.15 of what these formulas say in all (tests/benchmarks/compile_tpu.md, six rows)


def rows_a_device(config: TrainConfig, mesh: Mesh) -> int:
    """Rows of a microbatch."""
    return config.batch_size // config.gradient_accumulation_steps // batch_parts(mesh)


def split(mesh: Mesh) -> int:
    """Over how many devices a weight is split that is gathered before it is used."""
    return mesh.shape["fsdp"] * mesh.shape["sequence"]


def layer_parameters(c: ModelConfig) -> int:
    return (matmul_parameters(c) - c.vocab_size * c.hidden_size) // c.num_hidden_layers


def layer_activations(config: TrainConfig, c: ModelConfig, mesh: Mesh) -> int:
    """Bytes of everything that one layer computes for a device's rows of a microbatch.

    positions · bytes · (5·D + (3·N + 3·K)·H/t + 3·F/t), and with attention=xla its scores, 6·rows·N/t·L·(L·sequence).
    """
    rows = rows_a_device(config, mesh)
    length, tensor = config.data.sequence_length // mesh.shape["sequence"], mesh.shape["tensor"]
    heads = (3 * c.num_attention_heads + 3 * c.num_key_value_heads) * c.head_dim
    of_a_token = 5 * c.hidden_size + (heads + 3 * c.intermediate_size) // tensor
    scores = 6 * rows * c.num_attention_heads // tensor * length * config.data.sequence_length
    return rows * length * BYTES[config.model.dtype] * of_a_token + (scores if config.model.attention == "xla" else 0)


def saved_width(config: TrainConfig, c: ModelConfig, tensor: int) -> int:
    """Numbers that a layer keeps of a token for its backward pass: its input, and the tensors that `model.remat` names."""
    q, kv, mlp = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim, c.intermediate_size
    widths = {
        "q_proj": q // tensor, "k_proj": kv // tensor, "v_proj": kv // tensor, "attention": q // tensor, "o_proj": c.hidden_size,
        "gate_proj": mlp // tensor, "up_proj": mlp // tensor, "down_proj": c.hidden_size,
    }  # fmt: skip
    return c.hidden_size + sum(widths[name] for name in config.model.remat.split("+") if name in widths)


def temporary_bytes(config: TrainConfig, c: ModelConfig, mesh: Mesh, *, trainables: int) -> int:
    """Temporaries of a step on one device: what stays through the backward pass, and the larger of its two ends.

    2 · trainables                     gradients: their sum, and those of a microbatch
    layers · positions · saved_width   what the layers keep; layers · layer_activations with remat=none, 0 if it waits on the host
    a layer: layer_activations of the one that is computed again, 2 · layer_parameters / t gathered (that one's and the next's)
    the head: V·D / t gathered; 3 · chunk · V / t fp32 logits, probabilities and
    their gradient; 4 bytes · V·D / t of gradient, before it is scattered, where the head is trained

    trainables: bytes of a device's trained parameters.
    """
    item, tensor = BYTES[config.model.dtype], mesh.shape["tensor"]
    positions = rows_a_device(config, mesh) * config.data.sequence_length // mesh.shape["sequence"]
    activations = layer_activations(config, c, mesh)
    saved = activations if config.model.remat == "none" else positions * saved_width(config, c, tensor) * item
    saved = 0 if config.model.remat_offload else saved
    gathered = 2 * layer_parameters(c) * item // tensor if split(mesh) > 1 or config.model.quantization else 0
    table = c.padded_vocab_size * c.hidden_size // tensor
    trained = [config.lora.full or config.lora.trains(module) for module in ("embed_tokens", "lm_head")]
    head = table * (item + (4 if trained[not c.tie_word_embeddings] else 0))
    logits = 3 * 4 * min(config.model.loss_chunk, positions) * c.padded_vocab_size // tensor
    return 2 * trainables + c.num_hidden_layers * saved + max(activations + gathered, head + logits)


def traffic_bytes(config: TrainConfig, c: ModelConfig, mesh: Mesh, *, memory: Memory) -> float:
    """Bytes that one device moves to and from its HBM in a step, at the least: caches hold what one product needs again.

    A microbatch reads the gathered weights three times (forward, again, backward) and its activations six (written and read
    forward, again, backward); the optimizer reads and writes parameters, moments and gradients.
    """
    weights = matmul_parameters(c) * BYTES[config.model.dtype] / mesh.shape["tensor"]
    activations = c.num_hidden_layers * layer_activations(config, c, mesh)
    update = 2 * (2 * memory.trainables + memory.optimizer)
    return config.gradient_accumulation_steps * (3 * weights + 6 * activations) + update
