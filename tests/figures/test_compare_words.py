"""A comparison in words and in charts, from differences that are written by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lark_engine.evaluation.paired import compare_paired
from lark_engine.figures.compare_figures import forest, matrix
from lark_engine.figures.compare_words import cautions, many_sentence, p_equals, p_value, verdict
from lark_engine.results.compare import BenchmarkComparison


def compared(
    a: Sequence[float], b: Sequence[float], *, metric: str = "avg@4", p_adjusted: float | None = None,
    matrix: dict[tuple[int, int], int] | None = None, differences: tuple[str, ...] = (), num_samples_b: int = 4,
) -> BenchmarkComparison:  # fmt: skip
    paired = compare_paired(a, b)
    return BenchmarkComparison(
        benchmark="gsm8k", metric=metric, paired=paired, differences=differences, stale=(), num_samples_a=4,
        p_adjusted=paired.p_value if p_adjusted is None else p_adjusted, num_samples_b=num_samples_b,
        matrix=matrix or {(0, 0): 1}, flips=(), grades_a=(), grades_b=(),
    )  # fmt: skip


LOW, HIGH = [0.25, 0.0, 0.5, 0.25, 0.0, 0.25, 0.5, 0.0], [0.5, 0.25, 0.75, 0.75, 0.25, 0.5, 0.75, 0.25]


def test_the_better_side_is_named_with_a_positive_amount() -> None:
    assert verdict(compared(LOW, HIGH), 1) == (
        "B is better by 28.1 points on gsm8k (95 %: 20.7 – 35.5), p = 0.008, exact permutation, n = 8."
    )
    assert verdict(compared(HIGH, LOW), 1) == (
        "A is better by 28.1 points on gsm8k (95 %: 20.7 – 35.5), p = 0.008, exact permutation, n = 8."
    )


def test_without_a_shown_difference_it_says_what_would_have_been_found() -> None:
    said = verdict(compared([0.0, 0.5, 1.0, 0.5], [0.5, 0.5, 0.5, 1.0]), 1)
    assert said.startswith("No difference is shown on gsm8k: B − A = +12.5 points (95 %: −63.7 to 88.7), p = 1.00")
    assert said.endswith("A difference of 99.6 points would be found with 80 % power.")


def test_holm_over_several_benchmarks_decides() -> None:
    said = verdict(compared(LOW, HIGH, p_adjusted=0.06), 8)
    assert said.startswith("No difference is shown on gsm8k")
    assert "p = 0.008 (0.060 by Holm over 8 benchmarks)" in said


@pytest.mark.parametrize(
    ("metric", "beginning"),
    [("mean_tokens", "B is longer by 0.3 tokens"), ("truncated", "B has more samples that were cut by 28.1 points"),
     ("no_answer", "B has more samples without an answer by 28.1 points"), ("pass@4", "B is better by 28.1 points")],
)  # fmt: skip
def test_what_more_means_depends_on_the_metric(metric: str, beginning: str) -> None:
    assert verdict(compared(LOW, HIGH, metric=metric), 1).startswith(beginning)


def test_p_values_are_short() -> None:
    assert [p_value(p) for p in (0.00002, 0.0123, 0.2, 1.0)] == ["< 0.001", "0.012", "0.20", "1.00"]
    assert p_equals(0.0001) == "p < 0.001"


def test_many_comparisons_are_warned_of() -> None:
    assert many_sentence(5) == ""
    assert many_sentence(6).startswith("6 comparisons: of that many, one in twenty is below 0.05 by chance")


def test_a_long_prompt_is_cut_in_the_caution() -> None:
    (said, samples) = cautions(
        compared(LOW, HIGH, differences=(f"system_prompt: {'x' * 5000} / None",), num_samples_b=8)
    )
    assert len(said) < 300
    assert samples == "Samples of a problem: 4 of A, 8 of B."


def test_a_mark_is_hollow_where_no_difference_is_shown() -> None:
    shown, tied = compared(LOW, HIGH), compared(LOW, LOW)
    marks = (forest([shown, tied], None, 0).figure or {})["data"][1]
    assert marks["marker"]["color"] == ["@accent", "@bg"]
    assert marks["x"] == [28.125, 0.0]


def test_the_matrix_counts_who_is_ahead_by_shares() -> None:
    cells = {(0, 0): 5, (1, 2): 3, (2, 3): 4, (4, 8): 2, (3, 1): 1}
    card = matrix(compared(LOW, HIGH, matrix=cells, num_samples_b=8), (2, 3))
    assert card.title == "B solves 0 problems more often, A 5"
    figure = card.figure or {}
    assert figure["data"][0]["customdata"] == [[0, 0], [1, 2], [2, 3], [4, 8], [3, 1]]
    assert figure["data"][0]["marker"]["line"]["width"] == [0, 0, 2.5, 0, 0]
    assert [shape["type"] for shape in figure["layout"]["shapes"]] == ["line"]


def test_names_are_text_in_the_charts() -> None:
    one = compared(LOW, HIGH)
    hostile = BenchmarkComparison(**{**one.__dict__, "benchmark": "<img src=x onerror=alert(1)>"})
    figure = forest([hostile], None, 0).figure or {}
    assert "<img" not in str(figure["data"]) + str(figure["layout"]["yaxis"])
