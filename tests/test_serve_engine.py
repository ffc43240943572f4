"""The engine: its tokens are generate()'s, a row's bits its own; queue, cancels, draining, adapters."""

import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from alif_jax import UsageError
from alif_jax.attention import attend, attend_slots
from alif_jax.data.template import DataConfig
from alif_jax.generate import generate
from alif_jax.load import Loaded, ModelSource, load_adapter, load_model
from alif_jax.lora import LoraConfig
from alif_jax.optim import OptimConfig
from alif_jax.serve import lane as lanes
from alif_jax.serve.decode import chunks, slots
from alif_jax.serve.engine import Engine, QueueFull, Sampling, Ticket, Token, Update
from alif_jax.serve.lane import Batch
from alif_jax.serve.weights import weights_of
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.train import TrainConfig, fit
from tests import tiny

NEW = 6
MAX = 128
SECONDS = 60.0


class Listener:
    """Collects what a request hears."""

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.reason: str | None = None
        self.updates = 0
        self.first, self.done = threading.Event(), threading.Event()

    def __call__(self, update: Update) -> None:
        assert self.reason is None  # nothing comes after the last
        self.tokens += update.tokens
        self.reason, self.updates = update.finish_reason, self.updates + 1
        self.first.set()
        if self.reason:
            self.done.set()

    def ids(self) -> list[int]:
        assert self.done.wait(SECONDS)
        return [token.id for token in self.tokens]


def stopping_at(loaded: Loaded, *ids: int) -> Loaded:
    return dataclasses.replace(loaded, tokenizer=dataclasses.replace(loaded.tokenizer, stop_ids=ids or (-1,)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def loaded(base: str) -> Loaded:
    return stopping_at(load_model(base, make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])))


@pytest.fixture(scope="module")
def engine(loaded: Loaded) -> Iterator[Engine]:
    """Four rows, of one lane."""
    engine = make(loaded)
    engine.start()
    yield engine
    engine.stop(drain=False)


@pytest.fixture(scope="module", autouse=True)
def weights_made_once() -> Iterator[None]:
    """Engines on the same models share their compiled programs, which are the most of these tests' time."""
    made: dict[tuple[int, ...], Any] = {}
    models_kept = []  # or an id would come again

    def remembered(models: Mapping[str, Loaded]) -> Any:
        key = tuple(id(loaded.skeleton) for loaded in models.values())
        models_kept.append(models)
        return made[key] if key in made else made.setdefault(key, weights_of(models))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alif_jax.serve.engine.weights_of", remembered)
        yield


def make(loaded: Loaded, **settings: Any) -> Engine:
    return Engine({"m": loaded}, **({"batch_size": 4, "max_length": MAX, "max_queue": 100} | settings))


def prompt(loaded: Loaded, length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng((seed, length)).integers(7, loaded.config.vocab_size, length).tolist()


def ask(engine: Engine, ids: Sequence[int], model: str = "m", **sampling: Any) -> Listener:
    listener = Listener()
    engine.submit(model, ids, Sampling(**({"max_tokens": NEW} | sampling)), listener)
    return listener


def told_by_generate(loaded: Loaded, ids: list[int], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[int]:
    """generate() for these very tokens."""
    monkeypatch.setattr(type(loaded.tokenizer), "encode_batch", lambda self, texts: [ids] * len(texts))
    (result,) = generate(loaded, ["x"], **({"max_new_tokens": NEW, "raw": True} | settings))
    return result.token_ids


@partial(jax.jit, static_argnames="model")
def uncached(params: Any, tokens: jax.Array, *, model: Any) -> tuple[jax.Array, jax.Array]:
    """Final hidden states and logits [1, L, …] by one pass, without a cache."""
    llama = model.model(params)
    hidden, _ = llama(tokens, positions_BL=jnp.arange(tokens.shape[1])[None], segment_ids_BL=jnp.ones_like(tokens))
    return hidden, llama.logits(hidden)


def hidden_and_logits(loaded: Loaded, ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.zeros((1, MAX), np.int32)
    tokens[0, : len(ids)] = ids
    hidden, logits = uncached(loaded.params, jnp.asarray(tokens), model=loaded.skeleton)
    return np.asarray(hidden[0, : len(ids)]), np.asarray(logits[0, : len(ids)])


# --- the same tokens


@pytest.mark.parametrize("length", [1, 65, *(pytest.param(n, marks=pytest.mark.slow) for n in (63, 64, MAX - NEW))])
def test_greedy_is_generate(engine: Engine, loaded: Loaded, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = prompt(loaded, length)
    listener = ask(engine, ids)
    expected = told_by_generate(loaded, ids, monkeypatch)
    assert listener.ids() == expected
    assert (len(expected), listener.reason) == (NEW, "length")


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8}])
def test_samples_are_those_of_generate(
    engine: Engine, loaded: Loaded, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    for seed in (0, 7, -3):
        ids = prompt(loaded, 9)
        listener = ask(engine, ids, seed=seed, **settings)
        drawn.append(listener.ids())
        assert drawn[-1] == told_by_generate(loaded, ids, monkeypatch, seed=seed, **settings)
    assert len(set(map(tuple, drawn))) == 3


@pytest.mark.slow
def test_another_family_and_lanes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qwen3 with tied tables, on one device; 8 rows are two lanes there."""
    base = tiny.make_base(tmp_path, family="qwen3", tie_word_embeddings=True)
    loaded = stopping_at(load_model(base, make_mesh(MeshConfig(fsdp=1), jax.devices()[:1])))
    engine = make(loaded, batch_size=8)
    assert len(engine._lanes) == 2
    engine.start()
    prompts = [prompt(loaded, length) for length in (3, 30, 11, 58, 40)]
    listeners = [ask(engine, ids) for ids in prompts]
    answers = [listener.ids() for listener in listeners]
    engine.stop(drain=True)
    assert answers == [told_by_generate(loaded, ids, monkeypatch) for ids in prompts]


@pytest.mark.slow
def test_a_mesh(base: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows over four devices, heads over two; there, as on an accelerator, the layers stay in their stack."""
    meshed = stopping_at(load_model(base, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))))
    with pytest.raises(UsageError, match="batch_size=6 rows cannot be divided over data × fsdp = 4 devices"):
        make(meshed, batch_size=6)
    engine = make(meshed, batch_size=8)
    engine.start()
    prompts = [prompt(loaded, length) for length in (5, 70, 12, 120, 33, 64, 2, 90, 41)]
    listeners = [ask(engine, ids) for ids in prompts]
    answers = [listener.ids() for listener in listeners]
    engine.stop(drain=True)
    assert answers == [told_by_generate(loaded, ids, monkeypatch) for ids in prompts]


def test_stop_tokens(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = prompt(loaded, 9)
    greedy = told_by_generate(loaded, ids, monkeypatch)
    for at in (0, 3, NEW - 1):
        engine = make(stopping_at(loaded, greedy[at], 1))
        engine.start()
        listener = ask(engine, ids)
        assert listener.ids() == greedy[: greedy.index(greedy[at])]
        assert listener.reason == "stop"
        engine.stop(drain=True)
        assert (engine.stats().finished, engine.stats().generated_tokens) == ({"stop": 1}, greedy.index(greedy[at]))


# --- a row's bits


@pytest.fixture(scope="module")
def large(loaded: Loaded) -> Any:
    """`weights_of` as for a model that no CPU's cache holds: kernels turned, the head for all rows at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alif_jax.model.CPU_CACHE", 0)
        made = weights_of({"m": loaded})
    return lambda models: made


@pytest.mark.parametrize("in_cpu_cache", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_bits_are_the_same_alone_with_neighbours_and_joining_late(
    loaded: Loaded, large: Any, in_cpu_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_cpu_cache:
        monkeypatch.setattr("alif_jax.serve.engine.weights_of", large)
    ids, other = prompt(loaded, 20), prompt(loaded, 65)

    def bits(before: int, held: int) -> list[Token]:
        """held: neighbours that are under way when the request comes."""
        engine = make(loaded)
        engine.start()
        around = [ask(engine, other, max_tokens=60, temperature=0.9 * (at % 2), top_logprobs=3 * at) for at in range(held)]
        for listener in around:
            assert listener.first.wait(SECONDS)
        for _ in range(before):  # rows that are stale by then
            ask(engine, prompt(loaded, 100)).ids()
        listener = ask(engine, ids, max_tokens=12, top_logprobs=2)
        listener.ids()
        engine.stop(drain=False)
        return listener.tokens

    alone = bits(before=0, held=0)
    assert len(alone) == 12
    assert bits(before=0, held=3) == alone
    assert bits(before=3, held=2) == alone


def test_a_slot_sees_what_attention_sees() -> None:
    """attend_slots against the reference: ragged rows, several queries, more slots than a block, stale ones behind."""
    rng = np.random.default_rng(0)
    layers, B, T, S, N, K, H = 2, 3, 5, 300, 4, 2, 8
    q, k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((B, T, N, H), *[(layers, B, S, K, H)] * 2))
    positions = jnp.asarray([[0, 1, 2, 3, 4], [126, 127, 128, 129, 130], [295, 296, 297, 298, 299]])
    slotted = jax.jit(partial(attend_slots, layer=1))
    got = slotted(q, k, v, q_positions_BT=positions)
    slots_BS, ones = jnp.broadcast_to(jnp.arange(S), (B, S)), jnp.ones((B, S), jnp.int32)
    expected = jax.jit(attend)(
        q, k[1], v[1], q_positions_BT=positions, kv_positions_BS=slots_BS, q_segments_BT=ones[:, :T], kv_segments_BS=ones
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)
    idle = slotted(q, k, v, q_positions_BT=positions.at[1].set(-1))
    np.testing.assert_array_equal(np.asarray(idle[0]), got[0])
    assert not np.asarray(idle[1]).any()


# --- what is told with the tokens


def test_logprobs_are_of_the_raw_logits(engine: Engine, loaded: Loaded) -> None:
    ids = prompt(loaded, 30)
    listener = ask(engine, ids, temperature=1.3, top_p=0.9, seed=4, top_logprobs=20)
    answer = listener.ids()
    _, logits = hidden_and_logits(loaded, ids + answer)
    for token, row in zip(listener.tokens, logits[len(ids) - 1 :], strict=False):
        wide = row.astype(np.float64)
        expected = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
        assert abs(token.logprob - expected[token.id]) < 1e-4
        order = np.argsort(-expected)[:20]
        assert [id for id, _ in token.top] == order.tolist()
        np.testing.assert_allclose([logprob for _, logprob in token.top], expected[order], rtol=0, atol=1e-4)
    assert all(token.top == () for token in _tokens_of(ask(engine, ids)))


def _tokens_of(listener: Listener) -> list[Token]:
    listener.ids()
    return listener.tokens


def test_embeddings_are_means_of_the_hidden_states(engine: Engine, loaded: Loaded) -> None:
    prompts = [prompt(loaded, length) for length in (1, 64, 65, MAX, 12)]
    got = engine.embed("m", prompts).result(SECONDS)
    expected = [hidden_and_logits(loaded, ids)[0].mean(axis=0) for ids in prompts]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert engine.embed("m", []).result(0).shape == (0, loaded.config.hidden_size)


def test_a_prompt_of_several_chunks() -> None:
    assert [chunks(n) for n in (1, 48, 49, 512, 513, 600, 1024)] == [[16], [48], [128], [512], [512, 16], [512, 128], [512, 512]]
    assert [slots(n) for n in (2, 128, 160, 2000)] == [16, 128, 256, 2048]


@pytest.mark.slow
def test_long_prompts(base: str, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(loaded, max_length=600)
    engine.start()
    ids = prompt(loaded, 560)
    listener, mean = ask(engine, ids), engine.embed("m", [ids])
    assert listener.ids() == told_by_generate(loaded, ids, monkeypatch)
    tokens = jnp.asarray([ids], jnp.int32)
    hidden, _ = uncached(loaded.params, tokens, model=loaded.skeleton)
    np.testing.assert_allclose(mean.result(SECONDS), np.asarray(hidden).mean(axis=1), rtol=0, atol=1e-5)
    engine.stop(drain=True)


# --- the queue


def test_the_queue_is_bounded(loaded: Loaded) -> None:
    engine = make(loaded, max_queue=3)  # not started: nothing is taken from it, and its four rows are free
    waiting = [ask(engine, [5]) for _ in range(6)]
    with pytest.raises(QueueFull) as full:
        engine.embed("m", [[5], [6]])
    assert 1 <= full.value.retry_after <= 60
    waiting.append(ask(engine, [5]))
    with pytest.raises(QueueFull):
        ask(engine, [5])
    assert engine.stats().waiting == 7
    engine.start()
    assert len({tuple(listener.ids()) for listener in waiting}) == 1
    engine.stop(drain=True)


def test_a_cancel_frees_the_row(engine: Engine, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = engine
    monkeypatch.setattr(lanes, "DISPATCH_SECONDS", 0.0)  # a step a dispatch
    engine = make(loaded)
    engine.start()
    running = [Listener() for _ in range(4)]
    tickets = [engine.submit("m", [5 + at], Sampling(max_tokens=MAX - 1), heard) for at, heard in enumerate(running)]
    for heard in running:
        assert heard.first.wait(SECONDS)
    behind = ask(engine, [7])
    queued = Listener()
    engine.cancel(engine.submit("m", [8], Sampling(max_tokens=2), queued))
    assert queued.done.wait(SECONDS) and (queued.reason, queued.tokens) == ("cancelled", [])
    assert not behind.first.is_set()
    engine.cancel(tickets[2])
    assert running[2].done.wait(SECONDS) and running[2].reason == "cancelled"
    assert 0 < len(running[2].tokens) < MAX - 1
    assert len(behind.ids()) == NEW
    assert not running[0].done.is_set()  # the row was that of the cancelled one
    engine.cancel(tickets[2])  # of one that has ended: nothing
    engine.stop(drain=True)
    for at in (0, 1, 3):  # also with a row free between them
        assert running[at].ids() == ask(shared, [5 + at], max_tokens=MAX - 1).ids()
    stats = engine.stats()
    assert (stats.waiting, stats.running, stats.finished, stats.alive) == (0, 0, {"cancelled": 2, "length": 4}, False)


def test_cancelled_during_the_prompt(loaded: Loaded) -> None:
    engine = make(loaded)
    listener = Listener()
    ticket = engine.submit("m", [5], Sampling(max_tokens=3), listener)
    engine.cancel(ticket)
    engine.start()
    assert listener.done.wait(SECONDS) and listener.reason == "cancelled"
    engine.stop(drain=True)


def test_a_cancel_while_the_prompt_is_read(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither in a row nor in the queue then, and must end once all the same."""
    engine = make(loaded)
    start = Batch.start

    def cancelled_meanwhile(batch: Batch, ticket: Ticket, row: int) -> Any:
        made = start(batch, ticket, row)
        engine.cancel(ticket)
        return made

    monkeypatch.setattr(Batch, "start", cancelled_meanwhile)
    heard = list[str | None]()
    engine.submit("m", [5], Sampling(max_tokens=9), lambda update: heard.append(update.finish_reason))
    engine.start()
    engine.stop(drain=True)
    assert [reason for reason in heard if reason] == ["cancelled"]
    assert (engine.stats().running, engine.stats().finished) == (0, {"cancelled": 1})


def test_who_cancels_embeddings_frees_their_rows(loaded: Loaded) -> None:
    engine = make(loaded)
    means = engine.embed("m", [[5, 6], [7]])
    behind = ask(engine, [5])
    assert means.cancel() and engine.stats().waiting == 1
    engine.start()
    assert len(behind.ids()) == NEW
    engine.stop(drain=True)
    assert (engine.stats().running, engine.stats().finished) == (0, {"cancelled": 2, "length": 1})


def test_a_listener_that_raises_ends_no_others_wait(loaded: Loaded) -> None:
    engine = make(loaded)
    thrown = list[object]()
    hook, threading.excepthook = threading.excepthook, thrown.append

    def raising(update: Update) -> None:
        raise RuntimeError("a fault of the listener's")

    engine.submit("m", [5], Sampling(max_tokens=1), raising)
    others = [Listener() for _ in range(2)]
    for listener in others:
        engine.submit("m", [5], Sampling(max_tokens=1), listener)
    engine.start()
    assert all(listener.done.wait(SECONDS) for listener in others)
    assert [listener.reason for listener in others] == ["length"] * 2
    engine.stop(drain=True)
    threading.excepthook = hook
    assert len(thrown) == 1 and not engine.stats().alive


def test_draining_finishes_what_was_accepted(loaded: Loaded) -> None:
    engine = make(loaded)
    engine.start()
    listeners = [ask(engine, [5 + at], max_tokens=20) for at in range(11)]
    engine.stop(drain=True)
    assert [len(listener.ids()) for listener in listeners] == [20] * 11
    with pytest.raises(UsageError, match="has been stopped and takes no more"):
        ask(engine, [5])


def test_stopping_without_draining_cancels(loaded: Loaded) -> None:
    engine = make(loaded)
    engine.start()
    listeners = [ask(engine, [5], max_tokens=MAX - 1) for _ in range(6)]
    embedding = engine.embed("m", [[5]])
    assert listeners[0].first.wait(SECONDS)
    engine.stop(drain=False)
    assert [listener.reason for listener in listeners].count("cancelled") >= 2
    with pytest.raises(CancelledError):
        embedding.result(SECONDS)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lane_that_fails_leaves_nobody_waiting(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(loaded)
    listeners = [ask(engine, [5]) for _ in range(6)]

    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(lanes, "decode", broken)
    engine.start()
    assert [listener.done.wait(SECONDS) and listener.reason for listener in listeners] == ["error"] * 6
    engine._threads[0].join(SECONDS)
    assert not engine.stats().alive
    assert engine.stats().finished == {"error": 6}


def test_statistics(loaded: Loaded) -> None:
    engine = make(loaded)
    assert not engine.stats().alive
    engine.start()
    assert engine.stats().alive
    listeners = [ask(engine, prompt(loaded, 10)) for _ in range(5)]
    for listener in listeners:
        listener.ids()
    engine.stop(drain=True)
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.generated_tokens, stats.finished) == (50, 5 * NEW, {"length": 5})


@pytest.mark.parametrize(
    ("ids", "sampling", "message"),
    [
        ([], {}, "a prompt without a single token"),
        ([5] * MAX, {}, f"{MAX} tokens of prompt and {NEW} new ones are more than max_length={MAX}"),
        ([5, 10**6], {}, "a token id of 1000000; this model has 0 to 383"),
        ([5, -1], {}, "a token id of -1"),
        ([5], {"max_tokens": 0}, "max_tokens=0"),
        ([5], {"temperature": -1.0}, "temperature=-1.0"),
        ([5], {"temperature": float("nan")}, "temperature=nan"),
        ([5], {"top_p": 0.0}, "top_p=0.0"),
        ([5], {"top_logprobs": 21}, "top_logprobs=21: 0 to 20"),
        ([5], {"seed": 2**63}, "a number of 64 bits"),
    ],
)
def test_requests_that_cannot_be(engine: Engine, ids: list[int], sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ask(engine, ids, **sampling)


def test_a_model_that_no_cpu_cache_holds(loaded: Loaded, large: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alif_jax.serve.engine.weights_of", large)
    engine = make(loaded)
    engine.start()
    prompts = [prompt(loaded, length) for length in (3, 30, 11)]
    listeners = [ask(engine, ids) for ids in prompts]
    answers = [listener.ids() for listener in listeners]
    engine.stop(drain=True)
    assert answers == [told_by_generate(loaded, ids, monkeypatch) for ids in prompts]
    monkeypatch.setattr("alif_jax.model.CPU_CACHE", 0)
    assert len(make(loaded, batch_size=8)._lanes) == 1


def test_the_whole_length_can_be_used(engine: Engine, loaded: Loaded) -> None:
    assert len(ask(engine, prompt(loaded, MAX - 1), max_tokens=1).ids()) == 1
    assert len(ask(engine, [5], max_tokens=MAX - 1).ids()) == MAX - 1


def test_engines_that_cannot_be(loaded: Loaded) -> None:
    with pytest.raises(UsageError, match="model 'other' is not served; there are m"):
        make(loaded).submit("other", [5], Sampling(max_tokens=1), Listener())
    with pytest.raises(UsageError, match="max_length=4096 is more than the context of 'm', 2048 tokens"):
        make(loaded, max_length=4096)
    with pytest.raises(UsageError, match="batch_size=0"):
        make(loaded, batch_size=0)
    with pytest.raises(UsageError, match="no model to serve"):
        Engine({}, batch_size=1, max_length=8, max_queue=1)


# --- adapters


def peft_adapter(directory: Path, **settings: Any) -> str:
    """On the weights of `tiny.make_base`, with random values, written by PEFT."""
    adapted = peft.get_peft_model(tiny.hf_model(tiny.hf_config()), peft.LoraConfig(r=4, lora_alpha=8, **settings))
    torch.manual_seed(1)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data += torch.randn_like(weight) * 0.1
    adapted.save_pretrained(directory / "adapter")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(directory / "merged")
    return tiny.make_tokenizer(directory / "merged") and str(directory / "adapter")


@pytest.mark.parametrize("tables", [None, pytest.param(["embed_tokens", "lm_head"], marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # PEFT warns of saved tables
def test_adapters_beside_their_base(
    base: str, loaded: Loaded, tmp_path: Path, tables: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = peft_adapter(tmp_path, target_modules=["q_proj", "v_proj", "down_proj"], modules_to_save=tables)
    adapted = stopping_at(load_adapter(loaded, path))
    merged = stopping_at(load_model(str(tmp_path / "merged"), loaded.mesh))
    shared = [name for name in loaded.params if adapted.params.get(name) is loaded.params[name]]
    assert sorted(set(loaded.params) - set(shared)) == sorted(["embed_tokens.embedding", "lm_head.kernel"] if tables else [])
    weights = weights_of({"base": loaded, "adapter": adapted})
    both = [weights[name].params["apart.0.mlp.up_proj.kernel"] for name in ("base", "adapter")]
    assert both[0] is both[1]
    engine = Engine({"base": loaded, "adapter": adapted}, batch_size=4, max_length=MAX, max_queue=9)
    engine.start()
    ids = prompt(loaded, 9)
    answers = {name: [ask(engine, ids, model=name) for _ in range(3)] for name in ("base", "adapter")}
    expected = {"base": told_by_generate(loaded, ids, monkeypatch), "adapter": told_by_generate(merged, ids, monkeypatch)}
    assert expected["base"] != expected["adapter"]
    for name, listeners in answers.items():
        assert [listener.ids() for listener in listeners] == [expected[name]] * 3
    engine.stop(drain=True)


@pytest.mark.slow
def test_a_run_on_the_same_base_is_an_adapter(base: str, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.make_shards(tmp_path / "data", tiny.conversations(40))
    config = TrainConfig(
        model=ModelSource(path=base, dtype="float32", param_dtype="float32", remat="none"),
        lora=LoraConfig(rank=4, alpha=8.0, modules_to_save=("lm_head",)),
        data=DataConfig(path=(str(tmp_path / "data"),), sequence_length=128, template="turns"),
        optim=OptimConfig(learning_rate=1e-2),
        max_steps=3,
    )
    fit(config, str(tmp_path / "run"))
    adapted = load_adapter(loaded, str(tmp_path / "run"), step="3")
    alone = load_model(str(tmp_path / "run"), loaded.mesh)
    assert (adapted.data, adapted.tokenizer.template) == (alone.data, alone.tokenizer.template)
    assert adapted.params["layers.mlp.up_proj.kernel"] is loaded.params["layers.mlp.up_proj.kernel"]
    assert adapted.params.keys() == alone.params.keys()
    for name, values in alone.params.items():
        np.testing.assert_array_equal(np.asarray(adapted.params[name]), np.asarray(values), err_msg=name)
    on_the_run = load_adapter(alone, str(tmp_path / "run"))  # the base's head is not in the run that is loaded
    assert on_the_run.params["layers.mlp.up_proj.kernel"] is alone.params["layers.mlp.up_proj.kernel"]
    ids = prompt(loaded, 9)
    assert told_by_generate(on_the_run, ids, monkeypatch) == told_by_generate(alone, ids, monkeypatch)
    elsewhere = load_model(tiny.make_base(tmp_path / "elsewhere"), loaded.mesh)
    with pytest.raises(UsageError, match="its base is .*, not .*elsewhere; serve it on the base"):
        load_adapter(elsewhere, str(tmp_path / "run"))


def test_adapters_that_do_not_fit(base: str, loaded: Loaded, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run directory nor a PEFT adapter"):
        load_adapter(loaded, base)
    path = peft_adapter(tmp_path, target_modules=["q_proj"])
    other = load_model(tiny.make_base(tmp_path / "other", hidden_size=32), loaded.mesh)
    with pytest.raises(UsageError, match=r"q_proj.*has shape .* expected for this base"):
        load_adapter(other, path)
