"""A bundle from one browser to another: made by the button, saved by its link, opened read-only, explored and tuned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from browser import axe, dashboard, drag, open_page, overflow, wait_idle, wait_meta

from lark_engine.serve import scratch_dir
from lark_engine.sharing.exposure import Exposure
from lark_engine.sharing.unpack import open_bundle

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sharing"))

from shown_workspace import shown_workspace

pytestmark = pytest.mark.slow
PAGES = (
    "",
    "score",
    "explore",
    "trajectory",
    "train",
    "evaluate",
    "evaluate?view=problems",
    "jobs",
    "share?share=bundle",
)


def test_what_the_button_makes_a_colleague_opens_and_tunes(browser: Any, tmp_path: Path) -> None:
    made = shown_workspace(tmp_path / "home" / "cache")
    with dashboard(made.workspace) as address, open_page(browser, f"{address}/share?share=bundle") as page:
        assert axe(page) == []
        page.get_by_role("button", name="Make this bundle").click()
        link = page.get_by_role("link", name="Save generated-6x5-generated-student.zip")
        link.wait_for(timeout=60_000)
        wait_idle(page)
        with page.expect_download() as download:
            link.click()
        download.value.save_as(tmp_path / "ours.zip")
        page.set_viewport_size({"width": 320, "height": 800})
        wait_idle(page)
        assert overflow(page) <= 0
        assert axe(page) == []

    workspace = open_bundle(tmp_path / "ours.zip", tmp_path / "bundles")
    before = {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*")}
    how = Exposure(read_only=True, memo_dir=scratch_dir(workspace) / "memo")
    with dashboard(workspace, how) as address:
        with open_page(browser, f"{address}/tune?B=2") as page:
            wait_meta(page, "profile", B=2)
            drag(page, "B", to=1.0)
            wait_meta(page, "profile", B=5)
            wait_idle(page)
            assert page.get_by_role("button", name="Save this selection").is_disabled()
        for name in PAGES:
            with open_page(browser, f"{address}/{name}") as page:
                assert str(made.workspace.root) not in page.content()
    assert {path: path.stat().st_mtime_ns for path in workspace.root.rglob("*")} == before
