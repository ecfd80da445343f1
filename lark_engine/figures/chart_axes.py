"""Axes that stay where they are while points come, and the names of curves at their ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lark_engine.figures.cards import label
from lark_engine.figures.safe_text import one_line
from lark_engine.training.curves import Curve, value_range


def round_range(curves: Sequence[Curve], *, is_log: bool) -> tuple[float, float]:
    """An axis that holds the curves, in round numbers, so that it stays where it is while points come."""
    found = value_range([curve.y for curve in curves])
    if found is None:
        return (0.1, 1.0) if is_log else (0.0, 1.0)
    low, high = found
    if is_log:
        positive = min((float(c.y[c.y > 0].min()) for c in curves if (c.y > 0).any()), default=0.1)
        low, high = 0.92 * max(low, positive), 1.08 * max(high, positive)
        return 10 ** (math.floor(10 * math.log10(low)) / 10), 10 ** (math.ceil(10 * math.log10(high)) / 10)
    step = round_step((high - low) / 5)
    return math.floor(low / step) * step, math.ceil(1.001 * high / step) * step


def round_step(step: float) -> float:
    """The next of 1, 2, 2.5 or 5 times a power of ten."""
    if step <= 0 or not math.isfinite(step):
        return 0.1
    power = 10 ** math.floor(math.log10(step))
    return next(part * power for part in (1, 2, 2.5, 5, 10) if part * power >= 0.999 * step)


def ceiling(value: float) -> float:
    """The end of an axis from 0 on that holds a value, in round numbers."""
    step = round_step(value / 5)
    return math.ceil(1.02 * value / step) * step if value > 0 else 1.0


def end_labels(
    names: Sequence[tuple[str, Curve, str]], y_range: tuple[float, float], *, is_log: bool
) -> list[dict[str, Any]]:  # fmt: skip
    """The curves' names in a column at the right, each at the height where its curve ends, apart from each other."""
    low, high = (math.log10(end) for end in y_range) if is_log else y_range

    def height(curve: Curve) -> float:
        value = float(curve.y[-1])
        at = math.log10(max(value, 1e-12)) if is_log else value
        return min(1.0, max(0.0, (at - low) / ((high - low) or 1.0)))

    placed = sorted(((height(curve), name, ink) for name, curve, ink in names if len(curve.y)), reverse=True)
    heights: list[float] = []
    for at, _, _ in placed:
        heights.append(min(at, heights[-1] - 0.085) if heights else at)
    lift = max(0.0, -min(heights, default=0.0))
    return [
        {
            "x": 1.01, "xref": "paper", "y": at + lift, "yref": "paper", "xanchor": "left", "yanchor": "middle",
            "text": label(one_line(name, 16)), "showarrow": False, "font": {"color": ink, "size": 12},
        }
        for at, (_, name, ink) in zip(heights, placed, strict=True)
    ]  # fmt: skip
