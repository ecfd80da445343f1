"""Share: show a colleague exactly this, by a link, a report or a bundle; and who may do what on this server."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.address import bound, one_of, read
from app.share_access import access_panel
from app.share_bundle import bundle_panel
from app.share_report import report_panel
from app.share_views import views_panel

PARTS = {"link": "Link", "report": "Report", "bundle": "Bundle", "access": "Access"}
PANELS = {"link": views_panel, "report": report_panel, "bundle": bundle_panel, "access": access_panel}

st.html(Path(__file__).resolve().parents[1] / "app" / "static" / "share.css")
st.title("Share", anchor=False)
st.caption("How do I show a colleague exactly this?")
codec = one_of(list(PARTS), "link")
st.segmented_control(
    "How", list(PARTS), format_func=PARTS.__getitem__, required=True, label_visibility="collapsed",
    **bound("share", codec),
)  # fmt: skip
PANELS[str(read("share", codec))]()
