"""Checkpoints as members of a sweep, and the results table with one row for each arm instead of each run."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from lark_engine.evaluation.metrics import t_interval
from lark_engine.store.workspace import Workspace

_OF_A_RUN = ("grade_id", "generation_id", "checkpoint_id", "seed", "created_at", "num_truncated", "selection_id")
_GROUP = ["sweep", "arm", "benchmark", "level", "subject", "metric", "n_samples"]


class Member(NamedTuple):
    """What a checkpoint is in its sweep."""

    sweep: str
    arm: str
    seed: int


def members(workspace: Workspace) -> dict[str, Member]:
    """Checkpoint id → its place in the newest sweep that has it."""
    found: dict[str, Member] = {}
    for sweep in reversed(workspace.list("sweeps")):
        for role, ref in sweep.manifest.inputs.items():
            if ref.kind == "checkpoints":
                arm, _, seed = role.rpartition("-")
                found[ref.id] = Member(sweep.id, arm, int(seed))
    return found


def by_arm(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the runs of an arm as one row: the mean over seeds, with its 95 % interval over seeds.

    Rows that belong to no sweep stay as they are. A mean of one seed has no interval, whatever that of the run is.
    """
    swept = table["sweep"].notna()
    rows = []
    for _, runs in table[swept].groupby(_GROUP, dropna=False, sort=False):
        values = runs["value"].dropna().tolist()
        low, high = t_interval(values) or (None, None)
        row = runs.iloc[0].to_dict() | dict.fromkeys(_OF_A_RUN)
        row |= {"value": sum(values) / len(values) if values else None, "low": low, "high": high}
        rows.append(row | {"model": f"{row['sweep']}: {row['arm']}, {len(runs)} seeds", "recipe": None})
    merged = pd.DataFrame(rows, columns=table.columns).astype(table.dtypes.to_dict())
    return pd.concat([table[~swept], merged], ignore_index=True)
