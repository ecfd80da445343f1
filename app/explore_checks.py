"""The quality of a scored pool's candidates for Explore: counted once, and the texts read by another process."""

from __future__ import annotations

import contextlib
import os
import subprocess

import streamlit as st

from app.scored import ScoredPool, load_frame
from lark_engine.config import SelectConfig
from lark_engine.errors import StoreError
from lark_engine.explore.flags import flags_version, read_flags
from lark_engine.explore.quality import Check, check_quality
from lark_engine.explore.scan import TextScan, is_scanning, is_small, read_scan, scan_texts, start_scan
from lark_engine.store.workspace import Artifact, Workspace

_MOST_SCANS = 4


class Checks:
    """The quality of a pool's candidates, what these counts depend on, and whether the texts are still being read."""

    def __init__(self, found: dict[str, Check], version: str, is_waiting: bool):
        self.found = found
        self.version = version
        self.is_waiting = is_waiting


def load_checks(scored: ScoredPool, config: SelectConfig, workspace: Workspace) -> Checks:
    """All checks of the candidates; those that need the texts are unknown until these are read, which this starts."""
    scan = load_scan(scored, workspace)
    version = f"{scan is not None} {flags_version(scored.pool)}"
    edit = repr(sorted(config.pool_edit.items()))
    found = _checks(scored.version, f"{edit} {config.budget}", version, scored, config, scan)
    return Checks(found, version, scan is None)


@st.cache_resource(max_entries=8, show_spinner=False)
def _checks(
    version: str, config_key: str, checks_version: str, _scored: ScoredPool, _config: SelectConfig,
    _scan: TextScan | None,
) -> dict[str, Check]:  # fmt: skip
    return check_quality(load_frame(_scored, _config), _config, _scan, _flagged(_scored.pool))


def _flagged(pool: Artifact) -> set[tuple[str, int]] | str:
    """Who is flagged, or why that is not known: a damaged note takes nothing else away."""
    try:
        return {(key.problem_id, key.candidate_id) for key in read_flags(pool)}
    except StoreError as error:
        return str(error)


def load_scan(scored: ScoredPool, workspace: Workspace) -> TextScan | None:
    """What the texts say, at once if that is known or quick; else None, and a process reads them."""
    known = _scans().get(scored.version)
    if known is None:
        known = read_scan(scored.pool, workspace.memo_dir)
        # Where nothing can be written nothing can be remembered, and what another process could not do is tried here.
        at_once = is_small(scored.pool) or not os.access(workspace.root, os.W_OK) or _has_failed(scored)
        if known is None and at_once:
            known = read_scan(scored.pool, workspace.memo_dir) or scan_texts(scored.pool)
        if known is None:
            _start(scored, workspace)
        else:
            _forget_reader(scored)
            while len(_scans()) >= _MOST_SCANS:
                _scans().pop(next(iter(_scans())), None)
            _scans()[scored.version] = known
    return known


@st.cache_resource(show_spinner=False)
def _scans() -> dict[str, TextScan]:
    return {}


@st.cache_resource(show_spinner=False)
def _readers() -> dict[str, subprocess.Popen[bytes]]:
    return {}


def _start(scored: ScoredPool, workspace: Workspace) -> None:
    """Start the reader of a pool's texts, once."""
    if scored.version not in _readers() and not is_scanning(scored.pool, workspace.memo_dir):
        _readers()[scored.version] = start_scan(scored.pool, workspace.memo_dir)


def _has_failed(scored: ScoredPool) -> bool:
    """Whether a reader was started and has ended; to ask also leaves no zombie."""
    reader = _readers().get(scored.version)
    return reader is not None and reader.poll() is not None


def _forget_reader(scored: ScoredPool) -> None:
    """Take note of the end of a reader that has done its work, so that no zombie stays."""
    reader = _readers().pop(scored.version, None)
    if reader is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(timeout=2)
