"""What can be done with jobs: submit, stop, resume, clone, remove. Any process may call these on any workspace.

Each asks whether the one who acts may do it, and is recorded.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from lark_engine import access
from lark_engine.errors import ConfigError, DeviceError, LarkError, ServerError, StoreError
from lark_engine.jobs import verdicts
from lark_engine.jobs.commands import require_lark, require_right, stage_of
from lark_engine.jobs.devices import machine_devices
from lark_engine.jobs.folder import JOBS_DIR, MARK, Job, create_job, somebody
from lark_engine.jobs.launchers import launcher_of
from lark_engine.jobs.leases import never_enough, what_can_never_be
from lark_engine.jobs.needs import NOTHING, Needs, needs_of
from lark_engine.jobs.records import JobSpec, LauncherName, Request
from lark_engine.jobs.status import RESUMABLE, JobView, list_jobs, view
from lark_engine.processes import (
    ProcessIdentity,
    carries,
    descendants,
    end_all,
    has_open,
    marked,
    may_signal,
    session_of,
)
from lark_engine.store.atomic import disk_errors, make_dir

log = logging.getLogger(__name__)

# A supervisor does what is asked within its own times of grace; the way to a checkpoint may take longer.
STOP_TIMEOUT_S = 60.0
_DYING_S = 5.0
# Two clicks within this time are one: a job that fails at once must not be started twice by a double click.
_SAME_CLICK_S = 2.0
_POLL_S = 0.1
_REMOVED = ".removed"


def submit(
    root: Path, command: Sequence[str], *, cwd: Path, priority: int = 0, devices: int | None = None,
    max_retries: int = 0, launcher: LauncherName = "local", address: str | None = None, cloned_from: str | None = None,
) -> JobView:  # fmt: skip
    """Start a job: its folder, and the supervisor that owns it. `command` begins with `lark`.

    `devices`: how many it waits for, if not as many as the command says. Returns within 3 s. Errors: `ConfigError`,
    `DeviceError` for more devices than there are; `StoreError`; `ServerError` with the reason why it did not start.
    The folder of a job that did not start stays, with its verdict.
    """
    command = require_lark(command)
    require_right(root, command, cwd)
    needs = _needs(command, cwd, devices, launcher)
    spec = JobSpec(
        stage=stage_of(command), command=command, cwd=str(cwd.absolute()), priority=priority, device_kind=needs.kind,
        devices=needs.count, max_retries=max_retries, launcher=launcher, address=address, cloned_from=cloned_from,
        are_devices_given=devices is not None,
    )  # fmt: skip
    with access.action(root, "launch", "job.submit", command=shlex.join(command), cloned_from=cloned_from):
        return launch(create_job(root, spec))


def submit_once(root: Path, command: Sequence[str], *, cwd: Path, **options: Any) -> JobView:
    """Start a job of this command unless one waits or runs; of one that was asked for a moment ago, that one.

    For buttons: a double click, two tabs and a page that is loaded anew mean one job, whichever process they reach.
    `options` and errors: as `submit`.
    """
    words = require_lark(command)
    require_right(root, words, cwd)
    make_dir(root / JOBS_DIR)
    with disk_errors(root), (root / JOBS_DIR / ".submit.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if (found := newest_of(list_jobs(root), words)) is not None:
            asked_s_ago = time.time() - (found.spec.submitted_at if found.spec else 0.0)
            if found.is_live or 0 <= asked_s_ago < _SAME_CLICK_S:
                return found
        return submit(root, words, cwd=cwd, **options)


def newest_of(jobs: Sequence[JobView], command: Sequence[str]) -> JobView | None:
    """Of jobs that are sorted with the newest first, the one of this very command that lives, else the newest one."""
    words = tuple(command)
    same = [job for job in jobs if job.spec is not None and job.spec.command == words]
    return next((job for job in same if job.is_live), same[0] if same else None)


def launch(job: Job) -> JobView:
    """Start the supervisor of a job that has none. Errors: as `submit`."""
    job.require_own_files()
    spec = job.spec()
    try:
        launcher_of(spec.launcher, spec.address).launch(job)
    except LarkError as error:
        with contextlib.suppress(LarkError), _unsupervised(job, wait_s=0):
            if job.done() is None:
                job.write_done(verdicts.not_started(str(error)))
        if view(job).is_live:  # somebody else has started it at the same moment
            return view(job)
        raise
    return view(job)


def stop(job: Job, request: Request, *, timeout_s: float = STOP_TIMEOUT_S) -> JobView:
    """Ask a job to end, and wait up to `timeout_s` until it has. Asking again changes nothing; asking for more does.

    A run without a supervisor has its processes ended by us, those that carry the job's mark and no others; a
    supervisor of this machine that hangs is killed with what it should have killed. Errors: `StoreError` for a job that
    has ended, whose folder cannot be written, or that does not end.
    """
    with access.action(job.workspace_root, "cancel", "job.stop", job=job.id, request=request):
        return _stop(job, request, timeout_s)


def _stop(job: Job, request: Request, timeout_s: float) -> JobView:
    job.require_own_files()
    before = view(job)
    if not before.is_live and before.state != "interrupted":
        raise StoreError(f"{job.id} has ended already: {before.state}")
    with disk_errors(job.folder):
        job.ask(request)
    spec, supervisor = before.spec, before.launch.supervisor if before.launch else None
    if spec and spec.launcher == "ray" and supervisor is None:
        _end_on_cluster(job, spec, request)
        return _end_without_supervisor(job, request)
    if before.state == "interrupted" or (
        supervisor and (supervisor.liveness() == "gone" or not _owns(supervisor, job))
    ):
        return _end_without_supervisor(job, request)
    deadline = time.monotonic() + timeout_s
    while (now := view(job)).is_live and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if now.state == "interrupted":  # it was killed, and what it had started may live
        return _end_without_supervisor(job, request)
    if not now.is_live or not timeout_s or request == "after_checkpoint":
        return now
    if spec and spec.launcher == "ray":
        _end_on_cluster(job, spec, request)
        return _end_without_supervisor(job, request)
    if request == "kill" and now.launch and now.launch.supervisor.liveness() == "live":
        _kill_hanging(now.launch.supervisor, job)
        return _end_without_supervisor(job, request)
    raise StoreError(
        f"{job.id} has not ended within {timeout_s:.0f} s ({now.state}{f': {now.why}' if now.why else ''}); "
        f"end it at once with: lark jobs stop --kill {job.id}"
    )


def resume(job: Job) -> JobView:
    """Run the command of an ended or interrupted job again: its stage takes up what is saved. The folder stays.

    Of a run whose supervisor is gone while its command lives, a new supervisor takes over. Errors: `StoreError` for a
    job that runs, waits, or succeeded; as `submit`.
    """
    with access.action(job.workspace_root, "launch", "job.resume", job=job.id):
        return _resume(job)


def _resume(job: Job) -> JobView:
    job.require_own_files()
    found = view(job)
    if found.state == "running" and found.launch and found.launch.supervisor.liveness() == "gone":
        return _take_over(job)
    if found.state not in RESUMABLE:
        hint = "; clone it to run it again" if found.state == "succeeded" else ""
        raise StoreError(f"{job.id} is {found.state} and cannot be resumed{hint}")
    spec = job.spec()
    require_lark(spec.command)
    if missing := what_can_never_be(spec):
        raise DeviceError(missing)
    with _unsupervised(job), disk_errors(job.folder):
        if left := marked(MARK, job.mark):
            who = ", ".join(map(str, left))
            raise StoreError(f"processes {who} of {job.id} still live; end them: lark jobs stop --kill {job.id}")
        job.begin_again()
    return launch(job)


def clone(
    job: Job, root: Path, changes: Sequence[str] = (), *, priority: int | None = None, once: bool = False
) -> JobView:  # fmt: skip
    """Submit the command of a job again as a job of its own, with `changes` added: options that are given later hold.

    `once`: as `submit_once`, for buttons. Errors: as `submit`.
    """
    spec = job.spec()
    start = submit_once if once else submit
    return start(
        root, [*spec.command, *changes], cwd=Path(spec.cwd), cloned_from=job.id, max_retries=spec.max_retries,
        priority=spec.priority if priority is None else priority, address=spec.address,
        launcher="local" if spec.launcher == "terminal" else spec.launcher,
        devices=spec.devices if spec.are_devices_given else None,
    )  # fmt: skip


def remove(job: Job) -> None:
    """Remove the folder of a job that has ended; what it made stays. Errors: `StoreError` for one that lives."""
    with access.action(job.workspace_root, "delete", "job.remove", job=job.id):
        found = view(job)
        if found.is_live:
            raise StoreError(f"{job.id} is {found.state}; stop it first with: lark jobs stop {job.id}")
        lock = job.lock_path
        # What stands in the place of a lock and is none holds nobody off; it goes with the rest.
        is_none = lock.is_symlink() or (lock.exists() and not lock.is_file())
        with contextlib.nullcontext() if is_none else _unsupervised(job), disk_errors(job.folder):
            # Under another name first: a half-removed folder is no job.
            job.folder.replace(job.folder.with_name(f".{job.id}{_REMOVED}"))
        for gone in job.folder.parent.glob(f".*{_REMOVED}"):  # that of an earlier one too, which was killed
            shutil.rmtree(gone, ignore_errors=True)


def _needs(command: Sequence[str], cwd: Path, devices: int | None, launcher: LauncherName) -> Needs:
    """What the job waits for. Errors: `DeviceError` for more than this machine has."""
    if launcher == "ray":  # not this machine's devices: a GPU, unless the command says otherwise
        needs = needs_of(command, num_gpus=1, cwd=cwd)
    else:
        needs = needs_of(command, num_gpus=len(machine_devices("cuda")), environment=os.environ, cwd=cwd)
    if devices is not None:
        if devices < 0:
            raise ConfigError(f"--devices {devices}: give 0 (wait for none) or more")
        needs = NOTHING if devices == 0 else Needs("cpu" if needs.kind == "none" else needs.kind, devices)
    if launcher == "local" and needs.kind != "none" and (missing := never_enough(needs.kind, needs.count)):
        raise DeviceError(missing)
    return needs


def _owns(supervisor: ProcessIdentity, job: Job) -> bool:
    """Whether the process that a launch record names is the job's supervisor, as far as that can be known.

    A record may name any process. A supervisor holds the lock of the job's folder for as long as it lives; of one on
    another machine, or of another user, nothing is known, and nothing can be done to it.
    """
    if supervisor.liveness() != "live" or not may_signal(supervisor.pid):
        return True
    return has_open(supervisor.pid, job.lock_path)


def _take_over(job: Job) -> JobView:
    from lark_engine.jobs.launchers import start_supervisor

    before = job.launch()
    command = before.command if before else None
    if command is not None and not carries(command.pid, MARK, job.mark):
        raise StoreError(
            f"{job.id}: its launch.json names process {command.pid}, which is none of this job's; end what is left of "
            f"it with lark jobs stop --kill {job.id}, and resume it then"
        )
    start_supervisor(job, "--adopt")
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while job.launch() == before and job.done() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return view(job)


def _end_without_supervisor(job: Job, request: Request) -> JobView:
    """End what is left of a run on this machine, and write the verdict that its supervisor cannot write any more."""
    record = job.launch()
    command = record.command if record else None

    def ours() -> list[int]:
        return sorted({*marked(MARK, job.mark, session=session_of(command), is_ours=False)} - {os.getpid()})

    if left := end_all(ours, grace_s=0.0 if request == "kill" else 10.0):
        raise StoreError(f"processes {', '.join(map(str, left))} of {job.id} do not end; the system holds them")
    with _unsupervised(job), disk_errors(job.folder):
        if job.done() is None:
            job.write_done(verdicts.stopped_without_supervisor(record, request, somebody()))
    return view(job)


def _kill_hanging(supervisor: ProcessIdentity, job: Job) -> None:
    """Kill a supervisor that does nothing any more: first what it knows of as its own, then itself."""

    def if_live(pids: Callable[[], list[int]]) -> Callable[[], list[int]]:
        return lambda: pids() if supervisor.liveness() == "live" and has_open(supervisor.pid, job.lock_path) else []

    end_all(if_live(lambda: descendants(supervisor.pid)), grace_s=0)
    end_all(if_live(lambda: [supervisor.pid]), grace_s=0)


def _end_on_cluster(job: Job, spec: JobSpec, request: Request) -> None:
    """Have the cluster end the job. Errors: `ServerError` when it cannot be asked; a kill does not need its answer."""
    try:
        launcher_of(spec.launcher, spec.address).end(job)
    except ServerError:
        if request != "kill":
            raise
        log.warning("the cluster of %s cannot be asked; what runs there may go on", job.id)


@contextlib.contextmanager
def _unsupervised(job: Job, *, wait_s: float = _DYING_S) -> Iterator[None]:
    """Hold the lock of a supervisor, so that none comes up meanwhile. Errors: `StoreError` when there is one.

    `wait_s`: for one that is dying. The system frees its lock a moment after it counts as gone.
    """
    with disk_errors(job.folder), job.lock_path.open("a") as file:
        deadline = time.monotonic() + wait_s
        while not _is_locked_by_us(file):
            if time.monotonic() > deadline:
                raise StoreError(f"{job.id} has a supervisor that lives; stop it first")
            time.sleep(_POLL_S)
        yield


def _is_locked_by_us(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
