"""The end of a log that grows: what is there stays where it is, new lines are appended below.

As HTML of Streamlit's the whole block would be put in anew each second, and a reader thrown back to its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import streamlit as st

_HERE = Path(__file__).parent


def log_view(lines: Sequence[str], *, key: str, label: str) -> None:
    """Show lines of text, the last one in sight unless somebody scrolled up. `label` is for a screen reader."""
    _component()(key=key, data={"lines": list(lines), "label": label})


@st.cache_resource(show_spinner=False)
def _component() -> Any:
    script, style = ((_HERE / f"log_view.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    return st.components.v2.component("lark_log_view", js=script, css=style, isolate_styles=False)
