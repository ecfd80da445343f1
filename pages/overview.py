"""Overview: where am I, what runs, what is the best result so far, what next?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import streamlit as st

from app import widgets
from app.address import bound, one_of, page_link, read
from app.job_blocks import STYLES
from app.loaders import load_results, load_snapshot, load_unfinished
from app.overview import chains, next_step, stage_cards
from app.overview_live import at_work, failed_lately, first_steps, machine_health, show_next
from app.results import OWN_COUNT, best_results, metrics_of, offered_metrics, own_counts, results_of, with_own_counts
from app.session import current_workspace
from lark_engine.figures import formats
from lark_engine.jobs.status import list_jobs

MOST_ROWS = 10

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

if snapshot.is_empty and not any(item.running for item in unfinished):
    first_steps(workspace, jobs)
else:
    failed_lately(jobs)

next_up = next_step(snapshot, unfinished, jobs)
table = with_own_counts(results.table)
if metrics := metrics_of(table):
    left, right = st.columns([2, 1], gap="medium")
    left.subheader("Best result so far", anchor=False)
    with right:
        show_next(next_up)
    with st.container(horizontal=True, horizontal_alignment="distribute", vertical_alignment="bottom"):
        st.subheader("All results", anchor=False, width="content")
        codec = one_of(metrics, metrics[0])
        metric = str(read("metric", codec))
        st.segmented_control(
            "Metric", offered_metrics(metrics, metric), required=True, label_visibility="collapsed",
            **bound("metric", codec),
        )  # fmt: skip
    shown = results_of(table, metric)
    left.html(widgets.best(best_results(shown), metric))
    if metric == OWN_COUNT:
        left.caption(f"n: as many samples as each benchmark has · {formats.plain_markdown(own_counts(table))}")
    st.html(widgets.results(shown._replace(rows=shown.rows[:MOST_ROWS])))
    if (more := len(shown.rows) - MOST_ROWS) > 0:
        page_link("evaluate", f"{more} more on Evaluate", icon=":material/leaderboard:")
elif not snapshot.is_empty or unfinished:
    show_next(next_up)

if snapshot.artifacts["grades"]:
    newest = snapshot.artifacts["grades"][:MOST_ROWS]
    st.subheader("Where each result comes from", anchor=False)
    st.html(widgets.lineages(chains(replace(snapshot, artifacts={**snapshot.artifacts, "grades": newest})), now))
    if (older := len(snapshot.artifacts["grades"]) - MOST_ROWS) > 0:
        st.caption(f"and {older} older ones: `lark lineage`, or the table on Evaluate")
machine_health(workspace)
