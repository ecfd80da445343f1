"""Means over trajectories and over bins of their tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lark_engine.scoring.summaries import batch_table, bins, trajectory_means
from lark_engine.scoring.token_stats import TokenStats, token_stats


def stats_of(num_tokens: int, num_alternatives: int = 0) -> TokenStats:
    torch.manual_seed(0)
    return token_stats(torch.randn(num_tokens, 9), torch.randint(0, 9, (num_tokens,)), 3, num_alternatives)


def test_means_are_those_of_each_trajectory() -> None:
    values = np.array([1.0, 3.0, 10.0, 1.0, 2.0, 6.0], dtype=np.float32)
    assert trajectory_means(values, np.array([2, 1, 3])).tolist() == [2.0, 10.0, 3.0]


def test_bins_hold_64_tokens_and_the_last_one_the_rest() -> None:
    values = np.concatenate([np.zeros(64), np.ones(6), np.full(64, 2.0), np.full(3, 5.0)]).astype(np.float32)
    binned = bins(values, np.array([70, 64, 3]))
    assert binned.values.tolist() == [0.0, 1.0, 2.0, 5.0]
    assert binned.counts.tolist() == [2, 1, 1]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=6))
def test_bins_weighted_by_their_size_give_the_mean_of_the_trajectory(lengths: list[int]) -> None:
    values = np.random.default_rng(len(lengths)).random(sum(lengths)).astype(np.float32)
    binned = bins(values, np.array(lengths))
    means = trajectory_means(values, np.array(lengths))
    start = 0
    for length, count, mean in zip(lengths, binned.counts, means, strict=True):
        sizes = np.minimum(64, length - 64 * np.arange(count))
        assert binned.values[start : start + count].astype(float) @ sizes / length == pytest.approx(mean, abs=1e-3)
        start += count


def test_a_batch_is_a_line_for_each_trajectory_with_its_own_tokens() -> None:
    stats = stats_of(70, num_alternatives=2)
    ids = np.arange(70, dtype=np.int32)
    table = batch_table([4, 9], stats, np.array([66, 4]), ids)
    assert table["row"].to_pylist() == [4, 9]
    assert table["nll"].to_pylist() == pytest.approx([float(stats.nll[:66].mean()), float(stats.nll[66:].mean())])
    assert [len(line) for line in table["nll_bins"].to_pylist()] == [2, 1]
    assert table["token_id"].to_pylist() == [list(range(66)), [66, 67, 68, 69]]
    assert table["p_true_tokens"].to_pylist()[1] == pytest.approx(stats.p_true[66:].tolist(), abs=1e-3)
    assert [len(line) for line in table["top_id"].to_pylist()] == [132, 8]


def test_tokens_are_left_out_unless_they_are_kept() -> None:
    table = batch_table([0], stats_of(5), np.array([5]))
    assert "token_id" not in table.column_names
    assert str(table.schema.field("brier_bins").type) == "list<item: halffloat>"


def test_a_statistic_that_is_not_finite_is_nan_in_its_mean_alone() -> None:
    stats = stats_of(4)
    stats.nll[3] = float("inf")
    table = batch_table([0, 1], stats, np.array([2, 2]))
    assert np.isnan(table["nll"].to_pylist()).tolist() == [False, True]
    assert np.isfinite(table["entropy"].to_pylist()).all()
