"""Cached generation: greedy as an uncached recomputation and as transformers; sampling as the distribution says."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from alif_jax import UsageError
from alif_jax.generate import BUCKET, Decoding, _go_on, generate, generate_ids, keep_top_p, read_prompts
from alif_jax.load import Loaded, load_model
from alif_jax.sharding import MeshConfig, make_mesh
from tests import tiny

NEW = 10
WORDS = tiny.sentences(1, words=40)[0].split(" ")
PROMPTS = ["", WORDS[0], " ".join(WORDS[:4]), " ".join([*WORDS, *WORDS, *WORDS][:80]), " ".join(WORDS[4:11])]
CHAT = "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end_of_turn|>{% endfor %}"
CHAT += "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.make_base(tmp_path_factory.mktemp("base"), chat_template=CHAT)


@pytest.fixture(scope="module")
def loaded(base: str) -> Loaded:
    """On one device; never stops by itself, as a random model does now and then."""
    return stopping_at(load_model(base, make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])))


def stopping_at(loaded: Loaded, *ids: int) -> Loaded:
    """Always as many stop ids, or the same program would be compiled again."""
    stop_ids = (*ids, *[-1] * (5 - len(ids)))
    return dataclasses.replace(loaded, tokenizer=dataclasses.replace(loaded.tokenizer, stop_ids=stop_ids))


def ids_of(loaded: Loaded, prompt: str) -> list[int]:
    return loaded.tokenizer.encode(tiny.SPECIAL[0] + prompt)


@pytest.fixture(scope="module")
def greedy(loaded: Loaded) -> list[list[int]]:
    return [result.token_ids for result in generate(loaded, PROMPTS, max_new_tokens=NEW, raw=True)]


def next_logits(loaded: Loaded, ids: list[int]) -> np.ndarray:
    """Logits after these tokens by one pass over all of them, without a cache."""
    tokens = np.zeros((1, 2 * BUCKET + NEW), np.int32)
    tokens[0, : len(ids)] = ids
    return np.asarray(_logits(loaded.params, jnp.asarray(tokens), model=loaded.skeleton)[0, len(ids) - 1])


@partial(jax.jit, static_argnames="model")
def _logits(params: Any, tokens: jax.Array, *, model: Any) -> jax.Array:
    llama = model.model(params)
    positions = jnp.arange(tokens.shape[1])[None]
    return llama.logits(llama(tokens, positions_BL=positions, segment_ids_BL=jnp.ones_like(tokens))[0])


def test_greedy_is_the_argmax_without_a_cache(loaded: Loaded, greedy: list[list[int]]) -> None:
    lengths = [len(ids_of(loaded, prompt)) for prompt in PROMPTS]
    assert min(lengths) == 1 and sorted(lengths)[-2] < BUCKET < max(lengths)
    assert len({tuple(ids) for ids in greedy}) == len(PROMPTS)  # a model that ignores its prompt could not fail
    for prompt, generated in zip(PROMPTS, greedy, strict=True):
        ids = ids_of(loaded, prompt)
        for token in generated:
            assert token == next_logits(loaded, ids).argmax()
            ids.append(token)
        assert len(generated) == NEW


def test_greedy_is_transformers(loaded: Loaded, greedy: list[list[int]]) -> None:
    reference = tiny.hf_model(tiny.hf_config())
    reference.generation_config.eos_token_id = None
    for prompt, generated in zip(PROMPTS, greedy, strict=True):
        ids = torch.tensor([ids_of(loaded, prompt)])
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW, pad_token_id=2)
        assert generated == out[0, ids.shape[1] :].tolist()


def test_greedy_on_a_mesh_and_in_small_batches(base: str, loaded: Loaded, greedy: list[list[int]]) -> None:
    meshed = stopping_at(load_model(base, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))))
    for model, batch_size in ((meshed, 16), (loaded, 2)):
        results = generate(model, PROMPTS, max_new_tokens=NEW, raw=True, batch_size=batch_size)
        assert [result.token_ids for result in results] == greedy
        assert [result.prompt for result in results] == PROMPTS


def test_layers_in_one_stack_and_apart(loaded: Loaded, greedy: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU the layers are taken apart; elsewhere they stay in their stack."""
    for instead in ("", "turned"):
        taken: list[str] = []

        def other(*arrays: Any, apart: str, **settings: Any) -> Decoding:
            taken.append(apart)  # noqa: B023
            return _go_on(*arrays, apart=instead, **settings)  # noqa: B023

        monkeypatch.setattr("alif_jax.generate._go_on", other)
        results = generate(loaded, PROMPTS, max_new_tokens=NEW, raw=True)
        assert taken == ["plain"]  # a tiny model's weights lie in the cache
        assert [result.token_ids for result in results] == greedy


def test_a_row_ends_at_its_stop_token_and_the_others_go_on(loaded: Loaded, greedy: list[list[int]]) -> None:
    stops = (greedy[1][4], greedy[3][0])
    results = generate(stopping_at(loaded, *stops), PROMPTS, max_new_tokens=NEW, raw=True)
    ends = [min((ids.index(stop) for stop in stops if stop in ids), default=None) for ids in greedy]
    assert ends[1] is not None and ends[3] == 0 and None in ends
    for result, ids, end in zip(results, greedy, ends, strict=True):
        assert result.token_ids == ids[:end]
        assert result.finish_reason == ("length" if end is None else "stop")
        assert result.text == loaded.tokenizer.decode(ids[:end])


def test_decoding_ends_when_every_row_has_stopped(loaded: Loaded, greedy: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    stops = (greedy[1][0], greedy[3][0], greedy[0][3], greedy[2][0], greedy[4][0])
    states: list[Decoding] = []

    def watched(*arrays: Any, **settings: Any) -> Decoding:
        states.append(_go_on(*arrays, **settings))
        return states[-1]

    monkeypatch.setattr("alif_jax.generate._go_on", watched)
    generate(stopping_at(loaded, *stops), PROMPTS, max_new_tokens=NEW, raw=True)
    written = np.asarray(states[0].out_BM)[: len(PROMPTS)].any(axis=0)  # what no step has written is 0
    assert written.tolist() == [True] * 4 + [False] * (NEW - 4)


def test_looks_at_what_was_made_and_ends_when_it_is_enough(
    loaded: Loaded, greedy: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alif_jax.generate.LOOK", 4)
    prompts = [ids_of(loaded, prompt) for prompt in PROMPTS]
    asked: list[int] = []

    def over(ids: list[int]) -> bool:
        asked.append(len(ids))
        return len(ids) >= 6

    found = generate_ids(loaded, prompts, max_new_tokens=NEW, over=over)
    assert [ids for ids, _ in found] == [ids[:8] for ids in greedy]  # 4, then 8
    assert set(asked) == {4, 8}
    assert [ids for ids, _ in generate_ids(loaded, prompts, max_new_tokens=NEW, over=lambda ids: False)] == greedy


def test_a_stop_token_as_the_last_possible_one(loaded: Loaded, greedy: list[list[int]]) -> None:
    last = next(at for at, token in enumerate(greedy[2]) if at and token not in greedy[2][:at])
    (result,) = generate(stopping_at(loaded, greedy[2][last]), [PROMPTS[2]], max_new_tokens=last + 1, raw=True)
    assert (result.token_ids, result.finish_reason) == (greedy[2][:last], "stop")


def test_a_prompt_is_a_users_turn_unless_raw(loaded: Loaded) -> None:
    question = WORDS[0]
    chat, other = generate(loaded, [question, WORDS[1]], max_new_tokens=NEW)
    rendered = f"<|user|>{question}<|end_of_turn|><|assistant|>"
    same, plain = generate(loaded, [rendered, question], max_new_tokens=NEW, raw=True)
    assert chat.token_ids == same.token_ids != plain.token_ids
    assert (chat.prompt, other.prompt) == (question, WORDS[1])
    untaught = dataclasses.replace(loaded, tokenizer=dataclasses.replace(loaded.tokenizer, template=None))
    with pytest.raises(UsageError, match="no chat template"):
        generate(untaught, [question], max_new_tokens=4)


# --- sampling


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Pearson's statistic over the 20 most probable tokens and the rest: about 20 ± 6 for samples of this distribution."""
    top = np.argsort(-probabilities)[:20]
    observed = np.append(counts[top], counts.sum() - counts[top].sum())
    expected = np.append(probabilities[top], 1 - probabilities[top].sum()) * counts.sum()
    return float(((observed - expected) ** 2 / expected).sum())


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def nucleus(probabilities: np.ndarray, top_p: float) -> np.ndarray:
    """The most probable tokens, one after the other, until their sum reaches top_p."""
    kept, total = np.zeros(len(probabilities), bool), 0.0
    for token in np.argsort(-probabilities):
        if total >= top_p:
            break
        kept[token], total = True, total + probabilities[token]
    return kept


def test_samples_follow_the_distribution(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alif_jax.generate.BUCKET", 8)  # less padding, less time
    settings: dict[str, Any] = {"max_new_tokens": 1, "temperature": 0.6, "raw": True, "batch_size": 300}
    logits = next_logits(loaded, ids_of(loaded, WORDS[0]))
    asked = softmax(logits / 0.6)
    kept = nucleus(asked, 0.7)
    assert 5 < kept.sum() < 200
    for top_p, distribution in ((1.0, asked), (0.7, asked * kept / asked[kept].sum())):
        results = generate(loaded, [WORDS[0]] * 1200, top_p=top_p, seed=3, **settings)
        tokens = [id for result in results for id in result.token_ids]
        counts = np.bincount(tokens, minlength=tiny.VOCAB)
        assert 3 < chi_square(counts, distribution) < 50  # p = 2e-4
        assert chi_square(counts, softmax(logits)) > 150
        assert not counts[~kept].any() or top_p == 1


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_smallest_set(top_p: float) -> None:
    logits = np.random.default_rng(0).standard_normal((40, 60)).astype(np.float32) * 2
    got = np.asarray(keep_top_p(jnp.asarray(logits), jnp.float32(top_p)))
    for row, kept_row in zip(logits, got, strict=True):
        kept = nucleus(softmax(row), top_p)
        np.testing.assert_array_equal(np.isfinite(kept_row), kept)
        np.testing.assert_array_equal(kept_row[kept], row[kept])


def test_a_seed_gives_the_same_again_and_rows_do_not_see_their_neighbours(loaded: Loaded) -> None:
    def sample(prompts: list[str], **changes: Any) -> list[list[int]]:
        settings: dict[str, Any] = {"max_new_tokens": NEW, "temperature": 1.0, "top_p": 0.95, "seed": 5, "raw": True} | changes
        return [result.token_ids for result in generate(loaded, prompts, **settings)]

    prompts = [PROMPTS[2], PROMPTS[1], PROMPTS[0], WORDS[9]]
    first = sample(prompts)
    assert sample(prompts) == first
    assert all(a != b for a, b in zip(sample(prompts, seed=6), first, strict=True))
    assert sample(prompts, batch_size=2) == first
    others = [prompts[0], WORDS[5], prompts[2], WORDS[6]]
    assert [ids for at, ids in enumerate(sample(others)) if at in (0, 2)] == [first[0], first[2]]
    same = sample([prompts[2]] * 4)
    assert same[2] == first[2] and len({tuple(ids) for ids in same}) == 4  # each index has its own draws


def test_each_step_draws_anew(loaded: Loaded) -> None:
    level = dataclasses.replace(loaded, params=loaded.params | {"lm_head.kernel": 0 * loaded.params["lm_head.kernel"]})
    for result in generate(level, [""] * 4, max_new_tokens=NEW, temperature=1.0, raw=True):
        assert len(set(result.token_ids)) > NEW // 2


def test_a_prompt_without_a_token(loaded: Loaded) -> None:
    without_bos = dataclasses.replace(loaded, tokenizer=dataclasses.replace(loaded.tokenizer, bos_token=None))
    with pytest.raises(UsageError, match="a prompt without a single token"):
        generate(without_bos, ["a", ""], max_new_tokens=3, raw=True)


def test_prompts_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "ایک\u2028دو"}\n\n{"id": 1, "prompt": ""}\n', encoding="utf-8")
    assert read_prompts(str(path)) == ["ایک\u2028دو", ""]
    for bad in ("{", '{"text": "a"}', '{"prompt": 1}', "[]"):
        path.write_text(f'{{"prompt": "a"}}\n{bad}\n', encoding="utf-8")
        with pytest.raises(UsageError, match=r"prompts.jsonl, line 2: expected a JSON object with .prompt."):
            read_prompts(str(path))
    path.write_text("\n")
    with pytest.raises(UsageError, match="no prompt in it"):
        read_prompts(str(path))


def test_no_prompt_is_no_result(loaded: Loaded) -> None:
    assert generate(loaded, [], max_new_tokens=3, raw=True) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0: at least 1"),
        ({"max_new_tokens": 3, "temperature": -1.0}, "temperature=-1.0"),
        ({"max_new_tokens": 3, "temperature": 1.0, "top_p": 0.0}, "top_p=0.0"),
        ({"max_new_tokens": 3, "temperature": 1.0, "top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_settings_out_of_range(loaded: Loaded, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(loaded, ["a"], raw=True, **settings)
