"""Instruction tuning, our variant of alif_sft.py.

    launch/train.sh --config=configs/urdu_sft.py --config.model.init_from=CPT_RUN \
        --config.data.path=URDU_SHARDS,ENGLISH_SHARDS --config.data.weights=0.85,0.15 \
        --config.data.eval_path=URDU_SHARDS,NATIVE_QUESTIONS --workdir=RUN

What differs: loss on the responses only; Llama 3's own chat template (its turn tokens are untrained in the base, so embeddings
and head are trained with them); English replay; held-out loss also on questions that native speakers wrote (`eval_path`), because
a held-out part of machine-made data is its twin; a batch counted in tokens (16 full rows, several conversations a row kept apart
by segment ids); a conversation longer than a row is dropped and counted instead of cut; the best checkpoint is kept.
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/urdu_sft.py --topology=h200:1 --tokens=100e6
"""

from alif_jax.train import TrainConfig
from configs import alif_sft


def get_config(arg: str = "") -> TrainConfig:
    config = alif_sft.get_config()
    config.data.template = "llama3"
    config.data.loss_on = "responses"
    config.data.packing = True
    config.data.long_conversations = "drop"
    config.batch_size = 16
    config.gradient_accumulation_steps = 2
    config.eval_on_start, config.eval_steps = True, 100
    config.save_steps = 100
    return config
