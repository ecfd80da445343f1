"""The chi² selection rule, in closed form for all problems at once (METHOD.md 3; LARK paper, arXiv 2605.30651).

For one problem with energies e_1 ≥ … ≥ e_K and the uniform prior u:

    q* = argmax_{q in simplex} ⟨q, e⟩ − (τ/2)·χ²(q‖u),      χ²(q‖u) = K Σ q² − 1

gives q_k = (e_k − ν)₊ / (τK). With the sums of margins S1_n = Σ_{k≤n} (e_k − e_{n+1}) = K·τ_n, the support is {1..m}
with S1_{m−1} < τK ≤ S1_m, and ν lies γ = (τK − S1_{m−1}) / m below e_m:

    q_k = (e_k − e_m + γ) / (τK)                                  k ≤ m

At τ = τ_B this is the paper's rule q_k = (1/B)·(e_k − e_{B+1}) / (mean_{k≤B} e_k − e_{B+1}).

The sums come from the gaps d_k = e_k − e_{k+1} ≥ 0, with S2_n = Σ_{k≤n} (e_k − e_{n+1})²:

    S1_n = S1_{n−1} + n·d_n          S2_n = S2_{n−1} + 2·d_n·S1_{n−1} + n·d_n²

Every term is non-negative, so nothing cancels. From them follow, for every budget at once, Σq², ⟨q, e⟩ and the support:
Σ_{k≤m} (e_k − ν)² = S2_{m−1} + 2γ·S1_{m−1} + m·γ².

Shapes: N problems, K the most candidates that a problem has, W ≤ K the ranks that can have weight. Ranks start at 0 in
arrays; a budget B counts from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lark_engine.scoring.matrix import Floats, Ints

EQUAL = 1e-12  # a mean margin this small makes the top B equal: uniform weights (as released)
RELEASED_MARGIN = 1e-8  # the released threshold lies this far below the smallest energy when B ≥ K


@dataclass(frozen=True, eq=False)
class RankedEnergies:
    """Energies sorted within each problem, best first, ties in candidate order.

    `order_NK` maps a rank to its column in the unsorted matrix; `energy_NK` is relative to the problem's best energy
    (the rule does not change when a constant is added), and padding repeats the smallest one, so that it is the
    threshold of a budget of all candidates; `num_valid_N` counts selectable candidates; `best_N` is the best energy,
    0 where there is none.
    """

    order_NK: Ints
    energy_NK: Floats
    num_valid_N: Ints
    best_N: Floats

    @property
    def num_columns(self) -> int:
        return self.energy_NK.shape[1]

    @cached_property
    def sum_NK(self) -> Floats:
        """S1_B for B = 1..K: what all strengths and curves start from."""
        return _margin_sums(self.energy_NK)

    def by_rank(self, matrix_NK: NDArray[Any], width: int | None = None) -> NDArray[Any]:
        """[N, K] by candidate → [N, W] by rank: the first `width` ranks, or all."""
        return np.take_along_axis(matrix_NK, self.order_NK[:, :width], axis=1)


class BudgetSums(NamedTuple):
    """The solution's sums for every budget B = 1..K at once, [N, K] each; what a problem without candidate has is 0.

    `num_kept_NK` counts positive weights, `sum_squares_NK` is Σq², `energy_NK` is ⟨q, e⟩ relative to the best energy.
    """

    num_kept_NK: Ints
    sum_squares_NK: Floats
    energy_NK: Floats


def rank(energy_NK: Floats) -> RankedEnergies:
    """Sort each problem's energies; NaN (not selectable) goes last. `energy_NK`: [N, K] float64, any order."""
    num_rows, num_columns = energy_NK.shape
    missing_NK = np.isnan(energy_NK)
    # numpy sorts NaN last, and a stable sort of −e keeps ties in candidate order.
    order_NK = np.argsort(-energy_NK, axis=1, kind="stable").astype(np.int32)
    sorted_NK = np.take_along_axis(energy_NK, order_NK, axis=1)
    num_valid_N = num_columns - missing_NK.sum(axis=1)
    if not num_columns:
        return RankedEnergies(order_NK, sorted_NK, num_valid_N, np.zeros(num_rows))
    best_N = np.where(num_valid_N > 0, sorted_NK[:, 0], 0.0)
    sorted_NK -= best_N[:, None]
    if (num_valid_N < num_columns).any():
        last_N = np.maximum(num_valid_N - 1, 0)[:, None]
        smallest_N1 = np.where(num_valid_N[:, None] > 0, np.take_along_axis(sorted_NK, last_N, axis=1), 0.0)
        sorted_NK = np.where(np.isnan(sorted_NK), smallest_N1, sorted_NK)
    return RankedEnergies(order_NK, sorted_NK, num_valid_N, best_N)


def taus(ranked: RankedEnergies) -> Floats:
    """τ_B for B = 1..K of every problem, [N, K], non-decreasing in B.

    For B ≥ the number of valid candidates there is no next energy; the smallest takes its place, so that a budget of
    all candidates gives the last one weight 0 (the released code's B = K − 1).
    """
    return ranked.sum_NK / np.maximum(ranked.num_valid_N, 1)[:, None]


def budget_weights(ranked: RankedEnergies, budget: int | Ints, *, released_margin: bool = False) -> Floats:
    """The paper rule at B = `budget` (one for all, or one a problem): selection_prob by rank, [N, W], W = max B.

    Each problem with a valid candidate sums to 1. `released_margin` puts the threshold 1e-8 below the smallest energy
    when B ≥ K, as the released code does: the last candidate then has a weight near 1e-6 instead of exactly 0.
    """
    budget_N = _per_problem(ranked, budget)
    top_N = np.minimum(budget_N, ranked.num_valid_N)
    energy_NW = ranked.energy_NK[:, : _width(ranked, budget_N)]
    if not energy_NW.size:
        return energy_NW
    threshold_N = _at(ranked.energy_NK, np.minimum(budget_N, ranked.num_columns - 1))
    if released_margin:
        threshold_N = threshold_N - np.where(budget_N >= ranked.num_valid_N, RELEASED_MARGIN, 0.0)
    margin_NW = np.where(_first(top_N, energy_NW), energy_NW - threshold_N[:, None], 0.0)
    sum_N = np.einsum("nk->n", margin_NW)
    equal_N = sum_N <= EQUAL * top_N
    margin_NW /= np.where(equal_N, 1.0, sum_N)[:, None]
    return _uniform_where(equal_N, ranked, top_N, margin_NW)


def sharpness_weights(ranked: RankedEnergies, budget: int | Ints, sharpness: float) -> Floats:
    """Weights [N, W] at τ = s·τ_B restricted to the top B; s = 1 is the paper rule, s → ∞ uniform over the top B."""
    budget_N = _per_problem(ranked, budget)
    width = _width(ranked, budget_N)
    if not width:
        return ranked.energy_NK[:, :0]
    top_N = np.minimum(budget_N, ranked.num_valid_N)
    sum_NW = _margin_sums(ranked.energy_NK[:, : width + 1])[:, :width]
    sum_N = _at(sum_NW, np.maximum(top_N - 1, 0))
    # τ_B = 0 says that the top B are equal to the threshold: nothing ranks them, so they share alike.
    equal_N = sum_N <= EQUAL * top_N
    weights_NW = _weights_at(ranked.energy_NK[:, :width], sum_NW, np.where(equal_N, 1.0, sharpness * sum_N), top_N)
    return _uniform_where(equal_N, ranked, top_N, weights_NW)


def temperature_weights(ranked: RankedEnergies, tau: float, max_budget: int | Ints | None = None) -> Floats:
    """Weights [N, W] at one τ for all problems; the number kept varies, with an optional cap for all or for each."""
    budget_N = ranked.num_valid_N if max_budget is None else _per_problem(ranked, max_budget)
    width = _width(ranked, budget_N)
    top_N = np.minimum(budget_N, ranked.num_valid_N)
    scale_N = np.multiply(tau, ranked.num_valid_N, dtype=np.float64)
    return _weights_at(ranked.energy_NK[:, :width], ranked.sum_NK[:, :width], scale_N, top_N)


def uniform(ranked: RankedEnergies, num_kept_N: Ints, width: int | None = None) -> Floats:
    """1/n on the first n ranks of each problem, [N, W]."""
    kept_NW = _first(num_kept_N, ranked.energy_NK[:, :width])
    return kept_NW / np.maximum(num_kept_N, 1)[:, None]


def all_budgets(ranked: RankedEnergies, sharpness: float = 1.0) -> BudgetSums:
    """What `sharpness_weights` (at s = 1: the paper rule) gives for every B = 1..K, from the sums of margins alone.

    For s ≥ 1 all of the top B have weight, q_k = (1 − 1/s)/B + (e_k − e_{B+1}) / (s·S1_B), so that
    Σq² = (1 − 1/s²)/B + S2_B/(s·S1_B)² and ⟨q, e⟩ = e_{B+1} + (1 − 1/s)·S1_B/B + S2_B/(s·S1_B).
    """
    num_columns = ranked.num_columns
    energy_KN = np.ascontiguousarray(ranked.energy_NK.T)
    sums = BudgetSums(*(np.zeros(ranked.energy_NK.shape, dtype, order="F") for dtype in (np.int32, float, float)))
    first_KN, second_KN = np.zeros_like(energy_KN), np.zeros_like(energy_KN)
    first_N = second_N = np.zeros(len(ranked.best_N))
    num_above_N = np.zeros(len(ranked.best_N), dtype=np.int32)
    for column in range(num_columns):  # one budget after the other, each for all problems
        budget = column + 1
        threshold_N = energy_KN[min(budget, num_columns - 1)]
        gap_N = energy_KN[column] - threshold_N
        second_N = second_N + gap_N * (2.0 * first_N + budget * gap_N)
        first_N = first_N + budget * gap_N
        first_KN[column], second_KN[column] = first_N, second_N
        num_above_N = np.where(gap_N > 0, budget, num_above_N)
        top_N = np.minimum(budget, ranked.num_valid_N)
        size_N = np.maximum(top_N, 1)
        equal_N = first_N <= EQUAL * top_N
        scale_N = np.where(equal_N, 1.0, sharpness * first_N)
        if sharpness >= 1.0:
            num_kept_N = num_above_N if sharpness == 1.0 else top_N
            squares_N = (1.0 - sharpness**-2) / size_N + second_N / scale_N**2
            captured_N = threshold_N + (1.0 - 1.0 / sharpness) * first_N / size_N + second_N / scale_N
        else:
            num_kept_N = 1 + np.count_nonzero(first_KN[:column] < scale_N, axis=0)
            squares_N, captured_N = _sums_at(energy_KN, first_KN, second_KN, scale_N, num_kept_N)
        sums.num_kept_NK[:, column] = np.where(equal_N, top_N, num_kept_N)
        sums.sum_squares_NK[:, column] = np.where(equal_N, (top_N > 0) / size_N, squares_N)
        sums.energy_NK[:, column] = np.where(equal_N, threshold_N + first_N / size_N, captured_N)
    return sums


def _sums_at(
    energy_KN: Floats, first_KN: Floats, second_KN: Floats, scale_N: Floats, support_N: Ints
) -> tuple[Floats, Floats]:
    """Σq² and ⟨q, e⟩ at τK = `scale_N` with `support_N` positive weights, [N] each."""
    problem = np.arange(len(scale_N))
    above = np.maximum(support_N - 2, 0)
    first_N, second_N = (np.where(support_N > 1, sums_KN[above, problem], 0.0) for sums_KN in (first_KN, second_KN))
    gamma_N = (scale_N - first_N) / support_N
    squares_N = second_N + gamma_N * (2.0 * first_N + support_N * gamma_N)
    return squares_N / scale_N**2, energy_KN[support_N - 1, problem] - gamma_N + squares_N / scale_N


def _margin_sums(energy_NK: Floats) -> Floats:
    """S1_n for n = 1..K, [N, K]: the margins of the first n above the next energy, summed; the last gap is 0."""
    gap_NK = np.zeros_like(energy_NK)
    np.subtract(energy_NK[:, :-1], energy_NK[:, 1:], out=gap_NK[:, :-1])
    gap_NK *= np.arange(1.0, energy_NK.shape[1] + 1)
    return np.cumsum(gap_NK, axis=1, out=gap_NK)


def _weights_at(energy_NW: Floats, sum_NW: Floats, scale_N: Floats, top_N: Ints) -> Floats:
    """q_k = (e_k − e_m + γ) / (τK) at τK = `scale_N`, restricted to the top `top_N`; `sum_NW` is S1."""
    if not energy_NW.size:
        return energy_NW
    support_N = np.minimum(1 + (_first(top_N - 1, sum_NW) & (sum_NW < scale_N[:, None])).sum(axis=1), top_N)
    last_N = np.maximum(support_N - 1, 0)
    above_N = np.where(support_N > 1, _at(sum_NW, np.maximum(last_N - 1, 0)), 0.0)
    gamma_N = (scale_N - above_N) / np.maximum(support_N, 1)
    # In place: at slider speed, making arrays costs more than the arithmetic.
    weights_NW = energy_NW - _at(energy_NW, last_N)[:, None]
    weights_NW += gamma_N[:, None]
    weights_NW *= _first(support_N, energy_NW)
    weights_NW /= np.where(support_N > 0, scale_N, 1.0)[:, None]
    return weights_NW


def _uniform_where(equal_N: NDArray[np.bool_], ranked: RankedEnergies, top_N: Ints, weights_NW: Floats) -> Floats:
    """The weights, with equal ones over the top where nothing ranks it."""
    if not equal_N.any():
        return weights_NW
    return np.where(equal_N[:, None], uniform(ranked, top_N, weights_NW.shape[1]), weights_NW)


def _per_problem(ranked: RankedEnergies, budget: int | Ints) -> Ints:
    budget_N = np.broadcast_to(np.asarray(budget), ranked.num_valid_N.shape)
    assert (budget_N >= 0).all()
    return budget_N


def _width(ranked: RankedEnergies, budget_N: Ints) -> int:
    """How many ranks can have weight: the largest budget, or K."""
    return min(int(budget_N.max(initial=0)), ranked.num_columns)


def _first(num_N: Ints, like_NW: Floats) -> NDArray[np.bool_]:
    """True in the first `num_N` columns of each row."""
    return np.less(np.arange(like_NW.shape[1])[None, :], num_N[:, None])


def _at(matrix_NW: Floats, column_N: Ints) -> Floats:
    """One value of each row, [N]."""
    return np.take_along_axis(matrix_NW, column_N[:, None], axis=1)[:, 0]
