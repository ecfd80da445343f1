"""Constraints on a selection as a whole: a teacher's largest share, and a budget of tokens. Pure.

They come after the rule and change nothing where they hold already. Neither is a pool edit: g_hat is not recomputed.

`max_teacher_share` m: no teacher holds more than a share m of the kept trajectories. Where a teacher has more, its kept
candidates with the smallest margin give way first; the margin is the energy above the best candidate that is not kept,
and infinite where there is none to move up (of equal margins the lower rank gives way first, and then the later
problem). What gave way is not selectable any more, the next ranked candidates move up, the rule weighs anew; repeated
until no teacher is over. A problem whose last candidate gave way is dropped, and counted as `teacher_quota`.

`max_train_tokens`: the prompt and response tokens of all kept trajectories fit into it. The kept rows with the least
selection_prob give way first (of equal ones the lower rank, and then the later problem) until they fit; every problem
keeps its best one. Each problem is then weighed by the same rule at its own smaller budget: the largest at which it
keeps no more than is left to it.

Both together: repeated until both hold. Each step only takes candidates or budget away, so this ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection import chi2
from lark_engine.selection.chi2 import RankedEnergies
from lark_engine.selection.pool_edits import NO_TOKENS
from lark_engine.selection.rules import rule_weights

_ROUNDING = 1e-9  # a share of 1/3 allows one of three


class Constrained(NamedTuple):
    """A solution under constraints: the ranking without what gave way, the weights by rank, and counts of the former.

    `gave_way` counts candidates: `over_teacher_share` became unselectable, `over_token_budget` lost their place.
    """

    ranked: RankedEnergies
    prob_NW: Floats
    gave_way: dict[str, int]


class _Pool(NamedTuple):
    """What the constraints look at, by candidate: [N, K]."""

    energy_NK: Floats
    teacher_NK: NDArray[np.int16]
    num_tokens_NK: Floats


def constrain(
    ranked: RankedEnergies, config: SelectConfig, *, energy_NK: Floats, teacher_NK: NDArray[np.int16],
    num_tokens_NK: Floats, is_best_NK: NDArray[np.bool_] | None = None,
) -> Constrained:  # fmt: skip
    """Weigh the candidates by the configured rule so that the configured constraints hold.

    `energy_NK`, `teacher_NK` and `num_tokens_NK` are by candidate, `is_best_NK` (rule `best_teacher`) by rank.
    Errors: `ConfigError` when these steps leave nothing, or when token counts are not known.
    """
    pool = _Pool(energy_NK.copy(), teacher_NK, num_tokens_NK)
    budget_N: Ints | None = None
    gave_way = {"over_teacher_share": 0, "over_token_budget": 0}
    _check_share(pool, config)
    while True:
        prob_NW = rule_weights(ranked, config, budget_N=budget_N, is_best_NK=is_best_NK)
        over_NW = _over_share(ranked, prob_NW, pool, config.max_teacher_share or 1.0)
        if over_NW.any():
            gave_way["over_teacher_share"] += int(over_NW.sum())
            ranked = _without(ranked, over_NW, pool)
            continue
        if config.max_train_tokens is not None:
            num_kept_N = _fit(ranked, prob_NW, pool, config.max_train_tokens)
            if (num_taken := int((prob_NW > 0).sum() - num_kept_N.sum())) > 0:
                gave_way["over_token_budget"] += num_taken
                budget_N = _budgets(ranked, config, num_kept_N, budget_N)
                continue
        if not prob_NW.any() and gave_way["over_teacher_share"]:
            raise ConfigError(
                f"max_teacher_share {config.max_teacher_share:g} leaves nothing of this selection; raise it"
            )
        return Constrained(ranked, prob_NW, {reason: count for reason, count in gave_way.items() if count})


def _check_share(pool: _Pool, config: SelectConfig) -> None:
    num_teachers = len(np.unique(pool.teacher_NK[~np.isnan(pool.energy_NK)]))
    share = config.max_teacher_share
    if share is not None and share * num_teachers < 1.0 - _ROUNDING:
        raise ConfigError(
            f"max_teacher_share {share:g} cannot hold with {num_teachers} teachers, of which one has at least "
            f"{1 / max(num_teachers, 1):.3g}; raise it, or let more teachers in"
        )


def _over_share(ranked: RankedEnergies, prob_NW: Floats, pool: _Pool, share: float) -> NDArray[np.bool_]:
    """Which kept candidates must give way, by rank, for each teacher to fit into its share of what is kept now."""
    over_NW = np.zeros(prob_NW.shape, dtype=bool)
    if share == 1.0:
        return over_NW
    problem_M, rank_M = np.nonzero(prob_NW)
    teacher_M = ranked.by_rank(pool.teacher_NK, prob_NW.shape[1])[problem_M, rank_M]
    count_T = np.bincount(teacher_M)
    excess_T = np.maximum(count_T - np.floor(share * len(teacher_M) + _ROUNDING).astype(int), 0)
    if not excess_T.any():
        return over_NW
    among = np.flatnonzero(excess_T[teacher_M])
    problem_M, rank_M, teacher_M = problem_M[among], rank_M[among], teacher_M[among]
    num_kept_N = np.count_nonzero(prob_NW, axis=1)
    next_N = np.minimum(num_kept_N, ranked.num_columns - 1)
    next_energy_N = np.where(num_kept_N < ranked.num_valid_N, ranked.energy_NK[np.arange(len(next_N)), next_N], -np.inf)
    margin_M = ranked.energy_NK[problem_M, rank_M] - next_energy_N[problem_M]
    order_M = np.lexsort((-problem_M, -rank_M, margin_M, teacher_M))
    # The place of each in the queue of its teacher.
    count_T = np.bincount(teacher_M, minlength=len(excess_T))
    place_M = np.arange(len(order_M)) - np.repeat(np.cumsum(count_T) - count_T, count_T)
    leaving_M = order_M[place_M < excess_T[teacher_M[order_M]]]
    over_NW[problem_M[leaving_M], rank_M[leaving_M]] = True
    return over_NW


def _without(ranked: RankedEnergies, over_NW: NDArray[np.bool_], pool: _Pool) -> RankedEnergies:
    """Rank anew the problems of which a candidate gave way; marks these as not selectable in `pool`."""
    problem_M, rank_M = np.nonzero(over_NW)
    pool.energy_NK[problem_M, ranked.order_NK[problem_M, rank_M]] = np.nan
    touched = np.unique(problem_M)
    again = chi2.rank(pool.energy_NK[touched])
    parts: dict[str, NDArray[Any]] = {}
    for name in ("order_NK", "energy_NK", "num_valid_N", "best_N"):
        parts[name] = getattr(ranked, name).copy()
        parts[name][touched] = getattr(again, name)
    return RankedEnergies(**parts)


def _fit(ranked: RankedEnergies, prob_NW: Floats, pool: _Pool, limit: int) -> Ints:
    """How many candidates each problem can keep so that the tokens of all fit."""
    kept_NW = prob_NW > 0
    num_kept_N = kept_NW.sum(axis=1)
    problem_M, rank_M = np.nonzero(kept_NW)
    tokens_M = ranked.by_rank(pool.num_tokens_NK, prob_NW.shape[1])[problem_M, rank_M]
    if np.isnan(tokens_M).any():
        raise ConfigError(f"{NO_TOKENS}limit them")
    if tokens_M.sum() <= limit:
        return num_kept_N
    first_N = np.cumsum(num_kept_N) - num_kept_N
    is_best_M = np.arange(len(problem_M)) == first_N[problem_M]
    if (least := tokens_M[is_best_M].sum()) > limit:
        raise ConfigError(
            f"max_train_tokens {limit:,} is too few: one trajectory for each of {int(is_best_M.sum()):,} problems "
            f"takes {int(least):,} tokens; raise it"
        )
    order_M = np.lexsort((-problem_M, -rank_M, prob_NW[problem_M, rank_M]))
    order_M = order_M[~is_best_M[order_M]]
    left_M = tokens_M.sum() - np.cumsum(tokens_M[order_M])
    leaving_M = order_M[: 1 + int(np.argmax(left_M <= limit))]
    return num_kept_N - np.bincount(problem_M[leaving_M], minlength=len(num_kept_N))


def _budgets(ranked: RankedEnergies, config: SelectConfig, num_kept_N: Ints, budget_N: Ints | None) -> Ints:
    """The largest budget of each problem, up to the present one, at which it keeps at most `num_kept_N`."""
    if config.rule != "chi2" or config.mode == "temperature":
        return num_kept_N
    present_N = np.broadcast_to(config.budget, num_kept_N.shape) if budget_N is None else budget_N
    width = min(int(present_N.max(initial=0)), ranked.num_columns)
    sharpness = config.sharpness if config.mode == "sharpness" else 1.0
    keeps_NK = chi2.all_budgets(ranked, sharpness).num_kept_NK[:, :width]
    fits_NK = (keeps_NK <= num_kept_N[:, None]) & (np.arange(width) < present_N[:, None])
    # A problem that gives nothing away stays at its budget, also where that is above K.
    return np.where(keeps_NK[:, -1] <= num_kept_N, present_N, fits_NK.sum(axis=1))
