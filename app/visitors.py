"""Who a request or a session is, and what they may do: the same answer for the gate and for every action."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache

import streamlit as st
from streamlit import config
from streamlit.auth_util import get_cookie_with_chunks
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.web.server.server_util import get_cookie_secret
from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from lark_engine.access import NOBODY, ROLES, Role, Visitor
from lark_engine.errors import ConfigError
from lark_engine.people import user_name
from lark_engine.sharing.exposure import READ_ONLY, Exposure, of_environment
from lark_engine.sharing.tokens import Guests

_SERVER = Visitor(name="the server", origin="", may=ROLES["viewer"], because="Nobody asked for it.")


@cache
def exposure() -> Exposure:
    """How this server stands on the network, as `lark serve` said when it started it."""
    return of_environment(os.environ)


def require_guarded() -> None:
    """End where Streamlit was started by hand on the network, past what `lark serve` would ask."""
    address = str(config.get_option("server.address") or "0.0.0.0")
    try:
        exposure().model_copy(update={"address": address}).check()
    except ConfigError as error:
        raise SystemExit(f"lark: {error}") from None


@cache
def guests() -> Guests:
    """Who holds a token of this server."""
    folder = exposure().access_dir
    assert folder is not None, "a server with tokens is told where they are"
    return Guests(folder, root=folder.parent)


def cookie_name() -> str:
    """Browsers keep the cookies of all ports of a host together: each server's has a name of its own."""
    return f"lark_guest_{config.get_option('server.port')}"


def identify(cookies: Mapping[str, str], origin: str) -> Visitor | None:
    """Who comes with these cookies from this address; None for somebody who is not logged in."""
    how = exposure()
    if how.auth == "token":
        guest = guests().of_cookie(cookies.get(cookie_name(), ""))
        return None if guest is None else _with_role(guest.name, origin, guest.role)
    if how.auth == "oidc":
        return _of_provider(cookies, origin)
    return _with_role(_owner_name(), origin, None)


def session_visitor() -> Visitor:
    """Who acts in this thread: the one whose browser the running script serves."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return _SERVER
    return identify(st.context.cookies.to_dict(), st.context.ip_address or "this machine") or NOBODY


def _with_role(name: str, origin: str, role: Role | None) -> Visitor:
    may = exposure().capabilities(role)
    because = READ_ONLY if exposure().read_only else ""
    return Visitor(name=name, origin=origin, may=may, because=because, role=role)


def _of_provider(cookies: Mapping[str, str], origin: str) -> Visitor | None:
    """Who Streamlit's login says this is. Its cookie is signed by the server; what it says is the provider's."""
    secret = get_cookie_secret()

    def part(name: str) -> bytes | None:
        said = cookies.get(name)
        return None if said is None else decode_signed_value(secret, name, said.encode("latin-1", "replace"))

    try:
        claims = json.loads(get_cookie_with_chunks(part, USER_COOKIE_NAME) or b"{}")
    except ValueError:
        return None
    roles = exposure().roles
    assert roles is not None
    role = roles.role_of(claims) if isinstance(claims, dict) and claims.get("is_logged_in") is True else None
    return None if role is None else _with_role(roles.email_of(claims) or f"subject {claims.get('sub')}", origin, role)


@cache
def _owner_name() -> str:
    try:
        return user_name()
    except ConfigError:
        return "user without a name"
