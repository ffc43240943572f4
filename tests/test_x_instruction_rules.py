"""Measures, rules of instructions, the config and the planned work of the X-Instruction recipe, one by one."""

import dataclasses
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_gen import UsageError
from data_gen.endpoint import TeacherConfig
from data_gen.languages import load_pack
from data_gen.x_instruction import config as configs
from data_gen.x_instruction import measures, seed
from data_gen.x_instruction.config import GenerateConfig, RoleConfig, SeedConfig, XInstructionConfig
from data_gen.x_instruction.instruction_rules import copied_share, dangling, instruction_reason, missing_input
from data_gen.x_instruction.workload import workload
from tests.x_instruction_material import PAIR, TERMS, TEXT, UR, jsonl

# --- measures -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b c", "a b d"], 3 / 4),
        (["a b", "a b", "a b"], 1 / 3),
        (["a a a a"], 1 / 3),
        (["one", "two"], 0.0),  # no pair within a text, and none across two
        ([], 0.0),
        (["میں گھر گیا", "میں گھر آیا"], 3 / 4),
        (["Rain, rain!"], 1.0),
    ],
)
def test_distinct_2(texts: list[str], expected: float) -> None:
    assert measures.distinct_2(texts) == pytest.approx(expected)


def f1(truth: Sequence[int], guess: Sequence[int], label: int) -> float:
    hits = sum(a == b == label for a, b in zip(truth, guess, strict=True))
    return 2 * hits / (truth.count(label) + guess.count(label)) if hits else 0.0


def test_macro_f1_is_the_mean_of_each_class() -> None:
    rng = random.Random(1)
    for _ in range(20):
        truth, guess = ([rng.randrange(3) for _ in range(30)] for _ in range(2))
        expected = sum(f1(truth, guess, label) for label in set(truth)) / len(set(truth))
        assert measures.macro_f1(truth, guess) == pytest.approx(expected)
    assert measures.macro_f1([0, 1, 2], [2, 2, 2]) == pytest.approx((0 + 0 + 0.5) / 3)
    assert measures.macro_f1([2, 2], [2, 2]) == 1 and measures.macro_f1([], []) == 0


@pytest.mark.parametrize(
    ("right", "confidence", "expected"),
    [
        ([True, True, True, False], [0.75] * 4, 0.0),
        ([True, False], [1.0, 1.0], 0.5),
        ([False], [0.9], 0.9),
        # Two bins of two: |1/2 - 0.35| and |2/2 - 0.9|, of which each is half.
        ([True, False, True, True], [0.32, 0.38, 0.91, 0.89 + 0.02 - 0.02], None),
        ([True, True, False, False], [0.95, 0.95, 0.95, 0.05], (abs(2 / 3 - 0.95) * 3 + 0.05) / 4),
        ([], [], 0.0),
    ],
)
def test_calibration_error(right: list[bool], confidence: list[float], expected: float | None) -> None:
    """Against the definition: bin by bin, with the edges written out."""
    by_hand = 0.0
    for low in range(10):
        inside = [k for k, sure in enumerate(confidence) if low / 10 <= sure and (sure < (low + 1) / 10 or low == 9)]
        if inside:
            gap = abs(sum(right[k] for k in inside) / len(inside) - sum(confidence[k] for k in inside) / len(inside))
            by_hand += gap * len(inside) / len(right)
    assert measures.calibration_error(right, confidence) == pytest.approx(by_hand)
    if expected is not None:
        assert by_hand == pytest.approx(expected)


def ranks(values: Sequence[float]) -> np.ndarray:
    """Of equal values the mean of their ranks."""
    found = np.asarray(values)
    return np.array([((found < one).sum() + (found <= one).sum() + 1) / 2 for one in found])


def test_spearman_is_the_correlation_of_ranks() -> None:
    rng = random.Random(2)
    for _ in range(20):
        one, other = ([float(rng.randrange(6)) for _ in range(25)] for _ in range(2))
        assert measures.spearman(one, other) == pytest.approx(np.corrcoef(ranks(one), ranks(other))[0, 1])
    assert measures.spearman([1, 2, 3], [1, 8, 27]) == pytest.approx(1) and measures.spearman(
        [1, 2, 3], [3, 2, 1]
    ) == pytest.approx(-1)
    assert measures.spearman([1, 1, 1], [1, 2, 3]) == 0 == measures.spearman([], [])


def test_auc_counts_pairs_and_ties_half() -> None:
    rng = random.Random(3)
    for _ in range(20):
        good, bad = [rng.randrange(5) / 4 for _ in range(7)], [rng.randrange(5) / 4 for _ in range(9)]
        pairs = [(one > other) + (one == other) / 2 for one in good for other in bad]
        assert measures.auc(good, bad) == pytest.approx(sum(pairs) / len(pairs))
    assert measures.auc([0.9], [0.1]) == 1 and measures.auc([0.1], [0.9]) == 0 and measures.auc([0.5], [0.5]) == 0.5
    assert measures.auc([], [0.1]) is None is measures.auc([0.1], [])


@pytest.mark.parametrize("case", ["separable", "unrelated", "two_of_three", "all_the_same_length"])
def test_length_accuracy(case: str) -> None:
    """Of a thousand a level, in ten parts of 300: a third where lengths tell nothing, and where they tell all, 1 but for the two
    parts that a border between levels goes through, which have 200 of one level and 100 of the next.
    """
    rng = random.Random(4)
    levels = [level for level in range(3) for _ in range(1000)]
    rng.shuffle(levels)
    lengths = {
        "separable": [rng.randrange(100) + 100 * level for level in levels],
        "unrelated": [rng.randrange(1000) for _ in levels],
        "two_of_three": [rng.randrange(100) + 100 * (level == 2) for level in levels],
        "all_the_same_length": [50 for _ in levels],
    }[case]
    whole = {"separable": (8 * 1 + 2 * 2 / 3) / 10, "two_of_three": (6 * 1 / 2 + 1 / 3 + 3 * 1) / 10}
    assert measures.length_accuracy(lengths, levels) == pytest.approx(whole.get(case, 1 / 3), abs=0.04)
    assert measures.length_accuracy([], []) == 0


def test_length_accuracy_is_measured_on_other_samples_than_it_is_learnt_on() -> None:
    """Of few samples too it is a third in the mean; learnt and measured on the same ones it would be far above."""
    rng = random.Random(11)
    samples = [([rng.randrange(10**6) for _ in range(60)], [rng.randrange(3) for _ in range(60)]) for _ in range(300)]
    drawn = [measures.length_accuracy(lengths, levels) for lengths, levels in samples]
    assert sum(drawn) / len(drawn) == pytest.approx(1 / 3, abs=0.03)


def test_entropy() -> None:
    assert measures.entropy([5, 5]) == pytest.approx(1) == measures.entropy([3, 3, 3])
    assert measures.entropy([10, 0]) == 0 == measures.entropy([10]) == measures.entropy([]) == measures.entropy([0, 0])
    half = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))  # of two clusters in bits, and their most is one bit
    assert measures.entropy([1, 3]) == pytest.approx(half)
    assert measures.entropy([1, 3, 0, 0]) == pytest.approx(half / 2), "empty clusters count in the most that there could be"


def test_mean_and_deviation() -> None:
    assert measures.mean_sd([2, 4, 4, 4, 5, 5, 7, 9]) == {"mean": 5.0, "sd": 2.0}
    assert measures.mean_sd([]) == {"mean": 0.0, "sd": 0.0}


# --- rules of instructions ----------------------------------------------------------------------------------------------

GOOD = [
    "Explain why Lahore was important to the Mughal emperors.",
    "List the steps of writing an article about the river Indus.",
    "Explain what a data table is.",
    "Describe the picture that children paint on Eid.",
    "What are the main sights of Lahore?",
    "Write a short story about a girl who finds a kite on the roof.",
    "How is mango pickle made at home? Give the ingredients too.",
    "Summarise the history of the Badshahi Mosque in three sentences.",
    "Summarize the plot of Heer Ranjha.",
    "Compare goats and sheep as farm animals.",
    "Give five tips for learning to ride a bicycle.",
    "Write a letter to the editor about broken street lights.",
    "What should be written in a news report about a flood?",
    "How does a newspaper choose the picture on its front page?",
    "Explain how a library sorts its books.",
    "Tell the story of the thirsty crow.",
    "How do I correct a mistake on my identity card?",
    "Suggest a speech for a retiring teacher.",
    "Translate 'Good morning, how are you?' for a traveller.",
    "Explain the difference between a poem and a song.",
    "What is the best way to store onions below ground?",
    "Which documents are needed for a passport?",
    "Write a conversation between a shopkeeper and a customer.",
    "How does video help nurses learn?",
    "What does a chart of monthly rainfall show farmers?",
    "Explain the information that a bus ticket holds.",
    "Who was Allama Iqbal and what did he write?",
]
# Good ones too, with words that the rules look for in another sense.
HARD = [
    "Describe the services provided by a village post office.",
    "Explain the benefits given to retired teachers in Pakistan.",
    "What is the temperature below which water freezes?",
    "List the symptoms that appear in the weeks following a dog bite.",
    "Describe the support provided by neighbours after a flood.",
    "Explain the history of the video game.",
    "How does the shutter of a camera make a click?",
    "Explain how to right-click with a mouse.",
    "Rewrite the fable of the thirsty crow so that the crow fails.",
    "What happens to the land above and below the dam?",
]


@pytest.mark.parametrize("instruction", GOOD)
def test_good_instructions_stay(instruction: str) -> None:
    assert instruction_reason(instruction, TEXT, UR, GenerateConfig()) is None


@pytest.mark.parametrize("instruction", HARD)
def test_good_instructions_with_words_that_the_rules_look_for_stay(instruction: str) -> None:
    assert instruction_reason(instruction, TEXT, UR, GenerateConfig()) is None


@pytest.mark.parametrize(("kind", "code"), itertools.product(["seed", "anchor"], ["ur", "hi"]))
def test_what_people_wrote_stays(kind: str, code: str) -> None:
    """Of the shipped pairs: what the generator is to learn must pass what its own instructions must pass."""
    pairs = seed.read_pairs(["sample"], kind, [code])[code]
    pack, rules = load_pack(code), GenerateConfig()
    found = {row["instruction"]: instruction_reason(row["instruction"], row["response"], pack, rules) for row in pairs}
    assert len(pairs) >= 48 and {said: why for said, why in found.items() if why} == {}


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Explain.", "too_short"),
        ("", "too_short"),
        ("Explain how rivers form. " * 20, "too_long"),
        ("Summarise the article above.", "dangling"),
        ("Summarize the following passage in two lines.", "dangling"),
        ("What does the author say in the passage about Lahore?", "dangling"),
        ("What is shown in the picture?", "dangling"),
        ("According to the text, who built the fort?", "dangling"),
        ("Answer the questions based on the given information.", "dangling"),
        ("List the places mentioned above.", "dangling"),
        ("Watch this video and say what you learnt.", "dangling"),
        ("Read the poem below and explain it.", "dangling"),
        ("Describe the attached image.", "dangling"),
        ("Explain what https://example.com says about Lahore.", "dangling"),
        ("Find out more at www.example.com about forts.", "dangling"),
        ("Click here to learn about the fort.", "dangling"),
        ("Translate the sentence.", "missing_input"),
        ("Please rewrite it in a better style.", "missing_input"),
        ("Paraphrase in simple words.", "missing_input"),
        ("Proofread for spelling.", "missing_input"),
        ("Fix the errors and say why.", "missing_input"),
        ("Find a link about the fort of Lahore.", "missing_input"),
        ("Summarize the text.", "missing_input"),
        ("Write about Lahore in Urdu.", "names_language"),
        ("Answer this in URDU: where is Lahore?", "names_language"),
        ("Tell me about لاہور and its sights.", "own_script"),
        ("लाहौर के बारे में बताइए और लिखिए।", "not_english"),
        ("لاہور کے بارے میں بتائیں اور لکھیں۔", "own_script"),
    ],
)
def test_each_reason_against_an_instruction(instruction: str, reason: str) -> None:
    assert instruction_reason(instruction, TEXT, UR, GenerateConfig()) == reason


@pytest.mark.parametrize("instruction", ["Translate into Urdu.", "Translate the sentence into Hindi please.", "Translate to Urdu"])
def test_a_translation_of_nothing_goes(instruction: str) -> None:
    """For one reason or the other."""
    assert instruction_reason(instruction, TEXT, UR, GenerateConfig()) in ("missing_input", "names_language")
    assert missing_input(instruction)


@pytest.mark.parametrize(
    "instruction",
    ["Translate 'Good day to you'.", "Correct: She go to school yesterday.", "Rewrite “the boy eats rice” in the past tense."],
)
def test_an_input_that_is_there_is_not_missed(instruction: str) -> None:
    assert not missing_input(instruction) and not dangling(instruction)


def test_the_bounds_of_an_instruction_belong_to_it() -> None:
    rules = GenerateConfig(min_instruction=12, max_instruction=20)
    assert [instruction_reason("How? " + "a" * more, TEXT, UR, rules) for more in (6, 7, 15, 16)] == [
        "too_short",
        None,
        None,
        "too_long",
    ]


def test_an_instruction_copied_from_a_text_in_latin_letters() -> None:
    pack = load_pack("tr")
    text = "Lahor şehri Pencap eyaletinin başkentidir, bahçeleri güzeldir. Explain how the old city of Lahore was built."
    copy = "Explain how the old city of Lahore was built."
    assert instruction_reason(copy, text, pack, GenerateConfig()) == "copied"
    half = "Explain how the old city grew, and name four of its gates and markets too."
    assert instruction_reason(half, text, pack, GenerateConfig()) is None
    assert copied_share(copy, text) == 1 and copied_share("Explain how", text) == 0


def test_copied_share_against_a_second_count() -> None:
    rng = random.Random(5)
    words = "rain bread school river market letter".split()
    for _ in range(30):
        one, other = (" ".join(rng.choices(words[:3], k=rng.randint(3, 30))) for _ in range(2))
        runs = [tuple(one.split()[k : k + 5]) for k in range(len(one.split()) - 4)]
        there = {tuple(other.split()[k : k + 5]) for k in range(len(other.split()) - 4)}
        assert copied_share(one, other) == pytest.approx(sum(run in there for run in runs) / len(runs) if runs else 0)


# --- config --------------------------------------------------------------------------------------------------------------

SHARES = {
    "seeds": ["heldout_share", "min_confidence", "min_yield"], "generate": ["max_news_share", "max_copied"],
    "rate": ["keep", "max_keep", "min_keep"], "refine": ["max_fall", "min_move"], "diversify": ["max_cosine"],
    "output": ["answer_in", "native_share", "system_share", "max_wrong_language"],
    "gates": [one.name for one in dataclasses.fields(configs.GatesConfig)],
}  # fmt: skip
COUNTS = {
    "seeds": ["max_letters", "min_heldout"], "generate": ["documents", "max_tokens", "max_instruction", "min_letters"],
    "rate": ["at_least", "forward_tokens", "votes", "cap"], "diversify": ["dimensions", "clusters", "target"],
    "output": ["shard_records"], "sft": ["answers", "answer_tokens"],
}  # fmt: skip
WRONG: list[tuple[str, float]] = [
    *((f"{part}.{name}", value) for part, names in SHARES.items() for name in names for value in (-0.01, 1.01, float("nan"))),
    *((f"{part}.{name}", 0) for part, names in COUNTS.items() for name in names),
    ("serve_batch_size", 0), ("serve_batch_size", 5000), ("seeds.heldout_rows", -1), ("seeds.min_chrf", -1),
    ("seeds.min_chrf", 101), ("generate.samples", 0), ("generate.samples", 17), ("generate.temperature", -1),
    ("generate.temperature", 2.1), ("generate.top_p", 0), ("generate.top_p", 1.1), ("generate.max_letters", 199),
    ("generate.min_instruction", 0), ("generate.min_instruction", 401), ("rate.forward_temperature", 2.1),
    ("rate.floor", -1), ("refine.rounds", -1), ("refine.rounds", 5), ("refine.new_high", -1), ("refine.new_pairs", -1),
    ("refine.min_anchor", -1), ("output.heldout_share", -0.1), ("output.heldout_share", 0.6), ("sft.max_steps", -1),
]  # fmt: skip


def set_to(config: XInstructionConfig, name: str, value: object) -> XInstructionConfig:
    part, _, field = name.rpartition(".")
    setattr(getattr(config, part) if part else config, field, value)
    return config


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_value_out_of_bounds_is_named(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"^{re.escape(name)} is {re.escape(str(value))}; it must be "):
        set_to(XInstructionConfig(), name, value).validate()


TEACHER = TeacherConfig(base_url="https://host/v1", model="m", terms=TERMS)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"languages": ()}, "languages"),
        ({"languages": ("ur", "ur")}, "languages is 'ur,ur'"),
        ({"languages": ("ur", "xx")}, "'xx'"),
        ({"documents": ("runs/web",)}, "documents is 'runs/web'; expected CODE=DIR"),
        ({"documents": ("ur=a", "fi=b")}, "documents is .*ur,hi"),
        ({"documents": ("ur=a",)}, "documents names no directory for hi: add hi=DIR"),
        ({"documents": ("ur=a", "ur=b", "hi=c")}, "documents"),
        ({"documents": ("ur=", "hi=c")}, "documents"),
        (
            {"output.native_share": 0.6, "output.system_share": 0.5, "teacher": TEACHER},
            "output.native_share and output.system_share",
        ),
        ({"rate.keep": 1 / 3}, "rate.keep is 0.333"),
        ({"rate.min_keep": 0.9, "rate.max_keep": 0.1}, "rate.min_keep"),
        ({"diversify.embedder": "endpoint"}, "diversify.embedder is endpoint: name its model"),
        ({"diversify.embedder": "sentence_transformers"}, "diversify.embedder is sentence_transformers: name its model"),
        ({"diversify.embedder": "endpoint", "diversify.model": "m"}, "diversify.url"),
        ({"diversify.embedder": "endpoint", "diversify.model": "m", "diversify.url": "ftp://x"}, "^diversify.url is 'ftp://x'"),
        ({"forward.by": "teacher", "teacher": TEACHER}, "^forward.by is teacher"),
        ({"generator.by": "teacher"}, "^generator: a real teacher is needed"),
        ({"generator.by": "teacher", "evaluator.by": "teacher"}, "^generator and evaluator: a real teacher"),
        ({"output.native_share": 0.1}, "^output.native_share: a real teacher"),
        ({"generator.by": "teacher", "teacher": TeacherConfig(base_url="https://host/v1")}, "^teacher.terms"),
        ({"generator.recipe": ""}, "^generator.recipe is ''"),
        ({"evaluator.recipe": "alpaca"}, "^evaluator.recipe is 'alpaca'; expected .*configs/x_instruction_evaluator.py"),
        ({"evaluator.url": "host"}, "^evaluator.url is 'host'"),
    ],
)
def test_values_that_do_not_go_together_are_named(fields: dict[str, Any], named: str) -> None:
    config = XInstructionConfig()
    for name, value in fields.items():
        set_to(config, name, value)
    with pytest.raises(UsageError, match=named):
        config.validate()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"documents": ("ur=a", "hi=b")},
        {"documents": ("sample", "ur=a")},
        {"output.native_share": 0.9, "output.system_share": 0.1, "teacher": TEACHER},
        {"generator.by": "teacher", "evaluator.by": "teacher", "generator.recipe": "", "teacher": TEACHER},
        {"diversify.embedder": "endpoint", "diversify.model": "m", "diversify.url": "http://host/v1"},
        {"generator.recipe": "configs/x_instruction_tiny.py:generator"},
        {"evaluator.url": "http://host/v1"},
        {"refine.rounds": 0, "generate.samples": 16},
    ],
)
def test_values_that_go_together(fields: dict[str, Any]) -> None:
    config = XInstructionConfig()
    for name, value in fields.items():
        set_to(config, name, value)
    config.validate()


def test_where_documents_are() -> None:
    config = XInstructionConfig(documents=("sample", "ur=runs/a=b"))
    assert config.documents_of("ur") == "runs/a=b" and config.documents_of("hi") == "sample"


# --- workload ------------------------------------------------------------------------------------------------------------


def by_stage(config: XInstructionConfig, **more: Any) -> dict[tuple[str, str, str], Any]:
    work = workload(config, **more)
    found: dict[tuple[str, str, str], Any] = {(one.stage, one.role, one.kind): one for one in work}
    assert len(found) == len(work)
    return found


def test_the_work_of_the_default_config() -> None:
    """Two languages, 100,000 documents, 2 samples, 2 rounds, 3,200 pairs a language of a seed that is not there yet."""
    config = XInstructionConfig()
    found = by_stage(config)
    pairs, pair = 2 * 3200, 1250 + 108 + 180
    assert found["generate", "generator", "answer"].requests == 2 * 100_000 * 2
    assert found["refine", "evaluator", "answer"].requests == 2 * 100_000 * 2
    again = 2 * 60_000 * 2  # of the documents, six of ten have none yet
    for number in (1, 2):
        assert found[f"round {number}", "generator", "answer"].requests == again
        assert found[f"round {number}", "evaluator", "answer"].requests == 400_000 + number * again
        assert found[f"round {number}", "generator", "train"].letters_in == pairs * 4 * pair  # new_pairs is 3
    assert ("round 3", "generator", "answer") not in found
    assert (
        found["train_generator", "generator", "train"].letters_in
        == pairs * pair
        == found["train_generator", "forward", "train"].letters_in
    )
    assert (
        found["rate_data", "forward", "answer"].requests == pairs
        and found["rate_data", "forward", "answer"].letters_out == pairs * 1250
    )
    assert found["sft", "sft", "train"].letters_in == 64_000 * pair and found["eval", "sft", "answer"].requests == 2 * 50
    assert not any(role == "teacher" or kind == "ask" for _, role, kind in found), "nothing is asked of others"
    assert found["generate", "generator", "answer"].letters_in == 400_000 * (1250 + 180)
    assert found["generate", "generator", "answer"].letters_out == 400_000 * 108
    assert "assumed" in found["train_generator", "generator", "train"].note


@pytest.mark.parametrize("factor", [1, 3])
def test_requests_go_with_languages_documents_samples_and_rounds(factor: int) -> None:
    config = XInstructionConfig(languages=("ur", "hi", "fi")[:factor])
    config.generate.documents, config.generate.samples, config.refine.rounds = 1000, 5, factor
    found = by_stage(config)
    assert found["generate", "generator", "answer"].requests == factor * 5000
    assert sum(stage.startswith("round") and role == "generator" and kind == "answer" for stage, role, kind in found) == factor
    one = by_stage(config, languages=("ur",))
    assert one["generate", "generator", "answer"].requests == 5000


def test_what_the_teacher_does_is_asked_of_it() -> None:
    config = XInstructionConfig(generator=RoleConfig(by="teacher"), evaluator=RoleConfig(by="teacher"), teacher=TEACHER)
    config.output.native_share = 0.25
    work = workload(config)
    asked = Counter((one.stage, one.role) for one in work if one.kind == "ask")
    assert asked == {(stage, "teacher"): 2 for stage in ("generate", "refine", "round 1", "round 2")} | {
        ("generate", "teacher"): 1, ("refine", "teacher"): 1, ("audit", "teacher"): 1, ("eval", "teacher"): 1
    }  # fmt: skip
    trained = {(one.stage, one.role) for one in work if one.kind == "train"}
    assert trained == {("train_generator", "forward"), ("sft", "sft")}
    assert {one.role for one in work if one.kind == "answer"} == {"forward", "sft"}
    assert [one.requests for one in work if one.stage == "audit"] == [16_000]
    assert [one.requests for one in work if one.stage in ("generate", "refine")] == [400_000, 400_000]


def test_a_teacher_rates_no_candidate_twice() -> None:
    """Its replies are kept: of a round only the candidates that are new are asked about, unlike those of a rater trained again."""
    config = XInstructionConfig(evaluator=RoleConfig(by="teacher"), teacher=TEACHER)
    rated = [one.requests for one in workload(config) if one.kind == "ask"]
    assert rated == [400_000, 240_000, 240_000, 100]  # the last: held-out instructions, translated for the comparison


def test_a_seed_in_english_is_translated_there_and_back(tmp_path: Path) -> None:
    rows = [{**PAIR, "language": "en", "response": "Boil two cups of water."}] * 30 + [PAIR] * 20
    config = XInstructionConfig(seeds=SeedConfig(input=(jsonl(tmp_path / "seed.jsonl", rows),)), teacher=TEACHER)
    found = by_stage(config)
    assert found["train_generator", "forward", "train"].letters_in == 2 * (30 + 20) * (1250 + 108 + 180)
    assert found["seed", "teacher", "ask"].requests == 2 * 2 * 30, "the 20 that are in Urdu are not translated"


def test_arms_of_the_comparison() -> None:
    config = XInstructionConfig()
    config.sft.translated, config.sft.distilled = "runs/a", "runs/b"
    one = by_stage(config)
    assert one["eval", "sft", "answer"].requests == 3 * 100 and one["sft", "sft", "train"].letters_in == 3 * 64_000 * (
        1250 + 108 + 180
    )
