"""Checkpoints that a run is resumed from: which are whole, how many are kept, and whether another one fits."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from lark_engine.errors import StoreError
from lark_engine.store.atomic import write_text

COMPLETE = "COMPLETE"  # a file of this name says that the checkpoint was saved to its end


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run that were saved to their end, by step number."""
    return [path for path in _checkpoints(folder) if (path / COMPLETE).exists()]


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The resumable checkpoint with the highest step number that was saved to its end."""
    return max(complete_checkpoints(folder), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which it was saved."""
    return int(checkpoint.name.split("-")[1])


def remove_torn(folder: Path) -> None:
    """Remove checkpoints that a kill left unfinished, so that they neither count nor mix with new ones."""
    for path in _checkpoints(folder):
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)


def finish(checkpoint: Path, keep: int) -> None:
    """Mark a checkpoint as whole, then remove all but the newest `keep`. In this order: one is always there."""
    write_text(checkpoint / COMPLETE, "")
    for old in sorted(complete_checkpoints(checkpoint.parent), key=step_of)[:-keep]:
        # Without its mark first: a half-removed checkpoint must not be resumed from.
        (old / COMPLETE).unlink()
        shutil.rmtree(old)


def estimated_bytes(num_trained: int, *, deepspeed: bool) -> int:
    """Size of a checkpoint before the first is there: float32 weights and AdamW's two moments for each parameter.

    DeepSpeed saves the weights once more as its module, and once as they are updated.
    """
    return num_trained * (20 if deepspeed else 12)


def require_own_files(checkpoint: Path) -> None:
    """For state that is loaded as a pickle, which can run code: only what this user has written.

    Errors: `StoreError` for a file of another user, one that everybody may write, and a link.
    """
    for path in (checkpoint, *checkpoint.rglob("*")):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            what, remedy = "is a link", "put the file itself there"
        elif status.st_uid != os.getuid():
            what, remedy = "belongs to another user", "make it your own (chown)"
        elif status.st_mode & stat.S_IWOTH:
            what, remedy = "can be written by everybody", "take that away (chmod -R o-w)"
        else:
            continue
        raise StoreError(
            f"{path}: {what}, and DeepSpeed's state can run code when it is loaded; if you trust it, {remedy}, or "
            f"remove {checkpoint} to train from before it"
        )


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
