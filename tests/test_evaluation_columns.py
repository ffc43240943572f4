"""A run beside its base and stages, and other models: which columns there are, and the whole evaluation of them on tiny models."""

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from alif_jax.checkpoint import latest_step
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.run import TrainConfig
from alif_jax.train import fit
from data_gen.evaluation.results import read_documents, read_result
from data_gen.evaluation.suites import SuiteConfig, TaskEntry
from launch import evaluation
from launch.app import UsageError
from launch.columns import Loading, columns, file_name
from tests import tiny
from tests.local_teacher import Answer, LocalTeacher, completion

TEMPLATE = "turns"
SUITE = SuiteConfig(
    name="small", heldout=True,
    tasks=(TaskEntry(task="urdu_minimal_pairs"), TaskEntry(task="urdu_text", limit=2),
           TaskEntry(task="urdu_prompts", chat="always", scores=("stop", "repetition"), limit=3)),
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base → cpt (on texts) → sft (on conversations)."""
    place = tmp_path_factory.mktemp("columns")
    tiny.make_base(place / "base", initializer_range=0.02)
    tiny.make_shards(place / "text", tiny.documents(24))
    tiny.make_shards(place / "chat", tiny.conversations(24))
    for name, data, began in (("cpt", "text", ""), ("sft", "chat", str(place / "cpt"))):
        config = TrainConfig(
            model=ModelSource(path=str(place / "base"), init_from=began, dtype="float32", param_dtype="float32"),
            lora=LoraConfig(rank=2), max_steps=2, batch_size=8, num_samples=0, report_to=(),
        )  # fmt: skip
        config.data.path, config.data.sequence_length, config.data.template = (str(place / data),), 64, TEMPLATE
        fit(config, str(place / name))
    return place


def named(found: list[Any]) -> list[tuple[str, str]]:
    return [(one.name, one.kind) for one in found]


def test_a_run_stands_beside_its_base_and_stages(place: Path) -> None:
    found = columns(str(place / "sft"), [], Loading(""))
    assert named(found) == [("base", "jax"), ("cpt", "run"), ("sft", "run")]
    assert [one.about["template"] for one in found] == [TEMPLATE] * 3
    assert [one.about.get("step") for one in found] == [None, "2", str(latest_step(str(place / "sft")))]
    assert [one.main for one in found] == [False, False, True]
    assert found[2].train == (str(place / "chat"),) and found[1].heldout == (str(place / "text"),)
    assert len({one.identity for one in found}) == 3
    assert named(columns(str(place / "base"), [], Loading(""))) == [("base", "jax")]


def test_others_are_named_and_asked_with_the_same_template(place: Path) -> None:
    given = [f"run:{place}/cpt", f"old=run:{place}/cpt", f"jax:{place}/base", f"hf:{place}/base", "url:a/b@http://h:1/v1"]
    found = columns(str(place / "base"), given, Loading("", template=TEMPLATE))
    assert named(found) == [
        ("base", "jax"), ("cpt", "run"), ("old", "run"), ("base-2", "jax"), ("base-3", "hf"), ("a-b", "url"),
    ]  # fmt: skip
    assert found[4].about["template"] == TEMPLATE
    with ExitStack() as open_ones:
        theirs, ours = found[4].load(open_ones), found[3].load(open_ones)
    turn = [{"role": "user", "content": "سلام"}]
    assert theirs.apply_chat_template(turn) == ours.apply_chat_template(turn)
    assert file_name("meta-llama/Llama 3") == "meta-llama-Llama-3"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gpt:x", "expected run:DIR"), ("hf:", "expected run:DIR"), ("url:NAME", "expected url:NAME@http"),
        ("run:{place}/base", "is no run directory; a Hugging Face directory is jax:"),
    ],
)  # fmt: skip
def test_what_is_no_model(place: Path, given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        columns(str(place / "base"), [given.format(place=place)], Loading(""))


@pytest.fixture(scope="module")
def evaluated(place: Path) -> Path:
    output = place / "out"
    given = [f"theirs=hf:{place}/base"]
    evaluation.evaluate(columns(str(place / "sft"), given, Loading(str(output))), SUITE, str(output), command="x", limit=12)
    return output


def test_the_whole_of_it(place: Path, evaluated: Path) -> None:
    names = ("base", "cpt", "sft", "theirs")
    results = {name: read_result(str(evaluated), name) for name in names}
    for name in names:
        result = results[name]
        assert result is not None and not result.left_out
        assert {score.key: score.documents for score in result.scores} == {
            ("urdu_minimal_pairs", "acc"): 12, ("urdu_text", "bits_per_byte"): 2, ("urdu_prompts", "stop"): 3,
            ("urdu_prompts", "repetition"): 3, ("heldout_answers", "bits_per_byte"): 2,
        }  # fmt: skip
    page = (evaluated / "report.html").read_text(encoding="utf-8")
    assert "cpt" in page and "theirs" in page and (evaluated / "report.md").exists()
    about = json.loads((evaluated / "report.json").read_text(encoding="utf-8"))
    assert about["base"] == "base" and about["leaks"]["records"] == 2 * 22
    assert about["leaks"]["shards"] == [f"{place}/text", f"{place}/chat"]


def test_transformers_on_the_base_says_what_the_base_says(evaluated: Path) -> None:
    """The base through this project's code and through transformers: documents, prompts, values and texts."""
    ours, theirs = (list(read_documents(str(evaluated), name)) for name in ("base", "theirs"))
    assert len(ours) == len(theirs) == 12 + 2 + 3 + 2
    for one, other in zip(ours, theirs, strict=True):
        assert (one.task, one.id, one.prompt, one.answer) == (other.task, other.id, other.prompt, other.answer)
        assert one.values.keys() == other.values.keys()
        for metric, (value, weight) in one.values.items():
            assert other.values[metric] == pytest.approx((value, weight), rel=1e-3)


def test_nothing_is_asked_twice(place: Path, evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("launch.columns.load_model", lambda *_, **__: pytest.fail("loaded though all is known"))
    found = columns(str(place / "sft"), [], Loading(str(evaluated)))
    first = (evaluated / "models" / "sft.documents.jsonl").read_bytes()
    evaluation.evaluate(found, SUITE, str(evaluated), command="x", limit=12)
    assert (evaluated / "models" / "sft.documents.jsonl").read_bytes() == first


def test_a_model_at_an_address(place: Path, tmp_path: Path) -> None:
    answers = [Answer(body=completion("جی ہاں، یہ ٹھیک ہے۔", reason)) for reason in ("stop", "length", "stop")]
    with LocalTeacher(answers) as server:
        found = columns(str(place / "base"), [f"url:m@{server.base_url}"], Loading(str(tmp_path), template=TEMPLATE))
        evaluation.evaluate(found[1:], SUITE, str(tmp_path), command="x", data=[str(place / "chat")], limit=3)
        bodies = [json.loads(body) for body in server.asked]
    assert [(body["model"], body["messages"][0]["role"], body["max_tokens"]) for body in bodies] == [("m", "user", 128)] * 3
    result = read_result(str(tmp_path), "m")
    assert result is not None
    assert {score.key: score.value for score in result.scores}["urdu_prompts", "stop"] == pytest.approx(2 / 3)
    assert set(result.left_out) == {"urdu_minimal_pairs", "urdu_text", "heldout_answers"}
    assert {one.answer for one in read_documents(str(tmp_path), "m")} == {"جی ہاں، یہ ٹھیک ہے۔"}


def test_a_budget_for_an_address(place: Path, tmp_path: Path) -> None:
    def asked(**given: Any) -> Any:
        loading = Loading(str(tmp_path), template=TEMPLATE, **given)
        return columns(str(place / "base"), [f"url:m@{server.base_url}"], loading)[1:]

    with LocalTeacher([Answer(body=completion("جی ہاں"))] * 3) as server:
        with pytest.raises(UsageError, match="--max_cost needs --price=IN --price=OUT"):
            asked(max_cost=1.0)
        suite = SuiteConfig(name="prompts", tasks=SUITE.tasks[2:])
        with pytest.raises(UsageError, match="stopped at the budget: .* a larger --max_cost goes on"):
            evaluation.evaluate(asked(max_cost=1e-9, prices=(1.0, 1.0)), suite, str(tmp_path), command="x", limit=3)
        assert not server.asked
        (result,) = evaluation.evaluate(asked(max_cost=1.0, prices=(1.0, 1.0)), suite, str(tmp_path), command="x", limit=3)
    assert result.scores and not result.left_out and sum(server.asked.values()) == 3


def test_shards_that_are_gone_are_told(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "cpt", tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"]["path"] = [str(tmp_path / "gone")]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    found = columns(str(tmp_path / "run"), [], Loading(str(tmp_path)))[1:]
    suite = SuiteConfig(name="pairs", tasks=SUITE.tasks[:1])
    evaluation.evaluate(found, suite, str(tmp_path / "out"), command="x", limit=2)
    assert f"Not looked at, as it is not there: {tmp_path}/gone" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


# --- while a run goes on ------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(evaluation, "load_suite", lambda name: SUITE)
    yield


@pytest.mark.usefixtures("quick")
def test_a_run_is_watched_at_intervals(place: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        model=ModelSource(path=str(place / "base"), dtype="float32", param_dtype="float32"), lora=LoraConfig(rank=2), max_steps=4,
        batch_size=8, num_samples=0, eval_on_start=True, suite="small", suite_steps=3, suite_limit=2,
    )  # fmt: skip
    config.data.path, config.data.sequence_length, config.data.template = (str(place / "chat"),), 64, TEMPLATE
    fit(config, str(tmp_path / "run"), suite=evaluation.watch("small", 2))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in lines if "small/urdu_minimal_pairs/acc" in row]
    assert [row["step"] for row in rows] == [0, 3, 4]
    assert {name for name in rows[-1] if name.startswith("small/")} == {
        "small/urdu_minimal_pairs/acc", "small/urdu_text/bits_per_byte", "small/urdu_prompts/stop", "small/urdu_prompts/repetition",
    }  # fmt: skip
    first = evaluation.watch("small", 2)  # step 0 is the base with an adapter that does nothing
    with ExitStack() as open_ones:
        base = columns(str(place / "base"), [], Loading("", template=TEMPLATE))[0].load(open_ones).loaded
    assert first(base)["small/urdu_text/bits_per_byte"] == pytest.approx(rows[0]["small/urdu_text/bits_per_byte"], rel=1e-5)
    events = list((tmp_path / "run" / "tensorboard").iterdir())
    assert events and b"small/urdu_text/bits_per_byte" in events[0].read_bytes()


def test_a_suite_without_what_asks_it(place: Path, tmp_path: Path) -> None:
    config = TrainConfig(model=ModelSource(path=str(place / "base")), suite="urdu_quick")
    with pytest.raises(ValueError, match="needs what asks it"):
        fit(config, str(tmp_path))


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    for asking in (lambda: evaluation.watch("urdu_quick", 0), lambda: evaluation.suite_of("urdu_quick", [], None, None)):
        with pytest.raises(UsageError, match=r"pip install -e '.\[data,eval\]'"):
            asking()


def test_nothing_that_could_be_asked(place: Path, tmp_path: Path) -> None:
    suite = SuiteConfig(name="chat", tasks=(TaskEntry(task="urdu_prompts", chat="always", limit=2),))
    with pytest.raises(UsageError, match="nothing could be asked: .*a chat template is asked for and the tokenizer has none"):
        evaluation.evaluate(columns(str(place / "base"), [], Loading(str(tmp_path))), suite, str(tmp_path), command="x")


def test_suite_and_tasks() -> None:
    given = evaluation.suite_of("", ["a", "safety_ur", "belebele_fin_Latn"], "both", 5).tasks
    assert given[0] == TaskEntry(task="a", chat="both", num_fewshot=5, language="")
    assert given[1].scores == ("refusal", "language") and given[2].language == "fi"  # as a suite has them
    assert evaluation.suite_of("safety", [], None, None).name == "safety"
    for name, tasks in (("", []), ("safety", ["a"])):
        with pytest.raises(UsageError, match="--suite=NAME or --tasks"):
            evaluation.suite_of(name, tasks, None, None)
    with pytest.raises(UsageError, match="belong to --tasks"):
        evaluation.suite_of("safety", [], "both", None)
