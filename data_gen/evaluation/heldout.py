"""Held-out records of a run as tasks of the harness: what every model says of them, whatever backend it has and however it cuts
text into tokens.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask

from data_gen.evaluation.find import Found, quiet
from data_gen.evaluation.suites import TaskEntry

BITS = "bits_per_byte"


def heldout_tasks(rows: Sequence[Mapping[str, str]], where: str = "") -> list[Found]:
    """Bits a byte of held-out records: of whole texts, and of first answers to their questions through the chat template, by
    language where there are several.

    rows: {"language", "text"} or {"language", "system", "prompt", "answer"}; where: what they are from, for the report. The same
    bytes for every model, whatever its tokenizer.
    """
    bits = [{"metric": BITS, "aggregation": BITS, "higher_is_better": False}]
    codes = sorted({row["language"] for row in rows})
    found = []
    for code in codes:
        end = f"_{code}" if len(codes) > 1 else ""
        some = [dict(row) for row in rows if row["language"] == code]
        if texts := [row for row in some if "text" in row]:
            task = _own_task(
                f"heldout_text{end}", texts, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}",
                metric_list=bits,
            )  # fmt: skip
            found.append(_own_found(task, "never", f"held-out documents {where}".strip(), code))
        if pairs := [row for row in some if "text" not in row]:
            task = _own_task(
                f"heldout_answers{end}", pairs, output_type="loglikelihood", doc_to_text="{{prompt}}", doc_to_target="{{answer}}",
                description="{{system}}", target_delimiter="", process_results=_bits_of_answer, metric_list=bits,
            )  # fmt: skip
            found.append(_own_found(task, "always", f"answers to held-out questions {where}".strip(), code))
    return found


def no_heldout(reason: str) -> Found:
    """In the place of held-out records that cannot be had."""
    return Found(TaskEntry(task="heldout"), {}, {"heldout": reason})


def _own_task(name: str, rows: list[dict[str, str]], **config: Any) -> ConfigurableTask:
    splits = {"test": datasets.Dataset.from_list(rows)}
    fields = {"task": name, "test_split": "test", "num_fewshot": 0, "custom_dataset": partial(_given, splits), **config}
    with quiet():
        return ConfigurableTask(config=fields)


def _given(splits: dict[str, datasets.Dataset], **_: Any) -> dict[str, datasets.Dataset]:
    return splits


def _bits_of_answer(document: Mapping[str, str], results: Sequence[tuple[float, bool]]) -> dict[str, tuple[float, int]]:
    return {BITS: (results[0][0], len(document["answer"].encode()))}


def _own_found(task: ConfigurableTask, chat: Any, note: str, language: str) -> Found:
    name = str(task.config.task)
    return Found(TaskEntry(task=name, chat=chat, group="Held out", note=note, language=language, apart=True), {name: task}, {})
