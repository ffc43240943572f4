"""From token ids to text while they come: letters whole, stop strings cut off, and what OpenAI writes of a token. No HTTP.

The pieces of `TextStream`, joined, are `Tokenizer.decode` of all the ids, up to a stop string.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel

from alif_jax.serve.engine import Token
from alif_jax.tokenizer import Tokenizer

WINDOW = 16  # tokens that are decoded again with the next ones; some decoders write a token by what stands before it
UNKNOWN = "\ufffd"  # also how an unfinished letter at the end is decoded
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # SentencePiece's spelling of a byte


class TextStream:
    """The text of one answer. `given` counts the ids that were taken; `stopped`: a stop string came, which ends the text.

    A byte-level token may hold half a letter: the letter is given once it is whole. The text after what may be the beginning of a
    stop string is given once it is not. Of several stop strings the one that is complete first cuts the text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.stopped, self.given = False, 0
        self._tokenizer, self._stops = tokenizer, stops
        self._ids: list[int] = []
        self._start = 0  # of the window in _ids
        self._sent = 0  # letters of the window's text that were passed on
        self._mark: int | None = None  # an end of a token up to which all was sent: where the next window may begin
        self._held = ""  # may be the beginning of a stop string

    def push(self, ids: Sequence[int]) -> str:
        """The text that is sure after these ids. After a stop string the ids that follow are not taken."""
        if not self._stops:
            self.given += len(ids)
            return self._decode(ids)
        text = ""
        for token in ids:
            self.given += 1
            text += self._until_stop(self._decode([token]))
            if self.stopped:
                break
        return text

    def finish(self) -> str:
        """The text that was held back, when no more ids come."""
        if self.stopped:
            return ""
        rest = self._tokenizer.decode(self._ids[self._start :])[self._sent :]
        text = self._until_stop(rest) if self._stops else rest
        return text if self.stopped else text + self._held

    def _decode(self, ids: Sequence[int]) -> str:
        self._ids += ids
        end = len(self._ids)
        while end > self._start and _is_byte(self._tokenizer, self._ids[end - 1]):
            end -= 1  # a run of bytes that is no valid UTF-8 as a whole is decoded as so many unknown letters
        text = self._tokenizer.decode(self._ids[self._start : end])
        sure = text.removesuffix(UNKNOWN)
        piece = sure[self._sent :]
        self._sent = max(self._sent, len(sure))
        if sure == text:
            self._move(end)
        return piece

    def _move(self, end: int) -> None:
        """Begins a new window at the mark once it is long enough, and marks `end`."""
        if self._mark is not None and end - self._mark >= WINDOW:
            shorter = self._tokenizer.decode(self._ids[self._mark : end])
            if shorter:  # else special tokens alone: what follows them would look like a text's beginning
                self._start, self._sent, self._mark = self._mark, len(shorter), None
        if self._mark is None and end > self._start:
            self._mark = end

    def _until_stop(self, piece: str) -> str:
        text = self._held + piece
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        kept = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of the text begin the stop string: ("one tw", "two") → 2."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


# --- tokens one by one ------------------------------------------------------------------------------------------------


@lru_cache
def _byte_of_letter() -> dict[str, int]:
    """The byte that each letter of the byte-level alphabet stands for: printable bytes stand for themselves, the others for
    letters from U+0100 on, in order.
    """
    alphabet = ByteLevel.alphabet()
    printable = {ord(letter): letter for letter in alphabet if ord(letter) < 256}
    others = sorted(letter for letter in alphabet if ord(letter) >= 256)
    rest = [byte for byte in range(256) if byte not in printable]
    return {letter: byte for byte, letter in [*printable.items(), *zip(rest, others, strict=True)]}


def _is_byte(tokenizer: Tokenizer, token: int) -> bool:
    return BYTE_TOKEN.fullmatch(tokenizer.core.id_to_token(token) or "") is not None


def token_bytes(tokenizer: Tokenizer, token: int) -> bytes:
    """The bytes that a token stands for; of a special token its name in UTF-8, though a text leaves it out.

    In a byte-level vocabulary "ÛĮ" → b"\\xdb\\x8c"; in SentencePiece's "▁the" → b" the", "<0xDB>" → b"\\xdb".
    """
    name = tokenizer.core.id_to_token(token) or ""
    if token in tokenizer.core.get_added_tokens_decoder():
        return name.encode()
    if b'"ByteLevel"' in tokenizer.core.decoder.__getstate__():
        letters = _byte_of_letter()
        return bytes(letters[letter] for letter in name) if all(map(letters.__contains__, name)) else name.encode()
    byte = BYTE_TOKEN.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace("▁", " ").encode()


class TokenNames:
    """What tokens of one tokenizer are called in replies: id → (text, bytes). Each is worked out once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, tuple[str, bytes]] = {}
        self._special = {id for id, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}

    def __getitem__(self, token: int) -> tuple[str, bytes]:
        """Half a letter is written as OpenAI does, "bytes:\\\\xd9": every name then is one token's alone."""
        if token not in self._known:
            raw = token_bytes(self._tokenizer, token)
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
            self._known[token] = text, raw
        return self._known[token]

    def letters(self, token: int) -> int:
        """How many letters begin in this token's part of a text."""
        return 0 if token in self._special else sum(byte & 0xC0 != 0x80 for byte in self[token][1])


def finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 where a token is out of the question."""
    return max(logprob, -9999.0)


def chat_logprobs(tokens: Sequence[Token], names: TokenNames) -> dict[str, Any]:
    """`logprobs` of a chat choice."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text, raw = names[token]
        return {"token": text, "logprob": finite(logprob), "bytes": list(raw)}

    content = [
        {**entry(token.id, token.logprob), "top_logprobs": [entry(id, logprob) for id, logprob in token.top]} for token in tokens
    ]
    return {"content": content, "refusal": None}


def old_logprobs(tokens: Sequence[Token], names: TokenNames, offset: int) -> dict[str, Any]:
    """`logprobs` of a text completion; offset: letters of the text before the first of these tokens."""
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += names.letters(token.id)
    return {
        "tokens": [names[token.id][0] for token in tokens],
        "token_logprobs": [finite(token.logprob) for token in tokens],
        "top_logprobs": [{names[id][0]: finite(logprob) for id, logprob in token.top} for token in tokens],
        "text_offset": offsets,
    }
