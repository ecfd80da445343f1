"""How a metric is distributed: quantiles, densities, planes and length bins against literal numbers."""

from __future__ import annotations

import numpy as np
import pytest

from lark_engine.explore import distributions
from lark_engine.explore.distributions import Span
from lark_engine.scoring.criteria import g_hat

NAN = np.nan
VALUES = np.array([[1.0, 2.0, 3.0], [4.0, NAN, 10.0]])
TEACHERS = np.array([[0, 1, 0], [0, 1, 1]], dtype=np.int16)
ALL = np.ones((2, 3), dtype=bool)


def test_grouped_quantiles_are_numpys_quantiles_of_each_group() -> None:
    rng = np.random.default_rng(0)
    values, codes = rng.normal(size=500), rng.integers(0, 6, 500)
    codes[codes == 4] = 5  # an empty group
    probs = np.array([0.0, 0.05, 0.5, 0.95, 1.0])
    found = distributions.grouped_quantiles(values, codes, 6, probs)
    for group in (0, 1, 2, 3, 5):
        assert found[group] == pytest.approx(np.quantile(values[codes == group], probs))
    assert np.isnan(found[4]).all()


def test_quantiles_by_teacher_leave_out_what_is_hidden_or_not_known() -> None:
    shown = ALL.copy()
    shown[1, 2] = False
    found = distributions.by_teacher(VALUES, shown, TEACHERS, 3)
    assert found.num_T.tolist() == [3, 1, 0]
    assert found.quantile_TQ[0].tolist() == pytest.approx([1.2, 2.0, 3.0, 3.5, 3.9])
    assert found.median_T[1] == 2.0 and np.isnan(found.median_T[2])


def test_nothing_in_sight_has_no_quantiles() -> None:
    found = distributions.by_teacher(VALUES, ~ALL, TEACHERS, 2)
    assert found.num_T.tolist() == [0, 0] and np.isnan(found.quantile_TQ).all()


def test_the_span_of_an_axis_leaves_the_outermost_out_and_is_never_empty() -> None:
    assert distributions.span_of(np.arange(1001.0), tail=0.01) == pytest.approx((10 - 39.2, 990 + 39.2))
    assert distributions.span_of(np.full((2, 2), 3.0)) == (1.5, 4.5)
    assert distributions.span_of(np.full((2, 2), NAN)) == (0.0, 1.0)


def test_a_density_integrates_to_one_and_its_part_is_nowhere_above_it() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(400, 5))
    teachers = np.tile(np.array([0, 1, 0, 1, 0], dtype=np.int16), (400, 1))
    part = rng.random(values.shape) < 0.3
    found = distributions.densities(values, np.ones_like(part), part, teachers, 3, Span(-5.0, 5.0))
    step = found.at_P[1] - found.at_P[0]
    assert found.density_TP[:2].sum(axis=1) * step == pytest.approx([1.0, 1.0])
    assert (found.part_TP <= found.density_TP + 1e-12).all()
    share = part[:, teachers[0] == 0].mean()
    assert found.part_TP[0].sum() * step == pytest.approx(share)
    assert not found.density_TP[2].any()
    at_zero = found.density_TP[0][np.abs(found.at_P).argmin()]
    assert at_zero == pytest.approx(0.3989, abs=0.04)  # a standard normal


def test_what_lies_outside_a_density_is_counted() -> None:
    found = distributions.densities(VALUES, ALL, ~ALL, TEACHERS, 2, Span(0.0, 5.0))
    assert found.num_outside == 1


def test_equal_values_have_a_density_too() -> None:
    found = distributions.densities(np.full((2, 3), 2.0), ALL, ALL, TEACHERS, 2, Span(0.0, 4.0))
    assert np.isfinite(found.density_TP).all() and found.density_TP[0].argmax() in (59, 60)


def test_a_plane_counts_each_candidate_in_its_cell() -> None:
    x = np.array([[0.0, 0.5, 1.0], [0.1, 2.0, NAN]])
    y = np.array([[0.0, 0.9, 1.0], [0.1, 0.5, 0.5]])
    found = distributions.plane(x, y, ALL, Span(0.0, 1.0), Span(0.0, 1.0), num_bins=2)
    assert found.count_YX.tolist() == [[2, 0], [0, 2]]
    assert found.num_outside == 1
    assert found.x_edges.tolist() == [0.0, 0.5, 1.0]


def test_a_line_of_equal_g_hat_goes_through_the_candidates_of_that_g_hat() -> None:
    nll, brier = np.array([[1.0, 2.0, 3.0]]), np.array([[0.5, 0.7, 0.6]])
    sums = distributions.median_sums(nll, brier)
    assert sums == pytest.approx((6.0, 1.8))
    for column, value in enumerate(g_hat(nll, brier)[0]):
        assert sums.brier_at(value, nll[0, column]) == pytest.approx(brier[0, column])


def test_the_mean_g_hat_of_problems_is_r_over_k() -> None:
    nll = np.array([[1.0, 3.0, NAN], [2.0, 2.0, 4.0]])
    brier = np.array([[0.4, 0.8, 0.3], [0.5, 0.5, 1.0]])
    assert distributions.mean_g_hat(nll, brier) == pytest.approx((1.2 / 4 / 2 + 2.0 / 8 / 3) / 2)
    assert distributions.mean_g_hat(nll, brier) == pytest.approx(np.nanmean(g_hat(nll, brier), axis=1).mean())
    assert np.isnan(distributions.mean_g_hat(np.full((1, 2), NAN), np.full((1, 2), NAN)))


def test_bins_of_length_hold_quartiles_where_there_are_enough() -> None:
    tokens = np.array([[10.0, 11.0, 12.0, 13.0, 14.0, 100.0]])
    values = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 9.0]])
    found = distributions.along_length(
        values, tokens, np.ones((1, 6), dtype=bool), np.zeros((1, 6), dtype=np.int16), 1, np.array([10.0, 40.0, 160.0])
    )
    assert found.num_TL.tolist() == [[5, 1]]
    assert found.quantile_TL3[0, 0].tolist() == [2.0, 3.0, 4.0]
    assert np.isnan(found.quantile_TL3[0, 1]).all()
    assert found.center_L.tolist() == pytest.approx([20.0, 80.0])


def test_edges_of_length_bins_have_equal_ratios() -> None:
    edges = distributions.length_edges(np.arange(100.0, 1100.0), num_bins=4)
    assert edges[1:] / edges[:-1] == pytest.approx(np.full(4, edges[1] / edges[0]))
    assert (edges[0], edges[-1]) == pytest.approx((105, 1094), abs=1)
    assert distributions.length_edges(np.full(3, NAN)).tolist()[0] == 1.0
    assert (np.diff(distributions.length_edges(np.full(3, 7.0))) > 0).all()


def test_the_rank_correlation_is_taken_within_problems() -> None:
    # Between the problems longer goes with higher, within each of them with lower.
    x = np.array([[1.0, 2.0, 3.0], [11.0, 12.0, 13.0]])
    y = np.array([[3.0, 2.0, 1.0], [13.0, 12.0, 11.0]])
    assert distributions.rank_correlation(x, y, ALL) == pytest.approx(-1.0)
    assert distributions.rank_correlation(x, x**3, ALL) == pytest.approx(1.0)


def test_the_rank_correlation_of_one_problem_is_spearmans_with_ties_and_gaps() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 8, (1, 40)).astype(float), rng.normal(size=(1, 40))
    x[0, 5] = y[0, 9] = NAN
    known = ~np.isnan(x[0]) & ~np.isnan(y[0])
    expected = spearmanr(x[0, known], y[0, known]).statistic
    assert distributions.rank_correlation(x, y, np.ones((1, 40), dtype=bool)) == pytest.approx(expected)


def test_nothing_that_varies_has_no_correlation() -> None:
    assert np.isnan(distributions.rank_correlation(np.ones((2, 3)), VALUES, ALL))
