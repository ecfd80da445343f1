"""Explore's tables as cells: a problem or a candidate a row, numbers as the pages write them."""

from __future__ import annotations

from collections.abc import Mapping

from app.components.row_table import Cell, Column
from lark_engine.explore.tables import CandidateRow, ProblemRow
from lark_engine.figures.formats import count, percent
from lark_engine.figures.metric_words import METRIC_WORDS, Words, margin_words

_CORRECT = {True: "✓", False: "✗", None: "–"}


def problem_columns(energy: Words, budget: int) -> list[Column]:
    """What a problem's row says; the keys are `PROBLEM_SORTS`."""
    return [
        Column(label="Problem", key="pool", is_number=False),
        Column(label="Candidates", key="num_shown", help="in sight, of all that the pool edits leave"),
        Column(label="Mean L", key="mean_nll", help="difficulty: mean L of the candidates in sight"),
        Column(label="Correct", key="share_correct", help="share of the labeled candidates in sight"),
        Column(label="Median tokens", key="median_tokens"),
        Column(label="Rank 1", is_number=False, help="the teacher of the best candidate"),
        Column(label=f"Best {energy.symbol}", key="best"),
        Column(label=f"Margin at B = {budget}", key="margin", help=f"e{budget} − e{budget + 1}"),
    ]


def problem_cells(row: ProblemRow, slots: Mapping[str, int], energy: Words) -> list[Cell]:
    teacher = row.best_teacher
    shown = count(row.num_candidates)
    return [
        Cell(row.problem_id),
        Cell(shown if row.num_shown == row.num_candidates else f"{count(row.num_shown)} of {shown}"),
        Cell(METRIC_WORDS["nll"].say(row.mean_nll)),
        Cell(percent(row.share_correct)),
        Cell(METRIC_WORDS["num_response_tokens"].say(row.median_tokens)),
        Cell("–") if teacher is None else Cell(teacher, slots[teacher]),
        Cell(energy.say(row.best)),
        Cell(margin_words(energy).say(row.margin)),
    ]


def candidate_columns(known: Mapping[str, bool]) -> list[Column]:
    """What a candidate's row says; the keys are `CANDIDATE_SORTS`. Metrics that the scores lack have no column."""
    metrics = ("rank", "g_hat", "nll", "brier", "rho", "rsr", "num_response_tokens")
    return [
        Column(label="Candidate", key="pool", is_number=False, help="problem / candidate"),
        Column(label="Teacher", is_number=False),
        Column(label="Correct", is_number=False),
        *(Column(label=METRIC_WORDS[name].symbol, key=name) for name in metrics if known[name]),
    ]


def candidate_cells(row: CandidateRow, slots: Mapping[str, int], columns: list[Column]) -> list[Cell]:
    metrics = [column.key for column in columns if column.key not in ("", "pool")]
    return [
        Cell(f"{row.problem_id} / {row.candidate_id}"),
        Cell(row.teacher, slots[row.teacher]),
        Cell(_CORRECT[row.is_correct]),
        *(Cell("–" if name == "rank" and row.rank != row.rank else _number(row, name)) for name in metrics),
    ]


def _number(row: CandidateRow, name: str) -> str:
    value = getattr(row, name)
    return count(value) if name == "rank" else METRIC_WORDS[name].say(value)


def candidate_of(row: ProblemRow | CandidateRow) -> int | None:
    """The candidate that a row opens: its own, or the best of the problem; None for a problem without a score."""
    return row.candidate_id if isinstance(row, CandidateRow) else row.best_candidate_id
