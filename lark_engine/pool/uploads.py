"""Files that came through the browser: kept in the workspace under a name of ours, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import IO

from lark_engine import access
from lark_engine.errors import PoolError
from lark_engine.pool.sources import SUFFIXES
from lark_engine.store.atomic import replacing
from lark_engine.store.fingerprint import hash_file
from lark_engine.store.lock import lock
from lark_engine.store.workspace import Workspace, slug

# What a browser's file dialog offers: the last part of every name that an import reads as a file.
UPLOAD_TYPES = tuple(dict.fromkeys(suffix.rpartition(".")[2] for suffix in SUFFIXES))
_CHUNK = 1 << 20


def keep_upload(file: IO[bytes], name: str, workspace: Workspace) -> Path:
    """Write an uploaded file to `<workspace>/uploads/` and return where it is; the same one again is found there.

    `name` is what the browser says, which may be anything: only its last part counts, made a safe file name. A file of
    that name with another content keeps it, and this one gets a suffix from the hash of its content. Errors:
    `PoolError` for a name that does not end like a file that can be imported, or an empty file; `StoreError`.
    """
    access.require("launch")
    stem, suffix = _safe_name(name)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    if not file.tell():
        raise PoolError(f"{stem}{suffix}: the uploaded file is empty; choose the file that holds the pool")
    named = f"{stem}{suffix}"
    with access.action(workspace.root, "launch", "upload.keep", file=named), lock(workspace.uploads_dir):
        path = workspace.uploads_dir / f"{stem}{suffix}"
        if path.exists() and not _holds(path, digest.hexdigest()):
            path = path.with_name(f"{stem}-{digest.hexdigest()[:12]}{suffix}")
        if path.exists():
            os.utime(path)  # it is wanted again: what cleans by age begins to count anew
        else:
            file.seek(0)
            with replacing(path) as partial, partial.open("wb") as target:
                while chunk := file.read(_CHUNK):
                    target.write(chunk)
    return path


def _holds(path: Path, content: str) -> bool:
    return path.is_file() and hash_file(path) == content


def _safe_name(name: str) -> tuple[str, str]:
    """The last part of a name as a safe stem and the ending that says what it is. Errors: `PoolError`."""
    last = re.split(r"[/\\]", name)[-1]
    suffix = next((s for s in SUFFIXES if last.lower().endswith(s)), None)
    if suffix is None:
        kinds = ", ".join(f".{kind}" for kind in UPLOAD_TYPES)
        raise PoolError(f"{slug(last)}: no file of a pool by its name; give one of {kinds}")
    return slug(last[: -len(suffix)]), suffix
