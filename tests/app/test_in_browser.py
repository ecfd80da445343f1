"""The dashboard in a real browser: nothing fails, nothing leaves the machine, both themes follow the system."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from fake_workspace import add, finished_run

from lark_engine.serve import serve, stop
from lark_engine.store.workspace import Workspace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def address(workspace: Workspace) -> Iterator[str]:
    made = finished_run(workspace)
    add(workspace, "scores", '<img src="http://192.0.2.1/x">', "9c9c9c9c9c9c", inputs={"pool": made["pool"].ref})
    yield serve(workspace, port=8740, open_in_background=True).address
    stop(workspace)


def test_the_overview_shows_in_both_themes_without_errors_or_foreign_requests(browser: Any, address: str) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        errors: list[str] = []
        foreign: list[str] = []
        page.on("console", lambda m, found=errors: found.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r, found=foreign: found.append(r.url) if not is_local(r.url) else None)
        page.goto(address)
        page.wait_for_selector(".lark-lineage")
        page.wait_for_selector(IDLE)
        assert page.title() == "Overview"
        assert page.locator("[data-testid=stException]").count() == 0
        assert page.locator(".lark img").count() == 0
        page.locator("details summary").first.click()
        assert page.get_by_text("134,515,008 parameters").first.is_visible()
        page.get_by_text("pass@2", exact=True).click()
        page.wait_for_url("**/?metric=pass%402")
        page.get_by_text("demo · pass@2 · n = 12").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1440
        backgrounds.append(page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor"))
        assert (errors, foreign) == ([], [])
        context.close()
    assert backgrounds == ["rgb(255, 255, 255)", "rgb(15, 18, 24)"]


def test_work_of_another_process_appears_by_itself(browser: Any, address: str, workspace: Workspace) -> None:
    page = browser.new_page()
    page.goto(address)
    page.wait_for_selector(".lark-lineage")
    add(workspace, "pools", "brand-new", "0a0b0c0d0e0f", counts={"num_trajectories": 4321})
    page.get_by_text("4,321").wait_for(timeout=15_000)
    assert page.get_by_text("4,321").is_visible()
    page.close()


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))
