"""Which of many documents stay: no two alike, not too many of one domain, not too much news. Not their quality: documents.py.

Of each document a row of 141 bytes is kept (`FACTS`): what was read from its text once, in whatever task. `choose` looks at rows
of all tasks and never at a text. What it says is a function of the set of documents: their order, and how many tasks they were
divided among, make no difference.

Near documents are found by MinHash (Broder 1997) of runs of 5 words in 14 bands of 8 values, as in FineWeb (Penedo et al. 2024):
two texts are near when all values of any band are equal, which happens with probability 1 − (1 − s⁸)¹⁴ for a Jaccard similarity s:
0.92 at 0.8, 0.56 at 0.7, 0.05 at 0.5. Nearness goes on from one to the next; of all that hang together one stays. Words are
data_gen.text.tokens', so spelling, digits and punctuation make no difference.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from data_gen.dedup import band_keys, run_hashes
from data_gen.text import tokens

WORDS, BANDS, VALUES = 5, 14, 8
FACTS = np.dtype([
    ("id", "<u8"), ("tie", "<u8"), ("domain", "<u8"), ("letters", "<u4"), ("news", "?"), ("bands", "<u8", BANDS)
])  # fmt: skip
# Why a document goes, by the number that `choose` gives it; 0 stays.
CHOICES = ("", "duplicate", "near_duplicate", "domain_cap", "news_share")
DUPLICATE, NEAR, DOMAIN, NEWS = range(1, len(CHOICES))
CHOICE = np.dtype([("reason", "u1"), ("of", "<u8")])  # `of`: the id of the document that stays instead, 0 for none


def document_facts(item_id: str, text: str, *, domain: str = "", news: bool = False, tie: str = "", pieces: int = 1) -> np.ndarray:
    """One row of FACTS. `item_id` is 16 hex digits; `pieces` are the tokens of a word (a pack's pieces_a_word).

    `tie` is all that tells two pages of the same text apart (address, date …): of those the lowest hash of it stays. A text shorter
    than a run of words is one run; one without a word has no bands and is near to nothing.

    document_facts("00000000000000ff", "ایک دو تین")["id"] == 255
    """
    row = np.zeros((), FACTS)
    row["id"], row["tie"], row["domain"] = int(item_id, 16), _hash(tie), _hash(domain)
    row["letters"], row["news"] = len(text), news
    words = tokens(text)
    if words:
        row["bands"] = band_keys(run_hashes(words, min(WORDS * pieces, len(words)))[-1], BANDS, VALUES)
    return row


def _hash(text: str) -> int:
    """64 bits; 0 for the empty text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") if text else 0


def choose(tasks: Sequence[np.ndarray], *, domain_cap: int = 0, max_news_share: float = 1.0) -> list[np.ndarray]:
    """For each array of FACTS one of CHOICE, row by row.

    Of documents with the same id one stays, of near ones the longest (of several the lowest id). Of what is left each domain keeps
    `domain_cap` documents (0: all; a document without a domain counts for none), and then so many of the news stay that they are at
    most `max_news_share` of all that stays; the lowest ids do, which are hashes and so choose evenly. Below 1 nothing is left
    of a corpus that is all news.

    The rows may be memory-mapped: one column is read at a time. Memory beside them: 85 bytes a document.
    """
    made = np.zeros(sum(map(len, tasks)), CHOICE)
    ids = _column(tasks, "id")
    _same_id(made, ids, _column(tasks, "tie"))
    _near(made, ids, tasks)
    _domain_cap(made, ids, _column(tasks, "domain"), domain_cap)
    _news_share(made, ids, _column(tasks, "news"), max_news_share)
    return np.split(made, np.cumsum([len(task) for task in tasks])[:-1])


def _column(tasks: Sequence[np.ndarray], name: str, band: int | None = None) -> np.ndarray:
    parts = [task[name] if band is None else task[name][:, band] for task in tasks]
    return np.concatenate(parts) if parts else np.zeros(0, FACTS[name].base)


def _same_id(made: np.ndarray, ids: np.ndarray, ties: np.ndarray) -> None:
    order = np.lexsort((ties, ids))
    again = order[1:][ids[order[1:]] == ids[order[:-1]]]
    made["reason"][again] = DUPLICATE
    made["of"][again] = ids[again]


def _near(made: np.ndarray, ids: np.ndarray, tasks: Sequence[np.ndarray]) -> None:
    rows = np.flatnonzero(made["reason"] == 0)
    group = np.arange(len(rows))
    for band in range(BANDS):
        keys = _column(tasks, "bands", band)[rows]
        order = np.argsort(keys)
        keys = keys[order]
        equal = (keys[1:] == keys[:-1]) & (keys[1:] != 0)
        group = _joined(group, order[1:][equal], order[:-1][equal])
    letters = _column(tasks, "letters")[rows].astype(np.int64)
    order = np.lexsort((ids[rows], -letters, group))
    first = np.ones(len(order), bool)
    first[1:] = group[order[1:]] != group[order[:-1]]
    stays = rows[order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]]  # the first of each one's group
    gone = rows[order[~first]]
    made["reason"][gone] = NEAR
    made["of"][gone] = ids[stays[~first]]


def _joined(group: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Groups of rows (each named by one of its rows) after left[k] and right[k] were joined for every k.

    _joined([0, 1, 2, 3], [0], [3]) is [0, 1, 2, 0]. A pass hangs every group that has a lower neighbour below the lowest one.
    """
    while True:
        one, other = group[left], group[right]
        apart = one != other
        if not apart.any():
            return group
        left, right = left[apart], right[apart]
        low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
        np.minimum.at(group, high, low)
        while (group[group] != group).any():
            group = group[group]


def _domain_cap(made: np.ndarray, ids: np.ndarray, domains: np.ndarray, cap: int) -> None:
    if not cap:
        return
    rows = np.flatnonzero((made["reason"] == 0) & (domains != 0))
    order = rows[np.lexsort((ids[rows], domains[rows]))]
    first = np.flatnonzero(np.diff(domains[order], prepend=domains[order[:1]] + np.uint64(1)))  # where a domain begins
    place = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    made["reason"][order[place >= cap]] = DOMAIN


def _news_share(made: np.ndarray, ids: np.ndarray, news: np.ndarray, share: float) -> None:
    if share >= 1:
        return
    stays = made["reason"] == 0
    rows = np.flatnonzero(stays & news)
    others = int(stays.sum()) - len(rows)
    most = int(share * others / (1 - share) + 1e-9)  # news / (news + others) = share; 0.7 · 3 / 0.3 is 6.999999999999998
    made["reason"][rows[np.argsort(ids[rows])][most:]] = NEWS
