"""Blocks of HTML about jobs and the machine that they run on. Pure; all text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app import job_words
from app.machine import Devices, DeviceUse, Disk
from app.widgets import block, text
from lark_engine.doctor.versions import Conflict
from lark_engine.figures import formats
from lark_engine.jobs.records import number
from lark_engine.jobs.status import JobView

STYLES = Path(__file__).parent / "static" / "jobs.css"
_MOST_CONFLICTS = 3


def heading(job: JobView, now_s: float) -> str:
    """State, times and who, in a line of facts."""
    spec = job.spec
    took = job_words.took_s(job, now_s)
    verdict = job.verdict or {}
    devices = job.launch.devices if job.launch else verdict.get("devices")
    on = [str(device) for device in devices] if isinstance(devices, list | tuple) else []
    facts = [
        f"submitted {job_words.age(spec.submitted_at, now_s)} by {spec.submitted_by}" if spec else "",
        "" if took is None else f"{'running for' if job.is_live else 'ran'} {formats.duration(took)}",
        f"on {', '.join(on)}" if on else "",
        f"attempt {job.attempt}" if job.attempt > 1 else "",
        f"priority {spec.priority}" if spec and spec.priority else "",
        {"ray": "on a Ray cluster", "terminal": "started in a terminal"}.get(spec.launcher, "") if spec else "",
        f"up to {spec.max_retries} retries" if spec and spec.max_retries else "",
    ]  # fmt: skip
    shown = " · ".join(text(fact) for fact in facts if fact)
    return block(f'{state_badge(job)} <span class="muted">{shown}</span>', "lark-job-heading")


def state_badge(job: JobView) -> str:
    """The state with its mark."""
    return f'<span class="lark-state {job_words.tone(job.state)}"><i></i>{text(job.state)}</span>'


def alert_line(sentence: str) -> str:
    """A sentence about what went wrong, with the mark of failed jobs."""
    return block(f'<span class="lark-state bad"><i></i></span>{text(sentence)}')


def progress(job: JobView, now_s: float) -> str:
    """How far a job is, as a bar with words; what it waits for; empty where nothing is known."""
    if job.state == "queued":
        return block(f'<div class="lark-run" role="status">{text(job_words.said(job, now_s))}</div>')
    found = job_words.progress(job, now_s)
    why = f'<div class="muted">{text(job.why)}</div>' if job.is_live and job.why else ""
    if found is None:
        waits = "It has not told yet how far it is." if job.is_live and not why else ""
        return block(f'<div class="lark-run" role="status">{why}{waits}</div>') if why or waits else ""
    left = f"{formats.duration(found.left_s)} left" if found.left_s is not None else ""
    head = f'<div class="top"><span>{text(found.counted)}</span><span class="muted">{text(left)}</span></div>'
    return block(f'<div class="lark-run" role="status">{head}{_bar(found)}{why}</div>')


def _bar(found: job_words.JobProgress) -> str:
    value = f"{100 * found.share:.1f}"
    return (
        f'<div class="lark-bar" role="progressbar" aria-label="{text(found.counted)}" aria-valuenow="{value}" '
        f'aria-valuemin="0" aria-valuemax="100"><div style="width:{value}%"></div></div>'
    )


def card(job: JobView, now_s: float) -> str:
    """One live job in short, for the Overview."""
    found = job_words.progress(job, now_s)
    if job.state == "queued" or found is None:
        facts = job_words.said(job, now_s)
    else:
        facts = job_words.progress_words(job, now_s)
    head = f'<span class="who"><b>{text(job_words.stage(job))}</b>{state_badge(job)}</span>'
    top = f'<div class="top">{head}<span class="muted">{text(facts)}</span></div>'
    return block(f'<div class="lark-run">{top}{_bar(found) if found else ""}</div>', "lark-job-card")


def ending(job: JobView) -> str:
    """Why a job ended as it did, and what to do: the class of the failure, message, place and remedy."""
    verdict = job.verdict or {}
    message, remedy = str(verdict.get("message") or job.why or ""), str(verdict.get("remedy") or "")
    if job.state == "succeeded" or not (message or remedy):
        return ""
    title, hint = job.state, ""
    if job.state == "failed":
        title = job_words.reason(job) or "failed"
        hint = "may pass when it is run again" if verdict.get("is_transient") else "will fail again as it is"
    rows = [("Where", str(verdict.get("place") or "")), ("What to do", remedy)]
    facts = "".join(f"<dt>{name}</dt><dd>{text(said)}</dd>" for name, said in rows if said)
    return block(
        f'<section class="{job_words.tone(job.state)}" aria-label="Why it ended"><div class="top"><strong>{text(title)}'
        f'</strong><span class="muted">{hint}</span></div><p>{text(message)}</p><dl>{facts}</dl></section>',
        "lark-ending",
    )  # fmt: skip


def attempts(before: Sequence[dict[str, Any]]) -> str:
    """The attempts before this one, oldest first."""
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Attempt", "State", "Why", "Ran"))
    body = ""
    for place, verdict in enumerate(before, start=1):
        why = ": ".join(str(verdict[name]) for name in ("reason", "message") if verdict.get(name))
        wall_s = number(verdict.get("wall_s"))
        ran = "–" if wall_s is None else formats.duration(wall_s)
        body += (
            f"<tr><td>{place}</td><td>{text(verdict.get('state'))}</td><td>{text(why) or '–'}</td><td>{ran}</td></tr>"
        )
    return block(f'<table class="lark-table"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def log_link(href: str, size: int, path: str) -> str:
    """The whole log to download: how long it is, and where it lies."""
    return block(
        f'<a href="{text(href)}" download>Download the whole log</a> <span class="muted">{formats.size(size)} · '
        f"<code>{text(path)}</code></span>",
        "lark-log-link",
    )


def device(use: DeviceUse, holder: str, now_s: float) -> str:
    """A device: its name, its memory, and who has it. `holder`: in words, where no link says it."""
    memory = []
    if use.device.memory_bytes:
        used = f"{formats.size(use.used_bytes)} of " if use.used_bytes is not None else ""
        memory = [f"{used}{formats.size(use.device.memory_bytes)}{' in use' if used else ''}"]
    since = [f"for {formats.duration(max(0.0, now_s - use.since))}"] if use.holder and use.since else []
    state = f"held{f' by {holder}' if holder else ''}" if use.holder else "free"
    facts = " · ".join([*memory, *since])
    return block(
        f'<div class="lark-device {"held" if use.holder else "free"}"><div class="top"><b>{text(use.device.name)}</b>'
        f'</div><div class="lark-state {"live" if use.holder else "good"}"><i></i>{text(state)}</div>'
        f'<div class="muted">{text(facts)}</div></div>'
    )  # fmt: skip


def health(disk: Disk, devices: Devices, conflicts: Sequence[Conflict]) -> str:
    """Disk and devices in a strip, and what is wrong with them or with the installed versions."""
    cells = []
    if disk.room is not None:
        share = 100 * (1 - disk.room.free / disk.room.total)
        cells.append(
            f'<div><span class="muted">Disk</span> {formats.size(disk.room.free)} free of '
            f'{formats.size(disk.room.total)}<div class="lark-bar{" low" if disk.cure else ""}" aria-hidden="true">'
            f'<div style="width:{share:.1f}%"></div></div></div>'
        )
    cells += [_gpus(devices.of("cuda")), _slots(devices.of("cpu"))]
    wrong = [disk.cure, devices.problem, _versions(conflicts)]
    strip = block("".join(cells), "lark-health")
    said = "".join(f"<div>{text(sentence)}</div>" for sentence in wrong if sentence)
    return strip + (block(f'<div role="alert">{said}</div>', "lark-warning") if said else "")


def _gpus(uses: Sequence[DeviceUse]) -> str:
    if not uses:
        return '<div><span class="muted">GPUs</span> none known</div>'
    names = ", ".join(dict.fromkeys(use.device.name for use in uses))
    memory = sum(use.device.memory_bytes or 0 for use in uses)
    free = sum(not use.holder for use in uses)
    total = f" · {formats.size(memory)}" if memory else ""
    return f'<div><span class="muted">GPUs</span> {free} of {len(uses)} free<small>{text(names)}{total}</small></div>'


def _slots(uses: Sequence[DeviceUse]) -> str:
    free = sum(not use.holder for use in uses)
    return f'<div><span class="muted">CPU slots</span> {free} of {len(uses)} free</div>'


def _versions(conflicts: Sequence[Conflict]) -> str:
    if not conflicts:
        return ""
    said = [f"{one.package} {one.installed or 'is missing'} ({one.wanted} is required)" for one in conflicts]
    more = f", and {len(said) - _MOST_CONFLICTS} more" if len(said) > _MOST_CONFLICTS else ""
    return f"Versions do not fit: {', '.join(said[:_MOST_CONFLICTS])}{more}. lark doctor says how to mend it."
