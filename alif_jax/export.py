"""To Hugging Face: a run into a merged model or a PEFT adapter. No accelerator.

The base is read and written a tensor at a time; the trained parameters are in host memory at once.
"""

import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from alif_jax import UsageError, files
from alif_jax.checkpoint import load_trainables, which_step
from alif_jax.files import join
from alif_jax.hf import cut_vocabulary, hf_keys, is_transposed
from alif_jax.load import read_run
from alif_jax.lora import LoraConfig
from alif_jax.model import skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.peft import write_adapter
from alif_jax.safetensors import Checkpoint, Tensor, write_sharded
from alif_jax.tokenizer import Tokenizer

ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}  # fmt: skip
TOKENIZER_FILES = re.compile(
    r"tokenizer.*|special_tokens_map\.json|chat_template\.jinja|vocab\.json|merges\.txt"
    r"|added_tokens\.json|(LICEN[CS]E|NOTICE).*"
)


def export_run(workdir: str, output: str, form: str, step: str = "latest") -> str:
    """Exports a checkpoint (`latest`, `best` or a step's number) in a `form`, merged or peft. Says in a line what it wrote."""
    run = read_run(workdir)
    trained = exact_tables(load_trainables(workdir, step=which_step(workdir, step)), run.config, run.base)
    if form == "peft":
        export_peft(output, config=run.config, lora=run.lora, trained=trained, base=run.base_name, tokenizer=run.tokenizer)
        only_peft = [f"{', '.join(run.lora.modules_to_save)} as modules_to_save"] if run.lora.modules_to_save else []
        only_peft += ["DoRA"] if run.lora.use_dora else []
        warning = f"; with {' and '.join(only_peft)}, which vLLM and llama.cpp refuse: give them the merged model"
        return f"PEFT adapter for {run.base_name}: {output}{warning if only_peft else ''}"
    base = None if run.random_init else run.base
    export_merged(output, config=run.config, lora=run.lora, trained=trained, base=base, tokenizer=run.tokenizer)
    return f"merged model: {output}"


def exact_tables(trained: Mapping[str, np.ndarray], config: ModelConfig, base: str) -> dict[str, np.ndarray]:
    """Trained parameters in the model's own shapes: without the mesh's padding, new rows within the whole table they belong to."""
    result = {}
    for name, values in trained.items():
        if name.endswith(".new_rows"):
            assert config.original_vocab_size is not None
            with Checkpoint(base) as checkpoint:
                table = checkpoint.read(hf_keys(name, 0)[0]).astype(np.float32)
            table[config.original_vocab_size :] = values[: config.vocab_size - config.original_vocab_size]
            is_head = name.startswith("lm_head")
            result["lm_head.kernel" if is_head else "embed_tokens.embedding"] = table.T if is_head else table
        else:
            result[name] = cut_vocabulary(name, values, config)
    return result


def export_merged(
    output: str,
    *,
    config: ModelConfig,
    lora: LoraConfig,
    trained: Mapping[str, np.ndarray],
    base: str | None,
    tokenizer: Tokenizer,
    dtype: str = "float32",
) -> None:
    """A Hugging Face model directory with W + s·A·B merged in fp32 and cast once. `output` must not exist yet.

    trained: as `exact_tables` gives it. A base that was held quantised is merged from its own files, unquantised.
    base: the directory whose tensors are the frozen ones; None when everything was trained. Tensors keep the base's dtype,
    `dtype` is for those without a base. A partial export never stands under the final name.
    """
    tensors = {}
    with files.new_directory(output) as temporary, Checkpoint(base) if base else nullcontext() as checkpoint:
        for name in skeleton(config, LoraConfig(full=True)).trainable:
            for layer, key in enumerate(hf_keys(name, config.num_hidden_layers)):
                tensors[key] = _merged_tensor(name, layer, key, lora, trained, checkpoint, np.dtype(dtype))
        write_sharded(temporary, tensors)
        hf_config = files.read_json(join(tokenizer.directory, "config.json"))
        hf_config.pop("dtype", None)  # transformers 5's name of torch_dtype; both are read, one would contradict the other
        hf_config |= {"architectures": [ARCHITECTURES[hf_config["model_type"]]], **legacy_rope(config)}
        hf_config["tie_word_embeddings"] = config.tie_word_embeddings
        hf_config["torch_dtype"] = str(tensors["model.embed_tokens.weight"].dtype)
        hf_config["eos_token_id"] = list(tokenizer.stop_ids) if len(tokenizer.stop_ids) > 1 else tokenizer.stop_ids[0]
        files.write_json(join(temporary, "config.json"), hf_config)
        write_tokenizer(temporary, tokenizer)


def _merged_tensor(
    name: str,
    layer: int,
    key: str,
    lora: LoraConfig,
    trained: Mapping[str, np.ndarray],
    checkpoint: Checkpoint | None,
    dtype: np.dtype[Any],
) -> Tensor:
    stacked, module = name.startswith("layers."), name.rsplit(".", 1)[0]
    pick = layer if stacked else slice(None)
    a, b, magnitude = (
        trained.get(f"{module}.{leaf}") if is_weight(name) else None for leaf in ("lora_A", "lora_B", "lora_magnitude")
    )
    if name in trained:
        shape = trained[name].shape[1:] if stacked else trained[name].shape
        shape = tuple(reversed(shape)) if is_transposed(name) else tuple(shape)
    else:
        assert checkpoint is not None, f"{name} is neither trained nor in a base"
        shape = checkpoint.entries[key].shape
    dtype = checkpoint.entries[key].dtype if checkpoint else dtype

    def make() -> np.ndarray:
        if name in trained:
            values = np.asarray(trained[name][pick], np.float32)
            values = values.T if is_transposed(name) else values
        else:
            assert checkpoint is not None
            values = checkpoint.read(key)
        if a is not None and b is not None:
            product = a[pick].astype(np.float32) @ b[pick].astype(np.float32)
            values = values.astype(np.float32) + lora.scale() * (product.T if is_transposed(name) else product)
            if magnitude is not None:
                values *= (magnitude[pick] / np.linalg.norm(values, axis=1))[:, None]
        return values.astype(dtype)

    return Tensor(shape, dtype, make)


def is_weight(name: str) -> bool:
    """Whether an adapter beside it belongs to this parameter (and not to a bias of the same module)."""
    return name.endswith((".kernel", ".embedding"))


def export_peft(
    output: str,
    *,
    config: ModelConfig,
    lora: LoraConfig,
    trained: Mapping[str, np.ndarray],
    base: str,
    tokenizer: Tokenizer,
) -> None:
    """A PEFT adapter with the tokenizer and chat template it was trained on. `output` must not exist yet."""
    if not lora.targets():
        raise UsageError("this run has no adapter (it trained the base itself): export it with --format=merged")
    with files.new_directory(output) as temporary:
        write_adapter(temporary, config=config, lora=lora, trained=trained, base=base)
        write_tokenizer(temporary, tokenizer)


def write_tokenizer(output: str, tokenizer: Tokenizer) -> None:
    """The base's tokenizer files and licence as they are, with the chat template and stop tokens the model was trained on."""
    for name in files.list_names(tokenizer.directory):
        if TOKENIZER_FILES.fullmatch(name):
            files.copy_file(join(tokenizer.directory, name), join(output, name))
    config = files.read_json_or(join(tokenizer.directory, "tokenizer_config.json"), {})
    if tokenizer.template is not None:
        config["chat_template"] = tokenizer.template  # transformers < 4.43, TGI and others read only this place
        files.write_text(join(output, "chat_template.jinja"), tokenizer.template)
    special: dict[str, str | None] = {"eos_token": tokenizer.turn_end_token or tokenizer.eos_token}
    if tokenizer.pad_id is not None:
        special["pad_token"] = tokenizer.core.id_to_token(tokenizer.pad_id)
    files.write_json(join(output, "tokenizer_config.json"), config | special)
    special_map = join(output, "special_tokens_map.json")  # where a base has it, it goes before tokenizer_config.json
    if files.exists(special_map):
        files.write_json(special_map, files.read_json(special_map) | special)
    generation = files.read_json_or(join(tokenizer.directory, "generation_config.json"), {})
    generation |= {"bos_token_id": tokenizer.bos_id, "eos_token_id": list(tokenizer.stop_ids)}
    generation["pad_token_id"] = tokenizer.pad_id
    files.write_json(join(output, "generation_config.json"), generation)


def legacy_rope(config: ModelConfig) -> dict[str, Any]:
    """Rope keys in the form that transformers 4.x and 5.x both read; floats must be floats."""
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_theta": config.rope_theta, "rope_scaling": None}
    return {"rope_theta": config.rope_theta, "rope_scaling": {"rope_type": "llama3", **vars(scaling)}}
