"""Who may use which device of this machine: a locked file for each device.

The locks are the system's, held by open files, so that a holder that dies frees them at once, however it dies. They
belong to the machine and not to a workspace: two workspaces share one GPU. The command of a job inherits the open
files, so that its devices stay leased while it lives, also without its supervisor.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lark_engine.errors import StoreError
from lark_engine.jobs.devices import Device, machine_devices
from lark_engine.jobs.records import JobSpec
from lark_engine.store.atomic import disk_errors, make_dir

# Where the lock files lie, for tests and for machines whose /tmp is not shared by all that share the devices.
FOLDER_VARIABLE = "LARK_LEASES"


@dataclass(frozen=True)
class Lease:
    """Devices that are ours until `free` is called or every process that holds the files is gone."""

    devices: tuple[Device, ...]
    files: tuple[int, ...]

    def touch(self) -> None:
        """Keep the files from being cleaned away as old ones."""
        for file in self.files:
            with contextlib.suppress(OSError):
                os.utime(file)

    def free(self) -> None:
        for file in self.files:
            with contextlib.suppress(OSError):
                os.ftruncate(file, 0)
            os.close(file)


def usable(devices: Sequence[Device], count: int) -> list[Device]:
    """Devices that a job on `count` of them can be given: CUDA shows a process one MIG instance at most."""
    return [device for device in devices if count == 1 or not device.id.startswith("MIG-")]


def never_enough(kind: Literal["cuda", "cpu"], count: int) -> str:
    """Why this machine can never give `count` devices of a kind to one job, in a sentence; nothing where it can."""
    there = len(usable(machine_devices(kind), count))
    if count <= there:
        return ""
    what = {"cuda": "GPUs", "cpu": "CPU slots"}[kind]
    whole = " whole" if kind == "cuda" and count > 1 else ""
    return (
        f"the job wants {count}{whole} {what} and this machine has {there}; lower what the command asks for, say "
        "--devices, or choose another --launcher"
    )


def what_can_never_be(spec: JobSpec) -> str:
    """Why a job would wait for devices of this machine for ever; nothing where it would not, or waits elsewhere."""
    if spec.device_kind == "none" or spec.launcher == "ray":
        return ""
    return never_enough(spec.device_kind, spec.devices)


def leases_dir() -> Path:
    """The folder of the lock files, made if need be; nobody else's.

    Errors: `StoreError` when it belongs to somebody else, who could then block or mislead every job.
    """
    folder = Path(os.environ.get(FOLDER_VARIABLE) or f"/tmp/lark-leases-{os.getuid()}")
    make_dir(folder.parent)
    with disk_errors(folder), contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        raise StoreError(f"{folder}: is not a folder of this user; remove it, or name another one in {FOLDER_VARIABLE}")
    return folder


def lease(devices: Sequence[Device], count: int, holder: str) -> Lease | None:
    """Take `count` of these devices, all or none; None when too few are free. `holder`: who is shown to have them."""
    devices = usable(devices, count)
    files: list[int] = []
    taken: list[Device] = []
    with _one_at_a_time(), contextlib.ExitStack() as opened:
        for device in devices:
            if len(taken) == count:
                break
            if (file := _locked(_path(device))) is not None:
                opened.callback(os.close, file)
                files.append(file)
                taken.append(device)
        if len(taken) < count:
            return None
        values = {"holder": holder, "pid": os.getpid(), "since": round(time.time(), 3)}
        for file in files:
            with contextlib.suppress(OSError):  # on a full disk the device is ours all the same, only nobody sees whose
                os.ftruncate(file, 0)
                os.pwrite(file, json.dumps(values).encode(), 0)
        opened.pop_all()
    return Lease(tuple(taken), tuple(files))


def holder_of(device: Device) -> dict[str, Any] | None:
    """Who holds a device: `holder`, `pid` and `since`; None when it is free."""
    path = _path(device)
    try:
        # Alone, because to look is to lock for a moment: who wants the device then must not find it taken.
        with _one_at_a_time(), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError):
            values = None
        return values if isinstance(values, dict) else {"holder": "another process"}


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two that want several devices each must not take half of them each. Errors: `StoreError`."""
    path = leases_dir() / "taking.lock"
    with disk_errors(path), path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _path(device: Device) -> Path:
    return leases_dir() / f"{device.id.replace('/', '-')}.lock"


def _locked(path: Path) -> int | None:
    """The open, locked file; None when somebody else has it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file
