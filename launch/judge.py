"""A judge's verdicts on answers: two models' side by side, each pair in both orders, or with --single marks from 0 to 10.

    python launch/judge.py --evaluation=DIR --model=NAME --against=NAME --config.teacher.base_url=URL --config.teacher.model=JUDGE
    python launch/judge.py --evaluation=DIR --model=NAME,NAME --single --config.teacher.base_url=URL --config.teacher.model=JUDGE

DIR is the --output of launch/evaluate.py, whose report shows what is found here (DIR/judge.json). --answers and --against_answers
are JSONL files of {"id", "prompt", "answer", "category"} instead. Exit code 77: the budget is reached; 75: SIGTERM or SIGHUP; 130:
Ctrl-C; 2: an error of use. The same command goes on where a run stopped, and asks nothing twice.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_gen import UsageError
from data_gen.evaluation.judge import JudgeConfig, run
from data_gen.evaluation.report import write_again
from data_gen.progress import show
from launch import app

CONFIG = app.config_flag("configs/judge.py")
EVALUATION = flags.DEFINE_string("evaluation", None, "an evaluation's directory; verdicts go there too", required=True)
MODEL = flags.DEFINE_list("model", None, "the model's name in the evaluation, or several: a,b", required=True)
AGAINST = flags.DEFINE_string("against", "", "the name of the model that it is compared with")
SINGLE = flags.DEFINE_bool("single", False, "mark each answer by itself instead")
TASKS = flags.DEFINE_list("tasks", [], "only these tasks: a,b; without it all whose answers are generated")
ANSWERS = flags.DEFINE_string("answers", "", "JSONL with the model's answers")
AGAINST_ANSWERS = flags.DEFINE_string("against_answers", "", "JSONL with the other model's answers")
MAX_COST = flags.DEFINE_float("max_cost", None, "US dollars that all judging in the directory may cost")


def main(argv: list[str]) -> None:
    if not isinstance(CONFIG.value, JudgeConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; judge needs a JudgeConfig, such as configs/judge.py")
    if SINGLE.value == bool(AGAINST.value) or (AGAINST_ANSWERS.value and SINGLE.value):
        raise UsageError("give --against=NAME (perhaps with --against_answers) to compare two models, or --single for marks")
    with app.stoppable():
        with show() as progress:
            said = run(
                CONFIG.value, EVALUATION.value, MODEL.value, AGAINST.value, tasks=TASKS.value, answers=ANSWERS.value,
                against_answers=AGAINST_ANSWERS.value, show=progress, max_cost=MAX_COST.value,
            )  # fmt: skip
        print(said + (f"\nreport  {Path(EVALUATION.value, 'report.html')}" if write_again(EVALUATION.value) else ""))


if __name__ == "__main__":
    app.run(main)
