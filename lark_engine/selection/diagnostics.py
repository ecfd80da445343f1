"""What a selection reports (METHOD.md 5): how much, how concentrated, from whom, at what cost. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from lark_engine.scoring.matrix import Floats
from lark_engine.selection.frame import Solution


def ess(prob_NW: Floats) -> Floats:
    """1/Σq² of every problem, [N]: the effective number of kept trajectories; NaN where nothing is kept."""
    squares_N = np.einsum("nk,nk->n", prob_NW, prob_NW)
    return 1.0 / np.where(squares_N > 0, squares_N, np.nan)


def diagnose(solution: Solution) -> dict[str, Any]:
    """All figures of one solution as JSON values.

    K, the uniform and the best possible utility are those of the frame: constraints do not change what they are
    compared with.
    """
    frame, kept = solution.frame, solution.kept
    solved_N = solution.num_kept_N > 0
    ess_N = ess(solution.prob_NW)[solved_N]
    # A problem without a valid energy that is made uniform, as released, has no valid candidate but keeps some.
    num_candidates_N = np.maximum(frame.ranked.num_valid_N, solution.num_kept_N)[solved_N]
    counts = np.bincount(solution.num_kept_N[solved_N])
    ess_summary, chi2_summary = _summaries(np.stack([ess_N, num_candidates_N / ess_N - 1.0]))
    return {
        "num_problems": int(solved_N.sum()),
        "num_trajectories": len(kept.prob),
        "response_tokens": kept.response_tokens,
        "prompt_tokens": kept.prompt_tokens,
        "kept_per_problem": {str(n): int(counts[n]) for n in np.flatnonzero(counts)},
        "ess": ess_summary,
        "chi2": chi2_summary,
        "utility": _utility(solution),
        "teachers": _teacher_shares(solution),
    }


def _utility(solution: Solution) -> dict[str, float | None]:
    """Mean captured utility ⟨q, e⟩, beside its maximum (top-1) and what uniform weights over all would give."""
    solved_N = solution.num_kept_N > 0
    if not solved_N.any():
        return {"captured": None, "top_1": None, "uniform": None}
    frame, ranked, prob_NW = solution.frame, solution.ranked, solution.prob_NW
    captured_N = ranked.best_N + np.einsum("nk,nk->n", prob_NW, ranked.energy_NK[:, : prob_NW.shape[1]])
    return {
        "captured": float(captured_N[solved_N].mean()),
        "top_1": float(frame.ranked.best_N[solved_N].mean()),
        "uniform": float(frame.mean_energy_N[solved_N].mean()),
    }


def _teacher_shares(solution: Solution) -> dict[str, dict[str, float]]:
    """For each teacher: its share of the pool, of kept trajectories, of q, and of q·tokens."""
    pool_T = solution.frame.pool_counts
    shares = {"pool": pool_T / (pool_T.sum() or 1), **solution.kept.shares}
    return {
        solution.kept.teachers[code]: {share: float(values_T[code]) for share, values_T in shares.items()}
        for code in np.flatnonzero(pool_T)
    }


def _summaries(values: Floats) -> list[dict[str, float | None]]:
    """Mean and 10th and 90th percentile of each row; None where there are no values."""
    if not values.shape[1]:
        return [{"mean": None, "p10": None, "p90": None} for _ in values]
    p10, p90 = np.quantile(values, [0.1, 0.9], axis=1)
    return [
        {"mean": float(mean), "p10": float(low), "p90": float(high)}
        for mean, low, high in zip(values.mean(axis=1), p10, p90, strict=True)
    ]
