"""The charts of the page Tune on weights: by rank, by problem, by temperature, and what stays of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lark_engine.figures import formats
from lark_engine.figures.cards import label, packed
from lark_engine.figures.chart_parts import Chart, meta_of, pen, values_column, vertical, whole_ticks
from lark_engine.figures.metric_words import energy_words
from lark_engine.figures.palette import token
from lark_engine.figures.tuning import Outcome
from lark_engine.scoring.matrix import Floats
from lark_engine.selection.profile import Histogram, RankProfile
from lark_engine.selection.robustness import Robustness, Variant

_LEAST_WEIGHT = 1e-3


def profile_chart(profile: RankProfile, pinned: RankProfile | None, num_ranks: int, now: Outcome) -> Chart:
    """selection_prob by rank: mean, and the band from the 10th to the 90th percentile over the problems."""
    ranks = np.arange(1, len(profile.mean) + 1)
    low, high = (np.maximum(part, _LEAST_WEIGHT) for part in (profile.low, profile.high))
    band = {
        "type": "scatter", "mode": "lines", "x": packed([*ranks, *ranks[::-1]]), "y": packed([*high, *low[::-1]]),
        "fill": "toself", "fillcolor": token("accent", 0.18), "line": {"width": 0}, "hoverinfo": "skip",
    }  # fmt: skip
    traces: list[dict[str, Any]] = [band] if len(ranks) else []
    traces.append({
        "type": "scatter", "mode": "lines+markers", "x": packed(ranks), "y": packed(_visible(profile.mean)),
        "line": {"color": token("accent"), "width": 2}, "marker": {"size": 6, "color": token("accent")},
        "hovertemplate": "rank %{x}: weight %{y:.3f}<extra></extra>",
    })  # fmt: skip
    if pinned is not None:
        traces.append({
            "type": "scatter", "mode": "lines", "x": packed(np.arange(1, len(pinned.mean) + 1)),
            "y": packed(_visible(pinned.mean)), "line": {"color": token("muted"), "width": 1.5, "dash": "dash"},
            "hovertemplate": "pinned, rank %{x}: weight %{y:.3f}<extra></extra>",
        })  # fmt: skip
    layout = {
        "meta": {"chart": "profile", "weights": [round(float(q), 6) for q in profile.mean[:33]], **meta_of(now)},
        "xaxis": {"title": {"text": "rank in the problem"}, "range": [0.5, num_ranks + 0.5], **whole_ticks(num_ranks)},
        "yaxis": {
            "type": "log", "title": {"text": "weight q"}, "range": [np.log10(_LEAST_WEIGHT), 0.04], "tickvals":
            [0.001, 0.01, 0.1, 1], "ticktext": ["0.001", "0.01", "0.1", "1"],
        },
    }  # fmt: skip
    first = ", ".join(f"{q:.3f}" for q in profile.mean[:5])
    return Chart({"data": traces, "layout": layout}, f"Mean weight by rank, from the first on: {first or 'none'}.")


def _visible(weights: Floats) -> Floats:
    """Weights below the axis's end have no point on it."""
    return np.where(weights >= _LEAST_WEIGHT, weights, np.nan)


def kept_chart(now: Outcome, pinned: Outcome | None, num_ranks: int) -> Chart:
    """How many problems keep 1, 2, … trajectories."""
    traces = [_kept_bars(now, "accent", 0.85)]
    if pinned is not None:
        traces.append(
            {**_kept_bars(pinned, "muted", 0.0), "marker": {"color": "rgba(0,0,0,0)", "line": pen("muted", 1.5)}}
        )
    layout = {
        "meta": {"chart": "kept", **meta_of(now)}, "barmode": "overlay", "bargap": 0.15,
        "xaxis": {
            "title": {"text": "trajectories kept of a problem"}, "range": [0.4, num_ranks + 0.6],
            **whole_ticks(num_ranks),
        },
        "yaxis": {"title": {"text": "share of problems"}, "range": [0, 1.02], "tickformat": ".0%"},
    }  # fmt: skip
    kept = now.figures["kept_per_problem"]
    alt = "Kept per problem: " + ", ".join(f"{n} in {formats.count(count)} problems" for n, count in kept.items())
    return Chart({"data": traces, "layout": layout}, alt)


def _kept_bars(outcome: Outcome, tone: str, alpha: float) -> dict[str, Any]:
    kept, total = outcome.figures["kept_per_problem"], max(outcome.figures["num_problems"], 1)
    return {
        "type": "bar", "x": [int(n) for n in kept], "y": [count / total for count in kept.values()],
        "marker": {"color": token(tone, alpha)}, "hovertemplate": "%{x} kept: %{y:.1%}<extra></extra>",
    }  # fmt: skip


def tau_chart(
    histogram: Histogram, median: float, now: Outcome, *, most: float = 0.0, pinned_tau: float | None = None
) -> Chart:  # fmt: skip
    """τ_B over the problems in units of the pool's median τ_3: how different the problems' natural temperatures are.

    `most`: the highest bar at any budget, which the axis has room for. `pinned_tau`: the median of a pinned selection.
    """
    total = max(int(histogram.counts.sum()), 1)
    centers = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    bars = {
        "type": "bar", "x": packed(centers), "y": packed(histogram.counts / total),
        "marker": {"color": token("accent", 0.85)}, "hovertemplate": "%{y:.1%} of the problems<extra></extra>",
    }  # fmt: skip
    layout = {
        "meta": {"chart": "tau", "median": median, **meta_of(now)}, "bargap": 0.08,
        "xaxis": {
            "title": {"text": "τ_B in units of the median τ₃"}, "range": [-2, 2], "tickvals": [-2, -1, 0, 1, 2],
            "ticktext": ["0.01", "0.1", "1", "10", "100"],
        },
        "yaxis": {"title": {"text": "share of problems"}, "range": [0, max(0.3, 1.05 * most)], "tickformat": ".0%"},
        "shapes": [
            vertical(float(np.log10(tau)), tone, dash)
            for tau, tone, dash in ((pinned_tau, "muted", "dash"), (median, "ink", "solid"))
            if tau is not None and tau > 0
        ],
    }  # fmt: skip
    return Chart(
        {"data": [bars], "layout": layout},
        f"Distribution of τ_B over {formats.count(total)} problems, in units of the median τ₃; "
        f"the median is {median:.2f}.",
    )


def _variant_name(variant: Variant) -> str:
    """A neighbor as pages write it: the symbol of its energy, not the option's word."""
    energy = variant.config.energy
    if not variant.name.endswith(f"by {energy}"):
        return variant.name
    return variant.name.removesuffix(energy) + energy_words(energy).symbol


def robustness_chart(rows: Sequence[Robustness], now: Outcome) -> Chart:
    """How much of the selection stays when a setting moves a little, or when another criterion ranks."""
    shown = list(rows)[::-1]
    names, overlaps = [label(_variant_name(row.variant)) for row in shown], [row.overlap for row in shown]
    bars = {
        "type": "bar", "orientation": "h", "y": names, "x": overlaps, "width": 0.62,
        "marker": {"color": token("accent", 0.75)}, "hovertemplate": "%{y}: %{x:.1%} shared<extra></extra>",
    }  # fmt: skip
    weights = {
        "type": "scatter", "mode": "markers", "y": names, "x": [row.same_weight for row in shown],
        "marker": {"symbol": "diamond-open", "size": 9, "color": token("ink"), "line": pen("ink", 1.6)},
        "hovertemplate": "%{y}: %{x:.1%} of the weight stays<extra></extra>",
    }  # fmt: skip
    layout = {
        "meta": {"chart": "robustness", "overlap": {row.variant.name: row.overlap for row in rows}, **meta_of(now)},
        "xaxis": {"title": {"text": "overlap · ◇ weight that stays"}, "range": [0, 1.3], "tickformat": ".0%",
                  "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        "yaxis": {"fixedrange": True, "showgrid": False, "ticks": ""},
    }  # fmt: skip
    alt = "Overlap with the neighbors: " + ", ".join(
        f"{_variant_name(row.variant)} {formats.percent(row.overlap)}" for row in rows
    )
    values = values_column(names, [formats.percent(x) for x in overlaps], 1.3)
    return Chart(
        {"data": [bars, weights, values], "layout": layout}, alt if rows else "This selection has no neighbors."
    )
