"""What the charts of the page Tune are put together from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from lark_engine.figures.cards import Figure
from lark_engine.figures.palette import token
from lark_engine.figures.tuning import Outcome


class Chart(NamedTuple):
    """A figure and the same in words."""

    figure: Figure
    alt: str


def values_column(rows: Sequence[str] | Sequence[int], texts: Sequence[str], at: float) -> dict[str, Any]:
    """The bars' values in a column of their own at the right end, where no mark covers them."""
    return {
        "type": "scatter", "mode": "text", "y": rows, "x": [at] * len(rows), "text": list(texts),
        "textposition": "middle left", "textfont": {"size": 12}, "hoverinfo": "skip", "cliponaxis": False,
    }  # fmt: skip


def meta_of(outcome: Outcome) -> dict[str, Any]:
    """What tests and people who look into a figure find: whose numbers it shows."""
    config = outcome.config
    return {
        "B": config.budget if config.has_budget else None, "sharpness": config.sharpness, "tau": config.tau,
        "num_trajectories": outcome.figures["num_trajectories"],
    }  # fmt: skip


def pen(tone: str, width: float) -> dict[str, Any]:
    return {"color": token(tone), "width": width}


def vertical(x: float, tone: str, dash: str) -> dict[str, Any]:
    return {"type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": {
        "color": token(tone), "width": 1.2, "dash": dash}}  # fmt: skip


def note(x: float, y: float, text: str, tone: str, anchor: str) -> dict[str, Any]:
    """A few words at a place; `y` is a share of the height of the left axis."""
    return {"x": x, "y": y, "yref": "y", "text": text, "showarrow": False, "yanchor": anchor, "xanchor": "center",
            "font": {"color": token(tone), "size": 12}}  # fmt: skip


def whole_ticks(most: int) -> dict[str, Any]:
    """Ticks at whole numbers, where there is room for each."""
    return {"dtick": 1} if most <= 12 else {}
