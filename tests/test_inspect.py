"""What inspect_data.py shows, against counts made here from the records, and its text read back."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alif_jax.data.cache import open_sources
from alif_jax.data.fit import fit_rows
from alif_jax.data.inspect import HEAD, TAIL, Piece, fertility, lengths, pieces, report, show
from alif_jax.data.pack import Batches
from alif_jax.data.template import FLAG_RESPONSE, FLAG_TRAINED, DataConfig
from alif_jax.hf import resolve_model
from alif_jax.tokenizer import Tokenizer, load_tokenizer
from data_gen.record import Record, record_id
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]
ISOLATES = str.maketrans("", "", "\u2068\u2069")
ANSI = re.compile(r"\033\[\d+m")


def chat(*turns: str, source: str = "chats", language: str = "ur") -> Record:
    messages = tuple({"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns))
    return Record(id=record_id("".join(turns)), source=source, task="t", language=language, meta={}, messages=messages)


LONG_ANSWER = chat("لمبا سوال", "جواب " * 300, source="web")
CHATS = [
    *(chat(f"سوال {i}؟", f"جواب {i}۔", f"اور {i}؟", f"ہاں\n\n{i}") for i in range(12)),
    *(chat(f"Question {i}?", "It is so.", source="english", language="en") for i in range(5)),
    LONG_ANSWER,
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inspect")
    tiny.make_tokenizer(place / "base")  # no weights, no config.json
    tiny.make_shards(place / "chats", CHATS, heldout=0)
    tiny.make_shards(place / "texts", tiny.documents(10, words=60), heldout=2)
    return place


@pytest.fixture(scope="module")
def tokenizer(place: Path) -> Tokenizer:
    return load_tokenizer(str(place / "base"), "turns")


def batches_of(place: Path, tokenizer: Tokenizer, *names: str, **fields: Any) -> Batches:
    config = DataConfig(path=tuple(str(place / name) for name in names), cache_dir=str(place / "cache"), workers=1, **fields)
    examples = fit_rows(open_sources(config, tokenizer, "train"), config)
    return Batches(examples, config.sequence_length, 4, seed=0, weights=config.weights)


@pytest.fixture(scope="module")
def batches(place: Path, tokenizer: Tokenizer) -> Batches:
    return batches_of(place, tokenizer, "chats", "texts", sequence_length=256)


def table(text: str) -> dict[str, list[str]]:
    """First word of a line → its other words."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.split()}


# --- one example


def shown(record: Record, tokenizer: Tokenizer, *, colour: bool = False) -> str:
    from alif_jax.data.template import encode_batch

    [encoded] = encode_batch([record], tokenizer, DataConfig())  # type: ignore[list-item]
    return show(pieces(encoded.ids, encoded.flags, tokenizer), colour=colour)


def test_trained_parts_stand_in_brackets(tokenizer: Tokenizer) -> None:
    text = shown(CHATS[0], tokenizer).translate(ISOLATES)
    assert text == (
        "│ <|begin_of_text|><|user|>\n"
        "│ سوال 0؟<|end_of_turn|><|assistant|>\n"
        "│ ⟦جواب 0۔<|end_of_turn|>⟧<|user|>\n"
        "│ اور 0؟<|end_of_turn|><|assistant|>\n"
        "│ ⟦ہاں⟧\n"
        "│ \n"
        "│ ⟦0<|end_of_turn|>⟧"
    )


def test_every_piece_of_a_line_is_isolated(tokenizer: Tokenizer) -> None:
    """Else the marks and tags between Urdu and Latin text change places. An isolate ends with its line, so each closes there."""
    for line in shown(CHATS[0], tokenizer).split("\n"):
        inside = re.sub("\u2068[^\u2068\u2069]*\u2069", "", line)
        assert set(inside) <= set("│ ⟦⟧")


def test_colours_tell_the_same_as_brackets(tokenizer: Tokenizer) -> None:
    coloured = shown(CHATS[0], tokenizer, colour=True)
    plain = shown(CHATS[0], tokenizer).replace("⟦", "").replace("⟧", "")
    assert ANSI.sub("", coloured) == plain
    green = re.findall("\033\\[32m\u2068(.*?)\u2069\033\\[0m", coloured)
    assert green == ["جواب 0۔", "<|end_of_turn|>", "ہاں", "0", "<|end_of_turn|>"]


def test_control_characters_are_shown_not_obeyed() -> None:
    assert show(iter([Piece("a\033[2Jb\r", True, False)])).translate(ISOLATES) == "│ ⟦a␛[2Jb␍⟧"


def test_the_first_token_is_nobodys_target(tokenizer: Tokenizer) -> None:
    text = show(pieces(np.asarray([0, 9]), np.full(2, FLAG_TRAINED | FLAG_RESPONSE, np.uint8), tokenizer)).translate(ISOLATES)
    assert text.startswith("│ <|begin_of_text|>⟦")


def test_of_a_long_example_begin_and_end_are_shown(tokenizer: Tokenizer) -> None:
    text = shown(LONG_ANSWER, tokenizer).translate(ISOLATES)
    total = len(tokenizer.encode(tokenizer.render(list(LONG_ANSWER.messages or ()), add_generation_prompt=False)))
    assert f"… {total - HEAD - TAIL:,} tokens …" in text and text.endswith("<|end_of_turn|>⟧") and "لمبا سوال" in text


# --- counts


def test_report(batches: Batches, tokenizer: Tokenizer) -> None:
    text = report(batches, tokenizer, examples=3)
    headings = re.findall(r"── (\w+), .*?: record (\w+), (\d+) tokens, (\d+) trained", text)
    assert len(headings) == 3
    assert {"web_0", "web_1"} & {source for source, *_ in headings} and {"chats", "english"} & {source for source, *_ in headings}
    rows = table(text)
    chats = [record for record in CHATS if record.source == "chats"]
    answers = sum(len(tokenizer.encode(m["content"])) + 1 for r in chats for m in r.messages or () if m["role"] == "assistant")
    whole = sum(len(tokenizer.encode(tokenizer.render(list(r.messages or ()), add_generation_prompt=False))) for r in chats)
    assert rows["chats"][:4] == ["12", "12", f"{whole:,}", f"{answers:,}"] and rows["chats"][-1] == "–"
    assert rows["web"] == ["1", "0", "0", "0", "0%", "1", "dropped"]
    assert rows["english"][:2] == ["5", "5"] and rows["web_0"][:2] == ["4", "4"]
    fill = batches.examples.lengths.sum() / (batches.rows_per_epoch * 256)
    assert rows["non-pad"] == ["share", f"{fill:.1%}"]
    trained = sum(int((batches.examples.tokens_of(i)[1][1:] & FLAG_TRAINED).sum()) for i in range(len(batches.examples)))
    assert rows["trained"][0] == f"{trained:,}"
    assert report(batches, tokenizer, examples=0).startswith("records by length")


def test_the_shares_of_a_mix(place: Path, tokenizer: Tokenizer) -> None:
    text = report(batches_of(place, tokenizer, "chats", "texts", sequence_length=256, weights=(3.0, 1.0)), tokenizer, examples=0)
    shares = {Path(name).name: row[0] for name, row in table(text.split("the run takes")[1]).items() if "/" in name}
    assert abs(float(shares["chats"].rstrip("%")) - 75) < 3 and abs(float(shares["texts"].rstrip("%")) - 25) < 3


def test_lengths(batches: Batches, tokenizer: Tokenizer) -> None:
    text = lengths(batches)
    whole = np.concatenate([np.diff(source.offsets) for source in batches.examples.sources])
    found = re.findall(r"≤ +([\d,]+) +([\d,]+) +([\d.]+)% (█*)(  longer)?", text)
    upper = [int(edge.replace(",", "")) for edge, *_ in found]
    for (_, count, share, _, long), low, high in zip(found, [0, *upper], upper, strict=False):
        expected = int(((whole > low) & (whole <= high)).sum())
        assert int(count) == expected and abs(float(share) - 100 * expected / len(whole)) < 0.06
        assert bool(long) == (low >= 256)
    assert sum(int(count) for _, count, *_ in found) == len(whole) and max(len(bar) for *_, bar, _ in found) == 40
    assert f"longest {whole.max():,}" in text


def test_fertility_is_of_documents_and_answers(batches: Batches, tokenizer: Tokenizer) -> None:
    rows = table(fertility(batches.examples.sources, tokenizer))
    english = "It is so."
    tokens = len(tokenizer.encode(english))
    assert rows["en"] == ["5", f"{tokens / 3:.2f}", f"{tokens / len(english):.3f}"]
    assert rows["ur"][0] == str(12 + 1 + 8)
    assert table(fertility(batches.examples.sources, tokenizer, sample=4))["ur"][0] == "4"


# --- the command


def inspect_data(place: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "launch/inspect_data.py", "--config=configs/urdu_sft.py", f"--config.model.path={place / 'base'}",
        f"--config.data.path={place / 'chats'},{place / 'texts'}", "--config.data.template=turns",
        f"--config.data.cache_dir={place / 'cache'}", *flags,
    ]  # fmt: skip
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": ""})


def test_the_command_needs_a_tokenizer_and_data_only(place: Path) -> None:
    done = inspect_data(place, "--config.data.sequence_length=256", "--examples=1")
    assert done.returncode == 0, done.stderr
    assert "⟦" in done.stdout and "\033" not in done.stdout and "1 dropped" in done.stdout and "non-pad share" in done.stdout


def test_of_a_hub_model_the_weights_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        return "here"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_model("owner/name", weights=False) == resolve_model("owner/name") == "here"
    weights = "model*.safetensors"
    assert weights not in asked[0] and weights in asked[1] and "*.json" in asked[0]


def test_no_held_out_records_are_told(place: Path) -> None:
    done = inspect_data(place, "--split=heldout", f"--config.data.path={place / 'chats'}")
    assert done.returncode == 2 and "no held-out records" in done.stderr
