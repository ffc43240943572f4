"""A small chat-completions server for tests: scripted answers (faults) first, then items of random Urdu words.

Its items are a function of the request's bytes, how long it takes is not. It is no model of a teacher: only its protocol.
"""

import hashlib
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LETTERS = "ا ب پ ت ج چ د ر ز س ش ف ک گ ل م ن و ہ ی".split()
LATIN = "a b d e g i k l m n o r s t u".split()
LABELS = ["مثبت", "منفی", "غیر جانبدار"]


@dataclass
class Answer:
    """One scripted answer, sent after `wait_s` seconds; `body` None closes the connection without a word."""

    status: int = 200
    body: str | None = ""
    headers: dict[str, str] = field(default_factory=dict)
    wait_s: float = 0.0


def completion(content: str, finish_reason: str = "stop") -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}, ensure_ascii=False)


def block(instruction: str, output: str) -> str:
    return f"###\nInstruction: {instruction}\nInput: <noinput>\nOutput: {output}"


def items_for(body: bytes, wrong: float) -> str:
    """As many blocks as the request asks for, the same for the same bytes; a share `wrong` is English, 5 % come twice."""
    user = json.loads(body)["messages"][-1]["content"]
    if user.startswith("Check: "):
        return verdicts_for(user)
    rng = random.Random(hashlib.sha256(body).hexdigest())
    task = user.splitlines()[0].removeprefix("Task: ")
    found = re.search(r"\b(\d+)\b", user)
    assert found, "the prompt names the number of items"

    def words(count: int, letters: list[str] = LETTERS) -> str:
        return " ".join("".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(count))

    blocks = []
    for _ in range(int(found[1])):
        closed = task in ("classification", "sentiment")
        instruction = f"{words(rng.randint(5, 12))} ({'، '.join(LABELS)})" if closed else words(rng.randint(5, 12))
        output = rng.choice(LABELS) if closed else words(rng.randint(5, 30))
        if task == "translation":
            into_english = rng.random() < 0.5
            instruction = f"{'انگریزی' if into_english else 'اردو'} میں ترجمہ کریں: {words(8)}"
            output = words(10, LATIN) if into_english else output
        fault = rng.random()
        if fault < wrong:
            blocks.append(block(instruction, "This answer came in English."))
        elif fault < wrong + 0.05 and blocks:
            blocks.append(blocks[-1])
        else:
            blocks.append(block(instruction, output))
    return completion("\n".join(blocks))


def verdicts_for(user: str) -> str:
    """A mark for each numbered block: 2 for one in five, by its text alone, else 4; `fail` and `pass` likewise."""
    low, high = ("fail", "pass") if user.startswith("Check: ethics") else ("2", "4")
    parts = re.split(r"^### (\d+)$", user, flags=re.MULTILINE)[1:]
    marks = (low if hashlib.sha256(text.strip().encode()).digest()[0] < 51 else high for text in parts[1::2])
    return completion("\n".join(f"### {number}\n{mark}" for number, mark in zip(parts[::2], marks, strict=True)))


class LocalTeacher:
    """`with LocalTeacher() as teacher: … teacher.base_url`. `asked[body]` counts the requests that reached it."""

    def __init__(self, script: Iterable[Answer] = (), *, max_latency_s: float = 0.0, wrong: float = 0.05) -> None:
        self.script, self.max_latency_s = list(script), max_latency_s
        self.asked: Counter[bytes] = Counter()
        self.refuse_after: int | None = None  # requests, then one 401
        self.times: list[float] = []
        self.keys: list[str] = []
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None: ...

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    outer.asked[body] += 1
                    outer.times.append(time.monotonic())
                    outer.keys.append(self.headers["Authorization"])
                    answer = outer.script.pop(0) if outer.script else Answer(body=items_for(body, wrong))
                    if outer.refuse_after is not None:
                        outer.refuse_after -= 1
                        if outer.refuse_after < 0:
                            answer, outer.refuse_after = Answer(401), None
                time.sleep(answer.wait_s + random.uniform(0, outer.max_latency_s))
                if answer.body is None:
                    self.close_connection = True
                    return
                data = answer.body.encode()
                try:
                    self.send_response(answer.status)
                    for name, value in {"Content-Length": str(len(data)), **answer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):  # the client was killed meanwhile
                    self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "LocalTeacher":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()
