"""Hours and money of a data recipe that trains models and has them answer: stage by stage, then in all. Nothing is run.

Who knows the recipe says how many letters each stage reads and writes (`Work`); this turns letters into tokens, plans training
stages by plan.py and answering ones by plan_inference.py, all on the same chips and one after another, and adds up.
plan_text.stages shows it.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Protocol

from alif_jax import UsageError, plan_inference
from alif_jax.plan import Plan, Price, Range, as_json, cost, make_plan, scaled, workload
from alif_jax.published import base_config
from alif_jax.run import TrainConfig
from alif_jax.topology import Topology

# Letters (Unicode code points) a token of Llama-3's tokenizer, and where that stands.
FLORES = "measured on FLORES-200, fertiscope.vercel.app/leaderboard"
LIKE_POLISH = "assumed, as Polish, 2.75 (table 1 of github.com/stw2/tokenizer-science-tax)"
LETTERS_PER_TOKEN: dict[str, tuple[float, str]] = {
    "bn": (0.83, FLORES),
    "en": (4.56, FLORES),
    "hi": (1.89, FLORES),
    "id": (3.33, FLORES),
    "ta": (0.76, FLORES),
    "th": (2.10, FLORES),
    "vi": (3.67, FLORES),
    "fi": (2.75, LIKE_POLISH),
    "sw": (2.75, LIKE_POLISH),
    "tr": (2.75, LIKE_POLISH),
    "ur": (1.8, "assumed, as Arabic is said to have 1.4 to 2.0 (gigagpu.com/?p=10001)"),
}
ENGLISH = LETTERS_PER_TOKEN["en"][0]


class Work(Protocol):
    """What one stage reads, writes and asks; data_gen.x_instruction.workload.StageWork says what each field is."""

    @property
    def stage(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def recipe(self) -> str: ...
    @property
    def letters_in(self) -> float: ...
    @property
    def letters_out(self) -> float: ...
    @property
    def requests(self) -> int: ...
    @property
    def note(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """kind: train, answer, ask or cpu. Tokens are of the whole stage, of training of one epoch; model: as its recipe names it.

    hours, cost_usd: None where unknown, as of training that does not fit. An asked stage has no hours, a cpu one neither hours nor
    cost: `counts_hours` and `counts_cost` say whether a None is a gap in the total. plan: JSON of what stands behind.
    """

    stage: str
    role: str
    kind: str
    model: str
    requests: int
    tokens_in: float
    tokens_out: float
    epochs: float
    hours: Range | None
    cost_usd: Range | None
    cost_usd_spot: Range | None
    note: str
    notes: tuple[str, ...]
    plan: dict[str, Any] | None

    @property
    def counts_hours(self) -> bool:
        return self.kind in ("train", "answer")

    @property
    def counts_cost(self) -> bool:
        return self.kind != "cpu"


@dataclass(frozen=True, kw_only=True)
class StagesPlan:
    """All stages and their sums, None where a part that counts is unknown. assumptions: sentences that all numbers rest on."""

    topology: str
    devices: int
    price: dict[str, Any] | None
    letters_per_token: float
    stages: tuple[StagePlan, ...]
    hours: Range | None
    cost_usd: Range | None
    cost_usd_spot: Range | None
    assumptions: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def letters_per_token(languages: Sequence[str]) -> tuple[float, str]:
    """(letters a token of text that is of these languages in equal parts, in words where that comes from).

    Tokens add up and not letters: letters_per_token(["hi", "bn"])[0] == 2 / (1 / 1.89 + 1 / 0.83). Raises UsageError for a language
    that nothing is known of.
    """
    unknown = [code for code in languages if code not in LETTERS_PER_TOKEN]
    if unknown or not languages:
        raise UsageError(
            f"letters a token are not known for {', '.join(unknown) or 'no language'} (known: {', '.join(LETTERS_PER_TOKEN)}); "
            "count them on some text and pass --letters_per_token=NUMBER"
        )
    by_source: dict[str, list[str]] = {}
    for code in languages:
        letters, source = LETTERS_PER_TOKEN[code]
        by_source.setdefault(source, []).append(f"{code} {letters:g}")
    mean = statistics.harmonic_mean([LETTERS_PER_TOKEN[code][0] for code in languages])
    return mean, "; ".join(f"{', '.join(codes)}, {source}" for source, codes in by_source.items())


def plan_stages(
    work: Sequence[Work],
    topology: Topology,
    *,
    load: Callable[[str], TrainConfig],
    letters: float,
    letters_from: str,
    letters_out: Mapping[str, float] = MappingProxyType({}),
    price: Price | None,
    teacher: str = "",
    asking: Callable[[float, float], float | None] = lambda prompt, completion: None,
    most_sequences: int = plan_inference.MOST_SEQUENCES,
) -> StagesPlan:
    """The plan of all stages on `topology`.

    load: a training recipe by its name. letters: a token, letters_from: in words where that comes from; letters_out: of the answers
    of a role whose language is not that of the rest. teacher: the model that is asked; asking: US dollars for so many tokens of
    prompts and of answers, None where unknown. most_sequences: that a served model answers at once. A recipe is planned (for TPUs
    compiled) once, however many stages train by it.

    Raises UsageError for a letters_per_token that is no positive number, and as make_plan and plan_inference do.
    """
    if not (letters > 0 and math.isfinite(letters)):
        raise UsageError(f"--letters_per_token={letters:g}: expected a positive number such as 2.2")
    recipes: dict[str, TrainConfig] = {}
    trained: dict[str, tuple[TrainConfig, Plan, tuple[str, ...]]] = {}
    found = []
    for one in work:
        into, out = one.letters_in / letters, one.letters_out / letters_out.get(one.role, letters)
        if one.kind in ("train", "answer") and one.recipe not in recipes:
            recipes[one.recipe] = load(one.recipe)
            if not isinstance(recipes[one.recipe], TrainConfig):
                raise UsageError(f"{one.recipe}, of the stage {one.stage}, is no training recipe (a TrainConfig)")
        if one.kind == "train":
            if one.recipe not in trained:
                trained[one.recipe] = plan_training(recipes[one.recipe], topology, price, into)
            found.append(training(one, *trained[one.recipe], topology, price, into))
        elif one.kind == "answer":
            found.append(answering(one, recipes[one.recipe], topology, price, into, out, most_sequences))
        else:
            money = asking(into, out) if one.kind == "ask" else None
            asked = None if money is None else (money, money)
            model = teacher if one.kind == "ask" else ""
            found.append(replace(unknown(one), model=model, tokens_in=into, tokens_out=out, cost_usd=asked, cost_usd_spot=asked))
    others = "".join(f", {number:.3g} of what the {role} writes" for role, number in letters_out.items())
    assumptions = [f"{letters:.3g} letters a token ({letters_from}){others}; prompts' English is counted alike, a little too much"]
    if any(one.kind == "answer" for one in found):
        assumptions.append(served_by(most_sequences))
    if any(one.kind in ("train", "answer") for one in found):
        assumptions.append("stages one after another, each on all chips; starting, loading, saving and evaluating not counted")
    on_demand = price.usd_per_chip_hour if price else None
    if on_demand is None and (price is None or price.spot is None):
        assumptions.append(f"no price is known for {topology.chip.name}: write one into configs/prices.py to have the cost, too")
    return StagesPlan(
        topology=topology.name, devices=topology.devices, price=dataclasses.asdict(price) if price else None,
        letters_per_token=letters, stages=tuple(found),
        hours=added([one.hours for one in found if one.counts_hours]),
        cost_usd=added([one.cost_usd for one in found if one.counts_cost]),
        cost_usd_spot=added([one.cost_usd_spot for one in found if one.counts_cost]),
        assumptions=tuple(assumptions),
    )  # fmt: skip


def added(ranges: Sequence[Range | None]) -> Range | None:
    """Both ends; None where one is unknown."""
    known = [one for one in ranges if one is not None]
    if len(known) < len(ranges):
        return None
    return math.fsum(low for low, _ in known), math.fsum(high for _, high in known)


def served_by(most_sequences: int) -> str:
    def shares(pair: Range) -> str:
        return f"{pair[0]:.0%} to {pair[1]:.0%}".replace("% to", " to")

    return (
        f"answers by a server such as vLLM, in bf16, up to {most_sequences} at once on each copy of the model, prompts read at "
        f"{shares(plan_inference.PROMPT_SHARE)} of the chips' peak, answers written at {shares(plan_inference.STEP_SHARE)} of what "
        "memory or compute allow: assumed, not measured here"
    )


# --- one stage


def unknown(one: Work) -> StagePlan:
    """A stage of which nothing was found out yet."""
    return StagePlan(
        stage=one.stage, role=one.role, kind=one.kind, model="", requests=one.requests, tokens_in=0.0, tokens_out=0.0, epochs=1.0,
        hours=None, cost_usd=None, cost_usd_spot=None, note=one.note, notes=(), plan=None,
    )  # fmt: skip


def plan_training(
    config: TrainConfig, topology: Topology, price: Price | None, tokens: float
) -> tuple[TrainConfig, Plan, tuple[str, ...]]:
    """The recipe's plan as it stands; where that does not fit or divide, of the fastest rows, remat and mesh that do."""
    tokens = max(tokens, 1.0)  # of a stage that has nothing to train on yet the plan is good for the others
    try:
        plan, refused = make_plan(config, topology, price=price, tokens=tokens), ""
    except UsageError as error:
        plan, refused = None, str(error)
    if plan is not None and plan.fits:
        return config, plan, plan.notes
    try:
        found = make_plan(config, topology, price=price, tokens=tokens, searched=True)
    except UsageError:
        if plan is None:
            raise
        return config, plan, plan.notes
    assert found.search is not None
    overrides = " ".join(found.search["overrides"])
    why = refused or "does not fit as the recipe stands"
    return config, found, (f"{why}; planned, and to be trained, with {overrides}", *found.notes)


def training(
    one: Work, config: TrainConfig, plan: Plan, notes: tuple[str, ...], topology: Topology, price: Price | None, tokens: float
) -> StagePlan:
    """`plan` of the recipe, for this stage's tokens of an epoch."""
    steps = workload(config, tokens).steps if tokens else 0
    hours = None if plan.seconds_per_step is None or steps is None else scaled(plan.seconds_per_step, steps / 3600)
    on_demand, spot = (price.usd_per_chip_hour, price.spot) if price else (None, None)
    own = replace(
        plan, steps=steps, data=f"{tokens:,.0f} tokens an epoch, rows taken as full", hours=hours,
        cost_usd=cost(hours, topology, on_demand), cost_usd_spot=cost(hours, topology, spot),
    )  # fmt: skip
    return replace(
        unknown(one), model=plan.model, tokens_in=tokens, epochs=config.num_train_epochs, hours=hours, cost_usd=own.cost_usd,
        cost_usd_spot=own.cost_usd_spot, notes=tuple(note for note in notes if not note.startswith("no price")), plan=as_json(own),
    )  # fmt: skip


def answering(
    one: Work, config: TrainConfig, topology: Topology, price: Price | None, tokens_in: float, tokens_out: float, most: int
) -> StagePlan:
    """By the recipe's base model, adapters merged; the longest sequence is that of its training, or the mean one if longer."""
    requests = max(one.requests, 1)
    prompt, new = max(tokens_in / requests, 1.0), max(tokens_out / requests, 1.0)
    length = max(config.data.sequence_length, math.ceil(prompt + new))
    found = plan_inference.plan_inference(
        base_config(config.model.path, config.model.revision)[0], topology, requests=one.requests, prompt_tokens=prompt,
        new_tokens=new, max_length=length, price=price, most_sequences=most,
    )  # fmt: skip
    return replace(
        unknown(one), model=config.model.path, tokens_in=one.requests * prompt, tokens_out=one.requests * new, hours=found.hours,
        cost_usd=found.cost_usd, cost_usd_spot=found.cost_usd_spot, notes=found.notes, plan=plan_inference.as_json(found),
    )  # fmt: skip
