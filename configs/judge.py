"""A judge of answers: which of two models answers better, or how good one model's answers are.

    python launch/judge.py --evaluation=runs/eval --model=mine --against=base --config=configs/judge.py \
        --config.teacher.base_url=https://HOST/v1 --config.teacher.model=NAME

The argument is the code of the language that answers are expected in, "ur" where none is given. A small model is a poor judge of
Urdu: Llama-3-8b's verdicts agree less with people's than GPT-4-Turbo's do (arXiv 2407.04459).
"""

from data_gen.evaluation.judge import JudgeConfig
from data_gen.languages import load_pack


def get_config(argument: str = "") -> JudgeConfig:
    return JudgeConfig(language=load_pack(argument or "ur").name)
