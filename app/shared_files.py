"""The files that were made to be handed on, as the parts Report and Bundle of Share list them."""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from app import widgets
from app.boundary import reported
from app.files import shared_path
from app.session import current_workspace
from lark_engine.access import visitor
from lark_engine.figures import formats
from lark_engine.sharing.shared import SharedFile, remove_shared, shared_files
from lark_engine.store.workspace import Workspace

_MOST = 30


def shared_list(workspace: Workspace, suffixes: tuple[str, ...], title: str, empty: str, *, key: str) -> None:
    """The files with one of these endings, newest first: size, age, download, remove."""
    st.subheader(title, anchor=False)
    files = [file for file in shared_files(workspace) if file.name.endswith(suffixes)]
    if not files:
        st.html(widgets.note(empty))
        return
    for file in files[:_MOST]:
        with st.container(
            horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key=f"{key}.{file.name}"
        ):
            st.html(_line(file), width="content")
            remove_menu(file, key=f"{key}.remove.{file.name}")
    if len(files) > _MOST:
        st.caption(f"The newest {_MOST} of {formats.count(len(files))}; all lie in the folder shared of the workspace.")


def remove_menu(file: SharedFile, *, key: str) -> None:
    """The button that removes a file, after asking; disabled with the reason for who may not."""
    refusal = visitor().why_not("delete")
    menu = st.popover(
        "Remove", icon=":material/delete:", key=key, disabled=bool(refusal),
        help=formats.plain_markdown(refusal) or None,
    )  # fmt: skip
    with menu:
        st.caption("The copies that were handed on stay.")
        st.button(
            "Remove it", icon=":material/delete:", key=f"{key}.it", type="primary", disabled=bool(refusal),
            on_click=_remove, args=(file.name,),
        )  # fmt: skip


def _line(file: SharedFile) -> str:
    made_at = datetime.fromtimestamp(file.modified_at, UTC)
    age = formats.age(made_at.isoformat(), datetime.now(UTC))
    facts = f"{formats.size(file.num_bytes)} · {age}"
    return widgets.block(
        f'<a href="{widgets.text(shared_path(file.name))}" download>{widgets.text(file.name)}</a> '
        f'<span class="muted">{widgets.text(facts)}</span>',
        "lark-shared-file",
    )


@reported
def _remove(name: str) -> None:
    remove_shared(current_workspace(), name)
