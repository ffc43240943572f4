"""Instruction data from seeds and a teacher: `python launch/self_instruct.py --config=configs/X.py --workdir=DIR`.

Leaves DIR/data (shards, manifest, README.md, report.html), DIR/journal.sqlite and DIR/rejected.jsonl. The same command goes on
where a run stopped. --config.teacher.base_url=URL asks a real endpoint; "offline" is the project's own server of grammars.
Exit code 77: the budget is reached; 75: SIGTERM or SIGHUP; 130: Ctrl-C; 2: an error of use.
"""

import shlex
import sys
from functools import partial
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_gen import UsageError
from data_gen.estimate import estimate
from data_gen.progress import show
from data_gen.self_instruct import SelfInstructConfig
from data_gen.self_instruct import run as generate
from launch import app

CONFIG = app.config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "local directory of the run; is made if it is not there", required=True)
MAX_COST = flags.DEFINE_float("max_cost", None, "US dollars that all runs on this directory may cost together")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "say how many requests, tokens and dollars are to come, and ask nothing")
PARSE_ONLY = flags.DEFINE_bool("parse_only", False, "ask nothing: read the stored replies again and write what they give")
PUSH = flags.DEFINE_string("push_to_hub", None, "owner/name: send DIR/data to the Hugging Face hub, private unless --public")
PUBLIC = flags.DEFINE_bool("public", False, "the dataset on the hub is for everybody")


def main(argv: list[str]) -> None:
    if not isinstance(CONFIG.value, SelfInstructConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; self_instruct needs a SelfInstructConfig")
    if DRY_RUN.value:
        print(estimate(CONFIG.value, WORKDIR.value).text(MAX_COST.value))
        return
    if PUSH.value:
        from alif_jax import hub  # brings JAX, seconds that nobody else waits for
        hub.check_push(PUSH.value, WORKDIR.value, "workdir")
    command = shlex.join(["python", *sys.argv])
    with app.stoppable("; --parse_only writes what there is"):
        with show() as progress:
            run = partial(generate, CONFIG.value, WORKDIR.value, show=progress, command=command, jsonl=bool(PUSH.value))
            summary = run(max_cost=MAX_COST.value, parse_only=PARSE_ONLY.value)
        print(summary)
        if PUSH.value:
            print(hub.push(summary.data_dir, PUSH.value, public=PUBLIC.value, repo_type="dataset"))


if __name__ == "__main__":
    app.run(main)
