"""Stages sft and eval: models trained on this data and on what it is compared with, for the same number of steps, and measured on
the same held-out pairs of the seed, which none of them has seen.

The paper compares with translated data and with data distilled from a teacher. Loss alone favours whatever is written like the
pairs, so answers are looked at too: in the right language, with an end, how near to the pair's own (chrF).
"""

import os
from collections.abc import Sequence
from typing import Any

from data_gen.ask import Question
from data_gen.contamination import WORDS, contaminated, ngrams_of
from data_gen.endpoint import OFFLINE
from data_gen.judging import chrf
from data_gen.language_id import language_of
from data_gen.record import Record
from data_gen.tfrecord import write_shards
from data_gen.x_instruction.inputs import seed_rows
from data_gen.x_instruction.output import record_of, with_language
from data_gen.x_instruction.seed import translation
from data_gen.x_instruction.stage import Row, Stage, digest_of
from data_gen.x_instruction.work import NotGood, Work, by_side, conversation, shards_digest, shards_size

OWN = "x_instruction"


def arms(work: Work) -> dict[str, str]:
    """Name → directory of shards. Those that the config does not name are left out."""
    given = {OWN: work.path("data"), "translated": work.config.sft.translated, "distilled": work.config.sft.distilled}
    return {name: path for name, path in given.items() if path}


# --- sft ----------------------------------------------------------------------------------------------------------------


def sft_inputs(work: Work) -> dict[str, Any]:
    settings = {f"sft.{name}": getattr(work.config.sft, name) for name in ("single", "max_steps")}
    return {
        **settings, "sft.recipe": digest_of(work.recipes[work.config.sft.recipe]), "base": work.config.base,
        **{f"shards of {name}": shards_digest(path) for name, path in arms(work).items()},
    }  # fmt: skip


def make_models(work: Work, stage: Stage) -> None:
    """Trains every arm; no rows. The smallest arm says how many steps, unless the config does."""
    config, trained = work.config.sft, dict[str, str]()
    check_arms(work)
    steps = config.max_steps
    for name in sorted(arms(work), key=lambda name: shards_size(arms(work)[name])):
        trained[name] = _trained(work, name, arms(work)[name], steps)
        steps = steps or work.steps_of(trained[name])
    if config.single and len(work.languages) > 1:
        whole = sum(work.stage("audit").counts().values())
        for code, pack in work.packs.items():
            rows = list(work.stage("audit").rows(code))
            part = max(1, round(steps * len(rows) / whole))  # as often as the model of all languages sees them
            trained[f"{OWN} {code}"] = _trained(work, code, by_side((row, record_of(row, pack)) for row in rows), part)
    stage.finish(sft_inputs(work), found={"models": trained, "steps": steps}, passed_on={"models": trained})


def check_arms(work: Work) -> None:
    """Raises NotGood where data of others have answers that share 13 words with the held-out pairs that all are measured on."""
    size = WORDS * max(pack.pieces_a_word for pack in work.packs.values())
    held = ngrams_of((row["response"] for row in seed_rows(work) if row["side"] == "heldout"), size)
    for name, path in arms(work).items():
        if name != OWN and (many := sum(contaminated(text, held, size) for text in work.children.answers(path))):
            raise NotGood(
                f"sft.{name}={path}: {many} of its answers share {WORDS} words with held-out pairs of the seed, so it would be "
                "measured on what it was trained on. Take these out, or give seeds that it does not have"
            )


def _trained(work: Work, name: str, data: str | dict[str, list[Record]], steps: int) -> str:
    return work.train(f"sft-{name}", work.config.sft.recipe, data, {"max_steps": str(steps)} if steps else {})


# --- eval ---------------------------------------------------------------------------------------------------------------


def eval_inputs(work: Work) -> dict[str, Any]:
    settings = {f"sft.{name}": getattr(work.config.sft, name) for name in ("answers", "answer_tokens")}
    return {**settings, **work.made_by("sft", "seed"), "teacher.model": _teacher(work)}


def _teacher(work: Work) -> str:
    """Who translates the instructions into the language; "" where nobody can."""
    return "" if work.config.teacher.base_url == OFFLINE else work.config.teacher.model


def make_comparison(work: Work, stage: Stage) -> None:
    """Rows {id, lang, arm, condition, instruction, answer, ended, own_language, chrf}; and the loss of every arm."""
    config, held = work.config.sft, [row for row in seed_rows(work) if row["side"] == "heldout"]
    data = os.path.join(stage.directory, "data")
    records = [_as_asked(row, work) for row in held]
    write_shards(data, {"train": [], "heldout": records}, config={"x_instruction": "held-out pairs"}, shard_records=10_000)
    asked = [row for code in work.languages for row in [one for one in held if one["lang"] == code][: config.answers]]
    conditions = _conditions(work, asked)
    rows: dict[str, list[Row]] = {code: [] for code in work.languages}
    losses, answers = dict[str, Any](), dict[str, Any]()
    for arm, trained in work.stage("sft").found()["models"].items():
        some = [row for row in asked if arm in arms(work) or arm.endswith(f" {row['lang']}")]
        losses[arm] = work.children.evaluate(work.run_of(trained), data)
        made = _answered(work, arm, trained, some, conditions)
        answers[arm] = summary(made)
        for row in made:
            rows[row["lang"]].append(row)
    for code in work.languages:
        stage.write(code, rows[code])
    left_out = [name for name in ("translated", "distilled") if name not in arms(work)]
    told = [f"not compared with {name} data: sft.{name} names no shards" for name in left_out]
    told += (
        []
        if "native" in conditions
        else ["not asked in the languages themselves: there is no teacher to translate the instructions"]
    )
    stage.finish(eval_inputs(work), found={"losses": losses, "answers": answers, "pairs": len(held), "told": told})


def _as_asked(row: Row, work: Work) -> Record:
    said = with_language(row["instruction"], work.packs[row["lang"]])
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": row["response"]}]
    return conversation("x_instruction_seed", row["lang"], messages)


def _conditions(work: Work, rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """What is asked, by condition and pair's id: in English, and in the language where a teacher translates."""
    found = {"english": {row["id"]: with_language(row["instruction"], work.packs[row["lang"]]) for row in rows}}
    if not _teacher(work):
        return found
    questions = [translation(row["instruction"], work.packs[row["lang"]].name) for row in rows]
    work.asker.ask(work.teacher(), questions, title="held-out instructions translated", wanted=len(rows))
    answers = [work.asker.answer(work.teacher(), question) for question in questions]
    return found | {
        "native": {row["id"]: answer.text for row, answer in zip(rows, answers, strict=True) if answer and not answer.cut}
    }


def _answered(work: Work, arm: str, trained: str, rows: Sequence[Row], conditions: dict[str, dict[str, str]]) -> list[Row]:
    """Greedy answers of one model."""
    fields = {"max_tokens": work.config.sft.answer_tokens, "temperature": 0.0}
    asked = [
        (row, condition, Question(f"{row['id']} {condition}", ({"role": "user", "content": said[row["id"]]},), fields))
        for condition, said in conditions.items()
        for row in rows
        if row["id"] in said
    ]
    made = []
    with work.served(trained, "sft") as model:
        work.asker.ask(model, (q for *_, q in asked), title=f"answers of {arm}", wanted=len(asked))
        for row, condition, question in asked:
            answer, pack = work.asker.answer(model, question), work.packs[row["lang"]]
            text = answer.text if answer else ""
            label, _ = language_of(text, pack, work.labellers[row["lang"]])
            made.append({
                "id": row["id"], "lang": row["lang"], "arm": arm, "condition": condition, "instruction": row["instruction"],
                "answer": text, "ended": answer is not None and not answer.cut, "own_language": label == pack.glotlid,
                "chrf": round(chrf(text, row["response"]), 1) if text else 0.0,
            })  # fmt: skip
    return made


def summary(rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """By condition and language: how many answers, and the shares or means of what was found of them."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for condition, code in sorted({(row["condition"], row["lang"]) for row in rows}):
        some = [row for row in rows if (row["condition"], row["lang"]) == (condition, code)]
        means = {name: round(sum(float(row[name]) for row in some) / len(some), 4) for name in ("ended", "own_language", "chrf")}
        found.setdefault(condition, {})[code] = {"answers": len(some), **means}
    return found
