"""X-Instruction's rater: an English instruction and a native text in, one letter for how well the text answers out.

    launch/train.sh --config=configs/x_instruction_evaluator.py --config.data.path=RATING_SHARDS --workdir=RUN

launch/x_instruction.py trains it, on questions that it writes itself (data_gen/x_instruction/rating.py); the paper's rater and its
hyper-parameters are not published. Alpaca's prompt ends in a line break, so that the letter is a token of its own.
"""

from alif_jax.train import TrainConfig
from configs import x_instruction_generator


def get_config(arg: str = "") -> TrainConfig:
    config = x_instruction_generator.get_config()
    config.data.template = "alpaca"
    config.num_train_epochs = 2
    return config
