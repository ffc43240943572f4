"""Rows of test sets from files of one's own, in place of the Hugging Face hub: where a file is looked for, which columns it must
have, and its rows as the harness wants them.

    DIR/facebook/belebele/urd_Arab/test.jsonl     dataset_path/dataset_name/split, as the task's YAML has them ("default": no name)
    DIR/belebele_urd_Arab.jsonl                   the same for the split that is asked, by the task's name

JSONL, a list in .json, CSV and Parquet, all but the last also gzipped. Of nothing here is a network asked.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import jinja2
from jinja2 import meta, nodes

from data_gen import UsageError
from data_gen.import_files import find_files, kind_of, read_rows

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
_TEMPLATES = ("doc_to_text", "doc_to_choice", "doc_to_target", "description", "gen_prefix")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Which splits a task's YAML names. asked: what is evaluated; shots: where its examples come from, "" where it has none or
    brings them along; named: all it reads, also what it makes no use of.
    """

    asked: str
    shots: str
    named: tuple[str, ...]


def splits_of(config: Mapping[str, Any], num_fewshot: int | None = None) -> Splits:
    """As lm_eval.api.task.ConfigurableTask chooses. num_fewshot: where it is not the YAML's."""
    training, validation, test = (str(config.get(f"{kind}_split") or "") for kind in ("training", "validation", "test"))
    fewshot = config.get("fewshot_config") or {}
    examples = str(fewshot.get("split") or config.get("fewshot_split") or "")
    if not examples and not fewshot.get("samples"):
        examples = training or validation or test
    shots = num_fewshot if num_fewshot is not None else config.get("num_fewshot") or 0
    named = dict.fromkeys(name for name in (test or validation, training, validation, test, examples) if name)
    return Splits(asked=test or validation, shots=examples if shots else "", named=tuple(named))


def template_columns(config: Mapping[str, Any], shots: bool = False) -> tuple[str, ...]:
    """Columns without which a task's templates cannot be written, in the order they are met; what a function reads is not seen.

    template_columns({"doc_to_text": "{{question}} {% if hint is defined %}…{% endif %}", "doc_to_target": "label"}) is
    ("question", "label").
    """
    of_shots = config.get("fewshot_config") or {} if shots else {}
    found = dict[str, None]()
    for template in [source[key] for source in (config, of_shots) for key in _TEMPLATES if key in source]:
        if isinstance(template, str):
            found |= dict.fromkeys(_variables(template))
    return tuple(found)


def _variables(template: str) -> list[str]:
    if template.isidentifier():  # a column's name by itself
        return [template]
    tree = jinja2.Environment().parse(template)
    perhaps = {test.node.name for test in tree.find_all(nodes.Test) if test.name == "defined" and isinstance(test.node, nodes.Name)}
    wanted = meta.find_undeclared_variables(tree) - perhaps
    met = [name.name for name in tree.find_all(nodes.Name) if name.name in wanted]
    return list(dict.fromkeys(met))


def stem(config: Mapping[str, Any], split: str) -> str:
    """Where below DIR a split's file is, without its suffix: facebook/belebele/urd_Arab/test."""
    return f"{config.get('dataset_path')}/{config.get('dataset_name') or 'default'}/{split}"


def check_directory(data_dir: str) -> None:
    """Raises UsageError where there is none of this name."""
    fs, root = fsspec.core.url_to_fs(data_dir)
    if not fs.isdir(root):
        raise UsageError(f"--data_dir={data_dir} is no directory; it holds files such as facebook/belebele/urd_Arab/test.jsonl")


def find_file(data_dir: str, stems: Iterable[str]) -> str | None:
    """The first file there is of these stems, with any of SUFFIXES."""
    names = (f"{data_dir.rstrip('/')}/{name}{suffix}" for name in stems for suffix in SUFFIXES)
    return next((found[0] for name in names if (found := find_files(name))), None) if data_dir else None


def read_split(file: str, filled: Sequence[str] = (), present: Sequence[str] = (), target: object = None) -> Any:
    """A file's rows as a datasets.Dataset.

    filled: columns that each row must have, and not empty; present: that each must have. target: the task's doc_to_target. CSV has
    nothing but text: in a cell a JSON list or object is read as one, and a column of whole numbers that `target` names as numbers.
    Raises UsageError for a file without rows and for a row of another form, with its line.
    """
    import datasets
    import pyarrow

    rows = list[dict[str, Any]]()
    for row in read_rows(file):
        if row.fault:
            raise UsageError(f"{file}, row {row.number}: {row.fault}; mend it")
        if missing := [name for name in dict.fromkeys([*filled, *present]) if name not in row.columns]:
            raise UsageError(
                f"{file}, row {row.number} has the columns {', '.join(row.columns) or '(none)'}; expected were "
                f"{', '.join(dict.fromkeys([*filled, *present]))}, of which {', '.join(missing)} is missing: rename or add it"
            )
        if empty := [name for name in filled if row.columns[name] is None]:
            raise UsageError(f"{file}, row {row.number}: {', '.join(empty)} is null, and the prompt needs it; fill it in")
        rows.append(dict(row.columns))
    if not rows:
        raise UsageError(f"{file} has no rows; one JSON object a line was expected")
    if kind_of(file) in (".csv", ".tsv"):
        rows = _typed(rows, target)
    try:
        return datasets.Dataset.from_list(rows)
    except (pyarrow.ArrowException, TypeError) as error:
        raise UsageError(f"{file}: a column has values of several kinds ({error}); write them alike in all rows") from error


def _typed(rows: list[dict[str, Any]], target: object) -> list[dict[str, Any]]:
    if isinstance(target, str) and all(_whole(row.get(target)) for row in rows):
        rows = [row | {target: int(row[target])} for row in rows]
    return [{name: _nested(value) for name, value in row.items()} for row in rows]


def _whole(value: object) -> bool:
    return isinstance(value, str) and value.strip().removeprefix("-").isdecimal()


def _nested(value: Any) -> Any:
    if not (isinstance(value, str) and value[:1] in ("[", "{")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # a text that begins with a bracket


# --- what is missing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Want:
    """Files that a task's rows would be read from. splits: the one asked, then the one of its examples. reason: why the hub has
    them not.
    """

    task: str
    folder: str
    name: str
    splits: tuple[str, ...]
    columns: tuple[str, ...]
    note: str
    reason: str


def tell_missing(wants: Sequence[Want], tasks: int, data_dir: str) -> str:
    """All files that are missing of so many tasks, each once; those that differ in one folder's name are told together:
    DIR/cais/mmlu/{anatomy,astronomy}/{test,dev}.jsonl with question, choices, answer.
    """
    files = dict[tuple[Any, ...], list[str]]()
    for want in wants:
        columns = files.setdefault((want.folder, want.name, want.splits, want.note), [])
        columns += [name for name in want.columns if name not in columns]
    names, reasons = dict[tuple[Any, ...], list[str]](), dict[str, list[str]]()
    for (folder, name, splits, note), columns in files.items():
        names.setdefault((folder, splits, note, tuple(columns)), []).append(name)
    for want in wants:
        sets = reasons.setdefault(want.reason, [])
        sets += [want.folder] if want.folder not in sets else []
    base = data_dir.rstrip("/") or "DIR"
    told = "; ".join(
        f"{base}/{folder}/{_braces(some)}/{_braces(splits)}.jsonl with {', '.join(columns) or 'the columns of the set'}"
        + (f", examples in {splits[1]}" if len(splits) > 1 else "")
        + (f" ({note})" if note else "")
        for (folder, splits, note, columns), some in names.items()
    )
    why = "; ".join(f"{reason} ({', '.join(sets)})" for reason, sets in reasons.items())
    return (
        f"the rows of {len(wants)} of {tasks} task{'s' if tasks > 1 else ''} are neither below --data_dir"
        f"{'=' + data_dir if data_dir else ' (not given)'} nor from the hub: {why}. Put there JSONL (or .json, .csv, .parquet): "
        f"{told}. The split that is asked may also be {base}/TASK.jsonl, such as {base}/{wants[0].task}.jsonl. Or leave it out"
    )


def _braces(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
