"""Small scored pools: the candidate table that `select` joins from scores and pool, made by hand or generated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from lark_engine.selection.candidates import Candidates


def table(problems: list[list[dict[str, Any]]]) -> pd.DataFrame:
    """One row a candidate; what a candidate does not say is filled in. nll 1 and brier e make +rho rank by e."""
    rows = []
    for problem, candidates in enumerate(problems):
        for number, given in enumerate(candidates):
            defaults = {
                "problem_id": str(problem), "candidate_id": number, "teacher": "a", "nll": 1.0, "brier": 0.5,
                "mean_rank": 2.0, "entropy": 1.0, "num_prompt_tokens": 10, "num_response_tokens": 100,
                "truncated": False, "is_correct": True, "response_hash": len(rows),
            }  # fmt: skip
            rows.append({**defaults, **given, "row": len(rows)})
    return pd.DataFrame(rows).astype({"is_correct": "boolean", "truncated": "boolean"})


def ranked_by_rho(problems: list[list[tuple[str, float]]], tokens: list[list[int]] | None = None) -> Candidates:
    """Candidates of (teacher, energy) for the energy +rho; a candidate costs `tokens` with its prompt, else 110."""
    given = [
        [
            {"teacher": teacher, "brier": energy, **({"num_response_tokens": tokens[n][k] - 10} if tokens else {})}
            for k, (teacher, energy) in enumerate(candidates)
        ]
        for n, candidates in enumerate(problems)
    ]
    return Candidates(table(given))


def random_table(seed: int, num_problems: int = 40, most: int = 7, teachers: str = "abcd") -> pd.DataFrame:
    """Ragged problems with ties, missing scores, equal responses, and all gates' columns filled."""
    rng = np.random.default_rng(seed)

    def candidate() -> dict[str, Any]:
        nll = float(rng.choice([rng.uniform(0.1, 2.0), 0.5, np.nan], p=[0.75, 0.2, 0.05]))
        return {
            "teacher": teachers[rng.integers(len(teachers))], "nll": nll, "brier": float(rng.uniform(0.1, 1.5)),
            "mean_rank": float(rng.uniform(1, 9)), "num_response_tokens": int(rng.integers(5, 500)),
            "num_prompt_tokens": int(rng.integers(5, 50)), "truncated": bool(rng.random() < 0.1),
            "is_correct": rng.choice([True, False, None]), "response_hash": int(rng.integers(-5, 5)),
        }  # fmt: skip

    return table([[candidate() for _ in range(rng.integers(1, most + 1))] for _ in range(num_problems)])
