"""What is kept of a reply: each reason once, the two sides apart from each other, and items that wait for a model's verdict."""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.acceptance import Acceptance, Settled
from data_gen.config import ChecksConfig, SelfInstructConfig, Targets
from data_gen.estimate import estimate
from data_gen.filters import reject_reason
from data_gen.journal import ACCEPTED, Journal, Request, open_journal
from data_gen.judging import AGAIN, Question
from data_gen.planner import load_tasks
from data_gen.record import Item, item_messages, record_id
from data_gen.self_instruct import make_acceptance
from data_gen.task import Task
from tests.local_teacher import LETTERS, LocalTeacher, completion
from tests.test_self_instruct import NONE, Said, config, generate, outcome, query

WORDS = random.Random(0)


def words(count: int) -> str:
    return " ".join("".join(WORDS.choices(LETTERS, k=WORDS.randint(3, 6))) for _ in range(count))


def story(**more: str) -> Item:
    return dataclasses.replace(Item("generation", words(9), "", words(30), "ur"), **more)


def changed(text: str, share: float) -> str:
    """The text with a share of its words, evenly spread, replaced."""
    all_words = text.split()
    step = max(1, round(1 / share))
    return " ".join(words(1) if k % step == 0 else word for k, word in enumerate(all_words))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with open_journal(str(tmp_path)) as journal:
        yield journal


def begin(journal: Journal, **more: object) -> Acceptance:
    made = SelfInstructConfig(targets=Targets(**{**NONE, "generation": 100, "translation": 10}))
    for name, value in more.items():
        setattr(made, name, value)
    return make_acceptance(made, load_tasks(made, made.wanted()), journal)


COUNT = iter(range(10**6))


def judge(acceptance: Acceptance, *items: Item, side: str = "train", **about: object) -> Settled | None:
    idx = next(COUNT)
    request = Request(idx, f"key {idx}", {"task": items[0].task, "side": side, "demos": [], **about}, "body")
    return acceptance.judge(request, [(item, None) for item in items], {"side": side})


def outcomes(settled: Settled | None) -> dict[str, int]:
    assert settled is not None
    return dict(settled.outcomes)


def test_new_items_are_kept_with_where_they_are(journal: Journal) -> None:
    acceptance, items = begin(journal), [story(), story()]
    settled = judge(acceptance, *items)
    assert settled and settled.outcomes == {ACCEPTED: 2} and [number for _, number in settled.places] == [0, 1]
    line = json.loads(journal.item(*settled.places[1]))
    assert line["instruction"] == items[1].instruction and line["id"] == record_id(item_messages(items[1]))
    assert set(line["meta"]) == {"side", "rouge", "nearest"}
    assert acceptance.total["generation", "train"] == 2 and not acceptance.waiting["generation", "train"]


def test_what_was_computed_is_noted_too(journal: Journal) -> None:
    acceptance = begin(journal, targets=Targets(**{**NONE, "reasoning": 10}))
    choice = "سب سے بڑا عدد کون سا ہے؟ (الف) 3 (ب) 9 (ج) 7"
    both = Item("reasoning", choice, "", "6 + 3 = 9\nجواب: (ب) 9", "ur")
    neither = Item("reasoning", "احمد بلال سے لمبا ہے۔ سب سے لمبا کون ہے؟", "", "احمد آگے ہے۔\nجواب: احمد", "ur")
    settled = judge(acceptance, both, neither)
    lines = [json.loads(journal.item(*place)) for place in settled.places] if settled else []
    assert [line["meta"].get("scores") for line in lines] == [{"arithmetic": 1.0, "choice": 1.0}, None]


def test_twins_of_instructions_and_of_answers(journal: Journal) -> None:
    acceptance, first = begin(journal), story(output=words(60))
    again = dataclasses.replace(first, output=words(30))
    answer = story(output=changed(first.output, 0.03))
    other = story(output=changed(first.output, 0.2))
    assert outcomes(judge(acceptance, first, again, answer, other)) == {ACCEPTED: 2, "similar": 1, "similar_answer": 1}
    [(line,)] = query_lines(journal, "similar")
    assert (json.loads(line)["rouge"], json.loads(line)["nearest"]) == (1.0, record_id(item_messages(first)))
    short = [story(output="جی ہاں بالکل") for _ in range(3)]
    assert outcomes(judge(acceptance, *short)) == {ACCEPTED: 3}, "a label may come often"


def query_lines(journal: Journal, outcome: str) -> list[tuple[str]]:
    return [(line,) for line in journal.rejected() if json.loads(line)["reason"] == outcome]


def test_the_sides_stay_apart_whichever_came_first(journal: Journal) -> None:
    """Half of the words in common: near enough to leak, not near enough for the pool of instructions."""
    acceptance = begin(journal, answer_threshold=1.0)
    first, second = story(output=words(40)), story(output=words(40))
    twin, other = (story(output=changed(one.output, 0.05)) for one in (first, second))
    assert outcomes(judge(acceptance, first)) == {ACCEPTED: 1}
    assert outcomes(judge(acceptance, twin, side="heldout")) == {"near_training": 1}
    assert outcomes(judge(acceptance, second, side="heldout")) == {ACCEPTED: 1}
    assert outcomes(judge(acceptance, other)) == {"near_heldout": 1}
    assert outcomes(judge(acceptance, twin)) == {ACCEPTED: 1}, "on its own side it is no twin of anything held out"


def test_targets_and_the_balance_of_a_translation(journal: Journal) -> None:
    acceptance = begin(journal)
    into = [Item("translation", f"اردو میں ترجمہ کریں: {words(6)}", "", words(12), "ur") for _ in range(7)]
    english = [
        Item("translation", f"انگریزی میں ترجمہ کریں: {words(6)}", "", f"She read {n} letters about {word} and rain.", "en")
        for n, word in enumerate("tea milk rice birds roads".split())
    ]
    assert outcomes(judge(acceptance, *into)) == {ACCEPTED: 5, "balance_reached": 2}
    assert outcomes(judge(acceptance, *english[:4])) == {ACCEPTED: 4}
    assert outcomes(judge(acceptance, into[5], english[4], into[6])) == {"balance_reached": 1, ACCEPTED: 1, "target_reached": 1}


def test_evaluation_files_and_other_languages(journal: Journal, tmp_path: Path) -> None:
    known = story()
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": known.output}), encoding="utf-8")
    acceptance = begin(journal, decontaminate=(str(tmp_path / "eval.jsonl"),), language_id=True)
    persian = story(output="بهتر است پیش از هر کاری با یک فرد آگاه مشورت کنید و این پرسش را با دقت بیشتری بررسی کنید.")
    assert outcomes(judge(acceptance, known)) == {"contaminated": 1}
    assert outcomes(judge(acceptance, persian)) == {"language_id": 1}


LEFT_OUT: list[Question] = []


def ask(acceptance: Acceptance, of: int, check: str, sample: int, numbers: list[int], marks: list[str]) -> Settled | None:
    reply = completion("\n".join(f"### {place}\n{mark}" for place, mark in enumerate(marks, start=1)))
    about = {"of": of, "check": check, "sample": sample, "numbers": numbers, "task": "generation", "side": "train"}
    settled, again = acceptance.answer(Request(next(COUNT), "key", about, "body"), reply)
    LEFT_OUT[:] = [again] if again else []
    return settled


def test_items_wait_for_their_verdicts(journal: Journal) -> None:
    acceptance = begin(journal, checks=ChecksConfig(min_quality=3))
    items = [story(), story(), dataclasses.replace(story(), output=""), story()]
    assert judge(acceptance, *items) is None
    [idx] = acceptance.pending
    cell = ("generation", "train")
    assert (acceptance.total[cell], acceptance.waiting[cell]) == (0, 3)
    assert {json.loads(line)["reason"] for line in journal.rejected()} == {"empty_output"}
    assert ask(acceptance, idx, "quality", 0, [0, 1, 3], ["4", "2"]) is None
    assert LEFT_OUT == [Question("quality", AGAIN, (3,))], "what is left out is asked once again"
    settled = ask(acceptance, idx, "quality", AGAIN, [3], [""])
    assert not LEFT_OUT
    assert outcomes(settled) == {ACCEPTED: 1, "quality_low": 1, "unchecked": 1, "empty_output": 1}
    assert settled and settled.places == [(idx, 0)] and not acceptance.pending
    assert json.loads(journal.item(idx, 0))["meta"]["scores"] == {"quality": 4.0}
    [(line,)] = query_lines(journal, "quality_low")
    assert json.loads(line)["scores"] == {"quality": 2.0} and json.loads(line)["instruction"] == items[1].instruction
    assert (acceptance.total[cell], acceptance.waiting[cell]) == (1, 0)
    assert ask(acceptance, idx, "quality", 0, [0], ["4"]) is None, "asked again of what is settled"


def test_what_was_asked_about_other_items_is_read_all_the_same(journal: Journal) -> None:
    """A question in the journal is of an earlier run, whose filters let other items through."""
    acceptance = begin(journal, checks=ChecksConfig(min_quality=3))
    judge(acceptance, story(), dataclasses.replace(story(), output=""), story())
    [idx] = acceptance.pending
    settled = ask(acceptance, idx, "quality", 0, [0, 1, 2], ["4", "", "4"])
    assert outcomes(settled) == {ACCEPTED: 2, "empty_output": 1} and not LEFT_OUT, "item 1 is of no interest any more"
    judge(acceptance, story(), story(), story())
    [idx] = acceptance.pending
    assert ask(acceptance, idx, "quality", 0, [0, 2], ["4", "4"]) is None
    assert LEFT_OUT == [Question("quality", AGAIN, (1,))], "item 1 was not asked about then"


def test_a_check_whose_request_failed_rejects_as_unchecked(journal: Journal) -> None:
    acceptance = begin(journal, checks=ChecksConfig(min_quality=3))
    judge(acceptance, story())
    [idx] = acceptance.pending
    about = {"of": idx, "check": "quality", "sample": 0, "numbers": [0], "task": "generation", "side": "train"}
    settled, again = acceptance.answer(Request(next(COUNT), "key", about, "body"), None)
    assert outcomes(settled) == {"unchecked": 1} and again is None


# --- the recipe with checks


TARGETS = {"generation": 40, "ethics": 20}
CHECKS = ChecksConfig(min_quality=3, ethics=True)


def test_checked_data_does_not_depend_on_timing_or_window(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        summary = generate(tmp_path / "a", config(server.base_url, targets=TARGETS, in_flight=1, checks=CHECKS))
        server.max_latency_s = 0.03
        generate(tmp_path / "b", config(server.base_url, targets=TARGETS, in_flight=8, checks=CHECKS))
        assert set(server.asked.values()) == {2}, "the requests are the same ones"
        before = server.asked.total()
        again = generate(tmp_path / "b", config(server.base_url, targets=TARGETS, checks=CHECKS))
        assert server.asked.total() == before and again.accepted == summary.accepted
    assert outcome(tmp_path / "a") == outcome(tmp_path / "b")
    assert {task: sides["train"] for task, sides in summary.accepted.items()} == TARGETS
    assert {"quality_low", "ethics_failed"} <= set(summary.rejected) and "unchecked" not in summary.rejected
    checked = [json.loads(about) for (about,) in query(tmp_path / "a", "SELECT about FROM request")]
    assert {about.get("check") for about in checked} == {None, "quality", "ethics"}
    asked = [about for about in checked if "check" in about]
    assert len({(about["of"], about["check"]) for about in asked}) == len(asked)


def test_a_run_that_stops_between_items_and_verdicts_goes_on(tmp_path: Path) -> None:
    """Refused for good at every fourth request in turn; the end is that of a run that was never stopped."""
    with LocalTeacher() as server:
        made = config(server.base_url, targets=TARGETS, in_flight=1, checks=CHECKS)
        generate(tmp_path / "whole", made)
        stops = 0
        while True:
            try:
                server.refuse_after = 4
                generate(tmp_path / "stopped", made)
                break
            except UsageError as error:
                assert "401" in str(error)
                stops += 1
    assert stops > 3 and outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


def test_other_thresholds_read_the_same_verdicts(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        made = config(server.base_url, targets=TARGETS, checks=CHECKS)
        first = generate(tmp_path, made)
        asked = server.asked.total()
        made.checks = ChecksConfig(min_quality=5, ethics=True)
        with pytest.raises(UsageError, match="no item is accepted .*quality_low"):
            generate(tmp_path, made, parse_only=True)
        assert server.asked.total() == asked and (tmp_path / "data" / "manifest.json").exists()
        made.checks = CHECKS
        third = generate(tmp_path, made, parse_only=True)
    assert (third.accepted, third.rejected) == (first.accepted, first.rejected)


def test_a_higher_threshold_asks_for_more(tmp_path: Path) -> None:
    """Checks switched on later are asked about what is there, and what fails is made up for."""
    with LocalTeacher() as server:
        made = config(server.base_url, targets=TARGETS)
        assert "quality_low" not in generate(tmp_path, made).rejected
        made.checks = CHECKS
        later = generate(tmp_path, made)
    assert later.rejected["quality_low"] and {task: s["train"] for task, s in later.accepted.items()} == TARGETS
    scored = [json.loads(line) for (line,) in query(tmp_path, f"SELECT line FROM item WHERE outcome = '{ACCEPTED}'")]
    assert scored and all(fields["meta"]["scores"]["quality"] >= 3 for fields in scored)


def test_other_filters_ask_about_the_items_they_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def strict(item: Item, task: Task) -> str | None:
        return "copied" if len(item.output) % 2 else reject_reason(item, task)

    with LocalTeacher() as server:
        made = config(server.base_url, targets=TARGETS, checks=CHECKS)
        with monkeypatch.context() as patched:
            patched.setattr("data_gen.acceptance.reject_reason", strict)
            assert generate(tmp_path, made).rejected["copied"] > 20
        made.targets.generation = 90
        later = generate(tmp_path, made)
        made.targets.generation = 40
        later = generate(tmp_path, made)
    assert later.rejected.get("unchecked", 0) == 0 and later.accepted["generation"]["train"] == 40
    scored = [json.loads(line) for (line,) in query(tmp_path, f"SELECT line FROM item WHERE outcome = '{ACCEPTED}'")]
    assert scored and all(fields["meta"]["scores"]["quality"] >= 3 for fields in scored)


def test_parse_only_leaves_out_checks_that_were_never_asked_for(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        made, said = config(server.base_url, targets=TARGETS), Said()
        first = generate(tmp_path, made)
        made.checks = CHECKS
        again = generate(tmp_path, made, parse_only=True, show=said)
    assert (again.accepted, again.rejected) == (first.accepted, first.rejected)
    assert any("are left out" in line for line in said)


def test_the_estimate_counts_the_checks(tmp_path: Path) -> None:
    with LocalTeacher() as server:
        made = config(server.base_url, targets={"generation": 60, "ethics": 60}, checks=CHECKS)
        before = estimate(made)
        summary = generate(tmp_path, made)
    assert before.requests == pytest.approx(summary.requests, rel=0.35)
