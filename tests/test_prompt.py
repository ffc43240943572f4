"""Requests and replies as text: the split of the seeds, the request's form, and replies good, malformed and cut off."""

import json
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.config import Targets
from data_gen.prompt import SYSTEM, build_messages, example_block, load_task, parse_reply, reply_choice
from data_gen.record import Item
from tests.local_teacher import block, completion

TASKS = list(vars(Targets()))
SEED = {"instruction": "لاہور پر مضمون لکھیں۔", "input": "", "output": "لاہور ایک شہر ہے۔", "language": "ur"}


def write_task(root: Path, seeds: list[object]) -> Path:
    (root / "toy").mkdir(parents=True, exist_ok=True)
    (root / "toy" / "prompt.txt").write_text("Task: toy\nWrite {count} tasks like {these}.\n", encoding="utf-8")
    (root / "rules.txt").write_text("Rules: {count}.\n", encoding="utf-8")
    lines = [seed if isinstance(seed, str) else json.dumps(seed, ensure_ascii=False) for seed in seeds]
    (root / "toy" / "seeds.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


@pytest.mark.parametrize("name", TASKS)
def test_shipped_tasks_split_by_topic(name: str) -> None:
    drawn = set()
    for seed in range(8):
        task = load_task(name, heldout_share=0.1, seed=seed)
        topics = {side: {item.topic for _, item in seeds} for side, seeds in task.seeds.items()}
        assert topics["train"] and topics["heldout"] and not topics["train"] & topics["heldout"]
        drawn.add(frozenset(topics["heldout"]))
        assert load_task(name, heldout_share=0.1, seed=seed) == task
    assert len(drawn) > 1, "the config's seed draws the topics"
    assert not load_task(name, heldout_share=0, seed=0).seeds["heldout"]


def test_a_larger_share_takes_more_whole_topics(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": f"t{k // 2}"} for k in range(20)])
    for share, topics in [(0.05, 1), (0.1, 1), (0.15, 2), (0.5, 5)]:
        seeds = load_task("toy", heldout_share=share, seed=3, root=root).seeds
        assert len({item.topic for _, item in seeds["heldout"]}) == topics
        assert len(seeds["heldout"]) == 2 * topics


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        ("{", "Expecting"),
        ({**SEED, "topic": "t", "output": ""}, "empty_output"),
        ({**SEED, "topic": "t", "output": "Lahore is a city."}, "wrong_language"),
        ({**SEED, "topic": "t", "language": "xx"}, "language 'xx'; there are ur, en"),
        ({**SEED, "topic": "t", "answer": ""}, "answer"),
        ({"topic": "t"}, "missing"),
    ],
)
def test_a_bad_seed_is_named(tmp_path: Path, seed: object, words: str) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}, seed])
    with pytest.raises(UsageError, match=f"seeds.jsonl:2: .*{words}"):
        load_task("toy", heldout_share=0, seed=0, root=root)


def test_missing_task_and_single_topic(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toy: .*prompt.txt is missing"):
        load_task("toy", heldout_share=0, seed=0, root=tmp_path)
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    with pytest.raises(UsageError, match="leaves no seed to train on"):
        load_task("toy", heldout_share=0.1, seed=0, root=root)


def test_request_form(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    task = load_task("toy", heldout_share=0, seed=0, root=root)
    items = [item for _, item in task.seeds["train"]] + [Item("toy", "جمع کریں۔", "۲ اور ۳", "۵\nبس", "ur")]
    system, user = build_messages(task, items, 7)
    assert system == {"role": "system", "content": SYSTEM}
    assert user["content"] == (
        "Task: toy\nWrite 7 tasks like {these}.\n\nRules: 7.\n\n\nExamples:\n"
        "###\nInstruction: لاہور پر مضمون لکھیں۔\nInput: <noinput>\nOutput: لاہور ایک شہر ہے۔\n"
        "###\nInstruction: جمع کریں۔\nInput: ۲ اور ۳\nOutput: ۵\nبس"
    )


def test_reply_there_and_back() -> None:
    items = [
        Item("generation", "خط\nلکھیں۔", "", "پیارے دوست،\n\nInput کے بغیر: نہیں\n#### سرخی\nسلام", "ur"),
        Item("generation", "جذبہ بتائیں۔", "میں خوش ہوں۔\nبہت!", "خوشی", "ur"),
    ]
    reply = completion("Here you are:\n" + "\n".join(map(example_block, items)) + "\n###\n")
    assert parse_reply("generation", "ur", reply) == [(item, None) for item in items]


def test_the_common_rules_are_part_of_what_is_asked(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    before = load_task("toy", heldout_share=0, seed=0, root=root)
    (root / "rules.txt").write_text("Other rules.\n", encoding="utf-8")
    after = load_task("toy", heldout_share=0, seed=0, root=root)
    assert after.prompt.endswith("\n\nOther rules.\n")
    assert after.digest != before.digest and after.prompt_digest != before.prompt_digest


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (completion("", "length"), "empty.*'length'.*max_tokens"),
        (completion(" \n"), "empty"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ('{"choices": [{"message": {"content": ""}, "finish_reason": "\\ud83d"}]}', "empty"),
    ],
)
def test_replies_without_text_are_refused(reply: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        reply_choice(reply)
    str(caught.value).encode()


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    for escaped, text in [("\\ud83d", "\ufffd"), ("\\ude00x", "\ufffdx"), ("\\ud83d\\ude00", "😀")]:
        reply = f'{{"choices": [{{"message": {{"content": "{escaped}"}}, "finish_reason": "stop"}}]}}'
        assert reply_choice(reply) == (text, "stop")


@pytest.mark.parametrize(
    "text",
    [
        "Instruction: a\nOutput: b\nInstruction: c\nInput: <noinput>\nOutput: d",
        "Instruction: a\n\nInstruction: b\nOutput: c",
    ],
)
def test_items_that_run_together_are_malformed(text: str) -> None:
    for reply in (text, f"###\n{text}"):
        assert [fault for _, fault in parse_reply("generation", "ur", completion(reply))] == ["malformed"]


def test_an_item_before_the_first_separator_counts() -> None:
    text = "Instruction: شعر لکھیں۔\nInput: <noinput>\nOutput: دل\n" + block("خط لکھیں۔", "سلام")
    parsed = parse_reply("generation", "ur", completion(text))
    assert [(item.output, fault) for item, fault in parsed] == [("دل", None), ("سلام", None)]
    faults = [fault for _, fault in parse_reply("generation", "ur", completion(f"Here:\n{text}"))]
    assert faults == ["malformed", None]


def test_malformed_blocks_are_kept_to_be_seen() -> None:
    good = block("شعر لکھیں۔", "دل")
    for bad in ("Instruction: کیا؟\nInput: <noinput>", "Output: جی", "Instruction:\nOutput: جی", "کچھ اور"):
        [first, second, third] = parse_reply("generation", "ur", completion(f"{good}\n###\n{bad}\n{good}"))
        assert first == third and first[1] is None
        assert second[1] == "malformed" and (bad in second[0].output or second[0].output == "جی")
    assert [fault for _, fault in parse_reply("generation", "ur", completion("معذرت"))] == ["malformed"]


def test_a_cut_off_reply_keeps_its_whole_items() -> None:
    text = "\n".join(block(f"شعر {k} لکھیں۔", "دل") for k in range(3))
    for finish, faults in [("stop", [None] * 3), ("length", [None, None, "truncated"])]:
        assert [fault for _, fault in parse_reply("generation", "ur", completion(text, finish))] == faults
    # Cut between two blocks, nothing is lost.
    assert [fault for _, fault in parse_reply("generation", "ur", completion(text + "\n###\n", "length"))] == [None] * 3


def test_items_are_normalised_and_know_their_language() -> None:
    reply = completion(block("انگریزی میں ترجمہ کریں: \u064a\u0647", "This."))
    [(item, _)] = parse_reply("translation", "ur", reply)
    assert (item.instruction, item.language) == ("انگریزی میں ترجمہ کریں: یہ", "en")
