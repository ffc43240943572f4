"""Which documents of a test stand in training records, against a search of lists of words."""

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from data_gen import UsageError
from data_gen.evaluation.find import Found
from data_gen.evaluation.leaks import build_texts, find_leaks
from data_gen.evaluation.suites import TaskEntry
from data_gen.text import tokens

# 19 words, 7, and 3.
LONG = "اگر ایک دکان دار کے پاس صبح بارہ سیب تھے اور شام تک سات بک گئے تو کتنے بچے؟"
SHORT = "پاکستان کا قومی پھول کون سا ہے؟"
TINY = "ان میں کوئی"


def found_in(documents: list[list[str]], *records: str) -> int:
    result = find_leaks(["shards"], {"test": documents}, records)
    assert result["shards"] == ["shards"] and result["records"] == len(records)
    return int(result["tests"]["test"]["found"])


def occurs(text: str, record: str, words: int) -> bool:
    """A plain loop over places."""
    wanted, said = text.split(), record.split()
    size = min(words, len(wanted))
    runs = [wanted[at : at + size] for at in range(len(wanted) - size + 1)]
    return len(wanted) >= 6 and any(run == said[at : at + size] for run in runs for at in range(len(said)))


def test_decisions_are_those_of_a_plain_loop() -> None:
    """Two words only, so that runs come up by chance; runs of 8 words, wholes of 6 and 7, documents of several texts."""
    rng = random.Random(0)

    def text() -> str:
        return " ".join(rng.choices("اب", k=rng.randint(1, 14)))

    seen = set[tuple[int, int]]()
    for _ in range(60):
        tests = {name: [[text() for _ in range(rng.randint(0, 3))] for _ in range(8)] for name in ("one", "other")}
        records = [text() for _ in range(rng.randint(1, 6))]
        result = find_leaks([], tests, iter(records), words=8)
        for name, documents in tests.items():
            expected = [[one for one in document if any(occurs(one, record, 8) for record in records)] for document in documents]
            got = result["tests"][name]
            assert got["documents"] == 8 and got["found"] == sum(map(bool, expected))
            assert got["examples"] == [texts[0] for texts in expected if texts][:3]
            assert got["too_short"] == sum(all(len(one.split()) < 6 for one in document) for document in documents)
            seen.add((got["found"], got["too_short"]))
    assert len(seen) > 20  # of many kinds


def test_a_run_of_13_words_is_enough_and_12_are_not() -> None:
    words = LONG.split()
    assert found_in([[LONG]], "سوال: " + " ".join(words[2:15]) + " بتائیں") == 1
    assert found_in([[LONG]], "سوال: " + " ".join(words[2:14]) + " بتائیں") == 0
    assert found_in([[SHORT]], f"بتائیں کہ {SHORT} جواب دیں") == 1
    assert found_in([[SHORT]], " ".join(SHORT.split()[:6])) == 0
    assert found_in([[LONG]], " ".join(words[:10]), " ".join(words[10:])) == 0  # of two records


def test_spelling_is_no_difference() -> None:
    question = "اسلم کے پاس 12 کتابیں ہیں اور 5 کاپیاں ہیں، اس کے پاس کل کتنی چیزیں ہیں؟"
    arabic = question.replace("ک", "ك").replace("ی", "ي").replace("12", "۱۲").replace("5", "٥").replace(" ", "  ")
    assert arabic != question and found_in([[question]], f"سُنیں! {arabic}") == found_in([[arabic]], question) == 1


def test_a_document_counts_once_and_is_too_short_only_if_all_of_it_is() -> None:
    documents = [[TINY, LONG, SHORT], [TINY], [], [SHORT]]
    result = find_leaks(["a", "b"], {"test": documents, "other": [[TINY]]}, [SHORT, LONG, LONG])
    assert result["tests"]["test"] == {"documents": 4, "found": 2, "too_short": 2, "examples": [LONG, SHORT]}
    assert result["told"] == (
        "Of 5 documents of 2 tests, 2 have a run of 13 words, or the whole of a shorter text, in common with one of 3 training "
        "records: test 2 of 4; 3 are too short to tell."
    )
    told = find_leaks([], {"test": [[LONG]]}, [SHORT])["told"]
    assert told.startswith("None of 1 documents of 1 tests has a run of 13 words, or ") and told.endswith("of 1 training records.")
    assert find_leaks([], {"test": [[LONG]]}, [])["told"] == "No training records were given, so nothing was compared."


def test_examples_are_three() -> None:
    documents = [[f"{LONG} {number}"] for number in range(5)]
    assert find_leaks([], {"test": documents}, [LONG])["tests"]["test"]["examples"] == [texts[0] for texts in documents[:3]]


def test_thai_is_compared_by_as_much_text() -> None:
    """A token there is one letter with its marks, and thirteen of them are three words."""
    text = "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทยและเป็นศูนย์กลางการปกครองการศึกษาการคมนาคมและการพาณิชย์ของประเทศ"
    assert len(tokens(text)) > 60
    assert found_in([[text]], f"คำตอบคือ {text}") == 1
    assert found_in([[text]], text[:20] + "ครับ") == 0  # more than 13 letters in common
    assert found_in([[text], [LONG]], LONG) == 1


def test_runs_that_come_up_by_themselves_are_refused() -> None:
    with pytest.raises(UsageError, match="give 6 at least"):
        find_leaks([], {"test": [[LONG]]}, [LONG], words=5)


def test_records_are_read_once_and_not_kept() -> None:
    class Record(str):
        alive = 0

        def __new__(cls, text: str) -> "Record":
            cls.alive += 1
            return super().__new__(cls, text)

        def __del__(self) -> None:
            Record.alive -= 1

    most = 0

    def records() -> Iterator[str]:
        nonlocal most
        for number in range(300):
            yield Record(f"{LONG} {number}")
            most = max(most, Record.alive)

    assert find_leaks([], {"test": [[SHORT]]}, records())["records"] == 300
    assert most < 100  # the tokens of 64 texts are kept for other callers


def test_the_texts_of_tasks_are_those_of_documents_that_are_asked() -> None:
    def found(entry: TaskEntry, **tasks: list[Any]) -> Found:
        return Found(entry, {name: SimpleNamespace(eval_docs=documents) for name, documents in tasks.items()}, {})

    form = "اس سوال کا جواب ایک جملے میں دیں"
    documents: list[dict[str, Any]] = [
        {"id": number, "form": form, "deep": [{"options": [TINY, f"{SHORT} {number}"]}], "none": None} for number in range(12)
    ]
    documents.append({"question": LONG, "answer": TINY})
    first, few = (
        found(TaskEntry(task="group"), one=documents, two=[{"q": LONG}]),
        found(TaskEntry(task="one", limit=2), one=documents),
    )
    assert build_texts([few]) == {"one": [[form, f"{SHORT} 0"], [form, f"{SHORT} 1"]]}
    expected = {"one": [*([f"{SHORT} {number}"] for number in range(12)), [LONG]], "two": [[LONG]]}
    assert build_texts([few, first]) == build_texts([first, few]) == expected
