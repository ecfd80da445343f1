"""Why a candidate has its score: one problem in numbers, what each teacher and each token does to it. Pure.

g_k = (L_k/ΣL) · (2ρ_k − Σ(ρL)/ΣL) is linear in the Brier score and the nll of each token (METHOD.md 2), so that with
R = Σ(ρL)/ΣL and T tokens

    g_k = Σ_t (2·brier_t − nll_t·R) / (T·ΣL)

Shapes: K candidates of one problem in the order of the score table, J ≤ K teachers of them, T response tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lark_engine.config import SelectConfig
from lark_engine.scoring.criteria import RANDOM, criterion_of, g_hat
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection import chi2
from lark_engine.selection.chi2 import RankedEnergies
from lark_engine.selection.frame import SelectionFrame, Solution
from lark_engine.selection.pool_edits import dropped_by_gate
from lark_engine.selection.rules import rule_weights

Order = Literal["pool", "spread", "margin"]


class Threshold(NamedTuple):
    """The energy at which weight begins. `rank`: whose energy it is, None where it lies between two (another τ)."""

    energy: float
    rank: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ProblemScores:
    """The scored candidates of one problem under one selection, [K] each.

    `table_row` is the row of the score table, `pool_row` that of the pool. `is_kept` says who passed the gates; of the
    others g_hat and energy are NaN, their rank is 0, their weight 0. `g_hat` is relative to the kept ones, whatever the
    energy is. `rank` counts from 1; `gave_way` marks whom a constraint made unselectable. `threshold` is None where the
    rule has none.
    """

    table_row: Ints
    pool_row: Ints
    teacher: tuple[str, ...]
    nll: Floats
    brier: Floats
    num_response_tokens: Floats
    is_kept: NDArray[np.bool_]
    g_hat: Floats
    energy: Floats
    rank: Ints
    weight: Floats
    gave_way: NDArray[np.bool_]
    threshold: Threshold | None

    def __len__(self) -> int:
        return len(self.teacher)

    @property
    def in_sums(self) -> NDArray[np.bool_]:
        """Who is part of ΣL and Σ(ρL): passed the gates, with finite numbers."""
        return self.is_kept & np.isfinite(self.nll) & np.isfinite(self.brier)

    @cached_property
    def sum_nll(self) -> float:
        """ΣL, nats per token."""
        return float(self.nll[self.in_sums].sum())

    @cached_property
    def sum_brier(self) -> float:
        """Σ(ρL), which is Σbrier."""
        return float(self.brier[self.in_sums].sum())

    @property
    def ratio(self) -> float:
        """R = Σ(ρL)/ΣL, the ρ of the problem as a whole; NaN where ΣL is 0."""
        return self.sum_brier / self.sum_nll if self.sum_nll > 0 else float("nan")

    @property
    def rho(self) -> Floats:
        """ρ = brier / nll, 0 where nll ≤ 1e-30."""
        tiny = ~(self.nll > 1e-30)
        return np.where(np.isnan(self.nll), np.nan, np.where(tiny, 0.0, self.brier / np.where(tiny, 1.0, self.nll)))

    @property
    def share(self) -> Floats:
        """L_k/ΣL; NaN for who is not part of the sums."""
        return np.where(self.in_sums & (self.sum_nll > 0), self.nll, np.nan) / (self.sum_nll or 1.0)

    @property
    def bracket(self) -> Floats:
        """2ρ_k − Σ(ρL)/ΣL, so that share · bracket is g_hat."""
        return np.where(self.in_sums, 2.0 * self.rho - self.ratio, np.nan)

    @property
    def num_ranked(self) -> int:
        """How many have a rank."""
        return int((self.rank > 0).sum())


def explain_problem(solution: Solution, config: SelectConfig, problem: int) -> ProblemScores:
    """One problem (its row of the frame's matrices) as the solution of this config sees it."""
    frame, candidates = solution.frame, solution.frame.candidates
    columns = np.flatnonzero(candidates.present_NK[problem])
    table_row = candidates.row_NK[problem, columns].astype(np.int64)

    def stat(name: str) -> Floats:
        known = name in candidates.table
        return candidates.stat_NK(name)[problem, columns] if known else np.full(len(columns), np.nan)

    nll, brier, is_kept = stat("nll"), stat("brier"), frame.keep_NK[problem, columns]
    masked = [np.where(is_kept, values, np.nan)[None, :] for values in (nll, brier)]
    energy = frame.energy_NK[problem, columns]
    weight = np.zeros(frame.keep_NK.shape[1])
    prob = solution.prob_NW[problem]
    weight[solution.ranked.order_NK[problem, : len(prob)]] = prob
    order = solution.ranked.order_NK[problem, : solution.ranked.num_valid_N[problem]]
    is_ranked = np.zeros(frame.keep_NK.shape[1], dtype=bool)
    is_ranked[order] = True
    return ProblemScores(
        table_row=table_row, pool_row=candidates.table["row"].to_numpy()[table_row],
        teacher=tuple(candidates.teachers[code] for code in candidates.teacher_NK[problem, columns]),
        nll=nll, brier=brier, num_response_tokens=stat("num_response_tokens"), is_kept=is_kept,
        g_hat=g_hat(masked[0], masked[1])[0], energy=energy,
        rank=_ranks(frame.ranked, problem, frame.keep_NK.shape[1])[columns], weight=weight[columns],
        gave_way=np.isfinite(energy) & ~is_ranked[columns], threshold=threshold(solution, config, problem),
    )  # fmt: skip


def _ranks(ranked: RankedEnergies, problem: int, num_columns: int) -> Ints:
    """Ranks from 1 by column; 0 for what has no energy."""
    ranks = np.zeros(num_columns, dtype=np.int64)
    num_valid = int(ranked.num_valid_N[problem])
    ranks[ranked.order_NK[problem, :num_valid]] = 1 + np.arange(num_valid)
    return ranks


def threshold(solution: Solution, config: SelectConfig, problem: int) -> Threshold | None:
    """The ν of the rule: for the paper rule and the rules that keep the top B, the energy of rank B + 1."""
    ranked = solution.ranked
    num_valid = int(ranked.num_valid_N[problem])
    num_kept = int((solution.prob_NW[problem] > 0).sum())
    if config.rule in ("all", "best_teacher") or num_valid == 0 or num_kept == 0:
        return None
    energy = ranked.energy_NK[problem, :num_valid] + ranked.best_N[problem]
    if config.rule == "chi2" and config.mode != "budget" and not config.has_constraint:
        tau = config.tau
        if config.mode == "sharpness":
            tau = config.sharpness * float(solution.frame.tau_NK[problem, min(config.budget, len(energy)) - 1])
        assert tau is not None
        return Threshold(float(energy[:num_kept].sum() - tau * num_valid) / num_kept, None)
    # Under constraints a problem may have a budget of its own: what comes after the kept ones is what weight begins at.
    top = num_kept if config.has_constraint or not config.has_budget else config.budget
    if top < num_valid:
        return Threshold(float(energy[top]), top + 1)
    return Threshold(float(energy[-1]), num_valid) if config.rule == "chi2" else None


class Without(NamedTuple):
    """The problem without one teacher: what the others would have, [K]; the teacher's own have rank 0 and weight 0.

    `weight` is None where the rule looks at more than this problem (a best teacher, constraints).
    """

    teacher: str
    energy: Floats
    rank: Ints
    weight: Floats | None


def without_each_teacher(scores: ProblemScores, config: SelectConfig) -> Iterator[Without]:
    """The problem again without each of its kept teachers; the other gates stay as they are.

    g_hat is relative to its problem's candidates, so that who is there moves everyone's score.
    """
    names = sorted({name for name, kept in zip(scores.teacher, scores.is_kept, strict=True) if kept})
    if not names:
        return
    teacher = np.array(scores.teacher, dtype=object)
    stays_JK = scores.is_kept & (teacher[None, :] != np.array(names, dtype=object)[:, None])
    energy_JK = np.where(stays_JK, scores.energy, np.nan)
    if config.energy != RANDOM and (signed := criterion_of(config.energy)).criterion.relative:
        assert signed.criterion.needs == ("nll", "brier")
        masked = [np.where(stays_JK, values, np.nan) for values in (scores.nll, scores.brier)]
        energy_JK = signed.sign * signed.criterion.compute(*masked)
        energy_JK = np.where(np.isfinite(energy_JK), energy_JK, np.nan)
    ranked = chi2.rank(energy_JK)
    is_local = config.rule != "best_teacher" and not config.has_constraint
    prob_JW = rule_weights(ranked, config) if is_local else None
    for j, name in enumerate(names):
        weight = None
        if prob_JW is not None:
            weight = np.zeros(len(scores))
            weight[ranked.order_NK[j, : prob_JW.shape[1]]] = prob_JW[j]
        yield Without(name, energy_JK[j], _ranks(ranked, j, len(scores)), weight)


def contributions(nll_T: Floats, brier_T: Floats, scores: ProblemScores) -> Floats:
    """What each response token adds to its trajectory's g_hat, [T]: they sum to it (see the module)."""
    return (2.0 * brier_T - nll_T * scores.ratio) / (len(nll_T) * scores.sum_nll)


def bin_contributions(nll_B: Floats, brier_B: Floats, sizes_B: Ints, scores: ProblemScores) -> Floats:
    """The same for means over bins of `sizes_B` tokens each, [B]: what all tokens of a bin add."""
    return (2.0 * brier_B - nll_B * scores.ratio) * sizes_B / (sizes_B.sum() * scores.sum_nll)


def problem_order(frame: SelectionFrame, by: Order, budget: int) -> Ints:
    """The frame's problems in an order worth looking at.

    `spread`: the largest difference of best and worst energy first; `margin`: the smallest e_B − e_{B+1} first, those
    with no candidate beyond B last.
    """
    ranked = frame.ranked
    num_problems, num_columns = ranked.energy_NK.shape
    if by == "pool" or not num_columns:
        return np.arange(num_problems)
    if by == "spread":
        return np.argsort(ranked.energy_NK[:, -1], kind="stable")
    top = min(budget, num_columns) - 1
    margin_N = ranked.energy_NK[:, top] - ranked.energy_NK[:, min(top + 1, num_columns - 1)]
    return np.argsort(np.where(ranked.num_valid_N > budget, margin_N, np.inf), kind="stable")


def gate_reasons(frame: SelectionFrame, config: SelectConfig, problem: int) -> list[str]:
    """For each candidate of a problem the gate that took it out, empty for who passed."""
    present = frame.candidates.present_NK[problem]
    reasons = [""] * int(present.sum())
    if frame.keep_NK[problem, present].all():
        return reasons
    for reason, dropped_NK in dropped_by_gate(frame.candidates, config):
        for place in np.flatnonzero(dropped_NK[problem, present]):
            reasons[place] = reason
    return reasons
