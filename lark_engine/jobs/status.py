"""What state a job is in: derived from its files and from who lives, by anyone, at any time; nothing is remembered.

verdict there                                   what it says: succeeded, failed or cancelled; else `derive`:
no launch record                                starting; after START_S interrupted (it never came up);
                                                queued where a cluster starts the supervisor when it has room
supervisor gone, its command lives              running: the command calls a new supervisor, or `resume` does
supervisor gone                                 interrupted
supervisor lives, or is on another machine      queued, starting, running, stopping, as its heartbeat says;
                                                stale when the heartbeat is old
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lark_engine.errors import StoreError
from lark_engine.jobs.folder import Job, all_jobs, find_job
from lark_engine.jobs.records import JobSpec, Launch, Request, number, read_heartbeat
from lark_engine.processes import Liveness, boot_id
from lark_engine.store.events import finite, last_event
from lark_engine.store.lock import is_held_lock

State = Literal[
    "queued", "starting", "running", "stopping", "stale", "interrupted", "succeeded", "failed", "cancelled",
    "unreadable",
]  # fmt: skip
Phase = Literal["queued", "starting", "running", "stopping"]
LIVE: tuple[State, ...] = ("queued", "starting", "running", "stopping", "stale")
FINAL: tuple[State, ...] = ("succeeded", "failed", "cancelled")
RESUMABLE: tuple[State, ...] = ("interrupted", "failed", "cancelled")
HEARTBEAT_S = 2.0
# For a command to end in order after TERM.
GRACE_S = 30.0
STALE_S = 15.0
# Clocks of two machines differ, and a network's file system shows a change late.
STALE_ELSEWHERE_S = 60.0
START_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that a state follows from. Ages in seconds; None: not there.

    `supervisor`, `command`: who lives of those that the launch record names. `phase`: what the heartbeat says.
    `is_clusters`: whether a cluster's queue decides when the supervisor is started.
    """

    is_clusters: bool = False
    submitted_s_ago: float = 0.0
    supervisor: Liveness | None = None
    command: Liveness | None = None
    phase: Phase | None = None
    heartbeat_s_ago: float | None = None
    request: Request | None = None


def derive(facts: Facts) -> tuple[State, str]:
    """The state and the reason for it in words (empty where the state says it all). Pure."""
    if facts.supervisor is None:
        if facts.is_clusters:
            return "queued", "it waits in the cluster's own queue"
        if facts.submitted_s_ago < START_S:
            return "starting", ""
        return "interrupted", "its supervisor never came up"
    if facts.supervisor == "gone":
        if facts.command == "live":
            return "running", "its supervisor is gone; it goes on, and resume takes it over"
        return "interrupted", "its supervisor is gone without a verdict: killed, or the machine went down"
    patience_s = STALE_S if facts.supervisor == "live" else STALE_ELSEWHERE_S
    if facts.heartbeat_s_ago is not None and facts.heartbeat_s_ago > patience_s:
        where = "its supervisor lives but" if facts.supervisor == "live" else "its supervisor, on another machine,"
        return "stale", f"{where} has shown no sign of life for {facts.heartbeat_s_ago:,.0f} s"
    if facts.request is not None and facts.phase in ("starting", "running", "stopping"):
        return "stopping", _ASKED[facts.request]
    return facts.phase or "starting", ""


_ASKED: Mapping[Request, str] = {
    "after_checkpoint": "it ends after its next checkpoint", "stop": "it was asked to stop", "kill": "it is killed",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class JobView:
    """A job as it is shown. `spec` is None when it cannot be read; `place`: in the queue, from 1."""

    job: Job
    state: State
    why: str
    spec: JobSpec | None = None
    launch: Launch | None = None
    verdict: dict[str, Any] | None = None
    event: dict[str, Any] | None = None
    heartbeat: dict[str, Any] | None = None
    place: int | None = None

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def is_live(self) -> bool:
        return self.state in LIVE

    @property
    def attempt(self) -> int:
        stated = number((self.verdict or {}).get("attempt"))
        return self.launch.attempt if self.launch else int(stated or 1)

    @property
    def ended_at(self) -> float | None:
        """Seconds since 1970; of an interrupted job, when its supervisor was last heard of."""
        if self.is_live:
            return None
        return number((self.verdict or {}).get("ended_at")) or number((self.heartbeat or {}).get("time"))

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values, as `--json` prints it."""
        spec, launch, verdict = self.spec, self.launch, self.verdict or {}
        shown = {} if spec is None else {
            "stage": spec.stage, "command": list(spec.command), "cwd": spec.cwd, "priority": spec.priority,
            "launcher": spec.launcher, "max_retries": spec.max_retries,
            "submitted_at": spec.submitted_at, "submitted_by": spec.submitted_by,
            "needs": {"kind": spec.device_kind, "count": spec.devices}, "cloned_from": spec.cloned_from,
        }  # fmt: skip
        found = {
            "id": self.id, "state": self.state, "why": self.why, "folder": str(self.job.folder), **shown,
            "place": self.place, "attempt": self.attempt,
            "launch": launch.as_json() if launch else None,
            "started_at": launch.command_started_at if launch else verdict.get("started_at"),
            "ended_at": self.ended_at,
            "waits_for": (self.heartbeat or {}).get("waits_for") if self.state == "queued" else None,
            "progress": self.event, "verdict": verdict or None,
        }  # fmt: skip
        shown_values: dict[str, Any] = finite(found)
        return shown_values


def view(job: Job) -> JobView:
    """A job as its files and processes say it is now. Never fails: what cannot be read is `unreadable`."""
    verdict = job.done()
    if verdict is not None and verdict.get("state") not in FINAL:
        verdict = None
    # Of the many jobs that have ended, no more is read than is shown.
    launch, heartbeat = (job.launch(), read_heartbeat(job.folder)) if verdict is None else (None, None)
    try:
        spec = job.spec()
    except StoreError as error:
        return JobView(job=job, state="unreadable", why=str(error), launch=launch, verdict=verdict, heartbeat=heartbeat)
    if verdict is not None:
        event = None if verdict["state"] == "succeeded" else last_event(job.events_path)
        why = str(verdict.get("message") or "")
        return JobView(job=job, state=verdict["state"], why=why, spec=spec, verdict=verdict, event=event)
    heartbeat_s_ago = _age(heartbeat, launch)
    is_gone = launch is not None and _is_gone_elsewhere(job, launch, heartbeat_s_ago)
    state, why = derive(
        Facts(
            is_clusters=spec.launcher == "ray",
            submitted_s_ago=max(0.0, time.time() - max(spec.submitted_at, job.begun_at())),
            supervisor=("gone" if is_gone else launch.supervisor.liveness()) if launch else None,
            command=("gone" if is_gone else launch.command.liveness()) if launch and launch.command else None,
            phase=_phase(heartbeat), heartbeat_s_ago=heartbeat_s_ago, request=job.request(),
        )
    )  # fmt: skip
    event = last_event(job.events_path)
    return JobView(job=job, state=state, why=why, spec=spec, launch=launch, event=event, heartbeat=heartbeat)


def _is_gone_elsewhere(job: Job, launch: Launch, heartbeat_s_ago: float | None) -> bool:
    """Whether a supervisor that we cannot see is gone: it would hold the lock of the folder.

    On this machine (in another container) the lock says it for sure. Between machines not every file system shares
    locks, so the heartbeat must be old as well.
    """
    if launch.supervisor.liveness() != "elsewhere" or is_held_lock(job.lock_path):
        return False
    return launch.supervisor.boot_id == boot_id() or (heartbeat_s_ago or 0.0) > STALE_ELSEWHERE_S


def list_jobs(root: Path) -> list[JobView]:
    """All jobs of a workspace, newest first; waiting ones have their place in the queue."""
    views = [view(job) for job in all_jobs(root)]
    places = {waiting.id: number for number, waiting in enumerate(queue(views), start=1)}
    return [_placed(found, places.get(found.id)) for found in views]


def show_job(root: Path, name: str) -> JobView:
    """One job by its id or a unique part of it, with its place in the queue. Errors: `StoreError`."""
    found = view(find_job(root, name))
    if found.state != "queued":
        return found if found.launch else replace(found, launch=found.job.launch())
    return next((other for other in list_jobs(root) if other.id == found.id), found)


def queue(views: list[JobView]) -> list[JobView]:
    """The jobs that wait here, in the order of their turns: by priority, then by the time of submission."""
    waiting = [found for found in views if found.state == "queued" and found.spec and found.spec.launcher != "ray"]
    return sorted(waiting, key=lambda found: order(found.spec, found.id))


def is_next(job: Job, spec: JobSpec, passed: dict[str, int]) -> bool:
    """Whether no other job of this workspace and machine that waits for devices of the same kind is before this one.

    `passed` is the caller's, to be given again: jobs that were not before this one, with the time of the last change
    of their folders. Of many jobs, only those that changed are looked at.
    """
    mine = order(spec, job.id)
    for entry in os.scandir(job.folder.parent):
        if entry.name == job.id or entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            changed = entry.stat().st_mtime_ns
        except OSError:  # removed meanwhile
            continue
        if passed.get(entry.name) == changed:
            continue
        if _waits_before(Job(Path(entry.path)), mine, spec.device_kind):
            return False
        passed[entry.name] = changed
    return True


def _waits_before(other: Job, mine: tuple[int, float, str], kind: str) -> bool:
    """Whether a job waits here for devices of this kind and comes before the order `mine`."""
    if other.done() is not None:
        return False
    try:
        spec = other.spec()
    except StoreError:
        return False
    if spec.device_kind != kind or spec.launcher == "ray" or order(spec, other.id) > mine:
        return False
    launch = other.launch()
    if launch is None:  # it has been submitted just now
        return view(other).state == "starting"
    is_here = launch.supervisor.host == platform.node()
    return is_here and launch.command is None and launch.supervisor.liveness() != "gone"


def order(spec: JobSpec | None, job_id: str) -> tuple[int, float, str]:
    """What waiting jobs are sorted by."""
    assert spec is not None
    return (-spec.priority, spec.submitted_at, job_id)


def _placed(found: JobView, place: int | None) -> JobView:
    return found if place is None else replace(found, place=place)


def _phase(heartbeat: dict[str, Any] | None) -> Phase | None:
    phase = (heartbeat or {}).get("phase")
    return phase if phase in ("queued", "starting", "running", "stopping") else None


def _age(heartbeat: dict[str, Any] | None, launch: Launch | None) -> float | None:
    """Seconds since the heartbeat: on this start of this machine by the clock that nobody sets, else by the others'.

    A heartbeat of an earlier supervisor says nothing of the one that is launched now.
    """
    if heartbeat is None or launch is None:
        return None
    at, monotonic = number(heartbeat.get("time")), number(heartbeat.get("monotonic"))
    if at is None or monotonic is None:
        return None
    if launch.supervisor.boot_id == boot_id() and launch.supervisor.host == platform.node():
        return max(0.0, time.monotonic() - monotonic)
    return max(0.0, time.time() - at)
