"""metrics.jsonl across kills and resumes: no step twice, no half row, nothing lost."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alif_jax import UsageError, metrics
from alif_jax.metrics import MetricWriter, Pace, check_reporters, clock, heldout_metrics, read_rows

ROW: dict[str, Any] = {"loss": 2.5, "tokens": 100, "tokens_per_second": 1234.5}


def test_a_row_cut_off_inside_a_letter_is_left_out(tmp_path: Path) -> None:
    whole = '{"step": 1, "text": "پانی"}\n'.encode()
    (tmp_path / "samples.jsonl").write_bytes(whole + whole[:-6])
    assert read_rows(str(tmp_path / "samples.jsonl"), upto=9) == [{"step": 1, "text": "پانی"}]


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


def test_remote_rows_are_written_at_intervals_and_at_a_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store takes whole files only: not one a logged step, but none may miss when a checkpoint is made."""
    path = "memory://test_metrics/flushed"
    writer, now = MetricWriter(path, first_step=0), [1000.0]
    writer.rows.written_at = now[0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    counts = []
    for step, wait in ((1, 1.0), (2, 1.0), (3, 60.0), (4, 1.0)):
        now[0] += wait
        writer.write(step, ROW)
        counts.append(len(read_rows(f"{path}/metrics.jsonl", upto=99)))
    writer.flush()
    assert counts == [0, 0, 3, 3] and len(read_rows(f"{path}/metrics.jsonl", upto=99)) == 4
    assert [row["step"] for row in read_rows(f"{path}/metrics.jsonl", upto=2)] == [1, 2]
    writer.close()


def test_heldout_loss_by_source_and_language() -> None:
    parts = {"loss": 2.0, "bits_per_byte": 0.5, "tokens": 9}
    evaluated = {
        "loss": 1.0, "bits_per_byte": None, "tokens": 20, "by_source": {"wiki": parts, "self_instruct": parts},
        "by_task": {"qa": parts}, "by_language": {"ur": parts},
    }  # fmt: skip
    assert heldout_metrics(evaluated) == {
        "heldout_loss": 1.0, "heldout_bits_per_byte": None,
        "heldout_loss/source/wiki": 2.0, "heldout_bits_per_byte/source/wiki": 0.5,
        "heldout_loss/source/self_instruct": 2.0, "heldout_bits_per_byte/source/self_instruct": 0.5,
        "heldout_loss/language/ur": 2.0, "heldout_bits_per_byte/language/ur": 0.5,
    }  # fmt: skip


def test_the_progress_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = MetricWriter(str(tmp_path), first_step=0, steps=400)
    writer.write(100, ROW | {"mfu": 0.4567, "heldout_loss/source/wiki": 2.0}, seconds_left=3723.4)
    writer.close()
    line = capsys.readouterr().err
    assert line.startswith("step    100/400  loss 2.5  ") and line.endswith("mfu 0.4567  ETA 1:02:03\n")
    assert "wiki" not in line and rows(tmp_path)[0]["heldout_loss/source/wiki"] == 2.0
    assert [clock(seconds) for seconds in (0.9, 61, 36_000)] == ["0:00:00", "0:01:01", "10:00:00"]


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed leaves evaluations out, time left does not; the first step, which compiles, counts for neither MFU nor time left."""
    now = [100.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now[0])
    pace = Pace(mfu_per_rate=1e-3)
    pace.add(50, 100)
    now[0] += 50
    assert pace.row(1) == {"tokens_per_second": 1.0, "non_pad_share": 0.5} and pace.seconds_left(1, 11) is None
    for _ in range(4):
        pace.add(90, 100)
    now[0] += 4
    with pace.paused():
        now[0] += 16
    assert pace.row(5) == {"tokens_per_second": 90.0, "non_pad_share": 0.9, "mfu": pytest.approx(0.09)}
    assert pace.seconds_left(5, 11) == 6 * 20 / 4


class FakeWandb(SimpleNamespace):
    """As much of the package as is used: a run remembers how it was started and what it was told."""

    def __init__(self) -> None:
        super().__init__(runs=[])

    def init(self, **arguments: Any) -> Any:
        run = SimpleNamespace(id=arguments["id"] or "new", arguments=arguments, logged=[], finished=False)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda: setattr(run, "finished", True)
        self.runs.append(run)
        return run


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    check_reporters(("tensorboard", "wandb"))
    for first in (0, 1):
        writer = MetricWriter(str(tmp_path), first_step=first, report_to=("wandb",), config={"seed": 3})
        writer.write(first + 1, ROW | {"grad_norm": float("nan")})
        writer.close()
    begun, resumed = fake.runs
    assert begun.arguments == {"dir": str(tmp_path), "id": None, "resume": "allow", "config": {"seed": 3}}
    assert resumed.arguments["id"] == "new" and resumed.logged == [(2, ROW)] and resumed.finished
    assert not (tmp_path / "tensorboard").exists()


def test_reporters_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    check_reporters(())
    with pytest.raises(UsageError, match="report_to='tensorbord' is not one of tensorboard, wandb"):
        check_reporters(("tensorbord",))
    monkeypatch.setitem(sys.modules, "wandb", None)  # import wandb fails as if it were not installed
    with pytest.raises(UsageError, match=r"pip install '\.\[wandb\]'"):
        check_reporters(("wandb",))
