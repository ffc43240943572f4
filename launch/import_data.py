"""Other people's data as shards: `python launch/import_data.py --input=PATH_OR_HUB_ID --output=DIR --language=ur --licence=MIT`.

--input is a file, a directory or a pattern of JSONL, JSON, Parquet, CSV or plain text (each also .gz), a data set that `datasets`
saved, or a hub id. Urdu Wikipedia (its licence is known and kept, url and title too):
`--input=wikimedia/wikipedia --subset=20231101.ur --language=ur`. What launch/ingest.py made (each document has its licence):
`--input=runs/ingest/documents --language=ur`. Needs `pip install '.[import]'` for Parquet and the hub.
"""

import sys
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

INPUT = flags.DEFINE_string("input", None, "file, directory, pattern, or hub id", required=True)
OUTPUT = flags.DEFINE_string("output", None, "the data directory to make", required=True)
LANGUAGE = flags.DEFINE_string("language", None, "BCP-47 code of all records: ur, ur-Latn, en", required=True)
LICENCE = flags.DEFINE_string("licence", "", "as the data's makers call it; goes into every record")
FORMAT = flags.DEFINE_string("format", "auto", "alpaca, sharegpt, messages, ingest, wikipedia, text, or auto: by the columns")
COLUMNS = flags.DEFINE_list("columns", [], "columns of other names: instruction=question,output=answer")
SPLIT = flags.DEFINE_string("split", "", "of a hub data set; default: train, or the only one")
SUBSET = flags.DEFINE_string("subset", "", "of a hub data set: its configuration")
DOCUMENTS = flags.DEFINE_string("documents", "auto", "a document of .txt: file, blank_line, line; auto: file if there are several")
SOURCE = flags.DEFINE_string("source", "", "what the records give as source; default: the input's name")
TASK = flags.DEFINE_string("task", "", "what the records give as task; default: document, or instruction")
HELDOUT_SHARE = flags.DEFINE_float("heldout_share", 0.01, "share of the records that is held out")
LIMIT = flags.DEFINE_integer("limit", 0, "stop after so many records; 0: all")
NORMALISE = flags.DEFINE_bool("normalise", False, "look-alike letters become the language's own, as its pack has it")
SHARD_RECORDS = flags.DEFINE_integer("shard_records", 10_000, "records a shard")


def main(argv: list[str]) -> None:
    from data_gen.import_data import ImportConfig, import_data

    config = ImportConfig(
        input=INPUT.value, output=OUTPUT.value, language=LANGUAGE.value, licence=LICENCE.value, format=FORMAT.value,
        columns=tuple(COLUMNS.value), split=SPLIT.value, subset=SUBSET.value, documents=DOCUMENTS.value, source=SOURCE.value,
        task=TASK.value, heldout_share=HELDOUT_SHARE.value, limit=LIMIT.value, normalise=NORMALISE.value,
        shard_records=SHARD_RECORDS.value,
    )  # fmt: skip
    print(import_data(config))


if __name__ == "__main__":
    app.run(main)
