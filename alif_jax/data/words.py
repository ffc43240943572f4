r"""Text → token ids by way of words whose tokens are remembered: the same ids and offsets as the tokenizer's own, sooner.

Byte-level BPE (Llama 3, Qwen, GPT-2) first splits a text by a pattern and then encodes each piece apart. Most of the time goes into
the pattern; without it the whole way from shards to the cache is nearly twice as fast. No piece of those patterns goes on beyond
a single space between two visible characters, so a text may be cut there:

    "یہ ایک  گھر\nہے۔ 12"   →   "یہ", " ایک  گھر\nہے۔", " 12"      (a double space and a line break are left to the pattern)

Where that is not known of a tokenizer it encodes whole texts, as it always does.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import tokenizers

CUT = re.compile(r"(?<=\S) (?=\S)")
NO_CUT = re.compile(r" (?:\s|\Z|(?<=\s )|(?<=\A ))")  # a space of which CUT would not hold
LIMIT = 200_000  # words remembered, about 80 MB
JOINED = 1000  # words encoded in one text
LONG = 40  # characters; what is longer hardly comes back
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)  # fmt: skip
PATTERNS = (PATTERN % "{1,3}", PATTERN % "")  # of Llama 3 and of Qwen; GPT-2's is built into ByteLevel


class Tokens(NamedTuple):
    ids: np.ndarray  # int32 [T]
    offsets: np.ndarray  # int64 [T, 2], characters; [0, 2] where they were not asked for


@dataclass
class Words:
    """A tokenizer that remembers words: the ids, and the begin and end of each token, of " word" for each known word."""

    core: tokenizers.Tokenizer
    ids: dict[str, list[int]] = field(default_factory=dict)
    bounds: dict[str, list[int]] = field(default_factory=dict)

    @cached_property
    def separable(self) -> bool:
        return may_cut(self.core)

    def encode(self, texts: Sequence[str], *, offsets: bool) -> list[Tokens]:
        """The tokens of exactly these texts; special tokens written in them are recognised, none are added."""
        split = [_words(text) if self.separable else [text] for text in texts]
        if len(self.ids) > LIMIT:
            self.ids.clear()
            self.bounds.clear()
        new = list(set(chain.from_iterable(words[1:] for words in split)).difference(self.ids))
        self._learn(new)
        run = self.core.encode_batch if offsets else self.core.encode_batch_fast
        # Mostly special tokens and a word, so seldom twice the same.
        firsts = run([words[0] for words in split], add_special_tokens=False)
        encoded = [self._join(words, first, offsets) for words, first in zip(split, firsts, strict=True)]
        for word in new:
            if len(word) > LONG:
                del self.ids[word], self.bounds[word]
        return encoded

    def _learn(self, new: list[str]) -> None:
        """Encodes words, many in one text, as a text costs as much as ten words; those that would join the next one, alone."""
        joinable = [word for word in new if not word[-1].isspace()]
        parts = [joinable[at : at + JOINED] for at in range(0, len(joinable), JOINED)]
        parts += [[word] for word in new if word[-1].isspace()]
        texts = [" ".join([".", *part]) for part in parts]
        for part, encoding in zip(parts, self.core.encode_batch(texts, add_special_tokens=False), strict=True):
            begins = np.cumsum([1, *(len(word) + 1 for word in part[:-1])])  # of each word's space, after the "."
            bounds = np.fromiter(_flat(encoding), np.int64).reshape(-1, 2)
            edges = np.append(np.searchsorted(bounds[:, 0], begins), len(bounds))  # the first token of each word, and the end
            relative = (bounds[edges[0] :] - np.repeat(begins, np.diff(edges))[:, None]).ravel().tolist()
            ids, skipped = encoding.ids, int(edges[0])
            for word, first, end in zip(part, edges.tolist(), edges[1:].tolist(), strict=False):
                self.ids[word] = ids[first:end]
                self.bounds[word] = relative[2 * (first - skipped) : 2 * (end - skipped)]

    def _join(self, words: list[str], first: tokenizers.Encoding, offsets: bool) -> Tokens:
        """One text's tokens from those of its words, in which offsets begin at 0. No loop in Python: that was half of all time."""
        others = words[1:]
        ids = [first.ids, *map(self.ids.__getitem__, others)]
        joined = np.fromiter(chain.from_iterable(ids), np.int32)
        if not offsets:
            return Tokens(joined, np.zeros((0, 2), np.int64))
        bounds = chain(_flat(first), chain.from_iterable(map(self.bounds.__getitem__, others)))
        begins = np.cumsum(np.fromiter(chain([0], map(len, words)), np.int64)[:-1] + (np.arange(len(words)) > 1))
        each = np.fromiter(map(len, ids), np.int64)
        return Tokens(joined, np.fromiter(bounds, np.int64).reshape(-1, 2) + np.repeat(begins, each)[:, None])


def _words(text: str) -> list[str]:
    """The text, cut at CUT, without the spaces there."""
    return CUT.split(text) if NO_CUT.search(text) else text.split(" ")


def _flat(encoding: tokenizers.Encoding) -> list[int]:
    return list(chain.from_iterable(encoding.offsets))


def may_cut(core: tokenizers.Tokenizer) -> bool:
    """Whether a text may be cut at CUT: all that looks at more than one piece of the pattern is known, and does not there."""
    normalizer, splitter, processor = (_parts(part) for part in (core.normalizer, core.pre_tokenizer, core.post_processor))
    *before, last = splitter or [{}]
    by_pattern = [part.get("pattern", {}).get("Regex") in PATTERNS and part["behavior"] == "Isolated" for part in before]
    trims = [part.get("trim_offsets") and part["add_prefix_space"] for part in processor if part["type"] == "ByteLevel"]
    added = core.get_added_tokens_decoder().values()
    return (
        isinstance(core.model, tokenizers.models.BPE)
        and not core.model.dropout
        and all(part["type"] == "NFC" for part in normalizer)
        and last.get("type") == "ByteLevel"
        and not last["add_prefix_space"]
        and (by_pattern == [True] and not last["use_regex"] or not before and last["use_regex"])
        and not any(trims)  # the first token of a word would be taken for the first of the text
        and not any(token.lstrip or token.rstrip or token.single_word or CUT.search(token.content) for token in added)
    )


def _parts(part: Any) -> list[dict[str, Any]]:
    """A stage of a tokenizer as in tokenizer.json; a sequence of stages is its members."""
    if part is None:
        return []
    state = json.loads(part.__getstate__())
    return state.get("pretokenizers") or state.get("normalizers") or state.get("processors") or [state]
