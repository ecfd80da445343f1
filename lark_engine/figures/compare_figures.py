"""The charts of a comparison as cards: differences with their intervals, and the problem matrix. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from lark_engine.evaluation.intervals import Estimate
from lark_engine.evaluation.paired import Paired
from lark_engine.figures.cards import Card, Figure, label
from lark_engine.figures.chart_parts import vertical
from lark_engine.figures.compare_words import Unit, is_shown, mean_sentence, p_phrase, unit_of
from lark_engine.figures.formats import count, signed
from lark_engine.figures.safe_text import one_line
from lark_engine.results.compare import BenchmarkComparison
from lark_engine.results.pairs import SliceBy, Slices

_MOST_ROWS = 24
_MOST_NUMBERS = 17
_ROW = 46
_SMALL = "<span style='font-size: 11px'>"
_BY = {"level": "level", "subject": "subject", "length": "quarter of the problems by mean tokens of A and B"}


class Row(NamedTuple):
    """A difference to draw: hollow unless it is shown to differ from zero."""

    name: str
    detail: str
    value: float
    low: float | None
    high: float | None
    shown: bool
    hover: str


def forest(found: Sequence[BenchmarkComparison], macro: Estimate | None, chosen: int) -> Card:
    """The difference on each benchmark, and their mean; a click chooses a benchmark."""
    unit = unit_of(found[0].metric)
    rows = [
        _paired_row(one.benchmark, one.paired, one.p_adjusted, len(found), unit, f"{one.metric}<br>") for one in found
    ]
    if macro is not None:
        differs = macro.low is not None and macro.high is not None and not macro.low <= 0 <= macro.high
        hover = mean_sentence(macro, found[0].metric, len(found))
        rows.append(Row("mean", f"of {len(found)} benchmarks", macro.value, macro.low, macro.high, differs, hover))
    shown = sum(is_shown(one.p_adjusted) for one in found)
    title = (
        f"On {shown} of {len(found)} benchmarks a difference is shown"
        if len(found) > 1
        else "How large is the difference?"
    )
    note = (
        f"{found[0].metric if len({one.metric for one in found}) == 1 else 'each by its own n'} · line: 95 % interval"
    )
    note += " · hollow: no difference is shown" + (" at 5 % by Holm" if len(found) > 1 else " at 5 %")
    if len(found) > 1:
        note += " · a click chooses"
    names = [one.benchmark for one in found]
    figure = _forest_figure(rows, unit, chosen=chosen if len(found) > 1 else None)
    figure["layout"]["meta"] = {
        "benchmarks": names, "differences": [round(row.value * unit.scale, 4) for row in rows],
        "shown": [row.shown for row in rows],
    }  # fmt: skip
    return Card(
        key="forest", title=title, note=note, figure=figure, alt=_alt("Difference B − A by benchmark", rows, unit),
        height=_height(rows), span=12,
    )  # fmt: skip


def slice_forest(found: Slices, by: SliceBy, metric: str, total: Paired) -> Card:
    """The difference within each part of a benchmark."""
    unit = unit_of(metric)
    parts = sorted(found.parts, key=lambda part: -part.paired.num_problems)[:_MOST_ROWS]
    kept = [part for part in found.parts if part in parts]
    if not kept:
        return Card(
            key="slices", span=12, title=f"This benchmark names no {_BY[by].partition(' ')[0]}s",
            note="Its problems carry none: choose another way to slice.",
        )  # fmt: skip
    rows = [_paired_row(part.name, part.paired, part.p_adjusted, len(found.parts), unit, f"{by} ") for part in kept]
    differing = [part.name for part in kept if is_shown(part.p_adjusted)]
    title = f"By {by}, no part shows a difference"
    if differing:
        title = f"By {by}, a difference is shown in {_few(differing)}"
    notes = [f"parts: {_BY[by]}", "hollow: not shown at 5 % by Holm over the parts", "dotted: all problems"]
    notes += [f"{count(found.num_without)} problems have none"] if found.num_without else []
    notes += [f"the {_MOST_ROWS} largest of {len(found.parts)}"] if len(kept) < len(found.parts) else []
    figure = _forest_figure(rows, unit)
    figure["layout"]["shapes"].append(vertical(total.difference * unit.scale, "accent", "dot"))
    figure["layout"]["meta"] = {
        "by": by, "names": [part.name for part in kept], "n": [part.paired.num_problems for part in kept],
        "differences": [round(row.value * unit.scale, 4) for row in rows],
    }  # fmt: skip
    return Card(
        key="slices", title=title, note=" · ".join(notes), figure=figure, height=_height(rows), span=12,
        alt=_alt(f"Difference B − A by {by}", rows, unit),
    )  # fmt: skip


def matrix(one: BenchmarkComparison, cell: tuple[int, int] | None) -> Card:
    """How many problems have so many correct samples of A (rows) and of B (columns); a click lists them."""
    cells = list(one.matrix.items())
    most = max(number for _, number in cells)
    gained = sum(number for (i, j), number in cells if j * one.num_samples_a > i * one.num_samples_b)
    lost = sum(number for (i, j), number in cells if j * one.num_samples_a < i * one.num_samples_b)
    rows, columns = one.num_samples_a, one.num_samples_b
    squares: Figure = {
        "type": "bar", "orientation": "h", "width": 0.92, "y": [i for (i, _), _ in cells],
        "base": [round(j - 0.46, 2) for (_, j), _ in cells], "x": [0.92] * len(cells),
        "customdata": [[i, j] for (i, j), _ in cells],
        "hovertext": [
            f"<b>{count(number)} problem{'s' if number > 1 else ''}</b><br>A {i} of {rows}, B {j} of {columns} correct"
            for (i, j), number in cells
        ], "hoverinfo": "text", "textposition": "none",
        "marker": {
            "color": [round(math.sqrt(number / most), 4) for _, number in cells], "cmin": 0.0, "cmax": 1.0,
            "colorscale": [[0, "@accent.10"], [1, "@accent.60"]],
            "line": {"width": [2.5 if at == cell else 0 for at, _ in cells], "color": "@ink"},
        },
    }  # fmt: skip
    if max(rows, columns) < _MOST_NUMBERS:
        squares |= {
            "text": [count(number) for _, number in cells], "textposition": "inside", "insidetextanchor": "middle",
            "textangle": 0, "insidetextfont": {"color": "@ink", "size": 12}, "constraintext": "none",
        }  # fmt: skip
    return Card(
        key="matrix", title=_matrix_title(gained, lost),
        note=f"n = {count(one.paired.num_problems)} · square: problems with so many correct samples · "
        "dotted: equal shares; below, B is ahead · a click lists the problems",
        figure={
            "data": [squares],
            "layout": {
                "xaxis": _count_axis(f"correct samples of B, of {columns}", columns),
                "yaxis": _count_axis(f"correct samples of A, of {rows}", rows),
                "shapes": _diagonal(rows, columns),
                "barmode": "overlay", "hovermode": "closest", "dragmode": False,
                "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
                "meta": {
                    "n": one.paired.num_problems, "cells": [[i, j, number] for (i, j), number in cells],
                    "cell": list(cell) if cell else None,
                },
            },
        },
        alt=f"Problems by correct samples of A (of {rows}) and B (of {columns}): " + "; ".join(
            f"A {i}, B {j}: {number}" for (i, j), number in cells[:60]
        ) + ("; …" if len(cells) > 60 else ".") + f" B ahead on {gained}, A on {lost}.",
        height=420, span=12,
    )  # fmt: skip


def _matrix_title(gained: int, lost: int) -> str:
    if not gained and not lost:
        return "A and B solve every problem equally often"
    return f"B solves {count(gained)} problem{'' if gained == 1 else 's'} more often, A {count(lost)}"


def _diagonal(rows: int, columns: int) -> list[Figure]:
    """Where both sides solve the same share: the squares' outlines, or a line where the numbers of samples differ."""
    pen = {"color": "@muted", "width": 1.2, "dash": "dot"}
    if rows != columns or rows > _MOST_NUMBERS:
        return [{"type": "line", "x0": 0, "y0": 0, "x1": columns, "y1": rows, "layer": "below", "line": pen}]
    return [
        {"type": "rect", "x0": k - 0.48, "x1": k + 0.48, "y0": k - 0.48, "y1": k + 0.48, "layer": "below", "line": pen}
        for k in range(rows + 1)
    ]


def _paired_row(name: str, paired: Paired, p_adjusted: float, number: int, unit: Unit, before: str) -> Row:
    p = p_phrase(paired.p_value, p_adjusted, number).replace("<", "&lt;")
    interval = "" if paired.low is None or paired.high is None else (
        f"<br>95 %: {unit.say(paired.low)} to {unit.say(paired.high)}"
    )  # fmt: skip
    hover = (
        f"<b>{label(name)}</b><br>{before if before.endswith('<br>') else ''}B − A = {unit.say(paired.difference)} "
        f"{unit.name}{interval}<br>{p} ({paired.test})<br>n = {count(paired.num_problems)}: B higher on "
        f"{paired.num_better}, lower on {paired.num_worse}"
    )
    detail = f"n = {count(paired.num_problems)} · {p}"
    return Row(name, detail, paired.difference, paired.low, paired.high, is_shown(p_adjusted), hover)


def _forest_figure(rows: Sequence[Row], unit: Unit, chosen: int | None = None) -> Figure:
    """Rows from top to bottom: an interval as a line, the difference as a mark, in figures at the right."""
    places = list(range(len(rows) - 1, -1, -1))
    lines = [(place, row.low * unit.scale, row.high * unit.scale) for place, row in zip(places, rows, strict=True)
             if row.low is not None and row.high is not None]  # fmt: skip
    tones = ["@accent" if row.shown else "@muted" for row in rows]
    marks: Figure = {
        "type": "scatter", "mode": "markers", "y": places, "x": [round(row.value * unit.scale, 4) for row in rows],
        "customdata": [[number] for number in range(len(rows))], "hovertext": [row.hover for row in rows],
        "hoverinfo": "text", "cliponaxis": False,
        "marker": {
            "size": 11, "symbol": ["square" if row.name == "mean" else "circle" for row in rows],
            "color": [tone if row.shown else "@bg" for tone, row in zip(tones, rows, strict=True)],
            "line": {"color": tones, "width": 2},
        },
    }  # fmt: skip
    intervals: Figure = {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip", "line": {"color": "@muted", "width": 2},
        "x": [end for _, low, high in lines for end in (round(low, 4), round(high, 4), None)],
        "y": [end for place, _, _ in lines for end in (place, place, None)],
    }  # fmt: skip
    reach = max([abs(end) for _, low, high in lines for end in (low, high)] + [abs(r.value * unit.scale) for r in rows])
    reach = 1.08 * reach if reach > 0 else 1.0
    names = [
        f"{f'<b>{label(row.name)}</b>' if number == chosen else label(row.name)}<br>{_SMALL}{row.detail}</span>"
        for number, row in enumerate(rows)
    ]
    return {
        "data": [intervals, marks],
        "layout": {
            "xaxis": {
                "title": {"text": f"B − A ({unit.name})"}, "range": [-reach, reach], "zeroline": False,
                "fixedrange": True,
            },
            "yaxis": {
                "tickvals": places, "ticktext": names, "range": [-0.6, len(rows) - 0.4], "showgrid": False,
                "fixedrange": True,
            },
            "shapes": [vertical(0.0, "ink", "solid")],
            "annotations": [
                {"x": 1.01, "xref": "paper", "y": place, "text": unit.say(row.value), "showarrow": False,
                 "xanchor": "left", "font": {"color": "@ink", "size": 12}}
                for place, row in zip(places, rows, strict=True)
            ],
            "hovermode": "closest", "dragmode": False, "margin": {"l": 8, "r": 52, "t": 8, "b": 8},
        },
    }  # fmt: skip


def _height(rows: Sequence[Row]) -> int:
    return 66 + _ROW * len(rows)


def _count_axis(title: str, most: int) -> Figure:
    step = max(1, -(-most // 16))
    return {
        "title": {"text": title}, "range": [-0.55, most + 0.55], "dtick": step, "tick0": 0, "showgrid": False,
        "fixedrange": True, "constrain": "domain",
    }  # fmt: skip


def _alt(what: str, rows: Sequence[Row], unit: Unit) -> str:
    said = [
        f"{one_line(row.name, 40)} {signed(row.value * unit.scale, 1)}"
        + (f" ({signed(row.low * unit.scale, 1)} to {signed(row.high * unit.scale, 1)})"
           if row.low is not None and row.high is not None else "")
        + f", {row.detail.replace('&lt;', '<')}{'' if row.shown else ', not shown'}"
        for row in rows
    ]  # fmt: skip
    return f"{what} in {unit.name}, 95 % intervals: {'; '.join(said)}."


def _few(names: Sequence[str]) -> str:
    return ", ".join(one_line(name, 30) for name in names[:3]) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )
