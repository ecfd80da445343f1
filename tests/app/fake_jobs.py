"""Jobs of a workspace as their files say it, without a process of their own: ended ones, and some that seem to live."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lark_engine.jobs.folder import Job, create_job
from lark_engine.jobs.records import Heartbeat, JobSpec, Launch
from lark_engine.processes import own_identity
from lark_engine.store.atomic import write_json

SUBMITTED_AT = 1_790_000_000


def command(*words: str) -> tuple[str, ...]:
    return ("lark", *words)


def ended(root: Path, state: str, *, stage: str = "pool import", log: str = "", **verdict: Any) -> Job:
    """A job with a verdict; `verdict` are more of its values."""
    words = command(*stage.split(), "/data/pool.jsonl", "--workspace", str(root))
    job = create_job(root, JobSpec(stage=stage, command=words, cwd=str(root)))
    now = time.time()
    values = {"state": state, "attempt": 1, "started_at": now - 75, "ended_at": now, "wall_s": 75.0, **verdict}
    job.write_done(values)
    job.log_path.write_text(log)
    return job


def failed(root: Path, **verdict: Any) -> Job:
    """A job that failed for its input."""
    said = {
        "reason": "bad_input", "message": "pool.jsonl:7: no assistant message", "place": "pool.jsonl:7",
        "remedy": "mend it and run the same command again: it resumes", "is_transient": False, **verdict,
    }  # fmt: skip
    return ended(root, "failed", **said)


def living(root: Path, phase: str, *, stage: str = "train lora", waits_for: str = "", **spec: Any) -> Job:
    """A job whose supervisor and command are this very process: nothing may be asked of it."""
    words = command(*stage.split(), "--workspace", str(root))
    job = create_job(root, JobSpec(stage=stage, command=words, cwd=str(root), device_kind="cpu", devices=1, **spec))
    me = own_identity()
    runs = me if phase != "queued" else None
    started_at = time.time() - 100 if runs else None
    launch = Launch(supervisor=me, command=runs, started_at=time.time() - 100, command_started_at=started_at)
    job.write_launch(launch)
    heartbeat = Heartbeat(job.folder)
    heartbeat.write(phase, waits_for=waits_for)
    heartbeat.close()
    return job


def tell(job: Job, **event: Any) -> None:
    """Append an event of progress."""
    said = {"time": time.time(), "stage": "train lora", "unit": "step", "rate": 0.5, "metrics": {}, **event}
    with job.events_path.open("a") as file:
        file.write(json.dumps(said) + "\n")


def many(root: Path, states: dict[str, int]) -> None:
    """Many ended jobs, an hour apart, as cheap as folders are to write."""
    template = json.loads((ended(root, "succeeded").folder / "spec.json").read_text())
    number = 0
    for state, count in states.items():
        for _ in range(count):
            at = SUBMITTED_AT + 3600 * number
            name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at))}-000-pool-import-{number:08x}"
            folder = root / "jobs" / name
            folder.mkdir()
            (folder / "spec.json").write_text(json.dumps({**template, "submitted_at": at}))
            verdict = {"state": state, "wall_s": 10.0, "ended_at": at + 10, "message": f"number {number}"}
            (folder / "done.json").write_text(json.dumps(verdict))
            number += 1


def keep_attempt(job: Job, number: int, **verdict: Any) -> None:
    """The verdict of an earlier attempt."""
    folder = job.folder / "attempts" / str(number)
    folder.mkdir(parents=True)
    write_json(folder / "done.json", verdict)
