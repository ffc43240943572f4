"""README.md and report.html of X-Instruction's data: what the stages found out goes in, with what is counted in the records, and
data_gen/card.py and report.py write it.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data_gen.card import HUB_LICENCE, without_paths, write_texts
from data_gen.card_facts import CardInputs, Table
from data_gen.languages import Pack
from data_gen.limits import Usage
from data_gen.readable import percent
from data_gen.record import Record
from data_gen.survey import Lengths, Survey, survey
from data_gen.x_instruction.card_words import PARTICLES, REASONS, VERBS, X_INSTRUCTION

MOST_LICENCES = 20  # that are named; the others are counted together
NONE = "-"  # where there is no figure
# Mean and standard deviation of the characters of an instruction and of an answer, in the data that the paper's authors published.
PUBLISHED = {
    "fi": ((100.7, 81.1), (1026.9, 552.8)), "id": ((101.0, 86.0), (1008.9, 542.1)), "th": ((102.4, 85.0), (987.5, 545.0)),
    "tr": ((103.7, 87.5), (1057.9, 534.1)), "vi": ((101.0, 86.0), (1120.4, 561.1)), "bn": ((111.9, 87.2), (1243.4, 518.7)),
    "hi": ((96.6, 79.9), (1284.9, 506.2)), "sw": ((100.0, 85.3), (1210.6, 524.0)), "ta": ((99.0, 84.8), (1259.0, 497.8)),
    "ur": ((107.6, 87.4), (1246.9, 508.8)),
}  # fmt: skip
ROLES = {
    "generator": "writes the English instruction to a text",
    "forward": "answers the seed's instructions, for the middle level of the rating data",
    "evaluator": "rates a pair",
    "embedder": "embeds the instructions for the clusters",
    "translator": "translates seed or instructions",
}


@dataclass(frozen=True)
class Funnel:
    """One language's way, in counts: documents read, candidates (an instruction to a document), those kept by rules and rater,
    those left after clustering, those in the data.
    """

    documents: int
    candidates: int
    kept: int
    diverse: int
    final: int


@dataclass(frozen=True)
class Round:
    """One round of generating and rating. reached: the value of each gate by its name, None where it could not be measured:
    {"macro-F1": 0.91, "AUC against the anchor, ur": 0.87}.
    """

    candidates: int
    kept: int
    reached: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model that took part. base: what it was tuned from and recipe: the training config it was tuned by, "" where it was not."""

    name: str
    base: str = ""
    recipe: str = ""
    terms: str = ""  # its licence, in words or as a URL

    def said(self) -> str:
        """What to call it in a sentence: the model it was tuned from says more than its own name."""
        return f"a tuned {without_paths(self.base)}" if self.base else str(without_paths(self.name))


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the card cannot count in the records. By language code: `funnel`, and `entropies`, that of the clusters' sizes before
    and after the choice (0: all in one, 1: all alike large). `rejected[stage][reason]`; `gates` says what a value of
    `Round.reached` must be ("at least 0.85"), and `checks` the thresholds of those checks of card_words.CHECKS that were on.
    `reasons` are meanings of further reasons, by name. `models` has "generator" and others of ROLES.
    """

    packs: tuple[Pack, ...]
    models: Mapping[str, Model]
    recipe: Mapping[str, Any]
    command: str
    funnel: Mapping[str, Funnel]
    rounds: tuple[Round, ...] = ()
    gates: Mapping[str, str] = field(default_factory=dict)
    rejected: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    entropies: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""  # of instructions and choice; the answers have those of their pages
    name: str = ""
    tried_out: bool = False  # tiny models of no use wrote and rated
    requests: int = 0
    usage: Usage = Usage()
    cost: float | None = None
    wall_s: float | None = None
    reviewed: str = ""


def write_card(directory: str, facts: Facts, records: Callable[[], Iterable[Record]]) -> None:
    """Writes directory/README.md and directory/report.html; the records are gone through once.

    Raises UsageError where they cannot be written.
    """
    seed = int(facts.recipe.get("seed") or 0)
    found = survey(records(), VERBS, seed, PARTICLES, verb_first=True)
    write_texts(directory, card_inputs(facts, found), found)


def card_inputs(facts: Facts, found: Survey) -> CardInputs:
    """Facts and counts, as the common card takes them."""
    generator = facts.models["generator"]
    return CardInputs(
        name=facts.name or f"X-Instruction: {', '.join(pack.name for pack in facts.packs)}",
        pack=facts.packs[0],
        packs=facts.packs,
        teacher=generator.said(),
        teacher_terms=generator.terms,
        licence=_licence(facts.licence, found),
        recipe=facts.recipe,
        accepted={task: seen.sides for task, seen in found.tasks.items()},
        rejected={},
        by_stage=facts.rejected,
        candidates=sum(way.candidates for way in facts.funnel.values()),
        prompts={},
        requests=facts.requests,
        usage=facts.usage,
        cost=facts.cost,
        command=shlex.join(without_paths(shlex.split(facts.command))),
        wall_s=facts.wall_s,
        checks=facts.checks,
        reviewed=facts.reviewed,
        words=replace(X_INSTRUCTION, reasons=REASONS | dict(facts.reasons)),
        tried_out=facts.tried_out,
        tables=tuple(
            table
            for table in (
                _lengths(facts, found),
                _spread(facts, found),
                _funnel(facts),
                _models(facts),
                _rounds(facts),
                _licences(found),
            )
            if table.rows
        ),
    )


def _licence(own: str, found: Survey) -> str:
    """The one licence of all, where there is one; otherwise whose holds for what, in words."""
    named = list(found.licences)
    if named == [own] and HUB_LICENCE.fullmatch(own):
        return own
    return f"that of each page for the answers, listed below, and {own or 'none that was given'} for the instructions"


# --- tables


def _name(facts: Facts, code: str) -> str:
    names = {code: variety.name for pack in facts.packs for code, variety in pack.varieties.items()}
    return f"{names[code]} ({code})" if code in names else code


def _lengths(facts: Facts, found: Survey) -> Table:
    rows = []
    for code, seen in found.by_language.items():
        published = [_spread_said(found) for found in PUBLISHED.get(code, (None, None))]
        rows.append((_name(facts, code), _measured(seen.asked), published[0], _measured(seen.answered), published[1]))
    return Table(
        section="lengths",
        title="Characters, beside those published",
        head=("language", "instruction", "published", "answer", "published"),
        rows=tuple(rows),
        note="Mean ± standard deviation of the plain English instruction and of the answer, and the same of the data that the "
        "paper's authors published, 32,000 pairs a language.",
    )


def _measured(lengths: Lengths) -> str:
    return _spread_said((lengths.mean(), lengths.deviation()) if lengths.count else None)


def _spread_said(found: tuple[float, float] | None) -> str:
    """(1246.9, 508.8) → "1,246.9 ± 508.8"."""
    return f"{found[0]:,.1f} ± {found[1]:,.1f}" if found else NONE


def _spread(facts: Facts, found: Survey) -> Table:
    rows = []
    for code, seen in found.by_language.items():
        entropies = [f"{value:.3f}" for value in facts.entropies.get(code, ())] or [NONE, NONE]
        sides = [f"{seen.sides[side]:,}" for side in ("train", "heldout")]
        rows.append((_name(facts, code), *sides, percent(seen.news, seen.sides.total()), *entropies))
    return Table(
        section="diversity",
        title="By language",
        head=("language", "to train on", "held out", "news", "entropy before", "entropy after"),
        rows=tuple(rows),
        note="News: the share of the answers that are news. Entropy: that of the sizes of the clusters of like instructions before "
        "the choice among them and after it; 1 is the most there can be, all clusters alike large.",
    )


def _funnel(facts: Facts) -> Table:
    rows = [
        (_name(facts, code), *(f"{count:,}" for count in (way.documents, way.candidates, way.kept, way.diverse, way.final)))
        for code, way in facts.funnel.items()
    ]
    return Table(
        section="made",
        title="From documents to pairs",
        head=("language", "documents", "candidates", "kept", "diverse", "in the data"),
        rows=tuple(rows),
        note="Candidates: instructions that the generator wrote to the documents. Kept: those that passed the rules and the rater. "
        "Diverse: those chosen from the clusters.",
    )


def _models(facts: Facts) -> Table:
    rows = []
    for part, model in facts.models.items():
        said = (str(without_paths(text)) or NONE for text in (model.name, model.base, model.recipe, model.terms))
        rows.append((part, ROLES.get(part, ""), *said))
    return Table("made", "Models", ("part", "what it does", "model", "tuned from", "recipe", "terms"), tuple(rows))


def _rounds(facts: Facts) -> Table:
    gates = list(dict.fromkeys(name for one in facts.rounds for name in one.reached))
    rows = []
    for number, one in enumerate(facts.rounds):
        values = (one.reached.get(name) for name in gates)
        reached = (NONE if value is None else f"{value:.3f}" for value in values)
        rows.append((f"{number}", f"{one.candidates:,}", f"{one.kept:,}", percent(one.kept, one.candidates), *reached))
    wanted = (f"{name} ({facts.gates[name]})" if name in facts.gates else name for name in gates)
    return Table(
        section="checks",
        title="Rounds and gates",
        head=("round", "candidates", "kept", "share kept", *wanted),
        rows=tuple(rows),
        note="What the models of each round reached on pairs they were not trained on, and in brackets what was asked of them. The "
        "anchor is a set of pairs rated without the rater.",
    )


def _licences(found: Survey) -> Table:
    ranked = sorted(found.licences.items(), key=lambda one: (-one[1], one[0]))
    rows = [(name or "none named", f"{count:,}") for name, count in ranked[:MOST_LICENCES]]
    if rest := sum(count for _, count in ranked[MOST_LICENCES:]):
        rows.append((f"{len(ranked) - MOST_LICENCES:,} others", f"{rest:,}"))
    return Table("terms", "Licences of the answers", ("licence", "answers"), tuple(rows))
