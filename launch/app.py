"""What all entry points share: the --config flag with its overrides, and errors of use as one line.

It holds no training or data logic and imports neither JAX nor the two packages. An entry point says `CONFIG = app.config_flag()`
(launch/train.py), reads `CONFIG.value` in its main, and ends in `app.run(main)`.

Recipes are plain typed dataclasses. Every field becomes an absl flag of its own once the recipe is loaded, so --help lists them
all. (ml_collections.config_flags 1.1 was tried: it ends in a traceback on an unknown key or a Literal, reads `a,b` as the one
string "a,b", cannot set an Optional to none, and lets a recipe set a wrong type or a misspelt key.)
"""

import dataclasses
import difflib
import os
import runpy
import signal
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from absl import app as absl_app
from absl import flags, logging

ROOT = Path(__file__).resolve().parents[1]
# Python puts a script's own directory first on the path, where launch/evaluate.py would hide Hugging Face's `evaluate`.
sys.path[:] = [entry for entry in sys.path if entry == "" or Path(entry).resolve() != ROOT / "launch"]

# For programs that compile for TPUs which are not there: libtpu would ask for the machine's metadata, and two of them would refuse
# each other. To be set before JAX is imported.
AWAY_FROM_TPU = {
    "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
}  # fmt: skip

flags.disclaim_key_flags()  # --help shows the flags below as the entry point's own


class UsageError(ValueError):
    """An error of use found before either package had its say: the user reads one line and mends the command."""


# --- the flag and the run ---------------------------------------------------------------------------------------------


def config_flag(default: str | None = None) -> flags.FlagHolder[Any]:
    """Defines --config. After `run` has parsed the flags, `.value` is the recipe's dataclass, overridden and checked.

    default: the recipe where none is named; without one, the flag must be given.
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
        print("error:", " ".join(str(error).split()).removeprefix("flag "), file=sys.stderr)
        sys.exit(2)


def calm_bars() -> None:
    """Progress bars of libraries are shown on a terminal only, and are gone when they are full. To be called before these are
    imported: tqdm reads its settings then.
    """
    os.environ.setdefault("TQDM_LEAVE", "")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")


def stop_as_interrupt() -> list[int]:
    """SIGTERM and SIGHUP stop a data recipe as Ctrl-C does: it waits for the replies on their way, then raises KeyboardInterrupt.
    Returns a list that has the signal in it once one came.
    """
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        came.append(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a script that ends in & has its shell see to that
            signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)  # the one stop that asyncio knows

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    return came


@contextmanager
def stoppable(then: str = "") -> Iterator[None]:
    """Around what asks models and can be gone on with: a stop says so and ends with exit code 77 (budget reached), 75 (SIGTERM,
    SIGHUP) or 130 (Ctrl-C). then: what else can be done at the budget.
    """
    from data_gen.limits import BudgetReached

    terminated = stop_as_interrupt()
    try:
        yield
    except BudgetReached as stop:
        print(f"stopped at the budget: {stop}. A larger --max_cost goes on from here{then}")
        sys.exit(77)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here")
        sys.exit(75 if terminated else 130)


def _usage_errors() -> tuple[type[Exception], ...]:
    """Evaluated when an error passes by: a package's error can only come from a package that is loaded by then."""
    packages = [sys.modules[name] for name in ("alif_jax", "data_gen") if name in sys.modules]
    return (UsageError, flags.Error, *(package.UsageError for package in packages))


def _parse_flags(argv: list[str]) -> list[str]:
    """Loads and checks the recipe, makes a flag of each of its fields, parses all flags, applies the overrides."""
    values = flags.FLAGS
    argv = values.read_flags_from_files(argv, force_gnu=False)
    recipe = (_find_recipe(argv) or values["config"].default) if "config" in values else None
    config = load_recipe(recipe) if recipe else None
    if config is not None:
        check_types(config)
    fields = dict(_fields(config, "config")) if config is not None else {}
    for key, (owner, name, hint) in fields.items():
        shown = f"{describe(hint)}; in this recipe {getattr(owner, name)!r}"
        flags.DEFINE(_Parser(hint), key, None, shown, module_name=argv[0], boolean=hint is bool)
    try:
        rest = values(argv)
    except flags.UnrecognizedFlagError as error:
        if "config" not in values or not error.flagname.startswith("config."):
            raise
        if config is None:
            raise UsageError(f"--{error.flagname}: there is no recipe to override; pass --config=configs/NAME.py") from None
        near = _nearest(f"--{error.flagname}", [f"--{key}" for key in fields])
        raise UsageError(f"--{error.flagname}: no such key{near}") from None
    except ValueError as error:  # absl has no error of its own for --noNAME=value
        raise UsageError(str(error)) from None
    if len(rest) > 1:
        raise UsageError(f"unexpected argument {rest[1]!r}: flags are written --name=value")
    if config is not None:
        for key, (owner, name, _) in fields.items():
            if values[key].present:
                setattr(owner, name, values[key].value)
        config.validate()
        values["config"].value = config
    elif "config" in values:
        raise UsageError("--config is missing: pass a recipe, --config=configs/NAME.py")
    return rest


def _find_recipe(argv: list[str]) -> str | None:
    """The value of the last --config wherever it stands: overrides may come before it."""
    recipe = None
    for arg, following in zip(argv, [*argv[1:], None], strict=True):
        name, equals, value = arg.partition("=")
        if name in ("--config", "-config"):
            recipe = value if equals else following
    return recipe


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else "; --help lists them all"


# --- recipes ----------------------------------------------------------------------------------------------------------


def load_recipe(recipe: str) -> Any:
    """What get_config returns: `configs/tiny.py:sft` calls get_config("sft"), `configs/tiny.py` get_config("").

    The path is taken from the working directory, or else from the repository's root. Types are not checked here.
    """
    path, _, argument = recipe.partition(":")
    file = Path(path) if Path(path).is_file() else ROOT / path
    if not file.is_file():
        known = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("configs/[!_]*.py"))
        raise UsageError(f"--config={recipe}: no file {path!r}; recipes here: {', '.join(known)}")
    get_config = runpy.run_path(str(file)).get("get_config")
    if get_config is None:
        raise UsageError(f'--config={recipe}: {path} has no function get_config(arg: str = "")')
    return get_config(argument)


def check_types(config: Any, path: str = "config") -> None:
    """Raises UsageError at the first field whose value is not of the field's type, and at a key that is no field.

    Recipes assign to plain objects, where `config.lora.rnak = 64` would otherwise pass without a word.
    An int passes for a float; a bool passes for neither.
    """
    hints = {f"{path}.{name}": hint for name, hint in typing.get_type_hints(type(config)).items()}
    for key, value in ((f"{path}.{name}", value) for name, value in vars(config).items()):
        if key not in hints:
            raise UsageError(f"{key}: the recipe sets a key that does not exist{_nearest(key, hints)}")
        if not matches(value, hints[key]):
            raise UsageError(f"{key}: got {value!r} of type {type(value).__name__}, expected {describe(hints[key])}")
        if dataclasses.is_dataclass(value):
            check_types(value, key)


def _fields(config: Any, path: str) -> Iterator[tuple[str, tuple[Any, str, Any]]]:
    """Each leaf as (dotted key, (owner, attribute, type hint)): ("config.lora.rank", (config.lora, "rank", int))."""
    for name, hint in typing.get_type_hints(type(config)).items():
        if dataclasses.is_dataclass(hint):
            yield from _fields(getattr(config, name), f"{path}.{name}")
        else:
            yield f"{path}.{name}", (config, name, hint)


# --- types: int, float, str, bool, Literal, tuple[X, ...], X | None, and dataclasses of them ----------------------------


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as recipes write it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if types.NoneType in args:
        return any(matches(value, arg) for arg in args)
    if origin is Literal:
        return any(type(value) is type(arg) and value == arg for arg in args)
    if origin is tuple:
        return isinstance(value, tuple) and all(matches(item, args[0]) for item in value)
    return isinstance(value, (int, float) if hint is float else hint) and (hint is bool or not isinstance(value, bool))


def describe(hint: Any) -> str:
    """A type in words: `float | None` -> "float or none", `tuple[str, ...]` -> "str,..."."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if types.NoneType in args:
        return " or ".join(map(describe, args))
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple:
        return f"{describe(args[0])},..."
    return "none" if hint is types.NoneType else hint.__name__


def parse_value(text: str, hint: Any) -> Any:
    """Reads a flag's text as a value of the type: ("a,b", tuple[str, ...]) -> ("a", "b"), ("none", int | None) -> None.

    Raises ValueError where the text is no such value.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if types.NoneType in args:
        return None if text.lower() == "none" else parse_value(text, next(arg for arg in args if arg is not types.NoneType))
    if hint is bool:
        return flags.BooleanParser().parse(text)
    if origin is Literal:
        return args[[str(arg) for arg in args].index(text)]
    if origin is tuple:
        return tuple(parse_value(item.strip(" '\""), args[0]) for item in text.strip("()").split(",") if item.strip())
    return hint(text)


class _Parser(flags.ArgumentParser[Any]):
    """absl's way to a typed flag; absl puts `flag --NAME=TEXT: ` before what is raised here."""

    def __init__(self, hint: Any) -> None:
        self.hint = hint

    def parse(self, argument: str) -> Any:
        try:
            return parse_value(argument, self.hint)
        except ValueError:
            raise ValueError(f"expected {describe(self.hint)}") from None
