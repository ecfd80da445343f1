"""The benchmark's own arithmetic: what counts as blank, and when a budget holds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from benchmarks.dashboard import blank
from benchmarks.page_clock import Row

BOXES = [{"x": 0.0, "y": 0.0, "width": 720.0, "height": 200.0}, {"x": 720.0, "y": 0.0, "width": 720.0, "height": 200.0}]


def frame(*drawn: bool) -> bytes:
    """A window of 1440 pixels with two figures side by side, each with a bar or with nothing but background."""
    shades = np.full((200, 1440), 250, dtype=np.uint8)
    for place, is_drawn in enumerate(drawn):
        if is_drawn:
            shades[50:150, 720 * place + 100 : 720 * place + 300] = 40
    file = io.BytesIO()
    Image.fromarray(shades).save(file, "JPEG", quality=70)
    return file.getvalue()


def test_a_frame_with_one_figure_missing_is_blank() -> None:
    whole = [frame(True, True)] * 5
    assert blank(whole, BOXES) == 0
    assert blank([*whole, frame(True, False), frame(False, False)], BOXES) == 2


def test_a_budget_holds_for_median_and_95th_percentile_apart() -> None:
    fast = Row(what="x", values=[100.0] * 19 + [900.0], unit="ms", limit=250, p95_limit=500)
    assert (fast.median, fast.holds) == (100.0, True)
    assert not Row(what="x", values=[100.0] * 15 + [900.0] * 5, unit="ms", limit=250, p95_limit=500).holds
    assert not Row(what="x", values=[4.0, 4.5, 6.0], unit="1/s", limit=5, at_least=True).holds
    assert str(fast).endswith("≤ 250, 500  holds")
