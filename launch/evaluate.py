"""Held-out loss: `python launch/evaluate.py --model=DIR --data=SHARDS --json`.

In nats a token and bits a byte (comparable between tokenizers), in all and by source, task and language. --model is a Hugging
Face directory, a hub id, or a run directory; --data a directory of TFRecord shards with its manifest.
"""

import json
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

MODEL = flags.DEFINE_string("model", None, "Hugging Face directory, hub id, or run directory", required=True)
DATA = flags.DEFINE_string("data", None, "directory of shards with manifest.json", required=True)
SPLIT = flags.DEFINE_enum("split", "heldout", ["heldout", "train"], "which records")
STEP = flags.DEFINE_string("step", "latest", "of a run, which checkpoint: latest, best, or a step's number")
SEQUENCE_LENGTH = flags.DEFINE_integer("sequence_length", 0, "tokens a row; 0: as the run was trained, or 2048")
TEMPLATE = flags.DEFINE_string("template", "", "chat template, loss on responses; default: as the run was trained, or the model's")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "rows at a time")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of weights and computation")
JSON = flags.DEFINE_bool("json", False, "one JSON object instead of a table")


def main(argv: list[str]) -> None:
    from alif_jax.evaluate import evaluate_loss, loss_table
    from alif_jax.load import load_model
    from alif_jax.sharding import MeshConfig, make_mesh

    loaded = load_model(MODEL.value, make_mesh(MeshConfig()), dtype=DTYPE.value, param_dtype=DTYPE.value, step=STEP.value)
    result = evaluate_loss(
        loaded, DATA.value, split=SPLIT.value, sequence_length=SEQUENCE_LENGTH.value, batch_size=BATCH_SIZE.value,
        template=TEMPLATE.value,
    )  # fmt: skip
    print(json.dumps(result, ensure_ascii=False) if JSON.value else loss_table(result))


if __name__ == "__main__":
    app.run(main)
