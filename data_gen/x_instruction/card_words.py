"""What card and report of X-Instruction's data say in words of their own, and which verbs they count in its instructions."""

from collections.abc import Callable

from data_gen.card_words import FORM_ONLY, NOT_COMPARED, NOT_LOOKED_FOR, Known, Words, cost, licence_said, took
from data_gen.readable import percent
from data_gen.readable import tokens as tokens_said
from data_gen.survey import Survey

# Verbs that an English instruction opens with.
VERBS = tuple(
    (
        "advise analyse analyze answer arrange ask assess calculate categorise categorize choose cite classify come compare "
        "complete compose compute consider construct convert count create criticise critique debate define demonstrate "
        "describe design detail determine develop devise differentiate discuss draft edit elaborate enumerate estimate "
        "evaluate examine explain explore express extract find formulate generate give help highlight identify illustrate "
        "imagine indicate infer inform interpret introduce invent investigate justify list make mention name narrate offer "
        "organise organize outline paraphrase plan predict prepare present produce propose prove provide rank rate recite "
        "recommend recount reflect report reply research respond retell review rewrite say select share show sketch solve "
        "specify state suggest summarise summarize talk teach tell think trace translate use verify write"
    ).split()
)
# Words that stand between such a verb and its object, or before the verb.
PARTICLES = tuple(
    (
        "a an the this that these those some any all each every one two three four five several few many more my your his "
        "her its our their me us you him them it please kindly can could would will do i want need to about of on in for "
        "with from at by into as up short brief old young famous popular different specific possible recent long detailed "
        "simple clear concise good new small full complete comprehensive basic general main important interesting creative "
        "informative persuasive formal informal professional step"
    ).split()
)
REASONS = {
    "not_english": "the instruction is not English",
    "dangling": "the instruction speaks of a text, link or picture that nobody is shown",
    "too_short": "fewer letters than were asked for",
    "too_long": "more letters than were asked for",
    "wrong_script": "too few letters of the text are in the script of its language",
    "wrong_language": "a language identifier finds another language, or is not sure",
    "numbers_changed": "a translation has other numbers than what it was made from",
    "back_translation_low": "translated back, the text is too far from the one it came from",
    "duplicate": "in the same words as one kept before",
    "document_short": "nothing of the document is left between the shortest and the longest text allowed",
    "document_duplicate": "the document came before",
    "document_measured_on": "the document shares a run of words with pairs that models are measured on",
    "document_news": "nothing is wrong with it: there was as much news as may be",
    "document_beyond_number": "nothing is wrong with it: there were as many documents as were wanted",
    "no_answer": "the model gave none",
    "cut_off": "the model's answer was not at its end when it had to end",
    "own_script": "the instruction has words in the letters of the answer",
    "missing_input": "the instruction asks for something to be done with an input and gives none",
    "names_language": "the instruction names the language itself, which the form of the data does",
    "copied": "most of the instruction stands in the answer",
    "no_candidate_or_score": "no instruction to the document passed the rules, or the rater gave it no level",
    "score_low": "the rater finds it less probable than was asked that this is the best level",
    "beyond_cap": "nothing is wrong with it: its language had all that were wanted of the round",
    "near_instruction": "the instruction's embedding is too near to that of one chosen before",
    "beyond_target": "nothing is wrong with it: its language had all the pairs that were wanted",
    "evaluation_data": "it shares a run of words with an evaluation set",
    "not_translated": "no translation of the instruction came",
}
CHECKS = {
    "instruction": "form of the instruction: English, of a length, nothing missing that it speaks of, no copy of the answer",
    "rater": "a model's probability that the text is the best of three levels of answers",
    "cosine": "likeness of the instruction's embedding to those chosen before",
    "news": "share of news among the texts",
    "language_id": "a language identifier must find the answers in their language",
    "measured_on": "no run of 13 words in common with the held-out pairs of the seed and the anchor",
    "personal_data": "addresses and numbers of persons are masked, and texts with many left out",
    "contamination": "no run of 13 words in common with the evaluation sets given",
}
TASKS = {
    "english": "the instruction is English, and most end by naming the language to answer in",
    "native": "the instruction is a translation into the language of the answer",
    "system": "the instruction is English, and a system message names the language to answer in",
}


def _languages(inputs: Known) -> str:
    """ "Urdu", "Urdu and Hindi", "Urdu, Hindi and Tamil"."""
    names = [pack.name for pack in inputs.languages]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _intro(inputs: Known) -> str:
    return f"Text of the web in {_languages(inputs)} as answers, with instructions written for it by {inputs.teacher}."


def _what(inputs: Known, found: Survey) -> str:
    sides = found.sides()
    tasks = [f"- `{task}`: {TASKS[task]}." for task in found.tasks if task in TASKS]
    listed = "\n\nThe tasks are the forms in which an instruction comes:\n\n" + "\n".join(tasks) if tasks else ""
    return (
        f"{sides['train']:,} pairs of an instruction and an answer to train on and {sides['heldout']:,} held out, in "
        f"{_languages(inputs)}. The answers are text that people published on the web. The instructions were written afterwards, "
        f"in English, by a model ({inputs.teacher}) that was shown the text.{listed}"
    )


def _made(inputs: Known) -> str:
    kept, seen = inputs.acceptance()
    asked = ""
    if inputs.requests:
        asked = (
            f"{inputs.requests:,} requests with {tokens_said(inputs.usage.prompt)} tokens in and "
            f"{tokens_said(inputs.usage.completion)} out were asked of models{took(inputs)}. "
        )
    paid = f" {cost(inputs)}" if inputs.cost is not None else ""
    return (
        "X-Instruction (Li et al. 2024, [arXiv 2405.19744](https://arxiv.org/abs/2405.19744)): a text of the web is the answer, "
        "and a tuned model writes the English instruction that it could answer. Rules, and a rater that knows three levels of "
        "answers, choose among the pairs; over rounds both models are trained again with what was chosen. At the end clusters "
        "of like instructions spread the choice over all that is asked for. What the paper does not say of its models, levels "
        "and clusters is this recipe's own choice, and in the config below.\n\n"
        f"{asked}Of {seen:,} candidates {kept:,} ({percent(kept, seen)}) are in the data.{paid}"
    )


def _terms(inputs: Known, linked: Callable[[str], str]) -> str:
    theirs = linked(inputs.teacher_terms) or "not recorded; those of its provider hold"
    return (
        f"{licence_said(inputs, linked)}\n\nThe answers are other people's text and their terms hold for it: `meta` names the page "
        "(`url`, `domain`), where it was found (`source`) and the `licence` that came with it. A text without one is not "
        f"free for that.\n\nThe instructions are by {inputs.teacher}. Its terms: {theirs}."
    )


def _limits(inputs: Known) -> list[str]:
    read = "a sample alone was read by people" if inputs.reviewed else "this card knows of nobody who has read the pairs"
    limits = [
        "The answers are as their authors wrote them: with errors, opinions, things that are no longer so, and advertising that "
        "the rules did not find. Nobody wrote them as answers, and they do not sound like an assistant's.",
        "The instructions were invented for texts that were there before: some ask for less than the text says, or for more; "
        f"{read}.",
        "The rater was trained on flaws that were made on purpose: broken off, off the subject, mismatched, in disorder. What else "
        "may be wrong with an answer it was not shown, and facts it cannot check.",
        "What the web has little of, there is little of here: regions, subjects, people who do not write there.",
    ]
    if "native" in inputs.accepted:
        limits.append("The instructions of `native` are a model's translations.")
    if "contamination" not in inputs.checks:
        limits.append(NOT_COMPARED)
    limits.append(
        "The held-out pairs come from the same pages and models as those to train on: they measure how well those were learnt, and "
        "not how good a model is at other things."
    )
    return [*limits, f"{FORM_ONLY} Names of people stay." if "personal_data" in inputs.checks else NOT_LOOKED_FOR]


def _again(inputs: Known) -> str:
    return (
        "The same command on an empty directory, with the same documents, takes the same steps; models trained again on another "
        "machine may write and choose otherwise."
    )


X_INSTRUCTION = Words(
    tags=("synthetic", "instruction-tuning", "cross-lingual", "x-instruction", "alif-jax"),
    written_by=("found", "machine-generated"),
    intro=_intro,
    what=_what,
    heldout="drawn from the same pairs",
    asked="words of what the user says",
    thing="its object",
    meta="the page and its licence, the plain English instruction, its cluster, the round it was written in, the rater's score",
    made=_made,
    terms_title="Models and licences",
    terms=_terms,
    limits=_limits,
    again=_again,
    reasons=REASONS,
    checks=CHECKS,
    scores={"p_high": "the rater's probability of the best level"},
    asks_in_english=True,
)
