"""Language packs: what the data engine must know of a language, as data. A folder `languages/CODE/` has `pack.toml` and, a folder
a task, `seeds.jsonl` (and perhaps a `prompt.txt` of its own). README.md beside this file says how to write one.

    load_pack("ur").name == "Urdu"        load_pack("ur").normalise("\\u0643") == "ک"        load_label("urd_Arab").code == "ur"

A pack serves two ends. What cleaning web text needs of a language is in all of them; what instructions need (INSTRUCTIONS) may be
missing, and a recipe that asks for instructions in such a language says so.
"""

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

import regex

from data_gen import UsageError
from data_gen.text import normaliser

ENGLISH = "en"
MIN_SCRIPT_SHARE = 0.7  # leaves room for names and terms such as Python in an Urdu answer
DIRECTIONS = ("rtl", "ltr")
INSTRUCTIONS = ("list_comma", "answer_mark", "choice_letters", "prompt", "patterns")  # what only instruction data needs
_OPTIONAL = {
    *INSTRUCTIONS, "foreign_letters", "letters", "varieties", "neighbours", "verbs", "particles", "list_or", "helplines",
    "pieces_a_word", "common_words", "web",
}  # fmt: skip
_MAY_BE_EMPTY = {*_OPTIONAL, "lingua", "glotlid"} - set(INSTRUCTIONS)
_TEXT, _TEXTS, _TABLE = "a text", "a list of texts", "a table of texts"
# What a field's type is in pack.toml; any other is a table.
_KINDS: dict[Any, str] = {
    str: _TEXT, regex.Pattern[str]: _TEXT, tuple[str, ...]: _TEXTS, Mapping[str, str]: _TABLE, float: "a number", int: "a number",
}  # fmt: skip
_NEVER = regex.compile(r"(?!)")


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

    into: regex.Pattern[str] = _NEVER
    into_english: regex.Pattern[str] = _NEVER
    boiler_plate: regex.Pattern[str] = _NEVER
    refusal: regex.Pattern[str] = _NEVER


@dataclass(frozen=True)
class Web:
    """Expressions for pages in the language: an address or an opening that is news; a line that is no text of the page, such as a
    menu's; letters in an order that only a broken font or a wrong decoding makes.
    """

    news: regex.Pattern[str] = _NEVER
    boiler_plate: regex.Pattern[str] = _NEVER
    damage: regex.Pattern[str] = _NEVER


_Table = TypeVar("_Table", Patterns, Web)


@dataclass(frozen=True)
class Pack:
    """One language. `script` and those of `varieties` are Unicode script names; `varieties` has the language itself and English
    too.

    `lingua` is the ISO 639-1 code that lingua has for it ("" for none), `neighbours` what it may be taken for; `glotlid` is
    GlotLID's label, and the language's name with its script: urd_Arab. `common_words` has for such labels, its own and those it
    is taken for, words (blanks between) that are frequent there and unknown in the others. `pieces_a_word` is how many of
    data_gen.text.tokens a word has: 1, or more where no blanks part words. `foreign_letters` are letters of its script that it
    never writes: they mean a neighbour. `answer_mark` begins the last line of a reasoned answer; `list_or` stands between the
    last two labels of a list ("" for none); `helplines` are telephone numbers that may be given; `choice_letters` name the
    options of a question with choices; `verbs` are common imperative forms and `particles` words before them that are no
    object, for the report; `prompt` fills the placeholders of the prompts.
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
    varieties: Mapping[str, Variety]
    normalise: Callable[[str], str]
    folder: Traversable
    pieces_a_word: int
    common_words: Mapping[str, tuple[str, ...]]
    web: Web
    list_comma: str
    answer_mark: str
    choice_letters: tuple[str, ...]
    verbs: tuple[str, ...]
    particles: tuple[str, ...]
    prompt: Mapping[str, str]
    patterns: Patterns
    list_or: str = ""
    helplines: tuple[str, ...] = ()

    def check_instructions(self) -> None:
        """Raises UsageError where the pack lacks what instruction data needs."""
        empty = ("", (), {"standard": ""}, Patterns())
        missing = [name for name in INSTRUCTIONS if getattr(self, name) in empty]
        if missing:
            raise UsageError(
                f"the language pack of {self.code} ({self.name}) serves web text only: for instructions {self.folder}/pack.toml "
                f"lacks {', '.join(missing)}. How to write them: data_gen/languages/README.md"
            )


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


def load_label(label: str) -> Pack:
    """The pack of a language by its name with script: load_label("urd_Arab").code == "ur". Raises UsageError where there is
    none.
    """
    found = {pack.glotlid: pack for pack in map(load_pack, packs())}
    if label not in found:
        raise UsageError(
            f"there is no language pack for {label!r}; there are {', '.join(sorted(found))} (a language's code "
            "and its script). To write one: data_gen/languages/README.md"
        )
    return found[label]


def _read(code: str, folder: Traversable, table: dict[str, Any]) -> Pack:
    kinds = _kinds(Pack, "code", "folder", "normalise") | {"letters": _TABLE}
    _check(table, kinds, _OPTIONAL)
    if table["direction"] not in DIRECTIONS:
        raise ValueError(f"direction = {table['direction']!r}; there are {', '.join(DIRECTIONS)}")
    if "standard" not in table.setdefault("prompt", {"standard": ""}):
        raise ValueError("[prompt]: the key 'standard' is missing; it says how the language is written")
    pieces = table.setdefault("pieces_a_word", 1)
    if pieces != int(pieces) or pieces < 1:
        raise ValueError(f"pieces_a_word = {pieces!r} is no whole number from 1 on")
    lists: dict[str, Any] = {name: tuple(table.pop(name, ())) for name, kind in kinds.items() if kind == _TEXTS}
    varieties = {
        code: Variety(table["name"], table["script"], table["prompt"]["standard"] or table["name"]),
        ENGLISH: Variety("English", "Latin", "plain correct English"),
        **{name: _variety(name, variety) for name, variety in table.pop("varieties", {}).items()},
    }
    _check_script(table["script"])
    patterns = _patterns(Patterns, table.pop("patterns", {}), "[patterns]: ", optional=())
    web = _patterns(Web, table.pop("web", {}), "[web]: ", optional=_kinds(Web))
    words = _common_words(table.pop("common_words", {}), table["glotlid"])
    for name in ("foreign_letters", "list_comma", "answer_mark"):
        table.setdefault(name, "")
    normalise = normaliser(table.pop("letters", {}))
    return Pack(
        code=code, folder=folder, normalise=normalise, patterns=patterns, web=web, common_words=words, varieties=varieties, **lists,
        **table,
    )  # fmt: skip


def _common_words(table: Mapping[str, str], own: str) -> dict[str, tuple[str, ...]]:
    """Words by label. Raises ValueError where a word is in two lists, or the language's own list is missing."""
    words = {label: tuple(text.split()) for label, text in table.items()}
    if words and own not in words:
        raise ValueError(f"[common_words]: the language's own words, {own}, are missing; there are {', '.join(sorted(words))}")
    seen: dict[str, str] = {}
    for label, several in words.items():
        for word in several:
            if seen.setdefault(word, label) != label:
                raise ValueError(f"[common_words]: {word!r} is in {seen[word]} and in {label}; a word must tell one from the other")
    return words


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
        if not value and kinds[key] in (_TEXT, _TEXTS) and key not in _MAY_BE_EMPTY:
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


def _patterns(owner: type[_Table], table: dict[str, Any], where: str, optional: Collection[str]) -> _Table:
    """A table of regular expressions; without any, one in which nothing ever matches."""
    if table:
        _check(table, _kinds(owner), optional, where)
    compiled = {}
    for name, pattern in table.items():
        try:
            compiled[name] = regex.compile(pattern)
        except regex.error as error:
            raise ValueError(f"{where}{name} = {pattern!r} is no regular expression: {error}") from error
    return owner(**compiled)
