"""Continued pre-training, our variant of alif_cpt.py.

    launch/train.sh --config=configs/urdu_cpt.py --config.data.path=URDU_SHARDS,ENGLISH_SHARDS \
        --config.data.weights=0.93,0.07 --config.data.max_epochs=4,1 --workdir=RUN

What differs: English replay (7 % of the tokens, which Alif left out and Qalb used; without English shards give one path and no
weights); a batch is counted in tokens (64 full rows of 2,048, several documents a row kept apart by segment ids); long documents
are split into consecutive rows instead of cut; no header around a document; held-out loss by language every 250 steps, and the
best checkpoint is kept.
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/urdu_cpt.py --topology=h200:1 --tokens=100e6
"""

from alif_jax.train import TrainConfig
from configs import alif_cpt


def get_config(arg: str = "") -> TrainConfig:
    config = alif_cpt.get_config()
    config.data.document_template = "{text}"
    config.data.packing = True
    config.data.long_documents = "split"
    config.eval_on_start, config.eval_steps = True, 250
    config.save_steps = 250
    return config
