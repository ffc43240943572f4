"""The offline teacher as a judge: its verdicts against the hidden truth, its errors at their rates, the same after a restart."""

import json
import random
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest

from data_gen.offline.bilingual import sentence_pair
from data_gen.offline.http import RequestError
from data_gen.offline.items import MAKERS, Sent, write_items
from data_gen.offline.judge import Manners, Memory, remember
from data_gen.offline.more import TRANSLATIONS
from data_gen.offline.teacher import MODEL, Server, complete, serve

EXACT = Manners(seed=0, fault_rate=0.0, judge_error=0.0, solve_error=0.0)


def sent(task: str, count: int, rate: float = 0.4, language: str = "ur") -> list[Sent]:
    items = write_items(task, count, random.Random(f"{task} {language}"), rate, language)
    return [item for item in items if item.output is not None]


def known(*lists: list[Sent]) -> Memory:
    memory = Memory()
    for items in lists:
        remember(memory, items)
    return memory


def block(item: Sent, check: str) -> str:
    if check == "back_translate":
        return f"Into: {'Urdu' if item.output is not None and item.output.isascii() else 'English'}\nText: {item.output}"
    lines = [f"Instruction: {item.instruction}"] + ([f"Input: {item.input}"] if item.input else [])
    return "\n".join(lines if check == "solve" else [*lines, f"Output: {item.output}"])


def request(check: str, blocks: list[str], sample: int = 1, language: str = "Urdu (ur)", **more: Any) -> dict[str, Any]:
    """As the recipe asks; the instructions show the form of the reply, as they may."""
    head = f"Check: {check}\nLanguage: {language}\nSample: {sample}\nBelow are examples. Form of the reply:\n### 1\n5\n"
    text = head + "".join(f"\n### {number}\n{text}" for number, text in enumerate(blocks, start=1))
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def read(reply: dict[str, Any]) -> dict[int, str]:
    """By the reader's own rule: a line of three signs and a number, then the verdict."""
    parts = re.split(r"^### (\d+)\n", reply["choices"][0]["message"]["content"], flags=re.MULTILINE)
    return {int(number): text.rstrip("\n") for number, text in zip(parts[1::2], parts[2::2], strict=True)}


def judged(check: str, items: list[Sent], memory: Memory, manners: Manners = EXACT, **more: Any) -> list[str | None]:
    """A verdict (None: left out) an item, asked 50 at a time."""
    verdicts: list[str | None] = []
    for start in range(0, len(items), 50):
        part = items[start : start + 50]
        body = json.dumps(request(check, [block(item, check) for item in part], **more)).encode()
        said = read(complete(body, manners, memory)[0])
        verdicts += [said.get(number) for number in range(1, len(part) + 1)]
    return verdicts


@pytest.mark.parametrize("language", sorted(MAKERS))
def test_a_judge_without_errors_knows_each_fault_of_each_task(language: str) -> None:
    for task in MAKERS[language]:
        items = sent(task, 60, language=language)
        named = f"Any ({language})"
        marks = judged("quality", items, known(items), language=named)
        assert all((int(mark or 0) >= 4) == (item.fault is None) for mark, item in zip(marks, items, strict=True)), task
        assert {mark for mark in marks} == {"1", "2", "4", "5"}
        passes = judged("ethics", items, known(items), language=named)
        assert passes == ["pass" if item.fault is None else "fail" for item in items]


def test_errors_come_at_their_rate_by_item_and_sample_and_again_the_same() -> None:
    items = sent("classification", 3000)
    memory, noisy = known(items), Manners(seed=1, fault_rate=0.0, judge_error=0.1)
    first, again, second = (judged("quality", items, memory, noisy, sample=sample) for sample in (1, 1, 2))
    assert first == again != second
    wrong = [(int(mark or 0) >= 4) != (item.fault is None) for mark, item in zip(first, items, strict=True)]
    other = [(int(mark or 0) >= 4) != (item.fault is None) for mark, item in zip(second, items, strict=True)]
    assert abs(statistics.mean(wrong) - 0.1) < 0.025 and abs(statistics.mean(other) - 0.1) < 0.025
    assert statistics.mean(a and b for a, b in zip(wrong, other, strict=True)) < 0.03
    assert judged("quality", items[:50], memory, Manners(2, 0.0, 0.1)) != first[:50]


def test_solutions_are_right_but_for_their_error() -> None:
    items = [item for task in ("reasoning", "question_answering") for item in sent(task, 1500)]
    memory = known(items)
    for item, answer in zip(items, judged("solve", items, memory), strict=True):
        assert answer is not None and item.right is not None
        chosen = re.search(rf"\({answer}\) (.+?)(?= \(|$)", item.instruction)
        assert chosen[1] == item.right if chosen else item.right in answer.split() or item.right == answer
    solve = Manners(0, 0.0, solve_error=0.2)
    samples = [judged("solve", items, memory, solve, sample=sample) for sample in (1, 2, 3)]
    right = judged("solve", items, memory)
    misses = [[own != given for own, given in zip(right, sample, strict=True)] for sample in samples]
    assert all(abs(statistics.mean(miss) - 0.2) < 0.04 for miss in misses)
    assert abs(statistics.mean(a and b for a, b in zip(misses[0], misses[1], strict=True)) - 0.04) < 0.02, "independent"
    wrong = [(item, answer) for item, answer, miss in zip(items, samples[0], misses[0], strict=True) if miss]
    for item, answer in wrong:  # a letter or a name that stands in the question too, or another fact
        assert answer != "معلوم نہیں" and ((item.solution or "")[0] != "(" or f"({answer}) " in item.instruction)
    sums = [(item, answer) for item, answer in wrong if item.solution and item.solution[0].isdigit()]
    assert sums and all(re.sub(r"\d+", "0", answer or "") == re.sub(r"\d+", "0", item.solution or "") for item, answer in sums)


def test_translations_back_keep_the_sense_and_a_third_the_words_not() -> None:
    items = [item for item in sent("translation", 1500) if item.fault != "wrong_language"]
    backs = judged("back_translate", items, known(items))
    sources = [next(a if b == item.output else b for a, b in item.pairs if item.output in (a, b)) for item in items]
    changed = [back != source for back, source in zip(backs, sources, strict=True)]
    assert 0.25 < statistics.mean(changed) < 1 / 3 + 0.03
    for item, back, source in zip(items, backs, sources, strict=True):
        assert (source in item.instruction) == (item.fault is None)
        assert back is not None and abs(len(back.split()) - len(source.split())) <= 3
        shared = set(re.findall(r"\w+", back.casefold())) & set(re.findall(r"\w+", source.casefold()))
        assert len(shared) >= 0.6 * len(set(re.findall(r"\w+", source.casefold()))), (source, back)


def test_chrf_of_translations_back_tells_right_from_wrong() -> None:
    """Over all bounds from 45 to 65: the check that is built on it can be measured."""
    chrf = pytest.importorskip("sacrebleu").CHRF()
    rng = random.Random(0)
    misses = []
    for _ in range(400):
        pair, _ = sentence_pair(rng)
        misses.append(chrf.sentence_score(pair.urdu_miss, [pair.urdu]).score)
    items = [item for item in sent("translation", 400, rate=0.0)]
    backs = judged("back_translate", items, known(items))
    rights = [
        chrf.sentence_score(back or "", [next(a if b == item.output else b for a, b in item.pairs if item.output in (a, b))]).score
        for item, back in zip(items, backs, strict=True)
    ]
    assert statistics.mean(score >= 65 for score in rights) > 0.98 and statistics.mean(score < 45 for score in misses) > 0.95


def test_what_was_never_sent() -> None:
    stranger = Sent("ethics", "کیا آج بارش ہو گی؟", "", "معلوم نہیں، آسمان دیکھیں۔", None, None)
    memory = known(sent("ethics", 20))
    assert judged("quality", [stranger], memory) == ["3"] and judged("ethics", [stranger], memory) == ["pass"]
    assert judged("solve", [stranger], memory) == ["معلوم نہیں"]
    assert judged("back_translate", [stranger], memory) == ["malom nhin, dikhin."]


def test_letters_and_blanks_that_a_reader_puts_in_order_do_not_matter() -> None:
    items = sent("generation", 30)
    typed = [
        Sent(item.task, item.instruction.replace("ی", "ي") + "\u200f ", "", f" {item.output}  ".replace("ک", "ك"), None, None)
        for item in items
    ]
    assert judged("quality", typed, known(items)) == judged("quality", items, known(items))


def test_blocks_are_left_out_at_a_fifth_of_the_fault_rate() -> None:
    items = sent("sentiment", 3000)
    left = [mark is None for mark in judged("quality", items, known(items), Manners(0, 0.25, 0.0))]
    assert abs(statistics.mean(left) - 0.05) < 0.015


def english(count: int) -> list[dict[str, str]]:
    texts = sorted(TRANSLATIONS)
    return [{"instruction": text, "input": "", "output": texts[-1 - place]} for place, text in enumerate(texts[:count])]


def translate(items: list[dict[str, str]], form: str = "tagged", **more: Any) -> bytes:
    head = f"Task: translated\nLanguage: Urdu (ur)\nTranslate exactly {len(items)} items from English into Urdu.\n"
    form_block = "###\nInstruction: the instruction\nInput: <noinput>\nOutput: the answer\n\nItems to translate:\n"
    shown = [f"###\nInstruction: {i['instruction']}\nInput: {i['input'] or '<noinput>'}\nOutput: {i['output']}" for i in items]
    lines = shown if form == "tagged" else [json.dumps(item, ensure_ascii=False) for item in items]
    messages = [{"role": "user", "content": head + form_block + "\n".join(lines)}]
    return json.dumps({"model": MODEL, "messages": messages, **more}).encode()


@pytest.mark.parametrize("form", ["tagged", "json"])
def test_english_items_are_translated_in_order(form: str) -> None:
    shown = english(min(20, len(TRANSLATIONS) - 1))
    text, items = complete(translate(shown, form), EXACT)
    assert [item.instruction for item in items] == [TRANSLATIONS[item["instruction"]] for item in shown]
    assert [item.output for item in items] == [TRANSLATIONS[item["output"]] for item in shown]
    assert {(item.task, item.fault, item.shape) for item in items} == {("translated", None, "whole")}
    assert text["choices"][0]["message"]["content"].count("###\n") == len(shown)
    asked = [Sent("", "", "", f"{item.instruction}\n{item.output}", None, None) for item in items]
    backs = judged("back_translate", asked, known(items))
    wholes = [f"{item['instruction']}\n{item['output']}" for item in shown]
    assert sum(back == whole for back, whole in zip(backs, wholes, strict=True)) >= len(shown) / 2


def test_translations_go_wrong_at_their_rate_and_unknown_ones_always() -> None:
    shown = (english(len(TRANSLATIONS) - 1) * 200)[:400]
    _, items = complete(translate(shown), Manners(0, 0.3))
    faults = Counter(item.fault for item in items if item.shape == "whole")
    assert set(faults) == {None, "mistranslation"} and 0.2 < faults["mistranslation"] / faults.total() < 0.4
    for item, original in zip(items, shown, strict=True):
        told = (TRANSLATIONS[original["instruction"]], item.right)
        same = [mine == its for mine, its in zip((item.instruction, item.output), told, strict=True)]
        assert item.shape == "malformed" or same == [item.fault is None] * 2
    marks = judged("quality", [item for item in items if item.output], known(items))
    assert set(marks) == {"1", "2", "4", "5"}
    _, (odd,) = complete(translate([{"instruction": "Sing.", "input": "", "output": "A song in three words."}]), EXACT)
    assert (odd.fault, odd.right, odd.output) == ("transliterated", None, "ا سونگ تہرےے ووردس۔")
    assert judged("back_translate", [odd], known([odd])) == ["a song oords."]


def ask(server: Server, **fields: Any) -> str:
    with openai.OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
        return client.chat.completions.create(**fields).choices[0].message.content or ""


def test_a_server_remembers_what_it_sent_also_after_a_restart(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    write = {"model": MODEL, "messages": [{"role": "user", "content": "Task: reasoning\nWrite exactly 40 new items"}]}
    options = {"seed": 0, "fault_rate": 0.4, "judge_error": 0.0, "truth_file": str(truth)}
    with serve(**options) as server:  # type: ignore[arg-type]
        ask(server, **write)
        rows = [json.loads(line) for line in truth.read_text(encoding="utf-8").splitlines()]
        items = [Sent("", row["instruction"], row["input"], row["output"], row["fault"], None) for row in rows if row.get("output")]
        questions = [request(check, [block(item, check) for item in items]) for check in ("quality", "ethics", "solve")]
        first = [ask(server, **question) for question in questions]
    with truth.open("a", encoding="utf-8") as file:
        file.write('{"item": 1, "ta')  # a server that was killed
    with serve(**options) as server:  # type: ignore[arg-type]
        assert [ask(server, **question) for question in questions] == first
        ask(server, **write, seed=2)
    marks = read({"choices": [{"message": {"content": first[0]}}]})
    assert len(marks) > 0.8 * len(items)
    assert all((int(mark) >= 4) == (items[number - 1].fault is None) for number, mark in marks.items())
    lines = truth.read_text(encoding="utf-8").splitlines()
    assert lines.count('{"item": 1, "ta') == 1 and sum("answered" in line for line in lines) == 8
    with serve(seed=0, fault_rate=0.4) as server:
        assert set(re.findall(r"^(\d)$", ask(server, **questions[0]), re.MULTILINE)) == {"3"}


@pytest.mark.parametrize("fault", ["length", "wrong_language", "identical", "huge"])
def test_faults_of_whole_replies_hit_judgements_too(fault: str) -> None:
    items = sent("sentiment", 10)
    body = json.dumps(request("quality", [block(item, "quality") for item in items], max_tokens=1000)).encode()
    whole = complete(body, EXACT, known(items))[0]["choices"][0]["message"]["content"]
    reply = complete(body, EXACT, known(items), fault)[0]
    text, finish = reply["choices"][0]["message"]["content"], reply["choices"][0]["finish_reason"]
    assert (finish == "length") == (fault == "length") and reply["usage"]["completion_tokens"] <= 1000
    if fault == "length":
        assert whole.startswith(text) and 0 < len(text) < len(whole)
    elif fault == "wrong_language":
        assert len(read(reply)) == len(items) and not re.search(r"^\d", text, re.MULTILINE)
    elif fault == "identical":
        assert text.count("### 1\n") == 20 == text.count("###")
    else:
        assert 5_000_000 <= len(text.encode()) < 5_500_000 and len(read(reply)) == len(items)


def test_a_judgement_is_cut_by_max_tokens_and_is_never_json() -> None:
    items = sent("sentiment", 20)
    fields = request("quality", [block(item, "quality") for item in items])
    reply = complete(json.dumps({**fields, "max_tokens": 10}).encode(), EXACT, known(items))[0]
    assert reply["choices"][0]["finish_reason"] == "length" and reply["usage"]["completion_tokens"] == 10
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    with pytest.raises(RequestError, match="verdicts as text"):
        complete(json.dumps({**fields, "response_format": schema}).encode(), EXACT)
