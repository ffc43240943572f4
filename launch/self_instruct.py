"""Instruction data from seeds and a teacher: `python launch/self_instruct.py --config=configs/X.py --workdir=DIR`.

Leaves DIR/data (TFRecord shards and manifest), DIR/journal.sqlite and DIR/rejected.jsonl. The same command goes on
where a stopped or killed run was. --config.teacher.base_url=URL asks a real endpoint; "offline" is the project's own
server of grammars and word lists.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_gen import UsageError
from data_gen.self_instruct import SelfInstructConfig
from data_gen.self_instruct import run as generate
from launch import app

CONFIG = app.config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "local directory of the run; is made if it is not there", required=True)


def main(argv: list[str]) -> None:
    if not isinstance(CONFIG.value, SelfInstructConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; self_instruct needs a SelfInstructConfig")
    try:
        print(generate(CONFIG.value, WORKDIR.value))
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
        sys.exit(130)


if __name__ == "__main__":
    app.run(main)
