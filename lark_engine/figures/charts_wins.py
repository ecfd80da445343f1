"""The charts of Explore that show who wins: shares of problems, margins at the cut, grids of cells. Pure functions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lark_engine.explore.view import NUM_DIFFICULTIES
from lark_engine.explore.wins import COIN_FLIP, Grid, Margins, WinShares
from lark_engine.figures.cards import Card, Figure
from lark_engine.figures.charts_explore import Rows, numbers
from lark_engine.figures.formats import count, numeral, percent
from lark_engine.figures.metric_words import Words, margin_words
from lark_engine.figures.palette import color

_MOST_NUMBERS = 14  # teachers, for a grid that writes its numbers into its cells


def win_bars(found: WinShares, rows: Rows, *, top: int, energy: str, height: int, is_filtered: bool) -> Card:
    """For each teacher the share of problems in whose top it has a candidate, its interval, and what chance gives."""
    codes = list(rows.codes)
    share, low, high, chance = (values[codes] for values in (found.share_T, found.low_T, found.high_T, found.chance_T))
    hover = [
        f"<b>{text}</b><br>in the top {top} of {count(found.num_wins_T[code])} of {count(found.num_problems)} problems"
        f"<br>{percent(found.share_T[code])}, 95 % interval {percent(found.low_T[code])} to "
        f"{percent(found.high_T[code])}<br>by chance {percent(found.chance_T[code])}"
        for code, text in zip(rows.codes, rows.labels, strict=True)
    ]
    bars = {
        "type": "bar", "orientation": "h", "y": rows.places(), "x": numbers(share), "width": 0.56,
        "customdata": rows.customdata, "marker": {"color": [color(slot, 0.85) for slot in rows.slots]},
        "error_x": {
            "type": "data", "symmetric": False, "array": numbers(high - share), "arrayminus": numbers(share - low),
            "color": "@ink", "thickness": 1.2, "width": 3,
        },
        "hoverinfo": "text", "hovertext": hover, "textposition": "none",
    }  # fmt: skip
    by_chance = {
        "type": "scatter", "mode": "markers", "x": numbers(chance), "y": rows.places(), "hoverinfo": "skip",
        "marker": {"symbol": "line-ns", "size": 15, "line": {"color": "@muted", "width": 1.6}},
    }  # fmt: skip
    reach = float(np.nanmax([*high, *chance, 0.05])) if found.num_problems else 1.0
    texts = {
        "type": "scatter", "mode": "text", "x": numbers(np.maximum(high, chance)), "y": rows.places(),
        "text": [f"  {percent(value)}" for value in share], "textposition": "middle right", "hoverinfo": "skip",
        "textfont": {"color": "@ink", "size": 12}, "cliponaxis": False,
    }  # fmt: skip
    places = "the first place" if top == 1 else f"a top-{top} place"
    title = f"No teacher in sight holds {places}"
    if found.num_problems and len(rows) and share.max() > 0:
        best = int(np.argmax(share))
        title = f"{rows.names[best]} holds {places} in {percent(share[best])} of problems"
    return Card(
        key="wins", title=title,
        note=f"n = {count(found.num_problems)} problems ranked by {energy} · whisker: 95 % Wilson interval · tick: by "
        f"chance{', with all candidates; what is hidden does not count' if is_filtered else ''}",
        figure={
            "data": [bars, by_chance, texts],
            "layout": {
                "xaxis": {
                    "title": {"text": "share of problems"}, "tickformat": ".0%",
                    "range": [0, min(1.0, reach) * 1.22], "fixedrange": True,
                },
                "yaxis": rows.axis(), "hovermode": "closest", "margin": {"l": 8, "r": 8, "t": 24, "b": 8},
                "meta": {
                    "n": found.num_problems, "top": top, "teachers": list(rows.names),
                    "shares": [None if np.isnan(value) else round(float(value), 6) for value in share],
                },
            },
        },
        alt=f"Share of {count(found.num_problems)} problems in whose top {top} a teacher has a candidate: " + "; ".join(
            f"{name} {percent(a)} ({percent(b)} to {percent(c)}), by chance {percent(d)}"
            for name, a, b, c, d in zip(rows.names, share, low, high, chance, strict=True)
        ) + ".",
        height=height, span=5,
    )  # fmt: skip


def margin_histogram(found: Margins, *, budget: int, energy: Words, height: int) -> Card:
    """How far apart the last kept and the first left-out candidate are: where the selection is a coin flip."""
    if not found.num_problems:
        return Card(
            key="third", span=4, title=f"Nothing is cut at B = {budget}",
            note=f"None of the {count(found.num_without)} problems in sight has more than {budget} candidates.",
        )  # fmt: skip
    edges, words = found.edge_H, margin_words(energy)
    without = f" ({count(found.num_without)} more have too few)" if found.num_without else ""
    title = f"At B = {budget}, {percent(found.num_coin_flips / found.num_problems)} of cuts are coin flips"
    bars = {
        "type": "bar", "x": numbers((edges[:-1] + edges[1:]) / 2), "y": [int(n) for n in found.count_H],
        "width": float(edges[1] - edges[0]) * 0.92,
        "customdata": [[float(low), float(high)] for low, high in pairwise(edges)],
        "marker": {"color": "@accent.85"}, "hoverinfo": "text", "textposition": "none",
        "hovertext": [
            f"margin {words.say(low)} to {words.say(high)}<br>{count(n)} problems"
            for low, high, n in zip(edges[:-1], edges[1:], found.count_H, strict=True)
        ],
    }  # fmt: skip
    annotations = []
    if found.num_above:
        annotations.append({
            "x": 1, "y": 0.06, "xref": "paper", "yref": "paper", "xanchor": "right", "yanchor": "bottom",
            "text": f"{count(found.num_above)} beyond →", "showarrow": False, "font": {"color": "@muted", "size": 11},
        })  # fmt: skip
    flip = f"margin ≤ {COIN_FLIP:.0%} of the problem’s range of {energy.symbol}"
    return Card(
        key="third", title=title,
        note=f"n = {count(found.num_problems)} problems{without} · coin flip: {flip} · median "
        f"{words.say(found.median)}",
        figure={
            "data": [bars],
            "layout": {
                "xaxis": {
                    "title": {"text": f"e<sub>{budget}</sub> − e<sub>{budget + 1}</sub>, e = {energy.axis}"},
                    "range": [0, float(edges[-1])], "fixedrange": True,
                },
                "yaxis": {"title": {"text": "problems"}, "rangemode": "tozero", "fixedrange": True},
                "annotations": annotations, "hovermode": "closest", "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
                "meta": {
                    "n": found.num_problems, "B": budget, "coin_flips": found.num_coin_flips, "above": found.num_above,
                },
            },
        },
        alt=f"Histogram of the margin between rank {budget} and rank {budget + 1} in {count(found.num_problems)} "
        f"problems: median {words.say(found.median)}, {count(found.num_coin_flips)} are coin flips ({flip}), "
        f"{count(found.num_above)} lie beyond {words.say(edges[-1])}.",
        height=height, span=4,
    )  # fmt: skip


def difficulty_grid(found: Grid, rows: Rows, words: Words, *, height: int) -> Card:
    """The mean of a metric for each teacher and fifth of the problems by mean L. A cell is [teacher's code, fifth]."""
    values, number = found.value[list(rows.codes)], found.num[list(rows.codes)]
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    power = 3 * int(np.floor(np.log10(max(abs(low), abs(high), 1e-12)) / 3)) if len(known) else 0
    unit = f" × {10.0**-power:,.0f}" if power < 0 else f" / {10.0**power:,.0f}" if power else ""
    fifths = range(1, NUM_DIFFICULTIES + 1)
    hover = [
        f"<b>{text}</b><br>fifth {fifth} of problems by mean L<br>mean {words.say(values[row, fifth - 1])}<br>"
        f"n = {count(number[row, fifth - 1])}"
        for row, text in enumerate(rows.labels)
        for fifth in fifths
    ]
    cells = _cells(
        values, hover, [[code, fifth] for code in rows.codes for fifth in fifths],
        [numeral(value / 10.0**power, "#.3g").rstrip(".") for value in values.reshape(-1)], (low, high),
        [[0, "@accent.06"], [1, "@accent.60"]],
    )  # fmt: skip
    return Card(
        key="third", title=_difficulty_title(values, rows, words),
        note=f"n = {count(number.sum())} candidates · cell: mean {words.symbol}{unit} · columns: fifths of problems by "
        "mean L, 1 the lowest",
        figure=_grid_figure(
            cells, rows, [str(fifth) for fifth in fifths], "fifth of problems by L",
            {"n": int(number.sum()), "grid": "difficulty"},
        ),
        alt=f"Mean {words.noun} by teacher over five levels of difficulty, lowest mean L first: " + "; ".join(
            f"{name} {', '.join(words.say(value) for value in line)}"
            for name, line in zip(rows.names, values, strict=True)
        ) + ".",
        height=height, span=4,
    )  # fmt: skip


def _difficulty_title(values: NDArray[np.float64], rows: Rows, words: Words) -> str:
    gap = values[:, -1] - values[:, 0]
    if np.isnan(gap).all():
        return f"{words.symbol} by teacher and difficulty"
    if len(rows) == 1:
        return f"{words.symbol} of {rows.names[0]} {'rises' if gap[0] > 0 else 'falls'} with difficulty"
    if np.nanmin(gap) > 0 or np.nanmax(gap) < 0:
        return f"Every teacher’s {words.symbol} {'rises' if np.nanmin(gap) > 0 else 'falls'} with difficulty"
    return f"{words.symbol} of {rows.names[int(np.nanargmax(gap))]} rises most with difficulty"


def duel_grid(found: Grid, rows: Rows, *, energy: str, height: int) -> Card:
    """The share of problems in which the best candidate of the row's teacher beats that of the column's.

    Rows and columns stand in the order of their mean share. A cell is [row teacher's code, column teacher's code].
    """
    if len(rows) < 2:
        return Card(key="third", span=4, title="There is no duel", note="It takes two teachers in sight.")
    rows, mean_share = _by_duels(found, rows)
    codes = list(rows.codes)
    values, number = found.value[np.ix_(codes, codes)], found.num[np.ix_(codes, codes)]
    if len(rows) <= _MOST_NUMBERS:
        hover = [
            f"<b>{a}</b> beats<br><b>{b}</b><br>in {percent(values[i, j])} of {count(number[i, j])} problems"
            for i, a in enumerate(rows.labels)
            for j, b in enumerate(rows.labels)
        ]
    else:  # names in each of many cells would be most of the page's bytes
        hover = []
    cells = _cells(
        values, hover, [[a, b] for a in codes for b in codes],
        ["" if np.isnan(value) else f"{100 * value:.0f}" for value in values.reshape(-1)], (0.0, 1.0),
        [[0, "@warn.60"], [0.5, "@warn.00"], [0.5, "@accent.00"], [1, "@accent.60"]],
    )  # fmt: skip
    title = f"{rows.names[0]} wins {percent(mean_share[0])} of its duels"
    if np.isnan(values).all():
        title = "No problem has candidates of two teachers"
    return Card(
        key="third", title=title,
        note=f"best {energy} of the row’s teacher above the column’s, in % of the problems that have both · n up to "
        f"{count(number[~np.eye(len(rows), dtype=bool)].max(initial=0))} problems a pair",
        figure=_grid_figure(
            cells, rows, [str(n + 1) for n in range(len(rows))], "against teacher",
            {"n": int(number.max(initial=0)), "grid": "duels", "teachers": list(rows.names)},
        ),
        alt=f"Share of problems in which the best {energy} of one teacher is above another’s: " + "; ".join(
            f"{a} beats {b} in {percent(values[i, j])}"
            for i, a in enumerate(rows.names[:12]) for j, b in enumerate(rows.names[:12]) if i != j
        ) + ".",
        height=height, span=4,
    )  # fmt: skip


def _by_duels(found: Grid, rows: Rows) -> tuple[Rows, list[float]]:
    """The rows by their mean share of won problems, and these shares; −1 for a teacher without a duel."""
    codes = list(rows.codes)
    values = found.value[np.ix_(codes, codes)]
    share = [float(np.nanmean(line)) if not np.isnan(line).all() else -1.0 for line in values]
    order = sorted(range(len(codes)), key=lambda row: -share[row])
    sorted_rows = Rows(
        codes=tuple(rows.codes[row] for row in order), names=tuple(rows.names[row] for row in order),
        slots=tuple(rows.slots[row] for row in order),
    )  # fmt: skip
    return sorted_rows, [share[row] for row in order]


def _cells(
    values: NDArray[np.float64], hover: list[str], customdata: list[list[int]], texts: list[str],
    span: tuple[float, float], scale: list[list[object]],
) -> Figure:  # fmt: skip
    """Cells as bars of width 1 side by side: they fill the chart at any size, and can be clicked."""
    num_rows, num_columns = values.shape
    places = np.flatnonzero(~np.isnan(values.reshape(-1))).tolist()
    low, high = span
    cells: Figure = {
        "type": "bar", "orientation": "h", "y": [num_rows - 1 - place // num_columns for place in places],
        "base": [round(place % num_columns + 0.02, 2) for place in places], "x": [0.96] * len(places), "width": 0.92,
        "customdata": [customdata[place] for place in places], "textposition": "none",
        "hovertemplate": "%{marker.color:.1%}<extra></extra>",
        "marker": {
            "color": numbers(values.reshape(-1)[places], digits=6 if hover else 3),
            "cmin": low, "cmax": high if high > low else low + 1.0,
            "colorscale": scale, "line": {"width": 0},
        },
    }  # fmt: skip
    if hover:
        cells |= {"hovertext": [hover[place] for place in places], "hovertemplate": "%{hovertext}<extra></extra>"}
    if num_rows <= _MOST_NUMBERS:
        cells |= {
            "text": [texts[place] for place in places], "textposition": "inside", "insidetextanchor": "middle",
            "textangle": 0, "insidetextfont": {"color": "@ink", "size": 11 if num_columns <= 8 else 9.5},
            "constraintext": "inside",
        }  # fmt: skip
    return cells


def _grid_figure(cells: Figure, rows: Rows, names: list[str], title: str, meta: Figure) -> Figure:
    """A grid with its column names below."""
    axis = rows.axis(is_narrow=True)
    if meta["grid"] == "duels":
        axis["ticktext"] = [f"{text} <b>{n + 1}</b>" for n, text in enumerate(axis["ticktext"])]
    step = -(-len(names) // 20)  # of many columns only some are named
    return {
        "data": [cells],
        "layout": {
            "xaxis": {
                "title": {"text": title}, "tickvals": [n + 0.5 for n in range(0, len(names), step)],
                "ticktext": names[::step], "tickangle": 0, "range": [0, len(names)], "fixedrange": True,
                "showgrid": False, "ticks": "", "tickfont": {"size": 11},
            },
            "yaxis": {**axis, "range": [-0.55, len(rows) - 0.45]},
            "uniformtext": {"minsize": 8, "mode": "hide"}, "barmode": "overlay", "hovermode": "closest",
            "margin": {"l": 8, "r": 8, "t": 12, "b": 8}, "meta": meta,
        },
    }  # fmt: skip
