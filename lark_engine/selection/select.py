"""The selection stage: scores become a weighted training set, by one rule, with every drop counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError, PoolError
from lark_engine.pool.dataset import PoolData
from lark_engine.scoring.table import read_scores
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.chi2 import EQUAL
from lark_engine.selection.compare import compare, kept_of_tables
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.export import write_train_file
from lark_engine.selection.frame import SelectionFrame, Solution
from lark_engine.store.atomic import replacing
from lark_engine.store.fingerprint import fingerprint
from lark_engine.store.workspace import Artifact, Draft, Plan, Workspace, read_table

SELECTION = "selection.parquet"
TRAIN = "train.jsonl"
# To be raised when a change of the code changes selections of the same options and inputs.
VERSION = 2


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
    """A short name: the rule, its strength, any other energy than g_hat, constraints: `chi2-b3`, `top_b-b3-random`."""
    strength = {
        "budget": f"b{config.budget}",
        "sharpness": f"b{config.budget}-s{config.sharpness:g}",
        "temperature": f"tau{config.tau:g}" if config.tau else "",
    }[config.mode if config.rule == "chi2" else "budget"]
    parts = [config.rule, "" if config.rule == "all" else strength]
    energy = config.energy.replace("+", "high_").replace("-", "low_")
    parts.append("" if energy == "g_hat" else energy)
    parts.append(f"share{config.max_teacher_share:g}" if config.max_teacher_share else "")
    parts.append(f"{config.max_train_tokens}tokens" if config.max_train_tokens else "")
    return "-".join(filter(None, parts))


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
    data = PoolData(pool)
    table = candidate_table(scores, pool)
    frame = SelectionFrame(Candidates(table), config)
    not_scored = data.num_trajectories - len(table)
    drops = {**({"not_scored": not_scored} if not_scored else {}), **frame.drops}
    num_candidates = int(frame.keep_NK.sum())
    if not num_candidates:
        reasons = ", ".join(f"{count} {reason}" for reason, count in drops.items())
        raise ConfigError(f"no candidate is left to select from ({reasons or 'the scores are empty'}); relax the gates")
    solution = frame.solve(config)
    kept = kept_table(solution, config)
    if kept.empty:
        raise ConfigError("no candidate has a valid energy, so nothing can be selected; score the pool again")
    with replacing(draft.path / SELECTION) as partial:
        kept.to_parquet(partial, index=False)
    write_train_file(draft.path / TRAIN, kept, pool, config, data.id_type)
    draft.metrics = {**diagnose(solution), "median_tau_3": frame.median_tau(), "id_type": data.id_type}
    draft.tokens = draft.metrics["response_tokens"]
    draft.drops = {**drops, **_problem_drops(solution, config)}
    draft.counts = {
        "num_problems": int(kept["problem_id"].nunique()),
        "num_trajectories": len(kept),
        "num_candidates": num_candidates,
        **_edge_counts(frame, config),
        **{f"num_{reason}": count for reason, count in solution.gave_way.items()},
    }


def kept_table(solution: Solution, config: SelectConfig) -> pd.DataFrame:
    """selection.parquet: one row a kept candidate in the pool's order.

    Columns: row (in the pool), problem_id, candidate_id, teacher, num_prompt_tokens, num_response_tokens, energy, rank
    (from 1, among what is selectable), selection_prob.
    """
    mask_NW = solution.prob_NW > 0
    if config.keep_zero_weight and config.rule != "all":
        # As released: always the top B rows of a problem that has any valid energy, whatever their weight.
        num_top_N = np.minimum(solution.ranked.num_valid_N, config.most_kept or mask_NW.shape[1])
        mask_NW |= np.arange(mask_NW.shape[1]) < num_top_N[:, None]
    rows = solution.rows(mask_NW)
    rank_M = 1 + np.nonzero(mask_NW)[1]
    candidates = solution.frame.candidates
    columns = ["row", "problem_id", "candidate_id", "teacher", "num_prompt_tokens", "num_response_tokens"]
    table = candidates.table[columns].take(candidates.row_NK.reshape(-1)[rows.key])
    energy = solution.frame.energy_NK.reshape(-1)[rows.key]
    table = table.assign(energy=energy, rank=rank_M, selection_prob=rows.prob)
    return table.sort_index().reset_index(drop=True)


def _problem_drops(solution: Solution, config: SelectConfig) -> dict[str, int]:
    """Problems that are left without weight, and why."""
    without_weight_N = solution.num_kept_N == 0
    without_energy_N = solution.frame.has_no_energy_N
    other = "without_the_best_teacher" if config.rule == "best_teacher" else "teacher_quota"
    drops = {
        "no_valid_candidate": int((without_weight_N & without_energy_N).sum()),
        other: int((without_weight_N & (solution.frame.ranked.num_valid_N > 0)).sum()),
    }
    return {reason: count for reason, count in drops.items() if count}


def _edge_counts(frame: SelectionFrame, config: SelectConfig) -> dict[str, int]:
    """How often each edge case of METHOD.md 3 occurred."""
    num_N = frame.ranked.num_valid_N
    counts = {
        "problems_with_one_candidate": int((num_N == 1).sum()),
        "problems_without_energy": int(frame.has_no_energy_N.sum()),
    }
    if config.has_budget:
        # Two or more candidates whose top B energies equal the threshold, so that nothing ranks them.
        spread_N = -frame.ranked.energy_NK[:, min(config.budget, frame.ranked.num_columns - 1)]
        counts |= {
            "problems_with_fewer_than_budget": int(((num_N > 0) & (num_N < config.budget)).sum()),
            "problems_with_budget_of_all": int((num_N == config.budget).sum()),
            "problems_with_equal_energies": int(((num_N > 1) & (spread_N <= EQUAL)).sum()),
        }
    return counts


def read_selection(selection: Artifact) -> pd.DataFrame:
    """The kept rows of a selection."""
    return read_table(selection.path / SELECTION)


def compare_selections(first: Artifact, second: Artifact) -> dict[str, Any]:
    """How the second selection differs from the first: `compare.compare` of their kept rows.

    Errors: `PoolError` when they are selections of different pools.
    """
    pools = [selection.manifest.inputs["pool"] for selection in (first, second)]
    if pools[0].fingerprint != pools[1].fingerprint:
        raise PoolError(
            f"{first.id} selects from pool {pools[0].id} and {second.id} from {pools[1].id}; compare selections of one "
            "pool"
        )
    return compare(*kept_of_tables(read_selection(first), read_selection(second)))
