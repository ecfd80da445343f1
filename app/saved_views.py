"""Views that are kept in the workspace: read for the pages, and opened by the addresses that name one."""

from __future__ import annotations

import os
from collections.abc import Sequence

import streamlit as st

from app import widgets
from app.address import PAGES_DIR
from app.session import current_workspace
from lark_engine.errors import LarkError
from lark_engine.figures.safe_text import label_markdown
from lark_engine.sharing.views import SAVED, VIEWS, Page, Views, find_view, read_views
from lark_engine.store.workspace import Workspace

_OPENED = "saved_views.opened"


def load_views(workspace: Workspace) -> Views:
    """The saved views, read anew when one of their files changes."""
    return _views(str(workspace.root), _signature(workspace))


@st.cache_resource(max_entries=3, show_spinner=False)
def _views(root: str, version: object) -> Views:
    return read_views(Workspace(root).root)


def _signature(workspace: Workspace) -> tuple[tuple[str, int], ...]:
    try:
        with os.scandir(workspace.root / VIEWS) as entries:
            return tuple(sorted((e.name, e.stat(follow_symlinks=False).st_mtime_ns) for e in entries))
    except OSError:
        return ()


def as_query(params: Sequence[tuple[str, str]]) -> dict[str, str | list[str]]:
    """Parameters as Streamlit takes them."""
    values: dict[str, list[str]] = {}
    for name, value in params:
        values.setdefault(name, []).append(value)
    return {name: said if len(said) > 1 else said[0] for name, said in values.items()}


def open_asked(page: Page) -> None:
    """Where the address names a saved view, put what the view says in its place, on the view's own page.

    From then on the address is as any other: what is changed changes it, and the saved view stays as it was saved.
    Of a view that is not here it is said above the page, which stays as it is.
    """
    if (opened := st.session_state.pop(_OPENED, None)) is not None:
        _say(opened)
    asked = st.query_params.get(SAVED)
    if asked is None:
        return
    try:
        view = find_view(current_workspace().root, asked)
    except LarkError as error:
        said = (
            f"{str(error).partition('; those')[0]}. The page is shown without it; Share lists the views that are here."
        )
        st.html(widgets.problem("The saved view cannot be opened.", said[:1].upper() + said[1:]))
        return
    if view.page != page:
        st.session_state[_OPENED] = view.name
        st.switch_page(str(PAGES_DIR / f"{view.page}.py"), query_params=as_query(view.params))
    st.query_params.from_dict(as_query(view.params))
    _say(view.name)


def _say(name: str) -> None:
    st.toast(f"Saved view: {label_markdown(name, 80)}", icon=":material/bookmark:")
