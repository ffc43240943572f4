"""The offline teacher: its protocol as an OpenAI client sees it, its truth file, its grammars' variety and sums."""

import asyncio
import hashlib
import http.client
import json
import math
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest

from data_gen import UsageError
from data_gen.checks import offered_labels
from data_gen.dedup import RougePool
from data_gen.languages import load_pack
from data_gen.offline import items as offline_items
from data_gen.offline.grammar import MAKERS, Item, make_item
from data_gen.offline.items import write_items
from data_gen.offline.judge import Manners
from data_gen.offline.teacher import MODEL, Server, complete, drawn_latency, serve
from data_gen.seeds import load_task
from data_gen.text import script_share

ROOT = Path(__file__).resolve().parents[1]
EQUATION = re.compile(r"^(\d+) ([-+×÷]) (\d+) = (\d+)$")


def ask(task: str = "sentiment", count: int = 5, **more: Any) -> dict[str, Any]:
    prompt = load_task(task, load_pack("ur"), heldout_share=0, seed=0).prompt.replace("{count}", str(count))
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": prompt}]
    return {"model": MODEL, "messages": messages, **more}


def asked(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def encode(request: dict[str, Any]) -> bytes:
    return json.dumps(request, ensure_ascii=False).encode()


def truth_of(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """(item lines, requests answered) of a truth file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "item" in row], [row["request"] for row in rows if row.get("answered")]


def arithmetic_is_right(output: str) -> bool:
    """Every equation holds and the answer is the last one's value; answers without equations (puzzles) pass."""
    *steps, last = output.splitlines()
    matches = [EQUATION.match(step) for step in steps]
    if not any(matches):
        return True
    for match in matches:
        assert match is not None, output
        a, b, value = int(match[1]), int(match[3]), int(match[4])
        if {"+": a + b, "-": a - b, "×": a * b, "÷": a / b}[match[2]] != value:
            return False
    return re.findall(r"\d+", last) == [matches[-1][4]]  # type: ignore[index]


def choice_of(item: Any) -> tuple[dict[str, str], str, str]:
    """(the options offered by letter, letter and text of the answer): "… (الف) 3 (ب) 5 …" and "جواب: (ب) 5"."""
    offered = dict(re.findall(r"\((\w+)\) (.+?)(?= \(|$)", item.instruction))
    found = re.fullmatch(r"\((\w+)\) (.+)", item.output.rpartition("جواب: ")[2])
    return offered if len(offered) == 4 else {}, found[1] if found else "", found[2] if found else ""


def test_an_openai_client_gets_a_completion_and_the_truth_file_says_what_was_sent(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    with serve(seed=1, fault_rate=0.2, truth_file=str(truth)) as server:
        client = openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0)
        assert [model.id for model in client.models.list()] == [MODEL]
        reply = client.chat.completions.create(**ask(count=30), temperature=1.0, seed=3)
        again = client.chat.completions.create(**ask(count=30), temperature=1.0, seed=3)
        other = client.chat.completions.create(**ask(count=30), temperature=1.0, seed=4)
    assert reply == again and reply.choices[0].message.content != other.choices[0].message.content
    text, usage = reply.choices[0].message.content, reply.usage
    assert text is not None and usage is not None
    assert reply.object == "chat.completion" and reply.model == MODEL and reply.choices[0].finish_reason == "stop"
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 1000
    items, answered = truth_of(truth)
    first = [row for row in items if row["request"] == answered[0]][:30]
    assert [row["item"] for row in first] == list(range(30)) and {row["task"] for row in first} == {"sentiment"}
    blocks = text.split("###\n")[1:]
    assert len(blocks) == 30
    for block, row in zip(blocks, first, strict=True):
        assert block.startswith(f"Instruction: {row['instruction']}\nInput: <noinput>")
        assert block.rstrip("\n").endswith(f"\nOutput: {row['output']}" if row["output"] is not None else "<noinput>")
    assert Counter(answered) == {answered[0]: 2, answered[2]: 1}


def test_a_reply_is_a_function_of_body_and_server_seed() -> None:
    body = encode(ask("ethics"))
    assert complete(body, Manners(0, 0.1)) == complete(body, Manners(0, 0.1))
    replies = [complete(b, Manners(seed, 0.1))[0] for b in (body, body + b" ") for seed in (0, 1)]
    assert len({reply["choices"][0]["message"]["content"] for reply in replies}) == 4


SCHEMA = {"type": "json_schema", "json_schema": {"name": "items", "strict": True, "schema": {"type": "object"}}}


@pytest.mark.parametrize("task", MAKERS)
def test_a_json_reply_is_one_object_with_what_was_sent(task: str) -> None:
    reply, items = complete(encode(ask(task, 100, response_format=SCHEMA)), Manners(0, 0.3))
    content = json.loads(reply["choices"][0]["message"]["content"])
    assert set(content) == {"items"} and reply["choices"][0]["finish_reason"] == "stop"
    assert {"whole", "malformed"} <= {item.shape for item in items}
    for found, item in zip(content["items"], items, strict=True):
        whole = {"instruction": item.instruction, "input": "", "output": item.output}
        assert found == (whole if item.output is not None else {"instruction": item.instruction, "input": ""})


def test_a_json_reply_is_cut_by_max_tokens() -> None:
    reply, items = complete(encode(ask("sentiment", 20, response_format=SCHEMA, max_tokens=400)), Manners(0, 0.0))
    text, choice = reply["choices"][0]["message"]["content"], reply["choices"][0]
    assert choice["finish_reason"] == "length" and 395 <= reply["usage"]["completion_tokens"] <= 400
    assert text.count('{"instruction"') == len(items) and [item.shape for item in items[-2:]] == ["whole", "cut"]
    rest = text.removeprefix('{"items": [')
    for item in items[:-1]:
        found, end = json.JSONDecoder().raw_decode(rest)
        assert found["output"] == item.output
        rest = rest[end:].removeprefix(", ")
    with pytest.raises(ValueError):
        json.loads(rest)


@pytest.mark.parametrize(
    ("path", "body", "key", "status"),
    [
        ("/chat/completions", b"{not json", "k", 400),
        ("/chat/completions", b"[]", "k", 400),
        ("/chat/completions", encode({"model": MODEL, "messages": "hello"}), "k", 400),
        ("/chat/completions", encode({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}), "k", 400),
        ("/chat/completions", encode(ask(max_tokens=0)), "k", 400),
        ("/chat/completions", encode(ask(count=100_000)), "k", 400),
        ("/chat/completions", encode(ask(response_format={"type": "json_object"})), "k", 400),
        ("/chat/completions", encode(ask(response_format="json")), "k", 400),
        ("/chat/completions", encode(asked("Task: ethics\nLanguage: Klingon (tlh)\nWrite exactly 2 new items")), "k", 400),
        ("/chat/completions", encode(asked("Task: roman\nLanguage: Sindhi (sd)\nWrite exactly 2 new items")), "k", 400),
        ("/chat/completions", encode(asked("Task: translated\nTranslate exactly 2 items\n###\nInstruction: a\nOutput:")), "k", 400),
        ("/chat/completions", encode(asked("Check: beauty\n### 1\nInstruction: a\nOutput: b")), "k", 400),
        ("/chat/completions", encode(asked("Check: quality\n### 1\nInstruction: a")), "k", 400),
        ("/chat/completions", encode(ask(response_format={"type": "json_schema", "json_schema": {"name": "x"}})), "k", 400),
        ("/chat/completions", encode({**ask(), "model": "gpt"}), "k", 404),
        ("/completions", encode(ask()), "k", 404),
        ("/chat/completions", encode(ask()), "wrong", 401),
        ("/chat/completions", encode(ask()), None, 401),
        ("/chat/completions", encode(ask()), "k", 200),
        ("/chat/completions?x=1", encode(ask(response_format={"type": "text"})), "k", 200),
    ],
)
def test_what_a_real_endpoint_refuses_is_refused(path: str, body: bytes, key: str | None, status: int) -> None:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with serve(seed=0, fault_rate=0.0, api_key="k") as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
        connection.request("POST", f"/v1{path}", body, headers)
        reply = connection.getresponse()
        error = json.loads(reply.read()).get("error")
        assert reply.status == status and (error is None) == (status == 200)
        assert error is None or (error["message"] and set(error) == {"message", "type", "param", "code"})
        used = connection.sock
        connection.request("GET", "/v1/models", headers={"Authorization": "Bearer k"})
        assert connection.getresponse().status == 200
        assert connection.sock is used is not None  # the connection stayed open
        connection.close()


def test_max_tokens_cuts_the_reply(tmp_path: Path) -> None:
    whole, all_items = complete(encode(ask("generation", 20)), Manners(0, 0.0))
    cut, items = complete(encode(ask("generation", 20, max_tokens=400)), Manners(0, 0.0))
    assert cut["choices"][0]["finish_reason"] == "length" and whole["choices"][0]["finish_reason"] == "stop"
    assert 395 <= cut["usage"]["completion_tokens"] <= 400
    text = cut["choices"][0]["message"]["content"]
    assert text.count("###\n") == len(items) < len(all_items) and len(text.encode()) <= 1200
    assert [item.shape for item in items] == ["whole"] * (len(items) - 1) + ["cut"]


def test_errors_of_use() -> None:
    with pytest.raises(UsageError, match="fault_rate is 3"):
        serve(seed=0, fault_rate=3)
    with serve(seed=0, fault_rate=0.0) as server, pytest.raises(UsageError, match="choose another"):
        serve(server.server_port, seed=0, fault_rate=0.0)
    times = ({"latency_s": -1.0}, {"batch_s": float("nan")}, {"latency_spread": float("inf")})
    for wrong in (*times, {"faults": "cut=2"}, {"judge_error": 1.5}, {"solve_error": -0.1}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            serve(seed=0, fault_rate=0.0, **wrong)  # type: ignore[arg-type]


def test_the_command_takes_all_options(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    command = [sys.executable, "-m", "data_gen.offline.teacher", "--seed=3", "--fault_rate=0.1", "--latency_s=0.01"]
    more = ["--latency_spread=0.1", f"--truth_file={truth}", "--api_key=k", "--faults=identical=1", "--batch_s=0"]
    more += ["--judge_error=0", "--solve_error=0"]
    with subprocess.Popen([*command, *more], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with openai.OpenAI(base_url=process.stdout.readline().split()[0], api_key="k", max_retries=0) as client:
            text = client.chat.completions.create(**ask("ethics")).choices[0].message.content
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0 and text is not None and text.count("###") == 20
    assert len(truth_of(truth)[0]) == 20 and len(truth_of(truth)[1]) == 1
    wrong = subprocess.run([*command, "--faults=cutt=0.1"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "'cutt=0.1' names no fault" in wrong.stderr


def test_a_client_that_hung_up_counts_as_not_answered(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    with serve(seed=0, fault_rate=0.0, latency_s=0.3, truth_file=str(truth)) as server:
        for task, patience_s in (("sentiment", 0.1), ("ethics", 5)):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=patience_s)
            connection.request("POST", "/v1/chat/completions", encode(ask(task)))
            if task == "ethics":  # answered when the first one's wait is over
                assert connection.getresponse().status == 200
            else:
                with pytest.raises(TimeoutError):
                    connection.getresponse()
            connection.close()
    assert truth_of(truth)[1] == [hashlib.sha256(encode(ask("ethics"))).hexdigest()]


def raw(server: Server, data: bytes) -> bytes:
    """All that the server answers to these bytes until it ends the connection."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_what_is_no_http_is_refused_and_the_connection_ends() -> None:
    with serve(seed=0, fault_rate=0.0) as server:
        for data, status in (
            (b"hello\r\n\r\n", 400),
            (b"POST /v1/models HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
            (b"POST /v1/models HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
            (b"POST /v1/models HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            (b"GET /v1/models HTTP/1.1\r\nX: " + b"x" * 66_000, 431),
            (b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", 200),
        ):
            assert raw(server, data).startswith(b"HTTP/1.1 %d " % status), data[:60]
        expecting = b"POST /v1/x HTTP/1.1\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
        assert raw(server, expecting).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 ")


def test_hundreds_wait_at_once_without_threads() -> None:
    async def ask_one(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = encode(ask(count=1))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    async def ask_all(port: int) -> int:
        tasks = [asyncio.create_task(ask_one(port)) for _ in range(200)]
        await asyncio.sleep(0.1)
        threads = threading.active_count()
        await asyncio.gather(*tasks)
        return threads

    before, begun = threading.active_count(), time.monotonic()
    with serve(seed=0, fault_rate=0.0, latency_s=0.3) as server:
        assert asyncio.run(ask_all(server.server_port)) == before + 1
    assert 0.3 < time.monotonic() - begun < 10 < 200 * 0.3
    assert threading.active_count() == before


def test_the_latency_is_log_normal() -> None:
    rng = random.Random(0)
    logs = [math.log(drawn_latency(0.2, 0.5, rng) / 0.2) for _ in range(4000)]
    assert abs(statistics.fmean(logs)) < 0.04 and abs(statistics.stdev(logs) - 0.5) < 0.03
    assert drawn_latency(0.2, 0.0, rng) == 0.2 and drawn_latency(0.0, 0.5, rng) == 0.0


@pytest.mark.parametrize("task", MAKERS)
def test_faults_come_at_their_rate_and_are_what_the_truth_says(task: str) -> None:
    count, rate = 2000, 0.2
    sent = [item for item in write_items(task, count, random.Random(7), rate)]
    assert len(sent) == count
    own = [item for item in sent if item.shape == "whole"]
    faulty = [item for item in own if item.fault]
    deviation = (rate * (1 - rate) / len(own)) ** 0.5
    assert abs(len(faulty) / len(own) - rate) < 4 * deviation
    for shape in ("duplicate", "malformed"):
        assert 0.02 < sum(item.shape == shape for item in sent) / count < 0.06
    kinds = {
        "generation": {"off_topic", "wrong_language"},
        "question_answering": {"wrong_fact", "wrong_choice", "choice_outside", "wrong_language"},
        "reasoning": {"wrong_sum", "wrong_name", "wrong_choice", "choice_outside", "wrong_language"},
        "ethics": {"unsafe_advice", "wrong_language"}, "translation": {"mistranslation", "wrong_language"},
        "classification": {"label_outside", "wrong_label"}, "sentiment": {"label_outside", "wrong_label"},
    }[task]  # fmt: skip
    assert {item.fault for item in faulty} == kinds
    for item in own:
        output = item.output or ""
        if task == "reasoning" and item.fault in (None, "wrong_sum"):
            assert arithmetic_is_right(output) == (item.fault is None), output
        if task in ("classification", "sentiment"):
            assert (output in offered_labels(item.instruction)) == (item.fault in (None, "wrong_label"))
        if item.right is not None and item.fault is None:
            assert item.right in output
        if item.fault == "wrong_name":
            assert output.rpartition("جواب: ")[2] != item.right
        if item.fault == "wrong_fact":
            assert not re.search(rf"\b{item.right}\b", output), output
        if task in ("classification", "sentiment", "translation") and item.fault:
            assert output != item.right


@pytest.mark.parametrize("task", ["reasoning", "question_answering"])
def test_a_fifth_offers_four_options_one_of_them_right(task: str) -> None:
    sent = [item for item in write_items(task, 3000, random.Random(8), 0.3) if item.output is not None]
    found = [(item, *choice_of(item)) for item in sent if choice_of(item)[0]]
    assert abs(len(found) / len(sent) - 0.2) < 0.03
    for item, offered, letter, text in found:
        assert list(offered) == ["الف", "ب", "ج", "د"] and len(set(offered.values())) == 4, item.instruction
        assert list(offered.values()).count(item.right or "") == 1
        if item.fault is None:
            assert offered[letter] == text == item.right
            assert item.solution == f"({letter}) {text}"
        if item.fault == "wrong_choice":
            assert letter in offered and text in offered.values() and offered[letter] != text
        if item.fault == "choice_outside":
            assert letter not in offered and text == item.right
        if item.fault == "wrong_fact":
            assert offered[letter] == text != item.right
    assert len({letter for item, _, letter, _ in found if item.fault is None}) == 4


def test_each_language_and_task_has_its_faults() -> None:
    for language, makers in offline_items.MAKERS.items():
        for task in makers:
            sent = write_items(task, 200, random.Random(1), 0.5, language)
            faults = Counter(item.fault for item in sent if item.shape == "whole")
            assert {item.language for item in sent} == {language} and 0.35 < faults.pop(None) / 170 < 0.65, (language, task)
            assert faults and all(item.output != item.right for item in sent if item.fault in ("wrong_label", "mistranslation"))


def test_without_a_fault_rate_everything_is_right_and_whole() -> None:
    for task in MAKERS:
        assert {(item.fault, item.shape) for item in write_items(task, 300, random.Random(0), 0.0)} == {(None, "whole")}


def made(task: str, count: int, seed: int) -> list[Item]:
    rng = random.Random(f"{task} {seed}")
    return [make_item(task, rng) for _ in range(count)]


@pytest.mark.parametrize("task", MAKERS)
def test_items_are_short_urdu_and_in_the_right_letters(task: str) -> None:
    limit = {"generation": 50, "ethics": 60}.get(task, 25)
    for item in made(task, 500, 1):
        assert len(item.output.split()) <= limit, item.output
        text = item.instruction + item.output
        assert not re.search("[\u0643\u0647\u0649\u064a\u0629\u06d5\u0660-\u0669\u06f0-\u06f9]", text), text
        assert "  " not in text and not re.search(r"[{}|]| [۔،؟]", text), text
        if task != "translation":
            assert script_share(text) == 1.0, text


def solved(question: str) -> str:
    """The answer of a word problem, read off its words and numbers without the grammar's help."""
    n = [int(number) for number in re.findall(r"\d+", question)]
    if "سب سے" in question:
        first, third = re.search(r"(\w+) نے \w+ سے زیادہ", question), re.search(r"نے (\w+) سے زیادہ۔", question)
        assert first and third
        return first[1] if "سب سے زیادہ" in question else third[1]
    rules = {
        "اور لا کر": lambda: n[0] + n[1], "رہ گئے": lambda: n[0] - n[1], "رہ گئیں": lambda: n[0] - n[1],
        "۔ ہر": lambda: n[0] // n[1] if "برابر" in question else n[0] * n[1], "کل کتنے روپے": lambda: n[0] * n[1],
        "خرچ کیے": lambda: n[0] - n[1] - n[2], "کی عمر کتنی": lambda: n[0] + n[1] - n[2], "اگلا عدد": lambda: n[3] + n[1] - n[0],
    }  # fmt: skip
    return str(next(rule() for words, rule in rules.items() if words in question))


def test_the_answer_follows_from_the_question() -> None:
    items = made("reasoning", 1000, 2)
    assert all(arithmetic_is_right(item.output) for item in items)
    for item in items:
        answer = re.sub(r"^\(\w+\) ", "", item.output.splitlines()[-1].removeprefix("جواب: ")).split()[0]
        assert answer == solved(item.instruction) == item.right, (item.instruction, item.output)


def novel(items: list[Item]) -> int:
    """How many of them the pool of the instructions before them lets through."""
    pool = RougePool()
    for number, item in enumerate(items):
        if pool.match(item.instruction).accepted:
            pool.add(str(number), item.instruction)
    return len(pool)


@pytest.mark.parametrize("task", MAKERS)
def test_most_of_the_first_300_of_a_task_survive_the_novelty_filter(task: str) -> None:
    assert novel(made(task, 300, 3)) >= 0.6 * 300


def test_most_of_the_first_1500_of_all_tasks_survive_one_pool() -> None:
    assert novel([item for task in MAKERS for item in made(task, 215, 4)][:1500]) >= 0.5 * 1500


def test_right_ethics_answers_fit_their_claims() -> None:
    """No vaccine is called dangerous, and who hears of another's despair is told to stay with that person."""
    items = made("ethics", 3000, 6)
    vaccine = [item for item in items if re.search("پولیو|ویکسین|ٹیک", item.instruction)]
    despair = [item for item in items if re.search("جینے|مر جانا|زخمی کرنے", item.instruction)]
    assert len(vaccine) > 100 and len(despair) > 100
    assert not [item.output for item in vaccine if "خطرناک" in item.output or "محفوظ ہیں" not in item.output]
    assert not [item.output for item in despair if "اکیلا نہ چھوڑیں" not in item.output]
    assert not [item.instruction for item in despair if "کہا جائے" in item.instruction]
    assert not [item.output for item in despair if re.search("جلدی نہ کریں|قانون|آسان لگتی", item.output)]


def test_both_labels_and_both_directions_are_balanced() -> None:
    assert min(Counter(item.output for item in made("sentiment", 600, 5)).values()) > 150
    assert len(Counter(item.output for item in made("classification", 600, 5))) == 6
    into_english = sum(script_share(item.output, "Latin") > 0.5 for item in made("translation", 600, 5))
    assert 240 < into_english < 360
