"""Evaluate: is A better than B, by how much, on which problems, can I trust the grader?"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.address import bound, one_of, read
from app.compare_view import show_compare
from app.eval_results import show_results
from app.eval_run import nothing_graded, show_run
from app.loaders import load_results
from app.problem_view import show_problem
from app.session import current_workspace
from app.shell import is_closed

VIEWS = {"results": "Results", "run": "Run", "compare": "Compare", "problems": "Problems"}
_VIEW = one_of(list(VIEWS), "results")

workspace = current_workspace()
st.html(Path(__file__).parents[1] / "app" / "static" / "evaluate.css")
st.title("Evaluate", anchor=False)
st.caption("Is A better than B, by how much, on which problems, can I trust the grader?")
st.segmented_control(
    "View", list(VIEWS), format_func=VIEWS.__getitem__, required=True, label_visibility="collapsed",
    **bound("view", _VIEW, clears=("page",)),
)  # fmt: skip
view = read("view", _VIEW)
if view == "run":
    if not is_closed("launch", "Run what is missing", "lark generate --model-path MODEL --benchmark NAME --grade"):
        show_run(workspace)
elif (results := load_results(workspace)).table.empty:
    nothing_graded(workspace)
elif view == "compare":
    show_compare(workspace)
elif view == "problems":
    show_problem(workspace)
else:
    show_results(workspace, results)
