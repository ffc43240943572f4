"""The loss on held-out records, in nats a token and bits a byte, in all and by source, task and language."""

import dataclasses
import math
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from alif_jax.data.cache import open_sources
from alif_jax.data.fit import fit_rows
from alif_jax.data.pack import Batches
from alif_jax.data.template import DataConfig
from alif_jax.load import Loaded
from alif_jax.loss import token_losses
from alif_jax.model import Params, Skeleton
from alif_jax.sharding import batch_parts, put_batch, replicated
from alif_jax.tokenizer import load_tokenizer


@partial(jax.jit, static_argnames=("skeleton", "chunk", "out"))
def masked_losses(
    params: Params, batch: dict[str, Array], *, skeleton: Skeleton, chunk: int, out: jax.sharding.Sharding
) -> Float[Array, "B L"]:
    """The loss of every trained token of a batch `[1, B, L]`, 0 elsewhere, on every device."""
    model = skeleton.model(params)
    rows = {name: array[0] for name, array in batch.items()}
    hidden_BLD, _ = model(rows["tokens"], positions_BL=rows["positions"], segment_ids_BL=rows["segment_ids"])
    losses_BL = token_losses(model.head(), hidden_BLD, rows["targets"], chunk=chunk)
    return jax.lax.with_sharding_constraint(losses_BL * rows["loss_mask"], out)


def heldout_loss(params: Params, skeleton: Skeleton, mesh: Mesh, batches: Batches, *, chunk: int = 512) -> dict[str, Any]:
    """{"loss", "tokens", "bits_per_byte", "by_source": {name: the same}, "by_task", "by_language"} over all batches.

    loss: Σ over trained tokens / their number. bits_per_byte: Σ / ln 2 / UTF-8 bytes of the trained text, whatever the
    tokenizer; comparable between models.
    """
    examples = batches.examples
    sums = np.zeros(len(examples))
    counts = np.zeros(len(examples), np.int64)
    with jax.set_mesh(mesh):
        for step in range(batches.steps):
            batch = batches.batch_at(step)
            losses = masked_losses(params, put_batch(mesh, batch), skeleton=skeleton, chunk=chunk, out=replicated(mesh))
            losses_BL = np.asarray(losses, np.float64)
            for row, members in enumerate(batches.members_at(step)):
                segments = batch["segment_ids"][0, row]
                sums[members] += np.bincount(segments, losses_BL[row], len(members) + 1)[1:]
                counts[members] += np.bincount(segments, batch["loss_mask"][0, row], len(members) + 1)[1:].astype(np.int64)
    result = _summary(sums, counts, examples.text_bytes)
    table, codes = examples.groups
    for key in ("source", "task", "language"):
        names = np.asarray([group[key] for group in table])[codes]
        result[f"by_{key}"] = {
            str(name): _summary(*(values[names == name] for values in (sums, counts, examples.text_bytes)))
            for name in np.unique(names)
        }
    return result


def _summary(sums: np.ndarray, counts: np.ndarray, text_bytes: np.ndarray) -> dict[str, Any]:
    total, tokens, size = float(sums.sum()), int(counts.sum()), int(text_bytes.sum())
    return {"loss": total / tokens, "tokens": tokens, "bits_per_byte": total / math.log(2) / size if size else None}


def evaluate_loss(
    loaded: Loaded, data: str, *, split: str = "heldout", sequence_length: int = 0, batch_size: int = 8, template: str = ""
) -> dict[str, Any]:
    """`heldout_loss` of a loaded model on a directory of shards.

    A run is measured as it was trained: its template, loss_on, truncation, sequence_length (0). With `template`, conversations are
    rendered by it and the loss is on their responses, for any model: comparable.

    Beside it `examples`, and `shortened`: by source, the records longer than sequence_length ({"split", "dropped": how many}).
    Raises UsageError where the split has no record that fits.
    """
    tokenizer = load_tokenizer(loaded.tokenizer.directory, template) if template else loaded.tokenizer
    config = DataConfig() if template else loaded.data
    sequence_length = sequence_length or config.sequence_length
    config = dataclasses.replace(
        config, path=(data,), eval_path=(), weights=(), max_epochs=(), substitute=(), sequence_length=sequence_length
    )
    examples = fit_rows(open_sources(config, tokenizer, split), config)
    parts = batch_parts(loaded.mesh)
    batches = Batches(examples, sequence_length, -(-batch_size // parts) * parts)
    result = heldout_loss(loaded.params, loaded.skeleton, loaded.mesh, batches)
    return result | {"examples": len(examples), "shortened": examples.shortened}


def loss_table(result: dict[str, Any]) -> str:
    """The result for people: one line in all, then one a source, task and language."""
    rows = [("all", result)]
    for key in ("source", "task", "language"):
        rows += [(f"{key} {name}", part) for name, part in result[f"by_{key}"].items()]
    lines = [f"{'':32}{'loss':>9}{'bits/byte':>11}{'tokens':>10}"]
    for name, part in rows:
        per_byte = "-" if part["bits_per_byte"] is None else f"{part['bits_per_byte']:.4f}"
        lines.append(f"{name:32}{part['loss']:9.4f}{per_byte:>11}{part['tokens']:10,}")
    if result["shortened"]:
        lines.append(f"longer than a row, split or dropped: {result['shortened']}")
    return "\n".join(lines)
