"""Scored pools of the workspace, kept for all sessions: `ScoredPool` is read once."""

from __future__ import annotations

import streamlit as st

from lark_engine.config import SelectConfig
from lark_engine.figures.scored import ScoredPool as ScoredPool
from lark_engine.figures.scored import read_scored
from lark_engine.selection.frame import SelectionFrame
from lark_engine.store.workspace import Artifact


def load_scored(scores: Artifact, pool: Artifact) -> ScoredPool:
    """The scored pool of two artifacts. Errors: `StoreError`, `PoolError` when a file is damaged or does not fit."""
    return _scored(scores.path.as_posix(), scores.fingerprint, pool.fingerprint, scores, pool)


@st.cache_resource(max_entries=3, show_spinner="Reading the scores…")
def _scored(path: str, fingerprint: str, pool_fingerprint: str, _scores: Artifact, _pool: Artifact) -> ScoredPool:
    return read_scored(_scores, _pool)


def load_frame(scored: ScoredPool, config: SelectConfig) -> SelectionFrame:
    """The engine's frame of the config's pool edit and energy, sorted once; `.solve(config)` gives the weights.

    Errors: `ConfigError` when the pool or the scores lack what a gate or the energy needs.
    """
    return _frame(scored.version, repr(sorted(config.pool_edit.items())), scored, config)


@st.cache_resource(max_entries=8, show_spinner=False)
def _frame(version: str, pool_edit: str, _scored: ScoredPool, _config: SelectConfig) -> SelectionFrame:
    return SelectionFrame(_scored.candidates, _config)
