"""Urdu on Qwen3-4B-Base (Apache-2.0): a base that may be used and passed on freely, on one accelerator of 24 GB with `:nf4`.

    launch/train.sh --config=configs/qwen3_4b_urdu.py:cpt --config.data.path=URDU,ENGLISH \
        --config.data.weights=0.9,0.1 --workdir=CPT
    launch/train.sh --config=configs/qwen3_4b_urdu.py:sft --config.model.init_from=CPT --config.data.path=SHARDS --workdir=RUN
    launch/train.sh --config=configs/qwen3_4b_urdu.py:nf4 --config.data.path=SHARDS --workdir=RUN

`cpt` trains the (tied) embeddings beside LoRA r = 64 with rsLoRA; `sft` (the default) goes on with both; `nf4` is instruction
tuning alone, the frozen base in 4 bits and no embeddings. The tokenizer's own chat template, loss on the responses.
What it needs, takes and costs, before anything is spent:
    python launch/plan.py --config=configs/qwen3_4b_urdu.py:cpt --topology=h200:1 --tokens=100e6
"""

from alif_jax import UsageError
from alif_jax.data.template import DataConfig
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.train import TrainConfig


def get_config(arg: str = "") -> TrainConfig:
    if arg not in ("", "cpt", "sft", "nf4"):
        raise UsageError(f"configs/qwen3_4b_urdu.py:{arg}: cpt, sft (the default) or nf4")
    config = TrainConfig(
        model=ModelSource(path="Qwen/Qwen3-4B-Base"),
        lora=LoraConfig(rank=64, alpha=16.0, use_rslora=True, modules_to_save=("embed_tokens",)),
        data=DataConfig(sequence_length=2048),
        optim=OptimConfig(learning_rate=1e-4, embedding_learning_rate=2e-5, lr_scheduler_type="cosine", warmup_ratio=0.03),
        batch_size=16,
        gradient_accumulation_steps=4,
        num_train_epochs=2,
        eval_on_start=True,
        eval_steps=100,
        save_steps=100,
        logging_steps=5,
    )
    if arg == "cpt":
        config.batch_size, config.gradient_accumulation_steps, config.num_train_epochs = 64, 16, 1
        config.optim.weight_decay = 0.01
        config.eval_steps = config.save_steps = 250
    if arg == "nf4":
        config.model.quantization = "nf4"
        config.lora.modules_to_save = ()
        config.gradient_accumulation_steps = 16
    return config
