"""Every recipe file: its own values, and its first steps on a tiny stand-in model."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.chat_template import read_template
from alif_jax.data.cache import open_sources
from alif_jax.data.fit import Examples, fit_rows
from alif_jax.model import skeleton
from alif_jax.model_config import ModelConfig
from alif_jax.plan import make_plan
from alif_jax.tokenizer import load_tokenizer
from alif_jax.topology import parse
from alif_jax.train import TrainConfig, fit
from data_gen.evaluation.judge import JudgeConfig
from data_gen.evaluation.suites import SuiteConfig
from data_gen.self_instruct import SelfInstructConfig
from data_gen.x_instruction.config import XInstructionConfig
from launch.app import check_types, load_recipe
from tests import tiny

TRAINING = (
    "alif_cpt.py", "alif_sft.py", "urdu_cpt.py", "urdu_sft.py", "x_instruction_generator.py", "x_instruction_sft.py",
    "x_instruction_sft.py:ten", "qwen3_4b_urdu.py:cpt", "qwen3_4b_urdu.py:sft", "qwen3_4b_urdu.py:nf4",
    "llama3_2_3b_urdu.py:cpt", "llama3_2_3b_urdu.py",
)  # fmt: skip
DATA = ("urdu_instruct.py", "urdu_instruct.py:more", "sindhi_instruct.py")
X_INSTRUCTION = ("x_instruction.py", "x_instruction.py:tiny", "x_instruction.py:ur", "x_instruction.py:ten")
AS_GENERATOR = ("x_instruction_forward.py", "x_instruction_evaluator.py")
RANDOM = tuple(f"x_instruction_tiny.py:{part}" for part in ("generator", "forward", "evaluator", "sft", "generator,quick"))
SUITES = ("urdu_quick", "urdu_core", "urdu_release", "x_instruction", "alif", "safety")
EVALUATION = tuple(f"evaluation.py:{suite}" for suite in SUITES)
ROOT = Path(__file__).resolve().parents[1]
TINY = ("base", "cpt", "sft", "base,quick", "cpt,quick", "sft,quick", "")
SIZES = {"rms_norm_eps": 1e-5, "max_position_embeddings": 8192}
LLAMA_8B = SIZES | {
    "model_type": "llama", "vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8,
}  # fmt: skip
BASES = {  # the sizes of each recipe's base, from its config.json
    "meta-llama/Llama-3.1-8B": LLAMA_8B,
    "meta-llama/Meta-Llama-3-8B": LLAMA_8B,
    "Qwen/Qwen3-4B-Base": SIZES | {
        "model_type": "qwen3", "vocab_size": 151_936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.2-3B": LLAMA_8B | {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24,
        "tie_word_embeddings": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes")
    tiny.make_base(path / "base")
    for name, changes in STAND_INS.items():
        tiny.make_base(path / name, **changes)
    tiny.make_shards(path / "chat", tiny.conversations(40))
    tiny.make_shards(path / "native", tiny.conversations(12, seed=5), heldout=12)
    tiny.make_shards(path / "text", tiny.documents(40, words=260))
    return path


@pytest.mark.parametrize("recipe", [
    *TRAINING, *DATA, *X_INSTRUCTION, *AS_GENERATOR, *RANDOM, *EVALUATION, "judge.py",
    *(f"tiny.py:{part}" for part in (*TINY, "data", "data,quick")),
])  # fmt: skip
def test_recipe_is_well_typed_and_valid(recipe: str) -> None:
    config = load_recipe(f"configs/{recipe}")
    assert isinstance(config, (TrainConfig, SelfInstructConfig, XInstructionConfig, SuiteConfig, JudgeConfig))
    check_types(config)
    if not isinstance(config, SuiteConfig):
        config.validate()


def test_every_recipe_is_among_those_tried() -> None:
    named = (*TRAINING, *DATA, *X_INSTRUCTION, *AS_GENERATOR, *RANDOM, *EVALUATION)
    tried = {recipe.partition(":")[0] for recipe in named} | {"tiny.py", "prices.py", "ingest.py", "judge.py"}
    assert {path.name for path in (ROOT / "configs").glob("[!_]*.py")} == tried


@pytest.mark.parametrize("recipe", AS_GENERATOR)
def test_x_instructions_other_models_are_trained_as_the_generator(recipe: str) -> None:
    """So that what fits and is tried for the one is for the others."""
    config, generator = load_recipe(f"configs/{recipe}"), load_recipe("configs/x_instruction_generator.py")
    config.data.template, config.num_train_epochs = generator.data.template, generator.num_train_epochs
    assert config == generator


def test_alifs_targets_are_the_published_ones() -> None:
    """Counts of Urdu-Instruct in the authors' README."""
    published = {
        "translation": 10_001, "reasoning": 9_590, "ethics": 9_002, "question_answering": 8_177, "generation": 5_907,
        "classification": 4_662, "sentiment": 4_347,
    }  # fmt: skip
    config = load_recipe("configs/urdu_instruct.py")
    assert {name: count for name, count in vars(config.targets).items() if count} == published
    assert sum(published.values()) == 51_686 and config.seeds_per_prompt == 4 and config.pool_per_prompt == 2


def test_unknown_part_is_named() -> None:
    with pytest.raises(UsageError, match="base, cpt, sft"):
        load_recipe("configs/tiny.py:sftt")


def test_alif_values_are_the_published_ones() -> None:
    """train_cpt.py and train_ft.py of the authors' repository, commit f50fece."""
    cpt, sft = load_recipe("configs/alif_cpt.py"), load_recipe("configs/alif_sft.py")
    for config in (cpt, sft):
        assert (config.lora.rank, config.lora.alpha, config.lora.use_rslora) == (128, 32, True)
        np.testing.assert_allclose(config.lora.scale(), 32 / 128**0.5)
        assert set(config.lora.modules_to_save) == {"embed_tokens", "lm_head"}
        assert (config.batch_size, config.gradient_accumulation_steps, config.data.packing) == (64, 8, False)
        assert (config.data.sequence_length, config.data.loss_on, config.seed) == (2048, "all", 3407)
        assert (config.optim.embedding_learning_rate, config.optim.warmup_steps) == (1e-5, 50)
    assert (cpt.optim.learning_rate, cpt.optim.weight_decay, cpt.num_train_epochs) == (2e-5, 0.01, 1)
    assert (sft.optim.learning_rate, sft.optim.weight_decay, sft.num_train_epochs) == (5e-5, 0.0, 2)


@pytest.mark.parametrize("recipe", TRAINING)
def test_the_plan_in_the_docstring_can_be_made(recipe: str) -> None:
    """And its base's published numbers are those written down here; bytes: frozen as held, trained and moments in fp32."""
    name = recipe.split(":")[0]
    said = " ".join((ROOT / "configs" / name).read_text().split('"""')[1].split())
    assert f"python launch/plan.py --config=configs/{name}" in said and "--topology=h200:1 --tokens=100e6" in said
    config = load_recipe(f"configs/{recipe}")
    plan = make_plan(config, parse("h200:1"), price=None, tokens=100e6)
    assert plan.fits and plan.hours is not None and 0.5 < plan.hours[0] < plan.hours[1] < 50
    model_config = ModelConfig.from_hf(BASES[config.model.path])
    model = skeleton(model_config, config.lora, param_dtype=jnp.bfloat16, quantization=config.model.quantization)
    bits = {name: 4 if model.shapes[name].dtype == jnp.uint4 else 8 * model.shapes[name].dtype.itemsize for name in model.frozen}
    held = sum(model.shapes[name].size * bits[name] / 8 for name in model.frozen)
    trained = sum(model.shapes[name].size for name in model.trainable)
    found = plan.bytes_per_device
    assert (found["trainables"], found["optimizer"]) == (4 * trained, pytest.approx(8 * trained, rel=1e-5))
    assert found["weights"] == pytest.approx(held, rel=1e-6)


STAND_INS: dict[str, dict[str, Any]] = {
    "qwen3": {"family": "qwen3", "tie_word_embeddings": True, "chat_template": read_template("turns")},
    "tied": {"tie_word_embeddings": True},
}


def shrink(config: TrainConfig, place: Path, data: str) -> TrainConfig:
    """The recipe on a stand-in of the same family: other sizes only, every choice stays."""
    base = {"Qwen/Qwen3-4B-Base": "qwen3", "meta-llama/Llama-3.2-3B": "tied"}.get(config.model.path, "base")
    config.model.path, config.data.path = str(place / base), (str(place / data),)
    config.model.dtype = config.model.param_dtype = "float32"
    config.lora.rank, config.data.sequence_length = 4, 256
    config.batch_size, config.gradient_accumulation_steps = 16, 2
    config.max_steps, config.logging_steps = 2, 1
    config.optim.warmup_steps, config.optim.warmup_ratio = 1, 0.0
    config.num_samples = 0
    return config


def slow(*recipes: str) -> list[Any]:
    return [pytest.param(recipe, marks=pytest.mark.slow) for recipe in recipes]


@pytest.mark.parametrize("family", ["alif_{}.py", "urdu_{}.py", *slow("qwen3_4b_urdu.py:{}", "llama3_2_3b_urdu.py:{}")])
def test_continued_pre_training_then_instructions(place: Path, family: str) -> None:
    """The first steps of both; the second goes on from the first."""
    cpt = shrink(load_recipe(f"configs/{family.format('cpt')}"), place, "text")
    row = fit(cpt, str(place / f"{family}_cpt"))
    assert np.isfinite(row["loss"]) and row["heldout_loss"] > 0
    sft = shrink(load_recipe(f"configs/{family.format('sft')}"), place, "chat")
    sft.model.init_from = str(place / f"{family}_cpt")
    if family.startswith("urdu"):
        sft.data.eval_path = (str(place / "chat"), str(place / "native"))
    row = fit(sft, str(place / f"{family}_sft"))
    assert np.isfinite(row["loss"]) and row["heldout_loss"] > 0


ALONE = ("x_instruction_generator.py", *slow("x_instruction_sft.py", "x_instruction_sft.py:ten", "qwen3_4b_urdu.py:nf4"))


@pytest.mark.parametrize("recipe", ALONE)
def test_recipes_of_one_part(place: Path, recipe: str) -> None:
    row = fit(shrink(load_recipe(f"configs/{recipe}"), place, "chat"), str(place / recipe))
    assert np.isfinite(row["loss"]) and row["heldout_loss"] > 0


def examples_of(recipe: str, place: Path, data: str, template: str | None = None) -> tuple[Examples, list[str]]:
    config = shrink(load_recipe(f"configs/{recipe}.py"), place, data)
    config.data.template = config.data.template if template is None else template
    tokenizer = load_tokenizer(config.model.path, config.data.template)
    examples = fit_rows(open_sources(config.data, tokenizer, "train"), config.data)
    pieces = [examples.tokens_of(i)[0] for i in range(len(examples))]
    return examples, [tokenizer.core.decode(piece.tolist(), skip_special_tokens=False) for piece in pieces]


def test_alif_cpt_cuts_and_urdu_cpt_splits(place: Path) -> None:
    cut, texts = examples_of("alif_cpt", place, "text")
    assert len(cut) == 36 and len(set(cut.record)) == 36 and cut.lengths.max() == 256
    assert texts[0].startswith("<|begin_of_text|>ویکیپیڈیا آرٹیکل\n### عنوان: t0\n\n### مضمون:\n")
    split, _ = examples_of("urdu_cpt", place, "text")
    assert len(split) > 36 and len(set(split.record)) == 36


def test_alif_sft_trains_everything_and_urdu_sft_the_answer(place: Path) -> None:
    everything, texts = examples_of("alif_sft", place, "chat")
    assert (everything.trained == everything.lengths - 1).all()  # all but the first token, which nothing comes before
    assert "### Instruction:\n" in texts[0] and texts[0].endswith("<|end_of_text|>")
    answers, texts = examples_of("urdu_sft", place, "chat")
    assert 0 < answers.trained.sum() < 0.7 * answers.lengths.sum()
    assert "<|start_header_id|>user<|end_header_id|>\n\n" in texts[0]


@pytest.mark.parametrize(
    ("template", "said"), [("alpaca", "\n\n### Response:\n"), ("x_instruction", " Answer in Urdu. \n\n### Response:")]
)
def test_x_instruction_trains_the_answer_alone(place: Path, template: str, said: str) -> None:
    """The data say in which language to answer, or the authors' prompt does."""
    examples, texts = examples_of("x_instruction_sft", place, "chat", template)
    assert said in texts[0] and (template == "x_instruction") == ("Answer in Urdu" in texts[0])
    assert 0 < examples.trained.sum() < 0.5 * examples.lengths.sum()
