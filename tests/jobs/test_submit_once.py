"""A button that is pressed twice, in two tabs, in two servers, or on a page that is loaded anew, starts one job."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lark_engine.errors import ConfigError
from lark_engine.jobs import actions
from lark_engine.jobs.folder import all_jobs
from lark_engine.jobs.status import view
from tests.jobs.kit import wait_for_state

pytestmark = pytest.mark.slow

_PRESS = """
import sys, time
from pathlib import Path
from lark_engine.jobs.actions import submit_once
root, command = Path(sys.argv[1]), sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
print(submit_once(root, command, cwd=Path.cwd()).id)
"""


def missing_pool(root: Path, name: str = "missing") -> list[str]:
    """A command that fails as soon as it looks."""
    return ["lark", "pool", "import", f"/nowhere/{name}.jsonl", "--workspace", str(root)]


def test_four_processes_at_once_start_one_job_and_are_told_of_the_same(root: Path) -> None:
    words = [sys.executable, "-c", _PRESS, str(root), *missing_pool(root)]
    pressed = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]  # fmt: skip
    for one in pressed:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    said = {one.communicate("\n", timeout=60)[0].strip() for one in pressed}
    assert [job.id for job in all_jobs(root)] == list(said)
    wait_for_state(all_jobs(root)[0], "failed")


def test_a_double_click_on_a_command_that_fails_at_once_starts_one_job_and_a_later_click_another(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = missing_pool(root)
    first = actions.submit_once(root, command, cwd=root.parent)
    assert actions.submit_once(root, command, cwd=root.parent).id == first.id
    wait_for_state(first.job, "failed")
    monkeypatch.setattr(actions, "_SAME_CLICK_S", 0.0)
    again = actions.submit_once(root, command, cwd=root.parent)
    assert again.id != first.id
    wait_for_state(again.job, "failed")


def test_another_command_is_another_job(root: Path) -> None:
    made = [actions.submit_once(root, missing_pool(root, name), cwd=root.parent) for name in ("one", "two")]
    assert len({job.id for job in made}) == 2
    for job in made:
        wait_for_state(job.job, "failed")
    found = actions.newest_of([view(job.job) for job in reversed(made)], missing_pool(root, "one"))
    assert found is not None and found.id == made[0].id
    assert actions.newest_of([], missing_pool(root)) is None


def test_what_is_no_stage_is_refused_before_a_folder_is_made(root: Path) -> None:
    with pytest.raises(ConfigError, match="a job runs a command of lark"):
        actions.submit_once(root, ["rm", "-r", "/"], cwd=root.parent)
    assert not root.exists()


def test_the_job_that_lives_is_found_also_when_a_newer_one_of_the_same_command_has_ended(root: Path) -> None:
    older, newer = (actions.submit(root, missing_pool(root), cwd=root.parent).job for _ in range(2))
    for job in (older, newer):
        wait_for_state(job, "failed")
    views = [view(newer), replace(view(older), state="running")]
    found = actions.newest_of(views, missing_pool(root))
    assert found is not None and found.id == older.id
    ended = actions.newest_of([view(newer), view(older)], missing_pool(root))
    assert ended is not None and ended.id == newer.id


def test_a_clone_that_is_asked_for_twice_at_once_is_one_job(root: Path) -> None:
    job = actions.submit(root, missing_pool(root), cwd=root.parent).job
    wait_for_state(job, "failed")
    clones = {actions.clone(job, root, ["--name", "x"], once=True).id for _ in range(2)}
    assert len(clones) == 1
    for one in all_jobs(root):
        wait_for_state(one, "failed")
    assert len(all_jobs(root)) == 2
