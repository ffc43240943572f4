"""What an evaluation runs: tasks of lm-evaluation-harness, its own or ours (tasks/), each with how it is asked and scored."""

from dataclasses import dataclass
from typing import Literal

Chat = Literal["never", "always", "both"]


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """task: a task or group of the harness. chat: whether its prompts go through the model's chat template; `both` is two rows.

    num_fewshot: None is the task's own. limit: the first so many documents of each task; 0: all. scores: of what is generated,
    names of scores.SCORES and CORPUS_SCORES. language: of the answers (BCP-47), for these and for templates that write it; "":
    none is written. columns: what a local file of it must have, where its YAML does not say. optional: left out, with a line, where
    its data cannot be had. apart: context and answer are encoded each by itself, as in training. group, note: heading and words in
    the report. main: the metrics that the report shows; empty: all.
    """

    task: str
    chat: Chat = "never"
    num_fewshot: int | None = None
    limit: int = 0
    scores: tuple[str, ...] = ()
    language: str = "ur"
    columns: tuple[str, ...] = ()
    optional: bool = False
    apart: bool = False
    group: str = ""
    note: str = ""
    main: tuple[str, ...] = ()


@dataclass(kw_only=True)
class SuiteConfig:
    """heldout: loss and bits a byte of the shards of --data, or of the run's own held-out records, are rows too."""

    name: str = ""
    tasks: tuple[TaskEntry, ...] = ()
    heldout: bool = False
    about: str = ""
