"""The Overview in a real browser: nothing fails, nothing leaves the machine, both themes follow the system."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from browser import dashboard, open_page, overflow
from fake_workspace import add, finished_run

from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def address(workspace: Workspace) -> Iterator[str]:
    made = finished_run(workspace)
    add(workspace, "scores", "<img src=x onerror=alert(1)>", "9c9c9c9c9c9c", inputs={"pool": made["pool"].ref})
    with dashboard(workspace) as address:
        yield address


def test_the_overview_shows_in_both_themes_without_errors_or_foreign_requests(browser: Any, address: str) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        with open_page(browser, address, scheme=scheme) as page:
            page.wait_for_selector(".lark-lineage")
            assert page.title() == "Overview"
            assert page.locator(".lark img").count() == 0
            page.locator("details summary").first.click()
            assert page.get_by_text("134,515,008 parameters").first.is_visible()
            page.get_by_text("pass@2", exact=True).click()
            page.wait_for_url("**metric=pass%402*")
            page.get_by_text("demo · pass@2 · n = 12").wait_for()
            assert overflow(page) <= 0
            backgrounds.append(page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor"))
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(15, 18, 24)"]


def test_work_of_another_process_appears_by_itself(browser: Any, address: str, workspace: Workspace) -> None:
    with open_page(browser, address) as page:
        page.wait_for_selector(".lark-lineage")
        add(workspace, "pools", "brand-new", "0a0b0c0d0e0f", counts={"num_trajectories": 4321})
        page.get_by_text("4,321").wait_for(timeout=15_000)
        assert page.get_by_text("4,321").is_visible()
