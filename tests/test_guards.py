"""Spikes, early stopping, SIGTERM, and the recorder that reads metrics one step late."""

import json
import os
import signal
import statistics
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alif_jax import UsageError, guards
from alif_jax.guards import EarlyStopping, NotFinite, Preemption, SpikeGuard, check_same_on_all_hosts, named_batch
from alif_jax.metrics import MetricWriter, Pace
from alif_jax.recorder import Recorder


def test_a_spike_stands_out_of_the_last_hundred() -> None:
    guard = SpikeGuard(3.0)
    losses = [2.0 + 0.01 * (i % 7) for i in range(150)]
    for i, loss in enumerate(losses):
        before = losses[max(0, i - 100) : i]
        expected = statistics.fmean(before) + 3 * statistics.pstdev(before) if i >= 20 else np.inf
        assert guard.limit() == pytest.approx(expected)
        guard.logged(loss)
    assert guard.limit() == pytest.approx(SpikeGuard(3.0, losses).limit())  # as after a resume
    assert SpikeGuard(0.0, losses).limit() == np.inf


def test_early_stopping_counts_evaluations_without_a_new_best() -> None:
    stopping = EarlyStopping(2)
    seen = [(stopping.improved(loss), stopping.exhausted) for loss in (3.0, 2.0, 2.0, 1.5, 1.6, float("nan"))]
    assert seen == [(True, False), (True, False), (False, False), (True, False), (False, False), (False, True)]
    assert EarlyStopping(2, [3.0, 2.0, 2.5, None]).exhausted and EarlyStopping(2, [3.0, 2.0, 2.5, None]).best == 2.0
    assert not EarlyStopping(0, [1.0, 2.0, 3.0, 4.0]).exhausted


def test_sigterm_is_a_question_between_steps() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.after(1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the second is the same as the first
        assert preemption.after(2)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_stays_the_callers_outside_the_main_thread() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def elsewhere() -> None:
        with Preemption() as preemption:
            seen.append((signal.getsignal(signal.SIGTERM), preemption.after(1)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_one_host_agrees_with_itself() -> None:
    check_same_on_all_hosts("the tokenised data", "00" * 32)


def test_hosts_with_other_data_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for theirs, same in (("ab" * 32, True), ("ab" * 7 + "cd" * 25, False)):
        both = np.stack([np.frombuffer(bytes.fromhex(digest[:16]), np.uint8) for digest in ("ab" * 32, theirs)])
        monkeypatch.setattr(guards.multihost_utils, "process_allgather", lambda mine, both=both: both)
        if same:
            check_same_on_all_hosts("the tokenised data", "ab" * 32)
            continue
        with pytest.raises(UsageError, match="the tokenised data is not the same on every host .*process 1: abababababababcd…"):
            check_same_on_all_hosts("the tokenised data", "ab" * 32)


def test_a_long_batch_is_named_by_its_first_records() -> None:
    assert named_batch(["a", "b"]) == "2 records: a, b"
    assert named_batch([str(i) for i in range(12)]) == "12 records: 0, 1, 2, 3, 4, 5, 6, 7, …"


class FakeBatches:
    def ids_at(self, step: int) -> list[str]:
        return [f"record{step}-{i}" for i in range(10)]


class LateArray:
    """A metric of a step in flight: reading it is noted."""

    def __init__(self, step: int, value: float, read: list[int]):
        self.step, self.value, self.read = step, value, read

    def copy_to_host_async(self) -> None:
        pass

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        self.read.append(self.step)
        return np.asarray(self.value, dtype)


def recorder(workdir: Path, *, steps: int, first: int = 0, logging_steps: int = 1, spikes: SpikeGuard | None = None) -> Recorder:
    return Recorder(
        MetricWriter(str(workdir), first_step=first, steps=steps, report_to=()), batches=FakeBatches(),  # type: ignore[arg-type]
        spikes=spikes or SpikeGuard(0.0), pace=Pace(1e-6), learning_rate=lambda step: 0.5, first=first, steps=steps,
        logging_steps=logging_steps,
    )  # fmt: skip


BATCH = {"segment_ids": np.asarray([[[1, 1, 2, 0], [1, 1, 1, 1]]], np.int32)}


def dispatch(to: Recorder, step: int, loss: float, read: list[int], grad_norm: float = 1.0) -> None:
    metrics = {"loss": loss, "tokens": 5, "grad_norm": grad_norm}
    to.dispatched(step, {name: LateArray(step, value, read) for name, value in metrics.items()}, BATCH)  # type: ignore[misc]


def rows(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_read_one_step_late(tmp_path: Path) -> None:
    """Never of the step just dispatched: the host would wait for the device, and the device then for the host."""
    record, read = recorder(tmp_path, steps=5), list[int]()
    for step in (1, 2, 3):
        dispatch(record, step, 2.0, read)
        assert set(read) == set(range(1, step)) and len(record.in_flight) == 1
    row = record.catch_up()
    assert set(read) == {1, 2, 3} and [row["step"] for row in rows(tmp_path)] == [1, 2]
    record.write(3, row | {"heldout_loss": 1.0})
    assert rows(tmp_path)[-1]["heldout_loss"] == 1.0 and rows(tmp_path)[-1]["step"] == 3


def test_what_a_row_says(tmp_path: Path) -> None:
    record = recorder(tmp_path, steps=6, first=2, logging_steps=5)
    for step in (3, 4, 5, 6):
        dispatch(record, step, 2.0, [])
    record.write(6, record.catch_up())
    assert [row["step"] for row in rows(tmp_path)] == [3, 5, 6]  # the first of this process, every fifth, the last
    first, second, _ = rows(tmp_path)
    assert second.keys() == {
        "step", "loss", "tokens", "tokens_per_second", "non_pad_share", "mfu", "grad_norm", "learning_rate"
    }  # fmt: skip
    assert second["non_pad_share"] == 7 / 8 and second["tokens"] == 5 and second["learning_rate"] == 0.5
    assert second["mfu"] == pytest.approx(second["tokens_per_second"] * 1e-6)
    assert "mfu" not in first  # it contains the compilation


@pytest.mark.parametrize(("loss", "grad_norm"), [(float("nan"), 1.0), (2.0, float("inf"))])
def test_a_step_that_is_not_finite_is_named(tmp_path: Path, loss: float, grad_norm: float) -> None:
    record = recorder(tmp_path, steps=9, logging_steps=100)
    dispatch(record, 1, 2.0, [])
    dispatch(record, 2, 2.0, [])
    dispatch(record, 3, loss, [], grad_norm)
    with pytest.raises(NotFinite, match=r"step 3: .* on 10 records: record2-0, .*record2-7, …\. Nothing of this step is saved"):
        dispatch(record, 4, 2.0, [])
    assert [row["step"] for row in rows(tmp_path)] == [1, 3] and None in rows(tmp_path)[-1].values()


def test_a_spike_is_reported_and_the_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = recorder(tmp_path, steps=99, logging_steps=10, spikes=SpikeGuard(4.0, [2.0, 2.1] * 20))
    for step, loss in enumerate([2.0, 2.05, 9.0, 2.05, 2.05], start=1):
        dispatch(record, step, loss, [])
    logged = rows(tmp_path)
    assert [(row["step"], row.get("spike")) for row in logged] == [(1, None), (3, 1)]  # logged although it is not a tenth step
    assert "step 3: loss 9 stands out (limit 2.2" in (told := capsys.readouterr().err) and "10 records: record2-0" in told


def test_real_arrays_are_read_too(tmp_path: Path) -> None:
    record = recorder(tmp_path, steps=2)
    for step in (1, 2):
        values = {"loss": jnp.float32(1.5), "tokens": jnp.float32(3), "grad_norm": jnp.float32(0.5)}
        record.dispatched(step, jax.device_put(values), BATCH)
    record.write(2, record.catch_up())
    assert [(row["loss"], row["tokens"], row["grad_norm"]) for row in rows(tmp_path)] == [(1.5, 3, 0.5)] * 2
