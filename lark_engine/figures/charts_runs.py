"""The charts of training runs: curves of one run, with other runs laid over it. Numbers in, cards out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lark_engine.figures import formats
from lark_engine.figures.cards import Card, Figure, label, packed
from lark_engine.figures.chart_axes import ceiling, end_labels, round_range
from lark_engine.figures.palette import color, token
from lark_engine.figures.safe_text import one_line
from lark_engine.training.curves import Axis, Curve, Curves, moving_average, thinned

AXIS_TITLES: dict[Axis, str] = {"step": "optimizer step", "tokens": "tokens trained on", "hours": "hours of training"}
SPANS = (1, 5, 25, 100, 500)
MOST_POINTS = 1000
_DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
# Slots of the palette that keep apart from the accent, which is the chosen run's.
_SLOTS = (3, 8, 5, 6, 0)
MOST_OVERLAID = len(_SLOTS)
_EVALUATION_MARKS = ("circle", "square", "diamond", "triangle-up")
_HEIGHT = 250
_MOST_ALERTS = 50


class Overlaid(NamedTuple):
    """A run that is laid over the chosen one; its place among them is its color."""

    name: str
    curves: Curves


@dataclass(frozen=True, kw_only=True)
class View:
    """What the charts show: the chosen run, others, and how. `ends_at`: where the axis ends for a run that goes on."""

    name: str
    curves: Curves
    overlaid: Sequence[Overlaid] = ()
    axis: Axis = "step"
    is_log: bool = False
    span: int = 1
    ends_at: float | None = None

    @property
    def num_steps(self) -> int:
        """Steps that were logged."""
        return len(self.curves.curve("loss").x)

    @property
    def smoothing(self) -> str:
        return f"line: smoothed, span of {self.span} logged steps" if self.span > 1 else "not smoothed"

    def note(self, *parts: str) -> str:
        n = f"n = {formats.count(self.num_steps)} logged steps"
        return " · ".join(part for part in (*parts, n) if part)

    def others(self) -> list[tuple[Overlaid, int]]:
        """The overlaid runs that can be drawn along this axis, each with its place."""
        return [(run, place) for place, run in enumerate(self.overlaid) if run.curves.has(self.axis)]


def auto_span(num_steps: int) -> int:
    """The longest span of `SPANS` that is at most a tenth of the curve."""
    return max(span for span in SPANS if span == 1 or 10 * span <= num_steps)


def cards(view: View) -> list[Card]:
    """The four charts of a run; none of what its log does not say."""
    makers = {"loss": _loss, "learning_rate": _rate, "grad_norm": _norm, "tokens_per_s": _speed}
    return [
        make(view) for metric, make in makers.items() if metric == "loss" or len(view.curves.curve(metric, view.axis).x)
    ]  # fmt: skip


def _loss(view: View) -> Card:
    raw = view.curves.curve("loss", view.axis)
    smooth = moving_average(raw, view.span)
    traces, shown = _pair(raw, smooth, view, "loss")
    drawn = [smooth]
    names = [(view.name, smooth, token("accent"))] if view.others() else []
    for run, place in view.others():
        theirs = moving_average(run.curves.curve("loss", view.axis), view.span)
        traces.append(_overlaid(theirs, run, place, "loss"))
        names.append((run.name, theirs, color(_SLOTS[place])))
        drawn.append(theirs)
    held_out = [(name, view.curves.curve(name, view.axis)) for name in view.curves.evaluations]
    for place, (name, curve) in enumerate(held_out):
        traces.append(_evaluation(curve, name, place))
        names.append((_set_name(name), curve, token("ink")))
        drawn.append(curve)
    traces += _alerts(view)
    y_range = round_range([shown, *drawn], is_log=view.is_log)
    layout = {
        **_layout(view, "loss, nats a token", y_range, is_log=view.is_log),
        "annotations": end_labels(names, y_range, is_log=view.is_log),
    }
    layout["margin"] = {"l": 8, "r": 112 if names else 12, "t": 10, "b": 8}
    num_alerts = len(view.curves.alerts)
    alerts = f"▽ {num_alerts} alert{'s' if num_alerts != 1 else ''}" if num_alerts else ""
    faint = "faint: every logged step" if view.span > 1 else ""
    return Card(
        key="loss", title=_loss_title(smooth), note=view.note(faint, view.smoothing, alerts), height=_HEIGHT,
        figure={"data": traces, "layout": layout}, alt=_loss_alt(view, raw, smooth, held_out, num_alerts),
    )  # fmt: skip


def _loss_title(smooth: Curve) -> str:
    if len(smooth.y) < 2:
        return "Is the loss falling?"
    first, last = float(smooth.y[0]), float(smooth.y[-1])
    if abs(last - first) <= 0.02 * abs(first):
        return f"The loss stays at {last:.3g}"
    return f"The loss {'fell' if last < first else 'rose'} from {first:.3g} to {last:.3g}"


def _loss_alt(
    view: View, raw: Curve, smooth: Curve, held_out: Sequence[tuple[str, Curve]], num_alerts: int
) -> str:  # fmt: skip
    if not len(raw.y):
        return f"No loss of {view.name} is logged yet."
    said = [
        f"Loss of {view.name} by {AXIS_TITLES[view.axis]}: first {raw.y[0]:.4g}, last {raw.y[-1]:.4g}, lowest "
        f"{raw.y.min():.4g}, highest {raw.y.max():.4g}, smoothed last {smooth.y[-1]:.4g}"
    ]
    said += [f"{_set_name(name)} last {curve.y[-1]:.4g}" for name, curve in held_out if len(curve.y)]
    for run, _ in view.others():
        if (last := run.curves.last("loss")) is not None:
            said.append(f"{run.name} last {last:.4g}")
    if num_alerts:
        said.append(f"{num_alerts} alerts")
    return "; ".join(said) + "."


def _rate(view: View) -> Card:
    curve = view.curves.curve("learning_rate", view.axis)
    traces = [_line(curve, "learning rate", token("accent"), 2)]
    drawn = [curve]
    for run, place in view.others():
        theirs = run.curves.curve("learning_rate", view.axis)
        traces.append(_overlaid(theirs, run, place, "learning rate"))
        drawn.append(theirs)
    peak = max((float(one.y.max()) for one in drawn if len(one.y)), default=0.0)
    layout = _layout(view, "learning rate", (0.0, ceiling(peak)), exponent="power")
    last = f"{curve.y[-1]:.3g}"
    return Card(
        key="rate", title=f"The learning rate is {last}", note=view.note(), height=_HEIGHT,
        figure={"data": traces, "layout": layout},
        alt=f"Learning rate of {view.name} by {AXIS_TITLES[view.axis]}: highest {peak:.3g}, last {last}.",
    )  # fmt: skip


def _add_others(traces: list[Figure], view: View, column: str, label: str) -> list[Curve]:
    """Draw the smoothed curves of the runs that are compared with; returns them."""
    found = []
    for run, place in view.others():
        theirs = moving_average(run.curves.curve(column, view.axis), view.span)
        traces.append(_overlaid(theirs, run, place, label))
        found.append(theirs)
    return found


def _norm(view: View) -> Card:
    raw = view.curves.curve("grad_norm", view.axis)
    smooth = moving_average(raw, view.span)
    traces, shown = _pair(raw, smooth, view, "gradient norm")
    drawn = [smooth, *_add_others(traces, view, "grad_norm", "gradient norm")]
    most = max(float(curve.y.max()) for curve in (shown, *drawn) if len(curve.y))
    layout = _layout(view, "norm before clipping", (0.0, ceiling(most)))
    median = float(np.median(raw.y))
    title = f"The gradient norm is {median:.3g} at the median, {raw.y.max():.3g} at most"
    alt = (
        f"Gradient norm of {view.name} by {AXIS_TITLES[view.axis]}: median {median:.3g}, highest {raw.y.max():.3g}, "
        f"last {raw.y[-1]:.3g}."
    )
    return Card(
        key="norm", title=title, note=view.note(view.smoothing), height=_HEIGHT,
        figure={"data": traces, "layout": layout}, alt=alt,
    )  # fmt: skip


def _speed(view: View) -> Card:
    raw, use = (view.curves.curve(name, view.axis) for name in ("tokens_per_s", "device_use"))
    smooth = moving_average(raw, view.span)
    traces, shown = _pair(raw, smooth, view, "tokens/s")
    drawn = [smooth, *_add_others(traces, view, "tokens_per_s", "tokens/s")]
    if len(use.y):
        line = _line(moving_average(use, view.span), "device use", token("warn"), 1.6, y_format=".0%")
        traces.append({**line, "yaxis": "y2", "line": {**line["line"], "dash": "dot"}})
    layout = {
        **_layout(view, "tokens/s", (0.0, ceiling(max(float(c.y.max()) for c in (shown, *drawn) if len(c.y))))),
        "yaxis2": {
            "title": {"text": "device use"}, "range": [0, 1.04], "overlaying": "y", "side": "right", "showgrid": False,
            "tickformat": ".0%", "automargin": True, "tickfont": {"color": token("warn")},
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
        },
    }  # fmt: skip
    median = float(np.median(raw.y))
    busy = f", the device {formats.percent(float(np.median(use.y)))} busy" if len(use.y) else ""
    title = f"It trains on {formats.compact(median)} tokens a second{busy}"
    last = f"{raw.y[-1]:,.4g}"
    alt = f"Tokens a second of {view.name} by {AXIS_TITLES[view.axis]}: median {median:,.4g}, last {last}{busy}."
    dotted = "dotted: device use" if len(use.y) else ""
    return Card(
        key="speed", title=title, note=view.note(view.smoothing, dotted), height=_HEIGHT,
        figure={"data": traces, "layout": layout}, alt=alt,
    )  # fmt: skip


def _pair(raw: Curve, smooth: Curve, view: View, what: str) -> tuple[list[Figure], Curve]:
    """The logged values, faint where they are smoothed too, and the values that the axis must have room for."""
    if view.span <= 1:
        return [_line(raw, what, token("accent"), 1.8)], raw
    faint = {**_line(raw, what, token("accent", 0.3), 1), "hoverinfo": "skip"}
    return [faint, _line(smooth, f"{what}, smoothed", token("accent"), 2.2)], raw


def _line(curve: Curve, what: str, ink: str, width: float, *, y_format: str = ".4g") -> Figure:
    x, y = thinned(curve, MOST_POINTS)
    mode = "lines+markers" if len(x) == 1 else "lines"
    return {
        "type": "scatter", "mode": mode, "x": packed(x), "y": packed(y), "name": what,
        "line": {"color": ink, "width": width}, "marker": {"size": 6},
        "hovertemplate": f"{what} %{{y:{y_format}}}<br>%{{x:.5~s}}<extra></extra>",
    }  # fmt: skip


def _overlaid(curve: Curve, run: Overlaid, place: int, what: str) -> Figure:
    """The smoothed curve of another run, by color and dash."""
    line = _line(curve, f"{label(run.name)}<br>{what}", color(_SLOTS[place]), 1.6)
    return {**line, "line": {**line["line"], "dash": _DASHES[place]}}


def _evaluation(curve: Curve, name: str, place: int) -> Figure:
    line = _line(curve, label(_set_name(name)), token("ink"), 1.2)
    mark = {"symbol": _EVALUATION_MARKS[place % len(_EVALUATION_MARKS)], "size": 7, "color": token("bg"),
            "line": {"color": token("ink"), "width": 1.6}}  # fmt: skip
    dotted = {**line["line"], "dash": "dot"}
    return {**line, "mode": "lines+markers", "marker": mark, "line": dotted, "cliponaxis": False}


def _set_name(metric: str) -> str:
    """`eval_held_out_loss` as `held out`."""
    return formats.words(metric.removeprefix("eval_").removesuffix("_loss"))


def _alerts(view: View) -> list[Figure]:
    marks = [mark for mark in view.curves.marks(view.axis) if np.isfinite(mark.x) and np.isfinite(mark.y)]
    if not marks:
        return []
    marks = marks[-_MOST_ALERTS:]
    return [{
        "type": "scatter", "mode": "markers", "x": [mark.x for mark in marks], "y": [mark.y for mark in marks],
        "hovertext": [formats.count(mark.x) + "<br>" + label(one_line(mark.text, 90)) for mark in marks],
        "marker": {"symbol": "triangle-down-open", "size": 11, "color": token("bad"), "line": {"width": 2}},
        "name": "alert", "hovertemplate": "%{hovertext}<extra></extra>",
    }]  # fmt: skip


def _layout(
    view: View, y_title: str, y_range: tuple[float, float], *, is_log: bool = False, exponent: str = "none"
) -> Figure:  # fmt: skip
    ends = [view.ends_at or 0.0]
    ends += [float(one.along(view.axis)[-1]) for one in _drawn(view) if one.num_events]
    x_end = max((end for end in ends if math.isfinite(end)), default=0.0) or 1.0
    low, high = y_range
    return {
        "meta": {"run": view.name, "axis": view.axis, "n": view.num_steps, "overlaid": len(view.others()),
                 "step": view.curves.number("done")},
        # Zoom is kept while points come, and given up where it would mean something else.
        "uirevision": f"{view.name} {view.axis} {is_log}",
        "xaxis": {"title": {"text": AXIS_TITLES[view.axis]}, "range": [0, 1.01 * x_end],
                  "tickformat": ".3~g" if view.axis == "hours" else "~s"},
        "yaxis": {
            "title": {"text": y_title}, "type": "log" if is_log else "linear", "exponentformat": exponent,
            "range": [math.log10(low), math.log10(high)] if is_log else [low, high], "nticks": 6,
        },
    }  # fmt: skip


def _drawn(view: View) -> list[Curves]:
    return [view.curves, *(run.curves for run, _ in view.others())]
