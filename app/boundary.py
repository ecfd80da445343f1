"""Where an unforeseen error stops: a card with an id on the page, the traceback in the log under the same id."""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Callable
from typing import ParamSpec

import streamlit as st

from app import address, widgets
from lark_engine.access import require
from lark_engine.errors import LarkError

log = logging.getLogger(__name__)
P = ParamSpec("P")
_REFUSAL = "boundary.refusal"


def guarded(function: Callable[P, None]) -> Callable[P, None]:
    """For a page or the body of a fragment: an exception becomes a card, and the rest of the page stays.

    Who was shut out meanwhile sees nothing more, also on a page that is still open. After a fragment that changed the
    address the whole page runs once, so that links outside of it follow.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            require("explore")
            function(*args, **kwargs)
        except LarkError as error:
            st.html(widgets.problem("This cannot be shown.", str(error)))
        except Exception as error:
            name = secrets.token_hex(3)
            log.exception("error %s on the page", name)
            st.html(
                widgets.problem(
                    "This part of the page failed.",
                    f"The rest still works. Error {name}: {type(error).__name__}; the log of the dashboard has the "
                    "details under this id.",
                )
            )
        if address.take_changed():
            st.rerun()

    return run


def reported(function: Callable[P, None]) -> Callable[P, None]:
    """For a callback of a widget, which runs before the page: a refusal waits until the page shows it."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except LarkError as error:
            st.session_state[_REFUSAL] = str(error)

    return run


def show_refusal() -> None:
    """Show, once, why the last action was refused."""
    if (said := st.session_state.pop(_REFUSAL, None)) is not None:
        st.html(widgets.problem("This was not done.", str(said)))
