"""Energies, gates and rules (METHOD.md 4): which candidates count, what ranks them, and what weight each gets.

Any energy goes with any rule. Gates are pool edits: they come first, and g_hat is recomputed among what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.scoring.criteria import g_hat
from lark_engine.scoring.matrix import Layout, layout
from lark_engine.selection import chi2
from lark_engine.selection.chi2 import Floats, RankedEnergies


class Gated(NamedTuple):
    """Candidates that passed the gates, and how many each gate took out, by reason."""

    table: pd.DataFrame
    drops: dict[str, int]


def apply_gates(table: pd.DataFrame, config: SelectConfig) -> Gated:
    """Take out candidates by teacher, correctness, truncation, length and duplication, in this order.

    `table` has one row a scored candidate. Errors: `ConfigError` when a named teacher is not in the pool, or when
    correctness is asked for and the pool has no labels.
    """
    known = set(table["teacher"])
    for teacher in (*config.teachers, *config.exclude_teachers):
        if teacher not in known:
            raise ConfigError(f"no teacher '{teacher}' in this pool; it has {', '.join(sorted(map(str, known)))}")
    if config.correct_only and not table["is_correct"].notna().any():
        raise ConfigError("correct_only needs correctness labels, and this pool has none; import it with gold answers")
    tokens = table["num_response_tokens"]
    by_length = config.min_response_tokens > 0 or config.max_response_tokens is not None
    if (by_length and tokens.isna().any()) or (config.drop_truncated and table["truncated"].isna().any()):
        raise ConfigError(
            "these scores hold no token counts (a released file does not); score the pool to gate by them"
        )
    no_limit = config.max_response_tokens is None
    gates: list[tuple[str, Callable[[], pd.Series]]] = [
        ("teacher", lambda: table["teacher"].isin(config.teachers) | (not config.teachers)),
        ("excluded_teacher", lambda: ~table["teacher"].isin(config.exclude_teachers)),
        ("not_known_correct", lambda: table["is_correct"].eq(True).fillna(False) | (not config.correct_only)),
        ("truncated", lambda: ~table["truncated"].fillna(False).astype(bool) | (not config.drop_truncated)),
        ("too_short", lambda: (tokens >= config.min_response_tokens) | (config.min_response_tokens == 0)),
        ("too_long", lambda: no_limit | (tokens <= (config.max_response_tokens or 0))),
    ]
    keep = pd.Series(True, index=table.index)
    drops: dict[str, int] = {}
    for reason, passes in gates:
        passed = passes().astype(bool)
        drops[reason] = int((keep & ~passed).sum())
        keep &= passed
    if config.deduplicate:
        duplicate = table[keep].duplicated(["problem_id", "response_hash"]).reindex(table.index, fill_value=False)
        drops["duplicate_response"] = int(duplicate.sum())
        keep &= ~duplicate
    return Gated(table[keep].reset_index(drop=True), {reason: count for reason, count in drops.items() if count})


def energies(table: pd.DataFrame, config: SelectConfig) -> Floats:
    """The energy of every candidate, [rows] float64; NaN = not selectable. g_hat is relative to the rows given.

    Errors: `ConfigError` when the scores do not hold what the energy needs (released score files hold no RSR).
    """
    if config.energy == "random":
        return np.random.default_rng(config.seed).random(len(table))
    if config.energy == "g_hat":
        where = layout(table["problem_id"])
        nll, brier = table["nll"].to_numpy(float), table["brier"].to_numpy(float)
        return where.gather(g_hat(where.spread(nll), where.spread(brier)))
    column = config.energy.lstrip("+-")
    values = table[column].to_numpy(float)
    if len(values) and np.isnan(values).all():
        raise ConfigError(
            f"energy '{config.energy}' needs the column {column}, which these scores lack; score the pool"
        )
    return values if config.energy.startswith("+") else -values


def rule_weights(ranked: RankedEnergies, config: SelectConfig, teacher_NK: Floats) -> Floats:
    """selection_prob by rank, [N, K]: each problem with a selectable candidate sums to 1 (`best_teacher`: or to 0).

    `teacher_NK` holds teacher codes by rank, for the rule `best_teacher`.
    """
    if config.rule == "chi2":
        if config.mode == "sharpness":
            return chi2.sharpness_weights(ranked, config.budget, config.sharpness)
        if config.mode == "temperature":
            assert config.tau is not None
            return chi2.temperature_weights(ranked, config.tau, config.max_budget)
        return chi2.budget_weights(ranked, config.budget, released_margin=config.keep_zero_weight)
    num_top_N = np.minimum(config.budget, ranked.num_valid_N)
    if config.rule == "top_b":
        return chi2.uniform(ranked, num_top_N)
    if config.rule == "all":
        return chi2.uniform(ranked, ranked.num_valid_N)
    if config.rule == "softmax":
        assert config.tau is not None
        odds_NK = np.where(chi2.uniform(ranked, num_top_N) > 0, np.exp(ranked.energy_NK / config.tau), 0.0)
        return odds_NK / np.maximum(odds_NK.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    return _best_teacher(ranked, config.budget, teacher_NK)


def best_teacher(energy: Floats, teacher: pd.Series) -> str:
    """The teacher with the highest mean energy over the pool."""
    means = pd.Series(energy).groupby(teacher.to_numpy(), sort=True).mean()
    return str(means.idxmax())


def _best_teacher(ranked: RankedEnergies, budget: int, teacher_NK: Floats) -> Floats:
    """Uniform over the first B candidates of the one teacher that `teacher_NK` marks with 1."""
    its_NK = (teacher_NK == 1.0) & ranked.valid_NK
    kept_NK = its_NK & (np.cumsum(its_NK, axis=1) <= budget)
    return kept_NK / np.maximum(kept_NK.sum(axis=1, keepdims=True), 1)


class Weighted(NamedTuple):
    """The rule's solution for a table: one value a row. `rank` starts at 1 within the problem."""

    selection_prob: Floats
    rank: Floats
    num_kept_N: Floats
    num_candidates_N: Floats
    energy_sorted_NK: Floats
    prob_sorted_NK: Floats
    layout: Layout


def solve(table: pd.DataFrame, energy: Floats, config: SelectConfig) -> Weighted:
    """Rank every problem's candidates and weigh them by the configured rule.

    A problem without any valid energy gets no weight (or, with `uniform_if_no_energy`, equal weights, as released).
    """
    where = layout(table["problem_id"])
    energy_NK = where.spread(energy)
    present_NK = ~np.isnan(where.spread(np.ones(len(table))))
    ranked = chi2.rank(energy_NK)
    teacher_NK = np.zeros_like(energy_NK)
    if config.rule == "best_teacher":
        marked = (table["teacher"] == best_teacher(energy, table["teacher"])).to_numpy(float)
        teacher_NK = np.take_along_axis(where.spread(marked), ranked.order_NK, axis=1)
    prob_NK = rule_weights(ranked, config, teacher_NK)
    if config.uniform_if_no_energy:
        sorted_present_NK = np.take_along_axis(present_NK, ranked.order_NK, axis=1)
        share_NK = sorted_present_NK / sorted_present_NK.sum(axis=1, keepdims=True)
        prob_NK = np.where((ranked.num_valid_N == 0)[:, None], share_NK, prob_NK)
    unsorted_NK = np.zeros_like(prob_NK)
    np.put_along_axis(unsorted_NK, ranked.order_NK, prob_NK, axis=1)
    rank_NK = np.empty_like(prob_NK)
    np.put_along_axis(rank_NK, ranked.order_NK, np.arange(1.0, prob_NK.shape[1] + 1)[None, :], axis=1)
    best_N1 = np.nan_to_num(np.take_along_axis(energy_NK, ranked.order_NK[:, :1], axis=1))
    return Weighted(
        selection_prob=where.gather(unsorted_NK),
        rank=where.gather(rank_NK),
        num_kept_N=(prob_NK > 0).sum(axis=1),
        num_candidates_N=ranked.num_valid_N.astype(float),
        energy_sorted_NK=np.where(ranked.valid_NK, ranked.energy_NK + best_N1, np.nan),
        prob_sorted_NK=prob_NK,
        layout=where,
    )
