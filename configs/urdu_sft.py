"""Instruction tuning, our variant of alif_sft.py.

    launch/train.sh --config=configs/urdu_sft.py --config.model.init_from=CPT_RUN --config.data.path=SHARDS --workdir=RUN

What differs: loss on the responses only, a batch counted in tokens (16 full rows, several conversations a row kept apart by
segment ids), and a conversation longer than a row is dropped and counted instead of cut.
"""

from alif_jax.train import TrainConfig
from configs import alif_sft


def get_config(arg: str = "") -> TrainConfig:
    config = alif_sft.get_config()
    config.data.loss_on = "responses"
    config.data.packing = True
    config.data.long_conversations = "drop"
    config.batch_size = 16
    config.gradient_accumulation_steps = 2
    return config
