"""metrics.jsonl across kills and resumes: no step twice, no half row, nothing lost."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from alif_jax.metrics import MetricWriter

ROW: dict[str, Any] = {"loss": 2.5, "tokens": 100, "tokens_per_second": 1234.5}


def rows(workdir: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]


def test_one_json_object_a_logged_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = MetricWriter(str(tmp_path), first_step=0)
    writer.write(1, ROW)
    assert rows(tmp_path) == [{"step": 1, **ROW}]  # there at once: a kill loses no logged step
    writer.write(10, ROW | {"loss": 1.5, "heldout_loss": 1.75})
    writer.close()
    assert rows(tmp_path) == [{"step": 1, **ROW}, {"step": 10, **ROW, "loss": 1.5, "heldout_loss": 1.75}]
    assert all(list(row)[:4] == ["step", "loss", "tokens", "tokens_per_second"] for row in rows(tmp_path))
    printed = capsys.readouterr()
    assert printed.out == "" and "heldout_loss 1.75" in printed.err and "tokens 100" in printed.err


def test_rows_after_the_resume_step_are_dropped(tmp_path: Path) -> None:
    writer = MetricWriter(str(tmp_path), first_step=0)
    for step in (1, 10, 20, 30):
        writer.write(step, ROW | {"attempt": 1})
    writer.close()  # the last checkpoint was of step 20: what came after it is trained again

    again = MetricWriter(str(tmp_path), first_step=20)
    assert [row["step"] for row in rows(tmp_path)] == [1, 10, 20]
    for step in (21, 30):
        again.write(step, ROW | {"attempt": 2})
    again.close()
    assert [(row["step"], row["attempt"]) for row in rows(tmp_path)] == [(1, 1), (10, 1), (20, 1), (21, 2), (30, 2)]


def test_a_run_that_starts_afresh_drops_all(tmp_path: Path) -> None:
    MetricWriter(str(tmp_path), first_step=0).write(1, ROW)
    MetricWriter(str(tmp_path), first_step=0).close()
    assert rows(tmp_path) == []


@pytest.mark.parametrize("cut", ['{"step": 20, "loss": 2.', '{"step": 2', "{", '{"loss": 1.0}'])
def test_a_half_written_row_is_dropped(tmp_path: Path, cut: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 10, **ROW}) + "\n" + cut)
    writer = MetricWriter(str(tmp_path), first_step=20)
    writer.write(21, ROW)
    writer.close()
    assert [row["step"] for row in rows(tmp_path)] == [10, 21]


def test_a_loss_that_is_not_finite_leaves_valid_json(tmp_path: Path) -> None:
    """JSON has no NaN: a strict reader of the file must still get every row of a run that diverged."""
    writer = MetricWriter(str(tmp_path), first_step=0)
    writer.write(1, ROW | {"loss": float("nan"), "grad_norm": float("inf")})
    writer.close()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line, parse_constant=refuse)["step"] == 1


def test_a_value_that_is_not_there(tmp_path: Path) -> None:
    """Bits a byte of a held-out split without a byte of text are None."""
    writer = MetricWriter(str(tmp_path), first_step=0)
    writer.write(1, ROW | {"heldout_bits_per_byte": None})
    writer.close()
    assert rows(tmp_path) == [{"step": 1, **ROW, "heldout_bits_per_byte": None}]


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    from alif_jax.data.tfrecord import read_shard  # TensorBoard's files are TFRecords too

    writer = MetricWriter(str(tmp_path), first_step=0)
    writer.write(3, ROW)
    writer.close()
    [file] = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(payload) for payload in read_shard(str(file))]
    scalars = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    assert scalars == {(3, name): pytest.approx(value) for name, value in ROW.items()}


def test_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands the ~ of --workdir=~/run."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "run").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    writer = MetricWriter("~/run", first_step=0)
    writer.write(1, ROW)
    writer.close()
    assert rows(tmp_path / "home" / "run") == [{"step": 1, **ROW}]
    assert (tmp_path / "home" / "run" / "tensorboard").is_dir()
    assert os.listdir(tmp_path / "here") == []  # in particular no directory named "~"


def test_other_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.chdir(tmp_path)
    writer = MetricWriter("memory://test_metrics/run", first_step=0)
    writer.write(1, ROW)
    writer.close()
    with fsspec.open("memory://test_metrics/run/metrics.jsonl", "rt") as file:
        assert json.loads(file.read()) == {"step": 1, **ROW}
    assert os.listdir(tmp_path) == []  # in particular no directory named "memory:"
