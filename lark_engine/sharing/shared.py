"""Files that were made to be handed on, reports and bundles: `<workspace>/shared/`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lark_engine.access import action
from lark_engine.errors import StoreError
from lark_engine.store.workspace import Workspace

SHARED = "shared"


class SharedFile(NamedTuple):
    """A file to be handed on; `modified_at` in seconds since 1970."""

    name: str
    path: Path
    num_bytes: int
    modified_at: float


def shared_dir(workspace: Workspace) -> Path:
    """Where reports and bundles go unless another place is named."""
    return workspace.root / SHARED


def shared_files(workspace: Workspace) -> list[SharedFile]:
    """All of them, newest first; links, folders and hidden files are none."""
    found = []
    folder = shared_dir(workspace)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink() or not path.is_file() or path.name.startswith("."):
            continue
        stat = path.stat()
        found.append(SharedFile(path.name, path, stat.st_size, stat.st_mtime))
    return sorted(found, key=lambda file: (-file.modified_at, file.name))


def find_shared(workspace: Workspace, name: str) -> SharedFile | None:
    """The file of this name; None for anything that is not in the list."""
    return next((file for file in shared_files(workspace) if file.name == name), None)


def remove_shared(workspace: Workspace, name: str) -> None:
    """Remove one. Errors: `StoreError` when there is none of this name; `AccessError`."""
    with action(workspace.root, "delete", "shared.remove", name=name):
        found = find_shared(workspace, name)
        if found is None:
            raise StoreError(f"no file '{name}' in {shared_dir(workspace)}; it may have been removed already")
        found.path.unlink()
