"""To Hugging Face: `python launch/export.py --workdir=RUN --format=merged|peft --output=DIR [--step=best]`. Needs no accelerator.

`merged` is a whole model that transformers, vLLM and llama.cpp load; `peft` an adapter for its base. An adapter with trained
embeddings (modules_to_save) is loaded by PEFT only: vLLM and llama.cpp want the merged model.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

WORKDIR = flags.DEFINE_string("workdir", None, "the run directory", required=True)
FORMAT = flags.DEFINE_enum("format", "merged", ["merged", "peft"], "what to write")
STEP = flags.DEFINE_string("step", "latest", "which checkpoint: latest, best (lowest held-out loss), or a step's number")
OUTPUT = flags.DEFINE_string("output", None, "the directory to make; must not exist yet", required=True)


def main(argv: list[str]) -> None:
    from alif_jax.export import export_run

    print(export_run(WORKDIR.value, OUTPUT.value, FORMAT.value, STEP.value))


if __name__ == "__main__":
    app.run(main)
