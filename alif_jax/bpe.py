"""BPE merges learnt on a text, continuing those of a given tokenizer.json. Not a trainer of tokenizers from nothing; no weights.

A *word* is what the base's normalizer and pre-tokenizer leave together; no merge reaches beyond it. Its *symbols* are the ids of
the tokens it is made of at present, or `-1 - code point` for a character that the base has no token for (it spells it in bytes or
as the unknown token). Such a character becomes a token of its own when its turn comes, as if it were a pair.

A merge never makes a token that the base has already: text in which no new token occurs is encoded as by the base.
"""

import heapq
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

import tokenizers

from alif_jax import UsageError
from alif_jax.files import join, open_file

# SentencePiece's bases have no pre-tokenizer and mark a word by the ▁ before it; their own tokens never reach over one.
WORD = re.compile(r"▁*[^▁\s]+")

Pair = tuple[int, int]


@dataclass(frozen=True)
class Base:
    """A tokenizer to be continued. spec: its tokenizer.json; core: the same, ready to run."""

    directory: str
    spec: dict[str, Any]
    core: tokenizers.Tokenizer

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Of the model and of the added tokens."""
        return self.core.get_vocab(with_added_tokens=True)

    @cached_property
    def size(self) -> int:
        """The first free id: rows that its embedding needs."""
        return max(self.vocab.values()) + 1

    @cached_property
    def alphabet(self) -> set[str]:
        """The characters that have a token."""
        return {token for token in self.spec["model"]["vocab"] if len(token) == 1}

    @cached_property
    def added(self) -> re.Pattern[str] | None:
        """Finds added tokens in a text."""
        contents = sorted((token["content"] for token in self.spec["added_tokens"]), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, contents))) if contents else None

    def words(self, text: str) -> Iterator[str]:
        """The words of a text: [.. "یہ کتاب" ..] → "▁یہ", "▁کتاب", or in a byte-level alphabet "ÛĮÛģ", "ĠÚ©ØªØ§Ø¨"."""
        normalizer, splitter = self.core.normalizer, self.core.pre_tokenizer
        for part in self.added.split(text) if self.added else [text]:
            part = normalizer.normalize_str(part) if normalizer else part
            for piece, _ in splitter.pre_tokenize_str(part) if splitter else [(part, None)]:
                yield from WORD.findall(piece)

    def encode(self, word: str) -> list[int]:
        return [token.id for token in self.core.model.tokenize(word)]

    def symbols(self, word: str) -> list[int]:
        """The base's tokens of a word: [17, 5, -1728] of a word that ends in a character without a token."""
        if self.alphabet.issuperset(word):
            return self.encode(word)
        symbols: list[int] = []
        for known, group in groupby(word, self.alphabet.__contains__):
            characters = "".join(group)
            symbols += self.encode(characters) if known else [-1 - ord(character) for character in characters]
        return symbols


@dataclass(frozen=True)
class Extension:
    """What was learnt. tokens: text → id, in order. merges: in order, after the base's.

    parts: for each new token, in order, the base's tokens that it takes the place of. frequent: new ids by how often they stand
    in the text, most first. words: each word of the text in its tokens, as the extended tokenizer must encode it.
    """

    tokens: dict[str, int]
    merges: list[tuple[str, str]]
    parts: list[list[int]]
    frequent: list[int]
    words: dict[str, list[int]]


def read_base(directory: str) -> Base:
    """Raises UsageError for a tokenizer that merges cannot extend, naming its type."""
    path = join(directory, "tokenizer.json")
    with open_file(path) as file:
        data = file.read()
    try:
        spec, core = json.loads(data), tokenizers.Tokenizer.from_buffer(data)
    except ValueError as error:
        raise UsageError(f"{path}: not a tokenizer ({error})") from None
    model = spec["model"]
    kind = model.get("type") or ("BPE" if "merges" in model else "of no type")
    if kind != "BPE":
        raise UsageError(f"{path}: the model is {kind}; only BPE can be extended by merges")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UsageError(f"{path}: model.{key}={model[key]!r} is not implemented; implemented: none")
    core.no_padding()
    core.no_truncation()
    return Base(directory, spec, core)


def count_words(base: Base, texts: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(base.words(text))
    return counts


# --- learning ---------------------------------------------------------------------------------------------------------


@dataclass
class _Table:
    """All distinct words in their present symbols. pairs: how often each pair stands in the text; where: in which words.

    heap: (-count, pair); an entry whose count is no longer true is put right when it comes up. Where a count grows, a new
    entry is pushed at once.
    """

    words: list[str]
    symbols: list[list[int]]
    counts: list[int]
    pairs: Counter[Pair]
    where: defaultdict[Pair, set[int]]
    heap: list[tuple[int, Pair]]


def learn(base: Base, words: Mapping[str, int], *, new_tokens: int, min_frequency: int) -> Extension:
    """Merges the most frequent pair again and again, until there are `new_tokens` or no pair occurs `min_frequency` times.

    Of pairs with the same count the one with the smaller ids is first. Two pairs never make the same new text: what a text
    becomes by itself it becomes wherever no merge crosses its ends. So `ignore_merges` needs no care: a word that is a new
    token is merged to that token.

    With only single characters in the base, words {"ab": 5, "abc": 3}: a+b (8), then ab+c (3).
    """
    table = _table(base, words)
    vocab, texts = dict(base.vocab), {id: token for token, id in base.vocab.items()}
    parts: dict[int, list[int]] = {}
    merges: list[tuple[str, str]] = []
    while len(parts) < new_tokens and (best := _most_frequent(table, min_frequency)):
        left, right = best
        text = chr(-1 - left) if left < 0 else texts[left] + texts[right]
        below = base.encode(text) if left < 0 else parts.get(left, [left]) + parts.get(right, [right])
        if text in vocab or not below or (left < 0 and not _is_written(text)):
            continue
        token = base.size + len(parts)
        vocab[text], texts[token], parts[token] = token, text, below
        merges += [(texts[left], texts[right])] if left >= 0 else []
        grown: set[Pair] = set()
        for index in table.where.pop(best):
            grown |= _put(table, index, merged(table.symbols[index], best, token))
        for pair in grown:
            heapq.heappush(table.heap, (-table.pairs[pair], pair))
    tokens = {texts[token]: token for token in parts}
    spelled = {word: _spelled(base, symbols) for word, symbols in zip(table.words, table.symbols, strict=True)}
    return Extension(tokens, merges, list(parts.values()), _by_frequency(table, base.size), spelled)


def _is_written(character: str) -> bool:
    """Not of spaces and controls; the format characters are, as the joiner and non-joiner of Urdu."""
    return character.isprintable() or unicodedata.category(character) == "Cf"


def _table(base: Base, words: Mapping[str, int]) -> _Table:
    table = _Table([], [], [], Counter(), defaultdict(set), [])
    for word, count in words.items():
        table.words.append(word)
        table.counts.append(count)
        table.symbols.append([])
        _put(table, len(table.words) - 1, base.symbols(word))
    table.heap = [(-count, pair) for pair, count in table.pairs.items()]
    heapq.heapify(table.heap)
    return table


def _pairs(symbols: list[int]) -> Iterator[Pair]:
    """Adjacent tokens; a character without a token stands for itself, twice, and parts its neighbours."""
    for pair in pairwise(symbols):
        if pair[0] >= 0 <= pair[1]:
            yield pair
    for symbol in symbols:
        if symbol < 0:
            yield symbol, symbol


def _put(table: _Table, index: int, symbols: list[int]) -> set[Pair]:
    """Gives a word new symbols and brings the counts up to date. Returns the pairs of which there are more now."""
    changes: dict[Pair, int] = {}
    for sign, side in ((-1, table.symbols[index]), (1, symbols)):
        for pair in _pairs(side):
            changes[pair] = changes.get(pair, 0) + sign
    grown = set()
    for pair, change in changes.items():
        if change:
            table.pairs[pair] += change * table.counts[index]
        if change > 0:
            table.where[pair].add(index)
            grown.add(pair)
    table.symbols[index] = symbols
    return grown


def _most_frequent(table: _Table, min_frequency: int) -> Pair | None:
    while table.heap:
        negative, pair = heapq.heappop(table.heap)
        count = table.pairs[pair]
        if count == -negative:
            return pair if count >= min_frequency else None
        if 0 < count < -negative:
            heapq.heappush(table.heap, (-count, pair))
    return None


def merged(symbols: list[int], pair: Pair, token: int) -> list[int]:
    """A word with each occurrence of the pair replaced, from the left: [1, 1, 1, 2] with (1, 1) → 9: [9, 1, 2]."""
    if pair[0] < 0:
        return [token if symbol == pair[0] else symbol for symbol in symbols]
    result, at, last = [], 0, len(symbols) - 1
    while at <= last:
        if at < last and symbols[at] == pair[0] and symbols[at + 1] == pair[1]:
            result.append(token)
            at += 2
        else:
            result.append(symbols[at])
            at += 1
    return result


def _by_frequency(table: _Table, first: int) -> list[int]:
    counts: Counter[int] = Counter()
    for symbols, count in zip(table.symbols, table.counts, strict=True):
        for symbol in symbols:
            counts[symbol] += count
    return sorted((id for id in counts if id >= first), key=lambda id: (-counts[id], id))


def _spelled(base: Base, symbols: list[int]) -> list[int]:
    """With the characters that got no token as the base writes them."""
    return [id for symbol in symbols for id in ([symbol] if symbol >= 0 else base.encode(chr(-1 - symbol)))]


# --- the extended tokenizer -------------------------------------------------------------------------------------------


def extended(base: Base, extension: Extension) -> str:
    """The tokenizer.json with the new tokens and merges after the base's."""
    model = base.spec["model"]
    # Added tokens keep their ids only if the model has them too: `tokenizers` numbers the others anew, after the model's last.
    added = {token["content"]: token["id"] for token in base.spec["added_tokens"]}
    vocab = {**model["vocab"], **added, **extension.tokens}
    as_text = bool(model["merges"]) and isinstance(model["merges"][0], str)
    merges = [" ".join(pair) if as_text else list(pair) for pair in extension.merges]
    spec = {**base.spec, "model": {**model, "vocab": vocab, "merges": model["merges"] + merges}}
    return json.dumps(spec, ensure_ascii=False, indent=2)


def check(base: Base, extension: Extension, core: tokenizers.Tokenizer) -> None:
    """Raises UsageError unless `core` encodes each word of the text as it was learnt, and keeps the base's ids."""
    vocab = core.get_vocab(with_added_tokens=True)
    wrong = next((token for token, id in (base.vocab | extension.tokens).items() if vocab.get(token) != id), None)
    for word, ids in extension.words.items() if wrong is None else ():
        if [token.id for token in core.model.tokenize(word)] != ids:
            wrong = word
            break
    if wrong is not None:
        raise UsageError(
            f"{base.directory}: this kind of BPE cannot be extended here (the result does not encode {wrong!r} as learnt); "
            "nothing was written"
        )
