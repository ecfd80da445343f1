"""All training runs as a table: sorted and paged on the server, a row opens its run on the page Train."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import streamlit as st

from app import address, run_words
from app.address import flag, number, one_of
from app.boundary import guarded
from app.components.row_table import TableEvent, row_table
from app.run_words import COLUMNS, SORTS
from app.runs import load_runs
from lark_engine.store.workspace import Workspace
from lark_engine.training.runs import Run

_REFRESH_S = 10.0
_PAGE_SIZE = 15
_SORT = one_of(list(SORTS), "age")


def runs_table(workspace: Workspace, *, is_live: bool) -> None:
    """The table, by itself: neither sorting nor another page of it runs the rest. `is_live`: whether it changes."""

    @st.fragment(run_every=_REFRESH_S if is_live else None)
    @guarded
    def table() -> None:
        _page_of(load_runs(workspace))

    table()


def _page_of(runs: Sequence[Run]) -> None:
    by, descending = address.read("run_sort", _SORT), address.read("run_desc", flag())
    ordered = run_words.sort(runs, by, descending=descending)
    num_pages = max(1, -(-len(ordered) // _PAGE_SIZE))
    place = min(address.read("run_page", number(1, 1e6, 1, integer=True)), num_pages)
    first = (place - 1) * _PAGE_SIZE
    rows = ordered[first : first + _PAGE_SIZE]
    labels, now_s = run_words.labels(runs), time.time()
    caption = f"Runs {first + 1} to {first + len(rows)} of {len(runs)}"
    row_table(
        list(COLUMNS), [run_words.cells(run, labels[run.id], now_s) for run in rows], key="runs_table", caption=caption,
        sort=by, descending=descending, open_label="Show run",
        on_event=partial(_act, [run.id for run in rows], by, descending),
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.caption(f"{caption} · a row shows its run above", width="content")
        if num_pages > 1:
            key = f"run_page.{place}.{num_pages}"
            st.pagination(num_pages, default=place, key=key, on_change=_turn, args=(key,))


def _act(names: Sequence[str], by: str, descending: bool, event: TableEvent) -> None:
    """Open the run of a row, or sort by another column or the other way round."""
    if event.kind == "open":
        opened = names[event.row]
        address.put(run=opened, overlay=[name for name in st.query_params.get_all("overlay") if name != opened] or None)
        return
    turned = event.column == by and not descending
    starts_high = event.column not in ("name", "age", by)
    address.put(
        run_sort=None if event.column == "age" else event.column, run_page=None,
        run_desc="true" if turned or starts_high else None,
    )  # fmt: skip
    address.take_changed()  # nothing else on the page follows it


def _turn(key: str) -> None:
    place = st.session_state[key]
    address.put(run_page=place if place and place > 1 else None)
    address.take_changed()
