from __future__ import annotations

import time
from collections import Counter
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lark_engine.errors import ConfigError
from lark_engine.evaluation.paired import compare_paired, holm, sign_flip_p_value, sign_test_p_value

fifths = st.integers(0, 5).map(lambda c: c / 5)
thirds = st.integers(0, 3).map(lambda c: c / 3)


def test_differences_and_counts_by_hand() -> None:
    paired = compare_paired([0.2, 0.4, 0.6, 1.0], [0.4, 0.4, 1.0, 0.8])
    assert (paired.num_problems, paired.num_better, paired.num_worse, paired.num_tied) == (4, 2, 1, 1)
    assert (paired.mean_a, paired.mean_b, paired.difference) == pytest.approx((0.55, 0.65, 0.1))
    # Of the eight sign flips of 0.2, 0.4, 0.2 only ±0.8 (2), ±0.4 (4) are as far from 0 as 0.4; ±0 (2) are not.
    assert (paired.test, paired.p_value) == ("exact permutation", 0.75)


@given(st.lists(st.tuples(fifths, fifths).filter(lambda pair: pair[0] != pair[1]), min_size=50, max_size=80))
@settings(max_examples=30, deadline=None)
def test_where_fifty_problems_differ_it_is_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    if np.ptp(np.subtract(b, a)) < 0.1:
        return
    paired, expected = compare_paired(a, b), stats.ttest_rel(b, a)
    interval = expected.confidence_interval(0.95)
    assert paired.test == "paired t"
    assert paired.p_value == pytest.approx(expected.pvalue)
    assert (paired.low, paired.high) == pytest.approx((interval.low, interval.high))


@given(st.lists(st.tuples(thirds, thirds), min_size=2, max_size=8))
@settings(max_examples=30, deadline=None)
def test_under_fifty_problems_it_is_the_exact_permutation_test(pairs: list[tuple[float, float]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    # Counts, so that scipy's equality of sums is not a matter of the last bits.
    counts = [np.rint(3 * np.array(values)) for values in (b, a)]
    expected = stats.permutation_test(
        counts, lambda x, y, axis: np.sum(x - y, axis=axis), permutation_type="samples", n_resamples=np.inf,
        vectorized=True,
    )  # fmt: skip
    assert compare_paired(a, b).p_value == pytest.approx(expected.pvalue)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=9))
@settings(max_examples=50)
def test_sign_flips_equal_their_enumeration(differences: list[float]) -> None:
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(differences))).reshape(len(differences), -1)
    as_far = np.abs(signs.T @ differences) >= abs(sum(differences)) - 1e-9 * max(1.0, *map(abs, differences), 1.0)
    assert sign_flip_p_value(differences) == pytest.approx(as_far.mean())


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=49))
@settings(max_examples=50, deadline=None)
def test_for_zero_one_values_the_permutation_test_is_the_sign_test(pairs: list[tuple[bool, bool]]) -> None:
    a, b = ([float(v) for v in values] for values in zip(*pairs, strict=True))
    paired = compare_paired(a, b)
    untied = paired.num_better + paired.num_worse
    expected = stats.binomtest(paired.num_better, untied).pvalue if untied else 1.0
    assert paired.test == "exact permutation"
    assert paired.p_value == pytest.approx(expected)
    assert sign_test_p_value(paired.num_better, paired.num_worse) == pytest.approx(expected)


def test_forty_nine_problems_are_exact_within_a_second() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 6, 49) / 5).tolist(), (rng.integers(0, 6, 49) / 5).tolist()
    started = time.process_time()
    paired = compare_paired(a, b)
    assert time.process_time() - started < 1
    fifths_moved = [round(5 * (y - x)) for x, y in zip(a, b, strict=True)]
    counts = Counter([0])
    for d in fifths_moved:
        counts = Counter({s: counts[s - d] + counts[s + d] for c in counts for s in (c - d, c + d)})
    as_far = sum(count for s, count in counts.items() if abs(s) >= abs(sum(fifths_moved)))
    assert paired.test == "exact permutation"
    assert paired.p_value == pytest.approx(as_far / 2**49, rel=1e-12)


def test_too_many_distinct_sums_fall_back_to_the_sign_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=30).tolist(), rng.normal(size=30).tolist()
    paired = compare_paired(a, b)
    assert paired.test == "exact sign"
    assert paired.p_value == pytest.approx(stats.binomtest(paired.num_better, 30).pvalue)


def test_no_difference_anywhere_is_p_one() -> None:
    for n in (1, 10, 60):
        paired = compare_paired([0.4] * n, [0.4] * n)
        assert (paired.p_value, paired.num_tied, paired.smallest_detectable) == (1.0, n, None)
        assert paired.test == "exact permutation"


def test_many_tied_problems_do_not_make_a_few_differences_significant() -> None:
    # The paired t test of these says 0.025: 495 zeros are no evidence that the mean of five ones is near normal.
    paired = compare_paired([0.0] * 500, [1.0] * 5 + [0.0] * 495)
    assert (paired.test, paired.p_value) == ("exact permutation", 0.0625)


def test_the_same_difference_everywhere_is_tested_by_signs() -> None:
    few, many = compare_paired([0.2] * 10, [0.4] * 10), compare_paired([0.2] * 60, [0.4] * 60)
    assert (few.test, few.p_value) == ("exact permutation", pytest.approx(2**-9))
    assert (many.test, many.p_value) == ("exact sign", pytest.approx(2**-59))
    assert (many.low, many.high, many.smallest_detectable) == (pytest.approx(0.2), pytest.approx(0.2), None)


def test_values_that_differ_in_the_last_bits_are_tied() -> None:
    a, b = [(0.2 + 0.4 + 0.6) / 3] * 3, [(0.6 + 0.4 + 0.2) / 3] * 3
    assert a != b
    assert compare_paired(a, b).num_tied == 3


def test_one_problem_has_a_p_value_but_no_interval() -> None:
    paired = compare_paired([0.2], [0.8])
    assert (paired.low, paired.high, paired.smallest_detectable, paired.p_value) == (None, None, None, 1.0)


def test_the_interval_is_not_cut() -> None:
    paired = compare_paired([0.0, 0.0], [1.0, 0.8])
    assert paired.high is not None and paired.high > 1


def test_no_problem_in_common_is_said() -> None:
    with pytest.raises(ConfigError, match="no problem in common"):
        compare_paired([], [])


def test_values_of_other_problems_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="3 and 2"):
        compare_paired([0.1, 0.2, 0.3], [0.1, 0.2])


def test_smallest_detectable_is_found_with_eighty_percent_power() -> None:
    differences = [0.0, 0.2, -0.2] * 10
    found = compare_paired([0.5] * 30, [0.5 + d for d in differences]).smallest_detectable
    se = np.std(differences, ddof=1) / sqrt(30)
    assert found == pytest.approx((2.0452 + 0.8542) * se, rel=1e-4)
    critical, shift = stats.t.ppf(0.975, 29), found / se
    power = stats.nct.sf(critical, 29, shift) + stats.nct.cdf(-critical, 29, shift)
    assert power == pytest.approx(0.8, abs=0.02)


def test_sign_test_by_hand() -> None:
    assert sign_test_p_value(5, 1) == pytest.approx(2 * (1 + comb(6, 1)) / 2**6)
    assert sign_test_p_value(0, 0) == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_keeps_the_order_and_never_lowers(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    by_p = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)
