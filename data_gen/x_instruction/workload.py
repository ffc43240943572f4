"""How much each stage of the recipe will read, write and ask, before any of it runs: letters and requests, no hours and no money.

What they take is for launch/plan_x_instruction.py to say, which knows chips and prices; nothing here knows a tokenizer.
"""

from dataclasses import dataclass
from typing import Literal

from data_gen import UsageError
from data_gen.endpoint import OFFLINE
from data_gen.languages import ENGLISH
from data_gen.x_instruction import rating
from data_gen.x_instruction.config import SAMPLE, XInstructionConfig
from data_gen.x_instruction.models import SHOWN, TEACHER_GENERATOR
from data_gen.x_instruction.seed import TRANSLATE, read_pairs

# Of the published data in Urdu: letters of an answer and of an instruction. What a text of one's own has is not known beforehand.
ANSWER, INSTRUCTION = 1250, 108
PROMPT = 180  # letters of the authors' prompts around them
PAIRS = 3200  # of a seed, a language, where only the sample is named: what the size of the published files lets one guess
Role = Literal["generator", "forward", "evaluator", "sft", "teacher", "cpu"]
Kind = Literal["train", "answer", "ask", "cpu"]
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
    role: Role
    kind: Kind
    recipe: str = ""
    letters_in: float = 0.0
    letters_out: float = 0.0
    requests: int = 0
    note: str = ""


def workload(config: XInstructionConfig, languages: tuple[str, ...] = ()) -> list[StageWork]:
    """The work of every stage, in their order; languages: some of the config's, () for all. What nobody knows is assumed."""
    codes = languages or config.languages
    many, (native, english) = len(codes), _seed(config, codes)
    counted = f"{native + english:,} pairs a language" + " (assumed: the sample is named)" * (SAMPLE in config.seeds.input)
    pairs, documents = many * (native + english), many * config.generate.documents
    first, again = documents * config.generate.samples, round(documents * (1 - KEPT)) * config.generate.samples
    pair, judged = ANSWER + INSTRUCTION + PROMPT, len(rating.ASKED) + INSTRUCTION + ANSWER
    final, arms = many * config.diversify.target, 1 + bool(config.sft.translated) + bool(config.sft.distilled)
    runs = arms + (config.sft.single and many > 1)
    back = 2 * many * english
    translated = round(final * config.output.native_share)

    def train(stage: str, role: Role, letters: float, note: str) -> list[StageWork]:
        made_here = role == "sft" or config.role(role).by == "trained"
        return [StageWork(stage, role, "train", _recipe(config, role), letters, note=note)] if made_here else []

    def ask(stage: str, role: Role, requests: int, letters: float, out: float, note: str) -> list[StageWork]:
        kind: Kind = "ask" if role == "teacher" else "answer"
        recipe = "" if role == "teacher" else _recipe(config, role)
        return [StageWork(stage, role, kind, recipe, requests * letters, requests * out, requests, note)] if requests else []

    def generate(stage: str, requests: int, note: str) -> list[StageWork]:
        if config.generator.by == "trained":
            return ask(stage, "generator", requests, ANSWER + PROMPT, INSTRUCTION, note)
        return ask(
            stage, "teacher", requests, (SHOWN + 1) * ANSWER + SHOWN * INSTRUCTION + len(TEACHER_GENERATOR), INSTRUCTION, note
        )

    def rate(stage: str, requests: int, new: int) -> list[StageWork]:
        """A trained rater is another one in every round; a teacher's answers are there already."""
        if config.evaluator.by == "trained":
            return ask(stage, "evaluator", requests, judged, 0, "every candidate so far")
        return ask(stage, "teacher", new, judged, 0, "every new candidate")

    work = ask("seed", "teacher", back, ANSWER + len(TRANSLATE), ANSWER, "translated there and back")
    work.append(StageWork("seed", "cpu", "cpu", note="minutes; lingua and chrF"))
    work += train("train_generator", "generator", pairs * pair, counted) + train(
        "train_generator", "forward", pairs * pair, counted
    )
    work += generate("generate", first, f"{config.generate.documents:,} documents a language, {config.generate.samples} samples")
    work += ask("rate_data", "forward", pairs, INSTRUCTION + PROMPT, ANSWER, "one answer a pair")
    work += train("train_evaluator", "evaluator", 3 * pairs * judged, "three levels a pair")
    work += rate("refine", first, first)
    for number in range(1, config.refine.rounds + 1):
        stage = f"round {number}"
        work += train(stage, "generator", pairs * (1 + config.refine.new_pairs) * pair, "seed pairs and kept samples")
        work += generate(stage, again, f"the documents not kept, {1 - KEPT:.0%} assumed")
        work += train(stage, "evaluator", pairs * (3 + config.refine.new_high) * judged, "three levels a pair, and kept samples")
        work += rate(stage, first + number * again, again)
    work.append(StageWork("diversify", "cpu", "cpu", note=f"minutes; {config.diversify.embedder}"))
    work += ask("audit", "teacher", translated, INSTRUCTION + len(TRANSLATE), INSTRUCTION, "instructions into the language")
    work += train("sft", "sft", runs * final * pair, f"{arms} arm{'s' * (arms > 1)}, {final:,} samples each")
    if config.teacher.base_url != OFFLINE:
        asked = many * config.sft.answers
        work += ask("eval", "teacher", asked, INSTRUCTION + len(TRANSLATE), INSTRUCTION, "held-out instructions into the language")
    work += ask("eval", "sft", many * config.sft.answers * runs, INSTRUCTION + PROMPT, ANSWER, "held-out instructions")
    return work


def _recipe(config: XInstructionConfig, role: str) -> str:
    return config.sft.recipe if role == "sft" else config.role(role).recipe


def _seed(config: XInstructionConfig, codes: tuple[str, ...]) -> tuple[int, int]:
    """Pairs a language that come in it, the most of any, and pairs in English; (PAIRS, 0) where the sample stands for them."""
    if SAMPLE in config.seeds.input:
        return PAIRS, 0
    try:
        found = read_pairs(config.seeds.input, "seed", codes)
    except UsageError:  # the files are not here yet
        return PAIRS, 0
    return max((len(rows) for code, rows in found.items() if code != ENGLISH), default=0), len(found.get(ENGLISH, []))
