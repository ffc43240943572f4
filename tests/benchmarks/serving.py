"""What launch/serve.py does a second: one request at a time, 32 at once, 1,000 queued, beside `generate` without a server.

    python tests/benchmarks/serving.py                     # the tiny model with random weights, made here
    python tests/benchmarks/serving.py --model=DIR/run     # a run or a Hugging Face directory

The server is a process of its own on the same cores as the client and `generate`, which take turns. All is greedy through the chat
template; every answer is compared with that of `generate`. Method and results: serving.md.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import aiohttp
import jax
import numpy as np
from safetensors.numpy import save_file

from alif_jax.chat_template import read_template
from alif_jax.generate import generate
from alif_jax.hf import hf_keys, read_model_config
from alif_jax.load import NOTHING_TRAINED, Loaded, load_model
from alif_jax.model import random_params, skeleton
from alif_jax.peft import in_file
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tiny_base import make_tiny_base
from alif_jax.tokenizer import load_tokenizer
from data_gen.text.shipped import text_records

ROOT = Path(__file__).resolve().parents[2]
IN_FLIGHT, QUEUED_TOKENS, WORDS = 32, 16, 24


def make_model(place: str) -> None:
    """The quickstart's tokenizer and architecture with random weights that never write a stop token."""
    make_tiny_base(place, (record.text or "" for record in text_records("ur")), vocab_size=2048)
    Path(place, "chat_template.jinja").write_text(read_template("turns"), encoding="utf-8")
    config, tokenizer = read_model_config(place), load_tokenizer(place)
    names = tuple(skeleton(config, NOTHING_TRAINED).shapes)
    params = {name: np.array(array) for name, array in random_params(config, NOTHING_TRAINED, jax.random.key(0), names).items()}
    params["lm_head.kernel"][:, list(tokenizer.stop_ids)] = 0  # logit 0, which is never the largest of 2,048
    tensors = {
        key: np.ascontiguousarray(in_file(name, layer, array, config))
        for name, array in params.items()
        for layer, key in enumerate(hf_keys(name, config.num_hidden_layers))
    }
    save_file(tensors, Path(place, "model.safetensors"))


def prompts_of(count: int) -> list[str]:
    """Different prompts of 24 Urdu words, about 36 tokens with the template."""
    words = [word for record in text_records("ur") for word in (record.text or "").split()]
    return [" ".join(words[start : start + WORDS]) for start in range(0, 7 * count, 7)]


@contextmanager
def server(model: str, batch_size: int) -> Iterator[str]:
    """launch/serve.py as a child; ends by SIGTERM, and must then end well."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "launch" / "serve.py"), f"--model={model}", f"--port={port}"]
    process = subprocess.Popen([*command, f"--batch_size={batch_size}"], stdout=sys.stderr)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        yield url
        process.terminate()
        if process.wait(60):
            raise SystemExit(f"the server ended with exit code {process.returncode} after SIGTERM")
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise SystemExit(f"the server ended with exit code {process.returncode} before it answered")


class Client:
    """Chat completions of one model by aiohttp, the answer's text and how many tokens it has."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str) -> None:
        self.session, self.url, self.model = session, url, model

    def body(self, prompt: str, new_tokens: int, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, "max_tokens": new_tokens, "temperature": 0, **more}

    async def ask(self, prompt: str, new_tokens: int) -> tuple[str, int]:
        async with self.session.post(f"{self.url}/v1/chat/completions", json=self.body(prompt, new_tokens)) as reply:
            answer = json.loads(await reply.read())
            if reply.status != 200:
                raise SystemExit(f"HTTP {reply.status}: {answer}")
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    async def ask_all(self, prompts: Sequence[str], new_tokens: int, in_flight: int) -> tuple[list[str], float]:
        """(texts, tokens a second of them all)."""
        places = asyncio.Semaphore(in_flight)

        async def one(prompt: str) -> tuple[str, int]:
            async with places:
                return await self.ask(prompt, new_tokens)

        began = time.perf_counter()
        answers = await asyncio.gather(*(one(prompt) for prompt in prompts))
        return [text for text, _ in answers], sum(count for _, count in answers) / (time.perf_counter() - began)

    async def first_token(self, prompt: str, new_tokens: int) -> float:
        """Milliseconds from the request to the first text of a stream, which is then read to its end."""
        began, first = time.perf_counter(), 0.0
        body = self.body(prompt, new_tokens, stream=True)
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            async for line in reply.content:
                if not first and line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                    first = time.perf_counter() - began
        return 1000 * first


def plain(loaded: Loaded, prompts: Sequence[str], new_tokens: int) -> tuple[list[str], float]:
    """`generate` with one prompt a call: (texts, tokens a second of them all)."""
    began = time.perf_counter()
    answers = [generate(loaded, [prompt], max_new_tokens=new_tokens)[0] for prompt in prompts]
    return [answer.text for answer in answers], sum(len(a.token_ids) for a in answers) / (time.perf_counter() - began)


@dataclass(frozen=True)
class Task:
    """Prompts, and what `generate` says to them, many at a time."""

    loaded: Loaded
    prompts: list[str]
    new_tokens: int
    expected: list[str]

    def check(self, what: str, got: Sequence[str]) -> None:
        """Two logits may be as good as equal, and `generate` choose otherwise with other rows beside: then one alone decides."""
        wrong = [at for at, (mine, right) in enumerate(zip(got, self.expected[: len(got)], strict=True)) if mine != right]
        alone = plain(self.loaded, [self.prompts[at] for at in wrong], self.new_tokens)[0]
        wrong = [at for at, right in zip(wrong, alone, strict=True) if got[at] != right]
        if wrong:
            raise SystemExit(f"{what}: {len(wrong)} of {len(got)} answers are not those of generate, the first: {got[wrong[0]]!r}")


def task_of(loaded: Loaded, count: int, new_tokens: int) -> Task:
    prompts = prompts_of(count)
    return Task(loaded, prompts, new_tokens, [answer.text for answer in generate(loaded, prompts, max_new_tokens=new_tokens)])


async def measure(loaded: Loaded, url: str, flags: argparse.Namespace) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(900)) as session:
        async with session.get(f"{url}/v1/models") as reply:
            client = Client(session, url, (await reply.json())["data"][0]["id"])
        rows = [await by_turns(client, task_of(loaded, flags.together, new), flags) for new in flags.new_tokens]
        print(f"\ngreedy, tokens/s; median of {flags.rounds} rounds (least to most); a ratio is of neighbours\n")
        print("| new tokens | generate, one prompt | server, one at a time | of generate | 32 at once | of one at a time |")
        print("|---|---|---|---|---|---|", *rows, sep="\n", end="\n\n", flush=True)
        await first_tokens(client, flags)
        await queued(client, task_of(loaded, flags.queued, QUEUED_TOKENS))


async def by_turns(client: Client, task: Task, flags: argparse.Namespace) -> str:
    """A row of the table."""
    prompts, few, new = task.prompts, task.prompts[: flags.alone], task.new_tokens
    plain(task.loaded, few[:1], new)  # compiles for one row
    await client.ask_all(prompts[:IN_FLIGHT], new, IN_FLIGHT)
    rates: list[tuple[float, float, float]] = []
    for _ in range(flags.rounds):
        texts, bare = plain(task.loaded, few, new)
        texts, alone = await client.ask_all(few, new, 1)
        task.check("one at a time", texts)
        texts, together = await client.ask_all(prompts, new, IN_FLIGHT)
        task.check(f"{IN_FLIGHT} at once", texts)
        rates.append((bare, alone, together))
        print(f"  {new} tokens: generate {bare:.0f}, one at a time {alone:.0f}, {IN_FLIGHT} at once {together:.0f}", flush=True)
    sides, ratios = list(zip(*rates, strict=True)), [(alone / bare, together / alone) for bare, alone, together in rates]
    of_bare, of_alone = (spread(side, ".2f") for side in zip(*ratios, strict=True))
    bare_s, alone_s, together_s = (spread(side, ".0f") for side in sides)
    return f"| {new} | {bare_s} | {alone_s} | {of_bare} | {together_s} | {of_alone} |"


def spread(values: Sequence[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


async def first_tokens(client: Client, flags: argparse.Namespace) -> None:
    """Of streams one after the other, of as many as there are rows at once, and of four times as many."""
    prompts = prompts_of(4 * flags.batch_size)
    alone = [await client.first_token(prompt, QUEUED_TOKENS) for prompt in prompts]
    said = [f"{spread(alone, '.1f')} alone"]
    for count in (flags.batch_size, 4 * flags.batch_size):
        waves = [await asyncio.gather(*(client.first_token(p, flags.new_tokens[0]) for p in prompts[:count])) for _ in range(5)]
        said.append(f"{spread(sum(waves, []), '.1f')} of {count} at once")
    print(f"first token after, ms: {', '.join(said)}", flush=True)


async def queued(client: Client, task: Task) -> None:
    count, new = len(task.prompts), task.new_tokens
    began = time.perf_counter()
    texts, rate = await client.ask_all(task.prompts, new, count)
    seconds = time.perf_counter() - began
    task.check(f"{count} queued", texts)
    print(f"{count} sent at once, {new} new tokens each: none lost, all as generate's, {seconds:.1f} s, {rate:.0f} tokens/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", help="Hugging Face directory or run; none: the tiny model of configs/tiny.py, random weights")
    parser.add_argument("--new_tokens", type=lambda text: [int(part) for part in text.split(",")], default=[128, 256])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", type=int, default=16, help="requests one after the other, a round")
    parser.add_argument("--together", type=int, default=128, help=f"requests, {IN_FLIGHT} at a time, a round")
    parser.add_argument("--queued", type=int, default=1000, help=f"requests sent at once, of {QUEUED_TOKENS} new tokens each")
    parser.add_argument("--batch_size", type=int, default=8, help="rows of the server")
    flags = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "starlette", "uvicorn", "aiohttp")), f"{cores} cores")
    with tempfile.TemporaryDirectory() as place:
        if flags.model is None:
            make_model(place)
        model = flags.model or place
        loaded = load_model(model, make_mesh(MeshConfig(), jax.devices()[:1]))
        with server(model, flags.batch_size) as url:
            asyncio.run(measure(loaded, url, flags))


if __name__ == "__main__":
    main()
