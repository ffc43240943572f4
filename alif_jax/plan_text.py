"""A plan as people read it: what a run needs, takes and costs."""

from collections.abc import Mapping, Sequence
from typing import Any

from alif_jax.plan import Plan, total

NAMES = {
    "weights": "frozen weights", "trainables": "trained weights", "optimizer": "optimizer",
    "temporary": "gradients, activations, buffers", "total": "in all",
}  # fmt: skip


def as_text(plan: Plan) -> str:
    """Several lines for a terminal of 100 columns."""
    notes = [f"note        {note}" for note in plan.notes]
    return "\n".join([*found(plan), *head(plan), *needs(plan), *takes(plan), *costs(plan), *notes])


def found(plan: Plan) -> list[str]:
    """What --search looked at, the fastest first, and how to train with the first one."""
    if plan.search is None:
        return []
    rows = []
    for one in plan.search["choices"]:
        mesh = " × ".join(f"{axis} {size}" for axis, size in one["mesh"].items() if size > 1) or "one device"
        verdict = "" if one["fits"] else "does not fit"
        speed = between(one["tokens_per_second"])
        rows.append(f"  {speed:22}{one['rows']:5}  {one['bytes'] / 2**30:7.2f}  {mesh:36}{one['remat']}  {verdict}".rstrip())
    return [
        f"search      {plan.search['compiles']} looked at closely of {plan.search['candidates']}; the order is that of compute, "
        "memory and interconnect time added up",
        f"  {'tokens a second':22}{'rows':>5}  {'GiB':>7}  {'mesh':36}remat",
        *rows,
        f"train with  {' '.join(plan.search['overrides'])}",
    ]


def head(plan: Plan) -> list[str]:
    mesh = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    microbatches = f" in {plan.gradient_accumulation_steps} microbatches" if plan.gradient_accumulation_steps > 1 else ""
    return [
        f"model       {plan.model} ({plan.model_from})",
        f"on          {plan.topology}, {plan.devices} chip{'s' if plan.devices > 1 else ''}: {mesh}",
        f"a step      {plan.batch_size} rows of {plan.sequence_length:,} tokens{microbatches}, rows a chip at a time: {plan.rows}",
    ]


def needs(plan: Plan) -> list[str]:
    by = {"XLA": "in all XLA's own count", "formula": "by formula, within 15 %"}.get(plan.memory_by, f"by {plan.memory_by}")
    rows = [f"  {NAMES[part]:34}{size / 2**30:8.2f} GiB" for part, size in plan.bytes_per_device.items()]
    left = (plan.hbm_bytes - plan.bytes_per_device["total"]) / 2**30
    verdict = f"fits, {left:.2f} GiB left" if plan.fits else "DOES NOT FIT"
    compiled = f", compiled in {plan.compile_seconds:.0f} s" if plan.compile_seconds else ""
    return [f"needs       a chip, {by}{compiled}", *rows, f"  {'of':34}{plan.hbm_bytes / 2**30:8.2f} GiB: {verdict}"]


def takes(plan: Plan) -> list[str]:
    lines = [f"takes       {plan.flops_per_token / 1e9:.1f} GFLOP a token (recomputation not counted)"]
    if plan.tokens_per_second and plan.seconds_per_step:
        bound = f", bound by {plan.bound}" if plan.bound else ""
        lines += [
            f"  tokens a second                 {between(plan.tokens_per_second)} ({plan.time_by}{bound})",
            f"  seconds a step                  {between(plan.seconds_per_step)}",
        ]
    lines.append(f"  data                            {plan.data}")
    if plan.steps is not None:
        lines.append(f"  steps                           {plan.steps:,}")
    if plan.hours:
        lines.append(f"  hours                           {between(plan.hours)}")
    return lines


def costs(plan: Plan) -> list[str]:
    if not plan.price or not (plan.cost_usd or plan.cost_usd_spot):
        return ["costs       unknown"]
    kinds = (("on demand", plan.cost_usd, "usd_per_chip_hour"), ("spot", plan.cost_usd_spot, "spot"))
    lines = [
        f"${between(money)} {kind}, {plan.devices} × ${plan.price[key]:.2f} an hour" if money else f"{kind} unknown"
        for kind, money, key in kinds
    ]
    source = f"prices: {plan.price['source']}, read {plan.price['date']}"
    return [f"{'costs' if at == 0 else '':12}{line}" for at, line in enumerate([*lines, source])]


def report(plans: list[Plan], data: Mapping[str, Any] | None = None, data_lines: Sequence[str] = ()) -> str:
    """All plans of a recipe, and their total where there are several; `data` as of plan.total, `data_lines` what is said of it."""
    blocks = [*map(as_text, plans), *([totals(plans, data)] if len(plans) > 1 or data else [])]
    if data_lines:
        blocks.insert(0, "\n".join([f"data        {data_lines[0]}", *(f"  {line}" for line in data_lines[1:])]))
    return "\n\n".join(blocks)


def totals(plans: list[Plan], data: Mapping[str, Any] | None = None) -> str:
    """One line under several plans; with data a second one."""
    sums, runs = total(plans, data), "1 run" if len(plans) == 1 else f"{len(plans)} runs"
    hours, money = sums["hours"], sums["cost_usd"]
    said = [f"total       {'the data and ' if data else ''}{runs}"]
    said.append("hours unknown" if hours is None else f"{between(hours)} hours{' of training' if data else ''}")
    said.append("cost unknown" if money is None else f"${between(money)}")
    ends = "\n            the data's expected cost in the low end, its worst case in the high one"
    return ", ".join(said) + (ends if data and money else "")


def between(pair: Sequence[float]) -> str:
    """(3.96, 5.21) → "4.0 to 5.2"; one number where both are the same."""
    low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}" for value in pair)
    return low if low == high else f"{low} to {high}"
