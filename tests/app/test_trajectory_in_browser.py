"""Trajectory in a real browser: hostile texts, keys, the address, the job that computes tokens."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import axe, board_meta, dashboard, open_page, overflow, plot, until, wait_idle, wait_meta

from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.config import PoolConfig, ScoreConfig
from lark_engine.explore.flags import CandidateKey, read_flags
from lark_engine.pool.dataset import PoolData
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.summaries import TOKEN_STATISTICS
from lark_engine.scoring.table import read_scores
from lark_engine.store.workspace import Workspace

pytestmark = pytest.mark.slow

INSIDE = ".st-key-trajectory_text, .st-key-trajectory_problem"
# What no text may have made: anything that loads, links, runs, or stands out of its line.
MADE = (
    "img, a[href], script, iframe, object, embed, form, input:not([type=radio]):not([type=checkbox]), video, audio, hr"
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    made = make_scored_pool(
        Workspace(tmp_path_factory.mktemp("hostile")), num_problems=6, num_candidates=14, hostile=True
    )
    write_tokens(made, 0, 3)
    return made


@pytest.fixture(scope="module")
def hostile_address(hostile: ScoredPoolArtifacts) -> Iterator[str]:
    with dashboard(Workspace(hostile.pool.path.parents[1])) as address:
        yield f"{address}/trajectory"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    made = make_scored_pool(Workspace(tmp_path_factory.mktemp("plain")), num_problems=8, num_candidates=6)
    write_tokens(made, int(best_row(made, "1")), 1, num_tokens=16_384)
    return made


@pytest.fixture(scope="module")
def address(plain: ScoredPoolArtifacts) -> Iterator[str]:
    with dashboard(Workspace(plain.pool.path.parents[1])) as address:
        yield f"{address}/trajectory"


def best_row(made: ScoredPoolArtifacts, problem: str) -> Any:
    table = read_scores(made.scores)
    return table[table["problem_id"] == problem]["g_hat"].idxmax()


def write_tokens(made: ScoredPoolArtifacts, first: int, number: int, num_tokens: int | None = None) -> None:
    """Token statistics of some rows: pieces of their own texts, with themselves as alternatives."""
    scores, data = read_scores(made.scores), PoolData(made.pool)
    index = data.index()
    folder, halves = made.scores.path / "token_stats", pa.list_(pa.float16())
    folder.mkdir(exist_ok=True)
    for row in range(first, first + number):
        line = scores.iloc[row]
        same = (index["problem_id"] == line["problem_id"]) & (index["candidate_id"] == line["candidate_id"])
        [trajectory] = data.trajectories([int(np.flatnonzero(same)[0])])
        text = trajectory.response
        pieces = [text[i : i + 4] for i in range(0, min(len(text), 4000), 4)] or ["x"]
        pieces = (pieces * (num_tokens // len(pieces) + 1))[:num_tokens] if num_tokens else pieces
        size = len(pieces)
        rng = np.random.default_rng(row)
        stats = {
            "nll": rng.exponential(0.6, size), "brier": rng.random(size), "rank": rng.integers(1, 9, size),
            "entropy": rng.random(size), "p_true": rng.random(size),
        }  # fmt: skip
        columns: dict[str, Any] = {
            "row": pa.array([row], pa.int64()), "problem_id": [line["problem_id"]],
            "candidate_id": [line["candidate_id"]], "token_id": [list(range(size))], "text": [pieces],
            **{f"{n}_tokens": pa.array([stats[n].astype(np.float16)], halves) for n in TOKEN_STATISTICS},
            "top_id": [[7] * (5 * size)], "top_p": pa.array([[np.float16(0.15)] * (5 * size)], halves),
            "top_text": [(pieces * 5)[: 5 * size]],
        }  # fmt: skip
        pq.write_table(pa.table(columns), folder / f"top05-{row + 1:05d}.parquet")


def at(address: str, **query: object) -> str:
    return f"{address}?{urlencode(query)}"


def query_of(page: Any) -> dict[str, str]:
    return {name: said[-1] for name, said in parse_qs(urlsplit(page.url).query).items()}


def shown(page: Any) -> str:
    return page.locator(".lark-candidates li.shown").get_attribute("data-candidate")


def nothing_was_made(page: Any) -> None:
    """Assert that the texts ran nothing, made nothing, and moved nothing out of its place."""
    assert page.evaluate("window.__pwned ?? null") is None
    for part in page.locator(INSIDE).all():
        assert part.locator(MADE).evaluate_all("made => made.map((m) => m.outerHTML.slice(0, 200))") == []
    assert overflow(page) <= 0
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight") < 40_000


HEADINGS = ":is(h1, h2, h3, h4, h5, h6, ul, ol, table, blockquote, pre, [style*=color])"


@pytest.mark.parametrize("view", [{}, {"latex": "true"}])
def test_no_hostile_text_makes_an_element_or_a_request(
    browser: Any, hostile: ScoredPoolArtifacts, hostile_address: str, view: dict[str, str]
) -> None:
    ids = PoolData(hostile.pool).first_rows().index
    start = at(hostile_address, problem=ids[0], **view)
    with open_page(browser, start) as page:  # asserts at its end: no console error, no request to elsewhere
        rows = page.locator(".lark-candidates li")
        rendered = page.locator(".st-key-trajectory_text [data-testid=stMarkdown]")

        def look() -> None:
            wait_idle(page)
            nothing_was_made(page)
            assert rendered.locator(f"{HEADINGS}:not(.katex *)").count() == 0

        for place in range(rows.count()):  # by 14 candidates there is each of the 14 texts
            rows.nth(place).locator("button.show").click()
            look()
        rows.nth(1).locator("button.versus").click()
        for place in range(2, rows.count(), 5):
            rows.nth(place).locator("button.show").click()
            look()
        assert page.locator(".st-key-trajectory_text [data-testid=stColumn]").count() == 2
        for problem_id in ids[1:]:
            page.keyboard.press("Shift+ArrowDown")
            until(page, "id => new URLSearchParams(location.search).get('problem') === id", problem_id)
            look()


def test_formulas_are_rendered_and_dangerous_ones_are_code(
    browser: Any, hostile: ScoredPoolArtifacts, hostile_address: str
) -> None:
    data = PoolData(hostile.pool)
    wanted = next(t for t in data.trajectories() if t.response.startswith("$$\\rule") and r"\(" in t.response)
    query = {"problem": wanted.problem_id, "candidate": wanted.candidate_id, "latex": "true"}
    with open_page(browser, at(hostile_address, **query)) as page:
        text = page.locator(".st-key-trajectory_text")
        text.locator(".katex").first.wait_for()
        code = text.locator("code").all_inner_texts()
        assert any("\\rule{2000em}" in c for c in code) and any("\\href" in c for c in code)
        assert text.locator(".katex-error").count() == 0
        page.get_by_text("Render LaTeX").click()
        wait_idle(page)
        assert page.locator(".katex").count() == 0


def test_hostile_tokens_stay_text(browser: Any, hostile: ScoredPoolArtifacts, hostile_address: str) -> None:
    written = next(t for t in PoolData(hostile.pool).trajectories() if "onerror=" in t.response)
    query = {"problem": written.problem_id, "candidate": written.candidate_id, "heat": "nll"}
    with open_page(browser, at(hostile_address, **query), scheme="dark") as page:
        tokens = page.locator(".lark-heat.plain.lark-text")
        tokens.locator("span").first.wait_for()
        assert "<img src=x onerror=" in tokens.inner_text()
        nothing_was_made(page)
        page.get_by_text("Contribution", exact=True).first.click()
        page.locator(".lark-heat.signed.lark-text span").first.wait_for()
        nothing_was_made(page)


def test_a_line_of_200_kb_wraps_and_is_turned_page_by_page(
    browser: Any, hostile: ScoredPoolArtifacts, hostile_address: str
) -> None:
    first = next(iter(PoolData(hostile.pool).trajectories([0])))
    assert len(first.response) == 200_000
    query = {"problem": first.problem_id, "candidate": first.candidate_id}
    with open_page(browser, at(hostile_address, **query), width=390) as page:
        assert overflow(page) <= 0
        page.get_by_text(re.compile(r"Characters 1 to (19,\d{3}|20,000) of 200,000\.")).wait_for()
        page.goto(at(hostile_address, page=11, **query))
        wait_idle(page)
        assert "to 200,000 of 200,000" in page.locator(".st-key-trajectory_text").inner_text()
        page.locator("[data-testid=stPagination] button", has_text="1").first.click()
        wait_idle(page)
        assert "page" not in query_of(page)
        assert "Characters 1 to " in page.locator(".st-key-trajectory_text").inner_text()


def test_keys_go_through_candidates_and_problems_and_pin(browser: Any, address: str) -> None:
    with open_page(browser, at(address, problem="2")) as page:
        first = shown(page)
        page.keyboard.press("ArrowRight")
        wait_idle(page)
        second = shown(page)
        assert second != first and query_of(page)["candidate"] == second
        page.keyboard.press("ArrowLeft")
        wait_idle(page)
        assert shown(page) == first
        page.keyboard.press("p")
        wait_idle(page)
        page.keyboard.press("ArrowRight")
        wait_idle(page)
        assert (query_of(page)["versus"], query_of(page)["candidate"]) == (first, second)
        assert page.locator(".st-key-trajectory_text .lark-text ins").count() > 0
        page.keyboard.press("Shift+ArrowDown")
        wait_idle(page)
        assert query_of(page)["problem"] == "3" and "versus" not in query_of(page)
        page.keyboard.press("Shift+ArrowUp")
        wait_idle(page)
        assert query_of(page)["problem"] == "2"
        page.go_back()
        until(page, "new URLSearchParams(location.search).get('problem') === '3'")


def test_a_row_and_a_point_open_their_candidate_and_the_arrows_compare(browser: Any, address: str) -> None:
    with open_page(browser, at(address, problem="4")) as page:
        row = page.locator(".lark-candidates li").nth(3)
        wanted = row.get_attribute("data-candidate")
        row.locator("button.show").click()
        wait_meta(page, "why", candidate=int(wanted))
        assert query_of(page)["candidate"] == wanted
        other = page.locator(".lark-candidates li").nth(1)
        other.locator("button.versus").click()
        page.get_by_text("Word for word,").wait_for()
        assert query_of(page)["versus"] == other.get_attribute("data-candidate")
        assert page.locator(".lark-candidates li.shown").count() == 1
        points = plot(page, "why").locator(".scatterlayer .points path")
        target = points.nth(0)
        target.scroll_into_view_if_needed()
        box = target.bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        wait_idle(page)
        assert query_of(page)["candidate"] == str(board_meta(page, "why")["candidate"])


def test_of_two_clicks_in_a_row_neither_is_lost(browser: Any, address: str) -> None:
    """The second one comes before the server could tell the page what the first one changed."""
    for order in (("versus", "show"), ("show", "versus")):
        with open_page(browser, at(address, problem="4")) as page:
            rows = page.locator(".lark-candidates li")
            beside, chosen = (rows.nth(place).get_attribute("data-candidate") for place in (1, 3))
            for name in order:
                rows.nth({"versus": 1, "show": 3}[name]).locator(f"button.{name}").evaluate("button => button.click()")
            page.get_by_text("Word for word,").wait_for()
            wait_idle(page)
            assert (query_of(page)["candidate"], query_of(page)["versus"]) == (chosen, beside)


def test_the_address_is_the_view(browser: Any, address: str) -> None:
    query = {"problem": "5", "candidate": "2", "versus": "4", "heat": "contribution", "B": "2", "order": "spread"}
    with open_page(browser, at(address, **query)) as page:
        first = (page.locator("[data-testid=stMain]").inner_text(), query_of(page))
        url = page.url
    with open_page(browser, url) as page:
        assert (page.locator("[data-testid=stMain]").inner_text(), query_of(page)) == first
    assert query.items() <= first[1].items()


@pytest.mark.parametrize(("scheme", "widths"), [("light", (1920, 1440, 768, 320, 390)), ("dark", (1440,))])
def test_every_view_fits_and_axe_finds_nothing_serious(
    browser: Any, address: str, scheme: str, widths: tuple[int, ...]
) -> None:
    views = (
        {"heat": "nll", "problem": "1"},
        {"versus": "2", "candidate": "0", "correct_only": "true"},
        {"teachers": "no"},
    )
    with open_page(browser, at(address), scheme=scheme, width=widths[0]) as page:
        for view in ({}, *views):
            if view:
                page.goto(at(address, **view))
            for width in widths:
                page.set_viewport_size({"width": width, "height": 900})
                wait_idle(page)
                assert overflow(page) <= 0
                if width == widths[-1]:
                    assert axe(page) == []


def test_sixteen_thousand_tokens_show_quickly_and_a_bin_turns_the_page(browser: Any, address: str) -> None:
    with open_page(browser, at(address, problem="1")) as page:
        began = time.perf_counter()
        page.get_by_text("nll", exact=True).first.click()
        page.locator(".lark-heat.lark-text span").first.wait_for()
        assert time.perf_counter() - began < 5.0  # 0.4 s alone
        assert page.locator(".lark-heat.lark-text span").count() <= 4096
        assert "p " in page.locator(".lark-heat.lark-text span").first.get_attribute("title")
        page.goto(at(address, problem="1", heat="nll", page=4))
        page.get_by_text("tokens 12,289 to 16,384 of 16,384").wait_for()


def test_a_flag_is_set_from_the_page(browser: Any, address: str, plain: ScoredPoolArtifacts) -> None:
    with open_page(browser, at(address, problem="6", candidate="3")) as page:
        page.get_by_role("button", name="Flag", exact=False).first.click()
        page.get_by_label("What is wrong with it").fill("<b>copies</b> the problem")
        page.keyboard.press("Enter")
        page.get_by_text("--reason=<b>copies</b> the problem").wait_for()
        page.get_by_role("button", name="Flag this candidate").click()
        page.locator(".lark-flag").wait_for()
    [flag] = read_flags(plain.pool).values()
    assert (flag.key, flag.reason) == (CandidateKey("6", 3), "<b>copies</b> the problem")


def test_tokens_are_computed_by_a_job_of_the_page(browser: Any, tmp_path: Path, tiny_model_dir: Path) -> None:
    from lark_engine.scoring.score import score

    workspace = Workspace(tmp_path / "workspace")
    lines = [
        {
            "problem_id": "sum", "candidate_id": number, "teacher": f"teacher {number}",
            "messages": [
                {"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": f"It is {number}. " * 9},
            ],
        }
        for number in range(2)
    ]  # fmt: skip
    source = tmp_path / "sums.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pool = import_pool(PoolConfig(source=str(source), labels="none"), workspace)
    scores = score(ScoreConfig(student=str(tiny_model_dir), device="cpu"), workspace, pool)
    with (
        dashboard(workspace) as address,
        open_page(browser, f"{address}/trajectory?heat=contribution") as page,
    ):
        command = f"lark score tokens --scores {scores.id} --problem sum --workspace {workspace.root}"
        assert command in page.locator("[data-testid=stCode]").first.inner_text().replace("\n", " ")
        page.get_by_role("button", name="Compute tokens").click()
        page.locator(".lark-heat.lark-text span").first.wait_for(timeout=120_000)
        wait_idle(page)
        text = "".join(page.locator(".lark-heat.lark-text span").all_inner_texts())
        best = int(shown(page))
        assert f"It is {best}." in text
        g_hat = read_scores(scores).set_index("candidate_id")["g_hat"][best]
        assert f"{g_hat:+.4f}".replace("-", "−") in page.locator(".lark-why").inner_text()
