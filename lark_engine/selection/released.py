"""Score files of the released code (`lark_ghat.json`): read into the workspace, so that selection meets one format."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lark_engine.errors import PoolError
from lark_engine.scoring.criteria import derived_columns
from lark_engine.scoring.matrix import layout
from lark_engine.scoring.parts import SCORES
from lark_engine.scoring.table import METHOD, released_scores
from lark_engine.store.atomic import replacing
from lark_engine.store.fingerprint import fingerprint, hash_file
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_json

_ABSENT = ("entropy", "mean_rank", "num_response_tokens", "num_prompt_tokens")


def import_scores(path: Path, workspace: Workspace, pool: Artifact) -> Artifact:
    """A released score file as a score artifact of `pool`; what the file does not hold (RSR, tokens) is null.

    Errors: `PoolError` with problem, candidate and field when the file is not in the released format.
    """
    content = hash_file(path, workspace.memo_dir) if path.is_file() else ""
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("scores"), dict):
        raise PoolError(f"{path}: no 'scores' object; expected a score file as `lark score --output` writes it")
    plan = Plan(
        kind="scores",
        name=f"{pool.manifest.name}@released",
        fingerprint=fingerprint({"file": content, "pool": pool.manifest.fingerprint}),
        config={
            "student": str(values.get("student_model")), "top_k": values.get("top_k"),
            "brier": values.get("brier", "top_k"), "method": values.get("method", METHOD),
        },
        inputs={"pool": pool.ref},
        identity={"file": content},
    )  # fmt: skip

    def make(draft: Draft) -> None:
        table = _table(path, values["scores"])
        with replacing(draft.path / SCORES) as partial:
            table.to_parquet(partial, index=False)
        draft.counts = {"num_problems": int(table["problem_id"].nunique()), "num_trajectories": len(table)}
        draft.metrics = {"id_type": pool.manifest.metrics["id_type"], "num_not_finite": int(table["reason"].count())}

    return workspace.build(plan, make)


def find_exported(path: Path, workspace: Workspace) -> Artifact | None:
    """The scores that `lark score --output` wrote to this file, if they are in the workspace and unchanged."""
    values = read_json(path)
    name = values.get("lark_scores") if isinstance(values, dict) else None
    found = [a for a in workspace.list("scores") if a.id == name]
    return found[0] if found and released_scores(found[0]) == values else None


def _table(path: Path, scores: dict[str, Any]) -> pd.DataFrame:
    rows = []
    for problem_id, candidates in scores.items():
        if not isinstance(candidates, list):
            raise PoolError(f"{path}: problem {problem_id}: expected a list of candidates")
        for position, candidate in enumerate(candidates):
            place = f"{path}: problem {problem_id}, entry {position}"
            rows.append({"problem_id": str(problem_id), **_candidate(place, candidate)})
    table = pd.DataFrame(rows, columns=["problem_id", "candidate_id", "teacher", "nll", "brier"])
    twice = table[table.duplicated(["problem_id", "candidate_id"])]
    if len(twice):
        raise PoolError(
            f"{path}: candidate {twice.iloc[0].candidate_id} of problem {twice.iloc[0].problem_id} is twice"
        )
    nll, brier = table["nll"].to_numpy(float), table["brier"].to_numpy(float)
    derived = derived_columns({"nll": nll, "brier": brier}, layout(table["problem_id"]))
    table = table.assign(
        **derived, **dict.fromkeys(_ABSENT, np.nan), truncated=pd.array([None] * len(table), dtype="boolean")
    )
    lost = ~(np.isfinite(nll) & np.isfinite(brier))
    table["reason"] = pd.Series("not_finite", index=table.index, dtype="string").where(lost)
    return table


def _candidate(place: str, candidate: Any) -> dict[str, Any]:
    if not isinstance(candidate, dict) or not isinstance(candidate.get("candidate_id"), int):
        raise PoolError(f"{place}: needs an integer 'candidate_id'")
    values = {}
    for ours, theirs in (("nll", "L"), ("brier", "Brier")):
        value = candidate.get(theirs)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise PoolError(f"{place}: '{theirs}' must be a number, found {value!r}")
        values[ours] = float(value) if value is not None and math.isfinite(value) else float("nan")
    return {"candidate_id": candidate["candidate_id"], "teacher": str(candidate.get("teacher", "")), **values}
