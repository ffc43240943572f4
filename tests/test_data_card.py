"""A dataset's card: its head as the hub's libraries read it, its counts against the records, its words against the code."""

import json
import math
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml

from data_gen import UsageError, acceptance, checks, filters, judging
from data_gen.card import write_card, write_jsonl
from data_gen.card_facts import OFFLINE, CardInputs, checks_on
from data_gen.card_words import CHECKS, REASONS
from data_gen.config import ChecksConfig, SelfInstructConfig
from data_gen.languages import load_pack
from data_gen.limits import Usage
from data_gen.offline import grammar as offline_grammar
from data_gen.record import Item, Record, item_messages, record_id
from data_gen.survey import SAMPLES, binned, quantile, survey, verb_object
from data_gen.text import tokens

TASKS = ("generation", "reasoning", "translation", "sentiment")
TERMS = "https://example.com/terms_of_use: its output may train models (see <https://example.com/more>)."


def made(count: int = 10) -> list[Record]:
    """`count` records of each of TASKS, every fifth held out, and two conversations in Roman Urdu."""
    rng, records = random.Random(3), []
    for task in TASKS:
        for number in range(count):
            item = offline_grammar.make_item(task, rng)
            language = "ur" if re.search(r"[\u0600-\u06ff]", item.output) else "en"
            messages = item_messages(Item(task, item.instruction, item.input, item.output, language))
            meta = {"side": "heldout" if number % 5 == 4 else "train", "rouge": rng.random() * 0.7, "scores": {"quality": 4}}
            records.append(Record(record_id(messages), "self_instruct", task, language, meta, messages=messages))
    said = ("Lahore mein kya dekhna chahiye?", "Shahi Qila dekhein.", "Aur kya?", "Badshahi Masjid.")
    turns = tuple({"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said))
    return [
        *records,
        *(Record(f"roman{k}", "self_instruct", "roman", "ur-Latn", {"side": "train"}, messages=turns) for k in (1, 2)),
    ]


def inputs(records: list[Record], **changes: Any) -> CardInputs:
    accepted: dict[str, Counter[str]] = {}
    for record in records:
        accepted.setdefault(record.task, Counter())[record.meta.get("side", "train")] += 1
    known: dict[str, Any] = {
        "name": "urdu_instruct",
        "pack": load_pack("ur"),
        "teacher": "some-teacher",
        "teacher_terms": TERMS,
        "licence": "cc-by-4.0",
        "recipe": {
            "seed": 7,
            "rouge_threshold": 0.7,
            "decontaminate": ("/home/somebody/secret/test.jsonl",),
            "teacher": {"base_url": "https://api.example.com/v1", "model": "some-teacher"},
        },
        "accepted": accepted,
        "rejected": {"similar": 9, "quality_low": 5, "target_reached": 100},
        "prompts": {task: f"{number:016x}" for number, task in enumerate(TASKS)},
        "requests": 12,
        "usage": Usage(1000, 2000),
        "cost": 0.25,
        "command": "python launch/self_instruct.py --config=configs/urdu_instruct.py --workdir=DIR",
        "checks": {"rouge": "at most 0.7", "quality": "at least 3 of 5"},
    }
    return CardInputs(**known | changes)


def written(directory: Path, records: list[Record] | None = None, **changes: Any) -> str:
    records = made() if records is None else records
    write_card(str(directory), inputs(records, **changes), lambda: records)
    return (directory / "README.md").read_text(encoding="utf-8")


def head_of(text: str) -> dict[str, Any]:
    head: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return head


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_head_is_what_the_hub_reads(tmp_path: Path) -> None:
    text = written(tmp_path)
    card = huggingface_hub.DatasetCard(text).data.to_dict()
    assert card["language"] == ["ur", "en"] and sorted(card["language_bcp47"]) == ["en", "ur", "ur-Latn"]
    assert card["license"] == "cc-by-4.0" and card["size_categories"] == ["n<1K"]
    assert card["task_categories"] == ["text-generation", "translation", "text-classification"]
    files = [{"split": "train", "path": "train.jsonl"}, {"split": "heldout", "path": "heldout.jsonl"}]
    assert card["configs"] == [{"config_name": "default", "data_files": files}]
    assert {"synthetic", "instruction-tuning"} <= set(card["tags"])


@pytest.mark.parametrize(
    "licence, head, said",
    [
        ("odc-by", {"license": "odc-by"}, "Licence: odc-by."),
        ("", {"license": "unknown"}, "Licence: none was given: ask who published it before you use it."),
        (
            "free for research, see https://example.com/l.",
            {"license": "other", "license_name": "see-below", "license_link": "https://example.com/l"},
            "Licence: free for research, see <https://example.com/l>.",
        ),
    ],
)
def test_licences(tmp_path: Path, licence: str, head: dict[str, str], said: str) -> None:
    text = written(tmp_path, licence=licence)
    assert {key: value for key, value in head_of(text).items() if key.startswith("license")} == head
    assert said in section(text, "Teacher and licence")


def test_counts_are_those_of_the_records(tmp_path: Path) -> None:
    text = written(tmp_path)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in section(text, "What is in it").splitlines() if "|" in line
    ]
    found = {row[0].strip("`"): (int(row[1]), int(row[2])) for row in rows[2:]}
    assert found == {**{task: (8, 2) for task in TASKS}, "roman": (2, 0), "in all": (34, 8)}
    english = sum(record.language == "en" for record in made())
    assert f"Urdu (`ur`) {40 - english}, English (`en`) {english}, Roman Urdu (`ur-Latn`) 2. 2 are conversations" in text
    assert "12 requests with 1,000 tokens in and 2,000 out gave 56 candidates, of which 42 (75%) were kept. It cost $0.25." in text
    rejects = section(text, "What was rejected")
    assert f"| `similar` | 9 | {REASONS['similar']} |" in rejects and rejects.index("target_reached") < rejects.index("similar`")
    assert "| `sentiment` | `0000000000000003` |" in text
    assert f"| quality | {CHECKS['quality']} | at least 3 of 5 |" in text and "Not on: filters, label" in text


def test_nothing_of_the_machine_gets_in(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "somebody" not in text + (tmp_path / "report.html").read_text() and "test.jsonl" in text
    shown = json.loads(text.split("```json\n")[1].split("```")[0])
    assert shown["decontaminate"] == ["test.jsonl"] and shown["teacher"]["base_url"] == "https://api.example.com/v1"


def test_terms_cost_and_limits(tmp_path: Path) -> None:
    text = written(tmp_path)
    said = "Its terms: <https://example.com/terms_of_use>: its output may train models (see <https://example.com/more>). They hold"
    assert said in text and "judged by the teacher itself" in text and "not compared with evaluation sets" in text
    assert "What it cost is not known" in written(tmp_path, cost=None)
    assert "judged by other-model." in written(tmp_path, recipe={"checks": {"model": "other-model"}})
    assert "in 1 min 15 s gave" in written(tmp_path, wall_s=75.0)
    assert "Two readers found" in section(written(tmp_path, reviewed="Two readers found 3 of 200 wrong."), "Checks")
    offline = written(tmp_path, recipe={"teacher": {"base_url": OFFLINE}}, cost=None)
    assert "by grammars and word lists, not by a language model" in offline and "not meant to train a model" in offline
    assert "It cost nothing." in offline and "so no provider's terms hold" in offline and TERMS not in offline


def test_every_reason_of_the_code_has_a_meaning() -> None:
    given = {*filters.REASONS, *checks.REASONS, *judging.REASONS, *acceptance.REASONS}
    assert given == REASONS.keys()
    assert all(meaning and meaning[-1] != "." and "|" not in meaning for meaning in REASONS.values())


def test_the_checks_of_a_recipe() -> None:
    every = {"label", "arithmetic", "choice", "majority", "back_translation", "ethics", "quality"}
    few = checks_on(SelfInstructConfig(), every)
    assert few.keys() == CHECKS.keys() - {"language_id", "contamination", "majority", "back_translation", "ethics", "quality"}
    assert few["rouge"] == "F1 at most 0.7" and "label" not in checks_on(SelfInstructConfig(), ())
    asked = ChecksConfig(majority_samples=5, min_chrf=35, ethics=True, min_quality=3)
    all_on = checks_on(SelfInstructConfig(checks=asked, language_id=True, decontaminate=("a", "b")), every)
    assert all_on.keys() == CHECKS.keys()
    assert (all_on["majority"], all_on["back_translation"]) == ("more than half of 5 solutions", "chrF at least 35")


def test_markup_in_the_data_stays_text(tmp_path: Path) -> None:
    messages = ({"role": "user", "content": "</p><script>alert(1)</script>"}, {"role": "assistant", "content": "a|b\n\n# x"})
    text = written(tmp_path, [Record("x", "s", "generation", "ur", {"side": "train"}, messages=messages)])
    assert "<script" not in text and "&lt;script&gt;" in text and "a|b<br># x" in text


# --- the files of the viewer


def test_jsonl_has_every_record_on_its_side(tmp_path: Path) -> None:
    records = made()
    (tmp_path / "heldout.jsonl").write_text("of an earlier run")
    assert write_jsonl(str(tmp_path), iter(records)) == {"train": 34, "heldout": 8}
    lines = [json.loads(line) for side in ("train", "heldout") for line in (tmp_path / f"{side}.jsonl").read_text().splitlines()]
    assert {line["id"]: (line["messages"], json.loads(line["meta"])) for line in lines} == {
        record.id: (list(record.messages or ()), record.meta) for record in records
    }
    assert write_jsonl(str(tmp_path), [record for record in records if record.meta["side"] == "train"]) == {"train": 34}
    assert not (tmp_path / "heldout.jsonl").exists()
    with pytest.raises(UsageError, match="cannot be written"):
        write_jsonl(str(tmp_path / "nowhere"), records)
    with pytest.raises(UsageError, match="cannot be written"):
        written(tmp_path / "nowhere")


def test_the_datasets_library_reads_card_and_files(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    records = [*made(), Record("doc", "wikipedia", "document", "ur", {"title": "لاہور"}, text="لاہور ایک شہر ہے۔")]
    write_card(str(tmp_path), inputs(records[:-1]), lambda: records)
    write_jsonl(str(tmp_path), records)
    data = datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 35, "heldout": 8}
    assert data["heldout"][0]["messages"] == list(next(r for r in records if r.meta["side"] == "heldout").messages or ())
    assert (data["train"][-1]["text"], data["train"][0]["text"]) == ("لاہور ایک شہر ہے۔", None)


# --- counting


def test_verb_and_object() -> None:
    forms = {tuple(tokens(verb)): verb for verb in ("لکھیں", "دیں", "لکھ دیں")}
    for text, pair in {
        "بارش پر ایک کہانی لکھیں۔": ("لکھیں", "کہانی"),
        "جواب دیں۔ پھر ایک خط لکھ دیں۔": ("لکھ دیں", "خط"),
        "لکھیں": ("لکھیں", ""),
        "جواب دیں: کیا ہوا؟": ("دیں", "جواب"),
        "یہ کیا ہے؟": None,
    }.items():
        assert verb_object(tokens(text), forms) == pair


def test_particles_are_no_objects() -> None:
    said = ({"role": "user", "content": "بارش پر کہانی بھی لکھیں۔"}, {"role": "assistant", "content": "بارش ہوئی۔"})
    records = [Record("a", "self_instruct", "generation", "ur", {}, messages=said)]
    assert list(survey(records, ("لکھیں",)).pairs) == [("لکھیں", "بھی")]
    assert list(survey(records, ("لکھیں",), particles=("بھی",)).pairs) == [("لکھیں", "کہانی")]


def test_a_survey_does_not_depend_on_the_order_and_keeps_a_few_records() -> None:
    records = made(40)
    shuffled = random.Random(1).sample(records, len(records))
    one, other = survey(records, ("لکھیں",), 5), survey(shuffled, ("لکھیں",), 5)
    drawn = {task: [record.id for record in found.samples()] for task, found in one.tasks.items()}
    assert drawn == {task: [record.id for record in other.tasks[task].samples()] for task in drawn}
    assert all(len(ids) == SAMPLES for task, ids in drawn.items() if task != "roman")
    assert drawn != {task: [r.id for r in found.samples()] for task, found in survey(records, ("لکھیں",), 6).tasks.items()}
    twice = survey([*records, *records], ("لکھیں",), 5)
    assert drawn == {task: [record.id for record in found.samples()] for task, found in twice.tasks.items()}
    assert one.pairs == other.pairs and one.verbless + one.pairs.total() == len(records)
    assert one.rouge.total() == 160 and one.turns == Counter({1: 160, 2: 2})


def test_quantiles_and_bins() -> None:
    rng = random.Random(0)
    for _ in range(50):
        values = [int(rng.lognormvariate(3, 1)) for _ in range(rng.randint(1, 400))]
        counts = Counter(values)
        for share in (0.5, 0.9, 0.99):
            assert quantile(counts, share) == sorted(values)[math.ceil(share * len(values)) - 1]
        bins = binned(counts)
        assert len(bins) <= 30 and sum(count for _, _, count in bins) == len(values)
        assert [count for low, high, count in bins[:-1]] == [sum(low <= v < high for v in values) for low, high, _ in bins[:-1]]
    assert binned(Counter()) == [] and quantile(Counter(), 0.5) == 0
