"""The pool's energies, sorted once: every rule, budget and strength is then answered without sorting again.

`lark select` and the dashboard's sliders run exactly this code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lark_engine.config import SelectConfig
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection import chi2, rules
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.chi2 import RankedEnergies
from lark_engine.selection.constraints import constrain
from lark_engine.selection.kept import Kept
from lark_engine.selection.pool_edits import apply_gates, energies


class SelectionFrame:
    """The candidates that pool edits leave, with their energies as a sorted [N, K] matrix.

    Built once for one (scores, pool edits, energy); sums that only some views need are made when first asked for.
    `keep_NK` says which candidates passed the gates and `energy_NK` holds their energies, both by candidate; `ranked`
    holds the energies by rank; `drops` counts what each gate took out.
    Errors: `ConfigError` when the pool or the scores lack what a gate or the energy needs.
    """

    def __init__(self, candidates: Candidates, config: SelectConfig):
        self.candidates = candidates
        self.pool_edit = config.pool_edit
        self.keep_NK, self.drops = apply_gates(candidates, config)
        self.energy_NK = energies(candidates, self.keep_NK, config)
        self.ranked: RankedEnergies = chi2.rank(self.energy_NK)

    def solve(self, config: SelectConfig) -> Solution:
        """The weights of one rule, under the config's constraints; its pool edits and energy must be the frame's.

        Errors: `ConfigError` when the constraints leave nothing.
        """
        assert config.pool_edit == self.pool_edit, "another pool edit or energy needs a frame of its own"
        is_best_NK = None
        if config.rule == "best_teacher":
            teacher_NK, num_teachers = self.candidates.teacher_NK, len(self.candidates.teachers)
            best = rules.best_teacher(self.energy_NK, teacher_NK, num_teachers)
            is_best_NK = self.ranked.by_rank(teacher_NK == best)
        if config.has_constraint:
            ranked, prob_NW, gave_way = constrain(
                self.ranked, config, energy_NK=self.energy_NK, teacher_NK=self.candidates.teacher_NK,
                num_tokens_NK=self.candidates.num_tokens_NK, is_best_NK=is_best_NK,
            )  # fmt: skip
            return Solution(self, ranked, prob_NW, gave_way)
        prob_NW = rules.rule_weights(self.ranked, config, is_best_NK=is_best_NK)
        if config.uniform_if_no_energy and not self.ranked.num_valid_N.all():
            ranked, prob_NW = self._uniform_without_energy(prob_NW)
            return Solution(self, ranked, prob_NW, {})
        return Solution(self, self.ranked, prob_NW, {})

    @property
    def has_no_energy_N(self) -> NDArray[np.bool_]:
        """Which problems have candidates after the gates, and a valid energy for none of them."""
        return (self.ranked.num_valid_N == 0) & self.keep_NK.any(axis=1)

    @cached_property
    def tau_NK(self) -> Floats:
        """τ_B of every problem for B = 1..K."""
        return chi2.taus(self.ranked)

    def median_tau(self, budget: int = 3) -> float:
        """The median of τ_B over the problems: the unit in which a τ is shown; 0 for an empty pool."""
        solvable_N = self.ranked.num_valid_N > 0
        if not solvable_N.any():
            return 0.0
        column = min(budget, self.ranked.num_columns) - 1
        return float(np.median(self.tau_NK[solvable_N, column]))

    @cached_property
    def mean_energy_N(self) -> Floats:
        """⟨u, e⟩, what uniform weights over all candidates capture; 0 where no candidate has an energy."""
        valid_NK = np.arange(self.ranked.num_columns) < self.ranked.num_valid_N[:, None]
        sum_N = np.einsum("nk,nk->n", self.ranked.energy_NK, valid_NK)
        return self.ranked.best_N + sum_N / np.maximum(self.ranked.num_valid_N, 1)

    @cached_property
    def pool_counts(self) -> Ints:
        """How many candidates of each teacher passed the gates."""
        return self.candidates.count_teachers(self.keep_NK)

    @cached_property
    def tokens_up_to_NK(self) -> Floats:
        """Prompt and response tokens of the first 1..K ranks; NaN from the first unknown one on."""
        return np.cumsum(self.ranked.by_rank(np.where(self.keep_NK, self.candidates.num_tokens_NK, 0.0)), axis=1)

    def _uniform_without_energy(self, prob_NW: Floats) -> tuple[RankedEnergies, Floats]:
        """Equal weights for all candidates of a problem that has no valid energy, in candidate order, as released."""
        prob_NK = np.zeros(self.keep_NK.shape)
        prob_NK[:, : prob_NW.shape[1]] = prob_NW
        order_NK = self.ranked.order_NK.copy()
        empty = np.flatnonzero(self.ranked.num_valid_N == 0)
        keep_EK = self.keep_NK[empty]
        order_NK[empty] = np.argsort(~keep_EK, axis=1, kind="stable")
        sizes_E1 = keep_EK.sum(axis=1, keepdims=True)
        prob_NK[empty] = (np.arange(self.ranked.num_columns) < sizes_E1) / np.maximum(sizes_E1, 1)
        return replace(self.ranked, order_NK=order_NK), prob_NK


@dataclass(frozen=True, eq=False)
class Solution:
    """Weights for a frame: `prob_NW` is selection_prob by rank in `ranked`, W ≤ K the ranks that can have weight.

    Under constraints `ranked` lacks the candidates that gave way, which `gave_way` counts by reason.
    """

    frame: SelectionFrame
    ranked: RankedEnergies
    prob_NW: Floats
    gave_way: dict[str, int]

    @cached_property
    def num_kept_N(self) -> Ints:
        """Trajectories kept of each problem."""
        # A product with ones sums short rows ten times as fast as numpy's reductions do.
        return ((self.prob_NW > 0) @ np.ones(self.prob_NW.shape[1], np.float32)).astype(np.intp)

    @cached_property
    def kept(self) -> Kept:
        """The candidates of positive weight."""
        return self.rows(self.prob_NW > 0)

    def rows(self, mask_NW: NDArray[np.bool_]) -> Kept:
        """The candidates marked by rank, problem after problem, best first; keys are places in the flat [N, K]."""
        candidates, num_columns = self.frame.candidates, self.ranked.num_columns
        position_M = np.flatnonzero(mask_NW)
        problem_M = position_M // max(mask_NW.shape[1], 1)
        order_NW = np.ascontiguousarray(self.ranked.order_NK[:, : mask_NW.shape[1]])
        column_M, prob_M = order_NW.reshape(-1).take(position_M), self.prob_NW.reshape(-1).take(position_M)
        key_M = np.multiply(problem_M, num_columns, out=position_M)
        key_M += column_M
        return Kept(
            teachers=candidates.teachers, key=key_M, problem=problem_M,
            teacher=candidates.teacher_NK.reshape(-1).take(key_M),
            prob=prob_M,
            num_prompt_tokens=candidates.stat_NK("num_prompt_tokens").reshape(-1).take(key_M),
            num_response_tokens=candidates.stat_NK("num_response_tokens").reshape(-1).take(key_M),
        )  # fmt: skip
