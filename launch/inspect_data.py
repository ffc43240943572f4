"""What a recipe's model will see: `python launch/inspect_data.py --config=configs/urdu_sft.py --config.data.path=SHARDS`.

Examples with the trained part told apart (coloured on a terminal, ⟦…⟧ elsewhere), lengths, what is too long, trained tokens by
source, how full the rows are, tokens a word by language. Takes the recipe, the base's tokenizer and the data: no weights, no
accelerator. The tokens that it makes are those of training, which finds them in the cache.
"""

import os
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

CONFIG = app.config_flag()
EXAMPLES = flags.DEFINE_integer("examples", 3, "how many examples are shown", lower_bound=0)
SPLIT = flags.DEFINE_enum("split", "train", ["train", "heldout"], "which records")


def main(argv: list[str]) -> None:
    import jax

    jax.config.update("jax_platforms", "cpu")  # no accelerator is needed, and one that trains must not be disturbed
    from alif_jax import UsageError
    from alif_jax.data.inspect import report
    from alif_jax.hf import resolve_model
    from alif_jax.run import TrainConfig, load_batches
    from alif_jax.tokenizer import load_tokenizer

    config = CONFIG.value
    if not isinstance(config, TrainConfig):
        raise UsageError(f"--config gave a {type(config).__name__}; inspect_data.py needs a TrainConfig")
    base = resolve_model(config.model.path, weights=False, revision=config.model.revision)
    tokenizer = load_tokenizer(base, config.data.template)
    batches, heldout = load_batches(config, tokenizer)
    shown = batches if SPLIT.value == "train" else heldout
    if shown is None:
        raise UsageError(f"{', '.join(config.data.path)}: no held-out records that fit a row; --split=train shows the others")
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(report(shown, tokenizer, examples=EXAMPLES.value, colour=colour))


if __name__ == "__main__":
    app.run(main)
