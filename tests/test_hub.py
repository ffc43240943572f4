"""Sending to the hub, against a server on 127.0.0.1 that speaks the few calls of it."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from alif_jax import UsageError
from alif_jax.hub import check_push, push

TOKEN = "hf_" + "x" * 34


class Hub:
    """What the server was asked, and how it answers: private (of a repository that is there), status (other than 200:
    refused)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.private, self.status = True, 200


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self, value: Any, status: int = 200) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            rows = [json.loads(line) for line in body.splitlines() if line.strip()]
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            state.calls.append((self.command, self.path, rows))
            if state.status != 200:
                self.answer({"error": "not for you"}, state.status)
            elif self.path.endswith("/repos/create"):
                url = f"{endpoint}/{rows[0].get('organization', 'owner')}/{rows[0]['name']}"
                self.answer({"url": url, "id": "owner/name"})
            elif "/preupload/" in self.path:
                how = {"uploadMode": "regular", "shouldIgnore": False}
                self.answer({"files": [{"path": file["path"], **how} for file in rows[0]["files"]]})
            elif "/commit/" in self.path:
                commit = {"commitUrl": f"{endpoint}/owner/name/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
                self.answer(commit | {"hookOutput": "", "success": True})
            elif "/revision/" in self.path or self.path.startswith(("/api/models/", "/api/datasets/")):
                about = {"id": "owner/name", "private": state.private, "sha": "0" * 40}
                self.answer(about | {"siblings": [], "tags": [], "downloads": 0})
            else:
                self.answer({"isValid": True})

        do_GET = do_POST = do_HEAD = handle_one

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    to_server(monkeypatch, endpoint)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def to_server(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """huggingface_hub reads its environment when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: huggingface_hub.hf_api.HfApi(endpoint=endpoint, token=TOKEN))
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def export(tmp_path: Path) -> str:
    directory = tmp_path / "export"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    return str(directory)


@pytest.mark.parametrize("public", [False, True])
def test_one_commit_in_a_repository_that_is_private_unless_asked(hub: Hub, export: str, public: bool) -> None:
    assert re.fullmatch(r"sent to http://127\.0\.0\.1:\d+/owner/name/commit/abc", push(export, "owner/name", public=public))
    created = next(rows[0] for _, path, rows in hub.calls if path.endswith("/repos/create"))
    assert (created["name"], created["organization"]) == ("name", "owner")
    assert created.get("private", created.get("visibility") == "private") is not public
    commits = [rows for _, path, rows in hub.calls if "/commit/" in path]
    assert len(commits) == 1
    assert {row["value"]["path"] for row in commits[0] if row["key"] == "file"} == {"config.json", "README.md"}


def test_a_dataset_goes_into_a_dataset_repository(hub: Hub, export: str) -> None:
    push(export, "owner/name", public=False, repo_type="dataset")
    assert next(rows[0] for _, path, rows in hub.calls if path.endswith("/repos/create"))["type"] == "dataset"
    paths = [path for _, path, _ in hub.calls if "owner/name" in path]
    assert paths and all(path.startswith("/api/datasets/owner/name") for path in paths)
    commit = next(rows for _, path, rows in hub.calls if "/commit/" in path)
    assert [row["value"]["summary"] for row in commit if row["key"] == "header"] == ["Dataset by alif_jax"]
    hub.private = False
    with pytest.raises(UsageError, match="public; give --public or another name. The dataset is in"):
        push(export, "owner/name", public=False, repo_type="dataset")
    hub.status = 403
    with pytest.raises(UsageError, match="hf upload owner/name .* --repo-type=dataset` tries again"):
        push(export, "owner/name", public=False, repo_type="dataset")


def test_a_public_repository_is_not_filled_unasked(hub: Hub, export: str) -> None:
    hub.private = False
    with pytest.raises(UsageError, match="public; give --public or another name"):
        push(export, "owner/name", public=False)
    assert not [path for _, path, _ in hub.calls if "/commit/" in path]


def test_what_the_hub_refuses_is_told_with_the_way_to_go_on(hub: Hub, export: str) -> None:
    hub.status = 403
    with pytest.raises(UsageError, match="(?s)403.*hf upload owner/name"):
        push(export, "owner/name", public=False)


def test_a_hub_that_is_not_there(export: str, monkeypatch: pytest.MonkeyPatch) -> None:
    to_server(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(UsageError, match="(?s)--push_to_hub=owner/name: .*hf upload"):
        push(export, "owner/name", public=False)


def test_names_and_logins_are_checked_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    check_push("owner/name", "here")
    for name in ("name", "owner/na me", "a/b/c"):
        with pytest.raises(UsageError, match=f"--push_to_hub={name}: "):
            check_push(name, "here")
    with pytest.raises(UsageError, match="sends a local directory"):
        check_push("owner/name", "gs://bucket/model")
    with pytest.raises(UsageError, match="--workdir=gs://bucket/run is none"):
        check_push("owner/name", "gs://bucket/run", "workdir")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match="nobody is logged in"):
        check_push("owner/name", "here")
