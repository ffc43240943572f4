"""Evaluation, ours against the harness's own Hugging Face backend: `python tests/benchmarks/eval_vs_hf.py --model=EXPORT`.

The same exported model, the same requests of the shipped tasks (choices, whole texts, answers), both on all cores of this process
by turns, the other backend at each of several batch sizes. Prints a table. Method and results: eval_vs_hf.md.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import lm_eval
import torch
from absl import app, flags
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.dummy import DummyLM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from alif_jax.harness import JaxLM
from alif_jax.load import load_model
from alif_jax.sharding import MeshConfig, make_mesh
from data_gen.evaluation.find import find_tasks
from data_gen.evaluation.suites import TaskEntry

MODEL = flags.DEFINE_string("model", "runs/quickstart/export/merged", "exported Hugging Face directory")
BATCHES = flags.DEFINE_list("batches", ["1", "4", "16", "64"], "batch sizes of the other backend")
ROUNDS = flags.DEFINE_integer("rounds", 5, "in each of which either side has its turn")

CORES = len(os.sched_getaffinity(0))
TASKS = {"choices": "urdu_minimal_pairs", "texts": "urdu_text", "answers": "urdu_prompts"}
TOLERANCE = 1e-3  # nats


def requests_of(task: str, chat: bool, model: LM) -> list[Instance]:
    """What the harness asks a model in a task, the chat template applied."""

    class Asked(DummyLM):
        requests: list[Instance] = []

        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            return model.apply_chat_template(chat_history, add_generation_prompt)

        def chat_template(self, chat_template: Any = False) -> str:
            return ""

        def _keep(self, requests: list[Instance], answer: Any) -> list[Any]:
            Asked.requests = list(requests)
            return [answer] * len(requests)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._keep(requests, (0.0, False))

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._keep(requests, 0.0)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._keep(requests, "")

    (found,) = find_tasks([TaskEntry(task=task)])
    lm_eval.simple_evaluate(
        model=Asked(), tasks=list(found.tasks.values()), bootstrap_iters=0, apply_chat_template=chat,
        task_manager=TaskManager(include_defaults=False),
    )  # fmt: skip
    return Asked.requests


def asking(model: LM, requests: list[Instance]) -> Callable[[], list[Any]]:
    method = getattr(model, requests[0].request_type)
    return lambda: list(method(requests, disable_tqdm=True))


def same(kind: str, ours: list[Any], theirs: list[Any]) -> float:
    """The largest difference; of answers, how many are not the same text."""
    if kind == "answers":
        return float(sum(one != other for one, other in zip(ours, theirs, strict=True)))
    pairs = zip(ours, theirs, strict=True)
    return max(abs(one[0] - other[0]) if kind == "choices" else abs(one - other) for one, other in pairs)


def timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def measure(kind: str, ours: JaxLM, theirs: dict[int, HFLM]) -> list[str]:
    """Cells of a row of the table: documents, requests, difference, seconds of both, the best batch size, the ratio."""
    requests = requests_of(TASKS[kind], kind == "answers", ours)
    runs = {batch: asking(model, requests) for batch, model in theirs.items()}
    mine = asking(ours, requests)
    compiling = timed(mine)
    difference = same(kind, mine(), next(iter(runs.values()))())
    if difference > (0 if kind == "answers" else TOLERANCE):
        raise SystemExit(f"{kind}: the two differ by {difference}")
    once = {batch: timed(run) for batch, run in runs.items()}
    best = min(once, key=once.__getitem__)
    seconds = [(timed(mine), timed(runs[best])) for _ in range(ROUNDS.value)]
    ratios = [other / one for one, other in seconds]
    documents = len({request.doc_id for request in requests})
    return [
        kind, str(documents), str(len(requests)), f"{difference:.1g}", f"{compiling:.1f}",
        *(spread([both[side] for both in seconds], ".2f") for side in (0, 1)), str(best), spread(ratios, ".2f"),
    ]  # fmt: skip


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main(argv: list[str]) -> None:
    torch.set_num_threads(CORES)
    names = ("lm_eval", "jax", "jaxlib", "torch", "transformers")
    print(", ".join(f"{name} {version(name)}" for name in names), f"{CORES} cores")
    ours = JaxLM(load_model(MODEL.value, make_mesh(MeshConfig(), jax.devices()[:1])))
    theirs = {
        int(batch): HFLM(pretrained=MODEL.value, device="cpu", dtype="float32", batch_size=int(batch)) for batch in BATCHES.value
    }
    head = "kind | documents | requests | difference | ours, first, s | ours, s | Hugging Face backend, s | its best batch | ratio"
    print(f"| {head} |\n|{'---|' * 9}")
    for kind in TASKS:
        print("|", " | ".join(measure(kind, ours, theirs)), "|", flush=True)


if __name__ == "__main__":
    app.run(main)
