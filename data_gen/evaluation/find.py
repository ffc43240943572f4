"""Finds an evaluation's tasks by name, of the harness or ours (tasks/*.yaml), and the rows of each, before any model is loaded.

Rows come from a file below --data_dir (local_data.py), else from the hub or its cache, as the harness would have them; tasks whose
data was written for this project bring it along. The harness gets them as the task's `custom_dataset`. What is missing is told at
once, for all tasks.
"""

import difflib
import logging
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import jinja2
from lm_eval.tasks import TaskManager

from data_gen import UsageError
from data_gen.evaluation import local_data
from data_gen.evaluation.suites import TaskEntry

OWN = Path(__file__).with_name("tasks")
REACH_S = 5.0
CHECKED = 100  # documents whose right answer is looked at
_GROUP_KEYS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag"}
# What load_dataset raises for a set that is not there, gated, or out of reach: OSError has those of the network and of the hub.
_HUB_ERRORS = (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError)
_UNFIT = (KeyError, IndexError, TypeError, ValueError, AttributeError, jinja2.TemplateError)  # what rows of another form raise


@dataclass(frozen=True)
class Found:
    """What an entry of a suite comes to. tasks: the harness's, by name, with the entry's number of examples. left_out: tasks of an
    optional entry, with the reason. sources: where each task's rows are from.
    """

    entry: TaskEntry
    tasks: dict[str, Any]
    left_out: dict[str, str]
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A task before it is made. config: as its YAML has it, functions unread, with the changes that its group and entry make."""

    name: str
    config: Mapping[str, Any]
    changes: Mapping[str, Any]
    entry: TaskEntry
    splits: local_data.Splits

    @property
    def columns(self) -> tuple[str, ...]:
        """What its rows must have, as far as one can know."""
        stated = self.about.get("columns") or ()
        functions = self.config.get("process_docs") is not None
        of_templates = () if stated or (functions and self.entry.columns) else self.of_templates
        return tuple(dict.fromkeys([*stated, *of_templates, *self.entry.columns]))

    @property
    def of_templates(self) -> tuple[str, ...]:
        return local_data.template_columns(self.config, bool(self.splits.shots))

    @property
    def about(self) -> Mapping[str, Any]:
        """What our own YAML files say of their data: columns, source (a sentence), local (there is none on the hub)."""
        said = self.config.get("metadata")
        return said if isinstance(said, dict) else {}

    def want(self, reason: str) -> local_data.Want:
        """The files that would do."""
        return local_data.Want(
            task=self.name,
            folder=str(self.config.get("dataset_path")),
            name=str(self.config.get("dataset_name") or "default"),
            splits=tuple(dict.fromkeys(split for split in (self.splits.asked, self.splits.shots) if split)),
            columns=self.columns,
            note=str(self.about.get("source") or ""),
            reason=reason,
        )


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """splits: None where the task fetches its rows itself. reason: why there are none."""

    splits: Mapping[str, Any] | None = None
    source: str = ""
    reason: str = ""


def find_tasks(entries: Sequence[TaskEntry], *, data_dir: str = "") -> list[Found]:
    """The tasks of each entry with their rows, in the entries' order; groups and tags are all of their tasks.

    Raises UsageError for a task of an unknown name, for rows that are neither in data_dir nor on the hub (with all files, columns
    and splits that are wanted), and for rows that a task cannot be made of.
    """
    manager = _manager_for(entries)
    if data_dir:
        local_data.check_directory(data_dir)
    wanted = [[*_tasks_of(entry, manager.task_index)] for entry in entries]
    reader = _Reader(data_dir)
    with quiet():
        rows = [[(task, reader.rows_of(task)) for task in tasks] for tasks in wanted]
        if missing := [task.want(got.reason) for group in rows for task, got in group if got.reason and not task.entry.optional]:
            raise UsageError(local_data.tell_missing(missing, sum(map(len, rows)), data_dir))
        return [_found(entry, group, manager, data_dir) for entry, group in zip(entries, rows, strict=True)]


# --- names ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def _manager(defaults: bool) -> TaskManager:
    """The harness's own tasks are 14,683 files, and reading them takes ten seconds."""
    with quiet():
        return TaskManager(include_path=str(OWN), include_defaults=defaults)


def _manager_for(entries: Sequence[TaskEntry]) -> TaskManager:
    ours = _manager(False)
    others = [entry.task for entry in entries if entry.task not in ours.task_index]
    if not others:
        return ours
    manager = _manager(True)
    for name in others:
        if name not in manager.task_index:
            near = [near for some in (ours, manager) for near in difflib.get_close_matches(name, some.all_tasks, 3)]
            raise UsageError(
                f"there is no task {name!r}, here or in lm-evaluation-harness"
                + (f"; did you mean {', '.join(dict.fromkeys(near))}?" if near else "; `lm_eval ls tasks` lists the harness's")
            )
    return manager


def _tasks_of(entry: TaskEntry, index: Mapping[str, Any]) -> Iterator[_Task]:
    shots = {} if entry.num_fewshot is None else {"num_fewshot": entry.num_fewshot}
    for name, changes in dict(_members(entry.task, index, {})).items():
        config = {**index[name].cfg, **changes, **shots}
        yield _Task(name=name, config=config, changes={**changes, **shots}, entry=entry, splits=local_data.splits_of(config))


def _members(name: str, index: Mapping[str, Any], changes: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The tasks of a task, group or tag, with what the groups above say of them."""
    kind = index[name].kind.name
    if kind == "TAG":
        for task in sorted(index[name].tags):
            yield from _members(task, index, changes)
    elif kind == "GROUP":
        yield from _group_members(index[name].cfg, index, changes)
    else:
        yield name, dict(changes)


def _group_members(
    config: Mapping[str, Any], index: Mapping[str, Any], changes: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    below = {key: value for key, value in config.items() if key not in _GROUP_KEYS} | dict(changes)
    members = config.get("task") or []
    for member in [members] if isinstance(members, str | dict) else members:
        said = {"task": member} if isinstance(member, str) else member
        name = str(said.get("group") or said.get("task"))
        if name in index:
            yield from _members(name, index, below | {key: value for key, value in said.items() if key not in _GROUP_KEYS})
        elif isinstance(said.get("task"), list):  # a group within a group
            yield from _group_members(said, index, below)
        else:
            raise UsageError(
                f"the group {config.get('group')} describes its task {name!r} in its own file, which is not supported here; name "
                "other tasks"
            )


# --- rows -------------------------------------------------------------------------------------------------------------


class _Reader:
    """Rows of tasks; what several tasks share is read once."""

    def __init__(self, data_dir: str) -> None:
        self.data_dir = data_dir
        self._files = dict[tuple[Any, ...], Any]()
        self._hub = dict[str, _Rows]()

    def rows_of(self, task: _Task) -> _Rows:
        if task.config.get("custom_dataset") is not None:
            return _Rows(source="with the task")
        if "class" in task.config:
            return _Rows(source="by the task's own code")
        asked = local_data.find_file(self.data_dir, [local_data.stem(task.config, task.splits.asked), task.name])
        if asked is not None:
            return self._local(task, asked)
        if task.about.get("local"):
            return _Rows(reason="no place on the hub is known that has it")
        return self._of_hub(task)

    def _local(self, task: _Task, asked: str) -> _Rows:
        files = {task.splits.asked: asked}
        for split in task.splits.named:
            if split not in files and (file := local_data.find_file(self.data_dir, [local_data.stem(task.config, split)])):
                files[split] = file
        if task.splits.shots and task.splits.shots not in files:
            return _Rows(reason=f"{asked} is there, but not the split {task.splits.shots}, where its examples come from")
        splits = {split: self._split(task, file) for split, file in files.items()}
        # The harness reads splits that it makes no use of where no examples are asked for: the same rows stand in for them.
        return _Rows(splits={name: splits.get(name, splits[task.splits.asked]) for name in task.splits.named}, source=asked)

    def _split(self, task: _Task, file: str) -> Any:
        filled = () if task.config.get("process_docs") is not None else task.of_templates
        target = task.config.get("doc_to_target")
        key = (file, filled, task.entry.columns, target)
        if key not in self._files:
            self._files[key] = local_data.read_split(file, filled, task.entry.columns, target)
        return self._files[key]

    def _of_hub(self, task: _Task) -> _Rows:
        path, name = task.config.get("dataset_path"), task.config.get("dataset_name")
        options = {key: value for key, value in (task.config.get("dataset_kwargs") or {}).items() if key != "trust_remote_code"}
        key = f"{path} {name} {options}"
        if key not in self._hub:
            self._hub[key] = _load(path, name, options)
        rows = self._hub[key]
        wanted = [split for split in task.splits.named if rows.splits is not None and split not in rows.splits]
        if wanted and rows.splits is not None:
            return _Rows(reason=f"{rows.source} has the splits {', '.join(rows.splits)}, and not {', '.join(wanted)}")
        return rows


@lru_cache(maxsize=1)
def _unreachable() -> str:
    """The hub's host where it cannot be reached, else "": its client would try for half a minute, for each set. What is in its
    cache is taken from there.
    """
    place = urllib.parse.urlsplit(huggingface_hub.constants.ENDPOINT)
    if datasets.config.HF_HUB_OFFLINE or urllib.request.getproxies():
        return ""
    try:
        socket.create_connection((place.hostname or "", place.port or 443), timeout=REACH_S).close()
        return ""
    except OSError:
        datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
        return place.netloc


def _load(path: Any, name: Any, options: Mapping[str, Any]) -> _Rows:
    _unreachable()
    try:
        return _Rows(splits=datasets.load_dataset(path=path, name=name, **options), source=f"{path} on the hub")
    except _HUB_ERRORS as error:
        return _Rows(reason=_reason(error))


def _reason(error: Exception) -> str:
    """Why the hub does not give it. Raises an error that is not the hub's."""
    if isinstance(error, UsageError) or (isinstance(error, RuntimeError) and "script" not in str(error)):
        raise error
    if isinstance(error, RuntimeError):
        return "it is a script there, which the hub no longer runs"
    if isinstance(error, ConnectionError) and _unreachable():
        return f"{_unreachable()} cannot be reached"
    if isinstance(error, ConnectionError) and datasets.config.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE forbids to ask"
    return " ".join(str(error).split()) or type(error).__name__


# --- tasks ------------------------------------------------------------------------------------------------------------


def _found(entry: TaskEntry, group: Sequence[tuple[_Task, _Rows]], manager: TaskManager, data_dir: str) -> Found:
    tasks, left_out, sources = dict[str, Any](), dict[str, str](), dict[str, str]()
    for task, rows in group:
        if rows.reason:
            columns = f" with {', '.join(task.columns)}" if task.columns else ""
            left_out[task.name] = f"its data is not here ({rows.reason}); {task.name}.jsonl{columns} below --data_dir would do"
        elif rows.splits is not None:
            tasks[task.name], sources[task.name] = _make_of(rows, rows.splits, task, manager), rows.source
        else:
            try:
                tasks[task.name], sources[task.name] = _make(task, manager), rows.source
            except _HUB_ERRORS as error:
                reason = f"the task {task.name} fetches its rows itself, and cannot: {_reason(error)}"
                if not entry.optional:
                    raise UsageError(reason) from error
                left_out[task.name] = reason
    return Found(entry=entry, tasks=tasks, left_out=left_out, sources=sources)


def _make(task: _Task, manager: TaskManager, **more: Any) -> Any:
    """The harness's task. A dict for load() would be a whole new task; as a member of a group it changes the one of its name."""
    member = {**task.changes, **more, "task": task.name}
    return manager.load({"group": f"found {task.name}", "task": [member]})["tasks"][task.name]


def _make_of(rows: _Rows, splits: Mapping[str, Any], task: _Task, manager: TaskManager) -> Any:
    def custom_dataset(**_: object) -> Mapping[str, Any]:  # a function: the harness copies its config, and functions are not copied
        return splits

    try:
        made = _make(task, manager, custom_dataset=custom_dataset)
        _check_answers(made)
    except UsageError as error:
        raise UsageError(f"{rows.source}, for the task {task.name}: {error}") from error
    except _UNFIT as error:
        hint = "; CSV has nothing but text, so give JSONL" if ".csv" in rows.source else ""
        raise UsageError(
            f"no task {task.name} can be made of {rows.source} ({type(error).__name__}: {error}); its rows have the columns "
            f"{', '.join(splits[task.splits.asked].column_names)}, expected were {', '.join(task.columns)}, in rows that belong to "
            f"this task{hint}"
        ) from error
    return made


def _check_answers(made: Any) -> None:
    """The harness counts a right answer that is none of the choices as a wrong one, and goes on."""
    if made.OUTPUT_TYPE != "multiple_choice" or made.multiple_input:
        return
    for number, document in zip(range(1, CHECKED + 1), made.task_docs, strict=False):
        choices, right = made.doc_to_choice(document), made.doc_to_target(document)
        for one in right if isinstance(right, list) else [right]:
            if not (0 <= one < len(choices) if isinstance(one, int) else one in choices):
                raise UsageError(
                    f"the right answer of document {number} is {one!r}, and expected was 0 to {len(choices) - 1} or one of "
                    f"{', '.join(map(str, choices))}"
                )


@contextmanager
def quiet() -> Iterator[None]:
    """The harness warns of each task that its rows come from a function, and `datasets` shows a bar for each filter."""
    logger, bars = logging.getLogger("lm_eval"), not datasets.utils.are_progress_bars_disabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()
