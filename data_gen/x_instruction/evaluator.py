"""Stages rate_data and train_evaluator: rated pairs of three levels, and a model that rates, held to gates and the anchor."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_gen.x_instruction import measures, models, rating
from data_gen.x_instruction.inputs import GATES, anchor_rows, gate_inputs, rated_by, seed_rows, tiny_inputs
from data_gen.x_instruction.seed import files_digest
from data_gen.x_instruction.stage import Row, Stage
from data_gen.x_instruction.work import NotGood, Work

# --- rate_data ----------------------------------------------------------------------------------------------------------


def rate_data_inputs(work: Work) -> dict[str, Any]:
    names = ("forward_tokens", "forward_temperature")
    return {
        **work.settings("seed"), **{f"rate.{name}": getattr(work.config.rate, name) for name in names},
        **gate_inputs(work, "rate_data"),
        **work.made_by("seed"), "forward": work.stage("train_generator").found()["forward"],
    }  # fmt: skip


def make_rate_data(work: Work, stage: Stage) -> None:
    """Rows {id, lang, instruction, response, rating, kind, side}: as many of each level, of the same lengths."""
    rows, found, told = seed_rows(work), dict[str, Any](), list[str]()
    with work.model("forward", work.stage("train_generator").found()["forward"]) as model:
        answers = models.forward_answers(work, model, rows)
    for code, pack in work.packs.items():
        made: list[Row] = []
        for side in ("train", "heldout"):
            pairs = [row for row in rows if row["lang"] == code and row["side"] == side]
            foreign = [row["response"] for row in rows if row["lang"] != code and row["side"] == side]
            foreign = foreign or [_english(pairs, place) for place in range(len(pairs))]
            made += rating.level_by_level(list(rating.rating_rows(pairs, answers, foreign, pack, work.config.seed)))
        levels = Counter(row["rating"] for row in made)
        kinds = Counter(row["kind"] for row in made)
        gate = work.config.gates.length_accuracy
        accuracy = round(measures.length_accuracy([len(row["response"]) for row in made], [row["rating"] for row in made]), 4)
        found[code] = {
            "rows": len(made),
            "a_level": min(levels.values()),
            "kinds": dict(sorted(kinds.items())),
            "length_accuracy": accuracy,
        }
        if accuracy > gate:
            raise NotGood(
                f"rating data of {code}: length alone tells the level in {accuracy:.0%} of cases (gate: {gate:.0%}"
                "), so a rater would learn to measure length. Give more pairs of mixed lengths, or --config.gates.length_accuracy=N"
            )
        if levels[rating.BEST] < work.config.rate.at_least:
            told.append(
                f"{code}: {levels[rating.BEST]:,} rating pairs a level, {work.config.rate.at_least:,} are wanted (rate.at_least)"
            )
        stage.write(code, made)
    for line in told:
        work.say(line)
    stage.finish(rate_data_inputs(work), found=found | {"told": told})


def _english(pairs: Sequence[Row], place: int) -> str:
    """A text in English as long as a pair's answer, of the instructions of others."""
    said, at = "", place
    while len(said) < len(pairs[place]["response"]):
        at = (at + 1) % len(pairs)
        said += f"{pairs[at]['instruction']} "
    return said.strip()


# --- train_evaluator ----------------------------------------------------------------------------------------------------


def train_evaluator_inputs(work: Work) -> dict[str, Any]:
    return {
        **work.role_inputs("evaluator"), **work.made_by("rate_data"), **gate_inputs(work, "evaluator"),
        **rated_by(work),
        "refine.anchor": files_digest(work.config.refine.anchor, "anchor", work.languages), **tiny_inputs(work),
    }  # fmt: skip


def make_evaluator(work: Work, stage: Stage) -> None:
    """Trains the evaluator; no rows."""
    rows = [row for code in work.languages for row in work.stage("rate_data").rows(code)]
    evaluator = work.trained_or_teacher("evaluator", models.evaluator_records(work, rows))
    found = gated_evaluator(work, evaluator, rows)
    stage.finish(train_evaluator_inputs(work), found={**found, "evaluator": evaluator}, passed_on={"evaluator": evaluator})


def gated_evaluator(work: Work, evaluator: str, rows: Sequence[Row]) -> dict[str, Any]:
    """What the evaluator does on held-out pairs and against the anchor. Raises NotGood."""
    anchor = anchor_rows(work.config, work.languages, work.packs)
    with work.model("evaluator", evaluator) as model:
        found = models.check_evaluator(work, model, rows)
        auc = models.anchor_auc(work, model, anchor)
    models.check_auc(auc, work.config.gates)
    return {GATES: found, "auc": auc, "anchor": dict(Counter(row["lang"] for row in anchor))}
