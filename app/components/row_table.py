"""A page of a table whose rows open something and whose columns sort on the server.

`st.dataframe` sorts only the rows that it holds and draws them on a canvas: no link, no screen reader. This is a table
of the browser; all texts are put in as text, never as HTML.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import streamlit as st

from lark_engine.figures.palette import DARK, LIGHT
from lark_engine.figures.safe_text import one_line

_HERE = Path(__file__).parent
_MOST_LETTERS = 60


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its key is what a click on its head asks to sort by; "" for one that cannot be sorted."""

    label: str
    key: str = ""
    is_number: bool = True
    help: str = ""


class Cell(NamedTuple):
    """A cell's text, and the color slot of a teacher or the tone of a state (a class of its style) to mark it with."""

    text: str
    slot: int | None = None
    tone: str = ""


class TableEvent(NamedTuple):
    """A row that was opened, by its place on the page, or a column whose head was clicked, by its key."""

    kind: Literal["open", "sort"]
    row: int
    column: str


def row_table(
    columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, key: str, caption: str, sort: str, descending: bool,
    open_label: str, on_event: Callable[[TableEvent], None] | None = None,
) -> TableEvent | None:  # fmt: skip
    """Show the rows. Returns what the user did since the last run, if anything.

    `caption` says to a screen reader what the table holds, `open_label` what a row's button does. `on_event` is called
    with it before the page runs, as callbacks of widgets are: the page then need not run twice.
    """
    keys = {column.key for column in columns} - {""}
    data = {
        "caption": caption, "sort": sort, "descending": descending, "open": open_label,
        "columns": [
            {"label": c.label, "key": c.key, "number": c.is_number, "help": c.help} for c in columns
        ],
        "rows": [[[one_line(cell.text, _MOST_LETTERS), cell.slot, cell.tone] for cell in row] for row in rows],
    }  # fmt: skip
    callback = partial(_deliver, key, len(rows), keys, on_event) if on_event else lambda: None
    result = _component()(key=key, data=data, on_event_change=callback)
    return _event(result.get("event"), len(rows), keys)


def _deliver(key: str, num_rows: int, keys: set[str], on_event: Callable[[TableEvent], None]) -> None:
    event = _event(st.session_state[key].get("event"), num_rows, keys)
    if event is not None:
        on_event(event)


def _event(said: Any, num_rows: int, keys: set[str]) -> TableEvent | None:
    """What the browser reports, checked: it may be anything."""
    if not isinstance(said, dict):
        return None
    row, column = said.get("row"), said.get("column")
    if said.get("kind") == "open" and isinstance(row, int) and 0 <= row < num_rows:
        return TableEvent("open", row, "")
    if said.get("kind") == "sort" and isinstance(column, str) and column in keys:
        return TableEvent("sort", 0, column)
    return None


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script = (_HERE / "row_table.js").read_text(encoding="utf-8")
    for name, value in {"__LIGHT__": LIGHT, "__DARK__": DARK}.items():
        script = script.replace(name, json.dumps(value))
    return st.components.v2.component(
        "lark_row_table", js=script, css=(_HERE / "row_table.css").read_text(encoding="utf-8"), isolate_styles=False
    )
