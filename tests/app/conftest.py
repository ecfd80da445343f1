"""The pages import `app` from the source tree, as the dashboard does; browser tests share one Chromium."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("browser")
ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.scored_pool import make_scored_pool  # noqa: E402
from lark_engine.scoring.table import released_scores  # noqa: E402
from lark_engine.selection.released import import_scores  # noqa: E402
from lark_engine.store.workspace import Workspace  # noqa: E402


@pytest.fixture(autouse=True)
def main_module_stays() -> Iterator[None]:
    """Streamlit makes the page the main module and leaves it so: worker processes of later tests would run it."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A workspace whose newest scores come from a file of the released code: ĝ, and nothing that it rests on."""
    workspace = Workspace(tmp_path / "released")
    own = make_scored_pool(workspace, num_problems=10, num_candidates=6)
    content = {name: value for name, value in released_scores(own.scores).items() if name != "lark_scores"}
    (tmp_path / "scores.json").write_text(json.dumps(content))
    import_scores(tmp_path / "scores.json", workspace, own.pool)
    return workspace.root


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from browser import launch
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = launch(playwright)
        yield running
        running.close()
