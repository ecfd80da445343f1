"""Explore in a real browser: every mark leads to its candidates, and the address is the view."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browser import axe, board_meta, dashboard, open_page, overflow, plot, wait_idle, wait_meta

from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.explore.view import Range, ViewFilter, view
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.select import candidate_table
from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow

CARDS = ("by_teacher", "wins", "plane", "length", "third")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    return make_scored_pool(Workspace(tmp_path_factory.mktemp("explore")), num_problems=60, num_candidates=12)


@pytest.fixture(scope="module")
def address(made: ScoredPoolArtifacts) -> Iterator[str]:
    with dashboard(Workspace(made.pool.path.parents[1])) as running:
        yield f"{running}/explore"


@pytest.fixture(scope="module")
def frame(made: ScoredPoolArtifacts) -> SelectionFrame:
    return SelectionFrame(Candidates(candidate_table(made.scores, made.pool)), SelectConfig())


def params(page: Any) -> dict[str, list[str]]:
    found = parse_qs(urlsplit(page.evaluate("location.href")).query)
    return {name: values for name, values in found.items() if name != "scores"}


def click_mark(page: Any, card: str, selector: str, place: int = 0) -> None:
    """Click a mark as a person does: Plotly acts on a click where the pointer has rested before."""
    mark = plot(page, card).locator(selector).nth(place)
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 3, y)
    page.wait_for_timeout(150)
    page.mouse.move(x, y)
    page.wait_for_timeout(250)
    page.mouse.down()
    page.mouse.up()
    wait_idle(page)


def choose(page: Any, text: str) -> None:
    """A word of a segmented control, or a pill by what it counts."""
    wanted = re.compile(rf"^{re.escape(text)}( · |$)")
    page.locator("[data-testid=stButtonGroup] button").filter(has_text=wanted).click()
    wait_idle(page)


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1440)])
def test_five_charts_are_painted_in_both_themes_and_fit(browser: Any, address: str, scheme: str, width: int) -> None:
    queries = ("", "?shape=box&third=difficulty&plane=rho", "?shape=ecdf&third=duels&scale=within")
    with open_page(browser, address, scheme=scheme, width=width) as page:
        for query in queries:
            if query:
                page.goto(f"{address}{query}")
                plot(page, CARDS[-1]).wait_for()
                wait_idle(page)
            for card in CARDS:
                text = plot(page, card).get_attribute("aria-label")
                assert plot(page, card).get_attribute("role") == "img" and text and "nan" not in text.lower()
            assert page.locator(".lark-board-card .js-plotly-plot").count() == 5
            assert overflow(page) <= 0
            assert axe(page) == []
        page.goto(f"{address}?teacher=QwQ-32B&g_min=0.01&quality=truncated")  # chips of filters
        plot(page, "by_teacher").wait_for()
        wait_idle(page)
        assert overflow(page) <= 0


def test_from_a_bar_to_a_filter_to_a_row_to_the_trajectory(browser: Any, address: str) -> None:
    with open_page(browser, address) as page:
        teacher = board_meta(page, "wins")["teachers"][0]
        click_mark(page, "wins", ".bars .point path")
        assert params(page) == {"teacher": [teacher]}
        assert board_meta(page, "by_teacher")["teachers"] == [teacher]
        choose(page, "Candidates")
        row = page.locator(".lark-rows tbody tr").nth(2)
        assert teacher in row.inner_text()
        problem, candidate = row.locator("button").inner_text().split(" / ")
        row.locator("td").nth(1).click()
        page.wait_for_url("**/trajectory?**")
        wait_idle(page)
        said = params(page)
        assert (said["problem"], said["candidate"]) == ([problem], [candidate])


def test_a_ridge_and_a_median_mark_lead_to_their_teacher(browser: Any, address: str) -> None:
    with open_page(browser, address) as page:
        teachers = board_meta(page, "by_teacher")["teachers"]
        click_mark(page, "by_teacher", ".bars .point path", 1)
        assert params(page) == {"teacher": [teachers[1]]}
        page.get_by_role("button", name=f"only {teachers[1]}").click()
        wait_meta(page, "by_teacher", teachers=teachers)
        click_mark(page, "plane", ".scatterlayer .point", 0)
        assert len(params(page)["teacher"]) == 1


def test_a_drawn_box_shows_the_candidates_inside_it(browser: Any, address: str, frame: SelectionFrame) -> None:
    with open_page(browser, address) as page:
        area = plot(page, "plane").locator(".nsewdrag").first
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.4 * box["height"])
        page.mouse.down()
        for share in (0.3, 0.45, 0.6):
            page.mouse.move(box["x"] + share * box["width"], box["y"] + (share + 0.3) * box["height"])
        page.mouse.up()
        wait_idle(page)
        said = {name: float(value[0]) for name, value in params(page).items()}
        assert set(said) == {"nll_min", "nll_max", "brier_min", "brier_max"}
        ranges = (
            Range("nll", said["nll_min"], said["nll_max"]),
            Range("brier", said["brier_min"], said["brier_max"]),
        )
        shown = int(view(frame, ViewFilter(ranges=ranges), budget=3).shown_NK.sum())
        assert 0 < shown == board_meta(page, "plane")["n"]
        assert page.locator(".js-plotly-plot .selectionlayer path").count() == 0


def test_cells_and_bars_of_the_third_chart_filter(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}?third=difficulty") as page:
        teacher = board_meta(page, "by_teacher")["teachers"][0]
        click_mark(page, "third", ".bars .point path", 4)
        assert params(page) == {"third": ["difficulty"], "teacher": [teacher], "difficulty": ["5"]}
        page.goto(f"{address}?third=duels")
        wait_meta(page, "third", grid="duels")
        wait_idle(page)
        order = board_meta(page, "third")["teachers"]
        click_mark(page, "third", ".bars .point path", 0)
        assert params(page) == {"third": ["duels"], "beats": order[:2]}
        page.goto(address)
        wait_meta(page, "third", B=3)
        wait_idle(page)
        click_mark(page, "third", ".bars .point path", 0)
        assert set(params(page)) == {"margin_min", "margin_max"}
        assert 0 < board_meta(page, "third")["n"] < 60


def test_quality_counts_filter_and_the_same_count_again_takes_it_back(
    browser: Any, address: str, frame: SelectionFrame
) -> None:
    wrong_NK = frame.candidates.flag_NK("is_correct") == 0
    with open_page(browser, address) as page:
        choose(page, "Wrong answer")
        assert params(page) == {"quality": ["wrong_answer"]}
        assert board_meta(page, "by_teacher")["n"] == int((wrong_NK & ~np.isnan(frame.energy_NK)).sum())
        choose(page, "Wrong answer")
        assert params(page) == {}


def test_the_table_sorts_pages_and_opens_with_the_keyboard(browser: Any, address: str) -> None:
    with open_page(browser, address) as page:
        head = page.locator(".lark-rows th button", has_text="Mean L")
        head.focus()
        page.keyboard.press("Enter")
        wait_idle(page)
        assert params(page) == {"sort": ["mean_nll"], "desc": ["true"]}
        heads = page.locator(".lark-rows th[aria-sort=descending]")
        assert heads.all_inner_texts() == ["Mean L ↓"]
        assert page.evaluate("document.activeElement.textContent").startswith("Mean L")
        page.get_by_role("button", name="Next page").click()
        wait_idle(page)
        assert params(page)["page"] == ["2"]
        opened = page.locator(".lark-rows button.open").first
        problem = opened.inner_text()
        opened.focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/trajectory?**")
        wait_idle(page)
        assert params(page)["problem"] == [problem]


def test_the_address_opened_elsewhere_is_the_same_view(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}?shape=box") as page:
        choose(page, "ρ")
        choose(page, "Top 3")
        choose(page, "Head to head")
        choose(page, "Wrong answer")
        click_mark(page, "by_teacher", ".bars .point path", 0)
        link = page.evaluate("location.href")
        seen = {card: board_meta(page, card) for card in ("by_teacher", "wins", "plane", "length")}
        assert params(page).keys() == {"metric", "shape", "top", "third", "quality", "teacher"}
    with open_page(browser, link) as page:
        assert {card: board_meta(page, card) for card in seen} == seen
        assert page.evaluate("location.href") == link


def test_back_and_forward_move_between_views(browser: Any, address: str) -> None:
    with open_page(browser, address) as page:
        first = board_meta(page, "by_teacher")
        choose(page, "Brier")
        second = board_meta(page, "by_teacher")
        assert first["medians"] != second["medians"]
        page.go_back()
        assert wait_meta(page, "by_teacher", medians=first["medians"]) == first
        page.go_forward()
        assert wait_meta(page, "by_teacher", medians=second["medians"]) == second


def test_zoom_stays_when_another_chart_changes(browser: Any, address: str) -> None:
    with open_page(browser, address) as page:
        chart = plot(page, "by_teacher")
        chart.evaluate("plot => window.Plotly.relayout(plot, {'xaxis.range': [0.02, 0.03]})")
        choose(page, "Top 3")
        wait_meta(page, "wins", top=3)
        assert chart.evaluate("plot => plot.layout.xaxis.range") == [0.02, 0.03]


def test_filters_that_leave_nothing_are_cleared_with_a_button(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}?g_min=9") as page:
        page.get_by_role("heading", name="Nothing is left to show").wait_for()
        assert axe(page) == []
        page.get_by_role("button", name="Clear view filters").click()
        plot(page, "third").wait_for()
        wait_idle(page)
        assert params(page) == {}
