"""What becomes of records that are longer than a row, against a second implementation, a record at a time in plain Python."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from alif_jax import UsageError
from alif_jax.chat_template import read_template
from alif_jax.data.cache import Source, open_sources
from alif_jax.data.fit import Examples, fit_rows
from alif_jax.data.template import FLAG_RESPONSE, FLAG_TRAINED, DataConfig
from alif_jax.tokenizer import Tokenizer, load_tokenizer
from data_gen.record import Record
from tests import tiny

GROUPS = [{"source": name, "task": "t", "language": "ur"} for name in ("books", "chats", "web")]


def random_source(seed: int, n: int = 60) -> Source:
    """Documents, trained whole or in part, and conversations of several answers, some untrained but for the last token."""
    rng = np.random.default_rng(seed)
    flags = []
    for i in range(n):
        length = int(rng.integers(2, 61))
        if i % 2:
            one = np.full(length, FLAG_TRAINED | FLAG_RESPONSE, np.uint8) if i % 3 else rng.integers(0, 2, length).astype(np.uint8)
        else:
            turns = [np.full(rng.integers(1, 12), FLAG_RESPONSE * (turn % 2), np.uint8) for turn in range(12)]
            one = np.concatenate(turns)[:length]
            one |= FLAG_TRAINED if i % 5 == 0 else (one >> 1 if i % 7 else 0)
        one[-1] |= FLAG_TRAINED
        flags.append(one)
    offsets = np.cumsum([0, *map(len, flags)], dtype=np.int64)
    return Source(
        name=f"dir{seed}", split="train", hash="", tokens=rng.integers(0, 99, offsets[-1]).astype(np.int32),
        flags=np.concatenate(flags), offsets=offsets, text_bytes=rng.integers(0, 500, n),
        codes=rng.integers(0, 3, n).astype(np.int32), documents=np.arange(n) % 2 == 1,
        ids=np.asarray([f"{seed}-{i}".encode() for i in range(n)]), groups=GROUPS,
    )  # fmt: skip


Example = tuple[str, list[int], list[int], int, int]  # id, tokens, flags, trained, text_bytes


def by_hand(source: Source, config: DataConfig) -> tuple[list[Example], dict[str, Counter[str]]]:
    limit, found, counts = config.sequence_length, list[Example](), {group["source"]: Counter[str]() for group in GROUPS}
    for i in range(len(source)):
        flags = source.flags[source.offsets[i] : source.offsets[i + 1]].tolist()
        tokens = source.tokens[source.offsets[i] : source.offsets[i + 1]].tolist()
        rule, pieces = "", [(0, len(tokens))]
        if len(tokens) > limit and source.documents[i]:
            rule = config.long_documents
            pieces = [(at, min(at + limit, len(tokens))) for at in range(0, len(tokens), limit)][: None if rule == "split" else 1]
        elif len(tokens) > limit:
            rule, end = "truncated", 0
            for t in range(limit):
                if config.long_conversations == "truncate_response" and flags[t] & FLAG_RESPONSE:
                    end = t + 1
            pieces = [(0, end)]
        kept = 0
        for begin, end in pieces:
            trained = sum(flag & 1 for flag in flags[begin + 1 : end])
            if trained:
                size = int(source.text_bytes[i])
                if (begin, end) != (0, len(tokens)):
                    size = round(size * (sum(flag & 1 for flag in flags[begin:end]) / sum(flag & 1 for flag in flags)))
                found.append((source.ids[i].decode(), tokens[begin:end], flags[begin:end], trained, size))
                kept += 1
        if rule or not kept:
            counts[source.groups[source.codes[i]]["source"]][rule if kept else "dropped"] += 1
    return found, counts


def read(examples: Examples) -> list[Example]:
    found = []
    for i in range(len(examples)):
        tokens, flags = examples.tokens_of(i)
        assert len(tokens) == examples.lengths[i]
        found.append((examples.id_of(i), tokens.tolist(), flags.tolist(), int(examples.trained[i]), int(examples.text_bytes[i])))
    return found


@pytest.mark.parametrize("long_documents", ["split", "cut"])
@pytest.mark.parametrize("long_conversations", ["drop", "truncate_response"])
@pytest.mark.parametrize("limit", [2, 3, 10, 59, 1000])
def test_every_rule_against_the_plain_way(long_documents: str, long_conversations: str, limit: int) -> None:
    config = DataConfig(sequence_length=limit, long_documents=long_documents, long_conversations=long_conversations)
    seen: set[str] = set()
    for seed in range(0, 10, 2):
        sources = (random_source(seed), random_source(seed + 1, n=7))
        examples = fit_rows(sources, config)
        expected = [by_hand(source, config) for source in sources]
        assert read(examples) == [example for found, _ in expected for example in found]
        totals = {name: dict(sum((counts[name] for _, counts in expected), Counter())) for name in ("books", "chats", "web")}
        assert examples.shortened == {name: count for name, count in totals.items() if count}
        assert examples.source.tolist() == [s for s, (found, _) in enumerate(expected) for _ in found]
        table, codes = examples.groups
        assert [table[code] for code in codes] == [
            sources[s].groups[sources[s].codes[i]] for s, i in zip(examples.source, examples.record, strict=True)
        ]
        seen |= {rule for count in examples.shortened.values() for rule in count}
    if limit <= 10:
        assert seen == {"dropped", long_documents} | ({"truncated"} if long_conversations == "truncate_response" else set())


# --- rendered text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return load_tokenizer(tiny.make_tokenizer(tmp_path_factory.mktemp("base"), chat_template=read_template("turns")))


def chat(*answers: str) -> Record:
    messages: list[dict[str, str]] = []
    for i, answer in enumerate(answers):
        messages += [{"role": "user", "content": f"سوال {i}؟"}, {"role": "assistant", "content": answer}]
    return Record(id="c", source="chats", task="t", language="ur", meta={}, messages=tuple(messages))


def texts(place: Path, record: Record, tokenizer: Tokenizer, **changes: object) -> list[str]:
    data = tiny.make_shards(place / "data", [record], heldout=0)
    config = DataConfig(path=(data,), cache_dir=str(place / "cache"), **changes)  # type: ignore[arg-type]
    examples = fit_rows(open_sources(config, tokenizer, "train"), config)
    decode = tokenizer.core.decode
    return [decode(examples.tokens_of(i)[0].tolist(), skip_special_tokens=False) for i in range(len(examples))]


@pytest.mark.parametrize("loss_on", ["responses", "all"])
def test_a_conversation_ends_inside_an_answer_or_after_one(tmp_path: Path, tokenizer: Tokenizer, loss_on: str) -> None:
    """Every length from the first answer on: the text ends inside an answer, or with a whole turn, never in between."""
    record = chat("پہلا جواب یہ ہے", "دوسرا جواب بھی یہاں ہے")
    changes = {"long_conversations": "truncate_response", "loss_on": loss_on}
    [whole] = texts(tmp_path, record, tokenizer, **changes)
    n = len(tokenizer.encode(whole))
    turn = "<|end_of_turn|>"
    answers = [whole.index(text) for text in ("پہلا", "دوسرا")]
    first_end = whole.index(turn, answers[0]) + len(turn)
    seen = set()
    for limit in range(len(tokenizer.encode(whole[: answers[0]])) + 1, n):
        [text] = texts(tmp_path, record, tokenizer, sequence_length=limit, **changes)
        text = text.rstrip("�")  # half a letter at the cut
        assert whole.startswith(text)
        in_first, in_second = answers[0] <= len(text) <= first_end, answers[1] <= len(text) < len(whole)
        assert in_first or in_second
        seen.add((in_first, len(text) == first_end))
    assert seen == {(True, False), (True, True), (False, False)}


def test_documents_split_into_consecutive_slices(tmp_path: Path, tokenizer: Tokenizer) -> None:
    [record] = tiny.documents(1, words=200)
    [whole] = texts(tmp_path, record, tokenizer)
    n = len(tokenizer.encode(whole))
    pieces = texts(tmp_path, record, tokenizer, sequence_length=64)
    assert len(pieces) == -(-n // 64) > 3 and "".join(pieces).replace("�", "")[:50] == whole[:50]
    assert len(texts(tmp_path, record, tokenizer, sequence_length=64, long_documents="cut")) == 1
    assert len(texts(tmp_path, record, tokenizer, sequence_length=n - 1)) == 1  # a last slice of one token has no target


def test_records_without_a_token_to_train_on_are_counted_by_source(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Of all sources at once, before anything is cut, and the same whatever the size of the tasks that encode them."""
    question = ({"role": "user", "content": "سوال" * 50},)
    records = [
        dataclasses.replace(record, source=f"web_{i % 3}", messages=question if i in (4, 5, 7, 10) else record.messages)
        for i, record in enumerate(tiny.conversations(12))
    ]
    data = tuple(tiny.make_shards(tmp_path / f"{at}", records[at : at + 6], heldout=0) for at in (0, 6))
    config = DataConfig(path=data, cache_dir=str(tmp_path / "cache"), sequence_length=4)
    sources = open_sources(config, tokenizer, "train")
    first = next(one for one in sources[0].ids if one.decode() in (records[4].id, records[5].id)).decode()
    text = rf"record {first} \(web_\d, {records[4].task}\) has no token to train on; remove it "
    with pytest.raises(UsageError, match=text + r"\(.* 4 of 12 train records: web_1 3, web_2 1\)"):
        fit_rows(sources, config)
    everything = dataclasses.replace(config, loss_on="all", sequence_length=2048)
    assert len(fit_rows(open_sources(everything, tokenizer, "train"), everything)) == 12


def test_a_first_token_is_no_target_and_an_empty_record_has_none() -> None:
    whole = random_source(0, n=4)
    empty = dataclasses.replace(whole, offsets=np.append(whole.offsets, whole.offsets[-1]), codes=np.append(whole.codes, 1),
                                documents=np.append(whole.documents, True), text_bytes=np.append(whole.text_bytes, 0),
                                ids=np.append(whole.ids, b"empty"))  # fmt: skip
    with pytest.raises(UsageError, match=r"record empty \(chats, t\) has no token .* 1 of 5 train records: chats 1"):
        fit_rows([empty], DataConfig())
    flags = np.zeros_like(whole.flags)
    flags[whole.offsets[:-1]] = FLAG_TRAINED
    with pytest.raises(UsageError, match="record 0-0 .* 4 of 4 train records"):
        fit_rows([dataclasses.replace(whole, flags=flags)], DataConfig())


def test_nothing_left_to_train_on_names_the_sources(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = [dataclasses.replace(record, source=f"s{i % 2}") for i, record in enumerate(tiny.conversations(6, words=30))]
    data = tiny.make_shards(tmp_path / "data", records, heldout=0)
    config = DataConfig(path=(data,), cache_dir=str(tmp_path / "cache"), sequence_length=16)
    with pytest.raises(
        UsageError, match=f"{data}: no trained token in 6 train records in rows of 16 .*s0.*'dropped': 3.*s1.*'dropped': 3"
    ):
        fit_rows(open_sources(config, tokenizer, "train"), config)
    with pytest.raises(UsageError, match=f"{data}: no trained token in 0 heldout records"):
        fit_rows(open_sources(config, tokenizer, "heldout"), config)
    with pytest.raises(UsageError, match="data.path is empty"):
        fit_rows((), config)
