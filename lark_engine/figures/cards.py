"""A card: a chart or a row of numbers under a title, as a page or a report shows it."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Figure = dict[str, Any]
_MOST_LETTERS = 24


class Stat(NamedTuple):
    """One number of a card without a chart."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """A chart or a row of numbers with its title. `alt` is the chart in words; `span` counts of 12 columns."""

    key: str
    title: str = ""
    note: str = ""
    figure: Figure | None = None
    alt: str = ""
    height: int = 280
    span: int = 6
    stats: tuple[Stat, ...] = ()


def packed(values: ArrayLike) -> dict[str, str]:
    """Numbers as plotly's typed array, float32 little endian: a third of their size as JSON text."""
    array = np.ascontiguousarray(values, dtype="<f4")
    shape = {"shape": ", ".join(map(str, array.shape))} if array.ndim > 1 else {}
    return {"dtype": "f4", "bdata": base64.b64encode(array.tobytes()).decode(), **shape}


def label(text: str) -> str:
    """Untrusted text for a place where plotly reads markup: escaped, on one line, cut to 24 letters."""
    line = " ".join(str(text).split())
    return html.escape(line if len(line) <= _MOST_LETTERS else f"{line[: _MOST_LETTERS - 1]}…", quote=False)
