"""Every recipe file: its own values, and its first steps on a tiny stand-in model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.data.template import encode_records
from alif_jax.data.tfrecord import read_records
from alif_jax.tokenizer import load_tokenizer
from alif_jax.train import TrainConfig, fit
from data_gen.self_instruct import SelfInstructConfig
from launch.app import check_types, load_recipe
from tests import tiny

TRAINING = ("alif_cpt", "alif_sft", "urdu_cpt", "urdu_sft")
TINY = ("base", "cpt", "sft", "base,quick", "cpt,quick", "sft,quick", "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes")
    tiny.make_base(path / "base")
    tiny.make_shards(path / "chat", tiny.conversations(40))
    tiny.make_shards(path / "text", tiny.documents(40, words=130))
    return path


@pytest.mark.parametrize("recipe", [*TRAINING, *(f"tiny.py:{part}" for part in (*TINY, "data", "data,quick"))])
def test_recipe_is_well_typed_and_valid(recipe: str) -> None:
    config = load_recipe(f"configs/{recipe}" if ".py" in recipe else f"configs/{recipe}.py")
    assert isinstance(config, (TrainConfig, SelfInstructConfig))
    check_types(config)
    config.validate()


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


def shrink(config: TrainConfig, place: Path, data: str) -> TrainConfig:
    """The recipe on the stand-in: other sizes only, every choice stays."""
    config.model.path, config.data.path = str(place / "base"), str(place / data)
    config.model.dtype = config.model.param_dtype = "float32"
    config.lora.rank, config.data.sequence_length = 4, 256
    config.batch_size, config.gradient_accumulation_steps = 16, 2
    config.max_steps, config.logging_steps = 2, 1
    config.optim.warmup_steps = 1
    return config


def test_alif_and_urdu_recipes_run_cpt_then_sft(place: Path) -> None:
    for family in ("alif", "urdu"):
        cpt = shrink(load_recipe(f"configs/{family}_cpt.py"), place, "text")
        row = fit(cpt, str(place / f"{family}_cpt"))
        assert np.isfinite(row["loss"]) and row["heldout_loss"] > 0
        sft = shrink(load_recipe(f"configs/{family}_sft.py"), place, "chat")
        sft.model.init_from = str(place / f"{family}_cpt")
        assert np.isfinite(fit(sft, str(place / f"{family}_sft"))["loss"])


def examples_of(recipe: str, place: Path, data: str) -> tuple[Any, list[str]]:
    config = shrink(load_recipe(f"configs/{recipe}.py"), place, data)
    tokenizer = load_tokenizer(config.model.path, config.data.template)
    examples = encode_records(read_records(config.data.path, "train"), tokenizer, config.data)
    pieces = np.split(examples.tokens, examples.offsets[1:-1])
    return examples, [tokenizer.core.decode(piece.tolist(), skip_special_tokens=False) for piece in pieces]


def test_alif_cpt_cuts_and_urdu_cpt_splits(place: Path) -> None:
    cut, texts = examples_of("alif_cpt", place, "text")
    assert len(cut.ids) == 36 and len(set(cut.ids)) == 36 and cut.lengths.max() == 256
    assert texts[0].startswith("<|begin_of_text|>ویکیپیڈیا آرٹیکل\n### عنوان: t0\n\n### مضمون:\n")
    split, _ = examples_of("urdu_cpt", place, "text")
    assert len(split.ids) > 36 and len(set(split.ids)) == 36


def test_alif_sft_trains_everything_and_urdu_sft_the_answer(place: Path) -> None:
    everything, texts = examples_of("alif_sft", place, "chat")
    assert everything.trained.all() and "### Instruction:\n" in texts[0] and texts[0].endswith("<|end_of_text|>")
    answers, _ = examples_of("urdu_sft", place, "chat")
    assert 0 < answers.trained.mean() < 0.7
