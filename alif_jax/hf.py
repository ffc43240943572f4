"""From Hugging Face: a model directory into device shards. `hf_keys` names every tensor, here and in export.py."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from alif_jax import UsageError, files
from alif_jax.files import join
from alif_jax.lora import quantized
from alif_jax.model import Params, Skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.safetensors import Checkpoint
from alif_jax.sharding import sharding_of

NEVER_LOADED = re.compile(r"\.rotary_emb\.inv_freq$")  # computed from the config; old checkpoints still carry it


def hf_modules(name: str, layers: int) -> list[str]:
    """The Hugging Face modules behind one of our parameters: one a layer for a stacked parameter, else one.

    layers.mlp.up_proj.kernel → model.layers.0.mlp.up_proj, model.layers.1.…
    """
    module = name.rsplit(".", 1)[0]
    if module == "lm_head":
        return ["lm_head"]
    if module.startswith("layers."):
        return [f"model.layers.{i}.{module.removeprefix('layers.')}" for i in range(layers)]
    return [f"model.{module}"]


def is_base(name: str) -> bool:
    """Whether a base model has this parameter: adapters and `new_rows` are ours alone, a scale belongs to its `kernel_qvalue`."""
    return ".lora_" not in name and not name.endswith((".new_rows", ".kernel_scale"))


def is_transposed(name: str) -> bool:
    """Our kernels are [in, out], torch's weights [out, in]."""
    return name.endswith((".kernel", ".kernel_qvalue"))


def hf_keys(name: str, layers: int) -> list[str]:
    """The tensors behind one of our base parameters: a bias is a `.bias`, everything else a `.weight`, kernels transposed."""
    leaf = "bias" if name.endswith(".bias") else "weight"
    return [f"{module}.{leaf}" for module in hf_modules(name, layers)]


def vocabulary_axis(name: str) -> int | None:
    """Which axis of a parameter is the vocabulary, padded on the mesh; None for all others."""
    return {"embed_tokens.embedding": 0, "lm_head.kernel": 1, "embed_tokens.lora_A": 0, "lm_head.lora_B": 1}.get(name)


def pad_vocabulary(name: str, values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Zeros for the rows that only fill up the mesh."""
    axis = vocabulary_axis(name)
    if axis is None:
        return values
    missing = config.padded_vocab_size - values.shape[axis]
    return np.pad(values, [(0, missing if at == axis else 0) for at in range(values.ndim)])


def cut_vocabulary(name: str, values: np.ndarray, config: ModelConfig) -> np.ndarray:
    """The parameter without the rows that only fill up the mesh."""
    axis = vocabulary_axis(name)
    return values if axis is None else values[: config.vocab_size] if axis == 0 else values[:, : config.vocab_size]


def resolve_model(path: str, *, weights: bool = True, revision: str = "") -> str:
    """A directory (local or by fsspec address) as it is; a hub id downloaded by huggingface_hub. Errors name both readings.

    revision: of a hub id, a commit, branch or tag; empty: the newest.
    """
    if not path:
        raise UsageError("no base model: set --config.model.path=DIR_OR_HUB_ID")
    if "://" in path or os.path.isdir(files.absolute(path)):
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        raise UsageError(f"{path}: neither a directory here nor a hub id of the form owner/name")
    try:
        patterns = ["*.json", "*.jinja", "*.txt", "README.md", "LICEN[CS]E*", "NOTICE*"]  # the licence goes with what is made of it
        patterns += ["model*.safetensors"] if weights else []
        return huggingface_hub.snapshot_download(path, revision=revision or None, allow_patterns=patterns)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no such directory here, and the hub did not give it ({error})") from None


def commit_of(directory: str) -> str:
    """The commit of a directory that `resolve_model` downloaded (hub cache: …/snapshots/COMMIT), empty for any other."""
    above, name = os.path.split(directory.rstrip("/"))
    return name if os.path.basename(above) == "snapshots" and re.fullmatch("[0-9a-f]{40}", name) else ""


def read_model_config(directory: str) -> ModelConfig:
    return ModelConfig.from_hf(files.read_json(join(directory, "config.json")))


def load_params(directory: str, model: Skeleton, names: tuple[str, ...], mesh: Mesh, config: ModelConfig) -> Params:
    """Reads the named parameters straight into their device shards, a tensor at a time; quantised ones are rounded there.

    A process reads each tensor once, and of it the rows that its own devices hold (columns, which fsdp splits of most weights, are
    cut out of these rows), while the one before is sent. It is sent as the file has it; devices turn and convert it.
    `new_rows` of a table are the last rows of that table.

    Raises UsageError for a tensor that is missing, unexpected, there twice, or of another shape, naming it.
    """
    with Checkpoint(directory) as checkpoint:
        _check_tensors(checkpoint, directory, model, config)
        params: Params = {}
        for name in names:
            if name.endswith(".kernel_qvalue"):
                scale = name.replace("_qvalue", "_scale")
                specs = tuple(sharding_of(mesh, model.axes[n], model.shapes[n].shape, n).spec for n in (name, scale))
                how = str(model.shapes[name].dtype).replace("uint4", "nf4")
                kernel = _load(checkpoint, name, model, mesh, config, dtype=jnp.bfloat16)
                # each device its own shard: no tile crosses a border, and the partitioner would gather NF4's whole kernel
                round_off = partial(quantized, axes=model.axes[name][1:], how=how)
                params[name], params[scale] = jax.jit(
                    jax.shard_map(round_off, mesh=mesh, in_specs=specs[0], out_specs=specs, check_vma=False)
                )(kernel)
                kernel.delete()  # before the next one is read
            elif not name.endswith(".kernel_scale"):
                params[name] = _load(checkpoint, name, model, mesh, config, dtype=model.shapes[name].dtype)
        return params


def _check_tensors(checkpoint: Checkpoint, directory: str, model: Skeleton, config: ModelConfig) -> None:
    """Raises UsageError unless the files hold exactly this architecture's tensors, in its shapes."""
    layers = config.num_hidden_layers
    expected = {key: name for name in model.shapes if is_base(name) for key in hf_keys(name, layers)}
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    found = {key for key in checkpoint.entries if not NEVER_LOADED.search(key)} - tied
    for problem, keys in (("is missing", expected.keys() - found), ("is not of this architecture", found - expected.keys())):
        if keys:
            raise UsageError(f"{directory}: tensor {min(keys)} {problem} ({len(keys)} such in all)")
    for key, name in expected.items():
        shape = tuple(model.shapes[name].shape[name.startswith("layers.") :])
        wanted = shape[::-1] if is_transposed(name) else shape
        if vocabulary_axis(name) is not None:
            wanted = (config.vocab_size, *wanted[1:])
        if checkpoint.entries[key].shape != wanted:
            raise UsageError(f"{directory}: {key} has shape {checkpoint.entries[key].shape}, config.json implies {wanted}")


def _load(
    checkpoint: Checkpoint, name: str, model: Skeleton, mesh: Mesh, config: ModelConfig, *, dtype: jax.typing.DTypeLike
) -> jax.Array:
    shape = model.shapes[name].shape
    sharding = sharding_of(mesh, model.axes[name], shape, name)
    transposed, stacked = is_transposed(name), name.startswith("layers.")
    one, of_one = shape[stacked:], NamedSharding(mesh, PartitionSpec(*sharding.spec[stacked:]))
    rows_axis = 1 if transposed else 0  # ours that is the file's first
    first = config.padded_vocab_size - shape[0] if name.endswith(".new_rows") else 0
    indices = of_one.addressable_devices_indices_map(one).values()
    own = [index[rows_axis].indices(one[rows_axis])[:2] for index in indices if index]
    begin, end = min(start for start, _ in own) + first, max(stop for _, stop in own) + first

    def send(key: str) -> jax.Array:
        return jax.make_array_from_callback(one, of_one, partial(part, checkpoint.read(key, slice(begin, end))))

    def part(values: np.ndarray, index: tuple[slice, ...]) -> np.ndarray:
        """One device's, of the rows `begin` to `end`; rows beyond the file's last are the padding of the vocabulary: zeros."""
        start, stop, _ = index[rows_axis].indices(one[rows_axis])
        cut = values[start + first - begin : stop + first - begin]
        missing = stop - start - len(cut)
        cut = np.pad(cut, [(0, missing), *[(0, 0)] * (cut.ndim - 1)]) if missing else cut
        cut = cut[:, index[0]].T if transposed else cut[:, *index[1:]]
        return cut.astype(dtype) if cut.dtype.itemsize > np.dtype(dtype).itemsize else cut  # the fewer bytes travel

    whole = jax.jit(partial(jnp.zeros, shape, dtype), out_shardings=sharding)() if stacked else None
    for layer, sent in enumerate(_ahead(send, hf_keys(name, config.num_hidden_layers))):
        whole = sent.astype(dtype) if whole is None else _place(whole, sent, layer)
    assert whole is not None
    return whole


@partial(jax.jit, donate_argnums=0)
def _place(whole: jax.Array, one: jax.Array, layer: int) -> jax.Array:
    """`one` as a layer of the `whole`."""
    return jax.lax.dynamic_update_index_in_dim(whole, one.astype(whole.dtype), layer, 0)


def _ahead(send: Callable[[str], jax.Array], keys: Sequence[str]) -> Iterator[jax.Array]:
    """`send` of every key in order, two at a time in threads: most of it is reading, and turning what was read."""
    with ThreadPoolExecutor(2) as pool:
        coming: deque[Future[jax.Array]] = deque()
        for key in keys:
            coming.append(pool.submit(send, key))
            if len(coming) > 2:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
