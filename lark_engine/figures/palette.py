"""One color and one marker for each teacher, the same on all pages, for light and dark themes.

The eleven hues keep apart under normal, deuteranopic, protanopic and tritanopic sight (CAM02-UCS distance ≥ 14 in both
themes). A figure names colors by token; the browser resolves them, so that a change of theme needs no new figure.
"""

from __future__ import annotations

from collections.abc import Sequence

LIGHT = (
    "#C86F64", "#0B594E", "#B19BDE", "#90640B", "#856FFF", "#0BB19B", "#7A2C0B", "#64377A", "#6F0BDE", "#BC9B0B",
    "#437A85",
)  # fmt: skip
DARK = (
    "#FFB185", "#85FFDE", "#7A4EE9", "#FFE921", "#C8D3FF", "#21906F", "#A65921", "#856490", "#B190FF", "#9BA60B",
    "#7AB1B1",
)  # fmt: skip
SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "pentagon", "star", "hexagon",
    "bowtie", "hourglass",
)  # fmt: skip


def slots(teachers: Sequence[str]) -> dict[str, int]:
    """Each teacher's slot: its place among the pool's names in alphabetical order, so that no page changes it."""
    return {name: slot for slot, name in enumerate(sorted(teachers))}


def color(slot: int, alpha: float = 1.0) -> str:
    """The figure token of a teacher's color: `@c3`, or `@c3.22` with 22 % opacity."""
    return token(f"c{slot % len(LIGHT)}", alpha)


def token(name: str, alpha: float = 1.0) -> str:
    """A figure token of the theme: ink, muted, faint, grid, bg, accent, good, warn, bad, or a teacher's color."""
    return f"@{name}" if alpha >= 1.0 else f"@{name}.{round(100 * alpha):02d}"


def symbol(slot: int) -> str:
    """The marker of a teacher: with more teachers than colors, the same color comes with another marker."""
    # 11 colors and 12 markers have no common factor: a pair comes again after 132 teachers.
    return SYMBOLS[slot % len(SYMBOLS)]
