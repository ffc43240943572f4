"""What all entry points share: the --config flag with its overrides, and errors of use as one line.

It holds no training or data logic and imports neither JAX nor the two packages. An entry point is:

    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from launch import app

    CONFIG = app.config_flag()

    def main(argv: list[str]) -> None:
        train(CONFIG.value)

    if __name__ == "__main__":
        app.run(main)

Recipes are plain typed dataclasses. Every field becomes an absl flag of its own once the recipe is loaded, so --help
lists them all. (ml_collections.config_flags 1.1 was tried: it ends in a traceback on an unknown key or a Literal, reads
`a,b` as the one string "a,b", cannot set an Optional to none, and lets a recipe set a wrong type or a misspelt key.)
"""

import dataclasses
import difflib
import enum
import importlib
import importlib.util
import json
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union

from absl import app as absl_app
from absl import flags, logging

ROOT = Path(__file__).resolve().parents[1]
# Python puts a script's own directory first on the path, where launch/evaluate.py would hide Hugging Face's `evaluate`.
sys.path[:] = [entry for entry in sys.path if entry == "" or Path(entry).resolve() != ROOT / "launch"]

flags.disclaim_key_flags()  # --help shows the flags below as the entry point's own

BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class UsageError(ValueError):
    """An error of use found before either package had its say: the user reads one line and mends the command."""


# --- the flag and the run ---------------------------------------------------------------------------------------------


def config_flag(default: str | None = None) -> flags.FlagHolder[Any]:
    """Defines --config. After `run` has parsed the flags, `.value` is the recipe's dataclass, overridden and checked.

    Args:
      default: the recipe when --config is absent, e.g. "configs/tiny.py:sft". None: --config must be given.
    """
    return flags.DEFINE_string("config", default, "the recipe: configs/NAME.py or configs/NAME.py:ARGUMENT")


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags, calls main(argv), exits. An error of use becomes one line on stderr and exit code 2.

    Errors of use are UsageError of this module and of both packages, and whatever absl says of a flag. Everything else
    keeps its traceback: it is a defect and not the user's.
    """


    def quiet_main(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells every file it writes at level INFO
        main(argv)

    try:
        absl_app.run(quiet_main, flags_parser=_parse_flags)
    except _usage_errors() as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)


def _usage_errors() -> tuple[type[Exception], ...]:
    """Evaluated when an error passes by: a package's error can only come from a package that is loaded by then."""
    packages = [sys.modules[name] for name in ("alif_jax", "data_gen") if name in sys.modules]
    return (UsageError, flags.Error, *(package.UsageError for package in packages))


def _parse_flags(argv: list[str]) -> list[str]:
    """Loads the recipe, makes a flag of each of its fields, parses all flags, applies and checks the overrides."""
    values = flags.FLAGS
    argv = values.read_flags_from_files(argv, force_gnu=False)
    recipe = _find_recipe(argv) if "config" in values else None
    config = load_recipe(recipe) if recipe else None
    fields = {f"config.{key}": field for key, field in _fields(config, "")} if config is not None else {}
    for name, (owner, attribute, hint) in fields.items():
        shown = f"{describe(hint)}; in this recipe {getattr(owner, attribute)!r}"
        flag = flags.Flag(_Parser(hint), flags.ArgumentSerializer(), name, None, shown, boolean=hint is bool)
        flags.DEFINE_flag(flag, values, module_name=argv[0])
    try:
        rest = values(argv)
    except flags.UnrecognizedFlagError as error:
        raise UsageError(_unknown_flag(error.flagname, list(fields))) from None
    if len(rest) > 1:
        raise UsageError(f"unexpected argument {rest[1]!r}: flags are written --name=value")
    if "config" in values and config is None:
        raise UsageError("--config is missing: pass a recipe, --config=configs/NAME.py")
    for name, (owner, attribute, _) in fields.items():
        if values[name].present:
            setattr(owner, attribute, values[name].value)
    if config is not None:
        check_types(config)
        if hasattr(config, "validate"):
            config.validate()
        values["config"].value = config
    return rest


def _find_recipe(argv: list[str]) -> str | None:
    """The value of --config wherever it stands: overrides may come before it."""
    found = []
    for i, arg in enumerate(argv):
        if arg == "--":
            break
        if match := re.fullmatch(r"--?config(?:=(.*))?", arg):
            found.append(match[1] if match[1] is not None else "".join(argv[i + 1 : i + 2]))
    if len(found) > 1:
        raise UsageError(f"--config is given {len(found)} times ({', '.join(found)}): give one recipe")
    return found[0] if found else flags.FLAGS["config"].default


def _unknown_flag(name: str, keys: list[str]) -> str:
    """`--config.lora.rnak: no such key; did you mean --config.lora.rank?`"""
    if name.startswith("config.") and not keys:
        return f"--{name}: there is no recipe to override; pass --config=configs/NAME.py"
    if name.startswith("config."):
        return f"--{name}: no such key" + _nearest(name, keys, "--")
    own = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
    return f"--{name}: no such flag" + _nearest(name, own, "--")


def _nearest(name: str, known: list[str], dashes: str = "") -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {dashes}{near[0]}?" if near else "; --help lists them all"


# --- recipes ----------------------------------------------------------------------------------------------------------


def load_recipe(recipe: str) -> Any:
    """What get_config returns: `configs/tiny.py:sft` calls get_config("sft"), `configs/tiny.py` get_config("").

    The path is taken from the working directory, or else from the repository's root. Types are not checked here.
    """
    path, _, argument = recipe.partition(":")
    file = Path(path) if Path(path).is_file() else ROOT / path
    if not file.is_file():
        known = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("configs/[!_]*.py"))
        raise UsageError(f"--config={recipe}: no file {path!r}; recipes here: {', '.join(known) or 'none'}")
    module = _import_file(file.resolve())
    if not hasattr(module, "get_config"):
        raise UsageError(f'--config={recipe}: {path} has no function get_config(arg: str = "")')
    config = module.get_config(argument)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UsageError(f"--config={recipe}: get_config returned {type(config).__name__}, expected a dataclass")
    return config


def _import_file(file: Path) -> types.ModuleType:
    """A file of this repository is imported by its dotted name, so that recipes which import each other share it."""
    if file.is_relative_to(ROOT):
        return importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    spec = importlib.util.spec_from_file_location(f"recipe_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"--config={file}: expected a Python file, NAME.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # typing.get_type_hints looks the recipe's own classes up there
    spec.loader.exec_module(module)
    return module


def check_types(config: Any) -> None:
    """Raises UsageError at the first field whose value is not of the field's type, and at a key that is no field.

    Recipes assign to plain objects, where `config.lora.rnak = 64` would otherwise pass without a word.
    An int passes for a float; a bool passes for neither.
    """
    for problem in _problems(config, type(config), "config"):
        raise UsageError(problem)


def resolved(config: Any) -> dict[str, Any]:
    """The config as plain JSON values: tuples become lists, paths strings, enum members their values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a config holds {value!r} of type {type(value).__name__}, which JSON cannot: use plain values")


def _fields(config: Any, prefix: str) -> Iterator[tuple[str, tuple[Any, str, Any]]]:
    """Each leaf as (dotted key, (owner, attribute, type hint)): ("lora.rank", (config.lora, "rank", int))."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, (config, field.name, hints[field.name])


def _problems(value: Any, hint: Any, path: str) -> Iterator[str]:
    if not matches(value, hint):
        yield f"{path}: got {value!r} of type {type(value).__name__}, expected {describe(hint)}"
    elif dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value))
        names = [field.name for field in dataclasses.fields(value)]
        for name in sorted(vars(value).keys() - set(names)):
            near = _nearest(f"{path}.{name}", [f"{path}.{known}" for known in names])
            yield f"{path}.{name}: the recipe sets a key that does not exist{near}"
        for name in names:
            yield from _problems(getattr(value, name), hints[name], f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _problems(item, type(item), f"{path}[{i}]")


# --- types ------------------------------------------------------------------------------------------------------------


def _arms(hint: Any) -> tuple[Any, ...]:
    """`int | None` -> (int, NoneType); any other hint -> (hint,)."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as recipes write it: classes, X | None, Literal, tuple, list, dict, Any."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if len(_arms(hint)) > 1:
        return any(matches(value, arm) for arm in _arms(hint))
    if hint is Any:
        return True
    if origin is Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return isinstance(value, tuple) and all(matches(item, args[0]) for item in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(args) and all(map(matches, value, args))
    if origin is list:
        return isinstance(value, list) and all(matches(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(matches(k, args[0]) and matches(v, args[1]) for k, v in value.items())
    return isinstance(value, origin or hint)


def describe(hint: Any) -> str:
    """A type in words: `float | None` -> "float or none", `tuple[str, ...]` -> "str,str,..."."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if len(_arms(hint)) > 1:
        return " or ".join(describe(arm) for arm in _arms(hint))
    if hint is types.NoneType:
        return "none"
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin is tuple and args[1:] == (Ellipsis,):
        return f"{describe(args[0])},{describe(args[0])},..."
    if origin is tuple:
        return ",".join(describe(arg) for arg in args)
    return getattr(hint, "__name__", str(hint)) if origin is None else str(hint)


def parse_value(text: str, hint: Any) -> Any:
    """Reads a flag's text as a value of the type: ("a,b", tuple[str, ...]) -> ("a", "b"), ("none", int | None) -> None.

    Raises ValueError where the text is no such value.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    arms = _arms(hint)
    if len(arms) > 1:
        if types.NoneType in arms and text.lower() == "none":
            return None
        return _first_parse(text, [arm for arm in arms if arm is not types.NoneType])
    if hint is bool or origin is Literal:
        named = BOOLEANS if hint is bool else {str(arg).lower(): arg for arg in args}
        if text.lower() not in named:
            raise ValueError(f"{text!r} is none of {', '.join(named)}")
        return named[text.lower()]
    if hint in (int, float, str):
        return hint(text)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint(text)
    if origin is tuple:
        items = [item.strip(" '\"") for item in text.strip("()").split(",") if item.strip()]
        of = [args[0]] * len(items) if args[1:] == (Ellipsis,) else args
        return tuple(parse_value(item, arm) for item, arm in zip(items, of, strict=True))
    raise ValueError(f"a {describe(hint)} is set in the recipe, not on the command line")


def _first_parse(text: str, hints: list[Any]) -> Any:
    for hint in hints[:-1]:
        try:
            return parse_value(text, hint)
        except ValueError:
            continue  # the next member of the union may take it
    return parse_value(text, hints[-1])


class _Parser(flags.ArgumentParser[Any]):
    """absl's way to a typed flag; absl puts `flag --NAME=TEXT: ` before what is raised here."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint

    def parse(self, argument: str) -> Any:
        try:
            return parse_value(argument, self.hint)
        except ValueError as error:
            raise ValueError(f"expected {describe(self.hint)} ({error})") from None

    def flag_type(self) -> str:
        return describe(self.hint)
