"""The generated pool that benchmarks and browser tests look at: accepted by the engine, and as it was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.pool_texts import HOSTILE_TEACHERS, LONG_LINE
from benchmarks.scored_pool import ScoredPoolArtifacts, make_scored_pool
from lark_engine.config import SelectConfig
from lark_engine.pool.dataset import PoolData
from lark_engine.scoring.criteria import g_hat
from lark_engine.scoring.table import read_scores
from lark_engine.scoring.token_view import read_bins
from lark_engine.selection.candidates import Candidates
from lark_engine.selection.frame import SelectionFrame
from lark_engine.selection.select import candidate_table, select
from lark_engine.store.workspace import Workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ScoredPoolArtifacts:
    return make_scored_pool(Workspace(tmp_path_factory.mktemp("generated")), num_problems=60, num_candidates=33)


def test_the_engine_solves_it_and_every_oddity_is_there(made: ScoredPoolArtifacts) -> None:
    candidates = Candidates(candidate_table(made.scores, made.pool))
    assert candidates.shape == (60, 33)
    assert len(candidates.teachers) == 11
    assert SelectionFrame(candidates, SelectConfig()).solve(SelectConfig()).num_kept_N.min() >= 1
    table = candidates.table
    first = table[table["problem_id"] == "0"]
    assert first["teacher"].value_counts().tolist() == [3] * 11
    assert table["problem_id"].value_counts().min() < 33
    assert table["truncated"].sum() >= 1
    assert table["reason"].notna().sum() >= 1
    assert table["is_correct"].isna().sum() >= 1
    assert (table["is_correct"] == False).sum() >= 100  # noqa: E712
    assert table.duplicated(["problem_id", "response_hash"]).sum() >= 1
    responses = [t.response for t in PoolData(made.pool).trajectories()]
    assert min(map(len, responses)) <= 6
    assert sum("\\boxed" not in response for response in responses) >= 10


def test_the_scores_are_those_of_the_methods_formulas(made: ScoredPoolArtifacts) -> None:
    table = read_scores(made.scores)
    problem = table[table["problem_id"] == "0"]
    expected = g_hat(problem[["nll"]].to_numpy().T, problem[["brier"]].to_numpy().T)[0]
    np.testing.assert_allclose(problem["g_hat"], expected)
    same_text = table.groupby("tokens_hash")["mean_rank"].nunique()
    assert same_text.max() == 1  # copies are scored alike


def test_bins_average_to_the_score(made: ScoredPoolArtifacts) -> None:
    table = read_scores(made.scores)
    row = int(table["num_response_tokens"].idxmax())
    bins, num_tokens = read_bins(made.scores, row), int(table["num_response_tokens"][row])
    sizes = np.diff([*range(0, num_tokens, 64), num_tokens])
    assert len(bins) == len(sizes) > 1
    assert np.average(bins["nll"], weights=sizes) == pytest.approx(table["nll"][row], rel=1e-3)
    assert np.average(bins["rank"], weights=sizes) == pytest.approx(table["mean_rank"][row], rel=1e-3)


def test_the_same_seed_makes_the_same_pool_and_scores_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        make_scored_pool(Workspace(tmp_path / name), num_problems=12, num_candidates=6, seed=seed)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert (first.pool.fingerprint, first.scores.fingerprint) == (again.pool.fingerprint, again.scores.fingerprint)
    pd.testing.assert_frame_equal(read_scores(first.scores), read_scores(again.scores))
    assert first.pool.fingerprint != other.pool.fingerprint


def test_a_hostile_pool_is_selected_from_like_any_other(workspace: Workspace) -> None:
    pool, scores = make_scored_pool(workspace, num_problems=12, num_candidates=33, hostile=True)
    table = read_scores(scores)
    assert set(table["teacher"]) == set(HOSTILE_TEACHERS)
    assert scores.manifest.drops == {"no_response_token": 33}  # a prompt longer than the context
    [first] = PoolData(pool).trajectories([0])
    assert first.response == LONG_LINE and len(LONG_LINE) == 200_000
    assert any("\x00" in t.response for t in PoolData(pool).trajectories())
    assert select(SelectConfig(), workspace, scores, pool).manifest.counts["num_problems"] == 11
