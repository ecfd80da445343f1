"""From the user's event to the paint: the clock that a page carries while it is measured, and a line of the report."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# Remembers when the user did something, and when the figures that say so in their `meta` had been painted.
CLOCK = """
window.clock = { done: null, ask: null, paints: 0 };
for (const kind of ["keydown", "pointerdown", "click"])
  window.addEventListener(kind, (event) => { if (event.isTrusted) clock.event = event.timeStamp; }, true);
clock.look = () => {
  if (!clock.ask || clock.done !== null || !clock.ask()) return;
  clock.done = -1;
  requestAnimationFrame(() => {   // the next frame is painted right after its callbacks
    const channel = new MessageChannel();
    channel.port1.onmessage = () => { clock.done = performance.now() - clock.event; };
    channel.port2.postMessage(0);
  });
};
document.addEventListener("lark:painted", (event) => {
  clock.paints += 1; clock.painted = performance.now(); clock.first ??= clock.painted; clock.look();
});
const observe = () => new MutationObserver(clock.look).observe(document.body, {
  childList: true, subtree: true, characterData: true, attributeFilter: ["data-test-script-state"] });
document.body ? observe() : addEventListener("DOMContentLoaded", observe);
// Whether the script has ended and every board was painted since it was asked for.
clock.numPaints = () => [...document.querySelectorAll(".lark-board")].map((board) => Number(board.dataset.paints ?? 0));
clock.isWhole = () => document.querySelector("[data-testid=stApp]").dataset.testScriptState === "notRunning"
  && clock.numPaints().every((paints, place) => paints > (clock.before[place] ?? 0));
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the report: median and 95th percentile of what was measured, and a bound of either or both."""

    what: str
    values: list[float]
    unit: str
    limit: float | None = None
    p95_limit: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        return float(np.percentile(self.values, 95))

    @property
    def holds(self) -> bool:
        within = self.limit is None or (self.median >= self.limit if self.at_least else self.median <= self.limit)
        return within and (self.p95_limit is None or self.p95 <= self.p95_limit)

    def __str__(self) -> str:
        bound = "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"
        bound += "" if self.p95_limit is None else f", {self.p95_limit:g}"
        verdict = "" if not bound else "holds" if self.holds else "FAILS"
        p95 = f"{self.p95:>8.4g}" if len(self.values) > 1 else " " * 8
        return f"{self.what:<66} {self.median:>8.4g} {p95} {self.unit:<5} {len(self.values):>4} {bound:>12}  {verdict}"


def timed(page: Any, act: Callable[[], None], shown: str, timeout_s: float = 10.0) -> float:
    """Milliseconds from the user's event in `act` to the paint in which the JavaScript condition `shown` holds."""
    page.evaluate(f"clock.before = clock.numPaints(); clock.done = null; clock.ask = () => {shown};")
    act()
    deadline = time.monotonic() + timeout_s
    while (done := page.evaluate("clock.done")) is None or done < 0:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not painted within {timeout_s:g} s: {shown}")
        time.sleep(0.005)
    return float(done)
