"""The charts of the page Tune on budget, teachers and one problem: numbers in, figure and its text out. Axes are fixed,
so that nothing jumps while a slider is dragged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lark_engine.figures import formats
from lark_engine.figures.cards import label, packed
from lark_engine.figures.chart_parts import Chart, meta_of, note, pen, values_column, vertical
from lark_engine.figures.palette import color, token
from lark_engine.figures.tuning import BudgetCurve, Outcome, ProblemView
from lark_engine.scoring.matrix import Floats

_MOST_NAMED = 40  # teachers with a row of their own; a longer list cannot be read


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
        shapes.append(vertical(at, "muted", "dot"))
        notes.append({**note(at, 0.0, f" knee B = {curve.knee}", "muted", "bottom"), "xanchor": "left"})
    shapes.append(vertical(now.mean_kept, "ink", "solid"))
    layout = {
        "meta": {"chart": "budget", "knee": curve.knee, "mean_kept": now.mean_kept, **meta_of(now)},
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
    ranks = np.arange(len(curve.mean_kept))
    for name, values, tone, share, top, side in places:
        # Between two budgets if need be, so that names stay apart where there are few.
        x, y = (float(np.interp(share * ranks[-1], ranks, of)) for of in (curve.mean_kept, values))
        if np.isfinite(y):
            beside = note(x, y / top, f" {name} ", tone, "bottom")
            found.append({**beside, "xanchor": side})
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
        values_column(rows, [formats.percent(share) for share in weight], most * 1.2),
        _marks(rows, shown, [teachers[name]["pool"] for name in names], "line-ns", "muted", "of the pool"),
        _marks(rows, shown, [teachers[name]["count"] for name in names], "diamond-open", "ink", "of the selected"),
    ]
    if pinned is not None:
        of_pinned = pinned.figures["teachers"]
        weight_in_a = [of_pinned.get(name, {"q": 0.0})["q"] for name in names]
        marks.append(_marks(rows, shown, weight_in_a, "circle-open", "accent", f"weight in {pinned.name}"))
    layout = {
        "meta": {"chart": "teachers", **meta_of(now)},
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


def _marks(
    rows: Sequence[int], names: Sequence[str], x: Sequence[float], shape: str, tone: str, what: str
) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "y": rows, "x": x, "hovertext": names, "cliponaxis": False,
        "marker": {"symbol": shape, "size": 9, "color": token(tone), "line": {"color": token(tone), "width": 1.6}},
        "hovertemplate": f"%{{hovertext}}<br>%{{x:.1%}} {what}<extra></extra>",
    }  # fmt: skip


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
            "width": 0.7, "marker": {"color": "rgba(0,0,0,0)", "line": pen("ink", 1.5)}, "hoverinfo": "skip",
        })  # fmt: skip
    low, high = _energy_range(view.energy)
    shapes = []
    if view.cut is not None and low <= view.cut <= high:
        shapes.append({
            "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": view.cut, "y1": view.cut, "yref": "y",
            "line": {"color": token("bad"), "width": 1.4, "dash": "dash"},
        })  # fmt: skip
    layout = {
        "meta": {"chart": "problem", "row": view.row, "kept": int(kept.sum()), "cut": view.cut, **meta_of(now)},
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


def _energy_range(energy: Floats) -> tuple[float, float]:
    """From the energies alone, with 0 in it: a cut far below them, under flat weights, must not squeeze the bars."""
    if not len(energy):
        return 0.0, 1.0
    low, high = min(0.0, float(energy.min())), max(0.0, float(energy.max()))
    room = 0.06 * (high - low) or 1.0
    return (low - room if low < 0 else 0.0), (high + room if high > 0 else 0.0)
