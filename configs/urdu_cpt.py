"""Continued pre-training, our variant of alif_cpt.py.

    launch/train.sh --config=configs/urdu_cpt.py --config.data.path=SHARDS --workdir=RUN

What differs: a batch is counted in tokens (64 full rows of 2,048, several documents a row kept apart by segment ids), long
documents are split into consecutive rows instead of cut, and there is no header around a document.
"""

from alif_jax.train import TrainConfig
from configs import alif_cpt


def get_config(arg: str = "") -> TrainConfig:
    config = alif_cpt.get_config()
    config.data.document_template = "{text}"
    config.data.packing = True
    config.data.long_documents = "split"
    return config
