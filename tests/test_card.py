"""The model card: its front matter as the hub's library reads it, and every section against what the run knows."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import huggingface_hub
import jax.numpy as jnp
import numpy as np
import pytest

from alif_jax import card
from alif_jax.checkpoint import open_checkpointer, save
from alif_jax.load import Run, read_run
from alif_jax.lora import LoraConfig
from alif_jax.model import skeleton
from alif_jax.optim import OptimConfig
from alif_jax.train import TrainConfig, as_json
from alif_jax.trained import for_checkpoint, trained_table
from data_gen.tfrecord import write_shards
from tests import tiny

STEP = 20
TERMS = "https://example.com/terms_of_use: its output may train models,\n  except competing ones (https://example.com/what_competes)."
ROWS = [
    {"step": 0, "heldout_loss": 3.0, "heldout_bits_per_byte": 1.5, "heldout_loss/language/ur": 3.25},
    {"step": 10, "loss": 2.0, "heldout_loss": 2.5, "heldout_bits_per_byte": 1.25},
    {"step": 20, "loss": 1.0, "heldout_loss": 2.0, "heldout_bits_per_byte": 1.0, "heldout_loss/language/ur": 2.125,
     "heldout_bits_per_byte/language/ur": 1.0625, "heldout_loss/source/self_instruct": 2.0},
    {"step": 30, "heldout_loss": 9.0},
]  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run on two sources, of which one has moved away."""
    root = tmp_path_factory.mktemp("card")
    records = tiny.conversations(20)
    made_by = {"teacher": {"base_url": "https://api.example.com/v1", "model": "some-teacher", "terms": TERMS}}
    write_shards(str(root / "urdu"), {"train": records[:18], "heldout": records[18:]}, config=made_by, shard_records=99)
    config = TrainConfig(lora=LoraConfig(rank=48))
    config.model.path = tiny.make_base(root / "secret base")
    config.data.path, config.data.template = (str(root / "urdu"), str(root / "gone")), "turns"
    workdir = root / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps(as_json(config)))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = read_run(str(workdir))
    model = skeleton(run.config, run.lora)
    trained = {name: jnp.zeros(model.shapes[name].shape) for name in model.trainable}
    about = for_checkpoint(trained_table(model, OptimConfig()))
    with open_checkpointer(str(workdir), save_total_limit=1) as checkpointer:
        save(checkpointer, STEP, {"trainable": trained, "optimizer": {"count": np.asarray(STEP)}}, heldout_loss=None, about=about)
    return str(workdir)


def written(directory: Path, workdir: str, form: str = "merged", **changes: Any) -> str:
    run: Run = dataclasses.replace(read_run(workdir), **changes)
    card.write_card(str(directory), form=form, workdir=workdir, step=STEP, run=run)
    return (directory / "README.md").read_text(encoding="utf-8")


def head_of(directory: Path) -> dict[str, Any]:
    return huggingface_hub.ModelCard.load(directory / "README.md").data.to_dict()


def test_front_matter_of_a_base_from_the_hub(tmp_path: Path, workdir: str) -> None:
    written(tmp_path, workdir, base_name="meta-llama/Llama-3.1-8B")
    assert head_of(tmp_path) == {
        "license": "llama3.1", "base_model": ["meta-llama/Llama-3.1-8B"], "base_model_relation": "finetune", "language": ["ur"],
        "pipeline_tag": "text-generation", "library_name": "transformers", "tags": ["alif-jax", "lora"],
    }  # fmt: skip
    written(tmp_path, workdir, "peft", base_name="Qwen/Qwen3-4B-Base")
    head = head_of(tmp_path)
    assert (head["library_name"], head["base_model_relation"]) == ("peft", "adapter")
    assert (head["license"], head["license_link"]) == ("other", "https://huggingface.co/Qwen/Qwen3-4B-Base")


def test_a_local_base_is_not_named_by_its_path(tmp_path: Path, workdir: str) -> None:
    """Nor is anything else: paths of the machine that trained stay there."""
    text = written(tmp_path, workdir)
    assert "base_model" not in head_of(tmp_path) and "the local base `secret base`" in text
    assert str(Path(workdir).parent) not in text and "/tmp" not in text


@pytest.mark.parametrize(
    ("name", "content", "license"),
    [
        ("README.md", "---\nlanguage: en\nlicense: gemma\n---\n# Base\n", "gemma"),
        ("LICENSE", "LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n", "llama3.2"),
        ("LICENSE.txt", "\n      Apache License\n  Version 2.0", "apache-2.0"),
        ("LICENSE", "All rights reserved.", "other"),
    ],
)
def test_the_licence_of_the_base(tmp_path: Path, workdir: str, name: str, content: str, license: str) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    for directory in (base, out):
        directory.mkdir()
    (base / name).write_text(content)
    text = written(out, workdir, base=str(base), base_name=str(base))
    assert head_of(out)["license"] == license
    assert ("Built with Llama" in text) == (license == "llama3.2")
    assert (f"{name} of the base lies beside this file" in text) == name.startswith("LICENSE")


def test_a_run_from_random_weights_has_no_base(tmp_path: Path, workdir: str) -> None:
    text = written(tmp_path, workdir, random_init=True, lora=LoraConfig(full=True))
    assert "base_model" not in head_of(tmp_path) and "lora" not in head_of(tmp_path)["tags"]
    assert "trained from random weights" in text and "all of its weights were trained" in text


def test_data_and_recipe(tmp_path: Path, workdir: str) -> None:
    text = written(tmp_path, workdir)
    assert "18 records to train on, 2 held out; by source: self_instruct 18; by language: ur 18" in text
    said = "its output may train models, except competing ones (<https://example.com/what_competes>)."
    assert f"; teacher: some-teacher, terms: <https://example.com/terms_of_use>: {said}; manifest SHA-256" in text
    manifest = (Path(workdir).parent / "urdu" / "manifest.json").read_bytes()
    assert hashlib.sha256(manifest).hexdigest() in text
    assert "`gone`: no longer where the run read it" in text
    assert hashlib.sha256((Path(workdir) / "config.json").read_bytes()).hexdigest() in text
    shown = json.loads(text.split("```json\n")[1].split("```")[0])
    assert shown["lora"]["rank"] == 48 and shown["data"]["path"] == ["urdu", "gone"]
    assert "trainable%" in text and "lora_A" in text


def source_said(**config: Any) -> str:
    return card._source_said({"name": "urdu", "counts": {"train": {"records": 2}}, "sha256": "ab", "config": config})


def test_the_terms_of_each_source() -> None:
    head, end = "- `urdu`: 2 records to train on, 0 held out; ", "; manifest SHA-256 `ab`"
    model = {"base_url": "https://api.example.com/v1", "model": "some-teacher"}
    assert source_said(teacher=model) == f"{head}teacher: some-teacher, terms: not recorded; those of its provider hold{end}"
    assert source_said(teacher={**model, "terms": "https://x.org/t; all of it"}, license="cc-by-4.0") == (
        f"{head}teacher: some-teacher, terms: <https://x.org/t>; all of it; terms of the data: cc-by-4.0{end}"
    )
    assert source_said(teacher={**model, "terms": "see <https://x.org/t>."}).endswith(f"terms: see <https://x.org/t>.{end}")
    offline = {"base_url": "offline", "model": "offline-teacher", "terms": ""}
    assert source_said(teacher=offline) == f"{head}written by grammars and word lists, not by a language model{end}"
    assert source_said(license="https://x.org/by/4.0/") == f"{head}terms of the data: <https://x.org/by/4.0/>{end}"


def test_an_address_is_a_link_of_its_own() -> None:
    """As a reader of Markdown sees it that is not the one of the hub: the address, and not the words around it."""
    markdown_it = pytest.importorskip("markdown_it")
    said = source_said(teacher={"base_url": "https://a.org/v1", "model": "m", "terms": "https://x.org/a_b_c; not _here_"})
    tokens = markdown_it.MarkdownIt("commonmark").parse(said)
    links = [child.attrs["href"] for token in tokens for child in token.children or [] if child.type == "link_open"]
    assert links == ["https://x.org/a_b_c"]


def test_results_stand_beside_the_bases(tmp_path: Path, workdir: str) -> None:
    lines = written(tmp_path, workdir).splitlines()
    assert "| all | 2.0000 | 1.0000 | 3.0000 | 1.5000 |" in lines
    assert "| language ur | 2.1250 | 1.0625 | 3.2500 | - |" in lines
    assert "| source self_instruct | 2.0000 | - | - | - |" in lines
    assert not any("9.0000" in line for line in lines)  # of a later step
    assert "not measured" in card._results(ROWS[1:2], 20) and "measured at step 10" in card._results(ROWS[1:2], 20)
    assert "| all | 3.0000 | 1.5000 |" in card._results(ROWS[:1], 20) and "measured at step 0" in card._results(ROWS[:1], 20)
    assert "None were measured" in card._results([], 20)


def test_how_to_run_it(tmp_path: Path, workdir: str) -> None:
    merged = written(tmp_path, workdir)
    assert 'pipeline("text-generation", model="PATH"' in merged and "vllm serve PATH --max-model-len=2048" in merged
    adapter = written(tmp_path, workdir, "peft", base_name="owner/base")
    assert 'AutoPeftModelForCausalLM.from_pretrained("PATH")' in adapter
    assert "vllm serve owner/base --enable-lora --max-lora-rank=64 --lora-modules tuned=PATH" in adapter  # the next above 48
    tables = LoraConfig(rank=4, modules_to_save=("embed_tokens", "lm_head"), use_dora=True)
    refused = written(tmp_path, workdir, "peft", lora=tables)
    assert "because of embed_tokens and lm_head trained in full (modules_to_save) and DoRA: give them the merged model" in refused
    assert "vllm serve" not in refused and "vllm serve" in written(tmp_path, workdir, lora=tables)
    assert "up to rank 512" in written(tmp_path, workdir, "peft", lora=LoraConfig(rank=1024))
