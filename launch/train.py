"""Trains: `python launch/train.py --config=configs/alif_cpt.py --workdir=RUN [--resume] [--config.lora.rank=64]`.

LoRA, LoRA with embeddings and head, or full training, by the recipe. Leaves RUN/config.json, checkpoints/, metrics.jsonl,
samples.jsonl and tensorboard/. launch/train.sh runs it on every host of an accelerator slice.

Exit codes: 0 the run is complete. 2 an error of use, in one line. 75 preempted: SIGTERM came, the state is saved, the same command
with --resume goes on. 76 a loss or gradient was not finite: the step and its records are named, the last checkpoint stays.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app, processes

CONFIG = app.config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "the run directory, local or gs://…", required=True)
RESUME = flags.DEFINE_bool("resume", False, "continue the run in workdir; start it where there is none")

SCRIPTS = {"ur": "Arabic", "ur-Latn": "Latin", "en": "Latin"}  # the languages whose samples are judged by their script


def main(argv: list[str]) -> None:
    processes.connect()
    from alif_jax import UsageError  # JAX must not be touched before the processes are connected
    from alif_jax.guards import EXIT_NOT_FINITE, EXIT_PREEMPTED, NotFinite, Preempted
    from alif_jax.train import TrainConfig, fit

    if not isinstance(CONFIG.value, TrainConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; train.py needs a TrainConfig")
    suite = None
    if CONFIG.value.suite:
        from launch import evaluation  # a second or two that others need not wait for

        suite = evaluation.watch(CONFIG.value.suite, CONFIG.value.suite_limit)
    try:
        fit(CONFIG.value, WORKDIR.value, resume=RESUME.value, script_share=script_share, suite=suite)
    except Preempted as reason:
        end(reason, EXIT_PREEMPTED)
    except NotFinite as reason:
        end(reason, EXIT_NOT_FINITE)


def script_share(text: str, language: str) -> float | None:
    from data_gen import text as words

    return words.script_share(text, SCRIPTS[language]) if language in SCRIPTS else None


def end(reason: RuntimeError, code: int) -> None:
    print(reason, file=sys.stderr, flush=True)
    sys.exit(code)


if __name__ == "__main__":
    app.run(main)
