"""The models of configs/x_instruction.py:tiny: random weights, trained whole for a few steps on a CPU, to try the programs.

    python launch/train.py --config=configs/x_instruction_tiny.py:generator --config.data.path=DIR --config.model.path=BASE \\
        --workdir=RUN

`,quick` after a part is a quarter of the steps, for tests.
"""

from alif_jax import UsageError
from alif_jax.data.template import DataConfig
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.train import TrainConfig

# What is trained: template, steps, learning rate.
PARTS = {
    "generator": ("x_instruction_generator", 60, 3e-3),
    "forward": ("x_instruction", 20, 3e-3),
    "evaluator": ("alpaca", 200, 1e-3),
    "sft": ("alpaca", 30, 3e-3),
}


def get_config(arg: str = "") -> TrainConfig:
    part, _, quick = arg.partition(",")
    if part not in PARTS or quick not in ("", "quick"):
        raise UsageError(f"configs/x_instruction_tiny.py:{arg}: one of {', '.join(PARTS)}, and `,quick` after it")
    template, steps, rate = PARTS[part]
    return TrainConfig(
        model=ModelSource(random_init=True, dtype="float32", param_dtype="float32", remat="none"),
        lora=LoraConfig(full=True),
        data=DataConfig(sequence_length=1024, template=template, workers=1),
        optim=OptimConfig(learning_rate=rate, lr_scheduler_type="constant", warmup_steps=10),
        batch_size=4,
        num_train_epochs=1000,
        max_steps=steps // 4 if quick else steps,
        save_steps=50,
        save_total_limit=1,
        logging_steps=10,
        num_samples=0,
        report_to=(),
    )
