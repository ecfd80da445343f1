"""Who wins: shares with intervals, margins, difficulty and duels against literal numbers; and the views they are of."""

from __future__ import annotations

import numpy as np
import pytest

from lark_engine.config import SelectConfig
from lark_engine.evaluation.intervals import wilson_interval
from lark_engine.explore import view, wins
from lark_engine.explore.view import Range, ViewFilter
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from tests.selection.scored_pools import random_table, ranked_by_rho, table

NAN = np.nan
EVERYTHING = ViewFilter()


def frame_of(problems: list[list[tuple[str, float]]], **options: object) -> SelectionFrame:
    return SelectionFrame(ranked_by_rho(problems), SelectConfig(energy="+rho", **options))


POOL = frame_of(
    [
        [("a", 0.9), ("b", 0.5), ("a", 0.4), ("c", 0.1)],
        [("b", 0.8), ("a", 0.7), ("c", 0.2)],
        [("c", 0.3)],
    ]
)


def shares(frame: SelectionFrame, top: int, asked: ViewFilter = EVERYTHING) -> wins.WinShares:
    seen = view.view(frame, asked, budget=3)
    teachers = frame.candidates.teachers
    return wins.win_shares(
        view.rank_NK(frame),
        frame.keep_NK,
        seen.shown_NK,
        seen.problem_N,
        frame.candidates.teacher_NK,
        len(teachers),
        top,
    )


def test_ranks_begin_at_one_and_leave_padding_out() -> None:
    assert view.rank_NK(POOL)[0].tolist() == [1, 2, 3, 4]
    assert view.rank_NK(POOL)[1, :3].tolist() == [1, 2, 3] and np.isnan(view.rank_NK(POOL)[1, 3])


def test_a_teacher_wins_a_problem_once_however_many_of_its_candidates_are_in_the_top() -> None:
    found = shares(POOL, 1)
    assert found.num_wins_T.tolist() == [1, 1, 1] and found.num_problems == 3
    found = shares(POOL, 3)
    assert found.num_wins_T.tolist() == [2, 2, 2]
    assert (found.low_T[0], found.high_T[0]) == pytest.approx(wilson_interval(2, 3))


def test_chance_is_the_share_that_random_ranks_would_give() -> None:
    found = shares(POOL, 1)
    assert found.chance_T == pytest.approx([(2 / 4 + 1 / 3 + 0) / 3, (1 / 4 + 1 / 3 + 0) / 3, (1 / 4 + 1 / 3 + 1) / 3])
    # 1 − C(2, 2)/C(4, 2) of the first problem, 1 − C(2, 2)/C(3, 2) of the second.
    assert shares(POOL, 2).chance_T[0] == pytest.approx((5 / 6 + 2 / 3 + 0) / 3)


def test_a_hidden_candidate_keeps_its_place_and_the_number_of_problems_stays() -> None:
    found = shares(POOL, 1, ViewFilter(teachers=("b",)))
    assert found.num_wins_T.tolist() == [0, 1, 0] and found.num_problems == 3


def test_a_filter_on_problems_changes_what_shares_are_of() -> None:
    found = shares(POOL, 1, ViewFilter(problem="1"))
    assert found.num_wins_T.tolist() == [0, 1, 0] and found.num_problems == 1


def test_no_problem_in_sight_has_no_shares() -> None:
    found = shares(POOL, 1, ViewFilter(problem="none such"))
    assert found.num_problems == 0 and np.isnan(found.share_T).all() and np.isnan(found.chance_T).all()


def test_the_margin_is_the_gap_between_the_last_kept_and_the_first_left_out() -> None:
    assert view.margin_N(POOL.ranked, 1)[:2] == pytest.approx([0.4, 0.1]) and np.isnan(view.margin_N(POOL.ranked, 1)[2])
    assert view.margin_N(POOL.ranked, 3)[0] == pytest.approx(0.3) and np.isnan(view.margin_N(POOL.ranked, 3)[1:]).all()
    assert np.isnan(view.margin_N(POOL.ranked, 9)).all()


def test_margins_count_coin_flips_and_what_lies_beyond_the_axis() -> None:
    even = [[("a", 1.0), ("b", 0.999), ("a", 0.0)]]
    frame = frame_of(even * 3 + [[("a", 1.0), ("b", 0.5), ("a", 0.0)]] + [[("a", 0.5)]])
    found = wins.margins(view.margin_N(frame.ranked, 1), frame.ranked, np.ones(5, dtype=bool), num_bins=4, tail=0.3)
    assert (found.num_problems, found.num_without, found.num_coin_flips) == (4, 1, 3)
    assert found.count_H.sum() + found.num_above == 4 and found.num_above == 1
    assert found.median == pytest.approx(0.001)


def test_equal_energies_are_a_coin_flip() -> None:
    frame = frame_of([[("a", 0.5), ("b", 0.5)]])
    found = wins.margins(view.margin_N(frame.ranked, 1), frame.ranked, np.ones(1, dtype=bool))
    assert (found.num_problems, found.num_coin_flips, found.num_above) == (1, 1, 0)


def test_duels_are_the_shares_of_problems_that_both_have() -> None:
    found = wins.duels(view.best_NT(POOL), np.ones(3, dtype=bool))
    assert found.num.tolist() == [[2, 2, 2], [2, 2, 2], [2, 2, 3]]
    assert found.value[0, 1] == 0.5 and found.value[0, 2] == 1.0 and found.value[2, 0] == 0.0
    assert np.isnan(np.diag(found.value)).all()


def test_a_tied_duel_counts_half() -> None:
    frame = frame_of([[("a", 0.5), ("b", 0.5)]])
    assert wins.duels(view.best_NT(frame), np.ones(1, dtype=bool)).value[0, 1] == 0.5


def test_a_grid_of_difficulty_holds_means_and_counts() -> None:
    values = np.array([[1.0, 3.0], [5.0, NAN]])
    teachers = np.array([[0, 0], [0, 1]], dtype=np.int16)
    found = wins.teacher_by_difficulty(values, np.ones((2, 2), dtype=bool), teachers, 2, np.array([1, 5]))
    assert found.value[0, 0] == 2.0 and found.value[0, 4] == 5.0 and np.isnan(found.value[1]).all()
    assert found.num.tolist() == [[2, 0, 0, 0, 1], [0, 0, 0, 0, 0]]


def test_difficulty_is_the_fifth_of_a_problem_by_its_mean_nll() -> None:
    pool = Candidates(table([[{"nll": float(n)}, {"nll": float(n)}] for n in range(10)]))
    frame = SelectionFrame(pool, SelectConfig())
    assert view.difficulty_N(frame).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_within_a_problem_values_are_in_standard_deviations_from_its_mean() -> None:
    found = view.within_problem(np.array([[1.0, 2.0, 3.0], [5.0, NAN, NAN], [4.0, 4.0, 4.0]]))
    assert found[0].tolist() == [-1.0, 0.0, 1.0]
    assert np.isnan(found[1:]).all()


def test_g_hat_is_that_of_the_pool_edits_candidates() -> None:
    pool = Candidates(random_table(3))
    frame = SelectionFrame(pool, SelectConfig(exclude_teachers=("a",)))
    found = view.metric_NK(frame, "g_hat")
    assert np.array_equal(np.isnan(found), np.isnan(frame.energy_NK))
    assert np.nanmax(np.abs(found - frame.energy_NK)) == 0


def test_what_a_released_score_file_lacks_is_not_known() -> None:
    rows = random_table(4)
    rows[["mean_rank", "num_response_tokens"]] = np.nan
    pool = Candidates(rows)
    known = {name: view.is_known(pool, name) for name in view.METRICS}
    assert known == {
        "g_hat": True, "nll": True, "brier": True, "rho": True, "rsr": False, "num_response_tokens": False, "rank": True
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (ViewFilter(), [4, 3, 1]),
        (ViewFilter(teachers=("a", "c")), [3, 2, 1]),
        (ViewFilter(teachers=("nobody",)), [0, 0, 0]),
        (ViewFilter(ranges=(Range("rho", 0.4, np.inf),)), [3, 2, 0]),
        (ViewFilter(ranges=(Range("rank", 1, 2),)), [2, 2, 1]),
        (ViewFilter(ranges=(Range("margin", 0.2, 0.5),)), [4, 0, 0]),
        (ViewFilter(beats=("a", "b")), [4, 0, 0]),
        (ViewFilter(beats=("a", "nobody")), [0, 0, 0]),
        (ViewFilter(problem="2"), [0, 0, 1]),
        (ViewFilter(teachers=("a",), beats=("b", "a")), [0, 1, 0]),
    ],
)
def test_view_filters_hide_candidates(asked: ViewFilter, shown: list[int]) -> None:
    seen = view.view(POOL, asked, budget=1)
    assert seen.shown_NK.sum(axis=1).tolist() == shown


def test_one_teacher_and_one_candidate_work() -> None:
    frame = frame_of([[("a", 0.5)]])
    assert shares(frame, 1).share_T.tolist() == [1.0]
    assert np.isnan(wins.duels(view.best_NT(frame), np.ones(1, dtype=bool)).value).all()
    assert wins.margins(view.margin_N(frame.ranked, 3), frame.ranked, np.ones(1, dtype=bool)).num_without == 1


def test_forty_teachers_work() -> None:
    frame = frame_of([[(f"teacher {n:02d}", n / 100) for n in range(40)]] * 3)
    assert shares(frame, 5).num_wins_T.tolist() == [0] * 35 + [3] * 5
    assert np.nansum(wins.duels(view.best_NT(frame), np.ones(3, dtype=bool)).value) == 40 * 39 / 2


def test_a_pool_without_any_energy_has_no_winner() -> None:
    rows = random_table(5)
    rows["nll"] = np.nan
    frame = SelectionFrame(Candidates(rows), SelectConfig())
    found = shares(frame, 3)
    assert found.num_problems == 0 and not found.num_wins_T.any()
    assert view.difficulty_N(frame).max() == 0
