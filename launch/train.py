"""Trains: `python launch/train.py --config=configs/alif_cpt.py --workdir=RUN [--resume] [--config.lora.rank=64]`.

LoRA, LoRA with embeddings and head, or full training, by the recipe. Leaves RUN/config.json, checkpoints/, metrics.jsonl and
tensorboard/. launch/train.sh runs it on every host of an accelerator slice.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app, processes

CONFIG = app.config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "the run directory, local or gs://…", required=True)
RESUME = flags.DEFINE_bool("resume", False, "continue the run in workdir; start it where there is none")


def main(argv: list[str]) -> None:
    processes.connect()
    from alif_jax import UsageError
    from alif_jax.train import TrainConfig, fit  # JAX must not be touched before the processes are connected

    if not isinstance(CONFIG.value, TrainConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; train.py needs a TrainConfig")
    fit(CONFIG.value, WORKDIR.value, resume=RESUME.value)


if __name__ == "__main__":
    app.run(main)
