"""Is a model better than its base? `python launch/evaluate.py --model=RUN --suite=urdu_quick` asks both, and writes a report.

A run stands beside its base and the run that it began from. Suites: configs/evaluation.py. Without both: held-out loss of --data.
"""

import shlex
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

MODEL = flags.DEFINE_string("model", None, "Hugging Face directory, hub id, or run directory", required=True)
SUITE = flags.DEFINE_string("suite", "", "urdu_quick, urdu_core, urdu_release, x_instruction, alif or safety")
TASKS = flags.DEFINE_list("tasks", [], "tasks of lm-evaluation-harness, and of data_gen/evaluation/tasks/")
COMPARE = flags.DEFINE_list("compare", [], "further columns: run:DIR, jax:DIR, hf:DIR_OR_HUB_ID, url:NAME@ADDRESS")
OUTPUT = flags.DEFINE_string("output", "", "directory of results and report")
DATA_DIR = flags.DEFINE_string("data_dir", "", "files of tasks, instead of the hub: DATA_DIR/TASK.jsonl")
CHAT = flags.DEFINE_enum("chat", None, ["never", "always", "both"], "of --tasks: prompts through the chat template")
NUM_FEWSHOT = flags.DEFINE_integer("num_fewshot", None, "of --tasks: examples before each question; default: the task's own")
LIMIT = flags.DEFINE_integer("limit", 0, "first documents of each task; 0: all", lower_bound=0)
MAX_LENGTH = flags.DEFINE_integer("max_length", 0, "tokens that a model may see; 0: what it was made for", lower_bound=0)
PRICE = flags.DEFINE_float("price_per_hour", None, "US dollars of this machine, for the report")
MAX_COST = flags.DEFINE_float("max_cost", None, "US dollars that models at addresses may take; with --price")
PRICES = flags.DEFINE_multi_float("price", [], "theirs, US dollars per million tokens: --price=IN --price=OUT")
DATA = flags.DEFINE_string("data", "", "directory of shards with manifest.json; of a suite: the held-out records to measure on")
SPLIT = flags.DEFINE_enum("split", "heldout", ["heldout", "train"], "which records")
STEP = flags.DEFINE_string("step", "latest", "of a run, which checkpoint: latest, best, or a step's number")
SEQUENCE_LENGTH = flags.DEFINE_integer("sequence_length", 0, "tokens a row; 0: as the run was trained, or 2048")
TEMPLATE = flags.DEFINE_string("template", "", "chat template, loss on responses; default: as the run was trained, or the model's")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "rows at a time")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of weights and computation")
JSON = flags.DEFINE_bool("json", False, "one JSON object instead of a table")


def main(argv: list[str]) -> None:
    app.calm_bars()
    from launch import columns, evaluation

    if not SUITE.value and not TASKS.value:
        print(evaluation.heldout_loss(
            MODEL.value, DATA.value, split=SPLIT.value, step=STEP.value, sequence_length=SEQUENCE_LENGTH.value, dtype=DTYPE.value,
            template=TEMPLATE.value, batch_size=BATCH_SIZE.value, as_json=JSON.value,
        ))  # fmt: skip
        return
    suite = evaluation.suite_of(SUITE.value, TASKS.value, CHAT.value, NUM_FEWSHOT.value)
    output = OUTPUT.value or evaluation.default_output(MODEL.value, suite.name)
    given = (DTYPE.value, TEMPLATE.value, STEP.value, MAX_LENGTH.value, MAX_COST.value, tuple(PRICES.value))
    models = columns.columns(MODEL.value, COMPARE.value, columns.Loading(output, *given))
    results = evaluation.evaluate(
        models, suite, output, command=shlex.join(["python", *sys.argv]), data=[*filter(None, [DATA.value])],
        data_dir=DATA_DIR.value, limit=LIMIT.value, price_per_hour=PRICE.value,
    )  # fmt: skip
    print(evaluation.as_json(results) if JSON.value else evaluation.table(results, output))


if __name__ == "__main__":
    app.run(main)
