"""The neighbors of a selection, and what it shares with them."""

from __future__ import annotations

from typing import Any

import pytest
from scored_pools import random_table, ranked_by_rho

from lark_engine.config import SelectConfig
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.robustness import CRITERIA, Variant, neighbors, other_criteria, robustness


def names(config: SelectConfig, num_columns: int = 33) -> list[str]:
    return [variant.name for variant in neighbors(config, num_columns)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"budget": 3}, ["B = 2", "B = 4", "s ÷ 1.25", "s × 1.25"]),
        ({"budget": 1}, ["B = 2", "s ÷ 1.25", "s × 1.25"]),
        ({"budget": 33}, ["B = 32", "s ÷ 1.25", "s × 1.25"]),
        ({"budget": 34}, ["B = 33", "s ÷ 1.25", "s × 1.25"]),
        ({"budget": 50}, ["s ÷ 1.25", "s × 1.25"]),
        ({"mode": "sharpness", "sharpness": 0.05}, ["B = 2", "B = 4", "s × 1.25"]),
        ({"mode": "sharpness", "sharpness": 0.0625}, ["B = 2", "B = 4", "s ÷ 1.25", "s × 1.25"]),
        ({"mode": "sharpness", "sharpness": 20}, ["B = 2", "B = 4", "s ÷ 1.25"]),
        ({"mode": "sharpness", "sharpness": 16}, ["B = 2", "B = 4", "s ÷ 1.25", "s × 1.25"]),
        ({"mode": "temperature", "tau": 0.01}, ["τ ÷ 1.25", "τ × 1.25"]),
        ({"mode": "temperature", "tau": 0.01, "max_budget": 4}, ["τ ÷ 1.25", "τ × 1.25"]),
        ({"rule": "softmax", "tau": 0.5}, ["B = 2", "B = 4", "τ ÷ 1.25", "τ × 1.25"]),
        ({"rule": "top_b"}, ["B = 2", "B = 4"]),
        ({"rule": "best_teacher"}, ["B = 2", "B = 4"]),
        ({"rule": "all"}, []),
    ],
)
def test_neighbors_are_the_settings_that_the_rule_has(options: dict[str, Any], expected: list[str]) -> None:
    assert names(SelectConfig(**options)) == expected


def test_a_pool_of_one_candidate_a_problem_has_no_other_budget() -> None:
    assert names(SelectConfig(budget=1, rule="top_b"), num_columns=1) == []


def test_neighbors_change_one_thing_and_keep_the_rest() -> None:
    config = SelectConfig(
        budget=5, energy="-nll", exclude_teachers=("b",), correct_only=True, max_teacher_share=0.4, max_train_tokens=900
    )
    kept = {"energy": "-nll", "exclude_teachers": ("b",), "correct_only": True, "max_teacher_share": 0.4}
    fewer, more, sharper, flatter = (variant.config for variant in neighbors(config, 33))
    assert fewer == SelectConfig(budget=4, max_train_tokens=900, **kept)
    assert more == SelectConfig(budget=6, max_train_tokens=900, **kept)
    assert sharper == SelectConfig(budget=5, mode="sharpness", sharpness=0.8, max_train_tokens=900, **kept)
    assert flatter == SelectConfig(budget=5, mode="sharpness", sharpness=1.25, max_train_tokens=900, **kept)
    colder, warmer = (v.config for v in neighbors(SelectConfig(mode="temperature", tau=0.01, max_budget=4), 33))
    assert (colder.tau, colder.max_budget) == (0.008, 4)
    assert (warmer.tau, warmer.mode) == (0.0125, "temperature")


@pytest.mark.parametrize("options", [{}, {"mode": "sharpness", "sharpness": 0.5, "budget": 4}, {"rule": "top_b"}])
def test_the_same_rule_is_asked_of_every_other_energy(options: dict[str, Any]) -> None:
    found = other_criteria(SelectConfig(**options), budget=7)
    assert [variant.name for variant in found] == [f"by {energy}" for energy in CRITERIA]
    assert [variant.config for variant in found] == [SelectConfig(energy=e, **options) for e in CRITERIA]


def test_the_own_energy_is_no_other_criterion() -> None:
    found = other_criteria(SelectConfig(energy="-nll"), budget=3)
    assert [variant.name for variant in found] == ["by g_hat", *(f"by {e}" for e in CRITERIA if e != "-nll")]


@pytest.mark.parametrize(
    "options",
    [{"mode": "temperature", "tau": 0.01, "max_budget": 9}, {"rule": "softmax", "tau": 0.5, "budget": 6}],
)
def test_a_tau_has_the_unit_of_its_energy_and_the_top_b_takes_its_place(options: dict[str, Any]) -> None:
    found = other_criteria(SelectConfig(correct_only=True, **options), budget=4)
    assert [variant.name for variant in found] == [f"top 4 by {energy}" for energy in ("g_hat", *CRITERIA)]
    assert {variant.config.rule for variant in found} == {"top_b"}
    assert found[0].config == SelectConfig(rule="top_b", budget=4, correct_only=True)


@pytest.mark.parametrize("rule", ["all", "best_teacher"])
def test_rules_without_ranks_have_no_other_criteria(rule: str) -> None:
    assert other_criteria(SelectConfig.model_validate({"rule": rule}), budget=3) == []


@pytest.mark.parametrize("options", [{}, {"mode": "temperature", "tau": 0.01}, {"rule": "softmax", "tau": 0.1}])
def test_the_seed_of_a_random_energy_does_not_go_to_others(options: dict[str, Any]) -> None:
    config = SelectConfig(energy="random", seed=3, **options)
    by_energy = {variant.config.energy: variant.config for variant in other_criteria(config, budget=2)}
    assert by_energy["g_hat"].seed == by_energy["-nll"].seed == 0
    assert {v.config.seed for v in neighbors(config, 5)} == {3}


def test_a_selection_shares_all_of_itself() -> None:
    candidates = Candidates(random_table(2))
    config = SelectConfig(budget=4)
    frame = SelectionFrame(candidates, config)
    same = Variant("the same", SelectConfig(budget=4, mode="sharpness", sharpness=1.0))
    (found,) = robustness(frame.solve(config), [same], lambda config: frame)
    assert (found.variant.name, found.overlap) == ("the same", 1.0)
    assert found.same_weight == pytest.approx(1.0, abs=1e-12)


def test_what_stays_by_hand() -> None:
    """Weights 3/4 and 1/4 at B = 2 become 1 at B = 1: half of the two stay, with 3/4 of the weight."""
    candidates = ranked_by_rho([[("a", 4.0), ("b", 2.0), ("a", 1.0)]])
    config = SelectConfig(energy="+rho", budget=2)
    frame = SelectionFrame(candidates, config)
    fewer, more = robustness(frame.solve(config), neighbors(config, 3)[:2], lambda config: frame)
    assert (fewer.variant.name, fewer.overlap) == ("B = 1", 0.5)
    assert fewer.same_weight == pytest.approx(0.75)
    assert (more.variant.name, more.overlap) == ("B = 3", 1.0)  # the third of three has weight 0


def test_a_variant_that_the_scores_cannot_give_is_left_out() -> None:
    """A released score file holds no ranks, and so no RSR."""
    candidates = Candidates(random_table(4).drop(columns="mean_rank"))
    config = SelectConfig()
    solution = SelectionFrame(candidates, config).solve(config)
    found = robustness(solution, other_criteria(config, 3), lambda config: SelectionFrame(candidates, config))
    assert [row.variant.name for row in found] == [f"by {energy}" for energy in CRITERIA if energy != "-rsr"]
    assert all(0 <= row.overlap <= 1 and 0 <= row.same_weight <= 1 for row in found)


def test_an_empty_selection_shares_all_with_an_empty_neighbor() -> None:
    candidates = Candidates(random_table(4).iloc[:0])
    config = SelectConfig()
    frame = SelectionFrame(candidates, config)
    (found,) = robustness(frame.solve(config), [Variant("B = 4", SelectConfig(budget=4))], lambda config: frame)
    assert (found.overlap, found.same_weight) == (1.0, 1.0)
