"""What the command of a job knows of it: where its events go, what is asked of it, and how it tells its end.

Entry points of processes call `join`; stages know of no job.
"""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import MutableMapping
from pathlib import Path

from lark_engine.errors import LarkError, first_line
from lark_engine.jobs.folder import COMMAND_VARIABLE, FOLDER_VARIABLE, MARK, Job
from lark_engine.store.atomic import disk_errors
from lark_engine.store.events import JobLink, link_job

log = logging.getLogger(__name__)

_LOOK_S = 3.0
_LONGEST_LOOK_S = 300.0


def environment_of(job: Job) -> dict[str, str]:
    """What the command's environment has beside ours."""
    # A process that gives itself a title would otherwise overwrite the environment that it is known by.
    return {MARK: job.mark, FOLDER_VARIABLE: str(job.folder), COMMAND_VARIABLE: "1", "SPT_NOENV": "1"}


class Membership:
    """The job that this process belongs to."""

    def __init__(self, job: Job, *, is_command: bool):
        self.job = job
        self.is_command = is_command
        self._artifacts: list[str] = []

    def made(self, artifact: str) -> None:
        """Note an artifact (`kind/id`) that the command made or found finished."""
        if artifact not in self._artifacts:
            self._artifacts.append(artifact)

    def tell(self, error: BaseException | None) -> None:
        """Leave word of how the command ended, for a supervisor that may not see its exit status."""
        if not self.is_command:
            return
        values: dict[str, object] = {"artifacts": self._artifacts}
        if error is not None:
            message = str(error) if isinstance(error, LarkError) else first_line(error)
            values |= {"error": type(error).__name__, "message": message}
        try:
            with disk_errors(self.job.folder):
                self.job.write_outcome(values)
        except (LarkError, OSError) as why:  # a full disk: the exit status and the log say it too
            log.warning("%s", why)
        # Somebody has to read it.
        if (launch := self.job.launch()) and launch.supervisor.liveness() == "gone":
            _start_supervisor(self.job)


def join(environment: MutableMapping[str, str]) -> Membership | None:
    """Tie this process to the job whose environment it was started in, if there is one.

    The environment loses what is not for the processes that this one starts.
    """
    folder = environment.get(FOLDER_VARIABLE)
    if not folder or not Path(folder).is_dir():
        return None
    job = Job(Path(folder))
    link_job(
        JobLink(
            events_path=job.events_path, wants_stop=lambda: job.request() == "after_checkpoint",
            builds=job.note_artifact,
        )
    )  # fmt: skip
    is_command = environment.pop(COMMAND_VARIABLE, None) is not None
    if is_command:
        threading.Thread(target=_keep_supervised, args=(job,), daemon=True, name="supervisor-watch").start()
    return Membership(job, is_command=is_command)


def leave() -> None:
    """Untie this process again."""
    link_job(None)


def _keep_supervised(job: Job) -> None:
    """Call a new supervisor when the one that started this process is gone: a long run goes on being watched."""
    waiting = threading.Event()
    look_s = _LOOK_S
    while not waiting.wait(look_s):
        launch = job.launch()
        if launch is None or launch.supervisor.liveness() != "gone":
            look_s = _LOOK_S
            continue
        look_s = min(2 * look_s, _LONGEST_LOOK_S)  # one that cannot own the job is not called all the time
        log.warning("the supervisor of job %s is gone; starting another one", job.id)
        _start_supervisor(job).wait()


def _start_supervisor(job: Job) -> subprocess.Popen[bytes]:
    from lark_engine.jobs.launchers import start_supervisor  # not above: it knows all of a job, and we of one

    return start_supervisor(job, "--adopt", str(os.getpid()))
