"""The text of an offline teacher's reply: items by its grammars, some of them wrong, as tagged text or as JSON.

Pure functions of their arguments, the random generator included. The faults here are those of what is said; those of
how it is sent are in offline/faults.py.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from data_gen.languages import load_pack
from data_gen.offline import grammar as offline_grammar
from data_gen.offline import more as offline_more
from data_gen.offline import sindhi as offline_sindhi
from data_gen.offline.bilingual import sentence_pair
from data_gen.offline.grammar import Item, spoil
from data_gen.record import NO_INPUT

MAKERS: dict[str, dict[str, Callable[[random.Random], Item]]] = {  # by language and task
    "ur": {**offline_grammar.MAKERS, **offline_more.MAKERS},
    "sd": offline_sindhi.MAKERS,
}

_OPTION = re.compile(r"\(\w+\) ")
TRANSLATED = "translated"  # the task whose items come from the request
BYTES_PER_TOKEN = 3  # of UTF-8: about 1.5 Urdu letters, what current tokenizers need
MALFORMED_SHARE = DUPLICATE_SHARE = 0.2  # of the fault rate, on top of it
IDENTICAL_ITEMS = 20
HUGE_BYTES = 5_000_000


@dataclass(frozen=True)
class Sent:
    """One item of a reply. `shape`: whole, duplicate (of an earlier one), malformed (no Output), cut (max_tokens).

    `solution` is what stands at the end of the right answer, and `pairs` what says the same in two languages: what a judge
    needs to know.
    """

    task: str
    instruction: str
    input: str
    output: str | None
    fault: str | None
    right: str | None
    shape: str = "whole"
    language: str = "ur"
    solution: str | None = None
    pairs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Written:
    """The text of a reply, why it ends there ("stop" or "length"), and the items wholly or partly in it."""

    text: str
    finish_reason: str
    items: list[Sent]


def tokens(text: str) -> int:
    """tokens("اردو") == 3: its 8 bytes in pieces of BYTES_PER_TOKEN."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def solution_of(item: Item, language: str = "ur") -> str:
    """The final answer alone: "12 + 3 = 15\\nجواب: 15 سیب" → "15 سیب". Where no mark announces it: the chosen option, what is
    right, or all.
    """
    _, mark, final = item.output.rpartition(load_pack(language).answer_mark)
    if mark or _OPTION.match(item.output):
        return final.strip()
    return item.right or item.output


def write_items(task: str, count: int, rng: random.Random, fault_rate: float, language: str = "ur") -> list[Sent]:
    """`count` items of `task`: about `fault_rate` of them wrong, a fifth as many malformed and as many sent twice."""
    sent: list[Sent] = []
    for _ in range(count):
        if sent and rng.random() < DUPLICATE_SHARE * fault_rate:
            sent.append(replace(rng.choice(sent), shape="duplicate"))
            continue
        item = MAKERS[language][task](rng)
        known = (language, solution_of(item, language), item.pairs)
        if rng.random() < MALFORMED_SHARE * fault_rate:
            sent.append(Sent(task, item.instruction, item.input, None, None, item.right, "malformed", *known))
            continue
        fault, output = spoil(task, item, rng) if rng.random() < fault_rate else (None, item.output)
        sent.append(Sent(task, item.instruction, item.input, output, fault, item.right, "whole", *known))
    return sent


def write_translated(
    originals: Sequence[Mapping[str, str]], translate: Callable[[str], tuple[str, bool]], rng: random.Random, fault_rate: float
) -> list[Sent]:
    """The English items in Urdu, in their order. A faulty one has texts of other items in the place of its own; one with a text
    that `translate` does not know (its second value) is "transliterated". No item is left out or sent twice.
    """
    sent, others = [], sorted(offline_more.TRANSLATIONS)
    for original in originals:
        english = {name: original.get(name, "") for name in ("instruction", "input", "output")}
        told = {name: translate(text) for name, text in english.items()}
        urdu = {name: text for name, (text, _) in told.items()}
        right: str | None = urdu["output"]
        fault = None
        if not all(known for _, known in told.values()):
            fault, right = "transliterated", None
        elif rng.random() < fault_rate:
            fault = "mistranslation"
            for name in filter(english.get, english):
                urdu[name] = offline_more.TRANSLATIONS[rng.choice([text for text in others if text != english[name]])]
        malformed = rng.random() < MALFORMED_SHARE * fault_rate
        output, fault, shape = (None, None, "malformed") if malformed else (urdu["output"], fault, "whole")
        sent.append(Sent(TRANSLATED, urdu["instruction"], urdu["input"], output, fault, right, shape))
    return sent


def distort(fault: str | None, items: list[Sent], rng: random.Random) -> list[Sent]:
    """The items as the content fault of a whole reply leaves them; "length" and None change none of them."""
    if fault == "wrong_language":
        return [
            item  # translations into English are what they should be
            if item.output is None or item.output.isascii()
            else replace(item, output=sentence_pair(rng)[0].english, fault=fault)
            for item in items
        ]
    if fault == "identical":
        first = next((item for item in items if item.shape == "whole"), items[0])
        return [first, *[replace(first, shape="duplicate")] * (IDENTICAL_ITEMS - 1)]
    if fault == "huge":
        spoken = sum(item.output is not None for item in items)
        return [_long(item, HUGE_BYTES // spoken + 1) if item.output is not None else item for item in items]
    return items


def _long(item: Sent, size: int) -> Sent:
    """The item with its answer said again, line after line, until it has `size` bytes."""
    line = f"{item.output}\n"
    return replace(item, output=(line * (size // len(line.encode()) + 1)).rstrip("\n"), fault="huge")


def _tagged(item: Sent) -> str:
    head = f"###\nInstruction: {item.instruction}\nInput: {item.input or NO_INPUT}"
    return head if item.output is None else f"{head}\nOutput: {item.output}"


def _json(item: Sent) -> str:
    fields = {"instruction": item.instruction, "input": item.input, "output": item.output}
    return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)


def write(items: list[Sent], *, as_json: bool, max_tokens: int | None, stop_in: int | None = None) -> Written:
    """The items as a text that ends after `max_tokens` tokens, and in the middle of item number `stop_in`, if not None.

    Tagged blocks one after the other, or one object {"items": [{"instruction", "input", "output"}, …]}.
    """
    before, between, after = ('{"items": [', ", ", "]}") if as_json else ("", "\n", "")
    blocks = [_json(item) if as_json else _tagged(item) for item in items]
    text = before + between.join(blocks) + after
    starts = [len(before)]
    for block in blocks:
        starts.append(starts[-1] + len(block) + len(between))
    end = length_within(text, max_tokens, len(text) if stop_in is None else starts[stop_in] + len(blocks[stop_in]) // 2)
    if end == len(text):
        return Written(text, "stop", items)
    kept = [
        item if start + len(block) <= end else replace(item, shape="cut")
        for item, block, start in zip(items, blocks, starts, strict=False)
        if start < end
    ]
    return Written(text[:end], "length", kept)


def length_within(text: str, max_tokens: int | None, end: int) -> int:
    """How many characters of text[:end] fit in `max_tokens` tokens."""
    data = text[:end].encode()
    if max_tokens is not None and -(-len(data) // BYTES_PER_TOKEN) > max_tokens:
        return len(data[: max_tokens * BYTES_PER_TOKEN].decode(errors="ignore"))
    return end
