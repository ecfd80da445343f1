"""The part Access of the page Share: who may do what here, who is let in, and what was changed by whom."""

from __future__ import annotations

import html
import shlex

import streamlit as st

from app import widgets
from app.boundary import reported
from app.login import LOGOUT
from app.session import current_workspace, shell_command
from app.visitors import exposure, guests
from lark_engine.access import ALL, ROLES, Capability, read_audit, visitor
from lark_engine.figures.formats import plain_markdown
from lark_engine.sharing.tokens import Guest, Issued

_ISSUED = "access.issued"
_MEANINGS: dict[Capability, str] = {
    "explore": "see every page, figure and text", "tune": "solve selections at any budget",
    "save": "keep views, flags and verdicts", "launch": "start jobs, make reports and bundles, upload",
    "cancel": "stop jobs",
    "delete": "remove jobs, views and files", "admin": "let others in, read the record",
}  # fmt: skip
_AUTH = {
    "none": "no login", "token": "by token", "oidc": "by the login of an organization",
}  # fmt: skip
_MOST_ACTIONS = 50


def access_panel() -> None:
    """What the visitor may do, how others are let in, and the record of changes."""
    who, how = visitor(), exposure()
    st.subheader("What you may do here", anchor=False)
    st.html(_capability_table())
    st.html(widgets.note("You may do everything." if who.may == ALL else who.because or f"You visit as {who.role}."))
    if how.auth == "token":
        st.html(f'<p class="lark-note"><a href="{LOGOUT}" target="_self">Log out</a></p>')
    elif how.auth == "oidc" and st.button("Log out", icon=":material/logout:", key="access.logout"):
        st.logout()
    st.subheader("Who reaches it", anchor=False)
    reach = "this machine only" if how.address.startswith("127.") else f"whoever reaches {how.address}"
    mode = "read-only" if how.read_only else "with changes by those who may"
    st.html(widgets.note(f"This server is open to {reach}, {_AUTH[how.auth]}, {mode}."))
    if how.auth == "token" and "admin" in who.may:
        _guest_list()
    elif how.auth == "none":
        st.html(widgets.note("To let colleagues in, start a server for them: viewers get a link with a token."))
        st.code(shell_command("lark serve --read-only --address 0.0.0.0 --auth token"), language=None, wrap_lines=True)
    if "admin" in who.may:
        _record()


def _capability_table() -> str:
    """Roles against capabilities; what this visitor has is marked in words too."""
    may = visitor().may
    head = "".join(f"<th scope='col'>{role}</th>" for role in ROLES)
    rows = "".join(
        f"<tr><th scope='row'>{name}</th><td>{html.escape(meaning)}</td>"
        + "".join(f"<td>{'yes' if name in found else '–'}</td>" for found in ROLES.values())
        + f"<td class='lark-access-you'>{'yes' if name in may else 'no'}</td></tr>"
        for name, meaning in _MEANINGS.items()
    )
    return (
        "<div class='lark-access-scroll' tabindex='0' role='region' aria-label='Roles'><table class='lark-access'>"
        f"<thead><tr><th scope='col'>may</th><th scope='col'>that is</th>{head}<th scope='col'>you</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _guest_list() -> None:
    """Who holds a token: let in, given another one, shut out."""
    issued = st.session_state.pop(_ISSUED, None)
    if isinstance(issued, Issued):
        st.success(f"The token of {plain_markdown(issued.guest.name)} ({issued.guest.role}) is shown this once:")
        st.code(f"/?token={issued.token}", language=None, wrap_lines=True)
        st.caption("Behind the address of this server it is the link to send.")
    for guest in guests().all():
        _guest_line(guest)
    with st.form("access.add", border=True):
        left, right = st.columns(2)
        left.text_input("Name", key="access.name", max_chars=64)
        right.selectbox("Role", list(ROLES), key="access.role")
        st.form_submit_button("Let in", icon=":material/person_add:", on_click=_add)
    st.code(shell_command("lark access add NAME --role viewer"), language=None, wrap_lines=True)


def _guest_line(guest: Guest) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"guest.{guest.name}"):
        said = f"{guest.name} · {guest.role} · since {guest.created_at[:10]}"
        st.html(widgets.note(said), width="stretch")
        with st.popover("Another token", icon=":material/autorenew:", key=f"guest.rotate.{guest.name}"):
            st.caption("The token before counts no more, at once; open pages end.")
            st.button("Give another token", key=f"guest.rotate_it.{guest.name}", on_click=_rotate, args=(guest.name,))
            st.code(shell_command(f"lark access rotate {shlex.quote(guest.name)}"), language=None, wrap_lines=True)
        with st.popover("Shut out", icon=":material/person_remove:", key=f"guest.remove.{guest.name}"):
            st.caption("The token and what was opened with it end at once.")
            st.button("Shut them out", key=f"guest.remove_it.{guest.name}", on_click=_remove, args=(guest.name,))
            st.code(shell_command(f"lark access remove {shlex.quote(guest.name)}"), language=None, wrap_lines=True)


@reported
def _add() -> None:
    state = st.session_state
    state[_ISSUED] = guests().add(str(state["access.name"]).strip(), str(state["access.role"]))


@reported
def _rotate(name: str) -> None:
    st.session_state[_ISSUED] = guests().rotate(name)


@reported
def _remove(name: str) -> None:
    guests().remove(name)


def _record() -> None:
    """The newest changes: who, what, when, from where."""
    st.subheader("What was changed", anchor=False)
    rows = read_audit(current_workspace().root, most=_MOST_ACTIONS)
    if not rows:
        st.html(widgets.note("Nothing was changed yet. What is saved, started, stopped or removed is listed here."))
        return
    known = ("at", "who", "from", "what", "outcome")
    table = [
        {
            "when": row.get("at"), "who": row.get("who"), "from": row.get("from"), "what": row.get("what"),
            "to what": " · ".join(f"{name} {value}" for name, value in row.items() if name not in known),
            "outcome": row.get("outcome"),
        }
        for row in rows
    ]  # fmt: skip
    st.dataframe(table, hide_index=True, key="access.record")
    st.code(shell_command("lark access log"), language=None, wrap_lines=True)
