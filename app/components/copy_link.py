"""The button that copies the address of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent


def copy_link() -> None:
    """Show the button. The browser copies what its address bar says, which is the view."""
    _component()(key="copy_link", width="content")


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script, style = ((_HERE / f"copy_link.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("lark_copy_link", js=script, css=style, isolate_styles=False)
