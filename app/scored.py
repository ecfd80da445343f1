"""Scored pools in memory: read once for all sessions, never copied, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import streamlit as st

from lark_engine.config import SelectConfig
from lark_engine.errors import StoreError
from lark_engine.figures.palette import slots
from lark_engine.pool.dataset import PoolData
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.select import candidate_table
from lark_engine.store.workspace import Artifact


@dataclass(frozen=True, eq=False)
class ScoredPool:
    """A score set with its pool. `version` names the pair in the keys of caches; `slots`: teacher → color slot."""

    scores: Artifact
    pool: Artifact
    candidates: Candidates
    slots: dict[str, int]

    @property
    def version(self) -> str:
        return f"{self.scores.path}|{self.scores.fingerprint}|{self.pool.fingerprint}"

    @cached_property
    def data(self) -> PoolData:
        """The texts, by row of the pool."""
        return PoolData(self.pool)

    @cached_property
    def problem_ids(self) -> pd.Index:
        """The problem of each of the N rows of the matrices."""
        return pd.Index(self.candidates.table["problem_id"].unique())


def load_scored(scores: Artifact, pool: Artifact) -> ScoredPool:
    """The scored pool of two artifacts. Errors: `StoreError`, `PoolError` when a file is damaged or does not fit."""
    return _scored(scores.path.as_posix(), scores.fingerprint, pool.fingerprint, scores, pool)


@st.cache_resource(max_entries=3, show_spinner="Reading the scores…")
def _scored(path: str, fingerprint: str, pool_fingerprint: str, _scores: Artifact, _pool: Artifact) -> ScoredPool:
    candidates = Candidates(candidate_table(_scores, _pool))
    if not candidates.table.shape[0]:
        raise StoreError(f"{_scores.id} holds no scored candidate; score the pool again")
    return ScoredPool(_scores, _pool, candidates, slots(candidates.teachers))


def load_frame(scored: ScoredPool, config: SelectConfig) -> SelectionFrame:
    """The engine's frame of the config's pool edit and energy, sorted once; `.solve(config)` gives the weights.

    Errors: `ConfigError` when the pool or the scores lack what a gate or the energy needs.
    """
    return _frame(scored.version, repr(sorted(config.pool_edit.items())), scored, config)


@st.cache_resource(max_entries=8, show_spinner=False)
def _frame(version: str, pool_edit: str, _scored: ScoredPool, _config: SelectConfig) -> SelectionFrame:
    return SelectionFrame(_scored.candidates, _config)
