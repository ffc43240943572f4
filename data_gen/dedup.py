"""What is new: every instruction against all earlier ones by exact ROUGE-L, every answer by the shingles it shares. Not a search
by meaning.

ROUGE-L F1 of two token sequences of m and n tokens is 2·LCS/(m + n) (Lin 2004). LCS is at most the number of tokens the two have in
common, repeats counted, and that is cheap to know for a whole pool at once from an index of who has which token; rapidfuzz looks
only at those whose bound reaches the best score so far. No score is approximate. The rouge_score package fills a table in Python
for every pair, and its own tokenizer finds no token in Urdu.

Answers are longer, and LCS would be slow: there MinHash (Broder 1997) proposes and the exact Jaccard similarity decides.
"""

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
from rapidfuzz.distance import LCSseq
from rapidfuzz.process import cdist

from data_gen.text import tokens

SHINGLE = 3  # words
PERMUTATIONS = 128  # at most
MISSED = 0.005  # of the pairs exactly at the threshold; of those above it fewer
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: no word's hash is lost in the product
_TOGETHER = 512  # shingles: their products stay in the cache


@dataclass(frozen=True)
class Match:
    """How near a candidate came to what was there before: the highest score (0 to 1) and the id that has it, or ""."""

    accepted: bool
    score: float
    nearest: str


NOTHING_NEAR = Match(True, 0.0, "")


class RougePool:
    """All accepted texts so far. A candidate is refused when its F1 with any of them is strictly above `threshold`.

    Memory: about 600 bytes a text of 40 words. Room for 1.1 million different words.
    """

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        self.ids: list[str] = []
        self._packed: list[str] = []
        self._lengths = array("i")
        self._vocabulary: dict[str, str] = {}
        self._having: dict[tuple[str, int], array[int]] = {}  # (word, which time it comes) → the texts, by position

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, item_id: str, text: str) -> None:
        """Adds a text without asking."""
        # A character a word: rapidfuzz compares strings twice as fast as lists.
        packed = "".join(self._vocabulary.setdefault(word, chr(len(self._vocabulary) + 1)) for word in tokens(text))
        for element in _elements(packed):
            self._having.setdefault(element, array("i")).append(len(self.ids))
        self.ids.append(item_id)
        self._packed.append(packed)
        self._lengths.append(len(packed))

    def match(self, text: str) -> Match:
        """The highest F1 over the pool and the first that has it: 7 tokens in common, of 10 and of 10, are 0.7, and accepted.

        Nothing is added. A text without tokens scores 0, and so does any against an empty pool.
        """
        packed = "".join(self._vocabulary.get(word, "\0") for word in tokens(text))  # no text of the pool has "\0"
        bounds = self._bounds(packed)
        most = float(bounds.max(initial=0.0))
        if not most:
            return NOTHING_NEAR
        # The few with the highest bounds give a score that rules most of the others out.
        best = float(self._f1(packed, np.flatnonzero(bounds > min(most - 0.1, self.threshold))).max())
        rows = np.flatnonzero(bounds >= best)
        scores = self._f1(packed, rows)
        first = int(scores.argmax())
        score = float(scores[first])
        return Match(score <= self.threshold, score, self.ids[rows[first]] if score else "")

    def _bounds(self, packed: str) -> np.ndarray:
        """What F1 with each text of the pool is at most: 2·(tokens in common)/(m + n)."""
        having = [np.frombuffer(rows, np.int32) for element in _elements(packed) if (rows := self._having.get(element))]
        if not having:
            return np.zeros(0)
        common = np.bincount(np.concatenate(having), minlength=len(self.ids))
        return 2 * common / (np.frombuffer(self._lengths, np.int32) + len(packed))

    def _f1(self, packed: str, rows: np.ndarray) -> np.ndarray:
        # A quotient of integers: 2/20 is the float 0.1, which 1 − 18/20 is not.
        longest = cdist([packed], [self._packed[row] for row in rows], scorer=LCSseq.similarity, dtype=np.int32)[0]
        return 2 * longest / (np.frombuffer(self._lengths, np.int32)[rows] + len(packed))


def _elements(packed: str) -> list[tuple[str, int]]:
    """Each word with which time it comes: "aba" → ("a", 1), ("b", 1), ("a", 2). Two texts share as many as LCS can be at most."""
    seen: Counter[str] = Counter()
    elements = []
    for word in packed:
        seen[word] += 1
        elements.append((word, seen[word]))
    return elements


class NearPool:
    """Texts of `min_words` words and more. A candidate is refused when its Jaccard similarity with one of them, over runs of
    3 words, is at or above `threshold`.

    Deterministic. A pair exactly at the threshold is missed once in 200 times, one further above it less often; nothing is refused
    wrongly. Memory of a text of 40 words: about 4 kB at 0.5, 2.4 kB at 0.8.
    """

    def __init__(self, threshold: float, *, min_words: int = 8) -> None:
        if not 0 < threshold <= 1 or min_words < SHINGLE:
            raise ValueError(f"threshold {threshold} must be above 0 and at most 1, min_words {min_words} at least {SHINGLE}")
        self.threshold = threshold
        self.min_words = min_words
        self.ids: list[str] = []
        self._shingles: list[np.ndarray] = []
        # Hash of a band → the texts that have it, by position. Nearly all bands are one text's alone: no list for those.
        self._first: dict[int, int] = {}
        self._more: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def match(self, text: str) -> Match:
        """The highest Jaccard similarity among the texts MinHash proposes and the first that has it; nothing is added."""
        shingles, keys = _hashed(text, self.threshold, self.min_words)
        met = [key for key in keys if key in self._first]
        if not met:
            return NOTHING_NEAR
        proposed = sorted({self._first[key] for key in met}.union(*(self._more.get(key, ()) for key in met)))
        scores = _jaccard(shingles, [self._shingles[row] for row in proposed])
        first = int(scores.argmax())
        score = float(scores[first])
        return Match(score < self.threshold, score, self.ids[proposed[first]] if score else "")

    def add(self, item_id: str, text: str) -> None:
        """Adds a text without asking; one that is too short is not stored."""
        shingles, keys = _hashed(text, self.threshold, self.min_words)
        if not keys:
            return
        row = len(self.ids)
        for key in keys:
            if self._first.setdefault(key, row) != row:
                self._more.setdefault(key, []).append(row)
        self.ids.append(item_id)
        self._shingles.append(shingles)


@lru_cache
def bands(threshold: float) -> tuple[int, int]:
    """(bands, values in each) of a signature: two texts are looked at when all values of any band are equal.

    bands(0.5) == (40, 3): two texts that share half have an equal band with probability 1 − (1 − 0.5³)⁴⁰ = 0.995. The longest bands
    that fit into PERMUTATIONS are taken, for they propose the fewest others.
    """
    best = (PERMUTATIONS, 1)
    for rows in range(1, PERMUTATIONS + 1):
        equal = threshold**rows
        needed = math.ceil(math.log(MISSED) / math.log1p(-equal)) if equal < 1 else 1
        if needed * rows <= PERMUTATIONS:
            best = (needed, rows)
    return best


@lru_cache(maxsize=16)  # what one pool accepted is added to another
def _hashed(text: str, threshold: float, min_words: int) -> tuple[np.ndarray, list[int]]:
    """The sorted hashes of a text's shingles and a key for each band of its signature; no keys when it is too short."""
    words = tokens(text)
    if len(words) < min_words:
        return np.zeros(0, np.uint64), []
    shingles = np.unique(run_hashes(words, SHINGLE)[SHINGLE - 1])
    return shingles, band_keys(shingles, *bands(threshold)).tolist()


def band_keys(shingles: np.ndarray, count: int, rows: int) -> np.ndarray:
    """[count] a 64-bit number for each band of a MinHash signature: equal in two texts when all `rows` values of the band are.

    Two sets of shingles (at least one each) of Jaccard similarity s have the same key in a band with probability s**rows.
    """
    a, b, weights = _permutations(count, rows)
    times, plus = a.reshape(-1, 1), b.reshape(-1, 1)
    parts = (times * shingles[k : k + _TOGETHER] + plus for k in range(0, len(shingles), _TOGETHER))
    signature = reduce(np.minimum, (part.min(axis=1) for part in parts)).reshape(count, rows)
    return (signature * weights).sum(axis=1)


@lru_cache
def _permutations(*shape: int) -> np.ndarray:
    """[3, bands, rows]: a and b of a permutation h → a·h + b of the 64-bit numbers (a is odd), and weights that make a band one
    number, each band's its own.
    """
    return np.random.default_rng(0).integers(1 << 64, size=(3, *shape), dtype=np.uint64) | np.uint64(1)


def _jaccard(wanted: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """Jaccard similarity of one set with each of some others; all are sorted, without repeats, none is empty."""
    sizes = np.array([len(other) for other in others])
    every = np.concatenate(others)
    places = np.searchsorted(wanted, every)
    places[places == len(wanted)] = 0
    shared = np.add.reduceat(wanted[places] == every, np.cumsum(sizes) - sizes, dtype=np.int64)
    return shared / (sizes + len(wanted) - shared)


def run_hashes(words: Sequence[str], longest: int) -> list[np.ndarray]:
    """Stable 64-bit hashes of all runs of words: element k has those of k + 1 words, one for each place where a run begins.

    run_hashes(["a", "b", "c"], 2) has 3 hashes of one word, then 2 of two words. Runs of different length never count as equal.
    """
    single = np.fromiter(map(_word_hash, words), np.uint64, len(words))
    runs, made = np.zeros(len(words) + 1, np.uint64), list[np.ndarray]()
    for size in range(1, longest + 1):
        runs = (runs[: max(len(words) - size + 1, 0)] ^ single[size - 1 :]) * _MULTIPLIER  # wraps around at 2⁶⁴
        runs ^= runs >> np.uint64(32)
        made.append(runs)
    return made


@lru_cache(maxsize=1 << 17)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest(), "little")
