"""Questions to models, their replies in the work directory's one journal. Which questions, and what of the replies: the stages.

A reply belongs to what was asked of which model, not to a place in a list: a stage made again, in another order or with more
documents, finds what was answered before and asks the rest. What failed for good is asked again at the next start. One journal, so
that --max_cost is one budget for all stages; models of one's own cost nothing in it.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import monotonic
from typing import Any

from data_gen import UsageError
from data_gen.account import Account
from data_gen.endpoint import Endpoint, TeacherConfig
from data_gen.engine import SHOW_S, Shows
from data_gen.journal import DONE, PLANNED, Journal, Request, request_key
from data_gen.progress import Snapshot, eta
from data_gen.prompt import reply_choice, without_thoughts
from data_gen.readable import percent
from data_gen.record import canonical_json
from data_gen.teacher import Teacher

Message = dict[str, str]
HISTORY = 600


@dataclass(frozen=True)
class Question:
    """What is asked: messages and the request's further fields. id: whom it is about, for people who read the journal. sample: the
    how manieth time the same is asked, where it is to be answered anew.
    """

    id: str
    messages: tuple[Message, ...]
    fields: dict[str, Any] = field(default_factory=dict)
    sample: int = 0


@dataclass
class Model:
    """Whom to ask. key: what the model is, wherever it is; name: what its server calls it; at: gives its URL, starting a server if
    there is none yet; limits: how hard it may be pressed, and its price. own: trained here, so that it costs nothing, and what it
    says is its answer even if it is nothing.
    """

    key: str
    name: str
    at: Callable[[], str]
    limits: TeacherConfig
    own: bool = False

    @cached_property
    def url(self) -> str:
        return self.at()


@dataclass
class Answer:
    """text without blanks around it; cut: it ends because it may not be longer; raw: the whole reply."""

    text: str
    cut: bool
    raw: str


class Asker:
    """`asker.ask(model, questions, …)`, then `asker.answer(model, question)` of each."""

    def __init__(self, journal: Journal, show: Shows, max_cost: float | None = None, max_errors: float = 0.0) -> None:
        self.journal, self._show, self._max_cost, self._max_errors = journal, show, max_cost, max_errors
        self.requests = journal.count()

    def answer(self, model: Model, question: Question) -> Answer | None:
        """What was answered; None where nothing was."""
        request = self.journal.find(_key(model, question))
        if request is None or request.reply is None:
            return None
        text, finish = reply_choice(request.reply, may_be_empty=True)
        said = without_thoughts(text, cut_off := finish == "length")
        return Answer((said or "").strip(), cut_off, request.reply)

    def error(self, model: Model, question: Question) -> str:
        """What came instead of an answer, as "HTTP 400: …"; "" where one came or nothing was asked."""
        request = self.journal.find(_key(model, question))
        return self.journal.last_error(request.idx) if request else ""

    def ask(
        self,
        model: Model,
        questions: Iterable[Question],
        *,
        title: str,
        wanted: int,
        max_errors: float | None = None,
        patient: bool = False,
    ) -> None:
        """Has every question answered that is not yet. wanted: how many there are. max_errors: the Asker's own. patient: a
        question that the model refuses is no error of use, even if it is the first one.

        Raises UsageError where more than `max_errors` of them fail for good (what was answered stays), and as a teacher does.
        """
        open_ones = (question for question in questions if not self._is_answered(model, question))
        first = next(open_ones, None)
        if first is None:
            return
        config = replace(model.limits, base_url=model.url, model=model.name)
        account = Account(config, self.journal, None if model.own else self._max_cost, own=model.own)
        run = _Asking(self, model, config, account, title, wanted)
        most = self._max_errors if max_errors is None else max_errors
        failed = asyncio.run(run.all(first, open_ones, patient))
        self.journal.commit()
        if failed > most * max(wanted, 1):
            raise UsageError(
                f"{title}: {failed} of {wanted:,} requests failed for good ({percent(failed, wanted)}; {percent(most, 1)} "
                "may). "
                f"What was answered stays; look at the server of {model.name}, then give the same command: it asks the others again"
            )

    def budget_needs_price(self, teacher: TeacherConfig) -> bool:
        """Whether there is a budget, and no price to hold it by."""
        return self._max_cost is not None and teacher.price() is None

    def spent(self) -> float:
        """US dollars so far, over all starts."""
        return self.journal.spent()[1]

    def _is_answered(self, model: Model, question: Question) -> bool:
        request = self.journal.find(_key(model, question))
        return request is not None and request.status == DONE

    def plan(self, model: Model, question: Question) -> Request | None:
        """The question's request in the journal: a new one, or one that an earlier start could not have answered; None where it is
        answered by now.
        """
        request = self.journal.find(_key(model, question))
        if request is None:
            request = self.journal.plan(self.requests, _body(model, question), {"about": question.id}, model.key, question.sample)
            self.requests += 1
        elif request.status == DONE:
            return None
        else:
            self.journal.set_status(request.idx, PLANNED)
        return request

    def update(self, snapshot: Callable[[], Snapshot]) -> None:
        self._show.update(snapshot)

    def say(self, line: str) -> None:
        self._show.say(line)


def _body(model: Model, question: Question) -> str:
    """The request as the model's endpoint wants it: some refuse a seed, or call the longest reply otherwise."""
    called = {"max_tokens": model.limits.max_tokens_field}
    wanted = {called.get(name, name): value for name, value in question.fields.items() if name != "seed" or model.limits.seed}
    return canonical_json({"model": model.name, "messages": question.messages, **wanted})


def _key(model: Model, question: Question) -> str:
    return request_key(_body(model, question), model.key, question.sample)


class _Asking:
    """One call of Asker.ask: as many requests under way as the teacher's window allows."""

    def __init__(self, asker: Asker, model: Model, config: TeacherConfig, account: Account, title: str, wanted: int) -> None:
        self.asker, self.model, self.config, self.account = asker, model, config, account
        self.title, self.wanted = title, wanted
        self.done, self.failed, self.began = 0, 0, monotonic()
        self.history: list[tuple[float, int]] = []
        self.teacher: Teacher | None = None

    async def all(self, first: Question, rest: Iterator[Question], patient: bool) -> int:
        """How many failed."""
        async with Endpoint(self.config, self.config.base_url) as endpoint:
            teacher = self.teacher = Teacher(
                endpoint, self.asker.journal, self.account, answered_before=patient, may_say_nothing=self.model.own
            )
            tasks: dict[asyncio.Task[str | None], int] = {}
            following: Question | None = first
            try:
                while following or tasks:
                    while following and len(tasks) < teacher.window:
                        request = self.asker.plan(self.model, following)
                        if request and request.idx not in tasks.values():  # the same may be asked twice
                            tasks[asyncio.create_task(teacher.ask(request))] = request.idx
                        following = next(rest, None)
                        await asyncio.sleep(0)
                    if not tasks:
                        break
                    finished, _ = await asyncio.wait(tasks, timeout=SHOW_S, return_when=asyncio.FIRST_COMPLETED)
                    for task in finished:
                        del tasks[task]
                        self.done += 1
                        self.failed += task.result() is None
                    self.asker.update(self.snapshot)
            finally:
                if tasks and teacher.stopping:
                    self.asker.say(teacher.stopping)
                await teacher.drain(tasks.items())
        return self.failed

    def snapshot(self) -> Snapshot:
        now = monotonic() - self.began
        if not self.history or now - self.history[-1][0] >= 1:
            self.history = [*self.history[-HISTORY:], (now, self.done)]
        teacher, account = self.teacher, self.account
        return Snapshot(
            title=f"{self.title}: {self.model.name}",
            accepted={self.title: (self.done - self.failed, self.wanted)},
            requests=self.done - self.failed,
            failed=self.failed,
            in_flight=teacher.in_flight if teacher else 0,
            window=teacher.window if teacher else 0,
            retries=account.retries,
            usage=account.usage,
            spent=account.budget.spent if account.price and not self.model.own else None,
            max_cost=account.budget.cap,
            elapsed_s=int(now),
            eta_s=eta(self.history, self.wanted),
            waiting=teacher.waiting if teacher else "",
        )
