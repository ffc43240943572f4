"""What YAML files beside this one name as `custom_dataset`: what was written for the project. No network, no cache.

Nothing of it is in the prose a quickstart trains on (data_gen/text).
"""

import json
from pathlib import Path
from typing import Any

_SHIPPED = Path(__file__).parent.parent / "shipped"


def urdu_minimal_pairs(**_: Any) -> dict[str, Any]:
    """Split `test`: sentences that differ in a word or an ending. Columns: good, bad (no native reader accepts it), phenomenon."""
    return {"test": _read("urdu_minimal_pairs.jsonl")}


def urdu_text(**_: Any) -> dict[str, Any]:
    """Split `test`: passages of about a hundred words. Columns: text, topic."""
    return {"test": _read("urdu_text.jsonl")}


def english_text(**_: Any) -> dict[str, Any]:
    """The same in English, to see what a model forgets while it learns Urdu. Columns: text, topic."""
    return {"test": _read("english_text.jsonl")}


def urdu_prompts(**_: Any) -> dict[str, Any]:
    """Split `test`: what people ask in Urdu. Columns: prompt, category (Alif's seven), language (of the expected answer), answer:
    "" where many are right.
    """
    return {"test": _read("urdu_prompts.jsonl")}


def urdu_safety(**_: Any) -> dict[str, Any]:
    """Split `test`: pairs of a harmful wish and a harmless one in like words. Columns: pair (a number), prompt, kind (harmful or
    harmless), topic.
    """
    return {"test": _read("urdu_safety.jsonl")}


def _read(name: str) -> Any:
    from datasets import Dataset  # it takes a second, and reading this file should not

    with (_SHIPPED / name).open(encoding="utf-8") as file:
        return Dataset.from_list([json.loads(line) for line in file])
