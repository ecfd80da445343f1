"""The selection as one would write it first: one problem after the other. What the fast one is compared with."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np


class OracleProblem(NamedTuple):
    """One problem for the oracle: energies, teachers, tokens of its candidates, and what another selection keeps."""

    energy: Any
    teacher: list[str]
    prompt_tokens: list[int]
    response_tokens: list[int]
    other: dict[int, float]


def oracle(problems: list[OracleProblem], budget: int) -> dict[str, Any]:
    """The paper rule with all figures of METHOD.md 5, one problem after the other (no ties, K > B)."""
    pool, count, q_share, q_tokens = (defaultdict(float) for _ in range(4))
    figures, all_kept, totals = [], [], [0, 0, 0, 0]
    for energy, teacher, prompt_tokens, response_tokens, other in problems:
        order = sorted(range(len(energy)), key=lambda k, energy=energy: -energy[k])
        top = energy[order[:budget]]
        margin = top - energy[order[budget]]
        prob = margin / margin.sum()
        kept = dict(zip(order[:budget], prob.tolist(), strict=True))
        for k, name in enumerate(teacher):
            pool[name] += 1
            if k in kept:
                count[name] += 1
                q_share[name] += kept[k]
                q_tokens[name] += kept[k] * response_tokens[k]
                totals[0] += prompt_tokens[k]
                totals[1] += response_tokens[k]
        totals[2] += len(kept.keys() & other.keys())
        totals[3] += len(kept.keys() | other.keys())
        squares = (prob**2).sum()
        change = sum(abs(kept.get(k, 0.0) - other.get(k, 0.0)) for k in kept.keys() | other.keys()) / 2
        tau = margin.sum() / len(energy)
        figures.append(
            (1 / squares, len(energy) * squares - 1, (prob * top).sum(), top[0], energy.mean(), change, tau, len(kept))
        )
        all_kept.append(kept)
    ess, chi2, captured, top_1, uniform, change, tau, num_kept = np.array(figures).T
    shares = {"pool": pool, "count": count, "q": q_share, "q_tokens": q_tokens}
    return {
        "kept": all_kept,
        "numbers": {
            "tokens": totals[0] + totals[1], "overlap": totals[2] / totals[3], "change": change.mean(),
            "num_kept": num_kept.sum(), "tau": tau.mean(), "captured": captured.mean(), "top_1": top_1.mean(),
            "uniform": uniform.mean(), **summary("ess", ess), **summary("chi2", chi2),
            **{f"{s} {name}": by[name] / sum(by.values()) for s, by in shares.items() for name in sorted(pool)},
        },
    }  # fmt: skip


def summary(name: str, values: Any) -> dict[str, float]:
    p10, p90 = np.quantile(values, [0.1, 0.9])
    return {f"{name} mean": values.mean(), f"{name} p10": p10, f"{name} p90": p90}
