"""Seeds and prompts in, a teacher's request out; a teacher's reply in, items out. Pure functions: nothing is sent or
kept here.

A task is a folder `tasks/<name>/` with `prompt.txt` (English, one placeholder `{count}`) and `seeds.jsonl`;
`tasks/rules.txt`, the same for all, is the end of every prompt.
"""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import regex

from data_gen import UsageError
from data_gen.filters import SCRIPT_OF_LANGUAGE, answer_language, reject_reason
from data_gen.record import Item
from data_gen.urdu import normalise

SYSTEM = "You write training examples for a language model. Follow the requested format exactly."
SIDES = ("train", "heldout")
_SEPARATOR = regex.compile(r"^[ \t]*###[ \t]*$", regex.MULTILINE)
_BLOCK = regex.compile(
    r"\s*Instruction:(?P<instruction>.*?)(?:\n[ \t]*Input:(?P<input>.*?))?\n[ \t]*Output:(?P<output>.*)", regex.DOTALL
)
_LABEL = regex.compile(r"^[ \t]*(?:Instruction|Input|Output):", regex.MULTILINE)
_NO_INPUT = "<noinput>"
_CUT_OFF = ("length", "content_filter")  # finish_reason of a reply that ends before its end


@dataclass(frozen=True)
class Task:
    """One task's material. `seeds[side]` is a list of (id, item); no seed and no topic is on both sides."""

    name: str
    prompt: str  # prompt.txt and rules.txt
    seeds: dict[str, list[tuple[str, Item]]]
    digest: str  # SHA-256 of prompt and seeds.jsonl, first 16 hex digits
    prompt_digest: str


def _split_by_topic(task: str, seeds: list[tuple[str, Item]], share: float, seed: int) -> dict[str, list[tuple[str, Item]]]:
    """Whole topics, drawn by the config's seed, go to the held-out side until it has `share` of the seeds (one topic at
    least).
    """
    topics = sorted({item.topic for _, item in seeds})
    random.Random(f"{seed} heldout {task}").shuffle(topics)
    held: set[str] = set()
    while sum(item.topic in held for _, item in seeds) < share * len(seeds):
        held.add(topics[len(held)])
    sides = {side: [s for s in seeds if (s[1].topic in held) == (side == "heldout")] for side in SIDES}
    if not sides["train"]:
        raise UsageError(f"task {task}: heldout_share={share} leaves no seed to train on; it has {len(topics)} topics")
    return sides


def _seed_item(task: str, line: str) -> Item:
    fields = json.loads(line)
    item = Item(task=task, **{key: normalise(value) for key, value in fields.items()})
    if item.language not in SCRIPT_OF_LANGUAGE:
        raise ValueError(f"language {item.language!r}; there are {', '.join(SCRIPT_OF_LANGUAGE)}")
    if reason := reject_reason(item):
        raise ValueError(f"the filters reject this seed: {reason}")
    return item


def load_task(name: str, *, heldout_share: float, seed: int, root: Traversable | None = None) -> Task:
    """Reads `tasks/<name>/`. Raises UsageError naming file and line of a seed that is not JSON, lacks a field or fails
    a filter.
    """
    root = root or resources.files("data_gen") / "tasks"
    folder = root / name
    try:
        prompt = "\n".join(path.read_text(encoding="utf-8") for path in (folder / "prompt.txt", root / "rules.txt"))
        lines = (folder / "seeds.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        needs = "a task has prompt.txt and seeds.jsonl, all tasks rules.txt"
        raise UsageError(f"task {name}: {error.filename} is missing; {needs}") from error
    seeds: list[tuple[str, Item]] = []
    for number, line in enumerate(lines, start=1):
        try:
            seeds.append((f"seed:{name}:{number}", _seed_item(name, line)))
        except (ValueError, TypeError, AttributeError) as error:
            raise UsageError(f"{folder}/seeds.jsonl:{number}: {error}") from error
    if not seeds:
        raise UsageError(f"{folder}/seeds.jsonl has no seed")
    digest = hashlib.sha256("\n".join([prompt, *lines]).encode()).hexdigest()[:16]
    sides = _split_by_topic(name, seeds, heldout_share, seed)
    return Task(name, prompt, sides, digest, hashlib.sha256(prompt.encode()).hexdigest()[:16])


def example_block(item: Item) -> str:
    """An item as it stands in a request and is expected in a reply."""
    return f"###\nInstruction: {item.instruction}\nInput: {item.input or _NO_INPUT}\nOutput: {item.output}"


def build_messages(task: Task, demos: Sequence[Item], count: int) -> list[dict[str, str]]:
    """The system and user message that ask for `count` items like `demos`."""
    user = task.prompt.replace("{count}", str(count)) + "\n\nExamples:\n" + "\n".join(map(example_block, demos))
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def reply_choice(reply: str) -> tuple[str, str]:
    """(text, finish_reason) of a raw chat completion. Raises ValueError saying what is wrong with a malformed or empty
    one. Half a surrogate pair in the text, which no file can hold, becomes U+FFFD.
    """
    try:
        data: Any = json.loads(reply)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON but {reply[:200]!r}") from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"a reply without choices: {reply[:200]!r}")
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        raise ValueError(f"a reply without message content: {reply[:200]!r}")
    finish = str(choices[0].get("finish_reason"))[:50]
    if not content.strip():
        hint = "; a model that thinks first may need more max_tokens" if finish == "length" else ""
        raise ValueError(f"an empty reply, finish_reason {finish!r}{hint}")
    return content.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), finish


def parse_reply(task: str, language: str, reply: str) -> list[tuple[Item, str | None]]:
    """Items of a raw reply in order, each with None or the reason against its form: "malformed" or "truncated".

    "###\\nInstruction: a\\nInput: <noinput>\\nOutput: b" → [(Item(instruction="a", input="", output="b"), None)]. A
    malformed block (items run together included) is an item whose output is the block as it came. Of a reply that was cut
    off only the last block is lost.
    """
    content, finish = reply_choice(reply)
    first, *blocks = _SEPARATOR.split(content)
    if not blocks or "Instruction:" in first:
        blocks = [first, *blocks]  # not a mere preface: kept to be seen
    parsed: list[tuple[Item, str | None]] = []
    for block in blocks:
        if not block.strip():
            continue
        match = _BLOCK.fullmatch(block)
        parts = {key: normalise(value or "") for key, value in match.groupdict().items()} if match else {}
        if any(_LABEL.search(part) for part in parts.values()):
            parts = {}  # a separator is missing: the next item would be part of this one's answer
        item = Item(task, parts.get("instruction", ""), parts.get("input", ""), parts.get("output", block), language)
        if item.input == _NO_INPUT:
            item = replace(item, input="")
        item = replace(item, language=answer_language(item))
        parsed.append((item, None if item.instruction else "malformed"))
    if finish in _CUT_OFF and parsed and blocks[-1].strip():
        parsed[-1] = (parsed[-1][0], "truncated")
    return parsed
