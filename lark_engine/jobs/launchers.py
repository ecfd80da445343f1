"""Where the supervisor of a job is started. Everything after that is the job's folder, the same for every launcher."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from lark_engine.errors import ServerError
from lark_engine.jobs.folder import FOLDER_MARKS, Job
from lark_engine.jobs.logs import last_lines
from lark_engine.jobs.records import Launch, LauncherName
from lark_engine.jobs.status import JobView
from lark_engine.store.atomic import disk_errors

LAUNCH_TIMEOUT_S = 2.5
_POLL_S = 0.02


class Launcher(Protocol):
    """A place to run jobs at."""

    @property
    def name(self) -> LauncherName: ...

    def launch(self, job: Job) -> Launch | None:
        """Start the job's supervisor; returns its launch record, or None where that comes later (a cluster's queue).

        Errors: `ServerError` with the reason why it does not start.
        """

    def status(self, found: JobView) -> JobView:
        """The job as it is shown, with what only the launcher knows: why it waits, or never came up."""

    def logs(self, job: Job) -> str:
        """What was said before the job's own log was opened."""

    def end(self, job: Job) -> None:
        """End a supervisor that does not do what `control.json` asks, or is not up yet. Errors: `ServerError`."""


class LocalLauncher:
    """This machine: a process that outlives the one that starts it."""

    name: LauncherName = "local"

    def launch(self, job: Job) -> Launch | None:
        before = job.launch()
        process = start_supervisor(job)
        deadline = time.monotonic() + LAUNCH_TIMEOUT_S
        while time.monotonic() < deadline:
            launch = job.launch()
            if launch is not None and launch != before:
                return launch
            if process.poll() is not None:
                said = last_lines(job.log_path, 1)
                raise ServerError(f"{job.id} did not start: {said[0] if said else 'no output'}")
            time.sleep(_POLL_S)
        return None  # a slow machine: the supervisor is coming up, and `lark jobs show` says when it is there

    def status(self, found: JobView) -> JobView:
        return found

    def logs(self, job: Job) -> str:
        return ""

    def end(self, job: Job) -> None:
        """Nothing stands between us and the supervisor here."""


def start_supervisor(job: Job, *flags: str) -> subprocess.Popen[bytes]:
    """Start a supervisor in a session of its own, with the job's log as its output. Errors: `StoreError`."""
    job.require_own_files()
    environment = {name: value for name, value in os.environ.items() if name not in FOLDER_MARKS}
    with disk_errors(job.log_path), job.log_path.open("ab") as output:
        return subprocess.Popen(
            supervisor_command(job, *flags), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip


def supervisor_command(job: Job, *flags: str) -> list[str]:
    return [sys.executable, "-P", "-m", "lark_engine.jobs.supervise", str(job.folder), *flags]


def program(command: Sequence[str]) -> list[str]:
    """What is started for a command as it is shown: `lark` is the command line of this very environment.

    With -P, as of the console script: what lies in the folder that it runs in is not imported.
    """
    if command[0] == "lark":
        return [sys.executable, "-P", "-m", "lark_engine.cli", *command[1:]]
    return list(command)


def launcher_of(name: LauncherName, address: str | None) -> Launcher:
    """The launcher of this name. Errors: `ConfigError` for a cluster without an address."""
    if name == "ray":
        from lark_engine.jobs.ray_launcher import RayLauncher

        return RayLauncher(address)
    return LocalLauncher()
