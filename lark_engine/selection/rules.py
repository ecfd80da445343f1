"""Rules: how ranked energies become weights (METHOD.md 3 and 4). The chi² rule itself is in `chi2.py`. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lark_engine.config import SelectConfig
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection import chi2
from lark_engine.selection.chi2 import RankedEnergies


def rule_weights(
    ranked: RankedEnergies, config: SelectConfig, *, budget_N: Ints | None = None,
    is_best_NK: NDArray[np.bool_] | None = None,
) -> Floats:  # fmt: skip
    """selection_prob by rank, [N, W]: each problem with a selectable candidate sums to 1 (`best_teacher`: or to 0).

    `budget_N` holds a budget of its own for each problem, in place of the config's B or max_budget. `is_best_NK`, by
    rank, marks the candidates of the best teacher, for the rule `best_teacher`.
    """
    budget = config.most_kept if budget_N is None else budget_N
    if config.rule == "chi2" and config.mode == "temperature":
        assert config.tau is not None
        return chi2.temperature_weights(ranked, config.tau, budget)
    if config.rule == "all":
        return chi2.uniform(ranked, _top(ranked, budget))
    assert budget is not None
    if config.rule == "chi2" and config.mode == "sharpness":
        return chi2.sharpness_weights(ranked, budget, config.sharpness)
    if config.rule == "chi2":
        return chi2.budget_weights(ranked, budget, released_margin=config.keep_zero_weight)
    if config.rule == "best_teacher":
        assert is_best_NK is not None
        return _uniform_over(is_best_NK & (np.arange(ranked.num_columns) < ranked.num_valid_N[:, None]), budget)
    width = min(int(np.max(budget, initial=0)), ranked.num_columns)
    uniform_NW = chi2.uniform(ranked, _top(ranked, budget), width)
    if config.rule == "top_b":
        return uniform_NW
    assert config.rule == "softmax" and config.tau is not None
    odds_NW = np.where(uniform_NW > 0, softmax_odds(ranked.energy_NK[:, :width], config.tau), 0.0)
    return odds_NW / np.maximum(odds_NW.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def softmax_odds(energy_NK: Floats, tau: float) -> Floats:
    """exp(e/τ), 1 for the best of each problem; `energy_NK` is relative to it."""
    return np.exp(energy_NK / tau)


def best_teacher(energy_NK: Floats, teacher_NK: NDArray[np.int16], num_teachers: int) -> int:
    """The code of the teacher with the highest mean energy over the pool; the first of equals."""
    valid_NK = ~np.isnan(energy_NK)
    codes = teacher_NK[valid_NK]
    totals = np.bincount(codes, weights=energy_NK[valid_NK], minlength=num_teachers)
    counts = np.bincount(codes, minlength=num_teachers)
    return int(np.argmax(np.where(counts > 0, totals / np.maximum(counts, 1), -np.inf)))


def _top(ranked: RankedEnergies, budget: int | Ints | None) -> Ints:
    return ranked.num_valid_N if budget is None else np.minimum(budget, ranked.num_valid_N)


def _uniform_over(its_NK: NDArray[np.bool_], budget: int | Ints) -> Floats:
    """Equal weights for the first B marked candidates of each problem."""
    kept_NK = its_NK & (np.cumsum(its_NK, axis=1) <= np.reshape(budget, (-1, 1)))
    return kept_NK / np.maximum(kept_NK.sum(axis=1, keepdims=True), 1)
