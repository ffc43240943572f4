"""What a data recipe asks before it trains: `python launch/resolve.py --recipe=configs/X.py --recipe=configs/Y.py` prints them.

As JSON, {recipe: config}. With --tiny_base=DIR it writes a tokenizer, learnt from the JSON strings on stdin (one a line), and the
config of a tiny model there instead; with --answers=DIR it prints what shards answer. No accelerator is touched.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

RECIPES = flags.DEFINE_multi_string("recipe", [], "a training recipe; may be given several times")
TINY_BASE = flags.DEFINE_string("tiny_base", "", "directory of a tiny base to be written")
ANSWERS = flags.DEFINE_string("answers", "", "directory of shards: the answers of its training records, a JSON string a line")
VOCAB_SIZE = 4096


def main(argv: list[str]) -> None:
    from alif_jax.data.tfrecord import read_records
    from alif_jax.tiny_base import make_tiny_base
    from alif_jax.train import TrainConfig

    if TINY_BASE.value:
        make_tiny_base(TINY_BASE.value, (json.loads(line) for line in sys.stdin), vocab_size=VOCAB_SIZE)
        return
    if ANSWERS.value:
        for record in read_records(ANSWERS.value, "train"):
            for message in record.messages or ():
                if message["role"] == "assistant":
                    print(json.dumps(message["content"]))
        return
    found = {}
    for recipe in RECIPES.value:
        config = app.load_recipe(recipe)
        if not isinstance(config, TrainConfig):
            raise app.UsageError(f"{recipe} gives a {type(config).__name__}; a recipe of launch/train.py is wanted")
        app.check_types(config)
        config.validate()
        found[recipe] = dataclasses.asdict(config)
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ.update(app.AWAY_FROM_TPU)  # before JAX is imported
    app.run(main)
