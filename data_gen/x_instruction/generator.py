"""Stages train_generator and generate: a model that writes instructions, and the documents that it writes them for."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from data_gen.ask import Model, Question
from data_gen.contamination import WORDS, contaminated, ngrams_of
from data_gen.languages import Pack
from data_gen.text import tokens
from data_gen.x_instruction import models
from data_gen.x_instruction.inputs import (
    GATES,
    anchor_rows,
    asked_of_generator,
    embedder_inputs,
    gate_inputs,
    seed_rows,
    tiny_inputs,
)
from data_gen.x_instruction.instruction_rules import instruction_reason
from data_gen.x_instruction.seed import document_digest, files_digest, read_documents
from data_gen.x_instruction.stage import Row, Stage
from data_gen.x_instruction.work import NotGood, Work, named_values

# --- train_generator ----------------------------------------------------------------------------------------------------


def train_generator_inputs(work: Work) -> dict[str, Any]:
    return {
        **work.made_by("seed"), **work.role_inputs("generator"), **work.role_inputs("forward"),
        **gate_inputs(work, "generator"),
        **asked_of_generator(work), **tiny_inputs(work), **embedder_inputs(work),
    }  # fmt: skip


def make_generator(work: Work, stage: Stage) -> None:
    """Trains generator and forward model; no rows."""
    rows = seed_rows(work)
    generator = work.trained_or_teacher("generator", models.generator_records(rows))
    forward = work.trained_or_teacher("forward", models.forward_records(rows))
    with work.model("generator", generator) as model:
        found = models.check_generator(work, model, rows)
    stage.finish(
        train_generator_inputs(work), found={GATES: found, "generator": generator, "forward": forward},
        passed_on={"generator": generator, "forward": forward},
    )  # fmt: skip


# --- generate -----------------------------------------------------------------------------------------------------------


def generate_inputs(work: Work) -> dict[str, Any]:
    return {
        **work.settings("seed", "generate"), **work.made_by("seed", "train_generator"),
        **{f"documents of {code}": document_digest(work, code) for code in work.languages},
        "refine.anchor": files_digest(work.config.refine.anchor, "anchor", work.languages),
    }  # fmt: skip


def make_candidates(work: Work, stage: Stage) -> None:
    """Rows {id, lang, response, source, candidates: [{instruction, sample, round, model}]}, one a document chosen."""
    config, found = work.config.generate, dict[str, Any]()
    generator = work.stage("train_generator").found()["generator"]
    anchor = anchor_rows(work.config, work.languages, work.packs)
    with work.model("generator", generator) as model:
        for code, pack in work.packs.items():
            seeds = list(work.stage("seed").rows(code))
            apart = [row["response"] for row in seeds if row["side"] == "heldout"] + [
                row["response"] for row in anchor if row["lang"] == code
            ]
            runs = ngrams_of(apart, WORDS * pack.pieces_a_word)
            chosen = choose_documents(read_documents(work, code), runs, pack, stage, config.documents, config.max_news_share)

            def documents(code: str = code, chosen: set[str] = chosen) -> Iterator[Row]:
                seen = set[str]()
                for row in read_documents(work, code):
                    if row["id"] in chosen and row["id"] not in seen:
                        seen.add(row["id"])
                        yield row

            shown = [row for row in seeds if row["side"] == "train"]
            counted = Counter[str]()
            stage.write(
                code, _counted(candidates(work, stage, model, pack, documents, len(chosen), shown, round_number=0), counted)
            )
            found[code] = {"documents": len(chosen), "asked": len(chosen) * config.samples, "candidates": counted["candidates"]}
            found[code]["news"] = counted["news"]
            if not counted["documents"]:
                why = named_values(stage.rejected().get(code, {}))
                raise NotGood(f"no instruction for a document of {code} stays ({why}): look at {stage.directory}/rejected.jsonl.gz")
    stage.finish(generate_inputs(work), found=found)


def choose_documents(
    rows: Iterable[Row], apart: frozenset[int], pack: Pack, stage: Stage, most: int, max_news_share: float
) -> set[str]:
    """Ids of the documents that are asked about: long enough, apart from what models are measured on, the lowest ids, at most so
    many and so much news.
    """
    free: list[tuple[str, bool]] = []
    seen = set[str]()
    for row in rows:
        reason = "short" if not row["response"] else "duplicate" if row["id"] in seen else None
        if reason is None and contaminated(row["response"], apart, WORDS * pack.pieces_a_word):
            reason = "measured_on"
        if reason:
            stage.reject(pack.code, f"document_{reason}", row["id"], row["response"])
        else:
            free.append((row["id"], row["source"]["news"]))
        seen.add(row["id"])
    free.sort()
    others = [own for own, news in free if not news]
    news = [own for own, is_news in free if is_news]
    if max_news_share < 1:
        news = news[: int(max_news_share * len(others) / (1 - max_news_share) + 1e-9)]
    stage.count(pack.code, "document_news", len(free) - len(others) - len(news))
    allowed = sorted([*others, *news])
    stage.count(pack.code, "document_beyond_number", max(0, len(allowed) - most))
    return set(allowed[:most])


def candidates(
    work: Work, stage: Stage, model: Model, pack: Pack, documents: Callable[[], Iterator[Row]], many: int, shown: Sequence[Row], *,
    round_number: int, known: set[str] | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Asks the generator about a language's documents (gone through twice) and gives each with the candidates that stay. known:
    instructions that are taken, as their words.
    """
    config, taken = work.config.generate, set(known or ())
    samples = range(config.samples)

    def questions() -> Iterator[Question]:
        return (models.generator_question(work, row, sample, shown, round_number) for row in documents() for sample in samples)

    title = f"instructions for {pack.code}" + (f", round {round_number}" if round_number else "")
    work.asker.ask(model, questions(), title=title, wanted=many * len(samples))
    for row in documents():
        found = []
        for sample in samples:
            answer = work.asker.answer(model, models.generator_question(work, row, sample, shown, round_number))
            text = models.instruction_of(answer) if answer else ""
            reason = "no_answer" if answer is None else "cut_off" if answer.cut else None
            reason = reason or instruction_reason(text, row["response"], pack, config)
            if reason is None and not models.is_english_beside(text, pack):
                reason = "not_english"
            words = " ".join(tokens(text))
            if reason is None and words in taken:
                reason = "duplicate"
            if reason:
                stage.reject(row["lang"], reason, row["id"], text)
            else:
                taken.add(words)
                found.append({"instruction": text, "sample": sample, "round": round_number, "model": model.key})
        yield {**row, "candidates": found}


def _counted(rows: Iterator[Row], counted: Counter[str]) -> Iterator[Row]:
    for row in rows:
        counted["candidates"] += len(row["candidates"])
        counted["documents"] += bool(row["candidates"])
        counted["news"] += row["source"]["news"]
        yield row
