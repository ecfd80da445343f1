"""Housekeeping, the disk: a survey of what lies in a workspace, and the loop that removes what `retention` has chosen.

A folder goes in two steps. Under its own locks it is renamed to `<workspace>/.trash-<random>`, which nothing takes for
an artifact; then it is deleted there. A kill in between leaves the trash, which the next survey finds. Nothing is
written meanwhile, so that a full disk does not keep its own remedy from running.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from lark_engine import access
from lark_engine.store.atomic import PARTIAL, disk_errors
from lark_engine.store.lock import is_held_lock
from lark_engine.store.retention import Blocks, Entry, Folder, JobRecord, Removal, Survey
from lark_engine.store.workspace import KINDS, MANIFEST, SCHEMA_VERSION, Kind, Manifest, Workspace, read_artifact

TRASH = ".trash-"
_ANY_LOCK = ".*lock"
_NOTES = ("disputes.jsonl", "flags.jsonl")  # of people, and nowhere else
# Beside PARTIAL files: a stage's own scratch. Only of these kinds is `resume/` scratch.
_SCRATCH = ("parts", "token_stats/.tokens-*")
_RESUMED: tuple[Kind, ...] = ("checkpoints", "pools")


class Cleaned(NamedTuple):
    """What is gone, and a sentence for each thing that was left and each that could not be removed."""

    removed: list[Removal]
    left: list[str]
    failures: list[str]


class _Left(Exception):
    """Why something stays after all."""


def survey(
    workspace: Workspace, jobs: Sequence[JobRecord] = (), *, shown: Iterable[str] = (), now: float | None = None
) -> Survey:  # fmt: skip
    """All that a cleaning could be of. `shown`: names that saved views show; `now`: seconds since 1970, if not the
    clock's.

    Errors: `StoreError` for a folder that may not be listed: what is in it could need anything.
    """
    root = workspace.root
    places: list[tuple[Kind, Path]] = [
        (kind, path) for kind in KINDS if kind not in ("evals", "grades") for path in _subfolders(root / kind)
    ]
    evals = [path for model in _subfolders(root / "evals") for path in _subfolders(model)]
    places += [("evals", path) for path in evals]
    places += [("grades", path) for e in evals if _is_open(e) for path in _subfolders(e / "grades")]
    return Survey(
        root=root,
        now=time.time() if now is None else now,
        folders=tuple(folder for kind, path in places if (folder := _folder(root, kind, path)) is not None),
        jobs=tuple((job, measure(root, job.path)) for job in jobs if job.path.is_dir()),
        trash=tuple(measure(root, path) for path in sorted(root.glob(f"{TRASH}*"))),
        memo=measure(root, workspace.memo_dir) if workspace.memo_dir.is_dir() else None,
        uploads=tuple(measure(root, path) for path in _uploads(workspace)),
        shown=frozenset(shown),
    )


def _subfolders(folder: Path) -> list[Path]:
    with disk_errors(folder):
        try:
            return sorted(path for path in folder.iterdir() if path.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def _uploads(workspace: Workspace) -> list[Path]:
    with disk_errors(workspace.uploads_dir):
        try:
            return sorted(p for p in workspace.uploads_dir.iterdir() if p.is_file() and not p.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []


def _is_open(folder: Path) -> bool:
    """Whether this user may see what is in a folder."""
    return os.access(folder, os.R_OK | os.X_OK)


def _folder(root: Path, kind: Kind, path: Path) -> Folder | None:
    """An artifact's folder as it is; None for a folder that no stage of ours has made."""
    if not _is_open(path):
        return Folder(path=path, changed_at=math.inf, kind=kind, state="damaged")
    artifact = read_artifact(path)
    entry = measure(root, path)
    shared: dict[str, Any] = {**vars(entry), "kind": kind, "has_notes": any((path / name).exists() for name in _NOTES)}
    if artifact is not None and artifact.kind == kind:
        leftovers = tuple(measure(root, left) for left in _leftovers(kind, path))
        return Folder(**shared, state="finished", manifest=artifact.manifest, leftovers=leftovers)
    if os.path.lexists(path / MANIFEST):
        return Folder(**shared, state="damaged", manifest=_readable(path / MANIFEST))
    return Folder(**shared, state="unfinished") if (path / ".lock").exists() else None


def _readable(path: Path) -> Manifest | None:
    """A damaged artifact's manifest, if that itself is sound and of a version that is known."""
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, ValueError):
        return None
    return manifest if manifest.schema_version <= SCHEMA_VERSION else None


def _leftovers(kind: Kind, folder: Path) -> list[Path]:
    patterns = (*_SCRATCH, *(("resume",) if kind in _RESUMED else ()))
    found = [path for pattern in patterns for path in folder.glob(pattern) if path.is_dir() and not path.is_symlink()]
    partial = [path for path in folder.rglob(PARTIAL) if path.is_file() and not path.is_symlink()]
    # Grades in an evaluation are artifacts of their own.
    return found + [path for path in partial if path.relative_to(folder).parts[0] != "grades"]


def measure(root: Path, path: Path) -> Entry:
    """How old and how big a file or folder is, and whether a process holds a lock in it. Never fails."""
    blocks: dict[tuple[int, int], Blocks] = {}
    errors: list[OSError] = []
    times: list[float] = []
    is_held = False
    for file in _all_in(path, errors):
        try:
            status = file.stat(follow_symlinks=file == path)
        except OSError as error:
            errors.append(error)
            continue
        inode = (status.st_dev, status.st_ino)
        if stat.S_ISDIR(status.st_mode):
            blocks[inode] = Blocks(num_bytes=status.st_blocks * 512, names=1, names_here=1)
            continue
        names_here = blocks[inode].names_here + 1 if inode in blocks else 1
        blocks[inode] = Blocks(num_bytes=status.st_blocks * 512, names=status.st_nlink, names_here=names_here)
        times.append(status.st_mtime)
        is_held = is_held or (stat.S_ISREG(status.st_mode) and file.match(_ANY_LOCK) and is_held_lock(file))
    if not times:
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    is_whole = all(isinstance(error, FileNotFoundError) for error in errors)
    changed_at = max(times) if times and is_whole else math.inf
    return Entry(
        path=path, changed_at=changed_at, blocks=blocks, is_held=is_held, link_to=_link_to(root, path),
        is_folder=path.is_dir(),
    )  # fmt: skip


def _all_in(path: Path, errors: list[OSError]) -> Iterator[Path]:
    """A file or a folder, and all that is in it; links in it are not followed."""
    yield path
    for folder, subfolders, files in os.walk(path, onerror=errors.append) if path.is_dir() else ():
        yield from (Path(folder, name) for name in (*subfolders, *files))


def _link_to(root: Path, path: Path) -> Path | None:
    """Where a path of the workspace really is, if not there."""
    real = path.resolve()
    return None if real == root.resolve() / path.relative_to(root) else real


def remove(workspace: Workspace, removals: Sequence[Removal]) -> Cleaned:
    """Remove what a plan holds; what cannot be removed stops nothing else.

    A thing is left when it is a link, when somebody holds a lock in it, when it changed since it was planned, and when
    something that stays needs it. Two cleanings at once do no harm: what the one has taken is gone for the other.
    """
    with access.action(workspace.root, "delete", "workspace.clean", num_things=len(removals)):
        return _remove(workspace.root, removals)


def _remove(root: Path, removals: Sequence[Removal]) -> Cleaned:
    done, moved = Cleaned([], [], []), []
    needed: set[Path] = set()
    name = f"{TRASH}{secrets.token_hex(4)}"
    # All renames first: what somebody begins to need during a long deletion is then there, or gone as a whole.
    for number, removal in enumerate(removals):
        try:
            if removal.path in needed:
                raise _Left("is needed by what was left")
            moved.append((removal, _set_aside(root, removal, root / f"{name}-{number}")))
            continue
        except _Left as why:
            done.left.append(f"{removal.path}: {why}")
        except OSError as error:
            done.failures.append(f"{removal.path}: {_remedy(error)}")
        needed.update(removal.needs)
    for removal, path in moved:
        if (refusal := _delete(path)) is None:
            done.removed.append(removal)
        elif path == removal.path:
            done.failures.append(f"{path}: {_remedy(refusal)}")
        else:
            done.failures.append(f"{removal.path}: is {path.name} now, and not all of it could go: {_remedy(refusal)}")
    return done


def _set_aside(root: Path, removal: Removal, target: Path) -> Path:
    """Where what is to be deleted lies now. Errors: `_Left`, `OSError`."""
    path = removal.path
    if (real := removal.entry.link_to or _link_to(root, path)) is not None:
        raise _Left(f"is a link to {real}; remove it yourself")
    if removal.waste == "trash":
        return path
    with contextlib.ExitStack() as locks:
        # The locks of subfolders too: token statistics, disputes and grades are made under locks of their own.
        for lock in removal.guarded_by.rglob(_ANY_LOCK):
            if lock.is_symlink() or not lock.is_file():
                continue
            file = locks.enter_context(lock.open("rb+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _Left("something works on it now") from None
        if not os.path.lexists(path):
            raise _Left("is gone already")
        if removal.waste != "memo" and measure(root, path).changed_at != removal.entry.changed_at:
            raise _Left("has changed since it was listed")
        path.rename(target)
    return target


def _delete(path: Path) -> OSError | None:
    """Delete a file or a folder, as much of it as can be; returns the first error. Links are not followed."""
    errors: list[OSError] = []

    def note(_function: object, _path: str, raised: tuple[type, BaseException, object]) -> None:
        assert isinstance(raised[1], OSError)
        errors.append(raised[1])

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=note)
    else:
        try:
            path.unlink()
        except OSError as error:
            errors.append(error)
    return next((error for error in errors if not isinstance(error, FileNotFoundError)), None)


def _remedy(error: OSError) -> str:
    """What the operating system refused, and what to do about it."""
    if error.errno == errno.EXDEV:
        return "is on another disk than the workspace; remove it yourself"
    where = f" ({error.filename})" if error.filename else ""
    return f"{(error.strerror or 'refused').lower()}{where}; mend that and clean again"
