"""Review by people: a sample of the accepted items as a sheet to fill in, and what the filled sheet says, in the journal.

    write_sheet     DIR/review/sheet.csv, and sheet.html for reading (review_page.py)
    read_sheet      checks a filled sheet and keeps it: who, when, verdict, kind of error, the item as it should be
    reviewed        the records as the reviewers would have them
    summary         the error rate that one reviewer found, with its interval, and how far others agree
    read_by_people  the error rate that all of them found, for the card

It changes no item in the journal: what a reviewer says stands beside what the teacher wrote.
"""

import csv
import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import sqrt
from typing import Any

from data_gen import UsageError
from data_gen.import_files import csv_rows
from data_gen.journal import Journal, Review
from data_gen.languages import Pack, load_pack
from data_gen.record import NO_INPUT, Item, Record, item_messages
from data_gen.review_page import page

OK, WRONG, UNSURE = VERDICTS = ("ok", "wrong", "unsure")
ERRORS = ("language", "fact", "reasoning", "unfaithful", "off_task", "unsafe", "culture", "other")
SHOWN = ("instruction", "input", "output")
CORRECTED = tuple(f"corrected_{name}" for name in SHOWN)
COLUMNS = ("id", "task", "language", *SHOWN, "verdict", "error", *CORRECTED)
ID_MARK = "#"  # before an id, lest a spreadsheet reads 12e4567890123456 as a number
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so would be computed by a spreadsheet


@dataclass(frozen=True)
class Sampled:
    """An accepted item that a person shall look at."""

    id: str
    item: Item


def accepted_items(journal: Journal) -> Iterator[Sampled]:
    """The accepted items to train on, in order."""
    for line in journal.accepted("train"):
        fields = json.loads(line)
        item_id = fields.pop("id")
        del fields["meta"]
        yield Sampled(item_id, Item(**fields))


def sample_items(items: Iterable[Sampled], count: int, seed: int) -> list[Sampled]:
    """`count` items, each task with its share of all (at least one), by task. Within a task those with the smallest hash of
    (seed, id): a larger sample has the smaller one in it, and memory does not grow with the items.
    """
    found, smallest = Counter[str](), dict[str, list[tuple[int, int, Sampled]]]()
    for number, one in enumerate(items):
        found[one.item.task] += 1
        heap = smallest.setdefault(one.item.task, [])
        rank = int(hashlib.sha256(f"{seed} review {one.id}".encode()).hexdigest()[:15], 16)
        entry = (-rank, number, one)  # the largest rank is the first to go
        if len(heap) < count:
            heapq.heappush(heap, entry)
        else:
            heapq.heappushpop(heap, entry)
    shares = _shares(found, count)
    return [one for task in sorted(smallest) for _, _, one in sorted(smallest[task], reverse=True)[: shares[task]]]


def _shares(found: Counter[str], count: int) -> dict[str, int]:
    """How many of each task: in proportion, by largest remainders, and none left out while there is room.

    _shares({"a": 600, "b": 399, "c": 1}, 10) == {"a": 6, "b": 3, "c": 1}
    """
    count = min(count, found.total())
    shares = {task: min(1, count) for task in found} if count >= len(found) else dict.fromkeys(found, 0)
    while sum(shares.values()) < count:
        shares[max(found, key=lambda task: (found[task] * count / found.total() - shares[task], found[task], task))] += 1
    return shares


# --- the sheet out ----------------------------------------------------------------------------------------------------


def write_sheet(journal: Journal, workdir: str, *, sample: int = 200, seed: int = 0) -> list[str]:
    """Writes `workdir/review/sheet.csv` and `sheet.html` with a sample of the accepted items; returns their paths.

    Raises UsageError when nothing is accepted yet, and when there is a sheet: it may be filled in.
    """
    if sample < 1:
        raise UsageError(f"--sample={sample}: at least 1 item")
    items = sample_items(accepted_items(journal), sample, seed)
    if not items:
        raise UsageError(f"{workdir} has no accepted items to review; run the data recipe first")
    directory = os.path.join(workdir, "review")
    sheet, html = os.path.join(directory, "sheet.csv"), os.path.join(directory, "sheet.html")
    for path in (sheet, html):
        if os.path.exists(path):
            raise UsageError(f"{path} is there already and may be filled in; move it away, then give the same command")
    try:
        os.makedirs(directory, exist_ok=True)
        with open(sheet, "w", encoding="utf-8-sig", newline="") as file:  # Excel takes it for UTF-8 by its first bytes
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(_cells(one) for one in items)
        with open(html, "w", encoding="utf-8") as file:
            file.write(page([(f"{ID_MARK}{one.id}", one.item) for one in items], _pack(journal), VERDICTS, ERRORS))
    except OSError as error:
        raise UsageError(f"{directory} cannot be written: {error}") from error
    return [sheet, html]


def _cells(one: Sampled) -> list[str]:
    shown = (f"{ID_MARK}{one.id}", one.item.task, one.item.language, *(getattr(one.item, name) for name in SHOWN))
    return [as_text(text) for text in shown] + [""] * (2 + len(CORRECTED))


def as_text(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe before "=", "+" and the like."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def from_cell(cell: str) -> str:
    """What a cell says without the apostrophe that keeps a spreadsheet from computing it."""
    return cell[1:] if cell.startswith(tuple(f"'{first}" for first in _FORMULA)) else cell


def _pack(journal: Journal) -> Pack:
    return load_pack(str(journal.config().get("language")))


# --- the sheet in -----------------------------------------------------------------------------------------------------


def read_sheet(journal: Journal, path: str, reviewer: str, *, partial: bool = False, now: datetime | None = None) -> list[Review]:
    """Checks a filled sheet and keeps its verdicts; returns them. partial: rows without a verdict are passed over.

    Raises UsageError naming the row: an id that no accepted item has, a verdict or kind of error that there is not, a
    correction of what is not wrong. Nothing is kept then.
    """
    if not reviewer.strip():
        raise UsageError("--reviewer is missing: --read wants the name of who filled in the sheet")
    date = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    rows = list(_sheet_rows(path))
    wanted = {row["id"] for _, row in rows}
    items = {one.id: one.item for one in accepted_items(journal) if one.id in wanted}
    pack, found = _pack(journal), dict[str, Review]()
    for number, row in rows:
        try:
            if row["id"] in found:
                raise ValueError(f"item {row['id']} has a row above it already; leave one of them")
            review = _review(row, items, reviewer.strip(), date, pack, partial)
        except ValueError as error:
            raise UsageError(f"{path}, row {number}: {error}") from error
        if review is not None:
            found[review.item] = review
    if not found:
        raise UsageError(f"{path} has no verdict in any row; fill in the column `verdict` with {', '.join(VERDICTS)}")
    journal.keep_reviews(found.values())
    return list(found.values())


def _sheet_rows(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows with their numbers as a spreadsheet shows them: the first below the names is 2."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for row in csv_rows(file, path):
                if row.fault:
                    raise UsageError(f"{path}, row {row.number + 1}: {row.fault}; save the sheet as CSV with all its columns")
                if missing := [name for name in ("id", "verdict") if name not in row.columns]:
                    columns = ", ".join(row.columns)
                    raise UsageError(f"{path} has no column {missing[0]!r}; there are {columns}. A sheet has {', '.join(COLUMNS)}")
                cells = {name: from_cell(row.columns.get(name, "").strip()) for name in COLUMNS}
                yield row.number + 1, cells | {"id": cells["id"].removeprefix(ID_MARK)}
    except OSError as error:
        raise UsageError(f"--read={path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8; save it from the spreadsheet as CSV in UTF-8") from error


def _review(row: dict[str, str], items: dict[str, Item], reviewer: str, date: str, pack: Pack, partial: bool) -> Review | None:
    """The review of one row; None for one without a verdict that may have none. Raises ValueError."""
    verdict, error = row["verdict"].lower(), row["error"].lower()
    fields = {name: pack.normalise(row[column]) for name, column in zip(SHOWN, CORRECTED, strict=True) if row[column]}
    if not verdict and not error and not fields and partial:
        return None
    if row["id"] not in items:
        raise ValueError(f"no accepted item of this work directory has the id {row['id']!r}; leave the column `id` as it is")
    if verdict not in VERDICTS:
        said = f"verdict is {row['verdict']!r}" if verdict else "there is no verdict"
        more = "" if verdict or fields or error else "; --partial passes over rows that nobody filled in"
        raise ValueError(f"{said}; it must be one of {', '.join(VERDICTS)}{more}")
    if error and error not in ERRORS:
        raise ValueError(f"error is {row['error']!r}; it must be one of {', '.join(ERRORS)}, or empty")
    if verdict != WRONG and (fields or error):
        raise ValueError(
            f"verdict is {verdict}, and yet there is {'a correction' if fields else f'the error {error}'}; say {WRONG}"
        )
    if not fields:
        return Review(row["id"], reviewer, date, verdict, error)
    if fields.get("input") == NO_INPUT:  # the item is to have none
        fields["input"] = ""
    corrected = replace(items[row["id"]], **fields)
    item_messages(corrected)  # a conversation must still be one
    return Review(row["id"], reviewer, date, verdict, error, corrected)


# --- what the reviewers say -------------------------------------------------------------------------------------------


def left_out(reviews: Iterable[Review]) -> frozenset[str]:
    """The ids of items that somebody found wrong and nobody corrected."""
    wrong, corrected = set[str](), set[str]()
    for review in reviews:
        if review.verdict == WRONG:
            (corrected if review.correction else wrong).add(review.item)
    return frozenset(wrong - corrected)


def reviewed(records: Iterable[Record], reviews: Sequence[Review]) -> Iterator[Record]:
    """The records as the reviewers would have them: corrected ones replaced (the id stays), wrong ones without a correction left
    out, the others as they were. `meta.review` says what was said, by whom and when. Of two corrections the later one stands.
    """
    said = dict[str, list[Review]]()
    for review in reviews:
        said.setdefault(review.item, []).append(review)
    out = left_out(reviews)
    for record in records:
        if record.id in out:
            continue
        yield _as_said(record, said[record.id]) if record.id in said else record


def _as_said(record: Record, reviews: list[Review]) -> Record:
    corrections = [review.correction for review in reviews if review.correction]
    verdict = "corrected" if corrections else UNSURE if any(review.verdict == UNSURE for review in reviews) else OK
    told: dict[str, Any] = {"verdict": verdict, "by": sorted({r.reviewer for r in reviews}), "date": max(r.date for r in reviews)}
    messages = item_messages(corrections[-1]) if corrections else record.messages
    return replace(record, messages=messages, meta={**record.meta, "review": told})


def wilson(wrong: int, count: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a rate (E. B. Wilson 1927): wilson(0, 10) ≈ (0, 0.278). (0, 1) when nothing was counted."""
    if not count:
        return 0.0, 1.0
    z = 1.959964
    rate, span = wrong / count, 1 + z * z / count
    middle = (rate + z * z / (2 * count)) / span
    half = z * sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / span
    return max(0.0, middle - half), min(1.0, middle + half)


def _of_accepted(journal: Journal) -> tuple[dict[str, str], list[Review]]:
    """The task of each accepted item by its id, and the reviews of these items alone."""
    reviews = journal.reviews()
    tasks = {one.id: one.item.task for one in accepted_items(journal)} if reviews else {}
    return tasks, [review for review in reviews if review.item in tasks]


def read_by_people(journal: Journal) -> str:
    """What reviewers found, in a sentence, or "". An item counts once, however many read it, and is wrong if one of them found it
    so.
    """
    said = dict[str, set[str]]()
    for review in _of_accepted(journal)[1]:
        said.setdefault(review.item, set()).add(review.verdict)
    wrong, judged = sum(WRONG in verdicts for verdicts in said.values()), sum(verdicts != {UNSURE} for verdicts in said.values())
    if not judged:
        return ""
    low, high = wilson(wrong, judged)
    return (
        f"People read a sample before it was corrected: {wrong} of {judged} items judged were wrong, {wrong / judged:.1%} "
        f"(95 % interval {low:.1%} to {high:.1%})."
    )


def summary(journal: Journal, reviewer: str) -> str:
    """The error rate that a reviewer found (wrong of ok and wrong), in all and by task, the kinds of error, and how far each
    other reviewer agrees where both judged. Reviews of items that are accepted no longer do not count.
    """
    tasks, reviews = _of_accepted(journal)
    own = {review.item: review for review in reviews if review.reviewer == reviewer}
    counts = {task: Counter(own[item].verdict for item in own if tasks[item] == task) for task in sorted({tasks[i] for i in own})}
    lines = [f"{'':22}{'ok':>6}{'wrong':>7}{'unsure':>8}   error rate (95 %)"]
    lines += [_rate_line(task, verdicts) for task, verdicts in counts.items()]
    lines.append(_rate_line(f"in all ({reviewer})", sum(counts.values(), Counter())))
    errors = Counter(review.error or "not named" for review in own.values() if review.verdict == WRONG)
    if errors:
        corrected = sum(review.correction is not None for review in own.values())
        lines.append(
            "errors    " + ", ".join(f"{count} {kind}" for kind, count in errors.most_common()) + f"; {corrected} corrected"
        )
    for other in sorted({review.reviewer for review in reviews} - {reviewer}):
        theirs = {review.item: review.verdict for review in reviews if review.reviewer == other}
        pairs = [(own[item].verdict, theirs[item]) for item in own if item in theirs]
        lines.append(f"agreement with {other}: {_agreement(pairs)}")
    return "\n".join(lines)


def _rate_line(name: str, verdicts: Counter[str]) -> str:
    judged = verdicts[OK] + verdicts[WRONG]
    low, high = wilson(verdicts[WRONG], judged)
    rate = f"{verdicts[WRONG] / judged:.1%} ({low:.1%} to {high:.1%})" if judged else "nothing judged"
    return f"{name:22}{verdicts[OK]:6}{verdicts[WRONG]:7}{verdicts[UNSURE]:8}   {rate}"


def _agreement(pairs: Sequence[tuple[str, str]]) -> str:
    """Share of equal verdicts, and Cohen's κ (1960), which is 0 for what chance would give.

    20 pairs of yes, 5 yes-no, 10 no-yes, 15 of no: 35 of 50 the same, κ = 0.40.
    """
    if not pairs:
        return "no item in common"
    count, same = len(pairs), sum(a == b for a, b in pairs)
    one, two = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(one[verdict] * two[verdict] for verdict in one) / count**2
    kappa = "" if chance == 1 else f", κ = {(same / count - chance) / (1 - chance):.2f}"
    return f"{same} of {count} the same ({same / count:.0%}{kappa})"
