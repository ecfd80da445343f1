"""Tune: what will I train on at this budget, how concentrated is it, what does it cost, is it robust?"""

from __future__ import annotations

import streamlit as st

from app import address, tune_actions, tune_controls, tune_figures
from app.boundary import guarded
from app.components.board import board
from app.pool_edits import pool_edit_controls
from app.session import current_scored
from app.shell import nothing_scored

st.title("Tune", anchor=False)
st.caption("What will I train on at this budget, how concentrated is it, what does it cost, is it robust?")
scored = current_scored()
if scored is None:
    nothing_scored()
    st.stop()

with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    config = pool_edit_controls(scored)
    tune_controls.rule_controls(scored, config)
    tune_actions.pin_controls(config)
tune_controls.preset_controls(config)
pinned = tune_actions.solve_pin(scored)
# Chosen once for each view, so that a slider does not change which problem it is.
row = tune_figures.chosen_problem(scored, config, pinned)


@st.fragment
@guarded
def live() -> None:
    """The sliders and every figure: one run for each place of a slider."""
    with st.container(border=True, key="tune_sliders"):
        # Anew: a slider that has come to rest wrote the address, and the page around has not run since.
        shown = tune_controls.sliders(scored, address.read_config())
    clicked = board(tune_figures.cards(scored, shown, pinned, row), key="tune")
    if (target := tune_figures.event_target(clicked)) is not None:
        address.go(**target)


live()
tune_actions.problem_controls(scored, row, pinned is not None)
tune_actions.save_panel(scored, config)
