"""Stages that are started in a terminal are jobs too: seen by everyone, and stopped from anywhere.

The process is its own supervisor. Its output stays in the terminal; the log of the job has what our own modules say.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lark_engine.errors import LarkError
from lark_engine.jobs import logs, verdicts
from lark_engine.jobs.devices import machine_devices
from lark_engine.jobs.folder import FOLDER_VARIABLE, MARK, create_job
from lark_engine.jobs.leases import Lease, holder_of, lease
from lark_engine.jobs.membership import Membership, join, leave
from lark_engine.jobs.needs import needs_of
from lark_engine.jobs.records import Heartbeat, JobSpec, Launch
from lark_engine.jobs.status import GRACE_S, HEARTBEAT_S
from lark_engine.jobs.verdicts import End
from lark_engine.processes import descendants, end_all, marked, own_identity
from lark_engine.store.atomic import disk_errors, write_text

log = logging.getLogger(__name__)

_POLL_S = 0.5


@contextlib.contextmanager
def foreground_job(
    root: Path, stage: str, command: Sequence[str], *, mistakes: tuple[type[BaseException], ...] = ()
) -> Iterator[Membership | None]:
    """Have what runs in this block seen as a job of the workspace.

    Where no folder can be made, as on a read-only disk, the block runs all the same, unseen: the stage says for itself
    what it cannot write. What ends in one of `mistakes`, as a wrong option, was no job.
    """
    with contextlib.ExitStack() as stack:
        try:
            run = stack.enter_context(_Foreground(root, stage, command))
        except (LarkError, OSError, ValueError) as error:
            log.debug("this run is not recorded as a job: %s", error)
            yield None
            return
        try:
            yield run.membership
        except BaseException as error:
            run.error = error
            run.is_mistake = isinstance(error, mistakes)
            raise


class _Foreground(contextlib.AbstractContextManager["_Foreground"]):
    def __init__(self, root: Path, stage: str, command: Sequence[str]):
        needs = needs_of(command, num_gpus=len(machine_devices("cuda")), environment=os.environ)
        spec = JobSpec(
            stage=stage, command=tuple(command), cwd=str(Path.cwd()), device_kind=needs.kind, devices=needs.count,
            launcher="terminal",
        )  # fmt: skip
        self.spec = spec
        self.job = create_job(root, spec)
        self.error: BaseException | None = None
        self.is_mistake = False
        self.launch = Launch(
            supervisor=own_identity(), command=own_identity(), started_at=time.time(), command_started_at=time.time()
        )
        self._ending = threading.Event()
        self._taken: Lease | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="job-heartbeat")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Foreground:
        try:
            return self._begin()
        except BaseException:
            self._stack.close()
            shutil.rmtree(self.job.folder, ignore_errors=True)
            raise

    def _begin(self) -> _Foreground:
        with disk_errors(self.job.folder):
            lock = self._stack.enter_context(self.job.lock_path.open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._taken = self._lease()
            if self._taken:
                self._stack.callback(self._taken.free)
                self.launch = replace(self.launch, devices=tuple(device.id for device in self._taken.devices))
            self._heartbeat = Heartbeat(self.job.folder)
            self._heartbeat.write("running")
            self.job.write_launch(self.launch)
        handler = logging.FileHandler(self.job.log_path, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logging.getLogger("lark_engine").addHandler(handler)
        self._stack.callback(handler.close)
        self._stack.callback(logging.getLogger("lark_engine").removeHandler, handler)
        for name, value in {MARK: self.job.mark, FOLDER_VARIABLE: str(self.job.folder)}.items():
            self._stack.callback(_restore, name, os.environ.get(name))
            os.environ[name] = value
        membership = join(os.environ)
        assert membership is not None
        self.membership = membership
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        leave()
        self._stack.close()
        self._heartbeat.close()
        if self.is_mistake:
            shutil.rmtree(self.job.folder, ignore_errors=True)
            return
        end = End(request=self.job.request(), exit_code=0 if self.error is None else None)
        if self.error is not None and end.request is None and isinstance(self.error, KeyboardInterrupt):
            end = replace(end, request="stop")
        if self.error is not None and not isinstance(self.error, KeyboardInterrupt | SystemExit):
            end = replace(end, error=type(self.error).__name__, message=str(self.error), exit_code=1)
        if self.error is None or end.error:  # what is interrupted leaves no word
            self.membership.is_command = True
            self.membership.tell(self.error)
        with contextlib.suppress(LarkError, OSError):
            write_text(self.job.excerpt_path, logs.excerpt(self.job.log_path))
            self.job.write_done(verdicts.verdict_of(self.job, self.spec, self.launch, end))

    def _lease(self) -> Lease | None:
        """The devices that this run will use, the first that it sees, if they are free: the queue should know of it."""
        if self.spec.device_kind == "none":
            return None
        devices = machine_devices(self.spec.device_kind)
        taken = lease(devices[: self.spec.devices], min(self.spec.devices, len(devices)), self.job.id)
        if taken is None:
            held = next((holder["holder"] for device in devices if (holder := holder_of(device))), "another process")
            log.warning("devices are in use by %s; this run shares them (lark jobs submit would wait)", held)
        return taken

    def _watch(self) -> None:
        """Show signs of life, and do what others ask."""
        beaten = asked_at = 0.0
        asked: str | None = None
        while not self._ending.wait(_POLL_S):
            request, now = self.job.request(), time.monotonic()
            if request != asked:
                asked, asked_at = request, now
                if request == "stop":
                    os.kill(os.getpid(), signal.SIGTERM)  # which the command line takes as Ctrl-C
            if request == "kill" or (request == "stop" and now > asked_at + GRACE_S):
                self._kill()
            if now > beaten + HEARTBEAT_S:
                beaten = now
                if self._taken:
                    self._taken.touch()
                with contextlib.suppress(OSError):
                    self._heartbeat.write("stopping" if request else "running")

    def _kill(self) -> None:
        """End every process of this run, this one last."""
        own = os.getpid()
        end_all(lambda: sorted({*marked(MARK, self.job.mark), *descendants(own)} - {own}), grace_s=0, kill_s=2)
        os.kill(own, signal.SIGKILL)


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
