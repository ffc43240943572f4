"""The typed config of the ingest: values and their bounds, and what may differ between two starts on one work directory."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from data_gen import UsageError
from data_gen.documents import DocumentRules
from data_gen.languages import load_label

SAMPLE = "sample"
LOCAL, SLURM, RAY = "local", "slurm", "ray"
Format = Literal["auto", "jsonl", "parquet", "warc", "hf"]
FORMATS: tuple[Format, ...] = get_args(Format)
# May differ: they decide where, how fast and whether at all, not what comes out.
_FREE = ("executor", "workers", "memory_gb", "slurm.", "min_language_share", "check_after")


@dataclass(kw_only=True)
class SlurmOptions:
    """What `sbatch` is told of each task. arguments: any others, as NAME=VALUE."""

    partition: str = ""
    time: str = "24:00:00"
    qos: str = ""
    arguments: tuple[str, ...] = ()

    def validate(self) -> None:
        """Raises UsageError where sbatch would refuse the job."""
        if not self.partition:
            raise UsageError("slurm.partition is empty: name one of the cluster's, as `sinfo` lists them")
        if wrong := [one for one in self.arguments if not one.partition("=")[2] or one.startswith("-")]:
            raise UsageError(f"slurm.arguments has {wrong[0]!r}; expected NAME=VALUE, such as account=lab")


@dataclass(kw_only=True)
class IngestConfig:
    """What is read, in which language, and by what rules it is kept.

    input: a file, a directory or a pattern, any behind an fsspec URL, or a hub id; "sample": the pages that are shipped. language:
    a label with its script, of a pack: urd_Arab. licence, source: what documents give that do not say it themselves. text_key,
    id_key: the columns of the text and of its number; subset, split: of a data set. tasks: parts that the files are divided into,
    and the files written; workers: how many at a time, -1: all, on this machine as many as it has processors. memory_gb: of a task,
    asked of Slurm and Ray. decontaminate: evaluation files; what has 13 words running in common with one goes. glotlid_model: a
    local file, for GlotLID instead of lingua. min_language_share: a task with a smaller part of its first `check_after` documents
    in the language stops, and so does the ingest where all its documents have a smaller one.
    """

    input: str = SAMPLE
    format: Format = "auto"
    language: str = "urd_Arab"
    licence: str = ""
    source: str = ""
    text_key: str = "text"
    id_key: str = "id"
    subset: str = ""
    split: str = "train"
    executor: Literal["local", "slurm", "ray"] = "local"
    tasks: int = 1
    workers: int = -1
    memory_gb: int = 2
    decontaminate: tuple[str, ...] = ()
    glotlid_model: str = ""
    min_language_share: float = 0.2
    check_after: int = 500
    rules: DocumentRules = field(default_factory=DocumentRules)
    slurm: SlurmOptions = field(default_factory=SlurmOptions)

    def validate(self) -> None:
        """Raises UsageError naming the first field that makes no sense."""
        bounds: list[tuple[str, float, float, float]] = [
            ("tasks", self.tasks, 1, 100_000),
            ("memory_gb", self.memory_gb, 1, 1024),
            ("min_language_share", self.min_language_share, 0, 1),
            ("check_after", self.check_after, 50, float("inf")),
        ]
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; it must be between {low} and {high}")
        if self.workers < 1 and self.workers != -1:
            raise UsageError(f"workers is {self.workers}; give how many tasks may run at a time, or -1 for all")
        load_label(self.language)
        if not self.input:
            raise UsageError("input is empty: give a file, a directory, a pattern or a hub id; 'sample' for the pages shipped")
        if not self.licence and self.input != SAMPLE:
            raise UsageError(
                "licence is empty: it goes into every document that names none, as the data's makers call it, say "
                "--config.licence=ODC-BY"
            )
        if self.executor == SLURM:
            self.slurm.validate()
        self.rules.validate()

    def asked(self) -> dict[str, Any]:
        """What decides which documents come out, by dotted name: all but who does the work and when it is given up."""
        return {name: value for name, value in flat(asdict(self)).items() if not name.startswith(_FREE)}


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"rules": {"min_letters": 1}, "globs": ("a",)} → {"rules.min_letters": 1, "globs": ["a"]}: tuples as JSON gives them back."""
    made: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            made |= flat(inner, f"{prefix}{key}.")
        else:
            made[prefix + key] = list(inner) if isinstance(inner, tuple) else inner
    return made
