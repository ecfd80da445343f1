"""What is shown of one selection: the engine's solution, and every number of its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.explore.explain import threshold
from lark_engine.figures import formats
from lark_engine.scoring.matrix import Floats
from lark_engine.selection.compare import compare, weight_changes
from lark_engine.selection.curves import BudgetCurves, budget_curves, knee
from lark_engine.selection.diagnostics import diagnose
from lark_engine.selection.frame import SelectionFrame, Solution

FrameOf = Callable[[SelectConfig], SelectionFrame]


@dataclass(frozen=True, eq=False)
class Outcome:
    """One selection: its options, its weights, what `diagnose` reports of them, and its name where it is pinned."""

    config: SelectConfig
    solution: Solution
    figures: dict[str, Any]
    name: str = "now"

    @property
    def frame(self) -> SelectionFrame:
        return self.solution.frame

    @property
    def is_empty(self) -> bool:
        return not self.figures["num_trajectories"]

    @property
    def mean_kept(self) -> float:
        """Trajectories kept of a problem, on average over those that keep any."""
        return self.figures["num_trajectories"] / max(self.figures["num_problems"], 1)

    @property
    def captured_share(self) -> float | None:
        """Where the captured utility lies between uniform weights (0) and the best candidate alone (1)."""
        return share_captured(self.figures["utility"], self.figures["utility"]["captured"])

    @property
    def token_share(self) -> float | None:
        """Its training tokens as a share of its pool's; None where counts are not known."""
        tokens, total = self.solution.kept.train_tokens, pool_tokens(self.frame)
        return None if tokens is None or not total > 0 else tokens / total


def pool_tokens(frame: SelectionFrame) -> float:
    """Prompt and response tokens of all candidates that passed the gates; NaN where a count is not known."""
    return float(np.where(frame.keep_NK, frame.candidates.num_tokens_NK, 0.0).sum())


def outcome(frame_of: FrameOf, config: SelectConfig, name: str = "now") -> Outcome:
    """Solve a selection. Errors: `ConfigError` when a gate, the energy or a constraint cannot be met."""
    solution = frame_of(config).solve(config)
    return Outcome(config, solution, diagnose(solution), name)


def share_captured(utility: dict[str, float | None], captured: float | None) -> float | None:
    """⟨q, e⟩ on the scale from uniform weights (0) to the best candidate alone (1); None where there is no scale."""
    top, uniform = utility["top_1"], utility["uniform"]
    if top is None or uniform is None or captured is None or top - uniform <= 0:
        return None
    return (captured - uniform) / (top - uniform)


class BudgetCurve(NamedTuple):
    """One point for each budget B = 1..K: kept of a problem, share of the pool's tokens, captured share, ess.

    `tokens` is NaN where the scores hold no counts; `knee` is a budget. `rule` says whose curve it is.
    """

    mean_kept: Floats
    tokens: Floats
    captured: Floats
    ess: Floats
    knee: int | None
    rule: str


def budget_curve(frame: SelectionFrame, config: SelectConfig) -> BudgetCurve:
    """The curve of the config's rule over all budgets; of the paper rule where its own has no budget of ranks."""
    try:
        curves, rule = budget_curves(frame, config), config.rule
    except ConfigError:
        curves, rule = budget_curves(frame, _paper_rule(config)), "chi2"
    return _scaled(frame, curves, rule)


def _scaled(frame: SelectionFrame, curves: BudgetCurves, rule: str) -> BudgetCurve:
    solved_N = frame.ranked.num_valid_N > 0
    num_solved = max(int(solved_N.sum()), 1)
    uniform, top = (float(sums_N[solved_N].sum()) / num_solved for sums_N in (frame.mean_energy_N, frame.ranked.best_N))
    captured = (curves.captured - uniform) / (top - uniform) if top > uniform else np.full(len(curves.ess), np.nan)
    total = pool_tokens(frame)
    tokens = curves.num_train_tokens / total if total > 0 else np.full(len(curves.ess), np.nan)
    mean_kept = curves.num_trajectories / num_solved
    # Before the knee each trajectory more gives up much of the best utility, behind it less.
    place = knee(mean_kept, captured)
    return BudgetCurve(mean_kept, tokens, captured, curves.ess, None if place is None else place + 1, rule)


def _paper_rule(config: SelectConfig) -> SelectConfig:
    """The paper rule on the same candidates and energy."""
    return SelectConfig.model_validate({name: value for name, value in config.pool_edit.items() if value is not None})


def difference(now: Outcome, pinned: Outcome) -> dict[str, Any]:
    """How `now` differs from `pinned`: `compare` of what they keep, with `pinned` as A."""
    return compare(pinned.solution.kept, now.solution.kept)


def by_difference(now: Outcome, pinned: Outcome | None) -> list[int]:
    """The problems (rows of the matrices) that `now` keeps something of, those first whose weights differ most between
    two selections; without a second one, those whose weight is most concentrated for what they keep.
    """
    prob_NW, num_N = now.solution.prob_NW, now.solution.num_kept_N
    if pinned is not None:
        size_N = np.full(len(num_N), -1.0)
        found_N = weight_changes(pinned.solution.kept, now.solution.kept)
        size_N[: len(found_N)] = found_N
    else:
        # Σq² of uniform weights is 1/m: their ratio says how far from uniform a problem is, whatever it keeps.
        size_N = np.einsum("nk,nk->n", prob_NW, prob_NW) * num_N
    order_N = np.argsort(-np.where(num_N > 0, size_N, -np.inf), kind="stable")
    return [int(row) for row in order_N if num_N[row]]


def largest_difference(now: Outcome, pinned: Outcome | None) -> int | None:
    """The first of `by_difference`; None where nothing is kept."""
    return next(iter(by_difference(now, pinned)), None)


class ProblemView(NamedTuple):
    """One problem by rank: columns of the candidates in the matrices, their energies and weights.

    `cut` is the energy at which weight begins, None where the rule has no such threshold.
    """

    row: int
    columns: list[int]
    energy: Floats
    prob: Floats
    cut: float | None


def problem_view(outcome: Outcome, row: int) -> ProblemView:
    """What the selection does with one problem."""
    frame, solution = outcome.frame, outcome.solution
    num_ranks = int(frame.ranked.num_valid_N[row])
    columns = frame.ranked.order_NK[row, :num_ranks].tolist()
    prob_K = np.zeros(frame.ranked.num_columns)
    width = solution.prob_NW.shape[1]
    prob_K[solution.ranked.order_NK[row, :width]] = solution.prob_NW[row]
    energy = frame.energy_NK[row, columns]
    prob = prob_K[columns]
    cut = threshold(solution, outcome.config, row)
    return ProblemView(row, columns, energy, prob, None if cut is None else cut.energy)


def budget_text(config: SelectConfig) -> str:
    """The selection in a few words: `χ² · B = 3`."""
    strength = {
        "budget": f"B = {config.budget}", "sharpness": f"B = {config.budget}, s = {config.sharpness:.3g}",
        "temperature": f"τ = {config.tau or 0:.3g}",
    }[config.mode]  # fmt: skip
    parts = [formats.rule(config.rule), strength if config.has_budget or config.mode == "temperature" else ""]
    parts.append("" if config.energy == "g_hat" else f"by {config.energy}")
    return " · ".join(part for part in parts if part)
