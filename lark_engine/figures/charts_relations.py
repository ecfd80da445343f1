"""The charts of Explore that relate metrics: L against Brier with lines of equal ĝ, length against a metric. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lark_engine.explore.distributions import AlongLength, ByTeacher, MedianSums, Plane
from lark_engine.figures.cards import Card, Figure, label, packed
from lark_engine.figures.charts_explore import Rows, in_template, numbers
from lark_engine.figures.formats import count, signed
from lark_engine.figures.metric_words import Words
from lark_engine.figures.palette import color, symbol
from lark_engine.scoring.matrix import Floats


def why_high(
    cells: Plane, rows: Rows, x: ByTeacher, y: ByTeacher, sums: MedianSums, levels: Sequence[float], *,
    of_rho: bool, word: Words, height: int, selection: str = "",
) -> Card:  # fmt: skip
    """Where candidates lie by L and Brier (or ρ), with lines of equal ĝ: what makes a trajectory score high.

    `selection` changes when the filters do, so that a box that was drawn does not stay.
    """
    y_name = "ρ" if of_rho else "Brier score"
    data: list[Figure] = [_density(cells)]
    annotations: list[Figure] = []
    for level in levels:
        line, mark = _iso_line(cells, sums, level, of_rho=of_rho, text=word.say(level))
        data.append(line)
        if mark is not None and not any(_collide(mark, other, cells) for other in annotations):
            annotations.append(mark)
    data.append(_medians(rows, x, y, y_name))
    number = int(cells.count_YX.sum())
    finding = "a high ρ at a high L" if of_rho else "a high Brier for its L"
    sums_text = f"ΣL = {sums.nll:.1f}, ΣBrier = {sums.brier:.1f}"
    return Card(
        key="plane", title=f"What makes ĝ high: {finding}",
        note=f"n = {count(number)} · lines: equal ĝ at the median problem’s {sums_text} · marks: medians of teachers · "
        "a drawn box filters",
        figure={
            "data": data,
            "layout": {
                "xaxis": {"title": {"text": "L (nats per token)"}, "range": _ends(cells.x_edges)},
                "yaxis": {
                    "title": {"text": "ρ = Brier / L (1/nat)" if of_rho else "Brier score (0 to 2)"},
                    "range": _ends(cells.y_edges),
                },
                "annotations": annotations, "dragmode": "select", "hovermode": "closest", "selections": [],
                "selectionrevision": selection, "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
                "meta": {"n": number, "outside": cells.num_outside, "levels": list(levels)},
            },
        },
        alt=f"Density of {count(number)} candidates over L and {y_name}, with lines of equal ĝ at "
        f"{', '.join(word.say(level) for level in levels)} for a problem with {sums_text}. Medians of teachers: "
        + "; ".join(
            f"{name} L {x.median_T[code]:.3f}, {y_name} {y.median_T[code]:.3f}"
            for name, code in zip(rows.names, rows.codes, strict=True)
        ) + ".",
        height=height, span=4,
    )  # fmt: skip


def _density(cells: Plane) -> Figure:
    """How many candidates lie where, as its root: a few far from the crowd can be seen."""
    return {
        "type": "heatmap", "z": packed(np.sqrt(cells.count_YX)), "x0": _middle(cells.x_edges),
        "dx": _step(cells.x_edges), "y0": _middle(cells.y_edges), "dy": _step(cells.y_edges), "showscale": False,
        "colorscale": [[0, "@accent.00"], [0.04, "@accent.10"], [1, "@accent.90"]], "hoverinfo": "skip",
    }  # fmt: skip


def _medians(rows: Rows, x: ByTeacher, y: ByTeacher, y_name: str) -> Figure:
    """A mark for each teacher where its medians are."""
    codes = list(rows.codes)
    return {
        "type": "scatter", "mode": "markers", "x": numbers(x.median_T[codes]), "y": numbers(y.median_T[codes]),
        "customdata": rows.customdata,
        "hovertext": [
            f"<b>{text}</b><br>median L {a:.3f}<br>median {y_name} {b:.3f}"
            for text, a, b in zip(rows.labels, x.median_T[codes], y.median_T[codes], strict=True)
        ], "hoverinfo": "text",
        "marker": {
            "color": [color(s) for s in rows.slots], "symbol": [symbol(s) for s in rows.slots], "size": 11,
            "line": {"color": "@bg", "width": 1.5},
        },
    }  # fmt: skip


def length_bias(
    found: AlongLength, whole: ByTeacher, rows: Rows, words: Words, correlation: float, *, height: int, number: int
) -> Card:
    """For each teacher a row: how the median and the middle half of a metric depart from the teacher's own median
    over the length of the response. All rows have one scale."""
    codes = list(rows.codes)
    if not number or np.isnan(found.quantile_TL3[codes]).all():
        return Card(
            key="length", span=4, title=f"Too few candidates to relate {words.symbol} to length",
            note=f"n = {count(number)} · a point needs at least 5 candidates of a teacher and a length.",
        )  # fmt: skip
    gap_TL3 = found.quantile_TL3[codes] - whole.median_T[codes][:, None, None]
    known = np.abs(gap_TL3[~np.isnan(gap_TL3)])
    reach = float(np.quantile(known, 0.98)) if len(known) else 0.0
    scale = 0.46 / reach if reach > 0 else 0.0
    data: list[Figure] = [{
        "type": "scatter", "mode": "lines", "hoverinfo": "skip", "line": {"color": "@faint", "width": 1},
        "x": [end for _ in codes for end in (*_bounds(found.edge_L), None)],
        "y": [end for place in rows.places() for end in (place, place, None)],
    }]  # fmt: skip
    for row, (place, code, slot) in enumerate(zip(rows.places(), codes, rows.slots, strict=True)):
        some = ~np.isnan(gap_TL3[row, :, 1])
        if not some.any():
            continue
        y_S3 = place + np.clip(gap_TL3[row, some] * scale, -0.48, 0.48)
        texts = [
            f"median {words.say(q[1])}, middle half {words.say(q[0])} to {words.say(q[2])}<br>n = {count(n)}"
            for q, n in zip(found.quantile_TL3[code][some], found.num_TL[code][some], strict=True)
        ]
        data += _ribbon(found.center_L[some], y_S3, color(slot, 0.25), color(slot), rows.names[row], texts)
    return Card(
        key="length", title=_length_title(words, correlation),
        note=f"n = {count(number)} · correlation of ranks within problems · row: ± {words.say(reach).lstrip('+')} "
        "around the teacher’s median; band: middle half",
        figure={
            "data": data,
            "layout": {
                "xaxis": _length_axis(found.edge_L),
                "yaxis": {**rows.axis(is_narrow=True), "range": [-0.6, len(rows) - 0.4]},
                "hovermode": "closest", "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
                "meta": {
                    "n": number, "correlation": None if np.isnan(correlation) else round(correlation, 4),
                    "teachers": list(rows.names),
                },
            },
        },
        alt=f"{words.axis} over the length of the response, by teacher. Rank correlation within problems: "
        f"{signed(correlation, 2)}. " + "; ".join(
            f"{name}: median {words.say(ends[0])} at the shortest, {words.say(ends[-1])} at the longest"
            for name, code in zip(rows.names, codes, strict=True)
            if len(ends := found.quantile_TL3[code, :, 1][~np.isnan(found.quantile_TL3[code, :, 1])])
        ) + ".",
        height=height, span=4,
    )  # fmt: skip


def _ribbon(center_S: Floats, y_S3: Floats, pale: str, full: str, name: str, texts: list[str]) -> list[Figure]:
    """The middle half as a band, and the median as a line with points; `texts` say what is under the pointer."""
    return [
        {
            "type": "scatter", "mode": "lines", "x": numbers([*center_S, *center_S[::-1]]), "hoverinfo": "skip",
            "y": numbers([*y_S3[:, 0], *y_S3[::-1, 2]]), "fill": "toself", "fillcolor": pale, "line": {"width": 0},
        },
        {
            "type": "scatter", "mode": "lines+markers", "x": numbers(center_S), "y": numbers(y_S3[:, 1]),
            "line": {"color": full, "width": 1.8}, "marker": {"color": full, "size": 3.5},
            "customdata": [[name]] * len(center_S), "text": texts,
            "hovertemplate": f"<b>{in_template(label(name))}</b><br>about %{{x:,.0f}} tokens<br>%{{text}}"
            "<extra></extra>",
        },
    ]  # fmt: skip


def _length_title(words: Words, correlation: float) -> str:
    if np.isnan(correlation):
        return f"Too little varies to relate {words.symbol} to length"
    if abs(correlation) < 0.1:
        return f"{words.symbol} hardly depends on length: {signed(correlation, 2)}"
    return f"{words.symbol} {'rises' if correlation > 0 else 'falls'} with length: {signed(correlation, 2)}"


def _length_axis(edge_L: Floats) -> Figure:
    """A logarithmic axis with a label at 1, 2 and 5 of each power of ten, or at powers alone over a wide range."""
    low, high = _bounds(edge_L)
    factors = (1, 2, 5) if high / low < 60 else (1,)
    ticks = [factor * 10**power for power in range(8) for factor in factors if low <= factor * 10**power <= high]
    return {
        "type": "log", "title": {"text": "length (tokens)"}, "tickvals": ticks or [low, high],
        "ticktext": [f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:.0f}" for tick in ticks or (low, high)],
        "range": [float(np.log10(low)), float(np.log10(high))],
    }  # fmt: skip


def _bounds(edge_L: Floats) -> tuple[float, float]:
    return float(edge_L[0]), float(edge_L[-1])


def iso_levels(values_NK: Floats, span: int = 5) -> list[float]:
    """A few round values of ĝ over the bulk of a pool."""
    known = values_NK[~np.isnan(values_NK)]
    if not len(known):
        return []
    low, high = map(float, np.quantile(known, [0.03, 0.97]))
    if high <= low:
        return []
    raw = (high - low) / span
    size = 10.0 ** np.floor(np.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw)
    return [float(round(k * step, 12)) for k in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _iso_line(cells: Plane, sums: MedianSums, level: float, *, of_rho: bool, text: str) -> tuple[Figure, Figure | None]:
    """A line of equal ĝ over the chart, and its label where it leaves it; no label where it does not cross."""
    x = np.linspace(cells.x_edges[0], cells.x_edges[-1], 40 if of_rho else 2)
    x = x[x > 0]
    y = sums.brier_at(level, x) / (x if of_rho else 1.0)
    line = {
        "type": "scatter", "mode": "lines", "x": numbers(x), "y": numbers(y), "hoverinfo": "skip",
        "line": {"color": "@muted", "width": 1, "dash": "dot"},
    }  # fmt: skip
    fine_x = np.linspace(cells.x_edges[0], cells.x_edges[-1], 200)
    fine_x = fine_x[fine_x > 0]
    fine_y = sums.brier_at(level, fine_x) / (fine_x if of_rho else 1.0)
    low, high = cells.y_edges[0], cells.y_edges[-1]
    inside = np.flatnonzero((fine_y >= low) & (fine_y <= high))
    if not len(inside):
        return line, None
    last = inside[-1]
    at_right = last == len(fine_x) - 1
    anchor = "middle" if at_right else "top" if fine_y[last] > (low + high) / 2 else "bottom"
    mark = {
        "x": float(fine_x[last]), "y": float(fine_y[last]), "text": text, "showarrow": False,
        "xanchor": "right" if at_right else "center", "yanchor": anchor,
        "font": {"color": "@ink", "size": 11}, "bgcolor": "@bg.75", "borderpad": 1,
    }  # fmt: skip
    return line, mark


def _collide(one: Figure, other: Figure, cells: Plane) -> bool:
    """Whether two labels would lie on each other."""
    wide = abs(one["x"] - other["x"]) / (cells.x_edges[-1] - cells.x_edges[0])
    high = abs(one["y"] - other["y"]) / (cells.y_edges[-1] - cells.y_edges[0])
    return bool(wide < 0.2 and high < 0.05)


def _middle(edges: Floats) -> float:
    return float((edges[0] + edges[1]) / 2)


def _step(edges: Floats) -> float:
    return float(edges[1] - edges[0])


def _ends(edges: Floats) -> list[float]:
    return [float(edges[0]), float(edges[-1])]
