"""What every budget B would cost and how concentrated it would be, from prefix sums alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection import chi2
from lark_engine.selection.chi2 import BudgetSums, RankedEnergies
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.rules import softmax_odds


class BudgetCurves(NamedTuple):
    """One value for each budget B = 1..K: totals over the pool, and means over the problems that keep something.

    `num_train_tokens` counts prompt and response tokens, NaN where they are not known; `captured` is ⟨q, e⟩.
    """

    num_trajectories: Ints
    num_train_tokens: Floats
    ess: Floats
    captured: Floats
    tau: Floats


def budget_curves(frame: SelectionFrame, config: SelectConfig) -> BudgetCurves:
    """The curves of the config's rule and strength over all budgets; the config's own B and constraints do not count.

    Errors: `ConfigError` for rules without a budget of ranks: mode temperature, `all` and `best_teacher`.
    """
    sums = _all_budgets(frame.ranked, config)
    solved_N = frame.ranked.num_valid_N > 0
    num_solved = max(int(solved_N.sum()), 1)
    up_to_NK = frame.tokens_up_to_NK
    tokens_NK = np.take_along_axis(up_to_NK, np.maximum(sums.num_kept_NK - 1, 0), axis=1)
    ess_NK = 1.0 / np.where(solved_N[:, None], sums.sum_squares_NK, np.inf)
    captured_K = (frame.ranked.best_N[solved_N].sum() + sums.energy_NK.sum(axis=0)) / num_solved
    return BudgetCurves(
        num_trajectories=sums.num_kept_NK.sum(axis=0),
        num_train_tokens=np.where(solved_N[:, None], tokens_NK, 0.0).sum(axis=0),
        ess=ess_NK.sum(axis=0) / num_solved,
        captured=captured_K,
        tau=frame.tau_NK.sum(axis=0) / num_solved,
    )


def knee(cost: Floats, gain: Floats) -> int | None:
    """The place where a curve bends most: farthest from the line between its first and its last point.

    Both are scaled to [0, 1] (Satopää et al. 2011, "Finding a kneedle in a haystack", without smoothing). None when
    the curve has fewer than three points, one that is not finite, no extent, or no bend.
    """
    if len(cost) < 3 or not (np.isfinite(cost).all() and np.isfinite(gain).all()):
        return None
    width, height = cost[-1] - cost[0], gain[-1] - gain[0]
    if width <= 0 or height == 0:
        return None
    apart = np.abs((gain - gain[0]) / height - (cost - cost[0]) / width)
    place = int(apart.argmax())
    return place if apart[place] > 1e-6 else None


def _all_budgets(ranked: RankedEnergies, config: SelectConfig) -> BudgetSums:
    if config.rule == "chi2" and config.mode != "temperature":
        return chi2.all_budgets(ranked, config.sharpness if config.mode == "sharpness" else 1.0)
    if config.rule not in ("top_b", "softmax"):
        raise ConfigError(f"rule {config.rule} has no curve over budgets here; use rule chi2 with a budget, or top_b")
    top_NK = np.minimum(np.arange(1, ranked.num_columns + 1), ranked.num_valid_N[:, None])
    last_NK = np.maximum(top_NK - 1, 0)
    odds_NK = np.ones_like(ranked.energy_NK)
    if config.rule == "softmax":
        assert config.tau is not None
        odds_NK = softmax_odds(ranked.energy_NK, config.tau)
    totals = [np.cumsum(part_NK, axis=1) for part_NK in (odds_NK, odds_NK**2, odds_NK * ranked.energy_NK)]
    total_NK, squares_NK, energy_NK = (np.take_along_axis(part_NK, last_NK, axis=1) for part_NK in totals)
    kept_NK = np.take_along_axis(np.cumsum(odds_NK > 0, axis=1), last_NK, axis=1)
    return BudgetSums(np.minimum(kept_NK, top_NK), squares_NK / total_NK**2, energy_NK / total_NK)
