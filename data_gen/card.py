"""README.md of a dataset, as the Hugging Face hub reads it, with report.html beside it; and the JSONL files that its viewer shows.

It says what the recipe and the records know. What they do not know is left out or said to be unknown, no figure is made up, and of
paths of the machine only the last part gets in.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from html import escape
from typing import Any, TextIO

from data_gen import UsageError
from data_gen.card_facts import CHECKS, REASONS, CardInputs
from data_gen.charts import is_own
from data_gen.readable import dollars, duration, percent
from data_gen.readable import tokens as tokens_said
from data_gen.record import SIDES, Record, canonical_json
from data_gen.report import language_counts, render
from data_gen.survey import Survey, quantile, side_of, survey

SHOWN_LETTERS = 600  # of a sample's turn
EXAMPLES = 4  # tasks of which the card shows an item
HUB_LICENCE = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")  # cc-by-4.0, apache-2.0, unknown
URL = re.compile(r"<?(https?://[^\s<>]*[^\s<>.,;:!?)\]'\"])>?")
TASK_CATEGORIES = {
    "question_answering": "question-answering", "reading_comprehension": "question-answering", "translation": "translation",
    "classification": "text-classification", "sentiment": "text-classification", "summarisation": "summarization",
}  # fmt: skip
FEATURES = {
    "text": "  - name: text\n    dtype: string",
    "messages": "  - name: messages\n    list:\n    - name: role\n      dtype: string\n    - name: content\n      dtype: string",
}


def write_card(directory: str, inputs: CardInputs, records: Callable[[], Iterable[Record]]) -> None:
    """Writes directory/README.md and directory/report.html; the records are gone through once.

    Raises UsageError where they cannot be written.
    """
    found = survey(records(), inputs.pack.verbs, int(inputs.recipe.get("seed") or 0), inputs.pack.particles)
    texts = {"README.md": readme(inputs, found), "report.html": render(inputs, found)}
    try:
        for name, text in texts.items():
            with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(f"the card of {directory} cannot be written: {error}; make room there") from error


def write_jsonl(directory: str, records: Iterable[Record]) -> dict[str, int]:
    """Writes directory/train.jsonl and heldout.jsonl, a record a line with `meta` as JSON in a string, and returns their lengths.

    {"id", "source", "task", "language", "messages": [{"role", "content"}, …] (or "text"), "meta": "{…}"}: no field changes its type
    from one line to the next, which readers of columns need. A side without records has no file.
    """
    counts: dict[str, int] = {}
    try:
        for side in SIDES:
            if os.path.exists(path := os.path.join(directory, f"{side}.jsonl")):
                os.remove(path)
        with ExitStack() as stack:
            files: dict[str, TextIO] = {}
            for record in records:
                side = side_of(record)
                if side not in files:
                    files[side] = stack.enter_context(open(os.path.join(directory, f"{side}.jsonl"), "w", encoding="utf-8"))
                files[side].write(_row(record) + "\n")
                counts[side] = counts.get(side, 0) + 1
    except OSError as error:
        raise UsageError(f"the JSONL files of {directory} cannot be written: {error}; make room there") from error
    return counts


def _row(record: Record) -> str:
    fields: dict[str, Any] = {name: getattr(record, name) for name in ("id", "source", "task", "language")}
    fields |= {"text": record.text} if record.text is not None else {"messages": record.messages}
    return canonical_json(fields | {"meta": canonical_json(record.meta)})


def readme(inputs: CardInputs, found: Survey) -> str:
    """The whole card."""
    sections = [
        front_matter(inputs, found),
        f"# {inputs.name}",
        _what(inputs, found),
        f"## What is in it\n\n{_counts(inputs, found)}",
        f"## How to read it\n\n{_usage(found)}",
        _examples(inputs, found),
        f"## How it was made\n\n{_made(inputs)}",
        f"## Checks\n\n{_checks(inputs)}",
        f"## What was rejected\n\n{_rejected(inputs)}",
        f"## Teacher and licence\n\n{_terms(inputs)}",
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in _limits(inputs)),
        f"## Made again\n\n{_again(inputs)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


# --- the head


def front_matter(inputs: CardInputs, found: Survey) -> str:
    """What the hub indexes. Strings are quoted as JSON, which YAML reads."""
    codes = [code for code, _ in found.languages.most_common()]
    plain = list(dict.fromkeys(code.split("-")[0] for code in codes))
    known, licence = HUB_LICENCE.fullmatch(inputs.licence), inputs.licence
    fields: dict[str, Any] = {"pretty_name": inputs.name, "language": plain}
    fields |= {"language_bcp47": codes} if codes != plain else {}
    fields |= {"license": licence} if known else {"license": "other" if licence else "unknown"}
    if licence and not known:
        link = URL.search(licence)
        fields |= {"license_name": "see-below"} | ({"license_link": link[1]} if link else {})
    fields["task_categories"] = list(dict.fromkeys(TASK_CATEGORIES.get(task, "text-generation") for task in found.tasks))
    fields["size_categories"] = [size_category(found.sides().total())]
    fields |= {"annotations_creators": ["machine-generated"], "language_creators": ["machine-generated"]}
    fields["tags"] = ["synthetic", "instruction-tuning", "self-instruct", "alif-jax"]
    lines = ["---"]
    for key, value in fields.items():
        lines += [f"{key}:", *(f"- {_yaml(one)}" for one in value)] if isinstance(value, list) else [f"{key}: {_yaml(value)}"]
    lines += ["configs:", "- config_name: default", "  data_files:"]
    lines += [f"  - split: {side}\n    path: {side}.jsonl" for side in SIDES if found.sides()[side]]
    strings = [f"  - name: {name}\n    dtype: string" for name in ("id", "source", "task", "language", "meta")]
    lines += ["dataset_info:", "  features:", *strings[:4], *(FEATURES[name] for name in sorted(found.features)), strings[4]]
    return "\n".join([*lines, "---"])


def _yaml(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def size_category(records: int) -> str:
    """As the hub counts: 999 → "n<1K", 51_686 → "10K<n<100K"."""
    names = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")
    bounds = [1000 * 10**power for power in range(len(names))]
    if records < bounds[0]:
        return "n<1K"
    place = max(place for place, bound in enumerate(bounds) if records >= bound)
    return f"{names[place]}<n<{names[place + 1]}" if place + 1 < len(names) else "n>1B"


# --- what it is


def _what(inputs: CardInputs, found: Survey) -> str:
    sides, pack = found.sides(), inputs.pack
    writer = "grammars and word lists, not by a language model" if inputs.offline else inputs.teacher
    said = (
        f"{sides['train']:,} {pack.name} ({pack.native_name}) instructions with answers to train on and {sides['heldout']:,} held "
        f"out, in {len(found.tasks)} tasks, written by {writer}. The held-out items are made from seeds of other topics than the "
        "training items, and from nothing that was made from those: no line of descent crosses."
    )
    warning = "**These items try out the programs. They are not meant to train a model that anybody uses.**\n\n"
    look = "`report.html` beside this file shows the data: lengths, diversity, scores, and samples drawn at random."
    return f"{said}\n\n{warning if inputs.offline else ''}{look}"


def _counts(inputs: CardInputs, found: Survey) -> str:
    rows = [
        [f"`{name}`", *_by_side(task.sides), _median(task.instruction_words), _median(task.answer_words)]
        for name, task in found.tasks.items()
    ]
    rows.append(["in all", *_by_side(found.sides()), "", ""])
    head = ["task", "train", "held-out", "words of the instruction (median)", "words of the answer (median)"]
    said = [f"{name or code} (`{code}`) {count:,}" for code, name, count in language_counts(inputs.pack, found)]
    turns = sum(count for answers, count in found.turns.items() if answers > 1)
    several = f" {turns:,} are conversations of several turns." if turns else ""
    pairs = f"{'at least ' if found.pairs_untold else ''}{len(found.pairs):,}"
    return (
        f"{_table(head, rows)}\n\nBy language of the answer: {', '.join(said)}.{several}\n\nThe instructions have {pairs} distinct "
        "pairs of an imperative and the word before it."
    )


def _by_side(sides: Counter[str]) -> list[str]:
    return [f"{sides[side]:,}" for side in SIDES]


def _median(counts: Counter[int]) -> str:
    return f"{quantile(counts, 0.5):,}" if counts else "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures, or text where they have letters."""
    lines = [list(map(_cell, row)) for row in (head, *rows)]
    text = [any(re.search(r"[^\W\d_]{2}", line[column]) for line in lines[1:]) for column in range(len(head))]
    rule = [":--" if column == 0 or text[column] else "--:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _usage(found: Survey) -> str:
    feature = "`messages` (role and content, turn by turn)" if found.features != {"text"} else "`text`"
    if len(found.features) > 1:
        feature += " or `text`"
    return (
        f"Each record has `id`, `source`, `task`, `language` (BCP 47), {feature} and `meta` (JSON: the request, the teacher, the "
        "hash of the prompt, the examples it was shown, scores). On the hub, `PATH` being its name there:\n\n"
        '```python\nfrom datasets import load_dataset\n\ndata = load_dataset("PATH")  # from train.jsonl and heldout.jsonl\n'
        "```\n\nThe TFRecord shards have the same records and `manifest.json` their checksums; `alif_jax` trains on the directory "
        "that holds them (`--config.data.path=DIR`)."
    )


def _examples(inputs: CardInputs, found: Survey) -> str:
    samples = [task.samples()[0] for task in list(found.tasks.values())[:EXAMPLES] if task.sample]
    shown = [_example(record, inputs) for record in samples if record.messages]
    return "\n\n".join(["## Examples", *shown]) if shown else ""


def _example(record: Record, inputs: CardInputs) -> str:
    pack, turns = inputs.pack, list[str]()
    for turn in record.messages or ():
        text = _clipped(turn["content"])
        ways = f'dir="{pack.direction}" lang="{pack.code}"' if is_own(text, pack) else 'dir="ltr"'
        turns.append(f"<p {ways}>{text if turn['role'] == 'assistant' else f'<b>{text}</b>'}</p>")
    return f"`{record.task}`\n\n" + "\n".join(turns)


def _clipped(text: str) -> str:
    cut = text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS].rsplit(" ", 1)[0] + " …"
    return re.sub(r"\s*\n\s*", "<br>", escape(cut))


# --- how it was made


def _made(inputs: CardInputs) -> str:
    kept, seen = inputs.acceptance()
    took = f" in {duration(inputs.wall_s)}" if inputs.wall_s is not None else ""
    if inputs.cost is not None:
        cost = f" It cost {dollars(inputs.cost)}."
    else:
        cost = " It cost nothing." if inputs.offline else " What it cost is not known: no price was given."
    said = (
        "Self-instruct (Wang et al. 2022, [arXiv 2212.10560](https://arxiv.org/abs/2212.10560)): each request shows the teacher "
        "some seeds and some items that were kept before, all of one side, and asks for more of the kind. What comes back is "
        "parsed, filtered, compared with everything kept so far and checked.\n\n"
        f"{inputs.requests:,} requests with {tokens_said(inputs.usage.prompt)} tokens in and "
        f"{tokens_said(inputs.usage.completion)} out{took} gave {seen:,} candidates, of which {kept:,} ({percent(kept, seen)}) "
        f"were kept.{cost}"
    )
    if "translated" in inputs.prompts:
        said += (
            " The items of `translated` are an English set in the teacher's translation; the terms of that set hold for them too."
        )
    rows = [[f"`{task}`", f"`{digest}`"] for task, digest in inputs.prompts.items()]
    return f"{said}\n\n{_table(['task', 'SHA-256 of its prompt, first digits'], rows)}" if rows else said


def _checks(inputs: CardInputs) -> str:
    rows = [[name, CHECKS.get(name, ""), threshold or "-"] for name, threshold in inputs.checks.items()]
    table = _table(["check", "what it does", "threshold"], rows) if rows else "None beside the form of the items."
    off = [name for name in CHECKS if name not in inputs.checks]
    said = f"Not on: {', '.join(off)}." if off and rows else ""
    return "\n\n".join(part for part in (table, said, inputs.reviewed) if part)


def _rejected(inputs: CardInputs) -> str:
    ranked = sorted(inputs.rejected.items(), key=lambda found: (-found[1], found[0]))
    if not ranked:
        return "Nothing."
    rows = [[f"`{reason}`", f"{count:,}", REASONS.get(reason, "")] for reason, count in ranked]
    return f"{_table(['reason', 'items', 'what it means'], rows)}\n\nAn item is counted under the first reason found."


def _terms(inputs: CardInputs) -> str:
    licence = _with_links(inputs.licence) or "none was given: ask who published it before you use it"
    if inputs.offline:
        teacher = "There was no language model: grammars and word lists wrote the items, so no provider's terms hold."
    else:
        terms = _with_links(inputs.teacher_terms) or "not recorded; those of its provider hold"
        teacher = f"Teacher: {inputs.teacher}. Its terms: {terms}. They hold for whoever trains on what it wrote."
    return f"Licence: {licence}.\n\n{teacher}"


def _with_links(text: str) -> str:
    """One line without a full stop, its addresses in angle brackets, so that Markdown takes them and no more for links."""
    return URL.sub(r"<\1>", " ".join(text.split())).removesuffix(".")


def _limits(inputs: CardInputs) -> list[str]:
    limits = [
        "No person wrote the answers"
        + (" and a sample alone was read by people." if inputs.reviewed else ", and this card knows of none who has read them.")
    ]
    if not inputs.offline:
        limits.append("Facts, opinions and turns of phrase are the teacher's, with its errors and its leanings.")
    if judged := [name for name in ("majority", "back_translation", "ethics", "quality") if name in inputs.checks]:
        judge = inputs.judge or "the teacher itself, which may not see its own mistakes"
        limits.append(f"{', '.join(judged)}: judged by {judge}.")
    if not {"contamination"} & set(inputs.checks):
        limits.append("It was not compared with evaluation sets: questions of a test may be in it.")
    limits.append(
        "The held-out items come from the same prompts and teacher as the training items: they measure how well those were learnt, "
        "and not how good a model is at other things."
    )
    if "personal_data" in inputs.checks:
        limits.append("Personal data was looked for by its form only: a story told about somebody's name has none.")
    else:
        limits.append("Personal data was not looked for.")
    return limits


def _again(inputs: CardInputs) -> str:
    shown = json.dumps(without_paths(inputs.recipe), ensure_ascii=False, indent=1)
    said = "The same command on an empty directory asks the same requests; a teacher that samples answers them otherwise."
    if inputs.offline:
        said = "The same command on an empty directory makes the same data."
    return (
        f"```bash\n{inputs.command}\n```\n\n{said} The recipe:\n\n<details><summary>config</summary>\n\n"
        f"```json\n{shown}\n```\n\n</details>"
    )


def without_paths(value: Any) -> Any:
    """Of paths the last part alone: the rest says something of the machine only. {"f": "/home/me/a.json"} → {"f": "a.json"}."""
    if isinstance(value, Mapping):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(inner) for inner in value]
    is_path = isinstance(value, str) and re.match(r"(/|~|\.{1,2}/|[A-Za-z]:\\)", value)
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if is_path else value
