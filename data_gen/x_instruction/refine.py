"""Stage refine: the rounds in which the rater says what is kept, and both models learn from it.

    round 0        every candidate gets a score; of a document the best one is kept, if it is good enough
    round 1 … K    the generator is trained again on seed and kept, and asked again about the documents that have none; the
                   evaluator is trained again with kept ones among the best; everything is scored again

A round counts if the new evaluator does not fall behind the best one so far against the anchor, which nobody trains on.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_gen.readable import percent
from data_gen.text import tokens
from data_gen.x_instruction import models, rating
from data_gen.x_instruction.evaluator import gated_evaluator
from data_gen.x_instruction.generator import candidates
from data_gen.x_instruction.inputs import GATES, embedder_inputs, gate_inputs, rated_by, seed_rows
from data_gen.x_instruction.seed import files_digest
from data_gen.x_instruction.stage import Row, Stage
from data_gen.x_instruction.work import NotGood, Work, named_values


@dataclass(slots=True)
class Kept:
    """Of every document the best candidate, and how it was rated."""

    instruction: str
    scores: rating.Scores
    sample: int
    round: int
    model: str

    @property
    def score(self) -> float:
        return self.scores[rating.BEST]


@dataclass
class Rated:
    """One language: by document the best candidate, and how many of the candidates that were rated are good enough."""

    best: dict[str, Kept] = field(default_factory=dict)
    candidates: int = 0
    passed: int = 0

    def kept(self, least: float) -> dict[str, Kept]:
        return {own: one for own, one in self.best.items() if one.score >= least}


Best = dict[str, Rated]  # by language


def refine_inputs(work: Work) -> dict[str, Any]:
    kept = {f"rate.{name}": getattr(work.config.rate, name) for name in ("keep", "max_keep", "min_keep", "cap")}
    settings = {name: value for name, value in work.settings("seed", "refine").items() if name != "refine.min_anchor"}
    return {
        **settings, **kept, **rated_by(work), **gate_inputs(work, "generator"), **gate_inputs(work, "evaluator"),
        "refine.anchor": files_digest(work.config.refine.anchor, "anchor", work.languages), **embedder_inputs(work),
        **work.made_by("seed", "generate", "rate_data", "train_evaluator"),
        **work.role_inputs("generator"), **work.role_inputs("evaluator"),
    }  # fmt: skip


def make_refined(work: Work, stage: Stage) -> None:
    """Rows {id, lang, response, source, instruction, rating: {scores, rater, round}, gen}: of every document kept its best."""
    config, first = work.config, work.stage("train_evaluator").found()
    new: dict[str, dict[str, list[Row]]] = {code: {} for code in work.languages}  # candidates of later rounds, by document
    rater, auc = first["evaluator"], first["auc"]
    best = rated(work, rater, new, "scores")
    check_keep_rate(work, best)
    rounds = [{"round": 0, "evaluator": rater, "auc": auc, "kept": _kept_of(work, best), "gates": first[GATES]}]
    stopped, highest = f"{config.refine.rounds} rounds were wanted", dict(auc)
    for number in range(1, config.refine.rounds + 1):
        try:
            after, about, new = one_round(work, stage, number, best, new)
            check_keep_rate(work, after)
        except NotGood as error:
            stopped = f"round {number} is not kept: {error}"
            break
        fell = {
            code: highest[code] - value for code, value in about["auc"].items() if highest[code] - value > config.refine.max_fall
        }
        rounds.append({**about, "used": not fell})
        if fell:
            stopped = f"round {number} is not kept: the AUC against the anchor fell ({named_values(fell)}), more than "
            stopped += f"refine.max_fall={config.refine.max_fall:g}"
            break
        documents = sum(work.stage("generate").counts().values())
        moved = abs(sum(about["kept"].values()) - sum(rounds[-2]["kept"].values())) / max(documents, 1)
        best, rater = after, about["evaluator"]
        highest = {code: max(highest[code], value) for code, value in about["auc"].items()}
        if moved < config.refine.min_move and number < config.refine.rounds:
            stopped = f"after round {number} the share kept moved by {moved:.3f} only (refine.min_move={config.refine.min_move:g})"
            break
    found: dict[str, Any] = {"rounds": rounds, "stopped": stopped, "evaluator": rater}
    for code in work.languages:
        found[code] = _write_kept(work, stage, code, best[code].best, rater)
    told = check_keep_rate(work, best)
    told += [
        f"{code}: {found[code]['kept']:,} samples are kept, fewer than rate.floor={config.rate.floor:,}: the language starves; its "
        "threshold is the same as the others'"
        for code in work.languages
        if found[code]["kept"] < config.rate.floor
    ]
    few = {code: count for code, count in first["anchor"].items() if count < config.refine.min_anchor}
    told += [f"the anchor has {named_values(few)} pairs, {config.refine.min_anchor} a language are wanted"] if few else []
    for line in told:
        work.say(line)
    stage.finish(refine_inputs(work), found=found | {"told": told})


def rated(work: Work, rater: str, new: dict[str, dict[str, list[Row]]], title: str) -> Best:
    """Of every document the candidate with the best score; the lowest sample of equal ones."""
    best: Best = {code: Rated() for code in work.languages}
    with work.model("evaluator", rater) as model:
        for code in work.languages:

            def rows(code: str = code) -> Iterator[Row]:
                for row in work.stage("generate").rows(code):
                    for one in [*row["candidates"], *new[code].get(row["id"], [])]:
                        yield {"id": row["id"], "lang": code, "response": row["response"], **one}

            wanted = sum(1 for _ in rows())
            for row, scores in models.score(work, model, rows, title=f"{title} of {code}", wanted=wanted):
                if scores is None:
                    continue
                one, found = Kept(row["instruction"], scores, row["sample"], row["round"], row["model"]), best[code]
                found.candidates += 1
                found.passed += one.score >= work.config.rate.keep
                if row["id"] not in found.best or one.score > found.best[row["id"]].score:
                    found.best[row["id"]] = one
    return best


def _kept_of(work: Work, best: Best) -> dict[str, int]:
    """By language, how many documents have a candidate that is kept."""
    return {code: len(found.kept(work.config.rate.keep)) for code, found in best.items()}


def check_keep_rate(work: Work, best: Best) -> list[str]:
    """Raises NotGood where the rater passes nearly all candidates or nearly none; says where it does in one language."""
    rate, whole = work.config.rate, sum(found.candidates for found in best.values())
    passed = sum(found.passed for found in best.values())
    shares = {code: percent(found.passed, found.candidates) for code, found in best.items()}
    bounds = f"{percent(rate.min_keep, 1)} to {percent(rate.max_keep, 1)}"
    if not rate.min_keep <= passed / max(whole, 1) <= rate.max_keep:
        scores = sorted(one.score for found in best.values() for one in found.best.values())
        middle = f"{scores[len(scores) // 2]:.3f}" if scores else "none"
        raise NotGood(
            f"the rater passes {percent(passed, whole)} of {whole:,} candidates ({named_values(shares)}); {bounds} is expected of "
            f"one that tells good from bad (rate.min_keep, rate.max_keep). The documents' best scores have the median {middle}, "
            f"and rate.keep is {rate.keep:g}: set another, or train it on more pairs"
        )
    return [
        f"{code}: the rater passes {shares[code]} of its candidates, not {bounds}"
        for code, found in best.items()
        if not rate.min_keep <= found.passed / max(found.candidates, 1) <= rate.max_keep
    ]


def one_round(
    work: Work, stage: Stage, number: int, best: Best, new: dict[str, dict[str, list[Row]]]
) -> tuple[Best, dict[str, Any], dict[str, dict[str, list[Row]]]]:
    """Both models trained again, the documents without a kept candidate asked again, everything scored again. Raises NotGood."""
    config = work.config
    seeds = seed_rows(work)
    ratings = [row for code in work.languages for row in work.stage("rate_data").rows(code)]
    kept = [
        row for code in work.languages for row in _kept_rows(work, code, best[code], _most(config.refine.new_pairs, seeds, code))
    ]
    generator = work.trained_or_teacher("generator", models.generator_records([*seeds, *kept]))
    grown = {code: dict(some) for code, some in new.items()}
    with work.model("generator", generator) as model:
        models.check_generator(work, model, seeds)
        for code in work.languages:
            good = best[code].kept(config.rate.keep).keys()
            rows = ((row["id"], row["candidates"]) for row in work.stage("generate").rows(code))
            asked = [one["instruction"] for own, some in rows for one in [*some, *grown[code].get(own, [])]]
            known = {" ".join(tokens(text)) for text in asked}

            def documents(code: str = code, good: Collection[str] = good) -> Iterator[Row]:
                return (
                    {k: v for k, v in row.items() if k != "candidates"}
                    for row in work.stage("generate").rows(code)
                    if row["id"] not in good
                )

            many = work.stage("generate").counts()[code] - len(good)
            shown = [row for row in seeds if row["side"] == "train" and row["lang"] == code]
            for row in candidates(work, stage, model, work.packs[code], documents, many, shown, round_number=number, known=known):
                if row["candidates"]:
                    grown[code][row["id"]] = [*grown[code].get(row["id"], []), *row["candidates"]]
    high = [
        {
            **{k: row[k] for k in ("lang", "instruction", "response")},
            "id": f"{row['id']}-kept",
            "rating": rating.BEST,
            "kind": "kept",
            "side": "train",
        }
        for code in work.languages
        for row in _kept_rows(work, code, best[code], _most(config.refine.new_high, seeds, code))
    ]
    evaluator = work.trained_or_teacher("evaluator", models.evaluator_records(work, [*ratings, *high]))
    rater = gated_evaluator(work, evaluator, ratings)
    after = rated(work, evaluator, grown, f"scores, round {number},")
    about = {
        "round": number, "generator": generator, "evaluator": evaluator, "auc": rater["auc"], GATES: rater[GATES],
        "kept": _kept_of(work, after), "new_candidates": {code: sum(map(len, some.values())) for code, some in grown.items()},
    }  # fmt: skip
    return after, about, grown


def _most(share: float, seeds: Sequence[Row], code: str) -> int:
    return round(share * sum(row["lang"] == code and row["side"] == "train" for row in seeds))


def _kept_rows(work: Work, code: str, found: Rated, most: int) -> list[Row]:
    """The `most` best kept samples of a language as rows to train on."""
    kept = found.kept(work.config.rate.keep)
    chosen = set(sorted(kept, key=lambda own: (-kept[own].score, own))[:most])
    return [
        {"id": row["id"], "lang": code, "instruction": kept[row["id"]].instruction, "response": row["response"], "side": "train"}
        for row in work.stage("generate").rows(code)
        if row["id"] in chosen
    ]


def _write_kept(work: Work, stage: Stage, code: str, best: dict[str, Kept], rater: str) -> dict[str, Any]:
    config = work.config.rate
    kept = sorted((own for own, one in best.items() if one.score >= config.keep), key=lambda own: (-best[own].score, own))
    chosen, counted = set(kept[: config.cap]), Counter[str]()

    def rows() -> Iterator[Row]:
        for row in work.stage("generate").rows(code):
            one = best.get(row["id"])
            if row["id"] in chosen and one:
                counted["news"] += row["source"]["news"]
                yield {
                    **{k: row[k] for k in ("id", "lang", "response", "source")}, "instruction": one.instruction,
                    "rating": {"scores": one.scores, "rater": rater, "round": one.round},
                    "gen": {"model": one.model, "sample": one.sample},
                }  # fmt: skip
            elif one is None:
                counted["no_candidate_or_score"] += 1
            elif one.score < config.keep:
                stage.reject(code, "score_low", row["id"], f"{one.score:.3f} {one.instruction}")
            else:
                counted["beyond_cap"] += 1

    written = stage.write(code, rows())
    for reason in ("no_candidate_or_score", "beyond_cap"):
        stage.count(code, reason, counted[reason])
    documents = work.stage("generate").counts()[code]
    return {"documents": documents, "kept": written, "share": round(len(kept) / max(documents, 1), 4), "news": counted["news"]}
