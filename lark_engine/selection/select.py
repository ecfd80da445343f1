"""The selection stage: scores become a weighted training set, by one rule, with every drop counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError, PoolError
from lark_engine.pool.dataset import PoolData
from lark_engine.scoring.score import read_scores
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.export import write_train_file
from lark_engine.selection.rules import Weighted, apply_gates, energies, solve
from lark_engine.store.atomic import replacing
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_table

SELECTION = "selection.parquet"
TRAIN = "train.jsonl"
# To be raised when a change of the code changes selections of the same options and inputs.
VERSION = 1


def plan_select(config: SelectConfig, scores: Artifact | Plan, pool: Artifact | Plan) -> Plan:
    """What the selection would be."""
    identity = {"scores": scores.fingerprint, "pool": pool.fingerprint, "version": VERSION}
    resolved = config.identity()
    return Plan(
        kind="selections",
        name=rule_name(config),
        fingerprint=fingerprint({"config": resolved, **identity}),
        config=resolved,
        inputs={"scores": scores.ref, "pool": pool.ref},
        seed=config.seed if config.energy == "random" else None,
    )


def rule_name(config: SelectConfig) -> str:
    """A short name that says the rule, its strength and any other energy than g_hat: `chi2-b3`, `top_b-b3-random`."""
    strength = {
        "budget": f"b{config.budget}",
        "sharpness": f"b{config.budget}-s{config.sharpness:g}",
        "temperature": f"tau{config.tau:g}" if config.tau else "",
    }[config.mode if config.rule == "chi2" else "budget"]
    parts = [config.rule, "" if config.rule == "all" else strength]
    energy = config.energy.replace("+", "high_").replace("-", "low_")
    return "-".join([*filter(None, parts), *([] if energy == "g_hat" else [energy])])


def select(config: SelectConfig, workspace: Workspace, scores: Artifact, pool: Artifact) -> Artifact:
    """Select from scored candidates. Writes selection.parquet (one row a kept candidate) and train.jsonl.

    Errors: `ConfigError` when nothing is left after the gates, or when an option needs what the pool or the scores
    lack; `PoolError` when the scores are not of this pool.
    """
    plan = plan_select(config, scores, pool)
    return workspace.build(plan, lambda draft: _make(draft, config, scores, pool))


def candidate_table(scores: Artifact, pool: Artifact) -> pd.DataFrame:
    """Scores joined with what the pool knows of each candidate (is_correct, response_hash, its row in the pool).

    Errors: `PoolError` when a scored candidate is not in the pool.
    """
    index = PoolData(pool).index()[["problem_id", "candidate_id", "teacher", "is_correct", "response_hash"]]
    index = index.assign(row=np.arange(len(index)))
    table = (
        read_scores(scores)
        .drop(columns="teacher")
        .merge(index, on=["problem_id", "candidate_id"], how="left", validate="one_to_one")
    )
    lost = table[table["row"].isna()]
    if len(lost):
        first = lost.iloc[0]
        raise PoolError(
            f"{len(lost)} scored candidates are not in pool {pool.id}, first candidate {first['candidate_id']} of "
            f"problem {first['problem_id']}; give the pool that was scored with --pool"
        )
    return table.astype({"row": "int64"})


def _make(draft: Draft, config: SelectConfig, scores: Artifact, pool: Artifact) -> None:
    candidates = candidate_table(scores, pool)
    not_scored = PoolData(pool).num_trajectories - len(candidates)
    table, drops = apply_gates(candidates, config)
    drops = {**({"not_scored": not_scored} if not_scored else {}), **drops}
    if table.empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in drops.items())
        raise ConfigError(f"no candidate is left to select from ({reasons or 'the scores are empty'}); relax the gates")
    energy = energies(table, config)
    weighted = solve(table, energy, config)
    draft.metrics = diagnose(table, weighted)
    kept = _kept_rows(table, energy, weighted, config)
    if kept.empty:
        raise ConfigError("no candidate has a valid energy, so nothing can be selected; score the pool again")
    with replacing(draft.path / SELECTION) as partial:
        kept.to_parquet(partial, index=False)
    id_type = PoolData(pool).id_type
    write_train_file(draft.path / TRAIN, kept, pool, config, id_type)
    draft.drops = {**drops, **_solver_drops(weighted)}
    draft.counts = {
        "num_problems": int(kept["problem_id"].nunique()),
        "num_trajectories": len(kept),
        "num_candidates": len(table),
        **_edge_counts(weighted, config),
    }
    draft.tokens = draft.metrics["response_tokens"]
    draft.metrics["id_type"] = id_type


def _kept_rows(table: pd.DataFrame, energy: Any, weighted: Weighted, config: SelectConfig) -> pd.DataFrame:
    columns = ["row", "problem_id", "candidate_id", "teacher", "num_prompt_tokens", "num_response_tokens"]
    rows = table[columns].assign(energy=energy, rank=weighted.rank.astype(int), selection_prob=weighted.selection_prob)
    keep = weighted.selection_prob > 0
    if config.keep_zero_weight and config.rule != "all":
        # As released: always the top B rows of a problem that has any valid energy, whatever their weight.
        keep |= (weighted.rank <= (config.most_kept or np.inf)) & ~np.isnan(energy)
    return rows[keep].reset_index(drop=True)


def _solver_drops(weighted: Weighted) -> dict[str, int]:
    """Problems that the rule left without weight for want of a valid energy."""
    without_weight_N = weighted.prob_sorted_NK.sum(axis=1) == 0
    without_energy_N = weighted.num_candidates_N == 0
    drops = {
        "no_valid_candidate": int((without_weight_N & without_energy_N).sum()),
        "without_the_best_teacher": int((without_weight_N & ~without_energy_N).sum()),
    }
    return {reason: count for reason, count in drops.items() if count}


def _edge_counts(weighted: Weighted, config: SelectConfig) -> dict[str, int]:
    """How often each edge case of METHOD.md 3 occurred."""
    num_N = weighted.num_candidates_N
    counts = {
        "problems_with_one_candidate": int((num_N == 1).sum()),
        "problems_without_energy": int((num_N == 0).sum()),
    }
    if config.has_budget:
        counts |= {
            "problems_with_fewer_than_budget": int(((num_N > 0) & (num_N < config.budget)).sum()),
            "problems_with_budget_of_all": int((num_N == config.budget).sum()),
            "problems_with_equal_energies": int(_equal_top(weighted, config.budget).sum()),
        }
    return counts


def _equal_top(weighted: Weighted, budget: int) -> Any:
    """Problems of two or more candidates whose top B energies equal the threshold, so that nothing ranks them."""
    num_N = weighted.num_candidates_N.astype(int)
    last_N = np.minimum(budget, np.maximum(num_N - 1, 0))
    threshold_N = np.take_along_axis(weighted.energy_sorted_NK, last_N[:, None], axis=1)[:, 0]
    return (num_N > 1) & (np.nan_to_num(weighted.energy_sorted_NK[:, 0] - threshold_N) <= 1e-12)


def read_selection(selection: Artifact) -> pd.DataFrame:
    """The kept rows of a selection."""
    return read_table(selection.path / SELECTION)
