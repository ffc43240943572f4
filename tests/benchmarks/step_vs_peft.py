"""A LoRA step of ours against one of transformers + PEFT: `python tests/benchmarks/step_vs_peft.py [--device=gpu] [--remat=full]`.

Same architecture, weights, adapters, batch, rank and dtype; each side is a child process that loads one directory of random weights
and one PEFT adapter and takes optimizer steps when told to, by turns with the other. Prints tokens/s, peak memory, their ratios and
ours as a share of what a plain matrix product reaches in the same process. Method and results: step_vs_peft.md.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "gpu"], "where both run; gpu: one CUDA device, torch with CUDA, jax[cuda]")
SHAPE = flags.DEFINE_enum("shape", None, ["tiny", "0.2b", "8b"], "of the model; by default 0.2b on the CPU and 8b on a GPU")
ROWS = flags.DEFINE_integer("rows", 4, "of a batch")
LENGTH = flags.DEFINE_integer("length", None, "of a row; by default 512 on the CPU and 2048 on a GPU")
RANK = flags.DEFINE_integer("rank", None, "of the adapters on all seven projections; by default 16 on the CPU and 128 on a GPU")
DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16"], "of the base and the computation; by default fp32 on the CPU")
EMBEDDINGS = flags.DEFINE_bool("embeddings", False, "train embeddings and head in full, too")
REMAT = flags.DEFINE_string("remat", None, "ours: model.remat; by default products kept on the CPU, `full` on a GPU")
ATTENTION = flags.DEFINE_string("attention", None, "ours: model.attention; by default what `auto` takes for packed rows")
CHUNK = flags.DEFINE_integer("loss_chunk", 512, "ours: model.loss_chunk")
CHECKPOINTING = flags.DEFINE_bool("gradient_checkpointing", None, "theirs; by default not on the CPU, and on on a GPU")
THEIR_ATTENTION = flags.DEFINE_enum("their_attention", "sdpa", ["sdpa", "eager"], "theirs: attn_implementation")
TORCH_COMPILE = flags.DEFINE_bool("torch_compile", False, "theirs: torch.compile of the model")
ROUNDS = flags.DEFINE_integer("rounds", 6, "in each of which either side has its turn")
STEPS = flags.DEFINE_integer("steps", 1, "of a turn")
ONLY = flags.DEFINE_enum("only", None, ["ours", "theirs"], "run one side alone")
WORKER = flags.DEFINE_enum("worker", None, ["base", "ours", "theirs"], "for the child processes")
PLACE = flags.DEFINE_string("place", None, "for the child processes: directory of base and adapter")

SHAPES = {
    "tiny": {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "0.2b": {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 8,
             "num_attention_heads": 16, "num_key_value_heads": 4},
    "8b": {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8},
}  # fmt: skip
PRODUCTS = "q_proj+k_proj+v_proj+attention+o_proj+gate_proj+up_proj"  # kept: all but down_proj, which no gradient needs
LEARNING_RATE, CHECKED_STEPS, CORES = 1e-3, 3, len(os.sched_getaffinity(0))
TABLES = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class Side:
    """One trainer: `step()` takes an optimizer step and returns the loss before it; `peak()` bytes of an accelerator, 0 on the CPU.

    imported: bytes that the process held when its imports were done.
    product(): FLOP/s of a 4096³ matrix product in the dtype of the computation, None where this side has none.
    """

    step: Callable[[], float]
    peak: Callable[[], int]
    imported: int
    product: Callable[[], float] | None = None
    flops_per_token: float = 0.0
    device: str = "cpu"


def settings() -> dict[str, Any]:
    """What differs between the CPU's row and the GPU's, the flags over it."""
    gpu = DEVICE.value == "gpu"
    defaults: dict[str, tuple[Any, Any]] = {
        "shape": (SHAPE.value, "8b" if gpu else "0.2b"), "length": (LENGTH.value, 2048 if gpu else 512),
        "rank": (RANK.value, 128 if gpu else 16), "dtype": (DTYPE.value, "bfloat16" if gpu else "float32"),
        "remat": (REMAT.value, "full" if gpu else PRODUCTS), "checkpointing": (CHECKPOINTING.value, gpu),
    }  # fmt: skip
    return {name: default if value is None else value for name, (value, default) in defaults.items()}


def batch(rows: int, length: int, vocabulary: int) -> np.ndarray:
    """Tokens [rows, length]: full rows of one document each, so that no side has padding to skip or a mask to pay for."""
    return np.random.default_rng(0).integers(0, vocabulary, (rows, length)).astype(np.int32)


# --- the children


def make_base(place: Path) -> None:
    """Random weights and a fresh adapter, written by transformers and PEFT: `place`/base and `place`/adapter."""
    import peft
    import torch
    import transformers

    how = settings()
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **SHAPES[how["shape"]], max_position_embeddings=how["length"], rms_norm_eps=1e-5, rope_theta=500_000.0,
        initializer_range=0.04, tie_word_embeddings=False, dtype=how["dtype"],
    )  # fmt: skip
    with torch.device("cuda" if DEVICE.value == "gpu" else "cpu"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, how["dtype"]))
    model.save_pretrained(place / "base")
    lora = peft.LoraConfig(
        r=how["rank"], lora_alpha=2 * how["rank"], target_modules="all-linear", task_type="CAUSAL_LM",
        modules_to_save=list(TABLES) if EMBEDDINGS.value else None, base_model_name_or_path=str(place / "base"),
    )  # fmt: skip
    peft.get_peft_model(model, lora).save_pretrained(place / "adapter")


def ours(place: Path) -> Side:
    import jax
    import jax.numpy as jnp

    from alif_jax.attention import choose_backend
    from alif_jax.flops import flops_per_token
    from alif_jax.hf import load_params, read_model_config
    from alif_jax.load import ModelSource
    from alif_jax.lora import LoraConfig
    from alif_jax.model import skeleton
    from alif_jax.optim import OptimConfig, optimizer
    from alif_jax.sharding import MeshConfig, make_mesh, put_batch
    from alif_jax.step import compile_step, init_state

    imported, how = resident("VmRSS"), settings()
    base, mesh = str(place / "base"), make_mesh(MeshConfig(), jax.devices()[:1])
    config, source = read_model_config(base), ModelSource(path=base, init_from=str(place / "adapter"), remat=how["remat"])
    lora = LoraConfig(rank=how["rank"], alpha=2 * how["rank"], modules_to_save=TABLES if EMBEDDINGS.value else ())
    dtype = jnp.dtype(how["dtype"])
    attention = ATTENTION.value or choose_backend(packing=True, platform=DEVICE.value, dtype=how["dtype"])
    model = skeleton(config, lora, dtype=dtype, param_dtype=dtype, remat=how["remat"], attention=attention)
    tx = optimizer(OptimConfig(learning_rate=LEARNING_RATE, lr_scheduler_type="constant"), 1000)
    frozen = load_params(base, model, model.frozen, mesh, config)
    state = init_state(source, lora, config, model, tx, mesh, base, frozen, seed=0)
    tokens = batch(ROWS.value, how["length"], config.vocab_size)[None]
    at, ones = np.arange(how["length"], dtype=np.int32), np.ones_like(tokens)
    host = {
        "tokens": tokens, "targets": np.roll(tokens, -1, axis=-1), "segment_ids": ones, "positions": at * ones,
        "loss_mask": ((at + 1 < how["length"]) * ones).astype(np.float32),
    }  # fmt: skip
    step_fn = compile_step(model, tx, mesh, chunk=CHUNK.value)

    def step() -> float:
        nonlocal state
        with jax.set_mesh(mesh):
            trainable, opt_state, metrics = step_fn(*state, frozen, put_batch(mesh, host))
        state = trainable, opt_state
        jax.block_until_ready(state)
        return float(metrics["loss"])

    times = jax.jit(jnp.matmul)

    def product() -> float:
        square = jnp.full((4096, 4096), 0.5, dtype)
        times(square, square).block_until_ready()
        began = time.perf_counter()
        for _ in range(repeats := 2 if DEVICE.value == "cpu" else 50):
            result = times(square, square)
        result.block_until_ready()
        return repeats * 2 * 4096**3 / (time.perf_counter() - began)

    device = jax.devices()[0]
    return Side(
        step, lambda: (device.memory_stats() or {}).get("peak_bytes_in_use", 0), imported, product,
        flops_per_token(config, lora, context=how["length"]), device.device_kind,
    )  # fmt: skip


def theirs(place: Path) -> Side:
    import peft
    import torch
    import transformers

    imported, how, device = resident("VmRSS"), settings(), "cuda" if DEVICE.value == "gpu" else "cpu"
    torch.set_num_threads(CORES)
    dtype = getattr(torch, how["dtype"])
    base = transformers.AutoModelForCausalLM.from_pretrained(
        place / "base", dtype=dtype, attn_implementation=THEIR_ATTENTION.value, device_map=None if device == "cpu" else device
    )
    base.config.use_cache = False
    if how["checkpointing"]:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    model = peft.PeftModel.from_pretrained(base, str(place / "adapter"), is_trainable=True).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    tokens = torch.tensor(batch(ROWS.value, how["length"], base.config.vocab_size), device=device).long()
    forward = torch.compile(model) if TORCH_COMPILE.value else model

    def step() -> float:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=how["dtype"] == "bfloat16"):
            loss = forward(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return Side(step, torch.cuda.max_memory_allocated if device == "cuda" else lambda: 0, imported)


def resident(key: str) -> int:
    """Bytes of this process by /proc: `VmRSS` now, `VmHWM` at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def serve(make: Callable[[Path], Side], place: Path) -> None:
    """Answers lines of JSON on stdin; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    side = make(place)
    for line in sys.stdin:
        order = json.loads(line)
        answer: dict[str, Any] = {}
        if "steps" in order:
            cpu, began = time.process_time(), time.perf_counter()
            answer["losses"] = [side.step() for _ in range(order["steps"])]
            answer |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
        if "product" in order and side.product:
            answer["product"] = side.product()
        if "forget" in order:  # the high-water mark begins anew: what is left out is loading and compiling
            Path("/proc/self/clear_refs").write_text("5")
        answer |= {"whole": resident("VmHWM"), "imported": side.imported, "device_peak": side.peak()}
        answer |= {"flops_per_token": side.flops_per_token, "device": side.device}
        print(json.dumps(answer), file=answers, flush=True)


# --- the parent


class Child:
    def __init__(self, worker: str, place: str):
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        if DEVICE.value == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
        self.log = open(Path(place) / f"{worker}.log", "w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], f"--worker={worker}", f"--place={place}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
        )  # fmt: skip

    def ask(self, **order: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            raise SystemExit(f"a child process ended:\n{self.log.read()[-4000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def begin(side: str, place: str) -> tuple[Child, dict[str, Any]]:
    """A child that has compiled and warmed up; its first losses; `whole`: its peak until then; `steps`: the peak of one step."""
    child = Child(side, place)
    first = child.ask(steps=CHECKED_STEPS)
    child.ask(forget=True)
    return child, first | {"steps": child.ask(steps=1)["whole"]}


def turns(place: str) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """(first answers, answers of all rounds) by side. On the CPU both live at once and take turns; on a GPU one after the other."""
    sides = [side for side in ("ours", "theirs") if ONLY.value in (None, side)]
    first: dict[str, dict[str, Any]] = {}
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for together in [sides] if DEVICE.value == "cpu" else [[side] for side in sides]:
        children = {}
        for side in together:
            children[side], first[side] = begin(side, place)
        for _ in range(ROUNDS.value):
            for side in together:
                rounds[side].append(children[side].ask(steps=STEPS.value, product=1))
        for child in children.values():
            child.end()
    return first, rounds


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def report(first: dict[str, dict[str, Any]], rounds: dict[str, list[dict[str, Any]]]) -> None:
    how, gpu = settings(), DEVICE.value == "gpu"
    tokens = ROWS.value * how["length"] * STEPS.value
    rates = {side: [tokens / answer["seconds"] for answer in answers] for side, answers in rounds.items()}
    print("| what | ours | theirs | ratio |\n|---|---|---|---|")

    def row(what: str, values: dict[str, list[float]], form: str) -> None:
        cells = [spread(values[side], form) if side in values else "not measured" for side in ("ours", "theirs")]
        ratios = [a / b for a, b in zip(values["ours"], values["theirs"], strict=True)] if len(values) == 2 else []
        print(f"| {what} | {' | '.join(cells)} | {spread(ratios, '.2f') if ratios else '-'} |")

    row("tokens/s", rates, ".1f")
    row("seconds of processor time a step", {s: [a["cpu_seconds"] / STEPS.value for a in v] for s, v in rounds.items()}, ".2f")
    gib = 1 / 2**30
    if gpu:
        row("peak memory of the device, GiB", {s: [v[-1]["device_peak"] * gib] for s, v in rounds.items()}, ".2f")
    else:
        row("peak memory of the process, GiB", {s: [max(f["whole"], f["steps"]) * gib] for s, f in first.items()}, ".2f")
        row("peak memory of a step, GiB", {s: [f["steps"] * gib] for s, f in first.items()}, ".2f")
        above = {s: [(f["steps"] - f["imported"]) * gib] for s, f in first.items()}
        row("the same above what the imports hold, GiB", above, ".2f")
    row(f"loss of step {CHECKED_STEPS}", {s: [f["losses"][-1]] for s, f in first.items()}, ".5f")
    if "ours" in rounds:
        flops = [rate * rounds["ours"][0]["flops_per_token"] for rate in rates["ours"]]
        shares = [rate / answer["product"] for rate, answer in zip(flops, rounds["ours"], strict=True)]
        print(f"| FLOP/s, 10⁹ | {spread([f / 1e9 for f in flops], '.1f')} | | |")
        print(f"| of the rate of a 4096³ product in the same process | {spread(shares, '.1%')} | | |")
        device = rounds["ours"][0]["device"]
        if peak := peak_flops(device):
            print(f"| LoRA-MFU: of {peak / 1e12:.0f} TFLOP/s | {spread([f / peak for f in flops], '.1%')} | | |")


def peak_flops(device: str) -> float | None:
    from alif_jax import flops

    return flops.peak_flops(device)


def check_losses(first: dict[str, dict[str, Any]]) -> None:
    """The same work on both sides: their first losses agree, those after an update included."""
    if len(first) < 2:
        return
    pairs = list(zip(first["ours"]["losses"], first["theirs"]["losses"], strict=True))
    most = 1e-3 if settings()["dtype"] == "float32" else 3e-2
    if any(abs(a - b) > most for a, b in pairs):
        raise SystemExit(f"the losses of the first steps differ: {pairs}")


def work(worker: str, place: Path) -> None:
    if worker == "base":
        make_base(place)
    else:
        serve(ours if worker == "ours" else theirs, place)


def check_gpu() -> None:
    """In processes of their own: one that has opened a GPU keeps part of it."""
    for code, what in (
        ("import torch; print(torch.cuda.is_available())", "torch with CUDA"),
        ("import jax; print(jax.devices()[0].platform == 'gpu')", "jax[cuda]"),
    ):
        seen = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        if seen.stdout.strip() != "True":
            raise SystemExit(f"--device=gpu: no CUDA device is seen here; run it on a machine with one GPU and {what}")


def main(argv: list[str]) -> None:
    if WORKER.value:
        return work(WORKER.value, Path(PLACE.value or "."))
    how = settings()
    if DEVICE.value == "gpu":
        check_gpu()
    with tempfile.TemporaryDirectory() as place:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--worker=base", f"--place={place}"], check=True)
        first, rounds = turns(place)
    check_losses(first)
    print(", ".join(f"{key}={value}" for key, value in {**how, "rows": ROWS.value, "embeddings": EMBEDDINGS.value}.items()))
    print(", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "torch", "transformers", "peft")), f"{CORES} cores")
    report(first, rounds)


if __name__ == "__main__":
    app.run(main)
