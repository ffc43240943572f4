"""The evaluation of several models on one suite: what launch/evaluate.py calls, and launch/train.py at intervals. Not an entry
point. Which models: columns.py.
"""

import dataclasses
import json
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

import alif_jax
import data_gen
from alif_jax import files
from alif_jax.data.tfrecord import read_records
from alif_jax.evaluate import evaluate_loss, loss_table
from alif_jax.guards import check_same_on_all_hosts
from alif_jax.load import Loaded, load_model
from alif_jax.run import digest
from alif_jax.sharding import MeshConfig, make_mesh
from data_gen.evaluation.suites import SuiteConfig, TaskEntry
from launch.app import ROOT, UsageError, load_recipe
from launch.columns import Column

SUITES = "configs/evaluation.py"
VERSIONS = ("alif-jax", "lm_eval", "jax", "flax", "sacrebleu", "datasets", "tokenizers", "transformers", "torch")
REFUSED = (alif_jax.UsageError, data_gen.UsageError)  # what a model cannot do is left out with the reason
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


def load_suites() -> list[SuiteConfig]:
    return list(runpy.run_path(str(ROOT / SUITES))["SUITES"].values())


def suite_of(name: str, tasks: Sequence[str], chat: Any, num_fewshot: int | None) -> SuiteConfig:
    """A suite, or tasks of the harness by their names: as a suite asks and scores them, where one does. Raises UsageError for both
    or neither.
    """
    check_installed()
    if bool(name) == bool(tasks):
        raise UsageError("give --suite=NAME or --tasks=A,B")
    if name and (chat is not None or num_fewshot is not None):
        raise UsageError("--chat and --num_fewshot belong to --tasks; a suite says for each task how it is asked")
    if name:
        return load_suite(name)
    changes: dict[str, Any] = {key: value for key, value in (("chat", chat), ("num_fewshot", num_fewshot)) if value is not None}
    known = {entry.task: entry for suite in load_suites() for entry in suite.tasks}
    entries = (known.get(task, TaskEntry(task=task, language="")) for task in tasks)
    return SuiteConfig(name="tasks", tasks=tuple(dataclasses.replace(entry, **changes) for entry in entries))


def evaluate(
    models: Sequence[Column], suite: SuiteConfig, output: str, *, command: str, data: Sequence[str] = (), data_dir: str = "",
    limit: int = 0, price_per_hour: float | None = None,
) -> list[Any]:  # fmt: skip
    """Asks every model the same, writes results and report into `output`, returns the results. What was asked before is not
    asked again. data: shards whose held-out records are measured on; else those of the last run among the models.
    """
    from data_gen.evaluation.find import find_tasks
    from data_gen.evaluation.heldout import heldout_tasks, no_heldout
    from data_gen.evaluation.leaks import build_texts, find_leaks
    from data_gen.evaluation.report import write_report
    from data_gen.evaluation.run import evaluate_model

    found = find_tasks(suite.tasks, data_dir=data_dir)
    texts = build_texts(found)
    if suite.heldout:
        heldout = data or next((one.heldout for one in models if one.main), ())
        gone = [path for path in heldout if not files.exists(files.join(path, "manifest.json"))]
        if gone and not data:
            found.append(no_heldout(f"its shards are not there: {', '.join(gone)}; --data=SHARDS gives others"))
        elif not heldout:
            found.append(no_heldout("a model that is no run says nothing of held-out records; --data=SHARDS gives some"))
        else:
            found += heldout_tasks(heldout_rows(heldout, limit or HELDOUT), f"of {', '.join(heldout)}")
    results, installed = [], versions()
    for column in models:
        with ExitStack() as open_ones:
            results.append(evaluate_model(
                partial(column.load, open_ones), found, name=column.name, kind=column.kind, about=column.about,
                identity=column.identity, output=output, say=say, limit=limit, price_per_hour=price_per_hour, versions=installed,
                refused=REFUSED,
            ))  # fmt: skip
    if all(not result.scores and result.left_out for result in results):
        raise UsageError(f"nothing could be asked: {next(iter(results[-1].left_out.values()))}")
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
    """Held-out records as heldout_tasks wants them: texts, or first questions with their answers; as many of each directory."""
    rows: list[dict[str, str]] = []
    for number, directory in enumerate(directories, start=1):
        for record in read_records(directory, "heldout"):
            if len(rows) >= most * number // len(directories):
                break
            said = {"language": record.language}
            if record.messages is None:
                rows.append(said | {"text": record.text or ""})
            else:
                by_role = {message["role"]: message["content"] for message in reversed(record.messages)}  # the first of each
                rows.append(said | {"system": by_role.get("system", ""), "prompt": by_role["user"], "answer": by_role["assistant"]})
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
    """On stderr: stdout is for the table or JSON."""
    if jax.process_index() == 0:
        print(f"{time.strftime('%H:%M:%S')}  {line}", file=sys.stderr, flush=True)


def watch(name: str, limit: int) -> Callable[[Loaded], dict[str, float]]:
    """For a run that goes on: a suite's metrics of the model as it is, {"urdu_quick/urdu_text/bits_per_byte": 1.2, …}."""
    check_installed()
    from alif_jax.harness import JaxLM
    from data_gen.evaluation.find import find_tasks
    from data_gen.evaluation.run import scores_of

    found = find_tasks(load_suite(name).tasks)
    for left_out in (one.left_out for one in found):
        for task, reason in left_out.items():
            say(f"{name}: {task}: left out: {reason}")
    asked = {task: len(made.eval_docs) for one in found for task, made in one.tasks.items()}
    check_same_on_all_hosts(f"what suite={name} asks", digest(asked))  # they compute together
    told = set[str]()

    def tell(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    def metrics(loaded: Loaded) -> dict[str, float]:
        rows = scores_of(JaxLM(loaded), found, limit, tell, REFUSED)
        return {f"{name}/{row.task}/{row.metric}": row.value for row in rows}

    return metrics
