"""X-Instruction's forward model: answers English instructions in the language. Its answers are the middle level of the rating data.

    launch/train.sh --config=configs/x_instruction_forward.py --config.data.path=SEED_SHARDS --workdir=RUN

launch/x_instruction.py trains it on the seed. The prompt is the authors' of the final tuning, which says the language.
"""

from alif_jax.train import TrainConfig
from configs import x_instruction_generator


def get_config(arg: str = "") -> TrainConfig:
    config = x_instruction_generator.get_config()
    config.data.template = "x_instruction"
    return config
