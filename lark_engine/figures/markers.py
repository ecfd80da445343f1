"""Teachers' markers as drawings for tables and headings, in the shapes that charts use. Pure; returns HTML."""

from __future__ import annotations

from lark_engine.figures.palette import DARK, LIGHT, symbol

# In a box of 12 × 12.
SHAPES = {
    "circle": "M6 1.2a4.8 4.8 0 1 0 0 9.6a4.8 4.8 0 1 0 0-9.6z",
    "square": "M1.8 1.8h8.4v8.4H1.8z",
    "diamond": "M6 .4L11.6 6L6 11.6L.4 6z",
    "triangle-up": "M6 .9L11.4 10.4H.6z",
    "triangle-down": "M6 11.1L.6 1.6H11.4z",
    "cross": "M4.2 1h3.6v3.2H11v3.6H7.8V11H4.2V7.8H1V4.2h3.2z",
    "x": "M3.2 1L6 3.8L8.8 1L11 3.2L8.2 6L11 8.8L8.8 11L6 8.2L3.2 11L1 8.8L3.8 6L1 3.2z",
    "pentagon": "M6 .8L11.3 4.7L9.3 10.9H2.7L.7 4.7z",
    "star": "M6 .4L7.5 4.1L11.5 4.4L8.4 7L9.4 10.9L6 8.8L2.6 10.9L3.6 7L.5 4.4L4.5 4.1z",
    "hexagon": "M6 .6L10.7 3.3V8.7L6 11.4L1.3 8.7V3.3z",
    "bowtie": "M.8 1.6L6 4.7L11.2 1.6V10.4L6 7.3L.8 10.4z",
    "hourglass": "M1.6 .8H10.4L7.3 6L10.4 11.2H1.6L4.7 6z",
}


def colors(slot: int) -> str:
    """The teacher's color of both themes, for CSS."""
    return f"light-dark({LIGHT[slot % len(LIGHT)]}, {DARK[slot % len(DARK)]})"


def marker(slot: int) -> str:
    """The teacher's marker in its color; the name beside it says the same."""
    shape = f"clip-path: path('{SHAPES[symbol(slot)]}'); background: {colors(slot)}"
    return f'<i class="lark-marker" aria-hidden="true" style="{shape}"></i>'
