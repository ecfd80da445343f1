"""Evaluate in a real browser: a model is run from the matrix, its result opens what it says, and exports are exact."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from browser import axe, dashboard, open_page, overflow, wait_idle
from graded_workspace import compared, place_of

from lark_engine.results.export import TEXT_FORMATS
from lark_engine.results.table import results_table
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace

pytestmark = pytest.mark.slow
JOB_MS = 180_000  # a process that imports torch, on a machine that does other things too


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return compared(tmp_path_factory.mktemp("evaluate") / "workspace")


@pytest.fixture(scope="module")
def workspace(made: dict[str, Artifact]) -> Workspace:
    return Workspace(made["base"].path.parents[4])


@pytest.fixture(scope="module")
def studio(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LARK_LEASES", str(tmp_path_factory.mktemp("leases")))
        with dashboard(workspace) as address:
            yield f"{address}/evaluate"


def query(page: Any) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def cells(page: Any) -> list[str]:
    return page.locator(".lark-matrix tbody td .value").all_inner_texts()


@pytest.mark.parametrize(("view", "scheme"), [("results", "light"), ("run", "dark")])
def test_a_view_holds_at_any_width_and_axe_finds_nothing(browser: Any, studio: str, view: str, scheme: str) -> None:
    with open_page(browser, f"{studio}?view={view}", scheme=scheme) as page:
        assert axe(page) == []
        for width in (320, 1920):
            page.set_viewport_size({"width": width, "height": 900})
            wait_idle(page)
            assert overflow(page) == 0, width


def test_a_difference_opens_the_comparison_and_a_figure_its_problems(
    browser: Any, studio: str, made: dict[str, Artifact]
) -> None:
    checkpoint = made["checkpoint"].id
    with open_page(browser, studio) as page:
        link = page.get_by_role("link", name="+37.5 [−38.7, +113.7]")
        assert "view=compare" in link.get_attribute("href")  # a real link: it can be copied and opened elsewhere
        link.click()
        page.wait_for_url("**view=compare**")
        wait_idle(page)
        said = query(page)
        assert (said["a"], said["b"], said["on"]) == (["tiny"], [checkpoint], ["gsm8k"])
        assert "B − A = +37.5 points" in page.locator(".lark-verdict .verdict").inner_text()
        page.go_back()
        page.get_by_role("link", name="62.5%").wait_for()
        wait_idle(page)
        page.get_by_role("link", name="62.5%").press("Enter")
        page.wait_for_url("**view=problems**")
        wait_idle(page)
        assert query(page)["grade"] == [place_of(made["trained"])]


def test_every_export_is_the_engines_of_what_is_filtered(
    browser: Any, studio: str, workspace: Workspace, tmp_path: Path
) -> None:
    table = results_table(workspace)
    shown = table[table["benchmark"] == "gsm8k"]
    labels = dict(zip(TEXT_FORMATS, ("CSV, tidy", "CSV, wide", "Markdown", "LaTeX", "HTML"), strict=True))
    with open_page(browser, f"{studio}?benchmark=gsm8k", accept_downloads=True) as page:
        for name, text_of in TEXT_FORMATS.items():
            with page.expect_download() as started:
                page.get_by_role("button", name=labels[name], exact=True).click()
            assert started.value.suggested_filename == f"lark_{name}"
            started.value.save_as(tmp_path / name)
            assert (tmp_path / name).read_bytes() == text_of(shown).encode()


def test_a_model_is_run_from_the_matrix_and_stands_in_the_table(
    browser: Any, studio: str, workspace: Workspace, tiny_model_dir: Path, tmp_path: Path
) -> None:
    def make(draft: Draft) -> None:
        target = draft.path / "model"
        target.mkdir()
        for file in tiny_model_dir.iterdir():
            (target / file.name).write_bytes(file.read_bytes())

    student = workspace.build(Plan(kind="students", name="random", fingerprint="0123456789ab", config={}), make)
    sums = tmp_path / "sums.json"
    sums.write_text(json.dumps([{"prompt": "1+1=?", "answer": "2"}, {"prompt": "2+2=?", "answer": "4"}]))
    options = {
        "view": "run", "eval_model": student.id, "eval_benchmark": f"Sums={sums}", "gen.backend": "transformers",
        "gen.device": "cpu", "gen.n_samples": "2", "gen.max_new_tokens": "4",
    }  # fmt: skip
    with open_page(browser, f"{studio}?{urlencode(options)}") as page:
        assert cells(page) == ["missing"]
        page.get_by_role("button", name="Run what is missing").dblclick()
        page.get_by_text("Every cell is done with these options").wait_for(timeout=JOB_MS)
        wait_idle(page)
        assert cells(page) == ["0.0%"]
        page.get_by_role("link", name="0.0%").click()
        page.wait_for_url("**benchmark=sums**")
        wait_idle(page)
        assert page.locator(".lark-matrix tbody th .model").all_inner_texts() == ["random"]
    (generations,) = (artifact for artifact in workspace.list("evals") if artifact.name == "sums")
    assert generations.manifest.counts["num_generations"] == 4
    assert len(list((workspace.root / "jobs").glob("*/spec.json"))) == 1  # two clicks, one job
