"""One model through tasks: the numbers of a model whose likelihoods and answers are known, what is kept, what is left out."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask

from data_gen import UsageError
from data_gen.evaluation.find import Found
from data_gen.evaluation.heldout import heldout_tasks
from data_gen.evaluation.results import HIGHER, LOWER, ModelResult, read_documents, read_result
from data_gen.evaluation.run import evaluate_model, scores_of
from data_gen.evaluation.statistics import interval
from data_gen.evaluation.suites import TaskEntry

ACCURACY = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]


class Rule(LM):
    """A nat a letter; a choice with "صحیح" in it costs nothing. It answers "جواب: " and the prompt's last word."""

    tokenizer_name = ""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.ended: dict[str, bool] = {}
        self.truncated = 0

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        self.asked += ["loglikelihood"] * len(requests)
        self.truncated += 1
        return [(0.0 if "صحیح" in request.args[1] else -float(len(request.args[1])), False) for request in requests]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        self.asked += ["rolling"] * len(requests)
        return [-float(len(request.args[0])) for request in requests]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        self.asked += ["generate"] * len(requests)
        self.ended |= {request.args[0]: len(request.args[0]) < 30 for request in requests}
        return [f"جواب: {request.args[0].split()[-1]}" for request in requests]

    def chat_template(self, chat_template: Any = False) -> str:
        return ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return "چیٹ " + chat_history[-1]["content"]


def task(name: str, rows: list[dict[str, Any]], **config: Any) -> ConfigurableTask:
    splits = {"test": datasets.Dataset.from_list(rows)}
    fields = {"task": name, "custom_dataset": lambda **_: splits, "test_split": "test", "num_fewshot": 0, **config}
    return ConfigurableTask(config=fields)


def choices(name: str = "options", rows: list[dict[str, Any]] | None = None) -> ConfigurableTask:
    rows = rows or [
        {"question": "ایک", "options": ["صحیح ہے", "غلط"], "label": 0, "category": "الف"},
        {"question": "دو", "options": ["غلط", "بہت غلط ہے"], "label": 0, "category": "ب"},
        {"question": "تین", "options": ["صحیح", "غلط"], "label": 1, "category": "ب"},
    ]
    return task(name, rows, output_type="multiple_choice", doc_to_text="{{question}}", doc_to_target="label",
                doc_to_choice="options", metric_list=ACCURACY)  # fmt: skip


def texts() -> ConfigurableTask:
    return task("texts", [{"text": "کتاب"}, {"text": "abc d"}], output_type="loglikelihood_rolling", doc_to_text="",
                doc_to_target="{{text}}", metric_list=[{"metric": "bits_per_byte"}])  # fmt: skip


def prompts() -> ConfigurableTask:
    long = {"prompt": "ایک بہت لمبا سوال جو ختم نہیں ہوتا کبھی", "answer": "نہیں"}
    rows = [{"prompt": "دو جمع دو کتنے ہوتے ہیں ۴", "answer": "جواب: 4"}, long]
    return task("prompts", rows, output_type="generate_until", doc_to_text="{{prompt}}", doc_to_target="{{answer}}",
                generation_kwargs={"until": [], "max_gen_toks": 16}, metric_list=[{"metric": "bypass"}])  # fmt: skip


def found(one: ConfigurableTask, **entry: Any) -> Found:
    name = str(one.config.task)
    return Found(TaskEntry(task=name, **entry), {name: one}, {})


def evaluate(output: Path, tasks: list[Found], model: Rule | None = None, **changes: Any) -> ModelResult:
    settings: dict[str, Any] = {"name": "one", "kind": "run", "about": {}, "identity": "1", "output": str(output), "say": print}
    return evaluate_model(lambda: model or Rule(), tasks, **settings | changes)


def test_scores_are_those_of_the_rule(tmp_path: Path) -> None:
    tasks = [found(choices(), note="گرامر", group="G"), found(texts()), found(prompts(), scores=("exact", "stop", "repetition"))]
    result = evaluate(tmp_path, tasks)
    rows = {score.key: score for score in result.scores}
    assert rows["options", "acc"].value == pytest.approx(2 / 3)
    assert (rows["options", "acc"].better, rows["options", "acc"].group, rows["options", "acc"].note) == (HIGHER, "G", "گرامر")
    assert rows["texts", "bits_per_byte"].value == pytest.approx((4 + 5) / math.log(2) / (8 + 5))
    assert rows["texts", "bits_per_byte"].better == LOWER
    assert rows["prompts", "exact"].value == 0.5
    assert rows["prompts", "stop"].value == 0.5
    documents = {(one.task, one.id): one for one in read_documents(str(tmp_path), "one")}
    assert [documents["options", number].answer for number in range(3)] == ["صحیح ہے", "غلط", "صحیح"]
    assert documents["options", 2].target == "غلط" and documents["options", 2].category == "ب"
    assert documents["prompts", 0].asked == "دو جمع دو کتنے ہوتے ہیں ۴" and documents["prompts", 0].ended
    assert not documents["prompts", 1].ended
    accuracy = [documents["options", number].values["acc"] for number in range(3)]
    assert (rows["options", "acc"].value, rows["options", "acc"].low, rows["options", "acc"].high) == interval(accuracy)
    assert read_result(str(tmp_path), "one") == result
    assert result.truncated == {"options": 1}


def test_what_was_asked_is_not_asked_again(tmp_path: Path) -> None:
    tasks, model = [found(choices()), found(texts())], Rule()
    first = evaluate(tmp_path, tasks, model)
    asked = len(model.asked)
    again = evaluate(tmp_path, tasks, model)
    assert len(model.asked) == asked and again.scores == first.scores

    def never() -> LM:
        raise AssertionError("loaded though all is known")

    evaluate_model(never, tasks, name="one", kind="run", about={}, identity="1", output=str(tmp_path), say=print)
    other_limit = evaluate(tmp_path, tasks, model, limit=1)
    assert [score.documents for score in other_limit.scores] == [1, 1]
    evaluate(tmp_path, tasks, model, limit=1, identity="2")
    assert model.asked.count("rolling") == 2 + 1 + 1
    changed = [found(choices(rows=[{"question": "ایک", "options": ["صحیح", "غلط"], "label": 1, "category": ""}]))]
    assert evaluate(tmp_path, changed, model, limit=1, identity="2").scores[0].value == 0


def test_a_task_that_fails_is_left_out_and_the_others_are_kept(tmp_path: Path) -> None:
    good = {"question": "ایک", "options": ["صحیح", "غلط"], "label": 0, "category": ""}
    empty = choices("empty", [good, good | {"options": ["", "غلط"]}])
    tasks = [found(empty), found(choices(), chat="both")]

    class Plain(Rule):
        def apply_chat_template(self, chat_history: Any, add_generation_prompt: bool = True) -> str:
            raise UsageError("a chat template is asked for and the tokenizer has none")

    result = evaluate(tmp_path, tasks, Plain())
    assert [score.task for score in result.scores] == ["options"]
    assert result.left_out["empty"].startswith("empty, document 1: an empty choice")
    assert result.left_out["options, chat"] == "a chat template is asked for and the tokenizer has none"

    class Broken(Rule):
        def loglikelihood(self, requests: Any) -> Any:
            raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        evaluate(tmp_path, tasks, Broken(), identity="2")


def test_both_with_and_without_the_template(tmp_path: Path) -> None:
    evaluate(tmp_path, [found(choices(), chat="both")])
    prompts = {one.task: one.prompt for one in read_documents(str(tmp_path), "one")}
    assert prompts == {"options": "تین", "options, chat": "چیٹ تین"}


def test_an_address_runs_what_it_can(tmp_path: Path) -> None:
    class Address(Rule):
        kinds = ("generate_until",)

    result = evaluate(tmp_path, [found(choices()), found(prompts(), scores=("stop",))], Address())
    assert {score.task for score in result.scores} == {"prompts"}
    assert "needs loglikelihood" in result.left_out["options"]


def test_held_out_records(tmp_path: Path) -> None:
    rows = [
        {"language": "ur", "text": "کتاب"}, {"language": "ur", "system": "", "prompt": "سلام", "answer": "وعلیکم"},
        {"language": "ur", "system": "", "prompt": "سلام", "answer": "جی"},
    ]  # fmt: skip
    model = Rule()
    result = evaluate(tmp_path, heldout_tasks(rows, "of DIR"), model)
    assert model.apart and model.language == "Urdu"
    assert result.scores[1].note == "answers to held-out questions of DIR"
    values = {score.key: score.value for score in result.scores}
    assert values["heldout_text", "bits_per_byte"] == pytest.approx(4 / math.log(2) / 8)
    assert values["heldout_answers", "bits_per_byte"] == pytest.approx(8 / math.log(2) / 16)
    assert [one.prompt for one in read_documents(str(tmp_path), "one")][1:] == ["چیٹ سلام"] * 2
    assert heldout_tasks([]) == []
    two = heldout_tasks([*rows, {"language": "en", "system": "Be kind.", "prompt": "Hello", "answer": "Hi"}])
    assert [(one.entry.task, one.entry.language) for one in two] == [
        ("heldout_answers_en", "en"), ("heldout_text_ur", "ur"), ("heldout_answers_ur", "ur"),
    ]  # fmt: skip
    shown: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rule, "apply_chat_template", lambda self, history, add_generation_prompt=True: shown.append(history) or "x")  # type: ignore[func-returns-value]
        evaluate(tmp_path, two[:1], identity="2")
    assert [(one["role"], one["content"].strip()) for one in shown[0]] == [("system", "Be kind."), ("user", "Hello")]


def test_requests_that_failed_are_left_out_and_asked_again(tmp_path: Path) -> None:
    class Failing(Rule):
        def __init__(self, failed: set[str]) -> None:
            super().__init__()
            self.unanswered, self.failed = set[str](), failed

        def generate_until(self, requests: list[Instance]) -> list[str]:
            self.unanswered |= {request.args[0] for request in requests if request.args[0] in self.failed}
            return super().generate_until(requests)

    long = "ایک بہت لمبا سوال جو ختم نہیں ہوتا کبھی"
    result = evaluate(tmp_path, [found(prompts(), scores=("stop",))], Failing({long}))
    assert [(score.value, score.documents) for score in result.scores] == [(1.0, 1)]
    assert result.left_out["prompts"].startswith("1 documents: their requests failed for good")
    again = evaluate(tmp_path, [found(prompts(), scores=("stop",))], Failing(set()))
    assert [(score.value, score.documents) for score in again.scores] == [(0.5, 2)] and not again.left_out


def test_asked_again_after_an_update_and_after_another_form(tmp_path: Path) -> None:
    model = Rule()
    evaluate(tmp_path, [found(texts())], model, versions={"lm_eval": "1"})
    evaluate(tmp_path, [found(texts())], model, versions={"lm_eval": "2"})
    assert model.asked.count("rolling") == 4
    (part,) = (tmp_path / "models" / "one.parts").glob("*.json")
    part.write_text('{"digest": "x"}', encoding="utf-8")
    evaluate(tmp_path, [found(texts())], model, versions={"lm_eval": "2"})
    assert model.asked.count("rolling") == 6


def test_scores_of_a_model_at_hand_keep_nothing(tmp_path: Path) -> None:
    rows = scores_of(Rule(), [found(choices()), found(prompts(), scores=("stop",))], limit=2)
    assert [(row.task, row.metric, row.documents) for row in rows] == [("options", "acc", 2), ("prompts", "stop", 2)]
    assert not list(tmp_path.iterdir())


def test_a_groups_tasks_are_one_row(tmp_path: Path) -> None:
    one, other = choices("a"), choices("b", [{"question": "ایک", "options": ["صحیح", "غلط"], "label": 1, "category": ""}])
    result = evaluate(tmp_path, [Found(TaskEntry(task="both"), {"a": one, "b": other}, {})])
    (score,) = result.scores
    assert (score.task, score.value, score.documents) == ("both", 0.5, 4)
    assert [document.id for document in read_documents(str(tmp_path), "one")] == [0, 1, 2, 3]


def test_costs(tmp_path: Path) -> None:
    result = evaluate(tmp_path, [found(choices())], price_per_hour=3600.0)
    assert result.costs["dollars"] == pytest.approx(result.costs["seconds"], abs=0.1)
    assert dataclasses.replace(result, began="") == dataclasses.replace(read_result(str(tmp_path), "one"), began="")  # type: ignore[type-var]
