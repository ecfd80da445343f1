"""Where tokens are asked for and not there: the command that computes those of a problem, and how its job goes."""

from __future__ import annotations

import streamlit as st

from app import widgets
from app.launch import launch_panel
from lark_engine.access import visitor
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
    with st.container(border=True, key="token_job"):
        if refusal := visitor().why_not("launch"):
            st.html(widgets.note(f"The tokens of this problem are not here. {refusal}"))
            return
        st.html(widgets.note(_WHY))
        launch_panel(
            workspace, tokens_command(workspace, scores, problem_id), "Compute tokens", key="compute_tokens",
            is_primary=False,
        )  # fmt: skip
