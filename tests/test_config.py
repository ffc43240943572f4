"""The --config flag as a user meets it: an entry point in a process of its own, its exit code and what it prints."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest

from launch import app, processes

ROOT = Path(__file__).resolve().parents[1]

ENTRY = f"""
import dataclasses, json, sys
sys.path.insert(0, {str(ROOT)!r})
from absl import flags
from launch import app

CONFIG = app.config_flag()
RAISE = flags.DEFINE_enum("raises", None, ["alif_jax", "data_gen", "defect"], "what main raises")

def main(argv):
    assert "jax" not in sys.modules and "alif_jax" not in sys.modules, "the flags alone need no JAX"
    if RAISE.value == "defect":
        raise KeyError("a defect")
    if RAISE.value:
        raise __import__(RAISE.value).UsageError("got 1,\\n  expected 2; set x")
    print(json.dumps(dataclasses.asdict(CONFIG.value)))

if __name__ == "__main__":
    app.run(main)
"""

RECIPE = """
import dataclasses, typing
from launch.app import UsageError

@dataclasses.dataclass(kw_only=True)
class Lora:
    rank: int = 8
    alpha: float | None = None
    name: str | None = "a"
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    scale: typing.Literal["standard", "rank_stabilised"] = "standard"

@dataclasses.dataclass(kw_only=True)
class Config:
    lora: Lora = dataclasses.field(default_factory=Lora)
    steps: int = 3
    learning_rate: float = 1e-3
    betas: tuple[float, ...] = (0.9, 0.95)
    remat: bool = False

    def validate(self) -> None:
        if self.steps < 1:
            raise UsageError(f"config.steps: got {self.steps}, expected at least 1")

def get_config(arg: str = "") -> Config:
    config = Config()
    if arg == "typo":
        config.lora.rnak = 64
    elif arg == "wrong":
        config.lora.rank = "64"
    elif arg == "part":
        config.lora = None
    elif arg:
        config.steps = int(arg)
    return config
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config")
    (path / "entry.py").write_text(ENTRY)
    (path / "recipe.py").write_text(RECIPE)
    (path / "empty.py").write_text("")
    return path


def call(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "entry.py", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)


def config_of(directory: Path, *arguments: str) -> dict[str, Any]:
    done = call(directory, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_overrides_of_every_type(directory: Path) -> None:
    config = config_of(
        directory,
        "--config.lora.rank=64",  # before --config: the order is free
        "--config=recipe.py:7",
        "--config.lora.alpha",
        "16",
        "--config.lora.name=none",
        "--config.lora.targets=q_proj,k_proj,o_proj",
        "--config.lora.scale=rank_stabilised",
        "--config.learning_rate=2",
        "--config.betas=(0.8, 0.9)",
        "--config.remat",
    )
    assert config == {
        "lora": {
            "rank": 64,
            "alpha": 16.0,
            "name": None,
            "targets": ["q_proj", "k_proj", "o_proj"],
            "scale": "rank_stabilised",
        },
        "steps": 7,
        "learning_rate": 2.0,
        "betas": [0.8, 0.9],
        "remat": True,
    }


def test_booleans_and_the_last_config_counts(directory: Path) -> None:
    config = config_of(directory, "--config=recipe.py:5", "--config.remat=true", "--noconfig.remat", "--config", "recipe.py:6")
    assert (config["remat"], config["steps"]) == (False, 6)


def test_help_lists_the_recipe_s_keys(directory: Path) -> None:
    shown = call(directory, "--config=recipe.py", "--help").stdout
    assert "--config.lora.rank" in shown and "float or none" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.lora.rnak=64"], "error: --config.lora.rnak: no such key; did you mean --config.lora.rank?"),
        (["--config.rank=64"], "--config.rank: no such key; did you mean --config.lora.rank?"),
        (["--config.zzzzzzzzzzzzzzz=1"], "--config.zzzzzzzzzzzzzzz: no such key; --help lists them all"),
        (["--rasies=defect"], "Unknown command line flag 'rasies'. Did you mean: raises ?"),
        (["--config.lora.rank=many"], "error: --config.lora.rank=many: expected int\n"),
        (["--config.lora.rank=1.5"], "error: --config.lora.rank=1.5: expected int\n"),
        (["--config.lora.rank=none"], "error: --config.lora.rank=none: expected int\n"),
        (["--config.lora.alpha=x"], "error: --config.lora.alpha=x: expected float or none\n"),
        (["--config.lora.scale=big"], "error: --config.lora.scale=big: expected one of standard, rank_stabilised\n"),
        (["--config.remat=maybe"], "error: --config.remat=maybe: expected bool\n"),
        (["--config.betas=0.9,x"], "error: --config.betas=0.9,x: expected float,...\n"),
        (["--noconfig.remat=1"], "--noconfig.remat=1 does not take an argument"),
        (["--config.steps"], "Missing value for flag --config.steps"),
        (["--config.steps=0"], "config.steps: got 0, expected at least 1"),
        (["more"], "unexpected argument 'more'"),
        (["--raises=nothing"], "error: --raises=nothing: value should be one of"),
        (["--raises=alif_jax"], "got 1, expected 2; set x"),
        (["--raises=data_gen"], "got 1, expected 2; set x"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_code_2(directory: Path, arguments: list[str], message: str) -> None:
    done = call(directory, "--config=recipe.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("recipe.py:typo", "config.lora.rnak: the recipe sets a key that does not exist; did you mean config.lora.ra"),
        ("recipe.py:wrong", "config.lora.rank: got '64' of type str, expected int"),
        ("recipe.py:part", "config.lora: got None of type NoneType, expected Lora"),
        ("nowhere.py", "no file 'nowhere.py'; recipes here:"),
        ("empty.py", "empty.py has no function get_config"),
    ],
)
def test_faulty_recipes_are_one_line_and_exit_code_2(directory: Path, config: str, message: str) -> None:
    done = call(directory, f"--config={config}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr


def test_no_recipe(directory: Path) -> None:
    for arguments, message in (
        ([], "--config is missing: pass a recipe, --config=configs/NAME.py"),
        (["--config.steps=1"], "--config.steps: there is no recipe to override"),
    ):
        done = call(directory, *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr


def test_defects_keep_their_traceback(directory: Path) -> None:
    for arguments in (["--config=recipe.py", "--raises=defect"], ["--config=recipe.py:x"]):
        done = call(directory, *arguments)
        assert done.returncode == 1 and done.stderr.startswith("Traceback")


@dataclasses.dataclass(kw_only=True)
class Plain:
    weight: float = 1.0
    seed: int = 0
    kind: Literal[0, 1] = 0
    names: tuple[str, ...] = ()
    limit: int | None = None


def test_check_types_keeps_bool_and_int_apart() -> None:
    app.check_types(Plain(weight=1, limit=2, names=("a", "b")))  # an int passes for a float
    for config, key in (
        (Plain(weight=True), "config.weight"),
        (Plain(seed=True), "config.seed"),
        (Plain(kind=True), "config.kind"),  # type: ignore[arg-type]
        (Plain(names=("a", 1)), "config.names"),  # type: ignore[arg-type]
        (Plain(names="a"), "config.names"),  # type: ignore[arg-type]
        (Plain(limit="1"), "config.limit"),  # type: ignore[arg-type]
    ):
        with pytest.raises(app.UsageError, match=f"{key}: got"):
            app.check_types(config)


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [("0", Literal[0, 1], 0), ("", tuple[str, ...], ()), ("1,2", tuple[int, ...], (1, 2)), ("none", int | None, None)],
)
def test_parse_value(text: str, hint: Any, value: Any) -> None:
    assert app.parse_value(text, hint) == value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("", "2", ""), "JAX_NUM_PROCESSES set without JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID"),
        (("h:1", "2", "2"), "JAX_NUM_PROCESSES=2 JAX_PROCESS_ID=2: expected N and 0 to N-1"),
        (("h:1", "x", "0"), "JAX_NUM_PROCESSES=x JAX_PROCESS_ID=0: expected N and 0 to N-1"),
    ],
)
def test_process_settings(monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...], message: str) -> None:
    for name, value in zip(processes.SETTINGS, settings, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(app.UsageError, match=message):
        processes.connect()


def test_one_process_needs_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.connect()
    for name, value in zip(processes.SETTINGS, ("nowhere:1", "1", "0"), strict=True):
        monkeypatch.setenv(name, value)
    processes.connect()
