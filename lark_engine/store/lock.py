"""One process at a time: folders that are locked while something is made in them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from lark_engine.store.atomic import make_dir

log = logging.getLogger(__name__)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """An exclusive lock on a folder, made if need be, that the operating system frees when its holder dies."""
    make_dir(folder)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            log.warning("%s is being made by %s; waiting for it", folder, file.read().strip() or "another process")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
