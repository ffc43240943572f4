"""What evaluation files say, so that it is kept out of the training data: runs of 13 words, as GPT-3's authors compared (Brown et
al. 2020, appendix C). Not a search for paraphrases or translations of it.

Only hashes are kept. What counts as a word is data_gen.text.tokens', so spelling, digits and punctuation make no difference.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import fsspec

from data_gen import UsageError
from data_gen.dedup import run_hashes
from data_gen.import_files import SUFFIXES, find_files, kind_of, read_rows
from data_gen.text import tokens

WORDS = 13
SHORTEST = 6  # words of an evaluation text, of 13; shorter ones ("ان میں سے کوئی نہیں") come up by themselves
MANY_ROWS, MOST_ROWS = 10, 0.5  # of a file: a text in more rows than so many, or in so large a part of three or more, is its form


def load_ngrams(paths: Sequence[str], n: int = WORDS) -> frozenset[int]:
    """Hashes of all runs of `n` words in the texts of evaluation files; of a text of 6 to n − 1 words its whole.

    A text is a string value, however deep: of JSONL and JSON (SQuAD's form too), of the columns of CSV and Parquet, of a line of
    .txt. A text that many rows of a file share, such as the instruction above each question, is none of it: half of the training
    data may have it too. A passage to which a few questions belong is one.

    Gzipped files, directories and patterns of them, local or behind an fsspec URL. Raises UsageError for a path without such a
    file, a file that cannot be read whole, and a path without a text of 6 words. What a file says is in memory while it is read.
    """
    if n < SHORTEST:
        raise UsageError(f"runs of {n} words come up by themselves; give {SHORTEST} at least ({WORDS} is usual)")
    found = set[int]()
    for path in paths:
        of_path = {hashed for file in _files(path) for text in _own_texts(file) for hashed in _ngrams(text.split(" "), n)}
        if not of_path:
            raise UsageError(
                f"evaluation file {path} has no text of {SHORTEST} words or more (beside what many rows share), so there is "
                "nothing to compare with"
            )
        found |= of_path
    return frozenset(found)


def ngrams_of(texts: Iterable[str], n: int = WORDS) -> frozenset[int]:
    """The same of texts that are at hand."""
    return frozenset(hashed for text in texts for hashed in _ngrams(tokens(text), n))


def contaminated(text: str, ngrams: frozenset[int], n: int = WORDS) -> bool:
    """Whether `text` has a run of `n` words of an evaluation text, or the whole of a shorter one, anywhere.

    `n` is what load_ngrams was given.
    """
    if not ngrams:
        return False
    return any(not ngrams.isdisjoint(runs.tolist()) for runs in run_hashes(tokens(text), n)[_shortest(n) - 1 :])


def _shortest(n: int) -> int:
    """Tokens of the shortest text that is compared. Where a word has several tokens (Thai: n is 4 × 13), as many more."""
    return max(SHORTEST, SHORTEST * n // WORDS)


def _ngrams(words: list[str], n: int) -> list[int]:
    if len(words) < _shortest(n):
        return []
    return run_hashes(words, min(n, len(words)))[-1].tolist()


def _own_texts(file: str) -> list[str]:
    """The texts of a file, words with one blank between, without those that many of its rows share."""
    rows, found = 0, Counter[str]()
    for row in _rows(file):
        rows += 1
        found.update({" ".join(tokens(text)) for text in strings(row)})
    return [text for text, count in found.items() if count <= MANY_ROWS and (count < 3 or count < MOST_ROWS * rows)]


def _files(path: str) -> list[str]:
    files = find_files(path)
    if not files:
        raise UsageError(f"evaluation file {path}: there is no file that ends in {', '.join(SUFFIXES)} (or in these and .gz)")
    return files


def _rows(file: str) -> Iterator[Any]:
    """Rows of a file; of JSON the elements of its list, or of the lists in its object (SQuAD's articles)."""
    if kind_of(file) == ".json":
        value = _json(file)
        for one in value.values() if isinstance(value, dict) else [value]:
            yield from one if isinstance(one, list) else [one]
        return
    for row in read_rows(file, documents="line"):
        if row.fault:
            raise UsageError(f"evaluation file {file}, row {row.number}: {row.fault}; mend it, or nothing is compared with it")
        yield row.columns


def _json(path: str) -> Any:
    """The value of a whole file, or the list of those of its lines."""
    try:
        with fsspec.open(path, "rt", encoding="utf-8-sig", compression="infer") as file:
            text = file.read()
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return [json.loads(line) for line in text.split("\n") if line.strip()]  # not splitlines(): it would split at U+2028
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"evaluation file {path} cannot be read: {error}") from error


def strings(value: Any) -> Iterator[str]:
    """However deep: strings({"a": "x", "b": [{"c": "y"}, 1]}) gives "x" and "y"."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
