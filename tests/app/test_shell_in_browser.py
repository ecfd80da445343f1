"""What every page promises, in a real browser: themes, widths, accessibility, links, bad workspaces, hostile texts.

Pictures of every page and state go to the folder `LARK_TEST_PICTURES`, where it is named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from browser import (
    axe,
    dashboard,
    drag,
    no_exceptions,
    open_page,
    overflow,
    picture,
    slider,
    until,
    wait_idle,
)
from test_any_page import STATES, empty, garbage_of_the_right_size, no_pool

from app import shell
from benchmarks.pool_texts import BEACON, HOSTILE_PROBLEM_IDS, HOSTILE_TEXTS
from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.selection.select import select
from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow

PAGES = ("overview", "score", "explore", "trajectory", "tune", "train", "evaluate", "jobs", "share")
SCORED_PAGES = ("explore", "trajectory", "tune")
THEMES = ("light", "dark")
WIDTHS = (320, 390, 768, 1440, 1920)
BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 18, 24)"}


def path_of(page: str) -> str:
    return "/" if page == "overview" else f"/{page}"


Keep = Callable[[Any, str], None]


@pytest.fixture(scope="module")
def keep() -> Keep:
    """Keeps a picture of a page under a name, if pictures are wanted: each takes as long as opening the page."""
    folder = os.environ.get("LARK_TEST_PICTURES")
    if folder is None:
        return lambda page, name: None
    Path(folder).mkdir(parents=True, exist_ok=True)
    return lambda page, name: picture(page, Path(folder) / f"{name}.png")


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    workspace = Workspace(tmp_path_factory.mktemp("scored"))
    made = make_scored_pool(workspace, num_problems=60, num_candidates=12)
    select(SelectConfig(budget=3), workspace, made.scores, made.pool)
    return made


@pytest.fixture(scope="module")
def address(scored: ScoredPoolArtifacts) -> Iterator[str]:
    with dashboard(Workspace(scored.pool.path.parents[1])) as address:
        yield address


@pytest.mark.parametrize("scheme", THEMES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_renders_in_both_themes_and_axe_finds_nothing_serious(
    browser: Any, address: str, keep: Keep, name: str, scheme: str
) -> None:
    with open_page(browser, address + path_of(name), scheme=scheme) as page:
        assert page.title() == shell.PAGES[name][0]
        background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert background == BACKGROUNDS[scheme]
        if name in SCORED_PAGES:
            assert page.locator(".js-plotly-plot").count() >= 1
        loads = "performance.getEntriesByType('resource').filter((one) => one.name.includes('plotly')).length"
        assert page.evaluate(loads) == 1  # what the page announced is what its script uses
        charts = page.locator('.lark-board [role="img"]')
        assert all(len(charts.nth(i).get_attribute("aria-label") or "") > 20 for i in range(charts.count()))
        keep(page, f"{name}-{scheme}")
        assert axe(page) == []


@pytest.mark.parametrize("name", PAGES)
def test_no_width_of_the_window_makes_a_page_wider_than_it(browser: Any, address: str, keep: Keep, name: str) -> None:
    with open_page(browser, address + path_of(name), width=WIDTHS[-1]) as page:
        too_wide = {}
        for width in reversed(WIDTHS):
            page.set_viewport_size({"width": width, "height": 900})
            wait_idle(page)
            keep(page, f"{name}-{width}")
            if overflow(page) > 1:
                too_wide[width] = overflow(page)
        assert too_wide == {}


def view(page: Any) -> dict[str, Any]:
    """What the user sees of a page: its texts, the numbers behind its figures, its sliders, and the address."""
    wait_idle(page)
    metas = page.locator(".lark-board [data-card]").evaluate_all(
        "cards => Object.fromEntries(cards.map((card) =>"
        " [card.dataset.card, card.querySelector('.js-plotly-plot')?.layout?.meta ?? null]))"
    )
    return {
        "text": page.get_by_test_id("stMain").inner_text(), "metas": metas,
        "sliders": page.locator("[data-slider] input").evaluate_all("all => all.map((one) => one.ariaValueText)"),
        "query": parse_qs(urlsplit(page.url).query),
    }  # fmt: skip


def test_what_a_slider_did_is_in_the_address_and_back_and_forward_walk_through_it(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=2") as page:
        before = view(page)
        drag(page, "B", to=1.0, moves=8, seconds=0.6)
        page.wait_for_url("**B=12**")
        after = view(page)
        assert after["sliders"] != before["sliders"]
        page.go_back()
        page.wait_for_url("**B=2*")
        assert view(page) == before
        page.go_forward()
        page.wait_for_url("**B=12*")
        assert view(page) == after
    with open_page(browser, page_url_of(after, address)) as page:
        assert view(page) == after


def test_keys_at_the_pace_of_a_reader_move_a_slider_step_by_step(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=2") as page:
        slider(page, "B").focus()
        for _ in range(8):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(400)  # while the value before is being written to the address
        page.wait_for_url("**B=10*")
        wait_idle(page)
        assert slider(page, "B").get_attribute("aria-valuetext").startswith("10")


def page_url_of(seen: dict[str, Any], address: str) -> str:
    return f"{address}/tune?{urlencode(seen['query'], doseq=True)}"


def test_the_sidebar_leads_to_every_page_and_the_selection_goes_along(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=5") as page:
        for name in ("Explore", "Trajectory", "Overview", "Tune"):
            page.get_by_test_id("stSidebar").get_by_role("link", name=name).click()
            until(page, "name => document.title === name", name)
            wait_idle(page)
            no_exceptions(page)
            assert parse_qs(urlsplit(page.url).query)["B"] == ["5"]
        assert slider(page, "B").get_attribute("aria-valuetext").startswith("5")


@pytest.mark.parametrize("make", [empty, no_pool, garbage_of_the_right_size], ids=lambda make: make.__name__)
def test_a_workspace_without_whole_scores_is_explained_on_every_page(
    browser: Any, workspace: Workspace, keep: Keep, make: Callable[[Workspace], None]
) -> None:
    make(workspace)
    said = STATES[make]
    with dashboard(workspace) as address:
        for name in SCORED_PAGES:
            with open_page(browser, f"{address}/{name}") as page:
                keep(page, f"{make.__name__}-{name}")
                assert page.get_by_text(said).first.is_visible()
                assert page.get_by_test_id("stSidebar").get_by_role("link").count() == len(PAGES)
                assert axe(page) == []


def test_scores_that_another_process_finishes_appear_without_a_reload(browser: Any, workspace: Workspace) -> None:
    with dashboard(workspace) as address, open_page(browser, f"{address}/tune") as page:
        page.get_by_text("No pool yet").wait_for()
        make_scored_pool(workspace, num_problems=5, num_candidates=4)
        page.locator(".js-plotly-plot").first.wait_for(timeout=20_000)
        assert page.get_by_text("No pool yet").count() == 0


@pytest.fixture(scope="module")
def hostile_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    workspace = Workspace(tmp_path_factory.mktemp("hostile"))
    make_scored_pool(workspace, num_problems=30, num_candidates=33, hostile=True)
    with dashboard(workspace) as address:
        yield address


@pytest.mark.parametrize("name", PAGES)
def test_hostile_names_and_ids_are_text_and_a_phone_need_not_scroll_sideways(
    browser: Any, hostile_address: str, keep: Keep, name: str
) -> None:
    with open_page(browser, hostile_address + path_of(name), width=320, height=640, has_touch=True) as page:
        assert overflow(page) <= 1
        page.set_viewport_size({"width": 1440, "height": 900})
        wait_idle(page)
        keep(page, f"hostile-{name}")
        assert harmless(page)
        assert overflow(page) <= 1


@pytest.mark.parametrize("how", [{"versus": "0"}, {"heat": "nll"}])
def test_hostile_texts_are_text_beside_each_other_and_by_token(
    browser: Any, hostile_address: str, keep: Keep, how: dict[str, str]
) -> None:
    query = urlencode({"problem": HOSTILE_PROBLEM_IDS[0], "candidate": "0", **how})  # a line of 200 kB
    with open_page(browser, f"{hostile_address}/trajectory?{query}") as page:
        keep(page, f"hostile-trajectory-{'-'.join(how)}")
        for _ in range(len(HOSTILE_TEXTS)):
            assert harmless(page), page.url
            assert overflow(page) <= 1, page.url
            page.keyboard.press("ArrowRight")
            wait_idle(page)


def harmless(page: Any) -> bool:
    """No script of a text ran, and none of them became an element."""
    return page.evaluate(
        """(beacon) => window.__pwned === undefined && !document.querySelector("#pwned")
        && ![...document.querySelectorAll("img, a, iframe, object, svg image")].some((element) =>
             [element.src, element.href, element.href?.baseVal].some((url) =>
               typeof url === "string" && (url.startsWith(beacon) || url.startsWith("javascript:"))))""",
        BEACON,
    )
