"""How fast requests go through the client with its journal, what they cost in CPU, and whether memory stays flat.

    python tests/benchmarks/teacher.py                                 # 3 rounds of 6,000 requests, 128 in flight, 0.2 s latency
    python tests/benchmarks/teacher.py --requests=100000 --rounds=1    # memory, ten times on the way

Prompts are those of the self-instruct recipe, replies of the offline teacher in a process of its own; each is journalled, parsed,
filtered, and its items stored. Only the novelty pool is left out: it grows with what is kept. Beside it, by turns, the openai SDK
as one would use it without this project: `chat.completions.create` under a semaphore, replies dropped.
Method and results: tests/benchmarks/teacher.md.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data_gen.account import Account
from data_gen.checks import check_reason
from data_gen.endpoint import Endpoint, TeacherConfig
from data_gen.engine import Order, ask_all
from data_gen.filters import reject_reason
from data_gen.journal import ACCEPTED, Journal, Request, open_journal
from data_gen.languages import load_pack
from data_gen.progress import Snapshot
from data_gen.prompt import build_messages, parse_reply
from data_gen.record import canonical_json, item_messages, record_id
from data_gen.seeds import load_task
from data_gen.teacher import Teacher

TASKS = ("generation", "reasoning", "ethics", "question_answering", "translation", "classification", "sentiment")
LATENCY_S, ITEMS = 0.2, 10


class Endless:
    """A recipe that asks for items of all tasks in turn and keeps what passes the filters."""

    def __init__(self, journal: Journal, requests: int, model: str) -> None:
        self.journal, self.requests, self.model = journal, requests, model
        self.tasks = [load_task(name, load_pack("ur"), heldout_share=0, seed=0) for name in TASKS]
        self.accepted, self.cpu = 0, 0.0

    def plan(self, idx: int, accepted: int) -> tuple[str, dict[str, Any]] | None:
        if idx == self.requests:
            return None
        task, rng = self.tasks[idx % len(self.tasks)], random.Random(idx)
        messages = build_messages(task, [item for _, item in rng.sample(task.seeds["train"], 4)], ITEMS)
        fields = {"model": self.model, "messages": messages, "max_tokens": 8192, "seed": rng.getrandbits(31)}
        return canonical_json(fields), {"task": task.name}

    def planned(self, request: Request) -> None: ...

    def accept(self, request: Request, reply: str | None) -> None:
        began, rows = time.process_time(), []
        task = self.tasks[request.idx % len(self.tasks)]
        for item, fault in parse_reply(task, reply) if reply else ():
            reason = fault or reject_reason(item, task) or check_reason(item, task) or ACCEPTED
            self.accepted += reason == ACCEPTED
            rows.append((reason, "train", canonical_json({"id": record_id(item_messages(item)), "output": item.output})))
        self.journal.keep_items(request.idx, rows)
        self.cpu += time.process_time() - began


class Watch:
    """Instead of a screen: memory as the run goes."""

    def __init__(self, order: Order, every: int) -> None:
        self.order, self.every = order, every
        self.points: list[tuple[int, float]] = []

    def say(self, line: str) -> None:
        print(line)

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        if self.order.accepted >= self.every * (len(self.points) + 1):
            self.points.append((self.order.accepted, resident_mib()))


def resident_mib() -> float:
    """Of this process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@contextmanager
def offline_teacher() -> Iterator[str]:
    command = [sys.executable, "-m", "data_gen.offline.teacher", f"--latency_s={LATENCY_S}", "--fault_rate=0.1"]
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


def ours(url: str, requests: int, in_flight: int) -> dict[str, float]:
    """One run: requests a second, milliseconds of CPU a request, the part of them that reads replies, journal bytes a request."""
    with tempfile.TemporaryDirectory() as workdir, open_journal(workdir) as journal:
        config = TeacherConfig(base_url=url, model="offline-teacher", max_in_flight=in_flight)
        recipe = Endless(journal, requests, config.model)
        order = Order(recipe, journal, url)
        watch = Watch(order, max(requests // 10, 1))
        began, used = time.perf_counter(), time.process_time()
        asyncio.run(ask(order, journal, config, url, watch))
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        assert order.failed == 0 and recipe.accepted > 5 * requests, "the teacher answers"
        print("  resident MiB after n requests:", ", ".join(f"{n}: {mib:.1f}" for n, mib in watch.points), flush=True)
        assert watch.points[-1][1] <= 1.1 * watch.points[1][1], "memory grows with the requests"
        size = sum(path.stat().st_size for path in Path(workdir).iterdir())
        reading = 1000 * recipe.cpu / requests
        return {"per_s": requests / seconds, "cpu": 1000 * cpu / requests, "reading": reading, "bytes": size / requests}


def bare(url: str, requests: int, in_flight: int) -> dict[str, float]:
    """As many requests by the SDK alone."""

    async def run() -> None:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        places = asyncio.Semaphore(in_flight)
        with tempfile.TemporaryDirectory() as workdir, open_journal(workdir) as journal:
            recipe = Endless(journal, requests, "offline-teacher")

            async def one(idx: int) -> None:
                async with places:
                    fields = json.loads((recipe.plan(idx, 0) or ("{}", {}))[0])
                    reply = await client.chat.completions.create(**fields)
                    assert reply.choices[0].message.content

            await asyncio.gather(*(one(idx) for idx in range(requests)))
        await client.close()

    began, used = time.perf_counter(), time.process_time()
    asyncio.run(run())
    return {"per_s": requests / (time.perf_counter() - began), "cpu": 1000 * (time.process_time() - used) / requests}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--requests", type=int, default=6000)
    parser.add_argument("--in_flight", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    with offline_teacher() as url:
        for _ in range(flags.rounds):
            rows.append((ours(url, flags.requests, flags.in_flight), bare(url, min(flags.requests, 6000) // 2, flags.in_flight)))
            print("  ours, the SDK:", ", ".join(f"{run['per_s']:.0f}/s at {run['cpu']:.2f} ms" for run in rows[-1]), flush=True)
    print(f"\n{flags.requests} requests, {flags.in_flight} in flight, {LATENCY_S} s latency: at most "
          f"{flags.in_flight / LATENCY_S:.0f} requests/s; best and median of {flags.rounds}\n")  # fmt: skip
    print("| | requests/s | ms of CPU a request | of them to read the reply |\n|---|---|---|---|")
    for name, runs in (("ours, journal and parsing", [mine for mine, _ in rows]), ("openai SDK alone", [peer for _, peer in rows])):
        per_s, cpu = ([run[what] for run in runs] for what in ("per_s", "cpu"))
        reading = f"{min(run['reading'] for run in runs):.2f}" if "reading" in runs[0] else ""
        speed, work = f"{max(per_s):.0f}, {statistics.median(per_s):.0f}", f"{min(cpu):.2f}, {statistics.median(cpu):.2f}"
        print(f"| {name} | {speed} | {work} | {reading} |")
    print(f"\njournal {rows[0][0]['bytes'] / 1024:.1f} KiB a request")


if __name__ == "__main__":
    main()
