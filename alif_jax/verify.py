"""Checks an export by other people's software: transformers (with PEFT for an adapter) must answer as the run does.

The run is base plus adapter, unmerged and unquantised, in JAX on the CPU. torch goes first and is freed before JAX begins: a
large model does not fit twice. Optional: nothing here is needed to export. `K` compared positions, `V` vocabulary.
"""

import gc
import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from safetensors import SafetensorError

from alif_jax import UsageError, files
from alif_jax.chat_template import DATE_STRING, TODAY
from alif_jax.checkpoint import load_trainables
from alif_jax.files import join
from alif_jax.hf import load_params
from alif_jax.load import Run, read_run
from alif_jax.lora import LoraConfig
from alif_jax.model import Params, Skeleton, skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.safetensors import Checkpoint
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tokenizer import Tokenizer

URDU = "اردو پاکستان کی قومی زبان ہے۔ بتائیں کہ یہ زبان کہاں کہاں بولی جاتی ہے؟"
ENGLISH = "Explain in two sentences why the sky is blue."
PASSAGE = "دریا کے کنارے ایک پرانا گاؤں ہے جہاں لوگ صبح سویرے کھیتوں کو جاتے ہیں۔ The road to the city is long, and few walk it.\n"
NEW_TOKENS = 24
BUCKET = 128  # the run's side pads prompts to a multiple of this, so that few lengths are compiled
COMPARED = 64  # last positions whose logits are compared: of 8,448 × 128,256 all would be 4.3 GB
LONG = 8192 + 256  # where Llama 3.1's scaling of rope tells, if its keys are lost
LONG_FLOP = 2e12  # of a forward pass over so many tokens that is still made: some ten seconds on two cores
FEW = 512  # tokens of the long prompt otherwise, half of them at its far end
# ‖their logits − ours‖ over ‖ours − their mean‖. Measured on 24 random layers, which spread errors more than trained ones:
# 5e-6 (other orders of sums), 2.4e-2 (merged weights rounded to bf16), 5.6e-2 (all arithmetic in bf16).
TOLERANCE = {"float32": 1e-3, "16-bit weights": 5e-2, "bfloat16": 1.5e-1}
TIE = 4  # tolerances of a position's spread: what two tokens' logits can differ by when all together differ by one


@dataclass(frozen=True)
class Probe:
    """A prompt. positions: of its tokens; they jump where a long prompt stands for a longer one. answered: continued greedily."""

    name: str
    ids: list[int]
    positions: list[int]
    answered: bool = True


@dataclass(frozen=True)
class Answer:
    """What torch made of a probe. ids: all tokens, the prompt's too; logits_KV: fp32, of the last K of them."""

    ids: list[int]
    positions: list[int]
    logits_KV: np.ndarray


LOADING = (OSError, ValueError, RuntimeError, KeyError)  # what transformers and PEFT raise for files that do not fit


def available(form: str) -> bool:
    """Whether what reads an export of this form is installed: transformers and torch, and PEFT for `peft`."""
    needed = ("torch", "transformers", "peft") if form == "peft" else ("torch", "transformers")
    return all(importlib.util.find_spec(name) for name in needed)


def verify_export(directory: str, *, form: str, workdir: str, step: int) -> str:
    """Compares an export (`merged` or `peft`) with the run's checkpoint `step`; says in a line what was checked.

    Checked are the keys on loading, logits and greedy tokens on an Urdu, an English and a long prompt, the chat template's text
    and ids, the stop tokens. Where it cannot be done (an object store, too little memory) the line begins with "not verified".
    Raises UsageError with every difference beyond TOLERANCE.
    """
    run = read_run(workdir)
    base = _base_of(directory, run) if form == "peft" else directory
    remote = [path for path in (directory, base) if not files.is_local(path)]
    if remote:
        return f"not verified: {remote[0]} is no local directory, which transformers would need"
    parameters = sum(shape.size for shape in skeleton(run.config, LoraConfig(full=True)).shapes.values())
    model = skeleton(run.config, run.lora)
    dtype, free = _torch_dtype(parameters, sum(model.shapes[name].size for name in model.trainable)), free_memory()
    if dtype is None:
        return f"not verified: {parameters / 1e9:.1f}B parameters do not fit the {free / 2**30:.1f} GiB of free memory"
    kind = _tolerance_kind(directory, form, dtype)
    probes = make_probes(run.tokenizer, run.config, parameters)
    with _quiet():
        problems = tokenizer_problems(directory, run.tokenizer)
        answers, loading = _ask_torch(directory, base, form, probes, dtype)
    gc.collect()
    problems += loading
    worst = 0.0
    if answers:
        ours = _run_logits(run, workdir, step, answers, "bfloat16" if dtype == "bfloat16" else "float32")
        for probe, answer, ours_KV in zip(probes, answers, ours, strict=True):
            worst = max(worst, error := difference(answer.logits_KV, ours_KV))
            problems += compare(probe, answer, ours_KV, error, TOLERANCE[kind])
    loader = "transformers and PEFT" if form == "peft" else "transformers"
    if problems:
        raise UsageError(f"{loader} do not answer as the run does: {'; '.join(problems)}")
    long = probes[-1]
    reach = f"{len(long.ids):,} tokens" + (f" up to position {long.positions[-1]:,}" if long.positions[-1] >= len(long.ids) else "")
    return (
        f"verified with {loader} in {dtype}: logits within {worst:.1e} of the run's (limit {TOLERANCE[kind]:.0e}), same greedy "
        f"tokens, chat template and stop tokens; longest prompt {reach}"
    )


def _base_of(directory: str, run: Run) -> str:
    """An adapter on an extended vocabulary brings its base along."""
    beside = join(directory, "base")
    return beside if files.exists(join(beside, "config.json")) else run.base


def free_memory() -> int:
    """Bytes that a process may still take: of the machine, or of its control group if that is less. Linux."""
    with open("/proc/meminfo", encoding="ascii") as file:
        sizes = dict(line.split(":", 1) for line in file)
    free = int(sizes["MemAvailable"].split()[0]) * 1024
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as most, open("/sys/fs/cgroup/memory.current") as used:
            return min(free, int(most.read()) - int(used.read()))
    except (FileNotFoundError, ValueError):  # no version 2 group, or "max": no limit of its own
        return free


def _torch_dtype(parameters: int, trained: int) -> str | None:
    """float32 where twice its weights fit, else bfloat16; None where that, or the run with its trained ones in fp32, does not."""
    if 2 * 4 * parameters <= free_memory():
        return "float32"
    return "bfloat16" if max(1.25 * 2 * parameters, 2 * parameters + 4 * trained) <= free_memory() else None


def _tolerance_kind(directory: str, form: str, dtype: str) -> str:
    """Which row of TOLERANCE: the coarsest of the arithmetic and of what was written."""
    if dtype == "bfloat16":
        return dtype
    with Checkpoint(directory, "adapter_model" if form == "peft" else "model") as checkpoint:
        sixteen = any(entry.dtype.itemsize == 2 for entry in checkpoint.entries.values())
    return "16-bit weights" if sixteen else "float32"


# --- prompts and the tokenizer


def make_probes(tokenizer: Tokenizer, config: ModelConfig, parameters: int) -> list[Probe]:
    """Urdu and English as a user's turn (as plain text for a tokenizer without template), then the long one.

    The long one reaches LONG positions where the model's context does. Where so many tokens would take too long it has FEW of
    them, the second half at the far end: what they see of the first half tells the same about rope.
    """
    probes = []
    for name, text in (("the Urdu prompt", URDU), ("the English prompt", ENGLISH)):
        if tokenizer.template is not None:
            prompt = tokenizer.render([{"role": "user", "content": text}], add_generation_prompt=True)
        else:
            prompt = (tokenizer.bos_token or "") + text
        ids = tokenizer.encode(prompt)[-(config.max_position_embeddings - NEW_TOKENS) :]
        probes.append(Probe(name, ids, list(range(len(ids)))))
    reach = min(LONG, config.max_position_embeddings)
    count = reach if 2 * parameters * reach <= LONG_FLOP else min(FEW, reach)
    passage = tokenizer.encode(PASSAGE)
    ids = (tokenizer.encode(tokenizer.bos_token or "") + passage * (count // len(passage) + 1))[:count]
    near = count - count // 2
    positions = [*range(near), *range(reach - count // 2, reach)]
    return [*probes, Probe("the long prompt", ids, positions, answered=False)]


def tokenizer_problems(directory: str, tokenizer: Tokenizer) -> list[str]:
    """Where transformers' tokenizer of the export encodes, renders the template or stops otherwise than the run did."""
    import transformers

    try:
        theirs = transformers.AutoTokenizer.from_pretrained(directory)
    except LOADING as error:
        return [f"its tokenizer cannot be loaded: {error}"]
    problems = []
    for text in (URDU, ENGLISH, PASSAGE):
        if theirs.encode(text, add_special_tokens=False) != tokenizer.encode(text):
            problems.append(f"other token ids for {text[:30]!r}")
    user, assistant = {"role": "user", "content": URDU}, {"role": "assistant", "content": ENGLISH}
    system = {"role": "system", "content": "مختصر جواب دیں۔"}
    for chat in ([user], [user, assistant, user], [system, user], [user, assistant]) if tokenizer.template is not None else ():
        prompt = chat[-1] is user
        try:
            text = tokenizer.render(chat, add_generation_prompt=prompt)
        except UsageError:  # a template may refuse a system message
            continue
        # the day that training wrote, for templates that write one
        given: dict[str, Any] = {"add_generation_prompt": prompt, "date_string": DATE_STRING, "strftime_now": TODAY.strftime}
        roles = ", ".join(message["role"] for message in chat)
        if theirs.apply_chat_template(chat, tokenize=False, **given) != text:
            problems.append(f"the chat template renders {roles} otherwise")
        elif theirs.apply_chat_template(chat, return_dict=False, **given) != tokenizer.encode(text):
            problems.append(f"the chat template gives other token ids for {roles}")
    stops = transformers.GenerationConfig.from_pretrained(directory).eos_token_id
    if sorted([stops] if isinstance(stops, int) else stops or []) != list(tokenizer.stop_ids):
        problems.append(f"generation_config.json stops on {stops}, the run on {list(tokenizer.stop_ids)}")
    return problems


# --- the two sides


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its bars and warnings: what matters of them is asked for."""
    import transformers

    verbosity = transformers.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()


def _ask_torch(
    directory: str, base: str, form: str, probes: Sequence[Probe], dtype: str
) -> tuple[list[Answer], list[str]]:
    """(answers, problems of loading); no answers where it cannot be loaded."""
    try:
        model, problems = _load_torch(directory, base, form, dtype)
    except (*LOADING, SafetensorError) as error:
        return [], [f"it cannot be loaded: {error}"]
    stops = _stops(directory)
    return [_answer(model, probe, stops) for probe in probes], problems


def _load_torch(directory: str, base: str, form: str, dtype: str) -> tuple[Any, list[str]]:
    import torch
    import transformers

    load = transformers.AutoModelForCausalLM.from_pretrained
    model, loading = load(base, dtype=getattr(torch, dtype), output_loading_info=True)
    problems = [f"{kind}: {', '.join(map(str, sorted(keys)))}" for kind, keys in loading.items() if keys]
    if form == "merged":
        return model.eval(), problems
    import peft

    # PEFT would hold the adapter in fp32 and multiply it with a bf16 base's activations, which torch refuses
    model = peft.PeftModel.from_pretrained(model, directory, autocast_adapter_dtype=dtype == "float32")
    saved = peft.utils.load_peft_weights(directory, device="cpu")
    wanted = peft.get_peft_model_state_dict(model)
    problems += [f"adapter key {key} is only on one side" for key in sorted(saved.keys() ^ wanted.keys())]
    return model.eval(), problems


def _stops(directory: str) -> Any:
    """Of the export: an adapter's base knows nothing of the turn token that was trained."""
    import transformers

    return transformers.GenerationConfig.from_pretrained(directory).eos_token_id


def _answer(model: Any, probe: Probe, stops: Any) -> Answer:
    import torch

    ids, positions = list(probe.ids), list(probe.positions)
    with torch.no_grad():
        if probe.answered:
            prompt = torch.tensor([ids])
            mask = torch.ones_like(prompt)
            output = model.generate(
                input_ids=prompt, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=stops,
                pad_token_id=0,
            )  # fmt: skip
            ids = output[0].tolist()
            positions += range(len(positions), len(ids))
        # with a mask, a jump in the positions is not taken for the border of a packed row
        logits = model(
            input_ids=torch.tensor([ids]), position_ids=torch.tensor([positions]), attention_mask=torch.ones(1, len(ids)).long(),
            logits_to_keep=COMPARED, use_cache=False,
        ).logits[0]  # fmt: skip
        return Answer(ids, positions, logits.float().numpy())


def _run_logits(run: Run, workdir: str, step: int, answers: Sequence[Answer], param_dtype: str) -> list[np.ndarray]:
    """The run's fp32 logits [K, V] on what torch was asked and answered; frozen parameters are held in `param_dtype`."""
    mesh = make_mesh(MeshConfig(), _cpu())
    model = skeleton(run.config, run.lora, param_dtype=jnp.dtype(param_dtype), attention="chunked")
    params = load_trainables(workdir, model.abstract(mesh, model.trainable), step)
    if not run.random_init:
        params |= load_params(run.base, model, model.frozen, mesh, run.config)
    with jax.set_mesh(mesh), jax.default_matmul_precision("highest"):
        padded = [_last_logits(params, *_padded(one), skeleton=model, count=len(one.logits_KV)) for one in answers]
        return [np.asarray(logits)[:, : run.config.vocab_size] for logits in padded]


def _cpu() -> list[jax.Device]:
    try:
        return jax.local_devices(backend="cpu")[:1]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return jax.local_devices()[:1]


def _padded(answer: Answer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tokens, positions, segments [1, L], padded in front: the last stay the last."""
    fill = -len(answer.ids) % BUCKET
    tokens, positions = (np.pad(np.asarray(row, np.int32), (fill, 0))[None] for row in (answer.ids, answer.positions))
    return tokens, positions, (np.arange(tokens.shape[1]) >= fill).astype(np.int32)[None]


def _forward(params: Params, tokens: Array, positions: Array, segments: Array, *, skeleton: Skeleton, count: int) -> Array:
    model = skeleton.model(params)
    hidden_BLD, _ = model(tokens, positions_BL=positions, segment_ids_BL=segments)
    return model.logits(hidden_BLD[0, -count:])


_last_logits = jax.jit(_forward, static_argnames=("skeleton", "count"))


# --- the comparison


def difference(theirs_KV: np.ndarray, ours_KV: np.ndarray) -> float:
    """‖theirs − ours‖ / ‖ours − mean over V‖: a shift of all logits of a position is no part of what is compared against."""
    spread = ours_KV - ours_KV.mean(axis=1, keepdims=True)
    return float(np.linalg.norm(theirs_KV - ours_KV) / np.linalg.norm(spread))


def compare(probe: Probe, answer: Answer, ours_KV: np.ndarray, error: float, tolerance: float) -> list[str]:
    """What differs on a probe. As long as each token is the run's likeliest after those before it, greedy decoding is the same.

    A token whose logit is lower than the run's likeliest by less than TIE · tolerance of the position's spread is a tie.
    """
    problems = []
    if not error <= tolerance:  # NaN too
        problems.append(f"logits of {probe.name} differ by {error:.2g} (limit {tolerance:.0e})")
    for at in range(len(probe.ids), len(answer.ids)):
        row = at - 1 - (len(answer.ids) - len(ours_KV))
        gap = ours_KV[row].max() - ours_KV[row, answer.ids[at]]
        if row >= 0 and gap > TIE * tolerance * ours_KV[row].std():
            problems.append(f"other greedy tokens from the {at - len(probe.ids) + 1}. on after {probe.name}")
            break
    return problems
