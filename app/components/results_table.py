"""A table of models × benchmarks whose cells hold a figure, its interval, notes and links into the page.

Links are real ones, so that the address of what they open can be copied, and a click opens it without loading the page
anew. All texts are put in as text, never as HTML. The looks are those of `.lark-results` in lark.css.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

import streamlit as st

from lark_engine.figures.safe_text import one_line

_HERE = Path(__file__).parent
_MOST_LETTERS = 120
Params = Mapping[str, str]
Tone = Literal["", "muted", "warn", "good"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a cell. `link`: the parameters of the address that it opens; `help` is shown on hover."""

    text: str
    help: str = ""
    link: Params | None = None
    tone: Tone = ""


class Range(NamedTuple):
    """An interval on a scale from 0 to 1, with the figure that it is of."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """`value`: the figure, with a note beside it; `badges` are what to know before believing it; `share`: how far."""

    value: Line
    note: str = ""
    is_best: bool = False
    range: Range | None = None
    share: float | None = None
    lines: Sequence[Line] = ()
    badges: Sequence[Line] = ()


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A model: its name, what it is, and a cell for each column."""

    label: Line
    detail: str
    cells: Sequence[TableCell]
    is_reference: bool = False


class TableColumn(NamedTuple):
    """A benchmark; a click on one with a key asks to sort by it."""

    label: str
    note: str
    key: str = ""


class Opened(NamedTuple):
    """What was clicked: a link, by its parameters, or a column, by its key."""

    link: Params | None
    sort: str


def results_table(
    columns: Sequence[TableColumn], rows: Sequence[TableRow], *, key: str, caption: str, legend: str, sort: str = "",
    shared: Mapping[str, Any] = {},
) -> Opened | None:  # fmt: skip
    """Draw the table. Returns what the user has clicked since the last run, if anything.

    `caption` says to a screen reader what the table holds; `shared`: parameters that each address has beside its own.
    """
    links: list[Params] = []

    def line(said: Line) -> dict[str, Any]:
        found: dict[str, Any] = {"text": one_line(said.text, _MOST_LETTERS), "help": said.help, "tone": said.tone}
        if said.link is not None:
            found |= {"link": len(links), "query": urlencode({**shared, **said.link}, doseq=True)}
            links.append(said.link)
        return found

    def cell(said: TableCell) -> dict[str, Any]:
        return {
            "value": line(said.value), "note": said.note, "best": said.is_best, "range": said.range,
            "share": said.share, "lines": [line(one) for one in said.lines],
            "badges": [line(one) for one in said.badges],
        }  # fmt: skip

    data = {
        "caption": caption, "legend": legend, "sort": sort,
        "columns": [{"label": one_line(c.label, _MOST_LETTERS), "note": c.note, "key": c.key} for c in columns],
        "rows": [
            {"label": line(row.label), "detail": one_line(row.detail, _MOST_LETTERS), "reference": row.is_reference,
             "cells": [cell(one) for one in row.cells]}
            for row in rows
        ],
    }  # fmt: skip
    result = _component()(key=key, data=data, on_event_change=lambda: None)
    return _opened(result.get("event"), links, {column.key for column in columns} - {""})


def _opened(said: Any, links: Sequence[Params], keys: set[str]) -> Opened | None:
    """What the browser reports, checked: it may be anything."""
    if not isinstance(said, dict):
        return None
    link, sort = said.get("link"), said.get("sort")
    if isinstance(link, int) and 0 <= link < len(links):
        return Opened(links[link], "")
    return Opened(None, sort) if isinstance(sort, str) and sort in keys else None


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script, style = ((_HERE / f"results_table.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("lark_results_table", js=script, css=style, isolate_styles=False)
