"""The teacher quota and the token budget: their meaning by hand, and what holds for every pool."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_pools import random_table, ranked_by_rho

from lark_engine.config import SelectConfig
from lark_engine.errors import ConfigError
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame, Solution
from lark_engine.selection.select import kept_table

NAN = float("nan")
RULES: list[dict[str, Any]] = [
    {},
    {"budget": 5},
    {"mode": "sharpness", "budget": 4, "sharpness": 0.4},
    {"mode": "sharpness", "budget": 3, "sharpness": 3.0},
    {"mode": "temperature", "tau": 0.02},
    {"rule": "top_b", "budget": 2},
    {"rule": "softmax", "tau": 0.1},
    {"rule": "all"},
]


def solve(candidates: Candidates, **options: Any) -> Solution:
    config = SelectConfig(**{"energy": "+rho", **options})
    return SelectionFrame(candidates, config).solve(config)


def kept(solution: Solution) -> dict[int, list[int]]:
    """Candidates kept of each problem, best first."""
    columns = solution.kept.key % solution.frame.candidates.shape[1]
    return {int(n): columns[solution.kept.problem == n].tolist() for n in np.unique(solution.kept.problem)}


def teacher_counts(solution: Solution) -> Counter[str]:
    return Counter(solution.kept.teachers[code] for code in solution.kept.teacher)


def test_the_smallest_margin_gives_way_to_the_next_candidate() -> None:
    """Teacher a wins all four problems; half of four may stay: the two with the largest margins, 5 and 4."""
    candidates = ranked_by_rho(
        [[("a", 9.0), ("b", 4.0)], [("a", 9.0), ("b", 8.0)], [("a", 9.0), ("b", 5.0)], [("b", 7.0), ("a", 9.0)]]
    )
    solution = solve(candidates, rule="top_b", budget=1, max_teacher_share=0.5)
    assert kept(solution) == {0: [0], 1: [1], 2: [0], 3: [0]}
    assert teacher_counts(solution) == {"a": 2, "b": 2}
    assert solution.gave_way == {"over_teacher_share": 2}


def test_what_gives_way_is_weighed_without_but_energies_stay() -> None:
    problems = [[("a", 9.0), ("a", 8.0), ("d", 5.0), ("c", 1.0)], [("c", 7.0), ("b", 6.0), ("a", 0.0)]]
    config = SelectConfig(energy="+rho", budget=2, max_teacher_share=0.4)
    solution = SelectionFrame(ranked_by_rho(problems), config).solve(config)
    # Four kept, two of a: 0.4 allows one. The margin of 8 above 5 is the smaller one; d moves up.
    assert kept(solution) == {0: [0, 2], 1: [0, 1]}
    table = kept_table(solution, config)
    assert table["energy"].tolist() == [9.0, 5.0, 7.0, 6.0]
    assert table["rank"].tolist() == [1, 2, 1, 2]
    assert table["selection_prob"].tolist() == pytest.approx([8 / 12, 4 / 12, 7 / 13, 6 / 13])


def test_a_candidate_that_nothing_replaces_stays_longest_and_its_problem_may_be_dropped() -> None:
    """Teacher a alone wrote problems 0 to 2; a third of what is kept may be its own, so one of them has to do."""
    problems = [[("a", 9.0)], [("a", 9.0)], [("a", 9.0)], [("a", 5.0), ("b", 1.0)], [("c", 5.0)]]
    solution = solve(ranked_by_rho(problems), rule="top_b", budget=1, max_teacher_share=0.34)
    # Problem 3 gives way first, to b, though its margin is 4; then the later ones of those without a next.
    assert kept(solution) == {0: [0], 3: [1], 4: [0]}
    assert solution.gave_way == {"over_teacher_share": 3}


def test_the_rows_with_the_least_weight_give_way_to_the_token_budget() -> None:
    """B = 2: weights 3/4, 1/4 and 2/3, 1/3; tokens 100 each. 300 tokens leave out the row of 1/4."""
    problems = [[("a", 4.0), ("a", 2.0), ("a", 1.0)], [("a", 3.0), ("a", 2.0), ("a", 1.0)]]
    candidates = ranked_by_rho(problems, tokens=[[100] * 3] * 2)
    assert solve(candidates, budget=2, max_train_tokens=400).gave_way == {}
    solution = solve(candidates, budget=2, max_train_tokens=399)
    assert kept(solution) == {0: [0], 1: [0, 1]}
    assert solution.kept.prob.tolist() == pytest.approx([1.0, 2 / 3, 1 / 3])
    assert solution.gave_way == {"over_token_budget": 1}
    assert kept(solve(candidates, budget=2, max_train_tokens=200)) == {0: [0], 1: [0]}


def test_a_problem_is_weighed_at_its_own_smaller_budget() -> None:
    candidates = ranked_by_rho([[("a", 6.0), ("a", 5.0), ("a", 3.0), ("a", 0.0)]], tokens=[[50, 50, 50, 50]])
    solution = solve(candidates, budget=3, max_train_tokens=100)
    assert solution.kept.prob.tolist() == pytest.approx([3 / 5, 2 / 5])  # the paper rule at B = 2


def test_a_sharp_selection_falls_to_the_largest_budget_that_keeps_no_more() -> None:
    """At s = 0.3 these energies keep 1, 1, 2, 2, 3 and 5 at B = 1 … 6: where four are left, B = 5 keeps three."""
    candidates = ranked_by_rho([[("a", float(e)) for e in (9, 8, 7, 6, 5, 4, 0)]], tokens=[[10] * 7])
    sharp = {"mode": "sharpness", "sharpness": 0.3}
    assert kept(solve(candidates, budget=6, **sharp)) == {0: [0, 1, 2, 3, 4]}
    fewer = solve(candidates, budget=6, max_train_tokens=49, **sharp)
    assert kept(fewer) == {0: [0, 1, 2]}
    assert fewer.kept.prob.tolist() == solve(candidates, budget=5, **sharp).kept.prob.tolist()


def test_both_constraints_hold_together() -> None:
    problems = [[("a", 9.0), ("b", 8.0), ("c", 1.0)]] * 3 + [[("a", 9.0), ("c", 8.0), ("b", 1.0)]] * 3
    candidates = ranked_by_rho(problems, tokens=[[100, 300, 50]] * 6)
    solution = solve(candidates, rule="top_b", budget=2, max_teacher_share=0.4, max_train_tokens=1500)
    counts = teacher_counts(solution)
    assert max(counts.values()) <= 0.4 * counts.total()
    assert solution.kept.train_tokens is not None
    assert solution.kept.train_tokens <= 1500
    assert solution.gave_way.keys() == {"over_teacher_share", "over_token_budget"}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(RULES), st.sampled_from([0.25, 0.3, 0.4, 0.6, 1.0]))
def test_no_teacher_exceeds_its_share(seed: int, rule: dict[str, Any], share: float) -> None:
    candidates = Candidates(random_table(seed))
    free = solve(candidates, energy="g_hat", **rule)
    try:
        solution = solve(candidates, energy="g_hat", **rule, max_teacher_share=share)
    except ConfigError as error:
        assert "leaves nothing" in str(error)
        return
    counts = teacher_counts(solution)
    assert max(counts.values()) <= share * counts.total() + 1e-6
    sums = np.bincount(solution.kept.problem, weights=solution.kept.prob)
    assert sums[np.unique(solution.kept.problem)] == pytest.approx(1.0)
    before = teacher_counts(free)
    if max(before.values()) <= share * before.total():  # it holds already: nothing changes
        assert solution.kept.key.tolist() == free.kept.key.tolist()
        assert solution.kept.prob.tolist() == free.kept.prob.tolist()
        assert solution.gave_way == {}


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(RULES), st.sampled_from([0.3, 0.4, 0.6]), st.integers(5_000, 60_000))
def test_both_constraints_hold_or_are_refused(seed: int, rule: dict[str, Any], share: float, limit: int) -> None:
    try:
        solution = solve(
            Candidates(random_table(seed)), energy="g_hat", **rule, max_teacher_share=share, max_train_tokens=limit
        )
    except ConfigError as error:
        assert "raise it" in str(error)
        return
    counts = teacher_counts(solution)
    assert max(counts.values()) <= share * counts.total() + 1e-6
    assert solution.kept.train_tokens is not None
    assert solution.kept.train_tokens <= limit


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([*RULES, {"rule": "best_teacher"}]), st.floats(0, 1.1))
def test_tokens_fit_and_nothing_gives_way_needlessly(seed: int, rule: dict[str, Any], share: float) -> None:
    candidates = Candidates(random_table(seed))
    free = solve(candidates, energy="g_hat", **rule)
    first = np.unique(free.kept.problem, return_index=True)[1]
    tokens = (free.kept.num_prompt_tokens + free.kept.num_response_tokens).astype(int)
    least, most = int(tokens[first].sum()), int(tokens.sum())
    limit = least + int(share * (most - least))
    solution = solve(candidates, energy="g_hat", **rule, max_train_tokens=limit)
    left = set(solution.kept.key.tolist())
    assert solution.kept.train_tokens is not None
    assert solution.kept.train_tokens <= limit
    assert left >= set(free.kept.key[first].tolist())  # every problem keeps its best one
    assert left <= set(free.kept.key.tolist())
    gone = [i for i, key in enumerate(free.kept.key.tolist()) if key not in left]
    if limit >= most:
        assert not gone
    if not gone:
        assert solution.kept.prob.tolist() == free.kept.prob.tolist()
        return
    if rule.get("mode") == "sharpness":  # its number kept falls in steps, so it may lose more than was asked for
        return
    last = max(gone, key=lambda i: free.kept.prob[i])
    movable = [i for i, key in enumerate(free.kept.key.tolist()) if key in left and i not in set(first.tolist())]
    assert all(free.kept.prob[last] <= free.kept.prob[i] for i in movable)
    # Putting back the last to go would not fit; of equal weights it may be any.
    lasts = [i for i in gone if free.kept.prob[i] == free.kept.prob[last]]
    assert solution.kept.train_tokens + max(tokens[i] for i in lasts) > limit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_teacher_share": 0.3},
            r"max_teacher_share 0.3 cannot hold with 2 teachers, of which one has at least 0.5",
        ),
        ({"max_train_tokens": 150}, r"one trajectory for each of 2 problems takes 200 tokens; raise it"),
        ({"max_teacher_share": 0.5, "max_train_tokens": 5}, r"max_train_tokens 5 is too few"),
    ],
)
def test_constraints_that_cannot_hold_are_refused(options: dict[str, Any], message: str) -> None:
    problems = [[("a", 2.0), ("b", 1.0)], [("b", 2.0), ("a", 1.0)]]
    with pytest.raises(ConfigError, match=message):
        solve(ranked_by_rho(problems, tokens=[[100, 100]] * 2), budget=1, **options)


def test_a_share_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_teacher_share 0.5 leaves nothing of this selection; raise it"):
        solve(ranked_by_rho([[("a", 2.0), ("b", 1.0)]]), rule="top_b", budget=1, max_teacher_share=0.5)


def test_a_token_budget_needs_token_counts() -> None:
    rows = random_table(0).assign(num_response_tokens=NAN, num_prompt_tokens=NAN)
    with pytest.raises(ConfigError, match=r"these scores hold no token counts .* score the pool to limit them"):
        solve(Candidates(rows), max_train_tokens=10)
