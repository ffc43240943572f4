"""What several stages depend on, or read alike: parts of the config that decide about them, the seed's rows, the anchor."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_gen import UsageError
from data_gen.languages import Pack
from data_gen.record import record_id
from data_gen.x_instruction import rating
from data_gen.x_instruction.config import TINY, XInstructionConfig
from data_gen.x_instruction.seed import PAIR, document_digest, read_pairs
from data_gen.x_instruction.stage import Row
from data_gen.x_instruction.work import Work

GATES = "gates"  # under this name a stage's manifest has what the gates measured


def seed_rows(work: Work) -> list[Row]:
    return [row for code in work.languages for row in work.stage("seed").rows(code)]


def anchor_rows(config: XInstructionConfig, languages: Sequence[str], packs: dict[str, Pack]) -> list[Row]:
    """The rated pairs that no model is trained on, as {id, lang, instruction, response, rating}.

    [] where the config names none, which only the stages before train_evaluator can do without.

    Raises UsageError for a rating that is not 0, 1 or 2, and a language without both good pairs and others.
    """
    rows: list[Row] = []
    if not config.refine.anchor:
        return rows
    for code, given in read_pairs(config.refine.anchor, "anchor", languages, (*PAIR, "rating")).items():
        if code not in languages:
            continue
        for row in given:
            if row["rating"] not in (0, 1, 2) or isinstance(row["rating"], bool):
                raise UsageError(f"refine.anchor: rating {row['rating']!r} of {row['instruction']!r}; it must be 0, 1 or 2")
            response = packs[code].normalise(row["response"])
            own = record_id(f"anchor {code}\n{row['instruction']}\n{response}")
            rows.append({"id": own, "lang": code, **{k: row[k] for k in ("instruction", "rating")}, "response": response})
    for code in languages:
        found = Counter(row["rating"] for row in rows if row["lang"] == code)
        if not found[rating.BEST] or not found[0] + found[1]:
            raise UsageError(
                f"refine.anchor has {found[rating.BEST]} pairs of {code} rated 2 and {found[0] + found[1]} rated lower: the AUC "
                "needs both. 200 pairs a language, rated by people or a strong teacher, are a good anchor"
            )
    return rows


def asked_of_generator(work: Work) -> dict[str, Any]:
    names = ("samples", "temperature", "top_p", "max_tokens")
    return {f"generate.{name}": getattr(work.config.generate, name) for name in names}


def embedder_inputs(work: Work) -> dict[str, Any]:
    return {f"diversify.{name}": getattr(work.config.diversify, name) for name in ("embedder", "model", "dimensions")}


def tiny_inputs(work: Work) -> dict[str, Any]:
    """The tiny base is made from the documents too."""
    return {f"documents of {code}": document_digest(work, code) for code in work.languages} if work.config.base == TINY else {}


def gate_inputs(work: Work, role: str) -> dict[str, float]:
    """The gates that decide about a role; others may change without making its stage old."""
    names = {
        "generator": ("english", "dangling", "distinct_2", "cosine"),
        "evaluator": ("macro_f1", "macro_f1_language", "calibration", "length_correlation", "min_auc"),
        "rate_data": ("length_accuracy",),
    }
    return {f"gates.{name}": getattr(work.config.gates, name) for name in names[role]}


def rated_by(work: Work) -> dict[str, Any]:
    return {f"rate.{name}": getattr(work.config.rate, name) for name in ("probabilities", "votes")}
