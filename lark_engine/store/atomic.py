"""Files that are either whole or not there: write to a temporary name beside the target, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lark_engine.errors import ConfigError, StoreError

# What `replacing` leaves when it is killed matches this.
PARTIAL = ".*.partial"
_SPARE_BYTES = 64 << 20


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a `StoreError` that names the place and the remedy."""
    try:
        yield
    except Exception as error:
        # Arrow, torch and safetensors say it in their own exceptions, some without an error number.
        number = error.errno if isinstance(error, OSError) else None
        if "No space left on device" in str(error):
            number = errno.ENOSPC
        remedies = {
            errno.ENOSPC: "the disk is full; free some space and run the same command again, it resumes",
            errno.EDQUOT: "the disk quota is used up; free some space and run the same command again, it resumes",
            errno.EACCES: "no permission; choose another place, or fix the permissions",
            errno.EPERM: "no permission; choose another place, or fix the permissions",
            errno.ELOOP: "is a link, which nothing is written through; put the file itself there, or remove it",
            errno.ENXIO: "is a pipe or a device, which nothing is written into; remove it",
            errno.EROFS: "the file system is read-only; choose another folder with --workspace",
        }
        if number not in remedies:
            raise
        raise StoreError(f"{getattr(error, 'filename', None) or path}: {remedies[number]}") from error


def make_dir(folder: Path) -> None:
    """Create a folder and its parents. Errors: `StoreError` when something is in the way or nothing may be made."""
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            raise StoreError(f"{folder}: cannot be made a folder ({error.strerror}); choose another place") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it is fsynced and renamed to `path`, else removed.

    Errors: `StoreError` when the disk is full or not writable. Two writers of the same path both succeed; the last
    rename wins and readers always see one whole file.
    """
    if path.is_dir():
        raise StoreError(f"{path}: is a folder; give the name of a file")
    make_dir(path.parent)
    with disk_errors(path):
        partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(path)
            fsync_dir(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def fsync_dir(folder: Path) -> None:
    """Make a rename inside `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """Errors: `StoreError` when the disk under `folder` has too little room left for `num_bytes` more."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes + _SPARE_BYTES:
        raise StoreError(
            f"{folder}: {what} needs {num_bytes / 1e9:.2f} GB, and the disk has {free / 1e9:.2f} GB left; free some "
            "and run the same command again: it resumes"
        )


def open_regular(path: Path, *, follow: bool = False) -> IO[bytes]:
    """Open a file for reading. Errors: `OSError` also for a pipe or a device, which could be read for ever, and for a
    link: in a folder that came from elsewhere it may lead to any file of this user's.

    `follow`: for a path that somebody has named, who may keep the file elsewhere.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return os.fdopen(file, "rb")


def open_in_place(path: Path, mode: str, encoding: str | None = None) -> IO[Any]:
    """Open a file of a workspace to write at its end or in it. Errors: `OSError` for a link, a pipe or a device: a
    workspace that came from elsewhere must not have us write over another file of this user's.
    """
    return open(path, mode, encoding=encoding, opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    file = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.ENXIO, "is no regular file", path)
    return file


def user_path(text: str) -> Path:
    """A path as people type it, `~` and all. Errors: `ConfigError` for what can be none on this machine."""
    try:
        path = Path(text).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{text[:120]}: cannot be a path on this machine ({error}); check it") from error
    return path


def existing_parent(path: Path) -> Path:
    """The nearest folder of a path that is there already."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def write_with(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write `path` atomically through a function that fills an open binary file."""
    with replacing(path) as partial, partial.open("wb") as file:
        write(file)
        file.flush()


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically."""
    write_with(path, lambda file: void(file.write(text.encode("utf-8"))))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically. Errors: `ValueError` for NaN and infinity, which are no JSON (null them first)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def void(_: object) -> None:
    """Drop a return value where a callback must return None."""
