"""The plan of batches: every row once, within the budget, prompts counted once, the same whatever is finished."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lark_engine.scoring.planner import Batch, plan_batches

# Rows 0-2 share a prompt of 10 tokens, rows 3-4 one of 20, row 5 has its own of 5.
PROMPT_HASH = np.array([7, 7, 7, 9, 9, 1])
NUM_PROMPT = np.array([10, 10, 10, 20, 20, 5])
NUM_RESPONSE = np.array([30, 50, 40, 10, 10, 100])


def plan(rows: list[int], batch_tokens: int, batch_size: int | None = None) -> list[Batch]:
    return plan_batches(
        np.array(rows, dtype=np.int64), PROMPT_HASH, NUM_PROMPT, NUM_RESPONSE, batch_tokens=batch_tokens,
        batch_size=batch_size,
    )  # fmt: skip


def test_a_shared_prompt_counts_once() -> None:
    [batch] = plan([0, 1, 2], 1000)
    assert batch == Batch(groups=((1, 2, 0),), num_tokens=10 + 30 + 50 + 40)


def test_whole_problems_are_packed_up_to_the_budget() -> None:
    batches = plan([0, 1, 2, 3, 4, 5], 170)
    assert [(batch.groups, batch.num_tokens) for batch in batches] == [
        (((5,), (3, 4)), 105 + 40),
        (((1, 2, 0),), 130),
    ]


def test_a_problem_beyond_the_budget_is_cut_into_parts_and_its_prompt_computed_apart() -> None:
    batches = plan([0, 1, 2], 80)
    assert batches == [
        Batch(groups=((1,),), num_tokens=60, prompt_apart=True),
        Batch(groups=((2, 0),), num_tokens=70, prompt_apart=True),
    ]


def test_a_trajectory_beyond_the_budget_goes_alone() -> None:
    assert plan([5], 50) == [Batch(groups=((5,),), num_tokens=105)]


def test_a_batch_holds_no_more_trajectories_than_asked_for() -> None:
    assert max(len(batch.rows) for batch in plan([0, 1, 2, 3, 4, 5], 1000, batch_size=2)) == 2
    assert [batch.groups for batch in plan([3, 4], 1000, batch_size=1)] == [((3,),), ((4,),)]


def test_no_rows_make_no_batches() -> None:
    assert plan([], 100) == []


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 400), st.one_of(st.none(), st.integers(1, 5)))
def test_every_row_is_planned_once_within_the_budget(data: st.DataObject, budget: int, size: int | None) -> None:
    problems = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=25))
    prompt_hash = np.array(problems) * 1_000_003
    num_prompt = 3 + 17 * np.array(problems)
    num_response = np.array(data.draw(st.lists(st.integers(1, 90), min_size=len(problems), max_size=len(problems))))
    rows = np.flatnonzero(np.array(data.draw(st.lists(st.booleans(), min_size=len(problems), max_size=len(problems)))))
    batches = plan_batches(rows, prompt_hash, num_prompt, num_response, batch_tokens=budget, batch_size=size)
    assert sorted(row for batch in batches for row in batch.rows) == rows.tolist()
    for batch in batches:
        responses = sum(int(num_response[row]) for row in batch.rows)
        assert responses <= budget or len(batch.rows) == 1
        assert size is None or len(batch.rows) <= size
        for group in batch.groups:
            assert len(set(prompt_hash[list(group)])) == 1
        assert not batch.prompt_apart or len(batch.groups) == 1
    # Nothing is computed twice: each prompt once, each response once.
    prompts = {int(h): int(p) for h, p in zip(prompt_hash[rows], num_prompt[rows], strict=True)}
    assert sum(batch.num_tokens for batch in batches) == sum(prompts.values()) + int(num_response[rows].sum())


def test_parts_of_a_problem_follow_one_another_and_the_largest_batch_comes_first() -> None:
    rng = np.random.default_rng(0)
    hashes = np.repeat(np.arange(30), 6)
    responses = rng.integers(5, 60, 180)
    batches = plan_batches(np.arange(180), hashes, np.full(180, 7), responses, batch_tokens=100)
    seen: list[int] = []
    for batch in batches:
        problem = int(hashes[batch.rows[0]])
        if batch.prompt_apart and (not seen or seen[-1] != problem):
            assert problem not in seen
            seen.append(problem)
    assert seen
    assert batches[0].num_tokens == max(batch.num_tokens for batch in batches)
    sizes = [batch.num_tokens for batch in batches]
    assert sizes != sorted(sizes, reverse=True)
