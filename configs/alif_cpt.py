"""Alif's continued pre-training as its code runs it (arXiv 2510.09051; Training/train_cpt.py of the authors' repository).

    python launch/import_data.py --input=wikimedia/wikipedia --subset=20231101.ur --language=ur --output=WIKIPEDIA_SHARDS
    launch/train.sh --config=configs/alif_cpt.py --config.data.path=WIKIPEDIA_SHARDS --workdir=RUN

Llama-3.1-8B; LoRA r = 128, α = 32, rsLoRA on the seven projections, embeddings and head trained in full; Urdu Wikipedia under
its Urdu header, one article a row cut at 2,048 tokens, loss on the whole text, EOS at its end; 64 articles a step.
Where this differs from the published run: AdamW keeps fp32 moments (theirs: 8 bit), trained weights are fp32 (theirs: bf16).
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/alif_cpt.py --topology=h200:1 --tokens=100e6
"""

from alif_jax.data.template import DataConfig
from alif_jax.load import ModelSource
from alif_jax.lora import EMBEDDINGS, LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.train import TrainConfig

WIKIPEDIA = "ویکیپیڈیا آرٹیکل\n### عنوان: {title}\n\n### مضمون:\n{text}"


def get_config(arg: str = "") -> TrainConfig:
    return TrainConfig(
        model=ModelSource(path="meta-llama/Llama-3.1-8B"),
        lora=LoraConfig(rank=128, alpha=32.0, use_rslora=True, modules_to_save=EMBEDDINGS),
        data=DataConfig(
            sequence_length=2048, document_template=WIKIPEDIA, loss_on="all", packing=False, long_documents="cut",
            long_conversations="truncate_response", template="alpaca",
        ),
        optim=OptimConfig(
            learning_rate=2e-5, embedding_learning_rate=1e-5, lr_scheduler_type="cosine", warmup_steps=50, weight_decay=0.01,
        ),
        batch_size=64,
        gradient_accumulation_steps=8,
        num_train_epochs=1,
        logging_steps=1,
        save_steps=500,
        seed=3407,
    )  # fmt: skip
