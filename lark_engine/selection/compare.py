"""Two selections side by side: what they share, from whom they take, what they cost, how much weight moved. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lark_engine.scoring.matrix import Floats
from lark_engine.selection.kept import Kept

CHANGED = 1e-9  # a total variation above this is a changed problem, not rounding


def kept_of_tables(first: pd.DataFrame, second: pd.DataFrame) -> tuple[Kept, Kept]:
    """Two saved selections (selection.parquet) of one pool, numbered alike; rows of weight 0 count as kept."""
    both = pd.concat([first, second], ignore_index=True)
    key, _ = pd.MultiIndex.from_frame(both[["problem_id", "candidate_id"]]).factorize()
    problem, _ = both["problem_id"].factorize()
    teacher, teachers = both["teacher"].factorize(sort=True)
    columns = {"key": key, "problem": problem, "teacher": teacher, "prob": both["selection_prob"].to_numpy(float)}
    for name in ("num_prompt_tokens", "num_response_tokens"):
        columns[name] = both[name].to_numpy(float, na_value=np.nan)
    names, cut = tuple(map(str, teachers)), len(first)
    a, b = (
        Kept(teachers=names, **{name: values[part] for name, values in columns.items()})
        for part in (slice(cut), slice(cut, None))
    )
    return a, b


def compare(a: Kept, b: Kept) -> dict[str, Any]:
    """How selection `b` differs from `a`, as JSON values.

    `overlap` is the Jaccard index |A∩B| / |A∪B|, 1 for two empty selections. `teachers` gives each teacher's share of
    the kept trajectories (`count`) and of the weight (`q`) in both, and the difference b − a; `tokens` likewise, null
    where counts are not known. `weight_change` is the total variation distance ½ Σ|q_a − q_b| of a problem, 1 where
    only one of the two keeps the problem: mean and 90th percentile over the problems that either keeps, and the share
    of these that changed at all.
    """
    assert a.teachers == b.teachers, "the selections are numbered differently"
    prob_a = a.prob_by_key.take(b.key, mode="clip")
    num_both = int(np.count_nonzero(prob_a >= 0))
    union = len(a.key) + len(b.key) - num_both
    return {
        "overlap": num_both / union if union else 1.0,
        "num_both": num_both,
        "num_only_a": len(a.key) - num_both,
        "num_only_b": len(b.key) - num_both,
        "teachers": {
            name: {share: _pair(float(a.shares[share][code]), float(b.shares[share][code])) for share in ("count", "q")}
            for code, name in enumerate(a.teachers)
            if a.shares["count"][code] or b.shares["count"][code]
        },
        "tokens": None if a.train_tokens is None or b.train_tokens is None else _pair(a.train_tokens, b.train_tokens),
        "weight_change": _weight_change(a, b, prob_a),
    }


def weight_changes(a: Kept, b: Kept) -> Floats:
    """½ Σ|q_a − q_b| of every problem that either keeps, up to the last of them; NaN for the others."""
    return _changes(a, b, a.prob_by_key.take(b.key, mode="clip"))


def _changes(a: Kept, b: Kept, prob_a: Floats) -> Floats:
    """½ Σ|q_a − q_b| = 1 − Σ min(q_a, q_b), because both sum to 1; `prob_a`: of the rows of `b`, -1 if not kept."""
    num_problems = max(len(a.num_kept_N), len(b.num_kept_N))
    common_M = np.clip(prob_a, 0.0, b.prob, out=prob_a)
    common_N = np.bincount(b.problem, weights=common_M, minlength=num_problems)
    kept_N = np.zeros(num_problems, dtype=bool)
    for kept in (a, b):
        kept_N[: len(kept.num_kept_N)] |= kept.num_kept_N > 0
    return np.where(kept_N, np.clip(1.0 - common_N, 0.0, 1.0), np.nan)


def _weight_change(a: Kept, b: Kept, prob_a: Floats) -> dict[str, float | None]:
    change_N = _changes(a, b, prob_a)
    change_N = change_N[~np.isnan(change_N)]
    if not len(change_N):
        return {"mean": None, "p90": None, "share_changed": None}
    return {
        "mean": float(change_N.mean()),
        "p90": float(np.quantile(change_N, 0.9)),
        "share_changed": float((change_N > CHANGED).mean()),
    }


def _pair(of_a: float, of_b: float) -> dict[str, Any]:
    return {"a": of_a, "b": of_b, "difference": of_b - of_a}
