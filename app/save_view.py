"""The button beside the copied link that keeps the view in the workspace, where a short link opens it."""

from __future__ import annotations

import streamlit as st

from app import widgets
from app.boundary import guarded, reported, show_refusal
from app.components import live_slider
from app.components.copy_link import copy_link
from app.saved_views import load_views
from app.session import current_workspace, shell_command
from app.view_words import words_of
from lark_engine.access import visitor
from lark_engine.figures import formats
from lark_engine.figures.safe_text import one_line
from lark_engine.results.commands import shell_line
from lark_engine.sharing.views import MOST_NAME, SAVED, Page, Place, SavedView, in_order, save_view

_NAME, _NOTE = "save_view.name", "save_view.note"


@st.fragment
@guarded
def save_view_menu(page: Page, title: str) -> None:
    """A popover: name and save, or the short link of the view if it is saved already."""
    menu = st.popover("Save view", icon=":material/bookmark_add:", key="save_view", on_change="rerun")
    if not menu.open:
        return
    with menu, st.container(key="save_view_menu", gap="small", width=320):
        show_refusal()
        place = _shown(page)
        kept = next((v for v in load_views(current_workspace()).views if (v.page, v.params) == place), None)
        if kept is not None:
            _link(kept)
        else:
            _form(place, title)


def _shown(page: Page) -> Place:
    """What the address says now."""
    params = [(name, value) for name in st.query_params if name != SAVED for value in st.query_params.get_all(name)]
    return Place(page, in_order(params))


def _link(view: SavedView) -> None:
    when = f"{view.created_at:%Y-%m-%d %H:%M}"
    st.html(widgets.block(
        f"<strong>Saved as {widgets.text(one_line(view.name, MOST_NAME))}</strong>"
        f"<div class='muted'>by {widgets.text(one_line(view.author, 80))} on {when} UTC</div>"
    ))  # fmt: skip
    copy_link(key="copy_saved", link=view.link, label="Copy its link", is_shown=True)
    st.caption("All saved views are listed on Share. What is changed from here on is another view.")


def _form(place: Place, title: str) -> None:
    said = suggestion(place, title)
    refusal = visitor().why_not("save")
    st.text_input("Name of the view", key=_NAME, placeholder=said, max_chars=MOST_NAME, disabled=bool(refusal))
    st.text_input(
        "Note", key=_NOTE, placeholder="what there is to see, if it needs a word", max_chars=1000,
        disabled=bool(refusal),
    )  # fmt: skip
    st.button(
        "Save", type="primary", icon=":material/bookmark_add:", key="save_view.save", disabled=bool(refusal),
        help=formats.plain_markdown(refusal) or None, on_click=_save, args=(place.page, title),
    )  # fmt: skip
    if refusal:
        st.html(widgets.note(refusal))
        return
    with st.expander("The command that does the same"):
        st.code(shell_command(shell_line(_command(place, title))), language=None, wrap_lines=True)


def suggestion(place: Place, title: str) -> str:
    """The name of a view that is given none."""
    return one_line(f"{title}: {words_of(place.page, place.params)}", MOST_NAME)


def _command(place: Place, title: str) -> list[str]:
    name, note = _typed(place, title)
    return ["lark", "views", "save", place.address, "--name", name, *(["--note", note] if note else [])]


def _typed(place: Place, title: str) -> tuple[str, str]:
    """Name and note."""
    name, note = (str(st.session_state.get(key) or "").strip() for key in (_NAME, _NOTE))
    return name or suggestion(place, title), note


@reported
def _save(page: Page, title: str) -> None:
    """Keep what the screen shows, which may be ahead of the address by the move of a slider."""
    live_slider.commit()
    place = _shown(page)
    name, note = _typed(place, title)
    save_view(current_workspace().root, name=name, page=page, params=place.params, note=note)
    st.session_state[_NAME] = st.session_state[_NOTE] = ""
