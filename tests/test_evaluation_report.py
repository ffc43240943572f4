"""The report of an evaluation: who is called better or worse than the base, the same figures in both files, text as data has it."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError, charts
from data_gen.evaluation import report_page
from data_gen.evaluation.report import write_report
from data_gen.evaluation.report_facts import clipped
from data_gen.evaluation.report_rows import drawn
from data_gen.evaluation.results import HIGHER, LOWER, NEITHER, Document, ModelResult, Score, read_result, write_result
from data_gen.evaluation.scores import corpus_scores
from data_gen.evaluation.statistics import interval
from tests.test_report import Page, luminance

EVIL = '<script>alert("1")</script> | `x` **b** <img src=x onerror=y>'


def choices(task: str, right: list[int], metric: str = "acc", **fields: Any) -> list[Document]:
    """Of a task with choices: 1 right, 0 wrong."""
    return [
        Document(task=task, id=number, prompt="", answer="", target=f"t{number}", values={metric: (float(one), 1.0)}, **fields)
        for number, one in enumerate(right)
    ]


def written(task: str, answers: list[str], asked: str = "سوال", target: str = "", **fields: Any) -> list[Document]:
    """Of a task whose answers the model writes."""
    return [
        Document(task=task, id=number, prompt="", asked=f"{asked} {number}", answer=one, target=target, **fields)
        for number, one in enumerate(answers)
    ]


def result(name: str, documents: list[Document], better: dict[str, int] | None = None, **fields: Any) -> tuple[Any, list[Document]]:
    """With the scores that the documents give, and others that are given as `more`."""
    scores = list(fields.pop("more", ()))
    for task, metric in dict.fromkeys((one.task, metric) for one in documents for metric in one.values):
        pairs = [one.values[metric] for one in documents if one.task == task and metric in one.values]
        value, low, high = interval(pairs)
        direction = (better or {}).get(metric, HIGHER)
        scores.append(Score(task=task, metric=metric, value=value, low=low, high=high, documents=len(pairs), better=direction))
    kinds = {"kind": "run", "about": {"path": f"runs/{name}"}}
    return ModelResult(name=name, scores=tuple(scores), **kinds | fields), documents


def report(place: Path, *models: tuple[Any, list[Document]], base: str | None = "base", **given: Any) -> tuple[str, str]:
    """report.html and report.md."""
    for one, documents in models:
        write_result(str(place), one, documents)
    write_report(str(place), [one for one, _ in models], base=base, **given)
    return (place / "report.html").read_text(encoding="utf-8"), (place / "report.md").read_text(encoding="utf-8")


def cells(markdown: str, row: str) -> list[str]:
    """Of the first row of a table that begins so."""
    line = next(line for line in markdown.splitlines() if line.startswith(f"| {row}"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def columns(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def table(html: str) -> list[list[str]]:
    """The cells of the large table, as HTML."""
    body = html.split('<table class="results">')[1].split("</table>")[0]
    return [re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)[1:]]


# --- better and worse


def test_what_got_worse_is_red_and_named_first(tmp_path: Path) -> None:
    base = choices("easy", [1] * 60 + [0] * 40) + choices("hard", [0] * 80 + [1] * 20) + choices("same", [1, 0] * 50)
    tuned = choices("easy", [1] * 30 + [0] * 70) + choices("hard", [1] * 50 + [0] * 50) + choices("same", [1, 0] * 50)
    html, markdown = report(tmp_path, result("tuned", tuned), result("base", base))
    assert "of 3 tests 1 is worse, 1 better, 1 unclear." in html and "of 3 tests 1 is worse, 1 better, 1 unclear." in markdown
    rows = {row[0].split("<")[0]: row for row in table(html)}
    # Columns: the base comes first, although it was given second.
    assert [cell.split(" ")[0] for cell in rows["easy"][1:3]] == ["60.0%", "30.0%"]
    assert re.search(r'<span class="worse">▼ −30\.0 <small class="within">\(−\d+\.\d to −\d+\.\d\)', rows["easy"][2])
    assert '<span class="better">▲ +30.0 ' in rows["hard"][2] and '<span class="unclear">~ 0.0 ' in rows["same"][2]
    assert not any(re.search("worse|better|unclear", row[1]) for row in rows.values())
    opening = html.split("<h2>")[0]
    assert opening.index("▼ Worse (1)") < opening.index("easy acc: −30.0") < opening.index("▲ Better (1)")
    assert '<details open><summary><span class="worse">' in opening and opening.count("<details open>") == 1
    assert markdown.index("**Worse**: easy acc: −30.0") < markdown.index("Better: hard acc: +30.0")
    assert re.search(r"<br>\*\*▼ −30\.0 \([^)]*\)\*\*$", cells(markdown, "easy")[3])
    assert "<br>▲ +30.0 " in cells(markdown, "hard")[3] and "**" not in cells(markdown, "hard")[3]


def test_where_lower_is_better_more_is_worse(tmp_path: Path) -> None:
    def bits(each: float) -> list[Document]:
        return [
            Document(task="held", id=number, prompt="", answer="", values={"bits_per_byte": (each * size, float(size))})
            for number, size in enumerate(range(500, 520))
        ]

    lower = {"bits_per_byte": LOWER}
    html, markdown = report(tmp_path, result("base", bits(0.8), lower), result("tuned", bits(0.91), lower))
    row = table(html)[0]
    assert row[0] == "held<small>bits_per_byte (lower is better)</small>"
    assert row[1].startswith("0.800 ") and row[2].startswith("0.910 ")  # no shares, though between 0 and 1
    assert '<span class="worse">▼ +0.110 ' in row[2]
    assert "1 is worse, 0 better" in markdown


def test_unclear_is_not_called_better(tmp_path: Path) -> None:
    base, tuned = choices("task", [1, 0] * 20), choices("task", [1, 0] * 19 + [1, 1])
    html, markdown = report(tmp_path, result("base", base), result("tuned", tuned))
    assert table(html)[0][2].startswith("52.5%") and '<span class="unclear">~ +2.5 ' in table(html)[0][2]
    assert "0 are worse, 0 better, 1 unclear" in html and "▲ Better" not in html and "Better:" not in markdown


def test_neither_way_better_is_not_judged(tmp_path: Path) -> None:
    neither = {"refusal": NEITHER}
    base, tuned = choices("task", [0] * 40, "refusal"), choices("task", [1] * 40, "refusal")
    html, _ = report(tmp_path, result("base", base, neither), result("tuned", tuned, neither))
    assert '<span class="">+100.0 ' in table(html)[0][2] and "of 0 tests" in html and "cannot be compared" not in html
    assert "refused (neither way is better)" in table(html)[0][0]


def test_few_documents_decide_nothing(tmp_path: Path) -> None:
    base, tuned = choices("five", [0] * 5) + choices("six", [0] * 6), choices("five", [1] * 5) + choices("six", [1] * 6)
    html, _ = report(tmp_path, result("base", base), result("tuned", tuned))
    five, six = table(html)
    assert "~ +100.0" in five[2] and "▲ +100.0" in six[2]
    note = re.search(r"note-(\d+)", five[2])
    assert note and f'<li id="note-{note[1]}">Of fewer than 6 documents nothing is called better or worse</li>' in html


def test_only_the_same_questions_are_compared(tmp_path: Path) -> None:
    """Of 40 documents the last 20 are others under the same ids; in the first 20 the model is better."""
    base = written("task", [""] * 40, "one", values={"exact": (0.0, 1.0)})
    tuned = [*written("task", [""] * 20, "one", values={"exact": (1.0, 1.0)})]
    tuned += written("task", [""] * 40, "two", values={"exact": (0.0, 1.0)})[20:]
    html, _ = report(tmp_path, result("base", base), result("tuned", tuned))
    assert table(html)[0][2].startswith("50.0%") and "▲ +100.0" in table(html)[0][2]
    assert "tuned: compared on the 20 documents that base was asked too" in html
    others = written("task", [""] * 40, "three", values={"exact": (1.0, 1.0)})
    html, _ = report(tmp_path / "other", result("base", base), result("tuned", others))
    assert "tuned: not compared, since no document has a value of it for base too" in html and "1 cannot be compared" in html


def test_a_document_without_a_value_has_no_say_but_stays(tmp_path: Path) -> None:
    """The difference is that of the two figures in the row."""
    base = choices("task", [1] * 10 + [0] * 10)
    silent = [Document(task="task", id=number, prompt="", answer="", target=f"t{number}") for number in range(15, 20)]
    tuned = choices("task", [1] * 15) + silent
    html, _ = report(tmp_path, result("base", base), result("tuned", tuned))
    assert table(html)[0][2].startswith("100.0%") and "▲ +50.0" in table(html)[0][2] and "compared on" not in html
    assert table(html)[0][3] == "15–20"


def test_scores_of_all_answers_together(tmp_path: Path) -> None:
    target, good, bad = "سیلاب کے بعد پل دو دن بند رہا", "سیلاب کے بعد پل دو دن کے لیے بند رہا", "پل نہیں ہے"
    answers = {"base": [bad] * 8, "tuned": [good] * 8}
    made = {}
    for name, texts in answers.items():
        made[name] = corpus_scores(["chrf"], texts, [target] * 8, language="ur", task="translate")
    models = [result(name, written("translate", texts, target=target), more=made[name]) for name, texts in answers.items()]
    html, markdown = report(tmp_path, *models)
    one, other = made["base"][0].value, made["tuned"][0].value
    assert other - one > 20
    assert table(html)[0][2].startswith(f"{other:.1f} ") and f"▲ +{other - one:.1f} " in table(html)[0][2]
    assert "chrF++" in table(html)[0][0] and f"sacrebleu: {made['base'][0].signature}" in html
    assert cells(markdown, "translate")[3].startswith(f"{other:.1f} ")


def test_a_bleu_below_one_is_no_share(tmp_path: Path) -> None:
    made = corpus_scores(["bleu"], ["پل بند"] * 8, ["سیلاب کے بعد پل دو دن بند رہا"] * 8, language="ur", task="translate")
    low = [Score(**vars(score) | {"value": 0.7, "low": 0.6, "high": 0.8}) for score in made]
    html, _ = report(tmp_path, result("base", written("translate", ["پل بند"] * 8), more=low))
    assert [row[1].split(" <")[0] for row in table(html)] == ["0.7", "0.7"]


def test_one_document_has_no_interval(tmp_path: Path) -> None:
    html, markdown = report(tmp_path, result("base", choices("task", [1])))
    assert table(html)[0][1] == "100.0%" == cells(markdown, "task")[2]


def test_chance_is_told_of_as_many_tests_as_there_are(tmp_path: Path) -> None:
    few = [result(name, choices("task", [1, 0] * 5)) for name in ("base", "tuned")]
    many = [result(name, [one for place in range(41) for one in choices(f"t{place}", [1, 0] * 5)]) for name in ("base", "tuned")]
    assert "about one test in 20 still seems to by chance." in report(tmp_path / "few", *few)[1]
    assert "by chance: of 41 about 2." in report(tmp_path / "many", *many)[1]


def test_figures_counted_in_unlike_ways_are_not_compared(tmp_path: Path) -> None:
    score: dict[str, Any] = {
        "task": "translate",
        "metric": "chrf",
        "value": 40.0,
        "low": 38.0,
        "high": 42.0,
        "documents": 8,
        "corpus": True,
    }
    models = [
        result(name, written("translate", ["x"] * 8, target="x"), more=[Score(**score, signature=f"nw:{words}")])
        for name, words in (("base", 0), ("tuned", 2))
    ]
    html, _ = report(tmp_path, *models)
    assert "tuned: not compared, since it is counted in another way than for base" in html and "▲" not in table(html)[0][2]
    assert "sacrebleu: nw:0" in html and "sacrebleu: nw:2" in html


# --- what is missing


def test_a_row_that_a_model_lacks_says_why(tmp_path: Path) -> None:
    base, tuned = choices("one", [1, 0] * 10), choices("one, chat", [1, 0] * 10) + choices("group_a", [1] * 10)
    html, markdown = report(
        tmp_path,
        result("base", base, left_out={"one, chat": "the model has no chat template", "group": "no network"}),
        result("tuned", tuned),
    )
    rows = {row[0].split("<")[0]: row for row in table(html)}
    for row, column, why in (
        ("one, chat", 1, "base: the model has no chat template"),
        ("group_a", 1, "base: no network"),
        ("one", 2, "tuned: not run"),
        ("one, chat", 2, "tuned: not compared, since base has no such figure"),
    ):
        note = re.search(r"note-(\d+)", rows[row][column])
        assert note and f'<li id="note-{note[1]}">{why}</li>' in html and f"\n{note[1]}. {why}\n" in markdown
    assert rows["one"][2].startswith("–") and rows["one, chat"][1].startswith("–") and rows["one, chat"][2].startswith("50.0%")
    assert "of 0 tests 0 are worse, 0 better, 0 unclear; 3 cannot be compared" in html
    assert cells(markdown, "one, chat<br>")[2].startswith("– <sup>")
    assert cells(markdown.split("### Tasks that were left out")[1], "group") == ["group", "no network", ""]


def test_without_a_base_nothing_is_called_better(tmp_path: Path) -> None:
    models = result("one", choices("task", [0] * 20)), result("two", choices("task", [1] * 20))
    html, markdown = report(tmp_path, *models, base=None)
    assert "No base was named" in html and "No base was named" in markdown
    assert not re.search("[▲▼]", table(html)[0][2]) and table(html)[0][2].startswith("100.0%")
    html, _ = report(tmp_path, models[0], base="one")
    assert "One model was evaluated" in html


@pytest.mark.parametrize(
    "names, base, said", [(("a", "b"), "c", "'c' is none of the models a, b"), (("a", "a"), "a", "a: given twice")]
)
def test_results_that_do_not_fit_together(tmp_path: Path, names: tuple[str, ...], base: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        report(tmp_path, *(result(name, choices("task", [1])) for name in names), base=base)


def test_documents_that_are_gone(tmp_path: Path) -> None:
    report(tmp_path, result("base", choices("task", [1])))
    (tmp_path / "models" / "base.documents.jsonl").unlink()
    with pytest.raises(UsageError, match=r"base\.documents\.jsonl is missing.*evaluate base again"):
        write_report(str(tmp_path), [result("base", [])[0]], base="base")


# --- samples


def test_samples_stand_in_their_own_direction(tmp_path: Path) -> None:
    base = written("ask", ["The bridge is closed.\n\n# Really", "", "اچھا"], values={"exact": (0.0, 1.0)}, ended=True)
    tuned = written("ask", ["پل بند ہے۔", "جی ہاں", "ہاں " * 400], values={"exact": (1.0, 1.0)}, ended=False)
    html, markdown = report(tmp_path, result("base", base), result("tuned", tuned))
    found = Page(html)
    turns = [(attributes.get("class"), attributes.get("dir")) for attributes, _ in found.of("div") if "dir" in attributes]
    assert turns[:3] == [("turn user", "rtl"), ("turn assistant", "ltr"), ("turn assistant", "rtl")]
    assert ({"dir": "rtl", "lang": "ur"}, "پل بند ہے۔") in found.of("p")
    assert ({"dir": "ltr"}, "The bridge is closed.") in found.of("p")
    assert ":lang(ur){font-family:'Noto Nastaliq Urdu'" in html
    assert '<blockquote dir="rtl" lang="ur">پل بند ہے۔</blockquote>' in markdown
    assert '<blockquote dir="ltr">The bridge is closed.<br># Really</blockquote>' in markdown  # no heading
    assert html.count("✗ did not end") == 3 and markdown.count("**✗ did not end**") == 3  # of the tuned model alone
    assert html.count("(empty)") == 1 and "ہاں …" in html and "ہاں " * 200 not in html and "ہاں " * 200 not in markdown


def test_choices_are_no_samples(tmp_path: Path) -> None:
    html, markdown = report(tmp_path, result("base", choices("task", [1] * 9) + choices("other", [1] * 9, "f1 of one")))
    assert 'id="samples"' not in html and "## Samples" not in markdown


def test_samples_are_of_the_same_question(tmp_path: Path) -> None:
    base, tuned = written("ask", ["a"] * 9, "one"), written("ask", ["b"] * 9, "one")[:4] + written("ask", ["c"] * 9, "two")[4:]
    _, markdown = report(tmp_path, result("base", base), result("tuned", tuned))
    assert markdown.count(">a<") == markdown.count(">b<") == 3 and ">c<" not in markdown


def test_documents_are_drawn_over_categories() -> None:
    categories = {number: "many" if number < 90 else f"c{number}" for number in range(92)}
    some = drawn("task", categories)
    assert len(some) == 3 and {categories[number] for number in some} == {"many", "c90", "c91"}
    assert some == drawn("task", dict(reversed(categories.items()))) != drawn("other", categories)
    assert len(drawn("task", dict.fromkeys(range(50), ""))) == 3 and drawn("task", {4: "a", 7: "a"}) == [4, 7]


def test_long_texts_keep_their_end_where_the_question_is() -> None:
    text = "passage " * 300 + "What is asked?"
    assert clipped(text, 500, 300).startswith("passage passage") and clipped(text, 500, 300).endswith("passage What is asked?")
    assert " … passage " in clipped(text, 500, 300) and len(clipped(text, 500, 300)) < 810
    assert clipped("short") == "short" and clipped(text, 100).endswith("passage …")


# --- judge, training data, how it was run


def judged(place: Path, **changes: Any) -> None:
    """judge.json as judge.py writes it."""
    pairwise = {
        "kind": "pairwise", "model": "tuned", "against": "base", "judge": "judge-1", "prompts": 200, "judged": 190, "excluded": 10,
        "identical": 3, "wins": 120, "losses": 40, "ties": 30, "win_rate": 0.714, "low": 0.65, "high": 0.77,
        "length_controlled": 0.6412, "position_consistency": 0.85, "first_place_share": 0.6,
        "mean_words": {"model": 80.4, "against": 61.0}, "cost": 1.5, "tasks": ["ask"], "date": "2026-01-01",
        "by_category": {"تاریخ": {"judged": 90, "win_rate": 0.4, "low": 0.3, "high": 0.49}},
    }  # fmt: skip
    single = {
        "kind": "single", "model": "tuned", "judge": "judge-1", "judged": 9, "mean": 71.25, "low": 70.0, "high": 73.0,
        "by_category": {"a": {"judged": 9, "mean": 71.25, "low": 70.0, "high": 73.0}},
    }  # fmt: skip
    place.mkdir(exist_ok=True)
    text = json.dumps({"comparisons": [pairwise | changes, single]})
    (place / "judge.json").write_text(text, encoding="utf-8")


def test_what_the_judge_said(tmp_path: Path) -> None:
    judged(tmp_path)
    html, markdown = report(tmp_path, result("base", choices("task", [1] * 9)))
    said = markdown.split("## What a judge says")[1]
    assert cells(said, "win rate") == ["win rate", "▲ 71.4% (65.0 to 77.0)"]
    assert cells(said, "at equal length")[1] == "64.1%" and cells(said, "won / tied / lost")[1] == "120 / 30 / 40"
    assert cells(said, "same verdict in both orders")[1] == "85.0%" and cells(said, "words of an answer")[1] == "80 / 61"
    assert cells(said, "left out")[1] == "10" and cells(said, "its cost")[1] == "$1.50"
    assert cells(said, "تاریخ")[1] == "**▼ 40.0% (30.0 to 49.0) of 90**" and cells(said, "mean mark")[1] == "71.2 (70.0 to 73.0)"
    assert '<td class="worse">▼ 40.0% (30.0 to 49.0) of 90</td>' in html and '<td class="better">▲ 71.4% ' in html
    assert "keep their verdict" not in html
    judged(tmp_path, position_consistency=0.5)
    html, _ = report(tmp_path, result("base", choices("task", [1] * 9)))
    assert "✗ tuned against base: only 50.0% of the pairs" in html.split("<h2>")[0]


def test_without_a_judge_or_training_data_it_says_so(tmp_path: Path) -> None:
    html, markdown = report(tmp_path, result("base", choices("task", [1] * 9)))
    for text in (html, markdown):
        assert "No judge was asked." in text and "Nobody looked: no training data was given." in text
    html, _ = report(tmp_path, result("base", choices("task", [1] * 9)), leaks={"shards": [], "tests": {}, "told": "nothing"})
    assert "Nobody looked" in html


def test_what_was_in_the_training_data_is_red(tmp_path: Path) -> None:
    tests = {
        "one": {"documents": 300, "found": 6, "too_short": 4, "examples": ["وادیِ سندھ کی تہذیب"]},
        "two": {"documents": 50, "found": 0, "too_short": 0, "examples": []},
    }
    leaks = {"shards": ["data/train-0.tfrecord"], "tests": tests, "told": "Of 350 documents, 6 are there."}
    html, markdown = report(tmp_path, result("base", choices("task", [1] * 9)), leaks=leaks)
    assert '<td class="worse">✗ 6</td><td>2.0%</td><td>4</td>' in html and "<td>0</td><td>0.0%</td><td>0</td>" in html
    assert '<li class="worse">✗ Of 350 documents, 6 are there.</li>' in html.split("<h2>")[0]
    assert cells(markdown, "one") == ["one", "300", "**✗ 6**", "2.0%", "4"] and cells(markdown, "two")[2] == "0"
    assert '<p dir="rtl" lang="ur">وادیِ سندھ کی تہذیب</p>' in html and "data/train-0.tfrecord" in markdown
    clean = leaks | {"tests": {"two": tests["two"]}, "told": "None of 50 documents is there."}
    html, _ = report(tmp_path, result("base", choices("task", [1] * 9)), leaks=clean)
    assert "<p>None of 50 documents is there.</p>" in html and "✗" not in html


def test_how_it_was_run(tmp_path: Path) -> None:
    documents = choices("task", [1] * 9)
    html, markdown = report(
        tmp_path,
        result("base", documents, versions={"lm_eval": "0.4.13", "numpy": "2"}, costs={"seconds": 200.0}, truncated={"task": 3}),
        result("tuned", documents, versions={"lm_eval": "0.4.12", "numpy": "2"}, costs={"seconds": 50.0, "dollars": 0.25}),
        command="python launch/evaluate.py --x='```'",
    )
    run = markdown.split("## How it was run")[1]
    assert cells(run, "time") == ["time", "3 min 20 s", "50 s"] and cells(run, "cost") == ["cost", "–", "$0.25"]
    assert cells(run, "lm_eval") == ["lm_eval", "0.4.13", "0.4.12"] and cells(run, "path")[1] == "runs/base"
    assert cells(run, "task") == ["task", "**✗ 3**", "–"]
    assert "Not in the same version for all models: lm_eval." in run and "numpy." not in run
    assert "````\npython launch/evaluate.py --x='```'\n````" in run
    assert "<code>python launch/evaluate.py --x=&#x27;```&#x27;</code>" in html
    assert "✗ base: the beginning of 3 requests was cut" in html.split("<h2>")[0]
    assert "No request was cut." in report(tmp_path / "none", result("base", documents))[1]
    _, markdown = report(tmp_path / "url", result("base", documents), result("far", documents, kind="url"))
    assert "No request of base was cut." in markdown and "Whether a server cut a request, it does not say." in markdown


# --- both files


def everything(place: Path, text: str) -> tuple[str, str]:
    """With a text in each place that data, models and users fill."""
    documents = [
        *written(text, [text] * 9, text, text, values={text: (1.0, 1.0)}, category=text, ended=False),
        *choices("task", [1, 0] * 9),
    ]
    score = Score(task="task", metric="f1", value=0.5, low=0.4, high=0.6, documents=9, corpus=True)
    more = [Score(**vars(score) | {"metric": text, "note": text, "group": text, "signature": text})]
    facts: dict[str, Any] = {
        "about": {text: [text]},
        "versions": {text: text},
        "left_out": {text + "2": text},
        "began": text,
        "kind": text,
    }
    facts |= {"more": more, "truncated": {text: 2}, "costs": {text: 2.0}}
    names = [f"{number} {text.replace('/', '')}" for number in (1, 2)]
    base, tuned = (result(name, documents, **facts) for name in names)
    by_category = {text: {"judged": 1, "win_rate": 0, "low": 0, "high": 0}}
    judged(place, judge=text, model=text, tasks=[text], date=text, by_category=by_category)
    leaks = {"shards": [text], "told": text, "tests": {text: {"documents": 9, "found": 1, "examples": [text]}}}
    return report(place, base, tuned, base=names[0], title=text, command=text, leaks=leaks)


def test_everything_is_escaped(tmp_path: Path) -> None:
    html, markdown = everything(tmp_path, EVIL)
    found = Page(html)
    assert not {tag for tag, _, _ in found.elements} & {"script", "img"}
    assert all("onerror" not in attributes for _, attributes, _ in found.elements)
    assert found.of("h1")[0][1] == EVIL and EVIL in "".join(text for _, text in found.of("p"))
    outside = re.sub(r"(?s)^(`{3,})\n.*?\n\1$", "", markdown, flags=re.MULTILINE)
    assert "<script" not in outside and "<img" not in outside
    # A pipe in a name makes no new column.
    tables = [part.splitlines() for part in outside.split("\n\n") if part.startswith("|")]
    assert len(tables) == 11 and all(len(set(map(columns, lines))) == 1 for lines in tables)


def test_it_stands_alone_and_says_the_same_each_time(tmp_path: Path) -> None:
    first = everything(tmp_path / "a", "متن")
    html, _ = first
    found = Page(html)
    assert not {tag for tag, _, _ in found.elements} & {"script", "link", "img", "iframe", "object", "form"}
    assert not re.search(r"url\(|@import|https?://", html)
    ids = {attributes["id"] for _, attributes, _ in found.elements if "id" in attributes}
    assert {(attributes["href"] or "")[1:] for attributes, _ in found.of("a")} <= ids
    assert ["results", "judge", "leaks", "samples", "run"] == [attributes["id"] for attributes, _ in found.of("section")]
    assert everything(tmp_path / "b", "متن") == first
    read = [read_result(str(tmp_path / "b"), name) for name in ("1 متن", "2 متن")]
    leaks = {"shards": ["متن"], "told": "متن", "tests": {"متن": {"documents": 9, "found": 1, "examples": ["متن"]}}}
    write_report(str(tmp_path / "b"), [one for one in read if one], base="1 متن", title="متن", command="متن", leaks=leaks)
    assert (tmp_path / "b" / "report.html").read_text(encoding="utf-8") == html


def test_both_files_have_the_figures_of_the_results(tmp_path: Path) -> None:
    base, tuned = result("base", choices("task", [1] * 37 + [0] * 63)), result("tuned", choices("task", [1] * 41 + [0] * 59))
    html, markdown = report(tmp_path, base, tuned)
    for place, (one, _) in enumerate((base, tuned), 1):
        score = one.scores[0]
        value, low, high = (f"{100 * part:.1f}" for part in (score.value, score.low, score.high))
        assert value == ("37.0", "41.0")[place - 1]
        assert cells(markdown, "task")[place + 1].startswith(f"{value}% ({low} to {high})")
        assert table(html)[0][place].startswith(f'{value}% <small class="within">{low} to {high}</small>')
    assert cells(markdown, "task")[1] == table(html)[0][3] == "100"
    change = re.search(r"[▲▼] \+4\.0 \((\+\d\.\d) to (\+\d\.\d)\)", cells(markdown, "task")[3])
    assert change and f"({change[1]} to {change[2]})" in table(html)[0][2]


@pytest.mark.parametrize("palette, red", [(charts.LIGHT, report_page.RED_LIGHT), (charts.DARK, report_page.RED_DARK)])
def test_what_is_worse_can_be_read(palette: dict[str, str], red: str) -> None:
    for colour, ground in product((red, palette["first"], palette["muted"]), ("ground", "surface", "asked", "said")):
        low, high = sorted((luminance(colour), luminance(palette[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (colour, ground)
