"""The training runs of a workspace: finished checkpoints, unfinished ones, and jobs that have not begun one yet.

A run is a checkpoint's folder with the jobs that built it: one that was resumed, by the same job or by another one, is
one run. A training job without a folder (it waits, or it failed before) is a run of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from lark_engine.config import TrainConfig
from lark_engine.errors import ConfigError
from lark_engine.jobs.folder import JOBS_DIR, Job
from lark_engine.jobs.records import number, read_record
from lark_engine.jobs.status import JobView, list_jobs, view
from lark_engine.results.commands import shipped_recipe, train_command
from lark_engine.store.lock import is_held_lock
from lark_engine.store.workspace import Artifact, Workspace, read_artifact
from lark_engine.training.checkpoints import complete_checkpoints, size_of, step_of
from lark_engine.training.run_log_ends import log_ends
from lark_engine.training.spec import EVENTS, RESUME_DIR, SPEC

TRAINING_STAGES = ("train lora", "train full")
# Stages that train among other things.
_OUTER_STAGES = ("run", "sweep", "demo")
_MAKES_NOTHING = frozenset({"--preflight", "--json"})
_CHECKPOINTS = "checkpoints/"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run. `state`: `finished`, `removed` (its checkpoint is gone), `stopped`, or that of its job.

    `id` is the checkpoint's, or the job's while there is no folder. `job`: who works on it, else its newest one; None
    when no record of one is left. `config`: as resolved; None while nobody knows. Times in seconds since 1970.
    """

    id: str
    name: str
    state: str
    is_live: bool
    job: JobView | None = None
    job_ids: tuple[str, ...] = ()
    folder: Path | None = None
    artifact: Artifact | None = None
    method: str = ""
    recipe: str = ""
    selection: str = ""
    config: Mapping[str, Any] | None = field(default=None, repr=False)
    started_at: float | None = None
    updated_at: float = 0.0
    done: float | None = None
    total: float | None = None
    last_loss: float | None = None
    eval_loss: float | None = None
    tokens: float | None = None
    train_s: float | None = None

    @property
    def events_path(self) -> Path | None:
        """The log of the run; that of its job once the folder is gone."""
        if self.folder is not None:
            return self.folder / EVENTS
        return self.job.job.events_path if self.job else None

    @property
    def has_own_job(self) -> bool:
        """Whether its job trains this run and nothing else, so that what is done to the job is done to the run."""
        return self.job is not None and is_training(self.job)


class ResumePoint(NamedTuple):
    """A checkpoint that an unfinished run is resumed from."""

    step: int
    num_bytes: int
    saved_at: float


def training_runs(
    workspace: Workspace, *, checkpoints: Sequence[Artifact] | None = None, jobs: Sequence[JobView] | None = None
) -> list[Run]:
    """All runs, newest first. `checkpoints`, `jobs`: all of the workspace, where they are known already."""
    checkpoints = workspace.list("checkpoints") if checkpoints is None else checkpoints
    jobs = list_jobs(workspace.root) if jobs is None else jobs
    return _runs({found.path.name: found for found in checkpoints}, _folders(workspace), jobs)


def refreshed(run: Run, workspace: Workspace) -> Run | None:
    """The run as of now, by its own folder and jobs alone: for who watches one. None when nothing is left of it."""
    jobs = [view(job) for name in run.job_ids if (job := Job(workspace.root / JOBS_DIR / name)).folder.is_dir()]
    names = {run.id, *(name for job in jobs for name in _built(job))}
    folders = {name: path for name in names if (path := workspace.root / "checkpoints" / name).is_dir()}
    finished = {name: found for name, path in folders.items() if (found := read_artifact(path)) is not None}
    runs = _runs(finished, folders, jobs)
    return find_run(runs, run.id)


def _runs(finished: Mapping[str, Artifact], folders: Mapping[str, Path], jobs: Sequence[JobView]) -> list[Run]:
    ours: dict[str, list[JobView]] = {}
    alone: list[JobView] = []
    for job in jobs:
        built = list(_built(job))
        for name in built:
            ours.setdefault(name, []).append(job)
        if not built and is_training(job):
            alone.append(job)
    runs = [
        _finished(artifact, ours.get(name, ())) for name, artifact in finished.items()
        if "adapter" not in artifact.manifest.inputs  # merged, not trained
    ]  # fmt: skip
    runs += [_partial(folder, ours.get(name, ())) for name, folder in folders.items() if name not in finished]
    runs += [
        _of_job(theirs, name) for name, theirs in ours.items()
        if name not in folders and name not in finished and any(map(is_training, theirs))
    ]  # fmt: skip
    runs += [_of_job([job], "") for job in alone]
    return sorted(runs, key=lambda run: (run.updated_at, run.id), reverse=True)


def find_run(runs: Sequence[Run], name: str) -> Run | None:
    """The run of an id: a checkpoint's, or that of one of its jobs."""
    by_id = next((run for run in runs if run.id == name), None)
    return by_id or next((run for run in runs if name in run.job_ids), None)


def resume_points(run: Run) -> list[ResumePoint]:
    """The checkpoints of an unfinished run that are whole, newest first."""
    if run.folder is None or run.artifact is not None:
        return []
    found = []
    for path in complete_checkpoints(run.folder / RESUME_DIR):
        try:
            found.append(ResumePoint(step_of(path), size_of(path), path.stat().st_mtime))
        except OSError:  # removed meanwhile: only the newest are kept
            continue
    return sorted(found, reverse=True)


def resume_command(run: Run, workspace: Workspace) -> list[str] | None:
    """The command that goes on with a run of which no job is left; None when its options are not known."""
    if run.folder is None or run.config is None or not run.selection:
        return None
    try:
        config = TrainConfig.parse({**run.config, "stop_after_checkpoint": False}, run.id)
    except ConfigError:  # written by another version
        return None
    return train_command(config, run.selection, workspace, recipe=shipped_recipe(config.method))


def is_training(job: JobView) -> bool:
    """Whether a job is a training run, and not one that only looks at what it would do."""
    return job.spec is not None and job.spec.stage in TRAINING_STAGES and _MAKES_NOTHING.isdisjoint(job.spec.command)


def _folders(workspace: Workspace) -> dict[str, Path]:
    """Every folder of a checkpoint in which somebody has begun to work."""
    try:
        entries = list(os.scandir(workspace.root / "checkpoints"))
    except OSError:
        return {}
    return {
        entry.name: Path(entry.path) for entry in entries
        if not entry.name.startswith(".") and entry.is_dir() and Path(entry.path, ".lock").exists()
    }  # fmt: skip


def _built(job: JobView) -> Iterator[str]:
    """The names of the checkpoints' folders that a job has built, or has found finished."""
    if job.spec is None or (job.spec.stage not in _OUTER_STAGES and not is_training(job)):
        return
    said = (job.verdict or {}).get("artifacts")
    names = [*job.job.artifacts(), *(said if isinstance(said, list) else ())]
    yield from dict.fromkeys(
        name.removeprefix(_CHECKPOINTS) for name in names if isinstance(name, str) and name.startswith(_CHECKPOINTS)
    )


def _at_work(jobs: Sequence[JobView]) -> JobView | None:
    """Of jobs, newest first: the one that holds the folder, which is the oldest that lives; else the newest."""
    live = [job for job in jobs if job.is_live]
    return live[-1] if live else next(iter(jobs), None)


def _finished(artifact: Artifact, jobs: Sequence[JobView]) -> Run:
    manifest = artifact.manifest
    created = _seconds(manifest.created_at)
    log = log_ends(artifact.path / EVENTS)
    steps = manifest.counts.get("num_steps")
    selection = manifest.inputs.get("selection")
    return Run(
        id=artifact.path.name, name=manifest.name, state="finished", is_live=False, job=_at_work(jobs),
        job_ids=tuple(job.id for job in jobs), folder=artifact.path, artifact=artifact, config=manifest.config,
        method=str(manifest.config.get("method") or ""), recipe=str(manifest.config.get("recipe") or ""),
        selection=selection.id if selection else "", updated_at=created or log.updated_at or 0.0,
        started_at=log.started_at or (created - manifest.wall_s if created else None), done=steps, total=steps,
        last_loss=number(manifest.metrics.get("last_loss")), eval_loss=_first_evaluation(manifest.metrics),
        tokens=number(manifest.counts.get("tokens_seen")), train_s=log.train_s or manifest.wall_s or None,
    )  # fmt: skip


def _partial(folder: Path, jobs: Sequence[JobView]) -> Run:
    job = _at_work(jobs)
    is_held = is_held_lock(folder / ".lock")
    state = _state_of_partial(job, is_held)
    spec = _spec(folder / RESUME_DIR / SPEC)
    config = spec.config or None
    said = _words(job)
    log = log_ends(folder / EVENTS)
    return Run(
        id=folder.name, name=folder.name.rpartition("-")[0], state=state,
        is_live=is_held or bool(job and job.is_live and is_training(job)),
        job=job, job_ids=tuple(job.id for job in jobs), folder=folder, config=config,
        method=str((config or said).get("method") or ""), recipe=str((config or said).get("recipe") or ""),
        selection=spec.selection or said["selection"], started_at=log.started_at,
        updated_at=max(log.updated_at or 0.0, _submitted(job), _modified(folder)), **log.progress,
    )  # fmt: skip


def _state_of_partial(job: JobView | None, is_held: bool) -> str:
    if job is None or not is_training(job):
        # Of a job that does more than to train this checkpoint, only the folder says which one it is at.
        if is_held:
            return "running"
        return job.state if job and not job.is_live and job.state != "succeeded" else "stopped"
    return "stopped" if job.state == "succeeded" else job.state


def _of_job(jobs: Sequence[JobView], folder_name: str) -> Run:
    """A run of which there is no folder: not yet, or not any more."""
    job = _at_work([job for job in jobs if is_training(job)])
    assert job is not None
    said, log = _words(job), log_ends(job.job.events_path)
    name = folder_name.rpartition("-")[0] or said["recipe"] or said["method"]
    return Run(
        id=folder_name or job.id, name=name, state="removed" if job.state == "succeeded" else job.state,
        is_live=job.is_live, job=job, job_ids=tuple(job.id for job in jobs), method=said["method"],
        recipe=said["recipe"], selection=said["selection"], started_at=log.started_at,
        updated_at=max(log.updated_at or 0.0, _submitted(job)), **log.progress,
    )  # fmt: skip


def _words(job: JobView | None) -> dict[str, str]:
    """What a training command says of its run."""
    if job is None or job.spec is None or not is_training(job):
        return {"method": "", "recipe": "", "selection": ""}
    given: dict[str, str] = {}
    words = list(job.spec.command)
    for place, word in enumerate(words):
        flag, has_value, value = word.partition("=")
        following = words[place + 1] if place + 1 < len(words) else ""
        given[flag.replace("_", "-")] = value if has_value else following
    recipe = given.get("--name") or given.get("--recipe") or given.get("--sft-config") or ""
    return {
        "method": job.spec.stage.partition(" ")[2], "recipe": Path(recipe).stem,
        "selection": given.get("--train-data", ""),
    }  # fmt: skip


def _first_evaluation(metrics: Mapping[str, Any]) -> float | None:
    names = (name for name in metrics if name.startswith("eval_") and name.endswith("_loss"))
    return number(metrics.get(next(names, "")))


class _Spec(NamedTuple):
    """What an unfinished run says of itself."""

    config: dict[str, Any]
    selection: str


def _spec(path: Path) -> _Spec:
    values = read_record(path) or {}
    config = values.get("config")
    train_path = Path(str(values.get("train_path") or ""))
    is_selection = train_path.parent.parent.name == "selections"
    selection = train_path.parent.name if is_selection else str(values.get("train_path") or "")
    return _Spec(config if isinstance(config, dict) else {}, selection)


def _submitted(job: JobView | None) -> float:
    return job.spec.submitted_at if job and job.spec else 0.0


def _modified(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _seconds(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
