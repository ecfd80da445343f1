"""Pool and scores in a real browser: a file goes up, bad lines are shown and left out, a student scores the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from browser import axe, dashboard, open_page, overflow, wait_idle

from lark_engine.store.workspace import Workspace
from tests.conftest import make_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("score") / "workspace")


@pytest.fixture(scope="module")
def address(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    patch = pytest.MonkeyPatch()
    patch.setenv("LARK_LEASES", str(tmp_path_factory.mktemp("leases")))
    patch.setenv("CUDA_VISIBLE_DEVICES", "")
    with dashboard(workspace) as address:
        yield address
    patch.undo()


def pool_file(folder: Path) -> Path:
    """Two problems of two teachers, and two lines that cannot be imported."""
    rows: list[Any] = [
        {"problem_id": p, "candidate_id": c, "teacher": "ab"[c], "answer": "2", "is_correct": c == 0,
         "messages": [{"role": "user", "content": f"{p}?"}, {"role": "assistant", "content": f"so it is {c}"}]}
        for p in range(2) for c in range(2)
    ]  # fmt: skip
    lines = [json.dumps(row) for row in rows]
    lines[2:2] = ['{"problem_id": 7, "teacher": "<img src=x onerror=alert(1)>"', json.dumps({**rows[0], "teacher": 5})]
    path = folder / "My Pool.JSONL"
    path.write_text("\n".join(lines) + "\n")
    return path


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def test_from_a_file_with_two_bad_lines_to_scores_in_explore(
    browser: Any, address: str, workspace: Workspace, tmp_path: Path
) -> None:
    student = make_tiny_model(tmp_path)
    with open_page(browser, f"{address}/score?task=add&from=upload") as page:
        page.locator("input[type=file]").set_input_files(pool_file(tmp_path))
        kept = workspace.root / "uploads" / "my-pool.jsonl"
        page.get_by_text("Some of the first rows cannot be imported").wait_for()
        assert query(page)["pool.source"] == [str(kept)]
        assert kept.read_bytes() == pool_file(tmp_path).read_bytes()
        assert page.locator("[data-testid=stFileUploaderFile]").count() == 0
        assert page.locator("code", has_text="my-pool.jsonl:3").count() == 1

        page.get_by_role("button", name="Import", exact=True).click()
        page.get_by_role("button", name="Import without these lines").wait_for()
        wait_idle(page)
        table = page.locator(".lark-rejected table")
        assert table.locator("tbody tr").count() == 2
        assert "teacher is the number 5" in table.inner_text()
        assert '"<img src=x onerror=alert(1)>"' in table.inner_text()
        assert page.locator(".lark-rejected img").count() == 0
        assert axe(page) == []
        page.get_by_role("button", name="Import without these lines").click()
        page.get_by_text("4 candidates of 2 problems").wait_for()
        [pool] = workspace.list("pools")
        assert pool.manifest.drops == {"broken_json": 1, "bad_teacher": 1}

        page.get_by_role("button", name="Score it").last.click()
        students = page.get_by_role("combobox", name="Student", exact=True)
        students.wait_for()
        wait_idle(page)
        assert query(page)["score.pool"] == [pool.id]
        students.fill(str(student))
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        page.get_by_text("characters a token").wait_for()
        page.get_by_role("button", name="Score", exact=True).click()
        page.get_by_text("has scored this pool with these very options").wait_for(timeout=90_000)
        wait_idle(page)
        [scores] = workspace.list("scores")
        assert scores.manifest.counts["num_trajectories"] == 4
        assert page.get_by_role("button", name="Score", exact=True).count() == 0
        page.get_by_role("link", name="Explore", exact=True).last.click()
        page.wait_for_url(f"**/explore?**scores={quote(scores.id)}**")
        wait_idle(page)


@pytest.mark.parametrize("width", [320, 1920])
def test_no_width_overflows_and_axe_finds_nothing_serious(browser: Any, address: str, width: int) -> None:
    with open_page(browser, f"{address}/score?task=add&pool.source=/nowhere", width=width) as page:
        assert overflow(page) == 0
        assert axe(page) == []
