"""A task in a language, read from its folders: prompt, rules and seeds.

`tasks/<name>/` is the same for all languages: `prompt.txt` (English; names of the language's pack in braces, and `{count}`) and
`task.toml`. `languages/<code>/<name>/` has `seeds.jsonl`, and a `prompt.txt` where the language wants another. What all tasks share
comes after the prompt: `tasks/rules.txt`, and `tasks/form_<reply_format>.txt`, the form of a reply.
"""

import hashlib
import json
import random
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import regex

from data_gen import UsageError
from data_gen.checks import check_reason
from data_gen.filters import reject_reason
from data_gen.languages import ENGLISH, Pack
from data_gen.record import CONVERSATION, NO_INPUT, SIDES, Item, turns
from data_gen.task import FIELDS, JSON_SCHEMA, REPLY_FORMATS, TAGGED, Rules, Task, read_rules

_SEED = ("topic", *FIELDS, "language")
_INPUT_FORM = {
    (TAGGED, False): NO_INPUT, (TAGGED, True): "the text that the instruction is about",
    (JSON_SCHEMA, False): '""', (JSON_SCHEMA, True): "the text that the instruction is about",
}  # fmt: skip
_INPUT_RULE = {
    False: "Everything the answer needs stands in the instruction, so the input is always {input_form}.",
    True: "The text that an item is about stands in its input, whole and new; no item is without one.",
}
_PLACEHOLDER = regex.compile(r"\{(\w+)\}")


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
        raise UsageError(
            f"task {task}: heldout_share={share} takes whole topics and leaves no seed to train on; the seeds have "
            f"{len(topics)} topic{'s' * (len(topics) != 1)}: give seeds on two topics or more, or heldout_share=0"
        )
    return sides


def _seed_fields(value: Any) -> dict[str, str]:
    """Raises ValueError naming what a line of seeds.jsonl lacks or has too much."""
    there = f"a seed has {', '.join(_SEED)}"
    if not isinstance(value, dict):
        raise ValueError(f"is {_kind_of(value)}; {there}, in one JSON object")
    if missing := [name for name in _SEED if name not in value]:
        raise ValueError(f"lacks {', '.join(missing)}; {there}")
    if unknown := [name for name in value if name not in _SEED]:
        raise ValueError(f"has {unknown[0]!r}; {there}, and nothing else")
    if wrong := [name for name in _SEED if not isinstance(value[name], str)]:
        raise ValueError(f"{wrong[0]} is {_kind_of(value[wrong[0]])}; all of a seed is text")
    return value


def _kind_of(value: Any) -> str:
    """As JSON calls it: _kind_of([1]) == "an array"."""
    kinds = {dict: "an object", list: "an array", str: "text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _seed_item(task: Task, line: str) -> Item:
    fields = _seed_fields(json.loads(line))
    item = Item(task=task.name, form=task.rules.form, **{key: task.pack.normalise(value) for key, value in fields.items()})
    if item.language not in task.pack.varieties:
        raise ValueError(f"language {item.language!r}; there are {', '.join(task.pack.varieties)}")
    if task.rules.form == CONVERSATION and len(turns(item.output)) < 3:
        raise ValueError("a conversation has at least a second question and its answer")
    if reason := reject_reason(item, task) or check_reason(item, task):
        raise ValueError(f"the filters reject this seed: {reason}")
    return item


def _filled(prompt: str, words: Mapping[str, str], file: str) -> str:
    """The prompt with the pack's words for its placeholders; {count} stays. Raises UsageError naming an unknown placeholder."""

    def word(found: "regex.Match[str]") -> str:
        if found[1] not in words:
            known = ", ".join(f"{{{name}}}" for name in sorted({*words, "count"}))
            raise UsageError(f"{file}: unknown placeholder {found[0]}; there are {known}")
        return words[found[1]]

    return _PLACEHOLDER.sub(word, prompt.replace("{count}", "\0")).replace("\0", "{count}")


def _words(pack: Pack, rules: Rules, reply_format: str) -> dict[str, str]:
    variety = pack.varieties.get(f"{pack.code}-{rules.variety}" if rules.variety else pack.code)
    if variety is None:
        raise UsageError(f"{pack.folder}/pack.toml has no [varieties.{pack.code}-{rules.variety}], which the task is written in")
    form = _INPUT_FORM[reply_format, rules.input or rules.source == ENGLISH]
    own = {"language": pack.name, "code": pack.code, "written": variety.written, "answer_mark": pack.answer_mark}
    return {**pack.prompt, **own, "input_form": form, "input_rule": _INPUT_RULE[rules.input].replace("{input_form}", form)}


def _text_of(file: Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 ({error}); save it as UTF-8") from error


def _read_rules(file: Traversable) -> Rules:
    text = _text_of(file)
    try:
        return read_rules(tomllib.loads(text))
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from error


def _read_prompt(name: str, pack: Pack, reply_format: str, root: Traversable) -> tuple[Rules, str]:
    """The task's rules and its prompt, filled with the pack's words."""
    own = pack.folder / name / "prompt.txt"
    try:
        rules = _read_rules(root / name / "task.toml")
        files = [own if own.is_file() else root / name / "prompt.txt"]
        files += [root / "rules.txt"] * (rules.source != ENGLISH) + [root / f"form_{reply_format}.txt"]
        files += [root / "form_conversation.txt"] * (rules.form == CONVERSATION)
        texts = list(map(_text_of, files))
    except FileNotFoundError as error:
        needs = "a task has prompt.txt and task.toml, all tasks rules.txt and a form_….txt a form of reply"
        raise UsageError(f"task {name}: {error.filename} is missing; {needs}") from error
    words = _words(pack, rules, reply_format)
    return rules, "\n".join(_filled(text, words, str(file)) for text, file in zip(texts, files, strict=True))


def load_task(
    name: str, pack: Pack, *, heldout_share: float, seed: int, reply_format: str = TAGGED, root: Traversable | None = None
) -> Task:
    """One task in one language, for one form of the reply. Raises UsageError naming file and line of a seed that is not JSON,
    lacks a field or fails a filter or a check, a file that is not UTF-8, a prompt's unknown placeholder, and a language whose pack
    serves web text only or has no seeds for the task.
    """
    _check_form(reply_format)
    pack.check_instructions()
    rules, prompt = _read_prompt(name, pack, reply_format, root or resources.files("data_gen") / "tasks")
    prompt_digest = hashlib.sha256(prompt.encode()).hexdigest()[:16]
    task = Task(name, pack, rules, prompt, {side: [] for side in SIDES}, prompt_digest, prompt_digest, reply_format)
    if rules.source == ENGLISH:
        return task
    file = pack.folder / name / "seeds.jsonl"
    if not file.is_file():
        there = ", ".join(sorted(folder.name for folder in pack.folder.iterdir() if (folder / "seeds.jsonl").is_file()))
        raise UsageError(f"{pack.name} has no seeds for the task {name} ({file}); it has {there}. Write some, or set its target 0")
    lines = _text_of(file).removesuffix("\n").split("\n")  # splitlines() would split at U+2028 inside a string
    seeds: list[tuple[str, Item]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            seeds.append((f"seed:{name}:{number}", _seed_item(task, line)))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{file}:{number}: {error}") from error
    if not seeds:
        raise UsageError(f"{file} has no seed")
    digest = hashlib.sha256("\n".join([prompt, *lines]).encode()).hexdigest()[:16]
    return replace(task, seeds=_split_by_topic(name, seeds, heldout_share, seed), digest=digest)


def _check_form(reply_format: str) -> None:
    if reply_format not in REPLY_FORMATS:
        raise UsageError(f"reply_format is {reply_format!r}; there are {', '.join(REPLY_FORMATS)}")
