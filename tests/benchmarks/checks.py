"""The whole recipe from the offline teacher, and each check against what it knows of its own mistakes.

    python tests/benchmarks/checks.py [--items 5000]

Times `configs/urdu_instruct.py` scaled to that many items to train on (a tenth more are held out), all checks on, and prints for
each check: of the items with a fault of its kind, how many it rejects (recall); of those without any, how many (false rejects).
The offline judge is wrong on purpose, in 2 of 100 marks and 10 of 100 solutions, and leaves answers out; which items are faulty
stands in offline_truth.jsonl, which the recipe does not read.
"""

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from configs import urdu_instruct
from data_gen.checks import CHECKS
from data_gen.languages import load_pack
from data_gen.progress import show
from data_gen.record import Item
from data_gen.seeds import load_task
from data_gen.self_instruct import run

FAULT_RATE = 0.15
RECALL, FALSE_REJECTS, SECONDS = 0.9, 0.05, 300  # the bars
# What each check is there to catch, of the offline teacher's kinds of fault.
FAULTS = {
    "label": {"label_outside"},
    "arithmetic": {"wrong_sum"},
    "choice": {"wrong_choice", "choice_outside"},
    "majority": {"wrong_name", "wrong_sum", "wrong_choice", "choice_outside"},  # where there is no sum
    "back_translation": {"mistranslation"},
    "ethics": {"unsafe_advice"},
    "quality": {
        "wrong_label", "wrong_fact", "off_topic", "unsafe_advice", "mistranslation", "unfaithful", "wrong_sum", "wrong_name",
        "wrong_choice",
    },
}  # fmt: skip


def truth(workdir: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What was sent, by instruction and output as the recipe normalises them."""
    normalise, known = load_pack("ur").normalise, {}
    for line in (workdir / "offline_truth.jsonl").read_text(encoding="utf-8").splitlines():
        sent = json.loads(line)
        if sent.get("output") is not None:
            known[normalise(sent["instruction"]), normalise(sent["output"])] = sent
    return known


def items(workdir: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(outcome, line) of all items of a run."""
    db = sqlite3.connect(workdir / "journal.sqlite")
    yield from ((outcome, json.loads(line)) for outcome, line in db.execute("SELECT outcome, line FROM item"))
    db.close()


def measure(workdir: Path, thresholds: dict[str, float]) -> dict[str, tuple[int, int, int, int]]:
    """By check: (faulty items, rejected ones of them; right items, rejected ones of them)."""
    known, pack = truth(workdir), load_pack("ur")
    tasks = {name: load_task(name, pack, heldout_share=0, seed=0) for name, count in vars(urdu_instruct.ALIF).items() if count}
    counts: dict[str, Counter[tuple[bool, bool]]] = {check: Counter() for check in FAULTS}
    for _, line in items(workdir):
        sent = known.get((line["instruction"], line["output"]))
        if sent is None:
            continue
        task = tasks[line["task"]]
        item = Item(**{name: line[name] for name in ("task", "instruction", "input", "output", "language", "form")})
        said = {check: CHECKS[check](item, task) is not None for check in task.rules.checks if check in CHECKS}
        scores = line.get("scores") or line.get("meta", {}).get("scores", {})
        said |= {check: score < thresholds[check] for check, score in scores.items() if check in thresholds}
        for check, rejected in said.items():
            if sent["fault"] is None or sent["fault"] in FAULTS[check]:
                counts[check][sent["fault"] is not None, rejected] += 1
    return {
        check: (n[True, True] + n[True, False], n[True, True], n[False, True] + n[False, False], n[False, True])
        for check, n in counts.items()
    }


def thresholds(config: Any) -> dict[str, float]:
    """Below these a score rejects."""
    checks = config.checks
    return {"quality": checks.min_quality, "ethics": 1, "back_translation": checks.min_chrf, "majority": 0.5000001}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--items", type=int, default=5000)
    parser.add_argument("--fault_rate", type=float, default=FAULT_RATE, help="share of the offline teacher's items that are faulty")
    given = parser.parse_args()
    config = urdu_instruct.get_config()
    config.teacher.offline_fault_rate = given.fault_rate
    config.offline_scale = given.items / sum(vars(config.targets).values())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with show() as progress:
            summary = run(config, folder, show=progress)
        seconds = time.perf_counter() - began
        found = measure(Path(folder), thresholds(config))
    made = sum(sum(sides.values()) for sides in summary.accepted.values())
    print(summary)
    print(f"\n{made} items, {summary.requests} requests in {seconds:.1f} s (bar {SECONDS} s for 5,000 items)\n")
    print("| check | faulty items | recall | right items | false rejects |\n|---|---|---|---|---|")
    for check, (faulty, caught, right, lost) in found.items():
        print(f"| {check} | {faulty} | {caught / max(faulty, 1):.3f} | {right} | {lost / max(right, 1):.3f} |")
    failed = [c for c, (f, g, r, w) in found.items() if f and (g < RECALL * f or w > FALSE_REJECTS * r)]
    sys.exit(f"below the bars: {', '.join(failed)}" if failed or seconds > SECONDS else 0)


if __name__ == "__main__":
    main()
