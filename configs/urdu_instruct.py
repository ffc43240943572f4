"""Urdu instruction data: Alif's seven tasks in its mix, 51,686 items to train on, and what Alif lacks.

    python launch/self_instruct.py --config=configs/urdu_instruct.py --workdir=runs/urdu
    python launch/self_instruct.py --config=configs/urdu_instruct.py:more --workdir=runs/urdu --config.teacher.base_url=URL \
        --config.teacher.model=NAME --config.teacher.terms='URL of its terms and what they allow' --dry_run

The first asks the offline teacher, a server of grammars and word lists: a tenth of the items, because it has no more to say
(`offline_scale`). The second says what a real one will cost; without --dry_run it begins. `more` adds the tasks that Alif has not:
reading comprehension and summarising (with an input), conversations, long answers, culture, code-mixed and Roman Urdu, refusals
that help, and the translation of an English set. Each can be had alone: --config.targets.roman=2000.

Where this differs from the published run (arXiv 2510.09051): held-out items come from held-out seeds and are no near twins of
training items; answers are checked (sums recomputed, other reasoning solved again five times, translations translated back,
conduct and quality judged); answers too must be new; the seeds are our own.
"""

from data_gen import UsageError
from data_gen.self_instruct import ChecksConfig, SelfInstructConfig, Targets, TeacherConfig

ALIF = Targets(
    translation=10_001, reasoning=9_590, ethics=9_002, question_answering=8_177, generation=5_907, classification=4_662,
    sentiment=4_347,
)  # fmt: skip
ALL_CHECKS = ChecksConfig(majority_samples=5, min_chrf=40.0, ethics=True, min_quality=3)


def get_config(arg: str = "") -> SelfInstructConfig:
    if arg not in ("", "more"):
        raise UsageError(f"configs/urdu_instruct.py:{arg}: nothing after the colon, or `more`")
    config = SelfInstructConfig(
        language="ur",
        targets=ALIF,
        offline_scale=0.1,
        checks=ALL_CHECKS,
        language_id=True,
        teacher=TeacherConfig(base_url="offline"),
    )
    return more(config) if arg else config


def more(config: SelfInstructConfig) -> SelfInstructConfig:
    """With what Alif lacks: a third as many items again."""
    targets = config.targets
    targets.reading_comprehension, targets.summarisation = 3_000, 2_000
    targets.conversation, targets.long_answer, targets.culture = 3_000, 2_000, 3_000
    targets.code_mixed, targets.roman, targets.helpful_refusal = 1_500, 2_000, 1_500
    targets.translated, config.translate = 40, "sample"
    return config
