"""How fast web text goes through the ingest, each of its steps apart, and what is taken for what among neighbouring languages.

    python tests/benchmarks/ingest.py                      # 3 rounds of 24 MB on 2 cores, 1 million rows of facts
    python tests/benchmarks/ingest.py --megabytes=4 --rounds=1 --choose=100000

The corpus is made of sentences of the Urdu prose and pages that are shipped, in new orders: pages of some 3 kB, all different, all
good, so that every one of them passes through all steps. Real corpora lose many pages at the first ones.
Method and results: tests/benchmarks/ingest.md.
"""

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from data_gen.ingest import stages
from data_gen.ingest_config import IngestConfig
from data_gen.language_id import FIRST, language_of, load_labeller
from data_gen.languages import load_label
from data_gen.near_documents import BANDS, FACTS, choose
from data_gen.text.shipped import text_records

ROOT = Path(__file__).resolve().parents[2]
CORES, FILES, HOSTS, PAGE = 2, 8, 400, 1700  # PAGE: letters
SENTENCE_END = re.compile(r"(?<=[۔؟!])\s+")
# The language of the ingest, and whose pages are shown to it.
CONFUSED = {
    "urd_Arab": ("urd_Arab", "pes_Arab", "arb_Arab", "pnb_Arab", "snd_Arab", "pbt_Arab"),
    "ind_Latn": ("ind_Latn", "zsm_Latn"),
}


def sample(label: str) -> list[dict[str, Any]]:
    """The shipped pages of a language that have no fault."""
    file = resources.files("data_gen") / "text" / "web" / f"{label}.jsonl"
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [row for row in rows if row["label"] == "clean" and row["language"] == label]


# --- speed


def pages(megabytes: float) -> Iterator[dict[str, Any]]:
    """Pages of sentences in random order, no sentence twice in one, about `megabytes` of UTF-8 text in all."""
    texts = [record.text or "" for record in text_records("ur")] + [row["text"] for row in sample("urd_Arab")]
    pool = sorted(
        {sentence for text in texts for line in text.split("\n") for sentence in SENTENCE_END.split(line) if len(sentence) > 30}
    )
    rng, left, number = random.Random(0), megabytes * 1e6, 0
    while left > 0:
        chosen, letters = list[str](), 0
        for sentence in rng.sample(pool, min(len(pool), 200)):
            chosen.append(sentence)
            letters += len(sentence)
            if letters > PAGE:
                break
        text = "\n".join(" ".join(chosen[k : k + 5]) for k in range(0, len(chosen), 5))
        number += 1
        left -= len(text.encode())
        yield {"text": text, "url": f"https://h{rng.randrange(HOSTS)}.example/{number}", "date": "2024-05-01"}


def write(folder: Path, megabytes: float) -> tuple[int, float]:
    """The corpus in some files; (pages, megabytes of text)."""
    lines, size = [list[str]() for _ in range(FILES)], 0
    for number, page in enumerate(pages(megabytes)):
        size += len(page["text"].encode())
        lines[number % FILES].append(json.dumps(page, ensure_ascii=False) + "\n")
    folder.mkdir()
    for number, part in enumerate(lines):
        (folder / f"{number}.jsonl").write_text("".join(part), encoding="utf-8")
    return sum(map(len, lines)), size / 1e6


def whole(corpus: Path, workdir: Path, tasks: int) -> tuple[float, float, float]:
    """Seconds of the whole command, start included, by the clock; of its first stage; and those of the processor, which one task
    alone takes in the command's own process.
    """
    command = [sys.executable, "launch/ingest.py", f"--config.input={corpus}", "--config.licence=Apache-2.0"]
    begin, used = time.perf_counter(), processor()
    done = subprocess.run([*command, f"--config.tasks={tasks}", f"--workdir={workdir}"], cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(done.stderr)
    clean = re.search(r"^clean .*?([\d.]+) s", done.stdout, re.MULTILINE)
    return seconds, float(clean[1]) if clean else float("nan"), processor() - used


def processor() -> float:
    """Seconds that ended child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def apart(corpus: Path, workdir: Path, megabytes: float) -> None:
    """Each step of the first stage alone, in this process: all documents through one step, then through the next."""
    steps = stages(IngestConfig(input=str(corpus), licence="Apache-2.0"), str(workdir))[0].steps
    documents: Any = None
    total = 0.0
    for step in steps:
        begin = time.process_time()
        documents = list(step.run(documents, 0, 1))
        seconds = time.process_time() - begin
        total += seconds
        print(
            f"| {step.name} | {megabytes / seconds:.1f} | {1e6 * seconds / len(documents):.0f} | {len(documents):,} |", flush=True
        )
    print(f"| all | {megabytes / total:.1f} | {1e6 * total / len(documents):.0f} | |", flush=True)


def choosing(count: int) -> str:
    """Seconds and memory of `choose` on made-up facts, a tenth of them near an earlier one."""
    rng = np.random.default_rng(0)
    rows = np.zeros(count, FACTS)
    rows["id"], rows["tie"] = rng.integers(1, 1 << 63, (2, count))
    rows["domain"], rows["letters"] = rng.integers(1, count // 20 + 2, count), rng.integers(200, 5000, count)
    rows["bands"] = rng.integers(1, 1 << 63, (count, BANDS))
    near = rng.choice(count, count // 10, replace=False)
    rows["bands"][near, 3] = rows["bands"][rng.integers(0, count, len(near)), 3]
    begin = time.process_time()
    choose([rows], domain_cap=10, max_news_share=0.5)
    seconds = time.process_time() - begin
    tracemalloc.start()
    choose([rows], domain_cap=10, max_news_share=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    return f"{seconds:.1f} s for {count:,} documents, {peak / count:.0f} bytes a document beside their {FACTS.itemsize}"


# --- languages


def confusion(label: str, truths: tuple[str, ...], name: Callable[[str], tuple[str, float]], threshold: float) -> None:
    """A row for each language of the pages: what they are named, and how many would stay as `label`."""
    for truth in truths:
        texts = [row["text"] for row in sample(truth)]
        named = [name(text) for text in texts]
        counts = ", ".join(f"{one or 'none'} {count}" for one, count in Counter(one for one, _ in named).most_common())
        stay = sum(one == label and confidence >= threshold for one, confidence in named)
        print(f"| {truth} | {len(texts)} | {counts} | {stay} |")


def languages() -> None:
    for label, truths in CONFUSED.items():
        pack = load_label(label)
        identifier, threshold = load_labeller(pack), IngestConfig().rules.min_language_confidence
        for title, name in (
            ("lingua alone", lambda text, identifier=identifier: identifier.top(text[:FIRST])),
            ("with the common words", lambda text, pack=pack, identifier=identifier: language_of(text, pack, identifier)),
        ):
            print(f"\n{label}, {title}\n\n| pages in | pages | named | stay as {label} |\n|---|---|---|---|")
            confusion(label, truths, name, threshold)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--choose", type=int, default=1_000_000)
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-CORES:])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count, megabytes = write(folder / "corpus", options.megabytes)
        print(f"{count:,} pages, {megabytes:.1f} MB of text\n\n| | MB/s, best and median | s, median |\n|---|---|---|")
        two, one = list[tuple[float, float, float]](), list[tuple[float, float, float]]()
        for k in range(options.rounds):
            two.append(whole(folder / "corpus", folder / f"two{k}", CORES))
            one.append(whole(folder / "corpus", folder / f"one{k}", 1))
        rows = {
            "whole command, 2 tasks, by the clock": [run[0] for run in two],
            "its first stage, by the clock": [run[1] for run in two],
            "whole command, 1 task, time of the processor": [run[2] for run in one],
        }
        for name, seconds in rows.items():
            median = statistics.median(seconds)
            print(f"| {name} | {megabytes / min(seconds):.2f}, {megabytes / median:.2f} | {median:.1f} |", flush=True)
        print("\n| step, one core | MB/s | µs a document | documents after it |\n|---|---|---|---|")
        apart(folder / "corpus", folder / "apart", megabytes)
    print(f"\nchoosing: {choosing(options.choose)}", flush=True)
    languages()


if __name__ == "__main__":
    main()
