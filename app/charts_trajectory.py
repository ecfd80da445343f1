"""Charts of one problem: why its candidates rank as they do, and how a response's tokens go. Pure: data → card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from app.token_heat import NAMES, Mode, scientific
from app.trajectory import Candidate, Problem
from lark_engine.explore.explain import ProblemScores, bin_contributions
from lark_engine.figures import formats, palette
from lark_engine.figures.cards import Card, Figure, label, packed
from lark_engine.scoring.summaries import BIN_TOKENS

_NUM_LINES = 5


class Window(NamedTuple):
    """Which response tokens are shown below the strip."""

    start: int
    stop: int


def why_card(problem: Problem, chosen: Candidate, versus: Candidate | None, energy: str) -> Card | None:
    """L against Brier of all candidates, with the lines of equal ĝ: one slope for the whole problem.

    ĝ ΣL = 2·brier − L·R, so that a line of equal ĝ rises by R/2 for each nat; what lies higher scores higher.
    """
    scores = problem.scores
    if scores is None or not scores.in_sums.any() or not scores.sum_nll > 0:
        return None
    shown = [c for c in problem.candidates if c.scored is not None and scores.in_sums[c.scored]]
    nll, brier = scores.nll[scores.in_sums], scores.brier[scores.in_sums]
    x_range, y_range = _padded(nll), _padded(brier)
    traces = [*_iso_lines(scores, x_range, y_range, energy), _points(shown, scores, chosen, versus)]
    note = f"n = {formats.count(len(shown))} scored candidates · lines of equal ĝ, slope R/2 = {scores.ratio / 2:.3f}"
    if energy == "g_hat" and scores.threshold is not None:
        note += " · dotted: where weight begins"
    return Card(
        key="why",
        title="Higher above the lines is more learnable",
        note=note,
        height=270,
        span=12,
        figure={
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": "L, nats per token"}, "range": x_range},
                "yaxis": {"title": {"text": "Brier per token"}, "range": y_range},
                "hovermode": "closest",
                "meta": {"problem": problem.id, "n": len(shown), "candidate": chosen.id},
            },
        },
        alt=_why_words(shown, scores, chosen),
    )


def _padded(values: np.ndarray[Any, Any]) -> list[float]:
    low, high = float(values.min()), float(values.max())
    pad = 0.12 * (high - low) or 0.1 * abs(high) or 0.1
    return [low - pad, high + pad]


def _iso_lines(scores: ProblemScores, x_range: list[float], y_range: list[float], energy: str) -> list[Figure]:
    """A few lines of equal ĝ between the corners, and the threshold's, where ĝ is what is ranked by."""
    x = np.array(x_range)
    slope, scale = scores.ratio / 2.0, scores.sum_nll / 2.0
    low, high = ((y_range[0] - slope * x_range[1]) / scale, (y_range[1] - slope * x_range[0]) / scale)
    lines = [
        {
            "type": "scatter", "mode": "lines", "x": x.tolist(), "y": (slope * x + value * scale).tolist(),
            "line": {"color": palette.token("faint", 0.6), "width": 1}, "hoverinfo": "skip",
        }
        for value in np.linspace(low, high, _NUM_LINES + 2)[1:-1]
    ]  # fmt: skip
    if energy == "g_hat" and scores.threshold is not None:
        value, rank = scores.threshold
        name = f"ĝ of rank {rank}" if rank else "where weight begins"
        y = slope * x + value * scale
        lines.append(
            {
                "type": "scatter", "mode": "lines", "x": x.tolist(), "y": y.tolist(),
                "line": {"color": palette.token("ink"), "width": 1.5, "dash": "dot"}, "hoverinfo": "name", "name": name,
            }
        )  # fmt: skip
    return lines


def _points(
    shown: Sequence[Candidate], scores: ProblemScores, chosen: Candidate, versus: Candidate | None
) -> dict[str, Any]:
    marked = {chosen.id, versus.id} if versus else {chosen.id}
    at = [int(c.scored or 0) for c in shown]
    return {
        "type": "scatter", "mode": "markers",
        "x": scores.nll[at].tolist(), "y": scores.brier[at].tolist(),
        "customdata": [[str(c.id)] for c in shown],
        "text": [
            f"{label(c.teacher)} · candidate {c.id}<br>ĝ {scores.g_hat[k]:+.4f} · rank {c.rank or '–'}"
            f"<br>ρ {scores.rho[k]:.3f}"
            for c, k in zip(shown, at, strict=True)
        ],
        "hovertemplate": "%{text}<br>L %{x:.3f} · Brier %{y:.3f}<extra></extra>",
        "marker": {
            "color": [palette.color(c.slot) for c in shown],
            "symbol": [palette.symbol(c.slot) for c in shown],
            "size": [15 if c.id in marked else 10 for c in shown],
            "opacity": [1.0 if c.weight > 0 or c.id in marked else 0.45 for c in shown],
            "line": {
                "color": [palette.token("ink") if c.id in marked else palette.token("bg") for c in shown],
                "width": [2 if c.id in marked else 0.5 for c in shown],
            },
        },
    }  # fmt: skip


def _why_words(shown: Sequence[Candidate], scores: ProblemScores, chosen: Candidate) -> str:
    best = min((c for c in shown if c.rank), key=lambda c: c.rank, default=None)
    words = f"Brier against L of {len(shown)} candidates; R is {scores.ratio:.3f}."
    if best is not None and best.scored is not None:
        words += f" Highest: candidate {best.id} of {best.teacher} with ĝ {scores.g_hat[best.scored]:+.4f}."
    if chosen.scored is not None and scores.in_sums[chosen.scored]:
        k = chosen.scored
        words += (
            f" Shown: candidate {chosen.id} with L {scores.nll[k]:.3f}, Brier {scores.brier[k]:.3f}, "
            f"ĝ {scores.g_hat[k]:+.4f}."
        )
    return words


def bin_sizes(num_bins: int, num_tokens: int | None) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Tokens of each bin: 64, and what is left in the last."""
    sizes = np.full(num_bins, BIN_TOKENS, dtype=np.int64)
    if num_tokens is not None and num_bins:
        sizes[-1] = num_tokens - BIN_TOKENS * (num_bins - 1)
    return sizes


def strip_card(
    key: str, bins: pd.DataFrame, num_tokens: int | None, mode: Mode, scores: ProblemScores | None,
    window: Window | None, name: str,
) -> Card:  # fmt: skip
    """The whole response as a strip: the mean of every 64 tokens, or what they add to ĝ; a click shows its tokens."""
    sizes = bin_sizes(len(bins), num_tokens)
    starts = BIN_TOKENS * np.arange(len(bins))
    nll, brier = bins["nll"].to_numpy(), bins["brier"].to_numpy()
    is_signed = mode == "contribution"
    if is_signed:
        assert scores is not None
        values, unit = bin_contributions(nll, brier, sizes, scores), "part of ĝ"
    else:
        values, unit = (nll, "nats") if mode == "nll" else (brier, "Brier")
    finite = np.nan_to_num(values)
    inside = np.ones(len(bins), bool) if window is None else (starts < window.stop) & (starts + sizes > window.start)
    tone = [("warn" if is_signed and value < 0 else "accent") for value in finite]
    colors = [palette.token(t, 1.0 if here else 0.35) for t, here in zip(tone, inside, strict=True)]
    top = max(float(np.abs(finite).max(initial=0.0)), 1e-12)
    ends = starts + sizes
    return Card(
        key=key,
        title=f"{name}: {NAMES[mode]} along the response",
        note=f"n = {formats.count(int(sizes.sum()))} tokens in {len(bins)} bins of {BIN_TOKENS}"
        + (" · a click shows the tokens of a bin" if window else ""),
        height=112,
        span=12,
        figure={
            "data": [
                {
                    "type": "bar", "x": packed(starts + sizes / 2), "y": packed(values), "width": packed(sizes * 0.94),
                    "customdata": [[int(start)] for start in starts],
                    "text": [f"tokens {a + 1:,}–{b:,}" for a, b in zip(starts, ends, strict=True)],
                    "textposition": "none", "marker": {"color": colors, "line": {"width": 0}},
                    "hovertemplate": "%{text}<br>%{y:.3g} " + unit + "<extra></extra>",
                }
            ],
            "layout": {
                "xaxis": {
                    "title": {"text": "response token"}, "range": [0, max(int(ends[-1]) if len(ends) else 1, 1)],
                    "showgrid": False, "tickformat": ",d",
                },
                "yaxis": {
                    "title": {"text": unit}, "range": [-top if finite.min(initial=0.0) < 0 else 0, 1.05 * top],
                    "nticks": 3, "tickformat": "~g", "zeroline": is_signed, "zerolinecolor": "@faint",
                },
                "bargap": 0,
                "meta": {"mode": mode, "n": int(sizes.sum()), "bins": len(bins)},
            },
        },
        alt=_strip_words(name, mode, values, starts, sizes),
    )  # fmt: skip


def _strip_words(name: str, mode: Mode, values: Any, starts: Any, sizes: Any) -> str:
    if not len(values):
        return f"{name}: no response token."
    highest = int(np.nanargmax(values)) if np.isfinite(values).any() else 0
    last = int(starts[highest] + sizes[highest])
    told = (
        f"they sum to {scientific(float(np.nansum(values)))}"
        if mode == "contribution"
        else f"mean {float(np.average(np.nan_to_num(values), weights=sizes)):.3f}"
    )
    return (
        f"{name}: {NAMES[mode]} in {len(values)} bins of {int(sizes.sum()):,} tokens; {told}; highest "
        f"{float(np.nan_to_num(values)[highest]):.3g} at tokens {int(starts[highest]) + 1:,} to {last:,}."
    )
