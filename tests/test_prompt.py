"""Requests and replies as text: the split of the seeds, the request's form, and replies good, malformed and cut off."""

import dataclasses
import hashlib
import json
import random
import re
import time
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.config import Targets
from data_gen.languages import Pack, load_pack
from data_gen.limits import Usage
from data_gen.prompt import (
    SYSTEM,
    build_messages,
    example_block,
    parse_reply,
    reply_choice,
    reply_usage,
    response_format,
)
from data_gen.record import Item, item_messages
from data_gen.seeds import load_task
from data_gen.sources import read_english
from data_gen.task import REPLY_FORMATS, Task
from tests.local_teacher import block, completion

TASKS = [name for name in vars(Targets()) if name != "translated"]
TAGGED_PROMPTS = "587d015ccd2ddbd1fcdb154bc4cc25cd4f62b816c73ece3c10fe2fc810892ee9"  # of all tasks' requests
SEED = {"instruction": "لاہور پر مضمون لکھیں۔", "input": "", "output": "لاہور ایک شہر ہے۔", "language": "ur"}


URDU = load_pack("ur")
normalise = URDU.normalise


def write_task(root: Path, seeds: list[object], rules: str = "", prompt: str = "Write {count} tasks in {language}.") -> Path:
    (root / "toy").mkdir(parents=True, exist_ok=True)
    (root / "toy" / "prompt.txt").write_text(f"Task: toy\n{prompt}\n", encoding="utf-8")
    (root / "toy" / "task.toml").write_text(rules, encoding="utf-8")
    (root / "rules.txt").write_text("Rules: {count}, {input_form}.\n", encoding="utf-8")
    for form in (*REPLY_FORMATS, "conversation"):
        (root / f"form_{form}.txt").write_text(f"As {form}.\n", encoding="utf-8")
    lines = [seed if isinstance(seed, str) else json.dumps(seed, ensure_ascii=False) for seed in seeds]
    (root / "toy" / "seeds.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def toy(root: Path, *, heldout_share: float = 0, seed: int = 0, reply_format: str = "tagged") -> Task:
    """The task that write_task wrote, whose seeds lie in the same folder."""
    pack: Pack = dataclasses.replace(URDU, folder=root)
    return load_task("toy", pack, heldout_share=heldout_share, seed=seed, reply_format=reply_format, root=root)


def shipped(name: str, *, heldout_share: float = 0.1, seed: int = 0, reply_format: str = "tagged") -> Task:
    return load_task(name, URDU, heldout_share=heldout_share, seed=seed, reply_format=reply_format)


@pytest.mark.parametrize("name", TASKS)
def test_shipped_tasks_split_by_topic(name: str) -> None:
    drawn = set()
    for seed in range(8):
        task = shipped(name, heldout_share=0.1, seed=seed)
        topics = {side: {item.topic for _, item in seeds} for side, seeds in task.seeds.items()}
        assert topics["train"] and topics["heldout"] and not topics["train"] & topics["heldout"]
        drawn.add(frozenset(topics["heldout"]))
        assert shipped(name, heldout_share=0.1, seed=seed) == task
    assert len(drawn) > 1, "the config's seed draws the topics"
    assert not shipped(name, heldout_share=0, seed=0).seeds["heldout"]


def test_a_larger_share_takes_more_whole_topics(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": f"t{k // 2}"} for k in range(20)])
    for share, topics in [(0.05, 1), (0.1, 1), (0.15, 2), (0.5, 5)]:
        seeds = toy(root, heldout_share=share, seed=3).seeds
        assert len({item.topic for _, item in seeds["heldout"]}) == topics
        assert len(seeds["heldout"]) == 2 * topics


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        ("{", "Expecting"),
        ({**SEED, "topic": "t", "output": ""}, "empty_output"),
        ({**SEED, "topic": "t", "output": "Lahore is a city."}, "wrong_language"),
        ({**SEED, "topic": "t", "language": "xx"}, "language 'xx'; there are ur, en, ur-Latn, ur-x-mixed"),
        ({**SEED, "topic": "t", "answer": ""}, "has 'answer'; a seed has topic, instruction, input, output, language, and nothing"),
        ({"topic": "t", **SEED, "output": None}, "output is null; all of a seed is text"),
        ({"topic": ["t"], **SEED}, "topic is an array"),
        ({"topic": "t", **SEED, "input": 3}, "input is a number"),
        (
            {"topic": "t", **{key: value for key, value in SEED.items() if key != "output"}},
            "lacks output; a seed has topic, instruction, input, output, language$",
        ),
        (SEED, "lacks topic"),
        ({"topic": "t"}, "lacks instruction, input, output, language"),
        ([SEED], "is an array; a seed has topic, instruction, input, output, language, in one JSON object"),
        ("null", "is null; a seed has"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_bad_seed_is_named(tmp_path: Path, seed: object, words: str) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}, seed])
    with pytest.raises(UsageError, match=f"seeds.jsonl:2: .*{words}"):
        toy(root)


def test_blank_lines_of_seeds_are_passed_over_and_a_line_ends_at_a_line_end(tmp_path: Path) -> None:
    """U+2028 and U+0085 are line ends to str.splitlines, and text to JSON."""
    odd = {**SEED, "topic": "b", "output": "لاہور\u2028ایک بڑا\u0085شہر ہے۔"}
    task = toy(write_task(tmp_path, [{**SEED, "topic": "a"}, "", "  ", odd, "", ""]))
    assert [(seed, item.topic) for seed, item in task.seeds["train"]] == [("seed:toy:1", "a"), ("seed:toy:4", "b")]
    assert task.seeds["train"][1][1].output == "لاہور\nایک بڑا\u0085شہر ہے۔"
    with pytest.raises(UsageError, match="seeds.jsonl has no seed"):
        toy(write_task(tmp_path, ["", ""]))


def test_english_items_may_have_line_separators_in_them(tmp_path: Path) -> None:
    items = [{"instruction": f"Say {mark!r}.", "input": "", "output": f"one{mark}two"} for mark in ("\u2028", "\u0085")]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n", encoding="utf-8")
    sides, _ = read_english(str(tmp_path / "a.jsonl"), 0)
    assert [item.output for _, item in sides["train"]] == ["one\u2028two", "one\u0085two"] and not sides["heldout"]


@pytest.mark.parametrize("name", ["seeds.jsonl", "prompt.txt", "task.toml"])
def test_a_file_that_is_not_utf8_is_named(tmp_path: Path, name: str) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    (root / "toy" / name).write_bytes(b"\xd8\xff")
    with pytest.raises(UsageError, match=f"toy/{name} is not UTF-8 .*save it as UTF-8"):
        toy(root)


def test_a_conversation_has_turns_and_an_input_is_there_where_it_is_wanted(tmp_path: Path) -> None:
    talk = "وعلیکم السلام!\nUser: آپ کا نام کیا ہے؟\nAssistant: میرا نام بلال ہے۔"
    task = toy(write_task(tmp_path, [{**SEED, "topic": "a", "output": talk}], 'form = "conversation"'))
    assert task.prompt.endswith("\nAs tagged.\n\nAs conversation.\n")
    [(item, fault)] = parse_reply(task, completion(block("سلام کریں اور بات کریں۔", talk)))
    assert fault is None and [m["role"] for m in item_messages(item)] == ["user", "assistant"] * 2
    assert [m["content"] for m in item_messages(item)][1:] == ["وعلیکم السلام!", "آپ کا نام کیا ہے؟", "میرا نام بلال ہے۔"]
    for bad in ("وعلیکم السلام!", "وعلیکم السلام!\nUser: آپ؟", "سلام\nAssistant: جی\nUser: کیا؟", "سلام\nUser: \nAssistant: جی"):
        [(item, fault)] = parse_reply(task, completion(block("سلام کریں اور بات کریں۔", bad)))
        assert (item.output, fault) == (bad.replace(" \n", "\n"), "malformed_turns") and item_messages(item)
    with pytest.raises(UsageError, match="second question"):
        toy(write_task(tmp_path, [{**SEED, "topic": "a"}], 'form = "conversation"'))
    for rules, given, reason in [("input = true", "", "input_missing"), ("", "لاہور بڑا شہر ہے۔", "input_unwanted")]:
        with pytest.raises(UsageError, match=reason):
            toy(write_task(tmp_path, [{**SEED, "topic": "a", "input": given}], rules))


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("colour = 3", "unknown key 'colour'; there are form, source"),
        ('form = "poem"', "form = 'poem'; there are 'single', 'conversation'"),
        ('checks = ["spelling"]', "unknown check 'spelling'; there are label, arithmetic"),
        ("input = 1", "input = 1 is no bool"),
        ("checks = 3", r"checks = 3 is no list, such as \['quality'\]; there are label, arithmetic"),
        ('checks = "quality"', "checks = 'quality' is no list"),
        ("checks = [3]", "unknown check 3"),
        ("input = ", "Invalid value"),
    ],
)
def test_bad_rules_of_a_task_are_named(tmp_path: Path, rules: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"task.toml: {words}"):
        toy(write_task(tmp_path, [{**SEED, "topic": "a"}], rules))


def test_an_unknown_placeholder_is_named_with_those_there_are(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}], prompt="Write {count} items in {langauge}.")
    with pytest.raises(UsageError, match=r"toy/prompt.txt: unknown placeholder \{langauge\}; there are .*\{count\}.*\{language\}"):
        toy(root)


def test_a_language_without_seeds_for_a_task_says_what_it_has(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    pack = dataclasses.replace(URDU, folder=root / "nowhere")
    (root / "nowhere" / "other").mkdir(parents=True)
    (root / "nowhere" / "other" / "seeds.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="Urdu has no seeds for the task toy .*; it has other"):
        load_task("toy", pack, heldout_share=0, seed=0, root=root)


def test_missing_task_and_single_topic(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toy: .*task.toml is missing"):
        toy(tmp_path)
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    with pytest.raises(UsageError, match="leaves no seed to train on; the seeds have 1 topic: give seeds on two topics or more"):
        toy(root, heldout_share=0.1, seed=0)


def test_request_form(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    task = toy(root)
    items = [item for _, item in task.seeds["train"]] + [Item("toy", "جمع کریں۔", "۲ اور ۳", "۵\nبس", "ur")]
    system, user = build_messages(task, items, 7)
    assert system == {"role": "system", "content": SYSTEM}
    assert user["content"] == (
        "Task: toy\nWrite 7 tasks in Urdu.\n\nRules: 7, <noinput>.\n\nAs tagged.\n\n\nExamples:\n"
        "###\nInstruction: لاہور پر مضمون لکھیں۔\nInput: <noinput>\nOutput: لاہور ایک شہر ہے۔\n"
        "###\nInstruction: جمع کریں۔\nInput: ۲ اور ۳\nOutput: ۵\nبس"
    )


def test_request_for_json(tmp_path: Path) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    task = toy(root, reply_format="json_schema")
    items = [item for _, item in task.seeds["train"]] + [Item("toy", "جمع کریں۔", "۲ اور ۳", '"۵"\nبس', "ur")]
    user = build_messages(task, items, 7)[1]["content"]
    asked, examples = user.split("Examples:\n")
    assert asked == 'Task: toy\nWrite 7 tasks in Urdu.\n\nRules: 7, "".\n\nAs json_schema.\n\n\n'
    shown = [json.loads(line) for line in examples.splitlines()]
    assert shown == [{"instruction": i.instruction, "input": i.input, "output": i.output} for i in items]
    assert "لاہور" in examples, "letters, not escapes of them"
    tagged = toy(root)
    assert task.digest != tagged.digest and task.seeds == tagged.seeds
    with pytest.raises(UsageError, match="reply_format is 'xml'; there are tagged, json_schema"):
        toy(root, reply_format="xml")


def test_the_tagged_prompt_is_what_it_was() -> None:
    """Replies of the offline teacher, and the quickstart's results with them, hang on every byte of it."""
    [rules] = [line for line in shipped("ethics", heldout_share=0.1, seed=1).prompt.splitlines() if "stands in the" in line]
    assert rules.endswith("so the input is always <noinput>.")
    every = hashlib.sha256()
    for name in TASKS:
        task = shipped(name, heldout_share=0.1, seed=1)
        every.update(repr(build_messages(task, [item for _, item in task.seeds["train"]][:8], 12)).encode())
        every.update(task.digest.encode())
    assert every.hexdigest() == TAGGED_PROMPTS


@pytest.mark.parametrize("name", TASKS)
def test_the_json_prompt_speaks_of_json_only(name: str) -> None:
    task = shipped(name, heldout_share=0.1, seed=0, reply_format="json_schema")
    user = build_messages(task, [item for _, item in task.seeds["train"]][:3], 5)[1]["content"]
    assert user.startswith(f"Task: {name}\n") and "exactly 5 new items" in user
    assert not any(word in user for word in ("###", "<noinput>", "Instruction:", "{count}", "{input_form}"))


def test_the_schema_asks_for_what_is_read() -> None:
    """As the guide to structured outputs wants a strict schema: every field required, no others, at every level."""
    schema = {
        "type": "object",
        "properties": {
            "items": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"instruction": {"type": "string"}, "input": {"type": "string"}, "output": {"type": "string"}},
                    "required": ["instruction", "input", "output"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["items"],
        "additionalProperties": False,
    }
    assert response_format() == {"type": "json_schema", "json_schema": {"name": "items", "strict": True, "schema": schema}}
    good = {"instruction": "خط لکھیں۔", "input": "", "output": "سلام"}
    lacking: list[dict[str, object]] = [{k: v for k, v in good.items() if k != field} for field in good]
    for bad in [*lacking, {**good, "output": None}, {**good, "input": 3}]:
        found = as_json(json.dumps({"items": [good, bad, good]}, ensure_ascii=False))
        assert [fault for _, fault in found] == [None, "malformed", None]
        assert json.loads(found[1][0].output) == bad  # kept to be seen


GENERATION = {form: shipped("generation", reply_format=form) for form in REPLY_FORMATS}


def as_json(text: str, finish: str = "stop") -> list[tuple[Item, str | None]]:
    return parse_reply(GENERATION["json_schema"], completion(text, finish))


def test_json_replies_there_and_back() -> None:
    items = [
        Item("generation", "خط\nلکھیں۔", "", 'پیارے دوست،\n\n###\nOutput: "نہیں" \\ ]}, {"a": 1}', "ur"),
        Item("generation", "جذبہ بتائیں۔", "میں خوش ہوں۔", "خوشی", "ur"),
    ]
    sent = [vars(item) | {"input": item.input or "<noinput>"} for item in items]
    text = json.dumps({"items": sent}, ensure_ascii=False, indent=1)
    wanted = [(item, None) for item in items]
    for around in ("{}", "```json\n{}\n```", "```\n{}```", "Here you are:\n{}", "<think>a {{}} b</think>\n\n{}", "so …</think>{}"):
        assert as_json(around.format(text)) == wanted
    assert as_json(json.dumps({"items": [vars(item) for item in items]})) == wanted  # in escapes
    raw = '{"items": [{"instruction": "خط لکھیں۔", "input": "", "output": "سلام\nدوست"}]}'  # a line end that JSON forbids
    assert as_json(raw)[0][0].output == "سلام\nدوست"
    half = r'{"items": [{"instruction": "خط لکھیں۔", "input": "", "output": "\ud83d \ud83d\ude00"}]}'
    assert as_json(half)[0][0].output == "\ufffd 😀"
    assert as_json('{"items": []}') == []


def test_a_cut_off_json_reply_keeps_its_whole_items() -> None:
    """Cut at every character: the items whose end is there are kept, and the faults are those of a cut."""
    items = [{"instruction": f"شعر {k} لکھیں۔", "input": "", "output": 'دل {"a": [1]}\n'} for k in range(3)]
    text = json.dumps({"items": items}, ensure_ascii=False)
    ends = [text.index('"}', text.index(f"شعر {k}") + 30) + 2 for k in range(3)]
    for cut in range(1, len(text)):
        whole = sum(end <= cut for end in ends)
        found = as_json(text[:cut], "length")
        assert [fault for _, fault in found][:whole] == [None] * whole
        rest = text[ends[whole - 1] : cut].lstrip(" ,") if whole else text[:cut].removeprefix('{"items": [')
        assert [(item.output, fault) for item, fault in found[whole:]] == ([(rest, "truncated")] if rest.strip("]}") else [])
        assert {fault for _, fault in as_json(text[:cut])} <= {None, "malformed"}


@pytest.mark.parametrize(
    "text", ["معذرت", "[]", '{"items": 3}', '{"data": [{}]}', "null", '{"items": [' + "[" * 100_000, '{"items": [' + "9" * 5000]
)
def test_a_reply_that_is_no_such_json_is_malformed(text: str) -> None:
    [(item, fault)] = as_json(text)
    assert fault == "malformed" and item.output and text.endswith(item.output) and not item.instruction


def test_a_mistake_in_json_costs_what_follows_it() -> None:
    good = '{"instruction": "خط لکھیں۔", "input": "", "output": "سلام"}'
    for bad in ("{'instruction': 1}", "{", '"a" "b"'):
        assert [fault for _, fault in as_json(f'{{"items": [{good}, {bad}, {good}]}}')][:2] == [None, "malformed"]
    for bad in ("3", "[]", "{}", '{"instruction": " ", "input": "", "output": "جی"}'):
        assert [fault for _, fault in as_json(f'{{"items": [{good}, {bad}, {good}]}}')] == [None, "malformed", None]


def test_thoughts_are_no_items() -> None:
    text = "\n".join(block(f"شعر {k} لکھیں۔", "دل") for k in range(2))
    wanted = parse_reply(GENERATION["tagged"], completion(text))
    draft = block("مسودہ لکھیں۔", "نہیں")
    for form in ("<think>\n{}\n</think>\n\n", "  <think>{}</think>", "Well …\n{}\n</think>\n", "<think></think>"):
        thoughts = form.format(draft)
        assert parse_reply(GENERATION["tagged"], completion(thoughts + text)) == wanted
    for form in REPLY_FORMATS:
        [(item, fault)] = parse_reply(GENERATION[form], completion(f"<think>\n{draft}", "length"))
        assert (item.instruction, fault) == ("", "truncated") and draft in item.output  # counted, and nothing of it kept
    assert parse_reply(GENERATION["tagged"], completion("<think>" + text))[-1] == wanted[-1]  # never closed, and not cut off


def one_expression(block: str) -> dict[str, str] | None:
    """The form of a block as one expression says it, in a time that is quadratic in its lines."""
    label = r"(?:^|\n)[ \t]*(?:Instruction|Input|Output):"
    found = re.fullmatch(r"\s*Instruction:(.*?)(?:\n[ \t]*Input:(.*?))?\n[ \t]*Output:(.*)", block, re.DOTALL)
    parts = [normalise(part or "") for part in found.groups()] if found else []
    if not parts or any(re.search(label, part) for part in parts):
        return None
    return dict(zip(("instruction", "input", "output"), parts, strict=True))


def test_blocks_are_read_as_one_expression_would() -> None:
    pieces = "Instruction: Input: Output: خط x <noinput> # \n \r \u2028 \u200b \u00a0".split(" ")
    pieces += [" ", "\t", "\n", "\nInput:", "\nOutput:"]
    rng, whole = random.Random(0), 0
    for _ in range(20_000):
        text = "".join(["Instruction:"] * rng.randrange(2) + rng.choices(pieces, k=rng.randint(1, 9)))
        if not text.strip():
            continue
        [(item, fault)] = parse_reply(GENERATION["tagged"], completion(text))
        wanted = one_expression(text)
        assert (fault is None) == bool(wanted and wanted["instruction"]), repr(text)
        if wanted and fault is None:
            given = "" if wanted["input"] == "<noinput>" else wanted["input"]
            assert (item.instruction, item.input, item.output) == (wanted["instruction"], given, wanted["output"])
            whole += 1
    assert whole > 500


@pytest.mark.parametrize(
    "text",
    [
        "اردو میں " * 60_000,
        "###\nInstruction: خط لکھیں۔\nOutput: " + "اردو میں لکھیں۔\n" * 40_000,
        "###\n" * 250_000,
        "###\nInstruction: a\n" + "Input: b\n" * 100_000,
        "Instruction:" + ("\n" + " " * 50) * 20_000,
        '{"items": [' * 90_000,
        '{"items": [{"instruction": "' + "{ " * 400_000,
        "```" + " " * 1_000_000,
    ],
    ids=["no_separator", "one_item", "separators", "inputs", "spaces", "heads", "one_string", "fence"],
)
def test_a_reply_of_a_megabyte_takes_no_quadratic_time(text: str) -> None:
    """Each takes less than half a second; where the time is quadratic it is minutes."""
    begin = time.process_time()
    for form in REPLY_FORMATS:
        for finish in ("stop", "length"):
            parse_reply(GENERATION[form], completion(text, finish))
    assert time.process_time() - begin < 20


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, Usage(9, 5, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(9, 5, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(9, 5, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 10}}, Usage(9, 0, 0)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": "4"}}, Usage(9, 5, 0)),
        ({"prompt_tokens": -1, "completion_tokens": 5}, None),
        ({"prompt_tokens": True, "completion_tokens": 5}, None),
        ({"prompt_tokens": 9, "completion_tokens": "5"}, None),
        ({"prompt_tokens": 9}, None),
        ([9, 5], None),
        (None, None),
    ],
)
def test_usage(usage: object, wanted: Usage | None) -> None:
    assert reply_usage(json.dumps(json.loads(completion("x")) | {"usage": usage})) == wanted


def test_no_usage() -> None:
    for reply in (completion("x"), "", "[]", "3", '{"usage": ', "[" * 100_000):
        assert reply_usage(reply) is None


def test_reply_there_and_back() -> None:
    items = [
        Item("generation", "خط\nلکھیں۔", "", "پیارے دوست،\n\nInput کے بغیر: نہیں\n#### سرخی\nسلام", "ur"),
        Item("generation", "جذبہ بتائیں۔", "میں خوش ہوں۔\nبہت!", "خوشی", "ur"),
    ]
    reply = completion("Here you are:\n" + "\n".join(map(example_block, items)) + "\n###\n")
    assert parse_reply(GENERATION["tagged"], reply) == [(item, None) for item in items]


@pytest.mark.parametrize("file", ["rules.txt", "form_tagged.txt"])
def test_what_all_tasks_share_is_part_of_what_is_asked(tmp_path: Path, file: str) -> None:
    root = write_task(tmp_path, [{**SEED, "topic": "a"}])
    before = toy(root)
    (root / file).write_text("Other words.\n", encoding="utf-8")
    after = toy(root)
    assert "\n\nOther words.\n" in after.prompt
    assert after.digest != before.digest and after.prompt_digest != before.prompt_digest
    (root / file).unlink()
    with pytest.raises(UsageError, match=f"toy: .*{file} is missing; .*form_….txt a form of reply"):
        toy(root)


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
        assert [fault for _, fault in parse_reply(GENERATION["tagged"], completion(reply))] == ["malformed"]


def test_an_item_before_the_first_separator_counts() -> None:
    text = "Instruction: شعر لکھیں۔\nInput: <noinput>\nOutput: دل\n" + block("خط لکھیں۔", "سلام")
    parsed = parse_reply(GENERATION["tagged"], completion(text))
    assert [(item.output, fault) for item, fault in parsed] == [("دل", None), ("سلام", None)]
    faults = [fault for _, fault in parse_reply(GENERATION["tagged"], completion(f"Here:\n{text}"))]
    assert faults == ["malformed", None]


def test_malformed_blocks_are_kept_to_be_seen() -> None:
    good = block("شعر لکھیں۔", "دل")
    for bad in ("Instruction: کیا؟\nInput: <noinput>", "Output: جی", "Instruction:\nOutput: جی", "کچھ اور"):
        [first, second, third] = parse_reply(GENERATION["tagged"], completion(f"{good}\n###\n{bad}\n{good}"))
        assert first == third and first[1] is None
        assert second[1] == "malformed" and (bad in second[0].output or second[0].output == "جی")
    assert [fault for _, fault in parse_reply(GENERATION["tagged"], completion("معذرت"))] == ["malformed"]


def test_a_cut_off_reply_keeps_its_whole_items() -> None:
    text = "\n".join(block(f"شعر {k} لکھیں۔", "دل") for k in range(3))
    for finish, faults in [("stop", [None] * 3), ("length", [None, None, "truncated"])]:
        assert [fault for _, fault in parse_reply(GENERATION["tagged"], completion(text, finish))] == faults
    # Cut between two blocks, nothing is lost.
    assert [fault for _, fault in parse_reply(GENERATION["tagged"], completion(text + "\n###\n", "length"))] == [None] * 3


def test_items_are_normalised_and_know_their_language() -> None:
    reply = completion(block("انگریزی میں ترجمہ کریں: \u064a\u0647", "This."))
    [(item, _)] = parse_reply(shipped("translation"), reply)
    assert (item.instruction, item.language) == ("انگریزی میں ترجمہ کریں: یہ", "en")
