"""The frame against one-problem-at-a-time results: gates, energies, reports, and curves over all budgets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scored_pools import random_table, ranked_by_rho, table

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.scoring.criteria import g_hat
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.curves import budget_curves, knee
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.frame import SelectionFrame, Solution
from lark_engine.selection.select import kept_table

GATES: list[dict[str, Any]] = [
    {},
    {"exclude_teachers": ("b",)},
    {"teachers": ("a", "c"), "correct_only": True},
    {"drop_truncated": True, "min_response_tokens": 60, "max_response_tokens": 400},
    {"deduplicate": True, "exclude_teachers": ("d",)},
]


def solve(candidates: Candidates, config: SelectConfig) -> Solution:
    return SelectionFrame(candidates, config).solve(config)


def gated_by_pandas(rows: pd.DataFrame, gates: dict[str, Any]) -> pd.DataFrame:
    if "exclude_teachers" in gates:
        rows = rows[~rows["teacher"].isin(gates["exclude_teachers"])]
    if "teachers" in gates:
        rows = rows[rows["teacher"].isin(gates["teachers"])]
    if gates.get("correct_only"):
        rows = rows[rows["is_correct"].fillna(False)]
    if gates.get("drop_truncated"):
        rows = rows[~rows["truncated"]]
    if "min_response_tokens" in gates:
        rows = rows[rows["num_response_tokens"].between(gates["min_response_tokens"], gates["max_response_tokens"])]
    return rows.drop_duplicates(["problem_id", "response_hash"]) if gates.get("deduplicate") else rows


@pytest.mark.parametrize("gates", GATES)
def test_gates_keep_what_a_table_would_and_g_hat_is_relative_to_it(gates: dict[str, Any]) -> None:
    rows = random_table(3)
    frame = SelectionFrame(Candidates(rows), SelectConfig(**gates))
    expected = gated_by_pandas(rows, gates)
    row_NK = frame.candidates.row_NK
    assert sorted(row_NK[frame.keep_NK].tolist()) == expected.index.tolist()
    assert sum(frame.drops.values()) == len(rows) - len(expected)
    by_row = dict(zip(row_NK[frame.keep_NK].tolist(), frame.energy_NK[frame.keep_NK].tolist(), strict=True))
    for _, problem in expected.groupby("problem_id"):
        energy = g_hat(problem[["nll"]].to_numpy().T, problem[["brier"]].to_numpy().T)[0]
        assert [by_row[row] for row in problem.index] == pytest.approx(energy.tolist(), nan_ok=True)
    assert np.isnan(frame.energy_NK[~frame.keep_NK]).all()


@pytest.mark.parametrize("options", [{}, {"mode": "sharpness", "sharpness": 0.4}, {"rule": "top_b"}, {"rule": "all"}])
def test_the_order_of_rows_changes_nothing(options: dict[str, Any]) -> None:
    rows, config = random_table(4), SelectConfig(**options)
    mixed = rows.sample(frac=1.0, random_state=0).reset_index(drop=True)
    first, second = (kept_table(solve(Candidates(t), config), config) for t in (rows, mixed))
    key = ["problem_id", "candidate_id"]
    pd.testing.assert_frame_equal(
        first.sort_values(key, ignore_index=True), second.sort_values(key, ignore_index=True), rtol=1e-12
    )


def test_random_energies_belong_to_the_candidate_whatever_the_gates() -> None:
    candidates = Candidates(random_table(5))
    config = SelectConfig(energy="random", rule="top_b", seed=7)
    whole = SelectionFrame(candidates, config)
    gated = SelectionFrame(candidates, config.model_copy(update={"exclude_teachers": ("a",)}))
    assert gated.energy_NK[gated.keep_NK].tolist() == whole.energy_NK[gated.keep_NK].tolist()
    # Also where some candidates were not scored: the draw goes with the row in the pool.
    part = Candidates(candidates.table.iloc[5:].reset_index(drop=True))
    drawn = SelectionFrame(part, config).energy_NK[part.present_NK]
    assert drawn.tolist() == np.random.default_rng(7).random(len(candidates.table))[5:].tolist()


def test_a_frame_refuses_a_config_of_another_pool_edit() -> None:
    frame = SelectionFrame(Candidates(random_table(1)), SelectConfig())
    frame.solve(SelectConfig(budget=5, max_train_tokens=10**9))
    with pytest.raises(AssertionError, match="another pool edit"):
        frame.solve(SelectConfig(energy="-nll"))


def test_a_report_by_hand() -> None:
    """Energies 4, 2, 1 and 3, 1 at B = 2: weights 3/4 and 1/4, and all on the best of two."""
    candidates = ranked_by_rho(
        [[("a", 4.0), ("b", 2.0), ("a", 1.0)], [("b", 1.0), ("c", 3.0)]], tokens=[[100, 60, 20], [40, 30]]
    )
    report = diagnose(solve(candidates, SelectConfig(energy="+rho", budget=2)))
    assert report["num_problems"] == 2
    assert report["num_trajectories"] == 3
    assert (report["prompt_tokens"], report["response_tokens"]) == (30, 90 + 50 + 20)
    assert report["kept_per_problem"] == {"1": 1, "2": 1}
    ess = [1 / (0.75**2 + 0.25**2), 1.0]
    assert report["ess"] == pytest.approx({"mean": np.mean(ess), "p10": 1.06, "p90": 1.54})
    assert report["chi2"]["mean"] == pytest.approx((3 / ess[0] - 1 + 2 / ess[1] - 1) / 2)
    assert report["utility"] == pytest.approx({"captured": (3.5 + 3) / 2, "top_1": 3.5, "uniform": (7 / 3 + 2) / 2})
    assert report["teachers"]["a"] == pytest.approx({"pool": 2 / 5, "count": 1 / 3, "q": 0.375, "q_tokens": 67.5 / 100})
    assert report["teachers"]["c"] == pytest.approx({"pool": 1 / 5, "count": 1 / 3, "q": 0.5, "q_tokens": 20 / 100})


CURVED: list[dict[str, Any]] = [
    {},
    {"mode": "sharpness", "sharpness": 0.2},
    {"mode": "sharpness", "sharpness": 4.0},
    {"rule": "top_b"},
    {"rule": "softmax", "tau": 0.05},
]


@pytest.mark.parametrize("options", CURVED)
@pytest.mark.parametrize("gates", GATES[:3])
def test_curves_are_the_reports_of_every_budget(options: dict[str, Any], gates: dict[str, Any]) -> None:
    config = SelectConfig(**options, **gates)
    frame = SelectionFrame(Candidates(random_table(6)), config)
    curves = budget_curves(frame, config)
    for budget in range(1, frame.candidates.shape[1] + 1):
        report = diagnose(frame.solve(config.model_copy(update={"budget": budget})))
        assert curves.num_trajectories[budget - 1] == report["num_trajectories"]
        assert curves.num_train_tokens[budget - 1] == report["prompt_tokens"] + report["response_tokens"]
        assert curves.ess[budget - 1] == pytest.approx(report["ess"]["mean"], rel=1e-12)
        assert curves.captured[budget - 1] == pytest.approx(report["utility"]["captured"], rel=1e-12)


def test_rules_without_a_budget_of_ranks_have_no_curve() -> None:
    for config in (
        SelectConfig(rule="all"),
        SelectConfig(rule="best_teacher"),
        SelectConfig(mode="temperature", tau=1),
    ):
        with pytest.raises(ConfigError, match="has no curve over budgets"):
            budget_curves(SelectionFrame(Candidates(random_table(1)), config), config)


@pytest.mark.parametrize(
    ("cost", "gain", "place"),
    [
        ([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.7, 0.9, 0.95, 1.0], 1),  # 0.45, 0.4 and 0.2 above the line
        ([0.0, 1.0, 2.0, 3.0, 4.0], [1.0, 0.3, 0.1, 0.05, 0.0], 1),  # the same, falling
        ([1.0, 2.0, 4.0], [0.0, 0.1, 1.0], 1),  # below the line
        ([1.0, 1.0, 2.0, 3.0], [0.0, 0.0, 2.0, 2.0], 2),  # a budget that adds nothing has the place of the last
        ([100.0, 200.0, 300.0, 400.0], [-2.0, -1.0, -0.5, -0.4], 1),
    ],
)
def test_the_knee_is_farthest_from_the_line_between_the_ends(cost: list[float], gain: list[float], place: int) -> None:
    assert knee(np.array(cost), np.array(gain)) == place


@pytest.mark.parametrize(
    ("cost", "gain"),
    [
        ([], []),
        ([1.0], [1.0]),
        ([1.0, 2.0], [0.0, 1.0]),
        ([1.0, 2.0, 3.0], [0.0, float("nan"), 1.0]),
        ([1.0, float("inf"), 3.0], [0.0, 0.5, 1.0]),
        ([1.0, 2.0, 1.0], [0.0, 0.5, 1.0]),  # no width
        ([3.0, 2.0, 1.0], [0.0, 0.5, 1.0]),  # cost that falls
        ([1.0, 2.0, 3.0], [1.0, 0.5, 1.0]),  # no height
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),  # a line
    ],
)
def test_a_curve_without_a_bend_has_no_knee(cost: list[float], gain: list[float]) -> None:
    assert knee(np.array(cost), np.array(gain)) is None


def test_the_unit_of_tau_is_the_pools_median() -> None:
    frame = SelectionFrame(
        ranked_by_rho([[("a", 3.0), ("a", 2.0), ("a", 1.0), ("a", 0.0)], [("a", 1.0)], [("a", 2.0), ("a", 0.0)]]),
        SelectConfig(energy="+rho"),
    )
    assert frame.tau_NK[0].tolist() == [0.25, 0.75, 1.5, 1.5]
    assert frame.median_tau(3) == 1.0  # of 1.5, 0 and 1
    assert frame.median_tau(1) == 0.25


def test_an_empty_pool_has_an_empty_report() -> None:
    frame = SelectionFrame(Candidates(table([[{}]]).iloc[:0]), SelectConfig())
    report = diagnose(frame.solve(SelectConfig()))
    assert report["num_problems"] == report["num_trajectories"] == 0
    assert report["ess"] == {"mean": None, "p10": None, "p90": None}
    assert frame.median_tau() == 0.0
