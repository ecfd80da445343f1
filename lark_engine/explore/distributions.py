"""How a metric is distributed: by teacher, over a plane of two metrics, and along the length of a response. Pure.

The axes of a chart span the whole frame, so that a view filter never moves them; what lies outside is counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lark_engine.scoring.matrix import Floats, Ints

Mask = NDArray[np.bool_]

_QUANTILES = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
_FINE = 512  # bins under a density, finer than any kernel


class Span(NamedTuple):
    """The part of a metric that an axis shows."""

    low: float
    high: float


class ByTeacher(NamedTuple):
    """A metric by teacher, T rows: how many candidates are in sight, and their 5, 25, 50, 75 and 95 % quantiles.

    `quantile_TQ` is NaN for a teacher with none.
    """

    num_T: Ints
    quantile_TQ: Floats

    @property
    def median_T(self) -> Floats:
        return self.quantile_TQ[:, 2]


class Densities(NamedTuple):
    """Smoothed densities of T teachers at P places; each row of `density_TP` integrates to 1 over the span.

    `part_TP` is what a part of the candidates contributes to it, smoothed alike: nowhere more than the whole.
    """

    at_P: Floats
    density_TP: Floats
    part_TP: Floats
    num_outside: int


class Plane(NamedTuple):
    """Counts of candidates over two metrics, [Y, X], with the edges of the cells, and how many lie outside."""

    x_edges: Floats
    y_edges: Floats
    count_YX: Ints
    num_outside: int


class AlongLength(NamedTuple):
    """25, 50 and 75 % quantiles of a metric for each teacher and bin of length, [T, L, 3]; NaN under `fewest`.

    `center_L` is the geometric middle of a bin in tokens, `edge_L` its L + 1 edges, `num_TL` the candidates in it.
    """

    center_L: Floats
    edge_L: Floats
    quantile_TL3: Floats
    num_TL: Ints


def grouped_quantiles(values_M: Floats, code_M: Ints, num_groups: int, probs_Q: Floats) -> Floats:
    """Quantiles of each group, [G, Q], with linear interpolation as numpy's; NaN for an empty group. No NaN in."""
    order_M = np.argsort(values_M)
    order_M = order_M[np.argsort(code_M[order_M], kind="stable")]
    sorted_M = values_M[order_M]
    num_G = np.bincount(code_M, minlength=num_groups)
    first_G = np.cumsum(num_G) - num_G
    place_GQ = np.maximum(num_G - 1, 0)[:, None] * probs_Q
    low_GQ = np.floor(place_GQ).astype(np.intp)
    high_GQ = np.minimum(low_GQ + 1, np.maximum(num_G - 1, 0)[:, None])
    if not len(sorted_M):
        return np.full(place_GQ.shape, np.nan)
    last = len(sorted_M) - 1
    below_GQ, above_GQ = (sorted_M[np.minimum(first_G[:, None] + at, last)] for at in (low_GQ, high_GQ))
    quantile_GQ = below_GQ + (above_GQ - below_GQ) * (place_GQ - low_GQ)
    return np.where(num_G[:, None] > 0, quantile_GQ, np.nan)


def by_teacher(values_NK: Floats, shown_NK: Mask, teacher_NK: Ints, num_teachers: int) -> ByTeacher:
    """Counts and quantiles of the candidates in sight that have the metric."""
    values_M, code_M = _flat(values_NK, shown_NK, teacher_NK)
    num_T = np.bincount(code_M, minlength=num_teachers)
    return ByTeacher(num_T, grouped_quantiles(values_M, code_M, num_teachers, _QUANTILES))


def span_of(values_NK: Floats, tail: float = 0.005) -> Span:
    """Where an axis begins and ends: the metric without its outermost `tail` on both sides, and a little room."""
    values_M = values_NK[~np.isnan(values_NK)]
    if not len(values_M):
        return Span(0.0, 1.0)
    low, high = map(float, np.quantile(values_M, [tail, 1 - tail]))
    room = 0.04 * (high - low) or max(abs(high), 1.0) * 0.5
    return Span(low - room, high + room)


def densities(
    values_NK: Floats, shown_NK: Mask, part_NK: Mask, teacher_NK: Ints, num_teachers: int, span: Span,
    num_points: int = 120,
) -> Densities:  # fmt: skip
    """A Gaussian kernel density of each teacher over the span, with Silverman's bandwidth of each.

    `part_NK` marks candidates, such as the selected ones, whose part of each density is given too.
    """
    valid_NK = shown_NK & ~np.isnan(values_NK)
    values_M, code_M, part_M = values_NK[valid_NK], teacher_NK[valid_NK].astype(np.intp), part_NK[valid_NK]
    inside_M = (values_M >= span.low) & (values_M <= span.high)
    values_M, code_M, part_M = values_M[inside_M], code_M[inside_M], part_M[inside_M]
    width = (span.high - span.low) / _FINE
    cell_M = code_M * _FINE + np.minimum(((values_M - span.low) / width).astype(np.intp), _FINE - 1)
    count_TF, part_TF = (
        np.bincount(cells, minlength=num_teachers * _FINE).reshape(num_teachers, _FINE)
        for cells in (cell_M, cell_M[part_M])
    )
    center_F = span.low + width * (np.arange(_FINE) + 0.5)
    at_P = np.linspace(span.low, span.high, num_points)
    quartile_T2 = grouped_quantiles(values_M, code_M, num_teachers, _QUANTILES[[1, 3]])
    bandwidth_T = _bandwidths(count_TF, center_F, quartile_T2)
    gap_PF = at_P[:, None] - center_F
    density_TP, part_TP = np.zeros((2, num_teachers, num_points))
    for teacher in np.flatnonzero(count_TF.any(axis=1)):  # a kernel each: one array of all would be large
        kernel_PF = np.exp(-0.5 * (gap_PF / bandwidth_T[teacher]) ** 2)
        # Normalized over the span, so that mass near an end is not lost outside.
        kernel_PF /= kernel_PF.sum(axis=0, keepdims=True) * (at_P[1] - at_P[0])
        total = count_TF[teacher].sum()
        density_TP[teacher] = kernel_PF @ count_TF[teacher] / total
        part_TP[teacher] = kernel_PF @ part_TF[teacher] / total
    return Densities(at_P, density_TP, part_TP, int((~inside_M).sum()))


def ecdfs(values_NK: Floats, shown_NK: Mask, teacher_NK: Ints, num_teachers: int, num_points: int = 101) -> Floats:
    """The quantiles 0, 1, …, 100 % of each teacher, [T, P]: an ECDF is these against the shares; NaN for none."""
    values_M, code_M = _flat(values_NK, shown_NK, teacher_NK)
    return grouped_quantiles(values_M, code_M, num_teachers, np.linspace(0, 1, num_points))


def plane(x_NK: Floats, y_NK: Floats, shown_NK: Mask, x_span: Span, y_span: Span, num_bins: int = 44) -> Plane:
    """How many candidates in sight fall into each cell of a grid over two metrics."""
    valid_NK = shown_NK & ~np.isnan(x_NK) & ~np.isnan(y_NK)
    x_M, y_M = x_NK[valid_NK], y_NK[valid_NK]
    inside_M = (x_M >= x_span.low) & (x_M <= x_span.high) & (y_M >= y_span.low) & (y_M <= y_span.high)
    cell_M = [
        np.minimum(((values[inside_M] - span.low) / (span.high - span.low) * num_bins).astype(np.intp), num_bins - 1)
        for values, span in ((x_M, x_span), (y_M, y_span))
    ]
    count = np.bincount(cell_M[1] * num_bins + cell_M[0], minlength=num_bins**2).reshape(num_bins, num_bins)
    edges = [np.linspace(span.low, span.high, num_bins + 1) for span in (x_span, y_span)]
    return Plane(edges[0], edges[1], count, int((~inside_M).sum()))


class MedianSums(NamedTuple):
    """The medians over problems of ΣL and of Σbrier over a problem's candidates; NaN for an empty pool."""

    nll: float
    brier: float

    def brier_at(self, g_hat: float, nll: Floats) -> Floats:
        """The Brier score at which a candidate of this L has the given g_hat: (ĝ·ΣL + L·Σbrier/ΣL) / 2."""
        return (g_hat * self.nll + nll * self.brier / self.nll) / 2.0


def median_sums(nll_NK: Floats, brier_NK: Floats) -> MedianSums:
    """Of the problems that have a candidate with both numbers."""
    valid_NK = ~np.isnan(nll_NK) & ~np.isnan(brier_NK)
    some_N = valid_NK.any(axis=1)
    if not some_N.any():
        return MedianSums(np.nan, np.nan)
    sums = [np.where(valid_NK, values_NK, 0.0).sum(axis=1)[some_N] for values_NK in (nll_NK, brier_NK)]
    return MedianSums(float(np.median(sums[0])), float(np.median(sums[1])))


def mean_g_hat(nll_NK: Floats, brier_NK: Floats) -> float:
    """The mean over problems of R/K = (Σbrier/ΣL)/K, which is the mean g_hat of a problem; NaN for an empty pool."""
    valid_NK = ~np.isnan(nll_NK) & ~np.isnan(brier_NK)
    num_N = valid_NK.sum(axis=1)
    sum_nll_N, sum_brier_N = (np.where(valid_NK, values_NK, 0.0).sum(axis=1) for values_NK in (nll_NK, brier_NK))
    some_N = (num_N > 0) & (sum_nll_N > 0)
    return float((sum_brier_N[some_N] / sum_nll_N[some_N] / num_N[some_N]).mean()) if some_N.any() else float("nan")


def along_length(
    values_NK: Floats, tokens_NK: Floats, shown_NK: Mask, teacher_NK: Ints, num_teachers: int, edge_L: Floats,
    fewest: int = 5,
) -> AlongLength:  # fmt: skip
    """Median and quartiles of a metric over bins of response length, for each teacher; bins with few are left out."""
    num_bins = len(edge_L) - 1
    valid_NK = shown_NK & ~np.isnan(values_NK) & ~np.isnan(tokens_NK)
    tokens_M = tokens_NK[valid_NK]
    bin_M = np.clip(np.searchsorted(edge_L, tokens_M, side="right") - 1, 0, num_bins - 1)
    code_M = teacher_NK[valid_NK].astype(np.intp) * num_bins + bin_M
    num_TL = np.bincount(code_M, minlength=num_teachers * num_bins).reshape(num_teachers, num_bins)
    found = grouped_quantiles(values_NK[valid_NK], code_M, num_teachers * num_bins, np.array([0.25, 0.5, 0.75]))
    quantile_TL3 = np.where(num_TL[..., None] >= fewest, found.reshape(num_teachers, num_bins, 3), np.nan)
    return AlongLength(np.sqrt(edge_L[:-1] * edge_L[1:]), edge_L, quantile_TL3, num_TL)


def length_edges(tokens_NK: Floats, num_bins: int = 12) -> Floats:
    """Edges of bins of equal ratio over the lengths of the frame, without its outermost 0.5 %; [L + 1]."""
    known_M = tokens_NK[~np.isnan(tokens_NK)]
    if not len(known_M):
        return np.geomspace(1.0, 2.0, num_bins + 1)
    low, high = np.quantile(np.maximum(known_M, 1.0), [0.005, 0.995])
    return np.geomspace(low, max(high, 1.1 * low), num_bins + 1)


def rank_correlation(x_NK: Floats, y_NK: Floats, shown_NK: Mask) -> float:
    """Spearman's correlation of two metrics within problems: ranks are taken, and centered, in each problem.

    What differs between problems (their difficulty) has no part in it. Ties share their mean rank. NaN where nothing
    varies.
    """
    valid_NK = shown_NK & ~np.isnan(x_NK) & ~np.isnan(y_NK)
    ranks = [_centered_ranks(np.where(valid_NK, values_NK, np.nan)) for values_NK in (x_NK, y_NK)]
    scale = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float((ranks[0] * ranks[1]).sum()) / scale if scale > 0 else float("nan")


def _centered_ranks(values_NK: Floats) -> Floats:
    """Mean ranks within each row minus their mean, [N, K]; 0 for NaN."""
    num_rows, num_columns = values_NK.shape
    rank_NK = np.zeros((num_rows, num_columns))
    for column in range(num_columns):  # comparisons of all pairs: ties need no care, and rows are short
        other_N1 = values_NK[:, column : column + 1]
        rank_NK += 0.5 * ((other_N1 < values_NK).astype(np.float64) - (other_N1 > values_NK))
    # Σ_j sign(v_i − v_j)/2 is the mean rank minus the mean of all ranks.
    return rank_NK


def _flat(values_NK: Floats, shown_NK: Mask, teacher_NK: Ints) -> tuple[Floats, Ints]:
    """The metric and the teacher's code of each candidate in sight that has the metric, [M] each."""
    valid_NK = shown_NK & ~np.isnan(values_NK)
    return values_NK[valid_NK], teacher_NK[valid_NK].astype(np.intp)


def _bandwidths(count_TF: Ints, center_F: NDArray[np.floating[Any]], quartile_T2: Floats) -> Floats:
    """0.9 · min(s, IQR/1.34) · n^(−1/5) of each teacher, at least the distance of two bins."""
    num_T = np.maximum(count_TF.sum(axis=1), 1)
    mean_T = count_TF @ center_F / num_T
    deviation_T = np.sqrt(np.maximum(count_TF @ center_F**2 / num_T - mean_T**2, 0.0))
    iqr_T = np.nan_to_num(quartile_T2[:, 1] - quartile_T2[:, 0]) / 1.34
    spread_T = np.where(iqr_T > 0, np.minimum(deviation_T, iqr_T), deviation_T)
    return np.maximum(0.9 * spread_T * num_T**-0.2, 2.0 * (center_F[1] - center_F[0]))
