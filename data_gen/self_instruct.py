"""The self-instruct recipe: a few correct seeds and a teacher become thousands of instructions with answers.

Every request shows the teacher some seeds and some items it wrote before, and asks for more of the kind; what comes
back is parsed, filtered, compared with everything kept so far, and kept or rejected with its reason (Wang et al. 2022,
arXiv 2212.10560). `run(config, workdir)` leaves WORKDIR/data (shards and manifest), WORKDIR/journal.sqlite and
WORKDIR/rejected.jsonl.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from data_gen.config import SelfInstructConfig, Targets
from data_gen.dedup import RougePool
from data_gen.journal import DONE, FAILED, Journal, open_journal
from data_gen.planner import State, accept_ready, cells_of, compared_text, plan
from data_gen.prompt import SIDES, Task, load_task
from data_gen.teacher import OFFLINE, Teacher, TeacherConfig
from data_gen.tfrecord import write_shards

__all__ = ["SelfInstructConfig", "Summary", "Targets", "TeacherConfig", "run"]
PROGRESS_S = 5.0

# May differ between two runs on one work directory: they decide how fast and where to, not what is asked.
_ASKED = ("base_url", "model", "seed", "max_tokens_field", "offline_fault_rate")
_FREE = {"shard_records", "min_acceptance"} | {f"teacher.{f.name}" for f in fields(TeacherConfig) if f.name not in _ASKED}


@dataclass
class Summary:
    """What a run gave. `accepted[task][side]`; `reused` requests were answered in an earlier run; `ambiguous` attempts
    were in flight when an earlier run was killed, perhaps paid for without a reply."""

    accepted: dict[str, dict[str, int]]
    rejected: dict[str, int]
    requests: int
    reused: int
    failed: int
    ambiguous: int
    data_dir: str

    def __str__(self) -> str:
        lines = [
            f"accepted  {task:20}{sides['train']:7} train{sides['heldout']:6} held-out" for task, sides in self.accepted.items()
        ]
        lines += [f"rejected  {reason:20}{count:7}" for reason, count in self.rejected.items()]
        lines += [
            f"requests  {self.requests} ({self.reused} answered in an earlier run, {self.failed} failed, "
            f"{self.ambiguous} in flight at a crash)",
            f"data      {self.data_dir}",
        ]
        return "\n".join(lines)


def _progress(state: State, under_way: int) -> str:
    goal, held = sum(state.goals.values()), sum(n for (_, side), n in state.total.items() if side == "heldout")
    return (
        f"accepted {len(state.records)} of {goal} ({held} held-out), rejected {state.rejected.total()}, "
        f"requests {len(state.requests)} ({under_way} in flight)"
    )


async def _generate(state: State, journal: Journal, teacher: Teacher, report: Callable[[str], None]) -> None:
    """Keeps max_in_flight requests under way until nothing is left to ask."""
    tasks: dict[asyncio.Task[str | None], int] = {}
    unsent = deque(request for request in state.requests if request.idx not in state.replies)
    told = time.monotonic()
    try:
        while True:
            accept_ready(state)
            while len(tasks) < state.config.teacher.max_in_flight:
                request = unsent.popleft() if unsent else plan(state)
                if request is None:
                    break
                if request.idx == len(state.requests):
                    journal.plan(request)
                    state.requests.append(request)
                tasks[asyncio.create_task(teacher.ask(request))] = request.idx
            if not tasks:
                return
            done, _ = await asyncio.wait(tasks, timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                state.replies[tasks.pop(task)] = task.result()
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                report(_progress(state, len(tasks)))
    finally:
        if tasks:
            report(f"stopping: waiting for {len(tasks)} requests under way, so that no reply is lost")
        await teacher.drain(tasks.items())


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"teacher": {"model": "m"}} → {"teacher.model": "m"}."""
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
    return flat


def _seed_pool(config: SelfInstructConfig, tasks: dict[str, Task]) -> RougePool:
    """One pool over all tasks and both sides, the seeds first: an item near one held out is never trained on."""
    pool = RougePool(config.rouge_threshold)
    for task in tasks.values():
        for side in SIDES:
            for seed_id, item in task.seeds[side]:
                pool.add(seed_id, compared_text(item))
    return pool


def _hold_to_config(journal: Journal, config: SelfInstructConfig, tasks: dict[str, Task]) -> None:
    flat = {name: value for name, value in _flat(asdict(config)).items() if name not in _FREE}
    targets = {name: flat.pop(name) for name in list(flat) if name.startswith("targets.")}
    flat |= {f"seeds and prompt of {name}": task.digest for name, task in tasks.items()}
    journal.check_config(flat, targets)


def _recall(state: State, journal: Journal) -> int:
    """Puts the journal's requests into the state and returns how many of them were answered."""
    state.requests = journal.requests()
    state.replies = {request.idx: request.reply for request in state.requests if request.status in (DONE, FAILED)}
    return sum(reply is not None for reply in state.replies.values())


@contextmanager
def _endpoint(config: SelfInstructConfig, workdir: str, report: Callable[[str], None]) -> Iterator[str]:
    """The teacher's URL. For base_url="offline" the project's own server runs in this process meanwhile."""
    if config.teacher.base_url != OFFLINE:
        yield config.teacher.base_url
        return
    from data_gen import offline_teacher

    report("offline teacher: grammars and word lists, not a language model")
    server = offline_teacher.serve(
        seed=config.seed,
        fault_rate=config.teacher.offline_fault_rate,
        latency_s=config.teacher.offline_latency_s,
        truth_file=os.path.join(workdir, "offline_truth.jsonl"),
    )
    try:
        yield server.base_url
    finally:
        server.close()


async def _ask_all(state: State, journal: Journal, base_url: str, reused: int, report: Callable[[str], None]) -> None:
    async with Teacher(state.config.teacher, base_url, journal, answered_before=reused > 0) as teacher:
        await _generate(state, journal, teacher, report)


def run(config: SelfInstructConfig, workdir: str, *, report: Callable[[str], None] = print) -> Summary:
    """Generates until the targets are reached, writes WORKDIR/data and returns what happened. Goes on where an earlier
    run stopped.

    Raises UsageError on a config that makes no sense or differs from the one `workdir` was begun with, on a work
    directory in use, and when the teacher cannot be used; whatever was answered until then stays in the journal.
    """
    config.validate()
    goals = dict(cell for name, target in asdict(config.targets).items() for cell in cells_of(config, name, target))
    names = dict.fromkeys(name for name, _ in goals)
    tasks = {name: load_task(name, heldout_share=config.heldout_share, seed=config.seed) for name in names}
    with open_journal(workdir) as journal:
        _hold_to_config(journal, config, tasks)
        with open(os.path.join(workdir, "rejected.jsonl"), "w", encoding="utf-8") as rejects_file:
            state = State(config, tasks, goals, _seed_pool(config, tasks), rejects_file)
            ambiguous, reused = journal.ambiguous(), _recall(state, journal)
            if state.requests:
                known = f"{reused} of {len(state.requests)} requests are answered"
                report(f"going on: {known}, {ambiguous} were in flight at a crash")
            with _endpoint(config, workdir, report) as base_url:
                asyncio.run(_ask_all(state, journal, base_url, reused, report))
        splits = {side: [record for record in state.records if record.meta["side"] == side] for side in SIDES}
        data_dir = os.path.join(workdir, "data")
        write_shards(data_dir, splits, config=asdict(config), shard_records=config.shard_records)
    accepted = {name: {side: state.total[name, side] for side in SIDES} for name in names}
    rejected = dict(state.rejected.most_common())
    return Summary(accepted, rejected, len(state.requests), reused, state.failed, ambiguous, data_dir)
