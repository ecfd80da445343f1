"""Overview: where am I, what runs, what is the best result so far, what next?"""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from app import widgets
from app.address import bound, one_of
from app.job_blocks import STYLES
from app.loaders import load_results, load_snapshot, load_unfinished
from app.overview import chains, next_step, stage_cards
from app.overview_live import at_work, failed_lately, first_steps, machine_health, show_next
from app.results import best_results, metrics_of, results_of
from app.session import current_workspace
from lark_engine.jobs.status import list_jobs

workspace = current_workspace()
now = datetime.now(UTC)
snapshot = load_snapshot(workspace)
unfinished = load_unfinished(workspace)
results = load_results(workspace)
jobs = list_jobs(workspace.root)

st.html(STYLES)
st.title("Overview", anchor=False)
st.caption("The pipeline from pool to results, the best result so far, and where each one comes from.")
st.html(widgets.strip(stage_cards(snapshot, unfinished, now)))
if snapshot.damaged or results.problems:
    st.html(widgets.damaged(snapshot.damaged, results.problems))
at_work(workspace, jobs, unfinished)

if snapshot.is_empty and not unfinished:
    first_steps(workspace, jobs)
else:
    failed_lately(jobs)

next_up = next_step(snapshot, unfinished, jobs)
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
machine_health(workspace)
