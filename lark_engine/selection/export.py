"""train.jsonl: the texts of the kept trajectories with their weights, streamed; one trajectory in memory at a time.

The artifact's own file has the released format, `messages`. `prompt-completion` is the conversational format of TRL:
the prompt's messages, and the one assistant message that is trained on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lark_engine.config import SelectConfig, TrainFormat
from lark_engine.pool.dataset import PoolData
from lark_engine.records import IdType, public_id
from lark_engine.store.atomic import replacing
from lark_engine.store.workspace import Artifact


def write_train_file(path: Path, kept: pd.DataFrame, pool: Artifact, config: SelectConfig, id_type: IdType) -> None:
    """Write the kept rows in the pool's order. `train_weight` is selection_prob: it sums to 1 over a problem."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(_lines(kept.sort_values("row"), pool, config, id_type))


def export(train_file: Path, path: Path, train_format: TrainFormat = "messages") -> None:
    """Write a selection's train.jsonl to a place and in a format of the user's choice.

    Lines are {"messages": […], "meta": {…}}, or {"prompt": […], "completion": [one assistant message], "meta": {…}}.
    Errors: `StoreError` when the place cannot be written.
    """
    with replacing(path) as partial:
        if train_format == "messages":
            shutil.copyfile(train_file, partial)
            return
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(as_prompt_completion(train_file))


def as_prompt_completion(train_file: Path) -> Iterator[str]:
    """The lines of a selection's train.jsonl in the format `prompt-completion`, one at a time."""
    with train_file.open(encoding="utf-8", newline="\n") as lines:
        yield from map(_prompt_completion, lines)


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


def _prompt_completion(line: str) -> str:
    row = json.loads(line)
    *prompt, completion = row["messages"]
    return json.dumps({"prompt": prompt, "completion": [completion], "meta": row["meta"]}, ensure_ascii=False) + "\n"
