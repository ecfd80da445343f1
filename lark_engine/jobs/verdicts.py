"""How a run ended: what is known of its end becomes the verdict that `done.json` keeps."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lark_engine.jobs import logs
from lark_engine.jobs.devices import processes_on, used_bytes
from lark_engine.jobs.folder import Job
from lark_engine.jobs.records import JobSpec, Launch, Request

log = logging.getLogger("lark_engine.jobs")

STOPPED = "StoppedEarly"
_RESUME = "lark jobs resume goes on from what was saved"
_LOG_LINES = 400
_LOG_BYTES = 64 << 10
_NAMED_LOG = re.compile(r"whole log is (\S+\.log)")
_FREE_WAIT_S = 10.0
# What a driver keeps for itself varies a little.
_FREE_TOLERANCE_BYTES = 256 << 20
_VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, kw_only=True)
class Before:
    """What was so before the command began, to tell what it changed: bytes in use of each device, kills for memory."""

    device_bytes: Mapping[str, int | None]
    oom_kills: int

    @classmethod
    def now(cls, devices: Sequence[str]) -> Before:
        return cls(device_bytes={device: used_bytes(device) for device in devices}, oom_kills=oom_kills())


@dataclass(frozen=True, kw_only=True)
class End:
    """How a command ended. `exit_code` and `signal` are both None where nobody saw it (the run was taken over).

    `request`: what was asked of it before. `left`: processes that could not be ended. `error`, `message`: why it could
    not be started.
    """

    before: Before | None = None
    exit_code: int | None = None
    signal: int | None = None
    request: Request | None = None
    left: tuple[int, ...] = ()
    error: str | None = None
    message: str | None = None
    was_queued: bool = False


def verdict_of(job: Job, spec: JobSpec, launch: Launch, end: End) -> dict[str, Any]:
    """The verdict: state, reason, message, place and remedy, and the facts behind them."""
    outcome = job.outcome() or {}
    now = time.time()
    facts: dict[str, Any] = {
        "attempt": launch.attempt, "exit_code": end.exit_code, "signal": end.signal, "devices": list(launch.devices),
        "started_at": launch.command_started_at, "ended_at": round(now, 3), "request": end.request,
        "wall_s": round(max(now - launch.command_started_at, 0.0), 3) if launch.command_started_at else None,
        "artifacts": _names(outcome.get("artifacts")), "processes_left": list(end.left),
        "device_memory": _device_memory(end.before),
    }  # fmt: skip
    error = end.error or outcome.get("error")
    if (end.exit_code == 0 and error != STOPPED) or (
        end.exit_code is None and end.signal is None and outcome and not error
    ):
        return {**_said("succeeded", "", ""), **facts}
    if end.was_queued:
        return {
            **_said("cancelled", "cancelled while it waited", "lark jobs resume puts it back into the queue"),
            **facts,
        }
    if error == STOPPED:
        return {**_said("cancelled", str(outcome.get("message")), "lark jobs resume goes on from there"), **facts}
    # A command that was asked to end after a checkpoint and ends otherwise has failed.
    if end.request in ("stop", "kill"):
        how = "killed as asked" if end.request == "kill" else "stopped as asked"
        return {**_said("cancelled", how, _RESUME), **facts}
    return {**_failure(job, spec, launch, end, error, outcome.get("message")), **facts}


def not_started(why: str) -> dict[str, Any]:
    """The verdict of a job whose supervisor did not come up."""
    now = time.time()
    facts = {"attempt": 1, "started_at": None, "ended_at": round(now, 3), "wall_s": None}
    return {**_said("failed", why, ""), "reason": "not_started", **facts}


def stopped_without_supervisor(launch: Launch | None, request: Request, by: str) -> dict[str, Any]:
    """The verdict of a run that was ended by somebody else than its supervisor, which is gone."""
    facts = {
        "attempt": launch.attempt if launch else 1, "devices": list(launch.devices) if launch else [],
        "started_at": launch.command_started_at if launch else None, "ended_at": round(time.time(), 3),
        "wall_s": None, "request": request, "processes_left": [],
    }  # fmt: skip
    return {**_said("cancelled", f"stopped by {by} without a supervisor", _RESUME), **facts}


def _names(value: Any) -> list[str]:
    return [str(name) for name in value] if isinstance(value, list) else []


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since this machine was started."""
    try:
        lines = _VMSTAT.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _failure(
    job: Job, spec: JobSpec, launch: Launch, end: End, error: str | None, message: str | None
) -> dict[str, Any]:
    # Only here: it reads recipes and configs, which a supervisor does not carry for hours.
    from lark_engine.doctor.limits import cgroup_limits
    from lark_engine.jobs.failures import Ending, classify

    failure = classify(
        Ending(
            command=spec.command, exit_code=end.exit_code, signal=end.signal, error=error,
            message=end.message or message,
            log=_log_of(job, launch, message or ""),
            oom_kills=oom_kills() - end.before.oom_kills if end.before else 0,
            free_bytes=_free_bytes(job.workspace_root),
            memory_bytes=cgroup_limits().memory_bytes or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )
    )  # fmt: skip
    return {
        "state": "failed", "reason": failure.reason, "message": failure.message, "place": failure.place,
        "remedy": failure.remedy, "is_transient": failure.is_transient,
    }  # fmt: skip


def _log_of(job: Job, launch: Launch, message: str) -> str:
    """The end of the job's log, and before it that of a log that the message refers to: of a server, of ranks."""
    lines = logs.last_lines(job.log_path, _LOG_LINES, begin=launch.log_offset)
    if named := _NAMED_LOG.search(message):
        path = Path(named[1]).resolve()
        if path.is_relative_to(job.workspace_root.resolve()) and path.is_file():
            lines = [*logs.last_lines(path, _LOG_LINES), *lines]
    return "\n".join(lines)[-_LOG_BYTES:]


def _said(state: str, message: str, remedy: str) -> dict[str, Any]:
    return {"state": state, "reason": None, "message": message, "place": None, "remedy": remedy, "is_transient": False}


def _free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _device_memory(before: Before | None) -> dict[str, dict[str, int | None]]:
    """Bytes in use of each device before and after; waits for a driver that takes a moment to give them back."""
    if before is None or not before.device_bytes:
        return {}
    deadline = time.monotonic() + _FREE_WAIT_S
    while True:
        after = {device: used_bytes(device) for device in before.device_bytes}
        held = [
            device for device, used in before.device_bytes.items()
            if used is not None and (after[device] or 0) > used + _FREE_TOLERANCE_BYTES
        ]  # fmt: skip
        if not held or time.monotonic() > deadline:
            break
        time.sleep(0.25)
    for device in held:
        more = (after[device] or 0) - (before.device_bytes[device] or 0)
        whose = ", ".join(map(str, processes_on(device))) or "that are not known"
        log.warning("device %s still holds %d bytes more than before; by processes %s, not ended", device, more, whose)
    return {device: {"before": used, "after": after[device]} for device, used in before.device_bytes.items()}
