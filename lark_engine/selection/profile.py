"""How a solution's weights fall with the rank, and how its problems differ in what they keep. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection.frame import SelectionFrame, Solution


class RankProfile(NamedTuple):
    """selection_prob by rank 1..W over the problems that keep something: mean, and the 10th and 90th percentile."""

    mean: Floats
    low: Floats
    high: Floats


def weight_profile(solution: Solution) -> RankProfile:
    """The profile of a solution; ranks that no problem can weigh are not in it."""
    kept_MW = solution.prob_NW[solution.num_kept_N > 0]
    if not kept_MW.size:
        return RankProfile(*(np.zeros(0) for _ in range(3)))
    low, high = np.quantile(kept_MW, [0.1, 0.9], axis=0)
    return RankProfile(kept_MW.mean(axis=0), low, high)


class Histogram(NamedTuple):
    """Counts between edges: one edge more than counts."""

    edges: Floats
    counts: Ints


def tau_histogram(frame: SelectionFrame, budget: int, num_bins: int = 40) -> Histogram:
    """log10 of τ_B in units of the pool's median τ_3, over the problems whose τ_B is positive; edges from −2 to 2.

    What lies outside of the edges counts in the first and the last bin.
    """
    edges = np.linspace(-2.0, 2.0, num_bins + 1)
    unit = frame.median_tau()
    if unit <= 0:
        return Histogram(edges, np.zeros(num_bins, dtype=np.intp))
    tau_N = frame.tau_NK[frame.ranked.num_valid_N > 0, min(budget, frame.ranked.num_columns) - 1]
    tau_N = tau_N[tau_N > 0]
    counts, _ = np.histogram(np.clip(np.log10(tau_N / unit), edges[0], edges[-1]), edges)
    return Histogram(edges, counts)
