"""Two selections side by side, solved or saved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scored_pools import random_table, ranked_by_rho

from lark_engine.config import SelectConfig
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.compare import compare, kept_of_tables, weight_changes
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.select import kept_table


def test_a_comparison_by_hand() -> None:
    """Problem 0: a's 3/4 and b's 1/4 become all of a; problem 1 does not change."""
    candidates = ranked_by_rho([[("a", 4.0), ("b", 2.0), ("a", 1.0)], [("b", 1.0)]], tokens=[[100, 60, 20], [40]])
    frame = SelectionFrame(candidates, SelectConfig(energy="+rho"))
    first, second = (frame.solve(SelectConfig(energy="+rho", budget=budget)) for budget in (2, 1))
    result = compare(first.kept, second.kept)
    assert (result["num_both"], result["num_only_a"], result["num_only_b"]) == (2, 1, 0)
    assert result["overlap"] == pytest.approx(2 / 3)
    assert result["tokens"] == {"a": 200, "b": 140, "difference": -60}
    assert result["teachers"]["a"]["count"] == pytest.approx({"a": 1 / 3, "b": 1 / 2, "difference": 1 / 6})
    assert result["teachers"]["a"]["q"] == pytest.approx({"a": 0.375, "b": 0.5, "difference": 0.125})
    assert result["weight_change"] == pytest.approx({"mean": 0.125, "p90": 0.225, "share_changed": 0.5})


def test_a_selection_does_not_differ_from_itself() -> None:
    kept = SelectionFrame(Candidates(random_table(1)), SelectConfig()).solve(SelectConfig()).kept
    result = compare(kept, kept)
    assert result["overlap"] == 1.0
    assert result["weight_change"] == {
        "mean": pytest.approx(0.0, abs=1e-12),
        "p90": pytest.approx(0.0, abs=1e-12),
        "share_changed": 0.0,
    }


def test_a_problem_that_only_one_keeps_has_changed_wholly() -> None:
    rows = random_table(2)
    config = SelectConfig(exclude_teachers=("a", "b"))
    first, second = (SelectionFrame(Candidates(rows), c).solve(c).kept for c in (SelectConfig(), config))
    change = compare(first, second)["weight_change"]
    assert change == compare(second, first)["weight_change"]
    lost = len(set(first.problem.tolist()) - set(second.problem.tolist()))
    assert lost > 0
    assert change["mean"] >= lost / len(set(first.problem.tolist()))


def test_saved_selections_compare_as_solved_ones_do() -> None:
    rows = random_table(3)
    frame = SelectionFrame(Candidates(rows), SelectConfig())
    configs = (SelectConfig(), SelectConfig(mode="sharpness", sharpness=0.3, budget=4))
    solutions = [frame.solve(config) for config in configs]
    tables = [kept_table(s, c) for s, c in zip(solutions, configs, strict=True)]
    solved, saved = compare(*(s.kept for s in solutions)), compare(*kept_of_tables(*tables))
    assert saved["overlap"] == solved["overlap"]
    assert saved["teachers"].keys() == solved["teachers"].keys()
    for name, mix in solved["teachers"].items():
        for share in ("count", "q"):
            assert saved["teachers"][name][share] == pytest.approx(mix[share])
    assert saved["tokens"] == solved["tokens"]
    assert saved["weight_change"] == pytest.approx(solved["weight_change"])
    pairs = [set(zip(t["problem_id"], t["candidate_id"], strict=True)) for t in tables]
    assert saved["overlap"] == len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])
    prob = [t.set_index(["problem_id", "candidate_id"])["selection_prob"] for t in tables]
    change = prob[0].sub(prob[1], fill_value=0.0).abs().groupby(level=0).sum() / 2
    assert saved["weight_change"]["mean"] == pytest.approx(change.mean())


def test_empty_selections_overlap_wholly() -> None:
    columns = ["problem_id", "candidate_id", "teacher", "selection_prob", "num_prompt_tokens", "num_response_tokens"]
    empty = pd.DataFrame({name: pd.Series(dtype="str" if name in columns[:3:2] else np.float64) for name in columns})
    result = compare(*kept_of_tables(empty, empty))
    assert result["overlap"] == 1.0
    assert result["weight_change"]["mean"] is None


def test_weight_changes_of_each_problem_by_hand() -> None:
    """Problem 0: 3/4 and 1/4 become 1; problem 1 does not change; problem 2 has no score; problem 3 is kept once."""
    candidates = ranked_by_rho(
        [
            [("a", 4.0), ("b", 2.0), ("a", 1.0)],
            [("b", 1.0)],
            [("a", float("nan"))],
            [("b", 1.0), ("b", 0.5)],
        ]
    )
    gated = SelectConfig(energy="+rho", budget=1, exclude_teachers=("b",))
    frame = SelectionFrame(candidates, SelectConfig(energy="+rho"))
    two, one = (frame.solve(SelectConfig(energy="+rho", budget=budget)).kept for budget in (2, 1))
    without_b = SelectionFrame(candidates, gated).solve(gated).kept
    np.testing.assert_allclose(weight_changes(two, one), [0.25, 0.0, np.nan, 0.0], atol=1e-12)
    np.testing.assert_allclose(weight_changes(one, two), [0.25, 0.0, np.nan, 0.0], atol=1e-12)
    np.testing.assert_allclose(weight_changes(one, without_b), [0.0, 1.0, np.nan, 1.0], atol=1e-12)
    # Up to the last problem that either keeps: none of b's is left here.
    np.testing.assert_allclose(weight_changes(without_b, without_b), [0.0], atol=1e-12)


def test_weight_changes_of_nothing_are_none() -> None:
    config = SelectConfig()
    empty = SelectionFrame(Candidates(random_table(1).iloc[:0]), config).solve(config).kept
    assert weight_changes(empty, empty).tolist() == []


def test_weight_changes_leave_both_selections_as_they_were() -> None:
    frame = SelectionFrame(Candidates(random_table(5)), SelectConfig())
    a, b = (frame.solve(SelectConfig(budget=budget)).kept for budget in (2, 4))
    before = [kept.prob.tolist() for kept in (a, b)]
    first = weight_changes(a, b)
    assert [kept.prob.tolist() for kept in (a, b)] == before
    np.testing.assert_array_equal(weight_changes(a, b), first)
    assert np.nanmean(first) == pytest.approx(compare(a, b)["weight_change"]["mean"])
