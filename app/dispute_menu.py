"""The menu that overrules a verdict with a reason, or takes that back."""

from __future__ import annotations

import streamlit as st

from app import problem_blocks, widgets
from app.session import shown_line
from lark_engine.access import author_name, visitor
from lark_engine.errors import ConfigError, LarkError
from lark_engine.evaluation.disputes import SampleKey, add_dispute
from lark_engine.figures.formats import plain_markdown
from lark_engine.results.answers import Answer
from lark_engine.results.commands import dispute_command
from lark_engine.results.graded import Graded
from lark_engine.store.workspace import Workspace

_ERROR = "dispute.error"
_VERDICTS: dict[str, bool | None] = {"correct": True, "wrong": False, "as-graded": None}
_WORDS = {"correct": "correct", "wrong": "wrong", "as-graded": "as graded: take the dispute back"}


def dispute_menu(workspace: Workspace, one: Graded, problem_id: str, answer: Answer, *, key: str) -> None:
    """The dispute that stands, another verdict with author and reason, and the command that does the same."""
    with st.popover("Disputed ‡" if answer.dispute else "Dispute", icon=":material/gavel:", key=f"{key}.menu"):
        if answer.dispute:
            st.html(problem_blocks.dispute(answer.dispute, answer.by_rules))
        options = ["wrong", "correct"] if answer.correct else ["correct", "wrong"]
        options = ["as-graded", *options] if answer.dispute else options
        fields = {name: f"{key}.{problem_id}.{answer.sample_index}.{name}" for name in ("verdict", "reason")}
        verdict = st.selectbox(
            "What is right", options, format_func=lambda name: _WORDS[name], key=fields["verdict"], width=360
        )
        reason = st.text_input("Why", key=fields["reason"], max_chars=500, width=360)
        author = st.text_input("Who says so", value=_default_author(), key=f"{key}.author", max_chars=80, width=360)
        command = dispute_command(
            one.generations, problem_id, answer.sample_index, str(verdict), reason or "…", author or "…", workspace
        )
        st.code(shown_line(command), language=None, wrap_lines=True)
        refusal = visitor().why_not("save")
        st.button(
            "Record the verdict", key=f"{key}.record", type="primary", icon=":material/gavel:", on_click=_record,
            args=(one, SampleKey(problem_id, answer.sample_index), fields, f"{key}.author"), disabled=bool(refusal),
            help=plain_markdown(refusal)
            or "What is shown changes, however the answers are graded; what the rules said is kept",
        )  # fmt: skip
        if refusal:
            st.html(widgets.note(refusal))
        if (error := st.session_state.pop(_ERROR, None)) is not None and error[0] == key:
            st.html(widgets.problem("Not done.", error[1]))


def _default_author() -> str:
    try:
        return author_name()
    except ConfigError:
        return ""


def _record(one: Graded, sample: SampleKey, fields: dict[str, str], author_key: str) -> None:
    state = st.session_state
    try:
        add_dispute(
            one.generations, sample, correct=_VERDICTS[str(state[fields["verdict"]])],
            author=author_name() if visitor().is_remote else str(state.get(author_key) or ""),
            reason=str(state.get(fields["reason"]) or ""),
        )  # fmt: skip
    except LarkError as error:
        state[_ERROR] = (author_key.removesuffix(".author"), str(error))
    else:
        state[fields["reason"]] = ""
        state.pop(fields["verdict"], None)
