"""The evaluation of several models on one suite: what launch/evaluate.py calls, and launch/train.py at intervals. Not an entry
point. Which models: columns.py.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alif_jax import files
from alif_jax.data.tfrecord import read_records
from alif_jax.evaluate import evaluate_loss, loss_table
from alif_jax.load import Loaded, load_model
from alif_jax.sharding import MeshConfig, make_mesh
from data_gen.evaluation.suites import SuiteConfig, TaskEntry
from launch.app import UsageError, load_recipe
from launch.columns import Column

SUITES = "configs/evaluation.py"
VERSIONS = ("alif-jax", "lm_eval", "jax", "flax", "sacrebleu", "datasets", "tokenizers", "transformers", "torch")
HELDOUT = 500  # records that bits a byte are measured on, at most


def heldout_loss(
    model: str, data: str, *, split: str, step: str, sequence_length: int, dtype: str, template: str, batch_size: int, as_json: bool
) -> str:
    """What launch/evaluate.py says without suite and tasks."""
    if not data:
        raise UsageError("give --suite=NAME, --tasks=A,B, or --data=SHARDS for the held-out loss")
    loaded = load_model(model, make_mesh(MeshConfig()), dtype=dtype, param_dtype=dtype, step=step)
    result = evaluate_loss(loaded, data, split=split, sequence_length=sequence_length, batch_size=batch_size, template=template)
    return json.dumps(result, ensure_ascii=False) if as_json else loss_table(result)


def default_output(model: str, suite: str) -> str:
    """Beside a run or a model's directory. Raises UsageError for a hub id."""
    if not Path(model).is_dir():
        raise UsageError(f"--model={model} is no directory to put results into; give --output=DIR")
    return str(Path(model, "evaluation", suite))


def check_installed() -> None:
    """Raises UsageError where the harness, an extra of setup.py, is missing."""
    if find_spec("lm_eval") is None:
        raise UsageError("suites and tasks need lm-evaluation-harness, which is not installed; pip install -e '.[data,eval]'")


def load_suite(name: str) -> SuiteConfig:
    """By its name in configs/evaluation.py."""
    found = load_recipe(f"{SUITES}:{name}")
    assert isinstance(found, SuiteConfig)
    return found


def suite_of(name: str, tasks: Sequence[str], chat: Any, num_fewshot: int | None) -> SuiteConfig:
    """A suite, or tasks of the harness by their names. Raises UsageError for both or neither."""
    check_installed()
    if bool(name) == bool(tasks):
        raise UsageError("give --suite=NAME or --tasks=A,B")
    entries = tuple(TaskEntry(task=task, chat=chat, num_fewshot=num_fewshot) for task in tasks)
    return load_suite(name) if name else SuiteConfig(name="tasks", tasks=entries)


def evaluate(
    models: Sequence[Column], suite: SuiteConfig, output: str, *, command: str, data: Sequence[str] = (), data_dir: str = "",
    limit: int = 0, price_per_hour: float | None = None,
) -> list[Any]:  # fmt: skip
    """Asks every model the same, writes results and report into `output`, returns the results. What was asked before is not
    asked again. data: shards whose held-out records are measured on; else those of the last run among the models.
    """
    from data_gen.evaluation.find import find_tasks
    from data_gen.evaluation.leaks import build_texts, find_leaks
    from data_gen.evaluation.report import write_report
    from data_gen.evaluation.run import evaluate_model, heldout_tasks

    found = find_tasks(suite.tasks, data_dir=data_dir)
    texts = build_texts(found)
    if suite.heldout:
        heldout = data or next((one.heldout for one in reversed(models) if one.heldout), ())
        found += heldout_tasks(heldout_rows(heldout, limit or HELDOUT))
    results = []
    for column in models:
        with ExitStack() as open_ones:
            results.append(evaluate_model(
                partial(column.load, open_ones), found, name=column.name, kind=column.kind, about=column.about,
                identity=column.identity, output=output, say=say, limit=limit, price_per_hour=price_per_hour, versions=versions(),
            ))  # fmt: skip
    if not any(result.scores for result in results):
        raise UsageError(f"nothing could be asked: {next(iter(results[-1].left_out.values()), 'the suite has no task')}")
    shards = list(dict.fromkeys(path for one in models for path in one.train))
    there = [path for path in shards if files.exists(files.join(path, "manifest.json"))]
    leaks = find_leaks(there, texts, training_texts(there))
    if missing := [path for path in shards if path not in there]:
        leaks["missing"] = f"Not looked at, as it is not there: {', '.join(missing)}"
    base = models[0].name if len(models) > 1 else None
    write_report(output, results, base=base, title=suite.name, command=command, leaks=leaks)
    return results


def as_json(results: Sequence[Any]) -> str:
    """{model: {task: {metric: value}}}."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for result in results:
        for score in result.scores:
            found.setdefault(result.name, {}).setdefault(score.task, {})[score.metric] = score.value
    return json.dumps(found, ensure_ascii=False)


def table(results: Sequence[Any], output: str) -> str:
    """A line a row, a column a model: what the report has with intervals and signs."""
    rows = list(dict.fromkeys(score.key for result in results for score in result.scores))
    wide = max([len(result.name) for result in results] + [9]) + 2
    lines = [f"{'':48}" + "".join(f"{result.name:>{wide}}" for result in results)]
    for key in rows:
        found = [result.score(key) for result in results]
        lines.append(f"{' '.join(key):48}" + "".join(f"{one.value:{wide}.4f}" if one else f"{'-':>{wide}}" for one in found))
    return "\n".join([*lines, f"report  {Path(output, 'report.html')}"])


def heldout_rows(directories: Sequence[str], most: int) -> list[dict[str, str]]:
    """Held-out records as run.heldout_tasks wants them: texts, or first questions with their answers; as many of each directory."""
    rows: list[dict[str, str]] = []
    for number, directory in enumerate(directories, start=1):
        for record in read_records(directory, "heldout"):
            if len(rows) >= most * number // len(directories):
                break
            if record.messages is None:
                rows.append({"text": record.text or ""})
            else:
                turns = [message["content"] for message in record.messages if message["role"] != "system"]
                rows.append({"prompt": turns[0], "answer": turns[1]})
    return rows


def training_texts(directories: Sequence[str]) -> Iterator[str]:
    """What models were trained on, record by record."""
    for directory in directories:
        for record in read_records(directory, "train"):
            yield record.text or "\n".join(message["content"] for message in record.messages or ())


def versions() -> dict[str, str]:
    """Of the packages that a figure depends on, as far as they are installed."""
    installed = {distribution.metadata["Name"].lower().replace("-", "_") for distribution in metadata.distributions()}
    return {name: metadata.version(name) for name in VERSIONS if name.lower().replace("-", "_") in installed}


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def watch(name: str, limit: int) -> Callable[[Loaded], dict[str, float]]:
    """For a run that goes on: a suite's metrics of the model as it is, {"urdu_quick/urdu_text/bits_per_byte": 1.2, …}."""
    check_installed()
    from alif_jax.harness import JaxLM
    from data_gen.evaluation.find import find_tasks
    from data_gen.evaluation.run import scores_of

    found = find_tasks(load_suite(name).tasks)

    def metrics(loaded: Loaded) -> dict[str, float]:
        return {f"{name}/{row.task}/{row.metric}": row.value for row in scores_of(JaxLM(loaded), found, limit)}

    return metrics
