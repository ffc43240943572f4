"""What the X-Instruction recipe takes, stage by stage: `python launch/plan_x_instruction.py --languages=ur --topology=h100:1`.

Training is planned as launch/plan.py does, answering by alif_jax/plan_inference.py, a teacher's tokens by config.teacher's prices,
chips by those of configs/prices.py. Exit code 0 for a plan, of training that does not fit too, 2 where none could be made."""

import json
import os
import sys
from functools import partial
from pathlib import Path

from absl import flags

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data_gen.endpoint import OFFLINE, TeacherConfig
from data_gen.limits import Usage
from launch import app

CONFIG = app.config_flag("configs/x_instruction.py")
TOPOLOGY = flags.DEFINE_string("topology", "h100:1", "the chips of every stage: h100:1, h200:8, v5e:2x4, …")
LANGUAGES = flags.DEFINE_list("languages", [], "codes, instead of the config's: ur,hi")
LETTERS = flags.DEFINE_float("letters_per_token", None, "of the base model's tokenizer; by default as known of the languages")
SEQUENCES = flags.DEFINE_integer("sequences", 256, "requests that a served model answers at once")
JSON = flags.DEFINE_bool("json", False, "one JSON object instead of a table")


def main(argv: list[str]) -> None:
    from alif_jax import plan_stages, plan_text, run, topology
    from configs.prices import PRICES
    from data_gen.x_instruction import config as recipe
    from data_gen.x_instruction import workload

    config, place = CONFIG.value, topology.parse(TOPOLOGY.value)
    if not isinstance(config, recipe.XInstructionConfig):
        raise app.UsageError(f"--config gave a {type(config).__name__}; here it must be an XInstructionConfig")
    config.languages = tuple(LANGUAGES.value) or config.languages
    config.validate()
    letters, known_from = plan_stages.letters_per_token(config.languages) if LETTERS.value is None else (LETTERS.value, "as told")

    def load(name: str) -> run.TrainConfig:
        found: run.TrainConfig = app.load_recipe(name)
        found.model.path = found.model.path if config.base in ("", recipe.TINY) else config.base
        return found

    plan = plan_stages.plan_stages(
        workload.workload(config), place, load=load, letters=letters, letters_from=known_from, price=PRICES.get(place.chip.name),
        teacher=config.teacher.model, asking=partial(dollars, config.teacher), most_sequences=SEQUENCES.value,
        letters_out={"generator": plan_stages.ENGLISH},
    )  # fmt: skip
    print(json.dumps(plan.as_json(), ensure_ascii=False) if JSON.value else plan_text.stages(plan))


def dollars(teacher: TeacherConfig, prompt: float, completion: float) -> float | None:
    price = teacher.price()
    return price.of(Usage(round(prompt), round(completion))) if price else 0.0 if teacher.base_url == OFFLINE else None


if __name__ == "__main__":
    os.environ.update(app.AWAY_FROM_TPU)  # before JAX is imported, which loading a recipe does
    app.run(main)
