"""A selection shown to a collaborator, from the slider to what they see: link, report, bundle, and a server for guests.

`walk` leaves pictures of every step, of whatever workspace it is given.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import axe, board_meta, dashboard, drag, open_page, overflow, picture, wait_idle, wait_meta

from lark_engine.serve import SOURCE_TREE, user_cache
from lark_engine.sharing.exposure import READ_ONLY, Exposure
from lark_engine.sharing.tokens import Guests
from lark_engine.sharing.unpack import open_bundle
from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow
PICTURES = SOURCE_TREE / "tests" / "artifacts" / "share"
_JOB_MS = 120_000
_OF_A_BUNDLE = (
    "", "score", "explore", "trajectory", "train", "evaluate", "evaluate?view=problems", "jobs", "share?share=bundle",
)  # fmt: skip


def make(page: Any, button: str, link: str) -> str:
    """Press a button that starts a job, wait for what it makes, and return where that is to be had."""
    page.get_by_role("button", name=button, exact=True).click()
    found = page.locator(f'a[href*="/lark/shared/"][href*="{link}"]').first
    found.wait_for(timeout=_JOB_MS)
    wait_idle(page)
    return str(found.get_attribute("href"))


def download(page: Any, address: str, path: str, folder: Path) -> Path:
    """What the link gives, as a file of the collaborator's."""
    answer = page.request.get(address + urlsplit(path).path)
    assert answer.status == 200, answer.status_text
    target = folder / Path(urlsplit(path).path).name
    target.write_bytes(answer.body())
    return target


def walk(browser: Any, workspace: Workspace, elsewhere: Path, pictures: Path) -> dict[str, Any]:
    """The whole walk. Returns what was made: addresses, files, and what the collaborator saw at each level."""
    pictures.mkdir(parents=True, exist_ok=True)
    made: dict[str, Any] = {}
    with dashboard(workspace) as address:
        with open_page(browser, f"{address}/tune") as page:
            drag(page, "B", to=0.8)
            wait_idle(page)
            made["budget"] = board_meta(page, "budget")["B"]
            page.get_by_role("button", name="Save view").click()
            page.get_by_label("Name of the view").fill("The knee of the curve")
            page.get_by_label("Name of the view").press("Enter")
            page.get_by_role("button", name="Save", exact=True).click()
            page.get_by_text("Saved as").wait_for()
            picture(page, pictures / "01-view-saved.png")
            made["view"] = next((workspace.root / "views").glob("*.json"), None)
        with open_page(browser, f"{address}/share?share=report", height=1200) as page:
            picture(page, pictures / "02-report-choices.png")
            report = make(page, "Make the report", ".html")
            picture(page, pictures / "03-report-made.png")
            made["report"] = download(page, address, report, elsewhere)
        with open_page(browser, f"{address}/share?share=bundle", height=1200) as page:
            picture(page, pictures / "04-bundle-choices.png")
            assert axe(page) == []
            bundle = make(page, "Make this bundle", ".zip")
            picture(page, pictures / "05-bundle-made.png")
            with page.expect_download() as saved:
                page.locator(f'a[href="{bundle}"]').first.click()
            made["bundle"] = elsewhere / saved.value.suggested_filename
            saved.value.save_as(made["bundle"])
            page.set_viewport_size({"width": 320, "height": 800})
            wait_idle(page)
            assert overflow(page) <= 0
            assert axe(page) == []
        link = f"{address}/tune?saved={made['view'].stem}"
        with open_page(browser, link) as page:  # a fresh profile: nothing but the link
            made["link shows"] = board_meta(page, "budget")["B"]
            picture(page, pictures / "06-link-opened.png")
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme, offline=True)
        page = context.new_page()
        page.goto(made["report"].as_uri())
        page.wait_for_selector("html[data-drawn]")
        page.screenshot(path=pictures / f"07-report-{scheme}.png", full_page=True)
        made["figures"] = page.locator(".js-plotly-plot").count()
        context.close()
    opened = open_bundle(made["bundle"], user_cache() / "bundles")
    before = {path: path.stat().st_mtime_ns for path in opened.root.rglob("*")}
    how = Exposure(read_only=True, memo_dir=elsewhere / "memo")
    with dashboard(opened, how) as address:
        with open_page(browser, f"{address}/tune?saved={made['view'].stem}") as page:
            made["bundle shows"] = board_meta(page, "budget")["B"]
            save = page.get_by_role("button", name="Save this selection")
            made["save is disabled"] = save.is_disabled()
            assert page.get_by_text(READ_ONLY).first.is_visible()
            drag(page, "B", to=0.2)
            wait_idle(page)
            wait_meta(page, "budget", B=2)
            picture(page, pictures / "08-bundle-tuned.png")
        for name in _OF_A_BUNDLE:
            with open_page(browser, f"{address}/{name}") as page:
                assert str(workspace.root) not in page.content()
                picture(page, pictures / f"09-bundle-{name.partition('?')[0] or 'overview'}.png")
    assert {path: path.stat().st_mtime_ns for path in opened.root.rglob("*")} == before
    guests = Guests(workspace.root / "access", root=workspace.root)
    guests.prepare()
    token = guests.add("collaborator", "viewer").token
    with dashboard(workspace, Exposure(auth="token", access_dir=guests.folder)) as address:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        assert page.goto(f"{address}/tune?B=4").status == 401
        page.screenshot(path=pictures / "10-asked-for-a-token.png")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Open").click()
        wait_idle(page)
        assert "B=4" in page.url
        assert page.get_by_role("button", name="Save this selection").is_disabled()
        picture(page, pictures / "11-as-a-viewer.png")
        page.goto(f"{address}/share?share=access")
        wait_idle(page)
        picture(page, pictures / "12-what-a-viewer-may.png")
        context.close()
    return made


def test_a_collaborator_sees_by_link_report_and_bundle_what_was_tuned(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.path.insert(0, str(SOURCE_TREE / "tests" / "sharing"))
    from shown_workspace import shown_workspace

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shown = shown_workspace(tmp_path / "of-quentin" / "workspace")
    for path in (shown.workspace.root / "views").glob("*.json"):
        path.unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    made = walk(browser, shown.workspace, elsewhere, PICTURES)
    assert made["link shows"] == made["bundle shows"] == made["budget"] == 4
    assert made["save is disabled"]
    assert made["figures"] >= 5
    assert made["report"].stat().st_size < 6_000_000
    for goes_out in (made["report"].read_bytes(), unzipped(made["bundle"])):
        assert b"of-quentin" not in goes_out.replace(b"lora-of-quentin", b"")
        assert b"a private reason" not in goes_out
        assert str(tmp_path).encode() not in goes_out


def unzipped(path: Path) -> bytes:
    """Everything in a zip, one after the other."""
    import zipfile

    with zipfile.ZipFile(path) as file:
        return b"".join(file.read(name) for name in file.namelist())
