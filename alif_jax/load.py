"""A model ready to run: from a Hugging Face directory, a hub id, or a run directory of this project."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from alif_jax import UsageError, files
from alif_jax.attention import CHOICES
from alif_jax.checkpoint import load_trainables, which_step
from alif_jax.data.template import DataConfig
from alif_jax.files import join
from alif_jax.hf import load_params, read_model_config, resolve_model
from alif_jax.lora import QUANTIZATIONS, LoraConfig
from alif_jax.model import Params, Skeleton, check_remat, skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.peft import adapter_lora, is_adapter, read_adapter
from alif_jax.sharding import replicated
from alif_jax.tokenizer import Tokenizer, load_tokenizer

NOTHING_TRAINED = LoraConfig(rank=0, target_modules=())
UNTRAINED = 0.01  # of the median norm of a table's rows
DTYPES = ("bfloat16", "float32")


@dataclass(kw_only=True)
class ModelSource:
    """path: a Hugging Face directory or hub id. random_init: use its config.json and tokenizer, but start from random weights.
    revision: of a hub id, a commit, branch or tag; the run notes the commit that this was and keeps to it.

    init_from: a run directory, or a PEFT adapter's, whose trained parameters this run starts from: same base, same targets and
    rank. Another scale is folded into B, so that the product stays the same.
    init_from_step: of a run, `latest`, `best` or a step's number.
    dtype: of the computation; param_dtype: of frozen parameters (trained ones are fp32). quantization: `int8` or `nf4` holds
    the frozen projections so, with an fp32 scale every 64 weights.
    attention: `auto` is the fastest that keeps the mask: splash on TPU, pallas (one example a row: cudnn) on GPU, chunked on CPU.
    remat: what the backward pass computes again: `full` everything but each layer's input, `none` nothing; or what is kept, of
    q_proj, k_proj, v_proj, attention, o_proj, gate_proj, up_proj, down_proj, joined by `+`. remat_offload: what is kept waits in
    the host's memory. loss_chunk: tokens of a device whose logits exist at a time.
    """

    path: str = ""
    revision: str = ""
    random_init: bool = False
    init_from: str = ""
    init_from_step: str = "latest"
    dtype: str = "bfloat16"
    param_dtype: str = "bfloat16"
    quantization: str = ""
    remat: str = "full"
    remat_offload: bool = False
    attention: str = "auto"
    loss_chunk: int = 512

    def validate(self) -> None:
        check_remat(self.remat, self.remat_offload)
        for key, allowed in (("dtype", DTYPES), ("param_dtype", DTYPES), ("attention", CHOICES),
                             ("quantization", QUANTIZATIONS)):  # fmt: skip
            if getattr(self, key) not in allowed:
                raise UsageError(f"model.{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Loaded:
    """A model on its mesh, with its tokenizer."""

    config: ModelConfig
    skeleton: Skeleton
    params: Params
    tokenizer: Tokenizer
    mesh: Mesh
    data: DataConfig = field(default_factory=DataConfig)  # of a run: as it was trained


@dataclass(frozen=True)
class Run:
    """What a run directory says of itself.

    base: the directory of its config.json, tokenizer and (unless random_init) weights; base_name: as the user gave it.
    revision: the commit of a base from the hub, else empty.
    """

    base: str
    base_name: str
    random_init: bool
    quantization: str
    config: ModelConfig
    lora: LoraConfig
    data: DataConfig
    tokenizer: Tokenizer
    revision: str = ""

    @property
    def is_local(self) -> bool:
        """Whether the base is a directory, which nobody else has, and not from the hub."""
        return self.base == self.base_name

    @property
    def brings_base(self) -> bool:
        """Whether an adapter's base goes along with it: its vocabulary was extended here."""
        return self.is_local and self.config.original_vocab_size is not None


def is_run(path: str) -> bool:
    """A run directory has a config.json with this project's sections; a Hugging Face directory has a model's."""
    config = join(path, "config.json")
    return files.exists(config) and "lora" in files.read_json(config)


def _keywords(section: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}


def read_run(workdir: str) -> Run:
    resolved = files.read_json(join(workdir, "config.json"))
    lora, data = (_keywords(resolved[section]) for section in ("lora", "data"))
    base_name = resolved["model"]["path"]
    revision = resolved["model"].get("revision", "")
    base = resolve_model(base_name, revision=revision)
    return Run(
        base=base,
        base_name=base_name,
        random_init=resolved["model"]["random_init"],
        quantization=resolved["model"].get("quantization", ""),
        config=read_model_config(base),
        lora=LoraConfig(**lora),
        data=DataConfig(**data),
        tokenizer=load_tokenizer(base, data["template"]),
        revision=revision,
    )


def load_model(
    path: str, mesh: Mesh, *, dtype: Any = jnp.float32, param_dtype: Any = jnp.float32, step: str = "latest"
) -> Loaded:
    """Loads for evaluation or generation.

    A run directory is its base, quantised as it was in training, plus its checkpoint `step` (latest, best, or a number), adapters
    unmerged.
    """
    forward = {"dtype": dtype, "param_dtype": param_dtype, "remat": "none"}  # nothing is computed again: a third faster on a CPU
    if is_run(path):
        run = read_run(path)
        check_heads(run.config, mesh)
        model = skeleton(run.config, run.lora, quantization=run.quantization, **forward)
        params = load_trainables(path, model.abstract(mesh, model.trainable), which_step(path, step))
        if not run.random_init:
            params |= load_params(run.base, model, model.frozen, mesh, run.config)
        return Loaded(run.config, model, params, run.tokenizer, mesh, run.data)
    directory = resolve_model(path)
    config = read_model_config(directory)
    check_heads(config, mesh)
    model = skeleton(config, NOTHING_TRAINED, **forward)
    tokenizer = load_tokenizer(directory)
    check_vocabulary(tokenizer, config)
    return Loaded(config, model, load_params(directory, model, model.frozen, mesh, config), tokenizer, mesh)


def load_adapter(base: Loaded, path: str, *, step: str = "latest") -> Loaded:
    """A PEFT adapter, or a run directory trained on the same base, on the arrays that `base` has loaded already.

    What the adapter trains itself (adapters, whole tables) is its own, and what `base` does not hold as the adapter needs it
    (quantised otherwise, trained there) is loaded from the base's directory. The tokenizer is the run's, or the one beside the
    adapter, or the base's. step: of a run, as for `load_model`. Raises UsageError naming what does not fit.
    """
    dtype, mesh = base.skeleton.dtype, base.mesh
    param_dtype = next((base.skeleton.shapes[name].dtype for name in base.skeleton.frozen if name.endswith(".scale")), dtype)
    directory, data, tokenizer, quantization = base.tokenizer.directory, base.data, base.tokenizer, ""
    if is_run(path):
        run = read_run(path)
        if files.absolute(run.base) != files.absolute(directory):
            raise UsageError(f"{path}: its base is {run.base_name}, not {directory}; serve it on the base that it was trained on")
        lora, data, tokenizer, quantization = run.lora, run.data, run.tokenizer, run.quantization
    elif is_adapter(path):
        lora = adapter_lora(path, base.config)
        if files.exists(join(path, "tokenizer.json")):
            tokenizer = load_tokenizer(path)
            check_vocabulary(tokenizer, base.config)
    else:
        raise UsageError(f"{path}: neither a run directory nor a PEFT adapter (adapter_config.json)")
    model = skeleton(base.config, lora, quantization=quantization, dtype=dtype, param_dtype=param_dtype, remat="none")
    abstract = model.abstract(mesh, model.trainable)
    if is_run(path):
        params = load_trainables(path, abstract, which_step(path, step))
    else:
        values = read_adapter(path, lora, base.config)
        params = {
            name: jax.make_array_from_callback(leaf.shape, leaf.sharding, partial(np.ndarray.__getitem__, values[name]))
            for name, leaf in abstract.items()
        }
    shared = [name for name in model.frozen if _same_leaf(name, model, base.skeleton)]
    params |= {name: base.params[name] for name in shared}
    apart = tuple(name for name in model.frozen if name not in params)
    if apart:
        params |= load_params(directory, model, apart, mesh, base.config)
    return Loaded(base.config, model, params, tokenizer, mesh, data)


def _same_leaf(name: str, model: Skeleton, other: Skeleton) -> bool:
    return name in other.frozen and model.shapes[name] == other.shapes[name]


def check_heads(config: ModelConfig, mesh: Mesh) -> None:
    """Tensor parallelism keeps heads whole: 2-D kernels would divide further, through the middle of a head."""
    if config.num_key_value_heads % mesh.shape["tensor"]:
        raise UsageError(
            f"mesh: {config.num_key_value_heads} key/value heads cannot be divided over tensor = {mesh.shape['tensor']} devices; "
            "choose mesh.tensor as a divisor of them"
        )


def check_vocabulary(tokenizer: Tokenizer, config: ModelConfig) -> None:
    if tokenizer.size > config.vocab_size:
        raise UsageError(
            f"{tokenizer.directory}: the tokenizer has ids up to {tokenizer.size - 1}, but the embedding has only "
            f"{config.vocab_size} rows; use the tokenizer that belongs to this model"
        )


def _norms(table: Array, axis: int) -> Array:
    return jnp.linalg.norm(table.astype(jnp.float32), axis=axis)


def check_turn_tokens(tokenizer: Tokenizer, lora: LoraConfig, frozen: Params, config: ModelConfig, mesh: Mesh) -> None:
    """Raises UsageError for a token of the chat template whose row is frozen and next to zero: nobody ever trained it.

    Base models carry such reserved tokens (Llama 3's <|eot_id|>). An adapter cannot make the model read or write them.
    """
    for name, axis in (("embed_tokens.embedding", 1), ("lm_head.kernel", 0)):
        module = name.split(".")[0]
        if name not in frozen or lora.adapts(module):
            continue
        row_norms = jax.jit(partial(_norms, axis=axis), out_shardings=replicated(mesh))
        norms_V = np.asarray(row_norms(frozen[name]))[: config.vocab_size]
        usual = float(np.median(norms_V))
        for token in tokenizer.template_token_ids():
            if norms_V[token] < UNTRAINED * usual:
                raise UsageError(
                    f"{tokenizer.directory}: the chat template writes {tokenizer.core.id_to_token(token)}, whose row in {module} "
                    f"was never trained (norm {norms_V[token]:.2g}, usual {usual:.2g}) and is frozen in this run; train the tables "
                    "(lora.modules_to_save=embed_tokens,lm_head), or choose a template without it (data.template=alpaca)"
                )
