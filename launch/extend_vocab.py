"""More tokens for a language: `python launch/extend_vocab.py --model=BASE --text=urdu.txt,SHARDS --new_tokens=8000 --output=DIR`.

Learns BPE merges on the text, continuing the base's own, and writes a whole Hugging Face model with a row for each new token: the
mean of the rows it takes the place of. Texts: .txt (a document a line), .jsonl (in "text"), data directories (the training split).
A tenth of the documents is held out to measure tokens a word before and after. Needs no accelerator.

Then train with --config.model.path=DIR --config.lora.modules_to_save=embed_tokens,lm_head; with --config.lora.new_rows_only=True
the old rows stay as they are.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

MODEL = flags.DEFINE_string("model", None, "the base: Hugging Face directory or hub id", required=True)
TEXT = flags.DEFINE_list("text", None, "files and data directories, separated by commas", required=True)
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 8000, "how many tokens to learn")
MIN_FREQUENCY = flags.DEFINE_integer("min_frequency", 2, "a pair that occurs less often is not merged")
OUTPUT = flags.DEFINE_string("output", None, "the directory to make; must not exist yet", required=True)


def main(argv: list[str]) -> None:
    from alif_jax.vocab import extend_vocab, report

    counts = {"new_tokens": NEW_TOKENS.value, "min_frequency": MIN_FREQUENCY.value}
    extension, fertility = extend_vocab(MODEL.value, TEXT.value, OUTPUT.value, **counts)
    print(report(OUTPUT.value, extension, fertility, new_tokens=NEW_TOKENS.value))


if __name__ == "__main__":
    app.run(main)
