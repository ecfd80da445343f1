"""The explanation of one problem: every number from literal inputs, and the same as the engine's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from lark_engine.config import SelectConfig
from lark_engine.explore.explain import (
    ProblemScores,
    Threshold,
    bin_contributions,
    contributions,
    explain_problem,
    gate_reasons,
    problem_order,
    without_each_teacher,
)
from lark_engine.scoring.criteria import g_hat
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame

NLL = [0.5, 1.0, 1.5, 2.0]
BRIER = [0.3, 0.35, 0.35, 1.0]  # ΣL = 5, Σbrier = 2, R = 0.4: g = (0.4, 0.3, 0.1, 1.2) / 5


def candidates(problems: dict[str, list[tuple[str, float, float]]], **columns: Any) -> Candidates:
    """A scored pool of problems with (teacher, nll, brier) each."""
    lines = [
        (problem, number, teacher, nll, brier)
        for problem, rows in problems.items()
        for number, (teacher, nll, brier) in enumerate(rows)
    ]
    table = pd.DataFrame(lines, columns=["problem_id", "candidate_id", "teacher", "nll", "brier"])
    plain = {
        "num_response_tokens": 10, "num_prompt_tokens": 5, "is_correct": pd.array([True] * len(table), "boolean"),
        "truncated": False, "row": np.arange(len(table)), "response_hash": np.arange(len(table)),
    }  # fmt: skip
    return Candidates(table.assign(**{**plain, **columns}))


def explained(pool: Candidates, problem: int = 0, **options: Any) -> ProblemScores:
    config = SelectConfig(**options)
    return explain_problem(SelectionFrame(pool, config).solve(config), config, problem)


@pytest.fixture
def pool() -> Candidates:
    return candidates({"p": list(zip("abcd", NLL, BRIER, strict=True))})


def test_the_parts_of_a_score_multiply_to_it(pool: Candidates) -> None:
    scores = explained(pool, B=2)
    assert (scores.sum_nll, scores.sum_brier, scores.ratio) == (5.0, 2.0, 0.4)
    assert scores.share == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert scores.rho == pytest.approx([0.6, 0.35, 0.7 / 3, 0.5])
    assert scores.bracket == pytest.approx([0.8, 0.3, 0.2 / 3, 0.6])
    assert scores.share * scores.bracket == pytest.approx([0.08, 0.06, 0.02, 0.24])
    assert scores.g_hat == pytest.approx([0.08, 0.06, 0.02, 0.24])
    assert scores.rank.tolist() == [2, 3, 4, 1]


def test_rank_threshold_and_weight_are_those_of_the_selection() -> None:
    pool = candidates({"p": list(zip("abcd", NLL, [0.3, 0.5, 0.35, 1.0], strict=True))})
    scores = explained(pool, B=2)
    energy = g_hat(np.array([NLL]), np.array([[0.3, 0.5, 0.35, 1.0]]))[0]
    margins = energy[[3, 1]] - energy[0]
    assert scores.rank.tolist() == [3, 2, 4, 1]
    assert scores.threshold == Threshold(pytest.approx(energy[0]), 3)
    assert scores.weight == pytest.approx([0.0, margins[1] / margins.sum(), 0.0, margins[0] / margins.sum()])


def test_the_threshold_of_another_temperature_is_where_weight_begins(pool: Candidates) -> None:
    for options in ({"B": 3, "mode": "sharpness", "sharpness": 3.0}, {"mode": "temperature", "tau": 0.07}):
        scores = explained(pool, **options)
        assert scores.threshold is not None and scores.threshold.rank is None
        kept = scores.weight > 0
        # q_k = (e_k − ν) / (τK): weights are proportional to the margins above ν.
        margins = scores.energy[kept] - scores.threshold.energy
        assert scores.weight[kept] == pytest.approx(margins / margins.sum())


def test_a_budget_of_all_has_the_smallest_energy_as_threshold_and_rule_all_has_none(pool: Candidates) -> None:
    assert explained(pool, B=9).threshold == Threshold(pytest.approx(0.02), 4)
    assert explained(pool, B=9, rule="top_b").threshold is None
    assert explained(pool, rule="all").threshold is None


def test_who_a_gate_took_out_has_no_rank_and_no_part_in_the_sums(pool: Candidates) -> None:
    scores = explained(pool, exclude_teachers=["d"])
    assert (scores.sum_nll, scores.sum_brier) == (3.0, pytest.approx(1.0))
    assert scores.rank.tolist() == [1, 2, 3, 0]
    assert np.isnan([scores.g_hat[3], scores.share[3], scores.bracket[3]]).all()
    config = SelectConfig(exclude_teachers=["d"], B=2)
    assert gate_reasons(SelectionFrame(pool, config), config, 0) == ["", "", "", "excluded_teacher"]


def test_every_gate_is_named_for_whom_it_took_out() -> None:
    pool = candidates(
        {"p": [("a", 1, 0.4), ("b", 1, 0.4), ("c", 1, 0.4), ("d", 1, 0.4)]},
        is_correct=pd.array([False, True, True, None], "boolean"), response_hash=[1, 2, 2, 3],
    )  # fmt: skip
    config = SelectConfig(correct_only=True, deduplicate=True)
    reasons = gate_reasons(SelectionFrame(pool, config), config, 0)
    assert reasons == ["not_known_correct", "", "duplicate_response", "not_known_correct"]


def test_without_a_teacher_is_what_a_pool_edit_without_it_gives() -> None:
    rows = [("a", 0.5, 0.3), ("b", 1.0, 0.5), ("c", 1.5, 0.35), ("d", 2.0, 1.0), ("a", 0.7, 0.5)]
    pool = candidates({"p": rows})
    scores = explained(pool, B=2)
    found = {line.teacher: line for line in without_each_teacher(scores, SelectConfig(B=2))}
    assert list(found) == ["a", "b", "c", "d"]
    for teacher, line in found.items():
        really = explained(pool, B=2, exclude_teachers=[teacher])
        assert line.rank.tolist() == really.rank.tolist()
        assert line.energy == pytest.approx(really.energy, nan_ok=True)
        assert line.weight == pytest.approx(really.weight)


def test_without_a_teacher_another_energy_keeps_its_values_and_a_rule_of_the_whole_pool_has_no_weight(
    pool: Candidates,
) -> None:
    scores = explained(pool, energy="-nll", rule="best_teacher")
    lines = list(without_each_teacher(scores, SelectConfig(energy="-nll", rule="best_teacher")))
    assert lines[0].energy[1:].tolist() == [-1.0, -1.5, -2.0]
    assert lines[0].rank.tolist() == [0, 1, 2, 3]
    assert all(line.weight is None for line in lines)


def test_contributions_of_tokens_sum_to_the_score_also_as_float16() -> None:
    rng = np.random.default_rng(3)
    nll_KT = rng.exponential(0.6, (3, 500))
    brier_KT = np.minimum(rng.exponential(0.3, (3, 500)), 2.0)
    rows = [(name, nll.mean(), brier.mean()) for name, nll, brier in zip("abc", nll_KT, brier_KT, strict=True)]
    scores = explained(candidates({"p": rows}))
    for k in range(3):
        exact = contributions(nll_KT[k], brier_KT[k], scores)
        assert exact.sum() == pytest.approx(scores.g_hat[k], rel=1e-12)
        stored = contributions(
            nll_KT[k].astype(np.float16).astype(float), brier_KT[k].astype(np.float16).astype(float), scores
        )
        assert stored.sum() == pytest.approx(scores.g_hat[k], rel=2e-3)


def test_contributions_of_bins_sum_to_the_score_with_a_shorter_last_bin() -> None:
    scores = explained(candidates({"p": [("a", 0.9, 0.5), ("b", 0.6, 0.2)]}))
    nll, brier = np.array([1.0, 0.5]), np.array([0.55, 0.3])
    sizes = np.array([64, 16])  # mean nll 0.9, mean brier 0.5
    parts = bin_contributions(nll, brier, sizes, scores)
    assert parts.sum() == pytest.approx(scores.g_hat[0], rel=1e-12)


def test_a_problem_with_one_candidate_and_one_without_a_score_are_explained() -> None:
    pool = candidates({"one": [("a", 0.8, 0.4)], "lost": [("a", np.nan, np.nan), ("b", 0.5, 0.2)]})
    alone = explained(pool, 0)
    assert (alone.rank.tolist(), alone.weight.tolist()) == ([1], [1.0])
    assert alone.g_hat == pytest.approx([0.5])  # 2ρ − ρ
    lost = explained(pool, 1)
    assert lost.rank.tolist() == [0, 1]
    assert (lost.sum_nll, lost.num_ranked) == (0.5, 1)
    assert np.isnan(lost.share[0]) and np.isnan(lost.rho[0])
    [line_a, line_b] = without_each_teacher(lost, SelectConfig())
    assert (line_a.rank.tolist(), line_b.rank.tolist()) == ([0, 1], [0, 0])


def test_no_valid_candidate_gives_no_threshold() -> None:
    scores = explained(candidates({"p": [("a", np.nan, np.nan)], "q": [("a", 1.0, 0.3)]}))
    assert scores.threshold is None and scores.num_ranked == 0
    assert np.isnan(scores.ratio)


def test_whom_a_constraint_took_out_gave_way() -> None:
    pool = candidates({"p": [("a", 1, 0.9), ("b", 1, 0.5)], "q": [("a", 1, 0.9), ("b", 1, 0.2)]})
    config = SelectConfig(B=1, max_teacher_share=0.5)
    solution = SelectionFrame(pool, config).solve(config)
    marks = [explain_problem(solution, config, problem).gave_way.tolist() for problem in (0, 1)]
    assert sorted(marks) == [[False, False], [True, False]]


def test_problems_are_ordered_by_spread_and_by_margin() -> None:
    pool = candidates(
        {
            "close": [("a", 1, 0.50), ("b", 1, 0.49), ("c", 1, 0.1)],
            "wide": [("a", 1, 1.50), ("b", 1, 0.50), ("c", 1, 0.1)],
            "one": [("a", 1, 0.5)],
        }
    )
    config = SelectConfig(B=1)
    frame = SelectionFrame(pool, config)
    assert problem_order(frame, "pool", 1).tolist() == [0, 1, 2]
    assert problem_order(frame, "spread", 1).tolist() == [1, 0, 2]
    assert problem_order(frame, "margin", 1).tolist() == [0, 1, 2]
    assert problem_order(frame, "margin", 2).tolist() == [0, 1, 2]
