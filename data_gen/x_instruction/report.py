"""WORKDIR/report.md: how the run came out, from the manifests of its stages; those that are not made yet are left out."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from data_gen import UsageError
from data_gen.readable import duration, percent
from data_gen.x_instruction.config import TINY
from data_gen.x_instruction.data_card import PUBLISHED
from data_gen.x_instruction.inputs import GATES
from data_gen.x_instruction.work import STAGES, Work


def write_report(work: Work) -> str:
    """Writes the report and returns its path."""
    path = work.path("report.md")
    try:
        os.makedirs(work.workdir, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(report(work))
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error}") from error
    return path


def report(work: Work) -> str:
    """The whole text."""
    made = {name: manifest for name in STAGES if (manifest := work.stage(name).manifest())}
    parts = [
        "# X-Instruction: how the run came out",
        _stages(made),
        _told(work, made),
        _funnel(work, made),
        _gates(work, made),
        _rounds(work, made),
        _diverse(work, made),
        _data(work, made),
        _arms(made),
        _rejected(made),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text."""
    lines = ["| " + " | ".join(map(_cell, line)) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "|".join([":--", *["--:"] * (len(head) - 1)]) + "|", *lines[1:]])


def _cell(value: Any) -> str:
    text = (
        ""
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:.3g}"
        if isinstance(value, float)
        else str(value)
    )
    return " ".join(text.split()).replace("|", "\\|")


def _stages(made: dict[str, Any]) -> str:
    rows = []
    for name in STAGES:
        if name not in made:
            rows.append([name, "not made", "", ""])
            continue
        found = made[name]
        counts = ", ".join(f"{file.partition('.')[0]} {facts['rows']:,}" for file, facts in sorted(found["files"].items()))
        rejected = sum(count for some in found["rejected"].values() for count in some.values())
        rows.append([name, counts or "done", rejected or "", duration(found["seconds"])])
    return table(["stage", "rows", "not kept", "took"], rows)


def _told(work: Work, made: dict[str, Any]) -> str:
    """What somebody must know who trusts the data."""
    told = [line for name in STAGES if name in made for line in made[name]["found"].get("told", [])]
    default = type(work.config.gates)()
    lowered = [
        f"gate {name} is set to {value:g}, where {standard:g} is usual"
        for name, value in vars(work.config.gates).items()
        if value != (standard := getattr(default, name))
    ]
    if made.get("train_evaluator", {}).get("found", {}).get(GATES, {}).get("probabilities") == "votes":
        told.append(f"scores are shares of {work.config.rate.votes} votes: the rater's endpoint gives no logprobs")
    if work.config.base == TINY:
        told.append("**the models are tiny, of random weights: this run tries the programs, its data is good for nothing**")
    return "\n".join(["## To be known", "", *(f"- {line}" for line in [*told, *lowered])]) if told or lowered else ""


def _funnel(work: Work, made: dict[str, Any]) -> str:
    columns = [
        ("documents", "generate", "documents"), ("candidates", "generate", "candidates"), ("kept by the rater", "refine", "kept"),
        ("diverse", "diversify", "kept"), ("in the data", "audit", "samples"),
    ]  # fmt: skip
    there = [column for column in columns if column[1] in made]
    rows = [[code, *(made[stage]["found"].get(code, {}).get(key, "") for _, stage, key in there)] for code in work.languages]
    return "\n\n".join(["## From documents to data", table(["language", *(name for name, *_ in there)], rows)]) if there else ""


def _gates(work: Work, made: dict[str, Any]) -> str:
    gates, parts = work.config.gates, []
    if "train_generator" in made:
        found = made["train_generator"]["found"][GATES]
        named = {
            "english": "instructions in English",
            "dangling": "that speak of a text not there",
            "distinct_2": "distinct pairs of words",
            "cosine": "cosine with the written instruction",
        }
        rows = [
            [
                said,
                *(found[code][key] for code in work.languages),
                f"at {'most' if key == 'dangling' else 'least'} {getattr(gates, key):g}",
            ]
            for key, said in named.items()
        ]
        rows.append(["the written instructions in English", *(found[code]["english_written"] for code in work.languages), ""])
        rows.append(["pairs", *(found[code]["pairs"] for code in work.languages), ""])
        parts.append(table(["generator, on held-out pairs", *work.languages, "gate"], rows))
    if "rate_data" in made:
        found = made["rate_data"]["found"]
        values = [found[code]["length_accuracy"] for code in work.languages]
        rows = [["levels told by length alone", *values, f"at most {gates.length_accuracy:g}"]]
        rows.append(["pairs a level", *(found[code]["a_level"] for code in work.languages), ""])
        parts.append(table(["rating data", *work.languages, "gate"], rows))
    if "train_evaluator" in made:
        found = made["train_evaluator"]["found"][GATES]
        rows = [["macro-F1 of three levels", found["macro_f1"], f"at least {gates.macro_f1:g}"]]
        rows += [
            [f"macro-F1, {code}", value, f"at least {gates.macro_f1_language:g}"]
            for code, value in found["macro_f1_language"].items()
        ]
        rows += [
            ["calibration error", found["calibration"], f"at most {gates.calibration:g}"],
            ["score and length (Spearman)", found["length_correlation"], f"at most {gates.length_correlation:g} either way"],
            ["pairs without a readable answer", found["unrated"], f"at most {work.config.max_errors:g} of a language's"],
        ]
        parts.append(table([f"evaluator, on {found['rows']} held-out pairs", "value", "gate"], rows))
    return "\n\n".join(["## Gates", *parts]) if parts else ""


def _rounds(work: Work, made: dict[str, Any]) -> str:
    if "refine" not in made:
        return ""
    found = made["refine"]["found"]
    rows = []
    for one in found["rounds"]:
        used = "" if one.get("used", True) else "not used"
        rows.append(
            [
                f"{one['round']} {used}".strip(),
                *(one["auc"][code] for code in work.languages),
                *(one["kept"][code] for code in work.languages),
            ]
        )
    head = ["round", *(f"AUC {code}" for code in work.languages), *(f"kept {code}" for code in work.languages)]
    gate = f"at least {work.config.gates.min_auc:g}"
    said = f"The AUC is that of the rater against the anchor, which no model is trained on (gate: {gate})."
    return f"## Rounds\n\n{said}\n\n{table(head, rows)}\n\nStopped: {found['stopped']}."


def _diverse(work: Work, made: dict[str, Any]) -> str:
    if "diversify" not in made:
        return ""
    found = made["diversify"]["found"]
    rows = [
        [code, found[code]["clusters"], found[code]["empty_clusters"], found[code]["entropy_before"], found[code]["entropy_after"]]
        for code in work.languages
    ]
    said = f"Clusters of the English instructions, embedded by {found['embedder']}; entropy of their sizes, 1 where all are equal."
    return f"## Diversity\n\n{said}\n\n{table(['language', 'clusters', 'empty', 'entropy before', 'after'], rows)}"


def _data(work: Work, made: dict[str, Any]) -> str:
    if "audit" not in made:
        return ""
    found, rows = made["audit"]["found"], []
    for code in work.languages:
        facts = found[code]
        published = PUBLISHED.get(code)
        ours = [f"{facts[key]['mean']:,} ± {facts[key]['sd']:,}" for key in ("instruction_letters", "answer_letters")]
        theirs = [f"{mean:,} ± {sd:,}" for mean, sd in published] if published else ["", ""]
        rows.append(
            [
                code,
                facts["samples"],
                ours[0],
                theirs[0],
                ours[1],
                theirs[1],
                percent(facts["news"], facts["samples"]),
                facts["wrong_language"],
            ]
        )
    head = ["language", "samples", "instruction, letters", "published", "answer, letters", "published", "news", "other language"]
    forms = "; ".join(
        f"{code}: {', '.join(f'{count:,} {form}' for form, count in found[code]['forms'].items())}" for code in work.languages
    )
    sides = f"{found['train']:,} records to train on, {found['heldout']:,} held out."
    return f"## The data\n\n{table(head, rows)}\n\n{sides} Forms: {forms}."


def _arms(made: dict[str, Any]) -> str:
    if not {"sft", "eval"} <= made.keys():
        return ""
    found, steps = made["eval"]["found"], made["sft"]["found"]["steps"]
    rows = []
    for arm, loss in found["losses"].items():
        by_language = ", ".join(f"{code} {facts['bits_per_byte']:.3f}" for code, facts in sorted(loss["by_language"].items()))
        rows.append([arm, "loss", by_language or f"{loss['bits_per_byte']:.3f}", "", "", ""])
        for condition, languages in found["answers"].get(arm, {}).items():
            for code, facts in languages.items():
                rows.append([arm, f"{condition} → {code}", "", *(facts[key] for key in ("ended", "own_language", "chrf"))])
    head = ["trained on", "asked in", "bits a byte", "ended", "in its language", "chrF"]
    said = (
        f"Every arm took {steps:,} steps of the same recipe. Measured on {found['pairs']} pairs of the seed that no model has seen."
    )
    return f"## Compared\n\n{said}\n\n{table(head, rows)}"


def _rejected(made: dict[str, Any]) -> str:
    rows = [
        [name, code, reason, count]
        for name in STAGES
        if name in made
        for code, some in sorted(made[name]["rejected"].items())
        for reason, count in sorted(some.items(), key=lambda found: (-found[1], found[0]))
    ]
    return f"## What was not kept\n\n{table(['stage', 'language', 'reason', 'how many'], rows)}" if rows else ""
