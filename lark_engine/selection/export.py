"""train.jsonl in the released format: the texts of the kept trajectories with their weights, streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lark_engine.config import SelectConfig
from lark_engine.pool.dataset import PoolData
from lark_engine.records import IdType, public_id
from lark_engine.store.atomic import replacing
from lark_engine.store.workspace import Artifact


def write_train_file(path: Path, kept: pd.DataFrame, pool: Artifact, config: SelectConfig, id_type: IdType) -> None:
    """Write the kept rows in the pool's order. `train_weight` is selection_prob: it sums to 1 over a problem."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for line in _lines(kept.sort_values("row"), pool, config, id_type):
            file.write(line)


def _lines(kept: pd.DataFrame, pool: Artifact, config: SelectConfig, id_type: IdType) -> Iterator[str]:
    trajectories = PoolData(pool).trajectories(kept["row"].tolist())
    columns = kept[["energy", "rank", "selection_prob"]].itertuples(index=False, name=None)
    for trajectory, (energy, rank, prob) in zip(trajectories, columns, strict=True):
        meta = {
            "problem_id": public_id(trajectory.problem_id, id_type),
            "candidate_id": trajectory.candidate_id,
            "teacher": trajectory.teacher,
            "B": config.budget if config.has_budget else None,
            "score": None if pd.isna(energy) else float(energy),
            "train_weight": float(prob),
            "rank": int(rank),
            "rule": config.rule,
            "energy": config.energy,
        }
        yield json.dumps({"messages": trajectory.messages, "meta": meta}, ensure_ascii=False) + "\n"
