"""Summaries of token statistics, one line a trajectory: means, means of bins, and on request every token. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:  # readers of scores come here too, and must not load torch
    from lark_engine.scoring.token_stats import TokenStats

# Means over a trajectory by the names of the score table, and the token statistics that they are means of.
MEANS = {
    "nll": "nll", "brier_exact": "brier", "brier_top_k": "brier_top_k", "entropy": "entropy", "mean_rank": "rank",
}  # fmt: skip
# Statistics that are kept token by token or in bins, by the names of METHOD.md 1.
TOKEN_STATISTICS = ("nll", "brier", "rank", "entropy", "p_true")
BIN_TOKENS = 64
_LIST16 = pa.list_(pa.float16())
# A batch's table has `row`, `MEANS` and these columns; those of single tokens only where they are kept. Lists hold the
# response's tokens in order; `top_id` and `top_p` hold the same number of alternatives for each token, flattened.
BIN_COLUMNS = tuple(f"{name}_bins" for name in TOKEN_STATISTICS)
TOKEN_COLUMNS = ("token_id", *(f"{name}_tokens" for name in TOKEN_STATISTICS), "top_id", "top_p")


def batch_table(
    rows: list[int], stats: TokenStats, lengths: NDArray[np.int64], ids: NDArray[np.int32] | None = None
) -> pa.Table:
    """One line a trajectory: means over its tokens, means over bins of 64 tokens, and with `ids` every token.

    `ids`: the response tokens of all rows end to end. A mean may be NaN, never infinite.
    """
    columns: dict[str, pa.Array] = {"row": pa.array(rows, pa.int64())}
    with np.errstate(invalid="ignore", over="ignore"):
        for name, source in MEANS.items():
            means = trajectory_means(getattr(stats, source).numpy(), lengths)
            columns[name] = pa.array(np.where(np.isfinite(means), means, np.nan))
        for name in TOKEN_STATISTICS:
            binned = bins(getattr(stats, name).numpy(), lengths)
            columns[f"{name}_bins"] = _lists(binned.values, binned.counts)
        if ids is not None:
            columns["token_id"] = _lists(ids, lengths)
            for name in TOKEN_STATISTICS:
                columns[f"{name}_tokens"] = _lists(getattr(stats, name).numpy().astype(np.float16), lengths)
            alternatives = stats.top_id.shape[1]
            columns["top_id"] = _lists(stats.top_id.numpy().astype(np.int32).ravel(), lengths * alternatives)
            columns["top_p"] = _lists(stats.top_p.numpy().astype(np.float16).ravel(), lengths * alternatives)
    return pa.table(columns)


def take_rows(table: pa.Table, places: Any) -> pa.Table:
    """Some lines of a table by place. Arrow's own `take` does not know lists of float16."""
    columns = {}
    for field in table.schema:
        values = table[field.name].combine_chunks()
        if field.type == _LIST16:
            bits = pa.ListArray.from_arrays(values.offsets, values.values.view(pa.uint16())).take(pa.array(places))
            columns[field.name] = pa.ListArray.from_arrays(bits.offsets, bits.values.view(pa.float16()))
        else:
            columns[field.name] = values.take(pa.array(places))
    return pa.table(columns)


def _lists(values: NDArray[np.generic], counts: NDArray[np.int64]) -> pa.ListArray:
    offsets = np.append(0, np.cumsum(counts)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def trajectory_means(values_T: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of each trajectory, [trajectories], from its tokens end to end; summed in float64.

    `lengths`: tokens of each trajectory, at least 1 each.
    """
    assert (lengths > 0).all(), "a trajectory without response tokens is dropped before it is scored"
    starts = np.cumsum(lengths) - lengths
    return np.add.reduceat(values_T.astype(np.float64), starts) / lengths


class Bins(NamedTuple):
    """Means over bins of 64 tokens, all trajectories end to end, float16, and how many bins each trajectory has."""

    values: NDArray[np.float16]
    counts: NDArray[np.int64]


def bins(values_T: NDArray[np.float32], lengths: NDArray[np.int64]) -> Bins:
    """Means over consecutive bins of 64 tokens of each trajectory; its last bin may hold fewer."""
    counts = -(-lengths // BIN_TOKENS)
    first_token = np.repeat(np.cumsum(lengths) - lengths, counts)
    place_in_trajectory = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = first_token + BIN_TOKENS * place_in_trajectory
    sizes = np.diff(np.append(starts, len(values_T)))
    return Bins((np.add.reduceat(values_T.astype(np.float64), starts) / sizes).astype(np.float16), counts)
