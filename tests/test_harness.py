"""The model in lm-evaluation-harness: the same numbers and texts as by the harness's own Hugging Face backend."""

import dataclasses
import json
import math
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import jax
import jax.numpy as jnp
import lm_eval
import numpy as np
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from alif_jax import UsageError
from alif_jax.generate import generate_ids
from alif_jax.harness import JaxLM, Row, bucket
from alif_jax.load import NOTHING_TRAINED, load_model
from alif_jax.model import skeleton
from alif_jax.sharding import MeshConfig, make_mesh
from tests import tiny

CHAT = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end_of_turn|>{% endfor %}"
CHAT += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
CHOICES, TEXTS, PROMPTS = 140, 50, 40
LONGEST = 160  # positions of the model: some documents are longer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With the end of a turn among what stops it, as exports have it."""
    directory = tiny.make_base(tmp_path_factory.mktemp("base"), chat_template=CHAT, max_position_embeddings=LONGEST)
    stops = [tiny.SPECIAL.index(token) for token in ("<|end_of_text|>", "<|end_of_turn|>")]
    Path(directory, "generation_config.json").write_text(json.dumps({"eos_token_id": stops, "pad_token_id": 2}))
    return directory


@pytest.fixture(scope="module", autouse=True)
def few_programs() -> Iterator[None]:
    """Compiling is what takes time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alif_jax.harness.EACH", 1)
        yield


@pytest.fixture(scope="module")
def ours(base: str) -> JaxLM:
    return JaxLM(load_model(base, make_mesh(MeshConfig())), row_tokens=1024, generation_rows=16)


@pytest.fixture(scope="module")
def theirs(base: str) -> HFLM:
    return HFLM(pretrained=base, device="cpu", dtype="float32", batch_size=16)


def task(name: str, rows: list[dict[str, Any]], **config: Any) -> ConfigurableTask:
    splits = {"test": datasets.Dataset.from_list(rows)}
    fields = {"task": name, "custom_dataset": lambda **_: splits, "test_split": "test", "num_fewshot": 0, **config}
    return ConfigurableTask(config=fields)


def tasks() -> list[ConfigurableTask]:
    """Multiple choice (one token and several, empty contexts too, some contexts too long), whole texts, generation."""
    drawn = random.Random(0)
    lines = tiny.sentences(CHOICES + TEXTS + PROMPTS, words=12)
    letters, answers, texts, prompts = [], [], [], []
    for number, line in enumerate(lines[:CHOICES]):
        words = line.split(" ")
        question = " ".join(words[:6] * drawn.choice((1, 1, 2, 6)))
        letters.append({"question": f"{question} ", "label": number % 4})
        options = [" ".join(drawn.choices(tiny.WORDS, k=drawn.randint(1, 5))) for _ in range(3)]
        answers.append({"question": question if number % 3 else "", "options": options, "label": number % 3})
    texts = [{"text": " ".join([line] * drawn.choice((1, 2, 5)))} for line in lines[CHOICES : CHOICES + TEXTS]]
    prompts = [{"prompt": " ".join(line.split(" ")[: drawn.randint(1, 12)])} for line in lines[CHOICES + TEXTS :]]
    choice = {"output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_target": "label"}
    accuracy = {"metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]}
    return [
        task("letters", letters, doc_to_choice=["الف", "ب", "ج", "د"], target_delimiter="", **choice, **accuracy),
        task("answers", answers, doc_to_choice="options", **choice, **accuracy),
        task("texts", texts, output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="text",
             metric_list=[{"metric": "bits_per_byte"}]),
        task("prompts", prompts, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="",
             generation_kwargs={"until": ["بات"], "max_gen_toks": 40, "do_sample": False}, metric_list=[{"metric": "bypass"}]),
    ]  # fmt: skip


def evaluate(model: Any, **settings: Any) -> dict[str, Any]:
    found = lm_eval.simple_evaluate(model=model, tasks=tasks(), bootstrap_iters=0, **settings)
    assert found is not None
    return found


def test_same_numbers_and_texts_as_the_hugging_face_backend(ours: JaxLM, theirs: HFLM) -> None:
    one, other = evaluate(ours), evaluate(theirs)
    documents = 0
    for name in ("letters", "answers", "texts", "prompts"):
        assert len(one["samples"][name]) == len(other["samples"][name])
        for mine, its in zip(one["samples"][name], other["samples"][name], strict=True):
            documents += 1
            assert mine["arguments"] == its["arguments"]
            if name == "prompts":
                assert mine["resps"] == its["resps"]
            elif name == "texts":
                np.testing.assert_allclose(mine["resps"], its["resps"], atol=1e-3)
            else:
                for [(logp, greedy)], [(logp_, greedy_)] in zip(mine["resps"], its["resps"], strict=True):
                    assert math.isclose(logp, logp_, abs_tol=1e-3)
                    assert greedy == greedy_
    assert documents >= 200
    for name, metric in (("letters", "acc,none"), ("answers", "acc,none")):
        assert one["results"][name][metric] == other["results"][name][metric]
    mine, its = (found["results"]["texts"]["bits_per_byte,none"] for found in (one, other))
    assert math.isclose(mine, its, rel_tol=1e-5)
    assert len({sample["resps"][0][0] for sample in one["samples"]["prompts"]}) > PROMPTS // 2  # they say something


def test_same_through_the_chat_template(ours: JaxLM, theirs: HFLM) -> None:
    one, other = (evaluate(model, apply_chat_template=True, limit=12) for model in (ours, theirs))
    for name in ("letters", "answers", "prompts"):
        for mine, its in zip(one["samples"][name], other["samples"][name], strict=True):
            assert mine["arguments"] == its["arguments"]
            assert "<|assistant|>" in mine["arguments"][0][0]
            if name == "prompts":
                assert mine["resps"] == its["resps"]
            else:
                np.testing.assert_allclose(
                    [logp for [(logp, _)] in mine["resps"]], [logp for [(logp, _)] in its["resps"]], atol=1e-3
                )


def instances(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=one, idx=0, metadata=("t", number, 1))  # type: ignore[arg-type]
        for number, one in enumerate(arguments)
    ]


def test_on_a_mesh_and_one_row_at_a_time(base: str, ours: JaxLM) -> None:
    pairs = [(line, " " + line[:9]) for line in tiny.sentences(9, words=7)]
    asked = instances("loglikelihood", *pairs, ("کتاب", " پانی"), ("", "دن"))
    meshed = JaxLM(load_model(base, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))), row_tokens=256)
    single = JaxLM(load_model(base, make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])), row_tokens=1)
    expected = ours.loglikelihood(asked)
    for model in (meshed, single):
        found = model.loglikelihood(asked)
        np.testing.assert_allclose([logp for logp, _ in found], [logp for logp, _ in expected], atol=1e-4)


def test_a_context_that_is_too_long_is_cut_from_the_left_and_counted(ours: JaxLM) -> None:
    long = " ".join(tiny.sentences(1, words=200))
    ours.truncated = 0
    (cut,) = ours.loglikelihood(instances("loglikelihood", (long, " کتاب")))
    assert ours.truncated == 1
    ids = ours.tok_encode(long + " کتاب")
    answer = len(ids) - len(ours.tok_encode(long))
    (same,) = ours._loglikelihood_tokens([(None, ids[-LONGEST - 1 : -answer], ids[-answer:])])
    assert cut == same
    assert ours.truncated == 1
    ours.generate_until(instances("generate_until", (long, {"until": [], "max_gen_toks": 8})))
    assert ours.truncated == 2
    with pytest.raises(UsageError, match="no room for its prompt"):
        ours.generate_until(instances("generate_until", ("کتاب", {"until": [], "max_gen_toks": LONGEST})))


def test_an_empty_continuation_is_named(ours: JaxLM) -> None:
    with pytest.raises(UsageError, match=r"task t, document 1: an empty continuation after 'دن'"):
        ours.loglikelihood(instances("loglikelihood", ("دن", " رات"), ("دن", "")))


def test_a_chat_template_that_is_missing(tmp_path: Path) -> None:
    model = JaxLM(load_model(tiny.make_base(tmp_path / "plain"), make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])))
    with pytest.raises(UsageError, match="a chat template is asked for and the tokenizer has none"):
        model.apply_chat_template([{"role": "user", "content": "سلام"}])


def test_an_answer_that_was_begun(ours: JaxLM, theirs: HFLM) -> None:
    history = [{"role": "user", "content": "کتاب"}, {"role": "assistant", "content": "پانی"}]
    assert ours.apply_chat_template(history, add_generation_prompt=False).endswith("<|assistant|>پانی")
    assert ours.apply_chat_template(history[:1]) == theirs.apply_chat_template(history[:1])


def test_apart_is_what_training_sees(ours: JaxLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blank that ends a prompt is the prompt's, whose likelihood nobody asks."""
    tokenizer = ours.loaded.tokenizer
    context, answer = "<|user|>دن<|assistant|>\n", "رات"
    before, after = ours._encode_pair(context, answer)
    assert tokenizer.decode(after) == "\nرات" and before == tokenizer.encode(context.rstrip())
    monkeypatch.setattr(ours, "apart", True)
    before, after = ours._encode_pair(context, answer)
    assert after == tokenizer.encode(answer) and before + after == tokenizer.encode(context + answer)


def test_a_template_that_writes_no_bos_gets_none(ours: JaxLM, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[bool] = []
    real = ours.loaded.tokenizer.core

    class Adding:
        """A tokenizer that puts BOS before what it is told to."""

        def encode(self, text: str, add_special_tokens: bool) -> Any:
            added.append(add_special_tokens)
            return real.encode(text, add_special_tokens=False)

    monkeypatch.setattr(ours, "_rendered", {"<|user|>دن"})
    monkeypatch.setattr(ours.loaded.tokenizer, "core", Adding())
    for text, wanted in (("<|user|>دن", False), ("دن", True), (tiny.SPECIAL[0] + "دن", False)):
        ours.tok_encode(text)
        assert added.pop() is wanted
    ours._encode_pair("<|user|>دن", "رات")
    assert set(added) == {False}


def test_a_template_that_wants_no_system_message(ours: JaxLM, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT
    monkeypatch.setattr(ours.loaded.tokenizer, "template", source)
    turns = [{"role": "system", "content": "مختصر"}, {"role": "user", "content": "دن"}]
    assert "<|user|>مختصر\n\nدن<|end_of_turn|><|assistant|>" in ours.apply_chat_template(turns)


def test_a_stop_that_is_a_token_ends_an_answer(ours: JaxLM) -> None:
    """It is not in the text, which has no special tokens, so what comes after it would count."""
    settings = {"until": [], "max_gen_toks": 24}
    prompts = [ours.tok_encode(line) for line in tiny.sentences(6, words=3)]
    free = generate_ids(ours.loaded, prompts, max_new_tokens=24)
    said = Counter(token for ids, _ in free for token in ids[1:])
    token = max(said, key=said.__getitem__)
    cut = generate_ids(ours.loaded, prompts, max_new_tokens=24, more_stop_ids=[token])
    assert [ids for ids, _ in cut] == [ids[: ids.index(token)] if token in ids else ids for ids, _ in free]
    found: list[int] = []

    def kept(*_: Any, more_stop_ids: list[int], **__: Any) -> list[tuple[list[int], bool]]:
        found.extend(more_stop_ids)
        return [([8], True)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alif_jax.harness.generate_ids", kept)
        ours.generate_until(instances("generate_until", ("دن", settings | {"until": ["<|user|>", "\n\n"]})))
    assert found == [tiny.SPECIAL.index("<|user|>")]


@pytest.mark.parametrize("backend", ["splash", "pallas"])
def test_asks_a_model_that_is_trained_with_a_kernel(ours: JaxLM, backend: str) -> None:
    """Whose kernel wants other lengths: the likelihoods are made without it."""
    source, loaded = ours.loaded, ours.loaded
    model = skeleton(loaded.config, NOTHING_TRAINED, dtype=jnp.float32, param_dtype=jnp.float32, attention=backend)
    trained = JaxLM(dataclasses.replace(source, skeleton=model))
    asked = instances("loglikelihood", ("دن", " رات"), ("کتاب", " پانی اور دن"))
    found, expected = trained.loglikelihood(asked), ours.loglikelihood(asked)
    np.testing.assert_allclose([logp for logp, _ in found], [logp for logp, _ in expected], atol=1e-4)


def test_on_a_mesh_that_splits_rows(base: str, ours: JaxLM) -> None:
    split = JaxLM(load_model(base, make_mesh(MeshConfig(fsdp=2, sequence=4))))
    asked = instances("loglikelihood", ("ایک", " دو"), ("دن", " رات اور سورج"))
    found, expected = split.loglikelihood(asked), ours.loglikelihood(asked)
    np.testing.assert_allclose([logp for logp, _ in found], [logp for logp, _ in expected], atol=1e-4)


def test_long_rows_have_their_scores_made_in_chunks(base: str, ours: JaxLM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = instances("loglikelihood", (" ".join(tiny.sentences(1, words=20)), " کتاب"))
    (expected,) = ours.loglikelihood(asked)
    monkeypatch.setattr(ours, "_whole_scores", 16)
    (found,) = ours.loglikelihood(asked)
    assert math.isclose(found[0], expected[0], abs_tol=1e-4)


def test_which_answers_ended_by_themselves(ours: JaxLM, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ours.tok_encode("کتاب پانی", add_special_tokens=False)
    monkeypatch.setattr("alif_jax.harness.generate_ids", lambda *_, **__: [(ids, True), (ids, False)])
    settings = {"until": [], "max_gen_toks": 8}
    assert ours.generate_until(instances("generate_until", ("دن الف", settings), ("دن", settings))) == ["کتاب پانی"] * 2
    assert (ours.ended["دن الف"], ours.ended["دن"]) == (True, False)
    settings = {"until": ["پانی"], "max_gen_toks": 8}
    assert ours.generate_until(instances("generate_until", ("دن الف", settings), ("دن", settings))) == ["کتاب "] * 2
    assert ours.ended["دن"]


def test_batches_are_of_like_length(ours: JaxLM) -> None:
    """None under half of the longest, all there, in order; very short rows too share a batch, and the first is never left alone."""
    lengths = [70, 60, 36, 34, 30, 20, *[5] * 40, *[2] * 30, 1]
    rows = [Row((0,) * length, [(0, 0)], [(number, [0])]) for number, length in enumerate(lengths)]
    batches = [[len(row.tokens) for row in batch] for batch in ours._batches(random.Random(0).sample(rows, len(rows)))]
    assert [length for batch in batches for length in batch] == lengths
    assert all(2 * min(batch) >= max(batch) for batch in batches)
    assert [batch for batch in batches if batch[0] < 16] == [[5] * 40, [*[2] * 30, 1]]
    assert all(ours._length(batch[0]) * len(batch) <= ours._row_tokens for batch in batches)


def test_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alif_jax.harness.EACH", 4)
    assert [bucket(length) for length in (1, 16, 17, 21, 25, 31, 33, 65, 97, 2000)] == [16, 16, 20, 24, 28, 32, 40, 80, 112, 2048]
    assert [bucket(length, 1) for length in (1, 2, 3, 4, 5, 7, 9, 13)] == [1, 2, 3, 4, 5, 7, 10, 14]
    assert all(length <= bucket(length) < length * 5 / 4 for length in range(17, 3000))
    assert len({bucket(length) for length in range(17, 8193)}) == 9 * 4
