from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lark_engine.evaluation.metrics import (
    Samples,
    avg_at_n,
    estimate,
    majority_at_n,
    pass_at_k,
    summarize,
    t_interval,
    wilson_interval,
)


def test_avg_at_n_is_mean_correctness() -> None:
    assert avg_at_n([True, False, False, True, False]) == pytest.approx(0.4)


def test_pass_at_k_literal_values() -> None:
    assert pass_at_k(5, 1, 1) == pytest.approx(0.2)
    assert pass_at_k(5, 2, 3) == pytest.approx(0.9)
    assert pass_at_k(5, 0, 5) == 0.0
    assert pass_at_k(5, 1, 5) == 1.0
    assert pass_at_k(2, 1, 3) is None


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_counts_subsets_with_a_correct_sample(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def samples(*pairs: tuple[str | None, bool]) -> Samples:
    return Samples(predictions=tuple(p for p, _ in pairs), correct=tuple(c for _, c in pairs))


def test_majority_counts_equivalent_spellings_together() -> None:
    halves = ((r"\frac{1}{2}", True), ("3", False), (r"$\dfrac{1}{2}$", True), ("4", False), ("3 1", False))
    assert majority_at_n(samples(*halves))


def test_majority_ties_go_to_the_first_seen() -> None:
    assert not majority_at_n(samples(("3", False), ("4", True)))
    assert majority_at_n(samples(("4", True), ("3", False)))


def test_missing_answers_do_not_vote() -> None:
    assert majority_at_n(samples((None, False), (None, False), ("4", True)))
    assert not majority_at_n(samples((None, False), (None, False)))


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_scipy(case: tuple[int, int]) -> None:
    successes, trials = case
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_t_interval_equals_scipy_and_stays_in_the_unit_interval() -> None:
    values = [0.2, 0.4, 0.4, 0.8, 0.6]
    expected = stats.t.interval(0.95, 4, loc=0.48, scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected)
    assert t_interval([0.0, 0.9]) == (0.0, 1.0)
    assert t_interval([0.5]) is None


def test_estimate_uses_wilson_for_zero_one_values_and_t_for_others() -> None:
    zero_one = estimate([0.0, 1.0, 1.0])
    assert zero_one is not None
    assert (zero_one.low, zero_one.high) == pytest.approx(wilson_interval(2, 3))
    shares = estimate([0.5, 1.0])
    assert shares is not None
    assert (shares.low, shares.high) == pytest.approx(t_interval([0.5, 1.0]))
    assert estimate([]) is None


def test_one_problem_that_is_neither_right_nor_wrong_has_no_interval() -> None:
    one = estimate([0.4])
    assert one is not None
    assert (one.value, one.low, one.high, one.num_problems) == (0.4, None, None, 1)


def test_summary_names_every_metric() -> None:
    first = samples(("1", True), ("2", False))
    second = samples(("3", False), ("3", False))
    summary = summarize([first, second])
    assert list(summary) == ["avg@2", "pass@1", "pass@2", "maj@2"]
    assert {name: e and e.value for name, e in summary.items()} == {
        "avg@2": 0.25, "pass@1": 0.25, "pass@2": 0.5, "maj@2": 0.5,
    }  # fmt: skip
    assert summarize([]) == {}


def test_pass_at_k_counts_only_problems_with_k_samples() -> None:
    summary = summarize([samples(("1", True)), samples(("1", True), ("2", False))])
    assert summary["pass@2"] is not None
    assert summary["pass@2"].num_problems == 1
