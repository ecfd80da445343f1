"""The menu that flags a candidate with a reason, or takes its flag back."""

from __future__ import annotations

import shlex

import streamlit as st

from app import trajectory_blocks, widgets
from app.session import shell_command
from app.trajectory import Candidate, Problem
from lark_engine.access import author_name, visitor
from lark_engine.errors import LarkError
from lark_engine.explore.flags import LONGEST_REASON, CandidateKey, set_flag
from lark_engine.figures.formats import plain_markdown
from lark_engine.store.workspace import Artifact

_ERROR = "flag.error"


def flag_menu(pool: Artifact, problem: Problem, chosen: Candidate) -> None:
    """The flag that stands, the reason for another or against it, and the command that does the same."""
    with st.popover("Flagged" if chosen.flag else "Flag", icon=":material/flag:"):
        if chosen.flag:
            st.html(trajectory_blocks.flag(chosen.flag))
        reason_key = f"flag_reason.{problem.place}.{chosen.id}"
        said = st.text_input(
            "Why it is right after all" if chosen.flag else "What is wrong with it", key=reason_key,
            max_chars=LONGEST_REASON, width=360,
        )  # fmt: skip
        command = flag_command(pool, problem, chosen, said or "…")
        st.code(shell_command(command), language=None, wrap_lines=True)
        refusal = visitor().why_not("save")
        st.button(
            "Take the flag back" if chosen.flag else "Flag this candidate", key="flag", type="primary",
            icon=":material/flag:", on_click=_set_flag, args=(pool, problem, chosen, reason_key),
            help=plain_markdown(refusal) or "A flag is a note beside the pool; it changes no number",
            disabled=bool(refusal),
        )  # fmt: skip
        if refusal:
            st.html(widgets.note(refusal))
        if error := st.session_state.pop(_ERROR, None):
            st.html(widgets.problem("Not done.", error))


def flag_command(pool: Artifact, problem: Problem, chosen: Candidate, reason: str) -> str:
    """The command that does what the button does."""
    taking_back = ["--remove"] if chosen.flag else []
    words = [
        "lark", "pool", "flag", pool.id, f"--problem={problem.id}", "--candidate", str(chosen.id), *taking_back,
        f"--reason={reason}",
    ]  # fmt: skip
    return shlex.join(words)


def _set_flag(pool: Artifact, problem: Problem, chosen: Candidate, reason_key: str) -> None:
    try:
        reason = str(st.session_state.get(reason_key) or "")
        key = CandidateKey(problem.id, chosen.id)
        set_flag(pool, key, flagged=chosen.flag is None, author=author_name(), reason=reason)
    except LarkError as error:
        st.session_state[_ERROR] = str(error)
    else:
        st.session_state[reason_key] = ""
