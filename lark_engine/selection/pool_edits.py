"""Pool edits: which candidates a selection chooses from, and the energy of each (METHOD.md 2 and 4).

Gates come before the rule, and g_hat is recomputed among what they leave. Any energy goes with any rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.scoring.criteria import RANDOM, criterion_of
from lark_engine.scoring.matrix import Floats
from lark_engine.selection.candidates import Candidates

Mask = NDArray[np.bool_]

NO_TOKENS = "these scores hold no token counts (a released file does not); score the pool to "


class Gated(NamedTuple):
    """Which candidates passed the gates, [N, K], and how many each gate took out, by reason."""

    keep_NK: Mask
    drops: dict[str, int]


def apply_gates(candidates: Candidates, config: SelectConfig) -> Gated:
    """Take out candidates by teacher, correctness, truncation, length and duplication, in this order.

    Errors: `ConfigError` when a named teacher is not in the pool, or when a gate needs labels or token counts that
    the pool or the scores lack.
    """
    keep_NK = candidates.present_NK.copy()
    drops: dict[str, int] = {}
    for reason, dropped_NK in dropped_by_gate(candidates, config):
        if count := int(dropped_NK.sum()):
            drops[reason] = count
            keep_NK &= ~dropped_NK
    return Gated(keep_NK, drops)


def dropped_by_gate(candidates: Candidates, config: SelectConfig) -> Iterator[tuple[str, Mask]]:
    """Each gate of this config in turn: its reason, and which candidates [N, K] that were still there it takes out.

    Errors: as `apply_gates`.
    """
    _check(candidates, config)
    keep_NK = candidates.present_NK.copy()
    for reason, passes in _gates(candidates, config):
        dropped_NK = keep_NK & ~passes()
        keep_NK &= ~dropped_NK
        yield reason, dropped_NK
    if config.deduplicate:
        yield "duplicate_response", _duplicates(candidates.hash_NK("response_hash"), keep_NK)


def energies(candidates: Candidates, keep_NK: Mask, config: SelectConfig) -> Floats:
    """The energy of every kept candidate, [N, K] float64; NaN = not selectable. g_hat is relative to those kept.

    `random` belongs to the candidate's row in the pool: a gate does not reshuffle the others.
    Errors: `ConfigError` when the scores do not hold what the energy needs (released score files hold no RSR).
    """
    if config.energy == RANDOM:
        row = candidates.table["row"].to_numpy()
        drawn = np.random.default_rng(config.seed).random(int(row.max()) + 1 if len(row) else 0)
        return np.where(keep_NK, candidates.layout.spread(drawn[row]), np.nan)
    sign, criterion = criterion_of(config.energy)
    known = all(name in candidates.table for name in criterion.needs)
    if known:
        stats = [candidates.stat_NK(name) for name in criterion.needs]
        if not keep_NK.all():
            stats = [np.where(keep_NK, values_NK, np.nan) for values_NK in stats]
        with np.errstate(over="ignore"):
            energy_NK = criterion.compute(*stats)
        energy_NK = np.where(np.isfinite(energy_NK), sign * energy_NK, np.nan)
    if not known or (not criterion.relative and keep_NK.any() and np.isnan(energy_NK).all()):
        raise ConfigError(
            f"energy '{config.energy}' needs the column {criterion.name}, which these scores lack; score the pool"
        )
    return energy_NK


def _check(candidates: Candidates, config: SelectConfig) -> None:
    for teacher in (*config.teachers, *config.exclude_teachers):
        if teacher not in candidates.teachers:
            raise ConfigError(f"no teacher '{teacher}' in this pool; it has {', '.join(candidates.teachers)}")
    if config.correct_only and (candidates.flag_NK("is_correct") < 0).all():
        raise ConfigError("correct_only needs correctness labels, and this pool has none; import it with gold answers")
    by_length = config.min_response_tokens > 0 or config.max_response_tokens is not None
    if (by_length and (np.isnan(candidates.stat_NK("num_response_tokens")) & candidates.present_NK).any()) or (
        config.drop_truncated and ((candidates.flag_NK("truncated") < 0) & candidates.present_NK).any()
    ):
        raise ConfigError(f"{NO_TOKENS}gate by them")


def _gates(candidates: Candidates, config: SelectConfig) -> list[tuple[str, Callable[[], Mask]]]:
    """The gates that this config asks for: the reason that is counted, and which candidates pass."""

    def of_teachers(names: tuple[str, ...]) -> Mask:
        # One place more than there are teachers, for the code of padding.
        chosen = np.zeros(len(candidates.teachers) + 1, dtype=bool)
        chosen[[candidates.teachers.index(name) for name in names]] = True
        return chosen[candidates.teacher_NK]

    gates: list[tuple[str, Callable[[], Mask]]] = []
    if config.teachers:
        gates.append(("teacher", lambda: of_teachers(config.teachers)))
    if config.exclude_teachers:
        gates.append(("excluded_teacher", lambda: ~of_teachers(config.exclude_teachers)))
    if config.correct_only:
        gates.append(("not_known_correct", lambda: candidates.flag_NK("is_correct") == 1))
    if config.drop_truncated:
        gates.append(("truncated", lambda: candidates.flag_NK("truncated") == 0))
    if config.min_response_tokens > 0:
        shortest = config.min_response_tokens
        gates.append(("too_short", lambda: candidates.stat_NK("num_response_tokens") >= shortest))
    if config.max_response_tokens is not None:
        longest = config.max_response_tokens
        gates.append(("too_long", lambda: candidates.stat_NK("num_response_tokens") <= longest))
    return gates


def _duplicates(hash_NK: NDArray[np.int64], keep_NK: Mask) -> Mask:
    """Which kept candidates repeat the response of an earlier kept one of their problem."""
    # Kept ones first within equal hashes, in candidate order: sort by hash, stably, after sorting by kept.
    first_NK = np.argsort(~keep_NK, axis=1, kind="stable")
    by_hash_NK = np.argsort(np.take_along_axis(hash_NK, first_NK, axis=1), axis=1, kind="stable")
    order_NK = np.take_along_axis(first_NK, by_hash_NK, axis=1)
    hashes_NK = np.take_along_axis(hash_NK, order_NK, axis=1)
    kept_NK = np.take_along_axis(keep_NK, order_NK, axis=1)
    repeats_NK = np.zeros_like(keep_NK)
    repeats_NK[:, 1:] = (hashes_NK[:, 1:] == hashes_NK[:, :-1]) & kept_NK[:, 1:] & kept_NK[:, :-1]
    duplicate_NK = np.zeros_like(keep_NK)
    np.put_along_axis(duplicate_NK, order_NK, repeats_NK, axis=1)
    return duplicate_NK
