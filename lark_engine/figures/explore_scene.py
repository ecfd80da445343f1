"""What Explore computes for one view: each aggregate when a visible figure first asks for it, then kept."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.explore import distributions, wins
from lark_engine.explore.distributions import ByTeacher, Densities, Plane, Span
from lark_engine.explore.quality import Check
from lark_engine.explore.view import (
    RANK,
    View,
    ViewFilter,
    best_NT,
    difficulty_N,
    is_known,
    margin_N,
    metric_NK,
    rank_NK,
    view,
    within_problem,
)
from lark_engine.figures.charts_explore import Reference, Rows, rows_by_median
from lark_engine.figures.metric_words import metric_words
from lark_engine.figures.scored import ScoredPool
from lark_engine.scoring.criteria import CRITERIA
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection.frame import SelectionFrame


class Scene:
    """One view of a scored pool: the frame of its pool edits, what is in sight, and one metric.

    `frame` is that of `config`, whose selection is drawn too; `metric` must be known. `problem` says why the selection
    cannot be solved, "" when it can.
    """

    def __init__(
        self, scored: ScoredPool, frame: SelectionFrame, config: SelectConfig, asked: ViewFilter, only: Check | None,
        metric: str, within: bool,
    ):  # fmt: skip
        self.scored = scored
        self.config = config
        self.metric = metric
        self.within = within and metric != RANK
        self.frame = frame
        only_NK = only.mask_NK if only is not None else None
        self.seen: View = view(self.frame, asked, budget=config.budget, only_NK=only_NK)
        self.problem = ""

    @property
    def num_teachers(self) -> int:
        return len(self.scored.candidates.teachers)

    @property
    def teacher_NK(self) -> Ints:
        return self.scored.candidates.teacher_NK

    @cached_property
    def values_NK(self) -> Floats:
        """The metric, normalized if that is asked for."""
        values_NK = metric_NK(self.frame, self.metric)
        return within_problem(values_NK) if self.within else values_NK

    @cached_property
    def span(self) -> Span:
        if self.metric == RANK:
            return Span(0.5, float(self.frame.ranked.num_valid_N.max(initial=1)) + 0.5)
        return distributions.span_of(self.values_NK)

    @cached_property
    def by_teacher(self) -> ByTeacher:
        return self._by_teacher(self.values_NK)

    @cached_property
    def rows(self) -> Rows:
        lower_first = self.metric == RANK or CRITERIA[self.metric].better == "lower"
        return rows_by_median(
            self.by_teacher, self.scored.candidates.teachers, self.scored.slots, is_ascending=lower_first
        )

    @cached_property
    def kept_NK(self) -> NDArray[np.bool_] | None:
        """Which candidates the selection keeps; None when it cannot be solved."""
        try:
            kept = self.frame.solve(self.config).kept
        except ConfigError as error:
            self.problem = str(error)
            return None
        mask_NK = np.zeros(self.frame.keep_NK.shape, dtype=bool)
        mask_NK.reshape(-1)[kept.key] = True
        return mask_NK

    @cached_property
    def kept_T(self) -> list[int] | None:
        """How many of the candidates in sight each teacher has in the selection."""
        if self.kept_NK is None:
            return None
        return [int(n) for n in self.scored.candidates.count_teachers(self.kept_NK & self.seen.shown_NK)]

    @cached_property
    def densities(self) -> Densities:
        part_NK = np.zeros(self.frame.keep_NK.shape, dtype=bool) if self.kept_NK is None else self.kept_NK
        return distributions.densities(
            self.values_NK, self.seen.shown_NK, part_NK, self.teacher_NK, self.num_teachers, self.span
        )

    @cached_property
    def quantile_TP(self) -> Floats:
        return distributions.ecdfs(self.values_NK, self.seen.shown_NK, self.teacher_NK, self.num_teachers)

    @cached_property
    def reference(self) -> Reference | None:
        """The line of the chart by teacher: the mean R/K for ĝ, else the median of the pool or the problem's mean."""
        words = metric_words(self.metric, within=self.within)
        if self.within:
            return Reference(value=0.0, text="the problem’s mean")
        if self.metric == "g_hat":
            value = distributions.mean_g_hat(self.nll_NK, self.brier_NK)
            return Reference(value=value, text=f"mean R/K {words.say(value)}") if np.isfinite(value) else None
        known = self.values_NK[~np.isnan(self.values_NK)]
        value = float(np.median(known)) if len(known) else float("nan")
        return Reference(value=value, text=f"median of the pool {words.say(value)}") if len(known) else None

    @property
    def low_height(self) -> int:
        """Pixels of the charts of the second row: as many as their rows of teachers need."""
        return max(300, self.rows.height - 24)

    @cached_property
    def plane_rows(self) -> Rows:
        """The teachers with candidates on the plane of L and Brier, which need not have the metric."""
        return rows_by_median(
            self.nll_by_teacher, self.scored.candidates.teachers, self.scored.slots, is_ascending=True
        )

    @cached_property
    def g_hat_NK(self) -> Floats:
        return metric_NK(self.frame, "g_hat")

    @cached_property
    def nll_NK(self) -> Floats:
        return metric_NK(self.frame, "nll")

    @cached_property
    def brier_NK(self) -> Floats:
        return metric_NK(self.frame, "brier")

    @cached_property
    def rho_NK(self) -> Floats:
        return metric_NK(self.frame, "rho")

    def plane(self, *, of_rho: bool) -> Plane:
        return self.plane_of_rho if of_rho else self.plane_of_brier

    @cached_property
    def plane_of_rho(self) -> Plane:
        return self._plane(self.rho_NK)

    @cached_property
    def plane_of_brier(self) -> Plane:
        return self._plane(self.brier_NK)

    @cached_property
    def nll_by_teacher(self) -> ByTeacher:
        return self._by_teacher(self.nll_NK)

    def y_by_teacher(self, *, of_rho: bool) -> ByTeacher:
        return self._by_teacher(self.rho_NK if of_rho else self.brier_NK)

    @property
    def bias_metric(self) -> str:
        """What is set against length: the metric, or ĝ where that is the length itself."""
        return "g_hat" if self.metric == "num_response_tokens" else self.metric

    @cached_property
    def bias_NK(self) -> Floats:
        if self.bias_metric == self.metric:
            return self.values_NK
        values_NK = metric_NK(self.frame, self.bias_metric)
        return within_problem(values_NK) if self.within else values_NK

    @cached_property
    def bias_by_teacher(self) -> ByTeacher:
        return self.by_teacher if self.bias_metric == self.metric else self._by_teacher(self.bias_NK)

    @cached_property
    def tokens_NK(self) -> Floats:
        return metric_NK(self.frame, "num_response_tokens")

    @property
    def has_lengths(self) -> bool:
        return is_known(self.scored.candidates, "num_response_tokens")

    @cached_property
    def along_length(self) -> distributions.AlongLength:
        edges = distributions.length_edges(self.tokens_NK)
        return distributions.along_length(
            self.bias_NK, self.tokens_NK, self.seen.shown_NK, self.teacher_NK, self.num_teachers, edges
        )

    @cached_property
    def length_correlation(self) -> float:
        return distributions.rank_correlation(self.tokens_NK, self.bias_NK, self.seen.shown_NK)

    @cached_property
    def rank_NK(self) -> Floats:
        return rank_NK(self.frame)

    def win_shares(self, top: int) -> wins.WinShares:
        return wins.win_shares(
            self.rank_NK, self.frame.keep_NK, *self.seen, self.teacher_NK, self.num_teachers, top
        )  # fmt: skip

    @cached_property
    def margins(self) -> wins.Margins:
        found_N = margin_N(self.frame.ranked, self.config.budget)
        return wins.margins(found_N, self.frame.ranked, np.asarray(self.seen.shown_NK.any(axis=1)))

    @cached_property
    def difficulty_grid(self) -> wins.Grid:
        return wins.teacher_by_difficulty(
            self.values_NK, self.seen.shown_NK, self.teacher_NK, self.num_teachers, difficulty_N(self.frame)
        )

    @cached_property
    def duels(self) -> wins.Grid:
        return wins.duels(best_NT(self.frame), self.seen.problem_N)

    def _plane(self, y_NK: Floats) -> Plane:
        x_span, y_span = distributions.span_of(self.nll_NK), distributions.span_of(y_NK)
        return distributions.plane(self.nll_NK, y_NK, self.seen.shown_NK, x_span, y_span)

    def _by_teacher(self, values_NK: Floats) -> ByTeacher:
        return distributions.by_teacher(values_NK, self.seen.shown_NK, self.teacher_NK, self.num_teachers)
