"""A task: what its folder says of how an item is written, read and checked. Loading and prompts are prompt.py's matter."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from data_gen.languages import ENGLISH, Pack
from data_gen.record import CONVERSATION, SINGLE, Item

TAGGED, JSON_SCHEMA = REPLY_FORMATS = ("tagged", "json_schema")
FIELDS = ("instruction", "input", "output")
LOCAL_CHECKS = ("label", "arithmetic", "choice")  # checks.py
ASKED_CHECKS = ("majority", "back_translation", "ethics", "quality")  # judging.py
_KINDS: dict[str, tuple[Any, ...]] = {
    "form": (SINGLE, CONVERSATION),
    "source": ("seeds", ENGLISH),
    "variety": ("", "Latn", "x-mixed"),
    "balance": ("", "language"),
}


@dataclass(frozen=True, kw_only=True)
class Rules:
    """`task.toml`. form: one answer, or a conversation. source: seeds are shown and more of the kind asked for, or English items
    are given to be translated. variety: what comes after the language's code in that of the items. input: an item must have
    one, or must have none. min_words, max_words: of an answer, 0 for no bound. balance: each language of the answers gets its
    equal part. may_decline: an answer may begin by declining. checks: names of LOCAL_CHECKS and ASKED_CHECKS.
    """

    form: str = SINGLE
    source: str = "seeds"
    variety: str = ""
    input: bool = False
    min_words: int = 0
    max_words: int = 0
    balance: str = ""
    may_decline: bool = False
    checks: Sequence[str] = ()


@dataclass(frozen=True)
class Task:
    """One task's material in one language. `seeds[side]` is a list of (id, item); no seed and no topic is on both sides."""

    name: str
    pack: Pack
    rules: Rules
    prompt: str  # prompt.txt, rules.txt and the form's text
    seeds: dict[str, list[tuple[str, Item]]]
    digest: str  # SHA-256 of prompt and seeds.jsonl, first 16 hex digits
    prompt_digest: str
    reply_format: str

    @property
    def language(self) -> str:
        """The code of its items: "ur", or "ur-Latn"."""
        return f"{self.pack.code}-{self.rules.variety}" if self.rules.variety else self.pack.code


def read_rules(table: dict[str, Any]) -> Rules:
    """Rules from the table of a task.toml. Raises ValueError naming a key that is unknown or has a value that is."""
    types = {field.name: field.type for field in fields(Rules)}
    for key, value in table.items():
        if key not in types:
            raise ValueError(f"unknown key {key!r}; there are {', '.join(types)}")
        if key in _KINDS and value not in _KINDS[key]:
            raise ValueError(f"{key} = {value!r}; there are {', '.join(map(repr, _KINDS[key]))}")
        if key in ("input", "may_decline", "min_words", "max_words") and type(value) is not types[key]:
            raise ValueError(f"{key} = {value!r} is no {getattr(types[key], '__name__', types[key])}")
    known, checks = LOCAL_CHECKS + ASKED_CHECKS, table.get("checks", [])
    if not isinstance(checks, list):
        raise ValueError(f"checks = {checks!r} is no list, such as ['quality']; there are {', '.join(known)}")
    if unknown := [name for name in checks if name not in known]:
        raise ValueError(f"unknown check {unknown[0]!r}; there are {', '.join(known)}")
    return Rules(**table)
