"""An anchor for X-Instruction, which decides over its rounds: pairs of stage generate, rated by a teacher or by people.

python launch/x_instruction.py --config=X --workdir=DIR --to=generate
python launch/rate_anchor.py --config=X --workdir=DIR --output=ANCHOR.jsonl --config.teacher.base_url=URL …    # a teacher, or
python launch/rate_anchor.py --config=X --workdir=DIR --sheet=SHEET.csv                                       # people, and then
python launch/rate_anchor.py --config=X --workdir=DIR --read=SHEET.csv --output=ANCHOR.jsonl
python launch/x_instruction.py --config=X --workdir=DIR --config.refine.anchor=ANCHOR.jsonl --from=generate
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_gen import UsageError
from data_gen.progress import show
from data_gen.x_instruction import anchor
from data_gen.x_instruction.config import XInstructionConfig
from launch import app
from launch.children import Children

CONFIG = app.config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory", required=True)
OUTPUT = flags.DEFINE_string("output", "", "the anchor, as JSONL")
SHEET = flags.DEFINE_string("sheet", "", "write the pairs to this CSV file instead, for people to rate")
READ = flags.DEFINE_string("read", "", "a filled sheet: its ratings become the anchor")
PAIRS = flags.DEFINE_integer("pairs", 200, "of each language", lower_bound=1)
MAX_COST = flags.DEFINE_float("max_cost", None, "US dollars that the teacher may cost, with all stages of the directory")


def main(argv: list[str]) -> None:
    if not isinstance(CONFIG.value, XInstructionConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; rate_anchor needs an XInstructionConfig")
    if bool(SHEET.value) == bool(OUTPUT.value):
        raise UsageError("give --output=ANCHOR.jsonl, or --sheet=SHEET.csv for people to fill in")
    with show() as progress:
        children = Children(str(Path(WORKDIR.value, "logs")), progress.say)
        if SHEET.value:
            print(anchor.write_sheet(CONFIG.value, WORKDIR.value, SHEET.value, PAIRS.value, children=children, show=progress))
        elif READ.value:
            print(anchor.read_sheet(READ.value, OUTPUT.value))
        else:
            said = anchor.by_teacher(
                CONFIG.value, WORKDIR.value, OUTPUT.value, PAIRS.value, children=children, show=progress, max_cost=MAX_COST.value
            )
            print(said)


if __name__ == "__main__":
    app.run(main)
