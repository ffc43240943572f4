"""What a run needs, takes and costs, before it is paid: `python launch/plan.py --config=configs/alif_cpt.py --topology=v5e:2x4`.

Memory a chip (of TPUs by compiling the real step here: pip install '.[plan]'), tokens a second as a range, hours and money for
the configured data or --tokens=100e6, by the prices of configs/prices.py; with --data=RECIPE what that data's teacher costs, too.
Exit code 0 for a plan, of a run that does not fit too ("fits" of --json says it), 2 where none could be made."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from launch import app

CONFIG = app.config_flag()
TOPOLOGY = flags.DEFINE_string("topology", None, "v5e:2x4, v6e:4x4, v5p:2x2x2, h100:8, …", required=True)
TOKENS = flags.DEFINE_list("tokens", [], "tokens of one epoch, where the data is not here: 100e6 (with --then one number a run)")
THEN = flags.DEFINE_string("then", "", "a recipe that runs after --config: its plan too, and one total")
DATA = flags.DEFINE_string("data", "", "a recipe of launch/self_instruct.py: what is still to be asked, its cost in the total")
DATA_WORKDIR = flags.DEFINE_string("data_workdir", None, "where that data was begun: what is there is taken off, and measured")
SEARCH = flags.DEFINE_bool("search", False, "plan the fastest rows, remat and mesh that fit; at most 10 compiles")
MEASURE = flags.DEFINE_bool("measure", False, "time a short run of the step on this machine, which must be the topology")
JSON = flags.DEFINE_bool("json", False, "one JSON object instead of a table")


def main(argv: list[str]) -> None:
    from alif_jax import plan, plan_text, run, topology
    from configs.prices import PRICES
    from data_gen import estimate, self_instruct

    if DATA_WORKDIR.value and not DATA.value:
        raise app.UsageError("--data_workdir is of the data, and there is none: pass its recipe, --data=configs/NAME.py")
    place = topology.parse(TOPOLOGY.value)
    configs = [checked(one, run.TrainConfig) for one in [CONFIG.value, *map(app.load_recipe, filter(None, [THEN.value]))]]
    recipe = checked(app.load_recipe(DATA.value), self_instruct.SelfInstructConfig) if DATA.value else None
    data = estimate.estimate(recipe, DATA_WORKDIR.value) if recipe else None
    price, costs = PRICES.get(place.chip.name), data.as_json() if data else None
    plans = [
        plan.make_plan(config, place, price=price, tokens=tokens, measured=MEASURE.value, searched=SEARCH.value)
        for config, tokens in zip(configs, plan.read_tokens(TOKENS.value, len(configs)), strict=True)
    ]
    report = plan.as_json(plans[0]) if len(plans) == 1 and costs is None else plan.total(plans, costs)
    lines = [DATA.value, *str(data).splitlines()] if data else []
    print(json.dumps(report, ensure_ascii=False) if JSON.value else plan_text.report(plans, costs, lines))


def checked(config: Any, wanted: type) -> Any:
    app.check_types(config)
    if not isinstance(config, wanted):
        raise app.UsageError(f"the recipe gave a {type(config).__name__}; here plan.py needs a {wanted.__name__}")
    return config


if __name__ == "__main__":
    if not any(one.lstrip("-").startswith("measure") for one in sys.argv):
        os.environ.update(app.AWAY_FROM_TPU)  # before JAX is imported, which loading a recipe does
    app.run(main)
