"""Which saved state a training run takes up again."""

from __future__ import annotations

from pathlib import Path

COMPLETE = "COMPLETE"  # a file of this name says that the checkpoint was saved to its end


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The resumable checkpoint with the highest step number that was saved to its end."""
    found = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE).exists() and p.name.split("-")[1].isdigit()]
    return max(found, key=lambda p: int(p.name.split("-")[1]), default=None)
