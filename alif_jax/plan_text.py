"""A plan as people read it: what a run needs, takes and costs."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from alif_jax.plan import Plan, total
from alif_jax.plan_stages import StagePlan, StagesPlan

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


# --- a data recipe that trains and asks models


def stages(plan: StagesPlan) -> str:
    """A line a stage, the total, and what the numbers rest on."""
    chips = f"{plan.devices} chip{'s' if plan.devices > 1 else ''}"
    rows = [("stage", "model", "what", "hours", "cost"), *map(stage_row, plan.stages)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = ["  " + "  ".join([*map(str.ljust, row, widths), row[4]]).rstrip() for row in rows]
    prices = [wrapped("prices", f"{plan.price['source']}, read {plan.price['date']}")] if plan.price and plan.price["date"] else []
    return "\n".join([
        f"stages      on {plan.topology}, {chips}", *table, *stages_total(plan), *prices,
        *(wrapped("rests on", one) for one in plan.assumptions), *stage_notes(plan),
    ])  # fmt: skip


def stage_row(one: StagePlan) -> tuple[str, str, str, str, str]:
    """Stage, model, what, hours, cost."""
    model = one.model.rstrip("/").rpartition("/")[2]
    asked = f"{one.requests:,} requests, {short(one.tokens_in)} tokens in, {short(one.tokens_out)} out"
    trained = f"{one.epochs:g} epoch{'' if one.epochs == 1 else 's'} of {short(one.tokens_in)} tokens"
    what = {"train": trained, "answer": asked, "ask": asked, "cpu": "no model"}[one.kind]
    no_hours = {"ask": "at its own pace", "cpu": "not counted"}.get(one.kind, "unknown")
    hours = between(one.hours) if one.hours else no_hours
    money = f"${between(one.cost_usd)}" if one.cost_usd else "unknown" if one.counts_cost else ""
    return one.stage, f"{one.role}: {model}" if model else one.role, what, hours, money


def stages_total(plan: StagesPlan) -> list[str]:
    hours = f"{between(plan.hours)} hours" if plan.hours else "hours unknown"
    if any(one.kind == "ask" for one in plan.stages):
        hours += " and the teacher's own"
    kinds = (("on demand", plan.cost_usd), ("spot", plan.cost_usd_spot))
    money = " or ".join(f"${between(pair)} {kind}" for kind, pair in kinds if pair)
    return [f"total       {hours}, {money or 'cost unknown'}"]


def stage_notes(plan: StagesPlan) -> list[str]:
    """How the letters were got, and what a plan says besides: once where several stages say it."""
    lines: dict[tuple[str, str], list[str]] = {}
    for one in plan.stages:
        for label, note in [*([("letters", one.note)] if one.note else []), *(("note", note) for note in one.notes)]:
            lines.setdefault((label, note), []).append(one.stage)
    ordered = sorted(lines.items(), key=lambda line: line[0][0])  # a stable sort: the letters first, then the notes
    return [wrapped(label, f"{', '.join(names)}: {note}") for (label, note), names in ordered]


def wrapped(label: str, text: str) -> str:
    """Within 110 columns, under its label."""
    return textwrap.fill(text, 110, initial_indent=f"{label:12}", subsequent_indent=" " * 12, break_on_hyphens=False)


def short(count: float) -> str:
    """950 → "950", 84_210 → "84 k", 1_234_567 → "1.2 M"."""
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= limit * 0.9995:
            return f"{count / limit:.{1 if count < 9.95 * limit else 0}f} {letter}"
    return f"{count:,.0f}"


def between(pair: Sequence[float]) -> str:
    """(3.96, 5.21) → "4.0 to 5.2"; one number where both are the same."""
    low, high = (f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}" for value in pair)
    return low if low == high else f"{low} to {high}"
