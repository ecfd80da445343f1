"""Where tokens are asked for and not there: the command that computes those of a problem, and how its job goes."""

from __future__ import annotations

import shlex

import streamlit as st

from app import jobs, widgets
from lark_engine.store.workspace import Artifact, Workspace

_WHY = (
    "The tokens of this problem are not computed yet; the strip shows means over 64 of them. One forward pass of the "
    "student over these candidates gives nll, Brier, rank and the likeliest alternatives of each token."
)


def tokens_command(workspace: Workspace, scores: Artifact, problem_id: str) -> list[str]:
    """The words of the command; the same ones are shown and run."""
    # With an equals sign an id that begins with a dash is no option.
    problem = [f"--problem={problem_id}"] if problem_id.startswith("-") else ["--problem", problem_id]
    return ["lark", "score", "tokens", "--scores", scores.id, *problem, "--workspace", str(workspace.root)]


def compute_tokens(workspace: Workspace, scores: Artifact, problem_id: str) -> None:
    """Show why there are none, the command, the button that runs it, and how its job goes."""
    command = tokens_command(workspace, scores, problem_id)
    running = jobs.running_job(workspace, command) is not None
    with st.container(border=True, key="token_job"):
        st.html(widgets.note(_WHY))
        st.code(shlex.join(command), language=None, wrap_lines=True)
        if not running:
            st.button(
                "Compute tokens", icon=":material/play_arrow:", key="compute_tokens", on_click=jobs.start,
                args=(workspace, command),
            )  # fmt: skip
        jobs.job_panel(workspace, command)
