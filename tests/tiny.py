"""Tiny things that many tests need: models, a tokenizer, Hugging Face directories, shards. Nothing here is a test.

The models have the real architecture, 2 layers, and weights so large that logits differ by several units: with the usual
init of 0.02 every output is near zero and a comparison of outputs cannot fail. Everything is a function of its arguments.

    base = tiny.make_base(tmp_path / "base")                     # config.json, model.safetensors, tokenizer files
    tiny.make_shards(tmp_path / "data", tiny.conversations(40))  # the last tenth is held out
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from alif_jax.model import Params, Skeleton
from alif_jax.model_config import ModelConfig
from data_gen.record import Record, record_id
from data_gen.tfrecord import write_shards

VOCAB = 384  # 7 special tokens, 256 bytes, and the rest merges; a multiple of what tables are padded to
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end_of_turn|>")
WORDS = "کتاب پانی استاد بچہ گھر دن رات سورج درخت پھول شہر گاؤں راستہ دوست کھانا علم بات کام سال موسم".split()
VERBS = "ہے۔ تھا۔ ہوگا۔ نہیں ہے۔ کہاں ہے؟ اچھا ہے۔".split(" ")

LLAMA31_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

# For every test that imports this: optimising takes longer than such small programs run, and half of all test time.
jax.config.update("jax_disable_most_optimizations", True)


# --- models


FAMILIES = {
    "llama": transformers.LlamaConfig, "mistral": transformers.MistralConfig,
    "qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config,
}  # fmt: skip


def hf_config(family: str = "llama", **changes: Any) -> Any:
    """2 layers, 4 query and 2 key/value heads of 24 (not 64 / 4), untied; `changes` are arguments of the family's config.

    Every dimension divides by 8 where a mesh splits it, but heads divide by at most 4 and key/value heads by 2.
    """
    fields: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "initializer_range": 0.15,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "attn_implementation": "eager",
    }
    fields |= {"mistral": {"sliding_window": None}}.get(family, {})
    return FAMILIES[family](**(fields | changes))


def hf_model(config: Any, seed: int = 0) -> Any:
    """A random fp32 model; its norm scales are not 1 and its biases not 0, which would hide a forgotten one."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.uniform_(-1, 1)
    return model


def model_config(**changes: Any) -> ModelConfig:
    return ModelConfig.from_hf(hf_config(**changes).to_dict())


def params_of(model: Any, skeleton: Skeleton) -> Params:
    """The model's weights under our names (adapters: 0), converted here a second time, apart from alif_jax/hf.py.

    The vocabulary must be a multiple of 128, so that nothing is padded.
    """
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    params = {}
    for name, shape in skeleton.shapes.items():
        module, leaf = name.rsplit(".", 1)
        if leaf.startswith("lora_"):
            value = np.zeros(shape.shape, np.float32)
        elif module.startswith("layers."):
            kind = "bias" if leaf == "bias" else "weight"
            value = np.stack([weights[f"model.layers.{i}.{module[7:]}.{kind}"] for i in range(model.config.num_hidden_layers)])
            value = value.swapaxes(1, 2) if leaf == "kernel" else value
        else:
            value = weights["lm_head.weight"].T if module == "lm_head" else weights[f"model.{module}.weight"]
        assert value.shape == shape.shape, name
        params[name] = jnp.asarray(value, shape.dtype)
    return params


def new_params(config: ModelConfig, skeleton: Skeleton, seed: int = 0) -> Params:
    """Random values for all parameters, adapters' B included (a fresh B is 0, and the gradients of A with it)."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in skeleton.shapes.items():
        values = config.initializer_range * rng.standard_normal(shape.shape, np.float32)
        params[name] = jnp.asarray(1 + values if name.endswith(("scale", "magnitude")) else values, shape.dtype)
    return params


def random_batch(
    *, rows: int, length: int, accumulation: int = 1, vocab: int = VOCAB, padding: bool = True, seed: int = 0
) -> dict[str, np.ndarray]:
    """A batch as `Batches.batch_at` makes it, [accumulation, rows, length]: two segments a row, then padding, random masks."""
    rng = np.random.default_rng(seed)
    shape = (accumulation, rows, length)
    batch = {name: rng.integers(0, vocab, shape).astype(np.int32) for name in ("tokens", "targets")}
    first = rng.integers(1, length // 2, shape[:2])[..., None]
    end = rng.integers(length // 2 + 1, length, shape[:2])[..., None] if padding else np.full((*shape[:2], 1), length)
    at = np.arange(length)
    batch["segment_ids"] = np.where(at < first, 1, np.where(at < end, 2, 0)).astype(np.int32)
    batch["positions"] = np.where(at < first, at, np.where(at < end, at - first, 0)).astype(np.int32)
    batch["loss_mask"] = ((rng.random(shape) < 0.7) & (batch["segment_ids"] > 0)).astype(np.float32)
    return batch


# --- text


def sentences(count: int, *, words: int = 6, seed: int = 0) -> list[str]:
    """`count` different strings of Urdu words; not sensible, but in the right letters."""
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS, words))} {rng.choice(VERBS)} {i}" for i in range(count)]


def documents(count: int, *, words: int = 30, seed: int = 0) -> list[Record]:
    """Records with a text, of two sources and two tasks, in Urdu."""
    return [
        Record(id=record_id(text), source=f"web_{i % 2}", task="document", language="ur", meta={"title": f"t{i}"}, text=text)
        for i, text in enumerate(sentences(count, words=words, seed=seed))
    ]


def conversations(count: int, *, words: int = 6, seed: int = 0) -> list[Record]:
    """Records of one question and one answer each, of two tasks."""
    questions, answers = sentences(count, words=words, seed=seed), sentences(count, words=words, seed=seed + 1)
    return [
        Record(
            id=record_id(question), source="self_instruct", task=("generation", "reasoning")[i % 2], language="ur", meta={},
            messages=({"role": "user", "content": question}, {"role": "assistant", "content": answer}),
        )
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True))
    ]  # fmt: skip


def make_shards(directory: Path | str, records: Sequence[Record], *, heldout: int | None = None, shard_records: int = 16) -> str:
    """A finished data directory (any fsspec path); the last `heldout` records (a tenth) are the held-out split."""
    held = len(records) // 10 if heldout is None else heldout
    splits = {"train": records[: len(records) - held], "heldout": records[len(records) - held :]}
    write_shards(str(directory), splits, config={"made_by": "tests"}, shard_records=shard_records)
    return str(directory)


# --- Hugging Face directories


def train_tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE of exactly VOCAB tokens on Urdu words. Ids: SPECIAL first, in that order."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sentences(300, words=12), trainer)
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def make_tokenizer(directory: Path | str, *, chat_template: str | None = None, config: Mapping[str, Any] | None = None) -> str:
    """Writes tokenizer.json and tokenizer_config.json as transformers writes them. chat_template: Jinja source."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(), bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[2], **(config or {})
    )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(directory)
    return str(directory)


def make_base(
    directory: Path | str,
    *,
    seed: int = 0,
    chat_template: str | None = None,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
    **changes: Any,
) -> str:
    """A base model as a user has it on disk: weights, config and tokenizer, all written by transformers."""
    hf_model(hf_config(**changes), seed).to(dtype).save_pretrained(directory, max_shard_size=max_shard_size)
    return make_tokenizer(directory, chat_template=chat_template)
