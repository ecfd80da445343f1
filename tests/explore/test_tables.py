"""Tables of problems and candidates: what a row says, its place when sorted, and pages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lark_engine.config import SelectConfig
from lark_engine.explore.tables import CANDIDATE_SORTS, PAGE_SIZE, PROBLEM_SORTS, candidate_page, problem_page
from lark_engine.explore.view import View, ViewFilter, view
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from tests.selection.scored_pools import random_table, table

PROBLEMS = [
    [
        {"teacher": "a", "brier": 0.9, "nll": 1.0, "num_response_tokens": 10},
        {"teacher": "b", "brier": 0.4, "nll": 1.0, "num_response_tokens": 30, "is_correct": False},
        {"teacher": "a", "brier": 0.1, "nll": 1.0, "num_response_tokens": 50, "is_correct": None},
    ],
    [{"teacher": "b", "brier": 0.5, "nll": 3.0}, {"teacher": "b", "brier": 0.6, "nll": np.nan}],
    [{"teacher": "a", "nll": np.nan, "is_correct": None, "num_response_tokens": np.nan}],
]  # fmt: skip


def frame_of(problems: list[list[dict[str, Any]]], **options: Any) -> SelectionFrame:
    return SelectionFrame(Candidates(table(problems)), SelectConfig(energy="+rho", **options))


def seen(frame: SelectionFrame, **asked: Any) -> View:
    return view(frame, ViewFilter(**asked), budget=1)


def test_a_problem_says_how_many_how_hard_how_right_and_who_wins() -> None:
    frame = frame_of(PROBLEMS)
    first, second, third = problem_page(frame, seen(frame), budget=1, sort="pool", descending=False).rows
    assert first[:3] == ("0", 3, 3)
    assert (first.mean_nll, first.share_correct, first.median_tokens) == (1.0, 0.5, 30.0)
    assert (first.best_teacher, first.best_candidate_id, first.best) == ("a", 0, 0.9)
    assert first.margin == pytest.approx(0.5)
    assert (second.best_teacher, second.best) == ("b", pytest.approx(1 / 6)) and np.isnan(second.margin)
    assert third.best_teacher is None and third.best_candidate_id is None
    assert all(np.isnan(getattr(third, name)) for name in ("mean_nll", "share_correct", "median_tokens", "best"))


def test_a_view_filter_changes_what_is_in_sight_and_not_who_wins() -> None:
    frame = frame_of(PROBLEMS)
    rows = problem_page(frame, seen(frame, teachers=("b",)), budget=1, sort="pool", descending=False).rows
    assert [row.problem_id for row in rows] == ["0", "1"]
    assert rows[0][:3] == ("0", 1, 3)
    assert (rows[0].best_teacher, rows[0].share_correct, rows[0].median_tokens) == ("a", 0.0, 30.0)


@pytest.mark.parametrize(("descending", "order"), [(True, ["1", "0", "2"]), (False, ["0", "1", "2"])])
def test_what_is_not_known_comes_last_in_both_directions(descending: bool, order: list[str]) -> None:
    frame = frame_of(PROBLEMS)
    page = problem_page(frame, seen(frame), budget=1, sort="mean_nll", descending=descending)
    assert [row.problem_id for row in page.rows] == order


def test_a_candidate_says_its_numbers() -> None:
    frame = frame_of(PROBLEMS)
    page = candidate_page(frame, seen(frame), sort="pool", descending=False)
    assert page.num_rows == 6
    row = page.rows[1]
    assert (row.problem_id, row.candidate_id, row.teacher, row.is_correct, row.rank) == ("0", 1, "b", False, 2.0)
    assert (row.nll, row.brier, row.rho, row.rsr, row.num_response_tokens) == (1.0, 0.4, 0.4, 2.0, 30.0)
    assert row.g_hat == pytest.approx((2 * 0.4 - 1.4 / 3) / 3)
    assert page.rows[2].is_correct is None and np.isnan(page.rows[4].rank)


@pytest.mark.parametrize("sort", CANDIDATE_SORTS)
@pytest.mark.parametrize("descending", [True, False])
def test_candidates_are_sorted_by_any_column(sort: str, descending: bool) -> None:
    frame = SelectionFrame(Candidates(random_table(1, num_problems=4)), SelectConfig())
    rows = candidate_page(frame, seen(frame), sort=sort, descending=descending).rows
    if sort == "pool":
        keys = [(int(row.problem_id), row.candidate_id) for row in rows]
        assert keys == sorted(keys, reverse=descending)
        return
    known = [value for row in rows if not np.isnan(value := getattr(row, sort))]
    assert known == sorted(known, reverse=descending)
    assert not any(np.isnan(getattr(row, sort)) for row in rows[: len(known)])


@pytest.mark.parametrize("sort", PROBLEM_SORTS)
def test_problems_are_sorted_by_any_column(sort: str) -> None:
    frame = SelectionFrame(Candidates(random_table(2, num_problems=9)), SelectConfig())
    rows = problem_page(frame, seen(frame), budget=2, sort=sort, descending=True).rows
    name = "problem_id" if sort == "pool" else sort
    values = [float(getattr(row, name)) for row in rows]
    known = [value for value in values if not np.isnan(value)]
    assert len(rows) == 9 and known == sorted(known, reverse=True) == values[: len(known)]


def test_pages_hold_a_few_rows_and_the_nearest_page_is_shown() -> None:
    frame = frame_of([[{}]] * (2 * PAGE_SIZE + 3))
    page = problem_page(frame, seen(frame), budget=1, sort="pool", descending=False, number=3)
    assert (len(page.rows), page.number, page.num_pages, page.num_rows) == (3, 3, 3, 2 * PAGE_SIZE + 3)
    assert problem_page(frame, seen(frame), budget=1, sort="pool", descending=False, number=99).number == 3
    assert candidate_page(frame, seen(frame), sort="pool", descending=False, number=-1).number == 1


def test_nothing_in_sight_is_one_empty_page() -> None:
    frame = frame_of(PROBLEMS)
    assert problem_page(frame, seen(frame, teachers=("x",)), budget=1, sort="best", descending=True) == ([], 1, 1, 0)
    assert candidate_page(frame, seen(frame, teachers=("x",)), sort="g_hat", descending=True) == ([], 1, 1, 0)
