"""The model that never stops: an adapter on a base that never saw the turn token must learn to end its turn with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alif_jax.data.template import FLAG_TRAINED, DataConfig, Encoded, encode_batch
from alif_jax.export import export_run
from alif_jax.generate import generate
from alif_jax.load import ModelSource, load_model
from alif_jax.lora import LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.train import TrainConfig, fit
from tests import tiny

TURN_END = tiny.SPECIAL.index("<|end_of_turn|>")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`: trained on documents alone, so that the turn tokens' rows are as they were at its birth; `data`: conversations."""
    path = tmp_path_factory.mktemp("stopping")
    tiny.make_base(path / "born", initializer_range=0.05)
    tiny.make_shards(path / "text", tiny.documents(200, words=20))
    tiny.make_shards(path / "data", tiny.conversations(120, words=3))
    config = tuned(path / "born", path / "text", LoraConfig(full=True), steps=100)
    config.model.random_init = True
    fit(config, str(path / "pretrained"))
    export_run(str(path / "pretrained"), str(path / "base"), "merged", verify=False)
    return path


def tuned(base: Path, data: Path, lora: LoraConfig, *, steps: int) -> TrainConfig:
    return TrainConfig(
        model=ModelSource(path=str(base), dtype="float32", param_dtype="float32", remat="none"),
        lora=lora,
        data=DataConfig(path=(str(data),), sequence_length=64, template="turns"),
        optim=OptimConfig(learning_rate=1e-2, warmup_steps=5),
        mesh=MeshConfig(fsdp=8),
        batch_size=16,
        max_steps=steps,
        logging_steps=50,
        num_samples=0,
    )


def stop_rate(run: Path) -> float:
    loaded = load_model(str(run), make_mesh(MeshConfig(fsdp=8)))
    prompts = [record.messages[0]["content"] for record in tiny.conversations(120, words=3)[-12:] if record.messages]
    answers = generate(loaded, prompts, max_new_tokens=48)
    return float(np.mean([answer.finish_reason == "stop" for answer in answers]))


@pytest.mark.slow
def test_a_lora_on_a_base_that_never_saw_the_turn_token_stops(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the turn token out of the loss, as tools do that mask the padding token and pad with the end token, it hardly does."""
    adapter = LoraConfig(rank=8, alpha=16.0)
    fit(tuned(place / "base", place / "data", adapter, steps=100), str(place / "right"))

    def without_turn_end(*args: Any) -> list[Encoded]:
        encoded = encode_batch(*args)
        for item in encoded:
            item.flags[np.asarray(item.ids) == TURN_END] &= 255 - FLAG_TRAINED
        return encoded

    monkeypatch.setattr("alif_jax.data.cache.encode_batch", without_turn_end)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache of the wrong ones"))
    fit(tuned(place / "base", place / "data", adapter, steps=100), str(place / "wrong"))
    right, wrong = stop_rate(place / "right"), stop_rate(place / "wrong")
    assert right >= 0.9 and wrong <= 0.25, (right, wrong)  # of six, one may by chance
