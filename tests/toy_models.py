"""Models of the X-Instruction recipe made of rules, behind the real protocol: a run of all stages takes seconds. What they answer
is a function of the request and of what they were trained on, so that a second run gives the same.
"""

import hashlib
import json
import math
import random
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from alif_jax.data.tfrecord import read_manifest, read_records

NOUNS = (
    "rain bread school river market letter garden winter mango village doctor teacher bridge carpet poem festival train wheat "
    "cricket fever spice mountain library bicycle kite lamp salt honey camel tailor"
).split()
VERBS = "Explain Describe List Compare Suggest Tell Give Write".split()
LEVELS = {"A": 2, "B": 1, "C": 0}
RECIPES = ("generator", "forward", "evaluator", "sft")


def instruction_for(text: str, sample: str) -> str:
    """An English instruction, the same for the same text and sample; one in forty speaks of a text that is not there."""
    rng = random.Random(f"{text} {sample}")
    words = rng.sample(NOUNS, 6)
    said = f"{rng.choice(VERBS)} how {words[0]} and {words[1]} matter for {words[2]}, {words[3]}, {words[4]} and {words[5]}."
    return said if rng.random() < 0.975 else "Summarise the passage above in three lines."


class Toy:
    """As launch/children.py's Children. `asked` counts requests by model; `started` what was trained and served, in order.

    passes: the share of candidates that the rater finds good; logprobs: whether its server gives them; fail: called before every
    child and answer, to break one off; wrong: what the rater says of rating data and anchor instead of the truth.
    """

    def __init__(
        self, *, passes: float = 0.6, logprobs: bool = True, fail: Callable[[str], None] = lambda what: None, wrong: str = ""
    ) -> None:
        self.passes, self.logprobs, self.fail, self.wrong = passes, logprobs, fail, wrong
        self.asked: Counter[str] = Counter()
        self.started: list[str] = []

    def resolve(self, recipes: Iterable[str]) -> dict[str, dict[str, Any]]:
        return {recipe: {"recipe": recipe} for recipe in recipes}

    def train(self, recipe: str, overrides: Mapping[str, str], workdir: str) -> None:
        name = Path(workdir).parent.name
        self.fail(f"train {name}")
        self.started.append(f"train {name}")
        steps = int(overrides.get("max_steps", 0)) or read_manifest(overrides["data.path"])["counts"]["train"]["records"]
        Path(workdir).mkdir(parents=True, exist_ok=True)
        Path(workdir, "metrics.jsonl").write_text(json.dumps({"step": steps, "loss": 1.0}) + "\n")
        Path(workdir, "config.json").write_text(json.dumps({"recipe": recipe, **overrides}))

    @contextmanager
    def serve(self, model: str, name: str, batch_size: int) -> Iterator[str]:
        self.fail(f"serve {name}")
        self.started.append(f"serve {name}")
        known = trained_on(model) if name == "evaluator" else {}
        with served(lambda body: self._reply(name, body, known)) as url:
            yield url

    def answers(self, data: str) -> Iterator[str]:
        for record in read_records(data, "train"):
            yield from (message["content"] for message in record.messages or () if message["role"] == "assistant")

    def evaluate(self, model: str, data: str) -> dict[str, Any]:
        languages = read_manifest(data)["counts"]["heldout"]["language"]
        return {"bits_per_byte": 1.5, "loss": 3.0, "by_language": {code: {"bits_per_byte": 1.5, "loss": 3.0} for code in languages}}

    def tiny_base(self, directory: str, texts: Iterable[str]) -> None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        Path(directory, "config.json").write_text(json.dumps({"texts": sum(1 for _ in texts)}))

    def _reply(self, name: str, body: dict[str, Any], known: Mapping[str, str]) -> dict[str, Any]:
        self.fail(f"ask {name}")
        self.asked[name] += 1
        asked = body["messages"][-1]["content"]
        if name == "generator":
            return answer(instruction_for(asked, str(body.get("seed"))))
        if name == "evaluator":
            return self._rating(asked, known, body)
        text = " ".join(asked.split()) + " "
        return answer((text * 8)[: 300 + len(asked)])

    def _rating(self, asked: str, known: Mapping[str, str], body: Mapping[str, Any]) -> dict[str, Any]:
        drawn = int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4]) / 2**32
        letter = known.get(asked) or ("A" if drawn < self.passes else "C")
        if asked in known and self.wrong:
            letter = self.wrong
        if body.get("logprobs") and not self.logprobs:
            raise PermissionError("logprobs are not supported")
        sure = 0.8 + 0.19 * drawn if asked not in known else 0.98
        shares = {other: sure if other == letter else (1 - sure) / 2 for other in LEVELS}
        found = [{"token": other, "logprob": math.log(share)} for other, share in shares.items()]
        return answer(letter, logprobs={"content": [{"token": letter, "logprob": math.log(sure), "top_logprobs": found}]})


def trained_on(model: str) -> dict[str, str]:
    """Question → letter, of both sides of what the rater was trained on; and of the shipped anchor."""
    from data_gen.languages import load_pack
    from data_gen.x_instruction import rating, seed

    data = json.loads(Path(model, "config.json").read_text())["data.path"]
    known = {}
    for side in ("train", "heldout"):
        for record in read_records(data, side):
            assert record.messages
            known[record.messages[0]["content"]] = record.messages[1]["content"]
    for code in ("ur", "hi"):
        pack = load_pack(code)
        for row in seed.read_pairs(["sample"], "anchor", [code])[code]:
            [question] = rating.question(row["instruction"], pack.normalise(row["response"]), pack)
            known[question["content"]] = rating.LEVELS[row["rating"]]
    return known


def answer(text: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}
    return {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 9}}


@contextmanager
def served(reply: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[str]:
    """The URL of a server that answers by `reply`; PermissionError is a request that it refuses (400)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *args: object) -> None: ...

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                status, said = 200, reply(body)
            except PermissionError as error:
                status, said = 400, {"error": {"message": str(error)}}
            data = json.dumps(said, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except OSError:  # the client was killed meanwhile
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def translation(body: dict[str, Any]) -> dict[str, Any]:
    """A teacher that translates: it knows the shipped pairs by their letters, and gives the text back with a word before it."""
    asked = body["messages"][-1]["content"]
    found = re.match(r"Translate the text into (\w+)\.", asked)
    assert found
    text = asked.split("\n\n", 1)[1]
    return answer(
        {"Urdu": f"یہ بات اردو میں لکھی گئی ہے کہ {text}", "English": text.removeprefix("یہ بات اردو میں لکھی گئی ہے کہ ")}.get(
            found[1], text
        )
    )
