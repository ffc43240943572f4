"""The plan: bytes against real arrays, hours and money against closed forms, XLA's verdict, what is said of what does not fit."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from alif_jax import UsageError, analytic, plan_text
from alif_jax.ahead import compile_ahead, measure, needed_bytes, shard_bytes, step_shapes
from alif_jax.data.template import DataConfig
from alif_jax.flops import matmul_parameters
from alif_jax.load import ModelSource
from alif_jax.lora import LoraConfig
from alif_jax.model_config import ModelConfig
from alif_jax.plan import Plan, Price, as_json, make_plan, plan_mesh, read_tokens, total, workload
from alif_jax.published import PUBLISHED, base_config
from alif_jax.run import TrainConfig, load_batches
from alif_jax.sharding import MeshConfig, make_mesh
from alif_jax.tokenizer import load_tokenizer
from alif_jax.topology import CHIPS, GIB, Topology, parse, tpu_devices
from configs.prices import PRICES
from tests import tiny
from tests.test_sharding_golden import LLAMA31_8B

ROOT = Path(__file__).resolve().parents[1]
PRICE = Price(2.0, 0.5, "a list", "2026-01-01")
H100 = parse("h100:8")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with nothing but a config.json."""
    directory = tmp_path_factory.mktemp("base")
    (directory / "config.json").write_text(json.dumps(tiny.hf_config().to_dict()))
    return str(directory)


def recipe(base: str, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        model=ModelSource(path=base, attention="xla", loss_chunk=32),
        lora=LoraConfig(rank=8, modules_to_save=("lm_head",)),
        data=DataConfig(sequence_length=64),
        batch_size=32,
        gradient_accumulation_steps=2,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def plan(base: str) -> Plan:
    return make_plan(recipe(base, max_steps=7), H100, price=PRICE)


def tiny_chip(hbm_bytes: int) -> Topology:
    return Topology(dataclasses.replace(CHIPS["h100"], hbm_bytes=hbm_bytes), (8,))


# --- memory


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(fsdp=2, data=2, tensor=2), MeshConfig(fsdp=4, sequence=2)])
def test_state_bytes_are_those_of_real_arrays(base: str, mesh: MeshConfig) -> None:
    config = recipe(base, mesh=mesh)
    plan = make_plan(config, H100, price=PRICE)
    shapes = step_shapes(config, base_config(base)[0], make_mesh(mesh, jax.devices()[:8]))

    def on_first_device(tree: Any) -> int:
        arrays = jax.tree.map(lambda leaf: jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), leaf.sharding), tree)
        return sum(array.addressable_shards[0].data.nbytes for array in jax.tree.leaves(arrays))

    for part, tree in (("weights", shapes.frozen), ("trainables", shapes.trainable), ("optimizer", shapes.opt_state)):
        assert plan.bytes_per_device[part] == on_first_device(tree) == shard_bytes(tree) > 0
    parts = plan.bytes_per_device
    assert parts["total"] == sum(size for name, size in parts.items() if name != "total")
    assert plan.fits == (parts["total"] <= plan.hbm_bytes)


def test_the_batch_is_shaped_as_a_run_makes_it(base: str) -> None:
    shapes = step_shapes(recipe(base), base_config(base)[0], make_mesh(MeshConfig()))
    batch = tiny.random_batch(rows=16, length=64, accumulation=2)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in shapes.batch.items()} == {
        name: (array.shape, array.dtype) for name, array in batch.items()
    }


@pytest.mark.parametrize(
    ("message", "gibibytes"),
    [
        ("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO temporaries "
         "(17.00G) exceeds available HBM (15.75G). HLO module: jit_g.", 17.0),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 49.34G of 32.00G hbm. "
         "Exceeded hbm capacity by 17.34G.", 49.34),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem while allocating on stack", None),
        ("INTERNAL: the total memory required for HLO temporaries (17.00G) exceeds available HBM (15.75G)", None),
    ],
)  # fmt: skip
def test_xlas_out_of_memory_is_read(message: str, gibibytes: float | None) -> None:
    assert needed_bytes(message) == (None if gibibytes is None else int(gibibytes * GIB))


def test_the_formula_follows_rows_remat_and_mesh(base: str) -> None:
    c = base_config(base)[0]

    def temporary(mesh: MeshConfig | None = None, **changes: Any) -> int:
        source = {key: changes.pop(key) for key in ("remat", "remat_offload") if key in changes}
        config = recipe(base, mesh=mesh or MeshConfig(), **changes)
        config.model = dataclasses.replace(config.model, **source)
        return analytic.temporary_bytes(config, c, plan_mesh(config, H100), trainables=1000)

    assert temporary(gradient_accumulation_steps=4) < temporary() < temporary(gradient_accumulation_steps=1)
    assert temporary(remat="full", remat_offload=True) < temporary() < temporary(remat="q_proj+up_proj") < temporary(remat="none")
    per_token = temporary(remat="q_proj") - temporary()  # 2 layers · 2 rows · 64 tokens · 4 heads of 24 · 2 bytes
    assert per_token == 2 * 2 * 64 * 96 * 2
    assert temporary(MeshConfig(fsdp=4, sequence=2)) == pytest.approx(temporary(MeshConfig(fsdp=4, tensor=2)), rel=0.5)


# --- time and money


def test_hours_and_cost_are_the_closed_form(base: str) -> None:
    positions = 32 * 64
    plan = make_plan(recipe(base, num_train_epochs=3), H100, price=PRICE, tokens=100 * positions)
    assert plan.steps == 300
    assert plan.tokens_per_second and plan.hours and plan.cost_usd and plan.cost_usd_spot and plan.seconds_per_step
    for low, high in ((0, 1), (1, 0)):
        assert plan.hours[low] * 3600 == pytest.approx(3 * 100 * positions / plan.tokens_per_second[high])
        assert plan.hours[low] * 3600 == pytest.approx(300 * plan.seconds_per_step[low])
        assert plan.cost_usd[low] == pytest.approx(plan.hours[low] * 8 * 2.0)
        assert plan.cost_usd_spot[low] == pytest.approx(plan.hours[low] * 8 * 0.5)
    assert plan.hours[0] < plan.hours[1]


def test_a_started_step_is_a_step_and_max_steps_need_no_tokens(base: str) -> None:
    assert workload(recipe(base), 32 * 64 + 1).steps == 2
    assert workload(recipe(base, max_steps=7), None).steps == workload(recipe(base, max_steps=7), 1e9).steps == 7
    with pytest.raises(UsageError, match="--tokens=-1: a positive number"):
        workload(recipe(base), -1)


@pytest.mark.parametrize("price", [None, Price(None, None, "unknown", "")])
def test_without_a_price_hours_are_there_and_it_says_where_to_add_one(base: str, price: Price | None) -> None:
    plan = make_plan(recipe(base, max_steps=7), H100, price=price)
    assert plan.hours and plan.cost_usd is None and plan.cost_usd_spot is None
    assert "no price is known for h100: write one into configs/prices.py, and the cost is planned too" in plan.notes


def test_data_that_is_here_is_counted(tmp_path: Path) -> None:
    base = tiny.make_base(tmp_path / "base", chat_template=None)
    data = tiny.make_shards(tmp_path / "data", tiny.documents(60))
    config = recipe(base, data=DataConfig(path=(data,), sequence_length=64, template="plain"), num_train_epochs=2)
    plan = make_plan(config, H100, price=PRICE)
    batches, _ = load_batches(config, load_tokenizer(base, "plain"))
    stats = batches.stats()
    assert plan.steps == batches.steps
    assert plan.tokens_per_second and plan.seconds_per_step
    per_step = 32 * 64 * stats["fill"]
    assert plan.tokens_per_second == pytest.approx([per_step / seconds for seconds in reversed(plan.seconds_per_step)])
    assert f"{stats['tokens']:,} tokens an epoch, counted in {data}" == plan.data
    assert workload(config, 32 * 64).steps == 2  # what is told wins


def test_one_total_of_a_recipe_of_two_runs(base: str, plan: Plan) -> None:
    plans = [plan, make_plan(recipe(base, max_steps=21), H100, price=PRICE)]
    whole = total(plans)
    assert plan.cost_usd
    assert whole["cost_usd"] == [pytest.approx(4 * plan.cost_usd[end]) for end in (0, 1)]
    assert whole["fits"] is True and [run["steps"] for run in whole["runs"]] == [7, 21]
    assert f"2 runs, {plan_text.between(tuple(whole['hours']))} hours" in plan_text.report(plans)


def test_without_data_hours_are_unknown_and_it_says_how_to_give_it(base: str, plan: Plan) -> None:
    unknown = make_plan(recipe(base), H100, price=PRICE)
    assert unknown.tokens_per_second and unknown.steps is unknown.hours is unknown.cost_usd is None
    assert any("--tokens=100e6" in note for note in unknown.notes)
    assert total([plan, unknown])["hours"] is None
    assert "hours unknown, cost unknown" in plan_text.report([plan, unknown])


def test_tokens_of_the_command_line() -> None:
    assert read_tokens([], 2) == [None, None]
    assert read_tokens(["100e6", "20e6"], 2) == [100e6, 20e6]
    with pytest.raises(UsageError, match="expected numbers such as 100e6"):
        read_tokens(["many"], 1)
    with pytest.raises(UsageError, match="1 numbers for 2 runs"):
        read_tokens(["1e6"], 2)


# --- what does not fit, what is refused


@pytest.mark.parametrize(
    ("changes", "largest", "helps"),
    [
        ({}, "temporary", "gradient_accumulation_steps up"),
        ({"lora": LoraConfig(rank=64)}, "optimizer", "a smaller lora.rank"),
        ({"lora": LoraConfig(full=True)}, "optimizer", "LoRA"),
        ({"lora": LoraConfig(rank=1), "mesh": MeshConfig(data=8, fsdp=1)}, "weights", "model.quantization.*mesh.fsdp instead of"),
    ],
)
def test_what_does_not_fit_names_its_largest_part(base: str, changes: dict[str, Any], largest: str, helps: str) -> None:
    config = recipe(base, **changes)
    state = make_plan(config, H100, price=PRICE).bytes_per_device
    room = state["total"] - 1 if largest == "temporary" else state["total"] - state["temporary"] - 1
    plan = make_plan(config, tiny_chip(room), price=PRICE, tokens=1e6)
    assert not plan.fits and plan.hours is plan.tokens_per_second is plan.cost_usd is None
    assert f"the largest part is {largest}" in plan.notes[0]
    assert re.search(helps, plan.notes[1])
    last = "one row a device fits" if largest == "temporary" else "no number of rows fits"
    assert last in plan.notes[2]
    assert "DOES NOT FIT" in plan_text.as_text(plan)


def test_a_model_that_fits_at_no_number_of_rows_says_so(base: str) -> None:
    config = recipe(base)
    one_row = dataclasses.replace(config, gradient_accumulation_steps=4)
    single = make_plan(one_row, H100, price=PRICE).bytes_per_device["total"]
    found = make_plan(config, tiny_chip(single - 1), price=PRICE)
    assert found.notes[2].startswith("one row a device does not fit either")
    assert "fewer rows are not possible" in make_plan(one_row, tiny_chip(single - 1), price=PRICE).notes[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mesh": MeshConfig(fsdp=3)}, "does not fit 8 device"),
        ({"mesh": MeshConfig(tensor=4)}, "2 key/value heads cannot be divided over tensor = 4"),
        ({"batch_size": 12, "gradient_accumulation_steps": 1}, "12 rows a microbatch cannot be divided"),
        ({"mesh": MeshConfig(sequence=8), "data": DataConfig(sequence_length=60)}, "60 tokens cannot be divided"),
    ],
)
def test_a_mesh_that_does_not_divide_is_refused(base: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_plan(recipe(base, **changes), H100, price=PRICE)


def test_a_kernel_of_another_platform_is_refused(base: str) -> None:
    config = recipe(base)
    config.model = dataclasses.replace(config.model, attention="splash")
    with pytest.raises(UsageError, match="is a kernel for TPU and this is a GPU"):
        make_plan(config, H100, price=PRICE)


# --- the base without its weights


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("Qwen/Qwen3-4B-Base", 4_022_468_096),
    ],
)
def test_published_numbers_give_the_published_parameter_count(name: str, parameters: int) -> None:
    """The counts are those that the hub shows for the models' safetensors."""
    config, source = base_config(name)
    assert "published" in source
    tables = matmul_parameters(config) + (0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size)
    norms = config.hidden_size * (2 * config.num_hidden_layers + 1)
    of_heads = 2 * config.num_hidden_layers * config.head_dim if config.qk_norm else 0
    assert tables + norms + of_heads == parameters


def test_the_published_llama_is_that_of_the_golden_shardings() -> None:
    assert ModelConfig.from_hf(PUBLISHED["meta-llama/Llama-3.1-8B"]) == ModelConfig.from_hf(LLAMA31_8B)


def test_every_base_that_a_recipe_names_is_known() -> None:
    named = {line.split('"')[1] for file in (ROOT / "configs").glob("*.py") for line in file.read_text().splitlines()
             if "path=" in line and '"' in line and "/" in line.split('"')[1] and "--" not in line}  # fmt: skip
    assert named and named <= set(PUBLISHED)


def test_an_unknown_base_says_where_it_was_looked_for() -> None:
    with pytest.raises(UsageError, match="someone/model: no such directory here, not among the bases known"):
        base_config("someone/model")


def test_every_chip_has_a_line_of_prices_and_every_price_a_source() -> None:
    assert set(PRICES) == set(CHIPS)
    for chip, price in PRICES.items():
        assert price.source, chip
        if price.usd_per_chip_hour is not None:
            assert price.date and 0.1 < price.usd_per_chip_hour < 20, chip
            assert price.spot is None or price.spot < price.usd_per_chip_hour, chip


# --- as JSON and as text


def test_json_has_the_fixed_keys(plan: Plan) -> None:
    found = json.loads(json.dumps(as_json(plan)))
    fixed = {"fits", "hbm_bytes", "bytes_per_device", "flops_per_token", "tokens_per_second", "hours", "cost_usd"}
    assert fixed <= set(found)
    assert set(found["bytes_per_device"]) == {"weights", "trainables", "optimizer", "temporary", "total"}
    assert found["fits"] is True and isinstance(found["hbm_bytes"], int) and isinstance(found["flops_per_token"], float)
    for key in ("tokens_per_second", "hours", "cost_usd"):
        low, high = found[key]
        assert 0 < low < high
    assert all(isinstance(size, int) for size in found["bytes_per_device"].values())


def test_the_table_says_what_it_needs_takes_and_costs(plan: Plan) -> None:
    text = plan_text.as_text(plan)
    for said in (
        "h100:8, 8 chips: fsdp 8",
        "fits, ",
        "tokens a second",
        "hours",
        "on demand, 8 × $2.00",
        "a list, read 2026-01-01",
    ):
        assert said in text
    assert max(map(len, text.splitlines())) <= 132


def test_ranges_are_short() -> None:
    pairs = [
        ((3.96, 5.21), "4.0 to 5.2"),
        ((1200.4, 1999.6), "1,200 to 2,000"),
        ((0.0123, 0.4), "0.012 to 0.4"),
        ((2, 2), "2.0"),
    ]
    assert [plan_text.between(pair) for pair, _ in pairs] == [said for _, said in pairs]


def plan_command(base: str, tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "recipe.py"
    file.write_text(
        "from alif_jax.load import ModelSource\nfrom alif_jax.train import TrainConfig\n"
        f"def get_config(arg=''):\n    return TrainConfig(model=ModelSource(path={base!r}, attention='xla'))\n"
    )
    command = [sys.executable, "launch/plan.py", f"--config={file}", "--topology=h100:8", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"XLA_FLAGS": ""})


def test_the_command_on_a_recipe_of_its_own(base: str, tmp_path: Path) -> None:
    then = f"--then={tmp_path / 'recipe.py'}"
    done = plan_command(base, tmp_path, "--config.data.sequence_length=64", "--json", "--tokens=1e6,2e6", then)
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    assert [run["sequence_length"] for run in whole["runs"]] == [64, 2048]  # overrides are of --config


# --- with what the data costs

DATA = {"requests": 10, "cost_usd": 1.5, "worst_cost_usd": 20.0}


def test_the_datas_cost_is_in_the_total_expected_and_at_most(plan: Plan) -> None:
    whole = total([plan], DATA)
    assert plan.cost_usd and plan.cost_usd_spot and plan.hours
    assert whole["cost_usd"] == [pytest.approx(plan.cost_usd[0] + 1.5), pytest.approx(plan.cost_usd[1] + 20.0)]
    assert whole["cost_usd_spot"] == [pytest.approx(plan.cost_usd_spot[0] + 1.5), pytest.approx(plan.cost_usd_spot[1] + 20.0)]
    assert whole["hours"] == list(plan.hours) and whole["data"] == DATA and len(whole["runs"]) == 1
    assert "data" not in total([plan, plan])


def test_the_text_says_which_end_is_which(plan: Plan) -> None:
    text = plan_text.report([plan], DATA, ["RECIPE", "requests  10", "cost      $1.50"])
    assert text.startswith("data        RECIPE\n  requests  10\n  cost      $1.50\n\nmodel ")
    line, ends = text.splitlines()[-2:]
    assert line.startswith("total       the data and 1 run, ") and " hours of training, $" in line
    assert ends.strip() == "the data's expected cost in the low end, its worst case in the high one"
    assert plan_text.report([plan]) == plan_text.as_text(plan), "without data nothing is new"


def test_a_cost_that_nobody_knows_is_not_in_the_total(plan: Plan) -> None:
    unknown = {"cost_usd": None, "worst_cost_usd": None}
    assert total([plan], unknown)["cost_usd"] is None and total([plan], unknown)["hours"]
    assert plan_text.report([plan], unknown, ["R"]).endswith("hours of training, cost unknown")


def test_the_command_with_a_recipe_of_data(base: str, tmp_path: Path) -> None:
    recipe = tmp_path / "data.py"
    recipe.write_text(
        "from data_gen.self_instruct import SelfInstructConfig, TeacherConfig\n"
        "def get_config(arg=''):\n"
        "    teacher = TeacherConfig(base_url='offline', input_price=2.0, output_price=8.0)\n"
        "    return SelfInstructConfig(teacher=teacher)\n"
    )
    done = plan_command(base, tmp_path, "--json", "--tokens=1e6", f"--data={recipe}", f"--data_workdir={tmp_path / 'nothing'}")
    assert done.returncode == 0, done.stderr
    whole = json.loads(done.stdout)
    data, (run,) = whole["data"], whole["runs"]
    assert data["requests"] > 0 and data["known_from"] == "assumptions"
    assert whole["cost_usd"] == [
        pytest.approx(run["cost_usd"][0] + data["cost_usd"]),
        pytest.approx(run["cost_usd"][1] + data["worst_cost_usd"]),
    ]
    assert not (tmp_path / "nothing").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--data=configs/tiny.py:sft", "the recipe gave a TrainConfig; here plan.py needs a SelfInstructConfig"),
        ("--data_workdir=x", "--data_workdir is of the data, and there is none"),
    ],
)
def test_a_recipe_of_data_that_is_none(base: str, tmp_path: Path, flag: str, said: str) -> None:
    done = plan_command(base, tmp_path, flag)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


# --- on this machine, and ahead of time


@pytest.mark.slow
def test_the_step_is_measured_here(base: str) -> None:
    found = measure(recipe(base, batch_size=4), base_config(base)[0], make_mesh(MeshConfig(), jax.devices()[:1]), steps=1)
    assert 0 < found.seconds < 60


def test_measuring_needs_the_chips(base: str) -> None:
    with pytest.raises(UsageError, match="--measure: here are 8 cpu, not h100:8"):
        make_plan(recipe(base), H100, price=PRICE, measured=True)


def test_the_step_compiles_ahead_of_time_for_a_tpu(base: str, away_from_tpu: None) -> None:
    plan = make_plan(recipe(base, max_steps=7), parse("v5e:2x4"), price=PRICE)
    assert plan.fits and plan.memory_by == "XLA" and plan.cost_usd
    parts = plan.bytes_per_device
    shapes = step_shapes(recipe(base), base_config(base)[0], make_mesh(MeshConfig()))
    assert [parts[name] for name in ("weights", "trainables", "optimizer")] == [
        shard_bytes(tree) for tree in (shapes.frozen, shapes.trainable, shapes.opt_state)
    ]
    assert parts["temporary"] > shard_bytes(shapes.batch)


def test_xlas_verdict_is_an_answer_and_no_crash(base: str, away_from_tpu: None) -> None:
    topology = parse("v5e:2x2")
    config = recipe(base, batch_size=2**14, gradient_accumulation_steps=1, data=DataConfig(sequence_length=2048))
    mesh = make_mesh(config.mesh, tpu_devices(topology))
    found = compile_ahead(config, base_config(base)[0], mesh)
    assert not found.fits and found.hlo_text == "" and found.memory.total > topology.chip.hbm_bytes


def test_a_search_plans_the_best_and_says_how_to_train_with_it(base: str, plan: Plan) -> None:
    found = make_plan(recipe(base, max_steps=7), H100, price=PRICE, searched=True)
    assert found.search and found.tokens_per_second and plan.tokens_per_second
    assert found.tokens_per_second[0] >= plan.tokens_per_second[0]
    config = recipe(base, max_steps=7)
    for override in found.search["overrides"]:
        section, _, key = override.removeprefix("--config.").partition("=")[0].rpartition(".")
        value = override.partition("=")[2]
        setattr(getattr(config, section) if section else config, key, int(value) if value.isdecimal() else value)
    same = make_plan(config, H100, price=PRICE)
    assert (same.bytes_per_device, same.hours) == (found.bytes_per_device, found.hours)
    assert f"train with  {found.search['overrides'][0]}" in plan_text.as_text(found)


@pytest.mark.parametrize("given", ["nan", "inf", "0", "many"])
def test_tokens_that_are_no_number_of_tokens(given: str) -> None:
    with pytest.raises(UsageError, match=f"--tokens={given}: expected (positive )?numbers such as 100e6"):
        read_tokens([given], 1)
