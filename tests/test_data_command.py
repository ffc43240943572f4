"""launch/self_instruct.py as it is called: its exit codes, what it says, and that nothing is lost by any of its ends."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPE = """
from data_gen.config import SelfInstructConfig, Targets
from data_gen.endpoint import TeacherConfig

def get_config(arg=""):
    none = dict(reasoning=0, question_answering=0, classification=0, translation=0)
    return SelfInstructConfig(targets=Targets(generation=60, ethics=60, sentiment=60, **none), items_per_request=5)
"""
TERMS = "https://example.com/terms training other models is allowed"
PRICES = ("--config.teacher.input_price=0.5", "--config.teacher.output_price=2")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return path


def start(recipe: Path, workdir: str, *more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "launch/self_instruct.py", f"--config={recipe}", f"--workdir={recipe.parent / workdir}", *more]
    environment = {**os.environ, "PYTHONPATH": ""}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(recipe: Path, workdir: str, *more: str) -> tuple[int, str, str]:
    process = start(recipe, workdir, *more)
    said, errors = process.communicate(timeout=120)
    return process.returncode, said, errors


def shards(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((directory / "data").glob("*.tfrecord"))}


def attempts(workdir: Path, where: str) -> int:
    try:
        with sqlite3.connect(workdir / "journal.sqlite") as db:
            return int(db.execute(f"SELECT count(*) FROM attempt WHERE {where}").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_dry_run_budget_stop_and_resume(recipe: Path) -> None:
    """The four commands of the README's chapter."""
    place = recipe.parent
    code, said, _ = run(recipe, "a", *PRICES, "--dry_run", "--max_cost=0.03")
    assert code == 0 and re.search(r"requests +\d+ to be answered", said) and "$0.03: not enough" in said
    assert not (place / "a").exists(), "a dry run leaves nothing"

    code, said, errors = run(recipe, "a", *PRICES, "--max_cost=0.03")
    assert (code, errors) == (77, "") and "stopped at the budget: $0.0" in said
    with sqlite3.connect(place / "a" / "journal.sqlite") as db:
        [[spent]] = db.execute("SELECT sum(cost) FROM attempt")
    assert 0.01 < spent <= 0.03 and not shards(place / "a") and (place / "a" / "rejected.jsonl").stat().st_size

    code, said, _ = run(recipe, "a", *PRICES, "--parse_only")
    assert code == 0 and shards(place / "a"), "what there is"

    code, said, _ = run(recipe, "a", *PRICES, "--max_cost=5")
    assert code == 0 and re.search(r"going on: \d+ of \d+ requests are answered, 0 were in flight", said)
    assert attempts(place / "a", "error IS NOT NULL") == 0
    assert run(recipe, "b")[0] == 0 and shards(place / "a") == shards(place / "b")

    for more in (["--dry_run"], []):
        code, _, errors = run(recipe, "a", "--config.teacher.model=other", *more)
        assert code == 2 and "begun with teacher.model='offline-teacher', now it is 'other'" in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)])
def test_a_stop_waits_for_what_is_on_its_way(recipe: Path, number: int, code: int) -> None:
    workdir = recipe.parent / "a"
    process = start(recipe, "a", "--config.teacher.offline_latency_s=2")
    deadline = time.monotonic() + 60
    while attempts(workdir, "ended_at IS NULL") < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")
    assert "stopping: waiting for 8 requests on their way" in said and "the same command goes on from here" in said
    assert attempts(workdir, "ended_at IS NULL") == 0 and attempts(workdir, "reply IS NOT NULL") >= 8


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max_cost=1"], r"--max_cost=1 needs a price: --config.teacher.input_price and --config.teacher.output_price"),
        (["--parse_only"], r"--parse_only reads the replies in .*/a/journal.sqlite, and there is none: check --workdir"),
        (["--config.teacher.base_url=http://127.0.0.1:9/v1"], r"teacher.terms is ''; several providers forbid"),
        (
            [f"--config.teacher.{field}" for field in ("base_url=http://127.0.0.1:9/v1", f"terms={TERMS}", "backoff_s=0.01")],
            r"no connection: Connect call failed .'127.0.0.1', 9.; tried 6 times. Wait, or check that the server runs there",
        ),
        (["--config.teacher.timeout_s=inf"], r"teacher.timeout_s is inf; it must be between"),
        (["--config.teacher.input_price=1"], r"input_price and teacher.output_price belong together"),
        (["--config.teacher.offline_faults=nonsense=1"], r"nonsense"),
    ],
)
def test_errors_of_use_are_one_line_and_exit_code_2(recipe: Path, flags: list[str], words: str) -> None:
    code, said, errors = run(recipe, "a", *flags)
    assert code == 2 and errors.count("\n") == 1 and re.search(words, errors), errors
    assert "Traceback" not in said + errors


def test_terms_go_into_the_manifest(recipe: Path) -> None:
    assert run(recipe, "a", f"--config.teacher.terms={TERMS}", "--config.targets.ethics=0", "--config.targets.sentiment=0")[0] == 0
    manifest = json.loads((recipe.parent / "a" / "data" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["config"]["teacher"]["terms"] == TERMS
