"""How long the host works on one training step beside an 8B-shaped parameter tree: `python tests/benchmarks/host_time.py`.

The tree is Llama-3.1-8B's with LoRA of rank 128 on all projections and embeddings and head trained in full, name by name, moments
and counters included; each array has one element, so that the device has nothing to do. Everything on the host is the real thing:
prefetching thread, `put_batch`, the compiled step with donated state, preemption, metrics one step late, a logged row every tenth
step. Measured is the processor time of the main thread from step to step. Results and machine: host_time.md.
"""

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alif_jax.data.cache import Source
from alif_jax.data.fit import fit_rows
from alif_jax.data.pack import Batches, prefetch
from alif_jax.data.template import FLAG_RESPONSE, FLAG_TRAINED, DataConfig
from alif_jax.guards import Preemption, SpikeGuard
from alif_jax.lora import EMBEDDINGS, LoraConfig
from alif_jax.metrics import MetricWriter, Pace
from alif_jax.model import ModelConfig, Params, skeleton
from alif_jax.optim import OptimConfig, optimizer, schedule
from alif_jax.recorder import Recorder
from alif_jax.sharding import MeshConfig, make_mesh, put_batch
from alif_jax.train import what_is_due

STEPS, WARM_UP, ROWS, LENGTH = 2100, 100, 8, 2048
LLAMA_8B = ModelConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, rms_norm_eps=1e-5, rope_theta=500_000.0, rope_scaling=None, tie_word_embeddings=False,
    initializer_range=0.02, max_position_embeddings=131_072, qkv_bias=False, qk_norm=False, original_vocab_size=None,
)  # fmt: skip


def some_batches() -> Batches:
    """3,000 examples of 50 to 600 tokens, packed."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 600, 3000)
    total, n = int(lengths.sum()), len(lengths)
    source = Source(
        name="synthetic", split="train", hash="0" * 64, tokens=rng.integers(0, 60_000, total).astype(np.int32),
        flags=np.full(total, FLAG_TRAINED | FLAG_RESPONSE, np.uint8), offsets=np.cumsum([0, *lengths]).astype(np.int64),
        text_bytes=lengths * 4, codes=np.zeros(n, np.int32), documents=np.zeros(n, bool),
        ids=np.asarray([f"{i:016x}".encode() for i in range(n)]), groups=[{"source": "s", "task": "t", "language": "ur"}],
    )  # fmt: skip
    examples = fit_rows((source,), DataConfig(path=("synthetic",), sequence_length=LENGTH))
    return Batches(examples, LENGTH, ROWS, max_steps=STEPS, seed=0)


def main() -> None:
    model = skeleton(LLAMA_8B, LoraConfig(rank=128, modules_to_save=EMBEDDINGS), param_dtype=jnp.bfloat16)
    trainable, frozen = ({name: jnp.ones(1) for name in names} for names in (model.trainable, model.frozen))
    optim = OptimConfig(embedding_learning_rate=1e-5, weight_decay=0.01)
    tx = optimizer(optim, STEPS)
    opt_state = tx.init(trainable)

    def step_fn(trainable: Params, opt_state: Any, frozen: Params, batch: Params) -> tuple[Params, Any, Params]:
        loss = sum(jnp.sum(leaf) for leaf in frozen.values()) + jnp.sum(batch["tokens"][0, 0, :8])
        updates, opt_state = tx.update(trainable, opt_state, trainable)
        metrics = {"loss": loss, "tokens": jnp.float32(1), "grad_norm": optax.global_norm(trainable)}
        return optax.apply_updates(trainable, updates), opt_state, metrics

    jitted = jax.jit(step_fn, donate_argnums=(0, 1))
    mesh, batches = make_mesh(MeshConfig(), jax.devices()[:1]), some_batches()
    run: Any = SimpleNamespace(
        config=SimpleNamespace(eval_steps=0, sample_steps=0, save_steps=10**6), steps=STEPS + 1, heldout=None, prompts=()
    )
    cpu, wall = [], []
    with tempfile.TemporaryDirectory() as workdir, Preemption() as preemption, jax.set_mesh(mesh):
        recorder = Recorder(
            MetricWriter(workdir, first_step=0, steps=STEPS), batches=batches, spikes=SpikeGuard(6.0), pace=Pace(1e-6),
            learning_rate=schedule(optim, STEPS, np), first=0, steps=STEPS + 1, logging_steps=10,
        )  # fmt: skip
        began, began_wall = time.thread_time(), time.perf_counter()
        for index, batch, on_devices in prefetch(batches, 0, STEPS, partial(put_batch, mesh)):
            step = index + 1
            trainable, opt_state, metrics = jitted(trainable, opt_state, frozen, on_devices)
            recorder.dispatched(step, metrics, batch)
            assert not preemption.after(step) and not what_is_due(run, step)
            now, now_wall = time.thread_time(), time.perf_counter()
            cpu.append(now - began)
            wall.append(now_wall - began_wall)
            began, began_wall = now, now_wall
        recorder.catch_up()
        recorder.close()
    leaves = len(jax.tree.leaves((trainable, opt_state, frozen)))
    blocks = [np.mean(cpu[at : at + 100]) * 1e3 for at in range(WARM_UP, STEPS, 100)]  # other programs only slow it down
    print(f"{leaves} arrays, {ROWS} rows of {LENGTH}, main thread: {min(blocks):.2f} ms a step in the best hundred of steps, "
          f"{max(blocks):.2f} in the worst, {statistics.median(cpu[WARM_UP:]) * 1e3:.2f} median")  # fmt: skip
    print(f"wall clock, making of the batch included: {statistics.median(wall[WARM_UP:]) * 1e3:.2f} ms median")


if __name__ == "__main__":
    main()
