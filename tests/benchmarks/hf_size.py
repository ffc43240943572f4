"""Hugging Face in and out at real size: `python tests/benchmarks/hf_size.py --place=DIR [--layers=32] [--no_peft]`.

Makes a synthetic Llama-3.1-8B in DIR (16 GB of random bf16 in four shards) and a run with LoRA of rank 128 on all projections,
then measures by turns, each in a process of its own, every file out of the page cache before it: reading and loading, copying and
merging, merging with PEFT; and compares an export without an adapter with its base, tensor by tensor. Prints a Markdown table and
fails where a bar is missed. DIR holds at most 36 GB at a time and only base and run at the end, which the next call finds again.
Bars and results: hf_size.md.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from absl import app, flags, logging

from alif_jax import files
from alif_jax.checkpoint import open_checkpointer, save
from alif_jax.export import export_run, write_merged
from alif_jax.hf import hf_keys, load_params, read_model_config
from alif_jax.load import NOTHING_TRAINED, read_run
from alif_jax.lora import LoraConfig
from alif_jax.model import skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.peft import shape_in_file
from alif_jax.safetensors import Checkpoint, Tensor, write_sharded
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tiny_base import make_tiny_base
from alif_jax.train import TrainConfig, as_json

PLACE = flags.DEFINE_string("place", None, "directory for everything that is made", required=True)
LAYERS = flags.DEFINE_integer("layers", 32, "of the synthetic model; 32 is the real size")
NO_PEFT = flags.DEFINE_bool("no_peft", False, "leave PEFT's own merge out, which holds the whole model in memory")
CHILD = flags.DEFINE_string("child", "", "one measurement, in this process")

LLAMA_31_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096,
    "intermediate_size": 14_336, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0, "max_position_embeddings": 131_072, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
                     "rope_type": "llama3"},
}  # fmt: skip
LORA = LoraConfig(rank=128, alpha=256.0)
GIB = 2**30


# --- what is measured on


def make_base(directory: str) -> None:
    """Weights of random sign and fraction between 1/64 and 1/32, each rows' seed made of the tensor's name and their place."""
    bf16 = np.dtype(ml_dtypes.bfloat16)
    with files.new_directory(directory) as temporary:
        make_tiny_base(temporary, ["پاکستان ایک ملک ہے۔ یہاں اردو بولی جاتی ہے۔"], vocab_size=300)
        made = json.loads(Path(temporary, "config.json").read_text())
        tokens = {key: made[key] for key in ("bos_token_id", "eos_token_id")}
        files.write_json(f"{temporary}/config.json", LLAMA_31_8B | tokens | {"num_hidden_layers": LAYERS.value})
        config = read_model_config(temporary)
        model = skeleton(config, LoraConfig(full=True))
        tensors = {}
        for name in model.trainable:
            shape = shape_in_file(name, model, config)
            for key in hf_keys(name, config.num_hidden_layers):
                tensors[key] = Tensor(shape, bf16, partial(random_rows, key, shape))
        write_sharded(temporary, tensors, shard_bytes=-(-sum(tensor.bytes for tensor in tensors.values()) // 4) + GIB // 4)


def random_rows(key: str, shape: tuple[int, ...], rows: slice) -> np.ndarray:
    rng = np.random.Generator(np.random.SFC64([zlib.crc32(key.encode()), rows.start]))
    shape = (rows.stop - rows.start, *shape[1:])
    bits = np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint16) & 0x807F | 0x3C80
    return bits.view(ml_dtypes.bfloat16).reshape(shape)


def make_run(workdir: str, base: str) -> None:
    """As training leaves it, with random adapters."""
    config = TrainConfig(lora=LORA)
    config.model.path, config.data.template = base, "turns"
    model = skeleton(read_model_config(base), LORA)
    rng = np.random.default_rng(0)
    trained = {name: jnp.asarray(0.01 * rng.standard_normal(model.shapes[name].shape, np.float32)) for name in model.trainable}
    Path(workdir).mkdir()
    with open_checkpointer(workdir, save_total_limit=1) as checkpointer:
        state = {"trainable": trained, "optimizer": {"count": jnp.asarray(1)}}
        save(checkpointer, 1, state, heldout_loss=None, about={})
    files.write_json(f"{workdir}/config.json", as_json(config))  # last: without it there is no run here


# --- the measurements, each in a process of its own


def read(place: str) -> None:
    buffer = bytearray(16 * 2**20)
    for path in shards(f"{place}/base"):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def copy(place: str) -> None:
    Path(place, "copy").mkdir()
    for path in shards(f"{place}/base"):
        with open(path, "rb") as source, open(Path(place, "copy", path.name), "wb") as target:
            shutil.copyfileobj(source, target, 16 * 2**20)
    os.sync()


def load(place: str) -> None:
    mesh = make_mesh(MeshConfig(fsdp=8))
    config = read_model_config(f"{place}/base")
    model = skeleton(config, NOTHING_TRAINED, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    jax.block_until_ready(load_params(f"{place}/base", model, model.frozen, mesh, config))


def merge(place: str) -> None:
    export_run(f"{place}/run", f"{place}/merged", "merged", verify=False)
    os.sync()


def adapter(place: str) -> None:
    export_run(f"{place}/run", f"{place}/adapter", "peft", verify=False)
    os.sync()


def without_adapter(place: str) -> None:
    """The base through the exporter, and every tensor compared with the base's."""
    with files.new_directory(f"{place}/without") as temporary:
        write_merged(temporary, read_run(f"{place}/run"), {})
    with Checkpoint(f"{place}/base") as base, Checkpoint(f"{place}/without") as written:
        assert base.entries.keys() == written.entries.keys()
        for name, entry in base.entries.items():
            same = np.array_equal(base.read(name).view(np.uint16), written.read(name).view(np.uint16))
            assert same and entry.dtype == written.entries[name].dtype, f"{name} is not the base's"


def merge_with_peft(place: str) -> None:
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(f"{place}/base", dtype=torch.bfloat16)
    merged = peft.PeftModel.from_pretrained(model, f"{place}/adapter").merge_and_unload()
    merged.save_pretrained(f"{place}/merged_by_peft", max_shard_size="5GB")
    os.sync()


MEASUREMENTS: dict[str, Callable[[str], None]] = {
    "read": read, "load": load, "copy": copy, "merge": merge, "without_adapter": without_adapter, "adapter": adapter,
    "merge_with_peft": merge_with_peft,
}  # fmt: skip


def shards(directory: str) -> list[Path]:
    return sorted(Path(directory).glob("*.safetensors"))


def anonymous() -> int:
    """RssAnon of this process in bytes: memory that is no file's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status")


def measure_here(name: str, place: str) -> dict[str, float]:
    """Seconds, and the peak of RssAnon, asked every 5 ms; what imports need is in it."""
    peak, done = [anonymous()], threading.Event()

    def poll() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        started = time.perf_counter()
        MEASUREMENTS[name](place)
        seconds = time.perf_counter() - started
    finally:
        done.set()
        thread.join()
    return {"seconds": seconds, "anonymous_gib": peak[0] / GIB}


def measured(name: str, place: str) -> dict[str, float]:
    """In a child, with nothing of the base, the run and what was exported in the page cache."""
    os.sync()
    for path in (path for path in Path(place).rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    command = [sys.executable, __file__, f"--place={place}", f"--layers={LAYERS.value}", f"--child={name}"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{name}: exit code {result.returncode}\n{result.stderr[-3000:]}")
    found = json.loads(result.stdout.splitlines()[-1])
    print(f"{name:16} {found['seconds']:7.1f} s {found['anonymous_gib']:6.2f} GiB", file=sys.stderr, flush=True)
    return found


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    place = str(Path(PLACE.value).absolute())
    if CHILD.value:
        print(json.dumps(measure_here(CHILD.value, place)))
        return
    for name in ("copy", "merged", "without", "adapter", "merged_by_peft", "base.tmp"):
        shutil.rmtree(f"{place}/{name}", ignore_errors=True)
    if not Path(place, "run/config.json").exists() or config_of(place).num_hidden_layers != LAYERS.value:
        for name in ("base", "run"):
            shutil.rmtree(f"{place}/{name}", ignore_errors=True)
        make_base(f"{place}/base")
        make_run(f"{place}/run", f"{place}/base")
    found = {}
    for name in MEASUREMENTS:
        if name == "merge_with_peft" and NO_PEFT.value:
            continue
        found[name] = measured(name, place)
        for output in ("copy", "merged", "without", "merged_by_peft"):
            shutil.rmtree(f"{place}/{output}", ignore_errors=True)
    shutil.rmtree(f"{place}/adapter", ignore_errors=True)
    sys.exit(not report(found, sum(path.stat().st_size for path in shards(f"{place}/base"))))


def config_of(place: str) -> ModelConfig:
    return read_model_config(f"{place}/base")


def report(found: dict[str, dict[str, float]], weights: int) -> bool:
    """Prints the table; whether all bars are met."""
    seconds = {name: one["seconds"] for name, one in found.items()}
    memory = {name: one["anonymous_gib"] for name, one in found.items()}
    rows: list[tuple[str, str, str, bool]] = [
        ("reading the files, cold", f"{seconds['read']:.1f} s", "", True),
        ("loading onto 8 devices, cold", *bar(seconds["load"], 2 * seconds["read"], "s")),
        ("the same, anonymous memory", *bar(memory["load"], weights / GIB + 3, "GiB")),
        ("copying the files", f"{seconds['copy']:.1f} s", "", True),
        ("merged export", *bar(seconds["merge"], 3 * seconds["copy"], "s")),
        ("the same, anonymous memory", *bar(memory["merge"], 3, "GiB")),
        ("export without adapter, compared", f"{seconds['without_adapter']:.1f} s, bit for bit the base", "", True),
        ("PEFT adapter", f"{seconds['adapter']:.1f} s, {memory['adapter']:.2f} GiB", "", True),
    ]
    if peft := found.get("merge_with_peft"):
        rows.append(("PEFT's merge_and_unload and save", f"{peft['seconds']:.1f} s, {peft['anonymous_gib']:.2f} GiB", "", True))
    print(f"{LAYERS.value} layers, {weights / 1e9:.2f} GB of weights\n\n| what | measured | the bar |\n|---|---|---|")
    for what, value, limit, met in rows:
        print(f"| {what} | {value} | {limit}{'' if met else ': MISSED'} |")
    return all(met for *_, met in rows)


def bar(value: float, limit: float, unit: str) -> tuple[str, str, bool]:
    return f"{value:.2f} {unit}", f"at most {limit:.2f} {unit}", value <= limit


if __name__ == "__main__":
    app.run(main)
