"""The pages of work that goes on, measured as `benchmarks.dashboard` does: 500 jobs, 100 runs, one of them with 10⁵
logged steps and alive, and 300 graded results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.jobs import many_jobs
from benchmarks.many_runs import make_graded, make_runs, write_events
from benchmarks.page_clock import CLOCK, Row, timed
from lark_engine.jobs.leases import FOLDER_VARIABLE as LEASES
from lark_engine.store.lock import lock
from lark_engine.store.workspace import Workspace
from lark_engine.training.spec import EVENTS
from tests.app.browser import dashboard, open_page, until, wait_idle, wait_meta

NUM_STEPS = 100_000
_CAPTION = "document.querySelector('.st-key-{key} [role=region]')?.getAttribute('aria-label')"
_META = "document.querySelector('[data-card={card}] .js-plotly-plot')?.layout?.meta?.{name}"


def work_rows(browser: Any, folder: Path, steps: int) -> Iterator[Row]:
    """All rows, each page on a workspace of its own below `folder`."""
    os.environ[LEASES] = str(folder / "leases")
    jobs = Workspace(folder / "jobs")
    with many_jobs(jobs.root):
        yield from _jobs(browser, jobs, steps)
    runs = Workspace(folder / "runs")
    trained = make_runs(runs)
    make_graded(runs, trained)
    yield from _evaluate(browser, runs, steps)
    yield from _runs(browser, runs, steps)


def _timed_choices(
    page: Any, what: str, names: tuple[str, ...], shown: dict[str, str], steps: int, limit: float
) -> Row:
    """Clicks on the choices of a control in turn, until what each of them brings is painted."""
    times = []
    for step in range(1, steps + 1):
        name = names[step % len(names)]
        choice = page.get_by_test_id("stMain").get_by_role("radio", name=name, exact=False).first
        times.append(timed(page, choice.click, shown[name]))
        wait_idle(page)
    return Row(what=what, values=times, unit="ms", limit=limit)


def _jobs(browser: Any, workspace: Workspace, steps: int) -> Iterator[Row]:
    """Filters of the list of 500 jobs; ten of them live, so that it is polled meanwhile."""
    with dashboard(workspace) as address, open_page(browser, f"{address}/jobs") as page:
        page.evaluate(f"() => {{{CLOCK}}}")
        caption = "document.querySelector('.lark-rows')?.getAttribute('aria-label')"
        shown = {"Failed": f"{caption}.includes('of 50')", "All": f"{caption}.includes('of 500')"}
        yield _timed_choices(page, "Jobs: a filter of 500 jobs", ("All", "Failed"), shown, steps, 300)


def _evaluate(browser: Any, workspace: Workspace, steps: int) -> Iterator[Row]:
    """Another metric of 101 models on 3 benchmarks, with paired differences."""
    with dashboard(workspace) as address, open_page(browser, f"{address}/evaluate") as page:
        page.evaluate(f"() => {{{CLOCK}}}")
        caption = _CAPTION.format(key="results_table")
        names = ("avg@4", "pass@4", "maj@4")
        shown = {name: f"{caption}?.startsWith({json.dumps(name)})" for name in names}
        for name in names:  # what is compared for the first time is read from the disk
            page.get_by_test_id("stMain").get_by_role("radio", name=name).first.click()
            wait_idle(page)
        yield _timed_choices(page, "Evaluate: another metric of 100 runs", names, shown, steps, 300)


def _runs(browser: Any, workspace: Workspace, steps: int) -> Iterator[Row]:
    """A live run with 10⁵ logged steps beside 100 finished ones: its panel drawn anew."""
    folder = workspace.root / "checkpoints" / "long-000000000000"
    folder.mkdir(parents=True)
    write_events(folder / EVENTS, NUM_STEPS, total=2 * NUM_STEPS)
    with (
        lock(folder), dashboard(workspace) as address,
        open_page(browser, f"{address}/train?view=runs&run={folder.name}") as page,
    ):  # fmt: skip
        page.evaluate(f"() => {{{CLOCK}}}")
        axis = _META.format(card="loss", name="axis")
        shown = {"Tokens": f"{axis} === 'tokens'", "Step": f"{axis} === 'step'"}
        what = "Train: the whole page with a run of 100,000 steps, another axis"
        yield _timed_choices(page, what, ("Step", "Tokens"), shown, steps, 500)
        yield _ticks(page, folder / EVENTS, min(steps, 20))
        times = []
        for _ in range(steps):
            head = page.locator(".st-key-runs_table th button", has_text="Loss").first
            before = "document.querySelector('.st-key-runs_table tbody tr')?.textContent"
            told = json.dumps(page.evaluate(before))
            times.append(timed(page, head.click, f"{before} !== {told}"))
            wait_idle(page)
        yield Row(what="Train: the table of 101 runs, sorted otherwise", values=times, unit="ms", limit=300)


# From the moment at which the script begins to run to the next paint of the board.
_WATCH = """() => {
  const app = document.querySelector("[data-testid=stApp]");
  let began = null;
  window.larkTick = null;
  const watch = new MutationObserver(() => {
    if (app.dataset.testScriptState === "running") began = performance.now();
  });
  watch.observe(app, { attributes: true, attributeFilter: ["data-test-script-state"] });
  document.addEventListener("lark:painted", function seen(event) {
    if (event.detail.board !== "run_board" || began === null) return;
    window.larkTick = performance.now() - began;
    watch.disconnect();
    document.removeEventListener("lark:painted", seen);
  });
}"""


def _ticks(page: Any, log: Path, count: int) -> Row:
    """New steps are logged; from the request that a polling page makes to the paint of all curves."""
    times = []
    for tick in range(count):
        done = NUM_STEPS + 5 * (tick + 1)
        page.evaluate(_WATCH)
        write_events(log, 5, first=done - 4, total=2 * NUM_STEPS)
        wait_meta(page, "loss", step=float(done))
        until(page, "window.larkTick !== null")
        times.append(page.evaluate("window.larkTick"))
    return Row(what="Train: a tick of that run's live panel, to the paint", values=times, unit="ms", limit=200)
