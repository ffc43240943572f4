"""README.md of a dataset, as the Hugging Face hub reads it, with report.html beside it; and the JSONL files that its viewer shows.

It says what the recipe and the records know. What they do not know is left out or said to be unknown, no figure is made up, and of
paths of the machine only the last part gets in.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from html import escape
from typing import Any, TextIO

from data_gen import UsageError
from data_gen.card_facts import CardInputs, in_words
from data_gen.charts import is_own
from data_gen.record import SIDES, Record, canonical_json
from data_gen.report import language_counts, render
from data_gen.survey import Survey, in_english, quantile, side_of, survey

SHOWN_LETTERS = 600  # of a sample's turn
EXAMPLES = 4  # tasks, or languages where there are several, of which the card shows an item
HUB_LICENCE = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")  # cc-by-4.0, apache-2.0, unknown
URL = re.compile(r"<?(https?://[^\s<>]*[^\s<>.,;:!?)\]'\"])>?")
PATH = r"(?:/|~|\.{1,2}/|[A-Za-z]:\\)"  # how one begins
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
    write_texts(directory, inputs, survey(records(), inputs.pack.verbs, int(inputs.recipe.get("seed") or 0), inputs.pack.particles))


def write_texts(directory: str, inputs: CardInputs, found: Survey) -> None:
    """As write_card, of records that were gone through already."""
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
        f"## How to read it\n\n{_usage(inputs, found)}",
        _examples(inputs, found),
        f"## How it was made\n\n{_made(inputs)}",
        f"## Checks\n\n{_checks(inputs)}",
        f"## What was rejected\n\n{_rejected(inputs)}",
        f"## {inputs.words.terms_title}\n\n{_terms(inputs)}",
        "## Known limits\n\n" + "\n".join(f"- {limit}" for limit in inputs.words.limits(inputs)),
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
    fields |= {"annotations_creators": ["machine-generated"], "language_creators": [*inputs.words.written_by]}
    fields["tags"] = [*inputs.words.tags]
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
    warning = "**These items try out the programs. They are not meant to train a model that anybody uses.**\n\n"
    look = "`report.html` beside this file shows the data: lengths, diversity, scores, and samples drawn at random."
    return f"{inputs.words.what(inputs, found)}\n\n{warning if inputs.offline else ''}{look}"


def _counts(inputs: CardInputs, found: Survey) -> str:
    rows = [
        [f"`{name}`", *_by_side(task.sides), _median(task.instruction_words), _median(task.answer_words)]
        for name, task in found.tasks.items()
    ]
    rows.append(["in all", *_by_side(found.sides()), "", ""])
    head = ["task", "train", "held-out", "words of the instruction (median)", "words of the answer (median)"]
    said = [f"{name or code} (`{code}`) {count:,}" for code, name, count in language_counts(inputs, found)]
    turns = sum(count for answers, count in found.turns.items() if answers > 1)
    several = f" {turns:,} are conversations of several turns." if turns else ""
    pairs = f"{'at least ' if found.pairs_untold else ''}{len(found.pairs):,}"
    counted = (
        f"{_table(head, rows)}\n\nBy language of the answer: {', '.join(said)}.{several}\n\nThe instructions have {pairs} distinct "
        f"pairs of an imperative and {inputs.words.thing}."
    )
    return _joined(counted, *_tables(inputs, "counts", "lengths", "diversity"))


def _by_side(sides: Counter[str]) -> list[str]:
    return [f"{sides[side]:,}" for side in SIDES]


def _median(counts: Counter[int]) -> str:
    return f"{quantile(counts, 0.5):,}" if counts else "-"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures, or text where they have letters."""
    lines = [list(map(_cell, row)) for row in (head, *rows)]
    rule = [":--" if text else "--:" for text in in_words(lines[1:], len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _tables(inputs: CardInputs, *sections: str) -> Iterator[str]:
    """The recipe's tables of some sections. What is in their cells may come from the data."""
    for table in inputs.tables:
        if table.section in sections:
            rows = [list(map(_markdown, row)) for row in table.rows]
            yield _joined(f"### {table.title}", _markdown(table.note), _table(table.head, rows))


def _markdown(text: str) -> str:
    """Text that Markdown shows as it is: no tags, links or code of its own."""
    return re.sub(r"[\\`\[\]]", r"\\\g<0>", escape(text, quote=False))


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _usage(inputs: CardInputs, found: Survey) -> str:
    feature = "`messages` (role and content, turn by turn)" if found.features != {"text"} else "`text`"
    if len(found.features) > 1:
        feature += " or `text`"
    return (
        f"Each record has `id`, `source`, `task`, `language` (BCP 47), {feature} and `meta` (JSON: "
        f"{inputs.words.meta}). On the hub, `PATH` being its name there:\n\n"
        '```python\nfrom datasets import load_dataset\n\ndata = load_dataset("PATH")  # from train.jsonl and heldout.jsonl\n'
        "```\n\nThe TFRecord shards have the same records and `manifest.json` their checksums; `alif_jax` trains on the directory "
        "that holds them (`--config.data.path=DIR`)."
    )


def _examples(inputs: CardInputs, found: Survey) -> str:
    groups = found.by_language.values() if len(inputs.languages) > 1 else found.tasks.values()
    samples = [group.samples()[0] for group in [*groups][:EXAMPLES] if group.sample]
    shown = [_example(record, inputs) for record in samples if record.messages]
    return "\n\n".join(["## Examples", *shown]) if shown else ""


def _example(record: Record, inputs: CardInputs) -> str:
    pack, turns = inputs.pack_of(record.language), list[str]()
    for turn in record.messages or ():
        text = _clipped(turn["content"])
        own = is_own(text, pack) and not in_english(record, turn)
        ways = f'dir="{pack.direction}" lang="{pack.code}"' if own else 'dir="ltr"'
        turns.append(f"<p {ways}>{text if turn['role'] == 'assistant' else f'<b>{text}</b>'}</p>")
    named = f", {inputs.names().get(record.language, record.language)}" if len(inputs.languages) > 1 else ""
    return f"`{record.task}`{named}\n\n" + "\n".join(turns)


def _clipped(text: str) -> str:
    cut = text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS].rsplit(" ", 1)[0] + " …"
    return re.sub(r"\s*\n\s*", "<br>", escape(cut))


# --- how it was made


def _made(inputs: CardInputs) -> str:
    rows = [[f"`{task}`", f"`{digest}`"] for task, digest in inputs.prompts.items()]
    prompts = _table(["task", "SHA-256 of its prompt, first digits"], rows) if rows else ""
    return _joined(inputs.words.made(inputs), prompts, *_tables(inputs, "made"))


def _checks(inputs: CardInputs) -> str:
    meanings, tables = inputs.words.checks, list(_tables(inputs, "checks"))
    rows = [[name, meanings.get(name, ""), threshold or "-"] for name, threshold in inputs.checks.items()]
    none = "" if tables else "None beside the form of the items."
    table = _table(["check", "what it does", "threshold"], rows) if rows else none
    off = [name for name in meanings if name not in inputs.checks]
    said = f"Not on: {', '.join(off)}." if off and rows else ""
    return _joined(table, said, *tables, inputs.reviewed)


def _rejected(inputs: CardInputs) -> str:
    found = inputs.rejections()
    if not found:
        return "Nothing."
    staged, meanings = bool(inputs.by_stage), inputs.words.reasons
    rows = [
        [*[_markdown(stage)][:staged], f"`{reason}`", f"{count:,}", meanings.get(reason, "")]
        for stage, ranked in found
        for reason, count in ranked
    ]
    head = [*["stage"][:staged], "reason", "items", "what it means"]
    return f"{_table(head, rows)}\n\nAn item is counted under the first reason found."


def _terms(inputs: CardInputs) -> str:
    return _joined(inputs.words.terms(inputs, _with_links), *_tables(inputs, "terms"))


def _with_links(text: str) -> str:
    """One line without a full stop, its addresses in angle brackets, so that Markdown takes them and no more for links."""
    return URL.sub(r"<\1>", " ".join(text.split())).removesuffix(".")


def _again(inputs: CardInputs) -> str:
    shown = json.dumps(without_paths(inputs.recipe), ensure_ascii=False, indent=1)
    return (
        f"```bash\n{inputs.command}\n```\n\n{inputs.words.again(inputs)} The recipe:\n\n<details><summary>config</summary>\n\n"
        f"```json\n{shown}\n```\n\n</details>"
    )


def without_paths(value: Any) -> Any:
    """Of paths the last part alone: the rest says something of the machine only. {"f": "/home/me/a.json"} → {"f": "a.json"},
    "ur=/data/ur,hi=/data/hi" → "ur=ur,hi=hi".
    """
    if isinstance(value, Mapping):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    parts = re.split(rf"(?<=[=,])(?={PATH})", value)
    return "".join(_last_part(part[:-1]) + part[-1] for part in parts[:-1]) + _last_part(parts[-1])


def _last_part(text: str) -> str:
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] if re.match(PATH, text) else text
