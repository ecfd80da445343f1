"""A slider over given stops that acts while it is dragged; `st.slider` says nothing before it is released.

While it moves, its value lives in the session; once it rests it is written to the address, which is one entry of the
browser's history for the whole drag.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from app import address

_HERE = Path(__file__).parent


def live_slider(
    label: str, stops: Sequence[float], *, param: str, value: float, written: Callable[[float], str], detail: str = "",
    default: float | None = None, disabled: bool = False,
) -> float:  # fmt: skip
    """Show a slider and return its value: the one under the pointer while it is dragged, else `value`.

    `stops`: the values that it can take, ascending. `value` is what the address says, which may lie between stops;
    `written` turns a value into text; a rest at `default` takes the parameter out of the address.
    """
    moving = st.session_state.get(_moving(param))
    shown = moving.stop if moving is not None and moving.said == st.query_params.get_all(param) else value
    place = min(range(len(stops)), key=lambda i: abs(stops[i] - shown))
    _component()(
        key=f"slider.{param}",
        data={
            "param": param, "label": label, "stops": [f"{stop:.12g}" for stop in stops],
            "labels": [written(stop) for stop in stops], "place": place, "text": written(shown), "detail": detail,
            "disabled": disabled,
        },
        on_moved_change=partial(_moved, param, [float(f"{stop:.12g}") for stop in stops], default),
    )  # fmt: skip
    return shown


class _Moving(NamedTuple):
    """A value that is not in the address yet: what the address said when it began to move, and what needs no saying."""

    stop: float
    said: list[str]
    default: float | None


def is_moving() -> bool:
    """Whether any slider is under the pointer: what need not follow it at once may wait."""
    return any(str(name).startswith(_moving("")) for name in st.session_state)


def commit() -> None:
    """Write what sliders show into the address, unless the address was changed since they moved.

    For actions on what the screen shows, and for runs of a whole page: a slider that was left before it came to rest
    must not go on showing what no link says.
    """
    for name in [str(name) for name in st.session_state if str(name).startswith(_moving(""))]:
        moving, param = st.session_state.pop(name), name.removeprefix(_moving(""))
        if moving.said == st.query_params.get_all(param):
            _write(param, moving.stop, moving.default)


def _moved(param: str, stops: list[float], default: float | None) -> None:
    said = st.session_state[f"slider.{param}"].get("moved")
    try:
        stop, settled = float(said["stop"]), bool(said["settled"])
    except (TypeError, KeyError, ValueError):
        return
    if stop not in stops:
        return
    if settled:
        st.session_state.pop(_moving(param), None)
        _write(param, stop, default)
    else:
        st.session_state[_moving(param)] = _Moving(stop, st.query_params.get_all(param), default)


def _write(param: str, stop: float, default: float | None) -> None:
    address.put(**{param: None if stop == default else f"{stop:.12g}"})


def _moving(param: str) -> str:
    return f"moving.{param}"


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script, style = ((_HERE / f"live_slider.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("lark_slider", js=script, css=style, isolate_styles=False)
