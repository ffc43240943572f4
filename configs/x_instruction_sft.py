"""X-Instruction's tuning: an instruction, an answer in the native language (arXiv 2405.19744).

    launch/train.sh --config=configs/x_instruction_sft.py --config.data.path=runs/xi/data --workdir=RUN
    launch/train.sh --config=configs/x_instruction_sft.py:ten --config.data.path=runs/xi_ten/data --workdir=RUN

One language (32,000 conversations), or ten at once with `:ten`, whose larger step (64 rows instead of 16) keeps all ten in every
step. The data of launch/x_instruction.py say themselves in which language to answer, in most records, so the prompt is Alpaca's.
For files that do not, --config.data.template=x_instruction is the authors' prompt, byte for byte: `… Answer in {language}. `. Base
as theirs; the rest is not published and our proposal, as in x_instruction_generator.py.
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
    config.data.template = "alpaca"
    config.eval_steps = config.save_steps = 200
    if arg == "ten":
        config.batch_size, config.gradient_accumulation_steps = 64, 8
        config.eval_steps = config.save_steps = 500
    return config
