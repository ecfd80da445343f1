"""Problems and candidates as tables, sorted here and read a page at a time, whatever their number. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lark_engine.explore.view import METRICS, View, difficulty_N, margin_N, metric_NK, problem_ids
from lark_engine.scoring.matrix import Floats, Ints
from lark_engine.selection.frame import SelectionFrame

PAGE_SIZE = 20
PROBLEM_SORTS = ("pool", "num_shown", "mean_nll", "share_correct", "best", "margin", "median_tokens")
CANDIDATE_SORTS = ("pool", *METRICS)


class ProblemRow(NamedTuple):
    """A problem: its candidates in sight and what they say; NaN and None for what is not known.

    `best_teacher` wrote the candidate of rank 1 of all the frame's candidates, `best` is its energy, `margin` is
    e_B − e_{B+1}; they do not depend on the view.
    """

    problem_id: str
    num_shown: int
    num_candidates: int
    difficulty: int
    mean_nll: float
    share_correct: float
    median_tokens: float
    best_teacher: str | None
    best_candidate_id: int | None
    best: float
    margin: float


class CandidateRow(NamedTuple):
    """A candidate and its numbers; NaN for what is not known, `is_correct` None."""

    problem_id: str
    candidate_id: int
    teacher: str
    is_correct: bool | None
    rank: float
    g_hat: float
    nll: float
    brier: float
    rho: float
    rsr: float
    num_response_tokens: float


class Page(NamedTuple):
    """Some rows of a table: page `number` of `num_pages`, from 1, of a table of `num_rows` in all."""

    rows: list[ProblemRow] | list[CandidateRow]
    number: int
    num_pages: int
    num_rows: int


def problem_page(
    frame: SelectionFrame, seen: View, *, budget: int, sort: str, descending: bool, number: int = 1
) -> Page:
    """The problems with a candidate in sight, sorted by one of `PROBLEM_SORTS`; what is not known comes last."""
    columns = _problem_columns(frame, seen, budget)
    rows_M = np.flatnonzero(columns["num_shown"])
    if sort != "pool":
        rows_M = rows_M[_order(columns[sort][rows_M], descending)]
    elif descending:
        rows_M = rows_M[::-1]
    chosen_P, number, num_pages = _cut(rows_M, number)
    candidates = frame.candidates
    name_N = problem_ids(candidates).to_numpy(dtype=object)
    candidate_ids = candidates.table["candidate_id"].to_numpy(np.int64)
    rows = []
    for n in chosen_P:  # a page of them
        has_best = frame.ranked.num_valid_N[n] > 0
        best = int(frame.ranked.order_NK[n, 0])
        row = candidates.row_NK[n, best]
        rows.append(
            ProblemRow(
                problem_id=str(name_N[n]),
                num_shown=int(columns["num_shown"][n]),
                num_candidates=int(frame.keep_NK[n].sum()),
                difficulty=int(columns["difficulty"][n]),
                mean_nll=float(columns["mean_nll"][n]),
                share_correct=float(columns["share_correct"][n]),
                median_tokens=float(columns["median_tokens"][n]),
                best_teacher=candidates.teachers[candidates.teacher_NK[n, best]] if has_best else None,
                best_candidate_id=int(candidate_ids[row]) if has_best else None,
                best=float(columns["best"][n]),
                margin=float(columns["margin"][n]),
            )
        )
    return Page(rows, number, num_pages, len(rows_M))


def candidate_page(frame: SelectionFrame, seen: View, *, sort: str, descending: bool, number: int = 1) -> Page:
    """The candidates in sight, sorted by one of `CANDIDATE_SORTS`; what is not known comes last."""
    candidates = frame.candidates
    place_M = np.flatnonzero(seen.shown_NK)
    if sort != "pool":
        place_M = place_M[_order(metric_NK(frame, sort).reshape(-1)[place_M], descending)]
    elif descending:
        place_M = place_M[::-1]
    chosen_P, number, num_pages = _cut(place_M, number)
    row_P = candidates.row_NK.reshape(-1)[chosen_P]
    table = candidates.table.iloc[row_P]
    metrics = {name: metric_NK(frame, name).reshape(-1)[chosen_P] for name in METRICS if name in CandidateRow._fields}
    correct_P = candidates.flag_NK("is_correct").reshape(-1)[chosen_P]
    rows = [
        CandidateRow(
            problem_id=str(problem_id),
            candidate_id=int(candidate_id),
            teacher=candidates.teachers[candidates.teacher_NK.reshape(-1)[place]],
            is_correct=None if correct_P[i] < 0 else bool(correct_P[i]),
            **{name: float(values[i]) for name, values in metrics.items()},
        )
        for i, (place, problem_id, candidate_id) in enumerate(
            zip(chosen_P, table["problem_id"], table["candidate_id"], strict=True)
        )
    ]
    return Page(rows, number, num_pages, len(place_M))


def _problem_columns(frame: SelectionFrame, seen: View, budget: int) -> dict[str, Floats | Ints]:
    """What problems can be sorted by, [N] each, over the candidates in sight."""
    tokens_NK, nll_NK = (np.where(seen.shown_NK, metric_NK(frame, m), np.nan) for m in ("num_response_tokens", "nll"))
    correct_NK = np.where(seen.shown_NK, frame.candidates.flag_NK("is_correct"), -1)
    num_labeled_N = (correct_NK >= 0).sum(axis=1)
    share_N = (correct_NK == 1).sum(axis=1) / np.maximum(num_labeled_N, 1)
    return {
        "num_shown": seen.shown_NK.sum(axis=1),
        "mean_nll": _mean(nll_NK),
        "median_tokens": _median(tokens_NK),
        "share_correct": np.where(num_labeled_N > 0, share_N, np.nan),
        "difficulty": difficulty_N(frame),
        "best": np.where(frame.ranked.num_valid_N > 0, frame.ranked.best_N, np.nan),
        "margin": margin_N(frame.ranked, budget),
    }


def _mean(values_NK: Floats) -> Floats:
    num_N = (~np.isnan(values_NK)).sum(axis=1)
    return np.where(num_N > 0, np.nansum(values_NK, axis=1) / np.maximum(num_N, 1), np.nan)


def _median(values_NK: Floats) -> Floats:
    """The median of each row without its NaN, which sort last."""
    num_N = (~np.isnan(values_NK)).sum(axis=1)
    sorted_NK = np.sort(values_NK, axis=1)
    middle = [np.maximum(num_N - 1, 0) // 2, np.minimum(num_N // 2, values_NK.shape[1] - 1)]
    ends = [np.take_along_axis(sorted_NK, at[:, None], axis=1)[:, 0] for at in middle]
    return np.where(num_N > 0, (ends[0] + ends[1]) / 2, np.nan)


def _order(values_M: Floats | Ints, descending: bool) -> Ints:
    """The order of values, ties as they stand and NaN last in both directions."""
    return np.argsort(-values_M if descending else values_M, kind="stable")


def _cut(rows_M: Ints, number: int) -> tuple[Ints, int, int]:
    """The rows of a page, its number (the nearest there is), and how many pages there are."""
    num_pages = max(-(-len(rows_M) // PAGE_SIZE), 1)
    number = min(max(number, 1), num_pages)
    return rows_M[(number - 1) * PAGE_SIZE : number * PAGE_SIZE], number, num_pages
