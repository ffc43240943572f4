"""The quickstart's recipe: data from the offline teacher, a tiny base model, continued pre-training, instruction tuning.

`launch/quickstart.sh` runs the four parts in order and fills in their paths. Each can be run alone:

    python launch/self_instruct.py --config=configs/tiny.py:data --workdir=DIR
    python launch/train.py --config=configs/tiny.py:sft --config.model.path=BASE --config.data.path=DIR/data --workdir=RUN

`base` trains 1.4M parameters from nothing on the Urdu text shipped with data_gen; `cpt` continues it on the generated items as
plain text, `sft` on the same items as conversations, both with LoRA on all projections plus embeddings and head.
`quick` after a colon-separated part (`sft,quick`) makes it a minute's version for tests: fewer items, fewer passes.
"""

from collections.abc import Callable

from alif_jax import UsageError
from alif_jax.data.template import DataConfig
from alif_jax.load import ModelSource
from alif_jax.lora import EMBEDDINGS, LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.sharding import MeshConfig
from alif_jax.train import TrainConfig
from configs.urdu_instruct import ALL_CHECKS
from data_gen.self_instruct import SelfInstructConfig, Targets, TeacherConfig

SEQUENCE_LENGTH = 256


def get_config(arg: str = "") -> TrainConfig | SelfInstructConfig:
    part, _, quick = (arg or "sft").partition(",")
    parts: dict[str, Callable[[bool], TrainConfig | SelfInstructConfig]] = {"data": data, "base": base, "cpt": cpt, "sft": sft}
    if part not in parts or quick not in ("", "quick"):
        raise UsageError(f"configs/tiny.py:{arg}: one of {', '.join(parts)}, and `,quick` after it")
    return parts[part](bool(quick))


def data(quick: bool) -> SelfInstructConfig:
    """Items a task; about a tenth more are held out, made from held-out seeds."""
    n = 20 if quick else 200
    targets = Targets(
        generation=n, reasoning=n, ethics=n, question_answering=n, translation=n, classification=2 * n, sentiment=2 * n
    )
    return SelfInstructConfig(seed=0, targets=targets, checks=ALL_CHECKS, teacher=TeacherConfig(base_url="offline"))


def base(quick: bool) -> TrainConfig:
    return TrainConfig(
        model=ModelSource(random_init=True, dtype="float32", param_dtype="float32", remat="none"),
        lora=LoraConfig(full=True),
        data=DataConfig(sequence_length=SEQUENCE_LENGTH),
        optim=OptimConfig(learning_rate=3e-3, warmup_steps=20, weight_decay=0.1),
        mesh=MeshConfig(fsdp=-1),
        batch_size=8,
        num_train_epochs=2 if quick else 12,
        logging_steps=20,
        save_steps=100,
    )


def cpt(quick: bool) -> TrainConfig:
    config = base(quick)
    config.model.random_init = False
    config.lora = LoraConfig(rank=16, alpha=32.0, modules_to_save=EMBEDDINGS)
    config.data.template, config.data.loss_on = "plain", "all"
    config.num_train_epochs = 1 if quick else 2
    return config


def sft(quick: bool) -> TrainConfig:
    config = cpt(quick)
    config.data.template, config.data.loss_on = "turns", "responses"
    config.num_train_epochs = 2 if quick else 6
    return config
