"""Language packs: what the data engine must know of a language, as data. A folder `languages/CODE/` has `pack.toml` and, a folder
a task, `seeds.jsonl` (and perhaps a `prompt.txt` of its own). README.md beside this file says how to write one.

    load_pack("ur").name == "Urdu"        load_pack("ur").normalise("\\u0643") == "ک"
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import regex

from data_gen import UsageError
from data_gen.text import normaliser

ENGLISH = "en"
MIN_SCRIPT_SHARE = 0.7  # leaves room for names and terms such as Python in an Urdu answer


@dataclass(frozen=True)
class Variety:
    """A language as it is written in some items: the share of its letters that are in `script` lies between two bounds."""

    name: str
    script: str
    written: str  # how the prompts describe it
    min_share: float = MIN_SCRIPT_SHARE
    max_share: float = 1.0


@dataclass(frozen=True)
class Patterns:
    """Expressions in the language: an instruction asks for a translation into it, or into English; a chat model speaks of
    itself; an answer begins by declining.
    """

    into: regex.Pattern[str]
    into_english: regex.Pattern[str]
    boiler_plate: regex.Pattern[str]
    refusal: regex.Pattern[str]


@dataclass(frozen=True)
class Pack:
    """One language. `script` and those of `varieties` are Unicode script names; `varieties` has the language itself and English
    too.

    `lingua` is the ISO 639-1 code that lingua has for it ("" for none), `neighbours` what it may be taken for; `glotlid` is
    GlotLID's label. `foreign_letters` are letters of its script that it never writes: they mean a neighbour. `answer_mark` begins
    the last line of a reasoned answer; `choice_letters` name the options of a question with choices; `verbs` are common imperative
    forms and `particles` words before them that are no object, for the report; `prompt` fills the placeholders of the prompts.
    """

    code: str
    name: str
    native_name: str
    script: str
    direction: str
    lingua: str
    neighbours: tuple[str, ...]
    glotlid: str
    foreign_letters: str
    sentence_ends: str
    list_comma: str
    answer_mark: str
    choice_letters: tuple[str, ...]
    verbs: tuple[str, ...]
    particles: tuple[str, ...]
    prompt: Mapping[str, str]
    patterns: Patterns
    varieties: Mapping[str, Variety]
    normalise: Callable[[str], str]
    folder: Traversable


def packs(root: Traversable | None = None) -> list[str]:
    """The codes of the languages there are packs for."""
    root = root or resources.files("data_gen") / "languages"
    return sorted(folder.name for folder in root.iterdir() if (folder / "pack.toml").is_file())


@lru_cache
def load_pack(code: str, root: Traversable | None = None) -> Pack:
    """Reads `languages/CODE/pack.toml`. Raises UsageError where there is none (naming those there are), and for a key that is
    missing, unknown or of a wrong kind.
    """
    languages = root or resources.files("data_gen") / "languages"
    if code not in packs(languages):
        raise UsageError(
            f"there is no language pack for {code!r}; there are {', '.join(packs(languages))}. To write one: "
            "data_gen/languages/README.md"
        )
    folder = languages / code
    try:
        return _read(code, folder, tomllib.loads((folder / "pack.toml").read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, regex.error, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder}/pack.toml: {error}") from error


def _read(code: str, folder: Traversable, table: dict[str, Any]) -> Pack:
    own = {"code", "folder", "normalise"}
    wanted = {field.name for field in fields(Pack)} - own | {"letters"}
    optional = {"foreign_letters", "letters", "varieties", "neighbours", "verbs", "particles"}
    if unknown := table.keys() - wanted:
        raise ValueError(f"unknown key {min(unknown)!r}; there are {', '.join(sorted(wanted))}")
    if missing := wanted - optional - table.keys():
        raise ValueError(f"the key {min(missing)!r} is missing")
    lists: dict[str, Any] = {name: tuple(table.pop(name, ())) for name in ("neighbours", "choice_letters", "verbs", "particles")}
    varieties = {
        code: Variety(table["name"], table["script"], table["prompt"]["standard"]),
        ENGLISH: Variety("English", "Latin", "plain correct English"),
        **{name: Variety(**variety) for name, variety in table.pop("varieties", {}).items()},
    }
    for variety in varieties.values():
        regex.compile(rf"\p{{Script={variety.script}}}")
    patterns = Patterns(**{name: regex.compile(pattern) for name, pattern in table.pop("patterns").items()})
    table.setdefault("foreign_letters", "")
    normalise = normaliser(table.pop("letters", {}))
    return Pack(code=code, folder=folder, normalise=normalise, patterns=patterns, varieties=varieties, **lists, **table)
