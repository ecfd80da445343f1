"""Every control that changes what a page shows is in the address, and a saved view opens it in a fresh browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import WAIT_MS, axe, dashboard, drag, open_page, overflow, slider, wait_idle
from fake_jobs import failed, many
from graded_workspace import compared
from train_workspace import make_selection, write_student

from benchmarks.many_runs import make_runs
from benchmarks.scored_pool import make_scored_pool
from lark_engine.sharing.exposure import READ_ONLY, Exposure
from lark_engine.sharing.views import place_of, read_views, save_view
from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow
# Each look at the clock is 60 ms after the last: a popover that opens seems to take that long, as on a busy machine.
SLOW_CLOCK = "() => { const now = Date.now; let looks = 0; Date.now = () => now() + 60 * looks++; }"
CLIPBOARD = {"permissions": ["clipboard-read", "clipboard-write"]}
Step = Callable[[Any], None]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Graded answers, runs, jobs, and, newest, a scored pool with two selections."""
    root = tmp_path_factory.mktemp("views") / "workspace"
    workspace = Workspace(root)
    compared(root)
    make_runs(workspace, num_runs=3, num_steps=40)
    make_scored_pool(workspace, num_problems=40, num_candidates=8)
    for budget in (2, 3):
        make_selection(workspace, budget=budget)
    write_student(root.parent / "student")
    failed(root)
    many(root, {"succeeded": 30, "failed": 3})
    return workspace


@pytest.fixture(scope="module")
def address(workspace: Workspace) -> Iterator[str]:
    with dashboard(workspace) as address:
        yield address


def press(name: str) -> Step:
    """Click on what says exactly this on the page."""
    return lambda page: page.get_by_test_id("stMain").get_by_text(name, exact=True).first.click()


def push(name: str) -> Step:
    """Click on a button, or open a menu."""
    return lambda page: page.get_by_role("button", name=name).first.click()


def key(name: str) -> Step:
    return lambda page: page.keyboard.press(name)


def in_menu(name: str, *steps: Step) -> Step:
    """Open a menu, do something in it, and close it."""

    def act(page: Any) -> None:
        for step in (push(name), *steps, key("Escape")):
            step(page)
            wait_idle(page)

    return act


def tick(name: str) -> Step:
    """Switch what is in an open menu."""
    return lambda page: page.get_by_test_id("stPopoverBody").get_by_text(name, exact=True).click()


def fill(label: str, text: str) -> Step:
    """Type into a field and leave it."""

    def act(page: Any) -> None:
        field = page.get_by_label(label, exact=True).last
        field.fill(text)
        field.press("Control+Enter" if "\n" in text else "Enter")

    return act


def pick(label: str, option: str) -> Step:
    """Choose from a menu."""

    def act(page: Any) -> None:
        box = page.get_by_label(label).last
        box.focus()
        box.press_sequentially(option)
        page.get_by_role("option", name=option).first.click()
        page.keyboard.press("Escape")

    return act


# Where one begins, what one does there, and what the address says then.
VIEWS: dict[str, tuple[str, list[Step], dict[str, str]]] = {
    "overview": ("/", [press("pass@2")], {"metric": "pass@2"}),
    "score": (
        "/score?score.student={student}",
        [fill("Max length", "512"), pick("Speed", "A100"), press("Add a pool"), fill("Source", "/absent.jsonl"),
         press("Upload")],
        {"score.max_length": "512", "score.speed": "A100", "task": "add", "pool.source": "/absent.jsonl",
         "from": "upload"},
    ),
    "explore": (
        "/explore",
        [press("Brier"), press("Within problem"), press("Boxes"), press("Top 3"), press("L × ρ"), press("Head to head"),
         in_menu("Pool edits", tick("Drop truncated")), in_menu("View filters", fill("L, least", "0.2")),
         lambda page: page.get_by_role("radio", name="Candidates", exact=True).click(), push("Tokens")],
        {"metric": "brier", "scale": "within", "shape": "box", "top": "3", "plane": "rho", "third": "duels",
         "table": "candidates", "drop_truncated": "true", "nll_min": "0.2", "sort": "num_response_tokens"},
    ),
    "trajectory": (
        "/trajectory",
        [pick("Order of problems", "largest"), press("Trajectory"), key("Shift+ArrowDown"), key("ArrowRight"), key("p"),
         key("ArrowRight"),
         press("Render LaTeX")],
        {"order": "spread", "latex": "true"},
    ),
    "tune": (
        "/tune",
        [press("Budget and sharpness"), lambda page: drag(page, "sharpness", to=0.3, moves=4, seconds=0.3),
         push("Pin as A"), lambda page: slider(page, "B").press("ArrowLeft"),
         in_menu("Limits", fill("Most training tokens", "9000")), push("Random problem")],
        {"mode": "sharpness", "B": "2", "against": "A", "max_train_tokens": "9000"},
    ),
    "train": (
        "/train",
        [fill("Name", "mine"), fill("Learning rate", "0.5x"),
         fill("The same as a recipe (YAML)", "lr: 0.0003\nepochs: 2  # not used"), press("Train")],
        {"train_name": "mine", "train.lr": "0.5x"},
    ),
    "runs": (
        "/train?view=runs",
        [pick("Lay over", "lora"), press("Tokens"), press("25"), press("Loss on a log scale"), push("Loss")],
        {"view": "runs", "run_by": "tokens", "run_span": "25", "run_log": "true"},
    ),
    "results": (
        "/evaluate",
        [press("Pool seeds"), press("pass@2"), pick("Reference row", "no reference"), fill("Model contains", "lora")],
        {"metric": "pass@2", "eval_find": "lora", "by_method": "true", "reference": "none"},
    ),
    "run": (
        "/evaluate?view=run", [fill("N samples", "7"), fill("Temperature", "0.9")],
        {"view": "run", "gen.n_samples": "7", "gen.temperature": "0.9"},
    ),
    "compare": (
        "/evaluate?view=compare", [push("Swap"), press("Level"), pick("Metric", "pass")],
        {"view": "compare", "slice_by": "level"},
    ),
    "problems": (
        "/evaluate?view=problems", [push("Open problem"), key("ArrowRight"), press("Render LaTeX")],
        {"view": "problems", "sample": "1", "latex": "true"},
    ),
    "jobs": (
        "/jobs", [lambda page: page.get_by_text(re.compile("^Failed")).click(), push("Open job")],
        {"job_state": "failed"},
    ),
}  # fmt: skip


def shown(page: Any) -> dict[str, Any]:
    """What is seen of a page: texts without ages and free room, fields, switches, the numbers behind figures."""
    wait_idle(page)
    seen = page.evaluate(
        """() => {
          const main = document.querySelector("[data-testid=stMain]");
          const all = (selector) => [...main.querySelectorAll(selector)];
          return {
            text: main.innerText,
            fields: all("input, textarea").map((e) => ["checkbox", "radio"].includes(e.type) ? e.checked : e.value),
            chosen: all("[aria-checked=true], [aria-pressed=true], [aria-sort], [data-testid$=Active]").map(
              (e) => [e.innerText, e.getAttribute("aria-sort")]),
            metas: all(".lark-board [data-card]").map(
              (card) => [card.dataset.card, card.querySelector(".js-plotly-plot")?.layout?.meta ?? null]),
          };
        }"""
    )
    seen["text"] = re.sub(r"just now|\d+ (s|min|h|days?) ago|[\d.]+ [kMGT]B|\d+ % of", "…", seen["text"])
    return {**seen, "query": parse_qs(urlsplit(page.url).query, keep_blank_values=True)}


def settled(page: Any, wanted: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is seen when nothing more comes: twice the same, half a second apart, and as wanted unless that never is.

    A click may reach the server, and its answer the page, later than a page that is busy needs to look calm.
    """
    deadline = time.monotonic() + WAIT_MS / 1000
    seen = shown(page)
    while True:
        page.wait_for_timeout(500)
        before, seen = seen, shown(page)
        if (seen == before and wanted in (None, seen)) or time.monotonic() > deadline:
            return seen


def copied(page: Any) -> str:
    page.get_by_role("button", name="Copy link").first.click()
    page.get_by_role("button", name="Link copied").wait_for()
    return str(page.evaluate("navigator.clipboard.readText()"))


@pytest.mark.parametrize("name", VIEWS)
def test_what_was_changed_on_a_page_is_in_its_link_and_shown_by_it_in_a_fresh_browser(
    browser: Any, address: str, workspace: Workspace, name: str
) -> None:
    start, steps, expected = VIEWS[name]
    with open_page(browser, address + start.format(student=workspace.root.parent / "student"), **CLIPBOARD) as page:
        for step in steps:
            step(page)
            wait_idle(page)
        first, link = settled(page), copied(page)
    assert {param: first["query"].get(param) for param in expected} == {p: [v] for p, v in expected.items()}
    with open_page(browser, link) as page:
        assert settled(page, first) == first


def test_a_view_is_saved_under_a_short_link_which_shows_it_in_a_fresh_browser(
    browser: Any, address: str, workspace: Workspace
) -> None:
    start = f"{address}/tune?B=5&exclude_teachers=QwQ-32B&pin_a=B%3D2&against=A"
    with open_page(browser, start, **CLIPBOARD) as page:
        push("Save view")(page)
        wait_idle(page)
        page.get_by_label("Name of the view").fill("Five without QwQ")
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_text("Saved as Five without QwQ").wait_for()
        page.get_by_role("button", name="Copy its link").click()
        page.get_by_role("button", name="Link copied").wait_for()
        link = str(page.evaluate("navigator.clipboard.readText()"))
        assert axe(page) == []
        page.keyboard.press("Escape")
        first = settled(page)
    [view] = [view for view in read_views(workspace.root).views if view.name == "Five without QwQ"]
    assert link == f"{address}/tune?saved={view.id}"
    with open_page(browser, link) as page:
        assert settled(page, first) == first
        slider(page, "B").press("ArrowLeft")  # from here on it is another address
        page.wait_for_url("**B=4**")
        assert "saved" not in page.url
    with open_page(browser, link.replace("/tune", "/jobs")) as page:
        assert page.title() == "Tune"
        assert settled(page, first) == first
    assert place_of(f"/tune?{view.query}").params == view.params


def test_the_link_of_a_slider_that_has_not_come_to_rest_shows_where_it_is(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/tune?B=2", **CLIPBOARD) as page:
        drag(page, "B", to=1.0, moves=4, seconds=0.2, release=False)
        assert "B=2" in page.url
        page.get_by_role("button", name="Copy link").first.evaluate("button => button.click()")
        page.get_by_role("button", name="Link copied").wait_for()
        assert parse_qs(urlsplit(page.evaluate("navigator.clipboard.readText()")).query)["B"] == ["8"]
        page.mouse.up()
        page.wait_for_url("**B=8**")


def test_a_link_copied_right_after_typing_says_what_was_typed(browser: Any, address: str) -> None:
    with open_page(browser, f"{address}/evaluate?view=run", **CLIPBOARD) as page:
        page.get_by_label("N samples", exact=True).fill("9")
        assert "gen.n_samples=9" in copied(page)


def test_a_long_link_offers_to_save_the_view(browser: Any, address: str, workspace: Workspace) -> None:
    long = "&".join(f"gen.stop={number}{'x' * 70}" for number in range(30))
    with open_page(browser, f"{address}/evaluate?view=run&{long}", **CLIPBOARD) as page:
        assert len(copied(page)) > 2000
        said = page.locator(".lark-copy-long")
        assert "letters, and some programs cut such a link" in said.inner_text()
        assert axe(page) == []
        page.evaluate(SLOW_CLOCK)
        said.get_by_role("button").click()
        wait_idle(page)
        page.get_by_role("button", name="Save", exact=True).click()
        page.get_by_text("Saved as Evaluate: run").wait_for()
        page.keyboard.press("Escape")
        first = settled(page)
    with open_page(browser, f"{address}/evaluate?saved={read_views(workspace.root).views[0].id}") as page:
        assert settled(page, first) == first  # all of it, however long


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_of_views_on_share_leads_to_each(
    browser: Any, address: str, workspace: Workspace, scheme: str
) -> None:
    place = place_of(f"/explore?metric=rho&teacher=QwQ-32B&scores={workspace.list('scores')[0].id}")
    view = save_view(workspace.root, name=f"<b>{'w' * 90}", page=place.page, params=place.params, note=scheme)
    with open_page(browser, f"{address}/share?share=link", scheme=scheme, width=390) as page:
        assert overflow(page) <= 1
        page.set_viewport_size({"width": 1440, "height": 900})
        wait_idle(page)
        row = page.locator(f".st-key-saved_view\\.{view.id}, .st-key-saved_view-{view.id}").first
        row.get_by_role("button", name="Remove").click()
        wait_idle(page)
        assert axe(page) == []
        page.keyboard.press("Escape")
        row.get_by_role("link", name="Open").click()
        page.wait_for_url("**/explore?**metric=rho**")
        wait_idle(page)
        page.go_back()
        page.wait_for_url("**/share**")


def test_who_may_only_look_reads_why_nothing_is_saved(browser: Any, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "shown")
    make_scored_pool(workspace, num_problems=5, num_candidates=4)
    with (
        dashboard(workspace, Exposure(read_only=True, memo_dir=tmp_path / "memo")) as address,
        open_page(browser, f"{address}/tune", **CLIPBOARD) as page,
    ):
        assert "/tune?scores=" in copied(page)
        push("Save view")(page)
        wait_idle(page)
        assert page.get_by_role("button", name="Save", exact=True).is_disabled()
        assert page.get_by_test_id("stPopoverBody").get_by_text(READ_ONLY).is_visible()
    assert not (workspace.root / "views").exists()
