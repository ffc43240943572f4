"""To Hugging Face: a run into a merged model or a PEFT adapter. No accelerator.

Base and trained parameters are read, merged and written by pieces of rows; of the trained ones a module's are in memory at a time.
"""

import posixpath
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any

import numpy as np

from alif_jax import UsageError, files
from alif_jax.card import refused_by_vllm, write_card
from alif_jax.checkpoint import existing_step, load_trainables, which_step
from alif_jax.files import join
from alif_jax.hf import hf_keys
from alif_jax.load import Run, read_run
from alif_jax.lora import LoraConfig
from alif_jax.model import skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.peft import Loaders, adapter_config, adapter_tensors, in_file, shape_in_file, with_new_rows
from alif_jax.safetensors import NAMES, Checkpoint, Tensor, write, write_sharded
from alif_jax.tokenizer import Tokenizer
from alif_jax.verify import verify_export

DTYPES = {str(dtype): dtype for dtype in NAMES}  # float32, float16, bfloat16
BASE = "base"  # where a resized base goes along with its adapter
ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
}  # fmt: skip
TOKENIZER_FILES = re.compile(
    r"tokenizer.*|special_tokens_map\.json|chat_template\.jinja|vocab\.json|merges\.txt"
    r"|added_tokens\.json|(LICEN[CS]E|NOTICE).*"
)


def export_run(workdir: str, output: str, form: str, step: str = "latest", *, dtype: str = "", verify: bool = True) -> str:
    """Exports a checkpoint (`latest`, `best` or a step's number) in a `form`, merged or peft. Says in a few lines what it wrote.

    dtype: one of DTYPES; "" is the base's own for a merged model, fp32 for an adapter. verify: transformers (and PEFT) must
    answer as the run does, or UsageError. Whatever fails on the way, nothing stands under the name `output`.
    """
    if dtype and dtype not in DTYPES:
        raise UsageError(f"dtype={dtype}: expected one of {', '.join(DTYPES)}")
    run = read_run(workdir)
    number = existing_step(workdir, which_step(workdir, step))
    trained = {name: partial(_read_trained, workdir, number, name) for name in skeleton(run.config, run.lora).trainable}
    with files.new_directory(output) as temporary:
        if form == "peft":
            said = f"PEFT adapter for {write_peft(temporary, run, trained, output=output, dtype=dtype or 'float32')}: {output}"
            said += _refused_by_others(run.lora)
        else:
            write_merged(temporary, run, trained, dtype=dtype)
            said = f"merged model: {output}"
        write_card(temporary, form=form, workdir=workdir, step=number, run=run)
        if verify:
            said += "\n" + verify_export(temporary, form=form, workdir=workdir, step=number)
    return said


def _read_trained(workdir: str, step: int, name: str) -> np.ndarray:
    return load_trainables(workdir, step=step, names=(name,))[name]


def _refused_by_others(lora: LoraConfig) -> str:
    parts = refused_by_vllm(lora)
    return f"; with {' and '.join(parts)}, which vLLM and llama.cpp refuse: give them the merged model" if parts else ""


# --- merged


def write_merged(directory: str, run: Run, trained: Loaders, *, dtype: str = "") -> None:
    """A Hugging Face model directory with W + s·A·B merged in fp32 and cast once.

    trained: of the trained parameters one module's are in memory at a time. A base that was held quantised is merged from its own
    files, unquantised. dtype: "" keeps the base's own (fp32 where everything was trained from nothing).
    """
    config, tokenizer = run.config, run.tokenizer
    with nullcontext() if run.random_init else Checkpoint(run.base) as base:
        tensors = merged_tensors(run, trained, base, dtype)
        files.check_space(directory, sum(tensor.bytes for tensor in tensors.values()) + _bytes_beside(tokenizer))
        write_sharded(directory, tensors)
    hf_config = files.read_json(join(tokenizer.directory, "config.json"))
    hf_config.pop("dtype", None)  # transformers 5's name of torch_dtype; both are read, one would contradict the other
    hf_config |= {"architectures": [ARCHITECTURES[hf_config["model_type"]]], **legacy_rope(config)}
    hf_config["tie_word_embeddings"] = config.tie_word_embeddings
    hf_config["torch_dtype"] = str(tensors["model.embed_tokens.weight"].dtype)
    hf_config["eos_token_id"] = list(tokenizer.stop_ids) if len(tokenizer.stop_ids) > 1 else tokenizer.stop_ids[0]
    files.write_json(join(directory, "config.json"), hf_config)
    write_tokenizer(directory, tokenizer)


def merged_tensors(run: Run, trained: Loaders, base: Checkpoint | None, dtype: str) -> dict[str, Tensor]:
    """Every tensor of the merged model by its Hugging Face name. Raises UsageError for one that the base should have."""
    of_module = lru_cache(maxsize=1)(partial(_of_module, trained))
    model, tensors = skeleton(run.config, LoraConfig(full=True)), {}
    for name in model.trainable:
        shape = shape_in_file(name, model, run.config)
        for layer, key in enumerate(hf_keys(name, run.config.num_hidden_layers)):
            if base:
                _check_in_base(base, key, shape)
            elif name not in trained:
                raise UsageError(f"{run.base_name}: {name} was neither trained nor read from a base; such a run cannot be merged")
            made_as = DTYPES[dtype] if dtype else base.entries[key].dtype if base else DTYPES["float32"]
            tensors[key] = Tensor(shape, made_as, partial(_merged_rows, name, layer, key, run, of_module, base, made_as))
    return tensors


def _of_module(trained: Loaders, module: str) -> dict[str, np.ndarray]:
    """What was trained of a module, by leaf: its own parameters, or its adapter."""
    return {name.rsplit(".", 1)[1]: load() for name, load in trained.items() if name.rsplit(".", 1)[0] == module}


def _check_in_base(base: Checkpoint, key: str, shape: tuple[int, ...]) -> None:
    if key not in base.entries:
        raise UsageError(f"{base.directory}: tensor {key} is missing; give the base that the run was trained on, whole")
    if base.entries[key].shape != shape:
        raise UsageError(f"{base.directory}: {key} has shape {base.entries[key].shape}, config.json implies {shape}")


def _merged_rows(
    name: str,
    layer: int,
    key: str,
    run: Run,
    of_module: Callable[[str], dict[str, np.ndarray]],
    base: Checkpoint | None,
    dtype: np.dtype[Any],
    rows: slice,
) -> np.ndarray:
    """Rows of one tensor as they are written."""
    module, leaf = name.rsplit(".", 1)
    values = of_module(module)
    if leaf in values:
        made = in_file(name, layer, values[leaf], run.config)[rows]
    else:
        assert base is not None
        new = values.get("new_rows") if is_weight(name) else None
        made = base.read(key, rows) if new is None else with_new_rows(f"{module}.new_rows", new, rows, run.config, base)
    if "lora_B" in values and is_weight(name):
        a, b = (in_file(f"{module}.{leaf}", layer, values[leaf], run.config) for leaf in ("lora_A", "lora_B"))
        with np.errstate(invalid="ignore"):  # of weights that are not finite, which are refused below by their name
            product = a.T[rows] @ b.T if module == "embed_tokens" else b[rows] @ a
            product *= np.float32(run.lora.scale())
        made = made.astype(np.float32)
        made += product
        if "lora_magnitude" in values:
            made *= (values["lora_magnitude"][layer][rows] / np.linalg.norm(made, axis=1))[:, None]
    return made.astype(dtype, copy=False)


def is_weight(name: str) -> bool:
    """Whether an adapter beside it belongs to this parameter (and not to a bias of the same module)."""
    return name.endswith((".kernel", ".embedding"))


# --- PEFT


def write_peft(directory: str, run: Run, trained: Loaders, *, output: str, dtype: str = "float32") -> str:
    """A PEFT adapter with the tokenizer and chat template it was trained on; returns the name of its base.

    A base whose vocabulary was extended here is on no hub: it goes along, in `base/`, and the adapter names that directory under
    `output`, the adapter's final name, in full, as any local base: PEFT takes a relative name from where it is called.
    """
    if not run.lora.targets():
        raise UsageError("this run has no adapter (it trained the base itself): export it with --format=merged")
    with Checkpoint(run.base) as base:
        tensors = adapter_tensors(run.config, run.lora, trained, base, DTYPES[dtype])
        copied = _model_files(base) if run.brings_base else []
        needed = sum(tensor.bytes for tensor in tensors.values()) + _bytes_beside(run.tokenizer)
        files.check_space(directory, needed + sum(files.size(join(run.base, name)) for name in copied))
        write(join(directory, "adapter_model.safetensors"), tensors)
    if run.brings_base:
        files.make_directory(join(directory, BASE))
        for name in copied:
            files.copy_file(join(run.base, name), join(directory, BASE, name))
    name = files.absolute(join(output, BASE) if run.brings_base else run.base) if run.is_local else run.base_name
    config = adapter_config(run.config, run.lora, base=name, revision=run.revision or None)
    files.write_json(join(directory, "adapter_config.json"), config)
    write_tokenizer(directory, run.tokenizer)
    return name


def _model_files(base: Checkpoint) -> list[str]:
    """The files of a model directory: config, weights, tokenizer, licence."""
    index = "model.safetensors.index.json"
    weights = {posixpath.basename(entry.path) for entry in base.entries.values()}
    others = {"config.json", "generation_config.json", *([index] if weights != {"model.safetensors"} else [])}
    return [
        name
        for name in files.list_names(base.directory)
        if name in weights or name in others or TOKENIZER_FILES.fullmatch(name)
    ]


# --- what goes with either


def _bytes_beside(tokenizer: Tokenizer) -> int:
    """The files that go with the weights, and a mebibyte for those that are written anew."""
    names = [name for name in files.list_names(tokenizer.directory) if TOKENIZER_FILES.fullmatch(name)]
    return 2**20 + sum(files.size(join(tokenizer.directory, name)) for name in names)


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
