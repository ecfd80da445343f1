"""A real LoRA run as a job, watched, stopped after a checkpoint, resumed and compared, in the browser."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import axe, board_meta, dashboard, open_page, overflow, wait_idle, wait_meta

from benchmarks.many_runs import make_runs
from benchmarks.many_runs import write_events as write_run_events
from lark_engine.jobs import actions
from lark_engine.jobs.folder import Job, all_jobs
from lark_engine.jobs.status import view
from lark_engine.store.workspace import Workspace
from tests.training.conftest import write_train_file

pytestmark = pytest.mark.slow
_EVENTS_100K = 100_000


class Place:
    """A dashboard with a workspace in which tiny models are trained by jobs."""

    def __init__(self, workspace: Workspace, url: str, model: Path, data: Path):
        self.workspace, self.url, self._model, self._data = workspace, url, model, data

    def start(self, name: str, steps: int) -> Job:
        words = [
            "lark", "train", "lora", "--train-data", str(self._data), "--student", str(self._model), "--name", name,
            "--max-steps", str(steps), "--save-steps", "500", "--global-batch", "4", "--max-length", "256",
            "--eval-share", "0.3", "--lora-rank", "4", "--device", "cpu", "--dtype", "float32",
            "--workspace", str(self.workspace.root),
        ]  # fmt: skip
        return actions.submit(self.workspace.root, words, cwd=self._data.parent).job


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    patch.setenv("LARK_LEASES", str(folder / "leases"))
    workspace = Workspace(folder / "workspace")
    data = write_train_file(folder / "train.jsonl", [0.9, 0.1, 0.5, 0.3, 0.2, 0.7, 0.3, 0.4, 0.4, 0.6])
    try:
        with dashboard(workspace) as url:
            yield Place(workspace, url, tiny_model_dir, data)
    finally:
        for job in all_jobs(workspace.root):
            if view(job).is_live:
                actions.stop(job, "kill")
        patch.undo()


def wait_for(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (met := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return met


def stat(page: Any, label: str) -> str:
    """The value of a figure of the run."""
    return page.locator(f'[data-card="run_figures"] dl > div:has(dt:text-is("{label}")) dd').first.inner_text()


def steps(page: Any) -> int:
    return int(stat(page, "Step").replace(",", "").replace("–", "0"))


def lay_over(page: Any, name: str) -> None:
    """Choose a run from the menu, which a run of the page closes."""
    option = page.get_by_role("option", name=re.compile(f"^{re.escape(name)}"))

    def is_open() -> bool:
        page.get_by_role("combobox", name="Lay over").press("ArrowDown")
        page.wait_for_timeout(300)
        return bool(option.count())

    wait_for(is_open)
    option.click()


def test_a_run_is_watched_stopped_resumed_and_laid_over_an_earlier_one(place: Place, browser: Any) -> None:
    make_runs(place.workspace, num_runs=1, num_steps=60)
    job = place.start("watched", 4000)
    with open_page(browser, f"{place.url}/train?view=runs") as page:
        wait_meta(page, "loss", axis="step", overlaid=0)
        first = steps(page)
        wait_for(lambda: steps(page) > first)  # by itself
        assert re.fullmatch(r"[\d.]+ (s|min \d\d s|h \d\d min)", stat(page, "Time left"))
        assert page.get_by_text("Held-out loss", exact=True).count() >= 1

        page.get_by_role("button", name="Stop after checkpoint").click()
        wait_for(lambda: view(job).state == "cancelled")
        page.get_by_role("button", name="Resume").wait_for()
        wait_idle(page)
        stopped_at = steps(page)
        assert page.get_by_role("cell", name=f"{stopped_at:,}", exact=True).count() == 1  # the checkpoint on the disk
        assert axe(page) == [] and overflow(page) <= 0

        page.get_by_role("button", name="Resume").click()
        wait_for(lambda: steps(page) > stopped_at)
        event = wait_for(lambda: view(job).event)
        assert event["eta_s"] == pytest.approx((4000 - event["done"]) / event["rate"], rel=0.05)
        trained = re.match(r"[\d.]+", stat(page, "Trained for"))
        assert trained is not None
        n = board_meta(page, "loss")["n"]
        wait_for(lambda: board_meta(page, "loss")["n"] > n >= stopped_at)

        lay_over(page, "lora-000 · finished")
        meta = wait_meta(page, "loss", overlaid=1)
        page.keyboard.press("Escape")
        page.get_by_role("radio", name="Tokens").click()
        wait_meta(page, "loss", axis="tokens", overlaid=1, run=meta["run"])
        assert "run_by=tokens" in page.url and "overlay=lora-000-" in page.url
        page.get_by_role("button", name="Stop now").click()
        wait_for(lambda: not view(job).is_live)

        page.get_by_role("button", name="Show run lora-000").click()
        wait_meta(page, "loss", run="lora-000", overlaid=0)
        assert "run=lora-000-" in page.url


def test_a_live_panel_of_a_hundred_thousand_steps_follows_its_log(place: Place, browser: Any) -> None:
    """The log grows by five steps a tick; how long that takes is measured by `benchmarks.dashboard`."""
    run = make_runs(place.workspace, num_runs=2, num_steps=1)[1]
    (run.path / "manifest.json").unlink()
    log = run.path / "events.jsonl"
    log.unlink()
    write_run_events(log, _EVENTS_100K, total=200_000)
    with (run.path / ".lock").open("a") as held, open_page(browser, f"{place.url}/train?view=runs") as page:
        fcntl.flock(held, fcntl.LOCK_EX)
        page.goto(f"{place.url}/train?run={run.path.name}")
        wait_meta(page, "loss", step=float(_EVENTS_100K))
        for done in (_EVENTS_100K + 5, _EVENTS_100K + 10):
            write_run_events(log, 5, first=done - 4, total=200_000)
            assert wait_meta(page, "loss", step=float(done))["n"] == done
