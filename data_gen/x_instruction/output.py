"""Stage audit: the form that every sample takes, a last look at all of them, and WORKDIR/data: shards, card, report.

A sample has one form, by a draw that its id decides:
    english   the English instruction, in most of them with "Answer in Urdu." at its end
    system    the same with the language in a system message instead
    native    the instruction in the language itself, translated by the teacher
"""

import csv
import functools
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_gen import UsageError
from data_gen.card import without_paths
from data_gen.contamination import WORDS, contaminated, load_ngrams, ngrams_of
from data_gen.language_id import language_of
from data_gen.languages import Pack
from data_gen.readable import percent
from data_gen.record import SIDES, Message, Record
from data_gen.review import ID_MARK, as_text
from data_gen.text import script_share
from data_gen.tfrecord import write_shards
from data_gen.x_instruction import rating
from data_gen.x_instruction.config import ROLES, TINY, XInstructionConfig
from data_gen.x_instruction.data_card import Facts, Funnel, Model, Round, write_card
from data_gen.x_instruction.inputs import GATES, anchor_rows
from data_gen.x_instruction.measures import mean_sd
from data_gen.x_instruction.seed import MIN_SCRIPT, numbers_in, translation
from data_gen.x_instruction.stage import Row, Stage, digest_of
from data_gen.x_instruction.work import NotGood, Work

_ENDS = (".", "?", "!", ":", ";", ")", '"', "”")
SHEET = 100  # samples a language that a person may look through


def answer_in(pack: Pack) -> str:
    """ "Answer in Urdu."."""
    return f"Answer in {pack.name}."


def with_language(instruction: str, pack: Pack) -> str:
    """ "Explain rain" → "Explain rain. Answer in Urdu."."""
    said = instruction.rstrip()
    return f"{said}{'' if said[-1:] in _ENDS else '.'} {answer_in(pack)}"


def form_of(work: Work, row: Row) -> tuple[str, bool, str]:
    """(form, whether it says the language, side) of a sample: a function of its id and the config's seed."""
    config, drawn = work.config.output, random.Random(f"{work.config.seed} form {row['id']}")
    place, says, held = drawn.random(), drawn.random() < config.answer_in, drawn.random() < config.heldout_share
    form = "native" if place < config.native_share else "system" if place < config.native_share + config.system_share else "english"
    return form, says or form == "system", SIDES[held]


def messages(row: Row, pack: Pack) -> list[Message]:
    """The conversation of a row of this stage."""
    asked = {"role": "user", "content": row["asked"]}
    said = {"role": "assistant", "content": row["response"]}
    if row["form"] == "system":
        return [{"role": "system", "content": answer_in(pack)}, asked, said]
    if row["form"] == "english" and row["says_language"]:
        asked["content"] = with_language(row["asked"], pack)
    return [asked, said]


def record_of(row: Row, pack: Pack) -> Record:
    """A row of this stage as a record of the data; the id is the one that the document was given."""
    meta = {
        **row["source"], "instruction": row["instruction"], "round": row["rating"]["round"], "cluster": row["cluster"],
        "scores": {"p_high": row["rating"]["scores"][rating.BEST]}, "generator": row["gen"]["model"], "side": row["side"],
    }  # fmt: skip
    return Record(row["id"], "x_instruction", row["form"], row["lang"], meta, messages=tuple(messages(row, pack)))


def audit_inputs(work: Work) -> dict[str, Any]:
    settings = {name: value for name, value in work.settings("seed", "output").items() if name != "output.shard_records"}
    settings["output.decontaminate"] = evaluation_digest(work.config.output.decontaminate)
    native = {"teacher.model": work.config.teacher.model} if work.config.output.native_share else {}
    return {**settings, **native, **work.made_by("diversify", "seed")}


@functools.cache
def evaluation_digest(paths: tuple[str, ...]) -> str:
    """Of what evaluation files say; "" without any."""
    return digest_of(sorted(load_ngrams(paths))) if paths else ""


def make_data(work: Work, stage: Stage) -> None:
    """Rows of diversify with {"form", "asked", "says_language", "side"}; then the shards."""
    config, found = work.config.output, dict[str, Any]()
    anchor = anchor_rows(work.config, work.languages, work.packs)
    for code, pack in work.packs.items():
        rows = [
            {**row, **dict(zip(("form", "says_language", "side"), form_of(work, row), strict=True))}
            for row in work.stage("diversify").rows(code)
        ]
        ngrams = load_ngrams(config.decontaminate, WORDS * pack.pieces_a_word) if config.decontaminate else frozenset[int]()
        rows = _without_evaluation(stage, rows, ngrams, pack)
        rows = _asked(work, stage, rows, pack)
        wrong = _wrong_language(work, rows, pack) if config.language_id else 0
        if wrong > config.max_wrong_language * len(rows):
            raise NotGood(
                f"audit: {wrong} of {len(rows):,} answers of {code} ({percent(wrong, len(rows))}) are in another language by the "
                f"identifier; at most {percent(config.max_wrong_language, 1)} may. Look at the ingest's min_language_confidence"
            )
        held = [row["response"] for row in work.stage("seed").rows(code) if row["side"] == "heldout"]
        size = WORDS * pack.pieces_a_word
        runs = ngrams_of([*held, *(row["response"] for row in anchor if row["lang"] == code)], size)
        overlap = sum(contaminated(row["response"], runs, size) for row in rows)
        if overlap:
            raise NotGood(
                f"audit: {overlap} answers of {code} share 13 words with held-out pairs or the anchor: run from generate on"
            )
        stage.write(code, rows)
        found[code] = facts_of(rows) | {"wrong_language": wrong, "language_checked": config.language_id}
        write_sheet(os.path.join(stage.directory, f"sample-{code}.csv"), rows, work.config.seed)
    splits = {side: FinalRecords(work, stage, side) for side in SIDES}
    if not len(splits["train"]):
        raise NotGood("audit: no sample is left to train on: look at what the stages before rejected, --from=generate makes more")
    data = work.path("data")
    try:
        write_shards(data, splits, config=recipe_of(work), shard_records=config.shard_records)
    except OSError as error:
        raise UsageError(f"{data} cannot be written: {error}; make room and give the same command") from error
    found |= {"heldout": len(splits["heldout"]), "train": len(splits["train"])}
    write_card(data, card_facts(work, stage, found), lambda: (record for side in SIDES for record in splits[side]))
    stage.finish(audit_inputs(work), found=found)


def recipe_of(work: Work) -> dict[str, Any]:
    """The config, and digests of the stages before, for the manifest of the data: no addresses and paths of people's machines."""
    hidden = ("documents", "serve_command", "max_errors", "serve_batch_size")
    settings = work.settings(*(name for name in vars(work.config) if name not in hidden))
    plain = {name: value for name, value in settings.items() if name.rpartition(".")[2] not in ("url", "base_url")}
    made: dict[str, Any] = without_paths(plain)
    return {**made, "languages": list(work.languages), **work.made_by("seed", "refine", "diversify")}


def card_facts(work: Work, stage: Stage, found: Mapping[str, Any]) -> Facts:
    """What the stages found out, for the card."""
    made = {name: work.stage(name).found() for name in ("train_generator", "generate", "train_evaluator", "refine", "diversify")}
    gates, config = work.config.gates, work.config
    usage, cost = work.asker.journal.spent()
    rejected = {name: _in_all(work.stage(name).rejected()) for name in ("seed", *list(made)[1:])} | {
        "audit": _in_all(stage.rejected())
    }
    rounds = tuple(
        Round(
            candidates=sum(made["generate"][code]["candidates"] for code in work.languages)
            + sum(one.get("new_candidates", {}).values()),
            kept=sum(one["kept"].values()),
            reached={
                "macro-F1": one[GATES]["macro_f1"],
                **{f"AUC against the anchor, {code}": one["auc"][code] for code in work.languages},
            },
        )
        for one in made["refine"]["rounds"]
        if one.get("used", True)
    )
    return Facts(
        packs=tuple(work.packs.values()),
        models=_card_models(work),
        recipe=recipe_of(work),
        command=work.command,
        funnel={
            code: Funnel(
                made["generate"][code]["documents"], made["generate"][code]["candidates"], made["refine"][code]["kept"],
                made["diversify"][code]["kept"], found[code]["samples"],
            )
            for code in work.languages
        },
        rounds=rounds,
        gates={"macro-F1": f"at least {gates.macro_f1:g}"}
        | {f"AUC against the anchor, {code}": f"at least {gates.min_auc:g}" for code in work.languages},
        rejected={name: some for name, some in rejected.items() if some},
        entropies={
            code: (made["diversify"][code]["entropy_before"], made["diversify"][code]["entropy_after"])
            for code in work.languages
        },
        checks=checks_on(config),
        licence=config.output.licence,
        tried_out=config.base == TINY,
        requests=work.asker.journal.count(),
        usage=usage,
        cost=cost if config.teacher.price() else None,
    )  # fmt: skip


def checks_on(config: XInstructionConfig) -> dict[str, str]:
    """The checks of card_words.CHECKS that were on, with their thresholds in words."""
    return {
        "instruction": f"{config.generate.min_instruction} to {config.generate.max_instruction} letters",
        "rater": f"at least {config.rate.keep:g}",
        "cosine": f"at most {config.diversify.max_cosine:g}",
        "news": f"at most {percent(config.generate.max_news_share, 1)}",
        **(
            {"language_id": f"at most {percent(config.output.max_wrong_language, 1)} otherwise"}
            if config.output.language_id
            else {}
        ),
        "measured_on": "",
        "personal_data": "in the ingest",
        **({"contamination": f"{len(config.output.decontaminate)} files"} if config.output.decontaminate else {}),
    }


def _in_all(rejected: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    return dict(sum((Counter(some) for some in rejected.values()), Counter[str]()))


def _card_models(work: Work) -> dict[str, Model]:
    config, teacher = work.config, Model(work.config.teacher.model, terms=work.config.teacher.terms)
    found = {}
    for role in ROLES:
        own = config.role(role)
        base = config.base or work.recipes.get(own.recipe, {}).get("model", {}).get("path", "")
        found[role] = teacher if own.by == "teacher" else Model(role, base=base, recipe=own.recipe)
    if config.output.native_share or work.stage("seed").found().get("translated"):
        found["translator"] = teacher
    if config.diversify.embedder != "tfidf":
        found["embedder"] = Model(config.diversify.model)
    return found


class FinalRecords:
    """The records of a side, read from the stage's rows each time they are gone through."""

    def __init__(self, work: Work, stage: Stage, side: str) -> None:
        self._work, self._stage, self._side = work, stage, side
        self._count = sum(row["side"] == side for code in work.languages for row in stage.rows(code))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        for code, pack in self._work.packs.items():
            for row in self._stage.rows(code):
                if row["side"] == self._side:
                    yield record_of(row, pack)


def _without_evaluation(stage: Stage, rows: Sequence[Row], ngrams: frozenset[int], pack: Pack) -> list[Row]:
    kept = []
    for row in rows:
        said = (row["response"], row["instruction"])
        if any(contaminated(text, ngrams, WORDS * pack.pieces_a_word) for text in said):
            stage.reject(pack.code, "evaluation_data", row["id"], row["response"])
        else:
            kept.append(row)
    return kept


def _asked(work: Work, stage: Stage, rows: Sequence[Row], pack: Pack) -> list[Row]:
    """The rows with what is asked: of the native form the teacher's translation. One that does not come goes."""
    native = [row for row in rows if row["form"] == "native"]
    questions = {row["id"]: translation(row["instruction"], pack.name) for row in native}
    if native:
        work.asker.ask(work.teacher(), questions.values(), title=f"instructions into {pack.name}", wanted=len(native))
    kept = []
    for row in rows:
        if row["form"] != "native":
            kept.append({**row, "asked": row["instruction"]})
            continue
        answer = work.asker.answer(work.teacher(), questions[row["id"]])
        said = pack.normalise(answer.text) if answer and not answer.cut else ""
        if reason := _native_reason(said, row["instruction"], work, pack):
            stage.reject(pack.code, reason, row["id"], said or row["instruction"])
        else:
            kept.append({**row, "asked": said})
    return kept


def _native_reason(said: str, instruction: str, work: Work, pack: Pack) -> str | None:
    if not said:
        return "not_translated"
    if numbers_in(said) != numbers_in(instruction):
        return "numbers_changed"
    if script_share(said, pack.script) < MIN_SCRIPT:
        return "wrong_script"
    label, _ = language_of(said, pack, work.labellers[pack.code])
    return "wrong_language" if label not in ("", pack.glotlid) else None


def _wrong_language(work: Work, rows: Sequence[Row], pack: Pack) -> int:
    return sum(language_of(row["response"], pack, work.labellers[pack.code])[0] not in ("", pack.glotlid) for row in rows)


def facts_of(rows: Sequence[Row]) -> dict[str, Any]:
    """What the report says of a language's samples; lengths in letters."""
    return {
        "samples": len(rows),
        "instruction_letters": mean_sd([len(row["instruction"]) for row in rows]),
        "answer_letters": mean_sd([len(row["response"]) for row in rows]),
        "forms": dict(sorted(Counter(row["form"] for row in rows).items())),
        "news": sum(row["source"]["news"] for row in rows),
    }


def write_sheet(path: str, rows: Sequence[Row], seed: int) -> None:
    """A hundred samples for a person to read, as CSV for a spreadsheet. Raises UsageError where it cannot be written."""
    drawn = random.Random(f"{seed} sheet").sample(list(rows), min(SHEET, len(rows)))
    try:
        with open(path, "w", encoding="utf-8-sig", newline="") as file:  # Excel takes it for UTF-8 by its first bytes
            sheet = csv.writer(file)
            sheet.writerow(["id", "instruction", "answer", "score", "address"])
            for row in drawn:
                score = f"{row['rating']['scores'][rating.BEST]:.3f}"
                cells = [f"{ID_MARK}{row['id']}", row["asked"], row["response"], score, row["source"].get("url", "")]
                sheet.writerow([as_text(cell) for cell in cells])
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}; make room and give the same command") from error
