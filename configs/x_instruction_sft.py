"""X-Instruction's tuning: an English instruction, an answer in the native language (arXiv 2405.19744).

    launch/train.sh --config=configs/x_instruction_sft.py --config.data.path=URDU --workdir=RUN
    launch/train.sh --config=configs/x_instruction_sft.py:ten --config.data.path=BN,FI,HI,ID,SW,TA,TH,TR,UR,VI --workdir=RUN

One language (32,000 conversations), or ten at once with `:ten`, whose larger step (64 rows instead of 16) keeps all ten in every
step. The prompt is the authors', byte for byte: `… Answer in {language}. `, the language by each record's `language`. Base as
theirs; the rest is not published and our proposal, as in x_instruction_generator.py.
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/x_instruction_sft.py --topology=h200:1 --tokens=100e6
"""

from alif_jax import UsageError
from alif_jax.train import TrainConfig
from configs import x_instruction_generator


def get_config(arg: str = "") -> TrainConfig:
    if arg not in ("", "ten"):
        raise UsageError(f"configs/x_instruction_sft.py:{arg}: nothing (one language) or `ten`")
    config = x_instruction_generator.get_config()
    config.data.template = "x_instruction"
    config.eval_steps = config.save_steps = 200
    if arg == "ten":
        config.batch_size, config.gradient_accumulation_steps = 64, 8
        config.eval_steps = config.save_steps = 500
    return config
