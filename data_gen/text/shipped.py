"""Urdu prose written for this project: enough to train a tiny base model without a network. One document a paragraph."""

from importlib import resources

from data_gen import UsageError
from data_gen.record import Record, record_id
from data_gen.tfrecord import write_shards

HELDOUT_EVERY = 10  # every tenth document is held out


def text_records(language: str) -> list[Record]:
    """All documents shipped for a language (`ur`), in the order of their files. Raises UsageError where there are none."""
    folder = resources.files("data_gen") / "text" / language
    files = [file for file in folder.iterdir() if file.name.endswith(".txt")] if folder.is_dir() else []
    if not files:
        raise UsageError(f"no text is shipped for language {language!r}")
    records = []
    for file in sorted(files, key=lambda file: file.name):
        topic = file.name.removesuffix(".txt")
        for text in file.read_text(encoding="utf-8").split("\n\n"):
            text = text.strip()
            meta = {"topic": topic, "licence": "Apache-2.0"}
            records.append(Record(record_id(text), "shipped_text", "document", language, meta, text=text))
    return records


def write_text_shards(directory: str, language: str) -> None:
    """The shipped text as a data directory for pre-training."""
    records = text_records(language)
    heldout = records[::HELDOUT_EVERY]
    train = [record for i, record in enumerate(records) if i % HELDOUT_EVERY]
    write_shards(directory, {"train": train, "heldout": heldout}, config={"text": language}, shard_records=1000)
