"""Other people's clients, and our own, against the whole server: lm_eval, data_gen's teacher, a thousand requests at once."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import aiohttp
import jax
import lm_eval
import pytest
import yaml
from lm_eval.tasks import TaskManager

from alif_jax.generate import Generation, generate
from alif_jax.load import Loaded, load_model
from alif_jax.serve.app import make_app
from alif_jax.serve.connections import bind, make_server
from alif_jax.serve.engine import Engine, QueueFull, Sampling, Ticket, Update
from alif_jax.sharding import MeshConfig, make_mesh
from data_gen.account import Account
from data_gen.endpoint import Endpoint, TeacherConfig
from data_gen.journal import open_journal
from data_gen.limits import Usage
from data_gen.prompt import reply_choice, reply_usage
from data_gen.record import canonical_json
from data_gen.teacher import Teacher
from tests import tiny

MODEL, MAX_LENGTH, NEW = "tiny", 64, 4
PROMPTS = tiny.sentences(96, words=4)  # all of one padded length, in whole batches: `generate` is compiled once
CHAT = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end_of_turn|>{% endfor %}"
CHAT += "{% if add_generation_prompt %}<|assistant|>{% endif %}"


class Busy:
    """The engine, but that its queue is full for the next `refusals` requests."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.refusals = engine, 0
        self.stats, self.embed, self.cancel, self.stop = engine.stats, engine.embed, engine.cancel, engine.stop

    def submit(self, model: str, ids: Sequence[int], sampling: Sampling, listener: Callable[[Update], None]) -> Ticket:
        if self.refusals:
            self.refusals -= 1
            raise QueueFull(0.9)
        return self._engine.submit(model, ids, sampling, listener)


@dataclass(frozen=True)
class Served:
    """A server in this process. loaded: what it serves; answers: what `generate` says to PROMPTS."""

    url: str
    loaded: Loaded
    engine: Busy
    answers: list[Generation]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    base = tiny.make_base(tmp_path_factory.mktemp("base"), chat_template=CHAT)
    loaded = load_model(base, make_mesh(MeshConfig(fsdp=1), jax.devices()[:1]))
    engine = Engine({MODEL: loaded}, batch_size=8, max_length=MAX_LENGTH, max_queue=1024)
    engine.warm_up()
    engine.start()
    busy = Busy(engine)
    app = make_app(cast(Engine, busy), {MODEL: loaded.tokenizer}, max_length=MAX_LENGTH, max_queue=1024)
    bound = bind("127.0.0.1", 0)
    bound.listen(2048)
    server = make_server(app, max_connections=2048)
    thread = threading.Thread(target=server.run, args=([bound],))
    thread.start()
    answers = generate(loaded, PROMPTS, max_new_tokens=NEW)
    assert len({answer.text for answer in answers}) > 64  # a mix-up shows
    yield Served(f"http://127.0.0.1:{bound.getsockname()[1]}/v1", loaded, busy, answers)
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


# --- lm_eval


def make_task(place: Path, prompts: Sequence[str], targets: Sequence[str]) -> TaskManager:
    """A task of this machine alone: `generate_until` on two columns of a file, scored by exact match."""
    lines = [json.dumps({"question": q, "answer": a}, ensure_ascii=False) for q, a in zip(prompts, targets, strict=True)]
    (place / "data.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = {
        "task": "served", "dataset_path": "json", "test_split": "test", "output_type": "generate_until",
        "dataset_kwargs": {"data_files": {"test": str(place / "data.jsonl")}, "cache_dir": str(place / "cache")},
        "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": NEW, "do_sample": False, "temperature": 0.0},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (place / "served.yaml").write_text(yaml.safe_dump(task, allow_unicode=True), encoding="utf-8")
    return TaskManager(include_path=str(place), include_defaults=False)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "path", "raw"), [("local-chat-completions", "chat/completions", False),
                                                   ("local-completions", "completions", True)])  # fmt: skip
def test_lm_eval_reads_the_answers_of_generate(served: Served, tmp_path: Path, kind: str, path: str, raw: bool) -> None:
    prompts = PROMPTS[:16]
    expected = generate(served.loaded, prompts, max_new_tokens=NEW, raw=True) if raw else served.answers[:16]
    answers = [answer.text.split("\n\n")[0] for answer in expected]
    targets = [answer if idx % 2 else "کچھ اور" for idx, answer in enumerate(answers)]
    arguments = {"model": MODEL, "base_url": f"{served.url}/{path}", "num_concurrent": 4, "max_retries": 1,
                 "tokenizer_backend": "none", "tokenized_requests": False}  # fmt: skip
    found = lm_eval.simple_evaluate(
        model=kind, model_args=arguments, tasks=["served"], apply_chat_template=not raw, bootstrap_iters=0,
        task_manager=make_task(tmp_path, prompts, targets),
    )  # fmt: skip
    assert found is not None
    samples = sorted(found["samples"]["served"], key=lambda sample: sample["doc_id"])
    assert [sample["resps"][0][0] for sample in samples] == answers
    assert found["results"]["served"]["exact_match,none"] == 0.5


# --- data_gen's own client


def ask_as_teacher(served: Served, workdir: Path, prompts: Sequence[str]) -> list[str]:
    """The raw replies, of requests that go out together, as a data recipe asks them."""
    config = TeacherConfig(base_url=served.url, model=MODEL, terms="https://example.com allowed for tests", backoff_s=0.01)

    async def ask() -> list[str | None]:
        with open_journal(str(workdir)) as journal:
            async with Endpoint(config, served.url) as endpoint:
                teacher = Teacher(endpoint, journal, Account(config, journal, None), answered_before=False)
                requests = [journal.plan(idx, body(prompt), {}, served.url) for idx, prompt in enumerate(prompts)]
                replies = await asyncio.gather(*map(teacher.ask, requests))
                await journal.committed()
                return replies

    replies = asyncio.run(ask())
    assert all(replies)
    return cast(list[str], replies)


def body(prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    return canonical_json({"model": MODEL, "messages": messages, "max_tokens": NEW, "seed": 7, "temperature": 0})


def test_the_data_recipes_client_books_what_the_server_counted(served: Served, tmp_path: Path) -> None:
    replies, expected = ask_as_teacher(served, tmp_path, PROMPTS[:6]), served.answers[:6]
    encode, render = served.loaded.tokenizer.encode, served.loaded.tokenizer.render
    for prompt, reply, one in zip(PROMPTS[:6], replies, expected, strict=True):
        asked = len(encode(render([{"role": "user", "content": prompt}], add_generation_prompt=True)))
        assert reply_choice(reply) == (one.text, one.finish_reason)
        assert reply_usage(reply) == Usage(asked, len(one.token_ids))
    with open_journal(str(tmp_path)) as journal:
        usage, _ = journal.spent()
    assert usage == sum((reply_usage(reply) or Usage() for reply in replies), Usage())


def test_the_data_recipes_client_waits_as_long_as_a_full_queue_says(served: Served, tmp_path: Path) -> None:
    served.engine.refusals = 3
    replies = ask_as_teacher(served, tmp_path, PROMPTS[:4])
    assert [reply_choice(reply)[0] for reply in replies] == [one.text for one in served.answers[:4]]
    db = sqlite3.connect(tmp_path / "journal.sqlite")
    columns = "idx, sent_at, ended_at, prompt_tokens + completion_tokens, error"
    attempts = db.execute(f"SELECT {columns} FROM attempt ORDER BY idx, number").fetchall()
    db.close()
    refused = {idx: (ended, tokens, error) for idx, _, ended, tokens, error in attempts if error}
    answered = {idx: sent for idx, sent, _, _, error in attempts if not error}
    assert len(attempts) == 7 and len(refused) == 3 and len(answered) == 4
    assert all("429" in error and "queue is full" in error and not tokens for _, tokens, error in refused.values())
    assert all(answered[idx] - ended > 0.99 for idx, (ended, _, _) in refused.items())  # Retry-After is in whole seconds


# --- many at once


def test_a_thousand_requests_at_once_and_none_is_lost(served: Served) -> None:
    """From as many connections."""
    count, expected = 1000, [served.answers[idx % len(PROMPTS)] for idx in range(1000)]

    async def one(session: aiohttp.ClientSession, idx: int) -> dict[str, Any]:
        content = body(PROMPTS[idx % len(PROMPTS)]).encode()
        async with session.post(f"{served.url}/chat/completions", data=content) as reply:
            assert reply.status == 200, await reply.text()
            answer: dict[str, Any] = await reply.json()
            return answer

    async def run() -> list[dict[str, Any]]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            return await asyncio.gather(*(one(session, idx) for idx in range(count)))

    before = served.engine.stats()
    answers = asyncio.run(run())
    choices = [answer["choices"][0] for answer in answers]
    assert [choice["message"]["content"] for choice in choices] == [one.text for one in expected]
    assert [choice["finish_reason"] for choice in choices] == [one.finish_reason for one in expected]
    assert len({answer["id"] for answer in answers}) == count
    after = served.engine.stats()
    tokens = sum(len(one.token_ids) for one in expected)
    assert after.generated_tokens - before.generated_tokens == tokens == sum(a["usage"]["completion_tokens"] for a in answers)
    assert (after.waiting, after.running) == (0, 0)
    assert sum(after.finished.values()) - sum(before.finished.values()) == count
