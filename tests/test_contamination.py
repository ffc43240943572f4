"""What evaluation files say is recognised in training texts, from every kind of file, and nothing else is."""

import gzip
import json
import random
from pathlib import Path

import pytest

from data_gen import UsageError
from data_gen.contamination import contaminated, load_ngrams
from data_gen.text import tokens

# 19 words, and 7.
LONG = "اگر ایک دکان دار کے پاس صبح بارہ سیب تھے اور شام تک سات بک گئے تو کتنے بچے؟"
SHORT = "پاکستان کا قومی پھول کون سا ہے؟"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def files(folder: Path) -> dict[str, str]:
    """Path by kind; each file has LONG and SHORT somewhere."""
    rows = [{"question": LONG, "id": 7}, {"nested": [{"options": ["جی ہاں", SHORT]}], "none": None}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    squad = {"version": "1", "data": [{"paragraphs": [{"context": LONG, "qas": [{"question": SHORT}]}]}]}
    made = {
        "jsonl": write(folder / "a.jsonl", lines + "\n\n"),
        "json": write(folder / "a.json", json.dumps(squad, indent=1)),
        "json list": write(folder / "b.json", json.dumps(rows)),
        "json lines under the wrong name": write(folder / "c.json", lines),
        "csv": write(folder / "a.csv", f'id,question\n1,"{LONG}"\n2,{SHORT}\n'),
        "txt": write(folder / "a.txt", f"\ufeff{LONG}\n\n{SHORT}\n"),
    }
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return made | {"gzip": str(folder / "a.jsonl.gz"), "url": f"file://{folder}/a.txt"}


@pytest.mark.parametrize("kind", ["jsonl", "json", "json list", "json lines under the wrong name", "csv", "txt", "gzip", "url"])
def test_every_kind_of_file_gives_the_same(kind: str, tmp_path: Path) -> None:
    expected = len(tokens(LONG)) - 13 + 1 + 1
    ngrams = load_ngrams([files(tmp_path)[kind]])
    assert len(ngrams) == expected
    assert ngrams == load_ngrams([write(tmp_path / "other.txt", f"{SHORT}\n{LONG}")])
    assert contaminated(LONG, ngrams) and contaminated(SHORT, ngrams)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"question": [LONG], "answers": [[{"text": SHORT}]]}), tmp_path / "a.parquet")
    assert load_ngrams([str(tmp_path / "a.parquet")]) == load_ngrams([write(tmp_path / "a.txt", f"{SHORT}\n{LONG}")])


def test_a_run_of_13_words_is_enough_and_12_are_not(tmp_path: Path) -> None:
    ngrams, words = load_ngrams([write(tmp_path / "a.txt", LONG)]), LONG.split()
    assert contaminated("حساب کا سوال: " + " ".join(words[2:15]) + " بتائیں", ngrams)
    assert not contaminated("حساب کا سوال: " + " ".join(words[2:14]) + " بتائیں", ngrams)
    assert not contaminated(" ".join([*words[:9], "بیر", *words[10:]]), ngrams)  # 9 words before and 9 after
    assert contaminated("اُردو میں: " + LONG.replace("کے", "ك\u06d2").replace(" ", "  "), ngrams)  # spelling is no disguise


def test_a_short_text_counts_whole_wherever_it_stands(tmp_path: Path) -> None:
    ngrams = load_ngrams([write(tmp_path / "a.txt", SHORT)])
    assert contaminated(f"اس سوال کا جواب دیں: {SHORT} ایک جملے میں لکھیں۔", ngrams)
    assert not contaminated("پاکستان کا قومی پھول کون سا", ngrams)
    assert not contaminated("پاکستان کا قومی کھیل کون سا ہے؟", ngrams)
    assert not contaminated("", ngrams)
    assert not contaminated(SHORT, frozenset())


def test_decisions_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Runs compared as lists of words, for several lengths of runs; two words, so that runs come up by chance."""
    rng = random.Random(0)
    sides = [[" ".join(rng.choices("اب", k=rng.randint(1, 14))) for _ in range(60)] for _ in range(2)]
    for n in (6, 8, 9):
        known = set()
        for words in map(str.split, sides[0]):
            size = min(n, len(words))
            known |= {tuple(words[k : k + size]) for k in range(len(words) - size + 1) if size >= 6}
        ngrams = load_ngrams([write(tmp_path / "a.txt", "\n".join(sides[0]))], n)
        assert len(ngrams) == len(known)
        found = 0
        for text in sides[1]:
            words = text.split()
            runs = {tuple(words[k:end]) for k in range(len(words)) for end in range(k + 6, min(k + n, len(words)) + 1)}
            assert contaminated(text, ngrams, n) == bool(runs & known)
            found += contaminated(text, ngrams, n)
        assert 0 < found < len(sides[1])


@pytest.mark.parametrize("name", ["a.jsonl", "b.json", "c.csv"])
def test_what_many_rows_share_is_left_out(tmp_path: Path, name: str) -> None:
    """An instruction above every question, and three that take turns; a passage of a few questions is compared."""
    forms = ["درج ذیل سوال کا درست جواب لکھیں", *(f"سوال کو غور سے پڑھیں اور {how} جواب دیں" for how in ("مختصر", "مکمل", "درست"))]
    passages = [f"{' '.join(chr(0x0628 + n) * k for k in range(1, 8))} کی کہانی" for n in range(12)]
    rows = [
        {"do": forms[0], "how": forms[1 + n % 3], "text": passages[n // 4], "question": f"سوال {n} میں یہ بتائیں کہ {n} کیا ہے"}
        for n in range(48)
    ]
    if name.endswith("csv"):
        body = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)])
    else:
        body = json.dumps({"version": 1, "data": rows}) if name == "b.json" else "\n".join(map(json.dumps, rows))
    ngrams = load_ngrams([write(tmp_path / name, body)])
    for form in forms:
        assert not contaminated(f"{form}: لاہور کہاں ہے؟", ngrams)
    assert all(contaminated(f"پڑھیں: {row['text']}", ngrams) and contaminated(row["question"], ngrams) for row in rows)


def test_a_small_file_has_its_form_too(tmp_path: Path) -> None:
    rows = [{"do": SHORT, "question": f"{number} {LONG}"} for number in ("پہلا", "دوسرا", "تیسرا")]
    ngrams = load_ngrams([write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))])
    assert not contaminated(SHORT, ngrams) and contaminated(LONG, ngrams)
    assert contaminated(SHORT, load_ngrams([write(tmp_path / "b.jsonl", "\n".join(map(json.dumps, rows[:2])))]))
    with pytest.raises(UsageError, match="no text of 6 words or more .beside what many rows share."):
        load_ngrams([write(tmp_path / "c.txt", f"{SHORT}\n" * 3)])


def test_line_separators_inside_of_a_string_end_no_line(tmp_path: Path) -> None:
    lines = [json.dumps({"q": f"{text}{mark}جی"}, ensure_ascii=False) for text, mark in ((LONG, "\u2028"), (SHORT, "\u0085"))]
    ngrams = load_ngrams([write(tmp_path / "a.json", "\n".join(lines))])
    assert contaminated(LONG, ngrams) and contaminated(f"{SHORT} جی", ngrams)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.jsonl", None, "there is no file"),
        ("a.docx", "x", "there is no file"),
        ("empty.jsonl", "", "no text of 6 words"),
        ("short.txt", "ایک دو تین چار پانچ\n", "no text of 6 words"),
        ("broken.jsonl", '{"a": "x"}\n{"a": ', "row 2: not JSON"),
        ("broken.json", '{"a": ', "cannot be read"),
        ("rows.csv", "a,b\n1,2,3\n", "row 1: 3 fields"),
    ],
)
def test_bad_files_are_named(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(UsageError, match=message) as error:
        load_ngrams([str(tmp_path / name)])
    assert name in str(error.value) and "\n" not in str(error.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    for name in ("a.json", "a.jsonl", "a.txt"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match="UTF-8|utf-8"):
            load_ngrams([str(tmp_path / name)])


def test_runs_too_short_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="runs of 5 words"):
        load_ngrams([write(tmp_path / "a.txt", LONG)], 5)
