"""Language packs: what the data engine must know of a language, as data. A folder `languages/CODE/` has `pack.toml` and, a folder
a task, `seeds.jsonl` (and perhaps a `prompt.txt` of its own). README.md beside this file says how to write one.

    load_pack("ur").name == "Urdu"        load_pack("ur").normalise("\\u0643") == "ک"
"""

import tomllib
from collections.abc import Callable, Collection, Mapping
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
DIRECTIONS = ("rtl", "ltr")
_OPTIONAL = {"foreign_letters", "letters", "varieties", "neighbours", "verbs", "particles", "list_or", "helplines"}
_MAY_BE_EMPTY = {"lingua", "glotlid"}
_TEXT, _TEXTS, _TABLE = "a text", "a list of texts", "a table of texts"
# What a field's type is in pack.toml; any other is a table.
_KINDS: dict[Any, str] = {
    str: _TEXT, regex.Pattern[str]: _TEXT, tuple[str, ...]: _TEXTS, Mapping[str, str]: _TABLE, float: "a number",
}  # fmt: skip


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
    the last line of a reasoned answer; `list_or` stands between the last two labels of a list ("" for none); `helplines` are
    telephone numbers that may be given; `choice_letters` name the options of a question with choices; `verbs` are common imperative
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
    list_or: str = ""
    helplines: tuple[str, ...] = ()


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
    except ValueError as error:  # those of TOML and UTF-8 are among them
        raise UsageError(f"{folder}/pack.toml: {error}") from error


def _read(code: str, folder: Traversable, table: dict[str, Any]) -> Pack:
    kinds = _kinds(Pack, "code", "folder", "normalise") | {"letters": _TABLE}
    _check(table, kinds, _OPTIONAL)
    if table["direction"] not in DIRECTIONS:
        raise ValueError(f"direction = {table['direction']!r}; there are {', '.join(DIRECTIONS)}")
    if "standard" not in table["prompt"]:
        raise ValueError("[prompt]: the key 'standard' is missing; it says how the language is written")
    lists: dict[str, Any] = {name: tuple(table.pop(name, ())) for name, kind in kinds.items() if kind == _TEXTS}
    varieties = {
        code: Variety(table["name"], table["script"], table["prompt"]["standard"]),
        ENGLISH: Variety("English", "Latin", "plain correct English"),
        **{name: _variety(name, variety) for name, variety in table.pop("varieties", {}).items()},
    }
    _check_script(table["script"])
    patterns = _patterns(table.pop("patterns"))
    table.setdefault("foreign_letters", "")
    normalise = normaliser(table.pop("letters", {}))
    return Pack(code=code, folder=folder, normalise=normalise, patterns=patterns, varieties=varieties, **lists, **table)


def _kinds(owner: Any, *without: str) -> dict[str, str]:
    """What pack.toml has for the fields of a dataclass: {"name": "a text", "verbs": "a list of texts", …}."""
    return {field.name: _KINDS.get(field.type, "a table") for field in fields(owner) if field.name not in without}


def _check(table: Any, kinds: Mapping[str, str], optional: Collection[str], where: str = "") -> None:
    """Raises ValueError naming the first key that is unknown, missing, of a wrong kind or empty."""
    if not isinstance(table, dict):
        raise ValueError(f"{where}{table!r} is no table; it has {', '.join(sorted(kinds))}")
    if unknown := table.keys() - kinds.keys():
        raise ValueError(f"{where}unknown key {min(unknown)!r}; there are {', '.join(sorted(kinds))}")
    if missing := kinds.keys() - optional - table.keys():
        raise ValueError(f"{where}the key {min(missing)!r} is missing")
    for key, value in table.items():
        if not _is_of(kinds[key], value):
            raise ValueError(f"{where}{key} = {value!r} is not {kinds[key]}")
        if not value and kinds[key] in (_TEXT, _TEXTS) and key not in {*optional, *_MAY_BE_EMPTY}:
            raise ValueError(f"{where}{key} is empty")


def _is_of(kind: str, value: Any) -> bool:
    if kind == _TEXT:
        return isinstance(value, str)
    if kind == _TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind == "a number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, dict) and (kind != _TABLE or all(isinstance(one, str) for one in value.values()))


def _variety(code: str, table: Any) -> Variety:
    where = f"[varieties.{code}]: "
    _check(table, _kinds(Variety), {"min_share", "max_share"}, where)
    _check_script(table["script"], where)
    return Variety(**table)


def _check_script(script: str, where: str = "") -> None:
    try:
        regex.compile(rf"\p{{Script={script}}}")
    except regex.error as error:
        raise ValueError(f"{where}script = {script!r} is no script of Unicode, such as Arabic or Latin") from error


def _patterns(table: Any) -> Patterns:
    _check(table, _kinds(Patterns), (), "[patterns]: ")
    compiled = {}
    for name, pattern in table.items():
        try:
            compiled[name] = regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"[patterns]: {name} = {pattern!r} is no regular expression: {error}") from error
    return Patterns(**compiled)
