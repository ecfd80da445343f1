"""The chi² selection rule, in closed form for all problems at once (METHOD.md 3; LARK paper, arXiv 2605.30651).

For one problem with energies e_1 ≥ … ≥ e_K and the uniform prior u:

    q* = argmax_{q in simplex} ⟨q, e⟩ − (τ/2)·χ²(q‖u),      χ²(q‖u) = K Σ q² − 1

has the support {1..n} with τ_{n−1} < τ ≤ τ_n, τ_n = (1/K) Σ_{k≤n} (e_k − e_{n+1}), and on it

    q_k = 1/n + (e_k − mean_{j≤n} e_j) / (τK).

At τ = τ_B this is the paper's rule q_k = (1/B)·(e_k − e_{B+1}) / (mean_{k≤B} e_k − e_{B+1}).
Shapes: N problems, K the most candidates that a problem has; ragged problems are padded with NaN.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

EQUAL = 1e-12  # a mean margin this small makes the top B equal: uniform weights (as released)
RELEASED_MARGIN = 1e-8  # the released threshold lies this far below the smallest energy when B ≥ K


class RankedEnergies(NamedTuple):
    """Energies sorted within each problem, best first, ties in candidate order.

    `order_NK` maps a rank to its column in the unsorted matrix; `energy_NK` is relative to the problem's best energy
    (the rule does not change when a constant is added), 0 in padding; `num_valid_N` counts selectable candidates.
    """

    order_NK: Ints
    energy_NK: Floats
    num_valid_N: Ints

    @property
    def valid_NK(self) -> NDArray[np.bool_]:
        """Which ranks hold a selectable candidate."""
        columns = np.arange(self.energy_NK.shape[1])
        return np.less(columns[None, :], self.num_valid_N[:, None])


def rank(energy_NK: Floats) -> RankedEnergies:
    """Sort each problem's energies; NaN (not selectable) goes last. `energy_NK`: [N, K] float64, any order."""
    keys = np.where(np.isnan(energy_NK), np.inf, -energy_NK)
    order_NK = np.argsort(keys, axis=1, kind="stable")
    sorted_NK = np.take_along_axis(energy_NK, order_NK, axis=1)
    num_valid_N = np.sum(~np.isnan(energy_NK), axis=1)
    best_N1 = sorted_NK[:, :1] if sorted_NK.shape[1] else np.zeros((len(sorted_NK), 1))
    relative_NK = np.where(np.isnan(sorted_NK), 0.0, sorted_NK - np.where(np.isnan(best_N1), 0.0, best_N1))
    return RankedEnergies(order_NK, relative_NK, num_valid_N)


def taus(ranked: RankedEnergies) -> Floats:
    """τ_n for n = 1..K of every problem, [N, K], non-decreasing in n.

    For n ≥ the number of valid candidates there is no next energy; the smallest takes its place, so that a budget of
    all candidates gives the last one weight 0 (the released code's B = K − 1).
    """
    num_columns = ranked.energy_NK.shape[1]
    last_N = np.maximum(ranked.num_valid_N - 1, 0)
    next_column_NK = np.minimum(np.arange(1, num_columns + 1)[None, :], last_N[:, None])
    next_NK = np.take_along_axis(ranked.energy_NK, next_column_NK, axis=1)
    kept_NK = np.minimum(np.arange(1, num_columns + 1)[None, :], ranked.num_valid_N[:, None])
    prefix_NK = np.cumsum(ranked.energy_NK, axis=1)
    margin_NK = np.maximum(prefix_NK - kept_NK * next_NK, 0.0)
    return np.maximum.accumulate(margin_NK, axis=1) / np.maximum(ranked.num_valid_N, 1)[:, None]


def budget_weights(ranked: RankedEnergies, budget: int, *, released_margin: bool = False) -> Floats:
    """The paper rule at B = `budget`: selection_prob by rank, [N, K], each row with a valid candidate sums to 1.

    `released_margin` puts the threshold 1e-8 below the smallest energy when B ≥ K, as the released code does: the last
    candidate then has a weight near 1e-6 instead of exactly 0.
    """
    assert budget >= 1
    last_N = np.maximum(ranked.num_valid_N - 1, 0)
    all_kept_N = budget >= ranked.num_valid_N
    threshold_N = np.take_along_axis(ranked.energy_NK, np.where(all_kept_N, last_N, budget)[:, None], axis=1)[:, 0]
    if released_margin:
        threshold_N = threshold_N - np.where(all_kept_N, RELEASED_MARGIN, 0.0)
    num_kept_N = np.minimum(budget, ranked.num_valid_N)
    top_NK = _top(ranked, num_kept_N)
    margin_NK = np.where(top_NK, ranked.energy_NK - threshold_N[:, None], 0.0)
    mean_N = margin_NK.sum(axis=1) / np.maximum(num_kept_N, 1)
    equal_N = mean_N <= EQUAL
    weights_NK = margin_NK / np.where(equal_N, 1.0, mean_N * np.maximum(num_kept_N, 1))[:, None]
    return np.where(equal_N[:, None], uniform(ranked, num_kept_N), weights_NK)


def sharpness_weights(ranked: RankedEnergies, budget: int, sharpness: float) -> Floats:
    """Weights at τ = s·τ_B restricted to the top B; s = 1 is the paper rule, s → ∞ is uniform over the top B."""
    num_top_N = np.minimum(budget, ranked.num_valid_N)
    tau_NK = taus(ranked)
    tau_b_N = np.take_along_axis(tau_NK, np.maximum(num_top_N - 1, 0)[:, None], axis=1)[:, 0]
    weights_NK = _weights_at(ranked, tau_NK, sharpness * tau_b_N, num_top_N)
    # τ_B = 0 says that the top B are equal to the threshold: nothing ranks them, so they share alike.
    equal_N = tau_b_N * ranked.num_valid_N <= EQUAL
    return np.where(equal_N[:, None], uniform(ranked, num_top_N), weights_NK)


def temperature_weights(ranked: RankedEnergies, tau: float, max_budget: int | None = None) -> Floats:
    """Weights at one τ for all problems; the number kept varies, with an optional cap per problem."""
    num_top_N = ranked.num_valid_N if max_budget is None else np.minimum(max_budget, ranked.num_valid_N)
    return _weights_at(ranked, taus(ranked), np.full(len(num_top_N), tau), num_top_N)


def uniform(ranked: RankedEnergies, num_kept_N: Ints) -> Floats:
    """1/n on the first n ranks of each problem, [N, K]."""
    return _top(ranked, num_kept_N) / np.maximum(num_kept_N, 1)[:, None]


def _weights_at(ranked: RankedEnergies, tau_NK: Floats, tau_N: Floats, num_top_N: Ints) -> Floats:
    """The closed form at the given τ of each problem, restricted to its top `num_top_N`."""
    below_NK = (tau_NK < tau_N[:, None]) & _top(ranked, ranked.num_valid_N - 1)
    num_kept_N = np.minimum(1 + below_NK.sum(axis=1), num_top_N)
    top_NK = _top(ranked, num_kept_N)
    mean_N = np.where(top_NK, ranked.energy_NK, 0.0).sum(axis=1) / np.maximum(num_kept_N, 1)
    scale_N = tau_N * ranked.num_valid_N
    shift_NK = (ranked.energy_NK - mean_N[:, None]) / np.where(scale_N > 0, scale_N, 1.0)[:, None]
    weights_NK = np.where(top_NK, np.maximum(uniform(ranked, num_kept_N) + shift_NK, 0.0), 0.0)
    return weights_NK / np.maximum(weights_NK.sum(axis=1, keepdims=True), np.finfo(float).tiny)


def _top(ranked: RankedEnergies, num_kept_N: Ints) -> NDArray[np.bool_]:
    return np.less(np.arange(ranked.energy_NK.shape[1])[None, :], num_kept_N[:, None])
