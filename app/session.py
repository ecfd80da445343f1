"""What a session of the dashboard looks at: the workspace that it was started for, and the scores that it chose."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from app import address
from app.loaders import Snapshot, load_snapshot
from app.scored import ScoredPool, load_scored
from app.visitors import exposure
from lark_engine.access import visitor
from lark_engine.results.commands import shell_line
from lark_engine.sharing.bundle_format import BundleRecord, read_record
from lark_engine.store.workspace import Artifact, Workspace

HOME_VARIABLE = "LARK_HOME"
_DEFAULT = Path(__file__).resolve().parents[1] / "cache"


class ScoredPair(NamedTuple):
    """A score set and the pool that it is of."""

    scores: Artifact
    pool: Artifact


def current_workspace() -> Workspace:
    """The workspace in `LARK_HOME` (set by `lark serve`), else the source tree's `cache`."""
    return Workspace(os.environ.get(HOME_VARIABLE) or _DEFAULT, memo_dir=exposure().memo_dir)


def current_bundle() -> BundleRecord | None:
    """What the bundle says of itself that this session looks at; None for a workspace of one's own."""
    return _bundle(str(current_workspace().root))


@st.cache_resource(max_entries=4, show_spinner=False)
def _bundle(root: str) -> BundleRecord | None:
    return read_record(Path(root))


def shown_root() -> Path:
    """Where the workspace lies; for who can run nothing on this machine, only its name."""
    root = current_workspace().root
    return Path(root.name) if visitor().why_not("launch") else root


def shell_command(command: str) -> str:
    """A command as it must be typed in the source tree to act on this session's workspace."""
    root = current_workspace().root
    if visitor().why_not("launch"):  # it is of use elsewhere only, where the workspace lies is nobody's business
        return command.replace(str(root), "WORKSPACE")
    return command if root == _DEFAULT else f"{HOME_VARIABLE}={shlex.quote(str(root))} {command}"


def shown_line(words: Sequence[str]) -> str:
    """The words of a command as one line; for who can run nothing here, without the place of the workspace."""
    line = shell_line(list(words))
    return line.replace(str(current_workspace().root), "WORKSPACE") if visitor().why_not("launch") else line


def scored_pairs(snapshot: Snapshot) -> dict[str, ScoredPair]:
    """Every score set whose pool is still there, by id, newest first."""
    pairs = {}
    for scores in snapshot.artifacts["scores"]:
        pool = snapshot.find(scores.manifest.inputs["pool"]) if "pool" in scores.manifest.inputs else None
        if pool is not None:
            pairs[scores.id] = ScoredPair(scores, pool)
    return pairs


def current_pair() -> ScoredPair | None:
    """What the address names, else the newest; None when nothing is scored."""
    pairs = scored_pairs(load_snapshot(current_workspace()))
    chosen = st.query_params.get(address.SCORES)
    return pairs.get(chosen or "") or next(iter(pairs.values()), None)


def current_scored() -> ScoredPool | None:
    """The scored pool that this session looks at. Errors: `LarkError` when its files are damaged."""
    pair = current_pair()
    return None if pair is None else load_scored(*pair)
