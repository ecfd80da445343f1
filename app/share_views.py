"""The saved views on the page Share: what each shows, its link, and its name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import streamlit as st

from app import address, widgets
from app.address import PAGES_DIR, number, read
from app.boundary import reported
from app.components.copy_link import copy_link
from app.saved_views import as_query, load_views
from app.session import current_workspace, shell_command
from app.shell import PAGES
from app.view_words import words_of
from lark_engine.access import visitor
from lark_engine.figures import formats
from lark_engine.figures.safe_text import one_line
from lark_engine.results.commands import shell_line
from lark_engine.sharing.views import MOST_NAME, SavedView, Views, remove_view, rename_view, why_not_remove

_PAGE_SIZE = 12
_MOST_DAMAGED = 20
_PAGE = "views_page"


def views_panel() -> None:
    """All saved views, newest first: open, copy the link, rename, remove; and the files that are none."""
    found = load_views(current_workspace())
    if found.problems:
        _damaged(found.problems)
    if not found.views:
        _nothing()
        return
    num_pages = -(-len(found.views) // _PAGE_SIZE)
    page = min(int(read(_PAGE, number(1, 1e6, 1, integer=True))), num_pages)
    first = (page - 1) * _PAGE_SIZE
    now = datetime.now(UTC)
    for view in found.views[first : first + _PAGE_SIZE]:
        with st.container(border=True, key=f"saved_view.{view.id}", gap="small"):
            _view(view, now)
    if num_pages > 1:
        key = f"views_page.{page}.{num_pages}"
        st.pagination(num_pages, default=page, key=key, on_change=_turn, args=(key,))
    _shown_of(found, first)


def _shown_of(found: Views, first: int) -> None:
    last = min(first + _PAGE_SIZE, len(found.views))
    st.caption(f"Views {first + 1} to {last} of {formats.count(len(found.views))}, newest first")


def _view(view: SavedView, now: datetime) -> None:
    title, icon = PAGES[view.page]
    said = f"{title} · {words_of(view.page, view.params)}"
    by = f"saved by {one_line(view.author, 60)} {formats.age(view.created_at.isoformat(), now)}"
    note = f"<div>{widgets.text(view.note)}</div>" if view.note else ""
    left, right = st.columns(2, gap="medium", vertical_alignment="center")
    left.html(widgets.block(
        f"<div class='title'>{widgets.text(one_line(view.name, MOST_NAME))}</div>{note}"
        f"<div class='muted'>{widgets.text(said)}</div><div class='muted'>{widgets.text(by)}</div>", "lark-saved-view",
    ))  # fmt: skip
    with right, st.container(
        horizontal=True, vertical_alignment="center", horizontal_alignment="right", gap="small",
        key=f"view_actions.{view.id}",
    ):  # fmt: skip
        st.page_link(str(PAGES_DIR / f"{view.page}.py"), label="Open", icon=icon, query_params=as_query(view.params))
        copy_link(key=f"copy.{view.id}", link=view.link)
        with _menu("Rename", ":material/edit:", f"rename.{view.id}", visitor().why_not("save")):
            _rename_form(view)
        with _menu("Remove", ":material/delete:", f"remove.{view.id}", why_not_remove(view)):
            _remove_form(view)


def _menu(label: str, icon: str, key: str, refusal: str) -> Any:
    """What opens a form; disabled with the reason for who may not."""
    menu = st.popover(
        label, icon=icon, key=key, disabled=bool(refusal), help=formats.plain_markdown(refusal) or None
    )  # fmt: skip
    return menu.container(width=340)


def _rename_form(view: SavedView) -> None:
    key, refusal = f"view_name.{view.id}", visitor().why_not("save")
    typed = st.text_input("New name", value=view.name, key=key, max_chars=MOST_NAME, disabled=bool(refusal))
    _action(
        "Rename it", ":material/edit:", f"rename_it.{view.id}", refusal, partial(_rename, view.id, key),
        ["lark", "views", "rename", view.id, typed],
    )  # fmt: skip


def _remove_form(view: SavedView) -> None:
    st.caption("Its link stops working for everybody. What it shows stays.")
    _action(
        "Remove it", ":material/delete:", f"remove_it.{view.id}", why_not_remove(view), partial(_remove, view.id),
        ["lark", "views", "remove", view.id],
    )  # fmt: skip


def _action(label: str, icon: str, key: str, refusal: str, act: partial[None], command: Sequence[str]) -> None:
    """The button, disabled with the reason, and the command that does the same."""
    st.button(
        label, icon=icon, key=key, type="primary", disabled=bool(refusal), on_click=act,
        help=formats.plain_markdown(refusal) or None,
    )  # fmt: skip
    if refusal:
        st.html(widgets.note(refusal))
    else:
        st.code(shell_command(shell_line(list(command))), language=None, wrap_lines=True)


@reported
def _rename(view_id: str, key: str) -> None:
    rename_view(current_workspace().root, view_id, str(st.session_state[key]))


@reported
def _remove(view_id: str) -> None:
    remove_view(current_workspace().root, view_id)


def _turn(key: str) -> None:
    place = st.session_state[key]
    address.put(**{_PAGE: None if place == 1 else place})


def _damaged(problems: Sequence[str]) -> None:
    rows = "".join(f"<div>{widgets.text(one_line(problem, 300))}</div>" for problem in problems[:_MOST_DAMAGED])
    more = f"<div>and {len(problems) - _MOST_DAMAGED} more</div>" if len(problems) > _MOST_DAMAGED else ""
    st.html(widgets.block(f"<strong>Left out as damaged.</strong>{rows}{more}", "lark-warning lark-saved-view"))


def _nothing() -> None:
    with st.container(border=True, key="no_views"):
        st.subheader("No view is saved yet", anchor=False)
        if refusal := visitor().why_not("save"):
            st.html(widgets.note(refusal))
            return
        st.html(widgets.note(
            "On any page, “Save view” on top keeps what is shown there under a short link. Or save an "
            "address that you have copied:"
        ))  # fmt: skip
        st.code(
            shell_command("lark views save 'ADDRESS' --name 'What there is to see'"), language=None, wrap_lines=True
        )
