"""Pages as Streamlit runs them, without a browser: opened at an address, and what they show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from streamlit.testing.v1 import AppTest

ROUTER = Path(__file__).resolve().parents[2] / "app" / "router.py"


def shown_page(name: str, /, **query: Any) -> AppTest:
    """A page of the workspace in `LARK_HOME`, run with these parameters (`a__b` for `a.b`) and without a failure."""
    opened = AppTest.from_file(str(ROUTER), default_timeout=60).run()
    opened.query_params.clear()
    for param, value in query.items():
        opened.query_params[param.replace("__", ".")] = value
    return calm(opened.switch_page(f"../pages/{name}.py").run())


def calm(page: AppTest) -> AppTest:
    """The page, which neither raised an exception nor shows a card of one."""
    assert not page.exception, page.exception
    assert "This part of the page failed" not in html_of(page)
    return page


def html_of(page: AppTest) -> str:
    """All blocks of HTML that the page shows."""
    return "\n".join(element.proto.body for element in page.get("html"))


def text_of(page: AppTest) -> str:
    """The text of all blocks, without tags, each part on a line of its own."""
    return re.sub(r"\s*\n\s*", "\n", re.sub(r"<[^>]*>", "\n", html_of(page)))
