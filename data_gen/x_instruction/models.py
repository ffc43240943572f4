"""The three models: what each is trained on, what it is asked, and the gates that it passes before it is used.

generator   native text → the English instruction that it answers     (the authors' prompt, or few examples for a teacher)
forward     English instruction → native answer; only the middle level of the rating data needs it
evaluator   instruction and answer → one of three levels
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_gen.language_id import load_identifier, wrong_language
from data_gen.languages import ENGLISH, Pack
from data_gen.readable import percent
from data_gen.record import Record
from data_gen.x_instruction import measures, rating
from data_gen.x_instruction.ask import Answer, Message, Model, Question
from data_gen.x_instruction.config import GatesConfig
from data_gen.x_instruction.diversify import embed
from data_gen.x_instruction.instruction_rules import dangling, is_english
from data_gen.x_instruction.stage import Row
from data_gen.x_instruction.work import NotGood, Work, bullet, by_side, conversation

Scores = tuple[float, float, float]  # probabilities of the levels 0, 1, 2
SHOWN = 3  # pairs that a teacher is shown
TEACHER_GENERATOR = (
    "Write the one English instruction to which the {language} text below is a good and complete answer, as somebody would ask an "
    "assistant. It must be understood by whoever does not see the text: never speak of a text, article, passage or picture, and do "
    "not say in which language to answer. Write the instruction alone, in one to three sentences.\n"
)


# --- generator ----------------------------------------------------------------------------------------------------------


def generator_records(rows: Sequence[Row]) -> dict[str, list[Record]]:
    """The pairs turned round: the text is asked, the instruction answers. Kept candidates only train."""
    return by_side(
        (row, conversation("x_instruction_generator", row["lang"], [
            {"role": "user", "content": row["response"]}, {"role": "assistant", "content": row["instruction"]}
        ]))
        for row in rows
    )  # fmt: skip


def generator_question(work: Work, row: Row, sample: int, shown: Sequence[Row]) -> Question:
    """What the generator is asked about a text, once for each sample. shown: pairs of the language, for a teacher alone."""
    config, drawn = work.config.generate, random.Random(f"{work.config.seed} generate {row['id']} {sample}")
    content = row["response"]
    if work.config.generator.by == "teacher":
        examples = drawn.sample(list(shown), min(SHOWN, len(shown)))
        blocks = [f"Text: {one['response']}\nInstruction: {one['instruction']}" for one in examples]
        asked = TEACHER_GENERATOR.format(language=work.packs[row["lang"]].name)
        content = "\n\n".join([asked, *blocks, f"Text: {row['response']}\nInstruction:"])
    fields: dict[str, Any] = {"max_tokens": config.max_tokens, "temperature": config.temperature, "top_p": config.top_p}
    fields |= {"seed": drawn.getrandbits(31), "stop": ["\n\n"]}
    return Question(f"{row['id']} {sample}", ({"role": "user", "content": content},), fields)


def instruction_of(answer: Answer) -> str:
    """The instruction as it is kept: one line, without quotation marks around it and the name of what it is."""
    said = " ".join(answer.text.split()).removeprefix("Instruction:").strip()
    return said[1:-1].strip() if len(said) > 2 and said[0] in "\"'“«" and said[-1] in "\"'”»" else said


def is_english_beside(instruction: str, pack: Pack) -> bool:
    """Whether an instruction is English; where the pack's language is in Latin letters too, a language identifier is asked."""
    if pack.script != "Latin":
        return is_english(instruction)
    return is_english(instruction) and not wrong_language(instruction, ENGLISH, load_identifier(pack))


def check_generator(work: Work, model: Model, rows: Sequence[Row]) -> dict[str, Any]:
    """What the generator writes for held-out pairs, by measures. Raises NotGood where a gate is missed."""
    gates = work.config.gates
    held, shown = [row for row in rows if row["side"] == "heldout"], [row for row in rows if row["side"] == "train"]
    questions = [generator_question(work, row, 0, [one for one in shown if one["lang"] == row["lang"]]) for row in held]
    work.asker.ask(
        model, questions, title="generator on held-out pairs", wanted=len(held), max_errors=work.config.generate.max_errors
    )
    answered = [
        (row, answer) for row, question in zip(held, questions, strict=True) if (answer := work.asker.answer(model, question))
    ]
    written = [instruction_of(answer) for _, answer in answered]
    english = [is_english_beside(text, work.packs[row["lang"]]) for (row, _), text in zip(answered, written, strict=True)]
    own = [is_english_beside(row["instruction"], work.packs[row["lang"]]) for row in held]
    vectors = embed([*(row["instruction"] for row, _ in answered), *written], work, "held-out instructions")
    cosines = (vectors[: len(written)] * vectors[len(written) :]).sum(axis=1) if written else []
    found = {
        "pairs": len(held),
        "english": _share(english),
        "english_written": _share(own),
        "dangling": _share([dangling(text) for text in written]),
        "distinct_2": round(measures.distinct_2(written), 4),
        "cosine": round(float(sum(cosines)) / max(len(written), 1), 4),
    }
    missed = [
        f"{name} {found[name]:g} (gate: at {'most' if name == 'dangling' else 'least'} {getattr(gates, name):g})"
        for name in ("english", "dangling", "distinct_2", "cosine")
        if (found[name] > gates.dangling if name == "dangling" else found[name] < getattr(gates, name))
    ]
    _refuse("generator", missed, "more or better pairs in seeds.input, another base, or generator.by=teacher")
    return found


def _share(values: Sequence[bool]) -> float:
    return round(sum(values) / max(len(values), 1), 4)


def _refuse(role: str, missed: Sequence[str], mend: str) -> None:
    if missed:
        raise NotGood(
            f"the {role} is not good enough on held-out pairs: {', '.join(missed)}. What helps: {mend}. To use it all the same, "
            "set the gate lower by --config.gates.NAME=VALUE; the report says so"
        )


# --- forward ------------------------------------------------------------------------------------------------------------


def forward_records(rows: Sequence[Row]) -> dict[str, list[Record]]:
    """The pairs as they are; the template says in which language to answer."""
    return by_side((row, conversation("x_instruction_forward", row["lang"], _asked_and_said(row))) for row in rows)


def _asked_and_said(row: Row) -> list[Message]:
    return [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["response"]}]


def forward_answers(work: Work, model: Model, rows: Sequence[Row]) -> dict[str, list[str]]:
    """By pair's id what the forward model answers to its instruction; an answer that finds no end is cut at its last sentence."""
    config, found = work.config.rate, dict[str, list[str]]()
    questions = [forward_question(work, row) for row in rows]
    errors = work.config.generate.max_errors
    work.asker.ask(model, questions, title="answers of the forward model", wanted=len(rows), max_errors=errors)
    for row, question in zip(rows, questions, strict=True):
        answer = work.asker.answer(model, question)
        if answer and len(answer.text) >= config.forward_tokens // 100:
            found[row["id"]] = [work.packs[row["lang"]].normalise(answer.text)]
    return found


def forward_question(work: Work, row: Row) -> Question:
    """The instruction, with the answer's language for the template."""
    config, drawn = work.config.rate, random.Random(f"{work.config.seed} forward {row['id']}")
    fields = {
        "max_tokens": config.forward_tokens, "temperature": config.forward_temperature, "seed": drawn.getrandbits(31),
        "chat_template_kwargs": {"language": work.packs[row["lang"]].name},
    }  # fmt: skip
    return Question(row["id"], ({"role": "user", "content": row["instruction"]},), fields)


# --- evaluator ----------------------------------------------------------------------------------------------------------


def evaluator_records(work: Work, rows: Sequence[Row]) -> dict[str, list[Record]]:
    """Rating rows as questions with the level's letter for an answer."""
    return by_side(
        (row, conversation("x_instruction_evaluator", row["lang"], rating.training_messages(row, work.packs[row["lang"]])))
        for row in rows
    )


def score(
    work: Work, model: Model, rows: Callable[[], Iterator[Row]], *, title: str, wanted: int
) -> Iterator[tuple[Row, Scores | None]]:
    """Each row with the probabilities of the levels that the rater gives it; None where it gives none. `rows` is gone through
    twice.
    """
    by_votes = how_to_rate(work, model, rows) == "votes"
    each = work.config.rate.votes if by_votes else 1
    errors = work.config.generate.max_errors
    work.asker.ask(
        model, (q for row in rows() for q in _rating(work, row, by_votes)), title=title, wanted=each * wanted, max_errors=errors
    )
    for row in rows():
        answers = [work.asker.answer(model, question) for question in _rating(work, row, by_votes)]
        if by_votes:
            yield row, rating.vote([answer.text if answer else None for answer in answers])
        else:
            yield row, rating.probabilities(answers[0].raw) if answers[0] else None


def how_to_rate(work: Work, model: Model, rows: Callable[[], Iterator[Row]]) -> str:
    """logprobs, or votes where the model's endpoint gives none (found out by the first question, where the config does not say)."""
    wanted = work.config.rate.probabilities
    first = next(rows(), None)
    if wanted != "auto" or first is None:
        return "votes" if wanted == "votes" else "logprobs"
    [question] = _rating(work, first, by_votes=False)
    work.asker.ask(model, [question], title="does the rater give logprobs", wanted=1, max_errors=1.0, patient=True)
    answer = work.asker.answer(model, question)
    if answer and rating.probabilities(answer.raw):
        return "logprobs"
    votes = work.config.rate.votes
    work.say(f"{model.name} gives no logprobs: each score is the share of {votes} votes instead (rate.votes)")
    return "votes"


def _rating(work: Work, row: Row, by_votes: bool) -> list[Question]:
    asked = rating.question(row["instruction"], row["response"], work.packs[row["lang"]])
    samples = range(work.config.rate.votes) if by_votes else [0]
    return [
        Question(row["id"], asked, rating.score_fields(logprobs=not by_votes, sample=sample, seed=work.config.seed))
        for sample in samples
    ]


def check_evaluator(work: Work, model: Model, rows: Sequence[Row]) -> dict[str, Any]:
    """What the rater makes of held-out rating rows, by measures. Raises NotGood where a gate is missed."""
    held = [row for row in rows if row["side"] == "heldout"]
    scored = [
        (row, probs)
        for row, probs in score(work, model, lambda: iter(held), title="rater on held-out pairs", wanted=len(held))
        if probs
    ]
    found = rater_measures(scored) | {
        "unrated": len(held) - len(scored),
        "probabilities": how_to_rate(work, model, lambda: iter(held)),
    }
    _refuse(
        "evaluator", missed_by_rater(found, work.config.gates), "more pairs in seeds.input, another base, or evaluator.by=teacher"
    )
    return found


def rater_measures(scored: Sequence[tuple[Row, Scores]]) -> dict[str, Any]:
    """Macro-F1 in all and by language, calibration, and how far the score goes with the text's length within the levels."""
    truth, guess = [row["rating"] for row, _ in scored], [max(range(3), key=probs.__getitem__) for _, probs in scored]
    codes = sorted({row["lang"] for row, _ in scored})
    by_language = {}
    for code in codes:
        places = [k for k, (row, _) in enumerate(scored) if row["lang"] == code]
        by_language[code] = round(measures.macro_f1([truth[k] for k in places], [guess[k] for k in places]), 4)
    right = [one == other for one, other in zip(truth, guess, strict=True)]
    lengths, best = [float(len(row["response"])) for row, _ in scored], [probs[rating.BEST] for _, probs in scored]
    return {
        "rows": len(scored),
        "macro_f1": round(measures.macro_f1(truth, guess), 4),
        "macro_f1_language": by_language,
        "calibration": round(measures.calibration_error(right, [max(probs) for _, probs in scored]), 4),
        "length_correlation": round(measures.spearman(best, lengths), 4),
    }


def missed_by_rater(found: dict[str, Any], gates: GatesConfig) -> list[str]:
    """The gates that a rater misses, in words."""
    missed = []
    if not found["rows"]:
        return ["it gave no readable answer to any pair"]
    if found["macro_f1"] < gates.macro_f1:
        missed.append(f"macro-F1 {found['macro_f1']:g} (gate: at least {gates.macro_f1:g})")
    low = {code: value for code, value in found["macro_f1_language"].items() if value < gates.macro_f1_language}
    if low:
        missed.append(f"macro-F1 by language: {bullet(low)} (gate: at least {gates.macro_f1_language:g})")
    if found["calibration"] > gates.calibration:
        missed.append(f"calibration error {found['calibration']:g} (gate: at most {gates.calibration:g})")
    if abs(found["length_correlation"]) > gates.length_correlation:
        missed.append(
            f"score and length go together by {found['length_correlation']:g} (gate: at most {gates.length_correlation:g})"
        )
    return missed


def anchor_auc(work: Work, model: Model, anchor: Sequence[Row]) -> dict[str, float]:
    """By language the probability that the rater scores an anchor pair that people gave the best level above another one."""
    scored = [
        (row, probs)
        for row, probs in score(work, model, lambda: iter(anchor), title="rater on the anchor", wanted=len(anchor))
        if probs
    ]
    found = {}
    for code in work.languages:
        good = [probs[rating.BEST] for row, probs in scored if row["lang"] == code and row["rating"] == rating.BEST]
        bad = [probs[rating.BEST] for row, probs in scored if row["lang"] == code and row["rating"] != rating.BEST]
        value = measures.auc(good, bad)
        if value is None:
            raise NotGood(f"the rater gave the anchor pairs of {code} no readable answers, so nothing tells whether it is good")
        found[code] = round(value, 4)
    return found


def check_auc(found: dict[str, float], gates: GatesConfig) -> None:
    """Raises NotGood where the rater does no better than the gate against the anchor."""
    low = {code: value for code, value in found.items() if value < gates.min_auc}
    _refuse("evaluator", [f"AUC against the anchor: {bullet(low)} (gate: at least {gates.min_auc:g})"] if low else [],
            "look at the anchor, more pairs in seeds.input, another base, or evaluator.by=teacher")  # fmt: skip


def check_keep_rate(kept: dict[str, int], came: dict[str, int], low: float, high: float) -> list[str]:
    """Raises NotGood where the rater passes nearly everything or nearly nothing in all; says where it does in one language."""
    whole, passed = sum(came.values()), sum(kept.values())
    if not low <= passed / max(whole, 1) <= high:
        shares = ", ".join(f"{code} {percent(kept[code], came[code])}" for code in came)
        raise NotGood(
            f"the rater keeps {percent(passed, whole)} of {whole:,} documents ({shares}); "
            f"between {percent(low, 1)} and {percent(high, 1)} is expected of one that tells good from bad (rate.min_keep, "
            "rate.max_keep). Look at its scores in refine/, set rate.keep, or train it on more pairs"
        )
    return [
        f"{code}: the rater keeps {percent(kept[code], came[code])} of its documents, not {percent(low, 1)} to {percent(high, 1)}"
        for code in came
        if not low <= kept[code] / max(came[code], 1) <= high
    ]
