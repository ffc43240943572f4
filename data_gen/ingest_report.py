"""What an ingest did, from the counts of its tasks: report.md for a reader, manifest.json for a program, the latter written last: a
work directory without it is unfinished.
"""

import json
import platform
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Any

from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep

from data_gen.ingest_config import IngestConfig
from data_gen.ingest_counts import Tally, read_tallies
from data_gen.languages import load_label

MANIFEST, REPORT, WORK = "manifest.json", "report.md", "work"
VERSION = 1
MOST_SHOWN = 20  # domains in the report
# Every reason in the order in which documents meet it, and what it means.
REASONS = {
    "not_json": "a line that is no JSON",
    "not_utf8": "bytes that are no UTF-8",
    "no_object": "a JSON value that is no object",
    "no_text": "a row without a text",
    "too_large": "a row or page of more than the reader takes",
    "packed": "a page in a compression that is not known",
    "empty": "no words",
    "binary": "bytes that are no text",
    "damaged": "a wrong decoding, or letters that a broken font makes",
    "boiler_plate": "menus, notices and links, and nothing else",
    "wrong_script": "too many letters of another script",
    "digits_and_symbols": "tables and lists of numbers or signs",
    "too_short": "fewer letters than rules.min_letters",
    "too_long": "more letters than rules.max_letters",
    "repeated_lines": "the same lines again",
    "repeated_words": "the same runs of words again",
    "wrong_language": "another language, or too unsure which",
    "personal_data": "more addresses and numbers of persons than rules.max_personal",
    "evaluation_data": "a long run of words in common with an evaluation file",
    "duplicate": "the same text as another page",
    "near_duplicate": "nearly the same text as another page, which is longer",
    "domain_cap": "more documents of its domain than rules.domain_cap",
    "news_share": "more news than rules.max_news_share of all that stays",
}


@dataclass(frozen=True)
class Summary:
    """A finished work directory, in its manifest's words."""

    workdir: str
    manifest: Mapping[str, Any]

    def __str__(self) -> str:
        counts = self.manifest["counts"]
        lines = [f"read       {counts['read']:,} pages, {_size(counts['read_bytes'])} of text"]
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts["removed"].items())
        lines += textwrap.wrap(f"removed    {reasons or 'none'}", 100, subsequent_indent=" " * 11, break_long_words=False)
        lines += [f"kept       {self.manifest['documents']:,} documents, {_size(self.manifest['bytes'])} of text"]
        return "\n".join([*lines, f"documents  {self.workdir}/documents", f"report     {self.workdir}/{REPORT}"])


def read_summary(workdir: str) -> Summary | None:
    """None for a directory that has no manifest: it is unfinished, or never was begun."""
    folder = get_datafolder(workdir)
    if not folder.exists(MANIFEST):
        return None
    with folder.open(MANIFEST, "r", encoding="utf-8") as file:
        return Summary(workdir, json.load(file))


class Finish(PipelineStep):
    """The one task of `finish`: adds up the counts, writes the report and then the manifest, and removes what lay in between."""

    type, name = "finish", "report and manifest"

    def __init__(self, config: IngestConfig, workdir: str) -> None:
        super().__init__()
        self.config, self.workdir = config, workdir

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        folder, tasks = get_datafolder(self.workdir), self.config.tasks
        written = read_tallies(self.workdir, "write", tasks)
        made = manifest_of(self.config, read_tallies(self.workdir, "clean", tasks), written)
        with folder.open(REPORT, "w", encoding="utf-8") as file:
            file.write(report_of(made, self.workdir))
        with folder.open(f"{WORK}/{MANIFEST}", "w", encoding="utf-8") as file:
            json.dump(made, file, ensure_ascii=False, indent=1)
        folder.mv(f"{WORK}/{MANIFEST}", MANIFEST)  # a kill must not leave half a manifest
        folder.rm(WORK, recursive=True)
        yield from ()


def add_up(tallies: Iterable[Tally]) -> Tally:
    """All tasks as one; `file` is left out."""
    total = Tally()
    for tally in tallies:
        for one in fields(Tally):
            if one.name != "file":
                setattr(total, one.name, getattr(total, one.name) + getattr(tally, one.name))
    return total


def manifest_of(config: IngestConfig, cleaned: Iterable[Tally], written: Iterable[Tally]) -> dict[str, Any]:
    """The manifest, from the tallies of `clean` and `write`."""
    written = list(written)
    clean, write = add_up(cleaned), add_up(written)
    removed = clean.removed + write.removed
    order = [*REASONS, *sorted(removed.keys() - REASONS.keys())]
    return {
        "format": "web documents", "version": VERSION, "language": config.language, "documents": write.kept,
        "letters": write.kept_letters, "bytes": write.kept_bytes, "files": [tally.file for tally in written if tally.file],
        "counts": {
            "read": clean.read, "read_bytes": clean.text_bytes, "cleaned": clean.kept, "masked": clean.masked, "news": write.news,
            "removed": {reason: removed[reason] for reason in order if removed[reason]},
            "languages": _sorted(clean.languages), "licences": _sorted(write.licences), "domains": _sorted(write.domains),
            "removed_domains": _sorted(clean.removed_domains + write.removed_domains),
        },
        "config": config.asked(),
        "versions": {"python": platform.python_version()} | {
            name: version(name) for name in ("datatrove", "lingua-language-detector", "numpy", "regex")
        },
    }  # fmt: skip


def _sorted(counter: Counter[str]) -> dict[str, int]:
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


# --- report.md ----------------------------------------------------------------------------------------------------------


def report_of(manifest: Mapping[str, Any], workdir: str) -> str:
    """The report in Markdown."""
    counts, pack = manifest["counts"], load_label(manifest["language"])
    left, rows = counts["read"], []
    for reason, count in counts["removed"].items():
        left -= count
        rows.append((reason, f"{count:,}", f"{left:,}", REASONS.get(reason, "")))
    seen = sum(counts["languages"].values()) or 1
    domains = [
        (name or "(none)", f"{count:,}", f"{counts['removed_domains'].get(name, 0):,}")
        for name, count in list(counts["domains"].items())[:MOST_SHOWN]
    ]
    files = [(f"`{one['path']}`", f"{one['documents']:,}", f"{one['bytes']:,}", f"`{one['sha256']}`") for one in manifest["files"]]
    return "\n\n".join([
        f"# Web documents in {pack.name} ({manifest['language']})",
        f"{counts['read']:,} pages were read from `{manifest['config']['input']}` ({_size(counts['read_bytes'])} of text). "
        f"{manifest['documents']:,} documents stay ({_size(manifest['bytes'])}, {manifest['letters']:,} letters); "
        f"{counts['news']:,} of them are news. {counts['masked']:,} addresses and numbers of persons were replaced by masks.",
        "## What was taken out\n\n" + _table(("reason", "pages", "left", "what it is"), rows),
        "## Languages seen\n\nOf the pages that came so far as to be told by their language.\n\n"
        + _table(("language", "pages", "share"), [(n, f"{c:,}", f"{c / seen:.1%}") for n, c in counts["languages"].items()]),
        f"## Domains\n\n{len(domains)} of {len(counts['domains']):,}, those with the most documents.\n\n"
        + _table(("domain", "stay", "taken out"), domains),
        "## Licences\n\n" + _table(("licence", "documents"), [(name, f"{count:,}") for name, count in counts["licences"].items()]),
        "## Files\n\n" + _table(("file", "documents", "bytes", "SHA-256"), files),
        "As shards for the trainer:\n\n"
        f"    python launch/import_data.py --input={workdir}/documents --language={pack.code} --output=DIR",
    ]) + "\n"  # fmt: skip


def _size(count: int) -> str:
    """_size(12_345) == "12.3 kB"."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
