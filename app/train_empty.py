"""The page Train before there is anything to train on."""

from __future__ import annotations

import shlex

import streamlit as st

from app import widgets
from app.address import page_link
from app.loaders import Snapshot
from app.session import shell_command


def nothing_to_train(snapshot: Snapshot) -> None:
    """What to do first, with the command that does it."""
    scores, pools = snapshot.newest("scores"), snapshot.newest("pools")
    with st.container(border=True, key="empty_state"):
        st.subheader("Nothing is selected yet", anchor=False)
        if scores is not None:
            st.html(
                widgets.note("Training begins with a saved selection: choose the budget on Tune and save it there.")
            )
            pool = scores.manifest.inputs.get("pool")
            command = f"lark select --scores {shlex.quote(scores.id)} --pool {shlex.quote(pool.id if pool else 'POOL')}"
            st.code(shell_command(command), language=None, wrap_lines=True)
            page_link("tune", "Choose a selection", icon=":material/tune:")
        else:
            st.html(
                widgets.note("Import a pool and score it under your student; a selection of it is what one trains on.")
            )
            name = shlex.quote(pools.id) if pools is not None else "FILE"
            st.code(shell_command(f"lark score --input {name} --student STUDENT"), language=None, wrap_lines=True)
            page_link("score", "Pool and scores", icon=":material/database_upload:")
