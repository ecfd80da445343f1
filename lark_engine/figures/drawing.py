"""What draws cards in a browser, on pages and in reports: the script of the charts, the styles, and the library."""

from __future__ import annotations

import json
from pathlib import Path

import plotly

from lark_engine.figures.cards import Card
from lark_engine.figures.palette import DARK, LIGHT

LIBRARY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_HERE = Path(__file__).parent


def script() -> str:
    """`theme`, `colored`, `template` and `drawFigure`, with the teachers' colors in it; declares constants."""
    text = (_HERE / "drawing.js").read_text(encoding="utf-8")
    for name, value in {"__LIGHT__": LIGHT, "__DARK__": DARK}.items():
        text = text.replace(name, json.dumps(value))
    return text


def styles() -> str:
    """How cards look; colors are the style variables of Streamlit (`--st-text-color` and so on)."""
    return (_HERE / "cards.css").read_text(encoding="utf-8")


def figure_text(card: Card) -> str:
    """The figure of a card as `drawFigure` takes it."""
    assert card.alt, f"the chart {card.key} needs its text"
    return json.dumps(card.figure, separators=(",", ":"), allow_nan=False)
