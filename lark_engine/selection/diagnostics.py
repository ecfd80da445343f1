"""What a selection reports (METHOD.md 5): how much, how concentrated, from whom, at what cost. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lark_engine.selection.chi2 import Floats
from lark_engine.selection.rules import Weighted


def ess(prob_NK: Floats) -> Floats:
    """1/Σq² of every problem, [N]: the effective number of kept trajectories; NaN where nothing is kept."""
    squares_N = (prob_NK**2).sum(axis=1)
    return np.where(squares_N > 0, 1.0 / np.where(squares_N > 0, squares_N, 1.0), np.nan)


def chi2_distance(prob_NK: Floats, num_candidates_N: Floats) -> Floats:
    """χ²(q‖u) = K·Σq² − 1 of every problem, [N]; NaN where nothing is kept."""
    squares_N = (prob_NK**2).sum(axis=1)
    return np.where(squares_N > 0, num_candidates_N * squares_N - 1.0, np.nan)


def diagnose(table: pd.DataFrame, weighted: Weighted) -> dict[str, Any]:
    """All figures of one selection as JSON values; `table` holds the candidates that were weighed, row for row."""
    prob = weighted.selection_prob
    kept = prob > 0
    solved_N = weighted.prob_sorted_NK.sum(axis=1) > 0
    ess_N = ess(weighted.prob_sorted_NK)[solved_N]
    chi2_N = chi2_distance(weighted.prob_sorted_NK, weighted.num_candidates_N)[solved_N]
    tokens = table["num_response_tokens"].to_numpy(float)
    counts, frequency = np.unique(weighted.num_kept_N[solved_N].astype(int), return_counts=True)
    return {
        "num_problems": int(solved_N.sum()),
        "num_trajectories": int(kept.sum()),
        "response_tokens": _total(tokens[kept]),
        "prompt_tokens": _total(table["num_prompt_tokens"].to_numpy(float)[kept]),
        "kept_per_problem": {str(n): int(c) for n, c in zip(counts, frequency, strict=True)},
        "ess": _summary(ess_N),
        "chi2": _summary(chi2_N),
        "utility": _utility(weighted, solved_N),
        "teachers": _teacher_shares(table["teacher"], prob, tokens),
    }


def jaccard(first: set[tuple[str, int]], second: set[tuple[str, int]]) -> float:
    """Overlap of two selections by (problem_id, candidate_id): |A∩B| / |A∪B|; 1 for two empty ones."""
    union = first | second
    return len(first & second) / len(union) if union else 1.0


def _utility(weighted: Weighted, solved_N: Floats) -> dict[str, float | None]:
    """Mean captured utility ⟨q, e⟩, beside its maximum (top-1) and what uniform weights over all would give."""
    energy_NK = weighted.energy_sorted_NK[solved_N.astype(bool)]
    prob_NK = weighted.prob_sorted_NK[solved_N.astype(bool)]
    if not len(energy_NK):
        return {"captured": None, "top_1": None, "uniform": None}
    captured = float(np.nansum(prob_NK * np.nan_to_num(energy_NK), axis=1).mean())
    uniform = float(np.nanmean(np.where(np.isnan(energy_NK).all(axis=1, keepdims=True), 0.0, energy_NK), axis=1).mean())
    return {"captured": captured, "top_1": float(np.nan_to_num(energy_NK[:, 0]).mean()), "uniform": uniform}


def _teacher_shares(teacher: pd.Series, prob: Floats, tokens: Floats) -> dict[str, dict[str, float]]:
    """For each teacher: its share of the pool, of kept trajectories, of q, and of q·tokens."""
    frame = pd.DataFrame(
        {"pool": 1.0, "count": (prob > 0).astype(float), "q": prob, "q_tokens": prob * np.nan_to_num(tokens)}
    )
    sums = frame.groupby(teacher.to_numpy(), sort=True).sum()
    shares = sums / sums.sum().replace(0.0, 1.0)
    return {str(name): {str(k): float(v) for k, v in row.items()} for name, row in shares.iterrows()}


def _summary(values: Floats) -> dict[str, float | None]:
    if not len(values):
        return {"mean": None, "p10": None, "p90": None}
    p10, p90 = np.quantile(values, [0.1, 0.9])
    return {"mean": float(values.mean()), "p10": float(p10), "p90": float(p90)}


def _total(tokens: Floats) -> int | None:
    """Released score files hold no token counts: then the total is unknown, not 0."""
    return None if np.isnan(tokens).any() else int(tokens.sum())
