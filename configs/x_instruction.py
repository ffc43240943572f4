"""X-Instruction (arXiv 2405.19744): English instructions for native web text, written and rated by models trained here.

    python launch/x_instruction.py --config=configs/x_instruction.py:tiny --workdir=runs/xi       # the shipped sample, on a CPU
    python launch/plan_x_instruction.py --config=configs/x_instruction.py:ur --topology=h100:1    # what 32,000 Urdu items take
    python launch/x_instruction.py --config=configs/x_instruction.py:ur --config.documents=ur=runs/web_ur \
        --config.seeds.input=SEED.jsonl --config.refine.anchor=ANCHOR.jsonl --workdir=runs/xi_ur

`ur`, or any other codes with `+` between (`ur+hi`), are the languages; `ten` are the authors'. The documents are work directories
of launch/ingest.py. The paper's hyper-parameters are not published: what stands in data_gen/x_instruction/config.py and here is
this project's choice, but for 32,000 samples a language, the prompts, and the base of the training recipes.

`tiny` tries the programs: two languages, the shipped pages (315 of 390 stay), models of 1.7M parameters and random weights, one
round. Such models write no instructions worth keeping, so every gate is open but that of length, and the threshold low; the
report says so.
"""

from alif_jax import UsageError
from data_gen.languages import packs
from data_gen.x_instruction.config import (
    TINY,
    DiversifyConfig,
    GatesConfig,
    GenerateConfig,
    OutputConfig,
    RateConfig,
    RefineConfig,
    RoleConfig,
    SeedConfig,
    SftConfig,
    XInstructionConfig,
)

TEN = ("bn", "fi", "hi", "id", "sw", "ta", "th", "tr", "ur", "vi")


def get_config(arg: str = "") -> XInstructionConfig:
    if arg == "tiny":
        return tiny()
    languages = TEN if arg == "ten" else tuple((arg or "ur+hi").split("+"))
    if unknown := [code for code in languages if code not in packs()]:
        raise UsageError(
            f"configs/x_instruction.py:{arg}: {unknown[0]!r} is no language; there are {', '.join(packs())}, ten, tiny"
        )
    config = XInstructionConfig(languages=languages)
    if len(languages) > 1:
        config.sft.recipe = "configs/x_instruction_sft.py:ten"
    return config


def tiny() -> XInstructionConfig:
    return XInstructionConfig(
        languages=("ur", "hi"),
        base=TINY,
        seeds=SeedConfig(heldout_share=0.2, heldout_rows=0, min_heldout=5),
        generate=GenerateConfig(max_tokens=48, max_news_share=1.0, min_instruction=3),
        rate=RateConfig(at_least=30, forward_tokens=160, keep=0.3, max_keep=1.0, min_keep=0.0, floor=20),
        refine=RefineConfig(rounds=1, min_anchor=48, max_fall=1.0),
        diversify=DiversifyConfig(clusters=8, target=100, dimensions=32),
        output=OutputConfig(heldout_share=0.1, licence="CC0-1.0"),
        sft=SftConfig(recipe="configs/x_instruction_tiny.py:sft", answers=6, answer_tokens=64),
        gates=GatesConfig(
            english=0.0, dangling=1.0, distinct_2=0.0, cosine=0.0, macro_f1=0.0, macro_f1_language=0.0, calibration=1.0,
            length_correlation=1.0, length_accuracy=0.5, min_auc=0.0,
        ),
        generator=RoleConfig(recipe="configs/x_instruction_tiny.py:generator"),
        forward=RoleConfig(recipe="configs/x_instruction_tiny.py:forward"),
        evaluator=RoleConfig(recipe="configs/x_instruction_tiny.py:evaluator"),
        serve_batch_size=16,
    )  # fmt: skip
