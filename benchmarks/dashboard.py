"""Claims of the dashboard, measured in headless Chromium on 5,000 × 33 candidates: from the user's event to the paint.

    python -m benchmarks.dashboard [--workspace FOLDER] [--steps 40]

FOLDER is a workspace with a generated pool (`python -m benchmarks.scored_pool`); without one it is made in a temporary
folder. A paint is the frame in which every figure that follows a control shows the control's new value. Blank frames
are counted in a screencast of the figures, apart from the timings, which it would slow down. Without a GPU.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Error, sync_playwright

from benchmarks.dashboard_work import work_rows
from benchmarks.page_clock import CLOCK, Row, timed
from benchmarks.scored_pool import LARGE_TEXT_TOKENS, make_scored_pool
from lark_engine.serve import find_dashboard
from lark_engine.store.workspace import Workspace
from tests.app.browser import ARGUMENTS, CHROMIUM, dashboard, drag, open_page, slider, until, wait_idle

DRAG_S = 4.0
_EVERY_META = """(name, value) => {
  const metas = [...document.querySelectorAll(".js-plotly-plot")].map((plot) => plot.layout?.meta ?? {});
  const told = metas.filter((meta) => name in meta);
  return told.length > 0 && told.every((meta) => meta[name] === value);
}"""


@contextlib.contextmanager
def websocket_bytes(page: Any) -> Iterator[list[int]]:
    """Sizes of the messages that the page receives, before compression."""
    sizes: list[int] = []
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")

    def received(event: dict[str, Any]) -> None:
        payload = event["response"]["payloadData"]
        sizes.append(len(base64.b64decode(payload)) if event["response"]["opcode"] == 2 else len(payload))

    session.on("Network.webSocketFrameReceived", received)
    try:
        yield sizes
    finally:
        session.detach()


def figure_kb(page: Any) -> float:
    """Size of all figures of the page as they were sent, in kB."""
    sizes = page.evaluate("[...document.querySelectorAll('.lark-board-plot')].map((plot) => plot.key.length)")
    return sum(sizes) / 1000


def tune_rows(browser: Any, address: str, steps: int) -> Iterator[Row]:
    """The budget's slider, moved by key and dragged."""
    with open_page(browser, f"{address}/tune?B=8") as page:
        page.evaluate(f"() => {{{CLOCK}}}")
        slider(page, "B").focus()
        yield Row(what="Tune: figures in all", values=[figure_kb(page)], unit="kB", limit=80)
        times, sent, B = [], [], 8
        with websocket_bytes(page) as sizes:
            for step in range(steps):
                up = step % 20 < 10
                B += 1 if up else -1
                sizes.clear()
                key = "ArrowRight" if up else "ArrowLeft"
                shown = f"({_EVERY_META})('B', {B})"
                times.append(timed(page, lambda key=key: page.keyboard.press(key), shown))
                sent.append(sum(sizes) / 1000)
                wait_idle(page)  # the value is written to the address
        yield Row(what="Tune: slider to paint, every figure", values=times, unit="ms", limit=250, p95_limit=500)
        yield Row(what="Tune: received for a step, without compression", values=sent, unit="kB")
        yield from _dragged(page)


def _dragged(page: Any) -> Iterator[Row]:
    """Paints of the figures while the slider is dragged to and fro, and frames in which a figure is missing."""
    rates, tails = [], []
    for to in ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)):
        before, began = page.evaluate("clock.paints"), time.perf_counter()
        drag(page, "B", to=to, moves=120, seconds=DRAG_S)
        rates.append((page.evaluate("clock.paints") - before) / (time.perf_counter() - began))
        released = page.evaluate("performance.now()")
        wait_idle(page)
        tails.append(max(page.evaluate("clock.painted") - released, 0.0))
    yield Row(
        what="Tune: paints a second while it is dragged for 4 s", values=rates, unit="1/s", limit=5, at_least=True
    )
    yield Row(what="Tune: from the release until nothing more is painted", values=tails, unit="ms")
    page.set_viewport_size({"width": 1440, "height": 2400})  # all figures are in sight
    wait_idle(page)
    with screencast(page) as frames:
        drag(page, "B", to=(0.0, 1.0, 0.0), moves=120, seconds=DRAG_S)
    boxes = [plot.bounding_box() for plot in page.locator(".lark-board .js-plotly-plot").all()]
    yield Row(what=f"Tune: blank frames of {len(frames)} of that drag", values=[blank(frames, boxes)], unit="", limit=0)


@contextlib.contextmanager
def screencast(page: Any) -> Iterator[list[bytes]]:
    """Every frame that the browser paints meanwhile, as JPEG."""
    frames: list[bytes] = []
    session = page.context.new_cdp_session(page)

    def keep(event: dict[str, Any]) -> None:
        frames.append(base64.b64decode(event["data"]))
        with contextlib.suppress(Error):  # the last frames may come after the end
            session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})

    session.on("Page.screencastFrame", keep)
    session.send("Page.startScreencast", {"format": "jpeg", "quality": 70, "everyNthFrame": 1})
    try:
        yield frames
    finally:
        session.send("Page.stopScreencast")
        session.detach()


def blank(frames: list[bytes], boxes: list[dict[str, float]]) -> int:
    """How many frames show a figure with less than a third of its usual ink (pixels that are not background)."""
    assert frames and boxes, "no frame was painted"
    ink = np.zeros((len(frames), len(boxes)))
    for number, frame in enumerate(frames):
        shades = np.asarray(Image.open(io.BytesIO(frame)).convert("L"), dtype=np.int16)
        scale = shades.shape[1] / 1440
        for place, box in enumerate(boxes):
            left, top = int(box["x"] * scale), int(box["y"] * scale)
            part = shades[top : top + int(box["height"] * scale), left : left + int(box["width"] * scale)]
            ink[number, place] = (np.abs(part - np.median(part)) > 12).mean()
    return int((ink < np.median(ink, axis=0) / 3).any(axis=1).sum())


def explore_rows(browser: Any, address: str, steps: int) -> Iterator[Row]:
    """View filters by a click, until all figures and the table are there; the shape of one figure; a pool edit."""
    with open_page(browser, f"{address}/explore") as page:
        page.evaluate(f"() => {{{CLOCK}}}")
        page.get_by_text("Reading the texts").wait_for(state="hidden", timeout=120_000)
        wait_idle(page)
        yield Row(what="Explore: figures in all", values=[figure_kb(page)], unit="kB", limit=300)
        for what, names, limit in (
            ("Explore: a filter", ("Truncated", "Duplicated", "Wrong answer", "No boxed answer"), 500),
            ("Explore: another metric", ("L", "Brier", "ρ", "RSR", "ĝ"), None),
        ):  # fmt: skip
            times, first = [], []
            for step in range(steps):
                name = re.compile(f"^{names[step % len(names)]}( ·.*)?$")
                button = (
                    page.get_by_test_id("stMain")
                    .get_by_role("button", name=name)
                    .or_(page.get_by_test_id("stMain").get_by_role("radio", name=name))
                )
                took = timed(page, button.first.click, "clock.isWhole()")
                (first if step < len(names) else times).append(took)
                wait_idle(page)
            yield Row(what=f"{what}, each the first time", values=first, unit="ms")
            yield Row(what=f"{what}, again", values=times, unit="ms", limit=limit)


def trajectory_rows(browser: Any, address: str, steps: int) -> Iterator[Row]:
    """The next candidate and the next problem by key, until the whole page is there."""
    with open_page(browser, f"{address}/trajectory") as page:
        page.evaluate(f"() => {{{CLOCK}}}")
        for what, param, there, back in (
            ("candidate", "candidate", "ArrowRight", "ArrowLeft"),
            ("problem", "problem", "Shift+ArrowDown", "Shift+ArrowUp"),
        ):
            times = []
            for step in range(steps):
                # To and fro: a problem has fewer candidates than there are steps.
                key = there if step % 20 < 10 else back
                said = page.evaluate("name => new URL(location).searchParams.get(name)", param)
                shown = f"clock.isWhole() && new URL(location).searchParams.get('{param}') !== {json.dumps(said)}"
                times.append(timed(page, lambda key=key: page.keyboard.press(key), shown))
                wait_idle(page)
            yield Row(what=f"Trajectory: next {what}", values=times, unit="ms", limit=300)


def cold_rows(browser: Any, workspace: Workspace, repetitions: int) -> Iterator[Row]:
    """A server that has just started and a browser that has never seen it, to the first painted figures."""
    for name in ("explore", "tune"):
        started, times = [], []
        for _ in range(repetitions):
            began = time.perf_counter()
            with dashboard(workspace) as address:
                started.append(time.perf_counter() - began)
                context = browser.new_context(viewport={"width": 1440, "height": 900})
                context.add_init_script(CLOCK)
                page = context.new_page()
                page.goto(f"{address}/{name}", wait_until="commit")
                until(page, "window.clock?.first !== undefined", timeout_s=60)
                times.append(page.evaluate("clock.first") / 1000)
                context.close()
        yield Row(
            what=f"{name.title()}: new server, new browser, to its first figures", values=times, unit="s", limit=3
        )
        yield Row(what="  before that, until the server answers", values=started, unit="s")


def process_rows(workspace: Workspace) -> Iterator[Row]:
    """The interface's process after all of this."""
    running = find_dashboard(workspace)
    assert running is not None
    process = psutil.Process(running.pid)
    yield Row(what="interface process: resident memory", values=[process.memory_info().rss / 1e6], unit="MB", limit=500)
    torch = [library.path for library in process.memory_maps() if "torch" in library.path]
    yield Row(what="interface process: libraries of torch", values=[len(torch)], unit="", limit=0)


def rows(workspace: Workspace, steps: int) -> Iterator[Row]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield from cold_rows(browser, workspace, 3)
        with dashboard(workspace) as address:
            yield from tune_rows(browser, address, steps)
            yield from explore_rows(browser, address, steps)
            yield from trajectory_rows(browser, address, steps)
            yield from process_rows(workspace)
        with tempfile.TemporaryDirectory() as folder:
            yield from work_rows(browser, Path(folder), steps)
        browser.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="workspace with a generated pool")
    parser.add_argument("--steps", type=int, default=40, help="repetitions of each timing")
    arguments = parser.parse_args()
    print(f"{'5,000 problems × 33 candidates':<66} {'median':>8} {'p95':>8} {'':<5} {'n':>4} {'limit':>12}")
    holds = True
    with contextlib.ExitStack() as stack:
        workspace = Workspace(arguments.workspace or stack.enter_context(tempfile.TemporaryDirectory()))
        if not workspace.list("scores"):
            make_scored_pool(workspace, num_problems=5000, num_candidates=33, text_tokens=LARGE_TEXT_TOKENS)
        for row in rows(workspace, arguments.steps):
            print(row, flush=True)
            holds &= row.holds
    print(f"load of the machine meanwhile: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
