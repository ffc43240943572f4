"""Urdu on Llama-3.2-3B: the smallest Llama that people of small languages ask for; its embeddings are tied and trained.

    launch/train.sh --config=configs/llama3_2_3b_urdu.py:cpt --config.data.path=URDU,ENGLISH \
        --config.data.weights=0.9,0.1 --workdir=CPT
    launch/train.sh --config=configs/llama3_2_3b_urdu.py --config.model.init_from=CPT --config.data.path=SHARDS --workdir=RUN

As qwen3_4b_urdu.py (`cpt`, or `sft`, the default), but with Llama 3's chat template, which the base's tokenizer does not carry
and whose turn tokens it never saw: so embeddings are always trained.
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/llama3_2_3b_urdu.py:cpt --topology=h200:1 --tokens=100e6
"""

from alif_jax import UsageError
from alif_jax.train import TrainConfig
from configs import qwen3_4b_urdu


def get_config(arg: str = "") -> TrainConfig:
    if arg not in ("", "cpt", "sft"):
        raise UsageError(f"configs/llama3_2_3b_urdu.py:{arg}: cpt or sft (the default)")
    config = qwen3_4b_urdu.get_config(arg)
    config.model.path = "meta-llama/Llama-3.2-3B"
    config.data.template = "llama3"
    return config
