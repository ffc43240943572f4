"""Whether what an evaluation asks stood in the training data: runs of 13 words, as data_gen/contamination.py compares them, here by
test and document. Not a search for paraphrases or translations.

    find_leaks(shards, build_texts(found), texts of their records)["told"]

Of the tests only hashes are kept, 16 bytes a run; the records are read once, one at a time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from data_gen import UsageError
from data_gen.contamination import MANY_ROWS, MOST_ROWS, SHORTEST, WORDS, strings
from data_gen.dedup import run_hashes
from data_gen.languages import load_pack, packs
from data_gen.text import script_share, tokens

if TYPE_CHECKING:
    from data_gen.evaluation.find import Found

EXAMPLES = 3
Document = Sequence[str]  # the texts of a document of a test: question, passage, options …


def build_texts(found: Sequence["Found"]) -> dict[str, list[list[str]]]:
    """By task, for each document that is asked, its texts of 6 words or more, however deep. A text that many documents share, such
    as the instruction above each question, is none: half of the training data may have it too.
    """
    texts = dict[str, list[list[str]]]()
    for one in found:
        for name, task in one.tasks.items():
            asked = islice(task.eval_docs, one.entry.limit or None)
            documents = [[text for text in strings(document) if len(tokens(text)) >= SHORTEST] for document in asked]
            if len(documents) > len(texts.get(name, ())):  # the same task may be asked in two ways
                texts[name] = _own(documents)
    return texts


def _own(documents: list[list[str]]) -> list[list[str]]:
    """Without what many share: contamination's bounds of what is the form of a file."""
    count = Counter(text for texts in documents for text in set(texts))
    most = MOST_ROWS * len(documents)
    return [[text for text in texts if count[text] <= MANY_ROWS and (count[text] < 3 or count[text] < most)] for texts in documents]


def find_leaks(
    shards: Sequence[str], texts: Mapping[str, Sequence[Document]], records: Iterable[str], words: int = WORDS
) -> dict[str, Any]:
    """Which documents of each test stand in `records`, the texts of `shards` (their names, for the report).

    A document counts when a run of 13 words of one of its texts, or the whole of a text of 6 to 12, occurs anywhere in a record;
    where a word has several tokens (Thai: 4) as many more. One without a text of 6 words is too short to tell. Gives
    {"shards", "records", "tests": {task: {"documents", "found", "too_short", "examples"}}, "told": a sentence}, with the first
    three texts that were found as examples. Raises UsageError for runs so short that they come up by themselves.
    """
    if words < SHORTEST:
        raise UsageError(f"runs of {words} words come up by themselves; give {SHORTEST} at least ({WORDS} is usual)")
    kept = [(task, number, text) for task, documents in texts.items() for number, one in enumerate(documents) for text in one]
    tables, comparable = _tables([text for _, _, text in kept], words)
    occurs, count = np.zeros(len(kept), bool), 0
    for record in records:
        count += 1
        _mark(tokens(record), tables, occurs)
    tests = dict[str, dict[str, Any]]()
    for task, documents in texts.items():
        tests[task] = {"documents": len(documents), "found": 0, "too_short": 0, "examples": []}
    seen, told_of = set[tuple[str, int]](), set[tuple[str, int]]()
    for place, (task, number, text) in enumerate(kept):
        if comparable[place]:
            told_of.add((task, number))
        if occurs[place] and (task, number) not in seen:
            seen.add((task, number))
            tests[task]["found"] += 1
            tests[task]["examples"] += [text] if len(tests[task]["examples"]) < EXAMPLES else []
    for task, documents in texts.items():
        tests[task]["too_short"] = len(documents) - sum((task, number) in told_of for number in range(len(documents)))
    return {"shards": list(shards), "records": count, "tests": tests, "told": _told(tests, count, words)}


_Tables = dict[int, tuple[np.ndarray, np.ndarray]]  # by length of runs: their hashes, sorted, and the text that each is of


def _tables(texts: Sequence[str], words: int) -> tuple[_Tables, list[bool]]:
    """Also which texts are long enough to be compared."""
    runs, places = dict[int, list[np.ndarray]](), dict[int, list[np.ndarray]]()
    comparable = []
    for place, text in enumerate(texts):
        said, pieces = tokens(text), _pieces_a_word(text)
        comparable.append(len(said) >= SHORTEST * pieces)
        if comparable[-1]:
            length = min(words * pieces, len(said))
            runs.setdefault(length, []).append(run_hashes(said, length)[-1])
            places.setdefault(length, []).append(np.full(len(runs[length][-1]), place, np.int32))
    made: _Tables = {}
    for length in runs:
        hashes, of_text = np.concatenate(runs[length]), np.concatenate(places[length])
        order = np.argsort(hashes, kind="stable")
        made[length] = hashes[order], of_text[order]
    return made, comparable


def _mark(said: Sequence[str], tables: _Tables, occurs: np.ndarray) -> None:
    """Sets the texts that occur in a record of these tokens."""
    made = run_hashes(said, min(len(said), max(tables, default=0)))
    for length, (hashes, of_text) in tables.items():
        if length > len(made):
            continue
        runs = made[length - 1]
        at = np.searchsorted(hashes, runs)
        at[at == len(hashes)] = 0
        for run in np.unique(runs[hashes[at] == runs]):
            occurs[of_text[np.searchsorted(hashes, run, "left") : np.searchsorted(hashes, run, "right")]] = True


@lru_cache
def _many_pieces() -> tuple[tuple[str, int], ...]:
    """Scripts whose words are several tokens, and how many."""
    return tuple((pack.script, pack.pieces_a_word) for pack in map(load_pack, packs()) if pack.pieces_a_word > 1)


def _pieces_a_word(text: str) -> int:
    if not any(map(str.isalpha, text)):
        return 1
    return next((pieces for script, pieces in _many_pieces() if script_share(text, script) > 0.5), 1)


def _told(tests: Mapping[str, Mapping[str, Any]], records: int, words: int) -> str:
    if not records:
        return "No training records were given, so nothing was compared."
    of = f"{sum(one['documents'] for one in tests.values()):,} documents of {len(tests):,} tests"
    where = f"a run of {words} words, or the whole of a shorter text, in common with one of {records:,} training records"
    found = [f"{task} {one['found']:,} of {one['documents']:,}" for task, one in tests.items() if one["found"]]
    short = sum(one["too_short"] for one in tests.values())
    many = sum(one["found"] for one in tests.values())
    told = f"Of {of}, {many:,} have {where}: {', '.join(found)}" if found else f"None of {of} has {where}"
    return told + (f"; {short:,} are too short to tell." if short else ".")
