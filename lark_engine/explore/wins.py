"""Who wins: shares of problems by teacher, margins at the cut, teachers by difficulty and against each other. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lark_engine.evaluation.intervals import wilson_interval
from lark_engine.explore.view import NUM_DIFFICULTIES
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection.chi2 import RankedEnergies

Mask = NDArray[np.bool_]

# A margin below this share of what separates the best from the worst of a problem decides little.
COIN_FLIP = 0.02


class WinShares(NamedTuple):
    """For each teacher, the problems in whose top places it has a candidate, and 95 % Wilson intervals of the share.

    `chance_T` is the share that ranking at random would give, from how many candidates each teacher has.
    """

    num_wins_T: Ints
    num_problems: int
    share_T: Floats
    low_T: Floats
    high_T: Floats
    chance_T: Floats


class Margins(NamedTuple):
    """A histogram of e_B − e_{B+1}: counts between edges; what lies above the last edge is in `num_above`.

    `num_problems` have a margin, `num_without` have not more than B candidates, `num_coin_flips` have one below
    `COIN_FLIP` of the spread of their energies.
    """

    edge_H: Floats
    count_H: Ints
    num_above: int
    num_problems: int
    num_without: int
    num_coin_flips: int
    median: float


class Grid(NamedTuple):
    """A number for each cell of rows × columns, NaN where there is nothing, and how many stand behind it."""

    value: Floats
    num: Ints


def win_shares(
    rank_NK: Floats, keep_NK: Mask, shown_NK: Mask, problem_N: Mask, teacher_NK: Ints, num_teachers: int, top: int
) -> WinShares:
    """Shares of the problems in sight; a hidden candidate keeps its place, and does not count for its teacher."""
    solved_N = problem_N & (~np.isnan(rank_NK)).any(axis=1)
    total = int(solved_N.sum())
    won_NT = np.zeros((len(rank_NK), num_teachers), dtype=bool)
    problem, column = np.nonzero(shown_NK & (rank_NK <= top) & solved_N[:, None])
    won_NT[problem, teacher_NK[problem, column]] = True
    num_wins_T = won_NT.sum(axis=0)
    ends = np.array([wilson_interval(int(wins), total) if total else (np.nan, np.nan) for wins in num_wins_T])
    low_T, high_T = ends.reshape(-1, 2).T
    share_T = num_wins_T / total if total else np.full(num_teachers, np.nan)
    ranked_NK = keep_NK & ~np.isnan(rank_NK)
    return WinShares(
        num_wins_T, total, share_T, low_T, high_T,
        _by_chance(ranked_NK[solved_N], teacher_NK[solved_N], num_teachers, top),
    )  # fmt: skip


def _by_chance(ranked_NK: Mask, teacher_NK: Ints, num_teachers: int, top: int) -> Floats:
    """1 − Π_{j<top} (K − c − j) / (K − j) for c of K candidates, the mean over problems, [T]."""
    if not len(ranked_NK):
        return np.full(num_teachers, np.nan)
    problem, column = np.nonzero(ranked_NK)
    place = problem * num_teachers + teacher_NK[problem, column]
    num_NT = np.bincount(place, minlength=len(ranked_NK) * num_teachers).reshape(-1, num_teachers)
    num_N1 = ranked_NK.sum(axis=1)[:, None]
    missed_NT = np.ones(num_NT.shape)
    for drawn in range(top):
        left_N1 = num_N1 - drawn
        missed_NT *= np.where(left_N1 > 0, np.maximum(left_N1 - num_NT, 0) / np.maximum(left_N1, 1), 1.0)
    return 1.0 - missed_NT.mean(axis=0)


def margins(
    margin_N: Floats, ranked: RankedEnergies, problem_N: Mask, num_bins: int = 40, tail: float = 0.01
) -> Margins:
    """The margins of the problems in sight; the edges depend on all problems' margins, so that a filter keeps them."""
    known_M = margin_N[~np.isnan(margin_N)]
    high = float(np.quantile(known_M, 1 - tail)) if len(known_M) else 1.0
    edge_H = np.linspace(0.0, high if high > 0 else 1.0, num_bins + 1)
    seen_N = problem_N & ~np.isnan(margin_N)
    values_M = margin_N[seen_N]
    last_N = np.maximum(ranked.num_valid_N - 1, 0)
    # Energies are relative to the best: minus the smallest is the spread.
    spread_M = (
        -np.take_along_axis(ranked.energy_NK, last_N[:, None], axis=1)[:, 0][seen_N] if len(margin_N) else values_M
    )
    return Margins(
        edge_H=edge_H,
        count_H=np.histogram(values_M, edge_H)[0],
        num_above=int((values_M > edge_H[-1]).sum()),
        num_problems=len(values_M),
        num_without=int((problem_N & np.isnan(margin_N) & (ranked.num_valid_N > 0)).sum()),
        num_coin_flips=int((values_M <= COIN_FLIP * spread_M).sum()),
        median=float(np.median(values_M)) if len(values_M) else float("nan"),
    )


def teacher_by_difficulty(
    values_NK: Floats, shown_NK: Mask, teacher_NK: Ints, num_teachers: int, difficulty_N: Ints
) -> Grid:
    """The mean of a metric for each teacher and fifth of difficulty, [T, 5]."""
    valid_NK = shown_NK & ~np.isnan(values_NK) & (difficulty_N > 0)[:, None]
    problem, column = np.nonzero(valid_NK)
    cell = teacher_NK[problem, column].astype(np.intp) * NUM_DIFFICULTIES + difficulty_N[problem] - 1
    size = num_teachers * NUM_DIFFICULTIES
    num = np.bincount(cell, minlength=size)
    total = np.bincount(cell, weights=values_NK[valid_NK], minlength=size)
    mean = np.where(num > 0, total / np.maximum(num, 1), np.nan)
    return Grid(mean.reshape(num_teachers, -1), num.reshape(num_teachers, -1))


def duels(best_NT: Floats, problem_N: Mask) -> Grid:
    """The share of problems in which the row teacher's best energy is above the column teacher's, [T, T].

    Of the problems in sight in which both have one; a tie counts half. The diagonal is NaN.
    """
    energy_NT = best_NT[problem_N]
    known_NT = (~np.isnan(energy_NT)).astype(np.float64)
    num = (known_NT.T @ known_NT).astype(np.intp)
    wins = np.zeros(num.shape)
    for row in range(num.shape[0]):  # all problems and columns at once
        mine_N1 = energy_NT[:, row : row + 1]
        wins[row] = (mine_N1 > energy_NT).sum(axis=0) + 0.5 * (mine_N1 == energy_NT).sum(axis=0)
    share = np.where(num > 0, wins / np.maximum(num, 1), np.nan)
    np.fill_diagonal(share, np.nan)
    return Grid(share, num)
