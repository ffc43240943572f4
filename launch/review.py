"""Review by people: `python launch/review.py --workdir=DIR --sample=200`, then `--workdir=DIR --read=sheet.csv --reviewer=NAME`.

The first writes DIR/review/sheet.csv (for a spreadsheet) and sheet.html (for reading and judging in a browser, without a network;
its button gives the filled sheet.csv): a sample of the accepted items, each task with its share. The second reads a filled sheet
into DIR/journal.sqlite and says the error rate with its 95 % interval, and how far reviewers agree. After it,
`python launch/self_instruct.py … --parse_only` writes the data with the corrections, and without what is wrong.
"""

import os
import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

WORKDIR = flags.DEFINE_string("workdir", None, "work directory of a data recipe", required=True)
SAMPLE = flags.DEFINE_integer("sample", 200, "how many items to write into the sheet")
SEED = flags.DEFINE_integer("seed", 0, "another one gives another sample")
READ = flags.DEFINE_string("read", None, "a filled sheet")
REVIEWER = flags.DEFINE_string("reviewer", "", "of --read: who filled it in")
PARTIAL = flags.DEFINE_bool("partial", False, "of --read: rows that nobody filled in are passed over")


def main(argv: list[str]) -> None:
    from data_gen.journal import open_journal
    from data_gen.review import read_sheet, summary, write_sheet

    if READ.value is None and (REVIEWER.value or PARTIAL.value):
        raise app.UsageError("--reviewer and --partial belong to --read=sheet.csv")
    if not os.path.exists(os.path.join(WORKDIR.value, "journal.sqlite")):
        raise app.UsageError(f"--workdir={WORKDIR.value} has no journal.sqlite: it is no work directory of a data recipe")
    with open_journal(WORKDIR.value) as journal:
        if READ.value is None:
            print("\n".join(write_sheet(journal, WORKDIR.value, sample=SAMPLE.value, seed=SEED.value)))
        else:
            read_sheet(journal, READ.value, REVIEWER.value, partial=PARTIAL.value)
            print(summary(journal, REVIEWER.value.strip()))


if __name__ == "__main__":
    app.run(main)
