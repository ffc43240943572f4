"""Web text into clean documents: `python launch/ingest.py --config.input=PATH --config.language=urd_Arab --config.licence=ODC-BY`.

Without arguments it cleans the pages that are shipped, in Urdu. Leaves WORKDIR/documents (JSONL, gzipped; launch/import_data.py
makes shards of them), removed, report.md and manifest.json. --config.tasks=8 divides the input; --config.executor=slurm or ray runs
the tasks on a cluster. The same command goes on where a run stopped. Needs `pip install '.[data,ingest]'`.
Exit code 75: SIGTERM or SIGHUP; 130: Ctrl-C; 2: an error of use.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_gen import UsageError
from data_gen.ingest_config import IngestConfig
from launch import app

CONFIG = app.config_flag("configs/ingest.py")
WORKDIR = flags.DEFINE_string("workdir", "runs/ingest", "directory of the run, or its fsspec URL; is made if it is not there")


def main(argv: list[str]) -> None:
    if not isinstance(CONFIG.value, IngestConfig):
        raise UsageError(f"--config gave a {type(CONFIG.value).__name__}; ingest needs an IngestConfig")
    try:
        from data_gen.ingest import run
    except ImportError as error:
        raise UsageError(f"cleaning web text needs {error.name}: pip install '.[data,ingest]'") from error
    with app.stoppable():
        summary = run(CONFIG.value, WORKDIR.value, say=lambda line: print(line, flush=True))
    if summary:
        print(summary)


if __name__ == "__main__":
    app.run(main)
