"""What the Overview shows of work: what runs, what failed lately, the machine, and how a new workspace begins."""

from __future__ import annotations

import time
from collections.abc import Sequence

import streamlit as st

from app import job_blocks, job_words, widgets
from app.address import page_link
from app.boundary import guarded
from app.launch import launch_panel
from app.loaders import Unfinished, load_unfinished, running_names
from app.machine import load_conflicts, load_devices, load_disk
from app.overview import DEMO, FIRST_STEPS, Step, unowned
from app.session import shell_command
from lark_engine.jobs.status import JobView, list_jobs, queue
from lark_engine.store.workspace import Workspace

_POLL_S, _LOOK_S = 2.0, 5.0
_MOST_CARDS = 5
_MOST_NAMED = 3


def demo_command(workspace: Workspace) -> list[str]:
    """The whole pipeline on the embedded pool, into this workspace."""
    return ["lark", "demo", "--no-dashboard", "--workspace", str(workspace.root)]


def at_work(workspace: Workspace, jobs: Sequence[JobView], unfinished: Sequence[Unfinished]) -> None:
    """Live jobs and what is made outside of jobs, followed; when something starts or ends the page runs again."""
    shown = _signs(jobs, unfinished)

    @st.fragment(run_every=_POLL_S if any(shown) else _LOOK_S)
    @guarded
    def live() -> None:
        now, current = list_jobs(workspace.root), load_unfinished(workspace)
        if _signs(now, current) != shown:
            st.rerun()
        _running(now, unowned(current, now))

    live()


def _signs(jobs: Sequence[JobView], unfinished: Sequence[Unfinished]) -> tuple[object, ...]:
    """What the rest of the page rests on: which jobs live, what is being made, and what ended without a result."""
    ended = sum(job.state in ("failed", "interrupted") for job in jobs)
    return frozenset(job.id for job in jobs if job.is_live), frozenset(running_names(list(unfinished))), ended


def _running(jobs: Sequence[JobView], others: Sequence[Unfinished]) -> None:
    waiting = queue(list(jobs))
    live = [*(job for job in jobs if job.is_live and job not in waiting), *waiting]
    if running := [item for item in others if item.running]:
        others = [item for item in others if not item.running]
    if live or running:
        st.subheader("Running now", anchor=False)
    for job in live[:_MOST_CARDS]:
        with st.container(horizontal=True, vertical_alignment="center", key=f"live.{job.id}"):
            st.html(job_blocks.card(job, time.time()), width="stretch")
            page_link("jobs", "Open", icon=":material/chevron_right:", job=job.id)
    if len(live) > _MOST_CARDS:
        page_link("jobs", f"and {len(live) - _MOST_CARDS} more", icon=":material/list_alt:", job_state="live")
    if running:
        st.html(widgets.unfinished(running))
    if others:
        st.subheader("Left unfinished", anchor=False)
        st.html(widgets.unfinished(others))


def failed_lately(jobs: Sequence[JobView]) -> None:
    """In a line: which jobs failed within a day and were not run again."""
    failed = job_words.failed_lately(jobs)
    if not failed:
        return
    stages = list(dict.fromkeys(job_words.stage(job) for job in failed))
    named = ", ".join(stages[:_MOST_NAMED]) + (", …" if len(stages) > _MOST_NAMED else "")
    many = f"{len(failed)} jobs" if len(failed) > 1 else "1 job"
    with st.container(horizontal=True, vertical_alignment="center", key="failed_lately"):
        sentence = f"{many} failed in the last day and {'were' if len(failed) > 1 else 'was'} not run again: {named}"
        st.html(job_blocks.alert_line(sentence), width="content")
        params = {"job_state": "failed"} if len(failed) > 1 else {"job": failed[0].id}
        page_link("jobs", "See why", icon=":material/error:", **params)


def show_next(step: Step) -> None:
    """What to do next, with the command and the page that do it."""
    st.subheader("Next", anchor=False)
    show_step(step)


def show_step(step: Step) -> None:
    """A step: its sentence, its command, and the link to its page."""
    st.html(widgets.note(step.sentence))
    if step.command:
        st.code(shell_command(step.command), language=None, wrap_lines=True)
    if step.page:
        page_link(step.page, step.label, icon=":material/arrow_forward:", **dict(step.params))


def first_steps(workspace: Workspace, jobs: Sequence[JobView]) -> None:
    """How a new workspace begins: the demo by a button, or three steps of one's own."""
    st.subheader("First steps", anchor=False)
    st.html(widgets.note("This workspace is empty. Begin with the demo or with a pool of your own; this page follows."))
    if not any(job.is_live for job in jobs):
        with st.container(border=True, key="demo"):
            st.html(widgets.note(DEMO))
            launch_panel(workspace, demo_command(workspace), "Run the demo", key="run_demo")
    for column, step in zip(st.columns(len(FIRST_STEPS), border=True), FIRST_STEPS, strict=True):
        with column:
            show_step(step)


def machine_health(workspace: Workspace) -> None:
    """Disk, devices, and what is wrong with them or with the versions."""
    st.subheader("Machine", anchor=False)
    st.html(job_blocks.health(load_disk(workspace), load_devices(), load_conflicts()))
