"""Text from a model: `python launch/generate.py --model=DIR --prompt="پاکستان کا دارالحکومت کون سا شہر ہے؟"`.

--model is a Hugging Face directory, a hub id, or a run directory. A prompt is a user's turn of the chat template; --raw continues
it as it stands. With --json one line a prompt: prompt, text, token_ids, finish_reason.
"""

import dataclasses
import json
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

MODEL = flags.DEFINE_string("model", None, "Hugging Face directory, hub id, or run directory", required=True)
PROMPT = flags.DEFINE_string("prompt", None, "one prompt")
PROMPTS_FILE = flags.DEFINE_string("prompts_file", None, 'JSONL with a "prompt" a line')
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 128, "stop there at the latest")
TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "0 takes the likeliest token each time")
TOP_P = flags.DEFINE_float("top_p", 1.0, "sample from the smallest set of tokens with this probability")
SEED = flags.DEFINE_integer("seed", 0, "of the sampling")
STEP = flags.DEFINE_string("step", "latest", "of a run, which checkpoint: latest, best, or a step's number")
LANGUAGE = flags.DEFINE_string("language", None, "English name of the answers' language, for templates that write it")
RAW = flags.DEFINE_bool("raw", False, "no chat template")
JSON = flags.DEFINE_bool("json", False, "one JSON object a line")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of weights and computation")


def main(argv: list[str]) -> None:
    if (PROMPT.value is None) == (PROMPTS_FILE.value is None):
        raise app.UsageError("give exactly one of --prompt and --prompts_file")
    from alif_jax.generate import generate, read_prompts
    from alif_jax.load import load_model
    from alif_jax.sharding import MeshConfig, make_mesh

    prompts = read_prompts(PROMPTS_FILE.value) if PROMPTS_FILE.value is not None else [PROMPT.value or ""]
    loaded = load_model(MODEL.value, make_mesh(MeshConfig()), dtype=DTYPE.value, param_dtype=DTYPE.value, step=STEP.value)
    results = generate(
        loaded, prompts, max_new_tokens=MAX_NEW_TOKENS.value, temperature=TEMPERATURE.value, top_p=TOP_P.value,
        seed=SEED.value, raw=RAW.value, languages=[LANGUAGE.value] * len(prompts),
    )  # fmt: skip
    for result in results:
        print(json.dumps(dataclasses.asdict(result), ensure_ascii=False) if JSON.value else result.text)


if __name__ == "__main__":
    app.run(main)
