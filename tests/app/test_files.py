"""Files by address: the chart library, and a selection's training set in both formats; nothing else of the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import plotly
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.components.board import PLOTLY_ROUTE
from app.files import ROUTES, _blocks, export_path, shared_path
from app.gate import MIDDLEWARE
from benchmarks.scored_pool import make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.selection.export import export
from lark_engine.selection.select import TRAIN, select
from lark_engine.store.workspace import Artifact, Workspace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Artifact]:
    """A workspace with one saved selection, of texts with newlines, quotes and other scripts."""
    workspace = Workspace(tmp_path_factory.mktemp("served") / "cache")
    made = make_scored_pool(workspace, num_problems=6, num_candidates=4, hostile=True)
    return workspace, select(SelectConfig(budget=2), workspace, made.scores, made.pool)


def as_started() -> TestClient:
    """The routes as the server mounts them."""
    page = Route("/", lambda request: HTMLResponse("<!doctype html>"))
    return TestClient(Starlette(routes=[*ROUTES, page], middleware=MIDDLEWARE), base_url="http://localhost:8501")


@pytest.fixture
def client(saved: tuple[Workspace, Artifact], monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("LARK_HOME", str(saved[0].root))
    return as_started()


def test_the_installed_chart_library_is_served(client: TestClient) -> None:
    answer = client.get(PLOTLY_ROUTE)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    assert answer.content == (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()
    assert plotly.__version__ in PLOTLY_ROUTE


def test_a_page_announces_the_chart_library_and_nothing_else_does(client: TestClient) -> None:
    assert client.get("/").headers["link"] == f"<{PLOTLY_ROUTE}>; rel=preload; as=script"
    assert "link" not in client.get(PLOTLY_ROUTE).headers


@pytest.mark.parametrize("train_format", ["messages", "prompt-completion"])
def test_a_training_set_is_what_the_command_line_exports(
    client: TestClient, saved: tuple[Workspace, Artifact], tmp_path: Path, train_format: Any
) -> None:
    selection = saved[1]
    answer = client.get(export_path(selection.id, train_format))
    export(selection.path / TRAIN, tmp_path / "out.jsonl", train_format)
    assert answer.status_code == 200
    assert answer.content == (tmp_path / "out.jsonl").read_bytes()
    assert answer.content.count(b"\n") == selection.manifest.counts["num_trajectories"]
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert f'filename="{selection.id}.jsonl"' in answer.headers["content-disposition"]
    assert answer.headers["content-disposition"].startswith("attachment")


def test_messages_are_the_default_format(client: TestClient, saved: tuple[Workspace, Artifact]) -> None:
    path = f"/lark/selections/{saved[1].id}/train.jsonl"
    assert client.get(path).content == (saved[1].path / TRAIN).read_bytes()
    assert export_path(saved[1].id) == f"{path}?format=messages"


@pytest.mark.parametrize("train_format", ["parquet", "", "messages/../x", "<script>"])
def test_an_unknown_format_is_not_found(
    client: TestClient, saved: tuple[Workspace, Artifact], train_format: str
) -> None:
    answer = client.get(f"/lark/selections/{saved[1].id}/train.jsonl", params={"format": train_format})
    assert answer.status_code == 404
    assert "<" not in answer.text


@pytest.mark.parametrize(
    "name",
    [
        "nothing", "chi2-b3-000000000000", "..", ".", "%2e%2e", "..%2f..%2fsecret", "..%2fselections%2f{id}", "%00",
        "{id}%00", "%2fetc%2fpasswd", "/etc/passwd", "{id}%0a", "{id}%2f..", "{id}/", "<script>", "%ff", "a" * 300,
        "..%5c..%5csecret", "{path}",
    ],
)  # fmt: skip
def test_what_is_no_selection_is_not_found(client: TestClient, saved: tuple[Workspace, Artifact], name: str) -> None:
    workspace, selection = saved
    secret = workspace.root.parent / "secret"
    secret.mkdir(exist_ok=True)
    (secret / TRAIN).write_text("secret")
    name = name.format(id=selection.id, path=str(selection.path).replace("/", "%2f"))
    answer = client.get(f"/lark/selections/{name}/train.jsonl")
    assert answer.status_code == 404
    assert "secret" not in answer.text
    assert "<" not in answer.text


def test_a_workspace_that_is_not_there_has_no_selections(
    client: TestClient, saved: tuple[Workspace, Artifact], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LARK_HOME", str(tmp_path / "nowhere"))
    assert client.get(export_path(saved[1].id)).status_code == 404
    assert not (tmp_path / "nowhere").exists()


def test_a_selection_whose_file_is_gone_is_not_found(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_workspace import add

    workspace = Workspace(tmp_path)
    selection = add(workspace, "selections", "chi2-b3", "123456789abc")
    monkeypatch.setenv("LARK_HOME", str(tmp_path))
    for train_format in ("messages", "prompt-completion"):
        assert client.get(export_path(selection.id, train_format)).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "localhost.evil", ""])
@pytest.mark.parametrize("path", [PLOTLY_ROUTE, "/lark/selections/x/train.jsonl"])
def test_a_name_that_an_attacker_points_here_gets_nothing(client: TestClient, host: str, path: str) -> None:
    assert client.get(path, headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "localhost:8501", "127.0.0.1:9000"])
def test_this_machine_is_served(client: TestClient, host: str) -> None:
    assert client.head(PLOTLY_ROUTE, headers={"host": host}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written(client: TestClient, saved: tuple[Workspace, Artifact], method: str) -> None:
    assert client.request(method, export_path(saved[1].id)).status_code == 405


def test_lines_are_joined_to_parts_of_bounded_size() -> None:
    lines = [f"{'x' * 99}\n" for _ in range(1000)]
    parts = list(_blocks(iter(lines), size=1000))
    assert b"".join(parts) == "".join(lines).encode()
    assert {len(part) for part in parts[:-1]} == {1000}
    assert len(parts) == 101  # the last one is empty
    # A part ends with the first line that fills it.
    assert [len(part) for part in _blocks(iter(["a" * 700, "b" * 700, "c"]), size=1000)] == [1400, 1]
    assert list(_blocks(iter(["ĝ\n", "é\n"]), size=1)) == ["ĝ\n".encode(), "é\n".encode(), b""]


def test_an_empty_training_set_is_an_empty_file() -> None:
    assert b"".join(_blocks(iter([]))) == b""


def test_only_a_part_is_read_at_a_time() -> None:
    read: list[int] = []

    def lines() -> Any:
        for number in range(100):
            read.append(number)
            yield "x" * 10

    next(_blocks(lines(), size=50))
    assert len(read) == 5


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LARK_HOME", str(tmp_path))
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("a.zip", "application/zip"), ("a.html", "text/html"), ("a.md", "text/markdown"), ("a.tex", "application/x-tex")],
)  # fmt: skip
def test_what_is_shared_is_saved_and_never_shown(shared: Path, name: str, media_type: str) -> None:
    (shared / name).write_bytes(b"<script>" * 1000)
    answer = as_started().get(shared_path(name))
    assert answer.content == b"<script>" * 1000
    assert answer.headers["content-type"].startswith(media_type)
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    ["absent.zip", "..%2Fsecret.zip", "%2Fetc%2Fpasswd", ".hidden.zip", "link.zip", "folder.zip", "notes.txt",
     "a.zip%00", "..%5Csecret.zip", "pipe.zip"],
)  # fmt: skip
def test_nothing_else_is_shared(shared: Path, name: str) -> None:
    (shared.parent / "secret.zip").write_text("secret")
    (shared / ".hidden.zip").write_text("secret")
    (shared / "notes.txt").write_text("secret")
    (shared / "link.zip").symlink_to(shared.parent / "secret.zip")
    (shared / "folder.zip").mkdir()
    os.mkfifo(shared / "pipe.zip")
    answer = as_started().get(f"/lark/shared/{name}")
    assert answer.status_code == 404
    assert "secret" not in answer.text
