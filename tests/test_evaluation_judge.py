"""Judging answers: whom is asked what, that a judge's faults are counted, and that nothing is bought twice."""

import itertools
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from configs.judge import get_config
from data_gen import UsageError
from data_gen.endpoint import TeacherConfig
from data_gen.evaluation import judge
from data_gen.evaluation.judge import JudgeConfig, read_judge
from data_gen.evaluation.judge_records import store
from data_gen.evaluation.results import Document, ModelResult, write_result
from data_gen.limits import BudgetReached
from tests import local_teacher
from tests.local_teacher import Answer, LocalTeacher, completion
from tests.x_instruction_material import Show, jsonl

ROOT = Path(__file__).resolve().parents[1]
PROMPTS, SAME = 50, 10  # of each model; the first ten answers are identical
REQUESTS = 2 * (PROMPTS - SAME)
Rule = Callable[[str], str]  # what the judge says, of the whole request's text


# --- a judge that speaks the protocol ------------------------------------------------------------------------------------


def answers_in(text: str) -> list[str]:
    """What stands between the tags of a request."""
    return re.findall(r"<answer(?:_[ab])?>\n(.*?)\n</answer(?:_[ab])?>", text, re.DOTALL)


def longer(text: str) -> str:
    if len(found := answers_in(text)) == 1:
        return "SCORE: 5"
    first, second = map(len, found)
    return f"Compared.\nVERDICT: {'A' if first > second else 'B' if second > first else 'TIE'}"


@pytest.fixture
def judged_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rule], None]:
    """Makes every LocalTeacher answer by a rule, with 1,000 tokens in and 100 out."""

    def by(rule: Rule) -> None:
        def reply(body: bytes, wrong: float) -> str:
            said = rule(json.loads(body)["messages"][-1]["content"])
            if said.startswith("{"):  # the whole body of a reply
                return said
            usage = {"usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
            return json.dumps(json.loads(completion(said)) | usage)

        monkeypatch.setattr(local_teacher, "items_for", reply)

    return by


def config(url: str, **changes: Any) -> JudgeConfig:
    limits = {name: changes.pop(name) for name in list(changes) if name in TeacherConfig.__dataclass_fields__}
    teacher = TeacherConfig(**{"base_url": url, "model": "rule", "backoff_s": 0.001, "max_failures": 1000, **limits})
    return JudgeConfig(teacher=teacher, **{"min_prompts": 30} | changes)


def documents(texts: Sequence[str], task: str = "urdu_eval", categories: Sequence[str] = ("qa", "ethics")) -> list[Document]:
    return [
        Document(
            task=task, id=number, prompt=f"### {number}", asked=f"سوال {number}؟", answer=text,
            category=categories[number % len(categories)] if categories else "",
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip


def evaluated(directory: Path, **models: Sequence[Document]) -> str:
    for name, found in models.items():
        write_result(str(directory), ModelResult(name=name, kind="hf", about={}, scores=()), found)
    return str(directory)


def three_to_one(many: int = PROMPTS) -> dict[str, Sequence[Document]]:
    """The new model's answer is the longer one for three of four prompts, and the first ten answers are the same."""
    new = ["یکساں" if k < SAME else "لمبا جواب ہے" if k % 4 else "کم" for k in range(many)]
    old = ["یکساں" if k < SAME else "درمیانہ" for k in range(many)]
    return {"new": documents(new), "old": documents(old)}


def start(
    config: JudgeConfig, directory: str, model: str = "new", against: str = "old", **more: Any
) -> tuple[dict[str, Any], Show]:
    """One start of the program: the comparison of that name, and what was said."""
    show = Show()
    judge.run(config, directory, model.split(","), against, show=show, **more)
    [found] = [one for one in read_judge(directory) if (one["model"], one["against"]) == (model.split(",")[0], against)]
    return found, show


def test_the_longer_answer_wins_and_nothing_is_asked_twice(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    judged_by(longer)
    directory = evaluated(tmp_path / "eval", **three_to_one())
    wins = sum(k % 4 > 0 for k in range(SAME, PROMPTS))
    lost = PROMPTS - SAME - wins
    with LocalTeacher() as server:
        given = config(server.base_url, input_price=1.0, output_price=10.0)
        found, show = start(given, directory)
        assert [found[name] for name in ("prompts", "judged", "excluded", "identical")] == [PROMPTS, PROMPTS, 0, SAME]
        assert [found[name] for name in ("wins", "losses", "ties")] == [wins, lost, SAME]
        assert found["win_rate"] == (wins + SAME / 2) / PROMPTS and found["low"] < found["win_rate"] < found["high"]
        assert (found["position_consistency"], found["first_place_share"]) == (1.0, None)
        assert found["length_controlled"] < found["win_rate"] - 0.1
        assert found["judge"] == "rule" and found["tasks"] == ["urdu_eval"] and found["prompt_hash"] and found["date"]
        assert found["cost"] == pytest.approx(REQUESTS * (1000 * 1.0 + 100 * 10.0) / 1e6)
        assert {name: row["judged"] for name, row in found["by_category"].items()} == {"qa": PROMPTS // 2, "ethics": PROMPTS // 2}
        assert any("10 of 50 pairs of answers are identical" in line for line in show.said)
        assert len(server.asked) == REQUESTS == server.asked.total()
        bodies = [json.loads(body) for body in server.asked]
        assert all(body["temperature"] == 0 and body["max_tokens"] == 2048 and body["model"] == "rule" for body in bodies)
        again, _ = start(given, directory)
        turned, _ = start(given, directory, "old", "new")
        assert server.asked.total() == REQUESTS, "the second start asks nothing, nor does the same comparison the other way round"
    assert {**again, "date": ""} == {**found, "date": ""}
    assert turned["win_rate"] == pytest.approx(1 - found["win_rate"]) and (turned["wins"], turned["losses"]) == (lost, wins)
    assert len(read_judge(directory)) == 2 and not list(Path(directory).glob("*.part"))


@pytest.mark.parametrize(("place", "share"), [("A", 1.0), ("B", 0.0)])
def test_a_judge_who_goes_by_place_says_nothing(
    tmp_path: Path, judged_by: Callable[[Rule], None], place: str, share: float
) -> None:
    judged_by(lambda text: f"VERDICT: {place}")
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server:
        found, _ = start(config(server.base_url), directory)
    assert (found["wins"], found["losses"], found["ties"], found["win_rate"]) == (0, 0, PROMPTS, 0.5)
    assert (found["position_consistency"], found["first_place_share"], found["low"], found["high"]) == (0.0, share, 0.5, 0.5)
    assert found["length_controlled"] == pytest.approx(0.5) and found["cost"] is None


def test_replies_without_a_verdict_are_asked_for_again(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    """Garbage half the time: with three attempts an eighth of the requests have none in the end. The same at a second start."""
    rng, said = random.Random(5), list[str]()

    def half(text: str) -> str:
        said.append("good" if rng.random() < 0.5 else "bad")
        return longer(text) if said[-1] == "good" else "میں نہیں جانتا۔"

    judged_by(half)
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server:
        found, show = start(config(server.base_url, max_errors=0.5), directory)
        assert found["judged"] == PROMPTS - found["excluded"] and 1 <= found["excluded"] <= 25 and found["failed"] == 0
        assert (
            found["judged"]
            == found["wins"] + found["losses"] + found["ties"]
            == sum(row["judged"] for row in found["by_category"].values())
        )
        assert found["ties"] == SAME == found["identical"] and found["position_consistency"] == 1, (
            "what is judged, is judged rightly"
        )
        assert any(f"{found['excluded']} of 50 prompts have no verdict" in line and "left out" in line for line in show.said)
        assert server.asked.total() == len(said) and max(server.asked.values()) == 1
        seeds = [json.loads(body)["seed"] for body in server.asked]
        assert seeds.count(0) == REQUESTS and seeds.count(1) == said[:REQUESTS].count("bad") and set(seeds) == {0, 1, 2}
        again, _ = start(config(server.base_url, max_errors=0.5), directory)
        assert server.asked.total() == len(said) and {**again, "date": ""} == {**found, "date": ""}
        with pytest.raises(UsageError, match=r"of 50 prompts have no verdict.*no reply could be read.*نہیں.*max_errors allows 1%"):
            start(config(server.base_url, max_errors=0.01), directory)
        one, _ = start(config(server.base_url, max_errors=0.5, retries=20), directory)
        assert one["excluded"] == 0 and max(server.asked.values()) == 1, "more attempts go on from there"


def test_a_server_that_fails_half_the_time(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    class Half(list[Answer]):
        rng = random.Random(1)

        def __bool__(self) -> bool:
            return self.rng.random() < 0.5

        def pop(self, _: Any = 0) -> Answer:
            return Answer(500)

    judged_by(longer)
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server:
        server.script = Half()
        found, _ = start(config(server.base_url, max_attempts=50), directory)
        assert found["excluded"] == 0 and found["wins"] == sum(k % 4 > 0 for k in range(SAME, PROMPTS))
        assert len(server.asked) == REQUESTS and server.asked.total() > 1.3 * REQUESTS
        before = server.asked.total()
        start(config(server.base_url), directory)
        assert server.asked.total() == before


def test_what_fails_for_good_is_left_out_and_asked_again(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    """Every tenth prompt: in one order alone, which is enough."""
    down = True

    def rule(text: str) -> str:
        return '{"error": "down"}' if down and "0؟" in text and longer(text).endswith("A") else longer(text)

    judged_by(rule)
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server:
        found, show = start(config(server.base_url), directory)
        assert (found["excluded"], found["failed"], found["judged"]) == (4, 4, 46)
        assert any("of 4 a request failed" in line and "malformed reply" in line for line in show.said)
        kept = read_judge(directory)
        with pytest.raises(UsageError, match=r"4 of 50 prompts have no verdict \(8%\).*max_errors allows 5%.*asks again"):
            start(config(server.base_url, max_errors=0.05), directory)
        assert read_judge(directory) == kept
        down, before = False, len(server.asked)
        found, _ = start(config(server.base_url), directory)
        assert found["excluded"] == 0 and len(server.asked) == before, "only what failed, under the same bodies"


def test_one_that_the_judge_refuses_does_not_stop_every_later_start(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    judged_by(longer)
    directory = evaluated(tmp_path, **three_to_one(30))
    with LocalTeacher() as server:
        given = config(server.base_url, max_in_flight=1, min_prompts=30)
        server.script = [Answer(body=completion("VERDICT: A")), Answer(400, "{}")]
        found, _ = start(given, directory)
        assert (found["excluded"], found["failed"]) == (1, 1)
        server.script = [Answer(400, "{}")]
        found, _ = start(given, directory)
        assert (found["excluded"], found["failed"]) == (1, 1), "though it is the first request of this start"


def test_a_reply_that_was_cut_is_not_read(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    """Of "SCORE: 10" there may be "SCORE: 1" left."""
    judged_by(lambda text: completion("So.\nSCORE: 1", "length"))
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server, pytest.raises(UsageError, match=r"50 of 50 .*cut: a larger max_tokens"):
        start(config(server.base_url, max_errors=1.0), directory, "new", "")
    assert read_judge(directory) == []


def test_a_budget_is_kept_and_a_larger_one_goes_on(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    judged_by(longer)
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server:
        given = config(server.base_url, input_price=1.0, output_price=10.0)  # 0.002 dollars each, 0.03 at the worst
        with pytest.raises(UsageError, match="--max_cost=1 needs a price"):
            start(config(server.base_url), directory, max_cost=1.0)
        with pytest.raises(BudgetReached):
            start(given, directory, max_cost=0.1)
        first = server.asked.total()
        assert 0 < first <= 50 and read_judge(directory) == []
        found, _ = start(given, directory, max_cost=2.0)
        assert (
            found["excluded"] == 0
            and len(server.asked) == REQUESTS == server.asked.total()
            and found["cost"] == pytest.approx(REQUESTS * 0.002)
        )


def test_marks_of_several_models(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    judged_by(lambda text: f"SCORE: {10 if answers_in(text) == ['لمبا جواب ہے'] else 4}")
    models = three_to_one()
    directory = evaluated(tmp_path, **models)
    with LocalTeacher() as server:
        said = judge.run(config(server.base_url), directory, ["new", "old"], show=Show())
        assert len(server.asked) == 2 * PROMPTS - SAME == server.asked.total(), "the same answer to the same prompt is marked once"
    new, old = read_judge(directory)
    best = sum(k % 4 > 0 for k in range(SAME, PROMPTS))
    assert (new["kind"], new["model"], old["model"], new["judged"], new["excluded"]) == ("single", "new", "old", PROMPTS, 0)
    assert new["mean"] == pytest.approx((100 * best + 40 * (PROMPTS - best)) / PROMPTS)
    assert new["low"] < new["mean"] < new["high"] and (old["mean"], old["low"], old["high"]) == (40, 40, 40)
    weighted = sum(row["judged"] * row["mean"] for row in new["by_category"].values()) / PROMPTS
    assert new["mean"] == pytest.approx(weighted), "the mean of the categories, each weighed by its answers"
    assert "new, judged by rule: 50 of 50 prompts" in said and "40.0" in said


# --- which answers are judged --------------------------------------------------------------------------------------------


def test_only_prompts_that_both_were_asked(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    judged_by(longer)
    choice = [Document(task="belebele", id=k, prompt="P", answer="A", values={"acc": (1.0, 1.0)}) for k in range(9)]
    unasked = [Document(task="heldout", id=0, prompt="P", answer="")]
    news = documents(["خبر"] * 30, "news", ()) + documents(["خبر"] * 9, "news, chat", ())
    new = documents(["لمبا جواب"] * 60)[5:] + choice + unasked + news
    old = documents(["جواب"] * 50)
    changed = [Document(**{**vars(one), "asked": "اور"}) if one.id in (7, 8) else one for one in old] + choice
    directory = evaluated(tmp_path, new=new, old=changed)
    with LocalTeacher() as server:
        found, show = start(config(server.base_url), directory)
        line = next(line for line in show.said if "in common" in line)
        assert "43 prompts in common; 49 only new was asked, 5 only old was asked, 2 have other words under the same id" in line
        assert (found["prompts"], found["wins"], found["tasks"]) == (43, 43, ["urdu_eval"])
        assert found["length_controlled"] is None, "always the longer"
        marked = judge.run(config(server.base_url), directory, ["new"], tasks=["news"], show=Show())
        assert "\n  news" in marked and "39 of 39 prompts" in marked
        with pytest.raises(UsageError, match="has no generated answers of belebele; its tasks: news, urdu_eval"):
            start(config(server.base_url), directory, tasks=["belebele"])
    _, single = read_judge(directory)
    assert single["tasks"] == ["news", "news, chat"] == list(single["by_category"])


def lines(answers: Sequence[str], **more: Any) -> list[dict[str, Any]]:
    return [{"id": k, "prompt": f"سوال {k}", "answer": text, **more} for k, text in enumerate(answers)]


def test_answers_from_files(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    judged_by(longer)
    mine = jsonl(tmp_path / "a.jsonl", lines(["لمبا جواب"] * 40, category="qa"))
    theirs = jsonl(tmp_path / "b.jsonl", lines(["جواب"] * 41))
    directory = str(tmp_path / "new place")
    with LocalTeacher() as server:
        found, _ = start(config(server.base_url), directory, answers=mine, against_answers=theirs)
        assert (found["wins"], found["prompts"], found["tasks"], list(found["by_category"])) == (40, 40, [], ["qa"])
        single, _ = start(config(server.base_url), directory, "old", "", answers=theirs)
        assert (single["prompts"], single["tasks"], list(single["by_category"])) == (41, [], ["all"])
        with_task = jsonl(tmp_path / "c.jsonl", lines(["جواب"] * 41, task="letters"))
        judge.run(config(server.base_url), directory, ["old"], answers=with_task, show=Show())
        assert [(one["tasks"], list(one["by_category"])) for one in read_judge(directory)[1:]] == [
            ([], ["all"]),
            (["letters"], ["letters"]),
        ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "b.jsonl:2 is no JSON"),
        ("[]", "b.jsonl:2 is '\\[\\]'; expected"),
        ({"id": 1, "prompt": "x"}, "b.jsonl:2 is .*expected"),
        ({"id": True, "prompt": "x", "answer": "y"}, "b.jsonl:2 is .*expected"),
        ({"id": 2, "prompt": "x", "answer": "y", "category": 3}, "b.jsonl:2 is .*expected"),
        ({"id": 0, "prompt": "x", "answer": "y"}, "two answers to the prompt 0"),
        ({"id": "0", "prompt": "x", "answer": "y"}, "two answers to the prompt 0"),
    ],
)
def test_a_file_of_answers_with_a_bad_line(tmp_path: Path, row: object, message: str) -> None:
    path = jsonl(tmp_path / "b.jsonl", [{"id": 0, "prompt": "x", "answer": "y"}, row])
    with pytest.raises(UsageError, match=message):
        judge.run(config("http://127.0.0.1:9/v1"), str(tmp_path), ["new"], answers=path, show=Show())


def test_what_cannot_be_judged(tmp_path: Path) -> None:
    models = three_to_one(53)
    directory = evaluated(tmp_path / "eval", **models, other=documents(["x"] * 120, "another"), few=documents(["x"] * 1))
    given, text = config("http://127.0.0.1:9/v1", min_prompts=100), ["a", "b"]

    def refused(message: str, names: list[str], against: str = "", config: JudgeConfig = given, **more: Any) -> None:
        with pytest.raises(UsageError, match=message):
            judge.run(config, directory, names, against, show=Show(), **more)

    refused("new against old: 53 prompts came, and at least 100 .*±13 points.*--config.min_prompts=53", ["new"], "old")
    refused("new: 53 prompts came", ["new"])
    refused("new and other have no prompt in common .53 only new was asked, 120 only other was asked", ["new"], "other")
    refused("has no answers of 'typo'; it has those of few, new, old, other.*--answers", ["typo"])
    refused("has no answers of 'typo'", ["new"], "typo")
    refused("name models, each once", ["new", "new"])
    refused("name models, each once", ["new"], "new")
    refused("name models, each once", [])
    refused("has the answers of one model, and --model names 2", text, answers="a.jsonl")
    refused("cannot be read", ["new"], answers=str(tmp_path / "none.jsonl"))
    refused("a judge is needed, and teacher.base_url is 'offline'", ["new"], config=JudgeConfig())
    choices = [Document(task="mmlu", id=0, prompt="x", answer="A", values={"acc": (1, 1)})]
    evaluated(tmp_path / "eval", choices=choices)
    refused("choices.documents.jsonl has no generated answers to judge", ["choices"])
    Path(directory, "models", "new.documents.jsonl").write_text('{"task": "x"}\n')
    refused("new.documents.jsonl cannot be read .*evaluate new again", ["new"])
    assert not Path(directory, "judge", "data").exists() and read_judge(directory) == []


# --- the config and the file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_prompts": 0}, "min_prompts is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"max_errors": 1.5}, "max_errors is 1.5"),
        ({"temperature": 3.0}, "temperature is 3.0"),
        ({"max_tokens": 3}, "max_tokens is 3"),
        ({"language": " "}, "language is empty"),
        ({"batch": True}, "a judge is asked directly"),
        ({"max_in_flight": 0}, "teacher.max_in_flight is 0"),
        ({"base_url": "ftp://x"}, "teacher.base_url is 'ftp://x'"),
        ({"base_url": "https://me:pw@host/v1"}, "holds a user name"),
    ],
)
def test_a_config_that_makes_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**{"url": "https://example.com/v1", **change}).validate()


def test_the_recipe() -> None:
    assert get_config() == JudgeConfig(language="Urdu") and get_config("hi").language == "Hindi"
    get_config().validate()
    config("https://example.com/v1").validate()  # without terms: nothing is trained on verdicts
    with pytest.raises(UsageError, match="no language pack for 'xx'"):
        get_config("xx")


def test_a_comparison_replaces_the_same_one_alone(tmp_path: Path) -> None:
    one = {"kind": "pairwise", "model": "a", "against": "b", "judge": "j", "tasks": ["t"], "wins": 1}
    others = [one | change for change in (
        {"kind": "single"}, {"model": "c"}, {"against": "c"}, {"judge": "k"}, {"tasks": ["t", "u"]}
    )]  # fmt: skip
    assert read_judge(str(tmp_path)) == []
    for record in (one, *others):
        store(str(tmp_path), record)
    store(str(tmp_path), one | {"wins": 2})
    assert read_judge(str(tmp_path)) == [*others, one | {"wins": 2}]
    for damaged in ("{", "[]", '{"comparisons": [1]}', '{"comparisons": [{"kind": "other"}]}', "{}"):
        (tmp_path / "judge.json").write_text(damaged)
        with pytest.raises(UsageError, match="judge.json is no file of comparisons .*move it away"):
            read_judge(str(tmp_path))


# --- the command ------------------------------------------------------------------------------------------------------------


def command(directory: str, url: str, *more: str) -> list[str]:
    given = ["--config.teacher.model=rule", "--config.teacher.backoff_s=0.01", "--config.teacher.max_in_flight=4"]
    flags = [f"--evaluation={directory}", "--model=new", f"--config.teacher.base_url={url}", *given, *more]
    return [sys.executable, "launch/judge.py", *flags]


def test_a_killed_command_goes_on(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    number, killed = itertools.count(1), threading.Event()

    def stuck(text: str) -> str:
        """From its 25th request on the judge says nothing until the command is killed."""
        if next(number) == 25:
            killed.wait(60)
        return longer(text)

    judged_by(stuck)
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server:
        given = command(directory, server.base_url, "--against=old", "--config.min_prompts=30")
        with subprocess.Popen(given, cwd=ROOT, stdout=subprocess.DEVNULL) as first:
            while len(server.asked) < 25:
                assert first.poll() is None
                time.sleep(0.01)
            first.send_signal(signal.SIGKILL)
        killed.set()
        assert read_judge(directory) == [] and len(server.asked) < 60
        last = subprocess.run(given, cwd=ROOT, capture_output=True, text=True)
        assert last.returncode == 0 and "new against old, judged by rule: 50 of 50 prompts" in last.stdout, last
        assert len(server.asked) == REQUESTS and server.asked.total() <= REQUESTS + 4, "but what was under way at the kill"
    [found] = read_judge(directory)
    assert found["wins"] == sum(k % 4 > 0 for k in range(SAME, PROMPTS)) and found["excluded"] == 0


# Several commands in one process, since a start takes a second: what each says, and how it exits.
DRIVER = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from launch import app, judge
for given in json.loads(sys.argv[1]):
    sys.argv = ["launch/judge.py", *given]
    with flagsaver.flagsaver():
        try:
            app.run(judge.main)
        except SystemExit as stop:
            print("exit", stop.code, flush=True)
"""


def test_wrong_commands_and_a_budget(tmp_path: Path, judged_by: Callable[[Rule], None]) -> None:
    judged_by(longer)
    directory = evaluated(tmp_path, **three_to_one())
    with LocalTeacher() as server:
        priced = ["--against=old", "--config.min_prompts=30", "--config.teacher.input_price=1", "--config.teacher.output_price=10"]
        wrong = [[], ["--single", "--against=old"], ["--single", "--against_answers=x"]]
        given = [command(directory, server.base_url, *more)[2:] for more in ([*priced, "--max_cost=0.1"], *wrong)]
        done = subprocess.run([sys.executable, "-c", DRIVER, json.dumps(given)], cwd=ROOT, capture_output=True, text=True)
        assert "stopped at the budget" in done.stdout and done.stdout.split("exit ")[1:] == ["77\n", "2\n", "2\n", "2\n"], done
        assert done.stderr.count("error: give --against=NAME (perhaps with --against_answers) to compare two models") == 3
        assert 0 < len(server.asked) < REQUESTS and read_judge(directory) == []


def test_a_recipe_of_another_program(tmp_path: Path) -> None:
    given = command(str(tmp_path), "https://example.com/v1", "--single", "--config=configs/x_instruction.py")
    done = subprocess.run(
        [*given, "--config.teacher.terms=https://example.com/terms all is allowed"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and "--config gave a XInstructionConfig; judge needs a JudgeConfig" in done.stderr, done
