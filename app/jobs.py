"""Long work started from a page: the very command that the page shows, as a job, followed while the page polls."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import streamlit as st

from app import widgets
from app.boundary import guarded
from lark_engine.errors import LarkError
from lark_engine.jobs.actions import submit
from lark_engine.jobs.status import JobView, list_jobs
from lark_engine.serve import SOURCE_TREE
from lark_engine.store.workspace import Workspace

log = logging.getLogger(__name__)
_REFUSED = "jobs.refused"


def newest_job(workspace: Workspace, command: Sequence[str]) -> JobView | None:
    """The newest job of this very command, ended or not."""
    return next(
        (job for job in list_jobs(workspace.root) if job.spec and list(job.spec.command) == list(command)), None
    )


def running_job(workspace: Workspace, command: Sequence[str]) -> JobView | None:
    """The job of this very command that waits or runs."""
    found = newest_job(workspace, command)
    return found if found is not None and found.is_live else None


def start(workspace: Workspace, command: Sequence[str]) -> None:
    """Start the command as a job, unless one of it lives already; a refusal is shown by `job_panel`."""
    st.session_state.pop(_REFUSED, None)
    try:
        if running_job(workspace, command) is None:
            submit(workspace.root, command, cwd=SOURCE_TREE)
    except LarkError as error:
        log.info("the job was refused: %s", error)
        st.session_state[_REFUSED] = (tuple(command), str(error))


def job_panel(workspace: Workspace, command: Sequence[str]) -> None:
    """How the job of a command goes, if there is one: progress while it lives, why when it failed."""
    refused = st.session_state.get(_REFUSED)
    if refused is not None and refused[0] == tuple(command):
        st.html(widgets.problem("The job was not started.", refused[1]))
    job = newest_job(workspace, command)
    if job is None or job.state == "succeeded":
        return
    _follow(workspace, command, job.is_live)


def _follow(workspace: Workspace, command: Sequence[str], is_live: bool) -> None:
    @st.fragment(run_every=1.0 if is_live else None)
    @guarded
    def panel() -> None:
        job = newest_job(workspace, command)
        if job is None or (is_live and not job.is_live):
            st.rerun()  # the page shows what came of it
        st.html(widgets.job(job))

    panel()
