"""The script that Streamlit runs for every page: the list of pages and the shell around the chosen one."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app import address, saved_views, shell  # noqa: E402
from app.address import PAGES_DIR  # noqa: E402
from app.boundary import guarded  # noqa: E402
from app.components import live_slider  # noqa: E402
from app.components.board import load_library  # noqa: E402

STATIC = ROOT / "app" / "static"
PAGES = [
    st.Page(PAGES_DIR / f"{name}.py", title=title, icon=icon, default=name == "overview")
    for name, (title, icon) in shell.PAGES.items()
]

st.set_page_config(page_icon=str(STATIC / "icon.svg"), layout="wide")  # a local icon: no request to a font server
st.logo(str(STATIC / "logo.svg"), icon_image=str(STATIC / "icon.svg"), size="large")
st.html(STATIC / "lark.css")
load_library()
# Streamlit's own menu drops the parameters of the address: the sidebar's links keep scores and selection.
current = st.navigation(PAGES, position="hidden")
live_slider.commit()
shown = next(name for name in shell.PAGES if (current.url_path or "overview") == name)
guarded(saved_views.open_asked)(shown)
address.take_changed()  # this run shows the new address; only a fragment's change needs another one
guarded(shell.header)(shown)
guarded(shell.sidebar)()
guarded(shell.follow)()  # before the page, which may stop the script
guarded(current.run)()
