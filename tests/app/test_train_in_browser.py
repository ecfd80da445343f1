"""Train in a real browser: form and YAML follow each other, a preflight is a job, a button starts one run."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from browser import axe, dashboard, open_page, overflow, wait_idle
from train_workspace import make_selection

from lark_engine.errors import LarkError
from lark_engine.jobs.actions import stop
from lark_engine.jobs.status import JobView, list_jobs
from lark_engine.store.workspace import Workspace
from lark_engine.training.preflight_record import PREFLIGHT, is_preflight

pytestmark = pytest.mark.slow
PREFLIGHT_MS = 150_000


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A selection of a few trajectories; what is started in it ends with the module."""
    workspace = Workspace(tmp_path_factory.mktemp("train"))
    make_selection(workspace, budget=1)
    yield workspace
    for job in list_jobs(workspace.root):
        with contextlib.suppress(LarkError):
            stop(job.job, "kill")


@pytest.fixture(scope="module")
def address(workspace: Workspace, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page with the tiny model as student."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LARK_LEASES", str(tmp_path_factory.mktemp("leases")))
        values = {"train_student": str(tiny_model_dir), "train.dtype": "float32", "train.lora_rank": "2"}
        with dashboard(workspace) as address:
            yield f"{address}/train?{urlencode(values)}"


def field(page: Any, label: str) -> Any:
    return page.get_by_role("textbox", name=label).first


def enter(page: Any, label: str, value: str) -> None:
    field(page, label).fill(value)
    field(page, label).press("Enter")
    wait_idle(page)


def yaml(page: Any) -> Any:
    return page.get_by_role("textbox", name="The same as a recipe (YAML)")


def command(page: Any) -> list[str]:
    return shlex.split(page.locator(".st-key-train_launch_panel code").inner_text())


def jobs(workspace: Workspace, *, preflight: bool) -> list[JobView]:
    return [job for job in list_jobs(workspace.root) if job.spec and is_preflight(job.spec.command) == preflight]


def test_form_and_yaml_follow_each_other_and_a_mistake_is_explained_at_its_field(browser: Any, address: str) -> None:
    with open_page(browser, address) as page:
        enter(page, "Learning rate", "3e-5")
        assert "train.lr=3e-5" in page.url
        assert page.get_by_text("Learning rate ●").is_visible()
        assert "lr: 3.0e-05  # recipe: 0.0001" in yaml(page).input_value()
        yaml(page).fill("lr: 2e-4\nepochs: 2\nlora_rank: 2\ndtype: float32\ndeepspeed: zero2")
        page.get_by_role("button", name="Use this YAML").click()
        page.get_by_text("Epochs ●").wait_for()
        wait_idle(page)
        assert field(page, "Epochs").input_value() == "2"
        assert command(page)[-4:-2] == ["--deepspeed", "zero2"]
        enter(page, "Epochs", "-1")
        alert = page.locator(".lark-field-problem")
        assert alert.inner_text() == "input should be greater than 0"
        assert page.get_by_role("button", name="Start training").is_disabled()
        page.get_by_role("button", name="Back to the recipe").click()
        alert.wait_for(state="detached")
        wait_idle(page)
        assert "train.lr" not in page.url and "train.epochs" not in page.url
        assert (axe(page), overflow(page)) == ([], 0)


def test_a_link_and_a_reload_show_the_same_form_and_the_same_mistake(browser: Any, address: str) -> None:
    link = f"{address}&train_recipe=full_500&train.lr=fast&train.deepspeed=&train_name=mine"
    with open_page(browser, link) as page:
        page.reload()
        wait_idle(page)
        assert field(page, "Learning rate").input_value() == "fast"
        assert field(page, "Name").input_value() == "mine"
        assert page.locator(".lark-field-problem").inner_text().startswith("input should be a valid number")
        enter(page, "Learning rate", "1e-5")
        assert command(page)[-4:-2] == ["--deepspeed", "none"]  # which the recipe sets, and the link takes out


def test_the_preflight_runs_as_the_shown_command_and_shows_what_it_measured(
    browser: Any, address: str, workspace: Workspace
) -> None:
    with open_page(browser, f"{address}&train.global_batch=2") as page:
        page.get_by_role("button", name="Run the preflight").click()
        page.get_by_text("Do the weights bite?").wait_for(timeout=PREFLIGHT_MS)
        wait_idle(page)
        (job,) = jobs(workspace, preflight=True)
        assert job.spec is not None
        assert list(job.spec.command) == [*command(page)[:-2], "--preflight", "--json", *command(page)[-2:]]
        record = json.loads((job.job.folder / PREFLIGHT).read_text())
        assert abs(record["gradient_ratio"] - 2) < 1e-2
        assert page.get_by_text(f"× {record['gradient_ratio']:.3f}").is_visible()
        first = record["first_batch"][0]
        assert page.locator(".lark-batch .trained").nth(1).inner_text()[:20] == first["response"][:20]
        assert page.locator(".lark-batch details.trajectory").count() == len(record["first_batch"])
        assert (axe(page), overflow(page)) == ([], 0)
        page.reload()
        wait_idle(page)
        assert page.get_by_text("Do the weights bite?").is_visible()
        enter(page, "Learning rate", "3e-5")
        assert page.get_by_text("The form has changed since the last preflight").is_visible()
        assert not page.get_by_text("Do the weights bite?").is_visible()


def test_a_double_click_a_second_tab_and_a_reload_start_one_run(
    browser: Any, address: str, workspace: Workspace
) -> None:
    url = f"{address}&train.max_steps=2000&train.global_batch=2&train_name=once"
    with open_page(browser, url) as page, open_page(browser, url) as other:
        shown = command(page)
        click = (
            "times => { const b = document.querySelector('.st-key-train_launch button'); "
            "for (let n = 0; n < times; n++) b.click(); }"
        )
        other.evaluate(click, 1)
        page.evaluate(click, 2)
        page.reload()
        wait_idle(page)
        wait_idle(other)
        (job,) = jobs(workspace, preflight=False)
        assert job.spec is not None
        assert list(job.spec.command) == shown
        assert page.get_by_role("button", name="Start training").count() == 0
        page.locator(".st-key-train_launch_panel").get_by_text(job.id).wait_for()
        stop(job.job, "kill")
    assert len(jobs(workspace, preflight=False)) == 1
