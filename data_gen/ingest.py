"""Web text into clean documents of one language: plans the stages, runs them by some executor, goes on where a start stopped. The
rules are in documents.py, the steps of a task in ingest_blocks.py.

    clean (tasks)   input → work/cleaned, work/facts, removed/clean-*
    choose (1)      work/facts of all tasks → work/chosen: no two alike, not too many of a domain
    write (tasks)   work/cleaned, work/chosen → documents/, removed/choose-*
    finish (1)      counts → report.md, manifest.json; work/ goes

    WORKDIR/documents/00000.jsonl.gz   one document a line: id, text, language, url, domain, date, licence, source, news …
            removed/                   id, reason, url and first letters of what was taken out
            report.md, manifest.json   the latter last
            logs/                      config.json, counts, and datatrove's own of every task

A document's id is a hash of its language and text, and what stays is a function of the set of documents: it makes no difference how
many tasks there are, nor where they run.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from datatrove.io import DataFolder, get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers.jsonl import JsonlWriter
from fsspec.implementations.memory import MemoryFileSystem

from data_gen import UsageError
from data_gen import ingest_blocks as blocks
from data_gen.contamination import WORDS, load_ngrams
from data_gen.ingest_config import LOCAL, SAMPLE, SLURM, IngestConfig
from data_gen.ingest_counts import REMOVED, Removed, SaveTally, Tally, read_tallies
from data_gen.ingest_executors import FAULTS, Stage, run_here, submit
from data_gen.ingest_readers import reader
from data_gen.ingest_report import WORK, Finish, Summary, add_up, read_summary
from data_gen.ingest_rows import Origin
from data_gen.languages import load_label

DOCUMENTS, LOGS = "documents", "logs"
CONFIG, FILES = f"{LOGS}/config.json", f"{LOGS}/files.json"


def run(config: IngestConfig, workdir: str, say: Callable[[str], object] = print) -> Summary | None:
    """Makes or finishes `workdir` (any fsspec path; a local one for Slurm) and returns what is in it; None after jobs were
    submitted to Slurm.

    Raises UsageError on a config that makes no sense or is not the one the directory was begun with, an input that cannot be read
    or is in another language, and a directory that another process is at. What is done until then is kept.
    """
    config.validate()
    folder = _folder(workdir, config)
    workdir = folder.resolve_paths("").rstrip("/")  # absolute: jobs may start in another directory
    with _alone(folder):
        _check_config(folder, config)
        if done := read_summary(workdir):
            _check_finished(folder, config, workdir)
            say(f"{workdir} is finished")
            return done
        return _go_on(config, folder, workdir, say)


def _go_on(config: IngestConfig, folder: DataFolder, workdir: str, say: Callable[[str], object]) -> Summary | None:
    planned = stages(config, workdir)
    read = planned[0].steps[0]
    if files := getattr(read, "files", []):
        read.files = _files(folder, config, files, say)
    _begin(folder, config, getattr(read, "files", []))
    if config.executor == SLURM:
        _tell_faults(folder, say)
        for stage, job in zip(planned, submit(planned, f"{workdir}/{LOGS}", config), strict=True):
            say(f"{stage.name:<8}" + (f"job {job}, {stage.tasks} tasks" if job else "done before"))
        say(f"Slurm runs them one after the other; at the end there is {workdir}/manifest.json. After a fault: the same command")
        return None

    def tell(stage: Stage, tasks: int, seconds: float) -> None:
        run = f"{tasks} {'task' if tasks == 1 else 'tasks'}" + (f" of {stage.tasks}" if tasks < stage.tasks else "")
        say(f"{stage.name:<8}{run}, {seconds:.1f} s{_counted(config, workdir, stage)}")

    run_here(planned, f"{workdir}/{LOGS}", config, tell)
    return read_summary(workdir)


def stages(config: IngestConfig, workdir: str) -> list[Stage]:
    """What is run, in order. Raises UsageError for an input that is not there."""
    tally = Tally()
    removed = Removed(workdir, "clean", tally)
    clean = [
        _reader(config),
        blocks.Prepare(config, tally),
        *(rule(config, removed) for rule in blocks.FILTERS),
        *([blocks.NoEvaluationData(config, removed, workdir)] if config.decontaminate else []),
        blocks.Facts(config, workdir),
        JsonlWriter(f"{workdir}/{blocks.CLEANED}", compression="zstd"),  # gzip writes 9 MB/s, and nobody else reads it
        SaveTally(workdir, "clean", tally),
    ]
    chosen = Tally()
    write = [
        blocks.Cleaned(workdir, chosen),
        blocks.Chosen(Removed(workdir, "choose", chosen)),
        blocks.FlatWriter(f"{workdir}/{DOCUMENTS}", config.language),
        SaveTally(workdir, "write", chosen, DOCUMENTS),
    ]
    return [
        Stage("clean", clean, config.tasks),
        Stage("choose", [blocks.Choose(config, workdir)], 1),
        Stage("write", write, config.tasks),
        Stage("finish", [Finish(config, workdir)], 1),
    ]


def _reader(config: IngestConfig) -> PipelineStep:
    source = config.source or source_of(config.input)
    origin = Origin(text_key=config.text_key, id_key=config.id_key, licence=config.licence, source=source)
    return reader(
        config.input, format=config.format, language=config.language, origin=origin, subset=config.subset, split=config.split
    )


def source_of(path: str) -> str:
    """What documents give as their source if nothing is said: source_of("gs://b/web/*.jsonl.gz") == "web"."""
    if path == SAMPLE:
        return "web_sample"
    names = [part for part in path.split("/") if part and not part.endswith(":") and not re.search(r"[*?\[]", part)]
    return re.sub(r"[^\w.-]+", "_", names[-1].split(".")[0]) if names else "web"


def _counted(config: IngestConfig, workdir: str, stage: Stage) -> str:
    """What a stage with documents let through: ": 412 pages, 230 stay"."""
    if stage.name not in ("clean", "write"):
        return ""
    total = add_up(read_tallies(workdir, stage.name, config.tasks))
    return f": {total.read:,} {'pages' if stage.name == 'clean' else 'documents'}, {total.kept:,} stay"


# --- the work directory -------------------------------------------------------------------------------------------------


def _folder(workdir: str, config: IngestConfig) -> DataFolder:
    """The work directory. Raises UsageError where there can be none."""
    if not workdir:
        raise UsageError("--workdir is empty: give a directory, or the URL of one")
    try:
        folder = get_datafolder(workdir)
        if folder.is_local():
            os.makedirs(folder.resolve_paths(LOGS), exist_ok=True)
    except (ValueError, ImportError, OSError) as error:
        raise UsageError(f"--workdir={workdir} cannot be used: {error}; give a directory, or the URL of one") from error
    if isinstance(folder.fs, MemoryFileSystem) and (config.executor != LOCAL or (config.tasks > 1 and config.workers != 1)):
        raise UsageError(f"--workdir={workdir}: no two processes share memory: give --config.workers=1 or a directory")
    return folder


@contextmanager
def _alone(folder: DataFolder) -> Iterator[None]:
    """Raises UsageError where another process is at a local work directory. The system forgets the lock when its process dies, and
    does not hand it to workers.
    """
    if not folder.is_local():
        yield
        return
    path = folder.resolve_paths(f"{LOGS}/lock")
    with open(path, "w") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            at = os.path.dirname(os.path.dirname(path))
            raise UsageError(f"another process is at {at}: wait for it, or give another --workdir") from None
        yield


def _check_config(folder: DataFolder, config: IngestConfig) -> None:
    """Raises UsageError naming the first key in which the config differs from the one that the directory was begun with."""
    if not folder.exists(CONFIG) or not _has_done(folder):
        return
    with folder.open(CONFIG, "r", encoding="utf-8") as file:
        begun = json.load(file)
    for key, value in config.asked().items():
        if value != begun.get(key):
            raise UsageError(
                f"--config.{key} is {value!r}, and this work directory was begun with {begun.get(key)!r}: go on with that, or give "
                "another --workdir"
            )


def _has_done(folder: DataFolder) -> bool:
    """Whether any task is completed. What nobody finished binds nobody."""
    return folder.isdir(f"{LOGS}/clean/completions")


def _check_finished(folder: DataFolder, config: IngestConfig, workdir: str) -> None:
    """Raises UsageError where the input has files that were not there. It may be gone."""
    try:
        files = set(getattr(_reader(config), "files", ()))
    except UsageError:
        return
    if came := files - set(_begun_files(folder)):
        raise UsageError(
            f"{workdir} is finished, and --config.input={config.input} has files now that were not there ({min(came)}): give "
            "another --workdir"
        )


def _begun_files(folder: DataFolder) -> list[str | None]:
    with folder.open(FILES, "r", encoding="utf-8") as file:
        return list(json.load(file))


def _files(folder: DataFolder, config: IngestConfig, files: list[str], say: Callable[[str], object]) -> list[str | None]:
    """The input files in the order of the first start, because tasks are parts of that list. One that is no longer there is None
    if no task that reads of it is completed.

    Raises UsageError where other files came or went.
    """
    if not _has_done(folder):
        return list(files)
    begun, tasks = _begun_files(folder), config.tasks
    came = set(files) - set(begun)
    gone = [place for place, name in enumerate(begun) if name is not None and name not in files]
    readers = {place: range(place, tasks, len(begun)) if tasks > len(begun) else [place % tasks] for place in gone}
    bound = [begun[place] for place, ranks in readers.items() if any(map(partial(_is_done, folder), ranks))]
    if came or bound:
        what = f"{min(came)} came" if came else f"{bound[0]} went, and a task that read of it is completed"
        raise UsageError(
            f"--config.input={config.input} has other files than at the first start ({what}): make it as it was, or give another "
            "--workdir"
        )
    for place in gone:
        say(f"{begun[place]} is no longer there and is left out")
    return [name if name in files else None for name in begun]


def _is_done(folder: DataFolder, rank: int) -> bool:
    return bool(folder.exists(f"{LOGS}/clean/completions/{rank:05d}"))


def _begin(folder: DataFolder, config: IngestConfig, files: list[str | None]) -> None:
    """Config, list of input files and evaluation data in their places. A start that got nowhere leaves nothing.

    Raises UsageError where the evaluation data are others than at the first start.
    """
    runs = frozenset[int]()
    if config.decontaminate:
        runs = load_ngrams(config.decontaminate, WORDS * load_label(config.language).pieces_a_word)
    if _has_done(folder):
        if config.decontaminate and not blocks.same_evaluation(folder, runs):
            raise UsageError(
                f"--config.decontaminate={','.join(config.decontaminate)} has other content than at the first start: make it as it "
                "was, or give another --workdir"
            )
    else:
        for name in (WORK, DOCUMENTS, REMOVED, f"{LOGS}/counts"):
            if folder.exists(name):
                folder.rm(name, recursive=True)
    with folder.open(CONFIG, "w", encoding="utf-8") as file:
        json.dump(config.asked(), file, ensure_ascii=False, indent=1)
    with folder.open(FILES, "w", encoding="utf-8") as file:
        json.dump(files, file, ensure_ascii=False, indent=1)
    if config.decontaminate:
        blocks.save_evaluation(folder, runs)


def _tell_faults(folder: DataFolder, say: Callable[[str], object]) -> None:
    """What tasks of an earlier start on Slurm stopped with: nobody was there to be told."""
    for path in folder.glob(f"{LOGS}/*/{FAULTS}/*.txt"):
        with folder.open(path, "r", encoding="utf-8") as file:
            say(f"stopped before: {file.read()}")
