"""What comes of rows and pages, good ones and broken ones, in every format: nothing is lost without a word.

Archives are written by warcio, packed data by the standard library and zstandard, Parquet by pyarrow.
"""

import gzip
import io
import json
import lzma
import pickle
import random
import sys
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow
import pytest
import zstandard
from datatrove.data import Document
from pyarrow import parquet
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data_gen import UsageError
from data_gen import ingest_readers as readers
from data_gen.ingest_readers import find_input, reader
from data_gen.ingest_rows import FAULTS, Origin, document_of, json_row
from data_gen.web_archive import Archived, decoded, html_text, page_of, read_records

TEXT = "لاہور ایک پرانا شہر ہے۔ یہاں بہت سے باغ ہیں۔"
ROWS = [{"id": f"p{k}", "text": f"{TEXT} {k}", "url": f"https://a.example/{k}", "date": "2024-05-01"} for k in range(10)]


def jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def read(path: Path | str, tasks: int = 1, **options: Any) -> list[Document]:
    """All documents, by all tasks; each has its own copy of the reader, as a worker has."""
    step = pickle.dumps(reader(str(path), **options))
    return [document for rank in range(tasks) for document in pickle.loads(step).run(None, rank, tasks)]


def refused(path: Path | str, **options: Any) -> str:
    with pytest.raises(UsageError) as error:
        read(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def texts(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


# --- JSONL


def test_a_row_is_a_document_with_its_provenance(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(jsonl(ROWS))
    documents = read(file, origin=Origin(licence="CC0-1.0", source="crawl"))
    assert texts(documents) == [row["text"] for row in ROWS]
    assert documents[3].id == "p3"
    assert documents[3].metadata == {
        "file": str(file), "row": 4, "licence": "CC0-1.0", "source": "crawl", "source_id": "p3", "url": "https://a.example/3",
        "date": "2024-05-01",
    }  # fmt: skip


@pytest.mark.parametrize(("name", "packed"), [
    ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor().compress), ("a.ndjson.xz", lzma.compress),
    ("a.json.gz", lambda data: gzip.compress(data[:300]) + gzip.compress(data[300:])),  # packed in two members
    ("b.jsonl.zst", lambda data: zstandard.compress(data[:300]) + zstandard.compress(data[300:])),
])  # fmt: skip
def test_packed_files_are_read_to_their_end(tmp_path: Path, name: str, packed: Callable[[bytes], bytes]) -> None:
    (tmp_path / name).write_bytes(packed(jsonl(ROWS)))
    assert texts(read(tmp_path)) == [row["text"] for row in ROWS]


@pytest.mark.parametrize(("name", "packed"), [
    ("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.ZstdCompressor().compress), ("a.jsonl.xz", lzma.compress),
])  # fmt: skip
def test_a_packed_file_that_is_cut_off_is_an_error_that_says_where(
    tmp_path: Path, name: str, packed: Callable[[bytes], bytes]
) -> None:
    rng = random.Random(0)
    rows = [{"text": "".join(chr(rng.randrange(0x620, 0x6D0)) for _ in range(80))} for _ in range(2000)]
    data = packed(jsonl(rows))
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    documents, step = [], reader(str(tmp_path))
    with pytest.raises(UsageError, match=rf"{name} cannot be read on after row (\d+): .*cut|ended|Truncated") as error:
        for document in step.run():
            documents.append(document)
    assert texts(documents) == [row["text"] for row in rows[: len(documents)]]
    assert 500 < len(documents) < 1500 and f"after row {len(documents)}:" in str(error.value)


def test_damaged_bytes_within_a_packed_file_are_an_error(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(jsonl(ROWS * 500)))
    data[len(data) // 2 : len(data) // 2 + 20] = b"\xff" * 20
    (tmp_path / "a.jsonl.gz").write_bytes(data)
    assert "cannot be read on after row" in refused(tmp_path)
    (tmp_path / "a.jsonl.gz").write_bytes(b"this is no gzip")
    assert "after row 0: Not a gzipped file" in refused(tmp_path)


def test_broken_lines_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "a", "url": null}', b'{"text": "b", ', b"", b"\xff\xfe\x00", b'{"text": null}', b'"c"',
        b'{"text": ""}',
        b'{"text": ["d"]}', b'{"url": "e"}', '{"text": "\\ud83d اردو"}'.encode(), b'{"text": "f", "score": NaN}', b"[" * 100_000,
        b'{"text": "g"}',
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(b"\r\n".join(lines))
    documents = read(tmp_path)
    by_row = {document.metadata["row"]: document for document in documents}
    assert list(by_row) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]  # an empty line is no row
    assert {row: document.text for row, document in by_row.items() if document.text} == {
        1: "a",
        10: "\ufffd اردو",
        11: "f",
        13: "g",
    }
    faults = {row: document.metadata["fault"] for row, document in by_row.items() if "fault" in document.metadata}
    assert faults == {2: "not_json", 4: "not_utf8", 6: "no_object", 8: "no_text", 12: "not_json"}
    assert set(faults.values()) <= set(FAULTS)
    assert all(by_row[row].metadata["why"] for row in faults)
    assert by_row[2].id == f"{tmp_path}/a.jsonl:2"


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_LINE", 100)
    (tmp_path / "a.jsonl").write_bytes(
        b'{"text": "a"}\n' + b"x" * 1000 + b'\n{"text": "b"}\n' + b'{"text": "' + b"y" * 88 + b'"}\n'
    )
    documents = read(tmp_path)
    assert texts(documents) == ["a", "", "b", ""]
    assert [document.metadata.get("fault") for document in documents] == [None, "too_large", None, "too_large"]


def test_the_column_of_the_text_has_a_name(tmp_path: Path) -> None:
    rows = [{"content": "a", "id": 7}, {"content": "b", "id": 8}]
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows))
    said = refused(tmp_path)
    assert "has no column 'text', but content, id; say by text_key" in said
    documents = read(tmp_path, origin=Origin(text_key="content"))
    assert [(document.text, document.id) for document in documents] == [("a", "7"), ("b", "8")]
    # Known at once, and not at the end of a large file.
    (tmp_path / "a.jsonl").write_bytes(jsonl(rows * 60) + b"broken\n")
    with pytest.raises(UsageError, match="no column"):
        list(zip(range(110), reader(str(tmp_path)).run(), strict=False))


def test_a_json_list_is_no_jsonl(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    assert "begins with a JSON list" in refused(tmp_path)


@pytest.mark.parametrize(("row", "known"), [
    ({"text": "a", "URL": "u", "timestamp": datetime(2024, 5, 1, tzinfo=UTC)}, {"url": "u", "date": "2024-05-01T00:00:00+00:00"}),
    ({"text": "a", "warc_headers": {"warc-target-uri": "u", "warc-date": "2021"}}, {"url": "u", "date": "2021"}),
    ({"text": "a", "metadata": {"url": "inner", "license": "CC0"}, "url": None}, {"url": "inner", "licence": "CC0"}),
    ({"text": "a", "metadata": {"url": "inner"}, "url": "own"}, {"url": "own"}),
    ({"text": "a", "license": "CC-BY-4.0", "title": "t", "date": 2020}, {"licence": "CC-BY-4.0", "title": "t", "date": "2020"}),
    ({"text": "a", "url": ["u"], "title": {}, "date": ""}, {}),
])  # fmt: skip
def test_what_is_known_of_a_row_has_one_name(row: dict[str, Any], known: dict[str, str]) -> None:
    document = document_of(row, Origin(licence="given"), "f", 1)
    assert {key: document.metadata.get(key) for key in ("url", "date", "title", "licence")} == {
        "url": None, "date": None, "title": None, "licence": "given", **known
    }  # fmt: skip


def test_orjson_and_json_read_a_line_alike() -> None:
    for line in (b'{"a": 1}', '{"text": "اردو \\u0627"}'.encode(), b'{"a": 1.5e3, "b": [null, true]}', b' {"a": ""} \r\n'):
        assert json_row(line) == (json.loads(line), "", "")


# --- files


def test_tasks_divide_the_files_and_what_is_read_is_the_same(tmp_path: Path) -> None:
    for k in range(5):
        (tmp_path / f"{k}.jsonl").write_bytes(jsonl(ROWS[2 * k : 2 * k + 2]))
    whole = sorted(texts(read(tmp_path)))
    assert len(whole) == 10
    step = reader(str(tmp_path))
    for tasks in (1, 2, 4, 5, 6, 7, 11, 16):
        documents = [list(step.run(None, rank, tasks)) for rank in range(tasks)]
        assert sorted(text for part in documents for text in texts(part)) == whole
        assert max(map(len, documents)) <= max(2, -(-10 // tasks) + 1)


def test_tasks_divide_one_file_by_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl.gz"
    file.write_bytes(gzip.compress(jsonl(ROWS) + b"broken\n\n"))
    whole = {document.metadata["row"]: (document.text, document.metadata) for document in read(file)}
    assert len(whole) == 11
    for tasks in (2, 4, 13):
        documents = read(file, tasks)
        assert {document.metadata["row"]: (document.text, document.metadata) for document in documents} == whole
        assert len(documents) == 11


def test_files_that_come_later_change_no_task(tmp_path: Path) -> None:
    for name in ("b", "c"):
        (tmp_path / f"{name}.jsonl").write_bytes(jsonl(ROWS[:1]))
    step = reader(str(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS[:1]))
    assert [document.metadata["file"] for rank in (0, 1) for document in step.run(None, rank, 2)] == [
        str(tmp_path / "b.jsonl"), str(tmp_path / "c.jsonl")
    ]  # fmt: skip


def test_inputs_are_found(tmp_path: Path) -> None:
    for name in ("x/a.jsonl", "x/y/b.JSONL.GZ", "x/_c.jsonl", "x/.c.jsonl", "x/notes.txt", "w/c.warc.wet.gz", "w/d.warc.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert find_input(str(tmp_path / "x")) == ("jsonl", [str(tmp_path / "x/a.jsonl"), str(tmp_path / "x/y/b.JSONL.GZ")])
    assert find_input(str(tmp_path / "x/*.jsonl")) == ("jsonl", [str(tmp_path / "x/a.jsonl")])
    assert find_input(str(tmp_path / "w")) == ("warc", [str(tmp_path / "w/c.warc.wet.gz"), str(tmp_path / "w/d.warc.gz")])
    assert find_input(str(tmp_path / "x/notes.txt"), "jsonl") == ("jsonl", [str(tmp_path / "x/notes.txt")])
    assert find_input("wikimedia/wikipedia") == ("hf", [])
    assert "(jsonl, warc); choose one by format" in refused(tmp_path)
    assert find_input(str(tmp_path), "warc")[0] == "warc"
    assert "no file there that ends in .parquet (or in these" in refused(tmp_path, format="parquet")
    assert "no file there" in refused(tmp_path / "none")
    assert "expected one of auto, jsonl, parquet, warc, hf" in refused(tmp_path, format="csv")
    assert "cannot be read" in refused("nosuchprotocol://x")


def test_files_behind_an_fsspec_url() -> None:
    fs = fsspec.filesystem("memory")
    try:
        for k in range(3):
            fs.pipe(f"/web/{k}/pages.jsonl.gz", gzip.compress(jsonl(ROWS[k : k + 1])))
        for path in ("memory://web", "memory://web/**/*.gz", "memory://web/*/pages.jsonl.gz"):
            documents = read(path, tasks=2)
            assert sorted(texts(documents)) == [row["text"] for row in ROWS[:3]]
        assert documents[0].metadata["file"] == "memory:///web/0/pages.jsonl.gz"
    finally:
        fs.rm("/web", recursive=True)


# --- Parquet, data sets


def test_parquet_rows_without_text_are_documents_too(tmp_path: Path) -> None:
    rows = [{"text": text, "url": f"u{k}", "when": k} for k, text in enumerate(["a", None, "", *"bcdefgh"] * 20)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=50)
    documents = read(tmp_path)
    assert [(document.text, document.metadata["url"]) for document in documents] == [
        (row["text"] or "", row["url"]) for row in rows
    ]
    assert [document.metadata["row"] for document in documents] == list(range(1, 201))
    assert sorted(document.metadata["url"] for document in read(tmp_path, tasks=3)) == sorted(row["url"] for row in rows)  # type: ignore[type-var]
    assert "has no column 'body', but text, url, when" in refused(tmp_path, origin=Origin(text_key="body"))


def test_damaged_parquet_is_an_error(tmp_path: Path) -> None:
    parquet.write_table(pyarrow.Table.from_pylist(ROWS * 500), tmp_path / "a.parquet", row_group_size=100)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:-1000])
    assert "a.parquet cannot be read on after row 0: " in refused(tmp_path)
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 4] + bytes(len(whole) // 2) + whole[len(whole) * 3 // 4 :])
    assert "a.parquet cannot be read on after row" in refused(tmp_path)


def test_data_sets_that_were_saved(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([*ROWS, {"id": "x", "text": "", "url": "", "date": ""}])
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(str(tmp_path / "two"))
    for tasks in (1, 3):
        documents = read(tmp_path / "one", tasks, origin=Origin(licence="CC0"))
        assert sorted(texts(documents)) == ["", *(row["text"] for row in ROWS)]
    assert documents[0].metadata == {
        "file": str(tmp_path / "one"), "licence": "CC0", "source": "", "source_id": "p0", "url": "https://a.example/0",
        "date": "2024-05-01",
    }  # fmt: skip
    assert texts(read(tmp_path / "two", split="test")) == [ROWS[0]["text"]]
    assert "cannot be read" in refused(tmp_path / "two", split="dev")
    assert "no column 'body'" in refused(tmp_path / "one", origin=Origin(text_key="body"))


def test_data_sets_are_streamed(tmp_path: Path) -> None:
    """`datasets` takes a folder where the hub's id would stand."""
    for k in range(2):
        (tmp_path / f"train-{k}.jsonl").write_bytes(jsonl(ROWS[5 * k : 5 * k + 5]))
    for tasks in (1, 2):
        assert sorted(texts(read(tmp_path, tasks, format="hf"))) == [row["text"] for row in ROWS]
    assert "Check the name, subset and split" in refused(tmp_path, format="hf", split="dev")
    assert "from the hub" not in refused("nobody/nothing")


@pytest.mark.parametrize(("name", "options", "module"), [
    ("a.jsonl.zst", {}, "pyarrow"), ("a.parquet", {}, "pyarrow"), ("a.jsonl", {"format": "hf"}, "datasets"),
])  # fmt: skip
def test_a_library_that_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, str], module: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    assert f"needs {module}: pip install '.[import]'" in refused(tmp_path, **options)


# --- web archives

ARTICLE = (
    "<p>" + "</p><p>".join(f"باغ نمبر {k} میں بہت سے درخت ہیں اور لوگ شام کو یہاں سیر کرنے آتے ہیں۔" for k in range(8)) + "</p>"
)
MENU = "<nav><ul>" + "".join(f"<li><a href='/{k}'>صفحہ {k}</a></li>" for k in range(30)) + "</ul></nav>"
HTML = (
    f"<html><head><meta charset='utf-8'><title>باغ &amp; \nشہر</title><script>var x = 'سکرپٹ';</script></head><body>{MENU}"
    f"<article><h1>شہر کے باغ</h1>{ARTICLE}</article><footer>جملہ حقوق محفوظ ہیں</footer></body></html>"
)


def archive(answers: list[tuple[list[tuple[str, str]], bytes]], *, status: str = "200 OK", packed: bool = True) -> bytes:
    """A WARC file by warcio: its information, and for each answer the request and the response."""
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=packed)
    writer.write_record(writer.create_warcinfo_record("a.warc", {"software": "test"}))
    for k, (headers, body) in enumerate(answers):
        record = writer.create_warc_record(
            f"https://a.example/{k}", "response", payload=io.BytesIO(body),
            http_headers=StatusAndHeaders(status, headers, "HTTP/1.1"), warc_headers_dict={"WARC-Date": "2024-05-01T00:00:00Z"},
        )  # fmt: skip
        asked = writer.create_warc_record(
            f"https://a.example/{k}",
            "request",
            http_headers=StatusAndHeaders("GET / HTTP/1.1", [("Host", "a.example")], is_http_request=True),
        )
        writer.write_request_response_pair(asked, record)
    return out.getvalue()


PLAIN = [("Content-Type", "text/html; charset=utf-8")]


def test_a_page_is_its_text_without_menus_scripts_and_footers(tmp_path: Path) -> None:
    (tmp_path / "a.warc.gz").write_bytes(archive([(PLAIN, HTML.encode())]))
    (document,) = read(tmp_path, origin=Origin(licence="CC-BY-4.0", text_key="body"))
    assert "باغ نمبر 7 میں" in document.text
    assert not any(word in document.text for word in ("صفحہ", "سکرپٹ", "حقوق", "<"))
    said = document.metadata
    assert (said["url"], said["date"], said["title"]) == ("https://a.example/0", "2024-05-01T00:00:00Z", "باغ & شہر")
    assert said["source_id"].startswith("<urn:uuid:") and said["licence"] == "CC-BY-4.0"


def test_bodies_are_unpacked_and_read_in_their_charset(tmp_path: Path) -> None:
    body, other = (
        HTML.encode(),
        HTML.replace("utf-8", "windows-1256").replace("ں", "ن").replace("ٹ", "ت").encode("cp1256", "ignore"),
    )
    chunked = b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in (body[:101], body[101:])) + b"0\r\n\r\n"
    kind = [("Content-Type", "text/html")]
    deflate = zlib.compressobj(wbits=-15)
    answers = [
        (PLAIN, body),
        ([*kind, ("Transfer-Encoding", "chunked")], chunked),
        ([*kind, ("Transfer-Encoding", "chunked")], body.replace(b"<body>", b"\r\n<body>\r\n")),  # joined already
        ([*kind, ("Content-Encoding", "gzip")], gzip.compress(body)),
        ([*kind, ("Content-Encoding", "gzip")], body),  # unpacked already
        ([*kind, ("Content-Encoding", "deflate")], zlib.compress(body)),
        ([*kind, ("Content-Encoding", "deflate")], deflate.compress(body) + deflate.flush()),
        ([("content-type", "Text/HTML;Charset='UTF-8'")], body),
    ]
    (tmp_path / "a.warc.gz").write_bytes(archive(answers))
    found = texts(read(tmp_path))
    assert len(found) == 8 and set(found) == {html_text(HTML)}
    (tmp_path / "a.warc.gz").write_bytes(archive([(kind, other)]))
    (document,) = read(tmp_path)
    assert "درخت" in document.text and "\ufffd" not in document.text
    late = b"d\r\n<html><p>one \r\n0\r\n\r\n7\r\n<p>two \r\n"  # what comes after the end is none of it
    (tmp_path / "a.warc.gz").write_bytes(archive([([*kind, ("Transfer-Encoding", "chunked")], late)]))
    assert texts(read(tmp_path)) == ["one"]


@pytest.mark.parametrize(("content", "kind", "text"), [
    ("سلام".encode("cp1256"), "text/html; charset=windows-1256", "سلام"),
    (b"<meta http-equiv=x content='text/html; charset=windows-1254'>\xfe", "", "ş"),
    ("สวัสดี".encode("cp874"), "text/html; charset=TIS-620", "สวัสดี"),
    ("ğ“".encode("cp1254"), "text/html; charset=ISO-8859-9", "ğ“"),  # as browsers do
    ("é“".encode("cp1252"), "text/html; charset=latin1", "é“"),
    ("سلام".encode(), "text/html; charset=nonsense", "سلام"),
    ("سلام".encode(), "text/html; charset=us-ascii-x", "سلام"),
    ("سلام".encode("utf-8-sig"), "text/html; charset=windows-1256", "سلام"),
    ("سلام".encode("utf-16"), "text/html", "سلام"),
    (b"\xff\xfeabc"[2:] + b"\xd8", "text/html; charset=utf-8", "abc\ufffd"),
])  # fmt: skip
def test_charsets(content: bytes, kind: str, text: str) -> None:
    assert decoded(content, kind).endswith(text)


def test_what_is_no_page_gives_no_document_and_what_is_broken_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_gen.web_archive.MAX_RECORD", 20_000)
    monkeypatch.setattr("data_gen.web_archive.MAX_TAGS", 3_000)
    answers = [
        ([("Content-Type", "image/png")], b"\x89PNG"), ([], b"<html>"), (PLAIN, b""), (PLAIN, b"<html><body></body></html>"),
        ([*PLAIN, ("Content-Encoding", "br")], b"\x0b\x02\x80"), (PLAIN, b"<p>" + b"x" * 50_000), (PLAIN, b"\x00\xff<<<html" * 100),
        (PLAIN, HTML.encode()), (PLAIN, b"<br>" * 4_000),
    ]  # fmt: skip
    data = archive(answers)
    (tmp_path / "a.warc.gz").write_bytes(data)
    documents = read(tmp_path)
    by_url = {document.metadata["url"][-1]: document for document in documents}
    assert sorted(by_url) == list("12345678")
    faults = {k: document.metadata["fault"] for k, document in by_url.items() if "fault" in document.metadata}
    assert faults == {"4": "packed", "5": "too_large", "8": "too_large"}
    assert [by_url[k].text for k in "123458"] == [""] * 6 and by_url["7"].text
    assert sorted(document.metadata["url"][-1] for document in read(tmp_path, tasks=4)) == list("12345678")
    (tmp_path / "a.warc.gz").write_bytes(archive([(PLAIN, HTML.encode())], status="404 Not Found"))
    assert read(tmp_path) == []


def test_pages_of_careless_servers_are_pages() -> None:
    kind, body = b"Content-Type: text/html", HTML.encode()
    for answer in (
        b"HTTP/1.1 200 OK\n" + kind + b"\nX: y\n\n" + body, b"HTTP/1.1 200 OK\r\n\r\n" + body,
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n \n<!DOCTYPE html>" + body, b"HTTP/1.1 200 OK\r\nX: y\r\n\n" + body,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(body),
    ):  # fmt: skip
        page = page_of(Archived(0, {"warc-type": "response"}, answer))
        assert page and page.text == html_text(HTML), answer[:60]
    for other in (b"\x89PNG\n\n<html>", b"", b'{"a": "<html>"}'):
        assert page_of(Archived(0, {"warc-type": "response"}, b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n" + other)) is None


def wet(texts: list[str]) -> bytes:
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=False)
    for k, text in enumerate(texts):
        writer.write_record(writer.create_warc_record(
            f"https://a.example/{k}", "conversion", payload=io.BytesIO(text.encode()), length=len(text.encode()),
            warc_content_type="text/plain",
        ))  # fmt: skip
    return out.getvalue()


def test_wet_files_have_text(tmp_path: Path) -> None:
    lines = [TEXT, "", "ایک\r\n\r\nWARC/1.0 دو", TEXT * 100]
    for name, data in (
        ("a.warc.wet", wet(lines)),
        ("a.warc.wet.gz", gzip.compress(wet(lines))),
        ("a.wet.zst", zstandard.compress(wet(lines))),
    ):
        (tmp_path / name).write_bytes(data)
        documents = read(tmp_path / name)
        assert texts(documents) == lines
        assert documents[3].metadata["url"] == "https://a.example/3"


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_that_is_cut_off_is_an_error_wherever_the_cut_is(tmp_path: Path, packed: bool) -> None:
    whole = wet([f"{k} {TEXT}" for k in range(30)])
    bounds = [match for match in range(len(whole)) if whole.startswith(b"WARC/1.0\r\n", match)]
    for cut in random.Random(0).sample(range(1, len(whole) - 5), 60):
        data = whole[:cut]
        name = "a.warc.wet"
        if packed:
            name, data = "a.warc.wet.gz", gzip.compress(whole)[: cut * len(gzip.compress(whole)) // len(whole)]
        elif any(bound - 4 <= cut <= bound for bound in bounds):
            continue  # between two records: what is there is whole
        (tmp_path / name).write_bytes(data)
        assert (
            "the record that begins here is cut off" in (said := refused(tmp_path / name)) or "cannot be read on after row" in said
        ), cut
        assert str(tmp_path / name) in said


def test_what_is_no_archive_is_an_error_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(b"<html>\n")
    assert "a.warc, byte 0 of its content: no WARC record begins here, but b'<html>" in refused(tmp_path)
    good = wet([TEXT])
    (tmp_path / "a.warc").write_bytes(good + b"garbage\r\n" + good)
    assert f"byte {len(good)} of its content: no WARC record begins" in refused(tmp_path)
    (tmp_path / "a.warc").write_bytes(b"WARC/1.0\r\nWARC-Type: response\r\n\r\nabc")
    assert "has no Content-Length" in refused(tmp_path)
    (tmp_path / "a.warc").write_bytes(b"")
    assert read(tmp_path) == []


def test_records_are_where_they_are_said_to_be() -> None:
    data = archive([(PLAIN, HTML.encode()), (PLAIN, b"x")], packed=False)
    records = list(read_records(io.BytesIO(data), "a"))
    assert [record.headers["warc-type"] for record in records] == ["warcinfo", *["response", "request"] * 2]
    for record in records:
        assert data[record.begins :].startswith(b"WARC/1.")
    assert page_of(records[0]) is None and page_of(records[2]) is None


# --- the sample


def test_the_sample_is_a_language_s_own() -> None:
    documents = read("sample", language="urd_Arab")
    assert len(documents) > 150
    assert not any({"label", "language", "kind"} & document.metadata.keys() for document in documents)  # the truth is for tests
    assert "no sample is shipped for language=xyz_Latn; there are " in refused("sample", language="xyz_Latn")
