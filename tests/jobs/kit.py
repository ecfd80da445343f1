"""Real jobs for tests: small programs under the real supervisor, and waiting for what becomes of them."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lark_engine.jobs import actions
from lark_engine.jobs.folder import Job, create_job
from lark_engine.jobs.logs import last_lines
from lark_engine.jobs.records import JobSpec
from lark_engine.jobs.status import JobView, State, view
from lark_engine.processes import descendants, marked

WAIT_S = 40.0


def python(code: str) -> tuple[str, ...]:
    """A command that runs a few lines of Python."""
    return (sys.executable, "-c", code)


def write_pool(path: Path) -> Path:
    """A pool of one trajectory."""
    messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    row = {"problem_id": 1, "candidate_id": 0, "teacher": "t", "messages": messages}
    path.write_text(json.dumps(row) + "\n")
    return path


def new_job(root: Path, command: tuple[str, ...], **values: Any) -> Job:
    return create_job(root, JobSpec(stage="test", command=command, cwd=str(root.parent), **values))


def start(root: Path, command: tuple[str, ...], **values: Any) -> Job:
    """A job whose supervisor is up."""
    job = new_job(root, command, **values)
    actions.launch(job)
    wait_for(lambda: job.launch() is not None, job)
    return job


def wait_for(condition: Callable[[], Any], job: Job | None = None, timeout_s: float = WAIT_S) -> Any:
    """What the condition gives when it gives something; an error that quotes the job's log after the time."""
    deadline = time.monotonic() + timeout_s
    while not (met := condition()):
        if time.monotonic() > deadline:
            said = "\n".join(last_lines(job.log_path, 40)) if job else ""
            pytest.fail(f"waited {timeout_s:g} s in vain; {view(job) if job else ''}\n{said}")
        time.sleep(0.05)
    return met


def wait_for_state(job: Job, *states: State, timeout_s: float = WAIT_S) -> JobView:
    wait_for(lambda: view(job).state in states, job, timeout_s)
    return view(job)


def wait_for_text(path: Path, text: str, job: Job) -> None:
    wait_for(lambda: path.exists() and text in path.read_text(errors="replace"), job)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    os.kill(pid, number)


def supervisor_pid(job: Job) -> int:
    launch = job.launch()
    assert launch is not None
    return launch.supervisor.pid


def command_pid(job: Job) -> int:
    """The id of the process that runs the command, once there is one."""

    def found() -> int | None:
        launch = job.launch()
        return launch.command.pid if launch and launch.command else None

    return int(wait_for(found, job))


def processes_of(job: Job) -> list[int]:
    """All live processes of a job: those that carry its mark, its supervisor and what descends from that."""
    launch = job.launch()
    own = [launch.supervisor.pid] if launch and launch.supervisor.liveness() == "live" else []
    own = [pid for pid in own if pid != os.getpid()]
    below = [pid for top in own for pid in descendants(top)]
    return sorted({*marked("LARK_JOB_ID", job.mark), *own, *below} - {os.getpid()})
