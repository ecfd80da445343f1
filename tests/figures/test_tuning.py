"""What the page Tune computes, on numbers worked out by hand and against the engine's own reports."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.figures.tuning import (
    Outcome,
    budget_curve,
    difference,
    largest_difference,
    outcome,
    problem_view,
    share_captured,
)
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.select import kept_table
from tests.selection.scored_pools import random_table, ranked_by_rho

Problems = list[list[tuple[str, float]]]
NAN = float("nan")
HAND: Problems = [[("a", 4.0), ("b", 2.0), ("a", 1.0)], [("b", 1.0), ("c", 3.0)]]


def frames(candidates: Candidates) -> Callable[[SelectConfig], SelectionFrame]:
    return lambda config: SelectionFrame(candidates, config)


def solved(problems: Problems, **options: Any) -> Outcome:
    return outcome(frames(ranked_by_rho(problems)), SelectConfig(energy="+rho", **options))


def random_outcome(seed: int, **options: Any) -> Outcome:
    return outcome(frames(Candidates(random_table(seed))), SelectConfig(**options))


def test_an_outcome_by_hand() -> None:
    """Weights 3/4 and 1/4, and all on the best of two: captured 3.25 between the mean 13/6 and the best 3.5."""
    now = solved(HAND, budget=2)
    assert (now.figures["num_problems"], now.figures["num_trajectories"]) == (2, 3)
    assert now.mean_kept == 1.5
    assert now.captured_share == pytest.approx((3.25 - 13 / 6) / (3.5 - 13 / 6))
    assert not now.is_empty
    assert now.figures == diagnose(now.frame.solve(now.config))


def test_an_outcome_of_nothing_is_empty() -> None:
    without_scores = random_table(1).assign(nll=NAN)
    for table in (without_scores, without_scores.iloc[:0]):
        now = outcome(frames(Candidates(table)), SelectConfig())
        assert now.is_empty
        assert now.mean_kept == 0.0
        assert now.captured_share is None


def test_a_selection_that_cannot_be_made_says_so() -> None:
    with pytest.raises(ConfigError, match="no teacher 'zz' in this pool"):
        solved(HAND, exclude_teachers=("zz",))
    with pytest.raises(ConfigError, match="max_train_tokens"):
        solved(HAND, max_train_tokens=1)


@pytest.mark.parametrize(("captured", "expected"), [(3.0, 1.0), (1.0, 0.0), (2.0, 0.5), (0.0, -0.5), (None, None)])
def test_the_captured_share_goes_from_uniform_to_the_best(captured: float | None, expected: float | None) -> None:
    assert share_captured({"top_1": 3.0, "uniform": 1.0}, captured) == expected


def test_equal_energies_and_empty_pools_have_no_scale() -> None:
    assert share_captured({"top_1": 1.0, "uniform": 1.0}, 1.0) is None
    assert share_captured({"top_1": None, "uniform": None}, None) is None
    assert solved([[("a", 1.0), ("b", 1.0)]], budget=1).captured_share is None


CURVED: list[dict[str, Any]] = [
    {},
    {"mode": "sharpness", "sharpness": 0.3},
    {"mode": "sharpness", "sharpness": 3.0},
    {"rule": "top_b"},
    {"rule": "softmax", "tau": 0.1},
    {"energy": "-nll", "exclude_teachers": ("b",)},
]


@pytest.mark.parametrize("options", CURVED, ids=str)
def test_the_curve_is_the_outcome_of_every_budget(options: dict[str, Any]) -> None:
    candidates = Candidates(random_table(6))
    config = SelectConfig(**options)
    frame = SelectionFrame(candidates, config)
    curve = budget_curve(frame, config)
    assert curve.rule == config.rule
    pool_tokens = np.nansum(candidates.num_tokens_NK[frame.keep_NK])
    for budget in range(1, frame.ranked.num_columns + 1):
        now = outcome(frames(candidates), SelectConfig(**options, budget=budget))
        assert curve.mean_kept[budget - 1] == pytest.approx(now.mean_kept)
        assert curve.captured[budget - 1] == pytest.approx(now.captured_share)
        assert curve.ess[budget - 1] == pytest.approx(now.figures["ess"]["mean"])
        assert curve.tokens[budget - 1] == pytest.approx(now.solution.kept.train_tokens / pool_tokens)


@pytest.mark.parametrize(
    "options", [{"rule": "all"}, {"rule": "best_teacher"}, {"mode": "temperature", "tau": 0.01, "max_budget": 2}]
)
def test_rules_without_a_budget_of_ranks_show_the_curve_of_the_paper_rule(options: dict[str, Any]) -> None:
    candidates = Candidates(random_table(6))
    gates: dict[str, Any] = {"exclude_teachers": ("b",), "min_response_tokens": 20, "energy": "random", "seed": 4}
    config = SelectConfig(**gates, **options)
    curve = budget_curve(SelectionFrame(candidates, config), config)
    paper = SelectConfig(**gates)
    expected = budget_curve(SelectionFrame(candidates, paper), paper)
    assert curve.rule == "chi2"
    for ours, theirs in zip(curve[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert curve.knee == expected.knee


def test_limits_and_the_budget_do_not_change_the_curve() -> None:
    candidates = Candidates(random_table(6))
    plain, limited = SelectConfig(budget=2), SelectConfig(budget=5, max_teacher_share=0.5, max_train_tokens=10_000)
    frame = SelectionFrame(candidates, plain)
    for ours, theirs in zip(budget_curve(frame, plain), budget_curve(frame, limited), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_knee_is_a_budget() -> None:
    """Top B of energies 10, 9, 1, 0: captured 10, 9.5, 6.67, 5; the second keeps most for what it costs."""
    candidates = ranked_by_rho([[("a", 10.0), ("a", 9.0), ("a", 1.0), ("a", 0.0)]])
    config = SelectConfig(energy="+rho", rule="top_b")
    curve = budget_curve(SelectionFrame(candidates, config), config)
    assert curve.captured == pytest.approx([1.0, 0.9, 1 / 3, 0.0])
    assert curve.mean_kept.tolist() == [1, 2, 3, 4]
    assert curve.tokens == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert curve.knee == 2


def test_scores_without_token_counts_have_a_curve_without_tokens() -> None:
    table = random_table(6)
    table["num_prompt_tokens"] = np.nan
    frame = SelectionFrame(Candidates(table), SelectConfig())
    curve = budget_curve(frame, SelectConfig())
    assert np.isnan(curve.tokens).all()
    assert np.isfinite(curve.ess).all()


@pytest.mark.parametrize(
    "problems", [[[("a", 1.0)]], [[("a", 1.0), ("b", 1.0)]], [[("a", 1.0)], [("a", NAN)]]], ids=str
)
def test_a_pool_without_anything_to_choose_has_a_curve_without_a_knee(problems: Problems) -> None:
    now = solved(problems)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curve = budget_curve(now.frame, now.config)
    assert curve.knee is None
    assert np.isnan(curve.captured).all()
    assert np.isfinite(curve.mean_kept).all()


def test_a_difference_takes_the_pinned_selection_as_a() -> None:
    pinned, now = solved(HAND, budget=2), solved(HAND, budget=1)
    figures = difference(now, pinned)
    assert (figures["num_only_a"], figures["num_only_b"], figures["num_both"]) == (1, 0, 2)
    assert figures["tokens"] == {"a": 330, "b": 220, "difference": -110}


def test_the_largest_difference_by_hand() -> None:
    """At B = 1 problem 1 loses 1/4 of its weight, problem 2 nearly half, problem 0 nothing."""
    problems: Problems = [
        [("a", 1.0)],
        [("a", 4.0), ("b", 2.0), ("a", 1.0)],
        [("a", 4.0), ("b", 3.9), ("a", 1.0)],
    ]
    two, one = solved(problems, budget=2), solved(problems, budget=1)
    assert largest_difference(one, two) == largest_difference(two, one) == 2
    # Alone: 10/16 · 2 of problem 1 is farthest from the 1 of uniform weights.
    assert largest_difference(two, None) == 1


def test_a_problem_that_only_the_current_selection_keeps_differs_most_and_one_that_is_lost_is_not_shown() -> None:
    problems: Problems = [[("a", 4.0), ("a", 1.0)], [("b", 2.0), ("b", 1.0)]]
    now, pinned = solved(problems, exclude_teachers=("b",)), solved(problems)
    assert (largest_difference(pinned, now), largest_difference(now, pinned)) == (1, 0)
    # It is gone from the one selection: asked for by name, there is nothing of it to show.
    view = problem_view(now, 1)
    assert (view.columns, view.energy.tolist(), view.prob.tolist(), view.cut) == ([], [], [], None)


def test_an_empty_selection_has_no_problem_to_show() -> None:
    without_scores = random_table(1).assign(nll=NAN)
    for table in (without_scores, without_scores.iloc[:0]):
        now = outcome(frames(Candidates(table)), SelectConfig())
        assert largest_difference(now, None) is None
        assert largest_difference(now, now) is None


RULES: list[dict[str, Any]] = [
    {},
    {"budget": 1},
    {"budget": 50},
    {"mode": "sharpness", "sharpness": 0.2},
    {"mode": "sharpness", "sharpness": 5.0, "budget": 4},
    {"mode": "temperature", "tau": 0.002},
    {"mode": "temperature", "tau": 0.05, "max_budget": 2},
    {"rule": "top_b"},
    {"rule": "softmax", "tau": 0.05},
    {"rule": "best_teacher"},
    {"rule": "all"},
    {"max_teacher_share": 0.4},
    {"max_train_tokens": 14_000},
    {"deduplicate": True, "exclude_teachers": ("d",)},
]


@pytest.mark.parametrize("options", RULES, ids=str)
def test_a_problem_shows_the_weights_that_are_saved(options: dict[str, Any]) -> None:
    now = random_outcome(7, **options)
    table = kept_table(now.solution, now.config)
    candidates = now.frame.candidates
    problem_ids = candidates.table["problem_id"].unique()
    for row, problem_id in enumerate(problem_ids):
        view = problem_view(now, row)
        assert np.all(np.diff(view.energy) <= 0)
        rows = candidates.row_NK[row, view.columns]
        shown = {
            int(place): prob
            for place, prob in zip(candidates.table["candidate_id"].iloc[rows], view.prob, strict=True)
            if prob > 0
        }
        saved = table[table["problem_id"] == problem_id]
        assert shown == pytest.approx(dict(zip(saved["candidate_id"], saved["selection_prob"], strict=True)))


@pytest.mark.parametrize("budget", [1, 2, 3, 50])
def test_the_cut_of_the_paper_rule_is_the_next_energy(budget: int) -> None:
    now = random_outcome(7, budget=budget)
    ranked, found = now.frame.ranked, 0
    for row in np.flatnonzero(ranked.num_valid_N > 1).tolist():
        view = problem_view(now, row)
        threshold = view.energy[min(budget, len(view.energy) - 1)]
        if view.energy[0] == threshold:  # nothing ranks the top B
            assert view.cut is None
            continue
        assert view.cut == pytest.approx(threshold, abs=1e-9)
        found += 1
    assert found > 20


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sharpness", "sharpness": 0.2},
        {"mode": "sharpness", "sharpness": 5.0},
        {"mode": "temperature", "tau": 1e-4},
        {"mode": "temperature", "tau": 0.01},
        {"mode": "temperature", "tau": 0.01, "max_budget": 1},
    ],
    ids=str,
)
def test_the_cut_is_where_weights_reach_zero(options: dict[str, Any]) -> None:
    now = random_outcome(7, **options)
    for row in np.flatnonzero(now.frame.ranked.num_valid_N > 1).tolist():
        view = problem_view(now, row)
        if view.cut is None:
            continue
        width = min(now.config.most_kept or len(view.columns), len(view.columns))
        above = np.maximum(view.energy[:width] - view.cut, 0.0)
        np.testing.assert_allclose(view.prob[:width], above / above.sum(), atol=1e-7)


def test_the_cut_of_one_that_is_kept_alone_by_hand() -> None:
    """τK = 0.5·3 below the best, at 2.5: not the next energy."""
    problems: Problems = [[("a", 4.0), ("b", 1.0), ("a", 0.0)]]
    view = problem_view(solved(problems, mode="temperature", tau=0.5), 0)
    assert view.prob.tolist() == [1.0, 0.0, 0.0]
    assert view.cut == pytest.approx(2.5)
    # s·τ_1·K = 0.5·(4 − 1)
    assert problem_view(solved(problems, mode="sharpness", sharpness=0.5, budget=1), 0).cut == pytest.approx(2.5)
    assert problem_view(solved(problems, budget=1), 0).cut == pytest.approx(1.0)


@pytest.mark.parametrize(
    "options", [{"rule": "top_b"}, {"rule": "all"}, {"rule": "best_teacher"}, {"rule": "softmax", "tau": 1.0}]
)
def test_other_rules_have_no_cut(options: dict[str, Any]) -> None:
    assert problem_view(solved(HAND, **options), 0).cut is None


def test_a_lone_candidate_has_all_the_weight_and_is_its_own_threshold() -> None:
    view = problem_view(solved([[("a", 1.0)]]), 0)
    assert (view.columns, view.energy.tolist(), view.prob.tolist(), view.cut) == ([0], [1.0], [1.0], 1.0)


def test_under_a_limit_weight_begins_at_the_first_that_is_not_kept() -> None:
    problems: Problems = [[("a", 4.0), ("b", 2.0), ("a", 1.0)], [("b", 5.0), ("c", 3.0), ("a", 0.0)]]
    now = solved(problems, budget=2, max_train_tokens=220)
    assert [int((problem_view(now, row).prob > 0).sum()) for row in (0, 1)] == [1, 1]
    assert [problem_view(now, row).cut for row in (0, 1)] == [2.0, 3.0]


def test_the_token_share_is_the_selections_own_not_a_place_on_the_curve() -> None:
    """Every candidate has 110 tokens; the limit leaves two of six."""
    problems: Problems = [[("a", 4.0), ("b", 2.0), ("a", 1.0)], [("b", 5.0), ("c", 3.0), ("a", 0.0)]]
    assert solved(problems, budget=2, max_train_tokens=220).token_share == pytest.approx(2 / 6)
    assert solved(problems, rule="all").token_share == 1.0
