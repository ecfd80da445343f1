"""The dashboard as a web application: Streamlit's pages, and the files that do not go through them.

Start it with `lark serve`, or `streamlit run app/main.py` from any folder.
"""

import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # Streamlit puts this folder on the path, not the source tree
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402

from app.files import ROUTES  # noqa: E402
from app.gate import MIDDLEWARE  # noqa: E402
from app.read_ahead import read_ahead  # noqa: E402
from app.visitors import require_guarded, session_visitor  # noqa: E402
from lark_engine.access import resolve_with  # noqa: E402


@asynccontextmanager
async def while_serving(app: st.App) -> AsyncIterator[dict[str, Any]]:
    """Read the newest scores while the first visitor's browser still loads the page's scripts."""
    threading.Thread(target=read_ahead, name="read-ahead", daemon=True).start()
    yield {}


require_guarded()
resolve_with(session_visitor)
app = st.App(ROOT / "app" / "router.py", routes=ROUTES, middleware=MIDDLEWARE, lifespan=while_serving)
