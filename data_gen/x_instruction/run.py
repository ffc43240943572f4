"""The X-Instruction recipe from start to end: which stages run, and what makes one old. Each stage's own work is in its module.

    seed → train_generator → generate → rate_data → train_evaluator → refine → diversify → audit → sft → eval

One pair of the seed: seed.read_pairs → pair_reason → models.generator_records → Work.train, and rating.rating_rows → evaluator. One
page: seed.read_documents → generator.choose_documents → candidates → models.score → refine.rated → diversify.choose →
output.form_of → record_of → tfrecord.write_shards.

`run(config, workdir, …)` leaves WORKDIR/data (shards, card, report.html), WORKDIR/report.md, a directory a stage, WORKDIR/models
and WORKDIR/journal.sqlite. This process never touches an accelerator: what does is a child that ends before the next begins.
"""

import importlib.util
import os
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

from data_gen import UsageError
from data_gen.ask import Asker
from data_gen.contamination import load_ngrams
from data_gen.endpoint import OFFLINE
from data_gen.engine import Shows
from data_gen.journal import open_journal
from data_gen.limits import BudgetReached
from data_gen.readable import dollars, duration
from data_gen.x_instruction import compare, diversify, evaluator, generator, output, refine, seed
from data_gen.x_instruction.config import ROLES, SAMPLE, TINY, XInstructionConfig
from data_gen.x_instruction.inputs import anchor_rows
from data_gen.x_instruction.report import write_report
from data_gen.x_instruction.stage import Stage
from data_gen.x_instruction.work import STAGES, Children, Work, shards_digest

RECIPE = "x_instruction"
# Name → what the stage depends on, and its work.
MAKERS: dict[str, tuple[Callable[[Work], dict[str, Any]], Callable[[Work, Stage], None]]] = {
    "seed": (seed.seed_inputs, seed.make_seed),
    "train_generator": (generator.train_generator_inputs, generator.make_generator),
    "generate": (generator.generate_inputs, generator.make_candidates),
    "rate_data": (evaluator.rate_data_inputs, evaluator.make_rate_data),
    "train_evaluator": (evaluator.train_evaluator_inputs, evaluator.make_evaluator),
    "refine": (refine.refine_inputs, refine.make_refined),
    "diversify": (diversify.diversify_inputs, diversify.make_diverse),
    "audit": (output.audit_inputs, output.make_data),
    "sft": (compare.sft_inputs, compare.make_models),
    "eval": (compare.eval_inputs, compare.make_comparison),
}


def run(
    config: XInstructionConfig,
    workdir: str,
    *,
    children: Children,
    show: Shows,
    first: str = "",
    last: str = "",
    languages: tuple[str, ...] = (),
    max_cost: float | None = None,
    command: str = "",
) -> str:
    """Runs the stages from `first` ("": the first; a stage named is made again even if it is finished) to `last` ("": the last),
    those that are finished and whose inputs are what they were excepted. languages: some of the config's. Returns what there is,
    in words.

    Raises UsageError on a config that makes no sense, an input that is missing or has changed since a stage was made (naming it), a
    directory in use; NotGood where a gate is missed; BudgetReached as the teacher's budget ends. What was made or paid for stays.
    """
    if unknown := [code for code in languages if code not in config.languages]:
        raise UsageError(f"--languages: {unknown[0]!r} is none of the config's languages, {', '.join(config.languages)}")
    config.validate()
    for name in (first, last):
        if name and name not in STAGES:
            raise UsageError(f"there is no stage {name!r}; there are {', '.join(STAGES)}")
    begin, end = STAGES.index(first or STAGES[0]), STAGES.index(last or STAGES[-1])
    if begin > end:
        raise UsageError(f"--from={first} comes after --to={last}; the order is {', '.join(STAGES)}")
    recipes = children.resolve(
        [config.sft.recipe, *(config.role(name).recipe for name in ROLES if config.role(name).by == "trained")]
    )
    with open_journal(workdir) as journal:
        stored = journal.config()
        if stored and stored.get("recipe") != RECIPE:
            raise UsageError(f"{workdir} was begun by another recipe: give another --workdir")
        journal.keep_config({"recipe": RECIPE}, {})
        chosen = tuple(code for code in config.languages if not languages or code in languages)  # in their order, each once
        work = Work(
            config,
            workdir,
            chosen,
            children,
            Asker(journal, show, max_cost, config.max_errors),
            show,
            recipes,
            command,
        )
        check_inputs(work, end)
        try:
            for name in STAGES[:begin]:
                check_before(work, name, first)
            remade = False
            for place in range(begin, end + 1):
                remade |= go(work, STAGES[place], again=bool(first) and place == begin, follows=remade or bool(first))
        except (UsageError, BudgetReached, KeyboardInterrupt):
            with suppress(UsageError):  # what stopped the run is the news
                write_report(work)
            raise
        path = write_report(work)
        spent = work.asker.spent()
    said = [f"report    {path}"]
    if work.stage("audit").manifest():
        said.insert(0, f"data      {work.path('data')}")
    return "\n".join([*said, *([f"cost      {dollars(spent)}"] if config.teacher.price() else [])])


def check_before(work: Work, name: str, first: str) -> None:
    """Raises UsageError unless a stage before the first one is finished and what it was made of is unchanged."""
    stage = work.stage(name)
    if stage.manifest() is None:
        raise UsageError(f"--from={first}: stage {name}, which comes before, is not finished; give --from={name}")
    prepare(work, name)
    if change := stage.changed(MAKERS[name][0](work)):
        raise UsageError(f"stage {name} was made of something else: {change}. --from={name} makes it and what follows again")


def go(work: Work, name: str, *, again: bool, follows: bool) -> bool:
    """Makes a stage that is not finished, is to be made again, or is old because one before it was. Says whether it was made.

    Raises UsageError where a finished stage's inputs changed, and neither --from nor a stage before it says that it may be remade.
    """
    stage = work.stage(name)
    inputs_of, make = MAKERS[name]
    prepare(work, name)
    if stage.manifest() is not None and not again:
        change = stage.changed(inputs_of(work))
        if not change:
            work.say(f"{name}: done before")
            return False
        if not follows:
            raise UsageError(
                f"stage {name} was made of something else: {change}. Set it back, or make it and what follows again: "
                f"--from={name}. Trained models and answers that were paid for are kept and used again where they still fit"
            )
    began = monotonic()
    work.say(f"{name} …")
    stage.begin()
    make(work, stage)
    rejected = sum(count for some in stage.rejected().values() for count in some.values())
    rows = ", ".join(f"{code} {count:,}" for code, count in stage.counts().items())
    figures = "; ".join(filter(None, [rows, f"{rejected:,} not kept" if rejected else ""]))
    work.say(f"{name}: {figures or 'done'} ({duration(monotonic() - began)})")
    return True


def prepare(work: Work, name: str) -> None:
    """What several stages need once the seed is there: the base."""
    if name != "seed" and not work.base and work.config.base:
        documents = [seed.document_digest(work, code) for code in work.languages] if work.config.base == TINY else []
        work.set_base([work.stage("seed").digest(), documents], seed.tiny_texts(work))


def check_inputs(work: Work, end: int) -> None:
    """Everything that a stage hours from now would stop for, up to the last one. Raises UsageError."""
    config = work.config
    if importlib.util.find_spec("sklearn") is None:
        raise UsageError("scikit-learn is not installed: pip install -e '.[x_instruction]'")
    seeds, _ = seed.given_pairs(work)
    anchor = anchor_rows(config, work.languages, work.packs)
    if not anchor and end >= STAGES.index("train_evaluator"):
        raise UsageError(
            "refine.anchor is empty: the rater is measured against pairs rated by people or a teacher. --to=generate does without; "
            "launch/rate_anchor.py makes an anchor of what it wrote"
        )
    both = [row for code, pack in work.packs.items() for row in seed.shared(anchor, seeds.get(code, []), pack)]
    if both:
        raise UsageError(
            f"refine.anchor and seeds.input have 13 words running in common in {len(both)} answers (the first: "
            f"{both[0]['response'][:60]!r}): what models are trained on says nothing about them; take these out of one of the two"
        )
    for code in work.languages:
        if config.documents_of(code) != SAMPLE:
            seed.document_directory(work, code)
        elif importlib.util.find_spec("datatrove") is None:
            raise UsageError("the shipped pages are cleaned by the ingest, which is not installed: pip install -e '.[ingest]'")
    for name, path in compare.arms(work).items():
        if name != compare.OWN:
            shards_digest(path)
    if config.output.decontaminate:
        load_ngrams(config.output.decontaminate)
    if config.diversify.embedder != "tfidf":
        diversify.embed(["Write a short story about a journey.", "List three uses of clay."], work, "trial texts")
    if config.teacher.base_url != OFFLINE:  # it may be asked: in eval it always is
        config.teacher.validate()
    if work.asker.budget_needs_price(config.teacher) and config.teacher.base_url != OFFLINE:
        raise UsageError("--max_cost needs a price: --config.teacher.input_price and --config.teacher.output_price")
    if os.path.exists(work.path("data")) and not os.path.isdir(work.path("data")):
        raise UsageError(f"{work.path('data')} is no directory")
