"""Trajectory: why this score, and would I want my student to imitate it?"""

from __future__ import annotations

import streamlit as st

from app import trajectory_view as view
from app.session import current_scored
from app.shell import nothing_scored

st.title("Trajectory", anchor=False)
st.caption("Why this score, and would I want my student to imitate it?")
scored = current_scored()
if scored is None:
    nothing_scored()
    st.stop()

view.styles()
shown = view.choose(scored)
if shown is None:
    st.stop()
view.navigation(shown)
with st.container(key="trajectory_main"):
    rail, main = st.columns([5, 7], gap="large")
with rail:
    view.candidates(shown)
with main:
    view.problem(shown)
    view.controls(shown)
if shown.versus is None:
    with rail, st.container(key="trajectory_why"):
        view.explanation(shown, shown.chosen)
    with main:
        view.texts(shown)
else:
    view.texts(shown)  # two texts need the width of the page
    left, right = st.columns(2, gap="medium")
    with left:
        view.explanation(shown, shown.chosen, "A")
    with right:
        view.explanation(shown, shown.versus, "B")
