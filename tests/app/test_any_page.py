"""What every page that needs scores promises, as Streamlit runs it: any address, and any state of the workspace."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from streamlit.testing.v1 import AppTest

from benchmarks.scored_pool import make_scored_pool
from lark_engine.store.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("explore", "trajectory", "tune")
ABSURD = (
    "B=0", "B=x&mode=nonsense&tau=-1", "B=99999999999999999999", "sharpness=nan&tau=inf&max_train_tokens=1e400",
    "scores=nothing", "problem=%00&candidate=-1", "exclude_teachers=nobody", "teacher=&metric=%F0%9F%92%A9",
    "rule=softmax&mode=temperature&energy=-nll&max_teacher_share=0.0001", "pin_a=%25&pin_b=B%3Dx&against=A",
)  # fmt: skip
EXPLAINED = (
    "Nothing is left to show", "Not in this pool", "This cannot be computed", "This cannot be shown.",
    "the selection of this address chooses nothing",
)  # fmt: skip


def opened(page: str, query: str = "") -> AppTest:
    app = AppTest.from_file(str(ROOT / "app" / "router.py"), default_timeout=60).run()
    for param, values in parse_qs(query, keep_blank_values=True).items():
        app.query_params[param] = values
    app.switch_page(f"../pages/{page}.py").run()
    assert not app.exception, app.exception
    assert "This part of the page failed." not in text_of(app)
    return app


def text_of(app: AppTest) -> str:
    headings = [heading.value for heading in app.subheader]
    return "\n".join([*headings, *(element.proto.body for element in app.get("html"))])


def has_charts(app: AppTest) -> bool:
    said = [e.proto.json for e in app.get("bidi_component") if e.proto.component_name == "lark_board"]
    return any('"figure"' in text for text in said)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("any"))
    make_scored_pool(workspace, num_problems=12, num_candidates=6)
    return workspace


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("query", ABSURD)
def test_an_absurd_address_shows_charts_or_says_why_not(
    scored: Workspace, monkeypatch: pytest.MonkeyPatch, query: str, page: str
) -> None:
    monkeypatch.setenv("LARK_HOME", str(scored.root))
    app = opened(page, query)
    assert has_charts(app) or any(words in text_of(app) for words in EXPLAINED)


def empty(workspace: Workspace) -> None:
    del workspace


def only_a_pool(workspace: Workspace) -> None:
    shutil.rmtree(make_scored_pool(workspace, num_problems=5, num_candidates=4).scores.path)


def half_written(workspace: Workspace) -> None:
    (make_scored_pool(workspace, num_problems=5, num_candidates=4).scores.path / "manifest.json").unlink()


def cut_manifest(workspace: Workspace) -> None:
    manifest = make_scored_pool(workspace, num_problems=5, num_candidates=4).scores.path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:200])


def no_pool(workspace: Workspace) -> None:
    shutil.rmtree(make_scored_pool(workspace, num_problems=5, num_candidates=4).pool.path)


def garbage_of_the_right_size(workspace: Workspace) -> None:
    path = make_scored_pool(workspace, num_problems=5, num_candidates=4).scores.path / "scores.parquet"
    path.write_bytes(b"\0" * path.stat().st_size)


STATES: dict[Callable[[Workspace], None], str] = {
    empty: "No pool yet",
    only_a_pool: "Nothing is scored yet",
    half_written: "Nothing is scored yet",
    cut_manifest: "Nothing is scored yet",
    no_pool: "The pool of these scores is gone",
    garbage_of_the_right_size: "This cannot be shown.",
}


@pytest.mark.parametrize("make", STATES, ids=lambda make: make.__name__)
def test_a_workspace_without_whole_scores_is_explained_on_every_page(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, make: Callable[[Workspace], None]
) -> None:
    monkeypatch.setenv("LARK_HOME", str(workspace.root))
    make(workspace)
    for page in PAGES:
        assert STATES[make] in text_of(opened(page))
