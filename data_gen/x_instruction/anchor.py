"""Makes an anchor: pairs of stage generate, drawn, and rated by a teacher or by people. The file goes into refine.anchor.

Two pairs of three are candidates as the generator wrote them, the third has the instruction of another document, so that there are
bad ones too. The documents drawn are then kept out of the data: stage generate leaves out what shares 13 words with the anchor.
"""

import csv
import json
import random
from collections import Counter
from collections.abc import Sequence

from data_gen import UsageError
from data_gen.ask import Asker
from data_gen.engine import Shows
from data_gen.journal import open_journal
from data_gen.review import ID_MARK, as_text, from_cell
from data_gen.x_instruction import models
from data_gen.x_instruction.config import XInstructionConfig
from data_gen.x_instruction.stage import Row
from data_gen.x_instruction.work import Children, Work

COLUMNS = ("id", "language", "instruction", "answer", "rating (0: does not answer, 1: in part, 2: well)")


def drawn(work: Work, many: int) -> list[Row]:
    """`many` pairs a language, as {id, lang, instruction, response}; the same for the same stage and seed.

    Raises UsageError where stage generate has fewer documents with a candidate.
    """
    pairs = []
    for code in work.languages:
        rows = [row for row in work.stage("generate").rows(code) if row["candidates"]]
        if len(rows) < many:
            raise UsageError(
                f"stage generate has {len(rows):,} documents of {code} with an instruction, and {many:,} are to be drawn"
            )
        rng = random.Random(f"{work.config.seed} anchor {code}")
        chosen = rng.sample(rows, many)
        for place, row in enumerate(chosen):
            source = row if place % 3 else chosen[(place + 1) % many]
            pairs.append(
                {"id": row["id"], "lang": code, "instruction": source["candidates"][0]["instruction"], "response": row["response"]}
            )
    return pairs


def by_teacher(
    config: XInstructionConfig, workdir: str, output: str, many: int, *, children: Children, show: Shows, max_cost: float | None
) -> str:
    """Has the config's teacher rate the pairs, and writes them; says how many of each rating. Raises UsageError."""
    config.check_teacher("the anchor")
    if config.evaluator.by == "teacher":
        raise UsageError(
            "evaluator.by is teacher: an anchor that the same teacher rated says nothing of it. Have people rate: --sheet"
        )
    with open_journal(workdir) as journal:
        work = Work(config, workdir, config.languages, children, Asker(journal, show, max_cost, config.max_errors), show, {})
        pairs = drawn(work, many)
        scores = models.score(work, work.teacher(), lambda: iter(pairs), title="the anchor", wanted=len(pairs))
        rated = [{**row, "rating": max(range(3), key=found.__getitem__)} for row, found in scores if found]
    return write_anchor(output, rated)


def write_sheet(config: XInstructionConfig, workdir: str, path: str, many: int, *, children: Children, show: Shows) -> str:
    """The pairs as CSV, whose last column people fill in with 0, 1 or 2. Raises UsageError where the file is there already."""
    with open_journal(workdir) as journal:
        pairs = drawn(Work(config, workdir, config.languages, children, Asker(journal, show), show, {}), many)
    try:
        with open(path, "x", encoding="utf-8-sig", newline="") as file:  # Excel takes it for UTF-8 by its first bytes
            sheet = csv.writer(file)
            sheet.writerow(COLUMNS)
            for row in pairs:
                cells = (f"{ID_MARK}{row['id']}", row["lang"], row["instruction"], row["response"])
                sheet.writerow([*map(as_text, cells), ""])
    except FileExistsError:
        raise UsageError(f"{path} is there already and may be filled in; move it away, then give the same command") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return f"{len(pairs):,} pairs in {path}: fill in the last column, then --read={path}"


def read_sheet(path: str, output: str) -> str:
    """Writes the anchor of a filled sheet. Raises UsageError naming the first row whose rating is none."""
    rated = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for number, cells in enumerate(csv.reader(file), start=1):
                if number == 1:
                    continue
                if len(cells) != len(COLUMNS) or cells[-1].strip() not in ("0", "1", "2"):
                    raise UsageError(f"{path}:{number}: the last of {len(COLUMNS)} columns is {cells[-1:]}; expected 0, 1 or 2")
                text = [from_cell(cell) for cell in cells]
                rated.append({"lang": text[1], "instruction": text[2], "response": text[3], "rating": int(text[4])})
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return write_anchor(output, rated)


def write_anchor(path: str, rated: Sequence[Row]) -> str:
    """A file for refine.anchor; says how many there are of each language and rating."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            for row in rated:
                line = {
                    "instruction": row["instruction"],
                    "response": row["response"],
                    "language": row["lang"],
                    "rating": row["rating"],
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    counts = Counter((row["lang"], row["rating"]) for row in rated)
    said = ", ".join(f"{code} rated {rating}: {count}" for (code, rating), count in sorted(counts.items()))
    return f"{len(rated):,} pairs in {path} ({said}). Give --config.refine.anchor={path} --from=generate"
