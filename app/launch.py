"""Long work started from a page: the very command that the page shows, as a job, followed while the page polls."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import streamlit as st

from app import widgets
from app.address import page_link
from app.boundary import guarded
from app.session import shown_line
from lark_engine.access import visitor
from lark_engine.errors import LarkError
from lark_engine.figures import formats
from lark_engine.jobs.actions import newest_of, submit_once
from lark_engine.jobs.status import JobView, list_jobs
from lark_engine.serve import SOURCE_TREE
from lark_engine.store.workspace import Workspace

log = logging.getLogger(__name__)
_REFUSED = "launch.refused"
_FOLLOW_S = 1.0


def newest_job(workspace: Workspace, command: Sequence[str]) -> JobView | None:
    """The newest job of this very command, ended or not."""
    return newest_of(list_jobs(workspace.root), command)


def running_job(workspace: Workspace, command: Sequence[str]) -> JobView | None:
    """The job of this very command that waits or runs."""
    found = newest_job(workspace, command)
    return found if found is not None and found.is_live else None


def start(workspace: Workspace, command: Sequence[str]) -> None:
    """Start the command as a job, unless one of it lives already; a refusal is shown by `job_panel`."""
    st.session_state.pop(_REFUSED, None)
    try:
        submit_once(workspace.root, command, cwd=SOURCE_TREE)
    except LarkError as error:
        log.info("the job was refused: %s", error)
        st.session_state[_REFUSED] = (tuple(command), str(error))


def launch_panel(
    workspace: Workspace, command: Sequence[str], label: str, *, key: str, icon: str = ":material/play_arrow:",
    help: str | None = None, disabled_because: str = "", is_primary: bool = True,
) -> None:  # fmt: skip
    """A command, the button that runs exactly it as a job, and how the newest job of it goes.

    While one of it waits or runs there is no button. `disabled_because`: a sentence why it cannot be run now; that the
    visitor may start nothing is said before it.
    """
    disabled_because = visitor().why_not("launch") or disabled_because
    with st.container(key=f"{key}_panel"):
        st.code(shown_line(list(command)), language=None, wrap_lines=True)
        if running_job(workspace, command) is None:
            # No callback: it would get the command of the run before, and what was typed last is not in that yet.
            if st.button(
                label, icon=icon, key=key, type="primary" if is_primary else "secondary",
                help=formats.plain_markdown(disabled_because) or help, disabled=bool(disabled_because),
            ):  # fmt: skip
                start(workspace, command)
                st.rerun()
            if disabled_because:
                st.html(widgets.note(disabled_because))
        job_panel(workspace, command)


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
    @st.fragment(run_every=_FOLLOW_S if is_live else None)
    @guarded
    def panel() -> None:
        job = newest_job(workspace, command)
        if job is None or (is_live and not job.is_live):
            st.rerun()  # the page shows what came of it
        st.html(widgets.job(job))
        page_link("jobs", "Its log and what can be done with it", icon=":material/list_alt:", job=job.id)

    panel()
