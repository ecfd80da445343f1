"""Disks: room, whether the workspace can be written, whether locks on it exclude, and whether its clock is ours."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, NamedTuple

import psutil

from lark_engine.doctor.checks import Check
from lark_engine.doctor.children import Child, run_child
from lark_engine.errors import first_line
from lark_engine.store.atomic import existing_parent

_GB = 1e9
_GIB = 1 << 30
_LEAST_ROOM = 1 * _GB
# A 7B checkpoint with what is needed to resume it takes more than this.
_GOOD_ROOM = 10 * _GB
_LEAST_INODES = 10_000
# Docker gives 64 MB; NCCL and Ray put their buffers there.
_LEAST_SHM = 1 * _GIB
_SHM = Path("/dev/shm")
_MOST_SKEW_S = 5.0
_TRY_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "a")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    report(got=True)
except BlockingIOError:
    report(got=False)
"""


class Room(NamedTuple):
    """A disk's room in bytes; `free_inodes` None where its file system does not count them."""

    free: int
    total: int
    free_inodes: int | None
    file_system: str


def disk_checks(workspace: Path, temporary: Path) -> list[Check]:
    """All checks of disks: the workspace's, that of the folder for temporary files, and shared memory."""
    checks = workspace_checks(workspace)
    checks.append(room_check("temporary room", temporary, room_of(temporary), least=0, good=_LEAST_ROOM))
    checks.append(shm_check(room_of(_SHM)))
    return checks


def workspace_checks(workspace: Path) -> list[Check]:
    """Whether a workspace can be where it is to be: room, writing, locks, clock.

    One that is not there yet is not made: the nearest folder that is there is looked at.
    """
    choose = "choose another folder with --workspace"
    try:
        folder = existing_parent(workspace)
    except OSError as error:
        return [_problem("workspace", f"{workspace}: cannot be looked at ({first_line(error)})", choose)]
    if not folder.is_dir():
        return [_problem("workspace", f"{folder}: is a file, where the workspace {workspace} needs a folder", choose)]
    checks = []
    try:
        with tempfile.NamedTemporaryFile(prefix=".lark-doctor-", dir=folder) as file:
            skew_s = clock_skew_s(file)
            state = "can be written" if workspace.exists() else "not there yet, can be made"
            checks.append(_ok("workspace", f"{workspace.absolute()}: {state}"))
            checks.append(lock_check(Path(file.name)))
            checks.append(clock_check(skew_s))
    except OSError as error:
        cure = "free room on its disk, or " + choose if error.errno in (errno.ENOSPC, errno.EDQUOT) else choose
        checks.append(_problem("workspace", f"{folder}: cannot be written ({error.strerror})", cure))
    return [*checks, workspace_room(folder)]


def workspace_room(folder: Path) -> Check:
    """Whether the disk under a folder has room for what a run makes. Only looks."""
    return room_check("workspace room", folder, room_of(folder), least=_LEAST_ROOM, good=_GOOD_ROOM)


def room_of(folder: Path) -> Room | None:
    """The room on the disk under a folder; None when it cannot be asked, or there is no disk."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    if not found.f_blocks:
        return None
    size = found.f_frsize
    inodes = found.f_favail if found.f_files else None
    return Room(found.f_bavail * size, found.f_blocks * size, inodes, file_system_of(folder, _mounts()))


def file_system_of(folder: Path, mounts: dict[str, str]) -> str:
    """The kind of the file system that a folder is on, by the kinds at the mount points; "" when none is known."""
    place = folder.resolve()
    return next((mounts[str(above)] for above in (place, *place.parents) if str(above) in mounts), "")


def room_check(name: str, folder: Path, room: Room | None, *, least: float, good: float) -> Check:
    """Room on a disk in bytes: under `least` is a problem, under `good` a warning."""
    if room is None:
        return Check(group="disk", name=name, state="unknown", found=f"{folder}: cannot be asked for its room")
    kind = f", {room.file_system}" if room.file_system else ""
    found = f"{folder}: {room.free / _GB:.1f} of {room.total / _GB:.1f} GB free{kind}"
    if room.free < least:
        return _problem(name, found, f"free some room on the disk of {folder}")
    if room.free < good:
        return Check(group="disk", name=name, state="warning", found=found, cure=f"free some room on {folder}")
    if room.free_inodes is not None and room.free_inodes < _LEAST_INODES:
        found += f", but room for {room.free_inodes:,} more files only"
        cure = f"remove folders of many small files from the disk of {folder}"
        return Check(group="disk", name=name, state="warning", found=found, cure=cure)
    return _ok(name, found)


def shm_check(room: Room | None) -> Check:
    """The shared memory, which several GPUs and Ray's workers pass data through."""
    cure = "mount -o remount,size=8G /dev/shm (of a container: start it with --shm-size=8g)"
    if room is None:
        found = f"{_SHM}: not there; NCCL and Ray need it"
        return Check(group="disk", name="shared memory", state="warning", found=found, cure=cure)
    found = f"{_SHM}: {room.free / _GIB:.1f} of {room.total / _GIB:.1f} GiB free"
    if room.free >= _LEAST_SHM:
        return _ok("shared memory", found)
    if room.total >= _LEAST_SHM:
        cure = f"remove what ended programs left in {_SHM}"
    found += "; NCCL and Ray stop without an explanation when it is used up"
    return Check(group="disk", name="shared memory", state="warning", found=found, cure=cure)


def lock_check(path: Path, python: Path | None = None) -> Check:
    """Whether a lock on a file keeps a second, real process out while it is held, and lets it in afterwards."""
    cure = "put the workspace on a file system with locks (a local disk; NFS without nolock; Lustre mounted with flock)"
    child = Child(label="lock", python=python or Path(sys.executable), code=_TRY_LOCK, arguments=(str(path),))
    try:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = run_child(child)
    except OSError as error:
        return _problem("file locks", f"the file system refuses them: {error.strerror}", cure)
    freed = run_child(child)
    for outcome in (held, freed):
        if outcome.report is None:
            found = f"the second process could not try: {outcome.failure}"
            return Check(group="disk", name="file locks", state="unknown", found=found)
    assert held.report is not None and freed.report is not None
    if held.report["got"]:
        return _problem("file locks", "two processes got the same lock: runs would overwrite each other", cure)
    if not freed.report["got"]:
        return _problem("file locks", "a lock stays when its holder has let it go: runs would wait for ever", cure)
    return _ok("file locks", "a second process is kept out while a lock is held, and let in after")


def clock_skew_s(file: IO[bytes]) -> float:
    """Seconds that the clock behind a file system is ahead of this machine's, 0 within what the writing took."""
    before = time.time()
    file.write(b"lark")
    file.flush()
    os.fsync(file.fileno())
    after = time.time()
    written = os.stat(file.name).st_mtime  # noqa: PTH116 - of the name: a client's cache answers for an open file
    return min(written - before, 0.0) + max(written - after, 0.0)


def clock_check(skew_s: float) -> Check:
    """A file's time against ours: heartbeats of other machines are judged by it."""
    if abs(skew_s) <= _MOST_SKEW_S:
        return _ok("clock", "the workspace's file times agree with this machine's clock")
    side = "ahead of" if skew_s > 0 else "behind"
    found = f"the workspace's file times are {abs(skew_s):,.0f} s {side} this machine's clock: jobs will look stale"
    cure = "set the clocks of this machine and of the file server by NTP: timedatectl set-ntp true"
    return Check(group="disk", name="clock", state="warning", found=found, cure=cure)


def _mounts() -> dict[str, str]:
    try:
        return {part.mountpoint: part.fstype for part in psutil.disk_partitions(all=True)}
    except (OSError, psutil.Error):
        return {}


def _ok(name: str, found: str) -> Check:
    return Check(group="disk", name=name, state="ok", found=found)


def _problem(name: str, found: str, cure: str) -> Check:
    return Check(group="disk", name=name, state="problem", found=found, cure=cure)
