"""The self-instruct recipe: a few correct seeds and a teacher become thousands of instructions with answers.

Every request shows the teacher some seeds and some items it wrote before, and asks for more of the kind; what comes
back is parsed, filtered, compared with everything kept so far, and kept or rejected with its reason (Wang et al. 2022,
arXiv 2212.10560). `run(config, workdir)` leaves WORKDIR/data (shards and manifest), WORKDIR/journal.sqlite and
WORKDIR/rejected.jsonl.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from time import monotonic

from data_gen import UsageError
from data_gen.acceptance import Acceptance, Cell, make_pools
from data_gen.account import Account
from data_gen.batch import BatchTeacher
from data_gen.config import ChecksConfig, SelfInstructConfig, Targets
from data_gen.contamination import load_ngrams
from data_gen.dataset import write_dataset, write_rejects
from data_gen.endpoint import OFFLINE, Endpoint, TeacherConfig
from data_gen.engine import Order, Shows, ask_all, recall
from data_gen.journal import Journal, check_same, open_journal
from data_gen.language_id import load_identifier
from data_gen.languages import load_pack
from data_gen.limits import BudgetReached, Usage
from data_gen.planner import SelfInstruct, cells_of, load_material, load_tasks
from data_gen.progress import Snapshot, eta
from data_gen.readable import dollars, tokens
from data_gen.record import SIDES
from data_gen.task import Task
from data_gen.teacher import Teacher

__all__ = ["ChecksConfig", "SelfInstructConfig", "Summary", "Targets", "TeacherConfig", "run"]
LAGS = 4  # pool_lag, where none is given, in windows of the largest size
HISTORY = 600  # points of (time, accepted) that the ETA is made of, a second apart


@dataclass
class Summary:
    """What a run gave. `accepted[task][side]`; `reused` requests were answered in an earlier run; `ambiguous` attempts
    were in flight when an earlier run ended without waiting for them, perhaps paid for. `cost` in US dollars, None without a
    price. `wanted[task]`: training items.
    """

    accepted: dict[str, dict[str, int]]
    wanted: dict[str, int]
    rejected: dict[str, int]
    requests: int
    reused: int
    failed: int
    ambiguous: int
    usage: Usage
    cost: float | None
    data_dir: str

    def __str__(self) -> str:
        lines = []
        for task, sides in self.accepted.items():
            short = f"  ({self.wanted[task]} were wanted)" * (sides["train"] < self.wanted[task])
            lines.append(f"accepted  {task:22}{sides['train']:6} train{sides['heldout']:6} held-out{short}")
        lines += [f"rejected  {reason:22}{count:6}" for reason, count in self.rejected.items()]
        cost = "" if self.cost is None else f", {dollars(self.cost)}"
        lines += [
            f"requests  {self.requests} ({self.reused} answered in an earlier run, {self.failed} failed, "
            f"{self.ambiguous} in flight at a crash)",
            f"tokens    {tokens(self.usage.prompt)} in, {tokens(self.usage.completion)} out{cost}",
            f"data      {self.data_dir}",
        ]
        return "\n".join(lines)


def _goals(config: SelfInstructConfig) -> dict[Cell, int]:
    return dict(cell for name, target in config.wanted().items() for cell in cells_of(config, name, target))


def make_acceptance(config: SelfInstructConfig, tasks: dict[str, Task], journal: Journal) -> Acceptance:
    """Nothing accepted yet, the seeds in the pools, and what the config compares items with."""
    pack = load_pack(config.language)
    identifier = load_identifier(pack, config.glotlid_model) if config.language_id else None
    evaluation = load_ngrams(config.decontaminate) if config.decontaminate else frozenset()
    return Acceptance(config, tasks, _goals(config), journal, make_pools(config, tasks), identifier, evaluation)


def _hold_to_config(journal: Journal, config: SelfInstructConfig, digests: dict[str, str], *, keep: bool) -> int:
    """Refuses what would ask other requests than the directory was begun with. Returns the run's pool_lag."""
    lag: int = config.pool_lag or journal.config().get("pool_lag") or LAGS * config.teacher.max_in_flight
    identity, targets = config.asked(digests)
    identity["pool_lag"] = lag
    if keep:
        config.check_lag(lag)
        journal.keep_config(identity, targets)
    else:
        check_same(journal.config(), identity)
    return lag


def _checked_before(config: SelfInstructConfig, asked: set[str], show: Shows) -> SelfInstructConfig:
    """Without the checks that nothing was ever asked for: nothing will be now."""
    on = config.checks
    kept = ChecksConfig(
        majority_samples=on.majority_samples if "majority" in asked else 0,
        min_chrf=on.min_chrf if "back_translation" in asked else 0.0,
        ethics=on.ethics and "ethics" in asked,
        min_quality=on.min_quality if "quality" in asked else 0,
    )
    if kept != on:
        show.say("checks of which the journal has no verdict are left out; without --parse_only they are asked for")
    return replace(config, checks=kept)


@contextmanager
def _base_url(config: SelfInstructConfig, workdir: str, show: Shows) -> Iterator[str]:
    """The teacher's URL. For base_url="offline" the project's own server runs in this process meanwhile."""
    if config.teacher.base_url != OFFLINE:
        yield config.teacher.base_url
        return
    from data_gen.offline import teacher as offline_teacher

    scaled = "" if config.offline_scale == 1 else f"; asked for {config.offline_scale:g} of the targets (offline_scale)"
    show.say(f"offline teacher: grammars and word lists, not a language model{scaled}")
    server = offline_teacher.serve(
        seed=config.seed,
        fault_rate=config.teacher.offline_fault_rate,
        latency_s=config.teacher.offline_latency_s,
        truth_file=os.path.join(workdir, "offline_truth.jsonl"),
        faults=config.teacher.offline_faults,
    )
    try:
        yield server.base_url
    finally:
        server.close()


@dataclass
class _Run:
    """One run's parts, and what the screen shows of them."""

    state: SelfInstruct
    order: Order
    account: Account
    show: Shows
    began: float
    history: deque[tuple[float, int]]
    teacher: Teacher | BatchTeacher | None = None

    def snapshot(self) -> Snapshot:
        state, config = self.state.acceptance, self.state.config
        now = monotonic() - self.began
        accepted = {
            name: (sum(state.total[name, side] for side in SIDES), sum(state.goals.get((name, side), 0) for side in SIDES))
            for name in config.wanted()
        }
        if not self.history or now - self.history[-1][0] >= 1:
            self.history.append((now, sum(state.total.values())))
        return Snapshot(
            title=f"{config.teacher.model} at {config.teacher.base_url}",
            accepted=accepted,
            rejected=dict(state.rejected),
            checking=sum(state.waiting.values()),
            requests=self.order.accepted - self.order.failed + sum(reply is not None for reply in self.order.replies.values()),
            failed=self.order.failed,
            in_flight=self.teacher.in_flight if self.teacher else 0,
            window=self.teacher.window if self.teacher else 0,
            retries=self.account.retries,
            usage=self.account.usage,
            spent=self.account.budget.spent if self.account.price else None,
            max_cost=self.account.budget.cap,
            elapsed_s=int(now),
            eta_s=eta(self.history, sum(state.goals.values())),
            waiting=self.teacher.waiting if self.teacher else "reading the journal",
        )

    async def ask(self, base_url: str, journal: Journal) -> None:
        config = self.state.config.teacher
        async with Endpoint(config, base_url) as endpoint:
            if config.batch:
                self.teacher = BatchTeacher(endpoint, journal, self.account)
            else:
                self.teacher = Teacher(endpoint, journal, self.account, answered_before=self.order.reused > 0)
            await ask_all(self.order, self.teacher, self.show, self.snapshot)


def run(
    config: SelfInstructConfig,
    workdir: str,
    *,
    show: Shows,
    max_cost: float | None = None,
    parse_only: bool = False,
    command: str = "",
    jsonl: bool = False,
) -> Summary:
    """Generates until the targets are reached, writes WORKDIR/data and returns what happened. Goes on where an earlier
    run stopped. parse_only: asks nothing; the replies in the journal are read again and what they give is written.
    command: what the card says to give for the same data. jsonl: the records as JSONL too, which the hub's viewer reads.

    Raises UsageError on a config that makes no sense or differs from the one `workdir` was begun with, on a work
    directory in use, and when the teacher cannot be used; BudgetReached when the next request could cost more than
    max_cost (US dollars, over all runs on this directory) leaves. Whatever was answered until then stays in the journal.
    """
    config.validate()
    tasks, sources, digests = load_material(config)
    if parse_only and not os.path.exists(os.path.join(workdir, "journal.sqlite")):
        raise UsageError(f"--parse_only reads the replies in {workdir}/journal.sqlite, and there is none: check --workdir")
    with open_journal(workdir) as journal:
        lag = _hold_to_config(journal, config, digests, keep=not parse_only)
        if journal.open_batches() and not config.teacher.batch and not parse_only:
            raise UsageError(f"a batch of {workdir} is still with the provider: give --config.teacher.batch=true to fetch it")
        if parse_only:
            config = _checked_before(config, journal.checks(), show)
        given_up = load_tasks(config, journal.tasks() - tasks.keys())  # their targets are 0 now
        acceptance = make_acceptance(config, tasks | given_up, journal)
        if config.language_id and not acceptance.identifier:
            name = load_pack(config.language).name
            show.say(f"language_id: lingua does not know {name}, so without a glotlid_model no text's language is checked")
        state = SelfInstruct(config, acceptance, lag, sources)
        order = Order(state, journal, config.teacher.base_url)
        account, ambiguous = Account(config.teacher, journal, max_cost), journal.ambiguous()
        going = _Run(state, order, account, show, monotonic(), deque(maxlen=HISTORY))
        recall(order, show, going.snapshot, only_answered=parse_only)
        if order.requests:
            show.say(f"going on: {order.reused} of {order.requests} requests are answered, {ambiguous} were in flight at a crash")
        if not parse_only:
            try:
                with _base_url(config, workdir, show) as base_url:
                    asyncio.run(going.ask(base_url, journal))
            except (UsageError, BudgetReached, KeyboardInterrupt):
                with suppress(UsageError):  # what stopped the run is the news
                    write_rejects(journal, workdir)
                raise
        for idx in list(acceptance.pending):
            acceptance.settle(idx)  # asked nothing more of them
        write_rejects(journal, workdir)
        if not acceptance.total.total():
            reasons = ", ".join(f"{count} {reason}" for reason, count in acceptance.rejected.most_common(3))
            raise UsageError(f"no item is accepted ({reasons or 'none came'}): no data is written; see {workdir}/rejected.jsonl")
        data_dir = write_dataset(
            acceptance, account, workdir, pool_lag=lag, requests=order.accepted - order.failed, command=command, jsonl=jsonl
        )
    return Summary(
        accepted={name: {side: acceptance.total[name, side] for side in SIDES} for name in tasks},
        wanted=config.wanted(),
        rejected=dict(acceptance.rejected.most_common()),
        requests=order.requests,
        reused=order.reused,
        failed=order.failed,
        ambiguous=ambiguous,
        usage=account.usage,
        cost=account.budget.spent if account.price else None,
        data_dir=data_dir,
    )
