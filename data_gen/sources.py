"""English instruction items to be translated: JSONL with "instruction", "input", "output", one a line, as Alpaca has them."""

import hashlib
import json
from importlib import resources

import fsspec

from data_gen import UsageError
from data_gen.languages import ENGLISH
from data_gen.record import SIDES, Item, item_messages, record_id
from data_gen.task import FIELDS

SAMPLE = "sample"  # the set shipped with data_gen


def read_english(path: str, heldout_share: float) -> tuple[dict[str, list[tuple[str, Item]]], str]:
    """({side: [(id, item), …]}, digest of them all). The id decides the side, so it does not depend on the order; an item that
    comes twice counts once.

    Raises UsageError for a file that cannot be read, a line that is no such item, and a file with none.
    """
    try:
        if path == SAMPLE:
            text = (resources.files("data_gen") / "text" / "en" / "instructions.jsonl").read_text(encoding="utf-8")
        else:
            with fsspec.open(path, "rt", encoding="utf-8") as file:
                text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"translate={path} cannot be read: {error}; give a JSONL file, or {SAMPLE!r}") from error
    lines = enumerate(text.split("\n"), start=1)  # splitlines() would split at U+2028 inside a string
    items = dict(_item(path, number, line) for number, line in lines if line.strip())
    if not items:
        raise UsageError(f"translate={path} has no items; a line is {{{', '.join(map(json.dumps, FIELDS))}}}")
    sides: dict[str, list[tuple[str, Item]]] = {side: [] for side in SIDES}
    for item_id, item in items.items():
        sides[SIDES[int(item_id[:8], 16) < heldout_share * 2**32]].append((item_id, item))
    return sides, hashlib.sha256("\n".join(items).encode()).hexdigest()[:16]


def _item(path: str, number: int, line: str) -> tuple[str, Item]:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{path}:{number}: not JSON ({error})") from error
    if not isinstance(fields, dict) or not all(isinstance(fields.get(name), str) for name in ("instruction", "output")):
        there = ", ".join(fields) if isinstance(fields, dict) else type(fields).__name__
        raise UsageError(f"{path}:{number}: has {there}; wanted are the texts instruction, input (may be missing) and output")
    item = Item("translated", fields["instruction"], fields.get("input") or "", fields["output"], ENGLISH)
    return record_id(item_messages(item)), item
