"""The files of a job. Each is whole or not there; none is needed to find the others.

jobs/<time>-<stage>-<id>/
    spec.json       what to run, written once
    launch.json     who runs it: the supervisor's and the command's process, devices, the attempt
    heartbeat       written over in place while the supervisor lives, so that a full disk does not silence it
    control.json    what somebody asked for
    events.jsonl    progress, as every stage writes it
    artifacts.txt   what its stages set out to build, one `kind/id` a line
    output.log      all that supervisor and command said
    outcome.json    what the command itself said of its end
    preflight.json  what a preflight of training found
    done.json       the verdict; excerpt.log beside it keeps the ends of the log
    attempts/<n>/   the verdicts of earlier attempts
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import platform
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lark_engine import access
from lark_engine.errors import StoreError, did_you_mean
from lark_engine.jobs.records import REQUESTS, SCHEMA_VERSION, JobSpec, Launch, Request, read_record
from lark_engine.store.atomic import disk_errors, make_dir, open_in_place, open_regular, write_json, write_text
from lark_engine.store.shown import require_own

JOBS_DIR = "jobs"
# In the environment of every process of a job, also of one that leaves its session: who it belongs to.
MARK = "LARK_JOB_ID"
FOLDER_VARIABLE = "LARK_JOB_DIR"
# Set for the process that the supervisor itself starts, and not for what that starts in turn.
COMMAND_VARIABLE = "LARK_JOB_COMMAND"
FOLDER_MARKS = (MARK, FOLDER_VARIABLE, COMMAND_VARIABLE)
OUTCOME = "outcome.json"
_ATTEMPTS = "attempts"
# The verdict last: until it is moved, the attempt has ended.
_OF_AN_ATTEMPT = ("launch.json", "control.json", OUTCOME, "preflight.json", "excerpt.log", "done.json")
_ID_BYTES = 4
_MOST_ARTIFACT_BYTES = 1 << 20


@dataclass(frozen=True)
class Job:
    """One job's folder."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def mark(self) -> str:
        """What every process of the job has as `MARK`: a copy of the folder is another job."""
        return f"{self.id} in {self.folder.parent.resolve()}"

    @property
    def events_path(self) -> Path:
        return self.folder / "events.jsonl"

    @property
    def artifacts_path(self) -> Path:
        return self.folder / "artifacts.txt"

    @property
    def log_path(self) -> Path:
        return self.folder / "output.log"

    @property
    def excerpt_path(self) -> Path:
        return self.folder / "excerpt.log"

    @property
    def lock_path(self) -> Path:
        return self.folder / ".lock"

    @property
    def workspace_root(self) -> Path:
        return self.folder.parent.parent

    def spec(self) -> JobSpec:
        """Errors: `StoreError` when it is missing or damaged."""
        path = self.folder / "spec.json"
        values = read_record(path)
        if values is None:
            raise StoreError(f"{path}: missing or damaged; remove the job with: lark jobs remove {self.id}")
        return JobSpec.from_json(values, path)

    def launch(self) -> Launch | None:
        return Launch.from_json(read_record(self.folder / "launch.json"))

    def require_own_files(self) -> None:
        """For who writes here, in place and at the ends of files. Errors: `StoreError` for a link, a pipe or a device.

        A folder that came from elsewhere could have us write over any file of this user's.
        """
        with disk_errors(self.folder), os.scandir(self.folder) as entries:
            for entry in entries:
                is_plain = entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
                if not is_plain:
                    what = "is a link" if entry.is_symlink() else "is a pipe or a device"
                    raise StoreError(
                        f"{entry.path}: {what}, and the files of a job are plain ones; remove it, or the job with: "
                        f"lark jobs remove {self.id}"
                    )

    def write_launch(self, launch: Launch) -> None:
        write_json(self.folder / "launch.json", launch.as_json())

    def done(self) -> dict[str, Any] | None:
        """The verdict, if there is one: its `state` is one of the final ones."""
        return read_record(self.folder / "done.json")

    def write_done(self, values: Mapping[str, Any]) -> None:
        write_json(self.folder / "done.json", dict(values))

    def outcome(self) -> dict[str, Any] | None:
        """What the command said of its end: `error` and `message`, or the artifacts that it made."""
        return read_record(self.folder / OUTCOME)

    def write_outcome(self, values: Mapping[str, Any]) -> None:
        write_json(self.folder / OUTCOME, dict(values))

    def note_artifact(self, folder: Path) -> None:
        """Note that a stage of this job builds the artifact in a folder of the workspace; once for each."""
        with contextlib.suppress(OSError, ValueError):  # of another workspace; or our folder is gone
            name = folder.resolve().relative_to(self.workspace_root.resolve()).as_posix()
            if name not in self.artifacts() and self.folder.is_dir():
                with open_in_place(self.artifacts_path, "a", "utf-8") as file:
                    file.write(f"{name}\n")

    def artifacts(self) -> list[str]:
        """The artifacts (`kind/id`) that its stages have set out to build, in this order."""
        try:
            with open_regular(self.artifacts_path) as file:
                text = file.read(_MOST_ARTIFACT_BYTES).decode("utf-8", "replace")
        except OSError:
            return []
        return list(dict.fromkeys(line for line in text.split("\n")[:-1] if line))  # without a torn last line

    def request(self) -> Request | None:
        """What somebody asked for, if anybody did."""
        value = (read_record(self.folder / "control.json") or {}).get("request")
        return value if value in REQUESTS else None

    def ask(self, request: Request) -> Request:
        """Ask for something; returns what holds now: the strongest of what was ever asked of this attempt."""
        with self._alone("control"):
            before = self.request()
            strongest: Request = max((r for r in (before, request) if r), key=REQUESTS.index)
            if strongest != before:
                values = {"request": strongest, "at": round(time.time(), 3), "by": somebody()}
                write_json(self.folder / "control.json", values)
            return strongest

    def begin_again(self) -> None:
        """Put the last attempt's verdict aside; what was asked of it is asked no more. Its log and events go on."""
        make_dir(self.folder / _ATTEMPTS)
        os.utime(self.folder / _ATTEMPTS)
        files = [self.folder / name for name in _OF_AN_ATTEMPT if (self.folder / name).exists()]
        if not files:
            return
        aside = self.folder / _ATTEMPTS / str(self.next_attempt())
        make_dir(aside)
        for path in files:
            path.replace(aside / path.name)

    def keep_attempt(self, verdict: Mapping[str, Any], excerpt: str) -> None:
        """Keep the verdict of an attempt that its supervisor follows by another one at once: the job has not ended."""
        aside = self.folder / _ATTEMPTS / str(self.next_attempt())
        make_dir(aside)
        write_text(aside / "excerpt.log", excerpt)
        write_json(aside / "done.json", dict(verdict))

    def begun_at(self) -> float:
        """When this attempt was asked for, in seconds since 1970; 0 for the first, whose specification says it."""
        try:
            return (self.folder / _ATTEMPTS).stat().st_mtime
        except OSError:
            return 0.0

    def attempts(self) -> list[dict[str, Any]]:
        """The verdicts of earlier attempts, oldest first; an attempt without one was interrupted."""
        folder = self.folder / _ATTEMPTS
        numbers = self._attempt_numbers()
        found = [read_record(folder / str(n) / "done.json") or {} for n in numbers]
        return [values if isinstance(values.get("state"), str) else {"state": "interrupted"} for values in found]

    def next_attempt(self) -> int:
        """The number of the attempt that is under way, or would be the next one."""
        return max(self._attempt_numbers(), default=0) + 1

    def _attempt_numbers(self) -> list[int]:
        return sorted(int(path.name) for path in (self.folder / _ATTEMPTS).glob("*") if path.name.isdecimal())

    @contextlib.contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        with open_in_place(self.folder / f".{name}.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def create_job(root: Path, spec: JobSpec) -> Job:
    """Make a job's folder in a workspace; nothing is started. Errors: `StoreError`."""
    from lark_engine.store.workspace import slug  # not above: a supervisor should not carry pandas for hours

    require_own(root)
    now = datetime.now(UTC)
    # With milliseconds: the order of ids is that of submission.
    name = f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}-{slug(spec.stage, 24)}-{secrets.token_hex(_ID_BYTES)}"
    job = Job(root / JOBS_DIR / name)
    make_dir(job.folder)
    values = {**asdict(spec), "submitted_at": round(now.timestamp(), 3), "submitted_by": somebody()}
    write_json(job.folder / "spec.json", {"schema_version": SCHEMA_VERSION, **values})
    write_text(job.log_path, "")
    return job


def all_jobs(root: Path) -> list[Job]:
    """The jobs of a workspace, newest first; also those whose files are damaged."""
    try:
        entries = os.scandir(root / JOBS_DIR)
        names = [
            entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
        ]
    except OSError:  # nothing there, or nothing that we may read
        return []
    return [Job(root / JOBS_DIR / name) for name in sorted(names, reverse=True)]


def find_job(root: Path, name: str) -> Job:
    """A job by its id or a unique part of it; `last` is the newest. Errors: `StoreError`."""
    jobs = all_jobs(root)
    if name == "last" and jobs:
        return jobs[0]
    fits = [job for job in jobs if job.id == name] or [job for job in jobs if name and name in job.id]
    if len(fits) == 1:
        return fits[0]
    if fits:
        some = ", ".join(job.id for job in fits[:5]) + (", …" if len(fits) > 5 else "")
        raise StoreError(f"'{name}' names {len(fits)} jobs of {root / JOBS_DIR}: {some}; give more of the id")
    hint = did_you_mean(name, [job.id for job in jobs[:20]]) if jobs else "; the workspace holds none yet"
    raise StoreError(f"no job '{name}' in workspace {root}{hint}")


def somebody() -> str:
    """Who acts: user and machine, or the one whom a server let in."""
    who = access.visitor()
    if who.is_remote:
        return f"{who.name} from {who.origin}"
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):  # a user id without a name, as in containers
        return f"{os.getuid()}@{platform.node()}"
