"""The quickstart: a minute's version end to end, its bars, and (slow tier) the real one, also on shuffled answers."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alif_jax.data.tfrecord import read_records
from data_gen.record import Record
from data_gen.tfrecord import write_shards
from launch import quickstart

ROOT = Path(__file__).resolve().parents[1]


def run(workdir: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "launch/quickstart.py", f"--workdir={workdir}", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def report_of(workdir: Path) -> dict[str, Any]:
    return json.loads((workdir / "report.json").read_text(encoding="utf-8"))


def test_quick_version_end_to_end(tmp_path: Path) -> None:
    """All files that the README promises, and exports that transformers and PEFT agree with."""
    first = run(tmp_path, "--quick")
    assert first.returncode == 0, first.stdout + first.stderr
    for name in ("data/manifest.json", "run/config.json", "run/metrics.jsonl", "run/checkpoints", "run/tensorboard",
                 "export/merged/model.safetensors", "export/peft/adapter_model.safetensors", "journal.sqlite"):  # fmt: skip
        assert (tmp_path / name).exists(), name
    report = report_of(tmp_path)
    verdicts = report["verify"]
    assert verdicts["merged"].startswith("verified with transformers in float32: ")
    assert verdicts["peft"].startswith("verified with transformers and PEFT in float32: ")
    for form in ("merged", "peft"):
        card = (tmp_path / "export" / form / "README.md").read_text(encoding="utf-8")
        assert "## Held-out results" in card and str(tmp_path) not in card
    loss = report["heldout_loss"]
    assert loss["base"] > loss["cpt"] > loss["run"]
    assert report["counts"]["heldout"]["records"] > 0 and "similar" in report["rejected"]


def test_a_bar_is_missed_by_values_below_it() -> None:
    sound = {name: bar for name, bar in quickstart.BARS.items()}
    assert quickstart.missed_bars(sound) == []
    for name, bar in quickstart.BARS.items():
        assert quickstart.missed_bars(sound | {name: bar - 0.001}) == [name]


def test_teacher_flags_belong_together(tmp_path: Path) -> None:
    result = run(tmp_path / "x", "--teacher_url=http://127.0.0.1:1/v1")
    assert result.returncode == 2 and "--teacher_model" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_unreachable_teacher_is_one_line(tmp_path: Path) -> None:
    teacher = ("--teacher_url=http://127.0.0.1:9/v1", "--teacher_model=m", "--teacher_terms=https://example.com/x allows all uses")
    result = run(tmp_path / "x", *teacher, "--quick")
    assert result.returncode == 2 and "127.0.0.1:9" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_bars_are_met_and_shuffled_answers_miss_them(tmp_path: Path) -> None:
    """A second run repeats nothing. The same seeds, base and steps; only the training answers change places within their task."""
    sound = run(tmp_path / "sound")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    loss = report_of(tmp_path / "sound")["heldout_loss"]
    again = run(tmp_path / "sound", "--no_verify")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("done before") == 3 and "step " not in again.stderr
    assert report_of(tmp_path / "sound")["heldout_loss"] == loss
    data = str(tmp_path / "sound" / "data")
    splits = {split: list(read_records(data, split)) for split in ("train", "heldout")}
    rng = random.Random(0)
    for task in sorted({record.task for record in splits["train"]}):
        of_task = [record.messages for record in splits["train"] if record.task == task]
        answers = [messages[1]["content"] for messages in of_task if messages]
        rng.shuffle(answers)
        for messages, answer in zip(of_task, answers, strict=True):
            assert messages
            messages[1]["content"] = answer
    made = {split: [Record(**record._asdict() | {"messages": tuple(record.messages or ())}) for record in records]
            for split, records in splits.items()}  # fmt: skip
    write_shards(str(tmp_path / "shuffled_data"), made, config={}, shard_records=10_000)
    shuffled = tmp_path / "shuffled"
    result = run(shuffled, f"--data={tmp_path / 'shuffled_data'}")
    assert result.returncode == 1, result.stdout + result.stderr
    assert "closed_exact" in report_of(shuffled)["missed"]
