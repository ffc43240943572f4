"""Records → token ids with a mask of the trained ones. Rendering, truncation and masks live here; packing in pack.py."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from alif_jax import UsageError
from alif_jax.data.tfrecord import Record
from alif_jax.tokenizer import Message, Tokenizer

Span = tuple[int, int]
BATCH = 1024  # records tokenised at a time: enough to keep every core busy


@dataclass(kw_only=True)
class DataConfig:
    """path: a directory of TFRecord shards with manifest.json. sequence_length: tokens a row.

    template: "" is the tokenizer's chat template; else a name in `alif_jax/templates/` or a path to a Jinja file.
    loss_on: `responses` trains the assistant's turns, `all` the whole text. Documents are always trained whole.
    document_template: text around a document; `{text}` is the document, `{title}` its `meta.title` ("" if it has none).
    packing: several examples a row, kept apart by segment ids; without it a row holds one example.
    long_documents: `split` into consecutive examples, or `cut` at sequence_length.
    long_conversations: `drop`, or `cut` at sequence_length. Both are counted by source.
    """

    path: str = ""
    sequence_length: int = 2048
    template: str = ""
    loss_on: str = "responses"
    document_template: str = "{text}"
    packing: bool = True
    long_documents: str = "split"
    long_conversations: str = "drop"

    def validate(self) -> None:
        choices = {"loss_on": ("responses", "all"), "long_documents": ("split", "cut"), "long_conversations": ("drop", "cut")}
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise UsageError(f"data.{key}={getattr(self, key)!r} is not one of {', '.join(allowed)}")
        if self.sequence_length < 2:
            raise UsageError(f"data.sequence_length={self.sequence_length}: at least 2")
        try:
            self.document_template.format(text="", title="")
        except (KeyError, IndexError, ValueError) as error:
            raise UsageError(f"data.document_template: only {{text}} and {{title}} may stand in it ({error!r})") from None


@dataclass(frozen=True)
class Examples:
    """All examples of a split, one after the other. Example i is `tokens[offsets[i]:offsets[i + 1]]`.

    trained[t]: whether token t is a target of the loss. text_bytes[i]: UTF-8 bytes of its trained text, for bits a byte.
    """

    tokens: np.ndarray  # int32 [T]
    trained: np.ndarray  # bool [T]
    offsets: np.ndarray  # int64 [n + 1]
    text_bytes: np.ndarray  # int64 [n]
    ids: list[str]
    groups: list[dict[str, str]]  # {"source": …, "task": …, "language": …}
    shortened: dict[str, int]  # source → examples that were split, cut or dropped

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


def spans_of(messages: Sequence[Message], tokenizer: Tokenizer) -> tuple[str, list[Span]]:
    """The rendered conversation, and the character spans that the model is to produce.

    A span begins where the template's generation prompt ends and ends with the assistant's turn:

        messages  user "سلام", assistant "وعلیکم السلام"
        text      <|user|>\\nسلام<|end_of_turn|><|assistant|>\\nوعلیکم السلام<|end_of_turn|>
        spans     [                                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ ]
    """
    text = tokenizer.render(messages, add_generation_prompt=False)
    spans = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = tokenizer.render(messages[:i], add_generation_prompt=True)
        turn = tokenizer.render(messages[: i + 1], add_generation_prompt=False)
        if not (turn.startswith(prompt) and text.startswith(turn)):
            raise UsageError(
                f"{tokenizer.directory}: the chat template changes earlier turns when a turn is added (turn {i}), "
                "so the trained part cannot be told apart; set data.template to one that does not, or data.loss_on=all"
            )
        spans.append((len(prompt), len(turn)))
    return text, spans


def encode_records(records: Iterable[Record], tokenizer: Tokenizer, config: DataConfig) -> Examples:
    """Tokenises records. Raises UsageError for a record without a trained token, naming its id."""
    parts: list[tuple[list[int], np.ndarray, int, Record]] = []
    shortened: Counter[str] = Counter()
    batch: list[Record] = []

    def flush() -> None:
        for record, (ids, trained, text_bytes) in zip(batch, _encode_batch(batch, tokenizer, config), strict=True):
            if not trained[1:].any():
                raise UsageError(f"record {record.id} ({record.source}, {record.task}) has no token to train on; remove it")
            pieces = _fit(len(ids), record, config)
            shortened[record.source] += pieces != [(0, len(ids))]
            for start, end in pieces:
                share = round(text_bytes * trained[start:end].sum() / trained.sum())
                if trained[start + 1 : end].any():
                    parts.append((ids[start:end], trained[start:end], share, record))
        batch.clear()

    for record in records:
        batch.append(record)
        if len(batch) == BATCH:
            flush()
    flush()
    return Examples(
        tokens=np.concatenate([np.zeros(0, np.int32), *(np.asarray(part[0], np.int32) for part in parts)]),
        trained=np.concatenate([np.zeros(0, bool), *(part[1] for part in parts)]),
        offsets=np.cumsum([0, *(len(part[0]) for part in parts)], dtype=np.int64),
        text_bytes=np.asarray([part[2] for part in parts], np.int64),
        ids=[part[3].id for part in parts],
        groups=[{"source": r.source, "task": r.task, "language": r.language} for *_, r in parts],
        shortened={source: count for source, count in shortened.items() if count},
    )


def _encode_batch(
    records: Sequence[Record], tokenizer: Tokenizer, config: DataConfig
) -> Iterable[tuple[list[int], np.ndarray, int]]:
    """(ids, trained, UTF-8 bytes of the trained text without its special tokens) of each record, whole."""
    texts: list[str] = []
    spans: list[list[Span]] = []
    for record in records:
        if record.messages is None:
            title = record.meta.get("title", "")
            text = config.document_template.format(text=record.text, title=title)
            text = (tokenizer.bos_token or "") + text + tokenizer.eos_token
            texts.append(text)
            spans.append([(0, len(text))])
        elif config.loss_on == "all":
            texts.append(tokenizer.render(record.messages, add_generation_prompt=False))
            spans.append([(0, len(texts[-1]))])
        else:
            text, turns = spans_of(record.messages, tokenizer)
            texts.append(text)
            spans.append(turns)
    special = {i for i, token in tokenizer.core.get_added_tokens_decoder().items() if token.special}
    for text, trained_spans, encoding in zip(
        texts, spans, tokenizer.core.encode_batch(texts, add_special_tokens=False), strict=True
    ):
        ids, offsets = encoding.ids, encoding.offsets
        starts = np.asarray([start for start, _ in offsets])
        trained = np.zeros(len(ids), bool)
        text_bytes = 0
        for begin, end in trained_spans:
            inside = np.flatnonzero((starts >= begin) & (starts < end))
            markers = [at for at in inside if ids[at] in special]
            stops = [at for at in markers if ids[at] != tokenizer.bos_id]
            if stops:  # what a template writes after the stop token (ChatML: a newline) is never generated, so not trained
                inside, end = inside[inside <= stops[-1]], offsets[stops[-1]][1]
            trained[inside] = True
            text_bytes += len(text[begin:end].encode()) - sum(len(text[slice(*offsets[at])].encode()) for at in markers)
        yield ids, trained, text_bytes


def _fit(length: int, record: Record, config: DataConfig) -> list[Span]:
    """Which parts of a tokenised record become examples: all of it, a head, several pieces, or none."""
    limit = config.sequence_length
    if length <= limit:
        return [(0, length)]
    rule = config.long_documents if record.messages is None else config.long_conversations
    if rule == "split":
        return [(start, min(start + limit, length)) for start in range(0, length, limit)]
    return [(0, limit)] if rule == "cut" else []
