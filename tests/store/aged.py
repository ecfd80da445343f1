"""Workspaces of long ago, for tests of housekeeping; and locks that real processes hold."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lark_engine.store.cleaning import survey
from lark_engine.store.lock import lock
from lark_engine.store.retention import DAY_S, JobRecord, Policy, Removal, plan_cleaning
from lark_engine.store.workspace import MANIFEST, Artifact, Plan, Workspace

LONG_AGO = time.time() - 30 * DAY_S
fork = multiprocessing.get_context("fork")


def age(path: Path, changed_at: float = LONG_AGO) -> None:
    """Set the times of all that is in a folder."""
    for folder, subfolders, files in os.walk(path):
        for name in (*subfolders, *files):
            os.utime(Path(folder, name), (changed_at, changed_at), follow_symlinks=False)


def made(
    workspace: Workspace, kind: Any, name: str, *inputs: Artifact, parent: Path | None = None, **values: Any
) -> Artifact:
    """A finished artifact of long ago."""
    fingerprint = f"{len(list(workspace.root.rglob(MANIFEST))):012x}"
    plan = Plan(
        kind=kind, name=name, fingerprint=fingerprint, config=values.get("config", {}), parent=parent,
        inputs={f"input{i}": a.ref for i, a in enumerate(inputs)}, identity=values.get("identity", {}),
    )  # fmt: skip
    artifact = workspace.build(plan, lambda draft: None)
    age(artifact.path)
    return artifact


def unfinished(workspace: Workspace, place: str, changed_at: float = LONG_AGO) -> Path:
    folder = workspace.root / place
    with lock(folder):
        (folder / "data").write_bytes(b"x" * 5000)
    age(folder, changed_at)
    return folder


def planned(workspace: Workspace, *, jobs: tuple[JobRecord, ...] = (), **policy: Any) -> list[Removal]:
    return plan_cleaning(survey(workspace, jobs), Policy(**policy))


def named(removals: list[Removal], workspace: Workspace) -> list[str]:
    return [f"{r.waste} {r.path.relative_to(workspace.root)}" for r in removals]


def names(workspace: Workspace, **policy: Any) -> list[str]:
    return [r.path.name.partition("-0")[0] for r in planned(workspace, **policy)]


def hold(folder: Path, pipe: Any) -> None:
    with lock(folder):
        pipe.send("held")
        time.sleep(60)


@contextmanager
def held_by_a_process(folder: Path) -> Iterator[None]:
    ours, theirs = fork.Pipe()
    process = fork.Process(target=hold, args=(folder, theirs), daemon=True)
    process.start()
    assert ours.recv() == "held"
    try:
        yield
    finally:
        process.kill()
        process.join()


def graded_chain(workspace: Workspace) -> dict[str, Artifact]:
    """A graded run, and beside it a selection that was trained on without a result, and one that was not."""
    pool = made(workspace, "pools", "pool")
    scores = made(workspace, "scores", "scores", pool)
    selection = made(workspace, "selections", "trained", scores, pool)
    checkpoint = made(workspace, "checkpoints", "graded", selection)
    generations = made(workspace, "evals", "gsm8k", checkpoint, parent=workspace.root / "evals" / "graded")
    grade = made(workspace, "grades", "boxed", generations, parent=generations.path / "grades")
    idle = made(workspace, "selections", "idle", scores, pool)
    tried = made(workspace, "checkpoints", "tried", idle)
    other = made(workspace, "scores", "other", pool)
    return {
        "pool": pool, "scores": scores, "selection": selection, "checkpoint": checkpoint, "generations": generations,
        "grade": grade, "idle": idle, "tried": tried, "other": other,
    }  # fmt: skip
