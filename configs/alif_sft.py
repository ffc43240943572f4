"""Alif's instruction tuning as its code runs it (arXiv 2510.09051; Training/train_ft.py of the authors' repository).

    launch/train.sh --config=configs/alif_sft.py --config.model.init_from=CPT_RUN \
        --config.data.path=URDU_INSTRUCT,URDU_ALPACA,URDU_WSD,ENGLISH_ALPACA,ENGLISH_ORCA --workdir=RUN

URDU_INSTRUCT is the data/ of configs/urdu_instruct.py; the others are imported, for example
    python launch/import_data.py --input=tatsu-lab/alpaca --language=en --licence=cc-by-nc-4.0 --limit=10400 --output=ENGLISH_ALPACA

The adapter, embeddings and head of the continued pre-training go on (`init_from`); English Alpaca prompt, loss on the full text,
one example a row, 64 examples a step, two epochs over all sources together. A system message takes the place of Alpaca's first
sentence, as their OpenOrca rows have it. Where this differs from the published run: as in alif_cpt.py; an answer that passes
2,048 tokens is cut as theirs, but a question is not (the example is dropped and counted); and an item with an input has it
inside its instruction (theirs: a third header; their own Urdu-Instruct items have none).
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/alif_sft.py --topology=h200:1 --tokens=100e6
"""

from alif_jax.train import TrainConfig
from configs import alif_cpt


def get_config(arg: str = "") -> TrainConfig:
    config = alif_cpt.get_config()
    config.optim.learning_rate = 5e-5
    config.optim.weight_decay = 0.0
    config.num_train_epochs = 2
    return config
