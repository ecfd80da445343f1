"""Overview: where am I, what runs, what is the best result so far, what next?"""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from app import widgets
from app.address import bound, one_of
from app.loaders import load_results, load_snapshot, load_unfinished, running_names
from app.overview import FIRST_STEPS, Step, chains, next_step, stage_cards
from app.results import best_results, metrics_of, results_of
from app.session import current_workspace, shell_command

workspace = current_workspace()
now = datetime.now(UTC)
snapshot = load_snapshot(workspace)
unfinished = load_unfinished(workspace)
results = load_results(workspace)


@st.fragment(run_every=2.0 if any(item.running for item in unfinished) else 5.0)
def being_made() -> None:
    """Unfinished artifacts, followed while they are made; when one starts or ends the whole page runs again."""
    current = load_unfinished(workspace)
    if running_names(current) != running_names(unfinished):
        st.rerun()
    if current:
        st.subheader("Being made", anchor=False)
        st.html(widgets.unfinished(current))


def show_next(step: Step) -> None:
    """What to do next, with the command that does it."""
    st.subheader("Next", anchor=False)
    st.html(widgets.note(step.sentence))
    if step.command:
        st.code(shell_command(step.command), language=None, wrap_lines=True)


st.title("Overview", anchor=False)
st.caption("The pipeline from pool to results, the best result so far, and where each one comes from.")
st.html(widgets.strip(stage_cards(snapshot, unfinished, now)))
if snapshot.damaged or results.problems:
    st.html(widgets.damaged(snapshot.damaged, results.problems))
being_made()

if snapshot.is_empty and not unfinished:
    st.subheader("First steps", anchor=False)
    st.html(widgets.note("This workspace is empty. Each of these fills it, and this page follows by itself."))
    for column, step in zip(st.columns(len(FIRST_STEPS), border=True), FIRST_STEPS, strict=True):
        column.html(widgets.note(step.sentence))
        column.code(shell_command(step.command), language=None, wrap_lines=True)

next_up = next_step(snapshot, unfinished)
if not results.table.empty:
    metrics = metrics_of(results.table)
    left, right = st.columns([2, 1], gap="medium")
    left.subheader("Best result so far", anchor=False)
    with right:
        show_next(next_up)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
        st.subheader("All results", anchor=False, width="content")
        metric = st.segmented_control(
            "Metric", metrics, required=True, label_visibility="collapsed",
            **bound("metric", one_of(metrics, metrics[0])),
        )  # fmt: skip
    shown = results_of(results.table, str(metric))
    left.html(widgets.best(best_results(shown), str(metric)))
    st.html(widgets.results(shown))
elif not snapshot.is_empty:
    show_next(next_up)

if snapshot.artifacts["grades"]:
    st.subheader("Where each result comes from", anchor=False)
    st.html(widgets.lineages(chains(snapshot), now))
