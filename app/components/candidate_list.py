"""The candidates of a problem as a list to choose from: teacher, ĝ as a bar with the threshold, weight, correctness.

Changes in place; what the server sends is put in as text. A click on a row chooses it, one on its ⇄ compares with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import streamlit as st

from lark_engine.figures import markers
from lark_engine.figures.palette import symbol

_HERE = Path(__file__).parent


class Row(NamedTuple):
    """One candidate, as it is written. `bar`: where ĝ's bar begins and ends, in percent; None without a score."""

    id: int
    slot: int
    teacher: str
    rank: str
    bar: tuple[float, float] | None
    energy: str
    weight: str
    verdict: Literal["correct", "wrong", "unknown"]
    tokens: str
    notes: tuple[str, ...]
    kept: bool


class Picked(NamedTuple):
    """What the user chose: the candidate that is shown, and the one beside it, if any (the same one: kept as B)."""

    shown: int
    versus: int | None


def candidate_list(
    rows: Sequence[Row], *, key: str, title: str, note: str, symbol_name: str, threshold: float | None, zero: float,
    shown: int, versus: int | None, on_pick: Callable[[Picked], None],
) -> None:  # fmt: skip
    """Show the list. `versus`: what is kept as B, shown or not. `threshold`, `zero`: places on the bars' axis, in %."""
    lines = [
        {
            **row._asdict(), "id": str(row.id), "color": markers.colors(row.slot),
            "shape": markers.SHAPES[symbol(row.slot)],
        }
        for row in rows
    ]  # fmt: skip
    _component()(
        key=key,
        data={
            "rows": lines, "title": title, "note": note, "symbol": symbol_name, "threshold": threshold, "zero": zero,
            "shown": str(shown), "versus": None if versus is None else str(versus),
        },
        on_picked_change=partial(_deliver, key, on_pick),
    )  # fmt: skip


def _deliver(key: str, on_pick: Callable[[Picked], None]) -> None:
    """Checked: what the browser says may be anything."""
    said = st.session_state[key].get("picked")
    if not isinstance(said, dict):
        return
    shown, versus = (
        int(id) if re.fullmatch(r"-?\d{1,10}", id := str(said.get(name))) else None for name in ("shown", "versus")
    )
    if shown is not None:
        on_pick(Picked(shown, versus))


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script, style = ((_HERE / f"candidate_list.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("lark_candidate_list", js=script, css=style, isolate_styles=False)
