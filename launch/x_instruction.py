"""Instructions for native web text, by models that curate their data: `python launch/x_instruction.py --config=X --workdir=DIR`.

    seed → train_generator → generate → rate_data → train_evaluator → refine → diversify → audit → sft → eval

--from=S --to=S runs some of the stages; finished ones are passed over as long as nothing that they were made of has changed. Leaves
DIR/data (shards, README.md, report.html), DIR/report.md, DIR/models. Exit code 77: the budget is reached; 75: SIGTERM or SIGHUP;
130: Ctrl-C; 2: an error of use, or a gate that was missed. The same command goes on where a run stopped.
What it takes and costs, beforehand: launch/plan_x_instruction.py.
"""

import os
import shlex
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_gen import UsageError
from data_gen.progress import show
from data_gen.x_instruction.config import XInstructionConfig
from data_gen.x_instruction.run import run
from data_gen.x_instruction.work import STAGES
from launch import app
from launch.children import Children

CONFIG = app.config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "local directory of the run; is made if it is not there", required=True)
FROM = flags.DEFINE_enum("from", "", ["", *STAGES], "the first stage; it is made again even if it is finished")
TO = flags.DEFINE_enum("to", "", ["", *STAGES], "the last stage")
LANGUAGES = flags.DEFINE_list("languages", [], "some of the config's languages: ur,hi")
MAX_COST = flags.DEFINE_float("max_cost", None, "US dollars that the teacher may cost, all stages and starts together")


def main(argv: list[str]) -> None:
    if not isinstance(CONFIG.value, XInstructionConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; x_instruction needs an XInstructionConfig")
    command = shlex.join(["python", *sys.argv])
    with app.stoppable():
        with show() as progress:
            said = run(
                CONFIG.value, WORKDIR.value, show=progress,
                children=Children(os.path.join(WORKDIR.value, "logs"), progress.say, CONFIG.value.serve_command),
                first=FROM.value, last=TO.value, languages=tuple(LANGUAGES.value), max_cost=MAX_COST.value, command=command,
            )  # fmt: skip
        print(said)


if __name__ == "__main__":
    app.run(main)
