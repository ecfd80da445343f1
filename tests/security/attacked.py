"""What is attacked: a workspace with something worth stealing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from benchmarks.scored_pool import make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.selection.select import select
from lark_engine.store.workspace import Artifact, Workspace

SECRET = "the-launch-code-is-0000"


class Served(NamedTuple):
    """A running server: its address, what it shows, a file beside the workspace that it must not show."""

    address: str
    workspace: Workspace
    selection: Artifact
    secret: Path


def make_workspace(folder: Path) -> tuple[Workspace, Artifact, Path]:
    """A small scored pool with a saved selection, and a secret outside of the workspace in every readable format."""
    workspace = Workspace(folder / "workspace")
    made = make_scored_pool(workspace, num_problems=8, num_candidates=4)
    selection = select(SelectConfig(budget=2), workspace, made.scores, made.pool)
    secret = folder / "outside"
    secret.mkdir()
    row = '{"prompt": "' + SECRET + '", "answer": "1", "messages": [{"role": "user", "content": "' + SECRET + '"}]}'
    for name in ("secret.txt", "secret.yaml", "secret.jsonl", "secret.json", "train.jsonl", "manifest.json"):
        (secret / name).write_text(f"{SECRET}: 1\n" if name.endswith((".txt", ".yaml")) else row + "\n")
    return workspace, selection, secret
