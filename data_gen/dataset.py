"""From the journal to WORKDIR/data: shards and manifest, the card, the report; and WORKDIR/rejected.jsonl. All of it can be written
again at any time.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain

from data_gen import UsageError
from data_gen.acceptance import Acceptance
from data_gen.account import Account
from data_gen.card import write_card, write_jsonl
from data_gen.card_facts import CardInputs, checks_on
from data_gen.journal import Journal
from data_gen.planner import read_record
from data_gen.record import SIDES, Record
from data_gen.review import read_by_people, reviewed
from data_gen.tfrecord import write_shards


@dataclass(frozen=True)
class Accepted:
    """The accepted items of a side as records, as their reviewers would have them, read from the journal each time they are gone
    through.
    """

    journal: Journal
    side: str

    @cached_property
    def _count(self) -> int:
        return sum(1 for _ in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        records = map(read_record, self.journal.accepted(self.side))
        reviews = self.journal.reviews()
        return reviewed(records, reviews) if reviews else records


def write_dataset(
    acceptance: Acceptance, account: Account, workdir: str, *, pool_lag: int, requests: int, command: str, jsonl: bool
) -> str:
    """Shards, README.md and report.html, the records as JSONL too if `jsonl`; returns their directory. Raises UsageError where it
    cannot be written.
    """
    journal, config, data_dir = acceptance.journal, acceptance.config, os.path.join(workdir, "data")
    splits = {side: Accepted(journal, side) for side in SIDES}
    recipe = asdict(config) | {"pool_lag": pool_lag}
    try:
        write_shards(data_dir, splits, config=recipe, shard_records=config.shard_records)
    except OSError as error:
        raise UsageError(f"{data_dir} cannot be written: {error}. The journal has it all: the same command writes it") from error
    tasks = {name: acceptance.tasks[name] for name in config.wanted()}
    pack = next(iter(tasks.values())).pack
    inputs = CardInputs(
        name=f"{pack.name} instructions",
        pack=pack,
        teacher=config.teacher.model,
        teacher_terms=config.teacher.terms,
        licence=config.licence,
        recipe=recipe,
        accepted={name: {side: acceptance.total[name, side] for side in SIDES} for name in tasks},
        rejected=dict(acceptance.rejected.most_common()),
        prompts={name: task.prompt_digest for name, task in tasks.items()},
        requests=requests,
        usage=account.usage,
        cost=account.budget.spent if account.price else None,
        command=command,
        checks=checks_on(config, {check for task in tasks.values() for check in task.rules.checks}),
        reviewed=read_by_people(journal),
    )
    write_card(data_dir, inputs, lambda: chain.from_iterable(splits.values()))
    if jsonl:
        write_jsonl(data_dir, chain.from_iterable(splits.values()))
    return data_dir


def write_rejects(journal: Journal, workdir: str) -> None:
    """The items that were not kept, with their reasons. Raises UsageError where they cannot be written."""
    try:
        with open(os.path.join(workdir, "rejected.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in journal.rejected())
    except OSError as error:
        raise UsageError(f"{workdir}/rejected.jsonl cannot be written: {error}. The journal has it all; make room") from error
