"""Tasks are found by name, their rows in files of one's own or on the hub; every suite runs on documents written here."""

import csv
import gzip
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import lm_eval
import pytest
from lm_eval.models.dummy import DummyLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind

from configs.evaluation import CORE, LANGUAGES, SUITES, get_config
from data_gen import UsageError
from data_gen.evaluation import find, local_data
from data_gen.evaluation.find import find_tasks
from data_gen.evaluation.scores import CORPUS_SCORES, SCORES
from data_gen.evaluation.suites import TaskEntry
from data_gen.evaluation.tasks import public_functions
from data_gen.languages import load_pack
from launch.app import check_types, load_recipe

# English, Urdu, a question on it, four answers, and which is right.
FACTS: list[tuple[str, str, str, list[str], int]] = [
    ("The sun rises in the east.", "سورج مشرق سے نکلتا ہے۔", "سورج کہاں سے نکلتا ہے؟", ["مغرب", "مشرق", "شمال", "جنوب"], 1),
    ("Lahore stands on the Ravi.", "لاہور راوی کے کنارے ہے۔", "لاہور کس دریا پر ہے؟", ["راوی", "چناب", "سندھ", "جہلم"], 0),
    ("Ice melts in the heat.", "برف گرمی میں پگھلتی ہے۔", "گرمی میں کیا پگھلتا ہے؟", ["پتھر", "لوہا", "برف", "لکڑی"], 2),
    ("A week has seven days.", "ہفتے میں سات دن ہوتے ہیں۔", "ہفتے میں کتنے دن ہیں؟", ["پانچ", "چھ", "آٹھ", "سات"], 3),
    ("Bees make honey.", "شہد کی مکھیاں شہد بناتی ہیں۔", "شہد کون بناتا ہے؟", ["چیونٹی", "مکھی", "تتلی", "مچھر"], 1),
    ("Fish live in water.", "مچھلیاں پانی میں رہتی ہیں۔", "مچھلی کہاں رہتی ہے؟", ["پانی", "ریت", "درخت", "پہاڑ"], 0),
    ("The moon is at night in the sky.", "چاند رات کو آسمان پر ہوتا ہے۔", "چاند کب دکھتا ہے؟", ["صبح", "دوپہر", "رات", "شام"], 2),
    ("Bread is made of wheat.", "روٹی گندم سے بنتی ہے۔", "روٹی کس سے بنتی ہے؟", ["چاول", "مکئی", "جو", "گندم"], 3),
]
DOMAINS = ("STEM", "Health oriented education", "Arts & Humanities")
CATEGORIES = (
    "biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history", "law", "math",
    "other", "philosophy", "physics", "psychology",
)  # fmt: skip
Rows = list[dict[str, Any]]


def belebele() -> Rows:
    return [
        {"flores_passage": urdu, "question": question, "correct_answer_num": str(right + 1)}
        | {f"mc_answer{place}": answer for place, answer in enumerate(answers, 1)}
        for _, urdu, question, answers, right in FACTS
    ]


def include() -> Rows:
    return [
        {"question": question, "answer": right, "domain": DOMAINS[number % 3]}
        | {f"option_{letter}": answer for letter, answer in zip("abcd", answers, strict=True)}
        for number, (_, _, question, answers, right) in enumerate(FACTS)
    ]


def xnli() -> Rows:
    return [
        {"premise": urdu, "hypothesis": FACTS[number - 1][1], "label": number % 3} for number, (_, urdu, *_) in enumerate(FACTS)
    ]


def piqa() -> Rows:
    return [
        {"prompt": question, "label": right % 2} | {f"solution{place}": answer for place, answer in enumerate(answers)}
        for _, _, question, answers, right in FACTS
    ]


def urdu_mmlu() -> Rows:
    return [
        {
            "id": number, "question": question, "options": dict(zip("ABCD", answers, strict=True)), "correct_key": "ABCD"[right],
            "domain": "STEM", "subdomain": "general_science", "level": "SSC-I",
        }
        for number, (_, _, question, answers, right) in enumerate(FACTS)
    ]  # fmt: skip


def mmlu_prox() -> Rows:
    return [
        {
            "question": question, "answer": "ABCD"[right], "cot_content": f"سوال پر غور کریں۔ جواب ({'ABCD'[right]}) ہے۔",
            "category": category,
        }
        | {f"option_{place}": answers[place] if place < 4 else None for place in range(10)}
        for category, (_, _, question, answers, right) in zip(CATEGORIES, [*FACTS, *FACTS], strict=False)
    ]  # fmt: skip


def sentences() -> Rows:
    return [{"sentence_eng_Latn": english, "sentence_urd_Arab": urdu} for english, urdu, *_ in FACTS]


def mmlu() -> Rows:
    return [{"question": question, "choices": answers, "answer": right} for _, _, question, answers, right in FACTS]


def sums() -> Rows:
    return [{"question": f"What is {n} + 7?", "answer": f"{n} + 7 = {n + 7}\n#### {n + 7}"} for n in range(8)]


def urdu_sums() -> Rows:
    return [{"question": f"{n} میں سات جمع کریں تو کیا بنتا ہے؟", "answer": None, "answer_number": n + 7} for n in range(8)]


def copa() -> Rows:
    return [
        {"premise": urdu, "choice1": answers[0], "choice2": answers[1], "question": "cause", "label": right % 2}
        for _, urdu, _, answers, right in FACTS
    ]


def stories() -> Rows:
    return [
        {f"input_sentence_{place}": FACTS[number - place][1] for place in range(1, 5)}
        | {"sentence_quiz1": answers[0], "sentence_quiz2": answers[1], "answer_right_ending": right % 2 + 1}
        for number, (_, _, _, answers, right) in enumerate(FACTS)
    ]


def prompts() -> Rows:
    return [{"question_en": english, "question": urdu} for english, urdu, *_ in FACTS]


def instructions() -> Rows:
    return [{"instruction": question, "output": urdu} for _, urdu, question, *_ in FACTS]


def pairs() -> Rows:
    return [{"sen": urdu, "wrong_sen": urdu.replace("ہے", "ہیں")} for _, urdu, *_ in FACTS]


def write(place: Path, rows: Rows) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(place)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file for every public set of our suites."""
    root = tmp_path_factory.mktemp("data")
    for label in (*LANGUAGES.values(), "eng_Latn"):
        write(root / f"facebook/belebele/{label}/test.jsonl", belebele())
    write(root / "CohereForAI/include-base-44/Urdu/test.jsonl", include())
    for kind in ("parallel", "nonparallel"):
        write(root / f"mrlbenchmarks/global-piqa-{kind}/urd_arab/test.jsonl", piqa())
    write(root / "MBZUAI/UrduMMLU/default/test.jsonl", urdu_mmlu())
    for split in ("test", "validation"):
        write(root / f"li-lab/MMLU-ProX-Lite/ur/{split}.jsonl", mmlu_prox() * (6 if split == "validation" else 1))
    write(root / "masakhane/ntrex_african/urd_Arab/test.jsonl", sentences())
    write(root / "facebook/flores/eng_Latn-urd_Arab/devtest.jsonl", sentences())
    for subject in [
        path.stem.removeprefix("mmlu_") for path in Path(lm_eval.__path__[0], "tasks/mmlu/default").glob("mmlu_*.yaml")
    ]:
        for split in ("test", "dev"):
            write(root / f"cais/mmlu/{subject}/{split}.jsonl", mmlu())
    for split in ("test", "train"):
        write(root / f"openai/gsm8k/main/{split}.jsonl", sums())
    for code in LANGUAGES:
        write(root / f"facebook/xnli/{code}/validation.jsonl", xnli())
        write(root / f"cambridgeltl/xcopa/{code}/test.jsonl", copa())
        write(root / f"juletxara/xstory_cloze/{code}/eval.jsonl", stories())
        for name in ("vicuna", "wizardlm"):
            write(root / f"{name}/{code}/test.jsonl", prompts())
    write(root / "alpaca_eval_ur.jsonl", instructions())
    write(root / "dolly_ur.jsonl", [row | {"input": row["output"]} for row in instructions()])
    write(root / "large-traversaal/urdu-instruct/default/test.jsonl", [row | {"category": "QA"} for row in instructions()])
    write(root / "large-traversaal/mgsm_urdu_final/default/test.jsonl", urdu_sums())
    write(root / "jumelet/multiblimp/urd/train.jsonl", pairs())
    return str(root)


# --- suites -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_runs_without_network(name: str, data_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two documents of each task, asked of a model that answers at random."""
    monkeypatch.setattr(socket.socket, "connect", None)
    found = find_tasks(SUITES[name].tasks, data_dir=data_dir)
    assert [one.entry for one in found] == list(SUITES[name].tasks) and not any(one.left_out for one in found)
    tasks = {task: made for one in found for task, made in one.tasks.items()}
    for made in tasks.values():
        made.set_fewshot_seed(1)
    result = lm_eval.evaluate(DummyLM(), {"tasks": tasks}, limit=2, bootstrap_iters=0)
    assert result is not None and all(len(result["samples"][task]) >= 1 for task in tasks)


def test_names_of_suites_are_those_of_the_harness_and_ours() -> None:
    names = find._manager(True).task_index
    for suite in SUITES.values():
        for entry in suite.tasks:
            assert entry.task in names, entry.task
            assert set(entry.scores) <= {*SCORES, *CORPUS_SCORES} and entry.group and entry.note
        asked = [(entry.task, entry.chat, entry.num_fewshot) for entry in suite.tasks]
        assert len(asked) == len(set(asked))


def test_a_suite_is_a_recipe() -> None:
    suite = load_recipe("configs/evaluation.py:urdu_core")
    check_types(suite)
    assert (suite.name, suite.tasks, suite.heldout) == ("urdu_core", CORE, False)
    assert get_config() == get_config("") == get_config("urdu_quick") and get_config().heldout
    with pytest.raises(UsageError, match="urdu_quik: there is no such suite; there are urdu_quick, urdu_core"):
        get_config("urdu_quik")


def test_main_metrics_are_those_that_the_tasks_have(data_dir: str) -> None:
    for one in find_tasks(SUITES["urdu_release"].tasks, data_dir=data_dir):
        for task in one.tasks.values():
            assert set(one.entry.main) <= set(task.aggregation()), task.config.task


def test_prompts_in_ten_languages_name_theirs(data_dir: str) -> None:
    """Forty files that differ in a name: none was copied and forgotten."""
    found = find_tasks([e for e in SUITES["x_instruction"].tasks if e.task.startswith(("vicuna", "wizardlm"))], data_dir=data_dir)
    for one in found:
        name, code, form = one.entry.task.split("_")
        (task,) = one.tasks.values()
        assert one.sources[one.entry.task] == f"{data_dir}/{name}/{code}/test.jsonl" and one.entry.language == code
        english, urdu, *_ = FACTS[0]
        asked = task.doc_to_text(task.task_docs[0])
        assert asked == (f"{english} Answer in {load_pack(code).name}." if form == "english" else urdu)
        assert task.config.generation_kwargs["max_gen_toks"] == 2048 and task.config.generation_kwargs["until"] == []
    assert len(found) == 40


def test_own_files_are_tasks_of_their_names_and_hold_no_public_data() -> None:
    """A file that YAML cannot read is left out by the harness without a word. Data that was not written here is fetched."""
    files, index = {path.stem: path for path in find.OWN.rglob("*.yaml")}, find._manager(False).task_index
    assert set(files) == set(index) and len(files) > 50
    for name, path in files.items():
        assert index[name].yaml_path == path
        assert ("custom_dataset" in index[name].cfg) != ("dataset_path" in index[name].cfg)


# --- finding ------------------------------------------------------------------------------------------------------------


def test_an_unknown_task_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(UsageError, match="no task 'urdu_mmlo', .* did you mean urdu_mmlu"):
        find_tasks([TaskEntry(task="urdu_mmlo")])
    with pytest.raises(UsageError, match="did you mean belebele_urd_Arab"):
        find_tasks([TaskEntry(task="belebele_urd_Arap", optional=True)])


def test_our_own_tasks_do_without_the_index_of_the_harness(data_dir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, original = [], find._manager

    def manager(defaults: bool) -> TaskManager:
        made.append(defaults)
        return original(defaults)

    monkeypatch.setattr(find, "_manager", manager)
    assert find_tasks([TaskEntry(task="urdu_mmlu")], data_dir=data_dir)[0].tasks and made == [False]
    assert find_tasks([TaskEntry(task="xnli_ur")], data_dir=data_dir)[0].tasks and made == [False, False, True]


def test_groups_tags_and_tasks_that_come_twice(data_dir: str) -> None:
    index = find._manager(True).task_index
    belebele = TaskEntry(task="belebele_urd_Arab")
    group, both, again = find_tasks([TaskEntry(task="mmlu_prox_lite_ur"), belebele, belebele], data_dir=data_dir)
    assert set(group.tasks) == {f"mmlu_prox_lite_ur_{category.replace(' ', '_')}" for category in CATEGORIES}
    assert list(both.tasks) == list(again.tasks) == ["belebele_urd_Arab"]
    assert both.tasks["belebele_urd_Arab"] is not again.tasks["belebele_urd_Arab"]
    members = dict(find._members("openllm", index, {}))
    assert members["arc_challenge"] == {"fewshot_split": "train", "num_fewshot": 25} and "mmlu_anatomy" in members
    assert set(dict(find._members("multiblimp", index, {}))) == set(index["multiblimp"].tags)
    with pytest.raises(UsageError, match="the group .* describes its task 'anli_r1_prompt-0' in its own file"):
        find_tasks([TaskEntry(task="flan_held_in")], data_dir=data_dir)


def test_groups_hand_down_what_they_say() -> None:
    cfgs: dict[str, dict[str, Any]] = {
        "outer": {"group": "outer", "num_fewshot": 3, "description": "a", "task": ["inner", {"task": "two", "num_fewshot": 1}]},
        "inner": {"group": "inner", "description": "b", "task": [{"group": "deeper", "task": ["one"]}], "metadata": {"version": 1}},
        "one": {"task": "one"},
        "two": {"task": "two"},
    }
    index = {name: SimpleNamespace(kind=Kind.GROUP if "group" in cfg else Kind.TASK, cfg=cfg) for name, cfg in cfgs.items()}
    outer = {"num_fewshot": 3, "description": "a"}
    assert dict(find._members("outer", index, {})) == {"one": outer, "two": outer | {"num_fewshot": 1}}
    assert dict(find._members("inner", index, {})) == {"one": {"description": "b"}}


def test_examples_are_as_many_as_the_entry_says(data_dir: str) -> None:
    def shots(entry: TaskEntry) -> Any:
        return find_tasks([entry], data_dir=data_dir)[0].tasks[entry.task].config.num_fewshot

    assert shots(TaskEntry(task="gsm8k")) == 5 and shots(TaskEntry(task="gsm8k", num_fewshot=2)) == 2
    assert shots(TaskEntry(task="mmlu_anatomy", num_fewshot=5)) == 5 and shots(TaskEntry(task="xnli_ur")) is None


# --- where rows come from -----------------------------------------------------------------------------------------------


def find_one(task: str, data_dir: str, **more: Any) -> Any:
    return find_tasks([TaskEntry(task=task, **more)], data_dir=data_dir)[0].tasks[task]


@pytest.mark.parametrize("suffix", local_data.SUFFIXES)
def test_every_kind_of_file_gives_the_same_documents(suffix: str, tmp_path: Path) -> None:
    rows, place = include(), tmp_path / f"CohereForAI/include-base-44/Urdu/test{suffix}"
    place.parent.mkdir(parents=True)
    if "parquet" in suffix:
        datasets.Dataset.from_list(rows).to_parquet(place)
    else:
        with (gzip.open if suffix.endswith(".gz") else open)(place, "wt", encoding="utf-8", newline="") as file:
            if "csv" in suffix:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            elif "jsonl" in suffix:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            else:
                json.dump(rows, file, indent=1)
    task = find_one("include_base_44_urdu_stem", str(tmp_path))
    assert [dict(row) for row in task.task_docs] == [row for row in rows if row["domain"] == "STEM"]
    assert task.doc_to_target(task.task_docs[0]) == 1


def test_the_long_path_goes_before_the_short_one_and_both_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, name: str | None = None) -> Any:
        asked.append((path, name))
        return datasets.DatasetDict({"test": datasets.Dataset.from_list(belebele()[:1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    entries = [TaskEntry(task="belebele_urd_Arab")]
    (found,) = find_tasks(entries)
    assert (
        len(found.tasks["belebele_urd_Arab"].task_docs) == 1
        and found.sources["belebele_urd_Arab"] == "facebook/belebele on the hub"
    )
    short = write(tmp_path / "belebele_urd_Arab.jsonl", belebele()[:2])
    assert find_tasks(entries, data_dir=str(tmp_path))[0].sources == {"belebele_urd_Arab": short}
    long = write(tmp_path / "facebook/belebele/urd_Arab/test.jsonl", belebele()[:3])
    (found,) = find_tasks(entries, data_dir=f"{tmp_path}/")
    assert found.sources == {"belebele_urd_Arab": long} and len(found.tasks["belebele_urd_Arab"].task_docs) == 3
    assert asked == [("facebook/belebele", "urd_Arab")]


def test_a_set_that_several_tasks_share_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(path: str, name: str | None = None) -> Any:
        asked.append((path, name))
        return datasets.DatasetDict({split: datasets.Dataset.from_list(mmlu_prox()) for split in ("test", "validation")})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (found,) = find_tasks([TaskEntry(task="mmlu_prox_lite_ur")])
    assert len(found.tasks) == 14 and asked == [("li-lab/MMLU-ProX-Lite", "ur")]


def test_splits_that_no_example_comes_from_need_no_file(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k.jsonl", sums())
    assert len(find_one("gsm8k", str(tmp_path), num_fewshot=0).task_docs) == 8
    with pytest.raises(
        UsageError, match=r"gsm8k\.jsonl is there, but not the split train, .*/openai/gsm8k/main/\{test,train\}\.jsonl"
    ):
        find_one("gsm8k", str(tmp_path))
    write(tmp_path / "openai/gsm8k/main/train.jsonl", [{"question": "What is 1 + 1?", "answer": "#### 2"}] * 5)
    task = find_one("gsm8k", str(tmp_path))
    task.set_fewshot_seed(1)
    assert task.fewshot_context(task.task_docs[0], 5).count("What is 1 + 1?") == 5


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "xnli_ur.jsonl", xnli())
    wanted = [
        "xnli_ur",
        "belebele_urd_Arab",
        "belebele_eng_Latn",
        "mmlu_prox_lite_ur",
        "urdu_mmlu",
        "vicuna_ur_english",
        "vicuna_ur_native",
    ]
    columns = {"mmlu_prox_lite_ur": ("question", "category")}
    entries = [*(TaskEntry(task=task, columns=columns.get(task, ())) for task in wanted), TaskEntry(task="gsm8k", num_fewshot=0)]
    with pytest.raises(UsageError) as error:
        find_tasks(entries, data_dir=str(tmp_path))
    told = str(error.value)
    assert "the rows of 20 of 21 tasks" in told and "xnli" not in told
    assert f"{tmp_path}/facebook/belebele/{{urd_Arab,eng_Latn}}/test.jsonl with flores_passage, question, mc_answer1, " in told
    assert f"{tmp_path}/li-lab/MMLU-ProX-Lite/ur/{{test,validation}}.jsonl with question, category, examples in validation" in told
    assert f"{tmp_path}/MBZUAI/UrduMMLU/default/test.jsonl with question, options (a letter's text by letter), correct_key" in told
    assert f"{tmp_path}/vicuna/ur/test.jsonl with question_en, question;" in told
    assert f"{tmp_path}/openai/gsm8k/main/test.jsonl with question, answer" in told
    assert "OFFLINE forbids to ask (facebook/belebele, li-lab/MMLU-ProX-Lite, MBZUAI/UrduMMLU, openai/gsm8k)" in told
    assert "no place on the hub is known that has it (vicuna)" in told


def test_an_optional_task_is_left_out_with_the_reason(tmp_path: Path) -> None:
    quick = [entry for entry in SUITES["urdu_quick"].tasks if entry.task == "multiblimp_urd"]
    (found,) = find_tasks(quick, data_dir=str(tmp_path))
    assert not found.tasks and "multiblimp_urd.jsonl with sen, wrong_sen below --data_dir" in found.left_out["multiblimp_urd"]
    write(tmp_path / "multiblimp_urd.jsonl", pairs())
    assert find_tasks(quick, data_dir=str(tmp_path))[0].tasks


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (datasets.exceptions.DatasetNotFoundError("Dataset 'x' is a gated dataset on the Hub."), "is a gated dataset"),
        (ValueError("BuilderConfig 'urd_Arab' not found."), "BuilderConfig 'urd_Arab' not found"),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), "a script there, which the hub no longer runs"),
        (ConnectionError("Couldn't reach it"), "HF_HUB_OFFLINE or HF_DATASETS_OFFLINE forbids to ask"),
    ],
)  # fmt: skip
def test_what_the_hub_says_no_with(error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, name: str | None = None) -> Any:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UsageError, match=told):
        find_tasks([TaskEntry(task="belebele_urd_Arab")])
    assert told in find_tasks([TaskEntry(task="belebele_urd_Arab", optional=True)])[0].left_out["belebele_urd_Arab"]


def test_other_errors_are_no_missing_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, name: str | None = None) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(RuntimeError, match="out of memory"):
        find_tasks([TaskEntry(task="belebele_urd_Arab", optional=True)])


def test_a_set_of_the_hub_without_the_split_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = datasets.DatasetDict({"train": datasets.Dataset.from_list(instructions())})
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None: rows)
    with pytest.raises(UsageError, match="large-traversaal/urdu-instruct on the hub has the splits train, and not test"):
        find_tasks([TaskEntry(task="urdu_eval")])


def changed(**values: Any) -> Rows:
    return [row | values for row in belebele()]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([*belebele()[:2], {"question": "کیا؟"}], "row 3 has the columns question; expected were .* mc_answer4.* missing"),
        (changed(question=None), "row 1: question is null"),
        (changed(correct_answer_num="5"), "no task belebele_urd_Arab can be made of .* '5' is not in list"),
        ([], "has no rows"),
        ([*changed(id=1), *changed(id="x")], "a column has values of several kinds"),
    ],
)
def test_rows_of_another_form_are_an_error_with_file_and_line(rows: Rows, told: str, tmp_path: Path) -> None:
    file = write(tmp_path / "belebele_urd_Arab.jsonl", rows)
    with pytest.raises(UsageError, match=told) as error:
        find_one("belebele_urd_Arab", str(tmp_path), optional=True)
    assert file in str(error.value)


def test_columns_that_functions_read_and_rows_of_other_tasks(tmp_path: Path) -> None:
    write(tmp_path / "xcopa_id.jsonl", [{"premise": "Hujan turun.", "label": 0}])
    with pytest.raises(UsageError, match="has the columns premise, label; expected were label, premise, choice1"):
        find_one("xcopa_id", str(tmp_path), columns=("premise", "choice1"))
    with pytest.raises(UsageError, match="no task xcopa_id can be made of .*KeyError: 'question'.* columns premise, label"):
        find_one("xcopa_id", str(tmp_path))
    write(tmp_path / "CohereForAI/include-base-44/Urdu/test.jsonl", include()[:1])
    with pytest.raises(UsageError, match="no task include_base_44_urdu_arts_humanities .* rows that belong to this task"):
        find_one("include_base_44_urdu_arts_humanities", str(tmp_path))


def test_a_right_answer_that_is_no_choice_is_an_error(tmp_path: Path) -> None:
    """The harness would count it as wrong, and say nothing."""
    write(tmp_path / "xnli_ur.jsonl", [row | {"label": -1} for row in xnli()])
    with pytest.raises(UsageError, match="the right answer of document 1 is -1, and expected was 0 to 2"):
        find_one("xnli_ur", str(tmp_path))
    write(tmp_path / "xnli_ur.jsonl", [row | {"label": "entailment"} for row in xnli()])
    with pytest.raises(UsageError, match="is 'entailment', and expected was 0 to 2"):
        find_one("xnli_ur", str(tmp_path))


def test_a_data_dir_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none is no directory"):
        find_tasks([TaskEntry(task="urdu_mmlu")], data_dir=f"{tmp_path}/none")


def test_columns_of_templates() -> None:
    """Against the columns that the public sets have, as their authors list them."""
    index = find._manager(True).task_index
    expected = {
        "belebele_urd_Arab": belebele()[0], "xnli_ur": xnli()[0], "global_piqa_parallel_cloze_urd_arab": piqa()[0],
        "multiblimp_urd": pairs()[0], "mmlu_anatomy": mmlu()[0], "gsm8k": sums()[0], "xstorycloze_hi": stories()[0],
        "ntrex_eng_Latn-urd_Arab_prompt_1": sentences()[0], "flores_urd_eng": sentences()[0],
    }  # fmt: skip
    for task, row in expected.items():
        assert set(local_data.template_columns(index[task].cfg)) == set(row), task
    config = {
        "doc_to_text": "{{a}}{% if b is defined %}{{b}}{% endif %}{% for x in c %}{{x}}{% endfor %}",
        "doc_to_target": "label",
    }
    assert local_data.template_columns(config) == ("a", "c", "label")


def test_the_split_that_is_asked_is_the_one_that_the_harness_asks(data_dir: str) -> None:
    for one in find_tasks([*SUITES["urdu_release"].tasks, *SUITES["x_instruction"].tasks[:30]], data_dir=data_dir):
        for task in one.tasks.values():
            config = task.config.to_dict() | {"fewshot_config": None}
            splits = local_data.splits_of(config | {"num_fewshot": None})
            assert splits.asked == (task.config.test_split or task.config.validation_split) and not splits.shots
            assert set(splits.named) <= set(task.dataset)


def test_examples_come_from_where_the_harness_takes_them() -> None:
    both = {"training_split": "train", "validation_split": "dev"}
    expected = local_data.Splits(asked="dev", shots="train", named=("dev", "train"))
    assert local_data.splits_of(both | {"num_fewshot": 2}) == local_data.splits_of(both, 2) == expected
    assert local_data.splits_of(both | {"num_fewshot": 2}, 0).shots == local_data.splits_of(both).shots == ""
    written = {"test_split": "test", "num_fewshot": 2, "fewshot_config": {"samples": [{"question": "؟"}]}}
    assert local_data.splits_of(written) == local_data.Splits(asked="test", shots="", named=("test",))
    assert local_data.splits_of({"test_split": "test", "fewshot_split": "dev"}, 1).shots == "dev"


def test_the_same_rows_have_the_same_fingerprint(data_dir: str) -> None:
    """What was asked before is known again by it."""
    found = [find_one("xnli_ur", data_dir).dataset["validation"]._fingerprint for _ in range(2)]
    assert found[0] == found[1]


# --- rows of public sets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        {"options": {"A": "راوی", "B": "چناب", "C": "سندھ", "D": None}, "correct_key": "B"},
        {"choices": ["راوی", "چناب", "سندھ"], "answer": 1},
        {"choices": ["راوی", "چناب", "سندھ"], "answer": "چناب"},
        {"option_a": "راوی", "option_b": "چناب", "option_c": "سندھ", "answer": "b)"},
        {"A": "راوی", "B": "چناب", "C": "سندھ", "D": "", "answer": "(B)"},
        {"option_0": "راوی", "option_1": "چناب", "option_2": "سندھ", "label": "1"},
    ],
)
def test_spellings_of_a_question_with_choices(written: dict[str, Any]) -> None:
    (row,) = public_functions.process_choices([{"question": " لاہور کے مشرق میں کون سا دریا ہے؟ ", "domain": "STEM"} | written])
    assert row["question"] == "لاہور کے مشرق میں کون سا دریا ہے؟" and row["answer"] == 1 and row["letters"] == ["A", "B", "C"]
    assert row["listed"] == "A. راوی\nB. چناب\nC. سندھ" and row["category"] == "STEM"


def test_numbers_among_the_choices_are_no_index() -> None:
    rows = [{"question": "؟", "choices": ["2", "3", "1", "0"], "answer": answer} for answer in (1, "1", "A", "3")]
    assert [row["answer"] for row in public_functions.process_choices(rows)] == [1, 2, 0, 1]


def test_questions_of_another_form_say_what_came() -> None:
    with pytest.raises(UsageError, match=r"row 1 has the columns text, correct_key and 0 options.*2 to 8"):
        public_functions.process_choices([{"text": "؟", "correct_key": "A"}])
    with pytest.raises(
        UsageError, match=r"row 2 has the columns question, choices; expected was the right answer in a column correct_key"
    ):
        public_functions.process_choices([mmlu()[0], {"question": "؟", "choices": ["a", "b"]}])
    with pytest.raises(UsageError, match="row 1 has the columns options, correct_key; expected was the question"):
        public_functions.process_choices([{"options": ["a", "b"], "correct_key": "A"}])


def test_rows_without_a_right_answer_are_left_out_if_they_are_few() -> None:
    rows = urdu_mmlu() * 50
    assert len(public_functions.process_choices([*rows, rows[0] | {"correct_key": "E"}])) == 400
    with pytest.raises(UsageError, match=r"8 of 408 rows have a right answer that is none of their options \(the first: row 1\)"):
        public_functions.process_choices([*(row | {"correct_key": "E"} for row in urdu_mmlu()), *rows])


def test_instructions_and_sums(data_dir: str) -> None:
    rows: Rows = [
        {"instruction": " لکھیں ", "input": "<noinput>", "output": None},
        {"prompt": "بتائیں", "input": "متن", "response": "جواب"},
    ]
    assert list(public_functions.process_instructions(rows)) == [
        {"instruction": "لکھیں", "input": "", "output": "", "category": ""},
        {"instruction": "بتائیں", "input": "متن", "output": "جواب", "category": ""},
    ]
    sums: Rows = [
        {"question": "؟", "answer": "۱۲ + ۵ = ۱۷ روپے، یعنی ۱،۲۱۷"},
        {"question": "؟", "answer_number": 7, "answer": None},
    ]
    assert [row["number"] for row in public_functions.process_sums(sums)] == ["1217", "7"]
    with pytest.raises(UsageError, match="row 1: the right answer is 'بہت', and expected was a text with a number"):
        public_functions.process_sums([{"question": "؟", "answer": "بہت"}])
    dolly = find_one("dolly_ur", data_dir)
    assert dolly.doc_to_text(dolly.task_docs[0]) == f"{FACTS[0][2]}\n\n{FACTS[0][1]}"
    alpaca = find_one("alpaca_eval_ur", data_dir)
    assert alpaca.doc_to_text(alpaca.task_docs[0]) == FACTS[0][2] and alpaca.doc_to_target(alpaca.task_docs[0]) == FACTS[0][1]


def test_a_score_counts_sums_by_their_number(data_dir: str) -> None:
    from data_gen.evaluation.scores import score_answer

    task = find_one("mgsm_urdu", data_dir)
    target = task.doc_to_target(task.task_docs[3])
    right = [score_answer(["number"], said, target, language="ur")["number"][0] for said in ("جواب: ۱۰", "10۔", "۳ + ۷ = ۱۱")]
    assert target == "10" and right == [1.0, 1.0, 0.0]
