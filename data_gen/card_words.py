"""What one recipe's card and report say where another's say something else. What they say alike stands in card.py and report.py;
nothing is counted here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from data_gen.languages import Pack
from data_gen.limits import Usage
from data_gen.readable import dollars, duration, percent
from data_gen.readable import tokens as tokens_said
from data_gen.survey import Survey

FORM_ONLY = "Personal data was looked for by its form only: a story told about somebody's name has none."
NOT_LOOKED_FOR = "Personal data was not looked for."
NOT_COMPARED = "It was not compared with evaluation sets: questions of a test may be in it."


class Known(Protocol):
    """What words are made of: so much of card_facts.CardInputs, which says what each is."""

    pack: Pack
    teacher: str
    teacher_terms: str
    licence: str
    accepted: Mapping[str, Mapping[str, int]]
    prompts: Mapping[str, str]
    requests: int
    usage: Usage
    cost: float | None
    wall_s: float | None
    checks: Mapping[str, str]
    reviewed: str

    @property
    def languages(self) -> tuple[Pack, ...]: ...

    @property
    def offline(self) -> bool: ...

    @property
    def judge(self) -> str: ...

    def acceptance(self) -> tuple[int, int]: ...


@dataclass(frozen=True, kw_only=True)
class Words:
    """A recipe's own words. Functions give sentences in Markdown, or plain text where the report has them."""

    tags: tuple[str, ...]  # the hub's, from the most general on
    written_by: tuple[str, ...]  # as the hub says who wrote text: machine-generated, found
    intro: Callable[[Known], str]  # what the items are and who wrote them, in the report's head
    what: Callable[[Known, Survey], str]  # the same at length, and how the held-out items are apart, in the card
    heldout: str  # the latter in short, under a colour of the report
    asked: str  # whose words the report counts as those of an instruction
    thing: str  # where a verb's object is looked for
    meta: str  # what is in a record's meta
    made: Callable[[Known], str]
    terms_title: str
    terms: Callable[[Known, Callable[[str], str]], str]  # the second is how an address in a text becomes a link
    limits: Callable[[Known], list[str]]
    again: Callable[[Known], str]  # what the same command gives on an empty directory
    reasons: Mapping[str, str]  # by the name under which a rejected item is counted
    checks: Mapping[str, str]  # by the name under which a recipe says that a check was on
    scores: Mapping[str, str] = field(default_factory=dict)  # names of a record's scores that do not speak for themselves
    asks_in_english: bool = False  # the instructions whose verbs are counted are English, whatever the language of the answers


def cost(inputs: Known) -> str:
    """What the models cost, as a sentence."""
    if inputs.cost is not None:
        return f"It cost {dollars(inputs.cost)}."
    return "It cost nothing." if inputs.offline else "What it cost is not known: no price was given."


def took(inputs: Known) -> str:
    """" in 3 min", or "" where nobody took the time."""
    return f" in {duration(inputs.wall_s)}" if inputs.wall_s is not None else ""


def licence_said(inputs: Known, linked: Callable[[str], str]) -> str:
    """The dataset's own licence, as a sentence."""
    return f"Licence: {linked(inputs.licence) or 'none was given: ask who published it before you use it'}."


# --- self-instruct


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


def _intro(inputs: Known) -> str:
    written = "written by grammars and word lists, not by a language model" if inputs.offline else f"written by {inputs.teacher}"
    return f"{inputs.pack.name} instructions with answers, {written}."


def _what(inputs: Known, found: Survey) -> str:
    sides, pack = found.sides(), inputs.pack
    writer = "grammars and word lists, not by a language model" if inputs.offline else inputs.teacher
    return (
        f"{sides['train']:,} {pack.name} ({pack.native_name}) instructions with answers to train on and {sides['heldout']:,} held "
        f"out, in {len(found.tasks)} tasks, written by {writer}. The held-out items are made from seeds of other topics than the "
        "training items, and from nothing that was made from those: no line of descent crosses."
    )


def _made(inputs: Known) -> str:
    kept, seen = inputs.acceptance()
    said = (
        "Self-instruct (Wang et al. 2022, [arXiv 2212.10560](https://arxiv.org/abs/2212.10560)): each request shows the teacher "
        "some seeds and some items that were kept before, all of one side, and asks for more of the kind. What comes back is "
        "parsed, filtered, compared with everything kept so far and checked.\n\n"
        f"{inputs.requests:,} requests with {tokens_said(inputs.usage.prompt)} tokens in and "
        f"{tokens_said(inputs.usage.completion)} out{took(inputs)} gave {seen:,} candidates, of which {kept:,} "
        f"({percent(kept, seen)}) were kept. {cost(inputs)}"
    )
    if "translated" in inputs.prompts:
        said += (
            " The items of `translated` are an English set in the teacher's translation; the terms of that set hold for them too."
        )
    return said


def _terms(inputs: Known, linked: Callable[[str], str]) -> str:
    if inputs.offline:
        teacher = "There was no language model: grammars and word lists wrote the items, so no provider's terms hold."
    else:
        terms = linked(inputs.teacher_terms) or "not recorded; those of its provider hold"
        teacher = f"Teacher: {inputs.teacher}. Its terms: {terms}. They hold for whoever trains on what it wrote."
    return f"{licence_said(inputs, linked)}\n\n{teacher}"


def _again(inputs: Known) -> str:
    if inputs.offline:
        return "The same command on an empty directory makes the same data."
    return "The same command on an empty directory asks the same requests; a teacher that samples answers them otherwise."


def _limits(inputs: Known) -> list[str]:
    limits = [
        "No person wrote the answers"
        + (" and a sample alone was read by people." if inputs.reviewed else ", and this card knows of none who has read them.")
    ]
    if not inputs.offline:
        limits.append("Facts, opinions and turns of phrase are the teacher's, with its errors and its leanings.")
    if judged := [name for name in ("majority", "back_translation", "ethics", "quality") if name in inputs.checks]:
        judge = inputs.judge or "the teacher itself, which may not see its own mistakes"
        limits.append(f"{', '.join(judged)}: judged by {judge}.")
    if "contamination" not in inputs.checks:
        limits.append(NOT_COMPARED)
    limits.append(
        "The held-out items come from the same prompts and teacher as the training items: they measure how well those were learnt, "
        "and not how good a model is at other things."
    )
    return [*limits, FORM_ONLY if "personal_data" in inputs.checks else NOT_LOOKED_FOR]


SELF_INSTRUCT = Words(
    tags=("synthetic", "instruction-tuning", "self-instruct", "alif-jax"),
    written_by=("machine-generated",),
    intro=_intro,
    what=_what,
    heldout="made from seeds that no training item comes from",
    asked="words of the instruction with its input",
    thing="the word before it",
    meta="the request, the teacher, the hash of the prompt, the examples it was shown, scores",
    made=_made,
    terms_title="Teacher and licence",
    terms=_terms,
    limits=_limits,
    again=_again,
    reasons=REASONS,
    checks=CHECKS,
)
