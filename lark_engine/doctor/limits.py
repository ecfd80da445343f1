"""What this process is allowed: cores, memory and open files, by the system and by control groups."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lark_engine.doctor.checks import Check

CGROUPS = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")
# The kernel's "no limit" of version 1 is the largest multiple of a page.
_NO_LIMIT = 1 << 60
# A server is asked 512 things at once; several servers and Ray's workers each need their own.
_LEAST_FILES = 1024
_LEAST_HARD_FILES = 4096
_GIB = 1 << 30
_LEAST_MEMORY = 4 * _GIB


class CgroupLimits(NamedTuple):
    """The tightest limits of the control groups around this process; None = none. Cores may be a fraction."""

    cores: float | None
    memory_bytes: int | None


def cgroup_limits(root: Path = CGROUPS, membership: str | None = None) -> CgroupLimits:
    """The limits of versions 1 and 2. `membership`: the text of /proc/self/cgroup.

    Each group's ancestors count too. In a container the path is often the host's and not there: then its root counts.
    """
    if membership is None:
        with contextlib.suppress(OSError):
            membership = _SELF.read_text()
    cores, memory = [], []
    for folder in _folders(root, membership or "0::/"):
        both = (
            _text(folder / "cpu.max") or f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
        )
        # Without a limit, version 2 says "max" and version 1 -1.
        quota, _, period = both.partition(" ")
        if quota.isdecimal() and period.isdecimal():
            cores.append(int(quota) / int(period))
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _text(folder / name)
            if limit and limit.isdecimal() and int(limit) < _NO_LIMIT:
                memory.append(int(limit))
    return CgroupLimits(min(cores, default=None), min(memory, default=None))


def _folders(root: Path, membership: str) -> Iterator[Path]:
    """The folders of the groups that a process is in, and of all groups around those."""
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 has no controllers here and lies at the root, or in `unified` beside those of version 1.
        for base in (root / controllers,) if controllers else (root, root / "unified"):
            inner = base / path.strip("/")
            yield inner
            while inner != base:
                inner = inner.parent
                yield inner


def _text(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return None


def cores_check(cores: int, limits: CgroupLimits, environment: Mapping[str, str]) -> Check:
    """The cores that this process may use. Libraries start a thread for each, whatever a quota leaves of them."""
    found = f"{cores} that this process may use"
    if limits.cores is None or limits.cores >= cores:
        return Check(group="devices", name="CPU cores", state="ok", found=found)
    found += f", and a quota of {limits.cores:g} by its control group"
    threads = max(int(limits.cores), 1)
    if environment.get("OMP_NUM_THREADS", "").isdecimal() and int(environment["OMP_NUM_THREADS"]) <= threads:
        found += f"; OMP_NUM_THREADS={environment['OMP_NUM_THREADS']}"
        return Check(group="devices", name="CPU cores", state="ok", found=found)
    return Check(
        group="devices", name="CPU cores", state="warning",
        found=f"{found}; one thread for each core would be stopped and started all the time",
        cure=f"export OMP_NUM_THREADS={threads}",
    )  # fmt: skip


def memory_check(total: int, available: int, limits: CgroupLimits) -> Check:
    """The machine's memory in bytes, and the control group's part of it."""
    found = f"{total / _GIB:.1f} GiB, {available / _GIB:.1f} GiB of it available"
    usable = available
    if limits.memory_bytes is not None and limits.memory_bytes < total:
        found += f"; this process may use {limits.memory_bytes / _GIB:.1f} GiB by its control group"
        usable = min(usable, limits.memory_bytes)
    if usable >= _LEAST_MEMORY:
        return Check(group="devices", name="memory", state="ok", found=found)
    return Check(
        group="devices", name="memory", state="warning", found=f"{found}: little for a model and its gradients",
        cure="end what else uses memory, or raise the container's or the batch job's memory limit",
    )  # fmt: skip


def open_files_check(limits: tuple[int, int] | None = None) -> Check:
    """How many files and connections a process may have open; `limits` are the soft and the hard one."""
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (1 << 62 if limit == resource.RLIM_INFINITY else limit for limit in (soft, hard))
    said = "unlimited" if soft == 1 << 62 else f"{soft:,}"
    found = f"{said} at once" + (f", up to {hard:,} on request" if soft < hard < 1 << 62 else "")
    if soft >= _LEAST_FILES and hard >= _LEAST_HARD_FILES:
        return Check(group="limits", name="open files", state="ok", found=found)
    cure = f"ulimit -n {min(hard, 65536)}"
    if hard < _LEAST_HARD_FILES:
        cure = (
            "let the administrator raise it: `nofile` in /etc/security/limits.conf, or --ulimit nofile=65536 of docker"
        )
    return Check(
        group="limits", name="open files", state="warning",
        found=f"{found}; servers with many requests, and Ray, need more", cure=cure,
    )  # fmt: skip
