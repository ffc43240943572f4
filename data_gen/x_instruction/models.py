"""The three models: what each is trained on, what it is asked, and the gates that it passes before it is used.

generator   native text → the English instruction that it answers     (the authors' prompt, or few examples for a teacher)
forward     English instruction → native answer; only the middle level of the rating data needs it
evaluator   instruction and answer → one of three levels
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_gen import UsageError
from data_gen.ask import Answer, Message, Model, Question
from data_gen.language_id import load_identifier, wrong_language
from data_gen.languages import ENGLISH, Pack
from data_gen.record import Record
from data_gen.x_instruction import measures, rating
from data_gen.x_instruction.config import GatesConfig
from data_gen.x_instruction.diversify import embed
from data_gen.x_instruction.instruction_rules import dangling, is_english
from data_gen.x_instruction.stage import Row
from data_gen.x_instruction.work import NotGood, Work, by_side, conversation, named_values

GENERATOR_GATES = ("english", "dangling", "distinct_2", "cosine")
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


def generator_question(work: Work, row: Row, sample: int, shown: Sequence[Row], round_number: int = 0) -> Question:
    """What the generator is asked about a text, once for each sample and round. shown: pairs of the language, for a teacher
    alone.
    """
    again = f" {round_number}" if round_number else ""
    config, drawn = work.config.generate, random.Random(f"{work.config.seed} generate {row['id']} {sample}{again}")
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
    by_language = {code: [row for row in shown if row["lang"] == code] for code in work.languages}
    questions = [generator_question(work, row, 0, by_language[row["lang"]]) for row in held]
    work.asker.ask(model, questions, title="generator on held-out pairs", wanted=len(held))
    answers = [work.asker.answer(model, question) for question in questions]
    found = {
        code: _generator_measures(work, pack, [(row, a) for row, a in zip(held, answers, strict=True) if row["lang"] == code])
        for code, pack in work.packs.items()
    }
    missed = [
        f"{name} of {code} {facts[name]:g} (gate: at {'most' if name == 'dangling' else 'least'} {getattr(gates, name):g})"
        for code, facts in found.items()
        for name in GENERATOR_GATES
        if (facts[name] > gates.dangling if name == "dangling" else facts[name] < getattr(gates, name))
    ]
    _refuse("generator", missed, "more or better pairs in seeds.input, another base, or generator.by=teacher")
    return found


def _generator_measures(work: Work, pack: Pack, pairs: Sequence[tuple[Row, Answer | None]]) -> dict[str, float]:
    """Of one language. An answer that did not come is no English one."""
    answered = [(row, instruction_of(answer)) for row, answer in pairs if answer]
    written = [text for _, text in answered]
    vectors = embed([*(row["instruction"] for row, _ in answered), *written], work, "held-out instructions")
    cosines = (vectors[: len(written)] * vectors[len(written) :]).sum(axis=1) if written else []
    return {
        "pairs": len(pairs),
        "english": round(sum(is_english_beside(text, pack) for text in written) / max(len(pairs), 1), 4),
        "english_written": _share([is_english_beside(row["instruction"], pack) for row, _ in pairs]),
        "dangling": _share([dangling(text) for text in written]),
        "distinct_2": round(measures.distinct_2(written), 4),
        "cosine": round(float(sum(cosines)) / max(len(written), 1), 4),
    }


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


def forward_answers(work: Work, model: Model, rows: Sequence[Row]) -> dict[str, str]:
    """By pair's id what the forward model answers to its instruction, as far as it comes; pairs that it does not answer are
    missing.
    """
    found = dict[str, str]()
    questions = [forward_question(work, row) for row in rows]
    work.asker.ask(model, questions, title="answers of the forward model", wanted=len(rows))
    for row, question in zip(rows, questions, strict=True):
        answer = work.asker.answer(model, question)
        if answer and answer.text:
            found[row["id"]] = work.packs[row["lang"]].normalise(answer.text)
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
) -> Iterator[tuple[Row, rating.Scores | None]]:
    """Each row with the probabilities of the levels that the rater gives it; None where it gives none. `rows` is gone through
    twice.
    """
    votes = work.config.rate.votes if how_to_rate(work, model) == "votes" else 0

    def questions(row: Row) -> list[Question]:
        return _rating(work, model, row, work.packs[row["lang"]], votes)

    work.asker.ask(model, (q for row in rows() for q in questions(row)), title=title, wanted=max(1, votes) * wanted)
    for row in rows():
        answers = [work.asker.answer(model, question) for question in questions(row)]
        if votes:
            yield row, rating.vote([answer.text if answer else None for answer in answers])
        else:
            yield row, rating.probabilities(answers[0].raw) if answers[0] else None


def how_to_rate(work: Work, model: Model) -> str:
    """logprobs, or votes where the model's endpoint refuses them or gives none; found out once a model, by a short pair.

    Raises UsageError where that cannot be found out.
    """
    wanted = work.config.rate.probabilities
    if wanted != "auto":
        return wanted
    if model.key not in work.rated_by:
        pack = next(iter(work.packs.values()))
        [question] = _rating(
            work, model, {"id": "trial", "instruction": f"Write the name of {pack.name}.", "response": pack.native_name}, pack
        )
        work.asker.ask(model, [question], title="does the rater give logprobs", wanted=1, max_errors=1.0, patient=True)
        answer, error = work.asker.answer(model, question), work.asker.error(model, question)
        if answer is None and not error.startswith("HTTP 4"):
            raise UsageError(
                f"whether {model.name} gives logprobs cannot be found out: {error or 'no answer'}. Give the same command"
            )
        # A model of one's own that says nothing at all has none to give; its server would.
        gives = answer is not None and (model.own or rating.gives_logprobs(answer.raw))
        work.rated_by[model.key] = "logprobs" if gives else "votes"
        if not gives:
            votes = work.config.rate.votes
            work.say(f"{model.name} gives no logprobs: each score is the share of {votes} votes instead (rate.votes)")
    return work.rated_by[model.key]


def _rating(work: Work, model: Model, row: Row, pack: Pack, votes: int = 0) -> list[Question]:
    """One question for logprobs, or so many votes."""
    asked, seed = rating.question(row["instruction"], row["response"], pack), work.config.seed
    if not votes:
        return [Question(row["id"], asked, rating.score_fields(logprobs=True))]
    return [
        Question(row["id"], asked, rating.score_fields(logprobs=False, sample=sample, seed=seed, own=model.own), sample)
        for sample in range(votes)
    ]


def check_evaluator(work: Work, model: Model, rows: Sequence[Row]) -> dict[str, Any]:
    """What the rater makes of held-out rating rows, by measures. Raises NotGood where a gate is missed."""
    held = [row for row in rows if row["side"] == "heldout"]
    scored = _all_rated(work, model, held, "rater on held-out pairs")
    found = rater_measures(scored) | {"unrated": len(held) - len(scored), "probabilities": how_to_rate(work, model)}
    _refuse(
        "evaluator", missed_by_rater(found, work.config.gates), "more pairs in seeds.input, another base, or evaluator.by=teacher"
    )
    return found


def _all_rated(work: Work, model: Model, rows: Sequence[Row], title: str) -> list[tuple[Row, rating.Scores]]:
    """The rows with their scores. Raises NotGood where too many of a language have none: the others would say little of it."""
    scored = [(row, found) for row, found in score(work, model, lambda: iter(rows), title=title, wanted=len(rows)) if found]
    for code in work.languages:
        wanted, rated = sum(row["lang"] == code for row in rows), sum(row["lang"] == code for row, _ in scored)
        if wanted - rated > work.config.max_errors * wanted:
            raise NotGood(
                f"{title}: {wanted - rated} of {wanted} pairs of {code} got no readable answer, more than max_errors="
                f"{work.config.max_errors:g}: the rater does not answer A, B or C. Train it on more "
                "pairs, or take another base or teacher"
            )
    return scored


def rater_measures(scored: Sequence[tuple[Row, rating.Scores]]) -> dict[str, Any]:
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
    if found["macro_f1"] < gates.macro_f1:
        missed.append(f"macro-F1 {found['macro_f1']:g} (gate: at least {gates.macro_f1:g})")
    low = {code: value for code, value in found["macro_f1_language"].items() if value < gates.macro_f1_language}
    if low:
        missed.append(f"macro-F1 by language: {named_values(low)} (gate: at least {gates.macro_f1_language:g})")
    if found["calibration"] > gates.calibration:
        missed.append(f"calibration error {found['calibration']:g} (gate: at most {gates.calibration:g})")
    if abs(found["length_correlation"]) > gates.length_correlation:
        missed.append(
            f"score and length go together by {found['length_correlation']:g} (gate: at most {gates.length_correlation:g})"
        )
    return missed


def anchor_auc(work: Work, model: Model, anchor: Sequence[Row]) -> dict[str, float]:
    """By language the probability that the rater scores an anchor pair that people gave the best level above another one."""
    scored, found = _all_rated(work, model, anchor, "rater on the anchor"), {}
    for code in work.languages:
        good = [probs[rating.BEST] for row, probs in scored if row["lang"] == code and row["rating"] == rating.BEST]
        bad = [probs[rating.BEST] for row, probs in scored if row["lang"] == code and row["rating"] != rating.BEST]
        found[code] = round(measures.auc(good, bad) or 0.0, 4)  # both are there: anchor_rows and _all_rated see to it
    return found


def check_auc(found: dict[str, float], gates: GatesConfig) -> None:
    """Raises NotGood where the rater does no better than the gate against the anchor."""
    low = {code: value for code, value in found.items() if value < gates.min_auc}
    _refuse("evaluator", [f"AUC against the anchor: {named_values(low)} (gate: at least {gates.min_auc:g})"] if low else [],
            "look at the anchor, more pairs in seeds.input, another base, or evaluator.by=teacher")  # fmt: skip
