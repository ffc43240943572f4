"""Where the stages of an ingest run: in processes of this machine, on a Ray cluster, or as jobs of Slurm. datatrove's executors,
and around them what they lack: a fault that the user can mend becomes one line, and the screen stays readable.

datatrove's own way with a task that raises: the pool stops the other tasks, Ray says nothing, a stage that depends on it waits for
ever. Here a task notes the fault in `logs/STAGE/faults/`, is not marked as completed, and lets the others go on; the driver reads
the notes when the stage is over.
"""

import contextlib
import logging
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from datatrove.io import DataFolder
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.logging import logger
from datatrove.utils.stats import PipelineStats

from data_gen import UsageError
from data_gen.ingest_config import LOCAL, RAY, SLURM, IngestConfig

ROOT = Path(__file__).resolve().parents[1]
_WATCH = "end with the driver"
FAULTS = "faults"  # in a stage's log directory


@dataclass(frozen=True)
class Stage:
    """What one executor runs: the steps of each of `tasks` tasks, logging to `logs/NAME/`."""

    name: str
    steps: Sequence[PipelineStep]
    tasks: int


# --- one task -----------------------------------------------------------------------------------------------------------


def _run_task(run: Callable[..., PipelineStats], executor: PipelineExecutor, rank: int, node_rank: int) -> PipelineStats:
    """datatrove's way through the steps of one task, with its log in the task's file alone. An error of use is noted; on a cluster
    it is raised too, so that Slurm does not start the jobs which wait for this one and Ray does not take it for done.
    """
    _end_with_driver()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        try:
            return run(rank, node_rank=node_rank)
        except UsageError as error:
            with executor.logging_dir.open(f"{FAULTS}/{rank:05d}.txt", "w", encoding="utf-8") as file:
                file.write(str(error))
            if not isinstance(executor, Local):
                raise
            return PipelineStats()
        finally:
            logger.remove()  # datatrove puts the screen back as the place of its log


def _end_with_driver() -> None:
    """In a worker: Ctrl-C is the driver's to answer, and a driver that is killed takes its workers along, which would otherwise
    write the same files as those of a second start.
    """
    parent = multiprocessing.parent_process()
    if parent is None or threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        parent.join()
        os._exit(1)

    if not any(thread.name == _WATCH for thread in threading.enumerate()):
        threading.Thread(target=end, name=_WATCH, daemon=True).start()


class Local(LocalPipelineExecutor):
    """datatrove's, with tasks as `_run_task` has them and a pool of its own: datatrove's waits for ever for a worker that the
    system killed, and leaves a process behind when it is killed itself.
    """

    def run(self) -> None:
        ranks = self.get_incomplete_ranks()
        self.save_executor_as_json()
        if min(self.workers, len(ranks)) > 1:
            _run_in_pool(self._run_for_rank, ranks, self.workers)
            return
        for rank in ranks:
            deepcopy(self)._run_for_rank(rank)  # a step of one task shall not know of another

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        return _run_task(super()._run_for_rank, self, rank, node_rank)


def _run_in_pool(run: Callable[[int], object], ranks: Sequence[int], workers: int) -> None:
    """Raises what a task raised, and UsageError where the system killed one."""
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(min(workers, len(ranks)), multiprocessing.get_context("forkserver")) as pool:
        try:
            for _ in pool.map(run, ranks):
                pass
        except BrokenProcessPool as error:
            raise UsageError(
                "a task was killed from outside, perhaps for want of memory: lower --config.workers. What is done is kept, and the "
                "same command goes on"
            ) from error
        except BaseException:  # a stop, or a defect: leaving the pool would wait for the tasks that run
            for worker in multiprocessing.active_children():
                if worker not in others:
                    worker.terminate()
            raise


class Ray(RayPipelineExecutor):
    """datatrove's, with tasks as `_run_task` has them."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        return _run_task(super()._run_for_rank, self, rank, node_rank)


class Slurm(SlurmPipelineExecutor):
    """datatrove's, with tasks as `_run_task` has them."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        return _run_task(super()._run_for_rank, self, rank, node_rank)


# --- all stages ---------------------------------------------------------------------------------------------------------


def run_here(stages: Sequence[Stage], logs: str, config: IngestConfig, done: Callable[[Stage, int, float], None]) -> None:
    """Runs the stages one after the other, each when all tasks of the one before are completed, on this machine or on Ray.

    Tasks that an earlier start completed are left out. `done` is told of a stage that is complete: how many of its tasks were run
    now, and the seconds they took. Raises UsageError with what the first task at fault said, after the others have run; and
    RuntimeError where Ray lost a task.
    """
    logger.remove()
    with _ray(config) if config.executor == RAY else contextlib.nullcontext():
        for stage in stages:
            executor = _executor(stage, logs, config)
            forget_faults(executor.logging_dir)
            wanted, begun = len(executor.get_incomplete_ranks()), time.monotonic()
            executor.run()
            if told := faults(executor.logging_dir):
                raise UsageError(_fault_line(told, stage))
            if left := executor.get_incomplete_ranks():
                log = executor.logging_dir.resolve_paths(f"logs/task_{left[0]:05d}.log")
                raise RuntimeError(f"{len(left)} tasks of {stage.name} did not end; the log of the first: {log}")
            done(stage, wanted, time.monotonic() - begun)


def submit(stages: Sequence[Stage], logs: str, config: IngestConfig) -> list[str]:
    """Submits all stages to Slurm, each to start when the one before has ended well; returns the number of each job, "" for a stage
    whose tasks are all completed. Raises UsageError where sbatch is missing or refuses.
    """
    logger.remove()
    jobs: list[str] = []
    before = None
    for stage in stages:
        executor = _executor(stage, logs, config)
        executor.depends = before
        forget_faults(executor.logging_dir)
        try:
            executor.run()
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            raise UsageError(
                f"executor slurm: sbatch cannot be run or refused the job ({error}); start this on a machine that submits to "
                "Slurm, and check slurm.partition, slurm.qos and slurm.arguments"
            ) from error
        jobs.append("" if executor.job_id == -1 else str(executor.job_id))
        before = executor
    return jobs


def faults(logging_dir: DataFolder) -> dict[int, str]:
    """What the tasks of a stage that stopped with an error of use said, by their number."""
    if not logging_dir.isdir(FAULTS):
        return {}
    return {int(Path(name).stem): logging_dir.cat(name).decode() for name in logging_dir.list_files(FAULTS)}


def forget_faults(logging_dir: DataFolder) -> None:
    """Removes the notes of an earlier start."""
    if logging_dir.isdir(FAULTS):
        logging_dir.rm(FAULTS, recursive=True)


def _fault_line(told: dict[int, str], stage: Stage) -> str:
    first = told[min(told)]
    if stage.tasks == 1:
        return first
    return f"{first} (task {min(told)}; {len(told)} of {stage.tasks} tasks stopped so, and what the others did is kept)"


def workers_of(stage: Stage, config: IngestConfig) -> int:
    """How many tasks of a stage run at a time. Slurm is asked for what the config says."""
    if config.executor == SLURM:
        return config.workers
    most = len(os.sched_getaffinity(0)) if config.executor == LOCAL else stage.tasks
    return min(stage.tasks, config.workers if config.workers > 0 else most)


def _executor(stage: Stage, logs: str, config: IngestConfig) -> Any:
    common: dict[str, Any] = {"pipeline": list(stage.steps), "tasks": stage.tasks, "logging_dir": f"{logs}/{stage.name}"}
    common["workers"] = workers_of(stage, config)
    if config.executor == LOCAL:
        return Local(**common)
    if config.executor == RAY:
        return Ray(**common, mem_per_cpu_gb=config.memory_gb)
    slurm = config.slurm
    return Slurm(
        **common, partition=slurm.partition, time=slurm.time, qos=slurm.qos,
        job_name=f"ingest_{stage.name}", mem_per_cpu_gb=config.memory_gb, env_command=_environment(),
        # A job whose condition can no longer come true would stay in the queue.
        sbatch_args={"kill-on-invalid-dep": "yes", **dict(one.split("=", 1) for one in slurm.arguments)},
    )  # fmt: skip


def _environment() -> str:
    """What a Slurm job needs to find this Python and this source tree."""
    return f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH PYTHONPATH={shlex.quote(_python_path())}"


def _python_path() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


@contextlib.contextmanager
def _ray(config: IngestConfig) -> Iterator[None]:
    """A cluster for the time of the stages: that of RAY_ADDRESS, else one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send them to its makers
    try:
        import ray
    except ImportError as error:
        raise UsageError("executor ray needs Ray: pip install '.[ray]'") from error
    ray.init(
        logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
        runtime_env={"env_vars": {"PYTHONPATH": _python_path()}},
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
