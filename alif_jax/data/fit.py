"""Whole records → examples that fit a row. What is longer is split, cut, truncated or dropped here, and counted; nothing is copied.

Rules, for what has more than `sequence_length` tokens:

    documents       split               consecutive slices                    [0 1 2 3 4 5 6], 3   →   [0 1 2] [3 4 5] [6]
                    cut                 the first slice alone
    conversations   drop                nothing
                    truncate_response   up to the last token that the model is to produce: inside an answer, or after a whole
                                        one, never inside a header or the user's turn
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from alif_jax import UsageError
from alif_jax.data.cache import Source
from alif_jax.data.template import FLAG_RESPONSE, FLAG_TRAINED, DataConfig


@dataclass(frozen=True)
class Examples:
    """n examples, each a slice of a record: example i is `sources[source[i]].tokens[begin[i]:begin[i] + lengths[i]]`.

    trained[i]: targets of the loss in it; its first token is none, as nothing comes before it. shortened: {a record's source:
    {"split" | "cut" | "truncated" | "dropped": records}}.
    """

    sources: tuple[Source, ...]
    source: np.ndarray  # int32 [n]
    record: np.ndarray  # int64 [n]
    begin: np.ndarray  # int64 [n]
    lengths: np.ndarray  # int64 [n]
    trained: np.ndarray  # int64 [n]
    text_bytes: np.ndarray  # int64 [n]: UTF-8 bytes of the trained text, for bits a byte
    shortened: dict[str, dict[str, int]]

    def __len__(self) -> int:
        return len(self.lengths)

    def tokens_of(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens int32 [L], flags uint8 [L]) of example i, views of the source."""
        source, begin = self.sources[self.source[i]], self.begin[i]
        here = slice(begin, begin + self.lengths[i])
        return source.tokens[here], source.flags[here]

    def id_of(self, i: int) -> str:
        """The id of the record that example i is a part of."""
        return self.sources[self.source[i]].ids[self.record[i]].decode()

    @cached_property
    def groups(self) -> tuple[list[dict[str, str]], np.ndarray]:
        """(table of {"source", "task", "language"}, the row of it for each example, int64 [n])."""
        table = [group for source in self.sources for group in source.groups]
        first = np.cumsum([0, *(len(source.groups) for source in self.sources)])
        codes = np.zeros(len(self), np.int64)
        for s, source in enumerate(self.sources):
            here = self.source == s
            codes[here] = first[s] + source.codes[self.record[here]]
        return table, codes


def fit_rows(sources: Sequence[Source], config: DataConfig) -> Examples:
    """The examples of all sources, in their order. A slice without a target of the loss is left out.

    Raises UsageError for records that have no such target from the start, and where nothing is left to train on, with what
    became of the records; both by source.
    """
    _check_trained(sources)
    shortened: dict[str, dict[str, int]] = {}
    parts = [_fit_source(s, source, config, shortened) for s, source in enumerate(sources)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    shortened = {name: dict(sorted(counts.items())) for name, counts in sorted(shortened.items())}
    if not parts or not len(columns["source"]):
        directories, records = ", ".join(source.name for source in sources), sum(map(len, sources))
        raise UsageError(
            f"{directories or 'data.path is empty'}: no trained token in {records:,} {sources[0].split if sources else ''} records"
            + (f" in rows of {config.sequence_length} tokens ({shortened}); set data.sequence_length higher" if records else "")
        )
    return Examples(sources=tuple(sources), shortened=shortened, **columns)


def _fit_source(s: int, source: Source, config: DataConfig, shortened: dict[str, dict[str, int]]) -> dict[str, np.ndarray]:
    """The columns of `Examples` for one source; adds to `shortened`."""
    limit, whole = config.sequence_length, np.diff(source.offsets)
    long = whole > limit
    kept, pieces = whole.copy(), np.ones(len(source), np.int64)  # kept: how many of a record's tokens remain
    if config.long_documents == "split":
        pieces[long & source.documents] = -(-whole[long & source.documents] // limit)
    else:
        kept[long & source.documents] = limit
    for i in np.flatnonzero(long & ~source.documents):
        kept[i] = _end_of_answer(source, i, limit) if config.long_conversations == "truncate_response" else 0
    pieces[kept == 0] = 0

    record = np.repeat(np.arange(len(source)), pieces)
    skipped = limit * (np.arange(len(record)) - np.repeat(np.cumsum(pieces) - pieces, pieces))  # tokens of earlier slices
    begin, lengths = source.offsets[record] + skipped, np.minimum(kept[record] - skipped, limit)
    is_trained = _is_trained(source)
    trained = _sums(is_trained, begin + 1, lengths - 1)
    text_bytes = source.text_bytes[record].copy()
    part = np.flatnonzero(lengths < whole[record])  # a slice's share of the text is that of its trained tokens
    of_record = _sums(is_trained, source.offsets[record[part]], whole[record[part]])
    share = (trained[part] + is_trained[begin[part]]) / np.maximum(of_record, 1)
    text_bytes[part] = np.rint(text_bytes[part] * share)

    usable = trained > 0
    none_left = np.bincount(record[usable], minlength=len(source)) == 0
    rules = {"dropped": none_left, config.long_documents: long & source.documents, "truncated": long & ~source.documents}
    for rule, records in rules.items():
        for code, count in enumerate(np.bincount(source.codes[records & (none_left == (rule == "dropped"))])):
            if count:
                counts = shortened.setdefault(source.groups[code]["source"], {})
                counts[rule] = counts.get(rule, 0) + int(count)
    columns = {"record": record, "begin": begin, "lengths": lengths, "trained": trained, "text_bytes": text_bytes}
    return {name: column[usable] for name, column in columns.items()} | {"source": np.full(int(usable.sum()), s, np.int32)}


def _check_trained(sources: Sequence[Source]) -> None:
    """Whole records, of all sources at once; a record's first token is nobody's target, so it does not count."""
    first, counts = "", Counter[str]()
    for source in sources:
        is_trained, begin = _is_trained(source), source.offsets[:-1]
        bad = np.flatnonzero(_sums(is_trained, begin, np.diff(source.offsets)) <= is_trained[begin])
        groups = [source.groups[code] for code in source.codes[bad]]
        if groups and not first:
            first = f"record {source.ids[bad[0]].decode()} ({groups[0]['source']}, {groups[0]['task']})"
        counts.update(group["source"] for group in groups)
    if first:
        each = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
        raise UsageError(
            f"{first} has no token to train on; remove it (such are {counts.total():,} of {sum(map(len, sources)):,} "
            f"{sources[0].split} records: {each})"
        )


def _is_trained(source: Source) -> np.ndarray:
    """1 for each token that is a target of the loss, and a 0 after the last one, uint8 [T + 1]."""
    is_trained = np.zeros(len(source.flags) + 1, np.uint8)
    np.bitwise_and(source.flags, FLAG_TRAINED, out=is_trained[:-1])
    return is_trained


def _end_of_answer(source: Source, i: np.integer, limit: int) -> int:
    """How many of the first `limit` tokens of record i there are up to the last one which the model is to produce."""
    begin = source.offsets[i]
    produced = np.flatnonzero(source.flags[begin : begin + limit] & FLAG_RESPONSE)
    return int(produced[-1]) + 1 if len(produced) else 0


def _sums(values: np.ndarray, begin: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Σ values[b : b + n] of each (b, n), int64; no b + n is the length of `values`."""
    if not len(begin):
        return np.zeros(0, np.int64)
    ends = np.stack([begin, begin + lengths], axis=1).ravel()
    return np.where(lengths > 0, np.add.reduceat(values, ends, dtype=np.int64)[::2], 0)
