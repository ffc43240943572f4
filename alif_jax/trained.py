"""The table of what a run trains and what it keeps frozen: printed at the start, kept in every checkpoint, compared at a resume."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from alif_jax import UsageError
from alif_jax.model import Skeleton
from alif_jax.optim import OptimConfig, group_of, peak_learning_rate

# {"group", "modules": [names], "arrays", "parameters", "dtype", "learning_rate"}; frozen rows have no modules, and no rate (None)
Table = list[dict[str, Any]]


def trained_table(model: Skeleton, optim: OptimConfig) -> Table:
    """One row a group of optim.py, then one a dtype of the frozen parameters. It holds nothing that JSON does not.

    {"group": "lora_A", "modules": ["q_proj", "v_proj"], "arrays": 2, "parameters": 4194304, "dtype": "float32",
     "learning_rate": 0.0001}
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for kind, names in (("trained", model.trainable), ("frozen", model.frozen)):
        for name in names:
            shape, group = model.shapes[name], group_of(name) if kind == "trained" else "frozen"
            rate = peak_learning_rate(optim, group) if kind == "trained" else None
            empty = {"group": group, "modules": [], "arrays": 0, "parameters": 0, "dtype": str(shape.dtype), "learning_rate": rate}
            row = rows.setdefault((group, str(shape.dtype)), empty)
            row["arrays"] += 1
            row["parameters"] += shape.size
            module = name.split(".")[-2]
            if kind == "trained" and module not in row["modules"]:
                row["modules"].append(module)
    return list(rows.values())


def table_hash(table: Table) -> str:
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def check_same_table(saved: dict[str, Any] | None, table: Table, where: str) -> None:
    """Raises UsageError at the first difference between this run's table and what `for_checkpoint` put into a checkpoint."""
    if saved and saved.get("trained_hash") == table_hash(table):
        return
    was, now = _cells((saved or {}).get("trained", [])), _cells(table)
    for key in (*now, *was):
        if was.get(key) != now.get(key):
            group, column = key
            raise UsageError(
                f"{where}: {column} of {group} was {was.get(key, 'not there')!r} in this checkpoint and is "
                f"{now.get(key, 'not there')!r} now; resume with the same, or start another --workdir (model.init_from goes on "
                "from trained parameters)"
            )
    raise UsageError(f"{where}: its hash of the table of what is trained does not belong to the table beside it; it is damaged")


def for_checkpoint(table: Table) -> dict[str, Any]:
    return {"trained_hash": table_hash(table), "trained": table}


def _cells(table: Sequence[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    return {(f"{row['group']} ({row['dtype']})", column): row[column] for row in table for column in row if column != "dtype"}


def render_table(table: Table) -> str:
    """For people, with the share that is trained as PEFT prints it."""
    lines = [f"{'trained':15}{'group':12}{'arrays':>7}{'parameters':>16}  {'dtype':9}{'learning rate':>14}  modules"]
    for row in table:
        rate = "-" if row["learning_rate"] is None else f"{row['learning_rate']:.2e}"
        numbers = f"{row['arrays']:7,}{row['parameters']:16,}"
        lines.append(f"{'':15}{row['group']:12}{numbers}  {row['dtype']:9}{rate:>14}  {', '.join(row['modules']) or '-'}")
    trained = sum(row["parameters"] for row in table if row["learning_rate"] is not None)
    total = sum(row["parameters"] for row in table)
    lines.append(f"parameters     trainable: {trained:,} of {total:,}, trainable%: {100 * trained / total:.4f}")
    return "\n".join(lines)
