"""Token statistics against closed forms, and their bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lark_engine.scoring.criteria import g_hat, rho
from lark_engine.scoring.token_stats import token_stats, trajectory_stats


def test_a_uniform_distribution_has_the_statistics_of_its_closed_form() -> None:
    stats = token_stats(torch.zeros(1, 8), torch.tensor([3]), top_k=4)
    assert stats.nll.item() == pytest.approx(math.log(8))
    assert stats.brier.item() == pytest.approx(1 - 2 / 8 + 1 / 8)
    assert stats.entropy.item() == pytest.approx(math.log(8))
    assert stats.rank.item() == 1
    assert stats.p_true.item() == pytest.approx(1 / 8)


def test_statistics_by_hand_for_three_tokens() -> None:
    probabilities = torch.tensor([[0.5, 0.3, 0.2]])
    stats = token_stats(probabilities.log() + 7.0, torch.tensor([1]), top_k=2)
    assert stats.nll.item() == pytest.approx(-math.log(0.3), rel=1e-6)
    assert stats.brier.item() == pytest.approx(1 - 0.6 + 0.25 + 0.09 + 0.04, rel=1e-6)
    # The released Brier: a softmax of the two largest alone, 0.625 and 0.375.
    assert stats.brier_top_k.item() == pytest.approx(1 - 0.75 + 0.625**2 + 0.375**2, rel=1e-6)
    assert stats.rank.item() == 2


def test_a_true_token_outside_the_top_k_has_no_mass_in_the_released_brier() -> None:
    logits = torch.tensor([[3.0, 2.0, 0.0]])
    stats = token_stats(logits, torch.tensor([2]), top_k=2)
    p = math.exp(1) / (1 + math.exp(1))
    assert stats.brier_top_k.item() == pytest.approx(1 + p**2 + (1 - p) ** 2, rel=1e-6)


def test_ranks_are_clipped_at_one_hundred() -> None:
    logits = torch.arange(500.0)[None]
    assert token_stats(logits, torch.tensor([0]), top_k=50).rank.item() == 100
    assert token_stats(logits, torch.tensor([450]), top_k=50).rank.item() == 50


@settings(deadline=None, max_examples=100)
@given(hnp.arrays(np.float32, (4, 7), elements=st.floats(-60, 60, width=32)), st.integers(1, 7))
def test_statistics_stay_in_their_bounds(logits: np.ndarray, top_k: int) -> None:
    stats = token_stats(torch.from_numpy(logits), torch.tensor([0, 2, 4, 6]), top_k)
    assert (stats.nll >= -1e-4).all()
    for brier in (stats.brier, stats.brier_top_k):
        assert (brier >= -1e-5).all()
        assert (brier <= 2 + 1e-5).all()
    assert (stats.entropy >= -1e-3).all()
    assert (stats.entropy <= math.log(7) + 1e-3).all()


def test_trajectory_means_and_rsr() -> None:
    stats = token_stats(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), top_k=2)
    row = trajectory_stats(stats)
    assert row["nll"] == pytest.approx(float(stats.nll.mean()))
    assert row["mean_rank"] == 1.5
    assert row["rsr"] == pytest.approx(1.5 / row["nll"])


def test_g_hat_by_hand_and_its_identity() -> None:
    nll, brier = np.array([[1.0, 3.0]]), np.array([[0.5, 0.7]])
    # ΣL = 4, Σbrier = 1.2: g = (2·brier − L·0.3) / 4.
    assert g_hat(nll, brier)[0] == pytest.approx([(1.0 - 0.3) / 4, (1.4 - 0.9) / 4])
    assert g_hat(nll, brier).sum() == pytest.approx(brier.sum() / nll.sum())
    assert rho(nll, brier)[0] == pytest.approx([0.5, 0.7 / 3])


@settings(deadline=None)
@given(
    hnp.arrays(np.float64, (3, 5), elements=st.floats(0.01, 9)),
    hnp.arrays(np.float64, (3, 5), elements=st.floats(0, 2)),
)
def test_g_hat_sums_to_total_brier_over_total_nll(nll: np.ndarray, brier: np.ndarray) -> None:
    assert g_hat(nll, brier).sum(axis=1) == pytest.approx(brier.sum(axis=1) / nll.sum(axis=1))


def test_a_missing_candidate_is_no_candidate() -> None:
    nan = float("nan")
    with_gap = g_hat(np.array([[1.0, nan, 3.0]]), np.array([[0.5, 0.4, 0.7]]))
    assert with_gap[0, [0, 2]] == pytest.approx(g_hat(np.array([[1.0, 3.0]]), np.array([[0.5, 0.7]]))[0])
    assert np.isnan(with_gap[0, 1])
    assert np.isnan(g_hat(np.array([[0.0, 0.0]]), np.array([[0.0, 0.0]]))).all()


def test_rho_of_a_certain_trajectory_is_zero() -> None:
    assert rho(np.array([0.0, 1e-31]), np.array([0.0, 1e-3])).tolist() == [0.0, 0.0]
