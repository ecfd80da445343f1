"""Token statistics against closed forms, and their bounds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lark_engine.scoring.token_stats import token_stats


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


def test_the_alternatives_are_the_most_probable_tokens_with_their_probabilities() -> None:
    stats = token_stats(torch.tensor([[0.1, 0.6, 0.3]]).log(), torch.tensor([0]), top_k=1, num_alternatives=2)
    assert stats.top_id.tolist() == [[1, 2]]
    assert stats.top_p[0].tolist() == pytest.approx([0.6, 0.3])
    assert stats.brier_top_k.item() == pytest.approx(2.0)  # the true token is not among the one largest
    assert token_stats(torch.zeros(1, 8), torch.tensor([3]), top_k=4).top_id.shape == (1, 0)


def test_equal_logits_do_not_raise_the_rank() -> None:
    stats = token_stats(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), torch.tensor([2]), top_k=2)
    assert stats.rank.item() == 2


@pytest.mark.parametrize("shift", [0.0, 80.0, -80.0])
def test_large_logits_lose_no_precision(shift: float) -> None:
    logits = torch.tensor([[0.0, -30.0, 1.0]])
    stats = token_stats(logits + shift, torch.tensor([1]), top_k=3)
    assert stats.nll.item() == pytest.approx(math.log(1 + math.e) + 30, rel=1e-6)
