"""How fast requests go through the client with its journal, what they cost in CPU, and whether memory stays flat.

    python tests/benchmarks/teacher.py                       # 6,000 requests, 128 in flight, 0.2 s latency
    python tests/benchmarks/teacher.py --requests=100000     # 5 minutes; memory every 10,000 requests

Prompts are those of the self-instruct recipe, replies of the offline teacher in a process of its own; each is journalled, parsed,
filtered, and its items stored. Only the novelty pool is left out: it grows with what is kept, tests/benchmarks/dedup.md's matter.
Method and results: tests/benchmarks/teacher.md.
"""

import argparse
import asyncio
import gc
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data_gen.account import Account
from data_gen.endpoint import Endpoint, TeacherConfig
from data_gen.engine import Order, ask_all
from data_gen.filters import reject_reason
from data_gen.journal import ACCEPTED, Journal, Request, open_journal
from data_gen.progress import Snapshot
from data_gen.prompt import build_messages, load_task, parse_reply
from data_gen.record import canonical_json, item_messages, record_id
from data_gen.teacher import Teacher

TASKS = ("generation", "reasoning", "ethics", "question_answering", "translation", "classification", "sentiment")
LATENCY_S, ITEMS = 0.2, 10


class Endless:
    """A recipe that asks for items of all tasks in turn and keeps what passes the filters."""

    def __init__(self, journal: Journal, requests: int, model: str) -> None:
        self.journal, self.requests, self.model = journal, requests, model
        self.tasks = [load_task(name, heldout_share=0, seed=0) for name in TASKS]
        self.accepted = 0

    def plan(self, idx: int, accepted: int) -> tuple[str, dict[str, Any]] | None:
        if idx == self.requests:
            return None
        task, rng = self.tasks[idx % len(self.tasks)], random.Random(idx)
        messages = build_messages(task, [item for _, item in rng.sample(task.seeds["train"], 4)], ITEMS)
        fields = {"model": self.model, "messages": messages, "max_tokens": 8192, "seed": rng.getrandbits(31)}
        return canonical_json(fields), {"task": task.name}

    def planned(self, request: Request) -> None: ...

    def accept(self, request: Request, reply: str | None) -> None:
        rows = []
        for item, fault in parse_reply(request.about["task"], "ur", reply) if reply else ():
            reason = fault or reject_reason(item) or ACCEPTED
            self.accepted += reason == ACCEPTED
            rows.append((reason, "train", canonical_json({"id": record_id(item_messages(item)), "output": item.output})))
        self.journal.keep_items(request.idx, rows)


class Watch:
    """Instead of a screen: memory as the run goes."""

    def __init__(self, order: Order, every: int) -> None:
        self.order, self.every = order, every
        self.points: list[tuple[int, float]] = []

    def say(self, line: str) -> None:
        print(line)

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        if self.order.accepted >= self.every * (len(self.points) + 1):
            gc.collect()
            self.points.append((self.order.accepted, resident_mib()))


def resident_mib() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def offline_teacher() -> Iterator[str]:
    command = [sys.executable, "-m", "data_gen.offline_teacher", f"--latency_s={LATENCY_S}", "--fault_rate=0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2])
    try:
        assert process.stdout
        yield process.stdout.readline().split()[0]
    finally:
        process.terminate()
        process.wait()


async def ask(order: Order, journal: Journal, config: TeacherConfig, url: str, watch: Watch) -> None:
    async with Endpoint(config, url) as endpoint:
        teacher = Teacher(endpoint, journal, Account(config, journal, None), answered_before=False)
        await ask_all(order, teacher, watch, lambda: Snapshot("", {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--in_flight", type=int, default=128)
    parser.add_argument("--place", help="directory for the journal; default: a temporary one")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.place) as workdir, offline_teacher() as url, open_journal(workdir) as journal:
        config = TeacherConfig(base_url=url, model="offline-teacher", max_in_flight=flags.in_flight)
        recipe = Endless(journal, flags.requests, config.model)
        order = Order(recipe, journal, url)
        watch = Watch(order, max(flags.requests // 10, 1))
        began, used = time.perf_counter(), time.process_time()
        asyncio.run(ask(order, journal, config, url, watch))
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        answered = order.requests - order.failed
        print(f"{answered} of {flags.requests} requests answered, {recipe.accepted} items accepted, {order.failed} failed")
        print(f"{answered / seconds:.0f} requests/s (at most {flags.in_flight / LATENCY_S:.0f} at this latency)")
        print(f"{1000 * cpu / answered:.2f} ms of client CPU a request")
        print("resident MiB after n requests:", ", ".join(f"{n}: {mib:.0f}" for n, mib in watch.points))
        size = sum(path.stat().st_size for path in Path(workdir).iterdir())
        print(f"journal {size / answered / 1024:.1f} KiB a request")
    assert watch.points[-1][1] <= 1.1 * watch.points[1][1], "memory grows with the requests"


if __name__ == "__main__":
    main()
