"""The selection stage: weights into train.jsonl, gates as pool edits, every drop and edge case counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lark_engine.config import PoolConfig, SelectConfig
from lark_engine.errors import ConfigError, PoolError
from lark_engine.pool.importer import import_pool
from lark_engine.scoring.criteria import g_hat
from lark_engine.selection.released import import_scores
from lark_engine.selection.select import compare_selections, plan_select, read_selection, rule_name, select
from lark_engine.store.workspace import Artifact, Workspace

# problem → [(teacher, nll, brier, is_correct)]
SCORES: dict[int, list[tuple[str, float | None, float | None, bool]]] = {
    0: [("a", 1.0, 0.50, True), ("b", 2.0, 0.60, False), ("c", 1.5, 0.70, True), ("a", 1.2, 0.40, True)],
    1: [("a", 1.0, 0.30, True), ("b", 0.5, 0.30, True)],
    2: [("c", 1.0, 0.50, False)],
    3: [("a", None, 0.50, True), ("b", 1.0, None, True)],
}


@pytest.fixture
def pool(workspace: Workspace, tmp_path: Path) -> Artifact:
    path = tmp_path / "toy.jsonl"
    with path.open("w") as file:
        for problem, candidates in SCORES.items():
            for number, (teacher, _, _, correct) in enumerate(candidates):
                text = "same words" if problem == 1 else f"solution {number} of {problem}"
                messages = [{"role": "user", "content": f"Q{problem}"}, {"role": "assistant", "content": text}]
                row = {"problem_id": problem, "candidate_id": number, "teacher": teacher, "messages": messages}
                file.write(json.dumps({**row, "is_correct": correct}) + "\n")
    return import_pool(PoolConfig(source=str(path)), workspace)


@pytest.fixture
def scores(workspace: Workspace, pool: Artifact, tmp_path: Path) -> Artifact:
    path = tmp_path / "lark_ghat.json"
    values = {
        str(problem): [
            {"candidate_id": n, "teacher": t, "L": nll, "Brier": brier} for n, (t, nll, brier, _) in enumerate(rows)
        ]
        for problem, rows in SCORES.items()
    }
    path.write_text(json.dumps({"method": "lark_ghat", "student_model": "s", "top_k": 50, "scores": values}))
    return import_scores(path, workspace, pool)


def lines(selection: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (selection.path / "train.jsonl").read_text().splitlines()]


def weights(selection: Artifact) -> dict[tuple[int, int], float]:
    return {(m["problem_id"], m["candidate_id"]): m["train_weight"] for m in (row["meta"] for row in lines(selection))}


def energies_of_problem_0(keep: list[int]) -> list[float]:
    rows = [SCORES[0][i] for i in keep]
    return g_hat(np.array([[r[1] for r in rows]], float), np.array([[r[2] for r in rows]], float))[0].tolist()


def test_the_paper_rule_reaches_train_jsonl_in_the_released_format(
    workspace: Workspace, scores: Artifact, pool: Artifact
) -> None:
    selection = select(SelectConfig(budget=2), workspace, scores, pool)
    e = energies_of_problem_0([0, 1, 2, 3])
    order = sorted(range(4), key=lambda k: -e[k])
    margins = [e[order[0]] - e[order[2]], e[order[1]] - e[order[2]]]
    got = weights(selection)
    assert got[0, order[0]] == pytest.approx(margins[0] / sum(margins))
    assert got[0, order[1]] == pytest.approx(margins[1] / sum(margins))
    assert got[2, 0] == 1.0
    first = lines(selection)[0]
    assert first["messages"][-1]["role"] == "assistant"
    assert set(first["meta"]) >= {"problem_id", "candidate_id", "teacher", "B", "score", "train_weight"}
    assert first["meta"]["B"] == 2
    sums = pd.Series(got).groupby(level=0).sum()
    assert sums.tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_edge_cases_are_counted_in_the_manifest(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    selection = select(SelectConfig(budget=2), workspace, scores, pool)
    counts = selection.manifest.counts
    assert counts["num_problems"] == 3
    assert counts["problems_with_fewer_than_budget"] == 1
    assert counts["problems_with_budget_of_all"] == 1
    assert counts["problems_with_one_candidate"] == 1
    assert counts["problems_without_energy"] == 1
    assert selection.manifest.drops == {"no_valid_candidate": 1}


def test_a_budget_above_every_k_is_allowed_and_counted(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    selection = select(SelectConfig(budget=99), workspace, scores, pool)
    assert selection.manifest.counts["problems_with_fewer_than_budget"] == 3
    assert len(read_selection(selection)) == 3 + 1 + 1  # the smallest energy of a problem has weight 0


def test_zero_weight_rows_are_kept_when_asked_for(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    selection = select(SelectConfig(budget=2, keep_zero_weight=True), workspace, scores, pool)
    assert read_selection(selection).groupby("problem_id").size().to_dict() == {"0": 2, "1": 2, "2": 1}


def test_a_problem_without_energy_is_uniform_when_the_released_behavior_is_asked_for(
    workspace: Workspace, scores: Artifact, pool: Artifact
) -> None:
    selection = select(SelectConfig(budget=1, uniform_if_no_energy=True), workspace, scores, pool)
    got = weights(selection)
    assert (got[3, 0], got[3, 1]) == (0.5, 0.5)
    assert selection.manifest.drops == {}


def test_excluding_a_teacher_recomputes_g_hat(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    selection = select(SelectConfig(budget=1, exclude_teachers=("b",)), workspace, scores, pool)
    kept = read_selection(selection).set_index(["problem_id", "candidate_id"])
    e = energies_of_problem_0([0, 2, 3])
    assert kept.loc["0"]["energy"].tolist() == pytest.approx([max(e)])
    assert selection.manifest.drops == {"excluded_teacher": 3, "no_valid_candidate": 1}


def test_gates_count_what_they_take_out(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    correct = select(SelectConfig(budget=1, correct_only=True), workspace, scores, pool)
    assert correct.manifest.drops["not_known_correct"] == 2
    alike = select(SelectConfig(budget=2, deduplicate=True), workspace, scores, pool)
    assert alike.manifest.drops["duplicate_response"] == 1


def test_gates_that_leave_nothing_are_refused_with_their_counts(
    workspace: Workspace, scores: Artifact, pool: Artifact
) -> None:
    with pytest.raises(ConfigError, match=r"no teacher 'd' in this pool; it has a, b, c"):
        select(SelectConfig(teachers=("d",)), workspace, scores, pool)
    with pytest.raises(
        ConfigError, match=r"no candidate is left to select from \(7 teacher, 2 excluded_teacher\); relax the gates"
    ):
        select(SelectConfig(teachers=("c",), exclude_teachers=("c",)), workspace, scores, pool)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"rule": "top_b", "budget": 2, "energy": "-nll"},
            {(0, 0): 0.5, (0, 3): 0.5, (1, 0): 0.5, (1, 1): 0.5, (2, 0): 1.0},
        ),
        ({"rule": "top_b", "budget": 1, "energy": "+nll"}, {(0, 1): 1.0, (1, 0): 1.0, (2, 0): 1.0}),
        ({"rule": "all", "energy": "-brier"}, {(0, 0): 0.25, (0, 1): 0.25, (0, 2): 0.25, (0, 3): 0.25}),
        ({"rule": "best_teacher", "budget": 1, "energy": "-nll"}, {(0, 0): 1.0, (1, 0): 1.0}),
        ({"rule": "top_b", "budget": 1, "energy": "+rho"}, {(0, 0): 1.0, (1, 1): 1.0, (2, 0): 1.0}),
    ],
)
def test_other_energies_and_rules(
    workspace: Workspace, scores: Artifact, pool: Artifact, options: dict[str, Any], expected: dict[Any, float]
) -> None:
    got = weights(select(SelectConfig(**options), workspace, scores, pool))
    for key, weight in expected.items():
        assert got[key] == pytest.approx(weight), key


def test_softmax_weighs_by_energy_over_tau(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    selection = select(SelectConfig(rule="softmax", energy="-nll", budget=2, tau=0.5), workspace, scores, pool)
    assert weights(selection)[1, 1] == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_random_selection_is_seeded(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    config = SelectConfig(rule="top_b", energy="random", budget=1, seed=1)
    first, other = (plan_select(c, scores, pool) for c in (config, config.model_copy(update={"seed": 2})))
    assert first.fingerprint != other.fingerprint
    assert (
        weights(select(config, workspace, scores, pool)).keys()
        == weights(select(config, workspace, scores, pool)).keys()
    )


def test_an_energy_that_released_scores_lack_is_refused(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    with pytest.raises(ConfigError, match=r"energy '-rsr' needs the column rsr, which these scores lack"):
        select(SelectConfig(energy="-rsr"), workspace, scores, pool)


def test_scores_of_another_pool_are_refused_by_name(workspace: Workspace, scores: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    path.write_text(json.dumps({"problem_id": 0, "candidate_id": 0, "teacher": "a", "messages": messages}) + "\n")
    other = import_pool(PoolConfig(source=str(path)), workspace)
    with pytest.raises(
        PoolError, match=r"8 scored candidates are not in pool other-.*, first candidate 1 of problem 0"
    ):
        select(SelectConfig(), workspace, scores, other)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budget": 0}, r"'budget' = 0: input should be greater than or equal to 1"),
        ({"B": 0}, r"'B' = 0: input should be greater than or equal to 1"),
        ({"mode": "temperature"}, r"rule chi2 in mode temperature needs tau; give --tau"),
        ({"tau": 0.1}, r"tau has no effect here"),
        ({"sharpness": 2.0}, r"sharpness has no effect here"),
        (
            {"mode": "temperature", "tau": 0.1, "B": 1},
            r"a budget has no effect here; mode temperature takes --max-budget",
        ),
        ({"rule": "top_b", "mode": "sharpness"}, r"mode sharpness has no effect on rule top_b"),
        ({"seed": 3}, r"seed has no effect here; it is for --energy random"),
        ({"B": 2, "budget": 2}, r"'budget' is given twice, under two names; give it once"),
        ({"mode": "temperature", "tau": float("inf")}, r"'tau' = inf"),
        ({"sharpnes": 2.0}, r"unknown key 'sharpnes'; did you mean 'sharpness'\?"),
        ({"max_teacher_share": 0.0}, r"'max_teacher_share' = 0.0: input should be greater than 0"),
        ({"max_teacher_share": 1.5}, r"'max_teacher_share' = 1.5: input should be less than or equal to 1"),
        ({"max_train_tokens": 0}, r"'max_train_tokens' = 0: input should be greater than or equal to 1"),
        ({"rule": "best_teacher", "max_teacher_share": 0.5}, r"max_teacher_share contradicts rule best_teacher"),
        (
            {"keep_zero_weight": True, "max_train_tokens": 9},
            r"keep_zero_weight writes rows that the rule did not choose",
        ),
        ({"uniform_if_no_energy": True, "max_teacher_share": 0.5}, r"uniform_if_no_energy writes rows that the rule"),
    ],
)
def test_options_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelectConfig.parse(values, "select")


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (SelectConfig(), "chi2-b3"),
        (SelectConfig(mode="sharpness", sharpness=2.0), "chi2-b3-s2"),
        (SelectConfig(mode="temperature", tau=0.01), "chi2-tau0.01"),
        (SelectConfig(rule="top_b", energy="random", budget=5), "top_b-b5-random"),
        (SelectConfig(rule="all", energy="-nll"), "all-low_nll"),
        (SelectConfig(max_teacher_share=0.4, max_train_tokens=20000), "chi2-b3-share0.4-20000tokens"),
    ],
)
def test_a_selection_is_named_after_its_rule(config: SelectConfig, name: str) -> None:
    assert rule_name(config) == name


def test_diagnostics_of_a_selection(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    metrics = select(SelectConfig(rule="top_b", budget=2), workspace, scores, pool).manifest.metrics
    assert metrics["num_problems"] == 3
    assert metrics["num_trajectories"] == 5
    assert metrics["kept_per_problem"] == {"1": 1, "2": 2}
    assert metrics["ess"]["mean"] == pytest.approx((2 + 2 + 1) / 3)
    # K·Σq² − 1: 4·½ − 1 = 1, 2·½ − 1 = 0, 1·1 − 1 = 0.
    assert metrics["chi2"]["mean"] == pytest.approx(1 / 3)
    assert sum(t["q"] for t in metrics["teachers"].values()) == pytest.approx(1.0)
    assert metrics["utility"]["top_1"] >= metrics["utility"]["captured"] >= metrics["utility"]["uniform"]
    assert metrics["response_tokens"] is None  # a released score file holds no token counts


def test_gates_by_length_are_refused_where_released_scores_hold_no_lengths(
    workspace: Workspace, scores: Artifact, pool: Artifact
) -> None:
    for config in (SelectConfig(min_response_tokens=5), SelectConfig(drop_truncated=True)):
        with pytest.raises(ConfigError, match=r"these scores hold no token counts .* score the pool to gate by them"):
            select(config, workspace, scores, pool)


def test_candidates_without_a_score_and_problems_without_the_best_teacher_are_counted(
    workspace: Workspace, scores: Artifact, pool: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / "part.json"
    rows = [{"candidate_id": 0, "teacher": "a", "L": 1.0, "Brier": 0.5}]
    path.write_text(json.dumps({"scores": {"0": rows}}))
    part = select(SelectConfig(), workspace, import_scores(path, workspace, pool), pool)
    assert part.manifest.drops == {"not_scored": 8}
    best = select(SelectConfig(rule="best_teacher", energy="-nll"), workspace, scores, pool)
    assert best.manifest.drops == {"without_the_best_teacher": 2}


def test_a_teachers_share_reaches_the_file_and_the_manifest(
    workspace: Workspace, scores: Artifact, pool: Artifact
) -> None:
    """By nll, c wins problem 0 and alone has problem 2, a alone has problem 1: c holds two of three.

    Problem 0 goes to a, by 0.3; a is over now, and its better candidate gives way there, by 0.2. Nothing is left to
    move up, so the later of its two problems is dropped.
    """
    config = SelectConfig(energy="+nll", rule="top_b", budget=1, exclude_teachers=("b",), max_teacher_share=0.5)
    selection = select(config, workspace, scores, pool)
    assert weights(selection) == {(0, 0): 1.0, (2, 0): 1.0}
    assert selection.manifest.counts["num_over_teacher_share"] == 3
    assert selection.manifest.drops == {"excluded_teacher": 3, "no_valid_candidate": 1, "teacher_quota": 1}


def test_a_share_of_all_is_no_constraint() -> None:
    assert SelectConfig(max_teacher_share=1.0) == SelectConfig()
    assert rule_name(SelectConfig(max_teacher_share=1.0)) == "chi2-b3"


def test_constraints_that_are_not_set_leave_the_identity_alone(scores: Artifact, pool: Artifact) -> None:
    assert "max_teacher_share" not in SelectConfig().identity()
    assert "max_train_tokens" not in SelectConfig().identity()
    plain, whole, half = (
        plan_select(config, scores, pool).fingerprint
        for config in (SelectConfig(), SelectConfig(max_teacher_share=1.0), SelectConfig(max_teacher_share=0.5))
    )
    assert plain == whole != half


def test_two_saved_selections_are_compared(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    first = select(SelectConfig(rule="top_b", budget=2), workspace, scores, pool)
    second = select(SelectConfig(rule="top_b", budget=1), workspace, scores, pool)
    result = compare_selections(first, second)
    assert (result["num_both"], result["num_only_a"], result["num_only_b"]) == (3, 2, 0)
    assert result["overlap"] == pytest.approx(3 / 5)
    assert result["weight_change"]["mean"] == pytest.approx((0.5 + 0.5 + 0.0) / 3)
    assert result["tokens"] is None  # a released score file holds no token counts
    json.dumps(result, allow_nan=False)


def test_selections_of_different_pools_are_not_compared(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    first = select(SelectConfig(), workspace, scores, pool)
    other = first.manifest.inputs["pool"].model_copy(update={"id": "other-1", "fingerprint": "1"})
    manifest = first.manifest.model_copy(update={"inputs": {**first.manifest.inputs, "pool": other}})
    with pytest.raises(PoolError, match=r"selects from pool toy-.* from other-1; compare selections of one pool"):
        compare_selections(first, Artifact(first.path, manifest))


def test_a_selection_without_a_budget_claims_none(workspace: Workspace, scores: Artifact, pool: Artifact) -> None:
    selection = select(SelectConfig(mode="temperature", tau=0.01), workspace, scores, pool)
    assert {row["meta"]["B"] for row in lines(selection)} == {None}
    assert "budget" not in selection.manifest.config


def test_a_damaged_released_file_is_refused_with_its_place(
    workspace: Workspace, pool: Artifact, tmp_path: Path
) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"scores": {"0": [{"candidate_id": 0, "teacher": "a", "L": "x", "Brier": 1}]}}')
    with pytest.raises(PoolError, match=r"bad.json: problem 0, entry 0: 'L' must be a number, found 'x'"):
        import_scores(path, workspace, pool)
