"""The charts of the page Tune: numbers in, figure and its text out. Axes are fixed, so that nothing jumps while a
slider is dragged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from app import formats
from app.components.board import Figure, label, packed
from app.metric_words import energy_words
from app.palette import color, token
from app.tuning import BudgetCurve, Outcome, ProblemView
from lark_engine.scoring.matrix import Floats
from lark_engine.selection.profile import Histogram, RankProfile
from lark_engine.selection.robustness import Robustness, Variant

_LEAST_WEIGHT = 1e-3
_MOST_NAMED = 40  # teachers with a row of their own; a longer list cannot be read


class Chart(NamedTuple):
    """A figure and the same in words."""

    figure: Figure
    alt: str


def budget_chart(curve: BudgetCurve, now: Outcome, pinned: Outcome | None) -> Chart:
    """Cost and concentration over all budgets, with the place of the current selection and of the pinned one."""
    most = float(curve.mean_kept[-1]) if len(curve.mean_kept) else 1.0
    ess_top = max(1.0, float(np.nanmax(curve.ess))) if len(curve.ess) else 1.0
    lines = [("captured utility", curve.captured, "accent", "y"), ("training tokens", curve.tokens, "muted", "y")]
    traces: list[dict[str, Any]] = [
        _line(curve.mean_kept, values, name, tone, axis) for name, values, tone, axis in lines
    ]
    traces.append(_line(curve.mean_kept, curve.ess, "ess", "warn", "y2"))
    for place, hollow in ((pinned, True), (now, False)):
        if place is not None:
            traces += _dots(place, hollow)
    shapes, notes = [], []
    if curve.knee is not None:
        at = float(curve.mean_kept[curve.knee - 1])
        shapes.append(_vertical(at, "muted", "dot"))
        notes.append({**_note(at, 0.0, f" knee B = {curve.knee}", "muted", "bottom"), "xanchor": "left"})
    shapes.append(_vertical(now.mean_kept, "ink", "solid"))
    layout = {
        "meta": {"chart": "budget", "knee": curve.knee, "mean_kept": now.mean_kept, **_meta(now)},
        "xaxis": {"title": {"text": "trajectories kept of a problem (mean)"}, "range": [0, most * 1.02]},
        "yaxis": {"title": {"text": "share of the most possible"}, "range": [0, 1.04], "tickformat": ".0%"},
        "yaxis2": {
            "title": {"text": "ess of a problem"}, "range": [0, 1.04 * ess_top], "overlaying": "y", "side": "right",
            "showgrid": False, "automargin": True, "tickfont": {"color": token("warn")}, "tickformat": ".3~g",
            "nticks": 5, "tickmode": "auto",
        },
        "shapes": shapes, "annotations": [*notes, *_names(curve, ess_top)],
    }  # fmt: skip
    knee = f" The knee is at B = {curve.knee}." if curve.knee is not None else ""
    ess, captured = formats.decimal(now.figures["ess"]["mean"], 2), formats.percent(now.captured_share)
    alt = (
        f"Lines over the budget, up to {most:.1f} kept of a problem. Now {now.mean_kept:.2f} are kept of a problem: "
        f"ess {ess}, captured utility {captured} of the way from uniform weights to the best candidate alone.{knee}"
    )
    return Chart({"data": traces, "layout": layout}, alt)


def _line(x: Floats, y: Floats, name: str, tone: str, axis: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": packed(x), "y": packed(y), "name": name, "yaxis": axis,
        "line": {"color": token(tone), "width": 2},
        "hovertemplate": f"{name}: %{{y:.3g}}<br>kept %{{x:.2f}}<extra></extra>",
    }  # fmt: skip


def _dots(place: Outcome, hollow: bool) -> list[dict[str, Any]]:
    values = [
        (place.captured_share, "accent", "y"),
        (place.token_share, "muted", "y"),
        (place.figures["ess"]["mean"], "warn", "y2"),
    ]
    return [
        {
            "type": "scatter", "mode": "markers", "x": [place.mean_kept], "y": [y], "yaxis": axis, "hoverinfo": "skip",
            "marker": {
                "size": 10, "color": token("bg") if hollow else token(tone),
                "line": {"color": token(tone) if hollow else token("bg"), "width": 2 if hollow else 1.5},
            },
        }
        for y, tone, axis in values
        if y is not None
    ]  # fmt: skip


def _names(curve: BudgetCurve, ess_top: float) -> list[dict[str, Any]]:
    """The lines' names, each beside its line where the lines are apart: no legend to look up."""
    if not len(curve.mean_kept):
        return []
    # On the side that the line leaves: above to the right of one that falls, above to the left of one that rises.
    places = (("captured utility", curve.captured, "accent", 0.3, 1.0, "left"),
              ("tokens", curve.tokens, "muted", 0.62, 1.0, "right"),
              ("ess", curve.ess, "warn", 0.85, ess_top, "right"))  # fmt: skip
    found = []
    for name, values, tone, share, top, side in places:
        at = min(len(values) - 1, round(share * (len(values) - 1)))
        if np.isfinite(values[at]):
            note = _note(float(curve.mean_kept[at]), float(values[at]) / top, f" {name} ", tone, "bottom")
            found.append({**note, "xanchor": side})
    return found


def teacher_chart(
    now: Outcome, pinned: Outcome | None, slots: Mapping[str, int], fixed: Mapping[str, Mapping[str, float]]
) -> Chart:
    """Each teacher's share of the weight (solid), of the selected (diamond) and of the pool (tick).

    `fixed`: each teacher's largest shares at any budget, which no slider changes. They give the order of the rows and
    the end of the axis.
    """
    teachers = now.figures["teachers"]
    ordered = sorted(teachers, key=lambda name: (-fixed.get(name, {"q": 0.0})["q"], name))
    names, num_others = ordered[:_MOST_NAMED][::-1], max(0, len(ordered) - _MOST_NAMED)
    shares = [max(share["q"], share["pool"]) for share in fixed.values()]
    most = 1.0 if now.config.rule == "best_teacher" else max(shares, default=1.0)
    # Places, not names: two names may be cut to the same label.
    rows, shown = list(range(len(names))), [label(name) for name in names]
    tones = [slots.get(name, 0) for name in names]
    weight = [teachers[name]["q"] for name in names]
    bars: dict[str, Any] = {
        "type": "bar", "orientation": "h", "y": rows, "x": weight, "customdata": names, "hovertext": shown,
        "width": 0.62, "marker": {"color": [color(slot, 0.85) for slot in tones], "line": {"width": 0}},
        "hovertemplate": "%{hovertext}<br>%{x:.1%} of the weight<extra></extra>",
    }  # fmt: skip
    marks = [
        _values(rows, [formats.percent(share) for share in weight], most * 1.2),
        _marks(rows, shown, [teachers[name]["pool"] for name in names], "line-ns", "muted", "of the pool"),
        _marks(rows, shown, [teachers[name]["count"] for name in names], "diamond-open", "ink", "of the selected"),
    ]
    if pinned is not None:
        of_pinned = pinned.figures["teachers"]
        weight_in_a = [of_pinned.get(name, {"q": 0.0})["q"] for name in names]
        marks.append(_marks(rows, shown, weight_in_a, "circle-open", "accent", f"weight in {pinned.name}"))
    layout = {
        "meta": {"chart": "teachers", **_meta(now)},
        "xaxis": {"range": [-0.03 * most, most * 1.2], "tickformat": ".0%", "title": {"text": "share"}},
        "yaxis": {
            "fixedrange": True, "showgrid": False, "ticks": "", "tickvals": rows, "ticktext": shown,
            "range": [-0.6, max(len(names), 1) - 0.4],
        },
        "bargap": 0.3,
    }  # fmt: skip
    top = max(names, key=lambda name: teachers[name]["q"], default=None)
    alt = (
        "Bars of each teacher's share of the weight. "
        + "; ".join(
            f"{name}: {formats.percent(teachers[name]['q'])} of the weight, "
            f"{formats.percent(teachers[name]['pool'])} of the pool"
            for name in names[::-1]
        )
        + (f"; {num_others} more are not shown" if num_others else "")
    )
    return Chart({"data": [bars, *marks], "layout": layout}, alt if top else "No teacher holds weight.")


def _values(rows: Sequence[str] | Sequence[int], texts: Sequence[str], at: float) -> dict[str, Any]:
    """The bars' values in a column of their own at the right end, where no mark covers them."""
    return {
        "type": "scatter", "mode": "text", "y": rows, "x": [at] * len(rows), "text": list(texts),
        "textposition": "middle left", "textfont": {"size": 12}, "hoverinfo": "skip", "cliponaxis": False,
    }  # fmt: skip


def _marks(
    rows: Sequence[int], names: Sequence[str], x: Sequence[float], shape: str, tone: str, what: str
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "y": rows, "x": x, "hovertext": names, "cliponaxis": False,
        "marker": {"symbol": shape, "size": 9, "color": token(tone), "line": {"color": token(tone), "width": 1.6}},
        "hovertemplate": f"%{{hovertext}}<br>%{{x:.1%}} {what}<extra></extra>",
    }  # fmt: skip


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
        "meta": {"chart": "profile", "weights": [round(float(q), 6) for q in profile.mean[:33]], **_meta(now)},
        "xaxis": {"title": {"text": "rank in the problem"}, "range": [0.5, num_ranks + 0.5], **_whole(num_ranks)},
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
            {**_kept_bars(pinned, "muted", 0.0), "marker": {"color": "rgba(0,0,0,0)", "line": _pen("muted", 1.5)}}
        )
    layout = {
        "meta": {"chart": "kept", **_meta(now)}, "barmode": "overlay", "bargap": 0.15,
        "xaxis": {
            "title": {"text": "trajectories kept of a problem"}, "range": [0.4, num_ranks + 0.6], **_whole(num_ranks)
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
        "meta": {"chart": "tau", "median": median, **_meta(now)}, "bargap": 0.08,
        "xaxis": {
            "title": {"text": "τ_B in units of the median τ₃"}, "range": [-2, 2], "tickvals": [-2, -1, 0, 1, 2],
            "ticktext": ["0.01", "0.1", "1", "10", "100"],
        },
        "yaxis": {"title": {"text": "share of problems"}, "range": [0, max(0.3, 1.05 * most)], "tickformat": ".0%"},
        "shapes": [
            _vertical(float(np.log10(tau)), tone, dash)
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
        "marker": {"symbol": "diamond-open", "size": 9, "color": token("ink"), "line": _pen("ink", 1.6)},
        "hovertemplate": "%{y}: %{x:.1%} of the weight stays<extra></extra>",
    }  # fmt: skip
    layout = {
        "meta": {"chart": "robustness", "overlap": {row.variant.name: row.overlap for row in rows}, **_meta(now)},
        "xaxis": {"title": {"text": "overlap · ◇ weight that stays"}, "range": [0, 1.3], "tickformat": ".0%",
                  "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        "yaxis": {"fixedrange": True, "showgrid": False, "ticks": ""},
    }  # fmt: skip
    alt = "Overlap with the neighbors: " + ", ".join(
        f"{_variant_name(row.variant)} {formats.percent(row.overlap)}" for row in rows
    )
    values = _values(names, [formats.percent(x) for x in overlaps], 1.3)
    return Chart(
        {"data": [bars, weights, values], "layout": layout}, alt if rows else "This selection has no neighbors."
    )


def problem_chart(
    view: ProblemView, pinned: ProblemView | None, teachers: Sequence[str], keys: Sequence[tuple[str, int]],
    slots: Mapping[str, int], now: Outcome,
) -> Chart:  # fmt: skip
    """One problem: the energy of every candidate by rank with the cut, and below it the weights.

    `teachers` and `keys` (problem_id, candidate_id) are those of the candidates by rank.
    """
    x = [f"{rank}" for rank in range(1, len(view.columns) + 1)]
    kept = view.prob > 0
    hover = [f"{label(name)} · candidate {place}" for name, (_, place) in zip(teachers, keys, strict=True)]
    ink = [color(slots.get(name, 0), 0.9 if keep else 0.28) for name, keep in zip(teachers, kept, strict=True)]
    common = {"type": "bar", "x": x, "customdata": [list(key) for key in keys], "hovertext": hover, "width": 0.7}
    energy = {
        **common, "y": packed(view.energy), "marker": {"color": ink},
        "hovertemplate": "%{hovertext}<br>energy %{y:.4f}<extra></extra>",
    }  # fmt: skip
    weight = {
        **common, "y": packed(view.prob), "marker": {"color": ink}, "yaxis": "y2",
        "hovertemplate": "%{hovertext}<br>weight %{y:.3f}<extra></extra>",
    }  # fmt: skip
    traces = [energy, weight]
    if pinned is not None:
        of_pinned = dict(zip(pinned.columns, pinned.prob, strict=True))
        traces.append({
            "type": "bar", "x": x, "y": packed([of_pinned.get(column, 0.0) for column in view.columns]), "yaxis": "y2",
            "width": 0.7, "marker": {"color": "rgba(0,0,0,0)", "line": _pen("ink", 1.5)}, "hoverinfo": "skip",
        })  # fmt: skip
    low, high = _energy_range(view.energy)
    shapes = []
    if view.cut is not None and low <= view.cut <= high:
        shapes.append({
            "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": view.cut, "y1": view.cut, "yref": "y",
            "line": {"color": token("bad"), "width": 1.4, "dash": "dash"},
        })  # fmt: skip
    layout = {
        "meta": {"chart": "problem", "row": view.row, "kept": int(kept.sum()), "cut": view.cut, **_meta(now)},
        "xaxis": {"title": {"text": "rank"}, "type": "category", "fixedrange": True, "anchor": "y2", "showgrid": False},
        "yaxis": {"title": {"text": "energy"}, "domain": [0.47, 1.0], "range": [low, high]},
        "yaxis2": {"title": {"text": "weight q"}, "domain": [0.0, 0.37], "range": [0, 1.02], "automargin": True},
        "barmode": "overlay", "shapes": shapes,
    }  # fmt: skip
    parts = [
        f"rank {rank} {name} weight {prob:.3f}"
        for rank, (name, prob) in enumerate(zip(teachers, view.prob, strict=True), start=1)
        if prob > 0
    ]
    return Chart(
        {"data": traces, "layout": layout}, f"{len(x)} candidates by rank; kept: {'; '.join(parts) or 'none'}."
    )


def _meta(outcome: Outcome) -> dict[str, Any]:
    """What tests and people who look into a figure find: whose numbers it shows."""
    config = outcome.config
    return {
        "B": config.budget if config.has_budget else None, "sharpness": config.sharpness, "tau": config.tau,
        "num_trajectories": outcome.figures["num_trajectories"],
    }  # fmt: skip


def _pen(tone: str, width: float) -> dict[str, Any]:
    return {"color": token(tone), "width": width}


def _vertical(x: float, tone: str, dash: str) -> dict[str, Any]:
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": {
        "color": token(tone), "width": 1.2, "dash": dash}}  # fmt: skip


def _note(x: float, y: float, text: str, tone: str, anchor: str) -> dict[str, Any]:
    """A few words at a place; `y` is a share of the height of the left axis."""
    return {"x": x, "y": y * 1.0, "yref": "y", "text": text, "showarrow": False, "yanchor": anchor, "xanchor": "center",
            "font": {"color": token(tone), "size": 12}}  # fmt: skip


def _whole(most: int) -> dict[str, Any]:
    """Ticks at whole numbers, where there is room for each."""
    return {"dtick": 1} if most <= 12 else {}


def _energy_range(energy: Floats) -> tuple[float, float]:
    """From the energies alone, with 0 in it: a cut far below them, under flat weights, must not squeeze the bars."""
    if not len(energy):
        return 0.0, 1.0
    low, high = min(0.0, float(energy.min())), max(0.0, float(energy.max()))
    room = 0.06 * (high - low) or 1.0
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else 0.0)
