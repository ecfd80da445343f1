"""Is the data sane? Each thing that can be wrong with a candidate, as a mask that counts and filters. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lark_engine.config import SelectConfig
from lark_engine.explore.scan import TextScan
from lark_engine.scoring.matrix import Ints
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.pool_edits import apply_gates

Mask = NDArray[np.bool_]

WAITS = "the texts are being read"


@dataclass(frozen=True, kw_only=True, eq=False)
class Check:
    """One thing that can be wrong, and the candidates [N, K] with which it is.

    `mask_NK` is None where nothing tells; `unknown` then says why, or of how many candidates it is not known.
    `num_problems` is given where it is a problem that lacks something, not a candidate.
    """

    name: str
    meaning: str
    mask_NK: Mask | None
    unknown: str = ""
    num_problems: int | None = None

    @property
    def count(self) -> int | None:
        """How many candidates, or problems, have it; None where it is not known."""
        if self.mask_NK is None:
            return None
        return int(self.mask_NK.sum()) if self.num_problems is None else self.num_problems


NAMES = (
    "truncated", "empty", "duplicated", "no_boxed_answer", "wrong_answer", "no_score", "too_few_candidates", "flagged",
)  # fmt: skip


def check_quality(
    frame: SelectionFrame, config: SelectConfig, scan: TextScan | None, flagged: Collection[tuple[str, int]] | str
) -> dict[str, Check]:
    """All checks of the frame's candidates, in the order of `NAMES`.

    `scan` is None while the texts are not read; `flagged` holds (problem_id, candidate_id), or says why
    the flags are not known. Duplicates are what the
    gate `deduplicate` would take out: all but the first of equal responses to a problem.
    """
    keep_NK = frame.keep_NK
    few_N = keep_NK.any(axis=1) & (frame.ranked.num_valid_N <= config.budget)
    deduplicated_NK = apply_gates(frame.candidates, config.model_copy(update={"deduplicate": True})).keep_NK
    checks = (
        _flag(frame, "truncated", "truncated", 1, "cut when it was scored", "the scores do not say what was cut"),
        _of_rows(frame, "empty", None if scan is None else scan.empty, "nothing but white space answers"),
        Check(
            name="duplicated", meaning="repeats an earlier response to its problem", mask_NK=keep_NK & ~deduplicated_NK
        ),
        _of_rows(
            frame, "no_boxed_answer", None if scan is None else ~scan.boxed, "no complete \\boxed{} outside thinking"
        ),
        _flag(frame, "wrong_answer", "is_correct", 0, "the answer is known to be wrong", "the pool has no labels"),
        Check(
            name="no_score", meaning="no finite energy, so it cannot be selected",
            mask_NK=keep_NK & np.isnan(frame.energy_NK),
        ),
        Check(
            name="too_few_candidates", meaning=f"no more than B = {config.budget} candidates to choose from",
            mask_NK=keep_NK & few_N[:, None], num_problems=int(few_N.sum()),
        ),
        _flagged(frame, "flagged", flagged, "flagged by a person"),
    )  # fmt: skip
    return {check.name: check for check in checks}


def _flag(frame: SelectionFrame, name: str, column: str, bad: int, meaning: str, nothing: str) -> Check:
    """A check of a column of booleans that may be null."""
    flag_NK = frame.candidates.flag_NK(column)
    num_unknown = int((frame.keep_NK & (flag_NK < 0)).sum())
    if num_unknown and num_unknown == int(frame.keep_NK.sum()):
        return Check(name=name, meaning=meaning, mask_NK=None, unknown=nothing)
    unknown = f"not known of {num_unknown:,}" if num_unknown else ""
    return Check(name=name, meaning=meaning, mask_NK=frame.keep_NK & (flag_NK == bad), unknown=unknown)


def _of_rows(frame: SelectionFrame, name: str, is_bad: Mask | None, meaning: str) -> Check:
    """A check of the pool's rows."""
    if is_bad is None:
        return Check(name=name, meaning=meaning, mask_NK=None, unknown=WAITS)
    candidates = frame.candidates
    bad_NK = candidates.layout.spread(is_bad[candidates.table["row"].to_numpy()], False)
    return Check(name=name, meaning=meaning, mask_NK=frame.keep_NK & bad_NK)


def _flagged(frame: SelectionFrame, name: str, flagged: Collection[tuple[str, int]] | str, meaning: str) -> Check:
    """A check of the flags, given one by one."""
    if isinstance(flagged, str):
        return Check(name=name, meaning=meaning, mask_NK=None, unknown=flagged)
    mask_NK = np.zeros_like(frame.keep_NK)
    table = frame.candidates.table
    problems = {problem_id for problem_id, _ in flagged}
    near: Ints = np.flatnonzero(table["problem_id"].isin(problems).to_numpy())
    ids = table["problem_id"].to_numpy()[near].astype(str), table["candidate_id"].to_numpy(np.int64)[near]
    for row, problem_id, candidate_id in zip(near, *ids, strict=True):  # the candidates of a few problems
        if (str(problem_id), int(candidate_id)) in flagged:
            mask_NK[frame.candidates.layout.problem[row], frame.candidates.layout.column[row]] = True
    return Check(name=name, meaning=meaning, mask_NK=mask_NK & frame.keep_NK)
