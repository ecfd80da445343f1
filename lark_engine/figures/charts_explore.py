"""The charts of Explore that show a metric by teacher: ridgelines, boxes, cumulative shares.

Pure functions from the engine's aggregates to cards. Every teacher is a row that can be clicked: its name is the mark's
customdata.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lark_engine.explore.distributions import ByTeacher, Densities, Span
from lark_engine.figures.cards import Card, Figure, label, packed
from lark_engine.figures.formats import count
from lark_engine.figures.metric_words import Words
from lark_engine.figures.palette import color, symbol
from lark_engine.figures.safe_text import one_line
from lark_engine.scoring.matrix import Floats

LABEL_SIZE = 12


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The teachers of a chart from top to bottom: their codes in the pool, names, and color slots.

    `is_ascending` says that the first has the lowest median, not the highest.
    """

    codes: tuple[int, ...]
    names: tuple[str, ...]
    slots: tuple[int, ...]
    is_ascending: bool = False

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def labels(self) -> list[str]:
        return [label(name) for name in self.names]

    @property
    def customdata(self) -> list[list[str]]:
        return [[name] for name in self.names]

    @property
    def height(self) -> int:
        """Pixels of a chart with these rows."""
        return 64 + round(len(self) * (34 if len(self) <= 12 else 22)) + (60 if len(self) < 3 else 0)

    def axis(self, *, is_narrow: bool = False) -> Figure:
        """The category axis: the first row at the top; in a narrow chart with shorter names."""
        texts = [label(one_line(name, 15)) for name in self.names] if is_narrow else self.labels
        return {
            "tickvals": list(range(len(self)))[::-1], "ticktext": texts, "fixedrange": True, "showgrid": False,
            "ticks": "", "ticklabelstandoff": 8, "tickfont": {"color": "@ink", "size": LABEL_SIZE},
            "range": [-0.6, len(self) - 0.05],
        }  # fmt: skip

    def places(self) -> list[int]:
        """Where each row stands on the axis."""
        return list(range(len(self)))[::-1]


def rows_by_median(
    found: ByTeacher, teachers: Sequence[str], slots: dict[str, int], *, is_ascending: bool = False
) -> Rows:
    """The teachers in sight by median; those without the metric are left out."""
    median_T = found.median_T if is_ascending else -found.median_T
    codes = [int(code) for code in np.argsort(median_T, kind="stable") if found.num_T[code]]
    return Rows(
        codes=tuple(codes), names=tuple(teachers[code] for code in codes),
        slots=tuple(slots[teachers[code]] for code in codes), is_ascending=is_ascending,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A value that a chart marks with a line, and what it is."""

    value: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What the three charts of a metric by teacher share. `kept_T` counts selected candidates, None without any."""

    rows: Rows
    found: ByTeacher
    words: Words
    span: Span
    reference: Reference | None = None
    kept_T: Sequence[int] | None = None
    extra_note: str = ""

    @property
    def title(self) -> str:
        if len(self.rows) < 2:
            median = self.words.say(float(self.found.median_T[self.rows.codes[0]]))
            return f"{self.rows.names[0]}: median {self.words.noun} {median}"
        first, last = self.rows.names[0], self.rows.names[-1]
        ends = ("lowest", "highest") if self.rows.is_ascending else ("highest", "lowest")
        return f"{first} has the {ends[0]} median {self.words.noun}, {last} the {ends[1]}"

    def note(self, how: str) -> str:
        number = int(self.found.num_T[list(self.rows.codes)].sum())
        parts = [how, f"n = {count(number)} candidates of {_teachers(len(self.rows))}", self.extra_note]
        return " · ".join(part for part in parts if part)

    def alt(self) -> str:
        lines = [
            f"{name}: median {self.words.say(q[2])}, middle half {self.words.say(q[1])} to {self.words.say(q[3])}, "
            f"n = {count(self.found.num_T[code])}"
            for name, code in zip(self.rows.names, self.rows.codes, strict=True)
            for q in [self.found.quantile_TQ[code]]
        ]
        line = f" The line marks {self.reference.text}." if self.reference else ""
        return f"{self.words.axis} by teacher, in the order of medians. {'; '.join(lines)}.{line}"

    def hover(self) -> list[str]:
        """What a row says under the pointer."""
        texts = []
        for row, (code, text) in enumerate(zip(self.rows.codes, self.rows.labels, strict=True)):
            q = self.found.quantile_TQ[code]
            kept = f"<br>{count(self.kept_T[code])} selected" if self.kept_T is not None else ""
            texts.append(
                f"<b>{text}</b> · row {row + 1}<br>median {self.words.say(q[2])}<br>middle half "
                f"{self.words.say(q[1])} to {self.words.say(q[3])}<br>{count(self.found.num_T[code])} candidates{kept}"
            )
        return texts

    def layout(self, **more: Any) -> Figure:
        shapes: list[Figure] = []
        annotations: list[Figure] = []
        if self.reference is not None and self.span.low <= self.reference.value <= self.span.high:
            at = self.reference.value
            shapes.append(_vertical(at))
            annotations.append({
                "x": at, "y": 1, "yref": "paper", "yanchor": "bottom", "text": self.reference.text, "showarrow": False,
                "font": {"color": "@muted", "size": 11},
            })  # fmt: skip
        return {
            "xaxis": {"title": {"text": self.words.axis}, "range": list(self.span)},
            "yaxis": self.rows.axis(), "shapes": shapes, "annotations": annotations, "hovermode": "closest",
            "margin": {"l": 8, "r": 12, "t": 24, "b": 8}, "bargap": 0,
            "meta": {
                "teachers": list(self.rows.names), "n": int(self.found.num_T.sum()),
                "medians": [round(float(self.found.median_T[code]), 6) for code in self.rows.codes],
            },
            **more,
        }  # fmt: skip


def ridges(shown: Distribution, density: Densities, *, height: int | None = None) -> Card:
    """One ridgeline a teacher: all candidates light, the selected ones solid, the middle half and the median below."""
    rows, at = shown.rows, density.at_P
    tallest = density.density_TP[list(rows.codes)].max(axis=1)
    # One spike of equal values must not flatten all other ridges.
    scale = 0.86 / (min(tallest.max(), 3.0 * float(np.median(tallest))) or 1.0)
    data: list[Figure] = []
    for place, code, slot in zip(rows.places(), rows.codes, rows.slots, strict=True):
        for values_P, alpha, line in ((density.density_TP[code], 0.22, 1), (density.part_TP[code], 0.8, 0)):
            if values_P.any():
                data.append(
                    _ridge(at, place, np.minimum(values_P * scale, 0.95), color(slot, alpha), color(slot), line)
                )
    data += [_quartiles(shown), _rows_to_click(shown), _medians(shown)]
    how = "Light: all, solid: selected" if shown.kept_T is not None else "Density of each teacher"
    return Card(
        key="by_teacher", title=shown.title, note=shown.note(f"{how}; bar and mark: middle half and median"),
        figure={"data": data, "layout": shown.layout()}, alt=shown.alt(), height=height or rows.height, span=7,
    )  # fmt: skip


def boxes(shown: Distribution, *, height: int | None = None) -> Card:
    """Quartiles as a box, 5 to 95 % as a line, the median as the teacher's mark."""
    rows = shown.rows
    q = shown.found.quantile_TQ[list(rows.codes)]
    whiskers = {
        "type": "scatter", "mode": "lines", "x": _gaps(q[:, 0], q[:, 4]), "y": _gaps(rows.places(), rows.places()),
        "line": {"color": "@muted", "width": 1.2}, "hoverinfo": "skip",
    }  # fmt: skip
    box = {
        "type": "bar", "orientation": "h", "y": rows.places(), "base": numbers(q[:, 1]),
        "x": numbers(q[:, 3] - q[:, 1]), "width": 0.52, "hoverinfo": "skip",
        "marker": {
            "color": [color(slot, 0.45) for slot in rows.slots],
            "line": {"color": [color(slot) for slot in rows.slots], "width": 1.2},
        },
    }  # fmt: skip
    return Card(
        key="by_teacher", title=shown.title, note=shown.note("Box: middle half, line: 5 to 95 %, mark: median"),
        figure={"data": [whiskers, box, _rows_to_click(shown), _medians(shown)], "layout": shown.layout()},
        alt=shown.alt(), height=height or rows.height, span=7,
    )  # fmt: skip


def ecdfs(shown: Distribution, quantile_TP: Floats, *, height: int | None = None) -> Card:
    """The share of each teacher's candidates at or below a value; names and marks beside it, by median."""
    rows = shown.rows
    step = 1.0 / (quantile_TP.shape[1] - 1)
    data: list[Figure] = [
        {
            "type": "scatter", "mode": "lines+markers", "x": packed(quantile_TP[code]), "y0": 0, "dy": step,
            "line": {"color": color(slot), "width": 1.6}, "customdata": [[name]] * quantile_TP.shape[1],
            "marker": {"color": color(slot), "symbol": symbol(slot), "size": 6, "maxdisplayed": 9},
            "hovertemplate": f"<b>{in_template(text)}</b><br>%{{y:.0%}} at or below %{{x}}<extra></extra>",
        }
        for code, slot, name, text in zip(rows.codes, rows.slots, rows.names, rows.labels, strict=True)
    ]  # fmt: skip
    data.append({
        "type": "scatter", "mode": "markers+text", "xaxis": "x2", "yaxis": "y2", "x": [0] * len(rows),
        "y": rows.places(), "text": [f"  {text}" for text in rows.labels], "textposition": "middle right",
        "cliponaxis": False, "customdata": rows.customdata, "hoverinfo": "text", "hovertext": shown.hover(),
        "marker": {"color": [color(s) for s in rows.slots], "symbol": [symbol(s) for s in rows.slots], "size": 8},
    })  # fmt: skip
    layout = shown.layout()
    layout |= {
        "xaxis": {**layout["xaxis"], "domain": [0, 0.72]},
        "yaxis": {"title": {"text": "share at or below"}, "tickformat": ".0%", "range": [0, 1.02], "fixedrange": True},
        "xaxis2": {"domain": [0.76, 1], "range": [-0.04, 1], "visible": False, "fixedrange": True, "anchor": "y2"},
        "yaxis2": {"range": [-0.6, len(rows) - 0.4], "visible": False, "fixedrange": True, "anchor": "x2"},
    }
    return Card(
        key="by_teacher", title=shown.title, note=shown.note("Share of each teacher’s candidates at or below a value"),
        figure={"data": data, "layout": layout}, alt=shown.alt(), height=height or rows.height, span=7,
    )  # fmt: skip


def _ridge(at: Floats, place: int, values_P: Floats, fill: str, line: str, width: int) -> Figure:
    y = place + values_P
    y[[0, -1]] = place  # closed along its base line
    return {
        "type": "scatter", "mode": "lines", "x0": float(at[0]), "dx": float(at[1] - at[0]), "y": packed(y),
        "fill": "toself", "fillcolor": fill, "line": {"color": line, "width": width, "simplify": False},
        "hoverinfo": "skip",
    }  # fmt: skip


def _quartiles(shown: Distribution) -> Figure:
    q = shown.found.quantile_TQ[list(shown.rows.codes)]
    return {
        "type": "scatter", "mode": "lines", "x": _gaps(q[:, 1], q[:, 3]),
        "y": _gaps(shown.rows.places(), shown.rows.places()), "line": {"color": "@ink", "width": 3},
        "hoverinfo": "skip",
    }  # fmt: skip


def _medians(shown: Distribution) -> Figure:
    rows = shown.rows
    return {
        "type": "scatter", "mode": "markers", "x": numbers(shown.found.median_T[list(rows.codes)]), "y": rows.places(),
        "customdata": rows.customdata, "hoverinfo": "text", "hovertext": shown.hover(),
        "marker": {
            "color": "@bg", "size": 9, "symbol": [symbol(slot) for slot in rows.slots],
            "line": {"color": "@ink", "width": 1.6},
        },
    }  # fmt: skip


def _rows_to_click(shown: Distribution) -> Figure:
    """Invisible bars, so that a whole row answers the pointer."""
    rows, span = shown.rows, shown.span
    return {
        "type": "bar", "orientation": "h", "y": [place + 0.3 for place in rows.places()],
        "base": [span.low] * len(rows), "x": [span.high - span.low] * len(rows), "width": 0.98,
        "marker": {"color": "@bg.00"}, "customdata": rows.customdata, "hoverinfo": "text", "hovertext": shown.hover(),
        "textposition": "none",
    }  # fmt: skip


def _vertical(at: float) -> Figure:
    return {
        "type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
        "line": {"color": "@muted", "width": 1, "dash": "dot"},
    }  # fmt: skip


def _teachers(number: int) -> str:
    return "1 teacher" if number == 1 else f"{number} teachers"


def _gaps(starts: Any, ends: Any) -> list[float | None]:
    """Pairs of points with gaps between them: many line segments in one trace."""
    return [end for a, b in zip(starts, ends, strict=True) for end in (*numbers((a, b)), None)]


def numbers(values: Any, digits: int = 6) -> list[float | None]:
    """A few significant digits each, and null for NaN, which JSON does not know."""
    return [None if np.isnan(value) else float(f"{value:.{digits}g}") for value in values]


def in_template(text: str) -> str:
    """Text for a place where plotly fills in values: a name that looks like a place for one stays as it is."""
    return text.replace("%{", "%\u2060{")
