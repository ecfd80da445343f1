"""A job in words, as lists, cards and headings say it. No Streamlit; texts are as they are, not escaped."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from lark_engine.figures import formats
from lark_engine.jobs.records import number
from lark_engine.jobs.status import LIVE, JobView, State
from lark_engine.store.events import plural

Tone = Literal["good", "live", "warn", "bad", "quiet"]
# What the filter of the page Jobs calls them → the states that it shows.
FILTERS: dict[str, tuple[State, ...]] = {
    "live": LIVE, "failed": ("failed",), "interrupted": ("interrupted",), "cancelled": ("cancelled",),
    "succeeded": ("succeeded",), "unreadable": ("unreadable",),
}  # fmt: skip
ALL = "all"
_TONES: dict[State, Tone] = {
    "queued": "quiet", "starting": "live", "running": "live", "stopping": "warn", "stale": "bad",
    "interrupted": "warn", "succeeded": "good", "failed": "bad", "cancelled": "quiet", "unreadable": "bad",
}  # fmt: skip
_ID = re.compile(r"\b\d{8}-\d{6}-\d{3}-([a-z0-9-]+)-([0-9a-f]{8})\b")
# Beyond this a time left is no forecast any more.
_LONGEST_LEFT_S = 1e8
DAY_S = 86_400.0


class JobProgress(NamedTuple):
    """How far a job is. `counted`: `train: 12 of 18 steps`; `left_s` None: not known, or it does not go on."""

    share: float
    counted: str
    left_s: float | None


def tone(state: State) -> Tone:
    """Which color goes with a state; the state is always said beside it."""
    return _TONES[state]


def stage(job: JobView) -> str:
    """What it runs: `train lora`; of a job that cannot be read, its id says it."""
    return job.spec.stage if job.spec else "unreadable"


def short_id(job_id: str) -> str:
    """The last part of an id, which commands take for the whole: `500e6dae`."""
    return job_id.rpartition("-")[2] or job_id


def progress(job: JobView, now_s: float) -> JobProgress | None:
    """How far its stage is by the last event; None where there is none. `now_s`: seconds since 1970."""
    event = job.event or {}
    done, total = number(event.get("done")) or 0.0, number(event.get("total"))
    if not total or total < 0 or done < 0:
        return None
    counted = formats.progress(done, total, str(event.get("unit") or ""))
    if (part := str(event.get("stage") or "")) and part != stage(job):
        counted = f"{part}: {counted}"
    return JobProgress(min(1.0, done / total), counted, _left_s(job, event, done < total, now_s))


def _left_s(job: JobView, event: dict[str, object], goes_on: bool, now_s: float) -> float | None:
    """Time left as of now; none from an earlier attempt, nor where the forecast is over and the stage is not."""
    eta_s, at = number(event.get("eta_s")), number(event.get("time"))
    if eta_s is None or at is None or not goes_on or job.state not in ("running", "stopping"):
        return None
    if job.launch is not None and at < job.launch.started_at:
        return None
    left_s = eta_s - max(0.0, now_s - at)
    return left_s if 0 < left_s < _LONGEST_LEFT_S else None


def progress_words(job: JobView, now_s: float) -> str:
    """`12 of 18 steps · 2 min 40 s left`; empty where nothing is known."""
    found = progress(job, now_s)
    if found is None:
        return ""
    left = f"{formats.duration(found.left_s)} left" if found.left_s is not None else ""
    return " · ".join(part for part in (found.counted, left) if part)


def rate_words(job: JobView) -> str:
    """How fast a running job is by its last event: `349 tokens/s`; empty where nothing is known."""
    event = job.event or {}
    rate, unit = number(event.get("rate")), str(event.get("unit") or "")
    if job.state != "running" or not rate or rate < 0 or not unit:
        return ""
    if unit == "B":
        return f"{formats.size(rate)}/s"
    return f"{formats.count(rate) if rate >= 10 else f'{rate:.2g}'} {plural(unit)}/s"


def waits_for(job: JobView) -> str:
    """What a waiting job waits for: its turn, or devices and who holds them."""
    return short_ids(str((job.heartbeat or {}).get("waits_for") or job.why or "its turn"))


def short_ids(sentence: str) -> str:
    """A sentence with `generate 78348e25` in place of the whole id of such a job."""
    return _ID.sub(r"\1 \2", sentence)


def holder(said: str) -> str:
    """Who holds a device, where it is no job of this workspace."""
    short = short_ids(said)
    return f"{short}, of another workspace" if short != said else said


def title(job: JobView) -> str:
    """What it runs and its short id: `train lora · 500e6dae`."""
    return f"{stage(job)} · {short_id(job.id)}"


def said(job: JobView, now_s: float) -> str:
    """In a line: how far it is, what it waits for, what it made, or why it ended."""
    verdict = job.verdict or {}
    if job.state == "queued":
        place = f"place {job.place} · " if job.place else ""
        return f"{place}waits for {waits_for(job)}" if job.place else job.why
    if job.state == "failed":
        return ": ".join(part for part in (reason(job), job.why) if part)
    if job.state == "succeeded":
        return ", ".join(made(verdict))
    if job.is_live:
        return " · ".join(part for part in (job.why, progress_words(job, now_s)) if part)
    return job.why


def reason(job: JobView) -> str:
    """The class of a failure in words: `bad input`."""
    return formats.words(str((job.verdict or {}).get("reason") or ""))


def made(verdict: dict[str, object]) -> list[str]:
    """What a job made or found finished, as `kind/id`."""
    names = verdict.get("artifacts")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def took_s(job: JobView, now_s: float) -> float | None:
    """Seconds that its command ran or has been running; None where it never began."""
    verdict = job.verdict or {}
    if (wall_s := number(verdict.get("wall_s"))) is not None:
        return wall_s
    started_at = job.launch.command_started_at if job.launch else number(verdict.get("started_at"))
    ended_at = now_s if job.is_live else job.ended_at
    return None if started_at is None or ended_at is None else max(0.0, ended_at - started_at)


def age(seconds: float | None, now_s: float) -> str:
    """`5 min ago`, for a time in seconds since 1970; a dash for what is not known."""
    if not seconds:
        return "–"
    at, now = (datetime.fromtimestamp(value, UTC) for value in (seconds, now_s))
    return formats.age(at.isoformat(), now)


def counts(jobs: Sequence[JobView]) -> dict[str, int]:
    """How many jobs each filter shows, `all` first; filters that would show none are left out, but for live ones."""
    found = {ALL: len(jobs)}
    for name, states in FILTERS.items():
        count = sum(job.state in states for job in jobs)
        if count or name == "live":
            found[name] = count
    return found


def failed_lately(jobs: Sequence[JobView]) -> list[JobView]:
    """Jobs that failed within a day, newest first, without those whose command was run again since."""
    found: list[JobView] = []
    again: set[tuple[str, ...]] = set()
    limit = time.time() - DAY_S
    for job in jobs:
        command = job.spec.command if job.spec else ()
        if job.state == "failed" and command not in again and (job.ended_at or 0.0) > limit:
            found.append(job)
        again.add(command)
    return found
