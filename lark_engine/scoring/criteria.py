"""Criteria made from the per-trajectory means of the token statistics (METHOD.md 1 and 2). Pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rho(nll: Floats, brier: Floats) -> Floats:
    """ρ = brier / nll, 0 where nll ≤ 1e-30; same shape as given."""
    tiny = nll <= 1e-30
    return np.where(tiny, 0.0, brier / np.where(tiny, 1.0, nll))


def g_hat(nll_NK: Floats, brier_NK: Floats) -> Floats:
    """g_k = (2·brier_k − L_k·Σbrier/ΣL) / ΣL over the candidates of each problem, [N, K]; NaN = not a candidate.

    Relative to the candidate set: removing one candidate changes the others. Invariant: Σ_k g_k = Σbrier / ΣL.
    A problem whose ΣL is 0 has no g_hat (NaN). Source: LARK paper (arXiv 2605.30651), METHOD.md 2.
    """
    here_NK = ~(np.isnan(nll_NK) | np.isnan(brier_NK))
    sum_nll_N1 = np.where(here_NK, nll_NK, 0.0).sum(axis=1, keepdims=True)
    sum_brier_N1 = np.where(here_NK, brier_NK, 0.0).sum(axis=1, keepdims=True)
    safe_N1 = np.where(sum_nll_N1 > 0, sum_nll_N1, np.nan)
    return np.where(here_NK, (2.0 * brier_NK - nll_NK * sum_brier_N1 / safe_N1) / safe_N1, np.nan)
