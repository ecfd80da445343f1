"""What one does with a selection on the page Tune: pin it, save it, take the file, train with it."""

from __future__ import annotations

import secrets
from typing import NamedTuple

import streamlit as st

from app import address, widgets
from app.address import bound, one_of, pack, read, read_config, unpack, words
from app.boundary import guarded, reported
from app.components import live_slider
from app.files import export_path
from app.launch import job_panel, running_job, start
from app.scored import ScoredPool, load_frame
from app.session import current_workspace, shown_line
from app.tune_figures import PROBLEM, solved
from lark_engine.access import visitor
from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.figures import formats
from lark_engine.figures.tuning import Outcome, budget_text
from lark_engine.results.commands import select_command
from lark_engine.selection.select import plan_select
from lark_engine.store.workspace import Artifact

_PINS = {"A": "pin_a", "B": "pin_b"}
_PACKED = words(20_000)


class Pinned(NamedTuple):
    """A selection that is kept to compare with."""

    name: str
    config: SelectConfig


def read_pin() -> Pinned | None:
    """The pin that the page compares with, if any."""
    against = read("against", one_of(tuple(_PINS), None))
    packed = read(_PINS[against], _PACKED) if against else ""
    return Pinned(against, unpack(packed)) if packed else None


def solve_pin(scored: ScoredPool) -> Outcome | None:
    """The pinned selection's weights; where it cannot be made of these scores, a card says why and there is none."""
    pin = read_pin()
    if pin is None:
        return None
    try:
        return solved(scored, pin.config, pin.name)
    except ConfigError as error:
        st.html(widgets.problem(f"{pin.name} cannot be compared with here.", str(error)))
        return None


def pin_controls(config: SelectConfig) -> None:
    """Pin the current selection as A or B, compare with one of them, open or drop them."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="tune_pins", width="content"):
        held = {name: read(param, _PACKED) for name, param in _PINS.items()}
        for name in _PINS:
            st.button(
                f"Pin as {name}", key=f"pin.{name}", icon=":material/keep:", shortcut=name.lower(),
                help=f"Keep {budget_text(config)} as {name} to compare with", on_click=_pin, args=(name,),
            )  # fmt: skip
        names = [name for name in _PINS if held[name]]
        if names:
            st.segmented_control(
                "Compare with", names, format_func="against {}".format, label_visibility="collapsed",
                **bound("against", one_of(names, None)),
            )  # fmt: skip
        pin = read_pin()
        for name in names:
            said = unpack(held[name])
            with st.popover(f"{name}: {formats.plain_markdown(budget_text(said))}"):
                clear = dict.fromkeys(address.SELECT_PARAMS)
                st.button(
                    "Open it", key=f"open.{name}", on_click=address.put, kwargs={**clear, **address.config_params(said)}
                )
                is_compared = pin is not None and pin.name == name
                st.button(
                    "Unpin", key=f"unpin.{name}", on_click=address.put,
                    kwargs={_PINS[name]: None, **({"against": None} if is_compared else {})},
                )  # fmt: skip


def _pin(name: str) -> None:
    """Pin what the screen shows, which may be ahead of the address by the move of a slider."""
    live_slider.commit()
    address.put(**{_PINS[name]: pack(read_config()), "against": name})


def problem_controls(scored: ScoredPool, row: int | None, is_compared: bool) -> None:
    """Which problem is shown in full; `row`: that problem."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="tune_problem"):
        st.button(
            "Largest difference" if is_compared else "Most concentrated", icon=":material/compare_arrows:",
            help="The problem where the weights differ most from the pinned selection, or from uniform",
            on_click=address.put, kwargs={PROBLEM: None},
        )  # fmt: skip
        st.button("Random problem", icon=":material/casino:", on_click=_random_problem, args=(scored,))
        if row is not None:
            address.page_link(
                "trajectory", "Read its candidates", icon=":material/article:", problem=scored.problem_ids[row]
            )


@reported
def _random_problem(scored: ScoredPool) -> None:
    solvable = load_frame(scored, read_config()).ranked.num_valid_N.nonzero()[0]
    if len(solvable):
        address.put(**{PROBLEM: str(scored.problem_ids[int(secrets.choice(solvable.tolist()))])})


def _save(scored: ScoredPool) -> None:
    """Start the command that saves what the screen shows."""
    live_slider.commit()
    workspace = current_workspace()
    start(workspace, select_command(read_config(), scored.scores, scored.pool, workspace))


@st.fragment
@guarded
def save_panel(scored: ScoredPool, config: SelectConfig) -> None:
    """Save the selection by the command that is shown, follow it, and offer its file."""
    workspace = current_workspace()
    saved = workspace.find(plan_select(config, scored.scores, scored.pool))
    command = select_command(config, scored.scores, scored.pool, workspace)
    if saved is not None:
        _saved(saved)
        return
    job = running_job(workspace, command)
    if job is None:
        # A selection is saved by a job, which solves it once more and writes its training set.
        refusal = visitor().why_not("launch")
        st.button(
            "Save this selection", type="primary", icon=":material/save:", key="save", disabled=bool(refusal),
            help=formats.plain_markdown(refusal) or "Writes train.jsonl with the weights; a saved one never changes",
            on_click=_save, args=(scored,),
        )  # fmt: skip
        if refusal:
            st.html(widgets.note(refusal))
    job_panel(workspace, command)
    with st.expander("The command that the button runs"):
        st.code(shown_line(command), language=None, wrap_lines=True)


def _saved(saved: Artifact) -> None:
    st.html(widgets.saved(saved.id, saved.manifest.counts, export_path))
    address.page_link("train", "Train with this", icon=":material/model_training:", train_data=saved.id)
