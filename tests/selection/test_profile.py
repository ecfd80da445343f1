"""How weights fall with the rank, and how τ_B differs between problems, on numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scored_pools import ranked_by_rho, table

from lark_engine.config import SelectConfig
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.profile import tau_histogram, weight_profile

BY_RHO = SelectConfig(energy="+rho")


def frame_of(*problems: tuple[float, ...]) -> SelectionFrame:
    """Problems with these energies, all of one teacher."""
    return SelectionFrame(ranked_by_rho([[("a", energy) for energy in energies] for energies in problems]), BY_RHO)


def of_budget(budget: int) -> SelectConfig:
    return BY_RHO.model_copy(update={"budget": budget})


def test_a_profile_by_hand() -> None:
    """Weights 3/4 and 1/4 of the one problem, 1 and 0 of the other."""
    profile = weight_profile(frame_of((4.0, 2.0, 1.0), (3.0, 1.0)).solve(of_budget(2)))
    assert profile.mean == pytest.approx([0.875, 0.125])
    assert profile.low == pytest.approx([0.775, 0.025])
    assert profile.high == pytest.approx([0.975, 0.225])


def test_a_mean_profile_sums_to_one_over_the_problems_that_keep_something() -> None:
    config = SelectConfig(energy="+rho", mode="sharpness", sharpness=2.0, budget=4)
    candidates = ranked_by_rho([[("a", e) for e in (5.0, 4.0, 2.0, 1.0, 0.0)], [("a", np.nan)], [("a", 3.0)]])
    solution = SelectionFrame(candidates, config).solve(config)
    assert solution.num_kept_N.tolist() == [4, 0, 1]  # one without a score must not count as one of weight 0
    profile = weight_profile(solution)
    assert profile.mean.sum() == pytest.approx(1.0)
    assert (np.diff(profile.mean) <= 0).all()


def test_ranks_beyond_the_budget_are_not_in_a_profile() -> None:
    frame = frame_of((4.0, 2.0, 1.0, 0.0))
    assert [len(weight_profile(frame.solve(of_budget(budget))).mean) for budget in (1, 2, 9)] == [1, 2, 4]


def test_an_empty_selection_has_an_empty_profile() -> None:
    frame = SelectionFrame(Candidates(table([[{}]]).iloc[:0]), SelectConfig())
    assert [part.tolist() for part in weight_profile(frame.solve(SelectConfig()))] == [[], [], []]


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        (1, [0, 1, 1, 0]),  # τ_1 = 0.25 and 1: below and at the unit, log10 −0.6 and 0
        (3, [0, 0, 2, 0]),  # τ_3 = 1.5 and 1
        (4, [0, 0, 2, 0]),  # of all candidates: as τ of K − 1
        (99, [0, 0, 2, 0]),
    ],
)
def test_tau_is_counted_in_units_of_the_median_tau_3(budget: int, counts: list[int]) -> None:
    """τ_3 is 1.5, 0 and 1, so the unit is 1; a problem with one candidate has no positive τ and no place."""
    frame = frame_of((3.0, 2.0, 1.0, 0.0), (1.0,), (2.0, 0.0))
    histogram = tau_histogram(frame, budget, num_bins=4)
    assert histogram.edges.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert histogram.counts.tolist() == counts


def test_what_lies_outside_of_the_edges_counts_at_the_ends() -> None:
    frame = frame_of((1.0, 0.0), (1e4, 0.0), (1e-4, 0.0))
    assert frame.median_tau() == pytest.approx(0.5)
    histogram = tau_histogram(frame, 1)
    assert histogram.counts.sum() == 3
    assert (histogram.counts[0], histogram.counts[-1]) == (1, 1)
    assert len(histogram.edges) == len(histogram.counts) + 1 == 41


def test_a_pool_without_a_unit_has_an_empty_histogram() -> None:
    for frame in (frame_of((1.0, 1.0), (2.0, 2.0)), SelectionFrame(Candidates(table([[{}]]).iloc[:0]), BY_RHO)):
        histogram = tau_histogram(frame, 3)
        assert histogram.counts.sum() == 0
        assert len(histogram.counts) == 40
