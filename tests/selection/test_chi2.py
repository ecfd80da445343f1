"""The chi2 rule against the released weights, an independent solver, and its own invariants."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lark_engine.selection import chi2

NAN = float("nan")


def solve(energies: list[float], rule: str, **options: float) -> list[float]:
    """Weights in the order of the energies given."""
    energy_NK = np.array([energies])
    ranked = chi2.rank(energy_NK)
    weights = getattr(chi2, f"{rule}_weights")(ranked, **options)
    result = np.zeros(energy_NK.shape[1])
    result[ranked.order_NK[0, : weights.shape[1]]] = weights[0]
    return result.tolist()


def test_released_weights_are_matched_with_the_released_margin(shared_dir: Path) -> None:
    cases = json.loads((shared_dir / "golden" / "chi2_topb_weights.json").read_text())
    compared = 0
    for case in cases:
        energies = [NAN if e is None else e for e in case["energies"]]
        if np.isnan(energies).all():
            continue  # the problem is dropped; `uniform_if_no_energy` restores the release (tested in test_select)
        weights = solve(energies, "budget", budget=case["B"], released_margin=True)
        assert weights == pytest.approx(case["weights"], abs=1e-9)
        compared += 1
    assert compared == 597


def test_without_the_released_margin_only_budgets_of_all_candidates_differ(shared_dir: Path) -> None:
    for case in json.loads((shared_dir / "golden" / "chi2_topb_weights.json").read_text()):
        energies = [NAN if e is None else e for e in case["energies"]]
        valid = [e for e in energies if not np.isnan(e)]
        if case["B"] < len(valid):
            assert solve(energies, "budget", budget=case["B"]) == pytest.approx(case["weights"], abs=1e-9)
        elif len(valid) > 1 and max(valid) - min(valid) > 1e-9:
            assert solve(energies, "budget", budget=case["B"])[energies.index(min(valid))] == 0.0


def test_the_paper_rule_by_hand() -> None:
    # B = 2, threshold 1: margins 3 and 1, so weights 3/4 and 1/4.
    assert solve([1.0, 4.0, 2.0, 0.0], "budget", budget=2) == pytest.approx([0.0, 0.75, 0.25, 0.0])


@pytest.mark.parametrize(
    ("energies", "budget", "expected"),
    [
        ([5.0], 3, [1.0]),
        ([2.0, 2.0, 2.0], 2, [0.5, 0.5, 0.0]),
        ([2.0, 2.0, 2.0], 3, [1 / 3, 1 / 3, 1 / 3]),
        ([3.0, 1.0], 2, [1.0, 0.0]),
        ([3.0, 1.0], 9, [1.0, 0.0]),
        ([NAN, 3.0, NAN], 2, [0.0, 1.0, 0.0]),
        ([NAN, NAN], 2, [0.0, 0.0]),
        ([1.0, 3.0, NAN, 2.0], 2, [0.0, 2 / 3, 0.0, 1 / 3]),
    ],
)
def test_edge_cases_of_the_budget(energies: list[float], budget: int, expected: list[float]) -> None:
    assert solve(energies, "budget", budget=budget) == pytest.approx(expected)


def test_sharpness_one_is_the_paper_rule_and_large_sharpness_is_uniform_over_the_top() -> None:
    energies = [0.4, 0.1, 0.3, 0.9, 0.2]
    assert solve(energies, "sharpness", budget=3, sharpness=1.0) == pytest.approx(solve(energies, "budget", budget=3))
    flat = solve(energies, "sharpness", budget=3, sharpness=1e9)
    assert flat == pytest.approx([1 / 3, 0.0, 1 / 3, 1 / 3, 0.0], abs=1e-6)
    assert solve(energies, "sharpness", budget=3, sharpness=1e-6)[3] == pytest.approx(1.0)


def test_a_temperature_near_zero_keeps_the_best_alone() -> None:
    assert solve([3.0, 2.0, 1.0, 0.0], "temperature", tau=1e-14) == [1.0, 0.0, 0.0, 0.0]
    assert solve([3.0, 3.0, 1.0], "temperature", tau=1e-14) == pytest.approx([0.5, 0.5, 0.0])


def test_one_temperature_keeps_more_where_energies_are_closer() -> None:
    ranked = chi2.rank(np.array([[1.0, 0.0, 0.0], [1.0, 0.9, 0.8]]))
    weights = chi2.temperature_weights(ranked, 0.1)
    assert (weights > 0).sum(axis=1).tolist() == [1, 3]
    assert (chi2.temperature_weights(ranked, 0.1, max_budget=2) > 0).sum(axis=1).tolist() == [1, 2]


energies_NK = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
    elements=st.one_of(st.floats(-1, 1), st.sampled_from([0.0, 0.5, NAN, 1e-9, -1e6, 1e6])),
)
one_problem = hnp.arrays(np.float64, st.integers(1, 9), elements=st.floats(-1, 1), unique=True)
scales = st.sampled_from([1e-12, 1e-6, 1.0, 1e6, 1e12])


def projection(scaled: np.ndarray) -> np.ndarray:
    """The Euclidean projection on the simplex, its threshold found by bisection: no sorting, no closed form."""
    low, high = scaled.max() - 1.0, scaled.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(scaled - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(scaled - (low + high) / 2, 0)


def kkt_residual(energies: np.ndarray, prob: np.ndarray, tau: float) -> float:
    """How far the optimality conditions are from holding, in units of q: q_k = (e_k − ν)₊ / (τK) for one ν."""
    slope = tau * len(energies)
    relative = (energies - energies.max()) / slope
    nu = (relative - prob)[prob > 0].mean()
    return float(np.abs(prob - np.maximum(relative - nu, 0)).max())


@settings(deadline=None, max_examples=200)
@given(energies_NK, st.integers(1, 14))
def test_weights_are_a_distribution_over_at_most_the_budget(matrix: np.ndarray, budget: int) -> None:
    ranked = chi2.rank(matrix)
    valid_N = (~np.isnan(matrix)).any(axis=1)
    for weights in (
        chi2.budget_weights(ranked, budget),
        chi2.sharpness_weights(ranked, budget, 0.3),
        chi2.sharpness_weights(ranked, budget, 3.0),
        chi2.temperature_weights(ranked, 0.01, budget),
    ):
        assert (weights >= 0).all()
        assert weights.sum(axis=1) == pytest.approx(valid_N.astype(float), abs=1e-9)
        assert ((weights > 0).sum(axis=1) <= budget).all()
        assert (np.diff(weights, axis=1) <= 1e-12).all()


@settings(deadline=None, max_examples=200)
@given(energies_NK)
def test_tau_never_falls_with_the_budget(matrix: np.ndarray) -> None:
    tau_NK = chi2.taus(chi2.rank(matrix))
    assert (np.diff(tau_NK, axis=1) >= 0).all()
    assert (tau_NK >= 0).all()


@settings(deadline=None, max_examples=200)
@given(one_problem, st.floats(1e-3, 1e3), scales, st.sampled_from([0.0, -3.0, 1e3]))
def test_the_closed_form_is_the_projection_on_the_simplex(
    energies: np.ndarray, tau: float, scale: float, shift: float
) -> None:
    """argmax ⟨q, e⟩ − (τ/2)(KΣq² − 1) is the projection of e/(τK), whatever the unit and origin of energies."""
    energies, tau = (energies + shift) * scale, tau * scale
    weights = np.array(solve(energies.tolist(), "temperature", tau=tau))
    assert weights == pytest.approx(projection((energies - energies.max()) / (tau * len(energies))), abs=1e-9)
    assert kkt_residual(energies, weights, tau) <= 1e-9


@settings(deadline=None, max_examples=200)
@given(one_problem, st.integers(1, 9), st.floats(0.05, 20), scales)
def test_a_sharpness_is_the_projection_restricted_to_the_top(
    energies: np.ndarray, budget: int, sharpness: float, scale: float
) -> None:
    energies = np.sort(energies * scale)[::-1]
    top = min(budget, len(energies))
    tau_b = (energies[:top] - energies[min(top, len(energies) - 1)]).sum() / len(energies)
    weights = np.array(solve(energies.tolist(), "sharpness", budget=budget, sharpness=sharpness))
    if tau_b * len(energies) <= chi2.EQUAL * top:  # what the release calls equal
        assert weights[:top] == pytest.approx(1 / top)
        return
    expected = projection((energies[:top] - energies[0]) / (sharpness * tau_b * len(energies)))
    assert weights[:top] == pytest.approx(expected, abs=1e-9)
    assert not weights[top:].any()


@settings(deadline=None, max_examples=100)
@given(energies_NK, st.integers(1, 14))
def test_sharpness_one_is_the_paper_rule(matrix: np.ndarray, budget: int) -> None:
    ranked = chi2.rank(matrix)
    expected = chi2.budget_weights(ranked, budget)
    assert chi2.sharpness_weights(ranked, budget, 1.0) == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(
    hnp.arrays(np.float64, (3, 7), elements=st.floats(-1, 1).map(lambda e: round(e, 3)), unique=True), st.integers(1, 7)
)
def test_the_limits_of_sharpness_are_the_best_alone_and_uniform(matrix: np.ndarray, budget: int) -> None:
    ranked = chi2.rank(matrix)
    sharp = chi2.sharpness_weights(ranked, budget, 1e-6)
    assert sharp[:, 0] == pytest.approx(1.0)
    flat = chi2.sharpness_weights(ranked, budget, 1e9)
    assert flat == pytest.approx(np.full(flat.shape, 1 / flat.shape[1]), abs=1e-6)


STRENGTHS = (
    {"rule": "budget", "budget": 3}, {"rule": "sharpness", "budget": 4, "sharpness": 0.3},
    {"rule": "sharpness", "budget": 4, "sharpness": 3.0}, {"rule": "temperature", "tau": 0.05},
)  # fmt: skip


@settings(deadline=None, max_examples=200)
@given(one_problem, st.sampled_from(STRENGTHS), st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(
    energies: np.ndarray, strength: dict[str, Any], dice: random.Random
) -> None:
    order = dice.sample(range(len(energies)), len(energies))
    weights = np.array(solve(energies.tolist(), **strength))
    assert solve(energies[order].tolist(), **strength) == pytest.approx(weights[order].tolist(), abs=1e-9)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.5]), min_size=1, max_size=9), st.floats(1e-3, 10.0))
def test_at_one_temperature_equal_energies_have_equal_weights(energies: list[float], tau: float) -> None:
    weights = solve(energies, "temperature", tau=tau)
    for energy in set(energies):
        of_equals = [w for e, w in zip(energies, weights, strict=True) if e == energy]
        assert of_equals == pytest.approx([of_equals[0]] * len(of_equals), abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(energies_NK, st.data())
def test_each_problem_may_have_its_own_budget(matrix: np.ndarray, data: st.DataObject) -> None:
    ranked = chi2.rank(matrix)
    budget_N = np.array(data.draw(st.lists(st.integers(1, 14), min_size=len(matrix), max_size=len(matrix))))
    for weigh in (
        chi2.budget_weights,
        lambda ranked, budget: chi2.sharpness_weights(ranked, budget, 0.4),
        lambda ranked, budget: chi2.temperature_weights(ranked, 0.05, budget),
    ):
        together = weigh(ranked, budget_N)
        for row, budget in enumerate(budget_N.tolist()):
            alone = weigh(chi2.rank(matrix[row : row + 1]), budget)[0]
            assert together[row, : len(alone)] == pytest.approx(alone[: together.shape[1]], abs=1e-12)
            assert not together[row, len(alone) :].any()


@settings(deadline=None, max_examples=200)
@given(energies_NK, st.sampled_from([0.05, 0.4, 1.0, 2.5, 20.0]))
def test_the_sums_of_all_budgets_are_those_of_each_solution(matrix: np.ndarray, sharpness: float) -> None:
    ranked = chi2.rank(matrix)
    sums = chi2.all_budgets(ranked, sharpness)
    for budget in range(1, matrix.shape[1] + 1):
        weights = chi2.sharpness_weights(ranked, budget, sharpness)
        if sharpness == 1.0:
            weights = chi2.budget_weights(ranked, budget)
        column, energy_NW = budget - 1, ranked.energy_NK[:, :budget]
        assert sums.num_kept_NK[:, column].tolist() == (weights > 0).sum(axis=1).tolist()
        assert sums.sum_squares_NK[:, column] == pytest.approx((weights**2).sum(axis=1), abs=1e-12)
        span = np.maximum(np.abs(ranked.energy_NK).max(axis=1), 1.0)
        assert sums.energy_NK[:, column] / span == pytest.approx((weights * energy_NW).sum(axis=1) / span, abs=1e-12)


def test_margins_of_very_different_sizes_do_not_cancel() -> None:
    """Two candidates 1e9 above two that differ by 1: what lies between the latter survives in τ_B and in Σq²."""
    ranked = chi2.rank(np.array([[1e9, 1e9, 1.0, 0.0]]))
    assert chi2.taus(ranked)[0].tolist() == [0.0, (2e9 - 2) / 4, (2e9 + 1) / 4, (2e9 + 1) / 4]
    near = chi2.rank(np.array([[3e-6, 2e-6, 1e-6, 0.0]]) + 1.0)
    assert chi2.all_budgets(near).sum_squares_NK[0, 1] == pytest.approx(5 / 9, rel=1e-9)
