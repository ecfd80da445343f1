"""Grade the same answers by other rules, as a job, and compare what comes of it with what was there."""

from __future__ import annotations

import streamlit as st

from app import address, widgets
from app.config_form import ConfigForm
from app.launch import launch_panel
from lark_engine.config import GradeConfig
from lark_engine.evaluation.grade import plan_grade
from lark_engine.figures.formats import plain_markdown, words
from lark_engine.figures.side_words import grading_words
from lark_engine.results.commands import grade_command
from lark_engine.results.graded import Graded
from lark_engine.store.workspace import Workspace


def regrade_panel(workspace: Workspace, one: Graded, graded: list[Graded]) -> None:
    """The form of the rules, the command, its job; and each other grading of these answers, to compare with."""
    st.subheader("Grade again", anchor=False)
    st.html(widgets.note("Other rules on the same answers: nothing is generated, and both gradings stay."))
    others = [x for x in graded if x.generations.path == one.generations.path and x.place != one.place]
    for other in others:
        st.button(
            plain_markdown(f"Compare with the one {grading_words(other)}"), key=f"regraded.{other.place}",
            icon=":material/compare_arrows:", type="tertiary", on_click=address.put,
            kwargs={"view": "compare", "a": one.place, "b": other.place, "on": None, "cell": None, "cpage": None},
        )  # fmt: skip
    form = ConfigForm(config=GradeConfig, prefix="regrade", base={}, fixed={})
    values = form.values()
    form.draw(values, first=("rules", "equality", "answer_type"))
    if not isinstance(values.config, GradeConfig):
        return
    st.caption(f"Tried in this order: {', '.join(words(rule) for rule in values.config.rules)}")
    command = grade_command(values.config, [one.generations], workspace)
    done = workspace.find(plan_grade(values.config, workspace, one.generations))
    launch_panel(
        workspace, command, "Grade again", key="regrade_job", icon=":material/grading:",
        disabled_because="These answers are graded so already: change a rule." if done else "",
    )  # fmt: skip
