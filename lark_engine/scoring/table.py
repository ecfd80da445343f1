"""The score table: made from finished rows, read back, and in the format of the released code. Loads no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lark_engine.scoring.criteria import derived_columns
from lark_engine.scoring.matrix import layout
from lark_engine.scoring.parts import SCORES
from lark_engine.scoring.summaries import BIN_COLUMNS, MEANS, take_rows
from lark_engine.scoring.tokenized import TokenizedPool
from lark_engine.store.workspace import Artifact, read_table

METHOD = "lark_ghat"
ROW_COLUMNS = ["row", *MEANS, *BIN_COLUMNS]


def score_table(index: pd.DataFrame, tokens: TokenizedPool, rows: pa.Table, brier: str) -> pd.DataFrame:
    """The score table in the order of `rows`, with the criteria that need a problem's whole candidate set.

    `index` and `tokens` are the pool's, `rows` holds `row` (ascending) and the means; `brier` is `exact` or `top_k`.
    """
    position = rows["row"].to_numpy()
    means = {name: rows[name].to_numpy() for name in MEANS}
    table = index.loc[position, ["problem_id", "candidate_id", "teacher"]].reset_index(drop=True)
    stats = {
        "nll": means["nll"], "brier": means[f"brier_{brier}"], "entropy": means["entropy"],
        "mean_rank": means["mean_rank"], "num_response_tokens": tokens.num_response_tokens[position].astype(float),
    }  # fmt: skip
    derived = derived_columns(stats, layout(table["problem_id"]))
    table = table.assign(nll=stats["nll"], brier=stats["brier"], rho=derived.pop("rho"), g_hat=derived.pop("g_hat"))
    table = table.assign(**derived, **{name: means[name] for name in MEANS if name != "nll"})
    for name in ("num_response_tokens", "num_prompt_tokens", "truncated", "tokens_hash"):
        table[name] = getattr(tokens, name)[position]
    lost = ~(np.isfinite(stats["nll"]) & np.isfinite(stats["brier"]))
    table["reason"] = pd.Series("not_finite", index=table.index, dtype="string").where(lost)
    return table


def sorted_rows(tables: list[pa.Table]) -> pa.Table:
    """Means and bins of all finished rows, in the pool's order."""
    joined = pa.concat_tables([table.select(ROW_COLUMNS) for table in tables if len(table)])
    return take_rows(joined, np.argsort(joined["row"].to_numpy()))


def read_scores(scores: Artifact) -> pd.DataFrame:
    """The score table of an artifact. Errors: `StoreError` when the file is damaged."""
    return read_table(scores.path / SCORES)


def released_scores(scores: Artifact) -> dict[str, Any]:
    """The scores in the format of the released code (`lark_ghat.json`)."""
    table = read_scores(scores)
    id_type = scores.manifest.metrics["id_type"]
    problems: dict[str, list[dict[str, Any]]] = {}
    for row in _finite_rows(table):
        problems.setdefault(str(row["problem_id"]), []).append(
            {
                "candidate_id": int(row["candidate_id"]),
                "teacher": row["teacher"],
                "L": row["nll"],
                "Brier": row["brier"],
                "rho": row["rho"],
                "g_hat": row["g_hat"],
            }
        )
    scored = sum(len(candidates) for candidates in problems.values())
    return {
        "lark_scores": scores.id,
        "method": METHOD,
        "student_model": scores.manifest.config["student"],
        "top_k": scores.manifest.config["top_k"],
        "brier": scores.manifest.config["brier"],
        "id_type": id_type,
        "n_problems": len(problems),
        "n_scored": scored,
        "n_skipped": sum(scores.manifest.drops.values()) + len(table) - scored,
        "scores": problems,
    }


def _finite_rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    finite = table[table["reason"].isna()]
    columns = ["problem_id", "candidate_id", "teacher", "nll", "brier", "rho", "g_hat"]
    for values in finite[columns].itertuples(index=False, name=None):
        yield dict(zip(columns, values, strict=True))
