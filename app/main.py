"""The dashboard's entry script: page list and shell, nothing else. Start it with `lark serve`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # Streamlit puts this folder on the path, not the source tree
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app import widgets  # noqa: E402
from app.loaders import load_health  # noqa: E402
from app.session import current_workspace  # noqa: E402

STATIC = ROOT / "app" / "static"
PAGES = ROOT / "pages"

st.set_page_config(page_icon=str(STATIC / "icon.svg"), layout="wide")  # a local icon: no request to a font server
st.logo(str(STATIC / "logo.svg"), icon_image=str(STATIC / "icon.svg"), size="large")
st.html(STATIC / "lark.css")
pages = [st.Page(PAGES / "overview.py", title="Overview", icon=":material/space_dashboard:", default=True)]
current = st.navigation(pages, expanded=True)
if len(pages) == 1:  # Streamlit draws no menu for a single page
    st.sidebar.page_link(pages[0])
workspace = current_workspace()
st.sidebar.html(widgets.environment(workspace.root, load_health(workspace)))
current.run()
