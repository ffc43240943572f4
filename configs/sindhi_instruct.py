"""Sindhi instruction data: a second language, with one pack, five seeds a task and this file.

    python launch/self_instruct.py --config=configs/sindhi_instruct.py --workdir=runs/sindhi
    python launch/self_instruct.py --config=configs/sindhi_instruct.py --workdir=runs/sindhi-real \
        --config.teacher.base_url=URL --config.teacher.model=NAME --config.scale=25 \
        --config.teacher.terms='URL of its terms and what they allow' --dry_run

The first asks the offline teacher, whose Sindhi is a small grammar; the second says what 1,000 items a task of a real one will
cost. How a language is added, as Sindhi was:

1. data_gen/languages/CODE/pack.toml: the language's names, letters, punctuation, and the patterns by which its requests for a
   translation, its refusals and a chat model's talk of itself are known.
2. data_gen/languages/CODE/TASK/seeds.jsonl: at least five seeds of each task that has a target, each on a topic of its own. The
   prompts are the same for all languages.
3. A config like this one.

data_gen/languages/README.md says each step in full. Native readers should check the seeds before money is spent on them, and a
sample of what came back afterwards (launch/review.py): a teacher writes Sindhi less well than Urdu, and copies what it is shown.
lingua knows no Sindhi; with a GlotLID model file, --config.language_id=true --config.glotlid_model=FILE finds answers in Urdu.
"""

from data_gen.self_instruct import ChecksConfig, SelfInstructConfig, Targets, TeacherConfig


def get_config(arg: str = "") -> SelfInstructConfig:
    n = 40
    return SelfInstructConfig(
        language="sd",
        targets=Targets(
            generation=n, reasoning=n, ethics=n, question_answering=n, translation=n, classification=n, sentiment=n,
        ),  # fmt: skip
        checks=ChecksConfig(majority_samples=3, min_chrf=40.0, ethics=True, min_quality=3),
        teacher=TeacherConfig(base_url="offline"),
    )
