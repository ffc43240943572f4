"""How much each stage of the recipe will read, write and ask, before any of it runs: letters and requests, no hours and no money.

What they take is for launch/plan_x_instruction.py to say, which knows chips and prices; nothing here knows a tokenizer.
"""

from dataclasses import dataclass
from typing import Literal

from data_gen import UsageError
from data_gen.languages import ENGLISH
from data_gen.x_instruction import rating
from data_gen.x_instruction.config import SAMPLE, XInstructionConfig
from data_gen.x_instruction.models import TEACHER_GENERATOR
from data_gen.x_instruction.seed import TRANSLATE, read_pairs

# Of the published data in Urdu: letters of an answer and of an instruction. What a text of one's own has is not known beforehand.
ANSWER, INSTRUCTION = 1250, 108
PROMPT = 180  # letters of the authors' prompts around them
PAIRS = 3200  # of a seed, a language, where only the sample is named: what the size of the published files lets one guess
KEPT = 0.4  # of the documents, by the rater: those without go into the next round


@dataclass(frozen=True)
class StageWork:
    """The work of one stage. Letters are Unicode code points, in all: not of one request.

    role: whose model it is, generator, forward, evaluator or sft; teacher: an endpoint of others; cpu: no model at all.
    kind: `train`, by `recipe`; `answer`, requests to a model served on one's own chips, of the base that `recipe` names; `ask`,
    requests to the teacher; `cpu`, anything else.
    letters_in: of `train` all text of one epoch, prompts included (the recipe says how many epochs); otherwise of all prompts.
    letters_out: of all answers; a score is one token, for which 0 stands.
    note: how the numbers were got.
    """

    stage: str
    role: Literal["generator", "forward", "evaluator", "sft", "teacher", "cpu"]
    kind: Literal["train", "answer", "ask", "cpu"]
    recipe: str = ""
    letters_in: float = 0.0
    letters_out: float = 0.0
    requests: int = 0
    note: str = ""


def workload(config: XInstructionConfig, languages: tuple[str, ...] = ()) -> list[StageWork]:
    """The work of every stage, in their order; languages: some of the config's, () for all. What is not known is assumed and
    said.
    """
    codes = languages or config.languages
    many, pairs, said = len(codes), _pairs(config, codes), len(rating.ASKED)
    counted = f"{pairs:,} pairs a language" + (" (assumed: the sample alone is named)" if SAMPLE in config.seeds.input else "")
    documents, samples = config.generate.documents, config.generate.samples
    pair, pairs = ANSWER + INSTRUCTION + PROMPT, many * pairs
    work = [_translated(config, pairs), StageWork("seed", "cpu", "cpu", note="minutes; lingua and chrF")]
    work = [one for one in work if one.requests or one.kind == "cpu"]
    trained = config.generator.by == "trained"
    if trained:
        work.append(StageWork("train_generator", "generator", "train", config.generator.recipe, pairs * pair, note=counted))
    work.append(StageWork("train_generator", "forward", "train", config.forward.recipe, pairs * pair, note=counted))
    asked = f"{documents:,} documents a language, {samples} samples"
    work.append(_generated(config, "generate", many * documents * samples, asked))
    work.append(
        StageWork(
            "rate_data", "forward", "answer", config.forward.recipe, pairs * (INSTRUCTION + PROMPT), pairs * ANSWER, pairs,
            "one answer a pair",
        )
    )  # fmt: skip
    judged = said + INSTRUCTION + ANSWER
    if config.evaluator.by == "trained":
        work.append(
            StageWork(
                "train_evaluator", "evaluator", "train", config.evaluator.recipe, 3 * pairs * judged, note="three levels a pair"
            )
        )
    work.append(_rated(config, "refine", many * documents * samples, judged, "every candidate"))
    again = round(many * documents * (1 - KEPT)) * samples
    for number in range(1, config.refine.rounds + 1):
        if trained:
            more = pairs * (1 + config.refine.new_pairs)
            work.append(
                StageWork(f"round {number}", "generator", "train", config.generator.recipe, more * pair, note="seed and kept")
            )
        work.append(_generated(config, f"round {number}", again, f"the documents not kept, {1 - KEPT:.0%} assumed"))
        if config.evaluator.by == "trained":
            more = pairs * (3 + config.refine.new_high)
            work.append(
                StageWork(f"round {number}", "evaluator", "train", config.evaluator.recipe, more * judged, note="and kept ones")
            )
        candidates = many * documents * samples + number * again
        work.append(_rated(config, f"round {number}", candidates, judged, "every candidate again"))
    final = many * config.diversify.target
    work.append(StageWork("diversify", "cpu", "cpu", note=f"minutes; {config.diversify.embedder}"))
    if config.output.native_share:
        native = round(final * config.output.native_share)
        work.append(
            StageWork(
                "audit", "teacher", "ask", "", native * (INSTRUCTION + len(TRANSLATE)), native * INSTRUCTION, native, "translations"
            )
        )
    arms = 1 + bool(config.sft.translated) + bool(config.sft.distilled)
    runs = arms + (config.sft.single and many > 1)
    work.append(
        StageWork(
            "sft",
            "sft",
            "train",
            config.sft.recipe,
            runs * final * pair,
            note=f"{arms} arm{'s' * (arms > 1)}, {final:,} samples each",
        )
    )
    answers = many * config.sft.answers * runs
    work.append(
        StageWork(
            "eval",
            "sft",
            "answer",
            config.sft.recipe,
            answers * (INSTRUCTION + PROMPT),
            answers * ANSWER,
            answers,
            "held-out instructions",
        )
    )
    return work


def _pairs(config: XInstructionConfig, codes: tuple[str, ...]) -> int:
    """Of the seed, a language: those of its files where they are here."""
    try:
        found = read_pairs([path for path in config.seeds.input if path != SAMPLE], "seed", codes)
    except UsageError:
        found = {}
    most = max((len(rows) for code, rows in found.items() if code != ENGLISH), default=0) + len(found.get(ENGLISH, []))
    return most if SAMPLE not in config.seeds.input and most else PAIRS


def _translated(config: XInstructionConfig, pairs: int) -> StageWork:
    """There and back, where the seed is in English."""
    try:
        english = read_pairs([path for path in config.seeds.input if path != SAMPLE], "seed", config.languages).get(ENGLISH, [])
    except UsageError:
        english = []
    asked = 2 * pairs * bool(english)
    return StageWork(
        "seed", "teacher", "ask", "", asked * (ANSWER + len(TRANSLATE)), asked * ANSWER, asked, "translated there and back"
    )


def _generated(config: XInstructionConfig, stage: str, requests: int, note: str) -> StageWork:
    if config.generator.by == "trained":
        asked = requests * (ANSWER + PROMPT)
        return StageWork(stage, "generator", "answer", config.generator.recipe, asked, requests * INSTRUCTION, requests, note)
    shown = 4 * ANSWER + 3 * INSTRUCTION + len(TEACHER_GENERATOR)
    return StageWork(stage, "teacher", "ask", "", requests * shown, requests * INSTRUCTION, requests, note)


def _rated(config: XInstructionConfig, stage: str, requests: int, judged: int, note: str) -> StageWork:
    if config.evaluator.by == "trained":
        return StageWork(stage, "evaluator", "answer", config.evaluator.recipe, requests * judged, 0, requests, note)
    return StageWork(stage, "teacher", "ask", "", requests * judged, 0, requests, note)
