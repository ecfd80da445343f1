"""A scored pool in memory, as figures take it: read once, never copied, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from lark_engine.errors import StoreError
from lark_engine.figures.palette import slots
from lark_engine.pool.dataset import PoolData
from lark_engine.selection.candidates import Candidates
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


def read_scored(scores: Artifact, pool: Artifact) -> ScoredPool:
    """The scored pool of two artifacts. Errors: `StoreError`, `PoolError` when a file is damaged or does not fit."""
    candidates = Candidates(candidate_table(scores, pool))
    if not candidates.table.shape[0]:
        raise StoreError(f"{scores.id} holds no scored candidate; score the pool again")
    return ScoredPool(scores, pool, candidates, slots(candidates.teachers))
