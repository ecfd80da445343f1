"""Tune in a real browser: sliders act while they are dragged, the address follows, what is saved is what was shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import board_meta, dashboard, drag, open_page, plot, slider, until, wait_idle, wait_meta

from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame, Solution
from lark_engine.selection.select import candidate_table, kept_table, read_selection
from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    return make_scored_pool(Workspace(tmp_path_factory.mktemp("tune")), num_problems=80, num_candidates=12)


@pytest.fixture(scope="module")
def workspace(scored: ScoredPoolArtifacts) -> Workspace:
    return Workspace(scored.pool.path.parents[1])


@pytest.fixture(scope="module")
def address(workspace: Workspace) -> Iterator[str]:
    with dashboard(workspace) as address:
        yield address


def solve(scored: ScoredPoolArtifacts, config: SelectConfig) -> Solution:
    return SelectionFrame(Candidates(candidate_table(scored.scores, scored.pool)), config).solve(config)


def number_of(page: Any, label: str) -> str:
    return page.locator(f'[data-card="figures"] div:has(> dt:text-is("{label}")) dd').first.inner_text()


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_each_step_of_a_slider_shows_what_the_engine_computes(
    browser: Any, address: str, scored: ScoredPoolArtifacts
) -> None:
    with open_page(browser, f"{address}/tune") as page:
        handle = slider(page, "B")
        handle.focus()
        for budget in (4, 5, 6):
            handle.press("ArrowRight")
            solution = solve(scored, SelectConfig(budget=budget))
            meta = wait_meta(page, "profile", B=budget)
            assert meta["num_trajectories"] == len(solution.kept.prob)
            assert meta["weights"] == pytest.approx(solution.prob_NW.mean(axis=0).tolist(), abs=2e-6)
            assert number_of(page, "Selected trajectories") == f"{len(solution.kept.prob):,}"


def test_figures_follow_the_pointer_and_the_address_waits_for_the_release(
    browser: Any, address: str, scored: ScoredPoolArtifacts
) -> None:
    with open_page(browser, f"{address}/tune?mode=sharpness&B=6") as page:
        drag(page, "sharpness", to=0.9, moves=30, seconds=1.5, release=False)
        until(
            page,
            "document.querySelector('[data-card=profile] .js-plotly-plot').layout.meta.sharpness > 5",
            timeout_s=10,
        )
        assert "sharpness" not in query(page)
        page.mouse.up()
        page.wait_for_url("**sharpness=**")
        wait_idle(page)
        sharpness = float(query(page)["sharpness"][0])
        expected = solve(scored, SelectConfig(mode="sharpness", budget=6, sharpness=sharpness))
        meta = wait_meta(page, "profile", sharpness=sharpness)
        assert meta["weights"] == pytest.approx(expected.prob_NW.mean(axis=0).tolist(), abs=2e-6)


def test_charts_are_changed_in_place_and_keep_their_zoom(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune") as page:
        plot(page, "budget").evaluate("plot => { plot.dataset.mine = 'same'; }")
        box = plot(page, "budget").locator(".nsewdrag").first.bounding_box()
        page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 0.5 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
        page.mouse.up()
        zoomed = plot(page, "budget").evaluate("plot => plot._fullLayout.xaxis.range")
        assert 1.5 < zoomed[0] < 3 and 5 < zoomed[1] < 8
        slider(page, "B").focus()
        slider(page, "B").press("ArrowRight")
        wait_meta(page, "budget", B=4)
        after = plot(page, "budget").evaluate("plot => [plot.dataset.mine, plot._fullLayout.xaxis.range]")
        assert after == ["same", zoomed]


def test_back_and_forward_undo_and_redo(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=3") as page:
        for budget in (4, 5):
            slider(page, "B").focus()
            slider(page, "B").press("ArrowRight")
            page.wait_for_url(f"**B={budget}**")
            wait_idle(page)
        page.go_back()
        assert wait_meta(page, "profile", B=4)
        wait_idle(page)
        assert slider(page, "B").input_value() == "3"  # the fourth place
        page.go_forward()
        assert wait_meta(page, "profile", B=5)


def test_links_to_other_pages_take_the_slider_along(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=3") as page:
        slider(page, "B").focus()
        slider(page, "B").press("ArrowRight")
        page.wait_for_url("**B=4**")
        wait_idle(page)
        page.get_by_test_id("stSidebar").get_by_role("link", name="Explore").click()
        page.wait_for_url("**/explore**")
        assert query(page)["B"] == ["4"]
        page.get_by_test_id("stSidebar").get_by_role("link", name="Tune").click()
        page.wait_for_url("**/tune**")
        assert wait_meta(page, "profile", B=4)


def test_a_pin_by_the_keyboard_compares_with_what_follows(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=3") as page:
        page.locator("h1").click()
        page.keyboard.press("a")
        page.wait_for_url("**pin_a=**")
        wait_idle(page)
        slider(page, "B").focus()
        slider(page, "B").press("ArrowRight")
        wait_meta(page, "profile", B=4)
        card = page.locator('[data-card="difference"]')
        assert "Now (χ² · B = 4) against A (χ² · B = 3)" in card.inner_text()


def test_a_bar_of_the_problem_opens_its_trajectory(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=4") as page:
        problem = page.locator('[data-card="problem"] h3').inner_text().removeprefix("One problem in full: ")
        plot(page, "problem").scroll_into_view_if_needed()
        plot(page, "problem").locator(".barlayer .point path").first.click(force=True)
        page.wait_for_url("**/trajectory**")
        assert query(page)["problem"] == [problem]
        assert "candidate" in query(page) and query(page)["B"] == ["4"]


def test_what_is_saved_and_downloaded_is_what_the_screen_showed(
    browser: Any, address: str, scored: ScoredPoolArtifacts, workspace: Workspace, tmp_path: Path
) -> None:
    config = SelectConfig(mode="sharpness", budget=5, sharpness=0.5, drop_truncated=True)
    with open_page(browser, f"{address}/tune?mode=sharpness&B=5&sharpness=0.5&drop_truncated=true") as page:
        shown = board_meta(page, "profile")
        page.get_by_role("button", name="Save this selection").click()
        link = page.get_by_role("link", name="train.jsonl (messages)")
        link.wait_for(timeout=90_000)
        with page.expect_download() as download:
            link.click()
        download.value.save_as(tmp_path / "train.jsonl")
    [saved] = [a for a in workspace.list("selections") if a.manifest.config.get("sharpness") == 0.5]
    kept = read_selection(saved)
    expected = kept_table(solve(scored, config), config)
    assert kept[["problem_id", "candidate_id"]].equals(expected[["problem_id", "candidate_id"]])
    assert kept["selection_prob"].tolist() == expected["selection_prob"].tolist()
    assert len(kept) == shown["num_trajectories"]
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["meta"]["train_weight"] for line in lines] == kept["selection_prob"].tolist()
    first = [kept["selection_prob"][kept["rank"] == rank].sum() / shown_problems(kept) for rank in (1, 2, 3)]
    assert shown["weights"][:3] == pytest.approx(first, abs=2e-6)


def shown_problems(kept: Any) -> int:
    return int(kept["problem_id"].nunique())


def test_a_second_click_and_a_second_tab_start_no_second_job(browser: Any, address: str, workspace: Workspace) -> None:
    before = {path.name for path in (workspace.root / "jobs").glob("*-select-*")}
    with (
        open_page(browser, f"{address}/tune?B=7", may_fail=True) as page,
        open_page(browser, f"{address}/tune?B=7", may_fail=True) as other,
    ):
        page.get_by_role("button", name="Save this selection").dblclick()
        if other.get_by_role("button", name="Save this selection").count():
            other.get_by_role("button", name="Save this selection").click()
        page.get_by_role("link", name="train.jsonl (messages)").wait_for(timeout=90_000)
    after = {path.name for path in (workspace.root / "jobs").glob("*-select-*")}
    assert len(after - before) == 1
