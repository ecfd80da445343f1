"""What Explore looks at: one number of every candidate, and the candidates that the view filters leave in sight.

A view filter hides candidates and changes no number: metrics, ranks and margins are those of the whole frame, whose
candidates only pool edits take out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lark_engine.scoring.criteria import CRITERIA
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.chi2 import RankedEnergies
from lark_engine.selection.frame import SelectionFrame

Mask = NDArray[np.bool_]

RANK = "rank"
MARGIN = "margin"
METRICS = ("g_hat", "nll", "brier", "rho", "rsr", "num_response_tokens", RANK)
NUM_DIFFICULTIES = 5


class Range(NamedTuple):
    """A closed interval of a metric, or of the margin of a problem; an end may be infinite."""

    metric: str
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ViewFilter:
    """Which candidates to show; everything by default.

    `difficulty` is 1 (lowest mean L) to 5; `beats` names two teachers: only problems in which the best candidate of
    the first has a higher energy than that of the second. `problem` is a part of problem_id, compared without case.
    """

    teachers: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    difficulty: int | None = None
    beats: tuple[str, str] | None = None
    problem: str = ""

    def __bool__(self) -> bool:
        return self != ViewFilter()


class View(NamedTuple):
    """What is in sight: candidates [N, K], and the problems [N] that the filters on problems leave.

    `problem_N` does not depend on filters on candidates: it is what shares of problems are shares of.
    """

    shown_NK: Mask
    problem_N: Mask


def is_known(candidates: Candidates, name: str) -> bool:
    """Whether the scores hold what a metric needs; a released score file has neither RSR nor token counts."""
    if name == RANK:
        return True
    return all(
        need in candidates.table and not np.isnan(candidates.stat_NK(need)[candidates.present_NK]).all()
        for need in CRITERIA[name].needs
    ) or not len(candidates.table)


def metric_NK(frame: SelectionFrame, name: str) -> Floats:
    """One number of every candidate of the frame, [N, K]; NaN for one that a gate took out, or without the number.

    `g_hat` is relative to the frame's candidates. `rank` is the place by energy within the problem, 1 the best.
    """
    if name == RANK:
        return rank_NK(frame)
    criterion = CRITERIA[name]
    stats = [np.where(frame.keep_NK, frame.candidates.stat_NK(need), np.nan) for need in criterion.needs]
    with np.errstate(over="ignore", invalid="ignore"):
        values_NK = criterion.compute(*stats)
    return np.where(np.isfinite(values_NK), values_NK, np.nan)


def rank_NK(frame: SelectionFrame) -> Floats:
    """The place of every candidate by energy in its problem, 1 the best, [N, K]; NaN without an energy."""
    order_NK = frame.ranked.order_NK
    places_NK = np.empty(order_NK.shape)
    np.put_along_axis(places_NK, order_NK, np.broadcast_to(np.arange(1.0, order_NK.shape[1] + 1), order_NK.shape), 1)
    return np.where(np.isnan(frame.energy_NK), np.nan, places_NK)


def within_problem(values_NK: Floats) -> Floats:
    """(v − mean) / standard deviation over the candidates of each problem, [N, K].

    NaN where fewer than two candidates have the number, and where they all have the same.
    """
    valid_NK = ~np.isnan(values_NK)
    num_N = valid_NK.sum(axis=1)
    filled_NK = np.where(valid_NK, values_NK, 0.0)
    mean_N = filled_NK.sum(axis=1) / np.maximum(num_N, 1)
    gap_NK = np.where(valid_NK, values_NK - mean_N[:, None], 0.0)
    deviation_N = np.sqrt(np.einsum("nk,nk->n", gap_NK, gap_NK) / np.maximum(num_N - 1, 1))
    # Equal values leave a deviation of rounding errors, which is none.
    none_N = (num_N < 2) | (deviation_N <= 1e-12 * np.abs(mean_N))
    return np.where(valid_NK & ~none_N[:, None], gap_NK / np.where(none_N, 1.0, deviation_N)[:, None], np.nan)


def margin_N(ranked: RankedEnergies, budget: int) -> Floats:
    """e_B − e_{B+1} of every problem, [N]; NaN where no more than B candidates have an energy: nothing is left out."""
    if budget >= ranked.num_columns:
        return np.full(len(ranked.num_valid_N), np.nan)
    gap_N = ranked.energy_NK[:, budget - 1] - ranked.energy_NK[:, budget]
    return np.where(ranked.num_valid_N > budget, gap_N, np.nan)


def difficulty_N(frame: SelectionFrame) -> Ints:
    """The fifth of the problems that each belongs to by its candidates' mean L, [N]: 1 the lowest, 5 the highest.

    0 where no candidate has an L. Equal means fall into the same fifth.
    """
    nll_NK = metric_NK(frame, "nll")
    valid_NK = ~np.isnan(nll_NK)
    num_N = valid_NK.sum(axis=1)
    mean_N = np.where(valid_NK, nll_NK, 0.0).sum(axis=1) / np.maximum(num_N, 1)
    known_N = num_N > 0
    if not known_N.any():
        return np.zeros(len(mean_N), dtype=np.int8)
    cuts = np.quantile(mean_N[known_N], np.linspace(0, 1, NUM_DIFFICULTIES + 1)[1:-1])
    return np.where(known_N, 1 + np.searchsorted(cuts, mean_N, side="left"), 0).astype(np.int8)


def best_NT(frame: SelectionFrame) -> Floats:
    """The highest energy of each teacher in each problem, [N, T]; NaN where the teacher has none."""
    candidates = frame.candidates
    num_teachers = len(candidates.teachers)
    best_NT = np.full((len(frame.energy_NK), num_teachers), -np.inf)
    valid_NK = ~np.isnan(frame.energy_NK)
    problem, column = np.nonzero(valid_NK)
    place = problem * num_teachers + candidates.teacher_NK[problem, column]
    np.maximum.at(best_NT.reshape(-1), place, frame.energy_NK[problem, column])
    return np.where(np.isneginf(best_NT), np.nan, best_NT)


def view(frame: SelectionFrame, asked: ViewFilter, *, budget: int, only_NK: Mask | None = None) -> View:
    """What the filters leave of the frame's candidates; `only_NK` are those of a chosen quality, None for all.

    A teacher that the pool does not have shows nothing. `budget` is the B of a range of margins.
    """
    candidates = frame.candidates
    problem_N: Mask = np.asarray(frame.keep_NK.any(axis=1))
    shown_NK = frame.keep_NK if only_NK is None else frame.keep_NK & only_NK
    if asked.teachers:
        chosen = np.zeros(len(candidates.teachers) + 1, dtype=bool)  # one more, for the code of padding
        chosen[[candidates.teachers.index(name) for name in asked.teachers if name in candidates.teachers]] = True
        shown_NK = shown_NK & chosen[candidates.teacher_NK]
    for metric, low, high in asked.ranges:
        if metric == MARGIN:
            values_N = margin_N(frame.ranked, budget)
            problem_N = problem_N & (values_N >= low) & (values_N <= high)
        else:
            values_NK = metric_NK(frame, metric)
            shown_NK = shown_NK & (values_NK >= low) & (values_NK <= high)
    if asked.difficulty is not None:
        problem_N = problem_N & (difficulty_N(frame) == asked.difficulty)
    if asked.beats is not None:
        problem_N = problem_N & _beats(frame, *asked.beats)
    if asked.problem:
        names = problem_ids(candidates).str.lower()
        problem_N = problem_N & names.str.contains(asked.problem.lower(), regex=False).to_numpy(dtype=bool)
    return View(shown_NK & problem_N[:, None], problem_N)


def problem_ids(candidates: Candidates) -> pd.Series:
    """The problem_id of every row of the matrices."""
    return candidates.table["problem_id"].drop_duplicates().astype(str).reset_index(drop=True)


def _beats(frame: SelectionFrame, winner: str, loser: str) -> Mask:
    names = frame.candidates.teachers
    if winner not in names or loser not in names:
        return np.zeros(len(frame.keep_NK), dtype=bool)
    energies_NT = best_NT(frame)
    return energies_NT[:, names.index(winner)] > energies_NT[:, names.index(loser)]
