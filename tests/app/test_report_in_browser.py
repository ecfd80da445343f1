"""A report as whoever gets it opens it: from a file, without a server, on a screen and on paper."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import WAIT_MS, axe

from benchmarks.scored_pool import make_scored_pool
from lark_engine.config import ReportConfig
from lark_engine.sharing.report import make_report, write_report
from lark_engine.sharing.report_material import Material
from lark_engine.store.workspace import Workspace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sharing"))

from reported import reported_workspace

pytestmark = pytest.mark.slow
LIGHT, DARK = "rgb(23, 27, 36)", "rgb(237, 240, 245)"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(reported_workspace(tmp_path_factory.mktemp("report") / "w").workspace)


def written(workspace: Workspace, **options: Any) -> Path:
    return write_report(make_report(Material(workspace, ReportConfig(**options))), workspace)


class Opened:
    """A page with what it asked for, said and popped up."""

    def __init__(self, page: Any, path: Path):
        self.page = page
        self.path = path
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]")

    def of_figures(self, what: str) -> list[Any]:
        """The width or the ink of each figure."""
        said = {"widths": "plot._fullLayout.width", "inks": "plot._fullLayout.font.color"}[what]
        return list(self.page.eval_on_selector_all(".js-plotly-plot", f"plots => plots.map((plot) => {said})"))

    def wait_until(self, what: str, expected: list[Any]) -> None:
        """Wait until all figures have these widths or inks; the policy of the page lets no other wait run in it."""
        deadline = time.monotonic() + WAIT_MS / 1000
        while (found := self.of_figures(what)) != expected:
            assert time.monotonic() < deadline, found
            self.page.wait_for_timeout(50)


@pytest.fixture
def open_report(browser: Any) -> Iterator[Any]:
    contexts = []

    def run(path: Path, *, scheme: str = "light", width: int = 1440) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        return Opened(context.new_page(), path)

    yield run
    for context in contexts:
        context.close()


def test_it_opens_from_a_file_draws_all_figures_and_asks_for_nothing(open_report: Any, report: Path) -> None:
    opened = open_report(report)
    page = opened.page
    plots = page.locator(".lark-board-plot")
    assert plots.count() >= 16
    assert page.locator(".js-plotly-plot .main-svg").count() >= plots.count()
    assert page.evaluate("document.documentElement.dataset.failed") is None
    assert opened.asked == [report.as_uri()]
    assert opened.errors == []
    assert axe(page) == []


def test_it_is_light_or_dark_as_the_system_and_as_the_button_says(open_report: Any, report: Path) -> None:
    opened = open_report(report, scheme="dark")
    page = opened.page
    color, num = "getComputedStyle(document.body).color", len(opened.of_figures("inks"))
    assert page.evaluate(color) == DARK
    assert set(opened.of_figures("inks")) == {"#EDF0F5"}
    page.get_by_role("button", name="Light colors").click()
    opened.wait_until("inks", ["#171B24"] * num)
    assert page.evaluate(color) == LIGHT
    assert axe(page) == []
    page.emulate_media(color_scheme="light")
    page.get_by_role("button", name="Dark colors").click()
    opened.wait_until("inks", ["#EDF0F5"] * num)


@pytest.mark.parametrize("width", [320, 768, 1920])
def test_it_fits_every_window(open_report: Any, report: Path, width: int) -> None:
    page = open_report(report, width=width).page
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_on_paper_it_is_light_and_its_figures_fit(open_report: Any, report: Path) -> None:
    opened = open_report(report, scheme="dark")
    page = opened.page
    before = opened.of_figures("widths")
    page.emulate_media(media="print", color_scheme="dark")
    opened.wait_until("widths", [840] * len(before))
    assert page.evaluate("getComputedStyle(document.body).color") == LIGHT
    assert set(opened.of_figures("inks")) == {"#171B24"}
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", print_background=True)))
    assert 6 <= pages <= 20
    page.emulate_media(media="screen", color_scheme="dark")
    opened.wait_until("widths", before)
    assert set(opened.of_figures("inks")) == {"#EDF0F5"}


def test_hostile_texts_names_and_ids_do_nothing(open_report: Any, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    made = make_scored_pool(workspace, num_problems=12, num_candidates=9, hostile=True)
    title = "<img src=x onerror=window.__pwned='title'></script><script>window.__pwned='title'</script>"
    opened = open_report(written(workspace, texts="all", num_problems=12, title=title))
    page = opened.page
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    for plot in page.locator(".js-plotly-plot").all():  # what the pointer brings up is made of names too
        plot.hover(position={"x": 150, "y": 60}, force=True)
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwned") is None
    assert (opened.asked, opened.errors, opened.dialogs) == ([opened.path.as_uri()], [], [])
    assert page.locator("h1").inner_text() == title
    assert page.locator("img, iframe, object, embed, form, main a, main i, [onerror]").count() == 0
    assert page.locator("script:not([type])").count() == 2
    assert made.pool.fingerprint in page.locator("main").inner_text()
