"""What a dataset's card is told by the recipe that made the data, and in plain words what each reason and check means. No text of
a card and no counting of records: card.py and report.py write, survey.py counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from data_gen.config import SelfInstructConfig
from data_gen.endpoint import OFFLINE
from data_gen.languages import Pack
from data_gen.limits import Usage

# By the name under which a rejected item is counted and written to rejected.jsonl.
REASONS: dict[str, str] = {
    "empty_output": "no answer at all",
    "output_too_long": "an answer longer than any that could be meant: the teacher found no end",
    "input_too_long": "instruction and input longer than any that could be meant",
    "instruction_too_short": "an instruction of fewer words than a task can be said in",
    "instruction_too_long": "an instruction of more words than the upper bound",
    "leading_punctuation": "the instruction opens with a mark: a broken list or half a sentence",
    "copied": "the answer only repeats the instruction or the input",
    "no_labels_offered": "a task of labels whose instruction offers none",
    "label_outside": "the answer is none of the labels that the instruction offers",
    "wrong_language": "too few letters of the answer are in the script of its language",
    "language_id": "a language identifier is sure that the text is in another language",
    "refusal": "the answer declines a request that is not harmful",
    "boiler_plate": "a chat model speaks about itself",
    "repeated_text": "the answer repeats a word or a phrase over and over",
    "malformed": "the reply has no item in the form that was asked for",
    "malformed_turns": "the turns of a conversation do not alternate, or one is empty",
    "truncated": "the reply was cut off inside of this item",
    "similar": "ROUGE-L says that the instruction is too near to a seed or to an item kept before",
    "target_reached": "nothing is wrong with it: its task had all the items that were wanted",
    "similar_answer": "MinHash says that the answer is too near to one kept before",
    "near_training": "a held-out item too near to a training item",
    "near_heldout": "a training item too near to a held-out item",
    "contaminated": "it shares a run of words with an evaluation set",
    "personal_data": "it has what looks like a person's number, e-mail address or account",
    "foreign_characters": "characters of another script stand inside of words",
    "input_missing": "the task needs an input, and there is none",
    "input_unwanted": "the task has no input, and there is one",
    "answer_too_short": "an answer of fewer words than the task asks for",
    "answer_too_long": "an answer of more words than the task allows",
    "arithmetic_wrong": "a calculation in the answer, done again, gives another result",
    "answer_not_derived": "the final result is none of those that its calculation gives",
    "choice_outside": "the chosen letter is not among those offered",
    "choice_mismatch": "the chosen letter and the text beside it are of different options",
    "no_source_text": "a translation task whose instruction holds no text to translate",
    "majority_differs": "most of the teacher's own new solutions end with another answer",
    "back_translation_low": "translated back, the text is too far from the one it came from",
    "ethics_failed": "a judge found the answer harmful or irresponsible",
    "quality_low": "a judge gave it fewer points than the threshold",
    "unchecked": "a check was asked for and the teacher gave no readable answer",
    "balance_reached": "its answer language had its part of the target already",
}

# By the name under which a recipe says that a check was on, and (the judged ones) the records' meta keeps a score.
CHECKS: dict[str, str] = {
    "filters": "form, length, script, refusals and boiler-plate, repetition, copies",
    "label": "the answer of a closed task is one of the labels offered",
    "arithmetic": "calculations are done again and must give what the answer says",
    "choice": "a multiple-choice answer names an option that is offered, with its own text",
    "language_id": "a language identifier must not be sure of another language",
    "personal_data": "numbers of persons, telephones and accounts, and e-mail addresses",
    "foreign_characters": "no characters of another script inside of words",
    "rouge": "exact ROUGE-L of the instruction against all seeds and all items kept before",
    "minhash": "MinHash of the answer against all answers kept before",
    "heldout": "MinHash of an item against all items of the other side, held out or to train on",
    "contamination": "no run of 13 words in common with the evaluation sets given",
    "majority": "the teacher solves the task again several times; most solutions must agree with the answer",
    "back_translation": "the translation is translated back and compared with the source by chrF",
    "ethics": "a judge passes the answer as responsible",
    "quality": "a judge gives one to five points",
}


@dataclass(kw_only=True)
class CardInputs:
    """What is known of a dataset beside its records. `accepted[task][side]`; `checks` maps a check that was on (a key of CHECKS) to
    its threshold in words ("at least 3 of 5", "" for none); `cost` in US dollars and `wall_s` in seconds, None where not known.
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

    @property
    def offline(self) -> bool:
        """Whether grammars wrote the data, and no language model."""
        return dict(self.recipe.get("teacher") or {}).get("base_url") == OFFLINE

    @property
    def judge(self) -> str:
        """The model that the judged checks asked, where it is not the teacher; else ""."""
        model = str(dict(self.recipe.get("checks") or {}).get("model") or "")
        return "" if model == self.teacher else model

    def acceptance(self) -> tuple[int, int]:
        """(accepted, candidates); items that came when their target was reached are neither."""
        kept = sum(sum(sides.values()) for sides in self.accepted.values())
        return kept, kept + sum(count for reason, count in self.rejected.items() if reason != "target_reached")


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
