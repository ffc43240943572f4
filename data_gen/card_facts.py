"""What a dataset's card is told by the recipe that made the data. No text of a card and no counting of records: card.py and
report.py write, in the recipe's own words (card_words.py), and survey.py counts.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_gen.card_words import CHECKS, SELF_INSTRUCT, Words
from data_gen.config import SelfInstructConfig
from data_gen.endpoint import OFFLINE
from data_gen.languages import Pack
from data_gen.limits import Usage


@dataclass(frozen=True)
class Table:
    """Figures that the card and the report both show: in the section of counts, lengths, diversity, made (the way from the first
    document to the last item), checks or terms. `note` stands before them, in plain words.
    """

    section: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def in_words(rows: Sequence[Sequence[str]], columns: int) -> list[bool]:
    """Of each column of a table whether it is text, as the first is, and not figures. [("ur", "12 ± 3")] → [True, False]."""
    return [column == 0 or any(re.search(r"[^\W\d_]{2}", row[column]) for row in rows) for column in range(columns)]


@dataclass(kw_only=True)
class CardInputs:
    """What is known of a dataset beside its records. `accepted[task][side]`; `checks` maps a check that was on (a key of
    `words.checks`) to its threshold in words ("at least 3 of 5", "" for none); `cost` in US dollars and `wall_s` in seconds, None
    where not known.

    Of a dataset in several languages `packs` has them all and `pack` the first. `by_stage[stage]` is what `rejected` is, for a
    recipe of several stages, and `candidates` how many there were, where they are not the accepted and the rejected together.
    """

    name: str
    pack: Pack
    teacher: str
    teacher_terms: str
    licence: str  # the hub's identifier ("cc-by-4.0"), or its terms in words, perhaps with their URL
    recipe: Mapping[str, Any]
    accepted: Mapping[str, Mapping[str, int]]
    rejected: Mapping[str, int]
    prompts: Mapping[str, str]
    requests: int
    usage: Usage
    cost: float | None
    command: str
    wall_s: float | None = None
    checks: Mapping[str, str] = field(default_factory=dict)
    reviewed: str = ""  # what people found who read a sample, in a sentence
    words: Words = SELF_INSTRUCT
    packs: tuple[Pack, ...] = ()
    by_stage: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    candidates: int | None = None
    tables: tuple[Table, ...] = ()
    tried_out: bool | None = None  # whether models took part that only try the programs; None: the recipe's teacher says it

    @property
    def languages(self) -> tuple[Pack, ...]:
        """The packs of all languages of the dataset."""
        return self.packs or (self.pack,)

    def pack_of(self, language: str) -> Pack:
        """The pack of an answer's language: ur for ur, ur-Latn; the first pack for what no other one knows."""
        return next((pack for pack in self.languages if pack.code == language.split("-")[0]), self.pack)

    def names(self) -> dict[str, str]:
        """The English name of each language by its code: {"ur": "Urdu", "ur-Latn": "Roman Urdu", "en": "English"}."""
        return {code: variety.name for pack in self.languages for code, variety in pack.varieties.items()}

    @property
    def offline(self) -> bool:
        """Whether grammars wrote the data, or models that only try the programs, and no language model that anybody would ask."""
        return self.tried_out if self.tried_out is not None else dict(self.recipe.get("teacher") or {}).get("base_url") == OFFLINE

    @property
    def judge(self) -> str:
        """The model that the judged checks asked, where it is not the teacher; else ""."""
        model = str(dict(self.recipe.get("checks") or {}).get("model") or "")
        return "" if model == self.teacher else model

    def acceptance(self) -> tuple[int, int]:
        """(accepted, candidates); items that came when their target was reached are neither."""
        kept = sum(sum(sides.values()) for sides in self.accepted.values())
        if self.candidates is not None:
            return kept, self.candidates
        return kept, kept + sum(count for reason, count in self.rejected.items() if reason != "target_reached")

    def rejections(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """(stage, [(reason, items), …]) with the most frequent first, the one stage of a recipe without stages being ""."""
        stages = self.by_stage or {"": self.rejected}
        ranked = {stage: sorted(found.items(), key=lambda one: (-one[1], one[0])) for stage, found in stages.items()}
        return [(stage, found) for stage, found in ranked.items() if found]


def checks_on(config: SelfInstructConfig, named: Collection[str]) -> dict[str, str]:
    """The checks that a recipe switches on, each with its threshold in words, for CardInputs. `named`: those of its tasks.

    checks_on(SelfInstructConfig(checks=ChecksConfig(min_quality=3)), {"label", "quality"})["quality"] == "at least 3 of 5".
    """
    asked, samples = config.checks, config.checks.majority_samples
    by_switch = {
        "language_id": "by GlotLID" if config.glotlid_model else "by lingua" if config.language_id else None,
        "contamination": f"{len(config.decontaminate)} files" if config.decontaminate else None,
    }
    by_task = {
        "label": "",
        "arithmetic": "",
        "choice": "",
        "majority": f"more than half of {samples} solutions" if samples else None,
        "back_translation": f"chrF at least {asked.min_chrf:g}" if asked.min_chrf else None,
        "ethics": "pass" if asked.ethics else None,
        "quality": f"at least {asked.min_quality} of 5" if asked.min_quality else None,
    }
    always = {
        "filters": "",
        "personal_data": "",
        "foreign_characters": "",
        "rouge": f"F1 at most {config.rouge_threshold:g}",
        "minhash": f"Jaccard similarity below {config.answer_threshold:g}",
        "heldout": f"Jaccard similarity below {config.heldout_threshold:g}",
    }
    on = {**always, **by_switch, **{name: said for name, said in by_task.items() if name in named}}
    return {name: said for name in CHECKS if (said := on.get(name)) is not None}
