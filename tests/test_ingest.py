"""Ingests of a small corpus, tasks one after the other in this process: what goes and why, that tasks make no difference, and that
a start goes on where the last one stopped. Other executors: test_ingest_executors.py.
"""

import gzip
import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_gen import UsageError, documents, ingest_report, ingest_rows, near_documents
from data_gen.import_data import ImportConfig, import_data
from data_gen.ingest import run, source_of
from data_gen.ingest_blocks import script_of
from data_gen.ingest_config import IngestConfig
from data_gen.ingest_report import Summary
from launch.app import check_types, load_recipe
from tests import ingest_corpus, plain_tfrecord

KIND = {f"https://{ingest_corpus.HOSTS[n % 4]}/{n}": kind for n, kind in enumerate(ingest_corpus.FAULTS, 40)}
KIND |= {"https://kitab.example/48": "duplicate", "https://www.sehat.example/5": "near_duplicate"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ingest_corpus.write(tmp_path_factory.mktemp("corpus"), ingest_corpus.pages(40))


def config_of(corpus: Path | str, **more: Any) -> IngestConfig:
    rules = more.pop("rules", {})
    config = IngestConfig(input=str(corpus), **{"licence": "CC0 1.0", "workers": 1, **more})
    for name, value in rules.items():
        setattr(config.rules, name, value)
    return config


def ingest(workdir: Path, corpus: Path | str, **more: Any) -> Summary:
    summary = run(config_of(corpus, **more), str(workdir), say=lambda line: None)
    assert summary
    return summary


def lines(workdir: Path, folder: str) -> list[dict[str, Any]]:
    files = sorted((workdir / folder).glob("*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.open(file, "rt", encoding="utf-8")]


def in_order(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


# --- what comes out -------------------------------------------------------------------------------------------------------


def test_each_page_stays_or_goes_for_its_reason(tmp_path: Path, corpus: Path) -> None:
    summary = ingest(tmp_path, corpus)
    removed = {row["url"]: row["reason"] for row in lines(tmp_path, "removed")}
    near = {url for url, reason in removed.items() if reason in ("duplicate", "near_duplicate")}
    assert {url: reason for url, reason in removed.items() if url not in near} == {
        url: kind for url, kind in KIND.items() if "duplicate" not in kind
    }
    # One of the two equal pages (3 and 48), and the shorter of the two near ones (5 and 49).
    assert len(near) == 2 and "https://www.sehat.example/5" in near and near & {"https://safar.example/3", "https://kitab.example/48"}
    rows = ingest_corpus.pages(40)
    texts = {row["url"]: row["text"] for row in rows if row["url"] not in removed}
    assert {row["url"]: row["text"] for row in lines(tmp_path, "documents")} == texts
    counts = summary.manifest["counts"]
    assert counts["read"] == len(rows) == summary.manifest["documents"] + sum(counts["removed"].values())
    assert counts["removed"] == {kind: 1 for kind in [*ingest_corpus.FAULTS, "duplicate", "near_duplicate"]}


def test_a_document_says_where_it_is_from(tmp_path: Path, corpus: Path) -> None:
    ingest(tmp_path, corpus)
    row = lines(tmp_path, "documents")[0]
    text = ingest_corpus.prose()[0]
    own = hashlib.sha256(json.dumps({"text": f"urd_Arab\n{text}"}, ensure_ascii=False, separators=(",", ":")).encode())
    assert row == {
        "id": own.hexdigest()[:16], "text": text, "language": "urd_Arab", "url": "https://kitab.example/0",
        "domain": "kitab.example", "date": "2024-05-01", "licence": "CC0 1.0", "source": corpus.name, "news": False,
        "file": "0.jsonl", "row": 1,
    }  # fmt: skip


def test_the_manifest_tells_the_files_as_they_are(tmp_path: Path, corpus: Path) -> None:
    manifest = ingest(tmp_path, corpus, tasks=2).manifest
    assert manifest == json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    documents = lines(tmp_path, "documents")
    assert manifest["documents"] == len(documents) == sum(one["documents"] for one in manifest["files"])
    assert manifest["bytes"] == sum(len(row["text"].encode()) for row in documents)
    for one in manifest["files"]:
        content = (tmp_path / one["path"]).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert manifest["counts"]["languages"] == {"urd_Arab": 42, "pes_Arab": 1, "script Devanagari": 1}
    assert manifest["counts"]["domains"]["sehat.example"] == sum(row["domain"] == "sehat.example" for row in documents)
    assert manifest["config"]["rules.min_letters"] == 200 and "workers" not in manifest["config"]
    assert not (tmp_path / "work").exists()
    assert f"| near_duplicate | 1 | {len(documents)} |" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_the_number_of_tasks_and_the_files_make_no_difference(tmp_path: Path, corpus: Path) -> None:
    rules = {"domain_cap": 8}
    made = {}
    for tasks in (1, 4):
        ingest(tmp_path / str(tasks), corpus, tasks=tasks, rules=rules)
        made[tasks] = [in_order(lines(tmp_path / str(tasks), folder)) for folder in ("documents", "removed")]
    assert made[1] == made[4]
    shuffled = ingest_corpus.pages(40)[::-1]
    ingest(tmp_path / "other", ingest_corpus.write(tmp_path / "files", shuffled, files=2))
    ingest(tmp_path / "uncapped", corpus)
    texts = [sorted((row["id"], row["text"]) for row in lines(tmp_path / name, "documents")) for name in ("other", "uncapped")]
    assert texts[0] == texts[1]
    assert all(count <= 8 for count in json.loads((tmp_path / "1/manifest.json").read_text())["counts"]["domains"].values())


def test_masks_and_cuts_leave_the_id(tmp_path: Path) -> None:
    text = ingest_corpus.prose()[0] + "\n\nرابطے کے لیے ali.khan@mail.example پر لکھیں۔"
    rows = [{"text": text}, {"text": ingest_corpus.prose()[1] + " یہ جملہ ادھورا"}]
    ingest(tmp_path / "w", ingest_corpus.write(tmp_path / "c", rows, files=1))
    masked, cut = lines(tmp_path / "w", "documents")
    assert masked["text"] == text.replace("ali.khan@mail.example", "[e-mail]") and cut["text"] == ingest_corpus.prose()[1]
    for row, given in ((masked, text), (cut, rows[1]["text"])):
        own = json.dumps({"text": f"urd_Arab\n{given}"}, ensure_ascii=False, separators=(",", ":"))
        assert row["id"] == hashlib.sha256(own.encode()).hexdigest()[:16]


def test_news_and_evaluation_data(tmp_path: Path) -> None:
    texts = ingest_corpus.prose()[:20]
    rows = [{"text": text, "url": f"https://{n}.example/{'news/' if n < 10 else ''}{n}"} for n, text in enumerate(texts)]
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"question": " ".join(texts[12].split()[3:18])}, ensure_ascii=False), encoding="utf-8")
    ingest(tmp_path / "w", ingest_corpus.write(tmp_path / "c", rows), decontaminate=(str(asked),), rules={"max_news_share": 0.25})
    kept = {row["url"]: row["news"] for row in lines(tmp_path / "w", "documents")}
    assert (sum(kept.values()), len(kept)) == (3, 12)  # of 9 others; 3 / 12 is a quarter
    reasons = {row["url"]: row["reason"] for row in lines(tmp_path / "w", "removed")}
    assert reasons.pop("https://12.example/12") == "evaluation_data"
    assert set(reasons.values()) == {"news_share"} and len(reasons) == 7


def test_a_rows_own_licence_goes_before(tmp_path: Path) -> None:
    texts = ingest_corpus.prose()
    rows = [{"text": texts[0], "licence": "CC BY 4.0"}, {"text": texts[1], "license": "MIT"}, {"text": texts[2]}]
    summary = ingest(tmp_path / "w", ingest_corpus.write(tmp_path / "c", rows))
    assert summary.manifest["counts"]["licences"] == {"CC BY 4.0": 1, "CC0 1.0": 1, "MIT": 1}


def test_equal_runs_give_equal_files(tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for second in (1e9, 2e9):
        monkeypatch.setattr("time.time", lambda now=second: now)
        ingest(tmp_path / str(second), corpus, tasks=2)
        made.append({file.relative_to(tmp_path / str(second)): file.read_bytes() for file in tmp_path.glob(f"{second}/*/*.gz")})
    assert made[0] == made[1] and len(made[0]) >= 5  # of each task the documents and what went in `clean`, and in `choose`


def test_what_was_removed_leads_back_to_its_row(tmp_path: Path) -> None:
    source = ingest_corpus.write(tmp_path / "c", ingest_corpus.pages(10), files=2)
    with open(source / "1.jsonl", "a", encoding="utf-8") as file:
        file.write("broken\n")
    ingest(tmp_path / "w", source)
    for row in lines(tmp_path / "w", "removed"):
        line = (source / row["file"]).read_text(encoding="utf-8").splitlines()[row["row"] - 1]
        assert line == "broken" if row["reason"] == "not_json" else json.loads(line)["url"] == row["url"]


def test_every_reason_has_its_meaning() -> None:
    assert [*ingest_report.REASONS][: len(ingest_rows.FAULTS)] == [*ingest_rows.FAULTS]
    assert [*ingest_report.REASONS][-len(near_documents.CHOICES) + 1 :] == [*near_documents.CHOICES[1:]]
    assert ingest_report.REASONS.keys() == {*ingest_rows.FAULTS, *documents.REASONS}


def test_a_corpus_of_nothing_gives_nothing(tmp_path: Path) -> None:
    source = ingest_corpus.write(tmp_path / "c", [{"text": ""}] * 3, files=1)
    summary = ingest(tmp_path / "w", source, tasks=2)
    assert (summary.manifest["documents"], summary.manifest["files"]) == (0, [])
    assert "3 empty" in str(summary)


# --- bad input ------------------------------------------------------------------------------------------------------------


def test_another_language_than_named_stops(tmp_path: Path) -> None:
    persian = [{"text": f"{ingest_corpus.PERSIAN} شمارهٔ {n}."} for n in range(60)]
    source = ingest_corpus.write(tmp_path / "c", persian, files=1)
    with pytest.raises(UsageError, match=r"not in urd_Arab: of 60 documents 0% are.*pes_Arab 100%.*--config.language"):
        ingest(tmp_path / "w", source)
    with pytest.raises(UsageError, match="of 50 documents"):
        ingest(tmp_path / "w", source, check_after=50)  # nothing was completed: another config may be tried
    assert ingest(tmp_path / "w", source, min_language_share=0.0).manifest["documents"] == 0
    hindi = [{"text": ingest_corpus.FAULTS["wrong_script"]["text"] + str(n)} for n in range(60)]
    with pytest.raises(UsageError, match="script Devanagari 100%"):
        ingest(tmp_path / "w2", ingest_corpus.write(tmp_path / "h", hindi, files=1))
    few = ingest_corpus.write(tmp_path / "few", persian[:49], files=1)
    assert ingest(tmp_path / "w3", few).manifest["documents"] == 0  # too few to say anything
    with pytest.raises(UsageError, match="of 60 documents 0%"):
        ingest(tmp_path / "w4", source, tasks=3)  # 20 each
    assert ingest(tmp_path / "w4", source, tasks=3, min_language_share=0.0).manifest["documents"] == 0


def test_a_file_that_breaks_stops_its_task_alone(tmp_path: Path) -> None:
    rows = ingest_corpus.pages(40)
    source = ingest_corpus.write(tmp_path / "c", rows, files=3)
    for file in source.glob("*.jsonl"):
        file.with_suffix(".jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    whole = (source / "1.jsonl.gz").read_bytes()
    (source / "1.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"1\.jsonl\.gz cannot be read on after row \d+: .*task 1; 1 of 3 tasks"):
        ingest(tmp_path / "w", source, tasks=3)
    done = tmp_path / "w/logs/clean/completions"
    assert sorted(os.listdir(done)) == ["00000", "00002"]
    completed = {name: (done / name).stat().st_mtime_ns for name in os.listdir(done)}
    (source / "1.jsonl.gz").write_bytes(whole)
    said: list[str] = []
    run(config_of(source, tasks=3), str(tmp_path / "w"), say=said.append)
    assert said[0].startswith("clean   1 task of 3")
    assert {name: (done / name).stat().st_mtime_ns for name in completed} == completed
    ingest(tmp_path / "whole", source, tasks=3)
    for folder in ("documents", "removed"):
        assert in_order(lines(tmp_path / "w", folder)) == in_order(lines(tmp_path / "whole", folder))


def test_what_a_failed_task_removed_does_not_stay(tmp_path: Path) -> None:
    good = [{"text": text} for text in ingest_corpus.prose()[:2]]
    source = ingest_corpus.write(tmp_path / "c", good[:1], files=1)
    (source / "1.jsonl").write_text(json.dumps(dict(text="چھوٹا۔")) + "\n" + json.dumps({"text": "x"}) + "\n")
    whole = gzip.compress((source / "1.jsonl").read_bytes())
    (source / "1.jsonl").unlink()
    (source / "1.jsonl.gz").write_bytes(whole + whole[:30])
    with pytest.raises(UsageError, match="cannot be read on after row 2"):
        ingest(tmp_path / "w", source, tasks=2)
    assert len(lines(tmp_path / "w", "removed")) == 2
    (source / "1.jsonl.gz").write_bytes(gzip.compress(json.dumps(good[1]).encode()))
    assert ingest(tmp_path / "w", source, tasks=2).manifest["documents"] == 2
    assert lines(tmp_path / "w", "removed") == []


def test_a_file_that_broke_may_be_left_out(tmp_path: Path) -> None:
    source = ingest_corpus.write(tmp_path / "c", ingest_corpus.pages(20), files=3)
    kept = [json.loads(line) for n in (0, 2) for line in (source / f"{n}.jsonl").read_text(encoding="utf-8").splitlines()]
    (source / "1.jsonl").write_text("[]\n")
    with pytest.raises(UsageError, match="1.jsonl begins with"):
        ingest(tmp_path / "w", source, tasks=3)
    (source / "1.jsonl").unlink()
    said: list[str] = []
    run(config_of(source, tasks=3), str(tmp_path / "w"), say=said.append)
    assert said[0] == "1.jsonl is no longer there and is left out" and said[1].startswith("clean   1 task of 3")
    reference = ingest(tmp_path / "whole", ingest_corpus.write(tmp_path / "two", kept, files=2))
    assert sorted(row["id"] for row in lines(tmp_path / "w", "documents")) == sorted(
        row["id"] for row in lines(tmp_path / "whole", "documents")
    )
    assert reference.manifest["counts"]["read"] == len(kept)
    (source / "3.jsonl").write_text(json.dumps(kept[0]) + "\n")
    with pytest.raises(UsageError, match=r"is finished, and --config\.input=\S+ has files now that were not there \(3.jsonl\)"):
        ingest(tmp_path / "w", source, tasks=3)


def test_a_file_that_a_completed_task_read_may_not_be_left_out(tmp_path: Path) -> None:
    source = ingest_corpus.write(tmp_path / "c", ingest_corpus.pages(20), files=2)
    (source / "0.jsonl").write_text("[]\n")  # one of its two tasks has nothing to do
    with pytest.raises(UsageError, match="0.jsonl begins with"):
        ingest(tmp_path / "w", source, tasks=4)
    assert len(os.listdir(tmp_path / "w/logs/clean/completions")) == 3
    (source / "0.jsonl").unlink()
    with pytest.raises(UsageError, match=r"\(0.jsonl went, and a task that read of it is completed\)"):
        ingest(tmp_path / "w", source, tasks=4)


def test_evaluation_data_stays_what_it_was(tmp_path: Path) -> None:
    asked = tmp_path / "asked.txt"
    asked.write_text(" ".join(ingest_corpus.prose()[0].split()[:20]), encoding="utf-8")
    source = ingest_corpus.write(tmp_path / "c", ingest_corpus.pages(10), files=2)
    (source / "1.jsonl").write_text("[]\n")
    for _ in range(2):  # the same is no change
        with pytest.raises(UsageError, match="1.jsonl begins with"):
            ingest(tmp_path / "w", source, tasks=2, decontaminate=(str(asked),))
    asked.write_text(" ".join(ingest_corpus.prose()[1].split()[:20]), encoding="utf-8")
    with pytest.raises(UsageError, match=r"--config\.decontaminate.*other content than at the first start"):
        ingest(tmp_path / "w", source, tasks=2, decontaminate=(str(asked),))


@pytest.mark.parametrize(("workdir", "says"), [
    ("", "--workdir is empty"), ("nosuch://x", "--workdir=nosuch://x cannot be used"), ("FILE", "cannot be used"),
    ("/proc/nix", "cannot be used"), ("memory://x", "memory:.*config.workers=1"),
])  # fmt: skip
def test_a_work_directory_that_cannot_be_is_said(tmp_path: Path, corpus: Path, workdir: str, says: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=says):
        run(config_of(corpus, tasks=2, workers=2), workdir.replace("FILE", str(tmp_path / "file")), say=lambda line: None)


def test_a_begun_directory_keeps_its_config_and_files(tmp_path: Path) -> None:
    source = ingest_corpus.write(tmp_path / "c", ingest_corpus.pages(10), files=2)
    (source / "2.jsonl").write_text("[]\n")  # no object: its task stops
    with pytest.raises(UsageError, match="2.jsonl begins with"):
        ingest(tmp_path / "w", source, tasks=3)
    with pytest.raises(UsageError, match=r"--config\.tasks is 2, and this work directory was begun with 3"):
        ingest(tmp_path / "w", source, tasks=2)
    with pytest.raises(UsageError, match=r"--config\.rules\.min_letters is 100"):
        ingest(tmp_path / "w", source, tasks=3, rules={"min_letters": 100})
    (source / "2.jsonl").rename(source / "3.jsonl")
    with pytest.raises(UsageError, match=r"other files than at the first start \(3.jsonl came\)"):
        ingest(tmp_path / "w", source, tasks=3)
    with pytest.raises(UsageError, match="unfinished"):
        import_data(ImportConfig(input=f"{tmp_path}/w/documents", output=f"{tmp_path}/out", language="ur"))
    (source / "3.jsonl").unlink()
    (source / "2.jsonl").write_text(json.dumps({"text": ingest_corpus.prose()[20]}) + "\n")
    summary = ingest(tmp_path / "w", source, tasks=3, executor="local", memory_gb=9)  # these may differ
    said: list[str] = []
    again = run(config_of(source, tasks=3), str(tmp_path / "w"), say=said.append)
    assert again == summary and said == [f"{tmp_path}/w is finished"]
    with pytest.raises(UsageError, match=r"--config\.licence is 'MIT'"):
        ingest(tmp_path / "w", source, tasks=3, licence="MIT")


def test_one_process_at_a_time(tmp_path: Path, corpus: Path) -> None:
    (tmp_path / "logs").mkdir()
    hold = "import fcntl, sys; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", hold, f"{tmp_path}/logs/lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout
        other.stdout.readline()
        with pytest.raises(UsageError, match="another process is at"):
            ingest(tmp_path, corpus)
        other.stdin.close()
    ingest(tmp_path, corpus)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"licence": ""}, "licence is empty"),
        ({"tasks": 0}, "tasks is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"language": "urd_Latn"}, "no language pack for 'urd_Latn'.*urd_Arab"),
        ({"check_after": 10}, "check_after is 10"),
        ({"executor": "slurm"}, "slurm.partition is empty"),
        ({"input": "nowhere/*.jsonl"}, "nowhere"),
        ({"rules": {"min_script_share": 2.0}}, "rules.min_script_share"),
        ({"decontaminate": ("nowhere.jsonl",)}, "nowhere.jsonl"),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path: Path, corpus: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ingest(tmp_path, changes.pop("input", corpus), **changes)


# --- beside ---------------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert source_of("gs://bucket/web/*.jsonl.gz") == "web"
    assert source_of("/data/oscar.jsonl.gz") == "oscar"
    assert source_of("sample") == "web_sample"
    assert (script_of("یہ اردو ہے"), script_of("यह हिन्दी है"), script_of("12")) == ("Arabic", "Devanagari", "unknown")


def test_a_work_directory_behind_a_url(corpus: Path) -> None:
    import fsspec

    summary = run(config_of(corpus, tasks=2), "memory://ingest/run", say=lambda line: None)
    assert summary
    fs = fsspec.filesystem("memory")
    files = [fs.cat(f"/ingest/run/{one['path']}") for one in summary.manifest["files"]]
    assert sum(gzip.decompress(content).count(b"\n") for content in files) == summary.manifest["documents"] == 40
    assert not fs.exists("/ingest/run/work")


def test_documents_become_shards_with_their_provenance(tmp_path: Path) -> None:
    rows = ingest_corpus.pages(10)[:10]
    rows[0]["licence"] = "MIT"
    ingest(tmp_path / "w", ingest_corpus.write(tmp_path / "c", rows), source="crawl")
    done = import_data(ImportConfig(input=f"{tmp_path}/w/documents", output=f"{tmp_path}/out", language="ur"))
    assert (done.format, done.licence) == ("ingest", "CC0 1.0, MIT")
    _, splits = plain_tfrecord.directory(str(tmp_path / "out"))
    records = {json.loads(record["meta"])["url"]: record for side in splits.values() for record in side}
    documents = {row["url"]: row for row in lines(tmp_path / "w", "documents")}
    assert records.keys() == documents.keys() == {row["url"] for row in rows}
    for url, row in documents.items():
        meta = json.loads(records[url]["meta"])
        assert {name: meta.get(name) for name in ("id", "domain", "licence", "date")} == {
            name: row.get(name) for name in ("id", "domain", "licence", "date")
        }
        assert (records[url]["text"], records[url]["source"]) == (row["text"], "crawl")


def test_documents_become_records_of_their_own_language(tmp_path: Path) -> None:
    ingest(tmp_path / "w", ingest_corpus.write(tmp_path / "c", ingest_corpus.pages(10)))
    for language in ("hi", "ur-Latn"):
        with pytest.raises(UsageError, match=f"--language={language}.*urd_Arab.*--language=ur"):
            import_data(ImportConfig(input=f"{tmp_path}/w/documents", output=f"{tmp_path}/out", language=language))
    with pytest.raises(UsageError, match=r"is a work directory of launch/ingest.py.*--input=\S+/w/documents"):
        import_data(ImportConfig(input=f"{tmp_path}/w", output=f"{tmp_path}/out", language="ur"))
    assert not (tmp_path / "out/manifest.json").exists()
    assert import_data(ImportConfig(input=f"{tmp_path}/w/documents", output=f"{tmp_path}/out", language="ur-Arab-PK")).rows


def test_the_shipped_pages_go_as_their_labels_say(tmp_path: Path) -> None:
    """The recipe without arguments. The labels are truth that the ingest does not read; of two equal pages either may stay."""
    config = load_recipe("configs/ingest.py")
    check_types(config)
    assert run(config, str(tmp_path), say=lambda line: None)
    removed = {row["url"]: row["reason"] for row in lines(tmp_path, "removed")}
    sample = Path(__file__).resolve().parents[1] / "data_gen/text/web/urd_Arab.jsonl"
    labels = {row["url"]: row["label"] for row in map(json.loads, sample.read_text(encoding="utf-8").splitlines())}
    found = {url: removed.get(url, "clean") for url in labels}
    wrong = [(url, label, found[url]) for url, label in labels.items() if found[url] != label]
    assert not [one for one in wrong if not {one[1], one[2]} <= {"clean", "duplicate", "near_duplicate"}]
    assert Counter(found.values()) == Counter(labels.values()) and len(wrong) <= 8
    assert load_recipe("configs/ingest.py:responses").rules.cut_at == 2500
    with pytest.raises(UsageError, match="expected responses"):
        load_recipe("configs/ingest.py:answers")
