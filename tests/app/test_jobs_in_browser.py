"""Jobs in a real browser with real jobs: followed, stopped, resumed and cloned; logs that grow on the page."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_jobs as fake
import pytest
from browser import axe, dashboard, no_exceptions, open_page, overflow, until, wait_idle

from lark_engine.jobs import actions
from lark_engine.jobs.folder import Job, all_jobs
from lark_engine.jobs.status import view
from lark_engine.store.workspace import Workspace
from tests.fake_server import FakeServer, fake_server
from tests.jobs.kit import new_job, processes_of, python, wait_for, wait_for_state

__all__ = ["fake_server"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace whose jobs lease devices of their own and are ended with the module."""
    folder = tmp_path_factory.mktemp("jobs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LARK_LEASES", str(folder / "leases"))
        yield folder / "workspace"
    for job in all_jobs(folder / "workspace"):
        for pid in processes_of(job):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with dashboard(Workspace(root)) as running:
        yield running


def generate(root: Path, server: FakeServer, samples: int) -> Job:
    """A real stage that samples slowly from a server, one answer after the other, on the machine's CPU slot."""
    benchmark = root.parent / "sums.json"
    benchmark.write_text(json.dumps([{"prompt": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(4)]))
    words = ["lark", "generate", "--backend", "endpoint", "--endpoint", server.url, "--benchmark", str(benchmark)]
    words += ["--n-samples", str(samples), "--max-concurrency", "1", "--workspace", str(root)]
    return actions.submit(root, words, cwd=root.parent, devices=1).job


def state(page: Any, name: str) -> None:
    """Wait until the heading of the job that is open says this state."""
    page.locator(".lark-job-heading .lark-state", has_text=name).wait_for()


def press(page: Any, name: str) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name=name, exact=True).click()


def test_a_real_failure_is_opened_from_the_list_resumed_cloned_and_removed(
    browser: Any, address: str, root: Path
) -> None:
    missing = root.parent / "missing.jsonl"
    command = ["lark", "pool", "import", str(missing), "--workspace", str(root)]
    with open_page(browser, f"{address}/jobs") as page:
        page.get_by_text("No jobs yet").wait_for()
        job = actions.submit(root, command, cwd=root.parent).job
        row = page.locator(".lark-rows tbody tr", has_text=job.id[-8:])
        row.filter(has_text="bad input").wait_for()  # the page noticed the job, and its end, by itself
        assert axe(page) == []
        row.get_by_role("button").click()
        page.wait_for_url(f"**job={job.id}*")
        card = page.locator(".lark-ending")
        card.filter(has_text=f"{missing}: no such file or folder").wait_for()
        assert "give a file (.jsonl" in card.inner_text()
        assert page.locator(".lark-log div").last.inner_text().endswith("(owner/name)")
        assert axe(page) == []
        press(page, "Resume")
        page.get_by_text("Earlier attempts").wait_for()
        wait_for_state(job, "failed")
        assert view(job).attempt == 2
        state(page, "failed")
        press(page, "Run again with changes")
        page.get_by_label("Options to change").fill("--name 'my pool'")
        page.get_by_label("Options to change").press("Enter")
        page.locator("[data-testid=stPopoverBody] code", has_text="'my pool'").wait_for()
        page.get_by_test_id("stPopoverBody").get_by_role("button", name="Start it").click()
        until(page, "id => !location.href.includes(id)", job.id)
        copy = wait_for(lambda: next((one for one in all_jobs(root) if one != job), None))
        assert copy.spec().command == (*command, "--name", "my pool")
        assert copy.spec().cloned_from == job.id
        state(page, "failed")
        press(page, "Remove")
        page.get_by_test_id("stPopoverBody").get_by_role("button", name="Remove it").click()
        page.locator(".lark-rows").first.wait_for()
        assert not copy.folder.exists()


def test_a_bad_recipe_and_memory_that_runs_out_are_told_apart_with_a_remedy_each(
    browser: Any, address: str, root: Path
) -> None:
    recipe = root.parent / "recipe.yaml"
    recipe.write_text("method: lora\nlearning_rat: 1\n")
    words = ["lark", "train", "lora", "--train-data", "x", "--student", "s", "--recipe", str(recipe)]
    bad = actions.submit(root, [*words, "--workspace", str(root)], cwd=root.parent).job
    # The allocator of the trainer itself refuses: more than any machine has.
    full = new_job(root, python("import torch; torch.empty(10**15)"))
    actions.launch(full)
    for job, reason, said in (
        (bad, "bad option", "unknown key 'learning_rat'"), (full, "host memory", "the machine's memory is used up"),
    ):  # fmt: skip
        wait_for_state(job, "failed")
        with open_page(browser, f"{address}/jobs?job={job.id}") as page:
            state(page, "failed")
            card = page.locator(".lark-ending").inner_text()
            assert said in card
            assert reason in card.lower().replace("_", " ")
            assert len(card.splitlines()) >= 2  # what happened, and what to do
        with open_page(browser, f"{address}/jobs?job_state=failed") as page:
            assert page.locator(".lark-rows tbody tr", has_text=job.id[-8:]).count() == 1


def test_a_running_stage_is_followed_stopped_at_a_checkpoint_and_resumed(
    browser: Any, address: str, root: Path, fake_server: FakeServer
) -> None:
    fake_server.pause_s = 0.1
    job = generate(root, fake_server, 100)
    with open_page(browser, f"{address}/jobs?job={job.id[-8:]}") as page:
        state(page, "running")
        bar = page.locator(".lark-bar[role=progressbar]")
        bar.wait_for()
        before = float(bar.get_attribute("aria-valuenow"))
        until(
            page,
            "before => Number(document.querySelector('.lark-bar')?.getAttribute('aria-valuenow')) > before",
            before,
        )
        page.locator(".lark-run .muted", has_text=" left").wait_for()
        press(page, "Stop after checkpoint")
        state(page, "cancelled")
        assert "stopped after " in page.locator(".lark-ending").inner_text()
        press(page, "Resume")
        state(page, "running")
        second = generate(root, fake_server, 101)  # waits for the device that the first one holds
        page.goto(f"{address}/jobs")
        queue = page.locator(".lark-rows[aria-label*=' waiting, ']").locator("tbody tr")
        queue.filter(has_text=f"is held by generate {job.id[-8:]}").wait_for()
        queue.get_by_role("button").click()
        state(page, "queued")
        press(page, "Leave the queue")
        state(page, "cancelled")
        assert (view(second).verdict or {})["message"] == "cancelled while it waited"
        press(page, "All jobs")
        page.get_by_role("button", name=f"generate · {job.id[-8:]}").first.click()  # from its device
        state(page, "running")
        press(page, "Stop now")
        state(page, "cancelled")
        assert wait_for_state(job, "cancelled").attempt == 2


def test_a_log_grows_on_the_page_and_a_reader_is_left_where_they_are(browser: Any, address: str, root: Path) -> None:
    job = fake.living(root, "running")
    job.log_path.write_text("".join(f"line {number}\n" for number in range(100)))
    with open_page(browser, f"{address}/jobs?job={job.id}&log_lines=1000") as page:
        lines = page.locator(".lark-log div")
        lines.filter(has_text="line 99").wait_for()
        at_end = "log => log.scrollHeight - log.scrollTop - log.clientHeight < 2"
        log = page.locator(".lark-log")
        assert log.evaluate(at_end)
        append(job, "line 100 <b>not bold</b>")
        lines.filter(has_text="<b>not bold</b>").wait_for()
        assert log.evaluate(at_end)  # the end stays in sight
        lines.first.evaluate("line => { line.dataset.kept = 'yes'; }")
        log.evaluate("log => { log.scrollTop = 40; }")
        append(job, "line 101")
        lines.filter(has_text="line 101").wait_for()
        assert log.evaluate("log => log.scrollTop") == 40
        assert lines.first.get_attribute("data-kept") == "yes"  # nothing that is read is drawn anew
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the whole log").click()
        assert download.value.path().read_text() == job.log_path.read_text()
    (job.folder / "launch.json").unlink()


def append(job: Job, line: str) -> None:
    with job.log_path.open("a") as file:
        file.write(f"{line}\n")


def test_a_live_list_keeps_the_focus_and_its_rows(browser: Any, address: str, root: Path) -> None:
    job = fake.living(root, "running")
    fake.tell(job, done=1, total=100)
    with open_page(browser, f"{address}/jobs") as page:
        row = page.locator(".lark-rows tbody tr", has_text=job.id[-8:])
        row.filter(has_text="1 of 100 steps").wait_for()
        row.get_by_role("button").focus()
        row.evaluate("row => { row.dataset.kept = 'yes'; }")
        fake.tell(job, done=57, total=100)
        row.filter(has_text="57 of 100 steps").wait_for()
        assert row.get_attribute("data-kept") == "yes"
        assert page.evaluate("document.activeElement.textContent").endswith(job.id[-8:])
        page.keyboard.press("Enter")
        state(page, "running")
    (job.folder / "launch.json").unlink()


def test_filter_and_page_are_in_the_address_and_fit_a_phone_in_the_dark(browser: Any, address: str, root: Path) -> None:
    fake.many(root, {"succeeded": 60, "failed": 30})
    with open_page(browser, f"{address}/jobs?job_state=failed", scheme="dark", width=320) as page:
        assert overflow(page) <= 1
        page.get_by_role("button", name="Next page").click()
        page.wait_for_url("**job_page=2*")
        page.locator(".lark-rows[aria-label^='Jobs 26 to ']").wait_for()
        page.go_back()
        page.locator(".lark-rows[aria-label^='Jobs 1 to 25 ']").wait_for()
        wait_idle(page)
        assert axe(page) == []
        page.locator(".lark-rows button.open").nth(3).click()
        page.locator(".lark-ending").wait_for()
        wait_idle(page)
        assert overflow(page) <= 1
        assert axe(page) == []


def test_the_button_of_a_new_workspace_runs_the_demo_and_the_page_follows_it(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LARK_LEASES", str(tmp_path / "leases"))
    root = tmp_path / "new"
    with dashboard(Workspace(root)) as address, open_page(browser, address) as page:
        try:
            assert axe(page) == []
            press(page, "Run the demo")
            page.get_by_text("Running now").wait_for()
            [job] = all_jobs(root)
            assert job.spec().command == ("lark", "demo", "--no-dashboard", "--workspace", str(root))
            page.get_by_role("link", name="Open").click()
            page.wait_for_url(f"**/jobs?job={job.id}")
            wait_idle(page)
            no_exceptions(page)
        finally:
            for job in all_jobs(root):
                actions.stop(job, "kill")
    assert time.time() - job.spec().submitted_at < 60
