"""The whole pipeline from the browser: what a new user does on the demo, with the real student and real vLLM.

Import a pool, score it, tune, save, train LoRA for 20 steps (while the tab is closed and the server restarted),
evaluate on 8 problems, read the table, compare, export. A picture of each step goes to the folder
`LARK_TEST_PICTURES`, else to tests/artifacts/journey.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from browser import dashboard, open_page, picture, slider, wait_idle

from lark_engine.demo.recipe import write_demo_run
from lark_engine.jobs.status import list_jobs
from lark_engine.results.export import to_markdown
from lark_engine.results.table import results_table
from lark_engine.store.events import last_event
from lark_engine.store.workspace import Artifact, Workspace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

log = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]
MINUTE_MS = 60_000
TRAINING = {
    "train.max_steps": "20", "train.global_batch": "2", "train.max_length": "384", "train.lora_rank": "8",
    "train.lora_alpha": "16", "train.lr": "5e-4", "train.gradient_checkpointing": "false",
}  # fmt: skip
SAMPLING = {
    "view": "run", "gen.limit": "8", "gen.n_samples": "2", "gen.max_new_tokens": "48", "gen.max_model_len": "1024",
}  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path, real_student: Artifact, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The demo's student, pool file and benchmark file; nothing is imported yet."""
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))
    workspace = Workspace(tmp_path / "demo")
    shutil.copytree(real_student.path, workspace.root / "students" / real_student.path.name)
    write_demo_run(workspace)
    return workspace


@pytest.fixture
def pictures() -> Path:
    folder = Path(os.environ.get("LARK_TEST_PICTURES") or ROOT / "tests" / "artifacts" / "journey")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Journey:
    """One page of the browser and where its pictures go."""

    def __init__(self, page: Any, pictures: Path, first: int = 1):
        self.page = page
        self._pictures = pictures
        self.number = first

    def press(self, key: str) -> None:
        """The button of a widget's key."""
        self.page.locator(f".st-key-{key} button").first.click()
        wait_idle(self.page)

    def see(self, name: str) -> None:
        """Keep a picture of the whole page."""
        wait_idle(self.page)
        picture(self.page, self._pictures / f"{self.number:02d}-{name}.png")
        self.number += 1

    def go(self, link: str) -> None:
        """Follow a link of the sidebar."""
        self.page.get_by_test_id("stSidebar").get_by_role("link", name=link).click()
        self.page.get_by_role("heading", level=1, name=link).wait_for()
        wait_idle(self.page)

    def wait_for(self, text: str, minutes: float) -> None:
        """Wait until the page says something: it follows its jobs by itself."""
        self.page.get_by_text(text).first.wait_for(timeout=minutes * MINUTE_MS)
        wait_idle(self.page)


@pytest.fixture
def kept_on_failure(workspace: Workspace) -> Iterator[None]:
    """Show how the jobs stood when the journey did not come to its end."""
    yield
    for job in list_jobs(workspace.root):
        log.info("%s %s %s %s", job.id, job.state, job.why, (job.verdict or {}).get("remedy"))


def steps_done(workspace: Workspace) -> float:
    job = next(job for job in list_jobs(workspace.root) if job.spec and job.spec.stage == "train lora")
    return float((last_event(job.job.events_path) or {}).get("done") or 0)


def test_from_pool_to_table(
    browser: Any, workspace: Workspace, pictures: Path, kept_on_failure: None
) -> None:  # fmt: skip
    with dashboard(workspace) as address, open_page(browser, address) as page:
        journey = Journey(page, pictures)
        journey.see("overview-of-a-new-workspace")

        journey.go("Pool and scores")
        source = page.locator(".st-key-pool-source input")
        source.fill(str(workspace.root / "demo" / "pool.jsonl"))
        source.press("Enter")
        wait_idle(page)
        journey.see("import-a-pool")
        journey.press("pool_import")
        page.get_by_role("button", name="Score it").first.wait_for(timeout=MINUTE_MS)
        (pool,) = workspace.list("pools")
        assert pool.manifest.counts["num_trajectories"] == 168

        page.goto(
            f"{address}/score?{urlencode({'task': 'score', 'score.max_length': '2048', 'score.dtype': 'bfloat16'})}"
        )
        wait_idle(page)
        journey.see("score-what-it-takes")
        journey.press("score_start")
        page.get_by_test_id("stMain").get_by_role("link", name="Explore").first.wait_for(timeout=8 * MINUTE_MS)
        (scores,) = workspace.list("scores")
        assert scores.manifest.counts["num_trajectories"] == 168
        journey.see("scored")

        journey.go("Explore")
        journey.see("explore")
        journey.go("Tune")
        slider(page, "B").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(re.compile(r"[?&]B=2\b"))
        wait_idle(page)
        journey.press("save")
        journey.wait_for("saved as", 2)
        (selection,) = workspace.list("selections")
        assert selection.manifest.config["budget"] == 2
        journey.see("tuned-and-saved")

        page.get_by_role("link", name="Train with this").click()
        page.get_by_role("heading", level=1, name="Train").wait_for()
        wait_idle(page)
        assert selection.id in page.url
        page.goto(f"{page.url}&{urlencode(TRAINING)}")
        wait_idle(page)
        journey.see("train-form")
        command = page.locator(".st-key-train_launch_panel code").inner_text()
        journey.press("train_launch")
        (job,) = [job for job in list_jobs(workspace.root) if job.spec and job.spec.stage == "train lora"]
        assert job.spec is not None
        assert command.split()[:4] == ["lark", "train", "lora", "--train-data"] == list(job.spec.command[:4])
        deadline = time.monotonic() + 600
        while steps_done(workspace) < 2 and time.monotonic() < deadline:
            time.sleep(1)
        number = journey.number

    # The tab is closed and the server has ended; the run goes on.
    before = steps_done(workspace)
    time.sleep(10)
    assert steps_done(workspace) >= before

    with dashboard(workspace) as address, open_page(browser, f"{address}/train?view=runs") as page:
        journey = Journey(page, pictures, number)
        page.locator('[data-card="loss"] .js-plotly-plot').first.wait_for(timeout=MINUTE_MS)
        journey.see("train-live")
        deadline = time.monotonic() + 900
        while not workspace.list("checkpoints") and time.monotonic() < deadline:
            time.sleep(1)
        (checkpoint,) = workspace.list("checkpoints")
        assert checkpoint.manifest.counts["num_steps"] == 20
        page.get_by_text("finished").first.wait_for(timeout=MINUTE_MS)
        journey.see("trained")

        benchmark = f"demo={workspace.root / 'demo' / 'benchmark.json'}"
        page.goto(f"{address}/evaluate?{urlencode({**SAMPLING, 'eval_benchmark': benchmark})}")
        wait_idle(page)
        journey.see("evaluate-what-is-missing")
        journey.press("eval_generate")
        journey.wait_for("Every cell is done", 10)
        assert len(workspace.list("grades")) == 2
        assert {grade.manifest.counts["num_generations"] for grade in workspace.list("grades")} == {16}
        journey.see("evaluated")

        journey.press("see_results")
        journey.see("results-table")
        with page.expect_download() as download:
            page.get_by_role("button", name="Markdown").first.click()
        exported = download.value.path().read_text(encoding="utf-8")
        assert exported == to_markdown(results_table(workspace))
        assert checkpoint.id in exported and "[" in exported

        page.get_by_role("radio", name="Compare").click()
        wait_idle(page)
        page.locator(".st-key-compare_forest .js-plotly-plot").wait_for()
        journey.see("compared")
        journey.go("Jobs")
        assert page.get_by_text("succeeded").count() >= 1
        journey.see("jobs")
        journey.go("Overview")
        journey.see("overview-at-the-end")
    # One job for each button that was pressed: nothing was started twice.
    stages = sorted(job.spec.stage for job in list_jobs(workspace.root) if job.spec)
    assert stages == ["generate", "pool import", "score", "select", "train lora"]
    assert {job.state for job in list_jobs(workspace.root)} == {"succeeded"}
