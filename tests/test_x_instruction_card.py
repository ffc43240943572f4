"""The card and report of X-Instruction's data: several languages, each in its direction, its figures beside the published ones."""

import math
import re
import statistics
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from data_gen import charts
from data_gen.card import without_paths
from data_gen.languages import load_pack
from data_gen.limits import Usage
from data_gen.record import Record
from data_gen.survey import Lengths, Verbs, survey, verb_object
from data_gen.text import tokens
from data_gen.x_instruction import instruction_rules
from data_gen.x_instruction.card_words import PARTICLES, REASONS, VERBS
from data_gen.x_instruction.data_card import PUBLISHED, Facts, Funnel, Model, Round, write_card
from tests.test_report import Page

URDU = "لاہور پاکستان کا دوسرا بڑا شہر ہے۔ یہاں کا شاہی قلعہ Lahore Fort بہت مشہور ہے۔"
HINDI = "दिल्ली भारत की राजधानी है। यहाँ का लाल किला बहुत प्रसिद्ध है और Red Fort कहलाता है।"
FINNISH = "Helsinki on Suomen pääkaupunki. Kaupungissa on paljon puistoja ja satama."
ANSWERS = {"ur": URDU, "hi": HINDI, "fi": FINNISH}
ASKED = ("Write a short note about a famous city.", "Describe the old fort.", "Please give me a list of sights.", "Is it far?")


def record(number: int, language: str, task: str, **meta: Any) -> Record:
    name, plain = load_pack(language).name, ASKED[number % len(ASKED)]
    asked = {"english": f"{plain} Answer in {name}.", "native": "شہر کے بارے میں لکھیں۔", "system": plain}[task]
    turns = [{"role": "system", "content": f"Answer in {name}."}] if task == "system" else []
    turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": ANSWERS[language] + " ." * number}]
    known = {
        "id": f"d{number}", "url": f"https://example.org/{number}", "licence": "cc-by-4.0", "source": "crawl",
        "domain": "example.org", "news": number % 4 == 0,
        "scores": {"p_high": 0.7 + number / 100}, "cluster": number, "instruction": plain, "round": 0,
        "side": "heldout" if number % 10 == 9 else "train",
    }  # fmt: skip
    return Record(f"{language}{number}", "x_instruction", task, language, known | meta, messages=tuple(turns))


def made(*languages: str, count: int = 20) -> list[Record]:
    tasks = ["english"] * 8 + ["system", "native"]
    return [
        record(number, language, tasks[number % 10] if language == "ur" or number % 10 < 9 else "english")
        for language in languages or ("ur", "hi")
        for number in range(count)
    ]


def facts(*languages: str, **changes: Any) -> Facts:
    languages = languages or ("ur", "hi")
    known: dict[str, Any] = {
        "packs": tuple(map(load_pack, languages)),
        "models": {
            "generator": Model("generator", "meta-llama/Meta-Llama-3-8B", "configs/x_instruction_generator.py", "Llama 3 licence"),
            "evaluator": Model("/home/somebody/models/evaluator-1"),
        },
        "recipe": {"seed": 3, "documents": ("ur=/home/somebody/ingest_ur", "sample"), "generate": {"samples": 2}},
        "command": "python launch/x_instruction.py --config=configs/x_instruction.py --workdir=/home/somebody/run "
        "--config.documents=ur=/home/somebody/ingest_ur,hi=/home/somebody/ingest_hi",
        "funnel": {code: Funnel(1000, 1900, 300, 40, 20) for code in languages},
        "rounds": (Round(3800, 400, {"macro-F1": 0.861, "AUC, ur": None}), Round(3500, 600, {"macro-F1": 0.902, "AUC, ur": 0.87})),
        "gates": {"macro-F1": "at least 0.85"},
        "rejected": {"generate": {"dangling": 5, "cut_off": 7}, "refine": {"score_low": 900, "of_its_own": 8}},
        "reasons": {"of_its_own": "what nobody else says"},
        "entropies": {code: (0.81, 0.955) for code in languages},
        "checks": {"rater": "at least 0.7", "personal_data": ""},
        "requests": 12,
        "usage": Usage(1000, 2000),
    }
    return Facts(**known | changes)


def written(directory: Path, records: list[Record] | None = None, given: Facts | None = None) -> tuple[str, str]:
    records = made() if records is None else records
    write_card(str(directory), facts() if given is None else given, lambda: records)
    return (directory / "README.md").read_text(encoding="utf-8"), (directory / "report.html").read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str, first: str) -> list[list[str]]:
    """The cells of the tables' rows that begin with `first`."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith(f"| {first}")]


def test_the_head_is_what_the_hub_reads(tmp_path: Path) -> None:
    readme, _ = written(tmp_path, None, facts(licence="cc-by-4.0"))
    head = yaml.safe_load(readme.split("---\n")[1])
    assert huggingface_hub.DatasetCard(readme).data.to_dict()["language"] == ["ur", "hi"] == head["language"]
    assert head["license"] == "cc-by-4.0" and head["language_creators"] == ["found", "machine-generated"]
    assert head["task_categories"] == ["text-generation"]
    assert "x-instruction" in head["tags"] and "self-instruct" not in head["tags"]
    assert head["configs"][0]["data_files"][0] == {"split": "train", "path": "train.jsonl"}


def test_whose_the_answers_are(tmp_path: Path) -> None:
    records = [*made(), record(1, "hi", "english", licence="odc-by"), record(2, "hi", "english", licence=None)]
    readme, html = written(tmp_path, records, facts(licence="apache-2.0"))
    head = yaml.safe_load(readme.split("---\n")[1])
    assert (head["license"], head["license_name"]) == ("other", "see-below")
    terms = section(readme, "Models and licences")
    assert "Licence: that of each page for the answers, listed below, and apache-2.0 for the instructions." in terms
    assert "| cc-by-4.0 | 40 |" in terms and "| none named | 1 |" in terms and "<td>1</td>" in html
    # One licence of the pages is not that of the whole where the instructions have another, or none.
    for licence in ("apache-2.0", ""):
        assert yaml.safe_load(written(tmp_path, made(), facts(licence=licence))[0].split("---\n")[1])["license"] == "other"
    many = [record(number, "ur", "english", licence=f"licence {number:02}") for number in range(25)]
    assert "| 5 others | 5 |" in written(tmp_path, many)[0]


def test_lengths_stand_beside_the_published_ones(tmp_path: Path) -> None:
    records = made()
    readme, html = written(tmp_path, records)
    for code, name in (("ur", "Urdu"), ("hi", "Hindi")):
        own = [one for one in records if one.language == code]
        asked = [len(one.meta["instruction"]) for one in own]
        answered = [len((one.messages or ())[-1]["content"]) for one in own]
        expected = [(statistics.mean(lengths), statistics.pstdev(lengths)) for lengths in (asked, answered)]
        beside = [pair for pairs in zip(expected, PUBLISHED[code], strict=True) for pair in pairs]
        shown = [f"{mean:,.1f} ± {spread:,.1f}" for mean, spread in beside]
        assert [f"{name} ({code})", *shown] in rows(readme, name)
        assert all(f"<td>{cell}</td>" in html for cell in shown)
    assert "1,246.9 ± 508.8" in readme
    odd = record(1, "ur", "english")
    unpublished = Record("sd1", "x_instruction", "english", "sd", odd.meta, messages=odd.messages)
    assert rows(written(tmp_path, [unpublished], facts("sd"))[0], "Sindhi")[0][2] == "-"


def test_the_way_of_the_pairs_is_told(tmp_path: Path) -> None:
    readme, html = written(tmp_path)
    made_of = section(readme, "How it was made")
    assert rows(made_of, "Urdu") == [["Urdu (ur)", "1,000", "1,900", "300", "40", "20"]]
    assert "Of 3,800 candidates 40 (1%) are in the data." in made_of and "12 requests with 1,000 tokens in and 2,000 out" in made_of
    assert ["generator", "writes the English instruction to a text", "generator", "meta-llama/Meta-Llama-3-8B",
            "configs/x_instruction_generator.py", "Llama 3 licence"] in rows(made_of, "generator")  # fmt: skip
    checks = section(readme, "Checks")
    assert "| macro-F1 (at least 0.85) | AUC, ur |" in checks
    assert rows(checks, "1 ") == [["1", "3,500", "600", "17%", "0.902", "0.870"]] and rows(checks, "0 ")[0][-1] == "-"
    assert ["Urdu (ur)", "18", "2", "25%", "0.810", "0.955"] in rows(section(readme, "What is in it"), "Urdu")
    rejected = section(readme, "What was rejected")
    assert [row[:3] for row in rows(rejected, "generate")] == [["generate", "`cut_off`", "7"], ["generate", "`dangling`", "5"]]
    assert "| refine | `score_low` | 900 | the rater finds it less probable" in rejected
    assert "| refine | `of_its_own` | 8 | what nobody else says |" in rejected
    for figure in ("1,900", "0.955", "0.902", "cut off", "rater&#x27;s probability of the best level"):
        assert figure in html


def test_the_words_are_this_recipe_s_own(tmp_path: Path) -> None:
    readme, html = written(tmp_path)
    assert "No person wrote the answers" not in readme and "seed" not in section(readme, "How it was made").split("### ")[0]
    assert "pairs of an imperative and its object" in readme and "distinct pairs of a verb and its object" in html
    limits = section(readme, "Known limits")
    assert "invented for texts" in limits and "not compared with evaluation sets" in limits and "Names of people stay" in limits
    assert "Personal data was not looked for." in written(tmp_path, None, facts(checks={}))[0]
    assert "in Urdu and Hindi. The answers are text that people published on the web" in readme
    assert "not meant to train a model" not in readme
    assert "not meant to train a model" in written(tmp_path, None, facts(tried_out=True))[0]
    assert set(instruction_rules.REASONS) <= REASONS.keys()


def test_samples_are_in_the_direction_of_their_language(tmp_path: Path) -> None:
    readme, html = written(tmp_path, made("ur", "hi", "fi"), facts("ur", "hi", "fi"))
    found = Page(html)
    shown = [(a["dir"], a.get("lang"), text) for a, text in found.of("p") if "dir" in a]
    by_language = {
        code: {(way, lang) for way, lang, text in shown if text.startswith(answer[:10])} for code, answer in ANSWERS.items()
    }
    assert by_language == {"ur": {("rtl", "ur")}, "hi": {("ltr", "hi")}, "fi": {("ltr", "fi")}}
    assert {lang for _, lang, text in shown if text.startswith(("Write", "Describe", "Answer in"))} == {None}
    samples = html.split('<section id="samples">')[1]
    assert re.findall(r"<h3[^>]*>(\w+)</h3>", samples) == ["Urdu", "Hindi", "Finnish"] and samples.count("<article") == 12
    for code in ("ur", "hi", "fi"):
        assert f":lang({code})" in html
    assert '<div class="verbs" lang="en" dir="ltr">' in html
    examples = section(readme, "Examples")
    assert '<p dir="rtl" lang="ur">' in examples and '<p dir="ltr" lang="hi">' in examples and '<p dir="ltr"><b>' in examples


def test_foreign_words_are_set_apart_in_scripts_that_are_not_arabic() -> None:
    hindi, finnish = load_pack("hi"), load_pack("fi")
    found = Page(f"<div>{charts.prose('यह Python और Java में है।', hindi)}</div>")
    assert [(a["lang"], text) for a, text in found.of("bdi")] == [("en", "Python"), ("en", "Java")]
    assert charts.prose(FINNISH, finnish) == f'<p dir="ltr" lang="fi">{FINNISH}</p>'
    assert charts.prose("Write.", finnish, english=True) == '<p dir="ltr">Write.</p>'


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "</p></div><b>اردو", "[a](javascript:b)|`c"]
)
def test_everything_is_escaped(tmp_path: Path, text: str) -> None:
    one = record(1, "ur", "english", licence=text, domain=text, instruction=f"Write {text}", scores={text: 1.0})
    turns = ({"role": "user", "content": f"Write {text}"}, {"role": "assistant", "content": f"{URDU} {text}"})
    one = Record(text, "x_instruction", "english", "ur", one.meta, messages=turns)
    given = facts(
        models={"generator": Model(text, terms=text)}, name=text, command=f"python '{text}'", licence=text, reviewed=text,
        rejected={text: {text: 1}}, reasons={text: text}, checks={text: text}, gates={text: text},
        rounds=(Round(1, 1, {text: 0.5}),),
    )  # fmt: skip
    readme, html = written(tmp_path, [one], given)
    found = Page(html)
    assert not {tag for tag, _, _ in found.elements} & {"script", "img"}
    assert all("onerror" not in attributes for _, attributes, _ in found.elements) and "<b>اردو" not in html
    licences = section(readme, "Models and licences").split("### ")[1]
    assert "<script" not in licences and "<img" not in licences and "[a](" not in licences.replace("\\[a\\](", "")


def test_nothing_of_the_machine_gets_in(tmp_path: Path) -> None:
    readme, html = written(tmp_path)
    assert "home" not in readme + html and "somebody" not in html and str(tmp_path) not in readme + html
    assert "--workdir=run --config.documents=ur=ingest_ur,hi=ingest_hi" in readme and '"ur=ingest_ur"' in readme
    assert without_paths({"a": "/x/a,b/c.json", "b": ["https://h/v1?x=1,2", "~/d/e/"], "c": 3}) == {
        "a": "c.json", "b": ["https://h/v1?x=1,2", "e"], "c": 3,
    }  # fmt: skip


# --- counting


def test_an_english_verb_comes_first() -> None:
    forms: Verbs = {(verb,): verb for verb in VERBS} | {("come", "up"): "come up"}
    for text, pair in {
        "Write a short story about rain.": ("write", "story"),
        "Please give me a list of sights.": ("give", "list"),
        "Can you explain how it works?": ("explain", "how"),
        "Explain.": ("explain", ""),
        "How do I write a letter?": None,
    }.items():
        assert verb_object([word for word in tokens(text) if word not in PARTICLES], forms, verb_first=True) == pair
    assert verb_object(["come", "up", "names"], forms, verb_first=True) == ("come up", "names")


def test_verbs_are_those_of_the_plain_english_instruction() -> None:
    found = survey(made(), VERBS, particles=PARTICLES, verb_first=True)
    assert found.pairs == {("write", "note"): 10, ("describe", "fort"): 10, ("give", "list"): 10} and found.verbless == 10
    assert {code: seen.news for code, seen in found.by_language.items()} == {"ur": 5, "hi": 5}


def test_lengths_are_added_up() -> None:
    lengths, values = Lengths(), [1, 3, 3, 10, 2500]
    assert (lengths.mean(), lengths.deviation()) == (0, 0)
    for value in values:
        lengths.add(value)
    assert math.isclose(lengths.mean(), statistics.mean(values)) and math.isclose(lengths.deviation(), statistics.pstdev(values))
