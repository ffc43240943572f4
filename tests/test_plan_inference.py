"""Answering planned against closed forms written out here, and the stages of a data recipe: hours, money, JSON and the table."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from alif_jax import UsageError, plan_inference, plan_stages, plan_text
from alif_jax.data.template import DataConfig
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.model_config import ModelConfig
from alif_jax.plan import Plan, Price, make_plan
from alif_jax.plan_inference import InferencePlan, as_json
from alif_jax.plan_stages import StagesPlan, letters_per_token
from alif_jax.published import base_config
from alif_jax.run import TrainConfig
from alif_jax.topology import parse
from data_gen.endpoint import TeacherConfig
from data_gen.limits import Usage
from data_gen.x_instruction import workload
from data_gen.x_instruction.config import XInstructionConfig
from data_gen.x_instruction.workload import StageWork
from launch import app
from launch import plan_x_instruction as command

LLAMA = "meta-llama/Meta-Llama-3-8B"
PRICE = Price(2.0, 0.5, "a list", "2026-01-01")
# Llama-3-8B, from its config.json: entries of a layer's seven matrices, of the head, numbers of a token's keys and values
LAYER = 4096 * 4096 * 2 + 4096 * 1024 * 2 + 4096 * 14336 * 3
HEAD = 128256 * 4096
LAYERS = 32
WEIGHTS = 2 * (LAYERS * LAYER + 2 * HEAD)
CACHE = 2 * 2 * 8 * 128 * LAYERS


@pytest.fixture(scope="module")
def llama() -> ModelConfig:
    return base_config(LLAMA)[0]


def plan(llama: ModelConfig, topology: str = "h100:1", **changes: Any) -> InferencePlan:
    asked: dict[str, Any] = {"requests": 10_000, "prompt_tokens": 700.0, "new_tokens": 61.0, "max_length": 2048, "price": PRICE}
    return plan_inference.plan_inference(llama, parse(topology), **(asked | changes))


# --- answering


def test_bytes_are_those_of_the_published_architecture(llama: ModelConfig) -> None:
    found = plan(llama)
    assert found.weight_bytes == WEIGHTS == pytest.approx(2 * 8_030_261_248, rel=1e-4)  # the hub's count, norms included
    assert found.cache_bytes_per_token == CACHE == 128 * 1024
    assert found.cache_bytes == found.batch * 761 * CACHE
    tied = base_config("meta-llama/Llama-3.2-3B")[0]
    assert plan_inference.weight_bytes(tied) == pytest.approx(2 * 3_212_749_824, rel=1e-4)


def test_time_and_money_on_one_chip_are_the_closed_form(llama: ModelConfig) -> None:
    found = plan(llama)
    assert (found.chips_per_replica, found.replicas, found.batch) == (1, 1, 256)
    peak, bandwidth = 989e12, 3350e9
    reading = (700 * (2 * LAYERS * LAYER + 2 * 700 * 4096 * LAYERS) + 2 * HEAD) / peak
    assert found.prefill_seconds == pytest.approx((10_000 * reading / 0.6, 10_000 * reading / 0.3))
    context = 700 + 61 / 2
    moved = (2 * (LAYERS * LAYER + HEAD) + 256 * context * CACHE) / bandwidth
    computed = 256 * (2 * (LAYERS * LAYER + HEAD) + 4 * context * 4096 * LAYERS) / peak
    assert moved > computed and found.decode_bound == "memory bandwidth"
    steps = 10_000 * 60 / 256  # the first of 61 tokens comes with the prompt
    assert found.decode_seconds == pytest.approx((steps * moved / 0.8, steps * moved / 0.4))
    for end in (0, 1):
        assert found.seconds[end] == pytest.approx(found.prefill_seconds[end] + found.decode_seconds[end])
        assert found.hours[end] * 3600 == pytest.approx(found.seconds[end])
        assert found.cost_usd and found.cost_usd[end] == pytest.approx(found.hours[end] * 2.0)
        assert found.cost_usd_spot and found.cost_usd_spot[end] == pytest.approx(found.hours[end] * 0.5)
    assert found.new_tokens_per_second == pytest.approx((610_000 / found.seconds[1], 610_000 / found.seconds[0]))


def test_a_copy_lies_on_the_fewest_chips_that_hold_it_and_sums_over_them(llama: ModelConfig) -> None:
    found = plan(llama, "v5e:2x4")
    usable = 0.9 * int(15.75 * 2**30)
    assert usable < WEIGHTS < 2 * usable - 16 * 2048 * CACHE
    assert (found.chips_per_replica, found.replicas) == (2, 4)
    held = int((2 * usable - WEIGHTS) / CACHE / 761)
    assert found.batch == held < 256
    assert found.notes == (f"the cache of 2 chips, one copy of the model, holds {held} requests at once, not 256",)
    assert plan(llama, "v5e:2x4", new_tokens=1.0).notes == (), "a score waits for no cache"
    rows = 10_000 / 4
    reading = (700 * (2 * LAYERS * LAYER + 2 * 700 * 4096 * LAYERS) + 2 * HEAD) / (2 * 197e12)
    # An all-reduce between 2 chips moves half the tensor twice, over one of 4 links of 200 GB/s in all, of which 0.9 is sustained.
    sums = 2 * LAYERS * 700 * 4096 * 2 / (0.9 * 200e9 / 4)
    assert found.prefill_seconds == pytest.approx((rows * (reading / 0.6 + sums), rows * (reading / 0.3 + sums)))


def test_chips_that_hold_no_whole_copy_are_told_of_and_paid(llama: ModelConfig) -> None:
    long = plan(llama, "l4:3", max_length=4096)  # 22.5 GiB each: one holds the weights and no useful cache
    assert (long.chips_per_replica, long.replicas) == (2, 1)
    assert "1 of 3 chips answer nothing, as a copy takes 2, and are paid all the same" in long.notes
    assert long.cost_usd and long.cost_usd[0] == pytest.approx(3 * 2.0 * long.hours[0])


def test_a_score_is_read_and_not_written(llama: ModelConfig) -> None:
    found = plan(llama, new_tokens=1.0)
    assert found.decode_seconds == (0, 0) and found.seconds == found.prefill_seconds == pytest.approx(plan(llama).prefill_seconds)


def test_few_requests_write_as_many_steps_as_an_answer_has(llama: ModelConfig) -> None:
    one, eight = plan(llama, requests=1), plan(llama, requests=8)
    alone = (2 * (LAYERS * LAYER + HEAD) + (700 + 61 / 2) * CACHE) / 3350e9
    assert (one.batch, eight.batch) == (1, 8)
    assert one.decode_seconds == pytest.approx((60 * alone / 0.8, 60 * alone / 0.4))
    assert eight.decode_seconds[0] < 1.1 * one.decode_seconds[0]
    nothing = plan(llama, requests=0)
    assert nothing.seconds == (0, 0) and nothing.new_tokens_per_second is None and nothing.cost_usd == (0, 0)


def test_compute_bounds_where_batches_are_large_and_keys_are_few(llama: ModelConfig) -> None:
    assert plan(llama, prompt_tokens=1.0, new_tokens=20.0, max_length=64, most_sequences=4096).decode_bound == "compute"


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"requests": 20_000}),
        ({}, {"prompt_tokens": 1400.0}),
        ({}, {"new_tokens": 122.0}),
        ({}, {"most_sequences": 64}),
        ({"topology": "h100:2"}, {}),
        ({"topology": "h200:1"}, {}),
        ({"topology": "v5e:4x4"}, {"topology": "v5e:2x4"}),
    ],
)
def test_more_work_or_less_machine_takes_longer(llama: ModelConfig, less: dict[str, Any], more: dict[str, Any]) -> None:
    fast, slow = plan(llama, **less), plan(llama, **more)
    assert fast.seconds[0] < slow.seconds[0] and fast.seconds[1] < slow.seconds[1]
    assert fast.seconds[0] < fast.seconds[1]


def test_twice_the_chips_take_half_the_time_for_the_same_money(llama: ModelConfig) -> None:
    one, two = plan(llama), plan(llama, "h100:2")
    assert two.hours == pytest.approx((one.hours[0] / 2, one.hours[1] / 2)) and two.cost_usd == pytest.approx(one.cost_usd)


def test_a_model_that_the_chips_do_not_hold_is_refused(llama: ModelConfig) -> None:
    with pytest.raises(UsageError, match=r"v5e:1x1 does not hold this model to answer with: weights are 15.0 GiB in bf16"):
        plan(llama, "v5e:1x1")
    large = dataclasses.replace(llama, num_hidden_layers=800)
    with pytest.raises(UsageError, match=r"over at most 8 chip\(s\) of 14.2 GiB; take more or larger chips"):
        plan(large, "v5e:2x4")


@pytest.mark.parametrize("wrong", [{"requests": -1}, {"prompt_tokens": 0.0}, {"new_tokens": 0.0}, {"most_sequences": 0}])
def test_numbers_that_make_no_sense_are_refused(llama: ModelConfig, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected 0 or more requests"):
        plan(llama, **wrong)


def test_a_request_longer_than_the_longest_is_refused(llama: ModelConfig) -> None:
    with pytest.raises(UsageError, match="a request has 700 .* more than max_length=512; raise it"):
        plan(llama, max_length=512)


def test_json_has_both_ends(llama: ModelConfig) -> None:
    found = json.loads(json.dumps(as_json(plan(llama))))
    for key in ("prefill_seconds", "decode_seconds", "seconds", "hours", "new_tokens_per_second", "cost_usd", "cost_usd_spot"):
        low, high = found[key]
        assert 0 < low < high, key
    assert found["price"]["source"] == "a list" and found["notes"] == []
    free = as_json(plan(llama, price=None))
    assert free["cost_usd"] is free["cost_usd_spot"] is free["price"] is None and free["hours"]


# --- letters


def test_tokens_of_several_languages_add_up() -> None:
    letters, source = letters_per_token(["hi", "bn"])
    assert letters == pytest.approx(2 / (1 / 1.89 + 1 / 0.83))
    assert source.startswith("hi 1.89, bn 0.83, measured on FLORES-200")
    assert letters_per_token(["ur"])[1].startswith("ur 1.8, assumed")
    with pytest.raises(UsageError, match="not known for xx .*--letters_per_token=NUMBER"):
        letters_per_token(["ur", "xx"])


def test_every_language_of_the_paper_has_letters() -> None:
    assert {"bn", "fi", "hi", "id", "sw", "ta", "th", "tr", "ur", "vi"} < set(plan_stages.LETTERS_PER_TOKEN)


# --- stages

GENERATOR, SFT = "configs/x_instruction_generator.py", "configs/x_instruction_sft.py"
STAGES = [
    StageWork("seed", "teacher", "ask", "", 2e6, 1e6, 500, "500 pairs"),
    StageWork("train generator", "generator", "train", GENERATOR, 4e6, 0, 0, "the seed"),
    StageWork("generate", "generator", "answer", GENERATOR, 12.5e6, 1e6, 10_000, "10,000 documents"),
    StageWork("score", "evaluator", "answer", GENERATOR, 13.5e6, 0, 10_000, "10,000 documents"),
    StageWork("diversify", "cpu", "cpu"),
    StageWork("train again", "generator", "train", GENERATOR, 8e6),
]


def recipe(name: str) -> TrainConfig:
    """The shape of configs/x_instruction_generator.py, in few words."""
    return TrainConfig(
        model=ModelSource(path=LLAMA), lora=LoraConfig(rank=64), data=DataConfig(sequence_length=2048), batch_size=16,
        gradient_accumulation_steps=2, num_train_epochs=3,
    )  # fmt: skip


def planned(work: Sequence[StageWork], topology: str = "h100:1", **changes: Any) -> StagesPlan:
    said: dict[str, Any] = {"load": recipe, "letters": 2.0, "letters_from": "as told", "price": PRICE}
    return plan_stages.plan_stages(work, parse(topology), **(said | changes))


def test_stages_are_planned_and_added_up(llama: ModelConfig) -> None:
    found = planned(STAGES, asking=lambda prompt, completion: prompt * 1e-6 + completion * 2e-6)
    by_name = {one.stage: one for one in found.stages}
    train = make_plan(recipe(""), parse("h100:1"), price=PRICE, tokens=2e6)
    assert by_name["train generator"].hours == train.hours and by_name["train generator"].cost_usd == train.cost_usd
    assert by_name["train again"].hours == make_plan(recipe(""), parse("h100:1"), price=PRICE, tokens=4e6).hours
    answers = plan(llama, requests=10_000, prompt_tokens=625.0, new_tokens=50.0)
    assert by_name["generate"].hours == answers.hours and by_name["generate"].cost_usd == answers.cost_usd
    scores = plan(llama, requests=10_000, prompt_tokens=675.0, new_tokens=1.0)
    assert by_name["score"].hours == scores.hours and by_name["score"].tokens_out == 10_000
    assert by_name["seed"].cost_usd == (2.0, 2.0) and by_name["seed"].hours is None
    assert by_name["diversify"].hours is by_name["diversify"].cost_usd is None
    counted = [one for one in found.stages if one.hours]
    assert len(counted) == 4 and found.hours and found.cost_usd and found.cost_usd_spot
    for end in (0, 1):
        hours = math.fsum(one.hours[end] for one in counted if one.hours)
        assert found.hours[end] == pytest.approx(hours)
        assert found.cost_usd[end] == pytest.approx(2.0 + 2.0 * hours)
        assert found.cost_usd_spot[end] == pytest.approx(2.0 + 0.5 * hours)


def test_answers_in_another_language_have_letters_of_their_own(llama: ModelConfig) -> None:
    english = {one.stage: one for one in planned(STAGES, letters_out={"generator": 4.0}).stages}
    assert english["generate"].hours == plan(llama, requests=10_000, prompt_tokens=625.0, new_tokens=25.0).hours
    assert english["generate"].tokens_in == 6.25e6 and english["score"] == planned(STAGES).stages[3]


def test_a_recipe_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []

    def counting(config: TrainConfig, *args: Any, **kwargs: Any) -> Plan:
        calls.append(kwargs["tokens"])
        return make_plan(config, *args, **kwargs)

    monkeypatch.setattr(plan_stages, "make_plan", counting)
    planned(STAGES)
    assert calls == [2e6]


def test_a_price_that_nobody_knows_is_not_in_the_total() -> None:
    found = planned(STAGES)
    assert found.cost_usd is None and found.hours, "the teacher has no price"
    without = planned(STAGES[1:], price=None)
    assert without.cost_usd is None and without.hours
    assert any("no price is known for h100" in one for one in without.assumptions)
    unpriced = plan_text.stages(planned(STAGES, price=Price(None, None, "unknown", "")))
    assert "prices " not in unpriced and "cost unknown" in unpriced


def test_training_that_does_not_fit_is_planned_as_it_does() -> None:
    def in_one(name: str) -> TrainConfig:  # 16 rows of 8,192 tokens at once
        return dataclasses.replace(recipe(name), gradient_accumulation_steps=1, data=DataConfig(sequence_length=8192))

    found = planned([STAGES[1]], "a100-40g:1", load=in_one)
    (one,) = found.stages
    assert one.hours and one.plan and one.plan["fits"]
    assert one.notes[0].startswith("does not fit as the recipe stands; planned, and to be trained, with --config.mesh.data=1")
    assert "--config.gradient_accumulation_steps=" in one.notes[0]


def test_training_that_fits_in_no_way_says_so_and_leaves_the_total_open() -> None:
    found = planned([STAGES[1], STAGES[3]], "h100:1", load=full_training)
    assert found.stages[0].hours is None and found.hours is found.cost_usd is None and found.stages[1].hours
    assert found.stages[0].notes[0].startswith("does not fit: ")
    text = plan_text.stages(found)
    assert "unknown" in text.splitlines()[2] and "total       hours unknown, cost unknown" in text


def full_training(name: str) -> TrainConfig:
    config = recipe(name)
    config.lora = LoraConfig(full=True)
    return config


def test_a_mesh_that_does_not_divide_is_planned_with_one_that_does() -> None:
    def in_quarters(name: str) -> TrainConfig:
        return dataclasses.replace(recipe(name), gradient_accumulation_steps=4)

    found = planned([STAGES[1]], "h100:8", load=in_quarters)  # 4 rows a microbatch do not go over 8
    assert "4 rows a microbatch cannot be divided" in found.stages[0].notes[0] and found.stages[0].hours
    with pytest.raises(UsageError, match="no mesh of 6 devices divides this recipe"):
        planned([STAGES[1]], "h100:6")


def test_what_is_no_number_or_no_recipe_is_refused() -> None:
    for letters in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="expected a positive number such as 2.2"):
            planned(STAGES, letters=letters)
    with pytest.raises(UsageError, match="configs/x_instruction_generator.py, of the stage train generator, is no training recipe"):
        planned(STAGES, load=lambda name: XInstructionConfig())


# --- as text and as JSON


def test_the_table_has_a_line_a_stage_a_total_and_what_it_rests_on() -> None:
    text = plan_text.stages(planned(STAGES, teacher="a-teacher", asking=lambda prompt, completion: 2.0))
    lines = text.splitlines()
    assert lines[0] == "stages      on h100:1, 1 chip" and lines[1].split() == ["stage", "model", "what", "hours", "cost"]
    starts = [lines[1].index(title) for title in ("stage", "model", "what", "hours", "cost")]
    rows = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines[2:8]]
    assert rows[0] == ["seed", "teacher: a-teacher", "500 requests, 1.0 M tokens in, 500 k out", "at its own pace", "$2.0"]
    assert rows[1][:3] == ["train generator", "generator: Meta-Llama-3-8B", "3 epochs of 2.0 M tokens"]
    assert rows[2][2] == "10,000 requests, 6.2 M tokens in, 500 k out" and rows[3][2].endswith("10 k out")
    assert rows[4] == ["diversify", "cpu", "no model", "not counted", ""]
    assert " to " in rows[2][3] and rows[2][4].startswith("$")
    assert lines[8].startswith("total ") and "hours and the teacher's own, $" in lines[8] and " on demand or $" in lines[8]
    for said in ("2 letters a token (as told)", "answers by a server such as vLLM", "30 to 60%", "40 to 80%", "one after another"):
        assert said in " ".join(text.split()), said
    assert "letters     generate, score: 10,000 documents" in lines
    assert max(map(len, lines)) <= 132


def test_numbers_are_short() -> None:
    said = [plan_text.short(count) for count in (950, 84_210, 999_960, 1_234_567, 278e6, 1.5e9)]
    assert said == ["950", "84 k", "1.0 M", "1.2 M", "278 M", "1.5 B"]


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Any, **flags: Any
) -> tuple[str, list[XInstructionConfig]]:
    asked: list[XInstructionConfig] = []

    def work(config: XInstructionConfig) -> list[StageWork]:
        asked.append(config)
        return STAGES

    monkeypatch.setattr(workload, "workload", work, raising=False)
    monkeypatch.setattr(app, "load_recipe", recipe)
    given = {"CONFIG": config, "TOPOLOGY": "h100:1", "LANGUAGES": [], "LETTERS": None, "SEQUENCES": 256, "JSON": True} | flags
    for name, value in given.items():
        monkeypatch.setattr(command, name, type("Flag", (), {"value": value}))
    command.main([])
    return capsys.readouterr().out, asked


def test_the_command_prints_one_json_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = TeacherConfig(base_url="https://host/v1", model="m", terms="https://host/terms", input_price=2.0, output_price=8.0)
    out, asked = run_command(monkeypatch, capsys, XInstructionConfig(teacher=teacher), LANGUAGES=["hi"])
    found = json.loads(out)
    assert found["stages"][2]["tokens_out"] == pytest.approx(1e6 / 4.56), "the generator writes English"
    assert asked[0].languages == ("hi",) and found["letters_per_token"] == 1.89
    low, high = found["hours"]
    assert 0 < low < high and len(found["cost_usd"]) == 2 and found["cost_usd_spot"] is None
    assert [one["stage"] for one in found["stages"]] == [one.stage for one in STAGES]
    dollars = teacher.price().of(Usage(round(2e6 / 1.89), round(1e6 / 1.89)))  # type: ignore[union-attr]
    assert found["stages"][0]["cost_usd"] == [pytest.approx(dollars)] * 2
    assert found["stages"][2]["plan"]["chips_per_replica"] == 1 and found["stages"][1]["plan"]["fits"] is True


def test_the_command_prints_the_table_of_another_base(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    config = XInstructionConfig(base="meta-llama/Llama-3.2-3B")
    out, _ = run_command(monkeypatch, capsys, config, JSON=False, LETTERS=2.2, SEQUENCES=32)
    assert "generator: Llama-3.2-3B" in out and "2.2 letters a token (as told)" in out and "up to 32 at once" in out
    assert "$0" in out.splitlines()[2], "the offline teacher costs nothing"


def test_the_command_refuses_another_recipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(app.UsageError, match="gave a TrainConfig; here it must be an XInstructionConfig"):
        run_command(monkeypatch, capsys, recipe(""))
