"""X-Instruction's instruction generator: native text in, the English instruction it could answer out (arXiv 2405.19744).

    launch/train.sh --config=configs/x_instruction_generator.py --config.data.path=REVERSED_SEED --workdir=RUN

A conversation's user turn is the text, its assistant turn the instruction; the prompt is the authors', byte for byte. Base and
prompt are theirs. Their learning rate, epochs and batch are not published: these are our proposal (LoRA r = 64, α = 128 on all
projections, 1e-4, 3 epochs, 128 conversations' worth of tokens a step: 16 packed rows).
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/x_instruction_generator.py --topology=h200:1 --tokens=100e6
"""

from alif_jax.data.template import DataConfig
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.train import TrainConfig


def get_config(arg: str = "") -> TrainConfig:
    return TrainConfig(
        model=ModelSource(path="meta-llama/Meta-Llama-3-8B"),
        lora=LoraConfig(rank=64, alpha=128.0),
        data=DataConfig(sequence_length=2048, template="x_instruction_generator"),
        optim=OptimConfig(learning_rate=1e-4, lr_scheduler_type="cosine", warmup_ratio=0.03, adam_beta2=0.95),
        batch_size=16,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
        eval_on_start=True,
        eval_steps=50,
        save_steps=50,
        logging_steps=5,
    )
