"""The offline teacher: a local HTTP server with the OpenAI chat-completions protocol that answers from word lists.

Not a language model. It stands in for one where no network is (quickstart, tests): it reads task, language and number of
items from the prompt's first lines and writes such items by its grammars, some of them wrong at a seeded rate. Asked to judge
what it wrote, it does, with known errors (offline/judge.py). Which items are wrong stands in the truth file, which tests and
reports read, and a server that starts again: it goes on knowing what it sent. It also has OpenAI's Batch API, and fails in many
ways where it is told to.

    python -m data_gen.offline.teacher --port 8001 --seed 0 --fault_rate 0.05 --truth_file truth.jsonl --faults=cut=0.1
"""

import argparse
import asyncio
import hashlib
import json
import random
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from data_gen import UsageError
from data_gen.offline import faults as offline_faults
from data_gen.offline.batches import BatchApi
from data_gen.offline.http import HttpServer, Reply, Request, RequestError, json_reply
from data_gen.offline.items import (
    HUGE_BYTES,
    TRANSLATED,
    Sent,
    Written,
    distort,
    length_within,
    tokens,
    write,
    write_items,
    write_translated,
)
from data_gen.offline.judge import Manners, Memory, distorted, remember, sent_before, translated, verdicts, written
from data_gen.offline.request import MODEL, Check, Order, parsed, prompt_of, read_prompt, wants_json

Sending = tuple[dict[str, Any], list[Sent]]  # a chat completion, and the items in it


def _items(order: Order, memory: Memory, rng: random.Random, fault_rate: float) -> list[Sent]:
    if order.task != TRANSLATED:
        return write_items(order.task, order.count, rng, fault_rate, order.language)
    translate = partial(translated, memory, order.language, order.language)
    return write_translated(order.originals, translate, rng, fault_rate)


def _judgement(check: Check, memory: Memory, manners: Manners, fault: str | None, max_tokens: int | None) -> Written:
    text = written(distorted(fault, verdicts(check, memory, manners), HUGE_BYTES))
    end = length_within(text, None if fault == "huge" else max_tokens, len(text) // 2 if fault == "length" else len(text))
    return Written(text[:end], "stop" if end == len(text) else "length", [])


def complete(body: bytes, manners: Manners, memory: Memory | None = None, fault: str | None = None) -> Sending:
    """(chat completion, items sent), a function of its arguments. RequestError for what an endpoint refuses.

    `fault` is one of offline_faults.CONTENT or None. A "huge" reply overruns max_tokens, in its usage it does not.
    """
    memory = memory or Memory()
    request, max_tokens = parsed(body)
    as_json = wants_json(request)
    prompt, prompt_tokens = prompt_of(request)
    order = read_prompt(prompt)
    digest = hashlib.sha256(f"{manners.seed}\n".encode() + body).hexdigest()
    if isinstance(order, Check):
        if as_json:
            raise RequestError(400, f"{MODEL} gives verdicts as text: leave 'response_format' out of a check")
        reply = _judgement(order, memory, manners, fault, max_tokens)
    else:
        items = _items(order, memory, random.Random(digest), manners.fault_rate)
        if fault is not None:
            items = distort(fault, items, random.Random(f"{digest} {fault}"))
        reply = write(
            items,
            as_json=as_json,
            max_tokens=None if fault == "huge" else max_tokens,
            stop_in=int(digest[:6], 16) % len(items) if fault == "length" else None,
        )
    used = tokens(reply.text) if max_tokens is None else min(tokens(reply.text), max_tokens)
    message = {"role": "assistant", "content": reply.text}
    completion = {
        "id": f"chatcmpl-{digest[:24]}",
        "object": "chat.completion",
        "created": 1_700_000_000 + int(digest[:6], 16),  # no clock: the same body gets the same reply, byte for byte
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": used, "total_tokens": prompt_tokens + used},
    }
    return completion, reply.items


def drawn_latency(latency_s: float, spread: float, rng: random.Random) -> float:
    """Seconds: `latency_s` in the middle, times e^x with x normal of width `spread` (0.5: two thirds within a factor of 1.65)."""
    return latency_s * rng.lognormvariate(0.0, spread)


def _opened(truth_file: str, memory: Memory) -> TextIO:
    """The truth file, open for what follows; what stands in it is remembered, and half a line at its end is ended."""
    path = Path(truth_file)
    ends_well = True
    if path.exists():
        remember(memory, sent_before(truth_file))
        ends_well = path.read_bytes()[-1:] in (b"", b"\n")
    file = open(path, "a", encoding="utf-8")
    file.write("" if ends_well else "\n")
    return file


class Server:
    """The running server. `base_url` is what an OpenAI client wants; `close()` or leaving a `with` block stops it."""

    def __init__(
        self,
        port: int,
        *,
        manners: Manners,
        latency_s: float,
        latency_spread: float,
        truth_file: str | None,
        api_key: str | None,
        faults: Mapping[str, float],
        batch_s: float,
    ) -> None:
        self.manners, self.api_key, self.faults = manners, api_key, faults
        self.memory = Memory()
        self.latency_s, self.latency_spread = latency_s, latency_spread
        self._random = random.Random()  # not seeded: whoever depends on timing is to be found out
        self._failed: set[bytes] = set()  # hashes of bodies that had their one fault of the transport
        self._batches = BatchApi(self._answer, self._expires, batch_s)
        self._http = HttpServer(port, self._reply)
        self._truth = _opened(truth_file, self.memory) if truth_file else None
        self.server_port = self._http.server_port
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        self._http.start()

    def close(self) -> None:
        """Stops at once: whoever waits for a reply gets none. May be called twice."""
        self._http.close()
        if self._truth is not None:
            self._truth.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def _reply(self, request: Request) -> Reply | None:
        """What goes back, or None when the client hung up while it waited: such a request counts as not answered."""
        if self.api_key is not None and request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise RequestError(401, "incorrect or missing API key", "invalid_api_key")
        if (request.method, request.path) == ("GET", "/v1/models"):
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "data_gen"}
            return json_reply({"object": "list", "data": [model]})
        if request.path.startswith(("/v1/files", "/v1/batches")):
            return self._batches.handle(request)
        if (request.method, request.path) != ("POST", "/v1/chat/completions"):
            raise RequestError(404, f"unknown URL: {request.method} {request.path}", "unknown_url")
        return await self._chat(request)

    async def _chat(self, request: Request) -> Reply | None:
        answer_at = asyncio.get_running_loop().time() + drawn_latency(self.latency_s, self.latency_spread, self._random)
        fault = self._first_fault(request.body, offline_faults.TRANSPORT)
        if fault is not None:
            self._log(request.body, [], answered=False, fault=fault)
            if refusal := offline_faults.refusal(fault):
                return refusal
            if fault == "hang":
                await request.gone()
                return None
        completion, items = self._completion(request.body)
        reply = json_reply(completion) if fault is None else offline_faults.damaged(fault, completion)
        await asyncio.sleep(answer_at - asyncio.get_running_loop().time())
        if request.is_gone():
            return None
        if fault is None:
            self._log(request.body, items, answered=True, fault=self._content_fault(request.body))
        return reply

    def _fault(self, body: bytes) -> str | None:
        return offline_faults.kind_of(self.faults, seed=self.manners.seed, body=body)

    def _content_fault(self, body: bytes) -> str | None:
        fault = self._fault(body)
        return fault if fault in offline_faults.CONTENT else None

    def _first_fault(self, body: bytes, kinds: Mapping[str, str]) -> str | None:
        """The body's fault if it is one of `kinds` and was not shown yet."""
        fault = self._fault(body)
        if fault not in kinds:
            return None
        digest = hashlib.sha256(body).digest()
        known = digest in self._failed
        self._failed.add(digest)
        return None if known else fault

    def _expires(self, body: bytes) -> bool:
        expired = self._first_fault(body, offline_faults.BATCH) is not None
        if expired:
            self._log(body, [], answered=False, fault="expire")
        return expired

    def _completion(self, body: bytes) -> Sending:
        completion, items = complete(body, self.manners, self.memory, self._content_fault(body))
        remember(self.memory, items)
        return completion, items

    def _answer(self, body: bytes) -> dict[str, Any]:
        """The completion of a batch's request."""
        completion, items = self._completion(body)
        self._log(body, items, answered=True, fault=self._content_fault(body))
        return completion

    def _log(self, body: bytes, items: list[Sent], *, answered: bool, fault: str | None) -> None:
        """A line an item and one a request, whether it was answered and the fault of the whole reply, in one write; a body
        asked again is logged again.
        """
        if self._truth is None:
            return
        request = hashlib.sha256(body).hexdigest()
        lines: list[dict[str, Any]] = [
            {
                "request": request, "item": number, "task": item.task, "language": item.language,
                "instruction": item.instruction, "input": item.input, "output": item.output, "fault": item.fault,
                "right": item.right, "shape": item.shape, "solution": item.solution, "pairs": item.pairs,
            }
            for number, item in enumerate(items)
        ]  # fmt: skip
        lines.append({"request": request, "answered": answered, "reply_fault": fault})
        self._truth.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        self._truth.flush()


def serve(
    port: int = 0,
    *,
    seed: int,
    fault_rate: float,
    latency_s: float = 0.0,
    latency_spread: float = 0.0,
    truth_file: str | None = None,
    api_key: str | None = None,
    faults: str = "",
    batch_s: float = 0.0,
    judge_error: float = 0.02,
    solve_error: float = 0.1,
) -> Server:
    """Starts the server on 127.0.0.1 in a thread (port 0: a free one).

    `latency_s` is waited before each reply, times e^x with x drawn from a normal distribution of width `latency_spread`;
    `faults` are as offline_faults.read has them; a batch takes `batch_s` seconds. Asked to judge, it says the opposite in
    `judge_error` of the cases, and solves wrongly in `solve_error` of them.
    Raises UsageError for a rate that is no share, a time that is none, unknown faults or a port that is taken.
    """
    for name, share in (("fault_rate", fault_rate), ("judge_error", judge_error), ("solve_error", solve_error)):
        if not 0 <= share <= 1:
            raise UsageError(f"{name} is {share}; it is a share of the items: give 0 to 1")
    for name, value in (("latency_s", latency_s), ("latency_spread", latency_spread), ("batch_s", batch_s)):
        if not 0 <= value < float("inf"):
            raise UsageError(f"{name} is {value}; give a number from 0 on")
    try:
        return Server(
            port,
            manners=Manners(seed, fault_rate, judge_error, solve_error),
            latency_s=latency_s,
            latency_spread=latency_spread,
            truth_file=truth_file,
            api_key=api_key,
            faults=offline_faults.read(faults),
            batch_s=batch_s,
        )
    except OSError as error:
        message = f"port {port} on 127.0.0.1 or truth file {truth_file}: {error.strerror}; choose another"
        raise UsageError(message) from error


def main() -> None:
    about = (__doc__ or "").split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python -m data_gen.offline.teacher", description=about)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault_rate", type=float, default=0.0, help="share of the items that are wrong, 0 to 1")
    parser.add_argument("--latency_s", type=float, default=0.0, help="seconds to wait before each reply")
    parser.add_argument("--latency_spread", type=float, default=0.0, help="width of the latency's log-normal distribution")
    parser.add_argument("--truth_file", help="JSONL; what is wrong with which item")
    parser.add_argument("--api_key", help="answer 401 without it")
    parser.add_argument("--faults", default="", help=f"NAME=SHARE,… of the requests; names: {', '.join(offline_faults.KINDS)}")
    parser.add_argument("--batch_s", type=float, default=0.0, help="seconds that a batch takes")
    parser.add_argument("--judge_error", type=float, default=0.02, help="share of the verdicts that are the opposite, 0 to 1")
    parser.add_argument("--solve_error", type=float, default=0.1, help="share of the solutions that are wrong, 0 to 1")
    flags = parser.parse_args()
    try:
        server = serve(**vars(flags))
    except UsageError as error:
        parser.error(str(error))  # exit code 2
    print(f"{server.base_url}  (offline teacher: grammars and word lists, no language model)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    main()
