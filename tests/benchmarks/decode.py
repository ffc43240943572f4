"""Cached generation, ours against transformers with a static cache: `python tests/benchmarks/decode.py [--batches=1,8]`.

The same random model (0.2B, fp32) and prompts of 64 to 128 tokens, greedy, a fixed number of new tokens, both on all cores of this
process by turns. Each side runs once beforehand, so that no compiling is timed; the tokens of both must be the same. Prints a
table. Method and results: decode.md.
"""

import dataclasses
import os
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np
import tokenizers
import torch
import transformers
from absl import app, flags
from tokenizers import decoders, models, pre_tokenizers

from alif_jax.generate import generate
from alif_jax.load import Loaded, load_model
from alif_jax.sharding import MeshConfig, make_mesh

BATCHES = flags.DEFINE_list("batches", ["1", "8"], "rows decoded at a time")
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 128, "a row")
ROUNDS = flags.DEFINE_integer("rounds", 5, "in each of which either side has its turn")
LAYERS = flags.DEFINE_integer("layers", 8, "of the model")

CORES = len(os.sched_getaffinity(0))
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>")
LETTERS = "ابپتٹثجچحخدڈذرڑزژسشصضطظعغفقکگلمنںوہھءیےئؤ"


def make_model(place: Path) -> None:
    """Hidden 1024, ffn 3584, 16 and 4 heads, 32,000 tokens; weights so large that logits differ by several units."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32_000, hidden_size=1024, intermediate_size=3584, num_hidden_layers=LAYERS.value, num_attention_heads=16,
        num_key_value_heads=4, max_position_embeddings=2048, rms_norm_eps=1e-5, rope_theta=500_000.0, initializer_range=0.04,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(place)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(models.BPE({token: id for id, token in enumerate((*SPECIAL, *alphabet))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=SPECIAL[0], eos_token=SPECIAL[1], pad_token=SPECIAL[2]
    ).save_pretrained(place)


def make_prompts(count: int) -> list[str]:
    """Of 63 to 127 bytes, a token each, and BOS before them."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(31, 63, count).astype(int) if count > 1 else [48]
    return ["".join(rng.choice(list(LETTERS), length)) for length in lengths]


def theirs(model: transformers.PreTrainedModel, ids: list[list[int]]) -> list[list[int]]:
    """Padded on the left, as generation with transformers wants it."""
    longest = max(map(len, ids))
    tokens = torch.tensor([[2] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    with torch.inference_mode():
        out = model.generate(
            tokens, attention_mask=mask, do_sample=False, max_new_tokens=NEW_TOKENS.value, cache_implementation="static"
        )
    new: list[list[int]] = out[:, longest:].tolist()
    return new


def measure(loaded: Loaded, model: transformers.PreTrainedModel, rows: int) -> list[str]:
    """Cells of a row of the table. Raises SystemExit where the two write different tokens."""
    prompts = make_prompts(rows)
    ids = [loaded.tokenizer.encode(SPECIAL[0] + prompt) for prompt in prompts]

    def ours() -> list[list[int]]:
        answers = generate(loaded, prompts, max_new_tokens=NEW_TOKENS.value, batch_size=rows, raw=True)
        return [answer.token_ids for answer in answers]

    sides = {"ours": ours, "theirs": lambda: theirs(model, ids)}
    first = {side: run() for side, run in sides.items()}
    if first["ours"] != first["theirs"]:
        raise SystemExit(f"batch {rows}: not the same tokens: {first}")
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(ROUNDS.value):
        for side, run in sides.items():
            began = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - began)
    rates = {side: [rows * NEW_TOKENS.value / each for each in times] for side, times in seconds.items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
    lengths = f"{min(map(len, ids))} to {max(map(len, ids))}"
    return [str(rows), lengths, spread(rates["ours"], ".1f"), spread(rates["theirs"], ".1f"), spread(ratios, ".2f")]


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main(argv: list[str]) -> None:
    torch.set_num_threads(CORES)
    print(", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "torch", "transformers")), f"{CORES} cores")
    with tempfile.TemporaryDirectory() as place:
        make_model(Path(place))
        loaded = load_model(place, make_mesh(MeshConfig(), jax.devices()[:1]))
        model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()
        model.generation_config.eos_token_id = None  # neither side stops by itself
        loaded = dataclasses.replace(loaded, tokenizer=dataclasses.replace(loaded.tokenizer, stop_ids=(-1,)))
        print(f"{NEW_TOKENS.value} new tokens a row, greedy, fp32, the same tokens on both sides")
        print("| batch | prompt, tokens | ours, tokens/s | transformers, tokens/s | ratio |\n|---|---|---|---|---|")
        for rows in map(int, BATCHES.value):
            print("|", " | ".join(measure(loaded, model, rows)), "|", flush=True)


if __name__ == "__main__":
    app.run(main)
