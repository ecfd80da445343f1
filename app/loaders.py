"""Cached reading of the workspace. What is finished is read once for each state of the manifests; what is being made
is looked up anew every time, so that another process's work shows at the next run of the page."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from lark_engine.evaluation.disputes import DISPUTES
from lark_engine.pool.importer import REJECTED
from lark_engine.results.table import Results, read_results
from lark_engine.store.events import last_event
from lark_engine.store.lock import is_held_lock
from lark_engine.store.workspace import (
    KINDS,
    MANIFEST,
    Artifact,
    InputRef,
    Kind,
    Workspace,
    library_versions,
    read_artifact,
)

_FOLDERS: dict[Kind, str] = {
    **{kind: f"{kind}/*" for kind in KINDS},
    "evals": "evals/*/*",
    "grades": "evals/*/*/grades/*",
}


@dataclass(frozen=True)
class Snapshot:
    """All finished artifacts, newest first, and the folders whose manifest cannot be used."""

    artifacts: dict[Kind, list[Artifact]]
    damaged: list[Path]

    def newest(self, kind: Kind) -> Artifact | None:
        return next(iter(self.artifacts[kind]), None)

    def find(self, ref: InputRef) -> Artifact | None:
        """The artifact of a lineage entry, or None when it is no longer there."""
        return next((a for a in self.artifacts[ref.kind] if a.manifest.fingerprint == ref.fingerprint), None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is begun: a student or a benchmark that lies ready begins nothing."""
        return not any(found for kind, found in self.artifacts.items() if kind not in ("students", "benchmarks"))


class Unfinished(NamedTuple):
    """A folder without a manifest: being made by a live process, or left by one that ended.

    `place`: where it lies in the workspace, as the jobs that build it note it. `is_refused`: it is an import that ended
    because lines are bad; running it again would end the same way.
    """

    kind: Kind
    name: str
    running: bool
    done: float | None
    total: float | None
    unit: str
    eta_s: float | None
    place: str
    is_refused: bool = False


class Health(NamedTuple):
    """Room where the workspace is, and what is installed."""

    free_bytes: int
    versions: dict[str, str]


def signature(workspace: Workspace) -> str:
    """A value that changes whenever any manifest appears, disappears or is written anew; short, as keys are hashed."""
    return _stamp(workspace.root, *(f"{pattern}/{MANIFEST}" for pattern in _FOLDERS.values()))


def disputes_version(workspace: Workspace) -> str:
    """A value that changes whenever a verdict is disputed or a dispute is taken back: no manifest says so."""
    return _stamp(workspace.root, f"{_FOLDERS['evals']}/{DISPUTES}")


def _stamp(root: Path, *patterns: str) -> str:
    """The names, times and sizes of files in one word; what is removed meanwhile is left out."""
    entries = []
    for path in (path for pattern in patterns for path in root.glob(pattern)):
        with contextlib.suppress(OSError):
            stat = path.stat()
            entries.append((str(path), stat.st_mtime_ns, stat.st_size))
    return hashlib.sha256(repr(sorted(entries)).encode()).hexdigest()


def load_snapshot(workspace: Workspace) -> Snapshot:
    """The finished artifacts as of now."""
    return _snapshot(str(workspace.root), signature(workspace))


@st.cache_resource(max_entries=4, show_spinner=False)
def _snapshot(root: str, version: object) -> Snapshot:
    artifacts: dict[Kind, list[Artifact]] = {}
    damaged = []
    for kind, pattern in _FOLDERS.items():
        found = []
        for folder in sorted(Path(root).glob(pattern)):
            artifact = read_artifact(folder) if (folder / MANIFEST).is_file() else None
            if artifact is not None and artifact.kind == kind:
                found.append(artifact)
            elif (folder / MANIFEST).is_file():
                damaged.append(folder.relative_to(root))
        artifacts[kind] = sorted(found, key=lambda a: a.manifest.created_at, reverse=True)
    return Snapshot(artifacts, damaged)


def load_results(workspace: Workspace) -> Results:
    """The results as of now. A grade whose metrics cannot be read is left out and named."""
    return _results(str(workspace.root), (signature(workspace), disputes_version(workspace)))


@st.cache_resource(max_entries=4, show_spinner=False)
def _results(root: str, version: object) -> Results:
    return read_results(Workspace(root))


def load_unfinished(workspace: Workspace) -> list[Unfinished]:
    """Folders without a manifest, running ones first."""
    found = []
    for kind, pattern in _FOLDERS.items():
        for folder in workspace.root.glob(pattern):
            if folder.is_dir() and (folder / ".lock").is_file() and not (folder / MANIFEST).exists():
                found.append(_unfinished(kind, folder, workspace.root))
    found = [item for item in found if not (item.is_refused and _is_settled(item, workspace))]
    return sorted(found, key=lambda item: (not item.running, item.kind, item.name))


def _is_settled(item: Unfinished, workspace: Workspace) -> bool:
    """Whether an import that refused lines was followed by one of the same name that went well."""
    name, refused_at = item.name.rpartition("-")[0], _changed_at(workspace.root / item.place / REJECTED)
    pools = load_snapshot(workspace).artifacts["pools"]
    return any(pool.name == name and pool.manifest.created_at > refused_at for pool in pools)


def _changed_at(path: Path) -> str:
    """When a file was last written, as manifests write times; the end of all times for one that is gone."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
    except OSError:
        return "9999"


def running_names(items: list[Unfinished]) -> set[str]:
    """Which artifacts are being made by a live process."""
    return {item.name for item in items if item.running}


def _unfinished(kind: Kind, folder: Path, root: Path) -> Unfinished:
    event = last_event(folder / "events.jsonl") or last_event(folder / "logs" / "events.jsonl") or {}
    return Unfinished(
        kind=kind,
        name=folder.name,
        running=is_held_lock(folder / ".lock"),
        done=_number(event.get("done")),
        total=_number(event.get("total")),
        unit=str(event.get("unit") or ""),
        eta_s=_number(event.get("eta_s")),
        place=folder.relative_to(root).as_posix(),
        is_refused=kind == "pools" and (folder / REJECTED).is_file(),
    )


def load_health(workspace: Workspace) -> Health:
    """Free space of the workspace's disk and the versions of the libraries that make results."""
    folder = next(path for path in (workspace.root, *workspace.root.parents) if path.exists())
    return Health(shutil.disk_usage(folder).free, _versions())


@st.cache_resource(show_spinner=False)
def _versions() -> dict[str, str]:
    return library_versions()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
