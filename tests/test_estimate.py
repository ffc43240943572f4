"""Estimates: against what runs with the offline teacher really used, against hand-made journals, and that nothing is touched."""

import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from data_gen import UsageError
from data_gen.config import SelfInstructConfig, Targets
from data_gen.endpoint import TeacherConfig
from data_gen.estimate import ASSUMED_ACCEPTANCE, ASSUMPTIONS, Estimate, count_tokens, estimate
from data_gen.journal import Journal, open_journal
from data_gen.languages import load_pack
from data_gen.limits import Usage, token_bound
from data_gen.progress import show
from data_gen.prompt import build_messages
from data_gen.record import canonical_json
from data_gen.seeds import load_task
from data_gen.self_instruct import Summary, run

NONE = dict.fromkeys(asdict(Targets()), 0)
OF_A_RUN = ("requests", "prompt_tokens", "completion_tokens")


ALIF = ("generation", "reasoning", "ethics", "question_answering", "translation", "classification", "sentiment")


def config(**targets: int) -> SelfInstructConfig:
    teacher = TeacherConfig(input_price=2.0, output_price=10.0, max_in_flight=4)
    return SelfInstructConfig(targets=Targets(**{**NONE, **targets}), teacher=teacher)


def generate(config: SelfInstructConfig, workdir: Path) -> Summary:
    return run(config, str(workdir), show=show(io.StringIO()))


def used(summary: Summary, before: Summary | None = None) -> tuple[int, int, int]:
    """Requests and tokens of a run, less those of an earlier one on the same directory."""
    first = (before.requests, before.usage.prompt, before.usage.completion) if before else (0, 0, 0)
    now = (summary.requests, summary.usage.prompt, summary.usage.completion)
    return now[0] - first[0], now[1] - first[1], now[2] - first[2]


def ratios(found: Estimate, real: tuple[int, int, int]) -> list[float]:
    return [getattr(found, kind) / count for kind, count in zip(OF_A_RUN, real, strict=True)]


# --- against what is really used


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary]:
    """A work directory with the first items of all tasks."""
    workdir = tmp_path_factory.mktemp("begun")
    return workdir, generate(config(**dict.fromkeys(ALIF, 20)), workdir)


def test_by_assumption_it_is_within_a_quarter(begun: tuple[Path, Summary]) -> None:
    found = estimate(config(**dict.fromkeys(ALIF, 20)))
    assert found.known_from == ASSUMPTIONS
    assert ratios(found, used(begun[1])) == pytest.approx([1, 1, 1], abs=0.25)


def test_going_on_is_estimated_from_what_is_there(begun: tuple[Path, Summary]) -> None:
    workdir, before = begun
    more = config(**dict.fromkeys(ALIF, 60))
    found = estimate(more, str(workdir))
    assert found.known_from == f"{before.requests} replies of this work directory"
    assert estimate(config(**dict.fromkeys(ALIF, 20)), str(workdir)).requests == 0
    real = used(generate(more, workdir), before)
    assert ratios(found, real) == pytest.approx([1, 1, 1], abs=0.3)


# --- a journal made by hand


def fill(
    journal: Journal, replies: int, accepted: int, usage: Usage, *, task: str = "ethics", outcome: str = "similar", items: int = 10,
    counted: bool = True,
) -> None:  # fmt: skip
    """Answered requests of a task, of each of which `accepted` items are kept and the rest of `items` has `outcome`."""
    reply = json.dumps({"usage": {"prompt_tokens": usage.prompt, "completion_tokens": usage.completion}} if counted else {})
    first = journal._db.execute("SELECT count(*) FROM request").fetchone()[0]
    for idx in range(first, first + replies):
        request = journal.plan(idx, f"body {idx}", {"task": task, "side": "train", "view": -1, "demos": []}, "offline")
        journal.refused(journal.sent(request, usage, None), "malformed", reply, Usage(9999, 9999), None)
        journal.answered(journal.sent(request, usage, None), reply, usage, None)
        rows = [("accepted" if number < accepted else outcome, "train", "{}") for number in range(items)]
        journal.keep_items(idx, rows)
    journal.commit()


@pytest.fixture
def workdir(tmp_path: Path) -> Callable[..., str]:
    def make(replies: int, accepted: int, usage: Usage, **more: Any) -> str:
        with open_journal(str(tmp_path)) as journal:
            fill(journal, replies, accepted, usage, **more)
        return str(tmp_path)

    return make


ONE = replace(config(ethics=1000), heldout_share=0.0)


def test_a_journal_is_taken_at_its_word(workdir: Callable[..., str]) -> None:
    """40 replies of 5 kept items each: 800 are lacking, 160 requests as long as those before them."""
    found = estimate(ONE, workdir(40, 5, Usage(500, 250)))
    known_from = "40 replies of this work directory"
    assert found == Estimate(160, 160 * 500, 160 * 250, 160 * 8192, 0.56, found.worst_cost_usd, found.spent_usd, known_from)
    assert found.cost_usd == pytest.approx((160 * 500 * 2 + 160 * 250 * 10) / 1e6)
    assert found.worst_cost_usd and found.worst_cost_usd > 160 * 8192 * 10 / 1e6


def test_few_replies_say_nothing_but_what_is_there_is_taken_off(workdir: Callable[..., str]) -> None:
    found = estimate(ONE, workdir(19, 1, Usage(500, 250)))
    assert (found.known_from, found.requests) == (ASSUMPTIONS, -(-(1000 - 19) // (10 * ASSUMED_ACCEPTANCE)))


def test_items_beyond_a_target_do_not_count_against_it(workdir: Callable[..., str]) -> None:
    """A target that was raised takes them from the replies that are here: as if all ten of a reply were kept."""
    found = estimate(ONE, workdir(40, 5, Usage(500, 250), outcome="target_reached"))
    assert found.requests == (1000 - 40 * 10) / 10


def test_a_task_of_its_own_figures_and_one_without(workdir: Callable[..., str]) -> None:
    """What one task showed corrects what is assumed of another, as far as that is known to be off."""
    both = replace(config(ethics=1000, generation=1000), heldout_share=0.0)
    found = estimate(both, workdir(40, 5, Usage(500, 250)))
    assert found.requests == 160 + 200


def test_where_nothing_is_kept_it_stays_a_number(workdir: Callable[..., str]) -> None:
    found = estimate(ONE, workdir(40, 0, Usage(500, 250)))
    assert 1000 < found.requests <= 1000 / (10 * ONE.min_acceptance)


def test_tokens_that_nobody_counted_are_no_measurement(workdir: Callable[..., str]) -> None:
    """The journal holds the worst case of a reply without a usage."""
    found = estimate(ONE, workdir(40, 5, Usage(99_999, 8192), counted=False))
    assumed = estimate(ONE)
    assert found.requests == 160
    assert found.completion_tokens / 160 == pytest.approx(assumed.completion_tokens / assumed.requests, rel=0.01)


def test_cached_prompt_tokens_have_their_price(workdir: Callable[..., str]) -> None:
    priced = replace(ONE, teacher=replace(ONE.teacher, cached_input_price=0.0))
    there = workdir(40, 5, Usage(500, 250, cached=250))
    assert estimate(priced, there).cost_usd == pytest.approx((160 * 250 * 2 + 160 * 250 * 10) / 1e6)
    assert estimate(ONE, there).cost_usd == pytest.approx((160 * 500 * 2 + 160 * 250 * 10) / 1e6)


# --- nothing is touched


def test_nothing_is_made(tmp_path: Path, workdir: Callable[..., str]) -> None:
    estimate(ONE, str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
    there = Path(workdir(20, 5, Usage(1, 1)))
    before = {path.name: path.read_bytes() for path in there.iterdir()}
    assert estimate(ONE, str(there)).known_from != ASSUMPTIONS
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before


def test_it_works_while_a_run_holds_the_directory(tmp_path: Path) -> None:
    with open_journal(str(tmp_path)) as journal:
        assert estimate(ONE, str(tmp_path)).known_from == ASSUMPTIONS
        fill(journal, 20, 5, Usage(1, 1))
        names = sorted(os.listdir(tmp_path))
        journal.plan(20, "not committed", {"task": "ethics", "side": "train"}, "offline")
        assert estimate(ONE, str(tmp_path)).known_from == "20 replies of this work directory"
        assert sorted(os.listdir(tmp_path)) == names


def test_what_a_crash_left_is_left_as_it_is(tmp_path: Path) -> None:
    run_dir, crashed = tmp_path / "run", tmp_path / "crashed"
    with open_journal(str(run_dir)) as journal:
        fill(journal, 20, 5, Usage(1, 1))
        shutil.copytree(run_dir, crashed)
    before = {name: (crashed / name).read_bytes() for name in ("journal.sqlite", "journal.sqlite-wal")}
    assert len(before["journal.sqlite-wal"]) > 0
    assert estimate(ONE, str(crashed)).known_from == "20 replies of this work directory"
    assert {name: (crashed / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("content", [b"no database at all, but a text of some length", None])
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "journal.sqlite"
    if content:
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE other (x)")
    with pytest.raises(UsageError, match="cannot be read as a journal: .*give another --workdir"):
        estimate(ONE, str(tmp_path))


# --- money and words


def test_without_a_price_the_cost_is_unknown_and_it_says_how_to_give_one() -> None:
    found = estimate(
        replace(ONE, teacher=TeacherConfig(base_url="https://api.example.com/v1", model="m", terms="https://e.com/l allows it"))
    )
    assert found.cost_usd is found.worst_cost_usd is None
    assert "teacher.input_price and teacher.output_price" in str(found)
    assert estimate(replace(ONE, teacher=TeacherConfig())).cost_usd == 0.0, "the offline teacher is free"


def test_a_batch_has_its_factor() -> None:
    whole, half = (estimate(replace(ONE, teacher=replace(ONE.teacher, batch=batch))) for batch in (False, True))
    assert whole.cost_usd and half.cost_usd == pytest.approx(whole.cost_usd / 2)


def test_the_worst_case_holds_the_expected_one() -> None:
    found = estimate(config(**dict.fromkeys(ALIF, 100)))
    assert found.cost_usd and found.worst_cost_usd and found.cost_usd < found.worst_cost_usd
    assert found.worst_completion_tokens == found.requests * 8192 > found.completion_tokens
    short = estimate(replace(ONE, max_tokens=100))
    assert short.completion_tokens == short.worst_completion_tokens == short.requests * 100


def test_as_text_and_as_json() -> None:
    found = Estimate(1240, 1_234_567, 840_123, 10_158_080, 0.6892, 6.279, 0.25, ASSUMPTIONS)
    assert str(found).splitlines() == [
        "requests  1,240 to be answered",
        "tokens    1.23M in, 840k out",
        "cost      $0.6892; $6.28 if every reply were as long as max_tokens",
        "spent     $0.25 before",
        "by        assumptions; a reasoning model's thoughts come on top",
    ]
    assert json.loads(json.dumps(found.as_json())) == {
        "requests": 1240, "prompt_tokens": 1_234_567, "completion_tokens": 840_123, "worst_completion_tokens": 10_158_080,
        "cost_usd": 0.6892, "worst_cost_usd": 6.279, "spent_usd": 0.25, "known_from": "assumptions",
    }  # fmt: skip


@pytest.mark.parametrize("form", ["tagged", "json_schema"])
def test_both_forms_of_a_reply_are_estimated(form: Literal["tagged", "json_schema"]) -> None:
    found = estimate(replace(ONE, teacher=replace(ONE.teacher, reply_format=form)))
    assert found.prompt_tokens > 500 * found.requests


# --- tokens of a text


@pytest.mark.parametrize(
    ("text", "count"), [("", 0), ("abcd", 1), ("abcde", 2), ("سلام", 3), ("Output: سلام", 5), ("😀😀😀", 4), ("\ud800", 1)]
)
def test_tokens_are_guessed_from_bytes(text: str, count: int) -> None:
    assert count_tokens(text) == count


def test_the_bound_of_a_body_is_above_a_byte_level_count() -> None:
    task = load_task("ethics", load_pack("ur"), heldout_share=0.1, seed=0)
    messages = build_messages(task, [item for _, item in task.seeds["train"][:6]], 10)
    contents = sum(len(message["content"].encode()) for message in messages)
    body = canonical_json({"model": "m", "messages": messages, "max_tokens": 8192})
    bound = token_bound(body)
    assert bound == token_bound(json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")))
    assert contents + 2 * 16 + 256 < bound < 1.2 * contents
    assert token_bound('{"role":1,"role":2}') == 19 + 256 + 2 * 16
    assert token_bound(json.dumps({"messages": messages})) > bound, "escapes make it longer"
    assert token_bound('{"content": "she wrote \\"role\\""}') < token_bound('{"content": "she wrote", "role": 1}') + 16
