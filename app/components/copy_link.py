"""The button that copies an address: that of the page, or a short one of the same server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

# What chat tools, mail programs and proxies are known to pass on whole.
LONG = 2000
_HERE = Path(__file__).parent


def copy_link(
    *, key: str = "copy_link", link: str | None = None, label: str = "Copy link", is_shown: bool = False
) -> None:
    """Show the button. The browser copies what its address bar says, which is the view, with what a slider shows and
    has not written there yet; with `link`, that address below the server's root, which is written beside it
    with `is_shown`.

    Of an address of more than `LONG` letters it says so, and offers to open the popover with the key `save_view`.
    """
    data = {"link": link, "label": label, "long": LONG, "shown": is_shown}
    _component()(key=key, data=data, width="content")


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script, style = ((_HERE / f"copy_link.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("lark_copy_link", js=script, css=style, isolate_styles=False)
