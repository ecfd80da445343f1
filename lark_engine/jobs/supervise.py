"""The process that owns a run: `python -m lark_engine.jobs.supervise FOLDER [--adopt]`.

It waits for its turn and its devices, runs the job's command, shows signs of life, does what is asked, runs the command
again after a failure that may be gone by itself, and writes the verdict when no process of the job is left. It is
light: nothing that computes is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lark_engine.errors import LarkError, StoreError
from lark_engine.jobs import logs, verdicts
from lark_engine.jobs.devices import Device, machine_devices
from lark_engine.jobs.folder import MARK, OUTCOME, Job
from lark_engine.jobs.launchers import program
from lark_engine.jobs.leases import Lease, holder_of, lease, usable, what_can_never_be
from lark_engine.jobs.membership import environment_of
from lark_engine.jobs.records import Heartbeat, JobSpec, Launch, Request
from lark_engine.jobs.status import GRACE_S, HEARTBEAT_S, is_next
from lark_engine.jobs.verdicts import Before, End
from lark_engine.processes import (
    ProcessIdentity,
    carries,
    descendants,
    end_all,
    identity_of,
    marked,
    own_identity,
    send,
    session_of,
)
from lark_engine.store.atomic import disk_errors, write_text

log = logging.getLogger("lark_engine.jobs")

POLL_S = 0.2
_REST_GRACE_S = 5.0
_QUEUE_POLL_S = 1.0
_FIRST_WAIT_S = 10.0
_LONGEST_WAIT_S = 300.0
# A verdict that cannot be written (full disk, read-only) is tried again for so long; the folder stays resumable.
_INSIST_S = 600.0
_INSIST_POLL_S = 2.0
_PR_SET_CHILD_SUBREAPER = 36
_RESERVE = ".reserve"
_RESERVE_BYTES = 128 << 10


class Supervisor:
    """One job's owner for as long as it lives."""

    def __init__(self, job: Job):
        self.job = job
        self.spec = job.spec()
        self.launch = Launch(supervisor=own_identity(), attempt=job.next_attempt(), started_at=round(time.time(), 3))
        self._heartbeat = Heartbeat(job.folder)
        self._said = ("", "")
        self._beaten_at = 0.0
        self._lease: Lease | None = None
        self._is_launch_written = True
        self._is_session_ours = True  # of the command: of one that we started
        self._terminated = False
        signal.signal(signal.SIGTERM, self._note_term)

    def run(self) -> None:
        """From the queue to the verdict. Errors: `StoreError` when the job's folder cannot be written."""
        self._beat("queued")
        _reserve(self.job)
        self.job.write_launch(self.launch)
        if missing := what_can_never_be(self.spec):
            self._finish(End(error="DeviceError", message=missing))
            return
        if not self._wait_for_turn():
            if not self._terminated:
                self._finish(End(request=self.job.request(), was_queued=True))
            return
        retries = 0
        while True:
            end = self._run_once()
            if self._terminated and self.job.request() is None:
                log.warning("the supervisor was told to end, as when a machine goes down; the job can be resumed")
                return
            verdict = verdicts.verdict_of(self.job, self.spec, self.launch, end)
            again = verdict["is_transient"] and retries < self.spec.max_retries and not end.left
            if again and self._wait_to_retry(verdict, retries):
                retries += 1
                self._set_aside(verdict)
                continue
            if again and self.job.request() is not None:  # it was stopped while it waited to try again
                verdict = verdicts.verdict_of(self.job, self.spec, self.launch, replace(end, request="stop"))
            self._finish(end, verdict)
            return

    def adopt(self, pid: int | None) -> None:
        """Own a run whose supervisor is gone: watch its command, which is not our child, to the end.

        `pid`: of the command that calls us, if it does.
        """
        before = self.job.launch()
        command = before.command if before else None
        if command is None and pid is not None:  # the supervisor did not come to write it
            command = identity_of(pid)
        if before is None or command is None or (command.liveness() != "live" and self.job.outcome() is None):
            log.info("the command of the job has ended without a word")
            return
        # A record may name any process, and what is asked of the job would be done to it.
        if command.liveness() == "live" and command.pid != pid and not carries(command.pid, MARK, self.job.mark):
            log.warning("the launch record names process %d, which is none of this job's", command.pid)
            return
        self._is_session_ours = command.liveness() == "live"
        self.launch = replace(before, supervisor=own_identity(), command=command, adopted=True)
        self._beat("running")
        _reserve(self.job)
        self.job.write_launch(self.launch)
        log.info("took over the job; its command is process %d", command.pid)
        end = self._watch(lambda: command.liveness() != "live")
        if self._terminated and self.job.request() is None:
            return
        self._finish(end)

    def _wait_for_turn(self) -> bool:
        """Wait until it is this job's turn and its devices are free; False when it is not to run any more."""
        if self.spec.device_kind == "none" or self.spec.launcher == "ray":  # Ray deals out its own devices
            return self.job.request() is None
        devices = usable(machine_devices(self.spec.device_kind), self.spec.devices)
        said, passed = "", dict[str, int]()
        while self.job.request() is None and not self._terminated:
            waits_for = "the jobs before it"
            if is_next(self.job, self.spec, passed):
                self._lease = lease(devices, self.spec.devices, self.job.id)
                if self._lease is not None:
                    self.launch = replace(self.launch, devices=tuple(device.id for device in self._lease.devices))
                    return True
                waits_for = _what_is_missing(self.spec, devices)
            if waits_for != said:
                said = waits_for
                log.info("waits for %s", waits_for)
            self._beat("queued", waits_for=waits_for)
            time.sleep(_QUEUE_POLL_S)
        return False

    def _run_once(self) -> End:
        """Start the command, watch it to its end, and end what it left behind."""
        self._beat("starting")
        self._try(lambda: (self.job.folder / OUTCOME).unlink(missing_ok=True))  # an earlier attempt's word
        self.launch = replace(
            self.launch, command=None, command_started_at=round(time.time(), 3),
            log_offset=self.job.log_path.stat().st_size,
        )  # fmt: skip
        log.info("attempt %d: %s", self.launch.attempt, shlex.join(self.spec.command))
        before = Before.now(self.launch.devices if self.spec.device_kind == "cuda" else ())
        argv = program(self.spec.command)
        try:
            process = subprocess.Popen(
                argv, cwd=self.spec.cwd, stdin=subprocess.DEVNULL, env=self._environment(), start_new_session=True,
                pass_fds=self._lease.files if self._lease else (),
            )  # fmt: skip
        except OSError as error:
            what = f"{error.filename or argv[0]}: {error.strerror}"
            return End(before=before, error=type(error).__name__, message=f"{what}; the command was not started")
        self.launch = replace(self.launch, command=identity_of(process.pid))
        self._is_launch_written = self._try(lambda: self.job.write_launch(self.launch))
        end = self._watch(lambda: _has_ended(process.pid))
        status = process.wait()
        return replace(
            end, before=before, exit_code=status if status >= 0 else None, signal=-status if status < 0 else None
        )

    def _watch(self, has_ended: Callable[[], bool]) -> End:
        """Until the command has ended: signs of life, and what is asked. Then end every process of the job."""
        asked: Request | None = None
        asked_at = 0.0
        while not has_ended():
            request = self.job.request()
            if self._terminated and request != "kill":
                request = "stop"
            if request != asked:
                asked, asked_at = request, time.monotonic()
                log.info("asked to %s", _SAID[asked] if asked else "go on")
                if asked == "stop":
                    self._signal_command(signal.SIGTERM)
            if asked == "kill" or (asked == "stop" and time.monotonic() > asked_at + GRACE_S):
                self._signal_command(signal.SIGKILL)
            self._beat("stopping" if asked else "running")
            _reap_orphans(self.launch.command)
            time.sleep(POLL_S)
        left = self._end_rest(0.0 if asked == "kill" else _REST_GRACE_S)
        # What is asked of a command that has ended by itself meanwhile has changed nothing.
        return End(request=asked, left=tuple(left))

    def _signal_command(self, number: int) -> None:
        """Signal the command alone: what it started is its own to end in order, and ours once it is gone."""
        command = self.launch.command
        if command is not None and command.liveness() == "live":
            send(command.pid, number)

    def _end_rest(self, grace_s: float) -> list[int]:
        """End every process of the job: marked, in the command's session, or descended from us."""
        own = os.getpid()

        def ours() -> list[int]:
            self._beat(self._said[0])
            session = session_of(self.launch.command)
            found = marked(MARK, self.job.mark, session=session, is_ours=self._is_session_ours)
            return sorted({*found, *descendants(own)} - {own})

        if found := ours():
            log.info("ending %d process(es) that the command left: %s", len(found), ", ".join(map(str, found)))
        return end_all(ours, grace_s=grace_s)

    def _wait_to_retry(self, verdict: dict[str, Any], retries: int) -> bool:
        """Wait before the next attempt, longer each time; False when a stop was asked for meanwhile."""
        wait_s = min(_FIRST_WAIT_S * 2**retries, _LONGEST_WAIT_S)
        log.warning(
            "attempt %d failed: %s; trying again in %.0f s (%d of %d)", self.launch.attempt, verdict["message"], wait_s,
            retries + 1, self.spec.max_retries,
        )  # fmt: skip
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0:
            if self.job.request() is not None or self._terminated:
                return False
            self._beat("starting", waits_for=f"the next attempt, in {left_s:.0f} s")
            time.sleep(POLL_S)
        return True

    def _set_aside(self, verdict: dict[str, Any]) -> None:
        """Keep the verdict of an attempt that is followed by another one."""
        excerpt = logs.excerpt(self.job.log_path, begin=self.launch.log_offset)
        self._try(lambda: self.job.keep_attempt(verdict, excerpt))
        self.launch = replace(self.launch, attempt=self.launch.attempt + 1, command=None)
        self._try(lambda: self.job.write_launch(self.launch))

    def _finish(self, end: End, verdict: dict[str, Any] | None = None) -> None:
        """Write the verdict, last. While it cannot be written the supervisor stays, for a while."""
        verdict = verdict or verdicts.verdict_of(self.job, self.spec, self.launch, end)
        log.info("%s%s", verdict["state"], f": {verdict['message']}" if verdict["message"] else "")
        if verdict["remedy"]:
            log.info("what to do: %s", verdict["remedy"])
        if self._lease and not end.left:
            self._lease.free()  # who waits need not wait for a disk that is full
        deadline = time.monotonic() + _INSIST_S
        while not self._try(lambda: self._write_verdict(verdict)) and time.monotonic() < deadline:
            self._beat("stopping")
            time.sleep(_INSIST_POLL_S)

    def _write_verdict(self, verdict: dict[str, Any]) -> None:
        (self.job.folder / _RESERVE).unlink(missing_ok=True)
        text = logs.excerpt(self.job.log_path, begin=self.launch.log_offset)
        write_text(self.job.excerpt_path, text)
        self.job.write_done(verdict)

    def _try(self, write: Callable[[], None]) -> bool:
        """Write something that the run does not hang on; False, and a line in the log, when it cannot be."""
        try:
            with disk_errors(self.job.folder):
                write()
        except (StoreError, OSError) as error:
            log.warning("%s", error)
            return False
        return True

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, **environment_of(self.job)}
        if self._lease and self.spec.device_kind == "cuda":
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.launch.devices)
        return environment

    def _beat(self, phase: str, waits_for: str = "") -> None:
        """Show a sign of life, at once when there is something new to say and else now and then."""
        now = time.monotonic()
        if (phase, waits_for) == self._said and now < self._beaten_at + HEARTBEAT_S:
            return
        self._said, self._beaten_at = (phase, waits_for), now
        if self._lease:
            self._lease.touch()
        if not self._is_launch_written:
            self._is_launch_written = self._try(lambda: self.job.write_launch(self.launch))
        # A full or read-only disk must not end the run.
        with contextlib.suppress(OSError):
            self._heartbeat.write(phase, **({"waits_for": waits_for} if waits_for else {}))

    def _note_term(self, *_: object) -> None:
        self._terminated = True


_SAID: dict[Request, str] = {
    "after_checkpoint": "end after the next checkpoint", "stop": "stop now", "kill": "end at once (kill)",
}  # fmt: skip


def _what_is_missing(spec: JobSpec, devices: Sequence[Device]) -> str:
    held = [(device, holder) for device in devices if (holder := holder_of(device))]
    by = ", ".join(f"{device.id} is held by {holder['holder']}" for device, holder in held)
    kind = {"cuda": "GPU", "cpu": "CPU slot"}[spec.device_kind]
    return f"{spec.devices} of {len(devices)} {kind}(s); {by or 'none is free'}"


def _reserve(job: Job) -> None:
    """Keep room for the verdict, should the disk be full by then."""
    with (job.folder / _RESERVE).open("wb") as file:
        file.write(b"\0" * _RESERVE_BYTES)


def _has_ended(pid: int) -> bool:
    """Whether a child has ended. It is not waited for yet, so that its id, and its session's, are not given again."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _reap_orphans(command: ProcessIdentity | None) -> None:
    """Take leave of ended processes of the job that came to us when their parents ended."""
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if command and ended.si_pid == command.pid:
                return
            os.waitpid(ended.si_pid, 0)


def _adopt_orphans() -> None:
    """Have processes whose parent ends become our children, so that none of the job gets out of sight (Linux)."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def supervise(job: Job, *, adopt: bool, pid: int | None = None) -> None:
    """Own a job until its verdict. Returns at once when somebody else owns it, or it has its verdict.

    Errors: `StoreError` for a folder that cannot be written, or is another user's: its command would be run as ours.
    """
    job.require_own_files()
    with disk_errors(job.folder), job.lock_path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another supervisor owns the job")
            return
        for path in (job.folder, job.folder / "spec.json"):
            if path.stat().st_uid != os.getuid():
                raise StoreError(f"{path}: belongs to another user, whose command is not run; clone the job instead")
        if job.done() is not None:
            log.info("the job has ended already")
            return
        _adopt_orphans()
        supervisor = Supervisor(job)
        supervisor.adopt(pid) if adopt else supervisor.run()


def main(argv: list[str]) -> int:
    """Entry point. Its output is the job's log; with `--own-log` it opens that itself, where nobody has done so."""
    if not Path(argv[0]).is_dir():
        sys.stderr.write(
            f"{argv[0]}: no such folder; the workspace must lie on a file system that this machine shares\n"
        )
        return 2
    if "--own-log" in argv:
        output = os.open(Path(argv[0]) / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s jobs: %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    try:
        pid = next((int(word) for word in argv[1:] if word.isdecimal()), None)
        supervise(Job(Path(argv[0])), adopt="--adopt" in argv[1:], pid=pid)
    except LarkError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
