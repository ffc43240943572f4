"""Held-out loss against a plain computation, one example at a time, with transformers and nothing of ours."""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from alif_jax import UsageError
from alif_jax.data.cache import open_sources
from alif_jax.data.fit import fit_rows
from alif_jax.data.pack import Batches
from alif_jax.data.template import DataConfig
from alif_jax.evaluate import evaluate_loss, heldout_loss, loss_table, masked_losses
from alif_jax.load import Loaded, load_model
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tokenizer import load_tokenizer, read_template
from data_gen.record import Record
from tests import tiny

BOS, EOS, TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|end_of_turn|>"


def make_records() -> list[Record]:
    """19 records of three sources, three tasks and two languages, of very different lengths."""
    chats = tiny.conversations(9) + tiny.conversations(3, words=40, seed=3)
    chats = [dataclasses.replace(chat, language=("ur", "en")[i % 3 == 2]) for i, chat in enumerate(chats)]
    return chats + tiny.documents(7, words=12)


def plain(records: Sequence[Record], directory: str) -> list[tuple[Record, float, int, int]]:
    """(record, Σ nats, trained tokens, bytes of the trained text) of each, by transformers on one unpadded example."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    found = []
    for record in records:
        if record.text is not None:
            prompt, trained, text = BOS, record.text + EOS, record.text
        else:
            assert record.messages is not None
            question, text = (message["content"] for message in record.messages)
            prompt, trained = f"{BOS}<|user|>\n{question}{TURN}<|assistant|>\n", text + TURN
        begin, ids = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (prompt, prompt + trained))
        assert ids[: len(begin)] == begin
        with torch.no_grad():
            losses = -torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), dim=-1)
        nats = sum(float(losses[t - 1, ids[t]]) for t in range(len(begin), len(ids)))
        found.append((record, nats, len(ids) - len(begin), len(text.encode())))
    return found


def summary(examples: Sequence[tuple[Record, float, int, int]]) -> dict[str, float]:
    nats, tokens, size = (sum(example[i] for example in examples) for i in (1, 2, 3))  # type: ignore[misc]
    return {"loss": nats / tokens, "tokens": tokens, "bits_per_byte": nats / math.log(2) / size}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.make_base(tmp_path_factory.mktemp("base"), chat_template=read_template("turns"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    records = make_records()
    return tiny.make_shards(tmp_path_factory.mktemp("data"), [*tiny.conversations(5, seed=9), *records], heldout=len(records))


@pytest.fixture(scope="module")
def expected(base: str) -> dict[str, Any]:
    examples = plain(make_records(), base)
    result: dict[str, Any] = summary(examples)
    for key in ("source", "task", "language"):
        names = sorted({getattr(record, key) for record, *_ in examples})
        result[f"by_{key}"] = {name: summary([one for one in examples if getattr(one[0], key) == name]) for name in names}
    return result


def load(base: str, mesh: MeshConfig, devices: int) -> Loaded:
    return load_model(base, make_mesh(mesh, jax.devices()[:devices]))


@pytest.fixture(scope="module")
def on_one(base: str, data: str) -> dict[str, Any]:
    return evaluate_loss(load(base, MeshConfig(), 1), data, sequence_length=384, batch_size=2)


@pytest.fixture(scope="module")
def on_eight(base: str, data: str) -> dict[str, Any]:
    return evaluate_loss(load(base, MeshConfig(data=2, fsdp=2, tensor=2), 8), data, sequence_length=384, batch_size=2)


def parts(result: dict[str, Any]) -> dict[str, dict[str, float]]:
    """All summaries of a result by name: {"": …, "by_source/self_instruct": …}."""
    named = {"": result}
    for key in ("by_source", "by_task", "by_language"):
        named |= {f"{key}/{name}": part for name, part in result[key].items()}
    return named


def agree(result: dict[str, Any], other: dict[str, Any], keys: Sequence[str], rel: float) -> None:
    assert parts(result).keys() == parts(other).keys()
    for name, part in parts(result).items():
        for key in keys:
            assert part[key] == pytest.approx(parts(other)[name][key], rel=rel), (name, key)


def test_loss_and_tokens_are_those_of_a_plain_computation(on_one: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected["by_source"].keys() == {"self_instruct", "web_0", "web_1"} and expected["by_language"].keys() == {"ur", "en"}
    losses = [part["loss"] for part in parts(expected).values()]
    assert min(losses) > 1 and max(losses) / min(losses) > 1.01  # groups differ, so that mixing them up shows
    agree(on_one, expected, ("loss",), 1e-5)
    agree(on_one, expected, ("tokens",), 0)


def test_bits_per_byte_is_that_of_a_plain_computation(on_one: dict[str, Any], expected: dict[str, Any]) -> None:
    agree(on_one, expected, ("bits_per_byte",), 1e-5)


def test_eight_devices_give_the_same(on_one: dict[str, Any], on_eight: dict[str, Any]) -> None:
    agree(on_eight, on_one, ("loss", "bits_per_byte"), 1e-6)
    agree(on_eight, on_one, ("tokens",), 0)


def test_packing_changes_nothing(base: str, data: str, on_one: dict[str, Any]) -> None:
    """One example a row, in another row length, other batches and another order; the last batch is filled with empty rows."""
    loaded = load(base, MeshConfig(), 1)
    config = DataConfig(path=(data,), sequence_length=400)
    examples = fit_rows(open_sources(config, loaded.tokenizer, "heldout"), config)
    batches = Batches(examples, 400, batch_size=8, seed=3, packing=False)
    assert batches.steps * 8 > len(examples) == 19
    result = heldout_loss(loaded.params, loaded.skeleton, loaded.mesh, batches, chunk=100)
    agree(result, on_one, ("loss", "bits_per_byte"), 1e-6)
    agree(result, on_one, ("tokens",), 0)


def test_bits_per_byte_does_not_depend_on_how_special_tokens_are_spelt(base: str, data: str, tmp_path: Path) -> None:
    """`<|end_of_text|>` or `</s>`: the same model on the same text. No model runs here, only the count of bytes."""
    names = {token: f"<{i}>" for i, token in enumerate(tiny.SPECIAL)}
    role = "'<' + {'system': '3', 'user': '4', 'assistant': '5'}[message['role']] + '>\\n'"
    template = read_template("turns").replace("'<|' + message['role'] + '|>\\n'", role)
    for file in Path(base).glob("token*.json"):
        text = file.read_text(encoding="utf-8")
        for token, name in names.items():
            text, template = text.replace(token, name), template.replace(token, name)
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    config = DataConfig(path=(data,))
    [one], [other] = (open_sources(config, load_tokenizer(directory), "heldout") for directory in (base, str(tmp_path)))
    assert np.array_equal(one.tokens, other.tokens) and np.array_equal(one.flags, other.flags)
    assert one.text_bytes.tolist() == other.text_bytes.tolist()


def test_another_split_and_template(base: str, data: str, on_one: dict[str, Any]) -> None:
    loaded = load(base, MeshConfig(), 1)
    train = evaluate_loss(loaded, data, split="train", sequence_length=384, batch_size=2)
    assert train["by_source"].keys() == {"self_instruct"} and train["tokens"] < on_one["tokens"]
    alpaca = evaluate_loss(loaded, data, split="train", sequence_length=384, batch_size=2, template="alpaca")
    assert alpaca["tokens"] == train["tokens"] and alpaca["loss"] != pytest.approx(train["loss"], rel=1e-3)


def test_what_is_longer_than_a_row_is_counted(base: str, data: str, on_one: dict[str, Any]) -> None:
    result = evaluate_loss(load(base, MeshConfig(), 1), data, sequence_length=64, batch_size=2)
    assert (on_one["examples"], on_one["shortened"]) == (19, {}) and "longer" not in loss_table(on_one)
    assert result["shortened"]["self_instruct"] == {"dropped": 3} and result["tokens"] < on_one["tokens"]
    assert loss_table(result).splitlines()[-1] == f"longer than a row, split or dropped: {result['shortened']}"


def test_a_split_that_is_not_there(base: str, tmp_path: Path) -> None:
    data = tiny.make_shards(tmp_path, tiny.conversations(3), heldout=0)
    with pytest.raises(UsageError, match=str(tmp_path)):
        evaluate_loss(load(base, MeshConfig(), 1), data)


def test_evaluation_keeps_no_whole_logits(base: str) -> None:
    """No array of the compiled evaluation is as large as the logits of a batch; with one chunk there is one."""
    mesh = make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])
    loaded = load_model(base, mesh)
    batch = {name: jnp.asarray(array) for name, array in tiny.random_batch(rows=4, length=64).items()}
    out = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def largest(chunk: int) -> int:
        with jax.set_mesh(mesh):
            program = masked_losses.lower(loaded.params, batch, skeleton=loaded.skeleton, chunk=chunk, out=out).as_text()
        return max(math.prod(map(int, shape.split("x"))) for shape in re.findall(r"tensor<([\dx]+)xf32>", program))

    logits = 4 * 64 * tiny.VOCAB
    assert largest(4 * 64) >= logits > largest(8)


def test_the_table_has_a_line_a_group(on_one: dict[str, Any]) -> None:
    without_text = on_one | {"by_task": {**on_one["by_task"], "document": on_one["by_task"]["document"] | {"bits_per_byte": None}}}
    [line] = [line for line in loss_table(without_text).splitlines() if line.startswith("task document ")]
    assert line.split()[-2:] == ["-", f"{on_one['by_task']['document']['tokens']:,}"]
    lines = loss_table(on_one).splitlines()
    assert len(lines) == 1 + len(parts(on_one)) and [len(line) for line in lines] == [len(lines[0])] * len(lines)
    assert lines[1].split() == ["all", f"{on_one['loss']:.4f}", f"{on_one['bits_per_byte']:.4f}", f"{on_one['tokens']:,}"]
