"""Where a run's numbers go: metrics.jsonl (one JSON object a logged step), TensorBoard, and a line on the console."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from tensorboardX import SummaryWriter

from alif_jax.files import absolute, exists, is_local, join, open_file, write_text


class MetricWriter:
    """Used by one process of a run. Object stores cannot append, so the file is written whole at each flush."""

    def __init__(self, workdir: str, *, first_step: int):
        """Continues the run's metrics.jsonl; rows after `first_step` belong to a killed attempt and are dropped."""
        self.path = join(workdir, "metrics.jsonl")
        self.rows: list[str] = []
        if exists(self.path):
            with open_file(self.path, "r") as file:
                self.rows = [line for line in file.read().splitlines() if _step_of(line) <= first_step]
        place = workdir if is_local(workdir) or workdir.startswith("gs://") else None  # where tensorboardX can write
        self.tensorboard = SummaryWriter(join(absolute(workdir), "tensorboard"), purge_step=first_step + 1) if place else None
        self.flush()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        values = dict.fromkeys(values) | finite  # JSON knows no NaN: null instead
        self.rows.append(json.dumps({"step": step, **values}))
        if self.tensorboard:
            for name, value in finite.items():
                self.tensorboard.add_scalar(name, value, step)
        parts = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()]
        print(f"step {step:>6}  " + "  ".join(parts), file=sys.stderr, flush=True)
        self.flush()

    def flush(self) -> None:
        write_text(self.path, "".join(line + "\n" for line in self.rows))

    def close(self) -> None:
        self.flush()
        if self.tensorboard:
            self.tensorboard.close()


def _step_of(line: str) -> float:
    """The step of a row; a row cut off by a kill counts as later than any."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError):
        return float("inf")
