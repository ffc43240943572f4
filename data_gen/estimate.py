"""What a self-instruct run still has to ask, and what that will cost, before anything is sent: requests, tokens, dollars.

Nothing is asked, locked or written here: an estimate works beside a run that goes on. It knows no tokenizer. Tokens are guessed
from bytes; once a work directory holds a few replies, what its endpoint counted is taken instead, task by task.
"""

import json
import os
import random
import sqlite3
import statistics
import urllib.parse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from data_gen import UsageError
from data_gen.acceptance import TARGET_REACHED, Cell
from data_gen.config import SelfInstructConfig
from data_gen.endpoint import OFFLINE
from data_gen.journal import ACCEPTED, DONE, WAITING, check_same
from data_gen.judging import question_body, questions
from data_gen.languages import ENGLISH
from data_gen.limits import Usage, token_bound
from data_gen.planner import cells_of, load_material, request_body
from data_gen.prompt import example_block
from data_gen.readable import dollars, tokens
from data_gen.record import Item
from data_gen.task import Task

ASSUMED_ACCEPTANCE = 0.7  # of the items asked for; the quickstart's run keeps 0.79
ENOUGH_REPLIES = 20  # before that a work directory's own figures say too little
PRIOR_REPLIES = 5  # what is expected of a task weighs as much as this many replies of its own
NEWEST = 2000  # replies whose tokens are added up; accepted items are counted in all
PROMPTS = 8  # drawn of a task's side for the mean length
ASCII_BYTES_A_TOKEN, OTHER_BYTES_A_TOKEN = 4, 3  # of UTF-8; three bytes are one and a half Urdu letters
ASSUMPTIONS = "assumptions"


def count_tokens(text: str) -> int:
    """Tokens of a text as a current tokenizer might count them: "Output: سلام" → 5. A guess, for estimates only."""
    data = text.encode("utf-8", "surrogatepass")
    others = len(data.translate(None, bytes(range(128))))
    return ceil((len(data) - others) / ASCII_BYTES_A_TOKEN + others / OTHER_BYTES_A_TOKEN)


@dataclass(frozen=True)
class Estimate:
    """What is still to be asked. Dollars are None where the config has no price.

    The worst: every reply as long as max_tokens allows, and a token for each byte of the prompts. Neither knows of attempts that
    come to nothing and are paid for, nor that less is accepted the more there is.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    worst_completion_tokens: int
    cost_usd: float | None
    worst_cost_usd: float | None
    spent_usd: float  # by earlier runs on this work directory, as far as a price was known
    known_from: str  # "assumptions", or "N replies of this work directory"

    def __str__(self) -> str:
        return self.text(None)

    def text(self, max_cost: float | None) -> str:
        """Some aligned lines; with a budget, what it is good for."""
        money = "unknown: teacher.input_price and teacher.output_price, US dollars per million tokens, are not set"
        if self.cost_usd is not None and self.worst_cost_usd is not None:
            money = f"{dollars(self.cost_usd)}; {dollars(self.worst_cost_usd)} if every reply were as long as max_tokens"
        doubt = "; a reasoning model's thoughts come on top" if self.known_from == ASSUMPTIONS else ""
        return "\n".join([
            f"requests  {self.requests:,} to be answered",
            f"tokens    {tokens(self.prompt_tokens)} in, {tokens(self.completion_tokens)} out",
            f"cost      {money}",
            *([f"spent     {dollars(self.spent_usd)} before"] if self.spent_usd else []),
            *([f"budget    {self._verdict(max_cost)}"] if max_cost is not None else []),
            f"by        {self.known_from}{doubt}",
        ])  # fmt: skip

    def _verdict(self, max_cost: float) -> str:
        if self.cost_usd is None or self.worst_cost_usd is None:
            return f"{dollars(max_cost)} needs a price"
        left = max_cost - self.spent_usd
        reach = "enough in any case" if left >= self.worst_cost_usd else "enough" if left >= self.cost_usd else "not enough"
        return f"{dollars(max_cost)}: {reach}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Replies:
    """What the journal knows of one cell: replies with items, and the items that they would give had none come when the target
    was already reached; of the newest with a usage, how many and their tokens, those of the checks included.
    """

    count: int = 0
    requests: int = 0  # with those of the checks
    acceptable: float = 0.0
    counted: int = 0
    usage: Usage = Usage()


@dataclass(frozen=True)
class _Reply:
    """What one reply of a cell is expected to bring (items kept) and to take, with the checks of its items (requests, tokens)."""

    accepted: float
    requests: float
    prompt: float
    completion: float
    prompt_bound: int


def estimate(config: SelfInstructConfig, workdir: str | None = None) -> Estimate:
    """What is still to be asked until the targets are reached; of `workdir` what it holds is taken off.

    Raises UsageError on a config that makes no sense and on a journal.sqlite that is none. A directory that is not there is one
    that has nothing yet; nothing is made.
    """
    config.validate()
    goals = dict(cell for name, target in config.wanted().items() for cell in cells_of(config, name, target))
    tasks, sources, digests = load_material(config)
    expected = {cell: _expected(config, tasks[cell[0]], cell, [item for _, item in sources.get(cell[1], ())]) for cell in goals}
    known, spent, begun_with = _read_journal(workdir) if workdir else ({}, 0.0, {})
    check_same(begun_with, config.asked(digests)[0])
    replies = sum(one.count for one in known.values())
    measured = replies >= ENOUGH_REPLIES
    if measured:
        expected = _as_measured(config, expected, known)
    # Of replies that are here a higher target takes what the lower one left.
    lacking = {cell: max(0.0, goal - known.get(cell, _Replies()).acceptable) for cell, goal in goals.items()}
    asked = {cell: ceil(lacking[cell] / one.accepted) for cell, one in expected.items()}
    for name, side in asked:
        if tasks[name].rules.source == ENGLISH:  # no more than there are to translate
            asked[name, side] = min(asked[name, side], ceil(len(sources[side]) / config.items_per_request))
    requests = round(sum(asked[cell] * one.requests for cell, one in expected.items()))
    prompt, completion, bound = (
        round(sum(asked[cell] * getattr(one, kind) for cell, one in expected.items()))
        for kind in ("prompt", "completion", "prompt_bound")
    )
    worst = requests * config.max_tokens
    cached = round(prompt * _cached_share(known)) if measured else 0
    return Estimate(
        requests=requests,
        prompt_tokens=prompt,
        completion_tokens=completion,
        worst_completion_tokens=worst,
        cost_usd=_money(config, Usage(prompt, completion, cached)),
        worst_cost_usd=_money(config, Usage(bound, worst)),
        spent_usd=spent,
        known_from=f"{replies:,} replies of this work directory" if measured else ASSUMPTIONS,
    )


def _money(config: SelfInstructConfig, usage: Usage) -> float | None:
    price = config.teacher.price()
    if price is None:
        return 0.0 if config.teacher.base_url == OFFLINE else None
    return price.of(usage)


def _expected(config: SelfInstructConfig, task: Task, cell: Cell, sources: list[Item]) -> _Reply:
    """By assumption. The prompts are real ones, with further seeds where a run shows items of its pool, and seeds where it asks
    about new items. `sources` are the English items that a translation is of.
    """
    rng = random.Random(f"{config.seed} estimate {cell}")
    items = [item for _, item in task.seeds[cell[1]]] or sources
    shown = min(config.items_per_request if sources else config.seeds_per_prompt + config.pool_per_prompt, len(items))
    bodies = [request_body(config, task, rng.sample(items, shown), rng) for _ in range(PROMPTS)]
    block = statistics.fmean(count_tokens(example_block(item)) for item in items)
    kept = dict(enumerate(rng.choices(items, k=max(1, round(ASSUMED_ACCEPTANCE * config.items_per_request)))))
    checks = questions(task, kept, config)
    about = [question_body(config, task, one, [kept[number] for number in one.numbers], rng) for one in checks]
    said = {"back_translation": block, "majority": 20.0}  # tokens an item; a mark takes about ten with its number
    return _Reply(
        accepted=ASSUMED_ACCEPTANCE * config.items_per_request,
        requests=1 + len(checks),
        prompt=statistics.fmean(map(_prompt_tokens, bodies)) + sum(map(_prompt_tokens, about)),
        completion=min(config.items_per_request * block, config.max_tokens)
        + sum(said.get(one.check, 10.0) * len(one.numbers) for one in checks),
        prompt_bound=max(map(token_bound, bodies)) + sum(map(token_bound, about)),
    )


def _prompt_tokens(body: str) -> int:
    return sum(count_tokens(message["content"]) for message in json.loads(body)["messages"])


# --- what a work directory has measured


def _as_measured(config: SelfInstructConfig, expected: Mapping[Cell, _Reply], known: Mapping[Cell, _Replies]) -> dict[Cell, _Reply]:
    """Each cell's own means, held by what is expected of it: that, corrected by how far it is off over all cells."""
    pairs = [(known.get(cell, _Replies()), one) for cell, one in expected.items()]
    least = config.min_acceptance * config.items_per_request  # a run stops under it
    accepted = _ratio(sum(own.acceptable for own, _ in pairs), sum(own.count * one.accepted for own, one in pairs))
    prompt = _ratio(sum(own.usage.prompt for own, _ in pairs), sum(own.counted * one.prompt for own, one in pairs))
    completion = _ratio(sum(own.usage.completion for own, _ in pairs), sum(own.counted * one.completion for own, one in pairs))
    return {
        cell: _Reply(
            accepted=max(least, _mean(own.acceptable, own.count, one.accepted * accepted)),
            requests=_mean(own.requests, own.count, one.requests),
            prompt=_mean(own.usage.prompt, own.counted, one.prompt * prompt),
            completion=_mean(own.usage.completion, own.counted, one.completion * completion),
            prompt_bound=one.prompt_bound,
        )
        for cell, (own, one) in zip(expected, pairs, strict=True)
    }


def _ratio(measured: float, expected: float) -> float:
    """1 where nothing was measured."""
    return measured / expected if expected else 1.0


def _mean(total: float, count: int, expected: float) -> float:
    """Of `count` replies that gave `total`, and PRIOR_REPLIES that gave what is expected."""
    return (total + PRIOR_REPLIES * expected) / (count + PRIOR_REPLIES)


def _cached_share(known: Mapping[Cell, _Replies]) -> float:
    usage = sum((one.usage for one in known.values()), Usage())
    return usage.cached / usage.prompt if usage.prompt else 0.0


_CELLS = (
    "WITH cell AS (SELECT idx, status, json_extract(about, '$.task') AS task, json_extract(about, '$.side') AS side, "
    "json_extract(about, '$.check') IS NULL AS gives FROM request)"
)
_COUNTS = f"{_CELLS} SELECT task, side, sum(gives), count(*) FROM cell WHERE status = '{DONE}' GROUP BY task, side"
_ITEMS = f"""{_CELLS} SELECT task, side, sum(outcome = '{ACCEPTED}'), sum(outcome NOT IN ('{TARGET_REACHED}', '{WAITING}')),
count(*)
FROM item JOIN cell USING (idx) GROUP BY task, side"""
# Where an endpoint counts no tokens the journal has the worst case instead, which is no measurement: hence the look into the reply.
_USAGE = f"""{_CELLS} SELECT task, side, sum(gives), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens)
FROM (SELECT * FROM cell WHERE status = '{DONE}' ORDER BY idx DESC LIMIT {NEWEST}) JOIN attempt USING (idx)
WHERE reply IS NOT NULL AND error IS NULL AND iif(json_valid(reply), json_type(reply, '$.usage.completion_tokens'), '') = 'integer'
GROUP BY task, side"""


def _read_journal(workdir: str) -> tuple[dict[Cell, _Replies], float, dict[str, Any]]:
    """Each cell's replies, dollars spent, and the config (where something was answered) that the directory was begun with; read
    beside whoever holds the lock.
    """
    path = os.path.join(workdir, "journal.sqlite")
    if not os.path.exists(path):
        return {}, 0.0, {}
    # A database that nobody has open is read as it lies there: SQLite would make its side files anew to look into them.
    how = "mode=ro" if os.path.exists(path + "-wal") else "mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(f"file:{urllib.parse.quote(os.path.abspath(path))}?{how}", uri=True)) as db:
            counts, items, usage = (db.execute(sql).fetchall() for sql in (_COUNTS, _ITEMS, _USAGE))
            [[spent]] = db.execute("SELECT total(cost) FROM attempt")
            begun_with = {name: json.loads(value) for name, value in db.execute("SELECT name, value FROM config")} if counts else {}
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} cannot be read as a journal: {error}; give another --workdir") from error
    kept = {(task, side): accepted * came / max(judged, 1) for task, side, accepted, judged, came in items}
    measured = {(task, side): (count, Usage(*sums)) for task, side, count, *sums in usage}
    none = _Replies()
    known = {
        (task, side): _Replies(
            count,
            requests,
            kept.get((task, side), none.acceptable),
            *measured.get((task, side), (none.counted, none.usage)),
        )
        for task, side, count, requests in counts
    }
    return known, spent, begun_with
