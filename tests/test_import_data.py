"""Imported data against the rows it came from, read back with the tests' own reader of shards."""

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError
from data_gen.import_data import ImportConfig, Imported, import_data
from data_gen.import_files import Row, read_rows
from data_gen.import_formats import Unusable, content_of, conversation, find_format, parse_columns
from tests import plain_tfrecord

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["اردو ایک زبان ہے۔", "لاہور پاکستان کا شہر ہے۔\nیہ دریائے راوی کے کنارے ہے۔", "A plain sentence."]
ALPACA = [
    {"instruction": "تین رنگ لکھیں۔", "input": "", "output": "سرخ، سبز، نیلا"},
    {"instruction": "اس جملے کا انگریزی میں ترجمہ کریں۔", "input": "یہ کتاب ہے۔", "output": "This is a book."},
]
CHAT = [{"from": "human", "value": "سلام"}, {"from": "gpt", "value": "وعلیکم السلام"}]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def bring(tmp_path: Path, source: Path | str, **more: Any) -> tuple[Imported, list[dict[str, str]]]:
    """The import's report and the records of both splits by id."""
    output = f"{tmp_path}/out{len(os.listdir(tmp_path))}"
    done = import_data(ImportConfig(input=str(source), output=output, **{"language": "ur", "licence": "MIT", **more}))
    manifest, splits = plain_tfrecord.directory(output)
    assert {split: counts["records"] for split, counts in manifest["counts"].items()} == {s: done.records[s] for s in splits}
    assert not [name for name in os.listdir(output) if name.startswith(".")]
    return done, sorted(splits["train"] + splits["heldout"], key=lambda record: json.loads(record["meta"])["row"])


def texts_of(records: list[dict[str, str]]) -> list[Any]:
    return [record.get("text") or [turn["content"] for turn in json.loads(record["messages"])] for record in records]


# --- every kind of file gives the same ------------------------------------------------------------------------------------


def as_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    return jsonl(path / "rows.jsonl", rows)


def as_json(path: Path, rows: list[dict[str, str]]) -> Path:
    (path / "rows.json").write_text("\ufeff" + json.dumps(rows, ensure_ascii=False, indent=2), encoding="utf-8")
    return path / "rows.json"


def as_json_lines_under_the_wrong_name(path: Path, rows: list[dict[str, str]]) -> Path:
    return jsonl(path / "rows.json", rows)


def as_gzip(path: Path, rows: list[dict[str, str]]) -> Path:
    body = jsonl(path / "plain.txt", rows).read_bytes()
    (path / "rows.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + body))
    return path / "rows.jsonl.gz"


def as_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Written by hand: every field quoted, as RFC 4180 has it, with Excel's mark and semicolons."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    body = "\r\n".join(";".join('"' + field.replace('"', '""') + '"' for field in line) for line in lines)
    (path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + body.encode())
    return path / "rows.csv"


def as_parquet(path: Path, rows: list[dict[str, str]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path / "rows.parquet", row_group_size=1)
    return path / "rows.parquet"


def as_saved(path: Path, rows: list[dict[str, str]]) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(path / "saved")
    return path / "saved"


KINDS = [as_jsonl, as_json, as_json_lines_under_the_wrong_name, as_gzip, as_csv, as_parquet, as_saved]


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_of_file_gives_the_same_records(tmp_path: Path, write: Any) -> None:
    rows = [*ALPACA, {"instruction": 'اس میں "اقتباس"; اور\nنئی سطر ہے۔', "input": "<noinput>", "output": "ٹھیک ہے"}]
    done, records = bring(tmp_path, write(tmp_path, rows), heldout_share=0.0)
    assert (done.format, done.rows, not done.left_out) == ("alpaca", 3, True)
    assert texts_of(records) == [
        ["تین رنگ لکھیں۔", "سرخ، سبز، نیلا"],
        ["اس جملے کا انگریزی میں ترجمہ کریں۔\n\nیہ کتاب ہے۔", "This is a book."],
        ['اس میں "اقتباس"; اور\nنئی سطر ہے۔', "ٹھیک ہے"],
    ]
    assert {record["language"] for record in records} == {"ur"} and {record["task"] for record in records} == {"instruction"}
    assert [json.loads(record["meta"])["licence"] for record in records] == ["MIT"] * 3
    ids = [record["id"] for record in records]
    assert ids == [record["id"] for record in bring(tmp_path, as_jsonl(tmp_path, rows), heldout_share=0.5)[1]], "stable"


def test_a_wikipedia_of_parquet_keeps_title_url_and_licence_and_the_trainer_reads_them(tmp_path: Path) -> None:
    from alif_jax.data.tfrecord import read_records

    rows = [
        {"id": str(n), "url": f"https://ur.wikipedia.org/wiki/{n}", "title": f"عنوان {n}", "text": f"{text} {n}"}
        for n, text in enumerate(TEXTS)
    ]
    done, records = bring(tmp_path, as_parquet(tmp_path, rows), licence="", heldout_share=0.0)
    assert (done.format, done.licence) == ("wikipedia", "CC BY-SA 4.0")
    assert texts_of(records) == [row["text"] for row in rows] and {record["task"] for record in records} == {"document"}
    meta = json.loads(records[1]["meta"])
    assert (meta["title"], meta["url"], meta["licence"]) == ("عنوان 1", "https://ur.wikipedia.org/wiki/1", "CC BY-SA 4.0")
    read = list(read_records(done.config.output, "train"))
    template = "### عنوان: {title}\n{text}"
    assert template.format(text=read[2].text, title=read[2].meta["title"]) == f"### عنوان: عنوان 2\n{rows[2]['text']}"
    readme = Path(done.config.output, "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0\n" in readme and "by its authors" in readme and "| records, train | 3 |" in readme


@pytest.mark.parametrize(
    ("documents", "files", "expected"),
    [
        ("auto", 1, ["ایک\nدو\n", "تین\n"]),
        ("auto", 2, ["ایک\nدو\n \n\nتین\n", "چار\n"]),
        ("blank_line", 2, ["ایک\nدو\n", "تین\n", "چار\n"]),
        ("line", 1, ["ایک\n", "دو\n", "تین\n"]),
        ("file", 1, ["ایک\nدو\n \n\nتین\n"]),
    ],
)
def test_where_a_document_of_plain_text_ends(tmp_path: Path, documents: str, files: int, expected: list[str]) -> None:
    place = tmp_path / "texts"
    place.mkdir()
    (place / "README.md").write_text("not data")
    for number, text in enumerate(("ایک\nدو\n \n\nتین\n", "چار\n")[:files]):
        (place / f"{number}.txt").write_text(text, encoding="utf-8")
    assert [row.columns["text"] for row in read_rows(str(place), documents=documents)] == expected


# --- what rows mean -------------------------------------------------------------------------------------------------------


def test_conversations_in_both_spellings(tmp_path: Path) -> None:
    openai = [{"role": {"human": "user", "gpt": "assistant"}[turn["from"]], "content": turn["value"]} for turn in CHAT]
    assert conversation(CHAT) == conversation(openai) == conversation(json.dumps(CHAT)) == tuple(openai)
    assert conversation([{"from": "system", "value": "اردو میں جواب دو۔"}, *CHAT])[0]["role"] == "system"
    assert conversation([{"from": "system", "value": " "}, *CHAT]) == tuple(openai)
    assert conversation([CHAT[1], *CHAT, CHAT[0]]) == tuple(openai), "an answer to nothing, a question without an answer"
    parts = [{"role": "user", "content": [{"type": "text", "text": "سلام"}]}, openai[1]]
    assert conversation(parts) == tuple(openai)


@pytest.mark.parametrize(
    ("turns", "kind", "why"),
    [
        ([CHAT[0], CHAT[0], CHAT[1]], "turns", "turn 2 is the user's"),
        ([CHAT[0], {"from": "tool", "value": "x"}, CHAT[1]], "turns", "a turn of 'tool'"),
        ([CHAT[0], {"role": "assistant", "content": None}], "turns", "nothing, not text"),
        ([CHAT[0], {"from": "gpt", "value": " "}], "empty", "turn 2 has no words"),
        ([CHAT[0]], "empty", "no question with an answer"),
        ([], "empty", "no question"),
        ([{"speaker": "human", "says": "x"}], "faulty", "role and content, or from and value; here is speaker, says"),
        ("[broken", "faulty", "no JSON"),
        (None, "faulty", "not nothing"),
    ],
)
def test_conversations_that_give_no_record(turns: Any, kind: str, why: str) -> None:
    with pytest.raises(Unusable, match=why) as raised:
        conversation(turns)
    assert raised.value.kind == kind


def test_formats_are_found_by_the_columns() -> None:
    def found(*names: str, wanted: str = "auto", url: str = "https://ur.wikipedia.org/wiki/x") -> str:
        return find_format(wanted, names, {}, {"url": url})

    assert found("messages", "instruction", "output") == "messages" and found("conversations", "id") == "sharegpt"
    assert found("instruction", "output") == "alpaca" and found("text", "url") == "text"
    assert found("id", "url", "title", "text") == "wikipedia"
    assert found("id", "url", "title", "text", url="https://example.com/x") == "text"
    assert found("text", "title", "url", wanted="wikipedia", url="https://example.com/x") == "wikipedia"
    words = (
        r"columns answer, question\. Formats tried: messages lacks messages; .*alpaca lacks instruction, output; .*--columns=inst"
    )
    with pytest.raises(UsageError, match=words):
        found("question", "answer")
    with pytest.raises(UsageError, match=r"tried: alpaca lacks output\. "):
        found("instruction", "answer", wanted="alpaca")
    with pytest.raises(UsageError, match="--format=alpakka: expected one of auto, messages"):
        found("text", wanted="alpakka")


def test_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"question": "سوال؟", "answer": "جواب۔", "system_prompt": "مختصر لکھیں۔"}]
    names = ("instruction=question", "output=answer", "system=system_prompt")
    _, [record] = bring(tmp_path, jsonl(tmp_path / "a.jsonl", rows), columns=names)
    assert [turn["role"] for turn in json.loads(record["messages"])] == ["system", "user", "assistant"]
    assert texts_of([record]) == [["مختصر لکھیں۔", "سوال؟", "جواب۔"]]
    with pytest.raises(UsageError, match="--columns names 'reply'; the data has the columns answer, question, system_prompt"):
        bring(tmp_path, tmp_path / "a.jsonl", columns=("instruction=question", "output=reply"))
    with pytest.raises(UsageError, match="--columns=antwort=answer: expected FIELD=COLUMN"):
        parse_columns(("antwort=answer",))


def test_title_and_url_of_any_text_are_kept() -> None:
    content = content_of("text", {"text": "متن", "title": "عنوان", "url": None}, {})
    assert (content.text, content.meta) == ("متن", {"title": "عنوان"})


# --- what is left out -----------------------------------------------------------------------------------------------------


def test_broken_rows_empty_texts_and_duplicates_are_counted_and_the_first_is_shown(tmp_path: Path) -> None:
    good = [json.dumps({"text": f"متن {n}"}, ensure_ascii=False).encode() for n in range(400)]
    bad = [b'{"text": "cut', b'{"text": "\xff"}', b"[1, 2]", b'{"text": 7}']
    rest = [b'{"text": " "}', b"", good[3], b'{"text": "half a pair \\ud800"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*good[:100], *bad[:3], *good[100:], *rest]))
    done, records = bring(tmp_path, tmp_path / "a.jsonl")
    assert (done.rows, len(records), dict(done.left_out)) == (406, 400, {"faulty": 4, "empty": 1, "duplicate": 1})
    assert done.first["faulty"].startswith("a.jsonl, row 101: not JSON") and "row 404: text is empty" in done.first["empty"]
    assert "left out  4 faulty (first: a.jsonl, row 101: not JSON" in str(done) and "left out  1 duplicate\n" in str(done)

    (tmp_path / "b.jsonl").write_bytes(b"\n".join([*good, *bad, b'{"txt": "another column"}']))
    with pytest.raises(UsageError, match=r"5 of 405 rows are faulty, and 1% may be. The first: b.jsonl, row 401: not JSON"):
        bring(tmp_path, tmp_path / "b.jsonl")


def test_a_wrong_input_is_given_up_long_before_its_end() -> None:
    done = Imported(ImportConfig(input="x", output="y", language="ur"), "text", "MIT")

    def rows() -> Iterator[None]:
        for done.rows in range(1, 10**6):
            done.leave_out("faulty", Row("a", done.rows, {}), "broken") if done.rows % 2 else None
            yield

    with pytest.raises(UsageError, match="1000 of 1999 rows are faulty"):
        list(rows())


@pytest.mark.parametrize("name", ["d[1].jsonl", "q?.jsonl", "x[2]/a*.jsonl"])
def test_a_name_that_looks_like_a_pattern_is_a_name_if_there_is_such_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    jsonl(tmp_path / name, [{"text": TEXTS[0]}])
    jsonl(tmp_path / "qq.jsonl", [{"text": TEXTS[1]}])
    for path in (tmp_path / name, f"file://{tmp_path / name}"):
        assert [row.columns["text"] for row in read_rows(str(path))] == TEXTS[:1]
    if "/" in name:
        assert len(list(read_rows(str((tmp_path / name).parent)))) == 1
    assert len(list(read_rows(str(tmp_path / "*q*.jsonl")))) == 1 + name.startswith("q")


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("a.json", b'[{"text": "a"}, {"text": ', "after 1 elements of its list comes what is no JSON"),
        ("a.json", b'[{"text": "a"}', "after 1 elements"),
        ("a.json", b'{\n "data": [1, 2]}', "neither a list of objects nor an object a line"),
        ("a.jsonl", b"", "has no rows"),
        ("a.jsonl", b"x\ny\n", "the first 2 rows of .* are all faulty; the first: not JSON"),
        ("a.jsonl", b'{"text": ""}\n', "gave no record .empty: a.jsonl, row 1: text is empty"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 999, mtime=0)[:-9], "a.jsonl.gz cannot be read"),
        ("a.jsonl.gz", b'{"text": "a"}\n', "a.jsonl.gz cannot be read: "),
        ("a.parquet", b"PAR1 no", "a.parquet cannot be read after row 0"),
        ("a.csv", b'text\n"never closed ' + b"x" * (1 << 24) + b"\n", "after row 0 comes what is no CSV"),
        ("a.docx", b"PK", "no file there that ends in .jsonl"),
    ],
)
def test_damaged_files_are_errors_of_use(tmp_path: Path, name: str, body: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(UsageError, match=words):
        bring(tmp_path, tmp_path / name)


def test_csv_rows_of_another_length_are_faulty(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,title\na,b\nc\n\nd,e,f\n\x00,g\n", encoding="utf-8")
    rows = list(read_rows(str(tmp_path / "a.csv")))
    assert [row.fault for row in rows] == ["", "1 fields, and the first line has 2", "3 fields, and the first line has 2", ""]


@pytest.mark.parametrize(
    ("name", "body"), [("a.json", b'[{"text": "\xff"}, {}]'), ("a.csv", b"text\n\xff\n\n"), ("a.txt", b"\xff")]
)
def test_text_that_is_not_utf8_is_faulty(tmp_path: Path, name: str, body: bytes) -> None:
    (tmp_path / name).write_bytes(body)
    assert next(read_rows(str(tmp_path / name))).fault == "not UTF-8"


def test_json_lists_are_read_in_pieces_wherever_a_piece_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [{"text": "ا" * n, "n": [n, {"m": None}]} for n in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(values), encoding="utf-8")
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr("data_gen.import_files._CHUNK", size)
        assert [row.columns for row in read_rows(str(tmp_path / "a.json"))] == values
    monkeypatch.setattr("data_gen.import_files._HEAD", 5)
    (tmp_path / "a.json").write_text("[1, 23, true, {}]")
    assert [row.fault[:10] for row in read_rows(str(tmp_path / "a.json"))] == ["a JSON int", "a JSON int", "a JSON boo", ""]


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_hub_data_sets_are_streamed_and_their_errors_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    called = []

    def load(path: str, name: str | None, *, streaming: bool) -> Any:
        called.append((path, name, streaming))
        if name == "no":
            raise ValueError("BuilderConfig 'no' not found. Available: ['ur']")
        rows = [{"text": text} for text in TEXTS]
        return datasets.IterableDatasetDict({s: datasets.Dataset.from_list(rows).to_iterable_dataset() for s in ("train", "test")})

    monkeypatch.setattr(datasets, "load_dataset", load)
    done, records = bring(tmp_path, "owner/urdu.texts", subset="ur")
    assert called == [("owner/urdu.texts", "ur", True)] and texts_of(records) == TEXTS
    assert {record["source"] for record in records} == {"urdu.texts"} and "Imported from owner/urdu.texts" in (
        Path(done.config.output, "README.md").read_text(encoding="utf-8")
    )
    with pytest.raises(UsageError, match="^--split=dev: owner/name has the splits train, test"):
        bring(tmp_path, "owner/name", split="dev")
    with pytest.raises(UsageError, match="owner/name cannot be read from the hub: BuilderConfig 'no' not found.*--subset"):
        bring(tmp_path, "owner/name", subset="no")


def test_a_hub_id_without_network_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(UsageError, match="owner/name cannot be read from the hub: "):
        bring(tmp_path, "owner/name")


def test_saved_data_sets_have_splits_too(tmp_path: Path) -> None:
    place = as_saved(tmp_path, ALPACA)
    with pytest.raises(UsageError, match="--split=dev: .* has the splits train"):
        bring(tmp_path, place, split="dev")
    with pytest.raises(UsageError, match="was saved without splits"):
        bring(tmp_path, place / "train", split="train")
    with pytest.raises(UsageError, match="belong to hub data sets"):
        bring(tmp_path, as_jsonl(tmp_path, ALPACA), split="train")


# --- the whole --------------------------------------------------------------------------------------------------------


def test_the_split_is_the_same_in_every_order(tmp_path: Path) -> None:
    rows = [{"text": f"متن نمبر {n}"} for n in range(2000)]
    first, _ = bring(tmp_path, jsonl(tmp_path / "a.jsonl", rows), heldout_share=0.1, shard_records=500)
    random.Random(0).shuffle(rows)
    second, _ = bring(tmp_path, jsonl(tmp_path / "b.jsonl", rows), heldout_share=0.1)
    assert 150 < first.records["heldout"] < 250
    sides = [{record["id"] for record in plain_tfrecord.directory(done.config.output)[1]["heldout"]} for done in (first, second)]
    assert sides[0] == sides[1]
    assert sum(name.startswith("train-") for name in os.listdir(first.config.output)) == 4


def test_limit_normalise_and_patterns(tmp_path: Path) -> None:
    place = tmp_path / "texts"
    place.mkdir()
    for name in "ab":
        jsonl(place / f"{name}.jsonl", [{"text": f"\u0643\u062a\u0627\u0628 {name} {n}"} for n in range(5)])
    done, records = bring(tmp_path, f"{place}/**/*.jsonl", limit=7, normalise=True)
    assert (done.records.total(), len(records)) == (7, 7) and sorted(texts_of(records))[0] == "کتاب a 0"
    with pytest.raises(UsageError, match="no language pack for 'xx'"):
        bring(tmp_path, place, language="xx", normalise=True)
    jsonl(place / "c.txt", [{}])
    with pytest.raises(UsageError, match=r"files of several kinds \(.jsonl, .txt\); name one of them: --input='.*/\*\*/\*.jsonl'"):
        bring(tmp_path, place)


def test_data_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    source = as_jsonl(tmp_path, ALPACA)
    config = ImportConfig(input=str(source), output=str(tmp_path / "out"), language="ur", licence="MIT")
    import_data(config)
    with pytest.raises(UsageError, match="has data already"):
        import_data(config)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--language=urdu", "--licence=MIT"], "--language=urdu: expected a BCP-47 code"),
        (["--language=ur"], "--licence is missing"),
        (["--language=ur", "--licence=MIT", "--heldout_share=2"], "--heldout_share=2.0: it must be between 0 and 0.5"),
        (["--language=ur", "--licence=MIT", "--columns=instruction"], "--columns=instruction: expected FIELD=COLUMN"),
        (["--language=ur", "--licence=MIT", "--limit=-1"], "--limit=-1: it must be at least 0"),
        (["--language=ur", "--licence=MIT", "--documents=page"], "--documents=page: expected one of auto, file"),
    ],
)
def test_the_command_and_its_errors_of_use(tmp_path: Path, flags: list[str], words: str) -> None:
    source = as_jsonl(tmp_path, ALPACA)
    command = [sys.executable, "launch/import_data.py", f"--input={source}", f"--output={tmp_path}/out", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_the_command(tmp_path: Path) -> None:
    source = as_jsonl(tmp_path, ALPACA)
    flags = [f"--input={source}", f"--output={tmp_path}/out", "--language=ur", "--licence=CC BY 4.0", "--heldout_share=0"]
    done = subprocess.run([sys.executable, "launch/import_data.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "rows      2 read as alpaca",
        "records   2 train",
        "records   0 heldout",
        "licence   CC BY 4.0",
        f"data      {tmp_path}/out",
    ]


IMPORT = """
import sys
sys.path.insert(0, {root!r})
from data_gen.import_data import ImportConfig, import_data
import_data(ImportConfig(input=sys.argv[1], output=sys.argv[2], language="ur", licence="MIT", shard_records=2000))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """20 times as much data, 130 MB of it, takes less than 16 MB more."""
    peaks = []
    for number in (1000, 20_000):
        source = jsonl(tmp_path / f"{number}.jsonl", [{"text": f"متن نمبر {n} " * 300} for n in range(number)])
        code = [sys.executable, "-c", IMPORT.format(root=str(ROOT)), str(source), str(tmp_path / f"out{number}")]
        peaks.append(int(subprocess.run(code, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 16_000
