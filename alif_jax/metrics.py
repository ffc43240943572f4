"""Where a run's numbers go: metrics.jsonl (one JSON object a logged step), TensorBoard, Weights & Biases, a line on the console.

And how fast it is: tokens a second, share of the rows that is not padding, MFU, time left.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from alif_jax import UsageError
from alif_jax.files import absolute, exists, is_local, join, open_file, read_json_or, write_json, write_text

REPORTERS = ("tensorboard", "wandb")
REMOTE_FLUSH_S = 60  # object stores cannot append: there the whole file is written, at most so often


class JsonLines:
    """A file of JSON objects with a "step", one a line; rows after `first_step` belong to a killed attempt and are dropped."""

    def __init__(self, path: str, *, first_step: int):
        self.path = path
        self.kept = [json.dumps(row, ensure_ascii=False) + "\n" for row in read_rows(path, upto=first_step)]
        self._write_kept()
        self.file = open(absolute(path), "a", encoding="utf-8") if is_local(path) else None

    def append(self, row: Mapping[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        if self.file:
            self.file.write(line)
            self.file.flush()  # a kill of this process loses no row
            return
        self.kept.append(line)
        if time.monotonic() - self.written_at > REMOTE_FLUSH_S:
            self._write_kept()

    def flush(self) -> None:
        """The file is complete after this; a local one is so at any time."""
        if not self.file:
            self._write_kept()

    def _write_kept(self) -> None:
        write_text(self.path, "".join(self.kept))
        self.written_at = time.monotonic()

    def close(self) -> None:
        self.flush()
        if self.file:
            self.file.close()


def read_rows(path: str, *, upto: int) -> list[dict[str, Any]]:
    """The rows of such a file up to a step; none where there is no file. A row cut off by a kill counts as later than any."""
    if not exists(path):
        return []
    rows = []
    with open_file(path) as file:
        for line in file.read().split(b"\n"):
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError):
                continue
            if isinstance(row, dict) and row.get("step", math.inf) <= upto:
                rows.append(row)
    return rows


def metrics_path(workdir: str) -> str:
    return join(workdir, "metrics.jsonl")


class MetricWriter:
    """Used by one process of a run."""

    def __init__(
        self,
        workdir: str,
        *,
        first_step: int,
        steps: int = 0,
        report_to: tuple[str, ...] = ("tensorboard",),
        config: Mapping[str, Any] | None = None,
    ):
        """Continues the run's files after `first_step`. steps: of the whole run. config: what Weights & Biases shows of the run."""
        self.steps = steps
        self.rows = JsonLines(metrics_path(workdir), first_step=first_step)
        writable = is_local(workdir) or workdir.startswith("gs://")  # where tensorboardX can write
        directory = join(absolute(workdir), "tensorboard")
        self.tensorboard = None
        if writable and "tensorboard" in report_to:
            from tensorboardX import SummaryWriter  # imports torch where there is one: two seconds that readers need not wait for

            self.tensorboard = SummaryWriter(directory, purge_step=first_step + 1)
        self.wandb = start_wandb(workdir, config or {}) if "wandb" in report_to else None

    def write(self, step: int, values: Mapping[str, Any], *, seconds_left: float | None = None) -> None:
        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        values = dict.fromkeys(values) | finite  # JSON knows no NaN: null instead
        self.rows.append({"step": step, **values})
        if self.tensorboard:
            for name, value in finite.items():
                self.tensorboard.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log(finite, step=step)
        self._print(step, values, seconds_left)

    def _print(self, step: int, values: Mapping[str, Any], seconds_left: float | None) -> None:
        """All but the parts of a whole (heldout_loss/source/NAME), which are many."""
        shown = {name: value for name, value in values.items() if "/" not in name}
        parts = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()]
        if seconds_left is not None:
            parts.append(f"ETA {clock(seconds_left)}")
        of = f"/{self.steps}" if self.steps else ""
        print(f"step {step:>6}{of}  " + "  ".join(parts), file=sys.stderr, flush=True)

    def flush(self) -> None:
        self.rows.flush()

    def close(self) -> None:
        self.rows.close()
        if self.tensorboard:
            self.tensorboard.close()
        if self.wandb:
            self.wandb.finish()


def clock(seconds: float) -> str:
    """Hours, minutes, seconds: 3723.4 → "1:02:03"."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def check_reporters(report_to: tuple[str, ...]) -> None:
    """Raises UsageError for a reporter that does not exist or is not installed, before anything else is done."""
    for name in report_to:
        if name not in REPORTERS:
            raise UsageError(f"report_to={name!r} is not one of {', '.join(REPORTERS)}; empty: metrics.jsonl alone")
    if "wandb" in report_to:
        _import_wandb()


def _import_wandb() -> ModuleType:
    try:
        import wandb
    except ModuleNotFoundError:
        raise UsageError(
            "report_to has wandb, which is not installed; pip install '.[wandb]', or take it out of report_to"
        ) from None
    return wandb


def start_wandb(workdir: str, config: Mapping[str, Any]) -> Any:
    """The Weights & Biases run of this run directory, continued where there is one. Project, mode (offline), key: WANDB_*."""
    path = join(workdir, "wandb.json")
    known = read_json_or(path, {})
    directory = absolute(workdir) if is_local(workdir) else None
    run = _import_wandb().init(dir=directory, id=known.get("id"), resume="allow", config=dict(config))
    write_json(path, {"id": run.id})
    return run


def heldout_metrics(evaluated: Mapping[str, Any]) -> dict[str, float | None]:
    """An evaluation (evaluate.py) as metrics: heldout_loss, heldout_bits_per_byte, and both by source and language.

    {"loss": 2.0, "bits_per_byte": 0.9, "by_source": {"wiki": {…}}, …} → {"heldout_loss": 2.0, …, "heldout_loss/source/wiki": …}
    """
    names = {"loss": "heldout_loss", "bits_per_byte": "heldout_bits_per_byte"}
    row = {name: evaluated[key] for key, name in names.items()}
    for group in ("source", "language"):
        for part, values in evaluated[f"by_{group}"].items():
            row |= {f"{name}/{group}/{part}": values[key] for key, name in names.items()}
    return row


class Pace:
    """How fast a run is. Evaluation and sampling stand outside its speed (`paused`), not outside the time left.

    flops_per_second: of one token of training over the peak of all devices, so that MFU = tokens/s · this; None where unknown.
    """

    def __init__(self, mfu_per_rate: float | None):
        self.mfu_per_rate = mfu_per_rate
        self.tokens = self.positions = 0
        self.since = time.perf_counter()
        self.settled: tuple[int, float] | None = None  # the first step, which compiled, and when it was done

    def add(self, tokens: int, positions: int) -> None:
        self.tokens += tokens
        self.positions += positions

    def row(self, step: int) -> dict[str, float]:
        """Speed since the row before; the first contains the compilation, so it has no MFU."""
        now = time.perf_counter()
        rate = self.tokens / (now - self.since)
        row = {"tokens_per_second": rate, "non_pad_share": self.tokens / self.positions}
        if self.mfu_per_rate is not None and self.settled is not None:
            row["mfu"] = rate * self.mfu_per_rate
        self.settled = self.settled or (step, now)
        self.tokens, self.positions, self.since = 0, 0, now
        return row

    def seconds_left(self, step: int, steps: int) -> float | None:
        """From all that was done after the first step, evaluations and saves included."""
        if self.settled is None or step <= self.settled[0]:
            return None
        first, at = self.settled
        return (time.perf_counter() - at) / (step - first) * (steps - step)

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.since += time.perf_counter() - began
