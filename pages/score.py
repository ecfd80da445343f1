"""Pool and scores: which candidates are there, and what does my student make of them?"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import widgets
from app.address import bound, name_at_once, one_of, read
from app.loaders import load_snapshot
from app.pool_form import add_pool
from app.pool_list import being_made, pool_list, rejected_of_address
from app.score_form import score_pool
from app.session import current_workspace, shell_command
from app.shell import is_closed

TASKS = {"score": "Score a pool", "add": "Add a pool"}

st.html(Path(__file__).resolve().parents[1] / "app" / "static" / "score.css")
st.title("Pool and scores", anchor=False)
st.caption("Which candidates are there, and what does my student make of them?")
workspace = current_workspace()
snapshot = load_snapshot(workspace)
pools = snapshot.artifacts["pools"]

if pools:
    pool_list(snapshot)
else:
    st.html(widgets.note("This workspace holds no pool yet. Add one below, or see it all on the embedded demo:"))
    st.code(shell_command("make demo"), language=None, wrap_lines=True)
rejected_of_address(workspace, snapshot)
work = st.container()

codec = one_of(list(TASKS), "score" if pools else "add")
name_at_once(task=codec.default)
st.segmented_control(
    "What to do", list(TASKS), format_func=TASKS.__getitem__, required=True, label_visibility="collapsed",
    **bound("task", codec),
)  # fmt: skip
with st.container(border=True, key="score_task"):
    shown: list[list[str]] = []
    if read("task", codec) == "score":
        if not is_closed("launch", "Score", "lark score --input POOL --student STUDENT"):
            shown = score_pool(workspace, snapshot)
    elif not is_closed("launch", "Import", "lark pool import FILE"):
        shown = add_pool(workspace, snapshot)
with work:
    being_made(workspace, snapshot, shown)
