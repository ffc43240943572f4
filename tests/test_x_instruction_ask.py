"""Questions of X-Instruction and their answers in the journal: what is asked again, and what never."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError
from data_gen.ask import Asker, Model, Question
from data_gen.endpoint import TeacherConfig
from data_gen.journal import DONE, FAILED, PLANNED, open_journal, request_key
from data_gen.limits import BudgetReached, Usage
from tests.toy_models import answer, served
from tests.x_instruction_material import Show, asking

# --- the journal's own ---------------------------------------------------------------------------------------------------


def test_requests_are_counted_and_found_by_key(tmp_path: Path) -> None:
    with open_journal(str(tmp_path)) as journal:
        assert journal.count() == 0 and journal.find("none") is None
        planned = [journal.plan(idx, f"body {idx}", {"about": idx}, "server") for idx in range(3)]
        assert journal.count() == 3
        assert [journal.find(request_key(f"body {idx}", "server")) for idx in range(3)] == planned
        assert journal.find(request_key("body 1", "another server")) is None
        refused = journal.sent(planned[1], Usage(1, 1), None)
        journal.refused(refused, "HTTP 500", "useless", Usage(), None)
        found = journal.find(planned[1].key)
        assert found and (found.status, found.reply) == (PLANNED, None), "a useless reply is none"
        journal.answered(journal.sent(planned[1], Usage(1, 1), None), "the reply", Usage(1, 1), None)
        found = journal.find(planned[1].key)
        assert found and (found.idx, found.about, found.status, found.reply) == (1, {"about": 1}, DONE, "the reply")
        journal.set_status(2, FAILED)
        found = journal.find(planned[2].key)
        assert found and (found.status, found.reply) == (FAILED, None)
    with open_journal(str(tmp_path)) as journal:
        assert journal.count() == 3 and (again := journal.find(planned[1].key)) and again.reply == "the reply"


# --- asking --------------------------------------------------------------------------------------------------------------


def model(url: str, key: str = "toy", *, own: bool = False, **limits: Any) -> Model:
    free = {"input_price": 0.0, "output_price": 0.0} if own else {}
    given = TeacherConfig(**{"backoff_s": 0.01, "give_up_s": 5.0, "max_in_flight": 4, **free, **limits})
    return Model(key, key, lambda: url, given, own)


def questions(*texts: object, **fields: Any) -> list[Question]:
    return [Question(f"about {text}", ({"role": "user", "content": str(text)},), {"max_tokens": 8, **fields}) for text in texts]


class Echo:
    """A server that answers "re: …"; it refuses what has "bad" in it and cuts what has "long" in it."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refuses = True

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        self.bodies.append(body)
        asked = body["messages"][-1]["content"]
        if "bad" in asked and self.refuses:
            raise PermissionError("not this one")
        return answer(f"  re: {asked} by {body['model']}\n", "length" if "long" in asked else "stop")

    @property
    def asked(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.bodies]


def run(asker: Asker, who: Model, asked: Sequence[Question], **more: Any) -> None:
    asker.ask(who, asked, title="questions", wanted=len(asked), **more)


def texts_of(asker: Asker, who: Model, asked: Sequence[Question]) -> list[str | None]:
    return [found.text if found else None for found in (asker.answer(who, one) for one in asked)]


def test_an_answer_belongs_to_what_was_asked(tmp_path: Path) -> None:
    """Whatever the order, and at the next start too; only what is new is asked."""
    echo, asked = Echo(), questions(*range(10))
    with served(echo) as url:
        with asking(tmp_path) as asker:
            run(asker, model(url), asked)
            assert texts_of(asker, model(url), asked) == [f"re: {k} by toy" for k in range(10)]
        with asking(tmp_path) as asker:
            started: list[str] = []

            def start() -> str:
                started.append(url)
                return url

            lazy = Model("toy", "toy", start, TeacherConfig())
            run(asker, lazy, asked[::-1])
            assert len(echo.asked) == 10 and not started, "no server is started for what was answered"
            more = [*questions("new"), *asked[::-2]]
            run(asker, model(url), more)
            assert echo.asked[10:] == ["new"]
            assert texts_of(asker, model(url), more) == ["re: new by toy", *(f"re: {k} by toy" for k in range(9, -1, -2))]
            assert texts_of(asker, model(url), questions("never")) == [None]


def test_what_an_answer_says_of_itself(tmp_path: Path) -> None:
    echo, asked = Echo(), questions("x", "a long one")
    with served(echo) as url, asking(tmp_path) as asker:
        run(asker, model(url), asked)
        short, cut = (asker.answer(model(url), question) for question in asked)
        assert short and cut and (short.text, short.cut, cut.cut) == ("re: x by toy", False, True)
        assert json.loads(short.raw)["choices"][0]["message"]["content"] == "  re: x by toy\n"


@pytest.mark.parametrize("field", [{"temperature": 0.5}, {"seed": 2}, {"max_tokens": 9}])
def test_another_request_is_another_question(tmp_path: Path, field: dict[str, Any]) -> None:
    echo = Echo()
    with served(echo) as url, asking(tmp_path) as asker:
        run(asker, model(url), questions("x", seed=1, temperature=0.1))
        run(asker, model(url), questions("x", **{"seed": 1, "temperature": 0.1, **field}))
        assert len(echo.asked) == 2


def test_what_failed_is_asked_again_at_the_next_start(tmp_path: Path) -> None:
    echo, asked = Echo(), questions("1", "2", "bad 3", "4", "bad 5", *range(6, 11))
    with served(echo) as url:
        with (
            asking(tmp_path) as asker,
            pytest.raises(UsageError, match=r"questions: 2 of 10 requests failed.*20%.*10% may.*asks the others again"),
        ):
            run(asker, model(url, max_in_flight=1), asked, max_errors=0.1)
        with asking(tmp_path) as asker:
            kept = texts_of(asker, model(url), asked)
            assert [place for place, text in enumerate(kept) if text is None] == [2, 4]
            before = len(echo.asked)
            echo.refuses = False
            run(asker, model(url), asked, max_errors=0.1)
            assert sorted(echo.asked[before:]) == ["bad 3", "bad 5"] and None not in texts_of(asker, model(url), asked)


def test_as_many_failures_as_may_be_stop_nothing(tmp_path: Path) -> None:
    with served(Echo()) as url, asking(tmp_path) as asker:
        asked = questions(*range(8), "bad 1", "bad 2")
        run(asker, model(url, max_in_flight=1), asked, max_errors=0.2)
        assert texts_of(asker, model(url), asked)[8:] == [None, None]


def test_a_first_question_that_is_refused(tmp_path: Path) -> None:
    """An error of use, unless the asker is patient: then it is one that failed."""
    with served(Echo()) as url, asking(tmp_path) as asker:
        with pytest.raises(UsageError, match="HTTP 400: .*not this one"):
            run(asker, model(url), questions("bad"), max_errors=1.0)
        run(asker, model(url), questions("bad"), max_errors=1.0, patient=True)
        assert texts_of(asker, model(url), questions("bad")) == [None]


def test_two_models_in_one_journal(tmp_path: Path) -> None:
    echo, asked = Echo(), questions("x", "y")
    with served(echo) as url, asking(tmp_path) as asker:
        one, other = model(url, "one"), model(url, "other")
        run(asker, one, asked)
        assert texts_of(asker, other, asked) == [None, None]
        run(asker, other, asked)
        assert texts_of(asker, one, asked) == ["re: x by one", "re: y by one"]
        assert texts_of(asker, other, asked) == ["re: x by other", "re: y by other"]
        assert asker.journal.count() == 4 == len(list(asker.journal.requests()))


def test_the_same_name_at_two_servers_is_two_models(tmp_path: Path) -> None:
    """What a model is, its key says: a generator trained again keeps its name, and must be asked again."""
    echo = Echo()
    with served(echo) as url, asking(tmp_path) as asker:
        before, after = (Model(key, "generator", lambda: url, TeacherConfig()) for key in ("generator-1", "generator-2"))
        run(asker, before, questions("x"))
        run(asker, after, questions("x"))
        assert echo.asked == ["x", "x"]


PRICED: dict[str, Any] = {"input_price": 10_000.0, "output_price": 10_000.0}


def test_the_budget_stops_the_priced_model_and_never_ones_own(tmp_path: Path) -> None:
    echo, asked = Echo(), questions(*range(40))
    with served(echo) as url, asking(tmp_path, max_cost=4.0) as asker:
        with pytest.raises(BudgetReached):
            run(asker, model(url, "teacher", **PRICED), asked)
        spent, answered = asker.spent(), len(echo.asked)
        assert 0 < answered < 40 and spent == pytest.approx(18 * answered / 100) and spent <= 4.0
        run(asker, model(url, "own", own=True), asked)
        assert len(echo.asked) == answered + 40 and asker.spent() == pytest.approx(spent), "one's own costs nothing"
        with pytest.raises(BudgetReached):
            run(asker, model(url, "teacher", **PRICED), asked)
    with served(echo) as url, asking(tmp_path, max_cost=4.0) as asker, pytest.raises(BudgetReached):
        run(asker, model(url, "teacher", **PRICED), asked)  # over all starts
    with served(echo) as url, asking(tmp_path, max_cost=0.01) as asker:
        run(asker, model(url, "own", own=True), questions("new"))  # though more is spent than may be now


@pytest.mark.parametrize("own", [True, False])
def test_an_empty_reply_is_an_answer_of_ones_own_model_alone(tmp_path: Path, own: bool) -> None:
    with served(lambda body: answer("" if body["messages"][-1]["content"] == "x" else "yes")) as url, asking(tmp_path) as asker:
        who, asked = model(url, own=own, max_in_flight=1), questions("y", "x")
        run(asker, who, asked, max_errors=0.5)
        assert texts_of(asker, who, asked) == ["yes", "" if own else None]


def test_a_budget_without_a_price(tmp_path: Path) -> None:
    with asking(tmp_path, max_cost=1.0) as asker:
        assert asker.budget_needs_price(TeacherConfig()) and not asker.budget_needs_price(TeacherConfig(**PRICED))
        with pytest.raises(UsageError, match="--max_cost=1 needs a price"):
            run(asker, model("http://127.0.0.1:9/v1"), questions("x"))
    with asking(tmp_path) as asker:
        assert not asker.budget_needs_price(TeacherConfig())


def test_ones_own_model_sets_no_price_for_the_teacher(tmp_path: Path) -> None:
    """The teacher was asked before its price was known: once it is, that counts, whoever else was asked between."""
    with served(Echo()) as url:
        with asking(tmp_path) as asker:
            run(asker, model(url, "teacher"), questions(1, 2, 3))
            run(asker, model(url, "own", own=True), questions(1, 2, 3))
        with asking(tmp_path) as asker:
            run(asker, model(url, "teacher", **PRICED), questions(4))
            assert asker.spent() == pytest.approx(4 * 18 / 100)


@pytest.mark.parametrize("limits", [{}, {"max_tokens_field": "max_completion_tokens"}, {"seed": False}])
def test_fields_as_the_endpoint_wants_them(tmp_path: Path, limits: dict[str, Any]) -> None:
    echo = Echo()
    with served(echo) as url, asking(tmp_path) as asker:
        run(asker, model(url, **limits), questions("x", seed=5, temperature=0.5))
        [body] = echo.bodies
        expected = {"model": "toy", "messages": [{"role": "user", "content": "x"}], "temperature": 0.5}
        expected |= {limits.get("max_tokens_field", "max_tokens"): 8} | ({"seed": 5} if limits.get("seed", True) else {})
        assert body == expected and texts_of(asker, model(url, **limits), questions("x", seed=5, temperature=0.5)) == [
            "re: x by toy"
        ]


@pytest.mark.parametrize("window", [1, 2, 8])
@pytest.mark.parametrize("order", ["AA", "AAAAAA", "ABAB", "AABBA", "ABCABCABC"])
def test_the_same_asked_twice_is_asked_once(tmp_path: Path, window: int, order: str) -> None:
    """Also where the first is under way when the second's turn comes."""
    echo, asked = Echo(), questions(*order)
    with served(echo) as url, asking(tmp_path) as asker:
        run(asker, model(url, max_in_flight=window), asked)
        assert Counter(echo.asked) == Counter(set(order))
        assert texts_of(asker, model(url), asked) == [f"re: {letter} by toy" for letter in order]
        assert len(list(asker.journal.requests())) == len(set(order))


def test_broken_off_it_keeps_the_replies_on_their_way(tmp_path: Path) -> None:
    """As Ctrl-C: replies that are paid for are waited for, and nothing is asked twice."""
    begun, left = Counter[str](), 0
    echo, asked = Echo(), questions(*range(30))

    def stop() -> None:
        nonlocal left
        left = sum(begun.values()) - len(echo.asked)
        if len(echo.asked) >= 8 and left:
            raise KeyboardInterrupt

    def slow(body: dict[str, Any]) -> dict[str, Any]:
        number = body["messages"][-1]["content"]
        begun[number] += 1
        time.sleep(0.02 + 0.03 * (int(number) % 4))
        return echo(body)

    with served(slow) as url:
        with asking(tmp_path, show=Show(stop)) as asker, pytest.raises(KeyboardInterrupt):
            run(asker, model(url), asked)
        first = len(echo.asked)
        with asking(tmp_path) as asker:
            assert left and 0 < first < 30 and sum(text is not None for text in texts_of(asker, model(url), asked)) == first
            run(asker, model(url), asked)
            assert None not in texts_of(asker, model(url), asked)
    assert begun == Counter(str(k) for k in range(30))
    assert Counter(echo.asked) == Counter(str(k) for k in range(30))


def test_the_journal_says_whom_a_request_is_about(tmp_path: Path) -> None:
    with served(Echo()) as url, asking(tmp_path) as asker:
        run(asker, model(url), questions("x", "y"))
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    assert db.execute("SELECT about, status FROM request ORDER BY idx").fetchall() == [
        ('{"about":"about x"}', "done"),
        ('{"about":"about y"}', "done"),
    ]
    db.close()
