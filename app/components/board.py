"""A grid of cards whose charts change in place: one message from the server, one repaint, nothing remounted.

`st.plotly_chart` takes a changed figure out of the page and puts a new one in: it blinks, and zoom and selections are
lost. The board hands each changed figure to `Plotly.react`. Colors are tokens (`lark_engine.figures.palette`), resolved
in the browser, so that a change of theme recolors at once. After each paint it dispatches `lark:painted` on the
document.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import plotly
import streamlit as st

from lark_engine.figures import drawing
from lark_engine.figures.cards import Card

PLOTLY_ROUTE = f"/lark/plotly-{plotly.__version__}.min.js"
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class PlotEvent:
    """What the user did to a chart: a click on a mark, or a box drawn with the pointer (ranges in data units)."""

    card: str
    kind: Literal["click", "box"]
    x: Any = None
    y: Any = None
    customdata: Any = None
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None


def board(cards: Sequence[Card], *, key: str, on_event: Callable[[PlotEvent], None] | None = None) -> PlotEvent | None:
    """Show the cards. Returns what the user did to a chart since the last run, if anything.

    `on_event` is called with it before the page runs, as callbacks of widgets are: the place to change the address.
    """
    shown = [_card(card) for card in cards]
    callback = partial(_deliver, key, on_event) if on_event else lambda: None
    result = _component()(key=key, data={"board": key, "cards": shown}, on_event_change=callback)
    return _event(result.get("event"))


def load_library() -> None:
    """Have the browser load and compile the charts' library while the server still works on the first charts."""
    _library_component()(key="lark_chart_library")


def _deliver(key: str, on_event: Callable[[PlotEvent], None]) -> None:
    event = _event(st.session_state[key].get("event"))
    if event is not None:
        on_event(event)


def _card(card: Card) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "key": card.key, "title": card.title, "note": card.note, "span": card.span,
        "stats": [stat._asdict() for stat in card.stats],
    }  # fmt: skip
    if card.figure is not None:
        # The figure travels as text: the browser tells by comparing whether it changed.
        shown |= {"alt": card.alt, "height": card.height, "figure": drawing.figure_text(card)}
    return shown


def _event(said: Any) -> PlotEvent | None:
    """What the browser reports, checked: it may be anything."""
    if not isinstance(said, dict) or said.get("kind") not in ("click", "box") or not isinstance(said.get("card"), str):
        return None
    return PlotEvent(
        card=said["card"], kind=said["kind"], x=said.get("x"), y=said.get("y"), customdata=said.get("customdata"),
        x_range=_range(said.get("x_range")), y_range=_range(said.get("y_range")),
    )  # fmt: skip


def _range(said: Any) -> tuple[float, float] | None:
    if isinstance(said, list) and len(said) == 2 and all(map(_is_number, said)):
        return (float(min(said)), float(max(said)))
    return None


def _is_number(said: Any) -> bool:
    """Finite, and within float64: JSON holds larger integers too."""
    return isinstance(said, int | float) and not isinstance(said, bool) and abs(said) < sys.float_info.max


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script = drawing.script() + _script("board.js")
    return st.components.v2.component("lark_board", js=script, css=drawing.styles(), isolate_styles=False)


@st.cache_resource(show_spinner=False)
def _library_component() -> Any:
    # What fails here is said by the board, which tries again.
    script = _script() + "export default function () { loadPlotly().catch(() => {}); }"
    return st.components.v2.component("lark_chart_library", js=script, isolate_styles=False)


def _script(*names: str) -> str:
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in ("chart_library.js", *names)]
    return "".join(scripts).replace("__PLOTLY__", json.dumps(PLOTLY_ROUTE))
