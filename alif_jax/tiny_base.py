"""The embedded default: a tokenizer and a tiny model's config, made from a few kilobytes of text. No weights yet."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from alif_jax import files
from alif_jax.files import join

SPECIAL_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end_of_turn|>"
)  # fmt: skip

ARCHITECTURE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
}


def make_tiny_base(directory: str, texts: Iterable[str], *, vocab_size: int) -> None:
    """Writes tokenizer.json (byte-level BPE learnt from `texts`), tokenizer_config.json and config.json.

    Train it with model.random_init=True: the directory has no weights.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    bos, eos, pad = (tokenizer.token_to_id(token) for token in SPECIAL_TOKENS[:3])
    files.make_directory(directory)
    files.write_text(join(directory, "tokenizer.json"), tokenizer.to_str(pretty=True))
    special = {"bos_token": SPECIAL_TOKENS[0], "eos_token": SPECIAL_TOKENS[1], "pad_token": SPECIAL_TOKENS[2]}
    limits = {"model_max_length": ARCHITECTURE["max_position_embeddings"], "clean_up_tokenization_spaces": False}
    files.write_json(
        join(directory, "tokenizer_config.json"), {"tokenizer_class": "PreTrainedTokenizerFast", **special, **limits}
    )
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad, "vocab_size": tokenizer.get_vocab_size()}
    files.write_json(join(directory, "config.json"), ARCHITECTURE | ids)
