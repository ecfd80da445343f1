"""One process at a time: folders that are locked while something is made in them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from lark_engine.store.atomic import disk_errors, make_dir, open_in_place, open_regular

log = logging.getLogger(__name__)

_LOCK = ".lock"


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """An exclusive lock on a folder, made if need be, that the operating system frees when its holder dies.

    Errors: `StoreError` for a lock that is a link, or where none can be made.
    """
    while True:
        make_dir(folder)
        try:
            with disk_errors(folder / _LOCK):
                file = open_in_place(folder / _LOCK, "a+")
        except FileNotFoundError:
            continue  # the folder was removed before we could look into it
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                log.warning("%s is being made by %s; waiting for it", folder, holder)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file.fileno(), folder / _LOCK):
                continue  # the folder was removed while we waited, and may be there anew by now
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            yield
            return


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one that lies at this path now."""
    try:
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    ours = os.fstat(file)
    return (ours.st_ino, ours.st_dev) == (there.st_ino, there.st_dev)


def is_held_lock(path: Path) -> bool:
    """Whether a live process holds this lock, or it cannot be known; the probe is released at once."""
    try:
        with open_regular(path, follow=True) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError:
        return True
