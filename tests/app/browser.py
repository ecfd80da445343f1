"""A real browser for tests: Debian's Chromium, a dashboard of its own for each workspace, and what pages promise.

    with dashboard(workspace) as address, open_page(browser, f"{address}/tune?B=8") as page: ...

`browser` is a fixture of `conftest.py`, one Chromium for the whole session. `open_page` asserts at its end that
nothing failed and nothing left the machine; `may_fail=True` leaves that to the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
import numpy as np
import pytest
from playwright.sync_api import Error as PageError

from lark_engine.serve import serve, stop
from lark_engine.sharing.exposure import Exposure
from lark_engine.store.workspace import Workspace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Each worker of pytest has ports of its own: what is free when it is looked for is free when it is taken.
FIRST_PORT = 8740 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WAIT_MS = 30_000
_IDLE = "[data-testid=stApp][data-test-script-state=notRunning]"
_CALM_MS = 200  # a rerun that an action causes begins within this time
# Opened at /tune, Streamlit's client looks for its server below /tune first, and then at the root.
_PROBE = re.compile(r"/[a-z]+/_stcore/(health|host-config)")
_AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
# Lets the page rest for a while without a run of the script and without a new paint of a board.
_WAIT_CALM = """(calm) => new Promise((resolve, reject) => {
  const began = performance.now(); let since = began, painted = "";
  const look = () => {
    const now = performance.now(), app = document.querySelector("[data-testid=stApp]");
    const paints = [...document.querySelectorAll("[data-paints]")].map((b) => b.dataset.paints).join();
    // A component has a first child of Streamlit's; what its own script makes comes beside that, when it is loaded.
    const runs = app?.dataset.testScriptState !== "notRunning" || document.querySelector(
      "[data-testid=stSkeleton], .lark-board:not([data-paints]), [data-testid=stBidiComponentRegular]:empty, "
      + ".stElementContainer:not(.st-key-lark_chart_library) [data-testid=stBidiComponentRegular] > :only-child");
    if (runs || paints !== painted) { since = now; painted = paints; }
    if (now - since >= calm) resolve();
    else if (now - began > 30000) reject(new Error("the page does not come to rest"));
    else setTimeout(look, 25);
  };
  look();
})"""


def launch(playwright: Any) -> Any:
    """Chromium, or a skipped test where there is none; in CI that is a failure."""
    if CHROMIUM is None:
        reason = "no Chromium on this machine; `make chromium` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


@contextlib.contextmanager
def dashboard(workspace: Workspace, exposure: Exposure | None = None) -> Iterator[str]:
    """The address of a dashboard of this workspace, as `lark serve` starts it; it ends with the block."""
    address = serve(workspace, port=FIRST_PORT, open_in_background=True, exposure=exposure).address
    try:
        yield address
    finally:
        stop(workspace)


@dataclass(frozen=True)
class Watched:
    """What a page did that it should not have done."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def watch(page: Any) -> Watched:
    """Collect console errors, uncaught exceptions, and requests that leave the machine, from now on."""
    watched = Watched()

    def request(url: str) -> None:
        if not is_local(url):
            watched.foreign.append(url)

    def said(message: Any) -> None:
        url = message.location.get("url", "")
        if message.type == "error" and not _PROBE.fullmatch(urlsplit(url).path):
            watched.errors.append(f"{message.text} ({url})")

    page.on("console", said)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("request", lambda sent: request(sent.url))
    page.on("websocket", lambda socket: request(socket.url))
    return watched


def is_local(url: str) -> bool:
    """Whether a request stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme in ("data", "blob", "about") or parts.hostname == "127.0.0.1"


@contextlib.contextmanager
def open_page(
    browser: Any, address: str, *, scheme: str = "light", width: int = 1440, height: int = 900, may_fail: bool = False,
    **context_options: Any,
) -> Iterator[Any]:  # fmt: skip
    """An address in a fresh context, at rest. Asserts at the end that nothing failed and nothing left the machine."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **context_options)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    watched = watch(page)
    try:
        page.goto(address, wait_until="networkidle")  # parts of Streamlit's client come when they are first needed
        wait_idle(page)
        yield page
        if not may_fail:
            no_exceptions(page)
            assert (watched.errors, watched.foreign) == ([], [])
    finally:
        context.close()


def wait_idle(page: Any) -> None:
    """Wait until the script has run, boards are painted, and nothing more comes."""
    page.wait_for_selector(_IDLE)
    page.evaluate(_WAIT_CALM, _CALM_MS)


def until(page: Any, script: str, arg: Any = None, *, timeout_s: float = WAIT_MS / 1000) -> None:
    """Wait until a script says true. Playwright's own wait evaluates text in the page, which its policy forbids."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(PageError):  # the page may just be another one
            if page.evaluate(script, arg):
                return
        assert time.monotonic() < deadline, f"not true within {timeout_s:.0f} s: {script}"
        page.wait_for_timeout(25)


def no_exceptions(page: Any) -> None:
    """Assert that the page shows no exception, neither Streamlit's nor a card of ours, and no board gave up."""
    assert page.locator("[data-testid=stException]").all_inner_texts() == []
    assert page.get_by_text("This part of the page failed.").locator("..").all_inner_texts() == []
    assert (
        page.locator(".lark-board[data-error]").evaluate_all("boards => boards.map((board) => board.dataset.error)")
        == []
    )


def plot(page: Any, card: str) -> Any:
    """The locator of the chart of a card."""
    return page.locator(f'[data-card="{card}"] .js-plotly-plot')


def board_meta(page: Any, card: str) -> dict[str, Any]:
    """`layout.meta` of the chart of a card as it is painted."""
    return plot(page, card).evaluate("plot => plot.layout.meta")


def wait_meta(page: Any, card: str, **expected: Any) -> dict[str, Any]:
    """Wait until `layout.meta` of a card says all of this; returns it whole."""
    until(
        page,
        """([card, expected]) => {
          const meta = document.querySelector(`[data-card="${card}"] .js-plotly-plot`)?.layout?.meta ?? {};
          return Object.entries(expected).every(([k, v]) => JSON.stringify(meta[k]) === JSON.stringify(v));
        }""",
        [card, expected],
    )
    return board_meta(page, card)


def slider(page: Any, param: str) -> Any:
    """The range input of a live slider."""
    return page.locator(f'[data-slider="{param}"] input[type=range]')


def drag(
    page: Any, param: str, *, to: float | Sequence[float], moves: int = 20, seconds: float = 1.0, release: bool = True
) -> None:
    """Drag a live slider from where it is to a share of its length in [0, 1], or to several one after the other.

    `moves` and `seconds` are those of the whole drag.
    """
    stops = [to] if isinstance(to, int | float) else list(to)
    handle = slider(page, param)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    place = handle.evaluate("input => (input.value - input.min) / (input.max - input.min)")
    thumb, y = 16, box["y"] + box["height"] / 2
    path = np.interp(np.linspace(0, len(stops), moves + 1), range(len(stops) + 1), [place, *stops])
    began = time.monotonic()
    for move, share in enumerate(path):
        page.mouse.move(box["x"] + thumb / 2 + share * (box["width"] - thumb), y)
        if move == 0:
            page.mouse.down()
        page.wait_for_timeout(max(1000 * (began + seconds * move / moves - time.monotonic()), 1))
    if release:
        page.mouse.up()


def axe(page: Any) -> list[str]:
    """What axe finds serious or critical, one line for each finding: the rule and where."""
    page.evaluate(_AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['impact']} {violation['id']}: {node['html'][:160]} — {(node.get('failureSummary') or '')[:200]}"
        for violation in found["violations"] if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]  # fmt: skip


def overflow(page: Any) -> int:
    """How many pixels the page is wider than its room, in the window or in the part that scrolls."""
    return page.evaluate(
        "Math.max(...[document.documentElement, document.querySelector('[data-testid=stMain]')]"
        ".map((part) => part.scrollWidth - part.clientWidth))"
    )


def picture(page: Any, path: Path) -> None:
    """Save the whole page as a picture, what is below the window included."""
    size = page.viewport_size
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": min(height, 8000)})
    page.screenshot(path=path)
    page.set_viewport_size(size)
