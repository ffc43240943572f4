"""X-Instruction from seed to comparison, with models made of rules (tests/toy_models.py) behind the real protocol."""

import csv
import dataclasses
import functools
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alif_jax.data.tfrecord import read_manifest, read_records
from configs import x_instruction as recipes
from data_gen import UsageError
from data_gen.endpoint import TeacherConfig
from data_gen.languages import load_pack
from data_gen.limits import BudgetReached
from data_gen.record import Record
from data_gen.tfrecord import write_shards
from data_gen.x_instruction import anchor, output
from data_gen.x_instruction.config import GatesConfig, XInstructionConfig
from data_gen.x_instruction.inputs import anchor_rows
from data_gen.x_instruction.rating import LEVELS
from data_gen.x_instruction.run import run
from data_gen.x_instruction.stage import digest_of
from data_gen.x_instruction.work import STAGES, NotGood
from tests.toy_models import Toy, answer, served, translation

TERMS = "https://example.com/terms training other models is allowed"


class Show:
    """What a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def update(self, snapshot: Callable[[], Any]) -> None:
        snapshot()


@functools.cache
def few(kind: str, many: int) -> str:
    """A file of the first shipped pairs of both languages."""
    folder = Path(__file__).parents[1] / "data_gen/x_instruction/shipped" / kind
    path = Path(tempfile.mkdtemp(prefix="alif-test-pairs-")) / f"{kind}.jsonl"
    lines = [line for code in ("ur", "hi") for line in (folder / f"{code}.jsonl").read_text(encoding="utf-8").splitlines()[:many]]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def small() -> XInstructionConfig:
    """The tiny recipe with the gates that rules pass, over 30 pairs and 40 documents a language."""
    config = recipes.tiny()
    config.seeds.input, config.refine.anchor = (few("seed", 30),), (few("anchor", 18),)
    config.seeds.min_heldout = 3
    config.generate.documents = 40
    config.diversify.clusters, config.diversify.target = 4, 16
    config.rate.max_keep, config.rate.min_keep, config.rate.floor, config.rate.keep = 0.95, 0.05, 10, 0.35
    config.gates = GatesConfig(cosine=0.0, length_correlation=0.5)
    return config


def start(config: XInstructionConfig, workdir: Path, toy: Toy | None = None, **more: Any) -> list[str]:
    show = Show()
    run(config, str(workdir), children=toy or Toy(), show=show, **more)
    return show.said


def outcome(workdir: Path) -> dict[str, bytes]:
    """All that a run made and that does not tell the time: rows, shards, cards, the comparison."""
    rows = {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(workdir.glob("*/*.jsonl.gz"))}
    shards = {path.name: path.read_bytes() for path in sorted((workdir / "data").iterdir()) if path.is_file()}
    return rows | shards


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Toy]:
    """A whole run."""
    workdir, toy = tmp_path_factory.mktemp("xi"), Toy()
    run(small(), str(workdir), children=toy, show=Show(), command=f"python launch/x_instruction.py --workdir={workdir}")
    return workdir, toy


def manifest(workdir: Path, stage: str) -> dict[str, Any]:
    return dict(json.loads((workdir / stage / "manifest.json").read_text()))


def rows(workdir: Path, stage: str, code: str = "ur") -> list[dict[str, Any]]:
    with gzip.open(workdir / stage / f"{code}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def copy(made: tuple[Path, Toy], to: Path) -> Path:
    shutil.copytree(made[0], to)
    return to


# --- the whole run ------------------------------------------------------------------------------------------------------


def test_every_stage_leaves_a_manifest_and_the_data_are_shards(made: tuple[Path, Toy]) -> None:
    workdir, _ = made
    assert [name for name in STAGES if (workdir / name / "manifest.json").exists()] == list(STAGES)
    records = [record for side in ("train", "heldout") for record in read_records(str(workdir / "data"), side)]
    assert {record.language for record in records} == {"ur", "hi"} and len(records) == 32
    assert read_manifest(str(workdir / "data"))["counts"]["train"]["source"].keys() == {"x_instruction"}


def test_the_id_of_a_document_never_changes(made: tuple[Path, Toy]) -> None:
    workdir, _ = made
    with gzip.open(workdir / "documents/ur/documents/00000.jsonl.gz", "rt", encoding="utf-8") as file:
        documents = {row["id"]: row["text"] for row in map(json.loads, file)}
    final = {record.id: record for side in ("train", "heldout") for record in read_records(str(workdir / "data"), side)}
    for row in rows(workdir, "diversify"):
        messages = final[row["id"]].messages
        assert messages and documents[row["id"]].startswith(messages[-1]["content"])


def test_answers_are_the_texts_and_the_language_is_said_once(made: tuple[Path, Toy]) -> None:
    for record in read_records(str(made[0] / "data"), "train"):
        assert record.messages
        whole = " ".join(message["content"] for message in record.messages)
        assert whole.count("Answer in ") <= 1
        if record.task == "system":
            assert record.messages[0]["role"] == "system" and whole.count("Answer in ") == 1


@pytest.mark.slow  # the killed run below ends the same too
def test_a_second_run_gives_the_same_bytes(made: tuple[Path, Toy], tmp_path: Path) -> None:
    run(small(), str(tmp_path), children=Toy(), show=Show(), command="python launch/x_instruction.py --workdir=elsewhere")
    one, other = outcome(made[0]), outcome(tmp_path)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name] and name not in ("README.md", "report.html")] == []


def test_a_finished_run_asks_and_trains_nothing(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, toy = copy(made, tmp_path / "again"), Toy()
    assert start(small(), workdir, toy) == [f"{name}: done before" for name in STAGES]
    assert not toy.asked and not toy.started


def test_the_report_tells_stages_gates_rounds_and_arms(made: tuple[Path, Toy]) -> None:
    text = (made[0] / "report.md").read_text()
    for said in (
        "| refine |",
        "macro-F1, ur",
        "AUC ur",
        "entropy before",
        "1,246.9 ± 508.8",
        "english → hi",
        "gate cosine is set to 0",
    ):
        assert said in text


def test_held_out_pairs_are_on_no_training_side(made: tuple[Path, Toy]) -> None:
    workdir, _ = made
    held = {row["response"] for row in rows(workdir, "seed") if row["side"] == "heldout"}
    assert held
    for directory in (workdir / "models").glob("*/data"):
        for record in read_records(str(directory), "train"):
            assert record.messages
            said = " ".join(message["content"] for message in record.messages)
            assert not any(text in said for text in held), directory.parent.name


def test_children_run_one_after_the_other(made: tuple[Path, Toy]) -> None:
    _, toy = made
    trained = [what.split("-")[0] for what in toy.started if what.startswith("train")]
    assert trained == [
        "train generator", "train forward", "train evaluator", "train generator", "train evaluator", "train sft"
    ]  # fmt: skip


# --- killed and resumed -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As a kill: nothing may catch it."""


# In hundredths of all answers and children of a run.
MOMENTS = [0, 6, 20, 30, 40, 52, 65, 80, 93, 99]


@pytest.mark.parametrize("moment", [moment if moment == 80 else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS])
def test_broken_off_anywhere_and_resumed_it_ends_the_same(made: tuple[Path, Toy], tmp_path: Path, moment: int) -> None:
    """The process is killed in earnest (SIGKILL), and the same command goes on."""
    done = moment * (sum(made[1].asked.values()) + len(made[1].started)) // 100
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "xi"), str(done)], cwd=Path(__file__).parents[1])
    assert killed.returncode == -9
    assert not (tmp_path / "xi/eval/manifest.json").exists()
    toy = Toy()
    run(small(), str(tmp_path / "xi"), children=toy, show=Show(), command="python launch/x_instruction.py --workdir=elsewhere")
    one, other = outcome(made[0]), outcome(tmp_path / "xi")
    assert [name for name in one if one[name] != other.get(name) and name not in ("README.md", "report.html")] == []
    assert one.keys() == other.keys()
    assert sum(toy.asked.values()) <= sum(made[1].asked.values()) - (
        moment - 12 - 64
    )  # answers that are there are not asked for again


KILLED = """
import os, signal, sys
from tests.test_x_instruction import Show, small
from tests.toy_models import Toy
from data_gen.x_instruction.run import run
from data_gen.x_instruction.stage import digest_of

left = int(sys.argv[2])

def kill(what):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)

run(small(), sys.argv[1], children=Toy(fail=kill), show=Show())
"""


def test_a_request_that_failed_for_good_is_asked_again(tmp_path: Path) -> None:
    broken = {"left": 1000}

    def fail(what: str) -> None:
        if what == "ask generator" and broken["left"] > 0:
            broken["left"] -= 1
            raise PermissionError("not now")

    with pytest.raises(UsageError, match=r"failed|HTTP 400"):
        start(small(), tmp_path, Toy(fail=fail))
    broken["left"] = 0
    start(small(), tmp_path, Toy(fail=fail), last="generate")
    assert manifest(tmp_path, "generate")["found"]["ur"]["candidates"] > 60


# --- inputs that changed ------------------------------------------------------------------------------------------------


def test_a_changed_setting_is_refused_and_names_the_stage(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config = copy(made, tmp_path / "changed"), small()
    config.generate.temperature = 0.5
    with pytest.raises(
        UsageError,
        match=r"train_generator was made of something else: generate.temperature was 0.7 and is 0.5.*--from=train_generator",
    ):
        start(config, workdir)
    with pytest.raises(UsageError, match=r"generate.temperature.*--from=train_generator"):
        start(config, workdir, first="refine")


def test_made_again_it_trains_only_what_is_another(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config, toy = copy(made, tmp_path / "again"), small(), Toy()
    config.rate.keep = 0.9
    with pytest.raises(UsageError, match=r"stage refine was made of something else: rate.keep was 0.35 and is 0.9"):
        start(config, workdir, toy)
    start(config, workdir, toy, first="refine")
    assert [what for what in toy.started if what.startswith("train")][-1].startswith("train sft")
    assert not toy.asked["forward"]


def test_the_same_stage_made_again_asks_nothing(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, toy = copy(made, tmp_path / "again"), Toy()
    before = outcome(workdir)
    said = start(small(), workdir, toy, first="generate", last="generate")
    assert said[0] == "generate …" and not toy.asked and outcome(workdir) == before


def test_a_damaged_file_is_refused(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir = copy(made, tmp_path / "damaged")
    with gzip.open(workdir / "generate/ur.jsonl.gz", "wt") as file:
        file.write("{}\n")
    with pytest.raises(UsageError, match=r"generate/ur.jsonl.gz is not what stage generate wrote.*--from=generate"):
        start(small(), workdir, first="refine")
    start(small(), workdir, first="generate")
    assert outcome(workdir).keys() == outcome(made[0]).keys()


def test_documents_that_came_since_are_told(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config = tmp_path / "xi", small()
    shutil.copytree(made[0] / "documents", tmp_path / "web")
    config.documents = (f"ur={tmp_path}/web/ur", f"hi={tmp_path}/web/hi")
    start(config, workdir, last="generate")
    with gzip.open(tmp_path / "web/ur/documents/00001.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(rows_of_documents(tmp_path)[0] | {"id": "0" * 16}, ensure_ascii=False) + "\n")
    with pytest.raises(UsageError, match="documents of ur was"):
        start(config, workdir)


def rows_of_documents(tmp_path: Path) -> list[dict[str, Any]]:
    with gzip.open(tmp_path / "web/ur/documents/00000.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [("refine", "", "stage seed, which comes before, is not finished"), ("sft", "seed", "--from=sft comes after --to=seed")],
)
def test_stages_that_cannot_run(tmp_path: Path, first: str, last: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        start(small(), tmp_path, first=first, last=last)


def test_evaluation_files_that_say_something_else_are_told(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config, path = copy(made, tmp_path / "xi"), small(), tmp_path / "test.txt"
    path.write_text("یہ ایک امتحان کا سوال ہے جو کسی صفحے میں نہیں آتا اور نہ آئے گا۔")
    config.output.decontaminate = (str(path),)
    start(config, workdir, first="audit", last="audit")
    kept = rows(workdir, "audit")
    path.write_text(kept[0]["response"])
    output.evaluation_digest.cache_clear()
    with pytest.raises(UsageError, match="output.decontaminate was"):
        start(config, workdir, last="audit")
    start(config, workdir, first="audit", last="audit")
    assert kept[0]["id"] not in {row["id"] for row in rows(workdir, "audit")}


def test_a_round_asks_a_teacher_something_new(tmp_path: Path) -> None:
    config, toy = small(), Toy()
    config.generator.by = "teacher"

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        text = body["messages"][0]["content"].rsplit("Text: ", 1)[1].removesuffix("\nInstruction:")
        return toy._reply("generator", body | {"messages": [{"content": text}]}, {})

    with served(reply) as url:
        config.teacher = teacher(url)
        start(config, tmp_path, toy, last="refine")
    assert not any("train generator" in what or "serve generator" in what for what in toy.started)
    assert {row["gen"]["model"] for row in rows(tmp_path, "refine")} == {f"teacher-{digest_of(url)}"}
    first = {one["instruction"] for row in rows(tmp_path, "generate") for one in row["candidates"]}
    later = {row["instruction"] for row in rows(tmp_path, "refine") if row["rating"]["round"] == 1}
    assert later and not later & first


def another_rater() -> XInstructionConfig:
    """Of another recipe, so that the answers of the whole run's raters are not taken for its."""
    config = small()
    config.evaluator.recipe += ",quick"
    return config


# --- bad raters, starved languages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("passes", "said"), [(1.0, "passes 100%"), pytest.param(0.0, "passes 0%", marks=pytest.mark.slow)])
def test_a_rater_that_passes_everything_or_nothing(made: tuple[Path, Toy], tmp_path: Path, passes: float, said: str) -> None:
    workdir = copy(made, tmp_path / "xi")
    with pytest.raises(NotGood, match=said):
        start(another_rater(), workdir, Toy(passes=passes), first="train_evaluator")
    assert manifest(workdir, "train_evaluator") and not (workdir / "refine/manifest.json").exists()


def test_a_rater_that_knows_nothing_is_not_used(made: tuple[Path, Toy], tmp_path: Path) -> None:
    said = r"evaluator is not good enough.*macro-F1 0.1667 \(gate: at least 0.85\).*--config.gates.NAME"
    with pytest.raises(NotGood, match=said):
        start(another_rater(), copy(made, tmp_path / "xi"), Toy(wrong="A"), first="train_evaluator")


def test_a_starved_language_is_told_and_its_threshold_stays(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config = copy(made, tmp_path / "starved"), small()
    config.rate.floor = 1000
    said = start(config, workdir, first="refine", last="refine")
    assert any("ur: " in line and "fewer than rate.floor=1,000: the language starves" in line for line in said)
    assert "the language starves" in (workdir / "report.md").read_text()
    assert min(row["rating"]["scores"][2] for row in rows(workdir, "refine")) >= config.rate.keep


def test_without_logprobs_votes_are_counted_and_said(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config = copy(made, tmp_path / "xi"), another_rater()
    config.rate.votes = 3
    said = start(config, workdir, Toy(logprobs=False), first="train_evaluator", last="train_evaluator")
    assert any("gives no logprobs" in line for line in said)
    assert manifest(workdir, "train_evaluator")["found"]["gates"]["probabilities"] == "votes"
    assert "shares of 3 votes" in (workdir / "report.md").read_text()


def test_fewer_documents_than_clusters(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config = copy(made, tmp_path / "few"), small()
    config.diversify.clusters = 500
    with pytest.raises(UsageError, match="generate.documents is 40 and diversify.clusters 500"):
        start(config, workdir, first="diversify")
    config.diversify.clusters, config.rate.keep = 39, 0.9  # fewer are kept
    with pytest.raises(UsageError, match=r"fewer than the 39 clusters.*--config.diversify.clusters=N"):
        start(config, workdir, first="refine")


def test_a_round_that_falls_behind_the_anchor_is_not_kept(made: tuple[Path, Toy], tmp_path: Path) -> None:
    class Worse(Toy):
        """The second evaluator takes the anchor's best for the worst in one case of three."""

        def _rating(self, asked: str, known: Any, body: Any) -> dict[str, Any]:
            second = sum(what.startswith("train evaluator") for what in self.started) == 2
            anchor = known.get(asked) == LEVELS[2] and hash_of(asked) % 3 == 0
            return super()._rating(asked, {**known, asked: "C"} if second and anchor else known, body)

    workdir, config = copy(made, tmp_path / "xi"), another_rater()
    config.refine.max_fall, config.gates.macro_f1, config.gates.macro_f1_language = 0.02, 0.5, 0.4
    config.gates.calibration = config.gates.length_correlation = 1.0
    start(config, workdir, Worse(), first="train_evaluator", last="refine")
    found = manifest(workdir, "refine")["found"]
    assert "round 1 is not kept: the AUC against the anchor fell" in found["stopped"] and found["rounds"][1]["used"] is False
    assert {row["rating"]["rater"] for row in rows(workdir, "refine")} == {
        manifest(workdir, "train_evaluator")["found"]["evaluator"]
    }
    assert {row["id"] for row in rows(workdir, "refine")} == {
        row["id"] for row in rows(workdir, "refine") if row["rating"]["round"] == 0
    }


def hash_of(text: str) -> int:
    return sum(text.encode())


# --- an anchor of the run's own -----------------------------------------------------------------------------------------


def test_an_anchor_rated_by_a_teacher_keeps_its_documents_out(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config, output_file = copy(made, tmp_path / "xi"), small(), str(tmp_path / "anchor.jsonl")

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        return Toy(passes=0.5)._rating(body["messages"][-1]["content"], {}, body)

    with served(reply) as url:
        config.teacher = teacher(url)
        said = anchor.by_teacher(config, str(workdir), output_file, 9, children=Toy(), show=Show(), max_cost=None)
    lines = [json.loads(line) for line in Path(output_file).read_text().splitlines()]
    assert said.startswith("18 pairs in") and {line["rating"] for line in lines} == {0, 2}
    config, toy = small(), Toy()
    config.refine.anchor = (output_file,)
    with pytest.raises(UsageError, match="stage generate was made of something else: refine.anchor"):
        start(config, workdir, toy)
    start(config, workdir, toy, first="generate", last="generate")
    assert not toy.asked["generator"] or toy.asked["generator"] <= 2 * 18  # only documents that take the place of those drawn
    left = {row["response"] for code in ("ur", "hi") for row in rows(workdir, "generate", code)}
    assert not left & {line["response"] for line in lines}


def test_an_anchor_rated_by_people(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, sheet, output_file = copy(made, tmp_path / "xi"), tmp_path / "sheet.csv", tmp_path / "anchor.jsonl"
    anchor.write_sheet(small(), str(workdir), str(sheet), 6, children=Toy(), show=Show())
    with pytest.raises(UsageError, match="is there already and may be filled in"):
        anchor.write_sheet(small(), str(workdir), str(sheet), 6, children=Toy(), show=Show())
    with open(sheet, encoding="utf-8-sig", newline="") as file:
        head, *lines = csv.reader(file)
    filled = [[*line[:-1], str(number % 3)] for number, line in enumerate(lines)]
    with open(sheet, "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([head, *filled])
    anchor.read_sheet(str(sheet), str(output_file))
    config = small()
    config.refine.anchor = (str(output_file),)
    found = anchor_rows(config, config.languages, {code: load_pack(code) for code in config.languages})
    assert [row["rating"] for row in found] == [number % 3 for number in range(12)]
    by_response = {row["response"]: row for code in ("ur", "hi") for row in rows(workdir, "generate", code)}
    right = [row["instruction"] in [one["instruction"] for one in by_response[row["response"]]["candidates"]] for row in found]
    assert right == [False, True, True] * 4  # the third of three has another document's instruction
    with open(sheet, "a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(["#1", "ur", "Explain.", "متن", "good"])
    with pytest.raises(UsageError, match=r"sheet.csv:14: .*'good'.*expected 0, 1 or 2"):
        anchor.read_sheet(str(sheet), str(output_file))


def test_without_an_anchor_a_run_goes_as_far_as_generate(tmp_path: Path) -> None:
    config = small()
    config.refine.anchor = ()
    with pytest.raises(UsageError, match="refine.anchor is empty.*launch/rate_anchor.py"):
        start(config, tmp_path)
    start(config, tmp_path, last="generate")
    assert len(rows(tmp_path, "generate")) == 40


# --- inputs that are checked before anything is done --------------------------------------------------------------------


def bad_anchor(tmp_path: Path) -> XInstructionConfig:
    config = small()
    path = tmp_path / "anchor.jsonl"
    line = {"instruction": "Explain rain.", "response": "بارش بادلوں سے ہوتی ہے۔", "language": "ur", "rating": 5}
    path.write_text(json.dumps(line, ensure_ascii=False))
    config.refine.anchor = (str(path),)
    return config


def no_documents(tmp_path: Path) -> XInstructionConfig:
    return dataclasses.replace(small(), documents=(f"ur={tmp_path}/nowhere", f"hi={tmp_path}/nowhere"))


def wrong_documents(tmp_path: Path) -> XInstructionConfig:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/manifest.json").write_text('{"language": "hin_Deva"}')
    return dataclasses.replace(small(), documents=(f"ur={tmp_path}/web", f"hi={tmp_path}/web"))


def no_arm(tmp_path: Path) -> XInstructionConfig:
    config = small()
    config.sft.translated = str(tmp_path / "nowhere")
    return config


def teacher_missing(tmp_path: Path) -> XInstructionConfig:
    config = small()
    config.output.native_share = 0.5
    return config


def trained_on_anchor(tmp_path: Path) -> XInstructionConfig:
    config = small()
    folder = Path(__file__).parents[1] / "data_gen/x_instruction/shipped"
    lines = [json.loads(line) | {"rating": 2} for line in (folder / "seed/ur.jsonl").read_text().splitlines()]
    path = tmp_path / "anchor.jsonl"
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    config.refine.anchor = ("sample", str(path))
    return config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (bad_anchor, "rating 5 of 'Explain rain.'; it must be 0, 1 or 2"),
        (no_documents, "has no manifest.json, so no ingest ended there"),
        (wrong_documents, "is an ingest of hin_Deva, and ur wants urd_Arab"),
        (no_arm, "is no directory of finished shards"),
        (teacher_missing, "output.native_share: a real teacher is needed"),
        (trained_on_anchor, "have 13 words running in common in 30 answers"),
    ],
)
def test_what_a_later_stage_would_stop_for_is_found_first(
    tmp_path: Path, change: Callable[[Path], XInstructionConfig], said: str
) -> None:
    toy = Toy()
    with pytest.raises(UsageError, match=said):
        start(change(tmp_path), tmp_path / "xi", toy)
    assert not toy.started and not toy.asked


def test_a_directory_of_another_recipe_is_refused(tmp_path: Path) -> None:
    from data_gen.journal import open_journal
    from data_gen.limits import Usage

    with open_journal(str(tmp_path)) as journal:
        journal.keep_config({"language": "ur"}, {})
        request = journal.plan(0, "{}", {}, "e")
        journal.answered(journal.sent(request, Usage(), None), "{}", Usage(), None)
    with pytest.raises(UsageError, match="begun by another recipe"):
        start(small(), tmp_path)


# --- a teacher instead of trained models, and what it costs ------------------------------------------------------------


def teacher(url: str, price: float | None = None) -> TeacherConfig:
    return TeacherConfig(base_url=url, model="teacher", terms=TERMS, input_price=price, output_price=price, max_attempts=1)


def test_the_budget_is_one_for_all_stages(tmp_path: Path) -> None:
    config, counted = small(), []

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        counted.append(body)
        text = body["messages"][0]["content"].rsplit("Text: ", 1)[-1]
        made = Toy()._reply("generator", body | {"messages": [{"content": text}]}, {})
        return made | {"usage": {"prompt_tokens": 3000, "completion_tokens": 100}}

    config.generator.by = "teacher"
    with served(reply) as url:
        config.teacher = teacher(url, price=1.0)
        with pytest.raises(BudgetReached):
            start(config, tmp_path, max_cost=0.1)
        first = len(counted)
        start(config, tmp_path, max_cost=100.0, last="generate")
    assert 0 < first < len(counted)
    bodies = [json.dumps(body, sort_keys=True) for body in counted]
    assert len(bodies) == len(set(bodies))  # nothing is bought twice


def test_native_instructions_are_translated_and_a_bad_one_goes(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config = copy(made, tmp_path / "native"), small()
    config.output.native_share, config.output.system_share = 1.0, 0.0
    config.output.language_id = False

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        asked = body["messages"][-1]["content"]
        said = "سادہ الفاظ میں بتائیں کہ یہ چیزیں ہماری زندگی میں کیوں اہم ہیں اور ان سے ہمیں کیا فائدہ ہوتا ہے۔"
        hindi = "सरल शब्दों में बताइए कि ये चीज़ें हमारे जीवन में क्यों ज़रूरी हैं और इनसे हमें क्या लाभ होता है।"
        if sum(asked.encode()) % 4 == 0:
            return answer("No.")
        return answer(said if "into Urdu" in asked else hindi)

    with served(reply) as url:
        config.teacher = teacher(url)
        start(config, workdir, first="audit", last="audit")
    made_rows = rows(workdir, "audit")
    assert made_rows and {row["form"] for row in made_rows} == {"native"}
    assert all(row["asked"].startswith("سادہ") for row in made_rows)
    assert manifest(workdir, "audit")["rejected"]["ur"]["wrong_script"] > 0


def test_seeds_in_english_are_translated_there_and_back(tmp_path: Path) -> None:
    config = small()
    folder = Path(__file__).parents[1] / "data_gen/x_instruction/shipped/seed/ur.jsonl"
    lines = [json.loads(line) for line in folder.read_text().splitlines()]
    path = tmp_path / "seed.jsonl"
    # A teacher of rules cannot translate: the text stays Urdu, and comes back as it was.
    path.write_text("\n".join(json.dumps(line | {"language": "en"}, ensure_ascii=False) for line in lines))
    config.seeds.input = (str(path),)
    with served(translation) as url:
        config.teacher = teacher(url)
        start(config, tmp_path / "xi", last="seed", languages=("ur",))
    kept = rows(tmp_path / "xi", "seed")
    assert len(kept) >= 50 and all(row["response"].startswith("یہ بات اردو میں") for row in kept)


# --- the comparison -----------------------------------------------------------------------------------------------------


def test_arms_take_the_same_steps(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config, toy = copy(made, tmp_path / "arms"), small(), Toy()
    messages = ({"role": "user", "content": "بارش کیا ہے؟"}, {"role": "assistant", "content": "بادلوں سے گرتا پانی۔"})
    for name, many in (("translated", 50), ("distilled", 5)):
        records = [Record(f"{name}{n:03d}", name, name, "ur", {}, messages=messages) for n in range(many)]
        write_shards(str(tmp_path / name), {"train": records, "heldout": []}, config={}, shard_records=100)
        setattr(config.sft, name, str(tmp_path / name))
    config.sft.single = True
    start(config, workdir, toy, first="sft")
    found = manifest(workdir, "sft")["found"]
    assert found["models"].keys() == {"x_instruction", "translated", "distilled", "x_instruction ur", "x_instruction hi"}
    steps = {
        name: json.loads((workdir / "models" / trained / "run/metrics.jsonl").read_text())["step"]
        for name, trained in found["models"].items()
    }
    assert [steps[name] for name in ("x_instruction", "translated", "distilled")] == [5, 5, 5] == [found["steps"]] * 3
    assert steps["x_instruction ur"] == steps["x_instruction hi"] == 2  # half of the records, seen as often
    table = (workdir / "report.md").read_text()
    assert "| translated | english → ur |" in table and "| x_instruction hi | english → hi |" in table
    assert "| x_instruction hi | english → ur |" not in table


def test_an_arm_that_has_the_held_out_pairs_is_refused(made: tuple[Path, Toy], tmp_path: Path) -> None:
    workdir, config = copy(made, tmp_path / "arms"), small()
    [held, *_] = [row for row in rows(workdir, "seed") if row["side"] == "heldout"]
    messages = ({"role": "user", "content": "بتائیں"}, {"role": "assistant", "content": held["response"]})
    records = [Record("one", "other", "other", "ur", {}, messages=messages)]
    write_shards(str(tmp_path / "other"), {"train": records, "heldout": []}, config={}, shard_records=100)
    config.sft.translated = str(tmp_path / "other")
    with pytest.raises(NotGood, match="1 of its answers share 13 words with held-out pairs"):
        start(config, workdir, first="sft")


def test_some_of_the_languages(tmp_path: Path) -> None:
    start(small(), tmp_path, languages=("hi",), last="refine")
    assert not (tmp_path / "seed/ur.jsonl.gz").exists() and rows(tmp_path, "refine", "hi")
    with pytest.raises(UsageError, match="'sw' is none of the config's languages, ur, hi"):
        start(small(), tmp_path, languages=("sw",))


def test_no_address_of_this_machine_is_in_the_data(made: tuple[Path, Toy]) -> None:
    for path in (made[0] / "data").iterdir():
        assert os.fsencode(str(made[0])) not in path.read_bytes(), path.name
