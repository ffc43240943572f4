"""Records → whole token sequences with flags of what is trained and what the model is to produce.

Rendering and masks only: what is cut at the row length and how results are cached is cache.py's, packing is pack.py's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alif_jax import UsageError
from alif_jax.chat_template import BEGIN, END, Span
from alif_jax.data.tfrecord import Record
from alif_jax.data.words import Tokens, Words
from alif_jax.languages import english_name
from alif_jax.tokenizer import Message, Tokenizer

FLAG_TRAINED, FLAG_RESPONSE = 1, 2  # bits of Encoded.flags


@dataclass(kw_only=True)
class DataConfig:
    """path: directories of TFRecord shards with manifest.json, one a source. sequence_length: tokens a row.

    eval_path: directories whose held-out split is measured; none = those of `path`.
    weights: share of the tokens of each source; none = every example once an epoch. max_epochs: with weights, at most so many
    passes over each source in the whole run; none = no limit.
    substitute: exact counts: substitute[i] examples of source i take the place of as many of the first (substitute[0] is 0).
    template: "" is the tokenizer's chat template; else a name in `alif_jax/templates/` or a path to a Jinja file.
    loss_on: `responses` trains the assistant's turns, `all` the whole text. Documents are always trained whole.
    document_template: text around a document; `{text}` is the document, `{title}` its `meta.title` ("" if it has none).
    packing: several examples a row, kept apart by segment ids; without it a row holds one example.
    long_documents: `split` into consecutive examples, or `cut` at sequence_length.
    long_conversations: `drop`, or `truncate_response`: the last answer is cut, never a question. All are counted by source.
    cache_dir: of tokenised sources; "" = $XDG_CACHE_HOME/alif_jax or ~/.cache/alif_jax. workers: processes that tokenise;
    0 = one a core.
    """

    path: tuple[str, ...] = ()
    eval_path: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    max_epochs: tuple[float, ...] = ()
    substitute: tuple[int, ...] = ()
    sequence_length: int = 2048
    template: str = ""
    loss_on: str = "responses"
    document_template: str = "{text}"
    packing: bool = True
    long_documents: str = "split"
    long_conversations: str = "drop"
    cache_dir: str = ""
    workers: int = 0

    def validate(self) -> None:
        self._validate_choices()
        self._validate_sources()
        if self.sequence_length < 2:
            raise UsageError(f"data.sequence_length={self.sequence_length}: at least 2")
        if self.workers < 0:
            raise UsageError(f"data.workers={self.workers}: 0 (one a core) or more")
        try:
            filled = self.document_template.format(text="{text}", title="")
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise UsageError(f"data.document_template: only {{text}} and {{title}} may stand in it ({error!r})") from None
        if "{text}" not in filled:
            raise UsageError(f"data.document_template={self.document_template!r}: without {{text}} no document would be trained")

    def _validate_choices(self) -> None:
        choices = {
            "loss_on": ("responses", "all"),
            "long_documents": ("split", "cut"),
            "long_conversations": ("drop", "truncate_response"),
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise UsageError(f"data.{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}")

    def _validate_sources(self) -> None:
        for key in ("weights", "max_epochs", "substitute"):
            values = getattr(self, key)
            if values and len(values) != len(self.path):
                raise UsageError(f"data.{key}={values}: {len(values)} values for {len(self.path)} sources in data.path; one each")
        for key in ("path", "eval_path"):
            if not all(getattr(self, key)):
                raise UsageError(f"data.{key}={getattr(self, key)}: an empty directory name")
        for key in ("weights", "max_epochs"):
            values = getattr(self, key)
            if not all(math.isfinite(value) and value > 0 for value in values):
                raise UsageError(f"data.{key}={values}: every value is above 0; leave a source out of data.path instead")
        if self.max_epochs and not self.weights:
            raise UsageError("data.max_epochs limits weighted sources: set data.weights too, or num_train_epochs alone")
        if self.substitute and self.weights:
            raise UsageError("data.substitute and data.weights exclude each other: exact counts, or shares of the tokens")
        if self.substitute and (self.substitute[0] != 0 or min(self.substitute) < 0):
            raise UsageError(f"data.substitute={self.substitute}: 0 for the first source, whose examples give way, then counts")


class Encoded(NamedTuple):
    """A whole record as tokens.

    flags[t]: FLAG_TRAINED where token t is a target of the loss, FLAG_RESPONSE where it is in something that the model is to
    produce (an assistant's turn, a document). text_bytes: UTF-8 bytes of the trained text without special tokens, for bits a byte.
    """

    ids: np.ndarray  # int32 [T]
    flags: np.ndarray  # uint8 [T]
    text_bytes: int


class _Rendered(NamedTuple):
    text: str
    document: bool
    trained: Sequence[Span] = ()  # of a conversation
    responses: Sequence[Span] = ()


def encode_batch(records: Sequence[Record], tokenizer: Tokenizer, config: DataConfig, words: Words | None = None) -> list[Encoded]:
    r"""Tokenises whole records; nothing is cut. A document stands between BOS and EOS, both flagged.

    words: of tokenizer.core, kept by the caller from batch to batch, so that the next one is faster.

    user "سلام", assistant "وعلیکم السلام" by the template `turns`, loss_on=responses (T trained, R response):

        <|begin_of_text|> <|user|> \n سلام <|end_of_turn|> <|assistant|> \n وعلیکم السلام <|end_of_turn|>
                                                                           TR     TR         TR

    What a template writes after the last stop token of a span (ChatML: a newline) is never generated, so not trained.
    A record may come out without a token to train on: fit.py refuses those of all sources at once. Raises UsageError naming a
    record that the template refuses.
    """
    uses_language = tokenizer.uses_language
    rendered = [_render(record, tokenizer, config, uses_language) for record in records]
    special = _special_tokens(tokenizer)
    words = words or Words(tokenizer.core)
    documents = iter(words.encode([item.text for item in rendered if item.document], offsets=False))
    chats = iter(words.encode([item.text for item in rendered if not item.document], offsets=True))
    return [
        _encode_document(item.text, next(documents), special)
        if item.document
        else _encode_chat(item, next(chats), tokenizer, special)
        for item in rendered
    ]


class _Special(NamedTuple):
    """By token id, with one more place at the end for all ids above the last special one."""

    is_stop: np.ndarray  # bool: a special token other than BOS
    text_bytes: np.ndarray  # int64: UTF-8 bytes of a special token's text, 0 for the others


def _special_tokens(tokenizer: Tokenizer) -> _Special:
    texts = {i: token.content for i, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}
    special = _Special(np.zeros(max(texts, default=0) + 2, bool), np.zeros(max(texts, default=0) + 2, np.int64))
    for i, text in texts.items():
        special.is_stop[i], special.text_bytes[i] = i != tokenizer.bos_id, len(text.encode())
    return special


def _encode_document(text: str, tokens: Tokens, special: _Special) -> Encoded:
    ids = tokens.ids
    markers = special.text_bytes[np.minimum(ids, len(special.text_bytes) - 1)].sum()
    return Encoded(ids, np.full(len(ids), FLAG_TRAINED | FLAG_RESPONSE, np.uint8), len(text.encode()) - int(markers))


def _encode_chat(item: _Rendered, tokens: Tokens, tokenizer: Tokenizer, special: _Special) -> Encoded:
    ids, offsets = _align(item, tokens, tokenizer)
    if item.trained == item.responses:
        covered, text_bytes = _cover(item.text, item.trained, ids, offsets, special)
        return Encoded(ids, covered * (FLAG_TRAINED | FLAG_RESPONSE), text_bytes)
    trained, text_bytes = _cover(item.text, item.trained, ids, offsets, special)
    responses, _ = _cover(item.text, item.responses, ids, offsets, special)
    return Encoded(ids, trained * FLAG_TRAINED + responses * FLAG_RESPONSE, text_bytes)


def _render(record: Record, tokenizer: Tokenizer, config: DataConfig, uses_language: bool) -> _Rendered:
    if record.messages is None:
        text = config.document_template.format(text=record.text, title=record.meta.get("title") or "")
        text = (tokenizer.bos_token or "") + text + tokenizer.eos_token
        return _Rendered(text, True)
    language = english_name(record.language) if uses_language else None
    if uses_language and record.language and language is None:
        raise UsageError(
            f"record {record.id} ({record.source}): the template writes the language, and language={record.language!r} has no "
            "English name in alif_jax/languages.py; add it there, or correct the record"
        )
    try:
        text = tokenizer.render(record.messages, add_generation_prompt=False, language=language)
    except UsageError as error:
        raise UsageError(f"record {record.id} ({record.source}): {error}") from None
    try:
        responses = response_spans(text, record.messages, tokenizer, language)
    except UsageError as error:
        if config.loss_on == "responses":
            raise UsageError(f"record {record.id} ({record.source}): {error}") from None
        responses = []  # loss_on=all does without: such a conversation is dropped where another's answer would be truncated
    return _Rendered(text, False, responses if config.loss_on == "responses" else [(0, len(text))], responses)


def response_spans(text: str, messages: Sequence[Message], tokenizer: Tokenizer, language: str | None = None) -> list[Span]:
    r"""The character spans of a rendered conversation that the model is to produce, stop token included.

        messages  user "سلام", assistant "وعلیکم السلام"
        text      <|user|>\nسلام<|end_of_turn|><|assistant|>\nوعلیکم السلام<|end_of_turn|>
        spans     [                                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ ]

    Found by the template's own `{% generation %}`; else by a template of this package that has it and renders this
    conversation byte for byte the same (Qwen3's drops earlier thoughts, so only the whole tells); else turn by turn.
    """
    if (sources := tokenizer.marked_templates()) and (BEGIN in text or END in text):
        raise UsageError("the text has U+FDD0 or U+FDD1, noncharacters that no text may hold and that mark the answers here")
    for source in sources:
        try:
            same_text, spans = tokenizer.render_marked(source, messages, language)
        except UsageError:  # a template of ours that refuses what the tokenizer's own allows
            continue
        if same_text == text:
            return _with_stop_token(text, spans, tokenizer)
    return _spans_by_turn(text, messages, tokenizer, language)


def _with_stop_token(text: str, spans: Sequence[Span], tokenizer: Tokenizer) -> list[Span]:
    """The spans, each stretched over a stop token that directly follows it: a model that never learns it never stops."""
    stop = tokenizer.turn_end_token
    if stop is None:
        return list(spans)
    stretched = [(begin, end + len(stop)) if text.startswith(stop, end) else (begin, end) for begin, end in spans]
    special = [token.content for token in tokenizer.core.get_added_tokens_decoder().values() if token.special]
    for begin, end in stretched:
        if stop not in text[begin:end] and not any(token in text[begin:end] for token in special):
            raise UsageError(
                f"{tokenizer.directory}: {{% generation %}} of the chat template leaves out the stop token {stop} "
                f"(character {begin}); put it inside, else the model never learns to stop"
            )
    return stretched


def _spans_by_turn(text: str, messages: Sequence[Message], tokenizer: Tokenizer, language: str | None) -> list[Span]:
    """From the end of each generation prompt to the end of the turn, where the template leaves earlier turns as they are."""
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = tokenizer.render(messages[:i], add_generation_prompt=True, language=language)
        turn = tokenizer.render(messages[: i + 1], add_generation_prompt=False, language=language)
        if not (turn.startswith(prompt) and text.startswith(turn)):
            raise UsageError(
                f"{tokenizer.directory}: the chat template changes earlier turns when a turn is added (turn {i}), so the trained "
                "part cannot be told apart; put {% generation %} around the answers in it, or set data.template or "
                "data.loss_on=all"
            )
        spans.append((len(prompt), len(turn)))
    return spans


def _align(item: _Rendered, tokens: Tokens, tokenizer: Tokenizer) -> Tokens:
    """Ids [T] and character offsets [T, 2], with a token boundary at the begin of every response.

    Generation tokenises the prompt alone, so no token may reach from the prompt into the answer: ":" and "ا" stay two tokens
    even where the vocabulary has ":ا". Left as it is where the pieces decode to another text (SentencePiece adds a space).
    """
    offsets = tokens.offsets
    cuts = [begin for begin, _ in item.responses if ((offsets[:, 0] < begin) & (begin < offsets[:, 1])).any()]
    if not cuts:
        return tokens
    bounds = [0, *cuts, len(item.text)]
    texts = [item.text[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    pieces = Words(tokenizer.core).encode(texts, offsets=True)
    split = np.concatenate([piece.ids for piece in pieces])
    before, after = (tokenizer.core.decode(ids.tolist(), skip_special_tokens=False) for ids in (tokens.ids, split))
    if before != after:
        return tokens
    return Tokens(split, np.concatenate([piece.offsets + bound for piece, bound in zip(pieces, bounds, strict=False)]))


def _cover(text: str, spans: Sequence[Span], ids: np.ndarray, offsets: np.ndarray, special: _Special) -> tuple[np.ndarray, int]:
    """uint8 [T], 1 for the tokens of the spans up to each span's last stop token; and the UTF-8 bytes of their plain text."""
    known = np.minimum(ids, len(special.is_stop) - 1)
    is_stop, marker_bytes = special.is_stop[known], special.text_bytes[known]
    covered = np.zeros(len(ids), np.uint8)
    text_bytes = 0
    for begin, end in spans:
        inside = (offsets[:, 0] >= begin) & (offsets[:, 0] < end)
        stops = np.flatnonzero(inside & is_stop)
        if stops.size:
            inside[stops[-1] + 1 :] = False
            end = int(offsets[stops[-1], 1])
        covered[inside] = 1
        text_bytes += len(text[begin:end].encode()) - int(marker_bytes[inside].sum())
    return covered, text_bytes
